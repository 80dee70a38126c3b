# SPDX-License-Identifier: Apache-2.0
"""The layers of the preview's shots, and what they make over one another."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gencomp_server.training.preview_draws import Draws, column
from gencomp_server.training.preview_kinds import Effects
from gencomp_server.training.preview_objects import MOST, Objects


@dataclass(frozen=True)
class Layers:
    """What lies over what, of each clip; objects by rank, 0 the farthest.

    Everything on the ground lies under all objects; what is in the air lies over its own object.

    Attributes:
        clean: Scene-linear. [B,T,3,H,W].
        there: Which ranks there are. [B,K] bool.
        colour: The objects, premultiplied. [B,K,T,3,H,W].
        alpha: Their coverage. [B,K,T,1,H,W].
        through: What effects let through: on the ground, in the air. [2,B,K,T,3,H,W].
        added: What they add. [2,B,K,T,3,H,W].
        fields: Fractal fields of the clips. [B,2,128,128].
    """

    clean: Tensor
    there: Tensor
    colour: Tensor
    alpha: Tensor
    through: Tensor
    added: Tensor
    fields: Tensor

    @classmethod
    def made(
        cls,
        draws: Draws,
        clean: Tensor,
        drawn: Tensor,
        effects: Effects,
        objects: Objects,
        lens: Tensor,
        fields: Tensor,
    ) -> Layers:
        """Put the objects in their places, as the lens and the sensor see them.

        Args:
            draws: Where chance comes from.
            clean: Before the lens. [B,T,3,H,W].
            drawn: The objects before the lens, premultiplied RGBA. [O,T,4,H,W].
            effects: Theirs.
            objects: Whose clip and rank they are.
            lens: What exposure, vignette and cast multiply by. [B,T,3,H,W].
            fields: Kept for mattes. [B,2,128,128].
        """
        count, frames, _, height, width = clean.shape
        sigma = draws.log_uniform(0.0005, 0.012, count)
        noise = draws.normal(2, count, frames, 3, height, width)
        clean = clean * lens
        clean = clean + column(sigma, 5) * (clean.abs() + 0.02).sqrt() * noise[0]
        lens, other = lens[objects.clip], noise[1][objects.clip]
        alpha, colour = drawn[:, :, 3:], drawn[:, :, :3] * lens
        rough = column(sigma[objects.clip], 5)
        colour = colour + alpha * rough * (colour.abs() + 0.02).sqrt() * other
        whole = (count, MOST, frames)
        size = (height, width)
        device = clean.device
        into = {
            "colour": torch.zeros(*whole, 3, *size, device=device),
            "alpha": torch.zeros(*whole, 1, *size, device=device),
            "through": torch.ones(2, *whole, 3, *size, device=device),
            "added": torch.zeros(2, *whole, 3, *size, device=device),
        }
        at = (objects.clip, objects.rank)
        into["colour"][at], into["alpha"][at] = colour, alpha
        for i, (through, added) in enumerate((effects.ground, effects.air)):
            into["through"][i][at] = through
            into["added"][i][at] = added * lens
        there = torch.zeros(count, MOST, dtype=torch.bool, device=device)
        there[at] = True
        return cls(clean=clean, there=there, fields=fields, **into)

    def coverage(self) -> Tensor:
        """Return what of each object can be seen, in front of it objects alone. [B,K,T,1,H,W]."""
        free = torch.ones_like(self.alpha[:, 0])
        seen = []
        for rank in reversed(range(MOST)):
            seen.append(self.alpha[:, rank] * free)
            free = free * (1 - self.alpha[:, rank])
        return torch.stack(seen[::-1], 1)


def composite(
    layers: Layers, objects: Tensor, effects: Tensor, part: Tensor | None = None
) -> Tensor:
    """Return the picture that some of the layers make.

    Args:
        layers: All of them.
        objects: Which objects. [B,K] bool.
        effects: Whose effects. [B,K] bool.
        part: Where, and how much of each object's effects; all of them if None. [B,K,1,1,H,W].

    Returns:
        Scene-linear. [B,T,3,H,W].
    """
    picture = layers.clean
    for rank in range(MOST):
        picture = _under(layers, picture, effects, part, rank, 0)
    for rank in range(MOST):
        if not bool(layers.there[:, rank].any()):
            continue
        shown = column(objects[:, rank].float(), 5)
        picture = picture * (1 - layers.alpha[:, rank] * shown) + layers.colour[:, rank] * shown
        picture = _under(layers, picture, effects, part, rank, 1)
    return picture


def _under(
    layers: Layers, picture: Tensor, effects: Tensor, part: Tensor | None, rank: int, where: int
) -> Tensor:
    if not bool((effects & layers.there)[:, rank].any()):
        return picture
    changed = picture * layers.through[where, :, rank] + layers.added[where, :, rank]
    if part is not None:
        changed = torch.lerp(picture, changed, part[:, rank])
    return torch.where(column(effects[:, rank], 5), changed, picture)
