# SPDX-License-Identifier: Apache-2.0
"""Combining pictures: merges, copies, keymix, dissolve, masks. Belongs to the pixel side."""

import numpy as np
from pixel_picture import COLOURS, intersection, pair, union

_ONE, _HALF = np.float32(1), np.float32(0.5)


def _divide(a, b):
    return np.where((a < 0) & (b < 0), 0, np.divide(a, np.where(b == 0, 1, b)) * (b != 0))


def _screen(a, b):
    inside = (a >= 0) & (a <= 1) & (b >= 0) & (b <= 1)
    return np.where(inside, a + b - a * b, np.maximum(a, b))


# a and b are samples, p and q the alphas of A and B.
_MERGES = {
    "atop": lambda a, b, p, q: a * q + b * (_ONE - p),
    "average": lambda a, b, p, q: (a + b) * _HALF,
    "copy": lambda a, b, p, q: a,
    "difference": lambda a, b, p, q: np.abs(a - b),
    "divide": lambda a, b, p, q: _divide(a, b),
    "exclusion": lambda a, b, p, q: a + b - 2 * a * b,
    "from": lambda a, b, p, q: b - a,
    "hypot": lambda a, b, p, q: np.hypot(a, b),
    "in": lambda a, b, p, q: a * q,
    "mask": lambda a, b, p, q: b * p,
    "matte": lambda a, b, p, q: a * p + b * (_ONE - p),
    "max": lambda a, b, p, q: np.maximum(a, b),
    "min": lambda a, b, p, q: np.minimum(a, b),
    "minus": lambda a, b, p, q: a - b,
    "multiply": lambda a, b, p, q: np.where((a < 0) & (b < 0), 0, a * b),
    "out": lambda a, b, p, q: a * (_ONE - q),
    "over": lambda a, b, p, q: a + b * (_ONE - p),
    "plus": lambda a, b, p, q: a + b,
    "screen": lambda a, b, p, q: _screen(a, b),
    "stencil": lambda a, b, p, q: b * (_ONE - p),
    "under": lambda a, b, p, q: a * (_ONE - q) + b,
    "union": lambda a, b, p, q: a + b - a * b,
    "xor": lambda a, b, p, q: a * (_ONE - q) + b * (_ONE - p),
}


def _box(how, a, b):
    if how == "A":
        return a.bbox
    if how == "B":
        return b.bbox
    return union(a.bbox, b.bbox) if how == "union" else intersection(a.bbox, b.bbox)


def _said(how, a, b):
    if how == "A":
        return a.metadata
    return {**b.metadata, **a.metadata} if how == "All" else b.metadata


def merge(step, made):
    """Merge A over, plus, minus … B; what is not in ``output`` stays B's."""
    a, b = pair(made[step["a"]], made[step["b"]])
    if step["operation"] not in _MERGES:
        raise RuntimeError(f"the stand-in merges no {step['operation']}")
    combine = _MERGES[step["operation"]]
    p, q = a.get("rgba.alpha"), b.get("rgba.alpha")
    channels = dict(b.channels)
    names = [*zip(step["a_channels"], step["b_channels"], step["output"])]
    if step["also"] is None:
        also = sorted({*a.channels, *b.channels} - set(COLOURS))
    else:
        also = step["also"]
    for from_a, from_b, to in [*names, *((n, n, n) for n in also)]:
        found = combine(a.get(from_a), b.get(from_b), p, q)
        channels[to] = np.asarray(found, np.float32)
    return b.with_channels(channels, _box(step["bbox"], a, b), _said(step["metadata"], a, b))


def channel_merge(step, made):
    """Merge one channel of A with one of B."""
    a, b = pair(made[step["a"]], made[step["b"]])
    x, y = a.get(step["from_a"]), b.get(step["from_b"])
    channels = dict(b.channels)
    found = _MERGES[step["operation"]](x, y, x, y)
    channels[step["output"]] = np.asarray(found, np.float32)
    return b.with_channels(channels, union(a.bbox, b.bbox))


def copy(step, made):
    """Copy channels of A into B."""
    a, b = pair(made[step["a"]], made[step["b"]])
    channels = dict(b.channels)
    for name in step.get("layers") or ():
        channels[name] = a.get(name)
    for source, target in step["pairs"]:
        channels[target] = a.get(source)
    box = _box(step.get("bbox", "union"), a, b)
    return b.with_channels(channels, box, _said(step.get("metadata", "B"), a, b))


def between(a, b, amount, names):
    """Return channels that go from B, at 0, to A, at 1: exactly theirs at both ends."""
    channels = dict(b.channels)
    every = sorted({*a.channels, *b.channels}) if names is None else names
    for name in every:
        if name not in a.channels and name not in b.channels:
            continue
        x, y = a.get(name), b.get(name)
        found = y + (x - y) * amount
        found = np.where(amount == 1, x, np.where(amount == 0, y, found))
        channels[name] = np.asarray(found, np.float32)
    return channels


def mix(step, made):
    """Put what a node made, A, over what it was given, B, by its mix and mask."""
    a, b = made[step["a"]], made[step["b"]]
    amount = np.float32(step["mix"])
    if step["mask"] is not None:
        mask, _ = pair(made[step["mask"]], b)
        amount = amount * _inverted(mask.get(step["channel"]), step["invert"])
    return a.with_channels(between(a, b, np.clip(amount, 0, 1), None))


def _inverted(mask, on):
    return _ONE - mask if on else mask


def keymix(step, made):
    """Put A over B by a mask."""
    a, b = pair(made[step["a"]], made[step["b"]])
    mask, _ = pair(made[step["mask"]], b)
    amount = np.float32(step["mix"]) * _inverted(mask.get(step["channel"]), step["invert"])
    box = union(a.bbox, b.bbox) if step["bbox"] == "union" else _box(step["bbox"], a, b)
    return b.with_channels(between(a, b, np.clip(amount, 0, 1), step["channels"]), box)


def dissolve(step, made):
    """Go from one input to the next."""
    a, b = pair(made[step["a"]], made[step["b"]])
    channels = between(a, b, np.float32(step["which"]), step["channels"])
    return b.with_channels(channels, union(a.bbox, b.bbox))


def copy_bbox(step, made):
    """Give B the box of A."""
    a, b = made[step["a"]], made[step["b"]]
    return b.with_channels(dict(b.channels), a.bbox)


def copy_metadata(step, made):
    """Give B the metadata of A."""
    a, b = made[step["a"]], made[step["b"]]
    return b.with_channels(dict(b.channels), metadata={**b.metadata, **a.metadata})


OPERATIONS = {
    "channel_merge": channel_merge,
    "copy": copy,
    "copy_bbox": copy_bbox,
    "copy_metadata": copy_metadata,
    "dissolve": dissolve,
    "keymix": keymix,
    "merge": merge,
    "mix": mix,
}
