# SPDX-License-Identifier: Apache-2.0
"""Pipes that follow what is connected: a family's next one appears, and its object gets a name.

A gizmo ships with the first pipe of each family. When the last that is there is connected, the next
gets its Input; trailing ones that nobody uses go again, but one. Numbers never move: the further
pipes are the last in ``gc_pipes`` and come in that order. A node of an older script has all of its
pipes and keeps them. Main thread only.
"""

import re
from typing import Any

import nuke
from gencomp_nuke import node
from gencomp_nuke.declared import ONE_CHANNEL, Declaration, PipeSpec
from gencomp_protocol.errors import BadName
from gencomp_protocol.layers import check_object_names

_SINCE_SCHEMA = 2
# What an artist puts behind a matte: it is still the same thing's. A Roto on a plate is not.
_SAME_MATTE = (
    *("Dot", "NoOp", "PostageStamp", "Blur", "EdgeBlur", "Defocus", "Median", "Soften"),
    *("Dilate", "Erode", "FilterErode", "Grade", "Multiply", "Add", "Gamma", "Clamp", "Invert"),
    *("ColorLookup", "Expression", "Premult", "Unpremult", "Shuffle", "Shuffle2", "Remove"),
    *("Transform", "CornerPin2D", "Crop", "Reformat", "TimeOffset", "FrameHold", "FrameRange"),
)
_FRAME = re.compile(r"[._-]?(%0?\d*d|#+|\d+)$")
_MOST_LETTERS = 32
_PLAIN_LAYERS = ("rgba", "rgb", "alpha")
_PLAIN_CHANNELS = ("red", "green", "blue", "alpha")
_AUTO = "gc_auto_names"
_MASKS = {"gc_masked": "EffectMask", "gc_unknown_masked": "EffectUnknown"}


def follow(gizmo: Any) -> None:
    """Let pipes, names and the view of the mask follow what is connected, beside the undo list."""
    if not gizmo.nodes():  # A script is being opened; what is inside comes later.
        return
    told = node.declared(gizmo)
    with node.quietly():
        if _schema(gizmo) >= _SINCE_SCHEMA:
            _grow(gizmo, told)
            _shrink(gizmo, told)
        _name(gizmo, told)
        _follow_mask(gizmo)


def ensure(gizmo: Any, pipe: str) -> None:
    """Let a node have a pipe of a family, though those before it are not connected."""
    told = node.declared(gizmo)
    wanted = next((spec.slot for spec in told.pipes if spec.pipe == pipe), 0)
    with node.quietly():
        for number, spec in enumerate(told.pipes):
            if 0 < spec.slot <= wanted and gizmo.node(spec.pipe) is None:
                _make(gizmo, spec, number)


def _schema(gizmo: Any) -> int:
    return int(gizmo["gc_schema"].value()) if "gc_schema" in gizmo.knobs() else 1


# --- pipes that appear ---------------------------------------------------------------------------


def _wanted(gizmo: Any, told: Declaration) -> int:
    """Return the number of the last slot that is wanted: one beyond the last that is connected."""
    used = [s.slot for s in told.pipes if s.slot and node.connected(gizmo, s.pipe) is not None]
    return min(max(used, default=0) + 1, max(told.slots, default=0))


def _grow(gizmo: Any, told: Declaration) -> None:
    wanted = _wanted(gizmo, told)
    for number, spec in enumerate(told.pipes):
        if 0 < spec.slot <= wanted and gizmo.node(spec.pipe) is None:
            _make(gizmo, spec, number)


def _make(gizmo: Any, spec: PipeSpec, number: int) -> None:
    """Make the Input of a pipe; what it leads to is there already."""
    with gizmo:
        made = nuke.nodes.Input(name=spec.pipe)
    made["number"].setValue(number)
    made.setXYpos(200 * number, -600)
    if spec.kind in ONE_CHANNEL:
        channel = gizmo.node(f"{spec.pipe}_channel")
        channel.setInput(0, made)
        channel.setInput(1, made)
    else:
        gizmo.node(f"Write_{spec.folder}").setInput(0, made)


def _shrink(gizmo: Any, told: Declaration) -> None:
    """Take trailing pipes away, from the last, down to one slot that is free."""
    wanted = _wanted(gizmo, told)
    for spec in reversed(told.pipes):
        if spec.slot <= max(wanted, 1):
            return
        spare = gizmo.node(spec.pipe)
        if spare is not None:
            nuke.delete(spare)


# --- names from what is connected ----------------------------------------------------------------


def _name(gizmo: Any, told: Declaration) -> None:
    """Name objects after what is connected, where no artist typed a name."""
    if _AUTO not in gizmo.knobs():
        return
    given = dict(_pair(word) for word in str(gizmo[_AUTO].value()).split())
    named = [spec for spec in told.pipes if spec.is_family and not spec.bare and not spec.like]
    kept = {spec.slot: str(gizmo[f"gc_name{spec.slot}"].value()).strip() for spec in named}
    free = {slot for slot, name in kept.items() if name in ("", f"object{slot}", given.get(slot))}
    taken = {name.lower() for slot, name in kept.items() if slot not in free}
    found: dict[int, str] = {}
    for spec in named:
        if spec.slot not in free:
            continue
        name = _free_name(_derived(gizmo, told, spec), taken)
        if name:
            taken.add(name.lower())
            found[spec.slot] = name
        _set(gizmo[f"gc_name{spec.slot}"], name or f"object{spec.slot}")
    _set(gizmo[_AUTO], " ".join(f"{slot}={name}" for slot, name in sorted(found.items())))


def _pair(word: str) -> "tuple[int, str]":
    slot, _, name = word.partition("=")
    return int(slot), name


def _derived(gizmo: Any, told: Declaration, spec: PipeSpec) -> str:
    """Return what a pipe's object may be called; empty where what is connected says nothing.

    Of several pipes with the same node, that is several mattes in one stream, each is called as
    its channel; else the node's own name counts, or that of a Read's files.
    """
    source = node.connected(gizmo, spec.pipe)
    if source is None:
        return ""
    twins = [
        other
        for other in told.pipes
        if other.input == spec.input and _same(node.connected(gizmo, other.pipe), source)
    ]
    if len(twins) > 1:
        return _cleaned(_of_channel(str(gizmo.node(f"{spec.pipe}_channel")["from0"].value())))
    return _cleaned(_of_node(source))


def _same(one: Any, other: Any) -> bool:
    return one is not None and bool(one.fullName() == other.fullName())


def _of_channel(channel: str) -> str:
    """Return the name in a channel: ``boy.alpha`` is boy, ``mask.girl`` is girl, red is red."""
    layer, _, part = channel.rpartition(".")
    return layer if part in _PLAIN_CHANNELS and layer not in _PLAIN_LAYERS else part


def _of_node(source: Any) -> str:
    """Return the name that a node's artist or its files gave it; empty for a name of Nuke's.

    A blur or a grade between says nothing while it has the name that Nuke gave it.
    """
    while _is_unnamed(source) and source.Class() in _SAME_MATTE and source.input(0) is not None:
        source = source.input(0)
    if not _is_unnamed(source):
        return str(source.name())
    if source.Class() != "Read":
        return ""
    stem = str(source["file"].value()).replace("\\", "/").rpartition("/")[2].rpartition(".")[0]
    return _FRAME.sub("", stem)


def _is_unnamed(source: Any) -> bool:
    name = str(source.name()).rstrip("0123456789").lower()
    return name == str(source.Class()).rstrip("0123456789").lower()


def _cleaned(text: str) -> str:
    """Return a name that can be a layer's, or an empty text."""
    name = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_").lstrip("0123456789_")
    name = name[:_MOST_LETTERS]
    return name if _may_be_a_layer(name) else ""


def _may_be_a_layer(name: str) -> bool:
    try:
        check_object_names([name], "matte")
    except BadName:
        return False
    return True


def _free_name(name: str, taken: "set[str]") -> str:
    """Return the name, with a number behind it where another object has it."""
    found, count = name, 1
    while found and found.lower() in taken:
        count += 1
        found = f"{name[: _MOST_LETTERS - 3]}_{count}"
    return found


def _set(knob: Any, value: Any) -> None:
    if knob.value() != value:
        knob.setValue(value)


# --- the view of the mask ------------------------------------------------------------------------


def _follow_mask(gizmo: Any) -> None:
    """Keep on the node whether a mask is connected: an expression cannot ask that."""
    for knob, pipe in _MASKS.items():
        if knob in gizmo.knobs():
            _set(gizmo[knob], node.connected(gizmo, pipe) is not None)
