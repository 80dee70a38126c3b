# SPDX-License-Identifier: Apache-2.0
"""The joint solve for alpha: one sparse least squares on neighbouring pixels.

Under an alpha ``a`` the layer's premultiplied colour is ``P = I - (1-a)B = D + aB`` with
``D = I - B``. Neighbours share the layer's colour F, so that across an edge P changes only as
``F * da``. That is quadratic in ``a`` for a given F: a five-point stencil, solved by conjugate
gradients with Jacobi preconditioning; F and the robust weights are renewed in an outer loop.

Arrays are float32, pictures [H,W,3], planes [H,W].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencomp_server.parts.calibration import soften

Array = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

COLOUR_RADIUS = 2.5  # pixels over which a layer's colour is shared
_SMOOTH = 0.02  # weight of neighbouring alphas agreeing
_STEP = 0.05  # alpha difference from which on a jump is taken for an edge
_FLOOR = np.float32(1e-4)

_ACROSS = ((slice(None), slice(None, -1)), (slice(None), slice(1, None)))
_DOWN = ((slice(None, -1), slice(None)), (slice(1, None), slice(None)))


@dataclass(frozen=True)
class Problem:
    """What stays the same during one joint solve.

    Attributes:
        difference: Plate minus clean plate. [H,W,3].
        clean: The clean plate. [H,W,3].
        weight: Squared slope of the display curve: makes differences display-like. [H,W,3].
        prior: Alpha that is expected. [H,W].
        trust: Weight of that expectation. [H,W].
        lowest: Least alpha allowed. [H,W].
        highest: Greatest alpha allowed. [H,W].
        free: Pixels to solve; all others keep their alpha. [H,W].
        tolerance: Display difference from which on a residual counts as an outlier.
    """

    difference: Array
    clean: Array
    weight: Array
    prior: Array
    trust: Array
    lowest: Array
    highest: Array
    free: Mask
    tolerance: float


def layer_colour(alpha: Array, difference: Array, clean: Array) -> Array:
    """Return the layer's unpremultiplied colour, shared with its neighbours. [H,W,3]."""
    premultiplied = difference + alpha[..., None] * clean
    total = soften(alpha * alpha, COLOUR_RADIUS) + _FLOOR
    return soften(alpha[..., None] * premultiplied, COLOUR_RADIUS) / total[..., None]


def solve_jointly(problem: Problem, alpha: Array, rounds: int, steps: int) -> Array:
    """Return the alpha that explains every pixel together with its neighbours. [H,W].

    Args:
        problem: What to solve.
        alpha: Where to start; kept where ``problem.free`` is False.
        rounds: Renewals of colour and robust weights.
        steps: Conjugate-gradient steps, twice per round (the second time without the pixels that
            ran into a bound).
    """
    for _ in range(rounds):
        diagonal, right, links = _equations(problem, alpha)
        active = problem.free
        for _ in range(2):
            found = _descend(diagonal, right, links, alpha, active, steps)
            outside = (found < problem.lowest) | (found > problem.highest)
            bounded = np.clip(found, problem.lowest, problem.highest)
            alpha = np.where(problem.free, bounded, alpha).astype(np.float32)
            active = problem.free & ~outside
    return alpha


_Links = list[tuple[Any, Any, Array]]


def _equations(problem: Problem, alpha: Array) -> tuple[Array, Array, _Links]:
    """Return diagonal, right-hand side and couplings of the normal equations."""
    colour = layer_colour(alpha, problem.difference, problem.clean)
    diagonal = problem.trust.astype(np.float32)
    right = diagonal * problem.prior
    diagonal = diagonal.copy()
    links: _Links = []
    limit = np.float32(problem.tolerance)
    for p, q in (_ACROSS, _DOWN):
        shared = (colour[p] + colour[q]) * np.float32(0.5)
        weight = (problem.weight[p] + problem.weight[q]) * np.float32(0.5)
        first, second = problem.clean[p] - shared, problem.clean[q] - shared
        step = problem.difference[p] - problem.difference[q]
        residual = step + alpha[p][..., None] * first - alpha[q][..., None] * second
        error = (weight * residual * residual).sum(axis=2)
        weight = weight * (limit / np.sqrt(error + limit * limit))[..., None]
        jump = (alpha[p] - alpha[q]) / np.float32(_STEP)
        agree = np.float32(_SMOOTH) / np.sqrt(1 + jump * jump)
        left, down = weight * first, weight * second
        diagonal[p] += (left * first).sum(axis=2) + agree
        diagonal[q] += (down * second).sum(axis=2) + agree
        right[p] -= (left * step).sum(axis=2)
        right[q] += (down * step).sum(axis=2)
        links.append((p, q, (left * second).sum(axis=2) + agree))
    return diagonal, right, links


def _apply(diagonal: Array, links: _Links, x: Array) -> Array:
    y = diagonal * x
    for p, q, coupling in links:
        y[p] -= coupling * x[q]
        y[q] -= coupling * x[p]
    return y


def _descend(
    diagonal: Array, right: Array, links: _Links, start: Array, active: Mask, steps: int
) -> Array:
    """Run conjugate gradients on the active pixels; the others keep ``start``."""
    x: Array = start.astype(np.float32)
    inverse = active / diagonal
    residual: Array = (right - _apply(diagonal, links, x)) * active
    towards = inverse * residual
    energy = float(np.vdot(residual, towards))
    direction: Array = towards
    for _ in range(steps):
        image = _apply(diagonal, links, direction) * active
        curvature = float(np.vdot(direction, image))
        if curvature <= 0.0 or energy < 1e-10:
            break
        length = np.float32(energy / curvature)
        x = x + length * direction
        residual = residual - length * image
        towards = inverse * residual
        renewed = float(np.vdot(residual, towards))
        direction = towards + np.float32(renewed / energy) * direction
        energy = renewed
    return x
