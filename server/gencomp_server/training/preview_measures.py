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
