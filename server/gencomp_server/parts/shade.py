# SPDX-License-Identifier: Apache-2.0
"""A change as it would look on a plate without detail.

On a textured plate a soft shadow and a soft glow are textured, too. Divided by the plate (what got
darker) or less the plate (what got brighter), and laid on the plate's *ground*, which has no
detail, they are soft again: noise can be told from change, and be averaged away. In code the noise
is alike everywhere, in shade and in glare, which it is not in light.

``light`` here is the model's, in its own primaries, as exposed. Pictures are [h,w,3] float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from gencomp_server.colour.modelrange import decode, encode, slope
from gencomp_server.parts.roundtrip import RoundTrip
from gencomp_server.parts.smoothing import smooth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

GREY_GROUND = np.float32(0.18)
"""What a change is laid on to be carried: like anywhere on the plate, so that it may go there."""
_GREY_CODE = encode(np.asarray(GREY_GROUND))

_GROUND_PX = 6.0
_BLACK = np.float32(1e-3)  # keeps the gain of a black pixel finite, in light
_LEAST_GROUND = np.float32(1e-4)
_LEAST_SPREAD = 1e-4
_AVERAGE_PX = 5
_BOUNDS = 0.1, 16.0  # of how much noise may be less or more on the ground than it was
# Chi squared of three gains about one, two degrees of freedom: up to GREY they are one gain.
_GREY, _FADES = 3.0, 2.0
# Sigma, or part of the step, that it may differ by across a pixel that is of one thing.
_MIXED, _PART = 4.0, 0.25
_LEAST_TRUST = 1e-4
# Sigma, and code, that a step may differ by across 5 pixels without an edge being looked for.
_LEVEL, _LEAST_LEVEL = 8.0, 3e-3


@dataclass(frozen=True)
class Shade:
    """A change on the ground of a plate.

    Attributes:
        step: How the code of ``GREY_GROUND`` would change. [h,w,3] float32.
        trust: Low where a pixel holds parts of two things. [h,w,1] float32, 0..1, > 0.
        level: How far the step may differ about a pixel and still be taken for even.
            [h,w,1] float32, > 0.
    """

    step: Floats
    trust: Floats
    level: Floats


def shade(before: Floats, after: Floats, learnt: RoundTrip, sigma: Floats, guide: Floats) -> Shade:
    """Return the change between a plate's round trip and a model's answer, less their noise.

    Args:
        before: The round trip, its colours righted. [h,w,3] float32, code.
        after: The answer, its colours righted. [h,w,3] float32, code.
        learnt: What the VAE does, over the same pixels.
        sigma: Of the answer's noise in single pixels. [3] float32, code.
        guide: The plate. [h,w,3] float32, code.
    """
    # Where the model left the picture as it was, both have the VAE's random error, and it cancels;
    # where it did not, the round trip's error has nothing to cancel.
    moved = np.abs(cv2.blur(after - before, (_AVERAGE_PX, _AVERAGE_PX))).mean(axis=2, keepdims=True)
    common = 1 / (1 + (moved / np.float32(max(learnt.spread, _LEAST_SPREAD))) ** 2)
    wanted = np.clip(after - common * learnt.error, 0, 1)
    expected = np.clip(learnt.expected, 0, 1)
    variance = sigma**2 + (1 - common * common) * np.float32(learnt.spread) ** 2
    ground = cv2.GaussianBlur(expected, (0, 0), _GROUND_PX)
    step, variance = _laid(ground, expected, wanted, np.asarray(variance, np.float32))
    step, variance = smooth(step, variance, guide)
    step = _greyed(ground, step, variance)
    level = np.sqrt(variance.max(axis=2, keepdims=True)) * np.float32(_LEVEL)
    level = np.maximum(level, np.float32(_LEAST_LEVEL))
    return Shade(_on_grey(ground, step), _trust(step, variance), level)


def gain_and_light(step: Floats) -> tuple[Floats, Floats]:
    """Return what a step on grey multiplies light by, at most 1, and what it adds.

    Args:
        step: [...] float32, code.
    """
    wanted = decode(_GREY_CODE + step)
    gain = np.clip(wanted / GREY_GROUND, 0, 1)
    light = np.maximum(wanted - GREY_GROUND, 0)
    same = step == 0
    gain[same], light[same] = 1, 0
    return gain, light


def _on_grey(ground: Floats, step: Floats) -> Floats:
    """Lay a step of the plate's ground on grey: there it means the same wherever it is carried."""
    lit, wanted = decode(ground), decode(ground + step)
    gain = np.minimum(wanted / np.maximum(lit, _LEAST_GROUND), 1)
    light = np.maximum(wanted - lit, 0)
    laid = encode(np.maximum(gain, 0) * GREY_GROUND + light) - _GREY_CODE
    return np.asarray(np.where(step == 0, np.float32(0), laid), np.float32)


def _laid(ground: Floats, before: Floats, after: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """Lay a change on the ground: the step of its code, and the variance of that."""
    under, lit, wanted = decode(ground), decode(before), decode(after)
    share = under / (lit + _BLACK)
    darker = wanted < lit
    laid = np.where(darker, (wanted + _BLACK) * share, under + wanted - lit)
    steep = np.where(darker, share, np.float32(1)) * slope(laid) / slope(wanted)
    noise = np.clip(steep * steep, *_BOUNDS) * variance
    return encode(laid) - ground, np.asarray(noise, np.float32)


def _greyed(ground: Floats, step: Floats, variance: Floats) -> Floats:
    """Give the channels one gain where theirs agree within their noise."""
    lit = np.maximum(decode(ground), _LEAST_GROUND)
    wanted = decode(ground + step)
    gain = wanted / lit
    noise = variance / np.maximum(slope(wanted) * lit, np.float32(1e-3)) ** 2
    one = (gain / noise).sum(axis=2, keepdims=True) / (1 / noise).sum(axis=2, keepdims=True)
    apart = ((gain - one) ** 2 / noise).sum(axis=2)
    apart = cv2.blur(apart, (3, 3))[..., None]
    grey = np.exp(-np.maximum(apart - np.float32(_GREY), 0) / np.float32(_FADES))
    grey *= np.clip((-step / np.sqrt(variance)).min(axis=2, keepdims=True), 0, 1)
    return np.asarray(step + grey * (encode(one * lit) - ground - step), np.float32)


def _trust(step: Floats, variance: Floats) -> Floats:
    """Say which pixels are of one thing: the step hardly differs from that beside them."""
    near, about = np.ones((3, 3), np.uint8), np.ones((5, 5), np.uint8)
    across = cv2.dilate(step, near) - cv2.erode(step, near)
    bearable = np.float32(_MIXED**2) * variance
    bearable += (np.float32(_PART) * cv2.dilate(np.abs(step), about)) ** 2
    apart = (across * across / bearable).max(axis=2, keepdims=True)
    return np.asarray(1 / (1 + apart * apart) + np.float32(_LEAST_TRUST), np.float32)
