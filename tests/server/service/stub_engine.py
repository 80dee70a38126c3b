# SPDX-License-Identifier: Apache-2.0
"""One torch-free system for tests of queue and workers: it takes a while, and can misbehave."""

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass

import numpy as np

from gencomp_protocol.layers import LayerSpec
from gencomp_server import pulse
from gencomp_server.contract import CommonParams, Input, LayerFrame, Plan, System, knob

RGB = ("R", "G", "B")
SIGNALS = {"segv": signal.SIGSEGV, "abort": signal.SIGABRT, "kill": signal.SIGKILL}
WAYS = ("", "exit", *SIGNALS)
HANGS = ("", "sleep", "loop", "same step")
_LEAKED = []

if multiprocessing.current_process().name == "gencomp-worker":
    time.sleep(float(os.environ.get("STUB_WORKER_START_S", "0")))


@dataclass(frozen=True)
class Params(CommonParams):
    """How long the job takes, and what goes wrong in it."""

    tag: int = knob(0, lo=0, hi=10**6, doc="Makes it another job.")
    steps: int = knob(1, lo=1, hi=1000, doc="Steps before the layers.")
    step_s: float = knob(0.0, lo=0.0, hi=600.0, doc="Each takes so long, and hears nothing.")
    beats: bool = knob(False, doc="Give signs of life in the midst of a step.")
    stage: str = knob("sample", doc="What the steps are called.")
    die: str = knob("", choices=WAYS, doc="How the process ends.")
    die_at: int = knob(0, lo=0, hi=1000, doc="Before which step.")
    die_once: bool = knob(False, doc="In the first try alone.")
    hang: str = knob("", choices=HANGS, doc="Never ends.")
    leak_bytes: int = knob(0, lo=0, hi=2**40, doc="Kept for ever.")


def run(shot, params, ctx):
    """Yield the plate after the steps; the report says how often they were begun."""
    ctx.log.info("the stub begins")
    if params.leak_bytes:
        _LEAKED.append(np.ones(params.leak_bytes, np.uint8))
    tries = ctx.stage(params.stage, work, shot.only("plate"), params=params)
    ctx.report("tries", tries)
    for n in shot.frames:
        header = shot.header("plate", n)
        pixels = np.asarray(shot.frame("plate", n, RGB))
        yield LayerFrame("copy", n, pixels, RGB, header.display_window, header.data_window)


def work(ctx, shot, *, params):
    """Take the steps, or do what the knobs say instead; return the try that came through."""
    saved = ctx.checkpoint("tries")
    tries = 1 if saved is None else int(saved["tries"]) + 1
    ctx.checkpoint("tries", {"tries": np.array(tries)})
    for step in range(params.steps):
        ctx.progress(params.stage, step, params.steps)
        if params.die and step == params.die_at and not (params.die_once and tries > 1):
            os._exit(3) if params.die == "exit" else os.kill(os.getpid(), SIGNALS[params.die])
        if params.hang:
            _hang(params.hang, ctx)
        _wait(params)
    return tries


def _wait(params):
    end = time.monotonic() + params.step_s
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 0.05) if params.beats else left)
        if params.beats:
            pulse.beat()


def _hang(how, ctx):
    while how == "loop":
        pass
    while how == "same step":
        ctx.progress("same", 1, 2)
    time.sleep(1e6)


ENGINE = System(
    name="engine",
    title="Engine",
    doc="Gives the plate back after a while.",
    inputs=(Input("plate", "rgb", "The plate."),),
    params=Params,
    layers=lambda request: (LayerSpec("copy", RGB, "The plate.", whole=True),),
    plan=lambda request, machine: Plan(),
    run=run,
)

REGISTRY = (ENGINE,)
