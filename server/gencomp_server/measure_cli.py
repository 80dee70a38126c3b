# SPDX-License-Identifier: Apache-2.0
"""``gencomp measure``: its arguments, its table for people and its JSON for programs."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gencomp_protocol.errors import BadKnob, UnwritableOutput
from gencomp_protocol.frames import FrameRange

if TYPE_CHECKING:
    from gencomp_server.colour.spaces import Space
    from gencomp_server.judges import Tools
    from gencomp_server.measure import Report
    from gencomp_server.measure_files import Question
    from gencomp_server.metrics.figures import Figure
    from gencomp_server.sources import Gathered

DONE, WRONG = 0, 2
ALL = "all"
_WIDTH = 110
_EXAMPLE = """examples:
  gencomp measure plate.%04d.exr out/result --sheet difference.png
  gencomp measure truth.%04d.exr out/result --mask roto.%04d.exr:mask.red --json figures.json
  gencomp measure --origin out/origin
"""


def add_measure(commands: Any) -> None:
    """Add ``measure`` to a parser's subcommands."""
    measure = commands.add_parser(
        "measure",
        help="compare two sequences: errors, bits, flicker, published metrics",
        description="Compare B with A, frame by frame. A sequence is a pattern with %04d or ####, "
        "one file, or the folder of a delivered layer; a channel follows a colon.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    measure.set_defaults(command=_measure)
    measure.add_argument("a", nargs="?", metavar="A", help="what it should be")
    measure.add_argument("b", nargs="?", metavar="B", help="what is judged")
    measure.add_argument(
        "--mask",
        metavar="M",
        help="measure only where it covers (0.5 and above); a channel may follow a colon",
    )
    measure.add_argument("--frames", metavar="1001-1048", help="default: those of A, as on disk")
    measure.add_argument(
        "--colourspace",
        action="append",
        default=[],
        metavar="NAME=SPACE",
        help="what A, B or over hold where they are not EXR: srgb or scene_linear; 8-bit defaults "
        "to srgb",
    )
    measure.add_argument(
        "--working-space",
        metavar="SPACE",
        help="scene-linear space of all pictures, as gencomp run has it; default: what the files "
        "of B, else of A, say, else Linear Rec.709",
    )
    measure.add_argument(
        "--ocio", metavar="CONFIG", help="OpenColorIO config that --working-space is of"
    )
    measure.add_argument(
        "--origin", metavar="O", help="an origin layer: print the shares of its mattes"
    )
    _add_published(measure)
    measure.add_argument("--json", metavar="FILE", help="all figures of all frames; - prints them")
    measure.add_argument(
        "--sheet", type=Path, metavar="FILE.png", help="A, B, difference amplified, touched pixels"
    )


def _add_published(measure: Any) -> None:
    measure.add_argument(
        "--metrics",
        default="",
        metavar="NAME,NAME",
        help="published metrics besides: clip-direction, clip-text, clip-image, lpips, vmaf, fvd; "
        "all takes those that are installed",
    )
    measure.add_argument("--prompt", default="", metavar="TEXT", help="for clip-text: what B shows")
    measure.add_argument(
        "--over", metavar="O", help="for clip-direction: the composite without effects"
    )
    measure.add_argument(
        "--clip", type=Path, metavar="FOLDER", help="a CLIP; default: metrics/clip of the weights"
    )
    measure.add_argument(
        "--i3d", type=Path, metavar="FILE", help="for fvd; default: metrics/i3d.pt of the weights"
    )


# --- the command ---------------------------------------------------------------------------------


def _measure(args: argparse.Namespace) -> int:
    from gencomp_server.measure import compare, origin_shares
    from gencomp_server.measure_files import find

    pair, origin = _questions(args)
    names = _metrics(args.metrics)
    space = _space(args)
    if args.sheet is not None and pair is None:
        raise BadKnob("--sheet shows two sequences and none are given.", hint="Give A and B.")
    reports = []
    with _progress() as progress:
        if pair is not None:
            gathered = find(pair)
            sheet = None
            if args.sheet is not None:
                from gencomp_server.measure_sheet import DifferenceSheet

                sheet = DifferenceSheet(list(gathered.frames))
            tools = _tools(args) if names else None
            reports.append(compare(gathered, names, tools, sheet, progress, space))
            if sheet is not None:
                sheet.draw(args.sheet, _title(gathered))
        if origin is not None:
            reports.append(origin_shares(find(origin), progress))
    _tell(args, reports)
    refused = any(report.refused for report in reports)
    return WRONG if refused and ALL not in args.metrics.split(",") else DONE


def _space(args: argparse.Namespace) -> Space | None:
    """Return the working space that is asked for; None where the files are to say.

    Without ``--ocio`` a name is looked up in the config of the variable OCIO, where there is one.

    Raises:
        BadKnob: There is no such space.
    """
    from gencomp_server.colour.spaces import BUILTIN, SCENE_LINEAR, resolve

    if args.working_space is None and args.ocio is None:
        return None
    config = os.environ.get("OCIO", "") if args.ocio is None else args.ocio
    is_file = config and not config.startswith(BUILTIN)
    return resolve(
        args.working_space or SCENE_LINEAR, str(Path(config).absolute()) if is_file else config
    )


def _title(gathered: Gathered) -> str:
    """Return the sheet's heading: which files A and B are, and the frames."""
    first = {one.header.name: next(iter(one.paths.values())) for one in gathered.sources}
    return f"A {first['A'].name}   B {first['B'].name}   {gathered.frames}"


def _questions(args: argparse.Namespace) -> tuple[Question | None, Question | None]:
    """Return what is asked of A and B, and of an origin layer.

    Raises:
        BadKnob: Nothing is asked, or half of it.
    """
    from gencomp_server.measure_files import MASK, ORIGIN, OVER, A, B, Question
    from gencomp_server.sources import read_pairs

    if (args.a is None) != (args.b is None) or (args.a is None and args.origin is None):
        raise BadKnob(
            "measure compares two sequences, A and B, or takes --origin.",
            hint="Write it as gencomp measure plate.%04d.exr out/result.",
        )
    frames = FrameRange.parse(args.frames) if args.frames else None
    spaces = read_pairs(args.colourspace, "--colourspace", "--colourspace A=srgb")
    mask = {} if args.mask is None else {MASK: args.mask}
    pair = origin = None
    if args.a is not None:
        over = {} if args.over is None else {OVER: args.over}
        pair = Question({A: args.a, B: args.b, **mask, **over}, frames, spaces)
    if args.origin is not None:
        origin = Question({ORIGIN: args.origin, **mask}, frames)
    return pair, origin


def _metrics(text: str) -> tuple[str, ...]:
    """Return the metrics that are asked for, each once, in their own order.

    Raises:
        BadKnob: There is no such metric.
    """
    from gencomp_server.judges import NAMES

    asked = [one.strip() for one in text.split(",") if one.strip()]
    unknown = [one for one in asked if one not in (*NAMES, ALL)]
    if unknown:
        raise BadKnob(
            f"There is no metric '{unknown[0]}'.", hint=f"Choose from: {', '.join(NAMES)}, {ALL}."
        )
    return NAMES if ALL in asked else tuple(one for one in NAMES if one in asked)


def _tools(args: argparse.Namespace) -> Tools:
    from gencomp_server.config import load_config
    from gencomp_server.judges import CLIP_FOLDER, I3D_FILE, Tools, vmaf_tool

    config = load_config().config
    return Tools(
        args.clip or config.weights / CLIP_FOLDER,
        args.i3d or config.weights / I3D_FILE,
        Path(),
        args.prompt,
        device=config.device,
        vmaf=vmaf_tool(),
    )


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """Yield what shows a bar on a terminal, on standard error; None elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("measure", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


# --- telling -------------------------------------------------------------------------------------


def _tell(args: argparse.Namespace, reports: Sequence[Report]) -> None:
    text = json.dumps(as_plain(reports), indent=2) + "\n"
    if args.json == "-":
        sys.stdout.write(text)
        return
    if args.json:
        try:
            Path(args.json).write_text(text, encoding="utf-8")
        except OSError as error:
            raise UnwritableOutput(
                f"{args.json} cannot be written: {error.strerror}.", hint="Check the folder."
            ) from error
    for report in reports:
        show(report)


def as_plain(reports: Sequence[Report]) -> dict[str, Any]:
    """Return everything found as plain data for JSON; an infinite PSNR is null."""
    return {
        "inputs": {name: words for one in reports for name, words in one.sides.items()},
        "frames": str(reports[0].frames),
        "working_space": next((one.space for one in reports if one.space), None),
        "figures": {
            figure.name: {
                "unit": figure.unit,
                "value": _finite(figure.value),
                "worst": _finite(figure.worst),
                "worst_frame": figure.frame,
                "frames": {frame: _finite(value) for frame, value in figure.by_frame},
            }
            for one in reports
            for figure in one.figures
        },
        "refused": [dataclasses.asdict(refused) for one in reports for refused in one.refused],
        "notes": [note for one in reports for note in one.notes],
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def show(report: Report) -> None:
    """Print a report as a table."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(
        file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else _WIDTH
    )
    for name, words in report.sides.items():
        console.print(escape(f"{name:<7}{words}"), soft_wrap=True)
    if report.space:
        console.print(escape(f"colour {report.space}"), soft_wrap=True)
    count = len(report.frames)
    console.print(f"frames {report.frames} ({count})\n")
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("figure")
    table.add_column("all frames", justify="right")
    table.add_column("worst", justify="right")
    table.add_column("at frame")
    for figure in report.figures:
        worst = "" if figure.worst is None or count == 1 else spell(figure, figure.worst)
        at = "" if not worst else str(figure.frame)
        table.add_row(figure.label, spell(figure, figure.value), worst, at)
    console.print(table)
    for refused in report.refused:
        console.print(
            f"[yellow]refused[/]  {escape(refused.metric)}: {escape(refused.sentence)} "
            f"{escape(refused.cure)}",
            soft_wrap=True,
        )
    for note in report.notes:
        console.print(f"[cyan]note[/]  {escape(note)}", soft_wrap=True)


def spell(figure: Figure, value: float) -> str:
    """Return a value as a person reads it; a share is never rounded up to all of it."""
    from gencomp_server.metrics.figures import COUNT, DECIBEL, HUNDRED, SHARE, ULP

    if figure.unit == DECIBEL:
        return "identical" if math.isinf(value) else f"{value:.2f} dB"
    if figure.unit == SHARE:
        return f"{math.floor(value * 1e4 + 1e-6) / 1e2:.2f} %"
    if figure.unit == ULP:
        return f"{value:.0f} ULP"
    if figure.unit == HUNDRED:
        return f"{value:.2f}"
    return f"{value:.0f}" if figure.unit == COUNT else f"{value:.5f}"
