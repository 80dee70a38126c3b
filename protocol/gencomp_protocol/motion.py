# SPDX-License-Identifier: Apache-2.0
"""How placing is written down: curves, paths and matrices over time, as text in a knob.

::

    curve     0.4                        one value
              0.4@1001; 0.8@1049         keys: straight between them, held before and after
    path      100,200; 300,220           points of a line drawn on a frame, or one clicked point
              100,200@1001; 300,220@1050 positions at frames
    matrix    a,b,tx,c,d,ty@1001; …      x' = a x + b y + tx, y' = c x + d y + ty
    several   plane: 0.4 | bird: 0.8     a section without a name is for every element not named

Positions are in pixels, continuous: (0, 0) is the upper left *corner* of the picture, x runs to the
right, y *down*, and the middle of a pixel is at a half. Nuke's y runs up: :func:`flipped` turns
text from one into the other.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Optional

from gencomp_protocol.errors import BadKnob

CURVE, PATH, MATRIX = "curve", "path", "matrix"
_NUMBERS = {CURVE: 1, PATH: 2, MATRIX: 6}
_EXAMPLE = {
    CURVE: "0.4, or 0.4@1001; 0.8@1049",
    PATH: "100,200; 300,220, or 100,200@1001; 300,220@1050",
    MATRIX: "1,0,20,0,1,10@1001; 1,0,24,0,1,10@1002",
}
_WORD = {CURVE: "a number", PATH: "a position x,y", MATRIX: "the six numbers of a matrix"}
_NAMED = re.compile(r"\s*([A-Za-z][A-Za-z0-9_]*)\s*:(.*)\Z", re.DOTALL)


@dataclass(frozen=True)
class Keys:
    """Values over time: of a curve one number each, of a path two, of a matrix six.

    Attributes:
        frames: Timeline frame of each value, ascending; empty where none was written.
        values: The numbers, in the order of the frames, or as they were written.
    """

    frames: tuple[float, ...]
    values: tuple[tuple[float, ...], ...]

    @property
    def is_timed(self) -> bool:
        """Tell whether the values stand at frames."""
        return bool(self.frames)

    def at(self, frame: float) -> tuple[float, ...]:
        """Return the numbers at a frame: straight between keys, held outside them.

        Values without frames must be one only: it stands for every frame.
        """
        if not self.frames:
            assert len(self.values) == 1, "several values without frames have no time"
            return self.values[0]
        if frame <= self.frames[0]:
            return self.values[0]
        if frame >= self.frames[-1]:
            return self.values[-1]
        after = bisect_right(self.frames, frame)
        t = (frame - self.frames[after - 1]) / (self.frames[after] - self.frames[after - 1])
        return _between(self.values[after - 1], self.values[after], t)

    def along(self, t: float) -> tuple[float, ...]:
        """Return the numbers at a share of the way through the values, each step as long.

        Args:
            t: 0 is the first value, 1 the last; held outside.
        """
        place = min(max(t, 0.0), 1.0) * (len(self.values) - 1)
        before = min(int(place), max(len(self.values) - 2, 0))
        after = min(before + 1, len(self.values) - 1)
        return _between(self.values[before], self.values[after], place - before)


def _between(a: Sequence[float], b: Sequence[float], t: float) -> tuple[float, ...]:
    """Return numbers on the straight line from a to b; exact at both ends."""
    return tuple(x if x == y else x * (1 - t) + y * t for x, y in zip(a, b))


# --- reading -------------------------------------------------------------------------------------


def sections(text: str, knob: str) -> dict[str, str]:
    """Part a knob's text into what is for which element; the name ``""`` is every other one.

    Raises:
        BadKnob: An element has two sections, or two have no name.
    """
    found = {}  # type: dict[str, str]
    for part in text.split("|"):
        match = _NAMED.match(part)
        name, body = (match.group(1), match.group(2)) if match else ("", part)
        if not body.strip():
            continue
        if name in found:
            whose = f"names '{name}' twice" if name else "has two sections without a name"
            raise BadKnob(
                f"Knob '{knob}' {whose}.", hint="Write it as plane: … | bird: ….", knob=knob
            )
        found[name] = body.strip()
    return found


def section_of(text: str, name: str, knob: str) -> str:
    """Return what a knob says of an element: its own section, else the one without a name."""
    found = sections(text, knob)
    return found.get(name, found.get("", ""))


def check_sections(text: str, names: Iterable[str], knob: str) -> None:
    """Refuse a section that is for an element that is not there.

    Raises:
        BadKnob: A section names no element, or an element has two.
    """
    known = tuple(names)
    for name in sections(text, knob):
        if name and name not in known:
            raise BadKnob(
                f"Knob '{knob}' has a section for '{name}', which is no element of this job.",
                hint=f"Its elements are: {', '.join(known)}." if known else "There is none.",
                knob=knob,
            )


def read_keys(text: str, kind: str, knob: str) -> Keys:
    """Read one section.

    Args:
        text: The section, without its name; not empty.
        kind: ``CURVE``, ``PATH`` or ``MATRIX``.
        knob: Name of the knob, for sentences.

    Raises:
        BadKnob: A piece is not what is wanted, only some stand at frames, or two at the same.
    """
    pieces = [piece.strip() for piece in text.split(";") if piece.strip()]
    read = [_piece(piece, kind, knob) for piece in pieces]
    if not read:
        raise _unreadable(text, kind, knob)
    frames = [frame for frame, _ in read if frame is not None]
    if not frames:
        if kind == CURVE and len(read) > 1:
            raise BadKnob(
                f"Knob '{knob}' has several values without frames: {text.strip()}.",
                hint=f"Write it as {_EXAMPLE[kind]}.",
                knob=knob,
            )
        return Keys((), tuple(values for _, values in read))
    if len(frames) < len(read):
        raise BadKnob(
            f"Knob '{knob}' says a frame for some values only: {text.strip()}.",
            hint=f"Write it as {_EXAMPLE[kind]}.",
            knob=knob,
        )
    return _sorted(read, knob)


def _sorted(read: "list[tuple[Optional[float], tuple[float, ...]]]", knob: str) -> Keys:
    by_frame = {}  # type: dict[float, tuple[float, ...]]
    for frame, values in read:
        assert frame is not None
        if frame in by_frame:
            raise BadKnob(
                f"Knob '{knob}' has two values at frame {frame:g}.", hint="Keep one.", knob=knob
            )
        by_frame[frame] = values
    frames = tuple(sorted(by_frame))
    return Keys(frames, tuple(by_frame[frame] for frame in frames))


def _piece(piece: str, kind: str, knob: str) -> "tuple[Optional[float], tuple[float, ...]]":
    body, at, when = piece.partition("@")
    values = tuple(_number(word) for word in body.split(","))
    frame = _number(when) if at else None
    bad = any(value is None for value in values) or (at and frame is None)
    if bad or len(values) != _NUMBERS[kind]:
        raise _unreadable(piece, kind, knob)
    return frame, tuple(value for value in values if value is not None)


def _number(word: str) -> Optional[float]:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _unreadable(text: str, kind: str, knob: str) -> BadKnob:
    return BadKnob(
        f"Knob '{knob}': '{text.strip()}' is not {_WORD[kind]}.",
        hint=f"Write it as {_EXAMPLE[kind]}.",
        knob=knob,
    )


# --- writing -------------------------------------------------------------------------------------


def spell_keys(keys: Keys) -> str:
    """Return keys as text that :func:`read_keys` reads back, to nine digits."""
    bodies = [",".join(_spell(value) for value in values) for values in keys.values]
    if not keys.frames:
        return "; ".join(bodies)
    return "; ".join(f"{body}@{_spell(at)}" for body, at in zip(bodies, keys.frames))


def _spell(value: float) -> str:
    return f"{value + 0.0:.9g}"  # Plus zero: a minus zero is written as 0.


def flipped(
    text: str, kind: str, height: float, knob: str = "", own_height: Optional[float] = None
) -> str:
    """Return text whose y runs the other way: twice is the text again.

    Args:
        text: What a knob holds, with its sections; empty stays empty.
        kind: ``PATH`` or ``MATRIX``; a ``CURVE`` says the same both ways.
        height: Of the picture that positions are in, and that a matrix leads to, in pixels.
        knob: Its name, for sentences.
        own_height: Of the picture that a matrix comes from, in pixels; ``height`` where None.

    Raises:
        BadKnob: The text cannot be read.
    """
    if kind == CURVE:
        return text
    own = height if own_height is None else own_height
    made = []
    for name, body in sections(text, knob).items():
        keys = read_keys(body, kind, knob)
        turned = tuple(_turned(values, height, own) for values in keys.values)
        spelt = spell_keys(Keys(keys.frames, turned))
        made.append(f"{name}: {spelt}" if name else spelt)
    return " | ".join(made)


def _turned(values: Sequence[float], height: float, own: float) -> tuple[float, ...]:
    """Return a position, or a matrix between two pictures, with y turned round in both."""
    if len(values) == 2:
        return values[0], height - values[1]
    a, b, tx, c, d, ty = values
    return a, -b, tx + b * own, -c, d, height - ty - d * own
