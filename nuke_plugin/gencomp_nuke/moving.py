# SPDX-License-Identifier: Apache-2.0
"""The first save of a script: results that lie in the user's own folder may move beside it.

Nuke calls :func:`saved` before it writes the script, so that what is written plays the results from
their new place. A *no* is remembered for this Nuke. Whatever happens here, the script is saved, and
a version is whole in one of the two places at any time.
"""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import nuke
from gencomp_nuke import caches, jobs, node, playing, prefs, readback

log = logging.getLogger(__name__)

_PLAYED_BY_OURS, _PLAYED_BY_READS = ("gc_folder", "gc_compare_folder"), ("file",)
_declined: "set[str]" = set()


def saved() -> None:
    """Offer to move results beside the script that is being saved. Never raises."""
    try:
        _offer()
    except Exception:  # The edge of the room: nothing of ours keeps an artist from saving.
        log.exception("results could not be moved beside the script")


def _offer() -> None:
    settings = prefs.load()
    if not caches.script_name() or not nuke.GUI:
        return
    away = caches.unsaved_folder(settings)
    there = [n for n in node.in_script() if away in _played(n).parents]
    there = [n for n in there if str(n["gc_id"].value()) not in _declined]
    if not there:
        return
    names = ", ".join(n.name() for n in there)
    if not nuke.ask(
        f"What {names} plays lies in your own folder, {away}, where nobody else finds it. "
        "Move it beside the script?"
    ):
        _declined.update(str(n["gc_id"].value()) for n in there)
        return
    for gizmo in there:
        played = _played(gizmo)
        if away in played.parents:  # Not moved yet, with a node of which this one is a copy.
            move(jobs.version_of(played).parent, caches.cache_folder(gizmo, settings))


def move(source: Path, cache: Path) -> None:
    """Move the versions of a node into another cache, under new numbers where need be.

    Whatever in the script plays one goes on playing it: the node, its copies, and Reads. A version
    that is being made stays where it is.

    Args:
        source: Folder that holds ``v001`` ...
        cache: Folder that will; is made.

    Raises:
        UnwritableOutput: The folder cannot be made.
        OSError: A version cannot be moved; those before it are.
    """
    for version in jobs.whole(source):
        place = jobs.reserve(cache)
        inner = place.folder / version.name
        try:
            is_copy = not _renamed(version, inner)
            os.rename(inner, place.final)
        except OSError:
            if version.is_dir():
                jobs.discard(place)
            raise
        place.folder.rmdir()
        _play_from(version, place.final)
        if is_copy:
            shutil.rmtree(version, ignore_errors=True)
        log.info("moved %s to %s", version, place.final)


def _renamed(version: Path, inner: Path) -> bool:
    """Bring a version to another place; tell whether that was a renaming, and not a copy.

    Raises:
        OSError: It cannot be copied; it is where it was.
    """
    try:
        os.rename(version, inner)
    except OSError:  # Another disk.
        shutil.copytree(version, inner)
        return False
    return True


def _play_from(old: Path, new: Path) -> None:
    """Let everything in the script that names a folder name another one."""
    with node.quietly():
        for other in nuke.allNodes(group=nuke.root(), recurseGroups=True):
            is_ours = node.is_ours(other)
            for name in _PLAYED_BY_OURS if is_ours else _PLAYED_BY_READS:
                knob = other.knob(name)
                if knob is None or not (is_ours or other.Class() == "Read"):
                    continue
                text = str(knob.value())
                if text == old.as_posix() or text.startswith(old.as_posix() + "/"):
                    inside = text[len(old.as_posix()) :]
                    knob.setValue(playing.spell_folder(new) + inside)


def _played(gizmo: Any) -> Path:
    """Return the folder of the result that a node plays, ``%V`` and all; no folder for none."""
    return readback.played(gizmo) or Path()
