# SPDX-License-Identifier: Apache-2.0
"""DynVFX with ``tiny`` and a segmenter of one's own, through the command and its server."""

import json
import subprocess
import sys

import pytest

from command_line import FRAMES, HEIGHT, WIDTH, Shot, environment, plate_of, write_picture

FIND_IT = """
import os, sys
import cv2, numpy as np
frames, words, out = sys.argv[1:4]
for name in os.listdir(frames):
    matte = np.zeros(cv2.imread(os.path.join(frames, name)).shape[:2], np.uint8)
    matte[8:24, 16:32] = 255
    cv2.imwrite(os.path.join(out, name), matte)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_segmenter_in_the_settings_finds_what_is_new(tmp_path):
    shot = Shot(tmp_path)
    for frame in FRAMES:
        write_picture(shot.plate(frame), plate_of(frame), ("R", "G", "B"))
    tool = tmp_path / "find it.py"
    tool.write_text(FIND_IT)
    env = {name: value for name, value in environment().items() if name != "GENCOMP_REGISTRY"}
    env["GENCOMP_SEGMENTER"] = f"'{sys.executable}' '{tool}' {{frames}} {{words}} {{out}}"
    knobs = {
        "backbone": "tiny",
        "steps": 4,
        "inversion_steps": 4,
        "guidance": 1,
        "model_size": f"{WIDTH}x{HEIGHT}",
        "prompt": "a whale",
        "target_object": "the whale",
        "mask_grow": 0,
    }
    words = ["--out", str(shot.out), "--input", f"plate={tmp_path}/plate/plate.%04d.exr"]
    words += [word for name, value in knobs.items() for word in ("--set", f"{name}={value}")]
    command = [sys.executable, "-m", "gencomp_server", "run", "dynvfx", *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((shot.out / "manifest.json").read_text())["report"]
    assert report["change_from"] == "segmenter"
    box = round(16 * 16 / (WIDTH * HEIGHT), 6)
    assert [one["new_share"] for one in report["rounds"]] == [box] * 6
    assert all(0 < one["latent_share"] < 1 for one in report["rounds"])
