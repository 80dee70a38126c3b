# SPDX-License-Identifier: Apache-2.0
"""What ``make demo`` needs besides the command: inputs of its composite, and one sheet of all runs.

    python tools/demo.py inputs docs/examples/demo.toml demo/shot 1001,1009,1016,1024
    python tools/demo.py sheet demo/shot demo/out

``inputs`` writes, beside the shot, one of its figures without what it does to the scene, as a
compositor would have it: ``element`` (RGBA); and ``effect_mask``, a rough roto of where its shadow
belongs, at those keyframes. ``sheet`` draws what the three runs made of the shot, a row each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import cv2
import numpy as np

from gencomp_protocol.errors import GencompError
from gencomp_protocol.frames import Box, frame_list
from gencomp_server.contract import LayerFrame
from gencomp_server.exr.write import write_layer
from gencomp_server.sheet import Files, draw_layers
from gencomp_server.training.shots import ProceduralShot, load_spec, over

NAME = "a"
ROUGH_PX = 9
RUNS = ("temporal", "preview", "shadow")
SHEET = "contact_sheet.png"
_SHADOW_FROM = 0.03


def write_inputs(spec: Path, folder: Path, keys: Collection[int]) -> None:
    """Write a figure without effects, its composite over the clean plate, and the roto.

    Args:
        spec: The shot's parameters, a TOML file.
        folder: Where the shot lies.
        keys: Frames at which the roto is drawn.
    """
    shot = ProceduralShot(load_spec(spec))
    window = Box(0, 0, shot.spec.width - 1, shot.spec.height - 1)
    for n in shot.frames:
        element = shot.object_layer(NAME, n)
        pictures = {
            "element": (element, ("R", "G", "B", "A")),
            "composite": (over(element, shot.clean_plate(n)), ("R", "G", "B")),
        }
        if n in keys:
            shadow = shot.effect_layers(NAME, n)["shadow"][..., 3] > _SHADOW_FROM
            rough = cv2.dilate(shadow.astype(np.uint8), np.ones((ROUGH_PX, ROUGH_PX), np.uint8))
            pictures["effect_mask"] = (rough[..., None].astype(np.float32), ("A",))
        for place, (pixels, channels) in pictures.items():
            path = folder / place / f"{place}.{n:04d}.exr"
            path.parent.mkdir(parents=True, exist_ok=True)
            half = pixels.astype(np.float16)
            write_layer(path, LayerFrame(place, n, half, channels, window, window))


def draw(shot: Path, out: Path) -> Path:
    """Draw the runs into one sheet and return its path.

    Args:
        shot: Where the shot lies.
        out: Folder with one folder for each of :data:`RUNS`.
    """
    told = {run: json.loads((out / run / "manifest.json").read_text("utf-8")) for run in RUNS}
    rows = {
        "plate": _files(shot / "plate", "plate"),
        "without model": _files(out / "temporal" / "clean", "clean"),
        "preview": _files(out / "preview" / "clean", "clean"),
        f"layer {NAME}": _files(out / "preview" / NAME, NAME),
        "composite": _files(shot / "composite", "composite"),
        "mask (keys)": _files(shot / "effect_mask", "effect_mask", is_matte=True),
        "+ soft shadow": _files(out / "shadow" / "result", "result"),
        "shadow alone": _files(out / "shadow" / "effect", "effect"),
    }
    frames = sorted(rows["mask (keys)"].paths)
    model = told["preview"]["backbone"]["title"]
    whole = set(rows) - {f"layer {NAME}", "shadow alone", "mask (keys)"}
    draw_layers(out / SHEET, f"omnimatte and Over++   {model}", frames, rows, whole=whole)
    return out / SHEET


def _files(folder: Path, name: str, *, is_matte: bool = False) -> Files:
    """Return the frames of a sequence."""
    found = sorted(folder.glob(f"{name}.*.exr"))
    return Files({int(one.suffixes[0][1:]): one for one in found}, is_matte=is_matte)


def main(arguments: Sequence[str]) -> int:
    """Do one of the two, or say how it is called; return the exit code."""
    try:
        if len(arguments) == 4 and arguments[0] == "inputs":
            keys = frame_list(arguments[3])
            write_inputs(Path(arguments[1]), Path(arguments[2]), keys)
            return 0
        if len(arguments) == 3 and arguments[0] == "sheet":
            sys.stdout.write(f"{draw(Path(arguments[1]), Path(arguments[2]))}\n")
            return 0
    except GencompError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stderr.write("demo.py inputs SPEC.toml SHOT FRAMES, or demo.py sheet SHOT OUT\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
