# SPDX-License-Identifier: Apache-2.0
"""Nuke's own expression language, as far as our gizmos use it.

Numbers, dotted names, ``! - * / % ^ + - < <= > >= == != && || ?:``, parentheses, functions, knobs
at another frame (``knob(frame-1)``) and linear ``curve``. Whoever asks for more gets an error,
never a guess.
"""

import math
import re

from standin.animation import Curve

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+)|(?P<name>[A-Za-z_][A-Za-z0-9_]*"
    r"(?:\.[A-Za-z0-9_]+)*)|(?P<op>\|\||&&|[=!<>]=|[-+*/%<>!?:(),^]))"
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)+")


def _smoothstep(low, high, x):
    along = max(0.0, min(1.0, (x - low) / (high - low) if high != low else float(x >= high)))
    return along * along * (3 - 2 * along)


_FUNCTIONS = {
    "abs": abs,
    "acos": math.acos,
    "asin": math.asin,
    "atan": math.atan,
    "atan2": math.atan2,
    "ceil": math.ceil,
    "clamp": lambda x, lo=0.0, hi=1.0: max(lo, min(hi, x)),
    "cos": math.cos,
    "degrees": math.degrees,
    "exp": math.exp,
    "fabs": abs,
    "floor": math.floor,
    "fmod": math.fmod,
    "hypot": math.hypot,
    "int": int,
    "lerp": lambda a, b, x: a + (b - a) * x,
    "log": math.log,
    "log10": math.log10,
    "max": max,
    "min": min,
    "mix": lambda a, b, x: a + (b - a) * x,
    "pow": pow,
    "radians": math.radians,
    "rint": round,
    "sin": math.sin,
    "smoothstep": _smoothstep,
    "sqrt": math.sqrt,
    "step": lambda a, x: float(x >= a),
    "tan": math.tan,
    "trunc": math.trunc,
}
_CONSTANTS = {"pi": math.pi, "e": math.e}
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


def names_in(text):
    """Return the dotted names in a knob's word."""
    return list(dict.fromkeys(_NAME.findall(text)))


def evaluate(text, look_up, frame):
    """Return the number an expression stands for.

    Args:
        text: The expression, without its braces.
        look_up: Called with a dotted name, and a frame where one is asked for; returns its number.
        frame: Current frame.

    Raises:
        ValueError: It is not an expression that is understood here.
    """
    if text.split()[:1] == ["curve"]:
        return Curve(text.split()[1:]).at(frame)
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
        base = self.atom()
        if self.token() == "^" and self.tokens[0][0] == "op":
            self.take()
            return base ** self.unary()
        return base

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
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        return self.look_up(text)

    def call(self, name):
        if name not in _FUNCTIONS and "." not in name:
            raise ValueError(f"'{self.text}': the stand-in knows no function '{name}'")
        self.take("(")
        values = []
        while self.token() != ")":
            values.append(self.ternary())
            if self.token() == ",":
                self.take()
        self.take(")")
        if name not in _FUNCTIONS:  # A knob at another frame.
            return self.look_up(name, *values)
        return float(_FUNCTIONS[name](*values))
