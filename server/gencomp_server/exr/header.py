# SPDX-License-Identifier: Apache-2.0
"""Judging an OpenEXR file by its headers, so that a bad one is refused before a library touches it.

Only what a refusal needs is read (``exr/layout.py``): kinds of parts, channels, windows,
compression, and whether every chunk that the file promises is really in it, where it should be and
of a size that can be.
"""

import itertools
import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gencomp_protocol.errors import BadPicture
from gencomp_server.exr.layout import (
    COMPRESSIONS,
    EXR_MAGIC,
    ExrPart,
    check_chunks,
    read_attributes,
    read_parts,
    text_value,
)

RGB = ("R", "G", "B")
# What renderers and Nuke call depth.
DEPTH_NAMES = ("Z", "depth.Z", "depth", "Depth.Z")
MAX_CHUNKS = 1 << 19  # Of all parts together; tiles of one pixel come to that at 724x724.
# What Nuke and renderers write plates with. The others are where most holes in readers were found.
USUAL_COMPRESSIONS = ("none", "rle", "zips", "zip", "piz", "dwaa", "dwab")
RENDER_AGAIN = "The file is damaged or was cut short; render it again."
_NONSENSE = (struct.error, ValueError, IndexError, KeyError, OverflowError)


@dataclass(frozen=True)
class PictureLimits:
    """What a picture may be at most, before a library is asked to read it.

    Attributes:
        side: Pixels of its longer side.
        channels: Channels of one part.
        picture_bytes: Size of what is read of it, in memory, as float.
        compressions: Names of the compressions taken, out of ``COMPRESSIONS``.
    """

    side: int = 16384
    channels: int = 256
    picture_bytes: int = 1 << 30
    compressions: tuple[str, ...] = USUAL_COMPRESSIONS


LIMITS = PictureLimits()
# Where nothing is decoded: a client looks at a header, and the server decides.
NO_LIMITS = PictureLimits(32768, 1024, 1 << 34, COMPRESSIONS)


def refuse(label: str, reason: str, cure: str) -> BadPicture:
    """Return the one sentence that refuses a picture, with its cure; names are spelt on a line."""
    return BadPicture(on_a_line(f"{label} {reason}."), hint=on_a_line(cure))


def on_a_line(words: str) -> str:
    """Return words without what would move a cursor: a file's names are somebody else's bytes."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in words
    )


def parse_exr(path: Path, label: str, limits: PictureLimits = LIMITS) -> tuple[ExrPart, ...]:
    """Read the headers of a file and make sure that all of its chunks are there.

    Args:
        path: File; must exist.
        label: What a sentence calls it: ``Input 'plate' frame 1001``.
        limits: What it may be at most.

    Raises:
        BadPicture: It is no EXR, is damaged or cut short, or claims more than is taken.
    """
    if path.stat().st_size < len(EXR_MAGIC) + 4:
        raise refuse(label, "is no EXR: it is almost empty", "Render it again.")
    with open(path, "rb") as file:
        head = file.read(16)
        if head[:4] != EXR_MAGIC:
            what = f"is no EXR: it is {sniff(head)}"
            raise refuse(label, what, "Write it as EXR, or give it its true name.")
        return _parsed(file, label, limits)


def _parsed(file: BinaryIO, label: str, limits: PictureLimits) -> tuple[ExrPart, ...]:
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            parts, end = read_parts(data)
            _check_claims(parts, label, limits)
            found = check_chunks(data, parts, end)
        except _NONSENSE as error:
            raise refuse(label, "has a header that makes no sense", RENDER_AGAIN) from error
        if found is None:
            raise refuse(label, "ends before its picture does", RENDER_AGAIN)
    return found


def text_attribute(path: Path, name: str, label: str) -> str:
    """Return a text of the first header of a file; empty where it has none of that name.

    Args:
        path: File; must exist.
        name: The attribute.
        label: What a sentence calls the file.

    Raises:
        BadPicture: As :func:`parse_exr`.
    """
    parse_exr(path, label, NO_LIMITS)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found, _ = read_attributes(data, 8)
        is_text = name in found and found[name][0] == "string"
        return text_value(data, found[name]) if is_text else ""


def is_whole(path: Path) -> bool:
    """Tell whether a file that we wrote ourselves holds every chunk that its header promises."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            found = check_chunks(data, *read_parts(data))
            return found is not None and all(part.is_sound for part in found)
        except _NONSENSE:
            return False


def sniff(head: bytes) -> str:
    """Say what a file is by its first 16 bytes: ``a PNG``, ``a JPEG``, ``of an unknown kind``."""
    known = {
        EXR_MAGIC: "an EXR",
        b"\x89PNG\r\n\x1a\n": "a PNG",
        b"\xff\xd8\xff": "a JPEG",
        b"II*\0": "a TIFF",
        b"MM\0*": "a TIFF",
        b"II+\0": "a TIFF",
        b"MM\0+": "a TIFF",
        b"SDPX": "a DPX",
        b"XPDS": "a DPX",
        b"8BPS": "a Photoshop file",
        b"GIF8": "a GIF",
        b"BM": "a BMP",
        b"#?RADIANCE": "a Radiance picture",
        b"\x1aE\xdf\xa3": "a Matroska video",
    }
    if head[4:8] == b"ftyp":
        return "an MP4 or QuickTime video"
    named = (what for magic, what in known.items() if head.startswith(magic))
    return next(named, "of an unknown kind")


def choose_colour(
    parts: tuple[ExrPart, ...], label: str, limits: PictureLimits = LIMITS
) -> tuple[int, tuple[str, ...]]:
    """Choose the first part with R, G and B, and A where that part has one.

    Returns:
        Number of the part and the channels to read.

    Raises:
        BadPicture: No part can be read as colour; says why and what to do.
    """
    flat = [number for number, part in enumerate(parts) if _has(part, RGB) and not part.deep]
    if not flat:
        raise _no_colour(parts, label)
    part = parts[flat[0]]
    wanted = (*RGB, "A") if part.channel("A") else RGB
    _check_channels(part, wanted, label, limits)
    return flat[0], wanted


def choose_matte(
    parts: tuple[ExrPart, ...], channel: str | None, label: str, limits: PictureLimits = LIMITS
) -> tuple[int, tuple[str, ...]]:
    """Choose a matte's channel: the named one, else the first alpha, else the first channel.

    Returns:
        Number of the part and the one channel to read.

    Raises:
        BadPicture: There is no such channel, or it cannot be read as coverage.
    """
    return _choose_one(parts, channel, ("A",), label, limits)


def choose_data(
    parts: tuple[ExrPart, ...], channel: str | None, label: str, limits: PictureLimits = LIMITS
) -> tuple[int, tuple[str, ...]]:
    """Choose the channel of data: the named one, else the first depth, else the first channel.

    A picture is no data: where a file holds R, G and B and no depth, the channel must be named.

    Returns:
        Number of the part and the one channel to read.

    Raises:
        BadPicture: There is no such channel, none is named of a picture, or it holds no half or
            float.
    """
    names = [entry.name for part in parts if not part.deep for entry in part.channels]
    if not channel:
        check_is_data(names, label)
    return _choose_one(parts, channel, DEPTH_NAMES, label, limits)


def check_is_data(names: Sequence[str], label: str) -> None:
    """Refuse a picture where data is wanted and no channel is named.

    Args:
        names: Its channels.
        label: What a sentence calls it.

    Raises:
        BadPicture: It holds R, G and B, and no channel is called as depth is.
    """
    depth = any(find_channel(names, usual) for usual in DEPTH_NAMES)
    if set(RGB) <= set(names) and not depth:
        raise refuse(
            label,
            f"has no depth channel but {_listed(names)}",
            f"Name the channel after ':', as FILE:{names[0]}.",
        )


def _choose_one(
    parts: tuple[ExrPart, ...],
    channel: str | None,
    usual: tuple[str, ...],
    label: str,
    limits: PictureLimits,
) -> tuple[int, tuple[str, ...]]:
    """Choose the named channel, else the first of the usual ones, else the first there is."""
    flat = [number for number, part in enumerate(parts) if not part.deep and part.channels]
    if not flat:
        raise _deep(label)
    names = {number: [entry.name for entry in parts[number].channels] for number in flat}
    for wanted, number in itertools.product((channel,) if channel else usual, flat):
        name = find_channel(names[number], wanted)
        if name is not None:
            break
    else:
        every = [name for number in flat for name in names[number]]
        if channel:
            raise no_channel(channel, every, label)
        number, name = flat[0], first_channel(names[flat[0]])
    _check_channels(parts[number], (name,), label, limits)
    return number, (name,)


def find_channel(names: Sequence[str], wanted: str) -> str | None:
    """Return the channel that an artist means by ``wanted``, or None.

    A channel has the name it has in the file, and the name Nuke shows: ``R`` is ``rgba.red`` and
    ``red``, ``mask.R`` is ``mask.red``.
    """
    if wanted in names:
        return wanted
    return next((name for name in names if _as_nuke(name) == _as_nuke(wanted)), None)


def _as_nuke(name: str) -> str:
    layer, _, channel = name.rpartition(".")
    long = {"R": "red", "G": "green", "B": "blue", "A": "alpha"}.get(channel, channel)
    return long if layer in ("", "rgba") else f"{layer}.{long}"


def first_channel(names: Sequence[str]) -> str:
    """Return the channel an application shows first: R, Y, or the first in the file."""
    return next((name for name in ("R", "Y") if name in names), names[0])


def no_channel(wanted: str, names: Sequence[str], label: str) -> BadPicture:
    """Return the sentence for a channel that a file does not have."""
    return refuse(label, f"has no channel '{wanted}'", f"It has {_listed(names)}.")


def _no_colour(parts: tuple[ExrPart, ...], label: str) -> BadPicture:
    if any(part.deep for part in parts):
        return _deep(label)
    names = [channel.name for part in parts for channel in part.channels]
    if {"RY", "BY"} & set(names):
        return refuse(
            label,
            "is stored as luminance and subsampled chroma",
            "Write it with plain R, G and B channels.",
        )
    return refuse(
        label, f"has no R, G and B channels but {_listed(names)}", "Write it with R, G and B."
    )


def _deep(label: str) -> BadPicture:
    return refuse(label, "is a deep EXR", "Flatten it first (DeepToImage) and write it again.")


def check_sound(part: ExrPart, label: str) -> None:
    """Refuse a part with a chunk that is another's, or of a size that it cannot have.

    Raises:
        BadPicture: There is one.
    """
    if not part.is_sound:
        raise refuse(label, "has pixels that are not where its header says", RENDER_AGAIN)


def _check_channels(
    part: ExrPart, names: tuple[str, ...], label: str, limits: PictureLimits
) -> None:
    check_sound(part, label)
    for channel in part.channels:
        # The library takes no file with such a channel, wanted or not.
        if (channel.x_sampling, channel.y_sampling) != (1, 1):
            cure = "Write every channel at full resolution."
            raise refuse(label, f"has a subsampled channel '{channel.name}'", cure)
    for name in names:
        kinds = {entry.pixel_type for entry in part.channels if entry.name == name}
        if "uint" in kinds:
            cure = "Write it as 16-bit half or 32-bit float."
            raise refuse(label, f"holds whole numbers in channel '{name}'", cure)
    size = part.data_window.width * part.data_window.height * len(names) * 4
    if size > limits.picture_bytes:
        raise too_large(part.data_window.width, part.data_window.height, label, limits)


def _has(part: ExrPart, names: tuple[str, ...]) -> bool:
    return all(part.channel(name) for name in names)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown


def too_large(width: int, height: int, label: str, limits: PictureLimits) -> BadPicture:
    """Return the sentence for a picture of more pixels than are taken."""
    cure = f"At most {limits.side} a side and {_in_bytes(limits.picture_bytes)} are taken"
    claim = f"claims to be {width}x{height} pixels"
    return refuse(label, claim, f"{cure}; if it should be smaller, render it again.")


def _in_bytes(count: int) -> str:
    return f"{count / 2**30:g} GiB" if count >= 1 << 30 else f"{count / 2**20:g} MiB"


def _check_claims(parts: tuple[ExrPart, ...], label: str, limits: PictureLimits) -> None:
    for part in parts:
        for window in (part.data_window, part.display_window):
            if window.width < 1 or window.height < 1:
                raise ValueError("empty window")
            if max(window.width, window.height) > limits.side:
                raise too_large(window.width, window.height, label, limits)
        if len(part.channels) > limits.channels:
            cure = f"At most {limits.channels} are taken; write fewer."
            raise refuse(label, f"has {len(part.channels)} channels", cure)
        packed = COMPRESSIONS[part.compression]
        if packed not in limits.compressions and not part.deep:
            cure = f"Write it with one of {', '.join(limits.compressions)}."
            raise refuse(label, f"is compressed as {packed}, which is not taken here", cure)
    if sum(part.chunk_count for part in parts) > MAX_CHUNKS:
        cure = f"At most {MAX_CHUNKS} are taken; write it in scanlines."
        raise refuse(label, f"has {sum(part.chunk_count for part in parts)} tiles or strips", cure)
