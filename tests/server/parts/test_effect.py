# SPDX-License-Identifier: Apache-2.0
"""The effect layer: its over on the plate is the result."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gencomp_server.parts.effect import effect_frame, solve_layer
from gencomp_server.parts.stack import over, ulp_distance

HALF = np.dtype(np.float16)
KINDS = pytest.mark.parametrize("kind", [np.float16, np.float32], ids=["half", "float"])


def solved(plate, result):
    """Solve a whole picture."""
    count = plate.shape[0] * plate.shape[1]
    colours = np.asarray(result, np.float32).reshape(-1, 3)
    return effect_frame(plate, np.arange(count), colours, np.ones(count, np.float32))


def worst_ulp(made, plate):
    again = over(made.effect, plate).astype(plate.dtype)
    return int(ulp_distance(again, made.result[..., : plate.shape[2]]).max())


@KINDS
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), stops=st.floats(-12, 8))
def test_when_plate_and_result_are_anything_then_over_gives_the_result(kind, seed, stops):
    rng = np.random.default_rng(seed)
    plate = (rng.uniform(-0.05, 1, (16, 16, 3)) * 2.0**stops).astype(kind)
    plate = np.clip(plate, -0.5, 60).astype(kind)
    wanted = np.clip(rng.uniform(0, 1.5, (16, 16, 3)) * 2.0**stops, 0, 60)
    made = solved(plate, wanted)
    assert worst_ulp(made, plate) == 0
    assert (made.effect >= 0).all()
    assert (made.effect[..., 3] <= 1).all()


def positive_pair(kind):
    rng = np.random.default_rng(1)
    plate, wanted = (2.0 ** rng.uniform(-8, 6, (2, 64, 64, 3))).astype(kind)
    return plate, wanted


def test_when_a_half_plate_is_positive_then_the_result_moves_by_one_step_at_most():
    plate, wanted = positive_pair(np.float16)
    made = solved(plate, wanted)
    assert int(ulp_distance(made.result[..., :3], wanted).max()) <= 1


def test_when_a_float_plate_is_positive_then_the_result_moves_by_rounding_of_the_plate_alone():
    # over is computed in float32: of a plate of 60 it cannot give a result of 0.004 any better
    plate, wanted = positive_pair(np.float32)
    made = solved(plate, wanted)
    far = np.abs(made.result[..., :3].astype(float) - wanted)
    assert (far <= 2.0**-23 * np.maximum(plate, wanted)).all()


def test_when_the_plate_is_negative_then_the_result_moves_by_no_more_than_its_step():
    plate = np.full((4, 4, 3), [-0.5, 0.5, 0.5], np.float16)
    wanted = np.full((4, 4, 3), [0.001, 0.25, 0.25], np.float32)
    made = solved(plate, wanted)
    assert worst_ulp(made, plate) == 0
    assert np.abs(made.result[..., :3].astype(np.float32) - wanted).max() <= 2.4e-4


def test_when_a_pure_shadow_falls_then_the_layer_is_black_with_its_alpha():
    plate = np.random.default_rng(2).uniform(0.05, 1, (32, 32, 3)).astype(np.float16)
    made = solved(plate, plate.astype(np.float32) * 0.625)
    alpha = made.effect[..., 3].astype(np.float32)
    assert np.abs(alpha - 0.375).max() < 1e-3
    black = made.effect[..., :3].astype(np.float32) <= 2.0**-9 * plate.astype(np.float32)
    assert black.all()


def test_when_light_is_added_then_the_layer_has_no_alpha():
    plate = np.full((4, 4, 3), 0.25, np.float16)
    made = solved(plate, np.full((4, 4, 3), 0.75, np.float32))
    assert not made.effect[..., 3].any()
    assert (made.effect[..., :3] == 0.5).all()
    assert (made.difference[..., :3] == 0.5).all()
    assert not made.difference[..., 3].any()


def test_when_pixels_are_not_named_then_they_are_the_plates_bits():
    plate = np.zeros((2, 3, 3), np.float16)
    plate[0, 0] = [np.nan, -0.0, np.inf]
    plate[0, 1] = 0.5
    made = effect_frame(plate, np.array([1]), np.full((1, 3), 0.25, np.float32), np.ones(1))
    same = made.result[..., :3].view(np.uint16) == plate.view(np.uint16)
    assert same.all(axis=2).tolist() == [[True, False, True], [True, True, True]]
    assert (made.result[..., 3] == 1).all()
    assert made.touched == 1


@pytest.mark.fault("F08")
def test_when_a_changed_pixel_is_not_finite_then_it_stays_as_it_is():
    plate = np.full((1, 2, 3), np.nan, np.float16)
    made = solved(plate, np.zeros((1, 2, 3), np.float32))
    assert made.touched == 0
    assert np.isnan(made.result[..., :3]).all()
    assert not made.effect.any()


def test_when_the_change_rounds_to_nothing_then_the_pixel_is_untouched():
    plate = np.full((1, 1, 3), 0.5, np.float16)
    made = solved(plate, plate.astype(np.float32) + 1e-9)
    assert (made.touched, float(made.matte.max())) == (0, 0.0)


@KINDS
def test_when_a_change_is_less_than_a_step_of_the_result_then_no_layer_shows_a_trace_of_it(kind):
    # A step of 1.0 is 2**-10 in half and 2**-23 in float: a light of a quarter of it is
    # representable by itself, and lost in the result.
    lost = np.float32(np.finfo(kind).eps / 4)
    plate = np.ones((1, 2, 3), kind)
    wanted = np.stack([plate[0, 0].astype(np.float64) + lost, np.full(3, 1.5)])[None]
    index = np.array([0, 1])
    made = effect_frame(plate, index, wanted.reshape(-1, 3).astype(np.float32), np.ones(2))
    assert (made.result[0, 0, :3] == 1).all()
    for layer in (made.effect, made.difference, made.matte):
        assert not layer[0, 0].any()
    assert (made.effect[0, 1, :3] == 0.5).all()
    assert made.touched == 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_when_the_result_is_the_plates_sample_then_effect_and_matte_are_zero(seed):
    rng = np.random.default_rng(seed)
    plate = rng.uniform(0.5, 4, (16, 16, 3)).astype(np.float16)
    near = plate.astype(np.float32) * rng.uniform(0.9995, 1.0005, plate.shape).astype(np.float32)
    made = solved(plate, near)
    same = (made.result[..., :3] == plate).all(axis=2)
    assert 0 < same.sum() < same.size
    assert not made.effect[same].any()
    assert not made.matte[same].any()
    assert made.effect[~same].any(axis=1).all()
    assert worst_ulp(made, plate) == 0


def test_when_the_plate_has_alpha_then_the_layer_goes_over_it_too():
    plate = np.full((1, 1, 4), [0.25, 0.25, 0.25, 0.5], np.float16)
    made = solved(plate, np.full((1, 1, 3), 0.125, np.float32))
    assert made.effect[0, 0].tolist() == [0, 0, 0, 0.5]
    assert made.result[0, 0].tolist() == [0.125, 0.125, 0.125, 0.75]


# --- any alpha above the least one ---------------------------------------------------------------


def stops_30(rng, shape):
    return 2.0 ** rng.uniform(-20, 10, shape)


@KINDS
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), wide=st.booleans())
def test_when_a_body_is_wished_for_then_over_gives_the_result_all_the_same(kind, seed, wide):
    rng = np.random.default_rng(seed)
    light = stops_30(rng, (2, 16, 16, 3)) if wide else rng.uniform(0, 60, (2, 16, 16, 3))
    plate, wanted = light.astype(kind)
    index, ones = np.arange(256), np.ones(256, np.float32)
    colours = wanted.reshape(-1, 3).astype(np.float32)
    made = effect_frame(plate, index, colours, ones, body=rng.uniform(0, 1, 256).astype(np.float32))
    assert worst_ulp(made, plate) == 0
    far = np.abs(made.result[..., :3].astype(float) - wanted)
    step = np.finfo(kind).eps * np.maximum(plate, wanted) + np.finfo(kind).smallest_subnormal
    assert (far <= (step if kind == np.float32 else np.finfo(kind).eps * wanted + 2.0**-24)).all()
    assert (made.effect >= 0).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_when_plates_are_negative_over_30_stops_then_over_gives_the_result(seed):
    rng = np.random.default_rng(seed)
    sign = np.where(rng.uniform(size=(16, 16, 3)) < 0.3, -1, 1)
    plate = (stops_30(rng, (16, 16, 3)) * sign).astype(np.float16)
    made = solved(plate, stops_30(rng, (16, 16, 3)))
    assert worst_ulp(made, plate) == 0


def test_when_a_body_is_wished_for_then_alpha_is_that_or_the_least_one():
    plate = np.full((2, 3), 0.5, np.float32)
    result = np.array([[0.75] * 3, [0.125] * 3], np.float32)
    layer = solve_layer(plate, result, HALF, at_least=np.array([0.25, 0.25], np.float32))
    assert layer.tolist() == [[0.375, 0.375, 0.375, 0.25], [0, 0, 0, 0.75]]


def test_when_what_is_negative_stays_then_a_body_is_not_forced_on_it():
    # Above alpha 0 the red would need colour below zero.
    plate = np.array([[-0.5, 0.5, 0.5]], np.float32)
    result = np.array([[-0.5, 0.75, 0.75]], np.float32)
    layer = solve_layer(plate, result, HALF, at_least=np.array([0.5], np.float32))
    assert layer.tolist() == [[0, 0.25, 0.25, 0]]


def test_when_the_body_is_wished_out_of_range_then_alpha_stays_in_it():
    plate = np.full((2, 3), 0.5, np.float32)
    layer = solve_layer(plate, plate + 0.25, HALF, at_least=np.array([2, -1], np.float32))
    assert layer[:, 3].tolist() == [1, 0]


# --- steadiness ----------------------------------------------------------------------------------


@KINDS
def test_when_a_shadow_is_pure_then_alpha_is_the_truth_within_half_a_step_or_so(kind):
    rng = np.random.default_rng(5)
    plate = (2.0 ** rng.uniform(-6, 5, (64, 64, 3))).astype(kind)
    alpha = np.linspace(0.01, 0.95, 64, dtype=np.float32)[None, :, None]
    wanted = (plate.astype(np.float32) * (1 - alpha)).astype(kind)
    made = solved(plate, wanted)
    off = made.effect[..., 3].astype(np.float32) - alpha[..., 0]
    assert np.abs(off).max() < (1e-3 if kind == np.float16 else 1e-6)
    # No bias upwards by the worst of three roundings.
    assert abs(float(off.mean())) < (1e-4 if kind == np.float16 else 1e-7)
    assert int(ulp_distance(made.result[..., :3], wanted).max()) <= 1


def test_when_a_grainy_plate_stands_still_under_a_shadow_then_alpha_flickers_less_than_by_channel():
    rng = np.random.default_rng(6)
    ours, plain = [], []
    for _ in range(8):
        plate = np.clip(0.3 + rng.normal(0, 0.02, (64, 64, 3)), 0.1, None).astype(np.float16)
        wanted = (plate.astype(np.float32) * np.float32(0.7)).astype(np.float16)
        ours.append(solved(plate, wanted).effect[..., 3].astype(np.float32))
        ratio = wanted.astype(np.float32) / plate.astype(np.float32)
        plain.append(1 - ratio.min(axis=2))
    steps = [float(np.abs(np.diff(np.stack(of), axis=0)).mean()) for of in (ours, plain)]
    assert steps[0] < 0.85 * steps[1]


def test_when_a_shadow_is_no_deeper_than_half_then_most_of_its_layer_is_black_to_the_bit():
    plate = np.random.default_rng(7).uniform(0.05, 1, (64, 64, 3)).astype(np.float16)
    made = solved(plate, plate.astype(np.float32) * np.float32(0.7))
    assert (made.effect[..., :3] == 0).all(axis=2).mean() > 0.9


def test_when_channels_ask_for_different_alphas_then_the_greatest_is_taken():
    plate = np.full((1, 1, 3), 0.5, np.float16)
    made = solved(plate, np.array([[[0.25, 0.375, 0.5]]], np.float32))
    assert made.effect[0, 0].tolist() == [0, 0.125, 0.25, 0.5]


def test_when_alpha_is_rounded_up_then_it_is_raised_by_less_than_a_step():
    plate, wanted = (2.0 ** np.random.default_rng(8).uniform(-8, 6, (2, 4096, 3))).astype(
        np.float32
    )
    plate = plate.astype(np.float16).astype(np.float32)
    layer = solve_layer(plate, wanted, HALF)
    least = np.clip(1 - (wanted / plate).min(axis=1), 0, 1)
    raised = layer[:, 3] - least
    assert raised.min() >= -(2.0**-11)
    assert raised.max() <= 2.0**-11
