# SPDX-License-Identifier: Apache-2.0
"""One at a time on one cache: a lock in its folder that does not outlive its holder.

Tasks of a farm meet on one cache from many machines, over network disks, and any of them may be
killed. A lock is a file with a number, and a number is never used twice::

    <cache>/lock/0007          whoever made it holds the lock; touched at every beat
    <cache>/lock/0007.done     it was given back; holds the word that the holder left, if any

The next holder makes 0008, which only one can, once 0007 is done or silent for too long. Silence
is counted by the clock of who waits, from when it last saw a beat, so that clocks of different
machines are never compared. Knows nothing of Nuke.
"""

import contextlib
import getpass
import json
import logging
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from gencomp_protocol.errors import UnwritableOutput

log = logging.getLogger(__name__)

FOLDER = "lock"
SILENCE_S = 60.0
_BEATS = 6  # Beats within the silence that ends a lock.
_NUMBER = re.compile(r"(\d{4,})(\.done)?\Z")


@dataclass(frozen=True)
class Owner:
    """Who holds a lock: machine, process and user."""

    host: str
    pid: int
    user: str

    def __str__(self) -> str:
        """Spell it for a sentence."""
        return f"process {self.pid} of {self.user or 'somebody'} on {self.host or 'a machine'}"


class Lock:
    """A lock that is held; a context manager that gives it back.

    Args:
        path: Its file, which this process has made.
        beat_s: Seconds between two beats.

    Attributes:
        found: The word that the holder before left; empty for none, and where it was killed.
        leaves: The word for the next holder.
    """

    def __init__(self, path: Path, beat_s: float) -> None:
        self.found = self.leaves = ""
        self._path, self._beat_s = path, beat_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="gencomp lock", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Lock":
        """Return itself."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Give the lock back."""
        self.release()

    def release(self) -> None:
        """Give the lock back; the next may take it at once."""
        self._stop.set()
        self._thread.join()
        part = self._path.with_name(self._path.name + ".part")
        try:
            part.write_text(self.leaves, encoding="utf-8")
            os.replace(part, _done(self._path))
        except OSError as error:  # Silence will end it.
            log.warning("the lock %s was not given back: %s", self._path, error)

    def _beat(self) -> None:
        while not self._stop.wait(self._beat_s):
            try:
                os.utime(self._path)
            except OSError as error:  # Taken over, or the disk is away: what is made is made.
                log.warning("the lock %s cannot be kept: %s", self._path, error)
                return


def take(
    cache: Path,
    on_wait: "Callable[[Owner], None]",
    pause: "Callable[[float], None]" = time.sleep,
    silence_s: float = SILENCE_S,
    now: "Callable[[], float]" = time.monotonic,
) -> Lock:
    """Take the lock of a cache; return when it is held.

    Args:
        cache: The folder of a node's results; is made.
        on_wait: Called before every pause with whoever holds the lock; may raise to give up.
        pause: Waits some seconds; may raise to give up.
        silence_s: Seconds without a beat after which a holder is taken for dead.
        now: A clock that never runs backwards, in seconds.

    Raises:
        UnwritableOutput: The folder cannot be written.
    """
    folder, beat_s = cache / FOLDER, silence_s / _BEATS
    watch = _Watch(silence_s, now)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            number = _highest(folder)
            path = folder / f"{number:04d}"
            if number == 0 or _done(path).exists() or watch.is_over(path):
                word = _word(_done(path))
                lock = _next(folder, number + 1, beat_s)
                if lock is not None:
                    lock.found = word
                    return lock
                continue
            on_wait(owner_of(path))
            pause(min(beat_s, 1.0))
    except OSError as error:
        raise UnwritableOutput(
            f"The cache folder {cache} cannot be locked ({error.strerror}).",
            hint="Choose another folder on the tab Cache & Server, or mend its permissions.",
        ) from error


def owner_of(path: Path) -> Owner:
    """Return who made the file of a lock; nobody known where that cannot be read yet."""
    try:
        plain: Any = json.loads(path.read_text(encoding="utf-8"))
        return Owner(str(plain["host"]), int(plain["pid"]), str(plain["user"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Owner("", 0, "")


def holder(cache: Path) -> Optional[Owner]:
    """Return who holds the lock of a cache, alive or not, or None; makes and changes nothing."""
    folder = cache / FOLDER
    try:
        number = _highest(folder)
    except OSError:
        return None
    path = folder / f"{number:04d}"
    return None if number == 0 or _done(path).exists() else owner_of(path)


class _Watch:
    """Counts how long the file of a lock has not been touched."""

    def __init__(self, silence_s: float, now: "Callable[[], float]") -> None:
        self._silence_s, self._now = silence_s, now
        self._seen: Optional[tuple[Path, int]] = None
        self._since = 0.0

    def is_over(self, path: Path) -> bool:
        """Tell whether the holder has been silent for too long."""
        try:
            with path.open("rb") as file:  # Opening asks a network disk; a bare stat may not.
                seen = path, os.fstat(file.fileno()).st_mtime_ns
        except FileNotFoundError:  # Cleared away by its successor.
            return False
        if seen != self._seen:
            self._seen, self._since = seen, self._now()
            return False
        return self._now() - self._since > self._limit_s(path)

    def _limit_s(self, path: Path) -> float:
        """Return the silence that is too long: three beats where the process is gone for sure."""
        owner = owner_of(path)
        if owner.pid and owner.host == socket.gethostname() and not is_alive(owner.pid):
            return 3 * self._silence_s / _BEATS
        return self._silence_s


def _next(folder: Path, number: int, beat_s: float) -> Optional[Lock]:
    """Take a number; None where somebody else has it, or a later one."""
    path = folder / f"{number:04d}"
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(_myself()), file)
    # Its number may have been used and cleared away since this process looked.
    if _highest(folder) > number:
        path.unlink()
        return None
    for entry in folder.iterdir():
        found = _NUMBER.match(entry.name)
        if found and int(found.group(1)) < number:
            with contextlib.suppress(OSError):  # Somebody is reading it; the next clears it away.
                entry.unlink()
    return Lock(path, beat_s)


def _highest(folder: Path) -> int:
    """Return the latest number in use; 0 for none."""
    found = (_NUMBER.match(name) for name in os.listdir(folder))
    return max((int(match.group(1)) for match in found if match), default=0)


def _word(done: Path) -> str:
    try:
        return done.read_text(encoding="utf-8")
    except OSError:  # It was never given back, or its successor cleared it away.
        return ""


def _done(path: Path) -> Path:
    return path.with_name(path.name + ".done")


def _myself() -> Owner:
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # A farm may run as a user that has no name.
        user = ""
    return Owner(socket.gethostname(), os.getpid(), user)


def is_alive(pid: int) -> bool:
    """Tell whether a process of this machine runs; where that cannot be asked, that it does."""
    if os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
