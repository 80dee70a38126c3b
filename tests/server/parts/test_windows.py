# SPDX-License-Identifier: Apache-2.0
"""Any length: padded, cut into windows, blended back."""

import itertools
import weakref

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gencomp_server.parts.windows import (
    SHIFTED,
    SHORT,
    Window,
    count_forwards,
    fuse,
    latent_window,
    padded_length,
    plan,
    ramp,
    source_index,
    weights,
)

# CogVideoX-Fun V1.5: 85 frames and 16 shared are 22 and 4 latent frames.
WINDOW, OVERLAP = 22, 4

lengths = st.integers(1, 400)
lasts = st.sampled_from([SHIFTED, SHORT])


@st.composite
def plans(draw):
    """A plan that is allowed: latent frames and its windows."""
    window = draw(st.integers(1, 24))
    overlap = draw(st.integers(0, window - 1))
    even, last, total = draw(st.booleans()), draw(lasts), draw(lengths)
    assume(not even or (total % 2 == 0 and window % 2 == 0))
    return total, window, overlap, even, last


# --- lengths -------------------------------------------------------------------------------------


@pytest.mark.fault("F09")
@pytest.mark.parametrize(
    ("frames", "window", "even", "length"),
    [
        (48, 85, True, 85),
        (85, 85, True, 85),
        (86, 85, True, 93),
        (100, 85, True, 101),
        (198, 85, True, 205),
        (1000, 85, True, 1005),
        (49, 49, False, 49),
        (50, 49, False, 53),
        # Nothing asks Wan for an even number: 81 frames stay one window.
        (81, 81, False, 81),
        (82, 81, False, 85),
    ],
)
def test_a_clip_has_this_length_inside(frames, window, even, length):
    assert padded_length(frames, window, even) == length


@pytest.mark.fault("F09")
@given(frames=st.integers(1, 3000), window=st.sampled_from([49, 81, 85]), even=st.booleans())
@settings(deadline=None)
def test_the_padded_clip_is_the_shortest_that_vae_and_model_can_take(frames, window, even):
    length = padded_length(frames, window, even)
    assert length >= max(frames, window)
    assert length % 4 == 1
    step = 8 if even else 4
    assert length == window or length - step < frames
    if even and length > window:
        assert ((length - 1) // 4 + 1) % 2 == 0


def test_a_clip_without_frames_has_no_length():
    with pytest.raises(ValueError, match="0 frames"):
        padded_length(0, 85, True)
    with pytest.raises(ValueError, match="without frames"):
        source_index(0, 5)


@pytest.mark.fault("F09")
def test_padding_runs_backwards_and_forwards_again():
    assert source_index(3, 10) == (0, 1, 2, 2, 1, 0, 0, 1, 2, 2)


@pytest.mark.fault("F09")
def test_a_single_frame_is_repeated():
    assert source_index(1, 4) == (0, 0, 0, 0)


@given(frames=lengths, length=lengths)
@settings(deadline=None)
def test_neighbours_in_a_padded_clip_are_neighbours_or_the_same_in_the_clip(frames, length):
    shown = source_index(frames, length)
    assert len(shown) == length
    assert shown[:frames] == tuple(range(min(frames, length)))
    assert all(abs(a - b) <= 1 for a, b in itertools.pairwise(shown))


def test_frames_become_latent_frames():
    assert latent_window(85, 16) == (22, 4)
    assert latent_window(81, 16) == (21, 4)
    assert latent_window(49, 16) == (13, 4)


# --- windows -------------------------------------------------------------------------------------


def test_a_clip_as_long_as_a_window_is_one_window():
    assert plan(22, WINDOW, OVERLAP, even=True) == (Window(0, 22),)


def test_the_last_of_three_windows_is_moved_back_to_full_length():
    # 197 frames.
    assert plan(50, WINDOW, OVERLAP, even=True) == (Window(0, 22), Window(18, 40), Window(28, 50))


def test_the_last_of_three_windows_is_short_where_the_public_code_is_wanted():
    windows = plan(50, WINDOW, OVERLAP, even=True, last=SHORT)
    assert windows == (Window(0, 22), Window(18, 40), Window(36, 50))


def test_a_short_window_that_would_be_odd_begins_a_latent_frame_sooner():
    windows = plan(12, 4, 1, even=True, last=SHORT)
    assert windows == (Window(0, 4), Window(3, 7), Window(6, 10), Window(8, 12))


def test_overlap_does_not_matter_where_one_window_is_enough():
    assert plan(4, 4, 4, even=True) == (Window(0, 4),)


@given(plans())
@settings(deadline=None)
def test_windows_cover_every_latent_frame_in_rising_order(made):
    total, window, overlap, even, last = made
    windows = plan(total, window, overlap, even=even, last=last)
    assert {i for one in windows for i in range(one.first, one.last)} == set(range(total))
    assert all(a.first < b.first and a.last < b.last for a, b in itertools.pairwise(windows))
    assert all(a.last - b.first >= overlap for a, b in itertools.pairwise(windows))
    assert all(len(one) <= window for one in windows)
    if even:
        assert all(len(one) % 2 == 0 for one in windows)
    if last == SHIFTED and total >= window:
        assert all(len(one) == window for one in windows)


@given(plans())
@settings(deadline=None)
def test_no_window_is_superfluous(made):
    total, window, overlap, even, last = made
    windows = plan(total, window, overlap, even=even, last=last)
    without_last = windows[:-1]
    assert not without_last or without_last[-1].last < total


@pytest.mark.parametrize(
    ("total", "window", "overlap", "even"),
    [(30, 4, 4, False), (30, 4, -1, False), (0, 4, 1, False), (31, 22, 4, True), (30, 21, 4, True)],
)
def test_an_impossible_plan_is_refused(total, window, overlap, even):
    with pytest.raises(ValueError, match=r"latent frames|windows"):
        plan(total, window, overlap, even=even)


def test_a_last_window_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="shifted or short"):
        plan(30, 22, 4, even=True, last="dropped")


def test_forwards_are_passes_times_windows_times_steps_and_twice_with_guidance():
    windows = plan(50, WINDOW, OVERLAP, even=True)
    assert count_forwards(1, windows, 50, 1.0) == 150
    assert count_forwards(3, windows, 50, 1.0) == 450
    assert count_forwards(3, windows, 50, 6.0) == 900
    assert count_forwards(3, windows, 50, 0.0) == 900


# --- fusion --------------------------------------------------------------------------------------


def test_the_ramp_over_four_latent_frames_is_the_public_codes():
    assert ramp(4) == (0.2, 0.4, 0.6, 0.8)
    assert ramp(0) == ()


def test_two_windows_are_blended_by_ramps_over_what_they_share():
    first, second = weights((Window(0, 6), Window(2, 8)))
    assert first == pytest.approx((1, 1, 0.8, 0.6, 0.4, 0.2))
    assert second == pytest.approx((0.2, 0.4, 0.6, 0.8, 1, 1))


@given(plans())
@settings(deadline=None)
def test_weights_sum_to_one_at_every_latent_frame_and_none_is_zero(made):
    total, window, overlap, even, last = made
    windows = plan(total, window, overlap, even=even, last=last)
    sums = [0.0] * total
    for one, values in zip(windows, weights(windows), strict=True):
        assert len(values) == len(one)
        assert min(values) > 0
        for i, value in enumerate(values):
            sums[one.first + i] += value
    assert sums == pytest.approx([1.0] * total, abs=1e-12)


@given(plans(), st.integers(0, 1000))
@settings(deadline=None, max_examples=50)
def test_where_all_windows_agree_their_values_come_back_bit_for_bit(made, seed):
    total, window, overlap, even, last = made
    windows = plan(total, window, overlap, even=even, last=last)
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randn((2, total, 1, 1, 2), generator=generator)
    parts = (whole[:, one.first : one.last] for one in windows)
    assert torch.equal(fuse(parts, windows, total), whole)


def test_a_blend_of_zero_and_one_is_the_ramp():
    windows = plan(40, WINDOW, OVERLAP, even=True)
    parts = [torch.full((1, 22, 1, 1, 1), value) for value in (0.0, 1.0)]
    blend = fuse(parts, windows, 40).flatten().tolist()
    assert blend == pytest.approx([0.0] * 18 + [0.2, 0.4, 0.6, 0.8] + [1.0] * 18)


def test_no_part_is_kept_once_the_next_but_one_is_made():
    windows = plan(80, WINDOW, OVERLAP, even=True)
    made = []

    def parts():
        for one in windows:
            assert all(past() is None for past in made[:-1])
            part = torch.zeros((1, len(one), 1, 1, 1))
            made.append(weakref.ref(part))
            yield part
            del part

    fuse(parts(), windows, 80)
    assert len(made) == 5


def test_too_many_and_too_few_parts_are_refused():
    part = torch.zeros((1, 22, 1, 1, 1))
    windows = plan(40, WINDOW, OVERLAP, even=True)
    for number in (1, 3):
        with pytest.raises(ValueError, match="argument"):
            fuse([part] * number, windows, 40)


def test_windows_that_leave_a_gap_are_refused():
    with pytest.raises(ValueError, match="do not cover"):
        fuse([torch.zeros((1, 2, 1, 1, 1))], (Window(0, 2),), 3)


def test_a_part_of_another_length_is_refused():
    with pytest.raises(ValueError, match="is not"):
        fuse([torch.zeros((1, 2, 1, 1, 1))], (Window(0, 3),), 3)
