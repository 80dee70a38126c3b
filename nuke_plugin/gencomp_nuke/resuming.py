# SPDX-License-Identifier: Apache-2.0
"""A job that outlived the Nuke that started it: found again, offered on the node, taken up.

When a script is opened, what its nodes wait for is found beside their results (``pending.py``), or
still being worked on by this very session. Touches the disk once for each node, and no network.
"""

import logging
from pathlib import Path
from typing import Any, Optional

import nuke
from gencomp_nuke import callbacks, jobs, node, pending, prefs, readback
from gencomp_nuke.pending import Pending
from gencomp_protocol.errors import GencompError, MissingFrame

log = logging.getLogger(__name__)

_BUTTON = "gc_resume"


def loaded(gizmo: Any) -> None:
    """Say on a node that was just loaded what it plays, and what it waits for. Main thread only."""
    readback.say(gizmo)
    if not nuke.GUI:
        return
    run = callbacks.running(gizmo)
    if run is not None:
        run.attach(gizmo)
        node.show(gizmo, "Its job goes on.", node.RUNNING, "running")
        return
    try:
        found = _waiting(gizmo)
    except GencompError as error:  # A cache that cannot be named is said when Generate is pressed.
        log.info("nothing waits: %s", error)
        return
    if found is not None:
        which = jobs.spell(found.version.final)
        show_waiting(gizmo, f"The job of {which} was left when Nuke closed.")


def resume(gizmo: Any) -> None:
    """Take up the job that a node waits for.

    Raises:
        MissingFrame: None waits.
    """
    if callbacks.running(gizmo) is not None:
        return
    found = _waiting(gizmo)
    if found is None:
        show_button(gizmo, False)
        raise MissingFrame("No job of this node waits.", hint="Press Generate.")
    callbacks.start(pending.resumed(gizmo, found))


def show_waiting(gizmo: Any, why: str) -> None:
    """Say on a node that a job of it waits, and show the button. Main thread only."""
    folder = readback.played(gizmo)
    plays = "" if folder is None else f" Meanwhile {jobs.spell(folder)} plays."
    show_button(gizmo, True)
    node.show(gizmo, f"{why} Press Resume to get its result.{plays}", node.IDLE, node.RESUME)


def show_button(gizmo: Any, shown: bool) -> None:
    """Show or hide the button; a node of an older script has none. Main thread only."""
    if _BUTTON in gizmo.knobs():
        gizmo[_BUTTON].setVisible(shown)


def _waiting(gizmo: Any) -> Optional[Pending]:
    """Return what waits for a node: the newest that has jobs and that nobody works on."""
    cache: Path = node.cache_folder(gizmo, prefs.load())
    found = pending.waiting(cache, str(gizmo["gc_id"].value()))
    ready = [one for one in found if one.jobs and not one.is_held]
    return ready[-1] if ready else None
