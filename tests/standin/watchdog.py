# SPDX-License-Identifier: Apache-2.0
"""How long Nuke's main thread was held, and by what: every entry from Nuke into other code.

Entries are a knob's script, an added callback, a call queued for the main thread, a menu's command.
Time inside ``nuke.execute`` is the visible rendering and is not counted, nor what the stand-in
itself needs for pictures, nor the time that another process had the core.
"""

import contextlib
import threading
import time
from dataclasses import dataclass
from pathlib import Path

_QUEUE = Path("/proc/thread-self/schedstat")


@dataclass(frozen=True)
class Stall:
    """One entry into other code: what was called, and for how many seconds it held Nuke."""

    what: str
    seconds: float


def _waited():
    """Return the seconds that this thread was ready and had no core; 0 where nobody says."""
    try:
        return int(_QUEUE.read_text(encoding="ascii").split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


class Watch:
    """Records entries while it is switched on."""

    def __init__(self):
        self.calls, self.is_on = [], False
        self._depth, self._left_out = 0, 0.0
        self._thread = threading.get_ident()

    def longest(self):
        """Return the entry that held the main thread longest; of 0 s where there was none."""
        return max(self.calls, key=lambda call: call.seconds, default=Stall("nothing", 0.0))

    def over(self, seconds):
        """Return the entries that held the main thread longer."""
        return [call for call in self.calls if call.seconds > seconds]

    @contextlib.contextmanager
    def entry(self, what):
        """Measure one entry; one inside another belongs to the outer."""
        if not self.is_on or self._depth or threading.get_ident() != self._thread:
            yield
            return
        self._depth, self._left_out = 1, 0.0
        started, queued = time.monotonic(), _waited()
        try:
            yield
        finally:
            gone = time.monotonic() - started - (_waited() - queued) - self._left_out
            self.calls.append(Stall(what, max(gone, 0.0)))
            self._depth = 0

    @contextlib.contextmanager
    def left_out(self):
        """Do not count what happens inside."""
        if not self._depth or self._depth > 1 or threading.get_ident() != self._thread:
            yield
            return
        self._depth = 2
        started, queued = time.monotonic(), _waited()
        try:
            yield
        finally:
            self._left_out += time.monotonic() - started - (_waited() - queued)
            self._depth = 1
