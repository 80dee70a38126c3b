# SPDX-License-Identifier: Apache-2.0
"""``gencomp weights``: what is installed, whether it is what it was, where it belongs, converting.

Free of torch; a checkpoint is opened by a process of its own (``models/convert.py``).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gencomp_protocol
import gencomp_server
from gencomp_protocol.errors import (
    GencompError,
    InternalError,
    OutOfMemory,
    WeightsMissing,
    error_from_wire,
)
from gencomp_server.backbones import SPECS
from gencomp_server.weights import Shelf, as_plain, pickles_in

_CONVERTER = "gencomp_server.models.convert"
_PROVEN = {
    "vector": "against reference vectors",
    "keys": "by names and shapes",
    "no": "not at all",
}
_LINE_BYTES = 256 * 2**20  # How often a long digest says how far it is.


def add_weights(commands: Any) -> None:
    """Add ``weights`` and its four commands to a parser's subcommands."""
    weights = commands.add_parser("weights", help="list, verify, locate and convert model weights")
    inside = weights.add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = inside.add_parser("list", help="what is installed, missing or refused, and why")
    listing.set_defaults(command=_list)
    listing.add_argument("--json", action="store_true", help="everything that is declared")
    verify = inside.add_parser(
        "verify",
        help="compute the sha256 of installed weights and record it, or compare it",
    )
    verify.set_defaults(command=_verify)
    verify.add_argument("names", nargs="*", metavar="NAME", help="sets; default: all installed")
    verify.add_argument(
        "--accept", action="store_true", help="record files anew that have changed on purpose"
    )
    where = inside.add_parser("path", help="where weights belong")
    where.set_defaults(command=_path)
    where.add_argument("name", nargs="?", metavar="NAME", help="a set; default: the whole folder")
    convert = inside.add_parser(
        "convert",
        help="turn a .pt, .pth, .bin, .ckpt, or a folder of shards, into safetensors",
    )
    convert.set_defaults(command=_convert)
    convert.add_argument("source", type=Path, metavar="SRC")
    convert.add_argument("destination", type=Path, metavar="DST", help="a new .safetensors file")


def _shelf() -> tuple[Shelf, tuple[str, ...]]:
    """Return the shelf that is configured, and the licence classes that are allowed."""
    from gencomp_server.config import load_config

    config = load_config().config
    return Shelf(config.weights, config.weights_lock), tuple(config.allowed_licences)


# --- list ----------------------------------------------------------------------------------------


def _list(args: argparse.Namespace) -> int:
    shelf, allowed = _shelf()
    if args.json:
        found = [
            {**as_plain(shelf, name), "state": _state(shelf, name, allowed)} for name in shelf.sets
        ]
        print(json.dumps(found, indent=2))
        return 0
    print(f"Weights belong in {shelf.folder}; allowed licence classes: {', '.join(allowed)}.")
    for name in shelf.sets:
        print("\n" + "\n".join(describe(shelf, name, allowed)))
    return 0


def _state(shelf: Shelf, name: str, allowed: Sequence[str]) -> str:
    if shelf.missing(name):
        return "missing"
    return "installed" if shelf.licence_class(name) in allowed else "refused"


def describe(shelf: Shelf, name: str, allowed: Sequence[str]) -> list[str]:
    """Return what a person reads of one set, in lines of at most a hundred characters."""
    one, state = shelf.set(name), _state(shelf, name, allowed)
    facts = [("for", one.purpose), ("licence", f"{shelf.licence_class(name)}: {one.licence}")]
    if shelf.licence_class(name) not in allowed:
        facts.append(("refused", "Its licence class is not in the setting allowed_licences."))
    if state != "missing":
        facts.append(("lies in", str(shelf.place(name))))
    else:
        facts.append(("get it", one.source))
        facts += [("missing", str(path)) for path in shelf.missing(name)]
        facts += [
            ("convert", f"gencomp weights convert {source} {made}")
            for source, made in shelf.unconverted(name).items()
        ]
        facts += [("no use", f"{path} is a pickle") for path in _idle_pickles(shelf, name)]
    proofs = sorted({spec.proven for spec in SPECS if name in (spec.weights, spec.base)})
    facts += [("loading", f"proven {_PROVEN[proof]} ({proof})") for proof in proofs]
    lines = [f"{state.upper():<9}  {name}  {one.title}"]
    for label, text in facts:
        lines += textwrap.wrap(
            text,
            100,
            initial_indent=f"  {label:<8} ",
            subsequent_indent=" " * 11,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return lines


def _idle_pickles(shelf: Shelf, name: str) -> list[Path]:
    """Return the pickles in a set's folder that no declaration tells how to convert."""
    folder = shelf.place(name)
    known = shelf.unconverted(name)
    return [path for path in pickles_in(folder) if path not in known] if folder.is_dir() else []


# --- verify and path -----------------------------------------------------------------------------


def _verify(args: argparse.Namespace) -> int:
    shelf, _ = _shelf()
    names = args.names or [name for name in shelf.sets if shelf.is_installed(name)]
    if not names:
        raise WeightsMissing(
            f"No set of weights is installed in {shelf.folder}.",
            hint="gencomp weights list says where each one belongs.",
        )
    for name in names:
        if args.accept:
            shelf.accept(name)
        for key, digest in shelf.verify(name, _say_progress).items():
            print(f"{digest}  {key}")
    print(f"Recorded in {shelf.lock.path}: {', '.join(names)}.")
    return 0


def _say_progress(file: Path, done: int, total: int) -> None:
    """Say how far a long digest is, on standard error."""
    if done % _LINE_BYTES == 0 and done < total:
        sys.stderr.write(f"{file}: {done / 1e9:.1f} of {total / 1e9:.1f} GB\n")


def _path(args: argparse.Namespace) -> int:
    shelf, _ = _shelf()
    print(shelf.place(args.name) if args.name else shelf.folder)
    return 0


# --- convert -------------------------------------------------------------------------------------


def _convert(args: argparse.Namespace) -> int:
    report = convert(args.source, args.destination)
    size = f"{report['size'] / 1e9:.2f} GB"
    print(f"{report['destination']}: {report['tensors']} tensors, {size}.")
    if report["unwrapped"]:
        print(f"Taken from within: {', '.join(report['unwrapped'])}")
    if report["left_out"]:
        print(f"Left out, since they are no weights: {', '.join(report['left_out'])}.")
    return 0


def convert(source: Path, destination: Path) -> dict[str, Any]:
    """Convert a checkpoint in a process of its own and return its report.

    Raises:
        GencompError: What the process raised (see ``models/convert.py``).
        OutOfMemory: It was killed.
        InternalError: It ended without a word.
    """
    command = [sys.executable, "-m", _CONVERTER, str(source), str(destination)]
    # It imports these very packages, wherever this process has them from.
    rooms = {
        str(Path(one).parent) for one in (*gencomp_protocol.__path__, *gencomp_server.__path__)
    }
    before = [path for path in [os.environ.get("PYTHONPATH", "")] if path]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*sorted(rooms), *before])},
    )
    said = _last_map(done.stdout)
    if "report" in said:
        report: dict[str, Any] = said["report"]
        return report
    raise _failure(source, done.returncode, said, done.stderr)


def _failure(source: Path, code: int, said: dict[str, Any], told: str) -> GencompError:
    if "error" in said:
        return error_from_wire(said["error"])
    if code == -9:
        return OutOfMemory(
            f"Converting {source} took more memory than there is.",
            hint="Convert it on a machine with twice the checkpoint's size in memory.",
        )
    lines = told.strip().splitlines()
    return InternalError(
        f"Converting {source} ended early (code {code}): {lines[-1] if lines else 'no word'}."
    )


def _last_map(text: str) -> dict[str, Any]:
    """Return the map in the last line of a text; empty where there is none."""
    lines = text.strip().splitlines()
    try:
        found = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
