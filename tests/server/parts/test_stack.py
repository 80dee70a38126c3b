# SPDX-License-Identifier: Apache-2.0
"""Stacks of layers and how far they are from their plate."""

import numpy as np
import pytest

from gencomp_server.parts.stack import over, stack, stack_error, ulp_distance


def halves(*values: float) -> np.ndarray:
    return np.array(values, np.float16)


def pixel(*values: float) -> np.ndarray:
    return np.array(values, np.float16).reshape(1, 1, -1)


@pytest.mark.parametrize(
    ("a", "b", "steps"),
    [
        (1.0, 1.0009765625, 1),
        (1.0, 0.99951171875, 1),
        (0.0, -0.0, 0),
        (0.0, 5.9604645e-08, 1),
        (-5.9604645e-08, 5.9604645e-08, 2),
        (65504.0, np.inf, 1),
        (np.nan, np.nan, 0),
        (2.0, 1.0, 1024),
    ],
)
def test_distance_counts_representable_halves(a, b, steps):
    assert ulp_distance(halves(a), halves(b))[0] == steps


def test_distance_counts_representable_floats():
    one = np.float32([1.0])
    assert ulp_distance(one, np.nextafter(one, np.float32(2)))[0] == 1


def test_over_adds_what_the_layer_lets_through():
    result = over(pixel(0.25, 0.0, -0.5, 0.75), pixel(1.0, 8.0, 4.0, 1.0))
    assert result.ravel().tolist() == [0.5, 2.0, 0.5, 1.0]


def test_over_with_alpha_zero_is_plus():
    assert over(pixel(0.25, 0.5, 1.0, 0.0), pixel(1.0, 1.0, 1.0)).ravel().tolist() == [
        1.25,
        1.5,
        2.0,
    ]


def test_the_first_layer_is_in_front():
    front, back = pixel(1.0, 1.0, 1.0, 1.0), pixel(0.0, 0.0, 0.0, 1.0)
    assert stack(pixel(5.0, 5.0, 5.0), [front, back]).ravel().tolist() == [1.0, 1.0, 1.0]


def test_a_stack_one_step_off_is_counted_but_not_beyond():
    plate, background = pixel(1.0, 1.0, 1.0), pixel(9.0, 9.0, 9.0, 1.0)
    found = stack_error(plate, background, [pixel(1.0, 1.0009765625, 1.0, 1.0)])
    assert (found.max_ulp, found.beyond, found.differing, found.covered) == (1, 0, 0, 1)


def test_a_stack_two_steps_off_is_beyond():
    plate, background = pixel(1.0, 1.0, 1.0), pixel(9.0, 9.0, 9.0, 1.0)
    found = stack_error(plate, background, [pixel(1.0, 1.001953125, 1.0, 1.0)])
    assert (found.max_ulp, found.beyond) == (2, 1)


def test_an_uncovered_sample_must_be_the_plate_bit_for_bit():
    nothing = pixel(0.0, 0.0, 0.0, 0.0)
    found = stack_error(pixel(0.0, 1.0, 1.0), pixel(-0.0, 1.0, 1.0, 1.0), [nothing])
    assert (found.differing, found.covered) == (1, 0)


def test_nan_and_infinity_are_kept_where_nothing_covers():
    plate = pixel(np.nan, np.inf, -np.inf)
    background = np.concatenate([plate, pixel(1.0)], axis=2)
    found = stack_error(plate, background, [pixel(0.0, 0.0, 0.0, 0.0)])
    assert (found.differing, found.beyond) == (0, 0)


def test_a_layer_of_colour_without_alpha_covers():
    found = stack_error(
        pixel(2.0, 1.0, 1.0), pixel(1.0, 1.0, 1.0, 1.0), [], pixel(1.0, 0.0, 0.0, 0.0)
    )
    assert (found.max_ulp, found.covered) == (0, 1)
