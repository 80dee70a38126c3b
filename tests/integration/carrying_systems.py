# SPDX-License-Identifier: Apache-2.0
"""A registry with one system that changes nothing and carries the plate's other channels along."""

from dataclasses import dataclass

import numpy as np

from gencomp_protocol.layers import DEPTH, PLATE, RESULT, RGBA, LayerSpec
from gencomp_protocol.request import SEQUENCE, STILL
from gencomp_server.contract import Input, LayerFrame, Plan, System
from gencomp_server.finishing import FinishParams


@dataclass(frozen=True)
class Params(FinishParams):
    pass


def run(shot, params, ctx):
    for n in shot.frames:
        if DEPTH in shot.names:
            ctx.report(f"depth {n}", [float(v) for v in np.ravel(shot.frame(DEPTH, n))[:3]])
        header, plate = shot.header(PLATE, n), np.asarray(shot.frame(PLATE, n))
        windows = (header.display_window, header.data_window, header.pixel_aspect)
        yield LayerFrame(RESULT, n, plate[..., :3], RGBA[:3], *windows, header.metadata)
        spot = np.zeros((*plate.shape[:2], 4), np.float16)
        spot[4, 6] = 0.5
        yield LayerFrame("spot", n, spot, RGBA, *windows)
        yield LayerFrame("origin", n, np.ones_like(spot[..., :1]), ("origin.plate",), *windows)


SYSTEM = System(
    name="carry",
    title="Carry",
    doc="Delivers the plate, and a spot.",
    inputs=(
        Input(PLATE, "rgb", "The plate.", covers=(SEQUENCE, STILL)),
        Input(DEPTH, "data", "Its depth.", optional=True),
    ),
    params=Params,
    layers=lambda request: (
        LayerSpec(RESULT, RGBA[:3], whole=True, carries=PLATE),
        LayerSpec("spot"),
        LayerSpec("origin", ("origin.plate",)),
    ),
    plan=lambda request, machine: Plan(),
    run=run,
)

REGISTRY = (SYSTEM,)
