# SPDX-License-Identifier: Apache-2.0
"""The registered masked median of the preview's shots, and what no frame has seen.

What a job gathers with measured motion is gathered here with the camera's own, off by a little.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gencomp_server.training.preview_draws import Draws
from gencomp_server.training.preview_scene import Camera

_UNSEEN = 1e6


def gather(
    draws: Draws,
    camera: Camera,
    grid: tuple[Tensor, Tensor],
    plates: Tensor,
    hidden: Tensor,
    error: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return what lies behind, as far as any frame shows it.

    Args:
        draws: Where chance comes from.
        camera: At the middle of each frame's shutter. [B,T].
        grid: x and y of the pixels in picture heights. [H,W] each.
        plates: Codes or light. [B,T,3,H,W].
        hidden: 1 where a frame must not be used, else 0. [B,T,1,H,W].
        error: By how much registration is off, in picture heights. [B].

    Returns:
        The median over all frames of what is not hidden, filled from around where there is
        nothing, [B,T,3,H,W], and 1 where there was something. [B,T,1,H,W].
    """
    batch, frames, _, height, width = plates.shape
    x, y = (g[None, None].expand(batch, frames, height, width) for g in grid)
    x, y = camera.unrolled(x, y)
    rest = camera.at_rest(x, y)
    stack = torch.cat((plates, hidden), 2)
    shifts = draws.normal(batch, frames, frames, 2) * error[:, None, None, None]
    scales = 1 + draws.normal(batch, frames, frames) * error[:, None, None] * 0.7
    found = []
    for source in range(frames):
        one = camera.only(slice(source, source + 1))
        sx = rest - one.travel[..., None, None] * camera.nearness(y)
        sx, sy = one.rolled(sx, y)
        own = (torch.arange(frames, device=plates.device) == source)[None, :, None, None]
        scale = scales[:, :, source, None, None]
        dx, dy = (shifts[:, :, source, i, None, None] for i in (0, 1))
        px, py = (
            torch.where(own, grid[i][None, None], (p - half) * scale + half + d)
            for i, (p, half, d) in enumerate(((sx, camera.aspect / 2, dx), (sy, 0.5, dy)))
        )
        at = torch.stack((px / camera.aspect, py), -1) * 2 - 1
        outside = (at.abs() > 1 + 0.5 / height).any(-1)
        sampled = torch.nn.functional.grid_sample(
            stack[:, source],
            at.reshape(batch, frames * height, width, 2),
            padding_mode="border",
            align_corners=False,
        ).reshape(batch, 4, frames, height, width)
        unseen = (sampled[:, 3] > 0.02) | outside
        found.append(torch.where(unseen[:, None], _UNSEEN, sampled[:, :3]))
    median, seen = _median(found)
    median, seen = median.transpose(1, 2), seen.transpose(1, 2)
    return filled(median * seen, seen), seen


def _median(values: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the median of what is below ``_UNSEEN``, and whether there was any.

    Args:
        values: One of each frame. [B,3,T,H,W] each.
    """
    count = sum((v[:, :1] < _UNSEEN).long() for v in values)
    rows = list(values)
    for step in range(len(rows)):
        for i in range(step % 2, len(rows) - 1, 2):
            rows[i], rows[i + 1] = (
                torch.minimum(rows[i], rows[i + 1]),
                torch.maximum(rows[i], rows[i + 1]),
            )
    seen = count > 0
    low, high = (count - 1).clamp_min(0) // 2, count // 2
    made = torch.zeros_like(rows[0])
    for i, row in enumerate(rows):
        share = 0.5 * (low == i).float() + 0.5 * (high == i).float()
        made = made + torch.where(share > 0, row * share, torch.zeros_like(row))
    return made * seen, seen.float()


def filled(values: Tensor, known: Tensor) -> Tensor:
    """Fill what is not known from around, the farther the smoother.

    Args:
        values: 0 where not known. [B,T,C,H,W].
        known: 1 or 0. [B,T,1,H,W].
    """
    batch, frames = values.shape[:2]
    levels = [(values.flatten(0, 1), known.flatten(0, 1))]
    while min(levels[-1][0].shape[-2:]) > 1:
        value, weight = (
            torch.nn.functional.avg_pool2d(one, 2, ceil_mode=True, count_include_pad=False)
            for one in levels[-1]
        )
        levels.append((value, weight))
    whole = levels[-1]
    made = whole[0] / whole[1].clamp_min(1e-6)
    for value, weight in reversed(levels[:-1]):
        wide = torch.nn.functional.interpolate(
            made, size=value.shape[-2:], mode="bilinear", align_corners=False
        )
        share = (weight * 4).clamp(0, 1)
        made = wide + (value / weight.clamp_min(1e-6) - wide) * share
    first = levels[0][1]
    made = torch.where(first > 0, levels[0][0], made)
    return made.unflatten(0, (batch, frames))
