# SPDX-License-Identifier: Apache-2.0
"""All workers of a server, one to a device; who is free, what they said, what they run on."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from gencomp_protocol.errors import GencompError
from gencomp_server.engine.job import Job
from gencomp_server.engine.pipe import WorkerPipe
from gencomp_server.engine.supervisor import BUSY, LOST, READY, RESTING, STARTING, Supervisor

# What is said of all by what is true of one: the first that is found.
_TOLD = (READY, BUSY, STARTING, RESTING, LOST)


class WorkerPool:
    """Supervisors of one worker each.

    Args:
        supervisors: One per device, not yet started; at least one.
    """

    def __init__(self, supervisors: Sequence[Supervisor]) -> None:
        assert supervisors
        self._all = tuple(supervisors)
        self._last_system: dict[int, str] = {}

    def __len__(self) -> int:
        """Count the workers."""
        return len(self._all)

    @property
    def state(self) -> str:
        """What clients are told: ``ready`` where one is, else ``busy``, and so on to ``lost``."""
        states = {one.state for one in self._all}
        return next(state for state in _TOLD if state in states)

    @property
    def states(self) -> tuple[str, ...]:
        """The state of every worker, in the order of their devices."""
        return tuple(one.state for one in self._all)

    def described(self, devices: Sequence[str]) -> list[dict[str, Any]]:
        """Return device, state and job of every worker, as ``health_report`` has them."""
        pairs = zip(devices, self._all, strict=True)
        return [{"name": name, "state": one.state, "job": one.job} for name, one in pairs]

    @property
    def jobs(self) -> frozenset[str]:
        """The jobs that run."""
        return frozenset(one.job for one in self._all if one.job is not None)

    @property
    def fault(self) -> GencompError | None:
        """Why no worker can run on its device; None while one may."""
        faults = [one.fault for one in self._all]
        return None if None in faults else faults[0]

    @property
    def machine(self) -> Mapping[str, Any] | None:
        """The machine that jobs are planned on: of those that are known the one with least memory.

        None before any worker has looked.
        """
        told = [one.machine for one in self._all if one.machine is not None]
        return min(told, key=_memory, default=None)

    @property
    def awaits_machine(self) -> bool:
        """Tell whether no worker has looked at its device yet, and one is about to."""
        return self.machine is None and STARTING in self.states

    @property
    def connections(self) -> list[WorkerPipe]:
        """What to poll for messages, and for room where one has something unsent."""
        found = [one.connection for one in self._all]
        return [one for one in found if one is not None]

    def start(self) -> None:
        """Start every worker."""
        for one in self._all:
            one.start()

    def stop(self, timeout_s: float) -> None:
        """End every worker, all at once; jobs that still run are cut off."""
        ending = [threading.Thread(target=one.stop, args=(timeout_s,)) for one in self._all]
        for thread in ending:
            thread.start()
        for thread in ending:
            thread.join()

    def rest_if_idle(self) -> None:
        """Have workers leave that have had nothing to do for long enough."""
        for one in self._all:
            one.rest_if_idle()

    def wake(self, most: int = 1) -> None:
        """See to it that workers come up for so many jobs, of those that rest.

        One whose device could not be had looks again: at once where there is no other, else after
        a while.
        """
        wanted = most - sum(one.state in (READY, STARTING) for one in self._all)
        is_lost = self.state == LOST
        for one in self._all:
            if wanted > 0 and (is_lost or one.state == RESTING or one.may_look_again):
                one.wake()
                wanted -= 1

    @property
    def has_free(self) -> bool:
        """Tell whether a worker can take a job now."""
        return READY in self.states

    def run(self, job: Job) -> None:
        """Give a job to a free worker: one that ran its system last, for its model, if any."""
        free = [at for at, one in enumerate(self._all) if one.state == READY]
        system = job.request.system
        chosen = min(free, key=lambda at: self._last_system.get(at) != system)
        self._last_system[chosen] = system
        self._all[chosen].run(job)

    def cancel(self, job: str) -> None:
        """Ask the worker that runs a job to stop it."""
        for one in self._all:
            one.cancel(job)

    def read(self, ready: Collection[int]) -> list[Mapping[str, Any]]:
        """Return what workers said whose connections have something, by file descriptor."""
        said: list[Mapping[str, Any]] = []
        for one in self._all:
            connection = one.connection
            if connection is not None and connection.fileno() in ready:
                said.extend(one.read())
        return said

    def overdue(self) -> list[Mapping[str, Any]]:
        """Return what became of jobs whose workers had to be killed."""
        return [message for one in self._all for message in one.overdue()]


def _memory(machine: Mapping[str, Any]) -> float:
    return float(machine.get("memory_bytes") or "inf")
