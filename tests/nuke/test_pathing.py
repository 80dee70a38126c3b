# SPDX-License-Identifier: Apache-2.0
"""Placement in Nuke: the viewer's point, Trackers and Transforms become texts, y up as in Nuke.

The plate is 64×48 of frames 1001-1004; the element is 32×24.
"""

import pytest

from fakes.shot import connect
from gencomp_nuke import asking, pathing
from gencomp_protocol.motion import Keys
from standin.tracking import spell_tracks

TRACKED = {1000.0: (1, 2), 1001.0: (10, 20), 1003.0: (14, 24)}


def sized(name, width, height):
    """Return a black picture of a size, of frames 1001-1004."""
    import nuke

    made = nuke.createNode("FrameRange", f"name {name} first_frame 1001 last_frame 1004")
    box = nuke.createNode("Reformat", 'type "to box" box_fixed true resize none')
    for knob, value in (("box_width", width), ("box_height", height)):
        box[knob].setValue(value)
    box.setInput(0, nuke.createNode("Constant"))
    made.setInput(0, box)
    return made


@pytest.fixture
def gizmo(app):
    """Return a GenComposite with a plate, one element, and the playhead on 1002."""
    import nuke

    made = nuke.createNode("GenComposite")
    connect(made, "Bg", sized("Plate1", 64, 48))
    connect(made, "Fg1", sized("Element1", 32, 24))
    nuke.frame(1002)
    app.undo_steps.clear()
    return made


@pytest.fixture
def tracker(gizmo):
    import nuke

    made = nuke.createNode("Tracker4", "name Tracker1")
    still = dict.fromkeys(TRACKED, (5, 6))
    made["tracks"].fromScript(spell_tracks({"track 1": TRACKED, "track 2": still}))
    gizmo["gc_sample_from"].setValue("Tracker1")
    return made


def transform(knobs):
    import nuke

    return nuke.createNode("Transform", f"name Move1 {knobs}")


def press(gizmo, button):
    gizmo[f"gc_{button}"].execute()
    return gizmo["gc_status"].value().replace("\n", " ")


def put_point(gizmo, frame, x, y):
    import nuke

    nuke.frame(frame)
    gizmo["gc_point"].setValue(x, 0)
    gizmo["gc_point"].setValue(y, 1)
    return press(gizmo, "point_add")


# --- points --------------------------------------------------------------------------------------


def test_points_are_written_at_their_frames_and_sent_with_y_down(gizmo, app):
    assert put_point(gizmo, 1003, 40, 12.5) == "At 1003 Fg1 is at 40,12.5."
    put_point(gizmo, 1001, 10, 0)
    assert gizmo["trajectory"].value() == "10,0@1001; 40,12.5@1003"
    assert asking.ask(gizmo).request.knobs["trajectory"] == "10,48@1001; 40,35.5@1003"


def test_one_press_is_one_step_to_undo(gizmo, app):
    gizmo["trajectory_mode"].setValue("track")
    app.undo_steps.clear()
    press(gizmo, "point_add")
    assert app.undo_steps == ["trajectory of Fg1"]
    assert gizmo["trajectory_mode"].value() == "auto"


def test_a_point_is_moved_and_removed_at_its_frame(gizmo):
    put_point(gizmo, 1001, 1, 2)
    put_point(gizmo, 1004, 3, 4)
    put_point(gizmo, 1004, 5, 6)
    assert gizmo["trajectory"].value() == "1,2@1001; 5,6@1004"
    assert press(gizmo, "point_remove") == "The point at 1004 is gone."
    said = "The trajectory has no point at 1004, so nothing was removed."
    assert press(gizmo, "point_remove") == said
    assert gizmo["trajectory"].value() == "1,2@1001"


def test_a_line_that_was_typed_is_not_overwritten(gizmo):
    gizmo["trajectory"].setValue("10,20; 30,40")
    assert press(gizmo, "point_add").startswith(
        "Knob 'trajectory' holds points without frames: 10,20; 30,40. Empty it, or give each"
    )
    assert gizmo["trajectory"].value() == "10,20; 30,40"


def test_each_element_has_a_section_of_its_own(gizmo):
    connect(gizmo, "Fg2", sized("Element2", 16, 12))
    gizmo["gc_name1"].setValue("plane")
    gizmo["gc_name2"].setValue("bird")
    gizmo["trajectory"].setValue("plane: 1,2@1001")
    gizmo["gc_element"].setValue("Fg2")
    put_point(gizmo, 1002, 7, 8)
    assert gizmo["trajectory"].value() == "plane: 1,2@1001 | bird: 7,8@1002"
    gizmo["gc_element"].setValue("Fg1")
    put_point(gizmo, 1003, 9, 9)
    assert gizmo["trajectory"].value() == "plane: 1,2@1001; 9,9@1003 | bird: 7,8@1002"


def test_an_element_that_is_not_connected_is_said(gizmo):
    gizmo["gc_element"].setValue("Fg3")
    assert press(gizmo, "point_add") == "Nothing is connected to Fg3. Choose Fg1."
    assert gizmo["trajectory"].value() == ""


# --- Trackers ------------------------------------------------------------------------------------


def test_a_tracker_gives_a_point_at_every_tracked_frame_of_the_range(gizmo, tracker):
    assert press(gizmo, "sample") == "Took the way of Tracker1: 3 points."
    assert gizmo["trajectory"].value() == "10,20@1001; 12,22@1002; 14,24@1003"
    sent = asking.ask(gizmo).request.knobs["trajectory"]
    assert sent == "10,28@1001; 12,26@1002; 14,24@1003"


def test_of_several_tracks_one_may_be_named(gizmo, tracker):
    gizmo["gc_sample_from"].setValue("Tracker1:2")
    press(gizmo, "sample")
    assert gizmo["trajectory"].value() == "5,6@1001; 5,6@1002; 5,6@1003"
    gizmo["gc_sample_from"].setValue("Tracker1:3")
    assert press(gizmo, "sample").startswith("Tracker1 has 2 tracks. Track a point, or name")


def test_a_way_goes_in_place_of_the_other_way_and_says_so_in_one_step_to_undo(gizmo, tracker, app):
    gizmo["transform"].setValue("1,0,0,0,1,0")
    app.undo_steps.clear()
    said = "Took the way of Tracker1: 3 points. Emptied transform: this goes in place of it."
    assert press(gizmo, "sample") == said
    assert (gizmo["transform"].value(), app.undo_steps) == ("", ["trajectory of Fg1"])
    gizmo["scale"].setValue("0.5")
    transform("translate {7 8}")
    gizmo["gc_sample_from"].setValue("Move1")
    assert press(gizmo, "sample").endswith(
        "Emptied trajectory and scale: this goes in place of it."
    )
    assert [gizmo[name].value() for name in ("trajectory", "scale")] == ["", "1"]
    assert gizmo["transform"].value() == "1,0,7,0,1,8"


def test_a_size_beside_matrices_is_refused_since_they_hold_one(gizmo):
    gizmo["transform"].setValue("1,0,0,0,1,0")
    assert press(gizmo, "sample_scale").startswith("The knob transform says how large Fg1 is.")
    assert gizmo["scale"].value() == "1"


def test_what_cannot_be_sampled_is_said(gizmo, tracker):
    for name, says in (
        ("", "No node is named. Type the name of a Tracker or a Transform,"),
        ("Tracker9", "There is no node 'Tracker9'."),
        ("Tracker1:x", "'Tracker1:x' names no node whose way is taken."),
        ("Plate1", "Plate1 is a FrameRange, and no way can be taken from that."),
    ):
        gizmo["gc_sample_from"].setValue(name)
        assert press(gizmo, "sample").startswith(says)
    assert gizmo["trajectory"].value() == ""


# --- Transforms ----------------------------------------------------------------------------------


def test_a_transform_that_does_not_move_gives_one_matrix(gizmo):
    transform("translate {10 20}")
    gizmo["gc_sample_from"].setValue("Move1")
    assert press(gizmo, "sample") == ("Took the way of Move1: one matrix, for it does not move.")
    assert gizmo["transform"].value() == "1,0,10,0,1,20"
    # 24 lines of element, 20 up from the lower edge of 48: 4 are left above it.
    assert asking.ask(gizmo).request.knobs["transform"] == "1,0,10,0,1,4"


def test_an_animated_transform_gives_a_matrix_at_every_frame(gizmo):
    transform("translate {{curve L x1001 0 x1003 4} 20}")
    gizmo["gc_sample_from"].setValue("Move1")
    assert press(gizmo, "sample") == "Took the way of Move1: 4 matrices."
    assert gizmo["transform"].value() == (
        "1,0,0,0,1,20@1001; 1,0,2,0,1,20@1002; 1,0,4,0,1,20@1003; 1,0,4,0,1,20@1004"
    )


@pytest.mark.parametrize(
    ("knobs", "matrix"),
    [
        # Turned and doubled about (4, 2): the centre stays where translate puts it, at (14, 22).
        ("translate {10 20} center {4 2} rotate 90 scale 2", (0, -2, 18, 2, 0, 14)),
        ("scale {2 3} center {10 10}", (2, 0, -10, 0, 3, -20)),
        ("skewX 0.5 skewY 0.25", (1.125, 0.5, 0, 0.25, 1, 0)),
        ("skewX 0.5 skewY 0.25 skew_order YX", (1, 0.5, 0, 0.25, 1.125, 0)),
    ],
)
def test_a_matrix_is_what_a_transform_does(app, knobs, matrix):
    assert pathing.matrix_at(transform(knobs), 1001) == pytest.approx(matrix, abs=1e-12)


def test_an_inverted_transform_gives_the_inverse(app):
    one = transform("translate {10 20} scale 2 invert_matrix true")
    assert pathing.matrix_at(one, 1001) == pytest.approx((0.5, 0, -5, 0, 0.5, -10))


# --- the size ------------------------------------------------------------------------------------


def test_a_scale_curve_is_written_where_it_is_not_straight(gizmo):
    gizmo["gc_scale_curve"].fromScript("{curve L x1001 0.5 x1003 1}")
    assert press(gizmo, "sample_scale") == "Wrote the scale of Fg1: 3 values."
    assert gizmo["scale"].value() == "0.5@1001; 1@1003; 1@1004"


def test_a_scale_that_stays_is_one_value(gizmo):
    gizmo["gc_scale_curve"].setValue(0.25)
    press(gizmo, "sample_scale")
    assert gizmo["scale"].value() == "0.25"


def test_a_scale_of_nothing_is_refused_with_its_frame(gizmo):
    gizmo["gc_scale_curve"].fromScript("{curve L x1001 1 x1003 0}")
    assert press(gizmo, "sample_scale").startswith("The scale curve is not above 0 at frame 1003.")
    assert gizmo["scale"].value() == "1"


def test_keys_on_a_straight_line_are_left_out_and_none_others():
    bent = Keys((1, 2, 3, 4, 5), ((0, 0), (1, 2), (2, 4), (3, 4), (4, 4)))
    assert pathing.straightened(bent) == Keys((1, 3, 5), ((0, 0), (2, 4), (4, 4)))
    curved = Keys(tuple(range(9)), tuple((float(n * n),) for n in range(9)))
    assert pathing.straightened(curved) == curved
