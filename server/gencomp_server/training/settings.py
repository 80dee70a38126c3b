# SPDX-License-Identifier: Apache-2.0
"""What a training can be told: its optimiser, its length, what it keeps and what it draws."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from gencomp_protocol.errors import BadKnob


@dataclass(frozen=True)
class Optimiser:
    """AdamW and the way of its learning rate.

    Attributes:
        lr: Highest learning rate.
        schedule: ``constant`` or ``cosine``, which falls to zero at the last step.
        warmup: Steps over which it rises.
        betas: Of the running means.
        weight_decay: Of AdamW.
        clip_norm: Most that the gradient's norm may be; 0 for no limit.
    """

    lr: float = 2e-5
    schedule: str = "constant"
    warmup: int = 100
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 3e-2
    clip_norm: float = 1.0

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step, counted from 0, out of so many."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        if self.schedule == "constant":
            return self.lr
        share = (step - self.warmup) / max(1, steps - self.warmup)
        return self.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))


@dataclass(frozen=True)
class TrainSettings:
    """How a training runs.

    Attributes:
        steps: Steps of the optimiser.
        frames: Frames of a clip, 4k + 1.
        size: Width and height in pixels.
        batch: Clips of a forward, in each process.
        accumulate: Forwards of a step.
        optimiser: How it learns.
        average: Decay of the weights' running average; 0 keeps none.
        lora: Rank of a LoRA; 0 trains the weights themselves.
        whole: True to train every weight, also where the recipe names parts.
        seed: Of all draws.
        drop_text: Share of clips that are told nothing.
        save_every: Steps between checkpoints.
        grid_every: Steps between grids; 0 draws none.
        grid_clips: Clips of a grid.
        grid_steps: Denoising steps of a grid.
        keep: Checkpoints that are left.
        recompute: True to keep no activations inside blocks.
        precision: ``fp32`` or ``bf16``: what a forward computes in.
    """

    steps: int
    frames: int
    size: tuple[int, int]
    optimiser: Optimiser
    batch: int = 1
    accumulate: int = 1
    average: float = 0.999
    lora: int = 0
    whole: bool = False
    seed: int = 0
    drop_text: float = 0.1
    save_every: int = 500
    grid_every: int = 0
    grid_clips: int = 2
    grid_steps: int = 20
    keep: int = 2
    recompute: bool = False
    precision: str = "fp32"

    def check(self, even_latents: bool) -> None:
        """Refuse what cannot be trained.

        Args:
            even_latents: The model takes latent frames in pairs.

        Raises:
            BadKnob: A setting is out of range; names it.
        """
        multiple, first = (8, 5) if even_latents else (4, 1)
        rules = {
            "steps": self.steps >= 1,
            "frames": self.frames >= 1 and self.frames % multiple == first % multiple,
            "batch": self.batch >= 1,
            "accumulate": self.accumulate >= 1,
            "average": 0 <= self.average < 1,
            "lora": self.lora >= 0,
            "seed": self.seed >= 0,
            "lr": 0 < self.optimiser.lr < math.inf,
            "warmup": self.optimiser.warmup >= 0,
            "drop_text": 0 <= self.drop_text <= 1,
            "save_every": self.save_every >= 1,
            "grid_every": self.grid_every >= 0,
            "keep": self.keep >= 1,
            "precision": self.precision in ("fp32", "bf16"),
        }
        values = {**asdict(self), **asdict(self.optimiser)}
        for name, holds in rules.items():
            if not holds:
                cure = f"Frames are {first}, {first + multiple}, {first + 2 * multiple} and so on."
                raise BadKnob(
                    f"A training cannot have {name} = {values[name]}.",
                    hint=cure if name == "frames" else "",
                    knob=name,
                )

    def belongs(self) -> dict[str, Any]:
        """Return what must stay the same where a training goes on."""
        free = ("save_every", "grid_every", "grid_clips", "grid_steps", "keep")
        every = {**asdict(self), **asdict(self.optimiser)}
        plain = {name: value for name, value in every.items() if name not in (*free, "optimiser")}
        if self.optimiser.schedule == "constant":
            del plain["steps"]  # More of the same is the same training.
        return plain
