# SPDX-License-Identifier: Apache-2.0
"""Frames laid over one another on a canvas, and going to and fro between the two.

Everything here is at model size. A *canvas* is the mosaic of a segment of the shot, in the
coordinates of the segment's middle frame. Pixel coordinates are (x, y) with (0, 0) in the centre
of the top left pixel. A canvas point ``p`` is seen in frame ``t`` at ``x``::

    y = to_frame[t] * p              homography: what the camera did
    x = y + flow[t](y)               smooth: parallax, lens, what a homography cannot do
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]
    Bytes = NDArray[np.uint8]
    Bools = NDArray[np.bool_]
    F = TypeVar("F", np.float32, np.float64)

FLOW_STEP = 4
"""The flow is kept for every so many model pixels."""

# A pixel is as wide as itself: its outer half is inside the picture too.
_RIM = 0.51


@dataclass(frozen=True)
class Canvas:
    """A run of frames laid over one another.

    Attributes:
        frames: Timeline frames, in order.
        width: Canvas width in model pixels.
        height: Canvas height in model pixels.
        to_frame: Canvas to frame, model pixels. [T,3,3] float64.
        flow: What the homography leaves over, in frame coordinates, on a grid of every
            ``FLOW_STEP`` pixels. [T,h',w',2] float32, model pixels.
        back: The way back, x to y: ``y = x - back(x)``. [T,h',w',2] float32.
        features: Points that agreed on the homography, per frame. [T] int32.
        error_px: Upper quartile over the picture's parts of the median miss. [T] float32.
        unsteady: Background that moves by itself (waves, leaves). [H,W] bool.
    """

    frames: tuple[int, ...]
    width: int
    height: int
    to_frame: Doubles
    flow: Floats
    back: Floats
    features: NDArray[np.int32]
    error_px: Floats
    unsteady: Bools


def apply(homography: Doubles, points: NDArray[F]) -> NDArray[F]:
    """Return points (x, y) sent through a homography, in their own precision. [...,2]."""
    x, y = points[..., 0], points[..., 1]
    h = [[float(value) for value in row] for row in homography]
    out = np.empty_like(points)
    if h[2][0] == 0.0 and h[2][1] == 0.0:
        scale: Any = h[2][2]
    else:
        scale = h[2][0] * x + h[2][1] * y + h[2][2]
    out[..., 0] = (h[0][0] * x + h[0][1] * y + h[0][2]) / scale
    out[..., 1] = (h[1][0] * x + h[1][1] * y + h[1][2]) / scale
    return out


@functools.lru_cache(maxsize=8)
def grid(width: int, height: int) -> Floats:
    """Return the coordinates of every pixel, read-only. [h,w,2] float32, (x, y)."""
    out = np.empty((height, width, 2), np.float32)
    out[..., 0], out[..., 1] = np.arange(width), np.arange(height)[:, None]
    out.flags.writeable = False
    return out


def positions_in_frame(canvas: Canvas, i: int, y0: int, y1: int) -> Floats:
    """Return where canvas rows are seen in the i-th frame. [y1-y0,W,2] float32, model pixels."""
    return seen_at(canvas, i, grid(canvas.width, canvas.height)[y0:y1])


def seen_at(canvas: Canvas, i: int, points: Floats) -> Floats:
    """Return where canvas points are seen in the i-th frame. [h,w,2] -> [h,w,2] float32."""
    y = apply(canvas.to_frame[i], points)
    return y + flow_at(canvas.flow[i], y) if canvas.flow[i].any() else y


def on_canvas(canvas: Canvas, i: int, points: Floats) -> Floats:
    """Return the canvas points that the i-th frame sees at some positions. [h,w,2] float32."""
    y = points - flow_at(canvas.back[i], points) if canvas.back[i].any() else points
    return apply(np.linalg.inv(canvas.to_frame[i]), y)


def flow_at(flow: Floats, where: Floats) -> Floats:
    """Return a coarse flow at model positions, held level beyond the picture. [h,w,2] float32."""
    x, y = ((where[..., k] + 0.5) * (1.0 / FLOW_STEP) - 0.5 for k in (0, 1))
    found = cv2.remap(flow, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, np.float32)


def turned_round(flow: Floats) -> Floats:
    """Return what to take off ``x = y + flow(y)`` to find y again, on the same coarse grid."""
    if not flow.any():
        return np.zeros_like(flow)
    height, width = flow.shape[:2]
    x = (grid(width, height) + 0.5) * FLOW_STEP - 0.5
    back = flow
    # Inserting again and again settles quickly, because the flow is smooth.
    for _ in range(10):
        back = flow_at(flow, x - back)
    return back


def sample(
    picture: Floats, usable: Bools | None, position: Floats, cubic: bool = False
) -> tuple[Floats, Bools]:
    """Look up a picture at positions; tell where every pixel it took was there and usable.

    Args:
        picture: [h,w] or [h,w,C] float32.
        usable: Pixels that count [h,w] bool; None for all.
        position: Where to look. [H,W,2] float32, (x, y).
        cubic: Keep sharpness by bicubic instead of bilinear interpolation.

    Returns:
        The picture there [H,W] or [H,W,C] float32 (0 outside) and its validity [H,W] bool.
    """
    x, y = (np.ascontiguousarray(position[..., k], np.float32) for k in (0, 1))
    how = cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
    found = cv2.remap(picture, x, y, how, borderMode=cv2.BORDER_REPLICATE)
    height, width = picture.shape[:2]
    there = (x >= -_RIM) & (y >= -_RIM) & (x <= width - 1 + _RIM) & (y <= height - 1 + _RIM)
    if usable is not None:
        share = cv2.remap(
            usable.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        there &= share > 0.999
    return np.asarray(found, np.float32), there


def render_ground(
    canvas: Canvas, i: int, ground: NDArray[np.generic], seen: Bools, shape: tuple[int, ...]
) -> tuple[Bytes, Bools]:
    """Return the canvas as the i-th frame's camera saw it, and where it is known.

    Args:
        canvas: The canvas.
        i: Index of the frame.
        ground: Picture on the canvas. [H,W] uint8.
        seen: Where it is known. [H,W] bool.
        shape: Height and width of a frame.
    """
    points = on_canvas(canvas, i, grid(shape[1], shape[0]))
    picture, there = sample(ground.astype(np.float32), seen, points, cubic=True)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8), there


def masked_median(stack: Floats) -> tuple[Floats, NDArray[np.int32]]:
    """Return the median along the first axis leaving out NaN, and how many were left in.

    Args:
        stack: Samples, NaN where there is none. [T,...] float32; it is sorted in place.

    Returns:
        Median [...] float32, NaN where nothing is left, and the count [...] int32.
    """
    stack.sort(axis=0)
    count = np.isfinite(stack).sum(axis=0, dtype=np.int32)
    low = np.take_along_axis(stack, (np.maximum(count - 1, 0) // 2)[None], axis=0)[0]
    high = np.take_along_axis(stack, (np.maximum(count, 1) // 2)[None], axis=0)[0]
    return np.asarray(np.where(count % 2 == 1, low, 0.5 * (low + high)), np.float32), count


def span(sorted_stack: Floats, count: NDArray[np.int32], tail: float) -> Floats:
    """Return the width of samples that :func:`masked_median` sorted, without its tails.

    Args:
        sorted_stack: [T,...] float32, NaN last.
        count: How many are not NaN. [...] int32.
        tail: Share left out at either end, below one half.

    Returns:
        [...] float32, NaN where there is no sample.
    """
    last = np.maximum(count - 1, 0).astype(np.float32)
    low = np.take_along_axis(sorted_stack, np.rint(last * tail).astype(np.intp)[None], axis=0)[0]
    top = np.rint(last * (1.0 - tail)).astype(np.intp)
    high = np.take_along_axis(sorted_stack, top[None], axis=0)[0]
    return np.asarray(high - low, np.float32)


def spread(value: Floats, weight: Floats, sigma: float) -> Floats:
    """Smooth weighted samples and carry them on to where there are none.

    Normalised convolution at doubling widths, on a pyramid; where samples are dense the narrow
    width decides, where there are none the wide.

    Args:
        value: Samples times weights. [h,w,C] float32.
        weight: Weights, 0 where there is no sample. [h,w] float32, [0,1].
        sigma: Least smoothing, pixels.

    Returns:
        Smooth field. [h,w,C] float32; all zero where there is no sample at all.
    """
    over = cv2.GaussianBlur(value, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    under = cv2.GaussianBlur(weight, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    over = over.reshape(value.shape)
    near = over / np.maximum(under, 1e-6)[..., None]
    height, width = weight.shape
    if min(height, width) < 4:
        return np.asarray(near, np.float32)
    half = ((width + 1) // 2, (height + 1) // 2)
    far = spread(
        cv2.resize(over, half, interpolation=cv2.INTER_AREA).reshape(half[1], half[0], -1),
        cv2.resize(under, half, interpolation=cv2.INTER_AREA),
        sigma,
    )
    wide = cv2.resize(far, (width, height), interpolation=cv2.INTER_LINEAR).reshape(value.shape)
    trust = np.clip(under / 0.2, 0.0, 1.0)[..., None]
    return np.asarray(trust * near + (1.0 - trust) * wide, np.float32)


def grow(mask: Bools, radius_px: int) -> Bools:
    """Return a mask grown by a disc of that radius in pixels."""
    if radius_px <= 0:
        return mask
    size = 2 * radius_px + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), disc) > 0)


def attached(weak: Bools, strong: Bools) -> Bools:
    """Return the connected parts of ``weak`` that contain some of ``strong`` [h,w] bool."""
    if not strong.any():
        return np.zeros_like(weak)
    _, label = cv2.connectedComponents(weak.astype(np.uint8), connectivity=8)
    kept = np.zeros(int(label.max()) + 1, np.bool_)
    kept[np.unique(label[strong & weak])] = True
    kept[0] = False
    return np.asarray(kept[label])
