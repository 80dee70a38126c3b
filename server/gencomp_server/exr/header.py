# SPDX-License-Identifier: Apache-2.0
"""Reading an OpenEXR header by hand, so that a bad file is refused before a library touches it.

::

    magic 76 2f 31 01 | version and flags | header, header, … | chunk offsets of each part | chunks

Only what a refusal needs is read: kinds of parts, channels, windows, compression, and whether every
chunk that the file promises is really in it. Pixels are never touched and memory does not depend on
what a header claims. Layout: openexr.com, "OpenEXR File Layout".
"""

import itertools
import mmap
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gencomp_protocol.errors import BadPicture
from gencomp_protocol.frames import Box

EXR_MAGIC = b"\x76\x2f\x31\x01"
RGB = ("R", "G", "B")
# What renderers and Nuke call depth.
DEPTH_NAMES = ("Z", "depth.Z", "depth", "Depth.Z")
PIXEL_TYPES = ("uint", "half", "float")
MAX_SIDE = 32768
MAX_CHANNELS = 1024
MAX_PARTS = 64
MAX_PICTURE_BYTES = 1 << 30

# Flags of the file's version.
_TILED, LONG_NAMES, _DEEP, MULTIPART = 0x200, 0x400, 0x800, 0x1000
# Scanlines per chunk by compression number: none, rle, zips, zip, piz, pxr24, b44, b44a, dwaa,
# dwab, htj2k256, htj2k32.
_LINES_PER_CHUNK = (1, 1, 1, 16, 32, 16, 32, 32, 32, 256, 256, 32)
RENDER_AGAIN = "The file is damaged or was cut short; render it again."
_Attributes = dict[str, tuple[str, int, int]]


@dataclass(frozen=True)
class ExrChannel:
    """A channel of a part: its name, ``uint``, ``half`` or ``float``, and its sampling."""

    name: str
    pixel_type: str
    x_sampling: int
    y_sampling: int


@dataclass(frozen=True)
class ExrPart:
    """One part of a file.

    Attributes:
        name: Its name; empty for the only part of an old file.
        deep: True where a pixel holds any number of samples.
        tiled: True where it is stored in tiles.
        channels: Its channels, in file order.
        compression: Number of its compression.
        data_window: The pixels present.
        display_window: The picture's frame.
        chunk_count: Number of chunks; None for a tiled part that does not say.
        pixel_aspect: Width over height of one pixel; 1 where the file's number makes no sense.
    """

    name: str
    deep: bool
    tiled: bool
    channels: tuple[ExrChannel, ...]
    compression: int
    data_window: Box
    display_window: Box
    chunk_count: int | None
    pixel_aspect: float = 1.0

    def channel(self, name: str) -> ExrChannel | None:
        """Return the channel of that name, or None."""
        return next((channel for channel in self.channels if channel.name == name), None)


def refuse(label: str, reason: str, cure: str) -> BadPicture:
    """Return the one sentence that refuses a picture, with its cure."""
    return BadPicture(f"{label} {reason}.", hint=cure)


def parse_exr(path: Path, label: str) -> tuple[ExrPart, ...]:
    """Read the headers of a file and make sure that all of its chunks are there.

    Args:
        path: File; must exist.
        label: What a sentence calls it: ``Input 'plate' frame 1001``.

    Raises:
        BadPicture: It is no EXR, is damaged or cut short, or claims more than is taken.
    """
    if path.stat().st_size < len(EXR_MAGIC) + 4:
        raise refuse(label, "is no EXR: it is almost empty", "Render it again.")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != EXR_MAGIC:
            what = f"is no EXR: it is {sniff(data[:16])}"
            raise refuse(label, what, "Write it as EXR, or give it its true name.")
        try:
            parts, end = _parts(data)
            _check_claims(parts, label)
            whole = _all_chunks_there(data, parts, end)
        except (struct.error, ValueError, IndexError, KeyError) as error:
            raise refuse(label, "has a header that makes no sense", RENDER_AGAIN) from error
        if not whole:
            raise refuse(label, "ends before its picture does", RENDER_AGAIN)
    return parts


def text_attribute(path: Path, name: str, label: str) -> str:
    """Return a text of the first header of a file; empty where it has none of that name.

    Args:
        path: File; must exist.
        name: The attribute.
        label: What a sentence calls the file.

    Raises:
        BadPicture: As :func:`parse_exr`.
    """
    parse_exr(path, label)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found, _ = _attributes(data, 8)
        is_text = name in found and found[name][0] == "string"
        return _string(data, found[name]) if is_text else ""


def is_whole(path: Path) -> bool:
    """Tell whether a file that we wrote ourselves holds every chunk that its header promises."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return _all_chunks_there(data, *_parts(data))
        except (struct.error, ValueError, IndexError, KeyError):
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


def choose_colour(parts: tuple[ExrPart, ...], label: str) -> tuple[int, tuple[str, ...]]:
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
    _check_channels(part, wanted, label)
    return flat[0], wanted


def choose_matte(
    parts: tuple[ExrPart, ...], channel: str | None, label: str
) -> tuple[int, tuple[str, ...]]:
    """Choose a matte's channel: the named one, else the first alpha, else the first channel.

    Returns:
        Number of the part and the one channel to read.

    Raises:
        BadPicture: There is no such channel, or it cannot be read as coverage.
    """
    return _choose_one(parts, channel, ("A",), label)


def choose_data(
    parts: tuple[ExrPart, ...], channel: str | None, label: str
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
    return _choose_one(parts, channel, DEPTH_NAMES, label)


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
    parts: tuple[ExrPart, ...], channel: str | None, usual: tuple[str, ...], label: str
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
    _check_channels(parts[number], (name,), label)
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


def _check_channels(part: ExrPart, names: tuple[str, ...], label: str) -> None:
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
    if size > MAX_PICTURE_BYTES:
        raise _too_large(part.data_window, label)


def _has(part: ExrPart, names: tuple[str, ...]) -> bool:
    return all(part.channel(name) for name in names)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown


def _too_large(window: Box, label: str) -> BadPicture:
    claim = f"claims to be {window.width}x{window.height} pixels"
    cure = f"At most {MAX_SIDE} a side and {MAX_PICTURE_BYTES >> 30} GiB are taken"
    return refuse(label, claim, f"{cure}; if it should be smaller, render it again.")


def _check_claims(parts: tuple[ExrPart, ...], label: str) -> None:
    for part in parts:
        for window in (part.data_window, part.display_window):
            if window.width < 1 or window.height < 1:
                raise ValueError("empty window")
            if max(window.width, window.height) > MAX_SIDE:
                raise _too_large(window, label)
        if len(part.channels) > MAX_CHANNELS:
            cure = f"At most {MAX_CHANNELS} are taken; write fewer."
            raise refuse(label, f"has {len(part.channels)} channels", cure)


# --- the bytes -----------------------------------------------------------------------------------


def _parts(data: mmap.mmap) -> tuple[tuple[ExrPart, ...], int]:
    """Return every part and where the chunk offsets begin."""
    (flags,) = struct.unpack_from("<I", data, 4)
    if flags & 0xFF != 2:
        raise ValueError("unknown version")
    parts, at = [], 8
    while True:
        attributes, at = _attributes(data, at)
        parts.append(_part(data, attributes, flags))
        if not flags & MULTIPART:
            return tuple(parts), at
        if data[at] == 0:
            return tuple(parts), at + 1
        if len(parts) == MAX_PARTS:
            raise ValueError("too many parts")


def _attributes(data: mmap.mmap, at: int) -> tuple[_Attributes, int]:
    """Return type, place and size of each attribute of a header, and where the header ends."""
    found: _Attributes = {}
    while data[at] != 0:
        name, at = _text(data, at)
        kind, at = _text(data, at)
        (size,) = struct.unpack_from("<i", data, at)
        at += 4
        if size < 0 or at + size > len(data):
            raise ValueError("attribute out of bounds")
        found[name] = (kind, at, size)
        at += size
    return found, at + 1


def _text(data: mmap.mmap, at: int) -> tuple[str, int]:
    end = data.find(b"\0", at, at + 256)
    if end < 0:
        raise ValueError("name without an end")
    return data[at:end].decode("utf-8", "backslashreplace"), end + 1


def _part(data: mmap.mmap, attributes: _Attributes, flags: int) -> ExrPart:
    kind, deep, tiled = "", bool(flags & _DEEP), bool(flags & _TILED)
    if flags & MULTIPART:
        # Only here does the attribute decide; in a single part the flags do, whatever it says.
        kind = _string(data, attributes["type"])
        deep, tiled = kind.startswith("deep"), kind in ("tiledimage", "deeptile")
    windows = [_box(data, attributes[name]) for name in ("dataWindow", "displayWindow")]
    compression = data[attributes["compression"][1]]
    return ExrPart(
        name=_string(data, attributes["name"]) if "name" in attributes else "",
        deep=deep,
        tiled=tiled,
        channels=tuple(_channels(data, attributes["channels"])),
        compression=compression,
        data_window=windows[0],
        display_window=windows[1],
        chunk_count=_chunk_count(data, attributes, tiled, windows[0], compression),
        pixel_aspect=_pixel_aspect(data, attributes),
    )


def _string(data: mmap.mmap, attribute: tuple[str, int, int]) -> str:
    _, at, size = attribute
    return data[at : at + size].rstrip(b"\0").decode("utf-8", "backslashreplace")


def _box(data: mmap.mmap, attribute: tuple[str, int, int]) -> Box:
    return Box(*struct.unpack_from("<4i", data, attribute[1]))


def _pixel_aspect(data: mmap.mmap, attributes: _Attributes) -> float:
    """Return what ``exr/pixels.py`` reads of the same attribute."""
    if "pixelAspectRatio" not in attributes:
        return 1.0
    (aspect,) = struct.unpack_from("<f", data, attributes["pixelAspectRatio"][1])
    return float(aspect) if 0.0 < aspect < float("inf") else 1.0


def _channels(data: mmap.mmap, attribute: tuple[str, int, int]) -> Iterator[ExrChannel]:
    _, at, size = attribute
    end = at + size
    while at < end and data[at] != 0:
        name, at = _text(data, at)
        kind, _, x_sampling, y_sampling = struct.unpack_from("<iB3x2i", data, at)
        at += 16
        if not 0 <= kind < len(PIXEL_TYPES):
            raise ValueError("unknown pixel type")
        yield ExrChannel(name, PIXEL_TYPES[kind], x_sampling, y_sampling)


def _chunk_count(
    data: mmap.mmap,
    attributes: Mapping[str, tuple[str, int, int]],
    tiled: bool,
    window: Box,
    z: int,
) -> int | None:
    if tiled:
        if "chunkCount" not in attributes:
            return None
        return int(struct.unpack_from("<i", data, attributes["chunkCount"][1])[0])
    return -(-window.height // _LINES_PER_CHUNK[z])


def _all_chunks_there(data: mmap.mmap, parts: tuple[ExrPart, ...], at: int) -> bool:
    """Tell whether every chunk lies inside the file, as far as its offsets say.

    A tiled part alone in its file is left to the library: how many tiles it has depends on its
    levels.
    """
    multipart = 4 if len(parts) > 1 else 0
    for part in parts:
        if part.chunk_count is None:
            return True
        offsets = struct.unpack_from(f"<{part.chunk_count}Q", data, at)
        at += 8 * part.chunk_count
        if part.deep:
            continue
        head = multipart + (16 if part.tiled else 4)
        for offset in offsets:
            if offset + head + 4 > len(data):
                return False
            (size,) = struct.unpack_from("<i", data, offset + head)
            if size < 0 or offset + head + 4 + size > len(data) or offset == 0:
                return False
    return True
