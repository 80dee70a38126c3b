# SPDX-License-Identifier: Apache-2.0
"""Which frames of a shot a model is shown, where what is asked of it lives on some of them only.

An element that bursts for a second in a shot of a minute needs a second's forwards. Its life is cut
into spans of frames that follow one another: life that is near enough to share a window is one
span, and every span reaches a little beyond its life, so that the model sees what was there before
and what stays behind. Frames that a window holds anyway cost nothing and are filled with the shot's
own. Free of numpy, so that a plan may count with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gencomp_server.parts.windows import Window, job_windows

if TYPE_CHECKING:
    from gencomp_server.backbones import BackboneSpec

MARGIN = 4
"""Frames before and after a life that are shown where they cost no further window."""


@dataclass(frozen=True)
class Span:
    """Frames that are denoised together, by their places in the shot.

    Attributes:
        first: The first of them.
        last: The last of them, inclusive.
    """

    first: int
    last: int

    def __len__(self) -> int:
        """Return how many frames it has."""
        return self.last - self.first + 1


def plan_spans(alive: Sequence[bool], spec: BackboneSpec) -> tuple[Span, ...]:
    """Return the spans of a life.

    Args:
        alive: Whether there is something to do, frame by frame.
        spec: The model: how many frames it sees at once.

    Returns:
        In rising order, none touching another's frames; none where nothing lives.
    """
    lives = _joined(_runs(alive), spec)
    found: list[Span] = []
    for k, life in enumerate(lives):
        low = found[-1].last + 1 if found else 0
        high = lives[k + 1].first - 1 if k + 1 < len(lives) else len(alive) - 1
        found.append(_widened(life, low, high, spec))
    return tuple(found)


def windows_of(spans: Sequence[Span], spec: BackboneSpec) -> tuple[Window, ...]:
    """Return all windows of some spans, each counted from its own span's first latent frame."""
    return tuple(one for span in spans for one in job_windows(spec, len(span)))


def _runs(alive: Sequence[bool]) -> list[Span]:
    found: list[Span] = []
    for i, lives in enumerate(alive):
        if not lives:
            continue
        if found and found[-1].last == i - 1:
            found[-1] = Span(found[-1].first, i)
        else:
            found.append(Span(i, i))
    return found


def _joined(runs: Sequence[Span], spec: BackboneSpec) -> list[Span]:
    """Join neighbours that take no more windows together than apart."""
    found: list[Span] = []
    for run in runs:
        if found:
            both = Span(found[-1].first, run.last)
            apart = _windows(len(found[-1]), spec) + _windows(len(run), spec)
            if _windows(len(both), spec) <= apart:
                found[-1] = both
                continue
        found.append(run)
    return found


def _widened(life: Span, low: int, high: int, spec: BackboneSpec) -> Span:
    """Show as much around a life as costs nothing, within bounds; as much before as after."""
    wanted = len(life) + 2 * MARGIN
    while wanted > len(life) and _windows(wanted, spec) > _windows(len(life), spec):
        wanted -= 1
    spare = min(max(wanted, spec.window_frames), high - low + 1) - len(life)
    before = min((spare + 1) // 2, life.first - low)
    after = min(spare - before, high - life.last)
    before = min(spare - after, life.first - low)
    return Span(life.first - before, life.last + after)


def _windows(frames: int, spec: BackboneSpec) -> int:
    return len(job_windows(spec, frames))
