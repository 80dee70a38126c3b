# SPDX-License-Identifier: Apache-2.0
"""``gencomp sheet``: results in one picture, a row each, with what makes them differ.

Of a single result every layer has a row.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gencomp_protocol.errors import BadKnob, MissingFrame
from gencomp_protocol.frames import spell_frames
from gencomp_protocol.layers import BACKGROUND, RESULT

if TYPE_CHECKING:
    from gencomp_server.sheet import Files

DONE = 0
MANIFEST = "manifest.json"
_MOST_LINES, _MOST_LETTERS = 6, 26
_LAYER_HELP = (
    "of several results; default: result, else background, else any. Of one: all that it has"
)
_EXAMPLE = """examples:
  gencomp sheet gencomp/shot/v003/take01 gencomp/shot/v003/take02 -o takes.png
  gencomp sheet gencomp/shot/v003 -o layers.png
"""


def add_sheet(commands: Any) -> None:
    """Add ``sheet`` to a parser's subcommands."""
    sheet = commands.add_parser(
        "sheet",
        help="draw several results, or the layers of one, into one picture, a row each",
        description="Draw one layer of several results, a row each, beside the knobs in which they "
        "differ; or every layer of one. A result is a folder with a manifest.json, as gencomp run "
        "and Nuke leave it.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sheet.set_defaults(command=_sheet)
    sheet.add_argument("results", nargs="+", type=Path, metavar="FOLDER", help="a result")
    sheet.add_argument("--layer", metavar="NAME", help=_LAYER_HELP)
    sheet.add_argument(
        "-o", "--out", type=Path, required=True, metavar="FILE.png", help="picture to write"
    )


def _sheet(args: argparse.Namespace) -> int:
    if args.out.suffix.lower() != ".png":
        raise BadKnob(f"'{args.out}' is not a PNG.", hint="Write it as -o takes.png.")
    if len(args.results) == 1 and not args.layer:
        _draw_all_layers(args.results[0], args.out)
    else:
        _draw_results(args.results, args.layer, args.out)
    sys.stdout.write(f"{args.out}\n")
    return DONE


def _draw_all_layers(folder: Path, out: Path) -> None:
    from gencomp_server.sheet import draw_layers

    told = read_manifest(folder)
    layers = {name: files_of(folder, told, name) for name in told["layers"]}
    if not layers:
        raise MissingFrame(f"The result in {folder} has no layer.", hint="Name another folder.")
    frames = _shared(layers.values())
    draw_layers(out, _title(told, "layers", frames), frames, layers, *_how(told, [told]))


def _draw_results(folders: Sequence[Path], named: str | None, out: Path) -> None:
    from gencomp_server.sheet import draw_takes

    told = {folder: read_manifest(folder) for folder in folders}
    layer = named or usual_layer(list(told.values()))
    files = {folder: files_of(folder, one, layer) for folder, one in told.items()}
    frames = _shared(files.values())
    lines = differences([one.get("knobs", {}) for one in told.values()])
    takes = {
        label: (files[folder], said)
        for label, folder, said in zip(labels(folders), told, lines, strict=True)
    }
    first = next(iter(told.values()))
    how = _how(first, told.values())
    draw_takes(out, _title(first, layer, frames), frames, takes, layer, *how)


def _shared(files: Iterable[Files]) -> list[int]:
    """Return the frames that all have, in order.

    Raises:
        MissingFrame: There is none.
    """
    shared = set.intersection(*(set(one.paths) for one in files))
    if not shared:
        raise MissingFrame(
            "These results have no frame in common.", hint="Draw those of one shot together."
        )
    return sorted(shared)


def _title(manifest: Mapping[str, Any], what: str, frames: Sequence[int]) -> str:
    return f"{manifest.get('system', '')}   {what}   {spell_frames(frames)}"


def _how(
    first: Mapping[str, Any], all_of_them: Iterable[Mapping[str, Any]]
) -> tuple[str, Sequence[float] | None]:
    """Return the caution of results, and the way to a monitor's primaries."""
    from gencomp_server.sheet import caution_of

    caution = next(filter(None, map(caution_of, all_of_them)), "")
    return caution, first.get("colour", {}).get("to_rec709")


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return a result's manifest.

    Raises:
        MissingFrame: The folder holds no result.
    """
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return {**found, "layers": dict(found["layers"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MissingFrame(
            f"There is no result in {folder}.", hint=f"Name a folder that holds a {MANIFEST}."
        ) from error


def usual_layer(manifests: Sequence[Mapping[str, Any]]) -> str:
    """Return the layer that is shown where none is named: one that all results have.

    Raises:
        BadKnob: They have none in common.
    """
    common = [n for n in manifests[0]["layers"] if all(n in one["layers"] for one in manifests)]
    if not common:
        raise BadKnob("These results have no layer in common.", hint="Name one with --layer.")
    return next((name for name in (RESULT, BACKGROUND) if name in common), common[0])


def files_of(folder: Path, manifest: Mapping[str, Any], layer: str) -> Files:
    """Return the files of a layer of a result.

    Raises:
        BadKnob: It has no such layer.
        MissingFrame: A file is not there.
    """
    from gencomp_server.sheet import Files

    if layer not in manifest["layers"]:
        raise BadKnob(
            f"{folder} has no layer '{layer}'.", hint=f"It has {', '.join(manifest['layers'])}."
        )
    entry = manifest["layers"][layer]
    paths = {int(n): folder / layer / f"{layer}.{int(n):04d}.exr" for n in entry["frames"]}
    missing = [n for n, path in paths.items() if not path.is_file()]
    if missing:
        raise MissingFrame(f"{folder} lacks frame {spell_frames(missing)} of layer '{layer}'.")
    return Files(paths, is_matte=list(entry.get("channels", ())) == ["A"])


def labels(folders: Sequence[Path]) -> list[str]:
    """Return a name for every result that tells it apart: as many last folders as that takes."""
    for depth in range(1, max(len(one.absolute().parts) for one in folders) + 1):
        found = ["/".join(one.absolute().parts[-depth:]) for one in folders]
        if len(set(found)) == len(found):
            return found
    return found


def differences(knobs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return for every result the knobs that are not the same in all, a line each, and few."""
    names = sorted({name for one in knobs for name in one})
    varied = [name for name in names if any(one.get(name) != knobs[0].get(name) for one in knobs)]
    return [[_line(name, one.get(name)) for name in varied[:_MOST_LINES]] for one in knobs]


def _line(name: str, value: Any) -> str:
    text = f"{name} {value:.6g}" if isinstance(value, float) else f"{name} {value}"
    return text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 3]}..."
