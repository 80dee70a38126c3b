# SPDX-License-Identifier: Apache-2.0
"""Seeded draws and fractal fields for the preview's shots, a whole batch at a time.

All chance comes from one numpy generator, so that equal seeds give equal bits whatever the device
that the pictures are made on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_TILE = 128


class Draws:
    """Draws of one batch.

    Args:
        seed: Whole numbers of at least 0; equal ones give equal draws.
        device: Where tensors are put.
    """

    def __init__(self, seed: Sequence[int], device: str = "cpu") -> None:
        self._rng = np.random.Generator(np.random.SFC64(np.random.SeedSequence(tuple(seed))))
        self.device = device

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Return values of even chance in [low, high), float32."""
        values = self._rng.random(shape, dtype=np.float32) * np.float32(high - low)
        return torch.from_numpy(values + np.float32(low)).to(self.device)

    def log_uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Return values in [low, high) whose logarithms have even chance, float32."""
        return self.uniform(float(np.log(low)), float(np.log(high)), *shape).exp()

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal values, float32."""
        values = self._rng.standard_normal(shape, dtype=np.float32)
        return torch.from_numpy(values).to(self.device)

    def flags(self, chance: float, *shape: int) -> Tensor:
        """Return True with a chance, bool."""
        return self.uniform(0.0, 1.0, *shape) < chance

    def integers(self, below: int, *shape: int) -> Tensor:
        """Return whole numbers from 0 to ``below`` - 1, int64."""
        return torch.from_numpy(self._rng.integers(0, below, shape)).to(self.device)

    def signs(self, *shape: int) -> Tensor:
        """Return -1 or 1, float32."""
        return self.integers(2, *shape).float() * 2 - 1

    def chosen(self, options: Sequence[int], *shape: int) -> Tensor:
        """Return some of ``options``, each of even chance, int64."""
        return torch.tensor(list(options), device=self.device)[self.integers(len(options), *shape)]

    def tiles(self, count: int, low: float, high: float) -> Tensor:
        """Return fractal fields that repeat without a seam.

        Args:
            count: How many.
            low: The amplitude of a spatial frequency f falls as f to the power -low, ...
            high: ... or as f to the power -high; drawn for each field. White is 0, clouds are 1.6.

        Returns:
            Mean 0, deviation 1. [count,128,128] float32.
        """
        power = self.uniform(low, high, count)[:, None, None]
        white = torch.fft.rfft2(self.normal(count, _TILE, _TILE))
        rows = torch.fft.fftfreq(_TILE, 1 / _TILE, device=self.device)[:, None]
        columns = torch.fft.rfftfreq(_TILE, 1 / _TILE, device=self.device)[None]
        frequency = (rows.square() + columns.square()).sqrt()
        frequency[0, 0] = 1.0
        shaped = white * frequency[None] ** -power
        shaped[:, 0, 0] = 0
        field = torch.fft.irfft2(shaped, s=(_TILE, _TILE))
        return field / field.std((1, 2), keepdim=True).clamp_min(1e-6)


def sampled(tiles: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """Sample fields that repeat every 1.

    Args:
        tiles: [N,S,S].
        u: To the right, any value. [N,...].
        v: Downwards, any value. [N,...].

    Returns:
        Bilinear samples. [N,...].
    """
    closed = torch.nn.functional.pad(tiles[:, None], (0, 1, 0, 1), mode="circular")
    at = torch.stack((u - u.floor(), v - v.floor()), -1).flatten(1, -2)[:, None] * 2 - 1
    found = torch.nn.functional.grid_sample(closed, at, align_corners=True)
    return found.reshape(u.shape)


def smooth(x: Tensor) -> Tensor:
    """Return the smooth step of values that are cut to [0, 1]."""
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)


def column(values: Tensor, dims: int) -> Tensor:
    """Return values with dimensions of size 1 behind, up to ``dims`` dimensions."""
    return values.reshape(*values.shape, *[1] * (dims - values.dim()))


def colours(draws: Draws, count: int, low: float = 0.03, high: float = 0.75) -> Tensor:
    """Return scene-linear colours as surfaces have them: mostly dull, some vivid. [count,3]."""
    light = draws.log_uniform(low, high, count)[:, None]
    hue = draws.uniform(0.0, 1.0, count)[:, None] + torch.tensor(
        [[0.0, -1 / 3, 1 / 3]], device=draws.device
    )
    vivid = draws.uniform(0.0, 1.0, count)[:, None] ** 2.2
    pure = 0.5 + 0.5 * torch.cos(2 * np.pi * hue)
    tint = 1 - vivid + vivid * pure * 1.6
    return light * tint
