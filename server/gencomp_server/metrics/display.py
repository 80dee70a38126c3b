# SPDX-License-Identifier: Apache-2.0
"""Light as published metrics see it: sRGB codes, cut at black and white."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencomp_server.colour.modelrange import ModelRange

REC709_LIGHT = ModelRange()


def srgb_codes(pixels: NDArray[Any], space: ModelRange = REC709_LIGHT) -> NDArray[np.float32]:
    """Return the sRGB codes of scene-linear light.

    Args:
        pixels: [H,W,3|4] float, scene-linear, premultiplied where it has an alpha: then it is seen
            over black. NaN becomes black.
        space: How its light is brought to Rec.709 primaries.

    Returns:
        [H,W,3] float32, 0..1, unrounded.

    Source: IEC 61966-2-1:1999, section 5.2.
    """
    light = space.seen(pixels[..., :3].astype(np.float32))
    light = np.nan_to_num(light, nan=0.0, posinf=1.0, neginf=0.0)
    light = np.clip(light, 0.0, 1.0)
    curve = 1.055 * np.power(np.maximum(light, 0.0031308), np.float32(1 / 2.4)) - 0.055
    return np.where(light <= 0.0031308, 12.92 * light, curve).astype(np.float32)
