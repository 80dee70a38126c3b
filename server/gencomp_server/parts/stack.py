# SPDX-License-Identifier: Apache-2.0
"""Stacks of layers: ``over`` as a compositor's graph computes it, and how far it is from the plate.

One rule for all: from the back to the front, in float32, ``out = rgb + out * (1 - a)``, rounded
once to the plate's type at the end. Frames are [H,W,4]; inside strips, pixels are columns: [3,n].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.float16] | NDArray[np.float32]
    Floats = NDArray[np.float32]
    Bools = NDArray[np.bool_]

_STRIP_PIXELS = 1 << 17


@dataclass(frozen=True)
class StackError:
    """How far a stack is from its plate.

    Attributes:
        max_ulp: Greatest distance where a layer covers, in ULP of the plate's type.
        beyond: Pixels further than 1 ULP where a layer covers.
        differing: Samples that no layer covers and whose background is not the plate's, bit for
            bit.
        covered: Pixels that a layer covers.
    """

    max_ulp: int
    beyond: int
    differing: int
    covered: int


def over(fg: Floats, bg: Floats) -> Floats:
    """Put one premultiplied picture over another, in float32.

    Args:
        fg: Premultiplied. [H,W,4], any float type.
        bg: Premultiplied, or colour alone. [H,W,3] or [H,W,4], any float type.

    Returns:
        ``fg + bg * (1 - a)``, as many channels as ``bg``, float32.
    """
    front, back = np.asarray(fg, np.float32), np.asarray(bg, np.float32)
    return front[..., : back.shape[-1]] + back * (np.float32(1) - front[..., 3:4])


def stack(background: Pixels, layers: Sequence[Pixels]) -> Floats:
    """Put layers, front to back, over a background, in float32.

    Args:
        background: [H,W,3] or [H,W,4], any float type.
        layers: Premultiplied. Each [H,W,4].

    Returns:
        As many channels as ``background``, float32, not rounded.
    """
    result = np.asarray(background, np.float32)
    for layer in reversed(layers):
        result = over(np.asarray(layer, np.float32), result)
    return result


def ulp_distance(a: Pixels, b: Pixels) -> NDArray[np.int64]:
    """Return how many representable numbers lie between two arrays of one type.

    Both zeros are one number; two NaNs are 0 apart.
    """
    distance: NDArray[np.int64] = np.abs(_ordinal(a) - _ordinal(b))
    distance[np.isnan(a) & np.isnan(b)] = 0
    return distance


def _ordinal(x: Pixels) -> NDArray[np.int64]:
    whole, low = (np.int16, 0x7FFF) if x.dtype == np.float16 else (np.int32, 0x7FFFFFFF)
    bits = np.ascontiguousarray(x).view(whole).astype(np.int64)
    return np.where(bits < 0, -(bits & low), bits)


def stack_error(
    plate: Pixels, background: Pixels, layers: Sequence[Pixels], residual: Pixels | None = None
) -> StackError:
    """Measure how far a delivered stack is from its plate.

    Args:
        plate: [H,W,3] or [H,W,4], half or float.
        background: [H,W,4] of the plate's type.
        layers: Front to back. Each [H,W,4] of the plate's type.
        residual: The additive layer in front, where there is one. [H,W,4] of the plate's type.

    Returns:
        The figures; a covered pixel is one where some layer (or the residual) is not zero.
    """
    layers = [*([] if residual is None else [residual]), *layers]
    height, width = plate.shape[:2]
    worst = beyond = differing = covered = 0
    for y0, y1 in strips(height, width):
        p, b = plate[y0:y1, :, :3].reshape(-1, 3), background[y0:y1, :, :3].reshape(-1, 3)
        parts = [layer[y0:y1].reshape(-1, 4) for layer in layers]
        on = np.zeros(len(p), bool)
        for part in parts:
            for channel in part.T:
                on |= channel != 0
        for one, other in zip(_bits(p).T, _bits(b).T, strict=True):
            differing += int(((one != other) & ~on).sum())
        index = np.flatnonzero(on)
        if index.size:
            seen = np.asarray(p[index])
            columns = np.stack([part[index].T for part in parts]).astype(np.float32)
            stacked = over_columns(columns, b[index].T.astype(np.float32))
            distance = np.zeros(index.size, np.int64)
            for one, other in zip(stacked, seen.T, strict=True):
                distance = np.maximum(distance, ulp_distance(one.astype(p.dtype), other))
            worst, beyond = max(worst, int(distance.max())), beyond + int((distance > 1).sum())
            covered += index.size
    return StackError(worst, beyond, differing, covered)


def _bits(x: Pixels) -> NDArray[Any]:
    return np.ascontiguousarray(x).view(np.uint16 if x.dtype == np.float16 else np.uint32)


def strips(height: int, width: int) -> list[tuple[int, int]]:
    """Return the strips of rows, first and behind the last, that bound temporary memory."""
    rows = max(1, _STRIP_PIXELS // max(width, 1))
    return [(y, min(y + rows, height)) for y in range(0, height, rows)]


def round_to(x: Floats, kind: np.dtype[Any]) -> Floats:
    """Return the finite values of ``kind`` nearest to ``x``, as float32."""
    if kind == np.float32:
        return x
    limit = np.float32(np.finfo(kind).max)
    return _nearest_half(np.clip(np.asarray(x, np.float32), -limit, limit))


def round_up(x: Floats, kind: np.dtype[Any]) -> Floats:
    """Return the least values of ``kind`` that are not below ``x`` (>= 0), as float32."""
    if kind == np.float32:
        return np.asarray(x, np.float32)
    near = _nearest_half(np.asarray(x, np.float32))
    return np.where(near < x, near + _binade(near) * np.float32(2.0**-10), near)


def _nearest_half(x: Floats) -> Floats:
    # numpy's own conversion takes ten times as long where a value becomes a subnormal half.
    magnitude = np.abs(x)
    # Adding so much leaves no bit below the half's last one; ties go to even, as they should.
    anchor = _binade(magnitude) * np.float32(1.5 * 2**13)
    return np.asarray(np.copysign((magnitude + anchor) - anchor, x), np.float32)


def _binade(x: Floats) -> Floats:
    """Return the greatest power of two not above each value, 2**-14 at least. x: >= 0."""
    bits = np.maximum(x, np.float32(2.0**-14)).view(np.uint32)
    return (bits & np.uint32(0x7F800000)).view(np.float32)


def is_beyond(result: Floats, plate: Floats, kind: np.dtype[Any]) -> Bools:
    """Tell which pixels, rounded to ``kind``, miss the plate by more than 1 ULP. [n] bool."""
    # A step of kind is never smaller than |p| times its epsilon over two: who is nearer than that
    # need not be looked at in full.
    info = np.finfo(kind)
    near = np.maximum(np.abs(plate) * np.float32(info.eps / 2), np.float32(info.smallest_subnormal))
    suspect = np.flatnonzero(~(np.abs(result - plate) <= near).all(axis=0))
    beyond = np.zeros(plate.shape[1], bool)
    if suspect.size:
        a, b = round_to(result[:, suspect], kind), plate[:, suspect]
        beyond[suspect] = (ulp_distance(a.astype(kind), b.astype(kind)) > 1).any(axis=0)
    return beyond


def see_through(layers: Floats) -> tuple[Floats, Floats]:
    """Return what layers show over black [3,n], and what of the background they let through."""
    seen = np.zeros_like(layers[0, :3])
    through = np.ones(layers.shape[2], np.float32)
    for layer in layers[::-1]:
        seen = layer[:3] + seen * (1 - layer[3])
        through = through * (1 - layer[3])
    return seen, through


def over_columns(layers: Floats, under: Floats) -> Floats:
    """Put layers [N,4,n] over a background [3,n] as a compositor would, in float32."""
    result = under
    for layer in layers[::-1]:
        result = layer[:3] + result * (1 - layer[3])
    return result
