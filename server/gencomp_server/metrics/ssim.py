# SPDX-License-Identifier: Apache-2.0
"""SSIM: how alike two pictures are in brightness, contrast and structure, window by window.

For each window of 11 x 11 pixels, weighted by a Gaussian of sigma 1.5::

    SSIM = (2 ma mb + c1)(2 cov + c2) / ((ma² + mb² + c1)(va + vb + c2)),   c1 = .01², c2 = .03²

with peak 1. Only windows that lie wholly on the picture are taken.

Source: Wang, Bovik, Sheikh, Simoncelli: Image Quality Assessment: From Error Visibility to
Structural Similarity, IEEE TIP 13(4), 2004, eq. 13.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

REACH = 5
SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2


def _weights() -> Doubles:
    places = np.arange(-REACH, REACH + 1)
    bell = np.exp(-(places**2) / (2 * SIGMA**2))
    made: Doubles = bell / bell.sum()
    return made


def _blurred(values: Doubles) -> Doubles:
    """Return the weighted mean of every whole window. [h,w] or [h,w,C] to [h-10,w-10,…]."""
    bell = _weights()
    made = cv2.sepFilter2D(values, cv2.CV_64F, bell, bell, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(made)[REACH:-REACH, REACH:-REACH]


def ssim_map(a: Doubles, b: Doubles) -> Doubles:
    """Return the SSIM of every window, channel by channel.

    Args:
        a: [h,w,C] float64, finite, h and w at least 11; peak 1, values beyond it are taken as
            they are.
        b: As ``a``.

    Returns:
        At the centre of each window, [h-10,w-10,C] float64, at most 1, and 1 where both agree.
    """
    shape = (a.shape[0] - 2 * REACH, a.shape[1] - 2 * REACH, a.shape[2])
    mean_a, mean_b = _blurred(a).reshape(shape), _blurred(b).reshape(shape)
    var_a = _blurred(a * a).reshape(shape) - mean_a**2
    var_b = _blurred(b * b).reshape(shape) - mean_b**2
    covariance = _blurred(a * b).reshape(shape) - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + _C1) * (2 * covariance + _C2)
    made: Doubles = likeness / ((mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2))
    return made
