# SPDX-License-Identifier: Apache-2.0
"""Keyframes of a mask: the typed list, its keys in the dope sheet, and the buttons."""

import random

import pytest

from fakes.shot import connect
from gencomp_nuke import asking, hooks, keying
from gencomp_protocol.errors import BadKnob
from gencomp_protocol.frames import FrameRange

RANGE = "first 1001 last 1048"


# --- lists ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ((), ""),
        ((1001,), "1001"),
        ((1001, 1002), "1001,1002"),
        ((1001, 1002, 1003), "1001-1003"),
        ((1001, 1010, 1015, 1020), "1001,1010-1020x5"),
        ((-2, -1, 0, 7, 9), "-2-0,7,9"),
        ((1046, 1001, 1046), "1001,1046"),
    ],
)
def test_a_list_is_spelt_as_an_artist_types_it(frames, text):
    assert keying.spell_list(frames) == text


def test_every_list_is_read_back_as_it_was_spelt():
    chance = random.Random(7)
    for _ in range(200):
        frames = tuple(sorted(chance.sample(range(-20, 60), chance.randint(0, 12))))
        assert keying.read_list(keying.spell_list(frames)) == frames


def test_a_list_may_have_spaces_and_steps():
    assert keying.read_list(" 1001 1010-1020x5, 1010 ") == (1001, 1010, 1015, 1020)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1001,x", "Knob 'keyframes' is '1001,x': 'x' is not a frame range."),
        ("1001-101000", "Knob 'keyframes' is '1001-101000': It names 100000 frames."),
    ],
)
def test_a_list_that_cannot_be_meant_is_refused(text, says):
    with pytest.raises(BadKnob) as caught:
        keying.read_list(text)
    assert str(caught.value).startswith(says)


def test_keys_are_on_at_each_frame_and_off_around_it():
    assert keying.curve_of((1001, 1002, 1010)) == (
        "{curve K x1000 0 x1001 1 x1002 1 x1003 0 x1010 1 x1011 0}"
    )
    assert keying.curve_of(()) == "false"


def test_thinning_keeps_every_nth_and_the_last():
    assert keying.thinned(range(1, 12), 4) == (1, 5, 9, 11)
    assert keying.thinned((1, 5, 9), 1) == (1, 5, 9)
    assert keying.thinned((), 3) == ()


def test_a_part_of_the_shot_has_the_keyframes_that_lie_in_it():
    assert keying.within("1001,1010-1020x5", FrameRange(1012, 1017)) == "1015"
    assert keying.within("1001", FrameRange(1012, 1017)) == ""


@pytest.mark.parametrize(
    ("mode", "frame", "words"),
    [
        ("every frame", 1005, "1005: the mask counts, as on every frame."),
        ("no mask", 1005, "1005: no mask, the model decides."),
        ("keyframes only", 1010, "1010: the mask counts, keyframe 2 of 3."),
        ("keyframes only", 1012, "1012: unknown, the model decides; between the keyframes 1010 "
         "and 1020."),
        ("keyframes only", 999, "999: unknown, the model decides; before the first keyframe, "
         "1001."),
        ("keyframes only", 1021, "1021: unknown, the model decides; after the last keyframe, "
         "1020."),
    ],
)  # fmt: skip
def test_the_state_of_a_frame_is_said_in_words(mode, frame, words):
    assert keying.state((1001, 1010, 1020), mode, frame) == words


def test_without_keyframes_the_state_says_so():
    words = "1005: unknown, the model decides; there is no keyframe yet."
    assert keying.state((), "keyframes only", 1005) == words


# --- on the node ---------------------------------------------------------------------------------


@pytest.fixture
def gizmo(app):
    """Return an OverPlusPlus with a plate of 1001-1048, and the playhead on 1010."""
    import nuke

    made = nuke.createNode("OverPlusPlus")
    connect(made, "Plate", nuke.createNode("Read", f"name Plate1 {RANGE} raw true"))
    nuke.frame(1010)
    app.undo_steps.clear()
    return made


def press(gizmo, button):
    gizmo[f"gc_{button}"].execute()
    return gizmo["gc_status"].value().replace("\n", " ")


def keys(gizmo):
    return {int(n): bool(gizmo["gc_is_key"].getValueAt(n)) for n in gizmo["gc_is_key"].getKeyList()}


def test_add_and_remove_write_the_list_and_let_it_count_in_one_undo_step(gizmo, app):
    assert press(gizmo, "key_add") == "1010 is a keyframe."
    assert gizmo["keyframes"].value() == "1010"
    assert gizmo["mask_frames"].value() == "keyframes only"
    assert app.undo_steps == ["Add keyframe"]
    assert keys(gizmo) == {1009: False, 1010: True, 1011: False}
    assert gizmo["gc_key_state"].value() == "1010: the mask counts, keyframe 1 of 1."
    assert press(gizmo, "key_remove") == "1010 is no keyframe any more."
    assert gizmo["keyframes"].value() == ""
    assert keys(gizmo) == {}
    assert not gizmo["gc_is_key"].value()


def test_what_is_no_keyframe_cannot_be_removed(gizmo):
    gizmo["keyframes"].setValue("1001")
    assert press(gizmo, "key_remove") == "1010 is no keyframe, so nothing was removed."
    assert gizmo["keyframes"].value() == "1001"


def test_a_keyframe_outside_the_range_is_said(gizmo):
    import nuke

    nuke.frame(1100)
    assert press(gizmo, "key_add") == "1100 is a keyframe, which is outside the range."


def test_a_typed_list_shows_in_the_dope_sheet_and_is_sent(gizmo):
    import nuke

    gizmo["mask_frames"].setValue("keyframes only")
    gizmo["keyframes"].setValue("1001, 1003")
    switch = gizmo["gc_is_key"]
    assert [bool(switch.getValueAt(n)) for n in (999, 1001, 1002, 1003, 1004, 1040)] == [
        *(False, True, False, True, False, False)
    ]
    still = nuke.createNode("FrameRange", "first_frame 1001 last_frame 1048")
    still.setInput(0, nuke.createNode("Constant"))
    for pipe in ("Plate", "EffectMask"):
        connect(gizmo, pipe, still)
    sent = asking.ask(gizmo).request
    # Which frames are unknown travels as numbers, whatever grey the mask has there.
    assert (sent.knobs["mask_frames"], sent.knobs["keyframes"]) == ("keyframes only", "1001, 1003")
    assert sent.input("effect_mask").frames == tuple(range(1001, 1049))


def test_writing_the_keys_is_no_step_of_its_own_to_undo(gizmo, app):
    gizmo["keyframes"].setValue("1001")
    assert app.undo_steps == ["keyframes"]


def test_a_list_that_cannot_be_read_is_said_and_its_keys_stay(gizmo):
    gizmo["keyframes"].setValue("1001")
    gizmo["keyframes"].setValue("1001,")
    assert gizmo["gc_note"].value() == ""
    gizmo["keyframes"].setValue("1001,1o1o")
    assert gizmo["gc_status"].value().startswith("Knob 'keyframes' is '1001,1o1o'")
    assert keys(gizmo) == {1000: False, 1001: True, 1002: False}
    assert press(gizmo, "key_add").startswith("Knob 'keyframes' is '1001,1o1o'")
    assert gizmo["keyframes"].value() == "1001,1o1o"


def test_a_key_that_is_moved_in_the_dope_sheet_is_read_back(gizmo):
    gizmo["keyframes"].setValue("1001,1010")
    gizmo["gc_is_key"].fromScript("{curve K x1000 0 x1001 1 x1002 0 x1009 0 x1011 0 x1014 1}")
    assert gizmo["keyframes"].value() == "1001,1014"
    assert keys(gizmo)[1015] is False


def test_ticking_the_switch_without_keys_means_the_current_frame(gizmo):
    gizmo["gc_is_key"].setValue(True)
    assert gizmo["keyframes"].value() == "1010"
    assert gizmo["mask_frames"].value() == "keyframes only"


def test_previous_and_next_move_the_playhead(gizmo):
    import nuke

    gizmo["keyframes"].setValue("1001,1010,1020")
    gizmo["mask_frames"].setValue("keyframes only")
    press(gizmo, "key_next")
    assert nuke.frame() == 1020
    assert gizmo["gc_key_state"].value() == "1020: the mask counts, keyframe 3 of 3."
    assert press(gizmo, "key_next") == "There is no keyframe after 1020."
    press(gizmo, "key_previous")
    press(gizmo, "key_previous")
    assert nuke.frame() == 1001
    assert press(gizmo, "key_previous") == "There is no keyframe before 1001."


def test_the_state_follows_the_playhead_while_the_panel_is_open(gizmo, app):
    import nuke

    hooks.install.cache_clear()
    hooks.install()
    gizmo["keyframes"].setValue("1010")
    gizmo.hideControlPanel()
    nuke.frame(1012)
    app.idle()
    assert gizmo["gc_key_state"].value() == "1010: the mask counts, as on every frame."
    gizmo.showControlPanel()
    nuke.frame(1013)
    nuke.modified(False)
    app.undo_steps.clear()
    app.idle()
    assert gizmo["gc_key_state"].value() == "1013: the mask counts, as on every frame."
    assert not nuke.modified()
    assert app.undo_steps == []


def test_a_node_with_keyframes_is_saved_and_opened_as_it_was(gizmo, app, tmp_path):
    import nuke

    gizmo["keyframes"].setValue("1001,1010")
    app.save(tmp_path / "keys.nk")
    app.open(tmp_path / "keys.nk")
    again = nuke.toNode("OverPlusPlus1")
    assert again["keyframes"].value() == "1001,1010"
    assert keys(again) == {
        1000: False,
        1001: True,
        1002: False,
        1010: True,
        1011: False,
    }
