# SPDX-License-Identifier: Apache-2.0
"""What the Jobs panel has to look up: what is wrong here, the server's queue, the log's end.

Disks and servers make one wait, so a thread of its own looks; whoever shows it takes what was found
last. Imports nothing that could be broken.
"""

import logging
import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Optional

from gencomp_nuke import checking, logs

log = logging.getLogger(__name__)

_EVERY_S = 3.0
_LOG_BYTES = 16_000
_SERVER_S = 3.0
_ENDED = ("done", "failed", "refused", "cancelled")


@dataclass(frozen=True)
class Seen:
    """What was found.

    Attributes:
        notices: A sentence for everything that is wrong.
        queue: A line for each job that the server has not ended, whoever asked for it.
        log: The last lines of this user's log.
    """

    notices: "tuple[str, ...]" = ()
    queue: "tuple[str, ...]" = ()
    log: str = ""


class Lookout:
    """Looks again whenever it is asked and some seconds have passed.

    Args:
        environ: The environment to look into.
        look: Does the looking; None for :func:`see`.

    Attributes:
        latest: What was found last.
    """

    def __init__(
        self,
        environ: "Mapping[str, str]" = os.environ,
        look: "Optional[Callable[[Mapping[str, str]], Seen]]" = None,
    ) -> None:
        self._environ, self._look = environ, look or see
        self._thread = threading.Thread()
        self._next_s = 0.0
        self.latest = Seen()

    def refresh(self, now_s: float) -> None:
        """Let a thread look if it is time to; returns at once.

        Args:
            now_s: Seconds of a clock that only goes forward.
        """
        if self._thread.is_alive() or now_s < self._next_s:
            return
        self._next_s = now_s + _EVERY_S
        self._thread = threading.Thread(target=self._run, name="gencomp lookout", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until nobody looks any more."""
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self.latest = self._look(self._environ)
        except Exception:  # The edge of the room: a panel that cannot look shows what it had.
            log.exception("the Jobs panel could not look")


def see(environ: "Mapping[str, str]") -> Seen:
    """Look once."""
    found = tuple(checking.start_up(environ))
    wrong = tuple(finding.sentence for finding in found if not finding.is_good)
    return Seen(wrong, queue_of(environ) if not wrong else (), log_end())


def queue_of(environ: "Mapping[str, str]") -> "tuple[str, ...]":
    """Return a line for each job that the server has not ended, the running one first."""
    from gencomp_nuke.serverstart import find_again
    from gencomp_protocol import Client
    from gencomp_protocol.errors import GencompError

    try:
        server = find_again("", environ)
        if server is None:
            return ()
        with Client(server.address, server.secret, timeout_s=_SERVER_S, keys=server.keys) as client:
            client.connect()
            jobs = client.jobs()
    except GencompError as error:  # It left since it was found; the next look says so.
        log.info("the server's queue is not to be had: %s", error)
        return ()
    going = [job for job in jobs if job["state"] not in _ENDED]
    return tuple(_line(job) for job in sorted(going, key=lambda job: int(job["position"])))


def _line(job: "Mapping[str, Any]") -> str:
    place = f", place {job['position']}" if job["position"] else ""
    return f"{job['system']} {job['frames']}: {job['state']}{place}, for {job['client']}"


def log_end() -> str:
    """Return the last lines of this user's log; empty where there is none."""
    try:
        with open(logs.log_file(), "rb") as lines:
            lines.seek(0, os.SEEK_END)
            size = lines.tell()
            lines.seek(max(0, size - _LOG_BYTES))
            text = lines.read().decode("utf-8", "replace")
    except OSError:  # Nothing was logged yet.
        return ""
    return text if size <= _LOG_BYTES else text.partition("\n")[2]
