# SPDX-License-Identifier: Apache-2.0
"""The frames whose mask counts: the typed list, its keys in the dope sheet, and the buttons.

The knob ``keyframes`` is the truth and what is sent. The switch ``gc_is_key`` is written from it,
on at every keyframe and off between them, so that the dope sheet shows the keys; moved, added or
removed there, they are read back into the list. That a frame is unknown travels as these numbers
alone, so no grey has to survive a filter, a format or eight bits. Main thread only.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import nuke
from gencomp_nuke import node, roto
from gencomp_protocol.errors import BadKnob, MissingInput
from gencomp_protocol.frames import FrameRange, frame_list, spell_frames
from gencomp_protocol.layers import EFFECT_MASK

KNOB, MODE, KEYS, STATE = "keyframes", "mask_frames", "gc_is_key", "gc_key_state"
EVERY_FRAME, KEYFRAMES_ONLY, NO_MASK = "every frame", "keyframes only", "no mask"
ASK, ALL_FRAMES, NONE = "ask", "all frames", "none"
_MOST_FRAMES = 20_000
_SHORTEST_RUN = 3  # 1001,1010 is shorter than 1001-1010x9.

# --- a list and what it is spelt as --------------------------------------------------------------


def read_list(text: str, knob: str = KNOB) -> "tuple[int, ...]":
    """Read a typed list such as ``1001,1010-1020x5``, rising and without repeats.

    Raises:
        BadKnob: A piece is no frame and no range, or it names more frames than a shot has.
    """
    try:
        pieces = [FrameRange.parse(piece) for piece in re.split(r"[,\s]+", text) if piece]
        count = sum(map(len, pieces))
        if count > _MOST_FRAMES:
            raise BadKnob(f"It names {count} frames.", hint="Write it as 1001,1010-1020x5.")
        return frame_list(text)
    except BadKnob as error:
        raise BadKnob(
            f"Knob '{knob}' is '{text.strip()}': {error.message}", hint=error.hint, knob=knob
        ) from error


def spell_list(frames: "Iterable[int]") -> str:
    """Spell frames as the knob has them, ``1001,1010-1020x5``; :func:`read_list` reads it back."""
    left = sorted(set(frames))
    pieces = []
    while left:
        run = _steady(left)
        if len(run) < _SHORTEST_RUN:
            pieces.append(str(left.pop(0)))
            continue
        pieces.append(str(FrameRange(run[0], run[-1], run[1] - run[0])))
        left = left[len(run) :]
    return ",".join(pieces)


def _steady(frames: "Sequence[int]") -> "Sequence[int]":
    """Return as many frames from the first on as have the same step."""
    if len(frames) < 2:
        return frames
    step, end = frames[1] - frames[0], 2
    while end < len(frames) and frames[end] - frames[end - 1] == step:
        end += 1
    return frames[:end]


def curve_of(frames: "Sequence[int]") -> str:
    """Return the switch's animation as a script has it: on at frames, off after and before them.

    Every frame has a key. K holds a value up to the next key, so that it is exact on all frames.

    Args:
        frames: Keyframes, rising.
    """
    if not frames:
        return "false"
    values = {frames[0] - 1: 0, **{n + 1: 0 for n in frames}, **dict.fromkeys(frames, 1)}
    return "{curve K " + " ".join(f"x{n} {values[n]}" for n in sorted(values)) + "}"


def thinned(frames: "Sequence[int]", every: int) -> "tuple[int, ...]":
    """Return every Nth of some keyframes, and the last, which is where a drawn mask ends."""
    if not frames or every <= 1:
        return tuple(frames)
    return tuple(sorted({*frames[::every], frames[-1]}))


def within(text: str, frames: FrameRange) -> str:
    """Return of a list what lies in a range, for a job of a part of the shot; may be empty.

    Raises:
        BadKnob: The list cannot be read.
    """
    return spell_list(n for n in read_list(text) if n in frames)


def state(frames: "Sequence[int]", mode: str, frame: int) -> str:
    """Say in words what the mask says on a frame.

    Args:
        frames: Keyframes, rising.
        mode: Value of the knob ``mask_frames``.
        frame: The frame that is looked at.
    """
    if mode == NO_MASK:
        return f"{frame}: no mask, the model decides."
    if mode != KEYFRAMES_ONLY:
        return f"{frame}: the mask counts, as on every frame."
    if frame in frames:
        return (
            f"{frame}: the mask counts, keyframe {list(frames).index(frame) + 1} of {len(frames)}."
        )
    near = [*[n for n in frames if n < frame][-1:], *[n for n in frames if n > frame][:1]]
    if not near:
        return f"{frame}: unknown, the model decides; there is no keyframe yet."
    if len(near) == 2:
        return (
            f"{frame}: unknown, the model decides; between the keyframes {near[0]} and {near[1]}."
        )
    side = "after the last" if near[0] < frame else "before the first"
    return f"{frame}: unknown, the model decides; {side} keyframe, {near[0]}."


# --- the buttons ---------------------------------------------------------------------------------


def detect(gizmo: Any) -> None:
    """Fill the list with the keys of the Roto and RotoPaint nodes above the mask.

    Raises:
        MissingInput: No mask is connected, or nothing above it has shapes.
        BadKnob: None of their keys lies in the range; or what does not move has to be asked about
            and nobody is there to answer.
    """
    pipe = next(spec.pipe for spec in node.declared(gizmo).pipes if spec.input == EFFECT_MASK)
    top, frames = node.connected(gizmo, pipe), node.frame_range(gizmo)
    if top is None:
        raise MissingInput(
            f"{gizmo.name()} has no effect mask to look for keyframes in.",
            hint=f"Connect the roto to its pipe {pipe}.",
        )
    found = roto.look(top, frames)
    keys = set(found.keys)
    if found.still:
        keys.update(frames if _still_counts(gizmo, found, frames) else found.still_keys)
    inside = [n for n in sorted(keys) if n in frames]
    if not inside:
        raise BadKnob(_none_inside(found, keys, frames), hint="Type the list of keyframes.")
    kept = thinned(inside, int(gizmo["gc_every"].value()))
    _write(gizmo, kept, "Detect keyframes")
    what = "1 keyframe" if len(kept) == 1 else f"{len(kept)} keyframes"
    thinning = (
        f" Of {len(inside)}, every {gizmo['gc_every'].value()}th."
        if len(kept) < len(inside)
        else ""
    )
    passed = f" Not looked beyond {', '.join(found.passed)}." if found.passed else ""
    node.tell(gizmo, f"Found {what} in {', '.join(found.nodes)}.{thinning}{passed}")


def add(gizmo: Any) -> None:
    """Make the current frame a keyframe.

    Raises:
        BadKnob: The list cannot be read.
    """
    frame = int(nuke.frame())
    _write(gizmo, (*_listed(gizmo), frame), "Add keyframe")
    outside = "" if frame in node.frame_range(gizmo) else ", which is outside the range"
    node.tell(gizmo, f"{frame} is a keyframe{outside}.")


def remove(gizmo: Any) -> None:
    """Make the current frame none.

    Raises:
        BadKnob: The list cannot be read.
    """
    frame, frames = int(nuke.frame()), _listed(gizmo)
    if frame not in frames:
        node.tell(gizmo, f"{frame} is no keyframe, so nothing was removed.")
        return
    _write(gizmo, [n for n in frames if n != frame], "Remove keyframe")
    node.tell(gizmo, f"{frame} is no keyframe any more.")


def previous(gizmo: Any) -> None:
    """Move the playhead to the keyframe before it.

    Raises:
        BadKnob: The list cannot be read.
    """
    frame = int(nuke.frame())
    _go(
        gizmo,
        [n for n in _listed(gizmo) if n < frame][-1:],
        f"There is no keyframe before {frame}.",
    )


def following(gizmo: Any) -> None:
    """Move the playhead to the keyframe after it.

    Raises:
        BadKnob: The list cannot be read.
    """
    frame = int(nuke.frame())
    _go(gizmo, [n for n in _listed(gizmo) if n > frame][:1], f"There is no keyframe after {frame}.")


# --- what follows a turned knob ------------------------------------------------------------------


def follow(gizmo: Any) -> None:
    """Write the keys of the dope sheet from the list, and say the state of the current frame.

    Raises:
        BadKnob: The list cannot be read.
    """
    if not _has_keys(gizmo):
        return
    script = curve_of(_listed(gizmo))
    if _animation(gizmo) != script:
        with node.quietly():
            if script == "false":
                gizmo[KEYS].clearAnimated()
            gizmo[KEYS].fromScript(script)
    show_state(gizmo)


def follow_keys(gizmo: Any) -> None:
    """Read keys that were moved, set or removed in the dope sheet back into the list.

    Ticked without any key, the switch means the current frame.

    Raises:
        BadKnob: The list that was there cannot be read.
    """
    if not _has_keys(gizmo):
        return
    switch = gizmo[KEYS]
    if switch.isAnimated():
        times = sorted({round(time) for time in switch.getKeyList()})
        frames = [n for n in times if switch.getValueAt(n)]
    else:
        frames = [int(nuke.frame())] if switch.value() else []
    if tuple(frames) != _listed(gizmo):
        _write(gizmo, frames, "Keyframes")
    follow(gizmo)


def show_state(gizmo: Any) -> None:
    """Say on the node what the mask says on the current frame; a list in the typing is let be."""
    if STATE not in gizmo.knobs():
        return
    try:
        words = state(_listed(gizmo), str(gizmo[MODE].value()), int(nuke.frame()))
    except BadKnob as error:
        words = str(error)
    if gizmo[STATE].value() != words:
        with node.quietly():
            gizmo[STATE].setValue(words)


def at_playhead() -> None:
    """Keep the state in words with the playhead while a panel is open; Nuke's own updateUI.

    Nothing else changes, and a script that was saved stays as saved.
    """
    gizmo = nuke.thisNode()
    if gizmo.knob(STATE) is None or not gizmo.shown():
        return
    show_state(gizmo)


# --- inside --------------------------------------------------------------------------------------


def _has_keys(gizmo: Any) -> bool:
    """Tell whether a node has the switch, and is not a script that is still being read."""
    return KEYS in gizmo.knobs() and bool(gizmo.nodes())


def _listed(gizmo: Any) -> "tuple[int, ...]":
    return read_list(str(gizmo[KNOB].value()))


def _animation(gizmo: Any) -> str:
    """Return the switch's animation in the one spelling of :func:`curve_of`; else what is there."""
    switch = gizmo[KEYS]
    if not switch.isAnimated():
        return "true" if switch.value() else "false"
    times = [round(time) for time in switch.getKeyList()]
    pairs = " ".join(f"x{n} {int(bool(switch.getValueAt(n)))}" for n in times)
    return "{curve K " + pairs + "}"


def _write(gizmo: Any, frames: "Iterable[int]", name: str) -> None:
    """Set the list, and let it count, as one step of the undo list."""
    with nuke.Undo(name):
        gizmo[KNOB].setValue(spell_list(frames))
        if gizmo[MODE].value() == EVERY_FRAME or gizmo[MODE].value() == NO_MASK:
            gizmo[MODE].setValue(KEYFRAMES_ONLY)
    follow(gizmo)


def _go(gizmo: Any, to: "Sequence[int]", otherwise: str) -> None:
    if not to:
        node.tell(gizmo, otherwise)
        return
    nuke.frame(to[0])
    show_state(gizmo)


def _still_counts(gizmo: Any, found: roto.Found, frames: FrameRange) -> bool:
    """Tell whether shapes that do not move count on all frames; asks where the knob says so.

    Raises:
        BadKnob: It says so, and there is nobody to ask.
    """
    meant = gizmo["gc_static_shapes"].value()
    if meant != ASK:
        return bool(meant == ALL_FRAMES)
    shapes = f"{', '.join(found.still[:3])}{' and others' if len(found.still) > 3 else ''}"
    verb = "does" if len(found.still) == 1 else "do"
    if not nuke.GUI:
        raise BadKnob(
            f"{shapes} {verb} not move, so whether the mask counts on all frames has to be said.",
            hint="Set static shapes to 'all frames' or 'none'.",
        )
    question = f"{shapes} {verb} not move.\nDoes the mask count on all frames, {frames}?"
    return bool(nuke.ask(question))


def _none_inside(found: roto.Found, keys: "Iterable[int]", frames: FrameRange) -> str:
    if not list(keys):
        return f"What is drawn in {', '.join(found.nodes)} has no keys."
    return f"The keys of {', '.join(found.nodes)} are {spell_frames(keys)}, outside {frames}."
