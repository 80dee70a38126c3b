# SPDX-License-Identifier: Apache-2.0
"""Questions of clients that change nothing: the queue, a job, the server's health."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from gencomp_protocol import messages as m
from gencomp_protocol.codec import HEADER_BYTES
from gencomp_protocol.errors import MissingFrame, ServerBusy
from gencomp_server.engine import graph
from gencomp_server.engine.job import Job
from gencomp_server.front.state import Front
from gencomp_server.front.telling import Telling
from gencomp_server.sessions import Session

MOST_LISTED = 5000  # Jobs in a list, beside those that have not ended.
_LIST_BYTES = HEADER_BYTES - (1 << 20)
_MOST_CLIENT = 128  # Characters of what a client calls itself, in a list of jobs.
_MOST_REPORTS = 8  # That are being gathered; each holds up to some megabytes of the log.


@dataclass(frozen=True)
class _Asked:
    """A report that is being gathered, and who wants it."""

    identity: bytes
    number: int
    job: str
    files: Future[dict[str, Any]]


class Questions:
    """Answers questions.

    Args:
        front: Who is asked.
        telling: Sends the answers.

    Attributes:
        answers: Who answers which type of message.
    """

    def __init__(self, front: Front, telling: Telling) -> None:
        self._front, self._telling = front, telling
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reports")
        self._asked: list[_Asked] = []
        self.answers: dict[type[m.Message], Callable[[Session, Any], None]] = {
            m.Jobs: self._list_jobs,
            m.JobQuery: self._tell_job,
            m.Graph: self._tell_graph,
            m.Report: self._give_report,
            m.Health: self._tell_health,
            m.Sheet: self._tell_sheet,
        }

    def _list_jobs(self, session: Session, message: m.Jobs) -> None:
        places = self._telling.positions()
        listed = self._front.table.listed(min(message.most or MOST_LISTED, MOST_LISTED))
        # What has not ended first: as many as one message holds.
        kept: dict[str, dict[str, Any]] = {}
        room = _LIST_BYTES
        for job in sorted(listed, key=lambda one: one.has_ended):
            entry = self._describe(job, places)
            room -= len(json.dumps(entry))
            if room < 0:
                break
            kept[job.id] = entry
        jobs = tuple(kept[job.id] for job in listed if job.id in kept)
        self._telling.send(session.identity, m.JobList(message.id, jobs))

    def _tell_job(self, session: Session, message: m.JobQuery) -> None:
        job = self._front.known(message.job)
        more = {
            "knobs": dict(job.request.knobs),
            "warnings": list(self._front.table.warnings(job.id)),
        }
        jobs = ({**self._describe(job, self._telling.positions()), **more},)
        self._telling.send(session.identity, m.JobList(message.id, jobs))

    def _tell_graph(self, session: Session, message: m.Graph) -> None:
        job = self._front.known(message.job)
        rows = tuple(graph.to_plain(row) for row in self._front.records.stages(job))
        self._telling.send(session.identity, m.JobGraph(message.id, job.id, job.state, rows))

    def _give_report(self, session: Session, message: m.Report) -> None:
        job = self._front.known(message.job)
        gather = self._front.records.reporter(job, with_prompts=message.with_prompts)
        try:
            if len(self._asked) >= _MOST_REPORTS:
                raise RuntimeError
            files = self._thread.submit(gather)
        except RuntimeError as error:  # No thread is left, or too many ask.
            raise ServerBusy(
                "The server is gathering as many reports as it can.",
                hint="Try again in a minute.",
            ) from error
        self._asked.append(_Asked(session.identity, message.id, job.id, files))
        files.add_done_callback(lambda _: self._front.notice.wake())

    def answer_gathered(self) -> None:
        """Send the reports that are gathered by now."""
        gathered = [one for one in self._asked if one.files.done()]
        self._asked = [one for one in self._asked if one not in gathered]
        for one in gathered:
            try:
                answer = m.Reported(one.number, one.job, one.files.result())
                self._telling.send(one.identity, answer)
            except Exception as error:
                self._telling.refuse(one.identity, one.number, error)

    def close(self) -> None:
        """Gather nothing more; what is being gathered is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _describe(self, job: Job, places: Mapping[str, int]) -> dict[str, Any]:
        progress = self._front.meter.last(job.id)
        return {
            "job": job.id,
            "system": job.request.system,
            "state": job.state,
            "position": places.get(job.id, 0),
            "frames": str(job.request.frames),
            "client": job.request.client[:_MOST_CLIENT],
            "created_s": job.created_s,
            "started_s": job.started_s,
            "ended_s": job.ended_s,
            "error": None if job.error is None else dict(job.error),
            "released": job.released,
            "progress": None if progress is None else _steps(progress),
            "account": job.account,
            "show": job.show,
            "shot": job.shot,
            "priority": job.priority,
            "tries": job.tries,
        }

    def _tell_health(self, session: Session, message: m.Health) -> None:
        report = self._front.vitals.report(
            front="draining" if self._front.notice.is_draining else "ready",
            workers=self._front.workers.described(self._front.config.devices),
            jobs=self._front.table.count_by_state(),
            connections=len(self._front.sessions),
            spool=self._front.spool.root,
            log_file=self._front.config.log_settings().file,
        )
        counts = dict(self._front.door.counts)  # In one go: the doorkeeper counts meanwhile.
        report["counts"].update({f"door:{name}": n for name, n in counts.items()})
        self._telling.send(session.identity, m.HealthReport(message.id, report))

    def _tell_sheet(self, session: Session, message: m.Sheet) -> None:
        job = self._front.known(message.job)
        sheet = self._front.spool.read_sheet(job.id)
        if sheet is None or len(sheet) > m.CHUNK_BYTES:
            raise MissingFrame(
                f"The job {job.id} has no contact sheet.",
                hint="One is drawn when a job is done, and kept until the job is forgotten.",
            )
        self._telling.send(session.identity, m.SheetPicture(message.id, job.id, sheet))


def _steps(event: m.ProgressEvent) -> dict[str, Any]:
    """Return how far a stage is, as ``job_list`` has it."""
    how_far = {"stage": event.stage, "step": event.step, "total": event.total}
    return {**how_far, "eta_s": event.eta_s}
