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
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import psutil

from gencomp_protocol import disk
from gencomp_protocol.codec import request_from_plain
from gencomp_protocol.errors import Cancelled, GencompError, InternalError, OutOfMemory
from gencomp_protocol.request import STILL, Request
from gencomp_server import pulse
from gencomp_server.backbones import BackboneSpec, idle_knobs, spec_named, steps_of
from gencomp_server.colour.spaces import check_space, resolve
from gencomp_server.contract import (
    NO_BACKBONE,
    LayerFrame,
    Machine,
    System,
    check_request,
    find_system,
)
from gencomp_server.cost import place
from gencomp_server.engine import machine as machines
from gencomp_server.engine import residency
from gencomp_server.engine.carried import carried_inputs, check_carried
from gencomp_server.engine.contactsheet import ContactSheet
from gencomp_server.engine.context import JobContext
from gencomp_server.engine.encode import Encoder, Written
from gencomp_server.engine.executor import Executor, LocalExecutor
from gencomp_server.engine.ingest import check_ingest
from gencomp_server.engine.intake import with_formats
from gencomp_server.engine.machine import WeightsPlace
from gencomp_server.engine.manifest import (
    delivered_bytes,
    describe_inputs,
    describe_job,
    describe_layers,
    describe_run,
    provenance,
)
from gencomp_server.engine.residency import LazyBackbone, Residency
from gencomp_server.engine.shot import PictureShelf, SpoolShot
from gencomp_server.engine.spool import DEFAULT_BUDGET, Spool, SpoolBudget, disk_error, write_atomic
from gencomp_server.engine.stages import StageStore
from gencomp_server.exr.decode import Decoded, DecodePool
from gencomp_server.exr.header import NO_LIMITS
from gencomp_server.exr.pixels import limit_library
from gencomp_server.footprint import Placement
from gencomp_server.gate import load_registry, plan_on
from gencomp_server.logs import LogSettings, configure, job_named
from gencomp_server.provenance import HASHES, texts_of
from gencomp_server.segmenting import Segmenter

log = logging.getLogger(__name__)

_KEPT = "models"  # Folder of the spool for embeddings of prompts and compiled code.


def serve(
    connection: Connection,
    registry: str,
    device: str,
    spool: Path,
    log_settings: LogSettings,
    budget: SpoolBudget = DEFAULT_BUDGET,
    weights: WeightsPlace | None = None,
    segmenter: Segmenter | None = None,
    metadata: str = HASHES,
) -> None:
    """Run the jobs that arrive over ``connection`` until told to stop.

    Args:
        connection: The worker's end of the pipe.
        registry: Where the systems are, as ``"module:attribute"``.
        device: What to run on.
        spool: The server's spool folder.
        log_settings: What its log is.
        budget: How much the spool may keep of what can be made again.
        weights: Where weights lie; None for none.
        segmenter: What draws mattes of what words name; None for none.
        metadata: How much delivered files say: ``full``, ``hashes`` or ``minimal``.
    """
    # A signal to the front's group is the front's to answer: it may let the job finish.
    os.setsid()
    configure(log_settings)
    limit_library()
    mailbox = Mailbox(connection)
    try:
        machine = machines.probe(device)
    except GencompError as error:
        mailbox.say({"is": "unfit", "error": error.to_wire()})
        return
    runner = Runner(
        load_registry(registry),
        machine,
        Spool(spool, budget),
        mailbox,
        weights=weights,
        segmenter=segmenter,
        metadata=metadata,
    )
    mailbox.say({"is": "ready", "machine": machines.to_plain(machine)})
    while (message := mailbox.next()) is not None:
        with job_named(message["job"], texts_of(message["request"].get("knobs", {}))):
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
        machine: What to run on.
        spool: The server's spool.
        mailbox: Where messages go.
        weights: Where weights lie; None for none.
        held: Keeps the backbone; None makes one.
        segmenter: What draws mattes of what words name; None for none.
        metadata: How much delivered files say: ``full``, ``hashes`` or ``minimal``.
        executor: Makes what computes stages, given where they are kept.
    """

    def __init__(
        self,
        registry: Iterable[System],
        machine: Machine,
        spool: Spool,
        mailbox: Mailbox,
        *,
        weights: WeightsPlace | None = None,
        held: Residency | None = None,
        segmenter: Segmenter | None = None,
        metadata: str = HASHES,
        executor: Callable[[StageStore], Executor] = LocalExecutor,
    ) -> None:
        self._registry = tuple(registry)
        self._machine = replace(machine, segmenter=segmenter is not None)
        self._spool, self._mailbox, self._weights = spool, mailbox, weights
        self._segmenter, self._metadata = segmenter, metadata
        self._residency = held or Residency(spool.root / _KEPT)
        self._store = StageStore(spool.stages)
        self._executor = executor(self._store)
        # What comes here was within the limits when it was received.
        self._pool = DecodePool(1, limits=NO_LIMITS)

    def run(self, message: Mapping[str, Any]) -> None:
        """Run a job to its end and say how it ended: done, failed or cancelled."""
        job, failure = message["job"], None
        try:
            self._mailbox.say({"is": "started", "job": job})
            with pulse.felt_by(lambda: self._mailbox.say({"is": "alive", "job": job})):
                manifest = self._run(job, message)
            end: dict[str, Any] = {"is": "done", "job": job, "manifest": manifest}
        except Cancelled:
            log.info("cancelled")
            end = {"is": "cancelled", "job": job}
        except Exception as error:
            failure = as_failure(error).to_wire()
            end = {"is": "failed", "job": job, "error": failure}
        if failure is not None and failure["code"] == OutOfMemory.code:
            # Here nobody holds the error any more, nor the frames that it went through.
            self._residency.evict()
        self._mailbox.say({**end, "holds": self._holds()})

    def _holds(self) -> dict[str, Any]:
        """Return what the process holds between two jobs: which model, how much memory."""
        return {
            "model": self._residency.holds,
            "memory_bytes": int(psutil.Process().memory_info().rss),
            "device_bytes": residency.device_bytes(self._machine.device),
        }

    def close(self) -> None:
        """End the decoder process."""
        self._pool.close()

    def _run(self, job: str, message: Mapping[str, Any]) -> dict[str, Any]:
        started = time.monotonic()
        request = request_from_plain(message["request"])
        system = find_system(self._registry, request.system)
        params = check_request(system, request)
        log.debug("knobs %s", dict(request.knobs))
        check_space(request)
        shelf = PictureShelf(self._spool, system, request, message["pictures"], self._pool)
        ctx = JobContext(
            job,
            system.name,
            params.seed,
            self._machine.device,
            self._store,
            self._mailbox.say,
            lambda: self._mailbox.is_cancelled(job),
            executor=self._executor,
        )
        ctx.segmenter = self._segmenter
        try:
            with self._spool.working():
                pictures = decoded_inputs(shelf, request)
                # The front has told the artist of these already; the manifest keeps them.
                ctx.warnings.extend(check_ingest(system, request, pictures))
                carried = carried_inputs(system, request, params)
                check_carried(SpoolShot(request, shelf), carried, ctx)
                ctx.backbone = self._lend(system, with_formats(request, pictures), params, ctx)
                begun = time.monotonic()
                layers = self._deliver(job, system, request, params, ctx, shelf)
                ctx.delivered(time.monotonic() - begun, delivered_bytes(layers))
                manifest = {
                    **describe_job(system, request, params, self._machine.device),
                    "backbone": self._describe_backbone(system, ctx.backbone, params),
                    "inputs": describe_inputs(request, pictures),
                    "layers": layers,
                    **describe_run(ctx, time.monotonic() - started),
                }
                self._spool.write_manifest(job, manifest)
        finally:
            if ctx.backbone is not None:
                ctx.backbone.release()
            shelf.close()
            self._spool.trim_stages({row.key for row in ctx.rows})
            self._spool.trim_decoded()
        log.info("done in %.1f s", time.monotonic() - started)
        return manifest

    # --- the backbone ----------------------------------------------------------------------------

    def _lend(
        self, system: System, request: Request, params: Any, ctx: JobContext
    ) -> LazyBackbone | None:
        """Return the backbone that a job's plan names, not loaded yet; None for none.

        Raises:
            BadKnob: The backbone named does not serve the system.
            WeightsMissing: It is not installed any more.
            WeightsRefused: It is not allowed, or not what it was.
            OutOfMemory: The job does not fit.
        """
        if system.backbone == NO_BACKBONE:
            return None
        shelf = None if self._weights is None else self._weights.shelf()
        machine = self._machine
        if shelf is not None and self._weights is not None:
            machine = machines.with_weights(machine, shelf, self._weights.allowed)
        plan = plan_on(system, request, machine)
        ctx.plan_notes = plan.notes
        if not plan.backbone:
            return None
        spec = spec_named(plan.backbone)
        placement = (
            Placement(**plan.placement) if plan.placement else _usual_placement(spec, machine)
        )
        sentence = residency.stand_in_sentence(spec, system.title, system.name)
        if sentence is not None:
            ctx.warn(sentence)
        idle = idle_knobs(params, machine.device, spec)
        if idle is not None:
            ctx.warn(idle)
        want = residency.wanted(spec, params, placement, machine.device, machine.name)
        if spec.is_tiny or shelf is None:
            return self._residency.lease(want, "")

        def told(path: Path, done: int, total: int) -> None:
            ctx.progress(f"reading {path.name}", done >> 20, total >> 20)

        return self._residency.lease(
            want, shelf.identity(spec.weights, told), shelf.files(spec.weights), ctx.progress
        )

    def _describe_backbone(
        self, system: System, lent: LazyBackbone | None, params: Any
    ) -> dict[str, Any] | None:
        """Return what manifest and files say of a job's backbone."""
        if lent is None:
            return None
        licence: Mapping[str, str] = {}
        if self._weights is not None and not lent.spec.is_tiny:
            licence = self._weights.shelf().licence(lent.spec.weights)
        found = residency.describe(lent, system.name, licence)
        return {**found, "quality": params.quality, "steps": steps_of(params, lent.spec)}

    # --- layers ----------------------------------------------------------------------------------

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

        about = self._describe_backbone(system, ctx.backbone, params)
        level = self._metadata
        metadata = provenance(system, request, params, about, pictures=shelf.pictures, level=level)
        whole = {spec.name for spec in specs.values() if spec.whole}
        packed = getattr(params, "compression", "zip")  # A system of a test may lack the knob.
        encoder = Encoder(
            self._spool,
            job,
            written,
            metadata=metadata,
            whole=whole,
            compression=packed,
            level=level,
        )
        carried = carried_inputs(system, request, params)
        shot = SpoolShot(request, shelf)
        to_rec709 = resolve(request.working_space, request.ocio).describe().get("to_rec709")
        sheet = ContactSheet(request.frames, to_rec709)
        _add_lead(sheet, shot)
        try:
            for picture in pictures_of(system, shot, params, ctx):
                ctx.check_cancelled()
                place = (picture.layer, picture.frame)
                if place not in owed or picture.channels != specs[picture.layer].channels:
                    raise InternalError(
                        f"{system.title} made layer '{place[0]}' frame {place[1]} with "
                        f"{','.join(picture.channels)}, which it did not declare."
                    )
                owed.remove(place)
                source = carried.get(picture.layer)
                encoder.put(picture, shot.rest(source, picture.frame) if source else None)
                seen = (picture.channels, picture.display_window, picture.data_window)
                sheet.add(picture.layer, picture.frame, picture.pixels, *seen)
                ctx.progress("layers", total - len(owed), total)
            encoder.finish()
        finally:
            encoder.close()
        if owed:
            name, n = min(owed)
            raise InternalError(f"{system.title} did not make layer '{name}' frame {n}.")
        drawn = sheet.png()
        if drawn is not None:
            write_atomic(self._spool.sheet(job), drawn)
        return describe_layers(system, request, made)


def _add_lead(sheet: ContactSheet, shot: SpoolShot) -> None:
    """Put the job's first picture input on its contact sheet."""
    lead = next((one for one in shot.names if not one.startswith("matte.")), None)
    entry = None if lead is None else shot.request.input(lead)
    if lead is None or entry is None:
        return
    for n in sheet.frames:
        if entry.cover == STILL or n in shot.frames_of(lead):
            header = shot.header(lead, n)
            facts = (header.channels, header.display_window, header.data_window)
            sheet.add(lead, n, shot.frame(lead, n), *facts)


def pictures_of(
    system: System, shot: SpoolShot, params: Any, ctx: JobContext
) -> Iterator[LayerFrame]:
    """Run a system; once more, in less memory, where that ran out.

    It happens once, and only before anything was yielded. The whole run is asked for again: what is
    finished and the same in the cheaper plan is found on disk, and all that is decoded is decoded
    alike, so that what the VAE does to a picture is still the same in each. The next job starts as
    planned.

    Raises:
        OutOfMemory: The cheaper plan does not fit either, or there is none.
    """
    try:
        pictures = iter(system.run(shot, params, ctx))
        first = next(pictures, None)
    except OutOfMemory as error:
        sentence = "" if ctx.backbone is None else ctx.backbone.turn_cheaper(error)
        if not sentence:
            raise
        first = None
    else:
        if first is not None:
            yield first
            yield from pictures
        return
    # Outside of the handler: there the error would keep what was computed in memory.
    ctx.warn(sentence)
    yield from system.run(shot, params, ctx)


def _usual_placement(spec: BackboneSpec, machine: Machine) -> Placement:
    """Return the placement of one window at the size trained at, for a plan that names none."""
    window = spec.latent_frames(spec.window_frames)
    return place(spec, spec.model_size, window, machine=machine)[0]


def decoded_inputs(shelf: PictureShelf, request: Request) -> dict[str, dict[int, Decoded]]:
    """Return header and figures of every picture of a job, by input and frame."""
    names = [entry.name for entry in request.inputs]
    return {name: {n: shelf.decoded(name, n) for n in shelf.pictures[name]} for name in names}


def as_failure(error: Exception) -> GencompError:
    """Return what an artist reads of why a job failed; of a fault of ours the log has all."""
    if isinstance(error, GencompError) and not isinstance(error, InternalError):
        log.info("failed: %s", error)
        return error
    if residency.is_out_of_memory(error):
        log.error("out of memory", exc_info=error)
        return OutOfMemory(
            "The job ran out of memory.", hint="Choose a smaller model size, or fewer frames."
        )
    if isinstance(error, OSError) and error.errno in disk.FULL | disk.NO_HANDLES | disk.PASSING:
        log.error("the disk, or what it is opened with, failed", exc_info=error)
        place = error.filename if isinstance(error.filename, str) else "worker/files"
        return disk_error(error, Path(place).parent)
    mark = secrets.token_hex(4)
    log.error("internal error %s", mark, exc_info=error)
    words = error.message if isinstance(error, InternalError) else "The server made a mistake."
    return InternalError(
        words, hint=f"Report it with the server's log around the number {mark}.", id=mark
    )
