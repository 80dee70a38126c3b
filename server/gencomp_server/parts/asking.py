# SPDX-License-Identifier: Apache-2.0
"""From what an artist drew to what a model is asked, and what is refused there.

A roto is coverage: from a threshold on it says EDIT, below it KEEP. UNKNOWN are whole frames on
which the mask does not count, and inside the others what ``effect_unknown`` covers. ``limit`` and
``protect`` are not for the model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from gencomp_protocol.errors import BadMatte
from gencomp_protocol.frames import Box
from gencomp_protocol.layers import EFFECT_MASK, EFFECT_UNKNOWN, KEEP
from gencomp_server.parts import trimask as classes
from gencomp_server.parts.annotation import NAME_A_PLACE, Annotation, keeps_unknown
from gencomp_server.parts.fit import to_model_frame
from gencomp_server.parts.pictures import coverage_of, has_picture
from gencomp_server.parts.region import crop

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.contract import Context, Shot

    Classes = NDArray[np.uint8]


def draw_trimask(
    ctx: Context,
    shot: Shot,
    *,
    box: tuple[int, int, int, int],
    size: tuple[int, int],
    annotated: tuple[int, ...],
    threshold: float,
) -> Classes:
    """Say at model size what the model may do where; the body of a stage.

    ``keep`` wins over all; then the mask's EDIT; then what is UNKNOWN.

    Args:
        ctx: The run's context.
        shot: With ``effect_mask``, ``effect_unknown`` and ``keep``, where there are such.
        box: What of the plate the model sees: inclusive pixels of the display window.
        size: The model's width and height.
        annotated: The frames whose mask counts.
        threshold: Coverage from which the mask asks, 0..1.

    Returns:
        [T,h,w,1] uint8 classes.
    """

    def covers(name: str, n: int, at: float = 0.5) -> NDArray[np.bool_]:
        if name not in shot.names or not has_picture(shot, name, n):
            return np.zeros((size[1], size[0], 1), bool)
        return to_model_frame(crop(coverage_of(shot, name, n), Box(*box)), size) >= at

    shape = (len(shot.frames), size[1], size[0], 1)
    edit, unknown, keep = (np.zeros(shape, bool) for _ in range(3))
    for i, n in enumerate(shot.frames):
        ctx.progress("trimask", i, len(shot.frames))
        keep[i] = covers(KEEP, n)
        if n in annotated:
            edit[i] = covers(EFFECT_MASK, n, threshold)
            unknown[i] = covers(EFFECT_UNKNOWN, n)
        else:
            unknown[i] = True
    return classes.build(edit & ~keep, keep, unknown)


def check_trimask(
    trimask: Any, marked: Annotation, shot: Shot, threshold: float, ctx: Context
) -> None:
    """Refuse a job in which nothing may change; warn of a mask that asks for everything.

    Raises:
        BadMatte: Nothing is asked for.
    """
    if not (trimask != classes.KEEP).any():
        cure = (
            "Cut back keep; if it is inverted, switch on 'invert' beside its channel on the node, "
            "or invert the files."
        )
        if not marked.frames:
            words = "Input 'keep' covers the whole picture on every frame"
        elif KEEP in shot.names:
            words = "Outside keep, effect_mask asks for no effect on any frame"
            cure = "Cut back keep, or widen the mask."
        else:
            cure = "Widen the mask, or lower mask_threshold."
            words = (
                f"Input 'effect_mask' nowhere reaches the threshold {threshold:g} at the model's "
                "size"
            )
        raise BadMatte(
            f"{words}, so there is nothing to do.",
            hint=cure,
            input=EFFECT_MASK if marked.frames else KEEP,
        )
    if marked.frames and (trimask == classes.EDIT).all():
        ctx.warn("Input 'effect_mask' covers the whole picture: a change may be anywhere.")


def check_binary(trimask: Any, title: str, ctx: Context) -> None:
    """Refuse or warn of what is UNKNOWN to a model that has no value for it and keeps there.

    Raises:
        BadMatte: Nothing is asked for besides.
    """
    if not (trimask == classes.EDIT).any():
        raise BadMatte(
            f"{title} changes only what a mask asks for, and no mask asks for the effect on any "
            "frame, so nothing would change.",
            hint=NAME_A_PLACE,
            input=EFFECT_MASK,
        )
    if (trimask == classes.UNKNOWN).any():
        ctx.warn(keeps_unknown(title))
