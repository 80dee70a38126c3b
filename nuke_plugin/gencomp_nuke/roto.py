# SPDX-License-Identifier: Apache-2.0
"""Keyframes of what was drawn upstream: the keys of visible shapes in Roto and RotoPaint nodes.

Nuke makes a picture of a roto on every frame, so which frames an artist has drawn cannot be seen in
the pixels; the key times of the curves say it. What stands between a roto and the node is passed
by: a TimeOffset moves the keys, a disabled node is its first input, a Switch is the input that it
shows, a Group is looked into. What bends time in other ways is not looked beyond. Main thread only.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from gencomp_nuke.node import is_ours
from gencomp_protocol.errors import MissingInput
from gencomp_protocol.frames import FrameRange

_DRAWN = ("Roto", "RotoPaint")
_BENDS_TIME = ("AppendClip", "FrameHold", "Kronos", "OFlow", "OFlow2", "Retime", "TimeWarp")
# Values of the attribute ltt, in the order of the menu of a RotoPaint.
_ALL, _TO_FRAME, _SINGLE, _FROM_FRAME, _BETWEEN = range(5)
_POINTS = (
    *("center", "leftTangent", "rightTangent"),
    *("featherCenter", "featherLeftTangent", "featherRightTangent"),
)


@dataclass(frozen=True)
class Found:
    """What was drawn above a pipe.

    Attributes:
        keys: Frames with a key of something that moves, or on which a stroke lives; rising.
        still: Names of shapes that are seen and have no more than one key.
        still_keys: Frames of those keys; rising.
        nodes: Names of the nodes that they are in.
        passed: Names of nodes that bend time, above which nothing was looked for.
    """

    keys: "tuple[int, ...]"
    still: "tuple[str, ...]"
    still_keys: "tuple[int, ...]"
    nodes: "tuple[str, ...]"
    passed: "tuple[str, ...]"


@dataclass
class _Gathering:
    """What is gathered on the way up."""

    keys: "set[int]" = field(default_factory=set)
    still_keys: "set[int]" = field(default_factory=set)
    still: "list[str]" = field(default_factory=list)
    nodes: "list[str]" = field(default_factory=list)
    passed: "list[str]" = field(default_factory=list)


def look(top: Any, frames: FrameRange) -> Found:
    """Find what was drawn in a node and above it.

    Args:
        top: The node that is connected to the pipe.
        frames: Frames of the job: those that count of a stroke which lives for long.

    Raises:
        MissingInput: Nothing there has a shape or a stroke that is seen.
    """
    made = _Gathering()
    try:
        for drawn, shift in _walk(top, made.passed):
            _read(drawn, shift, frames, made)
    except RuntimeError as error:  # An Indie licence lets Python see a few nodes only.
        raise MissingInput(
            f"Nuke did not let the nodes above {top.name()} be looked at ({error}).",
            hint="Type the list of keyframes.",
        ) from error
    if not made.nodes:
        beyond = f"; not looked beyond {', '.join(made.passed)}" if made.passed else ""
        raise MissingInput(
            f"There is no Roto or RotoPaint with anything drawn above {top.name()}{beyond}.",
            hint="Type the list of keyframes.",
        )
    return Found(
        tuple(sorted(made.keys)),
        tuple(made.still),
        tuple(sorted(made.still_keys)),
        tuple(made.nodes),
        tuple(made.passed),
    )


# --- the way up ----------------------------------------------------------------------------------


def _walk(top: Any, passed: "list[str]") -> "Iterator[tuple[Any, int]]":
    """Yield every Roto and RotoPaint from a node on, and by how many frames its keys are moved."""
    waiting, seen = [(top, 0)], set()
    while waiting:
        one, shift = waiting.pop(0)
        if one is None or (one.fullName(), shift) in seen:
            continue
        seen.add((one.fullName(), shift))
        if _is_off(one):
            waiting.append((one.input(0), shift))
            continue
        if _stops(one):
            passed.append(one.name())
            continue
        if one.Class() in _DRAWN:
            yield one, shift
        if one.Class() == "TimeOffset":
            shift += round(one["time_offset"].value())
        waiting.extend((source, shift) for source in _sources(one))


def _is_off(one: Any) -> bool:
    return one.knob("disable") is not None and bool(one["disable"].value())


def _stops(one: Any) -> bool:
    """Tell whether keys above a node are at other frames than can be said, or no keys of a mask."""
    if one.Class() == "TimeOffset":
        return bool(one["time_offset"].isAnimated() or one["reverse_input"].value())
    return one.Class() in _BENDS_TIME or is_ours(one)


def _sources(one: Any) -> "list[Any]":
    """Return the nodes that a node's picture may come from."""
    count = one.inputs()
    if one.Class() == "Switch":
        return [one.input(min(max(int(one["which"].value()), 0), max(count - 1, 0)))]
    found = [one.input(index) for index in range(count)]
    if hasattr(one, "nodes"):
        found += [inner for inner in one.nodes() if inner.Class() == "Output"]
    return found


# --- what is drawn in a node ---------------------------------------------------------------------


def _read(drawn: Any, shift: int, frames: FrameRange, made: _Gathering) -> None:
    """Gather the keys of one node."""
    for element, layers in _elements(drawn["curves"].rootLayer, ()):
        times = _key_times(element, layers)
        if len(times) > 1:
            found = {t + shift for t in times if _is_seen(element, layers, t)}
            made.keys.update(found)
        else:
            found = _read_still(element, layers, times, shift, frames, made)
        if found and drawn.name() not in made.nodes:
            made.nodes.append(drawn.name())


def _read_still(
    element: Any,
    layers: "Sequence[Any]",
    times: "Sequence[int]",
    shift: int,
    frames: FrameRange,
    made: _Gathering,
) -> "set[int]":
    """Gather what does not move, by its life; return frames on which it is seen, if there are."""
    alive = (n for n in frames if _is_seen(element, layers, n - shift))
    if _lifetime(element, frames.first)[0] != _ALL:
        found = set(alive)
        made.keys.update(found)
        return found
    found = set(itertools.islice(alive, 1))
    if found:
        made.still.append(str(element.name))
        made.still_keys.update(t + shift for t in times if _is_seen(element, layers, t))
    return found


def _elements(layer: Any, above: "tuple[Any, ...]") -> "Iterator[tuple[Any, tuple[Any, ...]]]":
    """Yield every shape and stroke, and the layers that it lies in."""
    for element in layer:
        kind = type(element).__name__
        if kind == "Layer":
            yield from _elements(element, (*above, layer))
        elif kind in ("Shape", "Stroke"):
            yield element, (*above, layer)


def _key_times(element: Any, layers: "Sequence[Any]") -> "list[int]":
    """Return the frames of an element's keys: of its points, else of what moves it as a whole."""
    times: set[float] = set()
    for point in element:
        curves = [point]
        if not hasattr(
            point, "getControlPointKeyTimes"
        ):  # A shape's point is of six; a stroke's one.
            curves = [getattr(point, name) for name in _POINTS]
        for curve in curves:
            times.update(curve.getControlPointKeyTimes())
    if len(times) < 2:
        for one in (element, *layers):
            moved = list(one.getTransform().getTransformKeyTimes())
            times.update(moved if len(moved) > 1 else ())
    return sorted({round(time) for time in times})


def _is_seen(element: Any, layers: "Sequence[Any]", frame: int) -> bool:
    """Tell whether an element is switched on at a frame, with all its layers, and alive."""
    if not all(one.getVisible(frame) for one in (element, *layers)):
        return False
    kind, first, last = _lifetime(element, frame)
    return {
        _TO_FRAME: frame <= last,
        _SINGLE: frame == last,
        _FROM_FRAME: frame >= last,
        _BETWEEN: first <= frame <= last,
    }.get(kind, True)


def _lifetime(element: Any, frame: int) -> "tuple[int, int, int]":
    """Return the kind of an element's life, and its two frames, rising.

    Which of the two is the one of a life with a single end is not documented; the other is left at
    its default of 1, or is the same, so the greater is the one that was set.
    """
    attributes = element.getAttributes()
    kind, one, other = (
        round(attributes.getValue(frame, name))
        for name in (
            attributes.kLifeTimeTypeAttribute,
            attributes.kLifeTimeNAttribute,
            attributes.kLifeTimeMAttribute,
        )
    )
    return kind, min(one, other), max(one, other)
