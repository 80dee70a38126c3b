# SPDX-License-Identifier: Apache-2.0
"""From a plate to the noise that it would have come from, and what lies between, kept on disk.

An edit looks at the plate as it is at every noise level (``editing.py``). The way there is DDIM
gone backwards in many small steps with no words; at the timesteps that sampling visits, the latents
are kept in half precision. They depend on the plate and the model alone, neither on a prompt nor on
a seed: every later edit of the same plate finds them.

Clips longer than a window are inverted window by window, blended after every step as the sampler
does. After every step a checkpoint is written, from which an interrupted job goes on with the same
bits.

Source: DynVFX §A.2; its public code for the first step and for the timestep the model is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from gencomp_server.parts.latents import backbone_of, tensor
from gencomp_server.parts.rounds import (
    INVERSION_STEPS,
    kept_steps,
    timesteps_of,
    way_there,
)
from gencomp_server.parts.rounds import count_inversion_forwards as count_forwards
from gencomp_server.parts.schedule import DdimInversion
from gencomp_server.parts.windows import fuse, job_windows

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray
    from torch import Tensor

    from gencomp_server.contract import Context
    from gencomp_server.models.backbone import Backbone, ReusesSteps
    from gencomp_server.parts.windows import Window

    Floats = NDArray[np.float32]
    Halves = NDArray[np.float16]

__all__ = [
    "INVERSION_STEPS",
    "Inverted",
    "count_forwards",
    "invert",
    "inverted_from",
    "kept_steps",
    "timesteps_of",
    "way_there",
]


@dataclass(frozen=True)
class Inverted:
    """A plate at many noise levels.

    Attributes:
        timesteps: Which, rising.
        latents: The plate at each. [S,T',C,h,w] float16.
    """

    timesteps: tuple[int, ...]
    latents: Halves

    def at(self, timestep: float) -> Floats:
        """Return the plate at one noise level. [1,T',C,h,w] float32.

        Raises:
            ValueError: It was not kept at this one.
        """
        if timestep not in self.timesteps:
            raise ValueError(f"nothing was kept at timestep {timestep}")
        index = self.timesteps.index(int(timestep))
        return np.asarray(self.latents[index : index + 1], np.float32)


def invert(
    ctx: Context,
    latents: Floats,
    text: Floats,
    *,
    backbone: str,
    frames: int,
    steps: int,
    inversion_steps: int = INVERSION_STEPS,
) -> Inverted:
    """Invert a plate; the body of a stage, in which nothing depends on the seed.

    Args:
        ctx: The run's context.
        latents: The plate's. [1,T',C,h,w] float32.
        text: Embedding of no words. [1,L,D] float32.
        backbone: The backbone's identity, for the key.
        frames: The job's own frames, padding not counted.
        steps: Sampling steps; the plate is kept at their timesteps. See :func:`kept_steps`.
        inversion_steps: Steps of the way there.

    Raises:
        Cancelled: The artist has cancelled; at the latest one forward later.
        DiskFull: There is no room for what is kept; what was kept before is used next time.
    """
    model = backbone_of(ctx)
    kept_at = timesteps_of(steps)
    way = DdimInversion(way_there(steps, inversion_steps))
    windows = job_windows(model.spec, frames)
    given = tensor(text, model)
    start, done = _resumed(ctx, latents)

    def predicted(now: Tensor, index: int, window: Window) -> Tensor:
        ctx.check_cancelled()
        with alone(model, f"{window.first}-{window.last} inverted", index):
            return model.predict(now, way.timesteps[index], given, now[:, :, :0])

    def kept(index: int, now: Tensor) -> None:
        if way.timesteps[index] in kept_at:
            half = now.cpu().numpy().astype(np.float16)
            ctx.checkpoint(_kept_name(way.timesteps[index]), {"latents": half})
        position = {"latents": now.cpu().numpy(), "step": np.array(index + 1)}
        ctx.checkpoint("invert", position)
        ctx.progress("invert", index + 1, len(way.timesteps))

    inverted_from(tensor(start, model), done, way, windows, predicted, kept)
    release_steps(model)
    rising = tuple(sorted(kept_at))
    return Inverted(rising, np.concatenate([_read(ctx, t) for t in rising]))


def inverted_from(
    latents: Tensor,
    done: int,
    way: DdimInversion,
    windows: tuple[Window, ...],
    predict: Callable[[Tensor, int, Window], Tensor],
    reached: Callable[[int, Tensor], None],
) -> Tensor:
    """Go the way there, or the rest of it.

    Args:
        latents: After ``done`` steps; the picture itself where that is 0. [1,T',C,h,w] float32.
        done: Steps behind.
        way: The way.
        windows: Of T' latent frames.
        predict: (latents of a window, index of the step, window) to what the model says, v.
        reached: Told (index, latents) after every step.

    Returns:
        The latents at the last timestep. [1,T',C,h,w] float32.
    """
    total = latents.shape[1]
    for index in range(done, len(way.timesteps)):
        if index == 0:
            latents = way.begin(latents)
        else:
            now = latents
            latents = fuse(
                (_stepped(now, index, way, one, predict) for one in windows), windows, total
            )
        reached(index, latents)
    return latents


def _stepped(
    latents: Tensor,
    index: int,
    way: DdimInversion,
    window: Window,
    predict: Callable[[Tensor, int, Window], Tensor],
) -> Tensor:
    own = latents[:, window.first : window.last]
    return way.step(predict(own, index, window), index, own)


# --- what lies on disk ---------------------------------------------------------------------------


def _resumed(ctx: Context, latents: Floats) -> tuple[Floats, int]:
    """Return the latents to go on from and how many steps they have behind them."""
    position = ctx.checkpoint("invert")
    if position is None:
        return latents, 0
    return np.asarray(position["latents"], np.float32), int(position["step"])


def _kept_name(timestep: int) -> str:
    return f"inverted {timestep}"


def _read(ctx: Context, timestep: int) -> Halves:
    found = ctx.checkpoint(_kept_name(timestep))
    assert found is not None, timestep
    return np.asarray(found["latents"], np.float16)


# --- backbones that reuse steps ------------------------------------------------------------------


def alone(model: Backbone, owner: str, index: int) -> AbstractContextManager[None]:
    """Have a forward be computed in full, also by a backbone that reuses steps.

    Such a backbone reuses what the step before left: a step number that leaves one out every time
    finds nothing.
    """
    from contextlib import nullcontext

    if not getattr(model, "reuses_steps", False):
        return nullcontext()
    return cast("ReusesSteps", model).cache_scope(owner, 2 * index)


def release_steps(model: Backbone) -> None:
    """Drop what forwards of a backbone that reuses steps left behind."""
    if getattr(model, "reuses_steps", False):
        cast("ReusesSteps", model).release()
