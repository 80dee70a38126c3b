# SPDX-License-Identifier: Apache-2.0
"""Where new content is: from a matte to cells of the latents, and from a difference to a matte.

A latent frame covers four frames and a cell 8x8 pixels, in a way that only the VAE knows. So the
matte is sent through it as a black-and-white picture, and what comes out is parted into two groups
of vectors, one of which is the matte's.

Where nobody draws or finds the matte of what was added, it is taken from how the edited picture
differs from the plate, both decoded by the same VAE.

Sources: DynVFX §A.4; two means, Lloyd 1982, begun along the direction of the largest spread so
that nothing is drawn by chance; Otsu 1979.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from gencomp_server.parts.conditioning import pad_frames
from gencomp_server.parts.latents import backbone_of, encoded
from gencomp_server.parts.windows import job_length

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.contract import Context

    Floats = NDArray[np.float32]
    Bools = NDArray[np.bool_]

_MARKED = 0.5
_MOST_ROUNDS = 100
_OPEN_PX = 3
# The plate's own detail comes out of a VAE a little elsewhere; what is new is larger than this.
_BLUR_PX = 5
_LEAST_DIFFERENCE = 0.08
_BINS = 256


# --- from a matte to latents ---------------------------------------------------------------------


def latent_marks(ctx: Context, matte: Any, *, backbone: str) -> Bools:
    """Bring a matte to the size of the latents; the body of a stage.

    Args:
        ctx: The run's context.
        matte: At model size, of the job's own frames. [T,h,w] or [T,h,w,1], 0..1 or bool.
        backbone: The backbone's identity, for the key.

    Returns:
        [T',h/8,w/8] bool.
    """
    spec = backbone_of(ctx).spec
    marked = (np.asarray(matte) >= _MARKED).reshape(matte.shape[:3])
    marked = opened(pad_frames(marked[..., None], job_length(spec, len(marked)))[..., 0])
    latents = (spec.latent_frames(len(marked)), *(n // spec.vae_spatial for n in marked.shape[1:]))
    if not marked.any() or marked.all():
        return np.full(latents, bool(marked.any()))
    picture = np.where(marked[..., None], np.float32(1), np.float32(-1)).repeat(3, axis=3)
    vectors = encoded(ctx, picture)[0].transpose(0, 2, 3, 1)
    roughly, touched = (pooled(marked, latents, least) for least in (_MARKED, 0.0))
    return held(parted(vectors, roughly), roughly, touched)


def no_marks(latents: Floats) -> Bools:
    """Return marks for latents of which nothing is marked. [1,T',C,h,w] -> [T',h,w] bool."""
    return np.zeros((latents.shape[1], *latents.shape[3:]), bool)


def opened(marked: Bools) -> Bools:
    """Drop specks narrower than 3x3 pixels. [T,h,w] bool in and out."""
    square = np.ones((_OPEN_PX, _OPEN_PX), np.uint8)
    frames = [cv2.morphologyEx(one.astype(np.uint8), cv2.MORPH_OPEN, square) for one in marked]
    return np.stack(frames) > 0


def held(group: Bools, roughly: Bools, touched: Bools) -> Bools:
    """Return a group of cells as far as the matte bears it out.

    However the VAE spreads a picture, nothing is marked more than a cell away from the matte. And
    where the group misses the most of it, the VAE told nothing, and the matte alone counts.

    Args:
        group: What the latents say. [T',h,w] bool.
        roughly: Cells of which the matte fills half or more. [T',h,w] bool.
        touched: Cells of which it fills anything. [T',h,w] bool.

    Returns:
        [T',h,w] bool; never empty where the matte is not.
    """
    square = np.ones((3, 3), np.uint8)
    wide = np.stack([cv2.dilate(one.astype(np.uint8), square) for one in touched]) > 0
    near = wide.copy()
    near[1:] |= wide[:-1]
    near[:-1] |= wide[1:]
    found = group & near
    if found.any() and 2 * int((found & roughly).sum()) >= int(roughly.sum()):
        return np.asarray(found)
    return roughly if roughly.any() else touched


def pooled(marked: Bools, size: tuple[int, int, int], least: float = _MARKED) -> Bools:
    """Return the cells of which enough is marked: what the matte alone says of them.

    Args:
        marked: [T,H,W] bool; T = 4k + 1.
        size: Cells. T', h, w.
        least: Share of a cell that is enough; 0 for anything at all.

    Returns:
        [T',h,w] bool. The first latent frame is the first frame; others share the rest evenly.
    """
    frames, height, width = size
    split = [marked[:1], *np.array_split(marked[1:], frames - 1)] if frames > 1 else [marked[:1]]
    share = np.stack([one.mean(axis=0) for one in split])
    side = share.shape[1] // height
    cells = share.reshape(frames, height, side, width, share.shape[2] // width)
    filled = cells.mean(axis=(2, 4))
    return np.asarray(filled >= least if least else filled > 0)


def parted(vectors: Floats, roughly: Bools) -> Bools:
    """Part latents into two groups and return the one that a mask means.

    Args:
        vectors: [T',h,w,C] float32.
        roughly: The mask as far as it is known at this size. [T',h,w] bool.

    Returns:
        [T',h,w] bool: of the two groups the one that agrees with the mask in more cells.
    """
    group = two_means(vectors.reshape(-1, vectors.shape[-1])).reshape(roughly.shape)
    agreed = int((group == roughly).sum())
    return group if 2 * agreed >= roughly.size else ~group


def two_means(vectors: Floats) -> Bools:
    """Part vectors into the two groups with the least spread inside.

    Begun by the side of the mean on which a vector lies along the direction of the largest spread;
    nothing is random.

    Args:
        vectors: [N,C] float32.

    Returns:
        True for one group. [N] bool; all False where all vectors are the same.
    """
    points = vectors.astype(np.float64)
    centred = points - points.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    group = centred @ directions[:, -1] > 0
    for _ in range(_MOST_ROUNDS):
        if group.all() or not group.any():
            return np.zeros(len(points), bool)
        far = ((points - points[~group].mean(axis=0)) ** 2).sum(axis=1)
        near = ((points - points[group].mean(axis=0)) ** 2).sum(axis=1)
        moved = near < far
        if (moved == group).all():
            break
        group = moved
    return np.asarray(group)


# --- from a difference to a matte ----------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """Where an edited picture differs from the plate.

    Attributes:
        mask: [T,h,w] bool.
        share: Share of all pixels, 0..1.
        threshold: Difference from which a pixel counts, in model range (black to white is 2).
    """

    mask: Bools
    share: float
    threshold: float


def difference(ctx: Context, reference: Any, edited: Any) -> Difference:
    """Find where an edited picture differs from the plate; the body of a stage.

    The largest difference of a channel, averaged over 5x5 pixels, is parted in two by Otsu's
    threshold over the whole shot, which is never below a difference that a VAE makes by itself.

    Args:
        ctx: The run's context.
        reference: The plate, sent through the VAE. [T,h,w,3], model range.
        edited: The edit, decoded. [T,h,w,3], model range.
    """
    strength = np.stack(
        [_strength(one, other) for one, other in zip(reference, edited, strict=True)]
    )
    threshold = max(_LEAST_DIFFERENCE, otsu(strength))
    mask = opened(strength > threshold)
    return Difference(mask, float(mask.mean()), float(threshold))


def _strength(reference: Any, edited: Any) -> Floats:
    """Return how far two frames are apart. [h,w,3] -> [h,w] float32, >= 0."""
    apart = np.asarray(edited, np.float32) - np.asarray(reference, np.float32)
    smooth = cv2.blur(apart, (_BLUR_PX, _BLUR_PX))
    return np.asarray(np.abs(smooth).max(axis=2), np.float32)


def otsu(values: Floats) -> float:
    """Return the threshold that parts values best in two; 0 where all are the same.

    Args:
        values: Any shape, >= 0.

    Returns:
        Between the two groups. Source: Otsu 1979, eq. 18.
    """
    top = float(values.max())
    if top <= 0:
        return 0.0
    counts, edges = np.histogram(values, bins=_BINS, range=(0, top))
    middles = (edges[:-1] + edges[1:]) / 2
    below, sums = np.cumsum(counts), np.cumsum(counts * middles)
    above = below[-1] - below
    both = (below > 0) & (above > 0)
    if not both.any():
        return 0.0
    low = sums / np.maximum(below, 1)
    high = (sums[-1] - sums) / np.maximum(above, 1)
    spread = np.where(both, below * above * (high - low) ** 2, -1)
    best = np.flatnonzero(spread == spread.max())
    return float(edges[int(best.mean()) + 1])
