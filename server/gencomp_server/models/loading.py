# SPDX-License-Identifier: Apache-2.0
"""Weights from safetensors into a model, strictly, and with no more memory than they take.

A model is built on torch's meta device, where tensors have shapes and no memory. What its files
hold is then read from their headers alone and compared name by name, shape by shape, type by type;
only where all agree is a number read, one tensor at a time, straight from the mapped file to where
it is to lie.

Nothing but safetensors is read. A pickle may run code as it is opened: it is known by its first
bytes, not by its name, and refused with the way to convert it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from gencomp_protocol.errors import WeightsMissing, WeightsRefused
from gencomp_server import weights_progress
from gencomp_server.tensorfile import (
    INSTALL,
    Stored,
    is_pickle,
    missing,
    read_header,
    shards,
)

log = logging.getLogger(__name__)

_FLOATS = {"F32": 4, "F16": 2, "BF16": 2}
# What of every tensor a fingerprint reads; a training step changes all of them.
_FINGERPRINT_BYTES = 4096
_FIRST_NAMES = ("diffusion_pytorch_model.safetensors", "model.safetensors")
_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".distcp")

Model = TypeVar("Model")


@dataclass(frozen=True)
class LoadSettings:
    """How a backbone is loaded; every default is exact.

    Attributes:
        compiled: True to compile the transformer's blocks.
        attention: Attention kernels: ``native``, ``cudnn``, ``flash`` or ``sage``.
        cached_steps: Share of change below which a step is reused; 0 computes every step.
        precision: ``exact`` or ``fp8``.
        offload: Where weights wait while they are not needed: ``none``, ``model`` or ``group``.
        tiling: True to decode in tiles with blended seams.
        encode_tiling: True to encode in tiles too.
    """

    compiled: bool = False
    attention: str = "native"
    cached_steps: float = 0.0
    precision: str = "exact"
    offload: str = "none"
    tiling: bool = False
    encode_tiling: bool = False


def stay_offline() -> None:
    """Tell the model libraries, before they are imported, that there is no network."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["DIFFUSERS_DISABLE_REMOTE_CODE"] = "true"


def compute_dtype(device: torch.device | str) -> torch.dtype:
    """Return what weights are held in on a device: bf16 on a GPU, float32 on a processor."""
    return torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16


def build_on_meta(make: Callable[[], Model]) -> Model:
    """Build a model without memory for its weights."""
    with torch.device("meta"):
        return make()


# --- what files hold -----------------------------------------------------------------------------


def tensors_in(place: Path) -> dict[str, Stored]:
    """Return what a safetensors file, an index of shards, or a folder with either holds.

    Raises:
        WeightsMissing: Nothing is there, or a shard is not.
        WeightsRefused: What is there cannot be read; names the file.
    """
    tensors: dict[str, Stored] = {}
    for file in _files(place):
        for name, one in read_header(file).items():
            if name in tensors:
                raise WeightsRefused(
                    f"The weights in {place} hold '{name}' twice: in {tensors[name].file.name} "
                    f"and in {file.name}.",
                    hint="Leave one set of weights in the folder.",
                )
            tensors[name] = one
    return tensors


def _files(place: Path) -> list[Path]:
    if place.is_dir():
        return _files_of_folder(place)
    if place.name.endswith(".index.json"):
        return shards(place)
    return [place]


def _files_of_folder(folder: Path) -> list[Path]:
    indices = sorted(folder.glob("*.safetensors.index.json"))
    found = sorted(folder.glob("*.safetensors"))
    for name in _FIRST_NAMES:
        if folder / name in found:
            return [folder / name]
        if folder / f"{name}.index.json" in indices:
            return shards(folder / f"{name}.index.json")
    if len(indices) == 1:
        return shards(indices[0])
    if len(found) == 1:
        return found
    if found or indices:
        names = ", ".join(one.name for one in (indices or found)[:3])
        raise WeightsRefused(
            f"The folder {folder} holds several weights and none is named "
            f"{' or '.join(_FIRST_NAMES)}: {names}.",
            hint="Leave one set of weights in the folder.",
            file=str(folder),
        )
    pickles = sorted(one for one in folder.glob("*") if one.suffix in _PICKLE_SUFFIXES)
    raise is_pickle(pickles[0]) if pickles else missing(folder / _FIRST_NAMES[0])


def bytes_in(places: Iterable[Path]) -> int:
    """Return the bytes of all numbers that files hold, from their headers.

    Returns:
        0 where one of them is missing or cannot be read: loading it says what is wrong.
    """
    try:
        return sum(one.size for place in places for one in tensors_in(place).values())
    except (WeightsMissing, WeightsRefused):
        return 0


def fingerprint(place: Path) -> str:
    """Return a digest of weights that is quick to compute: headers, and the head of every tensor.

    It tells sets of weights from one another; it does not vouch for them as ``weights verify``
    does.

    Raises:
        WeightsMissing: Nothing is there.
        WeightsRefused: What is there cannot be read.
    """
    tensors = tensors_in(place)
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted({one.file for one in tensors.values()}):
        with file.open("rb") as stream:
            for name, one in sorted(tensors.items()):
                if one.file == file:
                    digest.update(f"{name}\0{one.kind}\0{one.shape}\0".encode())
                    stream.seek(one.first)
                    digest.update(stream.read(min(one.size, _FINGERPRINT_BYTES)))
    return digest.hexdigest()


# --- whether it fits -----------------------------------------------------------------------------


def check_fits(
    module: nn.Module,
    tensors: Mapping[str, Stored],
    *,
    title: str,
    place: Path,
    names: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Compare what files hold with what a model takes, before a number is read.

    Args:
        module: The model, on the meta device or not.
        tensors: What :func:`tensors_in` found.
        title: What the model is called in a sentence.
        place: File or folder, for the sentence.
        names: What the file calls a tensor, by the model's name; the same where not given.

    Returns:
        The file's name of every tensor that is to be read, by the model's name.

    Raises:
        WeightsRefused: They do not fit; names the first difference in the model's own order.
    """
    wanted = module.state_dict()
    twins = _twins(module)
    chosen: dict[str, str] = {}
    for name, tensor in wanted.items():
        stored_as = (names or {}).get(name, name)
        same = twins.get(name, ())
        if any(twin in chosen for twin in same):
            continue
        if stored_as not in tensors:
            if any((names or {}).get(twin, twin) in tensors for twin in same):
                continue
            raise _unfit(title, place, f"'{stored_as}' is missing", tensors)
        one, shape = tensors[stored_as], tuple(tensor.shape)
        if one.shape != shape:
            found, needs = _spell(one.shape), _spell(shape)
            # Only the first layer tells models apart; any other is wrong by itself.
            telling = tensors if stored_as in _FIRST_NAMES_OF_MODELS else {}
            raise _unfit(
                title, one.file, f"'{stored_as}' is {found} where {needs} is needed", telling
            )
        if one.kind not in _FLOATS:
            raise _unfit(
                title,
                one.file,
                f"'{stored_as}' holds {one.kind} where one of {', '.join(_FLOATS)} is needed",
                tensors,
            )
        chosen[name] = stored_as
    known = {(names or {}).get(name, name) for name in wanted}
    extra = next((name for name in tensors if name not in known), None)
    if extra is not None:
        raise _unfit(
            title, tensors[extra].file, f"it holds '{extra}', which that model lacks", tensors
        )
    return chosen


def _twins(module: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return the other names of parameters that a model holds under more than one."""
    by_id: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        by_id.setdefault(id(parameter), []).append(name)
    return {
        name: tuple(other for other in same if other != name)
        for same in by_id.values()
        if len(same) > 1
        for name in same
    }


def _spell(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"


def _unfit(title: str, file: Path, what: str, tensors: Mapping[str, Stored]) -> WeightsRefused:
    looks = looks_like(tensors)
    what_it_is = f": these are weights of {looks}" if looks else ""
    return WeightsRefused(
        f"The weights {file} do not fit {title}, {what}{what_it_is}.",
        hint="gencomp weights list says which file belongs where.",
        file=str(file),
    )


_FIRST_NAMES_OF_MODELS = ("patch_embed.proj.weight", "patch_embedding.weight")
# First layer of what is known, by its weight's shape. Source: the models' published configurations.
_FIRST_LAYERS = {
    (3072, 264): "CogVideoX-Fun V1.5 5B InP or a model trained from it, as Casper is (33 channels)",
    (3072, 384): "a model trained from CogVideoX-Fun V1.5 5B InP with 48 channels, as VOID is",
    (3072, 33, 2, 2): "CogVideoX-Fun V1.1 5B InP (33 channels)",
    (3072, 16, 2, 2): "CogVideoX 5B text to video (16 channels)",
    (3072, 32, 2, 2): "CogVideoX 5B image to video (32 channels)",
    (3072, 48, 2, 2): "Split-then-Merge (48 channels)",
}


def looks_like(tensors: Mapping[str, Stored]) -> str | None:
    """Return what a set of tensors most likely is, in words; None where that cannot be told."""
    if any("lora_" in name or ".lora." in name for name in tensors):
        return "a LoRA, not of a whole model"
    if "patch_embed.fg_proj.weight" in tensors or "branch_blocks.0.weight" in tensors:
        return "GenCompositor"
    first = tensors.get("patch_embed.proj.weight")
    if first is not None:
        return _FIRST_LAYERS.get(first.shape)
    wan = tensors.get("patch_embedding.weight")
    if wan is not None and len(wan.shape) == 5:
        return f"a Wan transformer ({wan.shape[0]} wide, {wan.shape[1]} channels)"
    if "decoder.conv_in.conv.weight" in tensors:
        return "a VAE of CogVideoX"
    if "encoder.block.0.layer.0.SelfAttention.q.weight" in tensors:
        return "a T5 text encoder"
    return None


# --- reading -------------------------------------------------------------------------------------


def load_into(
    module: nn.Module,
    place: Path,
    *,
    title: str,
    device: torch.device | str,
    dtype: torch.dtype,
    names: Mapping[str, str] | None = None,
    change: Callable[[str, torch.Tensor], torch.Tensor] | None = None,
    stage: str = weights_progress.WEIGHTS,
) -> None:
    """Fill a model that was built on the meta device, in place; it is in eval mode afterwards.

    On the CPU a tensor that already has the type wanted stays in the mapped file and takes no
    memory of its own until it is read.

    Args:
        module: The model.
        place: File, index of shards, or folder.
        title: What the model is called in a sentence.
        device: Where its weights are to lie.
        dtype: Their type.
        names: What the file calls a tensor, by the model's name; the same where not given.
        change: Given the model's name and a tensor as read, returns what is taken instead, of the
            same shape.
        stage: What reading it is called to whoever waits, where it is not part of more.

    Raises:
        WeightsMissing: Nothing is there.
        WeightsRefused: It cannot be read or does not fit.
    """
    tensors = tensors_in(place)
    chosen = check_fits(module, tensors, title=title, place=place, names=names)
    twins = _twins(module)
    with weights_progress.stage(stage, sum(tensors[name].size for name in chosen.values())):
        for name, tensor in read_tensors(chosen, tensors):
            taken = tensor if change is None else change(name, tensor)
            placed = taken.to(device=device, dtype=dtype)
            put(module, name, placed, also=tuple(t for t in twins.get(name, ()) if t not in chosen))
    left = [name for name, one in module.state_dict().items() if one.is_meta]
    assert not left, left
    module.eval()


def read_tensors(
    chosen: Mapping[str, str], tensors: Mapping[str, Stored]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the model's name and the tensor, file by file.

    Args:
        chosen: The file's name of every tensor that is to be read, by the model's name.
        tensors: What :func:`tensors_in` found.

    Raises:
        WeightsRefused: A file cannot be read; names it.
    """
    for file in sorted({tensors[stored_as].file for stored_as in chosen.values()}):
        try:
            with safe_open(file, "pt", device="cpu") as opened:
                for name, stored_as in chosen.items():
                    if tensors[stored_as].file == file:
                        yield name, opened.get_tensor(stored_as)
                        weights_progress.read(tensors[stored_as].size)
        except (SafetensorError, OSError) as error:
            raise WeightsRefused(
                f"The weights file {file} is damaged ({error}).", hint=INSTALL, file=str(file)
            ) from error


def put(module: nn.Module, name: str, tensor: torch.Tensor, also: tuple[str, ...] = ()) -> None:
    """Put a tensor in a model's place for it, and the same one in its other places."""
    parameter = nn.Parameter(tensor, requires_grad=False)
    for path in (name, *also):
        owner_path, _, leaf = path.rpartition(".")
        owner = module.get_submodule(owner_path)
        if leaf in owner._buffers:
            owner._buffers[leaf] = tensor
        else:
            owner._parameters[leaf] = parameter


def not_finite_in(place: Path) -> tuple[Path, str] | None:
    """Return the first file and tensor that hold NaN or infinity; None where all are finite.

    It reads every number, which takes seconds a few GB: for after something went wrong.

    Raises:
        WeightsMissing: Nothing is there.
        WeightsRefused: It cannot be read.
    """
    tensors = tensors_in(place)
    for name, tensor in read_tensors({name: name for name in tensors}, tensors):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return tensors[name].file, name
    return None


def read_config(file: Path) -> dict[str, Any]:
    """Return a model's published configuration.

    Raises:
        WeightsMissing: There is no such file.
        WeightsRefused: It is not a JSON object, or asks for kernels of a hub.
    """
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise missing(file) from error
    except (OSError, ValueError) as error:
        raise WeightsRefused(f"The configuration {file} cannot be read.", hint=INSTALL) from error
    if not isinstance(plain, dict):
        raise WeightsRefused(f"The configuration {file} is no JSON object.", hint=INSTALL)
    _refuse_kernels(plain, file)
    return plain


def _refuse_kernels(plain: Mapping[str, Any], file: Path) -> None:
    """Refuse what would have a library fetch compiled code and run it.

    Code that a configuration names (``auto_map``) needs no such care: whoever reads one asks for a
    class of the library's own.

    Raises:
        WeightsRefused: The configuration, or a part of it, asks for kernels of a hub.
    """
    for key, value in plain.items():
        if isinstance(value, Mapping):
            _refuse_kernels(value, file)
        is_named = "attn_implementation" in key and "/" in str(value)
        if is_named or (key in ("use_kernels", "kernel_config") and value):
            raise WeightsRefused(
                f"The configuration {file} asks for kernels of a hub ({key}: {value}), which are "
                "somebody else's code.",
                hint=f"Remove {key} from it; the knob attention chooses kernels installed here.",
                file=str(file),
            )
