# SPDX-License-Identifier: Apache-2.0
"""Picture files made by hand, byte by byte, so that no library under test had a part in them."""

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from gencomp_server.exr.decode import DecodeTask
from gencomp_server.exr.decoder import answer

PIXEL_TYPES = {"uint32": 0, "float16": 1, "float32": 2}


def attribute(name, kind, value):
    return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value


def exr_header(channels, data, display, *, sampling=1, extra=b""):
    """Return one header; ``channels`` are (name, number of the pixel type), sorted by name."""
    listed = b"".join(
        name.encode() + b"\0" + struct.pack("<iB3x2i", kind, 0, sampling, sampling)
        for name, kind in channels
    )
    return (
        attribute("channels", "chlist", listed + b"\0")
        + attribute("compression", "compression", b"\0")
        + attribute("dataWindow", "box2i", struct.pack("<4i", *data))
        + attribute("displayWindow", "box2i", struct.pack("<4i", *display))
        + attribute("lineOrder", "lineOrder", b"\0")
        + attribute("pixelAspectRatio", "float", struct.pack("<f", 1.0))
        + attribute("screenWindowCenter", "v2f", struct.pack("<2f", 0, 0))
        + attribute("screenWindowWidth", "float", struct.pack("<f", 1.0))
        + extra
        + b"\0"
    )


def exr_bytes(channels, *, origin=(0, 0), display=None, flags=0, sampling=1, extra=b""):
    """Return an uncompressed scanline EXR; ``channels`` maps names to [H,W] arrays."""
    planes = dict(sorted(channels.items()))
    height, width = next(iter(planes.values())).shape
    x0, y0 = origin
    data = (x0, y0, x0 + width - 1, y0 + height - 1)
    kinds = [(name, PIXEL_TYPES[str(plane.dtype)]) for name, plane in planes.items()]
    head = b"\x76\x2f\x31\x01" + struct.pack("<I", 2 | flags)
    head += exr_header(kinds, data, display or data, sampling=sampling, extra=extra)
    at, table, chunks = len(head) + 8 * height, b"", b""
    for row in range(height):
        line = b"".join(plane[row].tobytes() for plane in planes.values())
        table += struct.pack("<Q", at + len(chunks))
        chunks += struct.pack("<ii", y0 + row, len(line)) + line
    return head + table + chunks


def exr_multipart(parts):
    """Return an uncompressed file of several parts, each a name and a map of [H,W] arrays."""
    heads, bodies = b"", []
    for name, channels in parts:
        planes = dict(sorted(channels.items()))
        height, width = next(iter(planes.values())).shape
        box = (0, 0, width - 1, height - 1)
        extra = attribute("name", "string", name.encode())
        extra += attribute("type", "string", b"scanlineimage")
        extra += attribute("chunkCount", "int", struct.pack("<i", height))
        kinds = [(key, PIXEL_TYPES[str(plane.dtype)]) for key, plane in planes.items()]
        heads += exr_header(kinds, box, (0, 0, 15, 15), extra=extra)  # one for all parts
        bodies.append((height, planes))
    head = b"\x76\x2f\x31\x01" + struct.pack("<I", 2 | 0x1000) + heads + b"\0"
    at, table, chunks = len(head) + 8 * sum(height for height, _ in bodies), b"", b""
    for number, (height, planes) in enumerate(bodies):
        for row in range(height):
            line = b"".join(plane[row].tobytes() for plane in planes.values())
            table += struct.pack("<Q", at + len(chunks))
            chunks += struct.pack("<iii", number, row, len(line)) + line
    return head + table + chunks


def png_bytes(codes):
    """Return a PNG of codes. [H,W,1|2|3|4] uint8 or uint16 (grey, grey+alpha, RGB, RGBA)."""
    height, width, channels = codes.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    wide = codes.astype(">u2") if codes.dtype == np.uint16 else codes
    rows = b"".join(b"\0" + wide[y].tobytes() for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, codes.dtype.itemsize * 8, colour, 0, 0, 0)
    made = b"\x89PNG\r\n\x1a\n"
    for name, body in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        made += struct.pack(">I", len(body)) + name + body
        made += struct.pack(">I", zlib.crc32(name + body))
    return made


@pytest.fixture
def decode(tmp_path):
    """Return a function that decodes bytes: to (pixels, answer), or raises what it was refused."""
    from gencomp_protocol.errors import error_from_wire
    from gencomp_server.exr.decode import read_decoded
    from gencomp_server.exr.read import map_picture

    def run(data, kind="exr", **wanted):
        source, target = tmp_path / "picture", tmp_path / "decoded"
        source.write_bytes(data)
        said = answer(DecodeTask(source, target, kind, name="plate", frame=1001, **wanted))
        if "error" in said:
            raise error_from_wire(said["error"])
        found = map_picture(read_decoded(target))
        return np.array(found.pixels), found.header

    return run


@pytest.fixture(scope="session")
def sample_exrs():
    """Return the folder of sample EXRs from public repositories, or skip."""
    beside = Path(__file__).resolve().parents[4] / "shared" / "data"
    folder = Path(os.environ.get("GENCOMP_SHARED_DATA", beside)) / "exr"
    if not folder.is_dir():
        pytest.skip("the sample EXRs are not here; set GENCOMP_SHARED_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def handmade():
    """Return the makers of files by hand."""

    class Makers:
        exr = staticmethod(exr_bytes)
        multipart = staticmethod(exr_multipart)
        png = staticmethod(png_bytes)
        attribute = staticmethod(attribute)

    return Makers
