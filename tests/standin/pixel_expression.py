# SPDX-License-Identifier: Apache-2.0
"""Expressions of an Expression node, over whole pictures. Belongs to the pixel side."""

import re

import numpy as np

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+)|(?P<name>[A-Za-z_][A-Za-z0-9_]*"
    r"(?:\.[A-Za-z0-9_]+)*)|(?P<op>\|\||&&|[=!<>]=|[-+*/%<>!?:(),^]))"
)
_ONE = np.float32(1)


def _smoothstep(low, high, x):
    along = np.clip((x - low) / (high - low), 0, 1)
    return along * along * (3 - 2 * along)


_FUNCTIONS = {
    "abs": np.abs,
    "atan2": np.arctan2,
    "ceil": np.ceil,
    "clamp": lambda x, lo=0.0, hi=1.0: np.maximum(lo, np.minimum(hi, x)),
    "cos": np.cos,
    "exp": np.exp,
    "fabs": np.abs,
    "floor": np.floor,
    "fmod": np.fmod,
    "hypot": np.hypot,
    "int": np.trunc,
    "isinf": lambda x: np.isinf(x) * _ONE,
    "isnan": lambda x: np.isnan(x) * _ONE,
    "lerp": lambda a, b, x: a + (b - a) * x,
    "log": np.log,
    "mix": lambda a, b, x: a + (b - a) * x,
    "pow": np.power,
    "rint": np.rint,
    "sin": np.sin,
    "smoothstep": _smoothstep,
    "sqrt": np.sqrt,
    "step": lambda a, x: (x >= a) * _ONE,
    "tan": np.tan,
    "trunc": np.trunc,
}
_LEVELS = (("||",), ("&&",), ("==", "!="), ("<", "<=", ">", ">="), ("+", "-"), ("*", "/", "%"))
_TWO = {
    "||": lambda a, b: np.logical_or(a, b) * _ONE,
    "&&": lambda a, b: np.logical_and(a, b) * _ONE,
    "==": lambda a, b: (a == b) * _ONE,
    "!=": lambda a, b: (a != b) * _ONE,
    "<": lambda a, b: (a < b) * _ONE,
    "<=": lambda a, b: (a <= b) * _ONE,
    ">": lambda a, b: (a > b) * _ONE,
    ">=": lambda a, b: (a >= b) * _ONE,
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape, np.float32),
                                where=np.not_equal(b, 0)),
    "%": lambda a, b: np.fmod(a, np.where(np.equal(b, 0), 1, b)),
}  # fmt: skip


def evaluate(text, look_up):
    """Return what an expression gives, of float32; names are asked for with ``look_up``."""
    reader = _Reader(text, look_up)
    value = reader.ternary()
    if reader.tokens:
        raise RuntimeError(f"'{text}': what is '{reader.tokens[0][1]}'?")
    return np.asarray(value, np.float32)


class _Reader:
    def __init__(self, text, look_up):
        self.look_up, self.text, self.tokens, place = look_up, text, [], 0
        while text[place:].strip():
            match = _TOKEN.match(text, place)
            if match is None:
                raise RuntimeError(f"'{text}' cannot be read at '{text[place:]}'")
            self.tokens.append((match.lastgroup, match.group(match.lastgroup)))
            place = match.end()

    def token(self, kind="op"):
        return self.tokens[0][1] if self.tokens and self.tokens[0][0] == kind else None

    def take(self, wanted=None):
        if not self.tokens or (wanted is not None and self.token() != wanted):
            raise RuntimeError(f"'{self.text}' lacks {wanted or 'its end'}")
        return self.tokens.pop(0)

    def ternary(self):
        test = self.binary(0)
        if self.token() != "?":
            return test
        self.take()
        yes = self.ternary()
        self.take(":")
        no = self.ternary()
        return np.where(np.not_equal(test, 0), yes, no)

    def binary(self, level):
        if level == len(_LEVELS):
            return self.unary()
        value = self.binary(level + 1)
        while self.token() in _LEVELS[level]:
            operation = self.take()[1]
            value = _TWO[operation](value, self.binary(level + 1))
        return value

    def unary(self):
        if self.token() in ("!", "-", "+"):
            operation = self.take()[1]
            value = self.unary()
            return {"!": np.equal(value, 0) * _ONE, "-": -value, "+": value}[operation]
        base = self.atom()
        if self.token() == "^":
            self.take()
            return np.power(base, self.unary())
        return base

    def atom(self):
        kind, text = self.take()
        if kind == "number":
            return np.float32(text)
        if kind == "op" and text == "(":
            value = self.ternary()
            self.take(")")
            return value
        if kind != "name":
            raise RuntimeError(f"'{self.text}' cannot be read at '{text}'")
        if self.token() != "(":
            return self.look_up(text)
        return self.call(text)

    def call(self, name):
        if name not in _FUNCTIONS and name not in ("min", "max"):
            raise RuntimeError(f"'{self.text}': the stand-in knows no function '{name}'")
        self.take("(")
        values = []
        while self.token() != ")":
            values.append(self.ternary())
            if self.token() == ",":
                self.take()
        self.take(")")
        if name in ("min", "max"):
            found = values[0]
            for value in values[1:]:
                found = (np.minimum if name == "min" else np.maximum)(found, value)
            return found
        return _FUNCTIONS[name](*values)
