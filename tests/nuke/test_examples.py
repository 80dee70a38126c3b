# SPDX-License-Identifier: Apache-2.0
"""The example scripts: they open where they lie and in another script, and they render."""

import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / "docs" / "examples"
RGB = ("rgba.red", "rgba.green", "rgba.blue")
# Layers are half float, and nothing in them is brighter than 8.
HALF_STEP_AT_8 = 2.0**-7
# Script, its node, and the pipe of the plate.
SCRIPTS = {
    "overplusplus": ("OverPlusPlus1", 2),
    "gencomposite": ("GenComposite1", 0),
    "omnimatte_retime": ("Omnimatte1", 0),
    "splitthenmerge": ("SplitThenMerge1", 0),
    "dynvfx": ("DynVFX1", 0),
}
# What an example holds is the same under every Python; what reads it, other tests run under all.
UNDER_ONE_PYTHON = pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the examples are rendered from one Python, 3.11"
)


@pytest.fixture
def opened(app, tmp_path):
    """Return a function that opens a copy of an example from a folder of another name."""

    def open_example(name):
        import nuke

        folder = tmp_path / "käse und brot"
        shutil.copytree(EXAMPLES, folder)
        app.open(folder / f"{name}.nk")
        return nuke.toNode(SCRIPTS[name][0]), folder

    return open_example


@UNDER_ONE_PYTHON
@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example_is_as_its_gizmo_is_today_plays_its_result_and_renders(app, shot, opened, name):
    import nuke

    gizmo, folder = opened(name)
    made = nuke.createNode(SCRIPTS[name][0][:-1], inpanel=False)
    assert set(made.knobs()) - set(gizmo.knobs()) == set(), "run tools/make_examples.py --scripts"
    assert {n.name() for n in made.nodes()} - {n.name() for n in gizmo.nodes()} == set()
    nuke.delete(made)
    assert gizmo["gc_status"].value().startswith("Plays v001, frames 1001-1006.")
    plate = gizmo.input(SCRIPTS[name][1])
    assert app.render_all(1003, 1003) == 1
    assert (folder / f"out/{name}/{name}.1003.exr").is_file()
    changed = app.pixels.compare(nuke.toNode("Write1"), plate, 1003, RGB)
    assert 100 < changed["differing"] < 112 * 64 * 3


def test_the_node_says_that_no_video_model_made_the_example(app):
    import nuke

    app.open(EXAMPLES / "overplusplus.nk")
    said = nuke.toNode("OverPlusPlus1")["gc_status"].value().replace("\n", " ")
    assert "made without a video model" in said


def test_retimed_the_one_object_comes_two_frames_later_and_the_other_is_slid(app, shot, opened):
    import nuke

    opened("omnimatte_retime")
    anna, ben = nuke.toNode("Omnimatte1_anna"), nuke.toNode("Omnimatte1_ben")
    over_anna, over_ben = nuke.toNode("Omnimatte1_over_anna"), nuke.toNode("Omnimatte1_over_ben")
    late = app.pixels.digest(anna, 1003)
    assert app.pixels.digest(over_anna.input(1), 1005) == late
    assert late != app.pixels.digest(anna, 1005)
    x, y = 88, 30
    assert over_ben.input(1).sample("rgba.alpha", x - 14, y, frame=1003) == ben.sample(
        "rgba.alpha", x, y, frame=1003
    )


@UNDER_ONE_PYTHON
@pytest.mark.parametrize("name", ["overplusplus", "gencomposite", "dynvfx"])
def test_exploded_the_layers_over_what_is_connected_are_the_result(app, shot, name):
    import nuke

    app.open(EXAMPLES / f"{name}.nk")
    gizmo = nuke.toNode(SCRIPTS[name][0])
    gizmo["gc_explode"].execute()
    last = nuke.toNode(gizmo["gc_status"].value().replace("\n", " ").split("; ")[1].split()[0])
    result = nuke.toNode(f"{SCRIPTS[name][0]}_result")
    assert app.pixels.compare(last, result, 1003, RGB)["greatest"] <= HALF_STEP_AT_8


def test_loaded_into_another_script_an_example_plays_from_where_it_lies(app, shot, comp, tmp_path):
    import nuke

    gizmo = comp(app)
    before = nuke.allNodes()
    gizmo["gc_example"].execute()
    made = [node for node in nuke.allNodes() if node not in before]
    loaded = next(node for node in made if node.knob("gc_system") is not None)
    assert loaded["gc_status"].value().startswith("Plays v001")
    assert loaded["gc_folder"].value() == f"{EXAMPLES.as_posix()}/gencomp/omnimatte/v001"
    assert loaded.sample("rgba.red", 20, 20, frame=1002) > 0
    assert loaded["gc_id"].value() != gizmo["gc_id"].value()
    assert min(node.xpos() for node in made) == gizmo.xpos() + 320
    # What it makes next belongs to the artist's script, and so does the script's own range.
    assert loaded["gc_cache"].evaluate().startswith(tmp_path.as_posix())
    assert nuke.root()["last_frame"].value() == 100


def test_without_the_examples_the_node_says_where_they_belong(app, comp, monkeypatch, tmp_path):
    from gencomp_nuke import examples

    gizmo = comp(app)
    monkeypatch.setattr(examples, "example_of", lambda system: tmp_path / "docs/examples/x.nk")
    gizmo["gc_example"].execute()
    status = gizmo["gc_status"].value().replace("\n", " ")
    assert status.startswith("The example x.nk is not there")


def test_all_examples_together_are_small():
    files = [path for path in EXAMPLES.rglob("*") if path.is_file() and "out" not in path.parts]
    assert sum(path.stat().st_size for path in files) <= 3_000_000
    assert [
        path.name for path in files if path.suffix == ".exr" and path.stat().st_size > 64_000
    ] == []


def test_no_example_names_a_place_of_the_machine_that_made_it():
    for path in [*EXAMPLES.rglob("*.nk"), *EXAMPLES.rglob("*.json")]:
        text = path.read_text(encoding="utf-8")
        assert ROOT.as_posix() not in text
        assert "/tmp/" not in text
