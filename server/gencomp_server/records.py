# SPDX-License-Identifier: Apache-2.0
"""What the front keeps and tells of jobs beside their pictures: stages, reports, the ledger.

The table is read and written by the front's thread. What may take long is not done there: the
ledger, which other servers may hold and which may lie on a share, is written by a thread of its
own, and a report is a call that any thread may make.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

from gencomp_protocol.errors import GencompError, UnwritableOutput
from gencomp_protocol.messages import DONE, RUNNING
from gencomp_server.engine import graph
from gencomp_server.engine.job import Job
from gencomp_server.engine.jobtable import JobTable
from gencomp_server.engine.spool import Spool
from gencomp_server.ledger import Entry, Ledger, entry_of
from gencomp_server.report import Server, gather

log = logging.getLogger(__name__)


class Records:
    """Stages, reports and ledger of one server's jobs.

    Args:
        table: Its jobs.
        spool: Its spool.
        server: What reports say of it.
        machine: Tells what its workers told of the device, as plain data; empty before they did.
    """

    def __init__(
        self,
        table: JobTable,
        spool: Spool,
        server: Server,
        machine: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        self._table, self._spool, self._server = table, spool, server
        self._machine = machine
        self._ledger = Ledger(server.config.ledger)
        self._owed: list[Entry] = []  # Of the thread.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")

    def close(self) -> None:
        """Wait until what is done is in the ledger, or cannot be written now."""
        self._thread.shutdown()

    def note_stage(self, job: str, plain: Mapping[str, Any]) -> None:
        """Keep how a stage stands that a worker told of; no job fails where that has no room."""
        try:
            self._table.note_stage(job, graph.from_plain(plain))
        except (sqlite3.Error, GencompError) as error:
            log.warning("stage %s is not noted (%s)", plain.get("name"), error)

    def stages(self, job: Job) -> list[graph.StageRow]:
        """Return a job's stages; none runs of a job that does not."""
        rows = self._table.stages(job.id)
        return rows if job.state == RUNNING else [graph.stopped(row) for row in rows]

    def reporter(self, job: Job, *, with_prompts: bool = False) -> Callable[[], dict[str, Any]]:
        """Return what gathers a job's report; it reads files alone, and up to 16 MiB of the log.

        See ``report.py``; any thread may call it.
        """
        server = replace(self._server, machine=dict(self._machine()))
        stages, warnings = self.stages(job), self._table.warnings(job.id)
        return partial(
            gather, job, stages, warnings, self._spool, server, with_prompts=with_prompts
        )

    def delivered(self, job: str) -> None:
        """Have a job that is done entered into the ledger; where that fails, with the next one."""
        entry = self._entry(job)
        if entry is None:
            return
        try:
            self._thread.submit(self._enter, entry)
        except RuntimeError:  # No thread is left for it.
            self._enter(entry)

    def complaint(self) -> str:
        """Return why nothing can be entered into the ledger; empty where it can."""
        try:
            self._ledger.check()
        except UnwritableOutput as error:
            return str(error)
        return ""

    def catch_up(self) -> None:
        """Enter what is done and is not in the ledger: its server was killed in between."""
        try:
            known = self._ledger.jobs()
        except GencompError as error:
            log.error("%s", error)
            return
        for job in self._table.in_state(DONE):
            if job.id not in known:
                self.delivered(job.id)

    def _entry(self, job_id: str) -> Entry | None:
        job, manifest = self._table.get(job_id), self._spool.read_manifest(job_id)
        if job is None or manifest is None or job.state != DONE:
            return None
        return entry_of(job, manifest)

    def _enter(self, entry: Entry) -> None:
        owed, self._owed = [*self._owed, entry], []
        for one in owed:
            try:
                self._ledger.add(one)
            except UnwritableOutput as error:
                log.error("%s", error)
                self._owed.append(one)


def named(error: GencompError, job: str) -> GencompError:
    """Return a job's error, its details naming the report that can be gathered of it."""
    error.details.setdefault("report", job)
    return error
