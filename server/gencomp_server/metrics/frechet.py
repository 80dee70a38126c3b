# SPDX-License-Identifier: Apache-2.0
"""The Fréchet distance between two clouds of features, each taken as a Gaussian.

::

    d² = |m1 - m2|² + trace(C1 + C2 - 2 (C1 C2)^½)

With centred features ``X / √(n-1)`` as rows, ``C = XᵀX``, and the trace of the root is the sum of
the singular values of ``X1 X2ᵀ``. So no root of a D x D matrix is needed, and few features, whose
covariance is singular, are no trouble to the arithmetic; they are to the meaning.

Source: Dowson, Landau: The Fréchet Distance between Multivariate Normal Distributions, 1982.
"""

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


def frechet_distance(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Return the squared Fréchet distance, as FID and FVD mean it.

    Args:
        one: A feature a row. [n,D], n at least 2, finite.
        other: [m,D], m at least 2, finite.

    Returns:
        0 for equal clouds, else above it.
    """
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    apart = first.mean(axis=0) - second.mean(axis=0)
    spread_1, spread_2 = _centred(first), _centred(second)
    shared = np.linalg.svd(spread_1 @ spread_2.T, compute_uv=False).sum()
    traces = np.square(spread_1).sum() + np.square(spread_2).sum()
    return max(0.0, float(apart @ apart + traces - 2.0 * shared))


def _centred(features: Doubles) -> Doubles:
    made: Doubles = (features - features.mean(axis=0)) / np.sqrt(len(features) - 1)
    return made
