# SPDX-License-Identifier: Apache-2.0
"""``make demo``: its inputs, its sheet, and that Makefile and shot belong together."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest

from gencomp_protocol.frames import frame_list
from gencomp_server.training.shots import load_spec, write_shot

ROOT = Path(__file__).resolve().parent.parent
SMALL = """
seed = 901
width = 96
height = 64
frames = 4
effects = ["shadow"]
"""
KEYS = (1001, 1004)


@pytest.fixture(scope="module")
def demo():
    """Return the tool as a module."""
    spec = importlib.util.spec_from_file_location("demo", ROOT / "tools" / "demo.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shot(demo, tmp_path_factory):
    """Return a small shot with the inputs of the composite."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "small.toml").write_text(SMALL, encoding="utf-8")
    write_shot(load_spec(folder / "small.toml"), folder / "shot")
    words = [str(folder / "small.toml"), str(folder / "shot"), ",".join(map(str, KEYS))]
    assert demo.main(["inputs", *words]) == 0
    return folder / "shot"


def frames_of(folder):
    return [int(one.name.split(".")[1]) for one in sorted(folder.glob("*.exr"))]


def test_the_figure_is_there_on_every_frame_and_its_roto_at_the_keyframes(shot):
    assert frames_of(shot / "element") == frames_of(shot / "plate")
    assert tuple(frames_of(shot / "effect_mask")) == KEYS


def test_one_sheet_holds_all_runs(demo, shot, tmp_path, capsys):
    out = tmp_path / "out"
    for run, layers in (
        ("temporal", ("clean",)),
        ("preview", ("clean", "a")),
        ("shadow", ("result", "effect")),
    ):
        for layer in layers:
            place = out / run / layer
            place.mkdir(parents=True)
            for n in frames_of(shot / "plate"):
                shutil.copy(shot / "element" / f"element.{n}.exr", place / f"{layer}.{n}.exr")
        told = {"backbone": {"title": "preview (ships, draft quality)"}}
        (out / run / "manifest.json").write_text(json.dumps(told), encoding="utf-8")
    assert demo.main(["sheet", str(shot), str(out)]) == 0
    sheet = out / "contact_sheet.png"
    assert capsys.readouterr().out == f"{sheet}\n"
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_what_it_is_not_asked_for_it_says_how(demo, capsys):
    assert demo.main(["inputs"]) == 2
    assert "demo.py sheet SHOT OUT" in capsys.readouterr().err
    assert demo.main(["inputs", "nowhere.toml", "shot", "1001"]) == 2


def test_the_keyframes_of_the_makefile_are_frames_of_the_demos_shot():
    keys = re.search(r"^KEYS := (\S+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    spec = load_spec(ROOT / "docs" / "examples" / "demo.toml")
    frames = range(spec.first, spec.first + spec.frames)
    found = frame_list(keys[1])
    assert set(found) <= set(frames)
    assert (found[0], found[-1]) == (frames[0], frames[-1])
