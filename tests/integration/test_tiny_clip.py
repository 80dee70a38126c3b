# SPDX-License-Identifier: Apache-2.0
"""Omnimatte on real footage with the backbone ``tiny``, through the command and its server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import environment

LAST = 48


@pytest.fixture
def clip():
    """Return the folder of a clip with two objects, or skip."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("GENCOMP_SHARED_DATA", beside)) / "clips" / "boys-beach"
    if not folder.is_dir():
        pytest.skip("the clip boys-beach is not here; set GENCOMP_SHARED_DATA to its folder")
    return folder


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_when_a_clip_of_48_frames_runs_with_tiny_then_every_layer_is_whole_and_exact(
    clip, tmp_path
):
    words = [
        *(sys.executable, "-m", "gencomp_server", "run", "omnimatte", "--out", str(tmp_path)),
        *("--frames", f"1-{LAST}", "--input", f"plate={clip}/rgb/%04d.jpg"),
        *("--input", f"matte.a={clip}/mask_00/%04d.png"),
        *("--input", f"matte.b={clip}/mask_01/%04d.png"),
        *("--set", "backbone=tiny", "--set", "steps=2"),
    ]
    env = {name: value for name, value in environment().items() if name != "GENCOMP_REGISTRY"}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert sorted(manifest["layers"]) == ["a", "b", "background"]
    assert all(len(entry["frames"]) == LAST for entry in manifest["layers"].values())
    assert manifest["backbone"]["name"] == "tiny"
    assert manifest["backbone"]["untrained"]
    assert manifest["report"]["forwards"] == manifest["backbone"]["forwards"] == 3 * 2
    assert manifest["report"]["max_ulp"] <= 1
    assert manifest["report"]["pixels_beyond_1_ulp"] == 0
