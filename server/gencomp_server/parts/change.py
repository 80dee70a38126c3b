# SPDX-License-Identifier: Apache-2.0
"""What a model changed, carried onto the plate's own samples; where it changed nothing, nothing.

A decoded sample is not a picture to deliver: it went through a VAE at a fraction of the plate's
size. What is wanted is how it differs from the same plate sent through the same VAE unchanged (the
``reference``): the VAE's error stands in both and cancels. The difference becomes

* a ``gain`` of at most 1 per channel, for what got darker, and
* ``light`` to add, scene-linear, for what got brighter,

both weighed by ``confidence`` when they are brought to plate size, because where the plate is very
bright a small error of the code is a large error of the light. ``result = gain * plate + light``;
what lies below the shot's noise floor has weight zero, and there the plate is copied.

Frames are [h,w,C] float32 at model size, [H,W,C] at plate size. ``reference`` and ``sample`` are in
model range [-1,1], a little outside allowed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from gencomp_server.parts.encoding import decode, encode, slope
from gencomp_server.parts.fit import from_model_frame, to_model_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Bools = NDArray[np.bool_]
    Indices = NDArray[np.intp]

LEAST_SIGMA = 2e-4
"""The noise floor is never below this, in code 0..1: a noiseless shot has rounding left."""
MOST_SIGMA = 1e-2
"""And never above this: a picture that is further off is not noisy, the model changed it where it
was not asked to, and that is not held against what it made where it was."""
WEAK, STRONG = 2.0, 5.0
"""Sigma of the averaged difference: below WEAK it is noise, above STRONG it is a change."""
LEAST_WEIGHT = 1 / 1024
"""A weight up to this is zero: the plate is copied."""
QUIET_SIGMA = 1e-3
"""Below this the plain interpolation loses least; above, only an edge filter does."""
FLOOR_FRAMES = 12
"""Frames, about and evenly spread, that are enough to measure a shot's noise floor."""

_BOX_PX = 5
_MAD_TO_SIGMA, _QUARTILE_TO_SIGMA = 1.4826, 1 / 0.31864
_SAMPLES_PER_FRAME = 20_000
_LEAST_SAMPLES = 1_000
_BLACK = 3e-3  # keeps the gain of a black pixel finite, in light
_LEAST_CONFIDENCE = 1e-6
# Joint bilateral: spatial sigma in model pixels, range sigma in code, and the share of plain
# distance that keeps a pixel unlike all its neighbours from having no weight at all.
_REACH, _RANGE, _PLAIN = 1.2, 0.06, 1e-3
_LEAST_SLOPE = 0.1
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Floor:
    """The shot's noise floor at model size.

    Attributes:
        sigma: Of the difference averaged over 5x5 pixels, per channel, in code 0..1. [3] float32.
        outside: True where it was measured outside every mask; False where there was no outside,
            and it was taken from the quietest quarter of the whole picture.
    """

    sigma: NDArray[np.float32]
    outside: bool

    @property
    def is_quiet(self) -> bool:
        """Tell whether there is so little noise that no edge filter is needed."""
        return float(self.sigma.mean()) <= QUIET_SIGMA

    @property
    def is_beyond_noise(self) -> bool:
        """Tell whether the model changed the picture where it was not asked to."""
        return self.outside and float(self.sigma.mean()) > MOST_SIGMA


@dataclass(frozen=True)
class Change:
    """What changed in one frame, at model size.

    Attributes:
        gain: What the plate is multiplied by. [h,w,3] float32, 0..1.
        light: What is added then, scene-linear, at exposure 0. [h,w,3] float32, unbounded.
        confidence: How far gain and light can be believed. [h,w,3] float32, > 0.
        weight: 0 where there is no change, 1 where there is; gain and light hold it already.
            [h,w,1] float32, 0..1.
        code: The change of the code, weighed. [h,w,3] float32.
        guide: Code of the plate as the model saw it. [h,w,3] float32, 0..1.
    """

    gain: Floats
    light: Floats
    confidence: Floats
    weight: Floats
    code: Floats
    guide: Floats


# --- model size ----------------------------------------------------------------------------------


def to_code(video: NDArray[np.floating]) -> Floats:
    """Return model range as code 0..1, clipped: what lies outside was never seen by the model."""
    code = np.asarray(video, np.float32) * np.float32(0.5) + np.float32(0.5)
    return np.asarray(np.clip(code, 0, 1), np.float32)


def measure_floor(
    frames: Iterable[tuple[NDArray[np.floating], NDArray[np.floating], Bools]],
) -> Floor:
    """Measure how far a sample is from its reference where nothing was asked for.

    The spread is taken about zero: a tone shift of the whole picture is the model's error too, and
    counts as noise.

    Args:
        frames: Reference and sample [h,w,3] in model range, and where a change was asked for or
            is possible [h,w] bool, of every frame of the shot.
    """
    outside: list[Floats] = []
    anywhere: list[Floats] = []
    for reference, sample, asked in frames:
        mean = np.abs(_average(to_code(sample) - to_code(reference))).reshape(-1, 3)
        near = cv2.dilate(asked.astype(np.uint8), np.ones((_BOX_PX, _BOX_PX), np.uint8)).ravel()
        outside.append(_thinned(mean[near == 0]))
        anywhere.append(_thinned(mean))
    free = np.concatenate(outside) if outside else np.empty((0, 3), np.float32)
    if len(free) >= _LEAST_SAMPLES:
        return Floor(np.asarray(_MAD_TO_SIGMA * np.median(free, axis=0), np.float32), True)
    # Nothing is outside: up to three quarters of the picture may have changed.
    quiet = np.quantile(np.concatenate(anywhere), 0.25, axis=0)
    return Floor(np.asarray(_QUARTILE_TO_SIGMA * quiet, np.float32), False)


def _average(difference: Floats) -> Floats:
    return np.asarray(cv2.blur(difference, (_BOX_PX, _BOX_PX)), np.float32)


def _thinned(samples: Floats) -> Floats:
    # A view would keep the whole frame for as long as the shot's samples are kept.
    return samples[:: max(1, len(samples) // _SAMPLES_PER_FRAME)].copy()


def find_change(
    reference: NDArray[np.floating],
    sample: NDArray[np.floating],
    floor: Floor,
    allowed: Bools,
) -> Change | None:
    """Return what changed in a frame above the noise floor; None where nothing did.

    Args:
        reference: The plate through the VAE. [h,w,3], model range.
        sample: What the model made. [h,w,3], model range.
        floor: The shot's.
        allowed: Where a change may be at all. [h,w] bool.
    """
    before, after = to_code(reference), to_code(sample)
    weight = _gate(after - before, floor, allowed)
    if not weight.any():
        return None
    lit, wanted = decode(before), decode(after)
    gain = np.minimum(1, (wanted + np.float32(_BLACK)) / (lit + np.float32(_BLACK)))
    light = np.asarray((wanted - gain * lit) * weight, np.float32)
    gain = np.asarray(1 - weight * (1 - gain), np.float32)
    confidence = np.maximum(slope(lit) * slope(wanted), np.float32(_LEAST_CONFIDENCE))
    return Change(gain, light, confidence, weight, (after - before) * weight, before)


def _gate(difference: Floats, floor: Floor, allowed: Bools) -> Floats:
    """Return where a difference is a change, with a soft edge outwards. [h,w,1] float32."""
    sigma = np.clip(floor.sigma, np.float32(LEAST_SIGMA), np.float32(MOST_SIGMA))
    z = _average(difference) / sigma
    z2 = (z * z).mean(axis=2)
    weak = (z2 > WEAK**2) & allowed
    count, labels = cv2.connectedComponents(weak.astype(np.uint8), connectivity=8)
    kept = np.zeros(count, bool)
    kept[labels[weak & (z2 > STRONG**2)]] = True
    kept[0] = False
    kernel = np.ones((3, 3), np.uint8)
    region = cv2.dilate(kept[labels].astype(np.uint8), kernel).astype(np.float32)
    return np.asarray(cv2.blur(region, (3, 3))[..., None], np.float32)


# --- plate size ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Changed:
    """A plate with its change in it, for the pixels that changed.

    Attributes:
        index: Flat indices of these pixels, rising. [n].
        colours: What they become, scene-linear. [n,3] float32, unbounded.
        weights: How much of the change was let in. [n] float32, 0..1.
    """

    index: Indices
    colours: Floats
    weights: Floats


def apply_change(
    plate: Floats,
    change: Change,
    bound: Floats,
    floor: Floor,
    *,
    exposure: float = 0.0,
) -> Changed:
    """Carry a change onto a plate, inside a bound.

    Each plate pixel weighs the model pixels around it by confidence; where the shot is noisy also
    by how much their colour is like its own (a joint bilateral filter), so that a change stops at
    the plate's own edges. In a quiet shot the plain interpolation is closer, and what it blurs is
    brought back by one back-projection. A result is never negative where the plate is not, and
    never below the plate where it is.

    Args:
        plate: [H,W,3] float32, scene-linear, unbounded, finite.
        change: At model size.
        bound: How much of it may come in. [H,W,1] float32, 0..1.
        floor: The shot's.
        exposure: Stops the model's plate was exposed by.

    Returns:
        The pixels that change; all others are the plate's own.
    """
    height, width = plate.shape[:2]
    weight = from_model_frame(change.weight[..., 0], (width, height))
    share = weight * bound[..., 0]
    index = np.flatnonzero(share > LEAST_WEIGHT)
    if index.size == 0:
        return Changed(index, np.empty((0, 3), np.float32), np.empty(0, np.float32))
    let_in = bound.reshape(-1)[index][:, None]
    gain, light = _brought_up(plate, change, index, floor, exposure)
    before = plate.reshape(-1, 3)[index]
    gain, light = 1 - let_in * (1 - gain), let_in * light * np.float32(2.0**-exposure)
    colours = gain * before + light
    if floor.is_quiet:
        colours += let_in * _lost(plate, change, index, colours, exposure)
    colours = np.maximum(colours, np.minimum(before, 0))
    return Changed(index, np.asarray(colours, np.float32), share.reshape(-1)[index])


def _brought_up(
    plate: Floats, change: Change, index: Indices, floor: Floor, exposure: float
) -> tuple[Floats, Floats]:
    """Return gain and light of some plate pixels. Each [n,3] float32."""
    low = np.concatenate(
        [change.gain * change.confidence, change.light * change.confidence, change.confidence], 2
    )
    found = np.empty((index.size, 9), np.float32)
    flat = plate.reshape(-1, 3)
    for start in range(0, index.size, _CHUNK):
        part = index[start : start + _CHUNK]
        where = _model_places(part, plate.shape[:2], low.shape[:2])
        if floor.is_quiet:
            found[start : start + _CHUNK] = _bilinear(low, where)
        else:
            code = np.clip(encode(flat[part], exposure=exposure), 0, 1)
            found[start : start + _CHUNK] = _bilateral(low, change.guide, where, code)
    confidence = np.maximum(found[:, 6:], np.float32(1e-20))
    found[:, :3] /= confidence
    found[:, 3:6] /= confidence
    return found[:, :3], found[:, 3:6]


def _model_places(
    index: Indices, plate: tuple[int, int], model: tuple[int, int]
) -> tuple[Floats, Floats]:
    """Return where plate pixels lie in the model's picture: rows and columns, pixel centres."""
    ys, xs = np.divmod(index, plate[1])
    rows = (ys + 0.5) * (model[0] / plate[0]) - 0.5
    columns = (xs + 0.5) * (model[1] / plate[1]) - 0.5
    return rows.astype(np.float32), columns.astype(np.float32)


def _bilinear(low: Floats, where: tuple[Floats, Floats]) -> Floats:
    """Interpolate linearly, the border repeated. [h,w,C] at n places gives [n,C]."""
    (height, width), (rows, columns) = low.shape[:2], where
    top, left = np.floor(rows).astype(np.intp), np.floor(columns).astype(np.intp)
    down, right = (rows - top)[:, None], (columns - left)[:, None]
    y0, y1 = np.clip(top, 0, height - 1), np.clip(top + 1, 0, height - 1)
    x0, x1 = np.clip(left, 0, width - 1), np.clip(left + 1, 0, width - 1)
    above = low[y0, x0] * (1 - right) + low[y0, x1] * right
    below = low[y1, x0] * (1 - right) + low[y1, x1] * right
    return np.asarray(above * (1 - down) + below * down, np.float32)


def _bilateral(low: Floats, guide: Floats, where: tuple[Floats, Floats], colours: Floats) -> Floats:
    """Weigh 5 by 5 model pixels by distance and likeness. Returns [n,C]; sums, not means."""
    (height, width), (rows, columns) = low.shape[:2], where
    top, left = np.rint(rows).astype(np.intp), np.rint(columns).astype(np.intp)
    total = np.zeros((rows.size, low.shape[2]), np.float32)
    flat, seen = low.reshape(-1, low.shape[2]), guide.reshape(-1, 3)
    for dy in range(-2, 3):
        y = np.clip(top + dy, 0, height - 1) * width
        far_y = (top + dy - rows) ** 2
        for dx in range(-2, 3):
            at = y + np.clip(left + dx, 0, width - 1)
            far = (far_y + (left + dx - columns) ** 2) / np.float32(2 * _REACH**2)
            unlike = ((colours - seen[at]) ** 2).sum(axis=1) / np.float32(2 * _RANGE**2)
            weight = np.exp(-far) * (np.exp(-unlike) + np.float32(_PLAIN))
            total += weight[:, None].astype(np.float32) * flat[at]
    return total


def _lost(
    plate: Floats, change: Change, index: Indices, colours: Floats, exposure: float
) -> Floats:
    """Return the light that interpolation lost of the change at some pixels. [n,3] float32."""
    height, width = plate.shape[:2]
    size = (change.code.shape[1], change.code.shape[0])
    before = np.clip(encode(plate, exposure=exposure), 0, 1)
    after = before.reshape(-1, 3).copy()
    after[index] = np.clip(encode(colours, exposure=exposure), 0, 1)
    shown = to_model_frame(after.reshape(height, width, 3) - before, size)
    rest = _bilinear(change.code - shown, _model_places(index, (height, width), size[::-1]))
    light = np.float32(2.0**exposure)
    steep = np.maximum(slope(colours * light), np.float32(_LEAST_SLOPE))
    return np.asarray(rest / steep / light, np.float32)
