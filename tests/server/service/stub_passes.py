# SPDX-License-Identifier: Apache-2.0
"""A registry whose one system works in four passes of three windows, any of which can go wrong.

Every window that is computed is a line in the file ``log``. A fault happens once: it leaves the
file ``once`` behind, and nothing happens where that is there already.
"""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gencomp_protocol.layers import LayerSpec
from gencomp_server.contract import CommonParams, Input, LayerFrame, Plan, System, knob

PASSES, WINDOWS = 4, 3
CHANNELS = ("R", "G", "B")


@dataclass(frozen=True)
class Params(CommonParams):
    log: str = knob("", doc="File that is told of every window computed.", delivery=True)
    once: str = knob("", doc="File that says the fault has happened.", delivery=True)
    fault: str = knob(
        "", choices=("", "raise", "kill", "wait"), doc="What goes wrong.", delivery=True
    )
    at: str = knob("3.1", doc="In which pass and window, from 1.", delivery=True)
    prompt: str = knob("", doc="Words for the passes.")
    gain: float = knob(1.0, lo=0.0, hi=9.0, doc="Multiplies the layer.", delivery=True)


def mean(ctx, shot):
    """Stand for an encoding of the plate."""
    return np.stack([np.asarray(shot.frame("plate", n), np.float32) for n in shot.frames])


def one_pass(ctx, plate, *, number, prompt):
    """Add noise to the plate, window by window; what is done is kept."""
    kept = ctx.checkpoint("windows")
    made = [] if kept is None else [kept[str(n)] for n in range(len(kept))]
    for window in range(len(made), WINDOWS):
        ctx.progress(f"pass {number}", window, WINDOWS)
        ABOUT.fall(ctx, number, window + 1)
        noise = ctx.generator(f"{number} {window} {prompt}").standard_normal(plate.shape[1:])
        made.append(noise.astype(np.float32))
        ctx.checkpoint("windows", {str(n): one for n, one in enumerate(made)})
    return (np.asarray(plate)[0] + sum(made)).astype(np.float32)


class About:
    """What shall go wrong; a stage cannot know, so that it is no part of its key."""

    params = Params()

    def fall(self, ctx, number, window):
        params = self.params
        place = f"{number}.{window}"
        if params.log:
            with open(params.log, "a") as log:
                log.write(f"{place}\n")
        if params.fault and place == params.at and not Path(params.once).exists():
            Path(params.once).touch()
            if params.fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            while params.fault == "wait":
                ctx.check_cancelled()
                time.sleep(0.01)
            raise ZeroDivisionError("broken on purpose")


ABOUT = About()


def run(shot, params, ctx):
    ABOUT.params = params
    plate = ctx.stage("encode", mean, shot.only("plate"))
    passes = [
        ctx.stage("pass", one_pass, plate, number=n, prompt=params.prompt)
        for n in range(1, PASSES + 1)
    ]
    whole = ctx.stage("merge", merge, passes)
    for n in shot.frames:
        header = shot.header("plate", n)
        pixels = (np.asarray(whole) * params.gain).astype(np.float16)
        windows = (header.display_window, header.data_window, header.pixel_aspect)
        yield LayerFrame("made", n, pixels, CHANNELS, *windows)


def merge(ctx, passes):
    return sum(np.asarray(one) for one in passes) / len(passes)


def layers(request):
    return (LayerSpec("made", CHANNELS, whole=True),)


REGISTRY = (
    System(
        name="passes",
        title="Passes",
        doc="Works in passes.",
        inputs=(Input("plate", "rgb", "The plate."),),
        params=Params,
        layers=layers,
        plan=lambda request, machine: Plan(),
        run=run,
    ),
)
