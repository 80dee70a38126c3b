# SPDX-License-Identifier: Apache-2.0
"""A training's state on disk: from it a run goes on with the same bits.

::

    OUT/checkpoints/step-00000200/weights.safetensors     what learns
                                  optimiser.safetensors   its running means
                                  average.safetensors     the average of the weights, if one is kept
                                  state.json              last: the step, and what it belongs to

There is no state of random numbers: every draw is made from seed, step and place (``loop.py``), so
that the step alone says what comes next. A checkpoint is written beside its place and then renamed:
one that is there is whole. Nothing but safetensors and JSON is written or read.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gencomp_protocol.errors import (
    BadKnob,
    DiskFull,
    MissingInput,
    UnwritableOutput,
    WeightsRefused,
)

_WEIGHTS, _OPTIMISER, _AVERAGE, _STATE = (
    "weights.safetensors",
    "optimiser.safetensors",
    "average.safetensors",
    "state.json",
)
_VERSION = 1
_MEANS = ("exp_avg", "exp_avg_sq")


class Average:
    """The running average of what learns (EMA); it starts quickly and then slows down.

    After step n the decay is ``min(decay, (1 + n) / (10 + n))``.

    Args:
        parameters: What learns.
        decay: At most this much of the average is kept at a step, 0..1.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        if not 0 < decay < 1:
            raise BadKnob(f"An average cannot have decay {decay}.", hint="Usual is 0.999.")
        self._decay = decay
        self.held = {name: one.detach().float().clone() for name, one in parameters.items()}

    def update(self, parameters: Mapping[str, nn.Parameter], step: int) -> None:
        """Take in the parameters after a step, counted from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, one in parameters.items():
            self.held[name].lerp_(one.detach().float(), 1 - decay)

    @contextmanager
    def in_place(self, parameters: Mapping[str, nn.Parameter]) -> Iterator[None]:
        """Have the parameters hold the average for a while."""
        own = {name: one.detach().clone() for name, one in parameters.items()}
        _copy(self.held, parameters)
        try:
            yield
        finally:
            _copy(own, parameters)


def _copy(held: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
    with torch.no_grad():
        for name, one in parameters.items():
            one.copy_(held[name])


@dataclass(frozen=True)
class State:
    """What changes while a training runs.

    Attributes:
        parameters: What learns, by name.
        optimiser: AdamW over them, in that order.
        average: Their average; None where none is kept.
    """

    parameters: Mapping[str, nn.Parameter]
    optimiser: torch.optim.Optimizer
    average: Average | None


def save(folder: Path, state: State, step: int, belongs: Mapping[str, Any], *, keep: int) -> Path:
    """Write a checkpoint and drop the oldest ones.

    Args:
        folder: The folder of checkpoints.
        state: What to keep.
        step: Steps that are done.
        belongs: What the training is; must be the same where it goes on.
        keep: Most checkpoints that are left.

    Raises:
        DiskFull, UnwritableOutput: It cannot be written; no half of it is left.
    """
    place = folder / f"step-{step:08d}"
    part = place.with_name(f".{place.name}.{os.getpid()}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        save_file(_on_cpu(state.parameters), part / _WEIGHTS)
        save_file(_means(state), part / _OPTIMISER)
        if state.average is not None:
            save_file(_on_cpu(state.average.held), part / _AVERAGE)
        plain = {"version": _VERSION, "step": step, "belongs": dict(belongs)}
        (part / _STATE).write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")
        shutil.rmtree(place, ignore_errors=True)
        os.replace(part, place)
        for old in checkpoints(folder)[:-keep]:
            shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise unwritable(place, error) from error
    return place


def unwritable(place: Path, error: Exception) -> DiskFull | UnwritableOutput:
    """Return the sentence for what could not be written."""
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
    if full:
        return DiskFull(
            f"The disk is full: {place} could not be written.",
            hint="Free space, or keep fewer checkpoints with --keep; then go on with --resume.",
        )
    why = getattr(error, "strerror", None) or error
    return UnwritableOutput(f"{place} cannot be written: {why}.", hint="Choose another --out.")


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints that are there and whole, the earliest first."""
    found = folder.glob("step-*") if folder.is_dir() else iter(())
    return sorted(one for one in found if (one / _STATE).is_file())


def load(folder: Path, state: State, belongs: Mapping[str, Any]) -> int:
    """Put the latest checkpoint in place; return the steps that are done.

    Raises:
        MissingInput: There is none.
        BadKnob: It belongs to another training; names the setting.
        WeightsRefused: It cannot be read or does not fit.
    """
    found = checkpoints(folder)
    if not found:
        raise MissingInput(
            f"There is no checkpoint in {folder} to go on from.", hint="Start without --resume."
        )
    place = found[-1]
    plain = _read_state(place)
    for name, value in belongs.items():
        if plain["belongs"].get(name) != json.loads(json.dumps(value)):
            raise BadKnob(
                f"The checkpoint {place} is of another training: its {name} is "
                f"{plain['belongs'].get(name)}, not {value}.",
                hint="Go on with the settings it was started with, or choose another --out.",
                knob=name,
            )
    try:
        _take(state, place)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise WeightsRefused(
            f"The checkpoint {place} cannot be read ({error}).",
            hint="Remove it; the one before it is then taken.",
            file=str(place),
        ) from error
    return int(plain["step"])


def _read_state(place: Path) -> dict[str, Any]:
    try:
        plain = json.loads((place / _STATE).read_text(encoding="utf-8"))
        if plain["version"] != _VERSION or not isinstance(plain["belongs"], dict):
            raise ValueError(f"version {plain['version']}")
        found: dict[str, Any] = plain
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsRefused(
            f"The checkpoint {place} cannot be read ({error}).",
            hint="Remove it; the one before it is then taken.",
            file=str(place),
        ) from error
    return found


def _take(state: State, place: Path) -> None:
    _copy(load_file(place / _WEIGHTS), state.parameters)
    kept = load_file(place / _OPTIMISER)
    for name, one in state.parameters.items():
        own = {mean: kept[f"{name}/{mean}"].to(one.device) for mean in _MEANS}
        state.optimiser.state[one] = {"step": kept[f"{name}/step"], **own}
    if state.average is not None:
        average = load_file(place / _AVERAGE)
        for name, held in state.average.held.items():
            held.copy_(average[name])


def _means(state: State) -> dict[str, Tensor]:
    """Return the optimiser's own tensors by parameter and mean; a parameter not yet moved has 0."""
    found = {}
    for name, one in state.parameters.items():
        own = state.optimiser.state.get(one, {})
        found[f"{name}/step"] = torch.as_tensor(own.get("step", 0.0)).float().cpu().clone()
        for mean in _MEANS:
            found[f"{name}/{mean}"] = own.get(mean, torch.zeros_like(one)).detach().cpu().clone()
    return found


def _on_cpu(held: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: one.detach().cpu().contiguous().clone() for name, one in held.items()}
