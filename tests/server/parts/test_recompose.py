# SPDX-License-Identifier: Apache-2.0
"""Exact recomposition: the plate comes back, and every difference is where it belongs."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gencomp_server.parts import stack as stacks
from gencomp_server.parts.noise import NoiseFloor
from gencomp_server.parts.recompose import APART, FOLDED, recompose_frame
from gencomp_server.parts.stack import stack_error, ulp_distance

HALF, FLOAT = np.float16, np.float32


def flat_noise(sigma: float) -> NoiseFloor:
    level = np.float32([0.0])
    return NoiseFloor(level, np.full((1, 3), sigma, FLOAT), np.full((1, 3), sigma / 5, FLOAT))


def one(plate, clean, *alphas, kind=HALF, **settings):
    """Recompose a single grey pixel."""
    frame = np.full((1, 1, 3), plate, kind)
    under = np.full((1, 1, 3), clean, FLOAT)
    return recompose_frame(frame, under, [np.full((1, 1), a, FLOAT) for a in alphas], **settings)


def compose(background, layers, residual=None):
    """The compositor's graph, spelt out: from the back, in float32, rounded once."""
    out = background[..., :3].astype(FLOAT)
    for layer in [*([] if residual is None else [residual]), *layers][::-1]:
        f = layer.astype(FLOAT)
        out = f[..., :3] + out * (FLOAT(1) - f[..., 3:])
    return out.astype(background.dtype)


def torture(kind, layers, negative, seed, side=200):
    """Values over 30 stops, related and unrelated, with zeros, opaque and absent layers."""
    rng = np.random.default_rng([seed, layers, int(negative * 100)])
    size = (side, side, 3)
    plate = np.minimum(2.0 ** rng.uniform(-15, 15, size), 60000)
    near = np.minimum(plate * 2.0 ** rng.uniform(-0.2, 0.5, size), 60000)
    far = np.minimum(2.0 ** rng.uniform(-15, 15, size), 60000)
    clean = np.where(rng.random((side, side, 1)) < 0.5, near, far)
    plate = np.where(rng.random(size) < negative, -plate, plate)
    clean = np.where(rng.random(size) < negative, -clean, clean)
    plate = np.where(rng.random(size) < 0.02, 0, plate)
    alphas = []
    for _ in range(layers):
        alpha = rng.random((side, side))
        alpha[rng.random((side, side)) < 0.1] = 1
        alpha[rng.random((side, side)) < 0.3] = 0
        alphas.append(alpha.astype(FLOAT))
    return plate.astype(kind), clean.astype(FLOAT), alphas


@pytest.mark.parametrize("residual", [FOLDED, APART])
@pytest.mark.parametrize("negative", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("layers", [1, 2, 3, 8])
@pytest.mark.parametrize("kind", [HALF, FLOAT])
def test_over_gives_the_plate_back_within_one_step_over_30_stops(kind, layers, negative, residual):
    plate, clean, alphas = torture(kind, layers, negative, seed=7)
    made = recompose_frame(plate, clean, alphas, residual=residual)
    result = compose(made.background, made.layers, made.residual)
    assert int((ulp_distance(result, plate) > 1).sum()) == 0
    found = stack_error(plate, made.background, made.layers, made.residual)
    assert (found.beyond, found.differing) == (0, 0)


@pytest.mark.parametrize("residual", [FOLDED, APART])
@pytest.mark.parametrize("layers", [1, 2, 8])
@pytest.mark.parametrize("kind", [HALF, FLOAT])
def test_grainy_shadows_give_the_plate_back_within_one_step(kind, layers, residual):
    rng = np.random.default_rng([3, layers])
    clean = rng.random((120, 160, 3)).astype(FLOAT)
    alphas = [(rng.random((120, 160)) * 0.3).astype(FLOAT) for _ in range(layers)]
    through = np.prod([1 - a for a in alphas], axis=0)[..., None]
    plate = (clean * through + rng.normal(0, 0.01, clean.shape)).astype(kind)
    made = recompose_frame(plate, clean, alphas, noise=flat_noise(0.01), residual=residual)
    result = compose(made.background, made.layers, made.residual)
    assert int((ulp_distance(result, plate) > 1).sum()) == 0


PIXELS = hnp.arrays(
    HALF, (2, 3, 3), elements=st.floats(width=16, allow_nan=True, allow_infinity=True)
)
CLEAN = hnp.arrays(
    FLOAT, (2, 3, 3), elements=st.floats(-70000, 70000, width=32, allow_subnormal=True)
)
ALPHAS = hnp.arrays(FLOAT, (3, 2, 3), elements=st.floats(0, 1, width=32))


@settings(max_examples=300, deadline=None)
@given(plate=PIXELS, clean=CLEAN, alphas=ALPHAS, residual=st.sampled_from([FOLDED, APART]))
def test_any_plate_comes_back(plate, clean, alphas, residual):
    made = recompose_frame(plate, clean, list(alphas), noise=flat_noise(0.01), residual=residual)
    found = stack_error(plate, made.background, made.layers, made.residual)
    assert (found.beyond, found.differing) == (0, 0)
    assert all(np.isfinite(layer).all() for layer in made.layers)


def test_where_nothing_covers_the_background_is_the_plates_own_bits():
    plate = np.array([[[-0.0, np.nan, np.inf], [6e-8, -np.inf, 65504]]], HALF)
    made = recompose_frame(plate, np.ones((1, 2, 3), FLOAT), [np.zeros((1, 2), FLOAT)])
    assert made.background[..., :3].tobytes() == plate.tobytes()
    assert not made.layers[0].any()
    assert made.covered_share == 0.0


@pytest.mark.fault("F08")
def test_a_pixel_that_is_not_finite_is_never_covered():
    plate = np.array([[[1.0, np.nan, 1.0], [np.inf, 0.0, -0.0]]], HALF)
    made = recompose_frame(plate, np.ones((1, 2, 3), FLOAT), [np.ones((1, 2), FLOAT)])
    assert made.background[..., :3].tobytes() == plate.tobytes()
    assert not made.layers[0].any()


def test_outside_the_coverage_given_no_layer_covers():
    plate = np.full((1, 2, 3), 0.3, HALF)
    covered = np.array([[True, False]])
    made = recompose_frame(
        plate, np.ones((1, 2, 3), FLOAT), [np.full((1, 2), 0.8, FLOAT)], covered=covered
    )
    assert made.layers[0][0, 1].tolist() == [0, 0, 0, 0]
    assert made.background[0, 1, 0] == plate[0, 1, 0]
    assert made.background[0, 0, 0] == 1.0


def test_a_trace_of_alpha_is_no_coverage():
    made = one(0.3, 0.5, 1e-5)
    assert made.covered_share == 0.0


def test_a_shadow_that_explains_the_plate_is_black():
    made = one(0.25, 0.5, 0.5)
    assert made.layers[0].ravel().tolist() == [0, 0, 0, 0.5]
    assert made.background.ravel().tolist() == [0.5, 0.5, 0.5, 1.0]


def test_light_that_alpha_does_not_explain_is_the_front_layers_colour():
    assert one(1.5, 0.5, 0.5).layers[0].ravel().tolist() == [1.25, 1.25, 1.25, 0.5]


def test_darkness_that_alpha_does_not_explain_raises_alpha_and_rounds_it_up():
    made = one(0.2, 0.5, 0.5)
    red, _, _, alpha = made.layers[0].ravel().tolist()
    assert alpha == 0.60009765625  # the least half that is not below 1 - half(0.2) / 0.5
    assert 0 <= red < 1e-4
    assert made.raised_share == 1.0


def test_no_colour_is_negative_where_the_plate_is_not():
    plate, clean, alphas = torture(HALF, 3, 0.0, seed=2)
    made = recompose_frame(plate, clean, alphas)
    assert all((layer[..., :3] >= 0).all() for layer in made.layers)


def test_alpha_only_ever_rises_and_the_share_is_told():
    plate, clean, alphas = torture(HALF, 1, 0.0, seed=5)
    made = recompose_frame(plate, clean, alphas)
    given_alpha = np.where(alphas[0] < 2.0**-12, 0, alphas[0]).astype(HALF)
    assert (made.layers[0][..., 3] >= given_alpha).all()
    raised = (made.layers[0][..., 3] > given_alpha).sum()
    assert made.raised_share == raised / (given_alpha > 0).sum()


def test_an_opaque_layer_is_the_plates_own_pixel():
    plate = np.array([[[0.1, 7.3, -0.02]]], HALF)
    made = recompose_frame(plate, np.ones((1, 1, 3), FLOAT), [np.ones((1, 1), FLOAT)])
    assert made.layers[0][0, 0, :3].tobytes() == plate.tobytes()


def test_highlights_and_negatives_survive_under_a_soft_edge():
    plate = np.array([[[60000.0, -0.5, 900.0]]], HALF)
    made = recompose_frame(plate, np.full((1, 1, 3), 0.5, FLOAT), [np.full((1, 1), 0.4, FLOAT)])
    assert int(ulp_distance(compose(made.background, made.layers), plate).max()) <= 1
    assert made.layers[0][0, 0, 1] < 0


def test_a_removed_shadow_shows_this_frames_own_grain():
    rng = np.random.default_rng(4)
    plate = (0.35 + rng.normal(0, 0.01, (40, 40, 3))).astype(HALF)
    clean, alpha = np.full((40, 40, 3), 0.5, FLOAT), np.full((40, 40), 0.3, FLOAT)
    made = recompose_frame(plate, clean, [alpha], noise=flat_noise(0.01))
    black = ~made.layers[0][..., :3].any(axis=2)
    grain = made.background[..., :3].astype(FLOAT)[black]
    # 0.01 of the shadowed plate is 0.01 / 0.7 of the lit one.
    assert made.grain_share > 0.99
    assert grain.std() == pytest.approx(0.01 / 0.7, rel=0.05)
    assert black.mean() > 0.99
    assert (made.layers[0][..., 3] == HALF(0.3)).mean() > 0.99


def test_under_a_layer_more_than_half_opaque_the_front_takes_the_grain():
    rng = np.random.default_rng(4)
    plate = (0.2 + rng.normal(0, 0.01, (20, 20, 3))).astype(HALF)
    clean, alpha = np.full((20, 20, 3), 0.5, FLOAT), np.full((20, 20), 0.6, FLOAT)
    made = recompose_frame(plate, clean, [alpha], noise=flat_noise(0.01))
    assert made.grain_share == 0.0
    assert (made.background[..., :3] == 0.5).all()


def test_a_difference_larger_than_grain_stays_with_the_front():
    plate = np.full((20, 20, 3), 0.35, HALF)
    plate[10, 10] = 0.6
    clean, alpha = np.full((20, 20, 3), 0.5, FLOAT), np.full((20, 20), 0.3, FLOAT)
    made = recompose_frame(plate, clean, [alpha], noise=flat_noise(0.01))
    assert made.background[10, 10, 0] == 0.5
    assert float(made.layers[0][10, 10, 0]) == pytest.approx(0.25, abs=1e-3)


def test_a_shadow_too_light_all_over_is_deepened_not_left_in_the_background():
    plate = np.full((30, 30, 3), 0.33, HALF)
    clean, alpha = np.full((30, 30, 3), 0.5, FLOAT), np.full((30, 30), 0.3, FLOAT)
    made = recompose_frame(plate, clean, [alpha], noise=flat_noise(0.01))
    assert float(made.layers[0][15, 15, 3]) == pytest.approx(0.34, abs=0.02)
    assert float(made.background[15, 15, 0]) == pytest.approx(0.5, abs=0.02)


def test_a_residual_apart_is_added_by_over_and_by_plus_alike():
    rng = np.random.default_rng(4)
    plate = (0.35 + rng.normal(0, 0.01, (20, 20, 3))).astype(HALF)
    clean, alpha = np.full((20, 20, 3), 0.5, FLOAT), np.full((20, 20), 0.3, FLOAT)
    made = recompose_frame(plate, clean, [alpha], noise=flat_noise(0.01), residual=APART)
    under = stacks.stack(made.background[..., :3], made.layers)
    plus = (under + made.residual[..., :3].astype(FLOAT)).astype(HALF)
    assert not made.residual[..., 3].any()
    assert plus.tobytes() == compose(made.background, made.layers, made.residual).tobytes()
    assert (made.background[..., :3] == 0.5).all()
    assert made.raised_share == 0.0
    assert float(np.abs(made.residual[..., :3]).astype(FLOAT).mean()) == pytest.approx(
        0.008, abs=0.001
    )  # the mean size of Gaussian grain is 0.8 sigma


def test_a_residual_apart_spares_alpha_from_being_raised():
    made = one(0.2, 0.5, 0.5, residual=APART)
    assert made.layers[0].ravel().tolist() == [0, 0, 0, 0.5]
    assert float(made.residual[0, 0, 0]) == pytest.approx(-0.05, abs=1e-3)


def test_without_a_residual_layer_none_is_made():
    assert one(0.2, 0.5, 0.5).residual is None


def test_what_is_behind_an_opaque_layer_is_transparent_and_told():
    made = one(0.8, 0.5, 1.0, 0.7)
    assert made.layers[1].ravel().tolist() == [0, 0, 0, 0]
    assert made.hidden_share == (0.0, 1.0)


def test_crossing_shadows_both_stay_black():
    made = one(0.125, 0.5, 0.5, 0.5)
    assert made.layers[0].ravel().tolist() == [0, 0, 0, 0.5]
    assert made.layers[1].ravel().tolist() == [0, 0, 0, 0.5]


def test_known_colours_are_kept_behind_the_front():
    colours = [np.full((1, 1, 3), 0.1, FLOAT), np.full((1, 1, 3), 0.25, FLOAT)]
    made = one(0.35, 0.5, 0.5, 0.5, colours=colours)
    assert made.layers[1].ravel().tolist() == [0.25, 0.25, 0.25, 0.5]
    assert float(made.layers[0][0, 0, 0]) == pytest.approx(0.35 - 0.5 * 0.5, abs=1e-3)


def test_the_plates_own_alpha_is_the_backgrounds():
    plate = np.array([[[0.1, 0.2, 0.3, 0.4]]], HALF)
    made = recompose_frame(plate, np.ones((1, 1, 3), FLOAT), [np.ones((1, 1), FLOAT)])
    assert made.background[0, 0, 3] == HALF(0.4)


def test_without_an_alpha_the_background_is_opaque():
    assert one(0.2, 0.5, 0.5).background[0, 0, 3] == 1.0


@pytest.mark.parametrize("kind", [HALF, FLOAT])
def test_everything_delivered_has_the_plates_type(kind):
    made = one(0.2, 0.5, 0.5, kind=kind, residual=APART)
    assert {x.dtype for x in (made.background, *made.layers, made.residual)} == {np.dtype(kind)}


def test_alphas_may_come_with_a_channel_axis():
    plate, clean = np.full((2, 3, 3), 0.2, HALF), np.full((2, 3, 3), 0.5, FLOAT)
    flat = recompose_frame(plate, clean, [np.full((2, 3), 0.5, FLOAT)])
    deep = recompose_frame(plate, clean, [np.full((2, 3, 1), 0.5, FLOAT)])
    assert flat.layers[0].tobytes() == deep.layers[0].tobytes()


def test_inputs_are_left_as_they_were():
    plate, clean, alphas = torture(HALF, 2, 0.05, seed=1, side=40)
    before = [x.tobytes() for x in (plate, clean, *alphas)]
    recompose_frame(plate, clean, alphas, noise=flat_noise(0.01))
    assert [x.tobytes() for x in (plate, clean, *alphas)] == before


def test_same_inputs_give_same_bits():
    plate, clean, alphas = torture(HALF, 2, 0.05, seed=1, side=60)
    first = recompose_frame(plate, clean, alphas, noise=flat_noise(0.01))
    again = recompose_frame(plate, clean, alphas, noise=flat_noise(0.01))
    assert first.background.tobytes() == again.background.tobytes()
    assert [x.tobytes() for x in first.layers] == [x.tobytes() for x in again.layers]


def test_temporary_memory_does_not_grow_with_height():
    plate, clean = np.full((1080, 1024, 3), 0.35, HALF), np.full((1080, 1024, 3), 0.5, FLOAT)
    alphas = [np.full((1080, 1024), a, FLOAT) for a in (0.3, 0.2)]
    tracemalloc.start()
    made = recompose_frame(plate, clean, alphas, noise=flat_noise(0.01))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    delivered = made.background.nbytes + sum(layer.nbytes for layer in made.layers)
    assert peak - delivered < 100e6


@pytest.mark.parametrize("residual", [FOLDED, APART])
@pytest.mark.parametrize("kind", [HALF, FLOAT])
def test_where_a_visible_layer_is_opaque_its_colour_is_the_plates_own_bits(kind, residual):
    plate, clean, alphas = torture(kind, 3, 0.3, seed=11)
    plate[0, :9] = -0.0
    made = recompose_frame(plate, clean, alphas, residual=residual)
    through = np.ones(plate.shape[:2], FLOAT)
    for layer in made.layers:
        seen = (layer[..., 3] == 1) & (through == 1)
        assert seen.sum() > 300
        assert layer[seen][:, :3].tobytes() == plate[seen].tobytes()
        through = through * (1 - layer[..., 3].astype(FLOAT))


def test_an_opaque_layer_under_a_thin_one_has_the_plates_sample_below_zero_too():
    plate = np.array([[[0.5, -0.25, 2.0]]], HALF)
    thin, solid = np.full((1, 1), 0.0625, FLOAT), np.ones((1, 1), FLOAT)
    made = recompose_frame(plate, np.ones((1, 1, 3), FLOAT), [thin, solid])
    assert (made.layers[1][0, 0] == [0.5, -0.25, 2.0, 1.0]).all()
    assert (compose(made.background, made.layers) == plate).all()


@pytest.mark.parametrize("residual", [FOLDED, APART])
def test_the_background_is_the_grained_picture_where_it_takes_no_grain_of_the_frame(residual):
    plate, clean, alphas = torture(HALF, 2, 0.0, seed=3)
    grained = (clean * FLOAT(1.25)).astype(HALF).astype(FLOAT)
    made = recompose_frame(plate, clean, alphas, residual=residual, grained=grained)
    on = np.any([layer[..., 3] > 0 for layer in made.layers], axis=0)
    assert (made.background[on][:, :3] == grained[on].clip(0, 65504).astype(HALF)).all()
    assert not made.lifted.any()
    found = stack_error(plate, made.background, made.layers, made.residual)
    assert (found.beyond, found.differing) == (0, 0)


def test_a_shadow_that_keeps_its_own_grain_is_lifted_and_gets_no_other():
    rng = np.random.default_rng(2)
    clean = np.full((40, 40, 3), 0.5, FLOAT)
    plate = (clean * FLOAT(0.75) + rng.normal(0, 0.01, clean.shape)).astype(HALF)
    alphas = [np.full((40, 40), 0.25, FLOAT)]
    plain = recompose_frame(plate, clean, alphas, noise=flat_noise(0.01))
    grained = recompose_frame(plate, clean, alphas, noise=flat_noise(0.01), grained=clean * 2)
    assert plain.lifted.mean() > 0.99
    kept = plain.lifted
    assert grained.background[kept].tobytes() == plain.background[kept].tobytes()
