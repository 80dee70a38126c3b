# SPDX-License-Identifier: Apache-2.0
"""From model size to some plate pixels, held to the filter written out pixel by pixel."""

import math

import numpy as np
import pytest

from gencomp_server.parts.fit import from_model_frame
from gencomp_server.parts.upsample import bilinear, joint_bilateral

TOLERANCE = 1e-5  # float32 sums in another order
SIZES = [(9, 14), (23, 37), (7, 31)]  # larger than the model, not a multiple; and one side smaller


def fields(seed=1):
    rng = np.random.default_rng(seed)
    low = rng.uniform(-1, 2, (4, 8, 13)).astype(np.float32)
    guide = rng.uniform(0.3, 0.6, (3, 8, 13)).astype(np.float32)
    return low, guide


def code_of(size, seed=2):
    return np.random.default_rng(seed).uniform(0.3, 0.6, (3, *size)).astype(np.float32)


def at_one_pixel(low, guide, size, y, x, colour):
    """The definition: 5 by 5 model pixels, by distance and likeness; sums."""
    (height, width), total = low.shape[1:], [0.0] * len(low)
    row, column = (y + 0.5) * height / size[0] - 0.5, (x + 0.5) * width / size[1] - 0.5
    for j in range(round(row) - 2, round(row) + 3):
        for i in range(round(column) - 2, round(column) + 3):
            v, u = min(max(j, 0), height - 1), min(max(i, 0), width - 1)
            far = ((j - row) ** 2 + (i - column) ** 2) / (2 * 1.2**2)
            unlike = sum((float(colour[c]) - float(guide[c, v, u])) ** 2 for c in range(3))
            weight = math.exp(-far) * (math.exp(-unlike / (2 * 0.04**2)) + 1e-3)
            total = [t + weight * float(low[c, v, u]) for c, t in enumerate(total)]
    return total


@pytest.mark.parametrize("size", SIZES)
def test_the_filter_is_its_definition_at_every_wanted_pixel(size):
    low, guide = fields()
    code = code_of(size)
    wanted = np.random.default_rng(3).uniform(size=size) < 0.4
    wanted[2] = False
    found = joint_bilateral(low, guide, wanted, lambda rows, columns: code[:, rows][..., columns])
    expected = [
        at_one_pixel(low, guide, size, y, x, code[:, y, x]) for y, x in np.argwhere(wanted).tolist()
    ]
    assert np.abs(found.T - np.array(expected)).max() < TOLERANCE


def test_rows_and_columns_without_a_wanted_pixel_are_not_looked_at():
    low, guide = fields()
    code, asked = code_of((40, 65)), []
    wanted = np.zeros((40, 65), bool)
    wanted[11, [7, 50]] = True

    def seen(rows, columns):
        asked.append((rows, columns.tolist()))
        return code[:, rows][..., columns]

    joint_bilateral(low, guide, wanted, seen)
    assert asked == [(slice(10, 15), [7, 50])]


def test_where_nothing_is_wanted_nothing_comes():
    low, guide = fields()
    found = joint_bilateral(low, guide, np.zeros((16, 26), bool), lambda *_: code_of((16, 26)))
    assert found.shape == (4, 0)
    assert bilinear(low, (16, 26), np.empty(0, np.intp)).shape == (4, 0)


def test_a_level_field_stays_level_whatever_the_plate_looks_like():
    low, guide = fields()
    low[:] = 1
    low[0] = 0.25
    wanted = np.ones((33, 50), bool)
    code = code_of((33, 50))
    found = joint_bilateral(low, guide, wanted, lambda rows, columns: code[:, rows][..., columns])
    assert found[0] / found[3] == pytest.approx(np.full(33 * 50, 0.25), rel=1e-5)


@pytest.mark.parametrize("size", [(9, 14), (24, 39), (65, 40)])
def test_the_plain_interpolation_is_that_of_the_fit(size):
    low, _ = fields()
    index = np.flatnonzero(np.random.default_rng(4).uniform(size=size) < 0.5)
    whole = from_model_frame(low.transpose(1, 2, 0), size[::-1]).reshape(-1, 4)
    assert np.abs(bilinear(low, size, index).T - whole[index]).max() < TOLERANCE
