# SPDX-License-Identifier: Apache-2.0
"""Where new content is: from mattes drawn by hand, from words, or from what changed.

A matte here is a map at the model's size over the job's own frames, [T,h,w] bool. It marks what of
the plate stands out, or what of an edit is new; ``changemask.py`` turns it into marks on latents.
At the end the last of them bounds what is delivered.

Source: DynVFX §4.2 and §4.3 (the two uses of a segmentation model), app. A.3 and A.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from gencomp_protocol.errors import BadMatte
from gencomp_server.parts.bounds import Reach, let_through, spread
from gencomp_server.parts.fit import to_model_frame
from gencomp_server.parts.pictures import coverage_of
from gencomp_server.parts.trimask import EDIT, KEEP
from gencomp_server.segmenting import pictures_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.contract import Context, Shot

    Bools = NDArray[np.bool_]

COVERED = 0.5
"""Coverage from which a pixel at the model's size is marked."""
_OPENING_PX = 3


# --- mattes --------------------------------------------------------------------------------------


def drawn(ctx: Context, shot: Shot, *, size: tuple[int, int]) -> Bools:
    """Return a matte as the model's size has it; the body of a stage.

    Args:
        ctx: The run's context.
        shot: With the matte alone.
        size: The model's width and height.

    Raises:
        BadMatte: It covers nothing on any frame.
    """
    (name,) = shot.names
    found = np.zeros((len(shot.frames), size[1], size[0]), bool)
    most = 0.0
    for i, n in enumerate(shot.frames):
        ctx.progress("mattes", i, len(shot.frames))
        small = to_model_frame(coverage_of(shot, name, n), size)[..., 0]
        found[i] = small >= COVERED
        most = max(most, float(small.max()))
    if not found.any():
        thin = "covers less than half of every pixel at the model's size" if most else "is empty"
        raise BadMatte(
            f"Input '{name}' {thin} on every frame, so it marks nothing.",
            hint="Connect the matte you mean, name its channel, or leave it unconnected.",
            input=name,
        )
    return found


def segmented(ctx: Context, video: Any, *, words: str, segmenter: str) -> Bools:
    """Ask the segmenter for a matte, and open it by 3x3 pixels; the body of a stage.

    Args:
        ctx: The run's context.
        video: What it looks at. [T,h,w,3], model range.
        words: What it looks for.
        segmenter: Its identity, for the key.

    Returns:
        Empty where it finds nothing. [T,h,w] bool.

    Raises:
        ToolFailed: It fails.

    Source: DynVFX public code: an opening with a 3x3 square, no erosion.
    """
    assert ctx.segmenter is not None, segmenter
    ctx.progress("segmenter", 0, 1)
    found = ctx.segmenter.mattes(pictures_of(video), words, check=ctx.check_cancelled)
    square = np.ones((_OPENING_PX, _OPENING_PX), np.uint8)
    marked = (found[..., 0] >= COVERED).astype(np.uint8)
    opened = [cv2.morphologyEx(one, cv2.MORPH_OPEN, square) for one in marked]
    return np.asarray(opened, bool).reshape(marked.shape)


# --- delivery ------------------------------------------------------------------------------------


def on_pixels(marks: Bools, frames: int, size: tuple[int, int], temporal: int) -> Bools:
    """Return which pixels marked latents stand for.

    Args:
        marks: [T',h',w'] bool; its first frame stands for one frame, the others for ``temporal``.
        frames: The job's own frames.
        size: The model's width and height.
        temporal: Frames in a latent frame.

    Returns:
        [T,h,w] bool.
    """
    of = [0 if i == 0 else (i - 1) // temporal + 1 for i in range(frames)]
    tall, wide = size[1] // marks.shape[1], size[0] // marks.shape[2]
    large = marks[of].repeat(tall, axis=1).repeat(wide, axis=2)
    assert large.shape == (frames, size[1], size[0]), (large.shape, size)
    return large


def reach_of_edit(
    ctx: Context, shot: Shot, area: Bools, *, size: tuple[int, int], grow_px: int
) -> Reach:
    """Find how far an edit may reach on every frame; the body of a stage.

    Args:
        ctx: The run's context.
        shot: With ``limit`` and ``protect``, where there are such.
        area: Where there is new content. [T,h,w] bool.
        size: The model's width and height.
        grow_px: How far beyond it a change may be, in model pixels.
    """
    grown = np.empty(area.shape, np.float16)
    allowed = np.empty(area.shape, bool)
    for i, n in enumerate(shot.frames):
        ctx.progress("bounds", i, len(shot.frames))
        grown[i] = spread(area[i].astype(np.float32), grow_px)
        allowed[i] = grown[i] > 0
        through = let_through(shot, n)
        if through is not None:
            allowed[i] &= to_model_frame(through, size)[..., 0] > 0
    return Reach(grown, allowed)


def asked(area: Bools) -> NDArray[np.uint8]:
    """Return the classes that the noise floor is measured by: EDIT where content is new."""
    return np.where(area, np.uint8(EDIT), np.uint8(KEEP))[..., None]
