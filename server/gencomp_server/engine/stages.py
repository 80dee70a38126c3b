# SPDX-License-Identifier: Apache-2.0
"""What stages made, kept on disk by content; what ``ctx.stage`` and ``ctx.checkpoint`` rest on.

::

    stages/<key>/index.json      the value, arrays replaced by their files and digests
    stages/<key>/<i>.npy         one array each; comes back memory-mapped, read-only
    stages/<key>.saved/<name>    checkpoints of a stage that is not complete yet

A stage's folder appears under its key by one rename, when everything in it is on disk; a process
that dies in the middle leaves only checkpoints. A key is a BLAKE2b over what the stage's outcome
may depend on; of an array or a value it takes the content, of a :class:`~contract.Shot` the
pictures' digests and what the request says of them. Values are plain: frozen dataclasses, tuples,
lists, dicts, str, bytes, numbers, None and numpy arrays. Nothing is pickled.
"""

import base64
import dataclasses
import functools
import hashlib
import importlib
import io
import json
import logging
import os
import re
import shutil
import struct
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencomp_protocol import disk
from gencomp_server.colour.spaces import resolve
from gencomp_server.engine.spool import disk_error, make_folder, write_atomic

log = logging.getLogger(__name__)

KEY_BYTES = 24
_INDEX = "index.json"
_MOST_PARTS = 4096


class StageStore:
    """The stages of one spool.

    Args:
        folder: Where they lie; made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[int, tuple[weakref.ref[Any], str, Path]] = {}
        make_folder(folder)

    @property
    def folder(self) -> Path:
        """Where the stages lie."""
        return self._folder

    def key(self, *depends: Any) -> str:
        """Return the key of a stage whose outcome depends on these values alone, in hex.

        Raises:
            TypeError: A value is of a kind that has no digest.
        """
        state = hashlib.blake2b(digest_size=KEY_BYTES)
        for value in depends:
            self._feed(state, value)
        return state.hexdigest()

    def load(self, key: str) -> tuple[Any] | None:
        """Return what a stage made, in a tuple of one; None where it is not, or not whole, on disk.

        Only a power cut or somebody's hand leaves one that is not whole; it is made again.
        """
        folder = self._folder / key
        try:
            index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
            os.utime(folder)
            return (self._from_plain(index, folder),)
        except FileNotFoundError:
            return None
        except ValueError as error:
            log.warning("stage %s is damaged (%s) and is made again", key, error)
            return None

    def save(self, key: str, value: Any) -> Any:
        """Keep what a stage made and return it as :meth:`load` would.

        Raises:
            TypeError: A part of it is not plain.
            DiskFull: There is no room for it.
        """
        part = self._folder / f".{key}.{os.getpid()}.part"
        shutil.rmtree(part, ignore_errors=True)
        make_folder(part)
        try:
            index = self._to_plain(value, part, [])
            write_atomic(part / _INDEX, json.dumps(index).encode())
            if self.load(key) is None:
                shutil.rmtree(self._folder / key, ignore_errors=True)
            _become(part, self._folder / key)
        except OSError as error:
            raise disk_error(error, self._folder) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(self._saved(key), ignore_errors=True)
        made = self.load(key)
        assert made is not None, key
        return made[0]

    def size(self, key: str) -> int:
        """Return how many bytes a stage takes on disk; 0 where it is not there."""
        total = 0
        for one in (self._folder / key).glob("*"):
            with suppress(FileNotFoundError):  # another worker made room
                total += one.stat().st_size
        return total

    def save_checkpoint(self, key: str, name: str, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Keep named arrays of a stage that goes on; they replace those of the same name.

        Raises:
            DiskFull: There is no room for them.
        """
        packed = io.BytesIO()
        np.savez(packed, allow_pickle=False, **{f"_{n}": array for n, array in tensors.items()})
        make_folder(self._saved(key))
        write_atomic(self._saved(key) / _file_name(name), packed.getvalue())

    def load_checkpoint(self, key: str, name: str) -> dict[str, NDArray[Any]] | None:
        """Return the named arrays that were saved last, in memory; None where there are none."""
        path = self._saved(key) / _file_name(name)
        if not path.is_file():
            return None
        with suppress(FileNotFoundError):
            os.utime(self._saved(key))  # It is in use.
        with np.load(path, allow_pickle=False) as packed:
            return {entry[1:]: packed[entry] for entry in packed.files}

    def _saved(self, key: str) -> Path:
        return self._folder / f"{key}.saved"

    # --- values to plain data and back -----------------------------------------------------------

    def to_reference(self, value: Any, folder: Path, files: list[str]) -> Any:
        """Return a value as JSON for who sees the same store: an array of a stage is only named.

        Args:
            value: What a stage is given.
            folder: Where other arrays are written.
            files: Those that lie there already; in place.

        Raises:
            TypeError: A part of it is not plain.
        """
        return self._to_plain(value, folder, files, by_name=True)

    def from_reference(self, plain: Any, folder: Path) -> Any:
        """Return the value that :meth:`to_reference` made ``plain`` of.

        Raises:
            FileNotFoundError: An array that it names is not in the store any more.
        """
        return self._from_plain(plain, folder)

    def _to_plain(
        self, value: Any, folder: Path, files: list[str], *, by_name: bool = False
    ) -> Any:
        """Return a value as JSON; scalars stand for themselves, all else is a tagged map."""
        if isinstance(value, np.ndarray):
            known = self._known.get(id(value)) if by_name else None
            if known is not None and known[0]() is value:
                place = known[2].relative_to(self._folder)
                return {"is": "array", "kept": place.as_posix(), "digest": known[1]}
            return self._write_array(value, folder, files)
        if isinstance(value, np.generic):
            return {"is": "scalar", "dtype": value.dtype.str, "value": value.tobytes().hex()}
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, bytes):
            return {"is": "bytes", "value": base64.b64encode(value).decode()}
        own = functools.partial(self._to_plain, folder=folder, files=files, by_name=by_name)
        if isinstance(value, (tuple, list)):
            made = [own(one) for one in value]
            return {"is": "tuple" if isinstance(value, tuple) else "list", "value": made}
        if isinstance(value, Mapping):
            pairs = value.items()
            made = [[own(part) for part in pair] for pair in pairs]
            return {"is": "dict", "value": made}
        fields = {name: own(one) for name, one in _fields(value).items()}
        return {"is": "dataclass", "type": _type_name(type(value)), "value": fields}

    def _write_array(self, array: NDArray[Any], folder: Path, files: list[str]) -> dict[str, Any]:
        if array.dtype.hasobject:
            raise TypeError("a stage cannot keep an array of Python objects")
        name = f"{len(files)}.npy"
        files.append(name)
        plain = np.ascontiguousarray(array) if array.ndim else array
        disk.patiently(lambda: _write_samples(folder / name, plain))
        return {"is": "array", "file": name, "digest": _array_digest(plain)}

    def _from_plain(self, data: Any, folder: Path) -> Any:
        """Return the value that :meth:`_to_plain` made ``data`` of."""
        if not isinstance(data, dict):
            return data
        kind = data["is"]
        if kind == "array":
            place = self._folder / data["kept"] if "kept" in data else folder / data["file"]
            array = np.load(place, mmap_mode="r", allow_pickle=False)
            self._remember(array, data["digest"], place)
            return array
        if kind == "scalar":
            return np.frombuffer(bytes.fromhex(data["value"]), dtype=data["dtype"])[0]
        if kind == "bytes":
            return base64.b64decode(data["value"])
        if kind in ("tuple", "list"):
            made = [self._from_plain(one, folder) for one in data["value"]]
            return tuple(made) if kind == "tuple" else made
        if kind == "dict":
            pairs = data["value"]
            return {self._from_plain(a, folder): self._from_plain(b, folder) for a, b in pairs}
        fields = {name: self._from_plain(one, folder) for name, one in data["value"].items()}
        return _type_named(data["type"])(**fields)

    # --- digests ---------------------------------------------------------------------------------

    def _feed(self, state: Any, value: Any) -> None:
        """Feed a value into a digest so that no two different values feed the same bytes."""
        if isinstance(value, np.ndarray):
            _feed_bytes(state, "array", self._digest_array(value).encode())
        elif isinstance(value, np.generic):
            _feed_bytes(state, value.dtype.str, value.tobytes())
        elif value is None or isinstance(value, (bool, int, float, str)):
            # repr of a float is exact; the type keeps 1, 1.0, True and "1" apart.
            _feed_bytes(state, type(value).__name__, repr(value).encode())
        elif isinstance(value, bytes):
            _feed_bytes(state, "bytes", value)
        elif isinstance(value, (tuple, list)):
            _feed_bytes(state, "sequence", struct.pack("<Q", len(value)))
            for one in value:
                self._feed(state, one)
        elif isinstance(value, Mapping):
            digests = sorted(self.key(*pair) for pair in value.items())
            _feed_bytes(state, "mapping", "".join(digests).encode())
        elif hasattr(value, "digest") and hasattr(value, "frames_of"):
            _feed_bytes(state, "shot", b"")
            self._feed(state, _shot_facts(value))
        else:
            _feed_bytes(state, "dataclass", _type_name(type(value)).encode())
            self._feed(state, _fields(value))

    def _digest_array(self, array: NDArray[Any]) -> str:
        known = self._known.get(id(array))
        if known is not None and known[0]() is array:
            return known[1]
        if array.dtype.hasobject:
            raise TypeError("an array of Python objects has no digest")
        return _array_digest(array)

    def _remember(self, array: NDArray[Any], digest: str, file: Path) -> None:
        """Note digest and place of an array that came from disk, for as long as it lives."""
        place = id(array)
        gone = weakref.ref(array, lambda _: self._known.pop(place, None))
        self._known[place] = (gone, digest, file)


class Provenance:
    """Which stages of a job went into a value, told by what they made itself.

    Arrays are known for as long as they live, and so is every view of them; plain parts are kept,
    so that they stay themselves. What is computed from a result outside of a stage is known only
    where that is said (:meth:`note`).
    """

    def __init__(self) -> None:
        self._arrays: dict[int, tuple[weakref.ref[Any], frozenset[str]]] = {}
        self._plain: dict[int, tuple[Any, frozenset[str]]] = {}

    def note(self, keys: frozenset[str], made: Any) -> None:
        """Note that a value and all its parts hold results of the stages of these keys."""
        self._note(keys, made)

    def of(self, value: Any) -> frozenset[str]:
        """Return the keys of the stages that a value holds results of."""
        known = self._plain.get(id(value))
        if known is not None and known[0] is value:
            return known[1]
        if isinstance(value, np.ndarray):
            return self._of_array(value)
        found: frozenset[str] = frozenset()
        return found.union(*(self.of(part) for part in _parts(value)))

    def _of_array(self, array: Any) -> frozenset[str]:
        """Look an array up, then what it is a view of."""
        while isinstance(array, np.ndarray):
            known = self._arrays.get(id(array))
            if known is not None and known[0]() is array:
                return known[1]
            array = array.base
        return frozenset()

    def _note_array(self, keys: frozenset[str], array: Any) -> None:
        place = id(array)
        gone = weakref.ref(array, lambda _: self._arrays.pop(place, None))
        self._arrays[place] = (gone, keys)

    def _note(self, keys: frozenset[str], value: Any) -> bool:
        """Note a value and its parts; tell whether there are arrays among them."""
        if isinstance(value, np.ndarray):
            self._note_array(keys, value)
            # What arithmetic made of a memory map is a view of an array that has no other name.
            whole = value.base
            is_all_of_it = isinstance(whole, np.ndarray) and whole.nbytes == value.nbytes
            if is_all_of_it and not self._of_array(whole):
                self._note_array(keys, whole)
            return True
        parts = _parts(value)
        if len(parts) > _MOST_PARTS:  # Nobody hands on one number out of thousands.
            parts = [one for one in parts if not isinstance(one, (int, float, np.generic))]
        has_arrays = [self._note(keys, part) for part in parts]
        if any(has_arrays):  # Kept, it would keep their files open.
            return True
        # An int, an empty tuple or a letter is the same object wherever it comes from.
        is_own = isinstance(value, (float, np.generic)) or (
            isinstance(value, (bytes, str, tuple, list)) and len(value) > 1
        )
        if has_arrays or is_own:
            self._plain[id(value)] = (value, keys)
        return False


def _parts(value: Any) -> list[Any]:
    """Return what a value is made of; nothing for a number or a text."""
    if isinstance(value, (tuple, list)):
        return list(value)
    if isinstance(value, Mapping):
        return [*value.keys(), *value.values()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return list(_fields(value).values())
    return []


def _write_samples(path: Path, plain: NDArray[Any]) -> None:
    disk.about_to("write", path)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        # Not write_array: its C writer does not tell a full disk from another failure.
        header = np.lib.format.header_data_from_array_1_0(plain)
        np.lib.format.write_array_header_2_0(file, header)
        file.write(plain.reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())


def _shot_facts(shot: Any) -> list[Any]:
    """Return what the outcome of a stage may depend on in a shot: all but the knobs."""
    request = shot.request
    inputs = []
    for name in shot.names:
        entry, frames = request.input(name), shot.frames_of(name)
        facts = None if entry is None else [entry.cover, entry.channel, entry.colourspace]
        inputs.append([name, facts, [[n, shot.digest(name, n)] for n in frames]])
    space = resolve(request.working_space, request.ocio)
    return [str(shot.frames), space.identity, inputs]


def _feed_bytes(state: Any, kind: str, data: bytes) -> None:
    state.update(struct.pack("<QQ", len(kind), len(data)))
    state.update(kind.encode())
    state.update(data)


def _array_digest(array: NDArray[Any]) -> str:
    """Return the digest of an array's type, shape and samples, in hex."""
    state = hashlib.blake2b(digest_size=KEY_BYTES)
    _feed_bytes(state, repr(np.lib.format.dtype_to_descr(array.dtype)), repr(array.shape).encode())
    for row in array if array.ndim > 1 else (array,):  # no copy of the whole where it is strided
        state.update(np.ascontiguousarray(row).reshape(-1).view(np.uint8).data)
    return state.hexdigest()


def _fields(value: Any) -> dict[str, Any]:
    """Return the fields of a frozen dataclass.

    Raises:
        TypeError: It is something else; a stage takes and makes plain values only.
    """
    kind = type(value)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"a stage cannot take or make a {kind.__module__}.{kind.__qualname__}")
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _type_name(kind: type) -> str:
    if "<locals>" in kind.__qualname__:
        raise TypeError(f"{kind.__qualname__} is local to a function and cannot be found again")
    return f"{kind.__module__}:{kind.__qualname__}"


def _type_named(name: str) -> Any:
    """Return the dataclass that ``module:qualname`` names."""
    module, _, qualname = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise TypeError(f"{name} is no dataclass")
    return found


def _file_name(name: str) -> str:
    """Return a file name for a checkpoint's name: readable, and one for each name."""
    mark = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)[:40]}-{mark}.npz"


def _become(part: Path, folder: Path) -> None:
    """Give a complete folder its name; where another process was first, keep that one."""
    _sync(part)
    try:
        part.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    _sync(folder.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
