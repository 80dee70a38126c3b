# SPDX-License-Identifier: Apache-2.0
"""Making a node play a result: what its inner Reads read, and the names of layers in its stream.

Everything set here is ordinary knobs that the script keeps, so that the result plays without
Python. The inner nodes of a layer are ``Read_KEY``, ``Layer_KEY`` and ``Copy_KEY``, its switch is
the knob ``gc_has_KEY``; the key is the layer's name, or holds the number of the object's pipe.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import nuke
from gencomp_nuke import node
from gencomp_nuke.caches import opened
from gencomp_nuke.declared import (
    PLATE_OUTPUT,
    RECOMPOSED,
    STAR,
    Declaration,
    key_of,
    layer_of,
    placeholder,
)
from gencomp_protocol.layers import BACKGROUND, OBJECT_SUFFIX

_SCRIPT_FOLDER = "[file dirname [value root.name]]"
_OVER, _TOP = "Over_", "Add_residual"
_RGBA = ("red", "green", "blue", "alpha")
_SET_NOW: "list[str]" = []


@dataclass(frozen=True)
class Result:
    """A whole result on disk, as a node plays it.

    Attributes:
        folder: Final folder of the version.
        frames: First and last frame.
        layers: Names of the layers that are there.
        slots: Name of the object in each named pipe when it was made; empty for one without.
        order: Objects from front to back.
        backbone: The video model it was made with and the class of its licence, as the node says
            it; empty where none was used.
        key: What it was made from, by which it is seen to be out of date; empty: unknown.
    """

    folder: Path
    frames: "tuple[int, int]"
    layers: "tuple[str, ...]"
    slots: "dict[int, str]"
    order: "tuple[str, ...]"
    backbone: str = ""
    key: str = ""


NOTHING = Result(Path(), (0, 0), (), {}, ())
"""What a node plays before anything is generated."""


def play(gizmo: Any, result: Result) -> None:
    """Make a node play a result: point its Reads at it and name the layers. One undo step."""
    told = node.declared(gizmo)
    node.follow_inputs(gizmo)
    with _at_work(gizmo), nuke.Undo(f"{gizmo.name()} result"):
        for knob, value in _knobs(gizmo, told, result).items():
            gizmo[knob].setValue(value)
        for key, name in _layers(told, result).items():
            if gizmo.node(f"Copy_{key}") is not None:
                _name_layer(gizmo, key, name)
        _spell_outputs(gizmo, told, result)
        _order_layers(gizmo, told, result)
        _reload(gizmo)


@contextlib.contextmanager
def _at_work(gizmo: Any) -> "Iterator[None]":
    name = str(gizmo.fullName())
    _SET_NOW.append(name)
    try:
        yield
    finally:
        _SET_NOW.remove(name)


def is_set_now(gizmo: Any) -> bool:
    """Tell whether a node is just made to play a result, so that its folder need not be followed.

    Nuke calls back for every knob that is set. Main thread only.
    """
    return str(gizmo.fullName()) in _SET_NOW


def is_played(gizmo: Any, result: Result) -> bool:
    """Tell whether a node plays that result already, wherever its folder is spelt from."""
    told = node.declared(gizmo)
    wanted = _knobs(gizmo, told, result)
    wanted.pop("gc_folder")
    knobs_are = all(gizmo[knob].value() == value for knob, value in wanted.items())
    return knobs_are and _stacked(gizmo) in ([], _stacking(told, result))


def _knobs(gizmo: Any, told: Declaration, result: Result) -> "dict[str, Any]":
    """Return the knobs that make a node play a result; an older node may lack some.

    The folder is the last: whoever follows it finds all others as they will be.
    """
    names = result.slots.values()
    wanted: dict[str, Any] = {
        "gc_result_first": result.frames[0],
        "gc_result_last": result.frames[1],
        "gc_backbone": result.backbone,
        "gc_key": result.key,
        "gc_has_split": any(name + OBJECT_SUFFIX in result.layers for name in names),
    }
    for key, name in _layers(told, result).items():
        # gc_has1 is of the layer that is called as its object.
        stem = "" if key.isdigit() else "_"
        wanted[f"gc_has{stem}{key}"] = bool(name)
        wanted[f"gc_layer{stem}{key}"] = name
    wanted["gc_folder"] = spell_folder(result.folder) if result.layers else ""
    known = gizmo.knobs()
    return {knob: value for knob, value in wanted.items() if knob in known}


def _layers(told: Declaration, result: Result) -> "dict[str, str]":
    """Return the layer's name in the result by the key of its inner nodes; empty for none."""
    found = {}
    for layer in told.layers:
        for slot in told.slots if STAR in layer else (0,):
            name = layer
            if slot:
                name = layer_of(layer, result.slots[slot]) if slot in result.slots else ""
            found[key_of(layer, slot)] = name if name in result.layers else ""
    return found


def _name_layer(gizmo: Any, key: str, layer: str) -> None:
    """Let the inner Copy of one Read fill the channels of ``layer``, or none."""
    if layer and layer not in nuke.layers():
        nuke.Layer(layer, [f"{layer}.{part}" for part in _RGBA])
    copy = gizmo.node(f"Copy_{key}")
    for index, part in enumerate(_RGBA):
        copy[f"to{index}"].setValue(f"{layer}.{part}" if layer else "none")


def _spell_outputs(gizmo: Any, told: Declaration, result: Result) -> None:
    """Let the output menu say the objects' names; places in the menu never move."""
    knob = gizmo["gc_output"]
    chosen = int(knob.getValue())
    names: list[str] = []
    for output in told.outputs:
        if STAR in output:
            names += [_output_of(output, slot, result) for slot in told.slots]
        elif output in (PLATE_OUTPUT, RECOMPOSED) or f"gc_has_{output}" in gizmo.knobs():
            names.append(output)
    knob.setValues(names)
    knob.setValue(chosen)


def _output_of(output: str, slot: int, result: Result) -> str:
    if slot not in result.slots:
        return placeholder(output, slot)
    return layer_of(output, result.slots[slot])


def _order_layers(gizmo: Any, told: Declaration, result: Result) -> None:
    """Put the inner overs into the order of the layers, front first, for ``recomposed``."""
    if RECOMPOSED not in told.outputs:
        return
    beneath = gizmo.node(f"Layer_{BACKGROUND}")
    for slot in reversed(_stacking(told, result)):
        over = gizmo.node(f"{_OVER}{slot}")
        over.setInput(0, beneath)
        beneath = over
    gizmo.node(_TOP).setInput(0, beneath)


def _stacking(told: Declaration, result: Result) -> "list[int]":
    """Return the pipes' numbers as their objects lie, front first; those without one come last."""
    place = {name: slot for slot, name in result.slots.items()}
    front = [place[name] for name in result.order]
    return front + [slot for slot in told.slots if slot not in front]


def _stacked(gizmo: Any) -> "list[int]":
    """Return the order that the inner overs have now; none where the node has none."""
    found: list[int] = []
    top = gizmo.node(_TOP)
    over = None if top is None else top.input(0)
    while over is not None and over.name().startswith(_OVER):
        found.append(int(over.name()[len(_OVER) :]))
        over = over.input(0)
    return found


def _reload(gizmo: Any) -> None:
    for inner in gizmo.nodes():
        if inner.Class() == "Read":
            inner["reload"].execute()


def spell_folder(folder: Path) -> str:
    """Spell a folder beside the script relative to it, so that both can be moved together."""
    script = nuke.root().name()
    plain = folder.as_posix()
    if not script or script == "Root" or any(letter in plain for letter in "[]$\\"):
        return plain
    here = Path(script).parent.as_posix()
    return _SCRIPT_FOLDER + plain[len(here) :] if plain.startswith(here + "/") else plain


def result_folder(gizmo: Any) -> Optional[Path]:
    """Return the folder of the result that a node plays, or None."""
    text = str(gizmo["gc_folder"].evaluate() or "")
    return Path(opened(text)) if text else None
