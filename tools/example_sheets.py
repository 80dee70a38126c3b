# SPDX-License-Identifier: Apache-2.0
"""Draws the pictures of the systems' pages from ``docs/examples``: ``docs/images/SYSTEM.jpg``.

    python tools/example_sheets.py

Footage and layers as they lie there, by the contact sheet that every delivery gets.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import cv2

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / room) for room in ("protocol", "server")]

from gencomp_server.sheet import Files, draw_delivery  # noqa: E402
from gencomp_server.sheet_cli import files_of, read_manifest  # noqa: E402

EXAMPLES, IMAGES = ROOT / "docs" / "examples", ROOT / "docs" / "images"
QUALITY, WIDTH = 86, 1200
# By system: the footage on top, footage beneath it, and layers of the result.
SHEETS = {
    "overplusplus": ("street", ("creature",), ("result", "effect")),
    "splitthenmerge": ("street", ("creature",), ("result", "effect")),
    "dynvfx": ("street", (), ("result", "effect")),
}


def draw(system: str) -> Path:
    """Draw one system's picture and return its file."""
    plate, others, layers = SHEETS[system]
    folder = EXAMPLES / "gencomp" / system / "v001"
    manifest = read_manifest(folder)
    rows = {name: footage(name) for name in others}
    rows |= {name: files_of(folder, manifest, name) for name in layers}
    first = footage(plate)
    with tempfile.TemporaryDirectory() as scratch:
        sheet = Path(scratch) / "sheet.png"
        draw_delivery(sheet, system, sorted(first.paths), first, rows, label=plate)
        picture = cv2.imread(str(sheet))
    height = round(picture.shape[0] * WIDTH / picture.shape[1])
    small = cv2.resize(picture, (WIDTH, height), interpolation=cv2.INTER_AREA)
    path = IMAGES / f"{system}.jpg"
    cv2.imwrite(str(path), small, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return path


def footage(name: str) -> Files:
    """Return a sequence of the examples' footage."""
    files = sorted((EXAMPLES / "footage" / name).glob("*.exr"))
    return Files({int(path.name.split(".")[-2]): path for path in files})


if __name__ == "__main__":
    for one in SHEETS:
        sys.stdout.write(f"wrote {draw(one).relative_to(ROOT)}\n")
