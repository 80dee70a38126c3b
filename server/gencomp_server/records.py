# SPDX-License-Identifier: Apache-2.0
"""What the front keeps and tells of jobs beside their pictures: stages, reports, the ledger."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from gencomp_protocol.errors import GencompError, UnwritableOutput
from gencomp_protocol.messages import DONE, RUNNING
from gencomp_server.engine import graph
from gencomp_server.engine.job import Job
from gencomp_server.engine.jobtable import JobTable
from gencomp_server.engine.spool import Spool
from gencomp_server.ledger import Ledger, entry_of
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
        self._owed: list[str] = []

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

    def report(self, job: Job, *, with_prompts: bool = False) -> dict[str, Any]:
        """Return a job's report; see ``report.py``."""
        server = replace(self._server, machine=dict(self._machine()))
        stages, warnings = self.stages(job), self._table.warnings(job.id)
        return gather(job, stages, warnings, self._spool, server, with_prompts=with_prompts)

    def delivered(self, job: str) -> None:
        """Enter a job that is done into the ledger; what could not be written is tried again."""
        owed, self._owed = [*self._owed, job], []
        for one in owed:
            self._enter(one)

    def catch_up(self) -> None:
        """Enter what is done and is not in the ledger: its server was killed in between."""
        try:
            known = self._ledger.jobs()
        except GencompError as error:
            log.error("%s", error)
            return
        for job in self._table.in_state(DONE):
            if job.id not in known:
                self._enter(job.id)

    def _enter(self, job_id: str) -> None:
        job, manifest = self._table.get(job_id), self._spool.read_manifest(job_id)
        if job is None or manifest is None or job.state != DONE:
            return
        try:
            self._ledger.add(entry_of(job, manifest))
        except UnwritableOutput as error:
            log.error("%s", error)
            self._owed.append(job_id)


def named(error: GencompError, job: str) -> GencompError:
    """Return a job's error, its details naming the report that can be gathered of it."""
    error.details.setdefault("report", job)
    return error
