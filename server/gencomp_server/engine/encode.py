# SPDX-License-Identifier: Apache-2.0
"""Layers to EXR files in the background, while the system computes the next ones.

A bounded number of bytes waits at a time: a system that is faster than the encoder is held back.
"""

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gencomp_protocol.transfer import digest_of_file
from gencomp_server.contract import LayerFrame
from gencomp_server.engine.spool import Spool, make_folder
from gencomp_server.exr.write import write_layer

# ZIP encodes about 100 MB/s a thread, and the library leaves the interpreter to others meanwhile
# (235 wake-ups of a 1 ms sleeper within one 257 ms write of 2K half RGBA).
THREADS = 2
WAITING_BYTES = 320 << 20


@dataclass(frozen=True)
class Written:
    """A layer's file: where it lies, its size in bytes and its BLAKE2b digest in hex."""

    layer: str
    frame: int
    path: Path
    bytes: int
    digest: str


class Encoder:
    """Encodes the layers of one job.

    Args:
        spool: Where they go.
        job: The job.
        written: Called for every file that is complete, from a background thread.
        metadata: Attributes that every file carries over those of its layer.
        waiting_bytes: How many bytes of pixels may wait or be encoded at a time.
    """

    def __init__(
        self,
        spool: Spool,
        job: str,
        written: Callable[[Written], None],
        *,
        metadata: Mapping[str, Any] | None = None,
        waiting_bytes: int = WAITING_BYTES,
    ) -> None:
        self._spool, self._job, self._written = spool, job, written
        self._metadata = dict(metadata or {})
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="encode")
        self._waiting_bytes = waiting_bytes
        self._held = 0
        self._room = threading.Condition()
        self._futures: set[Future[None]] = set()

    def put(self, picture: LayerFrame) -> None:
        """Take a picture; wait while too many bytes are ahead of it.

        Raises:
            Whatever an earlier picture failed with.
        """
        self._raise_failed()
        size = picture.pixels.nbytes
        with self._room:
            # One picture always goes through, however large it is.
            self._room.wait_for(lambda: not self._held or self._held + size <= self._waiting_bytes)
            self._held += size
        self._futures.add(self._pool.submit(self._encode, picture, size))

    def finish(self) -> None:
        """Wait until every picture is on disk.

        Raises:
            What the first failed picture failed with.
        """
        wait(self._futures)
        self._raise_failed()

    def close(self) -> None:
        """Drop what waits and end the threads; what is being written is finished."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _encode(self, picture: LayerFrame, size: int) -> None:
        try:
            path = self._spool.layer(self._job, picture.layer, picture.frame)
            make_folder(path.parent)
            write_layer(path, picture, {**self._metadata, "gencomp:layer": picture.layer})
            bytes_written, digest = path.stat().st_size, digest_of_file(path)
            self._written(Written(picture.layer, picture.frame, path, bytes_written, digest))
        finally:
            with self._room:
                self._held -= size
                self._room.notify_all()

    def _raise_failed(self) -> None:
        done = {future for future in self._futures if future.done()}
        self._futures -= done
        for future in done:
            future.result()
