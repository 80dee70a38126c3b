# SPDX-License-Identifier: Apache-2.0
"""Turn a published or trained checkpoint into one safetensors file, in a process of its own.

::

    python -m gencomp_server.models.convert SRC DST

Taken are a ``.pt``, ``.pth``, ``.bin`` or ``.ckpt`` file, a folder of shards with an index (as
accelerate and transformers write them), and a folder of ``torch.distributed.checkpoint`` shards
(FSDP). Nothing in them is run: pickles are read with ``weights_only``, and the ``.metadata`` of a
sharded checkpoint, which torch itself reads as a plain pickle, through an unpickler that knows the
few classes that belong there. What is not a tensor is left out and named in the report.

The process writes one JSON line: ``{"report": {...}}``, or ``{"error": {...}}`` as on the wire.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import sys
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch.distributed import checkpoint
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

from gencomp_protocol.errors import (
    BadKnob,
    DiskFull,
    GencompError,
    UnwritableOutput,
    WeightsMissing,
    WeightsRefused,
)
from gencomp_server.tensorfile import is_shard_name

PICKLES = (".pt", ".pth", ".bin", ".ckpt")
WRAPPERS = ("state_dict", "module", "model")
"""Keys that a training loop puts around the weights."""
PREFIXES = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")
"""What wrapping modules put before every name: data parallel, compiled, sharded."""

_METADATA = ".metadata"
_IN_METADATA = {
    "torch.distributed.checkpoint.metadata": {
        "BytesStorageMetadata",
        "ChunkStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size"},
    "collections": {"OrderedDict"},
    "pathlib": {"Path", "PosixPath", "PurePosixPath"},
}


@dataclass(frozen=True)
class Report:
    """What a conversion did.

    Attributes:
        source: What was read.
        destination: The file written.
        tensors: How many tensors it holds.
        size: Its bytes.
        unwrapped: What was taken from around the weights: keys and prefixes.
        left_out: Names that are no tensors, or lie beside the weights.
    """

    source: str
    destination: str
    tensors: int
    size: int
    unwrapped: tuple[str, ...]
    left_out: tuple[str, ...]


def convert(source: Path, destination: Path) -> Report:
    """Write the tensors of a checkpoint to a new safetensors file, whole or not at all.

    Args:
        source: File or folder, as above.
        destination: ``*.safetensors``; must not exist, its folder is made.

    Raises:
        BadKnob: The destination is not such a name.
        WeightsMissing: The source is not there.
        WeightsRefused: The source is damaged, holds more than tensors, or is of no known kind.
        UnwritableOutput: The destination is taken or cannot be written.
        DiskFull: There is no room.
    """
    if destination.suffix != ".safetensors":
        raise BadKnob(
            f"The destination {destination} does not end in .safetensors.",
            hint="Name a file that does; it is what the server reads.",
        )
    _refuse_taken(destination)
    tensors, unwrapped, left_out = _plain(_read(source), source)
    _write(tensors, destination)
    return Report(
        str(source),
        str(destination),
        len(tensors),
        destination.stat().st_size,
        tuple(unwrapped),
        tuple(left_out),
    )


# --- reading -------------------------------------------------------------------------------------


def _read(source: Path) -> Mapping[str, Any]:
    if not source.exists():
        raise WeightsMissing(f"There is no checkpoint {source}.", hint="Check its path.")
    try:
        if source.is_dir():
            return _read_folder(source)
        if source.suffix in PICKLES:
            return _read_pickle(source)
    except OSError as error:
        raise WeightsRefused(
            f"The checkpoint {source} cannot be read ({error.strerror or error}).",
            hint="Check who owns it and whether its disk is mounted.",
        ) from error
    raise WeightsRefused(
        f"The file {source} is no kind of checkpoint that can be converted.",
        hint=f"Taken are {', '.join(PICKLES)}, a folder of shards with its index, and a folder of "
        "FSDP shards with its .metadata.",
    )


def _read_folder(source: Path) -> Mapping[str, Any]:
    if (source / _METADATA).is_file():
        return _read_distributed(source)
    indices = sorted(source.glob("*.index.json"))
    if len(indices) == 1:
        return _read_sharded(indices[0])
    found = f"{len(indices)} indices" if indices else "neither an index nor a .metadata"
    raise WeightsRefused(
        f"The folder {source} is no sharded checkpoint: it has {found}.",
        hint="Name the folder that the shards and their one index lie in, or a single file.",
    )


def _read_pickle(path: Path) -> Mapping[str, Any]:
    whole = zipfile.is_zipfile(path)
    if not whole and _begins_as_zip(path):
        raise _damaged(path, "it is cut short")
    try:
        with warnings.catch_warnings():
            # Of another protocol than its own torch warns, and then refuses what it cannot read.
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=whole or None)
    except pickle.UnpicklingError as error:
        raise _not_only_tensors(path, error) from error
    except (RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise _damaged(path, _first_line(error)) from error
    if not isinstance(loaded, Mapping):
        raise WeightsRefused(
            f"The checkpoint {path} holds a {type(loaded).__name__}, not named tensors.",
            hint="Save the model's state_dict instead.",
        )
    return loaded


def _begins_as_zip(path: Path) -> bool:
    with open(path, "rb") as source:
        return source.read(2) == b"PK"


def _damaged(path: Path, why: str) -> WeightsRefused:
    return WeightsRefused(
        f"The checkpoint {path} is damaged ({why}).",
        hint="Get it again; compare its size with the one published.",
    )


def _not_only_tensors(path: Path, error: Exception) -> WeightsRefused:
    named = re.search(r"(?:GLOBAL|Unsupported (?:class|global):?)\s+([\w.]+)", str(error))
    what = f" ({named.group(1)})" if named else ""
    return WeightsRefused(
        f"The checkpoint {path} holds more than tensors{what}, which would run as a program when "
        "it is opened.",
        hint="It is not opened. Ask for a file that holds the state_dict alone.",
    )


def _read_sharded(index: Path) -> Mapping[str, Any]:
    """Read the shards that an index names; every name it lists must be there, and no other."""
    try:
        where: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted({str(name) for name in where.values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsRefused(
            f"The index {index} cannot be understood ({error}).", hint="Get it again."
        ) from error
    found: dict[str, Any] = {}
    for shard in shards:
        path = index.parent / shard
        if not is_shard_name(shard):
            raise WeightsRefused(
                f"The index {index} names no weights file beside it: {ascii(shard)[1:-1]}.",
                hint="Get it again.",
            )
        if not path.is_file():
            raise WeightsMissing(
                f"The shard {shard} that {index} names is not beside it.",
                hint="Copy all shards into one folder.",
            )
        found.update(
            _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
        )
    if set(found) != set(where):
        odd = sorted(set(found) ^ set(where))[0]
        raise WeightsRefused(
            f"The shards of {index} do not hold what it lists: '{odd}' is on one side only.",
            hint="Shards of two checkpoints may have been mixed; get them again.",
        )
    return found


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        tensors: dict[str, torch.Tensor] = safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise WeightsRefused(
            f"The shard {path} is damaged ({error}).", hint="Get it again."
        ) from error
    return tensors


class _Unpickler(pickle.Unpickler):
    """Knows what belongs in a ``.metadata`` and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a class that belongs there, or a dtype.

        Raises:
            UnpicklingError: It is something else.
        """
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or name in _IN_METADATA.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")


def _read_distributed(folder: Path) -> Mapping[str, Any]:
    """Read the tensors of a folder of FSDP shards; other values are None, never unpickled."""
    metadata = _read_metadata(folder / _METADATA)
    sizes = {
        name: facts
        for name, facts in metadata.state_dict_metadata.items()
        if isinstance(facts, TensorStorageMetadata)
    }
    wanted = {
        name: torch.empty(facts.size, dtype=facts.properties.dtype) for name, facts in sizes.items()
    }
    reader: Any = checkpoint.FileSystemReader(folder)
    # Its own way would open the file again, as a plain pickle.
    reader.read_metadata = lambda *_, **__: metadata
    try:
        with warnings.catch_warnings():
            # One process is all there is, and meant.
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            checkpoint.load(
                wanted,
                storage_reader=reader,
                planner=checkpoint.DefaultLoadPlanner(),
                no_dist=True,
            )
    except pickle.UnpicklingError as error:
        raise _not_only_tensors(folder, error) from error
    except (
        checkpoint.CheckpointException,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        AssertionError,
    ) as error:
        raise WeightsRefused(
            f"The shards in {folder} are damaged or not all there ({_first_line(error)}).",
            hint="Copy the folder again, every .distcp with its .metadata.",
        ) from error
    others: dict[str, Any] = dict.fromkeys(set(metadata.state_dict_metadata) - set(sizes))
    return _nested({**wanted, **others}, metadata.planner_data or {})


def _read_metadata(path: Path) -> Metadata:
    try:
        with open(path, "rb") as source:
            metadata = _Unpickler(source).load()
    except pickle.UnpicklingError as error:
        raise _not_only_tensors(path, error) from error
    except (EOFError, ValueError, AttributeError, TypeError, IndexError) as error:
        raise WeightsRefused(f"{path} is damaged ({error}).", hint="Get it again.") from error
    if not isinstance(metadata, Metadata) or not isinstance(metadata.storage_data, dict):
        raise WeightsRefused(
            f"{path} does not describe a sharded checkpoint.", hint="Name the folder of shards."
        )
    for facts in metadata.storage_data.values():
        if PurePath(str(facts.relative_path)).name != str(facts.relative_path):
            raise WeightsRefused(
                f"{path} names a shard outside its folder ({facts.relative_path}).",
                hint="Get it again from where it was published.",
            )
    return metadata


def _nested(flat: Mapping[str, Any], paths: Mapping[str, Any]) -> dict[str, Any]:
    """Return a flat checkpoint with its outermost keys as maps: ``model`` and ``optimizer``."""
    found: dict[str, Any] = {}
    for name, value in flat.items():
        path = tuple(str(part) for part in paths.get(name, (name,)))
        if len(path) == 1:
            found[path[0]] = value
        else:
            found.setdefault(path[0], {})[".".join(path[1:])] = value
    return found


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).strip()[:160]


# --- unwrapping ----------------------------------------------------------------------------------


def _plain(
    loaded: Mapping[str, Any], source: Path
) -> tuple[dict[str, torch.Tensor], list[str], list[str]]:
    """Return the named tensors, what was unwrapped and what was left out."""
    unwrapped: list[str] = []
    left_out: list[str] = []
    while (wrapper := _wrapper(loaded)) is not None:
        unwrapped.append(wrapper)
        left_out += [str(name) for name in loaded if name != wrapper]
        loaded = loaded[wrapper]
    tensors = {str(name): one for name, one in loaded.items() if isinstance(one, torch.Tensor)}
    left_out += [str(name) for name, one in loaded.items() if not isinstance(one, torch.Tensor)]
    if not tensors:
        raise WeightsRefused(
            f"The checkpoint {source} holds no tensors at its top.",
            hint=f"It holds: {', '.join(left_out[:8]) or 'nothing'}.",
        )
    while (prefix := _prefix(tensors)) is not None:
        unwrapped.append(prefix)
        tensors = {name.removeprefix(prefix): one for name, one in tensors.items()}
    for name, one in tensors.items():
        if one.layout != torch.strided or one.is_complex() or one.is_quantized:
            raise WeightsRefused(
                f"The tensor '{name}' of {source} is of a kind that safetensors does not hold.",
                hint="Save it as a plain dense tensor.",
            )
    return tensors, unwrapped, sorted(left_out)


def _wrapper(loaded: Mapping[str, Any]) -> str | None:
    """Return the key under which the weights lie, if they lie under one."""
    if any(isinstance(one, torch.Tensor) for one in loaded.values()):
        return None
    return next((key for key in WRAPPERS if isinstance(loaded.get(key), Mapping)), None)


def _prefix(tensors: Mapping[str, torch.Tensor]) -> str | None:
    return next(
        (prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in tensors)), None
    )


# --- writing -------------------------------------------------------------------------------------


def _refuse_taken(destination: Path) -> None:
    if destination.exists():
        raise UnwritableOutput(
            f"{destination} is there already and is not overwritten.",
            hint="Name another file, or move that one away.",
        )


def _write(tensors: Mapping[str, torch.Tensor], destination: Path) -> None:
    """Write under another name, then rename; the name is taken only when the file is whole."""
    part = destination.with_name(f".{destination.name}.{os.getpid()}.part")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        # Tensors that share memory, or are views, are written each as itself.
        safetensors.torch.save_file(
            {name: one.detach().clone().contiguous() for name, one in tensors.items()}, part
        )
        os.close(os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        os.replace(part, destination)
    except FileExistsError:
        _refuse_taken(destination)
    except (OSError, SafetensorError) as error:
        if "No space" in str(error):
            raise DiskFull(
                f"There is no room to write {destination}.", hint="Free some and try again."
            ) from error
        raise UnwritableOutput(
            f"{destination} cannot be written ({error}).", hint="Check the folder's permissions."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def main(words: Sequence[str]) -> int:
    """Convert and say so in one JSON line on standard output.

    Args:
        words: Source and destination.
    """
    try:
        said: dict[str, Any] = {"report": asdict(convert(Path(words[0]), Path(words[1])))}
    except GencompError as error:
        said = {"error": error.to_wire()}
    sys.stdout.write(json.dumps(said) + "\n")
    return 0 if "report" in said else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
