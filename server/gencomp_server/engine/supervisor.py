# SPDX-License-Identifier: Apache-2.0
"""Keeping one worker process: giving it a job, noticing its death, ending what will not stop.

A worker that has had nothing to do for a while is ended, and with it all that it holds: a model,
the device's context, main memory. The next job starts another.

What happens comes back as the worker's own messages (``engine/worker.py``), and one that no worker
can say: ``{"is": "lost", "job": id, "error": {…}}``, that the process which ran a job is gone.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any, Protocol

from gencomp_protocol.errors import GencompError, WorkerLost, error_from_wire
from gencomp_server.engine.job import Job

log = logging.getLogger(__name__)

STARTING = "starting"
READY = "ready"
BUSY = "busy"
RESTING = "resting"
LOST = "lost"
CANCEL_GRACE_S = 5.0
_LEAVE_S = 5.0  # Of a worker that is to rest: then it is killed.
_MOST_FALSE_STARTS = 3  # A worker that dies before it is ready so often will not come up.
_ENDS = frozenset(("done", "failed", "cancelled"))


class WorkerLike(Protocol):
    """What the supervisor needs of a worker; see ``engine.worker.Worker``."""

    @property
    def connection(self) -> Connection:
        """The front's end of the pipe."""
        ...

    def start(self) -> None:
        """Start the process."""
        ...

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message."""
        ...

    def kill(self) -> None:
        """End the process at once."""
        ...

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the process in good order."""
        ...

    def exit_code(self) -> int | None:
        """Return how it ended, negative for a signal."""
        ...


class Supervisor:
    """One worker, kept running while it is needed.

    Args:
        worker: The worker, not yet started.
        request_to_plain: Turns a job's request into what the worker takes.
        clock: Monotonic seconds.
        cancel_grace_s: How long a cancelled job may go on before its process is killed.
        release_after_s: How long a worker may have nothing to do before it rests; 0 never.

    Attributes:
        state: ``starting``, ``ready``, ``busy``, ``resting`` or ``lost``.
        job: The job that runs, or None.
        machine: What the worker said of its machine, as plain data; None before it did. That of a
            worker that rests is kept, so that jobs are still planned.
    """

    def __init__(
        self,
        worker: WorkerLike,
        request_to_plain: Callable[[Any], Mapping[str, Any]],
        *,
        clock: Callable[[], float] = time.monotonic,
        cancel_grace_s: float = CANCEL_GRACE_S,
        release_after_s: float = 0.0,
    ) -> None:
        self._worker, self._plain, self._clock = worker, request_to_plain, clock
        self._cancel_grace_s = cancel_grace_s
        self._release_after_s = release_after_s
        self._cancel_by_s: float | None = None
        self._leave_by_s: float | None = None  # While a worker that is to rest is still there.
        self._idle_since_s = clock()
        self._false_starts = 0
        self.state = STARTING
        self.job: str | None = None
        self.machine: Mapping[str, Any] | None = None
        self._fault: Mapping[str, Any] | None = None

    @property
    def fault(self) -> GencompError | None:
        """Why no worker can run on the device; None while nothing is known against it."""
        return None if self._fault is None else error_from_wire(self._fault)

    @property
    def connection(self) -> Connection | None:
        """What to poll for messages; None where there is no worker: given up, stopped, at rest."""
        is_gone = self.state == LOST or (self.state == RESTING and self._leave_by_s is None)
        return None if is_gone else self._worker.connection

    def start(self) -> None:
        """Start the worker."""
        self.state = STARTING
        self._worker.start()

    def rest_if_idle(self) -> None:
        """Have a worker leave that has had nothing to do for long enough; never waits for it."""
        now = self._clock()
        if self._leave_by_s is not None and now >= self._leave_by_s:
            log.warning("the worker did not leave within %g s; it is killed", _LEAVE_S)
            self._rest()
        if self.state != READY or not self._release_after_s:
            return
        if now - self._idle_since_s >= self._release_after_s:
            log.info(
                "no job for %g s: the worker leaves, its memory with it", self._release_after_s
            )
            self.state, self._leave_by_s = RESTING, now + _LEAVE_S
            self._worker.send({"do": "stop"})

    def wake(self) -> None:
        """Start a worker that rests, or look again at a device that could not be had."""
        if self.state == RESTING and self._leave_by_s is None:
            log.info("there is a job: the worker starts again")
            self.start()
        elif self.state == LOST and self._fault is not None:
            self.start()

    def run(self, job: Job) -> None:
        """Give a ready worker a job."""
        assert self.state == READY, self.state
        self.state, self.job = BUSY, job.id
        self._worker.send(
            {
                "do": "run",
                "job": job.id,
                "request": self._plain(job.request),
                "pictures": job.pictures(),
                "kinds": job.kinds(),
            }
        )

    def cancel(self, job: str) -> None:
        """Ask the worker to stop a job; :meth:`overdue` ends it where it does not."""
        if job == self.job and self._cancel_by_s is None:
            self._cancel_by_s = self._clock() + self._cancel_grace_s
            self._worker.send({"do": "cancel", "job": job})

    def read(self) -> list[Mapping[str, Any]]:
        """Return what the worker said; where it died, that its job lost it, and start another."""
        said: list[Mapping[str, Any]] = []
        try:
            while self._worker.connection.poll():
                said.append(self._heed(self._worker.connection.recv()))
        except (EOFError, OSError):
            said.extend(self._bury())
        return said

    def overdue(self) -> list[Mapping[str, Any]]:
        """Kill a worker that does not stop a cancelled job; return that the job is cancelled."""
        if self._cancel_by_s is None or self._clock() < self._cancel_by_s:
            return []
        job = self.job
        log.warning("the worker did not stop within %g s; it is killed", self._cancel_grace_s)
        self._worker.kill()
        self._free()
        self.start()
        return [{"is": "cancelled", "job": job}]

    def stop(self, timeout_s: float) -> None:
        """End the worker; a job that still runs then is cut off."""
        if self.state == LOST:
            return
        if self.job is not None or self._leave_by_s is not None:
            self._worker.kill()
        else:
            self._worker.stop(timeout_s)
        self.state = LOST

    def _heed(self, message: Mapping[str, Any]) -> Mapping[str, Any]:
        kind = message.get("is")
        if kind == "ready" and self.job is None:
            self.state, self._false_starts, self._fault = READY, 0, None
            self._idle_since_s = self._clock()
            self.machine = message.get("machine")
        elif kind == "unfit":
            self._fault = message["error"]
            log.error("%s", self.fault)
        elif kind in _ENDS and message.get("job") == self.job:
            self._free()
            self.state, self._idle_since_s = READY, self._clock()
        return message

    def _free(self) -> None:
        self.job, self._cancel_by_s = None, None

    def _rest(self) -> None:
        """Forget a worker that has left, or will not."""
        self._worker.kill()
        self._leave_by_s = None

    def _bury(self) -> list[Mapping[str, Any]]:
        """Take note of a worker's death and start another; one that was to leave has left."""
        if self._leave_by_s is not None:
            self._rest()
            return []
        if self._fault is not None:  # Another would find the same.
            self._worker.kill()
            self.state = LOST
            return []
        job, was_cancelled = self.job, self._cancel_by_s is not None
        never_ready = self.state == STARTING
        how = spell_exit(self._exit_code())
        self._worker.kill()
        error = WorkerLost(
            f"The process that computed the job ended {how}.",
            hint="Other jobs are not affected; run it again, finished steps are kept. If it "
            "happens again, the machine may be short of memory.",
        )
        log.error("the worker ended %s (job %s)", how, job or "none")
        self._free()
        self._false_starts = self._false_starts + 1 if never_ready else 0
        if self._false_starts < _MOST_FALSE_STARTS:
            self.start()
        else:
            self.state = LOST
            log.error("the worker does not start; no more attempts are made")
        if job is None:
            return []
        if was_cancelled:
            return [{"is": "cancelled", "job": job}]
        return [{"is": "lost", "job": job, "error": error.to_wire()}]

    def _exit_code(self) -> int | None:
        """Return how the worker ended; its pipe closes a moment before its process is gone."""
        for _ in range(50):
            code = self._worker.exit_code()
            if code is not None:
                return code
            time.sleep(0.01)
        return None


def spell_exit(code: int | None) -> str:
    """Say how a process ended: ``by SIGKILL``, ``with exit code 3``."""
    if code is None:
        return "without saying how"
    if code < 0:
        return f"by {signal.Signals(-code).name}"
    return f"with exit code {code}"
