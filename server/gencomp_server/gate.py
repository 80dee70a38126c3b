# SPDX-License-Identifier: Apache-2.0
"""The first gate: what is refused from headers alone, before any picture travels."""

from __future__ import annotations

import importlib
from collections import Counter
from dataclasses import replace

from gencomp_protocol.errors import BadKnob, MissingFrame, MissingInput
from gencomp_protocol.frames import spell_frames
from gencomp_protocol.messages import InputPictures
from gencomp_protocol.request import Request
from gencomp_server.backbones import choose, idle_knobs, spec_named
from gencomp_server.colour.spaces import check_space
from gencomp_server.contract import (
    NEEDS_BACKBONE,
    Machine,
    Plan,
    System,
    check_request,
    find_system,
    parse_params,
)


def load_registry(place: str) -> tuple[System, ...]:
    """Return the systems that ``"module:attribute"`` names.

    Raises:
        BadKnob: There is no such thing.
    """
    module, _, attribute = place.partition(":")
    try:
        return tuple(getattr(importlib.import_module(module), attribute))
    except (ImportError, AttributeError, ValueError) as error:
        raise BadKnob(f"Setting 'registry' names no systems: {place} ({error}).") from error


def open_system(systems: tuple[System, ...], request: Request) -> System:
    """Return the system that a request asks for, where its header is in order.

    Raises:
        ArtistError: Why it is not.
    """
    system = find_system(systems, request.system)
    check_request(system, request)
    check_space(request)
    return system


def plan_on(system: System, request: Request, machine: Machine) -> Plan:
    """Return what a job will cost on a machine, where it can run there at all.

    A system that may do without a backbone refuses in its plan, since it knows whether it will.

    Raises:
        BadKnob: The backbone named does not serve the system, or none is practical there.
        WeightsMissing: It is not installed.
        WeightsRefused: It is not allowed.
        OutOfMemory: It does not fit, however it is placed.
    """
    params = parse_params(system.params, request.knobs)
    if system.backbone == NEEDS_BACKBONE:
        choose(system, params, machine)
    plan = system.plan(request, machine)
    idle = None
    if plan.backbone:
        idle = idle_knobs(params, machine.device, spec_named(plan.backbone))
    notes = [note for note in (_note_of(request), idle) if note is not None]
    return replace(plan, notes=(*plan.notes, *notes)) if notes else plan


def _note_of(request: Request) -> str | None:
    """Return the sentence that says what the pictures are taken for; None where nobody said."""
    space = check_space(request)
    if space.is_rec709 and not space.config:
        return None
    return f"All pictures are taken as {space.spell()}, and come back in it."


def check_pictures(request: Request, inputs: tuple[InputPictures, ...]) -> None:
    """Refuse a submit whose pictures are not those that its header names.

    Raises:
        MissingInput: Pictures of an input that the header does not have, or none of one it has.
        MissingFrame: Frames that differ from the header's.
    """
    named = {one.name: {entry.frame for entry in one.pictures} for one in inputs}
    headers = {entry.name: set(entry.frames) for entry in request.inputs}
    for name in sorted(named.keys() ^ headers.keys()):
        raise MissingInput(
            f"Input '{name}' stands only in the {'header' if name in headers else 'pictures'}.",
            hint="Name every input in both.",
            input=name,
        )
    for entry in request.inputs:
        twice = [n for n, times in Counter(entry.frames).items() if times > 1]
        if twice:
            raise MissingFrame(
                f"Input '{entry.name}' names frame {spell_frames(twice)} more than once.",
                hint="Give every frame one picture.",
                input=entry.name,
                frame=min(twice),
            )
    for name, frames in headers.items():
        if named[name] != frames:
            odd = spell_frames(named[name] ^ frames)
            raise MissingFrame(
                f"Input '{name}' has other pictures than its header says, at frame {odd}.",
                hint="Give the frames that the header names.",
                input=name,
            )
