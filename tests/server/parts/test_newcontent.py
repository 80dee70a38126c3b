# SPDX-License-Identifier: Apache-2.0
"""Where new content is: marks on latents as pixels, and how far a delivery may reach from it."""

import numpy as np
import pytest

from gencomp_server.parts.newcontent import asked, on_pixels, reach_of_edit, segmented


class Still:
    """A shot of so many frames without inputs."""

    names = ()

    def __init__(self, frames):
        self.frames = range(1001, 1001 + frames)


class Bench:
    """A context that only listens; its segmenter is set by a test."""

    segmenter = None

    def progress(self, stage, step, total):
        pass

    def check_cancelled(self):
        pass


@pytest.mark.parametrize("marked", [0, 1, 2])
def test_the_first_latent_frame_is_one_frame_and_every_other_is_four(marked):
    marks = np.zeros((4, 1, 2), bool)
    marks[marked, 0, 1] = True
    pixels = on_pixels(marks, 7, (16, 8), 4)
    assert pixels.shape == (7, 8, 16)
    on = {0: [0], 1: [1, 2, 3, 4], 2: [5, 6]}[marked]
    assert np.flatnonzero(pixels.any(axis=(1, 2))).tolist() == on
    assert pixels[on[0], :, 8:].all()
    assert not pixels[:, :, :8].any()


@pytest.mark.parametrize(("grow_px", "width"), [(0, 1), (3, 7), (10, 21)])
def test_a_change_may_reach_so_many_pixels_beyond_new_content_and_no_further(grow_px, width):
    area = np.zeros((1, 41, 41), bool)
    area[0, 20, 20] = True
    reach = reach_of_edit(Bench(), Still(1), area, size=(41, 41), grow_px=grow_px)
    assert int(reach.allowed[0, 20].sum()) == width
    assert int(reach.allowed[0, :, 20].sum()) == width
    np.testing.assert_array_equal(reach.allowed[0], reach.grown[0] > 0)


def test_where_content_is_new_the_noise_floor_is_not_measured():
    classes = asked(np.array([[[True, False]]]))
    assert classes.shape == (1, 1, 2, 1)
    assert classes[..., 0].tolist() == [[[2, 0]]]


def test_specks_of_a_segmenter_are_dropped_and_what_is_three_pixels_wide_stays():
    class Specks:
        def mattes(self, pictures, words, *, check):
            made = np.zeros((len(list(pictures)), 12, 12, 1), np.float32)
            made[:, 1:3, 1:3] = 1
            made[:, 6:9, 6:9] = 0.5
            return made

    ctx = Bench()
    ctx.segmenter = Specks()
    found = segmented(ctx, np.zeros((2, 12, 12, 3), np.float32), words="x", segmenter="y")
    assert found.dtype == bool
    assert found.sum(axis=(1, 2)).tolist() == [9, 9]
    assert found[:, 6:9, 6:9].all()
