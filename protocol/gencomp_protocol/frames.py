# SPDX-License-Identifier: Apache-2.0
"""Frame ranges, formats and pixel boxes: the geometry that every room agrees on.

Frame numbers are timeline numbers (1001), inclusive at both ends. Boxes are in pixels, inclusive
at both ends as in OpenEXR, row 0 at the top. Nothing here touches a file.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Optional

from gencomp_protocol.errors import BadKnob

_PIECE = re.compile(r"^(-?\d+)(?:-(-?\d+)(?:x(\d+))?)?$")


@dataclass(frozen=True)
class FrameRange:
    """Inclusive run of timeline frames: ``first``, ``last`` and a ``step`` of at least 1."""

    first: int
    last: int
    step: int = 1

    def __post_init__(self) -> None:
        """Refuse a range that runs backwards or has no step."""
        if self.step < 1:
            raise BadKnob(f"A frame range needs a step of 1 or more, not {self.step}.")
        if self.last < self.first:
            raise BadKnob(
                f"The frame range {self.first}-{self.last} runs backwards.",
                hint=f"Write it as {self.last}-{self.first}.",
            )

    def __iter__(self) -> Iterator[int]:
        """Yield every frame number in order."""
        return iter(range(self.first, self.last + 1, self.step))

    def __len__(self) -> int:
        """Count the frames."""
        return (self.last - self.first) // self.step + 1

    def __contains__(self, frame: object) -> bool:
        """Tell whether a frame number is one of the range."""
        return isinstance(frame, int) and frame in range(self.first, self.last + 1, self.step)

    def __str__(self) -> str:
        """Spell the range as an artist types it: ``1001-1048`` or ``1001-1048x2``."""
        if self.first == self.last:
            return str(self.first)
        tail = "" if self.step == 1 else f"x{self.step}"
        return f"{self.first}-{self.last}{tail}"

    @classmethod
    def parse(cls, text: str) -> "FrameRange":
        """Read ``1001``, ``1001-1048`` or ``1001-1048x2``.

        Raises:
            BadKnob: The text is none of these, or the range runs backwards.
        """
        match = _PIECE.match(text.strip())
        if match is None:
            raise BadKnob(
                f"'{text}' is not a frame range.", hint="Write it as 1001-1048 or 1001-1048x2."
            )
        first = int(match.group(1))
        last = first if match.group(2) is None else int(match.group(2))
        return cls(first, last, int(match.group(3) or 1))


def frame_list(text: str) -> tuple[int, ...]:
    """Read a typed list of frames such as ``1001,1010-1020x5``, sorted and without repeats.

    Raises:
        BadKnob: A piece of the list is not a frame or a range.
    """
    pieces = [piece for piece in re.split(r"[,\s]+", text.strip()) if piece]
    found = {frame for piece in pieces for frame in FrameRange.parse(piece)}
    return tuple(sorted(found))


def spell_frames(frames: Iterable[int]) -> str:
    """Spell frames as runs, ``1001-1004, 1010``, for sentences an artist reads."""
    runs = []  # type: list[list[int]]
    for frame in sorted(set(frames)):
        if runs and frame == runs[-1][1] + 1:
            runs[-1][1] = frame
        else:
            runs.append([frame, frame])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


@dataclass(frozen=True)
class Box:
    """Pixel box, inclusive at both ends (OpenEXR's convention), y downwards."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.x1 - self.x0 + 1

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.y1 - self.y0 + 1

    def intersect(self, other: "Box") -> "Optional[Box]":
        """Return the common part of two boxes, or None where they do not meet."""
        x0, y0 = max(self.x0, other.x0), max(self.y0, other.y0)
        x1, y1 = min(self.x1, other.x1), min(self.y1, other.y1)
        return None if x1 < x0 or y1 < y0 else Box(x0, y0, x1, y1)

    def __str__(self) -> str:
        """Spell the box as ``1920x1080+0+0``."""
        return f"{self.width}x{self.height}{self.x0:+d}{self.y0:+d}"


@dataclass(frozen=True)
class Format:
    """Size of the full picture (the display window) in pixels, and its pixel aspect."""

    width: int
    height: int
    pixel_aspect: float = 1.0

    def __str__(self) -> str:
        """Spell the format as ``1920x1080`` with the pixel aspect where it is not 1."""
        tail = "" if self.pixel_aspect == 1.0 else f" (pixel aspect {self.pixel_aspect:g})"
        return f"{self.width}x{self.height}{tail}"
