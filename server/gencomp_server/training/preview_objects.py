# SPDX-License-Identifier: Apache-2.0
"""The things that move through the preview's shots: shapes, clothes, and where they are.

An object is drawn upright into a sprite, once a frame, and then placed. Its own measure is its
height: x from -0.75 to 0.75, y from -1.25 (above) to 0.25, (0, 0) where it touches the ground. All
objects of a batch lie in one row, O of them; ``clip`` says whose each is.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from gencomp_server.training.preview_draws import Draws, colours, column, sampled
from gencomp_server.training.preview_scene import Camera
from gencomp_server.training.preview_shapes import BALL, BIRD, BLOB, RING, SHAPES, STAR, pieces

HALF, TOP = 0.75, -1.25
_BLURS = (0.0, 0.03, 0.07, 0.14)
LEVELS = len(_BLURS)

MOST = 4


@dataclass(frozen=True)
class Objects:
    """All objects of a batch.

    Attributes:
        clip: Which clip each belongs to. [O].
        rank: Its number in the clip, 0 the farthest. [O].
        foot: Where it touches the ground at rest, at each time. [O,N,2].
        height: In picture heights. [O].
        lift: How far it is above the ground, in its own heights. [O,N].
        speed: Own heights a frame to the right, over the ground. [O].
        sprite: Premultiplied scene-linear RGBA at each frame. [O,T,4,R,R].
        soft: The same, ever more blurred. [O,T,4,LEVELS,R,R].
    """

    clip: Tensor
    rank: Tensor
    foot: Tensor
    height: Tensor
    lift: Tensor
    speed: Tensor
    sprite: Tensor
    soft: Tensor

    def local(self, camera: Camera, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return unrolled points of the pictures in the objects' own measure, as boards upright.

        Args:
            camera: Of the clips.
            x: [B,N,H,W].
            y: The same.

        Returns:
            x and y, (0, 0) the point on the ground under the object. [O,N,H,W] each.
        """
        fx, fy = (column(self.foot[..., i], 4) for i in (0, 1))
        near = camera.only(slice(None)).travel[self.clip] * self._nearness(camera)
        tall = column(self.height, 4)
        return (x[self.clip] + column(near, 4) - fx) / tall, (y[self.clip] - fy) / tall

    def _nearness(self, camera: Camera) -> Tensor:
        horizon, foot = camera.horizon[self.clip, None], camera.foot[self.clip, None]
        return ((self.foot[..., 1] - horizon) / (foot - horizon)).clamp_min(1)

    def placed(self, x: Tensor, y: Tensor) -> Tensor:
        """Sample the sprites at points of the objects' own measure. [O,N,H,W] to [O,N,4,H,W]."""
        count, times, height, width = x.shape
        frames = self.sprite.shape[1]
        at = torch.stack((x / HALF, (y - TOP) / HALF - 1), -1)
        at = at.reshape(count * frames, (times // frames) * height, width, 2)
        found = torch.nn.functional.grid_sample(self.sprite.flatten(0, 1), at, align_corners=False)
        return (
            found.reshape(count * frames, 4, -1, height, width)
            .transpose(1, 2)
            .reshape(count, times, 4, height, width)
        )


def blurred_samples(soft: Tensor, level: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Sample stacks of ever softer sprites.

    Args:
        soft: [O,T,C,LEVELS,R,R].
        level: 0 sharp to LEVELS - 1. [O,N,H,W].
        x: Own measure. [O,N,H,W].
        y: The same.

    Returns:
        [O,N,C,H,W].
    """
    count, times, height, width = x.shape
    frames, channels = soft.shape[1:3]
    at = torch.stack((x / HALF, (y - TOP) / HALF - 1, level / (LEVELS - 1) * 2 - 1), -1)
    at = at.reshape(count * frames, times // frames, height, width, 3)
    # Half a cell: the levels lie at the ends of the range, the pixels do not.
    shrink = (soft.shape[-1]) / (soft.shape[-1] - 1)
    at = torch.cat((at[..., :2] * shrink, at[..., 2:]), -1)
    found = torch.nn.functional.grid_sample(soft.flatten(0, 1), at, align_corners=True)
    return found.transpose(1, 2).reshape(count, times, channels, height, width)


def draw_objects(
    draws: Draws,
    camera: Camera,
    times: Tensor,
    frames: int,
    lines: int,
    families: str,
    scarce: Tensor,
    fields: Tensor,
    glare: Tensor,
) -> Objects:
    """Draw objects, how they look and how they move.

    Args:
        draws: Where chance comes from.
        camera: Of the clips.
        times: Fractions of frames from the first one, a whole number of them for each frame. [N].
        frames: Frames of a clip.
        lines: Lines of the frame.
        families: ``train`` or ``held_out``: which shapes.
        scarce: True where objects are to move so little that what they hide is hardly seen. [B].
        fields: Fractal fields of the clips. [B,2,128,128].
        glare: Direction to the light, to the right and down. [B,2].
    """
    count, device = len(scarce), draws.device
    chances = draws.uniform(0, 1, count)
    amount = 1 + sum((chances > bound).long() for bound in (0.55, 0.84, 0.95))
    there = torch.arange(MOST, device=device)[None] < amount[:, None]
    clip, rank = there.nonzero(as_tuple=True)
    total = len(clip)
    n = (times / max(frames - 1, 1) - 0.5)[None]

    kind = draws.chosen(SHAPES[families], total)
    twin = draws.flags(0.3, count)[clip] & (rank > 0)
    first = torch.zeros(count, dtype=torch.int64, device=device)
    first[clip.flip(0)] = torch.arange(total, device=device).flip(0)
    first = first[clip]
    kind = torch.where(twin, kind[first], kind)

    tall = draws.uniform(0.28, 0.74, total) * (1 - 0.09 * (amount[clip] - 1))
    row = draws.uniform(0.0, 1.0, count, MOST)
    row = row.sort(1).values[clip, rank]  # rank 0 is the farthest
    ground = camera.foot[clip] < 2
    wall = torch.where(ground, camera.foot[clip], torch.full_like(row, 0.3))
    low = (wall + 0.07).clamp_max(0.85)
    fy = low + (0.99 - low) * row
    near = ((fy - camera.horizon[clip]) / (camera.foot[clip] - camera.horizon[clip])).clamp_min(1)
    tall = torch.where(ground, tall * (near / 1.7).clamp(0.6, 1.35), tall).clamp(0.22, 0.85)

    still = scarce[clip]
    wide = 0.35 * tall
    far = torch.where(still, draws.uniform(0.0, 0.35, total), draws.uniform(0.5, 3.2, total)) * wide
    far = far * torch.where(
        still, torch.ones_like(far), torch.full_like(far, min(1.6, (frames / 5) ** 0.5))
    )
    ahead = draws.signs(total)
    depth = draws.normal(total) * 0.15
    bend = draws.uniform(-0.4, 0.4, total)[:, None]
    mid = camera.aspect * draws.uniform(0.14, 0.86, total)
    edge = draws.flags(0.08, total)
    mid = torch.where(edge, camera.aspect * (0.5 + 0.48 * draws.signs(total)), mid)
    half = len(times) // 2
    mid = mid + camera.offset[clip, half, 0] + camera.travel[clip, half] * near
    steps = n + bend * (n.square() - 0.25)
    x = mid[:, None] + (ahead * far)[:, None] * steps
    y = fy[:, None] + (depth * far * torch.where(ground, 0.6, 1.0))[:, None] * steps
    foot = torch.stack((x, y + camera.offset[clip, half, 1][:, None]), -1)

    lift = torch.zeros(total, len(times), device=device)
    beat = draws.uniform(0, 2 * pi, total)[:, None]
    hop = torch.sin(times[None] * draws.uniform(0.3, 1.1, total)[:, None] + beat).abs()
    up = draws.uniform(0, 0.4, total) * draws.flags(0.6, total)
    bouncing = ((kind == BALL) | (kind == STAR) | (kind == BLOB) | (kind == RING)).float() * up
    flying = ((kind == BIRD).float() * draws.uniform(0.3, 0.8, total))[:, None]
    lift = lift + bouncing[:, None] * hop + flying * (1 + 0.1 * torch.sin(times[None] + beat))

    sprite = _sprites(draws, kind, twin, first, clip, ahead, times, frames, lines, fields, glare)
    sprite = sprite.contiguous()
    return Objects(
        clip, rank, foot, tall, lift, ahead * far / tall / max(frames - 1, 1), sprite, _soft(sprite)
    )


def _soft(sprite: Tensor) -> Tensor:
    """Return sprites beside ever more blurred ones. [O,T,4,R,R] to [O,T,4,LEVELS,R,R]."""
    size = sprite.shape[-1]
    flat = sprite.flatten(0, 1)
    levels = [flat]
    for radius in _BLURS[1:]:
        sigma = max(radius / (2 * HALF) * size, 0.5)
        reach = max(1, round(2.2 * sigma))
        taps = torch.arange(-reach, reach + 1, device=sprite.device, dtype=torch.float32)
        kernel = torch.exp(-0.5 * (taps / sigma).square())
        kernel = (kernel / kernel.sum()).view(1, 1, 1, -1).expand(4, 1, 1, -1)
        made = torch.nn.functional.conv2d(flat, kernel, padding=(0, reach), groups=4)
        kernel = kernel.transpose(2, 3)
        levels.append(torch.nn.functional.conv2d(made, kernel, padding=(reach, 0), groups=4))
    return torch.stack(levels, 2).unflatten(0, sprite.shape[:2])


def _sprites(
    draws: Draws,
    kind: Tensor,
    twin: Tensor,
    first: Tensor,
    clip: Tensor,
    ahead: Tensor,
    times: Tensor,
    frames: int,
    lines: int,
    fields: Tensor,
    glare: Tensor,
) -> Tensor:
    """Draw the objects. [O,T,4,R,R], premultiplied."""
    total, device = len(kind), draws.device
    size = max(32, 2 * round(lines * 0.4))
    ramp = (torch.arange(size, device=device) + 0.5) / size * 2 * HALF
    y, x = torch.meshgrid(ramp + TOP, ramp - HALF, indexing="ij")
    each = len(times) // frames
    when = times.reshape(frames, each).mean(1)
    phase = draws.uniform(0, 2 * pi, total)[:, None]
    rate = draws.uniform(0.25, 1.3, total)[:, None] * ahead[:, None]
    build = draws.uniform(0, 1, total, 6)
    palette = torch.stack([colours(draws, total, 0.02, 0.8) for _ in range(3)], 1)
    build = torch.where(twin[:, None], build[first], build)
    palette = torch.where(twin[:, None, None], palette[first], palette)
    turn = rate * when[None] + phase
    x, y = x[None, None], y[None, None]
    distance = torch.full((total, frames, size, size), 9.0, device=device)
    part = torch.zeros(total, frames, size, size, device=device)
    for shape in kind.unique().tolist():
        some = (kind == shape).nonzero()[:, 0]
        flip = ahead[some].view(-1, 1, 1, 1)
        found = pieces(shape, x * flip, y, build[some], turn[some])
        away, which = found[0][0], torch.zeros((), device=device)
        for piece, colour in found[1:]:
            nearer = piece < away
            which = torch.where(nearer, torch.full_like(piece, float(colour)), which)
            away = torch.minimum(away, piece)
        whole = (len(some), frames, size, size)
        distance[some], part[some] = away.expand(whole), which.expand(whole)
    alpha = (0.5 - distance * size / (2 * HALF)).clamp(0, 1)
    shift = draws.uniform(0, 1, total).view(-1, 1, 1, 1)
    scale = draws.log_uniform(0.25, 1.2, total).view(-1, 1, 1, 1)
    local = sampled(
        fields[clip, draws.integers(2, total)],
        (x * ahead.view(-1, 1, 1, 1) * scale + shift)[:, 0],
        (y * scale + shift)[:, 0],
    )[:, None]
    rough = torch.exp(draws.uniform(0.05, 0.6, total).view(-1, 1, 1, 1) * local)
    stripe = draws.flags(0.35, total).view(-1, 1, 1, 1) * 0.5
    bands = torch.sin(2 * pi * draws.log_uniform(3, 9, total).view(-1, 1, 1, 1) * (y + 0.3 * x))
    rough = rough * torch.exp(stripe * bands.clamp(-0.5, 0.5) * 2)
    side = glare[clip]
    lit = side[:, 0].view(-1, 1, 1, 1) * x / 0.3 + side[:, 1].view(-1, 1, 1, 1) * (y + 0.5) / 0.5
    round_ = (distance * -6).clamp(0, 1)
    shade = torch.exp(0.45 * lit.clamp(-1.5, 1.5)) * (0.7 + 0.3 * round_)
    level = draws.uniform(0.6, 1.3, total).view(-1, 1, 1, 1) * rough * shade
    index = part.long().clamp(0, 2)
    base = torch.zeros(total, frames, 3, size, size, device=device)
    for i in range(3):
        chosen = (index == i)[:, :, None]
        base = torch.where(chosen, palette[:, i].view(total, 1, 3, 1, 1), base)
    colour = base * level[:, :, None]
    shiny = draws.flags(0.2, total).float() * draws.log_uniform(1.0, 10.0, total)
    spot = torch.exp(
        -((x - 0.08 * side[:, 0].view(-1, 1, 1, 1)).square() + (y + 0.62).square()) / 0.003
    )
    colour = colour + (shiny.view(-1, 1, 1, 1) * spot)[:, :, None]
    return torch.cat((colour * alpha[:, :, None], alpha[:, :, None]), 2)
