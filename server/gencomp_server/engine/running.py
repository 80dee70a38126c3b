# SPDX-License-Identifier: Apache-2.0
"""Inside the worker process: take a job, run its system, say what happens.

The main thread runs jobs. A second one reads the pipe, so that a cancel arrives in the middle of a
stage, and ends the process when the front is gone. Layers are encoded in the background
(``engine/encode.py``). This is one of the three edges where an unknown exception is caught: it
becomes an InternalError with an id, and the traceback goes to the log under that id.
"""

import logging
import os
import queue
import secrets
import threading
import time
from collections.abc import Iterable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from gencomp_protocol.codec import request_from_plain
from gencomp_protocol.errors import Cancelled, GencompError, InternalError, OutOfMemory
from gencomp_protocol.request import Request
from gencomp_server.contract import System, check_request, find_system
from gencomp_server.engine.context import JobContext
from gencomp_server.engine.encode import Encoder, Written
from gencomp_server.engine.ingest import check_ingest
from gencomp_server.engine.manifest import (
    describe_inputs,
    describe_job,
    describe_layers,
    describe_run,
    provenance,
)
from gencomp_server.engine.shot import PictureShelf, SpoolShot
from gencomp_server.engine.spool import DEFAULT_BUDGET, Spool, SpoolBudget
from gencomp_server.engine.stages import StageStore
from gencomp_server.exr.decode import Decoded, DecodePool
from gencomp_server.exr.pixels import limit_library
from gencomp_server.gate import load_registry
from gencomp_server.logs import configure, job_named

log = logging.getLogger(__name__)


def serve(
    connection: Connection,
    registry: str,
    device: str,
    spool: Path,
    log_level: str,
    budget: SpoolBudget = DEFAULT_BUDGET,
) -> None:
    """Run the jobs that arrive over ``connection`` until told to stop.

    Args:
        connection: The worker's end of the pipe.
        registry: Where the systems are, as ``"module:attribute"``.
        device: What to run on.
        spool: The server's spool folder.
        log_level: ``debug``, ``info``, ``warning`` or ``error``.
        budget: How much the spool may keep of what can be made again.
    """
    # A signal to the front's group is the front's to answer: it may let the job finish.
    os.setsid()
    configure(log_level)
    limit_library()
    mailbox = Mailbox(connection)
    runner = Runner(load_registry(registry), device, Spool(spool, budget), mailbox)
    mailbox.say({"is": "ready"})
    while (message := mailbox.next()) is not None:
        with job_named(message["job"]):
            runner.run(message)
    runner.close()


def leave() -> NoReturn:
    """End the process at once: the front is gone, and nobody waits for what runs.

    Nothing half-written is visible, and a stage goes on from its checkpoint.
    """
    os._exit(0)


class Mailbox:
    """The worker's end of the pipe: a thread that reads it, and a lock for those who write.

    Args:
        connection: The pipe.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        self._cancelled: set[str] = set()
        threading.Thread(target=self._read, name="mailbox", daemon=True).start()

    def next(self) -> Mapping[str, Any] | None:
        """Wait for the next job; None when it is time to leave."""
        return self._jobs.get()

    def say(self, message: Mapping[str, Any]) -> None:
        """Send a message to the front; any thread may."""
        with self._lock:
            try:
                self._connection.send(dict(message))
            except (BrokenPipeError, ConnectionResetError):
                leave()

    def is_cancelled(self, job: str) -> bool:
        """Tell whether a job was cancelled."""
        return job in self._cancelled

    def _read(self) -> None:
        try:
            while True:
                self._heed(self._connection.recv())
        except (EOFError, OSError):
            leave()

    def _heed(self, message: Mapping[str, Any]) -> None:
        if message["do"] == "run":
            self._cancelled.discard(message["job"])
            self._jobs.put(message)
        elif message["do"] == "cancel":
            self._cancelled.add(message["job"])
        else:
            self._jobs.put(None)


class Runner:
    """Runs one job after the other.

    Args:
        registry: The systems.
        device: What to run on.
        spool: The server's spool.
        mailbox: Where messages go.
    """

    def __init__(
        self, registry: Iterable[System], device: str, spool: Spool, mailbox: Mailbox
    ) -> None:
        self._registry, self._device = tuple(registry), device
        self._spool, self._mailbox = spool, mailbox
        self._store = StageStore(spool.stages)
        self._pool = DecodePool(1)

    def run(self, message: Mapping[str, Any]) -> None:
        """Run a job to its end and say how it ended: done, failed or cancelled."""
        job = message["job"]
        try:
            self._mailbox.say({"is": "started", "job": job})
            manifest = self._run(job, message)
            self._mailbox.say({"is": "done", "job": job, "manifest": manifest})
        except Cancelled:
            log.info("cancelled")
            self._mailbox.say({"is": "cancelled", "job": job})
        except Exception as error:
            self._mailbox.say({"is": "failed", "job": job, "error": as_failure(error).to_wire()})

    def close(self) -> None:
        """End the decoder process."""
        self._pool.close()

    def _run(self, job: str, message: Mapping[str, Any]) -> dict[str, Any]:
        started = time.monotonic()
        request = request_from_plain(message["request"])
        system = find_system(self._registry, request.system)
        params = check_request(system, request)
        shelf = PictureShelf(self._spool, system, request, message["pictures"], self._pool)
        ctx = JobContext(
            job,
            system.name,
            params.seed,
            self._device,
            self._store,
            self._mailbox.say,
            lambda: self._mailbox.is_cancelled(job),
        )
        try:
            pictures = decoded_inputs(shelf, request)
            # The front has told the artist of these already; the manifest keeps them.
            ctx.warnings.extend(check_ingest(system, request, pictures))
            layers = self._deliver(job, system, request, params, ctx, shelf)
            manifest = {
                **describe_job(system, request, params, self._device),
                "inputs": describe_inputs(request, pictures),
                "layers": layers,
                **describe_run(ctx, time.monotonic() - started),
            }
            self._spool.write_manifest(job, manifest)
        finally:
            shelf.close()
            self._spool.trim_stages({row.key for row in ctx.rows})
            self._spool.trim_decoded()
        log.info("done in %.1f s", time.monotonic() - started)
        return manifest

    def _deliver(
        self,
        job: str,
        system: System,
        request: Request,
        params: Any,
        ctx: JobContext,
        shelf: PictureShelf,
    ) -> dict[str, Any]:
        """Run the system and write what it yields; return the manifest's table of layers."""
        specs = {spec.name: spec for spec in system.layers(request)}
        owed = {(name, n) for name in specs for n in request.frames}
        made: dict[tuple[str, int], Written] = {}
        total = len(owed)

        def written(one: Written) -> None:
            made[one.layer, one.frame] = one
            facts = {"layer": one.layer, "frame": one.frame, "path": str(one.path)}
            sizes = {"bytes": one.bytes, "digest": one.digest}
            self._mailbox.say({"is": "layer", "job": job, **facts, **sizes})

        encoder = Encoder(self._spool, job, written, metadata=provenance(system, request, params))
        try:
            for picture in system.run(SpoolShot(request, shelf), params, ctx):
                ctx.check_cancelled()
                place = (picture.layer, picture.frame)
                if place not in owed or picture.channels != specs[picture.layer].channels:
                    raise InternalError(
                        f"{system.title} made layer '{place[0]}' frame {place[1]} with "
                        f"{','.join(picture.channels)}, which it did not declare."
                    )
                owed.remove(place)
                encoder.put(picture)
                ctx.progress("layers", total - len(owed), total)
            encoder.finish()
        finally:
            encoder.close()
        if owed:
            name, n = min(owed)
            raise InternalError(f"{system.title} did not make layer '{name}' frame {n}.")
        return describe_layers(system, request, made)


def decoded_inputs(shelf: PictureShelf, request: Request) -> dict[str, dict[int, Decoded]]:
    """Return header and figures of every picture of a job, by input and frame."""
    names = [entry.name for entry in request.inputs]
    return {name: {n: shelf.decoded(name, n) for n in shelf.pictures[name]} for name in names}


def as_failure(error: Exception) -> GencompError:
    """Return what an artist reads of why a job failed; of a fault of ours the log has all."""
    if isinstance(error, GencompError) and not isinstance(error, InternalError):
        log.info("failed: %s", error)
        return error
    if isinstance(error, MemoryError):
        log.error("out of memory", exc_info=error)
        return OutOfMemory(
            "The job ran out of memory.", hint="Choose a smaller model size, or fewer frames."
        )
    mark = secrets.token_hex(4)
    log.error("internal error %s", mark, exc_info=error)
    words = error.message if isinstance(error, InternalError) else "The server made a mistake."
    return InternalError(
        words, hint=f"Report it with the server's log around the number {mark}.", id=mark
    )
