# SPDX-License-Identifier: Apache-2.0
"""A registry whose Omnimatte cuts by the matte: exact, in closed form, without any solving.

Same name, inputs, knobs and layers as the real one, so that a gizmo cannot tell. A layer is the
plate times its matte, the background is what is left: their sum is the plate.
"""

import dataclasses

import numpy as np

from gencomp_protocol.layers import BACKGROUND, MATTE_PREFIX, RGBA
from gencomp_server.contract import LayerFrame
from gencomp_server.systems import omnimatte


def run(shot, params, ctx):
    names = omnimatte.front_to_back(shot.request)
    for step, n in enumerate(shot.frames):
        header = shot.header("plate", n)
        windows = (header.display_window, header.data_window, header.pixel_aspect)
        plate = np.asarray(shot.frame("plate", n))[..., :3]
        left = plate.copy()
        for name in names:
            matte = np.asarray(shot.frame(MATTE_PREFIX + name, n)).astype(plate.dtype)
            pixels = np.concatenate([left * matte, matte], axis=2)
            left = left * (1 - matte)
            yield LayerFrame(name, n, pixels, RGBA, *windows)
        one = np.ones_like(left[..., :1])
        yield LayerFrame(BACKGROUND, n, np.concatenate([left, one], 2), RGBA, *windows)
        ctx.progress("cut", step + 1, len(shot.frames))


REGISTRY = (dataclasses.replace(omnimatte.SYSTEM, run=run),)
