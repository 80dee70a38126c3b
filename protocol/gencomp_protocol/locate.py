# SPDX-License-Identifier: Apache-2.0
"""Finding a server and its secret: the environment, the user's file, then this machine.

A running server says where it is in ``server.json`` in gencomp's home folder, readable by its owner
alone. A file that others can read or write is refused: its secret may be known, or false. Windows
tells neither owner nor mode, so that is not looked at there. Where several machines share a home
folder, the server of another one is not taken for this one's: nobody knows who has its port here.
"""

import json
import os
import socket
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from gencomp_protocol.errors import ServerUnreachable, Unauthorised, UnwritableOutput
from gencomp_protocol.sockets import split_address
from gencomp_protocol.version import PROTOCOL_VERSION

HOME_VARIABLE = "GENCOMP_HOME"
SERVER_VARIABLE = "GENCOMP_SERVER"
SECRET_VARIABLE = "GENCOMP_SECRET_FILE"
SERVER_FILE = "server.json"
CLIENT_FILE = "client.json"
_MOST_BYTES = 64 * 1024


@dataclass(frozen=True)
class ServerFile:
    """Where a server is, and what opens it. ``pid`` is 0, a text empty, where it is not known."""

    address: str
    secret: str
    pid: int = 0
    version: str = ""
    host: str = field(default="", compare=False)

    @property
    def is_elsewhere(self) -> bool:
        """Whether it runs on another machine, with which this one shares the folder."""
        return self.host not in ("", socket.gethostname())

    def __repr__(self) -> str:
        """Spell it without the secret, so that no log ever holds one."""
        return f"ServerFile(address={self.address!r}, pid={self.pid}, version={self.version!r})"


def home_folder(environ: "Mapping[str, str]" = os.environ) -> Path:
    """Return gencomp's folder of this user: ``$GENCOMP_HOME``, else ``~/.gencomp``."""
    named = environ.get(HOME_VARIABLE, "")
    return Path(named).expanduser() if named else Path.home() / ".gencomp"


def read_server_file(path: "os.PathLike[str]") -> ServerFile:
    """Read what a running server wrote about itself.

    Raises:
        Unauthorised: Others than the owner can read or write it, or it is somebody else's.
        ServerUnreachable: It is not there, or it is not such a file.
    """
    plain = _read_map(Path(path))
    try:
        return ServerFile(
            address=_checked(str(plain["address"])),
            secret=str(plain["secret"]),
            pid=int(plain.get("pid", 0)),
            version=str(plain.get("version", "")),
            host=str(plain.get("host", "")),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ServerUnreachable(f"{path} does not describe a server ({error}).") from error


def write_server_file(path: "os.PathLike[str]", server: ServerFile) -> None:
    """Write what a running server says about itself, whole and for its owner alone.

    Raises:
        UnwritableOutput: The folder cannot be written.
    """
    place = Path(path)
    beside = place.with_name(f".{place.name}.{os.getpid()}.part")
    plain = {
        "address": server.address,
        "secret": server.secret,
        "pid": server.pid,
        "version": server.version,
        "host": server.host or socket.gethostname(),
        "protocol": list(PROTOCOL_VERSION),
    }
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with os.fdopen(os.open(beside, flags, 0o600), "w", encoding="utf-8") as target:
            json.dump(plain, target)
        os.replace(beside, place)
    except OSError as error:
        raise UnwritableOutput(
            f"The server file {place} cannot be written ({error.strerror}).",
            hint=f"Name another folder in {HOME_VARIABLE}, or use --state-file.",
        ) from error


def find_server(environ: "Mapping[str, str]" = os.environ) -> Optional[ServerFile]:
    """Return the server to use, or None where none is named and none runs here.

    In this order: ``$GENCOMP_SERVER`` with the secret of ``$GENCOMP_SECRET_FILE`` or of the
    ``server.json`` that has the same address; ``client.json`` (``{"server", "secret_file"}``) in
    the home folder; ``server.json`` there.

    Raises:
        Unauthorised: A server is named, and its secret is not to be had.
        ServerUnreachable: A file that is there cannot be understood.
        BadKnob: The address named is none.
    """
    local = home_folder(environ) / SERVER_FILE
    named = environ.get(SERVER_VARIABLE, "")
    if named:
        return _named(named, environ.get(SECRET_VARIABLE, ""), local)
    chosen = home_folder(environ) / CLIENT_FILE
    if chosen.exists():
        plain = _read_map(chosen)
        if plain.get("server"):
            return _named(str(plain["server"]), str(plain.get("secret_file", "")), local)
    if not local.exists():
        return None
    here = read_server_file(local)
    return None if here.is_elsewhere else here


def _named(address: str, secret_file: str, local: Path) -> ServerFile:
    """Return the server at an address, its secret looked up."""
    _checked(address)
    if secret_file:
        return ServerFile(address, _read_secret(Path(secret_file).expanduser()))
    if local.exists():
        here = read_server_file(local)
        if here.address == address:
            return here
    raise Unauthorised(
        f"The secret of the server at {address} is not known.",
        hint=f"Perhaps no server runs there (gencomp doctor tells); else name the file that holds "
        f"its secret in {SECRET_VARIABLE}.",
    )


def _checked(address: str) -> str:
    split_address(address)
    return address


def _read_secret(path: Path) -> str:
    """Return the secret in a file: its one line, or the ``secret`` of a server file."""
    text = _read_private(path).strip()
    if not text.startswith("{"):
        return text
    return str(_parse(text, path).get("secret", ""))


def _read_map(path: Path) -> "dict[str, Any]":
    return _parse(_read_private(path), path)


def _parse(text: str, path: Path) -> "dict[str, Any]":
    try:
        plain = json.loads(text)
    except ValueError as error:
        raise ServerUnreachable(f"{path} cannot be understood ({error}).") from error
    if not isinstance(plain, dict):
        raise ServerUnreachable(f"{path} cannot be understood (it is not a map).")
    return plain


def _is_private(facts: os.stat_result) -> bool:
    """Tell whether a file is ours and nobody else's.

    Windows has neither owner nor mode here; there the user's profile folder keeps others out.
    """
    if sys.platform == "win32":
        return True
    return facts.st_uid == os.getuid() and not stat.S_IMODE(facts.st_mode) & 0o077


def _read_private(path: Path) -> str:
    """Return the text of a file that its owner alone, who must be us, can read and write."""
    try:
        with open(path, "rb") as source:
            if not _is_private(os.fstat(source.fileno())):
                raise Unauthorised(
                    f"{path} holds a secret and is not yours alone.",
                    hint=f"Make it so: chmod 600 {path}",
                )
            text = source.read(_MOST_BYTES).decode("utf-8")
    except OSError as error:
        raise ServerUnreachable(f"{path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise ServerUnreachable(f"{path} cannot be understood (it is not text).") from error
    return text
