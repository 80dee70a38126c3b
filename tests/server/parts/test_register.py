# SPDX-License-Identifier: Apache-2.0
"""parts/register.py and canvas.py: known motions are found, with the right sign."""

import cv2
import numpy as np
import pytest

from gencomp_server.parts import canvas as lay
from gencomp_server.parts import register

WIDTH, HEIGHT = 192, 128
# Features are tracked to a few hundredths of a pixel on clean texture.
FOUND_PX = 0.08
# The miss is measured on pictures resampled between pixels, which costs a little more.
MISSED_PX = 0.2


def world(width=WIDTH, height=HEIGHT, seed=3):
    """Return a scene-linear texture [H,W,3] with detail at several sizes."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((height, width, 3), np.float32)
    for size in (1.2, 3.0, 9.0):
        noise = rng.standard_normal((height, width, 3)).astype(np.float32)
        picture += cv2.GaussianBlur(noise, (0, 0), size) * size
    return (0.25 * np.exp(0.35 * picture)).astype(np.float32)


def looked_at(scene, to_frame, width=WIDTH, height=HEIGHT):
    """Return what a camera sees: the frame pixel x shows the scene point inverse(to_frame)(x)."""
    return cv2.warpPerspective(scene, to_frame, (width, height), flags=cv2.INTER_LANCZOS4)


def shifted(dx, dy):
    return np.array([[1.0, 0.0, dx], [0.0, 1.0, dy], [0.0, 0.0, 1.0]])


def nothing(n=0):
    return np.zeros((HEIGHT, WIDTH), np.bool_)


def corners():
    return np.array([[10.0, 10.0], [180.0, 12.0], [178.0, 115.0], [12.0, 118.0]])


def test_a_point_of_the_plate_is_found_to_the_right_where_the_other_picture_lies_to_the_right():
    scene = world(WIDTH + 40, HEIGHT + 40)
    plate = scene[20 : 20 + HEIGHT, 20 : 20 + WIDTH]
    other = scene[22 : 22 + HEIGHT, 15 : 15 + WIDTH]

    motion, flow, miss = register.register_to(plate, other, nothing())

    assert lay.apply(motion, np.array([[50.0, 40.0]]))[0] == pytest.approx([55.0, 38.0], abs=0.05)
    assert not flow.any()
    assert miss < FOUND_PX


def test_a_known_homography_is_found():
    scene = world(WIDTH + 80, HEIGHT + 80)
    known = np.array([[1.02, 0.015, 4.0], [-0.012, 0.985, -3.0], [6e-5, -4e-5, 1.0]])
    centre = shifted(-40, -40)

    motion, _, _ = register.register_to(
        looked_at(scene, centre), looked_at(scene, known @ centre), nothing()
    )

    assert lay.apply(motion, corners()) == pytest.approx(lay.apply(known, corners()), abs=0.15)


def test_every_frame_of_a_moving_camera_lies_where_it_was_put():
    scene = world(WIDTH + 120, HEIGHT + 60)
    put = [shifted(-60 + 6 * t, -30 + 1.5 * t) for t in range(7)]
    grey = [register.grey_picture(looked_at(scene, h)) for h in put]

    (found,) = register.register_shot(tuple(range(7)), grey.__getitem__, nothing, flow=False)

    for t in (0, 3, 6):
        between = found.to_frame[t] @ np.linalg.inv(found.to_frame[2])
        truth = put[t] @ np.linalg.inv(put[2])
        assert lay.apply(between, corners()) == pytest.approx(
            lay.apply(truth, corners()), abs=FOUND_PX
        )
    assert found.error_px.max() < MISSED_PX


def test_a_still_camera_stays_exactly_still_in_spite_of_grain():
    rng = np.random.default_rng(5)
    scene = world()
    grey = [
        register.grey_picture(scene + 0.005 * rng.standard_normal(scene.shape)) for _ in range(5)
    ]

    (found,) = register.register_shot((1, 2, 3, 4, 5), lambda n: grey[n - 1], nothing)

    assert np.array_equal(found.to_frame, np.stack([np.eye(3)] * 5))
    assert (found.width, found.height) == (WIDTH, HEIGHT)
    assert not found.flow.any()


def test_what_the_mattes_cover_does_not_move_the_camera():
    scene, thing = world(), world(90, 100, seed=8)
    covered = []
    grey = []
    for t in range(4):
        plate, matte = scene.copy(), nothing()
        plate[14:114, 10 + 8 * t : 100 + 8 * t] = thing
        matte[14:114, 10 + 8 * t : 100 + 8 * t] = True
        grey.append(register.grey_picture(plate))
        covered.append(matte)

    (found,) = register.register_shot(tuple(range(4)), grey.__getitem__, covered.__getitem__)

    assert np.array_equal(found.to_frame, np.stack([np.eye(3)] * 4))


def test_a_highlight_far_above_white_does_not_spoil_the_registration():
    scene = world(WIDTH + 40, HEIGHT + 40)
    scene[60:90, 80:110] = 60000.0
    plate = scene[20 : 20 + HEIGHT, 20 : 20 + WIDTH]
    other = scene[20 : 20 + HEIGHT, 17 : 17 + WIDTH]

    motion, _, _ = register.register_to(plate, other, nothing())

    assert lay.apply(motion, np.array([[50.0, 40.0]]))[0] == pytest.approx([53.0, 40.0], abs=0.05)


def test_a_picture_without_texture_is_taken_to_stand_still_with_no_feature_found():
    flat = np.full((HEIGHT, WIDTH), 90, np.uint8)

    (found,) = register.register_shot((1, 2, 3), lambda n: flat, nothing)

    assert np.array_equal(found.to_frame, np.stack([np.eye(3)] * 3))
    assert found.features.tolist() == [0, 0, 0]
    assert found.error_px.tolist() == [0.0, 0.0, 0.0]


def test_a_pan_too_wide_for_one_canvas_is_split_and_no_frame_is_lost():
    scene = world(160 + 45 * 32, 96)
    grey = [register.grey_picture(scene[:, 32 * t : 32 * t + 160]) for t in range(46)]

    found = register.register_shot(
        tuple(range(46)), grey.__getitem__, lambda n: np.zeros((96, 160), np.bool_), flow=False
    )

    assert [len(one.frames) for one in found] == [23, 23]
    assert sum((one.frames for one in found), ()) == tuple(range(46))


def test_the_same_pictures_are_registered_to_the_same_bits():
    scene = world(WIDTH + 40, HEIGHT + 40)
    grey = [register.grey_picture(scene[10 : 10 + HEIGHT, 5 * t : 5 * t + WIDTH]) for t in range(4)]

    first = register.register_shot(tuple(range(4)), grey.__getitem__, nothing)
    second = register.register_shot(tuple(range(4)), grey.__getitem__, nothing)

    assert np.array_equal(first[0].to_frame, second[0].to_frame)
    assert np.array_equal(first[0].flow, second[0].flow)


def two_planes(t):
    """Return a frame whose upper half stands still while its lower half moves right by 2 t px."""
    upper, lower = world(seed=3), world(WIDTH + 40, HEIGHT, seed=4)
    picture = upper.copy()
    picture[76:] = lower[76:, 20 - 2 * t : 20 - 2 * t + WIDTH]
    return register.grey_picture(picture)


def test_the_flow_follows_the_plane_that_the_homography_misses():
    grey = [two_planes(t) for t in range(5)]

    (bare,) = register.register_shot(tuple(range(5)), grey.__getitem__, nothing, flow=False)
    (bent,) = register.register_shot(tuple(range(5)), grey.__getitem__, nothing, flow=True)

    assert bent.error_px.max() < 0.5 * bare.error_px.max()
    points = np.array([[[96.0, 30.0], [96.0, 110.0]]], np.float32)
    on_first = lay.on_canvas(bent, 0, points)
    moved = lay.seen_at(bent, 4, on_first) - points
    assert moved[0, 0] == pytest.approx([0.0, 0.0], abs=0.35)
    assert moved[0, 1] == pytest.approx([8.0, 0.0], abs=0.6)


def test_going_to_the_canvas_and_back_ends_where_it_began():
    rng = np.random.default_rng(2)
    coarse = (HEIGHT // lay.FLOW_STEP, WIDTH // lay.FLOW_STEP)
    flow = np.stack(
        [cv2.GaussianBlur(rng.standard_normal((*coarse, 2)).astype(np.float32), (0, 0), 6) * 30]
    )
    one = lay.Canvas(
        frames=(1,),
        width=WIDTH,
        height=HEIGHT,
        to_frame=np.array([[[1.01, 0.02, 3.0], [-0.01, 0.99, 2.0], [1e-5, 0.0, 1.0]]]),
        flow=flow,
        back=np.stack([lay.turned_round(flow[0])]),
        features=np.zeros(1, np.int32),
        error_px=np.zeros(1, np.float32),
        unsteady=nothing(),
    )
    points = lay.grid(WIDTH, HEIGHT)[20:-20, 20:-20]

    there_and_back = lay.seen_at(one, 0, lay.on_canvas(one, 0, points))

    assert np.abs(flow).max() > 2.0
    assert np.abs(there_and_back - points).max() < 0.05


def test_the_median_leaves_out_what_is_not_there():
    stack = np.array([[1.0, np.nan], [np.nan, np.nan], [5.0, np.nan], [3.0, 2.0]], np.float32)

    median, count = lay.masked_median(stack)

    assert median.tolist() == [3.0, 2.0]
    assert count.tolist() == [3, 1]


def test_the_median_of_an_even_number_is_the_mean_of_the_middle_two():
    median, _ = lay.masked_median(np.array([[4.0], [1.0], [2.0], [9.0]], np.float32))

    assert median.tolist() == [3.0]


def test_waves_are_told_from_grain_and_from_edges_that_are_a_little_off():
    rng = np.random.default_rng(0)
    picture = np.full((96, 128), 100.0, np.float32)
    picture[:, 64:] = 160.0
    varies = np.full((96, 128), 2.0, np.float32)
    varies[:, 63:66] = 24.0
    varies[60:, :40] = 20.0 + rng.random((36, 40)).astype(np.float32)

    moving = register.moves_by_itself(varies, picture, np.full((96, 128), 9, np.int32), 0.5)

    assert moving[70:90, 10:30].all()
    assert not moving[:, 50:].any()


def test_a_smooth_field_is_carried_on_to_where_nothing_was_measured():
    value = np.zeros((40, 60, 2), np.float32)
    weight = np.zeros((40, 60), np.float32)
    value[:, :20], weight[:, :20] = (3.0, -1.0), 1.0

    field = lay.spread(value, weight, sigma=1.5)

    assert field[20, 55] == pytest.approx([3.0, -1.0], abs=0.01)
