# SPDX-License-Identifier: Apache-2.0
"""Makes the pictures of ``docs/models/preview.md``: what ``preview`` does to footage nobody made.

    python tools/preview_sheets.py CLIPS [duck] [tower] [cups]

CLIPS is a folder with ``moving_ball``, ``bigben`` and ``sam2_cups`` as JPEG sequences (``rgb``),
the first two with masks of four values (``quadmask``): up to 63 is the object. Works in
``build/preview_sheets``, where what was run stays: delete it to run again.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gencomp_server.sheet import Files, draw_layers

ROOT = Path(__file__).resolve().parent.parent
WORK, PICTURES = ROOT / "build" / "preview_sheets", ROOT / "docs" / "images"
FRAMES, WIDTH, MULTIPLE = 24, 640, 8
OBJECT_UP_TO = 63
KEYS = (1, 12, 24)
_MOST_BYTES, _SHEET_WIDTH = 150_000, 1100


def bring(source: Path, folder: Path) -> tuple[int, int]:
    """Bring a clip's first frames, and its masks where it has any, to a small size.

    Args:
        source: The clip's folder.
        folder: Filled with ``rgb`` and, of masks, ``matte``, as PNGs.

    Returns:
        Width and height in pixels.
    """
    pictures = sorted((source / "rgb").iterdir())[:FRAMES]
    size = (0, 0)
    for n, path in enumerate(pictures, 1):
        picture = cv2.imread(str(path))
        height, width = picture.shape[:2]
        high = round(height * WIDTH / width / MULTIPLE) * MULTIPLE
        size = (WIDTH, high)
        keep(folder / "rgb", n, cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
        if (source / "quadmask").is_dir():
            masks = sorted((source / "quadmask").iterdir())
            mask = cv2.imread(str(masks[n - 1]), cv2.IMREAD_GRAYSCALE)
            inside = np.asarray(mask <= OBJECT_UP_TO, np.uint8) * 255
            matte = cv2.resize(inside, size, interpolation=cv2.INTER_AREA)
            keep(folder / "matte", n, matte)
    return size


def keep(folder: Path, n: int, picture: NDArray[np.uint8]) -> None:
    """Write one PNG of a sequence named like its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / f"{folder.name}.{n:04d}.png"), picture)


def draw_roto(folder: Path, size: tuple[int, int], way: Callable[[float], Sequence[float]]) -> None:
    """Draw a roto at the keyframes: an ellipse.

    Args:
        folder: ``roto`` is made in it.
        size: Width and height of the picture.
        way: Of the time 0..1: centre x, y and half axes x, y, all 0..1 of the picture.
    """
    for n in KEYS:
        x, y, a, b = way((n - 1) / (FRAMES - 1))
        roto = np.zeros((size[1], size[0]), np.uint8)
        centre, axes = (round(x * size[0]), round(y * size[1])), (a * size[0], b * size[1])
        cv2.ellipse(roto, centre, (round(axes[0]), round(axes[1])), 0, 0, 360, 255, -1)
        keep(folder / "roto", n, roto)


def gencomp(out: Path, system: str, *words: str) -> Path:
    """Run the tool once and return its folder."""
    if not (out / "manifest.json").exists():
        command = [sys.executable, "-m", "gencomp_server", "run", system, "--out", str(out)]
        subprocess.run([*command, *words], check=True, stdout=subprocess.DEVNULL)
    return out


def removed(name: str, folder: Path) -> dict[str, Files]:
    """Take the object of a clip out with and without the model; return the rows of the sheet."""
    given = ("--input", f"plate={folder}/rgb/rgb.%04d.png")
    given += ("--input", f"matte.{name}={folder}/matte/matte.%04d.png")
    alone = gencomp(folder / "temporal", "omnimatte", *given, "--set", "clean_plate_from=temporal")
    model = gencomp(folder / "preview", "omnimatte", *given, "--set", "backbone=preview")
    return {
        "plate": _pngs(folder / "rgb"),
        "matte": _pngs(folder / "matte", is_matte=True),
        "without model": _exrs(alone, "clean"),
        "preview": _exrs(model, "clean"),
        "layer": _exrs(model, name),
    }


def added(folder: Path, *prompts: str) -> dict[str, Files]:
    """Have effects added by words inside a roto; return the rows of the sheet."""
    rows = {"plate": _pngs(folder / "rgb"), "mask (keys)": _pngs(folder / "roto", is_matte=True)}
    given = ("--input", f"plate={folder}/rgb/rgb.%04d.png")
    given += ("--input", f"effect_mask={folder}/roto/roto.%04d.png")
    given += ("--set", "mask_frames=keyframes only")
    given += ("--set", f"keyframes={','.join(map(str, KEYS))}", "--set", "backbone=preview")
    for prompt in prompts:
        out = folder / prompt.replace(" ", "_")
        out = gencomp(out, "overplusplus", *given, "--set", f"prompt={prompt}")
        rows[prompt] = _exrs(out, "result")
    return rows


def _pngs(folder: Path, *, is_matte: bool = False) -> Files:
    paths = {int(one.name.split(".")[1]): one for one in sorted(folder.glob("*.png"))}
    return Files(paths, kind="image", colourspace="srgb", is_matte=is_matte)


def _exrs(folder: Path, layer: str) -> Files:
    found = sorted((folder / layer).glob(f"{layer}.*.exr"))
    return Files({int(one.name.split(".")[1]): one for one in found})


def duck(clips: Path, folder: Path) -> dict[str, Files]:
    """A rubber duck on a table, into which a ball rolls."""
    bring(clips / "moving_ball", folder)
    return removed("duck", folder)


def tower(clips: Path, folder: Path) -> dict[str, Files]:
    """A tower at dusk, with its reflection in the water."""
    bring(clips / "bigben", folder)
    return removed("tower", folder)


def cups(clips: Path, folder: Path) -> dict[str, Files]:
    """Cups on a white table: smoke and a shadow that were never there."""
    size = bring(clips / "sam2_cups", folder)
    draw_roto(folder, size, lambda t: (0.3 + 0.4 * t, 0.45, 0.16, 0.22))
    return added(folder, "soft shadow", "more red smoke")


SHOTS: dict[str, Callable[[Path, Path], dict[str, Files]]] = {
    "duck": duck,
    "tower": tower,
    "cups": cups,
}


def draw(name: str, rows: dict[str, Files]) -> Path:
    """Draw a sheet, and keep it as a JPEG among the docs' pictures."""
    sheet = WORK / f"{name}.png"
    whole = {label for label, files in rows.items() if not files.is_matte} - {"layer"}
    draw_layers(sheet, f"preview   {name}", KEYS, rows, whole=whole)
    picture = cv2.imread(str(sheet))
    high = round(picture.shape[0] * _SHEET_WIDTH / picture.shape[1])
    small = cv2.resize(picture, (_SHEET_WIDTH, high), interpolation=cv2.INTER_AREA)
    for quality in range(90, 40, -5):
        good, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if good and data.size <= _MOST_BYTES:
            place = PICTURES / f"preview_{name}.jpg"
            place.write_bytes(data.tobytes())
            return place
    raise ValueError(f"the sheet of {name} is larger than {_MOST_BYTES} bytes")


def main(arguments: Sequence[str]) -> int:
    """Make the sheets that are named, or all; return the exit code."""
    if not arguments or set(arguments[1:]) - set(SHOTS):
        sys.stderr.write(f"preview_sheets.py CLIPS [{'] ['.join(SHOTS)}]\n")
        return 2
    for name in arguments[1:] or SHOTS:
        folder = WORK / name
        sys.stdout.write(f"{draw(name, SHOTS[name](Path(arguments[0]), folder))}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
