# SPDX-License-Identifier: Apache-2.0
"""``gencomp keys``: make a key, let one in, list them, let one in no more."""

from __future__ import annotations

import argparse
import getpass
import json
import re
import socket
import sys
import time
from pathlib import Path
from typing import Any

from gencomp_protocol import sockets
from gencomp_protocol.errors import BadKnob, GencompError, Unauthorised
from gencomp_protocol.keys import checked_name, write_key_file
from gencomp_protocol.locate import CLIENT_FILE, KEY_VARIABLE, home_folder
from gencomp_server.keys import KeyFolder

_ODD = re.compile(r"[^A-Za-z0-9_.@-]+")
_EXAMPLE = """on the server, for somebody:   gencomp keys new ada --server tcp://gpu1:5570 --allow
or, so that no secret travels:  gencomp keys new                 (on the seat; it says the rest)
                                gencomp keys allow ada@ws12 PUBLIC-KEY      (on the server)
"""


def add_keys(commands: Any) -> None:
    """Add ``keys`` and its four commands to a parser's subcommands."""
    keys = commands.add_parser(
        "keys",
        help="who may speak to a server beyond its own machine",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    inside = keys.add_subparsers(title="commands", metavar="COMMAND", required=True)
    new = inside.add_parser("new", help="make a key of a client, in a file for its owner alone")
    new.set_defaults(command=_new)
    new.add_argument("name", nargs="?", metavar="NAME", help="default: user@host")
    new.add_argument("--out", type=Path, metavar="FILE", help="default: NAME.key in gencomp's home")
    new.add_argument(
        "--server",
        metavar="tcp://HOST:PORT",
        help="where this machine's server takes clients with keys: the file says so, and holds its "
        "public key, which is made if there is none",
    )
    new.add_argument("--allow", action="store_true", help="let it in, to this machine's server")
    allow = inside.add_parser("allow", help="let a key in, to this machine's server")
    allow.set_defaults(command=_allow)
    allow.add_argument("name", metavar="NAME", help="what its jobs are counted by")
    allow.add_argument("key", metavar="PUBLIC-KEY", help="64 hex digits, as keys new says them")
    listing = inside.add_parser("list", help="the server's public key, and the keys it lets in")
    listing.set_defaults(command=_list)
    listing.add_argument("--json", action="store_true", help="one JSON map")
    revoke = inside.add_parser("revoke", help="let a key in no more; it counts at once")
    revoke.set_defaults(command=_revoke)
    revoke.add_argument("name", metavar="NAME")


def _folder() -> KeyFolder:
    from gencomp_server.config import load_config

    return KeyFolder(load_config().config.keys)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _new(args: argparse.Namespace) -> int:
    name = checked_name(args.name or _ODD.sub("-", f"{getpass.getuser()}@{socket.gethostname()}"))
    public, secret = sockets.new_pair()
    plain = {"name": name, "public_key": public, "secret_key": secret}
    folder = _folder()
    if args.server is not None:
        _check_reachable(args.server)
        plain.update(server=args.server, server_key=folder.make_server_key())
    where = args.out if args.out is not None else home_folder() / f"{name}.key"
    write_key_file(where, plain)
    if args.allow:
        folder.make_server_key()
        try:
            folder.allow(name, public)
        except GencompError:
            where.unlink()  # Nothing lets this key in, and the next try needs its place.
            raise
    _say(f"{where} holds the secret key of {name}; nobody else can read it.")
    _say(f"public key  {public}")
    if args.allow:
        _say(f"{name} is let in.")
    else:
        _say(f"Let it in on the server: gencomp keys allow {name} {public}")
    if args.server is not None:
        _say(
            f"On the seat name the file in {KEY_VARIABLE}, or save it as {CLIENT_FILE} in "
            "gencomp's home folder, for its user alone (chmod 600)."
        )
    return 0


def _check_reachable(address: str) -> None:
    """Refuse an address that means every machine: a seat would look for the server on itself.

    Raises:
        BadKnob: The address is that of all interfaces, or none at all.
    """
    host, _ = sockets.split_address(address)
    if host in ("0.0.0.0", "::", "*"):
        raise BadKnob(
            f"Seats cannot reach a server at {address}.",
            hint=f"Give the name or IP address that they know it by: tcp://{socket.gethostname()}:PORT.",
        )


def _allow(args: argparse.Namespace) -> int:
    folder = _folder()
    server = folder.make_server_key()
    folder.allow(args.name, args.key)
    _say(f"{args.name} is let in.")
    _say(f"The client needs the server's public key: GENCOMP_SERVER_KEY={server}")
    return 0


def _list(args: argparse.Namespace) -> int:
    folder = _folder()
    try:
        server = folder.server_key()[0]
    except Unauthorised:
        if folder.has_server_key():
            raise
        server = ""
    known = folder.allowed()
    if args.json:
        keys = [{"name": k.name, "public_key": k.public, "since_s": k.since_s} for k in known]
        plain = {"server_key": server, "folder": str(folder.folder), "keys": keys}
        _say(json.dumps(plain, indent=2))
        return 0
    _say(f"server  {server or 'has no key yet; gencomp keys allow makes it'}")
    for key in known:
        since = time.strftime("%Y-%m-%d", time.localtime(key.since_s))
        _say(f"{key.name}  {key.public}  since {since}")
    if not known:
        _say("Nobody is let in.")
    return 0


def _revoke(args: argparse.Namespace) -> int:
    _folder().revoke(args.name)
    _say(f"{args.name} is not let in any more.")
    return 0
