# SPDX-License-Identifier: Apache-2.0
"""The model that ships through the real command: nothing is installed, and both systems run."""

import json
import os
import subprocess
import sys

import OpenEXR
import pytest

from command_line import environment, finish
from gencomp_server import sheet
from gencomp_server.training.shots import ShotSpec, write_shot

WIDTH, HEIGHT = 96, 64


@pytest.fixture(scope="module")
def shot(tmp_path_factory):
    """Return a small shot on disk."""
    folder = tmp_path_factory.mktemp("shot")
    write_shot(ShotSpec(width=WIDTH, height=HEIGHT, frames=3, seed=5), folder)
    return folder


def run(home, out, *words):
    """Run the command in a home of its own, where nothing is installed; return its manifest."""
    command = [sys.executable, "-m", "gencomp_server", "run", *words, "--out", str(out)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    own = {**environment("gencomp_server.systems:REGISTRY"), "GENCOMP_HOME": str(home)}
    own.pop("GENCOMP_WEIGHTS", None)
    ended = finish(subprocess.Popen(command, env=own, **pipes))
    assert ended.code == 0, ended.err
    return json.loads((out / "manifest.json").read_text(encoding="utf-8"))


def attributes(path):
    """Return what a file says of its making."""
    header = OpenEXR.File(os.fspath(path)).header()
    return {name: value for name, value in header.items() if name.startswith("gencomp:")}


def check(manifest, out, layer):
    """Check that manifest, files and sheet name the model, and that it is a draft."""
    told = manifest["backbone"]
    assert (told["name"], told["draft"], told["untrained"]) == ("preview", True, False)
    assert (told["licence_class"], told["steps"], told["surrogate"]) == ("production", 1, False)
    assert any("what it makes is a draft" in warning for warning in manifest["warnings"])
    said = attributes(out / layer / f"{layer}.1001.exr")
    assert said["gencomp:backbone"] == "preview"
    assert said["gencomp:quality"].startswith("draft")
    assert said["gencomp:licence"].startswith("production")
    assert sheet.caution_of(manifest) == "preview: draft quality"
    assert manifest["report"]["forwards"] == told["forwards"] > 0


def test_omnimatte_takes_it_over_its_gathered_clean_plate(shot, tmp_path):
    out = tmp_path / "out"
    given = ("--input", f"plate={shot}/plate/plate.%04d.exr")
    given += ("--input", f"matte.a={shot}/matte_a/matte_a.%04d.exr")
    manifest = run(tmp_path / "home", out, "omnimatte", *given)
    check(manifest, out, "clean")
    assert manifest["report"]["clean_plate_from"] == "model"
    assert manifest["report"]["max_ulp"] <= 1
    alone = run(tmp_path / "home", out, "omnimatte", *given, "--set", "clean_plate_from=temporal")
    assert alone["backbone"] is None
    assert alone["report"]["clean_plate_from"] == "temporal"


def test_overplusplus_takes_it_and_the_same_seed_gives_the_same_bits(shot, tmp_path):
    found = []
    for name in ("one", "two"):
        out = tmp_path / name
        given = ("--input", f"plate={shot}/clean_plate/clean_plate.%04d.exr")
        given += ("--input", f"effect_mask={shot}/matte_a/matte_a.%04d.exr")
        given += ("--set", "prompt=soft shadow of nobody", "--set", "seed=4")
        manifest = run(tmp_path / f"home of {name}", out, "overplusplus", *given)
        found.append([entry["digest"] for entry in digests(manifest)])
    check(manifest, out, "result")
    assert manifest["report"]["caption"] == "add soft shadow"
    assert "Not among the words of preview: nobody." in manifest["warnings"]
    assert found[0] == found[1]


def digests(manifest):
    """Return the entries of all files of a manifest, in order."""
    layers = manifest["layers"].values()
    return [entry["frames"][n] for entry in layers for n in sorted(entry["frames"])]
