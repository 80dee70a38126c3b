# SPDX-License-Identifier: Apache-2.0
"""A server process among others: its claim on a spool, its server file, its signals."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from gencomp_protocol.errors import GencompError, ServerUnreachable
from gencomp_protocol.locate import ServerFile, read_server_file, write_server_file
from gencomp_server.engine.spool import spool_error


class Notice:
    """How a server is told to leave, and woken; any thread and any signal handler may do it."""

    def __init__(self) -> None:
        self.is_over = False
        self.is_draining = False
        self._ends: tuple[socket.socket, socket.socket] | None = None

    def stop(self) -> None:
        """Have the server leave now."""
        self.is_over = True
        self.wake()

    def drain(self) -> None:
        """Have the server take no more work and leave when what runs has ended."""
        self.is_draining = True
        self.wake()

    def wake(self) -> None:
        """End the wait of the present turn."""
        ends = self._ends
        if ends is not None:
            # Full is as good as sent; after the end there is no turn to end.
            with suppress(OSError):
                ends[0].send(b"!")

    def fileno(self) -> int:
        """Return what to poll; readable after :meth:`wake`."""
        assert self._ends is not None
        return self._ends[1].fileno()

    def clear(self) -> None:
        """Be ready to be woken again."""
        assert self._ends is not None
        with suppress(BlockingIOError):
            while self._ends[1].recv(4096):
                pass

    @contextmanager
    def heard(self) -> Iterator[None]:
        """Listen: SIGTERM drains, SIGINT or a second SIGTERM stops, where this is the main thread.

        Elsewhere signals are somebody else's.
        """
        here, there = socket.socketpair()
        with here, there:
            here.setblocking(False)
            there.setblocking(False)
            self._ends = (here, there)
            before = self._listen()
            try:
                yield
            finally:
                for number, handler in before:
                    signal.signal(number, handler)
                self._ends = None

    def _listen(self) -> list[tuple[signal.Signals, signal._HANDLER]]:
        """Take the signals over; return what handled them before."""
        if threading.current_thread() is not threading.main_thread():
            return []

        def hear(number: int, frame: object) -> None:
            if number == signal.SIGTERM and not self.is_draining:
                self.drain()
            else:
                self.stop()

        return [(number, signal.signal(number, hear)) for number in (signal.SIGTERM, signal.SIGINT)]


@contextmanager
def announced(path: Path, here: ServerFile) -> Iterator[None]:
    """Keep the server file for as long as the block runs; leave it if it is another's by then.

    Raises:
        UnwritableOutput: It cannot be written.
    """
    write_server_file(path, here)
    try:
        yield
    finally:
        with suppress(GencompError):
            if read_server_file(path).secret == here.secret:
                path.unlink(missing_ok=True)


@contextmanager
def claimed(lock: Path) -> Iterator[None]:
    """Keep other servers out of a spool.

    Raises:
        ServerUnreachable: Another one is in it.
        UnwritableOutput: The lock cannot be made.
    """
    try:
        held = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise spool_error(error, lock.parent) from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(held)
        raise ServerUnreachable(
            f"Another server uses the spool {lock.parent}.",
            hint="Where machines share a home folder, let GENCOMP_HOME name a folder on each one's "
            "own disk; else name another spool with --spool.",
        ) from error
    try:
        yield
    finally:
        os.close(held)
