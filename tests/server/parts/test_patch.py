# SPDX-License-Identifier: Apache-2.0
"""A removal as picture and patch: the plate where nothing was, and over gives the picture."""

import numpy as np
import pytest

from gencomp_server.parts.patch import patch_frame, touched

KINDS = pytest.mark.parametrize("kind", [np.float16, np.float32], ids=["half", "float"])


def over(patch, plate):
    """Put a patch on a plate as a compositor's graph does: in float32, rounded once."""
    front, back = patch.astype(np.float32), np.ones((*plate.shape[:2], 4), np.float32)
    back[..., : plate.shape[2]] = plate
    return (front + back * (np.float32(1) - front[..., 3:])).astype(plate.dtype)


def torture(kind, channels=3, seed=5):
    """Plates and what lies behind over 30 stops, with negatives and zeros; half is covered."""
    rng = np.random.default_rng(seed)
    plate = np.minimum(2.0 ** rng.uniform(-15, 15, (90, 160, channels)), 60000)
    behind = np.minimum(2.0 ** rng.uniform(-15, 15, (90, 160, 3)), 60000)
    behind = np.where(rng.random((90, 160, 1)) < 0.5, plate[..., :3] * 1.5, behind)
    plate = np.where(rng.random(plate.shape) < 0.05, -plate, plate)
    behind = np.where(rng.random(behind.shape) < 0.05, -behind, behind)
    plate = np.where(rng.random(plate.shape) < 0.02, 0, plate)
    coverage = np.where(rng.random((90, 160)) < 0.5, rng.random((90, 160)), 0)
    return plate.astype(kind), np.clip(behind, -6e4, 6e4).astype(kind), coverage.astype(np.float32)


@KINDS
@pytest.mark.parametrize("channels", [3, 4])
def test_plain_over_of_the_patch_on_the_plate_is_the_clean_picture_sample_for_sample(
    kind, channels
):
    plate, behind, coverage = torture(kind, channels)
    made = patch_frame(plate, behind, coverage)
    assert made.clean.dtype == made.patch.dtype == kind
    assert (over(made.patch, plate) == made.clean).all()


@KINDS
def test_where_no_object_has_alpha_the_clean_picture_is_the_plate_to_the_last_bit(kind):
    plate, behind, coverage = torture(kind, 4)
    free = coverage == 0
    plate[0, :4, 0], coverage[0, :4] = [np.nan, np.inf, -np.inf, -0.0], [1, 1, 1, 0]
    plate[1, :4, 0], coverage[1, :4] = [np.nan, np.inf, -np.inf, -0.0], 0
    made = patch_frame(plate, behind, coverage)
    free[0, :3], free[0, 3], free[1, :4] = True, True, True
    assert made.clean[free].tobytes() == plate[free].tobytes()
    assert not made.patch[free].any()


def test_where_an_object_is_opaque_the_clean_picture_is_what_lies_behind():
    plate, behind, coverage = torture(np.float16)
    whole = coverage >= 0.25
    made = patch_frame(plate, behind, coverage)
    assert (made.clean[whole][:, :3] == behind[whole]).all()
    assert (made.patch[whole] == made.clean[whole]).all()


@pytest.mark.parametrize(("coverage", "alpha"), [(0.0, 0.0), (0.125, 0.5), (0.25, 1.0), (0.9, 1.0)])
def test_the_patch_is_a_picture_with_four_times_the_objects_alpha(coverage, alpha):
    plate = np.full((4, 4, 3), 0.5, np.float16)
    made = patch_frame(plate, plate * np.float16(1.25), np.full((4, 4), coverage, np.float32))
    assert (made.patch[..., 3] == np.float16(alpha)).all()


def test_a_soft_shadow_is_patched_without_a_step_in_alpha():
    ramp = np.linspace(0, 0.5, 65, dtype=np.float32)[None]
    behind = np.full((1, 65, 3), 0.5, np.float32)
    made = patch_frame(behind * (1 - ramp[..., None]), behind, ramp)
    steps = np.diff(made.patch[0, :, 3])
    assert steps.max() <= 4 * 0.5 / 64 + 1e-6
    assert steps.min() >= 0
    np.testing.assert_allclose(made.clean[0, :, :3], 0.5, rtol=1e-6)


def test_light_behind_that_is_below_zero_stays_below_zero():
    plate = np.array([[[0.5, 0.5, 0.5], [-0.25, 0.5, 0.5]]], np.float16)
    behind = np.array([[[0.25, -0.125, 0.0], [-0.5, -0.125, 0.5]]], np.float16)
    made = patch_frame(plate, behind, np.ones((1, 2), np.float32))
    assert (made.clean[..., :3] == behind).all()


def test_a_plate_without_alpha_has_one_in_the_clean_picture():
    made = patch_frame(
        np.zeros((2, 2, 3), np.float16), np.ones((2, 2, 3), np.float16), np.zeros((2, 2), "f4")
    )
    assert (made.clean == np.array([0, 0, 0, 1], np.float16)).all()
    assert made.touched == 0


@KINDS
@pytest.mark.parametrize("channels", [3, 4])
def test_a_zero_that_lost_its_sign_was_touched_and_a_nan_with_its_bits_was_not(kind, channels):
    plate = np.full((1, 4, channels), 0.5, kind)
    plate[0, 0, 1], plate[0, 1, 2], plate[0, 2, 0] = -0.0, np.nan, np.inf
    clean = np.ones((1, 4, 4), kind)
    clean[..., :channels] = plate
    assert touched(plate, clean).tolist() == [[False, False, False, False]]
    clean[0, 0, 1], clean[0, 3, 2] = 0.0, 0.25
    assert touched(plate, clean).tolist() == [[True, False, False, True]]


@KINDS
def test_alpha_counts_as_touched_only_where_the_plate_has_one(kind):
    clean = np.full((1, 1, 4), 0.5, kind)
    assert not touched(clean[..., :3], clean).any()
    assert touched(np.concatenate([clean[..., :3], clean[..., 3:] / 2], axis=2), clean).all()
