# SPDX-License-Identifier: Apache-2.0
"""HDR pictures with one known effect, and what a model with a VAE would make of them.

A picture is a textured wall with a lamp, a glossy floor and a thing that stands on it with a hard
edge (one pixel of antialiasing); everything but the lamp lies within 0..2, scene-linear, and has
grain of its own. *plate* is the thing over the place; *truth* is the same with one effect, behind
the thing and through the place's own grain:

``shadow``       a soft gain, grey in odd seeds, cooler towards its core in even ones
``reflection``   the thing's mirror image in the floor, over it
``glow``         light of up to 4.0 in the open, added
``glow behind``  the same right behind the thing, which hides its middle
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from gencomp_server.colour.modelrange import decode, encode
from gencomp_server.parts.fit import to_model_frame

EFFECTS = ("shadow", "reflection", "glow", "glow behind")
MOST_LIGHT = 4.0
ROUGH_PX = 5.0  # The floor is no mirror; what a model cannot resolve it cannot be asked for.
DRIFT_PX = 4.0  # Of the noise that is no finer than a VAE's blocks.
_STEP, _STEEPNESS = 0.026, 0.10  # Quantisation of the simulated VAE: about 32 dB.


@dataclass(frozen=True)
class Frame:
    """One frame with its truth. Pictures are [H,W,3] float32, scene-linear.

    Attributes:
        plate: What is given.
        truth: The same with the effect.
        inside: Signed distance to the thing's contour, in pixels, positive in it. [H,W] float32.
    """

    plate: np.ndarray
    truth: np.ndarray
    inside: np.ndarray


class Scene:
    """A still place with one effect; only the grain differs from frame to frame."""

    def __init__(self, seed: int, effect: str, size: tuple[int, int]) -> None:
        self.rng = np.random.default_rng([seed, 4])
        self.seed, self.effect, self.size = seed, effect, size
        width, height = size
        self.unit = height / 1080
        self.y, self.x = np.mgrid[:height, :width].astype(np.float32)
        self.foot = (width * self.rng.uniform(0.4, 0.6), height * self.rng.uniform(0.74, 0.82))
        self.place = self._place()
        self.inside = self._contour(self.x, self.y)
        self.thing = self._texture(self.rng.uniform(0.05, 0.7, (3, 3)), 40)
        self.gain, self.light, self.mirror = self._layers()

    def frame(self, n: int) -> Frame:
        """Return frame ``n``, with grain of its own."""
        rng = np.random.default_rng([self.seed, 5, n])
        place, thing = (self._grained(rng, light) for light in (self.place, self.thing))
        alpha = np.clip(self.inside + 0.5, 0, 1)[..., None]
        colour, share = self.mirror
        below = place * self.gain * (1 - share) + colour * share + self.light
        plate, truth = (thing * alpha + under * (1 - alpha) for under in (place, below))
        return Frame(plate.astype(np.float32), truth.astype(np.float32), self.inside)

    def _grained(self, rng: np.random.Generator, light: np.ndarray) -> np.ndarray:
        noise = cv2.GaussianBlur(rng.standard_normal(light.shape, np.float32), (0, 0), 0.6)
        return light + noise / 0.5 * (0.003 + 0.012 * light)

    def _texture(self, colours: np.ndarray, pixels: float) -> np.ndarray:
        """Return a picture of some colours, with detail from a pixel up."""
        width, height = self.size
        mix = np.zeros((height, width, 3), np.float32)
        for octave in range(6):
            cell = max(1.5, pixels * self.unit / 2**octave)
            shape = (int(height / cell) + 2, int(width / cell) + 2, 3)
            coarse = self.rng.standard_normal(shape).astype(np.float32)
            mix += cv2.resize(coarse, self.size, interpolation=cv2.INTER_CUBIC) * 0.75**octave
        mix = np.exp(mix) / np.exp(mix).sum(axis=2, keepdims=True)
        detail = np.exp(0.25 * cv2.GaussianBlur(self.rng.standard_normal(mix.shape[:2]), (0, 0), 1))
        return (mix @ colours.astype(np.float32) * detail[..., None]).astype(np.float32)

    def _place(self) -> np.ndarray:
        width, height = self.size
        wall = self._texture(self.rng.uniform(0.08, 0.55, (3, 3)), 120)
        floor = self._texture(self.rng.uniform(0.1, 0.45, (3, 3)), 30)
        boards = 0.75 + 0.25 * (np.sin(self.x / (17 * self.unit) + 0.3 * self.y / height) > -0.6)
        place = np.where((self.y > 0.62 * height)[..., None], floor * boards[..., None], wall)
        lamp = np.hypot(self.x - 0.12 * width, self.y - 0.2 * height) < 40 * self.unit
        return np.where(lamp[..., None], np.float32([12, 10, 7]), place).astype(np.float32)

    def _contour(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Return the signed distance to the thing: a body with a head."""
        u, (fx, fy) = self.unit, self.foot
        half, tall = 95 * u, 420 * u
        aside = np.maximum(np.abs(x - fx) - half, np.abs(y - (fy - tall / 2)) - tall / 2)
        head = np.hypot(x - fx, y - (fy - tall - 60 * u)) - 85 * u
        return -np.minimum(aside, head).astype(np.float32)

    def _layers(self) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
        u, (fx, fy) = self.unit, self.foot
        ones = np.ones((*self.place.shape[:2], 1), np.float32)
        gain, light, mirror = ones, 0 * ones, (self.place, 0 * ones)
        if self.effect == "shadow":
            lean = self.x - fx - 1.2 * (fy - self.y)
            body = (np.abs(lean) < 110 * u) & (np.abs(fy - self.y) < 200 * u)
            soft = cv2.GaussianBlur(body.astype(np.float32), (0, 0), 9 * u)[..., None]
            tint = np.float32([0.62, 0.62, 0.62] if self.seed % 2 else [0.66, 0.62, 0.56])
            gain = 1 - soft * tint
        elif self.effect == "reflection":
            share = np.clip(self._contour(self.x, 2 * fy - self.y) + 0.5, 0, 1)
            fade = 0.4 * np.clip(1 - (self.y - fy) / (300 * u), 0, 1)
            share = cv2.GaussianBlur(share * fade, (0, 0), 2 * u)[..., None]
            image = np.roll(self.thing[::-1], int(2 * fy) - self.size[1], axis=0)
            mirror = (cv2.GaussianBlur(image, (0, 0), ROUGH_PX * u), share)
        else:
            away = 0 if self.effect == "glow behind" else 420 * u
            reach = np.hypot(self.x - fx - away, self.y - (fy - 300 * u)) / (130 * u)
            fall = np.exp(-(reach**2) / 2) + 0.08 / (1 + reach**4)
            light = MOST_LIGHT / 1.08 * fall[..., None] * np.float32([1, 0.62, 0.3])
        return gain, light, mirror


# --- what a model would make of it ---------------------------------------------------------------


@dataclass(frozen=True)
class Noise:
    """What is wrong with a model's answer, beside what its VAE does to every picture.

    Attributes:
        white: Sigma of what differs from pixel to pixel, in code 0..1.
        drift: Sigma of what differs from patch to patch.
        vae: Whether pictures go through the simulated VAE.
    """

    white: float = 0.0
    drift: float = 0.0
    vae: bool = True


def seen(light: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return what a model sees of a picture: its size, code 0..1."""
    return np.clip(encode(to_model_frame(light, size)), 0, 1)


def through_vae(code: np.ndarray) -> np.ndarray:
    """Return a code after a simulated VAE: softer, quantised by blocks, its colours drifted.

    The error follows from the content alone: equal patches at equal places get equal errors.
    """
    soft = cv2.GaussianBlur(code, (0, 0), 0.6)
    height, width = soft.shape[:2]
    padded = np.pad(soft, ((0, -height % 8), (0, -width % 8), (0, 0)), mode="edge")
    k = np.arange(8)
    basis = np.cos((2 * k[None] + 1) * k[:, None] * np.pi / 16) * np.sqrt(2 / 8)
    basis[0] /= np.sqrt(2)
    blocks = padded.reshape(padded.shape[0] // 8, 8, padded.shape[1] // 8, 8, 3)
    found = np.einsum("ua,iajbc,vb->iujvc", basis, blocks, basis, optimize=True)
    step = _STEP * (1 + _STEEPNESS * (k[:, None] + k[None]))[None, :, None, :, None] * 2
    dither = np.random.default_rng(17).uniform(-0.5, 0.5, found.shape)
    found = (np.round(found / step + dither) - dither) * step
    back = np.einsum("ua,iujvc,vb->iajbc", basis, found, basis, optimize=True)
    back = back.reshape(padded.shape)[:height, :width]
    drift = np.array([[0.985, 0.01, 0.0], [0.005, 0.99, 0.005], [0.0, 0.012, 0.98]])
    return np.clip(back @ drift + 0.004, 0, 1).astype(np.float32)


def reference_and_sample(
    frame: Frame, size: tuple[int, int], noise: Noise, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the plate's round trip and the model's answer, both [h,w,3] in model range."""
    before, after = seen(frame.plate, size), seen(frame.truth, size)
    if noise.vae:
        before, after = through_vae(before), through_vae(after)
    patches = cv2.GaussianBlur(rng.standard_normal(after.shape, np.float32), (0, 0), DRIFT_PX)
    after = after + noise.drift * patches * np.float32(2 * np.sqrt(np.pi) * DRIFT_PX)
    after = after + noise.white * rng.standard_normal(after.shape, np.float32)
    return before * 2 - 1, after * 2 - 1


def bicubic(sample: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a decoded picture as a plain delivery would: resized, its code undone."""
    code = cv2.resize(sample * 0.5 + 0.5, size, interpolation=cv2.INTER_CUBIC)
    return decode(np.clip(code, 0, 1))
