# SPDX-License-Identifier: Apache-2.0
"""Takes: what is typed becomes jobs, one run of them, the pick, and the sheet."""

import sys
from pathlib import Path

import pytest

from fakes.shot import press
from gencomp_nuke import callbacks, takes
from gencomp_protocol.errors import BadKnob
from gencomp_protocol.frames import FrameRange

KNOBS = {"seed": 0, "prompt": "dust", "guidance": 6.0, "compiled": False, "quality": "final"}


def status(gizmo):
    return " ".join(gizmo["gc_status"].value().split())


def wait(app, gizmo):
    app.process_events(lambda: callbacks.running(gizmo) is None)


def asked(server):
    return [job.submit.request for job in server.jobs.values()]


# --- what is typed -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1-3", [{"seed": 1}, {"seed": 2}, {"seed": 3}]),
        ("7, 9", [{"seed": 7}, {"seed": 9}]),
        ("seed=3\n\n seed = 4 ", [{"seed": 3}, {"seed": 4}]),
        ("seed=3; guidance=8.5", [{"seed": 3, "guidance": 8.5}]),
        ("compiled=on", [{"compiled": True}]),
        ("prompt=dust; thick; seed=2", [{"prompt": "dust; thick", "seed": 2}]),
        ("smoke, at 3 = noon", [{"prompt": "smoke, at 3 = noon"}]),
        ("thick dust\nthin dust", [{"prompt": "thick dust"}, {"prompt": "thin dust"}]),
    ],
)
def test_a_line_is_a_take(text, wanted):
    assert takes.read(text, KNOBS) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" \n", "No takes are typed"),
        ("1-65", "65 takes"),
        ("sede=3", "names 'sede'"),
        ("seed=x", "sets 'seed' to what is no number"),
        ("compiled=maybe", "neither on nor off"),
        ("3--", "no list of seeds"),
    ],
)
def test_what_is_none_is_refused_by_its_line(text, words):
    with pytest.raises(BadKnob, match=words):
        takes.read(text, KNOBS)


def test_a_node_without_a_prompt_takes_no_words():
    with pytest.raises(BadKnob, match="'thick dust' is no knob"):
        takes.read("thick dust", {"seed": 0})


# --- a wedge -------------------------------------------------------------------------------------


def test_every_line_becomes_a_take_of_one_version_rendered_once(app, server, comp):
    gizmo = comp(app)
    gizmo["gc_files"].setValue(False)
    gizmo["gc_wedge"].setValue("5\nseed=6; order=b")
    gizmo["gc_run_wedge"].execute()
    wait(app, gizmo)
    assert [one.knobs["seed"] for one in asked(server)] == [5, 6]
    assert [one.knobs["order"] for one in asked(server)] == ["", "b"]
    assert len([frame for name, frame in app.rendered if name.endswith("plate")]) == 4
    assert status(gizmo) == "Plays v001 take01, frames 1001-1004."


def test_a_line_that_cannot_be_read_sends_nothing(app, server, comp):
    gizmo = comp(app)
    gizmo["gc_wedge"].setValue("sede=5")
    gizmo["gc_run_wedge"].execute()
    assert "names 'sede'" in status(gizmo)
    assert server.jobs == {}


def test_the_knob_plays_another_take_and_refuses_one_that_is_not_there(app, server, comp):
    gizmo = comp(app)
    gizmo["gc_wedge"].setValue("5-7")
    gizmo["gc_run_wedge"].execute()
    wait(app, gizmo)
    gizmo["gc_take"].setValue(3)
    assert status(gizmo) == "Plays v001 take03, frames 1001-1004."
    assert gizmo["gc_folder"].evaluate().endswith("/v001/take03")
    gizmo["gc_take"].setValue(9)
    assert "has no take 9; it has 1, 2, 3" in status(gizmo)
    assert gizmo["gc_folder"].evaluate().endswith("/v001/take03")


def test_promote_sets_the_knobs_of_the_take_in_one_undo_step_and_makes_it_whole(app, server, comp):
    gizmo = comp(app)
    gizmo["quality"].setValue("draft")
    gizmo["gc_wedge"].setValue("5-6")
    gizmo["gc_run_wedge"].execute()
    wait(app, gizmo)
    gizmo["gc_take"].setValue(2)
    app.undo_steps.clear()
    gizmo["gc_promote"].execute()
    wait(app, gizmo)
    assert (gizmo["seed"].value(), gizmo["quality"].value()) == (6, "final")
    assert app.undo_steps[0] == "Omnimatte1 take to final"
    assert asked(server)[-1].knobs["seed"] == 6
    assert status(gizmo) == "Plays v002, frames 1001-1004."


def test_without_a_result_there_is_nothing_to_promote_or_to_draw(app, server, comp):
    gizmo = comp(app)
    gizmo["gc_promote"].execute()
    assert "no take to promote" in status(gizmo)
    gizmo["gc_sheet"].execute()
    assert "no result to draw" in status(gizmo)


# --- a preview -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "playhead", "wanted"),
    [
        ((1001, 1100), 1050, "1042-1058"),
        ((1001, 1100), 1001, "1001-1017"),
        ((1001, 1100), 1100, "1084-1100"),
        ((1001, 1004), 1003, "1001-1004"),
        ((-3, 20), 0, "-3-13"),
    ],
)
def test_seventeen_frames_lie_around_the_playhead(frames, playhead, wanted):
    assert str(takes.around(FrameRange(*frames), playhead)) == str(FrameRange.parse(wanted))


def test_a_preview_is_a_draft_of_these_frames(app, server, comp):
    import nuke

    gizmo = comp(app)
    gizmo["gc_range"].setValue("custom")
    gizmo["gc_first"].setValue(1002)
    gizmo["gc_last"].setValue(1003)
    nuke.frame(1003)
    gizmo["gc_preview"].execute()
    wait(app, gizmo)
    (request,) = asked(server)
    assert (str(request.frames), request.knobs["quality"]) == ("1002-1003", "draft")
    assert gizmo["quality"].value() == "final"


def test_a_playhead_outside_is_said_before_anything_is_rendered(app, server, comp):
    import nuke

    gizmo = comp(app)
    nuke.frame(990)
    gizmo["gc_preview"].execute()
    assert "The playhead is at 990" in status(gizmo)
    assert (app.rendered, server.jobs) == ([], {})


@pytest.mark.parametrize(
    ("mode", "keys", "wanted"),
    [
        ("keyframes only", "1001,1010,1020", ("keyframes only", "1010")),
        ("keyframes only", "1001,1090", ("every frame", "")),
        ("every frame", "", ("every frame", "")),
        ("no mask", "1001", ("no mask", "")),
    ],
)
def test_keyframes_outside_a_preview_are_left_out(mode, keys, wanted):
    knobs = {"mask_frames": mode, "keyframes": keys, "seed": 0}
    found = takes.drafted_knobs(knobs, FrameRange(1005, 1017))
    assert (found["mask_frames"], found["keyframes"]) == wanted


# --- the sheet -----------------------------------------------------------------------------------


@pytest.fixture
def drawer(tmp_path, monkeypatch):
    """Put a command in gencomp's place that writes its words into the picture it is to draw."""
    script = tmp_path / "drawer.py"
    script.write_text(
        "import json, sys\n"
        "words = sys.argv[1:]\n"
        "if len(words) > 5: sys.exit('gencomp: too many')\n"
        "open(words[words.index('-o') + 1], 'w').write(json.dumps(words))\n"
    )
    monkeypatch.setenv("GENCOMP_COMMAND", f"{sys.executable} {script}")


def test_the_sheet_of_all_takes_is_shown_in_the_panel(app, server, comp, drawer, home):
    import json

    gizmo = comp(app)
    gizmo["gc_wedge"].setValue("5-6")
    gizmo["gc_run_wedge"].execute()
    wait(app, gizmo)
    gizmo["gc_sheet"].execute()
    app.process_events(lambda: "Drew" in status(gizmo))
    (picture,) = (home / "pictures").iterdir()
    words = json.loads(picture.read_text())
    assert [Path(word).name for word in words[:3]] == ["sheet", "take01", "take02"]
    assert f'<img src="{picture.as_posix()}"' in gizmo["gc_sheet_picture"].value()


def test_a_sheet_that_cannot_be_drawn_is_a_sentence(app, server, comp, drawer):
    gizmo = comp(app)
    gizmo["gc_wedge"].setValue("5-8")
    gizmo["gc_run_wedge"].execute()
    wait(app, gizmo)
    gizmo["gc_sheet"].execute()
    app.process_events(lambda: "cannot be drawn" in status(gizmo))
    assert status(gizmo) == "The picture cannot be drawn: gencomp: too many"


# --- two of them ---------------------------------------------------------------------------------


def test_the_take_before_is_compared_with_and_the_knobs_that_differ_are_named(app, server, comp):
    gizmo = comp(app)
    gizmo["gc_wedge"].setValue("5-6")
    gizmo["gc_run_wedge"].execute()
    wait(app, gizmo)
    gizmo["gc_take"].setValue(2)
    gizmo["gc_compare_pick"].execute()
    assert gizmo["gc_compare_folder"].value().endswith("/v001/take01")
    assert gizmo["gc_view"].value() == "compare"
    said = " ".join(gizmo["gc_compare_knobs"].value().split())
    assert said == "v001 take02 and v001 take01: seed 6, there 5."


def test_the_version_before_is_the_next_whole_one(app, server, comp):
    gizmo = comp(app)
    press(app, gizmo)
    gizmo["gc_compare_pick"].execute()
    assert "no result before v001" in status(gizmo)
    press(app, gizmo)
    gizmo["gc_compare_pick"].execute()
    assert gizmo["gc_compare_folder"].value().endswith("/v001")
    said = " ".join(gizmo["gc_compare_knobs"].value().split())
    assert said == "v002 and v001: no knob differs."


def test_what_a_take_became_is_compared_with_that_take(app, server, comp):
    gizmo = comp(app)
    gizmo["gc_wedge"].setValue("5-7")
    gizmo["gc_run_wedge"].execute()
    wait(app, gizmo)
    gizmo["gc_take"].setValue(2)
    gizmo["gc_promote"].execute()
    wait(app, gizmo)
    gizmo["gc_compare_pick"].execute()
    assert gizmo["gc_compare_folder"].value().endswith("/v001/take02")


def test_a_button_that_can_do_nothing_says_so_on_its_tab_and_leaves_the_result_alone(
    app, server, comp
):
    gizmo = comp(app)
    press(app, gizmo)
    gizmo["gc_take"].setValue(3)
    gizmo["gc_version_pick"].setValues(["none"])
    gizmo["gc_delete"].execute()
    said = "No version is chosen. Choose one in the menu of versions."
    assert (gizmo["gc_status_cache"].value(), gizmo["gc_status_takes"].value()) == (said, said)
    assert (gizmo["gc_note"].value(), gizmo["tile_color"].value()) == ("v001", 0)
    gizmo["gc_run_wedge"].execute()
    assert gizmo["gc_status_takes"].value().startswith("No takes are typed.")
    assert (gizmo["gc_note"].value(), gizmo["tile_color"].value()) == ("failed", 0x8F2020FF)


def test_a_folder_without_a_result_is_said_beside_it(app, server, comp, tmp_path):
    gizmo = comp(app)
    press(app, gizmo)
    gizmo["gc_compare_folder"].setValue(tmp_path.as_posix())
    assert "There is no result in" in gizmo["gc_compare_knobs"].value()
