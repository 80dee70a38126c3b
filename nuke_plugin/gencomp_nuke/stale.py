# SPDX-License-Identifier: Apache-2.0
"""When a node looks whether its result is out of date, and says so: amber, and in words.

It looks when its panel is opened, a knob of its own is turned, something else is connected, or a
script was loaded; and half a second after the last knob of a node above it was turned. What it
looks at is in ``madefrom.py``.
"""

import logging
import threading
from typing import Any, Optional

import nuke
from gencomp_nuke import node, readback
from gencomp_nuke.fingerprint import LOOKS
from gencomp_nuke.madefrom import KEY, changed, of_inputs

log = logging.getLogger(__name__)

_QUIET_S = 0.5


def check(gizmo: Any) -> None:
    """Let a node show whether its result is out of date; one that runs or failed says that."""
    if KEY not in gizmo.knobs() or not str(gizmo[KEY].value()):
        return
    state = node.state_of(gizmo)
    if state in (node.IDLE, node.STALE) and bool(changed(gizmo)) != (state == node.STALE):
        readback.say(gizmo)


class Watch:
    """Collects what is turned elsewhere in the script, and looks once it is quiet."""

    def __init__(self) -> None:
        self._turned: set[str] = set()
        self._timer: Optional[threading.Timer] = None

    def knob_changed(self) -> None:
        """Note what was turned. Nuke calls it for every knob, so it does next to nothing."""
        turned, knob = nuke.thisNode(), nuke.thisKnob()
        if turned is None or knob is None or knob.name() in LOOKS or node.is_ours(turned):
            return
        self._turned.add(str(turned.fullName()))
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(_QUIET_S, self._wake)
        self._timer.daemon = True
        self._timer.start()

    def _wake(self) -> None:
        nuke.executeInMainThread(self.look)

    def look(self) -> None:
        """Look at the nodes of ours that lie beneath what was turned. Main thread only."""
        turned, self._turned = self._turned, set()
        for gizmo in _with_result():
            inside = str(gizmo.fullName()) + "."
            is_inside = any(name.startswith(inside) for name in turned)
            if is_inside or turned & of_inputs(gizmo)[1]:
                nuke.executeInMainThread(_checked, (gizmo,))


def loaded() -> None:
    """Look at every node once a script is open. Nuke calls it; never raises."""
    for gizmo in _with_result():
        _checked(gizmo)


def _with_result() -> "list[Any]":
    found = nuke.allNodes(group=nuke.root(), recurseGroups=True)
    return [n for n in found if node.is_ours(n) and KEY in n.knobs() and n[KEY].value()]


def _checked(gizmo: Any) -> None:
    try:
        check(gizmo)
    except Exception:  # The edge of the room: Nuke must not stop opening a script for it.
        log.exception("a node could not be looked at")
