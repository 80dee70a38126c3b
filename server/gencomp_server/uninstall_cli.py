# SPDX-License-Identifier: Apache-2.0
"""``gencomp uninstall`` and ``gencomp doctor --paths``: what gencomp writes, shown and removed."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from gencomp_protocol.errors import BadKnob, ServerUnreachable
from gencomp_protocol.locate import home_folder
from gencomp_server.writes import Kind, Place, places, remove, size_of

_BECOMES = {
    Kind.STATE: "removed by gencomp uninstall",
    Kind.KEYS: "removed with --keys alone",
    Kind.RESULTS: "removed, but kept with --keep-results",
    Kind.LEFT: "never removed",
}


def add_uninstall(commands: Any) -> None:
    """Add ``uninstall`` to a parser's subcommands."""
    command = commands.add_parser(
        "uninstall",
        help="remove what gencomp has written for this user on this machine",
        description="Remove what gencomp has written for this user on this machine, as gencomp "
        "doctor --paths lists it. Weights, settings by hand, results where you told them to be, "
        "and the program itself stay.",
    )
    command.set_defaults(command=_uninstall)
    command.add_argument(
        "--keep-results", action="store_true", help="keep unsaved results, ledger and presets"
    )
    command.add_argument(
        "--keys",
        action="store_true",
        help="remove the server's key and the list of keys too: every seat needs a new key file",
    )
    command.add_argument(
        "--yes", action="store_true", help="do not ask; needed where there is no terminal"
    )


def lines(environ: Mapping[str, str]) -> list[str]:
    """Return the table of places, those that are there with their size."""
    found = []
    for kind in Kind:
        found.append(f"{kind.value}: {_BECOMES[kind]}")
        for place in places(environ):
            if place.kind is kind:
                there = place.found()
                size = f"{size_of(there) / 1e6:.1f} MB" if there else "not there"
                if not place.folder.is_absolute() or "<" in str(place.folder):
                    size = "where it was told"
                found.append(f"  {_spelt(place)}  ({size})  {place.what}")
    return found


def _spelt(place: Place) -> str:
    """Return a place as a shell would find it."""
    names = [name for name in place.names if not name.startswith(".")] or list(place.names)
    if not names:
        return str(place.folder)
    return f"{place.folder}/{names[0] if len(names) == 1 else '{' + ','.join(names) + '}'}"


def _uninstall(args: argparse.Namespace) -> int:
    from gencomp_server.config import load_config
    from gencomp_server.lifetime import claimed
    from gencomp_server.service import LOCK_FILE

    kinds = {Kind.STATE}
    kinds |= set() if args.keep_results else {Kind.RESULTS}
    kinds |= {Kind.KEYS} if args.keys else set()
    known = [place for place in places(os.environ) if place.found()]
    going = [place for place in known if place.kind in kinds]
    spool = load_config().config.spool
    with ExitStack() as held:
        if spool.is_dir():
            try:
                held.enter_context(claimed(spool / LOCK_FILE))
            except ServerUnreachable as error:
                raise ServerUnreachable(
                    f"A server works in {spool}.", hint="Stop it, then uninstall."
                ) from error
        if not going:
            sys.stdout.write("Nothing of gencomp's is here.\n")
        if going and not args.yes and not _is_asked():
            raise BadKnob(
                "Nobody can be asked here whether all this shall be removed.",
                hint="gencomp doctor --paths lists what goes; say --yes to remove it.",
            )
        if going and not args.yes and not _agreed(going):
            sys.stdout.write("Nothing was removed.\n")
            return 1
        for place in going:
            size = size_of(place.found())
            for path in remove(place):
                sys.stdout.write(f"removed {path}\n")
            sys.stdout.write(f"  {size / 1e6:.1f} MB: {place.what}\n")
        for place in known:
            if place.kind is Kind.KEYS and not args.keys:
                sys.stdout.write(f"kept {_spelt(place)}: {place.what}; --keys removes it.\n")
    _leave(home_folder())
    return 0


def _is_asked() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _agreed(going: list[Place]) -> bool:
    """Ask on the terminal."""
    for place in going:
        sys.stdout.write(f"{_spelt(place)}  {place.what}\n")
    sys.stdout.write("Remove all this? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _leave(home: Path) -> None:
    """Remove the home folder where nothing is left in it, and say what stays."""
    with suppress(OSError):
        home.rmdir()
    if home.is_dir():
        stays = ", ".join(sorted(path.name for path in home.iterdir()))
        sys.stdout.write(f"Left in {home}: {stays}.\n")
    sys.stdout.write(f"The program itself is in {sys.prefix}; remove that as it was installed.\n")
