# SPDX-License-Identifier: Apache-2.0
"""The rounds of an edit by text, and the way to the noise they begin with, before anything runs.

Which noise levels, how many steps, in which of them the plate is looked at, how many forwards that
is. Free of torch and numpy, so that a plan can be made without them; ``inversion.py`` and
``editing.py`` do the work.

Sources: DynVFX §4.3, algorithm 1, §A.2; its public code for the noise levels, for shares that are
kept and for how steps are counted. What differs: docs/decisions/0026-dynvfx.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gencomp_server.parts.schedule import TRAIN_STEPS, DdimSchedule, start_index
from gencomp_server.parts.windows import job_windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gencomp_server.backbones import BackboneSpec

INVERSION_STEPS = 250
"""Steps of the way there, by default. Source: DynVFX §A.2."""

_USUAL_STEPS = 50

LOCAL, GLOBAL = "local", "global"
KEEP = {LOCAL: (0.70, 0.05), GLOBAL: (0.10, 0.05)}
"""Share of the source's tokens that are anchors, inside and outside of the marks, by scope of the
edit. Source: DynVFX §A.2, as its public code reads those numbers."""

_ANCHORED_ABOVE = 600


@dataclass(frozen=True)
class Preset:
    """A list of rounds.

    Attributes:
        levels: Timestep at which each begins.
        truncated: How a level becomes a number of steps; see ``schedule.start_index``.
        anchored_below: Steps at this timestep and above have no anchors.
    """

    levels: tuple[int, ...]
    truncated: bool
    anchored_below: int


PRESETS = {
    "shipped": Preset((899, 779, 679, 579, 479, 379), truncated=True, anchored_below=900),
    "paper": Preset((919, 899, 779, 679, 579, 479, 379), truncated=False, anchored_below=1000),
}
"""``shipped``: what the public code of DynVFX does in effect. ``paper``: its whole list of noise
levels, each begun where it says, anchors in every step above the threshold (algorithm 1)."""


@dataclass(frozen=True)
class Round:
    """One round.

    Attributes:
        number: From 1.
        level: Timestep at which it is to begin.
        strength: The same as a share of the noise.
        first: Timestep at which it begins in fact.
        start: Index of that step among those from pure noise.
        steps: Steps it takes.
        anchored: How many of them have anchors.
    """

    number: int
    level: int
    strength: float
    first: int
    start: int
    steps: int
    anchored: int


def plan_rounds(preset: str, steps: int, last: int = 0) -> tuple[Round, ...]:
    """Return the rounds of an edit.

    Args:
        preset: Name of a list in ``PRESETS``.
        steps: Sampling steps from pure noise, of which a round takes the last.
        last: Round after which it ends; 0 for all.
    """
    chosen, timesteps = PRESETS[preset], timesteps_of(steps)
    rounds = []
    for number, level in enumerate(chosen.levels, 1):
        start = start_index(steps, level, truncated=chosen.truncated)
        anchored = sum(is_anchored(preset, t) for t in timesteps[start:])
        strength = (level + 1) / TRAIN_STEPS
        rounds.append(
            Round(number, level, strength, timesteps[start], start, steps - start, anchored)
        )
    return tuple(rounds[: last or None])


def is_anchored(preset: str, timestep: float) -> bool:
    """Tell whether a step at this timestep has anchors."""
    return _ANCHORED_ABOVE < timestep < PRESETS[preset].anchored_below


def anchored_timesteps(preset: str, steps: int, last: int = 0) -> tuple[int, ...]:
    """Return the timesteps of every anchored step of the rounds, as often as they occur."""
    visited = timesteps_of(steps)
    return tuple(
        t
        for one in plan_rounds(preset, steps, last)
        for t in visited[one.start :]
        if is_anchored(preset, t)
    )


def count_forwards(rounds: Sequence[Round], windows: int, guidance: float, kept: int = 0) -> int:
    """Return how many forwards rounds take; a batch of two counts two.

    Args:
        rounds: Of the edit, or what of them is still to be computed.
        windows: Windows of the clip.
        guidance: 1 needs no second forward of a step.
        kept: Anchored steps whose source is on hand from an earlier round; of a whole edit what
            ``sourcekeys.spared`` says.
    """
    halves = 1 if guidance == 1 else 2
    each = sum(one.steps * halves + one.anchored for one in rounds)
    return windows * (each - kept)


# --- which timesteps -----------------------------------------------------------------------------


def timesteps_of(steps: int) -> tuple[int, ...]:
    """Return the timesteps that so many sampling steps visit, falling."""
    return tuple(int(t) for t in DdimSchedule(steps).timesteps)


def kept_steps(steps: int) -> int:
    """Return the sampling steps at whose timesteps a plate is best kept.

    A draft of 10 steps visits some of the timesteps of 50: so both find the same inversion.
    """
    usual = set(timesteps_of(_USUAL_STEPS))
    return _USUAL_STEPS if usual.issuperset(timesteps_of(steps)) else steps


def way_there(steps: int, inversion_steps: int) -> tuple[int, ...]:
    """Return the timesteps of an inversion, rising: its own, and all at which the plate is kept."""
    return tuple(sorted({*timesteps_of(steps), *timesteps_of(inversion_steps)}))


def count_inversion_forwards(
    spec: BackboneSpec, frames: int, *, steps: int, inversion_steps: int
) -> int:
    """Return how many forwards an inversion takes; its first step takes none.

    Args:
        spec: The model.
        frames: The job's own.
        steps: What :func:`kept_steps` gave.
        inversion_steps: Steps of the way there.
    """
    return (len(way_there(steps, inversion_steps)) - 1) * len(job_windows(spec, frames))
