# SPDX-License-Identifier: Apache-2.0
"""Who is told what: answers, the events of a job, and all of them again for a new follower."""

from __future__ import annotations

import logging
import secrets

from gencomp_protocol import messages as m
from gencomp_protocol.codec import encode, to_plain
from gencomp_protocol.errors import GencompError, InternalError, error_from_wire
from gencomp_server.doorkeeper import Wire
from gencomp_server.engine.job import Job
from gencomp_server.engine.jobtable import LayerRow
from gencomp_server.front.state import Front
from gencomp_server.sessions import Session

log = logging.getLogger(__name__)


class Telling:
    """Messages to clients.

    Args:
        front: Whose clients.
    """

    def __init__(self, front: Front) -> None:
        self._front = front

    def send(self, identity: bytes, message: m.Message, wire: Wire | None = None) -> None:
        """Send a message; a client that is gone, or does not read, is forgotten.

        Args:
            identity: Routing id of who is told.
            message: The message.
            wire: The connection of somebody who did not say hello; None takes the session's.
        """
        session = self._front.sessions.get(identity)
        if wire is None and session is not None:
            wire = session.wire
        if wire is not None and not self._front.door.send(identity, encode(message), wire):
            self._front.sessions.drop(identity)

    def refuse(
        self, identity: bytes, number: int, error: Exception, wire: Wire | None = None
    ) -> None:
        """Send why a request is not answered; what nobody foresaw is logged under a mark.

        Args:
            identity: Routing id of the connection.
            number: Id of the request; 0 where that was not read.
            error: Why.
            wire: As of :meth:`send`.
        """
        if isinstance(error, GencompError):
            self._front.vitals.count(f"refused:{error.code}")
            self.send(identity, m.Refusal(number, error), wire)
            return
        self.send(identity, m.Refusal(number, self.fault(error, "in answering a message")), wire)

    def fault(self, error: Exception, where: str) -> InternalError:
        """Log under a mark what nobody foresaw, and return what is said of it.

        Args:
            error: What it was.
            where: What was being done, for the log.
        """
        mark = secrets.token_hex(4)
        log.error("fault %s %s", mark, where, exc_info=error)
        self._front.vitals.count("faults")
        return InternalError(
            f"The server made a mistake ({mark}).", hint="Its log says more.", id=mark
        )

    def tell(self, job: str, message: m.Message) -> None:
        """Send an event to everybody who follows a job."""
        for session in self._front.sessions.followers(job):
            self.send(session.identity, message)

    def replay(self, session: Session, job: Job) -> None:
        """Tell a new follower everything that happened to a job so far."""
        events: list[m.Message] = [m.StateEvent(job.id, job.state, self.position(job))]
        events += [m.WarningEvent(job.id, text) for text in self._front.table.warnings(job.id)]
        if self._front.storeroom.is_short and job.state in (m.RECEIVING, m.QUEUED):
            events.append(m.WarningEvent(job.id, self._front.storeroom.sentence))
        events += [layer_event(job.id, row) for row in self._front.table.layers(job.id)]
        progress = self._front.meter.last(job.id)
        if progress is not None:
            events.append(progress)
        end = self.end_event(job)
        for event in [*events, *([] if end is None else [end])]:
            self.send(session.identity, event)

    def end_event(self, job: Job) -> m.Message | None:
        """Return the last event of a job; None while it has not ended."""
        if job.state == m.DONE:
            return m.DoneEvent(job.id, to_plain(self._front.spool.read_manifest(job.id) or {}))
        if job.state == m.CANCELLED:
            return m.CancelledEvent(job.id)
        if job.state in (m.FAILED, m.REFUSED):
            return m.FailedEvent(job.id, error_from_wire(job.error or {}))
        return None

    def tell_positions(self) -> None:
        """Tell those who follow waiting jobs where these stand now."""
        followed = {job for session in self._front.sessions.all() for job in session.follows}
        if not followed:
            return
        for job, position in self.positions().items():
            if job in followed:
                self.tell(job, m.StateEvent(job, m.QUEUED, position))

    def positions(self) -> dict[str, int]:
        """Return the place of every waiting job, from 1, in the order in which they would run."""
        order = self._front.scheduler.order(self._front.table.waiting(), self._front.clock())
        return {turn.job: place for place, turn in enumerate(order, 1)}

    def position(self, job: Job) -> int:
        """Return a job's place in the queue, from 1; 0 where it does not wait."""
        return self.positions().get(job.id, 0) if job.state == m.QUEUED else 0

    def warn(self, job: str, sentence: str) -> None:
        """Note a warning of a job and tell it, once."""
        if self._front.table.add_warning(job, sentence):
            self.tell(job, m.WarningEvent(job, sentence))

    def tell_state(self, job_id: str) -> None:
        """Tell the state of a job, and its place in the queue."""
        job = self._front.known(job_id)
        self.tell(job_id, m.StateEvent(job_id, job.state, self.position(job)))


def layer_event(job: str, row: LayerRow) -> m.LayerEvent:
    """Return the event that says that a job delivered a frame of a layer."""
    return m.LayerEvent(job, row.layer, row.frame, row.bytes, row.digest)
