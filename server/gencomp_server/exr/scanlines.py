# SPDX-License-Identifier: Apache-2.0
"""Writing the bytes of an OpenEXR file: any number of parts, any mix of types, ZIP.

::

    magic, version and flags | header of each part | chunk offsets of each part | chunks

The picture library cannot write a part whose channels differ in type without converting them, and
its ZIP is slower than ours for the same size (``docs/decisions/0017-exr-written-by-hand.md``), so
files are written here. A chunk is 16 lines, of each line one channel after the other; its bytes
are split into even and odd, each is replaced by its difference from the one before, and all are
deflated. Where that does not make it smaller it is stored as it is. No sample is ever converted.
Layout: openexr.com, "OpenEXR File Layout" and "ZIP compression".
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from gencomp_protocol.frames import Box
from gencomp_server.exr import attributes
from gencomp_server.exr.header import EXR_MAGIC, LONG_NAMES, MULTIPART, PIXEL_TYPES

COMPRESSION = "zip"
LINES = 16
_ZIP = 3
_VERSION = 2
TYPE_NAMES = {"float16": "half", "float32": "float", "uint32": "uint"}
_BITS = {2: np.uint16, 4: np.uint32}
_HALF_BYTES = 2


@dataclass(frozen=True)
class Plane:
    """One channel of a part.

    Attributes:
        name: Its name in the file.
        samples: [H,W] float16, float32 or uint32, over the part's data window; any strides.
    """

    name: str
    samples: NDArray[Any]


@dataclass(frozen=True)
class Part:
    """One part of a file.

    Attributes:
        planes: Its channels, in any order; the file has them sorted by name.
        data_window: The pixels present.
        name: Its name; may be empty where it is the only one, else no two are the same.
        metadata: Its attributes: plain str, int, float and tuples of them.
    """

    planes: tuple[Plane, ...]
    data_window: Box
    name: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


def write_parts(
    file: BinaryIO,
    parts: Sequence[Part],
    display_window: Box,
    pixel_aspect: float,
    *,
    deflater: "Deflater | None" = None,
) -> None:
    """Write a whole file.

    Args:
        file: Open for writing, at its beginning; must be able to seek.
        parts: At least one; each has at least one channel.
        display_window: The picture's frame, the same for all parts.
        pixel_aspect: Width over height of one pixel, the same for all parts.
        deflater: How to deflate; None takes what is best for each part's types.
    """
    sorted_parts = [_sorted(part) for part in parts]
    headers = [_header(part, display_window, pixel_aspect, len(parts)) for part in sorted_parts]
    flags = MULTIPART if len(parts) > 1 else 0
    flags |= LONG_NAMES if any(map(_has_long_name, sorted_parts)) else 0
    file.write(EXR_MAGIC + struct.pack("<I", _VERSION | flags) + b"".join(headers))
    if len(parts) > 1:
        file.write(b"\0")
    table_at = file.tell()
    counts = [_chunk_count(part) for part in sorted_parts]
    file.write(bytes(8 * sum(counts)))
    offsets: list[int] = []
    at = file.tell()
    for number, part in enumerate(sorted_parts):
        lead = struct.pack("<i", number) if len(parts) > 1 else b""
        deflate = deflater or deflater_for(part.planes)
        for top in range(0, part.data_window.height, LINES):
            data = deflate(_lines(part, top))
            chunk = lead + struct.pack("<ii", part.data_window.y0 + top, len(data))
            offsets.append(at)
            file.write(chunk)
            file.write(data)
            at += len(chunk) + len(data)
    file.seek(table_at)
    file.write(struct.pack(f"<{len(offsets)}Q", *offsets))


def _sorted(part: Part) -> Part:
    planes = tuple(sorted(part.planes, key=lambda plane: plane.name.encode()))
    return Part(planes, part.data_window, part.name, part.metadata)


def _has_long_name(part: Part) -> bool:
    names = [plane.name for plane in part.planes] + list(part.metadata)
    return any(len(name.encode()) > attributes.SHORT_NAME for name in names)


def _chunk_count(part: Part) -> int:
    return -(-part.data_window.height // LINES)


def _header(part: Part, display_window: Box, pixel_aspect: float, parts: int) -> bytes:
    """Return a part's header: its metadata, over which what the file needs has precedence."""
    listed = [
        (plane.name, PIXEL_TYPES.index(TYPE_NAMES[str(plane.samples.dtype)]))
        for plane in part.planes
    ]
    found = {
        **attributes.metadata_attributes(part.metadata),
        "channels": attributes.channel_list(listed),
        "compression": attributes.attribute("compression", "compression", bytes([_ZIP])),
        "dataWindow": attributes.box("dataWindow", part.data_window),
        "displayWindow": attributes.box("displayWindow", display_window),
        "lineOrder": attributes.attribute("lineOrder", "lineOrder", b"\0"),
        "pixelAspectRatio": _number("pixelAspectRatio", pixel_aspect),
        "screenWindowCenter": attributes.attribute("screenWindowCenter", "v2f", bytes(8)),
        "screenWindowWidth": _number("screenWindowWidth", 1.0),
    }
    if part.name:
        found["name"] = attributes.string("name", part.name)
    if parts > 1:
        found["type"] = attributes.string("type", "scanlineimage")
        count = struct.pack("<i", _chunk_count(part))
        found["chunkCount"] = attributes.attribute("chunkCount", "int", count)
    return b"".join(found[name] for name in sorted(found)) + b"\0"


def _number(name: str, value: float) -> bytes:
    return attributes.attribute(name, "float", struct.pack("<f", value))


def _lines(part: Part, top: int) -> NDArray[np.uint8]:
    """Return up to 16 lines as the file orders them. [bytes] uint8."""
    rows, width = min(LINES, part.data_window.height - top), part.data_window.width
    line_bytes = width * sum(plane.samples.dtype.itemsize for plane in part.planes)
    block, at = np.empty((rows, line_bytes), np.uint8), 0
    for plane in part.planes:
        size = plane.samples.dtype.itemsize
        # As whole numbers: a copy of floating-point samples might quieten a NaN.
        samples = plane.samples[top : top + rows].view(_BITS[size])
        block[:, at : at + width * size].view(_BITS[size])[...] = samples
        at += width * size
    return block.reshape(-1)


class Deflater:
    """Deflates chunks.

    Args:
        level: Of zlib, 1 to 9.
        strategy: Of zlib: ``zlib.Z_DEFAULT_STRATEGY``, ``zlib.Z_RLE`` …
    """

    def __init__(self, level: int, strategy: int) -> None:
        self._level, self._strategy = level, strategy

    def __call__(self, raw: NDArray[np.uint8]) -> bytes:
        """Return a chunk of a file.

        Args:
            raw: [bytes] uint8.
        """
        half = (raw.size + 1) // 2
        split = np.empty(raw.size, np.uint8)
        split[:half], split[half:] = raw[0::2], raw[1::2]
        steps = np.empty(raw.size, np.uint8)
        steps[0] = split[0]
        np.subtract(split[1:], split[:-1], out=steps[1:])
        steps[1:] += 128
        work = zlib.compressobj(self._level, zlib.DEFLATED, 15, 9, self._strategy)
        made = work.compress(steps.data) + work.flush()
        return made if len(made) < raw.size else raw.tobytes()


# Half samples of a picture are noise below and runs above: only runs of one byte are looked for,
# which is faster and smaller. Ids and depth repeat in longer patterns, which level 1 finds.
OF_HALF = Deflater(1, zlib.Z_RLE)
OF_SINGLE = Deflater(1, zlib.Z_DEFAULT_STRATEGY)


def deflater_for(planes: Sequence[Plane]) -> Deflater:
    """Return what deflates a part best, by the type that most of its bytes have."""
    sizes = [plane.samples.dtype.itemsize for plane in planes]
    halves = sum(size for size in sizes if size == _HALF_BYTES)
    return OF_HALF if 2 * halves >= sum(sizes) else OF_SINGLE
