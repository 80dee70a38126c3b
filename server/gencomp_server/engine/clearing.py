# SPDX-License-Identifier: Apache-2.0
"""What of a spool is cleared away when its quota or its disk is full, and in which order.

What can be made again goes first: decoded pixels, then finished stages, the least recently used
before the others, and nothing that a job under way may need. Then the files of ended jobs go, the
oldest job first: what failed or was cancelled, and pictures that no other job needs. A result that
nobody has fetched is never cleared away here; it goes when ``keep_days`` are over.
"""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from gencomp_protocol.messages import DONE
from gencomp_server.engine.job import Job
from gencomp_server.engine.jobtable import Holding
from gencomp_server.engine.spool import Spool

PICTURE, DECODED, STAGE, FILES = "picture", "decoded", "stage", "job"
_EVERY_S, _SHORT_EVERY_S = 60.0, 5.0


@dataclass(frozen=True)
class Item:
    """Something in the spool that is kept or removed as a whole.

    Attributes:
        kind: ``picture``, ``decoded``, ``stage`` or ``job``.
        name: A digest; the name of decoded pixels or of a stage's folder; a job.
        bytes: What it takes.
        used_s: When it was last used, wall clock.
    """

    kind: str
    name: str
    bytes: int
    used_s: float


@dataclass(frozen=True)
class Clearing:
    """What goes, in order.

    Attributes:
        items: The items.
        short_bytes: What is still missing after that.
    """

    items: tuple[Item, ...] = ()
    short_bytes: int = 0

    @property
    def bytes(self) -> int:
        """What it frees."""
        return sum(item.bytes for item in self.items)


def measure(spool: Spool) -> list[Item]:
    """Return everything in a spool with its size; reads folders only, and may take a while."""
    found = [_item(PICTURE, path) for path in spool.pictures.glob("??/[!.]*")]
    found += [_item(DECODED, path) for path in spool.decoded.glob("[!.]*.raw")]
    found += [_item(STAGE, path) for path in spool.stages.glob("[!.]*")]
    found += [_item(FILES, path) for path in spool.jobs.glob("[!.]*")]
    return [item for item in found if item is not None]


def to_clear(items: Sequence[Item], jobs: Sequence[Job | Holding], excess_bytes: int) -> Clearing:
    """Return what is removed so that ``excess_bytes`` are free.

    Args:
        items: What :func:`measure` found.
        jobs: Every job of the table.
        excess_bytes: What is missing.
    """
    chosen: list[Item] = []
    for item in _in_order(items, jobs):
        if excess_bytes <= 0:
            break
        chosen.append(item)
        excess_bytes -= item.bytes
    return Clearing(tuple(chosen), max(0, excess_bytes))


def _in_order(items: Sequence[Item], jobs: Sequence[Job | Holding]) -> Iterator[Item]:
    """Go through what may be removed, what is missed least first."""
    ended = sorted((job for job in jobs if job.has_ended), key=lambda job: job.ended_s or 0.0)
    under_way = [job for job in jobs if not job.has_ended]
    since_s = min((job.created_s for job in under_way), default=float("inf"))
    for kind in (DECODED, STAGE):
        old = [item for item in items if item.kind == kind and item.used_s < since_s]
        yield from sorted(old, key=lambda item: item.used_s)
    pictures = {item.name.removesuffix(".part"): item for item in items if item.kind == PICTURE}
    files = {item.name: item for item in items if item.kind == FILES}
    uses = Counter(digest for job in jobs for digest in job.digests)
    yield from (item for digest, item in pictures.items() if digest not in uses)
    for job in ended:
        if job.id in files and job.state != DONE:
            yield files[job.id]
        uses.subtract(job.digests)
        yield from (pictures[d] for d in sorted(job.digests) if d in pictures and not uses[d])


def _item(kind: str, path: Path) -> Item | None:
    try:
        used_s = path.stat().st_mtime
        size = sum(one.stat().st_size for one in path.rglob("*")) if path.is_dir() else None
        return Item(kind, path.name, path.stat().st_size if size is None else size, used_s)
    except OSError:  # It went in the meantime.
        return None


class Keeper:
    """Keeps a spool within its quota; looks in a thread, and decides and removes in the caller's.

    Args:
        spool: The spool.
        spool_bytes: Most it may take; 0 for no limit.
        clock: Monotonic seconds.
    """

    def __init__(
        self, spool: Spool, spool_bytes: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._spool, self._spool_bytes, self._clock = spool, spool_bytes, clock
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="keeper")
        self._looking: Future[list[Item]] | None = None
        self._again_s = -float("inf")

    def close(self) -> None:
        """End the thread; a look that goes on is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def look(self, missing_bytes: int) -> list[Item] | None:
        """Return what is in the spool once a look is over; begin one where it is time and needed.

        Args:
            missing_bytes: What the disk lacks.
        """
        if self._looking is not None:
            if not self._looking.done():
                return None
            found, self._looking = self._looking, None
            return found.result()
        now = self._clock()
        if now >= self._again_s and (missing_bytes or self._spool_bytes):
            self._again_s = now + (_SHORT_EVERY_S if missing_bytes else _EVERY_S)
            with suppress(RuntimeError):  # No thread is left for it; the next time there may be.
                self._looking = self._pool.submit(measure, self._spool)
        return None

    def excess(self, items: Sequence[Item]) -> int:
        """Return by how many bytes the spool is over its quota."""
        if not self._spool_bytes:
            return 0
        return max(0, sum(item.bytes for item in items) - self._spool_bytes)

    def hasten(self) -> None:
        """Have the next look begin at once."""
        self._again_s = -float("inf")

    def remove(self, clearing: Clearing) -> None:
        """Take away what was chosen: its names at once, its bytes in the thread."""
        doomed = [self._spool.doom(item.kind, item.name) for item in clearing.items]
        paths = [path for path in doomed if path is not None]
        try:
            self._pool.submit(_delete, paths)
        except RuntimeError:
            _delete(paths)


def _delete(paths: Sequence[Path]) -> None:
    for path in paths:
        with suppress(OSError):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                os.unlink(path)
