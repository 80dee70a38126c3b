# SPDX-License-Identifier: Apache-2.0
"""The buttons that write where an element goes: from the viewer's point, Trackers and Transforms.

They fill the knobs ``trajectory``, ``transform`` and ``scale`` with the text an artist could have
typed, each in the section of the element that is chosen. Everything is as Nuke has it, from the
lower left corner of the picture with y up, a pixel's middle at a half; ``places.py`` turns it round
when it is sent. What is written down does not follow its node any more. Main thread only.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import nuke
from gencomp_nuke import asking, node
from gencomp_protocol import motion
from gencomp_protocol.errors import BadKnob, MissingInput
from gencomp_protocol.motion import Keys

TRAJECTORY, TRANSFORM, SCALE, MODE = "trajectory", "transform", "scale", "trajectory_mode"
_TRACKERS, _TRANSFORMS = ("Tracker4",), ("Transform", "TransformMasked")
# The table of a Tracker4: columns of a track, and which of them hold its place.
_COLUMNS, _X, _Y, _ENABLED = 31, 2, 3, 0
_TABLE = re.compile(r"\{\s*\d+\s+(\d+)\s+(\d+)\s*\}")
_STRAIGHT = 1e-6
# What says nothing of an element, and what a way of one kind goes in place of.
_NOTHING = {TRAJECTORY: "", TRANSFORM: "", SCALE: "1", "rotate": "0", "skew": "0"}
_INSTEAD = {
    motion.PATH: (TRANSFORM,),
    motion.MATRIX: (TRAJECTORY, SCALE, "rotate", "skew"),
    motion.CURVE: (),
}
Matrix = tuple[float, float, float, float, float, float]


# --- a point at a frame --------------------------------------------------------------------------


def add_point(gizmo: Any) -> None:
    """Put the viewer's point into the trajectory at the current frame.

    Raises:
        MissingInput: The chosen element is not connected.
        BadKnob: The trajectory cannot be read, or is a line without frames.
    """
    frame, name = int(nuke.frame()), _chosen(gizmo)
    keys = _keys(gizmo, name)
    point = tuple(float(gizmo["gc_point"].getValueAt(frame, index)) for index in (0, 1))
    keys[float(frame)] = point
    emptied = _write(gizmo, TRAJECTORY, name, _timed(keys), motion.PATH)
    place = f"{point[0]:g},{point[1]:g}"
    node.tell(gizmo, f"At {frame} {_called(gizmo, name)} is at {place}.{emptied}")


def remove_point(gizmo: Any) -> None:
    """Take the trajectory's point at the current frame away.

    Raises:
        MissingInput: The chosen element is not connected.
        BadKnob: The trajectory cannot be read, or is a line without frames.
    """
    frame, name = int(nuke.frame()), _chosen(gizmo)
    keys = _keys(gizmo, name)
    if keys.pop(float(frame), None) is None:
        node.tell(gizmo, f"The trajectory has no point at {frame}, so nothing was removed.")
        return
    _write(gizmo, TRAJECTORY, name, _timed(keys), motion.PATH)
    node.tell(gizmo, f"The point at {frame} is gone.")


# --- the way of another node ---------------------------------------------------------------------


def sample(gizmo: Any) -> None:
    """Write the way of a Tracker into ``trajectory``, or that of a Transform into ``transform``.

    A Tracker is named ``Tracker1``, of several tracks ``Tracker1:2``; without a number it is the
    first that is switched on.

    Raises:
        MissingInput: The chosen element is not connected.
        BadKnob: There is no such node or track, or nothing can be sampled from it.
    """
    name = _chosen(gizmo)
    source, track = _source(gizmo)
    frames = tuple(node.frame_range(gizmo))
    if source.Class() in _TRACKERS:
        keys = _tracked(source, track, frames)
        emptied = _write(gizmo, TRAJECTORY, name, keys, motion.PATH)
        told = f"{len(keys.frames)} points"
    elif source.Class() in _TRANSFORMS:
        keys = _steady(frames, [matrix_at(source, frame) for frame in frames])
        emptied = _write(gizmo, TRANSFORM, name, keys, motion.MATRIX)
        told = f"{len(keys.frames)} matrices" if keys.frames else "one matrix, for it does not move"
    else:
        raise BadKnob(
            f"{source.name()} is a {source.Class()}, and no way can be taken from that.",
            hint="Name a Tracker or a Transform; a tracker exports Transforms.",
        )
    node.tell(gizmo, f"Took the way of {source.name()}: {told}.{emptied}")


def sample_scale(gizmo: Any) -> None:
    """Write the animated size into ``scale``: a value wherever the curve is not straight.

    Raises:
        MissingInput: The chosen element is not connected.
        BadKnob: The size is not above 0 somewhere; names the frame. Or matrices hold one already.
    """
    name, frames = _chosen(gizmo), tuple(node.frame_range(gizmo))
    if motion.section_of(str(gizmo[TRANSFORM].value()), name, TRANSFORM):
        raise BadKnob(
            f"The knob transform says how large {_called(gizmo, name)} is.",
            hint="Animate the Transform and take its way again, or empty the knob.",
            knob=TRANSFORM,
        )
    values = [float(gizmo["gc_scale_curve"].getValueAt(frame)) for frame in frames]
    bad = next((n for n, value in zip(frames, values) if not value > 0), None)
    if bad is not None:
        raise BadKnob(
            f"The scale curve is not above 0 at frame {bad}.", hint="Raise it there.", knob=SCALE
        )
    keys = straightened(_steady(frames, [(value,) for value in values]))
    _write(gizmo, SCALE, name, keys, motion.CURVE)
    count = f"{len(keys.frames)} values" if keys.frames else "one value"
    node.tell(gizmo, f"Wrote the scale of {_called(gizmo, name)}: {count}.")


def matrix_at(transform: Any, frame: float) -> Matrix:
    """Return what a Transform does at a frame: a,b,tx,c,d,ty with x' = ax + by + tx, y up.

    Raises:
        BadKnob: It is to be inverted and flattens the picture.
    """
    (x, y), (cx, cy) = (_pair(transform[name], frame) for name in ("translate", "center"))
    wide, high = _pair(transform["scale"], frame)
    turn = math.radians(transform["rotate"].getValueAt(frame))
    lean_x, lean_y = (float(transform[name].getValueAt(frame)) for name in ("skewX", "skewY"))
    if transform["skew_order"].value() == "YX":
        lean = (1.0, lean_x, lean_y, 1.0 + lean_x * lean_y)
    else:
        lean = (1.0 + lean_x * lean_y, lean_x, lean_y, 1.0)
    # A quarter turn is one, and not short of it by the last digit of pi.
    cosine, sine = (round(part, 15) for part in (math.cos(turn), math.sin(turn)))
    a = (cosine * lean[0] - sine * lean[2]) * wide
    b = (cosine * lean[1] - sine * lean[3]) * high
    c = (sine * lean[0] + cosine * lean[2]) * wide
    d = (sine * lean[1] + cosine * lean[3]) * high
    made = (a, b, x + cx - a * cx - b * cy, c, d, y + cy - c * cx - d * cy)
    inverted = transform.knob("invert_matrix")
    return _inverse(made, transform) if inverted is not None and inverted.value() else made


def straightened(keys: Keys) -> Keys:
    """Return keys without those that lie on the straight line between others."""
    if len(keys.frames) < 3:
        return keys
    kept, start = [0], 0
    for i in range(2, len(keys.frames)):
        if not _is_straight(keys, start, i):
            start = i - 1
            kept.append(start)
    kept.append(len(keys.frames) - 1)
    return Keys(tuple(keys.frames[i] for i in kept), tuple(keys.values[i] for i in kept))


# --- inside: other nodes -------------------------------------------------------------------------


def _source(gizmo: Any) -> "tuple[Any, int]":
    """Return the node that is named, and the number of the track, 0 where none is named.

    Raises:
        BadKnob: None is named, or there is none of that name.
    """
    text = str(gizmo["gc_sample_from"].value()).strip()
    name, colon, number = text.partition(":")
    if not name or (colon and not number.strip().isdigit()):
        raise BadKnob(
            f"'{text}' names no node whose way is taken." if text else "No node is named.",
            hint="Type the name of a Tracker or a Transform, such as Tracker1 or Tracker1:2.",
        )
    beside = gizmo.fullName().rpartition(".")[0]
    with nuke.root():
        found = nuke.toNode(f"{beside}.{name.strip()}") if beside else None
        found = found or nuke.toNode(name.strip())
    if found is None:
        raise BadKnob(
            f"There is no node '{name.strip()}'.", hint="Type its name as it stands on it."
        )
    return found, int(number or 0)


def _tracked(tracker: Any, track: int, frames: "Sequence[int]") -> Keys:
    """Return where a track is on the frames of the job on which it was tracked.

    Raises:
        BadKnob: There is no such track, or it has no place on any of the frames.
    """
    table = tracker["tracks"]
    match = _TABLE.search(table.toScript())
    count = int(match.group(2)) if match else 0
    if match and int(match.group(1)) != _COLUMNS:
        raise BadKnob(
            f"{tracker.name()} keeps its tracks in a way that is not known here.",
            hint="Export a Transform from it and name that.",
        )
    if track > count or not count:
        has = f"{count} tracks" if count != 1 else "1 track"
        raise BadKnob(f"{tracker.name()} has {has}.", hint="Track a point, or name another.")
    on = [i for i in range(count) if table.getValueAt(frames[0], _COLUMNS * i + _ENABLED)]
    index = track - 1 if track else (on or [0])[0]
    times = sorted(round(time) for time in table.getKeyList())
    inside = [n for n in frames if times and times[0] <= n <= times[-1]]
    if not inside:
        raise BadKnob(
            f"{tracker.name()} was not tracked on any frame of {frames[0]}-{frames[-1]}.",
            hint="Track it there, or change the range.",
        )
    places = [
        tuple(float(table.getValueAt(n, _COLUMNS * index + column)) for column in (_X, _Y))
        for n in inside
    ]
    return Keys(tuple(map(float, inside)), tuple(places))


def _pair(knob: Any, frame: float) -> "tuple[float, float]":
    """Return the two numbers of a knob; a size may be one number for both."""
    value = knob.getValueAt(frame)
    both = value if isinstance(value, (list, tuple)) else (value, value)
    return float(both[0]), float(both[1])


def _inverse(matrix: Matrix, transform: Any) -> Matrix:
    a, b, tx, c, d, ty = matrix
    area = a * d - b * c
    if not area:
        raise BadKnob(
            f"{transform.name()} makes the picture flat, which cannot be inverted.",
            hint="Give it a size.",
        )
    p, q, r, s = d / area, -b / area, -c / area, a / area
    return p, q, -p * tx - q * ty, r, s, -r * tx - s * ty


# --- inside: what the knobs hold -----------------------------------------------------------------


def _chosen(gizmo: Any) -> str:
    """Return the name of the element that is chosen; empty for a lone one without a name.

    Raises:
        MissingInput: It is not connected.
    """
    pipe = str(gizmo["gc_element"].value())
    names, told = asking.object_names(gizmo), node.declared(gizmo)
    if node.connected(gizmo, pipe) is None:
        there = [spec.pipe for spec in node.all_connected(gizmo, told) if spec.own]
        choice = f"Choose {' or '.join(there)}." if there else f"Connect an element to {pipe}."
        raise MissingInput(f"Nothing is connected to {pipe}.", hint=choice)
    return names[told.pipe(pipe).slot]


def _called(gizmo: Any, name: str) -> str:
    return name or str(gizmo["gc_element"].value())


def _is_alone(gizmo: Any) -> bool:
    return len(asking.object_names(gizmo)) == 1


def _section(gizmo: Any, knob: str, name: str) -> str:
    """Return under which name a knob speaks of an element: its own, or that of all others."""
    named = motion.sections(str(gizmo[knob].value()), knob)
    return name if name in named or not _is_alone(gizmo) else ""


def _keys(gizmo: Any, name: str) -> "dict[float, tuple[float, ...]]":
    """Return the points of the element's trajectory by frame.

    Raises:
        BadKnob: They cannot be read, or stand at no frames.
    """
    body = motion.section_of(str(gizmo[TRAJECTORY].value()), name, TRAJECTORY)
    if not body:
        return {}
    keys = motion.read_keys(body, motion.PATH, TRAJECTORY)
    if not keys.is_timed:
        raise BadKnob(
            f"Knob 'trajectory' holds points without frames: {body}.",
            hint="Empty it, or give each a frame, as 100,200@1001; 300,220@1050.",
            knob=TRAJECTORY,
        )
    return dict(zip(keys.frames, keys.values))


def _timed(keys: "dict[float, tuple[float, ...]]") -> Keys:
    frames = tuple(sorted(keys))
    return Keys(frames, tuple(keys[frame] for frame in frames))


def _write(gizmo: Any, knob: str, name: str, keys: Keys, kind: str) -> str:
    """Write one element's section of a knob, and empty those that say the same in another way.

    A server takes one way of saying where an element goes. One step of the undo list.

    Returns:
        A sentence that names what was emptied, a space before; empty for nothing.
    """
    with nuke.Undo(f"{knob} of {_called(gizmo, name)}"):
        _put(gizmo, knob, name, motion.spell_keys(keys))
        if kind == motion.PATH and gizmo[MODE].value() in ("polyline", "track"):
            gizmo[MODE].setValue("auto")
        others = [other for other in _INSTEAD[kind] if _empty(gizmo, other, name)]
    return f" Emptied {' and '.join(others)}: this goes in place of it." if others else ""


def _empty(gizmo: Any, knob: str, name: str) -> bool:
    """Let a knob say nothing of an element any more; return whether it said something."""
    if motion.section_of(str(gizmo[knob].value()), name, knob) in ("", _NOTHING[knob]):
        return False
    _put(gizmo, knob, name, _NOTHING[knob])
    return True


def _put(gizmo: Any, knob: str, name: str, body: str) -> None:
    """Set one element's section of a knob; an empty one goes."""
    bodies = motion.sections(str(gizmo[knob].value()), knob)
    bodies[_section(gizmo, knob, name)] = body
    parts = [f"{one}: {body}" if one else body for one, body in bodies.items() if body]
    gizmo[knob].setValue(" | ".join(parts))


def _steady(frames: "Sequence[int]", values: "Sequence[tuple[float, ...]]") -> Keys:
    """Return values at frames, or one value where they are all the same."""
    if all(value == values[0] for value in values):
        return Keys((), (values[0],))
    return Keys(tuple(map(float, frames)), tuple(values))


def _is_straight(keys: Keys, start: int, end: int) -> bool:
    """Tell whether a key lies on the line through two neighbours, to a millionth of its size."""
    near = Keys(keys.frames[start : start + 2], keys.values[start : start + 2])
    run = (keys.frames[end] - near.frames[0]) / (near.frames[1] - near.frames[0])
    return all(
        abs(one + (two - one) * run - value) <= _STRAIGHT * max(1.0, abs(value))
        for one, two, value in zip(*near.values, keys.values[end])
    )
