# SPDX-License-Identifier: Apache-2.0
"""A backbone's transformer with gradients: what training has in its hands.

A :class:`Trainable` gives what ``Backbone.predict`` gives, for a timestep of each clip's own and
with a gradient. Adapters are put into its transformer and taken out again as a LoRA file in the
spelling that ``lora.py`` reads.

Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, §4.1.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from gencomp_protocol.errors import BadKnob
from gencomp_server.models.cogvideox import rotary_positions

if TYPE_CHECKING:
    from gencomp_server.models.cogvideox import CogVideoXBackbone
    from gencomp_server.models.gencompositor import GenCompositorBackbone

# What of a block a LoRA changes: the products of attention.
LORA_TARGETS = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0")
_PREFIX = "transformer."


class Trainable(nn.Module):  # type: ignore[misc]
    """The transformer of a backbone of the CogVideoX family, or both networks of GenCompositor.

    Args:
        backbone: Loaded, not offloaded, every setting exact.
    """

    def __init__(self, backbone: CogVideoXBackbone) -> None:
        super().__init__()
        self.transformer: nn.Module = backbone.network
        self._family = backbone.spec.family
        self._layout: dict[str, str] = {}
        if self._family == "gencompositor":
            self._layout = {"layout": cast("GenCompositorBackbone", backbone).layout}
        self._rotary: dict[tuple[Any, ...], tuple[Tensor, Tensor]] = {}

    @property
    def layout(self) -> str:
        """Positions of the element's tokens: of GenCompositor alone, of others nothing."""
        return self._layout.get("layout", "")

    def forward(
        self, latents: Tensor, timesteps: Tensor, text: Tensor, condition: Tensor
    ) -> Tensor:
        """Predict v.

        Args:
            latents: Noisy. [B,T',16,h,w].
            timesteps: One for each clip. [B].
            text: [B,L,D].
            condition: Channels beside the noise. [B,T',K,h,w].

        Returns:
            [B,T',16,h,w] float32.
        """
        if self._family == "gencompositor":
            channels = latents.shape[2]
            parts = [channels, condition.shape[2] - 2 * channels, channels]
            masked, mask, fg = condition.split(parts, dim=2)
            made: Tensor = self.transformer(
                latents, masked, mask, fg, text, timesteps, **self._layout
            )
            return made.float()
        hidden = torch.cat([latents, condition], dim=2)
        made = self.transformer(
            hidden_states=hidden,
            encoder_hidden_states=text,
            timestep=timesteps,
            image_rotary_emb=self._positions(hidden),
            return_dict=False,
        )[0]
        return made.float()

    def _positions(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        frames, height, width = hidden.shape[1], hidden.shape[3], hidden.shape[4]
        key = frames, height, width, hidden.device
        if key not in self._rotary:
            made = rotary_positions(self.transformer.config, frames, height, width)
            self._rotary = {key: (made[0].to(hidden.device), made[1].to(hidden.device))}
        return self._rotary[key]


def learning(model: Trainable, beginnings: Sequence[str]) -> dict[str, nn.Parameter]:
    """Have parameters learn and all others not; return those that do, by their own name.

    Args:
        model: The model.
        beginnings: Of the names of those that learn; none for all.
    """
    found = {}
    for name, one in model.transformer.named_parameters():
        learns = not beginnings or name.startswith(tuple(beginnings))
        one.requires_grad_(learns)
        if learns:
            found[name] = one
    return found


def checkpoint_blocks(model: Trainable) -> None:
    """Keep no activations inside blocks: they are computed again on the way back."""
    for module in model.transformer.modules():
        enable = getattr(module, "enable_gradient_checkpointing", None)
        if enable is not None:
            enable()


# --- LoRA ----------------------------------------------------------------------------------------


class LowRank(nn.Module):  # type: ignore[misc]
    """A linear layer that does not learn, and a change of low rank beside it that does.

    Args:
        base: The layer.
        rank: Rank of the change.
        seed: Of its first factor; the second is zero, so that at first nothing changes.
    """

    def __init__(self, base: nn.Linear, rank: int, seed: int) -> None:
        super().__init__()
        self.base = base
        bound = 1 / math.sqrt(base.in_features)
        drawn = np.random.default_rng(seed).uniform(-bound, bound, (rank, base.in_features))
        place = base.weight.device
        self.down = nn.Parameter(torch.from_numpy(drawn.astype(np.float32)).to(place))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank, device=place))

    def forward(self, x: Tensor) -> Tensor:
        """Return what the layer gives, changed. [...,in] -> [...,out]."""
        plain: Tensor = self.base(x)
        change = nn.functional.linear(nn.functional.linear(x.to(self.down), self.down), self.up)
        return plain + change.to(plain)


def add_lora(model: Trainable, rank: int, seed: int) -> dict[str, nn.Parameter]:
    """Put a LoRA of alpha = rank into every block's attention; nothing else learns.

    Args:
        model: The model; its layers are replaced in place.
        rank: Rank of the changes.
        seed: Of their first factors, together with each layer's name.

    Returns:
        What learns, by the name that its file will have.

    Raises:
        BadKnob: The rank is not positive.
    """
    if rank < 1:
        raise BadKnob(f"A LoRA cannot have rank {rank}.", hint="Usual are 16 to 128.", knob="lora")
    model.transformer.requires_grad_(False)
    targets = [
        (name, one)
        for name, one in model.transformer.named_modules()
        if isinstance(one, nn.Linear) and name.endswith(LORA_TARGETS)
    ]
    found = {}
    for name, layer in targets:
        owner, _, leaf = name.rpartition(".")
        own = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8).digest()
        changed = LowRank(layer, rank, int.from_bytes(own, "little"))
        setattr(model.transformer.get_submodule(owner), leaf, changed)
        found[f"{_PREFIX}{name}.lora_A.weight"] = changed.down
        found[f"{_PREFIX}{name}.lora_B.weight"] = changed.up
    return found


def plain_state(model: Trainable) -> dict[str, Tensor]:
    """Return the transformer's weights by their published names, a LoRA left out."""
    return {
        name.replace(".base.", "."): tensor
        for name, tensor in model.transformer.state_dict().items()
        if not name.endswith((".down", ".up"))
    }
