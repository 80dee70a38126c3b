# SPDX-License-Identifier: Apache-2.0
"""The plate's grain, measured on a few frames; ``grain.py`` says what that is.

It is looked for in small squares, in two ways: what a plane leaves of a square, and half of what it
leaves of its difference to the frame before. Texture adds to the first wherever it is, to the
second only where something moves, and grain is in both; so the second is taken where it is clearly
less, and of all squares of like brightness those are believed that agree at the lower end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gencomp_server.parts.grain import REACH_PX, Grain, no_grain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]

_SIDE_PX = 24  # of a square: small enough to find level ones, large against the reach
_SQUARES = 3000  # looked at per frame
_BINS = 12
_LEAST_IN_BIN = 24  # squares that must agree before a bin is believed
# Squares agree when their sigmas are within this factor; of correlated grain one varies by 10 %.
_AGREE = 1.35
_CLEARLY = 1.5  # as variances
_LOW_QUANTILE = 0.05
_SETTLES = 12
# A step of half relative to the light it is a step at, and what is black: less is no grain.
_LEAST_RELATIVE, _LEAST_SIGMA = 2.0**-11, 2e-5
_HELD_SHARE = 0.5  # of samples equal to the frame before: that square was held, not filmed again
_TRANSFORM_PX = 32  # at least a square and its reach, so that nothing wraps round


def frames_to_measure(count: int) -> tuple[int, ...]:
    """Return which frames of a shot to measure, by index: neighbours at start, middle and end."""
    starts = sorted({0, max(0, count // 2 - 1), max(0, count - 2)})
    return tuple(sorted({min(i + k, count - 1) for i in starts for k in (0, 1)}))


def measure_grain(frames: Iterable[Floats]) -> Grain:
    """Measure grain over a few frames; a plate too small or too busy to tell has none.

    Args:
        frames: Of one shot, in order, neighbours where the camera may stand still. Taken one by
            one. Each [H,W,3] float32, scene-linear, finite.
    """
    told: list[tuple[Floats, Floats, Floats, Floats]] = []
    before: Floats | None = None
    for frame in frames:
        squares = _squares(frame)
        if squares is not None:
            told.append(_told_by(squares, before))
        before = squares
    if not told:
        return no_grain()
    light, sigma, lags, mixed = (np.concatenate(kind) for kind in zip(*told, strict=True))
    # A letterbox is no picture, and says nothing of its grain.
    shown = light.any(axis=1) | sigma.any(axis=1)
    return _grain_of(light[shown], sigma[shown], lags[shown], mixed[shown])


def _squares(frame: Floats) -> Floats | None:
    """Cut squares out of a frame, the same places for every frame of a size.

    Returns:
        [n,3,side,side] float32, or None where the frame is smaller than one.
    """
    rows, columns = frame.shape[0] // _SIDE_PX, frame.shape[1] // _SIDE_PX
    if rows * columns == 0:
        return None
    # A step prime to most widths spreads what is taken over the whole frame.
    picked = np.arange(0, rows * columns, max(1, -(-rows * columns // _SQUARES)))
    out = np.empty((picked.size, 3, _SIDE_PX, _SIDE_PX), np.float32)
    for i, at in enumerate(picked):
        y, x = divmod(int(at), columns)
        part = frame[y * _SIDE_PX : (y + 1) * _SIDE_PX, x * _SIDE_PX : (x + 1) * _SIDE_PX, :3]
        out[i] = part.transpose(2, 0, 1)
    return out


def _told_by(squares: Floats, before: Floats | None) -> tuple[Floats, Floats, Floats, Floats]:
    """Say of each square its light, sigma, neighbour products and channel products.

    Returns:
        [n,3], [n,3], [n,3,lags] and [n,3,3], all float32; products are means over the square.
    """
    light = squares.mean(axis=(2, 3))
    rest = _without_plane(squares)
    variance = (rest * rest).mean(axis=(2, 3))
    if before is not None:
        difference = squares - before
        held = (difference == 0).mean(axis=(1, 2, 3)) > _HELD_SHARE
        moved = _without_plane(difference) * np.float32(np.sqrt(0.5))
        between = (moved * moved).mean(axis=(2, 3))
        # Clearly less, or else the lesser of two measurements would be too little on the average.
        lesser = (_CLEARLY * between.mean(axis=1) < variance.mean(axis=1)) & ~held
        rest[lesser], variance[lesser] = moved[lesser], between[lesser]
    flat = rest.reshape(*rest.shape[:2], -1)
    products = flat @ flat.transpose(0, 2, 1) / np.float32(_SIDE_PX**2)
    return light, np.sqrt(variance), _lag_products(rest), products


def _basis() -> Doubles:
    """Return an orthonormal basis of planes over a square. [3,side,side]."""
    along = np.arange(_SIDE_PX) - (_SIDE_PX - 1) / 2
    flat, slope = np.ones(_SIDE_PX) / np.sqrt(_SIDE_PX), along / np.sqrt((along**2).sum())
    return np.stack([np.outer(flat, flat), np.outer(flat, slope), np.outer(slope, flat)])


def _without_plane(squares: Floats) -> Floats:
    basis = _basis().astype(np.float32).reshape(3, -1)
    flat = squares.reshape(*squares.shape[:2], -1)
    return np.asarray((flat - (flat @ basis.T) @ basis).reshape(squares.shape), np.float32)


def _lag_products(rest: Floats) -> Floats:
    """Return the mean products of samples with their neighbours. [n,3,lags] float32.

    Lags are the lower half of a (2*REACH_PX+1) square in row order, the middle first: the upper
    half is the same.
    """
    size = (_TRANSFORM_PX, _TRANSFORM_PX)
    spectrum = np.fft.rfft2(rest, s=size)
    sums = np.fft.irfft2(spectrum.real**2 + spectrum.imag**2, s=size)
    ys, xs = _half_lags()
    counts = (_SIDE_PX - ys) * (_SIDE_PX - np.abs(xs))
    return np.asarray(sums[:, :, ys, xs] / counts, np.float32)


def _half_lags() -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the lags (y, x) that are measured, the middle first."""
    ys, xs = np.mgrid[0 : REACH_PX + 1, -REACH_PX : REACH_PX + 1]
    once = (ys > 0) | (xs >= 0)
    return ys[once], xs[once]


def _grain_of(light: Floats, sigma: Floats, lags: Floats, mixed: Floats) -> Grain:
    """Judge all squares of a shot together; see :func:`_told_by` for what is known of them."""
    agreed = np.zeros(light.shape, bool)
    tables = []
    for c in range(3):
        levels, sigmas = [], []
        for members in _bins(light[:, c]):
            inside = _agreeing(sigma[members, c])
            if np.count_nonzero(inside) >= _LEAST_IN_BIN:
                chosen = members[inside]
                agreed[chosen, c] = True
                levels.append(float(light[chosen, c].mean()))
                sigmas.append(float(np.sqrt((sigma[chosen, c] ** 2).mean())))
        tables.append((levels, sigmas))
    if not all(levels for levels, _ in tables):
        return no_grain()
    correlation, lost = zip(*(_correlation(lags[agreed[:, c], c]) for c in range(3)), strict=True)
    found = _tables(tables, np.array(lost))
    return Grain(*found, np.stack(correlation), _channels(mixed[agreed.all(axis=1)]))


def _bins(light: Floats) -> list[NDArray[np.intp]]:
    """Share squares out over bins of brightness that hold equal numbers."""
    count = max(1, min(_BINS, light.size // (2 * _LEAST_IN_BIN)))
    return [part for part in np.array_split(np.argsort(light, kind="stable"), count) if part.size]


def _agreeing(sigma: Floats) -> NDArray[np.bool_]:
    """Return which squares agree on the least sigma that many have. [n] bool."""
    centre = float(np.quantile(sigma, _LOW_QUANTILE))
    inside = np.zeros(sigma.shape, bool)
    for _ in range(_SETTLES):
        now = (sigma >= centre / _AGREE) & (sigma <= centre * _AGREE)
        if not now.any() or bool((now == inside).all()):
            break
        inside, centre = now, float(np.median(sigma[now]))
    return inside


def _correlation(lags: Floats) -> tuple[Floats, float]:
    """Return one channel's correlation, and the share of variance that the planes took.

    A plane through a square takes along some of its grain, the more the coarser that is, from
    every neighbour product alike; how much follows from the correlation itself.
    """
    ys, xs = _half_lags()
    side = 2 * REACH_PX + 1
    found = np.zeros((side, side))
    mean = lags.astype(np.float64).mean(axis=0)
    middle = float(mean[(ys == 0) & (xs == 0)][0])
    if middle <= 0:
        found[REACH_PX, REACH_PX] = 1
        return found.astype(np.float32), 0.0
    found[REACH_PX + ys, REACH_PX + xs] = found[REACH_PX - ys, REACH_PX - xs] = mean / middle
    lost, measured, taken = 0.0, found, _plane_products()
    for _ in range(_SETTLES):
        lost = float(np.clip((found * taken).sum() / _SIDE_PX**2, 0.0, 0.5))
        found = measured * (1 - lost) + lost
    return np.clip(found, -1, 1).astype(np.float32), lost


def _plane_products() -> Doubles:
    """Return the summed neighbour products of all planes of the basis. [side,side] of lags."""
    size = (_TRANSFORM_PX, _TRANSFORM_PX)
    sums = np.fft.irfft2(np.abs(np.fft.rfft2(_basis(), s=size)) ** 2, s=size).sum(axis=0)
    around = np.arange(-REACH_PX, REACH_PX + 1)
    return np.asarray(sums[np.ix_(around, around)], np.float64)


def _tables(
    tables: Sequence[tuple[list[float], list[float]]], lost: Doubles
) -> tuple[Floats, Floats]:
    """Bring the channels' levels and sigmas to one length. Each [K,3] float32."""
    length = max(len(levels) for levels, _ in tables)
    out = np.empty((2, length, 3), np.float32)
    for c, (levels, sigmas) in enumerate(tables):
        at = np.interp(np.arange(length), np.arange(len(levels)), levels)
        out[0, :, c] = at
        true = np.interp(at, levels, sigmas) / np.sqrt(1 - lost[c])
        least = np.maximum(np.abs(at) * _LEAST_RELATIVE, _LEAST_SIGMA)
        out[1, :, c] = np.where(true > least, true, 0)
    return out[0], out[1]


def _channels(products: Floats) -> Floats:
    """Return how channels hang together, from their mean products. [n,3,3] gives [3,3]."""
    if not len(products):
        return np.eye(3, dtype=np.float32)
    scale = np.sqrt(np.maximum(np.einsum("ncc->nc", products), 1e-20))
    mean = (products / (scale[:, :, None] * scale[:, None, :])).mean(axis=0)
    np.fill_diagonal(mean, 1)
    return np.asarray(np.clip(mean, -1, 1), np.float32)
