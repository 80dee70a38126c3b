# SPDX-License-Identifier: Apache-2.0
"""The front's end of a worker's pipe, on which nobody waits for the worker.

The other end is a ``multiprocessing.connection.Connection``, which blocks: it sends a message whole
and reads it whole. A worker that was stopped in the midst of either may never go on, so here what
the pipe does not take is kept until it does, and a message counts once all of it is here.
"""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

# As multiprocessing/connection.py has it: the length, or -1 and a longer length.
_LENGTH, _LONG = struct.Struct("!i"), struct.Struct("!Q")
_MOST_SHORT = 0x7FFFFFFF
_CHUNK_BYTES = 1 << 18
_MOST_CHUNKS = 64  # Of one call: others have to be heard too.


class WorkerPipe:
    """Messages to and from one worker process.

    Args:
        connection: The front's end; what it holds belongs to this from now on.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._unsent, self._here = bytearray(), bytearray()
        os.set_blocking(connection.fileno(), False)

    def fileno(self) -> int:
        """Return what to poll."""
        return self._connection.fileno()

    def close(self) -> None:
        """Close this end; what was not sent is dropped."""
        self._connection.close()

    @property
    def has_unsent(self) -> bool:
        """Tell whether the pipe has to take something yet: :meth:`flush` once it can."""
        return bool(self._unsent)

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message, or keep what the pipe does not take now.

        Raises:
            BrokenPipeError, ConnectionResetError: The worker is gone.
        """
        body = ForkingPickler.dumps(dict(message))
        if len(body) > _MOST_SHORT:
            self._unsent += _LENGTH.pack(-1) + _LONG.pack(len(body))
        else:
            self._unsent += _LENGTH.pack(len(body))
        self._unsent += body
        self.flush()

    def flush(self) -> None:
        """Send what was kept, as far as the pipe takes it; raises as :meth:`send`."""
        try:
            while self._unsent:
                with memoryview(self._unsent) as view:
                    sent = os.write(self.fileno(), view[:_CHUNK_BYTES])
                del self._unsent[:sent]
        except BlockingIOError:
            return
        except OSError:
            self._unsent.clear()
            raise

    def receive(self) -> Iterator[Mapping[str, Any]]:
        """Go through the messages that are here as a whole.

        Raises:
            EOFError: The worker has closed its end.
            OSError: The pipe is broken.
        """
        yield from self._whole()
        for _ in range(_MOST_CHUNKS):
            try:
                chunk = os.read(self.fileno(), _CHUNK_BYTES)
            except BlockingIOError:
                return
            if not chunk:
                raise EOFError
            self._here += chunk
            yield from self._whole()

    def _whole(self) -> Iterator[Mapping[str, Any]]:
        while (message := self._first()) is not None:
            yield message

    def _first(self) -> Mapping[str, Any] | None:
        """Take the first message out of what is here; None where it is not whole yet."""
        begin = _LENGTH.size
        if len(self._here) < begin:
            return None
        (length,) = _LENGTH.unpack_from(self._here)
        if length == -1:
            begin += _LONG.size
            if len(self._here) < begin:
                return None
            (length,) = _LONG.unpack_from(self._here, _LENGTH.size)
        if length < 0:
            raise OSError("what came over the pipe is no message")
        if len(self._here) < begin + length:
            return None
        body = bytes(memoryview(self._here)[begin : begin + length])
        del self._here[: begin + length]
        message: Mapping[str, Any] = pickle.loads(body)
        return message
