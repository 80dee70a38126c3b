# SPDX-License-Identifier: Apache-2.0
"""From model size to the plate's, for some of its pixels, along the plate's own edges.

A joint bilateral filter: each plate pixel weighs the 5 by 5 model pixels around it by distance and
by how much their colour is like its own. Plate rows between the same model rows share them, so
that a model row is spread over the columns once, and all its plate rows are worked on together;
what has no wanted pixel is skipped.

Pixel centres lie at half pixels, as in ``parts/fit.py``. Fields at model size are [C,h,w]: channels
come first here, since whole rows of a channel are worked on at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Indices = NDArray[np.intp]
    Bools = NDArray[np.bool_]

# Joint bilateral: spatial sigma in model pixels, range sigma in code, and the share of plain
# distance that keeps a pixel unlike all its neighbours from having no weight at all.
REACH, RANGE, PLAIN = 1.2, 0.04, 1e-3
TAPS_PX = 2
_TAPS = range(-TAPS_PX, TAPS_PX + 1)
_ROWS = 16
_COLUMNS = 2048  # worked on at once: some rows of them stay in a core's cache


def places(length: int, model_length: int) -> Floats:
    """Return where plate rows (or columns) lie among the model's, pixel centres. [length]."""
    at = (np.arange(length) + 0.5) * (model_length / length) - 0.5
    return at.astype(np.float32)


def bilinear(low: Floats, size: tuple[int, int], index: Indices) -> Floats:
    """Interpolate linearly, the border repeated.

    Args:
        low: [C,h,w] float32.
        size: (height, width) of the plate.
        index: Flat indices of plate pixels, rising. [n].

    Returns:
        [C,n] float32.
    """
    found = np.empty((low.shape[0], index.size), np.float32)
    if index.size == 0:
        return found
    width = size[1]
    (top, bottom), down = _between(places(size[0], low.shape[1]), low.shape[1])
    (left, right), across = _between(places(width, low.shape[2]), low.shape[2])
    first, last = int(index[0]) // width, int(index[-1]) // width + 1
    some = slice(int(top[first]), int(bottom[last - 1]) + 1)
    wide = low[:, some, left]
    wide += (low[:, some, right] - wide) * across
    for start in range(first, last, _ROWS):
        rows = slice(start, min(last, start + _ROWS))
        here = slice(*np.searchsorted(index, (rows.start * width, rows.stop * width)))
        at, share = index[here] - rows.start * width, down[rows, None]
        for channel, out in zip(wide, found, strict=True):
            tall, step = channel[top[rows] - some.start], channel[bottom[rows] - some.start]
            step -= tall
            step *= share
            tall += step
            np.take(tall, at, out=out[here])
    return found


def _between(at: Floats, length: int) -> tuple[tuple[Indices, Indices], Floats]:
    """Return the two model rows that a place lies between, and its share of the second."""
    floor = np.floor(at)
    low = floor.astype(np.intp)
    pair = (np.clip(low, 0, length - 1), np.clip(low + 1, 0, length - 1))
    return pair, np.asarray(at - floor, np.float32)


def joint_bilateral(
    low: Floats,
    guide: Floats,
    wanted: Bools,
    seen: Callable[[slice, Indices], Floats],
) -> Floats:
    """Weigh model pixels by distance and likeness.

    Args:
        low: [C,h,w] float32.
        guide: What the model saw. [3,h,w] float32, code.
        wanted: For which plate pixels. [H,W] bool.
        seen: Returns the code of some rows and columns of the plate, [3,rows,columns] float32.

    Returns:
        Weighted sums, not means, in the order of ``np.flatnonzero(wanted)``: a field of ones among
        ``low`` gives what to divide by. [C,n] float32.
    """
    height, width = wanted.shape
    rows, columns = places(height, low.shape[1]), places(width, low.shape[2])
    left = np.rint(columns).astype(np.intp)
    starts = np.concatenate([[0], np.cumsum(wanted.sum(axis=1))])
    found = np.empty((low.shape[0], int(starts[-1])), np.float32)
    scale = np.float32(1 / (np.sqrt(2) * RANGE))
    guide = guide * scale
    for here, top in _bands(rows):
        if starts[here.stop] == starts[here.start]:
            continue
        rows_wanted, done = wanted[here], []
        for there in _tiles(rows_wanted):
            at = (rows[here] - top, columns[there] - left[there])
            code = seen(here, there) * scale
            sums = np.zeros((low.shape[0], *code.shape[1:]), np.float32)
            _weigh(low, guide, (top, left[there]), at, code, sums)
            done.append((sums, rows_wanted[:, there]))
        _gather(done, found[:, starts[here.start] : starts[here.stop]])
    return found


def _gather(tiles: list[tuple[Floats, Bools]], out: Floats) -> None:
    """Lay the wanted pixels of tiles side by side, row by row, into ``out`` [C,n], in place."""
    sums = np.concatenate([sums for sums, _ in tiles], axis=2)
    out[:] = sums[:, np.concatenate([wanted for _, wanted in tiles], axis=1)]


def _bands(rows: Floats) -> Iterator[tuple[slice, int]]:
    """Yield the plate rows that share their nearest model row, and that row."""
    nearest = np.rint(rows).astype(np.intp)
    cuts = np.concatenate([[0], np.flatnonzero(np.diff(nearest)) + 1, [len(rows)]])
    for start, stop in pairwise(cuts):
        yield slice(int(start), int(stop)), int(nearest[start])


def _tiles(wanted: Bools) -> Iterator[Indices]:
    """Yield the columns that hold a wanted pixel, some at a time."""
    some = np.flatnonzero(wanted.any(axis=0))
    for start in range(0, some.size, _COLUMNS):
        yield some[start : start + _COLUMNS]


def _weigh(
    low: Floats,
    guide: Floats,
    centre: tuple[int, Indices],
    offset: tuple[Floats, Floats],
    code: Floats,
    sums: Floats,
) -> None:
    """Add the weighted model pixels of one tile to ``sums`` [C,rows,columns], in place.

    Args:
        low: [C,h,w].
        guide: [3,h,w], in units of the range.
        centre: The nearest model row, and the nearest model column of each column.
        offset: How far rows and columns lie beyond these, in model pixels.
        code: [3,rows,columns], in units of the range.
        sums: Where to add.
    """
    height, width = low.shape[1:]
    ys = [min(max(centre[0] + dy, 0), height - 1) for dy in _TAPS]
    far_y = [np.exp(-((dy - offset[0]) ** 2) / np.float32(2 * REACH**2)) for dy in _TAPS]
    weight, part = np.empty(code.shape[1:], np.float32), np.empty(code.shape[1:], np.float32)
    for dx in _TAPS:
        x = np.clip(centre[1] + dx, 0, width - 1)
        far_x = np.exp(-((dx - offset[1]) ** 2) / np.float32(2 * REACH**2))
        spread, likes = low[:, ys][..., x], guide[:, ys][..., x]
        for k, near in enumerate(far_y):
            np.subtract(code[0], likes[0, k], out=weight)
            np.multiply(weight, weight, out=weight)
            for channel in (1, 2):
                np.subtract(code[channel], likes[channel, k], out=part)
                np.multiply(part, part, out=part)
                np.add(weight, part, out=weight)
            np.negative(weight, out=weight)
            np.exp(weight, out=weight)
            weight += np.float32(PLAIN)
            weight *= near[:, None] * far_x
            for channel, total in enumerate(sums):
                np.multiply(weight, spread[channel, k], out=part)
                total += part
