# SPDX-License-Identifier: Apache-2.0
"""Systems for tests of the server: no torch, no cv2; each knob makes one thing go wrong."""

import os
import signal
import time
from dataclasses import dataclass, replace

from gencomp_protocol.errors import BadKnob
from gencomp_protocol.frames import Format
from gencomp_protocol.layers import LayerSpec
from gencomp_protocol.request import SEQUENCE, STILL
from gencomp_server.backbones import ModelParams, choose, model_size
from gencomp_server.contract import (
    NEEDS_BACKBONE,
    CommonParams,
    Input,
    LayerFrame,
    Plan,
    System,
    knob,
    parse_params,
)
from gencomp_server.cost import estimate

RGB = ("R", "G", "B")


@dataclass(frozen=True)
class Params(CommonParams):
    """What the copy does besides copying."""

    gain: float = knob(1.0, lo=0.0, hi=8.0, doc="Multiplies the plate.")
    wait_s: float = knob(0.0, lo=0.0, hi=600.0, doc="Wait before every frame, cancellable.")
    deaf: bool = knob(False, doc="Wait without listening to a cancel.")
    die: str = knob("", doc="Die before the second frame: kill or exit.")
    raise_at: int = knob(-1, lo=-1, hi=9999, doc="Raise ValueError before this frame.")
    warn: str = knob("", doc="Give this warning.")


def copy_plate(shot, params, ctx):
    """Yield the plate times the gain, frame by frame."""
    if params.warn:
        ctx.warn(params.warn)
    for index, n in enumerate(shot.frames):
        ctx.progress("copy", index, len(shot.frames))
        if params.die and index == 1:
            os.kill(os.getpid(), signal.SIGKILL) if params.die == "kill" else os._exit(3)
        if n == params.raise_at:
            raise ValueError("the stub was told to raise")
        _wait(params, ctx)
        header = shot.header("plate", n)
        pixels = shot.frame("plate", n, RGB)
        pixels = (pixels * params.gain).astype(pixels.dtype)
        yield LayerFrame("copy", n, pixels, RGB, header.display_window, header.data_window)


def _wait(params, ctx):
    end = time.monotonic() + params.wait_s
    while time.monotonic() < end:
        if not params.deaf:
            ctx.check_cancelled()
        time.sleep(0.01)


def _refuse_odd(request):
    if request.knobs.get("gain") == 7.0:
        raise BadKnob("Knob 'gain' cannot be 7 here.", hint="Choose another.", knob="gain")


COPY = System(
    name="copy",
    title="Copy",
    doc="Gives the plate back.",
    inputs=(
        Input("plate", "rgb", "The plate."),
        Input("matte.*", "matte", "Mattes.", optional=True, most=2, covers=(SEQUENCE, STILL)),
    ),
    params=Params,
    layers=lambda request: (LayerSpec("copy", RGB, "The plate.", whole=True),),
    plan=lambda request, machine: Plan(bytes_in=len(request.frames) * 100, minutes=0.5),
    run=copy_plate,
    check=_refuse_odd,
)


@dataclass(frozen=True)
class StepsParams(CommonParams):
    """How many steps there are, and at which the process dies, once."""

    steps: int = knob(6, lo=1, hi=1000, doc="Steps.")
    die_at: int = knob(-1, lo=-1, hi=1000, doc="Die before this step, where it is the first try.")
    die_always: bool = knob(False, doc="Die there at every try.")


def sample(ctx, shot, *, steps):
    """Take steps that each add their own noise, keeping a checkpoint of every one."""
    import numpy as np

    saved = ctx.checkpoint("sample")
    first = 0 if saved is None else int(saved["step"])
    latents = np.zeros(4, np.float32) if saved is None else saved["latents"]
    for step in range(first, steps):
        ctx.progress("sample", step, steps)
        if step == DIES[0] and (first < step or DIES[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        noise = ctx.generator(f"step {step}").standard_normal(4).astype(np.float32)
        latents = np.float32(0.5) * latents + noise
        ctx.checkpoint("sample", {"latents": latents, "step": np.array(step + 1)})
    return {"latents": latents, "first": first}


DIES = [-1, False]


def run_steps(shot, params, ctx):
    """Yield the plate plus what the steps came to."""
    # Not a setting of the stage: how it dies must not change what it is.
    DIES[:] = [params.die_at, params.die_always]
    made = ctx.stage("sample", sample, shot.only("plate"), steps=params.steps)
    ctx.report("first", made["first"])
    ctx.report("latents", [float(value) for value in made["latents"]])
    for n in shot.frames:
        header = shot.header("plate", n)
        pixels = shot.frame("plate", n, RGB) + made["latents"][:3].astype("float16")
        yield LayerFrame("copy", n, pixels, RGB, header.display_window, header.data_window)


@dataclass(frozen=True)
class ModelStub(ModelParams):
    """The knobs of a system that needs a backbone."""


def plan_model(request, machine):
    """Plan by the rules that every such system follows."""
    params = parse_params(ModelStub, request.knobs)
    spec = choose(OVERPP, params, machine)
    size = model_size(spec, Format(1920, 1080), params.model_size)
    return estimate(spec, size, len(request.frames), steps=params.steps, machine=machine).plan()


STEPS = replace(COPY, name="steps", params=StepsParams, run=run_steps, check=None)
# Its name is one that backbones serve.
OVERPP = replace(
    COPY,
    name="overplusplus",
    params=ModelStub,
    plan=plan_model,
    run=copy_plate,
    check=None,
    backbone=NEEDS_BACKBONE,
)

REGISTRY = (COPY, STEPS, OVERPP)
