# SPDX-License-Identifier: Apache-2.0
"""The front process: one ROUTER socket, the two gates, the queue, one worker; no pixel, no parser.

Everything happens in one thread, in turns: take what clients, the worker and the decoders said,
do what follows from it, ask for more pictures. It imports neither torch nor cv2 nor OpenImageIO; a
picture is bytes with a digest here. What the messages mean is in ``docs/td/protocol.md``.
"""

from __future__ import annotations

import dataclasses
import errno
import hmac
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import zmq

from gencomp_protocol import messages as m
from gencomp_protocol.codec import decode, encode, request_id_of, request_to_plain, to_plain
from gencomp_protocol.errors import (
    DiskFull,
    GencompError,
    InternalError,
    MalformedMessage,
    MissingFrame,
    ServerUnreachable,
    Unauthorised,
    UnknownJob,
    UnwritableOutput,
    VersionMismatch,
    WorkerLost,
    error_from_wire,
)
from gencomp_protocol.locate import ServerFile
from gencomp_protocol.request import Request
from gencomp_protocol.sockets import server_socket
from gencomp_protocol.transfer import Arrived, Credit, Receiver, read_stretch
from gencomp_protocol.version import PROTOCOL_VERSION, __version__
from gencomp_server.config import ServerConfig
from gencomp_server.contract import NO_BACKBONE, Machine, System, schema
from gencomp_server.engine.intake import Intake, Passed
from gencomp_server.engine.job import Job
from gencomp_server.engine.jobtable import JobTable, LayerRow
from gencomp_server.engine.machine import from_plain, with_weights
from gencomp_server.engine.progress import ProgressMeter
from gencomp_server.engine.spool import Spool, SpoolBudget
from gencomp_server.engine.supervisor import LOST, READY, RESTING, STARTING, Supervisor
from gencomp_server.engine.worker import Worker
from gencomp_server.exr.decode import DecodePool
from gencomp_server.footprint import CPU
from gencomp_server.forecast import forecast
from gencomp_server.gate import check_pictures, load_registry, open_system, plan_on
from gencomp_server.lifetime import Notice, announced, claimed
from gencomp_server.logs import job_named
from gencomp_server.sessions import Session, Sessions

log = logging.getLogger(__name__)

SESSION_SILENCE_S = 30.0  # A client that follows a job pings every second.
_TURN_MS = 250
_MESSAGES_A_TURN = 64
_CLOSE_S = 5.0
_DAY_S = 86400.0
LOCK_FILE = "server.lock"
MOST_DEATHS = 3  # Of a job's workers: then it is the job that kills them.


class Service:
    """A server: made from its settings, run once.

    Args:
        config: Its settings.
        registry: Where the systems are, as ``module:attribute``; None takes the setting.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        config: ServerConfig,
        registry: str | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._clock = config, clock
        self._registry = registry or config.registry
        self._systems = load_registry(self._registry)
        self._shelf = config.weights_place().shelf()
        self._secret = secrets.token_hex(32)
        self._notice = Notice()
        self._drain_by_s = float("inf")
        self._busy_s = clock()
        self._answers: dict[type[m.Message], Callable[[Session, Any], None]] = {
            m.Check: self._check,
            m.Submit: self._submit,
            m.Follow: self._follow,
            m.Unfollow: self._unfollow,
            m.Cancel: self._cancel,
            m.Release: self._release,
            m.Jobs: self._list_jobs,
            m.JobQuery: self._tell_job,
            m.Ping: self._pong,
            m.Want: self._give_layer,
            m.Chunk: self._take_picture,
            m.Withheld: self._take_picture,
        }

    # --- life ------------------------------------------------------------------------------------

    def run(self, on_ready: Callable[[ServerFile], None] | None = None) -> int:
        """Serve until told to leave; return the exit code, 0.

        Args:
            on_ready: Told address and secret once clients can connect and the server file is there.

        Raises:
            ServerUnreachable: The port cannot be had, or another server uses the spool.
            UnwritableOutput: Spool or server file cannot be written.
        """
        self._budget = SpoolBudget(self._config.decoded_bytes, self._config.stages_bytes)
        self._spool = Spool(self._config.spool, self._budget)
        with claimed(self._spool.root / LOCK_FILE), self._notice.heard(), self._parts():
            self._recover()
            here = ServerFile(self._address, self._secret, os.getpid(), __version__)
            with announced(self._config.state_file, here):
                log.info("ready at %s", self._address)
                if on_ready is not None:
                    on_ready(here)
                while not self._is_over():
                    self._turn()
        log.info("left")
        return 0

    def stop(self) -> None:
        """Leave now; a running job goes back to the queue. Any thread may call this."""
        self._notice.stop()

    def drain(self) -> None:
        """Take no more work, let the running job end, then leave. Any thread may call this."""
        self._notice.drain()

    @contextmanager
    def _parts(self) -> Iterator[None]:
        """Open the socket, the table, the decoders and the worker; close them at the end."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket, self._address = server_socket(context, self._config.host, self._config.port)
        pool = DecodePool(self._config.decode_processes, timeout_s=self._config.decode_timeout_s)
        self._spool.sweep()
        self._table = JobTable(self._spool.database)
        self._intake = Intake(self._spool, pool, self._notice.wake)
        self._sessions = Sessions(self._intake.lacking)
        self._waiting: dict[str, bytes] = {}  # Job to who would send its pictures.
        self._meter = ProgressMeter(self._clock)
        worker = Worker(
            self._registry,
            self._config.device,
            self._spool.root,
            log_level=self._config.log_level,
            budget=self._budget,
            weights=self._config.weights_place(),
            segmenter=self._config.segmenter_tool(),
        )
        self._supervisor = Supervisor(
            worker,
            request_to_plain,
            clock=self._clock,
            release_after_s=self._config.release_after_s,
        )
        self._supervisor.start()
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._notice.fileno(), zmq.POLLIN)
        self._polled_fd: int | None = None
        try:
            yield
        finally:
            for job in self._intake.jobs:
                self._intake.drop(job)
            self._supervisor.stop(_CLOSE_S)
            closing = threading.Thread(target=pool.close, daemon=True)
            closing.start()
            closing.join(_CLOSE_S)
            self._table.recover()
            self._table.close()
            self._socket.close()
            context.term()

    def _recover(self) -> None:
        """Go on where the last server stopped, and clear out what nobody needs."""
        # A server that left has put them back itself: these ran while it died.
        for job_id in self._table.recover(died=True):
            deaths = self._table.deaths(job_id)
            log.info("job %s goes back to the queue (%d of %d)", job_id, deaths, MOST_DEATHS)
            if deaths >= MOST_DEATHS:
                words = f"The server died while it ran the job, {deaths} attempts in all."
                hint = "Look into the server's log; send a smaller job, or change its knobs."
                self._end(job_id, m.FAILED, WorkerLost(words, hint=hint))
        for job_id in self._table.forget_before(time.time() - self._config.keep_days * _DAY_S):
            self._spool.remove_job(job_id)
        jobs = self._table.all()
        self._spool.drop_pictures(frozenset(d for job in jobs for d in job.digests))
        for job in self._table.in_state(m.RECEIVING):
            self._open_intake(job)

    def _is_over(self) -> bool:
        now = self._clock()
        if self._notice.is_over:
            return True
        if self._notice.is_draining:
            return self._is_drained(now)
        if len(self._sessions) or self._supervisor.job or self._table.next_queued():
            self._busy_s = now
        idle_s = self._config.idle_exit_s
        return bool(idle_s) and now - self._busy_s > idle_s

    def _is_drained(self, now: float) -> bool:
        """Tell whether nothing runs and nobody is still fetching, or the time for it is up."""
        if self._drain_by_s == float("inf"):
            log.info("draining for at most %g s", self._config.drain_s)
            self._drain_by_s = now + self._config.drain_s
        if now > self._drain_by_s:
            return True
        if self._supervisor.job is not None:
            return False
        followed = {job for session in self._sessions.all() for job in session.follows}
        return not any(job.state == m.DONE for job in self._table.all() if job.id in followed)

    # --- a turn ----------------------------------------------------------------------------------

    def _turn(self) -> None:
        self._watch_worker()
        ready = dict(self._poller.poll(_TURN_MS))
        self._notice.clear()
        for step in (self._hear_clients, self._hear_worker, self._hear_intake, self._go_on):
            self._guard(step, ready)

    def _guard(self, step: Callable[[Mapping[Any, int]], None], ready: Mapping[Any, int]) -> None:
        """Run a step of the turn; what nobody foresaw is logged and takes nobody else along."""
        try:
            step(ready)
        except Exception:
            log.exception("a turn failed in %s", step.__name__)

    def _watch_worker(self) -> None:
        """Poll the worker that is there now; a worker started again has another pipe."""
        connection = self._supervisor.connection
        now = None if connection is None else connection.fileno()
        if now != self._polled_fd:
            if self._polled_fd is not None:
                self._poller.unregister(self._polled_fd)
            if now is not None:
                self._poller.register(now, zmq.POLLIN)
            self._polled_fd = now

    def _go_on(self, ready: Mapping[Any, int]) -> None:
        """Start the next job, ask for pictures, forget who is silent."""
        self._release_waiting()
        self._start_next()
        self._supervisor.rest_if_idle()
        now = self._clock()
        for session in self._sessions.all():
            if not session.receiver.in_flight:
                session.fed_s = now
            for want in session.receiver.wants():
                self._send(session.identity, want)
            self._take_outcomes(session)
        for identity in self._sessions.silent_since(now - SESSION_SILENCE_S):
            self._sessions.drop(identity)

    # --- clients ---------------------------------------------------------------------------------

    def _hear_clients(self, ready: Mapping[Any, int]) -> None:
        for _ in range(_MESSAGES_A_TURN):
            try:
                identity, *frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._answer(identity, frames)

    def _answer(self, identity: bytes, frames: list[bytes]) -> None:
        """Do what a message says; whatever is wrong with it is refused in one sentence."""
        try:
            message = decode(frames)
            if isinstance(message, m.Hello):
                self._hello(identity, message)
                return
            session = self._sessions.get(identity)
            if session is None:
                raise Unauthorised("This connection did not say hello.", hello=True)
            answer = self._answers.get(type(message))
            if answer is None:
                raise MalformedMessage(f"type: a client does not send {message.TYPE}.")
            session.heard_s = self._clock()
            answer(session, message)
        except GencompError as error:
            self._send(identity, m.Refusal(request_id_of(frames), error))
        except Exception:
            mark = secrets.token_hex(4)
            log.exception("fault %s in answering a message", mark)
            fault = InternalError(
                f"The server made a mistake ({mark}).", hint="Its log says more.", id=mark
            )
            self._send(identity, m.Refusal(request_id_of(frames), fault))

    def _send(self, identity: bytes, message: m.Message) -> None:
        """Send a message; a client that is gone, or does not read, is forgotten."""
        try:
            self._socket.send_multipart([identity, *encode(message)], zmq.NOBLOCK, copy=False)
        except zmq.ZMQError as error:
            if error.errno not in (errno.EAGAIN, errno.EHOSTUNREACH):
                raise
            self._sessions.drop(identity)

    def _tell(self, job: str, message: m.Message) -> None:
        """Send an event to everybody who follows a job."""
        for session in self._sessions.followers(job):
            self._send(session.identity, message)

    def _hello(self, identity: bytes, hello: m.Hello) -> None:
        if hello.protocol[0] != PROTOCOL_VERSION[0]:
            theirs, ours = (".".join(map(str, v)) for v in (hello.protocol, PROTOCOL_VERSION))
            raise VersionMismatch(
                f"The client speaks protocol {theirs}, the server {ours}.",
                hint="Install the same release of gencomp on both sides.",
            )
        if not hmac.compare_digest(hello.secret.encode(), self._secret.encode()):
            log.warning("a client was turned away: wrong secret")
            raise Unauthorised(
                "The secret does not open this server.",
                hint="It changes at every start; look it up again.",
            )
        credit = self._config.credit_bytes
        session = Session(
            identity=identity,
            name=hello.client,
            receiver=Receiver(credit, self._config.chunk_bytes),
            owed=Credit(credit),
            heard_s=self._clock(),
            fed_s=self._clock(),
        )
        self._sessions.drop(identity)
        self._sessions.add(session)
        limits = {
            "credit_bytes": credit,
            "chunk_bytes": self._config.chunk_bytes,
            "message_bytes": m.MESSAGE_BYTES,
        }
        systems = tuple(to_plain(schema(system)) for system in self._systems)
        state = self._supervisor.state
        self._send(
            identity, m.Welcome(hello.id, PROTOCOL_VERSION, __version__, limits, systems, state)
        )

    def _pong(self, session: Session, message: m.Ping) -> None:
        self._send(session.identity, m.Pong(message.id))

    # --- the first gate --------------------------------------------------------------------------

    def _system(self, request: Request) -> System:
        """Return the system asked for, where the header of the request is in order."""
        if self._notice.is_draining:
            raise ServerUnreachable("The server is about to leave.", hint="Try again in a minute.")
        fault = self._supervisor.fault
        if fault is not None:
            self._supervisor.wake()  # It may be there the next time.
            raise fault
        return open_system(self._systems, request)

    def _machine(self) -> Machine:
        """Return what jobs run on, as far as the worker told, with what is installed now."""
        told = self._supervisor.machine
        found = Machine(self._config.device) if told is None else from_plain(told)
        found = dataclasses.replace(found, segmenter=self._config.segmenter_tool() is not None)
        return with_weights(found, self._shelf, self._config.allowed_licences)

    def _awaits_machine(self, job: Job) -> bool:
        """Tell whether a job may yet be refused once the worker has looked at its device."""
        if self._supervisor.machine is not None or self._supervisor.state != STARTING:
            return False
        systems = [one for one in self._systems if one.name == job.request.system]
        return any(one.backbone != NO_BACKBONE for one in systems)

    def _release_waiting(self) -> None:
        """Plan again, on the machine that is known now, what was taken before it was.

        A job that it refuses has sent nothing yet; of the others pictures are now asked for.
        """
        for job_id, identity in list(self._waiting.items()):
            job, session = self._known(job_id), self._sessions.get(identity)
            if self._awaits_machine(job):
                continue
            del self._waiting[job_id]
            try:
                fault = self._supervisor.fault
                if fault is not None:
                    raise fault
                system = open_system(self._systems, job.request)
                plan_on(system, job.request, self._machine())
            except GencompError as error:
                self._end(job_id, m.REFUSED, error)
                continue
            if session is not None and job.state == m.RECEIVING:
                self._sessions.serve(session, job_id)

    def _check(self, session: Session, message: m.Check) -> None:
        system = self._system(message.request)
        machine = self._machine()
        found, refusal = forecast(system, message.request, machine)
        plan = dataclasses.asdict(found)
        plan["device"] = machine.name or machine.device
        plan["on_cpu"] = machine.device == CPU
        plan["refusal"] = None if refusal is None else refusal.to_wire()
        plan["layers"] = to_plain(system.layers(message.request))
        self._send(session.identity, m.Planned(message.id, to_plain(plan)))

    def _submit(self, session: Session, message: m.Submit) -> None:
        job = self._table.standing(message.key)
        if job is None:
            system = self._system(message.request)
            check_pictures(message.request, message.inputs)
            if system.backbone != NO_BACKBONE:
                plan_on(system, message.request, self._machine())
            job = self._table.add(message.key, message.request, message.inputs)
            with job_named(job.id):
                log.info("%s %s from %s", system.name, job.request.frames, session.name)
            self._intake.open(job, system)
            self._supervisor.wake()
        self._accept(session, message.id, job)

    def _accept(self, session: Session, request_id: int, job: Job) -> None:
        position = self._table.position(job)
        self._send(session.identity, m.Accepted(request_id, job.id, job.state, position))

    def _open_intake(self, job: Job) -> None:
        """Go on receiving a job after a restart; one that is no longer taken is refused."""
        try:
            system = open_system(self._systems, job.request)
        except GencompError as error:
            self._end(job.id, m.REFUSED, error)
            return
        self._intake.open(job, system)

    # --- following -------------------------------------------------------------------------------

    def _known(self, job_id: str) -> Job:
        job = self._table.get(job_id)
        if job is None:
            raise UnknownJob(
                f"The server has no job {job_id[:64]!r}.", hint="Submit it again; it may be old."
            )
        return job

    def _follow(self, session: Session, message: m.Follow) -> None:
        job = self._known(message.job)
        session.follows.add(job.id)
        self._accept(session, message.id, job)
        self._replay(session, job)
        if message.serves and job.state == m.RECEIVING:
            if self._awaits_machine(job):
                self._waiting[job.id] = session.identity
            else:
                self._sessions.serve(session, job.id)

    def _replay(self, session: Session, job: Job) -> None:
        """Tell a new follower everything that happened to a job so far."""
        events: list[m.Message] = [m.StateEvent(job.id, job.state, self._table.position(job))]
        events += [m.WarningEvent(job.id, text) for text in self._table.warnings(job.id)]
        events += [_layer_event(job.id, row) for row in self._table.layers(job.id)]
        progress = self._meter.last(job.id)
        if progress is not None:
            events.append(progress)
        end = self._end_event(job)
        for event in [*events, *([] if end is None else [end])]:
            self._send(session.identity, event)

    def _end_event(self, job: Job) -> m.Message | None:
        if job.state == m.DONE:
            return m.DoneEvent(job.id, to_plain(self._spool.read_manifest(job.id) or {}))
        if job.state == m.CANCELLED:
            return m.CancelledEvent(job.id)
        if job.state in (m.FAILED, m.REFUSED):
            return m.FailedEvent(job.id, error_from_wire(job.error or {}))
        return None

    def _unfollow(self, session: Session, message: m.Unfollow) -> None:
        session.follows.discard(message.job)
        self._send(session.identity, m.Acknowledged(message.id))

    def _cancel(self, session: Session, message: m.Cancel) -> None:
        job = self._known(message.job)
        self._send(session.identity, m.Acknowledged(message.id))
        if job.state == m.RUNNING:
            self._supervisor.cancel(job.id)
        elif not job.has_ended:
            self._end(job.id, m.CANCELLED)

    def _release(self, session: Session, message: m.Release) -> None:
        job = self._known(message.job)
        if not job.has_ended:
            raise MalformedMessage("release.job: the job has not ended; cancel it first.")
        manifest = self._spool.read_manifest(job.id)
        self._table.release(job.id)
        self._spool.remove_job(job.id)
        if manifest is not None:
            self._spool.write_manifest(job.id, manifest)
        self._send(session.identity, m.Acknowledged(message.id))

    def _list_jobs(self, session: Session, message: m.Jobs) -> None:
        jobs = tuple(self._describe(job) for job in self._table.all())
        self._send(session.identity, m.JobList(message.id, jobs))

    def _tell_job(self, session: Session, message: m.JobQuery) -> None:
        jobs = (self._describe(self._known(message.job)),)
        self._send(session.identity, m.JobList(message.id, jobs))

    def _describe(self, job: Job) -> dict[str, Any]:
        return {
            "job": job.id,
            "system": job.request.system,
            "state": job.state,
            "position": self._table.position(job),
            "frames": str(job.request.frames),
            "client": job.request.client,
            "created_s": job.created_s,
            "started_s": job.started_s,
            "ended_s": job.ended_s,
            "error": None if job.error is None else dict(job.error),
            "released": job.released,
        }

    # --- pictures --------------------------------------------------------------------------------

    def _give_layer(self, session: Session, want: m.Want) -> None:
        """Answer a want for a layer with its bytes, or with why there are none."""
        session.owed.take(want)
        try:
            row = self._table.layer(want.job, want.name, want.frame)
            if want.what != m.LAYER or row is None:
                raise MissingFrame(
                    f"The server has no layer '{want.name[:64]}' frame {want.frame} of that job.",
                    hint="It was released, or is not made yet.",
                )
            place = self._spool.layer(want.job, want.name, want.frame)
            answer: m.Message = read_stretch(place, row.bytes, want)
        except MalformedMessage:
            raise
        except GencompError as error:
            answer = m.Withheld(want.job, want.what, want.name, want.frame, error)
        self._send(session.identity, answer)

    def _take_picture(self, session: Session, message: m.Chunk | m.Withheld) -> None:
        session.fed_s = self._clock()
        session.receiver.take(message)
        self._take_outcomes(session)

    def _take_outcomes(self, session: Session) -> None:
        for outcome in session.receiver.outcomes():
            if isinstance(outcome, Arrived):
                self._sessions.arrived(outcome.picture.digest)
                self._intake.arrived(outcome.picture.digest)
            else:
                self._end(outcome.picture.job, m.REFUSED, outcome.error)

    def _hear_intake(self, ready: Mapping[Any, int]) -> None:
        """Queue the jobs whose pictures are all in order; refuse those with one that is not."""
        for outcome in self._intake.outcomes():
            if not isinstance(outcome, Passed):
                self._end(outcome.job.id, m.REFUSED, outcome.error)
                continue
            for sentence in outcome.warnings:
                self._warn(outcome.job.id, sentence)
            self._sessions.forget(outcome.job.id)
            if self._table.move(outcome.job.id, m.QUEUED):
                self._tell_state(outcome.job.id)

    # --- the worker ------------------------------------------------------------------------------

    def _start_next(self) -> None:
        state = self._supervisor.state
        if self._notice.is_draining or state not in (READY, RESTING, LOST):
            return
        job = self._table.next_queued()
        if job is None:
            return
        if state == RESTING:
            self._supervisor.wake()
            return
        if state == LOST:
            fault = self._supervisor.fault
            words, hint = "The server cannot start its worker.", "Its log says why."
            self._end(job.id, m.FAILED, fault or WorkerLost(words, hint=hint))
            return
        self._table.move(job.id, m.RUNNING)
        self._supervisor.run(job)
        self._tell_state(job.id)
        for waiting in self._table.in_state(m.QUEUED):
            self._tell_state(waiting.id)

    def _hear_worker(self, ready: Mapping[Any, int]) -> None:
        said = self._supervisor.read() if self._polled_fd in ready else []
        for message in [*said, *self._supervisor.overdue()]:
            job = str(message.get("job", ""))
            with job_named(job or "-"):
                self._heed(str(message["is"]), job, message)

    def _heed(self, kind: str, job: str, message: Mapping[str, Any]) -> None:
        """Pass on what the worker said of a job, after noting it."""
        if kind == "progress":
            step, total = int(message["step"]), int(message["total"])
            event = self._meter.note(job, str(message["stage"]), step, total)
            if event is not None:
                self._tell(job, event)
        elif kind == "warning":
            self._warn(job, str(message["sentence"]))
        elif kind == "layer":
            row = LayerRow(message["layer"], message["frame"], message["bytes"], message["digest"])
            if self._table.layer(job, row.layer, row.frame) != row:  # told before its worker died
                self._table.add_layer(job, row)
                self._tell(job, _layer_event(job, row))
        elif kind == "done":
            self._finish(job, message["manifest"])
        elif kind == "failed":
            self._end(job, m.FAILED, error_from_wire(message["error"]))
        elif kind == "lost":
            self._try_again(job, error_from_wire(message["error"]))
        elif kind == "cancelled":
            self._end(job, m.CANCELLED)

    def _finish(self, job: str, manifest: Mapping[str, Any]) -> None:
        """Note that a job is done; one whose manifest finds no room has failed."""
        try:
            if self._spool.read_manifest(job) is None:
                self._spool.write_manifest(job, manifest)
        except (DiskFull, UnwritableOutput) as error:
            self._end(job, m.FAILED, error)
            return
        self._end(job, m.DONE)

    def _try_again(self, job: str, error: GencompError) -> None:
        """Queue a job again whose worker died under it; fail one of which that is known by now.

        Finished stages and checkpoints are kept, so it goes on where it was. What it delivered
        stays: the same bits come again.
        """
        deaths = self._table.count_death(job)
        if deaths >= MOST_DEATHS:
            words = f"{error.message.rstrip('.')}, the {deaths}rd time."
            self._end(job, m.FAILED, WorkerLost(words, hint=error.hint))
            return
        self._warn(
            job,
            f"{error.message} The job goes on from its last finished step "
            f"(attempt {deaths + 1} of {MOST_DEATHS}).",
        )
        self._meter.forget(job)
        if self._table.move(job, m.QUEUED):
            self._tell_state(job)

    # --- what happens to a job -------------------------------------------------------------------

    def _warn(self, job: str, sentence: str) -> None:
        if self._table.add_warning(job, sentence):
            self._tell(job, m.WarningEvent(job, sentence))

    def _tell_state(self, job_id: str) -> None:
        job = self._known(job_id)
        self._tell(job_id, m.StateEvent(job_id, job.state, self._table.position(job)))

    def _end(self, job_id: str, state: str, error: GencompError | None = None) -> None:
        """Bring a job to its end, once, and tell everybody who follows it."""
        self._intake.drop(job_id)
        self._waiting.pop(job_id, None)
        self._sessions.forget(job_id)
        self._meter.forget(job_id)
        if not self._table.move(job_id, state, None if error is None else error.to_wire()):
            return
        with job_named(job_id):
            log.info("%s%s", state, "" if error is None else f": {error}")
        self._tell_state(job_id)
        end = self._end_event(self._known(job_id))
        if end is not None:
            self._tell(job_id, end)
        self._spool.trim_decoded()


def _layer_event(job: str, row: LayerRow) -> m.LayerEvent:
    return m.LayerEvent(job, row.layer, row.frame, row.bytes, row.digest)
