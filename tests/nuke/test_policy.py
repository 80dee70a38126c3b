# SPDX-License-Identifier: Apache-2.0
"""What a render without an interface does where a node has no result, and where it looks for it."""

import json
import subprocess
import sys

import pytest

from fakes.shot import connect
from gencomp_nuke import bringing, policy, stock, upstream
from gencomp_nuke.policy import PolicyError
from gencomp_protocol.errors import MissingFrame

CURE = "Generate DynVFX1 first, or set its knob 'without a result' to compute."


@pytest.fixture
def write(terminal, read, tmp_path):
    """Return a Write over a DynVFX over a plate."""
    import nuke

    terminal.save(tmp_path / "comp.nk")
    gizmo = nuke.createNode("DynVFX")
    connect(gizmo, "Plate", read("plate/plate.%04d.exr"))
    made = nuke.createNode("Write", "name Final raw true create_directories true")
    made["file"].setValue((tmp_path / "out" / "final.%04d.exr").as_posix())
    made.setInput(0, gizmo)
    return made


def gizmo():
    import nuke

    return nuke.toNode("DynVFX1")


def result(folder, frames=(1001, 1002)):
    """Lay a result on disk and let the node play it."""
    files = folder / "result"
    files.mkdir(parents=True)
    for n in frames:
        (files / f"result.{n}.exr").touch()
    layers = {"result": {"frames": {str(n): {} for n in frames}}}
    (folder / "manifest.json").write_text(json.dumps({"layers": layers}), encoding="utf-8")
    gizmo()["gc_folder"].setValue(folder.as_posix())
    return files


def test_a_render_of_a_node_without_a_result_stops_in_one_line(terminal, write, tmp_path):
    import nuke

    with pytest.raises(RuntimeError):
        nuke.execute(write, 1001, 1001)
    assert terminal.printed == [f"Error: DynVFX1 has no result yet. {CURE}"]
    assert not (tmp_path / "out").exists()


def test_with_an_interface_nothing_stops(app, read, tmp_path):
    import nuke

    made = nuke.createNode("Write")
    made.setInput(0, nuke.createNode("DynVFX"))
    policy.before_render()
    assert app.printed == []


def test_a_node_that_shows_its_plate_needs_no_result(write):
    gizmo()["gc_output"].setValue("plate")
    assert stock.lacks(gizmo()) == ""


def test_a_missing_frame_of_a_layer_stops_it_and_is_named(write, tmp_path):
    files = result(tmp_path / "v001")
    policy.follow(gizmo())
    (files / "result.1002.exr").unlink()
    with pytest.raises(PolicyError) as stopped:
        policy.follow(gizmo())
    where = (
        f"DynVFX1 plays {tmp_path.as_posix()}/v001, where frame 1002 of layer 'result' is missing."
    )
    assert str(stopped.value) == f"{where} {CURE}"


@pytest.mark.parametrize("shown", ["black", "nearest frame"])
def test_where_a_missing_frame_is_black_or_the_nearest_a_line_tells_and_error_stops(
    terminal, write, tmp_path, shown
):
    files = result(tmp_path / "v001")
    gizmo()["gc_missing"].setValue(shown)
    policy.follow(gizmo())
    assert terminal.printed == []
    (files / "result.1002.exr").unlink()
    policy.follow(gizmo())
    what = "black" if shown == "black" else "the nearest frame"
    assert terminal.printed == [
        "DynVFX1 plays a result where frame 1002 of layer 'result' is missing: "
        f"{what} is shown there."
    ]
    gizmo()["gc_policy"].setValue("error")
    with pytest.raises(PolicyError, match="frame 1002 of layer 'result' is missing"):
        policy.follow(gizmo())


def test_no_result_stops_whatever_is_shown_at_missing_frames(write, tmp_path):
    gizmo()["gc_missing"].setValue("black")
    with pytest.raises(PolicyError, match="has no result yet"):
        policy.follow(gizmo())
    gizmo()["gc_folder"].setValue((tmp_path / "v007").as_posix())
    with pytest.raises(PolicyError, match="v007, where there is no result"):
        policy.follow(gizmo())


def test_a_folder_without_a_manifest_is_no_result(write, tmp_path):
    gizmo()["gc_folder"].setValue((tmp_path / "v007").as_posix())
    with pytest.raises(PolicyError, match="v007, where there is no result"):
        policy.follow(gizmo())


def test_error_stops_at_a_result_that_is_out_of_date_and_read_does_not(
    write, tmp_path, monkeypatch
):
    result(tmp_path / "v001")
    monkeypatch.setattr("gencomp_nuke.madefrom.changed", lambda gizmo: "knobs have changed")
    policy.follow(gizmo())
    gizmo()["gc_policy"].setValue("error")
    with pytest.raises(PolicyError, match="DynVFX1 is out of date: knobs have changed"):
        policy.follow(gizmo())


@pytest.fixture
def short(write, tmp_path):
    """Let the node play a result of 1001 and 1002 alone."""
    result(tmp_path / "v001")
    gizmo()["gc_result_first"].setValue(1001)
    gizmo()["gc_result_last"].setValue(1002)
    return write


def at(monkeypatch, write, frame):
    """Ask as Nuke does before a frame renders."""
    monkeypatch.setattr("nuke.thisNode", lambda: write)
    monkeypatch.setattr("nuke.frame", lambda: frame)
    policy.before_frame()


def test_a_frame_that_is_held_is_told_and_with_error_it_stops_there(terminal, short, monkeypatch):
    held = "DynVFX1 has frames 1001-1002: at 1003 it holds 1002."
    for frame in (1001, 1002, 1003):
        at(monkeypatch, short, frame)
    assert terminal.printed == [held]
    gizmo()["gc_policy"].setValue("error")
    at(monkeypatch, short, 1002)
    with pytest.raises(PolicyError):
        at(monkeypatch, short, 1003)
    assert terminal.printed == [held, f"Error: {held} {CURE}"]


def test_a_frame_that_is_black_is_told_and_with_error_it_stops_there(terminal, short, monkeypatch):
    gizmo()["gc_outside"].setValue("black")
    at(monkeypatch, short, 1000)
    assert terminal.printed == ["DynVFX1 has frames 1001-1002: at 1000 its layers are black."]
    gizmo()["gc_policy"].setValue("error")
    with pytest.raises(PolicyError, match="at 1000 its layers are black"):
        at(monkeypatch, short, 1000)


def test_behind_a_retime_no_frame_is_taken_for_a_held_one(terminal, short, monkeypatch):
    import nuke

    later = nuke.createNode("TimeOffset")
    later.setInput(0, gizmo())
    short.setInput(0, later)
    at(monkeypatch, short, 1003)
    assert terminal.printed == []
    later["disable"].setValue(True)
    at(monkeypatch, short, 1003)
    assert len(terminal.printed) == 1


def test_a_render_asks_before_each_frame(terminal, short, monkeypatch):
    import nuke

    monkeypatch.setattr(terminal.pixels, "write", lambda *words: None)
    nuke.execute(short, 1002, 1004)
    assert [line.split(": at ")[1] for line in terminal.printed] == [
        "1003 it holds 1002.",
        "1004 it holds 1002.",
    ]


def test_other_frames_than_the_nodes_are_no_fault_of_a_result_that_has_those_that_render(
    short, monkeypatch
):
    gizmo()["gc_policy"].setValue("error")
    monkeypatch.setattr("gencomp_nuke.madefrom.changed", lambda gizmo: "frames have changed")
    policy.follow(gizmo())


def test_reading_needs_none_of_our_packages(write, tmp_path, monkeypatch):
    result(tmp_path / "v001")
    for name in ("gencomp_nuke.bringing", "gencomp_nuke.madefrom"):
        monkeypatch.setitem(sys.modules, name, None)
    policy.follow(gizmo())


def test_a_node_of_an_older_script_renders_as_ever(write, monkeypatch):
    known = {name: knob for name, knob in gizmo().knobs().items() if name != "gc_policy"}
    monkeypatch.setattr(type(gizmo()), "knobs", lambda node: known)
    policy.follow(gizmo())


def test_compute_asks_another_nuke_for_the_node_and_plays_what_it_made(write, monkeypatch):
    asked = []

    def bring(node, make, *, tell):
        asked.append(node.fullName())
        make(None)

    def run(words, **more):
        asked.append(words)
        return subprocess.CompletedProcess(words, 0, "")

    monkeypatch.setattr(bringing, "bring", bring)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("GENCOMP_BACKGROUND_NUKE", "/opt/nuke -t")
    gizmo()["gc_policy"].setValue("compute")
    with pytest.raises(PolicyError, match="has no result yet"):  # This bring brought nothing.
        policy.follow(gizmo())
    program, script = asked[1][2:4]
    assert (asked[0], asked[1][:2]) == ("DynVFX1", ["/opt/nuke", "-t"])
    assert program.endswith("gencomp_nuke/batch.py")
    assert script.endswith("/comp.nk")
    assert asked[1][4:] == ["--nodes=DynVFX1", "--policy=compute", "--locked"]


def test_what_the_other_nuke_said_last_is_in_the_line(write, monkeypatch):
    def run(words, **more):
        return subprocess.CompletedProcess(words, 1, "Nuke 15\n\nError: Matte 'a' is empty.\n")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(
        PolicyError, match=r"DynVFX1 could not be computed: Nuke 15 Error: Matte 'a' is empty\."
    ):
        policy._in_another_nuke(gizmo())


def test_why_nothing_can_be_computed_names_the_node(write, monkeypatch):
    def bring(*words, **more):
        raise MissingFrame("The plate lacks frame 1001.")

    monkeypatch.setattr(bringing, "bring", bring)
    gizmo()["gc_policy"].setValue("compute")
    with pytest.raises(PolicyError, match="DynVFX1: The plate lacks frame 1001"):
        policy.follow(gizmo())


# --- what lies above -----------------------------------------------------------------------------


def names(nodes):
    return [node.fullName() for node in upstream.ours_above(nodes)]


def test_what_others_depend_on_comes_first_and_each_once(terminal):
    import nuke

    first, second, third = (nuke.createNode("DynVFX") for _ in range(3))
    merge = nuke.createNode("Merge2")
    for index, node in enumerate((third, second, first)):
        merge.setInput(index, node)
    connect(second, "Plate", first)
    connect(third, "Plate", second)
    assert names([merge]) == ["DynVFX1", "DynVFX2", "DynVFX3"]
    assert [node.fullName() for node in upstream.all_ours()] == names([merge])


def test_what_is_disabled_or_not_switched_on_does_not_count(terminal):
    import nuke

    first, second = nuke.createNode("DynVFX"), nuke.createNode("DynVFX")
    switch = nuke.createNode("Switch")
    switch.setInput(0, first)
    switch.setInput(1, second)
    assert names([switch]) == ["DynVFX1"]
    switch["which"].setValue(1)
    assert names([switch]) == ["DynVFX2"]
    connect(second, "Plate", first)
    second["disable"].setValue(True)
    assert names([switch]) == ["DynVFX1"]


def test_groups_are_looked_into_and_out_of(terminal):
    import nuke

    outer = nuke.createNode("DynVFX")
    terminal.paste(
        "Group {\n name G\n inputs 0\n}\n Input {\n  inputs 0\n  name Input1\n }\n"
        " Blur {\n  name Inner\n }\n Output {\n  name Output1\n }\nend_group\n"
    )
    group = nuke.toNode("G")
    group.setInput(0, outer)
    dot = nuke.createNode("Dot")
    dot.setInput(0, group)
    assert names([dot]) == ["DynVFX1"]
