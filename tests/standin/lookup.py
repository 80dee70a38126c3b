# SPDX-License-Identifier: Apache-2.0
"""What a node finds by name: knobs in expressions, the nodes they belong to, a hash of it all."""

import hashlib
import re

from standin import expression
from standin.texts import substitute

_PLACE = ("name", "xpos", "ypos", "label", "selected", "tile_color", "gl_color", "note_font_size")
_FIELDS = {
    "xy": "xy", "xyz": "xyz", "wh": "wh", "uv": "uv", "sc": "wh", "rgb": "rgb", "col": "rgba",
    "box": "xyrt",
}  # fmt: skip


class Names:
    """The part of a node that looks up names."""

    def _hash(self, known):
        """Return a number that changes with what is upstream, and not with where nodes lie."""
        if id(self) not in known:
            said = [
                (name, k._raw)
                for name, k in self._knobs.touched()
                if name not in _PLACE and k._raw != k._default and k._kind not in "tp"
            ]
            above = [None if n is None else n._hash(known) for n in self._inputs]
            inner = [n._hash(known) for n in self._children]
            text = repr((self._cls, sorted(said), above, inner))
            known[id(self)] = int(hashlib.blake2b(text.encode(), digest_size=8).hexdigest(), 16)
        return known[id(self)]

    def _asked(self):
        """Return the nodes that this node's expressions ask."""
        found = []
        for _, knob in self._knobs.touched():
            if "{" not in knob._raw:
                continue
            for name in expression.names_in(knob._raw):
                node = self._node_asked(name)
                if node is not None and node not in found and node._group is not None:
                    found.append(node)
        return found

    def _node_asked(self, name):
        try:
            return self._look_up(name)._node
        except ValueError:
            return None

    # Names in expressions.

    def _look_up(self, name):
        """Find the knob that a dotted name means, seen from this node."""
        return self._find(name)[0]

    def _find(self, name):
        """Return the knob and the number of its field that a dotted name means."""
        parts, found = name.split("."), self
        for index, part in enumerate(parts):
            rest = parts[index:]
            if part == "parent":
                found = found._group
            elif part == "root":
                found = self._app.root
            elif part == "this" and index == 0:
                continue
            elif part == "input":
                found = found.input(0)
            elif part[:5] == "input" and part[5:].isdigit() and ".".join(rest) not in found._knobs:
                found = found.input(int(part[5:]))
            elif ".".join(rest) in found._knobs:
                return found._knobs[".".join(rest)], 0
            elif part in found._knobs and len(rest) == 2:
                return found._knobs[part], _field(found._knobs[part], rest[1])
            else:
                near = found._group if index == 0 and found._group is not None else found
                found = near.node(part) or found.node(part)
            if found is None:
                break
        raise ValueError(f'Nothing is named "{name}"')

    def _number_of(self, name, frame):
        head, _, last = name.rpartition(".")
        if last in ("width", "height"):
            source = self._look_up(f"{head}.name")._node if head else self
            if source is not None and last not in source._knobs:
                size = source.format()
                return float(size.width() if last == "width" else size.height())
        knob, field = self._find(name)
        return knob._number_at(frame, field)

    def _text_of(self, name):
        knob, field = self._find(name)
        numbers = knob._kind in _FIELDS and name.rpartition(".")[2] != knob._name
        return f"{knob._number_at(self._app.frame, field):g}" if numbers else knob._text()

    def _raw_of(self, name):
        return self._look_up(name)._raw

    def _exists(self, name):
        if self._node_asked(name) is not None or self._node_asked(f"{name}.name") is not None:
            return "1"
        return "0"

    def _evaluated(self, text, frame):
        return substitute(text, self, frame)


_WORDS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*(?!\s*\()")
_PIXEL_WORDS = "r g b a x y cx cy width height frame pi red green blue alpha"
_OF_PIXELS = frozenset(_PIXEL_WORDS.split())


def numbers_in(node, texts, known, frame):
    """Return the numbers of the knobs that an Expression's texts name; channels are no knobs."""
    found = {}
    for text in texts:
        for name in _WORDS.findall(text):
            if name in _OF_PIXELS or name in known or name in found:
                continue
            try:
                found[name] = node._number_of(name, frame)
            except ValueError:
                continue  # A channel: the pixel side says so where it is none.
    return found


def _field(knob, name):
    letters = _FIELDS.get(knob._kind, "")
    if name.isdigit():
        return int(name)
    if len(name) == 1 and name in letters:
        return letters.index(name)
    raise ValueError(f'{knob._name} has no field "{name}"')
