# SPDX-License-Identifier: Apache-2.0
"""The panel of a gizmo as lines of Tcl: its tabs in order, and what the node says of itself.

What all gizmos share is taken from the template, as is every knob that stands there in the same
form, since its tooltip was written by hand.
"""

import re
from typing import Any

from gizmo_knobs import first_lowered, input_lines, is_named, knob_lines
from gizmo_lines import Example, quoted, user_knob
from gizmo_source import (
    KEYFRAMES,
    Panel,
    has_keyframes,
    is_starred,
    keys_of,
    over_of,
    slots_of,
    suffix,
)

from gencomp_nuke.declared import STAR, PipeSpec, placeholder
from gencomp_protocol.layers import EFFECT, RESULT
from gencomp_server.contract import schema

_FOLDED = ("Delivery", "Model", "Speed", "Continue")
_SAMPLING = ("seed", "quality", "exposure")
_TABS = {
    "Mask & Keyframes": "Where the mask counts. A frame is a keyframe, whose mask counts, or "
    "unknown: the model decides there.",
    "Element": "What an element is made of, and when it plays. A knob that is text may say another "
    "thing of each, by its name: plane: 1001 | bird: 1010.",
    "Placement": "Where an element goes, how large it is, and how far around it the plate may "
    "change. Of several elements, by name: plane: 0.4 | bird: 0.8.",
}
"""Tooltips of the dividers on tabs that a system has of its own."""
_BESIDE_TAB = {
    "Mask & Keyframes": ("gc_detect", "gc_key_state"),
    "Placement": ("gc_element", "gc_placing_preview"),
}
"""First and last of the template's knobs on such a tab."""
_SAYS = {"Mask & Keyframes": "gc_status_keys", "Placement": "gc_status_way"}
"""Where on it the node says how a button ended."""
_LABEL = "[value gc_output]\n[value gc_note]"
_COUNTS = (
    "[value gc_masked] && ([value mask_frames] eq {every frame}"
    " || ([value mask_frames] eq {keyframes only} && [value gc_is_key]))"
)
_TRIMASK_WORDS = (
    f" [if {{[value gc_view] eq {{trimask}}}} {{if {{{_COUNTS}}} {{format {{the mask counts}}}}"
    " {format {unknown: the model decides}}}]"
)


def panel_lines(panel: Panel, like: Example) -> list[str]:
    """Return the Group's own knobs."""
    knobs = schema(panel.system)["knobs"]
    tabs = list(dict.fromkeys(k["tab"] for k in knobs if k["tab"] not in ("Main", *_FOLDED)))
    lines = [f" name {panel.name}1", f" help {quoted(_help(panel))}"]
    lines += [*_callbacks(panel, like), f" icon {panel.name}.png", *_main_lines(panel, knobs, like)]
    for tab in sorted(tabs, key=lambda tab: tab not in _BESIDE_TAB):
        lines += _tab_lines(panel, tab, [k for k in knobs if k["tab"] == tab], like)
    lines += _layer_lines(panel)
    lines += like.between("gc_tab_takes", "gc_tab_advanced")
    lines += like.knobs("gc_tab_advanced")
    for group in _FOLDED:
        lines += _group_lines(panel, group, [k for k in knobs if k["tab"] == group], like)
    return lines + _about_lines(panel, like)


def _callbacks(panel: Panel, like: Example) -> list[str]:
    """Return label and callbacks; with keyframes, the label says in words what a frame is."""
    lines = [line for line in like.head if line.startswith((" knobChanged ", " onCreate "))]
    told = _TRIMASK_WORDS if has_keyframes(panel) else ""
    return [f" label {quoted(_LABEL + told)}", *lines]


def _hint(panel: Panel) -> str:
    return f"Connect {panel.connect or _spell_needs(panel)}, then press Generate."


def _spell_needs(panel: Panel) -> str:
    rules = [rule.strip() for rule in panel.needs.split(",") if rule.strip()]
    return " and ".join(rule.replace(" + ", " and ").replace(" | ", ", or ") for rule in rules)


def _help(panel: Panel) -> str:
    spare = [entry.name for entry in panel.inputs if entry.optional]
    may = sorted({_name_of(name) for name in spare}, key=str.lower)
    expects = panel.extra.help or (
        f"Expects {_spell_needs(panel)}, scene-linear, premultiplied where there is an alpha; may "
        f"use {', '.join(may)}."
    )
    return (
        f"{panel.system.doc}\n{expects} Press Generate; the layers are then in the "
        "stream as name.rgba, read from disk, also without a server."
    )


def _name_of(name: str) -> str:
    """Return an input's name as help has it: ``fg.*`` is ``Fg``."""
    return "".join(word.capitalize() for word in name.removesuffix(".*").split("_"))


# --- tabs ----------------------------------------------------------------------------------------


def _main_lines(panel: Panel, knobs: list[dict[str, Any]], like: Example) -> list[str]:
    lines = [" addUserKnob {20 gc_tab_main l Main}", *like.filled("gc_status", HINT=_hint(panel))]
    lines += like.between("gc_generate", "gc_view")
    lines += _output_lines(panel)
    view = like.knobs("gc_view")
    if has_keyframes(panel):
        words = " trimask: the mask's three classes over the plate, and what the frame is."
        view[0] = view[0].replace("{output compare ", "{output trimask compare ")
        view[0] = view[0].replace(" compare: ", f"{words} compare: ", 1)
    lines += [*view, *(like.knobs("gc_live") if panel.is_live else []), *like.knobs("gc_mix")]
    tip = "What the server is asked for."
    lines.append(user_knob(26, "gc_divider_system", label=panel.system.title, tip=tip))
    for knob in knobs:
        if knob["tab"] == "Main" and knob["name"] not in _SAMPLING:
            lines += knob_lines(panel, knob, like)
    lines += input_lines(panel, like)
    return lines + like.between("gc_divider_frames", "gc_detect")


def _output_lines(panel: Panel) -> list[str]:
    docs = {layer.name: layer.doc for layer in panel.layers}
    names: list[str] = []
    for output in panel.outputs:
        slots = slots_of(panel) if STAR in output else [0]
        names += [placeholder(output, slot) if slot else output for slot in slots]
    tip = (
        "What RGBA carries. Whatever is chosen, every layer is in the stream under its own name. "
        "plate: the input, untouched. "
        + " ".join(
            f"{one.replace(STAR, 'NAME')}: {first_lowered(docs[one])}"
            for one in panel.outputs
            if one in docs
        )
        + (" recomposed: over of all layers." if "recomposed" in panel.outputs else "")
        + " What has not been generated shows the plate."
    )
    usual = panel.extra.usual or (RESULT if RESULT in names else names[0])
    head = user_knob(4, "gc_output", label="output", tip=tip, more=f"M {{{' '.join(names)}}}")
    return [head, f" gc_output {usual}"]


def _tab_lines(panel: Panel, tab: str, knobs: list[dict[str, Any]], like: Example) -> list[str]:
    key = re.sub(r"\W+", "_", tab.lower())
    lines = [f" addUserKnob {{20 gc_tab_{key} l {quoted(tab)}}}"]
    tip = _TABS.get(tab, f"{tab}: each knob says what it does and how it is written.")
    lines.append(user_knob(26, f"gc_divider_{key}", label=tab, tip=tip))
    for knob in knobs:
        lines += knob_lines(panel, knob, like)
        if knob["name"] == KEYFRAMES or (tab == "Placement" and knob["name"] == "trajectory"):
            first, last = _BESIDE_TAB[tab]
            lines += [*like.between(first, last), *like.knobs(last)]
    return [*lines, *(like.knobs(_SAYS[tab]) if tab in _SAYS else [])]


def _layer_lines(panel: Panel) -> list[str]:
    """Return the tab of adjustments: a closed group for each layer."""
    tip = "What is done to a layer after it was read from disk. As it stands nothing is changed."
    lines = [" addUserKnob {20 gc_tab_layers l Layers}"]
    lines.append(user_knob(26, "gc_divider_layers", label="Adjust", tip=tip))
    for key, layer in panel.adjusted:
        label = layer.name
        if is_starred(layer):  # element_* of pipe 2 is element 2, an object's own object 2.
            stem = layer.name.replace(STAR, "").strip("_") or "object"
            label = f"{stem} {key.rpartition('_')[2]}"
        lines.append(f" addUserKnob {{20 gc_group_layer_{key} l {quoted(label)} n 2}}")
        lines += _adjustments(key, label)
        if key == EFFECT:
            lines += _shadow_and_light()
        lines.append(f" addUserKnob {{20 gc_group_layer_{key}_end l endGroup n -1}}")
    return lines


def _adjustments(key: str, label: str) -> list[str]:
    made = (
        (7, "density", "1", "R 0 2", "How dense it is: 0 is gone, 1 as it is. 0 to 2."),
        (18, "tint", "{1 1 1}", "", "Factor of its colour; its alpha stays."),
        (7, "blur", "0", "R 0 100", "Blur, in pixels. 0 to 100."),
        (
            3,
            "edge",
            "0",
            "R -20 20",
            "Whole pixels by which it is grown, or shrunk below 0. -20 to 20.",
        ),
        (12, "offset", "{0 0}", "", "Where it is moved to, in pixels; y runs up."),
    )
    lines = []
    for code, name, value, more, tip in made:
        words = f"{label}: {first_lowered(tip)}"
        lines.append(user_knob(code, f"gc_{name}_{key}", label=name, tip=words, more=more))
        lines.append(f" gc_{name}_{key} {value}")
    return lines


def _shadow_and_light() -> list[str]:
    lines = []
    for name, what in (("shadow", "darker"), ("light", "brighter")):
        tip = f"How much of what makes the plate {what}, each channel by itself. 0 to 2."
        lines += [user_knob(7, f"gc_{name}", label=name, tip=tip, more="R 0 2"), f" gc_{name} 1"]
    return lines


def _group_lines(panel: Panel, group: str, knobs: list[dict[str, Any]], like: Example) -> list[str]:
    knobs = [knob for knob in knobs if knob["name"] not in _SAMPLING]
    if not knobs:
        return []
    key = group.lower()
    lines = [*like.knobs(f"gc_group_{key}"), *like.lines.get(f"gc_divider_{key}", [])]
    for knob in knobs:
        lines += knob_lines(panel, knob, like)
    return lines + like.knobs(f"gc_group_{key}_end")


# --- what the node says of itself ----------------------------------------------------------------


def _about_lines(panel: Panel, like: Example) -> list[str]:
    told = {
        "gc_system": panel.system.name,
        "gc_params": " ".join(knob["name"] for knob in schema(panel.system)["knobs"]),
        "gc_pipes": "; ".join(spell_pipe(pipe) for pipe in panel.pipes),
        "gc_needs": panel.needs,
        "gc_layers": " ".join(layer.name for layer in panel.layers),
        "gc_outputs": " ".join(panel.outputs),
        "gc_coordinates": panel.coordinates,
        "gc_hint": _hint(panel),
    }
    lines = [*like.knobs("gc_tab_about"), *like.filled("gc_version", NAME=panel.name)]
    lines += [*like.filled("gc_about", AFTER=panel.after), *like.knobs("gc_example")]
    lines += like.knobs("gc_help", "gc_status_about")
    names = list(like.lines)
    for name in names[names.index("gc_system") : names.index("gc_result_last") + 1]:
        known = like.lines[name]
        value = quoted(told[name]) if told.get(name) else '""'
        lines += [known[0], f" {name} {value}"] if name in told else known
    if has_keyframes(panel):
        tip = "A mask, or one of what is unknown, is connected; the view trimask asks."
        for name in ("gc_masked", "gc_unknown_masked"):
            lines += [user_knob(6, name, tip=tip, more="+INVISIBLE"), f" {name} false"]
    if any(is_named(pipe) and not pipe.bare for pipe in panel.pipes):
        tip = (
            "Names that the node took from what is connected, by pipe; one that differs was typed."
        )
        lines += [user_knob(1, "gc_auto_names", tip=tip, more="+INVISIBLE"), ' gc_auto_names ""']
    if over_of(panel):
        tip = "Which pipe is the plate: 0, the first; 1, what is put together of the others."
        lines += [user_knob(3, "gc_lead", tip=tip, more="+INVISIBLE"), " gc_lead 0"]
    for key, layer in keys_of(panel):
        has, named = f"gc_has{suffix(key)}", f"gc_layer{suffix(key)}"
        tip = f"The result has {layer.name}."
        lines += [user_knob(6, has, tip=tip, more="+INVISIBLE"), f" {has} false"]
        if is_starred(layer):
            tip = f"Name of the layer {layer.name} of that pipe in the result."
            lines += [user_knob(1, named, tip=tip, more="+INVISIBLE"), f' {named} ""']
    return lines


def spell_pipe(pipe: PipeSpec) -> str:
    """Return one pipe as ``gc_pipes`` has it."""
    words = [pipe.pipe, pipe.input, pipe.kind]
    flags = (("lead", pipe.is_lead), ("own", pipe.own), ("bare", pipe.bare))
    words += [word for word, said in flags if said]
    words += [f"like={pipe.like}"] if pipe.like else []
    words += [f"stills={pipe.stills}"] if pipe.stills else []
    return " ".join(words)
