# SPDX-License-Identifier: Apache-2.0
"""What a weights file is and holds, from its first bytes and its header; free of torch.

A safetensors file begins with the length of its header in eight bytes and the header as JSON, so
that what it must hold is known before a number is read. Everything else that lies about under such
a name is recognised and named: a pickle, a placeholder of Git LFS, a saved web page, a file that is
cut short.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from gencomp_protocol.errors import WeightsMissing, WeightsRefused

INSTALL = "Install it again from where it was published."

# The format's own limit on its header.
_MOST_HEADER_BYTES = 100_000_000
_LENGTH_BYTES = 8
_START_BYTES = 64


@dataclass(frozen=True)
class Stored:
    """One tensor as a header describes it.

    Attributes:
        file: The file that holds it.
        kind: Type as safetensors spells it: ``BF16``.
        shape: Its shape.
        first: Place of its first byte in the file.
        size: Its bytes.
    """

    file: Path
    kind: str
    shape: tuple[int, ...]
    first: int
    size: int


@dataclass(frozen=True)
class Contents:
    """What a header speaks of, and how long the file is.

    Attributes:
        tensors: The tensors by name; none where the header itself is cut short.
        found: The file's bytes.
        wanted: The bytes that it must have by its header, or at least, where that is cut short.
    """

    tensors: Mapping[str, Stored]
    found: int
    wanted: int


class HeaderDamaged(Exception):
    """A file begins as a safetensors file might, and its header cannot be understood."""


def look(file: Path) -> Contents:
    """Return what a safetensors file speaks of, whether or not it is as long as it says.

    Raises:
        OSError: It is not there, or cannot be read.
        WeightsRefused: It is a placeholder or a web page; or a pickle, with the way to convert it.
        HeaderDamaged: Its header cannot be understood.
    """
    found = file.stat().st_size
    with file.open("rb") as stream:
        start = stream.read(_START_BYTES)
        _refuse_other_kinds(file, start)
        length = int.from_bytes(start[:_LENGTH_BYTES], "little")
        end = _LENGTH_BYTES + length
        if found >= _LENGTH_BYTES and not 2 <= length <= _MOST_HEADER_BYTES:
            raise HeaderDamaged(f"its length is {length}")
        if start[_LENGTH_BYTES : _LENGTH_BYTES + 1] not in (b"", b"{"):
            raise HeaderDamaged("it does not begin with a brace")
        if found < end:
            return Contents({}, found, max(end, _LENGTH_BYTES + 2))
        stream.seek(_LENGTH_BYTES)
        header = stream.read(length)
    try:
        tensors = {
            name: _stored(file, facts, end)
            for name, facts in json.loads(header).items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HeaderDamaged(str(error)) from error
    return Contents(tensors, found, max([end, *(one.first + one.size for one in tensors.values())]))


def read_header(file: Path) -> dict[str, Stored]:
    """Return what a safetensors file holds, from its header, having checked its length.

    Raises:
        WeightsMissing: There is no such file.
        WeightsRefused: It is a pickle, a placeholder, damaged or cut short; says which.
    """
    try:
        seen = look(file)
    except FileNotFoundError as error:
        raise missing(file) from error
    except OSError as error:
        raise WeightsRefused(f"The weights file {file} cannot be read ({error}).") from error
    except HeaderDamaged as error:
        raise WeightsRefused(
            f"The weights file {file} is damaged: its header cannot be read.", hint=INSTALL
        ) from error
    if seen.found < seen.wanted:
        raise cut_short(file, seen)
    if seen.found > seen.wanted:
        raise WeightsRefused(
            f"The weights file {file} is damaged: it has {seen.found} bytes and its header speaks "
            f"of {seen.wanted}.",
            hint=INSTALL,
            file=str(file),
        )
    return dict(seen.tensors)


def cut_short(file: Path, seen: Contents) -> WeightsRefused:
    """Return the error for a file that ends too early: empty, in its header, or in a tensor."""
    if not seen.found:
        where = "it is empty"
    elif seen.tensors:
        where = f"it has {seen.found} bytes and its header speaks of {seen.wanted}"
    else:
        where = f"it ends inside its header, after {seen.found} bytes"
    return WeightsRefused(
        f"The weights file {file} is cut short: {where}.", hint=INSTALL, file=str(file)
    )


def shards(index: Path) -> list[Path]:
    """Return the files that an index of shards names, beside it; they need not be there.

    Raises:
        WeightsMissing: There is no such index.
        WeightsRefused: It is none, or names files elsewhere.
    """
    try:
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        names = sorted({str(name) for name in named})
    except FileNotFoundError as error:
        raise missing(index) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsRefused(
            f"The weights file {index} is damaged: it is no index of shards.",
            hint=INSTALL,
            file=str(index),
        ) from error
    wrong = [name for name in names if not is_shard_name(name)]
    if wrong:
        outside = PurePosixPath(wrong[0]).name != wrong[0] or wrong[0] == ".."
        what = "a shard outside its folder" if outside else "what is no weights file"
        raise WeightsRefused(
            f"The weights file {index} names {what}: {ascii(wrong[0])[1:-1]}.",
            hint=INSTALL,
            file=str(index),
        )
    return [index.parent / name for name in names]


def is_shard_name(name: str) -> bool:
    """Tell whether a name in an index is that of a weights file beside it, and of nothing else."""
    plain = PurePosixPath(name).name == name and not any(mark in name for mark in "\0\\")
    return plain and PurePosixPath(name).suffix in (".safetensors", ".bin")


def missing(path: Path) -> WeightsMissing:
    """Return the error for weights that are not there."""
    return WeightsMissing(
        f"The weights {path} are not there.",
        hint="gencomp weights list says what belongs where.",
        file=str(path),
    )


def is_pickle(file: Path) -> WeightsRefused:
    """Return the error for a pickle, with the way to convert it.

    Under the name that the server reads it must make room for what it is converted to.
    """
    target, source = file.with_suffix(".safetensors"), file
    rename = ""
    if target == file:
        source = file.with_suffix(".pt")
        rename = f"Rename it to {source.name}. "
    return WeightsRefused(
        f"The weights file {file} is a pickle, which may run code as it is opened: only "
        "safetensors are read.",
        hint=f"{rename}Convert it: gencomp weights convert {source} {target}",
        file=str(file),
    )


def _stored(file: Path, facts: Mapping[str, Any], start: int) -> Stored:
    first, last = (int(at) for at in facts["data_offsets"])
    if not 0 <= first <= last:
        raise ValueError("offsets run backwards")
    shape = tuple(int(side) for side in facts["shape"])
    return Stored(file, str(facts["dtype"]), shape, start + first, last - first)


def _refuse_other_kinds(file: Path, start: bytes) -> None:
    """Refuse what is no safetensors file, by its first bytes.

    A length in eight bytes and then JSON is ours, whatever else its first byte may begin.
    """
    if start[4:9] == b"\0\0\0\0{":
        return
    if start.startswith(b"version https://git-lfs"):
        raise WeightsRefused(
            f"The weights file {file} is a Git LFS placeholder, not the weights themselves.",
            hint="Fetch the file itself (git lfs pull) and put it in its place.",
            file=str(file),
        )
    if start.lstrip()[:1] == b"<":
        raise WeightsRefused(
            f"The weights file {file} is a web page, not weights: its download did not succeed.",
            hint="Open the page it came from in a browser and save the file from there.",
            file=str(file),
        )
    # Torch's own files: a zip archive, or a bare pickle of protocol 2 and later.
    if start.startswith(b"PK\x03\x04") or (start[:1] == b"\x80" and start[1:2] in b"\2\3\4\5"):
        raise is_pickle(file)
