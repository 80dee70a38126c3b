# SPDX-License-Identifier: Apache-2.0
"""Add a LoRA to the weights that it was trained on: ``W + weight · alpha / rank · up @ down``.

Two spellings are read. Kohya's joins a module's path with underscores
(``lora_unet__blocks_0_self_attn_q.lora_up.weight``, with ``.alpha``); that of diffusers and PEFT
keeps the dots (``transformer.blocks.0.attn1.to_q.lora_B.weight``). Merging is strict: a LoRA of
another model must not pass for one that changes nothing.

Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, §4.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gencomp_protocol.errors import WeightsRefused
from gencomp_server.models.loading import read_tensors, tensors_in

_ENDINGS = {
    ".lora_up.weight": "up",
    ".lora_down.weight": "down",
    ".lora.up.weight": "up",
    ".lora.down.weight": "down",
    ".lora_B.weight": "up",
    ".lora_A.weight": "down",
    ".lora_B.default.weight": "up",
    ".lora_A.default.weight": "down",
    ".alpha": "alpha",
}
_DOTTED = ("base_model.model.", "transformer.", "diffusion_model.", "")
_JOINED = ("lora_unet__", "lora_unet_", "lora_transformer_")


@dataclass(frozen=True)
class _Pair:
    """The two factors of one module's change; ``alpha`` is its rank where the file has none."""

    up: Tensor
    down: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return int(self.down.shape[0])

    def change(self, shape: torch.Size) -> Tensor:
        """Return what is added at weight 1, in the target's shape. float32."""
        product = self.up.float().flatten(1) @ self.down.float().flatten(1)
        return product.reshape(shape) * (self.alpha / self.rank)


class Lora:
    """A LoRA whose every part has found the weight that it changes.

    Args:
        tensors: The LoRA's tensors, as its file names them.
        names: What the base's file calls each weight, by the model's name for it; a part of the
            LoRA may speak of either.
        weight: How much of it, 1 is as trained.
        source: The LoRA's file, for sentences.

    Raises:
        WeightsRefused: A key is of no known kind, or finds no weight.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        names: Mapping[str, str],
        weight: float = 1.0,
        *,
        source: str,
    ) -> None:
        self._weight, self._source = weight, source
        self._pairs: dict[str, _Pair] = {}
        modules = _modules(names)
        for name, pair in _pairs(tensors, source).items():
            target = _find(name, modules)
            if target is None or target in self._pairs:
                what = "there is no layer for its" if target is None else "it changes twice the"
                raise WeightsRefused(
                    f"The LoRA {source} is of another model: {what} '{name}'.",
                    hint="Install the LoRA that belongs to this base, and the base as published.",
                    file=source,
                )
            self._pairs[target] = pair

    def apply(self, name: str, tensor: Tensor) -> Tensor:
        """Return a weight with its change added, in its own type; others as they are.

        Args:
            name: The model's name for it.
            tensor: The weight; what is added is computed in float32.

        Raises:
            WeightsRefused: The LoRA's part does not fit it.
        """
        pair = self._pairs.get(name)
        if pair is None:
            return tensor
        _check_fit(pair, tensor, name, self._source)
        changed = tensor.float() + self._weight * pair.change(tensor.shape)
        return changed.to(tensor.dtype)


def load(file: Path, names: Mapping[str, str], weight: float = 1.0) -> Lora:
    """Read a LoRA for a model; see :class:`Lora`.

    Raises:
        WeightsMissing: It is not there.
        WeightsRefused: It is damaged, or of another model.
    """
    found = tensors_in(file)
    tensors = dict(read_tensors({name: name for name in found}, found))
    return Lora(tensors, names, weight, source=str(file))


def merge(
    state: Mapping[str, Tensor], tensors: Mapping[str, Tensor], weight: float = 1.0, *, source: str
) -> dict[str, Tensor]:
    """Return weights with a LoRA added: :class:`Lora` for weights that are all in memory.

    Raises:
        WeightsRefused: A key of the LoRA is of no known kind, finds no weight, or does not fit it.
    """
    lora = Lora(tensors, {name: name for name in state}, weight, source=source)
    return {name: lora.apply(name, tensor) for name, tensor in state.items()}


def _modules(names: Mapping[str, str]) -> dict[str, str]:
    """Return the model's name of a weight by every way a LoRA may spell its module."""
    modules: dict[str, str] = {}
    for name, stored_as in names.items():
        for spelt in (name, stored_as):
            if spelt.endswith(".weight"):
                path = spelt.removesuffix(".weight")
                modules[path] = name
                modules[path.replace(".", "_")] = name
    return modules


def _find(name: str, modules: Mapping[str, str]) -> str | None:
    for prefix in (*_DOTTED, *_JOINED):
        if name.startswith(prefix) and name.removeprefix(prefix) in modules:
            return modules[name.removeprefix(prefix)]
    return None


def _pairs(lora: Mapping[str, Tensor], source: str) -> dict[str, _Pair]:
    """Return the factors by module, every one whole."""
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in lora.items():
        ending = next((one for one in _ENDINGS if key.endswith(one)), None)
        if ending is None:
            raise WeightsRefused(
                f"The LoRA {source} holds '{key}', which is no part of a plain LoRA.",
                hint="Merge it with the tool that made it, and install the merged weights.",
                file=source,
            )
        parts.setdefault(key.removesuffix(ending), {})[_ENDINGS[ending]] = tensor
    if not parts:
        raise WeightsRefused(f"The LoRA {source} is empty.", hint="Install it again.", file=source)
    return {name: _pair(name, found, source) for name, found in parts.items()}


def _pair(name: str, found: Mapping[str, Tensor], source: str) -> _Pair:
    if "up" not in found or "down" not in found:
        raise WeightsRefused(
            f"The LoRA {source} holds only one half of '{name}'.",
            hint="Install it again.",
            file=source,
        )
    rank = found["down"].shape[0]
    alpha = float(found["alpha"]) if "alpha" in found else float(rank)
    return _Pair(found["up"], found["down"], alpha)


def _check_fit(pair: _Pair, before: Tensor, name: str, source: str) -> None:
    made = (pair.up.shape[0], pair.down.flatten(1).shape[1])
    wanted = (before.shape[0], before.flatten(1).shape[1] if before.dim() > 1 else -1)
    if made != wanted or pair.up.flatten(1).shape[1] != pair.rank:
        raise WeightsRefused(
            f"The LoRA {source} does not fit: it changes {made[0]}x{made[1]} of '{name}', which is "
            f"{'x'.join(str(side) for side in before.shape)}.",
            hint="Install the LoRA that belongs to this base.",
            file=source,
        )
