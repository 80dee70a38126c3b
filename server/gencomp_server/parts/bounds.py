# SPDX-License-Identifier: Apache-2.0
"""Where a change may be delivered, whatever a model was told and whatever it made.

A bound is coverage at plate size: 0 keeps the plate bit for bit, 1 lets a change in whole, a
feather lets it in softly. Frames are [H,W,1] float32, 0..1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from gencomp_server.parts.fit import from_model_frame, to_model_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

# Bringing coverage to model size and back spreads it by less than this many model pixels.
_SPREAD_PX = 2


def grow(coverage: Floats, size: tuple[int, int], grow_px: int) -> Floats:
    """Grow coverage outwards, its feather with it.

    Args:
        coverage: At plate size. [H,W,1] float32, 0..1.
        size: Model size: width and height.
        grow_px: How far, in model pixels; less than 2 changes nothing.

    Returns:
        At least ``coverage`` everywhere, 0 further from it than ``grow_px``. [H,W,1] float32.
    """
    if grow_px < _SPREAD_PX or not coverage.any():
        return coverage
    height, width = coverage.shape[:2]
    low = _spread(to_model_frame(coverage, size)[..., 0], grow_px - _SPREAD_PX)
    return np.maximum(from_model_frame(low, (width, height))[..., None], coverage)


def at_model_size(bound: Floats, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return where a bound lets anything in. [H,W,1] at plate size gives [h,w] bool."""
    seen: NDArray[np.bool_] = to_model_frame(bound, size)[..., 0] > 0
    return seen


def _spread(plane: Floats, radius: int) -> Floats:
    """Take the greatest value within a disc."""
    if radius == 0:
        return plane
    side = 2 * radius + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return np.asarray(cv2.dilate(plane, disc), np.float32)
