# SPDX-License-Identifier: Apache-2.0
"""The background thread of this Nuke: one run of one node after another, and how they end.

Nuke is touched on its main thread only, through a :class:`MainThread`. ::

    main thread                          background thread
    generate ── Run ──► queue ─────────► find or start the server, check the requests
    inputs become files ◄─── call ─────┤
                        └─── files ────► digest, hand every part in, follow them, fetch layers
    status on the node ◄──── post ─────┤
    play the result    ◄──── call ─────┘
"""

import logging
import queue
import threading
from collections.abc import Callable
from typing import Optional

import nuke
from gencomp_nuke import node, prefs, readback, resuming
from gencomp_nuke.mainthread import MainThread
from gencomp_nuke.playing import Result
from gencomp_nuke.prefs import Prefs
from gencomp_nuke.runs import Run, is_attached
from gencomp_nuke.working import Work
from gencomp_protocol.errors import Cancelled, GencompError, InternalError

log = logging.getLogger(__name__)


class Session:
    """The background thread and the runs that it works through, in order.

    Args:
        main: How to reach the main thread.
        settings: Returns the settings of the user; asked anew for every run, for who mends them
            after a failure presses Generate again.
    """

    def __init__(self, main: MainThread, settings: "Callable[[], Prefs]" = prefs.load) -> None:
        self._main, self._settings = main, settings
        self._runs: queue.Queue[Optional[Run]] = queue.Queue()
        self._known: dict[str, Run] = {}
        self._thread = threading.Thread(target=self._loop, name="gencomp", daemon=True)
        self._thread.start()

    def start(self, run: Run) -> None:
        """Put a run in line and say so on the node. Main thread only."""
        self._known[run.identity] = run
        waiting = sum(not other.is_over for other in self._known.values()) - 1
        text = "Waiting for another node of this session." if waiting else "Looking for a server."
        resuming.show_button(run.gizmo, False)
        node.show(run.gizmo, text, node.RUNNING, "waiting" if waiting else "starting")
        self._runs.put(run)

    def run_of(self, identity: str) -> "Optional[Run]":
        """Return the run of a node that has not ended, or None."""
        run = self._known.get(identity)
        return None if run is None or run.is_over else run

    def runs(self) -> "tuple[Run, ...]":
        """Return the last run of every node, ended or not, in the order of their first."""
        return tuple(self._known.values())

    def close(self) -> None:
        """Let the thread end after the runs that are in line."""
        self._runs.put(None)

    # --- on the background thread ----------------------------------------------------------------

    def _loop(self) -> None:
        while True:
            run = self._runs.get()
            if run is None:
                return
            self._work(run)

    def _work(self, run: Run) -> None:
        """Work one run to its end; whatever happens ends as a sentence on the node."""
        try:
            result = Work(run, self._main, self._settings()).result()
            self._main.call(lambda: _end_well(run, result))
        except GencompError as error:
            self._end_badly(run, error)
        except Exception as error:  # The edge of the room: a bug of ours must reach the node.
            log.exception("generate failed")
            self._end_badly(
                run, InternalError(f"gencomp failed ({type(error).__name__}: {error}).")
            )

    def _end_badly(self, run: Run, error: GencompError) -> None:
        run.error = error
        level = logging.INFO if isinstance(error, Cancelled) else logging.ERROR
        log.log(level, "%s: %s", error.code, error)
        try:
            self._main.call(lambda: _show_end(run, error))
        except Exception:  # The node could not be told; waiting for it would never end.
            log.exception("the node could not be told")
            run.finish()


def with_interface() -> Session:
    """Return a session for a Nuke with an interface."""
    return Session(MainThread(nuke.executeInMainThread))


def _end_well(run: Run, result: Result) -> None:
    """Let the node play its result. Main thread."""
    run.finish()
    if is_attached(run.gizmo):
        node.set_job(run.gizmo, "")
        readback.show(run.gizmo, result)
    else:
        log.warning("the node is gone; its result is %s", result.folder)
    _tell_end(run)


def _show_end(run: Run, error: GencompError) -> None:
    """Say on the node why there is no new result. Main thread."""
    run.finish()
    if is_attached(run.gizmo):
        if run.can_go_on:
            resuming.show_waiting(run.gizmo, str(error))
        elif isinstance(error, Cancelled):
            node.set_job(run.gizmo, "")
            readback.say(run.gizmo)
        else:
            node.set_job(run.gizmo, "")
            node.show(run.gizmo, str(error), node.FAILED, "failed")
    _tell_end(run)


def _tell_end(run: Run) -> None:
    """Call whoever wanted to know of the end, once. Main thread."""
    on_end, run.on_end = run.on_end, None
    if on_end is not None:
        on_end(run)
