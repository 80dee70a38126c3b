# SPDX-License-Identifier: Apache-2.0
"""Draw the icons of the gizmos: ``python tools/icons.py`` writes ``icons/NAME.png`` and ``@2x``.

Pure Python: a picture is a function of a place in a square of one by one, y down, that returns
straight RGBA; every pixel is the mean of a grid of places in it. Nuke finds the files on its
plug-in path.
"""

import argparse
import math
import struct
import sys
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"": 24, "@2x": 48}
_GRID = 4
_WHITE, _AMBER, _BLUE, _GREY = (0.93,) * 3, (0.98, 0.70, 0.22), (0.36, 0.66, 0.96), (0.55,) * 3
Colour = tuple[float, float, float]
Mark = tuple[float, Colour]
"""How much of a place is covered, 0 to 1, and in which colour."""


def _disc(x: float, y: float, cx: float, cy: float, rx: float, ry: float) -> float:
    return float(((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 <= 1)


def _line(x: float, y: float, ends: tuple[float, float, float, float], width: float) -> float:
    x0, y0, x1, y1 = ends
    dx, dy = x1 - x0, y1 - y0
    along = max(0.0, min(1.0, ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy)))
    return float(math.hypot(x - x0 - along * dx, y - y0 - along * dy) <= width / 2)


def _plus(x: float, y: float, cx: float, cy: float, size: float) -> float:
    across = _line(x, y, (cx - size, cy, cx + size, cy), 0.09)
    return max(across, _line(x, y, (cx, cy - size, cx, cy + size), 0.09))


def _sheet(x: float, y: float, cx: float, cy: float) -> float:
    """Return a square that lies flat, seen from above and aside."""
    return float(abs(x - cx) / 0.44 + abs(y - cy) / 0.2 <= 1)


def _over_plus_plus(x: float, y: float) -> list[Mark]:
    shadow = 0.75 * _disc(x, y, 0.52, 0.84, 0.42, 0.1)
    subject = _disc(x, y, 0.38, 0.54, 0.24, 0.28)
    pluses = max(_plus(x, y, 0.58, 0.17, 0.1), _plus(x, y, 0.85, 0.17, 0.1))
    return [(shadow, _GREY), (subject, _WHITE), (pluses, _AMBER)]


def _gen_composite(x: float, y: float) -> list[Mark]:
    way = [(0.1, 0.86), (0.26, 0.7), (0.42, 0.6), (0.56, 0.5)]
    dots = max(_disc(x, y, cx, cy, 0.06, 0.06) for cx, cy in way)
    element = float(0.58 <= x <= 0.92 and 0.1 <= y <= 0.44)
    frame = max(
        _line(x, y, ends, 0.06)
        for ends in ((0.05, 0.95, 0.95, 0.95), (0.05, 0.95, 0.05, 0.05), (0.05, 0.05, 0.4, 0.05))
    )
    return [(frame, _GREY), (dots, _BLUE), (element, _AMBER)]


def _omnimatte(x: float, y: float) -> list[Mark]:
    return [
        (_sheet(x, y, 0.5, 0.76), _GREY),
        (_sheet(x, y, 0.5, 0.52), _BLUE),
        (_sheet(x, y, 0.5, 0.28), _WHITE),
    ]


def _split_then_merge(x: float, y: float) -> list[Mark]:
    left = max(_line(x, y, e, 0.12) for e in ((0.2, 0.1, 0.2, 0.3), (0.2, 0.3, 0.5, 0.56)))
    right = max(_line(x, y, e, 0.12) for e in ((0.8, 0.1, 0.8, 0.3), (0.8, 0.3, 0.5, 0.56)))
    merged = _line(x, y, (0.5, 0.56, 0.5, 0.9), 0.12)
    return [(left, _BLUE), (right, _AMBER), (merged, _WHITE)]


def _dyn_vfx(x: float, y: float) -> list[Mark]:
    dx, dy = x - 0.5, y - 0.5
    spark = float(math.sqrt(abs(dx)) + math.sqrt(abs(dy)) <= 0.68)
    lines = max(_line(x, y, e, 0.07) for e in ((0.06, 0.9, 0.4, 0.9), (0.06, 0.76, 0.28, 0.76)))
    return [(lines, _GREY), (spark, _AMBER), (_disc(x, y, 0.84, 0.18, 0.09, 0.09), _WHITE)]


ICONS: dict[str, Callable[[float, float], list[Mark]]] = {
    "DynVFX": _dyn_vfx,
    "GenComposite": _gen_composite,
    "Omnimatte": _omnimatte,
    "OverPlusPlus": _over_plus_plus,
    "SplitThenMerge": _split_then_merge,
}


def pixels(marks_at: Callable[[float, float], list[Mark]], size: int) -> list[bytes]:
    """Return an icon's rows, RGBA of 8 bits, straight alpha."""
    step, rows = 1.0 / (size * _GRID), []
    for row in range(size):
        line = bytearray()
        for column in range(size):
            total = [0.0] * 4
            for index in range(_GRID * _GRID):
                x = (column * _GRID + index % _GRID + 0.5) * step
                y = (row * _GRID + index // _GRID + 0.5) * step
                total = [a + b for a, b in zip(total, _over(marks_at(x, y)), strict=True)]
            line += _straight(total)
        rows.append(bytes(line))
    return rows


def _over(marks: list[Mark]) -> list[float]:
    """Return marks on one another, the last on top, premultiplied."""
    found = [0.0] * 4
    for cover, colour in marks:
        found = [cover * c + (1 - cover) * f for c, f in zip((*colour, 1.0), found, strict=True)]
    return found


def _straight(total: list[float]) -> bytes:
    alpha = total[3]
    colour = [c / alpha if alpha else 0.0 for c in total[:3]]
    return bytes(round(255 * v) for v in (*colour, alpha / (_GRID * _GRID)))


def png(rows: list[bytes]) -> bytes:
    """Return rows of RGBA as a PNG file."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    head = struct.pack(">IIBBBBB", len(rows[0]) // 4, len(rows), 8, 6, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def main(arguments: Iterable[str]) -> int:
    """Write every icon in both sizes; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "icons", help="folder")
    out = parser.parse_args(list(arguments)).out
    out.mkdir(parents=True, exist_ok=True)
    for name, marks_at in ICONS.items():
        for ending, size in SIZES.items():
            (out / f"{name}{ending}.png").write_bytes(png(pixels(marks_at, size)))
    print(f"wrote {len(ICONS)} icons, in two sizes each, to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
