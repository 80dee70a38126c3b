# SPDX-License-Identifier: Apache-2.0
"""Whether there is room to work: on the spool's disk, in its quota, in the table of open files.

What lacks it is not failed: it waits, and goes on by itself. So a write that failed for want of
room is told here (:meth:`Room.lack`); nothing new is begun until a file of some size could be
written again, and the pauses between two attempts grow while none succeeds.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from gencomp_protocol import disk
from gencomp_protocol.errors import GencompError

log = logging.getLogger(__name__)

_TRIAL_BYTES = 4 << 20
_TRIAL_FILE = ".room.part"
_LOOK_S, _LONGEST_PAUSE_S = 0.5, 30.0
_WAITS = frozenset(errno.errorcode[n] for n in disk.FULL | disk.NO_HANDLES)
_HANDLES = frozenset(errno.errorcode[n] for n in disk.NO_HANDLES)
BACK = "There is room again: the job goes on."


def waits(error: GencompError) -> bool:
    """Tell whether a job that met this error waits for room and is not failed by it."""
    return error.details.get("errno") in _WAITS


def free_bytes(folder: Path) -> int:
    """Return how much this user may still write where a folder lies."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


class Room:
    """Whether a server has room; looked at twice a second, from one thread.

    That one never waits for a file to be written: another thread tries that.

    Args:
        root: The spool.
        keep_free_bytes: What must stay free of its disk.
        clock: Monotonic seconds.
        free: Tells how much is free where a folder lies.
        pool: What writes a file on trial, one at a time; None for a thread of its own.

    Attributes:
        sentence: Why jobs wait; empty where none has to.
    """

    def __init__(
        self,
        root: Path,
        keep_free_bytes: int = 0,
        *,
        clock: Callable[[], float] = time.monotonic,
        free: Callable[[Path], int] = free_bytes,
        pool: Executor | None = None,
    ) -> None:
        self._root, self._keep_free_bytes = root, keep_free_bytes
        self._clock, self._free = clock, free
        self._again_s, self._pause_s = -float("inf"), _LOOK_S
        self._pool = pool or ThreadPoolExecutor(1, thread_name_prefix="room")
        self._trial: Future[bool] | None = None
        self._failed = self._over = ""
        self.sentence = ""

    def close(self) -> None:
        """End the thread; a trial that goes on is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def is_short(self) -> bool:
        """Tell whether jobs have to wait."""
        return bool(self.sentence)

    @property
    def missing_bytes(self) -> int:
        """How much must be freed so that jobs need not wait, as far as the disk tells."""
        missing = max(0, self._keep_free_bytes - self._left())
        return max(missing, _TRIAL_BYTES) if self._failed else missing

    def lack(self, error: GencompError) -> None:
        """Note that something could not be written; what it was is said as the error has it."""
        log.warning("jobs wait: %s", error.message)
        if error.details.get("errno") in _HANDLES:
            self._failed = "The server has no file descriptor left, so the job waits."
        elif waits(error):
            self._failed = "The disk that holds the server's spool is full, so the job waits."
        else:
            self._failed = f"{error.message} The job waits."
        if not self.sentence:
            self._again_s = self._clock() + self._pause_s
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self.sentence = self._failed
        self._trial = None  # What it finds was so before this.

    def fill(self, over_bytes: int) -> None:
        """Note by how much the spool is over its quota after all was cleared away; 0 for not."""
        self._over = ""
        if over_bytes > 0:
            giga = f"{over_bytes / 1e9:.1f} GB"
            self._over = f"The server's spool is {giga} over its quota, so the job waits."

    def prove(self) -> None:
        """Note that a job went through: the next one that lacks room is looked at soon again."""
        self._pause_s = _LOOK_S

    def look(self) -> bool:
        """Look again where it is time; return whether jobs have to wait now and did not, or did."""
        now, before = self._clock(), self.is_short
        is_due = now >= self._again_s
        if is_due:
            self._again_s = now + _LOOK_S
            if self._failed and self._trial is None:
                with suppress(
                    RuntimeError
                ):  # No thread is left for it; the next time there may be.
                    self._trial = self._pool.submit(self._has_written)
        tried = self._trial if self._trial is not None and self._trial.done() else None
        if tried is not None:
            self._trial = None
            if tried.result():
                self._failed = ""
        if is_due or tried is not None:
            self.sentence = self._failed or self._low() or self._over
        return self.is_short != before

    def _low(self) -> str:
        left = self._left()
        if left >= self._keep_free_bytes:
            return ""
        return (
            f"The disk that holds the server's spool has {left / 1e9:.1f} GB left of the "
            f"{self._keep_free_bytes / 1e9:.1f} GB that stay free, so the job waits."
        )

    def _left(self) -> int:
        try:
            return self._free(self._root)
        except OSError:
            return 0

    def _has_written(self) -> bool:
        """Tell whether a file of some size can be written; it is gone again at once."""
        trial = self._root / _TRIAL_FILE
        try:
            disk.about_to("write", trial)
            with open(trial, "wb") as file:
                file.write(os.urandom(_TRIAL_BYTES))
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            return False
        finally:
            with suppress(OSError):
                trial.unlink(missing_ok=True)
        return True
