# SPDX-License-Identifier: Apache-2.0
"""Changing samples: colour, expressions, filters. Belongs to the pixel side."""

import numpy as np
from pixel_expression import evaluate
from pixel_picture import COLOURS, RGB, pair, union

_WORDS = {"r": COLOURS[0], "g": COLOURS[1], "b": COLOURS[2], "a": COLOURS[3]}
_WORDS.update({"red": COLOURS[0], "green": COLOURS[1], "blue": COLOURS[2], "alpha": COLOURS[3]})


def _each(step, a, change):
    """Change the chosen channels; ``change`` is told which of the four numbers is the channel's."""
    channels = dict(a.channels)
    for name in a.chosen(step["channels"]):
        index = COLOURS.index(name) if name in COLOURS else 0
        channels[name] = np.asarray(change(channels[name], index), np.float32)
    return a.with_channels(channels)


def _values(step, key="value"):
    return [np.float32(number) for number in step[key]]


def multiply(step, made):
    values = _values(step)
    return _each(step, made[step["a"]], lambda x, i: x * values[i])


def add(step, made):
    values = _values(step)
    return _each(step, made[step["a"]], lambda x, i: x + values[i])


def gamma(step, made):
    values = _values(step)

    def change(x, i):
        return x if values[i] == 1 else np.sign(x) * np.abs(x) ** (1 / values[i])

    return _each(step, made[step["a"]], change)


def grade(step, made):
    """Nuke's Grade: A = multiply (white - black) / (whitepoint - blackpoint), then gamma."""
    names = ("blackpoint", "whitepoint", "black", "white", "multiply", "add", "gamma")
    knobs = {name: _values(step, name) for name in names}

    def change(x, i):
        low, high, black, white, times, plus, power = (knobs[name][i] for name in names)
        slope = times * (white - black) / (high - low) if high != low else np.float32(0)
        offset = plus + black - slope * low
        found = x if (slope, offset) == (1, 0) else x * slope + offset
        if power != 1:
            found = np.where(found > 0, np.abs(found) ** (1 / power), found)
        found = np.maximum(found, 0) if step["black_clamp"] else found
        return np.minimum(found, 1) if step["white_clamp"] else found

    return _each(step, made[step["a"]], change)


def clamp(step, made):
    low, high = _values(step, "low"), _values(step, "high")

    def change(x, i):
        x = np.maximum(x, low[i]) if step["low_on"] else x
        return np.minimum(x, high[i]) if step["high_on"] else x

    return _each(step, made[step["a"]], change)


def invert(step, made):
    return _each(step, made[step["a"]], lambda x, i: np.float32(1) - x)


def saturation(step, made):
    a, amount = made[step["a"]], np.float32(step["value"][0])
    grey = 0.2126 * a.get(RGB[0]) + 0.7152 * a.get(RGB[1]) + 0.0722 * a.get(RGB[2])
    return _each(step, a, lambda x, i: x if amount == 1 else grey + (x - grey) * amount)


def premult(step, made):
    a = made[step["a"]]
    alpha = a.get(step["alpha"])
    kept = dict.fromkeys([step["alpha"]], a.get(step["alpha"]))
    found = _each(step, a, lambda x, i: x * alpha)
    return found.with_channels({**found.channels, **{n: kept[n] for n in kept if n in a.channels}})


def unpremult(step, made):
    a = made[step["a"]]
    alpha = a.get(step["alpha"])
    found = _each(step, a, lambda x, i: np.where(alpha == 0, x, x / np.where(alpha == 0, 1, alpha)))
    if step["alpha"] in a.channels:
        found.channels[step["alpha"]] = alpha
    return found


def expression(step, made):
    """Evaluate each channel's expression over the input's samples, or those of two."""
    a, box = made[step["a"]], None
    if step["other"] is not None:
        other, a = pair(made[step["other"]], a)
        box = union(other.bbox, a.bbox)
    shape = (a.height, a.width)
    x = np.broadcast_to(np.arange(a.width, dtype=np.float32), shape)
    y = np.broadcast_to(np.arange(a.height - 1, -1, -1, dtype=np.float32)[:, None], shape)
    half = np.float32(a.width / 2)
    names = {
        "x": x,
        "y": y,
        "width": np.float32(a.width),
        "height": np.float32(a.height),
        "cx": (x + np.float32(0.5)) / half - 1,
        "cy": (y + np.float32(0.5) - np.float32(a.height / 2)) / half,
        "frame": np.float32(step["frame"]),
        "pi": np.float32(np.pi),
    }
    names.update({name: np.float32(value) for name, value in step["values"].items()})
    if step["other"] is not None:  # Of a MergeExpression: Ar is the red of input A, Br of B.
        for side, picture in (("A", other), ("B", a)):
            names.update({side + letter: picture.get(_WORDS[letter]) for letter in "rgba"})

    def look_up(name):
        if name in names:
            return names[name]
        known = _WORDS.get(name, name)
        if known in a.channels or known in COLOURS or "." in known:
            return a.get(known)
        raise RuntimeError(f"the expression asks for {name}, which is not there")

    for name, text in step["temps"]:
        names[name] = evaluate(text, look_up)
    channels = dict(a.channels)
    for targets, text in step["expressions"]:
        found = np.ascontiguousarray(np.broadcast_to(evaluate(text, look_up), shape))
        for target in a.channels if targets is None else targets:
            channels[target] = found
    return a.with_channels(channels, box)


def shuffle(step, made):
    """Fill channels from those of two inputs, or with black and white."""
    pictures = [made[index] for index in step["inputs"]]
    base = pictures[0]
    channels = dict(base.channels)
    for which, source, target in step["pairs"]:
        if source in ("black", "white"):
            level = np.float32(source == "white")
            channels[target] = np.full((base.height, base.width), level, np.float32)
        else:
            channels[target] = pictures[which].get(source)
    return base.with_channels(channels)


def remove(step, made):
    a, names = made[step["a"]], step["channels"]
    chosen = set(a.channels if names is None else names)
    kept = {n: x for n, x in a.channels.items() if (n in chosen) == step["keep"]}
    return a.with_channels(kept)


def add_channels(step, made):
    a = made[step["a"]]
    channels = dict(a.channels)
    for index, name in enumerate(step["channels"]):
        level = np.float32(step["value"][index % 4])
        channels.setdefault(name, np.full((a.height, a.width), level, np.float32))
    return a.with_channels(channels)


# Filters.


def _along(x, axis, offsets, weights, repeat):
    """Convolve along an axis; outside, the edge is repeated or is black."""
    far = max(abs(offset) for offset in offsets)
    pad = [(far, far) if i == axis else (0, 0) for i in (0, 1)]
    wide = np.pad(x, pad, mode="edge" if repeat else "constant")
    found = np.zeros(x.shape, np.float64)
    for offset, weight in zip(offsets, weights):
        start = far + offset
        part = [slice(None)] * 2
        part[axis] = slice(start, start + x.shape[axis])
        found += wide[tuple(part)] * weight
    return found.astype(np.float32)


def blur(step, made):
    """Blur by a Gaussian, a triangle or a box of a size in pixels."""
    a, (wide, high) = made[step["a"]], step["size"]

    def change(x, i):
        for axis, size in ((1, wide), (0, high)):
            if size > 0:
                x = _along(x, axis, *_kernel(size, step["filter"]), repeat=True)
        return x

    found = _each(step, a, change)
    if not step["crop"]:
        x, y = int(np.ceil(wide)), int(np.ceil(high))
        found.bbox = [a.bbox[0] - x, a.bbox[1] - y, a.bbox[2] + x, a.bbox[3] + y]
    return found


def _kernel(size, name):
    far = max(1, int(np.ceil(size)))
    offsets = list(range(-far, far + 1))
    places = np.abs(np.array(offsets, np.float64))
    if name == "box":
        weights = np.clip(size / 2 + 0.5 - places, 0, 1)
    elif name == "gaussian":
        weights = np.exp(-0.5 * (places / (size / 2)) ** 2)
    else:
        weights = np.clip(1 - places / (size / 2 + 1), 0, 1)
    return offsets, weights / weights.sum()


def dilate(step, made):
    """Grow by a size in pixels where it is positive, shrink where it is negative."""

    def whole(x, axis, steps):
        pick = np.maximum if steps > 0 else np.minimum
        wide = np.pad(x, [(abs(steps),) * 2 if i == axis else (0, 0) for i in (0, 1)], mode="edge")
        found = x
        for offset in range(2 * abs(steps) + 1):
            part = [slice(None)] * 2
            part[axis] = slice(offset, offset + x.shape[axis])
            found = pick(found, wide[tuple(part)])
        return found

    def change(x, i):
        for axis, size in ((1, step["size"][0]), (0, step["size"][1])):
            steps, rest = int(np.trunc(size)), np.float32(abs(size) - abs(np.trunc(size)))
            near = whole(x, axis, steps) if steps else x
            if rest:
                far = whole(x, axis, steps + (1 if size > 0 else -1))
                near = near + (far - near) * rest
            x = near
        return x

    return _each(step, made[step["a"]], change)


OPERATIONS = {
    "add": add,
    "add_channels": add_channels,
    "blur": blur,
    "clamp": clamp,
    "dilate": dilate,
    "expression": expression,
    "gamma": gamma,
    "grade": grade,
    "invert": invert,
    "multiply": multiply,
    "premult": premult,
    "remove": remove,
    "saturation": saturation,
    "shuffle": shuffle,
    "unpremult": unpremult,
}
