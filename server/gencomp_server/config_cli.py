# SPDX-License-Identifier: Apache-2.0
"""``gencomp config explain``: every setting, where it comes from, what it stands over, its lock."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gencomp_protocol import home_folder, settings
from gencomp_protocol.errors import BadKnob
from gencomp_protocol.locate import CLIENT_FILE
from gencomp_protocol.settings import KNOBS, Key, Settled
from gencomp_server.settled import NUKE_FILE, settled_here


def add_config(commands: Any) -> None:
    """Add ``config`` and its command to a parser's subcommands."""
    config = commands.add_parser("config", help="say which settings hold, and why")
    inside = config.add_subparsers(title="commands", metavar="COMMAND", required=True)
    explain = inside.add_parser(
        "explain",
        help="each setting with file and line, what it stands over, and its lock",
        description="Say each setting: its value, the file and line, variable or default that it "
        "comes from, what that stands over, and which file locks it.",
    )
    explain.set_defaults(command=_explain)
    explain.add_argument(
        "key", nargs="?", metavar="KEY", help="device, nuke.cache_template, nuke; default: all"
    )
    explain.add_argument("--json", action="store_true", help="a list of maps")


def chosen(found: Mapping[Key, Settled], key: str | None) -> dict[Key, Settled]:
    """Return the settings that a word of the command line names: one, a table, or all.

    Raises:
        BadKnob: There is none of that name.
    """
    if key is None:
        return dict(found)
    parts = tuple(key.split("."))
    some = {name: one for name, one in found.items() if name[: len(parts)] == parts}
    if some or parts[0] == KNOBS:
        return some
    known = [".".join(name) for name in found]
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"Did you mean '{near[0]}'?" if near else "gencomp config explain lists all."
    raise BadKnob(f"There is no setting '{key}'.", hint=hint)


def as_plain(found: Mapping[Key, Settled]) -> list[dict[str, Any]]:
    """Return settings as maps for a program."""
    return [
        {
            "key": ".".join(key),
            "value": _plain(one.value),
            "source": one.origin.source,
            "line": one.origin.line,
            "locked_by": None if one.lock is None else str(one.lock),
            "over": [{"value": _plain(g.value), "source": str(g.origin)} for g in one.over],
        }
        for key, one in found.items()
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, Path) else value


def _explain(args: argparse.Namespace) -> int:
    found = chosen(settled_here(os.environ), args.key)
    if args.json:
        sys.stdout.write(json.dumps(as_plain(found), indent=2) + "\n")
        return 0
    if args.key is None:
        sys.stdout.write(f"Files, each over those before it: {_files(os.environ)}.\n\n")
    lines = settings.explained(found) or ["No file sets a knob."]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _files(environ: Mapping[str, str]) -> str:
    """Return the settings files in their order, and which of them are not there."""
    places = [place for place, _ in settings.facility_files(environ)]
    home = home_folder(environ)
    places += [home / name for name in (settings.CONFIG_FILE, CLIENT_FILE, NUKE_FILE)]
    return ", ".join(f"{place}{'' if place.exists() else ' (not there)'}" for place in places)
