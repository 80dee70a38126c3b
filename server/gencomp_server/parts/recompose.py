# SPDX-License-Identifier: Apache-2.0
"""Plate-exact recomposition: one frame's layers whose ``over`` is the plate again.

Layers are premultiplied, front to back, in the plate's own type (half or float). Stacked with
``out = rgb + out * (1 - a)`` in float32 from the back, and rounded once to that type, they equal
the plate to 1 ULP wherever a layer covers. Where none does, every layer is zero and the background
*is* the plate's sample: copied, never computed, so that -0.0, NaN and infinity survive.

What alpha and clean plate do not explain, the residual, has a fixed home:

* where the layers together are half transparent or more and the difference is grain-sized, the
  background: a removed shadow shows this frame's own grain;
* elsewhere the front-most covering layer, its alpha raised, and rounded up, until no colour has
  to be negative. Where the layer is opaque its colour is then the plate's own pixel;
* an opaque layer that others lie over thinly has the plate's own pixel too;
* with ``residual="layer"``, a layer of its own in front of all, with alpha 0, so that ``over``
  and ``plus`` both add it.

Work goes in strips of rows over covered pixels alone: temporary memory does not grow with height.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from gencomp_server.parts.stack import (
    is_beyond,
    over_columns,
    round_to,
    round_up,
    see_through,
    strips,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.parts.noise import NoiseFloor

    Pixels = NDArray[np.float16] | NDArray[np.float32]
    Floats = NDArray[np.float32]
    Bools = NDArray[np.bool_]

FOLDED = "folded"
APART = "layer"

# Alpha below this is no coverage: over half a stop of a half's step, nothing an eye could find.
LEAST_ALPHA = 2.0**-12
# Behind layers that let less than this through nothing is seen (the released omnimatte code calls
# a layer opaque from 0.98): unless solos tell what is there, a layer is transparent.
HIDDEN = 0.02
# "Half transparent or more": the background takes grain from here up.
HALF_TRANSPARENT = 0.5
# Grain-sized: within this many sigma of the smooth difference, in every channel.
GRAIN_SIGMAS = 4.0
# Half width of the window in which the smooth difference is taken, in plate pixels.
GRAIN_RADIUS_PX = 4
# A smooth difference below this many of its own standard errors is none: a shadow stays black.
# Film grain is wider than a pixel; the factor of two in the standard error stands for that.
BLACK_ERRORS = 3.0 * 2.0


@dataclass(frozen=True)
class Recomposed:
    """One frame's stack.

    Attributes:
        background: What lies under all layers; alpha is the plate's own, or 1.
            [H,W,4] in the plate's type, scene-linear.
        layers: Front to back, premultiplied. Each [H,W,4] in the plate's type, scene-linear.
        residual: What goes on top of all with alpha 0, where it was asked for apart.
            [H,W,4] in the plate's type, scene-linear.
        covered_share: Share of pixels that a layer covers, 0..1.
        raised_share: Share of covered pixels whose alpha was raised, 0..1.
        grain_share: Share of covered pixels whose residual the background took, 0..1.
        opaque_share: Share of covered pixels where a layer had to become opaque to be exact, 0..1.
        hidden_share: Per layer, share of its pixels hidden behind others, made transparent, 0..1;
            0 where the layers' colours are known.
        lifted: Where the background is this frame's own sample, brought up from under its layers.
            [H,W] bool.
    """

    background: Pixels
    layers: tuple[Pixels, ...]
    residual: Pixels | None
    covered_share: float
    raised_share: float
    grain_share: float
    opaque_share: float
    hidden_share: tuple[float, ...]
    lifted: Bools


@dataclass
class _Counts:
    """Pixels counted while a frame is worked through."""

    covered: int = 0
    raised: int = 0
    grain: int = 0
    opaque: int = 0
    hidden: list[int] = field(default_factory=list)
    present: list[int] = field(default_factory=list)


@dataclass
class _Pixels:
    """Covered pixels of one strip as columns, float32: [3,n], [N,n], [N,3,n] and [n]."""

    plate: Floats
    background: Floats
    grained: Floats
    alphas: Floats
    colours: Floats | None
    smooth: Floats
    zone: Bools
    grain: Bools

    def only(self, index: NDArray[np.intp]) -> _Pixels:
        """Return the pixels at ``index``."""
        colours = None if self.colours is None else self.colours[..., index]
        return _Pixels(
            self.plate[:, index],
            self.background[:, index],
            self.grained[:, index],
            self.alphas[:, index],
            colours,
            self.smooth[:, index],
            self.zone[index],
            self.grain[index],
        )


def recompose_frame(
    plate: Pixels,
    clean: Floats,
    alphas: Sequence[Floats],
    *,
    noise: NoiseFloor | None = None,
    covered: Bools | None = None,
    colours: Sequence[Floats] | None = None,
    residual: str = FOLDED,
    grained: Floats | None = None,
) -> Recomposed:
    """Make the background and the layers of one frame, exact against its plate.

    Args:
        plate: The plate's own samples. [H,W,3] or [H,W,4] half or float, unbounded, scene-linear;
            a pixel with NaN or infinity in it is never covered.
        clean: Clean plate. [H,W,3] float32, unbounded, scene-linear.
        alphas: Front to back, each object's total alpha (object and effects).
            [H,W] or [H,W,1] float32, 0..1.
        noise: The shot's noise floor; without it no difference is grain.
        covered: Where layers may cover. [H,W] bool; everywhere where None.
        colours: Front to back, each layer's premultiplied colour where it is known (solos).
            [H,W,3] float32, scene-linear. Without them layers that share a pixel share its colour.
        residual: ``folded``, or ``layer`` for a residual layer of its own.
        grained: The clean plate as it is to be seen where it does not take this frame's own grain,
            ``clean`` where None. [H,W,3] float32, scene-linear.

    Returns:
        The stack with its figures.

    Source: generative-omnimatte §3.5 eq. 2, "Detail transfer".
    Differs: closes on the plate exactly, in scene-linear, instead of approximately in 0..1.
    """
    height, width = plate.shape[:2]
    kind = plate.dtype
    background = np.ones((height, width, 4), kind)
    background[..., : plate.shape[2]] = plate
    layers = tuple(np.zeros((height, width, 4), kind) for _ in alphas)
    lifted = np.zeros((height, width), bool)
    cleans = (clean, clean if grained is None else grained)
    apart = np.zeros((height, width, 4), kind) if residual == APART else None
    counts = _Counts(hidden=[0] * len(alphas), present=[0] * len(alphas))
    flat = [np.asarray(alpha, np.float32).reshape(height, width) for alpha in alphas]
    for y0, y1 in strips(height, width):
        found = _gather(plate, cleans, flat, colours, covered, noise, y0, y1, residual)
        if found is None:
            continue
        pixels, index = found
        if colours is None:
            _hide(pixels.alphas, counts)
        solve = _solve_apart if apart is not None else _solve_folded
        under, fronts, rest, given = solve(pixels, kind, counts)
        background[y0:y1].reshape(-1, 4)[index, :3] = under.T
        lifted[y0:y1].reshape(-1)[index] = given
        for layer, front in zip(layers, fronts, strict=True):
            layer[y0:y1].reshape(-1, 4)[index] = front.T
        if apart is not None:
            apart[y0:y1].reshape(-1, 4)[index, :3] = rest.T
        counts.covered += index.size
    total = max(counts.covered, 1)
    return Recomposed(
        background,
        layers,
        apart,
        covered_share=counts.covered / (height * width),
        raised_share=counts.raised / total,
        grain_share=counts.grain / total,
        opaque_share=counts.opaque / total,
        hidden_share=tuple(
            h / max(n, 1) for h, n in zip(counts.hidden, counts.present, strict=True)
        ),
        lifted=lifted,
    )


# --- reading a strip -----------------------------------------------------------------------------


def _gather(
    plate: Pixels,
    cleans: tuple[Floats, Floats],
    alphas: Sequence[Floats],
    colours: Sequence[Floats] | None,
    covered: Bools | None,
    noise: NoiseFloor | None,
    y0: int,
    y1: int,
    residual: str,
) -> tuple[_Pixels, NDArray[np.intp]] | None:
    """Return the covered pixels of a strip and where they are in it; None where there are none.

    ``cleans`` are the clean plate that differences are measured against, and the one to be seen.
    """
    clean, shown = cleans
    margin = GRAIN_RADIUS_PX if noise is not None or residual == APART else 0
    top, bottom = max(0, y0 - margin), min(plate.shape[0], y1 + margin)
    rows = slice(top, bottom)
    some = np.stack([a[rows] for a in alphas])
    np.minimum(some, 1, out=some)
    some *= some >= LEAST_ALPHA  # a NaN is no coverage: the comparison is false, fmax takes the 0
    some = np.fmax(some, 0)
    if not some.any():
        return None
    p = plate[rows, :, :3].astype(np.float32)
    on = _finite(p) & _finite(clean[rows])
    on &= _finite(shown[rows]) if shown is not clean else True
    on &= some.max(axis=0) > 0
    if covered is not None:
        on &= covered[rows]
    inner = np.zeros_like(on)
    inner[y0 - top : y1 - top] = on[y0 - top : y1 - top]
    index = np.flatnonzero(inner)
    if index.size == 0:
        return None
    limit = np.float32(float(np.finfo(plate.dtype).max) / (4 if plate.dtype == np.float32 else 1))
    pixels = _Pixels(
        plate=_columns(p, index),
        background=round_to(np.clip(_columns(clean[rows], index), -limit, limit), plate.dtype),
        grained=round_to(np.clip(_columns(shown[rows], index), -limit, limit), plate.dtype),
        alphas=round_to(some.reshape(len(alphas), -1)[:, index], plate.dtype),
        colours=None,
        smooth=np.zeros((3, index.size), np.float32),
        zone=np.zeros(index.size, bool),
        grain=np.zeros(index.size, bool),
    )
    if margin:
        pixels.smooth, pixels.zone = _smooth_difference(p, clean[rows], some, on, index, noise)
    if colours is not None:
        own = [
            _columns(c[rows], index) * (a > 0) for c, a in zip(colours, pixels.alphas, strict=True)
        ]
        pixels.colours = round_to(np.stack(own), plate.dtype)
        pixels.smooth = see_through(
            np.concatenate([pixels.colours, pixels.alphas[:, None]], axis=1)
        )[0]
    if noise is not None:
        pixels.grain = _is_grain(pixels, noise)
    return pixels, index - (y0 - top) * plate.shape[1]


def _columns(rows: Floats, index: NDArray[np.intp]) -> Floats:
    """Return pixels of a strip as columns. [h,W,3] and [n] in, [3,n] float32 out."""
    return np.ascontiguousarray(rows.reshape(-1, 3)[index].T, dtype=np.float32)


def _finite(rows: Floats) -> Bools:
    """Tell which pixels have neither NaN nor infinity. [h,W,3] in, [h,W] bool out."""
    good: Bools = np.isfinite(rows[..., 0])
    return good & np.isfinite(rows[..., 1]) & np.isfinite(rows[..., 2])


def _smooth_difference(
    plate: Floats,
    clean: Floats,
    alphas: Floats,
    on: Bools,
    index: NDArray[np.intp],
    noise: NoiseFloor | None,
) -> tuple[Floats, Bools]:
    """Return what layers add to the clean plate, without grain, and where that is known.

    The mean is taken over half-transparent pixels alone, so that no object bleeds into its own
    shadow; what does not stand out from its standard error is exactly zero.

    Returns:
        Smooth difference [3,n] and the half-transparent zone [n], at ``index``.
    """
    through = _transmission(alphas)
    zone: Bools = on & (through >= HALF_TRANSPARENT)
    picked = zone.ravel()[index]
    smooth = np.zeros((3, index.size), np.float32)
    if not picked.any():
        return smooth, picked
    columns = np.flatnonzero(zone.any(axis=0))
    box = slice(columns[0], columns[-1] + 1)
    held = zone[:, box, None]
    raw = np.where(held, plate[:, box] - through[:, box, None] * clean[:, box], np.float32(0))
    side = 2 * GRAIN_RADIUS_PX + 1
    border = cv2.BORDER_CONSTANT
    weight = cv2.boxFilter(held[..., 0].astype(np.float32), -1, (side, side), borderType=border)
    mean = cv2.boxFilter(raw, -1, (side, side), borderType=border)
    mean /= np.maximum(weight, np.float32(1 / side**2))[..., None]
    rows, cols = np.divmod(index[picked], zone.shape[1])
    cols -= columns[0]
    found = np.ascontiguousarray(mean[rows, cols].T)
    if noise is not None:
        light = plate[rows, cols + columns[0]].T - raw[rows, cols].T + found
        count = np.maximum(weight[rows, cols] * side**2, 1)
        error = noise.sigma_at(light) * (np.float32(BLACK_ERRORS) / np.sqrt(count))
        found = np.copysign(np.maximum(np.abs(found) - error, 0), found)
    smooth[:, picked] = found
    return smooth, picked


def _is_grain(pixels: _Pixels, noise: NoiseFloor) -> Bools:
    """Tell where the difference from the smooth one is no larger than grain. [n] bool."""
    through = _transmission(pixels.alphas)
    expected = through * pixels.background + pixels.smooth
    limit = np.float32(GRAIN_SIGMAS) * noise.sigma_at(expected)
    far: Bools = np.any(np.abs(pixels.plate - expected) > limit, axis=0)
    return pixels.zone & ~far


def _transmission(alphas: Floats) -> Floats:
    """Return what all layers together let through. [N,...] in, [...] out, float32."""
    through: Floats = np.prod(1 - alphas, axis=0, dtype=np.float32)
    return through


def _hide(alphas: Floats, counts: _Counts) -> None:
    """Make layers transparent, in place, where nothing can be seen of them."""
    through = np.ones(alphas.shape[1], np.float32)
    for number, alpha in enumerate(alphas):
        present = alpha > 0
        gone = present & (through <= HIDDEN)
        counts.present[number] += int(present.sum())
        counts.hidden[number] += int(gone.sum())
        alpha[gone] = 0
        through *= 1 - alpha


# --- closing on the plate ------------------------------------------------------------------------


def _solve_folded(
    pixels: _Pixels, kind: np.dtype[Any], counts: _Counts
) -> tuple[Floats, Floats, Floats, Bools]:
    """Return background [3,n] and layers [N,4,n], the residual folded into them.

    The third is empty; the fourth says where the background took this frame's own grain [n].
    """
    under = pixels.grained.copy()
    layers = np.zeros((len(pixels.alphas), 4, under.shape[1]), np.float32)
    rest, lifted = np.ones(under.shape[1], bool), np.zeros(under.shape[1], bool)
    grain = np.flatnonzero(pixels.grain)
    if grain.size:
        part = pixels.only(grain)
        back, fronts, done = _give_to_background(part, kind)
        kept = grain[done]
        under[:, kept], layers[..., kept] = back[:, done], fronts[..., done]
        rest[kept], lifted[kept] = False, True
        counts.grain += kept.size
        counts.raised += int(np.any(fronts[:, 3] > part.alphas, axis=0, where=done).sum())
    for number, alpha in enumerate(pixels.alphas):  # opaque in front: the plate's own pixel
        solid = rest & (alpha == 1)
        solid &= ~(pixels.alphas[:number] > 0).any(axis=0)
        whole = np.flatnonzero(solid)
        if pixels.colours is not None:  # what lies hidden behind is known, and is kept
            part = pixels.only(whole)
            layers[..., whole] = np.concatenate([part.colours, part.alphas[:, None]], axis=1)
        layers[number, :3, whole], layers[number, 3, whole] = pixels.plate[:, whole].T, 1
        rest[whole] = False
    left = np.flatnonzero(rest)
    if left.size:
        part = pixels.only(left)
        layers[..., left] = _give_to_front(replace(part, background=part.grained), kind, counts)
    return under, layers, np.empty((3, 0), np.float32), lifted


def _front(alphas: Floats) -> NDArray[np.intp]:
    """Return the number of each pixel's front-most covering layer. [n]."""
    found: NDArray[np.intp] = np.argmax(alphas > 0, axis=0)
    return found


def _shared_colour(visible: Floats, alphas: Floats) -> Floats:
    """Return the straight colour that all layers of a pixel share. [3,n]."""
    covered = np.maximum(1 - _transmission(alphas), np.float32(LEAST_ALPHA))
    return np.asarray(visible / covered, np.float32)


def _give_to_background(pixels: _Pixels, kind: np.dtype[Any]) -> tuple[Floats, Floats, Bools]:
    """Close on the plate by the background: layers smooth, grain below.

    Returns:
        Background [3,n], layers [N,4,n] and which pixels closed [n].
    """
    plate, alphas = pixels.plate, pixels.alphas.copy()
    lit = _transmission(alphas) * pixels.background
    # Where the picture is darker than the alphas say even after smoothing, alpha is too low.
    low = (pixels.smooth < 0) & (lit > 0)
    ratio = np.where(low, 1 + pixels.smooth / np.where(low, lit, 1), np.float32(1))
    keep = np.clip(ratio.min(axis=0), 0, 1)
    raised = np.flatnonzero(keep < 1)
    if raised.size:
        at = (_front(alphas)[raised], raised)
        alphas[at] = np.minimum(round_up(1 - (1 - alphas[at]) * keep[raised], kind), 1)
    visible = np.maximum(pixels.smooth + lit * (1 - keep), 0)
    layers = _colour_layers(pixels, alphas, _shared_colour(visible, alphas), kind)
    seen, through = see_through(layers)
    lifted = (plate - seen) / np.maximum(through, np.float32(LEAST_ALPHA))
    under = round_to(np.asarray(lifted, np.float32), kind)
    result = over_columns(layers, under)
    negative = ((under < 0) & (plate >= 0)).any(axis=0)
    done = (through >= HALF_TRANSPARENT) & ~negative & ~is_beyond(result, plate, kind)
    return under, layers, done


def _colour_layers(pixels: _Pixels, alphas: Floats, colour: Floats, kind: np.dtype[Any]) -> Floats:
    """Return layers [N,4,n] of known or shared colour, rounded to ``kind``."""
    layers = np.empty((len(alphas), 4, alphas.shape[1]), np.float32)
    for number, alpha in enumerate(alphas):
        # Nothing of a negative colour is no negative zero.
        own = colour * alpha + 0 if pixels.colours is None else pixels.colours[number]
        layers[number, :3], layers[number, 3] = round_to(own, kind), alpha
    return layers


def _give_to_front(pixels: _Pixels, kind: np.dtype[Any], counts: _Counts) -> Floats:
    """Close on the plate by the front-most covering layer. Returns layers [N,4,n]."""
    plate, alphas = pixels.plate, pixels.alphas
    front = _front(alphas)
    every = np.arange(front.size)
    layers, below = _layers_behind(pixels, front, kind)
    alpha, colour, opaque = _close(plate, below, alphas[front, every], kind)
    counts.raised += int((alpha > alphas[front, every]).sum())
    counts.opaque += int(opaque.sum())
    layers[front, :3, every], layers[front, 3, every] = colour.T, alpha
    return layers


def _layers_behind(
    pixels: _Pixels, front: NDArray[np.intp], kind: np.dtype[Any]
) -> tuple[Floats, Floats]:
    """Return all layers but the front-most [N,4,n], and what the front-most one lies over [3,n]."""
    alphas, below = pixels.alphas, pixels.background.copy()
    layers = np.zeros((len(alphas), 4, front.size), np.float32)
    deep = np.flatnonzero((alphas > 0).sum(axis=0) > 1)
    if deep.size == 0:
        return layers, below
    part = pixels.only(deep)
    through = _transmission(part.alphas)
    visible = part.plate - through * part.background
    visible = np.where(through > 0, np.maximum(visible, 0), visible)
    made = _colour_layers(part, part.alphas, _shared_colour(visible, part.alphas), kind)
    made[front[deep], :, np.arange(deep.size)] = 0
    layers[..., deep] = made
    below[:, deep] = over_columns(made, part.background)
    return layers, below


def _close(
    plate: Floats, below: Floats, alpha: Floats, kind: np.dtype[Any]
) -> tuple[Floats, Floats, Bools]:
    """Return alpha and premultiplied colour that put the plate back over ``below``.

    Alpha is the one given, or the least above it that needs no negative colour (a plate sample
    below zero may have one) and closes to 1 ULP; opaque closes always.

    Args:
        plate: [3,n] float32.
        below: [3,n] float32.
        alpha: [n] float32, representable in ``kind``.
        kind: The plate's type.

    Returns:
        Alpha [n], colour [3,n], and where it had to become opaque [n] bool.
    """
    # colour >= 0 where plate >= 0 needs alpha >= 1 - plate / below in each channel
    dark = (plate >= 0) & (below * (1 - alpha) > plate)
    given, alpha = alpha, alpha.copy()
    raise_at = np.flatnonzero(dark.any(axis=0))
    if raise_at.size:
        short = dark[:, raise_at]
        share = plate[:, raise_at] / np.where(short, below[:, raise_at], 1)
        need = 1 - np.where(short, share, np.float32(np.inf)).min(axis=0)
        alpha[raise_at] = np.maximum(alpha[raise_at], _raise(need, plate, below, raise_at, kind))
    colour = round_to(plate - below * (1 - alpha), kind)
    bad = np.flatnonzero(is_beyond(colour + below * (1 - alpha), plate, kind))
    for room in (1.0, 0.5, 0.25, 0.0):
        if bad.size == 0:
            break
        p, s = plate[:, bad], below[:, bad]
        shown = np.abs(s * (1 - alpha[bad]))
        ratio = np.float32(room) * np.abs(p) / np.where(shown > 0, shown, 1)
        keep = np.where(shown > 0, np.minimum(ratio, 1), 1).min(axis=0)
        tried = np.minimum(round_up(1 - (1 - alpha[bad]) * keep, kind), 1) if room else 1.0
        alpha[bad] = np.maximum(alpha[bad], tried)
        colour[:, bad] = round_to(p - s * (1 - alpha[bad]), kind)
        bad = bad[is_beyond(colour[:, bad] + s * (1 - alpha[bad]), p, kind)]
    colour = np.where(alpha == 1, plate, colour)  # a zero's sign too
    return alpha, colour, (alpha == 1) & (given < 1)


def _raise(
    need: Floats,
    plate: Floats,
    below: Floats,
    index: NDArray[np.intp],
    kind: np.dtype[Any],
) -> Floats:
    """Round a needed alpha up until no colour is negative. [n] float32, <= 1."""
    alpha = np.minimum(round_up(np.clip(need, 0, 1), kind), 1)
    short = np.arange(alpha.size)
    for _ in range(4):  # float32 rounding of the quotient can leave it a step or two short
        p, s = plate[:, index[short]], below[:, index[short]]
        still = ((p >= 0) & (s * (1 - alpha[short]) > p)).any(axis=0)
        short = short[still]
        if short.size == 0:
            return alpha
        up = np.nextafter(alpha[short].astype(kind), kind.type(np.inf)).astype(np.float32)
        alpha[short] = np.minimum(up, 1)
    alpha[short] = 1
    return alpha


def _solve_apart(
    pixels: _Pixels, kind: np.dtype[Any], counts: _Counts
) -> tuple[Floats, Floats, Floats, Bools]:
    """Return background [3,n], layers [N,4,n] and the residual [3,n] on top of them.

    The fourth says where the background took this frame's own grain: nowhere, the residual has it.

    It holds the grain that the background would have taken, and what the front-most layer would
    have had to raise its alpha for; with known colours, whatever these leave open. It may take
    away no more than the plate has left: where a layer's alpha is so low that it would have to,
    that layer is closed as if there were no residual.
    """
    plate, under = pixels.plate, np.where(pixels.grain, pixels.background, pixels.grained)
    through = _transmission(pixels.alphas)
    raw = plate - through * under
    visible = np.where(pixels.grain, pixels.smooth, raw)
    visible = np.where(through > 0, np.maximum(visible, 0), visible)
    layers = _colour_layers(pixels, pixels.alphas, _shared_colour(visible, pixels.alphas), kind)
    front, every = _front(pixels.alphas), np.arange(plate.shape[1])
    modelled = layers[front, :3, every].T
    layers[front, :, every] = 0
    below = over_columns(layers, under)
    alpha = pixels.alphas[front, every]
    known = pixels.grain if pixels.colours is None else pixels.grain | (alpha < 1)
    own = np.where(known, modelled, np.maximum(plate - below * (1 - alpha), 0))
    own = np.where(alpha == 1, plate, own)
    own = round_to(own, kind)
    stacked = own + below * (1 - alpha)
    residual = round_to(plate - stacked, kind)
    residual[:, ~is_beyond(stacked, plate, kind) & ~known] = 0
    large = (np.abs(residual) > np.abs(plate)).any(axis=0)
    bad = np.flatnonzero(large | is_beyond(residual + stacked, plate, kind))
    if bad.size:
        closed = _close(plate[:, bad], below[:, bad], alpha[bad], kind)
        counts.raised += int((closed[0] > alpha[bad]).sum())
        counts.opaque += int(closed[2].sum())
        alpha[bad], own[:, bad], residual[:, bad] = closed[0], closed[1], 0
    layers[front, :3, every], layers[front, 3, every] = own.T, alpha
    return under, layers, residual, np.zeros(plate.shape[1], bool)
