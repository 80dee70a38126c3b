# SPDX-License-Identifier: Apache-2.0
"""Metadata as the OpenEXR library takes it: each attribute under the standard's name and type.

Metadata reaches us under the names of OpenImageIO (``smpte:TimeCode``) and as plain str, int, float
and tuples; the library tells an attribute's type by its value's. What it does not take in the type
that the attribute has is left out, never written as something else (``docs/td/exr-layers.md``).
Names and types: openexr.com, "Standard Attributes".
"""

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import OpenEXR

_INT = range(-(2**31), 2**31)
_LONGEST_NAME = 255  # The library cuts a longer one short.

# What OpenImageIO calls them, in small letters, and what a file does.
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
_MATRICES = {9: (3, 3), 16: (4, 4)}


def file_name(name: str) -> str:
    """Return the name in a file of what OpenImageIO calls ``name``."""
    return _FILE_NAMES.get(name.lower(), name)


def library_values(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return values for the library by their names in a file, without what it would not take.

    Args:
        metadata: Plain str, int, float and tuples of them, under OpenImageIO's names.
    """
    found = {}
    for name, value in metadata.items():
        own = file_name(name)
        made = _BY_NAME.get(own, _by_value)(value)
        if made is not None and 0 < len(own.encode()) <= _LONGEST_NAME:
            found[own] = made
    return found


# --- standard attributes -------------------------------------------------------------------------


def _timecode(value: Any) -> Any:
    """Return a timecode from its two words: the time packed as for television, and user data."""
    if not _are(value, int, 2):
        return _by_value(value)
    time, user = (one & 0xFFFFFFFF for one in value)
    nibbles = [time >> shift & 15 for shift in (24, 16, 8, 0)]
    tens = [time >> 28 & 3, time >> 20 & 7, time >> 12 & 7, time >> 4 & 3]
    if max(nibbles) > 9:
        return None
    clock = [10 * ten + one for ten, one in zip(tens, nibbles, strict=True)]
    flags = [time >> bit & 1 for bit in (6, 7, 15, 23, 30, 31)]
    return _made(OpenEXR.TimeCode, *clock, *flags, *(user >> 4 * at & 15 for at in range(8)))


def _keycode(value: Any) -> Any:
    return _made(OpenEXR.KeyCode, *value) if _are(value, int, 7) else _by_value(value)


def _rational(value: Any) -> Any:
    if not _are(value, int, 2):
        return _by_value(value)
    if value[1] < 1:
        return None
    made = Fraction(*value)  # in lowest terms: 48/2 becomes 24/1
    return made if made.numerator in _INT and made.denominator in _INT else None


# The library takes those below in one type only.


def _box(value: Any) -> Any:
    return _by_value(value) if _are(value, int, 4) else None


def _pair(value: Any) -> Any:
    return value if _are(value, float, 2) else None


def _chromaticities(value: Any) -> Any:
    return value if _are(value, float, 8) else None


_BY_NAME: dict[str, Callable[[Any], Any]] = {
    "timeCode": _timecode,
    "keyCode": _keycode,
    "framesPerSecond": _rational,
    "chromaticities": _chromaticities,
    "originalDataWindow": _box,
    "sensorAcquisitionRectangle": _box,
    "adoptedNeutral": _pair,
    "cameraColorBalance": _pair,
    "sensorCenterOffset": _pair,
    "sensorOverallDimensions": _pair,
}


# --- all others ----------------------------------------------------------------------------------


def _by_value(value: Any) -> Any:
    """Return what stands for the type that a value's own type and length tell, else None."""
    if isinstance(value, int):
        return value if value in _INT else None
    if isinstance(value, (str, float)):
        return value
    if not isinstance(value, tuple) or not value:
        return None
    if all(isinstance(one, str) for one in value):
        return list(value)
    if all(isinstance(one, int) for one in value):
        return _whole_numbers(value)
    return _numbers(tuple(map(float, value))) if _are_numbers(value) else None


def _whole_numbers(value: tuple[int, ...]) -> Any:
    """Return a vector of two or three, or a box."""
    if any(one not in _INT for one in value):
        return None
    return {2: value, 3: value, 4: (value[:2], value[2:])}.get(len(value))


def _numbers(value: tuple[float, ...]) -> Any:
    """Return a vector of two or three, a matrix, or a list of any other length."""
    if len(value) in (2, 3):
        return value
    if len(value) in _MATRICES:
        return np.array(value, np.float32).reshape(_MATRICES[len(value)])
    return list(value)


def _are(value: Any, kind: type, count: int) -> bool:
    of_kind = isinstance(value, tuple) and all(isinstance(one, kind) for one in value)
    return of_kind and len(value) == count


def _are_numbers(value: tuple[Any, ...]) -> bool:
    return all(isinstance(one, (int, float)) for one in value)


def _made(kind: Any, *numbers: int) -> Any:
    """Return a value of one of the library's types, or None where it refuses the numbers."""
    try:
        return kind(*numbers)
    except (RuntimeError, TypeError, ValueError):
        return None
