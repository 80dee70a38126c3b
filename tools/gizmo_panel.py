# SPDX-License-Identifier: Apache-2.0
"""The panel of a gizmo as lines of Tcl: tabs, knobs, and what the node says of itself.

What all gizmos share is taken word for word from an example, as is every knob that is there in the
same form, since its tooltip was written by hand.
"""

import re
from pathlib import Path
from typing import Any

from gizmo_source import (
    Panel,
    camel,
    is_starred,
    keys_of,
    over_of,
    slots_of,
)

from gencomp_nuke.declared import STAR, PipeSpec, key_of
from gencomp_protocol.layers import PLATE, RESULT
from gencomp_server.contract import declared_inputs, schema

_LAST_TABS = ("Delivery", "Model", "Speed")
_SAMPLING = ("seed", "exposure")
_TABS = {
    "Model": "Which video model, and how it is asked.",
    "Element": "What an element is made of, and when it plays. A knob that is text may say another "
    "thing of each, by its name: plane: 1001 | bird: 1010.",
    "Placement": "Where an element goes, how large it is, and how far around it the plate may "
    "change. Of several elements, by name: plane: 0.4 | bird: 0.8.",
    "Continue": "From which round an edit goes on, and with what.",
}
"""Tooltips of the dividers on tabs that a system has of its own."""
_BUTTONS = {
    ("dynvfx", "instruction"): (
        "assist",
        "write the texts",
        "Let your assistant write the four texts above from the instruction and three frames. It "
        "shows which frames and words would leave, and to which host, and sends nothing before "
        "you agree. Off until the settings name an assistant and allow the network.",
    ),
}
"""Buttons of one system, by the knob they stand under: their action, label and tooltip."""
_ON_SEVERAL_LINES = ("prompt", "source_prompt", "continue_prompt")
_CHOICES = re.compile(r" M (\{.*?\})")
_KNOB = re.compile(r" addUserKnob \{(\d+) (\w+)")


def quoted(text: str) -> str:
    """Return a text as one word of Tcl that its list parser gives back unchanged."""
    if re.fullmatch(r"[A-Za-z0-9_.+-]+", text):
        return text
    return '"' + re.sub(r'([\\"\[\]{}$])', r"\\\1", text).replace("\n", "\\n") + '"'


def user_knob(code: int, name: str, *, label: str = "", tip: str = "", more: str = "") -> str:
    """Return the line that adds a knob."""
    words = [f"{code} {name}"]
    words += [f"l {quoted(label)}"] if label else []
    words += [f"t {quoted(tip)}"] if tip else []
    return f" addUserKnob {{{' '.join([*words, *([more] if more else [])])}}}"


class Example:
    """The gizmo that others are like: its lines by knob, and those before the first.

    Args:
        path: The gizmo's file.
    """

    def __init__(self, path: Path) -> None:
        self.lines: dict[str, list[str]] = {}
        self.head: list[str] = []
        found = self.head
        for line in path.read_text(encoding="utf-8").splitlines():
            match = _KNOB.match(line)
            if match:
                found = self.lines.setdefault(match.group(2), [])
            elif line.startswith("}"):
                break
            found.append(line)

    def knobs(self, *names: str) -> list[str]:
        """Return the lines of knobs, as they are."""
        return [line for name in names for line in self.lines[name]]

    def between(self, first: str, last: str) -> list[str]:
        """Return the lines from one knob up to, and without, another."""
        names = list(self.lines)
        return self.knobs(*names[names.index(first) : names.index(last)])


def knob_lines(panel: Panel, knob: dict[str, Any], like: Example) -> list[str]:
    """Return the lines of one knob that is sent: the example's where it has the very same."""
    beside = [e.name for e in declared_inputs(panel.system) if e.channel_knob == knob["name"]]
    if any(word.split("=")[0] == knob["name"] for word in panel.coordinates.split()):
        knob = {**knob, "doc": f"{knob['doc']} Counted as Nuke counts: y runs up."}
    if beside:
        knob = {**knob, "doc": f"{knob['doc']} It serves gencomp run; connect {camel(beside[0])}."}
    made = _plain_knob(knob, more=["+INVISIBLE"] if beside else [])
    known = like.lines.get(knob["name"])
    if known and knob["name"] == "backbone":  # Each system has its own, and all the same words.
        known = [_CHOICES.sub(lambda _: _CHOICES.search(made[0])[0], known[0]), *known[1:]]
    if known and _form(known) == _form(made):
        return known
    return made


def _form(lines: list[str]) -> tuple[str, ...]:
    """Return what of a knob is compared with the server: kind, range, choices and default."""
    head = lines[0]
    kind = head.split("{")[1].split()[0]
    reach = re.search(r" R (\S+ [^\s}]+)", head)
    choices = _CHOICES.search(head)
    return (kind, *(m.group(1) if m else "" for m in (reach, choices)), *lines[1:])


def _plain_knob(knob: dict[str, Any], more: list[str]) -> list[str]:
    name, default = knob["name"], knob["default"]
    code = 4 if knob["choices"] else {"bool": 6, "int": 3, "float": 7, "str": 1}[knob["type"]]
    code = 43 if name in _ON_SEVERAL_LINES else code
    tip = knob["doc"]
    if knob["choices"]:
        more = ["M {" + " ".join(quoted(choice) for choice in knob["choices"]) + "}", *more]
    elif code == 6:
        more = ["+STARTLINE", *more]
    elif knob["lo"] is not None:
        ends = f"{knob['lo']:.10g}", f"{knob['hi']:.10g}"
        more = [f"R {ends[0]} {ends[1]}", *more]
        tip += (
            "" if re.search(rf"\bto {re.escape(ends[1])}\b", tip) else f" {ends[0]} to {ends[1]}."
        )
    label = knob["label"] or name.replace("_", " ")
    value = str(default).lower() if code == 6 else f"{default:.10g}" if code in (3, 7) else default
    head = user_knob(code, name, label=label, tip=tip, more=" ".join(more))
    return [head, f" {name} {quoted(value) if value else chr(34) * 2}"]


def panel_lines(panel: Panel, like: Example) -> list[str]:
    """Return the Group's own knobs."""
    knobs = schema(panel.system)["knobs"]
    tabs = list(dict.fromkeys(k["tab"] for k in knobs if k["tab"] not in ("Main", *_LAST_TABS)))
    hint = f"Connect {panel.connect or _spell_needs(panel)}, then press Generate."
    lines = [f" name {panel.name}1", f" help {quoted(_help(panel))}", *_callbacks(like)]
    lines += like.knobs("gc_tab_main")
    status = like.knobs("gc_status")[0]
    lines.append(re.sub(r' T ".*?"', lambda _: f" T {quoted(hint)}", status))
    lines += like.knobs("gc_generate", "gc_cancel")
    lines += _output_lines(panel)
    tip = "What the server is asked for."
    lines.append(user_knob(26, "gc_divider_system", label=panel.system.title, tip=tip))
    for knob in knobs:
        if knob["tab"] == "Main" and knob["name"] not in _SAMPLING:
            lines += knob_lines(panel, knob, like)
            lines += _button_lines(panel, knob["name"], like)
    lines += _input_lines(panel, like)
    lines += like.between("gc_divider_frames", "gc_tab_delivery")
    for tab in [*tabs, *_LAST_TABS]:
        lines += _tab_lines(panel, tab, [k for k in knobs if k["tab"] == tab], like)
    lines += like.between("gc_tab_cache", "gc_tab_about")
    return lines + _about_lines(panel, like, hint)


def _button_lines(panel: Panel, knob: str, like: Example) -> list[str]:
    """Return the button that stands under a knob; none for most."""
    button = _BUTTONS.get((panel.system.name, knob))
    if button is None:
        return []
    name, label, tip = button
    line = like.knobs("gc_generate")[0].replace("callbacks.generate(", f"callbacks.{name}(")
    line = re.sub(r" l \S+ t \".*?\" T ", lambda _: f" l {quoted(label)} t {quoted(tip)} T ", line)
    return [line.replace("{22 gc_generate", f"{{22 gc_{name}")]


def _callbacks(like: Example) -> list[str]:
    wanted = (" label ", " knobChanged ", " onCreate ")
    return [line for line in like.head if line.startswith(wanted)]


def _spell_needs(panel: Panel) -> str:
    rules = [rule.strip() for rule in panel.needs.split(",") if rule.strip()]
    return " and ".join(rule.replace(" + ", " and ").replace(" | ", ", or ") for rule in rules)


def _help(panel: Panel) -> str:
    spare = [entry.name for entry in declared_inputs(panel.system) if entry.optional]
    may = sorted({camel(name.removesuffix(".*")) for name in spare}, key=str.lower)
    return (
        f"{panel.system.doc}\nExpects {_spell_needs(panel)}, scene-linear, premultiplied where "
        f"there is an alpha; may use {', '.join(may)}. Press Generate; the layers are then in the "
        "stream as name.rgba, read from disk, also without a server."
    )


def _output_lines(panel: Panel) -> list[str]:
    names = [PLATE]
    slots = slots_of(panel)
    for layer in panel.layers:
        names += [key_of(layer.name, slot) for slot in slots] if is_starred(layer) else [layer.name]
    tip = (
        "What RGBA carries. Whatever is chosen, every layer is in the stream under its own name. "
        "plate: the input, untouched. "
        + " ".join(f"{one.name.replace(STAR, 'NAME')}: {_first(one.doc)}" for one in panel.layers)
        + " What has not been generated shows the plate."
    )
    usual = RESULT if RESULT in names else names[0]
    head = user_knob(4, "gc_output", label="output", tip=tip, more=f"M {{{' '.join(names)}}}")
    return [head, f" gc_output {usual}"]


def _first(doc: str) -> str:
    """Return a sentence as it goes on after a colon."""
    return doc[:1].lower() + doc[1:] if doc[1:2] in " " or doc[1:2].islower() else doc


def _input_lines(panel: Panel, like: Example) -> list[str]:
    tip = "Names and channels of what is connected."
    lines = [user_knob(26, "gc_divider_inputs", label="Inputs", tip=tip, more="")]
    docs = {entry.name: entry.doc for entry in declared_inputs(panel.system)}
    for pipe in panel.pipes:
        if pipe.is_family and (pipe.bare or (pipe.kind == "matte" and not pipe.like)):
            lines += _name_lines(pipe)
        if pipe.kind in ("matte", "data"):
            name = f"gc_channel_{pipe.folder}"
            alone = pipe.input.replace(".*", "")  # One element's words fit one pipe of several.
            tip = f"Channel of pipe {pipe.pipe}: {_first(docs.get(alone, docs[pipe.input]))}"
            link = f"T {pipe.pipe}_channel.from0 +STARTLINE"
            lines.append(user_knob(41, name, label=f"{pipe.pipe} channel", tip=tip, more=link))
    return lines


def _name_lines(pipe: PipeSpec) -> list[str]:
    tip = (
        f"Name of what is connected to {pipe.pipe}; its layers are called so. A letter first, then "
        "letters, digits or _, at most 32. Pipes are in order from back to front."
    )
    if pipe.bare:
        tip += f" Empty: alone it needs none, beside others it is {pipe.folder}."
    head = user_knob(1, f"gc_name{pipe.slot}", label=f"{pipe.pipe} name", tip=tip)
    return [head, f" gc_name{pipe.slot} {quoted('' if pipe.bare else f'object{pipe.slot}')}"]


def _tab_lines(panel: Panel, tab: str, knobs: list[dict[str, Any]], like: Example) -> list[str]:
    key = re.sub(r"\W+", "_", tab.lower())
    if not knobs:
        return []
    if f"gc_tab_{key}" in like.lines and key != "model":
        lines = like.knobs(f"gc_tab_{key}", f"gc_divider_{key}")
    else:
        lines = [f" addUserKnob {{20 gc_tab_{key} l {quoted(tab)}}}"]
        label = "Video model" if tab == "Model" else tab
        tip = _TABS.get(tab, f"{tab}: each knob says what it does and how it is written.")
        lines.append(user_knob(26, f"gc_divider_{key}", label=label, tip=tip))
    for knob in knobs:
        lines += knob_lines(panel, knob, like)
    return lines


def _about_lines(panel: Panel, like: Example, hint: str) -> list[str]:
    version = like.knobs("gc_version")[0].replace("Omnimatte", panel.name)
    about = like.knobs("gc_about")[0]
    about = re.sub(r' T ".*?\\n', lambda _: f' T "{quoted(panel.after).strip(chr(34))}\\n', about)
    sent = " ".join(knob["name"] for knob in schema(panel.system)["knobs"])
    told = {
        "gc_system": panel.system.name,
        "gc_params": sent,
        "gc_pipes": "; ".join(spell_pipe(pipe) for pipe in panel.pipes),
        "gc_needs": panel.needs,
        "gc_layers": " ".join(layer.name for layer in panel.layers),
        "gc_outputs": " ".join([PLATE, *(layer.name for layer in panel.layers)]),
        "gc_coordinates": panel.coordinates,
        "gc_hint": hint,
    }
    lines = [*like.knobs("gc_tab_about"), version, about]
    for name in list(like.lines)[list(like.lines).index("gc_system") :]:
        if name.startswith(("gc_has", "gc_layer")) and name != "gc_layers":
            continue
        known = like.lines[name]
        lines += (
            [known[0], f" {name} {quoted(told[name]) if told[name] else chr(34) * 2}"]
            if (name in told)
            else known
        )
    if over_of(panel):
        tip = "Which pipe is the plate: 0, the first; 1, what is put together of the others."
        lines += [user_knob(3, "gc_lead", tip=tip, more="+INVISIBLE"), " gc_lead 0"]
    for key, layer in keys_of(panel):
        tip = f"The result has {layer.name}."
        lines += [user_knob(6, f"gc_has_{key}", tip=tip, more="+INVISIBLE"), f" gc_has_{key} false"]
        if is_starred(layer):
            tip = f"Name of the layer {layer.name} of that pipe in the result."
            lines += [user_knob(1, f"gc_layer_{key}", tip=tip, more="+INVISIBLE")]
            lines += [f' gc_layer_{key} ""']
    return lines


def spell_pipe(pipe: PipeSpec) -> str:
    """Return one pipe as ``gc_pipes`` has it."""
    words = [pipe.pipe, pipe.input, pipe.kind]
    flags = (("lead", pipe.is_lead), ("own", pipe.own), ("bare", pipe.bare))
    words += [word for word, said in flags if said]
    words += [f"like={pipe.like}"] if pipe.like else []
    return " ".join(words)
