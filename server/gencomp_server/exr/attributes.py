# SPDX-License-Identifier: Apache-2.0
"""Attributes of an OpenEXR header as bytes: from plain values to the types a file has.

Metadata reaches us under the names of OpenImageIO (``smpte:TimeCode``) and as plain str, int, float
and tuples; in a file each attribute has the standard's own name (``timeCode``) and a type. Layout:
openexr.com, "OpenEXR File Layout" and "Standard Attributes".
"""

import struct
from collections.abc import Iterable, Mapping
from typing import Any

from gencomp_protocol.frames import Box

INT_MAX = 2**31 - 1
SHORT_NAME = 31  # A longer name needs a flag in the file's version.

# What the picture library calls them, in small letters, and what the file does.
_FILE_NAMES = {
    "smpte:timecode": "timeCode",
    "smpte:keycode": "keyCode",
    "framespersecond": "framesPerSecond",
    "datetime": "capDate",
    "imagedescription": "comments",
    "copyright": "owner",
    "exposuretime": "expTime",
    "fnumber": "aperture",
    "worldtocamera": "worldToCamera",
    "worldtoscreen": "worldToScreen",
    "xresolution": "xDensity",
}
# Attributes whose type in the file their value alone does not tell.
_NAMED = {
    "timeCode": ("timecode", "2I"),
    "keyCode": ("keycode", "7i"),
    "framesPerSecond": ("rational", "iI"),
    "chromaticities": ("chromaticities", "8f"),
}
_FLOATS = {2: "v2f", 3: "v3f", 4: "box2f", 9: "m33f", 16: "m44f"}
_INTS = {2: "v2i", 3: "v3i", 4: "box2i"}


def file_name(name: str) -> str:
    """Return the name in a file of what the picture library calls ``name``."""
    return _FILE_NAMES.get(name.lower(), name)


def attribute(name: str, kind: str, value: bytes) -> bytes:
    """Return one attribute of a header: name, type, size, value."""
    return b"".join((_text(name), _text(kind), struct.pack("<i", len(value)), value))


def string(name: str, text: str) -> bytes:
    """Return an attribute that holds text."""
    return attribute(name, "string", text.encode())


def box(name: str, window: Box) -> bytes:
    """Return an attribute that holds a window."""
    return attribute(name, "box2i", struct.pack("<4i", window.x0, window.y0, window.x1, window.y1))


def channel_list(channels: Iterable[tuple[str, int]]) -> bytes:
    """Return the attribute ``channels``; each is a name and the number of its type, sorted."""
    rows = (_text(name) + struct.pack("<iB3x2i", kind, 0, 1, 1) for name, kind in channels)
    return attribute("channels", "chlist", b"".join(rows) + b"\0")


def metadata_attributes(metadata: Mapping[str, Any]) -> dict[str, bytes]:
    """Return attributes by their name in the file.

    Args:
        metadata: Plain str, int, float and tuples of them, under the picture library's names.
    """
    found = {}
    for name, value in metadata.items():
        own = file_name(name)
        kind, data = _typed(own, value)
        found[own] = attribute(own, kind, data)
    return found


def _typed(name: str, value: Any) -> tuple[str, bytes]:
    """Return the type and the bytes of a value."""
    if name in _NAMED and isinstance(value, tuple):
        kind, layout = _NAMED[name]
        mask = 0xFFFFFFFF if "I" in layout and kind == "timecode" else None
        numbers = value if mask is None else tuple(one & mask for one in value)
        if len(numbers) == struct.calcsize(f"<{layout}") // 4:
            return kind, struct.pack(f"<{layout}", *numbers)
    if isinstance(value, tuple):
        return _typed_tuple(value)
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) <= INT_MAX):
        return "int", struct.pack("<i", value)
    if isinstance(value, float):
        return "float", struct.pack("<f", value)
    return "string", str(value).encode()


def _typed_tuple(value: tuple[Any, ...]) -> tuple[str, bytes]:
    if all(isinstance(one, str) for one in value):
        texts = [one.encode() for one in value]
        return "stringvector", b"".join(struct.pack("<i", len(text)) + text for text in texts)
    small = all(isinstance(one, int) and abs(one) <= INT_MAX for one in value)
    if small and len(value) in _INTS:
        return _INTS[len(value)], struct.pack(f"<{len(value)}i", *value)
    kind = _FLOATS.get(len(value), "floatvector")
    return kind, struct.pack(f"<{len(value)}f", *value)


def _text(words: str) -> bytes:
    return words.encode() + b"\0"
