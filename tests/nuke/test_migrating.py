# SPDX-License-Identifier: Apache-2.0
"""Nodes of older releases: untouched, told of, and renewed with all they have where one asks."""

from pathlib import Path

import pytest

from gencomp_nuke import migrating
from gencomp_protocol.errors import BadKnob

OLDER = Path(__file__).resolve().parent / "older" / "Omnimatte.gizmo"


@pytest.fixture
def script(app, tmp_path):
    """Return the path of a script: plate and two mattes, an older Omnimatte, a Blur."""
    import nuke

    names = ("plate", "roto_a", "roto_d")
    inputs = [nuke.createNode("Constant", f"name {name}", False) for name in names]
    (gizmo,) = app.paste(OLDER.read_text(encoding="utf-8"))
    gizmo["xpos"].setValue(120)
    for pipe, node in zip(("Plate", "Matte1", "Matte4"), inputs):
        gizmo.setInput(int(gizmo.node(pipe)["number"].value()), node)
    gizmo["gc_name1"].setValue("dancer")
    gizmo["gc_name4"].setValue("chair")
    gizmo["seed"].setValue(77)
    gizmo["gc_cache"].setValue("/shows/cache/[value root.name]")
    after = nuke.createNode("Blur", "name After size 3", False)
    after.setInput(0, gizmo)
    app.save(tmp_path / "older.nk")
    return tmp_path / "older.nk"


def opened(app, script):
    """Return the older node of the script, opened."""
    import nuke

    app.open(script)
    return next(node for node in nuke.allNodes("Group") if node.knob("gc_system") is not None)


def test_an_opened_script_says_which_nodes_are_older_and_leaves_them_as_they_are(app, script):
    knobs = list(opened(app, script).knobs())
    assert "gc_mix" not in knobs
    assert app.printed == [
        "gencomp: Omnimatte1. This node was made with an older gencomp and works as it did. "
        "The menu gencomp > Renew older nodes gives it the new knobs; its values and its result "
        "stay."
    ]


def test_a_script_of_this_release_says_nothing(app, tmp_path):
    import nuke

    nuke.createNode("Omnimatte")
    app.save(tmp_path / "new.nk")
    app.open(tmp_path / "new.nk")
    assert app.printed == []


def test_a_node_of_a_newer_release_is_told_apart(app, tmp_path):
    import nuke

    nuke.createNode("Omnimatte")["gc_schema"].setValue(migrating.SCHEMA + 1)
    migrating.tell()
    assert app.printed[0].startswith(
        "gencomp: Omnimatte1. This node was made with a newer gencomp."
    )


def test_telling_never_stops_a_script_from_opening(app, monkeypatch):
    monkeypatch.setattr(migrating, "others", lambda: 1 / 0)
    migrating.tell()
    assert "older nodes could not be looked for" in "".join(app.printed)


def test_a_renewed_node_has_name_place_values_and_connections_of_the_older(app, script):
    made = migrating.renew(opened(app, script))
    import nuke

    assert (made.name(), migrating.schema_of(made)) == ("Omnimatte1", 2)
    assert "gc_mix" in made.knobs()
    assert (made["seed"].value(), made["xpos"].value()) == (77, 120)
    assert [made[f"gc_name{slot}"].value() for slot in (1, 4)] == ["dancer", "chair"]
    assert made["gc_cache"].toScript().endswith("/shows/cache/[value root.name]")
    found = {
        pipe: made.input(int(made.node(pipe)["number"].value())).name()
        for pipe in ("Plate", "Matte1", "Matte4")
    }
    assert found == {"Plate": "plate", "Matte1": "roto_a", "Matte4": "roto_d"}
    assert nuke.toNode("After").input(0).name() == "Omnimatte1"
    assert migrating.others() == []


@pytest.mark.parametrize("kind", ["DynVFX", "GenComposite", "OverPlusPlus", "SplitThenMerge"])
def test_a_renewed_node_asks_for_what_the_older_asked_for(app, kind):
    (older,) = app.paste(OLDER.with_name(f"{kind}.gizmo").read_text(encoding="utf-8"))
    older["seed"].setValue(77)
    older["prompt"].setValue("dust, drifting")
    asked = {name: older[name].value() for name in older["gc_params"].value().split()}
    assert len(asked) > 15
    made = migrating.renew(older)
    assert (made.name(), migrating.schema_of(made)) == (f"{kind}1", 2)
    assert {name: made[name].value() for name in asked} == asked


def test_a_renewed_node_keeps_its_identity_and_plays_its_result(app, script, tmp_path):
    older = opened(app, script)
    identity = older["gc_id"].value()
    folder = tmp_path / "v001"
    folder.mkdir()
    (folder / "manifest.json").write_text(
        '{"system": "omnimatte", "layers": {}, "node": {"slots": {}, "order": []}}',
        encoding="utf-8",
    )
    older["gc_folder"].setValue(folder.as_posix())
    made = migrating.renew(older)
    assert made["gc_id"].value() == identity
    assert made["gc_folder"].value() == folder.as_posix()
    assert made["gc_status"].value().startswith("Plays v001")


def test_a_renewed_node_holds_and_inverts_nothing_as_the_older_one_did(app, script):
    older = opened(app, script)
    assert not {"gc_outside", "gc_missing", "gc_invert1"} & set(older.knobs())
    made = migrating.renew(older)
    assert (made["gc_outside"].value(), made["gc_missing"].value()) == ("hold", "error")
    assert made["gc_invert1"].value() is False
    assert made["gc_invert_keep"].value() is False


def test_a_result_that_says_no_names_keeps_its_node(app, script, tmp_path):
    older = opened(app, script)
    folder = tmp_path / "v001"
    folder.mkdir()
    (folder / "manifest.json").write_text('{"layers": {}}', encoding="utf-8")
    older["gc_folder"].setValue(folder.as_posix())
    app.answers.append(True)
    migrating.renew_all()
    assert app.messages == [
        "Omnimatte1 plays a result that only this node knows how to play. "
        "Keep the node, or empty 'result' on its tab Cache & Server first."
    ]
    assert migrating.others() == [older]


def test_a_result_that_is_away_is_told_on_the_renewed_node(app, script):
    older = opened(app, script)
    older["gc_folder"].setValue("/not/there/v001")
    made = migrating.renew(older)
    assert made["gc_folder"].value() == "/not/there/v001"
    assert "There is no result in" in made["gc_status"].value()


def test_renewing_is_one_step_of_undo(app, script):
    older = opened(app, script)
    app.undo_steps.clear()
    migrating.renew(older)
    assert app.undo_steps == ["Renew Omnimatte1"]


@pytest.mark.parametrize(("answer", "left"), [(True, 0), (False, 1)])
def test_the_menu_renews_what_is_older_after_asking(app, script, answer, left):
    opened(app, script)
    app.answers.append(answer)
    migrating.renew_all()
    assert len(migrating.others()) == left


def test_a_system_that_is_not_installed_is_refused(app, script):
    older = opened(app, script)
    older["gc_system"].setValue("teleport")
    with pytest.raises(BadKnob, match="of which there is no gizmo"):
        migrating.renew(older)
    assert older.name() == "Omnimatte1"
