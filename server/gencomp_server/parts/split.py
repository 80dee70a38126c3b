# SPDX-License-Identifier: Apache-2.0
"""Each object's layer apart into the object itself and its effects, the stack staying exact.

``NAME_object`` lies over ``NAME_effects``; put in place of ``NAME`` they give the plate back to
1 ULP of its type, as the layer did. Where the object's matte meets its own shadow, the effect's
colour is carried in from where the effect stands alone, so that a shadow stays dark under an edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from gencomp_server.parts.stack import is_beyond, over_columns, round_to, strips

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.float16] | NDArray[np.float32]
    Floats = NDArray[np.float32]

# How far an effect's colour is carried in under the object's edge, in pixels.
_REACH_PX = 8
# What is left of alpha below this belongs to whoever has the rest.
_LEAST_ALPHA = 2.0**-11


def split_effects(
    plate: Pixels,
    background: Pixels,
    layers: Sequence[Pixels],
    objects: Sequence[Floats],
    residual: Pixels | None = None,
) -> tuple[tuple[Pixels, Pixels], ...]:
    """Split every layer of a frame into object and effects.

    Args:
        plate: [H,W,3] or [H,W,4], half or float, scene-linear.
        background: What lies under the layers. [H,W,4] of the plate's type.
        layers: Front to back, premultiplied, exact against the plate. Each [H,W,4], its type.
        objects: Front to back, alpha of each object without its effects; more than the layer has
            counts as all of it. [H,W] or [H,W,1] float32, 0..1.
        residual: The additive layer in front, where there is one. [H,W,4] of the plate's type.

    Returns:
        Front to back, (object, effects). Each [H,W,4] of the plate's type, premultiplied.
    """
    height, width = plate.shape[:2]
    made = tuple((np.zeros_like(layer), np.zeros_like(layer)) for layer in layers)
    solid = [np.asarray(alpha, np.float32).reshape(height, width) for alpha in objects]
    for y0, y1 in strips(height, width):
        rows = slice(y0, y1)
        index = np.flatnonzero(np.any([_covered(layer[rows]) for layer in layers], axis=0))
        if index.size == 0:
            continue
        fronts = np.stack(
            [
                part
                for layer, alpha in zip(layers, solid, strict=True)
                for part in _split_strip(layer, alpha, y0, y1, index, plate.dtype)
            ]
        )
        whole = np.stack([_columns(layer[rows], index) for layer in layers])
        under = _columns(background[rows], index)[:3]
        target = _columns(plate[rows], index)[:3]
        added = np.zeros_like(target) if residual is None else _columns(residual[rows], index)[:3]
        _close(fronts, whole, under, target, added, plate.dtype)
        for number, pair in enumerate(made):
            for part, layer in enumerate(pair):
                layer[rows].reshape(-1, 4)[index] = fronts[2 * number + part].T
    return made


def _covered(rows: Pixels) -> NDArray[np.bool_]:
    """Tell which pixels of rows hold anything. [h,W,4] in, [h*W] bool out."""
    flat = rows.reshape(-1, 4)
    found: NDArray[np.bool_] = (flat[:, 0] != 0) | (flat[:, 1] != 0)
    found |= (flat[:, 2] != 0) | (flat[:, 3] != 0)
    return found


def _columns(rows: Pixels, index: NDArray[np.intp]) -> Floats:
    """Return pixels as columns. [h,W,C] and [n] in, [C,n] float32 out."""
    flat = rows.reshape(-1, rows.shape[2])[index]
    return np.ascontiguousarray(flat.T, dtype=np.float32)


def _split_strip(
    layer: Pixels,
    solid: Floats,
    y0: int,
    y1: int,
    index: NDArray[np.intp],
    kind: np.dtype[Any],
) -> tuple[Floats, Floats]:
    """Return object and effects of one layer [4,n] at the covered pixels of a strip."""
    top, bottom = max(0, y0 - _REACH_PX), min(layer.shape[0], y1 + _REACH_PX)
    pixels = _columns(layer[y0:y1], index)
    alpha = pixels[3]
    own = np.minimum(solid[y0:y1].reshape(-1)[index], alpha)
    own = np.where(own < _LEAST_ALPHA, 0, round_to(own, kind))
    own = np.where(alpha - own < _LEAST_ALPHA, alpha, own)
    front, back = np.zeros_like(pixels), np.zeros_like(pixels)
    only = own >= alpha
    none = (own == 0) & ~(only & (solid[y0:y1].reshape(-1)[index] > 0))
    front[:, only & ~none], back[:, none] = pixels[:, only & ~none], pixels[:, none]
    mixed = np.flatnonzero(~only & ~none)
    if mixed.size:
        colour = _effect_colour(layer[top:bottom], solid[top:bottom])
        straight = colour.reshape(-1, 3)[index[mixed] + (y0 - top) * layer.shape[1]].T
        keep = np.asarray(1 - own[mixed], np.float32)
        rest = (alpha[mixed] - own[mixed]) / keep
        most = np.maximum(pixels[:3, mixed], 0) / keep
        shown = round_to(np.asarray(np.clip(rest * straight, 0, most), np.float32), kind)
        back[:3, mixed], back[3, mixed] = shown, round_to(rest, kind)
        front[:3, mixed] = round_to(pixels[:3, mixed] - keep * shown, kind)
        front[3, mixed] = own[mixed]
    return front, back


def _effect_colour(rows: Pixels, solid: Floats) -> Floats:
    """Return the straight colour of effects nearby, 0 where there are none. [h,W,3] float32."""
    alone = (solid < _LEAST_ALPHA)[..., None]
    weighted = np.where(alone, rows.astype(np.float32), 0)
    side = 2 * _REACH_PX + 1
    mean = cv2.boxFilter(weighted, -1, (side, side), borderType=cv2.BORDER_CONSTANT)
    return np.asarray(mean[..., :3] / np.maximum(mean[..., 3:], np.float32(1e-4)), np.float32)


def _close(
    fronts: Floats,
    whole: Floats,
    under: Floats,
    plate: Floats,
    added: Floats,
    kind: np.dtype[Any],
) -> None:
    """Make split layers exact, in place; a pixel that cannot be is not split.

    Args:
        fronts: Object and effects by turns, front to back. [2N,4,n].
        whole: The layers as they were. [N,4,n].
        under: Background. [3,n].
        plate: [3,n].
        added: Residual on top. [3,n].
        kind: The plate's type.
    """
    off = np.flatnonzero(is_beyond(added + over_columns(fronts, under), plate, kind))
    if off.size == 0:
        return
    part = fronts[..., off]
    first = np.argmax(part[:, 3] > 0, axis=0)
    every = np.arange(off.size)
    alpha = part[first, 3, every]
    part[first, :, every] = 0
    below = over_columns(part, under[:, off])
    target = plate[:, off] - added[:, off]
    colour = round_to(target - below * (1 - alpha), kind)
    part[first, :3, every], part[first, 3, every] = colour.T, alpha
    still = is_beyond(added[:, off] + over_columns(part, under[:, off]), plate[:, off], kind)
    still |= ((colour < 0) & (plate[:, off] >= 0)).any(axis=0)
    fronts[..., off] = part
    lost = off[still]
    for number, layer in enumerate(whole):
        pair = fronts[2 * number : 2 * number + 2, :, lost]
        takes = (pair[0, 3] >= pair[1, 3]).astype(np.float32)
        fronts[2 * number][:, lost] = layer[:, lost] * takes
        fronts[2 * number + 1][:, lost] = layer[:, lost] * (1 - takes)
