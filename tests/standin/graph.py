# SPDX-License-Identifier: Apache-2.0
"""Nodes, groups and scripts: building a graph from a script and writing it again."""

import re

from standin import classes
from standin.knobs import Guarded, Knob
from standin.tclscript import Reader, ScriptError, UserKnob, pairs, quote


class Node(Guarded):
    """One node: class, knobs, inputs. A Group or the Root holds nodes of its own."""

    def __init__(self, app, cls, group):
        self._app, self._cls, self._group = app, cls, group
        self._inputs, self._children, self._notes = [], [], []
        self._known = classes.knobs_of(cls)
        table = self._known if self._known is not None else classes.common_knobs()
        self._knobs = {
            name: Knob(self, name, kind, default, items)
            for name, (kind, default, items) in table.items()
            if name != "addUserKnob"
        }
        self._clone_of, self._alive = None, True

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

    def setName(self, name, uncollide=True):
        self._knobs["name"]._raw = self._group._free_name(name, self) if uncollide else name

    def knobs(self):
        return dict(self._knobs)

    def allKnobs(self):
        return list(self._knobs.values())

    def knob(self, name):
        return self._knobs.get(name)

    def __getitem__(self, name):
        if name not in self._knobs:
            raise NameError(f"knob {name} does not exist")
        return self._knobs[name]

    def input(self, index):
        return self._inputs[index] if 0 <= index < len(self._inputs) else None

    def setInput(self, index, node):
        if node is not None and node._group is not self._group:
            raise RuntimeError("nodes of two groups cannot be connected")
        while len(self._inputs) <= index:
            self._inputs.append(None)
        self._app.note_edit(self, None)
        self._inputs[index] = node
        return True

    def inputs(self):
        connected = [i for i, node in enumerate(self._inputs) if node is not None]
        return connected[-1] + 1 if connected else 0

    def maxInputs(self):
        if self._cls == "Group":
            return len([n for n in self._children if n._cls == "Input"])
        return max(classes.inputs_of(self._cls), len(self._inputs))

    def dependencies(self):
        return [node for node in self._inputs if node is not None]

    def setXYpos(self, x, y):
        self._knobs["xpos"]._raw, self._knobs["ypos"]._raw = str(int(x)), str(int(y))

    def frameRange(self):
        first, last = self._range()
        return FrameRange(first, last)

    def firstFrame(self):
        return self._range()[0]

    def lastFrame(self):
        return self._range()[1]

    def format(self):
        width, height, aspect = self._app.pixels.format_of(self)
        if self._app.root._knobs["proxy"].value():
            width, height = width // 2, height // 2
        return Format(width, height, aspect)

    def width(self):
        return self.format().width()

    def height(self):
        return self.format().height()

    def pixelAspect(self):
        return self.format().pixelAspect()

    def channels(self):
        return self._app.pixels.channels_of(self, self._app.frame)

    def sample(self, channel, x, y, dx=1, dy=1, frame=None):
        at = self._app.frame if frame is None else frame
        return self._app.pixels.sample(self, at, channel, x, y)

    def showControlPanel(self):
        return None

    def autoplace(self):
        return None

    # Groups and the root.

    def nodes(self):
        return list(self._children)

    def node(self, name):
        found = self
        for part in name.split("."):
            found = next((n for n in found._children if n._knobs["name"]._raw == part), None)
            if found is None:
                return None
        return found

    def begin(self):
        self._app.enter(self)
        return self

    def end(self):
        self._app.leave()

    def __enter__(self):
        return self.begin()

    def __exit__(self, *exc):
        self.end()

    # --- inside ----------------------------------------------------------------------------------

    def _check_alive(self):
        if not self._alive:
            raise ValueError("A PythonObject is not attached to a node")

    def _knob_changed(self, knob):
        """Run the node's own knobChanged, as Nuke does; never from inside itself."""
        script = self._knobs["knobChanged"]._raw
        if script and not self._app.in_knob_changed and not self._app.loading:
            self._app.in_knob_changed = True
            try:
                self._app.run_callback(script, self, knob)
            finally:
                self._app.in_knob_changed = False

    def _free_name(self, wanted, node=None):
        taken = {n._knobs["name"]._raw for n in self._children if n is not node}
        stem = wanted.rstrip("0123456789") or wanted
        number = wanted[len(stem) :]
        if number and wanted not in taken:
            return wanted
        count = int(number or 1)
        while f"{stem}{count}" in taken:
            count += 1
        return f"{stem}{count}"

    def _range(self):
        if self._cls == "Read":
            return self._knobs["first"].value(), self._knobs["last"].value()
        if self._cls == "FrameRange":
            return self._knobs["first_frame"].value(), self._knobs["last_frame"].value()
        if self._cls == "TimeOffset" and self.input(0):
            shift = int(self._knobs["time_offset"].value())
            first, last = self.input(0)._range()
            return first + shift, last + shift
        if self.input(0) is not None:
            return self.input(0)._range()
        root = self._app.root
        return root["first_frame"].value(), root["last_frame"].value()

    def _look_up(self, name):
        """Find the knob that a dotted name means, seen from this node."""
        parts, found = name.split("."), self
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            if part == "parent":
                found = found._group
            elif part == "root":
                found = self._app.root
            elif part == "this":
                found = self if index == 0 else found
            elif part == "input":
                found = found.input(0)
            elif last and part in found._knobs:
                return found._knobs[part]
            else:
                near = found._group if index == 0 and found._group is not None else found
                found = near.node(part) or found.node(part)
            if found is None:
                break
        raise ValueError(f'Nothing is named "{name}"')

    def _number_of(self, name, frame):
        return self._look_up(name)._number_at(frame)

    def _text_of(self, name, *_):
        return self._look_up(name)._text()


class Format:
    """Size of a picture."""

    def __init__(self, width, height, pixel_aspect=1.0):
        self._size = (width, height, pixel_aspect)

    def width(self):
        return self._size[0]

    def height(self):
        return self._size[1]

    def pixelAspect(self):
        return self._size[2]


class FrameRange:
    """First and last frame."""

    def __init__(self, first, last):
        self._ends = (int(first), int(last))

    def first(self):
        return self._ends[0]

    def last(self):
        return self._ends[1]


class Builder:
    """Makes nodes in a group as a script's commands come.

    Args:
        app: The stand-in.
        group: Group that receives the nodes.
        strict: Refuse knobs that the class table does not have.
    """

    def __init__(self, app, group, *, strict):
        self.app, self.strict = app, strict
        self.top = group
        self.groups, self.stacks, self.made = [group], [[]], []
        self._clones = {}

    def node(self, cls, body):
        if cls == "Root":
            self._fill(self.app.root, body)
            return ""
        node = Node(self.app, "Group" if cls == "Gizmo" else cls, self.groups[-1])
        count = self._fill(node, body)
        if not node._knobs["name"]._raw:
            node._knobs["name"]._raw = self.groups[-1]._free_name(cls)
        elif self._is_taken(node):
            node._knobs["name"]._raw = self.groups[-1]._free_name(node._knobs["name"]._raw)
        # A script that does not say how many means one, or none for what has none.
        self._wire(node, min(1, classes.inputs_of(node._cls)) if count is None else count)
        if node._cls == "Group":
            self.groups.append(node)
            self.stacks.append([])
        else:
            self.stacks[-1].append(node)
        return ""

    def _is_taken(self, node):
        mine = node._knobs["name"]._raw
        return any(n._knobs["name"]._raw == mine for n in self.groups[-1]._children)

    def _wire(self, node, count):
        stack = self.stacks[-1]
        node._inputs = [stack.pop() if stack else None for _ in range(count)]
        self.groups[-1]._children.append(node)
        self.made.append(node)

    def _fill(self, node, body):
        count = None
        for name, word in body:
            if name == "inputs" and node._cls != "Root":
                count = sum(int(part) for part in word.split("+") if part)
            elif name == "addUserKnob":
                user = UserKnob(word)
                if user.name in node._knobs and self.strict and user.code != 20:
                    raise ScriptError(f"{node._cls} has two knobs called {user.name}")
                if user.options.get("n") not in ("-1", "-2", "-3"):
                    node._knobs[user.name] = Knob._of_user(node, user)
                else:
                    node._knobs[f"{user.name} {len(node._knobs)}"] = Knob._of_user(node, user)
            else:
                self._set(node, name, word)
        return count

    def _set(self, node, name, word):
        if name not in node._knobs:
            if self.strict and node._known is not None:
                raise ScriptError(f"{node._cls} has no knob called {name}")
            node._knobs[name] = Knob(node, name, "x")
        node._knobs[name]._raw = word

    def clone(self, words, body):
        if len(words) > 1 and words[-1][:1].isupper():  # clone node7f|Switch|1 Switch {…}
            self.node(words[-1], body)
            return ""
        original = self._find(words[-1])
        node = Node(self.app, original._cls, self.groups[-1])
        node._clone_of = original
        for name, knob in original._knobs.items():
            if name not in node._knobs:
                node._knobs[name] = Knob(node, name, knob._kind, knob._default, knob._items)
            node._knobs[name]._raw, node._knobs[name]._user = knob._raw, knob._user
        count = self._fill(node, body)
        self._wire(node, len(original._inputs) if count is None else count)
        self.stacks[-1].append(node)
        return ""

    def _find(self, token):
        if token not in self._clones:
            raise ScriptError(f"clone of {token}, which is not there")
        return self._clones[token]

    def push(self, token):
        self.stacks[-1].append(self._clones.get(token))
        return ""

    def stack(self, depth):
        stack = self.stacks[-1]
        node = stack[-1 - depth] if depth < len(stack) else None
        if node is None:
            return "0"
        token = f"n{id(node):x}"
        self._clones[token] = node
        return token

    def end_group(self):
        if len(self.groups) == 1:
            return ""  # Files of a single gizmo may say so at the top.
        group = self.groups.pop()
        self.stacks.pop()
        self.stacks[-1].append(group)
        return ""

    def note(self, words):
        if words[0] == "add_layer":
            for entry in words[1:]:
                name, *channels = entry.split()
                self.app.layers.setdefault(name, tuple(channels))
        self.top._notes.append(words)
        return ""


def load(app, text, group, *, strict=True):
    """Build the nodes of a script inside ``group`` and return the new ones at its top level."""
    builder = Builder(app, group, strict=strict)
    was, app.loading = app.loading, True
    try:
        Reader(builder).run(text)
    finally:
        app.loading = was
    if strict:
        for node in builder.made:
            check_links(node)
    for node in builder.made:
        script = node._knobs["onCreate"]._raw
        if script:
            app.run_callback(script, node, None)
    return [node for node in builder.made if node._group is group]


def check_links(node):
    """Refuse link knobs without a target, and expressions in which a name means nothing."""
    for knob in list(node._knobs.values()):
        if knob._kind == "link":
            knob._target()


def dump(app, nodes):
    """Write nodes as a script."""
    lines = []
    for name, channels in sorted(app.layers.items()):
        if name not in app.builtin_layers:
            lines.append(f"add_layer {{{' '.join((name, *channels))}}}")
    _dump_nodes(nodes, lines, "", {})
    return "\n".join(lines) + "\n"


def dump_script(app):
    """Write the whole script, with its root."""
    lines = ["Root {", *_knob_lines(app.root, " "), "}"]
    return "\n".join(lines) + "\n" + dump(app, app.root._children)


def _dump_nodes(nodes, lines, indent, names):
    waiting, done = list(nodes), set()
    members = set(map(id, nodes))
    while waiting:
        ready = [n for n in waiting if _is_ready(n, done, members)]
        for node in ready or waiting[:1]:
            _dump_node(node, lines, indent, names)
            done.add(id(node))
            waiting.remove(node)


def _is_ready(node, done, members):
    needed = [*node._inputs, node._clone_of]
    return all(n is None or id(n) in done or id(n) not in members for n in needed)


def _dump_node(node, lines, indent, names):
    for source in reversed(node._inputs):
        name = names.get(id(source))
        lines.append(f"{indent}push {'$' + name if name else '0'}")
    cls = node._cls
    if node._clone_of is not None:
        cls = f"clone ${names[id(node._clone_of)]}"
    lines.append(f"{indent}{cls} {{")
    lines.append(f"{indent} inputs {len(node._inputs)}")
    lines.extend(_knob_lines(node, indent + " "))
    lines.append(f"{indent}}}")
    if node._cls == "Group":
        _dump_nodes(node._children, lines, indent + " ", names)  # Tcl's names are one for all.
        lines.append(f"{indent}end_group")
    names[id(node)] = f"N{len(names)}"
    lines.append(f"{indent}set {names[id(node)]} [stack 0]")


def _knob_lines(node, indent):
    for knob in node._knobs.values():
        user = knob._user
        if user is not None:
            yield f"{indent}addUserKnob {{{user.spell(knob._items)}}}"
        is_saved = user is None or (user.is_saved and user.code not in (20, 22, 26, 41))
        if is_saved and (knob._raw != knob._default or (user is not None and knob._raw)):
            name = quote(knob._name) if re.search(r"[^\w.]", knob._name) else knob._name
            yield f"{indent}{name} {quote(knob._raw)}"


def fingerprint(group):
    """Return a graph as plain data, to compare two of them."""
    found = []
    for node in group._children:
        knobs = {
            name: (k._raw, None if k._user is None else k._user.spell(k._items))
            for name, k in node._knobs.items()
            if k._raw != k._default or k._user is not None
        }
        inputs = [None if n is None else n._knobs["name"]._raw for n in node._inputs]
        found.append((node._knobs["name"]._raw, node._cls, knobs, inputs, fingerprint(node)))
    return sorted(found, key=lambda entry: entry[0])


__all__ = ["Builder", "Format", "FrameRange", "Node", "dump", "dump_script", "load", "pairs"]
