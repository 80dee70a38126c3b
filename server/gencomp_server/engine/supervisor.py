# SPDX-License-Identifier: Apache-2.0
"""Keeping one worker process: giving it a job, noticing its death, ending what will not stop.

A worker that has had nothing to do for a while is ended, and with it all that it holds: a model,
the device's context, main memory. The next job starts another. One that has grown, or has run
so many jobs, is replaced between two jobs. One that makes no progress in a job is killed, as is one
that was stopped: the front never waits for what it takes or says.

What happens comes back as the worker's own messages (``engine/worker.py``), and one that no worker
can say: ``{"is": "lost", "job": id, "error": {…}}``, that the process which ran a job is gone.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from gencomp_protocol.errors import GencompError, OutOfMemory, WorkerLost, error_from_wire
from gencomp_server.engine.job import Job
from gencomp_server.engine.pipe import WorkerPipe
from gencomp_server.logs import job_named

log = logging.getLogger(__name__)

STARTING = "starting"
READY = "ready"
BUSY = "busy"
RESTING = "resting"
LOST = "lost"
CANCEL_GRACE_S = 4.5  # A cancelled job has ended within 5 s, the kill and a turn included.
_STALL_S = 10.0  # Between two turns of a front that was not stopped itself.
_LOOK_AGAIN_S = 60.0  # After which a device that could not be had may be there.
_START_S = 120.0  # A library of models, a driver and a device's first use take their time.
_LEAVE_S = 5.0  # Of a worker that is to rest: then it is killed.
_NO_PROCESS_S = 1.0  # Between two attempts, while the machine has no process to give.
_MOST_FALSE_STARTS = 3  # A worker that dies before it is ready so often will not come up.
_ENDS = frozenset(("done", "failed", "cancelled"))


class WorkerLike(Protocol):
    """What the supervisor needs of a worker; see ``engine.worker.Worker``."""

    @property
    def connection(self) -> WorkerPipe:
        """The front's end of the pipe."""
        ...

    def start(self) -> None:
        """Start the process."""
        ...

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message; never waits for the worker to take it."""
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


@dataclass(frozen=True)
class Wear:
    """When a worker that works is replaced between two jobs; 0 never.

    Attributes:
        jobs: After so many jobs.
        growth_bytes: Once it holds so much more memory after a job than after the first that had
            the same model loaded, of main memory or of the device's.
    """

    jobs: int = 0
    growth_bytes: int = 0


class Supervisor:
    """One worker, kept running while it is needed.

    Args:
        worker: The worker, not yet started.
        request_to_plain: Turns a job's request into what the worker takes.
        clock: Monotonic seconds.
        cancel_grace_s: How long a cancelled job may go on before its process is killed.
        release_after_s: How long a worker may have nothing to do before it rests; 0 never.
        no_progress_s: How long a worker may run a job without a sign that it has got on before it
            is killed; 0 for ever. To start it always has two minutes, and this if it is more.
        wear: When it is replaced.
        tail: Returns the last lines that the worker logged of a job.

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
        no_progress_s: float = 0.0,
        wear: Wear | None = None,
        tail: Callable[[str], str] = lambda job: "",
    ) -> None:
        self._worker, self._plain, self._clock = worker, request_to_plain, clock
        self._cancel_grace_s = cancel_grace_s
        self._release_after_s = release_after_s
        self._no_progress_s = no_progress_s
        self._wear = wear or Wear()
        self._tail = tail
        self._cancel_by_s: float | None = None
        self._leave_by_s: float | None = None  # While a worker that is to rest is still there.
        self._idle_since_s = self._heard_s = self._looked_s = self._lost_s = clock()
        self._comes_back = False
        self._not_before_s = -float("inf")
        self._false_starts = 0
        self._last_step: tuple[Any, Any] | None = None
        self._jobs = 0
        self._first: Mapping[str, Any] = {}  # What it held after its first job with this model.
        self.state = STARTING
        self.job: str | None = None
        self.machine: Mapping[str, Any] | None = None
        self._fault: Mapping[str, Any] | None = None

    @property
    def fault(self) -> GencompError | None:
        """Why no worker can run on the device; None while nothing is known against it."""
        return None if self._fault is None else error_from_wire(self._fault)

    @property
    def connection(self) -> WorkerPipe | None:
        """What to poll for messages; None where there is no worker: given up, stopped, at rest."""
        is_gone = self.state == LOST or (self.state == RESTING and self._leave_by_s is None)
        return None if is_gone else self._worker.connection

    def start(self) -> None:
        """Start the worker; where the machine has no process or descriptor left, a little later."""
        self.state, self._heard_s = STARTING, self._clock()
        self._jobs, self._first, self._comes_back = 0, {}, False
        try:
            self._worker.start()
        except OSError as error:
            log.error("the worker cannot be started now: %s", error.strerror)
            self.state, self._not_before_s = RESTING, self._clock() + _NO_PROCESS_S

    def rest_if_idle(self) -> None:
        """Have a worker leave that has had nothing to do for long enough; never waits for it."""
        now = self._clock()
        if self._leave_by_s is not None and now >= self._leave_by_s:
            log.warning("the worker did not leave within %g s; it is killed", _LEAVE_S)
            self._say_farewell()
        if self.state != READY or not self._release_after_s:
            return
        if now - self._idle_since_s >= self._release_after_s:
            log.info(
                "no job for %g s: the worker leaves, its memory with it", self._release_after_s
            )
            self._send_away()

    def wake(self) -> None:
        """Start a worker that rests, or look again at a device that could not be had."""
        if self.state == RESTING and self._leave_by_s is None:
            if self._clock() < self._not_before_s:
                return
            log.info("there is a job: the worker starts again")
            self.start()
        elif self.state == LOST and self._fault is not None:
            self.start()

    @property
    def may_look_again(self) -> bool:
        """Tell whether a device that could not be had was not looked at for a while."""
        is_lost = self.state == LOST and self._fault is not None
        return is_lost and self._clock() - self._lost_s >= _LOOK_AGAIN_S

    def run(self, job: Job) -> None:
        """Give a ready worker a job."""
        assert self.state == READY, self.state
        self.state, self.job, self._heard_s = BUSY, job.id, self._clock()
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
        """Return what the worker said; where it died, that its job lost it, and start another.

        What it has not taken yet is sent on.
        """
        said: list[Mapping[str, Any]] = []
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # What it said last is read yet.
                self._worker.connection.flush()
            for message in self._worker.connection.receive():
                said.append(self._heed(message))
        except (EOFError, OSError):
            said.extend(self._bury())
        return said

    def overdue(self) -> list[Mapping[str, Any]]:
        """Kill a worker that does not stop a cancelled job, or makes no progress; say what ended.

        Returns:
            ``cancelled`` or ``lost`` of its job; nothing where there is nothing to say.
        """
        now, job = self._clock(), self.job
        if now - self._looked_s > _STALL_S:  # Nobody was heard then, since we did not listen.
            self._heard_s += now - self._looked_s
        self._looked_s = now
        if self._cancel_by_s is not None and now >= self._cancel_by_s:
            words = "the worker did not stop within %g s; it is killed"
            with job_named(job or ""):
                log.warning(words, self._cancel_grace_s)
            self._worker.kill()
            self._free()
            self.start()
            return [{"is": "cancelled", "job": job}]
        limit_s = max(self._no_progress_s, _START_S if self.state == STARTING else 0.0)
        is_awaited = self.state in (STARTING, BUSY) and self._no_progress_s > 0
        if not is_awaited or now - self._heard_s < limit_s:
            return []
        with job_named(job or ""):
            log.error("the worker made no progress for %g s; it is killed", limit_s)
        error = WorkerLost(
            f"The process that computed the job made no progress for {limit_s:g} s and was ended.",
            hint="Where a single step may take longer, raise the setting no_progress_s.",
            log=self._last_words(),
        )
        return self._lose(error)

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
        step = (message.get("stage"), message.get("step")) if kind == "progress" else None
        if step is None or step != self._last_step:  # The same step again is no progress.
            self._heard_s, self._last_step = self._clock(), step
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
            self._jobs += 1
            worn = self._worn(message)
            if worn is not None:
                log.info("%s: the worker is replaced", worn)
                self._send_away()
                self._comes_back = True
        return message

    def _worn(self, message: Mapping[str, Any]) -> str | None:
        """Return why a worker is to be replaced now, or None.

        Args:
            message: What it said at the end of a job; ``holds`` in it: ``model``, ``memory_bytes``,
                ``device_bytes``.
        """
        holds, error = message.get("holds"), message.get("error") or {}
        # One that was refused by its plan says what it would need; nothing was exhausted then.
        if error.get("code") == OutOfMemory.code and "needed_bytes" not in error["details"]:
            return "a job ran out of memory"
        if self._wear.jobs and self._jobs >= self._wear.jobs:
            return f"{self._jobs} jobs were run"
        if not isinstance(holds, Mapping) or not self._wear.growth_bytes:
            return None
        if not self._first or holds["model"] != self._first["model"]:
            self._first = holds
        for kind, where in (("memory_bytes", "main memory"), ("device_bytes", "device memory")):
            growth = holds[kind] - self._first[kind]
            if growth >= self._wear.growth_bytes:
                return f"{growth / 2**20:.0f} MiB more {where} than after the first job"
        return None

    def _last_words(self) -> str:
        return "" if self.job is None else self._tail(self.job)

    def _free(self) -> None:
        self.job, self._cancel_by_s = None, None

    def _send_away(self) -> None:
        """Ask an idle worker to leave; it is given a while."""
        self.state, self._leave_by_s = RESTING, self._clock() + _LEAVE_S
        self._worker.send({"do": "stop"})

    def _say_farewell(self) -> None:
        """Forget a worker that has left, or will not; start another where it is replaced."""
        self._worker.kill()
        self._leave_by_s = None
        if self._comes_back:
            self.start()

    def _bury(self) -> list[Mapping[str, Any]]:
        """Take note of a worker's death and start another; one that was to leave has left."""
        if self._leave_by_s is not None:
            self._say_farewell()
            return []
        if self._fault is not None:  # Another would find the same.
            self._worker.kill()
            self.state, self._lost_s = LOST, self._clock()
            return []
        how = spell_exit(self._exit_code())
        with job_named(self.job or ""):
            log.error("the worker ended %s", how)
        error = WorkerLost(
            f"The process that computed the job ended {how}.",
            hint="Other jobs are not affected; run it again, finished steps are kept. If it "
            "happens again, the machine may be short of memory.",
            log=self._last_words(),
        )
        return self._lose(error)

    def _lose(self, error: WorkerLost) -> list[Mapping[str, Any]]:
        """Forget a worker that is dead, or is to be, and start another; say what became of its job.

        Args:
            error: Why the job lost it.
        """
        job, was_cancelled = self.job, self._cancel_by_s is not None
        never_ready = self.state == STARTING
        self._worker.kill()
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
        for _ in range(3):
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
