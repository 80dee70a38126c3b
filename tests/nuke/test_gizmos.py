# SPDX-License-Identifier: Apache-2.0
"""What holds for every gizmo: it is its system's panel, and what all share is the same in all."""

import re
import struct
import sys
from pathlib import Path

import pytest

import standin
from gencomp_nuke import callbacks, node
from gencomp_nuke.declared import OMNIMATTE, ONE_CHANNEL, STAR, key_of
from standin import graph

ROOT = Path(__file__).resolve().parent.parent.parent
OLDER = Path(__file__).parent / "older" / "Omnimatte.gizmo"
FILES = sorted((ROOT / "gizmos").glob("*.gizmo"))
GIZMOS = [path.stem for path in FILES]
# What a system takes or gives and its gizmo does not show: passes made elsewhere, and what is more
# than four channels, which lies beside the layers on disk.
ON_THE_COMMAND_LINE = {"omnimatte": {"solo.*", "effects.*", "trimask", "trimask.*"}}
BESIDE = {"origin"}
TEXT = "EvalString_Knob"
LINES = {"Multiline_Eval_String_Knob": TEXT}  # Long texts have several lines, which is the gizmo's.
# What serves gencomp run alone does not show.
SILENT = {"other_channels", "unknown_channel"}
MOST_SHOWN = 4
COMMON = {
    "buttons": ("gc_generate", "gc_cancel", "gc_resume", "gc_preview", "gc_estimate", "gc_plan"),
    "mix": ("gc_mix",),
    "frames": ("gc_divider_frames", "gc_range", "gc_first", "gc_last"),
    "sampling": ("gc_divider_sampling", "quality", "seed", "exposure"),
    "presets": (
        "gc_divider_presets",
        "gc_preset",
        "gc_preset_apply",
        "gc_preset_save",
        "gc_reset",
    ),
    "takes": (
        "gc_tab_takes",
        "gc_wedge",
        "gc_run_wedge",
        "gc_take",
        "gc_take_count",
        "gc_promote",
        "gc_sheet",
    ),
    "compare": (
        "gc_divider_compare",
        "gc_compare_folder",
        "gc_compare_pick",
        "gc_compare_mode",
        "gc_wipe",
        "gc_gain",
        "gc_compare_knobs",
        "gc_status_takes",
    ),
    "delivery": (
        "gc_group_delivery",
        "gc_divider_delivery",
        "grain",
        "origin",
        "other_channels",
        "compression",
    ),
    "model": ("gc_group_model", "backbone"),
    "speed": (
        "gc_group_speed",
        "gc_divider_speed",
        "compiled",
        "attention",
        "cached_steps",
        "precision",
    ),
    "output": (
        "gc_tab_cache",
        "gc_divider_output",
        "gc_cache",
        "gc_folder",
        "gc_version_pick",
        "gc_delete",
        "gc_reveal",
        "gc_merge",
    ),
    "sending": ("gc_divider_rendering", "gc_depth", "gc_inputs", "gc_files", "gc_handles"),
    "server": ("gc_divider_server", "gc_server", "gc_policy", "gc_check"),
    "plain": ("gc_divider_plain", "gc_bake", "gc_explode", "gc_status_cache"),
    "about": ("gc_tab_about", "gc_example", "gc_help", "gc_status_about", "gc_schema", "gc_key"),
}
GROUPS = {"Delivery": "Delivery", "Model": "Video model", "Speed": "Speed on a GPU"}
OWN_BACKBONES = re.compile(r"(?<= {4 backbone )(.*) M {.*}(?=})")
RGBA = ("rgba.red", "rgba.green", "rgba.blue", "rgba.alpha")


@pytest.fixture(scope="module", params=GIZMOS)
def gizmo(request, tmp_path_factory):
    """Return a node of each kind, to be looked at only: it is made once for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENCOMP_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(sys, "path", list(sys.path))
        standin.install(gui=True).start([ROOT])
        import nuke

        yield nuke.createNode(request.param)


@pytest.fixture(params=GIZMOS)
def own(app, request):
    """Return a node of each kind, made for one test."""
    import nuke

    return nuke.createNode(request.param)


def systems():
    if sys.version_info < (3, 10):
        pytest.skip("the server room needs Python 3.10")
    from gencomp_server.systems import REGISTRY

    return {system.name: system for system in REGISTRY}


def system_of(gizmo):
    return systems()[gizmo["gc_system"].value()]


def user_knobs(gizmo):
    return [k._user for k in gizmo.allKnobs() if k._user is not None]


def inner(gizmo, cls):
    return [n for n in gizmo.nodes() if n.Class() == cls]


def lines_of(path, names):
    """Return the lines of a gizmo's file that add and set some of its knobs."""
    text = path.read_text(encoding="utf-8").split("\n}\n")[0]
    return [
        line
        for line in text.splitlines()
        if re.match(rf" (addUserKnob {{\d+ )?({'|'.join(names)})[ }}]", line)
    ]


# --- gizmo and system ----------------------------------------------------------------------------


def test_every_system_has_a_gizmo_and_every_gizmo_a_system(app):
    import nuke

    known = set(systems())
    assert {nuke.createNode(name)["gc_system"].value() for name in GIZMOS} == known


def test_its_knobs_are_the_servers_knobs_in_both_directions(gizmo):
    system = system_of(gizmo)
    from gencomp_server.contract import schema

    kinds = {"bool": "Boolean_Knob", "int": "Int_Knob", "float": "Double_Knob", "str": TEXT}
    wanted, found = {}, {}
    for knob in schema(system)["knobs"]:
        kind = "Enumeration_Knob" if knob["choices"] else kinds[knob["type"]]
        shown = knob["shown"] or {}
        choices = tuple(shown.get(choice, choice) for choice in knob["choices"] or ())
        reach = () if knob["lo"] is None else (f"{knob['lo']:.10g}", f"{knob['hi']:.10g}")
        wanted[knob["name"]] = (kind, knob["default"], choices, reach)
    for name in gizmo["gc_params"].value().split():
        knob = gizmo[name]
        reach = knob._user.options.get("R", ())
        found[name] = (
            LINES.get(knob.Class(), knob.Class()),
            knob.value(),
            tuple(knob.values()),
            reach,
        )
    assert found == wanted


def test_every_knob_that_is_sent_stands_on_the_tab_that_the_server_names(gizmo):
    system = system_of(gizmo)
    from gencomp_server.contract import schema

    wanted = {knob["name"]: knob["tab"] for knob in schema(system)["knobs"]}
    wanted = {name: GROUPS.get(tab, tab) for name, tab in wanted.items()}
    found, tabs = {}, [""]  # A group on a tab, and the tab.
    for knob in user_knobs(gizmo):
        if knob.code == 20:
            kind = knob.options.get("n")
            tabs = tabs[:1] if kind == "-1" else [*tabs[: 1 if kind else 0], knob.options["l"]]
        if knob.name in wanted:
            found[knob.name] = tabs[-1]
    assert found == wanted


def test_its_pipes_are_the_servers_inputs_in_both_directions(gizmo):
    system = system_of(gizmo)
    from gencomp_server.contract import declared_inputs

    hidden = ON_THE_COMMAND_LINE.get(system.name, set())
    wanted = {i.name: i.kind for i in declared_inputs(system) if i.name not in hidden}
    told = node.declared(gizmo).pipes
    found = {pipe.input: pipe.kind for pipe in told}
    found.update({pipe.input[:-2]: pipe.kind for pipe in told if pipe.bare})
    bare = {name for name in wanted if f"{name}.*" in wanted}  # fg beside fg.*: the same pipe.
    assert {k: v for k, v in found.items() if k not in bare} == {
        k: v for k, v in wanted.items() if k not in bare
    }


def test_a_family_has_at_least_four_pipes_and_no_more_than_the_server_takes(gizmo):
    system = system_of(gizmo)
    from gencomp_server.contract import declared_inputs

    most = {i.name: i.most for i in declared_inputs(system)}
    told = [pipe for pipe in node.declared(gizmo).pipes if pipe.is_family]
    for name in {pipe.input for pipe in told}:
        count = sum(pipe.input == name for pipe in told)
        assert MOST_SHOWN <= count <= most[name]


def test_a_clip_with_a_time_of_its_own_is_rendered_over_that(gizmo):
    system = system_of(gizmo)
    from gencomp_server.contract import declared_inputs

    own = {i.name for i in declared_inputs(system) if i.own_frames}
    told = {pipe.input for pipe in node.declared(gizmo).pipes if pipe.own or pipe.like}
    assert told == {name for name in own if f"{name}.*" not in own}


def test_every_layer_that_its_system_delivers_can_be_played(gizmo):
    system = system_of(gizmo)
    from gencomp_protocol.frames import Format, FrameRange
    from gencomp_protocol.request import InputHeader, Request
    from gencomp_server.contract import schema

    told = node.declared(gizmo)
    known = {layer.replace(STAR, "bird") for layer in told.layers} | BESIDE
    turned = {k["name"]: True for k in schema(system)["knobs"] if k["type"] == "bool"}
    frames = FrameRange(1001, 1002)
    for needs in told.needs or ((),):
        for one in needs or ((),):
            names = [told.pipe(told.matching(word)[0]).spelt("bird") for word in one]
            spare = [p.spelt("bird") for p in told.pipes if p.slot in (0, 1) and not p.is_lead]
            headers = tuple(
                InputHeader(name, tuple(frames), format=Format(64, 48))
                for name in dict.fromkeys([*names, *spare])
            )
            request = Request(system.name, frames, headers, turned)
            assert {layer.name for layer in system.layers(request)} <= known


# --- alike ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", COMMON)
@pytest.mark.parametrize("path", FILES, ids=GIZMOS)
def test_a_block_that_all_have_is_the_same_text_in_all(path, block):
    found, like = (
        [OWN_BACKBONES.sub(r"\1", line) for line in lines_of(one, COMMON[block])]
        for one in (path, ROOT / "gizmos" / "Omnimatte.gizmo")
    )
    assert len(like) >= len(COMMON[block])
    assert found == like


def test_blocks_stand_in_the_order_of_every_gizmo(gizmo):
    dividers = [k.name for k in user_knobs(gizmo) if k.name.startswith("gc_divider_")]
    named = any(k.name == "gc_name1" for k in user_knobs(gizmo))
    first = ["system", *(["inputs"] if named else []), "frames", "sampling", "presets"]
    last = ["layers", "takes", "compare", "output", "rendering", "server", "plain"]
    last += ["delivery", "speed"]
    assert dividers[: len(first)] == [f"gc_divider_{name}" for name in first]
    assert dividers[-len(last) :] == [f"gc_divider_{name}" for name in last]


def test_tabs_are_main_then_its_own_then_those_of_every_gizmo(gizmo):
    tabs = [k.options["l"] for k in user_knobs(gizmo) if k.code == 20 and "n" not in k.options]
    assert tabs[0] == "Main"
    assert tabs[-5:] == ["Layers", "Takes", "Cache & Server", "Advanced", "About"]


def test_every_group_of_knobs_is_closed_again(gizmo):
    groups = [k.options["n"] for k in user_knobs(gizmo) if k.code == 20 and "n" in k.options]
    assert groups[1::2] == ["-1"] * (len(groups) // 2)
    assert set(groups[::2]) <= {"1", "2"}


def test_a_knob_is_sent_or_starts_with_gc(gizmo):
    sent = set(gizmo["gc_params"].value().split())
    assert all(k.name in sent or k.name.startswith("gc_") for k in user_knobs(gizmo))


def test_of_what_is_sent_all_shows_but_what_a_node_cannot_use(gizmo):
    sent = gizmo["gc_params"].value().split()
    assert {name for name in sent if not gizmo[name].visible()} == SILENT & set(sent)


def test_every_knob_that_shows_has_a_tooltip(gizmo):
    silent = [k.name for k in user_knobs(gizmo) if k.code != 20 and not k.options.get("t")]
    assert silent == []


def test_what_it_says_before_generate_stands_in_its_status(gizmo):
    assert gizmo["gc_status"].value() == gizmo["gc_hint"].value()


# --- inside --------------------------------------------------------------------------------------


def test_pipes_stand_in_the_order_that_it_says_with_the_first_of_each_family(gizmo):
    found = sorted((n["number"].value(), n.name()) for n in inner(gizmo, "Input"))
    shipped = [pipe.pipe for pipe in node.declared(gizmo).pipes if pipe.slot <= 1]
    assert found == list(enumerate(shipped))
    told = [pipe.pipe for pipe in node.declared(gizmo).pipes]
    assert told[: len(shipped)] == shipped


def test_every_pipe_has_a_write_and_every_matte_a_channel(gizmo):
    for pipe in node.declared(gizmo).pipes:
        source = gizmo.node(f"Write_{pipe.folder}").input(0)
        if pipe.slot > 1 and pipe.kind not in ONE_CHANNEL:
            assert source is None
            continue
        if pipe.kind == "matte":  # What inverts it lies between.
            source = source.input(0).input(0)
        wanted = f"{pipe.pipe}_channel" if pipe.kind in ONE_CHANNEL else pipe.pipe
        assert source.name() == wanted
    assert len(inner(gizmo, "Write")) == len(node.declared(gizmo).pipes)


def test_every_layer_has_a_read_a_place_in_the_stream_and_one_in_the_menu(gizmo):
    told = node.declared(gizmo)
    for layer in told.layers:
        for slot in told.slots if STAR in layer else (0,):
            key = key_of(layer, slot)
            assert gizmo.node(f"Read_{key}").Class() == "Read"
            assert gizmo.node(f"Copy_{key}").Class() == "Copy"
    count = sum(len(told.slots) if STAR in name else 1 for name in told.outputs)
    assert len(gizmo["gc_output"].values()) == count
    assert len(gizmo.node("Chosen")._inputs) == count


def test_there_is_one_output_and_no_gizmo_inside(gizmo):
    assert len(inner(gizmo, "Output")) == 1
    assert inner(gizmo, "Group") == []


def test_writes_are_off_until_we_render(gizmo):
    assert all(w["disable"].value() is True for w in inner(gizmo, "Write"))
    gizmo["gc_rendering"].setValue(True)
    assert all(w["disable"].value() is False for w in inner(gizmo, "Write"))


def test_reads_and_writes_carry_samples_unconverted(gizmo):
    for one in inner(gizmo, "Read") + inner(gizmo, "Write"):
        assert one["raw"].value() is True


def test_paths_need_no_python(gizmo):
    for one in inner(gizmo, "Read") + inner(gizmo, "Write"):
        assert "python" not in one["file"].toScript()
        one["file"].evaluate(1001)
    assert "python" not in gizmo["gc_cache"].toScript()


def test_the_result_is_a_file_knob_that_farms_find(gizmo):
    assert gizmo["gc_folder"].Class() == "File_Knob"
    assert gizmo["gc_cache"].Class() == "File_Knob"
    assert gizmo["gc_server"].Class() == "EvalString_Knob"


def test_every_read_gives_beyond_its_range_and_at_a_gap_what_the_node_says(gizmo):
    reads = inner(gizmo, "Read")
    words = ("before", "after")
    assert {read[word].value() for read in reads for word in words} == {"hold"}
    gizmo["gc_outside"].setValue("black")
    assert {read[word].value() for read in reads for word in words} == {"black"}
    gizmo["gc_outside"].setValue("hold")
    layers = [read for read in reads if read.name() != "Read_compared"]
    for choice in ("black", "nearest frame", "error"):
        gizmo["gc_missing"].setValue(choice)
        assert {read["on_error"].value() for read in layers} == {choice}


def test_every_matte_pipe_has_a_switch_that_inverts_what_goes_to_its_write(gizmo):
    mattes = [spec for spec in node.declared(gizmo).pipes if spec.kind == "matte"]
    assert mattes
    for spec in mattes:
        inverted = gizmo.node(f"Write_{spec.folder}").input(0)
        assert inverted.input(0).name() == f"{spec.pipe}_whole"
        assert (inverted.name(), inverted.Class()) == (f"{spec.pipe}_inverted", "Invert")
        assert inverted["channels"].value() == "alpha"
        stem = re.escape(spec.folder)
        (switch,) = (
            k for k in gizmo.knobs() if re.fullmatch(rf"gc_invert(_{stem}|{spec.slot})", k)
        )
        both = (inverted, inverted.input(0))
        assert [one["disable"].value() for one in both] == [True, True]
        gizmo[switch].setValue(True)
        assert [one["disable"].value() for one in both] == [False, False]
        gizmo[switch].setValue(False)


def test_reads_use_real_frame_numbers(gizmo):
    gizmo["gc_result_first"].setValue(1001)
    gizmo["gc_result_last"].setValue(1048)
    for read in inner(gizmo, "Read"):
        assert (read["first"].value(), read["last"].value()) == (1001, 1048)
        assert read["frame_mode"].value() == "expression"
        assert read["frame"].value() == ""


def test_when_nothing_is_generated_every_output_passes_the_plate(app, own, shot):
    import nuke

    read = nuke.createNode("Read", "name plate first 1001 last 1004 raw true")
    read["file"].setValue(f"{shot.as_posix()}/plate/plate.%04d.exr")
    own.setInput([p.is_lead for p in node.declared(own).pipes].index(True), read)
    node.follow_inputs(own)
    for output in own["gc_output"].values():
        own["gc_output"].setValue(output)
        assert app.pixels.compare(own, read, 1002, RGBA)["differing"] == 0


def test_saved_and_opened_again_it_is_the_same_node(app, own, tmp_path):
    import nuke

    own["seed"].setValue(12)
    app.save(tmp_path / "same.nk")
    before = graph.fingerprint(app.root)
    nuke.scriptOpen(str(tmp_path / "same.nk"))
    assert graph.fingerprint(app.root) == before


@pytest.mark.parametrize("path", FILES, ids=GIZMOS)
def test_its_root_is_a_group_so_that_scripts_carry_the_node(path):
    assert path.read_text(encoding="utf-8").startswith(f"Group {{\n name {path.stem}1\n")


@pytest.mark.parametrize("path", FILES, ids=GIZMOS)
def test_no_path_of_a_machine_and_no_font_is_in_the_file(path):
    text = path.read_text(encoding="utf-8")
    assert not [word for word in ("note_font", "/home/", "/mnt/", "/tmp/", "C:") if word in text]


def test_every_button_presses_something_that_the_room_has(gizmo):
    pressed = {}
    for knob in user_knobs(gizmo):
        if knob.code == 22:
            found = re.search(
                r"callbacks\.(?:press\(nuke.thisNode\(\), '(\w+)'|(\w+)\()", knob.options["T"]
            )
            pressed[knob.name] = found.group(1) or found.group(2)
    direct = {"gc_generate": "generate", "gc_cancel": "cancel", "gc_reveal": "reveal"}
    assert {knob: pressed.pop(knob) for knob in direct} == direct
    assert set(pressed.values()) <= set(callbacks.BUTTONS)


def test_what_is_told_and_not_set_is_never_saved(gizmo):
    told = {"gc_status", "gc_plan", "gc_version", "gc_about", "gc_key_state", "gc_compare_knobs"}
    kept = {k.name for k in user_knobs(gizmo) if k.name in told and "+DO_NOT_WRITE" not in k.flags}
    assert kept <= {"gc_version", "gc_about"}


def test_keyframes_are_a_tab_where_the_system_has_them(gizmo):
    has = "keyframes" in gizmo["gc_params"].value().split()
    buttons = ("gc_detect", "gc_key_add", "gc_key_remove", "gc_key_previous", "gc_key_next")
    assert {name in gizmo.knobs() for name in (*buttons, "gc_is_key", "gc_key_state")} == {has}
    assert ("trimask" in gizmo["gc_view"].values()) is has


def test_the_result_is_live_where_there_is_an_effect(gizmo):
    live = {"result", "effect"} <= set(gizmo["gc_layers"].value().split())
    assert ("gc_live" in gizmo.knobs()) is live
    assert live is (gizmo["gc_system"].value() != "omnimatte")
    assert not live or gizmo["gc_live"].value() is True


@pytest.mark.parametrize(("ending", "size"), [("", 24), ("@2x", 48)])
def test_it_has_an_icon_in_two_sizes(gizmo, ending, size):
    name, dot, png = gizmo["icon"].value().partition(".")
    data = (ROOT / "icons" / f"{name}{ending}{dot}{png}").read_bytes()
    assert name == gizmo.name().rstrip("1")
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">IIBB", data[16:26]) == (size, size, 8, 6)


# --- older nodes ---------------------------------------------------------------------------------


def test_an_omnimatte_saved_earlier_is_understood(app):
    import nuke

    app.paste(OLDER.read_text(encoding="utf-8"))
    gizmo = nuke.toNode("Omnimatte1")
    assert {name: gizmo[name].value() for name in OMNIMATTE} == dict(OMNIMATTE)
    assert gizmo["gc_schema"].value() == 1


def test_what_an_older_omnimatte_offers_is_in_the_same_places_today(app):
    import nuke

    gizmo = nuke.createNode("Omnimatte")
    same = ("gc_needs", "gc_layers", "gc_outputs", "gc_coordinates", "gc_hint")
    assert {name: gizmo[name].value() for name in same} == {n: OMNIMATTE[n] for n in same}
    pipes = {pipe.strip() for pipe in gizmo["gc_pipes"].value().split(";")}
    assert pipes == {pipe.strip() for pipe in OMNIMATTE["gc_pipes"].split(";")}


@pytest.mark.parametrize("path", sorted(OLDER.parent.glob("*.gizmo")), ids=lambda path: path.stem)
def test_no_knob_of_an_older_node_is_gone(app, path):
    import nuke

    (older,) = app.paste(path.read_text(encoding="utf-8"))
    assert older["gc_schema"].value() == 1
    names = {k.name for k in user_knobs(older) if k.code not in (20, 26)}
    gone = names - {k.name for k in user_knobs(nuke.createNode(path.stem))}
    assert gone <= {"gc_has_split"}


def test_every_gizmo_has_an_older_node_to_be_held_to():
    assert sorted(path.stem for path in OLDER.parent.glob("*.gizmo")) == GIZMOS
