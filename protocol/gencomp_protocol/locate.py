# SPDX-License-Identifier: Apache-2.0
"""Finding a server and what opens it: the environment, the user's file, then this machine.

A running server says where it is in ``server.json`` in gencomp's home folder, readable by its owner
alone. A file that others can read or write is refused: its secret may be known, or false. Windows
tells neither owner nor mode, so that is not looked at there. Where several machines share a home
folder, the server of another one is not taken for this one's: nobody knows who has its port here.
"""

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from gencomp_protocol.errors import LinkError, ServerUnreachable, Unauthorised, UnwritableOutput
from gencomp_protocol.keys import (
    OWN_FILE,
    ClientKeys,
    checked_key,
    parse_map,
    read_key_file,
    read_private,
    read_private_map,
)
from gencomp_protocol.settings import client_choice, read_layers
from gencomp_protocol.sockets import is_loopback, split_address
from gencomp_protocol.version import PROTOCOL_VERSION

HOME_VARIABLE = "GENCOMP_HOME"
SERVER_VARIABLE = "GENCOMP_SERVER"
SECRET_VARIABLE = "GENCOMP_SECRET_FILE"
KEY_VARIABLE = "GENCOMP_KEY_FILE"
SERVER_KEY_VARIABLE = "GENCOMP_SERVER_KEY"
SERVER_FILE = "server.json"
CLIENT_FILE = "client.json"


@dataclass(frozen=True)
class ServerFile:
    """Where a server is, and what opens it: its secret, or keys.

    ``pid`` is 0, a text empty, ``keys`` None where it is not known. ``public`` is where it takes
    clients of other machines, with ``public_key``.
    """

    address: str
    secret: str
    pid: int = 0
    version: str = ""
    host: str = field(default="", compare=False)
    keys: Optional[ClientKeys] = None
    public: str = field(default="", compare=False)
    public_key: str = field(default="", compare=False)

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
    try:
        plain = read_private_map(Path(path))
    except ServerUnreachable as error:
        error.details.pop(OWN_FILE, None)  # Nobody writes this one by hand.
        raise
    try:
        return ServerFile(
            address=_checked(str(plain["address"])),
            secret=str(plain["secret"]),
            pid=int(plain.get("pid", 0)),
            version=str(plain.get("version", "")),
            host=str(plain.get("host", "")),
            public=str(plain.get("public", "")),
            public_key=str(plain.get("public_key", "")),
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
    if server.public:
        plain.update(public=server.public, public_key=server.public_key)
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

    In this order: ``$GENCOMP_SERVER``; the ``server`` of the key file that ``$GENCOMP_KEY_FILE``
    names; that of ``client.json`` in the home folder, or else of a table ``[client]`` in settings
    files; ``server.json`` in the home folder. What opens a server that is named is its public key
    (``$GENCOMP_SERVER_KEY``, else in those files or the key file) with a key of ours, or, on
    loopback, the secret of ``$GENCOMP_SECRET_FILE``, of those files or of the ``server.json`` that
    has the same address. A secret is for loopback:
    it is never sent to another machine.

    Raises:
        Unauthorised: A server is named, and what opens it is not to be had.
        ServerUnreachable: A file that is there cannot be understood.
        BadKnob: The address named is none, or a settings file locks another one.
    """
    local = home_folder(environ) / SERVER_FILE
    place = home_folder(environ) / CLIENT_FILE
    users = read_private_map(place) if place.exists() else {}
    layers = read_layers(home_folder(environ), environ)
    chosen, is_locked = client_choice(layers, users, place, environ)
    named = str(chosen["server"]) if is_locked else environ.get(SERVER_VARIABLE, "")
    if not named and environ.get(KEY_VARIABLE):
        named = _my_key(environ, {}).get("server", "")
    named = named or str(chosen.get("server", "") or "")
    if named:
        return _named(named, environ, chosen)
    if not local.exists():
        return None
    here = read_server_file(local)
    return None if here.is_elsewhere else here


def _named(address: str, environ: "Mapping[str, str]", chosen: "dict[str, Any]") -> ServerFile:
    """Return the server at an address, with what opens it: its key and ours, or its secret.

    Args:
        address: The address.
        environ: Where the variables are looked up.
        chosen: What ``client.json`` says, empty where there is none.
    """
    host, _ = split_address(address)
    here = _local_at(address, environ) if is_loopback(host) else None
    keys = _keys_of(address, environ, chosen) if here is None else None
    if keys is not None:
        return ServerFile(address, "", keys=keys)
    if not is_loopback(host):
        raise Unauthorised(
            f"The server at {address} is another machine's, and its public key is not known here.",
            hint=f"Ask whoever runs it for a key file (gencomp keys new NAME --server {address}) "
            f"and name that in {KEY_VARIABLE}, or save it as {CLIENT_FILE} in {HOME_VARIABLE}.",
        )
    secret_file = environ.get(SECRET_VARIABLE, "")
    if not environ.get(SERVER_VARIABLE):
        secret_file = str(chosen.get("secret_file", "") or "") or secret_file
    if secret_file:
        return ServerFile(address, _read_secret(Path(secret_file).expanduser()))
    if here is not None:
        return here
    raise Unauthorised(
        f"The secret of the server at {address} is not known.",
        hint=f"Perhaps no server runs there (gencomp doctor tells); else name the file that holds "
        f"its secret in {SECRET_VARIABLE}, or, where clients need keys at that port, your key file "
        f"in {KEY_VARIABLE} (gencomp keys new makes one).",
    )


def _local_at(address: str, environ: "Mapping[str, str]") -> Optional[ServerFile]:
    """Return the server of ``server.json`` where it has this address."""
    local = home_folder(environ) / SERVER_FILE
    here = read_server_file(local) if local.exists() else None
    return here if here is not None and here.address == address else None


def _keys_of(
    address: str, environ: "Mapping[str, str]", chosen: "dict[str, Any]"
) -> Optional[ClientKeys]:
    """Return the keys for a server, or None where no public key of it is known.

    Raises:
        Unauthorised: Its key is known, and ours is not to be had.
    """
    mine = _my_key(environ, chosen)
    servers = chosen.get("server_keys")
    server_key = (
        environ.get(SERVER_KEY_VARIABLE, "")
        or (chosen.get("server") == address and chosen.get("server_key"))
        or (isinstance(servers, dict) and servers.get(address))
        or (_is_for(address, mine.get("server", "")) and mine.get("server_key"))
    )
    if not server_key:
        return None
    if "secret_key" not in mine:
        raise Unauthorised(
            f"The server at {address} takes clients with keys, and there is no key of yours here.",
            hint=f"Make one with gencomp keys new, and name its file in {KEY_VARIABLE}.",
        )
    server = checked_key(str(server_key), f"The public key of the server at {address}")
    return ClientKeys(server, mine["public_key"], mine["secret_key"], mine.get("name", ""))


def _is_for(address: str, named: str) -> bool:
    """Tell whether a key file is for a server: for the one that it names, or for any."""
    return named in ("", address)


def _my_key(environ: "Mapping[str, str]", chosen: "dict[str, Any]") -> "dict[str, str]":
    """Return the user's key file as a map; empty where there is none."""
    named = environ.get(KEY_VARIABLE, "") or str(chosen.get("key_file", "") or "")
    if named:
        try:
            return read_key_file(Path(named).expanduser())
        except LinkError as error:
            where = KEY_VARIABLE if environ.get(KEY_VARIABLE) else CLIENT_FILE
            error.hint = f"{error.hint} It is named in {where}."
            raise
    if "secret_key" in chosen:
        return read_key_file(home_folder(environ) / CLIENT_FILE)
    return {}


def _checked(address: str) -> str:
    split_address(address)
    return address


def _read_secret(path: Path) -> str:
    """Return the secret in a file: its one line, or the ``secret`` of a server file."""
    text = read_private(path).strip()
    if not text.startswith("{"):
        return text
    return str(parse_map(text, path).get("secret", ""))
