# SPDX-License-Identifier: Apache-2.0
"""Telling a veiled sample of the background from a bare one by its texture.

Smoke, reflections and shadows let the background through only in part, and with it its texture:
where the fine detail of a sample is the background's detail times less than in other samples,
something lies over it. This sees lingering smoke that a median over time takes for the background,
and needs no idea of what the effect looks like. On flat background it is silent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Bools = NDArray[np.bool_]

HALO_PX = 16
"""Rows around that an answer depends on."""

_WINDOW_PX = 6.0
_FINE_PX, _COARSE_PX = 0.8, 2.5
_GRAIN_PX = 6.0
# Resampling between pixels and misses of a fraction of a pixel cost gradients about this much.
_TOLERANCE = 0.07
_BARE = 2.0


def bare_samples(stack: Floats, middle: Floats) -> Bools:
    """Tell which samples show the background's texture as fully as the best of them.

    The slope of a sample's gradients on those of ``middle`` is measured in windows, with its
    standard error. A sample stays if its slope is not below what some other sample has for sure.

    Args:
        stack: Samples of the background, NaN where there is none. [T,H,W,3] float32, encoded.
        middle: An estimate of the background. [H,W,3] float32, encoded.

    Returns:
        [T,H,W] bool, False where there is no sample.
    """
    ground = _detail(middle.mean(axis=-1))
    slopes = np.empty(stack.shape[:3], np.float32)
    errors = np.empty_like(slopes)
    for t, values in enumerate(stack):
        slopes[t], errors[t] = _slope(values, middle, ground)
    sure = np.where(np.isfinite(slopes), slopes - _BARE * errors, -np.inf).max(axis=0)
    kept = slopes + np.maximum(errors, _TOLERANCE) >= sure
    # A sample too near to a hole to be judged counts only where no other can be.
    valid = np.isfinite(stack[..., 0])
    judged = np.isfinite(slopes).any(axis=0)
    return np.asarray(valid & np.where(judged, kept, True))


def _detail(grey: Floats) -> Floats:
    """Return the band of sizes that texture has and smoke and soft shadows have not. [H,W]."""
    fine = cv2.GaussianBlur(grey, (0, 0), _FINE_PX)
    return np.asarray(fine - cv2.GaussianBlur(grey, (0, 0), _COARSE_PX), np.float32)


def _slope(values: Floats, middle: Floats, ground: Floats) -> tuple[Floats, Floats]:
    """Return one sample's slope on the ground and its standard error, NaN beside holes. [H,W]."""
    known = np.isfinite(values[..., 0])
    detail = _detail(np.where(known[..., None], values, middle).mean(axis=-1))
    # Detail that reaches into a hole is made up.
    sure = cv2.erode(known.astype(np.float32), np.ones((5, 5), np.uint8))

    def window(x: Floats) -> Floats:
        return np.asarray(cv2.GaussianBlur(x * sure, (0, 0), _WINDOW_PX), np.float32)

    amount = np.maximum(window(ground**2), np.float32(1e-10))
    both = window(detail * ground)
    slope = both / amount
    left = np.maximum(window(detail**2) - slope * both, np.float32(0.0))
    weight = window(np.ones_like(ground))
    # So many details are independent of one another in a window of that width.
    count = np.maximum(weight * (4 * np.pi * _WINDOW_PX**2 / _GRAIN_PX), np.float32(1.0))
    error = np.sqrt(left / amount / count)
    slope[weight < 0.25] = np.nan
    return slope, np.asarray(error, np.float32)
