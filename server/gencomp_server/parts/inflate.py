# SPDX-License-Identifier: Apache-2.0
"""Growth of an element's mask, so that the model may work around the element: shadow, glow, splash.

A mask is cleaned, blurred and cut at a low threshold (GenCompositor §4.1, eq. 4)::

    M = 1[G * M_bin > tau]

Two kernels, both cut off at ``px`` with a standard deviation of 0.4 ``px``:

* ``shipped``: as in the released code, where the kernel's peak is 1 and not its sum. A single pixel
  is then enough, so what comes out is a growth by ``px`` all around, its corners rounded.
  At 25 pixels it is that code's own: 51 x 51, deviation 10.
* ``normalised``: its sum is 1, as eq. 4 means it. Large shapes grow nearly as far, thin ones less.

Nothing that was in a mask is lost: what is blurred away stays.

Sources: GenCompositor eq. 4; the released code for cleaning, kernel, threshold and latent masks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from gencomp_server.placing import NORMALISED, SHIPPED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

KERNELS = (SHIPPED, NORMALISED)
SHIPPED_PX = 25.0
"""Growth of the released code, in pixels of a picture of 720x480."""
SHIPPED_LINES = 480
THRESHOLD = 1 / 255
"""What a blurred mask must reach: the least that eight bits tell from nothing."""

_DEVIATION = 10 / SHIPPED_PX
_SMALLEST_SHARE = 1e-4


def cleaned(mask: Mask) -> Mask:
    """Take specks off a mask: opened by a 3x3 ellipse, pieces under 0.01 % of the frame dropped.

    Args:
        mask: [H,W] bool.

    Returns:
        [H,W] bool.
    """
    ellipse = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, ellipse)
    _, pieces, facts, _ = cv2.connectedComponentsWithStats(opened, connectivity=4)
    large = facts[:, cv2.CC_STAT_AREA] >= _SMALLEST_SHARE * mask.size
    large[0] = False
    return np.asarray(large[pieces], np.bool_)


def inflated(mask: Mask, *, px: float, kernel: str = SHIPPED, threshold: float = THRESHOLD) -> Mask:
    """Grow a mask.

    Args:
        mask: [H,W] bool.
        px: How far it grows at most, in pixels of this picture; 0 leaves it as it is. The model
            was trained at :data:`SHIPPED_PX` in :data:`SHIPPED_LINES` lines.
        kernel: One of :data:`KERNELS`.
        threshold: What the blurred mask must reach, more than 0.

    Returns:
        [H,W] bool.

    Raises:
        ValueError: There is no such kernel, growth or threshold.
    """
    if kernel not in KERNELS:
        raise ValueError(f"no kernel is called {kernel}: {', '.join(KERNELS)}")
    if not (px >= 0 and threshold > 0):
        raise ValueError(f"a mask cannot grow by {px} pixels at a threshold of {threshold}")
    if not mask.any() or round(px) == 0:
        return mask.copy()
    row = _row(px, kernel)
    near = _near(mask, 2 * round(px))
    # Mirrored at the border, so that a shape that is cut by it grows along it as if it went on.
    blurred = cv2.sepFilter2D(
        mask[near].astype(np.float32), cv2.CV_32F, row, row, borderType=cv2.BORDER_REFLECT_101
    )
    grown = mask.copy()
    grown[near] |= blurred >= threshold
    return grown


def _near(mask: Mask, margin: int) -> tuple[slice, slice]:
    """Return the part of the picture that is within a margin of a mask that is not empty."""
    spans = (np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0)))
    rows, columns = (
        slice(max(0, int(span[0]) - margin), int(span[-1]) + margin + 1) for span in spans
    )
    return rows, columns


def _row(px: float, kernel: str) -> NDArray[np.float64]:
    """Return one row of the kernel, which is the same down as across."""
    reach = round(px)
    steps = np.arange(-reach, reach + 1, dtype=np.float64)
    row = np.exp(-0.5 * (steps / (_DEVIATION * px)) ** 2)
    return row / row.sum() if kernel == NORMALISED else row


def to_latent(masks: NDArray[Any], *, spatial: int = 8, temporal: int = 4) -> NDArray[Any]:
    """Return masks at the size of latents: the nearest frame and pixel of each.

    Args:
        masks: [T,H,W], T = ``temporal`` k + 1; sides multiples of ``spatial``.
        spatial: Pixels of a latent pixel.
        temporal: Frames of a latent frame after the first, which stands alone.

    Returns:
        [k + 1,H / spatial,W / spatial] of the same type. Of 49 frames those are 0, 3, 7, 11, 15,
        18, 22, 26, 30, 33, 37, 41 and 45.

    Raises:
        ValueError: A length or a side that no latents have.
    """
    frames, height, width = masks.shape
    if (frames - 1) % temporal or height % spatial or width % spatial:
        raise ValueError(f"no latents are of the size of {masks.shape}")
    count = (frames - 1) // temporal + 1
    chosen = [at * frames // count for at in range(count)]
    return np.ascontiguousarray(masks[chosen][:, ::spatial, ::spatial])
