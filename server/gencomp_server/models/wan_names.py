# SPDX-License-Identifier: Apache-2.0
"""Wan 2.1 as it is published, in the words of the classes that compute it.

Transformer, VAE and text encoder of Wan have names and configurations of their own; the classes
here are those of diffusers and transformers. A table says what the file calls each tensor; whether
shapes fit and nothing is left over is the loader's to check, which is what makes a wrong table
fail.

Sources: for transformer and VAE diffusers' own tables for single files; for the text encoder, and
its sizes, the public configuration of Wan 2.1 in github aigc-apps/VideoX-Fun.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKLWan, WanTransformer3DModel
from diffusers.loaders.single_file_utils import (
    convert_wan_transformer_to_diffusers,
    convert_wan_vae_to_diffusers,
)

from gencomp_protocol.errors import WeightsRefused

IMAGE_WIDTH = 1280
"""Width of the picture embedding that an image branch takes."""

UMT5_XXL: Mapping[str, Any] = {
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_heads": 64,
    "num_layers": 24,
    "relative_attention_num_buckets": 32,
    "feed_forward_proj": "gated-gelu",
    "dropout_rate": 0.0,
}
"""Configuration of Wan's text encoder, whose own file brings none."""

VAE_SIZES: Mapping[str, Any] = {}
"""What Wan's VAE has otherwise than diffusers' class by default: nothing."""

# A tensor of each that no other naming has.
_TRANSFORMER_MARK = "head.head.weight"
_VAE_MARK = "decoder.head.2.weight"
_TEXT_MARK = "token_embedding.weight"

_TEXT_TABLE = (
    (r"shared\.weight", "token_embedding.weight"),
    (r"encoder\.embed_tokens\.weight", "token_embedding.weight"),
    (r"encoder\.final_layer_norm\.weight", "norm.weight"),
    (
        r"encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.([qkvo])\.weight",
        r"blocks.\1.attn.\2.weight",
    ),
    (
        r"encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.relative_attention_bias\.weight",
        r"blocks.\1.pos_embedding.embedding.weight",
    ),
    (r"encoder\.block\.(\d+)\.layer\.0\.layer_norm\.weight", r"blocks.\1.norm1.weight"),
    (r"encoder\.block\.(\d+)\.layer\.1\.layer_norm\.weight", r"blocks.\1.norm2.weight"),
    (
        r"encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_0\.weight",
        r"blocks.\1.ffn.gate.0.weight",
    ),
    (r"encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wi_1\.weight", r"blocks.\1.ffn.fc1.weight"),
    (r"encoder\.block\.(\d+)\.layer\.1\.DenseReluDense\.wo\.weight", r"blocks.\1.ffn.fc2.weight"),
)


def transformer_names(stored: Iterable[str]) -> dict[str, str]:
    """Return what a file calls each tensor of a transformer, by diffusers' name for it.

    Args:
        stored: The file's names, Wan's or diffusers' own.
    """
    names = set(stored)
    if _TRANSFORMER_MARK not in names:
        return {}
    # The table moves values from name to name; here the values are the names themselves.
    made: dict[str, str] = convert_wan_transformer_to_diffusers({name: name for name in names})
    return made


def vae_names(stored: Iterable[str]) -> dict[str, str]:
    """Return what a file calls each tensor of a VAE, by diffusers' name for it."""
    names = set(stored)
    if _VAE_MARK not in names:
        return {}
    made: dict[str, str] = convert_wan_vae_to_diffusers({name: name for name in names})
    return made


def text_names(stored: Iterable[str], wanted: Iterable[str]) -> dict[str, str]:
    """Return what a file calls each tensor of a text encoder, by transformers' name for it."""
    if _TEXT_MARK not in set(stored):
        return {}
    return {name: _text_name(name) for name in wanted}


def _text_name(name: str) -> str:
    for pattern, replacement in _TEXT_TABLE:
        found = re.fullmatch(pattern, name)
        if found:
            return found.expand(replacement)
    return name


def transformer_sizes(plain: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Return the arguments of diffusers' class out of a published configuration.

    Args:
        plain: The configuration, Wan's or diffusers' own.
        file: Where it is from, for the sentence.

    Raises:
        WeightsRefused: It is of another kind of model.
    """
    known = set(inspect.signature(WanTransformer3DModel.__init__).parameters)
    if "num_attention_heads" in plain:
        sizes = {name: value for name, value in plain.items() if name in known}
        if "patch_size" in sizes:
            sizes["patch_size"] = tuple(sizes["patch_size"])
        return sizes
    try:
        width, heads = int(plain["dim"]), int(plain["num_heads"])
        with_image = plain.get("model_type", "t2v") == "i2v"
        return {
            "patch_size": tuple(plain.get("patch_size", (1, 2, 2))),
            "num_attention_heads": heads,
            "attention_head_dim": width // heads,
            # VideoX-Fun's own files may name either.
            "in_channels": int(plain["in_dim"] if "in_dim" in plain else plain["in_channels"]),
            "out_channels": int(plain.get("out_dim", 16)),
            "text_dim": int(plain.get("text_dim", 4096)),
            "freq_dim": int(plain["freq_dim"]),
            "ffn_dim": int(plain["ffn_dim"]),
            "num_layers": int(plain["num_layers"]),
            "eps": float(plain.get("eps", 1e-6)),
            "image_dim": IMAGE_WIDTH if with_image else None,
            "added_kv_proj_dim": width if with_image else None,
        }
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise WeightsRefused(
            f"The configuration {file} is not of a Wan transformer ({error}).",
            hint="Copy config.json again from where the model was published.",
            file=str(file),
        ) from error


def vae_sizes(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of diffusers' class out of a published configuration."""
    known = set(inspect.signature(AutoencoderKLWan.__init__).parameters)
    return {name: value for name, value in plain.items() if name in known}
