# SPDX-License-Identifier: Apache-2.0
"""What clients ask: to be let in, jobs to take, follow or cancel; each is answered or refused."""

from __future__ import annotations

import dataclasses
import hmac
import logging
from collections.abc import Callable
from typing import Any

from gencomp_protocol import messages as m
from gencomp_protocol.codec import decode, request_id_of, to_plain
from gencomp_protocol.errors import (
    GencompError,
    MalformedMessage,
    Unauthorised,
    VersionMismatch,
)
from gencomp_protocol.transfer import Credit, Receiver
from gencomp_protocol.version import PROTOCOL_VERSION, __version__
from gencomp_server.contract import schema
from gencomp_server.door import HELLO_BYTES, Letter
from gencomp_server.engine.job import Job
from gencomp_server.footprint import CPU
from gencomp_server.forecast import forecast
from gencomp_server.front.ending import Ending
from gencomp_server.front.layers import Layers
from gencomp_server.front.pictures import Pictures
from gencomp_server.front.questions import Questions
from gencomp_server.front.state import Front
from gencomp_server.front.taking import Taking
from gencomp_server.front.telling import Telling
from gencomp_server.gate import check_pictures, plan_on
from gencomp_server.logs import job_named
from gencomp_server.sessions import Session

log = logging.getLogger(__name__)

UNNAMED = "unnamed"  # The account of clients that name none.


class Requests:
    """Answers every message of a client.

    Args:
        front: The server.
        telling: Sends the answers.
        taking: Says whether a job is taken.
        ending: Ends jobs that are cancelled before they run.
        pictures: Takes pictures in.
        layers: Gives layers out.
        questions: Answers what changes nothing.
    """

    def __init__(
        self,
        front: Front,
        telling: Telling,
        taking: Taking,
        ending: Ending,
        pictures: Pictures,
        layers: Layers,
        questions: Questions,
    ) -> None:
        self._front, self._telling, self._taking = front, telling, taking
        self._ending, self._pictures = ending, pictures
        self._answers: dict[type[m.Message], Callable[[Session, Any], None]] = {
            m.Check: self._check,
            m.Submit: self._submit,
            m.Follow: self._follow,
            m.Unfollow: self._unfollow,
            m.Cancel: self._cancel,
            m.Release: self._release,
            m.Ping: self._pong,
            m.Want: layers.give,
            m.Chunk: pictures.take,
            m.Withheld: pictures.take,
            **questions.answers,
        }

    def answer(self, letter: Letter) -> None:
        """Do what a message says; whatever is wrong with it is refused in one sentence."""
        identity, frames = letter.identity, letter.frames
        session = self._session(letter)
        try:
            if letter.fault is not None:
                if isinstance(letter.fault, Unauthorised):
                    self._front.sessions.drop(identity)
                raise letter.fault
            if session is None:
                self._front.door.check_stranger(letter)
            message = decode(frames)
            if isinstance(message, m.Hello):
                self._hello(letter, message)
                return
            if session is None:
                raise Unauthorised("This connection did not say hello.", hello=True)
            answer = self._answers.get(type(message))
            if answer is None:
                raise MalformedMessage(f"type: a client does not send {message.TYPE}.")
            session.heard_s = self._front.clock()
            answer(session, message)
        except GencompError as error:
            is_unread = session is None and sum(map(len, frames)) > HELLO_BYTES
            number = 0 if is_unread else request_id_of(frames)
            self._telling.refuse(identity, number, error, letter.wire)
            self._front.door.blame(letter, error)
        except Exception as error:
            self._telling.refuse(identity, request_id_of(frames), error, letter.wire)

    def _session(self, letter: Letter) -> Session | None:
        """Return the session of a letter's connection.

        A routing id can be claimed by the next connection; what goes on is over the same one, and
        with the same key.
        """
        session = self._front.sessions.get(letter.identity)
        if session is None or letter.fault is not None:
            return session
        key = session.account if session.has_key else ""
        if session.wire.is_same(letter.wire) and key == letter.key:
            return session
        self._front.sessions.drop(letter.identity)
        return None

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
        if not letter.key and not hmac.compare_digest(
            hello.secret.encode(), self._front.secret.encode()
        ):
            log.warning("a client was turned away: wrong secret")
            raise Unauthorised(
                "The secret does not open this server.",
                hint="It changes at every start; look it up again.",
            )
        credit = self._front.config.credit_bytes
        session = Session(
            identity=identity,
            name=hello.client,
            account=letter.key or hello.account or UNNAMED,
            receiver=Receiver(credit, self._front.config.chunk_bytes),
            owed=Credit(credit),
            heard_s=self._front.clock(),
            fed_s=self._front.clock(),
            has_key=bool(letter.key),
            wire=letter.wire,
        )
        self._front.sessions.drop(identity)
        self._front.door.know(letter)
        self._front.sessions.add(session)
        limits = {
            "credit_bytes": credit,
            "chunk_bytes": self._front.config.chunk_bytes,
            "message_bytes": m.MESSAGE_BYTES,
        }
        systems = tuple(to_plain(schema(system)) for system in self._front.systems)
        state = self._front.workers.state
        self._telling.send(
            identity,
            m.Welcome(
                hello.id,
                PROTOCOL_VERSION,
                __version__,
                limits,
                systems,
                state,
                shares=bool(self._front.shared),
            ),
        )

    def _pong(self, session: Session, message: m.Ping) -> None:
        # It has had our answer to the ping before, and so what was wanted of it before that.
        session.receiver.give_up(session.asked)
        session.asked = session.receiver.asked
        self._telling.send(session.identity, m.Pong(message.id))

    def _check(self, session: Session, message: m.Check) -> None:
        self._taking.check_colours(session, message.request)
        system = self._taking.system(message.request)
        machine = self._taking.machine()
        found, refusal = forecast(system, message.request, machine)
        refusal = refusal or self._front.storeroom.refusal(system, message.request, found)
        plan = dataclasses.asdict(found)
        plan["device"] = machine.name or machine.device
        plan["on_cpu"] = machine.device == CPU
        plan["refusal"] = None if refusal is None else refusal.to_wire()
        plan["layers"] = to_plain(system.layers(message.request))
        self._telling.send(session.identity, m.Planned(message.id, to_plain(plan)))

    def _submit(self, session: Session, message: m.Submit) -> None:
        # A nonce that was seen: sent again after a lost answer, or played back by somebody.
        job = self._front.table.of_nonce(message.nonce) if message.nonce else None
        # One's own, or of a client of this machine that names no account, as older ones do.
        job = job or self._front.table.standing(message.key, session.account, UNNAMED)
        if job is None:
            self._taking.check_quota(session.account, message.show)
            self._taking.check_colours(session, message.request)
            system = self._taking.system(message.request)
            check_pictures(message.request, message.inputs)
            plan = plan_on(system, message.request, self._taking.machine())
            self._front.storeroom.admit(system, message.request, plan, message.inputs)
            job = self._front.table.add(
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
            self._front.intake.open(job, system)
            self._pictures.read_where_they_lie(job)
            self._front.workers.wake()
            self._front.storeroom.crowd_out(session.account)
        if message.nonce:
            self._front.table.note_nonce(message.nonce, job.id)
        self._accept(session, message.id, job)

    def _accept(self, session: Session, request_id: int, job: Job) -> None:
        position = self._telling.position(job)
        self._telling.send(session.identity, m.Accepted(request_id, job.id, job.state, position))

    def _follow(self, session: Session, message: m.Follow) -> None:
        job = self._front.known(message.job)
        session.follows.add(job.id)
        self._accept(session, message.id, job)
        self._telling.replay(session, job)
        if message.serves and job.state == m.RECEIVING:
            self._pictures.serve(session, job)

    def _unfollow(self, session: Session, message: m.Unfollow) -> None:
        session.follows.discard(message.job)
        self._telling.send(session.identity, m.Acknowledged(message.id))

    def _cancel(self, session: Session, message: m.Cancel) -> None:
        job = self._front.known(message.job)
        self._telling.send(session.identity, m.Acknowledged(message.id))
        if job.state == m.RUNNING:
            self._front.cancelling.add(job.id)
            self._front.workers.cancel(job.id)
        elif not job.has_ended:
            self._ending.end(job.id, m.CANCELLED)

    def _release(self, session: Session, message: m.Release) -> None:
        job = self._front.known(message.job)
        if not job.has_ended:
            raise MalformedMessage("release.job: the job has not ended; cancel it first.")
        self._front.table.release(job.id)
        self._front.spool.remove_layers(job.id)
        self._telling.send(session.identity, m.Acknowledged(message.id))
