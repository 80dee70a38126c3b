# SPDX-License-Identifier: Apache-2.0
"""Which pixels of two pictures are compared."""

import numpy as np
import pytest

from gencomp_protocol.errors import FormatMismatch
from gencomp_protocol.frames import Box
from gencomp_server.contract import PictureHeader
from gencomp_server.exr.read import MappedPicture
from gencomp_server.metrics.overlap import covered, on_display, overlap

FRAME = Box(0, 0, 9, 4)


def picture(window, value=1.0, channels="RGB", frame=FRAME):
    pixels = np.full((window.height, window.width, len(channels)), value, np.float16)
    header = PictureHeader(
        channels=tuple(channels), pixel_type="half", display_window=frame, data_window=window
    )
    return MappedPicture(header, pixels)


def test_what_a_file_leaves_out_of_its_frame_is_black_and_counts():
    seen = overlap(picture(FRAME), picture(Box(2, 1, 3, 2)), None)
    assert seen.counted.all()
    assert seen.counted.shape == (5, 10)
    assert float(seen.b.sum()) == 2 * 2 * 3


def test_overscan_counts_where_both_have_it():
    seen = overlap(picture(Box(-3, -2, 12, 6)), picture(Box(-1, -2, 11, 4)), None)
    assert seen.box == Box(-1, -2, 11, 4)
    assert seen.counted.all()


def test_overscan_of_one_alone_does_not_count():
    seen = overlap(picture(Box(-3, -2, 12, 6)), picture(FRAME), None)
    assert seen.box == FRAME


def test_corners_that_neither_has_do_not_count():
    seen = overlap(picture(Box(-2, 1, 3, 2)), picture(Box(-2, 1, 3, 2)), None)
    assert seen.box == Box(-2, 0, 9, 4)
    assert int(seen.counted.sum()) == 5 * 10 + 2 * 2


def test_frames_are_laid_over_one_another_wherever_they_lie():
    moved = picture(Box(100, 50, 109, 54), frame=Box(100, 50, 109, 54))
    assert overlap(picture(FRAME), moved, None).box == FRAME


def test_a_mask_counts_from_a_half_on():
    mask = picture(Box(0, 0, 4, 4), 0.5, "A")
    assert int(overlap(picture(FRAME), picture(FRAME), mask).counted.sum()) == 25
    assert int(covered(picture(FRAME, 0.49, "A")).sum()) == 0


def test_frames_of_another_size_are_refused_with_both_sizes():
    with pytest.raises(FormatMismatch, match=r"frame 7 is 10x5, B is 20x5"):
        overlap(picture(FRAME), picture(FRAME, frame=Box(0, 0, 19, 4)), None, 7)


def test_an_alpha_that_one_alone_has_is_dropped():
    seen = overlap(picture(FRAME, channels="RGBA"), picture(FRAME), None)
    assert seen.a.shape[2] == seen.b.shape[2] == 3


def test_a_picture_over_its_frame_loses_its_overscan():
    assert on_display(picture(Box(-3, -2, 12, 6))).shape == (5, 10, 3)
