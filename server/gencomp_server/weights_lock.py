# SPDX-License-Identifier: Apache-2.0
"""What every weights file was when it was first seen: ``weights.lock``, one user's or one farm's.

A digest is computed from the file itself, once; afterwards size and time of the last change tell
whether it has to be computed again. A digest that differs from the one recorded is an error that
names the file, never a new record.

The file is JSON: ``{"version": 1, "files": {"<set>/<path>": {"size", "mtime_ns", "sha256"}}}``. It
is written whole under another name and renamed, under a file lock, so that two processes neither
tear it nor lose each other's records.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from gencomp_protocol.errors import DiskFull, UnwritableOutput, WeightsMissing, WeightsRefused
from gencomp_server.tensorfile import HeaderDamaged, cut_short, look

Progress = Callable[[Path, int, int], None]
"""Told the file, the bytes done and the bytes in all."""

_CHUNK = 8 * 2**20
_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """What is recorded of one file."""

    size: int
    mtime_ns: int
    sha256: str


class LockFile:
    """The records of one ``weights.lock``.

    Args:
        path: The file; it and its folder are made at the first record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def entries(self) -> dict[str, Entry]:
        """Return what is recorded, by ``<set>/<path>``; nothing where there is no file yet.

        Raises:
            WeightsRefused: The file is there and cannot be understood.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise self._damaged(str(error)) from error
        try:
            plain = json.loads(text)
            if plain["version"] != _VERSION:
                raise ValueError(f"it is of version {plain['version']}")
            return {name: Entry(**facts) for name, facts in plain["files"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._damaged(str(error)) from error

    def known(self, key: str, path: Path) -> str:
        """Return the digest recorded for a file as it is now; empty where it must be computed.

        Raises:
            WeightsMissing: The file is not there.
        """
        entry = self.entries().get(key)
        facts = _stat(path)
        same = entry is not None and (entry.size, entry.mtime_ns) == (
            facts.st_size,
            facts.st_mtime_ns,
        )
        return entry.sha256 if entry is not None and same else ""

    def record(self, key: str, path: Path, entry: Entry) -> None:
        """Keep what a file was found to be.

        Raises:
            WeightsRefused: Another digest is recorded for it.
            DiskFull: There is no room.
            UnwritableOutput: The folder cannot be written.
        """
        with self._held():
            entries = self.entries()
            before = entries.get(key)
            if before is not None and before.sha256 != entry.sha256:
                name = key.partition("/")[0]
                raise WeightsRefused(
                    f"The weights file {path} has changed since it was verified: its sha256 was "
                    f"{before.sha256[:12]}… and is {entry.sha256[:12]}….",
                    hint="Install it again; where the change is wanted, gencomp weights verify "
                    f"--accept {name}",
                    file=str(path),
                )
            self._write({**entries, key: entry})

    def replace(self, prefix: str, entries: Mapping[str, Entry]) -> None:
        """Keep other records of a set in place of all it has, at once: a change is wanted.

        Raises:
            WeightsRefused: The file is there and cannot be understood.
            DiskFull: There is no room.
            UnwritableOutput: The folder cannot be written.
        """
        with self._held():
            kept = {
                key: entry
                for key, entry in self.entries().items()
                if not key.startswith(f"{prefix}/")
            }
            self._write({**kept, **entries})

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Hold the lock beside the file, which is never renamed itself."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside = os.open(self._beside(".guard"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            try:
                fcntl.flock(beside, fcntl.LOCK_EX)
            except OSError as error:  # A network disk may have no locks at all.
                raise self._unwritable(error) from error
            yield
        finally:
            os.close(beside)

    def _write(self, entries: Mapping[str, Entry]) -> None:
        plain = {
            "version": _VERSION,
            "files": {key: asdict(entries[key]) for key in sorted(entries)},
        }
        part = self._beside(f".{os.getpid()}.part")
        try:
            with open(part, "w", encoding="utf-8") as target:
                json.dump(plain, target, indent=1)
                target.write("\n")
                target.flush()
                os.fsync(target.fileno())
            os.replace(part, self.path)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            raise self._unwritable(error) from error

    def _beside(self, ending: str) -> Path:
        return self.path.with_name(f".{self.path.name}{ending}")

    def _unwritable(self, error: OSError) -> DiskFull | UnwritableOutput:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return DiskFull(
                f"There is no room to write {self.path}.", hint="Free some and try again."
            )
        return UnwritableOutput(
            f"The lock file {self.path} cannot be written ({error.strerror}).",
            hint="Name another place for it in the setting weights_lock, or mend its permissions.",
        )

    def _damaged(self, why: str) -> WeightsRefused:
        return WeightsRefused(
            f"The lock file {self.path} cannot be understood ({why}).",
            hint="Move it away and let gencomp weights verify write a new one.",
            file=str(self.path),
        )


def digest_file(path: Path, progress: Progress | None = None) -> Entry:
    """Compute the sha256 of a weights file; a safetensors file must be as long as it says.

    Args:
        path: The file.
        progress: Told the file, the bytes done and the bytes in all.

    Raises:
        WeightsMissing: It is not there.
        WeightsRefused: It cannot be read, is cut short, or changed meanwhile.
    """
    before = _stat(path)
    if path.suffix == ".safetensors":
        _check_length(path)
    digest, done = hashlib.sha256(), 0
    try:
        with open(path, "rb", buffering=0) as source:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                done += len(chunk)
                if progress is not None:
                    progress(path, done, before.st_size)
    except OSError as error:
        raise _unreadable(path, error) from error
    after = _stat(path)
    if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise WeightsRefused(
            f"The weights file {path} changed while it was read.",
            hint="Wait until it is wholly copied and try again.",
            file=str(path),
        )
    return Entry(before.st_size, before.st_mtime_ns, digest.hexdigest())


def _check_length(path: Path) -> None:
    """Refuse a safetensors file whose length is not what its header says, and what is none."""
    try:
        seen = look(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    except HeaderDamaged as error:
        raise _no_tensors(path) from error
    if seen.found < seen.wanted:
        raise cut_short(path, seen)
    if seen.found > seen.wanted:
        raise WeightsRefused(
            f"The weights file {path} is too long: it has {seen.found} bytes, its header says "
            f"{seen.wanted}.",
            hint="Install it again.",
            file=str(path),
        )


def _no_tensors(path: Path) -> WeightsRefused:
    return WeightsRefused(
        f"The weights file {path} is damaged: it does not begin as a safetensors file does.",
        hint="Install it again; another kind of file is turned into one by gencomp weights "
        "convert.",
        file=str(path),
    )


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError as error:
        raise WeightsMissing(
            f"The weights file {path} is missing.",
            hint="gencomp weights list says where each one belongs.",
            file=str(path),
        ) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> WeightsRefused:
    return WeightsRefused(
        f"The weights file {path} cannot be read ({error.strerror}).",
        hint="Check who owns it and whether its disk is mounted.",
        file=str(path),
    )
