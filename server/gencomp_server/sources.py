# SPDX-License-Identifier: Apache-2.0
"""What ``gencomp run`` reads: typed patterns become inputs with one file per frame.

A pattern is ``plate.%04d.exr``, ``plate.####.exr`` or one file; ``NAME@FRAME=FILE`` gives a still
at a frame. Files are found by name and only their headers are looked at here (bit depth, size):
decoding is the server's, in a process of its own.
"""

import difflib
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gencomp_protocol.errors import BadKnob, BadName, BadPicture, MissingFrame, MissingInput
from gencomp_protocol.frames import Format, FrameRange, spell_frames
from gencomp_protocol.request import SEQUENCE, STILL, STILLS, InputHeader
from gencomp_server.contract import spell_input
from gencomp_server.exr.header import NO_LIMITS, choose_data, find_channel, parse_exr
from gencomp_server.exr.heads import bit_depth, picture_size

COLOURSPACES = ("scene_linear", "srgb")
EXR = "exr"
IMAGE = "image"
# Where a PNG says its colour type, and the type of three channels. Source: PNG specification, IHDR.
_PNG, _PNG_COLOUR_AT, _PNG_RGB = b"\x89PNG\r\n\x1a\n", 25, 2
_IMAGES = frozenset({".dpx", ".png", ".tif", ".tiff", ".jpg", ".jpeg"})
_VIDEOS = frozenset(
    {".mov", ".mp4", ".m4v", ".avi", ".mkv", ".mxf", ".webm", ".mpg", ".mpeg", ".wmv", ".gif"}
    | {".r3d", ".braw", ".ari"}
)
_NAME = re.compile(r"(?P<name>[^=@\s]+)(?:@(?P<frame>-?\d+))?=(?P<pattern>.+)\Z", re.DOTALL)
_PLACE = re.compile(r"%0?(?P<width>\d*)d|(?P<hashes>#+)")
_CHANNEL = re.compile(r"[A-Za-z][A-Za-z0-9_.]*\Z")
_LAST_NUMBER = re.compile(r"(?:\A|[._-])(\d+)\Z")


@dataclass(frozen=True)
class Given:
    """One ``--input`` as it was typed.

    Attributes:
        name: ``plate``, ``matte.ball`` …
        pattern: Path with a place for the frame number, or of one file.
        frame: The frame of ``NAME@FRAME=FILE``, else None.
        channel: What followed the last colon, else None.
    """

    name: str
    pattern: str
    frame: int | None = None
    channel: str | None = None


@dataclass(frozen=True)
class Source:
    """One input, found on disk.

    Attributes:
        header: What the request says of it.
        paths: File of each frame in ``header.frames``.
        kind: ``exr``, or ``image`` for DPX, PNG, TIFF and JPEG.
        is_matte: True where one channel of coverage is read of it.
    """

    header: InputHeader
    paths: Mapping[int, Path]
    kind: str
    is_matte: bool = False


@dataclass(frozen=True)
class Gathered:
    """All inputs of a request: the frames to deliver, the inputs, and sentences to be read."""

    frames: FrameRange
    sources: tuple[Source, ...]
    notes: tuple[str, ...]


def read_pairs(texts: Iterable[str], flag: str, example: str) -> dict[str, str]:
    """Read ``NAME=VALUE`` arguments.

    Args:
        texts: As they were typed.
        flag: What stood before each, for sentences.
        example: How it is written, for sentences.

    Raises:
        BadKnob: One has no ``=``, or a name stands twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise BadKnob(f"{flag} '{text}' has no value.", hint=f"Write it as {example}.")
        if name in found:
            raise BadKnob(f"{flag} names '{name}' twice.", hint="Give it once.")
        found[name] = value
    return found


# --- patterns ------------------------------------------------------------------------------------


def parse_given(text: str) -> Given:
    """Read ``NAME=PATTERN``, ``NAME=PATTERN:channel`` or ``NAME@FRAME=FILE``.

    Raises:
        BadKnob: The text is none of these.
        BadPicture: The file is a video, or of a kind that is not taken.
    """
    match = _NAME.match(text)
    if match is None:
        raise BadKnob(
            f"--input '{text}' is not NAME=PATTERN.",
            hint="Write it as plate=shot.%04d.exr or clean_plate@1001=clean.exr.",
        )
    name, pattern = match["name"], match["pattern"]
    pattern, channel = _split_channel(pattern)
    _check_suffix(name, pattern)
    frame = None if match["frame"] is None else int(match["frame"])
    return Given(name, pattern, frame, channel)


def _split_channel(pattern: str) -> tuple[str, str | None]:
    """Part ``shot.%04d.exr:mask.red`` at its last colon; a Windows drive is none."""
    head, colon, tail = pattern.rpartition(":")
    if not colon or not _CHANNEL.match(tail) or not Path(head).suffix:
        return pattern, None
    return head, tail


def _check_suffix(name: str, pattern: str) -> None:
    suffix = Path(pattern).suffix.lower()
    if suffix in _VIDEOS:
        raise BadPicture(
            f"Input '{name}' is a video file ({Path(pattern).name}).",
            hint="Render to EXR first, one file per frame.",
            input=name,
        )
    if suffix != ".exr" and suffix not in _IMAGES:
        raise BadPicture(
            f"Input '{name}' ends in '{suffix}', which is not a kind of picture taken here.",
            hint="Give EXR, DPX, PNG, TIFF or JPEG files.",
            input=name,
        )


def find_sequence(name: str, pattern: str) -> dict[int, Path] | None:
    """Return the files of a numbered pattern by frame, or None where it names one file.

    Raises:
        BadKnob: The number stands in a folder's name, or twice.
        MissingFrame: No file matches.
    """
    path = Path(pattern)
    places = list(_PLACE.finditer(path.name))
    if _PLACE.search(str(path.parent)) or len(places) > 1:
        raise BadKnob(
            f"The pattern of input '{name}' needs one frame number, in the file's name.",
            hint="Write it as FOLDER/shot.%04d.exr.",
        )
    if not places:
        return None
    width = int(places[0]["width"] or 0) or len(places[0]["hashes"] or "")
    head, tail = path.name[: places[0].start()], path.name[places[0].end() :]
    found = _numbered_files(path.parent, head, tail, width)
    if not found:
        raise MissingFrame(
            f"Input '{name}' has no frames: no file in {path.parent} matches {path.name}.",
            hint="Check the path and the number of digits.",
            input=name,
        )
    return found


def _numbered_files(folder: Path, head: str, tail: str, width: int) -> dict[int, Path]:
    """Return files spelt exactly as ``head``, a frame padded to ``width``, ``tail``."""
    spelt = re.compile(re.escape(head) + r"(-?\d+)" + re.escape(tail) + r"\Z")
    found = {}
    for entry in folder.iterdir() if folder.is_dir() else ():
        match = spelt.match(entry.name)
        if match and entry.is_file() and match[1] == f"{int(match[1]):0{width}d}":
            found[int(match[1])] = entry
    return dict(sorted(found.items()))


# --- inputs --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """Files of one input before the range is known; ``still`` where no frame number was given."""

    name: str
    spec: Mapping[str, Any]
    files: Mapping[int, Path]
    still: Path | None
    at_frames: bool
    channel: str | None

    @property
    def is_matte(self) -> bool:
        return bool(self.spec["kind"] == "matte")

    @property
    def is_one_channel(self) -> bool:
        return self.spec["kind"] in ("matte", "data")


def gather(
    given: Iterable[Given],
    schema: Mapping[str, Any],
    frames: FrameRange | None,
    colourspaces: Mapping[str, str],
) -> Gathered:
    """Find the files of every input and say how they cover the range.

    Args:
        given: The inputs as typed.
        schema: The system's declaration (``contract.schema``).
        frames: Frames to deliver; None takes those of the plate found on disk.
        colourspaces: ``scene_linear`` or ``srgb`` by name of an input.

    Raises:
        BadName: An input is given twice.
        MissingInput: The system has no such input.
        MissingFrame: A file is not there.
        BadPicture: A file is not the picture its name says.
        BadKnob: A channel or a colour space that cannot be.
    """
    groups: dict[str, list[Given]] = {}
    for entry in given:
        groups.setdefault(entry.name, []).append(entry)
    found = [_find(name, entries, _spec_of(schema, name)) for name, entries in groups.items()]
    if not found:
        raise MissingInput("No input is given.", hint="Name one with --input plate=shot.%04d.exr.")
    unknown = sorted(set(colourspaces) - set(groups))
    if unknown:
        raise MissingInput(
            f"--colourspace names '{unknown[0]}', which is not an input of this run.",
            hint=f"The inputs are: {', '.join(groups)}.",
        )
    span = frames or _frames_on_disk(found)
    notes: list[str] = []
    sources = tuple(_source(one, span, colourspaces.get(one.name), notes) for one in found)
    return Gathered(span, sources, tuple(notes))


def second_channels(
    given: Iterable[Given], schema: Mapping[str, Any], knobs: Mapping[str, str]
) -> list[Given]:
    """Return the inputs as typed, and those that a knob reads from a channel of another's files.

    Args:
        given: The inputs as typed.
        schema: The system's declaration (``contract.schema``).
        knobs: The knobs as typed.

    Raises:
        BadKnob: What the knob names is not a channel.
    """
    found = list(given)
    names = {entry.name for entry in found}
    for spec in schema["inputs"]:
        channel = knobs.get(spec.get("channel_knob") or "", "").strip()
        if not channel or spec["name"] in names:
            continue
        if not _CHANNEL.match(channel):
            raise BadKnob(
                f"Knob '{spec['channel_knob']}' is '{channel}', which is not a channel.",
                hint="Name one as mask.red.",
                knob=spec["channel_knob"],
            )
        found.extend(
            replace(one, name=spec["name"], channel=channel)
            for one in found[:]
            if one.name == spec["files_of"]
        )
    return found


def schema_of(systems: Iterable[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    """Return the declaration of the system of that name.

    Raises:
        BadKnob: There is none; names the nearest.
    """
    known = {str(entry["name"]): entry for entry in systems}
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean '{near[0]}'?" if near else f"Systems are: {', '.join(known)}."
        raise BadKnob(f"There is no system '{name}'.", hint=hint)
    return known[name]


def _spec_of(schema: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the declaration that an input belongs to."""
    specs: list[Mapping[str, Any]] = []
    for rule in schema["inputs"]:
        specs.extend([rule] if "name" in rule else [spec for one in rule["sets"] for spec in one])
    for spec in specs:
        stem = spec["name"].removesuffix("*")
        is_family = stem != spec["name"] and len(name) > len(stem)
        if name == spec["name"] or (is_family and name.startswith(stem)):
            return spec
    names = [spell_input(spec["name"]) for spec in specs]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean '{near[0]}'?" if near else f"Its inputs are: {', '.join(names)}."
    raise MissingInput(f"{schema['title']} has no input '{name}'.", hint=hint, input=name)


def _find(name: str, entries: list[Given], spec: Mapping[str, Any]) -> _Found:
    first, channel = entries[0], entries[0].channel
    if channel is not None and spec["kind"] not in ("matte", "data"):
        raise BadKnob(
            f"Input '{name}' takes no channel, but ':{channel}' was given.",
            hint="Only a matte or data is read from one channel.",
        )
    if all(entry.frame is not None for entry in entries):
        files = {int(entry.frame or 0): _one_file(entry) for entry in entries}
        if len(files) == len(entries):
            return _Found(name, spec, dict(sorted(files.items())), None, True, channel)
    if len(entries) > 1:
        raise BadName(
            f"Input '{name}' is given twice.",
            hint=f"Give it once, or stills at frames of their own as {name}@FRAME=FILE.",
        )
    sequence = find_sequence(name, first.pattern)
    if sequence is None:
        return _Found(name, spec, {}, _one_file(first), False, channel)
    return _Found(name, spec, sequence, None, False, channel)


def _one_file(entry: Given) -> Path:
    path = Path(entry.pattern)
    if not path.is_file():
        where = "" if entry.frame is None else f" at frame {entry.frame}"
        raise MissingFrame(
            f"Input '{entry.name}'{where}: {path} is not there.",
            hint="Check the path; a sequence needs %04d or #### for its frame number.",
            input=entry.name,
        )
    return path


def _frames_on_disk(found: list[_Found]) -> FrameRange:
    """Return the frames of the first picture sequence, by its own step where it is even."""
    bound = [one for one in found if not one.spec.get("own_frames")]
    pictures = [one for one in bound if not one.is_one_channel]
    for one in [*pictures, *bound]:
        if one.files and not one.at_frames:
            numbers = list(one.files)
            steps = {b - a for a, b in itertools.pairwise(numbers)}
            # Two frames apart by three are more likely a hole than a step.
            even = len(numbers) > 2 and len(steps) == 1
            return FrameRange(numbers[0], numbers[-1], steps.pop() if even else 1)
    still = next((one.still for one in pictures if one.still is not None), None)
    frame = 1 if still is None else _number_in(still)
    return FrameRange(frame, frame)


def _number_in(path: Path) -> int:
    """Return the frame number a file's name ends in (``shot.1001.exr``), else 1."""
    match = _LAST_NUMBER.search(path.stem)
    return int(match[1]) if match else 1


def _source(one: _Found, span: FrameRange, asked: str | None, notes: list[str]) -> Source:
    cover, paths = _cover(one, span, notes)
    kinds = {EXR if path.suffix.lower() == ".exr" else IMAGE for path in paths.values()}
    if len(kinds) > 1:
        raise BadPicture(
            f"Input '{one.name}' mixes EXR with other kinds of picture.",
            hint="Give all its frames as EXR.",
            input=one.name,
        )
    kind = kinds.pop()
    if one.spec["kind"] == "data" and kind == EXR:
        frame, path = next(iter(paths.items()))
        label = f"Input '{one.name}' frame {frame}"
        choose_data(parse_exr(path, label, NO_LIMITS), one.channel, label, NO_LIMITS)
    space = _colourspace(one, kind, paths, asked, notes)
    if one.spec["kind"] == "matte" and one.channel is None and _is_plain_rgb(one.name, kind, paths):
        notes.append(f"Input '{one.name}' has no alpha; its first channel R is read.")
    header = InputHeader(
        one.name,
        tuple(paths),
        cover=cover,
        format=_format(one.name, kind, paths),
        channel=one.channel,
        colourspace=space,
    )
    return Source(header, paths, kind, one.is_matte)


def _is_plain_rgb(name: str, kind: str, paths: Mapping[int, Path]) -> bool:
    """Tell whether an input's first picture has R, G and B and surely no alpha, by its header."""
    frame, path = next(iter(paths.items()))
    if kind == EXR:
        parts = parse_exr(path, f"Input '{name}' frame {frame}", NO_LIMITS)
        names = {channel.name for part in parts for channel in part.channels}
        return names >= {"R", "G", "B"} and find_channel(sorted(names), "A") is None
    with path.open("rb") as file:
        head = file.read(_PNG_COLOUR_AT + 1)
    is_png = head.startswith(_PNG) and len(head) > _PNG_COLOUR_AT
    return is_png and head[_PNG_COLOUR_AT] == _PNG_RGB


def _format(name: str, kind: str, paths: Mapping[int, Path]) -> Format | None:
    """Return the size of an input's first picture; None where its header does not say it."""
    frame, path = next(iter(paths.items()))
    if kind != EXR:
        size = picture_size(path)
        return None if size is None else Format(*size)
    part = parse_exr(path, f"Input '{name}' frame {frame}", NO_LIMITS)[0]
    return Format(part.display_window.width, part.display_window.height, part.pixel_aspect)


def _cover(one: _Found, span: FrameRange, notes: list[str]) -> tuple[str, dict[int, Path]]:
    """Say how an input's files cover the range, and which file stands for which frame."""
    if one.at_frames:
        return STILLS, dict(one.files)
    if one.still is None and one.spec.get("own_frames"):
        return SEQUENCE, dict(one.files)
    if one.still is None:
        inside = {frame: one.files[frame] for frame in span if frame in one.files}
        if one.spec.get("gaps_are_stills") and 0 < len(inside) < len(span):
            notes.append(f"Input '{one.name}' has pictures at {spell_frames(inside)} only.")
            return STILLS, inside
        return SEQUENCE, _pick(one, span)
    covers = one.spec["covers"]
    if len(span) == 1:
        return SEQUENCE, {span.first: one.still}
    if STILL not in covers and STILLS in covers:
        frame = _number_in(one.still)
        frame = frame if frame in span else span.first
        notes.append(
            f"Input '{one.name}' is taken as painted at frame {frame}; "
            f"write {one.name}@FRAME=FILE for another."
        )
        return STILLS, {frame: one.still}
    return STILL, {span.first: one.still}


def _pick(one: _Found, span: FrameRange) -> dict[int, Path]:
    missing = [frame for frame in span if frame not in one.files]
    if missing:
        count = "frame" if len(missing) == 1 else "frames"
        raise MissingFrame(
            f"Input '{one.name}' has no {count} {spell_frames(missing)}; "
            f"on disk are {spell_frames(one.files)}.",
            hint=_cure_of_a_hole(one),
            input=one.name,
            frame=missing[0],
        )
    return {frame: one.files[frame] for frame in span}


def _cure_of_a_hole(one: _Found) -> str:
    if STILLS not in one.spec["covers"]:
        return "Render what is missing, or change --frames."
    frame = next(iter(one.files))
    return (
        "Render what is missing, or change --frames; single pictures are given as "
        f"{one.name}@{frame}=FILE."
    )


# --- colour --------------------------------------------------------------------------------------


def _colourspace(
    one: _Found, kind: str, paths: Mapping[int, Path], asked: str | None, notes: list[str]
) -> str:
    """Return the colour space of an input; a matte is coverage and is never converted."""
    if asked is not None and asked not in COLOURSPACES:
        raise BadKnob(
            f"Colour space '{asked}' of input '{one.name}' is not known.",
            hint=f"Choose one of: {', '.join(COLOURSPACES)}.",
        )
    if asked == "srgb" and (one.is_one_channel or kind == EXR):
        what = "a matte is coverage" if one.is_matte else "it is data"
        why = what if one.is_one_channel else "an EXR is always scene-linear"
        raise BadKnob(
            f"Input '{one.name}' cannot be srgb: {why}.", hint="Leave --colourspace out for it."
        )
    if asked is not None or one.is_one_channel or kind == EXR:
        return asked or "scene_linear"
    frame, path = next(iter(paths.items()))
    depth = bit_depth(path)
    if depth is None:
        raise BadPicture(
            f"Input '{one.name}', frame {frame}: {path.name} is not a DPX, PNG, TIFF or JPEG file.",
            hint="Render it again, best as EXR.",
            input=one.name,
            frame=frame,
        )
    return _space_of_depth(one.name, depth, notes)


def _space_of_depth(name: str, depth: str, notes: list[str]) -> str:
    if depth == "8":
        notes.append(
            f"Input '{name}' is 8-bit and is read as sRGB; "
            f"--colourspace {name}=scene_linear would take it as it is."
        )
        return "srgb"
    if depth == "float":
        return "scene_linear"
    raise BadKnob(
        f"Input '{name}' has {depth} bits a channel, which may hold sRGB or scene-linear values.",
        hint=f"Say --colourspace {name}=srgb or --colourspace {name}=scene_linear.",
    )
