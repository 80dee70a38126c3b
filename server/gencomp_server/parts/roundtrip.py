# SPDX-License-Identifier: Apache-2.0
"""What a VAE does to every picture, learnt from the plate's own way through it, and taken off.

What went in is known, and what came back: the two tell how colours drifted and how much softer the
picture got. The drift is undone on what the model made, too, which matters most in a glow: near the
top of the range a hundredth of code is a fifth of the light. What the VAE did beyond that is
random, and cancels only where the model left the picture nearly as it was.

Pictures are [h,w,3] float32, code 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]

_SOFT_PX = 1.0
_EDGE = 2e-3  # Code this near the ends of the range was clipped.
_SAMPLES = 60_000
_LEAST_SAMPLES = 200
# How firmly colours are held in place where the plate does not say how they drift; and how far
# they may be said to drift before they are held more firmly.
_HOLDS = (1e-4, 1e-3, 1e-2, 1e-1)
_MOST_DRIFT = 0.25


@dataclass(frozen=True)
class RoundTrip:
    """How a VAE shows a plate.

    Attributes:
        expected: The plate as it comes back but for the VAE's random error, with colours put
            right. [h,w,3] float32, unclipped.
        error: That random error, with colours put right. [h,w,3] float32.
        spread: Its standard deviation, in code.
        mix: Colours of the plate (rows) in colours that come back (columns). [3,3] float64.
        offset: What is added to them. [3] float64.
    """

    expected: Floats
    error: Floats
    spread: float
    mix: Doubles
    offset: Doubles

    def righted(self, code: Floats) -> Floats:
        """Return a picture that came back with its colours put right. [...,3], unclipped."""
        return _righted(code, self.mix, self.offset)


def learn(plate: Floats, reference: Floats) -> RoundTrip:
    """Learn what a VAE does from a plate and its round trip.

    Args:
        plate: What went in. [h,w,3] float32, code 0..1.
        reference: What came back. [h,w,3] float32, code 0..1.
    """
    softer = cv2.GaussianBlur(plate, (0, 0), _SOFT_PX) - plate
    found = _fitted(plate, softer, reference)
    mix, offset = found[:3], found[6]
    inverse = np.linalg.inv(mix)
    softness = (found[3:6] @ inverse).astype(np.float32)
    expected = plate + (softer.reshape(-1, 3) @ softness).reshape(plate.shape)
    error = _righted(reference, mix, offset) - expected
    return RoundTrip(expected, error, float(np.sqrt((error * error).mean())), mix, offset)


def _righted(code: Floats, mix: Doubles, offset: Doubles) -> Floats:
    flat = (code.reshape(-1, 3) - offset.astype(np.float32)) @ np.linalg.inv(mix).astype(np.float32)
    return np.asarray(flat, np.float32).reshape(code.shape)


def _fitted(plate: Floats, softer: Floats, reference: Floats) -> Doubles:
    """Return what maps plate, softer and one onto a reference, by least squares. [7,3]."""
    both = np.concatenate([plate, reference], axis=2)
    clear = ((both > _EDGE) & (both < 1 - _EDGE)).all(axis=2)
    still = np.zeros((7, 3))
    still[:3] = np.eye(3)
    index = np.flatnonzero(clear)
    if index.size < _LEAST_SAMPLES:
        return still
    index = index[:: max(1, index.size // _SAMPLES)]
    given = np.ones((index.size, 7))
    given[:, :3] = plate.reshape(-1, 3)[index]
    given[:, 3:6] = softer.reshape(-1, 3)[index]
    wanted = reference.reshape(-1, 3)[index].astype(np.float64)
    square, product = given.T @ given / index.size, given.T @ wanted / index.size
    for hold in _HOLDS:
        firm = np.diag([hold] * 6 + [1e-12])
        found = np.linalg.solve(square + firm, product + firm @ still)
        drift = np.linalg.svd(found[:3], compute_uv=False) - 1
        if np.abs(drift).max() <= _MOST_DRIFT:
            return np.asarray(found, np.float64)
    return still
