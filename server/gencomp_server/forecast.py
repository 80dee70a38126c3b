# SPDX-License-Identifier: Apache-2.0
"""What a job would cost, also where it cannot run yet: weights are missing, or memory is.

Whether a card is large enough is asked before tens of gigabytes are fetched, so a plan is also made
for a machine in which the backbone counts as installed, beside the reason why it does not run.
"""

from __future__ import annotations

from dataclasses import replace

from gencomp_protocol.errors import (
    BadKnob,
    GencompError,
    OutOfMemory,
    WeightsMissing,
    WeightsRefused,
)
from gencomp_protocol.request import Request
from gencomp_server.backbones import AUTO, SPECS, in_order
from gencomp_server.contract import Machine, Plan, System
from gencomp_server.footprint import CPU
from gencomp_server.gate import plan_on

_ROOM = 1 << 60  # More memory than any machine has.


def forecast(
    system: System, request: Request, machine: Machine
) -> tuple[Plan, GencompError | None]:
    """Return what a job costs, and why the machine would refuse it; None where it would not.

    Args:
        system: What is asked for.
        request: The job's header.
        machine: Where it would run.

    Raises:
        ArtistError: The request is wrong on any machine.
    """
    try:
        return plan_on(system, request, machine), None
    except (WeightsMissing, WeightsRefused, OutOfMemory, BadKnob) as error:
        name = _backbone_of(system, request, machine, error)
        if name is None:
            raise
        return _plan_with(system, request, machine, name), error


def _backbone_of(
    system: System, request: Request, machine: Machine, error: GencompError
) -> str | None:
    """Return the backbone that a refused job is planned with; None where none would help."""
    asked = str(request.knobs.get("backbone", AUTO))
    fitting = [one for one in SPECS if not one.is_tiny and system.name in one.systems]
    if asked != AUTO:
        names = [one.name for one in SPECS if system.name in one.systems]
        return asked if asked in names else None
    if isinstance(error, (WeightsMissing, WeightsRefused)):
        named = error.details.get("backbone")
        return next((one.name for one in fitting if one.name == named), None)
    if isinstance(error, BadKnob) and error.details.get("knob") != "backbone":
        return None
    found = [one for one in fitting if one.name in machine.backbones]
    installed = in_order(system.name, found)
    return installed[0].name if installed else None


def _plan_with(system: System, request: Request, machine: Machine, name: str) -> Plan:
    """Plan with a backbone as if it were installed; without regard to memory where that lacks."""
    asked = replace(request, knobs={**request.knobs, "backbone": name})
    there = replace(machine, backbones=(*machine.backbones, name))
    try:
        return plan_on(system, asked, there)
    except OutOfMemory as error:
        if machine.device == CPU:
            roomy = replace(there, memory_bytes=_ROOM)
        else:
            roomy = replace(there, free_bytes=_ROOM)
        plan = plan_on(system, asked, roomy)
        return replace(plan, placement={}, notes=(*plan.notes, f"It does not fit: {error}"))
