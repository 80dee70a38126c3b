# SPDX-License-Identifier: Apache-2.0
"""Layers that make tokens of a text and of one video, or of a plate and an element.

They are diffusers' patch layer, with one difference: tables of learned positions are read from
their start. A window of fewer frames has the first of them, where diffusers would make others up.
Of two videos, the second's positions begin where those of a whole window of the first end.

Sources: GenCompositor §4.3; the released code for the table of positions, which is one for a
picture of twice the height.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.models.embeddings import CogVideoXPatchEmbed
from torch import Tensor, nn


class PatchLayer(CogVideoXPatchEmbed):  # type: ignore[misc]
    """The stock patch layer, whose learned positions serve shorter windows too.

    Args:
        config: Of the transformer.
        channels: Channels of what becomes tokens.
    """

    def __init__(self, config: Any, channels: int) -> None:
        super().__init__(
            patch_size=config.patch_size,
            in_channels=channels,
            embed_dim=config.num_attention_heads * config.attention_head_dim,
            text_embed_dim=config.text_embed_dim,
            bias=config.patch_bias,
            sample_width=config.sample_width,
            sample_height=config.sample_height,
            sample_frames=config.sample_frames,
            temporal_compression_ratio=config.temporal_compression_ratio,
            max_text_seq_length=config.max_text_seq_length,
            spatial_interpolation_scale=config.spatial_interpolation_scale,
            temporal_interpolation_scale=config.temporal_interpolation_scale,
            use_positional_embeddings=False,
            use_learned_positional_embeddings=True,
        )

    def forward(self, text: Tensor, *videos: Tensor) -> tuple[Tensor, Tensor]:
        """Return the tokens of a text, and of the videos one behind the other.

        Args:
            text: [B,L,E].
            *videos: One for each of the layer's projections. [B,T',C,h,w] each.

        Returns:
            [B,L,D], and [B,N,D] with the tokens of all videos.

        Raises:
            ValueError: A size or a length that the layer has no positions for.
        """
        projected = [
            _patches(projection, video)
            for projection, video in zip(self.projections(), videos, strict=True)
        ]
        words, places = self.places(text.shape[1], videos[0].shape)
        tokens = torch.cat(projected, dim=1)
        return self.text_proj(text) + words.to(text), tokens + places.to(tokens)

    def projections(self) -> tuple[nn.Module, ...]:
        """Return what makes tokens of each video."""
        return (self.proj,)

    def places(self, words: int, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the learned positions of a text, and of the videos one behind the other.

        Args:
            words: Tokens of the text.
            shape: Of one video: [B,T',C,h,w].

        Returns:
            [1,L,D] and [1,N,D].

        Raises:
            ValueError: As of :meth:`forward`.
        """
        _, frames, _, height, width = shape
        if (height, width) != (self.sample_height, self.sample_width):
            raise ValueError(
                f"{width}x{height} where the model takes {self.sample_width}x{self.sample_height}"
            )
        first = self.max_text_seq_length
        whole = (self.pos_embedding.shape[1] - first) // len(self.projections())
        used = frames * (height // self.patch_size) * (width // self.patch_size)
        if used > whole:
            raise ValueError(f"{frames} latent frames are more than the model takes")
        starts = range(first, self.pos_embedding.shape[1], whole)
        table = [self.pos_embedding[:, start : start + used] for start in starts]
        return self.pos_embedding[:, :words], torch.cat(table, dim=1)


class FusionPatchLayer(PatchLayer):
    """A patch layer for a plate and an element, each with a projection of its own.

    The table of positions is one for a picture of twice the height, as published.

    Args:
        config: Of the transformer.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config, config.in_channels)
        self.fg_proj = nn.Conv2d(
            config.out_channels, self.embed_dim, config.patch_size, config.patch_size
        )
        twice = self._get_positional_embeddings(
            2 * config.sample_height, config.sample_width, config.sample_frames
        )
        self.register_buffer("pos_embedding", twice)

    def projections(self) -> tuple[nn.Module, ...]:
        """Return those of the plate, with its noise, and of the element."""
        return self.proj, self.fg_proj


def _patches(projection: nn.Module, video: Tensor) -> Tensor:
    """Return a video's tokens, frame by frame and row by row. [B,T',C,h,w] -> [B,N,D]."""
    made = projection(video.flatten(0, 1)).flatten(2).transpose(1, 2)
    tokens: Tensor = made.unflatten(0, tuple(video.shape[:2])).flatten(1, 2)
    return tokens
