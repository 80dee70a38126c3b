# SPDX-License-Identifier: Apache-2.0
"""What a run is doing, as plain data: the background thread says it, the Jobs panel shows it.

A :class:`Doing` is never changed; the next one takes its place, so a reader on another thread sees
one or the other and never half of each.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Optional

from gencomp_protocol import LayerReady, Progressed, StateChanged


@dataclass(frozen=True)
class Doing:
    """How far a run is.

    Attributes:
        sentence: What the node says; empty while the run waits for its turn.
        stage: The stage that the server is in; empty before it says one.
        step: Steps of that stage that are done.
        total: Of how many; 0 where it is not known.
        left_s: Seconds that the stage still takes; None where it is not known.
        place: Place in the server's queue, from 1; 0 when it is not in it.
        frames: Layer frames that are here.
        memory_bytes: GPU memory that the plan asks for; 0 where there is none or it is not known.
    """

    sentence: str = ""
    stage: str = ""
    step: int = 0
    total: int = 0
    left_s: Optional[float] = None
    place: int = 0
    frames: int = 0
    memory_bytes: int = 0

    @property
    def percent(self) -> "Optional[int]":
        """Return how much of the stage is done, 0 to 100; None where it is not known."""
        return None if self.total < 1 else max(0, min(100, 100 * self.step // self.total))


def saying(before: Doing, sentence: str) -> Doing:
    """Return what a run is doing once it has said a sentence."""
    return replace(before, sentence=sentence)


def planned(before: Doing, plan: "Mapping[str, Any]") -> Doing:
    """Return what a run is doing once the server has said what it costs."""
    stages = {} if plan.get("on_cpu") else plan.get("stage_bytes") or {}
    most = max((int(count) for count in stages.values()), default=0)
    return replace(before, memory_bytes=most)


def after(before: Doing, event: Any) -> Doing:
    """Return what a run is doing once an event of its job is known."""
    if isinstance(event, StateChanged):
        place = max(event.position, 1) if event.state == "queued" else 0
        return replace(before, place=place)
    if isinstance(event, Progressed):
        return replace(
            before,
            stage=event.stage,
            step=event.step,
            total=event.total,
            left_s=event.eta_s,
            place=0,
        )
    if isinstance(event, LayerReady):
        return replace(before, frames=before.frames + 1)
    return before
