# SPDX-License-Identifier: Apache-2.0
"""How far a job is: steps in, events out, not more of them than anybody can read.

Stages may be told in turn (frames are computed while layers are written), so each is measured by
itself. The estimate is for one stage: the steps left, at the average speed of those made. What
later stages take is not known here, and is not guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gencomp_protocol.messages import ProgressEvent

LEAST_GAP_S = 0.1


@dataclass
class _Stage:
    """One stage of one job."""

    step: int
    first_step: int
    began_s: float
    told_s: float


class ProgressMeter:
    """The stages of every running job.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._stages: dict[str, dict[str, _Stage]] = {}
        self._last: dict[str, ProgressEvent] = {}

    def note(self, job: str, stage: str, step: int, total: int) -> ProgressEvent | None:
        """Take a step in; return the event to send, or None where the last was a moment ago."""
        now = self._clock()
        stages = self._stages.setdefault(job, {})
        known = stages.get(stage)
        if known is None or step < known.step:
            stages[stage] = _Stage(step, step, now, now)
            self._last[job] = ProgressEvent(job, stage, step, total)
            return self._last[job]
        known.step = step
        event = self._last[job] = ProgressEvent(job, stage, step, total, _eta_s(known, total, now))
        if step < total and now - known.told_s < LEAST_GAP_S:
            return None
        known.told_s = now
        return event

    def last(self, job: str) -> ProgressEvent | None:
        """Return the last step of a job, for somebody who follows it from now on."""
        return self._last.get(job)

    def forget(self, job: str) -> None:
        """Drop what is known of a job that has ended."""
        self._stages.pop(job, None)
        self._last.pop(job, None)


def _eta_s(stage: _Stage, total: int, now: float) -> float | None:
    """Return what a stage still takes, in seconds; None before a step was made."""
    made = stage.step - stage.first_step
    return (now - stage.began_s) / made * max(total - stage.step, 0) if made > 0 else None
