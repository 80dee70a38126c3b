# SPDX-License-Identifier: Apache-2.0
"""Pressing Generate, against a fake server: what the artist sees, and what is left on disk."""

import contextlib
import errno
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fakes.server import SECRET, FakeServer
from fakes.shot import connect
from gencomp_nuke import asking, node
from gencomp_protocol.errors import BadMatte, VersionMismatch, WorkerLost

RGB = ("rgba.red", "rgba.green", "rgba.blue")
RGBA = (*RGB, "rgba.alpha")
FRAMES = (1001, 1002, 1003, 1004)
ROOT = Path(__file__).resolve().parent.parent.parent
BATCH = """
import sys
import nuke
from gencomp_nuke import batch
nuke.scriptOpen(sys.argv[1])
batch.generate(nuke.toNode("Omnimatte1"))
nuke.scriptSave()
"""


def press(app, gizmo):
    """Press Generate and live through it."""
    from gencomp_nuke import callbacks

    gizmo["gc_generate"].execute()
    app.process_events(lambda: callbacks._session().run_of(gizmo["gc_id"].value()) is None)


def wait_for(app, fact):
    """Process events until something outside is true."""
    app.process_events(fact)


def status(gizmo):
    return " ".join(gizmo["gc_status"].value().split())


def reading(app, shot, layer):
    import nuke

    read = nuke.createNode("Read", "first 1001 last 1004 raw true")
    read["file"].setValue(f"{shot.as_posix()}/{layer}.%04d.exr")
    return read


def test_after_generate_the_node_plays_the_background_at_every_frame(app, server, comp, shot):
    gizmo = comp(app)
    press(app, gizmo)
    assert status(gizmo) == "Plays v001, frames 1001-1004."
    truth = reading(app, shot, "layers/background/background")
    for frame in FRAMES:
        assert app.pixels.compare(gizmo, truth, frame, RGBA)["differing"] == 0


@pytest.mark.parametrize(
    ("output", "file"),
    [("plate", "plate/plate"), ("a", "layers/a/a"), ("b", "layers/b/b")],
)
def test_output_chooses_what_rgba_carries(app, server, comp, shot, output, file):
    gizmo = comp(app)
    press(app, gizmo)
    gizmo["gc_output"].setValue(output)
    truth = reading(app, shot, file)
    assert app.pixels.compare(gizmo, truth, 1003, RGB)["differing"] == 0


def test_over_of_the_layers_inside_the_node_is_the_plate(app, server, comp, shot):
    gizmo = comp(app)
    press(app, gizmo)
    gizmo["gc_output"].setValue("recomposed")
    truth = reading(app, shot, "plate/plate")
    for frame in FRAMES:
        assert app.pixels.compare(gizmo, truth, frame, RGB)["differing"] == 0


def test_every_layer_is_in_the_stream_under_its_own_name(app, server, comp, shot):
    gizmo = comp(app)
    press(app, gizmo)
    gizmo["gc_output"].setValue("plate")
    for layer in ("background", "a", "b"):
        truth = reading(app, shot, f"layers/{layer}/{layer}")
        named = [f"{layer}.{part}" for part in ("red", "green", "blue", "alpha")]
        assert app.pixels.compare(gizmo, truth, 1002, named, RGBA)["differing"] == 0


def test_values_over_one_come_back_as_they_were(app, server, comp):
    gizmo = comp(app)
    press(app, gizmo)
    assert gizmo.sample("rgba.red", 1, 1) == 8.0


def test_what_nuke_computes_is_sent_not_the_file_behind_it(app, server, comp, tmp_path):
    import nuke

    gizmo = comp(app)
    doubled = nuke.createNode("Multiply", "value 2")
    doubled.setInput(0, gizmo.input(0))
    gizmo.setInput(0, doubled)
    press(app, gizmo)
    path = tmp_path / "sent.exr"
    path.write_bytes(server.jobs["job1"].pictures[("plate", 1001)])
    read = reading(app, server.folder.parent, "plate/plate")
    doubled_read = nuke.createNode("Multiply", "value 2")
    doubled_read.setInput(0, read)
    back = nuke.createNode("Read", "raw true first 1001 last 1001")
    back["file"].setValue(path.as_posix())
    assert app.pixels.compare(back, doubled_read, 1001, RGB)["differing"] == 0


def test_the_request_says_what_the_node_says(app, server, comp):
    gizmo = comp(app)
    gizmo["seed"].setValue(7)
    gizmo["residual"].setValue("layer")
    gizmo["split_effects"].setValue(True)
    gizmo["gc_range"].setValue("custom")
    gizmo["gc_first"].setValue(1002)
    gizmo["gc_last"].setValue(1003)
    press(app, gizmo)
    request = server.jobs["job1"].submit.request
    assert request.system == "omnimatte"
    assert str(request.frames) == "1002-1003"
    assert [entry.name for entry in request.inputs] == ["plate", "matte.a", "matte.b"]
    assert [entry.channel for entry in request.inputs] == [None, "A", "A"]
    assert request.inputs[0].format.width == 64
    assert dict(request.knobs) == {
        "clean_plate_from": "auto",
        "register_clean_plate": True,
        "order": "",
        "depth_near": "small",
        "residual": "layer",
        "split_effects": True,
        "mattes": "trusted",
        "model_long_edge": 640,
        "seed": 7,
        "exposure": 0.0,
        "grain": "keep",
        "origin": False,
        "other_channels": False,
        "compression": "zip",
        "backbone": "auto",
        "quality": "final",
        "scene_prompt": "empty scene",
        "matte_grow": 5,
        "passes": "",
        "steps": 50,
        "guidance": 1.0,
        "model_size": "",
        "compiled": False,
        "attention": "native",
        "cached_steps": 0.0,
        "precision": "exact",
    }


CASPER = {
    "name": "casper",
    "title": "Casper",
    "licence_class": "academic",
    "untrained": False,
    "surrogate": False,
}


@pytest.mark.parametrize(
    ("backbone", "says"),
    [
        (None, "Plays v001, frames 1001-1004."),
        (CASPER, "Plays v001, frames 1001-1004. Made with Casper (licence: academic)."),
        (
            {**CASPER, "surrogate": True},
            "Plays v001, frames 1001-1004. Made with Casper, standing in (licence: academic).",
        ),
        (
            {**CASPER, "name": "tiny", "untrained": True},
            "Plays v001, frames 1001-1004. Made with tiny, which is untrained: the pictures mean "
            "nothing.",
        ),
    ],
    ids=["none", "casper", "a stand-in", "tiny"],
)
def test_after_a_job_the_node_names_the_video_model_and_its_licence(
    app, server, comp, backbone, says
):
    server.backbone = backbone
    gizmo = comp(app)
    press(app, gizmo)
    assert status(gizmo) == says


def test_the_size_that_the_model_worked_at_stands_beside_its_name():
    from gencomp_nuke import readback

    told = {"backbone": CASPER, "report": {"model_size": [672, 384]}}
    assert readback.spell_backbone(told) == "Casper at 672x384 (licence: academic)"


def test_with_warnings_the_node_names_the_video_model_too(app, server, comp):
    server.backbone, server.warns = CASPER, ["It is late."]
    gizmo = comp(app)
    press(app, gizmo)
    says = "Plays v001, frames 1001-1004. Made with Casper (licence: academic). Note: It is late."
    assert status(gizmo) == says


def test_a_clean_plate_of_stills_is_rendered_at_its_frames_only(app, server, comp):
    gizmo = comp(app)
    gizmo.setInput(2, gizmo.input(0))
    gizmo["gc_clean_cover"].setValue("stills")
    gizmo["gc_clean_frames"].setValue("1001,1004")
    gizmo["gc_files"].setValue(False)
    press(app, gizmo)
    header = server.jobs["job1"].submit.request.input("clean_plate")
    assert (header.cover, header.frames) == ("stills", (1001, 1004))
    assert [f for name, f in app.rendered if name.endswith("Write_clean_plate")] == [1001, 1004]


def test_bounds_and_depth_are_rendered_from_the_channel_that_their_knob_names(app, server, comp):
    gizmo = comp(app)
    for pipe in ("Limit", "Protect", "Depth"):
        connect(gizmo, pipe, gizmo.input(0))
    gizmo["gc_channel_depth"].setValue("rgba.red")
    press(app, gizmo)
    sent = {one.name: one.channel for one in server.jobs["job1"].submit.request.inputs}
    assert [sent[name] for name in ("limit", "protect", "depth")] == ["A", "A", "A"]
    assert ("depth", 1004) in server.jobs["job1"].pictures


def test_clean_and_patch_are_outputs_and_in_the_stream(app, shot, home, comp, tmp_path):
    layers = tmp_path / "layers"
    shutil.copytree(shot / "layers", layers)
    for name, of in (("clean", "background"), ("patch", "a")):
        (layers / name).mkdir()
        for n in FRAMES:
            shutil.copy(layers / of / f"{of}.{n}.exr", layers / name / f"{name}.{n}.exr")
    with FakeServer(layers, home):
        gizmo = comp(app)
        press(app, gizmo)
    for name in ("clean", "patch"):
        gizmo["gc_output"].setValue(name)
        truth = reading(app, tmp_path, f"layers/{name}/{name}")
        assert app.pixels.compare(gizmo, truth, 1002, RGBA)["differing"] == 0
        assert f"{name}.alpha" in app.pixels.channels_of(gizmo, 1002)


def test_the_overs_inside_take_the_order_that_the_manifest_says_of_the_first_frame(app, comp):
    from gencomp_nuke import asking, readback

    asked = asking.ask(comp(app))
    told = {"report": {"order_from_frame": {"1003": ["a", "b"], "1001": ["b", "a"]}}}
    assert readback.front_to_back(asked, told) == ("b", "a")
    assert readback.front_to_back(asked, {}) == ("a", "b")


def test_the_result_lies_beside_the_script_and_the_inputs_are_gone(app, server, comp, tmp_path):
    gizmo = comp(app)
    press(app, gizmo)
    folder = tmp_path / "gencomp" / "comp" / f"Omnimatte1_{gizmo['gc_id'].value()}" / "v001"
    assert sorted(p.name for p in folder.iterdir()) == ["a", "b", "background", "manifest.json"]
    assert sorted(p.name for p in (folder / "a").iterdir()) == [f"a.{n}.exr" for n in FRAMES]
    assert json.loads((folder / "manifest.json").read_text())["system"] == "omnimatte"
    assert gizmo["gc_folder"].toScript().startswith("[file dirname [value root.name]]/gencomp/")


def test_with_the_server_away_and_the_script_opened_again_the_result_plays(
    app, shot, home, comp, tmp_path
):
    import nuke

    with FakeServer(shot / "layers", home):
        gizmo = comp(app)
        press(app, gizmo)
    app.save()
    app.layers = {k: v for k, v in app.layers.items() if k in app.builtin_layers}
    nuke.scriptOpen(str(tmp_path / "comp.nk"))
    again = nuke.toNode("Omnimatte1")
    truth = reading(app, shot, "layers/background/background")
    assert app.pixels.compare(again, truth, 1004, RGBA)["differing"] == 0
    assert "a.red" in app.pixels.channels_of(again, 1004)
    assert status(again) == "Plays v001, frames 1001-1004."


def test_a_second_result_gets_its_own_folder(app, server, comp):
    gizmo = comp(app)
    press(app, gizmo)
    press(app, gizmo)
    assert gizmo["gc_folder"].evaluate().endswith("/v002")
    cache = Path(gizmo["gc_folder"].evaluate()).parent
    assert sorted(p.name for p in cache.iterdir()) == ["v001", "v002"]


def test_pointed_at_an_older_folder_the_node_plays_that_with_its_frames_and_names(
    app, server, comp
):
    gizmo = comp(app)
    press(app, gizmo)
    older = gizmo["gc_folder"].evaluate()
    gizmo["gc_range"].setValue("custom")
    gizmo["gc_first"].setValue(1002)
    gizmo["gc_last"].setValue(1003)
    gizmo["gc_name1"].setValue("b")
    gizmo["gc_name2"].setValue("a")
    press(app, gizmo)
    assert status(gizmo) == "Plays v002, frames 1002-1003."
    assert gizmo["gc_output"].values()[2:4] == ["b", "a"]
    gizmo["gc_folder"].setValue(older)
    assert status(gizmo).endswith("Plays v001, frames 1001-1004.")
    assert gizmo["gc_output"].values()[2:4] == ["a", "b"]
    assert gizmo.node("Read_1")["last"].value() == 1004
    assert gizmo.node("Read_1")["file"].evaluate(1004) == f"{older}/a/a.1004.exr"


def test_a_result_from_before_manifests_held_names_plays_with_those_of_the_last(app, server, comp):
    gizmo = comp(app)
    press(app, gizmo)
    older = Path(gizmo["gc_folder"].evaluate())
    manifest = json.loads((older / "manifest.json").read_text(encoding="utf-8"))
    del manifest["node"]
    (older / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    press(app, gizmo)
    gizmo["gc_folder"].setValue(older.as_posix())
    assert status(gizmo) == "Plays v001, frames 1001-1004."
    assert (gizmo["gc_layer1"].value(), gizmo["gc_layer2"].value()) == ("a", "b")


def test_a_folder_without_a_result_is_said_and_an_empty_one_is_the_plate_again(app, server, comp):
    gizmo = comp(app)
    press(app, gizmo)
    gizmo["gc_folder"].setValue("/nowhere/v007")
    assert status(gizmo) == "There is no result in /nowhere/v007. Choose a folder such as v001."
    gizmo["gc_folder"].setValue("")
    assert status(gizmo) == gizmo["gc_hint"].value()
    assert "a.red" not in gizmo.channels()
    assert app.pixels.compare(gizmo, gizmo.input(0), 1002, RGB)["differing"] == 0


def test_a_long_sentence_makes_no_panel_wider_than_a_screen(app, server, comp):
    server.fails = BadMatte("A matte is empty, and so is the next one. " * 5 + "/a/path-b/c" * 10)
    gizmo = comp(app)
    press(app, gizmo)
    *lines, path = gizmo["gc_status"].value().splitlines()
    assert max(map(len, lines)) <= 90
    assert path == "/a/path-b/c" * 10


def test_when_a_job_fails_the_sentence_is_on_the_node_and_the_old_result_plays(
    app, server, comp, shot
):
    gizmo = comp(app)
    press(app, gizmo)
    server.fails = WorkerLost("The worker went away.", hint="Press Generate again.")
    press(app, gizmo)
    assert status(gizmo) == "The worker went away. Press Generate again."
    assert gizmo["tile_color"].value() == 0x8F2020FF
    assert gizmo["gc_folder"].evaluate().endswith("/v001")
    truth = reading(app, shot, "layers/background/background")
    assert app.pixels.compare(gizmo, truth, 1001, RGBA)["differing"] == 0
    cache = Path(gizmo["gc_folder"].evaluate()).parent
    assert [p.name for p in cache.iterdir()] == ["v001"]


def test_when_the_server_refuses_then_nothing_was_rendered(app, server, comp):
    server.refuses = BadMatte("Matte 'a' is empty.", hint="Paint something.")
    gizmo = comp(app)
    press(app, gizmo)
    assert status(gizmo) == "Matte 'a' is empty. Paint something."
    assert app.rendered == []


def test_when_cancelled_the_server_is_told_and_the_old_result_stays(app, server, comp):
    gizmo = comp(app)
    press(app, gizmo)
    server.goes_on.clear()
    server.is_running_job.clear()
    gizmo["gc_generate"].execute()
    wait_for(app, server.is_running_job.is_set)
    gizmo["gc_cancel"].execute()
    from gencomp_nuke import callbacks

    wait_for(app, lambda: callbacks._session().run_of(gizmo["gc_id"].value()) is None)
    assert server.cancelled == ["job2"]
    assert status(gizmo) == "Plays v001, frames 1001-1004."
    assert gizmo["tile_color"].value() == 0


def test_a_job_that_does_not_heed_a_cancel_holds_the_node_for_two_seconds_at_most(
    app, server, comp
):
    gizmo = comp(app)
    press(app, gizmo)
    server.goes_on.clear()
    server.is_deaf = True
    gizmo["gc_generate"].execute()
    wait_for(app, lambda: gizmo["gc_job"].value() == "job2")
    from gencomp_nuke import callbacks

    gizmo["gc_cancel"].execute()
    identity = gizmo["gc_id"].value()
    app.process_events(lambda: callbacks._session().run_of(identity) is None, timeout_s=2)
    assert server.cancelled == ["job2"]
    assert (status(gizmo), node.state_of(gizmo)) == ("Plays v001, frames 1001-1004.", node.IDLE)
    assert [p.name for p in Path(gizmo["gc_folder"].evaluate()).parent.iterdir()] == ["v001"]


def test_cancelling_nukes_own_progress_bar_cancels_the_job(app, server, comp):
    gizmo = comp(app)
    gizmo["gc_files"].setValue(False)
    app.cancel_render_after = 2
    press(app, gizmo)
    assert server.jobs == {}
    assert gizmo["gc_folder"].evaluate() == ""
    assert gizmo["tile_color"].value() == 0


def test_frames_that_the_plate_does_not_have_are_named(app, server, comp):
    gizmo = comp(app)
    gizmo["gc_range"].setValue("custom")
    gizmo["gc_first"].setValue(1003)
    gizmo["gc_last"].setValue(1006)
    assert asking.ask(gizmo).notes == (
        "The plate has frames 1001-1004; beyond them, up to 1006, what Nuke shows there was taken.",
    )
    gizmo["gc_last"].setValue(1004)
    assert asking.ask(gizmo).notes == ()


def test_progress_is_on_the_node_while_the_job_runs(app, server, comp):
    gizmo = comp(app)
    server.goes_on.clear()
    gizmo["gc_generate"].execute()
    wait_for(app, lambda: status(gizmo).startswith("Solve") and gizmo["gc_job"].value())
    assert status(gizmo) == "Solve: 1 of 3, about 65 s left."
    assert gizmo["gc_note"].value() == "solve 1/3"
    assert gizmo["gc_job"].value() == "job1"
    server.goes_on.set()
    wait_for(app, lambda: status(gizmo).startswith("Plays"))


def test_the_place_in_the_servers_queue_is_on_the_node(app, server, comp):
    gizmo = comp(app)
    server.place = 3
    gizmo["gc_generate"].execute()
    wait_for(app, lambda: gizmo["gc_note"].value() == "queued")
    assert status(gizmo) == "In the server's queue, place 3."
    gizmo["gc_cancel"].execute()
    wait_for(app, lambda: server.cancelled == ["job1"])


def test_a_server_of_another_protocol_is_said_with_both_versions_and_what_to_do(app, server, comp):
    server.turns_away = VersionMismatch(
        "The client speaks protocol 1.1, the server 2.0.",
        hint="Install the same release of gencomp on both sides.",
    )
    gizmo = comp(app)
    press(app, gizmo)
    assert status(gizmo) == (
        "The client speaks protocol 1.1, the server 2.0. "
        "Install the same release of gencomp on both sides."
    )
    assert len(server.hellos) == 1
    assert app.rendered == []


def test_a_warning_of_the_server_stays_on_the_node(app, server, comp):
    server.warns = ["Frame 1002 of 'plate' has 3 samples that are not numbers."]
    gizmo = comp(app)
    press(app, gizmo)
    says = "Plays v001, frames 1001-1004. Note: Frame 1002 of 'plate' has 3 samples that are not "
    assert status(gizmo) == says + "numbers."


def test_a_warning_is_still_on_the_node_after_the_script_was_opened_again(
    app, server, comp, tmp_path
):
    import nuke

    server.warns = ["It is late."]
    press(app, comp(app))
    app.save()
    nuke.scriptOpen(str(tmp_path / "comp.nk"))
    assert status(nuke.toNode("Omnimatte1")) == ("Plays v001, frames 1001-1004. Note: It is late.")


def test_weights_that_load_are_said_in_percent(app, server, comp):
    server.progress = ("loading weights", 40, 100, None)
    gizmo = comp(app)
    server.goes_on.clear()
    gizmo["gc_generate"].execute()
    wait_for(app, lambda: status(gizmo).startswith("Loading"))
    assert status(gizmo) == "Loading weights 40 %."
    assert gizmo["gc_note"].value() == "loading weights 40 %"
    server.goes_on.set()
    wait_for(app, lambda: status(gizmo).startswith("Plays"))


def test_one_generate_is_one_undo_step(app, server, comp):
    gizmo = comp(app)
    press(app, gizmo)
    assert app.undo_steps == ["Omnimatte1 result"]


@pytest.mark.fault("F26")
@pytest.mark.fault("F44")
def test_pressing_generate_twice_makes_one_job(app, server, comp):
    gizmo = comp(app)
    server.goes_on.clear()
    gizmo["gc_generate"].execute()
    gizmo["gc_generate"].execute()
    assert status(gizmo) == "Looking for a server."
    wait_for(app, server.is_running_job.is_set)
    server.goes_on.set()
    wait_for(app, lambda: status(gizmo).startswith("Plays"))
    assert list(server.jobs) == ["job1"]


def test_two_nodes_take_turns_and_both_get_their_result(app, server, comp):
    import nuke

    first = comp(app)
    second = nuke.createNode("Omnimatte")
    for index in range(3):
        second.setInput(index, first.input(index))
    second["gc_name1"].setValue("a")
    second["gc_name2"].setValue("b")
    first["gc_generate"].execute()
    second["gc_generate"].execute()
    assert status(second) == "Waiting for another node of this session."
    wait_for(app, lambda: all(status(n).startswith("Plays") for n in (first, second)))
    assert first["gc_folder"].evaluate() != second["gc_folder"].evaluate()


@pytest.mark.fault("F43")
def test_a_copied_node_plays_the_result_and_gets_a_folder_of_its_own(app, server, comp):
    first = comp(app)
    press(app, first)
    second = app.paste(app.copy([first]))[0]
    assert second["gc_id"].value() not in ("", first["gc_id"].value())
    assert second["gc_folder"].evaluate() == first["gc_folder"].evaluate()


@pytest.mark.fault("F43")
def test_a_node_that_is_deleted_meanwhile_leaves_its_result_on_disk(app, server, comp, tmp_path):
    import nuke
    from gencomp_nuke import callbacks

    gizmo = comp(app)
    identity = gizmo["gc_id"].value()
    server.goes_on.clear()
    gizmo["gc_generate"].execute()
    wait_for(app, server.is_running_job.is_set)
    nuke.delete(gizmo)
    server.goes_on.set()
    wait_for(app, lambda: callbacks._session().run_of(identity) is None)
    assert len(list(tmp_path.glob("gencomp/comp/*/v001/background/*.exr"))) == 4


@pytest.mark.fault("F43")
def test_a_node_that_is_renamed_meanwhile_gets_its_result_and_the_next_of_its_name_does_not(
    app, server, comp
):
    import nuke

    gizmo = comp(app)
    server.goes_on.clear()
    gizmo["gc_generate"].execute()
    wait_for(app, server.is_running_job.is_set)
    name = gizmo.name()
    gizmo["name"].setValue("Renamed")
    other = nuke.createNode("Omnimatte")
    other["name"].setValue(name)
    server.goes_on.set()
    wait_for(app, lambda: status(gizmo).startswith("Plays"))
    assert nuke.toNode(name) is not None
    assert not status(other).startswith("Plays")
    assert other["gc_folder"].evaluate() != gizmo["gc_folder"].evaluate()


@pytest.mark.fault("F43")
def test_a_copy_made_while_the_job_runs_is_a_node_without_it(app, server, comp, tmp_path):
    gizmo = comp(app)
    server.goes_on.clear()
    gizmo["gc_generate"].execute()
    wait_for(app, server.is_running_job.is_set)
    copy = app.paste(app.copy([gizmo]))[0]
    server.goes_on.set()
    wait_for(app, lambda: status(gizmo).startswith("Plays"))
    assert copy["gc_id"].value() not in ("", gizmo["gc_id"].value())
    assert not status(copy).startswith("Plays")
    assert not (copy["gc_folder"].evaluate() or "").strip()
    assert list(server.jobs) == ["job1"]
    # One result in one place, and nothing half-made beside it.
    assert [path.name for path in tmp_path.glob("gencomp/comp/*/*")] == ["v001"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda g: g.setInput(0, None),
            "Omnimatte1 has no plate. Connect the plate to its pipe Plate.",
        ),
        (
            lambda g: (g.setInput(1, None), g.setInput(7, None)),
            "Omnimatte1 has no matte. Connect the matte to its pipe Matte1.",
        ),
        (
            lambda g: g["gc_name1"].setValue("2nd"),
            "The matte name '2nd' cannot be a layer in Nuke. "
            "Use a letter first, then letters, digits or _, at most 32 in all.",
        ),
        (
            lambda g: g["gc_cache"].setValue("here"),
            "The cache folder of Omnimatte1 is 'here', which is not a whole path. "
            "Start it with / or with [file dirname [value root.name]].",
        ),
    ],
)
def test_what_cannot_be_asked_is_said_on_the_node(app, comp, change, sentence):
    gizmo = comp(app)
    change(gizmo)
    app.undo_steps.clear()
    gizmo["gc_generate"].execute()
    assert status(gizmo) == sentence
    assert gizmo["tile_color"].value() == 0x8F2020FF
    assert app.undo_steps == []


@pytest.mark.fault("F44")
def test_when_no_server_can_be_had_the_node_says_how_to_get_one(app, comp, monkeypatch):
    monkeypatch.setenv("GENCOMP_SERVER_COMMAND", "there-is-no-such-command")
    gizmo = comp(app)
    press(app, gizmo)
    assert status(gizmo) == (
        "No server runs, and 'there-is-no-such-command' cannot be started "
        "(No such file or directory). Name the command in GENCOMP_SERVER_COMMAND, "
        "or start 'gencomp serve' by hand."
    )


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "The disk of the cache folder {} is full."),
        (errno.EROFS, "(Read-only file system)"),
    ],
    ids=["full", "read-only"],
)
def test_a_cache_that_takes_no_folder_is_said_with_why_before_anything_is_rendered(
    app, server, comp, tmp_path, monkeypatch, number, words
):
    made = Path.mkdir

    def mkdir(path, *args, **kwargs):
        if path.name.endswith(".part"):
            raise OSError(number, os.strerror(number))
        made(path, *args, **kwargs)

    gizmo = comp(app)
    monkeypatch.setattr(Path, "mkdir", mkdir)
    press(app, gizmo)
    cache = next((tmp_path / "gencomp/comp").iterdir())
    said = gizmo["gc_status"].value().replace("\n", " ")
    assert words.format(cache) in " ".join(said.split())
    assert ("delete versions" in said) == (number == errno.ENOSPC)
    assert app.rendered == []


@contextlib.contextmanager
def tunnel(address):
    """Let a port of this machine lead to an address, as ``ssh -L`` does; yield its address."""
    host, port = address.removeprefix("tcp://").split(":")
    door = socket.create_server(("127.0.0.1", 0))
    ends = []

    def pass_on(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)

    def listen():
        with contextlib.suppress(OSError):
            while True:
                near, far = door.accept()[0], socket.create_connection((host, int(port)))
                ends.extend((near, far))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=pass_on, args=pair, daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()
    yield f"tcp://127.0.0.1:{door.getsockname()[1]}"
    for end in (door, *ends):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()


def test_a_server_named_on_the_node_is_used_through_a_tunnel_and_not_the_one_here(
    app, server, shot, comp, tmp_path, monkeypatch
):
    secret = tmp_path / "secret of the other machine"
    secret.touch(mode=0o600)
    secret.write_text(SECRET, encoding="utf-8")
    monkeypatch.setenv("GENCOMP_SECRET_FILE", str(secret))
    gizmo = comp(app)
    with FakeServer(shot / "layers") as elsewhere, tunnel(elsewhere.address) as near:
        gizmo["gc_server"].setValue(near)
        press(app, gizmo)
        assert status(gizmo) == "Plays v001, frames 1001-1004."
        assert (list(elsewhere.jobs), list(server.jobs)) == (["job1"], [])
        sent = elsewhere.jobs["job1"].pictures
    assert len(sent) == 12
    assert not [name for name in (str(tmp_path), str(shot)) if name in repr(elsewhere.requests)]


@pytest.mark.fault("F44")
def test_nothing_of_ours_touches_nuke_from_another_thread(app):
    failures = []

    def touch():
        import nuke

        try:
            nuke.root().name()
        except RuntimeError as error:
            failures.append(str(error))

    thread = threading.Thread(target=touch)
    thread.start()
    thread.join()
    assert failures == ["'name' was touched outside Nuke's main thread"]


def test_split_effects_and_the_residual_are_in_the_stream_too(app, shot, home, comp, tmp_path):
    folder = tmp_path / "more"
    shutil.copytree(shot / "layers", folder)
    for layer in ("a_object", "a_effects", "b_object", "b_effects", "residual"):
        shutil.copytree(shot / "layers" / "a", folder / layer)
        for path in sorted((folder / layer).iterdir()):
            path.rename(path.with_name(path.name.replace("a.", f"{layer}.")))
    gizmo = comp(app)
    with FakeServer(folder, home):
        press(app, gizmo)
    truth = reading(app, shot, "layers/a/a")
    for layer in ("a_object", "a_effects", "residual"):
        named = [f"{layer}.{part}" for part in ("red", "green", "blue", "alpha")]
        assert app.pixels.compare(gizmo, truth, 1002, named, RGBA)["differing"] == 0
    gizmo["gc_output"].setValue("recomposed")
    # The plate is 0.375 there (0.25 over half of 0.25), and the residual adds 0.25.
    assert gizmo.sample("rgba.red", 16, 48 - 16, frame=1002) == 0.375 + 0.25


def test_a_node_that_was_saved_before_gizmos_said_what_they_are_still_generates(
    app, server, shot, tmp_path
):
    import nuke

    text = (Path(__file__).parent / "older" / "Omnimatte.gizmo").read_text(encoding="utf-8")
    told = ("gc_pipes", "gc_needs", "gc_layers", "gc_outputs", "gc_coordinates", "gc_hint")
    kept = [line for line in text.splitlines() if not line.lstrip(" ").startswith(told)]
    kept = [
        line for line in kept if not line.startswith(tuple(f" addUserKnob {{1 {t}" for t in told))
    ]
    app.save(tmp_path / "old.nk")
    app.paste("\n".join(kept))
    gizmo = nuke.toNode("Omnimatte1")
    assert "gc_pipes" not in gizmo.knobs()
    gizmo.setInput(0, reading(app, shot, "plate/plate"))
    gizmo.setInput(2, reading(app, shot, "matte_a/matte_a"))
    gizmo["gc_name2"].setValue("a")
    press(app, gizmo)
    assert status(gizmo) == "Plays v001, frames 1001-1004."
    assert gizmo.sample("a.alpha", 16, 48 - 16, frame=1002) == 0.5
    assert gizmo["gc_output"].values()[:4] == ["plate", "background", "object1", "a"]


def test_the_order_knob_decides_what_lies_in_front_in_recomposed(app, server, comp):
    gizmo = comp(app)
    gizmo["order"].setValue("b, a")
    press(app, gizmo)
    assert gizmo.node("Over_2").input(0).name() == "Over_1"
    assert gizmo.node("Over_2").input(1).name() == "Layer_2"
    older = gizmo["gc_folder"].evaluate()
    gizmo["order"].setValue("")
    press(app, gizmo)
    assert gizmo.node("Over_1").input(0).name() == "Over_2"
    assert gizmo.node("Add_residual").input(0).name() == "Over_1"
    gizmo["gc_folder"].setValue(older)
    assert gizmo.node("Add_residual").input(0).name() == "Over_2"


def test_a_result_of_fewer_objects_leaves_no_layer_of_the_last_one(app, server, comp):
    gizmo = comp(app)
    press(app, gizmo)
    gizmo.setInput(7, None)
    shutil.rmtree(gizmo["gc_folder"].evaluate() + "/b")
    server.folder, kept = server.folder.parent / "one", server.folder
    shutil.copytree(kept, server.folder, ignore=shutil.ignore_patterns("b"))
    press(app, gizmo)
    assert gizmo["gc_has2"].value() is False
    assert "b.red" not in gizmo.channels()
    assert gizmo["gc_output"].values()[:4] == ["plate", "background", "a", "object2"]


@pytest.mark.slow
def test_three_nukes_that_generate_in_the_same_second_start_one_server(
    app, comp, shot, home, tmp_path, monkeypatch
):
    import nuke

    count = tmp_path / "starts"
    words = [sys.executable, str(ROOT / "tests" / "fakes" / "server.py"), str(shot / "layers")]
    rooms = [str(ROOT / "protocol"), str(ROOT / "tests")]
    server = (
        f"import os, sys; open({str(count)!r}, 'a').write(f'{{os.getpid()}}\\n'); "
        f"sys.path[:0] = {rooms!r}; os.environ['PYTHONPATH'] = os.pathsep.join({rooms!r}); "
        f"os.execv({words[0]!r}, {words!r})"
    )
    command = " ".join(map(shlex.quote, [sys.executable, "-c", server]))
    monkeypatch.setenv("GENCOMP_SERVER_COMMAND", command)
    comp(app)
    app.save()
    scripts = [tmp_path / f"shot{n}.nk" for n in range(3)]
    for script in scripts:
        shutil.copy(tmp_path / "comp.nk", script)
    program = tmp_path / "generate.py"
    program.write_text(BATCH, encoding="utf-8")
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environ["NUKE_PATH"] = str(ROOT)
    terminal = str(ROOT / "tests" / "standin" / "terminal.py")
    try:
        pressed = [
            subprocess.Popen([sys.executable, terminal, "-t", str(program), str(script)],
                             env=environ)
            for script in scripts
        ]  # fmt: skip
        assert [one.wait(120) for one in pressed] == [0, 0, 0]
    finally:
        for line in count.read_text().splitlines() if count.exists() else ():
            os.kill(int(line), signal.SIGTERM)
    assert len(count.read_text().splitlines()) == 1
    for script in scripts:
        nuke.scriptOpen(str(script))
        gizmo = nuke.toNode("Omnimatte1")
        assert status(gizmo) == "Plays v001, frames 1001-1004."
        assert gizmo.sample("a.alpha", 16, 48 - 16, frame=1002) == 0.5
