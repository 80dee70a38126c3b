# SPDX-License-Identifier: Apache-2.0
"""A placed element: its own pixels, the model's light, and layers that are the result."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gencomp_server.parts.element import (
    GENERATED,
    MINE,
    MOST_GAIN,
    LowColours,
    element_frame,
    harmonised,
    low_colour,
)
from gencomp_server.parts.stack import over, ulp_distance

HALF, FLOAT = np.dtype(np.float16), np.dtype(np.float32)
KINDS = pytest.mark.parametrize("kind", [HALF, FLOAT], ids=["half", "float"])


def level(size, placed, made):
    """Return low-frequency colours that are the same everywhere."""
    flat = np.ones((*size, 3), np.float32)
    return LowColours(flat * np.float32(placed), flat * np.float32(made))


def disc(kind, soft=4.0, colour=(0.4, 0.3, 0.2)):
    """Return a premultiplied disc with fine stripes of its own. [48,64,4]."""
    y, x = np.mgrid[:48, :64].astype(np.float32)
    alpha = np.clip(0.5 - (np.hypot(y - 24, x - 30) - 14) / soft, 0, 1)[..., None]
    stripes = 1 + 0.3 * np.sign(np.sin(x * 2))[..., None]
    return np.concatenate([np.float32(colour) * stripes * alpha, alpha], axis=2).astype(kind)


def split(placed, plate, wanted, low, harmonise=0.0, source=MINE):
    """Split a whole picture that the model made."""
    composite = over(placed, plate[..., :3])
    index = np.flatnonzero(np.abs(wanted - composite).max(axis=2) > 1e-3)
    colours = wanted.reshape(-1, 3)[index].astype(np.float32)
    return element_frame(placed, plate, index, colours, low, harmonise=harmonise, source=source)


def stack_ulp(frame, plate):
    stacked = over(frame.element, over(frame.interaction, plate[..., :3])).astype(plate.dtype)
    return int(ulp_distance(stacked, frame.result[..., :3]).max())


# --- harmonise -----------------------------------------------------------------------------------


@KINDS
def test_when_harmonise_is_zero_then_the_element_is_its_own_bit_for_bit(kind):
    placed = disc(kind)
    got = harmonised(placed, level((48, 64), 0.3, 0.9), 0.0)
    assert got.tobytes() == placed.tobytes()


def test_when_harmonise_is_one_then_the_colour_is_the_models_and_the_detail_the_elements():
    # 0.003 keeps black finite: (0.597 + 0.003) / (0.297 + 0.003) = 2
    placed = disc(FLOAT)
    got = harmonised(placed, level((48, 64), 0.297, 0.597), 1.0)
    assert np.allclose(got[..., :3], 2 * placed[..., :3], rtol=1e-5)
    assert (got[..., 3] == placed[..., 3]).all()


def test_when_harmonise_is_a_half_then_it_goes_half_the_stops():
    placed = disc(FLOAT)
    got = harmonised(placed, level((48, 64), 0.097, 0.397), 0.5)
    assert np.allclose(got[..., :3], 2 * placed[..., :3], rtol=1e-5)


def test_when_the_models_colour_is_beyond_reason_then_the_gain_ends():
    placed = disc(FLOAT)
    got = harmonised(placed, level((48, 64), 0.0, 50.0), 1.0)
    assert np.allclose(got[..., :3], MOST_GAIN * placed[..., :3], rtol=1e-5)


@pytest.mark.parametrize("amount", [-0.1, 1.1])
def test_when_harmonise_is_out_of_range_then_it_is_refused(amount):
    with pytest.raises(ValueError, match="harmonise"):
        harmonised(disc(HALF), level((48, 64), 1, 1), amount)


def test_when_the_element_is_level_then_its_low_colour_is_that_and_not_the_plates():
    alpha = disc(FLOAT)[..., 3:]
    picture = np.where(alpha > 0.25, np.float32([0.4, 0.2, 0.1]), np.float32(5))
    low = low_colour(picture.astype(np.float32), np.where(alpha > 0.25, alpha, 0), 4.0)
    assert np.allclose(low, [0.4, 0.2, 0.1], atol=1e-3)


def test_when_there_is_no_element_then_its_low_colour_is_zero():
    assert not low_colour(np.ones((8, 8, 3), np.float32), np.zeros((8, 8, 1)), 2.0).any()


# --- layers --------------------------------------------------------------------------------------


@KINDS
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    harmonise=st.sampled_from([0.0, 0.5, 1.0]),
    source=st.sampled_from([MINE, GENERATED]),
)
def test_when_anything_is_placed_on_anything_then_the_stack_is_the_result(
    kind, seed, harmonise, source
):
    rng = np.random.default_rng(seed)
    plate = np.clip(rng.uniform(-0.5, 1, (48, 64, 3)) * 2.0 ** rng.uniform(-2, 6), -0.5, 60)
    wanted = rng.uniform(0, 2.0 ** rng.uniform(-3, 6), (48, 64, 3))
    low = LowColours(*rng.uniform(0, 2, (2, 48, 64, 3)).astype(np.float32))
    plate = plate.astype(kind)
    frame = split(disc(kind), plate, wanted, low, harmonise, source)
    assert stack_ulp(frame, plate) <= 1
    assert (frame.interaction >= 0).all()


def test_when_the_model_repaints_the_element_then_mine_is_mine():
    placed, plate = disc(HALF), np.full((48, 64, 3), 0.5, HALF)
    wanted = over(placed, plate) + placed[..., 3:] * 0.3
    frame = split(placed, plate, wanted, level((48, 64), 0.3, 0.6))
    assert frame.element.tobytes() == placed.tobytes()
    solid = placed[..., 3] == 1
    assert (frame.result[solid] == placed[solid]).all()


def test_when_the_element_is_to_be_the_generated_one_then_the_result_is_the_models():
    placed, plate = disc(HALF), np.full((48, 64, 3), 0.5, HALF)
    wanted = (over(placed, plate) + placed[..., 3:] * 0.3).astype(HALF)
    frame = split(placed, plate, wanted, level((48, 64), 0.3, 0.6), source=GENERATED)
    assert np.abs(frame.result[..., :3].astype(np.float32) - wanted).max() < 2e-3
    assert (frame.element[..., 3] >= placed[..., 3]).all()


def test_when_a_shadow_falls_behind_the_element_then_it_goes_on_beneath_it():
    placed, plate = disc(FLOAT), np.full((48, 64, 3), 0.5, FLOAT)
    wanted = over(placed, plate * np.float32(0.5))
    frame = split(placed, plate, wanted, level((48, 64), 0.3, 0.3))
    assert np.abs(frame.interaction[..., 3] - 0.5).max() < 1e-4
    assert np.abs(frame.interaction[..., :3]).max() < 1e-4
    # So the element may be moved, and no bare plate shows.
    moved = np.roll(placed, 3, axis=1)
    got = over(moved, over(frame.interaction, plate))
    assert np.abs(got - over(moved, plate * np.float32(0.5))).max() < 1e-4


def test_when_the_model_changes_nothing_then_the_result_is_the_plain_composite():
    placed, plate = disc(HALF), np.full((48, 64, 3), 0.5, HALF)
    frame = split(placed, plate, over(placed, plate), level((48, 64), 0.3, 0.3), harmonise=1.0)
    assert not frame.interaction.any()
    assert frame.element.tobytes() == placed.tobytes()
    assert (frame.result[..., :3] == over(placed, plate).astype(HALF)).all()


def test_when_no_layer_covers_a_pixel_then_it_is_the_plates_bits():
    plate = np.full((48, 64, 4), -0.0, HALF)
    plate[0, 0] = np.nan
    placed = disc(HALF)
    frame = split(placed, plate, over(placed, plate[..., :3]), level((48, 64), 1, 1))
    away = placed[..., 3] == 0
    assert (frame.result[away].view(np.uint16) == plate[away].view(np.uint16)).all()


def test_when_the_source_is_neither_then_it_is_refused_by_name():
    plate = np.ones((48, 64, 3), HALF)
    with pytest.raises(ValueError, match="'theirs'"):
        split(disc(HALF), plate, plate, level((48, 64), 1, 1), source="theirs")
