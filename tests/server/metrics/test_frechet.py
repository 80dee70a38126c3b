# SPDX-License-Identifier: Apache-2.0
"""The Fréchet distance between Gaussians whose distance is known."""

import numpy as np
import pytest

from gencomp_server.metrics.frechet import frechet_distance


def test_equal_clouds_are_no_distance_apart():
    cloud = np.random.default_rng(2).random((6, 40))
    assert frechet_distance(cloud, cloud) == pytest.approx(0.0, abs=1e-9)


def test_in_one_dimension_it_is_the_means_and_the_deviations():
    # Means 0 and 3, deviations (n - 1) of sqrt(2) and 2 sqrt(2): 9 + 2.
    assert frechet_distance([[-1.0], [1.0]], [[1.0], [5.0]]) == pytest.approx(11.0)


def test_with_commuting_covariances_each_axis_adds_its_own():
    # Deviations along the axes: 2/sqrt(3) and 4/sqrt(3) against 6/sqrt(3) and 2/sqrt(3); the axes
    # are uncorrelated: (4² + 2²) / 3 + 1² of the means.
    corners = np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]], float)
    one, other = corners * [1, 2], corners * [3, 1] + [0, 1]
    assert frechet_distance(one, other) == pytest.approx(20 / 3 + 1)


def test_uncorrelated_directions_share_nothing():
    # Traces 2 and 2, no overlap: 4.
    assert frechet_distance([[-1, 0], [1, 0]], [[0, -1], [0, 1]]) == pytest.approx(4.0)
