# SPDX-License-Identifier: Apache-2.0
"""Pictures of jobs on their way in: asked for, taken, judged; held while there is no room."""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Callable
from typing import TypeVar

from gencomp_protocol import messages as m
from gencomp_protocol.errors import DiskFull, GencompError, InternalError, UnwritableOutput
from gencomp_protocol.transfer import Arrived, Lost
from gencomp_server.engine.intake import Passed, Rejected, Spoilt
from gencomp_server.engine.job import Job
from gencomp_server.engine.room import waits
from gencomp_server.exr.decode import picture_label
from gencomp_server.front.ending import Ending
from gencomp_server.front.state import Front
from gencomp_server.front.taking import Taking
from gencomp_server.front.telling import Telling
from gencomp_server.gate import open_system, plan_on
from gencomp_server.logs import escaped
from gencomp_server.sessions import Session
from gencomp_server.shared_storage import Read

log = logging.getLogger(__name__)

T = TypeVar("T")
_MOST_WORDS = 1000  # Characters of what a client says of a picture; lists of jobs have them all.


class Pictures:
    """Pictures of one server's jobs.

    Args:
        front: The server.
        telling: Tells clients what is wanted, and what is odd.
        taking: Says what jobs would run on.
        ending: Ends jobs whose pictures are not in order.
    """

    def __init__(self, front: Front, telling: Telling, taking: Taking, ending: Ending) -> None:
        self._front, self._telling = front, telling
        self._taking, self._ending = taking, ending
        # What came in and is not noted yet: what finds no room in the table is kept for the next
        # turn, and with it what came after it.
        self._came: deque[Arrived | Lost] = deque()
        self._read: deque[Read] = deque()
        self._judged: deque[Passed | Rejected | Spoilt] = deque()

    def release_waiting(self) -> None:
        """Plan again, on the machine that is known now, what was taken before it was.

        A job that it refuses has sent nothing yet; of the others pictures are now asked for.
        """
        for job_id, identity in list(self._front.waiting.items()):
            job, session = self._front.known(job_id), self._front.sessions.get(identity)
            if self._taking.awaits_machine(job):
                continue
            del self._front.waiting[job_id]
            try:
                fault = self._front.workers.fault
                if fault is not None:
                    raise fault
                system = open_system(self._front.systems, job.request)
                plan = plan_on(system, job.request, self._taking.machine())
                self._front.storeroom.check(system, job.request, plan, job.inputs)
            except GencompError as error:
                self._ending.end(job_id, m.REFUSED, error)
                continue
            if session is not None and job.state == m.RECEIVING:
                self._front.sessions.serve(session, job_id)

    def open(self, job: Job) -> None:
        """Go on receiving a job after a restart; one that is no longer taken is refused."""
        try:
            system = open_system(self._front.systems, job.request)
        except GencompError as error:
            self._ending.end(job.id, m.REFUSED, error)
            return
        self._front.intake.open(job, system)
        self.read_where_they_lie(job)

    def take(self, session: Session, message: m.Chunk | m.Withheld) -> None:
        """Take a stretch of a picture, or why it does not come."""
        session.fed_s = self._front.clock()
        session.receiver.take(_in_words(message) if isinstance(message, m.Withheld) else message)
        self._take_outcomes(session)

    def _take_outcomes(self, session: Session) -> None:
        """Take in the pictures that came whole from a client, or cannot come."""
        for one in session.receiver.asked_again():
            label = picture_label(one.name, one.frame)
            self._telling.warn(
                one.job, f"{label} arrived with the wrong digest; it is fetched once more."
            )
        self._came.extend(session.receiver.outcomes())
        try:
            _heed(self._came, self._take_in)
        except (DiskFull, UnwritableOutput) as error:
            self.lack(error)

    def _take_in(self, outcome: Arrived | Lost) -> None:
        if isinstance(outcome, Arrived):
            self._front.vitals.count("pictures")
            self._front.vitals.count("picture_bytes", outcome.picture.bytes)
            self._front.sessions.arrived(outcome.picture.digest)
            self._front.intake.arrived(outcome.picture.digest)
        elif waits(outcome.error):
            self._hold(outcome.picture.job, outcome.error)
        else:
            self._ending.end(outcome.picture.job, m.REFUSED, outcome.error)

    def read_where_they_lie(self, job: Job) -> None:
        """Have the pictures that a job lacks read where they lie, as far as it says where."""
        if not self._front.shared:
            return
        paths = {entry.digest: entry.path for one in job.inputs for entry in one.pictures}
        for expected in self._front.intake.lacking(job.id):
            self._front.shared.ask(expected, paths[expected.digest])

    def _hear_storage(self) -> None:
        """Take in what was read where it lies; what was not, somebody has to send."""
        self._read.extend(self._front.shared.outcomes())
        told: set[str] = set()

        def take_in(read: Read) -> None:
            picture = read.picture
            if not read.fault:
                self._front.vitals.count("shared_pictures")
                self._front.sessions.arrived(picture.digest)
                self._front.intake.arrived(picture.digest)
            elif picture.job not in told:
                where = f"'{picture.name}' frame {picture.frame}"
                # To clients it would tell what lies there; what names a job is in its report.
                at = f"{where} ({picture.digest[:12]})"
                log.info("%s is not read from shared storage: %s", at, read.fault)
                self._telling.warn(
                    picture.job, f"{where} is not read from shared storage; it is sent instead."
                )
                told.add(picture.job)

        try:
            _heed(self._read, take_in)
        finally:
            if told:
                self._front.sessions.ask_again()

    def serve(self, session: Session, job: Job) -> None:
        """Have a client send what a job lacks: now, or when there is room and the machine known."""
        if job.id in self._front.held:
            self._front.held[job.id] = session.identity
        elif self._taking.awaits_machine(job):
            self._front.waiting[job.id] = session.identity
        else:
            self._front.sessions.serve(session, job.id)

    def ask(self, session: Session) -> None:
        """Ask a client for more of the pictures that it sends, while there is room."""
        for want in () if self._front.storeroom.is_short else session.receiver.wants():
            self._telling.send(session.identity, want)
        self._take_outcomes(session)

    def hear(self) -> None:
        """Queue the jobs whose pictures are all in order; refuse those with one that is not."""
        _heed(self._came, self._take_in)
        self._hear_storage()
        self._judged.extend(self._front.intake.outcomes())
        _heed(self._judged, self._judge)

    def _judge(self, outcome: Passed | Rejected | Spoilt) -> None:
        """Do with a job what its pictures have come to."""
        job = outcome.job.id
        if isinstance(outcome, Passed):
            try:
                self._pass(outcome)
            except (DiskFull, UnwritableOutput):
                raise
            except Exception:  # The job is not left as it was: nothing would come of it any more.
                fault = InternalError("The job could not be queued.", hint="The log says more.")
                self._judged.appendleft(Rejected(outcome.job, fault))
                raise
        elif isinstance(outcome, Spoilt):
            what = outcome.error.message.rstrip(".")
            self._telling.warn(job, f"{what}; it is fetched once more.")
            self._front.sessions.ask_again()
        elif waits(outcome.error):
            self._hold(job, outcome.error)
        else:
            self._ending.end(job, m.REFUSED, outcome.error)

    def _pass(self, passed: Passed) -> None:
        job = passed.job.id
        error = self._too_large(passed)
        if error is not None:
            self._ending.end(job, m.REFUSED, error)
            return
        for sentence in passed.warnings:
            self._telling.warn(job, sentence)
        self._front.sessions.forget(job)
        if self._front.table.move(job, m.QUEUED):
            self._telling.tell_state(job)

    def _too_large(self, passed: Passed) -> GencompError | None:
        """Return why a job of which nobody had said the sizes is not taken after all, or None."""
        if passed.request == passed.job.request:
            return None
        try:
            system = open_system(self._front.systems, passed.request)
            plan = plan_on(system, passed.request, self._taking.machine())
        except GencompError:  # What else is against it the worker finds, and says.
            return None
        return self._front.storeroom.refusal(system, passed.request, plan)

    def _hold(self, job_id: str, error: GencompError) -> None:
        """Receive nothing more of a job until there is room."""
        if (
            job_id in self._front.held
        ):  # Of several pictures that were on their way the first is enough.
            return
        source = self._front.sessions.source(job_id)
        self._front.held[job_id] = None if source is None else source.identity
        self._front.intake.drop(job_id)
        self._front.sessions.forget(job_id)
        self.lack(error, job_id)

    def lack(self, error: GencompError, job_id: str = "") -> None:
        """Have everything wait for room; say so to all, or to one more where all wait already."""
        if self._front.storeroom.lack(error):
            self.tell_room()
        elif job_id:
            self._telling.tell(job_id, m.WarningEvent(job_id, self._front.storeroom.sentence))

    def tell_room(self) -> None:
        """Tell those whose jobs wait that they do, and why, or that they go on; and have them."""
        for state in (m.RECEIVING, m.QUEUED):
            for job in self._front.table.in_state(state):
                self._telling.tell(job.id, m.WarningEvent(job.id, self._front.storeroom.sentence))
        if self._front.storeroom.is_short:
            return
        for job_id, identity in list(self._front.held.items()):
            del self._front.held[job_id]
            job, session = self._front.known(job_id), self._front.sessions.get(identity or b"")
            if job.state == m.RECEIVING:
                self.open(job)
                if session is not None:
                    self._front.sessions.serve(session, job_id)


def _heed(waiting: deque[T], heed: Callable[[T], None]) -> None:
    """Do what follows from each of what waits, in order; what finds no room stays the first.

    Raises:
        DiskFull, UnwritableOutput: The table cannot be written now; to be done again.
    """
    while waiting:
        one = waiting.popleft()
        try:
            heed(one)
        except (DiskFull, UnwritableOutput):
            waiting.appendleft(one)
            raise


def _in_words(withheld: m.Withheld) -> m.Withheld:
    """Return why a client does not send a picture: its words, and none of its details.

    By details the server knows its own errors: whose disk is full is not for a client to say.
    """
    told = withheld.error
    words, hint = (escaped(text[:_MOST_WORDS]) for text in (told.message, told.hint))
    error = type(told)(words, hint=hint, input=withheld.name, frame=withheld.frame)
    return dataclasses.replace(withheld, error=error)
