# SPDX-License-Identifier: Apache-2.0
"""Bake and Explode: plain nodes beside a node, with the same pixels."""

import json
import shutil

import pytest

from gencomp_nuke import exploding, playing

RGBA = ("rgba.red", "rgba.green", "rgba.blue", "rgba.alpha")
LAYERED = ("a.red", "a.alpha", "b.green", "background.red")
MANIFEST = {
    "layers": {
        name: {"frames": {str(n): {} for n in (1001, 1002, 1003, 1004)}}
        for name in ("background", "a", "b")
    },
    "node": {"slots": {"1": "a", "2": "b"}, "order": ["a", "b"]},
}


@pytest.fixture
def played(app, shot, comp, tmp_path):
    """Return an Omnimatte that plays the shot's layers as v001, beside the script."""
    gizmo = comp(app)
    put_version(shot, tmp_path / "gencomp/v001")
    gizmo["gc_folder"].setValue("[file dirname [value root.name]]/gencomp/v001")
    assert gizmo["gc_status"].value().startswith("Plays v001"), gizmo["gc_status"].value()
    return gizmo


def put_version(shot, folder):
    shutil.copytree(shot / "layers", folder)
    (folder / "manifest.json").write_text(json.dumps(MANIFEST), encoding="utf-8")


def made_since(before):
    import nuke

    return [node for node in nuke.allNodes() if node not in before]


def bake(gizmo):
    """Press Bake and return the plain node that gives what the gizmo gives."""
    import nuke

    gizmo["gc_bake"].execute()
    status = gizmo["gc_status"].value()
    assert status.startswith("Baked into "), status
    return nuke.toNode(status.split()[-1].rstrip("."))


def explode(gizmo):
    """Press Explode layers and return the last Merge."""
    import nuke

    gizmo["gc_explode"].execute()
    assert "puts them together" in gizmo["gc_status"].value(), gizmo["gc_status"].value()
    return nuke.toNode("Omnimatte1_over_a")


@pytest.mark.parametrize("output", ["plate", "recomposed"])
def test_baked_nodes_give_the_same_pixels(app, played, output):
    played["gc_output"].setValue(output)
    last = bake(played)
    assert app.pixels.compare(last, played, 1002, (*RGBA, *LAYERED))["differing"] == 0


@pytest.mark.parametrize("kind", ["DynVFX", "GenComposite", "OverPlusPlus", "SplitThenMerge"])
def test_a_baked_effect_gives_the_same_pixels_over_a_plate_that_is_regraded_later(
    app, shot, comp, tmp_path, kind
):
    import nuke

    grade = nuke.createNode("Multiply", "channels rgb value 1", False)
    grade.setInput(0, comp(app).input(0))
    folder = tmp_path / "gencomp/v001"
    shutil.copytree(shot / "layers/a", folder / "effect")
    for path in (folder / "effect").iterdir():
        path.rename(path.with_name(path.name.replace("a.", "effect.", 1)))
    gizmo = nuke.createNode(kind, "", False)
    gizmo.setInput(0, grade)
    playing.play(gizmo, playing.Result(folder, (1001, 1004), ("result", "effect"), {}, ()))
    gizmo["gc_shadow"].setValue(0.5)
    before = nuke.allNodes()
    last = bake(gizmo)
    made = made_since(before)
    grade["value"].setValue(1.7)
    found = (*RGBA, "effect.red", "effect.alpha")
    assert app.pixels.compare(last, gizmo, 1002, found)["differing"] == 0
    assert app.pixels.compare(last, grade, 1002, RGBA[:3])["differing"] > 0
    assert not any(word in app.copy(made) for word in ("gc_", "python", "parent.", "Group"))


def test_adjusted_layers_are_baked_as_they_are_adjusted(app, played):
    played["gc_output"].setValue("recomposed")
    played["gc_density_1"].setValue(0.5)
    played["gc_tint_2"].setValue([0.5, 1, 2])
    last = bake(played)
    assert app.pixels.compare(last, played, 1002, (*RGBA, *LAYERED))["differing"] == 0
    assert app.pixels.compare(last, played.input(0), 1002, RGBA[:3])["differing"] > 0


def test_a_knob_with_keys_is_baked_with_its_keys(app, played):
    played["gc_output"].setValue("background")
    played["gc_mix"].setAnimated()
    played["gc_mix"].setValueAt(0.0, 1001)
    played["gc_mix"].setValueAt(1.0, 1003)
    last = bake(played)
    for frame in (1001, 1002, 1003):
        assert app.pixels.compare(last, played, frame, RGBA)["differing"] == 0


def test_keys_that_plain_nodes_cannot_say_are_refused_in_a_sentence(app, played):
    played["gc_output"].setValue("recomposed")
    played["gc_density_1"].setAnimated()
    played["gc_density_1"].setValueAt(0.0, 1001)
    played["gc_density_1"].setValueAt(1.0, 1003)
    played["gc_bake"].execute()
    status = played["gc_status"].value().replace("\n", " ")
    assert "depends on a knob with keys" in status


def test_baked_nodes_are_plain_and_name_nothing_of_ours(app, played):
    import nuke

    played["gc_output"].setValue("recomposed")
    before = nuke.allNodes()
    bake(played)
    made = made_since(before)
    assert {node.Class() for node in made} <= {"Read", "Copy", "Merge2", "BackdropNode", "Crop"}
    assert "gc_" not in app.copy(made)
    assert "python" not in app.copy(made)
    assert "parent." not in app.copy(made)


def test_baked_nodes_outlive_the_node_and_the_script_may_be_moved(app, played, tmp_path):
    import nuke

    played["gc_output"].setValue("background")
    last = bake(played).name()
    nuke.delete(played)
    app.save()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.move(str(tmp_path / "gencomp"), moved / "gencomp")
    shutil.move(str(tmp_path / "comp.nk"), moved / "comp.nk")
    app.open(moved / "comp.nk")
    assert nuke.toNode(last).sample("rgba.red", 16, 32, frame=1002) == pytest.approx(
        nuke.toNode(last).sample("rgba.red", 60, 4, frame=1002)
    )


def test_bake_is_one_step_of_undo_and_leaves_the_node_alone(app, played):
    app.undo_steps.clear()
    before = played["gc_folder"].value()
    bake(played)
    assert app.undo_steps == ["Bake Omnimatte1"]
    assert played["gc_folder"].value() == before


@pytest.mark.parametrize("button", ["gc_bake", "gc_explode"])
def test_without_a_result_the_node_says_what_to_do(app, comp, button):
    gizmo = comp(app)
    gizmo[button].execute()
    status = gizmo["gc_status"].value().replace("\n", " ")
    assert status.startswith("There is no result to ")
    assert "Press Generate" in status


def test_baked_nodes_give_what_the_node_gives_beyond_its_range_and_where_a_frame_is_gone(
    app, played, tmp_path
):
    played["gc_output"].setValue("background")
    played["gc_outside"].setValue("black")
    played["gc_missing"].setValue("nearest frame")
    last = bake(played)
    (tmp_path / "gencomp/v001/background/background.1002.exr").unlink()
    for frame, red in ((1000, 0), (1001, 0.125), (1002, 0.125), (1005, 0)):
        assert last.sample("rgba.red", 60, 4, frame=frame) == red
        assert app.pixels.compare(last, played, frame, RGBA)["differing"] == 0


def test_exploded_reads_give_what_the_node_gives_beyond_its_range_and_an_older_node_says_none(
    app, played, monkeypatch
):
    import nuke

    explode(played)
    read = nuke.toNode("Omnimatte1_a")
    words = ("before", "after", "on_error")
    assert [read[word].value() for word in words] == ["hold", "hold", "error"]
    played["gc_outside"].setValue("black")
    played["gc_missing"].setValue("nearest frame")
    explode(played)
    assert [read[word].value() for word in words] == ["black", "black", "nearest frame"]
    monkeypatch.setattr(type(played), "knobs", lambda node: {})
    assert exploding._beyond(played) == {}


def test_what_explode_makes_gives_the_plate_back(app, played):
    last = explode(played)
    for frame in (1001, 1004):
        assert app.pixels.compare(last, played.input(0), frame, RGBA[:3])["differing"] == 0


def test_explode_makes_one_read_a_layer_over_every_frame_that_was_delivered(app, played):
    import nuke

    played["gc_result_first"].setValue(1002)
    explode(played)
    reads = [n for n in nuke.allNodes("Read") if n.name().startswith("Omnimatte1_")]
    names = {"Omnimatte1_background", "Omnimatte1_a", "Omnimatte1_b"}
    assert {read.name() for read in reads} == names
    assert {(read["first"].value(), read["last"].value()) for read in reads} == {(1001, 1004)}
    assert len({read.xpos() for read in reads}) == 1
    merges = [n for n in nuke.allNodes("Merge2") if n.name().startswith("Omnimatte1_over_")]
    assert [merge.ypos() for merge in merges] == [merge.input(1).ypos() for merge in merges]


def test_exploded_again_the_same_nodes_play_the_new_version(app, shot, played, tmp_path):
    import nuke

    explode(played)
    before = nuke.allNodes()
    put_version(shot, tmp_path / "gencomp/v002")
    played["gc_folder"].setValue("[file dirname [value root.name]]/gencomp/v002")
    explode(played)
    assert made_since(before) == []
    file = nuke.toNode("Omnimatte1_b")["file"]
    assert file.evaluate(1003) == f"{tmp_path.as_posix()}/gencomp/v002/b/b.1003.exr"


def test_exploded_again_what_was_put_between_stays(app, played):
    import nuke

    explode(played)
    over, read = nuke.toNode("Omnimatte1_over_a"), nuke.toNode("Omnimatte1_a")
    denser = nuke.nodes.Multiply(name="denser1")
    denser.setInput(0, read)
    over.setInput(1, denser)
    explode(played)
    assert over.input(1) is denser


def test_layers_in_another_order_are_connected_anew(app, played, tmp_path):
    import nuke

    explode(played)
    manifest = {**MANIFEST, "node": {"slots": {"1": "a", "2": "b"}, "order": ["b", "a"]}}
    path = tmp_path / "gencomp/v001/manifest.json"
    path.write_text(json.dumps(manifest), encoding="utf-8")
    played["gc_explode"].execute()
    assert "connected anew" in played["gc_status"].value().replace("\n", " ")
    assert nuke.toNode("Omnimatte1_over_b").input(0) is nuke.toNode("Omnimatte1_over_a")
    assert nuke.toNode("Omnimatte1_over_a").input(0) is nuke.toNode("Omnimatte1_background")
