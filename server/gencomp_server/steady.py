# SPDX-License-Identifier: Apache-2.0
"""Time as a process has lived it.

A machine that slept, a virtual one that was moved, a process that was stopped: all come back with
hours on the clock in which nobody could say a word. Whoever measures silence by that clock drops
all its clients at once. Here such a gap counts as a few seconds, after which everybody is heard
again. The clock beneath is the monotonic one, which no time zone, leap second or correction moves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

LONGEST_S = 5.0


class SteadyClock:
    """Monotonic seconds in which this process ran; asked at least every few of them.

    Args:
        clock: Monotonic seconds.
        longest_s: A longer time between two questions is a gap, and counts as so much.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, longest_s: float = LONGEST_S
    ) -> None:
        self._clock, self._longest_s = clock, longest_s
        self._last_s, self._skipped_s = clock(), 0.0

    def __call__(self) -> float:
        """Return the seconds that count; never fewer than before."""
        now = max(self._last_s, self._clock())
        gap_s, self._last_s = now - self._last_s, now
        if gap_s > self._longest_s:
            self._skipped_s += gap_s - self._longest_s
            log.warning("this process did not run for %.0f s; nobody is held to that", gap_s)
        return now - self._skipped_s
