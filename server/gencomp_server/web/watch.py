# SPDX-License-Identifier: Apache-2.0
"""What is known of a server: asked of it again and again, by one thread that holds the link.

A server that goes away is looked for until it is back. Whoever reads gets the last that was heard,
and how old it is; nobody who reads waits for the server.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gencomp_protocol.client import Client
from gencomp_protocol.errors import GencompError, ServerUnreachable
from gencomp_protocol.locate import ServerFile

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_ENDED = 200  # Jobs that have ended, of which is told.
EAGER_S, LAZY_S = 0.5, 5.0  # Between two looks: while somebody reads, and else.
_WATCHED_S = 10.0  # Somebody reads who did so within this time.
_AGAIN_S = 1.0
_PATIENCE_S = 3.0


@dataclass(frozen=True)
class Seen:
    """What was heard of a server.

    Attributes:
        turn: Grows with every change.
        is_up: Whether it answered the last time.
        why: Why it did not; empty where it did.
        at_s: When it last answered, in monotonic seconds; None while it never has.
        health: Its ``health_report``.
        jobs: Its jobs, newest first, as ``job_list`` has them.
    """

    turn: int = 0
    is_up: bool = False
    why: str = "The server was not asked yet."
    at_s: float | None = None
    health: Mapping[str, Any] = field(default_factory=dict)
    jobs: tuple[Mapping[str, Any], ...] = ()


class Watch:
    """The thread that watches a server.

    Args:
        find: Says where the server is; None where there is none.
        name: What this program calls itself.
        on_change: Called, in the thread, whenever what is known has changed.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        find: Callable[[], ServerFile | None],
        name: str,
        on_change: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find, self._name, self._on_change, self._clock = find, name, on_change, clock
        self._asked: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._client: Client | None = None
        self._is_over = threading.Event()
        self._read_s = float("-inf")
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.seen = Seen()

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more; the server does not notice."""
        self._is_over.set()
        self._asked.put(None)
        if self._thread.ident is not None:
            self._thread.join(2 * _PATIENCE_S)

    def read(self) -> Seen:
        """Return what is known, and look more often for a while."""
        if self._clock() - self._read_s > _WATCHED_S:
            self._asked.put(None)
        self._read_s = self._clock()
        return self.seen

    def ask(self, what: Callable[[Client], T]) -> Future[T]:
        """Have the thread ask the server something; the future has the answer, or the error."""
        answer: Future[T] = Future()

        def run() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                answer.set_result(what(self._connected()))
            except Exception as error:
                answer.set_exception(error)
                if not isinstance(error, GencompError):
                    raise

        self._asked.put(run)
        return answer

    # --- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._is_over.is_set():
            try:
                pause_s = self._look()
                self._serve(pause_s)
            except Exception:  # the edge: a fault of ours must not end the watch
                log.exception("the watch stumbled")
                self._drop("Watching the server failed; the log says how.")
                self._is_over.wait(_AGAIN_S)
        self._close()

    def _look(self) -> float:
        """Ask once; return how long to wait before asking again."""
        try:
            client = self._connected()
            health, jobs = client.health(), client.jobs(MOST_ENDED)
        except GencompError as error:
            self._drop(str(error))
            return _AGAIN_S
        old = self.seen
        told = (True, "", _lasting(health), tuple(jobs))
        is_new = told != (old.is_up, old.why, _lasting(old.health), old.jobs)
        self.seen = Seen(old.turn + is_new, True, "", self._clock(), health, told[3])
        if is_new:
            self._on_change()
        return EAGER_S if self._clock() - self._read_s < _WATCHED_S else LAZY_S

    def _serve(self, pause_s: float) -> None:
        """Do what others ask for, until it is time to look again or something was changed."""
        until_s = self._clock() + pause_s
        while not self._is_over.is_set():
            try:
                what = self._asked.get(timeout=max(until_s - self._clock(), 0.001))
            except queue.Empty:
                return
            if what is None:
                return
            what()

    def _connected(self) -> Client:
        """Return the link, made where there is none.

        Raises:
            ServerUnreachable: Nobody is there.
            GencompError: Whoever is there does not let us in, or is too old.
        """
        if self._client is None:
            found = self._find()
            if found is None:
                raise ServerUnreachable("No server runs here.", hint="Start one: gencomp serve.")
            client = Client(
                found.address,
                found.secret,
                keys=found.keys,
                client=self._name,
                timeout_s=_PATIENCE_S,
                find=self._find,
            )
            try:
                client.connect()
            except BaseException:
                client.close()
                raise
            self._client = client
        return self._client

    def _drop(self, why: str) -> None:
        self._close()
        old = self.seen
        if old.is_up or old.why != why:
            log.log(logging.WARNING if old.is_up else logging.INFO, "no server: %s", why)
            self.seen = Seen(old.turn + 1, False, why, old.at_s, old.health, old.jobs)
            self._on_change()

    def _close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()


def _lasting(health: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a report is worth telling; memory and disk change all the time."""
    return {name: health[name] for name in health if name not in ("rss_bytes", "free_bytes")}
