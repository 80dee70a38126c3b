# SPDX-License-Identifier: Apache-2.0
"""An executor that computes every stage in another process: one spool, no memory in common."""

import multiprocessing
import threading
import time

from gencomp_protocol.errors import GencompError, error_from_wire
from gencomp_server.engine.executor import forget_packed, pack, run_packed
from gencomp_server.engine.residency import Residency
from gencomp_server.engine.spool import Spool
from gencomp_server.gate import load_registry


class Elsewhere:
    """Computes stages in one other process, one at a time; ended by :meth:`close`.

    ``ran`` names the stages that it was given, ``pids`` where they ran.
    """

    def __init__(self, store, spool, registry):
        self._store, self.ran, self.pids = store, [], set()
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        given = (theirs, str(spool.root), registry)
        self._process = context.Process(target=serve, args=given, daemon=True)
        self._process.start()
        theirs.close()

    def run(self, call, ctx):
        """Compute a stage there; see ``engine.executor.Executor``."""
        self.ran.append(call.name)
        self._pipe.send({"do": "run", "call": pack(call, ctx, self._store)})
        failure = None
        while True:
            if not self._pipe.poll(0.05):
                failure = failure or self._cancelled(ctx)
                continue
            said = self._pipe.recv()
            if said["is"] == "progress" and failure is None:
                try:
                    ctx.progress(said["stage"], said["step"], said["total"])
                except GencompError as error:
                    self._pipe.send({"do": "cancel"})
                    failure = error
            elif said["is"] == "warning":
                ctx.warn(said["sentence"])
            elif said["is"] in ("done", "failed"):
                break
        forget_packed(call.key, self._store)
        self.pids.add(said["pid"])
        if said["is"] == "failed":
            raise failure or error_from_wire(said["error"])
        if ctx.backbone is not None:
            ctx.backbone.forwards += said["forwards"]
        return self._store.load(call.key)[0]

    def _cancelled(self, ctx):
        try:
            ctx.check_cancelled()
        except GencompError as error:
            self._pipe.send({"do": "cancel"})
            return error
        return None

    def close(self):
        """End the process."""
        self._pipe.close()
        self._process.join(20)
        assert self._process.exitcode == 0


def wait(ctx, *, forever):
    """Stand for a long stage: it says so and goes on until it is cancelled."""
    step = 0
    while forever:
        step += 1
        ctx.progress("wait", step, step + 1)
        time.sleep(0.02)
    return step


def serve(pipe, root, registry):
    """Compute what comes over the pipe; in the other process."""
    import os

    spool, systems = Spool(root), load_registry(registry)
    held, cancelled, calls = Residency(spool.root / "models"), threading.Event(), []
    arrived = threading.Semaphore(0)

    def read():
        while True:
            try:
                message = pipe.recv()
            except EOFError:
                calls.append(None)
                arrived.release()
                return
            if message["do"] == "cancel":
                cancelled.set()
                continue
            cancelled.clear()
            calls.append(message["call"])
            arrived.release()

    threading.Thread(target=read, daemon=True).start()
    while arrived.acquire() and (packed := calls.pop(0)) is not None:
        try:
            made = run_packed(
                packed, spool, systems, say=pipe.send, is_cancelled=cancelled.is_set, held=held
            )
            pipe.send({"is": "done", "forwards": made, "pid": os.getpid()})
        except GencompError as error:
            pipe.send({"is": "failed", "error": error.to_wire(), "pid": os.getpid()})
