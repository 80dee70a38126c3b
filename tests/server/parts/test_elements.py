# SPDX-License-Identifier: Apache-2.0
"""Elements in a plate: where their middle is, when they are there, what hides them."""

import numpy as np
import pytest

from gencomp_protocol.errors import BadKnob, BadMatte, BadName, MissingInput
from gencomp_protocol.frames import Box
from gencomp_server.parts.elements import (
    centred,
    declared,
    held_out,
    placed,
    plan_elements,
)
from gencomp_server.parts.placeable import check_placing
from gencomp_server.parts.trajectory import Track
from gencomp_server.placing import PlacingParams

PLATE, OWN = (72, 96), (40, 50)
FRAMES = "1001-1009"
NEAR_PX = 0.25
"""How near the middle of a placed matte must be to its trajectory."""


def disc(radius, middle, size=OWN):
    """A soft-edged disc, premultiplied at 0.5. [h,w,4]."""
    y, x = np.mgrid[0 : size[0], 0 : size[1]] + 0.5
    alpha = np.clip(radius - np.hypot(x - middle[0], y - middle[1]) + 0.5, 0, 1)
    return (alpha[..., None] * (0.5, 0.4, 0.3, 1)).astype(np.float32)


def plate(frames=range(1001, 1010)):
    return {n: np.full((*PLATE, 3), 0.2, np.float32) for n in frames}


def still(radius=9.0, middle=(25.0, 20.0)):
    return {n: disc(radius, middle) for n in range(1, 10)}


def middle_of(alpha):
    y, x = np.mgrid[0 : alpha.shape[0], 0 : alpha.shape[1]] + 0.5
    return np.array([(x * alpha).sum(), (y * alpha).sum()]) / alpha.sum()


@pytest.fixture
def planned(shot_of, desk):
    """Return a function that plans the elements of some clips, and the shot."""

    def plan(clips, of=None, only=None, **knobs):
        shot = shot_of(FRAMES, {"bg": plate(), **clips}, **(of or {}))
        params = PlacingParams(**knobs)
        check_placing(shot.request, params)
        return shot, plan_elements(desk, shot, params, only=only)

    return plan


# --- where it is ----------------------------------------------------------------------------------


def test_on_a_line_the_middle_of_the_matte_is_on_it_on_every_frame(planned):
    shot, (one,) = planned({"fg": still()}, trajectory="20,20; 48.3,50.7; 80,30", scale="0.7")
    path = [(20, 20), (27.075, 27.675), (34.15, 35.35), (41.225, 43.025), (48.3, 50.7)]
    path += [(56.225, 45.525), (64.15, 40.35), (72.075, 35.175), (80, 30)]
    for i, truth in enumerate(path):
        found = middle_of(placed(shot, one, i)[..., 3])
        assert np.hypot(*(found - truth)) < NEAR_PX, i
        assert one.points[i].tolist() == pytest.approx(truth)


@pytest.mark.parametrize(
    "knobs",
    [
        {"scale": "0.3@1001; 2.2@1009"},
        {"rotate": "0@1001; 360@1009"},
        {"skew": "-0.4@1001; 0.4@1009", "scale": "1.3"},
    ],
)
def test_however_it_is_sized_turned_and_leaned_its_middle_stays_on_the_path(planned, knobs):
    shot, (one,) = planned({"fg": still()}, trajectory="40,30@1001; 56,42@1009", **knobs)
    for i in range(9):
        found = middle_of(placed(shot, one, i)[..., 3])
        assert np.hypot(*(found - (40 + 2 * i, 30 + 1.5 * i))) < NEAR_PX, i


@pytest.mark.parametrize("anchor", ["box centre", "bottom centre"])
def test_an_element_that_wanders_in_its_own_frames_is_held_to_the_path_by_its_box(planned, anchor):
    clip = {n: disc(8, (20 + 0.7 * n, 15 + 0.9 * n)) for n in range(1, 10)}
    shot, (one,) = planned({"fg": clip}, trajectory="30,40@1001; 62,40@1009", anchor=anchor)
    below = 8 if anchor == "bottom centre" else 0
    for i in range(9):
        found = middle_of(placed(shot, one, i)[..., 3])
        assert np.hypot(*(found - (30 + 4 * i, 40 - below))) < NEAR_PX, i


def test_a_fixed_point_of_its_format_keeps_its_own_motion(planned):
    clip = {n: disc(6, (15.0 + 2 * n, 20)) for n in range(1, 10)}
    shot, (one,) = planned({"fg": clip}, trajectory="40,36@1001", anchor_point="25,20")
    for i in range(9):
        found = middle_of(placed(shot, one, i)[..., 3])
        assert found.tolist() == pytest.approx([32 + 2 * i, 36], abs=NEAR_PX)


def test_without_a_trajectory_an_element_of_the_plates_format_keeps_its_bits(planned):
    rng = np.random.default_rng(4)
    clip = {n: rng.random((*PLATE, 4)).astype(np.float16) for n in range(1001, 1010)}
    shot, (one,) = planned({"fg": clip})
    assert one.sources == tuple(range(1001, 1010))
    assert (placed(shot, one, 3) == clip[1004]).all()
    assert one.report["path"] == "in place"


def test_without_a_trajectory_a_smaller_element_lies_on_the_middle_bit_for_bit(planned):
    shot, (one,) = planned({"fg": still()})
    assert (placed(shot, one, 0)[16:56, 23:73] == disc(9, (25, 20))).all()


def test_a_baked_transform_is_taken_as_it_is(planned):
    matrices = "; ".join(f"1,0,{k},0,1,{2 * k}@{1001 + k}" for k in range(9))
    shot, (one,) = planned({"fg": still()}, transform=matrices)
    assert (placed(shot, one, 5)[10:50, 5:55] == disc(9, (25, 20))).all()
    assert one.points[5].tolist() == [30, 30]


def test_a_clicked_point_is_tracked_and_its_drift_reported(planned):
    noise = np.random.default_rng(1).random((40, 60))
    texture = np.kron(noise, np.ones((4, 4))) * 0.5 + 0.05
    clip = {
        1001 + i: np.repeat(texture[i : i + 72, 2 * i : 2 * i + 96, None], 3, 2) for i in range(9)
    }
    clip = {n: pixels.astype(np.float32) for n, pixels in clip.items()}
    _, (one,) = planned({"bg": clip, "fg": still()}, trajectory="60,40", track_frame=1003)
    for i in range(9):
        assert np.hypot(*(one.points[i] - (64 - 2 * i, 42 - i))) < 0.5, i
    assert one.report["track"]["clicked"] == 1003
    assert one.report["track"]["drift_px"] < 1


@pytest.mark.parametrize(("drift", "warned"), [(0.9, 0), (3.0, 1)])
def test_a_track_that_may_have_slid_off_is_said_to_with_its_frame(
    planned, desk, monkeypatch, drift, warned
):
    returned = np.array([0, 0, 0, 0, 0, 0.9, 0, 0, 0])
    track = Track(tuple(range(1001, 1010)), np.full((9, 2), 40.0), returned, drift)
    monkeypatch.setattr("gencomp_server.parts.way.follow", lambda *_, **__: track)
    planned({"fg": still()}, trajectory="40,40")
    said = [one for one in desk.warnings if "drifted by 3.0 pixels, most at frame 1006" in one]
    assert len(said) == len(desk.warnings) == warned


def test_a_crop_lies_where_its_whole_picture_would(planned):
    # Pixels 12 to 37 and 8 to 31 of a 50x40 format whose corner is at (100, 200).
    display, data = Box(100, 200, 149, 239), Box(112, 208, 137, 231)
    crop = {n: pixels[8:32, 12:38] for n, pixels in still().items()}
    knobs = {"trajectory": "40.3,30.6; 60,40", "scale": "0.8", "rotate": "20"}
    of = {"windows": {"fg": (display, data)}}
    shot, (one,) = planned({"fg": crop}, of, **knobs)
    whole, (other,) = planned({"fg": still()}, **knobs)
    assert one.boxes == pytest.approx(other.boxes)
    assert np.allclose(placed(shot, one, 4), placed(whole, other, 4), atol=1e-6)


def test_positions_are_from_the_corner_of_the_plates_own_window(planned):
    of = {"windows": {"bg": (Box(-10, 5, 85, 76), Box(-10, 5, 85, 76))}}
    shot, (one,) = planned({"fg": still()}, of, trajectory="30,20@1001")
    assert middle_of(placed(shot, one, 0)[..., 3]).tolist() == pytest.approx([30, 20], abs=0.01)


def test_what_is_round_stays_round_on_a_plate_of_wide_pixels(planned):
    shot, (one,) = planned({"fg": still()}, {"aspects": {"bg": 2.0}}, trajectory="48,36@1001")
    alpha = placed(shot, one, 0)[..., 3]
    assert middle_of(alpha).tolist() == pytest.approx([48, 36], abs=0.05)
    high, wide = alpha.sum(axis=0).max(), alpha.sum(axis=1).max()
    assert high / wide == pytest.approx(2, rel=0.02)


def test_a_still_element_goes_its_way(planned):
    of = {"covers": {"fg": "still"}}
    shot, (one,) = planned({"fg": {7: disc(9, (25, 20))}}, of, trajectory="30,30; 60,40")
    assert one.sources == (7,) * 9
    found = middle_of(placed(shot, one, 4)[..., 3])
    assert found.tolist() == pytest.approx([45, 35], abs=NEAR_PX)


# --- when it is there -----------------------------------------------------------------------------


def test_frames_on_which_it_is_empty_are_legal_and_it_is_not_there(planned):
    clip = still()
    clip[4] = clip[5] = np.zeros((*OWN, 4), np.float32)
    shot, (one,) = planned({"fg": clip})
    assert one.sources == (1, 2, 3, None, None, 6, 7, 8, 9)
    assert not placed(shot, one, 3).any()
    assert one.report["seen"] == "1001-1003, 1006-1009"


def test_where_it_has_left_the_plate_it_is_not_there(planned):
    _, (one,) = planned({"fg": still()}, trajectory="48,36@1001; 248,36@1009")
    assert one.sources == (1, 2, 3, None, None, None, None, None, None)


def test_light_without_alpha_is_an_element_too(planned):
    glow = disc(9, (25, 20)) * np.float32([1, 1, 1, 0])
    shot, (one,) = planned({"fg": dict.fromkeys(range(1, 10), glow)}, fg_alpha="alpha")
    assert one.sources[0] == 1
    assert (placed(shot, one, 0)[16:56, 23:73] == glow).all()


def test_an_element_whose_soft_rim_alone_is_on_the_plate_is_there(planned):
    clip = {n: disc(9, (25, 20)) for n in range(1, 10)}
    for pixels in clip.values():
        pixels[20, 49] = (0.02, 0.02, 0.02, 0.02)
    _, (one,) = planned({"fg": clip}, trajectory="-20,30@1001")
    assert one.sources[0] == 1


def test_an_element_that_is_empty_on_every_frame_is_refused(planned):
    clip = {n: np.zeros((*OWN, 4), np.float32) for n in range(1, 10)}
    with pytest.raises(BadMatte, match="'element' is empty on every frame"):
        planned({"fg": clip})


@pytest.mark.parametrize("where", ["-5000,40; -5000,50", "130,40; 150,50"])
def test_an_element_that_is_never_on_the_plate_is_refused(planned, where):
    with pytest.raises(BadKnob, match="wholly off the plate on every frame") as caught:
        planned({"fg": still()}, trajectory=where)
    assert "96x72" in caught.value.message


def test_a_few_measured_frames_stand_for_the_others(planned):
    _, (one,) = planned({"fg": still()}, only=[0, 4])
    assert one.boxes[7].tolist() == one.boxes[0].tolist()
    assert one.boxes[0].tolist() == pytest.approx([16, 11, 34, 29], abs=0.1)


# --- several --------------------------------------------------------------------------------------


def test_several_elements_come_back_to_front_each_with_its_own_section(planned):
    clips = {"fg.plane": still(), "fg.bird": still()}
    _, elements = planned(clips, trajectory="plane: 20,20@1001 | bird: 70,50@1001", scale="0.5")
    assert [one.name for one in elements] == ["plane", "bird"]
    assert [one.points[0].tolist() for one in elements] == [[20, 20], [70, 50]]


def test_fg_and_named_elements_together_are_refused(shot_of):
    shot = shot_of(FRAMES, {"bg": plate(), "fg": still(), "fg.bird": still()})
    with pytest.raises(MissingInput, match=r"'fg' and 'fg\.bird' are both connected"):
        declared(shot.request)


def test_a_matte_without_its_element_is_refused(shot_of):
    shot = shot_of(FRAMES, {"bg": plate(), "fg.bird": still(), "fg_matte.plane": still()})
    with pytest.raises(MissingInput, match=r"'fg_matte\.plane' is connected, but its element"):
        declared(shot.request)


def test_an_element_cannot_have_the_name_of_a_layer(shot_of):
    shot = shot_of(FRAMES, {"bg": plate(), "fg.effect": still()})
    with pytest.raises(BadName, match="The element name 'effect' is taken"):
        declared(shot.request)


# --- what the model is shown ----------------------------------------------------------------------


def test_what_the_model_is_shown_is_centred_on_every_frame_at_one_size(planned):
    clip = {n: disc(4 + n, (15 + 2 * n, 20)) for n in range(1, 10)}
    shot, (one,) = planned({"fg": clip})
    areas = []
    for i in range(9):
        made = centred(shot, one, i, (60, 40))
        assert made.shape == (40, 60, 4)
        assert middle_of(made[..., 3]).tolist() == pytest.approx([30, 20], abs=NEAR_PX)
        areas.append(made[..., 3].sum())
    # A disc of radius 13 against one of 5: the element keeps growing.
    assert areas[8] / areas[0] == pytest.approx((13 / 5) ** 2, rel=0.03)


@pytest.mark.parametrize(
    ("radius", "times"), [(1.9, 4), (5.0, 2), (12.0, 1)], ids=["small", "less", "large"]
)
def test_a_small_element_is_shown_larger(planned, radius, times):
    shot, (one,) = planned({"fg": still(radius)})
    made = centred(shot, one, 0, (72, 48))[..., 3]
    # 576 pixels of canvas for 480 lines: the element's 40 lines become 48, over 1.2.
    assert np.sqrt(made.sum() / np.pi) == pytest.approx(radius * times, rel=0.02)


def test_an_element_wider_than_the_canvas_is_shown_whole(planned):
    clip = {n: np.zeros((20, 90, 4), np.float32) for n in range(1, 10)}
    for pixels in clip.values():
        pixels[8:12, 5:85] = 1
    shot, (one,) = planned({"fg": clip}, scale="0.5")
    made = centred(shot, one, 0, (72, 48))[..., 3]
    assert made.any(axis=0).sum() < 72
    assert not made[:, 0].any()


# --- in front -------------------------------------------------------------------------------------


def test_a_holdout_stands_in_front_as_it_is_drawn(planned):
    matte = np.zeros((*PLATE, 1), np.float32)
    matte[:, :50] = 0.6
    clips = {"fg": still(), "holdout": dict.fromkeys(range(1001, 1010), matte)}
    shot, (one,) = planned(clips)
    assert (held_out(shot, one, 2) == matte).all()


@pytest.mark.parametrize(("near", "values"), [("small", (5.0, 50.0)), ("large", (0.5, 0.01))])
def test_what_is_nearer_than_the_element_stands_in_front(planned, near, values):
    depth = np.full((*PLATE, 1), values[1], np.float32)
    depth[:, :50] = values[0]
    depth[:10] = 0
    depth[0, 0], depth[0, 1] = np.nan, np.inf
    clips = {"fg": still(), "depth": dict.fromkeys(range(1001, 1010), depth)}
    shot, (one,) = planned(clips, element_depth="10" if near == "small" else "0.1", depth_near=near)
    found = held_out(shot, one, 0)[..., 0]
    assert (found[12:, :49] == 1).all()
    assert not found[12:, 52:].any()
    assert not found[:9].any()
    assert 0 < found[40, 50] < 1


def test_an_element_that_moves_away_passes_behind(planned):
    depth = np.full((*PLATE, 1), 10.0, np.float32)
    clips = {"fg": still(), "depth": dict.fromkeys(range(1001, 1010), depth)}
    shot, (one,) = planned(clips, element_depth="5@1001; 15@1009")
    assert not held_out(shot, one, 0).any()
    assert (held_out(shot, one, 8) == 1).all()


def test_without_holdout_and_depth_nothing_stands_in_front(planned):
    shot, (one,) = planned({"fg": still()})
    assert not held_out(shot, one, 0).any()
