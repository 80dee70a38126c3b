# SPDX-License-Identifier: Apache-2.0
"""From a script's commands to nodes: the stack, groups, clones, user knobs."""

from standin import classes
from standin.knobnumbers import TRUE
from standin.knobs import Knob
from standin.node import Node
from standin.tclscript import Reader, ScriptError, UserKnob, is_number, pairs, split

DEEPEST_GROUPS = 100
MOST_INPUTS = 10_000
MOST_DOUBLED = 500
MOST_CLONED = 1_000_000


class Builder:
    """Makes nodes in a group as a script's commands come.

    Args:
        app: The stand-in.
        group: Group that receives the nodes.
        strict: Refuse knobs that the class table does not have.
        published_is_empty: The nodes of a LiveGroup that is published are not in the script.
    """

    def __init__(self, app, group, *, strict, published_is_empty=False):
        self.app, self.strict, self.published_is_empty = app, strict, published_is_empty
        self.top = group
        self.groups, self.stacks, self.made = [group], [[]], []
        self._clones, self._tokens, self._doubled, self._cloned = {}, {}, 0, 0
        self._noted = set(app.notes)

    def node(self, cls, body):
        if cls == "Root":
            self._fill(self.app.root, body)
            return ""
        node = Node(self.app, "Group" if cls == "Gizmo" else cls, self.groups[-1])
        node._spelt = cls
        count = self._fill(node, body)
        # A script that does not say how many means one, or none for what has none.
        self._wire(node, min(1, classes.inputs_of(node._cls)) if count is None else count)
        node._is_elsewhere = self.published_is_empty and _is_published(cls, body)
        if node._cls in classes.GROUPS and not node._is_elsewhere:
            if len(self.groups) > DEEPEST_GROUPS:
                raise ScriptError(f"more than {DEEPEST_GROUPS} groups inside each other")
            self.groups.append(node)
            self.stacks.append([])
        else:
            self.stacks[-1].append(node)
        return ""

    def _wire(self, node, count):
        stack = self.stacks[-1]
        node._inputs = [stack.pop() if stack else None for _ in range(count)]
        node._join(self.groups[-1])
        self.made.append(node)

    def _fill(self, node, body):
        count = None
        for name, word in body:
            if name == "inputs":
                count = _count(node, word)
            elif name == "addUserKnob":
                self._add_user_knob(node, UserKnob(word, strict=self.strict))
            else:
                self._set(node, name, word)
        return count

    def _add_user_knob(self, node, user):
        known = node._knobs.get(user.name)
        if known is None:
            node._knobs[user.name] = Knob._of_user(node, user)
        elif user.ends or user.code == 20 or not user.name:
            node._knobs[f"{user.name} {len(node._knobs)}"] = Knob._of_user(node, user)
        elif known._user is None and not self.strict:
            known._user = user  # A knob that the node has anyway, declared again.
        elif self.strict:
            raise ScriptError(f"{node._cls} has two knobs called {user.name}")
        else:  # The later one is meant by the name; both are written again.
            self._doubled += 1
            if self._doubled > MOST_DOUBLED:
                raise ScriptError(f"more than {MOST_DOUBLED} knobs have the name of another")
            node._knobs.renamed(user.name, f"{user.name} {len(node._knobs)}")
            node._knobs[user.name] = Knob._of_user(node, user)

    def _set(self, node, name, word):
        if name not in node._knobs:
            if self.strict and node._known is not None:
                raise ScriptError(f"{node._cls} has no knob called {name}")
            node._knobs[name] = node._own(name, "x")
        node._knobs[name]._raw, node._knobs[name]._given = word, True

    def clone(self, words, body):
        original = self._clones.get(words[0])
        if original is None and len(words) > 1:  # clone node7f|Switch|1 Switch {…}
            self.node(words[-1], body)
            self._clones[words[0]] = self.made[-1]
            return ""
        if original is None:
            raise ScriptError(f"clone of {words[-1]}, which is not there")
        node = Node(self.app, original._cls, self.groups[-1])
        node._clone_of, node._spelt, node._plus = original, original._spelt, original._plus
        for name, knob in original._knobs.touched():
            self._cloned += 1
            if self._cloned > MOST_CLONED:
                raise ScriptError(f"more than {MOST_CLONED} knobs in its clones")
            if name not in node._knobs:
                node._knobs[name] = node._own(name, knob._kind, knob._default, knob._items)
            mine = node._knobs[name]
            mine._raw, mine._user, mine._given = knob._raw, knob._user, knob._given
        count = self._fill(node, body)
        self._wire(node, min(1, classes.inputs_of(node._cls)) if count is None else count)
        self.stacks[-1].append(node)
        return ""

    def push(self, *tokens):
        """Put nodes on the stack, said by what ``stack`` gave for them or by their names."""
        for token in tokens:
            node = self._clones.get(token) or self.groups[-1].node(token)
            if node is None and token not in ("", "0"):
                raise ScriptError(f"push of {token[:40]}, which is not there")
            self.stacks[-1].append(node)
        return ""

    def arrange(self, command, number):
        """Do to the stack what ``pop 2``, ``dup``, ``exch`` and ``index 1`` say."""
        stack = self.stacks[-1]
        if command == "pop":
            del stack[max(len(stack) - number, 0) :]
        elif command == "exch":
            stack[-2:] = reversed(stack[-2:])
        else:
            depth = number if command == "index" else 0
            stack.append(stack[-1 - depth] if depth < len(stack) else None)
        return ""

    def stack(self, depth):
        stack = self.stacks[-1]
        node = stack[-1 - depth] if 0 <= depth < len(stack) else None
        if node is None:
            return "0"
        token = self._tokens.setdefault(id(node), f"n{len(self._tokens) + 1}")
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
        if words[0] != "add_layer":
            if words not in self._noted:
                self._noted.add(words)
                self.app.notes.append(words)
            return ""
        entries = [split(word) for word in words[1:]]
        if all(len(entry) == 1 for entry in entries):  # add_layer name channel channel
            entries = [[entry[0] for entry in entries]]
        for name, *channels in filter(None, entries):
            kept = self.app.layers.get(name, ())
            more = (channel for channel in channels if channel not in kept)
            self.app.layers[name] = (*kept, *dict.fromkeys(more))
        return ""


def _count(node, word):
    """Return how many inputs ``2`` or ``2+1`` means; what stands behind the plus is a mask."""
    parts = [part for part in word.split("+") if part]
    if not all(is_number(part.strip()) for part in parts):
        raise ScriptError(f"{node._cls}: inputs {word[:40]} is no number")
    count = sum(map(int, parts))
    if count > MOST_INPUTS:
        raise ScriptError(f"{node._cls}: more than {MOST_INPUTS} inputs")
    node._plus = word.partition("+")[2].strip()
    return count


def _is_published(cls, body):
    return cls == "LiveGroup" and dict(body).get("published", "").lower() in TRUE


class _Ends:
    """Counts how far a script's groups and its ``end_group`` are from matching.

    A LiveGroup that is published is a file; its nodes, and the end after them, are in the script
    only while it is edited. Nothing in its body says which, so both are counted.
    """

    def __init__(self, text):
        self._open, self._wrong = {True: 0, False: 0}, {True: 0, False: 0}
        Reader(self).run(text)

    def node(self, cls, body):
        if cls == "Gizmo" or cls in classes.GROUPS:
            self._open[False] += 1
            self._open[True] += not _is_published(cls, body)
        return ""

    def end_group(self):
        for case in self._open:
            self._wrong[case] += self._open[case] == 0
            self._open[case] -= self._open[case] > 0
        return ""

    def stack(self, depth):
        return "0"

    def clone(self, *words):
        return ""

    push = note = arrange = clone

    def published_is_empty(self):
        wrong = {case: self._open[case] + self._wrong[case] for case in self._open}
        return wrong[True] < wrong[False]


def build(app, text, group, *, strict):
    """Build a script's nodes inside a group, without running a callback; return all of them."""
    is_empty = "LiveGroup" in text and _Ends(text).published_is_empty()
    builder = Builder(app, group, strict=strict, published_is_empty=is_empty)
    was, app.loading = app.loading, True
    try:
        Reader(builder).run(text)
    finally:
        app.loading = was
    return builder.made


def load(app, text, group, *, strict=True):
    """Build the nodes of a script inside ``group`` and return the new ones at its top level."""
    made = build(app, text, group, strict=strict)
    if strict:
        for node in made:
            check_links(node)
    for node in made:
        app.created(node)
    return [node for node in made if node._group is group]


def check_links(node):
    """Refuse link knobs without a target, and expressions in which a name means nothing."""
    for _, knob in node._knobs.touched():
        if knob._kind == "link":
            knob._target()


def fill_knobs(node, text):
    """Set a node's knobs from the inside of a body."""
    Builder(node._app, node._group, strict=False)._fill(node, pairs(node._cls, text))
