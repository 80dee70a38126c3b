# SPDX-License-Identifier: Apache-2.0
"""The pixel side of the stand-in: runs in the server's Python, answers JSON lines on stdin.

A picture is a map of channel name to a float32 array, with a size; row 0 at the top. Imports
numpy and OpenImageIO and nothing of the project.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import pixel_merges
import pixel_places
import pixel_samples
from pixel_picture import COLOURS, LAYERS, Picture, same_size

_NAMES = {"R": "rgba.red", "G": "rgba.green", "B": "rgba.blue", "A": "rgba.alpha"}
_LAST = {"R": "red", "G": "green", "B": "blue", "A": "alpha"}
_BACK = {value: key for key, value in _NAMES.items()}
_BACK_LAST = {value: key for key, value in _LAST.items()}


def compute(plan):
    made = []
    for step in plan:
        made.append(_OPERATIONS[step["op"]](step, made))
    return made[-1]


def _nothing(step, made):
    return Picture(step["width"], step["height"], step["pixel_aspect"], {}, [0, 0, 0, 0])


def _channel_name(name):
    if name in _NAMES:
        return _NAMES[name]
    layer, dot, last = name.rpartition(".")
    return f"{layer}.{_LAST.get(last, last)}" if dot else f"other.{name}"


def _read(step, made):
    source = oiio.ImageInput.open(step["path"])
    if source is None:
        raise RuntimeError(f"{step['path']}: Read error: {oiio.geterror()}")
    spec = source.spec()
    pixels = source.read_image(0, 0, 0, spec.nchannels, oiio.FLOAT)
    source.close()
    if pixels is None:
        raise RuntimeError(f"{step['path']}: Read error: damaged")
    pixels = np.asarray(pixels, np.float32).reshape(spec.height, spec.width, spec.nchannels)
    full = np.zeros((spec.full_height, spec.full_width, spec.nchannels), np.float32)
    x, y = spec.x - spec.full_x, spec.y - spec.full_y
    x0, y0 = max(x, 0), max(y, 0)
    x1, y1 = min(x + spec.width, spec.full_width), min(y + spec.height, spec.full_height)
    if x1 > x0 and y1 > y0:
        full[y0:y1, x0:x1] = pixels[y0 - y : y1 - y, x0 - x : x1 - x]
    if step["black"]:
        full[:] = 0
    names = [_channel_name(name) for name in spec.channelnames]
    if not step["raw"] and str(spec.format) == "uint8":
        low = full / 12.92
        full = np.where(full <= 0.04045, low, ((full + 0.055) / 1.055) ** 2.4).astype(np.float32)
    aspect = spec.get_float_attribute("PixelAspectRatio", 1.0)
    channels = {name: np.ascontiguousarray(full[..., i]) for i, name in enumerate(names)}
    if len(names) == 1 and names[0] not in COLOURS:  # A grey picture shows in all colours.
        channels = dict.fromkeys(LAYERS["rgb"], channels[names[0]])
    top = spec.full_height - y
    box = [x, top - spec.height, x + spec.width, top]
    said = {} if step["black"] else _said(spec, step["path"])
    return Picture(spec.full_width, spec.full_height, aspect, channels, box, said)


def _said(spec, path):
    """Return what a file says of itself, under the names that Nuke gives."""
    said = {f"exr/{attribute.name}": _plain(attribute.value) for attribute in spec.extra_attribs}
    size = {"input/width": spec.full_width, "input/height": spec.full_height}
    return {**said, **size, "input/filename": path}


def _plain(value):
    return value if isinstance(value, (str, int, float)) else str(value)


_OPERATIONS = {
    "nothing": _nothing,
    "read": _read,
    **pixel_merges.OPERATIONS,
    **pixel_places.OPERATIONS,
    **pixel_samples.OPERATIONS,
}


def _file_name(name):
    layer, _, last = name.rpartition(".")
    return _BACK.get(name) or f"{layer}.{_BACK_LAST.get(last, last)}"


def write(question):
    picture = compute(question["plan"])
    present = picture.chosen(question["channels"])
    if not present:
        raise RuntimeError(f"{question['path']}: nothing to write")
    kind = oiio.HALF if question["half"] else oiio.FLOAT
    spec = oiio.ImageSpec(picture.width, picture.height, len(present), kind)
    spec.channelnames = tuple(_file_name(name) for name in present)
    spec.attribute("compression", "zips")
    spec.attribute("PixelAspectRatio", float(picture.pixel_aspect))
    pixels = np.ascontiguousarray(np.stack([picture.get(name) for name in present], -1))
    part = Path(question["path"]).with_suffix(".tmp.exr")
    out = oiio.ImageOutput.create(str(part))
    if out is None or not out.open(str(part), spec) or not out.write_image(pixels):
        raise RuntimeError(f"{question['path']}: {oiio.geterror()}")
    out.close()
    os.replace(part, question["path"])
    return {}


def compare(question):
    one, other = compute(question["one"]), compute(question["other"])
    same_size(one, other)
    a = np.stack([one.get(name) for name in question["channels"]])
    b = np.stack([other.get(name) for name in question["others"]])
    difference = np.abs(a.astype(np.float64) - b)
    return {
        "greatest": float(difference.max()),
        "mean": float(difference.mean()),
        "differing": int((a != b).sum()),
        "samples": int(a.size),
        "energy": float(np.abs(a).mean()),
    }


def sample(question):
    picture = compute(question["plan"])
    row, column = picture.height - 1 - int(question["y"]), int(question["x"])
    return {"value": float(picture.get(question["channel"])[row, column])}


def digest(question):
    picture = compute(question["plan"])
    found = hashlib.blake2b(digest_size=16)
    for name in question["channels"]:
        found.update(np.ascontiguousarray(picture.get(name)).tobytes())
    return {"digest": found.hexdigest()}


def size(question):
    picture = compute(question["plan"])
    return {
        "width": picture.width,
        "height": picture.height,
        "pixel_aspect": picture.pixel_aspect,
        "bbox": picture.bbox,
    }


def paint(question):
    """Write a picture of given numbers: a test's material, from outside the code under test."""
    height, width = question["height"], question["width"]
    names, values = question["channels"], question["values"]
    pixels = np.zeros((height, width, len(names)), np.float32)
    for box, colour in values:
        x0, y0, x1, y1 = box
        pixels[y0:y1, x0:x1] = colour
    kind = oiio.HALF if question["half"] else oiio.FLOAT
    spec = oiio.ImageSpec(width, height, len(names), kind)
    spec.channelnames = tuple(names)
    out = oiio.ImageOutput.create(question["path"])
    out.open(question["path"], spec)
    out.write_image(pixels)
    out.close()
    return {}


_ANSWERS = {
    "channels": lambda question: {"channels": sorted(compute(question["plan"]).channels)},
    "compare": compare,
    "digest": digest,
    "format": size,
    "metadata": lambda question: {"metadata": compute(question["plan"]).metadata},
    "paint": paint,
    "sample": sample,
    "write": write,
}


def main():
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = _ANSWERS[question["do"]](question)
        except (RuntimeError, KeyError, IndexError, OSError) as error:
            answer = {"error": str(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    oiio.attribute("threads", 1)
    main()
