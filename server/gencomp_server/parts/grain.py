# SPDX-License-Identifier: Apache-2.0
"""The plate's grain, made again and put on what came into a frame without it.

Grain is how far samples lie from the light that they stand for: per channel a standard deviation
that depends on that channel's own light (``sigma``), how neighbouring samples hang together
(``correlation``) and how the channels do (``channels``). ``grainmeter.py`` measures it.

Added is only what is lacking: a pixel that is part the plate's own has part of its grain, and a
pixel that is all the plate's own, under a gain or not, gets none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.parts.change import Changed

    Floats = NDArray[np.float32]

REACH_PX = 6
"""Farthest neighbour, on either side, to which correlation is known."""

_TRANSFORM_PX = 32
_LEAST_TAP = 1e-2  # of a kernel's greatest
_STRIP_ROWS = 64


@dataclass(frozen=True)
class Grain:
    """A shot's grain.

    Attributes:
        levels: Light at which it was measured, per channel, rising. [K,3] float32, scene-linear.
        sigma: Standard deviation there. [K,3] float32, >= 0, scene-linear.
        correlation: Of a sample with its neighbours, per channel; 1 in the middle, symmetric.
            [3,2*REACH_PX+1,2*REACH_PX+1] float32, -1..1.
        channels: Of the channels at one pixel. [3,3] float32, -1..1, 1 on the diagonal.
    """

    levels: Floats
    sigma: Floats
    correlation: Floats
    channels: Floats

    @property
    def is_none(self) -> bool:
        """Tell whether the plate has no grain, so that nothing is ever added."""
        return not self.sigma.any()

    def sigma_at(self, light: NDArray[np.floating]) -> Floats:
        """Return sigma for colours; level beyond the levels. [n,3] in and out, float32."""
        found = np.empty(light.shape, np.float32)
        for c in range(3):
            found[:, c] = np.interp(light[:, c], self.levels[:, c], self.sigma[:, c])
        return found


def no_grain() -> Grain:
    """Return what a plate without grain has."""
    middle = np.zeros((3, 2 * REACH_PX + 1, 2 * REACH_PX + 1), np.float32)
    middle[:, REACH_PX, REACH_PX] = 1
    nothing = np.zeros((1, 3), np.float32)
    return Grain(nothing, nothing, middle, np.eye(3, dtype=np.float32))


# --- making --------------------------------------------------------------------------------------


def field(
    shape: tuple[int, int],
    grain: Grain,
    generator: np.random.Generator,
    rows: tuple[int, int] | None = None,
) -> Floats:
    """Make grain of standard deviation one that hangs together like the plate's.

    Args:
        shape: (H, W) of the frame.
        grain: The plate's.
        generator: What it is made from; the same gives the same, bit for bit.
        rows: (first, last), exclusive end: only these rows, as they are in the whole frame.

    Returns:
        [rows,W,3] float32.
    """
    kernels, mix = _kernels(grain)
    reach = max(max(kernel.shape) // 2 for kernel in kernels)
    y0, y1 = rows or (0, shape[0])
    noise = _white((y0, y1 + 2 * reach), shape[1] + 2 * reach, generator) @ mix.T
    out = np.empty((y1 - y0, shape[1], 3), np.float32)
    inner = np.s_[reach : reach + y1 - y0, reach : reach + shape[1]]
    for c, kernel in enumerate(kernels):
        plane = np.ascontiguousarray(noise[..., c])
        out[..., c] = cv2.filter2D(plane, cv2.CV_32F, kernel)[inner] if reach else plane[inner]
    return out


def _white(rows: tuple[int, int], width: int, generator: np.random.Generator) -> Floats:
    """Return some rows of white noise: made in strips, so that others need not be made."""
    base = [int(word) for word in generator.integers(0, 1 << 32, size=4)]
    first, last = rows[0] // _STRIP_ROWS, -(-rows[1] // _STRIP_ROWS)
    out = np.empty(((last - first) * _STRIP_ROWS, width, 3), np.float32)
    for i, strip in enumerate(range(first, last)):
        made = np.random.Generator(np.random.PCG64([*base, strip]))
        made.standard_normal(out=out[i * _STRIP_ROWS : (i + 1) * _STRIP_ROWS], dtype=np.float32)
    begin = rows[0] - first * _STRIP_ROWS
    return out[begin : begin + rows[1] - rows[0]]


def _kernels(grain: Grain) -> tuple[list[Floats], Floats]:
    """Return filters that make white noise hang together, and what mixes the channels first."""
    kernels = [_kernel(one) for one in grain.correlation]
    full = [np.zeros((2 * REACH_PX + 1,) * 2) for _ in kernels]
    for whole, kernel in zip(full, kernels, strict=True):
        trim = REACH_PX - kernel.shape[0] // 2
        whole[trim : trim + kernel.shape[0], trim : trim + kernel.shape[0]] = kernel
    shared = np.array([[(a * b).sum() for b in full] for a in full])
    wanted = np.clip(grain.channels / np.maximum(shared, 0.1), -1, 1)
    values, vectors = np.linalg.eigh(wanted)
    root = vectors * np.sqrt(np.maximum(values, 0))
    root /= np.sqrt((root**2).sum(axis=1, keepdims=True))
    return kernels, root.astype(np.float32)


def _kernel(correlation: Floats) -> Floats:
    """Return the symmetric filter of unit energy whose output has a correlation."""
    size = _TRANSFORM_PX
    around = np.arange(-REACH_PX, REACH_PX + 1)
    padded = np.zeros((size, size))
    padded[np.ix_(around, around)] = correlation
    # What no filter can have is left out: a measured correlation is not quite a possible one.
    power = np.maximum(np.fft.fft2(padded).real, 0)
    kernel = np.fft.ifft2(np.sqrt(power)).real[np.ix_(around, around)]
    far = np.abs(kernel) > _LEAST_TAP * np.abs(kernel).max()
    ys, xs = np.nonzero(far)
    reach = int(max(np.abs(ys - REACH_PX).max(), np.abs(xs - REACH_PX).max()))
    part = np.s_[REACH_PX - reach : REACH_PX + reach + 1]
    kernel = kernel[part, part]
    return np.asarray(kernel / np.sqrt((kernel**2).sum()), np.float32)


# --- adding --------------------------------------------------------------------------------------


def lacking(grain: Grain, light: Floats, own_sigma: NDArray[np.floating]) -> Floats:
    """Return the sigma to add so that a colour's grain becomes the plate's: variances add.

    Args:
        grain: The plate's.
        light: Colours. [n,3] float32, scene-linear.
        own_sigma: Of the grain that they have. [n,3], >= 0.

    Returns:
        [n,3] float32, >= 0; 0 where there is enough.
    """
    wanted = grain.sigma_at(light)
    rest = wanted * wanted - np.square(own_sigma, dtype=np.float32)
    return np.asarray(np.sqrt(np.maximum(rest, 0)), np.float32)


def grained(
    colours: Floats, foreign: NDArray[np.floating], own_sigma: Floats, grain: Grain, noise: Floats
) -> Floats:
    """Give colours the grain they lack for what of them is not the frame's own.

    What is the frame's own is taken to hold grain in proportion to its light, as it does under a
    gain: with a share of ``1 - foreign`` it has ``(1 - foreign)**2`` of the variance, and only the
    rest of the variance may be added.

    Args:
        colours: [n,3] float32, scene-linear.
        foreign: Share of their light that was generated or taken from another frame. [n], 0..1.
        own_sigma: Of the grain that they have. [n,3] float32, >= 0.
        grain: The plate's.
        noise: Of :func:`field` at these pixels. [n,3] float32.

    Returns:
        [n,3] float32: bit for bit ``colours`` where nothing is lacking; not negative where they
        are not.
    """
    share = np.clip(np.asarray(foreign, np.float32), 0, 1)[:, None]
    most = grain.sigma_at(colours) * np.sqrt(share * (2 - share))
    sigma = np.minimum(lacking(grain, colours, own_sigma), most)
    given = np.maximum(colours + sigma * noise, np.minimum(colours, 0))
    return np.asarray(np.where(sigma > 0, given, colours), np.float32)


def grain_change(
    plate: Floats, changed: Changed, grain: Grain, generator: np.random.Generator
) -> Changed:
    """Give what was generated in a changed plate the plate's grain.

    Args:
        plate: [H,W,3] float32, scene-linear, finite.
        changed: Its changed pixels.
        grain: The plate's.
        generator: Of this frame.

    Returns:
        The same with grained colours; the very same where there is nothing to add.
    """
    at = np.flatnonzero(changed.made > 0)
    if grain.is_none or not at.size:
        return changed
    index, made = changed.index[at], changed.made[at]
    before, colours = plate.reshape(-1, 3)[index], changed.colours[at]
    # What is the plate's own of a colour is the plate under a gain, and so is its grain.
    lit = np.maximum(before, np.float32(1e-6))
    gain = np.clip((1 - made)[:, None] * colours / lit, 0, 1)
    own = np.asarray(gain * grain.sigma_at(before), np.float32)
    given = changed.colours.copy()
    given[at] = grained(colours, made, own, grain, _at_pixels(plate.shape, index, grain, generator))
    return replace(changed, colours=given)


def fill_grain(
    picture: Floats,
    foreign: NDArray[np.floating],
    grain: Grain,
    had: NDArray[np.floating] | None,
    generator: np.random.Generator,
) -> None:
    """Give what is not a frame's own the plate's grain, in place.

    Args:
        picture: [H,W,3] float32, scene-linear, finite; changed where ``foreign`` is above 0.
        foreign: Share that was generated or taken from another frame. [H,W] or [H,W,1], 0..1.
        grain: The plate's.
        had: Share of the plate's grain that the foreign part has already. [H,W], 0..1; None: none.
        generator: Of this frame.
    """
    share = np.asarray(foreign, np.float32).reshape(-1)
    index = np.flatnonzero(share > 0)
    if grain.is_none or not index.size:
        return
    flat = picture.reshape(-1, 3)
    colours, share = flat[index], share[index]
    own = np.zeros_like(colours)
    if had is not None:
        own = np.asarray(had, np.float32).reshape(-1)[index, None] * grain.sigma_at(colours)
    noise = _at_pixels(picture.shape, index, grain, generator)
    flat[index] = grained(colours, share, own, grain, noise)


def _at_pixels(
    shape: tuple[int, ...], index: NDArray[np.intp], grain: Grain, generator: np.random.Generator
) -> Floats:
    """Return a field at some pixels, in rising order. [n,3] float32."""
    first, last = int(index[0]) // shape[1], int(index[-1]) // shape[1] + 1
    made = field((shape[0], shape[1]), grain, generator, (first, last))
    return np.asarray(made.reshape(-1, 3)[index - first * shape[1]], np.float32)
