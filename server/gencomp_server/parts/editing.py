# SPDX-License-Identifier: Apache-2.0
"""The rounds of an edit by text: from much noise to little, each on what the last one added.

::

    x_comp ─ noise ─► anchored steps (t > 600) ─► plain steps ─► x_edit    a round, one stage
       ▲                                                            │
       └──────────── x_orig + M (x_edit - x_orig) ◄─────────────────┘      compose, M by changemask

A round takes its prompt, mask and seed from what it is given, and its stage knows nothing of later
rounds. So an edit that is continued from round k with other words finds all rounds before k on
disk, and reruns what follows.

In an anchored step the plate's own noisy latents (``inversion.py``) go through the model beside the
edit, which sees some of their keys and values; what guidance pulls away from never does.

Sources: DynVFX §4.2, §4.3, algorithm 1 and §A.2; its public code for noise levels, shares that are
kept, and for how steps are counted. What differs: docs/decisions/0026-dynvfx.md.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from gencomp_server.parts.inversion import Inverted, alone, release_steps
from gencomp_server.parts.latents import backbone_of, tensor
from gencomp_server.parts.rounds import (
    GLOBAL,
    KEEP,
    LOCAL,
    PRESETS,
    Round,
    anchored_timesteps,
    count_forwards,
    is_anchored,
    plan_rounds,
)
from gencomp_server.parts.sampler import guided
from gencomp_server.parts.schedule import DdimSchedule
from gencomp_server.parts.sourcekeys import SourceKeys, kept_timesteps, key_bytes
from gencomp_server.parts.windows import fuse, job_windows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from gencomp_server.contract import Context
    from gencomp_server.models.backbone import Anchors, Backbone, ReusesSteps
    from gencomp_server.parts.windows import Window

    Floats = NDArray[np.float32]
    Bools = NDArray[np.bool_]

__all__ = [
    "GLOBAL",
    "KEEP",
    "LOCAL",
    "PRESETS",
    "Edit",
    "Round",
    "Source",
    "compose",
    "count_forwards",
    "plan_rounds",
    "run_round",
    "source_keys",
]


@dataclass(frozen=True)
class Source:
    """What an edit looks at.

    Attributes:
        inverted: The plate at every noise level.
        text: Embedding of what the plate shows. [1,L,D] float32.
        marks: Where the elements are that the edit must heed. [T',h,w] bool.
    """

    inverted: Inverted
    text: Floats
    marks: Bools


@dataclass(frozen=True)
class Edit:
    """What a round is asked for; another from some round on continues an edit.

    Attributes:
        prompt: Embedding of what the edited picture shows. [1,L,D] float32.
        null: Embedding of what guidance pulls away from; None without guidance. [1,L,D] float32.
        seed: Of the round's noise and anchors, beside the job's own.
    """

    prompt: Floats
    null: Floats | None
    seed: int = 0


def run_round(
    ctx: Context,
    one: Round,
    composed: Floats,
    source: Source,
    edit: Edit,
    *,
    backbone: str,
    frames: int,
    steps: int,
    preset: str,
    guidance: float,
    rescale: float = 0.0,
    keep: tuple[float, float] = KEEP[LOCAL],
    cached_gb: float = 0.0,
    keys: SourceKeys | None = None,
) -> Floats:
    """Run a round, as a stage of its own.

    Args:
        ctx: The run's context.
        one: Which round.
        composed: What it begins with: the plate, or what the last round made of it.
            [1,T',C,h,w] float32.
        source: What it looks at.
        edit: What it is asked for.
        backbone: The backbone's identity, for the key.
        frames: The job's own frames, padding not counted.
        steps: Sampling steps from pure noise.
        preset: Name of the list of rounds.
        guidance: 1 for none.
        rescale: How much of the spread that guidance adds is taken back, 0..1.
        keep: Share of the source's tokens that are anchors inside and outside of the marks, 0..1.
        cached_gb: Memory for keys and values of the source, in 1e9 bytes; 0 computes them anew.
        keys: :func:`source_keys`, one for all rounds of a job; not needed where ``cached_gb`` is 0.

    Returns:
        The edited latents, before anything is composed. [1,T',C,h,w] float32.

    Raises:
        Cancelled: The artist has cancelled; at the latest one forward later.
    """
    return ctx.stage(
        f"round {one.number}",
        functools.partial(sample_round, keys=keys),
        composed,
        source,
        edit,
        one,
        backbone=backbone,
        frames=frames,
        steps=steps,
        preset=preset,
        guidance=guidance,
        rescale=rescale,
        keep=keep,
        cached_gb=cached_gb,
    )


def source_keys() -> SourceKeys:
    """Return what keeps the source's keys and values between the rounds of one job."""
    return SourceKeys()


def sample_round(
    ctx: Context,
    composed: Floats,
    source: Source,
    edit: Edit,
    one: Round,
    *,
    backbone: str,
    frames: int,
    steps: int,
    preset: str,
    guidance: float,
    rescale: float,
    keep: tuple[float, float],
    cached_gb: float,
    keys: SourceKeys | None = None,
) -> Floats:
    """Sample a round inside its stage; see :func:`run_round`."""
    model = backbone_of(ctx)
    schedule, windows = DdimSchedule(steps), job_windows(model.spec, frames)
    if cached_gb > 0:
        keys = SourceKeys() if keys is None else keys
        keys.timesteps = _affordable(model, composed.shape, windows, preset, steps, cached_gb)
    else:
        keys = None
    name = f"round {one.number}"
    noise = ctx.generator(f"{name} noise {edit.seed}").standard_normal(composed.shape, np.float32)
    latents = schedule.noised(tensor(composed, model), tensor(noise, model), one.start)
    seeds = ctx.generator(f"{name} anchors {edit.seed}").integers(2**62, size=steps)
    reuses = bool(getattr(model, "reuses_steps", False))
    latents, first = (latents, one.start) if reuses else _resumed(ctx, name, latents, one.start)
    step = _Step(ctx, model, schedule, source, edit, guidance, rescale, keep, keys, preset)
    for index in range(first, steps):
        parts = step.windows(windows, index, latents, int(seeds[index]))
        latents = fuse(parts, windows, latents.shape[1])
        if not reuses:
            state = {"latents": latents.cpu().numpy(), "step": np.array(index + 1)}
            ctx.checkpoint(name, state)
        ctx.progress(name, index + 1 - one.start, one.steps)
    release_steps(model)
    return np.asarray(latents.cpu().numpy(), np.float32)


def _resumed(ctx: Context, name: str, latents: Tensor, start: int) -> tuple[Tensor, int]:
    """Return the latents to go on from and the next step."""
    kept = ctx.checkpoint(name)
    if kept is None:
        return latents, start
    return latents.new_tensor(np.array(kept["latents"], np.float32)), int(kept["step"])


def _affordable(
    model: Backbone,
    shape: tuple[int, ...],
    windows: Sequence[Window],
    preset: str,
    steps: int,
    cached_gb: float,
) -> frozenset[float]:
    """Return at which timesteps the source's keys and values are kept."""
    sample = 4 if model.device.type == "cpu" else 2
    sizes = [key_bytes(model.spec, len(w), shape[3], shape[4], sample) for w in windows]
    return kept_timesteps(anchored_timesteps(preset, steps), sum(sizes), int(cached_gb * 1e9))


@dataclass(frozen=True)
class _Step:
    """One step of a round: all that stays the same from step to step."""

    ctx: Context
    model: Backbone
    schedule: DdimSchedule
    source: Source
    edit: Edit
    guidance: float
    rescale: float
    keep: tuple[float, float]
    keys: SourceKeys | None
    preset: str

    def windows(
        self, windows: Sequence[Window], index: int, latents: Tensor, seed: int
    ) -> Iterator[Tensor]:
        """Yield each window's latents after step ``index``. [1,T',C,h,w], in order."""
        timestep = self.schedule.timesteps[index]
        anchored = is_anchored(self.preset, timestep)
        original = tensor(self.source.inverted.at(timestep), self.model) if anchored else None
        for at, window in enumerate(windows):
            own = latents[:, window.first : window.last]
            if original is None:
                prediction = self._plain(own, index, window, "prompt")
            else:
                there = original[:, window.first : window.last]
                prediction = self._anchored(own, there, index, window, seed + at)
            if self.guidance != 1:
                null = self._plain(own, index, window, "null")
                prediction = guided(prediction, null, self.guidance, self.rescale)
            yield self.schedule.step(prediction, index, own)

    def _plain(self, latents: Tensor, index: int, window: Window, half: str) -> Tensor:
        self.ctx.check_cancelled()
        words = self.edit.prompt if half == "prompt" else self.edit.null
        if words is None:
            raise ValueError("guidance needs the text it pulls away from")
        with self._scope(f"{window.first}-{window.last} {half}", index):
            return self.model.predict(
                latents,
                self.schedule.timesteps[index],
                tensor(words, self.model),
                latents[:, :, :0],
            )

    def _anchored(
        self, latents: Tensor, source: Tensor, index: int, window: Window, seed: int
    ) -> Tensor:
        import torch

        self.ctx.check_cancelled()
        name = f"{window.first}-{window.last}"
        with alone(self.model, f"{name} anchored", index):
            return cast("Anchors", self.model).predict_anchored(
                latents,
                self.schedule.timesteps[index],
                tensor(self.edit.prompt, self.model),
                source=source,
                source_text=tensor(self.source.text, self.model),
                marks=torch.from_numpy(np.array(self.source.marks[window.first : window.last])),
                keep=self.keep,
                seed=seed,
                keys=self.keys,
                owner=name,
            )

    def _scope(self, owner: str, index: int) -> AbstractContextManager[None]:
        """Tell a backbone that reuses steps whose forward this is."""
        if not getattr(self.model, "reuses_steps", False):
            return nullcontext()
        return cast("ReusesSteps", self.model).cache_scope(owner, index)


def compose(original: Floats, edited: Floats, mask: Bools) -> Floats:
    """Lay what a round made into the plate: the plate itself, bit for bit, outside of the mask.

    Args:
        original: The plate's latents. [1,T',C,h,w] float32.
        edited: What the round made. [1,T',C,h,w] float32.
        mask: Where new content is. [T',h,w] bool.

    Returns:
        ``original + mask (edited - original)``, which is the one or the other. [1,T',C,h,w].
    """
    where = np.asarray(mask)[None, :, None]
    return np.where(where, np.asarray(edited), np.asarray(original)).astype(np.float32)
