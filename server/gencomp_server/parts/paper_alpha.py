# SPDX-License-Identifier: Apache-2.0
"""The paper's own alpha optimisation: U-Net, losses, schedule and layer compositing, as a check.

Nothing that delivers pictures imports this. ``parts/alpha.py`` reaches the answer another way;
what is here lets a test or a benchmark ask what the published method would have said, and is held
to vectors made by the published code.

Tensors are ``[T,C,H,W]`` float32 in the display range 0..1; a frame is a batch entry. H and W are
multiples of 32, which the five strides of two need.

Source: generative-omnimatte §3.5, eq. 2-4; the numbers are those of the released code, which
differs from the text (masks, weights and schedule; no sigmoid at the output).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

# Released code: optimiser and its steps.
LEARNING_RATE = 5e-4
BETAS = (0.9, 0.99)
WEIGHT_DECAY = 0.01
LEARNING_RATE_STEPS = (500, 1000, 2000)
LEARNING_RATE_DROP = 0.1
# Released code: weights of the losses, and the step where the mask lets go.
RECONSTRUCTION_WEIGHT = 1.0
SPARSITY_L0_WEIGHT = 0.075
SPARSITY_L1_WEIGHT = 0.75
MASK_WEIGHT = 10.0
INSIDE_WEIGHT = 0.1
MASK_RELEASE_STEP = 1000

_KERNEL = 4
_LEAK = 0.2
# Channels per level, in units of nf; the last two encoder levels keep size and dilate.
_DOWN = (1, 2, 4, 4, 4)
_DILATED = (4, 4)
_UP = (4, 4, 2, 1, 1)


class Block(nn.Module):  # type: ignore[misc]
    """One convolution with its normalisation and activation, padded as TensorFlow's ``same``."""

    def __init__(
        self,
        conv: nn.Module,
        channels: int,
        pad: tuple[int, int],
        *,
        normalised: bool = True,
        leak: float | None = 0.0,
    ) -> None:
        super().__init__()
        self.conv = conv
        if normalised:
            self.norm = nn.BatchNorm2d(channels)
        self.normalised, self.pad, self.leak = normalised, pad, leak

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's answer. [T,C,H,W] in, [T,C',H',W'] out."""
        before, after = self.pad
        y = self.conv(functional.pad(x, (before, after, before, after)))
        if self.normalised:
            y = self.norm(y)
        return y if self.leak is None else functional.leaky_relu(y, self.leak)


def _down(inputs: int, outputs: int, *, first: bool) -> Block:
    conv = nn.Conv2d(inputs, outputs, _KERNEL, stride=2)
    return Block(conv, outputs, (1, 1), normalised=not first, leak=0.0 if first else _LEAK)


def _dilated(inputs: int, outputs: int) -> Block:
    conv = nn.Conv2d(inputs, outputs, _KERNEL, dilation=2)
    return Block(conv, outputs, (3, 3), leak=_LEAK)


def _up(inputs: int, outputs: int) -> Block:
    # The full answer is two pixels larger than twice the input; its rim is cropped.
    conv = nn.ConvTranspose2d(inputs, outputs, _KERNEL, stride=2, padding=1)
    return Block(conv, outputs, (0, 0))


class AlphaNet(nn.Module):  # type: ignore[misc]
    """The U-Net that turns a solo video and its error map into RGBA.

    Args:
        nf: Channels at the first level; the released model has 32.

    Source: generative-omnimatte §3.5 "Variables"; one network gives colour and alpha, as in the
    released code (the paper optimises colour directly).
    """

    def __init__(self, nf: int = 32) -> None:
        super().__init__()
        down = [6, *(nf * k for k in _DOWN)]
        deep = [down[-1], *(nf * k for k in _DILATED)]
        skips = down[:0:-1]
        up = [deep[-1], *(nf * k for k in _UP)]
        self.encoder = nn.ModuleList(
            [_down(a, b, first=i == 0) for i, (a, b) in enumerate(itertools.pairwise(down))]
            + [_dilated(a, b) for a, b in itertools.pairwise(deep)]
        )
        self.decoder = nn.ModuleList(
            [_up(a + s, b) for a, s, b in zip(up, skips, up[1:], strict=False)]
        )
        self.out_conv = Block(nn.Conv2d(up[-1], 4, _KERNEL), 4, (1, 2), normalised=False, leak=None)

    def forward(self, solo: Tensor, background: Tensor) -> Tensor:
        """Return colour and alpha, unbounded.

        Args:
            solo: Video with one object and its effects. [T,3,H,W] float32, 0..1.
            background: The same without them. [T,3,H,W] float32, 0..1.

        Returns:
            [T,4,H,W] float32: straight colour, then alpha.
        """
        x = torch.cat([solo, (solo - background).abs()], dim=1)
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(x)
            if level < len(_DOWN):
                skips.append(x)
        for block in self.decoder:
            x = block(torch.cat([x, skips.pop()], dim=1))
        answer: Tensor = self.out_conv(x)
        return answer


@dataclass(frozen=True)
class Weights:
    """What each loss counts at one step; ``inside`` counts only where ``mask`` is 0."""

    reconstruction: float
    sparsity_l0: float
    sparsity_l1: float
    mask: float
    inside: float


@dataclass(frozen=True)
class Losses:
    """The losses of one step, unweighted, and the weighted sum that is minimised."""

    reconstruction: Tensor
    sparsity_l0: Tensor
    sparsity_l1: Tensor
    mask: Tensor
    inside: Tensor
    total: Tensor


def weights_at(step: int, mask: Tensor) -> Weights:
    """Return the weights at a step.

    The mask term counts until ``MASK_RELEASE_STEP``; from there on only the inside of the mask is
    held, and gently. Sparsity counts in proportion to the mask's share of the picture.

    Args:
        step: Step of the optimiser, from 0.
        mask: Object mask. [T,1,H,W] float32, 0 or 1.
    """
    share = float(mask.mean())
    held = step < MASK_RELEASE_STEP
    return Weights(
        reconstruction=RECONSTRUCTION_WEIGHT,
        sparsity_l0=SPARSITY_L0_WEIGHT * share,
        sparsity_l1=SPARSITY_L1_WEIGHT * share,
        mask=MASK_WEIGHT if held else 0.0,
        inside=INSIDE_WEIGHT,
    )


def reconstruction_loss(rgba: Tensor, solo: Tensor, background: Tensor) -> Tensor:
    """Return the mean squared error of the layer over the background (eq. 2 and 3)."""
    colour, alpha = rgba[:, :3], rgba[:, 3:]
    return (alpha * colour + (1 - alpha) * background - solo).square().mean()


def sparsity_losses(alpha: Tensor) -> tuple[Tensor, Tensor]:
    """Return the approximate L0 and the L1 of alpha (eq. 4). [T,1,H,W] in, two scalars out."""
    return (2 * torch.sigmoid(5 * alpha) - 1).mean(), alpha.abs().mean()


def mask_losses(alpha: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared error of alpha against the mask: both sides summed, and the inside alone.

    Each side is a mean over its own area, so that a small object counts as much as the rest.
    """
    error = (mask - alpha).square()
    inside = (error * mask).sum() / mask.sum().clamp(min=1.0)
    outside = (error * (1 - mask)).sum() / (1 - mask).sum().clamp(min=1.0)
    return inside + outside, inside


def losses(rgba: Tensor, solo: Tensor, background: Tensor, mask: Tensor, *, step: int) -> Losses:
    """Return every loss of the published method for one batch of frames.

    Args:
        rgba: Answer of :class:`AlphaNet`. [T,4,H,W] float32, unbounded.
        solo: [T,3,H,W] float32, 0..1.
        background: [T,3,H,W] float32, 0..1.
        mask: [T,1,H,W] float32, 0 or 1.
        step: Step of the optimiser, from 0.

    Source: generative-omnimatte §3.5, eq. 3-4.
    Differs: weights and schedule are those of the released code.
    """
    alpha = rgba[:, 3:]
    w = weights_at(step, mask)
    reconstruction = reconstruction_loss(rgba, solo, background)
    l0, l1 = sparsity_losses(alpha)
    both, inside = mask_losses(alpha, mask)
    total = w.reconstruction * reconstruction + w.sparsity_l0 * l0 + w.sparsity_l1 * l1
    total = total + (w.mask * both if w.mask > 0 else w.inside * inside)
    return Losses(reconstruction, l0, l1, both, inside, total)


def make_optimiser(
    net: nn.Module,
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return the optimiser of the released code and its learning-rate schedule."""
    optimiser = torch.optim.AdamW(
        net.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(
        optimiser, milestones=list(LEARNING_RATE_STEPS), gamma=LEARNING_RATE_DROP
    )
    return optimiser, schedule


def train(
    net: AlphaNet, solo: Tensor, background: Tensor, mask: Tensor, *, steps: int
) -> list[float]:
    """Optimise ``net`` in place for one batch of frames; return the loss before each step.

    Args:
        net: Changed in place; left in training mode.
        solo: [T,3,H,W] float32, 0..1.
        background: [T,3,H,W] float32, 0..1.
        mask: [T,1,H,W] float32, 0 or 1.
        steps: How many, >= 1.
    """
    net.train()
    optimiser, schedule = make_optimiser(net)
    history = []
    for step in range(steps):
        optimiser.zero_grad()
        loss = losses(net(solo, background), solo, background, mask, step=step).total
        loss.backward()
        optimiser.step()
        schedule.step()
        history.append(float(loss.detach()))
    return history


def transmission(alphas: Tensor) -> Tensor:
    """Return how much of each layer is seen through those in front of it, times its own alpha.

    Args:
        alphas: Front to back. [N,T,1,H,W] float32.

    Returns:
        ``alpha_i`` times the product of ``1 - alpha_j`` over the layers in front. [N,T,1,H,W].
    """
    through = torch.cumprod(1 - alphas, dim=0)
    return alphas * torch.cat([torch.ones_like(through[:1]), through[:-1]])


def composite(layers: Tensor, background: Tensor) -> Tensor:
    """Return straight RGBA layers, front to back, over the background.

    Args:
        layers: [N,T,4,H,W] float32, straight colour and alpha.
        background: [T,3,H,W] float32.
    """
    result = background
    for layer in layers.flip(0):
        result = layer[:, 3:] * layer[:, :3] + (1 - layer[:, 3:]) * result
    return result
