# SPDX-License-Identifier: Apache-2.0
"""What objects of the preview's shots leave behind: shadows, reflections, smoke, dust and more.

An effect is what it lets through and what it adds, ``through * below + added`` per channel, in
scene-linear; light that falls on something lets through more than 1. Those on the ground lie under
all objects, those in the air over the object that they belong to.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gencomp_server.training.preview_draws import Draws, column, sampled, smooth
from gencomp_server.training.preview_kinds import (
    COLOURS,
    DUST,
    GLOW,
    KINDS,
    REFLECTION,
    SHADOW,
    SMOKE,
    SPLASH,
    WAKE,
    Effects,
)
from gencomp_server.training.preview_objects import LEVELS, Objects, blurred_samples
from gencomp_server.training.preview_scene import Camera

_CHANCES = (0.66, 0.24, 0.15, 0.13, 0.1, 0.1, 0.13)

_PALETTES = {
    SMOKE: (0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 8, 8, 9, 9, 10),
    DUST: (10, 10, 10, 8, 7, 1, 0),
    SPLASH: (7, 7, 7, 4, 0, 3),
    WAKE: (7,),
    GLOW: (0, 1, 1, 2, 2, 3, 4, 4, 5, 6, 7, 7),
}


@dataclass(frozen=True)
class _Views:
    """Where pixels are, for each object: as a board upright, and on the ground. [O,N,H,W] each."""

    bx: Tensor
    by: Tensor
    gx: Tensor
    gy: Tensor
    row: Tensor

    def only(self, some: Tensor) -> _Views:
        return _Views(*(getattr(self, f)[some] for f in ("bx", "by", "gx", "gy", "row")))


def draw_effects(
    draws: Draws,
    objects: Objects,
    camera: Camera,
    grids: tuple[Tensor, Tensor, Tensor, Tensor],
    times: Tensor,
    frames: int,
    families: str,
    fields: Tensor,
    glare: Tensor,
    light: Tensor,
) -> Effects:
    """Draw effects and what they do to the light.

    Args:
        draws: Where chance comes from.
        objects: Whose.
        camera: Of the clips.
        grids: Points of the pictures: unrolled x and y, at rest x and y. [B,N,H,W] each.
        times: [N], a whole number of them for each frame.
        frames: T.
        families: ``train`` or ``held_out``: which variants.
        fields: Fractal fields of the clips. [B,2,128,128].
        glare: Direction to the light, to the right and down. [B,2].
        light: How bright the clip is: mean of the clean plate. [B].

    Returns:
        The effects, averaged over the shutter.
    """
    total = len(objects.clip)
    chances = torch.tensor(_CHANCES, device=draws.device)
    there = draws.uniform(0, 1, total, len(KINDS)) < chances
    none = ~there.any(1)
    there[:, SHADOW] |= none
    amount = draws.uniform(0, 1, total, len(KINDS))
    softness = draws.uniform(0, 1, len(glare))[objects.clip]
    colour = torch.zeros(total, len(KINDS), dtype=torch.int64, device=draws.device)
    for kind, palette in _PALETTES.items():
        colour[:, kind] = draws.chosen(palette, total)
    x, y, rest_x, rest_y = grids
    bx, by = objects.local(camera, x, y)
    tall = column(objects.height, 4)
    gx = (rest_x[objects.clip] - column(objects.foot[..., 0], 4)) / tall
    gy = (rest_y[objects.clip] - column(objects.foot[..., 1], 4)) / tall
    views = _Views(bx, by, gx, gy, rest_y[objects.clip])
    shape = (total, frames, 3, *x.shape[2:])
    one, zero = torch.ones(shape, device=draws.device), torch.zeros(shape, device=draws.device)
    ground, air = [one, zero], [one.clone(), zero.clone()]
    lean = torch.zeros(total, len(KINDS), device=draws.device)
    made = _Maker(draws, objects, camera, times, families, fields, glare, light)
    for kind, make in made.makers.items():
        some = there[:, kind].nonzero()[:, 0]
        if not len(some):
            continue
        tint = torch.tensor(list(COLOURS.values()), device=draws.device)[colour[some, kind]]
        through, added, leaning = make(
            some, views.only(some), amount[some, kind], softness[some], tint
        )
        lean[some, kind] = leaning
        into = ground if kind in (SHADOW, REFLECTION, WAKE) else air
        each = len(times) // frames
        through = through.unflatten(1, (frames, each)).mean(2)
        added = added.unflatten(1, (frames, each)).mean(2)
        into[0][some], into[1][some] = (
            through * into[0][some],
            through * into[1][some] + added,
        )
    return Effects(there, amount, softness, lean, colour, (ground[0], ground[1]), (air[0], air[1]))


class _Maker:
    """Makes one kind for some objects: what is let through and added, [O,N,3,H,W], and the lean."""

    def __init__(
        self,
        draws: Draws,
        objects: Objects,
        camera: Camera,
        times: Tensor,
        families: str,
        fields: Tensor,
        glare: Tensor,
        light: Tensor,
    ) -> None:
        self.draws, self.objects, self.camera, self.times = draws, objects, camera, times
        self.held_out = families == "held_out"
        self.fields, self.light = fields, light
        self.glare = glare
        count = len(light)
        # One light for all objects of a clip: shadows to the side away from it.
        down = draws.uniform(0.25, 0.85, count)
        self.fall_y = torch.where(draws.flags(0.5, count), down, -down * 0.7)
        self.fall_x = -torch.sign(glare[:, 0]) * draws.uniform(0.1, 1.5, count)
        self.fall_color = 1 - draws.uniform(0, 0.16, count)[:, None] * torch.tensor(
            [0.0, 0.35, 1.0], device=draws.device
        )
        self.makers = {
            SHADOW: self.shadow,
            REFLECTION: self.reflection,
            WAKE: self.wake,
            SMOKE: self.smoke,
            DUST: self.dust,
            SPLASH: self.splash,
            GLOW: self.glow,
        }

    # --- on the ground ---------------------------------------------------------------------------

    def shadow(
        self, some: Tensor, at: _Views, amount: Tensor, softness: Tensor, _: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        draws, clip = self.draws, self.objects.clip[some]
        deep = 0.28 + 0.62 * amount
        fall_x, fall_y = self.fall_x[clip], self.fall_y[clip]
        dark = self._cast(some, at, fall_x, fall_y, softness) * column(deep, 4)
        if self.held_out:  # a second lamp on the other side, for a third of them
            twice = draws.flags(0.33, len(some)).float() * draws.uniform(0.3, 0.7, len(some))
            other = self._cast(some, at, -0.7 * fall_x, fall_y * 1.2, softness)
            dark = 1 - (1 - dark) * (1 - other * column(deep * twice, 4))
        lifted = column(self.objects.lift[some], 4)
        wide = column(draws.uniform(0.12, 0.3, len(some)), 4)
        contact = torch.exp(-(at.gx / wide).square() - (at.gy / (wide * 0.35)).square())
        touch = column(draws.uniform(0.4, 0.9, len(some)) * deep, 4)
        dark = 1 - (1 - dark) * (1 - contact * touch * torch.exp(-lifted * 8))
        through = 1 - dark[:, :, None] * self.fall_color[clip].view(-1, 1, 3, 1, 1)
        return through, torch.zeros_like(through), fall_x / (fall_x.abs() + fall_y.abs())

    def _cast(
        self, some: Tensor, at: _Views, fall_x: Tensor, fall_y: Tensor, softness: Tensor
    ) -> Tensor:
        """Return how much of the light objects hold back, 0..1. [O,N,H,W]."""
        clip, tall = self.objects.clip[some], column(self.objects.height[some], 4)
        foot = self.objects.foot[some][..., 1]
        wall = self.camera.foot[clip]
        wall = torch.where(wall > 2, torch.full_like(wall, -50.0), wall)
        base = (column(wall, 4) - column(foot, 4)) / tall
        down = torch.maximum(at.gy, base)
        up = down / column(fall_y, 4)
        across = at.gx - column(fall_x, 4) * up
        high = up + (base - at.gy).clamp_min(0)
        soft = column(softness, 4)
        level = (LEVELS - 1) * (0.35 * soft.square() + (0.05 + 0.6 * soft) * high * 0.8)
        flat = high - column(self.objects.lift[some], 4)
        alpha = self.objects.soft[some, :, 3:]
        held = blurred_samples(alpha, level.clamp(0, LEVELS - 1), across, -flat)[:, :, 0]
        return held * smooth((up + 0.03) / 0.05)

    def reflection(
        self, some: Tensor, at: _Views, amount: Tensor, _: Tensor, __: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        draws, count = self.draws, len(some)
        times = self.times.view(1, -1, 1, 1)
        ripple = column(draws.uniform(0, 0.07, count) * draws.flags(0.6, count), 4)
        if self.held_out:
            ripple = ripple * (1 + torch.sin(at.gx * 9))
        waves = torch.sin(
            at.gy * column(draws.uniform(18, 55, count), 4)
            + times * column(draws.uniform(-1.5, 1.5, count), 4)
        )
        x = at.bx + ripple * waves * (0.3 + at.by)
        lifted = column(self.objects.lift[some], 4)
        rough = column(draws.uniform(0, 1.6, count), 4)
        level = (rough * (0.3 + at.by.clamp_min(0))).clamp(0, LEVELS - 1)
        # A point so far above the ground is seen as far below it.
        found = blurred_samples(self.objects.soft[some], level, x, lifted - at.by)
        share = 0.25 + 0.5 * amount
        fade = torch.exp(-at.by.clamp_min(0) * column(draws.uniform(0.0, 0.9, count), 4))
        wall = column(self.camera.foot[self.objects.clip[some]], 4)
        floor = torch.where(wall < 2, (at.row > wall).float(), torch.ones_like(at.row))
        puddle = sampled(self.fields[self.objects.clip[some], 1], at.gx * 0.25, at.gy * 0.6)
        wet = torch.where(
            column(draws.flags(0.3, count), 4), smooth(puddle * 2 + 1.2), torch.ones_like(puddle)
        )
        share = column(share, 4) * fade * floor * wet * smooth((at.by + 0.02) / 0.04)
        cover = found[:, :, 3:] * share[:, :, None]
        through = (1 - cover).expand(-1, -1, 3, -1, -1)
        return through, found[:, :, :3] * share[:, :, None], torch.zeros_like(amount)

    def wake(
        self, some: Tensor, at: _Views, amount: Tensor, _: Tensor, tint: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        draws, count = self.draws, len(some)
        way = -torch.sign(self.objects.speed[some])
        behind = at.gx * column(way, 4)
        side = at.gy * 2.4
        spread = column(draws.uniform(0.2, 0.5, count), 4)
        arm = side.abs() - spread * (behind + 0.2)
        wide = 0.1 + 0.12 * behind.clamp_min(0)
        env = torch.exp(-(arm / wide).square()) * smooth((behind + 0.25) * 4)
        env = env + 0.6 * torch.exp(-(side / (0.15 + 0.2 * behind.abs())).square()) * smooth(
            behind * 4
        )
        env = env * torch.exp(-behind.clamp_min(0) / column(draws.uniform(0.5, 1.6, count), 4))
        crest = column(draws.uniform(9, 22, count), 4)
        wave = torch.sin(crest * (arm * 1.2 - 0.4 * behind) - self.times.view(1, -1, 1, 1) * 0.9)
        foam = sampled(self.fields[self.objects.clip[some], 0], at.gx * 0.8, at.gy * 1.6)
        strong = column(0.35 + 0.65 * amount, 4)
        white = (env * strong * smooth(0.5 + 0.4 * wave + 0.25 * foam)).clamp(0, 0.9)
        dark = (env * strong * 0.5 * smooth(0.3 - 0.5 * wave)).clamp(0, 0.7)
        through = ((1 - white) * (1 - dark))[:, :, None].expand(-1, -1, 3, -1, -1)
        return through, self._lit(some, white, tint, 1.1), way

    # --- in the air ------------------------------------------------------------------------------

    def _lit(self, some: Tensor, cover: Tensor, tint: Tensor, gain: float = 1.0) -> Tensor:
        """Return the light of something that covers so much, lit as the place is."""
        level = (self.light[self.objects.clip[some]] * 2.6).clamp(0.12, 1.6) * gain
        return cover[:, :, None] * (tint * level[:, None]).view(-1, 1, 3, 1, 1)

    def _clouds(
        self, some: Tensor, x: Tensor, y: Tensor, coarse: float, rise: Tensor, drift: Tensor
    ) -> Tensor:
        """Return clouds that rise and change, about -2..2. x, y: [O,N,H,W]."""
        times = self.times.view(1, -1, 1, 1)
        field = self.fields[self.objects.clip[some]]
        u, v = x * coarse - drift * times * coarse, y * coarse + rise * times * coarse
        if self.held_out:  # puffs instead of wisps
            first = sampled(field[:, 1], u, v).abs() * 1.8 - 0.9
        else:
            first = sampled(field[:, 1], u, v)
        finer = sampled(field[:, 0], u * 2.1 + 0.3, v * 2.1 + 0.6 * rise * times * coarse)
        return first + 0.5 * finer

    def smoke(
        self, some: Tensor, at: _Views, amount: Tensor, _: Tensor, tint: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        draws, count = self.draws, len(some)
        rise = column(draws.uniform(0.04, 0.16, count), 4)
        wind = column(draws.uniform(-0.8, 0.8, count), 4)
        speed = column(self.objects.speed[some], 4)
        start_x = column(draws.uniform(-0.2, 0.2, count), 4)
        start_y = column(draws.uniform(-0.8, -0.1, count), 4) - column(self.objects.lift[some], 4)
        high = start_y - at.by
        bend = (wind - speed / rise * 0.6).clamp(-1.6, 1.6)
        middle = start_x + bend * high.clamp_min(0)
        wide = column(draws.uniform(0.12, 0.28, count), 4) + column(
            draws.uniform(0.2, 0.6, count), 4
        ) * high.clamp_min(0)
        ends = column(draws.uniform(0.5, 1.6, count), 4)
        env = torch.exp(-((at.bx - middle) / wide).square())
        env = env * smooth(high * 5 + 0.5) * smooth((ends - high) * 1.6)
        cloud = self._clouds(some, at.bx, at.by, 0.35, rise, speed)
        dense = (env * (1.0 + 0.75 * cloud) - 0.12).clamp_min(0)
        thick = column(0.55 + 4.5 * amount.square(), 4)
        cover = 1 - torch.exp(-dense * thick)
        shade = (1 + 0.22 * cloud).clamp(0.4, 1.6)
        through = (1 - cover)[:, :, None].expand(-1, -1, 3, -1, -1)
        return through, self._lit(some, cover * shade, tint), bend.mean((1, 2, 3))

    def dust(
        self, some: Tensor, at: _Views, amount: Tensor, _: Tensor, tint: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        draws, count = self.draws, len(some)
        way = -torch.sign(self.objects.speed[some])
        behind = at.bx * column(way, 4)
        length = column(draws.uniform(0.4, 1.3, count), 4)
        env = torch.exp(-((behind - 0.35 * length) / length).square() * 2)
        tall = column(draws.uniform(0.14, 0.42, count), 4) * (1 + 0.5 * behind.clamp_min(0))
        env = env * torch.exp(-(at.by / torch.where(at.by < 0, tall, tall * 0.35)).square())
        cloud = self._clouds(
            some,
            at.bx,
            at.by,
            0.5,
            torch.full_like(tall, 0.03),
            column(self.objects.speed[some], 4),
        )
        dense = (env * (0.9 + 0.6 * cloud) - 0.06).clamp_min(0)
        cover = 1 - torch.exp(-dense * column(0.5 + 3.5 * amount, 4))
        through = (1 - cover)[:, :, None].expand(-1, -1, 3, -1, -1)
        return through, self._lit(some, cover * (1 + 0.12 * cloud), tint, 1.1), way

    def splash(
        self, some: Tensor, at: _Views, amount: Tensor, _: Tensor, tint: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        draws, count = self.draws, len(some)
        drops = 14
        times = self.times.view(1, -1, 1, 1)
        cover = torch.zeros_like(at.bx)
        life = draws.uniform(3, 7, count)
        spread = draws.uniform(0.3, 0.8, count)
        high = 0.2 + 0.6 * amount
        for _drop in range(drops):
            born = draws.uniform(0, 1, count)
            age = torch.frac(column(born, 4) + times / column(life, 4))
            aim = draws.normal(count) * spread
            peak = high * draws.uniform(0.3, 1.2, count)
            x = column(aim, 4) * age + column(draws.normal(count) * 0.1, 4)
            y = -4 * column(peak, 4) * age * (1 - age)
            size = column(draws.uniform(0.03, 0.08, count) * (0.7 + 0.8 * amount), 4) * (1.2 - age)
            away = ((at.bx - x).square() + (at.by - y).square()).sqrt()
            drop = smooth((size - away) / 0.05 + 0.5) * (0.3 + 0.7 * column(amount, 4))
            cover = 1 - (1 - cover) * (1 - drop * smooth((1 - age) * 5))
        foam = sampled(
            self.fields[self.objects.clip[some], 0], at.bx * 0.9, at.by * 0.9 - times / 9
        )
        base = torch.exp(-(at.bx / column(spread * 0.8, 4)).square() - (at.by / 0.1 + 0.3).square())
        if self.held_out:  # a crown
            rim = (at.bx.square() + (at.by * 2.2 + 0.25).square()).sqrt() - 0.3
            base = base * 0.6 + torch.exp(-(rim / 0.07).square()) * (at.by < 0.05)
        cover = 1 - (1 - cover) * (
            1 - base * smooth(0.45 + 0.5 * foam) * column(0.4 + 0.5 * amount, 4)
        ).clamp(0, 1)
        through = (1 - 0.9 * cover)[:, :, None].expand(-1, -1, 3, -1, -1)
        return through, self._lit(some, 0.9 * cover, tint, 1.3), torch.zeros_like(amount)

    def glow(
        self, some: Tensor, at: _Views, amount: Tensor, _: Tensor, tint: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        draws, count = self.draws, len(some)
        lifted = column(self.objects.lift[some], 4)
        middle = column(draws.uniform(-0.8, -0.3, count), 4) - lifted
        wide = column(draws.uniform(0.2, 0.6, count), 4)
        pulse = 1 + column(draws.uniform(0, 0.25, count), 4) * torch.sin(
            self.times.view(1, -1, 1, 1) * column(draws.uniform(0.4, 2.0, count), 4)
        )
        away = (at.bx.square() + (at.by - middle).square()).sqrt()
        halo = torch.exp(-away / wide * 1.6) * pulse
        if self.held_out:  # a streak of the lens
            streak = torch.exp(-((at.by - middle) / 0.05).square() - (at.bx / 1.2).square())
            halo = halo + 0.4 * streak * column(draws.flags(0.5, count), 4)
        halo = (halo - 0.03).clamp_min(0)
        pool = torch.exp(-(at.gx / (wide * 1.6)).square() - (at.gy / (wide * 0.7)).square())
        pool = pool * torch.exp(-lifted * 2) * pulse
        strong = (0.35 + 1.3 * amount.square()) * draws.uniform(0.8, 1.25, count)
        through = 1 + (pool * column(strong * 0.9, 4))[:, :, None] * tint.view(-1, 1, 3, 1, 1)
        light = (self.light[self.objects.clip[some]] * 2.5).clamp(0.25, 1.5)
        added = halo * column(strong * light, 4)
        return through, added[:, :, None] * tint.view(-1, 1, 3, 1, 1), torch.zeros_like(amount)
