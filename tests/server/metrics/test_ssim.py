# SPDX-License-Identifier: Apache-2.0
"""SSIM against its formula, written out for single windows."""

import math

import numpy as np
import pytest

from gencomp_server.metrics.ssim import ssim_map


def written_out(a, b):
    """Return the SSIM of one window of 11 x 11 by plain sums."""
    weights = [[math.exp(-(x * x + y * y) / 4.5) for x in range(-5, 6)] for y in range(-5, 6)]
    total = sum(map(sum, weights))
    mean_a = mean_b = square_a = square_b = product = 0.0
    for row in range(11):
        for column in range(11):
            weight = weights[row][column] / total
            p, q = float(a[row, column]), float(b[row, column])
            mean_a, mean_b = mean_a + weight * p, mean_b + weight * q
            square_a, square_b = square_a + weight * p * p, square_b + weight * q * q
            product += weight * p * q
    var_a, var_b = square_a - mean_a**2, square_b - mean_b**2
    covariance = product - mean_a * mean_b
    up = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
    return up / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4))


def test_every_window_has_the_value_of_the_formula():
    ys, xs = np.mgrid[0:12, 0:13].astype(np.float64)
    a, b = 0.5 + 0.3 * np.sin(xs) * np.cos(ys), 0.4 + 0.3 * np.sin(xs + 0.3) * np.cos(ys)
    found = ssim_map(a[..., None], b[..., None])
    assert found.shape == (2, 3, 1)
    for y in range(2):
        for x in range(3):
            expected = written_out(a[y : y + 11, x : x + 11], b[y : y + 11, x : x + 11])
            assert found[y, x, 0] == pytest.approx(expected, abs=1e-12)


def test_equal_pictures_are_one():
    picture = np.random.default_rng(1).random((20, 20, 3)) * 8
    np.testing.assert_allclose(ssim_map(picture, picture), 1.0, rtol=0, atol=1e-12)


def test_two_flat_pictures_differ_by_brightness_alone():
    found = ssim_map(np.full((11, 11, 1), 0.2), np.full((11, 11, 1), 0.6))
    # (2 * 0.12 + 1e-4) / (0.04 + 0.36 + 1e-4)
    assert found[0, 0, 0] == pytest.approx(0.2401 / 0.4001, abs=1e-9)
