# SPDX-License-Identifier: Apache-2.0
"""The ways through the noise levels: DDIM for the CogVideoX family, flow matching for Wan.

DDIM can also be gone backwards, from a picture to the noise that it would have come from, and can
begin in the middle, from a picture to which the noise of that place is added.

Both satisfy ``models.backbone.Schedule`` and hold no state between steps, so that a job can go on
from any of them. Tables are made in float64; a step is float32 arithmetic on the latents.

Sources: DDIM, Song et al. 2021, eq. 12 with eta 0; v-prediction, Salimans and Ho 2022; zero
terminal SNR and trailing steps, Lin et al. 2024, algorithm 1; flow matching, Lipman et al. 2023,
with the shift of Esser et al. 2024, eq. 23; beginning in the middle, Meng et al. 2022 (SDEdit).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

TRAIN_STEPS = 1000
_BETA_FIRST, _BETA_LAST = 0.00085, 0.012


class DdimSchedule:
    """DDIM without added noise, for a model that predicts v.

    Where the number of steps does not divide 1000, a step ends ``1000 // steps`` below its
    timestep, a little beside where the next begins: so the models' own sampler does it.

    Args:
        steps: Denoising steps, 1 to 1000.

    Raises:
        ValueError: Another number of steps.
    """

    def __init__(self, steps: int) -> None:
        _check_steps(steps)
        # Rounded as the models' own sampler rounds it, which decides timesteps at exact halves.
        gap = TRAIN_STEPS - (TRAIN_STEPS - TRAIN_STEPS / steps)
        timesteps = tuple(round(TRAIN_STEPS - i * gap) - 1 for i in range(steps))
        levels = signal_levels()
        stride = TRAIN_STEPS // steps
        self.timesteps: tuple[int, ...] | tuple[float, ...] = timesteps
        self._now = tuple(levels[t] for t in timesteps)
        self._then = tuple(levels[t - stride] if t >= stride else 1.0 for t in timesteps)

    def step(self, prediction: Tensor, index: int, latents: Tensor) -> Tensor:
        """Return the latents after step ``index``. All [B,T',C,h,w] float32."""
        now, then = self._now[index], self._then[index]
        signal, noise = math.sqrt(now), math.sqrt(1 - now)
        picture = signal * latents - noise * prediction
        dirt = signal * prediction + noise * latents
        return math.sqrt(then) * picture + math.sqrt(1 - then) * dirt

    def noised(self, picture: Tensor, noise: Tensor, index: int) -> Tensor:
        """Return what step ``index`` begins with where the picture is known.

        Args:
            picture: Latents without noise. [B,T',C,h,w] float32.
            noise: Standard normal. [B,T',C,h,w] float32.
            index: The step.

        Returns:
            [B,T',C,h,w] float32.
        """
        now = self._now[index]
        return math.sqrt(now) * picture + math.sqrt(1 - now) * noise


def start_index(steps: int, level: int, *, truncated: bool) -> int:
    """Return the step that begins nearest to a noise level.

    Args:
        steps: Steps from pure noise.
        level: Timestep from which to begin, 0..999.
        truncated: True to count steps as the public code of DynVFX does: the share of the steps
            as a float, its fraction cut off. Of 50 steps .58 is then 28, not 29, and what was to
            begin at 579 begins at 559.

    Returns:
        0 to ``steps - 1``.

    Raises:
        ValueError: There is no such level.
    """
    _check_steps(steps)
    if not 0 <= level < TRAIN_STEPS:
        raise ValueError(f"a noise level is 0 to {TRAIN_STEPS - 1}, not {level}")
    share = steps * ((level + 1) / TRAIN_STEPS)
    count = int(share) if truncated else round(share)
    return steps - min(steps, max(1, count))


class DdimInversion:
    """DDIM gone backwards, for a model that predicts v: from a picture to its noise.

    A step takes the latents from one timestep to the next noisier one by what the model says of
    them there. The first has no timestep to come from; as in the public code of DynVFX it only
    scales the picture, without what the model says, so that no forward is spent on it.

    Args:
        timesteps: Where steps end, rising, each 0..999.

    Raises:
        ValueError: They do not rise, or there are none.
    """

    def __init__(self, timesteps: tuple[int, ...]) -> None:
        rising = list(timesteps) == sorted(set(timesteps))
        if not timesteps or not rising or timesteps[0] < 0 or timesteps[-1] >= TRAIN_STEPS:
            raise ValueError(f"timesteps of an inversion rise from 0 to 999, not {timesteps}")
        levels = signal_levels()
        self.timesteps = tuple(timesteps)
        self._levels = tuple(levels[t] for t in timesteps)

    def begin(self, latents: Tensor) -> Tensor:
        """Return the latents at the first timestep. [B,T',C,h,w] float32 in and out."""
        return math.sqrt(self._levels[0]) * latents

    def step(self, prediction: Tensor, index: int, latents: Tensor) -> Tensor:
        """Return the latents at timestep ``index``, from those at the one before.

        Args:
            prediction: What the model says of ``latents``, told timestep ``index``. [B,T',C,h,w].
            index: At least 1.
            latents: At timestep ``index - 1``. [B,T',C,h,w] float32.

        Returns:
            [B,T',C,h,w] float32.
        """
        if index < 1:
            raise ValueError("the first step of an inversion is begin()")
        now, then = self._levels[index - 1], self._levels[index]
        picture = math.sqrt(now) * latents - math.sqrt(1 - now) * prediction
        dirt = math.sqrt(now) * prediction + math.sqrt(1 - now) * latents
        return math.sqrt(then) * picture + math.sqrt(1 - then) * dirt


def signal_levels() -> tuple[float, ...]:
    """Return how much of the picture is left at each timestep, as a power: from near 1 to 0.

    Betas are squares of an even scale; the square roots of the cumulated products are then moved
    and stretched so that the last is 0 and the first stays.
    """
    first, last = math.sqrt(_BETA_FIRST), math.sqrt(_BETA_LAST)
    left, roots = 1.0, []
    for i in range(TRAIN_STEPS):
        left *= 1 - (first + (last - first) * i / (TRAIN_STEPS - 1)) ** 2
        roots.append(math.sqrt(left))
    stretch = roots[0] / (roots[0] - roots[-1])
    return tuple(((root - roots[-1]) * stretch) ** 2 for root in roots)


class FlowSchedule:
    """Euler steps along a straight flow from noise to picture.

    Args:
        steps: Denoising steps, 1 to 1000.
        shift: How far steps are moved to the noisy end; 1 leaves them even.

    Attributes:
        sigmas: Share of noise before each step, and 0 at the end.

    Raises:
        ValueError: Another number of steps, or a shift that is not positive.
    """

    def __init__(self, steps: int, shift: float) -> None:
        _check_steps(steps)
        if not (math.isfinite(shift) and shift > 0):
            raise ValueError(f"the shift of a flow is positive, not {shift}")
        # The least noise the model was trained with is shifted once before steps are spread.
        least = _shifted(1 / TRAIN_STEPS, shift)
        gap = (1 - least) / (steps - 1) if steps > 1 else 0.0
        self.sigmas = (*(_shifted(1 - i * gap, shift) for i in range(steps)), 0.0)
        self.timesteps: tuple[int, ...] | tuple[float, ...] = tuple(
            sigma * TRAIN_STEPS for sigma in self.sigmas[:-1]
        )

    def step(self, prediction: Tensor, index: int, latents: Tensor) -> Tensor:
        """Return the latents after step ``index``. All [B,T',C,h,w] float32."""
        return latents + (self.sigmas[index + 1] - self.sigmas[index]) * prediction


def _shifted(sigma: float, shift: float) -> float:
    return shift * sigma / (1 + (shift - 1) * sigma)


def _check_steps(steps: int) -> None:
    if not 1 <= steps <= TRAIN_STEPS:
        raise ValueError(f"a schedule has 1 to {TRAIN_STEPS} steps, not {steps}")
