# SPDX-License-Identifier: Apache-2.0
"""Getting samples out of an EXR with OpenImageIO; runs in the decoder process only.

Samples come as they are, half as half, bit for bit. What the library is told to stay within, what
it says when it fails, and which metadata is worth carrying on, live here as well.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio  # noqa: N813
from numpy.typing import NDArray

from gencomp_protocol.frames import Box
from gencomp_server.exr.header import LIMITS, RENDER_AGAIN, RGB, PictureLimits, refuse
from gencomp_server.exr.layout import ExrPart

_ATTRIBUTE_BYTES = 4096
_ALL_CHANNELS = 16  # So many times as large as what is read of it a picture may be.
# What belongs to the file rather than to the picture, to one machine, or to channels left behind.
_NOT_CARRIED = re.compile(
    r"(oiio:|openexr:|exif:|gps:|input/|cryptomatte/|thumbnail_|gencomp:"
    r"|(compression|compressionname|name|type|view|multiview|version|chunkcount|lineorder|tiles|tiled"
    r"|preview|envmap|textureformat|wrapmodes|pixelaspectratio|screenwindowcenter|screenwindowwidth|dwacompressionlevel"
    r"|nuke/full_layer_names|nuke/node_hash|artist|owner|hostcomputer|username|user"
    r"|xresolution|yresolution|resolutionunit|orientation|iccprofile|software)\Z)",
    re.IGNORECASE,
)
LOOKS_LIKE_PATH = re.compile(r"(^|[\s\"'=])(/|~/|[A-Za-z]:[\\/]|\\\\)\S|file://")

_MEANINGS = {
    oiio.VECSEMANTICS.TIMECODE: ("smpte:TimeCode",),
    oiio.VECSEMANTICS.KEYCODE: ("smpte:KeyCode",),
    oiio.VECSEMANTICS.RATIONAL: ("framesPerSecond",),
}
_VECTOR_LENGTHS = (2, 3, 9, 16)


@dataclass(frozen=True)
class Samples:
    """What was read of one picture.

    Attributes:
        pixels: Its samples. [H,W,C] float16 or float32, scene-linear or coverage, unbounded.
        channels: Names of the channels, in order.
        display_window: The picture's frame.
        data_window: The pixels present.
        pixel_aspect: Width over height of one pixel.
        metadata: Attributes worth carrying on: plain str, int, float and tuples of them.
        no_alpha: Whether one channel of a colour picture is read, for want of an alpha.
    """

    pixels: NDArray[Any]
    channels: tuple[str, ...]
    display_window: Box
    data_window: Box
    pixel_aspect: float = 1.0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    no_alpha: bool = False


def limit_library(limits: PictureLimits = LIMITS) -> None:
    """Tell OpenImageIO to use this thread only and to stay within what is taken."""
    oiio.attribute("threads", 1)
    oiio.attribute("exr_threads", -1)  # -1 means none; 0 would mean one per core
    oiio.attribute("try_all_readers", 0)
    oiio.attribute("limits:channels", limits.channels)
    # That of a picture with all its channels, of which few are read.
    oiio.attribute("limits:imagesize_MB", _ALL_CHANNELS * (limits.picture_bytes >> 20))
    oiio.attribute("limits:resolution", limits.side)


def library_error(source: Any) -> str:
    """Return OpenImageIO's words for its last error, on one line; they may be no valid text.

    Args:
        source: The module, an input or an output.
    """
    try:
        words = str(source.geterror())
    except UnicodeDecodeError as error:
        words = bytes(error.object).decode("utf-8", "backslashreplace")
    return " ".join(as_text(words).split())[:400]


def as_text(words: str) -> str:
    """Return words with what no UTF-8 stands for spelt out; the wire carries text only."""
    return words.encode("utf-8", "backslashreplace").decode("utf-8")


# --- EXR -----------------------------------------------------------------------------------------


def is_of_colour(name: str, held: Collection[str]) -> bool:
    """Tell whether a matte's channel, that nobody named, is one of a colour without alpha."""
    return name in RGB and set(RGB) <= set(held)


def read_exr(path: Path, part: ExrPart, number: int, names: tuple[str, ...], label: str) -> Samples:
    """Read some channels of one part, in the type they have (float where they have several).

    Args:
        path: File whose name ends in ``.exr``; its header has been checked.
        part: The part, as parsed from the header.
        number: Its number.
        names: Channels to read, in the order wanted.
        label: What a sentence calls the picture.

    Raises:
        BadPicture: Its pixels cannot be read whole.
    """
    file = open_input(path, None, label)
    try:
        if not file.seek_subimage(number, 0):
            raise damaged(label, file)
        spec = file.spec()
        window = part.data_window
        same = (spec.x, spec.y, spec.width, spec.height) == (
            (window.x0, window.y0, window.width, window.height)
        )
        held = list(spec.channelnames)
        if not same or spec.deep or not set(names) <= set(held):
            raise refuse(label, "has a header that contradicts itself", RENDER_AGAIN)
        kinds = {entry.pixel_type for entry in part.channels if entry.name in names}
        kind = "half" if kinds == {"half"} else "float"
        pixels = read_channels(file, number, [held.index(name) for name in names], kind, label)
        return Samples(
            pixels=pixels,
            channels=names,
            display_window=part.display_window,
            data_window=window,
            pixel_aspect=pixel_aspect(spec),
            metadata=carried_metadata(spec),
        )
    finally:
        file.close()


@contextmanager
def suffixed(source: Path, beside: Path, suffix: str) -> Iterator[Path]:
    """Give a file a name by which the library picks the right reader and tries no other.

    Args:
        source: The file.
        beside: The name is made in the folder of this path, and removed again.
        suffix: ``exr``, ``png`` …
    """
    link = beside.with_name(f".{beside.name}.{os.getpid()}.{suffix}")
    link.unlink(missing_ok=True)
    link.symlink_to(source)
    try:
        yield link
    finally:
        link.unlink()


def open_input(path: Path, config: Any, label: str) -> Any:
    """Open a file by the reader of its suffix and no other.

    Raises:
        BadPicture: The library cannot.
    """
    file = oiio.ImageInput.open(str(path), config) if config else oiio.ImageInput.open(str(path))
    if file is None:
        raise damaged(label, oiio)
    return file


def damaged(label: str, source: Any) -> Exception:
    """Return the sentence for a file that cannot be read; the library's words are a detail."""
    error = refuse(label, "cannot be read", RENDER_AGAIN)
    error.details["library"] = library_error(source)
    return error


def read_channels(file: Any, number: int, wanted: list[int], kind: str, label: str) -> NDArray[Any]:
    """Read channels by their place in the file; in one go where they follow each other."""
    first, last = wanted[0], wanted[-1]
    if wanted == list(range(first, last + 1)):
        pixels = file.read_image(number, 0, first, last + 1, kind)
    else:
        pixels = [file.read_image(number, 0, place, place + 1, kind) for place in wanted]
        if all(one is not None for one in pixels):
            pixels = np.concatenate(pixels, axis=-1)
    if pixels is None or isinstance(pixels, list) or file.has_error:
        raise damaged(label, file)
    made: NDArray[Any] = pixels
    return made


def pixel_aspect(spec: Any) -> float:
    """Return the width over height of one pixel; 1 where the file's number makes no sense."""
    aspect = float(spec.get_float_attribute("PixelAspectRatio", 1.0))
    return aspect if 0.0 < aspect < float("inf") else 1.0


def carried_metadata(spec: Any) -> dict[str, Any]:
    """Return the attributes worth carrying to a layer: no paths, no people, nothing of the file's.

    Timecode, camera, lens and production metadata pass; what describes the file's own storage,
    what names a path or a user, and what is longer than 4096 characters does not.
    """
    found: dict[str, Any] = {}
    for place in range(len(spec.extra_attribs)):
        with suppress(UnicodeDecodeError):  # a name or a text that is no text has no meaning to us
            attribute = spec.extra_attribs[place]
            name, value = attribute.name, _plain(attribute.value)
            fits = value is not None and _tells_its_type(name, attribute.type)
            if fits and name == as_text(name) and not _NOT_CARRIED.match(name):
                found[name] = value
    return found


def _tells_its_type(name: str, kind: Any) -> bool:
    """Tell whether a plain value is enough to write an attribute again as what it was.

    A double, a rational under a name of its own, a box of floats and a list of floats as long as a
    vector or a matrix would come back as something else (``exr/attributes.py``).
    """
    if kind.basetype == oiio.BASETYPE.DOUBLE:
        return False
    if kind.vecsemantics in _MEANINGS:
        return name in _MEANINGS[kind.vecsemantics]
    if kind.basetype == oiio.BASETYPE.FLOAT and kind.arraylen:
        is_list = kind.aggregate == oiio.AGGREGATE.SCALAR
        return is_list and kind.arraylen not in _VECTOR_LENGTHS
    return True


def _plain(value: Any) -> Any:
    """Return a value as str, int, float or a tuple of them; None where it is not worth carrying."""
    entries = value if isinstance(value, tuple) else (value,)
    return value if len(entries) <= 64 and all(map(_is_carried, entries)) else None


def _is_carried(value: Any) -> bool:
    if isinstance(value, str):
        fits = len(value) <= _ATTRIBUTE_BYTES and value == as_text(value)
        return fits and not LOOKS_LIKE_PATH.search(value)
    return isinstance(value, int) or (isinstance(value, float) and bool(np.isfinite(value)))
