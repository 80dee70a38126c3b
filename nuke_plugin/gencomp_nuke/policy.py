# SPDX-License-Identifier: Apache-2.0
"""What a render without an interface does where a node has no result: stop, or make it.

Nuke calls :func:`before_render` before each Write. Every node of ours above it follows its own knob
``gc_policy``::

    read      plays what is there; stops where a frame of it is missing, unless ``gc_missing`` says
              what is shown there: then a line tells
    compute   first makes the result of what the node is now, once however many render it
    error     stops unless the result is whole and of what the node is now

Beyond the frames of a result its first or last one is held, or nothing is there, as ``gc_outside``
says, and a line tells at each such frame; with ``error`` it stops there, too. It stops by an
exception, which Nuke takes for the end of the render; one line says why. Reading needs nothing but
Nuke. Computing is done by a Nuke of its own from the script as it is on disk, since a render cannot
start another one inside itself.
"""

import logging
import subprocess
from pathlib import Path
from typing import Any

import nuke
from gencomp_nuke import stock, upstream

log = logging.getLogger(__name__)

_KNOB = "gc_policy"
_READ, _COMPUTE, _ERROR = "read", "compute", "error"
_PROGRAM = Path(__file__).with_name("batch.py")
_LAST_LINES = 3


class PolicyError(RuntimeError):
    """A node has no result, and its policy is not to render then."""


def watch() -> None:
    """Let Nuke ask before every Write. Calling it again changes nothing."""
    if not nuke.GUI:
        nuke.removeBeforeRender(before_render)
        nuke.addBeforeRender(before_render)
        nuke.removeBeforeFrameRender(before_frame)
        nuke.addBeforeFrameRender(before_frame)


def before_render() -> None:
    """Let every node above the Write that renders follow its policy.

    Raises:
        PolicyError: One of them has no result, and the render has to stop.
    """
    if nuke.GUI:
        return
    for gizmo in upstream.ours_above([nuke.thisNode()]):
        try:
            follow(gizmo)
        except PolicyError as error:
            nuke.tprint(f"Error: {error}")
            raise


def before_frame() -> None:
    """Tell of every node that holds a frame of its result where it has none for this one.

    Raises:
        PolicyError: It is not to be held.
    """
    if nuke.GUI:
        return
    for gizmo in upstream.ours_above([nuke.thisNode()], is_same_frame=True):
        held = stock.holds(gizmo, int(nuke.frame()))
        if not held or _KNOB not in gizmo.knobs():
            continue
        if str(gizmo[_KNOB].value()) == _ERROR:
            nuke.tprint(f"Error: {held} {_cure(gizmo)}")
            raise PolicyError(f"{held} {_cure(gizmo)}")
        nuke.tprint(held)


def follow(gizmo: Any) -> None:
    """Do what a node's policy says. One of a script from before there were any is left alone.

    Raises:
        PolicyError: The render has to stop.
    """
    if _KNOB not in gizmo.knobs():
        return
    policy = str(gizmo[_KNOB].value())
    if policy == _COMPUTE:
        _compute(gizmo)
    missing, shown = stock.gap(gizmo) if policy == _READ else ("", "")
    if shown:
        nuke.tprint(f"{gizmo.fullName()} plays a result {missing}: {shown}.")
        return
    why = stock.lacks(gizmo)
    if not why and policy == _ERROR:
        why = _out_of_date(gizmo)
    if why:
        raise PolicyError(f"{why} {_cure(gizmo)}")


def _cure(gizmo: Any) -> str:
    name = gizmo.fullName()
    return f"Generate {name} first, or set its knob 'without a result' to compute."


def _out_of_date(gizmo: Any) -> str:
    """Return in a sentence why a result is not of what its node is now; empty where it is."""
    try:
        from gencomp_nuke import madefrom
    except ImportError as error:
        return f"Whether {gizmo.fullName()} is out of date cannot be told here ({error})."
    changed = madefrom.changed(gizmo)
    if changed == madefrom.FRAMES_CHANGED:  # Those that render are looked at one by one.
        return ""
    return f"{gizmo.fullName()} is out of date: {changed}." if changed else ""


def _compute(gizmo: Any) -> None:
    """Let a node play the result of what it is now, made by another Nuke where there is none.

    Raises:
        PolicyError: It cannot be made; says why.
    """
    try:
        from gencomp_nuke import bringing
        from gencomp_protocol.errors import GencompError
    except ImportError as error:
        raise PolicyError(f"Nothing can be computed here: {error}.") from error
    try:
        bringing.bring(gizmo, lambda run: _in_another_nuke(gizmo), tell=nuke.tprint)
    except GencompError as error:
        raise PolicyError(f"{gizmo.fullName()}: {error}") from error


def _in_another_nuke(gizmo: Any) -> None:
    """Let a Nuke of its own generate a node, whose lock this process holds.

    Raises:
        PolicyError: It could not; says what it said.
    """
    from gencomp_nuke import prefs

    settings = prefs.load()
    nukes = settings.words(settings.background_nuke) or (nuke.EXE_PATH, "-t")
    script, name = nuke.root().name(), str(gizmo.fullName())
    words = [*nukes, str(_PROGRAM), script, f"--nodes={name}", "--policy=compute", "--locked"]
    log.info("computing %s: %s", name, " ".join(words))
    try:
        ended = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except OSError as error:
        raise PolicyError(
            f"The Nuke that computes, {words[0]}, does not start ({error})."
        ) from error
    if ended.returncode != 0:
        lines = [line.strip() for line in ended.stdout.splitlines() if line.strip()]
        said = " ".join(lines[-_LAST_LINES:]) or f"it ended with code {ended.returncode}."
        raise PolicyError(f"{name} could not be computed: {said}")
