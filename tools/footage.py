# SPDX-License-Identifier: Apache-2.0
"""The footage of the worked shots and of the example scripts: procedural, of any size.

Every function writes EXR sequences into a folder, half float, and returns the truth: what each
frame should come to. Pictures are scene-linear float32 [H,W,C], row 0 at the top, premultiplied.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gencomp_protocol.frames import Box
from gencomp_server.contract import LayerFrame
from gencomp_server.exr.write import write_layer
from gencomp_server.training import figure
from gencomp_server.training.scenery import fractal
from gencomp_server.training.shots import ProceduralShot, ShotSpec, over

Array = NDArray[np.floating[Any]]
_CHANNELS = {1: ("A",), 3: ("R", "G", "B"), 4: ("R", "G", "B", "A")}
_DUST = np.array([0.62, 0.50, 0.36, 1.0], np.float32)
_FLASH = np.array([1.0, 0.55, 0.22], np.float32)


def write(folder: Path, name: str, n: int, pixels: Array, bits: int = 10) -> Path:
    """Write one frame of a sequence: ``<folder>/<name>/<name>.<n>.exr``.

    Args:
        folder: Where; made if need be.
        name: Of the sequence.
        n: Frame number.
        pixels: [H,W,1|3|4], scene-linear.
        bits: Of a half's ten bits of precision how many are kept; fewer make smaller files.
    """
    window = Box(0, 0, pixels.shape[1] - 1, pixels.shape[0] - 1)
    half = np.ascontiguousarray(pixels, np.float16)
    if bits < 10:
        half = (half.view(np.uint16) & np.uint16(0x10000 - (1 << (10 - bits)))).view(np.float16)
    path = folder / name / f"{name}.{n:04d}.exr"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_layer(path, LayerFrame(name, n, half, _CHANNELS[half.shape[2]], window, window))
    return path


@dataclass(frozen=True)
class Creature:
    """A CG figure that walks through a plate, with what it should leave there.

    Attributes:
        spec: The place and the walk.
        dusty: Whether its feet raise dust.
    """

    spec: ShotSpec
    dusty: bool = True

    def fg(self, shot: ProceduralShot, n: int) -> Array:
        """Return the figure alone. [H,W,4]."""
        return shot.object_layer("a", n)

    def effects(self, shot: ProceduralShot, n: int) -> tuple[Array, ...]:
        """Return what it leaves, the lowest first: shadow, and dust at its feet. [H,W,4] each."""
        shadow = shot.effect_layers("a", n)["shadow"]
        return (shadow, self._dust(shot, n)) if self.dusty else (shadow,)

    def truth(self, shot: ProceduralShot, n: int) -> Array:
        """Return the plate with figure and effects. [H,W,3]."""
        picture = shot.clean_plate(n)
        for layer in (*self.effects(shot, n), self.fg(shot, n)):
            picture = over(layer, picture)
        return picture

    def _dust(self, shot: ProceduralShot, n: int) -> Array:
        t, tall = float(n - self.spec.first), self.spec.tall * self.spec.height
        rise, camera = tall / 170.0, shot.scenery.camera
        trail = []
        for age in np.arange(2.0, 20.0, 1.5):
            x, y = shot.foot("a", t - age)
            shift = camera.matrix(t - age)[:, 2] - camera.matrix(t)[:, 2]
            low = y + float(shift[1]) - 0.02 * tall - rise * age * 0.4
            trail.append((x + float(shift[0]) - 0.1 * tall, low, float(age)))
        veil = fractal(np.random.default_rng([self.spec.seed, 71]), 512, 512, 1.5)
        dust = figure.puff(
            tuple(trail), veil, 1.5 * rise * t, 0.62 * tall, (self.spec.width, self.spec.height)
        )
        return (dust * _DUST).astype(np.float32)

    def roto(self, shot: ProceduralShot, n: int) -> Array:
        """Return a loose roto of where shadow and dust are wanted. [H,W,1], 0 or 1."""
        wanted = sum((layer[..., 3] for layer in self.effects(shot, n)), np.zeros(1, np.float32))
        tall = self.spec.tall * self.spec.height
        inside = (cv2.GaussianBlur(wanted, (0, 0), 0.03 * tall) > 0.10).astype(np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(inside)
        if count > 1:
            inside = (labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())).astype(np.uint8)
        side = 2 * int(0.05 * tall) + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
        return np.asarray(cv2.dilate(inside, kernel), np.float32)[..., None]


@dataclass(frozen=True)
class Burst:
    """A stock explosion on black, numbered from 1, and the light that it throws on a place.

    Attributes:
        size: Width and height in pixels.
        frames: Number of frames.
        seed: Its shape.
    """

    size: tuple[int, int] = (256, 256)
    frames: int = 24
    seed: int = 7

    def picture(self, n: int) -> Array:
        """Return frame ``n``, 1 for the first. [H,W,4], premultiplied."""
        width, height = self.size
        t = (n - 0.5) * 24.0 / self.frames
        noise = fractal(np.random.default_rng([self.seed, 3]), 512, 512, 1.6)
        move = np.array([[1.4, 0.0, 40.0], [0.0, 1.4, 5.5 * t]]) * 256.0 / width
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        lumps = cv2.warpAffine(noise, move, self.size, flags=flags, borderMode=cv2.BORDER_WRAP)
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        grown = 1.0 - np.exp(-t / 4.5)
        away = np.hypot((x - width / 2) / width, (y - (0.62 - 0.010 * t) * height) / height)
        body = np.clip(1.15 - away / (0.08 + 0.25 * grown) + 0.34 * lumps, 0.0, 1.0)
        body *= np.clip((0.5 - away) / 0.08, 0.0, 1.0) * np.exp(-max(0.0, t - 12.0) / 9.0)
        heat = body * (0.95 + 0.5 * lumps) * np.exp(-t / 10.0)
        heat = np.clip(heat, 0.0, 1.4)[..., None]
        alpha = np.clip(1.5 * body, 0.0, 1.0)[..., None]
        soot = np.float32(0.045) * np.clip(1.0 + 0.5 * lumps[..., None], 0.2, None)
        fire = heat * np.float32([0.5, 0.06, 0.01]) + heat**3 * np.float32([6.0, 3.4, 0.9])
        return np.concatenate([alpha * (soot + fire), alpha], axis=2).astype(np.float32)

    def light(self, n: int) -> float:
        """Return how strongly it lights the place at frame ``n``: 1 at its brightest."""
        t = (n - 0.5) * 24.0 / self.frames
        return float(np.exp(-t / 6.0) * min(1.0, t / 1.0))


def lit(plate: Array, at: tuple[float, float], reach_px: float, strength: float) -> Array:
    """Return a plate with a warm light on its floor. [H,W,3], scene-linear.

    Args:
        plate: [H,W,3], scene-linear.
        at: Where the light stands, in pixels, y down.
        reach_px: How far it reaches.
        strength: Gain that it adds below itself.
    """
    height, width = plate.shape[:2]
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    away = np.hypot(x - at[0], 2.6 * (y - at[1])) / reach_px
    floor = np.clip((y - 0.52 * height) / (0.05 * height), 0.0, 1.0)
    gain = 1.0 + strength * np.exp(-(away**2))[..., None] * floor[..., None] * _FLASH
    return np.asarray(plate * gain, np.float32)
