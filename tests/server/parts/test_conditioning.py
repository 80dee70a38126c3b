# SPDX-License-Identifier: Apache-2.0
"""What stands beside the noise."""

import numpy as np
import pytest

from gencomp_server.parts.conditioning import latent_mask, pad_frames, with_pixel_noise, zero_edit
from gencomp_server.parts.trimask import CONVENTIONS, EDIT, KEEP, UNKNOWN, encode

FLOAT = np.float32
CASPER, WAN = CONVENTIONS["casper"], CONVENTIONS["casper_wan"]
SCALE = 0.7


def constant(frames, value, side=16):
    return np.full((frames, side, side, 1), value, FLOAT)


def per_frame(values, side=16):
    """A mask of one value per frame. [T,side,side,1]."""
    return np.ones((len(values), side, side, 1), FLOAT) * FLOAT(values)[:, None, None, None]


# --- sequences -----------------------------------------------------------------------------------


def test_a_padded_sequence_shows_its_frames_forwards_and_backwards():
    clip = np.arange(3, dtype=FLOAT).reshape(3, 1, 1, 1)
    assert pad_frames(clip, 8).flatten().tolist() == [0, 1, 2, 2, 1, 0, 0, 1]


def test_padding_keeps_the_type():
    assert pad_frames(np.zeros((2, 1, 1, 1), np.uint8), 5).dtype == np.uint8


def test_noise_leaves_every_sample_of_exactly_minus_one_alone():
    video = np.array([-1, 0, 0.5], FLOAT).reshape(1, 1, 1, 3)
    noisy = with_pixel_noise(video, np.full_like(video, 2), 0.25)
    assert not np.shares_memory(noisy, video)
    assert noisy.dtype == FLOAT
    assert noisy.flatten().tolist() == [-1.0, 0.5, 1.0]


def test_no_noise_is_no_change():
    video = np.array([-1, 0, 1], FLOAT).reshape(1, 1, 1, 3)
    assert np.array_equal(with_pixel_noise(video, np.full_like(video, 3), 0.0), video)


def test_noise_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="noise"):
        with_pixel_noise(np.zeros((1, 2, 2, 3), FLOAT), np.zeros((2, 2, 2, 3), FLOAT), 0.1)


def test_only_what_is_edited_is_blanked():
    video = np.full((1, 1, 3, 3), 0.5, FLOAT)
    classes = np.array([KEEP, UNKNOWN, EDIT], np.uint8).reshape(1, 1, 3, 1)
    assert zero_edit(video, classes)[0, 0].tolist() == [[0.5] * 3, [0.5] * 3, [-1.0] * 3]


# --- the mask in latent frames -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "value"), [(KEEP, 0.7), (UNKNOWN, 0.7 * (1 - 127 / 255)), (EDIT, 0.0)]
)
def test_casper_reads_these_numbers(kind, value):
    classes = np.full((5, 16, 16, 1), kind, np.uint8)
    found = latent_mask(encode(classes, CASPER), (2, 2, 2), CASPER, SCALE)
    assert tuple(found.shape) == (1, 2, 1, 2, 2)
    assert found.flatten().tolist() == pytest.approx([value] * 8, abs=1e-7)


def test_the_first_frame_stands_alone():
    found = latent_mask(per_frame([1, 0, 0, 0, 0]), (2, 2, 2), CASPER, 1.0)
    assert found[0, 0].unique().tolist() == [1.0]
    assert found[0, 1].unique().tolist() == [0.0]


def test_a_latent_frame_is_the_mean_of_the_middle_two_of_its_four():
    # Four to one, corners not aligned: the sample point lies between the second and the third.
    found = latent_mask(per_frame([0, 8, 1, 3, 8]), (2, 2, 2), CASPER, 1.0)
    assert found[0, 1].unique().tolist() == [2.0]


def test_in_space_too_the_middle_of_the_area_is_read():
    mask = np.zeros((1, 8, 8, 1), FLOAT)
    mask[0, 3:5, 3:5] = 1
    assert latent_mask(mask, (1, 1, 1), CASPER, 1.0).item() == 1.0


def test_wan_reads_four_frames_in_four_channels_unscaled_the_first_four_times():
    found = latent_mask(per_frame([9, 1, 2, 3, 4, 5, 6, 7, 8]), (3, 2, 2), WAN, SCALE)
    assert tuple(found.shape) == (1, 3, 4, 2, 2)
    assert found[0, :, :, 0, 0].tolist() == [[9, 9, 9, 9], [1, 2, 3, 4], [5, 6, 7, 8]]


def test_a_single_frame_is_one_latent_frame_in_both_layouts():
    assert tuple(latent_mask(constant(1, 1), (1, 2, 2), CASPER, SCALE).shape) == (1, 1, 1, 2, 2)
    assert tuple(latent_mask(constant(1, 1), (1, 2, 2), WAN, SCALE).shape) == (1, 1, 4, 2, 2)


def test_a_mask_of_another_length_is_refused():
    with pytest.raises(ValueError, match="6 frames for 2 latent frames"):
        latent_mask(constant(6, 1), (2, 2, 2), CASPER, SCALE)


def test_what_is_made_shares_no_memory_with_what_was_given():
    mask = constant(1, 1, side=2)
    found = latent_mask(mask, (1, 2, 2), CASPER, 1.0)
    mask[:] = 0
    assert found.unique().tolist() == [1.0]
