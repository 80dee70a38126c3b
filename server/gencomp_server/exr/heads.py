# SPDX-License-Identifier: Apache-2.0
"""What a DPX, PNG, TIFF or JPEG says of itself before its pixels: bits a channel, and size.

Read by hand, so that ``gencomp run`` and ``gencomp plan`` need no picture library. What cannot be
made out is None, never an error: the decoder sees to the file itself.
"""

import struct
from pathlib import Path

from gencomp_server.exr.header import NO_LIMITS

_HEAD_BYTES = 1024
# Width, height, bits and sample format of a TIFF; 3 is a field of two bytes, 4 of four.
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_KIND = 256, 257, 258, 339
_TIFF_CODES = {3: "H", 4: "I"}
# A JPEG's frame headers: every C0 to CF but tables (C4), the reserved C8 and arithmetic (CC).
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})


def bit_depth(path: Path) -> str | None:
    """Return ``8``, ``10``, ``16`` … or ``float`` from a picture's first bytes.

    None where they are not those of a DPX, PNG, TIFF or JPEG file. A TIFF's depth stands in a
    table anywhere in the file.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if head[:3] == b"\xff\xd8\xff":
            return "8"
        if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) > 24:
            return str(head[24])
        if head[:4] in (b"SDPX", b"XPDS") and len(head) > 803:
            return "float" if head[803] in (32, 64) else str(head[803])
        if head[:4] not in (b"II*\0", b"MM\0*"):
            return None
        file.seek(0)
        tags = _tiff_tags(file.read())
    if tags is None:
        return None
    return "float" if tags.get(_TIFF_KIND) == 3 else str(tags.get(_TIFF_BITS, 1))


def picture_size(path: Path) -> tuple[int, int] | None:
    """Return a picture's width and height, or None where its first bytes do not say them."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        size: tuple[int, int] | None = None
        if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) >= 24:
            size = struct.unpack_from(">II", head, 16)
        elif head[:4] in (b"SDPX", b"XPDS") and len(head) >= 780:
            size = struct.unpack_from((">" if head[:1] == b"S" else "<") + "II", head, 772)
        elif head[:3] == b"\xff\xd8\xff" or head[:4] in (b"II*\0", b"MM\0*"):
            file.seek(0)
            data = file.read()
            size = _jpeg_size(data) if head[:1] == b"\xff" else _tiff_size(data)
    return size if size is not None and all(0 < side <= NO_LIMITS.side for side in size) else None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Walk the segments of a JPEG to its frame header: length, bits, height, width."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        code = data[at + 1]
        if code in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        if code == 0xFF:  # a filler
            at += 1
        elif code in _JPEG_ALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    tags = _tiff_tags(data) or {}
    width, height = tags.get(_TIFF_WIDTH), tags.get(_TIFF_HEIGHT)
    return None if width is None or height is None else (width, height)


def _tiff_tags(data: bytes) -> dict[int, int] | None:
    """Return the first whole number of each tag of a TIFF's first directory; None if cut short."""
    end = "<" if data[:2] == b"II" else ">"
    tags = {}
    try:
        (start,) = struct.unpack_from(end + "I", data, 4)
        (count,) = struct.unpack_from(end + "H", data, start)
        for index in range(count):
            at = start + 2 + 12 * index
            tag, kind, length = struct.unpack_from(end + "HHI", data, at)
            if tag not in (_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_BITS, _TIFF_KIND):
                continue
            if kind not in _TIFF_CODES:
                continue
            inside = length * struct.calcsize(_TIFF_CODES[kind]) <= 4
            where = at + 8 if inside else struct.unpack_from(end + "I", data, at + 8)[0]
            (tags[tag],) = struct.unpack_from(end + _TIFF_CODES[kind], data, where)
    except struct.error:
        return None
    return tags
