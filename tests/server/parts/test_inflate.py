# SPDX-License-Identifier: Apache-2.0
"""Masks are cleaned of specks and grown by what is asked, in any size of picture."""

import numpy as np
import pytest

from gencomp_server.parts import inflate


def square(top, left, side, shape=(480, 720)):
    made = np.zeros(shape, bool)
    made[top : top + side, left : left + side] = True
    return made


def reach(mask, grown):
    """How many pixels further the grown mask goes: up, down, left, right."""
    found = []
    for axis in (1, 0):
        before, after = (np.flatnonzero(one.any(axis=axis))[[0, -1]] for one in (mask, grown))
        found += [int(before[0] - after[0]), int(after[1] - before[1])]
    return found


def test_a_shape_grows_by_25_pixels_to_every_side_as_in_the_released_code():
    mask = square(200, 300, 60)
    assert reach(mask, inflate.inflated(mask, px=inflate.SHIPPED_PX)) == [25, 25, 25, 25]


@pytest.mark.parametrize("px", [1, 7, 40, 112.4])
def test_another_growth_is_the_same_in_its_own_pixels(px):
    mask = square(200, 300, 60)
    assert reach(mask, inflate.inflated(mask, px=px)) == [round(px)] * 4


def test_a_single_pixel_grows_to_a_square_whose_corners_are_rounded():
    grown = inflate.inflated(square(100, 100, 1), px=25)
    # The peak is 1, so exp(-d^2 / 200) reaches 1/255 up to d = 33.29, and no further.
    down, across = np.mgrid[:480, :720] - 100
    near = np.maximum(abs(down), abs(across)) <= 25
    assert np.array_equal(grown, near & (down**2 + across**2 <= 200 * np.log(255)))


def test_a_kernel_whose_sum_is_one_grows_a_thin_line_less_and_loses_nothing():
    line = np.zeros((480, 720), bool)
    line[240, :] = True
    shipped, normalised = (inflate.inflated(line, px=25, kernel=name) for name in inflate.KERNELS)
    assert reach(line, shipped)[0] == 25
    # exp(-d^2 / 200) / 24.76 reaches 1/255 up to d = 21.5.
    assert reach(line, normalised)[0] == 21
    speck = square(100, 100, 1)
    assert np.array_equal(inflate.inflated(speck, px=25, kernel="normalised"), speck)


def test_a_higher_threshold_grows_less():
    mask = square(200, 300, 60)
    low, high = (
        inflate.inflated(mask, px=25, kernel="normalised", threshold=one) for one in (0.01, 0.4)
    )
    assert mask.sum() < high.sum() < low.sum()


def test_what_lies_at_the_border_or_in_a_small_part_grows_as_in_the_whole_picture():
    whole = square(0, 640, 80) | square(300, 50, 20)
    parts = inflate.inflated(square(0, 640, 80), px=25) | inflate.inflated(
        square(300, 50, 20), px=25
    )
    assert np.array_equal(inflate.inflated(whole, px=25), parts)


def test_nothing_grows_from_nothing_nor_by_nothing():
    empty, mask = np.zeros((480, 720), bool), square(10, 10, 5)
    assert not inflate.inflated(empty, px=25).any()
    assert np.array_equal(inflate.inflated(mask, px=0), mask)


@pytest.mark.parametrize(
    "wrong", [{"px": -1}, {"px": float("nan")}, {"px": 5, "threshold": 0}, {"px": 5, "kernel": "k"}]
)
def test_a_growth_that_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=r"a mask cannot grow|no kernel is called k"):
        inflate.inflated(square(10, 10, 5), **wrong)


def test_specks_and_hairs_go_and_shapes_stay_but_for_their_sharp_corners():
    shape = square(200, 300, 60)
    # 0.01 % of 480x720 is 34.56 pixels: a square of 6 less its corners is 32, one of 7 is 45.
    specks = square(20, 20, 6) | square(50, 50, 1)
    specks[400, 100:500] = True
    cleaned = inflate.cleaned(shape | square(100, 100, 7) | specks)
    assert cleaned.sum() == (3600 - 4) + (49 - 4)
    assert not inflate.cleaned(specks).any()


def test_the_mask_of_a_latent_frame_is_that_of_a_frame_inside_of_it():
    frames = np.arange(97, dtype=np.uint8)[:, None, None] * np.ones((1, 16, 16), np.uint8)
    thinned = inflate.to_latent(frames)[:, 0, 0]
    assert len(thinned) == 25
    assert thinned[0] == 0
    for at, frame in enumerate(thinned[1:], start=1):
        assert 4 * at - 3 <= frame <= 4 * at
    first = inflate.to_latent(frames[:49])[:, 0, 0].tolist()
    assert first == [0, 3, 7, 11, 15, 18, 22, 26, 30, 33, 37, 41, 45]


def test_the_mask_of_a_latent_pixel_is_that_of_its_first_pixel():
    frames = np.zeros((1, 16, 24), bool)
    frames[0, 8, 16] = frames[0, 15, 7] = True
    assert np.argwhere(inflate.to_latent(frames)).tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("shape", [(48, 16, 16), (49, 15, 16), (49, 16, 20)])
def test_masks_that_no_latents_fit_are_refused(shape):
    with pytest.raises(ValueError, match="no latents are of the size"):
        inflate.to_latent(np.zeros(shape, bool))
