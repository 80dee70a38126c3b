# SPDX-License-Identifier: Apache-2.0
"""Layers to EXR files in the background, while the system computes the next ones.

A layer that is not a whole picture is written sparsely: only the box of what is not zero. A bounded
number of bytes waits at a time: a system that is faster than the encoder is held back.
"""

import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencomp_protocol.frames import Box
from gencomp_protocol.transfer import digest_of_file
from gencomp_server.contract import LayerFrame
from gencomp_server.engine.spool import Spool, make_folder
from gencomp_server.exr.read import MappedRest
from gencomp_server.exr.write import write_layer
from gencomp_server.provenance import FULL, carried

# A thread encodes about 100 MB/s of grainy half RGBA and leaves the interpreter to others meanwhile
# (docs/decisions/0017-openexr-writes.md).
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
        whole: Names of the layers that are pictures and fill their window.
        compression: How the files are packed, as ``exr.write.write_layer`` has it.
        level: How much of the plate's metadata they carry; see ``provenance.py``.
        waiting_bytes: How many bytes of pixels, with what goes along, may wait or be encoded at a
            time.
    """

    def __init__(
        self,
        spool: Spool,
        job: str,
        written: Callable[[Written], None],
        *,
        metadata: Mapping[str, Any] | None = None,
        whole: Collection[str] = (),
        compression: str = "zip",
        level: str = FULL,
        waiting_bytes: int = WAITING_BYTES,
    ) -> None:
        self._spool, self._job, self._written = spool, job, written
        self._metadata, self._whole = dict(metadata or {}), frozenset(whole)
        self._compression, self._level = compression, level
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="encode")
        self._waiting_bytes = waiting_bytes
        self._held = 0
        self._room = threading.Condition()
        self._futures: set[Future[None]] = set()

    def put(self, picture: LayerFrame, rest: MappedRest | None = None) -> None:
        """Take a picture; wait while too many bytes are ahead of it.

        Args:
            picture: The picture.
            rest: What goes along from an input's file.

        Raises:
            Whatever an earlier picture failed with.
        """
        self._raise_failed()
        size = picture.pixels.nbytes + (0 if rest is None else rest.rest.bytes)
        with self._room:
            # One picture always goes through, however large it is.
            self._room.wait_for(lambda: not self._held or self._held + size <= self._waiting_bytes)
            self._held += size
        self._futures.add(self._pool.submit(self._encode, picture, rest, size))

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

    def _encode(self, picture: LayerFrame, rest: MappedRest | None, size: int) -> None:
        try:
            path = self._spool.layer(self._job, picture.layer, picture.frame)
            make_folder(path.parent)
            if rest is None and picture.layer not in self._whole:
                picture = cropped(picture)
            picture = replace(picture, metadata=carried(picture.metadata, self._level))
            rest = None if rest is None else _less_told(rest, self._level)
            about = {**self._metadata, "gencomp:layer": picture.layer}
            write_layer(path, picture, about, rest, self._compression)
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


def _less_told(along: MappedRest, level: str) -> MappedRest:
    """Return what goes along, its metadata cut to what the setting lets a file say."""
    parts = (replace(part, metadata=carried(part.metadata, level)) for part in along.rest.parts)
    return replace(along, rest=replace(along.rest, parts=tuple(parts)))


# --- sparse layers -------------------------------------------------------------------------------


def cropped(picture: LayerFrame) -> LayerFrame:
    """Return a layer's box of what is not zero and one pixel around it; one pixel where all is.

    The border stays inside the data window, and is there for filters that look one pixel further.
    A sample counts as zero where no bit of it is set: -0.0 is kept.
    """
    box, data = box_of_content(picture.pixels), picture.data_window
    if box is None:
        box = Box(0, 0, 0, 0)
    else:
        right, bottom = data.width - 1, data.height - 1
        box = Box(
            max(box.x0 - 1, 0),
            max(box.y0 - 1, 0),
            min(box.x1 + 1, right),
            min(box.y1 + 1, bottom),
        )
    if (box.width, box.height) == (data.width, data.height):
        return picture
    window = Box(data.x0 + box.x0, data.y0 + box.y0, data.x0 + box.x1, data.y0 + box.y1)
    kept = picture.pixels[box.y0 : box.y1 + 1, box.x0 : box.x1 + 1]
    return replace(picture, pixels=kept, data_window=window)


def box_of_content(pixels: NDArray[Any]) -> Box | None:
    """Return the box of the samples that have a bit set, from the array's corner; None for none.

    Args:
        pixels: [H,W,C] float16 or float32.
    """
    height, width, channels = pixels.shape
    rows = _as_words(np.ascontiguousarray(pixels).reshape(height, -1))
    set_rows = np.flatnonzero(np.bitwise_or.reduce(rows, axis=1))
    if not set_rows.size:
        return None
    top, bottom = int(set_rows[0]), int(set_rows[-1])
    union = np.bitwise_or.reduce(rows[top : bottom + 1], axis=0)
    samples = union.view(f"u{pixels.dtype.itemsize}").reshape(width, channels)
    set_columns = np.flatnonzero(samples.any(axis=1))
    return Box(int(set_columns[0]), top, int(set_columns[-1]), bottom)


def _as_words(rows: NDArray[Any]) -> NDArray[Any]:
    """Return rows of samples as the widest whole numbers that they divide into. [H,N]."""
    row_bytes = rows.shape[1] * rows.dtype.itemsize
    size = next(size for size in (8, 4, 2) if row_bytes % size == 0)
    return rows.view(f"u{size}")
