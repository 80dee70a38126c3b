# SPDX-License-Identifier: Apache-2.0
"""The shapes of the preview's objects: signed distances in an object's own measure.

x from -0.75 to 0.75 to the right, y from -1.25 (above) to 0.25, (0, 0) where the object touches
the ground; a distance is negative inside.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Shape families: those of training, and those kept for measuring.
WALKER, BALL, CAR, BLOB, STAR, BIRD, CRATE = range(7)
RING, ANIMAL, UMBRELLA, TREE, CONVOY = range(7, 12)
SHAPES = {
    "train": (WALKER, BALL, CAR, BLOB, STAR, BIRD, CRATE),
    "held_out": (RING, ANIMAL, UMBRELLA, TREE, CONVOY),
}

_Point = tuple[Tensor | float, Tensor | float]


def _capsule(x: Tensor, y: Tensor, a: _Point, b: _Point, radius: Tensor | float) -> Tensor:
    """Return the distance to a rounded line from a to b, whose points may be tensors."""
    bx, by = b[0] - a[0], b[1] - a[1]
    px, py = x - a[0], y - a[1]
    along = ((px * bx + py * by) / (bx * bx + by * by + 1e-6)).clamp(0, 1)
    return ((px - along * bx).square() + (py - along * by).square()).sqrt() - radius


def _box(
    x: Tensor,
    y: Tensor,
    cx: Tensor | float,
    cy: Tensor | float,
    w: Tensor | float,
    h: Tensor | float,
    corner: float = 0.03,
) -> Tensor:
    dx, dy = (x - cx).abs() - w + corner, (y - cy).abs() - h + corner
    outside = (dx.clamp_min(0).square() + dy.clamp_min(0).square()).sqrt()
    return outside + torch.maximum(dx, dy).clamp_max(0) - corner


def _disc(
    x: Tensor, y: Tensor, cx: Tensor | float, cy: Tensor | float, r: Tensor | float
) -> Tensor:
    return ((x - cx).square() + (y - cy).square()).sqrt() - r


def pieces(
    shape: int, x: Tensor, y: Tensor, build: Tensor, turn: Tensor
) -> list[tuple[Tensor, int]]:
    """Return the parts of a shape that faces to the right.

    Args:
        shape: Which.
        x: [O,1,R,R].
        y: [1,1,R,R].
        build: What makes one differ from the next, 0..1. [O,6].
        turn: Where in its gait it is, radians. [O,T].
    """
    a, b, c, d = (build[:, i].view(-1, 1, 1, 1) for i in range(4))
    swing = turn[..., None, None]
    if shape == WALKER:
        return _walker(x, y, a, b, c, swing)
    if shape == BALL:
        r = 0.22 + 0.2 * a
        spot = _disc(x, y, 0.5 * r * swing.cos(), -r + 0.5 * r * swing.sin(), 0.3 * r)
        ball = _disc(x, y, 0.0, -r, r)
        return [(ball, 0), (torch.where(spot < 0, ball - 1e-4, ball + 1), 1)]
    if shape == CAR:
        tall = 0.16 + 0.12 * a
        body = _box(x, y, 0.0, -0.12 - tall, 0.62, tall)
        cabin = _box(x, y, -0.1 + 0.2 * b, -0.2 - 2 * tall, 0.3 + 0.2 * c, 0.16, 0.08)
        wheels = torch.minimum(_disc(x, y, -0.36, -0.13, 0.13), _disc(x, y, 0.36, -0.13, 0.13))
        return [(body, 0), (cabin, 1), (wheels, 2)]
    if shape == BLOB:
        angle = torch.atan2(y + 0.42, x)
        r = 0.34 * (
            1
            + 0.25 * a * torch.sin(2 * angle + swing)
            + 0.2 * b * torch.sin(3 * angle - 1.7 * swing)
            + 0.12 * c * torch.sin(5 * angle + 6 * d)
        )
        return [(((x.square() + (y + 0.42).square()).sqrt() - r) * 0.8, 0)]
    if shape == STAR:
        angle = torch.atan2(y + 0.45, x) + 0.5 * swing
        points = 3 + (a * 4).floor()
        wave = torch.cos(points * angle)
        r = 0.33 * (1 + (0.1 + 0.3 * b) * wave)
        return [(((x.square() + (y + 0.45).square()).sqrt() - r) * 0.75, 0)]
    if shape == BIRD:
        flap = swing.sin() * 0.35
        body = _capsule(x, y, (-0.2, -0.5), (0.2, -0.52), 0.09 + 0.05 * a)
        left = _capsule(x, y, (0.0, -0.52), (-0.35 - 0.2 * b, -0.55 - flap), 0.06)
        right = _capsule(x, y, (0.0, -0.52), (0.35 + 0.2 * b, -0.5 - flap), 0.06)
        head = _disc(x, y, 0.3, -0.57, 0.08)
        return [(body, 0), (torch.minimum(left, right), 1), (head, 2)]
    if shape == CRATE:
        tall = 0.25 + 0.24 * a
        crate = _box(x, y, 0.0, -tall, 0.16 + 0.34 * b, tall, 0.02)
        band = _box(x, y, 0.0, -tall, 0.6, 0.06, 0.01)
        return [(crate, 0), (torch.maximum(crate, band) - 1e-4, 1)]
    return _held_out_pieces(shape, x, y, build, swing)


def _walker(
    x: Tensor, y: Tensor, a: Tensor, b: Tensor, c: Tensor, swing: Tensor
) -> list[tuple[Tensor, int]]:
    step, hip = 0.14 + 0.1 * a, (0.0, -0.48)
    thick = 0.05 + 0.03 * b
    legs, arms = [], []
    for way in (1.0, -1.0):
        s = way * swing.sin() * step
        knee = (s * 0.7 + 0.03, -0.25)
        foot = (s * 1.2, -0.03 - 0.05 * (way * swing.cos()).clamp_min(0))
        legs += [_capsule(x, y, hip, knee, thick), _capsule(x, y, knee, foot, thick * 0.85)]
        hand = (-s * 1.1 + 0.04, -0.45 - 0.12 * c)
        arms.append(_capsule(x, y, (0.0, -0.78), hand, thick * 0.8))
    leg = torch.minimum(torch.minimum(legs[0], legs[1]), torch.minimum(legs[2], legs[3]))
    torso = _capsule(x, y, (0.0, -0.76), (0.0, -0.5), 0.1 + 0.06 * b)
    coat = torch.minimum(torso, torch.minimum(arms[0], arms[1]))
    return [(leg, 0), (coat, 1), (_disc(x, y, 0.02, -0.92, 0.075 + 0.02 * c), 2)]


def _held_out_pieces(
    shape: int, x: Tensor, y: Tensor, build: Tensor, swing: Tensor
) -> list[tuple[Tensor, int]]:
    a, b, c, d = (build[:, i].view(-1, 1, 1, 1) for i in range(4))
    if shape == RING:
        r = 0.3 + 0.1 * a
        rim = _disc(x, y, 0.0, -r - 0.06, r).abs() - 0.06
        spoke = _capsule(
            x,
            y,
            (r * swing.cos(), -r - 0.06 + r * swing.sin()),
            (-r * swing.cos(), -r - 0.06 - r * swing.sin()),
            0.03,
        )
        return [(rim, 0), (spoke, 1)]
    if shape == ANIMAL:
        body = _capsule(x, y, (-0.35, -0.5), (0.3, -0.52), 0.14 + 0.06 * a)
        legs = None
        for i, at in enumerate((-0.38, -0.28, 0.22, 0.32)):
            s = 0.13 * torch.sin(swing + i * 1.7)
            leg = _capsule(x, y, (at, -0.45), (at + s, -0.04), 0.045)
            legs = leg if legs is None else torch.minimum(legs, leg)
        head = torch.minimum(
            _disc(x, y, 0.5, -0.72, 0.1 + 0.04 * b),
            _capsule(x, y, (0.33, -0.55), (0.48, -0.7), 0.07),
        )
        tail = _capsule(x, y, (-0.45, -0.55), (-0.62, -0.6 + 0.15 * swing.sin()), 0.03)
        return [(body, 0), (legs, 1), (torch.minimum(head, tail), 2)]
    if shape == UMBRELLA:
        tilt = 0.1 * swing.sin()
        dome = torch.maximum(_disc(x, y, tilt, -0.62, 0.34 + 0.12 * a), y + 0.62)
        stick = _capsule(x, y, (tilt, -0.65), (0.0, -0.02), 0.025 + 0.02 * b)
        return [(dome, 0), (stick, 1)]
    if shape == TREE:
        sway = 0.06 * swing.sin()
        trunk = _capsule(x, y, (0.0, -0.03), (sway, -0.6), 0.05 + 0.03 * a)
        crown = None
        for i in range(5):
            cx = 0.24 * torch.sin(6.3 * (d + i / 5)) + sway
            leaf = _disc(x, y, cx, -0.72 - 0.13 * torch.cos(6.3 * (d + i * 0.37)), 0.14 + 0.07 * b)
            crown = leaf if crown is None else torch.minimum(crown, leaf)
        return [(trunk, 0), (crown, 1)]
    cars = None
    for i, at in enumerate((-0.45, 0.0, 0.45)):
        bob = 0.02 * torch.sin(swing * 2 + i)
        car = _box(x, y, at, -0.2 - 0.1 * c + bob, 0.19, 0.14 + 0.1 * c, 0.06)
        cars = car if cars is None else torch.minimum(cars, car)
    funnel = _box(x, y, 0.5, -0.55 - 0.1 * a, 0.05, 0.2, 0.02)
    return [(cars, 0), (funnel, 1)]
