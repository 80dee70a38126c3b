# SPDX-License-Identifier: Apache-2.0
"""The video model's half of an omnimatte: stages from plate and mattes to decoded passes.

::

    bring_to_model ─► make_trimask (one per pass) ─┐
          └─────────► encode_plate (once) ─────────┴─► sample (a group) ─► decode (one per pass)
          └─────────► there_and_back (once): what the VAE alone does to the plate

Every function here with a ``ctx`` is the body of a stage; those that any system with a video model
has are in ``denoising.py``. Sequences are [T,h,w,C] at the model's size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gencomp_protocol.layers import (
    EFFECTS_PREFIX,
    KEEP,
    MATTE_PREFIX,
    PLATE,
    TRIMASK,
    TRIMASK_PREFIX,
)
from gencomp_server.colour.modelrange import ModelRange, range_of
from gencomp_server.parts.denoising import (
    Words,
    decode,
    embed,
    encode_plate,
    sample,
    there_and_back,
)
from gencomp_server.parts.fit import to_model_frame
from gencomp_server.parts.passes import ask, ask_as_drawn
from gencomp_server.parts.pictures import coverage_of, linear

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.contract import Context, Shot
    from gencomp_server.parts.passes import Asked

    Floats = NDArray[np.float32]

__all__ = [
    "Seen",
    "Words",
    "bring_to_model",
    "decode",
    "embed",
    "encode_plate",
    "make_trimask",
    "sample",
    "there_and_back",
    "to_model_range",
]


@dataclass(frozen=True)
class Seen:
    """The shot at the video model's size.

    Attributes:
        plate: [T,h,w,3] float32, model range.
        coverage: Every matte input, by name. [T,h,w,1] float16 each, 0..1.
    """

    plate: Any
    coverage: dict[str, Any]


def to_model_range(light: Floats, seen: ModelRange) -> Floats:
    """Return a plate as a model sees it. Working space to [-1,1], clipped."""
    code = np.clip(seen.code(light), 0, 1)
    return np.asarray(code * np.float32(2) - np.float32(1), np.float32)


# --- stages --------------------------------------------------------------------------------------


def bring_to_model(
    ctx: Context, shot: Shot, *, size: tuple[int, int], exposure: float = 0.0
) -> Seen:
    """Bring the plate, and every matte there is, to the video model's size.

    The working space is the shot's, and in the stage's key with it.
    """
    frames, seen = tuple(shot.frames), range_of(shot.request, exposure)
    plate = np.empty((len(frames), size[1], size[0], 3), np.float32)
    shape = (len(frames), size[1], size[0], 1)
    found = {name: np.empty(shape, np.float16) for name in shot.names if name != PLATE}
    for i, n in enumerate(frames):
        ctx.progress("model_scene", i, len(frames))
        plate[i] = to_model_range(to_model_frame(linear(shot, PLATE, n), size), seen)
        for name, coverage in found.items():
            coverage[i] = to_model_frame(coverage_of(shot, name, n), size)
    return Seen(plate, found)


def make_trimask(ctx: Context, seen: Seen, *, keeps: str, grow_px: int) -> Asked:
    """Make the trimask of the pass that keeps one object, or none (""); the artist's own wins."""
    keep = seen.coverage.get(KEEP)
    own = seen.coverage.get(TRIMASK_PREFIX + keeps if keeps else TRIMASK)
    if own is not None:
        return ask_as_drawn(own, keep=keep)
    names = [name[len(MATTE_PREFIX) :] for name in seen.coverage if name.startswith(MATTE_PREFIX)]
    mattes = np.concatenate([seen.coverage[MATTE_PREFIX + name] for name in names], axis=3)
    effects = {
        k: seen.coverage[EFFECTS_PREFIX + name]
        for k, name in enumerate(names)
        if EFFECTS_PREFIX + name in seen.coverage
    }
    place = names.index(keeps) if keeps else None
    return ask(place, mattes, grow_px=grow_px, effects=effects, keep=keep)
