# SPDX-License-Identifier: Apache-2.0
"""Animation: the ``curve …`` words of a script as keys, and what Python sees of them.

Between keys a value is held (``K``) or goes straight; the slopes that a curve may carry are kept
and written again, but not followed.
"""

import re

_KEY = re.compile(r"x[-+.\d]")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\Z")
CONSTANT, LINEAR, SMOOTH = 258, 257, 256  # nuke.CONSTANT, nuke.LINEAR, nuke.SMOOTH
_LETTERS = {"K": CONSTANT, "L": LINEAR}
_HELD = {"K", "L", "C", "R", "H", "N", "Z", "S", "k"}


def is_number(word):
    """Tell whether a word is a plain number."""
    return _NUMBER.match(word) is not None


def spell(value):
    """Spell a number as scripts do: no point where none is needed."""
    value = float(value)
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


class AnimationKey:
    """One key: frame ``x``, value ``y``, how it goes on to the next, and further words of it."""

    def __init__(self, x, y, interpolation=SMOOTH):
        self.x, self.y, self.interpolation = float(x), float(y), interpolation
        self._marks = []

    def __eq__(self, other):
        return isinstance(other, AnimationKey) and (self.x, self.y) == (other.x, other.y)

    def __hash__(self):
        return hash((self.x, self.y))

    def __repr__(self):
        return f"AnimationKey({self.x}, {self.y})"


class Curve:
    """The keys of one number.

    Args:
        words: What follows ``curve`` in a script.
    """

    def __init__(self, words=()):
        self.keys, self.head = [], []
        kind, at = SMOOTH, 1.0
        for word in words:
            if _KEY.match(word) and is_number(word[1:]):
                at = float(word[1:])
            elif is_number(word):
                self.keys.append(AnimationKey(at, word, kind))
                at += 1.0  # A key that names no frame is one later.
            elif word in _HELD:
                kind = _LETTERS.get(word, SMOOTH)
                (self.keys[-1]._marks if self.keys else self.head).append(word)
            else:
                (self.keys[-1]._marks if self.keys else self.head).append(word)

    def at(self, frame):
        """Return the value at a frame; outside the keys the nearest one's."""
        keys = self.keys
        if not keys:
            return 0.0
        if frame <= keys[0].x:
            return keys[0].y
        for one, two in zip(keys, keys[1:]):
            if frame < two.x:
                if one.interpolation == CONSTANT:
                    return one.y
                return one.y + (two.y - one.y) * (frame - one.x) / (two.x - one.x)
            if frame == two.x:
                return two.y
        return keys[-1].y

    def set(self, frame, value, interpolation=None):
        """Set a key."""
        kept = next((key for key in self.keys if key.x == frame), None)
        if kept is not None:
            kept.y = float(value)
            return
        before = [key for key in self.keys if key.x < frame]
        kind = before[-1].interpolation if before else SMOOTH
        if not before and "K" in self.head:
            kind = CONSTANT
        self.keys.append(
            AnimationKey(frame, value, kind if interpolation is None else interpolation)
        )
        self.keys.sort(key=lambda key: key.x)

    def remove(self, frame):
        """Remove the key at a frame, if there is one."""
        self.keys = [key for key in self.keys if key.x != frame]

    def spell(self):
        """Return the words of a script."""
        words, kind = ["curve", *self.head], CONSTANT if "K" in self.head else SMOOTH
        for key in self.keys:
            if key.interpolation != kind and {key.interpolation, kind} & {CONSTANT, LINEAR}:
                letter = {CONSTANT: "K", LINEAR: "L"}.get(key.interpolation, "C")
                if words[-1] != letter:
                    words.append(letter)
            kind = key.interpolation
            words += [f"x{spell(key.x)}", spell(key.y)]
            words += [mark for mark in key._marks if mark not in _HELD]
        return " ".join(words)


class AnimationCurve:
    """``nuke.AnimationCurve``: the keys of one field of a knob."""

    def __init__(self, knob, index, view="main"):
        self._knob, self._index, self._view = knob, index, view

    def _curve(self):
        return self._knob._curve(self._index) or Curve()

    def _keep(self, curve):
        self._knob._set_field(self._index, curve.spell())

    def keys(self):
        return list(self._curve().keys)

    def size(self):
        return len(self._curve().keys)

    def evaluate(self, frame):
        return self._knob._number(frame, self._index)

    def setKey(self, frame, value):
        curve = self._curve()
        curve.set(float(frame), value)
        self._keep(curve)
        return next(key for key in curve.keys if key.x == float(frame))

    def addKey(self, keys):
        curve = self._curve()
        for key in keys if isinstance(keys, (list, tuple)) else [keys]:
            curve.set(key.x, key.y, key.interpolation)
        self._keep(curve)

    def removeKey(self, keys):
        curve = self._curve()
        for key in keys if isinstance(keys, (list, tuple)) else [keys]:
            curve.remove(key.x)
        self._keep(curve)

    def changeInterpolation(self, keys, kind):
        curve = self._curve()
        frames = {key.x for key in keys}
        for key in curve.keys:
            if key.x in frames:
                key.interpolation = kind
        self._keep(curve)

    def clear(self):
        self._keep(Curve())

    def constant(self):
        return len({key.y for key in self._curve().keys}) < 2

    def expression(self):
        return self._knob._expression(self._index) or "curve"

    def noexpression(self):
        return self._knob._curve(self._index) is not None

    def setExpression(self, text):
        self._knob._set_field(self._index, text)

    def knob(self):
        return self._knob

    def knobIndex(self):
        return self._index

    def view(self):
        return self._view
