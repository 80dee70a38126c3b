# SPDX-License-Identifier: Apache-2.0
"""Systems for tests of the server: no torch, no cv2; each knob makes one thing go wrong."""

import os
import signal
import time
from dataclasses import dataclass

from gencomp_protocol.errors import BadKnob
from gencomp_protocol.layers import LayerSpec
from gencomp_protocol.request import SEQUENCE, STILL
from gencomp_server.contract import CommonParams, Input, LayerFrame, Plan, System, knob

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
    layers=lambda request: (LayerSpec("copy", RGB, "The plate."),),
    plan=lambda request, machine: Plan(bytes_in=len(request.frames) * 100, minutes=0.5),
    run=copy_plate,
    check=_refuse_odd,
)

REGISTRY = (COPY,)
