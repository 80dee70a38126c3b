# SPDX-License-Identifier: Apache-2.0
"""Takes of a node: a quick look around the playhead, several seeds or prompts at once, the pick.

What a wedge is made of is typed, one take a line::

    1-8                              eight takes, with the seeds 1 to 8
    seed=3                           one with that seed
    seed=3; guidance=8               knobs of the node, semicolons between
    prompt=dust in the wind          a prompt
    dust in the wind                 the same, where the node has a prompt

All takes are one run: the inputs are rendered and sent once, and encoded once on the server. They
lie in one version as ``take01``, ``take02`` … Main thread only.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import nuke
from gencomp_nuke import callbacks, jobs, keying, menuwords, node, picturing, playing, readback
from gencomp_nuke.runs import Part
from gencomp_protocol.errors import BadKnob, GencompError, MissingFrame
from gencomp_protocol.frames import FrameRange, frame_list
from gencomp_protocol.request import Request

MOST_TAKES = 64
PREVIEW_FRAMES = 17
_QUALITY, _DRAFT, _FINAL = "quality", "draft", "final"
_SEED, _PROMPT = "seed", "prompt"
_NUMBERS = re.compile(r"[\d\s,x:-]+\Z")


def preview(gizmo: Any) -> None:
    """Generate 17 frames around the playhead as a draft; the node plays them when they are there.

    Raises:
        BadKnob: The playhead stands where the node generates nothing.
    """
    span = around(node.frame_range(gizmo), nuke.frame())

    def drafted(request: Request) -> "list[Part]":
        return [Part(replace(request, knobs=drafted_knobs(request.knobs, span)), title="preview")]

    callbacks.begin(gizmo, vary=drafted, frames=span)


def drafted_knobs(knobs: "Mapping[str, Any]", span: FrameRange) -> "dict[str, Any]":
    """Return knobs for a draft of a part of the shot: keyframes outside it are left out.

    Where no keyframe lies inside, the mask counts on every frame: a preview without one would
    show something else than the whole shot.
    """
    found = dict(knobs)
    if _QUALITY in found:
        found[_QUALITY] = _DRAFT
    if keying.KNOB in found:
        found[keying.KNOB] = keying.within(str(found[keying.KNOB]), span)
        if not found[keying.KNOB] and found.get(keying.MODE) == keying.KEYFRAMES_ONLY:
            found[keying.MODE] = keying.EVERY_FRAME
    return found


def around(frames: FrameRange, playhead: int) -> FrameRange:
    """Return up to 17 frames of a range around a frame, whole where the range is long enough.

    Raises:
        BadKnob: The frame lies outside.
    """
    if not frames.first <= playhead <= frames.last:
        raise BadKnob(
            f"The playhead is at {playhead}, and this node generates {frames}.",
            hint="Put it into that range, or change the range.",
            knob="gc_range",
        )
    first = max(frames.first, min(playhead - PREVIEW_FRAMES // 2, frames.last - PREVIEW_FRAMES + 1))
    return FrameRange(first, min(frames.last, first + PREVIEW_FRAMES - 1))


# --- a wedge -------------------------------------------------------------------------------------


def wedge(gizmo: Any) -> None:
    """Generate every take that is typed, as one run.

    Raises:
        BadKnob: Nothing is typed, or a line is none of what is understood.
    """
    text = str(gizmo["gc_wedge"].value())

    def varied(request: Request) -> "list[Part]":
        return [
            Part(
                replace(request, knobs={**request.knobs, **changes}),
                f"take{number:02d}",
                title=f"take {number}",
            )
            for number, changes in enumerate(read(text, request.knobs), 1)
        ]

    callbacks.begin(gizmo, vary=varied)


def read(text: str, knobs: "Mapping[str, Any]") -> "list[dict[str, Any]]":
    """Return what every take changes of a node's knobs.

    Args:
        text: As it is typed, one take a line; empty lines count for nothing.
        knobs: The knobs that are sent, with the values of the node.

    Raises:
        BadKnob: There is no take, there are more than 64, or a line cannot be understood.
    """
    found: list[dict[str, Any]] = []
    for line in filter(None, (line.strip() for line in text.splitlines())):
        found += _takes_of(line, knobs)
    if not found:
        raise BadKnob(
            "No takes are typed.",
            hint="Write one a line: seed=3, or prompt=…; 1-8 is eight seeds.",
            knob="gc_wedge",
        )
    if len(found) > MOST_TAKES:
        raise BadKnob(
            f"{len(found)} takes are typed, and {MOST_TAKES} are the most.",
            hint="Leave some out.",
            knob="gc_wedge",
        )
    return found


def _takes_of(line: str, knobs: "Mapping[str, Any]") -> "list[dict[str, Any]]":
    if _NUMBERS.match(line):
        try:
            seeds = frame_list(line)
        except GencompError as error:
            raise _unread(line, "is no list of seeds", "Write 1-8, or 3, 17.") from error
        return [{_SEED: seed} for seed in seeds]
    pairs = _pairs(line, knobs)
    if pairs:
        return [{name: _value(name, value, knobs[name], line) for name, value in pairs}]
    name, equals, _ = line.partition("=")
    if equals and re.fullmatch(r"\w+", name.strip()):
        raise _unread(line, f"names '{name.strip()}', which this node has not", "Use its knobs.")
    if _PROMPT not in knobs:
        raise _unread(line, "is no knob with a value", "Write it as seed=3.")
    return [{_PROMPT: line}]


def _pairs(line: str, knobs: "Mapping[str, Any]") -> "list[tuple[str, str]]":
    """Return names and values of a line: it parts at semicolons before a known name alone."""
    found: list[tuple[str, str]] = []
    for piece in line.split(";"):
        name, equals, value = piece.partition("=")
        if equals and name.strip() in knobs:
            found.append((name.strip(), value.strip()))
        elif found:  # The semicolon was one of a prompt.
            found[-1] = (found[-1][0], f"{found[-1][1]};{piece}".strip())
        else:
            return []
    return found


def _value(name: str, text: str, like: Any, line: str) -> Any:
    """Return a typed text as a value of the kind that a knob has; the server knows its range."""
    if isinstance(like, bool):
        if text.lower() in ("on", "true", "1", "off", "false", "0"):
            return text.lower() in ("on", "true", "1")
        raise _unread(line, f"sets '{name}' to what is neither on nor off", "Write on or off.")
    if not isinstance(like, (int, float)):
        return text
    try:
        return type(like)(text)
    except ValueError:
        raise _unread(line, f"sets '{name}' to what is no number", "Write a number.") from None


def _unread(line: str, why: str, hint: str) -> BadKnob:
    return BadKnob(f"The take '{line}' {why}.", hint=hint, knob="gc_wedge")


# --- one of them ---------------------------------------------------------------------------------


def play(gizmo: Any) -> None:
    """Let a node play the take that its knob names; of a version without takes nothing happens."""
    if not gizmo.nodes():  # A script is being opened; what is inside comes later.
        return
    folder = readback.played(gizmo)
    if folder is None:
        return
    version = jobs.version_of(folder)
    numbers, wanted = jobs.takes_in(version), int(gizmo["gc_take"].value())
    if not numbers or jobs.take_of(folder) == wanted:
        return
    if wanted not in numbers:
        raise MissingFrame(
            f"{version.name} has no take {wanted}; it has {', '.join(map(str, numbers))}.",
            hint="Choose one of these.",
        )
    chosen = version / f"take{wanted:02d}"
    if folder.name == jobs.ANY_VIEW:
        chosen = chosen / jobs.ANY_VIEW
    result = readback.kept(chosen)
    if result is not None:
        playing.play(gizmo, result)
        readback.say(gizmo)


def promote(gizmo: Any) -> None:
    """Set a node's knobs to those of the take it plays, and generate its whole range with them.

    Raises:
        MissingFrame: It plays none.
    """
    folder = readback.played(gizmo)
    if folder is None:
        raise MissingFrame("There is no take to promote.", hint="Generate some first.")
    told = readback.manifest_of(folder).get("knobs", {})
    with nuke.Undo(f"{gizmo.name()} take to final"):
        for name, value in settings_of(gizmo, told).items():
            gizmo[name].setValue(menuwords.setting(gizmo[name], value))
    callbacks.begin(gizmo)


def settings_of(gizmo: Any, told: "Mapping[str, Any]") -> "dict[str, Any]":
    """Return the knobs of a node that a take sets otherwise: what a wedge may vary, and quality.

    Places in a picture are left: a manifest counts them from the top, and no take varies them.
    """
    placed = node.declared(gizmo).coordinates
    names = [name for name in str(gizmo["gc_params"].value()).split() if name not in placed]
    wanted = {name: told[name] for name in names if name in told and name in gizmo.knobs()}
    if _QUALITY in wanted:
        wanted[_QUALITY] = _FINAL
    return {name: value for name, value in wanted.items() if not _is_set(gizmo[name], value)}


def _is_set(knob: Any, value: Any) -> bool:
    """Tell whether a knob says a value already; one with an expression is left as it is."""
    if knob.hasExpression():
        return True
    own = menuwords.value(knob)
    return bool(" ".join(own.split()) == value if isinstance(own, str) else own == value)


def sheet(gizmo: Any) -> None:
    """Draw the takes of the version that is played, or the result alone, into one picture.

    Raises:
        MissingFrame: There is nothing to draw.
    """
    folder = readback.played(gizmo)
    if folder is None:
        raise MissingFrame("There is no result to draw.", hint="Press Generate.")
    version = jobs.version_of(folder)
    takes = [version / f"take{number:02d}" for number in jobs.takes_in(version)] or [version]
    shown = [_first_view(take) for take in takes]
    picturing.draw(gizmo, "sheet", ["sheet", *map(str, shown)])


def _first_view(folder: Path) -> Path:
    """Return where the manifest of a result lies: with the first view where it has several."""
    if (folder / jobs.MANIFEST).is_file():
        return folder
    return folder / str(nuke.views()[0])
