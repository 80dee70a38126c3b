# SPDX-License-Identifier: Apache-2.0
"""Which of an element's own frames is shown at each frame of the plate.

::

    plate    1001 … 1039 | 1040 1041 … 1075 | 1076 …
    element   fg_before  |   1    2  …  36  | fg_after        fg_start = 1040

Own time is the integral of ``fg_speed`` from ``fg_start`` on, and an own frame is shown from its
own time until the next one's, so that at half speed each is shown twice; nothing is blended. From
the request alone: a plan knows the element's life before a picture has travelled.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

from gencomp_protocol.errors import BadKnob, MissingFrame, MissingInput
from gencomp_protocol.frames import spell_frames
from gencomp_protocol.motion import Keys
from gencomp_protocol.request import STILL
from gencomp_server.placing import (
    BLACK,
    HOLD,
    PlacingParams,
    input_of,
    keys_of,
    matte_of,
    range_of_element,
)

if TYPE_CHECKING:
    from gencomp_protocol.request import InputHeader, Request

# A sum of speeds such as 0.1 falls short of a whole frame by rounding alone.
_EPS = 1e-6
_UNIT = Keys((), ((1.0,),))


def sources_of(request: Request, params: PlacingParams, name: str) -> tuple[int | None, ...]:
    """Return an element's own frame for every frame of the job; None where it is not there.

    Args:
        request: The job's request.
        params: Its knobs.
        name: The element, as ``placing.declared`` names it.

    Raises:
        BadKnob: A knob cannot be read, or the element is there on no frame at all.
        MissingFrame: The element, or its matte, lacks a frame that is shown.
        MissingInput: The request has no such element.
    """
    entry = request.input(input_of(name))
    if entry is None:
        raise MissingInput(f"There is no input '{input_of(name)}'.", input=input_of(name))
    if entry.cover == STILL:
        found = _still(request, params, name, entry)
    else:
        found = _moving(request, params, name, entry)
    if all(own is None for own in found):
        raise BadKnob(
            f"Element '{name}' is there on no frame of {request.frames}.",
            hint="Check fg_start and fg_range, or hold or loop it by fg_before and fg_after.",
            knob="fg_start",
        )
    _check_matte(entry, request.input(matte_of(name)), found)
    return found


def _still(
    request: Request, params: PlacingParams, name: str, entry: InputHeader
) -> tuple[int | None, ...]:
    """Return a still's life: from its start on, and before it where it is held or looped."""
    if range_of_element(params, name) is not None:
        raise BadKnob(
            f"Knob 'fg_range' names frames of '{name}', which is a still.",
            hint="Clear it; fg_start says when a still begins.",
            knob="fg_range",
        )
    start, own = _start(params, name), entry.frames[0]
    from_first = start is None or params.fg_before != BLACK
    return tuple(own if from_first or n >= (start or 0) else None for n in request.frames)


def _moving(
    request: Request, params: PlacingParams, name: str, entry: InputHeader
) -> tuple[int | None, ...]:
    own = _own_frames(params, name, entry)
    start = _start(params, name)
    if start is None:
        meets = any(own[0] <= n <= own[-1] for n in request.frames)
        start = float(own[0] if meets else request.frames.first)
    speed = keys_of(params, "fg_speed", name) or _UNIT
    return tuple(_shown(own, n, start, speed, params) for n in request.frames)


def _start(params: PlacingParams, name: str) -> float | None:
    keys = keys_of(params, "fg_start", name)
    if keys is None:
        return None
    if keys.is_timed:
        raise BadKnob(
            f"Knob 'fg_start' has keys for '{name}'; an element begins once.",
            hint="Write one frame, as 1040.",
            knob="fg_start",
        )
    return keys.values[0][0]


def _own_frames(params: PlacingParams, name: str, entry: InputHeader) -> tuple[int, ...]:
    """Return the own frames that are used, evenly spaced.

    Raises:
        MissingFrame: The sequence has a hole, or lacks a frame of ``fg_range``.
    """
    asked = range_of_element(params, name)
    if asked is not None:
        lacking = set(asked) - set(entry.frames)
        if lacking:
            raise MissingFrame(
                f"Input '{entry.name}' has no frame {spell_frames(lacking)}, which fg_range names.",
                hint="Render the missing frames, or change fg_range.",
                input=entry.name,
                frame=min(lacking),
            )
        return tuple(asked)
    steps = [b - a for a, b in itertools.pairwise(entry.frames)]
    if len(set(steps)) > 1:
        hole = next(a for a, step in zip(entry.frames, steps, strict=False) if step > min(steps))
        raise MissingFrame(
            f"Input '{entry.name}' has no frame {hole + min(steps)}.",
            hint="Render the missing frames, or name those to use with fg_range.",
            input=entry.name,
            frame=hole + min(steps),
        )
    return entry.frames


def _shown(
    own: tuple[int, ...], n: int, start: float, speed: Keys, params: PlacingParams
) -> int | None:
    """Return the own frame at one frame of the plate; None where the element is not there."""
    step = own[1] - own[0] if len(own) > 1 else 1
    is_backwards = speed.at(start)[0] < 0
    place = played(speed, start, n) / step  # In own frames of the list, from its first or last.
    place = -place if is_backwards else place
    index = math.floor(place + _EPS)
    if n < start or not 0 <= index < len(own):
        rule = params.fg_before if n < start else params.fg_after
        if rule == BLACK:
            return None
        if rule == HOLD:
            index = 0 if n < start else min(max(index, 0), len(own) - 1)
        else:
            index %= len(own)
    return own[len(own) - 1 - index if is_backwards else index]


def played(speed: Keys, start: float, frame: float) -> float:
    """Return the own time between two frames: the integral of a speed, exact for its lines.

    Args:
        speed: Own frames per frame, straight between its keys and held outside.
        start: Frame at which own time is 0.
        frame: The other one; before the start, time is what the first own frame lacks.
    """
    low, high = min(start, frame), max(start, frame)
    stops = [low, *(key for key in speed.frames if low < key < high), high]
    total = sum(
        (b - a) * (speed.at(a)[0] + speed.at(b)[0]) / 2 for a, b in itertools.pairwise(stops)
    )
    return total if frame >= start else -total


def _check_matte(
    entry: InputHeader, matte: InputHeader | None, found: tuple[int | None, ...]
) -> None:
    if matte is None or matte.cover == STILL:
        return
    if entry.cover == STILL:  # A still's number says nothing, so none of the matte's is its.
        raise MissingFrame(
            f"Input '{matte.name}' is a sequence, but its element '{entry.name}' is a still.",
            hint="Connect one picture of the matte, or render the element as a sequence.",
            input=entry.name,
        )
    lacking = {own for own in found if own is not None} - set(matte.frames)
    if lacking:
        raise MissingFrame(
            f"Input '{matte.name}' has no frame {spell_frames(lacking)}, but its element has.",
            hint="Render the missing frames of the matte.",
            input=matte.name,
            frame=min(lacking),
        )
