# SPDX-License-Identifier: Apache-2.0
"""The shot's noise floor: what grain can do, so that grain becomes neither alpha nor residual.

It is measured where nothing covers, as the spread of plate minus clean plate by luminance of the
clean plate (a shadow beyond the mattes then sits in the bin of its lit neighbours, where it is an
outlier). Differences are looked at twice: sample by sample, and averaged over a small box, whose
spread tells how the grain hangs together.

Frames are [H,W,C] float32, scene-linear, at the size at which the floor is used: grain at plate
size is not grain at model size.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Bools = NDArray[np.bool_]

# Turns a median absolute deviation into a standard deviation, for Gaussian noise.
_MAD_TO_SIGMA = 1.4826
# Side of the box in which evidence is gathered, in pixels.
_BOX_PX = 5
# Samples kept per frame: the deviation is then known to half a per cent.
_SAMPLES = 40_000
# Luminance bins hold equal numbers of samples, but never fewer than this.
_LEAST_IN_BIN = 400
# Evidence in sigma of the averaged difference. Below WEAK it is grain; STRONG never is: over a 4K
# frame of Gaussian grain, equal in all channels, one sample in 60 frames.
WEAK, STRONG = 3.0, 6.5
# A difference smaller than this is none even in a noiseless shot: half's own step, and black.
_LEAST_RELATIVE, _LEAST_SIGMA = 2.0**-11, 2e-5
_FEATHER_PX = 2


@dataclass(frozen=True)
class NoiseFloor:
    """Standard deviation of plate minus clean plate where nothing covers.

    Attributes:
        levels: Mean of R, G and B at which it was measured, rising. [K] float32, scene-linear.
        sigma: Of single samples, per channel. [K,3] float32, >= 0.
        sigma_box: Of averages over a box of 5x5 samples, per channel. [K,3] float32, >= 0.
    """

    levels: Floats
    sigma: Floats
    sigma_box: Floats

    def sigma_at(self, light: Floats) -> Floats:
        """Return sigma of single samples for colours. [3,n] in and out, float32."""
        return _look_up(self.levels, self.sigma, light)

    def sigma_box_at(self, light: Floats) -> Floats:
        """Return sigma of 5x5 averages for colours. [3,n] in and out, float32."""
        return _look_up(self.levels, self.sigma_box, light)

    def floor(self, plate: Floats, *, sigmas: float = 3.0) -> Floats:
        """Return how far any channel may be off by grain alone.

        Args:
            plate: [H,W,3] float32, scene-linear.
            sigmas: How many standard deviations.

        Returns:
            [H,W,1] float32, scene-linear, > 0.
        """
        height, width = plate.shape[:2]
        limit = np.float32(sigmas) * self.sigma_at(_columns(plate)).max(axis=0)
        return np.asarray(limit.reshape(height, width, 1), np.float32)


def _look_up(levels: Floats, table: Floats, light: Floats) -> Floats:
    luma = (light[0] + light[1] + light[2]) * np.float32(1 / 3)
    least = np.maximum(np.abs(luma) * np.float32(_LEAST_RELATIVE), np.float32(_LEAST_SIGMA))
    found = np.empty_like(light, dtype=np.float32)
    for channel in range(3):
        found[channel] = np.interp(luma, levels, table[:, channel])
    np.maximum(found, least, out=found)
    return found


def _columns(frame: Floats) -> Floats:
    return np.ascontiguousarray(frame.reshape(-1, 3).T, dtype=np.float32)


def measure_noise(frames: Iterable[tuple[Floats, Floats, Bools]], *, bins: int = 6) -> NoiseFloor:
    """Measure the noise floor from a few frames of a shot.

    Args:
        frames: Plate [H,W,3] float32, clean plate [H,W,3] float32, and where something may cover
            [H,W] bool (mattes, grown by what they cast as far as that is known).
        bins: Most luminance bins; fewer where samples are few.

    Returns:
        The floor; all zeros where no frame has an uncovered pixel.
    """
    light, single, boxed = [], [], []
    for plate, clean, covered in frames:
        at = _pick(plate, clean, covered)
        difference = np.where(np.isfinite(plate) & np.isfinite(clean), plate - clean, 0)
        mean = cv2.blur(difference.astype(np.float32), (_BOX_PX, _BOX_PX))
        light.append(clean.reshape(-1, 3)[at].mean(axis=1))
        single.append(difference.reshape(-1, 3)[at])
        boxed.append(mean.reshape(-1, 3)[at])
    if not light or not sum(map(len, light)):
        zero = np.zeros((1, 3), np.float32)
        return NoiseFloor(np.zeros(1, np.float32), zero, zero)
    return _tabulate(np.concatenate(light), np.concatenate(single), np.concatenate(boxed), bins)


def _pick(plate: Floats, clean: Floats, covered: Bools) -> NDArray[np.intp]:
    """Return evenly spread indices of pixels whose whole box is uncovered and finite."""
    bad = covered | ~np.isfinite(plate).all(axis=2) | ~np.isfinite(clean).all(axis=2)
    bad = cv2.dilate(bad.astype(np.uint8), np.ones((_BOX_PX, _BOX_PX), np.uint8)) > 0
    at = np.flatnonzero(~bad)
    return at[:: max(1, at.size // _SAMPLES)]


def _tabulate(light: Floats, single: Floats, boxed: Floats, bins: int) -> NoiseFloor:
    order = np.argsort(light, kind="stable")
    parts = np.array_split(order, max(1, min(bins, order.size // _LEAST_IN_BIN)))
    return NoiseFloor(
        np.array([np.median(light[p]) for p in parts], np.float32),
        np.array([_spread(single[p]) for p in parts], np.float32),
        np.array([_spread(boxed[p]) for p in parts], np.float32),
    )


def _spread(x: Floats) -> Floats:
    """Return the robust standard deviation of each column. [n,3] in, [3] out."""
    spread = _MAD_TO_SIGMA * np.median(np.abs(x - np.median(x, axis=0)), axis=0)
    return np.asarray(spread, np.float32)


def evidence(plate: Floats, clean: Floats, noise: NoiseFloor) -> Floats:
    """Return how many sigma the plate is away from the clean plate, over a small box.

    Args:
        plate: [H,W,3] float32, scene-linear; what is not finite counts as no difference.
        clean: [H,W,3] float32, scene-linear.
        noise: The shot's floor.

    Returns:
        Root of the mean over the channels. [H,W] float32, >= 0.
    """
    height, width = plate.shape[:2]
    found = np.empty((height, width), np.float32)
    rows = max(16, (1 << 18) // width)
    for y0 in range(0, height, rows):
        y1, margin = min(y0 + rows, height), _BOX_PX // 2
        top, bottom = max(0, y0 - margin), min(height, y1 + margin)
        p, b = plate[top:bottom].astype(np.float32), clean[top:bottom].astype(np.float32)
        difference = p - b
        difference[~np.isfinite(difference)] = 0
        # The border rule acts at the picture's edge alone: strips bring their neighbours' rows.
        mean = cv2.blur(difference, (_BOX_PX, _BOX_PX))[y0 - top : y1 - top]
        light = np.nan_to_num(b[y0 - top : y1 - top], posinf=0, neginf=0)
        z = _columns(mean) / noise.sigma_box_at(_columns(light))
        found[y0:y1] = np.sqrt((z * z).mean(axis=0)).reshape(y1 - y0, width)
    return found


def coverage(
    alpha: Floats,
    plate: Floats,
    clean: Floats,
    noise: NoiseFloor,
    *,
    matte: Floats | None = None,
) -> Floats:
    """Return where layers may cover: above the noise floor, so that grain never becomes alpha.

    A region of weak evidence counts only where it holds strong evidence or touches the matte. It
    starts with a soft edge, inwards, except at the matte and where the evidence is strong.

    Args:
        alpha: What the solver found. [H,W,1] float32, 0..1.
        plate: [H,W,3] float32, scene-linear.
        clean: [H,W,3] float32, scene-linear.
        noise: The shot's floor at this size.
        matte: The objects' mattes together; covered wherever it is > 0. [H,W,1] float32, 0..1.

    Returns:
        What to multiply alpha by; 0 where nothing may cover. [H,W,1] float32, 0..1.
    """
    z = evidence(plate, clean, noise)
    present = alpha[..., 0] > 0
    strong = present & (z > STRONG)
    held = np.zeros_like(present) if matte is None else matte[..., 0] > 0
    weak = present & ((z > WEAK) | held)
    kept = _components_with(weak, strong | (held & present))
    soft = cv2.erode(kept.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.float32)
    side = 2 * _FEATHER_PX + 1
    soft = np.minimum(cv2.blur(soft, (side, side)) * np.float32(2), 1) * kept
    soft[kept & (strong | held)] = 1
    return np.asarray(soft[..., None], np.float32)


def _components_with(region: Bools, seeds: Bools) -> Bools:
    """Return the 8-connected components of a region that hold a seed."""
    count, labels = cv2.connectedComponents(region.astype(np.uint8), connectivity=8)
    seeded = np.zeros(count, bool)
    seeded[labels[seeds & region]] = True
    seeded[0] = False
    kept: Bools = seeded[labels]
    return kept
