# SPDX-License-Identifier: Apache-2.0
"""What a model made, at the plate's size: what is kept stays, bit for bit."""

import numpy as np
import pytest

from gencomp_server.colour.modelrange import ModelRange
from gencomp_server.parts.change import FLOOR_FRAMES, Floor
from gencomp_server.parts.generated import Generated, floor_of, place_frame
from gencomp_server.parts.passes import Asked
from gencomp_server.parts.trimask import EDIT, KEEP, UNKNOWN

PLAIN = ModelRange()
QUIET = Floor(np.full(3, 2e-4, np.float32), False)
NOISY = Floor(np.full(3, 4e-3, np.float32), False)


def made_of(trimask, floor, replaced=0.0):
    """Return a pass that darkens all of a grey plate by a quarter of the code."""
    height, width = trimask.shape
    reference = np.zeros((1, height, width, 3), np.float16)
    share = np.full((1, height, width, 1), replaced, np.float16)
    return Generated(reference, reference - 0.5, Asked(trimask[None, ..., None], share), floor)


def grainy(height, width):
    rng = np.random.default_rng(4)
    return rng.uniform(0.2, 0.4, (height, width, 3)).astype(np.float32)


@pytest.mark.parametrize("floor", [QUIET, NOISY], ids=["quiet", "noisy"])
@pytest.mark.parametrize("other", [UNKNOWN, EDIT], ids=["unknown", "edit"])
@pytest.mark.parametrize("scale", [4, 1], ids=["larger plate", "plate of the models size"])
def test_what_a_trimask_keeps_is_the_plate_bit_for_bit(floor, other, scale):
    trimask = np.full((24, 40), other, np.uint8)
    trimask[:, 30:] = KEEP
    plate, edge = grainy(24 * scale, 40 * scale), 30 * scale
    result = place_frame(
        plate, made_of(trimask, floor, float(other == EDIT)), 0, colour=PLAIN
    ).picture
    assert result[:, edge:].tobytes() == plate[:, edge:].tobytes()
    assert (result[:, : edge - scale] < plate[:, : edge - scale]).all()


def test_where_sizes_do_not_divide_the_model_pixel_under_a_plate_pixels_centre_decides():
    trimask = np.full((8, 10), UNKNOWN, np.uint8)
    trimask[:, 5:] = KEEP
    plate = grainy(8, 15)  # Column 7 is half of either: its centre is where KEEP begins.
    result = place_frame(plate, made_of(trimask, QUIET), 0, colour=PLAIN).picture
    assert (result != plate).any(axis=(0, 2)).tolist() == [True] * 7 + [False] * 8


def test_a_soft_keep_and_a_trimask_both_hold_a_change_back():
    trimask = np.full((24, 40), UNKNOWN, np.uint8)
    trimask[:, :20] = KEEP
    plate = np.full((24, 40, 3), 0.25, np.float32)
    keep = np.full((24, 40, 1), 0.5, np.float32)
    free = place_frame(plate, made_of(trimask, NOISY), 0, colour=PLAIN).picture
    held = place_frame(plate, made_of(trimask, NOISY), 0, keep, colour=PLAIN).picture
    assert (held[:, :20] == 0.25).all()
    assert held[12, 30, 0] == pytest.approx((0.25 + free[12, 30, 0]) / 2, abs=1e-6)


def test_the_floor_is_measured_at_frames_evenly_spread():
    frames = 4 * FLOOR_FRAMES
    reference = np.zeros((frames, 16, 16, 3), np.float16)
    sample = reference + np.float16(0.5)
    sample[::4] = 0.004
    floor = floor_of(reference, sample)
    # Half of model range is code; the quietest quarter of a constant is the constant.
    assert floor.sigma == pytest.approx(0.002 / 0.31864, rel=1e-3)
