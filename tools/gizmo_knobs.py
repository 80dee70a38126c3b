# SPDX-License-Identifier: Apache-2.0
"""The knobs of a panel that its system declares: what is sent, and what is connected."""

import re
from typing import Any

from gizmo_lines import Example, quoted, user_knob
from gizmo_source import Panel, camel

from gencomp_nuke.declared import PipeSpec
from gencomp_server.contract import declared_inputs

_ON_SEVERAL_LINES = ("prompt", "source_prompt", "continue_prompt")
_CHOICES = re.compile(r" M (\{.*?\})")


def knob_lines(panel: Panel, knob: dict[str, Any], like: Example) -> list[str]:
    """Return the lines of one knob that is sent: the template's where it has the very same."""
    beside = [e.name for e in declared_inputs(panel.system) if e.channel_knob == knob["name"]]
    if any(word.split("=")[0] == knob["name"] for word in panel.coordinates.split()):
        knob = {**knob, "doc": f"{knob['doc']} Counted as Nuke counts: y runs up."}
    if beside:
        knob = {**knob, "doc": f"{knob['doc']} It serves gencomp run; connect {camel(beside[0])}."}
    made = _plain_knob(knob, more=["+INVISIBLE"] if beside else [])
    known = like.lines.get(knob["name"])
    if known and knob["name"] == "backbone":  # Each system has its own, and all the same words.
        known = [_CHOICES.sub(lambda _: _CHOICES.search(made[0])[0], known[0]), *known[1:]]
    button = panel.extra.beside.get(knob["name"])
    buttons = like.knobs(button) if button else []
    return (known if known and _form(known) == _form(made) else made) + buttons


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
        shown = knob["shown"] or {}
        words = (quoted(shown.get(choice, choice)) for choice in knob["choices"])
        more = ["M {" + " ".join(words) + "}", *more]
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


def input_lines(panel: Panel, like: Example) -> list[str]:
    """Return names of what is connected, which are single pictures, and the channels of mattes.

    The channels that stand beside no name are in a closed group: most are the one that is there.
    """
    named = [pipe for pipe in panel.pipes if is_named(pipe)]
    lines = []
    if named:
        tip = "Names and channels of what is connected."
        lines.append(user_knob(26, "gc_divider_inputs", label="Inputs", tip=tip, more=""))
    for pipe in named:
        lines += _name_lines(pipe) + _channel_lines(panel, pipe)
    for pipe in panel.pipes:
        lines += like.knobs(f"{pipe.stills}_cover", f"{pipe.stills}_frames") if pipe.stills else []
    rest = sorted((p for p in panel.pipes if p not in named), key=lambda pipe: not pipe.slot)
    channels = [line for pipe in rest for line in _channel_lines(panel, pipe)]
    if channels:
        lines += [" addUserKnob {20 gc_group_channels l Channels n 2}", *channels]
        lines.append(" addUserKnob {20 gc_group_channels_end l endGroup n -1}")
    return lines


def _channel_lines(panel: Panel, pipe: PipeSpec) -> list[str]:
    """Return the knob that chooses a pipe's channel, none where it takes a picture; and invert."""
    if pipe.kind not in ("matte", "data"):
        return []
    docs = {entry.name: entry.doc for entry in declared_inputs(panel.system)}
    alone = pipe.input.replace(".*", "")  # One element's words fit one pipe of several.
    tip = f"Channel of pipe {pipe.pipe}: {first_lowered(docs.get(alone, docs[pipe.input]))}"
    beside = is_named(pipe)
    label = "channel" if beside else f"{pipe.pipe} channel"
    link = f"T {pipe.pipe}_channel.from0 {'-' if beside else '+'}STARTLINE"
    lines = [user_knob(41, channel_knob(pipe), label=label, tip=tip, more=link)]
    if pipe.kind == "matte":
        tip = (
            f"Take the matte of pipe {pipe.pipe} inverted: 1 less its channel, over the whole "
            "format. It counts in what is sent and in the views of this node."
        )
        name = invert_knob(pipe)
        lines.append(user_knob(6, name, label="invert", tip=tip, more="-STARTLINE"))
        lines.append(f" {name} false")
    return lines


def is_named(pipe: PipeSpec) -> bool:
    """Tell whether an artist types the name of what is connected to a pipe."""
    return pipe.is_family and (pipe.bare or (pipe.kind == "matte" and not pipe.like))


def channel_knob(pipe: PipeSpec) -> str:
    """Return the knob of a matte's channel: beside its name it has the pipe's number alone."""
    return f"gc_channel{pipe.slot}" if is_named(pipe) else f"gc_channel_{pipe.folder}"


def invert_knob(pipe: PipeSpec) -> str:
    """Return the knob that inverts a matte, called as that of its channel."""
    return channel_knob(pipe).replace("channel", "invert", 1)


def first_lowered(doc: str) -> str:
    """Return a sentence as it goes on after a colon."""
    return doc[:1].lower() + doc[1:] if doc[1:2] in " " or doc[1:2].islower() else doc


def _name_lines(pipe: PipeSpec) -> list[str]:
    tip = (
        f"Name of what is connected to {pipe.pipe}; its layers are called so. A letter first, then "
        "letters, digits or _, at most 32. It follows the connected node's name until one is typed."
    )
    if pipe.bare:
        tip += f" Empty: alone it needs none, beside others it is {pipe.folder}."
    head = user_knob(1, f"gc_name{pipe.slot}", label=f"{pipe.pipe} name", tip=tip)
    return [head, f" gc_name{pipe.slot} {quoted('' if pipe.bare else f'object{pipe.slot}')}"]
