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
        clip: Which clip each object belongs to. [O].
        rank: Its number in the clip. [O].
        colour: The objects, premultiplied. [O,T,3,H,W].
        alpha: Their coverage. [O,T,1,H,W].
        ground: What their effects on the ground let through, and what they add. [O,T,3,H,W] each.
        air: The same in the air.
        fields: Fractal fields of the clips. [B,2,128,128].
    """

    clean: Tensor
    clip: Tensor
    rank: Tensor
    colour: Tensor
    alpha: Tensor
    ground: tuple[Tensor, Tensor]
    air: tuple[Tensor, Tensor]
    fields: Tensor

    @property
    def there(self) -> Tensor:
        """Tell which ranks there are. [B,K] bool."""
        flags = torch.zeros(len(self.clean), MOST, dtype=torch.bool, device=self.clean.device)
        flags[self.clip, self.rank] = True
        return flags

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
        count = len(clean)
        sigma = draws.log_uniform(0.0005, 0.012, count)
        noise = draws.normal(2, *clean.shape)
        clean = clean * lens
        clean = clean + column(sigma, 5) * (clean.abs() + 0.02).sqrt() * noise[0]
        lens, other = lens[objects.clip], noise[1][objects.clip]
        alpha, colour = drawn[:, :, 3:], drawn[:, :, :3] * lens
        rough = column(sigma[objects.clip], 5)
        colour = colour + alpha * rough * (colour.abs() + 0.02).sqrt() * other
        return cls(
            clean=clean,
            clip=objects.clip,
            rank=objects.rank,
            colour=colour,
            alpha=alpha,
            ground=(effects.ground[0], effects.ground[1] * lens),
            air=(effects.air[0], effects.air[1] * lens),
            fields=fields,
        )

    def coverage(self) -> Tensor:
        """Return what of each object can be seen, in front of it objects alone. [B,K,T,1,H,W]."""
        alpha = self.alpha.new_zeros(len(self.clean), MOST, *self.alpha.shape[1:])
        alpha[self.clip, self.rank] = self.alpha
        free = torch.ones_like(alpha[:, 0])
        seen = []
        for rank in reversed(range(MOST)):
            seen.append(alpha[:, rank] * free)
            free = free * (1 - alpha[:, rank])
        return torch.stack(seen[::-1], 1)


def composite(
    layers: Layers, objects: Tensor, effects: Tensor, part: Tensor | None = None
) -> Tensor:
    """Return the picture that some of the layers make.

    Args:
        layers: All of them.
        objects: Which objects. [B,K] bool.
        effects: Whose effects. [B,K] bool.
        part: Where, and how much of each object's effects; all of them if None. [O,1,1,H,W].

    Returns:
        Scene-linear. [B,T,3,H,W].
    """
    picture = layers.clean.clone()
    shown, acting = (flags[layers.clip, layers.rank] for flags in (objects, effects))
    for rank in range(MOST):
        _act(picture, layers, layers.ground, acting & (layers.rank == rank), part)
    for rank in range(MOST):
        here = layers.rank == rank
        some = (here & shown).nonzero()[:, 0]
        clips = layers.clip[some]
        picture[clips] = picture[clips] * (1 - layers.alpha[some]) + layers.colour[some]
        _act(picture, layers, layers.air, acting & here, part)
    return picture


def _act(
    picture: Tensor,
    layers: Layers,
    effect: tuple[Tensor, Tensor],
    which: Tensor,
    part: Tensor | None,
) -> None:
    """Let the effects of some objects, one of a clip, act on the picture."""
    some = which.nonzero()[:, 0]
    clips = layers.clip[some]
    before = picture[clips]
    after = before * effect[0][some] + effect[1][some]
    picture[clips] = after if part is None else torch.lerp(before, after, part[some])
