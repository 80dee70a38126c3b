# SPDX-License-Identifier: Apache-2.0
"""A result that is out of date: amber and in words, and well again when what changed goes back."""

import json
import threading

import pytest

from fakes.shot import connect, press
from gencomp_nuke import madefrom, node, stale
from gencomp_protocol.frames import FrameRange

FINE = "Plays v001, frames 1001-1004."
AMBER = 0xC8801FFF


def status(gizmo):
    return " ".join(gizmo["gc_status"].value().split())


@pytest.fixture
def played(app, tmp_path):
    """Return a node that plays a result of what it says and of what is connected."""
    import nuke

    app.save(tmp_path / "comp.nk")
    gizmo = nuke.createNode("DynVFX")
    connect(gizmo, "Plate", nuke.createNode("Read", "first 1001 last 1004 raw true"))
    play(gizmo, tmp_path / "v001")
    assert status(gizmo) == FINE
    return gizmo


def play(gizmo, folder):
    """Let a node play a result that is made from what it says now."""
    (folder / "result").mkdir(parents=True)
    for n in (1001, 1004):
        (folder / f"result/result.{n}.exr").touch()
    own = {"slots": {}, "order": [], "warnings": [], "key": madefrom.key_of(gizmo)}
    layers = {"result": {"frames": [1001, 1004]}}
    (folder / "manifest.json").write_text(
        json.dumps({"layers": layers, "node": own}), encoding="utf-8"
    )
    gizmo["gc_folder"].setValue(folder.as_posix())


def test_a_new_result_is_not_out_of_date_and_says_what_it_was_made_from(app, server, comp):
    gizmo = comp(app)
    press(app, gizmo)
    stale.check(gizmo)
    assert (status(gizmo), node.state_of(gizmo)) == (FINE, node.IDLE)
    assert gizmo["gc_key"].value() == madefrom.key_of(gizmo) != ""


def test_a_matte_that_is_inverted_turns_the_node_amber_and_off_again_it_is_well(played):
    played["gc_invert_target_matte"].setValue(True)
    assert status(played).startswith("Out of date: knobs have changed since.")
    assert node.state_of(played) == node.STALE
    played["gc_invert_target_matte"].setValue(False)
    assert (status(played), node.state_of(played)) == (FINE, node.IDLE)


def test_a_result_from_before_mattes_could_be_inverted_is_not_out_of_date(played, monkeypatch):
    every = type(played).knobs

    def knobs(node):
        return {n: knob for n, knob in every(node).items() if not n.startswith("gc_invert")}

    now = madefrom.key_of(played)
    monkeypatch.setattr(type(played), "knobs", knobs)
    assert "gc_invert_limit" not in played.knobs()
    assert madefrom.key_of(played) == now


def test_a_frame_that_is_gone_is_said_and_what_is_shown_there(played, tmp_path):
    (tmp_path / "v001/result/result.1004.exr").unlink()
    stale.loaded()
    gone = "where frame 1004 of layer 'result' is missing"
    assert status(played) == (
        f"Plays v001, {gone}, and viewer and render stop there. Bring it back, press Generate, or "
        "turn 'missing frames' on its tab Cache & Server."
    )
    assert (played["gc_note"].value(), node.state_of(played)) == ("frames missing", node.FAILED)
    played["gc_missing"].setValue("nearest frame")
    assert status(played) == (
        f"{FINE} Note: It is a result {gone}: the nearest frame is shown there, as 'missing "
        "frames' on its tab Cache & Server says."
    )
    assert node.state_of(played) == node.IDLE


def test_a_node_at_work_goes_on_saying_so_when_missing_frames_is_turned(played):
    node.show(played, "Rendering.", node.RUNNING)
    played["gc_missing"].setValue("black")
    assert (status(played), node.state_of(played)) == ("Rendering.", node.RUNNING)


def test_a_result_of_other_frames_than_the_nodes_is_out_of_date(played):
    """As a preview is, and what a farm made of a part of the range."""
    played["gc_key"].setValue(madefrom.key_of(played, FrameRange(1001, 1003)))
    assert madefrom.changed(played) == "frames have changed"
    played["gc_key"].setValue(madefrom.key_of(played, FrameRange(1001, 1004)))
    assert madefrom.changed(played) == ""


def test_a_turned_knob_turns_the_node_amber_and_turned_back_it_is_well(played):
    steps = played["steps"].value()
    played["steps"].setValue(steps + 1)
    assert status(played) == f"Out of date: knobs have changed since. {FINE}"
    assert played["tile_color"].value() == AMBER
    assert played["gc_note"].value() == "v001, out of date"
    played["steps"].setValue(steps)
    assert (status(played), played["tile_color"].value()) == (FINE, 0)


def test_several_changes_are_one_sentence(played):
    played["steps"].setValue(played["steps"].value() + 1)
    played.setInput(0, None)
    stale.check(played)
    assert status(played).startswith(
        "Out of date: knobs, frames and what is connected have changed since. Plays v001"
    )


@pytest.mark.parametrize(
    ("knob", "value"), [("gc_output", 1), ("label", "hero"), ("gc_cache", "/elsewhere")]
)
def test_a_knob_that_is_not_sent_changes_nothing(played, knob, value):
    played[knob].setValue(value)
    stale.check(played)
    assert status(played) == FINE


@pytest.mark.parametrize(
    ("gizmo", "knob", "value"),
    [
        ("DynVFX", "gc_range", "project"),
        ("Omnimatte", "gc_name1", "bird"),
        ("Omnimatte", "gc_channel1", "rgba.red"),
    ],
)
def test_frames_names_and_channels_count(app, gizmo, knob, value):
    import nuke

    made = nuke.createNode(gizmo)
    connect(made, "Plate", nuke.createNode("Read", "first 1001 last 1004"))
    before = madefrom.key_of(made)
    made[knob].setValue(value)
    assert madefrom.key_of(made) != before
    assert madefrom.counts(made, knob)


def test_something_else_connected_is_seen(played):
    import nuke

    connect(played, "Plate", nuke.createNode("Read", "first 1001 last 1004"))
    stale.check(played)
    assert status(played) == f"Out of date: what is connected has changed since. {FINE}"


def test_what_is_turned_above_the_node_is_seen_once_it_is_quiet(app, played):
    app.process_events(lambda: True)
    played.input(0)["before"].setValue("black")
    app.process_events(lambda: node.state_of(played) == node.STALE)
    assert "what is connected has changed" in status(played)


def test_however_often_something_is_turned_one_thread_waits_for_quiet(app, played, monkeypatch):
    monkeypatch.setattr(stale, "_QUIET_S", 3)
    started, real = [], threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda t: (started.append(t.name), real(t)))
    for frame in range(20):
        played.input(0)["first"].setValue(frame)
    assert started == ["gencomp quiet"]


def test_undoing_what_was_said_is_not_needed(app, played):
    app.undo_steps.clear()
    stale.check(played)
    played.input(0)["before"].setValue("black")
    app.undo_steps.clear()
    stale.check(played)
    assert app.undo_steps == []


def test_a_script_that_is_opened_says_that_its_result_is_out_of_date(app, played):
    import nuke

    played["steps"].setValue(played["steps"].value() + 1)
    name = played.name()
    nuke.scriptSave()
    nuke.scriptOpen(nuke.root().name())
    again = nuke.toNode(name)
    assert status(again) == f"Out of date: knobs have changed since. {FINE}"


def test_a_script_whose_result_was_not_moved_along_says_that_it_is_missing(app, played, tmp_path):
    import nuke

    name = played.name()
    played["gc_folder"].setValue("[file dirname [value root.name]]/v001")
    nuke.scriptSave()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "comp.nk").rename(tmp_path / "elsewhere/comp.nk")
    nuke.scriptOpen((tmp_path / "elsewhere/comp.nk").as_posix())
    assert status(nuke.toNode(name)) == (
        f"v001 is missing: {tmp_path.as_posix()}/elsewhere/v001 is not there. Bring it back, point "
        "result at it, or press Generate."
    )


def test_a_script_that_is_opened_as_it_was_is_not_out_of_date(app, played):
    import nuke

    name = played.name()
    nuke.scriptSave()
    nuke.scriptOpen(nuke.root().name())
    assert status(nuke.toNode(name)) == FINE


def test_playing_an_older_version_compares_with_that_version(played, tmp_path):
    steps = played["steps"].value()
    played["steps"].setValue(steps + 1)
    play(played, tmp_path / "v002")
    assert status(played) == "Plays v002, frames 1001-1004."
    played["gc_folder"].setValue((tmp_path / "v001").as_posix())
    assert status(played) == f"Out of date: knobs have changed since. {FINE}"
    played["steps"].setValue(steps)
    assert status(played) == FINE


def test_a_failure_is_not_painted_over(app, played):
    node.show(played, "It failed.", node.FAILED, "failed")
    played["steps"].setValue(played["steps"].value() + 1)
    assert (status(played), played["tile_color"].value()) == ("It failed.", 0x8F2020FF)


def test_a_result_from_before_there_were_keys_is_never_called_old(app, played):
    played["gc_key"].setValue("")
    played["steps"].setValue(played["steps"].value() + 1)
    stale.check(played)
    assert status(played) == FINE
