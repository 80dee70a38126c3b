# SPDX-License-Identifier: Apache-2.0
"""The two networks of GenCompositor: a branch that keeps the plate, a main one that composites.

::

    noise 16 | masked plate 16 | mask 1 ──► branch, 2 blocks ──► 2 samples, a vector each token
                                                                   │ outside of the mask
    noise 16 | masked plate 16 ──► tokens ─┐                       ▼
    element 16 ──────────────────► tokens ─┴► main network, every block ──► plate's tokens ──► v

Both are diffusers' CogVideoX transformer (the branch with two blocks, the main one with 42), with a
patch layer and blocks of their own. Their parameters have the published names, so that published
weights load as they are.

* Element and plate are fused by attention alone: the element's tokens stand behind the plate's, and
  every block attends over all of them and the text.
* After every block a sample of the branch is added to the plate's tokens outside of the mask
  (eq. 5): the first sample in the first half of the blocks, the second in the other.

Sources: GenCompositor §4.2-4.4; the released code for names, for what is added where, and for the
parts of the branch that nothing reads (``branch_x_embedder`` and its output layers).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.models.transformers.cogvideox_transformer_3d import CogVideoXBlock
from torch import Tensor, nn
from torch.nn import functional

from gencomp_server.models import erope
from gencomp_server.models.patchlayers import FusionPatchLayer, PatchLayer

MASK_CHANNELS = 1
_MOST_POSITIONS = 8


class GenCompositor(nn.Module):  # type: ignore[misc]
    """Both networks; see the module.

    Args:
        main: Configuration of the main network, in diffusers' words.
        branch: Configuration of the branch.
    """

    def __init__(self, main: Mapping[str, Any], branch: Mapping[str, Any]) -> None:
        super().__init__()
        self.main = CompositingTransformer(**main)
        self.branch = PreservationBranch(**branch)
        self._positions: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}

    def forward(
        self,
        noisy: Tensor,
        masked: Tensor,
        mask: Tensor,
        fg: Tensor,
        text: Tensor,
        timestep: Tensor | float,
        *,
        layout: str = erope.SHIPPED,
    ) -> Tensor:
        """Predict v of the composite.

        Args:
            noisy: Latents of the composite, noisy. [B,T',16,h,w].
            masked: Latents of the plate, black where it may change. [B,T',16,h,w].
            mask: 1 where it may change, 0 where it stays. [B,T',1,h,w].
            fg: Latents of the element, centred on white. [B,T',16,h,w].
            text: Embedding of the prompt. [B,L,D].
            timestep: One for all, or one each. [B].
            layout: Positions of the element's tokens: one of ``erope.LAYOUTS``.

        Returns:
            [B,T',16,h,w].

        Raises:
            ValueError: A layout, a size or a length that the model does not have.
        """
        batch, frames, _, height, width = noisy.shape
        times = torch.as_tensor(timestep, device=noisy.device).expand(batch)
        size = frames, height, width
        own = self._rotary(*size, None, noisy.device)
        samples = self.branch(torch.cat([noisy, masked, mask], dim=2), text, times, own)
        kept = tokens_outside(mask, self.main.config.patch_size)
        made: Tensor = self.main(
            torch.cat([noisy, masked], dim=2),
            fg,
            text,
            times,
            self._rotary(*size, layout, noisy.device),
            tuple(sample * kept.to(sample) for sample in samples),
        )
        return made

    def _rotary(
        self, frames: int, height: int, width: int, layout: str | None, device: torch.device
    ) -> tuple[Tensor, Tensor]:
        """Return cosines and sines of positions, made once for each kind of window."""
        key = frames, height, width, layout, device
        if key not in self._positions:
            if len(self._positions) >= _MOST_POSITIONS:
                self._positions.clear()
            made = erope.rotary(self.main.config, frames, height, width, layout)
            self._positions[key] = made[0].to(device), made[1].to(device)
        return self._positions[key]

    # What speed.py and the backbone ask of a transformer, they ask of the main one.

    @property
    def config(self) -> Any:
        """Configuration of the main network."""
        return self.main.config

    @property
    def transformer_blocks(self) -> nn.ModuleList:
        """Blocks of the main network."""
        blocks: nn.ModuleList = self.main.transformer_blocks
        return blocks

    @property
    def is_cache_enabled(self) -> bool:
        """Tell whether the main network reuses steps."""
        return bool(self.main.is_cache_enabled)

    def cache_context(self, name: str) -> AbstractContextManager[None]:
        """Say to the main network whose forward runs inside."""
        context: AbstractContextManager[None] = self.main.cache_context(name)
        return context


def tokens_outside(mask: Tensor, side: int) -> Tensor:
    """Return which of the plate's tokens lie wholly outside of a mask.

    Args:
        mask: 1 inside. [B,T',1,h,w].
        side: Latent pixels of a token.

    Returns:
        [B,N,1] bool.
    """
    pooled = functional.max_pool2d(mask.float().flatten(0, 1), side)
    return (pooled <= 0).reshape(len(mask), -1, 1)


# --- networks ------------------------------------------------------------------------------------


class PreservationBranch(CogVideoXTransformer3DModel):  # type: ignore[misc]
    """The background preservation branch; see the module.

    Args:
        **config: In diffusers' words; the mask's channel comes on top of ``in_channels``.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        kept = self.config
        width = kept.num_attention_heads * kept.attention_head_dim
        self.patch_embed = PatchLayer(kept, kept.in_channels + MASK_CHANNELS)
        self.branch_blocks = nn.ModuleList(
            nn.Linear(width, width) for _ in range(len(self.transformer_blocks))
        )
        self.branch_x_embedder = nn.Linear(kept.in_channels, width)

    def forward(
        self, video: Tensor, text: Tensor, timestep: Tensor, rotary: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, ...]:
        """Return a sample for each block.

        Args:
            video: Noise, masked plate and mask. [B,T',33,h,w].
            text: [B,L,E].
            timestep: [B].
            rotary: Cosines and sines of the tokens' positions. [N,d] each.

        Returns:
            [B,N,D] each.
        """
        moment = _moment(self, timestep, video.dtype)
        words, tokens = self.patch_embed(text, video)
        samples = []
        for block, out in zip(self.transformer_blocks, self.branch_blocks, strict=True):
            tokens, words = _run(self, block, tokens, words, moment, rotary)
            samples.append(out(tokens))
        return tuple(samples)


class PreservingBlock(CogVideoXBlock):  # type: ignore[misc]
    """A stock block that adds what keeps the plate to the plate's tokens.

    It stands in the block, not around it, so that what skips a block skips that too.
    """

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        temb: Tensor,
        image_rotary_emb: tuple[Tensor, Tensor],
        keep: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return tokens and words; names as diffusers' hooks look for them.

        Args:
            hidden_states: Tokens of plate and element. [B,2N,D].
            encoder_hidden_states: Words. [B,L,D].
            temb: [B,E].
            image_rotary_emb: Cosines and sines of the tokens' positions. [2N,d] each.
            keep: What is added to the plate's tokens. [B,N,D].
        """
        tokens, words = super().forward(
            hidden_states, encoder_hidden_states, temb, image_rotary_emb
        )
        plate = tokens[:, : keep.shape[1]] + keep
        return torch.cat([plate, tokens[:, keep.shape[1] :]], dim=1), words


TransformerBlockRegistry.register(
    PreservingBlock,
    TransformerBlockMetadata(return_hidden_states_index=0, return_encoder_hidden_states_index=1),
)


class CompositingTransformer(CogVideoXTransformer3DModel):  # type: ignore[misc]
    """The main network; see the module.

    Args:
        **config: In diffusers' words; the element has channels of its own beside ``in_channels``.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        kept = self.config
        self.patch_embed = FusionPatchLayer(kept)
        self.transformer_blocks = nn.ModuleList(
            PreservingBlock(
                dim=kept.num_attention_heads * kept.attention_head_dim,
                num_attention_heads=kept.num_attention_heads,
                attention_head_dim=kept.attention_head_dim,
                time_embed_dim=kept.time_embed_dim,
                dropout=kept.dropout,
                activation_fn=kept.activation_fn,
                attention_bias=kept.attention_bias,
                norm_elementwise_affine=kept.norm_elementwise_affine,
                norm_eps=kept.norm_eps,
            )
            for _ in range(kept.num_layers)
        )

    def forward(
        self,
        video: Tensor,
        fg: Tensor,
        text: Tensor,
        timestep: Tensor,
        rotary: tuple[Tensor, Tensor],
        samples: tuple[Tensor, ...],
    ) -> Tensor:
        """Return v of the composite. [B,T',16,h,w].

        Args:
            video: Noise and masked plate. [B,T',32,h,w].
            fg: The element. [B,T',16,h,w].
            text: [B,L,E].
            timestep: [B].
            rotary: Cosines and sines of the positions of all tokens. [2N,d] each.
            samples: What the branch adds, zero inside of the mask. [B,N,D] each.
        """
        moment = _moment(self, timestep, video.dtype)
        words, tokens = self.patch_embed(text, video, fg)
        count = len(self.transformer_blocks)
        for at, block in enumerate(self.transformer_blocks):
            keep = samples[at * len(samples) // count]
            tokens, words = _run(self, block, tokens, words, moment, rotary, keep)
        plate = self.norm_final(tokens[:, : tokens.shape[1] // 2])
        return self._as_video(self.proj_out(self.norm_out(plate, temb=moment)), video)

    def _as_video(self, tokens: Tensor, video: Tensor) -> Tensor:
        """Lay tokens out as pictures. [B,N,4C] -> [B,T',C,h,w]."""
        side = self.config.patch_size
        batch, frames, _, height, width = video.shape
        grid = tokens.reshape(batch, frames, height // side, width // side, -1, side, side)
        return grid.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)


def _moment(network: Any, timestep: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the embedding of a timestep. [B] -> [B,E]."""
    found: Tensor = network.time_embedding(network.time_proj(timestep).to(dtype))
    return found


def _run(network: Any, block: nn.Module, *given: Any) -> tuple[Tensor, Tensor]:
    """Run a block; while training, forgetting what can be computed again where that is asked."""
    if torch.is_grad_enabled() and network.gradient_checkpointing:
        done: tuple[Tensor, Tensor] = network._gradient_checkpointing_func(block, *given)
        return done
    tokens, words = block(*given)
    return tokens, words
