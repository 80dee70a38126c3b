# SPDX-License-Identifier: Apache-2.0
"""A server's plan of a job as an artist reads it on the node: minutes, memory, bytes."""

from collections.abc import Mapping, Sequence
from typing import Any

from gencomp_nuke import node
from gencomp_nuke.runs import is_attached
from gencomp_nuke.wrapping import spell_bytes, spell_seconds, wrapped

_KNOB = "gc_plan"


def show(gizmo: Any, text: str) -> None:
    """Put what a job costs on a node that has a place for it. Main thread only."""
    if is_attached(gizmo) and _KNOB in gizmo.knobs():
        with node.quietly():
            gizmo[_KNOB].setValue(wrapped(text))


def spell(plans: "Sequence[Mapping[str, Any]]") -> str:
    """Spell what the jobs of one press cost; empty where the server says nothing of it.

    Args:
        plans: What the server says of each job (``contract.Plan`` as a map); the jobs run one
            after another, so time and bytes add up and memory does not.
    """
    words = [_time(plans), _memory(plans), _bytes(plans)]
    notes = list(dict.fromkeys(str(note) for plan in plans for note in plan.get("notes", ())))
    refusals = [plan["refusal"] for plan in plans if plan.get("refusal")]
    for refusal in refusals[:1]:
        notes.append(f"It cannot run yet: {refusal['message']} {refusal['hint']}".rstrip())
    return " ".join([word for word in words if word] + notes)


def _time(plans: "Sequence[Mapping[str, Any]]") -> str:
    minutes = sum(float(plan.get("minutes", 0.0)) for plan in plans)
    device = str(plans[0].get("device", ""))
    if not device:
        return ""
    jobs = f" for {len(plans)} jobs" if len(plans) > 1 else ""
    if not minutes:
        return f"On {device}; how long it takes is not known{jobs}."
    return f"About {spell_seconds(minutes * 60)} on {device}{jobs}."


def _memory(plans: "Sequence[Mapping[str, Any]]") -> str:
    """Return the most memory that is held at once, of the device and of the machine."""
    device = max(max(plan.get("stage_bytes", {}).values(), default=0) for plan in plans)
    main = max(int(plan.get("memory_bytes", 0)) for plan in plans)
    on_cpu = any(plan.get("on_cpu") for plan in plans)
    if on_cpu:
        main, device = max(main, device), 0
    found = [(device, "GPU memory"), (main, "main memory")]
    words = [f"{spell_bytes(count)} of {what}" for count, what in found if count]
    return f"Needs {' and '.join(words)}." if words else ""


def _bytes(plans: "Sequence[Mapping[str, Any]]") -> str:
    """Return what is read and delivered, in pixels as they lie in memory."""
    read = sum(int(plan.get("bytes_in", 0)) for plan in plans)
    made = sum(int(plan.get("bytes_out", 0)) for plan in plans)
    if not read and not made:
        return ""
    return f"Reads {spell_bytes(read)} and delivers {spell_bytes(made)} of pixels, uncompressed."
