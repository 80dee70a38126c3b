# SPDX-License-Identifier: Apache-2.0
"""Where what a step painted may be delivered: around where the model could change the plate.

How far that goes is smooth and is found at the model's size; ``limit`` and ``protect`` multiply it
at the plate's own, as everywhere (``bounds.py``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gencomp_protocol.frames import Box
from gencomp_protocol.layers import BG, LIMIT, PROTECT
from gencomp_server.parts import finish
from gencomp_server.parts.bounds import Reach, let_through, margin_px, reached
from gencomp_server.parts.fit import to_model_frame
from gencomp_server.parts.lead import format_of
from gencomp_server.parts.pictures import some

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.contract import Context, Shot
    from gencomp_server.finishing import ChangeParams
    from gencomp_server.parts.compositing import Painted
    from gencomp_server.parts.finish import Judged
    from gencomp_server.parts.steps import Places


def find_room(ctx: Context, shot: Shot, places: tuple[Places, ...], *, around_px: float) -> bool:
    """Tell whether limit and protect leave any place around an element; the body of a stage.

    Args:
        ctx: The run's context.
        shot: With ``limit`` and ``protect``, where there are such.
        places: Of every step.
        around_px: How far around an element a change may be, in plate pixels.
    """
    more = round(around_px) + 1
    for i, n in enumerate(shot.frames):
        boxes = [one.boxes[i] for one in places if one.boxes[i] is not None]
        through = let_through(shot, n) if boxes else None
        for x0, y0, x1, y1 in boxes:
            if through is None:
                return True
            if through[max(y0 - more, 0) : y1 + more + 1, max(x0 - more, 0) : x1 + more + 1].any():
                return True
    return False


def judge(
    ctx: Context,
    shot: Shot,
    params: ChangeParams,
    painted: Painted,
    colour: Any,
    *,
    grow_px: int,
) -> Judged:
    """Find what of a step is a change that may be delivered: cheap stages, no model."""
    step, plate = painted.step, format_of(shot.only(BG))
    reach = ctx.stage(
        "bounds",
        reach_of_masks,
        some(shot, LIMIT, PROTECT),
        painted.masks,
        frames=step.frames,
        box=step.box,
        size=step.size,
        plate=(plate.width, plate.height),
        grow_px=grow_px,
    )
    made = finish.Decoded(
        painted.reference, painted.made, painted.floor, (), Box(*step.box), colour
    )
    return finish.judge(ctx, shot.only(BG), params, made, reach)


def reach_of_masks(
    ctx: Context,
    shot: Shot,
    masks: Any,
    *,
    frames: tuple[int, ...],
    box: tuple[int, int, int, int],
    size: tuple[int, int],
    plate: tuple[int, int],
    grow_px: int,
) -> Reach:
    """Find how far a change may reach around what the model could change; the body of a stage.

    Args:
        ctx: The run's context.
        shot: With ``limit`` and ``protect``, where there are such.
        masks: What the model could change. [L,h,w] bool.
        frames: Places of those frames in the shot. [L].
        box: What of the plate the model sees.
        size: The model's width and height.
        plate: That of the plate.
        grow_px: How far beyond the masks, in model pixels, fading out over its last quarter.
    """
    part, numbers = Box(*box), tuple(shot.frames)
    grow = grow_px - margin_px(size, (part.width, part.height))
    within = _within(part, plate, size, fade_px=max(1.0, grow / 4))
    grown = np.zeros(np.asarray(masks).shape, np.float16)
    allowed = np.zeros(grown.shape, bool)
    for j, i in enumerate(frames):
        ctx.progress("bounds", j, len(frames))
        if not masks[j].any():
            continue
        grown[j] = np.minimum(reached(np.asarray(masks[j]), grow), within)
        allowed[j] = grown[j] > 0
        held = let_through(shot, numbers[i], part)
        if held is not None:
            allowed[j] &= to_model_frame(held, size)[..., 0] > 0
    return Reach(grown, allowed)


def _within(
    box: Box, plate: tuple[int, int], size: tuple[int, int], *, fade_px: float
) -> NDArray[np.float32]:
    """Return a picture that fades to 0 at those sides of a box at which the plate goes on. [h,w].

    Without it, what reaches as far as the model sees would end there in a straight edge.
    """
    across, down = (np.full(side, np.inf, np.float32) for side in size)
    for line, first, last, whole in (
        (across, box.x0, box.x1, plate[0]),
        (down, box.y0, box.y1, plate[1]),
    ):
        far = np.arange(len(line), dtype=np.float32)
        if first > 0:
            line[:] = far
        if last < whole - 1:
            line[:] = np.minimum(line, far[::-1])
    return np.asarray(np.clip(np.minimum(down[:, None], across) / fade_px, 0, 1), np.float32)
