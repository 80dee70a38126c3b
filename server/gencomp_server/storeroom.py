# SPDX-License-Identifier: Apache-2.0
"""What a server has to work with, and what it does where that runs short.

Whether a new job can be taken at all (``admission``), whether those that are there have to wait
(``engine/room``), and what is cleared away before they do (``engine/clearing``). It speaks to
nobody: the service tells clients what comes of it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from gencomp_protocol.errors import DiskFull, GencompError, UnwritableOutput
from gencomp_protocol.messages import InputPictures
from gencomp_protocol.request import Request
from gencomp_server.admission import check_fits, check_handles, limits_of, refusal
from gencomp_server.config import ServerConfig
from gencomp_server.contract import Plan, System
from gencomp_server.datekeeper import DAY_S, DateKeeper, uptime
from gencomp_server.engine.clearing import FILES, Clearing, Item, Keeper, to_clear
from gencomp_server.engine.jobtable import JobTable
from gencomp_server.engine.room import BACK, Room
from gencomp_server.engine.spool import Spool
from gencomp_server.logs import job_named

log = logging.getLogger(__name__)

_EXPIRE_EVERY_S = 3600.0
_CLEARED = "What this job left was cleared away to make room."


class Storeroom:
    """Room and limits of one server; used by one thread.

    Args:
        config: The server's settings.
        spool: Its spool.
        table: Its jobs.
        clock: Monotonic seconds.
        wall: The time of day, in seconds.
        beneath: What the time of day is judged by; see ``datekeeper``.
    """

    def __init__(
        self,
        config: ServerConfig,
        spool: Spool,
        table: JobTable,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        beneath: Callable[[], float] = uptime,
    ) -> None:
        self._config, self._spool, self._table, self._clock = config, spool, table, clock
        self._room = Room(spool.root, config.keep_free_bytes, clock=clock)
        self._keeper = Keeper(spool, config.spool_bytes, clock)
        self._limits = limits_of(
            config.memory_bytes, config.spool_bytes, config.keep_free_bytes, spool.root
        )
        self._expire_s = clock() + _EXPIRE_EVERY_S
        self._keep_s = config.keep_days * DAY_S
        self._dates = DateKeeper(self._keep_s, table.moments(), wall=wall, beneath=beneath)

    def close(self) -> None:
        """End what looks at the spool."""
        self._keeper.close()
        self._room.close()

    # --- taking a job ----------------------------------------------------------------------------

    def admit(
        self, system: System, request: Request, plan: Plan, inputs: tuple[InputPictures, ...]
    ) -> None:
        """Refuse a job that cannot be taken: now, or on this machine at all.

        Raises:
            ServerBusy: There is hardly a file descriptor left.
            OutOfMemory: It needs more main memory than there is.
            DiskFull: It needs more room than the spool could ever have.
        """
        check_handles()
        self.check(system, request, plan, inputs)

    def check(
        self, system: System, request: Request, plan: Plan, inputs: tuple[InputPictures, ...]
    ) -> None:
        """Refuse a job that this machine could never take; raises as :meth:`admit`."""
        check_fits(system, request, plan, self._limits, inputs)

    def refusal(self, system: System, request: Request, plan: Plan) -> GencompError | None:
        """Return why a job with this plan would not be taken, or None."""
        return refusal(system, request, plan, self._limits)

    # --- room ------------------------------------------------------------------------------------

    @property
    def is_short(self) -> bool:
        """Tell whether jobs have to wait for room."""
        return self._room.is_short

    @property
    def sentence(self) -> str:
        """What those who wait are told: why, or that they wait no more."""
        return self._room.sentence or BACK

    def lack(self, error: GencompError) -> bool:
        """Note that a write found no room; return whether jobs had not to wait before that."""
        was_short = self.is_short
        self._room.lack(error)
        self._keeper.hasten()
        return not was_short

    def prove(self) -> None:
        """Note that a job found all the room it needed."""
        self._room.prove()

    def turn(self) -> bool:
        """Look, and clear away what has to go.

        Returns:
            True where jobs have to wait now and had not before, or the other way round.
        """
        items = self._keeper.look(self._room.missing_bytes)
        if items is not None:
            self._clear(items)
        if self._clock() >= self._expire_s:
            self._expire_s = self._clock() + _EXPIRE_EVERY_S
            self.expire()
        return self._room.look()

    def expire(self) -> None:
        """Forget jobs that ended ``keep_days`` ago, and pictures that no job has.

        No job is forgotten while the time of day cannot be believed.
        """
        now = self._dates.now()
        forgotten = [] if now is None else self._table.forget_before(now - self._keep_s)
        for job in forgotten:
            with job_named(job):
                log.info("forgotten, with all it delivered: its days are over")
        self._keeper.remove(Clearing(tuple(Item(FILES, job, 0, 0.0) for job in forgotten)))
        self._spool.drop_pictures(self._table.digests())

    def crowd_out(self, account: str) -> None:
        """Forget the oldest ended jobs of an account beyond those that are kept of one."""
        gone: list[str] = []
        with suppress(DiskFull, UnwritableOutput):  # They are forgotten another time.
            gone = self._table.crowd_out(account)
        for job in gone:
            with job_named(job):
                log.info("forgotten: %s has many that ended since", account)
        self._keeper.remove(Clearing(tuple(Item(FILES, job, 0, 0.0) for job in gone)))

    def _clear(self, items: Sequence[Item]) -> None:
        over = self._keeper.excess(items)
        missing = max(over, self._room.missing_bytes)
        if missing:
            clearing = to_clear(items, self._table.holdings(), missing)
            self._keeper.remove(clearing)
            kinds = sorted({item.kind for item in clearing.items})
            log.warning(
                "cleared away %.2f GB of %.2f GB that were missing (%s)",
                clearing.bytes / 1e9,
                missing / 1e9,
                ", ".join(kinds) or "nothing could go",
            )
            over -= clearing.bytes
            # First the room, then the note of it: there may be none for that yet.
            with suppress(DiskFull, UnwritableOutput):
                for item in clearing.items:
                    if item.kind == FILES:
                        self._table.release(item.name)
                        self._table.add_warning(item.name, _CLEARED)
        self._room.fill(over)
