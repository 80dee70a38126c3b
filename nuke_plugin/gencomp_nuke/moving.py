# SPDX-License-Identifier: Apache-2.0
"""The first save of a script: results that lie in the user's own folder may move beside it.

Nuke calls :func:`saved` before it writes the script, so that what is written plays the results from
their new place. Whatever happens here, the script is saved.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

import nuke
from gencomp_nuke import caches, jobs, node, playing, prefs, versions

log = logging.getLogger(__name__)


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
    there = [n for n in _ours() if away in _played(n).parents]
    if not there:
        return
    names = ", ".join(n.name() for n in there)
    if not nuke.ask(
        f"What {names} plays lies in your own folder, {away}, where nobody else finds it. "
        "Move it beside the script?"
    ):
        return
    for gizmo in there:
        move(gizmo, away / str(gizmo["gc_id"].value()), caches.cache_folder(gizmo, settings))


def move(gizmo: Any, source: Path, cache: Path) -> None:
    """Move the versions of a node into another cache, under new numbers where need be.

    The node goes on playing what it plays. A version that is being made stays where it is.

    Args:
        gizmo: A node of ours.
        source: Folder that holds ``v001`` …
        cache: Folder that will; is made.

    Raises:
        UnwritableOutput: The folder cannot be made.
        OSError: A version cannot be moved; those before it are.
    """
    played = _played(gizmo)
    for version in versions.versions_in(source):
        place = jobs.reserve(cache)
        place.folder.rmdir()
        shutil.move(str(version), str(place.final))
        log.info("moved %s to %s", version, place.final)
        if version in (played, *played.parents):
            folder = place.final / played.relative_to(version)
            with node.quietly():
                gizmo["gc_folder"].setValue(playing.spell_folder(folder))


def _ours() -> "list[Any]":
    found = nuke.allNodes(group=nuke.root(), recurseGroups=True)
    return [n for n in found if node.is_ours(n)]


def _played(gizmo: Any) -> Path:
    """Return the folder of the result that a node plays, ``%V`` and all; no folder for none."""
    folder = playing.result_folder(gizmo)
    if folder is None:
        return Path()
    is_of_views = jobs.ANY_VIEW in str(gizmo["gc_folder"].value())
    return folder.with_name(jobs.ANY_VIEW) if is_of_views else folder
