# SPDX-License-Identifier: Apache-2.0
"""The backbone ``tiny``: the real classes at small size, made and not loaded.

Its weights are random numbers, the same on every machine, so its pictures mean nothing; but it is
run by the same code as a full model, sees text, mask and plate, and takes seconds on one thread.
Every weight is drawn by a generator seeded with its own name: nothing depends on the order in which
layers are made, nor on anybody's global seed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import string
from collections.abc import Mapping
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

from gencomp_server.backbones import BackboneSpec
from gencomp_server.models import speed
from gencomp_server.models.cogvideox import CogVideoXBackbone
from gencomp_server.models.loading import LoadSettings, build_on_meta, put
from gencomp_server.models.text import Prompts

# Part of the identity: other weights are another number.
_VERSION = 1
_TEXT_WIDTH = 32
_WORDS = (
    "clean",
    "scene",
    "beach",
    "water",
    "wake",
    "smoke",
    "dust",
    "shadow",
    "soft",
    "harsh",
    "splash",
    "reflection",
    "glow",
    "empty",
    "the",
    "of",
    "and",
    "with",
)

TRANSFORMER: dict[str, Any] = {
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "in_channels": 33,
    "out_channels": 16,
    "time_embed_dim": 32,
    "text_embed_dim": _TEXT_WIDTH,
    "num_layers": 2,
    "sample_frames": 85,
    "sample_height": 384,
    "sample_width": 680,
    "patch_size": 2,
    "patch_size_t": 2,
    "patch_bias": False,
    "max_text_seq_length": 226,
    "use_rotary_positional_embeddings": True,
}
# Kinds without pairs of latent frames; what is learned of positions is for one size.
_V10: dict[str, Any] = {
    **{name: value for name, value in TRANSFORMER.items() if not name.startswith("patch")},
    "patch_size": 2,
    "sample_frames": 49,
}
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "tiny": TRANSFORMER,
    "tiny-splitthenmerge": {
        **_V10,
        "in_channels": 48,
        "sample_height": 4,
        "sample_width": 6,
        "use_learned_positional_embeddings": True,
    },
    "tiny-text-to-video": {**_V10, "in_channels": 16, "sample_height": 60, "sample_width": 90},
}
"""Transformers by name of backbone."""
VAE: dict[str, Any] = {
    "block_out_channels": (8, 8, 8, 8),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "scaling_factor": 0.7,
}
TEXT: dict[str, Any] = {
    "d_model": _TEXT_WIDTH,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
}


def make(
    spec: BackboneSpec,
    *,
    device: torch.device | str = "cpu",
    settings: LoadSettings | None = None,
    cache: Path | None = None,
    log: logging.Logger | None = None,
) -> CogVideoXBackbone:
    """Make the tiny backbone; on the CPU it computes in float32.

    Args:
        spec: Its facts: ``backbones.spec_named("tiny")``.
        device: Where it computes.
        settings: As of any backbone.
        cache: Folder of embeddings; None keeps none.
        log: Where to say that it is made.

    Raises:
        BadKnob: A setting asks for what this machine cannot do.
    """
    settings = settings or LoadSettings()
    target = torch.device(device)
    dtype = torch.float32 if target.type == "cpu" else torch.bfloat16
    body = torch.device("cpu") if settings.offload == "group" else target
    waits = target if settings.offload == "none" else torch.device("cpu")
    config = TRANSFORMERS[spec.name]
    transformer = build_on_meta(lambda: CogVideoXTransformer3DModel(**config))
    fill(transformer, "transformer", device=body, dtype=dtype)
    said = speed.apply(transformer, settings, target, cache=cache)
    autoencoder = build_on_meta(lambda: AutoencoderKLCogVideoX(**VAE))
    fill(autoencoder, "vae", device=waits, dtype=dtype)
    if log is not None:
        log.info("the tiny backbone is made on %s: untrained, for tests", target)
    return CogVideoXBackbone(
        spec,
        transformer,
        autoencoder,
        prompts(spec.architecture.text_tokens, device=target, dtype=dtype, folder=cache),
        identity=identity(settings, target, config),
        device=target,
        settings=settings,
        said=said,
    )


def identity(
    settings: LoadSettings, device: torch.device, config: Mapping[str, Any] = TRANSFORMER
) -> str:
    """Return the digest of everything that decides its bits."""
    facts = [_VERSION, config, VAE, TEXT, asdict(settings), device.type]
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def prompts(
    length: int, *, device: torch.device, dtype: torch.dtype, folder: Path | None = None
) -> Prompts:
    """Return prompts by a tiny T5 and a tokenizer of its own."""
    words = tokenizer()

    def make_encoder() -> nn.Module:
        config = T5Config(vocab_size=len(words), **TEXT)
        encoder: nn.Module = build_on_meta(lambda: T5EncoderModel(config))
        fill(encoder, "text", device=device, dtype=dtype)
        return encoder

    return Prompts(
        make_encoder,
        words,
        length,
        identity=f"tiny {_VERSION} {dtype} {device.type}",
        folder=None if folder is None else folder / "prompts",
    )


def tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer of the kind T5 has: pieces by their likelihood, bytes for the rest."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    pieces += [(letter, -6.0) for letter in string.printable[:94]]
    pairs = (
        "".join(pair) for pair in product("▁" + string.ascii_lowercase, string.ascii_lowercase)
    )
    pieces += [(pair, -8.0) for pair in pairs]
    pieces += [(f"▁{word}", -9.0) for word in _WORDS]
    made = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    made.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()]
    )
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def fill(module: nn.Module, name: str, *, device: torch.device, dtype: torch.dtype) -> None:
    """Give a model that was built on the meta device its weights, in place.

    Matrices keep the size of what goes through them, norms stay near one, nothing is zero: what
    comes out depends on everything that goes in.

    Args:
        module: The model.
        name: Seeds its weights, together with their own names.
        device: Where they are to lie.
        dtype: Their type.
    """
    done: dict[int, str] = {}
    names: dict[int, list[str]] = {}
    for other, one in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(one), []).append(other)
    for key, tensor in module.state_dict(keep_vars=True).items():
        same = done.setdefault(id(tensor), key)
        if same != key:
            continue
        drawn = torch.from_numpy(_drawn(f"{name}/{key}", tuple(tensor.shape)))
        others = tuple(other for other in names.get(id(tensor), ()) if other != key)
        put(module, key, drawn.to(device=device, dtype=dtype), also=others)
    module.eval()


def _drawn(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a tensor's weights."""
    seed = hashlib.blake2b(f"{_VERSION} {name}".encode(), digest_size=8).digest()
    normal = np.random.Generator(np.random.PCG64(int.from_bytes(seed, "little")))
    drawn = normal.standard_normal(shape)
    if len(shape) > 1:
        drawn /= np.sqrt(np.prod(shape[1:]))
    elif name.endswith("bias"):
        drawn *= 0.1
    else:
        drawn = 1 + 0.1 * drawn
    return drawn.astype(np.float32)
