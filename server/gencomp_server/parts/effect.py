# SPDX-License-Identifier: Apache-2.0
"""The effect as a layer: one premultiplied RGBA whose ``over`` on the plate is the result.

For every changed pixel the least alpha that needs no negative colour is taken: a pure shadow is
black with alpha, a glow is colour without alpha. Every alpha above that one gives the same result,
so smoke may have a body (``parts/body.py`` says how much). Where the three channels ask for the
same alpha but for the rounding of the plate's type, their common one is taken: the greatest of
three roundings would be too high, and flicker with the grain.

Alpha is rounded up to the plate's type first, the colour is found from the rounded alpha, and the
result is then *defined* as ``over`` of the rounded layer, computed as a compositor's graph does it,
in float32 (``parts/stack.py``). So plain ``over`` gives the result, sample for sample, whatever the
values. The redefinition moves a half by one step at most; a float, or a pixel whose plate is
negative, by a step of the plate or of the result, whichever is larger.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gencomp_server.parts.stack import round_to, round_up

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Indices = NDArray[np.intp]
    Pixels = NDArray[np.float16] | NDArray[np.float32]


_CHUNK = 1 << 13


@dataclass(frozen=True)
class EffectFrame:
    """A changed frame as layers, all of the plate's type and size.

    Attributes:
        result: The plate where nothing changed, bit for bit; alpha 1 where the plate has none.
            [H,W,4].
        effect: Premultiplied; zero where the result is the plate, sample for sample. [H,W,4].
        difference: Result minus plate, colour only, alpha 0: to be added. [H,W,4].
        matte: How much of a change was let in; zero where the effect is. [H,W,1].
        touched: Pixels that changed.
    """

    result: Any
    effect: Any
    difference: Any
    matte: Any
    touched: int


def effect_frame(
    plate: Pixels,
    index: Indices,
    colours: Floats,
    weights: Floats,
    *,
    body: Floats | None = None,
) -> EffectFrame:
    """Solve the layer of one frame and redefine the result from it.

    Args:
        plate: The plate's own samples, which may be NaN or infinite: such pixels stay as they are.
            [H,W,3] or [H,W,4], half or float, scene-linear, unbounded.
        index: Flat indices of the changed pixels, each once. [n].
        colours: What they should become. [n,3] float32, scene-linear, unbounded.
        weights: How much of the change was let in. [n] float32, 0..1.
        body: Alpha wished for, as in :func:`solve_layer`. [n] float32, 0..1.
    """
    kind = plate.dtype
    height, width, channels = plate.shape
    result = np.empty((height, width, 4), kind)
    result[..., :channels] = plate
    if channels == 3:
        result[..., 3] = 1
    effect = np.zeros((height, width, 4), kind)
    difference = np.zeros((height, width, 4), kind)
    matte = np.zeros((height, width, 1), kind)
    rows = result.reshape(-1, 4), effect.reshape(-1, 4), difference.reshape(-1, 4)
    least_weight = np.float32(np.finfo(kind).tiny)
    touched = 0
    for start in range(0, index.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        wish = None if body is None else body[part]
        told, after, layer, change = _solved(rows[0][index[part]], colours[part], wish)
        at = index[part][told]
        rows[0][at], rows[1][at], rows[2][at, :3] = after, layer, change
        matte.reshape(-1)[at] = np.maximum(weights[part][told], least_weight)
        touched += int(at.size)
    return EffectFrame(result, effect, difference, matte, touched)


def _solved(
    own: Pixels, colours: Floats, body: Floats | None
) -> tuple[Indices, Pixels, Pixels, Pixels]:
    """Solve some pixels.

    Args:
        own: The plate's samples. [n,4].
        colours: What they should become. [n,3].
        body: Alpha wished for. [n].

    Returns:
        Which of the pixels changed [m]; result [m,4], layer [m,4] and difference [m,3] of those,
        in the plate's type.
    """
    kind = own.dtype
    before, wanted = _columns(own), _columns(colours)
    good = np.isfinite(before).all(axis=0) & np.isfinite(wanted).all(axis=0)
    if not good.all():
        before = np.where(good, before, np.float32(0))
        wanted = np.where(good, wanted, np.float32(0))
    layer = solve_columns(before[:3], wanted, kind, body)
    after = round_to(layer + before * (np.float32(1) - layer[3]), kind)
    # What rounds back to the plate's own samples is no change: no trace of it in any layer.
    told = np.flatnonzero((after != before).any(axis=0) & (layer != 0).any(axis=0) & good)
    change = round_to(after[:3] - before[:3], kind)
    return told, _rows(after, told, kind), _rows(layer, told, kind), _rows(change, told, kind)


def _columns(rows: NDArray[Any]) -> Floats:
    """Turn [n,C] of any float type into [C,n] float32, contiguous."""
    return np.ascontiguousarray(rows.T, np.float32)


def _rows(columns: Floats, which: Indices, kind: np.dtype[Any]) -> Pixels:
    """Turn some columns of [C,n] into [m,C] of ``kind``."""
    if which.size < columns.shape[1]:
        columns = columns[:, which]
    return np.ascontiguousarray(columns.astype(kind).T)


def solve_layer(
    plate: Floats, result: Floats, kind: np.dtype[Any], *, at_least: Floats | None = None
) -> Floats:
    """Return the layer of least alpha whose ``over`` on a plate is nearest to a result.

    Args:
        plate: [n,3] float32, finite, representable in ``kind``.
        result: [n,3] float32, finite.
        kind: Type the layer is to have.
        at_least: Alpha wished for: taken where it is above the least one and leaves the result as
            near as that one does; below a negative plate only as much of it as can be. [n]
            float32, 0..1.

    Returns:
        Premultiplied, representable in ``kind``; no sample is negative. [n,4] float32.
    """
    return np.ascontiguousarray(solve_columns(_columns(plate), _columns(result), kind, at_least).T)


def solve_columns(
    plate: Floats, result: Floats, kind: np.dtype[Any], at_least: Floats | None
) -> Floats:
    """Do what :func:`solve_layer` says, pixels as columns: [3,n] and [3,n] give [4,n]."""
    alpha = _least_alpha(plate, result, kind)
    if at_least is not None:
        alpha = np.maximum(alpha, _wished(plate, result, kind, at_least))
    layer = np.empty((4, alpha.size), np.float32)
    layer[3] = alpha
    # From the rounded alpha, exactly: in float32 the product would lose what is left of a shadow.
    through = (np.float32(1) - alpha).astype(np.float64)
    for c in range(3):
        layer[c] = result[c] - through * plate[c]
    # A shadow is black to the bit where what is left is lost in the rounding of the result.
    black = (np.abs(layer[:3]) <= _half_step(result, kind)).all(axis=0) & (alpha > 0)
    layer[:3] = round_to(np.where(black, np.float32(0), np.maximum(layer[:3], 0)), kind)
    return layer


def _least_alpha(plate: Floats, result: Floats, kind: np.dtype[Any]) -> Floats:
    """Return the least alpha that needs no negative colour, rounded up to ``kind``. [n].

    Where one alpha takes all channels to the result but for half a step of its type, it is that
    of the sum of the channels, in which a single channel's rounding hardly shows.
    """
    lit = plate > 0
    all_lit = lit.all(axis=0)
    kept = np.where(lit, result / np.where(lit, plate, np.float32(1)), np.float32(1)).min(axis=0)
    alpha = np.minimum(round_up(np.clip(1 - kept, 0, 1), kind), 1)
    total = np.where(all_lit, plate.sum(axis=0), np.float32(1))
    shared = np.clip(1 - result.sum(axis=0) / total, 0, 1)
    step = _half_step(result, kind)
    for near in (round_up(shared, kind), round_to(shared, kind)):
        short = (np.float32(1) - near) * plate - result
        agreed = all_lit & (short <= step).all(axis=0)
        alpha = np.where(agreed, np.minimum(near, alpha), alpha)
    return np.asarray(alpha, np.float32)


def _half_step(light: Floats, kind: np.dtype[Any]) -> Floats:
    """Return by how much light may differ and round to the same or the next value of ``kind``."""
    info = np.finfo(kind)
    least = np.float32(info.smallest_subnormal) / 2
    return np.asarray(np.maximum(light * np.float32(info.eps / 2), least), np.float32)


def _wished(plate: Floats, result: Floats, kind: np.dtype[Any], at_least: Floats) -> Floats:
    """Return as much of a wished alpha as leaves the result reachable. [n] float32, in ``kind``."""
    wish = np.minimum(round_up(np.clip(at_least, 0, 1).astype(np.float32), kind), 1)
    # What a negative plate keeps of itself needs colour below zero above this alpha.
    dark = (plate < 0) & (result < 0)
    if dark.any():
        most = np.where(dark, 1 - result / np.where(dark, plate, np.float32(1)), np.float32(1))
        most = np.clip(most.min(axis=0), 0, 1).astype(kind)
        wish = np.minimum(wish, np.maximum(most.astype(np.float32), 0))
    return np.asarray(wish, np.float32)
