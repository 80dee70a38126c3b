# SPDX-License-Identifier: Apache-2.0
"""EXR files written and read byte by byte, so that no library and no code under test has a part.

Written are uncompressed scanline parts; read are scanline parts without compression, ZIPS or ZIP.
"""

import struct
import zlib
from dataclasses import dataclass, field

import numpy as np

TYPES = {"uint32": 0, "float16": 1, "float32": 2}
KINDS = {number: name for name, number in TYPES.items()}
LINES = {0: 1, 2: 1, 3: 16}


@dataclass
class HandPart:
    """One part: its channels by name, [H,W] each; where it lies; its further attributes."""

    channels: dict
    origin: tuple = (0, 0)
    name: str = ""
    attributes: dict = field(default_factory=dict)
    kind: str = "scanlineimage"
    sampling: int = 1


def attribute(name, kind, value):
    return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value


def text(name, words):
    return attribute(name, "string", words.encode())


def windows(part):
    height, width = next(iter(part.channels.values())).shape
    x, y = part.origin
    step = part.sampling
    return (x, y, x + width * step - 1, y + height * step - 1)


def head(part, display, parts):
    names = sorted(part.channels, key=str.encode)
    listed = b"".join(
        name.encode()
        + b"\0"
        + struct.pack(
            "<iB3x2i", TYPES[str(part.channels[name].dtype)], 0, part.sampling, part.sampling
        )
        for name in names
    )
    rows = part.channels[names[0]].shape[0] * part.sampling
    found = [
        attribute("channels", "chlist", listed + b"\0"),
        attribute("compression", "compression", b"\0"),
        attribute("dataWindow", "box2i", struct.pack("<4i", *windows(part))),
        attribute("displayWindow", "box2i", struct.pack("<4i", *display)),
        attribute("lineOrder", "lineOrder", b"\0"),
        attribute("pixelAspectRatio", "float", struct.pack("<f", 1.0)),
        attribute("screenWindowCenter", "v2f", bytes(8)),
        attribute("screenWindowWidth", "float", struct.pack("<f", 1.0)),
        *part.attributes.values(),
    ]
    if parts > 1:
        found += [text("name", part.name), text("type", part.kind)]
        found.append(attribute("chunkCount", "int", struct.pack("<i", rows)))
    return b"".join(found) + b"\0"


def write_by_hand(path, parts, display):
    """Write an uncompressed file."""
    many = len(parts) > 1
    heads = b"".join(head(part, display, len(parts)) for part in parts) + (b"\0" if many else b"")
    flags = 2 | 0x400 | (0x1000 if many else 0)
    start = b"\x76\x2f\x31\x01" + struct.pack("<I", flags) + heads
    chunks = [chunk for number, part in enumerate(parts) for chunk in lines(part, number, many)]
    at, table = len(start) + 8 * len(chunks), b""
    for chunk in chunks:
        table += struct.pack("<Q", at)
        at += len(chunk)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(start + table + b"".join(chunks))


def lines(part, number, many):
    names = sorted(part.channels, key=str.encode)
    rows = part.channels[names[0]].shape[0] * part.sampling
    for row in range(rows):
        there = row % part.sampling == 0
        line = b"".join(
            part.channels[name][row // part.sampling].tobytes() for name in names if there
        )
        lead = struct.pack("<i", number) if many else b""
        if part.kind.startswith("deep"):  # a pixel of none: counts all zero, no samples
            counts = bytes(4 * part.channels[names[0]].shape[1])
            sizes = struct.pack("<iQQQ", part.origin[1] + row, len(counts), 0, 0)
            yield lead + sizes + counts
        else:
            yield lead + struct.pack("<ii", part.origin[1] + row, len(line)) + line


@dataclass
class ReadPart:
    """What was read of one part: attributes as (type, bytes), channels by name [H,W]."""

    attributes: dict
    channels: dict
    window: tuple

    def string(self, name):
        return self.attributes[name][1].decode()


def read_by_hand(path):
    """Read a file, every part and channel in its own type."""
    data = path.read_bytes()
    magic, flags = struct.unpack_from("<4sI", data)
    assert magic == b"\x76\x2f\x31\x01"
    heads, at = [], 8
    while True:
        found, at = read_head(data, at)
        heads.append(found)
        if not flags & 0x1000:
            break
        if data[at] == 0:
            at += 1
            break
    parts = []
    for attributes in heads:
        part, at = read_part(data, at, attributes, bool(flags & 0x1000))
        parts.append(part)
    return parts


def read_head(data, at):
    found = {}
    while data[at]:
        name, kind, _ = data[at : at + 600].split(b"\0", 2)[:3]
        at += len(name) + len(kind) + 2
        (size,) = struct.unpack_from("<i", data, at)
        found[name.decode()] = (kind.decode(), data[at + 4 : at + 4 + size])
        at += 4 + size
    return found, at + 1


def read_part(data, at, attributes, many):
    x0, y0, x1, y1 = window = struct.unpack("<4i", attributes["dataWindow"][1])
    width, height = x1 - x0 + 1, y1 - y0 + 1
    packing, rows = attributes["compression"][1][0], attributes["channels"][1]
    kinds, place = {}, 0
    while rows[place]:
        name = rows[place:].split(b"\0", 1)[0]
        (kind,) = struct.unpack_from("<i", rows, place + len(name) + 1)
        kinds[name.decode()] = np.dtype(KINDS[kind])
        place += len(name) + 17
    made = {name: np.zeros((height, width), kind) for name, kind in kinds.items()}
    count = -(-height // LINES[packing])
    for offset in struct.unpack_from(f"<{count}Q", data, at):
        start = offset + (4 if many else 0)
        y, size = struct.unpack_from("<ii", data, start)
        number = min(LINES[packing], y1 - y + 1)
        whole = number * width * sum(kind.itemsize for kind in kinds.values())
        block = inflate(data[start + 8 : start + 8 + size], whole)
        spot = 0
        for row in range(y - y0, y - y0 + number):
            for name, kind in kinds.items():
                line = np.frombuffer(block, kind, width, spot)
                made[name][row] = line
                spot += width * kind.itemsize
    return ReadPart(attributes, made, window), at + 8 * count


def inflate(block, whole):
    """Undo ZIP: inflate, sum up, put even and odd bytes together again."""
    if len(block) == whole:
        return block
    steps = np.frombuffer(zlib.decompress(block), np.uint8).astype(np.int64)
    steps[1:] -= 128
    summed = (np.cumsum(steps) & 255).astype(np.uint8)
    half = (whole + 1) // 2
    made = np.empty(whole, np.uint8)
    made[0::2], made[1::2] = summed[:half], summed[half:]
    return made.tobytes()
