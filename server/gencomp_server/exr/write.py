# SPDX-License-Identifier: Apache-2.0
"""Writing a delivered picture: one EXR per layer and frame, whole or not there at all.

ZIP, half or float exactly as the samples are (a NaN keeps its bits, -0.0 its sign), plain channel
names, the plate's windows, pixel aspect, timecode and metadata. Nothing in the file names a path or
a person.
"""

import errno
import os
import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio  # noqa: N813

from gencomp_protocol.errors import DiskFull, InternalError, UnwritableOutput
from gencomp_server.contract import LayerFrame
from gencomp_server.exr.pixels import library_error

COMPRESSION = "zip"
_TYPES = {"float16": "half", "float32": "float"}
# Attributes whose type in the file their value alone does not tell.
_NAMED = {
    "smpte:timecode": "timecode",
    "smpte:keycode": "keycode",
    "framespersecond": "rational",
    "chromaticities": "float[8]",
}
_FLOATS = {2: "float2", 3: "vector", 4: "float4", 9: "matrix33", 16: "matrix"}
_INTS = {2: "int2", 3: "int3"}
_INT_MAX = 2**31 - 1


def write_layer(path: Path, picture: LayerFrame, metadata: Mapping[str, Any] | None = None) -> None:
    """Write one picture as EXR, beside its place, then give it its name.

    Args:
        path: File to write; its folder exists.
        picture: What to write; its pixels are [H,W,C] float16 or float32, over its data window.
        metadata: Further attributes, over those of the picture: plain str, int, float and tuples.

    Raises:
        DiskFull: There is no room for it.
        UnwritableOutput: It cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    try:
        _write(beside, _spec(picture, {**picture.metadata, **(metadata or {})}), picture)
        _sync(beside)
        os.replace(beside, path)
    except OSError as error:
        raise _failed(path, error.strerror or str(error), error.errno) from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


def _spec(picture: LayerFrame, metadata: Mapping[str, Any]) -> Any:
    """Return the library's description of a picture."""
    data, display, shape = picture.data_window, picture.display_window, picture.pixels.shape
    if shape != (data.height, data.width, len(picture.channels)):
        raise InternalError(
            f"Layer '{picture.layer}' frame {picture.frame} has pixels of shape {shape}, "
            f"which do not fit its window {data} with {len(picture.channels)} channels."
        )
    kind = _TYPES.get(str(picture.pixels.dtype))
    if kind is None:
        raise InternalError(f"Layer '{picture.layer}' has samples of type {picture.pixels.dtype}.")
    spec = oiio.ImageSpec(data.width, data.height, len(picture.channels), kind)
    spec.channelnames = picture.channels
    spec.alpha_channel = picture.channels.index("A") if "A" in picture.channels else -1
    spec.x, spec.y = data.x0, data.y0
    spec.full_x, spec.full_y = display.x0, display.y0
    spec.full_width, spec.full_height = display.width, display.height
    # Without one the library writes the time of day, and the same job would give other bytes.
    spec.attribute("DateTime", "")
    for name, value in metadata.items():
        _set_attribute(spec, name, value)
    spec.attribute("compression", COMPRESSION)
    spec.attribute("PixelAspectRatio", float(picture.pixel_aspect))
    return spec


def _set_attribute(spec: Any, name: str, value: Any) -> None:
    """Set an attribute with the type it has in a file."""
    if isinstance(value, tuple):
        kind = _NAMED.get(name.lower()) or _tuple_type(value)
        spec.attribute(name, oiio.TypeDesc(kind), value)
    elif isinstance(value, bool) or (isinstance(value, int) and abs(value) <= _INT_MAX):
        spec.attribute(name, int(value))
    elif isinstance(value, float):
        spec.attribute(name, value)
    else:
        spec.attribute(name, str(value))


def _tuple_type(value: tuple[Any, ...]) -> str:
    if all(isinstance(one, str) for one in value):
        return f"string[{len(value)}]"
    if all(isinstance(one, int) for one in value):
        return _INTS.get(len(value), f"int[{len(value)}]")
    return _FLOATS.get(len(value), f"float[{len(value)}]")


def _write(path: Path, spec: Any, picture: LayerFrame) -> None:
    # By format, not by suffix: the file has its suffix only when it is whole.
    file = oiio.ImageOutput.create("openexr")
    if file is None:
        raise InternalError(f"OpenImageIO cannot write EXR: {library_error(oiio)}")
    if not file.open(str(path), spec):
        raise _failed(path, library_error(file))
    written = file.write_image(np.ascontiguousarray(picture.pixels))
    if not (file.close() and written):
        raise _failed(path, library_error(file))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _failed(path: Path, words: str, number: int | None = None) -> DiskFull | UnwritableOutput:
    """Return why a picture was not written; the library itself does not tell a full disk."""
    room = shutil.disk_usage(path.parent).free
    if number in (errno.ENOSPC, errno.EDQUOT) or room < 1 << 16:
        return DiskFull(
            "The disk is full; a layer could not be written.",
            hint="Free some space and run the job again; it goes on where it stopped.",
        )
    return UnwritableOutput(
        f"A layer could not be written into '{path.parent.name}'.",
        hint="Check that the folder is writable and its disk is not mounted read-only.",
        library=words,
    )
