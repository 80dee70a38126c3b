# SPDX-License-Identifier: Apache-2.0
"""Moving and making pictures: transforms, sizes, polygons. Belongs to the pixel side."""

import numpy as np
from pixel_picture import COLOURS, Picture, intersection


def _taps(places, name):
    """Return for each place the first sample and the weights of the samples from there on."""
    if name == "Impulse":
        return np.floor(places + 0.5).astype(int), np.ones((1, len(places)))
    first = np.floor(places).astype(int)
    t = places - first
    if name == "Cubic":
        return first, np.stack([1 - t * t * (3 - 2 * t), t * t * (3 - 2 * t)])
    if name == "Keys":
        weights = [
            -0.5 * t + t * t - 0.5 * t**3,
            1 - 2.5 * t * t + 1.5 * t**3,
            0.5 * t + 2 * t * t - 1.5 * t**3,
            -0.5 * t * t + 0.5 * t**3,
        ]
        return first - 1, np.stack(weights)
    raise RuntimeError(f"the stand-in filters by Impulse, Cubic and Keys, not by {name}")


def _resample(x, columns, rows, name, black):
    """Sample at places of rows and columns, one list for each result's row and column, or pixel."""
    (x0, wx), (y0, wy) = _taps(columns.ravel(), name), _taps(rows.ravel(), name)
    height, width = x.shape
    found = np.zeros(columns.size, np.float64)
    for j, down in enumerate(wy):
        for i, across in enumerate(wx):
            c, r = x0 + i, y0 + j
            inside = (c >= 0) & (c < width) & (r >= 0) & (r < height)
            sample = x[np.clip(r, 0, height - 1), np.clip(c, 0, width - 1)]
            weight = across * down
            found += np.where(inside | (not black), sample, 0) * weight
    return found.reshape(columns.shape).astype(np.float32)


def transform(step, made):
    """Move by a matrix: where each pixel comes from, y upwards."""
    a = made[step["a"]]
    xx, xy, x0, yx, yy, y0 = step["inverse"]
    if step["inverse"] == [1, 0, 0, 0, 1, 0]:
        return a
    x, y = np.meshgrid(np.arange(a.width) + 0.5, a.height - np.arange(a.height) - 0.5)
    columns = xx * x + xy * y + x0 - 0.5
    rows = a.height - (yx * x + yy * y + y0) - 0.5
    channels = {
        name: _resample(old, columns, rows, step["filter"], step["black_outside"])
        for name, old in a.channels.items()
    }
    return a.with_channels(channels, _moved(a, step["forward"]))


def _moved(a, forward):
    """Return the box around a picture's box after a move, within the format."""
    xx, xy, x0, yx, yy, y0 = forward
    x, y, right, top = a.bbox
    corners = [(p, q) for p in (x, right) for q in (y, top)]
    across = [xx * p + xy * q + x0 for p, q in corners]
    up = [yx * p + yy * q + y0 for p, q in corners]
    box = [np.floor(min(across)), np.floor(min(up)), np.ceil(max(across)), np.ceil(max(up))]
    return intersection([int(number) for number in box], [0, 0, a.width, a.height])


def crop(step, made):
    """Cut to a box; outside is black, or the box becomes the format."""
    a, (x, y, right, top) = made[step["a"]], [round(number) for number in step["box"]]
    box = intersection([x, y, right, top], [0, 0, a.width, a.height])
    if step["intersect"]:
        box = intersection(box, a.bbox)
    kept = np.zeros((a.height, a.width), bool)
    kept[max(a.height - box[3], 0) : max(a.height - box[1], 0), box[0] : max(box[2], box[0])] = True
    if step["reformat"]:
        wide, high = right - x, top - y
        made_new = Picture(wide, high, a.pixel_aspect, {}, None, a.metadata)
        for name, old in a.channels.items():
            new = np.zeros((high, wide), np.float32)
            part = old[a.height - box[3] : a.height - box[1], box[0] : box[2]]
            new[top - box[3] : top - box[1], box[0] - x : box[2] - x] = part
            made_new.channels[name] = new
        return made_new
    channels = {n: np.where(kept, old, np.float32(0)) for n, old in a.channels.items()}
    return a.with_channels(channels, box)


def reformat(step, made):
    """Fit into another format."""
    a, wide, high = made[step["a"]], step["width"], step["height"]
    across, down = wide / a.width, high / a.height
    choices = {"none": (1, 1), "distort": (across, down), "width": (across,) * 2}
    choices.update({"height": (down,) * 2, "fit": (min(across, down),) * 2})
    choices["fill"] = (max(across, down),) * 2
    sx, sy = choices[step["resize"]]
    if step["resize"] == "width" and step["scaled"]:
        sx, sy = across, down
    left = (wide - a.width * sx) / 2 if step["center"] else 0
    below = (high - a.height * sy) / 2 if step["center"] else 0
    x, y = np.meshgrid(np.arange(wide) + 0.5, high - np.arange(high) - 0.5)
    columns, rows = (x - left) / sx - 0.5, a.height - (y - below) / sy - 0.5
    channels = {
        name: _resample(old, columns, rows, step["filter"], step["black_outside"])
        for name, old in a.channels.items()
    }
    return Picture(wide, high, step["pixel_aspect"], channels, None, a.metadata)


def shrink(step, made):
    """Bring a picture to a share of another's size: each sample is the mean of what it covers."""
    a, like, (across, up) = made[step["a"]], made[step["like"]], step["scale"]
    wide = max(1, int(like.width * across + 0.5))
    high = max(1, int(like.height * up + 0.5))
    columns, rows = _cover(a.width, wide), _cover(a.height, high)
    channels = {
        name: (rows @ old.astype(np.float64) @ columns.T).astype(np.float32)
        for name, old in a.channels.items()
    }
    x, y, right, top = a.bbox
    sx, sy = wide / a.width, high / a.height
    box = [np.floor(x * sx), np.floor(y * sy), np.ceil(right * sx), np.ceil(top * sy)]
    aspect = like.pixel_aspect * up / across
    return Picture(wide, high, aspect, channels, [int(n) for n in box], a.metadata)


def _cover(count, wanted):
    """Return how much of each old sample is in each new one. [wanted, count], rows sum to 1."""
    step = count / wanted
    start = np.arange(wanted)[:, None] * step
    old = np.arange(count)[None, :]
    shared = np.minimum(start + step, old + 1) - np.maximum(start, old)
    return np.clip(shared, 0, None) / step


# What comes from nothing.


def constant(step, made):
    shape = (step["height"], step["width"])
    values = zip(COLOURS, step["values"])
    channels = {name: np.full(shape, value, np.float32) for name, value in values}
    return Picture(shape[1], shape[0], step.get("pixel_aspect", 1.0), channels)


def checkers(step, made):
    """Fill with boxes of four colours, and lines between them."""
    wide, high = step["width"], step["height"]
    across, up = step["box"]
    x, y = np.meshgrid(np.arange(wide) - wide / 2, high - np.arange(high) - 1 - high / 2)
    column = np.floor(x / across).astype(int) % 2
    row = np.floor(y / up).astype(int) % 2
    channels = {}
    for index, name in enumerate(COLOURS):
        colours = np.array([colour[index] for colour in step["colours"]], np.float32)
        channels[name] = colours[row * 2 + column]
        if step["line"] > 0:
            near = (np.mod(x, across) < step["line"]) | (np.mod(y, up) < step["line"])
            channels[name] = np.where(near, np.float32(step["line_colour"][index]), channels[name])
    return Picture(wide, high, step["pixel_aspect"], channels)


def roto(step, made):
    """Fill polygons over the input: 1 inside, straight lines from point to point."""
    a = made[step["a"]]
    x, y = np.meshgrid(np.arange(a.width) + 0.5, a.height - np.arange(a.height) - 0.5)
    found = np.zeros((a.height, a.width), np.float32)
    for points, opacity in step["shapes"]:
        inside = np.zeros(found.shape, bool)
        for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1]):
            if y0 != y1:
                crosses = (y0 <= y) != (y1 <= y)
                inside ^= crosses & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
        found = np.maximum(found, inside * np.float32(opacity))
    channels = dict(a.channels)
    for name in step["channels"]:
        old = np.zeros_like(found) if step["replace"] else a.get(name)
        channels[name] = np.maximum(old, found) if found.any() else old
    return a.with_channels(channels)


OPERATIONS = {
    "checkers": checkers,
    "constant": constant,
    "crop": crop,
    "reformat": reformat,
    "roto": roto,
    "shrink": shrink,
    "transform": transform,
}
