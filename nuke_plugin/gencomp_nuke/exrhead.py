# SPDX-License-Identifier: Apache-2.0
"""What an OpenEXR file says of its one picture, read from its first bytes. Knows nothing of Nuke.

Only what decides whether the file can be sent in place of what Nuke would render from it. Layout:
openexr.com, "OpenEXR File Layout".
"""

import struct
from dataclasses import dataclass
from pathlib import Path

_MAGIC = b"\x76\x2f\x31\x01"
# Flags of the file's version: samples of any number in a pixel, several pictures in a file.
_DEEP, _PARTS = 0x800, 0x1000
# A shot has a thousand frames on a network disk: no more is read of each than most headers take.
_USUAL_BYTES, _MOST_BYTES = 1 << 13, 1 << 20
_UINT = 0


class NoHead(ValueError):
    """The file is no EXR of one flat picture; the text says what it is."""


@dataclass(frozen=True)
class Head:
    """The header of a file.

    Attributes:
        channels: Names of the channels that hold numbers with a point, sampled at every pixel.
        display: Display window: first column, first row, last column, last row, inclusive.
        pixel_aspect: Width over height of one pixel.
        is_stereo: True where it names several views.
    """

    channels: "frozenset[str]"
    display: "tuple[int, int, int, int]"
    pixel_aspect: float
    is_stereo: bool


def head_of(path: Path) -> Head:
    """Read a file's header.

    Raises:
        NoHead: It is no EXR, is deep, has several parts, or makes no sense.
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        data = file.read(_USUAL_BYTES)
        try:
            return _head_in(data)
        except NoHead:
            if len(data) < _USUAL_BYTES or data[:4] != _MAGIC:
                raise
        return _head_in(data + file.read(_MOST_BYTES))


def _head_in(data: bytes) -> Head:
    if data[:4] != _MAGIC:
        raise NoHead("it is no EXR")
    try:
        flags = struct.unpack_from("<I", data, 4)[0]
        if flags & _DEEP:
            raise NoHead("it is deep")
        if flags & _PARTS:
            raise NoHead("it has several parts")
        found = _attributes(data)
        return Head(
            channels=_channels(found["channels"]),
            display=struct.unpack("<4i", found["displayWindow"]),
            pixel_aspect=struct.unpack("<f", found["pixelAspectRatio"])[0],
            is_stereo="multiView" in found,
        )
    except (struct.error, ValueError, KeyError, IndexError) as error:
        if isinstance(error, NoHead):
            raise
        raise NoHead("its header makes no sense") from error


def _attributes(data: bytes) -> "dict[str, bytes]":
    """Return the values of a header by name."""
    found, place = {}, 8
    while data[place] != 0:
        name, place = _word(data, place)
        _, place = _word(data, place)  # The kind; the names we read have one kind each.
        (size,) = struct.unpack_from("<i", data, place)
        place += 4
        if size < 0:  # Going back would never end.
            raise NoHead("its header makes no sense")
        found[name] = data[place : place + size]
        place += size
    return found


def _channels(data: bytes) -> "frozenset[str]":
    """Return the channels of half or float that every pixel has."""
    found, place = set(), 0
    while data[place] != 0:
        name, place = _word(data, place)
        kind, _, x, y = struct.unpack_from("<iiii", data, place)
        place += 16
        if kind != _UINT and (x, y) == (1, 1):
            found.add(name)
    return frozenset(found)


def _word(data: bytes, place: int) -> "tuple[str, int]":
    end = data.index(b"\0", place)
    return data[place:end].decode("utf-8"), end + 1
