# SPDX-License-Identifier: Apache-2.0
"""The worker process, as the front sees it: started, spoken to, ended.

One worker runs one job at a time on one device. What it runs is named, ``"module:attribute"`` of a
registry of systems, so that nothing heavy is imported on this side; the other side is
``engine/running.py``. Messages are plain dicts over a pipe (``engine/pipe.py``)::

    to the worker    {"do": "run", "job": id, "request": {…}, "pictures": {input: {frame: digest}}}
                     {"do": "cancel", "job": id}
                     {"do": "stop"}
    from the worker  {"is": "ready", "machine": {…}}
                     {"is": "unfit", "error": {…}}: it cannot run on its device, and leaves
                     {"is": "started", "job": id}
                     {"is": "progress", "job": id, "stage": name, "step": i, "total": n}
                     {"is": "alive", "job": id}: it has got on, without a step to tell of
                     {"is": "warning", "job": id, "sentence": text}
                     {"is": "stage", "job": id, "stage": {…}}: as engine/graph.py has it
                     {"is": "layer", "job": id, "layer": name, "frame": n, "path": file,
                      "bytes": size, "digest": hex}
                     {"is": "done", "job": id, "manifest": {…}}
                     {"is": "failed", "job": id, "error": {code, message, hint, details}}
                     {"is": "cancelled", "job": id}

    The last three also hold {"holds": {"model": text, "memory_bytes": n, "device_bytes": n}}.

When the worker dies its end closes: reading from :attr:`Worker.connection` raises EOFError. When
the front dies, so does the worker. A worker that is stopped holds up nobody who writes or reads.
"""

import faulthandler
import logging
import multiprocessing
from collections.abc import Mapping
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from gencomp_server.engine.machine import WeightsPlace
from gencomp_server.engine.pipe import WorkerPipe
from gencomp_server.engine.spool import DEFAULT_BUDGET, SpoolBudget
from gencomp_server.logfile import last_lines
from gencomp_server.logs import LogSettings
from gencomp_server.provenance import HASHES
from gencomp_server.segmenting import Segmenter

REGISTRY = "gencomp_server.systems:REGISTRY"
# A process whose pipe has closed is not quite gone yet.
_DYING_S = 0.5
DEFAULT_LOG = LogSettings()
TRACES = "workers"  # Folder of the spool: where each worker was when a fault of its own ended it.
_TAIL_BYTES = 1 << 20  # Of the log, from its end; reading all of it would take a second.
_TAIL_LINES, _TRACE_CHARACTERS = 20, 4000


class Worker:
    """One spawned process that runs jobs.

    Args:
        registry: Where the systems are, as ``"module:attribute"``.
        device: What it runs on: ``cpu``, ``cuda:0``.
        spool: The server's spool folder.
        log_settings: What its log is.
        budget: How much the spool may keep of what can be made again.
        weights: Where weights lie; None for none.
        segmenter: What draws mattes of what words name; None for none.
        metadata: How much delivered files say: ``full``, ``hashes`` or ``minimal``.
        number: Which of the server's workers it is, from 0.
    """

    def __init__(
        self,
        registry: str = REGISTRY,
        device: str = "cpu",
        spool: Path = Path("spool"),
        *,
        log_settings: LogSettings = DEFAULT_LOG,
        budget: SpoolBudget = DEFAULT_BUDGET,
        weights: WeightsPlace | None = None,
        segmenter: Segmenter | None = None,
        metadata: str = HASHES,
        number: int = 0,
    ) -> None:
        where = (registry, device, str(spool))
        self._log_file = log_settings.file
        self._trace = spool / TRACES / f"{number}.txt"
        self._arguments = (
            *(*where, log_settings, budget, weights, segmenter, metadata),
            str(self._trace),
        )
        self._process: SpawnProcess | None = None
        self._leaving: list[SpawnProcess] = []  # Ended, and not gone yet.
        self._connection: WorkerPipe | None = None

    @property
    def connection(self) -> WorkerPipe:
        """The front's end of the pipe; its ``fileno()`` can be polled."""
        if self._connection is None:
            raise RuntimeError("the worker was not started")
        return self._connection

    @property
    def pid(self) -> int | None:
        """Process id, once started."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process; it says ``ready`` when it can take a job."""
        self._reap()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_main, args=(theirs, *self._arguments), name="gencomp-worker", daemon=True
        )
        process.start()
        theirs.close()
        self._process, self._connection = process, WorkerPipe(ours)

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message, as far as the pipe takes it; one to a dead worker is dropped.

        The closed pipe tells the rest.
        """
        try:
            self.connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            logging.getLogger(__name__).info("the worker is gone; %s not sent", message.get("do"))

    def tail(self, job: str) -> str:
        """Return the last lines that the log has of a job, and where its process was if it broke.

        Args:
            job: The job.
        """
        lines = []
        if self._log_file:
            log_file, most = Path(self._log_file), _TAIL_BYTES
            for entry in last_lines(log_file, _TAIL_LINES, job=job, most_bytes=most):
                lines.append(f"{entry.get('level')}: {entry['message']}")
        try:
            trace = self._trace.read_text("utf-8", "replace")
        except OSError:
            trace = ""
        return "\n".join([*lines, *trace[:_TRACE_CHARACTERS].splitlines()])

    def alive(self) -> bool:
        """Tell whether the process runs."""
        return self._process is not None and self._process.is_alive()

    def kill(self) -> None:
        """End the process at once and forget it; :meth:`start` may be called again.

        Nobody waits for its end: a process that a driver holds may take its time to be gone.
        """
        if self._process is not None:
            self._process.kill()
        self._forget()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Ask the process to leave after what it does now; kill it after ``timeout_s``."""
        if self._process is not None:
            self.send({"do": "stop"})
            self._process.join(timeout_s)
            if self._process.is_alive():
                self._process.kill()
            self._forget()
        for process in self._leaving:
            process.join(timeout_s)
        self._reap()

    def exit_code(self) -> int | None:
        """Return how the process ended: negative for a signal; None while it runs."""
        if self._process is None:
            return None
        self._process.join(_DYING_S)
        return self._process.exitcode

    def _forget(self) -> None:
        if self._process is not None:
            self._leaving.append(self._process)
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None
        self._reap()

    def _reap(self) -> None:
        """Take leave of processes that are gone by now."""
        gone = [process for process in self._leaving if not process.is_alive()]
        self._leaving = [process for process in self._leaving if process not in gone]
        for process in gone:
            process.close()


def _main(
    connection: Connection,
    registry: str,
    device: str,
    spool: str,
    log_settings: LogSettings,
    budget: SpoolBudget,
    weights: WeightsPlace | None,
    segmenter: Segmenter | None,
    metadata: str,
    trace: str,
) -> None:
    """Become the worker; runs in the new process only."""
    from gencomp_server.engine.running import serve

    Path(trace).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    faulthandler.enable(open(trace, "w", encoding="utf-8"))  # noqa: SIM115 - open to the end
    where = (registry, device, Path(spool))
    serve(connection, *where, log_settings, budget, weights, segmenter, metadata)
