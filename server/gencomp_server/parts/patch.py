# SPDX-License-Identifier: Apache-2.0
"""A removal as one picture and one layer: the clean frame, and the patch that makes it.

``clean`` is the plate's own sample, bit for bit, wherever no object has alpha; elsewhere it is what
lies behind. ``patch`` is premultiplied, and plain ``over(patch, plate)`` is ``clean``: its alpha is
rounded first, its colour is found from that, and ``clean`` is then defined by the rounded layer, as
a compositor's graph computes it. The least alpha would do for that, but a patch is graded and
regrained by hand: it is to be a picture, not a correction. So its alpha is ``BODY`` times the
objects' own: whole in all but their thin edges, and as soft as these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gencomp_server.parts.effect import solve_layer
from gencomp_server.parts.stack import round_to, round_up, strips

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Pixels = NDArray[np.float16] | NDArray[np.float32]

BODY = 4.0
"""The patch is opaque where the objects' alpha is 1/BODY or more: a light shadow is patched as a
whole, and still the patch fades out with it."""


@dataclass(frozen=True)
class Patched:
    """A frame without its objects, in the plate's type and size.

    Attributes:
        clean: The plate where no object has alpha, bit for bit; alpha 1 where the plate has none,
            else ``over`` of the patch's alpha on the plate's. [H,W,4].
        patch: Premultiplied; zero where no object has alpha. [H,W,4].
        touched: Pixels of the patch.
    """

    clean: Any
    patch: Any
    touched: int


def patch_frame(plate: Pixels, behind: Pixels, coverage: Floats) -> Patched:
    """Make one frame's clean picture and its patch.

    Args:
        plate: The plate's own samples, which may be NaN or infinite: such pixels stay as they are.
            [H,W,3] or [H,W,4], half or float, scene-linear, unbounded.
        behind: What lies behind the objects. [H,W,3] or [H,W,4], scene-linear.
        coverage: Alpha of all objects together. [H,W] float32, 0..1.
    """
    height, width = plate.shape[:2]
    clean = np.ones((height, width, 4), plate.dtype)
    clean[..., : plate.shape[2]] = plate
    patch = np.zeros((height, width, 4), plate.dtype)
    touched = 0
    for y0, y1 in strips(height, width):
        shown = clean[y0:y1].reshape(-1, 4)
        index = np.flatnonzero(coverage[y0:y1] > 0)
        index = index[np.isfinite(shown[index]).all(axis=1)]
        if index.size == 0:
            continue
        before = shown[index].astype(np.float32)
        wanted = behind[y0:y1].reshape(-1, behind.shape[2])[index, :3].astype(np.float32)
        body = np.minimum(np.float32(BODY) * coverage[y0:y1].reshape(-1)[index], 1)
        layer = _solved(before[:, :3], wanted, body, plate.dtype)
        patch[y0:y1].reshape(-1, 4)[index] = layer
        shown[index] = round_to(layer + before * (np.float32(1) - layer[:, 3:]), plate.dtype)
        touched += index.size
    return Patched(clean, patch, touched)


def touched(plate: Pixels, clean: Pixels) -> NDArray[np.bool_]:
    """Tell where a picture differs from the plate in any bit: -0.0 is not 0.0. [H,W] bool.

    Args:
        plate: [H,W,3] or [H,W,4].
        clean: [H,W,4] of the plate's type; alpha counts where the plate has one.
    """
    word = f"u{plate.dtype.itemsize}"
    same = clean[..., : plate.shape[2]].view(word) == plate.view(word)
    return np.asarray(~same.all(axis=2))


def _solved(plate: Floats, wanted: Floats, body: Floats, kind: np.dtype[Any]) -> Floats:
    """Return the patch of some pixels, with the alpha wished for or the least that there can be.

    Args:
        plate: [n,3] float32, finite.
        wanted: What lies behind. [n,3] float32, finite.
        body: Alpha wished for. [n] float32, 0..1.
        kind: Type of the patch.

    Returns:
        Premultiplied, representable in ``kind``. [n,4] float32.
    """
    layer = solve_layer(plate, wanted, kind)
    alpha = np.maximum(layer[:, 3], round_up(body, kind))
    through = (np.float32(1) - alpha).astype(np.float64)[:, None]
    colour = wanted.astype(np.float64) - through * plate
    # A sample below zero that lies behind, such as one outside the gamut, stays below zero.
    held = np.asarray(np.maximum(colour, np.minimum(wanted, 0)), np.float32)
    layer[:, :3], layer[:, 3] = round_to(held, kind), alpha
    return layer
