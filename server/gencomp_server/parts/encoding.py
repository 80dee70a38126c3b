# SPDX-License-Identifier: Apache-2.0
"""The bounded, invertible range the solvers work in, and back to scene-linear.

Below ``KNEE`` it is the sRGB curve; above, a logarithm joined with equal value and slope and bent
so that ``WHITE`` lands on 1: highlights cost little range, yet nothing is lost, because the curve
goes on above 1. Negative values mirror. Every finite half comes back bit for bit in float32.

=====  =====  =====  =====  =====  =====
x      0.18   1      4      16     60
y      0.461  0.836  0.927  1.000  1.067
=====  =====  =====  =====  =====  =====

A solver may look at ``clip(y, 0, 1)``. Delivery never does: it changes the plate's own samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

KNEE = 0.5
WHITE = 16.0
# IEC 61966-2-1: the straight foot of the curve ends here, in scene-linear and in encoded value.
_FOOT_SLOPE, _FOOT_END = 12.92, 0.0031308
_GAMMA, _GAIN, _OFFSET = 2.4, 1.055, 0.055
_KNEE_VALUE = _GAIN * KNEE ** (1 / _GAMMA) - _OFFSET
_KNEE_SLOPE = _GAIN / _GAMMA * KNEE ** (1 / _GAMMA - 1)
# Solves _KNEE_VALUE + b * log1p(_KNEE_SLOPE * (WHITE - KNEE) / b) = 1 for b; the literal is held
# to the equation by tests/server/parts/test_encoding.py.
_BEND = 0.04964215669088705


def encode(x: NDArray[np.float32], *, exposure: float = 0.0) -> NDArray[np.float32]:
    """Bring scene-linear values into the working range.

    Args:
        x: Any shape, float32, unbounded; NaN stays NaN, infinity stays infinity.
        exposure: Stops added before the curve.

    Returns:
        Encoded values of the same shape, float32: 0..1 for 0..16 at exposure 0, odd in ``x``.
    """
    light = np.abs(x, dtype=np.float32) * np.float32(2.0**exposure)
    foot = light * np.float32(_FOOT_SLOPE)
    middle = np.minimum(light, np.float32(KNEE)) ** np.float32(1 / _GAMMA)
    curve = np.float32(_GAIN) * middle - np.float32(_OFFSET)
    above = np.maximum(light - np.float32(KNEE), 0)
    curve += np.float32(_BEND) * np.log1p(np.float32(_KNEE_SLOPE / _BEND) * above)
    return np.copysign(np.where(light <= np.float32(_FOOT_END), foot, curve), x)


def decode(y: NDArray[np.float32], *, exposure: float = 0.0) -> NDArray[np.float32]:
    """Undo :func:`encode`.

    Args:
        y: Any shape, float32; NaN stays NaN, infinity stays infinity.
        exposure: The stops that :func:`encode` added.

    Returns:
        Scene-linear values of the same shape, float32; ``decode(encode(x))`` rounded to half is
        ``x`` for every half ``x``.
    """
    code = np.abs(y, dtype=np.float32)
    foot = code / np.float32(_FOOT_SLOPE)
    middle = np.minimum(code, np.float32(_KNEE_VALUE)) + np.float32(_OFFSET)
    curve = (middle / np.float32(_GAIN)) ** np.float32(_GAMMA)
    above = np.maximum(code - np.float32(_KNEE_VALUE), 0)
    with np.errstate(over="ignore"):  # far beyond any half the answer is infinity, as it should be
        curve += np.float32(_BEND / _KNEE_SLOPE) * np.expm1(above / np.float32(_BEND))
    light = np.where(code <= np.float32(_FOOT_SLOPE * _FOOT_END), foot, curve)
    return np.copysign(light * np.float32(2.0**-exposure), y)


def slope(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how steep :func:`encode` is: the code gained per unit of light, at exposure 0.

    Args:
        x: Any shape, float32, scene-linear, finite.

    Returns:
        The derivative, of the same shape, float32, > 0; 12.92 in the foot, falling towards 0 in
        the highlights.
    """
    light = np.abs(x, dtype=np.float32)
    middle = np.clip(light, np.float32(_FOOT_END), np.float32(KNEE))
    curve = np.float32(_GAIN / _GAMMA) * middle ** np.float32(1 / _GAMMA - 1)
    above = np.maximum(light - np.float32(KNEE), 0)
    curve /= 1 + np.float32(_KNEE_SLOPE / _BEND) * above
    foot = np.float32(_FOOT_SLOPE)
    return np.asarray(np.where(light <= np.float32(_FOOT_END), foot, curve), np.float32)
