# SPDX-License-Identifier: Apache-2.0
"""What stands beside the noise: the padded sequence, its pixel noise, the mask in latent frames.

Sequences are [T,H,W,C] float32 in model range [-1,1] unless said otherwise.

Sources: public code of Generative Omnimatte and of CogVideoX-Fun, whose models were trained on
conditioning sequences with a little noise in pixel space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from gencomp_server.parts.trimask import EDIT, FOLDED, Convention
from gencomp_server.parts.windows import source_index

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

# What a blanked pixel holds; noise leaves it alone, so that a model knows it for what it is.
_BLANK = np.float32(-1)
_FOLD = 4


def pad_frames(sequence: NDArray[Any], length: int) -> NDArray[Any]:
    """Return a sequence of another length: forwards, backwards, forwards again.

    Args:
        sequence: [T,...] of any type.
        length: Frames wanted; fewer than T cut it.

    Returns:
        [length,...] of the same type.
    """
    return sequence[np.array(source_index(len(sequence), length), np.intp)]


def with_pixel_noise(video: Floats, noise: Floats, std: float) -> Floats:
    """Add noise to a conditioning sequence; a sample of exactly -1 stays.

    Args:
        video: [T,H,W,3].
        noise: Standard normal samples. [T,H,W,3].
        std: Standard deviation in model range; 0 changes nothing.

    Returns:
        [T,H,W,3] float32, unclamped.

    Raises:
        ValueError: Video and noise differ in shape.
    """
    if video.shape != noise.shape:
        raise ValueError(f"noise {noise.shape} for a video {video.shape}")
    noisy = np.array(video, np.float32)
    for frame, own in zip(noisy, noise, strict=True):  # One at a time: a shot's noise is large.
        blank = frame == _BLANK
        frame += own * np.float32(std)
        frame[blank] = _BLANK
    return noisy


def zero_edit(video: Floats, trimask: NDArray[np.uint8]) -> Floats:
    """Blank a sequence where something is to be made.

    Args:
        video: [T,H,W,3].
        trimask: Classes. [T,H,W,1] uint8.

    Returns:
        [T,H,W,3] float32, -1 where the class is EDIT.
    """
    return np.where(trimask == EDIT, _BLANK, video).astype(np.float32)


def latent_mask(
    encoded: Floats,
    latent_shape: tuple[int, int, int],
    convention: Convention,
    vae_scale: float,
) -> torch.Tensor:
    """Bring an encoded trimask to latent frames.

    Args:
        encoded: What :func:`trimask.encode` made. [T,H,W,1] float32.
        latent_shape: Latent frames, height and width; T is 4 times (frames - 1), plus 1.
        convention: The model's: its layout decides.
        vae_scale: The VAE's scaling factor; the folded layout does not use it.

    Returns:
        [1,T',1,h,w], or [1,T',4,h,w] for the folded layout, float32 on the CPU.

    Raises:
        ValueError: The lengths do not belong together.
    """
    frames, height, width = latent_shape
    if len(encoded) < 1 or len(encoded) != (frames - 1) * _FOLD + 1:
        raise ValueError(f"a mask of {len(encoded)} frames for {frames} latent frames")
    mask = torch.from_numpy(np.array(encoded, np.float32)).permute(3, 0, 1, 2)[None]
    if convention.layout == FOLDED:
        mask = torch.cat([mask[:, :, :1]] * (_FOLD - 1) + [mask], dim=2)
        # [1,1,4T',H,W] -> [1,4,T',H,W]: channel k of latent frame t is frame 4t + k.
        mask = mask.reshape(1, frames, _FOLD, *mask.shape[3:]).transpose(1, 2)
        return _resized(mask, (frames, height, width)).transpose(1, 2).contiguous()
    parts = [_resized(mask[:, :, :1], (1, height, width))]
    if frames > 1:
        parts.append(_resized(mask[:, :, 1:], (frames - 1, height, width)))
    return (torch.cat(parts, dim=2) * vae_scale).transpose(1, 2).contiguous()


def _resized(mask: torch.Tensor, size: tuple[int, int, int]) -> torch.Tensor:
    """Resize time, height and width at once, corners not aligned. [1,C,T,H,W] in and out."""
    return functional.interpolate(mask, size=size, mode="trilinear", align_corners=False)
