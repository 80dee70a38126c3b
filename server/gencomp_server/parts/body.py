# SPDX-License-Identifier: Apache-2.0
"""How much of the plate an effect hides: the body of smoke, dust and spray, at model size.

The least alpha that gives the result calls everything brighter than the plate added light, so smoke
before a dark wall would have no body and could not be graded or put over another plate. What tells
smoke from light is contrast: smoke lets less of the plate's own detail through. In a small window
the result is fitted as ``slope * plate + light``, one slope for all channels; ``1 - slope`` is the
body. Light that is added moves the result up and leaves the slope at one; a shadow has its alpha
by the least one already, and gets no other.

Where the plate has no detail nothing can be read, and there is no body either. The moments of a
window are pooled over neighbouring frames before the fit, which steadies it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from gencomp_server.colour.modelrange import decode, slope

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

WINDOW_PX = 2.25
"""Sigma of the window of a fit, in model pixels."""
COARSE_PX = 2.0
"""Sigma of the mean that detail stands out from; wider, the edge of a shadow would be detail."""
POOL = (0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25)
"""Weights of the frames around a frame."""
DETAIL = 6e-3
"""Code 0..1: detail of this size counts half; a VAE's own error is of about that size."""
BLACK = 0.2
"""Up to this share of the plate's light, what hides it is a shadow; from twice that, a body."""
SMOOTH_PX = 3.0
"""Sigma of the mean of what was read, weighed by how well it was."""
_DOUBT, _LEAST_SURE = 0.3, 0.05
_LEAST_CONFIDENCE = 1e-3
_BLACK = 3e-3


def bodies(
    reference: NDArray[np.floating], made: NDArray[np.floating], weights: NDArray[np.floating]
) -> NDArray[np.float16]:
    """Return the alpha that an effect has by hiding the plate's detail.

    Args:
        reference: The plate through the VAE. [T,h,w,3], model range -1..1, a little outside
            allowed.
        made: What the model made. [T,h,w,3], model range.
        weights: Where there is a change. [T,h,w,1], 0..1; there is no body outside.

    Returns:
        Alpha to wish for; 0 where nothing can be read. [T,h,w,1] float16, 0..1.
    """
    frames = len(reference)
    found = np.zeros((*reference.shape[:3], 1), np.float16)
    changing = [bool(np.any(weight)) for weight in weights]
    half = len(POOL) // 2
    kept: dict[int, Floats] = {}
    for t in range(frames):
        near = range(max(0, t - half), min(frames, t + half + 1))
        kept = {n: kept[n] for n in near if n in kept}
        if not changing[t]:
            continue
        for n in near:
            if n not in kept and changing[n]:
                kept[n] = _moments(reference[n], made[n], weights[n])
        pooled = np.sum([POOL[n - t + half] * kept[n] for n in near if n in kept], axis=0)
        alpha = _alpha(np.asarray(pooled, np.float32))
        found[t, ..., 0] = alpha * np.clip(weights[t, ..., 0], 0, 1)
    return found


def _moments(
    reference: NDArray[np.floating],
    made: NDArray[np.floating],
    weight: NDArray[np.floating],
) -> Floats:
    """Return what a fit needs, each times its confidence. [h,w,6].

    The channels are: the detail's variance before, its covariance, its variance after, the
    variance that noise would have, and the light before and after.
    """
    lit, wanted = decode(_code(reference)), decode(_code(made))
    # A small error of the code is a large error of the light where the curve is flat.
    steep = slope(lit).mean(axis=2, keepdims=True) * slope(wanted).mean(axis=2, keepdims=True)
    sure = np.maximum(steep, np.float32(_LEAST_CONFIDENCE))
    sure = np.asarray(sure * np.maximum(weight, np.float32(1e-3)), np.float32)
    fine = [
        light - _mean(light * sure, COARSE_PX) / _mean(sure, COARSE_PX) for light in (lit, wanted)
    ]
    pairs = (fine[0] * fine[0], fine[0] * fine[1], fine[1] * fine[1])
    moments = [_mean(pair * sure, WINDOW_PX).sum(axis=2) for pair in pairs]
    total = _mean(sure, WINDOW_PX)
    levels = [_mean(light * sure, WINDOW_PX) for light in (lit, wanted)]
    flat = np.maximum(slope(levels[0] / total).mean(axis=2), np.float32(1e-3))
    moments.append(np.float32(3 * DETAIL**2) / (flat * flat) * total[..., 0])
    moments += [level.sum(axis=2) + np.float32(_BLACK) * total[..., 0] for level in levels]
    return np.stack(moments, axis=2).astype(np.float32)


def _alpha(moments: Floats) -> Floats:
    """Fit. [h,w,6] gives [h,w], 0..1."""
    before, shared, after, noise, lit, wanted = np.moveaxis(moments, 2, 0)
    tiny = np.float32(1e-12)
    kept = np.clip(shared / np.maximum(before, tiny), 0, 1)
    unlike = np.maximum(after - shared * shared / np.maximum(before, tiny), 0)
    doubt = noise + np.float32(_DOUBT) * unlike
    sure = before / np.maximum(before + doubt, tiny)
    # What could be read stands for what is around it: smoke has no holes where the plate is plain.
    both = _mean(np.stack([(1 - kept) * sure, sure], axis=2).astype(np.float32), SMOOTH_PX)
    alpha = both[..., 0] / (both[..., 1] + np.float32(_LEAST_SURE))
    # What hides the plate and is next to black itself is a shadow, and has its alpha already.
    colour = (wanted - (1 - alpha) * lit) / np.maximum(alpha * lit, tiny)
    return np.asarray(alpha * np.clip(colour / np.float32(BLACK) - 1, 0, 1), np.float32)


def _code(video: NDArray[np.floating]) -> Floats:
    code = np.asarray(video, np.float32) * np.float32(0.5) + np.float32(0.5)
    return np.asarray(np.clip(code, 0, 1), np.float32)


def _mean(picture: Floats, sigma: float) -> Floats:
    mean = cv2.GaussianBlur(picture, (0, 0), sigma)
    return np.asarray(mean.reshape(*picture.shape[:2], -1), np.float32)
