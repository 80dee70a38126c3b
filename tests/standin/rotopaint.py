# SPDX-License-Identifier: Apache-2.0
"""``nuke.rotopaint``: layers, shapes and strokes of a ``curves`` knob, with their keys.

What Python makes is kept and written into scripts in a form of the stand-in's own. The text that a
real Nuke writes there is carried along unread: such a knob shows no shapes here.
"""

import json

from standin.animation import Curve

_OURS = "standin:"
VISIBLE, LIFE_FROM, LIFE_TO, LIFE_TYPE = "vis", "ltn", "ltm", "ltt"
_STANDARD = {VISIBLE: 1.0, LIFE_TYPE: 0.0, LIFE_FROM: 0.0, LIFE_TO: 0.0, "opc": 1.0, "inv": 0.0}


class AnimCurveKey:
    """One key of an :class:`AnimCurve`."""

    def __init__(self, time, value):
        self.time, self.value = float(time), float(value)


class AnimCurve:
    """One number over time; ``constantValue`` where there are no keys."""

    def __init__(self, constant=0.0):
        self.constantValue, self._curve = float(constant), Curve()

    def addKey(self, time, value):
        self._curve.set(float(time), float(value))

    def removeKey(self, time):
        self._curve.remove(float(time))

    def removeAllKeys(self):
        self._curve = Curve()

    def getNumberOfKeys(self):
        return len(self._curve.keys)

    def getKey(self, index):
        key = self._curve.keys[index]
        return AnimCurveKey(key.x, key.y)

    def evaluate(self, time):
        return self._curve.at(time) if self._curve.keys else self.constantValue

    def _times(self):
        return [key.x for key in self._curve.keys]

    def _plain(self):
        return [self.constantValue, self._curve.spell()]

    @classmethod
    def _of(cls, plain):
        made = cls(plain[0])
        made._curve = Curve(plain[1].split()[1:])
        return made


class AnimAttributes:
    """Named numbers over time: visibility, opacity, lifetime."""

    kVisibleAttribute, kLifeTimeTypeAttribute = VISIBLE, LIFE_TYPE
    kLifeTimeNAttribute, kLifeTimeMAttribute = LIFE_FROM, LIFE_TO
    kOpacityAttribute, kInvertedAttribute = "opc", "inv"

    def __init__(self):
        self._curves = {name: AnimCurve(value) for name, value in _STANDARD.items()}

    def add(self, name, value):
        self._curves[name] = AnimCurve(value)

    def set(self, *words):
        """``set(name, value)`` or ``set(time, name, value)``."""
        if isinstance(words[0], str):
            self._curves.setdefault(words[0], AnimCurve()).constantValue = float(words[1])
        else:
            self._curves.setdefault(words[1], AnimCurve()).addKey(words[0], words[2])

    def addKey(self, time, name, value, view="main"):
        self._curves[name].addKey(time, value)

    def getCurve(self, name, view="main"):
        return self._curves[name]

    def getNumberOfKeys(self, name, view="main"):
        return self._curves[name].getNumberOfKeys()

    def getKeyTime(self, name, index, view="main"):
        return self._curves[name].getKey(index).time

    def getValue(self, time, name, view="main"):
        return self._curves[name].evaluate(time)

    def __len__(self):
        return len(self._curves)


class AnimCTransform:
    """The transform of a shape or layer, each part over time."""

    def __init__(self):
        self._parts = {
            name: [AnimCurve(1.0 if name == "Scale" else 0.0) for _ in range(3)]
            for name in ("Translation", "Rotation", "Scale", "SkewX", "PivotPoint")
        }

    def _add(self, part, time, values):
        for curve, value in zip(self._parts[part], values):
            curve.addKey(time, value)

    def addTranslationKey(self, time, x, y, pressure=0.0, view="main"):
        self._add("Translation", time, (x, y))

    def addRotationKey(self, time, *values):
        self._add("Rotation", time, values[:1] if len(values) == 1 else values[:3])

    def addScaleKey(self, time, x, y, pressure=0.0, view="main"):
        self._add("Scale", time, (x, y))

    def getTranslationAnimCurve(self, index, view="main"):
        return self._parts["Translation"][index]

    def getRotationAnimCurve(self, index, view="main"):
        return self._parts["Rotation"][index]

    def getScaleAnimCurve(self, index, view="main"):
        return self._parts["Scale"][index]

    def getSkewXAnimCurve(self, index, view="main"):
        return self._parts["SkewX"][index]

    def getPivotPointAnimCurve(self, index, view="main"):
        return self._parts["PivotPoint"][index]

    def getTranslationKeyTimes(self, view="main"):
        return self._times("Translation")

    def getTransformKeyTimes(self, view="main"):
        return sorted({time for part in self._parts for time in self._times(part)})

    def getNumberOfTransformKeys(self, view="main"):
        return len(self.getTransformKeyTimes())

    def isDefault(self):
        return not self.getTransformKeyTimes()

    def _times(self, part):
        return sorted({time for curve in self._parts[part] for time in curve._times()})


class CVec3:
    """A position: ``p.x``, ``p[0]``."""

    def __init__(self, x=0.0, y=0.0, z=0.0):
        self.x, self.y, self.z = float(x), float(y), float(z)

    def __getitem__(self, index):
        return (self.x, self.y, self.z)[index]

    def __iter__(self):
        return iter((self.x, self.y, self.z))


CVec2 = CVec3


class AnimControlPoint:
    """A position over time."""

    def __init__(self, x=0.0, y=0.0, *_):
        self._curves = [AnimCurve(x), AnimCurve(y), AnimCurve(1.0)]

    def addPositionKey(self, time, position, view="main"):
        for curve, value in zip(self._curves, position):
            curve.addKey(time, value)

    def setPosition(self, position, view="main"):
        for curve, value in zip(self._curves, position):
            curve.constantValue = float(value)

    def removePositionKey(self, time, view="main"):
        for curve in self._curves:
            curve.removeKey(time)

    def removeAllKeys(self, view="main"):
        for curve in self._curves:
            curve.removeAllKeys()

    def getControlPointKeyTimes(self, view="main"):
        return sorted({time for curve in self._curves for time in curve._times()})

    def getPosition(self, time, view="main"):
        return CVec3(*(curve.evaluate(time) for curve in self._curves))

    evaluate = getPosition

    def getPositionAnimCurve(self, index, view="main"):
        return self._curves[index]


class ShapeControlPoint:
    """A point of a shape: its centre, tangents and feather, each an :class:`AnimControlPoint`."""

    _PARTS = (
        "center",
        "leftTangent",
        "rightTangent",
        "featherCenter",
        "featherLeftTangent",
        "featherRightTangent",
    )

    def __init__(self, x=0.0, y=0.0, *_):
        for name in self._PARTS:
            setattr(self, name, AnimControlPoint(*((x, y) if name == "center" else ())))


class Element:
    """What layers, shapes and strokes have in common; a sequence of what it holds."""

    def __init__(self, knob=None, *points, name="", **_):
        self.name, self.locked = name, False
        self._knob, self._members = knob, []
        self._attributes, self._transform = AnimAttributes(), AnimCTransform()
        for point in points:
            self.append(point)

    def append(self, member):
        self._members.append(self._member(member))

    def insert(self, index, member):
        self._members.insert(index, self._member(member))

    def remove(self, index):
        del self._members[index]

    def _member(self, member):
        return member

    def __iter__(self):
        return iter(self._members)

    def __len__(self):
        return len(self._members)

    def __getitem__(self, index):
        return self._members[index]

    def getAttributes(self):
        return self._attributes

    def getTransform(self):
        return self._transform

    def getVisible(self, time):
        return bool(self._attributes.getValue(time, VISIBLE))

    def setVisible(self, time, value):
        self._attributes.addKey(time, VISIBLE, value)

    @property
    def visible(self):
        return bool(self._attributes.getCurve(VISIBLE).constantValue)

    @visible.setter
    def visible(self, value):
        self._attributes.getCurve(VISIBLE).constantValue = float(value)


class Layer(Element):
    """A layer: elements inside an element."""

    def removeAll(self):
        self._members.clear()


class Shape(Element):
    """A shape: a closed curve of :class:`ShapeControlPoint`."""

    def _member(self, member):
        return member if isinstance(member, ShapeControlPoint) else ShapeControlPoint(*member)


class Stroke(Element):
    """A stroke: a line of :class:`AnimControlPoint`, alive for some frames."""

    def _member(self, member):
        return member if isinstance(member, AnimControlPoint) else AnimControlPoint(*member)


class CurvesOfKnob:
    """What only a ``curves`` knob has: the tree of its elements."""

    _tree = _tree_raw = None

    @property
    def rootLayer(self):
        if self._tree is None or self._tree_raw != self._raw:
            self._tree = _read(self._raw, self)
            self._tree_raw = self._raw
        return self._tree

    def toElement(self, path):
        """Return an element by its name, or ``Layer/Name``."""
        found = self.rootLayer
        for part in path.split("/"):
            found = next((e for e in found if e.name == part), None)
            if found is None:
                return None
        return found

    def changed(self):
        """Keep what was done to the elements."""
        self._keep_curves()

    def _keep_curves(self):
        if self._tree is not None:
            self._raw = self._tree_raw = _OURS + json.dumps(_plain(self._tree))


def _plain(element):
    kind = type(element).__name__
    attributes = {name: curve._plain() for name, curve in element._attributes._curves.items()}
    transform = {name: [c._plain() for c in p] for name, p in element._transform._parts.items()}
    if kind == "Layer":
        members = [_plain(member) for member in element]
    elif kind == "Shape":
        members = [
            {part: [c._plain() for c in getattr(p, part)._curves] for part in p._PARTS}
            for p in element
        ]
    else:
        members = [[c._plain() for c in point._curves] for point in element]
    return {
        "kind": kind,
        "name": element.name,
        "locked": element.locked,
        "attributes": attributes,
        "transform": transform,
        "members": members,
    }


def _read(raw, knob):
    if not raw.startswith(_OURS):
        return Layer(knob, name="Root")
    return _element(json.loads(raw[len(_OURS) :]), knob)


def _element(plain, knob):
    made = {"Layer": Layer, "Shape": Shape, "Stroke": Stroke}[plain["kind"]](knob)
    made.name, made.locked = plain["name"], plain["locked"]
    made._attributes._curves = {n: AnimCurve._of(c) for n, c in plain["attributes"].items()}
    parts = plain["transform"].items()
    made._transform._parts = {n: [AnimCurve._of(c) for c in p] for n, p in parts}
    for member in plain["members"]:
        if plain["kind"] == "Layer":
            made.append(_element(member, knob))
        elif plain["kind"] == "Stroke":
            made.append(_point(member))
        else:
            point = ShapeControlPoint()
            for part, curves in member.items():
                setattr(point, part, _point(curves))
            made.append(point)
    return made


def _point(curves):
    point = AnimControlPoint()
    point._curves = [AnimCurve._of(curve) for curve in curves]
    return point
