# SPDX-License-Identifier: Apache-2.0
"""Inputs as files: sent as they are, taken from an earlier rendering, or rendered."""

import os
import shlex
import sys
import time
from pathlib import Path

import pytest

from fakes.shot import FRAMES, connect, paint, press
from gencomp_nuke import asis, asking, inputs, mainthread, prefs
from gencomp_protocol.errors import BadPicture, Cancelled
from gencomp_protocol.frames import Format
from gencomp_protocol.request import InputHeader

ROOT = Path(__file__).resolve().parent.parent.parent


def ready(gizmo, tmp_path, **settings):
    return inputs.ready(gizmo, asking.ask(gizmo), tmp_path / "run", prefs.Prefs(**settings))


def between(gizmo, pipe, cls, knobs=""):
    """Put a node between a Read and a pipe."""
    import nuke

    number = int(gizmo.node(pipe)["number"].value())
    made = nuke.createNode(cls, knobs)
    made.setInput(0, gizmo.input(number))
    connect(gizmo, pipe, made)
    return made


def test_a_raw_read_is_sent_from_its_own_files(app, comp, shot, tmp_path):
    files = ready(comp(app), tmp_path)
    assert files["plate"] == {n: shot / f"plate/plate.{n}.exr" for n in FRAMES}
    assert files["matte.a"][1002] == shot / "matte_a/matte_a.1002.exr"
    assert app.rendered == []


def test_an_inverted_matte_is_not_sent_as_it_is_and_off_again_it_is(app, comp, shot, tmp_path):
    gizmo = comp(app)
    gizmo["gc_invert1"].setValue(True)
    files = ready(gizmo, tmp_path)
    assert "inputs" in files["matte.a"][1002].parts
    assert files["matte.b"][1002] == shot / "matte_b/matte_b.1002.exr"
    assert len(app.rendered) == 4
    read = read_of(files["matte.a"][1002])
    assert [read.sample("rgba.alpha", *place) for place in ((10, 38), (60, 2))] == [0.0, 1.0]
    gizmo["gc_invert1"].setValue(False)
    assert ready(gizmo, tmp_path)["matte.a"][1002] == shot / "matte_a/matte_a.1002.exr"
    assert len(app.rendered) == 4


def test_a_matte_that_is_inverted_at_some_frames_is_rendered(app, comp, tmp_path):
    gizmo = comp(app)
    gizmo["gc_invert1"].setAnimated()
    gizmo["gc_invert1"].setValueAt(0, 1003)
    gizmo["gc_invert1"].setValueAt(1, 1004)
    files = ready(gizmo, tmp_path)["matte.a"]
    found = [read_of(files[n]).sample("rgba.alpha", 10, 38) for n in (1003, 1004)]
    assert found == [1.0, 0.0]


def test_an_inverted_rendering_is_never_taken_for_the_other(app, comp, tmp_path):
    gizmo = comp(app)
    gizmo["gc_files"].setValue(False)
    plain = ready(gizmo, tmp_path)
    gizmo["gc_invert2"].setValue(True)
    inverted = ready(gizmo, tmp_path)
    assert inverted["matte.a"] == plain["matte.a"]
    assert not set(inverted["matte.b"].values()) & set(plain["matte.b"].values())
    assert len(app.rendered) == 12 + 4


def read_of(path):
    import nuke

    made = nuke.createNode("Read", "raw true first 1001 last 1001")
    made["file"].setValue(path.as_posix())
    return made


def test_where_the_artist_says_so_everything_is_rendered(app, comp, tmp_path):
    gizmo = comp(app)
    gizmo["gc_files"].setValue(False)
    files = ready(gizmo, tmp_path)
    assert all("inputs" in path.parts for path in files["plate"].values())
    assert len(app.rendered) == 12


# --- which files are sent as they are -------------------------------------------------------------


@pytest.fixture
def asked(app, tmp_path, shot):
    """Return a Read, a group of an Input and a Write under it, and a function that asks."""
    import nuke

    text = "Group {\n inputs 0\n name Box\n}\n Input {\n  inputs 0\n  name Plate\n }\n"
    text += " Write {\n  channels rgb\n  name Write_plate\n }\nend_group\n"
    (tmp_path / "box.nk").write_text(text, encoding="utf-8")
    nuke.nodePaste((tmp_path / "box.nk").as_posix())
    box = nuke.toNode("Box")
    read = nuke.createNode("Read", "name plate first 1001 last 1004 raw true")
    read["file"].setValue(f"{shot.as_posix()}/plate/plate.%04d.exr")
    box.setInput(0, read)

    def files(frames=FRAMES):
        header = InputHeader("plate", tuple(frames), format=Format(64, 48))
        steps = asis.files_of(box, asking.Pipe(header, "plate", "Write_plate"), "main")
        return mainthread.through(steps)

    return box, read, files


@pytest.mark.parametrize(
    ("cls", "knobs", "passes"),
    [
        ("Dot", "", True),
        ("NoOp", "", True),
        ("Multiply", "value 2 disable true", True),
        ("Multiply", "value 2", False),
        ("TimeOffset", "time_offset 0", False),
    ],
)
def test_only_what_passes_may_lie_between(asked, cls, knobs, passes):
    import nuke

    box, read, files = asked
    made = nuke.createNode(cls, knobs)
    made.setInput(0, read)
    box.setInput(0, made)
    assert (files() is not None) is passes


@pytest.mark.parametrize(
    ("knobs", "passes"),
    [
        ({}, True),
        ({"raw": False, "colorspace": "linear"}, True),
        ({"raw": False, "colorspace": "default (linear)"}, True),
        ({"raw": False, "colorspace": "sRGB"}, False),
        ({"raw": False}, False),
        ({"frame_mode": "offset", "frame": "-1"}, False),
        ({"frame_mode": "start at", "frame": "1001"}, False),
        ({"frame": "frame*2"}, False),
        ({"disable": True}, False),
        ({"last": 1003}, False),
        ({"file": "/no/such/plate.%04d.exr"}, False),
        ({"file": "/no/such/%V/plate.%04d.exr"}, False),
    ],
)
def test_a_read_that_converts_or_moves_frames_or_lacks_one_is_rendered(asked, knobs, passes):
    _, read, files = asked
    for name, value in knobs.items():
        read[name].setValue(value)
    assert (files() is not None) is passes


def test_one_file_for_all_frames_is_rendered(asked, shot):
    _, read, files = asked
    read["file"].setValue(f"{shot.as_posix()}/plate/plate.1001.exr")
    assert files() is None


def test_in_a_managed_script_only_the_working_space_is_linear(asked):
    import nuke

    _, read, files = asked
    nuke.root()["colorManagement"].setValue("OCIO")
    nuke.root()["workingSpaceLUT"].setValue("scene_linear (ACES - ACEScg)")
    read["raw"].setValue(False)
    found = []
    for space in ("ACES - ACEScg", "scene_linear (ACES - ACEScg)", "linear", "Linear Rec.709"):
        read["colorspace"].setValue(space)
        found.append(files() is not None)
    assert found == [True, True, False, False]


@pytest.mark.parametrize(
    ("channels", "size", "passes"),
    [("RGB", (64, 48), True), ("RG", (64, 48), False), ("RGB", (32, 48), False)],
)
def test_a_file_without_the_channels_or_of_another_format_is_rendered(
    asked, tmp_path, channels, size, passes
):
    _, read, files = asked
    paint(tmp_path / "other.1001.exr", channels, [], size=size)
    read["file"].setValue((tmp_path / "other.%04d.exr").as_posix())
    assert (files((1001,)) is not None) is passes


def test_what_is_no_exr_is_rendered(asked, tmp_path):
    _, read, files = asked
    (tmp_path / "other.1001.exr").write_bytes(b"P6 64 48 255")
    read["file"].setValue((tmp_path / "other.%04d.exr").as_posix())
    assert files((1001,)) is None


def test_a_matte_that_is_not_the_alpha_is_rendered_and_one_that_is_equals_it(app, comp, tmp_path):
    import nuke

    gizmo = comp(app)
    gizmo["gc_channel2"].setValue("rgba.green")
    own = ready(gizmo, tmp_path)
    assert "inputs" in own["matte.b"][1001].parts
    short(gizmo)
    made = ready(gizmo, tmp_path)
    reads = []
    for path in (own["matte.a"][1001], made["matte.a"][1001]):
        reads.append(nuke.createNode("Read", "raw true first 1001 last 1001"))
        reads[-1]["file"].setValue(path.as_posix())
    assert "inputs" not in own["matte.a"][1001].parts
    assert app.pixels.compare(*reads, 1001, ("rgba.alpha",))["differing"] == 0


# --- rendered before -----------------------------------------------------------------------------


def short(gizmo, last=1001):
    """Let a node render its plate and one matte, from 1001."""
    gizmo["gc_files"].setValue(False)
    gizmo["gc_range"].setValue("custom")
    gizmo["gc_first"].setValue(1001)
    gizmo["gc_last"].setValue(last)
    connect(gizmo, "Matte2", None)
    return gizmo


def test_nothing_unchanged_is_rendered_twice(app, comp, tmp_path):
    gizmo = short(comp(app), 1002)
    first = ready(gizmo, tmp_path)
    app.rendered.clear()
    assert ready(gizmo, tmp_path) == first
    assert app.rendered == []


def test_one_input_that_changes_is_the_one_that_is_rendered(app, comp, tmp_path):
    gizmo = short(comp(app), 1002)
    grade = between(gizmo, "Plate", "Multiply", "value 2")
    ready(gizmo, tmp_path)
    app.rendered.clear()
    grade["value"].setValue(3)
    ready(gizmo, tmp_path)
    assert app.rendered == [(f"{gizmo.name()}.Write_plate", n) for n in (1001, 1002)]


def test_a_longer_range_renders_the_new_frames_alone(app, comp, tmp_path):
    gizmo = short(comp(app), 1002)
    ready(gizmo, tmp_path)
    app.rendered.clear()
    gizmo["gc_last"].setValue(1003)
    ready(gizmo, tmp_path)
    assert {frame for _, frame in app.rendered} == {1003}


def test_the_oldest_renderings_go_and_those_of_this_run_stay(app, comp, tmp_path):
    gizmo = short(comp(app))
    grade = between(gizmo, "Plate", "Multiply", "value 2")
    kept = []
    for value in (2, 3, 4):
        grade["value"].setValue(value)
        files = ready(gizmo, tmp_path)["plate"]
        kept.append(list(files.values()))
        for path in kept[-1]:
            os.utime(path, (value, value))
    files = ready(gizmo, tmp_path, inputs_keep_gb=0)
    assert [sum(p.exists() for p in paths) for paths in kept] == [0, 0, 1]
    assert all(p.exists() for frames in files.values() for p in frames.values())


def test_a_rendering_that_was_cancelled_leaves_nothing_behind(app, comp, tmp_path):
    gizmo = short(comp(app), 1003)
    app.cancel_render_after = 2
    with pytest.raises(Cancelled):
        ready(gizmo, tmp_path)
    assert list(tmp_path.rglob("inputs/*/*.exr")) == []


def test_a_plate_that_is_sent_as_it_is_gives_the_same_result(app, server, comp):
    gizmo = comp(app)
    press(app, gizmo)
    assert gizmo["gc_folder"].evaluate().endswith("/v001")
    assert app.rendered == []


def test_looking_at_a_long_plate_shows_a_bar_that_can_be_cancelled(app, monkeypatch):
    import nuke

    pressed = []

    class Bar:
        def __init__(self, title):
            pressed.append(title)

        def setProgress(self, value):
            pressed.append(value)

        def isCancelled(self):
            return 2 in pressed

    monkeypatch.setattr(nuke, "ProgressTask", Bar)
    tick = inputs._bar(100)
    tick()
    tick()
    with pytest.raises(Cancelled):
        tick()
    assert pressed == ["gencomp: looking at the inputs", 1, 2]


def test_files_are_looked_at_a_frame_at_a_time_and_in_between_the_proxy_is_the_artists(app, comp):
    import nuke

    gizmo = comp(app)
    nuke.root()["proxy"].setValue(True)
    steps = inputs.collecting(gizmo, asking.ask(gizmo), gizmo, prefs.Prefs())
    seen = [nuke.root()["proxy"].value() for _ in steps]
    assert len(seen) >= len(FRAMES)
    assert set(seen) == {True}


def test_a_long_look_lets_the_main_thread_go_in_between():
    ticks, calls = iter(range(100)), []

    def steps():
        for _ in range(5):
            time.sleep(mainthread._SLICE_S)
            yield
        return next(ticks)

    main = mainthread.MainThread(lambda fn: (calls.append(fn), fn()))
    assert main.go_through(steps) == 0
    assert len(calls) >= 5


# --- in a background Nuke ------------------------------------------------------------------------


@pytest.fixture
def behind(monkeypatch):
    """Return the settings with the stand-in's terminal as the background Nuke."""
    monkeypatch.setenv("NUKE_PATH", str(ROOT))
    words = (sys.executable, str(ROOT / "tests/standin/terminal.py"), "-t")
    return {"background_nuke": " ".join(map(shlex.quote, words))}


def supply(gizmo, tmp_path, settings):
    short(gizmo)
    gizmo["gc_inputs"].setValue("in a background Nuke")
    ask = asking.ask(gizmo)
    return inputs.collect(gizmo, ask, tmp_path / "run", prefs.Prefs(**settings))


@pytest.mark.slow
def test_a_background_nuke_renders_a_copy_of_the_script(app, comp, tmp_path, behind):
    import nuke

    gizmo = comp(app)
    between(gizmo, "Plate", "Multiply", "value 2")
    before = nuke.modified()
    collected = supply(gizmo, tmp_path, behind)
    assert nuke.root().name() == (tmp_path / "comp.nk").as_posix()
    assert nuke.modified() == before
    said = []
    files = collected.files(say=said.append)
    assert app.rendered == []
    assert sorted(files["plate"]) == [1001]
    assert all(path.is_file() for frames in files.values() for path in frames.values())
    assert "takes the licence of the command in the settings" in said[0]
    assert [path.name for path in tmp_path.glob("*.nk")] == ["comp.nk"]


@pytest.mark.slow
def test_what_a_background_nuke_cannot_render_is_said_in_its_words(app, comp, tmp_path, behind):
    gizmo = comp(app)
    collected = supply(gizmo, tmp_path, behind)
    collected.rendering.copy.write_text("Root {\n}\n", encoding="utf-8")
    with pytest.raises(BadPicture, match="background Nuke could not render"):
        collected.files()
    assert not collected.rendering.copy.exists()


def test_a_background_nuke_that_is_not_there_is_named(app, comp, tmp_path):
    gizmo = comp(app)
    collected = supply(gizmo, tmp_path, {"background_nuke": "/no/such/Nuke -t"})
    with pytest.raises(BadPicture, match="/no/such/Nuke does not start"):
        collected.files()


def test_cancelling_ends_the_background_nuke(app, comp, tmp_path):
    gizmo = comp(app)
    waits = f"{shlex.quote(sys.executable)} -c 'import time; time.sleep(60)'"
    collected = supply(gizmo, tmp_path, {"background_nuke": waits})
    with pytest.raises(Cancelled):
        collected.files(cancelled=lambda: True)
    assert not collected.rendering.copy.exists()


def test_without_a_command_of_the_settings_a_render_licence_is_named(
    app, comp, tmp_path, monkeypatch
):
    import nuke

    monkeypatch.setattr(nuke, "EXE_PATH", "/opt/Nuke/Nuke15.1")
    rendering = supply(comp(app), tmp_path, {}).rendering
    rendering.copy.unlink()
    assert rendering.command[:2] == ("/opt/Nuke/Nuke15.1", "-t")
    assert rendering.licence == "a render licence"


def test_a_terminal_renders_here_whatever_the_knob_says(terminal, comp, tmp_path):
    gizmo = short(comp(terminal))
    gizmo["gc_inputs"].setValue("in a background Nuke")
    assert (
        inputs.collect(gizmo, asking.ask(gizmo), tmp_path / "run", prefs.Prefs()).rendering is None
    )
