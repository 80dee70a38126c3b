# SPDX-License-Identifier: Apache-2.0
"""The gizmo as an artist and a farm meet it, before anything is generated."""

import sys
from pathlib import Path

import pytest

from standin import graph

ROOT = Path(__file__).resolve().parent.parent.parent
GIZMO = ROOT / "gizmos" / "Omnimatte.gizmo"
PIPES = ["Plate", *(f"Matte{i}" for i in range(1, 9)), "CleanPlate", "Keep"]
PIPES += ["Limit", "Protect", "Depth"]
RGBA = ("rgba.red", "rgba.green", "rgba.blue", "rgba.alpha")


@pytest.fixture
def gizmo(app):
    import nuke

    return nuke.createNode("Omnimatte")


def user_knobs(gizmo):
    return [k._user for k in gizmo.allKnobs() if k._user is not None]


def inner(gizmo, cls):
    return [n for n in gizmo.nodes() if n.Class() == cls]


def test_its_knobs_are_the_servers_knobs_in_both_directions(gizmo):
    if sys.version_info < (3, 10):
        pytest.skip("the server room needs Python 3.10")
    from gencomp_server.contract import schema
    from gencomp_server.systems import REGISTRY

    declared = {s.name: schema(s) for s in REGISTRY}[gizmo["gc_system"].value()]
    kinds = {"str": "EvalString_Knob", "bool": "Boolean_Knob", "int": "Int_Knob"}
    kinds["float"] = "Double_Knob"
    wanted, found = {}, {}
    for knob in declared["knobs"]:
        kind = "Enumeration_Knob" if knob["choices"] else kinds[knob["type"]]
        choices = tuple(knob["choices"] or ())
        reach = () if knob["lo"] is None else (f"{knob['lo']:.10g}", f"{knob['hi']:.10g}")
        wanted[knob["name"]] = (kind, knob["default"], choices, reach)
    for name in gizmo["gc_params"].value().split():
        knob = gizmo[name]
        reach = knob._user.options.get("R", ())
        found[name] = (knob.Class(), knob.value(), tuple(knob.values()), reach)
    assert found == wanted


def test_its_pipes_are_inputs_the_server_declares(gizmo):
    if sys.version_info < (3, 10):
        pytest.skip("the server room needs Python 3.10")
    from gencomp_server.contract import declared_inputs
    from gencomp_server.systems import REGISTRY

    system = next(s for s in REGISTRY if s.name == "omnimatte")
    names = {i.name: i.most for i in declared_inputs(system)}
    assert names["matte.*"] == 8
    assert {"plate", "clean_plate", "keep", "limit", "protect", "depth"} <= set(names)


def test_a_knob_is_sent_or_starts_with_gc(gizmo):
    sent = set(gizmo["gc_params"].value().split())
    assert all(k.name in sent or k.name.startswith("gc_") for k in user_knobs(gizmo))


def test_every_knob_that_shows_has_a_tooltip(gizmo):
    silent = [k.name for k in user_knobs(gizmo) if k.code != 20 and not k.options.get("t")]
    assert silent == []


def test_tabs_are_main_then_delivery_then_the_models_then_cache_and_server_then_about(gizmo):
    tabs = [k.options["l"] for k in user_knobs(gizmo) if k.code == 20]
    assert tabs == ["Main", "Delivery", "Model", "Speed", "Cache & Server", "About"]


def test_every_knob_that_is_sent_stands_on_the_tab_that_the_server_names(gizmo):
    if sys.version_info < (3, 10):
        pytest.skip("the server room needs Python 3.10")
    from gencomp_server.contract import schema
    from gencomp_server.systems import REGISTRY

    declared = {s.name: schema(s) for s in REGISTRY}[gizmo["gc_system"].value()]
    wanted = {knob["name"]: knob["tab"] for knob in declared["knobs"]}
    found, tab = {}, ""
    for knob in user_knobs(gizmo):
        tab = knob.options["l"] if knob.code == 20 else tab
        if knob.name in wanted:
            found[knob.name] = tab
    assert found == wanted


def test_blocks_stand_in_the_order_of_every_gizmo(gizmo):
    dividers = [k.name for k in user_knobs(gizmo) if k.name.startswith("gc_divider_")]
    order = ["system", "inputs", "frames", "sampling", "delivery", "model", "speed"]
    order += ["output", "server"]
    assert dividers == [f"gc_divider_{name}" for name in order]


def test_pipes_have_names_and_numbers_that_never_move(gizmo):
    found = sorted((n["number"].value(), n.name()) for n in inner(gizmo, "Input"))
    assert found == list(enumerate(PIPES))


def test_there_is_one_output_and_no_gizmo_inside(gizmo):
    assert len(inner(gizmo, "Output")) == 1
    assert inner(gizmo, "Group") == []


def test_its_root_is_a_group_so_that_scripts_carry_the_node():
    assert GIZMO.read_text(encoding="utf-8").startswith("Group {\n")


def test_writes_are_off_until_we_render(gizmo):
    writes = inner(gizmo, "Write")
    assert len(writes) == len(PIPES)
    assert all(w["disable"].value() is True for w in writes)
    gizmo["gc_rendering"].setValue(True)
    assert all(w["disable"].value() is False for w in writes)


def test_the_switch_for_our_rendering_is_never_saved(app, gizmo, tmp_path):
    import nuke

    gizmo["gc_rendering"].setValue(True)
    app.save(tmp_path / "crash.nk")
    nuke.scriptOpen(str(tmp_path / "crash.nk"))
    assert nuke.toNode("Omnimatte1")["gc_rendering"].value() is False


def test_reads_and_writes_carry_samples_unconverted(gizmo):
    for node in inner(gizmo, "Read") + inner(gizmo, "Write"):
        assert node["raw"].value() is True


def test_paths_need_no_python(gizmo):
    for node in inner(gizmo, "Read") + inner(gizmo, "Write"):
        assert "python" not in node["file"].toScript()
        node["file"].evaluate(1001)
    assert "python" not in gizmo["gc_cache"].toScript()


def test_the_result_is_a_file_knob_that_farms_find(gizmo):
    assert gizmo["gc_folder"].Class() == "File_Knob"
    assert gizmo["gc_cache"].Class() == "File_Knob"
    assert gizmo["gc_server"].Class() == "EvalString_Knob"


def test_reads_use_real_frame_numbers(gizmo):
    gizmo["gc_result_first"].setValue(1001)
    gizmo["gc_result_last"].setValue(1048)
    for read in inner(gizmo, "Read"):
        assert (read["first"].value(), read["last"].value()) == (1001, 1048)
        assert read["frame_mode"].value() == "expression"
        assert read["frame"].value() == ""


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


def test_no_path_of_a_machine_and_no_font_is_in_the_file():
    text = GIZMO.read_text(encoding="utf-8")
    assert "note_font" not in text
    assert "/home/" not in text
    assert "C:" not in text


def test_every_channel_knob_shows_the_channel_its_write_gets(gizmo):
    gizmo["gc_channel1"].setValue("rgba.red")
    assert gizmo.node("Matte1_channel")["from0"].value() == "rgba.red"
