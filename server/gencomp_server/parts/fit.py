# SPDX-License-Identifier: Apache-2.0
"""Plate format to model size and back: every pixel keeps its place.

Pixel centres lie at half pixels, so the model pixel ``x`` looks at the plate position
``(x + 0.5) * W / w - 0.5``: a picture resized down and up again does not wander. Nothing is
cropped or padded. Numbers pass unclamped; a NaN spreads as far as the filter reaches, so callers
replace NaN first.

On the way down a pixel is a square of light, and model pixels hold the mean of what they cover: the
mean of the picture stays, and what is too fine for the model goes to its mean instead of aliasing.
On the way up it is a sample, and values between samples lie on straight lines.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Joint bilateral weights on encoded pictures, and how much a low-resolution alpha must vary before
# an edge is looked for: facts of taste, tuned on soft discs over texture.
_RANGE = 0.06
_REACH = 1.2
_STEEP = 0.04
_PLAIN = 1e-3
_STRIP_ROWS = 128
# What cv2.resize takes: channels, and what INTER_AREA calls covered, in parts of a pixel.
_MOST_CHANNELS = 4
_LEAST_COVERED = 1000


def model_format(width: int, height: int, long_edge: int, multiple: int = 1) -> tuple[int, int]:
    """Return (width, height) that fits the long edge, keeping the shape; never larger.

    Args:
        width: Plate width in pixels.
        height: Plate height in pixels.
        long_edge: Most pixels along the longer side.
        multiple: Both sides become multiples of this, at least one; the shape bends by less than
            half of it.
    """
    scale = min(1.0, long_edge / max(width, height))

    def side(length: int) -> int:
        return max(multiple, round(length * scale / multiple) * multiple)

    return side(width), side(height)


def to_model_frame(
    picture: NDArray[np.floating] | NDArray[np.uint8], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Resize a picture down to model size, every plate pixel counted by the area it covers.

    Args:
        picture: Any picture. [H,W,C] or [H,W], unbounded.
        size: (width, height) in model pixels.

    Returns:
        The picture at that size, float32, with the same number of axes.
    """
    return _resize(picture, size)


def from_model_frame(picture: NDArray[np.floating], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize a model-size picture to plate size, smoothly and without overshoot.

    Args:
        picture: Any picture. [h,w,C] or [h,w], unbounded.
        size: (width, height) of the plate in pixels.

    Returns:
        The picture at that size, float32, with the same number of axes.
    """
    return _resize(picture, size)


def _resize(
    picture: NDArray[np.floating] | NDArray[np.uint8], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Resize; a side that shrinks is averaged by area, a side that grows is interpolated."""
    source = np.ascontiguousarray(picture, dtype=np.float32)
    flat = source if source.ndim == 2 else source.reshape(*source.shape[:2], -1)
    if (flat.shape[1], flat.shape[0]) == size:
        return source.copy()
    if flat.ndim == 2 or flat.shape[2] <= _MOST_CHANNELS:
        out = _resize_few(flat, size)
    else:
        out = np.empty((size[1], size[0], flat.shape[2]), np.float32)
        for c in range(0, flat.shape[2], _MOST_CHANNELS):
            part = np.ascontiguousarray(flat[..., c : c + _MOST_CHANNELS])
            out[..., c : c + _MOST_CHANNELS] = _resize_few(part, size).reshape(*out.shape[:2], -1)
    return np.asarray(out, np.float32).reshape(size[1], size[0], *source.shape[2:])


def _resize_few(flat: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize [H,W] or [H,W,C] of so few channels that OpenCV takes them."""
    height, width = flat.shape[:2]
    # INTER_AREA averages only where both sides shrink, so each direction gets a pass of its own.
    small = (min(width, size[0]), min(height, size[1]))
    if all(_is_exact(*sides) for sides in zip((width, height), small, strict=True)):
        if small != (width, height):
            flat = cv2.resize(flat, small, interpolation=cv2.INTER_AREA)
    else:
        flat = _averaged(_averaged(flat, small[1], 0), small[0], 1)
    if small != size:
        flat = cv2.resize(flat, size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(flat, np.float32)


def _is_exact(length: int, shorter: int) -> bool:
    """Tell whether INTER_AREA weighs every pixel of a side.

    It leaves out what is covered by less than a thousandth, which brings the averages there off by
    as much; the coverages are the multiples of 1 / (shorter / gcd).
    """
    return shorter // math.gcd(length, shorter) < _LEAST_COVERED


def _averaged(picture: NDArray[np.float32], shorter: int, axis: int) -> NDArray[np.float32]:
    """Average a side by area, every pixel by what of it is covered."""
    length = picture.shape[axis]
    if shorter == length:
        return picture
    edges = np.arange(shorter + 1) * (length / shorter)
    first = np.floor(edges[:-1]).astype(np.intp)
    out = np.zeros((*picture.shape[:axis], shorter, *picture.shape[axis + 1 :]), np.float32)
    along = (-1,) + (1,) * (picture.ndim - 1 - axis)
    for tap in range(length // shorter + 2):
        at = first + tap
        covered = np.minimum(edges[1:], at + 1) - np.maximum(edges[:-1], at)
        share = (np.maximum(covered, 0) * (shorter / length)).astype(np.float32)
        out += picture.take(np.minimum(at, length - 1), axis=axis) * share.reshape(along)
    return out


def upsample_steered(
    low: NDArray[np.float32], guide_low: NDArray[np.float32], guide_high: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Resize an alpha to plate size so that its edges follow the plate's own.

    Where the alpha is level the result is the plain interpolation. Where it is steep, each plate
    pixel weighs the nearest 5 by 5 model pixels by distance and by how much their colour is like
    its own (a joint bilateral filter), computed for those pixels only.

    Args:
        low: Alpha at model size. [h,w,1] float32, [0,1].
        guide_low: Plate at model size. [h,w,3] float32, scene-linear.
        guide_high: Plate. [H,W,3] float16 or float32, scene-linear.

    Returns:
        Alpha at plate size. [H,W,1] float32, between the least and greatest of ``low`` nearby.
    """
    height, width = guide_high.shape[:2]
    plain = from_model_frame(low[..., 0], (width, height))
    if low.shape[:2] == (height, width):
        return plain[..., None]
    steep = from_model_frame(_steep(low[..., 0]), (width, height)) > 0.5
    seen_low = _bounded(guide_low)
    for y0 in range(0, height, _STRIP_ROWS):
        rows = slice(y0, min(height, y0 + _STRIP_ROWS))
        ys, xs = np.nonzero(steep[rows])
        if ys.size:
            colours = _bounded(guide_high[rows][ys, xs])
            scale = (low.shape[0] / height, low.shape[1] / width)
            where = ((ys + y0 + 0.5) * scale[0] - 0.5, (xs + 0.5) * scale[1] - 0.5)
            plain[rows][ys, xs] = _joint_bilateral(low[..., 0], seen_low, where, colours)
    return plain[..., None]


def _steep(low: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mark model pixels whose 5 by 5 neighbourhood spans more than a level alpha would."""
    kernel = np.ones((5, 5), np.uint8)
    span = cv2.dilate(low, kernel) - cv2.erode(low, kernel)
    return np.asarray(span > _STEEP, np.float32)


def _bounded(colour: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return colours in a log-like range, so that highlights do not drown all else."""
    finite = np.nan_to_num(colour[..., :3].astype(np.float32), nan=0.0, posinf=64.0, neginf=0.0)
    return np.asarray(np.log1p(np.maximum(finite, 0.0) * 20.0) / np.log(21.0), np.float32)


def _joint_bilateral(
    low: NDArray[np.float32],
    guide: NDArray[np.float32],
    where: tuple[NDArray[np.float64], NDArray[np.float64]],
    colours: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return the alpha at some plate pixels. where: model positions (y, x); colours: [P,3]."""
    top, left = np.rint(where[0]).astype(np.intp), np.rint(where[1]).astype(np.intp)
    total, weights = np.zeros(top.size, np.float32), np.zeros(top.size, np.float32)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            y = np.clip(top + dy, 0, low.shape[0] - 1)
            x = np.clip(left + dx, 0, low.shape[1] - 1)
            far = ((top + dy - where[0]) ** 2 + (left + dx - where[1]) ** 2) / (2 * _REACH**2)
            unlike = ((colours - guide[y, x]) ** 2).sum(-1) / (2 * _RANGE**2)
            near = np.exp(-far).astype(np.float32)
            weight = near * (np.exp(-unlike) + _PLAIN)
            total += weight * low[y, x]
            weights += weight
    return np.asarray(total / weights, np.float32)
