# SPDX-License-Identifier: Apache-2.0
"""Nodes: class, knobs, inputs; groups and the root, which have nodes of their own."""

from standin import classes
from standin.formats import FrameRange
from standin.knobs import Guarded, Knob, class_of
from standin.knobtable import KnobTable
from standin.knobtypes import CLASSES
from standin.lookup import Names

INPUTS, HIDDEN_INPUTS, EXPRESSIONS, LINKINPUTS = 1, 2, 4, 8


class Node(Names, Guarded):
    """One node: class, knobs, inputs. A Group or the Root holds nodes of its own."""

    def __init__(self, app, cls, group):
        self._app, self._cls, self._group = app, cls, group
        self._inputs, self._children, self._notes = [], [], []
        self._names, self._counts = {}, {}
        self._known = classes.knobs_of(cls)
        table = self._known if self._known is not None else classes.common_knobs()
        self._knobs = KnobTable(table, self._own)
        self._clone_of, self._alive, self._spelt, self._plus = None, True, cls, ""
        self._is_elsewhere = False  # A LiveGroup whose nodes are in a file of its own.

    def _own(self, name, kind, default="", items=()):
        of_kind = class_of(CLASSES.get(kind, "Knob"))
        made = of_kind.__new__(of_kind)
        Knob.__init__(made, self, name, kind, default, items)
        return made

    # --- what Python sees ------------------------------------------------------------------------

    def Class(self):
        return self._cls

    def name(self):
        self._check_alive()
        return self._knobs["name"]._raw

    def fullName(self):
        self._check_alive()
        parent = self._group
        above = "" if parent is None or parent._group is None else parent.fullName() + "."
        return above + self.name()

    def setName(self, name, uncollide=True, updateExpressions=False):
        self._rename(self._group._free_name(name, self) if uncollide else name)

    def parent(self):
        return self._group

    def knobs(self):
        return self._knobs.whole()

    def allKnobs(self):
        return list(self._knobs.values())

    def numKnobs(self):
        return len(self._knobs)

    def knob(self, name):
        return self._knobs.get(name)

    def addKnob(self, knob):
        knob._node, knob._app = self, self._app
        self._knobs[knob._name] = knob

    def removeKnob(self, knob):
        self._knobs.pop(knob._name, None)

    def __getitem__(self, name):
        if name not in self._knobs:
            raise NameError(f"knob {name} does not exist")
        return self._knobs[name]

    def __contains__(self, name):
        return name in self._knobs

    def input(self, index):
        return self._inputs[index] if 0 <= index < len(self._inputs) else None

    def setInput(self, index, node):
        if node is not None and node._group is not self._group:
            raise RuntimeError("nodes of two groups cannot be connected")
        while len(self._inputs) <= index:
            self._inputs.append(None)
        self._app.note_edit(self, None)
        self._inputs[index] = node
        self._app.input_changed(self)
        return True

    def connectInput(self, index, node):
        return self.setInput(index, node)

    def canSetInput(self, index, node):
        return node is None or node._group is self._group

    def inputs(self):
        connected = [i for i, node in enumerate(self._inputs) if node is not None]
        return connected[-1] + 1 if connected else 0

    def maxInputs(self):
        if self._cls in classes.GROUPS:
            return len([n for n in self._children if n._cls == "Input"])
        return max(classes.inputs_of(self._cls), len(self._inputs))

    def optionalInput(self):
        mask = classes.mask_input_of(self._cls)
        return 0 if mask is None else mask

    def dependencies(self, what=INPUTS | HIDDEN_INPUTS | EXPRESSIONS):
        hidden = self._knobs["hide_input"]._number(0) if "hide_input" in self._knobs else 0
        wired = what & (HIDDEN_INPUTS if hidden else INPUTS)
        found = [node for node in self._inputs if node is not None and wired]
        if what & EXPRESSIONS:
            found += [n for n in self._asked() if n not in found and n is not self]
        return found

    def dependent(self, what=INPUTS | HIDDEN_INPUTS | EXPRESSIONS, forceEvaluate=True):
        return [n for n in self._app.everything() if n is not self and self in n.dependencies(what)]

    def xpos(self):
        return int(float(self._knobs["xpos"]._raw or 0))

    def ypos(self):
        return int(float(self._knobs["ypos"]._raw or 0))

    def setXpos(self, x):
        self._knobs["xpos"]._raw = str(int(x))

    def setYpos(self, y):
        self._knobs["ypos"]._raw = str(int(y))

    def setXYpos(self, x, y):
        self.setXpos(x)
        self.setYpos(y)

    def screenWidth(self):
        return 80

    def screenHeight(self):
        return 18

    def setSelected(self, on):
        self._knobs["selected"]._raw = "true" if on else "false"

    def isSelected(self):
        return self._knobs["selected"]._raw == "true"

    def frameRange(self):
        return FrameRange(*self._range())

    def firstFrame(self):
        return self._range()[0]

    def lastFrame(self):
        return self._range()[1]

    def format(self):
        return self._app.pixels.format_of(self)

    def width(self):
        return self.format().width()

    def height(self):
        return self.format().height()

    def pixelAspect(self):
        return self.format().pixelAspect()

    def bbox(self):
        return self._app.pixels.bbox_of(self, self._app.frame)

    def proxy(self):
        return bool(self._app.root._knobs["proxy"].value())

    def channels(self):
        return self._app.pixels.channels_of(self, self._app.frame)

    def metadata(self, key=None, time=None, view=None):
        at = self._app.frame if time is None else time
        found = self._app.pixels.metadata_of(self, at)
        return found if key is None else found.get(key)

    def sample(self, channel, x, y, dx=1, dy=1, frame=None):
        at = self._app.frame if frame is None else frame
        return self._app.pixels.sample(self, at, channel, x, y)

    def opHashes(self):
        return [self._hash({})]

    def hasError(self):
        return False

    def error(self):
        return False

    def isGroup(self):
        return self._cls in classes.GROUPS

    def showControlPanel(self, forceFloat=False):
        self._app.panel_shown(self)

    def hideControlPanel(self):
        self._app.panels.discard(self._knobs["name"]._raw)

    def shown(self):
        return self._knobs["name"]._raw in self._app.panels

    def autoplace(self):
        return None

    def redraw(self):
        return None

    def forceValidate(self):
        return True

    def writeKnobs(self, flags=0):
        from standin.dump import knob_lines

        return "\n".join(line.strip() for line in knob_lines(self, ""))

    def readKnobs(self, text):
        from standin.builder import fill_knobs

        fill_knobs(self, text)

    # Groups and the root.

    def nodes(self):
        return list(self._children)

    def node(self, name):
        found = self
        for part in name.split("."):
            found = found._names.get(part)
            if found is None:
                return None
        return found

    def numNodes(self):
        return len(self._children)

    def begin(self):
        self._app.enter(self)
        return self

    def end(self):
        self._app.leave()

    def run(self, call):
        with self:
            return call()

    def __enter__(self):
        return self.begin()

    def __exit__(self, *exc):
        self.end()

    # --- inside ----------------------------------------------------------------------------------

    def _check_alive(self):
        if not self._alive:
            raise ValueError("A PythonObject is not attached to a node")

    def _knob_changed(self, knob):
        """Run the node's own knobChanged, then what was added; never inside itself."""
        if self._app.in_knob_changed or self._app.loading:
            return
        self._app.in_knob_changed = True
        try:
            script = self._knobs["knobChanged"]._raw
            if script:
                self._app.run_callback(script, self, knob)
            self._app.hooks.call("knobChanged", self, knob)
        finally:
            self._app.in_knob_changed = False

    def _join(self, group):
        """Become a member of a group, under a name that is free there."""
        wanted = self._knobs["name"]._raw
        name = wanted or group._free_name(self._cls.split(".")[-1])
        if name in group._names:
            name = group._free_name(name)
        self._knobs["name"]._raw = name
        group._names[name] = self
        group._children.append(self)

    def _leave(self):
        self._group._children.remove(self)
        if self._group._names.get(self._knobs["name"]._raw) is self:
            del self._group._names[self._knobs["name"]._raw]
        self._group._counts.clear()

    def _rename(self, name):
        names = None if self._group is None else self._group._names
        if names is not None and names.get(self._knobs["name"]._raw) is self:
            del names[self._knobs["name"]._raw]
            self._group._counts.clear()
        self._knobs["name"]._raw = name
        if names is not None:
            names.setdefault(name, self)

    def _free_name(self, wanted, node=None):
        if self._names.get(wanted, node) is node and wanted[-1:].isdigit():
            return wanted
        stem = wanted.rstrip("0123456789") or wanted
        first = wanted[len(stem) :][:9]
        count = int(first) if first else self._counts.get(stem, 1)
        while self._names.get(f"{stem}{count}", node) is not node:
            count += 1
        if not first:
            self._counts[stem] = count
        return f"{stem}{count}"

    def _range(self):
        knobs = self._knobs
        if self._cls == "Read":
            return knobs["first"].value(), knobs["last"].value()
        if self._cls == "FrameRange":
            return knobs["first_frame"].value(), knobs["last_frame"].value()
        if self._cls == "TimeOffset" and self.input(0):
            shift = int(knobs["time_offset"].value())
            first, last = self.input(0)._range()
            return first + shift, last + shift
        if self._cls == "Input" and self._group is not self._app.root:
            outside = self._group.input(int(knobs["number"]._number(self._app.frame)))
            if outside is not None:
                return outside._range()
        if self.input(0) is not None:
            return self.input(0)._range()
        root = self._app.root
        return root["first_frame"].value(), root["last_frame"].value()
