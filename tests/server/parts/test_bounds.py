# SPDX-License-Identifier: Apache-2.0
"""Bounds: growth that keeps a feather and never reaches too far."""

import cv2
import numpy as np
import pytest

from gencomp_server.parts.bounds import at_model_size, grow

SIZE = (40, 24)


def blob():
    coverage = np.zeros((96, 160, 1), np.float32)
    coverage[40:56, 60:90] = 1
    return coverage


@pytest.mark.parametrize("grow_px", [0, 1, 2, 3, 8, 16])
def test_when_a_roto_grows_then_it_never_reaches_further_than_it_may(grow_px):
    grown = grow(blob(), SIZE, grow_px)
    reach = 4 * grow_px  # the model works at a quarter
    square = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    allowed = cv2.dilate((blob()[..., 0] > 0).astype(np.uint8), square) > 0
    assert not grown[~allowed].any()
    assert (grown >= blob()).all()
    if grow_px >= 8:
        assert (grown > 0).sum() > 2 * (blob() > 0).sum()


def test_when_the_roto_has_a_feather_then_it_moves_outwards_and_stays_soft():
    ramp = np.tile(np.linspace(0.4, 0, 160, dtype=np.float32)[None, :, None], (96, 1, 1))
    grown = grow(ramp, SIZE, 10)
    assert grown.max() <= np.float32(0.4)
    row = grown[48, :, 0]
    moved = np.interp(np.arange(160) - 32, np.arange(160), ramp[48, :, 0])
    assert np.abs(row - moved)[40:150].max() < 0.02


def test_when_nothing_is_covered_then_nothing_grows():
    assert not grow(np.zeros((96, 160, 1), np.float32), SIZE, 16).any()


def test_when_a_bound_lets_in_one_plate_pixel_then_its_model_pixel_is_allowed():
    one = np.zeros((96, 160, 1), np.float32)
    one[41, 62] = 1
    seen = at_model_size(one, SIZE)
    assert seen.sum() == 1
    assert seen[10, 15]
