# SPDX-License-Identifier: Apache-2.0
"""Formats and ranges of frames: ``nuke.Format``, ``nuke.FrameRange``, ``nuke.FrameRanges``."""

import re

_BUILTIN = (
    "640 480 1 PC_Video\n720 486 0.91 NTSC\n720 576 1.09 PAL\n1280 720 1 HD_720\n"
    "1920 1080 1 HD_1080\n3840 2160 1 UHD_4K\n1024 778 1 1K_Super_35(full-ap)\n"
    "2048 1556 1 2K_Super_35(full-ap)\n4096 3112 1 4K_Super_35(full-ap)\n256 256 1 square_256\n"
    "512 512 1 square_512\n1024 1024 1 square_1K\n2048 2048 1 square_2K"
)
_RANGE = re.compile(r"(-?\d+)(?:-(-?\d+)(?:x(\d+))?)?\Z")


class Format:
    """Size of a picture."""

    def __init__(self, width, height, pixel_aspect=1.0, name=""):
        self._size, self._called = (int(width), int(height), float(pixel_aspect)), name

    def name(self):
        return self._called

    def setName(self, name):
        self._called = name

    def width(self):
        return self._size[0]

    def height(self):
        return self._size[1]

    def pixelAspect(self):
        return self._size[2]

    def x(self):
        return 0

    def y(self):
        return 0

    def r(self):
        return self._size[0]

    def t(self):
        return self._size[1]

    def __eq__(self, other):
        return isinstance(other, Format) and self._size == other._size

    def __hash__(self):
        return hash(self._size)

    def __repr__(self):
        return f"<Format {self._size[0]}x{self._size[1]} {self._called}>"


class Formats:
    """The formats that a session knows, by name."""

    def __init__(self):
        self.known = {}
        for line in _BUILTIN.split("\n"):
            self.add(line)

    def add(self, text):
        """Add ``width height aspect name`` or ``width height x y r t aspect name``."""
        words = text.split()
        numbers = []
        while words and re.match(r"-?[\d.]+\Z", words[0]) and len(numbers) < 7:
            numbers.append(float(words.pop(0)))
        if len(numbers) < 2:
            raise ValueError(f"'{text}' is no format")
        aspect = numbers[-1] if len(numbers) in (3, 7) else 1.0
        made = Format(numbers[0], numbers[1], aspect, " ".join(words))
        if made.name():
            self.known[made.name()] = made
        return made

    def get(self, text):
        """Return the format that a knob's word names; the script's default where it is empty."""
        if not text.strip():
            return self.known["HD_1080"]
        if text in self.known:
            return self.known[text]
        return self.add(text)


class Box:
    """``node.bbox()``: x, y, w, h."""

    def __init__(self, x, y, right, top):
        self._ends = (x, y, right, top)

    def x(self):
        return self._ends[0]

    def y(self):
        return self._ends[1]

    def w(self):
        return self._ends[2] - self._ends[0]

    def h(self):
        return self._ends[3] - self._ends[1]


class FrameRange:
    """First frame, last frame, step; from numbers or from ``1-10x2``."""

    def __init__(self, first, last=None, increment=1):
        if isinstance(first, str):
            match = _RANGE.match(first.strip())
            if match is None:
                raise RuntimeError(f"'{first}' is no range of frames")
            first, end, step = match.groups()
            last, increment = (first if end is None else end), (step or 1)
        last = first if last is None else last
        self._ends = (int(first), int(last), int(increment))

    def first(self):
        return self._ends[0]

    def last(self):
        return self._ends[1]

    def increment(self):
        return self._ends[2]

    def frames(self):
        return len(range(self._ends[0], self._ends[1] + 1, self._ends[2]))

    def isInRange(self, frame):
        return frame in range(self._ends[0], self._ends[1] + 1, self._ends[2])

    def __iter__(self):
        return iter(range(self._ends[0], self._ends[1] + 1, self._ends[2]))

    def __str__(self):
        first, last, step = self._ends
        if first == last:
            return str(first)
        return f"{first}-{last}" + (f"x{step}" if step != 1 else "")


class FrameRanges:
    """Several ranges: ``1-10x2 20``, a list of them, or of frames."""

    def __init__(self, ranges=()):
        if isinstance(ranges, str):
            ranges = ranges.replace(",", " ").split()
        elif isinstance(ranges, FrameRange):
            ranges = [ranges]
        self._ranges = [r if isinstance(r, FrameRange) else FrameRange(str(r)) for r in ranges]

    def add(self, found):
        self._ranges.append(found)

    def size(self):
        return len(self._ranges)

    def toFrameList(self):
        return [frame for found in self._ranges for frame in found]

    def minFrame(self):
        return min(self.toFrameList())

    def maxFrame(self):
        return max(self.toFrameList())

    def __iter__(self):
        return iter(self._ranges)

    def __str__(self):
        return " ".join(map(str, self._ranges))
