# SPDX-License-Identifier: Apache-2.0
"""Systems for the worker's tests: free of torch, each with one way to behave."""

import os
import signal
import threading
from dataclasses import dataclass

import numpy as np

from gencomp_protocol.errors import BadMatte
from gencomp_protocol.layers import LayerSpec
from gencomp_server.contract import CommonParams, Input, LayerFrame, Plan, System, knob

RGB = ("R", "G", "B")
INPUTS = (
    Input("plate", "rgb", "The plate."),
    Input("matte.*", "matte", "Mattes.", optional=True, most=8),
    Input("clean_plate", "rgb", "Clean.", optional=True, covers=("sequence", "still", "stills")),
)


@dataclass(frozen=True)
class Params(CommonParams):
    gain: float = knob(2.0, lo=0.0, hi=10.0, doc="Gain of the copy.")


def layers(request):
    return (LayerSpec("copy", RGB),)


def plan(request, machine):
    return Plan()


def copies(shot, value):
    for n in shot.frames:
        header = shot.header("plate", n)
        pixels = np.asarray(shot.frame("plate", n) * np.float16(value))
        yield LayerFrame(
            "copy",
            n,
            pixels,
            RGB,
            header.display_window,
            header.data_window,
            header.pixel_aspect,
            header.metadata,
        )


def measure(ctx, shot, *, gain):
    ctx.progress("measure", 1, 1)
    return gain


def run_copy(shot, params, ctx):
    gain = ctx.stage("measure", measure, shot.only("plate"), gain=params.gain)
    ctx.warn("This is a stub.")
    ctx.report("gain", gain)
    yield from copies(shot, gain)


def run_wait(shot, params, ctx):
    while True:
        ctx.progress("waiting", 1, 2)


def run_crash(shot, params, ctx):
    yield next(copies(shot, 1.0))
    os.kill(os.getpid(), signal.SIGKILL)


def run_raise(shot, params, ctx):
    yield next(copies(shot, 1.0))
    raise ZeroDivisionError("/secret/path")


def run_refuse(shot, params, ctx):
    raise BadMatte("Input 'matte.a' is a joke.", hint="Be serious.")
    yield


def run_few(shot, params, ctx):
    yield next(copies(shot, 1.0))


def run_more(shot, params, ctx):
    yield from copies(shot, 1.0)
    yield from copies(shot, 1.0)


def run_memory(shot, params, ctx):
    raise MemoryError
    yield


def run_threads(shot, params, ctx):
    ctx.report("torch", "torch" in __import__("sys").modules)
    ctx.report("main", threading.current_thread() is threading.main_thread())
    yield from copies(shot, 1.0)


REGISTRY = tuple(
    System(
        name=name,
        title=name.title(),
        doc="A stub.",
        inputs=INPUTS,
        params=Params,
        layers=layers,
        plan=plan,
        run=run,
    )
    for name, run in {
        "copy": run_copy,
        "wait": run_wait,
        "crash": run_crash,
        "raise": run_raise,
        "refuse": run_refuse,
        "few": run_few,
        "more": run_more,
        "memory": run_memory,
        "threads": run_threads,
    }.items()
)
