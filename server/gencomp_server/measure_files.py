# SPDX-License-Identifier: Apache-2.0
"""The files that ``gencomp measure`` compares: found as ``gencomp run`` finds them, read in step.

Pictures are opened in the decoder process alone. One frame is handed out while the next is decoded,
and its file goes as soon as it is mapped, so that neither memory nor disk depend on the shot's
length.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gencomp_protocol.errors import BadKnob, MissingFrame
from gencomp_protocol.frames import FrameRange, spell_frames
from gencomp_protocol.request import SEQUENCE, STILL
from gencomp_server.colour.spaces import BUILTIN, REC709, Space, resolve
from gencomp_server.exr.decode import EXR, DecodePool, DecodeTask
from gencomp_server.exr.header import NO_LIMITS, RGB, parse_exr, text_attribute
from gencomp_server.exr.read import MappedPicture, map_picture
from gencomp_server.sources import Gathered, Given, Source, gather, parse_given

A, B, MASK, OVER, ORIGIN = "A", "B", "mask", "over", "origin"
# Where a delivered file says what its light is.
WORKING_SPACE = "gencomp:working_space"
# A minus is the number's where no word ends before it: shot.-002.exr, but not shot-1001.exr.
NUMBERED = re.compile(r"(?P<head>.*?)(?P<number>(?:(?<![A-Za-z0-9])-)?\d+)(?P<tail>\.[A-Za-z]+)\Z")
_PICTURES = frozenset({".exr", ".dpx", ".png", ".tif", ".tiff", ".jpg", ".jpeg"})


@dataclass(frozen=True)
class Question:
    """What is to be compared, as it was typed.

    Attributes:
        patterns: Pattern, file or folder, a channel behind a colon, by ``A``, ``B``, ``mask``,
            ``over`` or ``origin``.
        frames: Frames to measure; None takes those of A on disk.
        spaces: ``srgb`` or ``scene_linear`` by name, for what is not EXR.
    """

    patterns: Mapping[str, str]
    frames: FrameRange | None = None
    spaces: Mapping[str, str] = field(default_factory=dict)


# --- files ---------------------------------------------------------------------------------------


def pattern_of(name: str, text: str) -> str:
    """Return the pattern of what was typed: a folder becomes that of the sequence in it.

    Args:
        name: ``A``, ``B`` … for sentences.
        text: A pattern or file, which comes back as it is, or a folder; a channel may follow.

    Raises:
        BadKnob: The folder holds several sequences and none of its own name.
        MissingFrame: It holds none.
    """
    head, colon, channel = text.rpartition(":")
    if colon and Path(head).is_dir():
        return f"{pattern_of(name, head)}:{channel}"
    folder = Path(text)
    if not folder.is_dir():
        return text
    found = _sequences_in(folder)
    if not found:
        inside = sorted(one.name for one in folder.iterdir() if one.is_dir() and _sequences_in(one))
        raise MissingFrame(
            f"Input '{name}': there is no numbered sequence of pictures in {folder}.",
            hint=f"Name one of its folders: {', '.join(inside)}." if inside else "Check the path.",
            input=name,
        )
    own = f"{folder.resolve().name}."
    chosen = [one for one in found if one[0] == own] or list(found)
    if len(chosen) > 1:
        spelt = ", ".join(f"{head}%04d{tail}" for head, tail in sorted(chosen))
        raise BadKnob(
            f"Input '{name}': the folder {folder} holds several sequences: {spelt}.",
            hint="Write the pattern of one.",
        )
    first, tail = chosen[0]
    return str(folder / f"{first}%0{found[chosen[0]]}d{tail}")


def _sequences_in(folder: Path) -> dict[tuple[str, str], int]:
    """Return the numbered sequences of a folder: head and tail, and the width of the number."""
    found: dict[tuple[str, str], int] = {}
    for entry in folder.iterdir():
        match = NUMBERED.match(entry.name)
        if match and match["tail"].lower() in _PICTURES and entry.is_file():
            key, width = (match["head"], match["tail"]), len(match["number"])
            found[key] = min(width, found.get(key, width))
    return found


def find(question: Question) -> Gathered:
    """Find the files of a comparison.

    Raises:
        ArtistError: A file is missing, or is not what its name says.
    """
    given = [_given(name, text) for name, text in question.patterns.items()]
    coverage = {ORIGIN, MASK}
    if any(one.channel for one in given if one.name in (A, B)):
        coverage |= {A, B}
    schema = {
        "title": "gencomp measure",
        "inputs": [
            {
                "name": one.name,
                "kind": "matte" if one.name in coverage else "rgba",
                "covers": (SEQUENCE, STILL),
            }
            for one in given
        ],
    }
    return gather(given, schema, question.frames, question.spaces)


def _given(name: str, text: str) -> Given:
    if not text:
        raise BadKnob(f"Input '{name}' is empty.", hint="Write it as FOLDER/shot.%04d.exr.")
    return parse_given(f"{name}={pattern_of(name, text)}")


def role_of(source: Source, coverage: bool) -> str:
    """Return how a side is decoded: as one channel where that is asked for or all it has."""
    if coverage:
        return "matte"
    frame, path = next(iter(source.paths.items()))
    if source.kind == EXR:
        parts = parse_exr(path, f"Input '{source.header.name}' frame {frame}", NO_LIMITS)
        if not any(set(RGB) <= {one.name for one in part.channels} for part in parts):
            return "matte"
    return "rgba"


# --- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wanted:
    """A picture to be read of every frame: under a name, from a source, in a role."""

    name: str
    source: Source
    role: str
    channel: str | None = None


class Reader:
    """Pictures of several sources, one frame ahead; a still is decoded once."""

    def __init__(self, wanted: Sequence[Wanted], pool: DecodePool, scratch: Path) -> None:
        self._wanted, self._pool, self._scratch = wanted, pool, scratch
        self._stills: dict[str, MappedPicture] = {}

    def frames(self, span: FrameRange) -> Iterator[tuple[int, dict[str, MappedPicture]]]:
        """Yield every frame with its pictures."""
        numbers = list(span)
        waiting = self._ask(numbers[0])
        for number, after in zip(numbers, [*numbers[1:], None], strict=True):
            ready, waiting = waiting, {} if after is None else self._ask(after)
            yield number, {name: self._take(name, one) for name, one in ready.items()}

    def _ask(self, frame: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for one in self._wanted:
            paths = one.source.paths
            is_still = frame not in paths or len(paths) == 1
            if is_still and one.name in self._stills:
                found[one.name] = self._stills[one.name]
                continue
            path = paths.get(frame) or next(iter(paths.values()))
            task = DecodeTask(
                path,
                self._scratch / f"{one.name}.{frame}",
                one.source.kind,
                one.role,
                one.channel or one.source.header.channel,
                one.source.header.colourspace,
                one.source.header.name,
                frame,
            )
            future = self._pool.submit(task)
            found[one.name] = self._still(one.name, future) if is_still else future
        return found

    def _still(self, name: str, future: Any) -> MappedPicture:
        self._stills[name] = self._take(name, future)
        return self._stills[name]

    def _take(self, name: str, ready: Any) -> MappedPicture:
        """Return a picture as it is mapped; its files go at once, the mapping keeps the pixels."""
        if isinstance(ready, MappedPicture):
            return ready
        decoded = ready.result()
        mapped = map_picture(decoded)
        assert mapped is not None, "nobody else touches the scratch folder"
        for suffix in (".raw", ".json"):
            decoded.path.with_name(decoded.path.name + suffix).unlink()
        return mapped


@contextmanager
def opened(wanted: Sequence[Wanted]) -> Iterator[tuple[Reader, Path]]:
    """Yield a reader of pictures and a scratch folder that goes when it is done."""
    with tempfile.TemporaryDirectory(prefix="gencomp-measure-") as folder:
        pool = DecodePool(processes=2, limits=NO_LIMITS)
        try:
            yield Reader(wanted, pool, Path(folder)), Path(folder)
        finally:
            pool.close()


def first_of(source: Source) -> str:
    """Return what names an input's files in a table: the first of them, and the channel."""
    channel = source.header.channel
    path = next(iter(source.paths.values()))
    return f"{path}:{channel}" if channel else str(path)


def colours_of(asked: Space | None, by_name: Mapping[str, Source]) -> tuple[Space, str]:
    """Return the working space of a comparison, and in words which it is and who says so.

    Args:
        asked: What was asked for, which wins; None takes what the first file of B, else of A, says.
        by_name: The files.

    Raises:
        BadKnob: A file names a space that is not to be found, or A or B holds sRGB codes and the
            space is not Linear Rec.709.
    """
    space, words = (asked, "as asked") if asked is not None else _said_by(by_name)
    coded = [name for name, one in by_name.items() if one.header.colourspace == "srgb"]
    if coded and not space.is_rec709:
        raise BadKnob(
            f"Input '{coded[0]}' holds sRGB codes, but the working space is {space.spell()}.",
            hint=f"Convert it to an EXR in {space.name} first.",
            knob="working_space",
            input=coded[0],
        )
    return space, f"{space.spell()}, {words}"


def _said_by(by_name: Mapping[str, Source]) -> tuple[Space, str]:
    for name in (B, A):
        frame, path = next(iter(by_name[name].paths.items()))
        if by_name[name].kind == EXR:
            said = text_attribute(path, WORKING_SPACE, f"Input '{name}' frame {frame}").strip()
            if said:
                return _space_said(name, said), f"as the files of {name} say"
    return REC709, "since no file says another"


def _space_said(name: str, said: str) -> Space:
    """Return the space that a delivered file names: ``NAME``, or ``NAME of CONFIG``.

    Raises:
        BadKnob: It cannot be found here; the folder of a config is not in a file.
    """
    space, _, config = said.rpartition(" of ")
    own = os.environ.get("OCIO", "")
    if space and own and not own.startswith(BUILTIN) and Path(own).name == config:
        return resolve(space, str(Path(own).absolute()))
    if space and not config.startswith(BUILTIN):
        raise BadKnob(
            f"The files of {name} are in {space} of the OCIO config {config}, whose folder they "
            "do not say.",
            hint=f"Name both: --working-space '{space}' --ocio FOLDER/{config}.",
            knob="ocio",
        )
    return resolve(space or said, config if space else "")


def extra_frames(by_name: Mapping[str, Source]) -> list[str]:
    """Say where B has frames on disk that A has not and that are not measured."""
    first, second = by_name[A].paths, by_name[B].paths
    if len(first) == 1 or len(second) == 1:
        return []
    folder = {path.parent for path in second.values()}
    taken = {path.name for path in second.values()}
    heads = {_parts(path.name) for path in second.values()}
    more = [
        int(match["number"])
        for place in folder
        for entry in place.iterdir()
        if entry.name not in taken
        and (match := NUMBERED.match(entry.name))
        and (match["head"], match["tail"]) in heads
    ]
    return [f"B also has frames {spell_frames(more)}, which are not measured."] if more else []


def _parts(name: str) -> tuple[str, str] | None:
    match = NUMBERED.match(name)
    return None if match is None else (match["head"], match["tail"])
