# SPDX-License-Identifier: Apache-2.0
"""Keys and values of a source that a job keeps between rounds, and how many there is room for.

An edit's rounds meet the same noisy source at the same timesteps again and again. What its layers
make of it may be kept, which saves the source's half of a forward; but one timestep of 49 frames in
CogVideoX 5B takes 9 GB, so that by default nothing is.

Source: DynVFX §A.2, which extracts keys and values once; that code keeps none of them, either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gencomp_server.backbones import BackboneSpec


@dataclass
class SourceKeys:
    """Keys and values of the source, in the transformer's memory.

    What is kept is decided beforehand, by :func:`kept_timesteps`, not by what came first: so it is
    always the same forwards that are computed alone, and the same bits come out, in a job that goes
    on from the middle.

    Attributes:
        timesteps: Those at which it keeps them.
        held: Every layer's keys and values by owner (a window's name) and timestep.
    """

    timesteps: frozenset[float] = frozenset()
    held: dict[tuple[str, float], Any] = field(default_factory=dict)


def key_bytes(spec: BackboneSpec, latent_frames: int, height: int, width: int, sample: int) -> int:
    """Return how many bytes one timestep of a window takes.

    Args:
        spec: The model.
        latent_frames: Of the window.
        height: Latent pixels.
        width: Latent pixels.
        sample: Bytes of a sample: 2 on a GPU, 4 on a processor.
    """
    kind = spec.architecture
    tokens = latent_frames // kind.patch_t * (height // kind.patch) * (width // kind.patch)
    return 2 * kind.blocks * tokens * kind.width * sample


def kept_timesteps(wanted: Iterable[int], one: int, budget: int) -> frozenset[float]:
    """Return the timesteps whose keys and values are kept: those asked for most often.

    Args:
        wanted: Timesteps of every anchored step of every round, as often as they occur.
        one: Bytes that a timestep takes, all windows together.
        budget: Bytes there are.

    Returns:
        Timesteps that occur more than once, as many as there is room for; of two that are asked
        for equally often the lower.
    """
    often = [(count, t) for t, count in Counter(wanted).items() if count > 1]
    often.sort(key=lambda entry: (-entry[0], entry[1]))
    return frozenset(float(t) for _, t in often[: budget // one])


def spared(wanted: Iterable[int], kept: frozenset[float]) -> int:
    """Return how many of the anchored steps of an edit find their source on hand.

    Args:
        wanted: Timesteps of every anchored step of every round, as often as they occur.
        kept: What :func:`kept_timesteps` gave.
    """
    return sum(count - 1 for t, count in Counter(wanted).items() if t in kept)
