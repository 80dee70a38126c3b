# SPDX-License-Identifier: Apache-2.0
"""The one training loop, on accelerate, for all recipes.

Everything random is drawn by counting: the clip, its cut, its augmentation, its noise and timestep
follow from the seed, the step and the place in the batch. So a run that goes on from a checkpoint
is given what an unbroken one is given, and makes the same bits; and clips are prepared ahead in a
thread without changing anything.

Several processes (``accelerate launch``) share a step: each takes its own clips of the batch, the
gradients are averaged, the first process writes. The transformer is whole in each of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor

from gencomp_protocol.errors import BadKnob, Cancelled, InternalError
from gencomp_server.models.trainable import Trainable, add_lora, checkpoint_blocks, learning
from gencomp_server.parts.schedule import TRAIN_STEPS
from gencomp_server.training import checkpoint, conditions, grids, recipes, runlog
from gencomp_server.training.conditions import Example
from gencomp_server.training.export import write_weights

if TYPE_CHECKING:
    from gencomp_server.models.cogvideox import CogVideoXBackbone
    from gencomp_server.training.data import Clips
    from gencomp_server.training.recipes import Prepared, Recipe
    from gencomp_server.training.settings import TrainSettings

# What a draw is for: each has numbers of its own.
_ORDER, _CUT, _NOISE, _FIXED, _SHOWN = range(5)
_FIXED_CLIPS, _FIXED_LEVELS = 8, 4


@dataclass(frozen=True)
class Outcome:
    """What a training came to.

    Attributes:
        step: Steps that are done.
        first: Loss on the fixed set before the first step of all.
        last: The same at the end.
        weights: The files that were written.
    """

    step: int
    first: float
    last: float
    weights: tuple[Path, ...]


Report = Callable[[Mapping[str, Any]], None]


def train(
    recipe: Recipe,
    clips: Clips,
    backbone: CogVideoXBackbone,
    settings: TrainSettings,
    out: Path,
    *,
    resume: bool = False,
    report: Report | None = None,
    stopped: Callable[[], bool] | None = None,
) -> Outcome:
    """Train a backbone's transformer, in place, and write its weights.

    Args:
        recipe: What a clip becomes, and the loss.
        clips: What it learns from.
        backbone: Loaded, not offloaded; its VAE and text encoder stay as they are.
        settings: How.
        out: Folder for checkpoints, grids, log and weights.
        resume: Go on from the latest checkpoint there.
        report: Told events: ``step``, ``validation``, ``grid``, ``checkpoint``.
        stopped: Asked after every step; where it says yes a checkpoint is written.

    Raises:
        BadKnob: A setting is out of range, the folder holds another training, or a clip does not
            serve the recipe.
        MissingInput: There is no checkpoint to go on from.
        WeightsRefused: The checkpoint cannot be read.
        Cancelled: ``stopped`` said yes.
        InternalError: The loss or its gradient is not finite.
        DiskFull, UnwritableOutput: Something cannot be written.
    """
    settings.check(backbone.spec.even_latents)
    with _steady(settings.seed):
        run = _Run(recipe, clips, backbone, settings, out, report or (lambda event: None))
        return run.go(resume, stopped or (lambda: False))


def check_new(out: Path) -> None:
    """Refuse a folder that holds a training already.

    Raises:
        BadKnob: It does.
    """
    if checkpoint.checkpoints(out / "checkpoints"):
        raise BadKnob(
            f"There is a training in {out} already.",
            hint="Go on with it with --resume, or choose another --out.",
            knob="out",
        )


def check_device(name: str) -> None:
    """Refuse a device that this machine, or its torch, has not.

    Raises:
        BadKnob: It has not.
    """
    try:
        torch.empty(1, device=name)
    except (AssertionError, RuntimeError) as error:  # torch has either, by how it was built
        why = str(error).partition("\n")[0].rstrip(".")
        raise BadKnob(
            f"The device '{name}' cannot be had: {why}.",
            hint="Give --device cpu, or cuda where torch was built for it.",
            knob="device",
        ) from error


@contextmanager
def _steady(seed: int) -> Iterator[None]:
    """Have kernels give the same bits every time, and the global generator start the same."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.use_deterministic_algorithms(before)


@dataclass(frozen=True)
class _Item:
    """One clip of one step, prepared."""

    prepared: Prepared
    timestep: int
    key: tuple[int, ...]


class _Run:
    """One training: see :func:`train`."""

    def __init__(
        self,
        recipe: Recipe,
        clips: Clips,
        backbone: CogVideoXBackbone,
        settings: TrainSettings,
        out: Path,
        report: Report,
    ) -> None:
        self.recipe, self.clips, self.backbone = recipe, clips, backbone
        self.settings, self.out, self.report = settings, out, report
        if backbone.device.type == "cuda" and backbone.device.index is not None:
            # accelerate puts the transformer onto the current one
            torch.cuda.set_device(backbone.device)
        self.accelerator = Accelerator(
            mixed_precision="bf16" if settings.precision == "bf16" else "no",
            gradient_accumulation_steps=settings.accumulate,
            cpu=backbone.device.type == "cpu",
            # Parts of a published network that nothing reads get no gradient.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
        self.texts = self._embedded()
        model = Trainable(backbone)
        if settings.lora:
            self.parameters = add_lora(model, settings.lora, settings.seed)
        else:
            model.transformer.float()
            self.parameters = learning(model, () if settings.whole else recipe.trained)
        if settings.recompute:
            checkpoint_blocks(model)
        self.plain = model
        chosen = settings.optimiser
        optimiser = torch.optim.AdamW(
            self.parameters.values(),
            lr=chosen.lr,
            betas=chosen.betas,
            weight_decay=chosen.weight_decay,
        )
        average = (
            checkpoint.Average(self.parameters, settings.average) if settings.average else None
        )
        self.state = checkpoint.State(self.parameters, optimiser, average)
        self.model, self.optimiser = self.accelerator.prepare(model, optimiser)
        self.first = float("nan")

    def _embedded(self) -> dict[str, Tensor]:
        """Embed every caption there is, and the empty one; then let the encoder go."""
        told = {text for i in range(len(self.clips.names)) for text in self.clips.captions(i)}
        found = {text: self.backbone.text(text).cpu() for text in sorted({"", *told})}
        self.backbone.release()
        return found

    # --- the run ---------------------------------------------------------------------------------

    def go(self, resume: bool, stopped: Callable[[], bool]) -> Outcome:
        done = self._begin(resume)
        validation = self.first
        with ThreadPoolExecutor(1) as ahead:
            waiting = ahead.submit(self._items, done)
            for step in range(done, self.settings.steps):
                items = waiting.result()
                if step + 1 < self.settings.steps:
                    waiting = ahead.submit(self._items, step + 1)
                self._step(step, items)
                last = step + 1 == self.settings.steps
                halted = self._agreed(stopped())
                if last or halted or (step + 1) % self.settings.save_every == 0:
                    self._save(step + 1)
                if halted and not last:
                    raise Cancelled(
                        f"Stopped after step {step + 1}.",
                        hint="The same command with --resume goes on from there.",
                    )
                if last or self._is_due(step + 1):
                    validation = self._look(step + 1)
        if done == self.settings.steps:  # stopped between its last checkpoint and its weights
            validation = self._look(done)
        return Outcome(self.settings.steps, self.first, validation, self._write())

    def _agreed(self, halted: bool) -> bool:
        """Tell whether any process was asked to stop: all stop after the same step."""
        if self.accelerator.num_processes == 1:
            return halted
        asked = torch.tensor(float(halted), device=self.accelerator.device)
        return bool(self.accelerator.reduce(asked, "sum") > 0)

    def _is_due(self, step: int) -> bool:
        return self.settings.grid_every > 0 and step % self.settings.grid_every == 0

    def _begin(self, resume: bool) -> int:
        """Go on, or start: return the steps that are done."""
        folder = self.out / "checkpoints"
        if resume:
            done = checkpoint.load(folder, self.state, self._belongs())
            if done > self.settings.steps:
                raise BadKnob(
                    f"The checkpoint in {folder} has {done} steps already, more than "
                    f"{self.settings.steps}.",
                    hint="Give --steps a larger number.",
                    knob="steps",
                )
            events = runlog.read_log(self.out)
            self.first = runlog.first_loss(events)
            if self.accelerator.is_main_process:  # what came after the checkpoint comes again
                runlog.write(self.out, [one for one in events if one["step"] <= done])
            return done
        check_new(self.out)
        if self.accelerator.is_main_process:
            runlog.write(self.out, [])
        self.first = self._look(0)
        return 0

    def _belongs(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe.name,
            "backbone": self.backbone.identity,
            "clips": self.clips.identity,
            "processes": self.accelerator.num_processes,
            **self.settings.belongs(),
        }

    # --- one step --------------------------------------------------------------------------------

    def _items(self, step: int) -> list[list[_Item]]:
        """Prepare what a step takes: a list for each of its forwards."""
        share = self.settings
        found = []
        for forward in range(share.accumulate):
            first = (step * share.accumulate + forward) * self.accelerator.num_processes
            first = (first + self.accelerator.process_index) * share.batch
            found.append([self._item(first + at) for at in range(share.batch)])
        return found

    def _item(self, number: int) -> _Item:
        """Prepare the clip that comes at a number, counted over the whole training."""
        epoch, at = divmod(number, len(self.clips.names))
        order = self._rng(_ORDER, epoch).permutation(len(self.clips.names))
        key = _CUT, number
        rng = self._rng(*key)
        prepared = self._prepared(int(order[at]), rng)
        return _Item(prepared, conditions.draw_timestep(rng), (_NOISE, number))

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.settings.seed, *key])

    def _prepared(self, index: int, rng: np.random.Generator) -> Prepared:
        length, size = self.clips.length(index), self.settings.size
        cut = self.recipe.cut(length, self.settings.frames, size, rng)
        return recipes.prepare(
            self.recipe, self.clips.load(index, cut), rng, self.settings.drop_text
        )

    def _step(self, step: int, items: list[list[_Item]]) -> None:
        rate = self.settings.optimiser.rate(step, self.settings.steps)
        for group in self.state.optimiser.param_groups:
            group["lr"] = rate
        total, norm = 0.0, 0.0
        for some in items:
            with self.accelerator.accumulate(self.model):
                loss = self._loss(some)
                self.accelerator.backward(loss)
                if self.accelerator.sync_gradients:
                    most = self.settings.optimiser.clip_norm or float("inf")
                    norm = float(
                        self.accelerator.clip_grad_norm_(list(self.parameters.values()), most)
                    )
                self.optimiser.step()
                self.optimiser.zero_grad()
            total += float(loss.detach()) / len(items)
        if not np.isfinite([total, norm]).all():  # not finite, the weights are lost by now
            raise InternalError(
                f"The loss of step {step + 1} or its gradient is not finite.",
                hint="Start anew with a lower --lr: from its checkpoint it would come here again.",
            )
        if self.state.average is not None:
            self.state.average.update(self.parameters, step)
        self._tell({"event": "step", "step": step + 1, "loss": total, "lr": rate, "norm": norm})

    def _loss(self, items: list[_Item]) -> Tensor:
        examples = [conditions.example(i.prepared, self.recipe, self.backbone) for i in items]
        noises = [
            self._noise(one.picture, item.key) for one, item in zip(examples, items, strict=True)
        ]
        timesteps = [item.timestep for item in items]
        return self._error(self.model, examples, torch.cat(noises), timesteps)

    def _noise(self, like: Tensor, key: tuple[int, ...]) -> Tensor:
        drawn = self._rng(*key).standard_normal(tuple(like.shape), dtype=np.float32)
        return torch.from_numpy(drawn).to(like)

    def _error(
        self, model: Any, examples: list[Example], noise: Tensor, timesteps: list[int]
    ) -> Tensor:
        picture = torch.cat([one.picture for one in examples])
        latents, wanted = conditions.noisy(picture, noise, timesteps)
        text = torch.cat([self.texts[one.caption] for one in examples]).to(picture)
        condition = torch.cat([one.condition for one in examples])
        times = torch.tensor(timesteps, device=picture.device)
        predicted = model(latents, times, text, condition)
        subjects = [one.subject for one in examples if one.subject is not None]
        return conditions.loss_of(predicted, wanted, torch.cat(subjects) if subjects else None)

    # --- looking at it ---------------------------------------------------------------------------

    def _look(self, step: int) -> float:
        """Measure the loss on a fixed set and draw a grid; with the average, once there is one."""
        if not self.accelerator.is_main_process:
            return float("nan")
        average = self.state.average if step else None
        held = average.in_place(self.parameters) if average is not None else nullcontext()
        with held, torch.no_grad():
            loss = self._fixed_loss()
            if self._is_due(step):
                self._draw(step)
        self._tell({"event": "validation", "step": step, "loss": loss})
        return loss

    def _fixed_loss(self) -> float:
        """Return the loss on the first clips, with noise and timesteps that are always the same."""
        losses = []
        for index in range(min(_FIXED_CLIPS, len(self.clips.names))):
            prepared = self._prepared(index, self._rng(_FIXED, index))
            one = conditions.example(prepared, self.recipe, self.backbone)
            for level in range(_FIXED_LEVELS):
                noise = self._noise(one.picture, (_FIXED, index, level))
                timestep = int((level + 0.5) * TRAIN_STEPS / _FIXED_LEVELS)
                with self.accelerator.autocast():
                    losses.append(float(self._error(self.plain, [one], noise, [timestep])))
        return float(np.mean(losses))

    def _draw(self, step: int) -> None:
        bands = []
        for index in range(min(self.settings.grid_clips, len(self.clips.names))):
            prepared = self._prepared(index, self._rng(_FIXED, index))
            one = conditions.example(prepared, self.recipe, self.backbone)
            noise = self._noise(one.picture, (_SHOWN, index))
            text = self.texts[one.caption].to(one.picture)
            with self.accelerator.autocast():
                latents = grids.sample(
                    self.plain, noise, text, one.condition, self.settings.grid_steps
                )
            made = self.backbone.decode(latents.float())
            bands.append(grids.Band(f"{self.clips.names[index]} {one.caption}", prepared, made))
        path = self.out / "grids" / f"step-{step:08d}.png"
        grids.write_grid(path, bands)
        self._tell({"event": "grid", "step": step, "path": str(path)})

    # --- on disk ---------------------------------------------------------------------------------

    def _save(self, step: int) -> None:
        if self.accelerator.is_main_process:
            folder = self.out / "checkpoints"
            belongs = self._belongs()
            path = checkpoint.save(folder, self.state, step, belongs, keep=self.settings.keep)
            self._tell({"event": "checkpoint", "step": step, "path": str(path)})
        self.accelerator.wait_for_everyone()

    def _write(self) -> tuple[Path, ...]:
        """Write the weights in the form that is installed; the average where there is one."""
        if not self.accelerator.is_main_process:
            return ()
        average = self.state.average
        held = average.in_place(self.parameters) if average is not None else nullcontext()
        with held:
            return write_weights(self.plain, self.parameters, self.backbone.spec, self.out)

    def _tell(self, event: dict[str, Any]) -> None:
        """Report an event and log it."""
        if self.accelerator.is_main_process:
            self.report(event)
            runlog.append(self.out, event)
