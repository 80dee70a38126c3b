# SPDX-License-Identifier: Apache-2.0
"""Pictures that are not EXR: DPX, PNG, TIFF and JPEG; runs in the decoder process only.

Whole-number codes become coverage (code over its maximum) or, where they are sRGB, scene-linear
light by the exact sRGB curve. Up to 10 bits a sample they are kept as half, above as float: half
takes every sRGB and every linear code of 10 bits back to itself, of 12 bits not always. A float or
half file keeps its type.
"""

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import OpenImageIO as oiio  # noqa: N813
from numpy.typing import NDArray

from gencomp_protocol.frames import Box
from gencomp_server.exr.header import (
    LIMITS,
    RENDER_AGAIN,
    RGB,
    PictureLimits,
    check_is_data,
    find_channel,
    first_channel,
    no_channel,
    refuse,
    sniff,
    too_large,
)
from gencomp_server.exr.layout import EXR_MAGIC
from gencomp_server.exr.pixels import (
    Samples,
    carried_metadata,
    is_of_colour,
    open_input,
    pixel_aspect,
    read_channels,
)

_SUFFIXES = {"a PNG": "png", "a JPEG": "jpg", "a TIFF": "tif", "a DPX": "dpx"}
_CARRIED = ("smpte:TimeCode", "smpte:KeyCode", "FramesPerSecond")
_HALF_BITS = 10
MATTE = "matte"
ONE_CHANNEL = (MATTE, "data")
_STRIP_ROWS = 128  # Converting a picture whole would hold it six times in float32.


def image_suffix(head: bytes, label: str) -> str:
    """Return the suffix by which the library knows a DPX, PNG, TIFF or JPEG, from its first bytes.

    Raises:
        BadPicture: It is none of them.
    """
    what = sniff(head)
    if what not in _SUFFIXES:
        cure = "Give it the suffix .exr." if head.startswith(EXR_MAGIC) else "Write it as EXR."
        raise refuse(label, f"is no DPX, PNG, TIFF or JPEG: it is {what}", cure)
    return _SUFFIXES[what]


def check_whole(data: bytes, suffix: str, label: str) -> None:
    """Refuse a PNG or JPEG that ends early; their libraries would fill in grey.

    Raises:
        BadPicture: It does.
    """
    whole = {"png": _png_is_whole, "jpg": _jpeg_is_whole}.get(suffix)
    if whole is not None and not whole(data):
        raise refuse(label, "ends before its picture does or is damaged", RENDER_AGAIN)


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


def read_image(
    path: Path,
    role: str,
    channel: str | None,
    srgb: bool,
    label: str,
    limits: PictureLimits = LIMITS,
) -> Samples:
    """Read a DPX, PNG, TIFF or JPEG as scene-linear colour or as coverage.

    Its frame and its pixels are the whole picture from (0, 0). Colour with an alpha comes
    premultiplied.

    Args:
        path: File with the suffix of its kind; must be whole.
        role: ``matte`` or ``data``, or ``rgb`` or ``rgba`` for colour.
        channel: For a matte or data: the channel, or None for the alpha (of data: none), else the
            first.
        srgb: True where colour is sRGB codes; a matte or data is never converted.
        label: What a sentence calls the picture.
        limits: What it may be at most.

    Raises:
        BadPicture: It cannot be read, has no such channels, is larger than is taken, or is
            logarithmic where sRGB was said.
    """
    config = oiio.ImageSpec()
    config.attribute("oiio:UnassociatedAlpha", 1)
    file = open_input(path, config, label)
    try:
        spec = file.spec()
        if spec.width * spec.height * 16 > limits.picture_bytes:
            raise too_large(spec.width, spec.height, label, limits)
        names = _image_channels(list(spec.channelnames), role, channel, label)
        wanted = [list(spec.channelnames).index(name) for name in names]
        codes = read_channels(file, 0, wanted, str(spec.format), label)
        pixels = _image_pixels(codes, spec, role, srgb, label)
        box = Box(0, 0, spec.width - 1, spec.height - 1)
        kept = {key: v for key, v in carried_metadata(spec).items() if key in _CARRIED}
        no_alpha = channel is None and role == MATTE and is_of_colour(names[0], spec.channelnames)
        return Samples(pixels, names, box, box, pixel_aspect(spec), kept, no_alpha)
    finally:
        file.close()


def _image_channels(held: list[str], role: str, channel: str | None, label: str) -> tuple[str, ...]:
    if role in ONE_CHANNEL:
        wanted = channel or ("A" if role == "matte" else None)
        name = find_channel(held, wanted) if wanted else None
        if name is None and channel:
            raise no_channel(channel, held, label)
        if role == "data" and name is None:
            check_is_data(held, label)
        return (name or first_channel(held),)
    if not set(RGB) <= set(held):
        what = f"has no R, G and B channels but {', '.join(held)}"
        raise refuse(label, what, "Write it with R, G and B.")
    return (*RGB, "A") if "A" in held else RGB


def _image_pixels(
    codes: NDArray[Any], spec: Any, role: str, srgb: bool, label: str
) -> NDArray[Any]:
    """Return codes as light or coverage. [H,W,C] float16 or float32."""
    matte = role in ONE_CHANNEL
    if srgb and not matte and "log" in spec.get_string_attribute("oiio:ColorSpace").lower():
        cure = "Convert it to scene-linear EXR first."
        raise refuse(label, "says that it is logarithmic, not sRGB", cure)
    whole_numbers = codes.dtype.kind == "u"
    if whole_numbers and codes.dtype.itemsize > 2:
        raise refuse(label, "holds 32-bit whole numbers", "Write it with 8 or 16 bits, or as EXR.")
    bits = int(spec.get_int_attribute("oiio:BitsPerSample", 0)) or codes.dtype.itemsize * 8
    half = bits <= _HALF_BITS if whole_numbers else codes.dtype == np.float16 and not srgb
    made = np.empty(codes.shape, np.float16 if half else np.float32)
    straight = bool(spec.get_int_attribute("oiio:UnassociatedAlpha", 0))
    for top in range(0, codes.shape[0], _STRIP_ROWS):
        light = _normalised(codes[top : top + _STRIP_ROWS])
        if not matte:
            light = _colour(light, srgb=srgb, straight=straight)
        made[top : top + _STRIP_ROWS] = light
    return made


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
