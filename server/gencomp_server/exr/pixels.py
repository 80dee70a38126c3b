# SPDX-License-Identifier: Apache-2.0
"""Getting samples out of a file with OpenImageIO; runs in the decoder process only.

An EXR's samples come as they are, half as half, bit for bit. A picture of whole-number codes (PNG,
JPEG, TIFF, DPX) becomes coverage (code over its maximum) or, where it holds sRGB, scene-linear
light by the exact sRGB curve. Such pictures are kept as half up to 10 bits a sample and as float
above: half takes every sRGB and every linear code of 10 bits back to itself, of 12 bits not always.
"""

import re
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio  # noqa: N813
from numpy.typing import NDArray

from gencomp_protocol.frames import Box
from gencomp_server.exr.header import (
    EXR_MAGIC,
    MAX_PICTURE_BYTES,
    MAX_SIDE,
    RGB,
    ExrPart,
    find_channel,
    first_channel,
    no_channel,
    refuse,
    sniff,
)

_RENDER_AGAIN = "The file is damaged or was cut short; render it again."
_IMAGE_SUFFIX = {"a PNG": "png", "a JPEG": "jpg", "a TIFF": "tif", "a DPX": "dpx"}
_HALF_BITS = 10
_ATTRIBUTE_BYTES = 4096
# What belongs to the file rather than to the picture, to one machine, or to channels left behind.
_NOT_CARRIED = re.compile(
    r"(oiio:|openexr:|exif:|gps:|input/|cryptomatte/|thumbnail_|gencomp:"
    r"|(compression|compressionname|name|type|view|multiview|version|chunkcount|lineorder|tiles|tiled"
    r"|preview|envmap|wrapmodes|pixelaspectratio|screenwindowcenter|screenwindowwidth|dwacompressionlevel"
    r"|nuke/full_layer_names|nuke/node_hash|artist|owner|hostcomputer|username|user"
    r"|xresolution|yresolution|resolutionunit|orientation|iccprofile|software)\Z)",
    re.IGNORECASE,
)
_LOOKS_LIKE_PATH = re.compile(r"(^|[\s\"'=])(/|~/|[A-Za-z]:[\\/]|\\\\)\S|file://")
_IMAGE_CARRIED = ("smpte:TimeCode", "smpte:KeyCode", "FramesPerSecond")


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
    """

    pixels: NDArray[Any]
    channels: tuple[str, ...]
    display_window: Box
    data_window: Box
    pixel_aspect: float = 1.0
    metadata: Mapping[str, Any] = field(default_factory=dict)


def limit_library() -> None:
    """Tell OpenImageIO to use this thread only and to stay within what we take."""
    oiio.attribute("threads", 1)
    oiio.attribute("exr_threads", -1)  # -1 means none; 0 would mean one per core
    oiio.attribute("try_all_readers", 0)
    oiio.attribute("limits:channels", 1024)
    oiio.attribute("limits:imagesize_MB", 16 * (MAX_PICTURE_BYTES >> 20))
    oiio.attribute("limits:resolution", MAX_SIDE)


def library_error(source: Any) -> str:
    """Return OpenImageIO's words for its last error, on one line; they may be no valid text.

    Args:
        source: The module, an input or an output.
    """
    try:
        words = str(source.geterror())
    except UnicodeDecodeError as error:
        words = bytes(error.object).decode("utf-8", "backslashreplace")
    return " ".join(_as_text(words).split())[:400]


def _as_text(words: str) -> str:
    """Return words with what no UTF-8 stands for spelt out; the wire carries text only."""
    return words.encode("utf-8", "backslashreplace").decode("utf-8")


# --- EXR -----------------------------------------------------------------------------------------


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
    file = _open(path, None, label)
    try:
        if not file.seek_subimage(number, 0):
            raise _damaged(label, file)
        spec = file.spec()
        window = part.data_window
        same = (spec.x, spec.y, spec.width, spec.height) == (
            (window.x0, window.y0, window.width, window.height)
        )
        held = list(spec.channelnames)
        if not same or spec.deep or not set(names) <= set(held):
            raise refuse(label, "has a header that contradicts itself", _RENDER_AGAIN)
        kinds = {entry.pixel_type for entry in part.channels if entry.name in names}
        kind = "half" if kinds == {"half"} else "float"
        pixels = _read(file, number, [held.index(name) for name in names], kind, label)
        return Samples(
            pixels=pixels,
            channels=names,
            display_window=part.display_window,
            data_window=window,
            pixel_aspect=_pixel_aspect(spec),
            metadata=carried_metadata(spec),
        )
    finally:
        file.close()


def _open(path: Path, config: Any, label: str) -> Any:
    file = oiio.ImageInput.open(str(path), config) if config else oiio.ImageInput.open(str(path))
    if file is None:
        raise _damaged(label, oiio)
    return file


def _damaged(label: str, source: Any) -> Exception:
    error = refuse(label, "cannot be read", _RENDER_AGAIN)
    error.details["library"] = library_error(source)
    return error


def _read(file: Any, number: int, wanted: list[int], kind: str, label: str) -> NDArray[Any]:
    """Read channels by their place in the file; in one go where they follow each other."""
    first, last = wanted[0], wanted[-1]
    if wanted == list(range(first, last + 1)):
        pixels = file.read_image(number, 0, first, last + 1, kind)
    else:
        pixels = [file.read_image(number, 0, place, place + 1, kind) for place in wanted]
        if all(one is not None for one in pixels):
            pixels = np.concatenate(pixels, axis=-1)
    if pixels is None or isinstance(pixels, list) or file.has_error:
        raise _damaged(label, file)
    made: NDArray[Any] = pixels
    return made


def _pixel_aspect(spec: Any) -> float:
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
            if value is not None and name == _as_text(name) and not _NOT_CARRIED.match(name):
                found[name] = value
    return found


def _plain(value: Any) -> Any:
    """Return a value as str, int, float or a tuple of them; None where it is not worth carrying."""
    entries = value if isinstance(value, tuple) else (value,)
    return value if len(entries) <= 64 and all(map(_is_carried, entries)) else None


def _is_carried(value: Any) -> bool:
    if isinstance(value, str):
        fits = len(value) <= _ATTRIBUTE_BYTES and value == _as_text(value)
        return fits and not _LOOKS_LIKE_PATH.search(value)
    return isinstance(value, int) or (isinstance(value, float) and bool(np.isfinite(value)))


# --- pictures that are not EXR -------------------------------------------------------------------


def image_suffix(head: bytes, label: str) -> str:
    """Return the suffix by which the library knows a DPX, PNG, TIFF or JPEG, from its first bytes.

    Raises:
        BadPicture: It is none of them.
    """
    what = sniff(head)
    if what not in _IMAGE_SUFFIX:
        cure = "Give it the suffix .exr." if head.startswith(EXR_MAGIC) else "Write it as EXR."
        raise refuse(label, f"is no DPX, PNG, TIFF or JPEG: it is {what}", cure)
    return _IMAGE_SUFFIX[what]


def check_whole(data: bytes, suffix: str, label: str) -> None:
    """Refuse a PNG or JPEG that ends early; their libraries would fill in grey.

    Raises:
        BadPicture: It does.
    """
    whole = {"png": _png_is_whole, "jpg": _jpeg_is_whole}.get(suffix)
    if whole is not None and not whole(data):
        raise refuse(label, "ends before its picture does or is damaged", _RENDER_AGAIN)


def _png_is_whole(data: bytes) -> bool:
    """Walk the chunks of a PNG; each has its length, name, body and CRC."""
    at = 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        body, end = data[at + 4 : at + 8 + size], at + 12 + size
        if zlib.crc32(body) != int.from_bytes(data[end - 4 : end], "big") or end > len(data):
            return False
        if body[:4] == b"IEND":
            return True
        at = end
    return False


def _jpeg_is_whole(data: bytes) -> bool:
    """Walk the segments of a JPEG to its end marker; in a scan, over its stuffed bytes."""
    marker, at = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]"), 2
    while found := marker.search(data, at):
        at, code = found.end(), found.group()[1]
        if code == 0xD9:
            return True
        at += int.from_bytes(data[at : at + 2], "big")
    return False


def read_image(path: Path, role: str, channel: str | None, srgb: bool, label: str) -> Samples:
    """Read a DPX, PNG, TIFF or JPEG as scene-linear colour or as coverage.

    Its frame and its pixels are the whole picture from (0, 0). Colour with an alpha comes
    premultiplied.

    Args:
        path: File with the suffix of its kind; must be whole.
        role: ``matte``, or ``rgb`` or ``rgba`` for colour.
        channel: For a matte: the channel, or None for the alpha, else the first.
        srgb: True where colour is sRGB codes; a matte is never converted.
        label: What a sentence calls the picture.

    Raises:
        BadPicture: It cannot be read, has no such channels, or is logarithmic where sRGB was said.
    """
    config = oiio.ImageSpec()
    config.attribute("oiio:UnassociatedAlpha", 1)
    file = _open(path, config, label)
    try:
        spec = file.spec()
        if spec.width * spec.height * 16 > MAX_PICTURE_BYTES:
            claim = f"is {spec.width}x{spec.height} pixels"
            raise refuse(label, claim, f"At most {MAX_PICTURE_BYTES >> 30} GiB are taken.")
        names = _image_channels(list(spec.channelnames), role, channel, label)
        wanted = [list(spec.channelnames).index(name) for name in names]
        codes = _read(file, 0, wanted, str(spec.format), label)
        pixels = _image_pixels(codes, spec, role, srgb, label)
        box = Box(0, 0, spec.width - 1, spec.height - 1)
        kept = {key: v for key, v in carried_metadata(spec).items() if key in _IMAGE_CARRIED}
        return Samples(pixels, names, box, box, _pixel_aspect(spec), kept)
    finally:
        file.close()


def _image_channels(held: list[str], role: str, channel: str | None, label: str) -> tuple[str, ...]:
    if role == "matte":
        name = find_channel(held, channel or "A")
        if name is None and channel:
            raise no_channel(channel, held, label)
        return (name or first_channel(held),)
    if not set(RGB) <= set(held):
        what = f"has no R, G and B channels but {', '.join(held)}"
        raise refuse(label, what, "Write it with R, G and B.")
    return (*RGB, "A") if "A" in held else RGB


def _image_pixels(
    codes: NDArray[Any], spec: Any, role: str, srgb: bool, label: str
) -> NDArray[Any]:
    """Return codes as light or coverage. [H,W,C] float16 or float32."""
    matte = role == "matte"
    if srgb and not matte and "log" in spec.get_string_attribute("oiio:ColorSpace").lower():
        cure = "Convert it to scene-linear EXR first."
        raise refuse(label, "says that it is logarithmic, not sRGB", cure)
    whole_numbers = codes.dtype.kind == "u"
    if whole_numbers and codes.dtype.itemsize > 2:
        raise refuse(label, "holds 32-bit whole numbers", "Write it with 8 or 16 bits, or as EXR.")
    light = _normalised(codes)
    if not matte:
        straight = bool(spec.get_int_attribute("oiio:UnassociatedAlpha", 0))
        light = _colour(light, srgb=srgb, straight=straight)
    bits = int(spec.get_int_attribute("oiio:BitsPerSample", 0)) or codes.dtype.itemsize * 8
    half = bits <= _HALF_BITS if whole_numbers else codes.dtype == np.float16 and not srgb
    return light.astype(np.float16 if half else np.float32)


def _normalised(codes: NDArray[Any]) -> NDArray[np.float32]:
    """Return codes over their maximum; floating-point samples as they are. float32."""
    if codes.dtype.kind != "u":
        return codes.astype(np.float32)
    top = int(np.iinfo(codes.dtype).max)
    table = (np.arange(top + 1) / top).astype(np.float32)
    light: NDArray[np.float32] = table[codes]
    return light


def _colour(values: NDArray[np.float32], *, srgb: bool, straight: bool) -> NDArray[np.float32]:
    """Return colour as premultiplied light.

    Args:
        values: Colour, maybe with alpha. [H,W,3|4] float32.
        srgb: True where the colour is sRGB codes.
        straight: True where the colour is not multiplied by its alpha.
    """
    colour, alpha = values[..., :3], values[..., 3:]
    if not alpha.size or not (srgb or straight):
        return srgb_to_linear(values) if srgb else values
    if not straight:
        colour = np.divide(colour, alpha, out=np.zeros_like(colour), where=alpha > 0)
    light = srgb_to_linear(colour) if srgb else colour
    return np.concatenate([light * alpha, alpha], axis=-1)


def srgb_to_linear(codes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return light from sRGB values by the exact curve, odd about zero, unclamped over 1.

    Args:
        codes: sRGB values. [...] float32, 1 is white.

    Returns:
        Scene-linear light. [...] float32.

    Source: IEC 61966-2-1:1999, section 5.2.
    """
    size = np.abs(codes)
    curve = np.power((size + 0.055) / 1.055, 2.4, dtype=np.float32)
    light: NDArray[np.float32] = np.where(size <= 0.04045, size / 12.92, curve)
    np.copysign(light, codes, out=light)
    return light
