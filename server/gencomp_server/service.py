# SPDX-License-Identifier: Apache-2.0
"""The front process: one ROUTER socket, the two gates, the queue, workers; no pixel, no parser.

Everything happens in one thread, in turns: take what clients, workers and the decoders said,
do what follows from it, ask for more pictures. What that is, a module of ``front/`` to a subject
says; here are a server's life and its turn. It imports neither torch nor cv2 nor OpenImageIO; a
picture is bytes with a digest here. What the messages mean is in ``docs/td/protocol.md``.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import zmq

from gencomp_protocol import messages as m
from gencomp_protocol.codec import request_to_plain
from gencomp_protocol.errors import DiskFull, Quarantined, UnwritableOutput
from gencomp_protocol.locate import ServerFile
from gencomp_protocol.transfer import Expected
from gencomp_protocol.version import __version__
from gencomp_server.admission import raise_handle_limit
from gencomp_server.config import ServerConfig
from gencomp_server.door import Door, shut_out
from gencomp_server.engine.intake import Intake
from gencomp_server.engine.jobtable import JobTable
from gencomp_server.engine.pool import WorkerPool
from gencomp_server.engine.progress import ProgressMeter
from gencomp_server.engine.scheduler import Scheduler
from gencomp_server.engine.spool import Spool, SpoolBudget
from gencomp_server.engine.supervisor import Supervisor, Wear
from gencomp_server.engine.worker import Worker
from gencomp_server.exr.decode import DecodePool
from gencomp_server.front.dispatch import Dispatch
from gencomp_server.front.ending import Ending
from gencomp_server.front.layers import Layers
from gencomp_server.front.pictures import Pictures
from gencomp_server.front.questions import Questions
from gencomp_server.front.requests import Requests
from gencomp_server.front.state import Front
from gencomp_server.front.taking import Taking
from gencomp_server.front.telling import Telling
from gencomp_server.gate import load_registry
from gencomp_server.keys import KeyFolder
from gencomp_server.lifetime import Notice, announced, claimed
from gencomp_server.logs import job_named, unwritable_logs
from gencomp_server.records import Records
from gencomp_server.report import Server
from gencomp_server.sessions import Sessions
from gencomp_server.shared_storage import SharedStorage
from gencomp_server.steady import SteadyClock
from gencomp_server.storeroom import Storeroom
from gencomp_server.vitals import Vitals

log = logging.getLogger(__name__)

SESSION_SILENCE_S = 30.0  # A client that follows a job pings every second.
DRAIN_SILENCE_S = 2.0  # Who follows a job and says nothing for so long holds up no leaving.
_TURN_MS = 250
_MESSAGES_A_TURN = 64
_CLOSE_S = 5.0
LOCK_FILE = "server.lock"
MOST_OUTAGES = 3  # Of the server while it ran a job: then it is the job that ends it.


class Service:
    """A server: made from its settings, run once.

    Args:
        config: Its settings.
        registry: Where the systems are, as ``module:attribute``; None takes the setting.
        clock: Monotonic seconds.
        sources: Where each setting came from, for reports.
    """

    def __init__(
        self,
        config: ServerConfig,
        registry: str | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sources: Mapping[str, str] | None = None,
    ) -> None:
        self._config, self._clock = config, SteadyClock(clock)
        self._sources = sources or {}
        self._registry = registry or config.registry
        self._systems = load_registry(self._registry)
        self._shelf = config.weights_place().shelf()
        self._secret = secrets.token_hex(32)
        self._notice = Notice()
        self._vitals = Vitals()
        self._drain_by_s = float("inf")
        self._busy_s = clock()

    # --- life ------------------------------------------------------------------------------------

    def run(self, on_ready: Callable[[ServerFile], None] | None = None) -> int:
        """Serve until told to leave; return the exit code, 0.

        Args:
            on_ready: Told address and secret once clients can connect and the server file is there.

        Raises:
            ServerUnreachable: The port cannot be had, or another server uses the spool.
            UnwritableOutput: Spool or server file cannot be written.
        """
        raise_handle_limit()
        self._budget = SpoolBudget(self._config.decoded_bytes, self._config.stages_bytes)
        self._spool = Spool(self._config.spool, self._budget)
        with claimed(self._spool.root / LOCK_FILE), self._notice.heard(), self._parts():
            self._recover()
            here = ServerFile(
                self._address,
                self._secret,
                os.getpid(),
                __version__,
                public=self._door.public,
                public_key=self._door.public_key,
            )
            with announced(self._config.state_file, here):
                log.info("ready at %s", self._address)
                if here.public:
                    log.info("with keys at %s; public key %s", here.public, here.public_key)
                if on_ready is not None:
                    on_ready(here)
                self._warn_of_places()
                self._busy_s = self._clock()  # Starting is no idling.
                while not self._is_over():
                    self._turn()
        log.info("left")
        return 0

    def _warn_of_places(self) -> None:
        """Say which files that are written later cannot be; jobs run without them."""
        for complaint in unwritable_logs():
            log.warning(
                "%s Lines go to standard error alone; name another in 'log_file'.", complaint
            )
        complaint = self._records.complaint()
        if complaint:
            log.warning("%s", complaint)

    def stop(self) -> None:
        """Leave now; a running job goes back to the queue. Any thread may call this."""
        self._notice.stop()

    def drain(self) -> None:
        """Take no more work, let the running job end, then leave. Any thread may call this."""
        self._notice.drain()

    @contextmanager
    def _parts(self) -> Iterator[None]:
        """Open the socket, the table, the decoders and the worker; close them at the end."""
        roots = [Path(one) for one in self._config.shared_roots]
        self._shared = SharedStorage(roots, self._notice.wake)
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        try:
            self._door = Door(
                context,
                self._config.host,
                self._config.port,
                KeyFolder(self._config.keys),
                self._config.credit_bytes,
            )
        except BaseException:
            self._shared.close()
            context.term()
            raise
        self._socket, self._address = self._door.socket, self._door.address
        pool = DecodePool(
            self._config.decode_processes,
            memory_bytes=self._config.decode_memory_bytes,
            timeout_s=self._config.decode_timeout_s,
            limits=self._config.picture_limits(),
            places=(self._spool.pictures, self._spool.decoded),
        )
        self._spool.sweep()
        self._table = JobTable(self._spool.database)
        about = Server(self._config, self._sources, secrets=(self._secret,))
        self._records = Records(
            self._table, self._spool, about, lambda: self._workers.machine or {}
        )
        self._storeroom = Storeroom(self._config, self._spool, self._table, self._clock)
        self._intake = Intake(self._spool, pool, self._notice.wake)
        self._sessions = Sessions(self._to_be_sent)
        devices = self._config.devices
        self._workers = WorkerPool([self._supervisor(at, one) for at, one in enumerate(devices)])
        self._share_out()
        self._workers.start()
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._notice.fileno(), zmq.POLLIN)
        self._polled: dict[int, int] = {}
        try:
            yield
        finally:
            for job in self._intake.jobs:
                self._intake.drop(job)
            self._workers.stop(_CLOSE_S)
            closing = threading.Thread(target=pool.close, daemon=True)
            closing.start()
            closing.join(_CLOSE_S)
            self._storeroom.close()
            self._questions.close()
            self._records.close()
            with suppress(DiskFull, UnwritableOutput):  # The next start does it then.
                self._table.recover()
            self._table.close()
            self._shared.close()
            self._door.close()
            context.term()

    def _share_out(self) -> None:
        """Hand the server's state to the parts of the front."""
        self._front = front = Front(
            config=self._config,
            clock=self._clock,
            systems=self._systems,
            shelf=self._shelf,
            secret=self._secret,
            notice=self._notice,
            vitals=self._vitals,
            spool=self._spool,
            table=self._table,
            door=self._door,
            sessions=self._sessions,
            intake=self._intake,
            shared=self._shared,
            storeroom=self._storeroom,
            workers=self._workers,
            scheduler=Scheduler(self._config.share_weights()),
            meter=ProgressMeter(self._clock),
            records=self._records,
        )
        self._telling = Telling(front)
        self._ending = Ending(front, self._telling)
        taking = Taking(front)
        self._pictures = Pictures(front, self._telling, taking, self._ending)
        self._layers = Layers(front, self._telling)
        self._dispatch = Dispatch(front, self._telling, self._ending, self._pictures)
        self._questions = Questions(front, self._telling)
        self._requests = Requests(
            front,
            self._telling,
            taking,
            self._ending,
            self._pictures,
            self._layers,
            self._questions,
        )

    def _supervisor(self, at: int, device: str) -> Supervisor:
        """Return the supervisor of a worker, not yet started.

        Args:
            at: Its number, from 0.
            device: What it runs on.
        """
        config = self._config
        worker = Worker(
            self._registry,
            device,
            self._spool.root,
            log_settings=config.log_settings(),
            budget=self._budget,
            weights=config.weights_place(),
            segmenter=config.segmenter_tool(),
            metadata=config.metadata,
            number=at,
        )
        return Supervisor(
            worker,
            request_to_plain,
            clock=self._clock,
            release_after_s=config.release_after_s,
            no_progress_s=config.no_progress_s,
            wear=Wear(config.recycle_jobs, config.recycle_growth_bytes),
            tail=worker.tail,
        )

    def _recover(self) -> None:
        """Go on where the last server stopped, and clear out what nobody needs."""
        # A server that left has put them back itself: these ran while it died.
        for job_id in self._table.recover(died=True):
            outages = self._table.outages(job_id)
            with job_named(job_id):
                log.info("goes back to the queue (%d of %d)", outages, MOST_OUTAGES)
            if outages >= MOST_OUTAGES:
                words = f"The server died while it ran the job, {outages} attempts in all."
                hint = "Look into the server's log; send a smaller job, or change its knobs."
                self._ending.end(job_id, m.FAILED, Quarantined(words, hint=hint, tries=outages))
        self._storeroom.expire()
        for job in self._table.in_state(m.RECEIVING):
            self._pictures.open(job)
        self._records.catch_up()

    def _is_over(self) -> bool:
        now = self._clock()
        if self._notice.is_over:
            return True
        if self._notice.is_draining:
            return self._is_drained(now)
        is_used = any(not session.is_onlooker for session in self._sessions.all())
        if is_used or self._workers.jobs or self._table.has_queued():
            self._busy_s = now
        idle_s = self._config.idle_exit_s
        return bool(idle_s) and now - self._busy_s > idle_s

    def _is_drained(self, now: float) -> bool:
        """Tell whether nothing runs and nobody who is there fetches, or the time for it is up."""
        if self._drain_by_s == float("inf"):
            log.info("draining for at most %g s", self._config.drain_s)
            self._drain_by_s = now + self._config.drain_s
        if now > self._drain_by_s:
            return True
        if self._workers.jobs:
            return False
        there = self._sessions.heard_since(now - DRAIN_SILENCE_S)
        followed = [self._table.get(job) for session in there for job in session.follows]
        return not any(job is not None and job.state == m.DONE for job in followed)

    # --- a turn ----------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._watch_workers()
        ready = dict(self._poller.poll(_TURN_MS))
        self._notice.clear()
        for step in (self._hear_clients, self._hear_workers, self._hear_intake, self._go_on):
            self._guard(step, ready)

    def _guard(self, step: Callable[[Mapping[Any, int]], None], ready: Mapping[Any, int]) -> None:
        """Run a step of the turn; what nobody foresaw is logged and takes nobody else along."""
        try:
            step(ready)
        except (DiskFull, UnwritableOutput) as error:
            self._pictures.lack(error)
        except Exception:
            log.exception("a turn failed in %s", step.__name__)
            self._vitals.count("faults")

    def _watch_workers(self) -> None:
        """Poll the workers that are there now; one that was started again has another pipe."""
        now: dict[int, int] = {
            one.fileno(): zmq.POLLIN | (zmq.POLLOUT if one.has_unsent else 0)
            for one in self._workers.connections
        }
        for gone in self._polled.keys() - now.keys():
            self._poller.unregister(gone)
        for connection, events in now.items():
            self._poller.register(connection, events)
        self._polled = now

    def _go_on(self, ready: Mapping[Any, int]) -> None:
        """Start the next job, ask for pictures, forget who is silent."""
        if self._storeroom.turn():
            self._pictures.tell_room()
        self._pictures.release_waiting()
        self._dispatch.start_next()
        self._workers.rest_if_idle()
        self._door.watch()
        self._shut_out_revoked()
        self._layers.try_again()
        self._questions.answer_gathered()
        now = self._clock()
        for session in self._sessions.all():
            if not session.receiver.in_flight:
                session.fed_s = now
            self._pictures.ask(session)
        for identity in self._sessions.silent_since(now - SESSION_SILENCE_S):
            self._sessions.drop(identity)

    def _shut_out_revoked(self) -> None:
        """Tell nothing more to clients whose key was revoked while they were listening."""
        for session in self._sessions.all():
            if session.has_key and not self._door.lets_in(session.account):
                log.info("the key %s was revoked: a connection is shut out", session.account)
                self._telling.send(session.identity, m.Refusal(0, shut_out()))
                self._sessions.drop(session.identity)

    def _hear_clients(self, ready: Mapping[Any, int]) -> None:
        for _ in range(_MESSAGES_A_TURN):
            letter = self._door.receive()
            if letter is None:
                return
            self._requests.answer(letter)

    def _hear_workers(self, ready: Mapping[Any, int]) -> None:
        self._dispatch.hear(ready.keys() & self._polled.keys())

    def _hear_intake(self, ready: Mapping[Any, int]) -> None:
        self._pictures.hear()

    def _to_be_sent(self, job: str) -> list[Expected]:
        """Return the pictures that a job lacks and that a client has to send."""
        lacking = self._intake.lacking(job)
        return [one for one in lacking if not self._shared.is_reading(one.digest)]
