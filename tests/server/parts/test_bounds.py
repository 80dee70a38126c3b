# SPDX-License-Identifier: Apache-2.0
"""Bounds: growth that keeps a feather and never reaches too far, and shapes between shapes."""

import cv2
import numpy as np
import pytest

from gencomp_server.parts.bounds import between, reached, spread
from gencomp_server.parts.fit import from_model_frame, to_model_frame


def blob():
    coverage = np.zeros((96, 160, 1), np.float32)
    coverage[40:56, 60:90] = 1
    return coverage


def distance_from(shape):
    return cv2.distanceTransform((~shape).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


@pytest.mark.parametrize("grow_px", [2, 3, 8, 16, 40])
def test_when_a_roto_grows_then_it_never_reaches_further_than_it_may(grow_px):
    low = to_model_frame(blob(), (40, 24))[..., 0]  # the model works at a quarter
    grown = from_model_frame(spread(low, grow_px - 2), (160, 96))
    square = np.ones((2 * 4 * grow_px + 1, 2 * 4 * grow_px + 1), np.uint8)
    allowed = cv2.dilate((blob()[..., 0] > 0).astype(np.uint8), square) > 0
    assert not grown[~allowed].any()
    if grow_px >= 8:
        assert (grown > 0).sum() > 2 * (blob() > 0).sum()


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
    assert not grown[far > max(0, reach_px - 1)].any()
    if reach_px == 20:
        assert (grown[far <= 13] == 1).all()
        assert 0.3 < grown[far == 16].mean() < 0.7


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
