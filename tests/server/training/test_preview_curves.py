# SPDX-License-Identifier: Apache-2.0
"""Curves and grids of the preview's training, as another library reads them."""

import cv2
import numpy as np

from gencomp_server.training.preview_curves import curves, grid, write_png

EVENTS = [
    {"event": "step", "step": 50, "loss": 0.5},
    {"event": "step", "step": 100, "loss": 0.1},
    {"event": "validation", "step": 0, "remove_base": 20.0, "remove_model": 20.0, "add_model": 9.0},
    {"event": "validation", "step": 100, "remove_base": 20.0, "remove_model": 22.0, "add_model": 9},
]


def test_a_png_has_the_pixels_it_was_given(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (7, 11, 3), np.uint8)
    write_png(tmp_path / "one.png", pixels)
    assert np.array_equal(cv2.imread(str(tmp_path / "one.png"))[..., ::-1], pixels)


def test_a_grid_lays_rows_out_and_cuts_to_what_a_screen_shows():
    pictures = np.zeros((2, 3, 4, 5, 3), np.float32)
    pictures[1, 2] = 3.0
    pictures[0, 1] = -1.0
    found = grid(pictures, larger=2)
    assert found.shape == (16, 30, 3)
    assert set(found[8:, 20:].ravel()) == {255}
    assert set(found[:8, 10:20].ravel()) == {0}
    assert set(found[8:, :10].ravel()) == {128}


def test_a_curve_that_falls_is_drawn_from_high_to_low():
    page = curves(EVENTS)[:300]
    red = np.argwhere((page == (200, 60, 50)).all(-1) & (np.arange(300) > 30)[:, None])
    first, last = red[red[:, 1].argmin()], red[red[:, 1].argmax()]
    assert first[0] < last[0]


def test_each_task_has_its_panel():
    assert curves(EVENTS).shape == curves([]).shape == (900, 900, 3)
    assert not np.array_equal(curves(EVENTS)[300:600], curves([])[300:600])
