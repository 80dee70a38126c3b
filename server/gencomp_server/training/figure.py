# SPDX-License-Identifier: Apache-2.0
"""A walking figure of a procedural shot and the marks it leaves: shadow, reflection, smoke.

All pictures are premultiplied RGBA, scene-linear float32 [H,W,4], row 0 at the top. Lengths are in
pixels unless said; the body is measured in figure heights, feet at 0, up positive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gencomp_server.training.scenery import fractal

Array = NDArray[np.floating[Any]]
Point = tuple[float, float]

SUBFRAMES = 10  # samples of the shutter: steps of 1 px at 10 px of blur


@dataclass(frozen=True)
class Part:
    """One limb: a capsule from ``a`` to ``b`` of one radius, in figure heights."""

    a: Point
    b: Point
    radius: float
    cloth: int


@dataclass(frozen=True)
class Look:
    """What a figure wears.

    Attributes:
        cloths: Base colour of skin, shirt, trousers, shoes. [4,3].
        weave: Texture sampled along and across limbs. [128,128].
        stripes: Stripes per figure height on the shirt.
        phase: Where in its step the figure is at time 0, radians.
        facing: 1 walks to the right, -1 to the left.
    """

    cloths: Array
    weave: Array
    stripes: float
    phase: float
    facing: int


def make_look(seed: int, which: int) -> Look:
    """Dress the ``which``-th figure of a shot."""
    rng = np.random.default_rng([seed, 23, which])
    hues = np.array(
        [[0.52, 0.30, 0.21], [0.55, 0.10, 0.07], [0.05, 0.07, 0.16], [0.03, 0.025, 0.02]],
        np.float32,
    )
    if which:
        hues[1:3] = [[0.08, 0.30, 0.42], [0.33, 0.28, 0.20]]
    hues *= rng.uniform(0.8, 1.25, (4, 3)).astype(np.float32)
    weave = np.exp(0.28 * fractal(rng, 128, 128, 0.7)).astype(np.float32)
    phase = float(rng.uniform(0, 2 * np.pi))
    return Look(hues, weave, float(rng.uniform(14, 20)), phase, 1 if which == 0 else -1)


def pose(look: Look, t: float) -> tuple[Part, ...]:
    """Return the limbs at time ``t`` in frames, the farthest first."""
    step = 2 * np.pi * t / 13.0 + look.phase
    hip, neck = (0.0, 0.50), (0.02, 0.79)
    far_leg = _leg(hip, 0.55 * np.sin(step + np.pi), 0.7 * max(0.0, np.cos(step + np.pi)))
    near_leg = _leg(hip, 0.55 * np.sin(step), 0.7 * max(0.0, np.cos(step)))
    far_arm = _arm(neck, -0.7 * np.sin(step + np.pi))
    near_arm = _arm(neck, 0.5 - 0.95 * np.sin(step))
    body = (
        Part((0.0, 0.53), (0.015, 0.74), 0.098, 1),
        Part(neck, (0.03, 0.87), 0.032, 0),
        Part((0.035, 0.905), (0.045, 0.925), 0.066, 0),
    )
    return far_arm + far_leg + near_leg + body + near_arm


def _reach(start: Point, angle: float, length: float) -> Point:
    return start[0] + length * float(np.sin(angle)), start[1] - length * float(np.cos(angle))


def _leg(hip: Point, swing: float, bend: float) -> tuple[Part, ...]:
    knee = _reach(hip, swing, 0.235)
    ankle = _reach(knee, swing - bend, 0.235)
    toe = (ankle[0] + 0.06, ankle[1] + 0.0)
    return (
        Part(hip, knee, 0.056, 2),
        Part(knee, ankle, 0.042, 2),
        Part(ankle, toe, 0.030, 3),
    )


def _arm(neck: Point, swing: float) -> tuple[Part, ...]:
    elbow = _reach(neck, swing, 0.19)
    hand = _reach(elbow, swing + 0.45, 0.18)
    return Part(neck, elbow, 0.040, 1), Part(elbow, hand, 0.032, 0)


def draw(
    look: Look,
    foot: tuple[Point, ...],
    times: tuple[float, ...],
    tall: float,
    size: tuple[int, int],
) -> Array:
    """Draw the figure, averaged over the shutter.

    Args:
        look: What it wears.
        foot: Picture point under the hip at each of ``times``.
        times: Moments of the shutter, frames.
        tall: Figure height in pixels.
        size: Width and height of the picture.
    """
    width, height = size
    picture = np.zeros((height, width, 4), np.float32)
    left = max(0, int(min(x for x, _ in foot) - 0.6 * tall))
    right = min(width, int(max(x for x, _ in foot) + 0.6 * tall))
    top = max(0, int(min(y for _, y in foot) - 1.1 * tall))
    bottom = min(height, int(max(y for _, y in foot) + 0.2 * tall))
    if left >= right or top >= bottom:
        return picture
    part_of = picture[top:bottom, left:right]
    for (fx, fy), t in zip(foot, times, strict=True):
        moment = np.zeros_like(part_of)
        for part in pose(look, t):
            _paint_(moment, part, look, (fx - left, fy - top), tall)
        part_of += moment
    part_of /= np.float32(len(times))
    return picture


def _paint_(canvas: Array, part: Part, look: Look, foot: Point, tall: float) -> None:
    """Draw one limb over ``canvas`` in place."""
    ends = [(foot[0] + look.facing * px * tall, foot[1] - py * tall) for px, py in (part.a, part.b)]
    (ax, ay), (bx, by) = ends
    radius = part.radius * tall
    x0 = max(0, int(min(ax, bx) - radius - 2))
    x1 = min(canvas.shape[1], int(max(ax, bx) + radius + 3))
    y0 = max(0, int(min(ay, by) - radius - 2))
    y1 = min(canvas.shape[0], int(max(ay, by) + radius + 3))
    if x0 >= x1 or y0 >= y1:
        return
    gx = np.arange(x0, x1, dtype=np.float32)[None, :] - np.float32(ax)
    gy = np.arange(y0, y1, dtype=np.float32)[:, None] - np.float32(ay)
    dx, dy = np.float32(bx - ax), np.float32(by - ay)
    length = np.float32(max(np.hypot(dx, dy), 1e-3))
    along = (gx * dx + gy * dy) / length
    inside = np.clip(along, 0.0, length)
    across = (gx * dy - gy * dx) / length
    alpha = np.clip(radius + 0.5 - np.hypot(along - inside, across), 0.0, 1.0)[..., None]
    colour = _cloth(part, look, along / tall, across / tall)
    region = canvas[y0:y1, x0:x1]
    region *= 1.0 - alpha
    region[..., :3] += alpha * colour
    region[..., 3:] += alpha


def _cloth(part: Part, look: Look, along: Array, across: Array) -> Array:
    """Return the colour of a limb at its own coordinates, in figure heights. [h,w,3]."""
    rows = (along * 420).astype(np.int64) % look.weave.shape[0]
    columns = (across * 420).astype(np.int64) % look.weave.shape[1]
    round_ = np.clip(across / part.radius * look.facing, -1.0, 1.0)
    light = look.weave[rows, columns] * (0.75 - 0.45 * round_)
    if part.cloth == 1:
        light = light * (0.8 + 0.5 * (np.sin(2 * np.pi * look.stripes * along) > 0))
    colour = light[..., None] * look.cloths[part.cloth]
    if part.radius > 0.06 and part.cloth == 0:
        glint = np.exp(-((across - 0.02) ** 2 + (along - 0.03) ** 2) / 0.00018)
        colour = colour + 2.0 * glint[..., None]
    return np.asarray(colour, dtype=np.float32)


def cast_shadow(
    coverage: Array, foot: Point, tall: float, lean: float, density: float, horizon: float
) -> Array:
    """Return the soft shadow of a figure on the floor: black, its alpha the light it takes.

    Args:
        coverage: The figure's own alpha. [H,W].
        foot: Picture point under the hip.
        tall: Figure height in pixels.
        lean: Pixels sideways that the shadow goes per pixel of figure height.
        density: Alpha of the full shadow.
        horizon: Row above which there is no floor.
    """
    height, width = coverage.shape
    squash = 0.30
    # The picture point (x, foot_y - squash*h) shows the figure's point (x - lean*h, foot_y - h).
    matrix = np.array(
        [
            [1.0, lean / squash, -lean / squash * foot[1]],
            [0.0, 1.0 / squash, foot[1] * (1.0 - 1.0 / squash)],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    source = cv2.GaussianBlur(coverage, (0, 0), sigmaX=0.6, sigmaY=1.4)
    flat = cv2.warpAffine(source, matrix, (width, height), flags=flags)
    unit = tall / 160.0
    tight = cv2.GaussianBlur(flat, (0, 0), 1.6 * unit)
    loose = cv2.GaussianBlur(flat, (0, 0), 6.0 * unit)
    rows = np.arange(height, dtype=np.float32)[:, None]
    far = np.clip((foot[1] - rows) / (squash * tall), 0.0, 1.0)
    alpha = density * (tight + far * (loose - tight)) * np.clip((rows - horizon) / 6.0, 0.0, 1.0)
    alpha[alpha < 1e-3] = 0.0
    out = np.zeros((height, width, 4), np.float32)
    out[..., 3] = alpha
    return out


def mirror(figure: Array, foot: Point, tall: float, gloss: Array, strength: float) -> Array:
    """Return the figure's reflection in the glossy floor. ``gloss`` [H,W], 0 to 1."""
    height, width = figure.shape[:2]
    flip = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 2.0 * foot[1] + 0.02 * tall]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    image = cv2.warpAffine(figure, flip, (width, height), flags=flags)
    image = cv2.GaussianBlur(image, (0, 0), sigmaX=0.7, sigmaY=1.5)
    rows = np.arange(height, dtype=np.float32)[:, None]
    fade = np.clip(1.15 - (rows - foot[1]) / (0.75 * tall), 0.0, 1.0)
    weight = strength * gloss * fade * (rows > foot[1] - 0.02 * tall)
    out = image * weight[..., None]
    out[out[..., 3] < 1e-3] = 0.0
    return np.asarray(out, dtype=np.float32)


def puff(
    trail: tuple[tuple[float, float, float], ...],
    veil: Array,
    drift: float,
    tall: float,
    size: tuple[int, int],
) -> Array:
    """Return the smoke of a trail of puffs.

    Args:
        trail: Picture point and age in frames of each puff.
        veil: Noise that gives the smoke its shape, mean 0, sigma 1. [h,w], wraps around.
        drift: Pixels that the noise has risen.
        tall: Figure height in pixels.
        size: Width and height of the picture.
    """
    width, height = size
    x = np.arange(width, dtype=np.float32)
    y = np.arange(height, dtype=np.float32)
    dense = np.zeros((height, width), np.float32)
    for px, py, age in trail:
        radius = tall * (0.055 + 0.016 * age)
        thick = 0.55 * np.exp(-age / 9.0) * min(1.0, 0.3 + age / 3.0)
        dense += np.outer(
            thick * np.exp(-0.5 * ((y - py) / radius) ** 2),
            np.exp(-0.5 * ((x - px) / radius) ** 2),
        ).astype(np.float32)
    move = np.array([[1.0, 0.0, 0.35 * drift], [0.0, 1.0, drift]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    wisps = cv2.warpAffine(veil, move, size, flags=flags, borderMode=cv2.BORDER_WRAP)
    dense *= np.clip(0.75 + 0.55 * wisps, 0.0, None)
    alpha = 1.0 - np.exp(-np.clip(dense - 0.02, 0.0, None))
    grey = np.clip(0.80 + 0.09 * wisps, 0.45, 1.1)[..., None]
    colour = grey * np.array([0.97, 1.0, 1.06], np.float32)
    alpha = alpha[..., None]
    return np.concatenate([alpha * colour, alpha], axis=-1).astype(np.float32)
