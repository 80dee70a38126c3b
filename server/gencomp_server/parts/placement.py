# SPDX-License-Identifier: Apache-2.0
"""Where an element lies in the plate, frame by frame, and its samples there.

A placement is a 2x3 matrix from element pixels to plate pixels, both continuous, from the upper
left corner of the picture, y down, a pixel's middle at a half. What is moved by whole pixels alone
is copied, bit for bit. What shrinks is averaged by area, so that the light of the element is that
of its area, and what grows is interpolated by a cubic that is held between the four samples around:
it is sharp and rings neither in colour nor in alpha.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from gencomp_protocol.frames import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]

SEEN = 1.0 / 512.0
"""Alpha below this is nothing: half a step of an eight-bit matte."""
_WHOLE = 1e-6
"""A matrix this near to whole pixels, at the far corner of an element, moves by whole pixels."""
_PIXELS_AT_ONCE = 1 << 14
_FINE = 2
"""What is turned and shrinks is turned at so many times its size, then averaged."""


# --- what of an element there is ------------------------------------------------------------------


def covered_box(alpha: Floats) -> tuple[float, float, float, float] | None:
    """Return the box of what an alpha covers, between pixels; None where it covers nothing.

    A side lies where the greatest alpha along it crosses half of the greatest of all, so that the
    box of something soft, or moving by less than a pixel, does not jump.

    Args:
        alpha: [H,W] float32, 0..1.

    Returns:
        Left, top, right, bottom in pixels from the array's upper left corner.
    """
    peak = float(alpha.max(initial=0.0))
    if peak < SEEN:
        return None
    left, right = _span(alpha.max(axis=0), peak / 2)
    top, bottom = _span(alpha.max(axis=1), peak / 2)
    return left, top, right, bottom


def reach_box(seen: Floats) -> tuple[float, float, float, float] | None:
    """Return the box of all that is to be seen at all; None where nothing is.

    Args:
        seen: The greatest of colour and alpha. [H,W] float32.

    Returns:
        Left, top, right, bottom in pixels from the array's upper left corner.
    """
    there = seen >= SEEN
    rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
    if not rows.size:
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _span(profile: Floats, level: float) -> tuple[float, float]:
    """Return where a profile first and last crosses a level, in pixels from its start."""

    def first(values: Floats) -> float:
        at = int(np.argmax(values >= level))
        before = float(values[at - 1]) if at else 0.0
        return at - 0.5 + (level - before) / (float(values[at]) - before)

    return first(profile), len(profile) - first(profile[::-1])


# --- matrices -------------------------------------------------------------------------------------


def linear_part(
    scale: float, rotate: float, skew: float, aspects: tuple[float, float] = (1.0, 1.0)
) -> Doubles:
    """Return the 2x2 of a size, a turn and a lean, between two pixel aspects.

    Args:
        scale: Above 0.
        rotate: Degrees, counter-clockwise as seen.
        skew: Pixels to the right per pixel up.
        aspects: Pixel aspect of the element and of the plate.
    """
    turn = math.radians(rotate)
    # y runs down, so a turn that is seen counter-clockwise has the signs of a clockwise one.
    turned = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    leaning = np.array([[1.0, -skew], [0.0, 1.0]])
    if rotate % 360 == 0:
        turned = np.eye(2)
    own, plate = aspects
    return np.asarray(
        np.diag([1 / plate, 1]) @ turned @ leaning @ np.diag([own, 1]) * scale, np.float64
    )


def about(linear: Doubles, anchor: Sequence[float], point: Sequence[float]) -> Doubles:
    """Return the matrix that brings an anchor to a point. [2,3] float64."""
    moved = np.asarray(point, np.float64) - linear @ np.asarray(anchor, np.float64)
    return np.concatenate([linear, moved[:, None]], axis=1)


def resting_point(
    anchor: Sequence[float],
    own: tuple[int, int],
    plate: tuple[int, int],
    aspects: tuple[float, float] = (1.0, 1.0),
) -> tuple[float, float]:
    """Return where an element's anchor lies with its format centred on the plate, at size 1.

    The way is of whole pixels, so that an element of another format keeps its own samples, too.
    """
    linear = linear_part(1.0, 0.0, 0.0, aspects)
    corner = np.asarray(plate) / 2 - linear @ (np.asarray(own) / 2)
    x, y = linear @ np.asarray(anchor, np.float64) + np.floor(corner)
    return float(x), float(y)


def box_through(matrix: Doubles, box: Sequence[float]) -> tuple[float, float, float, float]:
    """Return the box around a box's four corners in the plate: left, top, right, bottom."""
    x0, y0, x1, y1 = box
    corners = np.array([[x0, x1, x0, x1], [y0, y0, y1, y1], [1.0, 1.0, 1.0, 1.0]])
    x, y = matrix @ corners
    return float(x.min()), float(y.min()), float(x.max()), float(y.max())


def meets(box: Sequence[float], size: tuple[int, int]) -> bool:
    """Tell whether a box in plate pixels has anything inside a plate of that width and height."""
    x0, y0, x1, y1 = box
    return bool(x1 > 0 and y1 > 0 and x0 < size[0] and y0 < size[1])


# --- samples --------------------------------------------------------------------------------------


def resampled(
    picture: Floats, origin: tuple[int, int], matrix: Doubles, size: tuple[int, int]
) -> Floats:
    """Return a picture laid into another by a matrix; zero where it is not.

    Args:
        picture: Premultiplied. [h,w,C] float32, finite, unbounded.
        origin: x and y of its first pixel's upper left corner in element pixels.
        matrix: From element to plate pixels, not singular. [2,3].
        size: Width and height of the plate.

    Returns:
        [H,W,C] float32: the picture's own samples where it moves by whole pixels.
    """
    made = np.zeros((size[1], size[0], picture.shape[2]), np.float32)
    linear = np.asarray(matrix[:, :2], np.float64)
    offset = matrix[:, 2] + linear @ np.asarray(origin, np.float64)  # Now from its own corner.
    high, wide = picture.shape[:2]
    if not high or not wide:
        return made
    if _is_whole(linear, offset, max(high, wide)):
        _fill_copied(made, picture, int(np.rint(offset[0])), int(np.rint(offset[1])))
        return made
    picture, corner = _cropped(picture)
    offset, (high, wide) = offset + linear @ corner, picture.shape[:2]
    reach = box_through(np.column_stack([linear, offset]), (-1, -1, wide + 1, high + 1))
    target = Box(
        math.floor(reach[0]), math.floor(reach[1]), math.ceil(reach[2]), math.ceil(reach[3])
    ).intersect(Box(0, 0, size[0] - 1, size[1] - 1))
    if target is None:
        return made
    offset = offset - (target.x0, target.y0)
    laid = _laid(picture, linear, offset, (target.width, target.height))
    made[target.y0 : target.y1 + 1, target.x0 : target.x1 + 1] = laid
    return made


def _is_whole(linear: Doubles, offset: Doubles, reach: int) -> bool:
    off = np.abs(linear - np.eye(2)).max() * reach + np.abs(offset - np.rint(offset)).max()
    return bool(off < _WHOLE)


def _cropped(picture: Floats) -> tuple[Floats, Doubles]:
    """Return what of a picture is not zero, and where its corner is: most of a format is empty."""
    there = np.asarray((picture != 0).any(axis=2))
    rows, columns = np.flatnonzero(there.any(axis=1)), np.flatnonzero(there.any(axis=0))
    if not rows.size:
        return picture[:1, :1], np.zeros(2)
    part = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return part, np.array([columns[0], rows[0]], np.float64)


def _fill_copied(target: Floats, picture: Floats, x: int, y: int) -> None:
    """Copy a picture into another with its corner at a whole pixel."""
    box = Box(x, y, x + picture.shape[1] - 1, y + picture.shape[0] - 1)
    common = box.intersect(Box(0, 0, target.shape[1] - 1, target.shape[0] - 1))
    if common is None:
        return
    own = picture[common.y0 - y : common.y1 - y + 1, common.x0 - x : common.x1 - x + 1]
    target[common.y0 : common.y1 + 1, common.x0 : common.x1 + 1] = own


def _laid(picture: Floats, linear: Doubles, offset: Doubles, size: tuple[int, int]) -> Floats:
    """Resample to a box of the plate. ``offset``: of the picture's corner in it."""
    if linear[0, 1] == 0 and linear[1, 0] == 0:
        rows = _along(picture, linear[1, 1], offset[1], size[1], axis=0)
        return _along(rows, linear[0, 0], offset[0], size[0], axis=1)
    fine = _FINE if np.linalg.norm(linear, axis=0).min() < 1 else 1
    linear, offset = linear * fine, offset * fine
    # Each axis first to about the size that it will have, by area; then turned at that size.
    shrink = np.minimum(np.linalg.norm(linear, axis=0), 1.0)
    for axis, by in ((1, shrink[0]), (0, shrink[1])):
        if by < 1:
            count = math.ceil(picture.shape[axis] * by)
            picture = _averaged(picture, by, 0.0, count, axis)
    made = _turned(picture, linear / shrink, offset, (size[0] * fine, size[1] * fine))
    shape = (size[1], fine, size[0], fine, picture.shape[2])
    return made if fine == 1 else made.reshape(shape).mean(axis=(1, 3))


def _along(picture: Floats, scale: float, start: float, length: int, axis: int) -> Floats:
    """Resample one axis: the picture's corner goes to ``start``; a negative scale mirrors."""
    if scale < 0:
        picture = np.flip(picture, axis)
        scale, start = -scale, start + picture.shape[axis] * scale
    if scale < 1:
        return _averaged(picture, scale, start, length, axis)
    at = (np.arange(length) + 0.5 - start) / scale - 0.5
    first = np.floor(at).astype(np.intp)
    share = (at - first).astype(np.float32)
    shape = list(picture.shape)
    shape[axis] = length
    made = np.empty(shape, np.float32)
    for rows in _strips(made):
        if axis == 0:
            made[rows] = _interpolated(picture, first[rows], share[rows], 0)
        else:
            made[rows] = _interpolated(picture[rows], first, share, 1)
    return made


def _strips(picture: Floats) -> list[slice]:
    """Return rows of a picture, so many at a time that work on them stays in a core's cache."""
    count = max(1, _PIXELS_AT_ONCE // max(picture.shape[1], 1))
    return [slice(top, top + count) for top in range(0, len(picture), count)]


def _interpolated(picture: Floats, first: NDArray[np.intp], share: Floats, axis: int) -> Floats:
    """Return samples a share of the way from the ones before to the next, along one axis."""
    shape = (-1,) + (1,) * (picture.ndim - 1 - axis)
    taps = [_taken(picture, first + tap, axis) for tap in (-1, 0, 1, 2)]
    low, high = np.minimum(taps[1], taps[2]), np.maximum(taps[1], taps[2])
    made = np.zeros_like(low)
    for weight, tap in zip(_cubic(share), taps, strict=True):
        made += weight.reshape(shape) * tap
    return np.clip(made, low, high, out=made)


def _averaged(picture: Floats, scale: float, start: float, length: int, axis: int) -> Floats:
    """Average one axis by area: each sample's light goes where its part of the axis goes."""
    count = picture.shape[axis]
    edges = np.clip((np.arange(length + 1) - start) / scale, 0, count)
    first = np.floor(edges[:-1]).astype(np.intp)
    shape = (-1,) + (1,) * (picture.ndim - 1 - axis)
    made = np.zeros((*picture.shape[:axis], length, *picture.shape[axis + 1 :]), np.float32)
    for tap in range(math.ceil(min(1 / scale, count)) + 1):
        at = first + tap
        part = np.minimum(edges[1:], at + 1) - np.maximum(edges[:-1], at)
        share = (np.maximum(part, 0) * scale).astype(np.float32)
        made += _taken(picture, at, axis) * share.reshape(shape)
    return made


def _taken(picture: Floats, index: NDArray[np.intp], axis: int) -> Floats:
    """Return rows or columns of a picture by number, zero beyond its border."""
    inside = (index >= 0) & (index < picture.shape[axis])
    found = picture.take(np.clip(index, 0, picture.shape[axis] - 1), axis=axis)
    if not inside.all():
        found[(slice(None),) * axis + (~inside,)] = 0
    return found


def _cubic(t: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the weights of four samples in a row, at a share of the way between the middle two.

    Catmull-Rom's cubic: it goes through the samples, and the four sum to one.
    """
    a = np.asarray(t * (t * (2 - t) - 1) / 2, np.float32)
    b = np.asarray((t * t * (3 * t - 5) + 2) / 2, np.float32)
    d = np.asarray(t * t * (t - 1) / 2, np.float32)
    return a, b, np.asarray(1 - a - b - d, np.float32), d


def _turned(picture: Floats, linear: Doubles, offset: Doubles, size: tuple[int, int]) -> Floats:
    """Resample by any matrix that does not shrink much, a few rows of the target at a time."""
    back = np.linalg.inv(linear)
    # Three transparent pixels around, so that every sample that is asked for is there.
    padded = np.pad(picture, ((3, 3), (3, 3), (0, 0)))
    made = np.empty((size[1], size[0], picture.shape[2]), np.float32)
    xs = np.arange(size[0]) + 0.5 - offset[0]
    for rows in _strips(made):
        ys = np.arange(size[1])[rows] + 0.5 - offset[1]
        x = (back[0, 0] * xs[None] + back[0, 1] * ys[:, None]).ravel() - 0.5
        y = (back[1, 0] * xs[None] + back[1, 1] * ys[:, None]).ravel() - 0.5
        made[rows] = _gathered(padded, x + 3, y + 3).reshape(ys.size, size[0], -1)
    return made


def _gathered(padded: Floats, x: Doubles, y: Doubles) -> Floats:
    """Return samples at places between pixels' middles, held between the four around. [n,C]."""
    high, wide = padded.shape[:2]
    inside = (x > 1) & (x < wide - 2) & (y > 1) & (y < high - 2)
    made = np.zeros((x.size, padded.shape[2]), np.float32)
    if not inside.any():
        return made
    x, y = x[inside], y[inside]
    column, row = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    across, down = (_cubic((v - f).astype(np.float32)) for v, f in ((x, column), (y, row)))
    flat, place = padded.reshape(-1, padded.shape[2]), row * wide + column
    total = np.zeros((x.size, padded.shape[2]), np.float32)
    near = []
    for j in range(4):
        line = np.zeros_like(total)
        for i in range(4):
            sample = flat.take(place + (j - 1) * wide + (i - 1), axis=0)
            line += sample * across[i][:, None]
            if i in (1, 2) and j in (1, 2):
                near.append(sample)
        total += line * down[j][:, None]
    low, top = np.minimum.reduce(near), np.maximum.reduce(near)
    made[inside] = np.clip(total, low, top)
    return made
