# SPDX-License-Identifier: Apache-2.0
"""Validation grids: what a model in training is shown, what it should give, and what it gives.

A grid has a band for each clip, in it a row for each picture (what is shown, the mask, the target,
what is made) and in that the first, the middle and the last frame. What is made is sampled as a job
samples, with the same noise every time, so that grids of one training can be compared.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torch import Tensor

from gencomp_server.parts.schedule import DdimSchedule
from gencomp_server.training.checkpoint import unwritable
from gencomp_server.training.recipes import Prepared

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Bytes = NDArray[np.uint8]

_LEAST_WIDTH = 160
_LABEL = 14
_GAP = 4


@dataclass(frozen=True)
class Band:
    """One clip of a grid.

    Attributes:
        name: The clip's name, and what the model was told.
        prepared: What it was shown.
        made: What it gave. [T,H,W,3] in [-1,1].
    """

    name: str
    prepared: Prepared
    made: Floats


def sample(
    predict: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    noise: Tensor,
    text: Tensor,
    condition: Tensor,
    steps: int,
) -> Tensor:
    """Turn noise into latents, without guidance.

    Args:
        predict: Takes latents, timesteps, text, channels beside the noise; gives v.
        noise: [1,T',C,h,w].
        text: [1,L,D].
        condition: [1,T',K,h,w].
        steps: Denoising steps.
    """
    schedule, latents = DdimSchedule(steps), noise
    with torch.no_grad():
        for index, timestep in enumerate(schedule.timesteps):
            times = torch.full((1,), timestep, device=noise.device)
            predicted = predict(latents, times, text, condition)
            latents = schedule.step(predicted, index, latents)
    return latents


def draw_grid(bands: Sequence[Band]) -> Bytes:
    """Draw a grid. Returns [H,W,3] uint8, RGB."""
    drawn = [_band(band) for band in bands]
    width = max(one.shape[1] for one in drawn)
    padded = [
        np.pad(one, ((0, 2 * _GAP), (0, width - one.shape[1]), (0, 0)), constant_values=24)
        for one in drawn
    ]
    return np.concatenate(padded)


def write_grid(path: Path, bands: Sequence[Band]) -> None:
    """Write a grid as PNG, whole or not at all.

    Raises:
        DiskFull, UnwritableOutput: It cannot be written.
    """
    done, data = cv2.imencode(".png", draw_grid(bands)[..., ::-1])
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data.tobytes() if done else b"")
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def _band(band: Band) -> Bytes:
    shown = band.prepared
    rows: list[tuple[str, NDArray[Any]]] = [
        (f"shown: {name}", (video + 1) / 2) for name, video in sorted(shown.videos.items())
    ]
    if shown.trimask is not None:
        rows.append(("asked: white keep, grey unknown, black make", 1 - shown.trimask / 2))
    if shown.inflated is not None:
        rows.append(("asked: black make", 1.0 - shown.inflated[..., None]))
    rows += [("target", (shown.target + 1) / 2), (f"made: {band.name}", (band.made + 1) / 2)]
    return np.concatenate([_row(label, video) for label, video in rows])


def _row(label: str, video: NDArray[Any]) -> Bytes:
    """Draw first, middle and last frame beside each other under a label."""
    picked = [video[i] for i in (0, len(video) // 2, len(video) - 1)]
    frames = [_thumbnail(frame) for frame in picked]
    gap = np.full((frames[0].shape[0], _GAP, 3), 24, np.uint8)
    strip = np.concatenate([frames[0], gap, frames[1], gap, frames[2]], axis=1)
    head = np.full((_LABEL, strip.shape[1], 3), 24, np.uint8)
    words = label.encode("ascii", "replace").decode()
    cv2.putText(head, words, (2, _LABEL - 4), cv2.FONT_HERSHEY_PLAIN, 0.8, (220, 220, 220))
    return np.concatenate([head, strip])


def _thumbnail(frame: NDArray[Any]) -> Bytes:
    """Bring a frame in 0..1 to eight bits, three channels, and no less than 160 pixels width."""
    colour = np.broadcast_to(frame, (*frame.shape[:2], 3))
    shade = np.round(np.clip(colour, 0, 1) * 255).astype(np.uint8)
    times = max(1, -(-_LEAST_WIDTH // shade.shape[1]))
    return np.ascontiguousarray(shade.repeat(times, axis=0).repeat(times, axis=1))
