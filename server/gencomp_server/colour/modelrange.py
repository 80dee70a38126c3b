# SPDX-License-Identifier: Apache-2.0
"""The bounded, invertible range the solvers work in, and back to scene-linear.

Below ``KNEE`` it is the sRGB curve; above, a logarithm joined with equal value and slope and bent
so that ``WHITE`` lands on 1: highlights cost little range, yet nothing is lost, because the curve
goes on above 1. Negative values mirror. Every finite half comes back bit for bit in float32.

=====  =====  =====  =====  =====  =====
x      0.18   1      4      16     60
y      0.461  0.836  0.927  1.000  1.067
=====  =====  =====  =====  =====  =====

What the curve is given is Linear Rec.709, whatever the working space: :class:`ModelRange` brings
pictures there and a change of them back.

A solver may look at ``clip(y, 0, 1)``. Delivery never does: it changes the plate's own samples.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gencomp_server.colour.spaces import REC709, Matrix, Space, processors, resolve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_protocol.request import Request

    Floats = NDArray[np.float32]

KNEE = 0.5
WHITE = 16.0
# IEC 61966-2-1: the straight foot of the curve ends here, in scene-linear and in encoded value.
_FOOT_SLOPE, _FOOT_END = 12.92, 0.0031308
_GAMMA, _GAIN, _OFFSET = 2.4, 1.055, 0.055
_KNEE_VALUE = _GAIN * KNEE ** (1 / _GAMMA) - _OFFSET
_KNEE_SLOPE = _GAIN / _GAMMA * KNEE ** (1 / _GAMMA - 1)
# Solves _KNEE_VALUE + b * log1p(_KNEE_SLOPE * (WHITE - KNEE) / b) = 1 for b; the literal is held
# to the equation by tests/server/colour/test_modelrange.py.
_BEND = 0.04964215669088705
_PIXELS_AT_ONCE = 16384  # Three channels of float64 and two rows of work stay in a core's cache.


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


@dataclass(frozen=True)
class ModelRange:
    """How a job's scene-linear pictures become codes that a video model sees, and back.

    A model sees Linear Rec.709 through :func:`encode`. What goes there and back is only ever a
    *copy*: :meth:`moved` puts a change that was made to it onto the plate's own samples.

    Attributes:
        exposure: Stops by which the model sees the plate brighter.
        space: The working space of the pictures.
    """

    exposure: float = 0.0
    space: Space = REC709

    @property
    def identity(self) -> str:
        """Name all that decides a code: for the keys of stages."""
        return f"{self.space.identity} {self.exposure!r}"

    @property
    def is_plain(self) -> bool:
        """Tell whether the working space has the model's own primaries."""
        return self.space.is_rec709

    def seen(self, light: Floats) -> Floats:
        """Bring light of the working space to the model's primaries.

        Args:
            light: [...,3] float32, linear, unbounded, negative too.

        Returns:
            [...,3] float32, linear; colours outside the gamut are negative there, not clipped.
            ``light`` itself where the working space is the model's.
        """
        if self.is_plain:
            return light
        if self.space.matrix is None:
            return _asked(light, processors(self.space)[0])
        return _multiplied(light, _matrices(self.space.matrix)[0])

    def unseen(self, light: Floats) -> Floats:
        """Undo :meth:`seen`, to within a few steps of float32 of the pixel's largest channel.

        Args:
            light: [...,3] float32, linear.
        """
        if self.is_plain:
            return light
        if self.space.matrix is None:
            return _asked(light, processors(self.space)[1])
        return _multiplied(light, _matrices(self.space.matrix)[1])

    def code(self, light: Floats) -> Floats:
        """Return the unclipped code of light in the working space. [...,3] float32."""
        return encode(self.seen(light), exposure=self.exposure)

    def light(self, code: Floats) -> Floats:
        """Return the working-space light of a code. [...,3] float32, linear, unbounded."""
        return self.unseen(decode(code, exposure=self.exposure))

    def moved(self, plate: Floats, before: Floats, after: Floats) -> Floats:
        """Return a plate with a change that was made to its copy in the model's primaries.

        The change comes back, not the picture: with a matrix it is linear, and else what the way
        there and back does to ``before`` is taken off again.

        Args:
            plate: In the working space. [...,3] float32, linear.
            before: The same by :meth:`seen`. [...,3] float32.
            after: What it becomes there. [...,3] float32.

        Returns:
            ``plate`` where ``after`` is ``before``, bit for bit: by channel where the working
            space is the model's, by pixel elsewhere. What lies outside the model's gamut is kept.
            [...,3] float32.
        """
        same = (after == before) | (np.isnan(after) & np.isnan(before))
        if self.is_plain:
            return np.where(same, plate, after)
        moves = ~(same[..., 0] & same[..., 1] & same[..., 2])
        if moves.all():
            return self._stepped(plate, before, after)
        found = plate.astype(np.float32)
        found[moves] = self._stepped(plate[moves], before[moves], after[moves])
        return found

    def _stepped(self, plate: Floats, before: Floats, after: Floats) -> Floats:
        """Bring the step from ``before`` to ``after`` onto the plate. All [...,3] float32."""
        if self.space.matrix is not None:
            return _multiplied(after, _matrices(self.space.matrix)[1], less=before, onto=plate)
        with np.errstate(invalid="ignore", over="ignore"):  # of what is not finite
            lost = plate.astype(np.float64) - self.unseen(before)
            return (self.unseen(after) + lost).astype(np.float32)


def range_of(request: Request, exposure: float = 0.0) -> ModelRange:
    """Return the model range of a request's pictures.

    Raises:
        BadKnob: Its working space cannot be understood.
    """
    return ModelRange(exposure, resolve(request.working_space, request.ocio))


@functools.lru_cache(maxsize=8)
def _matrices(rows: Matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a matrix and its inverse. [3,3] each."""
    there = np.array(rows, np.float64).reshape(3, 3)
    return there, np.asarray(np.linalg.inv(there), np.float64)


def _multiplied(
    light: Floats,
    matrix: NDArray[np.float64],
    *,
    less: Floats | None = None,
    onto: Floats | None = None,
) -> Floats:
    """Multiply pixels by a matrix in float64, a cacheful at a time.

    Each product stands alone, so that a pixel's bits do not depend on where in an array it is: a
    crop gives what the whole frame does.

    Args:
        light: [...,3] float32.
        matrix: [3,3].
        less: Taken off before. [...,3] float32.
        onto: Added after, before the one rounding. [...,3] float32.
    """
    flat = light.reshape(-1, 3)
    minus = None if less is None else less.reshape(-1, 3)
    base = None if onto is None else onto.reshape(-1, 3)
    out = np.empty(flat.shape, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):  # infinity less infinity is NaN, as it must
        for start in range(0, len(flat), _PIXELS_AT_ONCE):
            here = slice(start, start + _PIXELS_AT_ONCE)
            channels = np.array(flat[here].T, np.float64, order="C")
            if minus is not None:
                channels -= minus[here].T
            red, green, blue = channels
            for channel, (r, g, b) in enumerate(matrix):
                total = r * red
                total += g * green
                total += b * blue
                if base is not None:
                    total += base[here, channel]
                out[here, channel] = total
    return out.reshape(light.shape)


def _asked(light: Floats, processor: Any) -> Floats:
    """Return what OpenColorIO makes of pixels. [...,3] float32."""
    out = np.array(light, np.float32, order="C", copy=True)
    if out.size:  # it refuses to do nothing
        processor.applyRGB(out)
    return out
