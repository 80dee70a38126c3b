# SPDX-License-Identifier: Apache-2.0
"""Signs of life out of the midst of a long computation; free of torch.

A worker that says nothing for too long is taken for one that hangs. What takes long without a step
to tell of calls :func:`beat` whenever it has got on, and only then: a sign that comes by the clock
would come from an endless loop as well. One listener for the whole process, since frames are
computed and written in several threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_GAP_S = 1.0

_listener: Callable[[], None] | None = None
_told_s = 0.0


def beat() -> None:
    """Say that the computation has got on; told at most once a second."""
    global _told_s
    listener, now = _listener, time.monotonic()
    if listener is not None and now - _told_s >= _GAP_S:
        _told_s = now
        listener()


@contextmanager
def felt_by(listener: Callable[[], None]) -> Iterator[None]:
    """Have beats told inside of the block, the first after a second.

    Args:
        listener: Is told, in whichever thread got on.
    """
    global _listener, _told_s
    before, _listener, _told_s = _listener, listener, time.monotonic()
    try:
        yield
    finally:
        _listener = before
