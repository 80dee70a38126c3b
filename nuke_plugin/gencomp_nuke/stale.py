# SPDX-License-Identifier: Apache-2.0
"""When a node looks whether its result is out of date, and says so: amber, and in words.

It looks when its panel is opened, a knob of its own is turned, something else is connected, or a
script was loaded; and half a second after the last knob of a node above it was turned. What it
looks at is in ``madefrom.py``.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Optional

import nuke
from gencomp_nuke import node, readback
from gencomp_nuke.fingerprint import LOOKS, VARIABLES
from gencomp_nuke.madefrom import KEY, changed, of_inputs

log = logging.getLogger(__name__)

_QUIET_S = 0.5
_ANYWHERE = "*"  # A graph scope variable was set: whatever names it may show something else.


def check(gizmo: Any) -> None:
    """Let a node show whether its result is out of date; one that runs or failed says that."""
    if KEY not in gizmo.knobs() or not str(gizmo[KEY].value()):
        return
    state = node.state_of(gizmo)
    if state not in (node.IDLE, node.STALE):
        return
    words, said = changed(gizmo), " ".join(str(gizmo["gc_status"].value()).split())
    says_else = said.startswith(node.OUT_OF_DATE) and f"{words} since." not in said
    if bool(words) != (state == node.STALE) or says_else:
        readback.say(gizmo)


class Watch:
    """Collects what is turned elsewhere in the script, and looks once it is quiet."""

    def __init__(self) -> None:
        # Taken now: the thread that waits may outlive the Nuke that it was made in, in tests.
        self._send = nuke.executeInMainThread
        self._turned: set[str] = set()
        self._last = 0.0
        self._waits = False

    def knob_changed(self) -> None:
        """Note what was turned. Nuke calls it for every knob, so it does next to nothing.

        One thread waits for the quiet, however often something is turned: a slider that is dragged
        turns its knob a hundred times a second.
        """
        turned, knob = nuke.thisNode(), nuke.thisKnob()
        if turned is None or knob is None or knob.name() in LOOKS or node.is_ours(turned):
            return
        self._note(_ANYWHERE if knob.name() == VARIABLES else str(turned.fullName()))

    def variable_set(self, *_: Any) -> None:
        """Note that a graph scope variable was set. Newer Nukes call it."""
        self._note(_ANYWHERE)

    def _note(self, name: str) -> None:
        self._turned.add(name)
        self._last = time.monotonic()
        if not self._waits:
            self._waits = True
            threading.Thread(target=self._wait, name="gencomp quiet", daemon=True).start()

    def _wait(self) -> None:
        """Wait until nothing was turned for a while, and have the main thread look."""
        left = _QUIET_S
        while left > 0:
            time.sleep(left)
            left = self._last + _QUIET_S - time.monotonic()
        self._send(self.look)

    def look(self) -> None:
        """Look at the nodes of ours that lie beneath what was turned. Main thread only."""
        self._waits = False
        turned, self._turned = self._turned, set()
        for gizmo in _with_result():
            self._send(_checked, (gizmo, turned))


def loaded() -> None:
    """Look at every node once a script is open. Nuke calls it; never raises.

    What was said when a node came to be may be of the place that the script was saved at.
    """
    for gizmo in _with_result():
        if node.state_of(gizmo) != node.RUNNING and gizmo["gc_note"].value() != node.RESUME:
            _checked(gizmo, look=readback.say)


def _with_result() -> "list[Any]":
    return [n for n in node.in_script() if KEY in n.knobs() and n[KEY].value()]


def _checked(
    gizmo: Any,
    turned: "Optional[set[str]]" = None,
    look: "Callable[[Any], None]" = check,
) -> None:
    """Look at a node, where names are given only if one of them lies in it or above it."""
    try:
        if turned is None or _is_beneath(gizmo, turned):
            look(gizmo)
    except Exception:  # The edge of the room: Nuke must not stop opening a script for it.
        log.exception("a node could not be looked at")


def _is_beneath(gizmo: Any, turned: "set[str]") -> bool:
    if _ANYWHERE in turned:
        return True
    inside = str(gizmo.fullName()) + "."
    return any(name.startswith(inside) for name in turned) or bool(turned & of_inputs(gizmo)[1])
