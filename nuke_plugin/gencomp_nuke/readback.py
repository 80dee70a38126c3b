# SPDX-License-Identifier: Apache-2.0
"""From a job's outcome to a result that a node plays."""

from collections.abc import Mapping
from typing import Any

from gencomp_nuke import jobs, node, playing
from gencomp_nuke.asking import Ask
from gencomp_nuke.playing import Result


def take(ask: Ask, version: jobs.Version, manifest: "Mapping[str, Any]") -> Result:
    """Make a version final and describe it as a node plays it. Touches no node.

    Raises:
        MissingFrame, UnwritableOutput: The result is not whole, or cannot be put in its place.
    """
    folder = jobs.keep(version, manifest)
    return Result(
        folder=folder,
        frames=(ask.request.frames.first, ask.request.frames.last),
        layers=tuple(jobs.delivered(manifest)),
        slots=ask.slots,
        order=front_to_back(ask, manifest),
        backbone=spell_backbone(manifest),
    )


def spell_backbone(manifest: "Mapping[str, Any]") -> str:
    """Return the video model that a manifest names and its licence's class; empty for none."""
    found = manifest.get("backbone")
    if not found:
        return ""
    if found.get("untrained"):
        return f"{found['name']}, which is untrained: the pictures mean nothing"
    surrogate = ", standing in" if found.get("surrogate") else ""
    return f"{found['title']}{surrogate} (licence: {found['licence_class']})"


def front_to_back(ask: Ask, manifest: "Mapping[str, Any]") -> "tuple[str, ...]":
    """Return the objects as they lie in front of one another at the result's first frame.

    The manifest says so, from depth or knob; a server from before it did is taken at the knob's
    word. The overs inside a node do not change their order over time.
    """
    names = list(ask.slots.values())
    told = manifest.get("report", {}).get("order_from_frame", {})
    if told:
        first = [str(name) for name in told[min(told, key=int)]]
    else:
        first = str(ask.request.knobs.get("order", "")).replace(",", " ").split()
    known = [name for name in first if name in names]
    return tuple(known + [name for name in names if name not in known])


def show(gizmo: Any, result: Result) -> None:
    """Let a node play a result and say so. Main thread only."""
    playing.play(gizmo, result)
    node.show_result(gizmo)
