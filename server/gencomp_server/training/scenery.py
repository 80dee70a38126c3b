# SPDX-License-Identifier: Apache-2.0
"""The place of a procedural shot: a wall, a floor with a glossy strip, pillars, a lamp, a camera.

Scene-linear float32, [H,W,C], row 0 at the top. Two planes: the wall (far) and floor with pillars
(near); a camera that only pans moves both alike, a hand-held one moves the wall less (parallax).
Nothing here is animated but the camera.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]

HORIZON = 0.50  # share of the picture's height at which the floor meets the wall
STRIP = (0.815, 0.965)  # top and bottom of the glossy strip, shares of the picture's height
FAR_PARALLAX = 0.55  # how far the wall moves for one unit of the floor, hand-held
_MARGIN = 40  # pixels of world around the picture, for a 384-line picture


def fractal(rng: np.random.Generator, height: int, width: int, power: float) -> Array:
    """Return noise with an amplitude spectrum of 1/f**power, mean 0, sigma 1. [H,W]."""
    fy = np.fft.fftfreq(height)[:, None]
    fx = np.fft.rfftfreq(width)[None, :]
    radius = np.hypot(fy, fx)
    radius[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((height, width))) / radius**power
    spectrum[0, 0] = 0.0
    noise = np.fft.irfft2(spectrum, s=(height, width))
    return np.asarray(noise / noise.std(), dtype=np.float32)


@dataclass(frozen=True)
class Camera:
    """Where the camera looks, as a function of (fractional) time since the first frame.

    Attributes:
        pan: Pixels per frame, x and y, that the world moves to the left and up.
        sway: Amplitude in pixels of a hand-held sway; 0 for a camera on a head.
        phases: Six phases of the sway, radians.
        centre: Picture point that a hand-held roll turns about, pixels.
        origin: World pixel at the picture's top left corner at time 0.
    """

    pan: tuple[float, float]
    sway: float
    phases: tuple[float, ...]
    centre: tuple[float, float]
    origin: tuple[float, float]

    def matrix(self, t: float, parallax: float = 1.0) -> NDArray[np.float64]:
        """Return the affine map from picture to world pixels at time ``t``. [2,3]."""
        p = self.phases
        dx = self.sway * (np.sin(0.47 * t + p[0]) + 0.5 * np.sin(1.31 * t + p[1]))
        dy = self.sway * 0.7 * (np.sin(0.59 * t + p[2]) + 0.5 * np.sin(1.13 * t + p[3]))
        turn = self.sway * 8e-4 * np.sin(0.37 * t + p[4])
        cos, sin = np.cos(turn), np.sin(turn)
        cx, cy = self.centre
        x = self.origin[0] + parallax * (self.pan[0] * t + dx) + cx - cos * cx + sin * cy
        y = self.origin[1] + parallax * (self.pan[1] * t + dy) + cy - sin * cx - cos * cy
        return np.array([[cos, -sin, x], [sin, cos, y]])

    def to_picture(self, t: float, x: float, y: float) -> tuple[float, float]:
        """Return where a world point of the near plane lies in the picture at time ``t``."""
        m = self.matrix(t)
        px, py = np.linalg.solve(m[:, :2], np.array([x, y]) - m[:, 2])
        return float(px), float(py)


@dataclass(frozen=True)
class Scenery:
    """World pictures of both planes and the camera that looks at them.

    Attributes:
        far: The wall. [h,w,3].
        near: Floor and pillars, premultiplied. [h,w,4].
        gloss: How strongly the floor mirrors, 0 to 1. [h,w].
        camera: The camera.
        parallax: What the wall moves for one pixel of the floor.
        size: Width and height of the picture.
    """

    far: Array
    near: Array
    gloss: Array
    camera: Camera
    parallax: float
    size: tuple[int, int]

    def view(self, t: float) -> Array:
        """Return what the camera sees at time ``t``, without grain. [H,W,3]."""
        far = self._warp(self.far, t, self.parallax)
        near = self._warp(self.near, t, 1.0)
        return np.asarray(near[..., :3] + (1.0 - near[..., 3:]) * far, dtype=np.float32)

    def gloss_at(self, t: float) -> Array:
        """Return how strongly each pixel of the picture mirrors at time ``t``. [H,W]."""
        return self._warp(self.gloss, t, 1.0)

    def _warp(self, world: Array, t: float, parallax: float) -> Array:
        matrix = self.camera.matrix(t, parallax)
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        out = cv2.warpAffine(world, matrix, self.size, flags=flags, borderMode=cv2.BORDER_REFLECT)
        return np.asarray(out, dtype=np.float32)


def make_scenery(
    seed: int,
    width: int,
    height: int,
    frames: int,
    pan: tuple[float, float],
    highlight: float,
    handheld: bool,
) -> Scenery:
    """Build the place for a shot. ``pan`` in pixels per frame, ``highlight`` scene-linear."""
    rng = np.random.default_rng([seed, 11])
    scale = height / 384.0
    margin = int(_MARGIN * scale)
    wide = width + 2 * margin + int(abs(pan[0]) * frames)
    high = height + 2 * margin + int(abs(pan[1]) * frames)
    origin = (margin + max(0.0, -pan[0] * frames), margin + max(0.0, -pan[1] * frames))
    y = (np.arange(high, dtype=np.float32)[:, None] - origin[1]) / height
    x = (np.arange(wide, dtype=np.float32)[None, :] - origin[0]) / height
    near, gloss = _near(rng, x, y, scale, pillars=handheld)
    phases = tuple(float(p) for p in rng.uniform(0, 2 * np.pi, 6))
    sway = 5.0 * scale if handheld else 0.0
    camera = Camera(pan, sway, phases, (width / 2, height / 2), origin)
    parallax = FAR_PARALLAX if handheld else 1.0
    wall = _wall(rng, x, y, scale, highlight)
    return Scenery(wall, near, gloss, camera, parallax, (width, height))


def _lines(coordinate: Array, spacing: float, width: float) -> Array:
    """Return soft lines, 1 on the line, every ``spacing`` of ``coordinate``."""
    distance = np.abs((coordinate / spacing + 0.5) % 1.0 - 0.5) * spacing
    return np.asarray(np.clip(1.5 - distance / width, 0.0, 1.0), dtype=np.float32)


def _texture(rng: np.random.Generator, shape: tuple[int, int], contrast: float) -> Array:
    """Return a positive three-channel texture with mean near 1: 1/f, fine grit, some colour."""
    broad = fractal(rng, *shape, power=1.1)
    grit = fractal(rng, *shape, power=0.5)
    tint = np.stack([fractal(rng, *shape, power=1.3) for _ in range(3)], axis=-1)
    return np.exp(contrast * (0.8 * broad + 0.4 * grit)[..., None] + 0.035 * tint)


def _wall(rng: np.random.Generator, x: Array, y: Array, scale: float, highlight: float) -> Array:
    shape = (y.shape[0], x.shape[1])
    row = np.floor(y / 0.045)
    mortar = np.maximum(
        _lines(y, 0.045, 0.0025) + 0 * x, _lines(x + 0.055 * (row % 2), 0.11, 0.0025)
    )
    wall = np.array([0.30, 0.225, 0.17], np.float32) * _texture(rng, shape, 0.18)
    brick = np.floor((x + 0.055 * (row % 2)) / 0.11) * 7.31 + row * 3.77
    wall *= (0.85 + 0.3 * np.abs(np.sin(brick * 12.9898)))[..., None]
    wall += mortar[..., None] * (np.array([0.42, 0.40, 0.37], np.float32) - wall) * 0.8
    for left in np.arange(0.28, float(x.max()), 0.62):
        _window(wall, x, y, float(left) + float(rng.uniform(-0.05, 0.05)))
    lamp_x = float(rng.uniform(0.55, 1.05))
    distance = np.hypot(x - lamp_x, y - 0.415) / 0.014
    wall += (0.35 * np.exp(-distance / 4.0))[..., None] * np.array([1.0, 0.85, 0.6], np.float32)
    lamp = np.clip((1.0 - distance) * 0.014 * 384 * scale / 3.0 + 0.5, 0.0, 1.0)[..., None]
    lamp = lamp * lamp * (3.0 - 2.0 * lamp)
    return np.asarray(wall * (1 - lamp) + highlight * lamp, dtype=np.float32)


def _window(wall: Array, x: Array, y: Array, left: float) -> None:
    """Paint a window with frame and panes into the wall, in place."""
    inside = np.minimum(np.minimum(x - left, left + 0.20 - x), np.minimum(y - 0.07, 0.36 - y))
    pane = np.minimum(np.abs(x - left - 0.10), np.abs(y - 0.20))
    frame = ((inside > 0) & ((inside < 0.012) | (pane < 0.005)))[..., None]
    glass = ((inside >= 0.012) & (pane >= 0.005))[..., None]
    sky = (0.10 + 0.9 * np.clip(0.36 - y, 0, 1) + 0.05 * np.sin(40 * (x + y)))[..., None]
    np.copyto(wall, wall * 0.25 + sky * np.array([0.75, 0.95, 1.2], np.float32), where=glass)
    np.copyto(wall, np.array([0.62, 0.60, 0.55], np.float32) * (0.8 + 0.5 * wall), where=frame)


def _near(
    rng: np.random.Generator, x: Array, y: Array, scale: float, *, pillars: bool
) -> tuple[Array, Array]:
    """Return floor (and pillars) premultiplied [h,w,4], and the gloss [h,w]."""
    shape = (y.shape[0], x.shape[1])
    texture = _texture(rng, shape, 0.20)
    depth = np.maximum(y - HORIZON + 0.10, 0.02)
    tiles = np.maximum(
        _lines((0.09 / depth) + 0 * x, 0.055, 0.0022), _lines((x - 0.8) / depth, 0.55, 0.010)
    )
    floor = np.array([0.33, 0.32, 0.30], np.float32) * texture
    floor *= (0.7 + 0.5 * np.clip(y, 0, 1))[..., None] * (1.0 - 0.55 * tiles)[..., None]
    soft = 0.5 / (384 * scale)
    edges = np.minimum(y - STRIP[0], STRIP[1] - y)
    gloss = np.clip(edges / (8 * soft) + 0.5, 0.0, 1.0) + 0 * x
    polished = np.array([0.14, 0.16, 0.19], np.float32) * texture**0.8
    floor += gloss[..., None] * (polished - floor)
    alpha = np.clip((y - HORIZON) / (2 * soft) + 0.5, 0.0, 1.0) + 0 * x
    if pillars:
        for middle in (0.12, 1.02, 1.9):
            post = np.clip((0.035 - np.abs(x - middle)) / (2 * soft) + 0.5, 0.0, 1.0)
            post = post * (y < 0.66)
            stone = np.array([0.45, 0.42, 0.36], np.float32) * texture
            stone *= (0.6 + 9.0 * (x - middle + 0.035))[..., None]
            floor += post[..., None] * (stone - floor)
            alpha = np.maximum(alpha, post)
            gloss = gloss * (1.0 - post)
    near = np.concatenate([floor * alpha[..., None], alpha[..., None]], axis=-1)
    return near.astype(np.float32), gloss.astype(np.float32)
