# SPDX-License-Identifier: Apache-2.0
"""The front process: one ROUTER socket, the two gates, the queue, workers; no pixel, no parser.

Everything happens in one thread, in turns: take what clients, workers and the decoders said,
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
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import zmq

from gencomp_protocol import messages as m
from gencomp_protocol.codec import decode, encode, request_id_of, request_to_plain, to_plain
from gencomp_protocol.errors import (
    BadKnob,
    DiskFull,
    GencompError,
    InternalError,
    MalformedMessage,
    MissingFrame,
    Quarantined,
    QuotaExceeded,
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
from gencomp_protocol.transfer import Arrived, Credit, Expected, Receiver, read_stretch
from gencomp_protocol.version import PROTOCOL_VERSION, __version__
from gencomp_server.admission import raise_handle_limit
from gencomp_server.colour.spaces import BUILTIN
from gencomp_server.config import ServerConfig
from gencomp_server.contract import NO_BACKBONE, Machine, System, schema
from gencomp_server.door import HELLO_BYTES, Door, Letter, shut_out
from gencomp_server.engine import graph
from gencomp_server.engine.intake import Intake, Passed, Spoilt
from gencomp_server.engine.job import Job
from gencomp_server.engine.jobtable import JobTable, LayerRow, Turn
from gencomp_server.engine.machine import from_plain, with_weights
from gencomp_server.engine.pool import WorkerPool
from gencomp_server.engine.progress import ProgressMeter
from gencomp_server.engine.room import waits
from gencomp_server.engine.scheduler import Scheduler
from gencomp_server.engine.spool import Spool, SpoolBudget
from gencomp_server.engine.supervisor import LOST, Supervisor, Wear
from gencomp_server.engine.worker import Worker
from gencomp_server.exr.decode import DecodePool, picture_label
from gencomp_server.footprint import CPU
from gencomp_server.forecast import forecast
from gencomp_server.gate import check_pictures, load_registry, open_system, plan_on
from gencomp_server.keys import KeyFolder
from gencomp_server.lifetime import Notice, announced, claimed
from gencomp_server.logs import escaped, job_named
from gencomp_server.provenance import texts_of
from gencomp_server.records import Records, named
from gencomp_server.report import Server
from gencomp_server.sessions import Session, Sessions
from gencomp_server.shared_storage import SharedStorage
from gencomp_server.steady import SteadyClock
from gencomp_server.storeroom import Storeroom
from gencomp_server.vitals import Vitals

log = logging.getLogger(__name__)

SESSION_SILENCE_S = 30.0  # A client that follows a job pings every second.
_TURN_MS = 250
_MESSAGES_A_TURN = 64
_LOOK_UP_S = 1.0  # Weights are looked up anew after so long; many submits may come in a second.
_CLOSE_S = 5.0
_MOST_CLIENT = 128  # Characters of what a client calls itself, in a list of jobs.
_MOST_WORDS = 1000  # Characters of what it says of a picture; a list has the words of every job.
LOCK_FILE = "server.lock"
UNNAMED = "unnamed"  # The account of clients that name none.
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
        self._looked_up: tuple[Machine, Any, float] | None = None
        self._answers: dict[type[m.Message], Callable[[Session, Any], None]] = {
            m.Check: self._check,
            m.Submit: self._submit,
            m.Follow: self._follow,
            m.Unfollow: self._unfollow,
            m.Cancel: self._cancel,
            m.Release: self._release,
            m.Jobs: self._list_jobs,
            m.JobQuery: self._tell_job,
            m.Graph: self._tell_graph,
            m.Report: self._give_report,
            m.Ping: self._pong,
            m.Health: self._tell_health,
            m.Sheet: self._tell_sheet,
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
        )
        self._spool.sweep()
        self._table = JobTable(self._spool.database)
        about = Server(self._config, self._sources, secrets=(self._secret,))
        self._records = Records(
            self._table, self._spool, about, lambda: self._workers.machine or {}
        )
        self._storeroom = Storeroom(self._config, self._spool, self._table, self._clock)
        self._held: dict[str, bytes | None] = {}  # Job without room to who would send its pictures.
        self._cancelling: set[str] = set()  # Jobs that run and were cancelled.
        self._unanswered: list[tuple[bytes, m.Want]] = []  # Wants for what cannot be read now.
        self._unheeded: deque[Mapping[str, Any]] = deque()  # What workers said, not noted yet.
        self._intake = Intake(self._spool, pool, self._notice.wake)
        self._sessions = Sessions(self._to_be_sent)
        self._waiting: dict[str, bytes] = {}  # Job to who would send its pictures.
        self._meter = ProgressMeter(self._clock)
        self._scheduler = Scheduler(self._config.share_weights())
        devices = self._config.devices
        self._workers = WorkerPool([self._supervisor(at, one) for at, one in enumerate(devices)])
        self._workers.start()
        self._poller = zmq.Poller()
        self._poller.register(self._socket, zmq.POLLIN)
        self._poller.register(self._notice.fileno(), zmq.POLLIN)
        self._polled: set[int] = set()
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
            with suppress(DiskFull, UnwritableOutput):  # The next start does it then.
                self._table.recover()
            self._table.close()
            self._shared.close()
            self._door.close()
            context.term()

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
                self._end(job_id, m.FAILED, Quarantined(words, hint=hint, tries=outages))
        self._storeroom.expire()
        for job in self._table.in_state(m.RECEIVING):
            self._open_intake(job)
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
        """Tell whether nothing runs and nobody is still fetching, or the time for it is up."""
        if self._drain_by_s == float("inf"):
            log.info("draining for at most %g s", self._config.drain_s)
            self._drain_by_s = now + self._config.drain_s
        if now > self._drain_by_s:
            return True
        if self._workers.jobs:
            return False
        followed = {job for session in self._sessions.all() for job in session.follows}
        return not any(job.state == m.DONE for job in self._table.listed() if job.id in followed)

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
            self._lack(error)
        except Exception:
            log.exception("a turn failed in %s", step.__name__)
            self._vitals.count("faults")

    def _watch_workers(self) -> None:
        """Poll the workers that are there now; one that was started again has another pipe."""
        now = {connection.fileno() for connection in self._workers.connections}
        for gone in self._polled - now:
            self._poller.unregister(gone)
        for new in now - self._polled:
            self._poller.register(new, zmq.POLLIN)
        self._polled = now

    def _go_on(self, ready: Mapping[Any, int]) -> None:
        """Start the next job, ask for pictures, forget who is silent."""
        if self._storeroom.turn():
            self._tell_room()
        self._release_waiting()
        self._start_next()
        self._workers.rest_if_idle()
        self._door.watch()
        self._shut_out_revoked()
        unanswered, self._unanswered = self._unanswered, []
        for identity, want in unanswered:
            asking = self._sessions.get(identity)
            if asking is not None:
                self._answer_want(asking, want)
        now = self._clock()
        for session in self._sessions.all():
            if not session.receiver.in_flight:
                session.fed_s = now
            for want in () if self._storeroom.is_short else session.receiver.wants():
                self._send(session.identity, want)
            self._take_outcomes(session)
        for identity in self._sessions.silent_since(now - SESSION_SILENCE_S):
            self._sessions.drop(identity)

    def _shut_out_revoked(self) -> None:
        """Tell nothing more to clients whose key was revoked while they were listening."""
        for session in self._sessions.all():
            if session.has_key and not self._door.lets_in(session.account):
                log.info("the key %s was revoked: a connection is shut out", session.account)
                self._send(session.identity, m.Refusal(0, shut_out()))
                self._sessions.drop(session.identity)

    # --- clients ---------------------------------------------------------------------------------

    def _hear_clients(self, ready: Mapping[Any, int]) -> None:
        for _ in range(_MESSAGES_A_TURN):
            letter = self._door.receive()
            if letter is None:
                return
            self._answer(letter)

    def _answer(self, letter: Letter) -> None:
        """Do what a message says; whatever is wrong with it is refused in one sentence."""
        identity, frames = letter.identity, letter.frames
        session = self._sessions.get(identity)
        try:
            if letter.fault is not None:
                if isinstance(letter.fault, Unauthorised):
                    self._sessions.drop(identity)
                raise letter.fault
            if session is None:
                self._door.check_stranger(letter)
            message = decode(frames)
            if isinstance(message, m.Hello):
                self._hello(letter, message)
                return
            if session is None:
                raise Unauthorised("This connection did not say hello.", hello=True)
            answer = self._answers.get(type(message))
            if answer is None:
                raise MalformedMessage(f"type: a client does not send {message.TYPE}.")
            session.heard_s = self._clock()
            answer(session, message)
        except GencompError as error:
            self._vitals.count(f"refused:{error.code}")
            is_unread = session is None and sum(map(len, frames)) > HELLO_BYTES
            number = 0 if is_unread else request_id_of(frames)
            self._send(identity, m.Refusal(number, error))
            self._door.blame(letter, error)
        except Exception:
            mark = secrets.token_hex(4)
            log.exception("fault %s in answering a message", mark)
            self._vitals.count("faults")
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

    def _hello(self, letter: Letter, hello: m.Hello) -> None:
        identity = letter.identity
        if hello.protocol[0] != PROTOCOL_VERSION[0]:
            theirs, ours = (".".join(map(str, v)) for v in (hello.protocol, PROTOCOL_VERSION))
            older = "client" if hello.protocol < PROTOCOL_VERSION else "server"
            raise VersionMismatch(
                f"The client speaks protocol {theirs}, the server {ours}.",
                hint=f"Upgrade the {older}: the same release of gencomp on both sides always fits.",
                older=older,
            )
        # A key that is let in was proven to ZeroMQ; who has none has to know the secret.
        if not letter.key and not hmac.compare_digest(hello.secret.encode(), self._secret.encode()):
            log.warning("a client was turned away: wrong secret")
            raise Unauthorised(
                "The secret does not open this server.",
                hint="It changes at every start; look it up again.",
            )
        credit = self._config.credit_bytes
        session = Session(
            identity=identity,
            name=hello.client,
            account=letter.key or hello.account or UNNAMED,
            receiver=Receiver(credit, self._config.chunk_bytes),
            owed=Credit(credit),
            heard_s=self._clock(),
            fed_s=self._clock(),
            has_key=bool(letter.key),
        )
        self._sessions.drop(identity)
        self._sessions.add(session)
        self._door.know(letter)
        limits = {
            "credit_bytes": credit,
            "chunk_bytes": self._config.chunk_bytes,
            "message_bytes": m.MESSAGE_BYTES,
        }
        systems = tuple(to_plain(schema(system)) for system in self._systems)
        state = self._workers.state
        self._send(
            identity,
            m.Welcome(
                hello.id,
                PROTOCOL_VERSION,
                __version__,
                limits,
                systems,
                state,
                shares=bool(self._shared),
            ),
        )

    def _pong(self, session: Session, message: m.Ping) -> None:
        # It has had our answer to the ping before, and so what was wanted of it before that.
        session.receiver.give_up(session.asked)
        session.asked = session.receiver.asked
        self._send(session.identity, m.Pong(message.id))

    # --- the first gate --------------------------------------------------------------------------

    def _check_colours(self, session: Session, request: Request) -> None:
        """Refuse, unopened, a colour config that a client from elsewhere may not name.

        Raises:
            BadKnob: What it may name.
        """
        is_file = request.ocio and not request.ocio.startswith(BUILTIN)
        if not session.has_key or not is_file or request.ocio in self._config.ocio_configs:
            return
        raise BadKnob(
            "This server opens no OpenColorIO config that a client names by its path.",
            hint="Use a built-in one (ocio://NAME), or have the path listed in the server's "
            "setting 'ocio_configs'.",
            knob="ocio",
        )

    def _system(self, request: Request) -> System:
        """Return the system asked for, where the header of the request is in order."""
        if self._notice.is_draining:
            raise ServerUnreachable("The server is about to leave.", hint="Try again in a minute.")
        fault = self._workers.fault
        if fault is not None:
            self._workers.wake()  # It may be there the next time.
            raise fault
        return open_system(self._systems, request)

    def _machine(self) -> Machine:
        """Return what jobs run on, as far as the worker told, with what is installed now."""
        told, now = self._workers.machine, self._clock()
        if self._looked_up is not None:
            found, of, at_s = self._looked_up
            if of == told and now - at_s < _LOOK_UP_S:
                return found
        found = Machine(self._config.devices[0]) if told is None else from_plain(told)
        found = dataclasses.replace(found, segmenter=self._config.segmenter_tool() is not None)
        found = with_weights(found, self._shelf, self._config.allowed_licences)
        self._looked_up = (found, told, now)
        return found

    def _awaits_machine(self, job: Job) -> bool:
        """Tell whether a job may yet be refused once a worker has looked at its device."""
        if not self._workers.awaits_machine:
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
                fault = self._workers.fault
                if fault is not None:
                    raise fault
                system = open_system(self._systems, job.request)
                plan = plan_on(system, job.request, self._machine())
                self._storeroom.check(system, job.request, plan, job.inputs)
            except GencompError as error:
                self._end(job_id, m.REFUSED, error)
                continue
            if session is not None and job.state == m.RECEIVING:
                self._sessions.serve(session, job_id)

    def _check(self, session: Session, message: m.Check) -> None:
        self._check_colours(session, message.request)
        system = self._system(message.request)
        machine = self._machine()
        found, refusal = forecast(system, message.request, machine)
        refusal = refusal or self._storeroom.refusal(system, message.request, found)
        plan = dataclasses.asdict(found)
        plan["device"] = machine.name or machine.device
        plan["on_cpu"] = machine.device == CPU
        plan["refusal"] = None if refusal is None else refusal.to_wire()
        plan["layers"] = to_plain(system.layers(message.request))
        self._send(session.identity, m.Planned(message.id, to_plain(plan)))

    def _submit(self, session: Session, message: m.Submit) -> None:
        # A nonce that was seen: sent again after a lost answer, or played back by somebody.
        job = self._table.of_nonce(message.nonce) if message.nonce else None
        job = job or self._table.standing(message.key)
        if job is None:
            self._check_quota(session.account, message.show)
            self._check_colours(session, message.request)
            system = self._system(message.request)
            check_pictures(message.request, message.inputs)
            plan = plan_on(system, message.request, self._machine())
            self._storeroom.admit(system, message.request, plan, message.inputs)
            job = self._table.add(
                message.key,
                message.request,
                message.inputs,
                account=session.account,
                show=message.show,
                shot=message.shot,
                priority=message.priority,
            )
            with job_named(job.id):
                whose = f"{session.account} ({session.name})"
                log.info("%s %s from %s", system.name, job.request.frames, whose)
            self._intake.open(job, system)
            self._read_shared(job)
            self._workers.wake()
        if message.nonce:
            self._table.note_nonce(message.nonce, job.id)
        self._accept(session, message.id, job)

    def _check_quota(self, account: str, show: str) -> None:
        """Refuse one more job of an account, or of a show, that has enough of them waiting.

        Raises:
            QuotaExceeded: How many there are.
        """
        most, most_of_show = self._config.quota_jobs, self._config.quota_show_jobs
        if most and self._table.count_before_run(account=account) >= most:
            whose = f"{account} has {most} jobs waiting"
        elif show and most_of_show and self._table.count_before_run(show=show) >= most_of_show:
            whose = f"The show {show} has {most_of_show} jobs waiting"
        else:
            return
        raise QuotaExceeded(
            f"{whose}, as many as this server keeps for one.",
            hint="Send it again when some of them have begun, or cancel one.",
        )

    def _accept(self, session: Session, request_id: int, job: Job) -> None:
        position = self._position(job)
        self._send(session.identity, m.Accepted(request_id, job.id, job.state, position))

    def _open_intake(self, job: Job) -> None:
        """Go on receiving a job after a restart; one that is no longer taken is refused."""
        try:
            system = open_system(self._systems, job.request)
        except GencompError as error:
            self._end(job.id, m.REFUSED, error)
            return
        self._intake.open(job, system)
        self._read_shared(job)

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
            if job.id in self._held:
                self._held[job.id] = session.identity
            elif self._awaits_machine(job):
                self._waiting[job.id] = session.identity
            else:
                self._sessions.serve(session, job.id)

    def _replay(self, session: Session, job: Job) -> None:
        """Tell a new follower everything that happened to a job so far."""
        events: list[m.Message] = [m.StateEvent(job.id, job.state, self._position(job))]
        events += [m.WarningEvent(job.id, text) for text in self._table.warnings(job.id)]
        if self._storeroom.is_short and job.state in (m.RECEIVING, m.QUEUED):
            events.append(m.WarningEvent(job.id, self._storeroom.sentence))
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
            self._cancelling.add(job.id)
            self._workers.cancel(job.id)
        elif not job.has_ended:
            self._end(job.id, m.CANCELLED)

    def _release(self, session: Session, message: m.Release) -> None:
        job = self._known(message.job)
        if not job.has_ended:
            raise MalformedMessage("release.job: the job has not ended; cancel it first.")
        self._table.release(job.id)
        self._spool.remove_layers(job.id)
        self._send(session.identity, m.Acknowledged(message.id))

    def _list_jobs(self, session: Session, message: m.Jobs) -> None:
        places = self._positions()
        jobs = tuple(self._describe(job, places) for job in self._table.listed(message.most))
        self._send(session.identity, m.JobList(message.id, jobs))

    def _tell_job(self, session: Session, message: m.JobQuery) -> None:
        job = self._known(message.job)
        more = {"knobs": dict(job.request.knobs), "warnings": list(self._table.warnings(job.id))}
        jobs = ({**self._describe(job, self._positions()), **more},)
        self._send(session.identity, m.JobList(message.id, jobs))

    def _tell_graph(self, session: Session, message: m.Graph) -> None:
        job = self._known(message.job)
        rows = tuple(graph.to_plain(row) for row in self._records.stages(job))
        self._send(session.identity, m.JobGraph(message.id, job.id, job.state, rows))

    def _give_report(self, session: Session, message: m.Report) -> None:
        job = self._known(message.job)
        files = self._records.report(job, with_prompts=message.with_prompts)
        self._send(session.identity, m.Reported(message.id, job.id, files))

    def _describe(self, job: Job, places: Mapping[str, int]) -> dict[str, Any]:
        progress = self._meter.last(job.id)
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
        report = self._vitals.report(
            front="draining" if self._notice.is_draining else "ready",
            workers=self._workers.described(self._config.devices),
            jobs=self._table.count_by_state(),
            connections=len(self._sessions),
            spool=self._spool.root,
            log_file=self._config.log_settings().file,
        )
        report["counts"].update({f"door:{name}": n for name, n in self._door.counts.items()})
        self._send(session.identity, m.HealthReport(message.id, report))

    def _tell_sheet(self, session: Session, message: m.Sheet) -> None:
        job = self._known(message.job)
        sheet = self._spool.read_sheet(job.id)
        if sheet is None or len(sheet) > m.CHUNK_BYTES:
            raise MissingFrame(
                f"The job {job.id} has no contact sheet.",
                hint="One is drawn when a job is done, and kept until the job is forgotten.",
            )
        self._send(session.identity, m.SheetPicture(message.id, job.id, sheet))

    # --- pictures --------------------------------------------------------------------------------

    def _give_layer(self, session: Session, want: m.Want) -> None:
        """Answer a want for a layer with its bytes, or with why there are none."""
        session.owed.take(want)
        self._answer_want(session, want)

    def _answer_want(self, session: Session, want: m.Want) -> None:
        try:
            row = self._table.layer(want.job, want.name, want.frame)
            if want.what != m.LAYER or row is None:
                raise MissingFrame(
                    f"The server has no layer '{want.name[:64]}' frame {want.frame} of that job.",
                    hint="It was released, or is not made yet.",
                )
            place = self._spool.layer(want.job, want.name, want.frame)
            answer: m.Message = read_stretch(place, row.bytes, want)
            self._vitals.count("sent_bytes", want.length)
        except MalformedMessage:
            raise
        except GencompError as error:
            if waits(error):  # Without a descriptor nothing can be read; it is tried every turn.
                self._unanswered.append((session.identity, want))
                return
            answer = m.Withheld(want.job, want.what, want.name, want.frame, error)
        self._send(session.identity, answer)

    def _take_picture(self, session: Session, message: m.Chunk | m.Withheld) -> None:
        session.fed_s = self._clock()
        session.receiver.take(_in_words(message) if isinstance(message, m.Withheld) else message)
        self._take_outcomes(session)

    def _take_outcomes(self, session: Session) -> None:
        for one in session.receiver.asked_again():
            label = picture_label(one.name, one.frame)
            self._warn(one.job, f"{label} arrived with the wrong digest; it is fetched once more.")
        for outcome in session.receiver.outcomes():
            if isinstance(outcome, Arrived):
                self._vitals.count("pictures")
                self._vitals.count("picture_bytes", outcome.picture.bytes)
                self._sessions.arrived(outcome.picture.digest)
                self._intake.arrived(outcome.picture.digest)
            elif waits(outcome.error):
                self._hold(outcome.picture.job, outcome.error)
            else:
                self._end(outcome.picture.job, m.REFUSED, outcome.error)

    def _to_be_sent(self, job: str) -> list[Expected]:
        """Return the pictures that a job lacks and that a client has to send."""
        lacking = self._intake.lacking(job)
        return [one for one in lacking if not self._shared.is_reading(one.digest)]

    def _read_shared(self, job: Job) -> None:
        """Have the pictures that a job lacks read where they lie, as far as it says where."""
        if not self._shared:
            return
        paths = {entry.digest: entry.path for one in job.inputs for entry in one.pictures}
        for expected in self._intake.lacking(job.id):
            self._shared.ask(expected, paths[expected.digest])

    def _hear_storage(self) -> None:
        """Take in what was read where it lies; what was not, somebody has to send."""
        told: set[str] = set()
        for read in self._shared.outcomes():
            picture = read.picture
            if not read.fault:
                self._vitals.count("shared_pictures")
                self._sessions.arrived(picture.digest)
                self._intake.arrived(picture.digest)
            elif picture.job not in told:
                told.add(picture.job)
                where = f"'{picture.name}' frame {picture.frame}"
                self._warn(
                    picture.job,
                    f"{where} is not read from shared storage: {read.fault}; it is sent instead.",
                )
        if told:
            self._sessions.ask_again()

    def _hear_intake(self, ready: Mapping[Any, int]) -> None:
        """Queue the jobs whose pictures are all in order; refuse those with one that is not."""
        self._hear_storage()
        for outcome in self._intake.outcomes():
            if isinstance(outcome, Spoilt):
                what = outcome.error.message.rstrip(".")
                self._warn(outcome.job.id, f"{what}; it is fetched once more.")
                self._sessions.ask_again()
                continue
            if not isinstance(outcome, Passed):
                if waits(outcome.error):
                    self._hold(outcome.job.id, outcome.error)
                else:
                    self._end(outcome.job.id, m.REFUSED, outcome.error)
                continue
            error = self._too_large(outcome)
            if error is not None:
                self._end(outcome.job.id, m.REFUSED, error)
                continue
            for sentence in outcome.warnings:
                self._warn(outcome.job.id, sentence)
            self._sessions.forget(outcome.job.id)
            if self._table.move(outcome.job.id, m.QUEUED):
                self._tell_state(outcome.job.id)

    def _too_large(self, passed: Passed) -> GencompError | None:
        """Return why a job of which nobody had said the sizes is not taken after all, or None."""
        if passed.request == passed.job.request:
            return None
        try:
            system = open_system(self._systems, passed.request)
            plan = plan_on(system, passed.request, self._machine())
        except GencompError:  # What else is against it the worker finds, and says.
            return None
        return self._storeroom.refusal(system, passed.request, plan)

    # --- workers ---------------------------------------------------------------------------------

    def _start_next(self) -> None:
        """Give free workers the jobs whose turn it is; have others come up for the rest."""
        if self._notice.is_draining or self._storeroom.is_short:
            return
        waiting = self._table.waiting()
        has_begun = False
        while waiting and self._workers.has_free:
            turn = self._scheduler.next(waiting, self._clock())
            assert turn is not None
            waiting.remove(turn)
            self._begin(turn)
            has_begun = True
        if waiting and self._workers.state == LOST:
            fault = self._workers.fault
            words, hint = "The server cannot start its worker.", "Its log says why."
            self._end(waiting[0].job, m.FAILED, fault or WorkerLost(words, hint=hint))
        elif waiting:
            self._workers.wake(len(waiting))
        if has_begun:
            self._tell_positions()

    def _begin(self, turn: Turn) -> None:
        self._table.move(turn.job, m.RUNNING)
        self._scheduler.began(turn, self._clock())
        self._workers.run(self._known(turn.job))
        self._tell_state(turn.job)

    def _tell_positions(self) -> None:
        """Tell those who follow waiting jobs where these stand now."""
        followed = {job for session in self._sessions.all() for job in session.follows}
        if not followed:
            return
        for job, position in self._positions().items():
            if job in followed:
                self._tell(job, m.StateEvent(job, m.QUEUED, position))

    def _positions(self) -> dict[str, int]:
        """Return the place of every waiting job, from 1, in the order in which they would run."""
        order = self._scheduler.order(self._table.waiting(), self._clock())
        return {turn.job: place for place, turn in enumerate(order, 1)}

    def _position(self, job: Job) -> int:
        """Return a job's place in the queue, from 1; 0 where it does not wait."""
        return self._positions().get(job.id, 0) if job.state == m.QUEUED else 0

    def _hear_workers(self, ready: Mapping[Any, int]) -> None:
        self._unheeded.extend(self._workers.read(ready.keys() & self._polled))
        self._unheeded.extend(self._workers.overdue())
        while self._unheeded:
            message = self._unheeded.popleft()
            job = str(message.get("job", ""))
            try:
                with job_named(job or "-"):
                    self._heed(str(message["is"]), job, message)
            except (DiskFull, UnwritableOutput):  # The table: it is heeded again in the next turn.
                self._unheeded.appendleft(message)
                raise

    def _heed(self, kind: str, job: str, message: Mapping[str, Any]) -> None:
        """Pass on what a worker said of a job, after noting it."""
        if kind in ("done", "failed", "lost", "cancelled"):
            self._scheduler.ended(job, self._clock())
        if kind == "progress":
            step, total = int(message["step"]), int(message["total"])
            event = self._meter.note(job, str(message["stage"]), step, total)
            if event is not None:
                self._tell(job, event)
        elif kind == "warning":
            self._warn(job, str(message["sentence"]))
        elif kind == "stage":
            self._records.note_stage(job, message["stage"])
        elif kind == "layer":
            row = LayerRow(message["layer"], message["frame"], message["bytes"], message["digest"])
            if self._table.layer(job, row.layer, row.frame) != row:  # told before its worker died
                self._table.add_layer(job, row)
                self._vitals.count("layers")
                self._vitals.count("layer_bytes", row.bytes)
                self._tell(job, _layer_event(job, row))
        elif kind == "done":
            self._finish(job, message["manifest"])
        elif kind == "failed":
            self._fail(job, error_from_wire(message["error"]))
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
            self._fail(job, error)
            return
        self._end(job, m.DONE)
        self._storeroom.prove()
        self._records.delivered(job)

    def _fail(self, job: str, error: GencompError) -> None:
        """End a job that failed; one that found no room goes back to its place and waits for it.

        What is finished is kept, so it goes on where it was.
        """
        if not waits(error):
            self._end(job, m.FAILED, error)
        elif job in self._cancelling:
            self._end(job, m.CANCELLED)
        elif self._table.move(job, m.QUEUED):
            self._meter.forget(job)
            self._tell_state(job)
            self._lack(error, job)

    def _try_again(self, job: str, error: GencompError) -> None:
        """Queue a job again whose worker died under it; put away one of which that is known by now.

        Finished stages and checkpoints are kept, so it goes on where it was. What it delivered
        stays: the same bits come again.
        """
        deaths = self._table.count_death(job)
        self._vitals.count("worker_deaths")
        if deaths >= self._config.tries:
            times = "once" if deaths == 1 else f"{deaths} times"
            words = f"{error.message.rstrip('.')}; that happened {times}, and it is not run again."
            put_away = Quarantined(words, hint=error.hint, tries=deaths, **error.details)
            self._end(job, m.FAILED, put_away)
            return
        self._warn(
            job,
            f"{error.message} The job goes on from its last finished step "
            f"(attempt {deaths + 1} of {self._config.tries}).",
        )
        self._meter.forget(job)
        if self._table.move(job, m.QUEUED):
            self._tell_state(job)

    # --- room ------------------------------------------------------------------------------------

    def _hold(self, job_id: str, error: GencompError) -> None:
        """Receive nothing more of a job until there is room."""
        if job_id in self._held:  # Of several pictures that were on their way the first is enough.
            return
        source = self._sessions.source(job_id)
        self._held[job_id] = None if source is None else source.identity
        self._intake.drop(job_id)
        self._sessions.forget(job_id)
        self._lack(error, job_id)

    def _lack(self, error: GencompError, job_id: str = "") -> None:
        """Have everything wait for room; say so to all, or to one more where all wait already."""
        if self._storeroom.lack(error):
            self._tell_room()
        elif job_id:
            self._tell(job_id, m.WarningEvent(job_id, self._storeroom.sentence))

    def _tell_room(self) -> None:
        """Tell those whose jobs wait that they do, and why, or that they go on; and have them."""
        for state in (m.RECEIVING, m.QUEUED):
            for job in self._table.in_state(state):
                self._tell(job.id, m.WarningEvent(job.id, self._storeroom.sentence))
        if self._storeroom.is_short:
            return
        for job_id, identity in list(self._held.items()):
            del self._held[job_id]
            job, session = self._known(job_id), self._sessions.get(identity or b"")
            if job.state == m.RECEIVING:
                self._open_intake(job)
                if session is not None:
                    self._sessions.serve(session, job_id)

    # --- what happens to a job -------------------------------------------------------------------

    def _warn(self, job: str, sentence: str) -> None:
        if self._table.add_warning(job, sentence):
            self._tell(job, m.WarningEvent(job, sentence))

    def _tell_state(self, job_id: str) -> None:
        job = self._known(job_id)
        self._tell(job_id, m.StateEvent(job_id, job.state, self._position(job)))

    def _end(self, job_id: str, state: str, error: GencompError | None = None) -> None:
        """Bring a job to its end, once, and tell everybody who follows it."""
        self._intake.drop(job_id)
        self._waiting.pop(job_id, None)
        self._held.pop(job_id, None)
        self._sessions.forget(job_id)
        self._meter.forget(job_id)
        spelt = None if error is None else named(error, job_id).to_wire()
        if not self._table.move(job_id, state, spelt):
            return
        self._cancelling.discard(job_id)
        private = texts_of(self._known(job_id).request.knobs)
        with job_named(job_id, private):
            log.info("%s%s", state, "" if error is None else f": {error}")
        self._vitals.count(f"ended:{state}")
        self._tell_state(job_id)
        end = self._end_event(self._known(job_id))
        if end is not None:
            self._tell(job_id, end)
        self._spool.trim_decoded()


def _steps(event: m.ProgressEvent) -> dict[str, Any]:
    """Return how far a stage is, as ``job_list`` has it."""
    how_far = {"stage": event.stage, "step": event.step, "total": event.total}
    return {**how_far, "eta_s": event.eta_s}


def _in_words(withheld: m.Withheld) -> m.Withheld:
    """Return why a client does not send a picture: its words, and none of its details.

    By details the server knows its own errors: whose disk is full is not for a client to say.
    """
    told = withheld.error
    words, hint = (escaped(text[:_MOST_WORDS]) for text in (told.message, told.hint))
    error = type(told)(words, hint=hint, input=withheld.name, frame=withheld.frame)
    return dataclasses.replace(withheld, error=error)


def _layer_event(job: str, row: LayerRow) -> m.LayerEvent:
    return m.LayerEvent(job, row.layer, row.frame, row.bytes, row.digest)
