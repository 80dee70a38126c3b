# SPDX-License-Identifier: Apache-2.0
"""Where a training of GenCompositor starts that has no GenCompositor: image to video's own weights.

================  =================================================================================
main network      image to video's tensors, all of them; the element's projection is a copy of the
                  columns that read the image
branch            its first blocks; the mask's column is zero, and so is what the blocks give to the
                  main network: the branch says nothing until it has learnt to
positions         tables made anew: the main network's is of twice the height
================  =================================================================================

Sources: GenCompositor appendix D, which builds on CogVideoX image to video and trains it anew; the
rest is a choice of ours, as nothing was published.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel
from torch import Tensor

from gencomp_server.models.gencompositor_network import MASK_CHANNELS, GenCompositor
from gencomp_server.models.loading import build_on_meta, load_into, put

_POSITIONS = "patch_embed.pos_embedding"
_SILENT = ("branch_blocks.", "branch_x_embedder.")


def start(
    networks: GenCompositor,
    place: Any,
    config: Mapping[str, Any],
    *,
    title: str,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Fill networks that were built on the meta device with image to video's weights, in place.

    Args:
        networks: Both networks.
        place: File or folder of image to video's transformer; it is read strictly.
        config: What that is built from.
        title: What it is called in a sentence.
        device: Where weights are to lie.
        dtype: Their type.

    Raises:
        WeightsMissing: Nothing is there.
        WeightsRefused: It cannot be read or does not fit.
    """
    base = build_on_meta(lambda: CogVideoXTransformer3DModel(**config))
    load_into(base, place, title=title, device="cpu", dtype=dtype)
    state = base.state_dict()
    tables = {
        f"main.{_POSITIONS}": _table(networks.main.patch_embed, 2),
        f"branch.{_POSITIONS}": _table(networks.branch.patch_embed, 1),
    }
    for name, tensor in _begun(networks, state):
        taken = tables.get(name, tensor)
        assert taken is not None, name
        put(networks, name, taken.to(device=device, dtype=dtype).clone())
    networks.eval()


def _begun(
    networks: GenCompositor, state: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor | None]]:
    """Yield every tensor's name, and what it starts as; None for tables."""
    projection = state["patch_embed.proj.weight"]
    image = projection.shape[1] // 2
    for name, wanted in networks.state_dict().items():
        network, _, own = name.partition(".")
        if own == _POSITIONS:
            yield name, None
        elif own.startswith("patch_embed.fg_proj."):
            copied = state[own.replace("fg_proj", "proj")]
            yield name, copied[:, image:] if copied.ndim > 1 else copied
        elif network == "branch" and own == "patch_embed.proj.weight":
            mask = torch.zeros_like(projection[:, :MASK_CHANNELS])
            yield name, torch.cat([projection, mask], dim=1)
        elif own.startswith(_SILENT):
            yield name, torch.zeros(wanted.shape)
        else:
            yield name, state[own]


def _table(layer: Any, times: int) -> Tensor:
    """Return the table of positions of a picture of so many times the height."""
    made: Tensor = layer._get_positional_embeddings(
        times * layer.sample_height, layer.sample_width, layer.sample_frames, device="cpu"
    )
    return made.float()
