# SPDX-License-Identifier: Apache-2.0
"""What a program on a farm prints of its work: lines for people and for Open Job Description.

A line is never written more often than twice a second, one that differs from the last in its
numbers alone every ten seconds, so that a job of hours leaves a log that can be read. It holds
``Error:`` only where it is one: farms look for that word. Where Open Job Description runs the
program, a line that begins with ``openjd_progress:``, ``openjd_status:`` or ``openjd_fail:`` is
read by it.
"""

import re
import sys
import time
from collections.abc import Callable
from typing import Any, Optional

from gencomp_protocol import Progressed

_LEAST_S = 0.5
_COUNTING_S = 10.0
_NUMBERS = re.compile(r"\d+|, about [^,]* left")


class Report:
    """Prints how far some nodes are.

    Args:
        total: Number of nodes.
        is_openjd: Whether Open Job Description reads along.
        write: Takes text; None: standard output.
        now: A clock, in seconds.
    """

    def __init__(
        self,
        total: int,
        is_openjd: bool,
        write: "Optional[Callable[[str], object]]" = None,
        now: "Callable[[], float]" = time.monotonic,
    ) -> None:
        self._total, self._is_openjd, self._now = total, is_openjd, now
        self._write = sys.stdout.write if write is None else write
        self._done, self._share, self._stages = 0, 0.0, [""]
        self._last, self._at = "", -_LEAST_S

    def say(self, text: str) -> None:
        """Print a line."""
        self._write(f"{' '.join(text.split())}\n")
        sys.stdout.flush()

    def status(self, name: str, text: str) -> None:
        """Print what a node says, where that is new and the last line is a while ago."""
        line = f"{name}: {' '.join(text.split())}"
        if line == self._last:
            return
        is_counting = _NUMBERS.sub("", line) == _NUMBERS.sub("", self._last)
        if self._now() - self._at < (_COUNTING_S if is_counting else _LEAST_S):
            return
        self._last, self._at = line, self._now()
        self.say(f"openjd_status: {line}" if self._is_openjd else line)
        self._progress()

    def listen(self, event: Any) -> None:
        """Note how far a stage is. Any thread; prints nothing.

        Nobody knows how many stages there will be, so each takes half of what is left: progress
        never goes backwards.
        """
        if not isinstance(event, Progressed) or not event.total:
            return
        if event.stage != self._stages[-1]:
            self._stages.append(event.stage)
        left = 0.5 ** (len(self._stages) - 2)
        share = 1.0 - left + 0.5 * left * min(event.step / event.total, 1.0)
        self._share = max(self._share, share)

    def done(self, sentence: str) -> None:
        """Print that a node has its result."""
        self._done, self._share, self._stages = self._done + 1, 0.0, [""]
        self.say(sentence)
        self._progress()

    def failed(self, sentence: str) -> None:
        """Print that a node has none, and why."""
        self.say(f"Error: {sentence}")
        if self._is_openjd:
            self.say(f"openjd_fail: {sentence}")

    def _progress(self) -> None:
        if self._is_openjd and self._total:
            self.say(f"openjd_progress: {100 * (self._done + self._share) / self._total:.1f}")
