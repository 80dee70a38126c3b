# SPDX-License-Identifier: Apache-2.0
"""Placed samples: own bits where they can be, light of their area, no ringing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gencomp_server.parts.placement import (
    about,
    box_through,
    covered_box,
    linear_part,
    meets,
    resampled,
    resting_point,
)

SIZE = (96, 72)
# A twentieth of a pixel: float32 sums and the four samples' hold move a middle by less.
NEAR_PX = 0.05


def disc(radius, size=(40, 40), middle=(20.0, 20.0)):
    """A disc whose edge is covered by area, premultiplied at 2.0. [h,w,4]."""
    fine = 8
    y, x = (np.mgrid[0 : size[1] * fine, 0 : size[0] * fine] + 0.5) / fine
    inside = np.hypot(x - middle[0], y - middle[1]) <= radius
    alpha = inside.reshape(size[1], fine, size[0], fine).mean(axis=(1, 3))
    return np.repeat(alpha[..., None], 4, axis=2).astype(np.float32) * (2, 2, 2, 1)


def middle_of(alpha):
    y, x = np.mgrid[0 : alpha.shape[0], 0 : alpha.shape[1]] + 0.5
    return (x * alpha).sum() / alpha.sum(), (y * alpha).sum() / alpha.sum()


def moved(picture, matrix, origin=(0, 0), size=SIZE):
    return resampled(picture.astype(np.float32), origin, np.asarray(matrix, np.float64), size)


def test_when_moved_by_whole_pixels_then_every_sample_is_copied_bit_for_bit():
    rng = np.random.default_rng(1)
    picture = rng.normal(0, 1e4, (30, 40, 4)).astype(np.float16).astype(np.float32)
    made = moved(picture, [[1, 0, 7], [0, 1, -5]])
    assert (made[0:25, 7:47] == picture[5:]).all()
    assert not made[25:].any()


def test_when_the_picture_is_a_crop_of_its_format_then_it_keeps_its_place():
    picture = np.ones((2, 3, 1), np.float32)
    made = moved(picture, np.eye(2, 3), origin=(10, -1))
    assert made.sum() == 3
    assert (made[0, 10:13] == 1).all()


@settings(max_examples=25, deadline=None)
@given(
    scale=st.floats(0.25, 3.0),
    rotate=st.floats(-180, 180),
    skew=st.floats(-0.5, 0.5),
    x=st.floats(40.0, 56.0),
    y=st.floats(30.0, 42.0),
)
def test_wherever_a_disc_is_placed_its_middle_is_there_and_its_light_is_that_of_its_area(
    scale, rotate, skew, x, y
):
    picture = disc(7.0)
    matrix = about(linear_part(scale, rotate, skew), (20, 20), (x, y))
    made = moved(picture, matrix)
    assert np.allclose(middle_of(made[..., 3]), (x, y), atol=NEAR_PX)
    light = picture[..., 0].sum() * scale**2
    assert made[..., 0].sum() == pytest.approx(light, rel=0.02)


@pytest.mark.parametrize("scale", [0.9, 0.5, 1 / 3, 0.07])
def test_when_it_shrinks_then_all_its_light_stays(scale):
    rng = np.random.default_rng(2)
    picture = rng.random((40, 40, 4)).astype(np.float32)
    matrix = about(linear_part(scale, 0, 0), (20, 20), (41.3, 30.8))
    made = moved(picture, matrix)
    assert made.sum(axis=(0, 1)) == pytest.approx(picture.sum(axis=(0, 1)) * scale**2, rel=1e-4)


@pytest.mark.parametrize("turn", [0, 30])
@pytest.mark.parametrize("scale", [0.4, 1.0, 2.7])
def test_nothing_rings(turn, scale):
    # A lamp of 1000 beside black, hard edges everywhere.
    picture = np.zeros((20, 20, 4), np.float32)
    picture[5:15, 5:15] = (1000, 0.5, 0, 1)
    made = moved(picture, about(linear_part(scale, turn, 0), (10, 10), (48.3, 36.6)))
    assert made.min() == 0
    assert made.max(axis=(0, 1)).tolist() == pytest.approx([1000, 0.5, 0, 1], rel=1e-5)


def test_when_it_grows_then_what_is_straight_stays_straight():
    ramp = np.repeat(np.arange(40, dtype=np.float32)[None, :, None], 40, axis=0)
    made = moved(ramp, [[2, 0, 0], [0, 2, 0]], size=(80, 80))
    x = (np.arange(80) + 0.5) / 2 - 0.5
    assert np.allclose(made[40, 8:72, 0], x[8:72], atol=1e-4)


def test_a_mirror_mirrors_bit_for_bit_where_pixels_meet():
    picture = np.random.default_rng(3).random((10, 12, 4)).astype(np.float32)
    made = moved(picture, [[-1, 0, 12], [0, 1, 0]])
    assert (made[:10, :12] == picture[:, ::-1]).all()


def test_a_quarter_turn_counter_clockwise_brings_the_right_side_up():
    picture = np.zeros((11, 11, 1), np.float32)
    picture[5, 9] = 1  # At the right.
    made = moved(picture, about(linear_part(1, 90, 0), (5.5, 5.5), (5.5, 5.5)))
    assert made[1, 5, 0] == pytest.approx(1, abs=1e-5)


def test_a_lean_moves_the_top_to_the_right():
    picture = np.zeros((11, 11, 1), np.float32)
    picture[1, 5] = 1
    made = moved(picture, about(linear_part(1, 0, 0.5), (5.5, 5.5), (15.5, 15.5)))
    assert middle_of(made[..., 0])[0] == pytest.approx(17.5, abs=NEAR_PX)


@pytest.mark.parametrize("scale", [1e-7, 1e7])
def test_absurd_sizes_end_soon(scale):
    picture = np.ones((40, 40, 4), np.float32)
    made = moved(picture, about(linear_part(scale, 0, 0), (20, 20), (48.3, 36.6)))
    assert np.isfinite(made).all()
    assert made.max() <= 1 + 1e-5


def test_what_lies_off_the_plate_is_not_there():
    picture = np.ones((10, 10, 4), np.float32)
    assert not moved(picture, [[0.5, 0, 500], [0, 0.5, 0]]).any()
    assert not meets(box_through(np.array([[1.0, 0, 96], [0, 1, 0]]), (0, 0, 10, 10)), SIZE)
    assert meets(box_through(np.array([[1.0, 0, 95], [0, 1, 0]]), (0, 0, 10, 10)), SIZE)


# --- boxes and rests ------------------------------------------------------------------------------


def test_the_box_of_a_hard_shape_is_its_pixels():
    alpha = np.zeros((20, 30), np.float32)
    alpha[4:9, 11:22] = 1
    assert covered_box(alpha) == (11, 4, 22, 9)
    assert covered_box(np.ones((20, 30), np.float32)) == (0, 0, 30, 20)
    assert covered_box(np.zeros((20, 30), np.float32)) is None


@pytest.mark.parametrize("shift", [0.1, 0.25, 0.5, 0.8])
def test_the_middle_of_a_box_moves_with_the_shape_by_less_than_a_pixel(shift):
    x0, y0, x1, y1 = covered_box(disc(8, middle=(20 + shift, 20))[..., 3])
    assert (x0 + x1) / 2 == pytest.approx(20 + shift, abs=0.1)
    assert (y0 + y1) / 2 == pytest.approx(20, abs=0.01)


def test_at_rest_the_same_format_stays_and_another_is_centred_by_whole_pixels():
    assert resting_point((10.5, 3.0), (96, 72), (96, 72)) == (10.5, 3.0)
    assert resting_point((0, 0), (40, 40), (96, 72)) == (28, 16)
    assert resting_point((0, 0), (41, 41), (96, 72)) == (27, 15)


def test_square_pixels_are_squeezed_into_wide_ones():
    # A plate of pixels twice as wide needs half as many of them across.
    matrix = linear_part(1, 0, 0, (1.0, 2.0))
    assert matrix.tolist() == [[0.5, 0], [0, 1]]
    # A turn is a turn of what is seen: across becomes up at its seen length.
    turned = linear_part(1, 90, 0, (1.0, 2.0))
    assert np.allclose(turned, [[0, 0.5], [-1, 0]])
