# SPDX-License-Identifier: Apache-2.0
"""Reading TOML with the line that each value stands in, on any Python that Nuke brings.

The format is TOML 1.0 (https://toml.io/en/v1.0.0) but for two things that no setting is made of:
dates and times, and arrays of tables. Both are refused with their line. ``tomllib`` knows no lines
and begins with Python 3.11; what this module reads, it reads alike.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"[ \t]*")
_NEWLINE = re.compile(r"\r?\n")
_COMMENT = re.compile(r"#[^\x00-\x08\x0a-\x1f\x7f]*")
_PLAIN = re.compile(r'[^"\\\x00-\x08\x0a-\x1f\x7f]+')
_LITERAL = re.compile(r"[^'\x00-\x08\x0a-\x1f\x7f]*")
_WORD = re.compile(r"[A-Za-z0-9_+.:-]+")
_DECIMAL = re.compile(r"[+-]?(0|[1-9](_?[0-9])*)")
_BASED = re.compile(r"0x[0-9A-Fa-f](_?[0-9A-Fa-f])*|0o[0-7](_?[0-7])*|0b[01](_?[01])*")
_FLOAT = re.compile(
    r"[+-]?(0|[1-9](_?[0-9])*)(\.[0-9](_?[0-9])*)?([eE][+-]?[0-9](_?[0-9])*)?|[+-]?(inf|nan)"
)
_DATE = re.compile(r"\d{4}-\d{2}|\d{2}:\d{2}")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}
_LONG_END = re.compile(r"[ \t]*\r?\n[ \t\r\n]*")
_DEEPEST = 32
_MOST_DIGITS = 100


class NotToml(ValueError):
    """A text that cannot be read.

    Args:
        line: Where, from 1.
        why: What is wrong there, as the end of a sentence.
    """

    def __init__(self, line: int, why: str) -> None:
        super().__init__(f"line {line}: {why}")
        self.line = line
        self.why = why


@dataclass(frozen=True)
class Entry:
    """One value.

    Attributes:
        key: Its name, by part: ``("nuke", "cache_template")``. What stands in an inline table has
            the table's name before its own.
        value: Text, a whole number, a number, a switch, or a list of these; ``{}`` for a table
            that is empty.
        line: Where its name stands, from 1.
    """

    key: "tuple[str, ...]"
    value: Any
    line: int


@dataclass
class _Table:
    """What is known of a table while a text is read.

    Attributes:
        is_closed: Whether nothing may be added: an inline table.
        is_headed: Whether a header of its own was there.
        is_dotted: Whether a dotted key made it, so that no header may come.
    """

    entries: "dict[str, Any]" = field(default_factory=dict)
    is_closed: bool = False
    is_headed: bool = False
    is_dotted: bool = False


def read(text: str) -> "tuple[Entry, ...]":
    """Return what a text says, in its order; a table without entries is one with value ``{}``.

    Raises:
        NotToml: It is no TOML, or has a date or an array of tables.
    """
    return tuple(_Reader(text).entries())


class _Reader:
    """One pass over a text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._root = _Table(is_headed=True)
        self._found: list[Entry] = []
        self._headers: list[Entry] = []

    def entries(self) -> "Iterator[Entry]":
        """Read the text."""
        here = self._root
        prefix: tuple[str, ...] = ()
        while self._skip_lines():
            if self._next("[["):
                raise self._wrong("no setting is an array of tables")
            if self._next("["):
                prefix = self._header()
                here = self._opened(prefix)
            else:
                self._pair(here, prefix)
            self._end_of_line()
        filled = {entry.key[:n] for entry in self._found for n in range(1, len(entry.key) + 1)}
        empty = [one for one in self._headers if one.key not in filled]
        yield from sorted((*self._found, *empty), key=lambda entry: entry.line)

    # --- lines -----------------------------------------------------------------------------------

    def _line(self) -> int:
        return self._text.count("\n", 0, self._at) + 1

    def _wrong(self, why: str) -> NotToml:
        return NotToml(self._line(), why)

    def _next(self, mark: str) -> bool:
        """Take a mark where it comes next."""
        if self._text.startswith(mark, self._at):
            self._at += len(mark)
            return True
        return False

    def _take(self, what: "re.Pattern[str]") -> str:
        found = what.match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        return found[0]

    def _skip_lines(self) -> bool:
        """Go on to what says something; tell whether there is any."""
        while True:
            self._take(_BLANK)
            self._take(_COMMENT)
            if not self._take(_NEWLINE):
                return self._at < len(self._text)

    def _end_of_line(self) -> None:
        self._take(_BLANK)
        self._take(_COMMENT)
        if self._at < len(self._text) and not self._take(_NEWLINE):
            raise self._wrong("something follows the value")

    # --- keys ------------------------------------------------------------------------------------

    def _key(self) -> "tuple[str, ...]":
        parts = [self._key_part()]
        while True:
            before = self._at
            self._take(_BLANK)
            if not self._next("."):
                self._at = before
                return tuple(parts)
            self._take(_BLANK)
            parts.append(self._key_part())

    def _key_part(self) -> str:
        bare = self._take(_BARE)
        if bare:
            return bare
        if self._next('"'):
            return self._basic()
        if self._next("'"):
            return self._literal()
        raise self._wrong("a name is expected")

    def _header(self) -> "tuple[str, ...]":
        self._take(_BLANK)
        line, key = self._line(), self._key()
        self._take(_BLANK)
        if not self._next("]"):
            raise self._wrong("the table's name lacks its ]")
        self._headers.append(Entry(key, {}, line))
        return key

    def _opened(self, key: "tuple[str, ...]") -> _Table:
        """Return the table of a header."""
        here = self._root
        for part in key:
            here = self._inside(here, part, key)
        if here.is_headed or here.is_dotted:
            raise self._wrong(f"the table [{'.'.join(key)}] is there twice")
        here.is_headed = True
        return here

    def _inside(self, here: _Table, part: str, key: "tuple[str, ...]") -> _Table:
        found = here.entries.setdefault(part, _Table())
        if not isinstance(found, _Table) or found.is_closed:
            raise self._wrong(f"'{'.'.join(key)}' is there twice")
        return found

    def _pair(self, here: _Table, prefix: "tuple[str, ...]", depth: int = 0) -> None:
        """Read one name with its value."""
        line, key = self._line(), self._key()
        for part in key[:-1]:
            here = self._inside(here, part, key)
            if here.is_headed:
                raise self._wrong(f"'{'.'.join(key)}' adds to a table with a header of its own")
            here.is_dotted = True
        self._take(_BLANK)
        if not self._next("="):
            raise self._wrong(f"'{'.'.join(key)}' lacks its = and a value")
        self._take(_BLANK)
        if key[-1] in here.entries:
            raise self._wrong(f"'{'.'.join((*prefix, *key))}' is there twice")
        whole = (*prefix, *key)
        if self._next("{"):
            here.entries[key[-1]] = self._inline(whole, line, depth + 1)
            return
        here.entries[key[-1]] = value = self._value(depth)
        self._found.append(Entry(whole, value, line))

    def _inline(self, prefix: "tuple[str, ...]", line: int, depth: int) -> _Table:
        """Read an inline table after its opening brace."""
        self._not_too_deep(depth)
        made = _Table()
        self._take(_BLANK)
        if self._next("}"):
            self._headers.append(Entry(prefix, {}, line))
        else:
            while True:
                self._take(_BLANK)
                self._pair(made, prefix, depth)
                self._take(_BLANK)
                if self._next("}"):
                    break
                if not self._next(","):
                    raise self._wrong("an inline table lacks its } on the same line")
        _close(made)
        return made

    # --- values ----------------------------------------------------------------------------------

    def _not_too_deep(self, depth: int) -> None:
        if depth > _DEEPEST:
            raise self._wrong(f"brackets are nested more than {_DEEPEST} deep")

    def _value(self, depth: int) -> Any:
        if self._next('"""'):
            return self._long_basic()
        if self._next('"'):
            return self._basic()
        if self._next("'''"):
            return self._long_literal()
        if self._next("'"):
            return self._literal()
        if self._next("["):
            return self._array(depth + 1)
        word = self._take(_WORD)
        if word in ("true", "false"):
            return word == "true"
        if len(word) > _MOST_DIGITS:
            raise self._wrong(f"{word[:8]}… is no value; a text has quotes")
        if _DECIMAL.fullmatch(word):
            return int(word.replace("_", ""))
        if _BASED.fullmatch(word):
            return int(word.replace("_", ""), 0)
        if _FLOAT.fullmatch(word):
            return float(word.replace("_", ""))
        if _DATE.match(word):
            raise self._wrong("no setting is a date or a time; put quotes around it for a text")
        raise self._wrong(f"{word!r} is no value; a text has quotes" if word else "a value lacks")

    def _array(self, depth: int) -> "list[Any]":
        self._not_too_deep(depth)
        made: list[Any] = []
        while True:
            self._skip_lines()
            if self._next("]"):
                return made
            if self._next("{"):
                raise self._wrong("no setting is an array of tables")
            made.append(self._value(depth))
            self._skip_lines()
            if not self._next(",") and not self._text.startswith("]", self._at):
                raise self._wrong("an array lacks its ] or a comma")

    def _basic(self) -> str:
        """Read a text after its opening quote."""
        made = ""
        while True:
            made += self._take(_PLAIN)
            if self._next('"'):
                return made
            if not self._next("\\"):
                raise self._wrong("a text lacks its closing quote, or holds a control character")
            made += self._escape()

    def _escape(self) -> str:
        letter = self._text[self._at : self._at + 1]
        self._at += 1
        if letter in _ESCAPES:
            return _ESCAPES[letter]
        digits = {"u": 4, "U": 8}.get(letter, 0)
        code = self._text[self._at : self._at + digits]
        if not digits or not re.fullmatch(rf"[0-9A-Fa-f]{{{digits}}}", code):
            raise self._wrong(
                f"\\{letter} is no escape; write \\\\ or put the text between ' and '"
            )
        point = int(code, 16)
        if point > 0x10FFFF or 0xD800 <= point <= 0xDFFF:
            raise self._wrong(f"\\{letter}{code} is no character")
        self._at += digits
        return chr(point)

    def _literal(self) -> str:
        made = self._take(_LITERAL)
        if not self._next("'"):
            raise self._wrong("a text lacks its closing ', or holds a control character")
        return made

    def _long_basic(self) -> str:
        self._take(_NEWLINE)
        made = ""
        while True:
            made += self._take(_PLAIN)
            newline = self._take(_NEWLINE)
            if newline:
                made += "\n"
            elif self._next('"""'):
                return made + self._spare('"')
            elif self._next('"'):
                made += '"'
            elif self._next("\\"):
                if not self._take(_LONG_END):
                    made += self._escape()
            else:
                raise self._wrong('a text lacks its closing """, or holds a control character')

    def _long_literal(self) -> str:
        self._take(_NEWLINE)
        made = ""
        while True:
            made += self._take(_LITERAL)
            newline = self._take(_NEWLINE)
            if newline:
                made += "\n"
            elif self._next("'''"):
                return made + self._spare("'")
            elif self._next("'"):
                made += "'"
            else:
                raise self._wrong("a text lacks its closing ''', or holds a control character")

    def _spare(self, mark: str) -> str:
        """Return the one or two quotes that belong to the text before its three closing ones."""
        made = ""
        while len(made) < 2 and self._next(mark):
            made += mark
        return made


def _close(table: _Table) -> None:
    """Let nothing be added to an inline table, nor to what is in it."""
    table.is_closed = True
    for inner in table.entries.values():
        if isinstance(inner, _Table):
            _close(inner)
