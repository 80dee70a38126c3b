# SPDX-License-Identifier: Apache-2.0
"""The VAE of the CogVideoX family: chunks of frames in, chunks of frames out, tiles if need be.

Four frames are one latent frame, but for the first, which stands alone. Both ways go chunk by
chunk, each given what the causal convolutions saw of the one before::

    encode   85 frames:  13 | 8 | 8 | ... | 8      the rest of a division by eight goes first
    decode   22 latents: 1 | 2 | 2 | ... | 2 | 1   -> 1 | 8 | 8 | ... | 8 | 4 frames

diffusers' own way of decoding puts an odd number's first three together and makes 88 frames of 22
latent frames; the models here were trained and published with the other. Statistics of the group
norms are those of a chunk, so chunks cannot be chosen freely.

Tiles change statistics too, and with them tone: they are for machines where nothing else fits.

Sources: public code of CogVideoX-Fun for the chunks; encoder and decoder are diffusers'.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffusers import AutoencoderKLCogVideoX
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Progress = Callable[[int, int], None]

ENCODE_FRAMES = 8
DECODE_LATENTS = 2
# Share of a tile that it has in common with its neighbour.
_TILE_OVERLAP = 0.25
# Share of that, at either end, that a tile leaves to its neighbour: near its edge a tile was
# computed beside nothing.
_TILE_EDGE = 0.25


@dataclass(frozen=True)
class Tiles:
    """Tiles of a picture, in latent pixels.

    Attributes:
        width: Width of a tile.
        height: Height of a tile.
    """

    width: int
    height: int


@dataclass(frozen=True)
class Span:
    """Latent pixels ``first`` to ``last``, the latter exclusive, of one side of a tile."""

    first: int
    last: int

    def times(self, factor: int) -> slice:
        """Return the pixels that it covers."""
        return slice(self.first * factor, self.last * factor)


def encode_chunks(frames: int) -> tuple[tuple[int, int], ...]:
    """Return first and last frame, the latter exclusive, of each chunk of the encoder.

    Raises:
        ValueError: ``frames`` is not 4k + 1.
    """
    if frames < 1 or frames % 4 != 1:
        raise ValueError(f"the VAE takes 4k + 1 frames, not {frames}")
    if frames < ENCODE_FRAMES:
        return ((0, frames),)
    ends = list(range(ENCODE_FRAMES + frames % ENCODE_FRAMES, frames + 1, ENCODE_FRAMES))
    return tuple(zip([0, *ends[:-1]], ends, strict=True))


def decode_chunks(latent_frames: int) -> tuple[tuple[int, int], ...]:
    """Return first and last latent frame, the latter exclusive, of each chunk of the decoder."""
    firsts = [0, *range(1, latent_frames, DECODE_LATENTS)]
    return tuple(zip(firsts, [*firsts[1:], latent_frames], strict=True))


def encode(
    vae: AutoencoderKLCogVideoX,
    video: Floats,
    *,
    tiles: Tiles | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Encode a sequence to the mode of its distribution, scaled.

    Args:
        vae: Where and in what type its weights are, it computes.
        video: [T,H,W,3] float32, model range, T = 4k + 1.
        tiles: Work in tiles of that size.
        progress: Told (done, total).

    Returns:
        [1,T',16,h,w] float32 on the VAE's device.

    Raises:
        ValueError: T is not 4k + 1.
    """
    factor = _spatial(vae)
    frames, height, width = video.shape[:3]
    chunks = encode_chunks(frames)
    channels = int(vae.config.latent_channels)
    shape = 1, channels, (frames - 1) // 4 + 1, height // factor, width // factor
    job = _Job(tiles, shape, 1, len(chunks), progress)
    with torch.no_grad():
        for rows, columns, weight in job.tiles():
            cache, at = None, 0
            for first, last in chunks:
                piece = video[first:last, rows.times(factor), columns.times(factor)]
                moments, cache = vae.encoder(_to_model(piece, vae), conv_cache=cache)
                mode = moments.chunk(2, dim=1)[0]
                job.add(mode, at, rows, columns, weight)
                at += mode.shape[2]
    scaled = torch.from_numpy(job.made).transpose(1, 2) * float(vae.config.scaling_factor)
    return scaled.contiguous().to(vae.device)


def decode(
    vae: AutoencoderKLCogVideoX,
    latents: Tensor,
    *,
    tiles: Tiles | None = None,
    progress: Progress | None = None,
) -> Floats:
    """Decode scaled latents, the first latent frame alone and then two at a time.

    Args:
        vae: Where and in what type its weights are, it computes.
        latents: [1,T',16,h,w] float32.
        tiles: Work in tiles of that size.
        progress: Told (done, total).

    Returns:
        [4 T' - 3,H,W,3] float32, model range, unclamped.
    """
    factor = _spatial(vae)
    count, height, width = latents.shape[1], latents.shape[3], latents.shape[4]
    chunks = decode_chunks(count)
    shape = 1, 3, 4 * count - 3, height * factor, width * factor
    job = _Job(tiles, shape, factor, len(chunks), progress)
    unscaled = latents.transpose(1, 2) / float(vae.config.scaling_factor)
    with torch.no_grad(), _lone_latents_doubled(vae) as state:
        for rows, columns, weight in job.tiles():
            cache, at = None, 0
            for first, last in chunks:
                state["first"] = first == 0
                piece = unscaled[:, :, first:last, rows.times(1), columns.times(1)]
                pixels, cache = vae.decoder(piece.to(vae.device, vae.dtype), conv_cache=cache)
                job.add(pixels, at, rows, columns, weight)
                at += pixels.shape[2]
    return np.ascontiguousarray(job.made[0].transpose(1, 2, 3, 0))


def _spatial(vae: AutoencoderKLCogVideoX) -> int:
    """Return how many pixels a latent pixel is wide."""
    return int(2 ** (len(vae.config.block_out_channels) - 1))


def _to_model(frames: Floats, vae: AutoencoderKLCogVideoX) -> Tensor:
    """[T,H,W,3] numpy -> [1,3,T,H,W] where and as the VAE wants it."""
    plain = torch.from_numpy(np.ascontiguousarray(frames.transpose(3, 0, 1, 2))[None])
    return plain.to(vae.device, vae.dtype)


@contextlib.contextmanager
def _lone_latents_doubled(vae: AutoencoderKLCogVideoX) -> Iterator[dict[str, bool]]:
    """Have a latent frame that is a chunk by itself, but not the first, become four frames.

    diffusers takes every single frame for the first of a clip, which is not doubled in time. Its
    upsampler works on each frame apart, so doubling what comes out is doubling what goes in.

    Yields:
        Its key ``first`` must say whether the chunk that is decoded next is the first.
    """
    state = {"first": True}

    def double(_: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        lone = inputs[0].shape[2] == 1 and not state["first"]
        return output.repeat_interleave(2, dim=2) if lone else None

    hooks = [
        module.register_forward_hook(double)
        for block in vae.decoder.up_blocks
        for module in block.upsamplers or ()
        if module.compress_time
    ]
    try:
        yield state
    finally:
        for hook in hooks:
            hook.remove()


# --- tiles ---------------------------------------------------------------------------------------


class _Job:
    """The tiles of a picture, what they add up to, and how many chunks of all of them are done.

    Args:
        tiles: Size of a tile; None for a single one.
        shape: What is made. [1,C,T,H,W].
        factor: Width of a latent pixel in what is made: 1 for latents.
        chunks: Chunks of each tile.
        progress: Told (done, total).
    """

    def __init__(
        self,
        tiles: Tiles | None,
        shape: tuple[int, int, int, int, int],
        factor: int,
        chunks: int,
        progress: Progress | None,
    ) -> None:
        self.made: Floats = np.zeros(shape, np.float32)
        self._factor = factor
        height, width = shape[3] // factor, shape[4] // factor
        self._rows = spans(height, tiles.height if tiles else height)
        self._columns = spans(width, tiles.width if tiles else width)
        self._total = len(self._rows) * len(self._columns) * chunks
        self._done = 0
        self._progress = progress

    def tiles(self) -> Iterator[tuple[Span, Span, Floats]]:
        """Yield rows and columns of each tile in latent pixels, and its weight where it lands."""
        high = span_weights(self._rows, self._factor)
        wide = span_weights(self._columns, self._factor)
        for rows, down in zip(self._rows, high, strict=True):
            for columns, across in zip(self._columns, wide, strict=True):
                yield rows, columns, np.outer(down, across)

    def add(self, piece: Tensor, at: int, rows: Span, columns: Span, weight: Floats) -> None:
        """Add a tile's chunk [1,C,t,h,w], which begins at frame ``at``."""
        count = piece.shape[2]
        target = self.made[
            :, :, at : at + count, rows.times(self._factor), columns.times(self._factor)
        ]
        target += piece.float().cpu().numpy() * weight
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total)


def spans(side: int, tile: int) -> tuple[Span, ...]:
    """Cut a side into tiles that overlap by a quarter at least, evenly spread.

    Args:
        side: Latent pixels of the picture's side.
        tile: Latent pixels of the tile's.
    """
    if side <= tile:
        return (Span(0, side),)
    overlap = max(1, round(tile * _TILE_OVERLAP))
    count = -(-(side - overlap) // max(1, tile - overlap))
    firsts = [round(i * (side - tile) / (count - 1)) for i in range(count)]
    return tuple(Span(first, first + tile) for first in firsts)


def span_weights(tiles: Sequence[Span], factor: int) -> list[Floats]:
    """Return each tile's weight along one side; they sum to one everywhere.

    A tile rises over the middle of what it shares with the one before and falls over the middle of
    what it shares with the one after, in steps of a pixel.

    Args:
        tiles: What :func:`spans` made.
        factor: Pixels of a latent pixel.
    """
    raw = []
    for at, one in enumerate(tiles):
        weight = np.ones((one.last - one.first) * factor)
        if at > 0:
            shared = (tiles[at - 1].last - one.first) * factor
            weight[:shared] *= _rise(shared)
        if at + 1 < len(tiles):
            shared = (one.last - tiles[at + 1].first) * factor
            weight[len(weight) - shared :] *= _rise(shared)[::-1]
        raw.append(weight)
    total = np.zeros(tiles[-1].last * factor)
    for one, weight in zip(tiles, raw, strict=True):
        total[one.times(factor)] += weight
    return [
        (weight / total[one.times(factor)]).astype(np.float32)
        for one, weight in zip(tiles, raw, strict=True)
    ]


def _rise(shared: int) -> NDArray[np.float64]:
    """Return a ramp from nothing to one over so many pixels, level at both ends."""
    edge = int(shared * _TILE_EDGE)
    slope = (np.arange(shared - 2 * edge) + 0.5) / (shared - 2 * edge)
    return np.concatenate([np.zeros(edge), slope, np.ones(edge)])
