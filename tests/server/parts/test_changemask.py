# SPDX-License-Identifier: Apache-2.0
"""Where new content is: mattes at the size of latents, and mattes out of differences."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gencomp_server.backbones import spec_named
from gencomp_server.parts.changemask import (
    difference,
    latent_marks,
    no_marks,
    otsu,
    parted,
    pooled,
    two_means,
)

SPEC = replace(spec_named("tiny-text-to-video"), window_frames=49, overlap_frames=16)


class Means:
    """A VAE that keeps the mean of 8x8 pixels of every fourth frame."""

    device, spec = torch.device("cpu"), SPEC

    def encode(self, video, progress=None):
        length, height, width, _ = video.shape
        shape = ((length + 3) // 4, height // 8, 8, width // 8, 8, 3)
        means = np.asarray(video)[::4].reshape(shape).mean(axis=(2, 4))
        return torch.from_numpy(means.astype(np.float32)).permute(0, 3, 1, 2)[None]


class Ctx:
    def __init__(self, backbone):
        self.backbone = backbone

    def progress(self, stage, step, total):
        pass


def marks_of(matte):
    return latent_marks(Ctx(Means()), matte, backbone="means")


def matte(frames=49):
    """A block of 24x16 pixels in the corner from frame 20 on. [T,32,48] float32."""
    made = np.zeros((frames, 32, 48), np.float32)
    made[20:, 8:24, 16:40] = 1
    return made


# --- from a matte to latents ---------------------------------------------------------------------


def test_a_matte_that_fills_cells_marks_those_cells():
    expected = np.zeros((13, 4, 6), bool)
    expected[5:, 1:3, 2:5] = True
    assert np.array_equal(marks_of(matte()), expected)


def test_a_matte_of_more_than_half_the_picture_is_not_turned_over():
    assert np.array_equal(marks_of(1 - matte()), ~marks_of(matte()))


def test_a_matte_with_a_channel_axis_is_the_same_matte():
    assert np.array_equal(marks_of(matte()[..., None]), marks_of(matte() > 0.5))


def test_an_empty_matte_marks_nothing_and_a_full_one_everything():
    empty = np.zeros((49, 32, 48), bool)
    assert marks_of(empty).shape == (13, 4, 6)
    assert not marks_of(empty).any()
    assert marks_of(~empty).all()


def test_specks_of_a_segmenter_mark_nothing():
    specks = np.zeros((49, 32, 48), bool)
    specks[:, ::8, ::8] = True
    assert not marks_of(specks).any()


def test_a_shot_shorter_than_a_window_is_padded_as_the_plate_is():
    assert marks_of(matte(24)).shape == (13, 4, 6)


def test_without_a_matte_no_cell_of_the_plates_latents_is_marked():
    found = no_marks(np.zeros((1, 13, 16, 4, 6), np.float32))
    assert found.shape == (13, 4, 6)
    assert not found.any()


def test_two_heaps_of_vectors_are_parted_whatever_their_sizes():
    heaps = np.concatenate([np.full((3, 4), 5.0), np.zeros((40, 4))]).astype(np.float32)
    heaps += np.random.default_rng(0).standard_normal(heaps.shape).astype(np.float32) * 0.3
    found = two_means(heaps)
    assert len(set(found[:3])) == len(set(found[3:])) == 1
    assert found[0] != found[3]


def test_vectors_that_are_all_the_same_are_one_group():
    assert not two_means(np.ones((9, 4), np.float32)).any()


def test_the_group_that_the_mask_means_is_marked_also_where_it_is_the_larger():
    vectors = np.zeros((1, 2, 3, 2), np.float32)
    vectors[0, 0] = 1
    vectors[0, 1, 0] = 1
    roughly = vectors[..., 0] > 0
    assert np.array_equal(parted(vectors, roughly), roughly)
    assert np.array_equal(parted(-vectors, ~roughly), ~roughly)


class Smears(Means):
    """A VAE whose latents say nothing of the matte: they are brighter to the left."""

    def encode(self, video, progress=None):
        made = super().encode(video, progress)
        return made * 0 + torch.arange(made.shape[-1]).float().flip(0)


def test_whatever_a_vae_makes_of_a_matte_nothing_is_marked_far_from_it():
    drawn = matte()
    drawn[..., 24:] = 0  # of 6x4 cells two lie in the matte, one below the other
    found = latent_marks(Ctx(Smears()), drawn, backbone="smears")
    assert found[6, 1:3, 2].all()
    assert not found[..., 4:].any()
    assert not found[:4].any()


def test_a_matte_thinner_than_half_a_cell_marks_the_cells_that_it_touches():
    thin = np.zeros((49, 32, 48), bool)
    thin[:, 9:12, 17:20] = True
    found = latent_marks(Ctx(Smears()), thin, backbone="smears")
    assert found[:, 1, 2].all()
    assert found.sum() <= 13 * 9


def test_the_first_frame_stands_alone_and_four_share_the_next_cell():
    marked = np.zeros((9, 8, 8), bool)
    marked[0] = True
    marked[3:5] = True
    marked[5] = True
    assert pooled(marked, (3, 1, 1)).ravel().tolist() == [True, True, False]


# --- from a difference to a matte ----------------------------------------------------------------


def shot(seed=0, noise=0.02):
    """Two pictures of the same thing through the same VAE, a little noise apart. [4,40,60,3]."""
    made = np.random.default_rng(seed)
    picture = np.tile(np.linspace(-0.8, 0.8, 60, dtype=np.float32)[:, None], (4, 40, 1, 3))
    return picture, picture + made.standard_normal(picture.shape).astype(np.float32) * noise


def test_what_was_added_is_found_and_nothing_else():
    reference, edited = shot()
    edited[:, 10:30, 20:44] += 0.9
    found = difference(None, reference, edited)
    truth = np.zeros((4, 40, 60), bool)
    truth[:, 10:30, 20:44] = True
    wide = np.zeros_like(truth)
    wide[:, 8:32, 18:46] = True
    assert found.mask[:, 12:28, 22:42].all()
    assert not (found.mask & ~wide).any()
    assert found.share == pytest.approx(truth.mean(), rel=0.15)


def test_what_got_darker_is_found_as_well():
    reference, edited = shot()
    edited[1, 10:30, 20:44] -= 0.5
    assert difference(None, reference, edited).mask.any(axis=(1, 2)).tolist() == [
        False,
        True,
        False,
        False,
    ]


def test_where_nothing_was_added_nothing_is_found():
    found = difference(None, *shot())
    assert (found.share, found.threshold) == (0.0, 0.08)


def test_a_picture_that_is_the_plate_itself_differs_nowhere():
    reference, _ = shot()
    assert difference(None, reference, reference).share == 0


def test_otsu_parts_two_heaps_between_them():
    values = np.array([0.1] * 90 + [0.9] * 10, np.float32)
    assert 0.1 < otsu(values) < 0.9


def test_otsu_of_one_value_parts_nothing():
    assert otsu(np.zeros(5, np.float32)) == 0
