# SPDX-License-Identifier: Apache-2.0
"""The nodes inside a gizmo as lines of Tcl: Inputs and Writes, Reads, the stream, the output menu.

A layer has ``Read_KEY``, a switch ``Layer_KEY`` that shows the plate until there is a result, and
``Copy_KEY``, which puts it into the stream under its own name.
"""

from gizmo_source import Panel, is_starred, keys_of, over_of

from gencomp_nuke.declared import PipeSpec
from gencomp_protocol.layers import LayerSpec

_PARTS = ("red", "green", "blue", "alpha")


def node_lines(cls: str, x: int, y: int, name: str, *knobs: str) -> list[str]:
    """Return one inner node."""
    return [
        f" {cls} {{",
        *(f"  {knob}" for knob in knobs),
        f"  name {name}",
        f"  xpos {x}",
        f"  ypos {y}",
        " }",
    ]


def _pipe_lines(pipe: PipeSpec, number: int) -> list[str]:
    x = number * 200
    lines = node_lines(
        "Input", x, -600, pipe.pipe, "inputs 0", *([f"number {number}"] * (number > 0))
    )
    lines.append(f"set {pipe.pipe} [stack 0]")
    channels, depth = {"rgb": "rgb", "rgba": "rgba"}.get(pipe.kind, "alpha"), "{{parent.gc_depth}}"
    if channels == "alpha":
        depth = '"32 bit float"'
        source = "depth.Z" if pipe.kind == "data" else "rgba.alpha"
        copy = ("inputs 2", f"from0 {source}", "to0 rgba.alpha")
        lines.append(f"push ${pipe.pipe}")
        lines += node_lines("Copy", x, -540, f"{pipe.pipe}_channel", *copy)
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


def _copy_words(alpha_only: bool, target: str) -> list[str]:
    words = ["inputs 2"]
    for index, part in enumerate(_PARTS):
        to = f"rgba.{part}" if target == "rgba" else "none"
        words += [f"from{index} rgba.{'alpha' if alpha_only else part}", f"to{index} {to}"]
    return words


def _layer_lines(key: str, layer: LayerSpec, y: int, lead: str, stream: str) -> list[str]:
    """Return Read, switch and copy of a layer; a matte shows in all four channels."""
    name = f"\\[value parent.gc_layer_{key}]" if is_starred(layer) else key
    first, last = "{{parent.gc_result_first}}", "{{parent.gc_result_last}}"
    lines = node_lines(
        "Read",
        -440,
        y,
        f"Read_{key}",
        "inputs 0",
        f'file "\\[value parent.gc_folder]/{name}/{name}.%04d.exr"',
        "before hold",
        "after hold",
        f"first {first}",
        f"last {last}",
        f"origfirst {first}",
        f"origlast {last}",
        "origset true",
        "raw true",
        "postage_stamp false",
    )
    if layer.channels == ("A",):
        lines += [f"set R_{key} [stack 0]", f"push $R_{key}"]
        lines += node_lines("Copy", -440, y + 30, f"Matte_{key}", *_copy_words(True, "rgba"))
    lines.append(f"push ${lead}")
    which = ("inputs 2", f"which {{{{parent.gc_has_{key}}}}}")
    lines += [
        *node_lines("Switch", -220, y + 60, f"Layer_{key}", *which),
        f"set Layer_{key} [stack 0]",
    ]
    lines.append(f"push ${stream}")
    copy = [*_copy_words(False, "none"), f"disable {{{{!parent.gc_has_{key}}}}}"]
    lines += node_lines("Copy", 0, y + 60, f"Copy_{key}", *copy)
    return [*lines, f"set S_{key} [stack 0]"]


def graph_lines(panel: Panel) -> list[str]:
    """Return the nodes inside."""
    lines: list[str] = []
    for number, pipe in enumerate(panel.pipes):
        lines += _pipe_lines(pipe, number)
    lead, made = _lead_lines(panel)
    lines += made
    stream, keys, y = lead, keys_of(panel), -300
    for key, layer in keys:
        lines += _layer_lines(key, layer, y, lead, stream)
        stream, y = f"S_{key}", y + 140
    lines += [f"push $Layer_{key}" for key, _ in reversed(keys)] + [f"push ${lead}"]
    which = (f"inputs {len(keys) + 1}", "which {{parent.gc_output}}")
    lines += [*node_lines("Switch", -220, y, "Chosen", *which), f"push ${stream}"]
    copy = [*_copy_words(False, "rgba"), "disable {{parent.gc_output==0}}"]
    lines += node_lines("Copy", 0, y, "Copy_chosen", *copy)
    return [*lines, *node_lines("Output", 0, y + 80, "Output1")]
