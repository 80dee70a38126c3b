# SPDX-License-Identifier: Apache-2.0
"""Mattes and masks of the preview's shots as artists draw them: near the truth, never on it."""

from __future__ import annotations

import torch
from torch import Tensor

from gencomp_server.training.preview_draws import Draws, column, sampled


def grown(mask: Tensor, pixels: int) -> Tensor:
    """Return masks grown by some pixels on all sides. [B,T,1,H,W]."""
    if pixels < 1:
        return mask
    for dim in (3, 4):
        size = mask.shape[dim]
        made = mask.clone()
        for by in range(1, min(pixels, size - 1) + 1):
            for to, of in ((0, by), (by, 0)):
                into = made.narrow(dim, to, size - by)
                torch.maximum(into, mask.narrow(dim, of, size - by), out=into)
        mask = made
    return mask


def _wobble(draws: Draws, fields: Tensor, like: Tensor, fine: float) -> Tensor:
    """Return smooth unevenness that jumps from frame to frame. [B,T,1,H,W]."""
    batch, frames, _, height, width = like.shape
    v, u = torch.meshgrid(
        torch.arange(height, device=like.device) / height,
        torch.arange(width, device=like.device) / height,
        indexing="ij",
    )
    du, dv = (draws.uniform(0, 1, batch, frames)[:, :, None, None] for _ in range(2))
    return sampled(fields[:, 1], u * fine + du, v * fine + dv)[:, :, None]


def roto(draws: Draws, coverage: Tensor, fields: Tensor, pixel: float) -> Tensor:
    """Return mattes as somebody drew or keyed them.

    Args:
        draws: Where chance comes from.
        coverage: The truth, 0..1. [B,T,1,H,W].
        fields: Fractal fields. [B,2,128,128].
        pixel: In picture heights; errors grow with the picture.

    Returns:
        Some are the truth, others hard, uneven, up to two 48ths of the picture too large or half
        of one too small, some misplaced. [B,T,1,H,W] in 0..1.
    """
    batch = len(coverage)
    step = max(1, round(1 / 48 / pixel))
    uneven = _wobble(draws, fields, coverage, 0.5)
    bias = draws.uniform(0.3, 0.62, batch)
    hard = coverage + 0.2 * column(draws.uniform(0, 1, batch), 5) * uneven
    hard = (hard > column(bias, 5)).float() * (grown(coverage, step) > 0.02)
    size = draws.integers(3, batch)
    for pixels in (1, 2):
        large = grown(hard, pixels * step)
        hard = torch.where(column(size == pixels, 5), large, hard)
    aside = draws.integers(3, batch, 2) - 1
    moved = hard
    for way, dim in ((0, -1), (1, -2)):
        for by in (-1, 1):
            chosen = (aside[:, way] == by) & draws.flags(0.3, batch)
            moved = torch.where(column(chosen, 5), torch.roll(moved, by, dim), moved)
    keyed = column(draws.flags(0.3, batch), 5)
    return torch.where(keyed, coverage, moved)


def effect_mask(draws: Draws, difference: Tensor, fields: Tensor, pixel: float) -> Tensor:
    """Return masks of effects as somebody drew them, generous and rough.

    Args:
        draws: Where chance comes from.
        difference: By how many codes the effect changes the picture. [B,T,1,H,W].
        fields: Fractal fields. [B,2,128,128].
        pixel: In picture heights.

    Returns:
        [B,T,1,H,W], 0 or 1.
    """
    batch = len(difference)
    step = max(1, round(1 / 48 / pixel))
    least = column(draws.log_uniform(0.012, 0.05, batch), 5)
    mask = (difference > least).float()
    # Specks are nobody's mask.
    smoothed = torch.nn.functional.avg_pool2d(mask.flatten(0, 1), 3, 1, 1)
    mask = (smoothed > 0.35).float().unflatten(0, mask.shape[:2])
    size = draws.integers(4, batch)
    wide = mask
    for pixels in (1, 2, 3):
        wide = torch.where(column(size == pixels, 5), grown(mask, pixels * step), wide)
    uneven = _wobble(draws, fields, mask, 0.6) * column(draws.uniform(0, 0.5, batch), 5)
    blurred = torch.nn.functional.avg_pool2d(wide.flatten(0, 1), 5, 1, 2)
    rough = (blurred.unflatten(0, mask.shape[:2]) + 0.4 * uneven > 0.4).float()
    rough = rough * grown(wide, 2 * step)
    still = rough.amax(1, keepdim=True).expand_as(rough)
    rough = torch.where(column(draws.flags(0.15, batch), 5), still, rough)
    columns = rough.amax(3, keepdim=True)
    rows = rough.amax(4, keepdim=True)
    boxed = _spanned(columns, 4) * _spanned(rows, 3)
    return torch.where(column(draws.flags(0.12, batch), 5), boxed, rough)


def _spanned(flags: Tensor, dim: int) -> Tensor:
    """Return flags that are set from the first to the last set one along a dimension."""
    after = flags.cummax(dim).values
    before = flags.flip(dim).cummax(dim).values.flip(dim)
    return after * before


def keyed_frames(draws: Draws, batch: int, frames: int) -> Tensor:
    """Return which frames somebody drew a mask on: all, the ends, some, the first, or none.

    Returns:
        [B,T] bool.
    """
    n = torch.arange(frames, device=draws.device)[None]
    ends = (n == 0) | (n == frames - 1)
    some = draws.flags(0.4, batch, frames) | (n == draws.integers(frames, batch)[:, None])
    kind = draws.uniform(0, 1, batch)[:, None]
    found = torch.where(kind < 0.42, torch.ones_like(some), ends)
    found = torch.where((kind >= 0.6) & (kind < 0.78), some, found)
    found = torch.where((kind >= 0.78) & (kind < 0.88), (n == 0).expand_as(some), found)
    return torch.where(kind >= 0.88, torch.zeros_like(some), found)
