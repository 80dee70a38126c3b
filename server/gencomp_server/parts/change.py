# SPDX-License-Identifier: Apache-2.0
"""What a model changed, carried onto the plate's own samples; where it changed nothing, nothing.

A decoded sample is not a picture to deliver: it went through a VAE at a fraction of the plate's
size. What is wanted is how it differs from the same plate sent through the same VAE unchanged (the
``reference``). In four steps:

* ``gate.py``: where it differs by more than noise; elsewhere the plate is copied;
* ``roundtrip.py``: what the VAE does to every picture is learnt from plate and reference and taken
  off the sample;
* ``shade.py``: the rest, laid on a plate without detail, is made as smooth as its noise asks for;
* ``upsample.py``: that is brought to plate size along the plate's own edges.

There ``result = gain * plate + light``: what got darker is a gain of at most 1 per channel, which
keeps the plate's detail and grain, and what got brighter is light to add.

Frames are [h,w,C] float32 at model size, [H,W,C] at plate size. ``reference`` and ``sample`` are in
model range [-1,1], a little outside allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from gencomp_server.colour.modelrange import encode
from gencomp_server.parts.fit import from_model_frame, to_model_frame
from gencomp_server.parts.gate import (
    FLOOR_FRAMES,
    LEAST_SIGMA,
    MOST_SIGMA,
    Floor,
    gate,
    gates,
    measure_floor,
    to_code,
)
from gencomp_server.parts.roundtrip import RoundTrip, learn
from gencomp_server.parts.shade import Shade, gain_and_light, shade
from gencomp_server.parts.smoothing import REACH_PX
from gencomp_server.parts.upsample import REACH, TAPS_PX, bilinear, joint_bilateral

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.colour.modelrange import ModelRange

    Floats = NDArray[np.float32]
    Bools = NDArray[np.bool_]
    Indices = NDArray[np.intp]

__all__ = [
    "FLOOR_FRAMES",
    "LEAST_SIGMA",
    "LEAST_WEIGHT",
    "MOST_SIGMA",
    "Change",
    "Changed",
    "Floor",
    "apply_change",
    "find_change",
    "gates",
    "measure_floor",
    "to_code",
]

LEAST_WEIGHT = 1 / 1024
"""A weight up to this is zero: the plate is copied."""
_CHUNK = 1 << 14
_NOISE_IN_LEVEL = 0.25  # of how far a step may differ and be even: what of it is hardly noise
_ROOM_PX = REACH_PX + 24  # around a change: what smoothing and the ground's blur look at


@dataclass(frozen=True)
class Change:
    """What changed in one frame, at model size.

    Attributes:
        before: The plate through the VAE. [h,w,3] float32, code 0..1.
        after: What the model made of it. [h,w,3] float32, code 0..1.
        weight: 0 where there is no change, 1 where there is. [h,w,1] float32.
        sigma: Of the noise in single pixels of ``after``. [3] float32, code.
        exposure: Stops by which the model saw the plate brighter.
    """

    before: Floats
    after: Floats
    weight: Floats
    sigma: Floats
    exposure: float


@dataclass(frozen=True)
class Changed:
    """A plate with its change in it, for the pixels that changed.

    Attributes:
        index: Flat indices of these pixels, rising. [n].
        colours: What they become, scene-linear. [n,3] float32, unbounded.
        weights: How much of the change was let in. [n] float32, 0..1.
        gained: Share of the pixel's light that is the plate's own under a gain that is not 1.
            [n] float32, 0..1.
        made: Share of its light that was added. [n] float32, 0..1; what is neither is the plate's
            own as it was.
    """

    index: Indices
    colours: Floats
    weights: Floats
    gained: Floats
    made: Floats

    @classmethod
    def nothing(cls) -> Changed:
        """Return the change of a frame in which nothing changed."""
        none = np.empty(0, np.float32)
        return cls(np.empty(0, np.intp), np.empty((0, 3), np.float32), none, none, none)


def find_change(
    reference: NDArray[np.floating],
    sample: NDArray[np.floating],
    floor: Floor,
    allowed: Bools,
    *,
    colour: ModelRange,
    weight: NDArray[np.floating] | None = None,
) -> Change | None:
    """Return what changed in a frame above the noise floor; None where nothing did.

    Args:
        reference: The plate through the VAE. [h,w,3], model range.
        sample: What the model made. [h,w,3], model range.
        floor: The shot's.
        allowed: Where a change may be at all. [h,w] bool.
        colour: How the plate became the model's.
        weight: What :func:`gates` says of this frame. [h,w,1], 0..1. None: found from the frame
            alone.
    """
    found = gate(reference, sample, floor, allowed) if weight is None else weight
    found = np.asarray(found, np.float32)
    if not found.any():
        return None
    return Change(to_code(reference), to_code(sample), found, floor.single, colour.exposure)


def apply_change(
    plate: Floats,
    change: Change,
    bound: Floats,
    floor: Floor,
    *,
    colour: ModelRange,
) -> Changed:
    """Carry a change onto a plate, inside a bound.

    A result is never negative where the plate is not, and never below the plate where it is, in
    the model's primaries.

    Args:
        plate: [H,W,3] float32, scene-linear, unbounded, finite.
        change: At model size.
        bound: How much of it may come in. [H,W,1] float32, 0..1.
        floor: The shot's.
        colour: How the plate became the model's.

    Returns:
        The pixels that change; all others are the plate's own.
    """
    height, width = plate.shape[:2]
    share = from_model_frame(change.weight[..., 0], (width, height)) * bound[..., 0]
    wanted = share > LEAST_WEIGHT
    index = np.flatnonzero(wanted)
    if index.size == 0:
        return Changed.nothing()
    found, guide = _shaded(plate, change, colour)
    step = _brought_up(plate, found, guide, wanted, index, colour)
    own, let_in = plate.reshape(-1, 3)[index], bound.reshape(-1)[index]
    colours = np.empty((index.size, 3), np.float32)
    gained, made = np.empty(index.size, np.float32), np.empty(index.size, np.float32)
    for start in range(0, index.size, _CHUNK):
        at = slice(start, start + _CHUNK)
        before = _channels_first(colour.seen(own[at]))
        after, gain = _painted(before, step[:, at], let_in[at], change.exposure)
        gained[at], made[at] = _shares(before, after, gain)
        colours[at] = colour.moved(own[at], before.T, np.ascontiguousarray(after.T))
    return Changed(index, colours, share.reshape(-1)[index], gained, made)


def _painted(
    before: Floats, step: Floats, let_in: Floats, exposure: float
) -> tuple[Floats, Floats]:
    """Return what pixels become, and the gain in that. All [3,n] but ``let_in`` [n]."""
    gain, light = gain_and_light(step)
    gain = 1 - let_in * (1 - gain)
    after = gain * before + (let_in * np.float32(2.0**-exposure)) * light
    return np.maximum(after, np.minimum(before, 0)), gain


def _shaded(plate: Floats, change: Change, colour: ModelRange) -> tuple[Shade, Floats]:
    """Return the change on grey, weighed, and the plate's own code.

    Both are of model size, [h,w,C]; outside the changed box the step is 0.
    """
    height, width = change.weight.shape[:2]
    seen = colour.seen(to_model_frame(plate, (width, height)))
    code = np.clip(encode(seen, exposure=change.exposure), 0, 1)
    learnt = learn(code, change.before)
    box = _box(change.weight[..., 0] > 0)
    inside = RoundTrip(
        learnt.expected[box], learnt.error[box], learnt.spread, learnt.mix, learnt.offset
    )
    before, after = (learnt.righted(of[box]) for of in (change.before, change.after))
    found = shade(before, after, inside, change.sigma, code[box])
    step = np.zeros_like(code)
    trust, level = np.ones((2, height, width, 1), np.float32)
    step[box] = found.step * change.weight[box]
    trust[box], level[box] = found.trust, found.level
    return Shade(step, trust, level), code


def _box(region: Bools) -> tuple[slice, slice]:
    """Return the box of a region, with the room that it takes to judge it."""

    def side(some: Bools) -> slice:
        found = np.flatnonzero(some)
        return slice(max(0, int(found[0]) - _ROOM_PX), int(found[-1]) + 1 + _ROOM_PX)

    rows, columns = (np.asarray(region.any(axis=axis), bool) for axis in (1, 0))
    return side(rows), side(columns)


def _brought_up(
    plate: Floats,
    found: Shade,
    guide: Floats,
    wanted: Bools,
    index: Indices,
    colour: ModelRange,
) -> Floats:
    """Return the step of the wanted plate pixels. [3,n] float32."""

    def seen(rows: slice, columns: Indices) -> Floats:
        light = colour.seen(np.take(plate[rows], columns, axis=1))
        return np.clip(encode(_channels_first(light), exposure=colour.exposure), 0, 1)

    step = _carried(found, guide, wanted, seen)
    rest = _left_behind(found, guide, wanted.size / found.step[..., 0].size)
    step += bilinear(_channels_first(rest), plate.shape[:2], index)
    return step


def _carried(
    found: Shade, guide: Floats, wanted: Bools, seen: Callable[[slice, Indices], Floats]
) -> Floats:
    """Return the step of some pixels of a picture: along edges where there are any. [3,n].

    Args:
        found: The step at model size.
        guide: The plate at model size. [h,w,3] float32, code.
        wanted: For which pixels of the picture. [H,W] bool.
        seen: Returns its code, see :func:`joint_bilateral`.
    """
    index = np.flatnonzero(wanted)
    low = np.concatenate([found.step * found.trust, found.trust], axis=2)
    plain = cv2.GaussianBlur(low, (2 * TAPS_PX + 1,) * 2, REACH)
    step = _mean_of(bilinear(_channels_first(plain), wanted.shape, index))
    steep = from_model_frame(_steepness(found), wanted.shape[::-1])
    edges = wanted & (steep > 0)
    among = edges.reshape(-1)[index]
    along = joint_bilateral(_channels_first(low), _channels_first(guide), edges, seen)
    step[:, among] += steep[edges] * (_mean_of(along) - step[:, among])
    return step


def _left_behind(found: Shade, guide: Floats, scale: float) -> Floats:
    """Return what the way up takes off a change's own detail, as far as that is not noise.

    It is what it takes off at model size. Of a pixel that holds parts of two things only so much
    of it is meant as a plate pixel makes of a model pixel: all, where both are one.

    Args:
        found: The step at model size.
        guide: The plate at model size. [h,w,3] float32, code.
        scale: Plate pixels in a model pixel.
    """
    seen = _channels_first(guide)
    there = cv2.dilate(found.step, np.ones((3, 3), np.uint8)) != 0
    there |= found.step != 0
    some = there.any(axis=2)
    rest = np.zeros_like(found.step)
    if not some.any():
        return rest
    up = _carried(found, guide, some, lambda rows, columns: seen[:, rows][..., columns])
    rest[some] = found.step[some] - up.T
    noise = (found.level * np.float32(_NOISE_IN_LEVEL)) ** 2
    squares = rest * rest
    rest *= np.maximum(found.trust, np.float32(min(1.0, 1 / scale**2)))
    return np.asarray(rest * squares / (squares + noise), np.float32)


def _mean_of(sums: Floats) -> Floats:
    """Divide sums [4,n] by the last of them. [3,n]."""
    return np.asarray(sums[:3] / np.maximum(sums[3:], np.float32(1e-20)), np.float32)


def _steepness(found: Shade) -> Floats:
    """Say how much it matters which of the model pixels around are weighed. [h,w] float32, 0..1."""
    kernel = np.ones((2 * TAPS_PX + 1,) * 2, np.uint8)
    across = cv2.dilate(found.step, kernel) - cv2.erode(found.step, kernel)
    steep = across.max(axis=2) / found.level[..., 0]
    return np.asarray(np.clip(2 * (steep - 1), 0, 1), np.float32)


def _channels_first(picture: Floats) -> Floats:
    return np.ascontiguousarray(np.moveaxis(picture, -1, 0))


def _shares(before: Floats, after: Floats, gain: Floats) -> tuple[Floats, Floats]:
    """Say what share of pixels' light is the plate's under a gain, and what was added.

    All are [3,n], each returned [n].
    """
    amount = np.abs(after)
    left = np.minimum(np.abs(gain * before), amount)
    total = np.maximum(amount[0] + amount[1] + amount[2], np.float32(1e-20))
    added = amount - left
    made = np.clip((added[0] + added[1] + added[2]) / total, 0, 1)
    left *= gain != 1
    gained = (left[0] + left[1] + left[2]) / total
    return np.minimum(gained, 1 - made), made
