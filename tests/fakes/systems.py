# SPDX-License-Identifier: Apache-2.0
"""Registries of systems whose results are known in closed form, without any model.

Same names, inputs, knobs, checks and layers as the real ones, so that a gizmo cannot tell.

* ``REGISTRY``: an Omnimatte that cuts by the matte. A layer is the plate times its matte, the
  background is what is left: their sum is the plate. What is left is also the clean plate, and the
  patch is black where a matte is.
* ``PAINTED``: all systems; each fills its layers with one value each, 1/16 for the first, 2/16 for
  the second.
"""

import dataclasses

import numpy as np

import gencomp_server.systems
from gencomp_protocol.layers import BACKGROUND, BG, CLEAN, MATTE_PREFIX, PATCH, PLATE, RGBA
from gencomp_server.contract import NO_BACKBONE, LayerFrame, Plan
from gencomp_server.systems import omnimatte


def run(shot, params, ctx):
    names = omnimatte.front_to_back(shot.request)
    for step, n in enumerate(shot.frames):
        header = shot.header("plate", n)
        windows = (header.display_window, header.data_window, header.pixel_aspect)
        plate = np.asarray(shot.frame("plate", n))[..., :3]
        left, open_share = plate.copy(), np.ones_like(plate[..., :1])
        for name in names:
            matte = np.asarray(shot.frame(MATTE_PREFIX + name, n)).astype(plate.dtype)
            pixels = np.concatenate([left * matte, matte], axis=2)
            left, open_share = left * (1 - matte), open_share * (1 - matte)
            yield LayerFrame(name, n, pixels, RGBA, *windows)
        one = np.ones_like(left[..., :1])
        for name in (BACKGROUND, CLEAN):
            yield LayerFrame(name, n, np.concatenate([left, one], 2), RGBA, *windows)
        patch = np.concatenate([np.zeros_like(left), 1 - open_share], axis=2)
        yield LayerFrame(PATCH, n, patch, RGBA, *windows)
        ctx.progress("cut", step + 1, len(shot.frames))


REGISTRY = (dataclasses.replace(omnimatte.SYSTEM, run=run),)


def painted(system):
    """Return a system that fills its layers with one value each."""

    def paint(shot, params, ctx):
        lead = PLATE if PLATE in shot.names else BG
        for n in shot.frames:
            header = shot.header(lead, n)
            windows = (header.display_window, header.data_window, header.pixel_aspect)
            size = np.asarray(shot.frame(lead, n)).shape[:2]
            for place, layer in enumerate(system.layers(shot.request)):
                shape = (*size, len(layer.channels))
                pixels = np.full(shape, (place + 1) / 16, np.float32)
                yield LayerFrame(layer.name, n, pixels, layer.channels, *windows)

    def plan(request, machine):
        return Plan()

    return dataclasses.replace(system, run=paint, plan=plan, backbone=NO_BACKBONE)


PAINTED = tuple(painted(system) for system in gencomp_server.systems.REGISTRY)
