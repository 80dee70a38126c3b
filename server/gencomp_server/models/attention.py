# SPDX-License-Identifier: Apache-2.0
"""Which kernels compute a transformer's attention: torch's, cuDNN, FlashAttention, SageAttention.

diffusers has a dispatcher for them, and a setter. The setter passes over CogVideoX in silence, as
that class's attention processor calls torch directly, and it changes the default of the whole
process besides. Here the layers are given a processor that goes through the dispatcher, and
kernels are named per model.

Libraries are those installed. diffusers' ``*_hub`` kernels, which are fetched when first used, are
never asked for.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.attention_dispatch import (
    AttentionBackendName,
    _check_attention_backend_requirements,
    dispatch_attention_fn,
)
from diffusers.models.attention_processor import CogVideoXAttnProcessor2_0
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor

from gencomp_protocol.errors import BadKnob

if TYPE_CHECKING:
    from diffusers.models.attention_processor import Attention

# Compute capability from which bf16 and fused attention kernels are there.
_FUSED_ATTENTION = (8, 0)
# Compute capability that FlashAttention 3 is written for.
_HOPPER = (9, 0)


def check(attention: str, device: torch.device) -> None:
    """Refuse kernels that a device or this installation cannot run.

    Args:
        attention: The knob.
        device: Where the transformer computes.

    Raises:
        BadKnob: They are not known, not for this device, or their library is not installed.
    """
    if attention == "native":
        return
    if attention not in ("cudnn", "flash", "sage"):
        raise BadKnob(
            f"Knob 'attention' cannot be '{attention}'.",
            hint="Choose one of: native, cudnn, flash, sage.",
            knob="attention",
        )
    if device.type != "cuda":
        raise BadKnob(
            f"Knob 'attention' is '{attention}', which needs an NVIDIA GPU, and this job computes "
            f"on {spell(device)}.",
            hint="Set attention to native.",
            knob="attention",
        )
    if torch.cuda.get_device_capability(device) < _FUSED_ATTENTION:
        raise BadKnob(
            f"Knob 'attention' is '{attention}', which this GPU is too old for.",
            hint="Set attention to native.",
            knob="attention",
        )
    if attention == "cudnn":
        if not torch.backends.cudnn.is_available():
            raise BadKnob(
                "Knob 'attention' is 'cudnn', and this build of torch has no cuDNN.",
                hint="Set attention to native.",
                knob="attention",
            )
        return
    try:
        _check_attention_backend_requirements(_backend(attention, device))
    except RuntimeError as error:
        title = {"flash": "FlashAttention", "sage": "SageAttention"}[attention]
        package = {"flash": "flash-attn", "sage": "sageattention"}[attention]
        raise BadKnob(
            f"Knob 'attention' is '{attention}', and no usable {title} library is installed here.",
            hint=f"Set attention to native or cudnn, or install {package} built for this torch.",
            knob="attention",
        ) from error


def put_in_force_(transformer: Any, attention: str, device: torch.device) -> str:
    """Have a transformer use the kernels that the knob names, in place; :func:`check` comes first.

    Returns:
        A sentence for the manifest; empty for ``native``, which leaves the model untouched.
    """
    if attention == "native":
        return ""
    backend = _backend(attention, device)
    set_attention_(transformer, backend)
    exact = (
        "exact up to rounding" if attention == "cudnn" else "not bit for bit that of the default"
    )
    return f"Attention is computed by {attention} kernels ({backend.value}), {exact}."


def set_attention_(transformer: Any, backend: AttentionBackendName) -> None:
    """Have every attention layer use a backend, in place and in no other model.

    Raises:
        TypeError: A layer has a processor that would not follow.
    """
    for name, processor in transformer.attn_processors.items():
        if hasattr(processor, "_attention_backend"):
            processor._attention_backend = backend
        elif isinstance(processor, (CogVideoXAttnProcessor2_0, DispatchedAttention)):
            layer = transformer.get_submodule(name.removesuffix(".processor"))
            layer.set_processor(DispatchedAttention(backend))
        else:
            raise TypeError(f"{name} is a {type(processor).__name__}, which takes no backend")


def _backend(attention: str, device: torch.device) -> AttentionBackendName:
    if attention == "cudnn":
        return AttentionBackendName._NATIVE_CUDNN
    if attention == "sage":
        return AttentionBackendName.SAGE
    newest = AttentionBackendName._FLASH_3
    if torch.cuda.get_device_capability(device) == _HOPPER:
        with contextlib.suppress(RuntimeError):
            _check_attention_backend_requirements(newest)
            return newest
    return AttentionBackendName.FLASH


class DispatchedAttention:
    """Attention of a CogVideoX block through diffusers' dispatcher.

    The same arithmetic as the stock processor, whose attention call is fixed.

    Args:
        backend: Which kernels.
    """

    def __init__(self, backend: AttentionBackendName) -> None:
        self.backend = backend

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attend over text and video tokens together.

        Args:
            attn: The block's attention layer.
            hidden_states: Video tokens. [B,N,D].
            encoder_hidden_states: Text tokens. [B,L,D].
            attention_mask: Not taken: these models use none.
            image_rotary_emb: Cosines and sines of the video tokens' positions. [N,D/heads] each.

        Returns:
            Video and text tokens. [B,N,D] and [B,L,D].
        """
        assert attention_mask is None
        words = encoder_hidden_states.shape[1]
        tokens = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        query, key, value = (
            layer(tokens).unflatten(-1, (attn.heads, -1))
            for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        query, key = attn.norm_q(query), attn.norm_k(key)
        if image_rotary_emb is not None:
            query = _turned(query, words, image_rotary_emb)
            key = _turned(key, words, image_rotary_emb)
        seen = dispatch_attention_fn(query, key, value, backend=self.backend)
        seen = attn.to_out[1](attn.to_out[0](seen.flatten(2)))
        return seen[:, words:], seen[:, :words]


def _turned(heads: Tensor, words: int, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Give the video tokens behind the words their positions. [B,words+N,heads,D]."""
    video = apply_rotary_emb(heads[:, words:], rotary, sequence_dim=1)
    return torch.cat([heads[:, :words], video], dim=1)


def spell(device: torch.device) -> str:
    """Return a device in words."""
    return "the CPU" if device.type == "cpu" else device.type
