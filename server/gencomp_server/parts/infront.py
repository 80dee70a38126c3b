# SPDX-License-Identifier: Apache-2.0
"""What of the plate stands in front of an element: a matte, or what is nearer than it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from gencomp_protocol.layers import BG, DEPTH, HOLDOUT
from gencomp_server.parts.pictures import coverage_of, native

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.contract import Shot
    from gencomp_server.parts.elements import Element

    Floats = NDArray[np.float32]

_DEPTH_SOFT = 0.01
"""What is nearer by less than this share of the element's depth stands in front in part."""


def held_out(shot: Shot, element: Element, i: int) -> Floats:
    """Return what of the plate stands in front of an element.

    The matte ``holdout``, and, where the element has a depth, what of ``depth`` is nearer. Depth of
    zero, NaN and infinity is nothing. Its edge is soft by about a pixel, and over a hundredth of
    the element's depth.

    Args:
        shot: With bg and, where they are connected, holdout and depth.
        element: As planned.
        i: Index of the frame in the job.

    Returns:
        0..1, 1 where it hides the element. [H,W,1] float32.
    """
    n = tuple(shot.frames)[i]
    window = shot.header(BG).display_window
    front = np.zeros((window.height, window.width, 1), np.float32)
    if HOLDOUT in shot.names:
        front = coverage_of(shot, HOLDOUT, n)
    if DEPTH not in shot.names or not element.depths:
        return front
    depth = native(shot, DEPTH, n)[..., 0].astype(np.float32)
    own = np.float32(element.depths[i])
    nearer = (depth - own) * (1 if element.near_is_large else -1)
    soft = max(abs(float(own)) * _DEPTH_SOFT, 1e-6)
    with np.errstate(invalid="ignore"):
        share = np.clip(nearer / np.float32(soft), 0, 1)
    share[~np.isfinite(depth) | (depth == 0)] = 0
    share = np.asarray(cv2.GaussianBlur(share, (3, 3), 0), np.float32)
    return np.asarray(np.maximum(front, share[..., None]), np.float32)
