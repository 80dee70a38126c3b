# SPDX-License-Identifier: Apache-2.0
"""``gencomp assist``: from an instruction to the texts of a job, by an assistant one has set up.

It shows which frames and which text would leave, and to which host, and asks, before anything does.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gencomp_protocol.errors import BadKnob
from gencomp_protocol.frames import FrameRange
from gencomp_protocol.layers import PLATE
from gencomp_server.contract import Input

if TYPE_CHECKING:
    from gencomp_server.assistant import Endpoint, Letter
    from gencomp_server.config import ServerConfig

DONE, WRONG = 0, 2
MOST_PICTURES = 8
_SYSTEMS = ("dynvfx",)
_EXAMPLE = """example:
  gencomp assist dynvfx --input plate=plate/shot.%04d.exr \\
      --instruction "a whale breaches behind the boat"
"""


def add_assist(commands: Any) -> None:
    """Add ``assist`` to a parser's subcommands."""
    assist = commands.add_parser(
        "assist",
        help="let an assistant of your own write a job's texts",
        description="Ask the OpenAI-compatible endpoint of the settings for a job's texts. What "
        "would leave, and to which host, is shown first. Off until allow_network is set.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    assist.set_defaults(command=_assist)
    assist.add_argument("system", metavar="SYSTEM", choices=_SYSTEMS, help="dynvfx")
    assist.add_argument(
        "--input",
        required=True,
        action="append",
        metavar="plate=PATTERN",
        help="the shot, as gencomp run has it; or a few of its frames, plate@1001=FILE for each",
    )
    assist.add_argument("--instruction", required=True, metavar="TEXT", help="what to add")
    assist.add_argument("--frames", metavar="1001-1048", help="default: the plate's, as on disk")
    assist.add_argument(
        "--colourspace", metavar="plate=SPACE", help="srgb or scene_linear, where it is not EXR"
    )
    assist.add_argument(
        "--working-space", default="scene_linear", metavar="SPACE", help="as gencomp run has it"
    )
    assist.add_argument("--ocio", metavar="CONFIG", help="OpenColorIO config; default: $OCIO")
    assist.add_argument(
        "--converse",
        action="store_true",
        help="for a program: writes what would leave as one line of JSON, reads y or n, writes the "
        "knob values as another",
    )
    assist.add_argument("--yes", action="store_true", help="do not ask; what leaves is still shown")
    assist.add_argument("--json", action="store_true", help="one JSON map of knob values")


def settings_endpoint(config: ServerConfig) -> Endpoint:
    """Return the endpoint that the settings name.

    Raises:
        BadKnob: The network is not allowed, or a setting is missing or wrong.
    """
    from gencomp_server.assistant import endpoint_of

    return endpoint_of(
        allow_network=config.allow_network,
        url=config.assistant_url,
        model=config.assistant_model,
        key_file=config.assistant_key_file,
        timeout_s=config.assistant_timeout_s,
    )


def agree(letter: Letter, *, already: bool = False) -> bool:
    """Show what would leave on standard error, and ask for it there.

    Args:
        letter: What would leave.
        already: True where somebody has agreed beforehand.

    Returns:
        True only for ``y`` or ``yes``; end of input is no.
    """
    sys.stderr.write("This would leave this machine:\n")
    sys.stderr.write("".join(f"{line}\n" for line in letter.tells))
    if already:
        return True
    sys.stderr.write("Send it? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def converse(letter: Letter) -> bool:
    """Write what would leave as one line of JSON on standard output, and read the answer.

    Returns:
        True only for ``y`` or ``yes``; end of input is no.
    """
    _say({"letter": list(letter.tells), "host": letter.endpoint.host})
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _say(plain: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(plain) + "\n")
    sys.stdout.flush()


def _assist(args: argparse.Namespace) -> int:
    from gencomp_server.assistant import suggest, vfx_letter
    from gencomp_server.colour.spaces import resolve
    from gencomp_server.config import load_config
    from gencomp_server.keyframes import key_pictures
    from gencomp_server.sources import gather, parse_given, read_pairs

    endpoint = settings_endpoint(load_config().config)
    vfx_letter(endpoint, args.instruction, ())  # refused before a file is read
    given = [parse_given(text) for text in args.input]
    for one in given:
        if one.name != PLATE:
            raise BadKnob(f"--input names '{one.name}'; assist looks at the plate alone.")
    if sum(one.frame is not None for one in given) > MOST_PICTURES:
        raise BadKnob(f"--input names more than {MOST_PICTURES} frames.", hint="Three will do.")
    plate = dataclasses.asdict(Input(PLATE, "rgb", "The shot."))
    schema = {"title": "assist", "inputs": [plate]}
    typed = [] if args.colourspace is None else [args.colourspace]
    spaces = read_pairs(typed, "--colourspace", "--colourspace plate=srgb")
    frames = FrameRange.parse(args.frames) if args.frames else None
    gathered = gather(given, schema, frames, spaces)
    ocio = os.environ.get("OCIO", "") if args.ocio is None else args.ocio
    if ocio and not ocio.startswith("ocio://"):
        ocio = str(Path(ocio).absolute())
    space = resolve(args.working_space, ocio)
    pictures = key_pictures(gathered.sources[0], gathered.frames, space)
    ask = converse if args.converse else functools.partial(agree, already=args.yes)
    found = suggest(endpoint, args.instruction, pictures, ask)
    if found is None:
        sys.stderr.write("Nothing was sent.\n")
        return WRONG
    knobs = found.knobs(" ".join(args.instruction.split()))
    if args.converse:
        _say({"knobs": knobs})
    else:
        _tell(knobs, as_json=args.json)
    return DONE


def _tell(knobs: dict[str, str], *, as_json: bool) -> None:
    """Write the values to standard output: for a program, or as arguments to paste."""
    if as_json:
        sys.stdout.write(json.dumps(knobs, indent=2, ensure_ascii=False) + "\n")
        return
    lines = (f"--set {shlex.quote(f'{name}={value}')}" for name, value in knobs.items() if value)
    sys.stdout.write(" \\\n".join(lines) + "\n")
