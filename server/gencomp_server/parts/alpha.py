# SPDX-License-Identifier: Apache-2.0
"""The omnimatte alpha: how much of the clean plate everything in front of it hides, per pixel.

Paper: generative-omnimatte §3.5. Differs from it: no network is trained; alpha comes from closed
forms and one sparse least squares per frame. Plate, clean plate and mattes give it:

1. bounds: no colour below zero, none brighter than white, a highlight that still shows;
2. transmission read off the clean plate's texture, apart inside and outside the mattes;
3. a shadow test; 4. the core's colour carried out to the soft edge of the matte;
5. the joint solve (``stencil.py``), then 2 again with the layer's own gradients taken out, then 5.

Frames are solved one at a time: bounded memory, equal bits in any order. A temporal average along
optical flow was tried and made both error and flicker worse.

Pictures are scene-linear float32 [H,W,3], planes [H,W,1] unless said; radii are in pixels of the
size that is solved (made for 384 lines). The caller has replaced NaN and infinity.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gencomp_server.parts.calibration import (
    EXACT,
    Calibration,
    calibrate,
    condition_frame,
    soften,
)
from gencomp_server.parts.changes import find_changes, seen_change
from gencomp_server.parts.stencil import Problem, layer_colour, solve_jointly
from gencomp_server.parts.transmission import (
    Shade,
    alpha_from_colour,
    bright_alpha,
    carry_colour,
    display_weight,
    find_shadow,
    grow,
    least_alpha,
    most_alpha,
    pairs_of,
    pairs_without_layer,
    read_texture,
    smoothstep,
)

__all__ = [
    "EXACT",
    "ROUGH",
    "STANDARD",
    "Calibration",
    "Settings",
    "Solved",
    "calibrate",
    "condition_frame",
    "seen_change",
    "solve_frame",
]

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

_BODY = 0.5  # alpha from which on something that is no shadow is taken for the object
_TRUST_EFFECT, _TRUST_SHADOW, _TRUST_CORE, _TRUST_EDGE = 0.007, 0.05, 0.01, 0.001


@dataclass(frozen=True)
class Settings:
    """How a matte is read and how hard the solver works.

    Attributes:
        edge: Pixels inside the matte's border that may be soft.
        sure: Pixels inside the border from which on the matte may be opaque without a look.
        reach: Pixels by which the matte may be off: it is mended that far before the solve.
        steps: Conjugate-gradient steps.
    """

    edge: float = 5.0
    sure: float = 4.0
    reach: int = 3
    steps: int = 20


STANDARD = Settings()
ROUGH = Settings(reach=7)


@dataclass(frozen=True)
class Solved:
    """What one frame's solve gives.

    Attributes:
        alpha: Alpha of everything in front together, 0 to 1; 0 where nothing changed. [H,W,1].
        object_alpha: The part of it that belongs to what the mattes show. [H,W,1].
        colour: Premultiplied colour of everything in front, never negative. [H,W,3].
        changed: Where alpha is not 0. [H,W,1] bool.
    """

    alpha: Array
    object_alpha: Array
    colour: Array
    changed: Mask


def solve_frame(
    plate: Array,
    clean: Array,
    matte_any: Array,
    calibration: Calibration = EXACT,
    settings: Settings = STANDARD,
    restless: Array | None = None,
    *,
    occluded: Array | None = None,
) -> Solved:
    """Return the alpha of everything that stands before the clean plate in one frame.

    Args:
        plate: The picture. [H,W,3].
        clean: The clean plate, already conditioned. [H,W,3].
        matte_any: The union of all mattes, 0 to 1. [H,W,1].
        calibration: How well the clean plate fits.
        settings: How the matte is read.
        restless: What :func:`seen_change` is at each pixel on frames on which no matte is near
            (the median over time): waves, leaves, traffic. [H,W,1]. Changes below twice
            that are the scene's own. Without it the frame's own surroundings must tell.
        occluded: Where another object stands in the shot, though not in this picture (a solo):
            the matte is silent there, and what it would show is read off the picture. [H,W,1].
    """
    plate, clean = plate.astype(np.float32), clean.astype(np.float32)
    matte = matte_any[..., 0] > 0.5
    moving = None if restless is None else restless[..., 0]
    silent = np.zeros_like(matte) if occluded is None else occluded[..., 0] > 0.5
    changed = find_changes(plate, clean, matte, calibration, moving)
    frame = _Box.around((changed > 0) | matte)
    alpha = np.zeros(matte.shape, np.float32)
    owned, colour = alpha.copy(), np.zeros_like(plate)
    if frame is not None:
        cut = frame.cut
        solver = _Frame(plate[cut], clean[cut], changed[cut], calibration, settings)
        alpha[cut], owned[cut], colour[cut] = solver.solve(matte[cut], silent[cut])
    return Solved(alpha[..., None], owned[..., None], colour, alpha[..., None] > 0.0)


@dataclass(frozen=True)
class _Box:
    """The part of a picture that is worth solving, with a margin."""

    cut: tuple[slice, slice]

    @staticmethod
    def around(wanted: Mask, margin: int = 12) -> _Box | None:
        rows, columns = np.nonzero(wanted.any(axis=1))[0], np.nonzero(wanted.any(axis=0))[0]
        if not rows.size:
            return None
        y0, y1 = max(0, int(rows[0]) - margin), int(rows[-1]) + 1 + margin
        x0, x1 = max(0, int(columns[0]) - margin), int(columns[-1]) + 1 + margin
        return _Box((slice(y0, y1), slice(x0, x1)))


def _after_blur(sigma: float, radius: float) -> tuple[float, float]:
    """Return what a Gaussian leaves of white noise: sigma of values and of neighbours' steps."""
    if radius <= 0.0:
        return sigma, sigma * 2.0**0.5
    value = sigma / (2.0 * np.sqrt(np.pi) * radius)
    step = value * np.sqrt(2.0 * (1.0 - np.exp(-1.0 / (4.0 * radius * radius))))
    return float(value), float(step)


def _offset(matte: Mask, alpha: Array, reach: int) -> Mask:
    """Return the matte grown or shrunk all round by what fits a first alpha best.

    A roto is off by much the same everywhere, so that clear stretches of its outline speak for
    those where object and background look alike.
    """
    inside = cv2.distanceTransform(matte.astype(np.uint8), cv2.DIST_L2, 5)
    outside = cv2.distanceTransform((~matte).astype(np.uint8), cv2.DIST_L2, 5)
    signed = inside - outside
    band = np.abs(signed) <= reach + 2
    target = (alpha[band] > 0.5).astype(np.float32)
    steps = range(-reach, reach + 1)
    misses = [float(np.abs(target - (signed[band] > -step)).sum()) for step in steps]
    return np.asarray(signed > -steps[int(np.argmin(misses))])


# --- one frame -----------------------------------------------------------------------------------


class _Frame:
    """One frame's solve: what is known of it before a matte is looked at."""

    def __init__(
        self,
        plate: Array,
        clean: Array,
        kept: Array,
        calibration: Calibration,
        settings: Settings,
    ) -> None:
        self.settings, self.calibration = settings, calibration
        self.sharp_plate, self.sharp_clean = plate, clean
        self.sigma = 0.0 if calibration.exact else calibration.sigma
        common = 0.0 if self.sigma < 0.002 else 0.7 if self.sigma < 0.008 else 1.2
        self.plate = soften(soften(plate, calibration.soften_plate), common)
        self.clean = soften(soften(clean, calibration.soften_clean), common)
        self.left, self.ripple = _after_blur(self.sigma, common)
        self.kept, self.changed = kept, kept > 0
        self.difference = self.plate - self.clean
        self.weight = display_weight(self.plate, self.clean)
        noise = 2.5 * self.left / np.sqrt(self.weight)
        self.lowest = np.where(self.changed, least_alpha(self.plate, self.clean, noise), 0.0)
        bright = bright_alpha(self.plate, self.clean)
        self.least = np.maximum(self.lowest, bright) * self.changed
        self.pairs = pairs_of(self.plate, self.clean, self.weight)
        tolerance = max(0.002, 2.0 * self.left)
        self.shade: Shade = find_shadow(self.plate, self.clean, self.weight, tolerance)

    def solve(self, matte: Mask, silent: Mask) -> tuple[Array, Array, Array]:
        """Return alpha [H,W], the object's part of it [H,W] and the colour [H,W,3]."""
        if (silent & self.changed).any():
            matte = self._complete(matte, silent)
        if self.settings.reach > 0 and matte.any():
            matte = self._mend(matte)
        alpha = self._solve(matte, self.settings) * self.kept
        return alpha, self._owned(alpha, matte), self._colour(alpha)

    def _complete(self, matte: Mask, silent: Mask) -> Mask:
        """Return the matte with what a first solve shows of the object where it is silent.

        What is half there and darkens as no shadow does is the object; a matte that was drawn on
        through whatever stands before it needs less to be believed.
        """
        alpha = self._solve(matte & ~silent, self.settings)
        solid = (alpha > _BODY) & (self.shade.certain < 0.5) | (matte & (alpha > 0.35))
        found = cv2.medianBlur((solid & silent).astype(np.uint8), 3) > 0
        return np.asarray((matte & ~silent) | (found & silent))

    def _mend(self, matte: Mask) -> Mask:
        """Return the matte that a first solve around it, which trusts it little, makes likely."""
        reach = self.settings.reach
        frame = _Box.around(matte, margin=reach + 12)
        assert frame is not None, "an empty matte is not mended"
        part, near_by = matte[frame.cut], self._part(frame.cut)
        wide = replace(self.settings, edge=reach + 2.0, sure=reach + 1.0)
        alpha = near_by._solve(part & near_by.changed, wide)
        even = _offset(part, alpha, reach)
        near = grow(part, reach) & (alpha > 0.62) & (near_by.shade.certain < 0.5)
        better = ((even & (alpha > 0.1)) | (part & (alpha > 0.35)) | near).astype(np.uint8)
        mended = matte.copy()
        mended[frame.cut] = cv2.medianBlur(better, 3) > 0
        return mended

    def _part(self, cut: tuple[slice, slice]) -> _Frame:
        """Return a part of this frame."""
        return _Frame(
            self.sharp_plate[cut],
            self.sharp_clean[cut],
            self.kept[cut],
            self.calibration,
            self.settings,
        )

    def _solve(self, matte: Mask, settings: Settings) -> Array:
        view = _View.of(self, matte, settings)
        problem = Problem(
            self.difference,
            self.clean,
            self.weight,
            view.prior,
            view.trust,
            self.lowest,
            view.highest,
            self.changed & ~view.opaque,
            max(0.01, 2.0 * self.left),
        )
        alpha = np.where(view.opaque, 1.0, view.prior * self.changed).astype(np.float32)
        alpha = solve_jointly(problem, alpha, 2, settings.steps)
        second = self._look_again(matte, alpha, view)
        return solve_jointly(replace(problem, prior=second), alpha, 3, settings.steps)

    def _look_again(self, matte: Mask, alpha: Array, view: _View) -> Array:
        """Return the expected alpha of effects anew, the layer's own gradients taken out."""
        colour = layer_colour(alpha, self.difference, self.clean)
        pairs = pairs_without_layer(self.plate, self.clean, self.weight, alpha, colour)
        effect = self.effect_alpha(pairs, matte, alpha, 1.5)
        bounded = np.clip(effect, self.lowest, view.highest)
        return np.where(matte, view.prior, bounded).astype(np.float32)

    def effect_alpha(self, pairs: Any, matte: Mask, start: Array, radius: float) -> Array:
        """Return the alpha that texture and shadow test see outside the matte. [H,W]."""
        tolerance = max(0.01, 2.0 * self.left)
        reading = read_texture(pairs, self.changed & ~matte, radius, tolerance, self.ripple)
        trust = 0.05**2 / (0.05**2 + (2.0 * reading.doubt) ** 2)
        alpha = start + trust * (np.maximum(1.0 - reading.through, self.lowest) - start)
        return np.asarray(alpha + self.shade.certain * (self.shade.alpha - alpha))

    def object_reading(self, matte: Mask) -> tuple[Array, Array]:
        """Return how much a matte's inside lets through, and how sure that is. [H,W] each."""
        tolerance = max(0.003, 2.0 * self.left)
        apart = (self.weight * self.difference * self.difference).sum(axis=2)
        bare = apart < max(0.012, 3.0 * self.left) ** 2  # a too large matte's rim is no texture
        reading = read_texture(self.pairs, matte & ~bare, 3.0, tolerance, self.ripple)
        gate = smoothstep(0.1, 0.25, reading.through - 2.0 * reading.doubt)
        hot = np.maximum(self.plate, self.clean).max(axis=2) > 1.0
        gate = soften(np.where(grow(hot, 3), 0.0, gate).astype(np.float32), 1.0)
        return np.clip(reading.through, 0.0, 1.0), gate

    def _owned(self, alpha: Array, matte: Mask) -> Array:
        """Return the share of alpha that belongs to the object, soft over its border."""
        away = cv2.distanceTransform((~matte).astype(np.uint8), cv2.DIST_L2, 5)
        share = (1.0 - smoothstep(2.0, 7.0, away)) * (1.0 - self.shade.certain * (away > 0))
        return np.asarray(alpha * share, dtype=np.float32)

    def _colour(self, alpha: Array) -> Array:
        """Return the premultiplied colour; noise in thin layers gives way to the shared colour."""
        seen = alpha[..., None]
        plain = self.sharp_plate - (1.0 - seen) * self.sharp_clean
        if self.sigma > 0.0:
            shared = seen * layer_colour(alpha, self.difference, self.clean)
            noise = ((1.0 - seen) * self.sigma) ** 2 / self.weight * self.weight.mean()
            trust = (0.15 * seen) ** 2
            plain = shared + trust / (trust + noise + 1e-12) * (plain - shared)
        return np.asarray(np.maximum(plain, 0.0) * (seen > 0.0), dtype=np.float32)


@dataclass(frozen=True)
class _View:
    """What a matte makes of a frame.

    Attributes:
        prior: Expected alpha. [H,W].
        trust: Weight of it. [H,W].
        opaque: Pixels that are 1 without solving. [H,W].
        highest: Greatest alpha allowed. [H,W].
    """

    prior: Array
    trust: Array
    opaque: Mask
    highest: Array

    @staticmethod
    def of(frame: _Frame, matte: Mask, settings: Settings) -> _View:
        """Read a frame with a matte."""
        through, gate = frame.object_reading(matte)
        deep = cv2.distanceTransform(matte.astype(np.uint8), cv2.DIST_L2, 5)
        solid = gate < np.where(deep > settings.edge, 0.25, 0.02)  # deep inside, more proof
        glints = grow(frame.plate.max(axis=2) > 1.0, 3)  # no colour for the cloth around them
        colour, known = carry_colour(frame.plate, solid & ~glints & (deep >= settings.edge))
        brightest = known[..., None] * (np.minimum(1.0, 1.5 * colour + 0.1) - 1.0) + 1.0
        highest = most_alpha(frame.plate, frame.clean, brightest)
        highest = np.maximum(highest, frame.lowest)
        mixed, certainty = alpha_from_colour(
            frame.difference, frame.clean, frame.weight, colour, known
        )
        inside = 1.0 - gate * through
        edge = (certainty * mixed + 8.0 * inside) / (certainty + 8.0)
        rim = np.minimum(1.0, 2.0 * np.clip(1.0 - deep / settings.edge, 0.0, 1.0))
        inside = inside + rim * (edge - inside)
        outside = frame.effect_alpha(frame.pairs, matte, frame.least, 2.0)
        prior = np.clip(np.where(matte, inside, outside), frame.lowest, highest)
        sure = (deep > settings.sure) | ((deep > settings.sure / 2) & (mixed > 0.9) & (known > 0.3))
        opaque = solid & sure & (highest > 0.999) & matte
        return _View(
            prior.astype(np.float32), _trust(frame.shade, matte, deep, settings), opaque, highest
        )


def _trust(shade: Shade, matte: Mask, deep: Array, settings: Settings) -> Array:
    depth = np.clip(deep / settings.edge, 0.0, 1.0) ** 2
    inside = _TRUST_EDGE + (_TRUST_CORE - _TRUST_EDGE) * depth
    outside = _TRUST_EFFECT + shade.certain * (_TRUST_SHADOW - _TRUST_EFFECT)
    return np.where(matte, inside, outside).astype(np.float32)
