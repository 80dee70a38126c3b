# SPDX-License-Identifier: Apache-2.0
"""The server's key, and which clients' keys it lets in: two files of one folder. No sockets here.

::

    keys/server.key      the server's own pair, 0600
    keys/allowed.json    {"ada@ws12": {"public_key": "5f0e…", "since_s": 1767225600.0}}, 0600

Whoever runs the server writes them with ``gencomp keys``; a running server looks at the list again
with every message, so that a key that is revoked opens nothing from then on. A list that cannot be
read, or that others could have written, lets nobody in.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gencomp_protocol import sockets
from gencomp_protocol.errors import (
    BadKnob,
    BadName,
    GencompError,
    ServerUnreachable,
    Unauthorised,
    UnwritableOutput,
)
from gencomp_protocol.keys import (
    checked_key,
    checked_name,
    parse_map,
    read_key_file,
    read_private,
    write_key_file,
)

log = logging.getLogger(__name__)

SERVER_KEY_FILE = "server.key"
ALLOWED_FILE = "allowed.json"


@dataclass(frozen=True)
class AllowedKey:
    """One key that is let in: its name, the public key, and since when (seconds since 1970)."""

    name: str
    public: str
    since_s: float


class KeyFolder:
    """The folder of a server's key and of the list of those it lets in.

    Args:
        folder: The folder; made with mode 0700 when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def allowed_file(self) -> Path:
        """Where the list lies."""
        return self.folder / ALLOWED_FILE

    def has_server_key(self) -> bool:
        """Tell whether there is a key of the server."""
        return (self.folder / SERVER_KEY_FILE).exists()

    def server_key(self) -> tuple[str, str]:
        """Return public and secret key of the server.

        Raises:
            Unauthorised: There is none, or others can read it.
        """
        if not self.has_server_key():
            raise Unauthorised(
                f"There is no key of this server in {self.folder}.",
                hint="Make it with: gencomp keys new NAME --server tcp://HOST:PORT --allow",
            )
        plain = read_key_file(self.folder / SERVER_KEY_FILE)
        public = sockets.public_of(plain["secret_key"])
        if public != plain["public_key"]:
            raise Unauthorised(
                f"The two keys in {self.folder / SERVER_KEY_FILE} do not belong together.",
                hint="Move the file away and make another key; clients need the new public one.",
            )
        return public, plain["secret_key"]

    def make_server_key(self) -> str:
        """Make the server's key where there is none; return the public one.

        Raises:
            UnwritableOutput: It cannot be written.
            Unauthorised: One is there that others can read.
        """
        if not self.has_server_key():
            public, secret = sockets.new_pair()
            plain = {"name": "server", "public_key": public, "secret_key": secret}
            write_key_file(self.folder / SERVER_KEY_FILE, plain)
        return self.server_key()[0]

    def allowed(self) -> list[AllowedKey]:
        """Return the keys that are let in, by name.

        Raises:
            Unauthorised: Others can read or write the list.
            ServerUnreachable: It cannot be read or understood.
        """
        if not self.allowed_file.exists():
            return []
        plain = parse_map(read_private(self.allowed_file), self.allowed_file)
        return [_entry(name, facts, self.allowed_file) for name, facts in sorted(plain.items())]

    def allow(self, name: str, public: str) -> None:
        """Let a key in from now on.

        Raises:
            BadKnob: It is no key.
            BadName: The name cannot be one, or is another key's; or the key has another name.
            UnwritableOutput: The list cannot be written.
        """
        key = checked_key(public, "The second word")
        checked_name(name)
        with self._alone():
            known = {one.name: one for one in self.allowed()}
            others = [one.name for one in known.values() if one.public == key and one.name != name]
            if others:
                raise BadName(f"That key is let in already, as '{others[0]}'.")
            if name in known and known[name].public != key:
                raise BadName(
                    f"'{name}' is the name of another key.",
                    hint=f"Revoke that one first (gencomp keys revoke {name}), or choose another.",
                )
            if name not in known:
                self._write([*known.values(), AllowedKey(name, key, time.time())])

    def revoke(self, name: str) -> None:
        """Let a key in no more; a running server drops its connections.

        Raises:
            BadName: No key of that name is let in.
            UnwritableOutput: The list cannot be written.
        """
        with self._alone():
            known = {one.name: one for one in self.allowed()}
            if known.pop(name, None) is None:
                raise BadName(
                    f"No key called {name[:80]!r} is let in.", hint="gencomp keys list shows them."
                )
            self._write(list(known.values()))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other commands from writing the list meanwhile."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            held = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            yield
        finally:
            os.close(held)

    def _write(self, known: list[AllowedKey]) -> None:
        plain = {
            one.name: {"public_key": one.public, "since_s": one.since_s}
            for one in sorted(known, key=lambda one: one.name)
        }
        beside = self.folder / f".{ALLOWED_FILE}.{os.getpid()}.part"
        try:
            beside.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(beside, flags, 0o600), "w", encoding="utf-8") as target:
                json.dump(plain, target, indent=1)
                target.flush()
                os.fsync(target.fileno())
            os.replace(beside, self.allowed_file)
        except OSError as error:
            raise _unwritable(self.folder, error) from error


def _unwritable(folder: Path, error: OSError) -> UnwritableOutput:
    return UnwritableOutput(
        f"The folder of keys {folder} cannot be written ({error.strerror}).",
        hint="Name another one in GENCOMP_KEYS, or do it as the user who runs the server.",
    )


def _entry(name: str, facts: Any, path: Path) -> AllowedKey:
    try:
        if not isinstance(facts, Mapping):
            raise TypeError
        key = checked_key(str(facts["public_key"]), f"The key of '{name}'")
        return AllowedKey(name, key, float(facts.get("since_s", 0.0)))
    except (KeyError, TypeError, ValueError, BadKnob) as error:
        raise ServerUnreachable(f"{path} cannot be understood at {name[:80]!r}.") from error


class AllowList:
    """Who is let in, as the file says at this moment; any thread may ask.

    Args:
        keys: The folder of keys.
    """

    def __init__(self, keys: KeyFolder) -> None:
        self._keys = keys
        self._seen: tuple[int, ...] = ()
        self._names: Mapping[str, str] = {}

    def name_of(self, public: str) -> str | None:
        """Return the name of a key that is let in, or None for any other."""
        self._look()
        return self._names.get(public)

    def has_name(self, name: str) -> bool:
        """Tell whether a key of that name is let in."""
        self._look()
        return name in self._names.values()

    def _look(self) -> None:
        """Read the file anew where it is another one; what cannot be read lets nobody in."""
        try:
            facts = os.stat(self._keys.allowed_file)
            seen = (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
            if seen != self._seen:
                self._names = {one.public: one.name for one in self._keys.allowed()}
                self._seen = seen
        except (OSError, GencompError) as error:
            if self._names:
                log.error("nobody is let in: the list of keys cannot be read: %s", error)
            self._names, self._seen = {}, ()
