# SPDX-License-Identifier: Apache-2.0
"""Keys of clients and servers, and the files that hold them. No sockets here.

A key is 32 bytes of Curve25519, spelt as 64 hex digits so that shells leave it alone. What a client
has is one file for its owner alone: its own two keys and, where whoever made it knew them, address
and public key of the server. Such a file can be ``client.json`` as it is.
"""

import json
import os
import re
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gencomp_protocol.errors import (
    BadKnob,
    BadName,
    ServerUnreachable,
    Unauthorised,
    UnwritableOutput,
)

_KEY = re.compile(r"[0-9a-f]{64}\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}\Z")
_MOST_BYTES = 64 * 1024
OWN_FILE = "own_file"  # In an error's details: a file on this machine that is not fit for use.


@dataclass(frozen=True)
class ClientKeys:
    """What a client needs to speak to a server that takes keys only.

    Attributes:
        server: Public key of the server, 64 hex digits.
        public: The client's own public key.
        secret: The client's secret key; never shown.
        name: What the client's key is called, for sentences; may be empty.
    """

    server: str
    public: str
    secret: str = field(repr=False)
    name: str = ""


def checked_key(text: str, what: str) -> str:
    """Return a key in the one spelling.

    Raises:
        BadKnob: It is not one; ``what`` says which.
    """
    found = text.strip().lower()
    if not _KEY.match(found):
        raise BadKnob(f"{what} is not a key.", hint="A key is 64 hex digits, 0-9 and a-f.")
    return found


def checked_name(text: str) -> str:
    """Return the name of a key.

    Raises:
        BadName: It cannot be one.
    """
    if not _NAME.match(text):
        raise BadName(
            f"A key cannot be called {text[:80]!r}.",
            hint="Use at most 64 letters, digits and _ . @ - such as ada@ws12.",
        )
    return text


def write_key_file(path: Path, plain: Mapping[str, str]) -> None:
    """Write a new file that holds a secret key, readable by its owner alone from its first moment.

    Args:
        path: The file; its folder is made with mode 0700.
        plain: ``name``, ``public_key``, ``secret_key`` and perhaps ``server``, ``server_key``.

    Raises:
        UnwritableOutput: It is there already, or cannot be written.
    """
    text = json.dumps(dict(plain), indent=1) + "\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as target:
            target.write(text)
            target.flush()
            os.fsync(target.fileno())
    except FileExistsError as error:
        raise UnwritableOutput(
            f"{path} is there already, and a key is never written over.",
            hint="Name another file, or move that one away.",
        ) from error
    except OSError as error:
        raise UnwritableOutput(f"{path} cannot be written ({error.strerror}).") from error


def read_key_file(path: Path) -> "dict[str, str]":
    """Return what a key file holds.

    Raises:
        Unauthorised: Others than the owner can read or write it, or it holds no key.
        ServerUnreachable: It cannot be read.
    """
    plain = read_private_map(path)
    try:
        for name in ("public_key", "secret_key"):
            checked_key(str(plain.get(name, "")), f"'{name}' in {path}")
        if plain.get("server_key"):
            checked_key(str(plain["server_key"]), f"'server_key' in {path}")
    except BadKnob as error:
        hint = "Make one with gencomp keys new."
        raise Unauthorised(error.message, hint=hint, **{OWN_FILE: str(path)}) from error
    return {str(name): str(value) for name, value in plain.items()}


def read_private_map(path: Path) -> "dict[str, Any]":
    """Return the JSON map in a file that its owner alone can read and write.

    Raises:
        Unauthorised: Others can, or the owner is somebody else.
        ServerUnreachable: It cannot be read, or it is no map.
    """
    return parse_map(read_private(path), path)


def parse_map(text: str, path: Path) -> "dict[str, Any]":
    """Return the JSON map that a file's text is.

    Raises:
        ServerUnreachable: It is none; names the file.
    """
    try:
        plain = json.loads(text)
    except ValueError as error:
        line = getattr(error, "lineno", 1)
        raise _unusable(path, f"cannot be understood at line {line} (it is not JSON)") from error
    if not isinstance(plain, dict):
        raise _unusable(path, "cannot be understood (it is not a map)")
    return plain


def _unusable(path: Path, what: str, hint: str = "Mend it, or move it away.") -> ServerUnreachable:
    return ServerUnreachable(f"{path} {what}.", hint=hint, **{OWN_FILE: str(path)})


def _is_private(facts: os.stat_result) -> bool:
    """Tell whether a file is ours and nobody else's.

    Windows has neither owner nor mode here; there the user's profile folder keeps others out.
    """
    if sys.platform == "win32":
        return True
    return facts.st_uid == os.getuid() and not stat.S_IMODE(facts.st_mode) & 0o077


def read_private(path: Path) -> str:
    """Return the text of a file that its owner alone, who must be us, can read and write.

    Raises:
        Unauthorised: It is not ours alone.
        ServerUnreachable: It cannot be read, or it is not text.
    """
    try:
        with open(path, "rb") as source:
            if not _is_private(os.fstat(source.fileno())):
                raise Unauthorised(
                    f"{path} holds a secret and is not yours alone.",
                    hint=f"Make it so: chmod 600 {path}",
                    **{OWN_FILE: str(path)},
                )
            text = source.read(_MOST_BYTES).decode("utf-8")
    except OSError as error:
        hint = "Check that it is there and that you may read it."
        raise _unusable(path, f"cannot be read ({error.strerror})", hint) from error
    except UnicodeDecodeError as error:
        raise _unusable(path, "cannot be understood (it is not text)") from error
    return text
