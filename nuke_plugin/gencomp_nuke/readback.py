# SPDX-License-Identifier: Apache-2.0
"""From a job's outcome, or a folder that was kept, to a result that a node plays.

To a manifest is added what the server does not know, under ``node``: the names of the objects by
pipe, and their order from front to back. So any result can be played again by its folder alone.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from gencomp_nuke import jobs, node, playing
from gencomp_nuke.asking import Ask
from gencomp_nuke.playing import Result

_NODE = "node"


def take(ask: Ask, version: jobs.Version, manifest: "Mapping[str, Any]") -> Result:
    """Make a version final and describe it as a node plays it. Touches no node.

    Raises:
        MissingFrame, UnwritableOutput: The result is not whole, or cannot be put in its place.
    """
    slots = {str(slot): name for slot, name in ask.slots.items()}
    whole = {**manifest, _NODE: {"slots": slots, "order": front_to_back(ask, manifest)}}
    return _result(jobs.keep(version, whole), whole)


def replay(gizmo: Any) -> None:
    """Let a node play the result in the folder that its knob names. Main thread only.

    One from before manifests said names is played with those of the last, and its frames.

    Raises:
        MissingFrame: There is none.
    """
    folder = playing.result_folder(gizmo)
    result = playing.NOTHING if folder is None else _kept(folder)
    if result is not None and not playing.is_played(gizmo, result):
        playing.play(gizmo, result)
    node.show_result(gizmo)


def _kept(folder: Path) -> Optional[Result]:
    """Return the result in a folder; None for one whose manifest says no names."""
    manifest = jobs.read_manifest(folder)
    return _result(folder, manifest) if _NODE in manifest else None


def _result(folder: Path, manifest: "Mapping[str, Any]") -> Result:
    """Return a result as its manifest says it."""
    delivered, own = jobs.delivered(manifest), manifest[_NODE]
    frames = [n for numbers in delivered.values() for n in numbers] or [0]
    return Result(
        folder=folder,
        frames=(min(frames), max(frames)),
        layers=tuple(delivered),
        slots={int(slot): str(name) for slot, name in own["slots"].items()},
        order=tuple(own["order"]),
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
