# SPDX-License-Identifier: Apache-2.0
"""Any length through a model that sees a fixed number of frames: padding, windows, fusion.

A clip is padded to a length the VAE can take (``4k + 1`` frames, at least one window) by running
it forwards and backwards in turn; its latent frames are cut into windows that overlap; what the
windows made is blended with ramps whose weights sum to one at every latent frame. There is no
longest clip.

The planning half needs neither torch nor numpy, so that a plan can be made without them.

Sources: multidiffusion over time as in Over++ §3.4; lengths, window, overlap and ramps as in the
public code of Generative Omnimatte, whose last window is short where ours is moved back (see
docs/decisions/0009-windows.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from gencomp_server.backbones import BackboneSpec

SHIFTED, SHORT = "shifted", "short"


@dataclass(frozen=True)
class Window:
    """Latent frames ``first`` to ``last``, the latter exclusive."""

    first: int
    last: int

    def __len__(self) -> int:
        """Return how many latent frames it has."""
        return self.last - self.first


# --- lengths, in frames --------------------------------------------------------------------------


def padded_length(frames: int, window: int, even_latents: bool, temporal: int = 4) -> int:
    """Return how many frames a clip has inside the model.

    Args:
        frames: Frames of the clip, at least one.
        window: Frames the model sees at once; no clip is shorter inside.
        even_latents: True where the model takes an even number of latent frames only.
        temporal: Frames in a latent frame, after the first, which stands alone.

    Returns:
        The least ``temporal * k + 1`` that holds the clip and a window, with ``k + 1`` even where
        asked. A window that breaks that rule itself is the clip's length all the same where the
        clip needs no more.

    Raises:
        ValueError: There is no frame, or no window.
    """
    if frames < 1 or window < 1 or temporal < 1:
        raise ValueError(f"no length for {frames} frames, window {window}, {temporal} a latent")
    latents = _ceil(frames - 1, temporal) + 1
    latents += even_latents and latents % 2
    return max((latents - 1) * temporal + 1, window)


def source_index(frames: int, length: int) -> tuple[int, ...]:
    """Return which frame of the clip each frame of the padded clip shows: 0 1 2 2 1 0 0 1 ...

    Args:
        frames: Frames of the clip, at least one.
        length: Frames wanted.

    Raises:
        ValueError: The clip has no frames.
    """
    if frames < 1:
        raise ValueError("a clip without frames cannot be padded")
    turns = (i % (2 * frames) for i in range(length))
    return tuple(i if i < frames else 2 * frames - 1 - i for i in turns)


def latent_window(window: int, overlap: int, temporal: int = 4) -> tuple[int, int]:
    """Return window and overlap in latent frames for those in frames: 85 and 16 are 22 and 4."""
    return (window - 1) // temporal + 1, overlap // temporal


def _ceil(a: int, b: int) -> int:
    return -(-a // b)


# --- windows, in latent frames -------------------------------------------------------------------


def plan(
    latent_frames: int, window: int, overlap: int, *, even: bool, last: str = SHIFTED
) -> tuple[Window, ...]:
    """Cut a clip into windows.

    Args:
        latent_frames: Latent frames of the padded clip.
        window: Latent frames the model sees at once.
        overlap: Latent frames two neighbours share.
        even: True where every window must have an even number of latent frames.
        last: ``shifted``: the last window is moved back until it is full, and shares more with its
            neighbour. ``short``: it stays where it is and ends early, as in the public code; where
            it must be even it may begin one latent frame sooner.

    Returns:
        Windows in rising order that cover every latent frame; a single one where the clip is no
        longer than a window.

    Raises:
        ValueError: There is no such plan.
    """
    _check_plan(latent_frames, window, overlap, even, last)
    if latent_frames <= window:
        return (Window(0, latent_frames),)
    count = _ceil(latent_frames - window, window - overlap) + 1
    starts = [i * (window - overlap) for i in range(count)]
    if last == SHIFTED:
        starts[-1] = latent_frames - window
    elif even and (latent_frames - starts[-1]) % 2:
        starts[-1] -= 1
    return tuple(Window(start, min(start + window, latent_frames)) for start in starts)


def _check_plan(latent_frames: int, window: int, overlap: int, even: bool, last: str) -> None:
    if last not in (SHIFTED, SHORT):
        raise ValueError(f"the last window can be {SHIFTED} or {SHORT}, not {last!r}")
    if latent_frames < 1 or window < 1 or overlap < 0:
        raise ValueError(f"no windows of {window} with overlap {overlap} in {latent_frames}")
    if latent_frames > window and overlap >= window:
        raise ValueError(f"windows of {window} latent frames cannot overlap by {overlap}")
    if even and (latent_frames % 2 or (latent_frames > window and window % 2)):
        raise ValueError(f"{latent_frames} latent frames in windows of {window} are not even")


def count_forwards(passes: int, windows: Sequence[Window], steps: int, guidance: float) -> int:
    """Return how many transformer forwards the sampler computes; a batch of two counts two.

    Args:
        passes: Passes that are denoised.
        windows: What :func:`plan` made.
        steps: Denoising steps.
        guidance: 1 needs no second forward, anything else does.
    """
    halves = 1 if guidance == 1 else 2
    return passes * len(windows) * steps * halves


# --- of a backbone's job -------------------------------------------------------------------------


def job_length(spec: BackboneSpec, frames: int) -> int:
    """Return how many frames a job of so many has inside a model: without a VAE just as many."""
    if spec.over_base:
        return frames
    return padded_length(frames, spec.window_frames, spec.even_latents, spec.vae_temporal)


def job_windows(spec: BackboneSpec, frames: int) -> tuple[Window, ...]:
    """Return the windows of a job of so many frames, in latent frames, the last moved back."""
    size, overlap = latent_window(spec.window_frames, spec.overlap_frames, spec.vae_temporal)
    latents = spec.latent_frames(job_length(spec, frames))
    return plan(latents, size, overlap, even=spec.even_latents)


# --- fusion --------------------------------------------------------------------------------------


def ramp(overlap: int) -> tuple[float, ...]:
    """Return a rising ramp over an overlap, both ends left out: 4 gives .2, .4, .6, .8."""
    return tuple((i + 1) / (overlap + 1) for i in range(overlap))


def weights(windows: Sequence[Window]) -> tuple[tuple[float, ...], ...]:
    """Return each window's weight at each of its latent frames.

    A window rises over what it shares with the one before and falls over what it shares with the
    one after, whatever that is in fact; then all are divided by their sum.

    Args:
        windows: In rising order.

    Returns:
        One tuple per window; over all windows they sum to one at every latent frame they cover.
    """
    raw = [_raw_weights(windows, i) for i in range(len(windows))]
    total = [0.0] * max(one.last for one in windows)
    for one, values in zip(windows, raw, strict=True):
        for i, value in enumerate(values):
            total[one.first + i] += value
    return tuple(
        tuple(value / total[one.first + i] for i, value in enumerate(values))
        for one, values in zip(windows, raw, strict=True)
    )


def _raw_weights(windows: Sequence[Window], at: int) -> list[float]:
    one = windows[at]
    values = [1.0] * len(one)
    if at > 0:
        for i, value in enumerate(ramp(max(0, windows[at - 1].last - one.first))):
            values[i] *= value
    if at + 1 < len(windows):
        for i, value in enumerate(ramp(max(0, one.last - windows[at + 1].first))):
            values[-1 - i] *= value
    return values


def fuse(parts: Iterable[Tensor], windows: Sequence[Window], total: int) -> Tensor:
    """Blend what the windows made.

    Summed in float64, so that where all windows agree their value comes back bit for bit. Parts
    are taken one at a time: a generator keeps one in memory.

    Args:
        parts: One for each window, in order. [B,T',C,h,w] float32, T' the window's length.
        windows: What :func:`plan` made.
        total: Latent frames of the clip.

    Returns:
        [B,total,C,h,w] float32.

    Raises:
        ValueError: The windows do not cover the clip, or a part is not as long as its window.
    """
    import torch

    covered = {i for one in windows for i in range(one.first, one.last)}
    if covered != set(range(total)):
        raise ValueError(f"windows {list(windows)} do not cover {total} latent frames")
    fused: Tensor | None = None
    for part, one, weight in zip(parts, windows, weights(windows), strict=True):
        if part.shape[1] != len(one):
            raise ValueError(f"a part of {part.shape[1]} latent frames is not {one}")
        if len(windows) == 1:
            return part
        if fused is None:
            shape = (part.shape[0], total, *part.shape[2:])
            fused = torch.zeros(shape, dtype=torch.float64, device=part.device)
        share = torch.tensor(weight, dtype=torch.float64, device=part.device)
        fused[:, one.first : one.last] += part * share.reshape(1, -1, *[1] * (part.ndim - 2))
    assert fused is not None
    return fused.to(torch.float32)
