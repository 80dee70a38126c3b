# SPDX-License-Identifier: Apache-2.0
"""The gizmo as an artist and a farm meet it, before anything is generated."""

import sys
from pathlib import Path

import pytest

from standin import graph

ROOT = Path(__file__).resolve().parent.parent.parent
GIZMO = ROOT / "gizmos" / "Omnimatte.gizmo"
PIPES = ["Plate", "Matte1", "CleanPlate", "Keep", "Limit", "Protect", "Depth"]
MATTES = [f"Matte{slot}" for slot in range(2, 9)]
RGBA = ("rgba.red", "rgba.green", "rgba.blue", "rgba.alpha")


@pytest.fixture
def gizmo(app):
    import nuke

    return nuke.createNode("Omnimatte")


def user_knobs(gizmo):
    return [k._user for k in gizmo.allKnobs() if k._user is not None]


def inner(gizmo, cls):
    return [n for n in gizmo.nodes() if n.Class() == cls]


def test_tabs_stand_in_the_order_of_every_gizmo(gizmo):
    tabs = [k.options["l"] for k in user_knobs(gizmo) if k.code == 20 and "n" not in k.options]
    assert tabs == ["Main", "Layers", "Takes", "Cache & Server", "Advanced", "About"]


def test_pipes_have_names_and_numbers_that_never_move(gizmo):
    found = sorted((n["number"].value(), n.name()) for n in inner(gizmo, "Input"))
    assert found == list(enumerate(PIPES))


def test_writes_are_off_until_we_render(gizmo):
    writes = inner(gizmo, "Write")
    assert len(writes) == len(PIPES) + len(MATTES)
    assert all(w["disable"].value() is True for w in writes)
    gizmo["gc_rendering"].setValue(True)
    assert all(w["disable"].value() is False for w in writes)


def test_the_switch_for_our_rendering_is_never_saved(app, gizmo, tmp_path):
    import nuke

    gizmo["gc_rendering"].setValue(True)
    app.save(tmp_path / "crash.nk")
    nuke.scriptOpen(str(tmp_path / "crash.nk"))
    assert nuke.toNode("Omnimatte1")["gc_rendering"].value() is False


def test_buttons_tell_the_artist_when_the_python_side_is_missing(app, gizmo, monkeypatch):
    monkeypatch.setitem(sys.modules, "gencomp_nuke", None)
    for name in ("gc_generate", "gc_cancel", "gc_reveal"):
        app.messages.clear()
        gizmo[name].execute()
        assert app.messages == [
            "The Python side of gencomp is not installed in this Nuke: "
            "see docs/artist/install-nuke.md."
        ]


def test_without_the_python_side_the_node_can_be_made_and_turned(app, monkeypatch):
    import nuke

    monkeypatch.setitem(sys.modules, "gencomp_nuke", None)
    gizmo = nuke.createNode("Omnimatte")
    gizmo["gc_range"].setValue("custom")
    assert app.messages == []
    assert app.printed == []


def test_when_nothing_is_generated_every_output_passes_the_plate(app, comp):
    gizmo = comp(app)
    plate = gizmo.input(0)
    for output in gizmo["gc_output"].values():
        gizmo["gc_output"].setValue(output)
        assert app.pixels.compare(gizmo, plate, 1002, RGBA)["differing"] == 0


def test_when_nothing_is_generated_the_stream_gains_no_channel(app, comp):
    gizmo = comp(app)
    assert gizmo.channels() == ["rgba.blue", "rgba.green", "rgba.red"] or (
        gizmo.channels() == ["rgba.alpha", "rgba.blue", "rgba.green", "rgba.red"]
    )


def test_first_and_last_can_be_typed_for_a_custom_range_only(gizmo):
    assert not gizmo["gc_first"].enabled()
    gizmo["gc_range"].setValue("custom")
    assert gizmo["gc_first"].enabled()


@pytest.mark.parametrize(
    ("choice", "frames"), [("input", "1001-1004"), ("project", "1-100"), ("custom", "1003-1020")]
)
def test_the_range_is_where_the_knob_says(app, comp, choice, frames):
    from gencomp_nuke import node

    gizmo = comp(app)
    gizmo["gc_range"].setValue(choice)
    gizmo["gc_first"].setValue(1003)
    gizmo["gc_last"].setValue(1020)
    assert str(node.frame_range(gizmo)) == frames


def test_a_script_without_a_name_keeps_results_in_the_users_folder(app, gizmo, home):
    from gencomp_nuke import node, prefs

    folder = node.cache_folder(gizmo, prefs.load())
    assert folder == home / "unsaved" / gizmo["gc_id"].value()


def test_saved_and_opened_again_it_is_the_same_node(app, gizmo, tmp_path):
    import nuke

    gizmo["gc_name1"].setValue('boy [left] {x} "y" $z \\ ü')
    gizmo["seed"].setValue(12)
    app.save(tmp_path / "same.nk")
    before = graph.fingerprint(app.root)
    nuke.scriptOpen(str(tmp_path / "same.nk"))
    assert graph.fingerprint(app.root) == before
    assert nuke.toNode("Omnimatte1")["gc_name1"].value() == 'boy [left] {x} "y" $z \\ ü'


def test_a_later_node_of_the_same_script_has_another_name(app, gizmo):
    import nuke

    assert gizmo.name() == "Omnimatte1"
    assert nuke.createNode("Omnimatte").name() == "Omnimatte2"


def test_every_channel_knob_shows_the_channel_its_write_gets(gizmo):
    gizmo["gc_channel1"].setValue("rgba.red")
    assert gizmo.node("Matte1_channel")["from0"].value() == "rgba.red"
