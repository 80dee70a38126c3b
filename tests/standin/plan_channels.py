# SPDX-License-Identifier: Apache-2.0
"""Steps of the classes that choose and combine pictures and channels; see ``planning``."""

from pathlib import Path

from standin import classes
from standin.texts import expand_frame

_BLACK = ("black", "white")


def _switch(planner, node, frame):
    which = int(node._knobs["which"]._number(frame))
    return planner.source(node, frame, max(0, min(which, len(node._inputs) - 1)))


def _frame_hold(planner, node, frame):
    knobs = node._knobs
    name = "first_frame" if knobs["first_frame"]._raw != "0" else "firstFrame"
    first, step = knobs[name]._number(frame), knobs["increment"]._number(frame)
    at = first if not step else first + (frame - first) // step * step
    return planner.source(node, int(at))


def _time_offset(planner, node, frame):
    return planner.source(node, frame - int(node._knobs["time_offset"]._number(frame)))


def _one_view(planner, node, frame):
    was, planner.view = planner.view, node._knobs["view"]._raw
    found = planner.source(node, frame)
    planner.view = was
    return found


def _copy(planner, node, frame):
    knobs = node._knobs
    pairs = [(knobs[f"from{i}"]._raw, knobs[f"to{i}"]._raw) for i in range(8)]
    pairs = [tuple(planner.channel(node, c) for c in pair) for pair in pairs if "none" not in pair]
    return planner.add(
        "copy",
        b=planner.source(node, frame),
        a=planner.source(node, frame, 1),
        pairs=pairs,
        layers=planner.channels(node, knobs["channels"]._raw),
        bbox=knobs["bbox"]._raw or "union",
        metadata=knobs["metainput"]._raw or "B",
    )


def _merge(planner, node, frame):
    knobs = node._knobs
    found = planner.source(node, frame)
    mask = classes.mask_input_of("Merge2")
    others = [i for i in range(1, max(2, len(node._inputs))) if i != mask]
    names = [planner.channels(node, knobs[n]._raw) for n in ("Achannels", "Bchannels", "output")]
    rgba = list(planner.app.layers["rgba"])
    a, b, out = (rgba if found_names is None else found_names for found_names in names)
    for index in others:
        if index > 1 and node.input(index) is None:
            continue
        found = planner.add(
            "merge",
            operation=knobs["operation"]._value_at(frame),
            a=planner.source(node, frame, index),
            b=found,
            a_channels=a,
            b_channels=b,
            output=out,
            also=planner.channels(node, knobs["also_merge"]._raw),
            bbox=knobs["bbox"]._value_at(frame),
            metadata=knobs["metainput"]._value_at(frame),
        )
    return found


def _channel_merge(planner, node, frame):
    knobs = node._knobs
    return planner.add(
        "channel_merge",
        operation=knobs["operation"]._value_at(frame),
        a=planner.source(node, frame, 1),
        b=planner.source(node, frame),
        from_a=planner.channel(node, knobs["A"]._raw),
        from_b=planner.channel(node, knobs["B"]._raw),
        output=planner.channel(node, knobs["output"]._raw),
    )


def _keymix(planner, node, frame):
    knobs = node._knobs
    return planner.add(
        "keymix",
        b=planner.source(node, frame),
        a=planner.source(node, frame, 1),
        mask=planner.source(node, frame, 2),
        channel=planner.channel(node, knobs["maskChannel"]._raw),
        channels=planner.channels(node, knobs["channels"]._raw),
        invert=bool(knobs["invertMask"]._number(frame)),
        mix=knobs["mix"]._number(frame),
        bbox=knobs["bbox"]._value_at(frame),
    )


def _dissolve(planner, node, frame):
    which = max(0.0, min(node._knobs["which"]._number(frame), len(node._inputs) - 1.0))
    low = int(which)
    if which == low:
        return planner.source(node, frame, low)
    return planner.add(
        "dissolve",
        b=planner.source(node, frame, low),
        a=planner.source(node, frame, low + 1),
        which=which - low,
        channels=planner.channels(node, node._knobs["channels"]._raw),
    )


def _of_both(op):
    def step(planner, node, frame):
        return planner.add(op, b=planner.source(node, frame), a=planner.source(node, frame, 1))

    return step


def _remove(planner, node, frame):
    knobs = node._knobs
    found = []
    for name in ("channels", "channels2", "channels3", "channels4"):
        some = planner.channels(node, knobs[name]._raw)
        if some is None:
            found = None
            break
        found += some
    keep = knobs["operation"]._value_at(frame) == "keep"
    return planner.add("remove", a=planner.source(node, frame), channels=found, keep=keep)


def _add_channels(planner, node, frame):
    names = [planner.channels(node, node._knobs[n]._raw) or [] for n in ("channels", "channels2")]
    value = node._knobs["color"]._numbers(frame)
    a = planner.source(node, frame)
    return planner.add("add_channels", a=a, channels=names[0] + names[1], value=value)


def _shuffle2(planner, node, frame):
    """Follow the mappings: source, its input, its place, target, its output, its place."""
    words = node._knobs["mappings"]._raw.split()
    pairs, rest = [], words[1:]
    ports = [_port(node, name) for name in ("fromInput1", "fromInput2")]
    while len(rest) >= 6:
        source, which, _, target, _, _ = rest[:6]
        rest = rest[6:]
        name = source if source in _BLACK else planner.channel(node, source)
        pairs.append((ports[max(int(which), 0)], name, planner.channel(node, target)))
    inputs = [planner.source(node, frame), planner.source(node, frame, 1)]
    return planner.add("shuffle", inputs=inputs, pairs=pairs)


def _port(node, name):
    return 1 if "A" in node._knobs[name]._raw else 0


def _shuffle(planner, node, frame):
    """Follow the eight words of a Shuffle, whose second four are called as other colours."""
    knobs = node._knobs
    two = node._cls == "ShuffleCopy"
    layers = {"": knobs["in"]._raw, "2": knobs["in2"]._raw}
    targets = (
        ("out", ("red", "green", "blue", "alpha")),
        ("out2", ("black", "white", "red2", "green2")),
    )
    pairs = []
    for out, names in targets:
        to = planner.channels(node, knobs[out]._raw) or []
        for name, target in zip(names, to):
            word = knobs[name]._raw
            if word in _BLACK:
                pairs.append((0, word, target))
                continue
            second = word.endswith("2")
            members = planner.channels(node, layers["2" if second else ""]) or []
            place = ("red", "green", "blue", "alpha").index(word.rstrip("2"))
            if place < len(members):
                which = (0 if second else 1) if two else 0
                pairs.append((which, members[place], target))
    inputs = [planner.source(node, frame), planner.source(node, frame, 1)]
    return planner.add("shuffle", inputs=inputs, pairs=pairs)


def _held(frame, first, last):
    return first if frame < first else last


def _looped(frame, first, last):
    return first + (frame - first) % (last - first + 1)


def _bounced(frame, first, last):
    """Run back from the last frame and forth from the first, neither of them twice."""
    reach = last - first
    along = (frame - first) % (2 * reach) if reach else 0
    return first + min(along, 2 * reach - along)


def _read(planner, node, frame):
    """Return the step that reads what a Read reads at a frame."""
    knobs = node._knobs
    first, last = knobs["first"]._value_at(frame), knobs["last"]._value_at(frame)
    path = knobs["file"]._text(frame)
    if not path:
        raise RuntimeError(f"{node.fullName()}: no file is named")

    def file(at):
        return planner.app.hooks.filtered("filenameFilter", expand_frame(path, at, planner.view))

    if not first <= frame <= last:
        edge = knobs["before" if frame < first else "after"]._value_at(frame)
        end = first if frame < first else last
        if edge == "black":
            return _shrunk(planner, planner.add("read", path=file(end), raw=True, black=True))
        frame = {"hold": _held, "loop": _looped, "bounce": _bounced}[edge](frame, first, last)
    if not Path(file(frame)).is_file():
        policy = knobs["on_error"]._value_at(frame)
        near = sorted(range(first, last + 1), key=lambda n: (abs(n - frame), n))
        there = next((n for n in near if Path(file(n)).is_file()), None)
        if policy == "black" and there is not None:
            return _shrunk(planner, planner.add("read", path=file(there), raw=True, black=True))
        if policy != "nearest frame" or there is None:
            raise RuntimeError(
                f"{node.fullName()}: {file(frame)}: Read error: No such file or directory"
            )
        frame = there
    return _at_size(planner, node, frame, file(frame))


def _at_size(planner, node, frame, path):
    """Return the step that reads a file; in proxy mode the Read's own proxy file, or a smaller it.

    A proxy file of any size becomes as large as the full one scaled.
    """
    raw = node._knobs["raw"]._value_at(frame)
    path = planner.app.local_copies.opened(node, path)
    found = planner.add("read", path=path, raw=raw, black=False)
    proxy = node._knobs["proxy"]._text(frame)
    if not planner.proxy.is_on or not proxy:
        return _shrunk(planner, found)
    file = planner.app.hooks.filtered("filenameFilter", expand_frame(proxy, frame, planner.view))
    small = planner.add("read", path=file, raw=raw, black=False)
    return _shrunk(planner, small, like=found)


def _shrunk(planner, found, like=None):
    """Return the step that brings a picture to the proxy's size; that picture without proxy."""
    if not planner.proxy.is_on:
        return found
    scale = [planner.proxy.x, planner.proxy.y]
    return planner.add("shrink", a=found, like=found if like is None else like, scale=scale)


STEPS = {
    "AddChannels": _add_channels,
    "ChannelMerge": _channel_merge,
    "Copy": _copy,
    "CopyBBox": _of_both("copy_bbox"),
    "CopyMetaData": _of_both("copy_metadata"),
    "Dissolve": _dissolve,
    "FrameHold": _frame_hold,
    "Keymix": _keymix,
    "Merge2": _merge,
    "OneView": _one_view,
    "Read": _read,
    "Remove": _remove,
    "Shuffle": _shuffle,
    "Shuffle2": _shuffle2,
    "ShuffleCopy": _shuffle,
    "Switch": _switch,
    "TimeOffset": _time_offset,
}
