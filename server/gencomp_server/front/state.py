# SPDX-License-Identifier: Apache-2.0
"""What every part of the front works with; it decides nothing by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gencomp_protocol.errors import UnknownJob
from gencomp_server.config import ServerConfig
from gencomp_server.contract import System
from gencomp_server.door import Door
from gencomp_server.engine.intake import Intake
from gencomp_server.engine.job import Job
from gencomp_server.engine.jobtable import JobTable
from gencomp_server.engine.pool import WorkerPool
from gencomp_server.engine.progress import ProgressMeter
from gencomp_server.engine.scheduler import Scheduler
from gencomp_server.engine.spool import Spool
from gencomp_server.lifetime import Notice
from gencomp_server.records import Records
from gencomp_server.sessions import Sessions
from gencomp_server.shared_storage import SharedStorage
from gencomp_server.storeroom import Storeroom
from gencomp_server.vitals import Vitals
from gencomp_server.weights import Shelf


@dataclass(frozen=True)
class Front:
    """One server's state while it serves; used by the front's thread alone.

    Attributes:
        config: Its settings.
        clock: Monotonic seconds.
        systems: What can be asked for.
        shelf: The weights that are installed.
        secret: What a client of this machine has to know.
        notice: Whether the server is to leave.
        vitals: What it counts.
        spool: Its files.
        table: Its jobs.
        door: Where messages come in and go out.
        sessions: Who is connected.
        intake: Jobs whose pictures are on their way.
        shared: Pictures that are read where they lie.
        storeroom: Room and limits.
        workers: Who runs jobs.
        scheduler: Whose turn it is.
        meter: How far running jobs are.
        records: Stages, reports, the ledger.
        waiting: Jobs that wait for the machine to be known, to who would send their pictures.
        held: Jobs that wait for room, to who would send their pictures; None for nobody.
        cancelling: Jobs that run and were cancelled.
    """

    config: ServerConfig
    clock: Callable[[], float]
    systems: tuple[System, ...]
    shelf: Shelf
    secret: str
    notice: Notice
    vitals: Vitals
    spool: Spool
    table: JobTable
    door: Door
    sessions: Sessions
    intake: Intake
    shared: SharedStorage
    storeroom: Storeroom
    workers: WorkerPool
    scheduler: Scheduler
    meter: ProgressMeter
    records: Records
    waiting: dict[str, bytes] = field(default_factory=dict)
    held: dict[str, bytes | None] = field(default_factory=dict)
    cancelling: set[str] = field(default_factory=set)

    def known(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            UnknownJob: There is none of that id.
        """
        job = self.table.get(job_id)
        if job is None:
            raise UnknownJob(
                f"The server has no job {job_id[:64]!r}.",
                hint="gencomp jobs lists those it has; one that is too old is submitted again.",
            )
        return job
