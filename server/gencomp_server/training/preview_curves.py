# SPDX-License-Identifier: Apache-2.0
"""Curves and grids of the preview's training as PNG files, by numpy and zlib alone."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 900, 300, 60, 28, 34
_INKS = ((200, 60, 50), (120, 120, 120), (60, 140, 70), (50, 90, 200), (190, 130, 30))
_PAPER, _LINE, _TEXT = 250, 220, (40, 40, 40)
# Glyphs of 3x5, a digit of base 8 for each row from the top.
_DIGITS = "75557 26227 71747 71717 55711 74717 74757 71122 75757 75717"
_LETTERS = (
    "25755 65656 34443 65556 74647 74644 34553 55755 72227 11152 55655 44447 57755 "
    "65555 25552 65644 25563 65655 34216 72222 55557 55552 55775 55255 55222 71247"
)
_GLYPHS = {
    **dict(zip("0123456789", _DIGITS.split(), strict=True)),
    **dict(zip("abcdefghijklmnopqrstuvwxyz", _LETTERS.split(), strict=True)),
    ".": "00002",
    "-": "00700",
    ",": "00024",
    "(": "24442",
    ")": "21112",
}


def write_png(path: Path, pixels: Bytes) -> None:
    """Write a picture. [H,W,3] uint8, sRGB."""
    height, width = pixels.shape[:2]
    rows = np.concatenate(
        [np.zeros((height, 1), np.uint8), np.ascontiguousarray(pixels).reshape(height, -1)], axis=1
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"".join(
        _piece(name, data)
        for name, data in (
            (b"IHDR", header),
            (b"IDAT", zlib.compress(rows.tobytes(), 9)),
            (b"IEND", b""),
        )
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def _piece(name: bytes, data: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + check


def grid(pictures: NDArray[np.floating[Any]], larger: int = 3) -> Bytes:
    """Lay pictures out, a row each. [rows,columns,H,W,3] in model range -> [H',W',3] uint8."""
    rows, columns, height, width = pictures.shape[:4]
    codes = np.clip(0.5 + 0.5 * pictures, 0, 1) * 255 + 0.5
    laid = (
        codes.astype(np.uint8).transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3)
    )
    return np.asarray(laid.repeat(larger, 0).repeat(larger, 1), np.uint8)


def curves(events: Sequence[Mapping[str, Any]]) -> Bytes:
    """Draw a training's loss and what its validations measured. [H,W,3] uint8.

    Args:
        events: Of the log: ``step`` with a loss, ``validation`` with figures in dB.
    """
    losses = [(e["step"], e["loss"]) for e in events if e["event"] == "step"]
    checks = [e for e in events if e["event"] == "validation"]
    panels = [("loss", {"loss": losses})]
    for task in ("remove", "add"):
        names = [name for name in checks[-1] if name.startswith(f"{task}_")] if checks else []
        lines = {
            name.removeprefix(f"{task}_"): [(e["step"], e[name]) for e in checks if name in e]
            for name in names
        }
        panels.append((f"{task}, changed pixels, db", lines))
    return np.concatenate([_panel(title, lines) for title, lines in panels])


def _panel(title: str, lines: Mapping[str, Sequence[tuple[float, float]]]) -> Bytes:
    """Draw curves over steps, with a grid, its numbers and the curves' names."""
    page = np.full((_HEIGHT, _WIDTH, 3), _PAPER, np.uint8)
    _write(page, title, 8, _LEFT)
    points = [point for line in lines.values() for point in line]
    if not points:
        return page
    most = max(1.0, max(x for x, _ in points))
    values = [y for _, y in points]
    low, high = min(values), max(values)
    high = high if high > low else low + 1.0
    foot, wide = _HEIGHT - _GAP, _WIDTH - _LEFT - 20
    for i in range(5):
        row = round(foot - (foot - _TOP - 12) * i / 4)
        column = round(_LEFT + wide * i / 4)
        page[row, _LEFT : _LEFT + wide] = _LINE
        _write(page, f"{low + (high - low) * i / 4:.3g}", row - 5, 4)
        _write(page, f"{most * i / 4:.0f}", foot + 10, column - 12)
    start = _LEFT + 330
    for ink, (name, line) in zip(_INKS, lines.items(), strict=False):
        at = np.array(line, np.float64).reshape(-1, 2)
        x = _LEFT + wide * at[:, 0] / most
        y = foot - (foot - _TOP - 12) * (at[:, 1] - low) / (high - low)
        _draw(page, x, y, ink)
        said = f"{name} {line[-1][1]:.3g}" if line else name
        _write(page, said, 8, start, ink)
        start += 8 * len(said) + 24
    return page


def _draw(
    page: Bytes, x: NDArray[np.floating[Any]], y: NDArray[np.floating[Any]], ink: tuple[int, ...]
) -> None:
    """Draw a line through points."""
    for i in range(len(x)):
        j = min(i + 1, len(x) - 1)
        count = int(max(abs(x[j] - x[i]), abs(y[j] - y[i]), 1)) * 2
        columns = np.linspace(x[i], x[j], count).round().astype(int)
        rows = np.linspace(y[i], y[j], count).round().astype(int)
        page[rows, columns] = ink
        page[rows - 1, columns] = ink


def _write(page: Bytes, text: str, top: int, left: int, ink: tuple[int, ...] = _TEXT) -> None:
    """Write small letters of 6x10 pixels."""
    for place, letter in enumerate(text.lower()):
        rows = [[int(bit) for bit in f"{int(row):03b}"] for row in _GLYPHS.get(letter, "00000")]
        block = np.array(rows, bool).repeat(2, 0).repeat(2, 1)
        start = left + 8 * place
        if start >= 0 and top >= 0 and start + 6 <= page.shape[1] and top + 10 <= page.shape[0]:
            page[top : top + 10, start : start + 6][block] = ink
