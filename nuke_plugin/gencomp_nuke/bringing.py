# SPDX-License-Identifier: Apache-2.0
"""Bringing a node its result without an interface: played already, found in the cache, or made.

However many processes mean the same result, one makes it, under the lock of the node's cache; the
others wait for it, or give up, as their policy says, and play what it made.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

from gencomp_nuke import finding, jobs, lock, prefs, readback, runs
from gencomp_nuke.runs import Run
from gencomp_protocol.errors import MissingFrame
from gencomp_protocol.frames import FrameRange

log = logging.getLogger(__name__)

READ, COMPUTE, ERROR = "read", "compute", "error"
POLICIES = (READ, COMPUTE, ERROR)
_LATE_S = 60  # As long as NFS keeps what it knows of a folder, unless it is told otherwise.


class Busy(MissingFrame):
    """Another process makes the result, and nobody wants to wait."""


def bring(
    gizmo: Any,
    make: "Callable[[Run], None]",
    *,
    policy: str = COMPUTE,
    frames: Optional[FrameRange] = None,
    tell: "Callable[[str], None]" = log.info,
    pause: "Callable[[float], None]" = time.sleep,
    is_locked: bool = False,
) -> bool:
    """Let a node play the result of what it is now. Main thread only.

    Args:
        gizmo: A node of ours.
        make: Works on a run until the result is in the cache.
        policy: ``read``: only what is there. ``compute``: wait for whoever makes it, else make it.
            ``error``: make it, but wait for nobody.
        frames: Frames to generate instead of the node's.
        tell: Takes a sentence about what is waited for.
        pause: Waits some seconds; may raise to give up.
        is_locked: Whoever started this process holds the lock.

    Returns:
        Whether it had to be made.

    Raises:
        Busy: Another process makes it, and the policy is ``error``.
        MissingFrame: It is not there, and the policy is ``read``; or it was made, and was not of
            what the node is now.
        GencompError: Why it cannot be made.
    """
    settings = prefs.load()
    run = runs.prepare(gizmo, settings, frames=frames)
    run.key = finding.key_of(run)
    if _found(run, frames):
        return False
    if policy == READ:
        raise MissingFrame(
            f"{gizmo.fullName()} has no result of what it is now in {run.cache}.{_held(run.cache)}",
            hint="Generate it, or let it be computed.",
        )
    if is_locked:
        make(run)
    else:
        waited: list[lock.Owner] = []
        on_wait = _waiting(gizmo, policy, tell, waited)
        with lock.take(run.cache, on_wait, pause, settings.lock_silence_s) as held:
            if waited and held.found:
                _await(run, held.found, pause)
            if _found(run, frames):
                held.leaves = held.found
                return False
            make(run)
            held.leaves = _newest(run.cache)
    if run.folder is None and not _found(run, frames):  # Made by another process.
        raise MissingFrame(
            f"The result of {gizmo.fullName()} was made from something else than the node is now.",
            hint="Save the script, and leave what is connected alone while it is computed.",
        )
    return True


def _found(run: Run, frames: Optional[FrameRange]) -> bool:
    """Let the node play its result where there is one; tell whether there is."""
    folder = finding.find(run)
    if folder is not None:
        if folder != readback.played(run.gizmo):
            finding.play(run.gizmo, folder)
        return True
    return frames is None and finding.is_up_to_date(run.gizmo)


def _await(run: Run, version: str, pause: "Callable[[float], None]") -> None:
    """Wait until a version that another process has just made is seen here, whole.

    A network disk may show a folder that another machine renamed, or what is in it, seconds late.
    """
    for _ in range(_LATE_S):
        if finding.is_whole(run.cache / version, run):
            return
        pause(1.0)
    log.warning("%s was made by another process and is not seen here", run.cache / version)


def _newest(cache: Path) -> str:
    """Return the name of the newest whole version; empty for none."""
    return jobs.whole(cache)[-1].name if jobs.whole(cache) else ""


def _held(cache: Path) -> str:
    owner = lock.holder(cache)
    return "" if owner is None else f" It is being made by {owner}."


def _waiting(
    gizmo: Any, policy: str, tell: "Callable[[str], None]", told: "list[lock.Owner]"
) -> "Callable[[lock.Owner], None]":
    """Return what is called while somebody else holds the lock: it says so once for each.

    Args:
        gizmo: The node.
        policy: Its policy.
        tell: Takes the sentence.
        told: Grows by each holder that was waited for.
    """

    def on_wait(owner: lock.Owner) -> None:
        sentence = f"The result of {gizmo.fullName()} is being made by {owner}."
        if policy == ERROR:
            raise Busy(sentence, hint="Try again later, or wait for it with policy compute.")
        if owner not in told:
            told.append(owner)
            tell(f"{sentence} Waiting for it.")

    return on_wait
