# SPDX-License-Identifier: Apache-2.0
"""Knobs: their text as a script holds it, and what Python sees of it.

``raw`` is the word of the script: ``1.5``, ``true``, ``{parent.mix*2}`` (an expression),
``{curve x1 0 x9 1} 5`` (two numbers, the first with keys), or text with ``[value …]`` in it. A knob
whose word is an expression or a curve is evaluated when asked.
"""

import functools

from standin import knobtypes
from standin.animation import spell
from standin.knobnumbers import FALSE, TRUE, Numbers
from standin.rotopaint import CurvesOfKnob
from standin.tclscript import UserKnob, quote, split
from standin.texts import expand_frame, substitute


class Guarded:
    """An object whose public methods only Nuke's main thread may call."""

    def __init_subclass__(cls, **more):
        super().__init_subclass__(**more)
        for name in dir(cls):
            method = getattr(cls, name)
            is_ours = callable(method) and not getattr(method, "is_guarded", False)
            if is_ours and (name[0] != "_" or name == "__getitem__"):
                setattr(cls, name, _guarded(name, method))


def _guarded(name, method):
    if isinstance(method, type):
        return method

    @functools.wraps(method)
    def checked(self, *words, **more):
        self._app.check_thread(name)
        return method(self, *words, **more)

    checked.is_guarded = True
    return checked


class Knob(Numbers, CurvesOfKnob, Guarded):
    """One knob of one node."""

    _enabled, _visible, _tip, _given = True, True, None, False
    _bits = 0  # Flags that no script spells.

    def __init__(self, node, name, kind, default="", items=(), user=None):
        self._app = None if node is None else node._app
        self._node, self._name, self._kind = node, name, kind
        self._items, self._user = list(items), user
        self._default = self._raw = default

    @classmethod
    def _of_user(cls, node, user):
        kind, class_name = knobtypes.CODES.get(user.code, ("x", "Knob"))
        items = split(user.option("M")) if kind in knobtypes.MENUS else ()
        default = items[0] if items else knobtypes.DEFAULTS.get(kind, "")
        if kind in "tp" or kind == "tcl":
            default = user.option("T")
        made = class_of(class_name).__new__(class_of(class_name))
        Knob.__init__(made, node, user.name, kind, default, items, user)
        made._visible = not {"+INVISIBLE", "+HIDDEN"} & set(user.flags)
        made._enabled = "+DISABLED" not in user.flags
        return made

    # --- what Python sees ------------------------------------------------------------------------

    def name(self):
        return self._name

    def setName(self, name):
        self._name = name

    def node(self):
        return self._node

    def fullyQualifiedName(self, channel=-1):
        return f"{self._node.fullName()}.{self._name}"

    def Class(self):
        if self._user is not None:
            return knobtypes.CODES.get(self._user.code, ("x", "Knob"))[1]
        return knobtypes.CLASSES.get(self._kind, "Knob")

    def label(self):
        return "" if self._user is None else self._user.option("l", self._name)

    def setLabel(self, text):
        if self._user is not None:
            self._user.set_option("l", text)

    def tooltip(self):
        if self._tip is not None:
            return self._tip
        return "" if self._user is None else self._user.option("t")

    def setTooltip(self, text):
        self._tip = text
        if self._user is not None:
            self._user.set_option("t", text)

    def enabled(self):
        return self._enabled

    def setEnabled(self, value):
        self._enabled = bool(value)

    def visible(self):
        return self._visible

    def setVisible(self, value):
        self._visible = bool(value)

    def getFlag(self, flag):
        words = () if self._user is None else self._user.flags
        return bool(self._bits & int(flag)) or any(
            bit & int(flag) and word in words for bit, word in knobtypes.FLAGS.values()
        )

    def setFlag(self, flag):
        for bit, word in knobtypes.FLAGS.values():
            if bit & int(flag) and not word:
                self._bits |= bit
            elif bit & int(flag) and self._user is not None:
                self._user.set_flag(word, True)
        self._visible = self._visible and not self.getFlag(0x40400)

    def clearFlag(self, flag):
        for bit, word in knobtypes.FLAGS.values():
            if bit & int(flag) and not word:
                self._bits &= ~bit
            elif bit & int(flag) and self._user is not None:
                self._user.set_flag(word, False)
        self._visible = not self.getFlag(0x40400)

    def value(self, index=None):
        found = self._value_at(None)
        return found[index] if index is not None and isinstance(found, (list, tuple)) else found

    def getValue(self, index=None):
        if self._target() is not None:
            return self._target().getValue(*(() if index is None else (index,)))
        if self._kind == "m":
            return float(self._index())
        return self.value(index)

    def evaluate(self, frame=None):
        at, view = self._app.frame_and_view(frame)
        return expand_frame(self._text(at), at, view)

    getEvaluatedValue = evaluate

    def getText(self):
        return self._raw

    def setText(self, text):
        self._set_raw(text)

    def values(self):
        return list(self._items)

    def setValues(self, items):
        chosen = self._value_at(None)
        self._items = [str(item) for item in items]
        if self._raw not in self._items and self._items and self._expression() is None:
            self._raw = chosen if chosen in self._items else self._items[0]

    def numValues(self):
        return len(self._items)

    def toScript(self, quoted=False, *_, **__):
        text = self._raw.strip() if self._kind == "trk" else self._raw
        return quote(text) if quoted else text

    def fromScript(self, text):
        self._set_raw(text)
        return True

    def setValue(self, value, *more):
        target = self._target()
        if target is not None:
            return target.setValue(value, *more)
        count = self._count()
        index = more[0] if more and isinstance(more[0], int) and count > 1 else None
        if isinstance(value, (list, tuple)):
            self._set_raw(" ".join(spell(number) for number in value))
        elif count > 1 and index is not None and index >= 0:
            self._set_field(index, spell(value))
        elif count > 1 and not isinstance(value, str):
            spread = knobtypes.FIELDS[self._kind][1]
            self._set_raw(spell(value) if spread else " ".join([spell(value)] * count))
        elif self._curve(0) is not None and self._kind in knobtypes.FIELDS:
            self.setValueAt(value, more[1] if len(more) > 1 else self._app.frame)
        else:
            self._set_raw(self._spell(value))
        return True

    def setExpression(self, text, channel=-1, *_):
        count = self._count()
        for index in range(count) if channel < 0 else [channel]:
            self._set_field(index, text)

    def setRange(self, low, high):
        self._user.set_option("R", (spell(low), spell(high)))

    def min(self):
        return float(self._user.option("R", ("0", "1"))[0])

    def max(self):
        return float(self._user.option("R", ("0", "1"))[1])

    def execute(self):
        if self._kind not in knobtypes.BUTTONS:
            raise TypeError(f"{self._name} is no button")
        if self._kind == "p" and self._raw:
            self._app.run_callback(self._raw, self._node, self)

    def setCommand(self, script):
        self._default = self._raw = script
        self._user.set_option("T", script)

    def command(self):
        return self._raw

    def setLink(self, target):
        self._user.set_option("T", target)

    makeLink = setLink

    def getLink(self):
        return self._user.option("T")

    def getLinkedKnob(self):
        return self._target()

    def x(self, *_):
        return self._number(self._app.frame, 0)

    def y(self, *_):
        return self._number(self._app.frame, 1)

    def arraySize(self):
        return self._count()

    # --- inside ----------------------------------------------------------------------------------

    def _set_raw(self, raw):
        if raw == self._raw:
            return
        if self._node is None:
            self._raw = raw
            return
        self._app.note_edit(self._node, self)
        self._raw = raw
        self._node._knob_changed(self)

    def _spell(self, value):
        """Spell a Python value as this knob's word."""
        kind = self._kind
        if kind == "m":
            if isinstance(value, str):
                if value not in self._items:
                    raise ValueError(f"{self._name} has no item '{value}'")
                return value
            return self._items[int(value)]
        if kind in knobtypes.FIELDS and not isinstance(value, str):
            return self._spell_number(value)
        if kind == "fmt" and hasattr(value, "name"):
            return value.name()
        if not isinstance(value, str):
            raise TypeError(f"{self._name} takes text, not {value!r}")
        return value

    def _spell_number(self, value):
        if self._kind == "b":
            return "true" if value else "false"
        if self._kind == "i":
            return str(int(value))
        if self._kind == "m":
            return self._items[int(value)]
        return spell(value)

    def _target(self):
        """Return the knob that a link shows, or None."""
        if self._kind != "link":
            return None
        path = (self._user.option("T") or self._raw).rpartition(".")
        inner = self._node.node(path[0]) if path[0] not in ("", "this") else self._node
        if inner is None:
            raise ValueError(f"{self._name} links to {path[0]}, which is not there")
        return inner[path[2]]

    def _value_at(self, frame):
        frame = self._app.frame if frame is None else frame
        target = self._target()
        if target is not None:
            return target._value_at(frame)
        kind = self._kind
        if kind in ("b", "i", "d"):
            return {"b": bool, "i": int, "d": float}[kind](self._number(frame))
        if kind == "m":
            return self._items[self._index(frame)] if self._items else ""
        if kind in knobtypes.FIELDS:
            if knobtypes.FIELDS[kind][1] and len(split(self._raw)) == 1:
                return self._number(frame)
            return [self._number(frame, i) for i in range(self._count())]
        if kind == "fmt":
            return self._app.formats.get(self._raw)
        return self._text(frame) if kind == "f" else self._raw

    def _numbers(self, frame):
        """Return all numbers at a frame, a single word spread."""
        return [self._number(frame, i) for i in range(self._count())]

    def _number_at(self, frame, index=0):
        """Return the knob as expressions see it: a menu as its index."""
        target = self._target()
        if target is not None:
            return target._number_at(frame, index)
        if self._kind in knobtypes.FIELDS:
            return self._number(frame, index)
        return float(self._text(frame) or 0)

    def _text(self, frame=None):
        """Return the text with its ``[…]`` evaluated."""
        target = self._target()
        if target is not None:
            return target._text(frame)
        frame = self._app.frame if frame is None else frame
        if self._kind == "m":
            return str(self._value_at(frame))
        if self._kind in knobtypes.FIELDS:
            numbers = self._numbers(frame)
            if self._kind == "b":
                return str(bool(numbers[0])).lower()
            spread = knobtypes.FIELDS[self._kind][1] and len(set(numbers)) == 1
            return " ".join(f"{number:g}" for number in (numbers[:1] if spread else numbers))
        text = self._raw
        if "%{" in text and self._kind in ("e", "f"):
            from standin.gsv import filled

            text = filled(text, self._node)
        return substitute(text, self._node, frame) if "[" in text else text


_MADE = {}


def class_of(name):
    """Return the Python class of a knob's class name, as ``nuke.Boolean_Knob``."""
    if name not in _MADE:
        codes = [code for code, (_, own) in knobtypes.CODES.items() if own == name]
        _MADE[name] = type(name, (Knob,), {"__init__": _made_in_python(codes[:1])})
    return _MADE[name]


def _made_in_python(codes):
    """Return the constructor of knobs that Python makes: name, label, and items or a script."""

    def __init__(self, name, label=None, more=None, *_):
        user = UserKnob(f"{codes[0] if codes else 1} {quote(name) if name else '{}'}")
        if label is not None:
            user.set_option("l", label)
        if isinstance(more, (list, tuple)):
            user.set_option("M", " ".join(quote(str(item)) for item in more))
        elif isinstance(more, str):
            user.set_option("T", more)
        elif isinstance(more, int) and user.code == 20:
            user.set_option("n", str(more))
        made = Knob._of_user(None, user)
        self.__dict__.update(made.__dict__)
        object.__setattr__(self, "_app", _anywhere())

    return __init__


def _anywhere():
    from standin.app import App

    return App.current


__all__ = ["FALSE", "TRUE", "Guarded", "Knob", "class_of", "expand_frame", "substitute"]
