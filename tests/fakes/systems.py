# SPDX-License-Identifier: Apache-2.0
"""A registry whose Omnimatte cuts by the matte: exact, in closed form, without any solving.

Same name, inputs, knobs and layers as the real one, so that a gizmo cannot tell. A layer is the
plate times its matte, the background is what is left: their sum is the plate. What is left is also
the clean plate, and the patch is black where a matte is.
"""

import dataclasses

import numpy as np

from gencomp_protocol.layers import BACKGROUND, CLEAN, MATTE_PREFIX, PATCH, RGBA
from gencomp_server.contract import LayerFrame
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
