# SPDX-License-Identifier: Apache-2.0
"""From a job's events to sentences on the node."""

import logging
from typing import Any, Optional

from gencomp_nuke.doing import after
from gencomp_nuke.mainthread import MainThread
from gencomp_nuke.runs import Part, Run
from gencomp_nuke.wrapping import spell_seconds
from gencomp_protocol import LayerReady, Progressed, Sent, StateChanged, Warned

log = logging.getLogger(__name__)

_LOADING = "loading"  # How a stage that reads weights is called.


class Watcher:
    """Turns the events of one part's job into sentences on the node.

    Args:
        run: The run.
        main: How to reach the main thread.
        part: The part whose job it is.

    Attributes:
        warnings: What the server did other than asked, one sentence each.
    """

    def __init__(self, run: Run, main: MainThread, part: Part) -> None:
        self._run, self._main, self._part = run, main, part
        self.warnings: list[str] = []
        self._sent, self._here = 0, 0
        several = len(run.parts) > 1 and part.title
        self._before = f"{part.title[:1].upper()}{part.title[1:]}: " if several else ""

    def on_event(self, event: Any) -> None:
        """Say what an event means. Background thread."""
        if self._run.listener is not None:
            self._run.listener(event)
        self._run.doing = after(self._run.doing, event)
        if isinstance(event, Warned):
            self.warnings.append(event.sentence)
            log.warning("%s", event.sentence)
            return
        said = self._words(event)
        if said is not None:
            sentence = self._before + said[0]
            self._run.say(self._main, sentence[:1].upper() + sentence[1:], said[1])

    def _words(self, event: Any) -> "Optional[tuple[str, str]]":
        """Return a sentence and the word or two under the node's name."""
        if isinstance(event, Sent):
            self._sent += 1
            total = sum(len(one.frames) for one in self._part.request.inputs)
            return f"Sending the inputs: {self._sent} of {total}.", "sending"
        if isinstance(event, StateChanged) and event.state == "queued":
            return f"In the server's queue, place {max(event.position, 1)}.", "queued"
        if isinstance(event, Progressed):
            return _progress(event)
        if isinstance(event, LayerReady):
            self._here += 1
            return f"Fetching the layers: {self._here} pictures are here.", "fetching"
        return None


def _progress(event: Progressed) -> "tuple[str, str]":
    """Return a stage as a sentence: loading in percent, any other in steps."""
    if event.stage.startswith(_LOADING) and event.total > 1:
        words = f"{event.stage} {100 * event.step // event.total} %"
        return f"{words[:1].upper()}{words[1:]}.", words
    left = "" if event.eta_s is None else f", about {spell_seconds(event.eta_s)} left"
    stage = event.stage.replace("_", " ")
    return f"{stage}: {event.step} of {event.total}{left}.", f"{stage} {event.step}/{event.total}"
