# SPDX-License-Identifier: Apache-2.0
"""Making a node play a result: what its inner Reads read, and the names of layers in its stream.

Everything set here is ordinary knobs that the script keeps, so that the result plays without
Python. The inner nodes of a layer are ``Read_KEY``, ``Layer_KEY`` and ``Copy_KEY``, its switch is
the knob ``gc_has_KEY``; the key is the layer's name, or holds the number of the object's pipe.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import nuke
from gencomp_nuke import node
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
_RGBA = ("red", "green", "blue", "alpha")


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
    """

    folder: Path
    frames: "tuple[int, int]"
    layers: "tuple[str, ...]"
    slots: "dict[int, str]"
    order: "tuple[str, ...]"
    backbone: str = ""


def play(gizmo: Any, result: Result) -> None:
    """Make a node play a result: point its Reads at it and name the layers. One undo step."""
    told = node.declared(gizmo)
    node.follow_inputs(gizmo)
    with nuke.Undo(f"{gizmo.name()} result"):
        gizmo["gc_folder"].setValue(_spell_folder(result.folder))
        gizmo["gc_result_first"].setValue(result.frames[0])
        gizmo["gc_result_last"].setValue(result.frames[1])
        _set_if_there(gizmo, "gc_backbone", result.backbone)
        names = result.slots.values()
        split = any(name + OBJECT_SUFFIX in result.layers for name in names)
        _set_if_there(gizmo, "gc_has_split", split)
        for layer in told.layers:
            _play_layer(gizmo, told, layer, result)
        _spell_outputs(gizmo, told, result)
        _order_layers(gizmo, told, result)
        _reload(gizmo)


def _play_layer(gizmo: Any, told: Declaration, layer: str, result: Result) -> None:
    """Switch one layer, or one of every object, on or off; an older node may lack some."""
    for slot in told.slots if STAR in layer else (0,):
        key = key_of(layer, slot)
        name = layer_of(layer, result.slots[slot]) if slot in result.slots else ""
        name = name if slot else layer
        name = name if name in result.layers else ""
        stem = "" if layer == STAR else "_"  # gc_has1 is of the layer that is called as its object.
        _set_if_there(gizmo, f"gc_has{stem}{key}", bool(name))
        if slot:
            _set_if_there(gizmo, f"gc_layer{stem}{key}", name)
        if gizmo.node(f"Copy_{key}") is not None:
            _name_layer(gizmo, key, name)


def _set_if_there(gizmo: Any, knob: str, value: Any) -> None:
    """Set a knob that not every node of ours has."""
    if knob in gizmo.knobs():
        gizmo[knob].setValue(value)


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
    place = {name: slot for slot, name in result.slots.items()}
    front = [place[name] for name in result.order]
    rest = [slot for slot in told.slots if slot not in front]
    beneath = gizmo.node(f"Layer_{BACKGROUND}")
    for slot in reversed(front + rest):
        over = gizmo.node(f"Over_{slot}")
        over.setInput(0, beneath)
        beneath = over
    gizmo.node("Add_residual").setInput(0, beneath)


def _reload(gizmo: Any) -> None:
    for inner in gizmo.nodes():
        if inner.Class() == "Read":
            inner["reload"].execute()


def _spell_folder(folder: Path) -> str:
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
    return Path(text) if text else None
