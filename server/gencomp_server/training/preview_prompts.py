# SPDX-License-Identifier: Apache-2.0
"""What is said of the effects in the preview's shots, and what is true of them."""

from __future__ import annotations

import torch
from torch import Tensor

from gencomp_server.training.preview_draws import Draws
from gencomp_server.training.preview_kinds import KINDS, Effects
from gencomp_server.training.preview_objects import Objects


def _nearest(objects: Objects, asked: Tensor) -> list[list[int]]:
    """Return for each clip the numbers of the objects in question, the nearest first."""
    found: list[list[int]] = [[] for _ in range(len(asked))]
    for index, (clip, rank) in enumerate(
        zip(objects.clip.tolist(), objects.rank.tolist(), strict=True)
    ):
        if asked[clip, rank]:
            found[clip].insert(0, index)
    return found


def facts_of(objects: Objects, effects: Effects, asked: Tensor) -> dict[str, Tensor]:
    """Return what is true of the effects in question, of the nearest object that has the kind.

    Args:
        objects: Of all clips.
        effects: Theirs.
        asked: Which objects are in question. [B,K] bool.

    Returns:
        ``there``, ``amount``, ``lean``, ``colour``, [B,7] each, and ``softness``, [B].
    """
    count = len(asked)
    device = effects.amount.device
    there = torch.zeros(count, len(KINDS), dtype=torch.bool, device=device)
    amount = torch.zeros(count, len(KINDS), device=device)
    lean, colour = torch.zeros_like(amount), torch.zeros_like(amount, dtype=torch.int64)
    softness = torch.zeros(count, device=device)
    for clip, indices in enumerate(_nearest(objects, asked)):
        for index in reversed(indices):
            has = effects.there[index]
            there[clip] |= has
            amount[clip] = torch.where(has, effects.amount[index], amount[clip])
            lean[clip] = torch.where(has, effects.lean[index], lean[clip])
            colour[clip] = torch.where(has, effects.colour[index], colour[clip])
            softness[clip] = effects.softness[index]
    return {
        "there": there,
        "amount": amount,
        "lean": lean,
        "colour": colour,
        "softness": softness,
    }


def prompts_of(
    draws: Draws, objects: Objects, effects: Effects, asked: Tensor, adding: Tensor
) -> tuple[tuple[str, ...], ...]:
    """Return the prompts: the task, then each kind of effect with some of what describes it.

    Args:
        draws: Decide what is said.
        objects: Of all clips.
        effects: Theirs.
        asked: Which objects are in question. [B,K] bool.
        adding: True where their effects are added; elsewhere the task is all that is said. [B].
    """
    said = draws.uniform(0, 1, len(objects.clip), len(KINDS), 5)
    prompts: list[tuple[str, ...]] = []
    for clip, indices in enumerate(_nearest(objects, asked)):
        if not adding[clip]:
            prompts.append(("remove",))
            continue
        prompt, named = ["add"], set()
        for index in indices:
            for kind in range(len(KINDS)):
                if kind in named or not effects.there[index, kind]:
                    continue
                named.add(kind)
                *describing, noun = effects.words(index, kind)
                for place, word in enumerate(describing):
                    chance = 0.35 if word in ("left", "right") else 0.75
                    if float(said[index, kind, place]) < chance:
                        prompt.append(word)
                prompt.append(noun)
        prompts.append(tuple(prompt))
    return tuple(prompts)
