# SPDX-License-Identifier: Apache-2.0
"""To the model's range and back, 10,000 cases: what is exact, and how near the rest comes.

Values are halves from -0.5 to 65504, the largest there is; every channel may have another order of
magnitude, since that is where a matrix loses the small ones.
"""

import os

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gencomp_server.colour.modelrange import ModelRange
from gencomp_server.colour.spaces import REC709, resolve

STUDIO = "ocio://studio-config-v2.1.0_aces-v1.3_ocio-v2.3"
LINEAR = [
    *(("linear rec.709", ""), ("ACEScg", ""), ("ACES2065-1", ""), ("linear p3", "")),
    *(("linear rec.2020", ""), ("Linear ARRI Wide Gamut 4", STUDIO), ("green first", "aces.ocio")),
]
BENT = [("lifted", "named.ocio"), ("bent", "named.ocio"), ("bent", "aces.ocio")]
# A way there and back in float32 with one rounding between, through matrices whose entries are
# below 3: eight steps of float32 of the pixel's largest channel.
THERE_AND_BACK = 2.0**-21
# The curve and its inverse in float32 as well, up to the steepest highlight: far below half a step
# of half (2 ** -12), so that only a value that lies between two halves may fall to the other one.
THROUGH_THE_CURVE = 2.0**-13

half = st.floats(-0.5, 65504.0, width=16)
pixel = st.tuples(half, half, half)
pixels = st.lists(pixel, min_size=1, max_size=4)
exposure = st.sampled_from([0.0, -1.0, 2.0, 0.3])
linear = st.sampled_from(range(len(LINEAR)))
any_space = st.sampled_from(range(len(LINEAR) + len(BENT)))


def cases(count):
    """Return the settings of a property of so many cases: the same ones at every run.

    A run by default takes a tenth of them; GENCOMP_ALL_CASES=1 takes all ten thousand.
    """
    return settings(
        max_examples=count if os.environ.get("GENCOMP_ALL_CASES") else count // 10,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def ranges(shelf):
    """Return the model range of every space, those that are a matrix first."""

    def place(config):
        return str(shelf / config) if config.endswith(".ocio") else config

    return [ModelRange(0.0, resolve(name, place(config))) for name, config in LINEAR + BENT]


def light_of(values):
    return np.array(values, np.float32)


def largest(light):
    return np.abs(light).max(axis=-1, keepdims=True)


@given(which=any_space, values=pixels)
@example(which=1, values=[(-0.0, 65504.0, 6e-8)])
@cases(3000)
def test_where_nothing_changed_the_plate_comes_back_bit_for_bit(ranges, which, values):
    plate = light_of(values)
    seen = ranges[which].seen(plate)
    found = ranges[which].moved(plate, seen, seen.copy())
    assert np.array_equal(found.view(np.uint32), plate.view(np.uint32))


@given(which=any_space, values=pixels, changed=st.integers(0, 3), gain=st.floats(0, 4, width=16))
@cases(2000)
def test_only_the_pixels_that_changed_are_touched(ranges, which, values, changed, gain):
    plate = light_of([*values, (0.18, 0.18, 0.18)])
    seen = ranges[which].seen(plate)
    after = seen.copy()
    after[changed % len(plate)] *= np.float32(gain)
    found = ranges[which].moved(plate, seen, after)
    kept = (after == seen).all(axis=-1)
    assert np.array_equal(found[kept].view(np.uint32), plate[kept].view(np.uint32))
    assert np.isfinite(found).all()


@given(which=linear, values=pixels)
@cases(1500)
def test_a_matrix_and_its_inverse_lose_eight_steps_at_most(ranges, which, values):
    plate = light_of(values)
    found = ranges[which].unseen(ranges[which].seen(plate))
    assert (np.abs(found - plate) <= THERE_AND_BACK * largest(plate)).all()


@given(which=linear, values=pixels, stops=exposure)
@cases(1500)
def test_codes_give_the_light_back_highlights_and_negatives_too(ranges, which, values, stops):
    plate = light_of(values)
    model = ModelRange(stops, ranges[which].space)
    found = model.light(model.code(plate))
    assert (np.abs(found - plate) <= THROUGH_THE_CURVE * largest(plate)).all()


@given(which=linear, values=pixels, gain=st.sampled_from([0.0, 0.25, 0.5, 2.0]))
@cases(1000)
def test_a_gain_in_the_models_primaries_is_the_same_gain_on_the_plate(ranges, which, values, gain):
    plate = light_of(values)
    seen = ranges[which].seen(plate)
    found = ranges[which].moved(plate, seen, seen * np.float32(gain))
    assert (np.abs(found - plate * gain) <= THERE_AND_BACK * largest(plate)).all()


@given(which=linear, values=pixels, added=st.floats(0, 16, width=16))
@cases(1000)
def test_white_light_that_is_added_there_is_white_light_here(ranges, which, values, added):
    # Every one of these spaces has its white at equal channels.
    plate = light_of(values)
    seen = ranges[which].seen(plate)
    found = ranges[which].moved(plate, seen, seen + np.float32(added))
    # The sum in the model's primaries was rounded to float32 before it came back.
    assert (np.abs(found - (plate + added)) <= 1e-5 * added + THERE_AND_BACK * largest(found)).all()


def test_a_colour_outside_the_models_gamut_is_negative_there_and_kept(ranges):
    green = light_of([[0.0, 1.0, 0.0]])
    acescg = ranges[1]
    seen = acescg.seen(green)
    assert seen[0] == pytest.approx([-0.62179, 1.14080, -0.12897], abs=1e-5)
    darker = acescg.moved(green, seen, seen * np.float32(0.5))
    assert darker[0] == pytest.approx([0.0, 0.5, 0.0], abs=1e-6)


def test_what_opencolorio_bends_is_kept_as_a_remainder(ranges):
    bent = ranges[len(LINEAR) + 1]
    plate = light_of([[0.18, 0.5, 4.0]])
    seen = bent.seen(plate)
    assert seen[0] == pytest.approx([0.18**1.25, 0.5**1.25, 4.0**1.25], rel=1e-4)
    doubled = bent.moved(plate, seen, seen * np.float32(2.0))
    assert doubled[0] == pytest.approx(plate[0] * 2 ** (1 / 1.25), rel=1e-4)


def test_what_a_config_clips_is_put_back(shelf):
    clipped = ModelRange(0.0, resolve("clipped", str(shelf / "named.ocio")))
    plate = light_of([[-0.25, 0.5, 0.5]])
    seen = clipped.seen(plate)
    assert seen[0, 0] == 0.0
    after = seen + light_of([[0.0, 0.25, 0.0]])
    found = clipped.moved(plate, seen, after)
    assert found[0, 0] == -0.25
    assert found[0, 1] == pytest.approx((0.5**1.25 + 0.25) ** 0.8, rel=1e-5)


def test_a_pixel_has_the_same_bits_in_a_crop_as_in_the_frame(ranges):
    frame = np.random.default_rng(3).uniform(-0.5, 60, (131, 257, 3)).astype(np.float32)
    for model in ranges:
        crop = model.seen(frame[17:60, 33:90])
        assert np.array_equal(crop, model.seen(frame)[17:60, 33:90])


def test_a_plate_that_is_not_finite_is_kept_where_nothing_changed(ranges):
    plate = light_of([[np.nan, np.inf, -np.inf], [0.5, np.nan, 0.5], [0.5, 0.25, 0.125]])
    for model in ranges[: len(LINEAR)]:
        seen = model.seen(plate)
        found = model.moved(plate, seen, seen.copy())
        assert np.array_equal(found, plate, equal_nan=True)


def test_with_the_models_own_primaries_nothing_is_copied_to_be_seen():
    plate = light_of([[0.18, -0.5, 60.0]])
    model = ModelRange()
    assert model.seen(plate) is plate
    assert model.is_plain


def test_a_zero_keeps_its_sign_where_the_change_is_none():
    plate = light_of([[-0.0, 1.0, 0.0]])
    found = ModelRange().moved(plate, plate, light_of([[0.0, 2.0, 0.0]]))
    assert np.array_equal(np.signbit(found), [[True, False, False]])
    assert found[0, 1] == 2.0


def test_exposure_and_space_both_make_another_identity():
    acescg = resolve("ACEScg")
    made = [ModelRange(), ModelRange(1.0), ModelRange(0.0, acescg), ModelRange(1.0, acescg)]
    assert len({one.identity for one in made}) == 4
    assert ModelRange(0.0, REC709).identity == ModelRange().identity
