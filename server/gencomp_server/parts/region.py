# SPDX-License-Identifier: Apache-2.0
"""The part of the plate that a model sees: where all masks of a shot are, with room around.

A model works at a fraction of the plate's size. Shown only what matters, it works at a larger
fraction, up to the plate's own pixels. One box stands for the whole shot, so that nothing moves in
it that does not move in the plate; it has the plate's own shape, so that the model's size is the
same whatever the box; and it lies on a coarse grid, so that a roto that is nudged does not move it,
and nothing is encoded again.

Boxes here are inclusive pixels of the display window, its upper left corner (0, 0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gencomp_protocol.frames import Box
from gencomp_protocol.layers import EFFECT_MASK, EFFECT_UNKNOWN
from gencomp_server.parts.change import LEAST_WEIGHT
from gencomp_server.parts.pictures import coverage_of, has_picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_protocol.frames import Format
    from gencomp_server.contract import Context, Shot

    Floats = NDArray[np.float32]

ROOM_OF_HEIGHT, ROOM_OF_BOX = 0.1, 0.25
"""Room on each side of the masks: at least this share of the plate's height, and this share of the
masks' own longer side. A model must see what casts a shadow, not the shadow alone."""
WHOLE_FROM = 0.8
"""A box with more than this share of the frame is not worth cutting out."""
_GRID = 1 / 32
_EXACT = 1e-6  # of a pixel: a whole number of pixels is not rounded up


@dataclass(frozen=True)
class Marks:
    """Where the masks of a shot are.

    Attributes:
        box: What they all lie in: (x0, y0, x1, y1), inclusive; None where they cover nothing.
        shares: Coverage of the picture on each annotated frame, 0..1.
    """

    box: tuple[int, int, int, int] | None
    shares: tuple[float, ...]


def find_marks(ctx: Context, shot: Shot, *, annotated: tuple[int, ...]) -> Marks:
    """Find where the masks are, over the whole shot; the body of a stage.

    What a mask holds on frames where it does not count belongs to it, too: it bounds what may be
    delivered there.

    Args:
        ctx: The run's context.
        shot: With ``effect_mask`` and ``effect_unknown``, where there are such.
        annotated: The frames whose mask counts.
    """
    boxes: list[Box] = []
    shares: list[float] = []
    for i, n in enumerate(shot.frames):
        ctx.progress("masks", i, len(shot.frames))
        for name in (EFFECT_MASK, EFFECT_UNKNOWN):
            if name not in shot.names or not has_picture(shot, name, n):
                continue
            coverage = coverage_of(shot, name, n)
            if name == EFFECT_MASK and n in annotated:
                shares.append(round(float(coverage.mean(dtype=np.float64)), 6))
            found = covered_box(coverage)
            if found is not None:
                boxes.append(found)
    if not boxes:
        return Marks(None, tuple(shares))
    whole = (
        min(one.x0 for one in boxes),
        min(one.y0 for one in boxes),
        max(one.x1 for one in boxes),
        max(one.y1 for one in boxes),
    )
    return Marks(whole, tuple(shares))


def covered_box(coverage: Floats) -> Box | None:
    """Return the box of what a matte covers; None where that is nothing. [H,W,1] float32."""
    covers = coverage[..., 0] > LEAST_WEIGHT
    rows, columns = (np.flatnonzero(covers.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return None
    return Box(int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1]))


def region_of(marks: Marks, plate: Format, size: tuple[int, int]) -> Box:
    """Return the box that a model is shown.

    Args:
        marks: Where the masks are.
        plate: Width, height and pixel aspect.
        size: The model's width and height.

    Returns:
        A box of the plate's own shape to within a pixel, in it, that holds all masks and is not
        smaller than the model's size; the whole plate where it would be most of it, or where no
        mask covers anything.
    """
    whole = Box(0, 0, plate.width - 1, plate.height - 1)
    if marks.box is None:
        return whole
    masks, square = Box(*marks.box), plate.pixel_aspect
    longer = max(masks.width * square, masks.height)
    room = max(ROOM_OF_HEIGHT * plate.height, ROOM_OF_BOX * longer)
    around = max(
        (masks.width + 2 * room / square) / plate.width, (masks.height + 2 * room) / plate.height
    )
    around = math.ceil(around / _GRID + 1) * _GRID  # what lies off the grid still fits in
    share = max(around, size[0] / (plate.width * square), size[1] / plate.height)
    if share * share > WHOLE_FROM:
        return whole
    x0, x1 = _placed(share, masks.x0, masks.x1, plate.width)
    y0, y1 = _placed(share, masks.y0, masks.y1, plate.height)
    return Box(x0, y0, x1, y1)


def _placed(share: float, first: int, last: int, length: int) -> tuple[int, int]:
    """Place a share of a side around some pixels of it, on the grid. Returns first and last."""
    wanted = (first + last + 1) / 2 / length - share / 2
    start = min(max(math.floor(wanted / _GRID + 0.5) * _GRID, 0.0), 1 - share)
    pixels = min(math.ceil(share * length - _EXACT), length)
    begin = min(math.floor(start * length + _EXACT), length - pixels)
    return begin, begin + pixels - 1


def crop(picture: NDArray[Any], box: Box) -> NDArray[Any]:
    """Cut a box out of a picture; no copy. [H,W,...]."""
    return picture[box.y0 : box.y1 + 1, box.x0 : box.x1 + 1]


def in_plate(index: NDArray[np.intp], box: Box, width: int) -> NDArray[np.intp]:
    """Turn flat indices of a box's pixels into those of a plate of some width. [n], rising."""
    if box.width == width:
        return index + box.y0 * width
    rows, columns = np.divmod(index, box.width)
    return np.asarray((rows + box.y0) * width + (columns + box.x0), np.intp)


def region_sentence(box: Box, plate: Format) -> str:
    """Say what of a plate the model was shown."""
    share = box.width * box.height / (plate.width * plate.height)
    if share >= 1:
        return "The model saw the whole frame."
    return (
        f"The model saw the box {box} of the plate ({share * 100:.0f} % of it): where the masks "
        "are, with room around; outside it nothing can change."
    )


def sides(box: Box) -> tuple[int, int, int, int]:
    """Return a box as plain numbers, for the settings of stages: x0, y0, x1, y1, inclusive."""
    return (box.x0, box.y0, box.x1, box.y1)
