# SPDX-License-Identifier: Apache-2.0
"""All systems on real footage with the backbone ``tiny``, through the command and its server."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import environment

LAST = 48
BEACH, BALL = "boys-beach", "moving_ball"
QUICK = ("--set", "backbone=tiny", "--set", "steps=2")
EFFECT = ["difference", "effect", "effect_matte", "result"]


@pytest.fixture(scope="module")
def clips():
    """Return the folder of the clips, or skip."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("GENCOMP_SHARED_DATA", beside)) / "clips"
    if not (folder / BEACH).is_dir():
        pytest.skip("the clips are not here; set GENCOMP_SHARED_DATA to their folder")
    return folder


def run(out, system, *words):
    """Run a system through the command; return its manifest."""
    command = [sys.executable, "-m", "gencomp_server", "run", system, "--out", str(out), *words]
    env = {name: value for name, value in environment().items() if name != "GENCOMP_REGISTRY"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads((out / "manifest.json").read_text())


def given(name, folder, kind="jpg"):
    """Return the words that give a folder of pictures as an input."""
    return "--input", f"{name}={folder}/%04d.{kind}"


def check(manifest, layers, last=LAST):
    """Every layer is there on every frame, the model was a tiny one, and ran as often as said."""
    assert sorted(manifest["layers"]) == sorted(layers)
    assert all(len(entry["frames"]) == last for entry in manifest["layers"].values())
    assert manifest["backbone"]["untrained"]
    assert manifest["report"]["forwards"] == manifest["backbone"]["forwards"] > 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_omnimatte_on_a_clip_of_48_frames_is_whole_and_exact(clips, tmp_path):
    clip = clips / BEACH
    manifest = run(
        tmp_path,
        "omnimatte",
        *("--frames", f"1-{LAST}", *given("plate", clip / "rgb")),
        *given("matte.a", clip / "mask_00", "png"),
        *given("matte.b", clip / "mask_01", "png"),
        *QUICK,
    )
    check(manifest, ["a", "b", "background", "clean", "patch"])
    assert manifest["report"]["forwards"] == 3 * 2
    assert manifest["report"]["max_ulp"] <= 1
    assert manifest["report"]["pixels_beyond_1_ulp"] == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_overplusplus_on_a_clip_of_48_frames_is_whole(clips, tmp_path):
    clip = clips / BEACH
    manifest = run(
        tmp_path,
        "overplusplus",
        *("--frames", f"1-{LAST}", *given("plate", clip / "rgb")),
        *given("effect_mask", clip / "mask_00", "png"),
        *("--set", "prompt=splash", *QUICK),
    )
    check(manifest, EFFECT)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_gencomposite_puts_a_boy_of_the_clip_into_another_plate(clips, tmp_path):
    clip = clips / BEACH
    manifest = run(
        tmp_path,
        "gencomposite",
        *("--frames", "1-48", *given("bg", clips / "bigben" / "rgb")),
        *given("fg", clip / "rgb"),
        *given("fg_matte", clip / "mask_00", "png"),
        *("--set", "trajectory=150,260; 400,240", "--set", "scale=0.6@1; 0.8@48"),
        *("--set", "anchor=bottom centre", *QUICK),
    )
    check(manifest, [*EFFECT, "element", "interaction"])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_splitthenmerge_merges_a_boy_of_the_clip_with_another_plate(clips, tmp_path):
    clip = clips / BEACH
    manifest = run(
        tmp_path,
        "splitthenmerge",
        *("--frames", "1-48", *given("bg", clips / "bigben" / "rgb")),
        *given("fg", clip / "rgb"),
        *given("fg_matte", clip / "mask_00", "png"),
        *("--set", "prompt=a boy in front of a clock tower", *QUICK),
    )
    check(manifest, EFFECT)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_dynvfx_edits_a_clip_with_nothing_else_installed(clips, tmp_path):
    manifest = run(
        tmp_path,
        "dynvfx",
        *("--frames", f"1-{LAST}", *given("plate", clips / BEACH / "rgb")),
        *("--set", "prompt=two boys on a beach and a whale behind them"),
        *("--set", "source_prompt=two boys on a beach", "--set", "inversion_steps=10"),
        *("--set", "backbone=tiny", "--set", "steps=10", "--set", "model_size=80x48"),
    )
    check(manifest, EFFECT)
