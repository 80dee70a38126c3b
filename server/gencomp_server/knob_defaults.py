# SPDX-License-Identifier: Apache-2.0
"""Default values of knobs by system, as settings files give them: ``[knobs.overplusplus]``.

They hold where a job says nothing of a knob. Nuke puts them onto a node that is made by hand;
``gencomp run`` and ``plan`` put them into what they ask for, and say so.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gencomp_protocol.errors import BadKnob
from gencomp_protocol.settings import (
    EVERY,
    KNOBS,
    Layer,
    Origin,
    Settled,
    is_for_every_system,
    knobs_of,
    spelt_value,
    systems_named,
)


def defaults_for(
    schema: Mapping[str, Any], layers: Sequence[Layer], given: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the values of knobs that a job does not name, and a sentence for each.

    Args:
        schema: The system's declaration (``contract.schema``).
        layers: What the settings files say.
        given: The knobs that the job names.

    Raises:
        BadKnob: A file names a knob that the system has not, or sets a locked one.
    """
    values, notes = {}, []
    for name, one in _checked(schema, layers).items():
        if name not in given:
            values[name] = one.value
            notes.append(f"Knob {name} = {spelt_value(one.value)}, the default of {one.origin}.")
    return values, tuple(notes)


def check(schemas: Sequence[Mapping[str, Any]], layers: Sequence[Layer]) -> None:
    """Look through the knobs of every system.

    Args:
        schemas: The systems' declarations.
        layers: What the settings files say.

    Raises:
        BadKnob: A file names a system or a knob that there is not, or sets a locked one.
    """
    known = [schema["name"] for schema in schemas]
    for system, origin in systems_named(layers).items():
        if system not in (*known, EVERY):
            near = difflib.get_close_matches(system, known, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Systems: {', '.join(known)}."
            raise BadKnob(f"There is no system '{system}' ({KNOBS} in {origin}).", hint=hint)
    named = {schema["name"]: {knob["name"] for knob in schema["knobs"]} for schema in schemas}
    named[EVERY] = set().union(*named.values())
    for name, one in knobs_of(EVERY, layers).items():
        if name not in named[EVERY]:
            raise _unknown(name, "a system", one.origin, named[EVERY])
    for layer in layers:
        for key, origin in layer.locks.items():
            if key[0] == KNOBS and len(key) > 2 and key[2] not in named[key[1]]:
                raise _unknown(key[2], key[1], origin, named[key[1]])
    for schema in schemas:
        _checked(schema, layers)


def _checked(schema: Mapping[str, Any], layers: Sequence[Layer]) -> dict[str, Settled]:
    """Return what files say of a system's knobs; of those meant for all, those that it has."""
    known = [knob["name"] for knob in schema["knobs"]]
    found = {}
    for name, one in knobs_of(schema["name"], layers).items():
        if name in known:
            found[name] = one
        elif not is_for_every_system(layers, one.origin):
            raise _unknown(name, schema["name"], one.origin, known)
    return found


def _unknown(name: str, system: str, origin: Origin, known: Collection[str]) -> BadKnob:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean '{near[0]}'?" if near else f"Knobs: {', '.join(sorted(known))}."
    return BadKnob(f"There is no knob '{name}' of {system} ({origin}).", hint=hint, knob=name)
