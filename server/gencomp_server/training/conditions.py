# SPDX-License-Identifier: Apache-2.0
"""From prepared clips to what stands in front of a transformer, and what the loss is.

Latents are float32 [1,T',C,h,w]. What is encoded is encoded by the frozen VAE as a job encodes it:
the mode of its distribution, scaled.

Sources: v-prediction, Salimans and Ho 2022; the identity-preservation loss, Split-then-Merge eq. 4;
mask of the foreground's latents and its pooling from that project's public code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from gencomp_server.parts.merging import pooled
from gencomp_server.parts.schedule import TRAIN_STEPS, signal_levels
from gencomp_server.training.recipes import IDENTITY, TRIMASK, Prepared, Recipe

if TYPE_CHECKING:
    from gencomp_server.models.cogvideox import CogVideoXBackbone

IDENTITY_ALPHA = 0.5
_LEVELS = signal_levels()


@dataclass(frozen=True)
class Example:
    """One clip in front of the transformer, on the backbone's device.

    Attributes:
        picture: Latents that the model is to give. [1,T',16,h,w].
        condition: Channels beside the noise. [1,T',K,h,w].
        caption: What the model is told.
        subject: 1 where the subject is, else 0, for the identity loss. [1,T',1,h,w].
    """

    picture: Tensor
    condition: Tensor
    caption: str
    subject: Tensor | None = None


def example(prepared: Prepared, recipe: Recipe, backbone: CogVideoXBackbone) -> Example:
    """Encode a prepared clip.

    Args:
        prepared: What the recipe made.
        recipe: Which.
        backbone: Its VAE encodes.
    """
    picture = backbone.encode(prepared.target)
    if prepared.blank:
        channels = backbone.spec.architecture.condition_channels
        nothing = torch.zeros_like(picture[:, :, :1]).repeat(1, 1, channels, 1, 1)
        return Example(picture, nothing, prepared.caption)
    subject = None
    if recipe.loss == IDENTITY:
        assert prepared.subject is not None, recipe.name
        subject = torch.from_numpy(pooled(prepared.subject)).to(picture)
    make = _beside_trimask if recipe.condition == TRIMASK else _joined
    return Example(picture, make(prepared, backbone), prepared.caption, subject)


def _beside_trimask(prepared: Prepared, backbone: CogVideoXBackbone) -> Tensor:
    assert prepared.trimask is not None
    return backbone.condition(backbone.encode(prepared.videos["known"]), prepared.trimask)


def _joined(prepared: Prepared, backbone: CogVideoXBackbone) -> Tensor:
    layers = {name: backbone.encode(video) for name, video in prepared.videos.items()}
    first = next(iter(layers.values()))
    if prepared.shown is not None:
        layers["fg"] = layers["fg"] * torch.from_numpy(pooled(prepared.shown)).to(first)
    if prepared.inflated is not None:
        from gencomp_server.parts.inflate import to_latent

        editable = np.asarray(to_latent(prepared.inflated), np.float32)
        layers["mask"] = torch.from_numpy(editable[None, :, None]).to(first)
    return backbone.join(layers)


# --- noise ---------------------------------------------------------------------------------------


def noisy(picture: Tensor, noise: Tensor, timesteps: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return noisy latents and the v that a model should predict for them.

    Args:
        picture: [B,T',C,h,w].
        noise: Standard normal, the same shape.
        timesteps: One a clip, 0 to 999.

    Returns:
        ``sqrt(a) picture + sqrt(1 - a) noise`` and ``sqrt(a) noise - sqrt(1 - a) picture``.
    """
    levels = torch.tensor([_LEVELS[t] for t in timesteps], dtype=torch.float64)
    shape = -1, *[1] * (picture.dim() - 1)
    signal = levels.sqrt().to(picture).view(shape)
    dirt = (1 - levels).sqrt().to(picture).view(shape)
    return signal * picture + dirt * noise, signal * noise - dirt * picture


def draw_timestep(rng: np.random.Generator) -> int:
    """Draw a timestep, all of even chance."""
    return int(rng.integers(0, TRAIN_STEPS))


# --- losses --------------------------------------------------------------------------------------


def loss_of(
    predicted: Tensor, wanted: Tensor, subject: Tensor | None, alpha: float = IDENTITY_ALPHA
) -> Tensor:
    """Return the loss of a batch: the mean square error of v, or the identity-preserving one.

    The error of the picture, weighted by ``1 / (1 - a)`` as these models are trained, is the error
    of v: ``picture = sqrt(a) noisy - sqrt(1 - a) v``.

    Args:
        predicted: [B,T',C,h,w].
        wanted: [B,T',C,h,w].
        subject: Where the subject is, in 0..1; None for the plain loss. [B,T',1,h,w].
        alpha: Share of the subject.
    """
    error = (predicted - wanted).square()
    if subject is None:
        return error.mean()
    return identity_loss(error, subject, alpha)


def identity_loss(error: Tensor, subject: Tensor, alpha: float) -> Tensor:
    """Weigh subject and background against each other, whatever their size. Eq. 4.

    Args:
        error: Squared. [B,T',C,h,w].
        subject: 1 on the subject. [B,T',1,h,w].
        alpha: Share of the subject; a clip without one, or with nothing else, is judged by what it
            has.
    """
    inside = subject.expand_as(error).flatten(1)
    outside, flat = 1 - inside, error.flatten(1)
    areas = inside.sum(1), outside.sum(1)
    means = [
        (flat * where).sum(1) / area.clamp_min(1e-6)
        for where, area in zip((inside, outside), areas, strict=True)
    ]
    weights = [
        share * (area > 0).to(flat) for share, area in zip((alpha, 1 - alpha), areas, strict=True)
    ]
    total = weights[0] * means[0] + weights[1] * means[1]
    return (total / (weights[0] + weights[1]).clamp_min(1e-6)).mean()
