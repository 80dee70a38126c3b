# SPDX-License-Identifier: Apache-2.0
"""The effect around a foreground: two layers that stack to the result, and outlive a swap."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gencomp_server.colour.modelrange import encode
from gencomp_server.parts.effect import effect_frame
from gencomp_server.parts.stack import over, ulp_distance
from gencomp_server.parts.underover import REACH_PX, extended, under_over

HALF, FLOAT = np.dtype(np.float16), np.dtype(np.float32)
KINDS = pytest.mark.parametrize("kind", [HALF, FLOAT], ids=["half", "float"])
LOCKED = pytest.mark.parametrize("locked", [True, False], ids=["locked", "free"])
# A ring of the difference of a swap is a halo from here up, mean error in code.
HALO = 0.02


def whole(fg, bg, result, index, kind, locked, effect=None, held=None):
    """Split, and return the layers with the stack they give."""
    split = under_over(fg, bg, result, index, kind, locked=locked, effect=effect, held=held)
    return split, over(split.over, over(fg, over(split.under, bg)))


def picture(rng, kind, stops):
    """Return light between -0.5 and 60, or over 30 stops. [24,28,3]."""
    if stops:
        return (2.0 ** rng.uniform(-20, 10, (24, 28, 3))).astype(kind)
    light = rng.uniform(-0.5, 1, (24, 28, 3)) * 2.0 ** rng.uniform(-2, 6, (24, 28, 1))
    return np.clip(light, -0.5, 60).astype(kind)


@LOCKED
@KINDS
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31), stops=st.booleans(), told=st.booleans())
def test_when_anything_is_over_anything_then_the_stack_is_the_result(
    kind, locked, seed, stops, told
):
    rng = np.random.default_rng(seed)
    bg = picture(rng, kind, stops)
    alpha = np.clip(rng.uniform(-0.5, 1.5, (24, 28, 1)), 0, 1)
    thin = rng.uniform(size=alpha.shape) < 0.1
    alpha = np.where(thin, 1 - 2.0 ** -rng.uniform(3, 11, alpha.shape), alpha).astype(kind)
    colour = (np.maximum(picture(rng, kind, stops), 0).astype(np.float32) * alpha).astype(kind)
    fg = np.concatenate([colour, alpha], axis=2)
    plate = over(fg, bg).astype(kind)
    open_ = (alpha[..., 0] < 1) | (not locked)
    index = np.flatnonzero(open_ & (rng.uniform(size=open_.shape) < 0.7))
    wanted = np.maximum(picture(rng, kind, stops).reshape(-1, 3)[index].astype(np.float32), 0)
    made = effect_frame(plate, index, wanted, np.ones(index.size, np.float32))
    given_effect = made.effect if told else None
    split, stacked = whole(fg, bg, made.result, index, kind, locked, given_effect)
    assert int(ulp_distance(stacked.astype(kind), made.result[..., :3]).max()) <= 1
    assert (split.under >= 0).all()
    assert (split.under[..., 3] <= 1).all()
    assert not (locked and split.over[alpha[..., 0] == 1].any())


@KINDS
@pytest.mark.parametrize("told", [True, False])
def test_when_all_light_is_positive_then_no_pixel_is_forced_and_the_stack_is_the_result(kind, told):
    forced = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        shape = (96, 128)
        alpha = np.clip(rng.uniform(-0.5, 1.5, (*shape, 1)), 0, 1)
        colour = 2.0 ** rng.uniform(-9, 4, (*shape, 3)) * alpha
        fg = np.concatenate([colour, alpha], axis=2).astype(kind)
        bg, wanted = (2.0 ** rng.uniform(-9, 4, (2, *shape, 3))).astype(kind)
        index = np.arange(shape[0] * shape[1])
        light = wanted.reshape(-1, 3).astype(np.float32)
        made = effect_frame(over(fg, bg).astype(kind), index, light, np.ones(index.size))
        effect = made.effect if told else None
        split, stacked = whole(fg, bg, made.result, index, kind, False, effect)
        assert int(ulp_distance(stacked.astype(kind), made.result[..., :3]).max()) <= 1
        assert (split.over >= 0).all()
        forced.append(split.forced)
    assert forced == [0] * 6


def scene(kind, edge):
    """Return a grainy ground, the fg as a function of its shift, and a shadow's alpha."""
    rng = np.random.default_rng(3)
    texture = cv2.GaussianBlur(rng.uniform(0, 1, (160, 240, 3)).astype(np.float32), (0, 0), 3)
    bg = np.clip(texture * 2 - 0.6 + rng.normal(0, 0.01, texture.shape), 0.02, None).astype(kind)
    y, x = np.mgrid[:160, :240].astype(np.float32)

    def fg(shift):
        away = np.hypot(y - 70, x - 110 - shift) - 40
        alpha = (away < 0) if edge == 0 else np.clip(0.5 - away / edge, 0, 1)
        bands = 0.3 + 0.2 * np.sin((x - shift) / 9)
        colour = np.stack([bands, 0 * x + 0.4, 0.2 + 0.1 * np.cos(y / 7)], axis=2)
        alpha = alpha.astype(np.float32)[..., None]
        return np.concatenate([colour * alpha, alpha], axis=2).astype(kind)

    shadow = 0.7 * np.exp(-(((y - 108) / 28) ** 2 + ((x - 122) / 60) ** 2))[..., None]
    return bg, fg, shadow


def swapped(kind, edge, shift):
    """Return worst ring and worst pixel of a swap's error in code: split, and as one layer."""
    bg, fg, shadow = scene(kind, edge)
    below = bg.astype(np.float32) * (1 - shadow)
    plate, truth = over(fg(0), bg).astype(kind), over(fg(0), below).astype(kind)
    index = np.flatnonzero((plate != truth).any(axis=2))
    colours = truth.reshape(-1, 3)[index].astype(np.float32)
    made = effect_frame(plate, index, colours, np.ones(index.size, np.float32))
    split, _ = whole(fg(0), bg, made.result, index, kind, True, made.effect)
    after = fg(shift)
    wanted = encode(over(after, below))
    both = over(split.over, over(after, over(split.under, bg)))
    found = []
    for got in (both, over(made.effect, over(after, bg))):
        off = np.abs(encode(got) - wanted).mean(axis=2)
        rings = []
        for inside in (fg(0)[..., 3] > 0.5, after[..., 3] > 0.5):
            for side in (inside, ~inside):
                away = cv2.distanceTransform(side.astype(np.uint8), cv2.DIST_L2, 5)
                rings += [off[(away > k) & (away <= k + 1)].mean() for k in range(12)]
        found.append((max(rings), off.max()))
    return found


@KINDS
@pytest.mark.parametrize("edge", [0, 2, 8, 30])
def test_when_the_fg_moves_by_two_pixels_then_no_halo_shows(kind, edge):
    (ring, pixel), _ = swapped(kind, edge, 2)
    assert ring < HALO / 20
    assert pixel < HALO


def test_when_the_fg_moves_under_one_layer_for_all_then_a_halo_shows():
    # What the two layers are for; the test above could not fail if this did not.
    _, (ring, pixel) = swapped(HALF, 0, 2)
    assert ring > HALO
    assert pixel > 0.1


def test_when_the_shadow_is_the_grounds_then_nothing_lies_on_top():
    bg, fg, shadow = scene(HALF, 8)
    front = fg(0)
    plate = over(front, bg).astype(HALF)
    result = over(front, bg.astype(np.float32) * (1 - shadow)).astype(HALF)
    index = np.flatnonzero((plate != result).any(axis=2))
    split, _ = whole(front, bg, result, index, HALF, False)
    assert (split.forced, split.over.any()) == (0, False)
    # The shadow, where the ground is seen, and something of it far beneath the fg.
    seen = (front[..., 3] == 0) & (shadow[..., 0] > 0.01)
    off = np.abs(split.under[..., 3].astype(np.float32) - shadow[..., 0])
    assert off[seen].max() < 2e-3
    assert split.under[95, 110, 3] > 0.3


def test_when_smoke_lies_on_the_fg_too_then_it_lies_on_top_there_and_beneath_elsewhere():
    bg = np.full((32, 32, 3), 0.5, HALF)
    fg = np.zeros((32, 32, 4), HALF)
    fg[:, 16:] = [0.25, 0.25, 0.25, 1]
    result = np.full((32, 32, 3), 0.25, HALF)
    result[:, 16:] = 0.125
    split, stacked = whole(fg, bg, result, np.arange(32 * 32), HALF, False)
    assert (split.over[:, 16:] == np.array([0, 0, 0, 0.5], HALF)).all()
    assert not split.over[:, :16].any()
    assert (split.under[:, :16] == np.array([0, 0, 0, 0.5], HALF)).all()
    assert (stacked == result).all()


def test_when_a_soft_edge_itself_gets_darker_than_the_ground_can_make_it_then_over_does_it():
    # fg shows 0.25 by itself: a result of 0.125 needs more than a black ground.
    bg, fg = np.full((1, 1, 3), 0.5, HALF), np.full((1, 1, 4), [0.25, 0.25, 0.25, 0.5], HALF)
    result = np.full((1, 1, 3), 0.125, HALF)
    split, stacked = whole(fg, bg, result, np.array([0]), HALF, True)
    assert split.under[0, 0].tolist() == [0, 0, 0, 1]
    assert split.over[0, 0].tolist() == [0, 0, 0, 0.5]
    assert (stacked == 0.125).all()


def test_when_the_fg_is_locked_and_the_result_differs_there_then_it_is_refused():
    fg = np.ones((1, 1, 4), HALF)
    with pytest.raises(ValueError, match="locked"):
        whole(fg, fg[..., :3], fg[..., :3] / 2, np.array([0]), HALF, True)


def test_when_the_result_differs_where_it_is_held_out_then_it_is_refused():
    fg = np.zeros((1, 2, 4), HALF)
    bg = np.full((1, 2, 3), 0.5, HALF)
    with pytest.raises(ValueError, match="held out"):
        whole(fg, bg, bg / 2, np.array([0]), HALF, True, held=np.array([[True, False]]))


@KINDS
@LOCKED
@pytest.mark.parametrize("edge", [0, 2, 8, 30, 60])
def test_when_half_is_held_out_then_both_layers_are_empty_there_and_go_on_beneath_elsewhere(
    kind, locked, edge
):
    bg, fg, shadow = scene(kind, edge)
    front, held = fg(0), np.zeros((160, 240), bool)
    held[:, 120:] = True
    # Cut off at row 120 too, as by a mask: what the mask leaves out is not held out.
    may = ~held & (np.arange(160) < 120)[:, None]
    plate = over(front, bg).astype(kind)
    truth = over(front, bg.astype(np.float32) * (1 - shadow)).astype(kind)
    if not locked:
        truth = (truth * np.float32(0.8)).astype(kind)
    index = np.flatnonzero((plate != truth).any(axis=2) & may)
    colours = truth.reshape(-1, 3)[index].astype(np.float32)
    made = effect_frame(plate, index, colours, np.ones(index.size, np.float32))
    args = (front, bg, made.result, index, kind, locked, made.effect)
    split, stacked = whole(*args, held=held)
    assert not split.under[held].any()
    assert not split.over[~may].any()
    assert (stacked.astype(kind)[~may] == plate[~may]).all()
    assert int(ulp_distance(stacked.astype(kind), made.result[..., :3]).max()) <= 1
    assert split.under[may & (front[..., 3] == 1)].any()
    # Nothing held out: the same, but for what lies beneath the fg.
    free, _ = whole(*args)
    assert (free.under[~held] == split.under[~held]).all()
    assert free.under[held & (front[..., 3] == 1)].any()


@pytest.mark.fault("F08")
def test_when_a_pixel_is_not_finite_then_no_layer_touches_it():
    bg = np.full((1, 2, 3), [[np.nan] * 3, [0.5] * 3], HALF)
    fg = np.zeros((1, 2, 4), HALF)
    result = np.full((1, 2, 3), [[np.nan] * 3, [0.25] * 3], HALF)
    split, _ = whole(fg, bg, result, np.array([0, 1]), HALF, True)
    assert not split.under[0, 0].any()
    assert split.under[0, 1].tolist() == [0, 0, 0, 0.5]


def test_when_nothing_changed_then_both_layers_are_empty():
    fg = np.ones((4, 4, 4), HALF)
    split, _ = whole(fg, fg[..., :3], fg, np.empty(0, np.intp), HALF, True)
    assert not split.under.any()
    assert not split.over.any()


def test_when_the_effect_is_told_then_it_is_beneath_bit_for_bit_where_there_is_no_fg():
    bg = np.random.default_rng(1).uniform(0.1, 1, (8, 8, 3)).astype(HALF)
    wanted = bg.reshape(-1, 3).astype(np.float32) * 0.7 + 0.1
    weights = np.ones(64, np.float32)
    made = effect_frame(bg, np.arange(64), wanted, weights, body=weights * 0.5)
    fg = np.zeros((8, 8, 4), HALF)
    split, _ = whole(fg, bg, made.result, np.arange(64), HALF, True, made.effect)
    assert (split.under == made.effect).all()


def test_when_a_layer_is_extended_then_it_is_level_near_by_and_gone_at_its_reach():
    layer = np.zeros((8, 3 * REACH_PX, 4), np.float32)
    layer[:, :REACH_PX] = [0, 0, 0, 0.5]
    known = np.zeros((8, 3 * REACH_PX), np.float32)
    known[:, :REACH_PX] = 1
    filled = extended(layer, known)
    assert (filled[:, :REACH_PX] == layer[:, :REACH_PX]).all()
    assert np.allclose(filled[:, REACH_PX : REACH_PX + 30, 3], 0.5, atol=1e-4)
    assert not filled[:, 2 * REACH_PX + 1 :].any()
    assert not filled[..., :3].any()


@pytest.mark.parametrize("pad", [0, 60, 200])
def test_a_picture_much_larger_than_the_effect_stacks_as_exactly(pad):
    rng, side = np.random.default_rng(0), 60 + 2 * pad
    fg = np.zeros((side, side, 4), np.float16)
    fg[pad + 15 : pad + 45, pad + 15 : pad + 45] = [0.2, 0.1, 0.3, 0.7]
    fg[pad + 25 : pad + 35, pad + 25 : pad + 35] = [0.2, 0.3, 0.4, 1]
    bg = np.full((side, side, 3), 0.4, np.float16)
    comp = over(fg, bg)
    result = comp.copy()
    result[pad + 5 : pad + 55, pad + 5 : pad + 55] *= rng.uniform(0.3, 3, (50, 50, 1))
    result = result.astype(np.float16)
    index = np.flatnonzero((result != comp.astype(np.float16)).any(axis=2))
    made = under_over(fg, bg, result, index, np.dtype(np.float16), locked=False)
    stacked = over(made.over, over(fg, over(made.under, bg))).astype(np.float16)
    assert ulp_distance(stacked, result).max() <= 1
    assert made.over.any()
