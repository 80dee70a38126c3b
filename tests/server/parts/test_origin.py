# SPDX-License-Identifier: Apache-2.0
"""parts/origin.py: mattes of where pixels come from, which sum to one exactly."""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gencomp_server.colour.modelrange import ModelRange, encode
from gencomp_server.parts.change import Change, Floor, apply_change
from gencomp_server.parts.effect import effect_frame
from gencomp_server.parts.finish import Finished
from gencomp_server.parts.origin import origin_of_change, origin_of_removal

SILENT = Floor(np.zeros(3, np.float32), True)
SHARES = st.floats(0, 1, width=32)


@dataclass(frozen=True)
class Changed:
    """What origin reads of a changed plate."""

    index: np.ndarray
    gained: np.ndarray
    made: np.ndarray


def changed(index, gained, made):
    """Return a changed plate of so many pixels."""
    return Changed(
        np.array(index, np.intp), np.array(gained, np.float32), np.array(made, np.float32)
    )


def test_a_plate_without_a_change_is_all_plate():
    origin = origin_of_change((2, 3), changed([], [], []))

    assert origin.dtype == np.float32
    assert np.array_equal(origin, np.broadcast_to(np.float32([1, 0, 0, 0, 0]), (2, 3, 5)))


def test_a_shadow_is_the_plate_under_a_gain_and_a_splash_is_generated():
    origin = origin_of_change((1, 4), changed([1, 2, 3], [1, 0, 0.25], [0, 1, 0.25]))

    assert origin[0].tolist() == [
        [1, 0, 0, 0, 0],
        [0, 1, 0, 0, 0],
        [0, 0, 0, 1, 0],
        [0.5, 0.25, 0, 0.25, 0],
    ]


def test_where_the_change_was_rounded_away_the_pixel_is_the_plate():
    touched = np.array([[True, False, True]])

    origin = origin_of_change((1, 3), changed([0, 1, 2], [0, 1, 0], [1, 0, 0.25]), touched)

    assert origin[0, :, 0].tolist() == [0, 1, 0.75]
    assert origin[0, :, 3].tolist() == [1, 0, 0.25]


def test_of_light_as_bright_as_the_plate_a_bound_is_taken_off_once():
    bound = np.float32([1, 0.5, 0.1, 0]).repeat(16).reshape(1, 64, 1).repeat(32, axis=0)
    plate, code = np.full((32, 64, 3), 0.5, np.float32), encode(np.float32([0.5, 1.0]))
    before, after = np.full((2, 32, 64, 3), code[:, None, None, None], np.float32)
    whole = np.ones((32, 64, 1), np.float32)
    change = Change(before, after, whole, SILENT.single, 0.0)

    made = apply_change(plate, change, bound, SILENT, colour=ModelRange())
    layers = effect_frame(plate, made.index, made.colours, made.weights)
    origin = Finished(layers, made).origin[16, 8::16]

    assert layers.result[16, 8::16, 0] == pytest.approx([1, 0.75, 0.55, 0.5], abs=1e-3)
    assert origin[:, 3] == pytest.approx([1 / 2, 1 / 3, 1 / 11, 0], abs=1e-3)
    assert origin[:, 0] == pytest.approx([1 / 2, 2 / 3, 10 / 11, 1], abs=1e-3)


@pytest.mark.parametrize(("gained", "made", "channel"), [(1e-6, 0, 1), (0, 1e-6, 3), (0, 0, 3)])
def test_a_touched_pixel_is_never_all_plate_however_little_was_done(gained, made, channel):
    origin = origin_of_change((1, 1), changed([0], [gained], [made]))

    assert origin[0, 0, 0] == 1 - 2**-11
    assert origin[0, 0, channel] == 2**-11


@settings(max_examples=300, deadline=None)
@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 40), st.just(2)), elements=SHARES))
def test_the_mattes_sum_to_one_in_float_and_in_half_in_every_order(shares):
    origin = origin_of_change((1, len(shares)), changed(range(len(shares)), *shares.T))

    for kind, order in itertools.product(
        (np.float32, np.float16), itertools.permutations(range(4))
    ):
        a, b, c, d = (origin[..., i].astype(kind) for i in order)
        assert np.array_equal(((a + b) + c) + d, np.ones((1, len(shares)), kind))
    assert origin.min() >= 0


@settings(max_examples=200, deadline=None)
@given(arrays.arrays(np.float32, st.tuples(st.integers(1, 40), st.just(2)), elements=SHARES))
def test_a_removal_sums_to_one_and_keeps_the_plate_where_it_is_whole(shares):
    amount, other = shares[None, :, 0], shares[None, :, 1]

    origin = origin_of_removal(amount, other, np.full(amount.shape, 1007))

    assert np.array_equal(origin[..., :4].sum(axis=-1), np.ones(amount.shape, np.float32))
    assert np.array_equal(origin[..., 0] == 1, amount == 0)


def test_a_removal_names_the_frame_only_where_one_was_used():
    amount, other = np.float32([[0, 1, 1, 0.5]]), np.float32([[1, 1, 0, 1]])

    origin = origin_of_removal(amount, other, np.array([[1001, 1007, 1009, 86400]]))

    assert origin[0].tolist() == [
        [1, 0, 0, 0, 0],
        [0, 0, 1, 0, 1007],
        [0, 0, 0, 1, 0],
        [0.5, 0, 0.5, 0, 86400],
    ]


def test_sources_at_model_size_are_brought_to_the_plate_and_frame_numbers_never_mix():
    frame = np.array([[1001, 1030]])

    origin = origin_of_removal(np.ones((4, 10), np.float32), np.ones((1, 2)), frame)

    assert np.array_equal(origin[:, :5, 4], np.full((4, 5), 1001))
    assert np.array_equal(origin[:, 5:, 4], np.full((4, 5), 1030))
