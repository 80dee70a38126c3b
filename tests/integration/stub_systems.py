# SPDX-License-Identifier: Apache-2.0
"""A registry without torch: one system that cuts each object out of the plate by its matte."""

import time
from dataclasses import dataclass

import numpy as np

from gencomp_protocol.layers import BACKGROUND, RGBA, LayerSpec, check_object_names
from gencomp_protocol.request import SEQUENCE, STILL
from gencomp_server.contract import CommonParams, Input, LayerFrame, Plan, System, knob


@dataclass(frozen=True)
class Params(CommonParams):
    gain: float = knob(1.0, lo=0.0, hi=10.0, doc="Multiplies the layers.", delivery=True)
    wait_s: float = knob(0.0, lo=0.0, hi=60.0, doc="Pause before each frame.", delivery=True)
    stubborn: bool = knob(False, doc="Pause without looking whether to stop.", delivery=True)
    fail_at: int = knob(0, lo=0, hi=9999, doc="Frame at which our own code breaks.")


def measure(ctx, shot):
    """Stand for an expensive stage: the mean of every plate."""
    ctx.progress("measure", 1, 1)
    return tuple(float(np.nanmean(shot.frame("plate", n))) for n in shot.frames)


def run(shot, params, ctx):
    means = ctx.stage("measure", measure, shot.only("plate"))
    ctx.report("mean", means)
    for step, n in enumerate(shot.frames):
        deadline = time.monotonic() + params.wait_s
        while time.monotonic() < deadline:
            if not params.stubborn:
                ctx.check_cancelled()
            time.sleep(0.02)
        if n == params.fail_at:
            raise ZeroDivisionError("broken on purpose")
        yield from cut(shot, n, params.gain)
        ctx.progress("cut", step + 1, len(shot.frames))


def cut(shot, n, gain):
    header = shot.header("plate", n)
    plate = np.asarray(shot.frame("plate", n))[..., :3]
    windows = (header.display_window, header.data_window, header.pixel_aspect)
    yield LayerFrame(BACKGROUND, n, plate, RGBA[:3], *windows)
    for name in shot.request.named("matte."):
        matte = np.asarray(shot.frame(f"matte.{name}", n), np.float32)
        pixels = np.concatenate([plate * matte * gain, matte], axis=2).astype(plate.dtype)
        yield LayerFrame(name, n, pixels, RGBA, *windows)


def layers(request):
    background = LayerSpec(BACKGROUND, RGBA[:3], whole=True)
    return (background, *(LayerSpec(name) for name in request.named("matte.")))


def check(request):
    check_object_names(request.named("matte."))


CUTOUT = System(
    name="cutout",
    title="Cutout",
    doc="Cuts each object out of the plate.",
    inputs=(
        Input("plate", "rgb", "The plate."),
        Input("matte.*", "matte", "One per object.", most=8, covers=(SEQUENCE, STILL)),
    ),
    params=Params,
    layers=layers,
    plan=lambda request, machine: Plan(),
    run=run,
    check=check,
)

REGISTRY = (CUTOUT,)
