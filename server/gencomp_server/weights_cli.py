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
from gencomp_server.backbones import SPECS, BackboneSpec
from gencomp_server.cost import spell_gigabytes
from gencomp_server.footprint import Placement, stage_bytes
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
    listing.add_argument("names", nargs="*", metavar="NAME", help="sets to tell all of")
    listing.add_argument("--long", action="store_true", help="tell all of every set")
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

    place = load_config().config.weights_place()
    return place.shelf(), place.allowed


# --- list ----------------------------------------------------------------------------------------


def _list(args: argparse.Namespace) -> int:
    shelf, allowed = _shelf()
    names = [shelf.set(name).name for name in args.names] or list(shelf.sets)
    if args.json:
        found = [
            {**as_plain(shelf, name), "state": _state(shelf, name, allowed), **_sizes(name)}
            for name in names
        ]
        print(json.dumps(found, indent=2))
        return 0
    print(f"Weights belong in {shelf.folder}; allowed licence classes: {', '.join(allowed)}.")
    if not (args.names or args.long):
        print("\n" + "\n".join(overview(shelf, allowed)))
        return 0
    for name in names:
        print("\n" + "\n".join(describe(shelf, name, allowed)))
    return 0


def overview(shelf: Shelf, allowed: Sequence[str]) -> list[str]:
    """Return one line for each choice of the knob ``backbone``, and what the columns mean."""
    rows = [("backbone", "state", "licence class", "GPU memory", "disk", "for")]
    choices = [spec for spec in SPECS if not spec.is_tiny]
    for spec in choices:
        name = spec.weights
        least, most = (spell_gigabytes(count) for count in _gpu_bytes(spec))
        rows.append(
            (
                spec.name,
                _state(shelf, name, allowed),
                shelf.licence_class(name),
                f"{least} to {most}",
                f"~{spell_gigabytes(_disk_bytes(spec))}",
                _spell_systems(spec),
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    others = [name for name in shelf.sets if name not in {spec.weights for spec in choices}]
    told = [
        "GPU memory is for one window at the size trained at: at the least, and with all weights "
        "on the card. Disk is estimated from the numbers of parameters in bf16, what is taken from "
        "a base included.",
        f"Other sets: {', '.join(others)}." if others else "",
        "gencomp weights list NAME says what is missing, where to get it and under which licence; "
        "--long says it of all.",
    ]
    return [*lines, ""] + [line for text in told for line in textwrap.wrap(text, 100)]


def _spell_systems(spec: BackboneSpec) -> str:
    return ", ".join(
        name if name in spec.trained_for else f"{name} (stands in)" for name in spec.systems
    )


def _gpu_bytes(spec: BackboneSpec) -> tuple[int, int]:
    """Return the peak of device memory in bytes: the leanest placement's and the fullest's."""
    latent_frames = spec.latent_frames(spec.window_frames)
    least, most = (
        max(stage_bytes(spec, spec.model_size, latent_frames, "cuda:0", placement).values())
        for placement in (Placement("group", tiling=True), Placement())
    )
    return least, most


def _disk_bytes(spec: BackboneSpec) -> int:
    """Estimate the bytes of everything that is loaded, two for each parameter."""
    kind = spec.architecture
    return 2 * (kind.parameters + kind.vae_parameters + kind.text_parameters)


def _sizes(name: str) -> dict[str, int]:
    """Return the estimated sizes of a set that is a choice of its own; of others nothing."""
    for spec in SPECS:
        if spec.weights == name:
            least, most = _gpu_bytes(spec)
            return {
                "disk_bytes_estimated": _disk_bytes(spec),
                "gpu_bytes_least": least,
                "gpu_bytes_most": most,
            }
    return {}


def _state(shelf: Shelf, name: str, allowed: Sequence[str]) -> str:
    if shelf.damage(name) is not None:
        return "damaged"
    if shelf.missing(name):
        return "missing"
    is_allowed = shelf.licence_class(name) in allowed and _allows(shelf, name)
    there = "ships" if shelf.set(name).shipped else "installed"
    return there if is_allowed else "refused"


def _allows(shelf: Shelf, name: str) -> bool:
    """Tell whether some backbone that a set serves may be used; a base serves whom it serves."""
    of_set = [spec.name for spec in SPECS if spec.weights == name]
    return not of_set or any(map(shelf.allows, of_set))


def describe(shelf: Shelf, name: str, allowed: Sequence[str]) -> list[str]:
    """Return what a person reads of one set, in lines of at most a hundred characters."""
    one, state = shelf.set(name), _state(shelf, name, allowed)
    facts = [("for", one.purpose), ("licence", f"{shelf.licence_class(name)}: {one.licence}")]
    if one.base:
        facts.append(("takes", f"{shelf.needs(name)}."))
    if shelf.licence_class(name) not in allowed:
        facts.append(("refused", "Its licence class is not in the setting allowed_licences."))
    if not _allows(shelf, name):
        facts.append(("refused", "It is not in the setting allowed_models."))
    damage = shelf.damage(name)
    if damage is not None:
        facts.append(("damaged", str(damage)))
    elif state != "missing":
        facts.append(("lies in", str(shelf.place(name))))
    else:
        facts.append(("get it", one.source))
        if one.base:
            facts.append(("its base", shelf.set(one.base).source))
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
    if not args.names and all(shelf.set(name).shipped for name in names):
        raise WeightsMissing(
            f"No set of weights is installed in {shelf.folder}.",
            hint="gencomp weights list says where each one belongs.",
        )
    for name in names:
        verify = shelf.accept if args.accept else shelf.verify
        for key, digest in verify(name, _say_progress).items():
            print(f"{digest}  {key}")
    shipped = [name for name in names if shelf.set(name).shipped]
    recorded = [name for name in names if name not in shipped]
    if shipped:
        print(f"As it comes with gencomp: {', '.join(shipped)}.")
    if recorded:
        print(f"Recorded in {shelf.lock.path}: {', '.join(recorded)}.")
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
