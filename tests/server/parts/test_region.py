# SPDX-License-Identifier: Apache-2.0
"""The region that a model sees: holds all masks, has the plate's shape, is worth it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gencomp_protocol.frames import Box, Format
from gencomp_server.parts.region import (
    Marks,
    covered_box,
    crop,
    in_plate,
    region_of,
    region_sentence,
)

HD, SIZE = Format(1920, 1080), (672, 384)


def marks(*box):
    return Marks(tuple(box), (0.1,))


def test_when_a_mask_is_small_then_the_model_sees_its_own_size_of_the_plate():
    box = region_of(marks(900, 500, 1000, 560), HD, SIZE)
    assert (box.width, box.height) == (683, 384)  # as large as the model, in the plate's shape
    assert box.x0 < 800
    assert box.x1 > 1100


def test_when_masks_fill_most_of_the_frame_or_cover_nothing_then_all_of_it_is_seen():
    whole = Box(0, 0, 1919, 1079)
    assert region_of(marks(0, 0, 1919, 1079), HD, SIZE) == whole
    assert region_of(marks(100, 100, 1700, 900), HD, SIZE) == whole
    assert region_of(Marks(None, ()), HD, SIZE) == whole


def test_when_a_mask_lies_in_a_corner_then_the_region_stays_in_the_plate():
    box = region_of(marks(1800, 1000, 1919, 1079), HD, SIZE)
    assert (box.x1, box.y1) == (1919, 1079)
    assert region_of(marks(0, 0, 10, 10), HD, SIZE).x0 == 0


def test_when_a_roto_is_nudged_then_the_region_stays():
    assert region_of(marks(900, 500, 1100, 600), HD, SIZE) == region_of(
        marks(903, 497, 1102, 603), HD, SIZE
    )


def test_when_pixels_are_twice_as_wide_then_the_region_keeps_the_plates_shape():
    box = region_of(marks(900, 700, 1000, 800), Format(2048, 1556, 2.0), (880, 336))
    assert box.width / box.height == pytest.approx(2048 / 1556, rel=0.01)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(64, 4096),
    st.integers(64, 4096),
    st.sampled_from([0.5, 1.0, 2.0]),
    st.tuples(*[st.floats(0, 1)] * 4),
)
def test_whatever_the_plate_the_region_holds_all_masks_and_is_in_it(width, height, square, at):
    xs, ys = sorted(at[:2]), sorted(at[2:])
    mask = Box(
        *(int(x * (width - 1)) for x in (xs[0],)),
        int(ys[0] * (height - 1)),
        int(xs[1] * (width - 1)),
        int(ys[1] * (height - 1)),
    )
    size = (min(width, 48), min(height, 32))
    box = region_of(marks(mask.x0, mask.y0, mask.x1, mask.y1), Format(width, height, square), size)
    assert Box(0, 0, width - 1, height - 1).intersect(box) == box
    assert box.intersect(mask) == mask
    assert abs(box.width * height - box.height * width) <= 2 * max(width, height)
    assert box.width * square >= size[0] - 1 or box.width == width
    assert box.height >= size[1] - 1


def test_when_a_matte_covers_a_little_everywhere_then_only_what_can_be_delivered_counts():
    coverage = np.full((40, 60, 1), 0.0005, np.float32)
    assert covered_box(coverage) is None
    coverage[10:13, 20:25] = 0.01
    assert covered_box(coverage) == Box(20, 10, 24, 12)


def test_when_indices_of_a_box_come_back_then_they_are_the_same_pixels():
    picture = np.arange(6 * 8).reshape(6, 8)
    for box in (Box(2, 1, 5, 4), Box(0, 2, 7, 3)):
        inside = crop(picture, box)
        index = np.arange(inside.size)
        assert (picture.reshape(-1)[in_plate(index, box, 8)] == inside.reshape(-1)).all()


def test_the_manifest_says_what_the_model_saw():
    assert region_sentence(Box(0, 0, 1919, 1079), HD) == "The model saw the whole frame."
    said = region_sentence(Box(960, 540, 1919, 1079), HD)
    assert "the box 960x540+960+540 of the plate (25 % of it)" in said
