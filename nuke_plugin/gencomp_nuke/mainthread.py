# SPDX-License-Identifier: Apache-2.0
"""Nuke's main thread as another thread reaches it, and the queue of one that waits.

With an interface a call gets there by ``nuke.executeInMainThread``; in a terminal session nothing
would run that, so whoever waits there pumps a queue. Another thread may wait for the main thread;
the main thread never waits for another one without pumping.
"""

import logging
import queue
import time
from collections.abc import Callable, Generator
from typing import Any

from gencomp_protocol.errors import Cancelled

log = logging.getLogger(__name__)

_WAIT_S = 0.1
_SLICE_S = 0.02  # Half of what an artist begins to feel.


class MainThread:
    """Nuke's main thread, as the background thread reaches it.

    Args:
        send: Hands a function to the main thread and returns at once.
    """

    def __init__(self, send: "Callable[[Callable[[], None]], None]") -> None:
        self._send = send

    def post(self, fn: "Callable[[], None]") -> None:
        """Let the main thread call ``fn`` some time; its errors are logged."""
        self._send(lambda: _logged(fn))

    def call(self, fn: "Callable[[], Any]") -> Any:
        """Let the main thread call ``fn`` and return what it returns, or raise what it raises."""
        answer: queue.Queue[tuple[bool, Any]] = queue.Queue(1)

        def answered() -> None:
            try:
                answer.put((True, fn()))
            except Exception as error:  # Carried to the thread that asked, and raised there.
                answer.put((False, error))
            except BaseException:  # Ctrl-C in a terminal: whoever asked must not wait for ever.
                answer.put((False, Cancelled("Stopped in the midst of a call.")))
                raise

        self._send(answered)
        good, value = answer.get()
        if not good:
            raise value
        return value

    def go_through(self, begin: "Callable[[], Generator[None, None, Any]]") -> Any:
        """Let the main thread go through a generator, a slice of time at once; return its value.

        Between slices an artist works on. What the generator raises is raised here.
        """
        steps = self.call(begin)
        is_over, value = False, None
        while not is_over:
            is_over, value = self.call(lambda: _slice(steps))
        return value


class Pump:
    """The queue through which a waiting main thread serves the background thread."""

    def __init__(self) -> None:
        self._calls: queue.Queue[Callable[[], None]] = queue.Queue()

    def send(self, fn: "Callable[[], None]") -> None:
        """Put a call into the queue."""
        self._calls.put(fn)

    def run_until(self, is_over: "Callable[[], bool]") -> None:
        """Make the calls that arrive, on this thread, until ``is_over`` and none is left."""
        while not (is_over() and self._calls.empty()):
            try:
                self._calls.get(timeout=_WAIT_S)()
            except queue.Empty:
                continue


def _slice(steps: "Generator[None, None, Any]") -> "tuple[bool, Any]":
    """Take steps for a slice of time; tell whether that was all, and what came of it."""
    until = time.monotonic() + _SLICE_S
    while time.monotonic() < until:
        try:
            next(steps)
        except StopIteration as over:
            return True, over.value
    return False, None


def through(steps: "Generator[None, None, Any]") -> Any:
    """Go through a generator at once, where nobody else needs this thread; return its value."""
    is_over, value = False, None
    while not is_over:
        is_over, value = _slice(steps)
    return value


def _logged(fn: "Callable[[], None]") -> None:
    """Call a function; an error is logged, since nobody is there to catch it."""
    try:
        fn()
    except Exception:  # The edge of the room: Nuke would print it into nowhere.
        log.exception("a call on the main thread failed")
