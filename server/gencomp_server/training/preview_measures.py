# SPDX-License-Identifier: Apache-2.0
"""What the preview's training and benchmark measure on clips whose truth is known.

Pictures are scene-linear, [...,T,H,W,3] float32, >= 0; masks [...,T,H,W,1] bool or 0..1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

CHANGED_CODE = 0.02
"""A pixel counts as changed where its code, 0..1, moves by more than this in some channel."""


def changed_pixels(before: Tensor, after: Tensor) -> Tensor:
    """Return where two pictures in model range, -1..1, differ visibly. [...,3] -> [...,1] bool."""
    return ((after - before).abs().amax(-1, keepdim=True) > 2 * CHANGED_CODE).bool()


def psnr(found: Tensor, truth: Tensor, mask: Tensor) -> float:
    """Return the PSNR inside a mask against a peak of 1, in dB.

    Light above 1 counts as 1 in both, as on a display; NaN where the mask is empty.
    """
    weight = mask.float().expand_as(found)
    total = float(weight.sum())
    if total == 0:
        return math.nan
    error = ((found.clamp(0, 1) - truth.clamp(0, 1)).square() * weight).sum() / total
    return -10 * math.log10(max(float(error), 1e-10))


def share_inside(change: Tensor, mask: Tensor) -> float:
    """Return the share of a change's energy that lies inside a mask, 0..1; NaN without change."""
    energy = change.square().sum(-1, keepdim=True)
    total = float(energy.sum())
    return float((energy * mask.float()).sum()) / total if total > 0 else math.nan


def share_removed(plate: Tensor, found: Tensor, truth: Tensor, mask: Tensor) -> float:
    """Return the share of an effect's energy inside a mask that is gone, at most 1.

    What is left is the error after removal; with the plate unchanged the share is 0.
    """
    weight = mask.float()
    before = float(((plate - truth).square() * weight).sum())
    after = float(((found - truth).square() * weight).sum())
    return 1 - after / before if before > 0 else math.nan


def correlation(found: Tensor, truth: Tensor, mask: Tensor) -> float:
    """Return how alike two changes of light inside a mask are, -1..1; NaN where one has no form."""
    inside = mask.expand_as(found).bool()
    pair = torch.stack((found[inside].float(), truth[inside].float()))
    if pair.shape[1] < 2 or float(pair.std(1).min()) == 0:
        return math.nan
    return float(torch.corrcoef(pair)[0, 1])


def energy(change: Tensor) -> float:
    """Return the mean square of a change."""
    return float(change.square().mean())


def centre(weight: Tensor) -> float:
    """Return the mean column of a weight, in picture widths. [T,H,W,C]."""
    columns = weight.sum((0, 1, 3))
    places = (torch.arange(len(columns)) + 0.5) / len(columns)
    return float((columns * places).sum() / columns.sum().clamp_min(1e-9))


def edginess(change: Tensor) -> float:
    """Return how steep a change is for its size: high for hard edges. [T,H,W,C]."""
    across = (change[:, :, 1:] - change[:, :, :-1]).square().mean()
    down = (change[:, 1:] - change[:, :-1]).square().mean()
    return float(((across + down) / change.square().mean().clamp_min(1e-12)).sqrt())


def hue_error(colour: Tensor, at: int) -> float:
    """Return how many degrees a colour's hue is from red, green or blue (0, 1, 2). [3]."""
    angles = torch.tensor([0.0, 2 * math.pi / 3, 4 * math.pi / 3])
    x, y = float((colour * angles.cos()).sum()), float((colour * angles.sin()).sum())
    away = math.degrees(math.atan2(y, x)) - 120.0 * at
    return abs((away + 180) % 360 - 180)


def blockiness(found: Tensor, truth: Tensor, every: int) -> float:
    """Return how much larger steps of the error are at the borders of blocks than between them.

    Args:
        found: Codes. [T,H,W,3].
        truth: The same.
        every: Pixels of a block.

    Returns:
        1 for no block at all.
    """
    error = found - truth
    shares = []
    for dim in (1, 2):
        steps = error.diff(dim=dim).abs().movedim(dim, 0).flatten(1).mean(1)
        at = torch.arange(1, error.shape[dim]) % every == 0
        shares.append(steps[at].mean() / steps[~at].mean())
    return float(torch.stack(shares).mean())
