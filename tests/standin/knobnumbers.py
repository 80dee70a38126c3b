# SPDX-License-Identifier: Apache-2.0
"""The numbers of a knob: plain, as expressions, with keys; one, or several to a knob."""

from standin import expression, knobtypes, tracking
from standin.animation import AnimationCurve, Curve, is_number
from standin.tclscript import split

TRUE = ("true", "1", "on", "yes")
FALSE = ("false", "0", "off", "no", "")


class Numbers:
    """What a knob that holds numbers can do; its word is ``_raw``."""

    def isAnimated(self, index=-1, *_):
        """Tell whether there are keys or an expression: Nuke counts both."""
        return any(self._expression(i) is not None for i in self._indexes(index))

    def hasExpression(self, index=-1, *_):
        indexes = self._indexes(index)
        return any(self._expression(i) is not None and self._curve(i) is None for i in indexes)

    def setAnimated(self, index=-1, *_):
        if self.getFlag(knobtypes.FLAGS["NO_ANIMATION"][0]):
            return False
        for i in self._indexes(index):
            if self._curve(i) is None:
                at = self._app.frame
                curve = Curve(["K"] if self._kind in ("b", "m") else [])
                curve.set(at, self._number(at, i))
                self._set_field(i, curve.spell())
        return True

    def clearAnimated(self, index=-1, *_):
        at = self._app.frame
        for i in self._indexes(index):
            self._set_field(i, self._spell_number(self._number(at, i)))
        return True

    def setValueAt(self, value, frame, index=-1, *_):
        values = value if isinstance(value, (list, tuple)) else None
        if self._kind == "m" and isinstance(value, str):
            value = self._items.index(value)
        for i in self._indexes(index):
            number = value if values is None else values[i]
            curve = self._curve(i)
            if curve is None:
                self._set_field(i, self._spell_number(float(number)))
            else:
                curve.set(float(frame), float(number))
                self._set_field(i, curve.spell())
        return True

    def getValueAt(self, frame, index=None, *_):
        if self._kind == "trk":
            return tracking.value_at(self._raw, frame, index or 0)
        found = self._value_at(frame)
        return found[index] if index is not None and isinstance(found, (list, tuple)) else found

    valueAt = getValueAt

    def getKeyList(self, *_):
        if self._kind == "trk":
            return tracking.key_list(self._raw)
        curves = [self._curve(i) for i in self._indexes(-1)]
        return sorted({key.x for curve in curves if curve is not None for key in curve.keys})

    def getNumKeys(self, index=-1, *_):
        curves = [self._curve(i) for i in self._indexes(index)]
        return max((len(curve.keys) for curve in curves if curve is not None), default=0)

    def getKeyTime(self, number, index=-1, *_):
        return self.animation(max(index, 0)).keys()[number].x

    def isKeyAt(self, frame, index=-1, *_):
        curves = [self._curve(i) for i in self._indexes(index)]
        return any(key.x == frame for c in curves if c is not None for key in c.keys)

    def isKey(self, *_):
        return self.isKeyAt(self._app.frame)

    def removeKeyAt(self, frame, index=-1, *_):
        for i in self._indexes(index):
            curve = self._curve(i)
            if curve is not None:
                curve.remove(float(frame))
                empty = self._spell_number(self._number(frame, i))
                self._set_field(i, curve.spell() if curve.keys else empty)
        return True

    def removeKey(self, index=-1, *_):
        return self.removeKeyAt(self._app.frame, index)

    def animation(self, index=0, *_):
        return AnimationCurve(self, index) if self._expression(index) is not None else None

    def animations(self, *_):
        curves = [self.animation(i) for i in self._indexes(-1)]
        return [curve for curve in curves if curve is not None]

    # --- inside -----------------------------------------------------------------------------------

    def _count(self):
        count = knobtypes.FIELDS.get(self._kind, (0, False))[0]
        if self._kind == "arr":
            return max(int(self._user.option("n", 1)), len(split(self._raw)))
        return count

    def _indexes(self, index):
        target = self._target()
        count = max(1, (target or self)._count())
        return list(range(count)) if index is None or index < 0 else [index]

    def _fields(self):
        """Return the words of the numbers, as many as there are."""
        if self._kind in ("i", "d", "b", "m", "x"):
            return split(self._raw)[:1] if self._raw.startswith("{") else [self._raw]
        words, count = split(self._raw) or ["0"], self._count()
        if len(words) == 1 and knobtypes.FIELDS[self._kind][1]:
            return words * count
        return (words + ["0"] * count)[:count]

    def _set_field(self, index, word):
        """Set one number, keys or expression."""
        fields = self._fields()
        fields[index] = word
        if len(fields) == 1:
            plain = self._plain(word) or self._raw_is_item(word)
            self._set_raw(word if plain else "{" + word + "}")
        else:
            self._set_raw(" ".join(w if self._plain(w) else "{" + w + "}" for w in fields))

    def _raw_is_item(self, word):
        return word in self._items or (self._kind == "b" and word.lower() in TRUE + FALSE)

    def _plain(self, word):
        return is_number(word)

    def _expression(self, index=0):
        """Return the expression or the keys of a number as they stand, or None for a number."""
        target = self._target()
        if target is not None:
            return target._expression(index)
        if self._kind not in (*knobtypes.FIELDS, "x") or self._raw in self._items:
            return None
        single = self._kind in ("i", "d", "b", "m", "x")
        if single and not self._raw.startswith("{"):
            return None
        fields = self._fields()
        text = fields[index] if index < len(fields) else ""
        if is_number(text) or (not single and text.lower() in TRUE + FALSE):
            return None
        if text.startswith('"'):  # {{"a > b"}}: Nuke quotes an expression with spaces.
            text = (split(text) or [""])[0]
        return text[:-2] if text.endswith(" i") else text  # "i" marks a whole number.

    def _curve(self, index=0):
        """Return the keys of a number, or None."""
        if self._kind not in knobtypes.FIELDS or self._target() is not None:
            return None
        text = self._expression(index)
        words = [] if text is None else text.split()
        return Curve(words[1:]) if words[:1] == ["curve"] else None

    def _number(self, frame, index=0):
        text = self._expression(index)
        if text is not None:
            return self._evaluate(text, frame)
        if self._kind == "b":
            if self._raw.lower() not in TRUE + FALSE:
                raise ValueError(f"{self._name} is '{self._raw}', which is neither on nor off")
            return float(self._raw.lower() in TRUE)
        if self._kind == "m":
            return float(self._index(frame))
        return float(self._fields()[index] or 0)

    def _index(self, frame=None):
        if self._expression() is not None:
            return int(self._number(self._app.frame if frame is None else frame))
        if self._raw in self._items:
            return self._items.index(self._raw)
        if self._raw.isdigit():
            return int(self._raw)
        lower = [item.lower() for item in self._items]  # Older scripts spell filters in small.
        if self._raw.lower() in lower:
            return lower.index(self._raw.lower())
        raise ValueError(f"{self._name} has no item '{self._raw}'")

    def _evaluate(self, text, frame):
        def look_up(name, at=frame):
            return self._node._number_of(name, at)

        if "[" in text:
            text = self._node._evaluated(text.replace("\\[", "["), frame)
        return expression.evaluate(text, look_up, frame)
