# SPDX-License-Identifier: Apache-2.0
"""Bringing a clean plate onto its plate: one frame, measured at model size, mended at plate size.

A clean plate that is the plate's own away from the mattes is left alone, bit for bit.  Any other
is moved (homography where it is far off, a fraction of a pixel where it is near) and graded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from gencomp_server.parts.calibration import Calibration, calibrate, condition_frame
from gencomp_server.parts.fit import to_model_frame
from gencomp_server.parts.register import register_to

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Bools = NDArray[np.bool_]

FAR_PX = 1.0
"""From this many model pixels of displacement a clean plate is moved by its homography first."""


@dataclass(frozen=True)
class FittedClean:
    """One frame's clean plate, fitted.

    Attributes:
        pixels: [H,W,3] at plate size, scene-linear; half where plate and clean plate are half.
        calibration: How well it fits, for the solver.
        moved_px: How far a corner was moved by the homography, model pixels; 0 where none was.
    """

    pixels: NDArray[np.float16] | NDArray[np.float32]
    calibration: Calibration
    moved_px: float


def fit_clean(
    plate: Floats, clean: Floats, covered: Bools, model_size: tuple[int, int], *, register: bool
) -> FittedClean:
    """Bring one frame of a clean plate onto its plate.

    Args:
        plate: [H,W,3] float32, scene-linear, finite.
        clean: [H,W,3] float32, scene-linear, finite, same size.
        covered: Where a matte is, at model size. [h,w] bool.
        model_size: (w, h) at which alphas are solved.
        register: Whether it may be moved.
    """
    small_plate, small = to_model_frame(plate, model_size), to_model_frame(clean, model_size)
    found = calibrate(small_plate, small, covered)
    if found.exact:
        return FittedClean(clean, found, 0.0)
    moved_px = 0.0
    if register:
        motion, _, _ = register_to(small_plate, small, covered)
        moved_px = _corner_px(motion, model_size)
        if moved_px > FAR_PX:
            clean = _warp(clean, motion, model_size)
            small = to_model_frame(clean, model_size)
            found = calibrate(small_plate, small, covered)
        else:
            moved_px = 0.0
    else:
        found = replace(found, shift=(0.0, 0.0))
    return FittedClean(_condition(plate, clean, covered, found, model_size), found, moved_px)


def _condition(
    plate: Floats, clean: Floats, covered: Bools, found: Calibration, model_size: tuple[int, int]
) -> Floats:
    """Grade and shift at plate size what was measured at model size."""
    height, width = plate.shape[:2]
    ratio = (width / model_size[0], height / model_size[1])
    at_plate = replace(found, shift=(found.shift[0] * ratio[0], found.shift[1] * ratio[1]))
    if (width, height) != model_size:
        wide = covered.astype(np.uint8)
        covered = cv2.resize(wide, (width, height), interpolation=cv2.INTER_NEAREST) > 0
    return np.asarray(condition_frame(plate, clean, covered, at_plate), np.float32)


def _corner_px(motion: NDArray[np.float64], model_size: tuple[int, int]) -> float:
    """Return how far a homography moves the corner that it moves most, in model pixels."""
    w, h = model_size
    corners = np.array([[0, 0, 1], [w, 0, 1], [0, h, 1], [w, h, 1]], np.float64)
    there = corners @ motion.T
    return float(np.abs(there[:, :2] / there[:, 2:] - corners[:, :2]).max())


def _warp(clean: Floats, motion: NDArray[np.float64], model_size: tuple[int, int]) -> Floats:
    """Look every plate pixel up in the clean plate; ``motion`` is plate to clean, model pixels."""
    height, width = clean.shape[:2]
    sx, sy = width / model_size[0], height / model_size[1]
    # Pixel centres: x_plate = (x_model + 0.5) * s - 0.5.
    up = np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]], np.float64)
    there = up @ motion @ np.linalg.inv(up)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    warped = cv2.warpPerspective(
        clean, there, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(warped, np.float32)
