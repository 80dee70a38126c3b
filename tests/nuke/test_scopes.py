# SPDX-License-Identifier: Apache-2.0
"""Nodes within Precomps, LiveGroups and VariableGroups, copies of them, and graph scope variables.

``sh010`` and ``sh020`` are two shots of the same numbers of bytes, red 0.25 and 0.75.
"""

import json
from pathlib import Path

import pytest

from fakes.shot import WIDTH, connect, paint, press
from gencomp_nuke import asking, inputs, madefrom, node, playing, prefs, stale, stock, upstream
from standin import gsv

WHOLE = (0, 0, WIDTH, 48)
SHOTS = {"sh010": 0.25, "sh020": 0.75}


def turn(shot, group=None):
    import nuke

    (group or nuke.root())["gsv"].setGsvValue("__default__.shot", shot)


@pytest.fixture
def shots(app, tmp_path):
    """Return a Read of the plate of whichever shot the script's variable names: ``sh010`` now."""
    import nuke

    for shot, red in SHOTS.items():
        for n in (1001, 1002):
            paint(tmp_path / f"{shot}/plate.{n}.exr", "RGB", [(WHOLE, [red] * 3)])
    app.save(tmp_path / "comp.nk")
    turn("sh010")
    read = nuke.createNode("Read", "name plate first 1001 last 1002 raw true")
    read["file"].setValue(f"{tmp_path.as_posix()}/%{{shot}}/plate.%04d.exr")
    return read


@pytest.fixture
def gizmo(shots):
    import nuke

    made = nuke.createNode("DynVFX")
    connect(made, "Plate", shots)
    return made


def cache_of(gizmo):
    return node.cache_folder(gizmo, prefs.Prefs())


# --- variables -----------------------------------------------------------------------------------


def test_the_nearest_group_that_has_a_variable_decides(shots):
    import nuke

    assert shots.sample("rgba.red", 5, 5, frame=1001) == 0.25
    group = nuke.createNode("VariableGroup")
    with group:
        inner = nuke.createNode("Read", "first 1001 last 1002 raw true")
        inner["file"].fromScript(shots["file"].toScript())
        nuke.createNode("Output").setInput(0, inner)
    assert group.sample("rgba.red", 5, 5, frame=1001) == 0.25
    turn("sh020", group)
    assert group.sample("rgba.red", 5, 5, frame=1001) == 0.75
    assert shots.sample("rgba.red", 5, 5, frame=1001) == 0.25


def test_variables_are_kept_by_the_script_and_a_foreign_text_of_them_too(app, shots, tmp_path):
    import nuke

    nuke.root()["gsv"].addGsvSet("plates")
    nuke.root()["gsv"].setGsvValue("plates.name", "a {b} c")
    app.save()
    app.open(tmp_path / "comp.nk")
    assert nuke.root()["gsv"].getGsvValue("plates.name") == "a {b} c"
    assert gsv.filled("%{shot} %{plates.name} %{none} %04d", nuke.root()) == (
        "sh010 a {b} c %{none} %04d"
    )
    nuke.root()["gsv"].fromScript("{version 1} {vars {x}} {{a b c}}")
    app.save()
    app.open(tmp_path / "comp.nk")
    assert nuke.root()["gsv"].toScript() == "{version 1} {vars {x}} {{a b c}}"
    assert nuke.root()["gsv"].value() == {}


def test_the_files_of_the_shot_that_is_on_are_sent(gizmo, tmp_path):
    asked = asking.ask(gizmo)
    for shot in SHOTS:
        turn(shot)
        files = inputs.ready(gizmo, asked, tmp_path / "run", prefs.Prefs())
        assert files["plate"][1001] == tmp_path / shot / "plate.1001.exr"


def test_what_was_rendered_of_one_shot_is_not_sent_for_another(app, gizmo, tmp_path):
    gizmo["gc_files"].setValue(False)
    asked, found = asking.ask(gizmo), []
    for shot in (*SHOTS, "sh010"):
        turn(shot)
        found.append(inputs.ready(gizmo, asked, tmp_path / "run", prefs.Prefs())["plate"][1001])
    assert (found[0] == found[2], found[0] == found[1]) == (True, False)
    assert len(app.rendered) == 4


def test_a_result_of_one_shot_is_out_of_date_for_another_and_well_again(
    app, gizmo, tmp_path, monkeypatch
):
    monkeypatch.setattr(stale, "_QUIET_S", 0.02)
    (tmp_path / "v001").mkdir()
    own = {"slots": {}, "order": [], "warnings": [], "key": madefrom.key_of(gizmo)}
    manifest = {"layers": {"result": {"frames": []}}, "node": own}
    (tmp_path / "v001/manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    gizmo["gc_folder"].setValue((tmp_path / "v001").as_posix())
    seen = []
    for shot, state in (("sh020", node.STALE), ("sh010", node.IDLE)):
        turn(shot)
        app.process_events(lambda state=state: node.state_of(gizmo) == state, timeout_s=5)
        seen.append(madefrom.changed(gizmo))
    assert seen == ["what is connected has changed", ""]


def test_a_variable_that_nothing_above_names_changes_nothing(gizmo):
    import nuke

    key = madefrom.key_of(gizmo)
    nuke.root()["gsv"].setGsvValue("__default__.artist", "ann")
    assert madefrom.key_of(gizmo) == key


def test_beyond_a_variable_switch_every_variable_counts(app, gizmo):
    import nuke

    switch = app.paste("VariableSwitch {inputs 1 variable __default__.weather}")[0]
    switch.setInput(0, gizmo.input(0))
    connect(gizmo, "Plate", switch)
    key = madefrom.key_of(gizmo)
    nuke.root()["gsv"].setGsvValue("__default__.weather", "rain")
    assert madefrom.key_of(gizmo) != key


def test_a_cache_that_names_a_variable_is_another_folder_for_each_shot(gizmo, tmp_path):
    gizmo["gc_cache"].setValue(f"{tmp_path.as_posix()}/cache/%{{shot}}")
    folders = []
    for shot in SHOTS:
        turn(shot)
        folders.append(cache_of(gizmo))
    assert folders == [tmp_path / "cache" / shot for shot in SHOTS]


# --- groups and copies ---------------------------------------------------------------------------


@pytest.mark.parametrize("cls", ["Group", "LiveGroup", "VariableGroup"])
def test_a_copy_of_a_group_has_nodes_with_folders_of_their_own(app, gizmo, cls):
    import nuke

    group = nuke.createNode(cls)
    with group:
        inner = nuke.createNode("DynVFX")
    mine = node.identify(inner)
    twin = nuke.toNode(app.paste(app.copy([group]))[0].name())
    other = next(n for n in twin.nodes() if node.is_ours(n))
    assert "" != node.identify(other) != mine
    assert len({cache_of(one) for one in (inner, other)}) == 2


def test_a_node_in_a_variable_group_generates_and_plays(app, server, comp):
    import nuke

    outer = comp(app)
    group = nuke.createNode("VariableGroup")
    with group:
        inner = nuke.nodePaste(_copied(app, outer))
        entry = nuke.createNode("Input")
        for index in (0, 1):
            inner.setInput(index, entry)
        nuke.createNode("Output").setInput(0, inner)
    group.setInput(0, outer.input(0))
    inner["gc_output"].setValue("background")
    press(app, inner)
    assert inner["gc_note"].value() == "v001", inner["gc_status"].value()
    assert group.sample("rgba.red", 30, 24, frame=1001) == 0.125


def _copied(app, made):
    app.clipboard = app.copy([made])
    return "%clipboard%"


def test_in_a_published_live_group_nothing_is_generated(app, gizmo):
    import nuke

    group = nuke.createNode("LiveGroup")
    with group:
        inner = nuke.createNode("DynVFX")
    group["published"].setValue(True)
    inner["gc_generate"].execute()
    said = " ".join(inner["gc_status"].value().split())
    assert said == (
        "DynVFX2 lies in LiveGroup1, which is published. "
        "Press Make Editable on it, generate, and publish it again."
    ).replace("DynVFX2", inner.name())


# --- precomps ------------------------------------------------------------------------------------


@pytest.fixture
def precomp(app, gizmo, tmp_path):
    """Return a Precomp whose script, beside ours, holds a node that plays a result."""
    import nuke

    folder = tmp_path / "gencomp/pre/DynVFX1_ab12cd34/v001"
    for n in (1001, 1002):
        paint(folder / f"result/result.{n}.exr", "RGBA", [(WHOLE, [0.5] * 4)])
        paint(tmp_path / f"pre/pre.{n}.exr", "RGBA", [(WHOLE, [2.0] * 4)])
    (folder / "manifest.json").write_text(
        '{"layers": {"result": {"frames": [1001, 1002]}}}', encoding="utf-8"
    )
    gizmo["gc_id"].setValue("ab12cd34")
    gizmo.input(0)["file"].setValue(f"{tmp_path.as_posix()}/sh010/plate.%04d.exr")
    result = playing.Result(folder, (1001, 1002), ("result",), {}, ())
    playing.play(gizmo, result)
    write = nuke.createNode("Write", "channels rgba")
    write["file"].setValue(f"{tmp_path.as_posix()}/pre/pre.%04d.exr")
    write.setInput(0, gizmo)
    nuke.createNode("Output").setInput(0, write)
    app.save(tmp_path / "pre.nk")
    app.clear()
    for knob, frame in (("first_frame", 1001), ("last_frame", 1002)):
        nuke.root()[knob].setValue(frame)
    app.save(tmp_path / "comp.nk")
    return nuke.createNode("Precomp", f"file {{{(tmp_path / 'pre.nk').as_posix()}}}")


def red(made):
    return made.sample("rgba.red", 5, 5, frame=1001)


def inside(precomp):
    return next(n for n in precomp.nodes() if node.is_ours(n))


def test_a_node_in_a_precomp_plays_its_result(app, precomp, tmp_path):
    assert red(precomp) == 0.5
    assert stock.lacks(inside(precomp)) == ""
    assert [n.fullName() for n in upstream.ours_above([precomp])] == ["Precomp1.DynVFX1"]
    app.save()
    assert "DynVFX" not in (tmp_path / "comp.nk").read_text(encoding="utf-8")
    app.open(tmp_path / "comp.nk")
    import nuke

    assert red(nuke.toNode("Precomp1")) == 0.5


def test_a_node_in_a_precomp_is_generated_in_its_own_script(app, precomp, tmp_path):
    inner = inside(precomp)
    inner["gc_generate"].execute()
    said = " ".join(inner["gc_status"].value().split())
    file = (tmp_path / "pre.nk").as_posix()
    assert said.startswith(f"DynVFX1 lies in Precomp1, and is kept in {file}. Open that script")
    assert inner["gc_id"].value() == "ab12cd34"


def test_a_copy_of_a_node_that_went_into_a_precomp_has_a_folder_of_its_own(app, precomp):
    import nuke

    outer = nuke.createNode("DynVFX")
    outer["gc_id"].setValue("ab12cd34")
    assert node.identify(outer) != "ab12cd34"


def test_a_precomp_of_another_folder_is_told_to_lack_the_result(app, precomp, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    app.save(tmp_path / "elsewhere" / "comp.nk")
    assert "where there is no result" in stock.lacks(inside(precomp))


def test_a_precomp_that_shows_what_was_rendered_needs_no_node_in_it(precomp, tmp_path):
    precomp["reading"].setValue(True)
    assert red(precomp) == 2.0
    assert upstream.ours_above([precomp]) == []
    assert upstream.all_ours() == []


def test_what_is_in_a_precomp_or_rendered_of_it_counts(app, precomp, tmp_path):
    import nuke

    gizmo = nuke.createNode("DynVFX")
    connect(gizmo, "Plate", precomp)
    keys = [madefrom.key_of(gizmo)]
    inside(precomp)["gc_gain"].setValue(3)
    keys.append(madefrom.key_of(gizmo))
    precomp["reading"].setValue(True)
    keys.append(madefrom.key_of(gizmo))
    (tmp_path / "pre/pre.1001.exr").write_bytes(b"rendered anew")
    keys.append(madefrom.key_of(gizmo))
    assert len(set(keys)) == 4


def test_an_input_behind_a_precomp_is_rendered(app, precomp, tmp_path, caplog):
    import nuke

    gizmo = nuke.createNode("DynVFX")
    connect(gizmo, "Plate", precomp)
    for knob, value in (("gc_range", "custom"), ("gc_first", 1001), ("gc_last", 1002)):
        gizmo[knob].setValue(value)
    files = inputs.ready(gizmo, asking.ask(gizmo), tmp_path / "run", prefs.Prefs())
    assert "inputs" in Path(files["plate"][1001]).parts
    assert len(app.rendered) == 2
