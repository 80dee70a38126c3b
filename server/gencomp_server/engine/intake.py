# SPDX-License-Identifier: Apache-2.0
"""The second gate: a job's pictures, from the first that is missing to the last that is decoded.

A job counts as queued only when every picture is here, has the digest that was announced, was
decoded once and passed the rules of ``engine/ingest.py``. The first that does not refuses the job
with one sentence. Pictures are kept by content: one that any job brought is never asked for again.
No sockets here; who sends what is the service's business.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from gencomp_protocol import disk
from gencomp_protocol.errors import GencompError, InternalError, ServerBusy
from gencomp_protocol.frames import Format
from gencomp_protocol.messages import INPUT
from gencomp_protocol.request import Request
from gencomp_protocol.transfer import Expected
from gencomp_server.contract import System
from gencomp_server.engine import ingest
from gencomp_server.engine.job import Job
from gencomp_server.engine.spool import Spool
from gencomp_server.exr.decode import SPOILT, Decoded, DecodePool
from gencomp_server.logs import job_named

log = logging.getLogger(__name__)

_PRIVATE = 0o600
_Place = tuple[str, int]


@dataclass(frozen=True)
class Passed:
    """Every picture of a job is here and in order; its request says their sizes now."""

    job: Job
    warnings: tuple[str, ...]
    request: Request


@dataclass(frozen=True)
class Rejected:
    """A picture of a job is not in order; why."""

    job: Job
    error: GencompError


@dataclass(frozen=True)
class Spoilt:
    """A picture that had arrived changed on disk since; it is lacking again. Why."""

    job: Job
    error: GencompError


@dataclass
class _Reception:
    """What one job still waits for."""

    job: Job
    system: System
    lacking: dict[str, list[_Place]] = field(default_factory=dict)
    decoding: dict[_Place, Future[Decoded]] = field(default_factory=dict)
    decoded: dict[str, dict[int, Decoded]] = field(default_factory=dict)
    spoilt: set[str] = field(default_factory=set)


class Intake:
    """Every job that is still receiving.

    Args:
        spool: Where pictures lie.
        pool: Decodes them.
        wake: Called, from another thread, when a picture was decoded.
    """

    def __init__(self, spool: Spool, pool: DecodePool, wake: Callable[[], None]) -> None:
        self._spool, self._pool, self._wake = spool, pool, wake
        self._receptions: dict[str, _Reception] = {}

    @property
    def jobs(self) -> tuple[str, ...]:
        """Ids of the jobs that are receiving."""
        return tuple(self._receptions)

    def open(self, job: Job, system: System) -> None:
        """Begin with a job: what is here already is decoded at once."""
        reception = self._receptions[job.id] = _Reception(job, system)
        for one in job.inputs:
            for entry in one.pictures:
                reception.lacking.setdefault(entry.digest, []).append((one.name, entry.frame))
        for digest in list(reception.lacking):
            if self._spool.has_picture(digest):
                self._decode(reception, digest)

    def drop(self, job: str) -> None:
        """Take no more interest in a job."""
        reception = self._receptions.pop(job, None)
        for future in reception.decoding.values() if reception else ():
            future.cancel()

    def lacking(self, job: str) -> list[Expected]:
        """Return the pictures that a job still needs, in the order of its inputs."""
        reception = self._receptions.get(job)
        if reception is None:
            return []
        sizes = {e.digest: e.bytes for one in reception.job.inputs for e in one.pictures}
        return [
            Expected(
                job=job,
                what=INPUT,
                name=places[0][0],
                frame=places[0][1],
                bytes=sizes[digest],
                digest=digest,
                path=self._spool.picture(digest),
                part=self._spool.part(digest),
                mode=_PRIVATE,
            )
            for digest, places in reception.lacking.items()
        ]

    def arrived(self, digest: str) -> None:
        """Take note that a picture is whole and in the spool, for every job that needs it."""
        for reception in list(self._receptions.values()):
            if digest in reception.lacking:
                self._decode(reception, digest)

    def _decode(self, reception: _Reception, digest: str) -> None:
        kinds = reception.job.kinds()
        for name, frame in reception.lacking.pop(digest):
            entry = reception.job.request.input(name)
            assert entry is not None, name  # gate.py refuses pictures of no input
            task = ingest.decode_task(
                self._spool,
                ingest.input_kind(reception.system, name),
                entry,
                frame,
                digest,
                kinds[name],
            )
            future = self._pool.submit(task)
            reception.decoding[(name, frame)] = future
            future.add_done_callback(lambda _: self._wake())

    def outcomes(self) -> list[Passed | Rejected | Spoilt]:
        """Return what became of jobs, and which pictures are lacking again, since the last call."""
        found: list[Passed | Rejected | Spoilt] = []
        for job, reception in list(self._receptions.items()):
            try:
                found.extend(self._collect(reception))
                if reception.lacking or reception.decoding:
                    continue
                warnings = ingest.check_ingest(
                    reception.system, reception.job.request, reception.decoded
                )
                known = with_formats(reception.job.request, reception.decoded)
                found.append(Passed(reception.job, warnings, known))
            except GencompError as error:
                found.append(Rejected(reception.job, error))
            except Exception:  # Of this job alone: the others' pictures are taken in all the same.
                with job_named(job):
                    log.exception("the pictures of a job could not be judged")
                found.append(Rejected(reception.job, _fault("The job's pictures")))
            self.drop(job)
        return found

    def _collect(self, reception: _Reception) -> list[Spoilt]:
        """Take in what was decoded; raise the first refusal, by frame.

        Returns:
            The pictures that have to come once more.
        """
        again: list[Spoilt] = []
        ready = sorted(place for place, future in reception.decoding.items() if future.done())
        for name, frame in ready:
            future = reception.decoding.pop((name, frame))
            request = reception.job.request
            entry = request.input(name)
            assert entry is not None, name
            try:
                decoded = _result(future)
            except GencompError as error:
                digest = reception.job.pictures()[name][frame]
                if SPOILT in error.details and digest not in reception.spoilt:
                    self._forget(digest)
                    again.append(Spoilt(reception.job, error))
                    break
                raise ingest.named_by_knob(
                    reception.system, request, entry, frame, error
                ) from error
            kind = ingest.input_kind(reception.system, name)
            ingest.check_picture(kind, entry, frame, decoded)
            reception.decoded.setdefault(name, {})[frame] = decoded
        return again

    def _forget(self, digest: str) -> None:
        """Remove a picture whose file is not what it was; every job that needs it lacks it again.

        It is fetched once more and no more often: what spoils it twice is the disk.
        """
        self._spool.picture(digest).unlink(missing_ok=True)
        for reception in self._receptions.values():
            own = reception.job.pictures()
            places = [(name, n) for name in own for n, its in own[name].items() if its == digest]
            if not places:
                continue
            for name, n in places:
                future = reception.decoding.pop((name, n), None)
                if future is not None:
                    future.cancel()
                reception.decoded.get(name, {}).pop(n, None)
            reception.lacking[digest] = places
            reception.spoilt.add(digest)


def with_formats(request: Request, pictures: Mapping[str, Mapping[int, Decoded]]) -> Request:
    """Return a request that says the size of every input, now that pictures were read."""
    known = []
    for entry in request.inputs:
        own = pictures[entry.name]
        header = own[min(own)].header
        window = header.display_window
        size = Format(window.width, window.height, header.pixel_aspect)
        known.append(replace(entry, format=size))
    return replace(request, inputs=tuple(known))


def _result(future: Future[Decoded]) -> Decoded:
    """Return what was decoded.

    Raises:
        GencompError: Why it could not be; a fault of ours becomes InternalError.
    """
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, GencompError):
        raise error
    if isinstance(error, OSError) and error.errno in disk.NO_HANDLES:
        raise ServerBusy(
            "The server has no file descriptor left to decode a picture.",
            hint="Try again in a minute.",
            **disk.facts(error, "decoder"),
        ) from error
    raise _fault(f"A picture ({type(error).__name__})") from error


def _fault(what: str) -> InternalError:
    return InternalError(f"{what} could not be taken in.", hint="The server's log says more.")
