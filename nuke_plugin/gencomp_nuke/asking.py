# SPDX-License-Identifier: Apache-2.0
"""What a node asks for: its knobs and connections, read into a request. Main thread only."""

from dataclasses import dataclass
from typing import Any, Optional

from gencomp_nuke import __version__, madefrom, menuwords, pipes
from gencomp_nuke.colours import ocio_config, working_space
from gencomp_nuke.declared import ONE_CHANNEL, Declaration, PipeSpec
from gencomp_nuke.node import (
    all_connected,
    connected,
    declared,
    frame_range,
    full_resolution,
    lead_pipe,
    range_of,
)
from gencomp_nuke.places import downwards
from gencomp_protocol.errors import BadKnob, MissingInput
from gencomp_protocol.frames import Format, FrameRange, frame_list
from gencomp_protocol.layers import ELEMENT, check_object_names
from gencomp_protocol.request import SEQUENCE, STILL, STILLS, InputHeader, Request

_LINES = "Multiline_Eval_String_Knob"
_TEXTS = ("String_Knob", "EvalString_Knob", _LINES)


@dataclass(frozen=True)
class Pipe:
    """One connected input of a node.

    Attributes:
        header: The input as it stands in the request.
        folder: Name of the folder and of the files that its inner Write makes.
        writer: Name of that Write.
        slot: Number of a pipe whose object the artist names, 0 for any other.
        name: That name; empty where the one object has none.
    """

    header: InputHeader
    folder: str
    writer: str
    slot: int = 0
    name: str = ""


@dataclass(frozen=True)
class Ask:
    """What a node asks for: the request, and where its inputs come from.

    Attributes:
        request: The request.
        pipes: Its inputs, in the request's order.
        view: The view of the script that is rendered for it; empty: the first.
        key: What the result is made from, by which it is seen to be out of date; empty: unknown.
        notes: What an artist should know of it, a sentence each.
    """

    request: Request
    pipes: "tuple[Pipe, ...]"
    view: str = ""
    key: str = ""
    notes: "tuple[str, ...]" = ()

    @property
    def slots(self) -> "dict[int, str]":
        """Return the name of the object in every connected pipe that has one."""
        return {slot: name for slot, name in sorted((p.slot, p.name) for p in self.pipes) if slot}


def ask(node: Any, frames: Optional[FrameRange] = None) -> Ask:
    """Read a node's knobs and connections into a request, formats as they are without proxy.

    Args:
        node: A node of ours.
        frames: Frames to ask for instead of those that the node says.

    Raises:
        MissingInput: Something that the node needs is not connected.
        BadName, BadKnob: An object's name, a knob or a path cannot be used.
    """
    pipes.follow(node)  # A channel that was chosen, a node that was renamed: nothing told us.
    with full_resolution():
        return _ask(node, frames)


def _ask(node: Any, wanted: Optional[FrameRange]) -> Ask:
    told = declared(node)
    _check_needs(node, told)
    frames = frame_range(node) if wanted is None else wanted
    names = _names(node, told)
    found = tuple(_pipe(node, told, spec, names, frames) for spec in all_connected(node, told))
    request = Request(
        system=str(node["gc_system"].value()),
        frames=frames,
        inputs=tuple(pipe.header for pipe in found),
        knobs=_downwards(_params(node), node, told, names),
        working_space=working_space(),
        client=f"gencomp_nuke {__version__}",
        ocio=ocio_config(),
    )
    key, notes = madefrom.key_of(node, wanted), _notes(node, told, frames)
    return Ask(request, found, key=key, notes=notes)


def _notes(node: Any, told: Declaration, frames: FrameRange) -> "tuple[str, ...]":
    """Say which frames the plate does not have; a still has none of its own and all of them."""
    lead = lead_pipe(node, told)
    there = frames if lead is None else range_of(node, lead.pipe)
    if there.first == there.last or (there.first <= frames.first and frames.last <= there.last):
        return ()
    missing = [str(n) for n in (frames.first, frames.last) if not there.first <= n <= there.last]
    return (
        f"The plate has frames {there}; beyond them, up to {' and '.join(missing)}, what Nuke "
        "shows there was taken.",
    )


def _check_needs(node: Any, told: Declaration) -> None:
    """Refuse a node that lacks what it needs; the server knows the finer rules.

    Raises:
        MissingInput: Names the pipes.
    """
    for rule in told.needs:
        if any(all(_is_connected(node, told, word) for word in one) for one in rule):
            continue
        if len(rule) > 1:
            ways = " nor ".join(" and ".join(one) for one in rule)
            choice = ", or ".join(" and ".join(one) for one in rule)
            raise MissingInput(f"{node.name()} has neither {ways}.", hint=f"Connect {choice}.")
        word = next(word for word in rule[0] if not _is_connected(node, told, word))
        pipe = told.matching(word)[0]
        raise MissingInput(
            f"{node.name()} has no {_spaced(word)}.",
            hint=f"Connect the {_spaced(word)} to its pipe {pipe}.",
        )


def _is_connected(node: Any, told: Declaration, word: str) -> bool:
    """Tell whether a pipe, or any pipe of a family, is connected."""
    return any(connected(node, pipe) is not None for pipe in told.matching(word))


def _spaced(pipe: str) -> str:
    """Return a pipe's name as a sentence has it: ``CleanPlate`` is ``clean plate``."""
    return "".join(f" {c.lower()}" if c.isupper() else c for c in pipe).strip()


def _params(node: Any) -> "dict[str, Any]":
    """Return the values of the knobs that are sent, as plain data."""
    return {name: value_of(node[name]) for name in str(node["gc_params"].value()).split()}


def value_of(knob: Any) -> Any:
    """Return a knob's value, the one that counts for the whole job.

    Raises:
        BadKnob: It has keys, or brackets in its text that are no expression.
    """
    if knob.Class() in _TEXTS:
        return _text(knob)
    if knob.isAnimated() and not knob.hasExpression():
        raise BadKnob(
            f"Knob '{knob.name()}' is animated, and one value counts for the whole job.",
            hint="Remove its animation.",
        )
    return int(knob.value()) if knob.Class() == "Int_Knob" else menuwords.value(knob)


def _text(knob: Any) -> str:
    """Return a knob's text with its ``[…]`` evaluated, words on several lines as if on one.

    Raises:
        BadKnob: A ``[…]`` cannot be evaluated.
    """
    text = str(knob.value())
    if "[" in text:
        try:
            text = str(knob.evaluate() or "")
        except (RuntimeError, ValueError) as error:
            raise BadKnob(
                f"Knob '{knob.name()}' has an expression in brackets that fails: {error}.",
                hint="Mend it, or write round brackets where none is meant.",
            ) from error
    return " ".join(text.split()) if knob.Class() == _LINES else text


def _downwards(
    knobs: "dict[str, Any]", node: Any, told: Declaration, names: "dict[int, str]"
) -> "dict[str, Any]":
    """Return knob values with places counted from the top, in the plate or in their element."""
    lead = lead_pipe(node, told)
    if lead is None:
        return knobs
    placed = [spec for spec in all_connected(node, told) if spec.is_family and spec.own]
    own = {names[spec.slot] or ELEMENT: _height(node, spec.pipe) for spec in placed}
    return downwards(knobs, told.coordinates, _height(node, lead.pipe), own)


def _height(node: Any, pipe: str) -> float:
    return float(connected(node, pipe).format().height())


def object_names(node: Any) -> "dict[int, str]":
    """Return the name of the object in every numbered pipe that is connected; empty for none.

    Raises:
        BadName: A name cannot be used, or stands twice.
    """
    return _names(node, declared(node))


def _names(node: Any, told: Declaration) -> "dict[int, str]":
    """Return the name of the object in every numbered pipe that is connected.

    Where the gizmo allows it, a lone object may go without, and of several each has a name of its
    own without being asked: ``fg1``, ``fg2``.

    Raises:
        BadName: A name cannot be used, or stands twice.
    """
    families = [spec for spec in all_connected(node, told) if spec.is_family]
    found = {spec.slot: str(node[f"gc_name{spec.slot}"].value()).strip() for spec in families}
    for spec in families:
        if spec.bare and not found[spec.slot] and len(found) > 1:
            found[spec.slot] = spec.folder
    bare = {spec.slot for spec in told.pipes if spec.bare}
    what = "element" if any(spec.kind == "rgba" for spec in families) else "matte"
    named = (name for slot, name in sorted(found.items()) if name or slot not in bare)
    check_object_names(named, what)
    return found


def _pipe(
    node: Any, told: Declaration, spec: PipeSpec, names: "dict[int, str]", frames: FrameRange
) -> Pipe:
    """Return one connected input as the request has it."""
    size = connected(node, spec.pipe).format()
    name = names.get(spec.slot, "")
    at, cover = _frames_of(node, told, spec, frames)
    header = InputHeader(
        name=spec.spelt(name),
        frames=at,
        cover=cover,
        format=Format(int(size.width()), int(size.height()), float(size.pixelAspect())),
        channel="A" if spec.kind in ONE_CHANNEL else None,
    )
    return Pipe(header, spec.folder, f"Write_{spec.folder}", spec.slot, name)


def _frames_of(
    node: Any, told: Declaration, spec: PipeSpec, frames: FrameRange
) -> "tuple[tuple[int, ...], str]":
    """Return the frames at which an input is rendered, and how they cover the job.

    Raises:
        BadKnob: Single pictures are wanted, and no frames are listed.
    """
    if spec.stills and node[f"{spec.stills}_cover"].value() == STILLS:
        at = frame_list(str(node[f"{spec.stills}_frames"].value()))
        if not at:
            raise BadKnob(
                f"{node.name()} has a {_spaced(spec.pipe)} of stills, and no frames are listed "
                "for it.",
                hint="List the frames at which it was painted, such as 1001,1024.",
            )
        return at, STILLS
    source = spec if spec.own else next((s for s in told.pipes if s.pipe == spec.like), None)
    if source is None or connected(node, source.pipe) is None:
        return tuple(frames), SEQUENCE
    own = tuple(range_of(node, source.pipe))
    return own, SEQUENCE if len(own) > 1 else STILL
