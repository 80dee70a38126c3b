# SPDX-License-Identifier: Apache-2.0
"""``gencomp probe``: what the server would say of picture files, without a server."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from gencomp_protocol.errors import MissingFrame

DONE, REFUSED = 0, 2


def add_probe(commands: Any) -> None:
    """Add ``probe`` to a parser's subcommands."""
    probe = commands.add_parser(
        "probe",
        help="say of picture files what the server would",
        description="Read picture files as the server would, with its settings, and say of each in "
        "one line what it is or why it is refused. Exit code 0: all are fine; 2: some are not.",
    )
    probe.set_defaults(command=_probe)
    probe.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="file, or folder of them"
    )
    probe.add_argument("--json", action="store_true", help="one JSON map a line")


def _probe(args: argparse.Namespace) -> int:
    from gencomp_server.config import load_config
    from gencomp_server.exr.decode import DecodePool
    from gencomp_server.probe import find_files, probe_files

    config = load_config(environ=os.environ).config
    pool = DecodePool(
        config.decode_processes,
        memory_bytes=config.decode_memory_bytes,
        timeout_s=config.decode_timeout_s,
        limits=config.picture_limits(),
    )
    seen = refused = 0
    try:
        for one in probe_files(find_files(args.files), pool):
            seen, refused = seen + 1, refused + (one.error is not None)
            text = json.dumps(one.plain()) if args.json else one.line()
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
    finally:
        pool.close(timeout_s=0.0)
    if not seen:
        raise MissingFrame("There is no file in what was named.", hint="Name picture files.")
    return REFUSED if refused else DONE
