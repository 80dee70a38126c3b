# SPDX-License-Identifier: Apache-2.0
"""Decoded pictures as arrays: mapped from disk, read-only, never copied.

What is mapped was made by the decoder process (``exr/decoder.py``); nothing here opens a file that
somebody sent.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencomp_server.contract import PictureHeader
from gencomp_server.exr.decode import Decoded
from gencomp_server.exr.rest import Rest, plane_bytes

_TYPES = {"half": np.float16, "float": np.float32, "uint": np.uint32}


@dataclass(frozen=True)
class MappedPicture:
    """A decoded picture.

    Attributes:
        header: What it is.
        pixels: Its samples over the data window. [H,W,C] float16 or float32, read-only, mapped:
            the file stays mapped as long as this array or a view of it lives.
    """

    header: PictureHeader
    pixels: NDArray[Any]


def map_picture(found: Decoded) -> MappedPicture | None:
    """Map the pixels of a decoded picture, or None where they have been removed meanwhile."""
    window, header = found.header.data_window, found.header
    kind = np.float16 if header.pixel_type == "half" else np.float32
    shape = (window.height, window.width, len(header.channels))
    try:
        pixels = np.memmap(f"{found.path}.raw", dtype=kind, mode="r", shape=shape)
    except FileNotFoundError:
        return None
    return MappedPicture(header, pixels)


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
class MappedRest:
    """What a picture's file holds besides its R, G and B.

    Attributes:
        rest: What it is.
        planes: The channels of each of its parts; their samples [H,W] are read-only and mapped.
    """

    rest: Rest
    planes: tuple[tuple[Plane, ...], ...]


def map_rest(found: Decoded) -> MappedRest | None:
    """Map the planes of a decoded rest, or None where they have been removed meanwhile."""
    rest = found.rest
    assert rest is not None, "only what was decoded as a rest is mapped as one"
    if not rest.bytes:
        return MappedRest(rest, tuple(() for _ in rest.parts))
    try:
        data = np.memmap(f"{found.path}.raw", dtype=np.uint8, mode="r", shape=(rest.bytes,))
    except FileNotFoundError:
        return None
    at, planes = 0, []
    for part in rest.parts:
        window, own = part.data_window, []
        for channel in part.channels:
            kind = np.dtype(_TYPES[channel.pixel_type])
            size = window.width * window.height * kind.itemsize
            samples = data[at : at + size].view(kind).reshape(window.height, window.width)
            own.append(Plane(channel.name, samples))
            at += plane_bytes(part, channel)
        planes.append(tuple(own))
    return MappedRest(rest, tuple(planes))
