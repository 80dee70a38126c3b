# SPDX-License-Identifier: Apache-2.0
"""How far weights are read, in whole percents, for whoever waits; free of torch.

What reads a tensor lies far below what waits for a model, and a model outlives the job that had it
loaded. So no listener is handed down or kept: one is set for a stretch of code, and whatever is
read inside of it is told there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

WEIGHTS = "loading weights"
TEXT_ENCODER = "loading text encoder"

_WHOLE = 100

Tell = Callable[[str, int, int], None]


class _Count:
    """What was read of one stage, told at every percent and not between."""

    def __init__(self, tell: Tell, stage: str, total: int) -> None:
        self._tell, self._stage, self._total = tell, stage, total
        self._read, self._told = 0, -1

    def add(self, size: int) -> None:
        """Count so many bytes more."""
        self._read += size
        self.reach(min(_WHOLE * self._read // self._total, _WHOLE))

    def reach(self, percent: int) -> None:
        """Tell a percentage that was not told yet."""
        if percent > self._told:
            self._told = percent
            self._tell(self._stage, percent, _WHOLE)


_listener: ContextVar[Tell | None] = ContextVar("listener", default=None)
_count: ContextVar[_Count | None] = ContextVar("count", default=None)


@contextmanager
def telling(tell: Tell | None) -> Iterator[None]:
    """Have what is read inside told: stage, percents read, 100.

    Args:
        tell: Is told; what it raises ends the reading. None tells nobody.
    """
    before = _listener.set(tell)
    try:
        yield
    finally:
        _listener.reset(before)


@contextmanager
def stage(name: str, total: int) -> Iterator[None]:
    """Count what is read inside as one stage, unless it is part of one already.

    Args:
        name: What the stage is called.
        total: Bytes of numbers that will be read; 0 where that is not known, and nothing is told.
    """
    tell = _listener.get()
    if tell is None or total <= 0 or _count.get() is not None:
        yield
        return
    count = _Count(tell, name, total)
    before = _count.set(count)
    try:
        count.reach(0)
        yield
    finally:
        _count.reset(before)
    count.reach(_WHOLE)


def read(size: int) -> None:
    """Say that so many bytes of numbers were read and put in their place."""
    count = _count.get()
    if count is not None:
        count.add(size)
