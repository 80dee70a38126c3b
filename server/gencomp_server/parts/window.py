# SPDX-License-Identifier: Apache-2.0
"""Pictures between their data window and the display window.

Files hold the pixels of their data window, which may be smaller than the picture's frame (a roto's
bounding box) or larger (overscan).  Parts compute over the display window; what is delivered has
the plate's own data window again.  Nothing is resampled here.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gencomp_protocol.frames import Box

F32 = NDArray[np.float32]


def onto_display(pixels: NDArray[Any], data: Box, display: Box) -> NDArray[Any]:
    """Lay the pixels of a data window onto the display window, zero where none are.

    Args:
        pixels: [H,W,C] of any type, over ``data``.
        data: Window of ``pixels``.
        display: Window wanted.

    Returns:
        [H,W,C] of the same type, over ``display``; the input itself where the windows agree.
    """
    if data == display:
        return pixels
    canvas = np.zeros((display.height, display.width, pixels.shape[2]), pixels.dtype)
    common = data.intersect(display)
    if common is not None:
        canvas[_slices(common, display)] = pixels[_slices(common, data)]
    return canvas


def fill_from_display(target: NDArray[Any], data: Box, picture: NDArray[Any], display: Box) -> None:
    """Copy a display-window picture over the pixels of a data window that lie inside it.

    Args:
        target: [H,W,C] over ``data``; changed in place, kept outside the display window.
        data: Window of ``target``.
        picture: [H,W,C] over ``display``.
        display: Window of ``picture``.
    """
    common = data.intersect(display)
    if common is not None:
        target[_slices(common, data)] = picture[_slices(common, display)]


def finite(pixels: NDArray[Any]) -> F32:
    """Return a float32 copy with NaN and infinities replaced, for computing only.

    A bad sample takes the mean of its finite neighbours within two pixels, or 0 where there are
    none, so that a hot or dead pixel does not spread through filters.

    Args:
        pixels: [H,W,C] float16 or float32, scene-linear, may hold NaN and Inf.

    Returns:
        [H,W,C] float32, scene-linear, finite.
    """
    out = pixels.astype(np.float32)
    good = np.isfinite(out)
    if good.all():
        return out
    out[~good] = 0.0
    weight = _box_sum(good.astype(np.float32))
    mean = _box_sum(out) / np.maximum(weight, 1.0)
    return np.where(good, out, mean)


def _box_sum(x: F32) -> F32:
    """Sum over 5x5 neighbours, nothing beyond the border. [H,W,C] float32."""
    size = (5, 5)
    summed = cv2.boxFilter(x, cv2.CV_32F, size, normalize=False, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(summed, np.float32).reshape(x.shape)


def _slices(box: Box, origin: Box) -> tuple[slice, slice]:
    y0, x0 = box.y0 - origin.y0, box.x0 - origin.x0
    return slice(y0, y0 + box.height), slice(x0, x0 + box.width)
