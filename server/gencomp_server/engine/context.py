# SPDX-License-Identifier: Apache-2.0
"""What a run may use besides its inputs; implements ``contract.Context`` for one job.

Randomness, progress, warnings, the figures of the manifest, and the job's graph: which stage ran
under which key, what it needed, how long it took, and whether it was on disk already.
"""

import hashlib
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import gencomp_protocol
from gencomp_protocol.errors import Cancelled
from gencomp_server.engine.executor import Executor, LocalExecutor, StageCall
from gencomp_server.engine.graph import (
    DELIVERY,
    DONE,
    FAILED,
    RUNNING,
    STOPPED,
    StageRow,
    sinks,
    to_plain,
)
from gencomp_server.engine.shot import SpoolShot
from gencomp_server.engine.stages import Provenance, StageStore
from gencomp_server.segmenting import Segmenter

T = TypeVar("T")
Say = Callable[[Mapping[str, Any]], None]
# A panel that redraws ten times a second is smooth; more would only fill the pipe.
_QUIET_S = 0.1


class JobContext:
    """One job's context.

    Args:
        job: The job.
        system: Name of its system: two systems never share a stage by accident.
        seed: The job's seed.
        device: The device plan; results may differ between devices, so stages know it.
        store: Where stages lie.
        say: Sends a message to the front.
        is_cancelled: Tells whether the artist has cancelled.
        clock: Monotonic seconds.
        executor: Computes stages; None: this process.

    Attributes:
        job: The job.
        system: Name of its system.
        device: The device plan.
        backbone: A ``LazyBackbone``, or None; set before the run.
        segmenter: What draws mattes of what words name, or None; set before the run.
    """

    def __init__(
        self,
        job: str,
        system: str,
        seed: int,
        device: str,
        store: StageStore,
        say: Say,
        is_cancelled: Callable[[], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
        executor: Executor | None = None,
    ) -> None:
        self.backbone: Any = None
        self.segmenter: Segmenter | None = None
        self.log = logging.getLogger(f"gencomp_server.systems.{system}")
        self.seed = seed
        self.warnings: list[str] = []
        self.figures: dict[str, Any] = {}
        self.plan_notes: tuple[str, ...] = ()
        self.rows: list[StageRow] = []
        self.job, self.system, self.device = job, system, device
        self._executor = executor or LocalExecutor(store)
        self._provenance = Provenance()
        self._store, self._say, self._is_cancelled = store, say, is_cancelled
        self._clock = clock
        self._open: list[str] = []
        self._unseeded: set[str] = set()
        self._lock = threading.Lock()
        self._said: tuple[str, float] = ("", -math.inf)

    def generator(self, key: str) -> np.random.Generator:
        """Return a fresh generator that depends on seed and key alone.

        Raises:
            RuntimeError: Inside a stage that was said not to depend on the seed.
        """
        if self._open and self._open[-1] in self._unseeded:
            raise RuntimeError("a stage that does not know the seed asked for its numbers")
        mark = hashlib.blake2b(f"{self.seed}\0{key}".encode(), digest_size=16).digest()
        return np.random.Generator(np.random.PCG64(int.from_bytes(mark, "little")))

    def progress(self, stage: str, step: int, total: int) -> None:
        """Report ``step`` of ``total`` of a stage.

        Raises:
            Cancelled: The artist has cancelled.
        """
        self.check_cancelled()
        now = self._clock()
        with self._lock:
            last_stage, last_s = self._said
            if stage == last_stage and step < total and now - last_s < _QUIET_S:
                return
            self._said = (stage, now)
        said = {"is": "progress", "job": self.job, "stage": stage}
        self._say({**said, "step": int(step), "total": int(total)})

    def check_cancelled(self) -> None:
        """Raise Cancelled where the artist has cancelled."""
        if self._is_cancelled():
            raise Cancelled("The job was cancelled.")

    def warn(self, sentence: str) -> None:
        """Tell the artist something, once: log, event and manifest carry it."""
        with self._lock:
            if sentence in self.warnings:
                return
            self.warnings.append(sentence)
        self.log.warning("%s", sentence)
        self._say({"is": "warning", "job": self.job, "sentence": sentence})

    def report(self, key: str, value: Any) -> None:
        """Put a figure into the manifest.

        Raises:
            TypeError: It is not plain data.
        """
        self.figures[key] = as_plain(value)

    def stage(
        self,
        name: str,
        fn: Callable[..., T],
        *inputs: Any,
        version: int = 1,
        seeded: bool = True,
        **settings: Any,
    ) -> T:
        """Return ``fn(self, *inputs, **settings)``, kept on disk by content.

        A shot among the inputs comes to ``fn`` without the knobs of its request. Where ``seeded``
        is False, the seed is not part of the key, and ``fn`` gets no random numbers.

        Raises:
            Cancelled: The artist has cancelled.
            TypeError: An input, a setting or what ``fn`` made is not plain.
        """
        self.check_cancelled()
        given = tuple(one.without_knobs() if isinstance(one, SpoolShot) else one for one in inputs)
        release = gencomp_protocol.__version__
        seed = self.seed if seeded else None
        key = self._store.key(
            release, self.system, name, version, seed, self.device, settings, given
        )
        call = StageCall(key, name, fn, given, settings, seeded)
        started = self._clock()
        found = self._store.load(key)
        row = self._begun(call, found is not None)
        made: T = found[0] if found else self._computed(call, row)
        self._provenance.note(frozenset((key,)), made)
        if key not in {one.key for one in self.rows}:  # asked for again within the run
            row = self._ended(row, DONE, started)
            self.rows.append(row)
        self.log.info("stage %s %s %.3f s", name, "found" if row.reused else "made", row.seconds)
        return made

    def made_of(self, value: T, *sources: Any) -> T:
        """Return a value that was computed outside of a stage, after noting what it was made of."""
        self._provenance.note(self._provenance.of(sources), value)
        return value

    @contextmanager
    def inside(self, call: StageCall) -> Iterator[None]:
        """Hold the place of a stage that is computed in this process: whose checkpoints these are.

        For an executor; see ``engine/executor.py``.
        """
        if not call.seeded:
            self._unseeded.add(call.key)
        self._open.append(call.key)
        try:
            yield
        finally:
            self._open.pop()

    def delivered(self, seconds: float, size: int) -> None:
        """Tell the row of the delivery: what was made of the stages that no other needed.

        Args:
            seconds: How long the whole run took.
            size: Bytes of all that was delivered.
        """
        spent = sum(row.seconds for row in self.rows)
        row = StageRow(DELIVERY, DELIVERY, round(max(0.0, seconds - spent), 3), bytes=size)
        self._tell(replace(row, needs=sinks(self.rows)))

    def checkpoint(
        self, name: str, tensors: Mapping[str, NDArray[Any]] | None = None
    ) -> dict[str, NDArray[Any]] | None:
        """Inside a stage: save named arrays, or, given none, return what was saved (or None).

        Raises:
            RuntimeError: No stage is running.
        """
        if not self._open:
            raise RuntimeError("a checkpoint belongs to a stage, and none is running")
        if tensors is None:
            return self._store.load_checkpoint(self._open[-1], name)
        self._store.save_checkpoint(self._open[-1], name, tensors)
        return None

    def _begun(self, call: StageCall, is_found: bool) -> StageRow:
        """Return the row of a stage at its begin; one that is computed is told."""
        needs = self._provenance.of([call.given, call.settings]) - {call.key}
        shots = [one for one in call.given if isinstance(one, SpoolShot)]
        reads = tuple(dict.fromkeys(name for shot in shots for name in shot.names))
        needed = tuple(one.key for one in self.rows if one.key in needs)
        row = StageRow(call.name, call.key, 0.0, is_found, RUNNING, 0, needed, reads)
        if not is_found:
            self._tell(row)
        return row

    def _computed(self, call: StageCall, row: StageRow) -> Any:
        """Have a stage computed; how that ended is told where it did not go well."""
        started = self._clock()
        try:
            return self._executor.run(call, self)
        except Cancelled:
            self._ended(row, STOPPED, started)
            raise
        except BaseException:
            self._ended(row, FAILED, started)
            raise

    def _ended(self, row: StageRow, state: str, started_s: float) -> StageRow:
        """Return the row of a stage at its end, and tell it."""
        seconds, size = round(self._clock() - started_s, 3), self._store.size(row.key)
        row = replace(row, state=state, seconds=seconds, bytes=size)
        self._tell(row)
        return row

    def _tell(self, row: StageRow) -> None:
        self._say({"is": "stage", "job": self.job, "stage": to_plain(row)})


def as_plain(value: Any) -> Any:
    """Return a value as JSON knows it: numpy scalars as numbers, tuples as lists, keys as text.

    Raises:
        TypeError: It holds something else.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, (tuple, list)):
        return [as_plain(one) for one in value]
    if isinstance(value, Mapping):
        return {str(key): as_plain(one) for key, one in value.items()}
    raise TypeError(f"a manifest cannot hold a {type(value).__name__}")
