# SPDX-License-Identifier: Apache-2.0
"""EXRs made hostile from good ones: cut, flipped, with headers that lie, bombs, names of any bytes.

Everything follows from a seed, so that a file that once did harm can be made again. What was done
to a file says its name: ``cut-017``, ``header-204``.
"""

import random
import struct
from dataclasses import dataclass

_ATTRIBUTES = {
    "dataWindow": "box2i",
    "displayWindow": "box2i",
    "compression": "compression",
    "lineOrder": "lineOrder",
    "pixelAspectRatio": "float",
}
_ODD_NUMBERS = (0, 1, -1, 2, 255, 65535, 46339, 2**31 - 1, -(2**31), 2**30, 10_000_000)
_ODD_NAMES = (b"\xff\xfe", b"\xc3\x28", b"\x1b[31m", b"\n\r", b"%s%n", b"\xed\xa0\x80", b"\x80" * 8)


@dataclass(frozen=True)
class Hostile:
    """A file that somebody might send.

    Attributes:
        name: What was done to it, and its number.
        data: Its bytes.
    """

    name: str
    data: bytes


def mutate(data, seed):
    """Return one hostile file made of a good one."""
    chance = random.Random(seed)
    kind = chance.choice(sorted(_KINDS))
    return Hostile(f"{kind}-{seed:05d}", _KINDS[kind](bytearray(data), chance))


def header_end(data):
    """Return where the first header of an EXR ends, as far as its names and sizes can be read."""
    at = 8
    while at < len(data) and data[at]:
        for _ in range(2):
            at = data.index(b"\0", at) + 1
        at += 4 + struct.unpack_from("<i", data, at)[0]
    return at + 1


def _cut(data, chance):
    return bytes(data[: chance.randrange(len(data))])


def _flip_anywhere(data, chance):
    for _ in range(chance.randint(1, 4)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(data)


def _flip_in_header(data, chance):
    end = header_end(data)
    for _ in range(chance.randint(1, 6)):
        data[chance.randrange(4, end)] = chance.randrange(256)
    return bytes(data)


def _lie(data, chance):
    """Give an attribute numbers that it does not have."""
    name = chance.choice(sorted(_ATTRIBUTES))
    mark = f"{name}\0{_ATTRIBUTES[name]}\0".encode()
    at = data.index(mark) + len(mark)
    (size,) = struct.unpack_from("<i", data, at)
    if size < 4:
        data[at + 4] = chance.randrange(256)
    elif chance.random() < 0.2:
        struct.pack_into("<i", data, at, chance.choice(_ODD_NUMBERS))
    else:
        for place in range(at + 4, at + 4 + size, 4):
            if chance.random() < 0.5:
                struct.pack_into("<i", data, place, chance.choice(_ODD_NUMBERS))
    return bytes(data)


def _spoil_offsets(data, chance):
    """Let the table of chunks point somewhere else."""
    at, end = header_end(data), len(data)
    places = range(at, min(struct.unpack_from("<Q", data, at)[0], end - 8), 8)
    for place in chance.sample(places, min(len(places), chance.randint(1, 8))):
        wrong = chance.choice((0, 1, at, end - 1, end, 2**63, 2**64 - 1, chance.randrange(end)))
        struct.pack_into("<Q", data, place, wrong)
    return bytes(data)


def _swap_offsets(data, chance):
    """Let two chunks stand for each other: every offset is one of the file's own."""
    at = header_end(data)
    first, second = struct.unpack_from("<2Q", data, at)
    struct.pack_into("<2Q", data, at, second, first)
    return bytes(data)


def _spoil_sizes(data, chance):
    """Let a chunk say that it is longer, shorter, or nothing."""
    (offset,) = struct.unpack_from("<Q", data, header_end(data))
    struct.pack_into("<i", data, offset + 4, chance.choice((*_ODD_NUMBERS, -5, 3)))
    return bytes(data)


def _rename(data, chance):
    """Give a channel or an attribute a name that is no text."""
    odd = chance.choice(_ODD_NAMES)
    mark = chance.choice((b"pixelAspectRatio", b"screenWindowCenter", b"screenWindowWidth"))
    if chance.random() < 0.5:
        at = data.index(b"channels\0chlist\0") + 20
        data[at : at + 1] = odd[:1]
    else:
        at = data.index(mark)
        data[at : at + len(mark)] = (odd * len(mark))[: len(mark)].replace(b"\0", b"?")
    return bytes(data)


def _repeat(data, chance):
    """Write a stretch of the file a second time over another."""
    size = chance.randint(1, 64)
    source, target = (chance.randrange(max(1, len(data) - size)) for _ in range(2))
    data[target : target + size] = data[source : source + size]
    return bytes(data)


def _flags(data, chance):
    """Say that it is tiled, deep, of many parts, or of another version."""
    data[4 + chance.randrange(2)] ^= 1 << chance.randrange(8)
    return bytes(data)


_KINDS = {
    "cut": _cut,
    "flip": _flip_anywhere,
    "flags": _flags,
    "header": _flip_in_header,
    "lie": _lie,
    "name": _rename,
    "offset": _spoil_offsets,
    "repeat": _repeat,
    "size": _spoil_sizes,
    "swap": _swap_offsets,
}


# --- bombs ---------------------------------------------------------------------------------------


def _attribute(name, kind, value):
    return name + b"\0" + kind + b"\0" + struct.pack("<i", len(value)) + value


def bomb(data_window, *, names=(b"B", b"G", b"R"), tiles=None, compression=3, tail=64):
    """Return a small EXR whose header claims a large picture.

    Args:
        data_window: Its corners: x0, y0, x1, y1.
        names: Its channels, of half.
        tiles: Width, height and mode of its tiles; None for scanlines.
        compression: Number of its compression.
        tail: Zero bytes after the header.
    """
    window = struct.pack("<4i", *data_window)
    channels = b"".join(name + b"\0" + struct.pack("<iB3x2i", 1, 0, 1, 1) for name in names)
    header = [
        _attribute(b"channels", b"chlist", channels + b"\0"),
        _attribute(b"compression", b"compression", bytes([compression])),
        _attribute(b"dataWindow", b"box2i", window),
        _attribute(b"displayWindow", b"box2i", window),
        _attribute(b"lineOrder", b"lineOrder", b"\0"),
        _attribute(b"pixelAspectRatio", b"float", struct.pack("<f", 1.0)),
        _attribute(b"screenWindowCenter", b"v2f", struct.pack("<2f", 0.0, 0.0)),
        _attribute(b"screenWindowWidth", b"float", struct.pack("<f", 1.0)),
    ]
    if tiles is not None:
        header.append(_attribute(b"tiles", b"tiledesc", struct.pack("<IIB", *tiles)))
    flags = 2 | (0 if tiles is None else 0x200)
    return b"\x76\x2f\x31\x01" + struct.pack("<I", flags) + b"".join(header) + b"\0" + bytes(tail)


BOMBS = {
    "46340 a side": bomb((0, 0, 46339, 46339)),
    "all of 32 bits": bomb((-(2**31), -(2**31), 2**31 - 1, 2**31 - 1)),
    "a line of a million": bomb((0, 0, 0, 999_999)),
    "a row of a million": bomb((0, 0, 999_999, 0)),
    "turned inside out": bomb((100, 100, 0, 0)),
    "16384 a side": bomb((0, 0, 16383, 16383)),
    "one-pixel tiles": bomb((0, 0, 16383, 16383), tiles=(1, 1, 0)),
    "one-pixel tiles of every level": bomb((0, 0, 4095, 4095), tiles=(1, 1, 2)),
    "tiles of no size": bomb((0, 0, 63, 63), tiles=(0, 0, 0)),
    "tiles of 4 billion": bomb((0, 0, 63, 63), tiles=(2**32 - 1, 2**32 - 1, 0)),
    "2000 channels": bomb((0, 0, 63, 63), names=[b"c%04d" % n for n in range(2000)]),
    "200000 channels": bomb((0, 0, 63, 63), names=[b"c%06d" % n for n in range(200_000)]),
    "a megabyte of zeros": bomb((0, 0, 8191, 8191), tail=1 << 20),
}
