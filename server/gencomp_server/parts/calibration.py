# SPDX-License-Identifier: Apache-2.0
"""How well a clean plate fits the plate where nothing stands before it, and mending what does not.

A clean plate that was painted, generated or gathered from other frames is never the plate's own:
it has other grain, may sit a fraction of a pixel off, drift in exposure, be softer. All of that
reads as alpha unless it is measured first. Away from the mattes :func:`calibrate` measures shift,
slow drift, softness and noise; :func:`condition_frame` takes shift and drift out. A clean plate
that is exact is left alone, bit for bit.

Pictures are scene-linear float32 [H,W,3]; "display" is the linear value to the power 1/2.2, which
is where differences are judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

GAMMA = 2.2
CLEAR_OF_MATTE = 9  # pixels beyond which effects and soft edges no longer count
EXACT_SHARE = 0.30  # of the pixels clear of the mattes must agree for an exact plate
EXACT_DIFFERENCE = 1e-3  # relative
SOFTNESS = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5)  # candidates for a blur, pixels
CLIPPED = 0.98  # above it in both, a display-referred source knows no value
_ORDER = 4  # of the drift's polynomial in x and y
_COMMON_BLUR = 0.8  # pixels, at which softness is compared
_DRIFT_BLUR = 6.0  # pixels
_MAD = 1.4826  # sigma of a normal distribution per median absolute deviation


@dataclass(frozen=True)
class Calibration:
    """How a clean plate differs from its plate, away from the mattes.

    Attributes:
        exact: The clean plate is the plate's own; nothing needs mending.
        sigma: Noise of the difference, display units, per pixel.
        shift: Pixels (x, y) that the clean plate must move to fit.
        drift: Coefficients of the display difference to add, per channel. [3,15].
        soften_plate: Blur of the plate, in pixels, that makes it as soft as the clean plate.
        soften_clean: The same the other way round.
        misfit: Pixels of misregistration that remain, from the residual at edges.
    """

    exact: bool
    sigma: float = 0.0
    shift: tuple[float, float] = (0.0, 0.0)
    drift: tuple[tuple[float, ...], ...] = ()
    soften_plate: float = 0.0
    soften_clean: float = 0.0
    misfit: float = 0.0


EXACT = Calibration(exact=True)


def to_display(linear: Array) -> Array:
    """Return display values; negatives become 0, values over 1 stay over 1."""
    return np.asarray(np.power(np.maximum(linear, 0.0), np.float32(1 / GAMMA)), dtype=np.float32)


def to_linear(display: Array) -> Array:
    """Return scene-linear values of display values."""
    return np.asarray(np.power(np.maximum(display, 0.0), np.float32(GAMMA)), dtype=np.float32)


def soften(picture: Array, radius: float) -> Array:
    """Return the picture blurred by a Gaussian of ``radius`` pixels; itself for 0."""
    if radius <= 0:
        return picture
    blurred = cv2.GaussianBlur(picture, (0, 0), radius, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(blurred, dtype=np.float32)


def calibrate(plate: Array, clean: Array, covered: Mask) -> Calibration:
    """Measure how a clean plate differs from its plate.

    Args:
        plate: The picture. [H,W,3].
        clean: The clean plate of the same frame. [H,W,3].
        covered: Where a matte is. [H,W].
    """
    clear = _clear_of(covered)
    if clear.sum() < 64:
        return Calibration(exact=False, sigma=0.01)
    difference = np.abs(plate - clean).max(axis=2)
    fits = difference <= EXACT_DIFFERENCE * np.maximum(clean.max(axis=2), 0.01)
    if float(fits[clear].mean()) > EXACT_SHARE:
        return EXACT
    shift = _find_shift(to_display(plate), to_display(clean), clear)
    moved = _move(clean, shift)
    drift = _find_drift(to_display(plate), to_display(moved), clear)
    mended = to_linear(_add_drift(to_display(moved), drift))
    return _measure_residual(plate, mended, clear, shift, drift)


def condition_frame(plate: Array, clean: Array, covered: Mask, calibration: Calibration) -> Array:
    """Return the clean plate moved and graded onto its plate. [H,W,3].

    Where both are clipped the plate's own value is taken: no difference can be known there.
    """
    if calibration.exact:
        return clean
    moved = _move(clean, calibration.shift)
    mended = to_linear(_add_drift(to_display(moved), calibration.drift))
    mended = np.where(moved < 0.0, moved, mended)
    clipped = (np.minimum(plate, mended).min(axis=2) >= CLIPPED) & ~covered
    return np.where(clipped[..., None], plate, mended).astype(np.float32)


def _clear_of(covered: Mask) -> Mask:
    size = 2 * CLEAR_OF_MATTE + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return np.asarray(cv2.dilate(covered.astype(np.uint8), kernel) == 0)


def _spread(values: Array) -> float:
    """Return the robust sigma of values around 0."""
    return float(_MAD * np.median(np.abs(values))) if values.size else 0.0


def _move(picture: Array, shift: tuple[float, float]) -> Array:
    if max(abs(shift[0]), abs(shift[1])) < 0.02:
        return picture
    height, width = picture.shape[:2]
    matrix = np.array([[1.0, 0.0, -shift[0]], [0.0, 1.0, -shift[1]]])
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(
        picture, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(moved, dtype=np.float32)


def _find_shift(plate: Array, clean: Array, clear: Mask) -> tuple[float, float]:
    """Return the translation that brings ``clean`` onto ``plate``, by robust Gauss-Newton."""
    target = soften(plate.mean(axis=2), 1.2)
    source = soften(clean.mean(axis=2), 1.2)
    inner = clear.copy()
    inner[:4], inner[-4:], inner[:, :4], inner[:, -4:] = False, False, False, False
    shift = np.zeros(2)
    for _ in range(8):
        moved = _move(source, (float(shift[0]), float(shift[1])))
        gy, gx = np.gradient(moved)
        error = (target - moved)[inner]
        error = error - np.median(error)
        scale = max(_spread(error), 1e-5)
        weight = 1.0 / (1.0 + (error / (2.0 * scale)) ** 2)
        sx, sy = np.asarray(gx)[inner], np.asarray(gy)[inner]
        normal = np.array(
            [
                [(weight * sx * sx).sum(), (weight * sx * sy).sum()],
                [(weight * sx * sy).sum(), (weight * sy * sy).sum()],
            ],
            dtype=np.float64,
        )
        normal += np.eye(2) * (1e-6 * np.trace(normal) + 1e-12)
        # moved(x) = source(x - shift): a larger shift lowers the error by its gradient.
        step = np.linalg.solve(normal, [-(weight * sx * error).sum(), -(weight * sy * error).sum()])
        shift += np.clip(step, -1.0, 1.0)
        if np.abs(step).max() < 1e-3:
            break
    if np.abs(shift).max() > 4.0:
        return (0.0, 0.0)
    return (float(shift[0]), float(shift[1]))


def _powers(x: Array, y: Array) -> Array:
    """Return the terms x**i * y**j with i + j <= 4. [...,15]."""
    terms = [x**i * y**j for i in range(_ORDER + 1) for j in range(_ORDER + 1 - i)]
    return np.stack(np.broadcast_arrays(*terms), axis=-1)


def _grid(height: int, width: int) -> tuple[Array, Array]:
    y = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
    x = np.linspace(-1.0, 1.0, width, dtype=np.float32)[None, :]
    return y, x


def _find_drift(plate: Array, clean: Array, clear: Mask) -> tuple[tuple[float, ...], ...]:
    """Return the slow display difference per channel as a robust polynomial."""
    y, x = _grid(*clear.shape)
    picked = np.zeros_like(clear)
    picked[::5, ::5] = clear[::5, ::5]
    rows, columns = np.nonzero(picked)
    basis = _powers(x[0, columns], y[rows, 0]).astype(np.float64)
    # Drift is slow, so a wide blur takes the noise away and leaves smoke standing out.
    known = soften(clear.astype(np.float32), _DRIFT_BLUR)[..., None] + np.float32(1e-6)
    smooth = soften((plate - clean) * clear[..., None], _DRIFT_BLUR) / known
    wanted = smooth[rows, columns].astype(np.float64)
    found = [_fit_robustly(basis, wanted[:, channel]) for channel in range(3)]
    after = wanted - basis @ np.array(found).T
    if _spread(after) > 0.8 * _spread(wanted):
        return ()
    return tuple(tuple(float(v) for v in coefficients) for coefficients in found)


def _fit_robustly(basis: Array, wanted: Array) -> Array:
    """Return least-squares coefficients that leave outliers out altogether (Tukey)."""
    coefficients = np.zeros(basis.shape[1])
    coefficients[0] = np.median(wanted)
    for _ in range(12):
        error = wanted - basis @ coefficients
        scale = max(_spread(error), 1e-5)
        weight = np.clip(1.0 - (error / (3.5 * scale)) ** 2, 0.0, None) ** 2
        weighted = basis * weight[:, None]
        ridge = np.eye(basis.shape[1]) * 1e-3 * weight.sum() / basis.shape[1]
        coefficients = np.linalg.solve(weighted.T @ basis + ridge, weighted.T @ wanted)
    return np.asarray(coefficients)


def _add_drift(display: Array, drift: tuple[tuple[float, ...], ...]) -> Array:
    if not drift:
        return display
    y, x = _grid(*display.shape[:2])
    basis = _powers(x, y).astype(np.float32)
    return np.asarray(display + basis @ np.array(drift, np.float32).T, dtype=np.float32)


def _left_over(plate: Array, clean: Array, clear: Mask) -> float:
    """Return the spread of the display difference under a blur that both share."""
    seen, under = soften(plate, _COMMON_BLUR), soften(clean, _COMMON_BLUR)
    return _spread((to_display(seen) - to_display(under))[clear])


def _measure_residual(
    plate: Array,
    clean: Array,
    clear: Mask,
    shift: tuple[float, float],
    drift: tuple[tuple[float, ...], ...],
) -> Calibration:
    """Measure softness, noise and remaining misfit of the mended clean plate."""
    tries = [(_left_over(plate, clean, clear), 0.0, 0.0)]
    for radius in SOFTNESS:
        # A blur lowers independent noise as well: only what it gains beyond that counts.
        fair = np.hypot(_COMMON_BLUR, radius) / _COMMON_BLUR
        tries.append((fair * _left_over(soften(plate, radius), clean, clear), radius, 0.0))
        tries.append((fair * _left_over(plate, soften(clean, radius), clear), 0.0, radius))
    best = min(tries, key=lambda entry: entry[0])
    if best[0] > 0.9 * tries[0][0]:
        best = tries[0]
    soften_plate, soften_clean = best[1:]
    under = to_display(soften(clean, soften_clean))
    left = to_display(soften(plate, soften_plate)) - under
    sigma = _spread(left[clear])
    gy, gx = np.gradient(soften(under, 0.7).mean(axis=2))
    slope = np.hypot(gx, gy)[clear]
    steep = slope > np.quantile(slope, 0.9)
    at_edges = _spread(left[clear][steep])
    flat = _spread(left[clear][~steep])
    typical = max(float(np.median(slope[steep])), 1e-4)
    misfit = float(np.sqrt(max(at_edges**2 - flat**2, 0.0))) / typical
    return Calibration(
        False, max(sigma, 2e-4), shift, drift, soften_plate, soften_clean, min(misfit, 1.5)
    )
