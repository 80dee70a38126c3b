# SPDX-License-Identifier: Apache-2.0
"""Where each delivered pixel comes from, as mattes that sum to one exactly.

Channels, in the order of the layer: the plate itself, the plate under a gain, another frame, what
was generated, and the number of that other frame (0 where there is none).

Shares are whole steps of 2**-11. Such numbers, and every sum of them up to one, are exact in float
and in half, so the four mattes sum to one without a rounding, in whatever order they are added.
The plate's matte is 1 where the delivered sample is the plate's own, bit for bit, and only there:
whatever was touched has at least one step of something else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from gencomp_server.parts.fit import from_model_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.parts.change import Changed

    Floats = NDArray[np.float32]
    Indices = NDArray[np.intp]

STEPS = 1 << 11
"""Steps of a share: the finest that half holds exactly all the way up to one."""
_PLATE, _OTHER, _GENERATED = 0, 2, 3


def origin_of_change(
    shape: tuple[int, int], changed: Changed, touched: NDArray[np.bool_] | None = None
) -> Floats:
    """Say of a changed plate how much of each pixel is the plate, a gain of it, or generated.

    Args:
        shape: (H, W) of the plate.
        changed: Its changed pixels, by their flat indices in that plate, and what share of the
            delivered pixel is what: a bound is in that already.
        touched: False where the delivered pixel is the plate's bit for bit, as where a change was
            rounded away. [H,W] or [H,W,1] bool. None: all that changed was touched.

    Returns:
        The mattes and a frame number of 0. [H,W,5] float32.
    """
    index, gained, made = changed.index, changed.gained, changed.made
    if touched is not None:
        left = touched.reshape(-1)[index]
        index, gained, made = index[left], gained[left], made[left]
    return _mattes(shape, index, (gained, np.zeros_like(gained), made), None)


def origin_of_removal(
    amount: NDArray[np.floating],
    other: NDArray[np.floating],
    frame: NDArray[np.number],
    *,
    gained: NDArray[np.floating] | None = None,
) -> Floats:
    """Say of a clean plate how much of each pixel is the plate, another frame, or generated.

    Args:
        amount: How much of the pixel is not the plate's; 0 where it is the plate's bit for bit.
            [H,W] or [H,W,1], 0..1.
        other: Share of that which was seen in other frames; the rest was made up. [h,w], 0..1,
            at any size.
        frame: Number of the frame that gave most of it. [h,w], at any size, whole numbers.
        gained: How much of the pixel is the plate's under a gain, as where a shadow was taken off;
            together with ``amount`` at most 1. [H,W] or [H,W,1], 0..1. None: nothing.

    Returns:
        The mattes and the number of the other frame, 0 where there is none. [H,W,5] float32.
    """
    share = np.asarray(amount, np.float32)
    shape = (share.shape[0], share.shape[1])
    size = (shape[1], shape[0])
    share = share.reshape(-1)
    lit = np.zeros_like(share) if gained is None else np.asarray(gained, np.float32).reshape(-1)
    index = np.flatnonzero((share > 0) | (lit > 0))
    seen = from_model_frame(np.asarray(other, np.float32), size).reshape(-1)[index]
    number = np.asarray(frame, np.float32)
    if number.shape != shape:
        # Numbers of frames are never mixed: each pixel takes the nearest one.
        number = np.asarray(cv2.resize(number, size, interpolation=cv2.INTER_NEAREST_EXACT))
    parts = (lit[index], share[index] * seen, share[index] * (1 - seen))
    return _mattes(shape, index, parts, number.reshape(-1)[index])


def origin_of_stack(
    gained: Floats, other: Floats, made: Floats, frame: NDArray[np.number]
) -> Floats:
    """Say of a plate with elements over it how much of each pixel is what.

    Args:
        gained: The plate's under a gain. [H,W] float32, 0..1.
        other: Of another picture: an element's own pixels. [H,W] float32, 0..1.
        made: Generated. [H,W] float32, 0..1.
        frame: Number of that other picture. [H,W], whole numbers.

    Returns:
        The mattes and the number, 0 where there is no other picture. [H,W,5] float32.
    """
    index = np.flatnonzero((gained > 0) | (other > 0) | (made > 0))
    parts = (gained.reshape(-1)[index], other.reshape(-1)[index], made.reshape(-1)[index])
    number = np.asarray(frame, np.float32).reshape(-1)[index]
    return _mattes((gained.shape[0], gained.shape[1]), index, parts, number)


def _mattes(
    shape: tuple[int, int],
    index: Indices,
    parts: tuple[Floats, Floats, Floats],
    frame: Floats | None,
) -> Floats:
    """Write shares of some pixels over a frame that is otherwise all plate.

    Args:
        shape: (H, W).
        index: Flat indices of pixels that are not the plate's own. [n].
        parts: Shares of gain, other frame and generated. Each [n] float32, 0..1.
        frame: Number of the other frame. [n] float32, or None.
    """
    out = np.zeros((shape[0] * shape[1], 5), np.float32)
    out[:, _PLATE] = 1
    steps = _steps(np.stack(parts, axis=1))
    found = np.empty((index.size, 5), np.float32)
    found[:, 0] = STEPS - steps.sum(axis=1)
    found[:, 1:4] = steps
    found[:, :4] /= STEPS
    found[:, 4] = 0 if frame is None else np.where(found[:, _OTHER] > 0, frame, 0)
    out[index] = found
    return out.reshape(*shape, 5)


def _steps(shares: Floats) -> NDArray[np.int32]:
    """Round shares to whole steps, at least one and at most STEPS in all. [n,3] in and out."""
    steps = np.asarray(np.rint(np.clip(shares, 0, 1) * np.float32(STEPS)), np.int32)
    rows, greatest = np.arange(len(steps)), shares.argmax(axis=1)
    # A pixel of which nothing is known but that it was touched was generated.
    greatest[~shares.any(axis=1)] = _GENERATED - 1
    total = steps.sum(axis=1)
    steps[rows, greatest] += (total == 0).astype(np.int32)
    while (over := np.maximum(steps.sum(axis=1) - STEPS, 0)).any():
        greatest = steps.argmax(axis=1)
        steps[rows, greatest] -= np.minimum(over, steps[rows, greatest])
    return steps
