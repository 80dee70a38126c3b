# SPDX-License-Identifier: Apache-2.0
"""Makes the pictures of ``docs/artist/shots``: footage, runs of the tool, JPEGs of at most 150 KB.

    python tools/worked_shots.py [contact-shadow] [explosion] [reflections] [removal]

Works in ``build/worked_shots``, where what was run stays: delete it to run again. The removals and
the layers are plain runs of ``gencomp``. In the other two the shot's own truth plays the video
model (``played_model.py``), and the pages say so.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from footage import Burst, Creature, lit, write
from numpy.typing import NDArray
from played_model import run as played

from gencomp_server.sheet import draw_text, show_alpha, show_opaque, show_over_checkers
from gencomp_server.training.shots import ProceduralShot, ShotSpec, over, write_shot

Array = NDArray[np.floating[Any]]
ROOT = Path(__file__).resolve().parent.parent
WORK, PICTURES = ROOT / "build" / "worked_shots", ROOT / "docs" / "artist" / "shots"
SIZE = (640, 384)
_GAP, _HEAD, _LABEL = 8, 30, 132
_THUMB, _SMALL_THUMB, _FEW_ROWS = (400, 240), (330, 198), 4
_MOST_BYTES = 150_000
_FIELD, _INK = 26, (216, 216, 216)


# --- drawing -------------------------------------------------------------------------------------


def read(pattern: str | Path, n: int) -> Array:
    """Read a frame of a sequence over its display window. [H,W,1|3|4] float32."""
    import OpenImageIO

    path = str(pattern) % n
    found = OpenImageIO.ImageBuf(path)
    if found.has_error:
        raise FileNotFoundError(f"{path}: {found.geterror()}")
    return np.asarray(found.get_pixels(OpenImageIO.FLOAT, found.roi_full), np.float32)


def shown(pixels: Array, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a picture as it is printed: RGBA over checkers, one channel as grey. [h,w,3]."""
    small = cv2.resize(np.asarray(pixels, np.float32), size, interpolation=cv2.INTER_AREA)
    small = small.reshape(size[1], size[0], -1)
    sound = np.zeros(small.shape[:2], np.bool_)
    if small.shape[2] == 1:
        return show_alpha(np.repeat(np.clip(small, 0, 1), 4, 2), sound)
    return (show_over_checkers if small.shape[2] == 4 else show_opaque)(small, sound)


def sheet(name: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Array]]]) -> None:
    """Write rows of pictures, each with its label, as a JPEG.

    Args:
        name: Stem of the file in ``docs/artist/shots``.
        columns: What stands above each column.
        rows: Label and pictures.

    Raises:
        ValueError: It is too large even at the lowest quality.
    """
    wide, high = size = _THUMB if len(rows) <= _FEW_ROWS else _SMALL_THUMB
    width = _LABEL + len(columns) * (wide + _GAP)
    height = _HEAD + len(rows) * (high + _GAP)
    page = np.full((height, width, 3), _FIELD, np.uint8)
    for i, text in enumerate(columns):
        draw_text(page, text, _LABEL + i * (wide + _GAP), 16, 11, _INK)
    for j, (label, pictures) in enumerate(rows):
        top = _HEAD + j * (high + _GAP)
        for k, line in enumerate(label.split("\n")):
            draw_text(page, line, 8, top + 12 + 19 * k, 10, _INK)
        for i, picture in enumerate(pictures):
            left = _LABEL + i * (wide + _GAP)
            page[top : top + high, left : left + wide] = shown(picture, size)
    save(name, page)


def save(name: str, page: NDArray[np.uint8]) -> None:
    """Write a page as a JPEG of at most 150 KB, and as a PNG to look at beside the work."""
    WORK.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(WORK / f"{name}.png"), page[..., ::-1])
    for quality in (90, 85, 80, 72, 64, 56):
        good, data = cv2.imencode(".jpg", page[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        if good and data.size <= _MOST_BYTES:
            (PICTURES / f"{name}.jpg").write_bytes(data.tobytes())
            return
    raise ValueError(f"{name}.jpg is larger than {_MOST_BYTES} bytes")


def gencomp(out: Path, *words: str) -> Path:
    """Run the tool once and return its folder."""
    if not (out / "manifest.json").exists():
        command = [sys.executable, "-m", "gencomp_server", "run", "omnimatte", "--out", str(out)]
        command += ["--set", "clean_plate_from=temporal"]  # The pages say: without a video model.
        subprocess.run([*command, *words], check=True, stdout=subprocess.DEVNULL)
    return out


# --- the shots -----------------------------------------------------------------------------------


def contact_shadow() -> None:
    """Shadow and dust under a CG creature, asked for at three keyframes."""
    spec = ShotSpec(seed=921, width=SIZE[0], height=SIZE[1], effects=("shadow",), speed=8.0)
    walk = Creature(ShotSpec(**{**vars(spec), "tall": 0.5, "pan": (1.5, 0.2)}))
    shot, folder = ProceduralShot(walk.spec), WORK / "contact-shadow"
    keys = (1002, 1012, 1022)
    for n in shot.frames:
        write(folder, "fg", n, walk.fg(shot, n))
        write(folder, "bg", n, shot.clean_plate(n))
        if n in keys:
            write(folder, "roto", n, walk.roto(shot, n))
    inputs = {name: f"{folder}/{name}/{name}.%04d.exr" for name in ("fg", "bg")}
    inputs["effect_mask"] = f"{folder}/roto/roto.%04d.exr"
    out = folder / "out"
    if not (out / "manifest.json").exists():
        knobs = {
            "prompt": "soft shadow, dust at the feet",
            "mask_frames": "keyframes only",
            "keyframes": ",".join(map(str, keys)),
            "alpha_style": "natural",
        }
        played(
            "overplusplus", out, inputs, knobs, lambda n, plate: walk.truth(shot, n), model="casper"
        )
    frames, blank = (1002, 1007, 1012), np.full((SIZE[1], SIZE[0], 1), 0.16, np.float32)
    sheet(
        "contact-shadow",
        [str(n) for n in frames],
        [
            ("Fg over Bg", [over(walk.fg(shot, n), shot.clean_plate(n)) for n in frames]),
            (
                "roto\ngrey: no key,\nthe model\ndecides",
                [walk.roto(shot, n) if n in keys else blank for n in frames],
            ),
            ("result", [read(out / "result/result.%04d.exr", n)[..., :3] for n in frames]),
            ("effect\nas a layer", [read(out / "effect/effect.%04d.exr", n) for n in frames]),
        ],
    )
    n = 1012
    under = read(out / "effect_under/effect_under.%04d.exr", n)
    front = read(out / "effect_over/effect_over.%04d.exr", n)
    plate, fg = shot.clean_plate(n), walk.fg(shot, n)
    sheet(
        "contact-shadow-grade",
        ["effect_under 1.0", "denser: 1.5", "lighter: 0.5"],
        [
            (
                f"{n}",
                [
                    over(front, over(fg, over(np.clip(under * k, None, 1), plate)))
                    for k in (1.0, 1.5, 0.5)
                ],
            )
        ],
    )


def explosion() -> None:
    """A stock explosion along a tracked path, its light on the street."""
    spec = ShotSpec(seed=931, width=SIZE[0], height=SIZE[1], effects=(), pan=(5.0, -0.6))
    shot, burst, folder = ProceduralShot(spec), Burst(), WORK / "explosion"
    origin = shot.scenery.camera.origin
    world = (origin[0] + 0.66 * SIZE[0], origin[1] + 0.74 * SIZE[1])
    points = {n: shot.scenery.camera.to_picture(n - 1001.0, *world) for n in shot.frames}
    for n in shot.frames:
        write(folder, "bg", n, shot.clean_plate(n))
        write(folder, "fg", n - 1000, burst.picture(n - 1000))
    inputs = {name: f"{folder}/{name}/{name}.%04d.exr" for name in ("bg", "fg")}
    path = "; ".join(f"{x:.2f},{y:.2f}@{n}" for n, (x, y) in points.items())
    knobs = {
        "trajectory": path,
        "anchor_point": "128,190",
        "scale": "0.85",
        "fg_start": "1004",
        "inflate": "170",
    }

    def truth(n: int, plate: Any) -> Any:
        own = n - 1003
        return lit(plate, points[n], 130.0, 2.6 * burst.light(own)) if own > 0 else plate

    out = folder / "out"
    if not (out / "manifest.json").exists():
        played("gencomposite", out, inputs, knobs, truth, model="gencompositor")
    command = [sys.executable, "-m", "gencomp_server", "preview", "gencomposite"]
    command += [f"--input={name}={pattern}" for name, pattern in inputs.items()]
    command += [f"--set={knob}={value}" for knob, value in knobs.items()]
    where = WORK / "where.png"
    subprocess.run([*command, "-o", str(where)], check=True, stdout=subprocess.DEVNULL)
    drawn = cv2.imread(str(where))[..., ::-1]
    wide = 1360
    size = (wide, round(drawn.shape[0] * wide / drawn.shape[1]))
    save("explosion-preview", cv2.resize(drawn, size, interpolation=cv2.INTER_AREA))
    frames = (1006, 1010, 1018)
    sheet(
        "explosion",
        [str(n) for n in frames],
        [
            ("Bg", [shot.clean_plate(n) for n in frames]),
            ("element\nin its place", [read(out / "element/element.%04d.exr", n) for n in frames]),
            (
                "interaction\nits light,\nbeneath it",
                [read(out / "interaction/interaction.%04d.exr", n) for n in frames],
            ),
            ("result", [read(out / "result/result.%04d.exr", n)[..., :3] for n in frames]),
        ],
    )


def reflections() -> None:
    """Two actors with shadows and reflections as layers; one is retimed."""
    effects = ("shadow", "reflection")
    spec = ShotSpec(
        seed=917, width=SIZE[0], height=SIZE[1], objects=2, effects=effects, speed=6.4, tall=0.42
    )
    folder = WORK / "reflections"
    if not (folder / "plate").exists():
        write_shot(spec, folder)
    out = gencomp(
        folder / "out",
        f"--input=plate={folder}/plate/plate.%04d.exr",
        f"--input=matte.anna={folder}/matte_a/matte_a.%04d.exr",
        f"--input=matte.ben={folder}/matte_b/matte_b.%04d.exr",
    )
    frames, late = (1008, 1016, 1024), 7

    def layer(name: str, n: int) -> Array:
        return read(out / f"{name}/{name}.%04d.exr", max(1001, n))

    sheet(
        "reflections",
        [str(n) for n in frames],
        [
            ("plate", [read(folder / "plate/plate.%04d.exr", n) for n in frames]),
            ("anna", [layer("anna", n) for n in frames]),
            ("ben", [layer("ben", n) for n in frames]),
            ("background", [layer("background", n)[..., :3] for n in frames]),
            (
                f"anna\n{late} frames\nlater",
                [
                    over(
                        layer("anna", n - late),
                        over(layer("ben", n), layer("background", n)[..., :3]),
                    )
                    for n in frames
                ],
            ),
        ],
    )


def removal() -> None:
    """A crew member and the shadow removed from a hand-held plate; once more with help."""
    spec = ShotSpec(
        seed=905, width=SIZE[0], height=SIZE[1], handheld=True, effects=("shadow",), speed=9.0
    )
    folder = WORK / "removal"
    if not (folder / "plate").exists():
        write_shot(spec, folder)
    shot = ProceduralShot(spec)
    for n in shot.frames:
        write(folder, "limit", n, _around(shot, n))
    given = (
        f"--input=plate={folder}/plate/plate.%04d.exr",
        f"--input=matte.crew={folder}/matte_a/matte_a.%04d.exr",
        "--set=grain=match",
    )
    painted = [
        f"--input=clean_plate@{n}={folder}/clean_plate/clean_plate.{n}.exr" for n in (1016, 1022)
    ]
    first = gencomp(folder / "out", *given)
    second = gencomp(
        folder / "helped", *given, *painted, f"--input=limit={folder}/limit/limit.%04d.exr"
    )
    frames = (1006, 1018, 1023)

    def of(out: Path, name: str) -> list[Array]:
        return [read(out / f"{name}/{name}.%04d.exr", n) for n in frames]

    sheet(
        "removal",
        [str(n) for n in frames],
        [
            ("plate", [read(folder / "plate/plate.%04d.exr", n) for n in frames]),
            ("clean\nas it comes", [one[..., :3] for one in of(first, "clean")]),
            ("limit", [_around(shot, n) for n in frames]),
            (
                "clean\nwith limit and\ntwo painted\nframes",
                [one[..., :3] for one in of(second, "clean")],
            ),
            ("patch", of(second, "patch")),
        ],
    )


def _around(shot: ProceduralShot, n: int) -> Array:
    """Return a garbage matte around a figure and its shadow, soft. [H,W,1]."""
    inside = (shot.layer("a", n)[..., 3] > 0.02).astype(np.uint8)
    grown = cv2.dilate(inside, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (15, 15)))
    soft = cv2.GaussianBlur(grown.astype(np.float32), (0, 0), 3.0)
    return np.asarray(soft, np.float32)[..., None]


SHOTS: dict[str, Callable[[], None]] = {
    "contact-shadow": contact_shadow,
    "explosion": explosion,
    "reflections": reflections,
    "removal": removal,
}

if __name__ == "__main__":
    for chosen in sys.argv[1:] or SHOTS:
        SHOTS[chosen]()
