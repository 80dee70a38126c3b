# SPDX-License-Identifier: Apache-2.0
"""Where a frame differs from its clean plate, and whether that is an object's doing.

With an exact clean plate every difference is. Else a difference must rise above the noise, above
what a small misfit makes of edges and above what the scene does by itself (waves, leaves), in one
piece that begins near a matte. "Display" is the linear value to the power 1/2.2; pictures are
scene-linear float32 [H,W,3], planes [H,W] unless said, radii in pixels.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gencomp_server.parts.calibration import Calibration, soften, to_display
from gencomp_server.parts.transmission import grow, smoothstep

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

SMALLEST_CHANGE = 1e-4  # linear; with an exact clean plate anything above is a change
_REACH = 40  # pixels from a matte within which a piece of change may begin


def seen_change(plate: Array, clean: Array, calibration: Calibration) -> Array:
    """Return how far a frame is from its clean plate, display units, smoothed. [H,W,1]."""
    seen = to_display(soften(plate, calibration.soften_plate))
    under = to_display(soften(clean, calibration.soften_clean))
    difference = soften(seen - under, 1.5)
    rms = np.sqrt((difference * difference).mean(axis=2, keepdims=True))
    return np.asarray(rms, dtype=np.float32)


def find_changes(
    plate: Array, clean: Array, matte: Mask, calibration: Calibration, restless: Array | None
) -> Array:
    """Return how sure it is that a pixel changed by what the mattes show, 0 to 1. [H,W].

    With an exact clean plate any difference is a change. Else the smoothed difference must rise
    above the noise (and above what a misfit makes of nearby edges), in a connected piece that
    somewhere rises high above it or touches a matte.
    """
    if calibration.exact:
        differs = np.abs(plate - clean).max(axis=2) >= SMALLEST_CHANGE
        return np.asarray(differs, dtype=np.float32)
    rms = seen_change(plate, clean, calibration)[..., 0]
    under = to_display(soften(clean, calibration.soften_clean))
    quiet = ~grow(matte, 9)
    floor = float(np.median(rms[quiet])) if quiet.sum() > 64 else calibration.sigma / 4
    gy, gx = np.gradient(soften(under, 1.0).mean(axis=2))
    steep = soften(np.hypot(gx, gy).astype(np.float32), 2.0)
    level = np.hypot(max(1.1 * floor, 2e-4), 0.6 * calibration.misfit * steep)
    if restless is None:
        restless = _restlessness(rms, level, floor, matte)
    level = np.hypot(level, np.sqrt(np.maximum((2.0 * restless) ** 2 - (2.0 * floor) ** 2, 0.0)))
    ratio = (rms / level).astype(np.float32)
    kept = _own(_pieces(ratio, matte), matte)
    sure = smoothstep(1.4, 2.8, ratio) * grow(kept, 2)
    return np.where(grow(matte, 2), 1.0, sure).astype(np.float32)


def _restlessness(rms: Array, level: Array, floor: float, matte: Mask) -> Array:
    """Return how much the scene itself moves around each pixel: waves, leaves. [H,W].

    Read off the pieces of change that touch no matte, and carried from there to their
    surroundings, so that a wave that runs behind an object is told from the object's own wake.
    """
    pieces = _pieces((rms / level).astype(np.float32), matte)
    own = grow(_own(pieces, matte), _REACH // 2)
    loose = pieces & ~own
    around = _blur_widely((~own).astype(np.float32))
    local = _blur_widely(loose * (rms * rms)) / np.maximum(around, 0.1)
    return np.asarray(np.sqrt(np.maximum(local - floor**2, 0.0)), dtype=np.float32)


def _blur_widely(plane: Array, radius: int = 32) -> Array:
    size = (2 * radius + 1, 2 * radius + 1)
    return np.asarray(cv2.blur(cv2.blur(plane.astype(np.float32), size), size))


def _pieces(ratio: Array, matte: Mask) -> Mask:
    return _connected((ratio > 2.0) | matte, (ratio > 4.0) | matte, smallest=40)


def _own(pieces: Mask, matte: Mask) -> Mask:
    """Return the pieces near a matte, and those near them: an object's own effects.

    How near depends on the size: a bank of smoke may drift further than a fleck.
    """
    if not matte.any():
        return pieces
    count, labels = cv2.connectedComponents(pieces.astype(np.uint8), connectivity=8)
    reach = _REACH + 0.5 * np.sqrt(np.bincount(labels.ravel(), minlength=count))
    near = matte
    for share in (1.0, 0.5):
        away = cv2.distanceTransform((~near).astype(np.uint8), cv2.DIST_L2, 5)
        least = np.full(count, np.inf)
        np.minimum.at(least, labels.ravel(), away.ravel())
        held = least <= share * reach
        held[0] = False
        near = near | held[labels]
    return np.asarray(near & pieces)


def _connected(weak: Mask, strong: Mask, smallest: int) -> Mask:
    """Return the pieces of ``weak`` that hold enough of ``strong``."""
    count, labels = cv2.connectedComponents(weak.astype(np.uint8), connectivity=8)
    size = np.bincount(labels.ravel(), minlength=count)
    held = np.bincount(labels.ravel(), weights=strong.ravel(), minlength=count)
    good = (size >= smallest) & (held >= smallest // 8)
    good[0] = False
    return np.asarray(good[labels])
