# SPDX-License-Identifier: Apache-2.0
"""Where a change may be delivered, whatever a model was told and whatever it made.

A bound is coverage at plate size: 0 keeps the plate bit for bit, 1 lets a change in whole, a
feather lets it in softly. It is made of two things:

* how far beyond what was drawn a change may reach, which is smooth and is found at the model's
  size: on frames whose mask counts the mask grown, on the others the mask as it is interpolated
  between its neighbours in time, grown further (:func:`reach_of`);
* what was drawn, and what holds out (``limit``, ``protect``, ``keep``), which are taken at the
  plate's own size, so that they are as sharp as they were drawn (:func:`bound_at`).

Frames are [H,W,1] float32, 0..1, over the box of the plate that the model sees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from gencomp_protocol.frames import Box
from gencomp_protocol.layers import EFFECT_MASK, EFFECT_UNKNOWN, FG
from gencomp_server.parts.annotation import HELD_OUTSIDE, HOLDING
from gencomp_server.parts.change import LEAST_WEIGHT
from gencomp_server.parts.fit import from_model_frame, to_model_frame
from gencomp_server.parts.pictures import has_picture, native
from gencomp_server.parts.region import crop

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.contract import Context, Shot

    Floats = NDArray[np.float32]
    Bools = NDArray[np.bool_]

BOUNDING = (EFFECT_MASK, EFFECT_UNKNOWN, *HOLDING)
"""The inputs that bound a delivery."""
EASE_FRAMES = 8
"""Frames over which a bound opens, away from a frame whose mask counts."""
# A disc is as good as several smaller ones in turn, which are much faster; of small ones that of 5
# is the roundest, for 3, 4 and 5 make a right angle.
_DISC_PX = 5
# What an interpolated mask was grown by fades out over this share of it.
_FADE = 0.25


@dataclass(frozen=True)
class Reach:
    """Where a change may be, over a shot, at the model's size.

    Attributes:
        grown: How far what was drawn reaches; 1 everywhere where nothing bounds. [T,h,w] float16.
        allowed: Where the bound at plate size may be above 0. [T,h,w] bool.
    """

    grown: Any
    allowed: Any


# --- a shot --------------------------------------------------------------------------------------


def reach_of(
    ctx: Context,
    shot: Shot,
    *,
    box: tuple[int, int, int, int],
    size: tuple[int, int],
    annotated: tuple[int, ...],
    grow_px: int,
    unknown_px: float | None,
    locked: bool = False,
) -> Reach:
    """Find how far a change may reach on every frame; the body of a stage.

    Args:
        ctx: The run's context.
        shot: With those of ``BOUNDING`` that there are, and ``fg`` where it is locked.
        box: What of the plate the model sees: inclusive pixels of the display window.
        size: The model's width and height.
        annotated: The frames whose mask counts.
        grow_px: How far the mask is grown on those, in model pixels.
        unknown_px: How far the interpolated mask is grown on the others; None: anywhere.
        locked: True where opaque ``fg`` keeps its samples.
    """
    frames, part = tuple(shot.frames), Box(*box)
    shape, lost = (len(frames), size[1], size[0]), margin_px(size, (part.width, part.height))
    grown, allowed = np.ones(shape, np.float16), np.ones(shape, bool)
    drawn = None if unknown_px is None else _Drawn(shot, part, size, annotated)
    for i, n in enumerate(frames):
        ctx.progress("bounds", i, len(frames))
        if n in annotated:
            mask = to_model_frame(_coverage(shot, EFFECT_MASK, n, part), size)[..., 0]
            grown[i] = spread(mask, grow_px - lost) if grow_px >= lost else 0
            allowed[i] = (grown[i] > 0) | (mask > 0)
            if _says(shot, EFFECT_UNKNOWN, n):
                unknown = _coverage(shot, EFFECT_UNKNOWN, n, part)
                allowed[i] |= to_model_frame(unknown, size)[..., 0] > 0
        elif drawn is not None and unknown_px is not None:
            reach_px = eased(unknown_px, grow_px, min(abs(n - one) for one in annotated))
            grown[i] = reached(drawn.at(n), reach_px - lost)
            allowed[i] = grown[i] > 0
        held = let_through(shot, n, part)
        if held is not None:
            allowed[i] &= to_model_frame(held, size)[..., 0] > 0
        if locked:
            clear = crop(native(shot, FG, n), part)[..., 3:] < 1
            allowed[i] &= to_model_frame(clear.astype(np.uint8), size)[..., 0] > 0
    return Reach(grown, allowed)


def drawn_between(
    ctx: Context,
    shot: Shot,
    *,
    box: tuple[int, int, int, int],
    size: tuple[int, int],
    annotated: tuple[int, ...],
) -> Bools:
    """Draw the mask on frames where it does not count, between those where it does: a stage's body.

    Args:
        ctx: The run's context.
        shot: With ``effect_mask``.
        box: What of the plate the model sees: inclusive pixels of the display window.
        size: The model's width and height.
        annotated: The frames whose mask counts; at least one.

    Returns:
        [T,h,w,1] bool; nothing on frames where it counts.
    """
    drawn = _Drawn(shot, Box(*box), size, annotated)
    found = np.zeros((len(shot.frames), size[1], size[0], 1), bool)
    for i, n in enumerate(shot.frames):
        if n not in annotated:
            found[i, ..., 0] = drawn.at(n)
    return found


def eased(reach_px: float, grow_px: float, away: int) -> float:
    """Return how far a mask is grown on a frame where it does not count.

    Beside a frame where it counts, where it is grown less, a bound that jumped would be seen: the
    reach is come to over ``EASE_FRAMES``.

    Args:
        reach_px: How far at most.
        grow_px: How far on frames where it counts.
        away: Frames to the nearest of those.
    """
    if reach_px <= grow_px:
        return reach_px
    return grow_px + (reach_px - grow_px) * min(1.0, away / EASE_FRAMES)


def bound_at(
    shot: Shot, n: int, grown: NDArray[np.floating], box: Box, *, is_annotated: bool
) -> Floats:
    """Return how much of a change may be delivered where, on one frame.

    Args:
        shot: The shot.
        n: The frame.
        grown: Of that frame, from :class:`Reach`. [h,w].
        box: What of the plate the model sees.
        is_annotated: True where its mask counts.

    Returns:
        [H,W,1] float32, 0..1, over the box.
    """
    bound = np.minimum(from_model_frame(grown, (box.width, box.height))[..., None], 1)
    if is_annotated:
        for name in (EFFECT_MASK, EFFECT_UNKNOWN):
            if _says(shot, name, n):
                np.maximum(bound, _coverage(shot, name, n, box), out=bound)
    held = let_through(shot, n, box)
    return bound if held is None else bound * held


def let_through(shot: Shot, n: int, box: Box | None = None) -> Floats | None:
    """Return how much of a change limit, protect and keep let through on one frame.

    Args:
        shot: The shot.
        n: The frame.
        box: Over what of the display window; None: all of it.

    Returns:
        limit x (1 - protect) x (1 - keep), of those that there are. [H,W,1] float32, 0..1: 0 where
        the plate stays. None where nothing is held out.
    """
    found = None
    for name in HOLDING:
        if _says(shot, name, n):
            part = _coverage(shot, name, n, box)
            part = np.float32(1) - part if name in HELD_OUTSIDE else part
            found = part if found is None else found * part
    return found


def held_out(shot: Shot, n: int) -> Bools | None:
    """Return where limit, protect or keep let nothing in at all, over the display window. [H,W].

    None where none of them says anything on the frame.
    """
    through = let_through(shot, n)
    return None if through is None else np.asarray(through[..., 0] <= 0, bool)


def _says(shot: Shot, name: str, n: int) -> bool:
    return name in shot.names and has_picture(shot, name, n)


def _coverage(shot: Shot, name: str, n: int, box: Box | None) -> Floats:
    # Cropped first: the whole of a large matte would be converted for a part of it.
    whole = native(shot, name, n)
    return np.clip((whole if box is None else crop(whole, box)).astype(np.float32), 0, 1)


class _Drawn:
    """What was drawn of a mask, and what lies between, at the model's size.

    Frames are asked for in rising order: two drawings are kept, no more.
    """

    def __init__(
        self, shot: Shot, box: Box, size: tuple[int, int], annotated: tuple[int, ...]
    ) -> None:
        self._shot, self._box, self._size = shot, box, size
        own = (n for n in shot.frames if n not in annotated and _says(shot, EFFECT_MASK, n))
        # A picture that covers nothing says nothing on a frame where it does not count.
        self._frames = sorted({*annotated, *(n for n in own if self._shape(n).any())})
        self._kept: dict[int, Bools] = {}

    def at(self, n: int) -> Bools:
        """Return the shape at a frame: as drawn, between two drawings, or the nearest one held."""
        before = max((one for one in self._frames if one <= n), default=None)
        after = min((one for one in self._frames if one >= n), default=None)
        if before is None or after is None or before == after:
            nearest = after if before is None else before
            assert nearest is not None, "there is no bound to draw without a frame that counts"
            return self._drawing(nearest)
        share = (n - before) / (after - before)
        return between(self._drawing(before), self._drawing(after), share)

    def _drawing(self, n: int) -> Bools:
        if n not in self._kept:
            self._kept = dict([*self._kept.items()][-1:])
            self._kept[n] = self._shape(n)
        return self._kept[n]

    def _shape(self, n: int) -> Bools:
        low = to_model_frame(_coverage(self._shot, EFFECT_MASK, n, self._box), self._size)
        return np.asarray(low[..., 0] > LEAST_WEIGHT, bool)


# --- one picture, at the model's size ------------------------------------------------------------


def margin_px(size: tuple[int, int], seen: tuple[int, int]) -> float:
    """Return how far coverage may spread on its way to model size and back, in model pixels.

    On a side that shrinks, a plate pixel reaches half of itself and half a model pixel far on the
    way down, and one model pixel on the way up; on a side that grows the ways are the other way
    round, and it is one plate pixel. A side that stays spreads nothing.

    Args:
        size: The model's width and height.
        seen: Of what it sees, in plate pixels.
    """

    def side(model: int, plate: int) -> float:
        scale = model / plate
        return 0.0 if model == plate else 0.5 + scale / 2 + max(1.0, scale)

    return math.hypot(side(size[0], seen[0]), side(size[1], seen[1]))


def spread(plane: Floats, radius: float) -> Floats:
    """Take the greatest value within a disc, and nothing from outside it. [h,w] float32."""
    while radius >= 1:
        step = min(radius, _DISC_PX)
        offset = np.arange(-int(step), int(step) + 1)
        disc = (offset[:, None] ** 2 + offset**2 <= step**2).astype(np.uint8)
        plane, radius = np.asarray(cv2.dilate(plane, disc), np.float32), radius - step
    return plane


def reached(shape: Bools, reach_px: float) -> Floats:
    """Grow a shape; what it grows by fades out at its end.

    Args:
        shape: [h,w] bool.
        reach_px: How far, in pixels; nothing below 1 changes it.

    Returns:
        1 in the shape and around it, 0 from ``reach_px`` on. [h,w] float32.
    """
    if not shape.any():
        return np.zeros(shape.shape, np.float32)
    reach = max(0.0, reach_px)
    far = cv2.distanceTransform((~shape).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    left = (reach - far) / max(1.0, _FADE * reach)
    return np.asarray(np.where(shape, 1, np.clip(left, 0, 1)), np.float32)


def between(one: Bools, other: Bools, share: float) -> Bools:
    """Return the shape between two shapes: signed distances are mixed.

    They are mixed where they lie, and once more with both brought to where their middle is on the
    way from one to the other, for a shape that moves further than it is wide would vanish on its
    way. What either finds belongs to it.

    Args:
        one: [h,w] bool.
        other: [h,w] bool.
        share: How far it is from ``one`` to ``other``, 0..1.
    """
    if not one.any() or not other.any():
        return one | other
    a, b = _signed_distance(one), _signed_distance(other)
    shape = (1 - share) * a + share * b <= 0
    step = _middle(other) - _middle(one)
    moved = (1 - share) * _shifted(a, share * step) + share * _shifted(b, (share - 1) * step)
    found: Bools = shape | (moved <= 0)
    return found


def _signed_distance(shape: Bools) -> Floats:
    """Return the distance from a shape's edge, in pixels, negative inside. [h,w] float32."""
    inside = shape.astype(np.uint8)
    if inside.all():
        return np.full(shape.shape, -float(max(shape.shape)), np.float32)
    to_shape = cv2.distanceTransform(1 - inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    to_outside = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(to_shape - to_outside, np.float32)


def _middle(shape: Bools) -> NDArray[np.float64]:
    """Return the mean place of a shape: x, y."""
    ys, xs = np.nonzero(shape)
    return np.array([xs.mean(), ys.mean()])


def _shifted(plane: Floats, step: NDArray[np.float64]) -> Floats:
    """Move a picture by x, y pixels; its border is repeated. [h,w] float32."""
    matrix = np.array([[1, 0, step[0]], [0, 1, step[1]]], np.float64)
    size = (plane.shape[1], plane.shape[0])
    return np.asarray(cv2.warpAffine(plane, matrix, size, borderMode=cv2.BORDER_REPLICATE))
