# SPDX-License-Identifier: Apache-2.0
"""The one loop over timesteps.

A step runs the transformer on every window of every pass, with guidance twice, steps each window
with the model's own schedule and blends what the windows made. After every step the latents are
kept in a checkpoint of the running stage, from which an interrupted job goes on with the same bits.

What a forward is given is a list of elements (window, then pass, then half of the guidance) cut
into batches; all arithmetic but the transformer's own is done element by element. So the bits
depend on ``batch`` only where the transformer's kernels give an element of a batch other bits than
alone, as matrix products may.

A backbone whose attribute ``reuses_steps`` is true answers some forwards from the step before. What
it keeps belongs to one element, so each goes alone, inside ``backbone.cache_scope(owner, step)``;
since no checkpoint holds it, an interrupted run of such a backbone starts afresh; and after the
last step it is dropped.

Sources: classifier-free guidance, Ho and Salimans 2022; its rescale, Lin et al. 2024 §3.4; step per
window and then blend as in the public code of Generative Omnimatte.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from gencomp_server.parts.windows import Window, fuse

if TYPE_CHECKING:
    from gencomp_server.contract import Context
    from gencomp_server.models.backbone import Backbone, ReusesSteps, Schedule


@dataclass(frozen=True)
class _Guide:
    """What pulls a pass one way.

    Attributes:
        name: ``prompt`` or ``null``.
        text: Embedding of the prompt. [B,L,D], or [1,L,D] for all passes.
        condition: Channels beside the noise. [B,T',K,h,w], or [1,...] for all passes.
    """

    name: str
    text: Tensor
    condition: Tensor


@dataclass(frozen=True)
class _Element:
    """One element of a forward: a window of a pass under one half of the guidance."""

    window: Window
    at: int
    guide: _Guide

    @property
    def owner(self) -> str:
        """Return its name: the same in every step, and no other element's."""
        return f"{self.window.first}-{self.window.last} {self.at} {self.guide.name}"

    def noisy(self, latents: Tensor) -> Tensor:
        """Return its part of the latents. [1,T',C,h,w]."""
        return latents[self.at : self.at + 1, self.window.first : self.window.last]

    def text(self) -> Tensor:
        """Return its text. [1,L,D]."""
        at = min(self.at, len(self.guide.text) - 1)
        return self.guide.text[at : at + 1]

    def condition(self) -> Tensor:
        """Return its part of the channels beside the noise. [1,T',K,h,w]."""
        at = min(self.at, len(self.guide.condition) - 1)
        return self.guide.condition[at : at + 1, self.window.first : self.window.last]


def denoise(
    backbone: Backbone,
    noise: Tensor,
    condition: Tensor,
    text: Tensor,
    *,
    null_text: Tensor | None = None,
    null_condition: Tensor | None = None,
    guidance: float = 1.0,
    rescale: float = 0.0,
    schedule: Schedule,
    windows: Sequence[Window],
    ctx: Context,
    name: str = "sample",
    batch: int = 1,
) -> Tensor:
    """Turn noise into latents, inside a running stage whose key covers all that is given here.

    Args:
        backbone: The model.
        noise: Where the first step starts. [B,T',C,h,w] float32, standard normal; B passes.
        condition: Channels beside the noise. [B,T',K,h,w], or [1,...] for all passes.
        text: Embedding of the prompt. [B,L,D], or [1,L,D] for all passes.
        null_text: What guidance pulls away from; needed where ``guidance`` is not 1.
        null_condition: Channels of that half; the same as the other's where None.
        guidance: How far to pull, 1 for not at all: then there is no second forward.
        rescale: How much of the spread that guidance adds is taken back, 0..1.
        schedule: The way through the noise levels.
        windows: What ``windows.plan`` made for T' latent frames.
        ctx: The run's context, a stage running.
        name: Of stage and checkpoint.
        batch: Most elements of a forward.

    Returns:
        [B,T',C,h,w] float32 on the backbone's device.

    Raises:
        Cancelled: The artist has cancelled; at the latest one forward later.
        ValueError: What is given does not fit together.
    """
    guides = _guides(condition, text, null_text, null_condition, guidance)
    _check(noise, guides, rescale, windows, batch)
    device = backbone.device
    guides = tuple(_Guide(g.name, g.text.to(device), g.condition.to(device)) for g in guides)
    latents, done = noise.to(device, torch.float32), 0
    reuses = bool(getattr(backbone, "reuses_steps", False))
    if not reuses:
        latents, done = _resumed(ctx, name, latents)
    step = _Step(backbone, schedule, guides, guidance, rescale, 1 if reuses else batch, ctx, reuses)
    steps = len(schedule.timesteps)
    ctx.progress(name, done, steps)
    for index in range(done, steps):
        latents = fuse(step.windows(windows, index, latents), windows, latents.shape[1])
        if not reuses:
            kept = {"latents": latents.cpu().numpy(), "step": np.array(index + 1)}
            ctx.checkpoint(name, kept)
        ctx.progress(name, index + 1, steps)
    if reuses:  # What steps left behind serves nobody any more, and the VAE comes next.
        cast("ReusesSteps", backbone).release()
    return latents


def _guides(
    condition: Tensor,
    text: Tensor,
    null_text: Tensor | None,
    null_condition: Tensor | None,
    guidance: float,
) -> tuple[_Guide, ...]:
    """Return the halves of the guidance: one where it is off."""
    if not math.isfinite(guidance):
        raise ValueError(f"guidance is a number, not {guidance}")
    own = _Guide("prompt", text, condition)
    if guidance == 1:
        return (own,)
    if null_text is None:
        raise ValueError("guidance needs the text it pulls away from")
    other = condition if null_condition is None else null_condition
    return own, _Guide("null", null_text, other)


def _check(
    noise: Tensor, guides: tuple[_Guide, ...], rescale: float, windows: Sequence[Window], batch: int
) -> None:
    passes, frames = noise.shape[:2]
    for guide in guides:
        if len(guide.text) not in (1, passes) or len(guide.condition) not in (1, passes):
            raise ValueError(
                f"{passes} passes, {len(guide.text)} texts, {len(guide.condition)} conditions"
            )
        if guide.condition.shape[1] != frames or guide.condition.shape[3:] != noise.shape[3:]:
            raise ValueError(f"condition {guide.condition.shape} beside noise {noise.shape}")
    if max(one.last for one in windows) != frames:
        raise ValueError(f"windows {list(windows)} for {frames} latent frames")
    if batch < 1 or not 0 <= rescale <= 1:
        raise ValueError(f"batch {batch} and rescale {rescale} are not at least 1 and 0 to 1")


def _resumed(ctx: Context, name: str, noise: Tensor) -> tuple[Tensor, int]:
    """Return the latents to go on from and how many steps they have behind them."""
    kept = ctx.checkpoint(name)
    if kept is None:
        return noise, 0
    latents = torch.from_numpy(np.array(kept["latents"], np.float32))
    if latents.shape != noise.shape:
        raise ValueError(f"the checkpoint '{name}' is {latents.shape}, not {noise.shape}")
    return latents.to(noise.device), int(kept["step"])


@dataclass(frozen=True)
class _Step:
    """One step of the loop: all that stays the same from step to step."""

    backbone: Backbone
    schedule: Schedule
    guides: tuple[_Guide, ...]
    guidance: float
    rescale: float
    batch: int
    ctx: Context
    reuses: bool

    def windows(self, windows: Sequence[Window], index: int, latents: Tensor) -> Iterator[Tensor]:
        """Yield each window's latents after step ``index``. [B,T',C,h,w], in order."""
        passes = range(len(latents))
        elements = [
            _Element(w, at, guide) for w in windows for at in passes for guide in self.guides
        ]
        predictions = self._predictions(elements, index, latents)
        for window in windows:
            stepped = []
            for at in passes:
                halves = [next(predictions) for _ in self.guides]
                prediction = halves[0]
                if len(halves) == 2:
                    prediction = guided(halves[0], halves[1], self.guidance, self.rescale)
                before = latents[at : at + 1, window.first : window.last]
                stepped.append(self.schedule.step(prediction, index, before))
            yield torch.cat(stepped)

    def _predictions(
        self, elements: Sequence[_Element], index: int, latents: Tensor
    ) -> Iterator[Tensor]:
        """Yield the prediction for each element, in order. [1,T',C,h,w]."""
        timestep = self.schedule.timesteps[index]
        for some in _batches(elements, self.batch):
            self.ctx.check_cancelled()
            with self._scope(some, index):
                predicted = self.backbone.predict(
                    torch.cat([one.noisy(latents) for one in some]),
                    timestep,
                    torch.cat([one.text() for one in some]),
                    torch.cat([one.condition() for one in some]),
                )
            yield from predicted.split(1)

    def _scope(self, some: Sequence[_Element], index: int) -> AbstractContextManager[None]:
        """Tell a backbone that reuses steps whose forward this is."""
        if not self.reuses:
            return nullcontext()
        return cast("ReusesSteps", self.backbone).cache_scope(some[0].owner, index)


def _batches(elements: Sequence[_Element], most: int) -> Iterator[list[_Element]]:
    """Cut elements into runs of at most ``most`` whose windows are equally long."""
    run: list[_Element] = []
    for one in elements:
        if run and (len(run) == most or len(one.window) != len(run[0].window)):
            yield run
            run = []
        run.append(one)
    if run:
        yield run


def guided(prediction: Tensor, null: Tensor, guidance: float, rescale: float) -> Tensor:
    """Pull a prediction away from the null prediction.

    Args:
        prediction: With the prompt. [1,T',C,h,w].
        null: Without it. [1,T',C,h,w].
        guidance: How far; 1 gives ``prediction``.
        rescale: How much of the spread that this adds is taken back, 0..1.

    Returns:
        [1,T',C,h,w].
    """
    pulled = null + guidance * (prediction - null)
    if rescale == 0:
        return pulled
    spread = pulled.std()
    calm = torch.where(spread > 0, prediction.std() / spread, torch.ones_like(spread))
    return pulled * (rescale * calm + (1 - rescale))
