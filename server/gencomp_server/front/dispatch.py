# SPDX-License-Identifier: Apache-2.0
"""Jobs to workers, and what workers say of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from typing import Any

from gencomp_protocol import messages as m
from gencomp_protocol.errors import (
    DiskFull,
    GencompError,
    Quarantined,
    UnwritableOutput,
    WorkerLost,
    error_from_wire,
)
from gencomp_server.engine.jobtable import LayerRow, Turn
from gencomp_server.engine.room import waits
from gencomp_server.engine.supervisor import LOST
from gencomp_server.front.ending import Ending
from gencomp_server.front.pictures import Pictures
from gencomp_server.front.state import Front
from gencomp_server.front.telling import Telling, layer_event
from gencomp_server.logs import job_named

_ENDS = frozenset(("done", "failed", "lost", "cancelled"))  # After which no worker runs a job.


class Dispatch:
    """Hands jobs out and heeds what becomes of them.

    Args:
        front: Whose jobs and workers.
        telling: Tells those who follow a job.
        ending: Ends jobs.
        pictures: Has everything wait where a job found no room.
    """

    def __init__(self, front: Front, telling: Telling, ending: Ending, pictures: Pictures) -> None:
        self._front, self._telling = front, telling
        self._ending, self._pictures = ending, pictures
        self._unheeded: deque[Mapping[str, Any]] = deque()  # What workers said, not noted yet.

    def start_next(self) -> None:
        """Give free workers the jobs whose turn it is; have others come up for the rest."""
        if self._front.notice.is_draining or self._front.storeroom.is_short:
            return
        waiting = self._front.table.waiting()
        has_begun = False
        while waiting and self._front.workers.has_free:
            turn = self._front.scheduler.next(waiting, self._front.clock())
            assert turn is not None
            waiting.remove(turn)
            self._begin(turn)
            has_begun = True
        if waiting and self._front.workers.state == LOST:
            fault = self._front.workers.fault
            words, hint = "The server cannot start its worker.", "Its log says why."
            self._ending.end(waiting[0].job, m.FAILED, fault or WorkerLost(words, hint=hint))
        elif waiting:
            self._front.workers.wake(len(waiting))
        if has_begun:
            self._telling.tell_positions()

    def _begin(self, turn: Turn) -> None:
        self._front.table.move(turn.job, m.RUNNING)
        self._front.scheduler.began(turn, self._front.clock())
        self._front.workers.run(self._front.known(turn.job))
        self._telling.tell_state(turn.job)

    def hear(self, ready: Collection[int]) -> None:
        """Take in what workers said whose connections have something, by file descriptor."""
        self._unheeded.extend(self._front.workers.read(ready))
        self._unheeded.extend(self._front.workers.overdue())
        while self._unheeded:
            message = self._unheeded.popleft()
            job = str(message.get("job", ""))
            try:
                with job_named(job or "-"):
                    self._heed_or_fail(str(message["is"]), job, message)
            except (DiskFull, UnwritableOutput):  # The table: it is heeded again in the next turn.
                self._unheeded.appendleft(message)
                raise

    def _heed_or_fail(self, kind: str, job: str, message: Mapping[str, Any]) -> None:
        """Heed a message; where the end of a job cannot be noted, that it failed is noted."""
        try:
            self._heed(kind, job, message)
        except (DiskFull, UnwritableOutput):
            raise
        except Exception as error:
            if kind not in _ENDS:
                raise
            fault = self._telling.fault(error, "in ending a job")
            found = self._front.table.get(job)
            if found is not None and found.state == m.RUNNING:
                self._ending.end(job, m.FAILED, fault)

    def _heed(self, kind: str, job: str, message: Mapping[str, Any]) -> None:
        """Pass on what a worker said of a job, after noting it."""
        if kind in _ENDS:
            self._front.scheduler.ended(job, self._front.clock())
        if kind == "progress":
            step, total = int(message["step"]), int(message["total"])
            event = self._front.meter.note(job, str(message["stage"]), step, total)
            if event is not None:
                self._telling.tell(job, event)
        elif kind == "warning":
            self._telling.warn(job, str(message["sentence"]))
        elif kind == "stage":
            self._front.records.note_stage(job, message["stage"])
        elif kind == "layer":
            row = LayerRow(message["layer"], message["frame"], message["bytes"], message["digest"])
            noted = self._front.table.layer(job, row.layer, row.frame)
            if noted != row:  # Else it was told before its worker died.
                self._front.table.add_layer(job, row)
                self._front.vitals.count("layers")
                self._front.vitals.count("layer_bytes", row.bytes)
                self._telling.tell(job, layer_event(job, row))
        elif kind == "done":
            self._finish(job, message["manifest"])
        elif kind == "failed":
            self._fail(job, error_from_wire(message["error"]))
        elif kind == "lost":
            self._try_again(job, error_from_wire(message["error"]))
        elif kind == "cancelled":
            self._ending.end(job, m.CANCELLED)

    def _finish(self, job: str, manifest: Mapping[str, Any]) -> None:
        """Note that a job is done; one whose manifest finds no room has failed."""
        try:
            if self._front.spool.read_manifest(job) is None:
                self._front.spool.write_manifest(job, manifest)
        except (DiskFull, UnwritableOutput) as error:
            self._fail(job, error)
            return
        self._ending.end(job, m.DONE)
        self._front.storeroom.prove()
        self._front.records.delivered(job)

    def _fail(self, job: str, error: GencompError) -> None:
        """End a job that failed; one that found no room goes back to its place and waits for it.

        What is finished is kept, so it goes on where it was.
        """
        if not waits(error):
            self._ending.end(job, m.FAILED, error)
        elif job in self._front.cancelling:
            self._ending.end(job, m.CANCELLED)
        elif self._front.table.move(job, m.QUEUED):
            self._front.meter.forget(job)
            self._telling.tell_state(job)
            self._pictures.lack(error, job)

    def _try_again(self, job: str, error: GencompError) -> None:
        """Queue a job again whose worker died under it; put away one of which that is known by now.

        Finished stages and checkpoints are kept, so it goes on where it was. What it delivered
        stays: the same bits come again.
        """
        deaths = self._front.table.count_death(job)
        self._front.vitals.count("worker_deaths")
        if deaths >= self._front.config.tries:
            times = "once" if deaths == 1 else f"{deaths} times"
            words = f"{error.message.rstrip('.')}; that happened {times}, and it is not run again."
            put_away = Quarantined(words, hint=error.hint, tries=deaths, **error.details)
            self._ending.end(job, m.FAILED, put_away)
            return
        self._telling.warn(
            job,
            f"{error.message} The job goes on from its last finished step "
            f"(attempt {deaths + 1} of {self._front.config.tries}).",
        )
        self._front.meter.forget(job)
        if self._front.table.move(job, m.QUEUED):
            self._telling.tell_state(job)
