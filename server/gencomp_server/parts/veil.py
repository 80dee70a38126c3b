# SPDX-License-Identifier: Apache-2.0
"""Telling a veiled sample of the background from a bare one.

Two signs, neither of which needs an idea of what the effect looks like.

Texture: smoke, reflections and shadows let the background through only in part:
where the fine detail of a sample is the background's detail times less than in other samples,
something lies over it. This sees lingering smoke that a median over time takes for the background,
and is silent on flat background.

Agreement: bare samples repeat one another to within the noise, and an effect that moves does not
repeat itself. Samples that many others agree with count, the more so the further the objects were.
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
_BARE, _ALIKE = 2.0, 0.5
_PARTNERS = 32
_ENOUGH_SUPPORT = 0.6


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
    errors, alike = np.empty_like(slopes), np.empty_like(slopes)
    for t, values in enumerate(stack):
        slopes[t], errors[t], alike[t] = _slope(values, middle, ground)
    # What hardly is the background's texture (the rim of a shadow) sets no standard for others.
    judge = np.isfinite(slopes) & (alike > _ALIKE)
    sure = np.where(judge, slopes - _BARE * errors, -np.inf).max(axis=0)
    kept = slopes + np.maximum(errors, _TOLERANCE) >= sure
    # A sample too near to a hole to be judged counts only where no other can be.
    valid = np.isfinite(stack[..., 0])
    judged = np.isfinite(slopes).any(axis=0)
    return np.asarray(valid & np.where(judged, kept, True))


def _detail(grey: Floats) -> Floats:
    """Return the band of sizes that texture has and smoke and soft shadows have not. [H,W]."""
    fine = cv2.GaussianBlur(grey, (0, 0), _FINE_PX)
    return np.asarray(fine - cv2.GaussianBlur(grey, (0, 0), _COARSE_PX), np.float32)


def _slope(values: Floats, middle: Floats, ground: Floats) -> tuple[Floats, Floats, Floats]:
    """Return one sample's slope on the ground, its standard error and the squared correlation.

    [H,W] each; the slope is NaN beside holes.
    """
    known = np.isfinite(values[..., 0])
    detail = _detail(np.where(known[..., None], values, middle).mean(axis=-1))
    # Detail that reaches into a hole is made up.
    sure = cv2.erode(known.astype(np.float32), np.ones((5, 5), np.uint8))

    def window(x: Floats) -> Floats:
        return np.asarray(cv2.GaussianBlur(x * sure, (0, 0), _WINDOW_PX), np.float32)

    amount = np.maximum(window(ground**2), np.float32(1e-10))
    both = window(detail * ground)
    slope = np.asarray(both / amount, np.float32)
    power = np.maximum(window(detail**2), np.float32(1e-10))
    left = np.maximum(power - slope * both, np.float32(0.0))
    weight = window(np.ones_like(ground))
    # So many details are independent of one another in a window of that width.
    count = np.maximum(weight * (4 * np.pi * _WINDOW_PX**2 / _GRAIN_PX), np.float32(1.0))
    error = np.sqrt(left / amount / count)
    slope[weight < 0.25] = np.nan
    alike = np.asarray(slope * both / power, np.float32)
    return slope, np.asarray(error, np.float32), alike


def agreeing_samples(means: Floats, trust: Floats, tolerance: Floats) -> Bools:
    """Tell which samples repeat what the trusted ones say.

    Every sample is given the trust of all samples within the tolerance of it, averaged over a
    window; those stay that have a good part of the most that any has. Background that moves by
    itself agrees with nothing in particular: there all samples stay.

    Args:
        means: Local means of the samples, NaN where there is none. [T,H,W] float32.
        trust: Weight of each sample. [T,H,W] float32, >= 0; 0 leaves it out.
        tolerance: How far samples of the same may differ. [H,W] float32.

    Returns:
        [T,H,W] bool, False where there is no sample or no trust.
    """
    count = len(means)
    partners = sorted(set(np.linspace(0, count - 1, _PARTNERS).round().astype(int)))
    # Local means are smooth: half the size is enough, and a quarter of the work.
    small = np.nan_to_num(means[:, ::2, ::2], nan=-9.0)
    weight = np.where(small > -8.0, trust[:, ::2, ::2], np.float32(0.0))
    limit = tolerance[::2, ::2]
    support = np.zeros_like(small)
    for t in range(count):
        for other in partners:
            support[t] += weight[other] * (np.abs(small[t] - small[other]) < limit)
        there = (weight[t] > 0).astype(np.float32)
        around = cv2.GaussianBlur(support[t] * there, (0, 0), _WINDOW_PX / 2)
        around /= np.maximum(cv2.GaussianBlur(there, (0, 0), _WINDOW_PX / 2), np.float32(1e-3))
        support[t] = around * there
    enough = support >= _ENOUGH_SUPPORT * support.max(axis=0)
    full = enough.repeat(2, axis=1).repeat(2, axis=2)[:, : means.shape[1], : means.shape[2]]
    return np.asarray(full & np.isfinite(means) & (trust > 0))
