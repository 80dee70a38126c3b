# SPDX-License-Identifier: Apache-2.0
"""``gencomp preview``: where elements go, as one PNG; no server, no job, no model."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from gencomp_protocol.errors import BadKnob
from gencomp_protocol.frames import FrameRange

DONE = 0
_EXAMPLE = """example:
  gencomp preview gencomposite --input bg=plate/shot.%04d.exr --input fg=plane/plane.%04d.exr \\
      --set "trajectory=300,700; 900,420; 1700,300" --set scale=0.4 -o where.png
"""


def add_preview(commands: Any) -> None:
    """Add ``preview`` to a parser's subcommands."""
    preview = commands.add_parser(
        "preview",
        help="show where elements go: path, placed box, area that may change",
        description="Draw path, placed box and the area that may change over bg, at the first, "
        "middle and last frame of the elements. Nothing is generated.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    preview.set_defaults(command=_preview)
    preview.add_argument("system", metavar="SYSTEM", help="a system that places elements")
    preview.add_argument("--frames", metavar="1001-1048", help="default: those of bg, as on disk")
    preview.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=PATTERN",
        help="as gencomp run has it: bg, fg or fg.NAME, fg_matte, holdout, depth",
    )
    preview.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE", dest="knobs")
    preview.add_argument(
        "--colourspace",
        action="append",
        default=[],
        metavar="NAME=SPACE",
        help="what a picture that is not EXR holds: srgb or scene_linear; 8-bit defaults to srgb",
    )
    preview.add_argument(
        "--working-space", default="scene_linear", metavar="SPACE", help="as gencomp run has it"
    )
    preview.add_argument("--ocio", metavar="CONFIG", help="as gencomp run has it")
    preview.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FILE.png", help="picture to write"
    )


def _preview(args: argparse.Namespace) -> int:
    from gencomp_protocol.request import Request
    from gencomp_server.contract import check_request, find_system, schema
    from gencomp_server.fileshot import opened
    from gencomp_server.placing import PlacingParams
    from gencomp_server.preview import preview
    from gencomp_server.sources import gather, parse_given, read_pairs, second_channels
    from gencomp_server.systems import REGISTRY

    if args.out.suffix.lower() != ".png":
        raise BadKnob(f"'{args.out}' is not a PNG.", hint="Write it as -o where.png.")
    system = find_system(REGISTRY, args.system)
    if not issubclass(system.params, PlacingParams):
        fitting = [one.name for one in REGISTRY if issubclass(one.params, PlacingParams)]
        raise BadKnob(
            f"{system.title} places no elements, so there is nothing to preview.",
            hint=f"Systems that do: {', '.join(fitting)}.",
        )
    knobs = read_pairs(args.knobs, "--set", "--set scale=0.4")
    spaces = read_pairs(args.colourspace, "--colourspace", "--colourspace bg=srgb")
    declaration = schema(system)
    given = second_channels([parse_given(text) for text in args.input], declaration, knobs)
    frames = FrameRange.parse(args.frames) if args.frames else None
    found = gather(given, declaration, frames, spaces)
    request = Request(
        system.name,
        found.frames,
        tuple(source.header for source in found.sources),
        knobs,
        args.working_space,
        ocio=_config(args.ocio),
    )
    params = check_request(system, request)
    with opened(system, request, found.sources) as shot:
        lines = preview(args.out, f"{system.title}   {request.frames}", shot, params)
    for line in (*found.notes, *lines, str(args.out)):
        sys.stdout.write(f"{line}\n")
    return DONE


def _config(asked: str | None) -> str:
    """Return the OpenColorIO config that is asked for, as a request has it."""
    config = os.environ.get("OCIO", "") if asked is None else asked
    is_file = bool(config) and not config.startswith("ocio://")
    return str(Path(config).absolute()) if is_file else config
