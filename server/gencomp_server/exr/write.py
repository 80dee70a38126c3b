# SPDX-License-Identifier: Apache-2.0
"""Writing a delivered picture: one EXR per layer and frame, whole or not there at all.

Packed without loss (ZIP unless told otherwise), half or float exactly as the samples are (a NaN
keeps its bits, -0.0 its sign), plain channel names, the plate's windows, pixel aspect, timecode and
metadata. Nothing in the file names a path or a person. What an input's file holds besides R, G and
B may go along (:class:`MappedRest`): in the same part where the windows agree, further parts after
the source's own order.

The OpenEXR library only ever writes here (``docs/decisions/0017-openexr-writes.md``); what was sent
is opened by the decoder process alone.
"""

import errno
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
from numpy.typing import NDArray

from gencomp_protocol import disk
from gencomp_protocol.errors import DiskFull, InternalError, UnwritableOutput
from gencomp_protocol.frames import Box
from gencomp_server.contract import LayerFrame
from gencomp_server.exr.attributes import file_name, library_values
from gencomp_server.exr.header import is_whole
from gencomp_server.exr.read import MappedRest, Plane

# The same in all parts of a file, by the standard.
_SHARED = ("timeCode", "chromaticities")
_OWN_PART, _OTHER_PART = "rgba", "other"
# Whole numbers of the size of a sample: a copy of floating-point samples might quieten a NaN.
_BITS = {"float16": np.uint16, "float32": np.uint32, "uint32": np.uint32}
_PACKED = {
    "zip": OpenEXR.ZIP_COMPRESSION,
    "zips": OpenEXR.ZIPS_COMPRESSION,
    "piz": OpenEXR.PIZ_COMPRESSION,
}
# The library tells a full disk from another failure by its words alone.
_SAID = {
    number: os.strerror(number)
    for number in (*sorted(disk.FULL | disk.PASSING | disk.NO_HANDLES), errno.EROFS, errno.EACCES)
}


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


def write_layer(
    path: Path,
    picture: LayerFrame,
    metadata: Mapping[str, Any] | None = None,
    rest: MappedRest | None = None,
    compression: str = "zip",
) -> None:
    """Write one picture as EXR, beside its place, then give it its name.

    Args:
        path: File to write; its folder exists.
        picture: What to write; its pixels are [H,W,C] float16 or float32, over its data window.
        metadata: Further attributes, over those of the picture: plain str, int, float and tuples.
        rest: What goes along from an input's file; a channel that the picture has itself does not.
        compression: ``zip``, ``zips`` or ``piz``: none of them loses a bit.

    Raises:
        DiskFull: There is no room for it.
        UnwritableOutput: It cannot be written.
    """
    own = own_part(picture, {**picture.metadata, **(metadata or {})})
    parts = [own] if rest is None else with_rest(own, rest)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")

    def write() -> None:
        disk.about_to("write", path)
        write_parts(beside, parts, picture.display_window, picture.pixel_aspect, compression)
        _sync(beside)
        os.replace(beside, path)

    try:
        disk.patiently(write)
    except OSError as error:
        raise _failed(path, error) from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def write_parts(
    path: Path,
    parts: Sequence[Part],
    display_window: Box,
    pixel_aspect: float,
    compression: str = "zip",
) -> None:
    """Write a whole file, on the thread that calls; the interpreter is free meanwhile.

    Args:
        path: File to write.
        parts: At least one; each has at least one channel.
        display_window: The picture's frame, the same for all parts.
        pixel_aspect: Width over height of one pixel, the same for all parts.
        compression: ``zip``, ``zips`` or ``piz``, the same for all parts.

    Raises:
        OSError: It cannot be written; the words are the library's, without the path.
    """
    made = [_library_part(part, display_window, pixel_aspect, compression) for part in parts]
    try:
        OpenEXR.File(made).write(str(path))
    except RuntimeError as error:
        words = str(error).replace(str(path), path.name)
        number = next((n for n, said in _SAID.items() if said in words), None)
        raise (OSError(words) if number is None else OSError(number, words)) from error
    # What is left to write when the library closes a file fails without a word.
    if not path.stat().st_size or not is_whole(path):
        raise OSError(f"The file '{path.name}' ends before its last chunk does.")


def _library_part(part: Part, display_window: Box, pixel_aspect: float, compression: str) -> Any:
    """Return a part for the library: its metadata, over which what the file needs has precedence.

    The library writes into what it is given, and reads samples as if they lay without gaps.
    """
    header = {
        **library_values(part.metadata),
        "type": OpenEXR.scanlineimage,
        "compression": _PACKED[compression],
        "lineOrder": OpenEXR.INCREASING_Y,
        "dataWindow": _corners(part.data_window),
        "displayWindow": _corners(display_window),
        "pixelAspectRatio": float(pixel_aspect),
        "screenWindowCenter": (0.0, 0.0),
        "screenWindowWidth": 1.0,
    }
    planes = {plane.name: _without_gaps(plane.samples) for plane in part.planes}
    return OpenEXR.Part(header, planes, part.name)


def _corners(box: Box) -> tuple[tuple[int, int], tuple[int, int]]:
    return (box.x0, box.y0), (box.x1, box.y1)


def _without_gaps(samples: NDArray[Any]) -> NDArray[Any]:
    """Return the same samples, one line right after the other. [H,W], of the same type."""
    kind = samples.dtype
    return np.ascontiguousarray(samples.view(_BITS[str(kind)])).view(kind)


def own_part(picture: LayerFrame, metadata: Mapping[str, Any]) -> Part:
    """Return the part that holds a layer's own channels."""
    data, shape = picture.data_window, picture.pixels.shape
    if shape != (data.height, data.width, len(picture.channels)):
        raise InternalError(
            f"Layer '{picture.layer}' frame {picture.frame} has pixels of shape {shape}, "
            f"which do not fit its window {data} with {len(picture.channels)} channels."
        )
    if str(picture.pixels.dtype) not in _BITS:
        raise InternalError(f"Layer '{picture.layer}' has samples of type {picture.pixels.dtype}.")
    planes = tuple(
        Plane(name, picture.pixels[..., place]) for place, name in enumerate(picture.channels)
    )
    return Part(planes, data, metadata=metadata)


def with_rest(own: Part, rest: MappedRest) -> list[Part]:
    """Return the parts of a file that holds a layer and what goes along with it.

    The layer takes the place of R, G and B in the part they were read from. Where its window is
    another one, it is a part of its own, before the rest of that part.
    """
    mine = {plane.name for plane in own.planes}
    shared = {name: v for name, v in own.metadata.items() if file_name(name) in _SHARED}
    made: list[Part] = []
    for place, (part, planes) in enumerate(zip(rest.rest.parts, rest.planes, strict=True)):
        facts = {n: v for n, v in part.metadata.items() if file_name(n) not in _SHARED}
        is_colour = place == rest.rest.colour
        kept = tuple(p for p in planes if not is_colour or p.name not in mine)
        if is_colour and part.data_window == own.data_window:
            facts.update(own.metadata)
            made.append(Part((*own.planes, *kept), own.data_window, part.name, facts))
            continue
        if is_colour:
            made.append(Part(own.planes, own.data_window, _OWN_PART, own.metadata))
        if kept:
            name = part.name or _OTHER_PART
            made.append(Part(kept, part.data_window, name, {**facts, **shared}))
    return _named_apart(made) if len(made) > 1 else made


def _named_apart(parts: list[Part]) -> list[Part]:
    """Give every part of a file a name that no other has."""
    taken: set[str] = set()
    made = []
    for part in parts:
        stem, name, count = part.name or _OWN_PART, part.name or _OWN_PART, 1
        while name in taken:
            count += 1
            name = f"{stem}{count}"
        taken.add(name)
        made.append(Part(part.planes, part.data_window, name, part.metadata))
    return made


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _failed(path: Path, error: OSError) -> DiskFull | UnwritableOutput:
    """Return why a picture was not written; a file cut short on a full disk has no number."""
    if error.errno is None and shutil.disk_usage(path.parent).free < 1 << 16:
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    facts = disk.facts(error, f"{path.parent.name}/{path.name}")
    if error.errno in disk.FULL:
        return DiskFull(
            "The disk is full; a layer could not be written.",
            hint="Free some space and run the job again; it goes on where it stopped.",
            **facts,
        )
    said = "" if error.errno is None else f": {os.strerror(error.errno)}"
    return UnwritableOutput(
        f"A layer could not be written into '{path.parent.name}'{said}.",
        hint="Check that the folder is writable and its disk is not mounted read-only.",
        library=error.strerror or str(error),
        **facts,
    )
