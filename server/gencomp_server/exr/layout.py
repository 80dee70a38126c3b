# SPDX-License-Identifier: Apache-2.0
"""The bytes of an OpenEXR file: its headers, and where each of its chunks lies.

::

    magic 76 2f 31 01 | version and flags | header, header, … | chunk offsets of each part | chunks

Pixels are never touched, and memory does not depend on what a header claims. What may be claimed is
``exr/header.py``'s business. Layout: openexr.com, "OpenEXR File Layout".
"""

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from gencomp_protocol.frames import Box

EXR_MAGIC = b"\x76\x2f\x31\x01"
PIXEL_TYPES = ("uint", "half", "float")
MAX_PARTS = 64
MAX_ATTRIBUTES = 4096  # Of all parts together.
MAX_LISTED = 4096  # Channels of a part whose number is still told.
_MAX_TILE = 1 << 15

# Flags of the file's version.
_TILED, LONG_NAMES, _DEEP, MULTIPART = 0x200, 0x400, 0x800, 0x1000
# Scanlines per chunk by compression number: none, rle, zips, zip, piz, pxr24, b44, b44a, dwaa,
# dwab, htj2k256, htj2k32.
_LINES_PER_CHUNK = (1, 1, 1, 16, 32, 16, 32, 32, 32, 256, 256, 32)
COMPRESSIONS = (
    *("none", "rle", "zips", "zip", "piz", "pxr24"),
    *("b44", "b44a", "dwaa", "dwab", "htj2k256", "htj2k32"),
)
_SAMPLE_BYTES = {"uint": 4, "half": 2, "float": 4}
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
        chunk_count: Number of chunks that its windows and tiles come to.
        pixel_aspect: Width over height of one pixel; 1 where the file's number makes no sense.
        tiles: How it is tiled; None where it is not.
        is_sound: Whether each of its chunks is the one that should be there.
    """

    name: str
    deep: bool
    tiled: bool
    channels: tuple[ExrChannel, ...]
    compression: int
    data_window: Box
    display_window: Box
    chunk_count: int
    pixel_aspect: float = 1.0
    tiles: "ExrTiles | None" = None
    is_sound: bool = True

    def channel(self, name: str) -> ExrChannel | None:
        """Return the channel of that name, or None."""
        return next((channel for channel in self.channels if channel.name == name), None)


@dataclass(frozen=True)
class ExrTiles:
    """How a part is tiled.

    Attributes:
        width: Pixels of a tile.
        height: Pixels of a tile.
        levels: Of each level, in the file's order: its two numbers, and its pixels across and down.
    """

    width: int
    height: int
    levels: tuple[tuple[int, int, int, int], ...]

    @property
    def count(self) -> int:
        """Number of all tiles."""
        return sum(
            -(-across // self.width) * -(-down // self.height) for _, _, across, down in self.levels
        )

    def places(self) -> Iterator[tuple[tuple[int, int, int, int], int]]:
        """Return of each tile where it stands, and how many pixels it has."""
        for level_x, level_y, across, down in self.levels:
            for y, top in enumerate(range(0, down, self.height)):
                for x, left in enumerate(range(0, across, self.width)):
                    size = min(self.width, across - left) * min(self.height, down - top)
                    yield (x, y, level_x, level_y), size


def read_parts(data: mmap.mmap) -> tuple[tuple[ExrPart, ...], int]:
    """Return every part and where the chunk offsets begin.

    Args:
        data: The whole file; it begins with the magic number.

    Raises:
        ValueError, IndexError, KeyError, OverflowError, struct.error: The headers make no sense.
    """
    (flags,) = struct.unpack_from("<I", data, 4)
    if flags & 0xFF != 2:
        raise ValueError("unknown version")
    parts, at, count = [], 8, 0
    while True:
        attributes, at = read_attributes(data, at)
        count += len(attributes)
        parts.append(_part(data, attributes, flags))
        if not flags & MULTIPART:
            return tuple(parts), at
        if data[at] == 0:
            return tuple(parts), at + 1
        if len(parts) == MAX_PARTS or count > MAX_ATTRIBUTES:
            raise ValueError("too many parts or attributes")


def read_attributes(data: mmap.mmap, at: int) -> tuple[_Attributes, int]:
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
        if len(found) > MAX_ATTRIBUTES:
            raise ValueError("too many attributes")
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
        kind = text_value(data, attributes["type"])
        deep, tiled = kind.startswith("deep"), kind in ("tiledimage", "deeptile")
    windows = [_box(data, attributes[name]) for name in ("dataWindow", "displayWindow")]
    compression = data[attributes["compression"][1]]
    tiles = _tiles(data, attributes["tiles"], windows[0]) if tiled else None
    lines = _LINES_PER_CHUNK[compression]
    return ExrPart(
        name=text_value(data, attributes["name"]) if "name" in attributes else "",
        deep=deep,
        tiled=tiled,
        channels=tuple(_channels(data, attributes["channels"])),
        compression=compression,
        data_window=windows[0],
        display_window=windows[1],
        chunk_count=-(-windows[0].height // lines) if tiles is None else tiles.count,
        pixel_aspect=_pixel_aspect(data, attributes),
        tiles=tiles,
    )


def _tiles(data: mmap.mmap, attribute: tuple[str, int, int], window: Box) -> ExrTiles:
    """Return size, and levels in the order in which their tiles are listed."""
    width, height, mode = struct.unpack_from("<IIB", data, attribute[1])
    levels, rounded_up = mode & 15, mode >> 4
    if not (0 < width <= _MAX_TILE and 0 < height <= _MAX_TILE) or levels > 2 or rounded_up > 1:
        raise ValueError("tiles that cannot be")

    across, down = _halved(window.width, rounded_up), _halved(window.height, rounded_up)
    if levels == 0:
        numbers = [(0, 0)]
    elif levels == 1:
        numbers = [(n, n) for n in range(max(len(across), len(down)))]
    else:
        numbers = [(x, y) for y in range(len(down)) for x in range(len(across))]
    # The shorter side stays at one pixel until the longer one is there too.
    sizes = [
        (x, y, across[min(x, len(across) - 1)], down[min(y, len(down) - 1)]) for x, y in numbers
    ]
    return ExrTiles(width, height, tuple(sizes))


def _halved(size: int, rounded_up: int) -> list[int]:
    """Return a side's pixels at every level, down to one."""
    found = [max(1, size)]
    while found[-1] > 1:
        found.append(-(-size >> len(found)) if rounded_up else size >> len(found))
    return found


def text_value(data: mmap.mmap, attribute: tuple[str, int, int]) -> str:
    """Return an attribute as text; what is no UTF-8 is spelt out."""
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
    end, seen = at + size, set()
    while at < end and data[at] != 0:
        name, at = _text(data, at)
        kind, _, x_sampling, y_sampling = struct.unpack_from("<iB3x2i", data, at)
        at += 16
        if not 0 <= kind < len(PIXEL_TYPES) or min(x_sampling, y_sampling) < 1 or name in seen:
            raise ValueError("a channel that cannot be")
        seen.add(name)
        if len(seen) > MAX_LISTED:
            raise ValueError("too many channels")
        yield ExrChannel(name, PIXEL_TYPES[kind], x_sampling, y_sampling)


# --- the chunks ----------------------------------------------------------------------------------


def check_chunks(
    data: mmap.mmap, parts: tuple[ExrPart, ...], at: int
) -> tuple[ExrPart, ...] | None:
    """Return the parts, each with whether its chunks are what they should be.

    None where a chunk lies beyond the file or among its headers: then it was cut short.
    """
    (flags,) = struct.unpack_from("<I", data, 4)
    first = at + 8 * sum(part.chunk_count for part in parts)
    found = []
    for number, part in enumerate(parts):
        offsets = struct.unpack_from(f"<{part.chunk_count}Q", data, at)
        at += 8 * part.chunk_count
        own, is_sound = (number,) if flags & MULTIPART else (), True
        for offset, (place, exact) in zip(() if part.deep else offsets, _places(part), strict=True):
            words = struct.pack(f"<{len(own) + len(place)}i", *own, *place)
            body = offset + len(words) + 4
            if offset < first or body > len(data):
                return None
            (size,) = struct.unpack_from("<i", data, body - 4)
            if size < 0 or body + size > len(data):
                return None
            # What is as large as its pixels is not packed; nothing at all stands for no picture.
            odd = exact and (size == 0 or (part.compression == 0 and size != exact))
            is_sound = is_sound and data[offset : body - 4] == words and not odd
        found.append(replace(part, is_sound=is_sound))
    return tuple(found)


def _places(part: ExrPart) -> Iterator[tuple[tuple[int, ...], int]]:
    """Return, chunk by chunk, what its first words say of it and the bytes of its pixels.

    Of a part with a subsampled channel these are not told: it is not read. A deep part has none.
    """
    if part.deep:
        return
    whole = all((one.x_sampling, one.y_sampling) == (1, 1) for one in part.channels)
    pixel = sum(_SAMPLE_BYTES[one.pixel_type] for one in part.channels) if whole else 0
    if part.tiles is not None:
        for place, count in part.tiles.places():
            yield place, count * pixel
        return
    window, lines = part.data_window, _LINES_PER_CHUNK[part.compression]
    for top in range(window.y0, window.y1 + 1, lines):
        yield (top,), min(lines, window.y1 - top + 1) * window.width * pixel
