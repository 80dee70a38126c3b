# SPDX-License-Identifier: Apache-2.0
"""Bounds: growth that keeps a feather and never reaches too far, and shapes between shapes."""

import cv2
import numpy as np
import pytest

from gencomp_server.parts.bounds import between, eased, margin_px, reached, spread
from gencomp_server.parts.fit import from_model_frame, to_model_frame


def blob():
    coverage = np.zeros((96, 160, 1), np.float32)
    coverage[40:56, 60:90] = 1
    return coverage


def distance_from(shape):
    return cv2.distanceTransform((~shape).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def far_from_blob(size):
    """Return how far every plate pixel is from the blob, in model pixels. [H,W]."""
    ys, xs = np.mgrid[0:96, 0:160]
    x = np.maximum(np.maximum(60 - xs, xs - 89), 0) * size[0] / 160
    y = np.maximum(np.maximum(40 - ys, ys - 55), 0) * size[1] / 96
    return np.hypot(x, y)


PLATE = (160, 96)
SIZES = [(40, 24), (48, 32), (160, 96), (160, 64), (200, 120), (320, 192), (240, 80), (560, 336)]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("grow_px", [1, 2, 3, 5, 8, 16, 17, 40])
def test_when_a_roto_grows_then_it_never_reaches_further_than_it_may(grow_px, size):
    left, far = grow_px - margin_px(size, PLATE), far_from_blob(size)
    low = to_model_frame(blob(), size)[..., 0]
    if left >= 0:
        grown = from_model_frame(spread(low, left), PLATE) > 0
        assert not grown[far > grow_px + 1e-6].any()
        shorter = 2 * margin_px(size, PLATE) + 0.08 * grow_px + 1  # 1: radii are of whole pixels
        assert grown[far <= grow_px - shorter].all()
        assert grown[blob()[..., 0] > 0].all()


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("reach_px", [6, 12, 30])
def test_when_a_shape_reaches_out_then_it_ends_in_time_at_plate_size_too(reach_px, size):
    low, far = to_model_frame(blob(), size)[..., 0] > 0, far_from_blob(size)
    grown = from_model_frame(reached(low, reach_px - margin_px(size, PLATE)), PLATE)
    if reach_px >= margin_px(size, PLATE):
        assert not grown[far > reach_px + 1e-6].any()
    assert (grown[far == 0] >= 1 - 1e-6).all()


def test_the_way_to_the_models_size_and_back_costs_what_it_says():
    assert margin_px((160, 96), PLATE) == 0
    assert margin_px((80, 96), PLATE) == 1.75
    assert margin_px((320, 96), PLATE) == 3.5
    assert margin_px((80, 192), PLATE) == pytest.approx(np.hypot(1.75, 3.5))


def test_when_a_roto_grows_by_many_pixels_then_it_is_as_round_as_one_disc():
    plane = np.zeros((121, 121), np.float32)
    plane[60, 60] = 1
    grown = spread(plane, 42) > 0
    far = np.hypot(*(np.mgrid[0:121, 0:121] - 60))
    assert grown[far <= 38].all()
    assert not grown[far > 46].any()


def test_when_the_roto_has_a_feather_then_it_moves_outwards_and_stays_soft():
    ramp = np.tile(np.linspace(0.4, 0, 160, dtype=np.float32)[None], (96, 1))
    grown = spread(ramp, 32)
    assert grown.max() <= np.float32(0.4)
    moved = np.interp(np.arange(160) - 32, np.arange(160), ramp[48])
    assert np.abs(grown[48] - moved)[40:150].max() < 0.01


@pytest.mark.parametrize("reach_px", [0, 1, 2, 5, 20])
def test_when_a_shape_is_reached_out_from_then_it_fades_and_ends_in_time(reach_px):
    shape = blob()[..., 0] > 0
    grown, far = reached(shape, reach_px), distance_from(shape)
    assert (grown[shape] == 1).all()
    assert not grown[far > reach_px].any()
    if reach_px == 20:
        assert (grown[far <= 15] == 1).all()
        assert 0.3 < grown[far == 18].mean() < 0.7


def test_when_nothing_is_covered_then_nothing_grows():
    nothing = np.zeros((24, 40), bool)
    assert not spread(nothing.astype(np.float32), 14).any()
    assert not reached(nothing, 40).any()


def disc(x, y, radius, shape=(80, 120)):
    ys, xs = np.mgrid[0 : shape[0], 0 : shape[1]]
    return np.hypot(xs - x, ys - y) <= radius


def test_when_a_disc_grows_between_two_frames_then_it_is_half_way_at_half_time():
    found = between(disc(60, 40, 10), disc(60, 40, 20), 0.5)
    assert found[disc(60, 40, 14)].all()
    assert not found[~disc(60, 40, 16)].any()


def test_when_a_disc_moves_further_than_it_is_wide_then_it_is_found_on_its_way():
    for share, x in ((0.25, 35), (0.5, 55), (0.75, 75)):
        found = between(disc(15, 40, 8), disc(95, 40, 8), share)
        assert found[disc(x, 40, 6)].all()
        assert not found[~disc(x, 40, 10)].any()


def test_when_a_second_shape_appears_then_the_one_that_stays_is_not_lost():
    one, other = disc(20, 40, 10), disc(20, 40, 10) | disc(100, 40, 10)
    assert between(one, other, 0.5)[disc(20, 40, 8)].all()


def test_when_one_of_two_drawings_is_empty_then_the_other_is_held():
    shape, nothing = disc(60, 40, 10), np.zeros((80, 120), bool)
    assert (between(shape, nothing, 0.9) == shape).all()
    assert (between(nothing, shape, 0.1) == shape).all()


def test_when_two_drawings_are_one_then_so_is_all_between():
    shape = disc(60, 40, 10)
    assert (between(shape, shape, 0.3) == shape).all()


def test_when_a_key_is_left_then_the_bound_opens_frame_by_frame_up_to_its_reach():
    assert [eased(48, 16, away) for away in (1, 2, 4, 8, 9)] == [20, 24, 32, 48, 48]


def test_when_a_keyed_mask_grows_further_than_the_reach_then_the_reach_is_kept():
    assert [eased(5, 16, away) for away in (1, 8)] == [5, 5]
