# SPDX-License-Identifier: Apache-2.0
"""The nodes inside a gizmo as lines of Tcl: Inputs, Writes, Reads, the stream, the output menu.

A layer has ``Read_KEY``, what adjusts it, a switch ``Layer_KEY`` that shows the plate until there
is a result, and ``Copy_KEY``, which puts it into the stream under its own name.
"""

from gizmo_knobs import invert_knob
from gizmo_lines import node_lines
from gizmo_live import (
    RANGE_WORDS,
    adjusted_lines,
    effect_lines,
    live_lines,
    recomposed_lines,
    result_lines,
    view_lines,
)
from gizmo_source import Panel, is_starred, keys_of, over_of, slots_of, suffix

from gencomp_nuke.declared import RECOMPOSED, STAR, PipeSpec, key_of
from gencomp_protocol.layers import EFFECT, PLATE, RESULT, LayerSpec

_PARTS = ("red", "green", "blue", "alpha")


def _pipe_lines(pipe: PipeSpec, number: int) -> list[str]:
    """Return the Input of a pipe and its Write.

    Of a family the first pipe alone has an Input: the others get theirs when an artist connects
    the one before.
    """
    x = number * 200
    variable = f"${pipe.pipe}" if pipe.slot <= 1 else "0"
    lines: list[str] = []
    if pipe.slot <= 1:
        words = ["inputs 0", *([f"number {number}"] * (number > 0))]
        lines = [*node_lines("Input", x, -600, pipe.pipe, *words), f"set {pipe.pipe} [stack 0]"]
    lines.append(f"push {variable}")
    channels, depth = {"rgb": "rgb", "rgba": "rgba"}.get(pipe.kind, "alpha"), "{{parent.gc_depth}}"
    if channels == "alpha":
        depth = '"32 bit float"'
        source = "depth.Z" if pipe.kind == "data" else "rgba.alpha"
        copy = ("inputs 2", f"from0 {source}", "to0 rgba.alpha")
        lines.append(f"push {variable}")
        lines += node_lines("Copy", x, -540, f"{pipe.pipe}_channel", *copy)
        lines += _inverted_lines(pipe, x) if pipe.kind == "matte" else []
        lines.append(f"set {pipe.pipe}_channel [stack 0]")
    path = f"\\[value parent.gc_export]/{pipe.folder}/{pipe.folder}.%04d.exr"
    return lines + node_lines(
        "Write",
        x,
        -500,
        f"Write_{pipe.folder}",
        f"channels {channels}",
        f'file "{path}"',
        "raw true",
        "file_type exr",
        f"datatype {depth}",
        'compression "Zip (1 scanline)"',
        "create_directories true",
        "checkHashOnRead false",
        "disable {{!parent.gc_rendering}}",
    )


def _inverted_lines(pipe: PipeSpec, x: int) -> list[str]:
    """Return what inverts a matte over its whole format, also where no box of it reaches."""
    off = f"disable {{{{!parent.{invert_knob(pipe)}}}}}"
    box = "box {0 0 {input.width} {input.height}}"
    lines = node_lines("Crop", x, -530, f"{pipe.pipe}_whole", box, off)
    return lines + node_lines("Invert", x, -520, f"{pipe.pipe}_inverted", "channels alpha", off)


def _lead_lines(panel: Panel) -> tuple[str, list[str]]:
    """Return the variable that holds the plate, and the nodes that make it of several pipes."""
    over = over_of(panel)
    first = next(pipe.pipe for pipe in panel.pipes if pipe.is_lead)
    if over is None:
        return first, []
    lines = [f"push ${over[0]}", f"push ${over[1]}"]
    lines += node_lines("Merge2", -700, -420, "Put_together", "inputs 2")
    lines += [f"push ${first}"]
    which = ("inputs 2", "which {{parent.gc_lead}}")
    lines += node_lines("Switch", -220, -400, "Lead", *which)
    return "Lead", [*lines, "set Lead [stack 0]"]


def _read_lines(key: str, layer: LayerSpec, y: int) -> list[str]:
    """Return the Read of a layer; a matte shows in all four channels."""
    name = f"\\[value parent.gc_layer{suffix(key)}]" if is_starred(layer) else key
    lines = node_lines(
        "Read",
        -440,
        y,
        f"Read_{key}",
        "inputs 0",
        f'file "\\[value parent.gc_folder]/{name}/{name}.%04d.exr"',
        *RANGE_WORDS,
        "on_error {{parent.gc_missing==2?3:parent.gc_missing}}",
        "raw true",
        "postage_stamp false",
    )
    if layer.channels == ("A",):
        lines += [f"set R_{key} [stack 0]", f"push $R_{key}"]
        lines += node_lines("Copy", -440, y + 30, f"Matte_{key}", *_copy_words(True, "rgba"))
    return [*lines, f"set R_{key} [stack 0]"]


def _played_lines(panel: Panel, lead: str, y: int) -> tuple[list[str], int]:
    """Return every layer as it is played: read and, where it has knobs for that, adjusted."""
    lines, keys = [], keys_of(panel)
    adjusted = {key for key, _ in panel.adjusted}
    for place, (key, layer) in enumerate(keys):
        lines += _read_lines(key, layer, y + 140 * place)
        if key in adjusted and key != EFFECT:
            lines += adjusted_lines(key, y + 140 * place)
        lines.append(f"set P_{key} [stack 0]")
    if EFFECT in adjusted:
        lines += [f"push $R_{EFFECT}", *effect_lines(panel, lead, y)]
        lines.append(f"set P_{EFFECT} [stack 0]")
    return lines, y + 140 * len(keys)


def _switch_lines(panel: Panel, key: str, lead: str, y: int) -> list[str]:
    """Return the switch of a layer, which shows the plate until there is a result."""
    if key == RESULT and panel.is_live:
        return result_lines(lead, y)
    which = ("inputs 2", f"which {{{{parent.gc_has{suffix(key)}}}}}")
    return [
        f"push $P_{key}",
        f"push ${lead}",
        *node_lines("Switch", -220, y, f"Layer_{key}", *which),
    ]


def graph_lines(panel: Panel) -> list[str]:
    """Return the nodes inside."""
    lines: list[str] = []
    for number, pipe in enumerate(panel.pipes):
        lines += _pipe_lines(pipe, number)
    lead, made = _lead_lines(panel)
    played, y = _played_lines(panel, lead, -300)
    lines += [*made, *played, *(live_lines(lead, y) if panel.is_live else [])]
    stream = lead
    for key, _ in keys_of(panel):
        lines += [*_switch_lines(panel, key, lead, y), f"set Layer_{key} [stack 0]"]
        copy = [*_copy_words(False, "none"), f"disable {{{{!parent.gc_has{suffix(key)}}}}}"]
        lines += [f"push ${stream}", *node_lines("Copy", 0, y, f"Copy_{key}", *copy)]
        lines.append(f"set S_{key} [stack 0]")
        stream, y = f"S_{key}", y + 60
    if RECOMPOSED in panel.outputs:
        y += 60 * len(slots_of(panel))
        lines += recomposed_lines(panel, y)
    shown = [_shown(output, slot) for output, slot in _places(panel)]
    lines += [f"push ${name or lead}" for name in reversed(shown)]
    which = (f"inputs {len(shown)}", "which {{parent.gc_output}}")
    lines += [*node_lines("Switch", -220, y, "Chosen", *which), f"push ${stream}"]
    copy = [*_copy_words(False, "rgba"), "mix {{parent.gc_mix}}"]
    copy += ["disable {{parent.gc_output==0}}"]
    lines += node_lines("Copy", 0, y, "Copy_chosen", *copy)
    lines += view_lines(panel, lead, y + 60)
    return [*lines, *node_lines("Output", 0, y + 480, "Output1")]


def _places(panel: Panel) -> list[tuple[str, int]]:
    """Return the output menu's places: the output, and the slot of an object's."""
    return [
        (output, slot)
        for output in panel.outputs
        for slot in (slots_of(panel) if STAR in output else [0])
    ]


def _shown(output: str, slot: int) -> str:
    """Return the variable of what a place of the output menu shows; empty for the plate."""
    if output == PLATE:
        return ""
    return "Recomposed" if output == RECOMPOSED else f"Layer_{key_of(output, slot)}"


def _copy_words(alpha_only: bool, target: str) -> list[str]:
    words = ["inputs 2"]
    for index, part in enumerate(_PARTS):
        to = f"rgba.{part}" if target == "rgba" else "none"
        words += [f"from{index} rgba.{'alpha' if alpha_only else part}", f"to{index} {to}"]
    return words
