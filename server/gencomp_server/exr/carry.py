# SPDX-License-Identifier: Apache-2.0
"""Finding and reading what a picture's file holds besides R, G and B; in the decoder process only.

Every flat part, every channel, in the type it has in the file: whole numbers too, and no sample is
converted. What the picture library does not read (deep parts, subsampled channels, the smaller
levels of a tiled part) is named, not refused: the picture itself does not need it.
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencomp_server.exr.header import RENDER_AGAIN, RGB, check_sound, refuse
from gencomp_server.exr.layout import ExrPart
from gencomp_server.exr.pixels import (
    LOOKS_LIKE_PATH,
    as_text,
    carried_metadata,
    damaged,
    open_input,
)
from gencomp_server.exr.rest import SAMPLE_BYTES, Rest, RestChannel, RestPart, plane_bytes

MAX_REST_BYTES = 4 << 30
# What belongs to the channels that are carried along, and has no place beside R, G and B alone. The
# manifest of a Cryptomatte names objects of a scene, which look like paths.
_OF_CHANNELS = re.compile(
    r"(view|multiview|cryptomatte/[^/]+/(name|hash|conversion|manifest|manif_file))\Z",
    re.IGNORECASE,
)
_NAMES_OBJECTS = re.compile(r"cryptomatte/[^/]+/manifest\Z", re.IGNORECASE)
_MANIFEST_BYTES = 16 << 20
_STRIP_BYTES = 64 << 20


@dataclass(frozen=True)
class Strip:
    """Some lines of one plane and where they go.

    Attributes:
        at: Byte on disk of the first of them.
        samples: [lines,W] float16, float32 or uint32.
    """

    at: int
    samples: NDArray[Any]


def find_rest(
    path: Path, parts: tuple[ExrPart, ...], colour: int, label: str
) -> tuple[Rest, tuple[int, ...]]:
    """Find what there is to carry along.

    Args:
        path: File whose name ends in ``.exr``; its header has been checked.
        parts: Its parts, as parsed from the header.
        colour: Number of the part that R, G and B are read from.
        label: What a sentence calls the picture.

    Returns:
        What there is, and the number in the file of each of its parts.

    Raises:
        BadPicture: There is more than is taken, or the library cannot read a header.
    """
    found: list[RestPart] = []
    numbers: list[int] = []
    left_out: list[str] = []
    file = open_input(path, None, label)
    try:
        for number, part in enumerate(parts):
            phrase = _unreadable(part)
            if phrase:
                left_out.append(phrase)
                continue
            own, phrases = _part_of(
                file, part, number, label, leave=RGB if number == colour else ()
            )
            left_out.extend(phrases)
            if own.channels or number == colour:
                found.append(own)
                numbers.append(number)
    finally:
        file.close()
    rest = Rest(tuple(found), numbers.index(colour), tuple(left_out))
    if rest.bytes > MAX_REST_BYTES:
        claim = f"holds {rest.bytes / 2**30:.1f} GiB of channels besides R, G and B"
        cure = f"At most {MAX_REST_BYTES >> 30} GiB are carried; switch other_channels off."
        raise refuse(label, claim, cure)
    return rest, tuple(numbers)


def _unreadable(part: ExrPart) -> str:
    """Return a phrase for a part that the picture library cannot read; empty where it can."""
    if part.deep:
        return f"the deep part '{part.name}'"
    if any((one.x_sampling, one.y_sampling) != (1, 1) for one in part.channels):
        return f"the part '{part.name}' with subsampled channels"
    return ""


def _part_of(
    file: Any, part: ExrPart, number: int, label: str, *, leave: tuple[str, ...]
) -> tuple[RestPart, list[str]]:
    """Return what to carry of one part, and phrases for what of it cannot be carried."""
    check_sound(part, label)
    if not file.seek_subimage(number, 0):
        raise damaged(label, file)
    spec = file.spec()
    phrases: list[str] = []
    held, window = set(spec.channelnames), part.data_window
    if (spec.x, spec.y, spec.width, spec.height) != (
        (window.x0, window.y0, window.width, window.height)
    ):
        raise refuse(label, "has a header that contradicts itself", RENDER_AGAIN)
    channels = [RestChannel(one.name, one.pixel_type) for one in part.channels]
    channels = [one for one in channels if one.name not in leave]
    # The header is read with what is no text spelt out; the library then has another name.
    odd = [one for one in channels if one.name not in held]
    phrases.extend(f"the channel '{one.name}', whose name is no text," for one in odd)
    metadata = {**carried_metadata(spec), **_metadata_of_channels(spec)}
    if file.seek_subimage(number, 1):
        where = f" of the part '{part.name}'" if part.name else ""
        phrases.append(f"all but the largest level{where}")
    kept = tuple(one for one in channels if one not in odd)
    return RestPart(part.name, window, kept, metadata), phrases


def read_rest(path: Path, rest: Rest, numbers: tuple[int, ...], label: str) -> Iterator[Strip]:
    """Read everything to carry along, in the types the file has, some lines of a plane at a time.

    Args:
        path: File whose name ends in ``.exr``; its header has been checked.
        rest: What to read.
        numbers: Number in the file of each of its parts.
        label: What a sentence calls the picture.

    Yields:
        Strips, in no order; together they are every plane.

    Raises:
        BadPicture: Some of it cannot be read whole.
    """
    starts = _plane_starts(rest)
    file = open_input(path, None, label)
    try:
        for place, (part, number) in enumerate(zip(rest.parts, numbers, strict=True)):
            if not file.seek_subimage(number, 0):
                raise damaged(label, file)
            held = list(file.spec().channelnames)
            for run in _runs(part, held):
                begins = [starts[place, held[index]] for index in range(*run[:2])]
                yield from _strips(file, number, part, run, begins, label)
    finally:
        file.close()


def _plane_starts(rest: Rest) -> dict[tuple[int, str], int]:
    """Return where the plane of each channel begins on disk, by number of its part and name."""
    found, at = {}, 0
    for place, part in enumerate(rest.parts):
        for channel in part.channels:
            found[place, channel.name] = at
            at += plane_bytes(part, channel)
    return found


def _runs(part: RestPart, held: list[str]) -> list[tuple[int, int, str]]:
    """Return the runs of wanted channels of one type: first, one beyond the last, type."""
    kinds = {channel.name: channel.pixel_type for channel in part.channels}
    found: list[tuple[int, int, str]] = []
    for index, name in enumerate(held):
        kind = kinds.get(name)
        if kind is None:
            continue
        if found and found[-1][1:] == (index, kind):
            found[-1] = (found[-1][0], index + 1, kind)
        else:
            found.append((index, index + 1, kind))
    return found


def _strips(
    file: Any,
    number: int,
    part: RestPart,
    run: tuple[int, int, str],
    begins: list[int],
    label: str,
) -> Iterator[Strip]:
    """Read one run, lines of all its channels at a time; a tiled part can only be read whole."""
    first, end, kind = run
    window = part.data_window
    line_bytes = window.width * (end - first) * SAMPLE_BYTES[kind]
    # Whole chunks, of which the largest has 256 lines: no chunk is decoded twice.
    lines = max(1, _STRIP_BYTES // line_bytes // 256) * 256
    if file.spec().tile_width:
        lines = window.height
    for top in range(0, window.height, lines):
        bottom = min(top + lines, window.height)
        if lines == window.height:
            samples = file.read_image(number, 0, first, end, kind)
        else:
            y = window.y0
            samples = file.read_scanlines(number, 0, y + top, y + bottom, 0, first, end, kind)
        if samples is None or file.has_error:
            raise damaged(label, file)
        samples = samples.reshape(bottom - top, window.width, end - first)
        for index, start in enumerate(begins):
            at = start + top * window.width * SAMPLE_BYTES[kind]
            yield Strip(at, np.ascontiguousarray(samples[..., index]))


def _metadata_of_channels(spec: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for place in range(len(spec.extra_attribs)):
        with suppress(UnicodeDecodeError):
            attribute = spec.extra_attribs[place]
            name, value = attribute.name, attribute.value
            if not _OF_CHANNELS.match(name):
                continue
            words = value if isinstance(value, tuple) else (value,)
            is_text = all(isinstance(one, str) and one == as_text(one) for one in words)
            fits = is_text and sum(map(len, words)) <= _MANIFEST_BYTES
            if fits and (_NAMES_OBJECTS.match(name) or not any(map(LOOKS_LIKE_PATH.search, words))):
                found[name] = value
    return found
