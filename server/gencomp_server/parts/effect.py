# SPDX-License-Identifier: Apache-2.0
"""The effect as a layer: one premultiplied RGBA whose ``over`` on the plate is the result.

For every changed pixel the least alpha that needs no negative colour is taken: a pure shadow is
black with alpha, a glow is colour without alpha. Alpha is rounded up to the plate's type first, the
colour is found from the rounded alpha, and the result is then *defined* as ``over`` of the rounded
layer, computed as a compositor's graph does it, in float32 (``parts/stack.py``). So plain ``over``
gives the result, sample for sample, whatever the values. The redefinition moves a half by one step
at most; a float, or a pixel whose plate is negative, by a step of the plate or of the result,
whichever is larger.

Every alpha above the least one would be exact too (smoke could have a body); this module takes the
least.
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


def effect_frame(plate: Pixels, index: Indices, colours: Floats, weights: Floats) -> EffectFrame:
    """Solve the layer of one frame and redefine the result from it.

    Args:
        plate: The plate's own samples, which may be NaN or infinite: such pixels stay as they are.
            [H,W,3] or [H,W,4], half or float, scene-linear, unbounded.
        index: Flat indices of the changed pixels. [n].
        colours: What they should become. [n,3] float32, scene-linear, unbounded.
        weights: How much of the change was let in. [n] float32, 0..1.
    """
    kind = plate.dtype
    height, width = plate.shape[:2]
    result = np.ones((height, width, 4), kind)
    result[..., : plate.shape[2]] = plate
    effect = np.zeros((height, width, 4), kind)
    difference = np.zeros((height, width, 4), kind)
    matte = np.zeros((height, width, 1), kind)
    flat = result.reshape(-1, 4)
    finite = np.isfinite(flat[index]).all(axis=1) & np.isfinite(colours).all(axis=1)
    index, colours, weights = index[finite], colours[finite], weights[finite]
    before = flat[index].astype(np.float32)
    layer = solve_layer(before[:, :3], colours, kind)
    shown = (layer != 0).any(axis=1)
    index, before, layer, weights = index[shown], before[shown], layer[shown], weights[shown]
    after = round_to(layer + before * (np.float32(1) - layer[:, 3:]), kind)
    # What rounds back to the plate's own samples is no change: no trace of it in any layer.
    told = (after != before).any(axis=1)
    index, before, layer = index[told], before[told], layer[told]
    weights, after = weights[told], after[told]
    flat[index] = after
    effect.reshape(-1, 4)[index] = layer
    change = round_to(after[:, :3] - before[:, :3], kind)
    difference.reshape(-1, 4)[index, :3] = change
    matte.reshape(-1)[index] = np.maximum(weights, np.float32(np.finfo(kind).tiny))
    return EffectFrame(result, effect, difference, matte, int(index.size))


def solve_layer(plate: Floats, result: Floats, kind: np.dtype[Any]) -> Floats:
    """Return the layer of least alpha whose ``over`` on a plate is nearest to a result.

    Args:
        plate: [n,3] float32, finite, representable in ``kind``.
        result: [n,3] float32, finite.
        kind: Type the layer is to have.

    Returns:
        Premultiplied, representable in ``kind``; no sample is negative. [n,4] float32.
    """
    lit = plate > 0
    kept = np.where(lit, result / np.where(lit, plate, 1), np.float32(1)).min(axis=1)
    alpha = np.minimum(round_up(np.clip(1 - kept, 0, 1).astype(np.float32), kind), 1)
    # From the rounded alpha, exactly: in float32 the product would lose what is left of a shadow.
    through = (np.float32(1) - alpha).astype(np.float64)[:, None]
    colour = np.maximum(result.astype(np.float64) - through * plate.astype(np.float64), 0)
    layer = np.empty((len(plate), 4), np.float32)
    layer[:, :3] = round_to(colour.astype(np.float32), kind)
    layer[:, 3] = alpha
    return layer
