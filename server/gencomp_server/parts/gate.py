# SPDX-License-Identifier: Apache-2.0
"""Where a sample differs from its reference by more than the shot's noise.

The noise floor is measured over the shot where nothing was asked for. A difference counts from
well above it, and then as far as it stays just above: in the picture and from frame to frame, so
that a faint effect neither comes in specks nor goes on and off.

Pictures are [h,w,3] at model size, in model range [-1,1], a little outside allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Bools = NDArray[np.bool_]

LEAST_SIGMA = 2e-4
"""The noise floor is never below this, in code 0..1: a noiseless shot has rounding left."""
MOST_SIGMA = 1e-2
"""And never above this: a picture that is further off is not noisy, the model changed it where it
was not asked to, and that is not held against what it made where it was."""
WEAK, STRONG = 2.0, 5.0
"""Sigma of the averaged difference: below WEAK it is noise, above STRONG it is a change."""
FLOOR_FRAMES = 12
"""Frames, about and evenly spread, that are enough to measure a shot's noise floor."""

_BOX_PX = 5
_MAD_TO_SIGMA, _QUARTILE_TO_SIGMA = 1.4826, 1 / 0.31864
_SAMPLES_PER_FRAME = 20_000
_LEAST_SAMPLES = 1_000
_COMMON = 0.25  # of a weak patch over a change of the frame beside it makes it that change


@dataclass(frozen=True)
class Floor:
    """The shot's noise floor at model size.

    Attributes:
        sigma: Of the difference averaged over 5x5 pixels, per channel, in code 0..1. [3] float32.
        outside: True where it was measured outside every mask; False where there was no outside,
            and it was taken from the quietest quarter of the whole picture.
        pixel: Sigma of single pixels. [3] float32. None: as if they were independent.
    """

    sigma: NDArray[np.float32]
    outside: bool
    pixel: NDArray[np.float32] | None = None

    @property
    def is_beyond_noise(self) -> bool:
        """Tell whether the model changed the picture where it was not asked to."""
        return self.outside and float(self.sigma.mean()) > MOST_SIGMA

    @property
    def single(self) -> NDArray[np.float32]:
        """Return sigma of single pixels, per channel, within what noise may be. [3] float32."""
        found = self.sigma * _BOX_PX if self.pixel is None else self.pixel
        bounds = np.float32(LEAST_SIGMA), np.float32(MOST_SIGMA * _BOX_PX)
        return np.asarray(np.clip(found, *bounds), np.float32)


def to_code(video: NDArray[np.floating]) -> Floats:
    """Return model range as code 0..1, clipped: what lies outside was never seen by the model."""
    code = np.asarray(video, np.float32) * np.float32(0.5) + np.float32(0.5)
    return np.asarray(np.clip(code, 0, 1), np.float32)


def measure_floor(
    frames: Iterable[tuple[NDArray[np.floating], NDArray[np.floating], Bools]],
    held: Sequence[Bools] | None = None,
) -> Floor:
    """Measure how far a sample is from its reference where nothing was asked for.

    The spread is taken about zero: a tone shift of the whole picture is the model's error too, and
    counts as noise.

    Args:
        frames: Reference and sample [h,w,3] in model range, and where a change was asked for or
            is possible [h,w] bool, of every frame of the shot.
        held: Where the model was held to its reference, which tells nothing of it. [h,w] of every
            frame; None: nowhere.
    """
    outside: list[Floats] = []
    anywhere: list[Floats] = []
    for i, (reference, sample, asked) in enumerate(frames):
        single = to_code(sample) - to_code(reference)
        both = np.abs(np.concatenate([_average(single), single], axis=2)).reshape(-1, 6)
        near = cv2.dilate(asked.astype(np.uint8), np.ones((_BOX_PX, _BOX_PX), np.uint8)).ravel()
        outside.append(_thinned(both[near == 0]))
        heard = both if held is None else both[~held[i].ravel()]
        anywhere.append(_thinned(heard))
    free = np.concatenate(outside) if outside else np.empty((0, 6), np.float32)
    if len(free) >= _LEAST_SAMPLES:
        sigma = np.asarray(_MAD_TO_SIGMA * np.median(free, axis=0), np.float32)
        return Floor(sigma[:3], True, sigma[3:])
    # Nothing is outside: up to three quarters of the picture may have changed.
    every = np.concatenate(anywhere)
    quiet = np.quantile(every, 0.25, axis=0) if len(every) else np.zeros(6)
    sigma = np.asarray(_QUARTILE_TO_SIGMA * quiet, np.float32)
    return Floor(sigma[:3], False, sigma[3:])


def _average(difference: Floats) -> Floats:
    return np.asarray(cv2.blur(difference, (_BOX_PX, _BOX_PX)), np.float32)


def _thinned(samples: Floats) -> Floats:
    # A view would keep the whole frame for as long as the shot's samples are kept.
    return samples[:: max(1, len(samples) // _SAMPLES_PER_FRAME)].copy()


# --- where ---------------------------------------------------------------------------------------


def gates(
    reference: NDArray[np.floating],
    sample: NDArray[np.floating],
    floor: Floor,
    allowed: Bools,
) -> NDArray[np.float16]:
    """Return where every frame of a shot changed.

    A patch that is only weakly above the floor counts where it holds a strong pixel, or where a
    good part of it lies over a change of the frame before or after. What changed before and after
    changed between, too.

    Args:
        reference: The plate through the VAE. [T,h,w,3], model range.
        sample: What the model made. [T,h,w,3], model range.
        floor: The shot's.
        allowed: Where a change may be at all. [T,h,w] bool.

    Returns:
        0 where there is no change, 1 where there is, with a soft edge outwards. [T,h,w,1] float16.
    """
    weak = np.zeros(sample.shape[:3], bool)
    kept = np.zeros(sample.shape[:3], bool)
    for i, (before, after, where) in enumerate(zip(reference, sample, allowed, strict=True)):
        weak[i], strong = _above(to_code(after) - to_code(before), floor, where)
        kept[i] = _patches(weak[i], strong)
    last = len(weak) - 1
    for i in range(1, last + 1):
        kept[i] |= _patches(weak[i], kept[i - 1], _COMMON)
    for i in range(last - 1, -1, -1):
        kept[i] |= _patches(weak[i], kept[i + 1], _COMMON)
    between = kept[:-2] & kept[2:] & allowed[1:-1]
    kept[1:-1] |= between
    return np.stack([_feathered(of).astype(np.float16) for of in kept])


def gate(
    reference: NDArray[np.floating], sample: NDArray[np.floating], floor: Floor, allowed: Bools
) -> Floats:
    """Return where one frame changed, judged by itself. [h,w,1] float32; see :func:`gates`."""
    weak, strong = _above(to_code(sample) - to_code(reference), floor, allowed)
    return _feathered(_patches(weak, strong))


def _above(difference: Floats, floor: Floor, allowed: Bools) -> tuple[Bools, Bools]:
    """Return where a difference is weakly and where it is strongly above the floor."""
    sigma = np.clip(floor.sigma, np.float32(LEAST_SIGMA), np.float32(MOST_SIGMA))
    z = _average(difference) / sigma
    z2 = (z * z).mean(axis=2)
    return (z2 > WEAK**2) & allowed, (z2 > STRONG**2) & allowed


def _patches(weak: Bools, sure: Bools, share: float = 0.0) -> Bools:
    """Return the patches of ``weak`` of which more than a share is sure. [h,w] bool."""
    if not sure.any() or not weak.any():
        return np.zeros_like(weak)
    count, labels = cv2.connectedComponents(weak.astype(np.uint8), connectivity=8)
    area = np.bincount(labels.ravel(), minlength=count)
    common = np.bincount(labels[sure], minlength=count)
    kept = common > share * area
    kept[0] = False
    return np.asarray(kept[labels], bool)


def _feathered(region: Bools) -> Floats:
    """Grow a region by one pixel and soften its edge. [h,w,1] float32."""
    grown = cv2.dilate(region.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.float32)
    return np.asarray(cv2.blur(grown, (3, 3))[..., None], np.float32)
