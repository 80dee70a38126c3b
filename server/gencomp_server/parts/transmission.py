# SPDX-License-Identifier: Apache-2.0
"""What one pixel and its neighbourhood say about alpha before everything is solved together.

Three witnesses: bounds (no layer may have negative or over-bright colour), the transmission read
off the clean plate's texture (inside a layer the plate's gradients are the clean plate's, times
``1 - alpha``), and the shadow test (a plate that is a darker clean plate is a shadow). Inside a
matte the layer's colour is carried out from the core to the soft edge as a fourth.

Arrays are float32, pictures [H,W,3] scene-linear, planes [H,W].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gencomp_server.parts.calibration import GAMMA, soften

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

_HOT = 1.25  # above it the clean plate bounds alpha from above
_NEAR_HOT = 3  # pixels around highlights where texture is not read
_FLOOR_OF_TEXTURE = 0.15  # noise may take away at most this rest of the texture's energy


@dataclass(frozen=True)
class Reading:
    """Transmission read off texture.

    Attributes:
        through: Share of the clean plate that is seen, 0 to 1.2. [H,W].
        doubt: Its standard error. [H,W].
    """

    through: Array
    doubt: Array


Pairs = list[tuple[Any, Any, Array, Array]]


def smoothstep(low: float, high: float, x: Array) -> Array:
    """Return 0 below ``low``, 1 above ``high``, a smooth rise between."""
    t = np.clip((x - low) / (high - low), 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t), dtype=np.float32)


def grow(mask: Mask, radius: int) -> Mask:
    """Return the mask dilated by a disc of ``radius`` pixels."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel) > 0)


def display_weight(plate: Array, clean: Array) -> Array:
    """Return the squared slope of the display curve at the brighter of both. [H,W,3]."""
    brighter = np.maximum(np.maximum(plate, clean), np.float32(0.01))
    return np.asarray(
        1.0 / (GAMMA * GAMMA * np.power(brighter, np.float32(1.09))), dtype=np.float32
    )


def least_alpha(plate: Array, clean: Array, noise: Array) -> Array:
    """Return the least alpha whose colour is not negative. [H,W].

    Args:
        plate: The picture. [H,W,3].
        clean: The clean plate. [H,W,3].
        noise: Linear difference that may be noise. [H,W,3] or a number.
    """
    bound = 1.0 - (plate + noise) / np.maximum(clean, 1e-3)
    return np.asarray(np.clip(bound.max(axis=2), 0.0, 1.0), dtype=np.float32)


def bright_alpha(plate: Array, clean: Array) -> Array:
    """Return the least alpha whose colour is not brighter than display white. [H,W]."""
    power = np.float32(1 / GAMMA)
    seen = np.power(np.clip(plate, 0, 1), power)
    under = np.power(np.clip(clean, 0, 1), power)
    bound = np.where(under < 0.999, (seen - under) / np.maximum(1.0 - under, 1e-3), 0.0)
    return np.asarray(np.clip(bound.max(axis=2), 0.0, 1.0), dtype=np.float32)


def most_alpha(plate: Array, clean: Array, brightest: Array) -> Array:
    """Return the greatest alpha before a highlight whose colour stays below ``brightest``. [H,W].

    Where a highlight of 8.0 is still seen at 4.0, half of it came through, whatever the texture
    says: the one place where alpha is bounded from above.
    """
    room = (clean - plate) / np.maximum(clean - brightest, 0.25)
    bound = np.where((clean > _HOT) & (plate < clean), room, 1.0)
    return np.asarray(np.clip(bound.min(axis=2), 0.0, 1.0), dtype=np.float32)


def pairs_of(plate: Array, clean: Array, weight: Array) -> Pairs:
    """Return display-weighted differences of neighbours, across and down.

    Each entry is (first pixel, second pixel, difference of plate, difference of clean plate).
    """
    made: Pairs = []
    root = np.sqrt(weight)
    for p, q in _NEIGHBOURS:
        scale = (root[p] + root[q]) * np.float32(0.5)
        made.append((p, q, (plate[q] - plate[p]) * scale, (clean[q] - clean[p]) * scale))
    return made


def pairs_without_layer(
    plate: Array, clean: Array, weight: Array, alpha: Array, colour: Array
) -> Pairs:
    """Return the same with the layer's own gradient taken out of the plate's.

    With a first ``alpha`` and ``colour`` known, what remains of the plate's gradient is the clean
    plate's times the transmission, also where alpha itself changes.
    """
    made: Pairs = []
    root = np.sqrt(weight)
    steady = soften(alpha, 1.5)[..., None]
    layer = steady * colour
    for p, q in _NEIGHBOURS:
        scale = (root[p] + root[q]) * np.float32(0.5)
        middle = (clean[p] + clean[q]) * np.float32(0.5)
        rest = plate[q] - plate[p] - (layer[q] - layer[p]) + (steady[q] - steady[p]) * middle
        made.append((p, q, rest * scale, (clean[q] - clean[p]) * scale))
    return made


_NEIGHBOURS = (
    ((slice(None), slice(None, -1)), (slice(None), slice(1, None))),
    ((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
)


def read_texture(
    pairs: Pairs, valid: Mask, radius: float, tolerance: float, ripple: float
) -> Reading:
    """Read the transmission off the texture: the slope of the plate's on the clean plate's.

    Robust (three reweightings); windows use pairs with both pixels in ``valid`` alone, so that
    no window crosses the border of a matte.

    Args:
        pairs: Differences of neighbours.
        valid: Pixels that may be used. [H,W].
        radius: Window, sigma of a Gaussian in pixels.
        tolerance: Residual in display units beyond which a pair counts less.
        ripple: Sigma of the clean plate's noise between neighbours, display units.
    """
    through = np.zeros(valid.shape, np.float32)
    allowed = [(valid[p] & valid[q])[..., None] for p, q, _, _ in pairs]
    for turn in range(4):
        sums = np.zeros((4, *valid.shape), np.float32)
        for (p, q, seen, under), ok in zip(pairs, allowed, strict=True):
            slope = ((through[p] + through[q]) * np.float32(0.5))[..., None]
            rest = seen - slope * under
            if turn == 0:
                weight = ok * np.ones_like(seen)
            else:
                limit = np.float32(tolerance)
                weight = ok * (limit / np.sqrt(limit * limit + rest * rest))
            terms = (weight * seen * under, weight * under * under, weight, weight * rest * rest)
            for total, term in zip(sums, terms, strict=True):
                flat = term.sum(axis=2)
                total[p] += flat
                total[q] += flat
        product, energy, count, misfit = (soften(plane, radius) for plane in sums)
        clear = np.maximum(energy - ripple * ripple * count, _FLOOR_OF_TEXTURE * energy)
        through = np.clip(product / (clear + 1e-12), 0.0, 1.2).astype(np.float32)
    samples = np.maximum(4 * np.pi * radius * radius * count / 2, 1e-3)
    per_pair = energy / np.maximum(count, 1e-9) + 1e-12
    doubt = np.sqrt(misfit / (count + 1e-9) / per_pair / samples)
    return Reading(through, np.asarray(doubt, dtype=np.float32))


@dataclass(frozen=True)
class Shade:
    """What the shadow test found.

    Attributes:
        alpha: Light taken away, 0 to 1. [H,W].
        certain: How sure it is that nothing but light was taken, 0 to 1. [H,W].
    """

    alpha: Array
    certain: Array


def find_shadow(plate: Array, clean: Array, weight: Array, tolerance: float) -> Shade:
    """Find where the plate is the clean plate with less light, the same in all channels."""
    under = (weight * clean * clean).sum(axis=2) + 1e-12
    left = (weight * plate * clean).sum(axis=2) / under
    error = plate - left[..., None] * clean
    rest = (weight * error * error).sum(axis=2)
    fits = np.exp(-rest / (tolerance * tolerance)) * (left < 1.0)
    certain = cv2.blur(fits.astype(np.float32), (5, 5)) ** 2
    return Shade(np.clip(1.0 - left, 0.0, 1.0).astype(np.float32), np.asarray(certain))


def carry_colour(plate: Array, core: Mask) -> tuple[Array, Array]:
    """Carry the colour of an opaque core outwards, the nearest of it first.

    Returns:
        Colour [H,W,3] and how well it is known, 0 to 1 [H,W].
    """
    inside = core.astype(np.float32)
    seen = plate * inside[..., None]
    colour = np.zeros_like(plate)
    known = np.zeros_like(inside)
    for radius in (2.0, 5.0, 12.0):
        total = soften(inside, radius)
        share = np.clip(20.0 * total, 0.0, 1.0) * (1.0 - known)
        colour += (share / np.maximum(total, 1e-6))[..., None] * soften(seen, radius)
        known = known + share
    return colour / np.maximum(known, 1e-6)[..., None], np.asarray(known, dtype=np.float32)


def alpha_from_colour(
    difference: Array, clean: Array, weight: Array, colour: Array, known: Array
) -> tuple[Array, Array]:
    """Return the alpha that best explains the plate if the layer had ``colour``, and its weight.

    Args:
        difference: Plate minus clean plate. [H,W,3].
        clean: The clean plate. [H,W,3].
        weight: Squared slope of the display curve. [H,W,3].
        colour: The layer's colour. [H,W,3].
        known: How well it is known, 0 to 1. [H,W].
    """
    contrast = colour - clean
    energy = (weight * contrast * contrast).sum(axis=2) + 1e-6
    alpha = np.clip((weight * difference * contrast).sum(axis=2) / energy, 0.0, 1.0)
    rest = difference - alpha[..., None] * contrast
    misfit = (weight * rest * rest).sum(axis=2)
    certainty = known / (0.12**2 + (0.03**2 + misfit) / energy)
    return alpha.astype(np.float32), certainty.astype(np.float32)
