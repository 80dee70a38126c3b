# SPDX-License-Identifier: Apache-2.0
"""Whether the time of day can be believed, where something is lost for good if it cannot.

A clock that jumps ahead, by a wrong setting or a bad time server, makes everything old at once.
While the process runs, a jump is seen against the clock beneath, which no setting moves. At a start
there is only what was noted before: a long time without a note is a pause or a jump, and nobody can
tell which. Either is believed after a while, or at once when the clock is set back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)

DAY_S = 86400.0
_JUMP_S = 3600.0  # Clocks drift, and are set right, by less.
_BELOW = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # That a machine slept is no jump.


def uptime() -> float:
    """Return seconds that nobody sets, those in which the machine slept included where it can."""
    return time.clock_gettime(_BELOW)


class DateKeeper:
    """Judges the time of day of one process.

    Args:
        keep_s: How long a jump that was seen is doubted: so long what was there is kept.
        known_s: Times of day that were noted before, the latest first.
        wall: The time of day, in seconds.
        beneath: Seconds that nobody sets.
    """

    def __init__(
        self,
        keep_s: float,
        known_s: Iterable[float] = (),
        *,
        wall: Callable[[], float] = time.time,
        beneath: Callable[[], float] = uptime,
    ) -> None:
        self._keep_s, self._wall, self._beneath = keep_s, wall, beneath
        now, below = wall(), beneath()
        self._good_s = self._seen_s = now - below
        pause_s, since_s = _pause(now, known_s)
        self._jump_until_s = self._start_until_s = -float("inf")
        if pause_s:
            self._start_until_s = below + min(keep_s, DAY_S) - (now - since_s)
        if self._start_until_s > below:
            log.warning(
                "nothing was noted for %.1f days before this: if the clock is wrong, set it right; "
                "no result is forgotten within %.1f h",
                pause_s / DAY_S,
                (self._start_until_s - below) / 3600.0,
            )

    def now(self) -> float | None:
        """Return the time of day; None while it cannot be believed."""
        now, below = self._wall(), self._beneath()
        shift_s = now - below
        if shift_s - self._good_s > _JUMP_S:
            return self._doubt(now, below)
        is_set_back = self._good_s - shift_s > _JUMP_S
        if is_set_back or self._seen_s - self._good_s > _JUMP_S:
            log.warning("the clock was set back: what it says counts again")
        if is_set_back:
            self._start_until_s = -float("inf")
        self._good_s = self._seen_s = shift_s
        return now if below >= self._start_until_s else None

    def _doubt(self, now: float, below: float) -> float | None:
        """Return a time of day that is ahead of what it should be once it has been so for long."""
        shift_s = now - below
        if abs(shift_s - self._seen_s) > _JUMP_S:
            self._seen_s, self._jump_until_s = shift_s, below + self._keep_s
            log.error(
                "the clock jumped ahead by %.1f days: set it right, or results are forgotten by "
                "what it says in %.1f days",
                (shift_s - self._good_s) / DAY_S,
                self._keep_s / DAY_S,
            )
        if below < self._jump_until_s:
            return None
        self._good_s = self._seen_s = shift_s
        return now


def _pause(now: float, known_s: Iterable[float]) -> tuple[float, float]:
    """Return the longest pause over a day of the last day and what came before, and its end.

    Args:
        now: The time of day.
        known_s: Times of day, the latest first.
    """
    after = now
    for known in known_s:
        if after - known > DAY_S:
            return after - known, after
        after = min(after, known)
        if now - after >= DAY_S:
            break
    return 0.0, now
