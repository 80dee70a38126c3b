# SPDX-License-Identifier: Apache-2.0
"""The change alone: from model size onto the plate's own samples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gencomp_server.colour.modelrange import ModelRange, encode
from gencomp_server.colour.spaces import resolve
from gencomp_server.parts import gate
from gencomp_server.parts.change import (
    LEAST_SIGMA,
    Floor,
    apply_change,
    find_change,
    measure_floor,
    to_code,
)
from gencomp_server.parts.fit import from_model_frame, to_model_frame

SIZE = (40, 24)
EVERYWHERE = np.ones((24, 40), bool)
SILENT = Floor(np.zeros(3, np.float32), True)
NOISY = Floor(np.full(3, 0.004, np.float32), True)


def seen(plate, exposure=0.0):
    """Return a plate as a model sees it: model size, model range."""
    code = encode(to_model_frame(plate, SIZE), exposure=exposure)
    return np.clip(code, 0, 1) * 2 - 1


def plate_of(seed, top=0.8):
    rng = np.random.default_rng(seed)
    smooth = from_model_frame(rng.uniform(0.05, top, (6, 10, 3)).astype(np.float32), (160, 96))
    return smooth + rng.normal(0, 0.004, (96, 160, 3)).astype(np.float32)


def bound_of(value=1.0):
    return np.full((96, 160, 1), value, np.float32)


def carried(plate, truth, floor=SILENT, bound=None, exposure=0.0):
    """Return the plate with the change of a perfect model in it."""
    change = find_change(
        seen(plate, exposure), seen(truth, exposure), floor, EVERYWHERE, colour=ModelRange(exposure)
    )
    bound = bound_of() if bound is None else bound
    made = apply_change(plate, change, bound, floor, colour=ModelRange(exposure))
    result = plate.copy()
    result.reshape(-1, 3)[made.index] = made.colours
    return result, made


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), spread=st.floats(0, 2))
def test_when_the_sample_is_the_reference_then_nothing_changed(seed, spread):
    reference = np.random.default_rng(seed).normal(0, spread, (24, 40, 3)).astype(np.float32)
    assert find_change(reference, reference.copy(), SILENT, EVERYWHERE, colour=ModelRange()) is None


def test_what_is_kept_of_a_frame_for_the_floor_does_not_hold_the_frame():
    kept = gate._thinned(np.zeros((60_000, 3), np.float32))
    assert kept.base is None
    assert len(kept) == 20_000


def test_when_only_noise_lies_between_them_then_nothing_changed():
    rng = np.random.default_rng(1)
    reference = seen(plate_of(1))
    sample = reference + rng.normal(0, 0.03, reference.shape).astype(np.float32)
    floor = measure_floor([(reference, sample, ~EVERYWHERE)])
    change = find_change(reference, sample, floor, EVERYWHERE, colour=ModelRange())
    assert change is None or float(change.weight.mean()) < 0.01


def test_when_noise_is_averaged_over_25_pixels_then_its_sigma_is_a_fifth():
    rng = np.random.default_rng(2)
    reference = np.zeros((96, 160, 3), np.float32)
    sample = rng.normal(0, 0.02, reference.shape).astype(np.float32)  # 0.01 in code
    floor = measure_floor([(reference, sample, np.zeros((96, 160), bool))])
    assert floor.sigma == pytest.approx(np.full(3, 0.002), rel=0.05)
    assert floor.outside


def test_when_nothing_lies_outside_then_the_quiet_part_of_the_picture_tells_the_noise():
    rng = np.random.default_rng(3)
    reference = np.zeros((96, 160, 3), np.float32)
    sample = rng.normal(0, 0.02, reference.shape).astype(np.float32)
    sample[:48] -= 0.6
    floor = measure_floor([(reference, sample, np.ones((96, 160), bool))])
    assert not floor.outside
    assert 0.001 < float(floor.sigma.mean()) < 0.006


def test_when_a_shadow_falls_then_the_plate_is_multiplied_and_keeps_its_grain():
    plate = plate_of(4)
    truth = plate.copy()
    truth[24:72, 40:120] *= 0.5
    result, made = carried(plate, truth)
    inside = np.s_[32:64, 48:112]
    ratio = result[inside] / plate[inside]
    assert abs(float(np.median(ratio)) - 0.5) < 0.01
    grain = (result - 0.5 * plate)[inside]
    assert float(grain.std()) < 0.004  # were the grain lost, it would be 0.5 * 0.2 and more
    assert made.weights.max() == pytest.approx(1.0)
    far = np.s_[:, 136:]
    assert (result[far] == plate[far]).all()


@pytest.mark.parametrize("floor", [SILENT, NOISY], ids=["quiet", "noisy"])
def test_when_a_glow_is_added_then_the_light_is_added(floor):
    plate = plate_of(5, top=0.3)
    truth = plate.copy()
    truth[24:72, 40:120] += 2.0
    result, _ = carried(plate, truth, floor)
    added = (result - plate)[36:60, 56:104]
    assert abs(float(np.median(added)) - 2.0) < 0.1


def test_when_the_bound_is_soft_then_the_change_comes_in_by_as_much():
    plate = plate_of(6)
    full, _ = carried(plate, plate * 0.5, NOISY)
    quarter, made = carried(plate, plate * 0.5, NOISY, bound_of(0.25))
    share = (quarter - plate) / (full - plate)
    assert np.median(share) == pytest.approx(0.25, abs=1e-3)
    assert made.weights.max() == pytest.approx(0.25)


def test_when_the_bound_is_zero_then_no_pixel_changes():
    plate = plate_of(7)
    _, made = carried(plate, plate * 0.5, SILENT, bound_of(0.0))
    assert made.index.size == 0


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), exposure=st.sampled_from([-2.0, 0.0, 3.0]))
def test_when_values_run_from_below_0_to_60_then_results_are_finite_and_no_darker_than_black(
    seed, exposure
):
    rng = np.random.default_rng(seed)
    plate = rng.uniform(-0.5, 1, (96, 160, 3)).astype(np.float32)
    plate[rng.uniform(size=plate.shape) < 0.05] = 60
    sample = rng.uniform(-1.2, 1.2, (24, 40, 3)).astype(np.float32)
    change = find_change(
        seen(plate, exposure), sample, NOISY, EVERYWHERE, colour=ModelRange(exposure)
    )
    made = apply_change(plate, change, bound_of(), NOISY, colour=ModelRange(exposure))
    before = plate.reshape(-1, 3)[made.index]
    assert np.isfinite(made.colours).all()
    assert (made.colours >= np.minimum(before, 0)).all()
    assert float(made.colours.max()) < 16 * 2.0**-exposure + 60 + 1


def test_when_the_model_range_is_left_then_its_code_is_clipped():
    assert to_code(np.array([-1.5, -1, 0, 1, 2])).tolist() == [0, 0, 0.5, 1, 1]


def test_when_a_region_is_not_allowed_then_it_is_no_change():
    plate = plate_of(8)
    allowed = EVERYWHERE.copy()
    allowed[:, 20:] = False
    change = find_change(seen(plate), seen(plate * 0.5), SILENT, allowed, colour=ModelRange())
    assert (change.weight[:, :18] == 1).all()
    assert not change.weight[:, 22:].any()


def test_when_the_floor_is_zero_then_rounding_is_no_change():
    plate = plate_of(9)
    reference = seen(plate)
    sample = reference + np.float32(LEAST_SIGMA)  # half of it in code
    assert find_change(reference, sample, SILENT, EVERYWHERE, colour=ModelRange()) is None


# --- what is the plate's own ---------------------------------------------------------------------


def test_when_a_pixel_is_halved_then_all_its_light_is_the_plates_under_a_gain():
    plate = plate_of(10)
    truth = plate.copy()
    truth[24:72, 40:120] *= 0.5
    _, made = carried(plate, truth, NOISY)
    core = np.isin(made.index, np.arange(96 * 160).reshape(96, 160)[36:60, 56:104])
    assert made.gained[core].min() > 0.99
    assert made.made[core].max() < 0.01


def test_when_light_is_added_then_its_share_is_what_was_made():
    plate = np.full((96, 160, 3), 0.5, np.float32)
    _, made = carried(plate, plate + np.float32(1.5), NOISY)
    assert made.made == pytest.approx(np.full(96 * 160, 0.75), abs=0.02)
    assert not made.gained.any()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_shares_of_a_pixel_never_exceed_one(seed):
    plate = np.random.default_rng(seed).uniform(-0.5, 1, (96, 160, 3)).astype(np.float32)
    sample = np.random.default_rng(seed + 1).uniform(-1, 1, (24, 40, 3)).astype(np.float32)
    change = find_change(seen(plate), sample, NOISY, EVERYWHERE, colour=ModelRange())
    made = apply_change(plate, change, bound_of(), NOISY, colour=ModelRange())
    for share in (made.gained, made.made, made.weights):
        assert share.dtype == np.float32
        assert share.min() >= 0
    assert (made.gained + made.made).max() <= 1 + 1e-6
    assert made.weights.max() <= 1


# --- edges, noise, working spaces ----------------------------------------------------------------


@pytest.mark.parametrize("floor", [SILENT, NOISY], ids=["quiet", "noisy"])
def test_when_a_glow_ends_at_an_edge_of_the_plate_then_the_change_ends_there_too(floor):
    plate = np.full((96, 160, 3), 0.05, np.float32)
    plate[:, 82:] = 0.4  # The edge lies inside a model pixel: two of its four columns on each side.
    truth = plate.copy()
    truth[:, 82:] += 2.0
    result, _ = carried(plate, truth, floor)
    error = np.abs(encode(result) - encode(truth)).mean(axis=(0, 2))
    assert error.max() < 0.01  # Resized as it is, the model's picture is off by half a code.


def test_when_the_models_answer_is_noisy_then_an_even_shadow_is_even():
    plate = plate_of(11)
    plate[:] = 0.3
    reference = seen(plate)
    noise = np.random.default_rng(12).normal(0, 0.02, reference.shape)  # 0.01 in code
    sample = (seen(plate * np.float32(0.5)) + noise).astype(np.float32)
    floor = Floor(np.full(3, 0.002, np.float32), True, np.full(3, 0.01, np.float32))
    change = find_change(reference, sample, floor, EVERYWHERE, colour=ModelRange())
    made = apply_change(plate, change, bound_of(), floor, colour=ModelRange())
    # As it came, the noise is 0.01 of code on a slope of 1.5: 0.0066 of light.
    assert float(made.colours.std()) < 0.0015
    assert float(made.colours.mean()) == pytest.approx(0.15, abs=0.002)


def test_when_the_vae_shifts_colours_then_a_glow_has_the_colour_it_should():
    rng = np.random.default_rng(13)
    plate = from_model_frame(rng.uniform(0.05, 0.8, (6, 10, 3)).astype(np.float32), (160, 96))
    truth = plate.copy()
    truth[24:72, 40:120] += np.float32([2.0, 1.2, 0.6])

    def shifted(picture):
        return seen(picture) * np.float32([0.97, 0.99, 0.96]) - np.float32([0.02, 0.03, 0.01])

    change = find_change(shifted(plate), shifted(truth), NOISY, EVERYWHERE, colour=ModelRange())
    made = apply_change(plate, change, bound_of(), NOISY, colour=ModelRange())
    result = plate.copy()
    result.reshape(-1, 3)[made.index] = made.colours
    added = np.median((result - plate)[36:60, 56:104].reshape(-1, 3), axis=0)
    assert added == pytest.approx([2.0, 1.2, 0.6], rel=0.05)


@pytest.mark.parametrize("name", ["ACEScg", "ACES2065-1"])
def test_in_another_working_space_the_same_light_changes_the_same(name):
    plate = plate_of(14)
    truth = plate.copy()
    truth[:, :80] *= np.float32(0.5)
    truth[:, 80:] += 1.5
    allowed = EVERYWHERE.copy()
    allowed[:, 30:] = False
    args = (seen(plate), seen(truth), NOISY, allowed)
    known = apply_change(
        plate, find_change(*args, colour=ModelRange()), bound_of(), NOISY, colour=ModelRange()
    )
    colour = ModelRange(space=resolve(name))
    there = colour.unseen(plate)
    made = apply_change(there, find_change(*args, colour=colour), bound_of(), NOISY, colour=colour)
    assert made.index.tolist() == known.index.tolist()
    assert np.abs(colour.seen(made.colours) - known.colours).max() < 1e-4


def test_when_the_model_saw_the_plate_darker_then_the_change_is_the_same_light():
    plate = plate_of(15, top=0.4)
    truth = plate.copy()
    truth[24:72, 40:120] += 1.0
    result, _ = carried(plate, truth, NOISY, exposure=-2.0)
    added = (result - plate)[36:60, 56:104]
    assert float(np.median(added)) == pytest.approx(1.0, abs=0.05)


def test_a_given_weight_decides_alone_where_there_is_a_change():
    plate = plate_of(16)
    weight = np.zeros((24, 40, 1), np.float16)
    args = (seen(plate), seen(plate * 0.5), SILENT, EVERYWHERE)
    assert find_change(*args, colour=ModelRange(), weight=weight) is None
    weight[8:16, 10:20] = 1
    change = find_change(*args, colour=ModelRange(), weight=weight)
    made = apply_change(plate, change, bound_of(), SILENT, colour=ModelRange())
    rows, columns = np.divmod(made.index, 160)
    assert (rows.min(), rows.max()) == (30, 65)  # Half a model pixel of soft edge: 2 plate rows.
    assert (columns.min(), columns.max()) == (38, 81)


def test_when_plate_and_model_have_one_size_then_a_clean_answer_comes_as_it_is():
    rng = np.random.default_rng(17)
    plate = rng.uniform(0.1, 0.8, (24, 40, 3)).astype(np.float32)
    truth = rng.uniform(0.1, 0.8, (24, 40, 3)).astype(np.float32)  # all detail, nothing is even
    change = find_change(seen(plate), seen(truth), SILENT, EVERYWHERE, colour=ModelRange())
    bound = np.ones((24, 40, 1), np.float32)
    made = apply_change(plate, change, bound, SILENT, colour=ModelRange())
    assert made.index.size == 24 * 40
    assert np.abs(made.colours.reshape(24, 40, 3) - truth).max() < 0.02
