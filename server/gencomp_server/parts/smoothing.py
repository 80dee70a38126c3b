# SPDX-License-Identifier: Apache-2.0
"""A noisy field made as smooth as its noise asks for, and no smoother.

A pixel is averaged with those around it, further away from pass to pass, as long as small patches
about both are alike within their noise. Without noise nothing is alike but what is equal, so that
a clean field stays as it is; there is no switch between the two.

Fields are [h,w,C] float32, with the variance of their noise in the same shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

REACH_PX = 14
"""A pixel is changed by none further away than this."""
_STEPS_PX = (1, 2, 4)
# Patches' mean squared difference in units of its noise: 1 is noise alone. Up to ALIKE they count
# in full, then ever less.
_ALIKE, _FADES = 1.3, 0.5
_SEEN_ALIKE = 0.2  # sigma of the guide's difference, in code: only other things are kept apart
_SIDE, _CORNER = 0.5, 0.25


def smooth(field: Floats, variance: Floats, guide: Floats) -> tuple[Floats, Floats]:
    """Average a field over what is alike.

    Args:
        field: [h,w,C] float32.
        variance: Of its noise, > 0. [h,w,C] float32.
        guide: What is seen there, code. [h,w,3] float32.

    Returns:
        The field and the variance of what noise is left in it.
    """
    for step in _STEPS_PX:
        field, variance = _pass(field, variance, guide, step)
    return field, variance


def _pass(field: Floats, variance: Floats, guide: Floats, step: int) -> tuple[Floats, Floats]:
    wide, noise, seen = (_bordered(of, step) for of in (field, variance, guide))
    total, weights = field.copy(), np.ones((*field.shape[:2], 1), np.float32)
    left = variance.copy()
    height, width = field.shape[:2]
    for dy in (0, step, 2 * step):
        for dx in (0, step, 2 * step):
            if dy == dx == step:
                continue
            at = np.s_[dy : dy + height, dx : dx + width]
            share = _CORNER if step not in (dy, dx) else _SIDE
            weight = share * _likeness(field - wide[at], variance + noise[at], guide - seen[at])
            total += weight * wide[at]
            weights += weight
            left += weight * weight * noise[at]
    total /= weights
    left /= weights * weights
    return total, left


def _bordered(picture: Floats, by: int) -> Floats:
    return np.pad(picture, ((by, by), (by, by), (0, 0)), mode="edge")


def _likeness(difference: Floats, variance: Floats, seen: Floats) -> Floats:
    """Return how much pixels may count for one another. [h,w,1] float32, 0..1."""
    squares = difference * difference
    squares /= variance
    apart = cv2.blur(_over_channels(squares) / np.float32(difference.shape[2]), (3, 3))
    unlike = np.maximum(apart - np.float32(_ALIKE), 0) / np.float32(_FADES)
    unlike += _over_channels(seen * seen) / np.float32(2 * _SEEN_ALIKE**2)
    return np.asarray(np.exp(-unlike)[..., None], np.float32)


def _over_channels(picture: Floats) -> Floats:
    """Sum over the last axis: as it is short, quicker than ``sum``."""
    total = picture[..., 0].copy()
    for channel in range(1, picture.shape[2]):
        total += picture[..., channel]
    return total
