# SPDX-License-Identifier: Apache-2.0
"""The working range: bounded, invertible, known points."""

import math

import numpy as np
import pytest

from gencomp_server.colour import modelrange

# Published points of the curve (knee 0.5, white 16), rounded to three decimals.
POINTS = [(0.0, 0.0), (0.18, 0.461), (1.0, 0.836), (4.0, 0.927), (16.0, 1.0), (60.0, 1.067)]


def every_half() -> np.ndarray:
    return np.arange(65536, dtype=np.uint16).view(np.float16)


@pytest.mark.parametrize("exposure", [0.0, 2.0, -3.0])
def test_every_finite_half_comes_back_bit_for_bit(exposure):
    halves = every_half()
    halves = halves[np.isfinite(halves)]
    coded = modelrange.encode(halves.astype(np.float32), exposure=exposure)
    back = modelrange.decode(coded, exposure=exposure).astype(np.float16)
    assert np.isfinite(coded).all()
    assert np.array_equal(back.view(np.uint16), halves.view(np.uint16))


@pytest.mark.parametrize(("light", "code"), POINTS)
def test_the_curve_goes_through_its_published_points(light, code):
    coded = float(modelrange.encode(np.float32([light]))[0])
    assert coded == pytest.approx(code, abs=6e-4)


def test_white_lands_on_one():
    assert float(modelrange.encode(np.float32([16.0]))[0]) == pytest.approx(1.0, abs=1e-6)


def test_negative_light_mirrors_positive_light():
    light = np.float32([0.001, 0.2, 3.0, 5000.0])
    assert np.array_equal(modelrange.encode(-light), -modelrange.encode(light))


def test_the_curve_rises_everywhere():
    light = np.sort(every_half()[:0x7C00]).astype(np.float32)
    assert (np.diff(modelrange.encode(light)) > 0).all()


def test_value_and_slope_join_at_the_knee():
    step = 1e-3
    below, knee, above = modelrange.encode(np.float32([0.5 - step, 0.5, 0.5 + step])).astype(float)
    assert (above - knee) / (knee - below) == pytest.approx(1.0, abs=0.02)


def test_infinity_and_nan_stay_what_they_are():
    coded = modelrange.decode(modelrange.encode(np.float32([math.inf, -math.inf, math.nan])))
    assert coded[0] == math.inf
    assert coded[1] == -math.inf
    assert math.isnan(coded[2])


def test_exposure_moves_grey_by_stops():
    assert np.array_equal(
        modelrange.encode(np.float32([0.18]), exposure=1.0), modelrange.encode(np.float32([0.36]))
    )


def test_when_the_slope_is_asked_then_it_is_the_derivative_of_the_curve():
    light = np.array([0.001, 0.01, 0.18, 0.5, 1.0, 4.0, 16.0])
    step = light * 1e-3
    after, before = (
        modelrange.encode((light + sign * step).astype(np.float32)) for sign in (1, -1)
    )
    measured = (after.astype(float) - before) / (2 * step)
    assert modelrange.slope(light.astype(np.float32)) == pytest.approx(measured, rel=5e-3)
    assert modelrange.slope(np.float32([-0.18]))[0] == modelrange.slope(np.float32([0.18]))[0]
