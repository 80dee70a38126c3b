# SPDX-License-Identifier: Apache-2.0
"""``gencomp decompose``: a shot to a clip for training, with what one has installed for it."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gencomp_protocol.errors import ArtistError, BadKnob, BadName, MissingInput
from gencomp_protocol.frames import FrameRange
from gencomp_protocol.layers import CLEAN_PLATE, PLATE
from gencomp_server.assist_cli import agree, settings_endpoint

if TYPE_CHECKING:
    from gencomp_protocol.errors import GencompError
    from gencomp_server.colour.spaces import Space
    from gencomp_server.progress import Narrator
    from gencomp_server.sources import Gathered, Source
    from gencomp_server.training.layout import Clip

    Deliver = Callable[[argparse.Namespace, Narrator], None]

DONE, WRONG = 0, 2
MATTE_INPUT = "matte"
_INPUTS = (PLATE, MATTE_INPUT, CLEAN_PLATE)
_NUMBER = re.compile(r"[._-]*(%0?\d*d|#+|\d+)\Z")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_.-]+")
_EXAMPLE = """examples:
  gencomp decompose --out clips --input plate=dog/dog.%04d.exr --input matte=roto/dog.%04d.exr \\
      --caption "A brown dog runs along a beach towards the camera."
  gencomp decompose --out clips --input plate=dog/dog.%04d.exr --find "the dog" --ask-caption
"""


def add_decompose(commands: Any, deliver: Deliver) -> None:
    """Add ``decompose`` to a parser's subcommands.

    Args:
        commands: The parser's subcommands.
        deliver: Runs a job as ``gencomp run`` does: its arguments, and who tells of it.
    """
    made = commands.add_parser(
        "decompose",
        help="split a shot into subject, background and caption, for training",
        description="Split a shot into the layers that Split-then-Merge is trained on. The same "
        "command again goes on where it stopped.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.set_defaults(command=lambda args: _decompose(args, deliver))
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of all clips")
    made.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=PATTERN",
        help="plate; matte of the subject; clean_plate where there is one; as gencomp run has it",
    )
    made.add_argument(
        "--find", metavar="WORDS", help="let the settings' segmenter draw the matte of this"
    )
    made.add_argument("--name", metavar="NAME", help="of the clip; default: the plate's files'")
    made.add_argument("--caption", metavar="TEXT", help="what is seen, in a sentence or two")
    made.add_argument(
        "--ask-caption", action="store_true", help="let the settings' assistant write the caption"
    )
    made.add_argument("--yes", action="store_true", help="do not ask; what leaves is still shown")
    made.add_argument(
        "--unpaired", action="store_true", help="keep plate and caption alone, without layers"
    )
    made.add_argument("--frames", metavar="1001-1049", help="default: the plate's, as on disk")
    made.add_argument("--exposure", type=float, default=0.0, metavar="STOPS", help="for the model")
    made.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KNOB=VALUE",
        dest="knobs",
        help="a knob of omnimatte, which makes the background",
    )
    made.add_argument("--colourspace", action="append", default=[], metavar="NAME=SPACE")
    made.add_argument("--working-space", default="scene_linear", metavar="SPACE")
    made.add_argument("--ocio", metavar="CONFIG", help="OpenColorIO config; default: $OCIO")
    made.add_argument("--server", metavar="tcp://HOST:PORT", help="default: one of its own")


# --- the command ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Asked:
    """What was asked for, checked before anything runs."""

    patterns: Mapping[str, str]
    gathered: Gathered
    name: str
    space: Space

    def source(self, name: str) -> Source:
        return next(one for one in self.gathered.sources if one.header.name == name)


def _decompose(args: argparse.Namespace, deliver: Deliver) -> int:
    from gencomp_server.progress import narrator_for
    from gencomp_server.training.layout import CLIP_FILE, ORIGINAL, clip_at, write_clip

    asked = _read(args)
    frames = tuple(asked.gathered.frames)
    clip = clip_at(
        args.out,
        asked.name,
        frames,
        unpaired=args.unpaired,
        working_space=args.working_space,
        ocio=_ocio(args),
        exposure=args.exposure,
    )
    plate = str(Path(asked.patterns[PLATE]).absolute())
    _check_same_shot(args.out, asked.name, plate)
    caption, written_by = _caption(args, asked)
    if caption is None:
        sys.stderr.write("Nothing was sent.\n")
        return WRONG
    (args.out / asked.name / CLIP_FILE).unlink(missing_ok=True)  # not whole from here on
    narrator = narrator_for(sys.stdout, sys.stderr, as_json=False)
    try:
        made = _write(args, deliver, asked, clip, narrator)
    finally:
        narrator.close()
    made = {ORIGINAL: plate, **made, "caption": written_by}
    write_clip(args.out, dataclasses.replace(clip, caption=caption, made=made))
    sys.stdout.write(f"clip  {args.out / asked.name}\n")
    return DONE


def _check_same_shot(out: Path, name: str, plate: str) -> None:
    """Refuse to write over a whole clip of another plate, whose files may be called the same.

    Raises:
        BadName: There is one.
    """
    from gencomp_server.training.layout import CLIP_FILE, ORIGINAL, read_clip

    if not (out / name / CLIP_FILE).is_file():
        return
    try:
        before = read_clip(out / name).made.get(ORIGINAL, plate)
    except ArtistError:  # it is damaged, so there is nothing to lose
        return
    if before != plate:
        raise BadName(
            f"There is a clip '{name}' in {out} already, of another plate: {before}.",
            hint="Name this one with --name, or remove the other.",
        )


def _write(
    args: argparse.Namespace, deliver: Deliver, asked: _Asked, clip: Clip, narrator: Narrator
) -> dict[str, str]:
    """Write the clip's pictures and return who made which layer."""
    from gencomp_server import decompose

    span, place = asked.gathered.frames, args.out / asked.name
    told = _Told(narrator)
    if clip.unpaired:
        for note in asked.gathered.notes:
            narrator.note(note)
        decompose.write_original(clip, asked.source(PLATE), span, told)
        return {}
    matte, drawn_by = _matte(args, asked, place)
    job = place / decompose.JOB_FOLDER
    given = decompose.given_to_job(
        asked.patterns[PLATE],
        matte,
        asked.patterns.get(MATTE_INPUT),
        asked.patterns.get(CLEAN_PLATE),
    )
    deliver(_job(args, given, job, span), _JobNarrator(narrator))
    manifest = decompose.keep_report(job, place)
    layers = decompose.Layers(asked.source(PLATE), matte, decompose.clean_of(job, span))
    decompose.write_layers(clip, layers, span, told)
    shutil.rmtree(job)
    return {"matte": drawn_by, "background": decompose.background_made_by(manifest)}


def _matte(args: argparse.Namespace, asked: _Asked, place: Path) -> tuple[Source, str]:
    """Return the subject's mattes and who drew them."""
    from gencomp_server.config import load_config
    from gencomp_server.decompose import SUBJECT, find_matte

    if args.find is None:
        return asked.source(SUBJECT), "given"
    segmenter = load_config().config.segmenter_tool()
    assert segmenter is not None, "it was looked for before"
    plate = asked.source(PLATE)
    found = find_matte(plate, asked.gathered.frames, segmenter, args.find, asked.space, place)
    return found, f"{segmenter.name}: {' '.join(args.find.split())}"


def _job(
    args: argparse.Namespace, given: list[str], job: Path, span: FrameRange
) -> argparse.Namespace:
    """Return the arguments of the run that makes the background."""
    named = [one for one in args.colourspace if one.partition("=")[0] in (PLATE, CLEAN_PLATE)]
    return argparse.Namespace(
        system="omnimatte",
        out=job,
        frames=str(span),
        input=given,
        knobs=args.knobs,
        colourspace=named,
        working_space=args.working_space,
        ocio=_ocio(args),
        server=args.server,
    )


# --- what was asked for --------------------------------------------------------------------------


def _read(args: argparse.Namespace) -> _Asked:
    """Check the arguments and find the files, before anything runs or leaves.

    Raises:
        BadKnob, MissingInput, BadName: Something is missing, twice, or contradicts.
        ArtistError: A file is missing, or is not what its name says.
    """
    from gencomp_server.colour.spaces import resolve
    from gencomp_server.contract import schema
    from gencomp_server.decompose import SUBJECT
    from gencomp_server.sources import gather, parse_given, read_pairs
    from gencomp_server.systems.omnimatte import SYSTEM

    patterns = _patterns(args)
    _check(args, patterns)
    wanted = {PLATE: PLATE, MATTE_INPUT: SUBJECT}
    given = [
        parse_given(f"{wanted[name]}={pattern}")
        for name, pattern in patterns.items()
        if name in wanted
    ]
    spaces = read_pairs(args.colourspace, "--colourspace", "--colourspace plate=srgb")
    frames = FrameRange.parse(args.frames) if args.frames else None
    known = {name: space for name, space in spaces.items() if name == PLATE}
    gathered = gather(given, schema(SYSTEM), frames, known)
    name = args.name or _named_after(patterns[PLATE])
    return _Asked(patterns, gathered, name, resolve(args.working_space, _ocio(args)))


def _patterns(args: argparse.Namespace) -> dict[str, str]:
    """Return what was typed as inputs, by name."""
    found: dict[str, str] = {}
    for text in args.input:
        name, equals, pattern = text.partition("=")
        if not equals or name not in _INPUTS:
            raise MissingInput(
                f"--input '{text}' is none of {', '.join(_INPUTS)}.",
                hint="Write it as plate=shot.%04d.exr.",
            )
        if name in found:
            raise BadKnob(f"--input names '{name}' twice.", hint="Give it once.")
        found[name] = pattern
    return found


def _check(args: argparse.Namespace, patterns: Mapping[str, str]) -> None:
    """Refuse what cannot work."""
    from gencomp_server.config import load_config

    if PLATE not in patterns:
        raise MissingInput("decompose needs the plate.", hint="Give --input plate=shot.%04d.exr.")
    if not math.isfinite(args.exposure):
        raise BadKnob("--exposure is not a number of stops.", hint="Give 0, 1.5 or -2.")
    if args.caption is not None and args.ask_caption:
        raise BadKnob("--caption and --ask-caption exclude each other.", hint="Give one of them.")
    if args.unpaired:
        if args.find is not None or set(patterns) != {PLATE}:
            raise BadKnob(
                "--unpaired keeps no layers, so a matte or clean plate has no use.",
                hint="Leave out --unpaired, or the others.",
            )
        return
    if (args.find is None) == (MATTE_INPUT not in patterns):
        raise MissingInput(
            "decompose needs the subject's matte: a given one or one to be found, not both.",
            hint='Give --input matte=roto.%04d.exr, or --find "the dog".',
            input=MATTE_INPUT,
        )
    if args.find is not None and load_config().config.segmenter_tool() is None:
        raise BadKnob(
            "--find needs a segmenter, and setting 'segmenter' is empty.",
            hint="Name one in the settings, or give --input matte=roto.%04d.exr.",
        )


def _named_after(pattern: str) -> str:
    """Return a clip's name after its files: ``dog`` of ``dog.%04d.exr``; else its folder's."""
    path = Path(pattern)
    stem = _NUMBER.sub("", path.stem) or path.resolve().parent.name
    return _NOT_IN_NAMES.sub("_", stem).strip("_.-")[:64] or "clip"


def _ocio(args: argparse.Namespace) -> str:
    """Return the config, by its whole path where it is a file; without one $OCIO, as a run has."""
    config: str = os.environ.get("OCIO", "") if args.ocio is None else args.ocio
    return str(Path(config).absolute()) if config and not config.startswith("ocio://") else config


def _caption(args: argparse.Namespace, asked: _Asked) -> tuple[str | None, str]:
    """Return the caption and who wrote it; None where nobody agreed to ask for one."""
    if not args.ask_caption:
        given = " ".join((args.caption or "").split())
        if not given:
            sys.stderr.write(
                "There is no caption: caption.txt is empty, and may be written later.\n"
            )
        return given, "given" if given else "nobody"
    from gencomp_server.assistant import caption
    from gencomp_server.config import load_config
    from gencomp_server.keyframes import key_pictures

    endpoint = settings_endpoint(load_config().config)
    pictures = key_pictures(asked.source(PLATE), asked.gathered.frames, asked.space)
    found = caption(endpoint, pictures, lambda letter: agree(letter, already=args.yes))
    return found, f"{endpoint.model} at {endpoint.host}"


# --- who tells -----------------------------------------------------------------------------------


class _Told:
    """Tells when the clip's pictures are written; that takes little time."""

    def __init__(self, narrator: Narrator) -> None:
        self._narrator = narrator

    def __call__(self, done: int, total: int) -> None:
        if done == total:
            self._narrator.note(f"All layers of {total} frames are on disk.")


class _JobNarrator:
    """Tells of the job inside; where its layers lie is nobody's business, for they go again."""

    def __init__(self, narrator: Narrator) -> None:
        self._narrator = narrator

    def note(self, sentence: str) -> None:
        self._narrator.note(sentence)

    def expect(self, pictures: int, layers: int) -> None:
        self._narrator.expect(pictures, layers)

    def event(self, event: Any) -> None:
        self._narrator.event(event)

    def done(self, summary: Mapping[str, Any]) -> None:
        self._narrator.note(f"The background took {summary['seconds']:g} s.")

    def failed(self, error: GencompError) -> None:
        self._narrator.failed(error)

    def close(self) -> None:
        self._narrator.close()
