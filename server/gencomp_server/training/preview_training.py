# SPDX-License-Identifier: Apache-2.0
"""Training of the preview model: one loop that stops and goes on anywhere.

Everything random follows from the seed and the step's number (``preview_feed.py``). A checkpoint is
four files of weights, average and the optimiser's two means, each below 16 MB, and says last which
step it is of. Beside this package nothing is needed but torch, numpy, safetensors and diffusers.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gencomp_server.models.preview_network import (
    NETWORK_VERSION,
    PreviewConfig,
    PreviewNetwork,
    make_network,
    picture,
    state_of,
    word_numbers,
    write_network,
)
from gencomp_server.models.preview_words import MOST_WORDS
from gencomp_server.parts.schedule import signal_levels
from gencomp_server.training.preview_curves import curves, grid, write_png
from gencomp_server.training.preview_feed import FEED_VERSION, Chunk, Feed
from gencomp_server.training.preview_light import light_of
from gencomp_server.training.preview_measures import changed_pixels, psnr

LAST = 999
VALIDATION_SEED = 8_900_000
"""The first seed of the validation's clips; those of the benchmark are others."""

_STATE, _LOG, _CURVES, _WEIGHTS = "state.json", "log.jsonl", "curves.png", "preview.safetensors"
_PARTS = ("weights", "average", "mean", "square")
_TASKS = ("remove", "add")
_SMOOTH_CODE, _BEND_LIGHT, _LIGHT_SHARE = 0.05, 0.25, 6.0
_LEAST = 0.005  # added to the error of a base, so that none is nothing
_MOST_GRADIENT = 3.0

Event = Mapping[str, Any]


@dataclass(frozen=True)
class PreviewSettings:
    """How the preview is trained.

    Attributes:
        steps: Of the whole training; the learning rate falls over the last ``fall`` of them.
        batch: Clips of a step at the feed's usual size.
        rate: Learning rate between its rise and its fall.
        rise: Steps over which it rises.
        fall: Share of the steps over which it falls to a hundredth.
        average: Decay of the weights' running average.
        full_noise: Share of clips that are pure noise, all that a single step ever sees.
        drop_text: Share of clips that are told nothing but the task.
        weight: How much more a changed pixel counts.
        seed: 0..7.
        config: Sizes of the network.
    """

    steps: int = 5_500
    batch: int = 8
    rate: float = 8e-4
    rise: int = 100
    fall: float = 0.7
    average: float = 0.998
    full_noise: float = 0.85
    drop_text: float = 0.1
    weight: float = 10.0
    seed: int = 0
    config: PreviewConfig = field(default_factory=PreviewConfig)

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        start = self.steps * (1 - self.fall)
        down = max(0.0, (step - start) / max(1.0, self.steps - start))
        return self.rate * min(1.0, (step + 1) / self.rise) * max(0.01, 1 - down)

    def belongs(self) -> dict[str, Any]:
        """Return what must stay as it is where a training goes on."""
        facts = asdict(self)
        for free in ("steps", "fall"):
            del facts[free]
        facts["feed"], facts["network"] = FEED_VERSION, NETWORK_VERSION
        found: dict[str, Any] = json.loads(json.dumps(facts))
        return found


@dataclass
class PreviewState:
    """What a training holds."""

    network: PreviewNetwork
    average: dict[str, Tensor]
    optimiser: torch.optim.AdamW
    step: int = 0


@dataclass(frozen=True)
class Rhythm:
    """When a training stops and what it does meanwhile.

    Attributes:
        minutes: It stops with a checkpoint after so long; 0 goes on to the last step.
        stop_at: It stops with a checkpoint at this step; 0 goes on.
        checkpoint_s: Seconds between checkpoints.
        validate_every: Steps between validations.
        workers: Processes that make clips.
        device: Where it learns.
        bf16: True to compute forwards in bfloat16.
        stopped: Asked after every step; where it says yes it stops with a checkpoint.
    """

    minutes: float = 0.0
    stop_at: int = 0
    checkpoint_s: float = 120.0
    validate_every: int = 250
    workers: int = 1
    device: str = "cpu"
    bf16: bool = False
    stopped: Callable[[], bool] = lambda: False


def train_preview(
    settings: PreviewSettings, out: Path, rhythm: Rhythm, report: Callable[[Event], None]
) -> int:
    """Train the preview, from the checkpoint in a folder if there is one.

    Args:
        settings: How.
        out: Folder for checkpoint, log, curves, grid and weights.
        rhythm: When it stops and what it does meanwhile.
        report: Told each event of the log.

    Returns:
        Steps that are done.

    Raises:
        ValueError: The checkpoint there is of another training.
        RuntimeError: The loss is not finite, or no clips come.
        OSError: Something cannot be written or read.
    """
    out.mkdir(parents=True, exist_ok=True)
    state = _started(settings, out, torch.device(rhythm.device))
    _cut_log(out, state.step)
    feed = Feed(settings.seed, settings.batch, state.step, workers=rhythm.workers)
    try:
        _run(settings, out, rhythm, state, feed, report)
    finally:
        feed.close()
    _save(state, settings, out)
    export(state, settings, out / _WEIGHTS)
    return state.step


def _run(
    settings: PreviewSettings,
    out: Path,
    rhythm: Rhythm,
    state: PreviewState,
    feed: Feed,
    report: Callable[[Event], None],
) -> None:
    begun = saved = time.monotonic()
    clips = validation_clips()
    losses: list[float] = []
    waited = 0.0

    def tell(event: dict[str, Any]) -> None:
        with (out / _LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(event) + "\n")
        report(event)

    if state.step == 0:
        tell({"event": "validation", "step": 0, **validate(state, clips, out)})
    while state.step < min(settings.steps, rhythm.stop_at or settings.steps):
        asked = time.monotonic()
        chunk = feed.take()
        waited += time.monotonic() - asked
        losses.append(train_step(state, settings, chunk, bf16=rhythm.bf16))
        if not math.isfinite(losses[-1]):
            raise RuntimeError(f"the loss of step {state.step} is not finite: lower --rate")
        if state.step % 50 == 0:
            facts = {"loss": round(float(np.mean(losses)), 5), "wait": round(waited, 1)}
            facts["seconds"] = round(time.monotonic() - begun, 1)
            tell({"event": "step", "step": state.step, **facts})
            losses, waited = [], 0.0
        if state.step % rhythm.validate_every == 0 or state.step == settings.steps:
            tell({"event": "validation", "step": state.step, **validate(state, clips, out)})
            write_png(out / _CURVES, curves(read_log(out)))
        now = time.monotonic()
        if now - saved > rhythm.checkpoint_s:
            _save(state, settings, out)
            saved = now
        if rhythm.stopped() or (rhythm.minutes and now - begun > 60 * rhythm.minutes):
            return


def train_step(
    state: PreviewState, settings: PreviewSettings, chunk: Chunk, *, bf16: bool = False
) -> float:
    """Learn from a chunk, in place; return its loss.

    Args:
        state: What learns; its step is counted up.
        settings: How.
        chunk: Clips, [B,T,H,W,C] float32.
        bf16: True to compute the forward in bfloat16.
    """
    network = state.network.train()
    device = next(network.parameters()).device
    draws = torch.Generator().manual_seed(settings.seed * 1_000_003 + state.step)
    count = len(chunk.target)
    noise = torch.randn(chunk.target.shape, generator=draws)
    full = torch.rand(count, generator=draws) < settings.full_noise
    level = torch.where(full, LAST, torch.randint(0, LAST, (count,), generator=draws))
    silent = torch.rand(count, generator=draws) < settings.drop_text
    words = [said[:1] if quiet else said for said, quiet in zip(chunk.words, silent, strict=True)]
    signal = signal_of(level).view(-1, 1, 1, 1, 1)
    noisy = signal.sqrt() * chunk.target + (1 - signal).sqrt() * noise
    conditions, target = chunk.conditions.to(device), chunk.target.to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        found = network(
            noisy.to(device), conditions, word_numbers(words).to(device), level.to(device)
        )
    plate, base = picture(conditions, "plate"), picture(conditions, "base")
    loss = loss_of(found, target, plate, base, settings.weight)
    for group in state.optimiser.param_groups:
        group["lr"] = settings.rate_at(state.step)
    state.optimiser.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(network.parameters(), _MOST_GRADIENT)
    state.optimiser.step()
    decay = min(settings.average, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        torch._foreach_lerp_(
            list(state.average.values()), list(state_of(network).values()), 1 - decay
        )
    state.step += 1
    return float(loss.detach())


def loss_of(found: Tensor, target: Tensor, plate: Tensor, base: Tensor, weight: float) -> Tensor:
    """Return the error of predictions as a share of their bases' error, the mean of clips.

    So each clip counts alike, dark or bright, and what is counted is what figures in dB tell: how
    much better than the base a prediction is.

    Args:
        found: [B,T,H,W,3], model range.
        target: The same.
        plate: The same; pixels in which the target is not the plate count ``weight`` times.
        base: The same.
        weight: How often.
    """
    counts = 1 + (weight - 1) * changed_pixels(plate, target).float()
    with torch.no_grad():
        start = _errors(base, target, counts)
    return (_errors(found, target, counts) / (start + _LEAST)).mean()


def _errors(found: Tensor, target: Tensor, counts: Tensor) -> Tensor:
    """Return clips' errors: of codes, nearly absolute, and of light, nearly squared. [B].

    Light above 1 counts as 1; what goes on above it, codes alone say.
    """
    code = ((found - target) / 2).square().add(_SMOOTH_CODE**2).sqrt() - _SMOOTH_CODE
    light = nn.functional.huber_loss(
        light_of(found).clamp_max(1),
        light_of(target).clamp_max(1),
        reduction="none",
        delta=_BEND_LIGHT,
    )
    total = (counts * (code + _LIGHT_SHARE * light)).mean((1, 2, 3, 4))
    return total / counts.mean((1, 2, 3, 4))


def signal_of(level: Tensor) -> Tensor:
    """Return the share of the picture's variance at timesteps; 0 at the last. [B] -> [B]."""
    return torch.tensor(signal_levels(), dtype=torch.float32)[level]


# --- validation ----------------------------------------------------------------------------------


def validation_clips() -> list[Any]:
    """Make the clips that are looked at while it learns: of families that it never learns from."""
    from gencomp_server.training.preview_shots import make_batch

    return [
        make_batch(VALIDATION_SEED + i, 8, 5, (48, 64), families="held_out", task=task)
        for task in _TASKS
        for i in range(4)
    ]


def validate(state: PreviewState, batches: list[Any], out: Path) -> dict[str, float]:
    """Return mean PSNR of changed pixels, in dB, by task: of plate, base and what is found.

    A grid of plate, base, find and truth is written beside.
    """
    network = state.network.eval()
    device = next(network.parameters()).device
    own = {name: one.detach().clone() for name, one in state_of(network).items()}
    network.load_state_dict(state.average, strict=False)
    figures: dict[str, list[float]] = {}
    shown: list[Tensor] = []
    for batch in batches:
        conditions, target = batch.conditions, batch.target
        noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
        level = torch.full((len(target),), LAST)
        with torch.no_grad():
            found = network(
                noise.to(device),
                conditions.to(device),
                word_numbers([said[:MOST_WORDS] for said in batch.words]).to(device),
                level.to(device),
            ).cpu()
        plate, base = picture(conditions, "plate"), picture(conditions, "base")
        stages = {"plate": plate, "base": base, "gathered": picture(conditions, "gathered")}
        for name, stage in {**stages, "model": found}.items():
            for i, said in enumerate(batch.words):
                figure = psnr(light_of(stage[i]), light_of(target[i]), batch.changed[i])
                if math.isfinite(figure):
                    figures.setdefault(f"{said[0]}_{name}", []).append(figure)
        shown += [
            torch.stack([plate[i, 2], base[i, 2], found[i, 2], target[i, 2]]) for i in range(2)
        ]
    network.load_state_dict(own, strict=False)
    write_png(out / "grid.png", grid(torch.stack(shown).numpy()))
    return {name: round(float(np.mean(values)), 3) for name, values in figures.items()}


# --- files ---------------------------------------------------------------------------------------


def export(state: PreviewState, settings: PreviewSettings, path: Path) -> None:
    """Write the averaged weights as they ship."""
    network = make_network(0, settings.config)
    network.load_state_dict({n: one.cpu() for n, one in state.average.items()}, strict=False)
    write_network(network, path, {"steps": str(state.step), "seed": str(settings.seed)})


def read_log(out: Path) -> list[dict[str, Any]]:
    """Return the events of a training's log."""
    file = out / _LOG
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def load_state(settings: PreviewSettings, out: Path) -> PreviewState:
    """Return the training in a folder, on the CPU.

    Raises:
        ValueError: Its checkpoint is of another training.
    """
    return _started(settings, out, torch.device("cpu"))


def _started(settings: PreviewSettings, out: Path, device: torch.device) -> PreviewState:
    network = make_network(settings.seed, settings.config).to(device)
    named = state_of(network)
    optimiser = torch.optim.AdamW(
        named.values(), lr=settings.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    state = PreviewState(network, {n: o.detach().clone() for n, o in named.items()}, optimiser)
    place = _last_whole(out)
    if place is None:
        return state
    facts = json.loads((place / _STATE).read_text(encoding="utf-8"))
    if facts["belongs"] != settings.belongs():
        raise ValueError(f"{place} is of another training: choose another --out")
    parts = {name: load_file(place / f"{name}.safetensors") for name in _PARTS}
    state.step = int(facts["step"])
    with torch.no_grad():
        for name, one in named.items():
            one.copy_(parts["weights"][name])
            state.average[name].copy_(parts["average"][name])
            optimiser.state[one] = {
                "step": torch.tensor(float(state.step), device=device),
                "exp_avg": parts["mean"][name].to(device),
                "exp_avg_sq": parts["square"][name].to(device),
            }
    return state


def _last_whole(out: Path) -> Path | None:
    """Return the newest checkpoint that is whole; a state is the last file of one."""
    for name in ("checkpoint", "checkpoint.new", "checkpoint.old"):
        if (out / name / _STATE).is_file():
            return out / name
    return None


def _cut_log(out: Path, step: int) -> None:
    """Forget what the log says of steps after a checkpoint: they are gone over again."""
    kept = [event for event in read_log(out) if event["step"] <= step]
    (out / _LOG).write_text("".join(json.dumps(event) + "\n" for event in kept), encoding="utf-8")


def _save(state: PreviewState, settings: PreviewSettings, out: Path) -> None:
    """Write a checkpoint beside the last one, then put it in its place."""
    fresh, old, place = out / "checkpoint.new", out / "checkpoint.old", out / "checkpoint"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    named = state_of(state.network)
    kept = state.optimiser.state
    parts: dict[str, dict[str, Tensor]] = {
        "weights": {name: one.detach() for name, one in named.items()},
        "average": state.average,
        "mean": {name: kept[one]["exp_avg"] for name, one in named.items() if one in kept},
        "square": {name: kept[one]["exp_avg_sq"] for name, one in named.items() if one in kept},
    }
    for name, held in parts.items():
        save_file(
            {key: one.cpu().contiguous() for key, one in held.items()},
            str(fresh / f"{name}.safetensors"),
        )
    facts = {"step": state.step, "belongs": settings.belongs()}
    (fresh / _STATE).write_text(json.dumps(facts), encoding="utf-8")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        os.replace(place, old)
    os.replace(fresh, place)
    shutil.rmtree(old, ignore_errors=True)
