# SPDX-License-Identifier: Apache-2.0
"""The places of the preview's shots: a camera whose every move is known, and what it looks at.

Lengths are in picture heights, x to the right, y down, (0, 0) the top left corner. A place is a
picture seen by the camera at rest, larger than the frame: a wall, and below its foot a floor in
perspective. A camera that travels sideways shifts each row by how near it is (parallax); pan, zoom
and roll move the whole. Both directions are exact, so that a pixel of one frame can be found in
every other.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from gencomp_server.training.preview_draws import Draws, colours, column, sampled, smooth

MARGIN = 0.45
_DENSITY = 1.25

# Texture families: those of training, and those kept for measuring.
NOISE, STRIPES, CHECKER, BRICKS, TILES, PLANKS, DOTS, GRADIENT, BLOTCHES = range(9)
HEXAGONS, WEAVE, MARBLE, RINGS, COBBLES = range(9, 14)
TEXTURES = {
    "train": (NOISE, STRIPES, CHECKER, BRICKS, TILES, PLANKS, DOTS, GRADIENT, BLOTCHES),
    "held_out": (HEXAGONS, WEAVE, MARBLE, RINGS, COBBLES),
}


@dataclass(frozen=True)
class Camera:
    """Where the camera is at each of N times.

    Attributes:
        aspect: Width of the picture over its height.
        offset: What pan adds. [B,N,2].
        zoom: > 1 is nearer. [B,N].
        roll: Radians. [B,N].
        travel: How far the wall is shifted by travelling sideways. [B,N].
        horizon: Row of the horizon. [B].
        foot: Row at which the wall meets the floor; far below the picture where there is no floor
            in perspective. [B].
    """

    aspect: float
    offset: Tensor
    zoom: Tensor
    roll: Tensor
    travel: Tensor
    horizon: Tensor
    foot: Tensor

    def nearness(self, y: Tensor) -> Tensor:
        """Return how much more than the wall a row at rest is shifted, >= 1. y: [B,...]."""
        horizon, foot = column(self.horizon, y.dim()), column(self.foot, y.dim())
        return ((y - horizon) / (foot - horizon)).clamp_min(1)

    def unrolled(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Undo pan, zoom and roll. x, y: points of the picture at each time, [B,N,...]."""
        cos, sin = self._turn(x.dim())
        zoom = column(self.zoom, x.dim())
        dx, dy = (x - self.aspect / 2) / zoom, (y - 0.5) / zoom
        ox, oy = (column(self.offset[..., i], x.dim()) for i in (0, 1))
        return self.aspect / 2 + cos * dx - sin * dy + ox, 0.5 + sin * dx + cos * dy + oy

    def rolled(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Undo :meth:`unrolled`."""
        cos, sin = self._turn(x.dim())
        zoom = column(self.zoom, x.dim())
        ox, oy = (column(self.offset[..., i], x.dim()) for i in (0, 1))
        dx, dy = x - self.aspect / 2 - ox, y - 0.5 - oy
        return (
            self.aspect / 2 + zoom * (cos * dx + sin * dy),
            0.5 + zoom * (cos * dy - sin * dx),
        )

    def at_rest(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the x at rest of unrolled points of the place. x, y: [B,N,...]."""
        return x + column(self.travel, x.dim()) * self.nearness(y)

    def _turn(self, dims: int) -> tuple[Tensor, Tensor]:
        return column(self.roll.cos(), dims), column(self.roll.sin(), dims)

    def only(self, times: slice) -> Camera:
        """Return the camera at some of its times."""
        return Camera(
            self.aspect,
            self.offset[:, times],
            self.zoom[:, times],
            self.roll[:, times],
            self.travel[:, times],
            self.horizon,
            self.foot,
        )

    def of(self, clips: Tensor) -> Camera:
        """Return the cameras of some clips."""
        return Camera(
            self.aspect,
            self.offset[clips],
            self.zoom[clips],
            self.roll[clips],
            self.travel[clips],
            self.horizon[clips],
            self.foot[clips],
        )

    def between(self, other: Camera) -> Camera:
        """Return the cameras halfway to others of the same places."""
        return Camera(
            self.aspect,
            (self.offset + other.offset) / 2,
            (self.zoom + other.zoom) / 2,
            (self.roll + other.roll) / 2,
            (self.travel + other.travel) / 2,
            self.horizon,
            self.foot,
        )


def draw_camera(draws: Draws, count: int, times: Tensor, span: float, aspect: float) -> Camera:
    """Draw how cameras move: still, panning, zooming, hand-held, travelling, and mixtures.

    Args:
        draws: Where chance comes from.
        count: How many.
        times: Fractions of frames from the first one. [N].
        span: Frames from the first to the last, >= 1.
        aspect: Width of the picture over its height.
    """
    n = (times / span - 0.5)[None]
    reach = min(1.0, span / 8) ** 0.5

    def gate(chance: float) -> Tensor:
        return draws.flags(chance, count).float()[:, None]

    def wave(size: float) -> Tensor:
        found = torch.zeros(count, len(times), device=draws.device)
        for turns in (1.0, 2.3, 4.1):
            phase = draws.uniform(0, 2 * pi, count)[:, None]
            found = found + torch.sin(2 * pi * turns * n * reach + phase) / turns
        return found * draws.uniform(0.2, 1.0, count)[:, None] * size

    moving = gate(0.82)
    pan, hand = gate(0.55) * moving, gate(0.4) * moving
    angle = draws.uniform(0, 2 * pi, count)[:, None]
    far = draws.uniform(0.05, 0.42, count)[:, None] * reach
    bend = 1 + draws.uniform(-0.5, 0.5, count)[:, None] * n
    x = pan * far * torch.cos(angle) * n * bend + hand * wave(0.02)
    y = pan * far * 0.6 * torch.sin(angle) * n * bend + hand * wave(0.014)
    zoom = gate(0.3) * moving * draws.uniform(-0.25, 0.25, count)[:, None] * reach * n
    roll = hand * wave(0.02) + gate(0.1) * draws.uniform(-0.12, 0.12, count)[:, None] * n
    floor = draws.flags(0.62, count)
    horizon = draws.uniform(-0.1, 0.3, count)
    wall = horizon + draws.uniform(0.2, 0.42, count)
    travel = gate(0.5) * moving * draws.uniform(-0.14, 0.14, count)[:, None] * reach * n
    away = torch.full_like(wall, 50.0)
    return Camera(
        aspect,
        torch.stack((x, y), -1),
        (zoom + draws.uniform(-0.05, 0.1, count)[:, None]).exp(),
        roll,
        torch.where(floor[:, None], travel, torch.zeros_like(travel)),
        torch.where(floor, horizon, torch.zeros_like(horizon)),
        torch.where(floor, wall, away),
    )


@dataclass(frozen=True)
class Place:
    """What cameras look at.

    Attributes:
        picture: Scene-linear, larger than the frame by ``MARGIN`` on all sides. [B,3,h,w].
        aspect: Width of the frame over its height.
        fields: Two fractal fields of each, for whatever needs one. [B,2,128,128].
    """

    picture: Tensor
    aspect: float
    fields: Tensor

    def seen(self, x: Tensor, y: Tensor) -> Tensor:
        """Return light at points at rest. x, y: [B,N,H,W]; the result [B,N,3,H,W]."""
        batch, times, height, width = x.shape
        gx = (x + MARGIN) / (self.aspect + 2 * MARGIN) * 2 - 1
        gy = (y + MARGIN) / (1 + 2 * MARGIN) * 2 - 1
        at = torch.stack((gx, gy), -1).reshape(batch, times * height, width, 2)
        found = torch.nn.functional.grid_sample(
            self.picture, at, padding_mode="reflection", align_corners=False
        )
        return found.reshape(batch, 3, times, height, width).transpose(1, 2)


def draw_place(draws: Draws, camera: Camera, height: int, families: str) -> Place:
    """Draw places: wall and floor with textures, things, light and dark, lamps.

    Args:
        draws: Where chance comes from.
        camera: Gives horizon and foot of the wall.
        height: Lines of the frame, which decides how fine the picture is.
        families: ``train`` or ``held_out``: which textures.
    """
    count, aspect = len(camera.horizon), camera.aspect
    lines = round(height * (1 + 2 * MARGIN) * _DENSITY)
    columns = round(height * (aspect + 2 * MARGIN) * _DENSITY)
    y = (torch.arange(lines, device=draws.device) + 0.5) / lines * (1 + 2 * MARGIN) - MARGIN
    x = (torch.arange(columns, device=draws.device) + 0.5) / columns
    x = x * (aspect + 2 * MARGIN) - MARGIN
    yy, xx = (g[None].expand(count, lines, columns) for g in torch.meshgrid(y, x, indexing="ij"))
    fine, coarse = draws.tiles(count, 0.6, 1.3), draws.tiles(count, 1.3, 1.9)
    wall = _surface(draws, families, xx, yy, fine, coarse)
    near = camera.nearness(yy)
    deep = draws.uniform(0.7, 1.6, count)[:, None, None] / near
    floor = _surface(draws, families, (xx - aspect / 2) / near, deep, fine, coarse)
    edge = (yy - camera.foot[:, None, None]) * height * _DENSITY
    picture = wall + (floor - wall) * (edge + 0.5).clamp(0, 1)[:, None]
    skirting = draws.uniform(0, 0.5, count)[:, None, None] * draws.flags(0.4, count)[:, None, None]
    picture = picture * (1 - skirting * torch.exp(-(edge / 2.5).square()))[:, None]
    picture = _with_things(draws, picture, xx, yy, fine, height)
    picture = picture * _light(draws, xx, yy, coarse)[:, None]
    return Place(_with_lamps(draws, picture, xx, yy), aspect, torch.stack((fine, coarse), 1))


def _surface(
    draws: Draws, families: str, u: Tensor, v: Tensor, fine: Tensor, coarse: Tensor
) -> Tensor:
    """Return the light of textured surfaces. u, v: [B,h,w]; the result [B,3,h,w]."""
    count = len(u)
    kind = draws.chosen(TEXTURES[families], count)
    cells = draws.log_uniform(2.5, 11.0, count)[:, None, None]
    turn = draws.uniform(0, pi, count) * draws.flags(0.35, count)
    cos, sin = turn.cos()[:, None, None], turn.sin()[:, None, None]
    tu = (u * cos - v * sin) * cells + draws.uniform(0, 50, count)[:, None, None]
    tv = (u * sin + v * cos) * cells + draws.uniform(0, 50, count)[:, None, None]
    spread = draws.uniform(0.05, 0.3, count)[:, None, None]
    shift = draws.uniform(0, 1, count)[:, None, None]
    grainy = sampled(fine, u * 0.7 + shift, v * 0.7)
    cloudy = sampled(coarse, u * 0.45 + shift, v * 0.45)
    pattern, tint = torch.zeros_like(u), torch.zeros_like(u)
    for family in TEXTURES[families]:
        chosen = (kind == family).nonzero()[:, 0]
        if len(chosen):
            made = _pattern(family, tu[chosen], tv[chosen], grainy[chosen], cloudy[chosen])
            pattern[chosen], tint[chosen] = made
    first = colours(draws, count)
    other = colours(draws, count)
    related = draws.uniform(0.1, 1.0, count)[:, None]
    second = first * related + other * (1 - related).clamp_min(0.1)
    mixed = first[..., None, None] + (second - first)[..., None, None] * pattern[:, None]
    rough = torch.exp(spread * grainy + spread * 0.6 * cloudy + 0.22 * tint)
    return mixed * rough[:, None]


def _cell_tint(iu: Tensor, iv: Tensor) -> Tensor:
    """Return a value for each cell, as good as random, in -1..1."""
    mixed = torch.sin(iu * 12.9898 + iv * 78.233) * 43758.5453
    return (mixed - mixed.floor()) * 2 - 1


def _pattern(
    family: int, u: Tensor, v: Tensor, grainy: Tensor, cloudy: Tensor
) -> tuple[Tensor, Tensor]:
    """Return how far surfaces are of their second colour, and the tint of each cell."""
    none = torch.zeros_like(u)
    if family == NOISE:
        return smooth(grainy * 0.35 + 0.5), none
    if family == STRIPES:
        return smooth(torch.sin(2 * pi * u) * 1.5 + 0.5), none
    if family == CHECKER:
        return (u.floor() + v.floor()) % 2, _cell_tint(u.floor(), v.floor()) * 0.5
    if family in (BRICKS, TILES, PLANKS):
        wide = {BRICKS: 2.0, TILES: 1.0, PLANKS: 6.0}[family]
        row = v.floor()
        shift = none if family == TILES else _cell_tint(row, none) * 0.5
        along = u / wide + shift
        joint = torch.minimum(
            0.5 - (v - row - 0.5).abs(), (0.5 - (along - along.floor() - 0.5).abs()) * wide
        )
        tint = _cell_tint(along.floor(), row)
        return 1 - smooth(joint * 12), tint + (grainy * 0.8 if family == PLANKS else none)
    if family == DOTS:
        du, dv = u - u.floor() - 0.5, v - v.floor() - 0.5
        return smooth((0.33 - (du.square() + dv.square()).sqrt()) * 9 + 0.5), none
    if family == GRADIENT:
        return smooth(0.5 + 0.22 * (torch.sin(u * 0.6) + torch.cos(v * 0.5))), none
    if family == BLOTCHES:
        return smooth(cloudy * 3 + 0.5), grainy * 0.4
    return _held_out_pattern(family, u, v, grainy, cloudy)


def _held_out_pattern(
    family: int, u: Tensor, v: Tensor, grainy: Tensor, cloudy: Tensor
) -> tuple[Tensor, Tensor]:
    none = torch.zeros_like(u)
    if family == HEXAGONS:
        best, tint = torch.full_like(u, 9.0), none
        second = best
        for shift in (0.0, 0.5):
            cu, cv = (u - shift).round() + shift, ((v / 1.732) - shift).round() + shift
            far = ((u - cu).square() + (v - cv * 1.732).square()).sqrt()
            tint = torch.where(far < best, _cell_tint(cu * 2, cv * 2), tint)
            second = torch.minimum(second, torch.maximum(far, best))
            best = torch.minimum(best, far)
        return 1 - smooth((second - best) * 7), tint
    if family == WEAVE:
        over = (u.floor() + v.floor()) % 2
        across = torch.where(over > 0, u - u.floor(), v - v.floor())
        return smooth((across - 0.5).abs() * 2.4 - 0.2), _cell_tint(u.floor(), v.floor())
    if family == MARBLE:
        return torch.sin(u * 1.5 + cloudy * 3.5 + grainy * 0.5).abs() ** 0.6, none
    if family == RINGS:
        far = ((u % 6 - 3).square() + (v % 6 - 3).square()).sqrt()
        return smooth(torch.sin(far * 5 + cloudy) + 0.5), grainy * 0.5
    best, tint = torch.full_like(u, 9.0), none
    second = best
    for du in (-1, 0, 1):
        for dv in (-1, 0, 1):
            iu, iv = u.floor() + du, v.floor() + dv
            cu = iu + 0.5 + 0.38 * _cell_tint(iu, iv)
            cv = iv + 0.5 + 0.38 * _cell_tint(iv + 7.1, iu)
            far = ((u - cu).square() + (v - cv).square()).sqrt()
            tint = torch.where(far < best, _cell_tint(iu * 1.7, iv * 2.3), tint)
            second = torch.minimum(second, torch.maximum(far, best))
            best = torch.minimum(best, far)
    return 1 - smooth((second - best) * 5), tint


def _with_things(
    draws: Draws, picture: Tensor, x: Tensor, y: Tensor, fine: Tensor, height: int
) -> Tensor:
    """Return pictures with flat things on them: boxes, discs and posts, with clear edges."""
    count = len(picture)
    grain = sampled(fine, x * 0.9 + 0.37, y * 0.9 + 0.11)[:, None]
    sharp = height * _DENSITY
    for _ in range(6):
        there = draws.flags(0.65, count)[:, None, None].float()
        cx = draws.uniform(-0.2, float(x.max()) - 0.2, count)[:, None, None]
        cy = draws.uniform(-0.1, 1.05, count)[:, None, None]
        wide = draws.log_uniform(0.03, 0.35, count)[:, None, None]
        tall = draws.log_uniform(0.03, 0.45, count)[:, None, None]
        turn = draws.normal(count)[:, None, None] * 0.25 * draws.flags(0.4, count)[:, None, None]
        dx, dy = x - cx, y - cy
        dx, dy = dx * turn.cos() - dy * turn.sin(), dx * turn.sin() + dy * turn.cos()
        box = torch.maximum(dx.abs() - wide, dy.abs() - tall)
        disc = (dx.square() + dy.square()).sqrt() - wide
        away = torch.where(draws.flags(0.25, count)[:, None, None], disc, box)
        inside = (0.5 - away * sharp).clamp(0, 1) * there
        frame = (0.5 - (away + 0.02) * sharp).clamp(0, 1) * draws.flags(0.3, count)[:, None, None]
        colour, inner = colours(draws, count), colours(draws, count)
        body = colour[..., None, None] + (inner - colour)[..., None, None] * frame[:, None]
        body = body * torch.exp(draws.uniform(0, 0.25, count)[:, None, None, None] * grain)
        picture = picture + (body - picture) * inside[:, None]
    return picture


def _light(draws: Draws, x: Tensor, y: Tensor, coarse: Tensor) -> Tensor:
    """Return how much light falls where: slopes, unevenness and still shadows. [B,h,w]."""
    count = len(x)
    even = draws.uniform(0, 0.35, count)[:, None, None] * sampled(coarse, x * 0.3, y * 0.3 + 0.4)
    angle = draws.uniform(0, 2 * pi, count)[:, None, None]
    steep = draws.uniform(0, 0.8, count)[:, None, None] * draws.flags(0.6, count)[:, None, None]
    light = torch.exp(even + steep * ((x - 0.7) * angle.cos() + (y - 0.5) * angle.sin()))
    for _ in range(2):
        there = draws.flags(0.3, count)[:, None, None].float()
        cx, cy = draws.uniform(0, 1.4, count), draws.uniform(0.2, 1.0, count)
        wide, tall = draws.uniform(0.06, 0.4, count), draws.uniform(0.03, 0.25, count)
        away = (
            ((x - cx[:, None, None]) / wide[:, None, None]).square()
            + ((y - cy[:, None, None]) / tall[:, None, None]).square()
        ).sqrt()
        soft = draws.uniform(0.05, 0.9, count)[:, None, None]
        deep = draws.uniform(0.2, 0.75, count)[:, None, None]
        light = light * (1 - there * deep * smooth((1 - away) / soft + 0.5))
    return light


def _with_lamps(draws: Draws, picture: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return pictures with lamps and bright openings, up to 24."""
    count = len(picture)
    for _ in range(2):
        there = draws.flags(0.25, count)[:, None, None].float()
        cx, cy = draws.uniform(-0.2, 1.6, count), draws.uniform(-0.3, 0.5, count)
        wide = draws.log_uniform(0.01, 0.08, count)[:, None, None]
        bright = draws.log_uniform(1.5, 24.0, count)[:, None, None]
        away = (x - cx[:, None, None]).square() + (y - cy[:, None, None]).square()
        lamp = smooth((wide - away.sqrt()) / 0.012 + 0.5) + 0.02 * torch.exp(
            -away.sqrt() / (wide * 3)
        )
        tint = 0.75 + 0.25 * colours(draws, count, 0.5, 0.9) / 0.7
        picture = picture + (there * bright * lamp)[:, None] * tint[..., None, None]
    return picture
