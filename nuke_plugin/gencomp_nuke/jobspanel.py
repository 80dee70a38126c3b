# SPDX-License-Identifier: Apache-2.0
"""What the Jobs panel shows and does, without Qt: a row per run, its cancel, notices and log.

Imports nothing that could be broken: the panel is where an artist reads what is.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gencomp_nuke.lookout import Lookout, Seen
from gencomp_nuke.wrapping import spell_bytes, spell_seconds

COLUMNS = ("Node", "State", "Progress", "Left", "Queue", "GPU memory")
WAITING, QUEUED, RUNNING = "waiting", "queued", "running"
DONE, FAILED, CANCELLED = "done", "failed", "cancelled"
_GONE = "(deleted)"


@dataclass(frozen=True)
class Row:
    """One run as the panel shows it.

    Attributes:
        identity: Of the node.
        state: One of the words above.
        cells: A text for each of ``COLUMNS``.
        sentence: What the node says, or why there is no result.
    """

    identity: str
    state: str
    cells: "tuple[str, ...]"
    sentence: str

    @property
    def is_over(self) -> bool:
        """Tell whether the run has ended."""
        return self.state in (DONE, FAILED, CANCELLED)


class Model:
    """The panel's content.

    Args:
        runs: Returns the runs of this Nuke, oldest first.
        lookout: Looks up what cannot be known without waiting.
    """

    def __init__(self, runs: "Callable[[], Sequence[Any]]", lookout: Lookout) -> None:
        self._runs, self._lookout = runs, lookout
        self._hidden: list[Any] = []

    def rows(self) -> "tuple[Row, ...]":
        """Return a row per run, newest first. Main thread only: it asks nodes for their names."""
        shown = [run for run in self._runs() if not self._is_hidden(run)]
        return tuple(row_of(run) for run in reversed(shown))

    def seen(self) -> Seen:
        """Return what was found last, and let somebody look again; never waits."""
        self._lookout.refresh(time.monotonic())
        return self._lookout.latest

    def cancel(self, identity: str) -> bool:
        """Stop the run of a node; return whether there is one that has not ended."""
        going = [run for run in self._runs() if run.identity == identity and not run.is_over]
        for run in going:
            run.cancel()
        return bool(going)

    def hide_ended(self) -> None:
        """Leave out the runs that have ended by now."""
        self._hidden = [run for run in self._runs() if run.is_over]

    def _is_hidden(self, run: Any) -> bool:
        return any(run is other for other in self._hidden)

    def show_node(self, identity: str) -> None:
        """Open the panel of a node. Main thread only."""
        for run in self._runs():
            if run.identity == identity and name_of(run) != _GONE:
                run.gizmo.showControlPanel()


def row_of(run: Any) -> Row:
    """Return a run as the panel shows it. Main thread only."""
    doing, state = run.doing, state_of(run)
    is_over = state in (DONE, FAILED, CANCELLED)
    percent = doing.percent
    progress = doing.stage if percent is None else f"{doing.stage} {percent} %"
    if doing.frames:
        progress = f"{doing.frames} frames are here"
    known_left = doing.left_s is not None and not is_over
    cells = (
        name_of(run),
        state,
        "" if is_over else progress,
        spell_seconds(doing.left_s) if known_left else "",
        str(doing.place) if doing.place and not is_over else "",
        spell_bytes(doing.memory_bytes) if doing.memory_bytes else "",
    )
    return Row(run.identity, state, cells, doing.sentence if run.error is None else str(run.error))


def state_of(run: Any) -> str:
    """Return the word for how a run stands."""
    if run.is_over:
        if run.error is None:
            return DONE
        return CANCELLED if run.error.code == "cancelled" else FAILED
    if not run.doing.sentence:
        return WAITING
    return QUEUED if run.doing.place else RUNNING


def name_of(run: Any) -> str:
    """Return the full name of a run's node; of one that was deleted, a word for that."""
    try:
        return str(run.gizmo.fullName())
    except ValueError:  # Nuke's way to say that a node was deleted.
        return _GONE
