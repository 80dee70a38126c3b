# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from gencomp_protocol.frames import Box
from gencomp_server.parts.window import fill_from_display, finite, onto_display

DISPLAY = Box(0, 0, 3, 2)


def numbered(box: Box) -> np.ndarray:
    """Every pixel holds 100*y + x of its place on the canvas."""
    y, x = np.mgrid[box.y0 : box.y1 + 1, box.x0 : box.x1 + 1]
    return (100 * y + x).astype(np.float16)[:, :, None]


def test_when_the_windows_agree_then_nothing_is_copied():
    pixels = numbered(DISPLAY)
    assert onto_display(pixels, DISPLAY, DISPLAY) is pixels


def test_when_the_data_window_is_larger_then_the_display_part_is_cut_out():
    overscan = Box(-2, -1, 5, 4)
    assert np.array_equal(onto_display(numbered(overscan), overscan, DISPLAY), numbered(DISPLAY))


def test_when_the_data_window_is_smaller_then_the_rest_is_zero():
    small = Box(1, 1, 2, 1)
    laid = onto_display(numbered(small), small, DISPLAY)[:, :, 0]
    assert laid.tolist() == [[0, 0, 0, 0], [0, 101, 102, 0], [0, 0, 0, 0]]


def test_when_the_windows_do_not_meet_then_all_is_zero():
    away = Box(10, 10, 12, 12)
    assert not onto_display(numbered(away), away, DISPLAY).any()


def test_when_a_picture_is_put_back_then_overscan_keeps_its_own_pixels():
    overscan = Box(-1, -1, 4, 3)
    target = numbered(overscan)
    fill_from_display(target, overscan, np.full((3, 4, 1), 7, np.float16), DISPLAY)
    inside = target[1:4, 1:5]
    assert (inside == 7).all()
    target[1:4, 1:5] = numbered(DISPLAY)
    assert np.array_equal(target, numbered(overscan))


@pytest.mark.fault("F08")
def test_when_samples_are_nan_or_infinite_then_the_mean_of_good_neighbours_stands_in():
    pixels = np.full((5, 5, 3), 2.0, np.float32)
    pixels[2, 2, 0], pixels[0, 0, 1] = np.nan, -np.inf
    out = finite(pixels)
    assert np.array_equal(out, np.full((5, 5, 3), 2.0, np.float32))
    assert np.isnan(pixels[2, 2, 0])


def test_when_every_sample_is_bad_then_zero_stands_in():
    assert not finite(np.full((4, 4, 3), np.nan, np.float16)).any()
