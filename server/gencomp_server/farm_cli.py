# SPDX-License-Identifier: Apache-2.0
"""``gencomp farm``: a Nuke script as a farm job, its results first and then its frames."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gencomp_protocol.errors import BadKnob, UnwritableOutput

if TYPE_CHECKING:
    from gencomp_server.farm import FarmJob

DONE = 0
_EXAMPLE = """example:
  gencomp farm openjd comp.nk
  openjd run comp.openjd.yaml -p file://comp.openjd.values.json --step Comp --run-dependencies
"""


def add_farm(commands: Any) -> None:
    """Add ``farm`` to a parser's subcommands."""
    farm = commands.add_parser(
        "farm",
        help="write a farm job of a Nuke script",
        description="Write a farm job of a Nuke script: the results of gencomp's nodes on one host "
        "with a GPU, then the frames, which only read them.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = farm.add_subparsers(dest="farm", metavar="KIND", required=True)
    openjd = _kind(kinds, "openjd", "an Open Job Description template, YAML or JSON", _openjd)
    openjd.add_argument(
        "-o", "--out", type=Path, metavar="FILE", help="default: SCRIPT.openjd.yaml beside it"
    )
    opencue = _kind(kinds, "opencue", "an OpenCue specification, or a job handed in", _opencue)
    opencue.add_argument("-o", "--out", type=Path, metavar="FILE", help="default: standard output")
    opencue.add_argument("--launch", action="store_true", help="hand it in instead of writing it")
    opencue.add_argument("--show", default="", help="default: OpenCue's")
    opencue.add_argument("--shot", default="", help="default: OpenCue's")
    opencue.add_argument("--user", default="", help="default: whoever runs this")


def _kind(kinds: Any, name: str, words: str, command: Any) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = kinds.add_parser(name, help=words, description=words)
    parser.set_defaults(command=command)
    parser.add_argument("script", type=Path, metavar="SCRIPT.nk")
    parser.add_argument("--frames", default="", metavar="1001-1048", help="default: the script's")
    parser.add_argument("--writes", default="", metavar="A,B", help="default: all not disabled")
    parser.add_argument("--chunk", type=int, default=1, metavar="N", help="frames per task; 1")
    parser.add_argument("--gpus", type=int, default=1, metavar="N", help="that results need; 1")
    parser.add_argument("--nuke", default="nuke", metavar="COMMAND", help="Nuke on the farm; nuke")
    parser.add_argument(
        "--gencomp", type=Path, metavar="FOLDER", help="gencomp as the farm sees it; this one"
    )
    return parser


def _job(args: argparse.Namespace) -> FarmJob:
    from gencomp_server.farm import farm_job
    from gencomp_server.nukescript import read_script

    return farm_job(
        read_script(args.script.resolve()),
        gencomp=args.gencomp,
        frames=args.frames,
        writes=args.writes,
        nuke=args.nuke,
        chunk=args.chunk,
        gpus=args.gpus,
    )


def _openjd(args: argparse.Namespace) -> int:
    from gencomp_server.farm import openjd_template, openjd_values, yaml_text

    job = _job(args)
    out = args.out or job.script.path.with_suffix(".openjd.yaml")
    suffix = out.suffix.lower()
    if suffix not in (".yaml", ".yml", ".json"):
        raise BadKnob(f"'{out}' is neither YAML nor JSON.", hint="Write it as -o job.yaml.")
    template = openjd_template(job, out.resolve().parent)
    text = json.dumps(template, indent=2) + "\n" if suffix == ".json" else yaml_text(template)
    _write(out, text)
    return _write(out.with_suffix(".values.json"), json.dumps(openjd_values(job), indent=2) + "\n")


def _opencue(args: argparse.Namespace) -> int:
    from gencomp_server.farm import opencue_launcher

    launcher = opencue_launcher(_job(args), show=args.show, shot=args.shot, user=args.user)
    if args.launch:
        for job in launcher.launch(use_pycuerun=False):
            sys.stdout.write(f"{job.name()} is handed in.\n")
        return DONE
    return _write(args.out, f"{launcher.serialize(use_pycuerun=False)}\n")


def _write(place: Path | None, text: str) -> int:
    """Write a file and name it, or write to standard output."""
    if place is None:
        sys.stdout.write(text)
        return DONE
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UnwritableOutput(f"{place} cannot be written ({error.strerror}).") from error
    sys.stdout.write(f"{place}\n")
    return DONE
