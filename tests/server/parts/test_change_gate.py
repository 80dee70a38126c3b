# SPDX-License-Identifier: Apache-2.0
"""Where a shot changed: above its noise, and the same from frame to frame."""

import numpy as np
import pytest

from gencomp_server.parts.gate import Floor, gate, gates, measure_floor

FLOOR = Floor(np.full(3, 0.002, np.float32), True)
SHAPE = (5, 32, 48, 3)
EVERYWHERE = np.ones(SHAPE[:3], bool)
PATCH = np.s_[10:22, 12:30]


def shot(*steps):
    """Return reference and sample: a patch differs by so much of code, frame by frame."""
    reference = np.zeros(SHAPE, np.float16)
    sample = reference.copy()
    for frame, step in zip(sample, steps, strict=True):
        frame[PATCH] = 2 * step
    return reference, sample


def test_when_nothing_differs_then_no_frame_has_a_weight():
    assert not gates(*shot(0, 0, 0, 0, 0), FLOOR, EVERYWHERE).any()


def test_weights_are_halves_of_one_channel():
    found = gates(*shot(0.05, 0, 0, 0, 0), FLOOR, EVERYWHERE)
    assert (found.dtype, found.shape) == (np.float16, (*SHAPE[:3], 1))


def test_when_an_effect_is_weak_in_some_frames_then_it_is_not_lost_there():
    # 0.006 is three sigma: too weak to count by itself, not when it goes on from a strong one.
    reference, sample = shot(0.05, 0.006, 0.006, 0.006, 0.05)
    assert not gate(reference[2], sample[2], FLOOR, EVERYWHERE[2]).any()
    assert (gates(reference, sample, FLOOR, EVERYWHERE)[:, 12:20, 16:26] == 1).all()


def test_a_weak_effect_that_never_gets_strong_is_noise():
    assert not gates(*shot(0.006, 0.006, 0.006, 0.006, 0.006), FLOOR, EVERYWHERE).any()


def test_when_a_frame_drops_out_between_two_then_its_weight_does_not():
    found = gates(*shot(0.05, 0.05, 0.0, 0.05, 0.05), FLOOR, EVERYWHERE)
    assert (found[2, 12:20, 16:26] == 1).all()


def test_when_an_effect_begins_then_earlier_frames_without_it_have_no_weight():
    found = gates(*shot(0.0, 0.0, 0.0, 0.05, 0.05), FLOOR, EVERYWHERE)
    assert not found[:3].any()
    assert found[3:].any()


def test_what_is_not_allowed_in_a_frame_is_not_filled_in_from_its_neighbours():
    allowed = EVERYWHERE.copy()
    allowed[2] = False
    assert not gates(*shot(0.05, 0.05, 0.05, 0.05, 0.05), FLOOR, allowed)[2].any()


@pytest.mark.parametrize("frames", [1, 2])
def test_a_shot_of_one_or_two_frames_has_its_weights(frames):
    reference, sample = (of[:frames] for of in shot(0.05, 0.05, 0, 0, 0))
    found = gates(reference, sample, FLOOR, EVERYWHERE[:frames])
    assert (found[:, 12:20, 16:26] == 1).all()


def test_a_frame_judged_alone_is_a_shot_of_that_frame():
    reference, sample = shot(0.05, 0, 0, 0, 0)
    alone = gate(reference[0], sample[0], FLOOR, EVERYWHERE[0])
    assert np.array_equal(
        alone.astype(np.float16), gates(*shot(0.05, 0, 0, 0, 0), FLOOR, EVERYWHERE)[0]
    )


def test_sigma_of_single_pixels_is_measured_beside_that_of_the_average():
    rng = np.random.default_rng(2)
    reference = np.zeros((96, 160, 3), np.float32)
    sample = rng.normal(0, 0.02, reference.shape).astype(np.float32)  # 0.01 in code
    floor = measure_floor([(reference, sample, np.zeros((96, 160), bool))])
    assert floor.single == pytest.approx(np.full(3, 0.01), rel=0.05)


def test_where_only_the_average_is_known_single_pixels_are_taken_for_independent():
    assert FLOOR.single == pytest.approx(np.full(3, 0.01), rel=1e-6)
