# SPDX-License-Identifier: Apache-2.0
"""Nuke's own expression language, as far as our gizmos use it.

Numbers, dotted names, ``! - * / % + - < <= > >= == != && || ?:``, parentheses, a few functions and
linear ``curve``. Whoever asks for more gets an error, never a guess.
"""

import math
import re

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+)|(?P<name>[A-Za-z_][A-Za-z0-9_]*"
    r"(?:\.[A-Za-z_][A-Za-z0-9_]*)*)|(?P<op>\|\||&&|[=!<>]=|[-+*/%<>!?:(),]))"
)
_FUNCTIONS = {
    "abs": abs,
    "ceil": math.ceil,
    "clamp": lambda x, lo=0.0, hi=1.0: max(lo, min(hi, x)),
    "floor": math.floor,
    "int": int,
    "max": max,
    "min": min,
    "pow": pow,
    "rint": round,
    "sqrt": math.sqrt,
}
_LEVELS = (("||",), ("&&",), ("==", "!="), ("<", "<=", ">", ">="), ("+", "-"), ("*", "/", "%"))
_TWO = {
    "||": lambda a, b: float(bool(a) or bool(b)),
    "&&": lambda a, b: float(bool(a) and bool(b)),
    "==": lambda a, b: float(a == b),
    "!=": lambda a, b: float(a != b),
    "<": lambda a, b: float(a < b),
    "<=": lambda a, b: float(a <= b),
    ">": lambda a, b: float(a > b),
    ">=": lambda a, b: float(a >= b),
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b if b else 0.0,
    "%": lambda a, b: math.fmod(a, b) if b else 0.0,
}


def evaluate(text, look_up, frame):
    """Return the number an expression stands for.

    Args:
        text: The expression, without its braces.
        look_up: Called with a dotted name; returns its number.
        frame: Current frame.

    Raises:
        ValueError: It is not an expression that is understood here.
    """
    if text.split()[:1] == ["curve"]:
        return _curve(text.split()[1:], frame)
    reader = _Reader(text, look_up, frame)
    value = reader.ternary()
    if reader.token() is not None:
        raise ValueError(f"'{text}': what is '{reader.token()}'?")
    return float(value)


class _Reader:
    def __init__(self, text, look_up, frame):
        self.look_up, self.frame, self.text = look_up, frame, text
        self.tokens, place = [], 0
        while text[place:].strip():
            match = _TOKEN.match(text, place)
            if match is None:
                raise ValueError(f"'{text}' cannot be read at '{text[place:]}'")
            self.tokens.append((match.lastgroup, match.group(match.lastgroup)))
            place = match.end()

    def token(self):
        return self.tokens[0][1] if self.tokens else None

    def take(self, wanted=None):
        if not self.tokens or (wanted is not None and self.token() != wanted):
            raise ValueError(f"'{self.text}' lacks {wanted or 'its end'}")
        return self.tokens.pop(0)

    def ternary(self):
        test = self.binary(0)
        if self.token() != "?":
            return test
        self.take()
        yes = self.ternary()
        self.take(":")
        no = self.ternary()
        return yes if test else no

    def binary(self, level):
        if level == len(_LEVELS):
            return self.unary()
        value = self.binary(level + 1)
        while self.token() in _LEVELS[level] and self.tokens[0][0] == "op":
            operation = self.take()[1]
            value = _TWO[operation](value, self.binary(level + 1))
        return value

    def unary(self):
        if self.token() in ("!", "-", "+") and self.tokens[0][0] == "op":
            operation = self.take()[1]
            value = self.unary()
            return {"!": float(not value), "-": -value, "+": value}[operation]
        return self.atom()

    def atom(self):
        kind, text = self.take()
        if kind == "number":
            return float(text)
        if text == "(":
            value = self.ternary()
            self.take(")")
            return value
        if kind != "name":
            raise ValueError(f"'{self.text}' cannot be read at '{text}'")
        if self.token() == "(":
            return self.call(text)
        if text in ("frame", "x", "t"):
            return float(self.frame)
        return self.look_up(text)

    def call(self, name):
        if name not in _FUNCTIONS:
            raise ValueError(f"'{self.text}': the stand-in knows no function '{name}'")
        self.take("(")
        values = []
        while self.token() != ")":
            values.append(self.ternary())
            if self.token() == ",":
                self.take()
        self.take(")")
        return float(_FUNCTIONS[name](*values))


def _curve(words, frame):
    """Interpolate ``x1001 0 x1020 1`` linearly; hold outside."""
    keys, at = [], None
    for word in words:
        if word[:1] == "x":
            at = float(word[1:])
        elif re.match(r"[-+.\d]", word):
            at = 1.0 if at is None else at
            keys.append((at, float(word)))
            at += 1.0
    if not keys:
        return 0.0
    if frame <= keys[0][0]:
        return keys[0][1]
    for (x0, y0), (x1, y1) in zip(keys, keys[1:]):
        if frame <= x1:
            return y0 + (y1 - y0) * (frame - x0) / (x1 - x0)
    return keys[-1][1]
