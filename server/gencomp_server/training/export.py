# SPDX-License-Identifier: Apache-2.0
"""Trained weights in the form in which they are installed.

==============  ================================================================================
full            ``OUT/weights/diffusion_pytorch_model.safetensors``, every tensor by its published
                name: the file of the sets ``overplusplus``, ``casper`` and ``splitthenmerge``
gencompositor   ``OUT/weights/transformer/`` and ``OUT/weights/branch/``, as its set has them
LoRA            ``OUT/weights/pytorch_lora_weights.safetensors``, as ``models/lora.py`` reads it;
                beside it the whole weights with the LoRA added
==============  ================================================================================
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from gencomp_server.models import lora
from gencomp_server.models.trainable import Trainable, plain_state
from gencomp_server.training.checkpoint import unwritable

if TYPE_CHECKING:
    from gencomp_server.backbones import BackboneSpec

WHOLE = "diffusion_pytorch_model.safetensors"
LORA = "pytorch_lora_weights.safetensors"
_PARTS = {"main.": "transformer", "branch.": "branch"}


def write_weights(
    model: Trainable,
    learnt: Mapping[str, nn.Parameter],
    spec: BackboneSpec,
    out: Path,
) -> tuple[Path, ...]:
    """Write what was trained.

    Args:
        model: The model.
        learnt: What learnt, by name; of a LoRA by the names of its file.
        spec: What backbone it is. A full-size one's weights are written in bf16, as published.
        out: The training's folder.

    Returns:
        The files.

    Raises:
        DiskFull, UnwritableOutput: They cannot be written.
    """
    folder = out / "weights"
    state, written = plain_state(model), []
    factors = {name: one.detach() for name, one in learnt.items() if ".lora_" in name}
    if factors:
        plain = {name: one.cpu() for name, one in factors.items()}
        written.append(_write(folder / LORA, plain, torch.float32))
        state = lora.merge(_on_cpu(state), plain, source=str(folder / LORA))
    dtype = torch.float32 if spec.is_tiny else torch.bfloat16
    if spec.family != "gencompositor":
        return (*written, _write(folder / WHOLE, state, dtype))
    for beginning, place in _PARTS.items():
        own = {
            name.removeprefix(beginning): one
            for name, one in state.items()
            if name.startswith(beginning)
        }
        written.append(_write(folder / place / WHOLE, own, dtype))
    return (*written, *_write_configs(model, folder))


def _write_configs(model: Trainable, folder: Path) -> tuple[Path, ...]:
    """Write what GenCompositor's loader reads beside its weights: the layout of positions too."""
    from gencomp_server.models import gencompositor

    files = []
    for part, plain in gencompositor.written(model.transformer, model.layout).items():
        file = folder / _PARTS[f"{part}."] / "config.json"
        try:
            file.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise unwritable(file, error) from error
        files.append(file)
    return tuple(files)


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: one.detach().cpu() for name, one in state.items()}


def _write(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Path:
    """Write tensors, whole or not at all."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    plain = {
        name: (one.detach().to("cpu", dtype) if one.is_floating_point() else one.cpu())
        .contiguous()
        .clone()
        for name, one in tensors.items()
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(plain, part)
        os.replace(part, path)
    except (OSError, SafetensorError) as error:
        part.unlink(missing_ok=True)
        raise unwritable(path, error) from error
    return path
