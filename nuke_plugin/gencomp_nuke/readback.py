# SPDX-License-Identifier: Apache-2.0
"""From a job's outcome, or a folder that was kept, to a result that a node plays.

To a manifest is added what the server does not know, under ``node``: the names of the objects by
pipe, their order from front to back, and the sentences that the artist was told. So any result can
be played again, and its notes be read, by its folder alone.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import nuke
from gencomp_nuke import jobs, node, playing, stock
from gencomp_nuke.asking import Ask
from gencomp_nuke.playing import Result
from gencomp_protocol.errors import MissingFrame

log = logging.getLogger(__name__)

NODE = "node"
_KNOB = "'missing frames' on its tab Cache & Server"


def own_words(
    ask: Ask, manifest: "Mapping[str, Any]", warnings: "Sequence[str]", job: str
) -> "dict[str, Any]":
    """Return a manifest with what the server does not know. Touches no node.

    Args:
        ask: What the node asked for.
        manifest: What the server made.
        warnings: Sentences for the artist.
        job: The job's id.
    """
    slots = {str(slot): name for slot, name in ask.slots.items()}
    order = front_to_back(ask, manifest)
    own = {"slots": slots, "order": order, "warnings": list(warnings), "job": job, "key": ask.key}
    return {**manifest, NODE: own}


# --- which result is played ----------------------------------------------------------------------


def played(gizmo: Any) -> Optional[Path]:
    """Return the folder of the result that a node plays, with ``%V`` for every view; or None.

    Main thread only.
    """
    folder = playing.result_folder(gizmo)
    if folder is None or jobs.ANY_VIEW not in str(gizmo["gc_folder"].value()):
        return folder
    return folder.with_name(jobs.ANY_VIEW)


def manifest_of(folder: Path) -> "dict[str, Any]":
    """Return the manifest of a result, of the first view where it is one of several.

    Raises:
        MissingFrame: The folder holds none, or one that cannot be read.
    """
    return jobs.read_manifest(jobs.in_view(folder, nuke.views()[0]))


def replay(gizmo: Any) -> None:
    """Let a node play the result in the folder that its knob names. Main thread only.

    One from before manifests said names is played with those of the last, and its frames.

    Raises:
        MissingFrame: There is none.
    """
    folder = played(gizmo)
    result = playing.NOTHING if folder is None else kept(folder)
    if result is not None and not playing.is_played(gizmo, result):
        playing.play(gizmo, result)
    if folder is not None:
        _say_takes(gizmo, folder)
    say(gizmo)


def kept(folder: Path) -> Optional[Result]:
    """Return the result in a folder; None for one whose manifest says no names.

    Raises:
        MissingFrame: The folder holds no result.
    """
    manifest = manifest_of(folder)
    return result_of(folder, manifest) if NODE in manifest else None


def result_of(folder: Path, manifest: "Mapping[str, Any]") -> Result:
    """Return a result as its manifest says it."""
    delivered, own = jobs.delivered(manifest), manifest[NODE]
    frames = [n for numbers in delivered.values() for n in numbers] or [0]
    return Result(
        folder=folder,
        frames=(min(frames), max(frames)),
        layers=tuple(delivered),
        slots={int(slot): str(name) for slot, name in own["slots"].items()},
        order=tuple(own["order"]),
        backbone=spell_backbone(manifest),
        key=str(own.get("key", "")),
    )


def spell_backbone(manifest: "Mapping[str, Any]") -> str:
    """Return a manifest's video model, the size it worked at, its licence's class; or nothing."""
    found = manifest.get("backbone")
    if not found:
        return ""
    size = manifest.get("report", {}).get("model_size")
    at = " at {}x{}".format(*size) if size else ""
    if found.get("untrained"):
        return f"{found['name']}{at}, which is untrained: the pictures mean nothing"
    surrogate = ", standing in" if found.get("surrogate") else ""
    return f"{found['title']}{at}{surrogate} (licence: {found['licence_class']})"


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


# --- showing it ----------------------------------------------------------------------------------


def show(gizmo: Any, result: Result) -> None:
    """Let a node play a result and say so. Main thread only."""
    playing.play(gizmo, result)
    _say_takes(gizmo, result.folder)
    say(gizmo)


def say(gizmo: Any) -> None:
    """Say on a node which result it plays, with the notes that were made of it. Main thread only.

    A result that is not on this disk is said to be missing, and so is a frame within it.
    """
    folder = played(gizmo)
    if folder is not None and not jobs.in_view(folder, nuke.views()[0]).is_dir():
        name = jobs.spell(folder)
        sentence = f"{name} is missing: {folder} is not there. Bring it back, point result at it, "
        node.show(gizmo, f"{sentence}or press Generate.", node.FAILED, f"{name} missing")
        return
    missing, shown = stock.gap(gizmo)
    if folder is not None and missing and not shown:
        sentence = f"Plays {jobs.spell(folder)}, {missing}, and viewer and render stop there. "
        sentence += f"Bring it back, press Generate, or turn {_KNOB}."
        node.show(gizmo, sentence, node.FAILED, "frames missing")
        return
    notes = () if folder is None else notes_of(folder)
    told = f"It is a result {missing}: {shown}, as {_KNOB} says."
    node.show_result(gizmo, (*notes, told) if missing else notes)


def follow(gizmo: Any) -> None:
    """Say anew what a node plays, where a knob was turned that decides it; one at work goes on."""
    if node.state_of(gizmo) != node.RUNNING:
        say(gizmo)


def notes_of(folder: Path) -> "tuple[str, ...]":
    """Return the sentences that an artist was told when a result was made."""
    try:
        own = manifest_of(folder).get(NODE, {})
    except MissingFrame as error:
        log.info("no notes: %s", error)
        return ()
    return tuple(str(sentence) for sentence in own.get("warnings", ()))


def _say_takes(gizmo: Any, folder: Path) -> None:
    """Let the node's knobs say how many takes its version has, and which of them it plays."""
    takes, known = jobs.takes_in(jobs.version_of(folder)), gizmo.knobs()
    wanted = {"gc_take_count": len(takes)}
    if takes:
        wanted["gc_take"] = jobs.take_of(folder)
    with node.quietly():
        for name, value in wanted.items():
            if name in known and int(gizmo[name].value()) != value:
                gizmo[name].setValue(value)
