# SPDX-License-Identifier: Apache-2.0
"""parts/inpaint.py: smooth filling, and filling by copying."""

import numpy as np
import pytest

from gencomp_server.parts import inpaint


def hole(height, width, y0, y1, x0, x1):
    known = np.ones((height, width), np.bool_)
    known[y0:y1, x0:x1] = False
    return known


def test_smooth_filling_keeps_known_pixels_bit_for_bit_and_stays_between_them():
    rng = np.random.default_rng(1)
    picture = rng.random((40, 50, 3), dtype=np.float32)
    known = hole(40, 50, 10, 25, 12, 30)

    filled = inpaint.fill_smooth(picture, known)

    assert np.array_equal(filled[known], picture[known])
    assert filled.min() >= picture[known].min()
    assert filled.max() <= picture[known].max()


def test_smooth_filling_of_a_level_picture_is_level():
    picture = np.full((33, 47, 3), 0.25, np.float32)
    picture[5:30, 6:40] = 99.0

    filled = inpaint.fill_smooth(picture, hole(33, 47, 5, 30, 6, 40))

    assert filled == pytest.approx(np.full((33, 47, 3), 0.25), abs=1e-5)


def test_smooth_filling_where_nothing_is_known_is_black():
    picture = np.ones((9, 9, 3), np.float32)

    assert not inpaint.fill_smooth(picture, np.zeros((9, 9), np.bool_)).any()


def stripes():
    """Return a pattern that repeats every 8 pixels across. [96,128,3]."""
    wave = 0.5 + 0.4 * np.sin(np.arange(128) * (2 * np.pi / 8))
    return np.repeat(np.repeat(wave[None, :, None], 96, 0), 3, 2).astype(np.float32)


def test_copying_continues_a_pattern():
    picture, known = stripes(), hole(96, 128, 30, 62, 50, 78)

    shifts = inpaint.fill_by_shifts(picture, known, ~known, np.random.default_rng(0))

    ys, xs = np.nonzero(~known)
    copied = picture[ys + shifts[ys, xs, 1], xs + shifts[ys, xs, 0]]
    assert np.abs(copied - picture[ys, xs]).mean() < 0.02


def test_copying_takes_only_known_pixels_and_moves_nothing_else():
    picture, known = stripes(), hole(96, 128, 30, 62, 50, 78)

    shifts = inpaint.fill_by_shifts(picture, known, ~known, np.random.default_rng(0))

    ys, xs = np.nonzero(~known)
    assert known[ys + shifts[ys, xs, 1], xs + shifts[ys, xs, 0]].all()
    assert not shifts[known].any()


def test_copying_answers_the_same_for_the_same_generator():
    picture, known = stripes(), hole(96, 128, 30, 62, 50, 78)

    once = inpaint.fill_by_shifts(picture, known, ~known, np.random.default_rng(7))
    twice = inpaint.fill_by_shifts(picture, known, ~known, np.random.default_rng(7))

    assert np.array_equal(once, twice)


def test_copying_with_nothing_known_or_nothing_wanted_moves_nothing():
    picture = stripes()
    nobody = np.zeros((96, 128), np.bool_)

    assert not inpaint.fill_by_shifts(picture, nobody, ~nobody, np.random.default_rng(0)).any()
    assert not inpaint.fill_by_shifts(picture, ~nobody, nobody, np.random.default_rng(0)).any()
