# SPDX-License-Identifier: Apache-2.0
"""From a decoded sample to one frame's layers: alike for all that put an effect on a plate.

What changed is carried onto the plate's own samples inside a bound (``change.py``), is given grain
(``grain.py``), and becomes a layer that defines the result (``effect.py``). All that is done inside
the box that the model saw; everything else is the plate, which is never looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gencomp_protocol.errors import BadMatte
from gencomp_protocol.layers import (
    BG,
    DIFFERENCE,
    EFFECT,
    EFFECT_MASK,
    EFFECT_MATTE,
    EFFECT_OVER,
    EFFECT_UNDER,
    FG,
    KEEP,
    LIMIT,
    ORIGIN,
    PROTECT,
    RESULT,
    LayerSpec,
)
from gencomp_server.contract import LayerFrame
from gencomp_server.finishing import GROWN_MASK, MATCH_GRAIN, NATURAL
from gencomp_server.parts.body import bodies
from gencomp_server.parts.bounds import BOUNDING, bound_at, held_out, reach_of
from gencomp_server.parts.change import Changed, apply_change, find_change, gates
from gencomp_server.parts.effect import EffectFrame, effect_frame
from gencomp_server.parts.fit import from_model_frame
from gencomp_server.parts.grain import grain_change
from gencomp_server.parts.lead import composite, format_of, grain_of, lead, on_display
from gencomp_server.parts.origin import origin_of_change
from gencomp_server.parts.pictures import over_data_window, some
from gencomp_server.parts.region import crop, in_plate, sides
from gencomp_server.parts.underover import under_over
from gencomp_server.parts.window import finite, onto_display

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from gencomp_protocol.frames import Box
    from gencomp_server.colour.modelrange import ModelRange
    from gencomp_server.contract import Context, PictureHeader, Shot
    from gencomp_server.finishing import ChangeParams, EffectParams
    from gencomp_server.parts.bounds import Reach
    from gencomp_server.parts.change import Floor
    from gencomp_server.parts.grain import Grain

    Floats = NDArray[np.float32]
    Pixels = NDArray[np.float16] | NDArray[np.float32]

_EFFECT = (RESULT, EFFECT, DIFFERENCE, EFFECT_MATTE)


@dataclass(frozen=True)
class Decoded:
    """What a model made of a shot; sequences are at the model's size.

    Attributes:
        reference: The plate through the VAE. [T,h,w,3], model range.
        made: What the model made. [T,h,w,3], model range.
        floor: The shot's noise floor.
        annotated: The frames whose mask counts.
        box: What of the plate the model saw: pixels of the display window.
        colour: How the plate became the model's.
    """

    reference: Any
    made: Any
    floor: Floor
    annotated: tuple[int, ...]
    box: Box
    colour: ModelRange


@dataclass(frozen=True)
class Judged:
    """The same with what the delivery knobs say of it.

    Attributes:
        of: What was decoded.
        reach: How far a change may reach.
        weights: Where there is a change. [T,h,w,1], 0..1.
        body: Alpha that the effect should have at least; None: as little as can be. [T,h,w,1].
        grain: What is generated gets this grain; None: none.
    """

    of: Decoded
    reach: Reach
    weights: Any
    body: Any = None
    grain: Grain | None = None


@dataclass(frozen=True)
class Finished:
    """One frame.

    Attributes:
        layers: Result, effect, difference and matte.
        changed: What was asked of the plate, by the plate's own flat indices.
    """

    layers: EffectFrame
    changed: Changed

    @property
    def origin(self) -> Floats:
        """Return where each pixel comes from. [H,W,5] float32."""
        matte = self.layers.matte
        return origin_of_change(matte.shape[:2], self.changed, touched=matte > 0)

    @property
    def touched(self) -> NDArray[np.intp]:
        """Return the flat indices of the pixels that are not the plate's own, rising. [n]."""
        index = self.changed.index
        return np.asarray(index[self.layers.matte.reshape(-1)[index] > 0], np.intp)


# --- a shot --------------------------------------------------------------------------------------


def reach(
    ctx: Context,
    shot: Shot,
    params: EffectParams,
    *,
    annotated: tuple[int, ...],
    box: Box,
    size: tuple[int, int],
    locked: bool = False,
) -> Reach:
    """Find where a change may be delivered; before a model runs, which would run for nothing.

    Args:
        ctx: The run's context.
        shot: The shot.
        params: Its knobs.
        annotated: The frames whose mask counts.
        box: What of the plate the model sees: pixels of the display window.
        size: The model's width and height.
        locked: True where opaque ``fg`` keeps its samples.

    Raises:
        BadMatte: Nowhere.
    """
    unknown_px = None
    if annotated and params.unknown_bound == GROWN_MASK:
        model_px = size[1] / box.height
        unknown_px = params.unknown_reach / 100 * format_of(shot).height * model_px
    found = ctx.stage(
        "bounds",
        reach_of,
        some(shot, *BOUNDING, *((FG,) if locked else ())),
        box=sides(box),
        size=size,
        annotated=annotated,
        grow_px=params.mask_grow,
        unknown_px=unknown_px,
        locked=locked,
    )
    if not found.allowed.any():
        raise _no_place(shot, locked)
    return found


def open_reach(ctx: Context, shot: Shot, *, box: Box, size: tuple[int, int]) -> Reach:
    """Find where a change may be delivered where no mask asks for one: all that is not held out.

    Args:
        ctx: The run's context.
        shot: The shot.
        box: What of the plate the model sees: pixels of the display window.
        size: The model's width and height.

    Raises:
        BadMatte: Nowhere.
    """
    found = ctx.stage(
        "bounds",
        reach_of,
        some(shot, LIMIT, PROTECT),
        box=sides(box),
        size=size,
        annotated=(),
        grow_px=0,
        unknown_px=None,
    )
    if not found.allowed.any():
        raise _no_place(shot, locked=False)
    return found


def _no_place(shot: Shot, locked: bool) -> BadMatte:
    """Return why nothing may change: what leaves no place, and what to do about it."""
    names = [name for name in (LIMIT, PROTECT, KEEP) if name in shot.names]
    cure = "Widen limit or the mask, or cut back protect or keep."
    if locked:
        names.append("the opaque fg")
        cure = "Render fg with the alpha of its subject alone, or switch fg_locked off."
    names = names or [EFFECT_MASK]
    verb = "leaves" if len(names) == 1 else "leave"
    return BadMatte(
        f"{' and '.join(names)} {verb} no place on any frame in which the effect may be "
        "delivered, so there is nothing to do.",
        hint=cure,
        input=FG if locked else names[0],
    )


def judge(
    ctx: Context, shot: Shot, params: ChangeParams, decoded: Decoded, may_reach: Reach
) -> Judged:
    """Find what of a sample is a change that may be delivered: cheap stages, no model.

    Args:
        ctx: The run's context.
        shot: The shot.
        params: Its knobs.
        decoded: What the model made of it.
        may_reach: Where a change may be delivered.
    """
    reference, made = decoded.reference, decoded.made
    weights = ctx.stage("gate", _gated, reference, made, decoded.floor, may_reach.allowed)
    judged = Judged(decoded, may_reach, weights)
    if params.alpha_style == NATURAL:
        judged = replace(judged, body=ctx.stage("body", _bodies, reference, made, weights))
    if params.grain == MATCH_GRAIN:
        judged = replace(judged, grain=ctx.stage("grain", grain_of, shot.only(*lead(shot))))
    return judged


def _gated(ctx: Context, *seen: Any) -> NDArray[np.float16]:
    return gates(*seen)


def _bodies(ctx: Context, *seen: Any) -> NDArray[np.float16]:
    return bodies(*seen)


def deliver(
    ctx: Context, shot: Shot, specs: Sequence[LayerSpec], judged: Judged, *, locked: bool
) -> Iterator[LayerFrame]:
    """Yield every frame's layers and report how much of each frame is the plate's own.

    Args:
        ctx: The run's context.
        shot: The shot.
        specs: The layers wanted, in order: ``effect_under`` and ``effect_over`` where ``fg`` and
            ``bg`` come apart.
        judged: What the model made of it.
        locked: True where opaque ``fg`` keeps its samples.
    """
    names, untouched, forced = [spec.name for spec in specs], [], 0
    for i, n in enumerate(shot.frames):
        plate, header = composite(shot, n)
        own = onto_display(plate, header.data_window, header.display_window)
        bound = _bound(shot, judged, i, n, header, locked=locked)
        done = finish_frame(judged, i, own, bound, ctx.generator(f"grain {n}"))
        told = done.layers
        untouched.append(round(1 - told.touched / (plate.shape[0] * plate.shape[1]), 6))
        pictures = dict(
            zip(_EFFECT, (told.result, told.effect, told.difference, told.matte), strict=True)
        )
        if EFFECT_UNDER in names:
            fg, bg = on_display(shot, FG, n), on_display(shot, BG, n)
            split = under_over(
                fg,
                bg,
                told.result,
                done.touched,
                told.result.dtype,
                locked=locked,
                effect=told.effect,
                held=held_out(shot, n),
            )
            pictures[EFFECT_UNDER], pictures[EFFECT_OVER] = split.under, split.over
            forced += split.forced
        if ORIGIN in names:
            pictures[ORIGIN] = done.origin
        for spec in specs:
            yield layer_frame(spec, n, pictures[spec.name], header, plate)
    ctx.report("untouched_share_per_frame", untouched)
    if forced:
        ctx.warn(
            f"At {forced} pixels of all frames effect_over had to become opaque, because nothing "
            "else over fg gives the result there."
        )


def _bound(
    shot: Shot, judged: Judged, i: int, n: int, header: PictureHeader, *, locked: bool
) -> Floats:
    """Return how much of a change may be delivered, over the box. [H',W',1] float32, 0..1.

    Nothing outside the plate's data window: there it has no samples, and none are delivered.
    """
    box, annotated = judged.of.box, judged.of.annotated
    bound = bound_at(shot, n, judged.reach.grown[i], box, is_annotated=n in annotated)
    if header.data_window != header.display_window:
        sampled = np.ones((header.data_window.height, header.data_window.width, 1), bool)
        bound *= crop(onto_display(sampled, header.data_window, header.display_window), box)
    if locked:
        bound[~(crop(on_display(shot, FG, n), box)[..., 3] < 1)] = 0
    return bound


def layer_frame(
    layer: LayerSpec, n: int, pixels: Any, header: PictureHeader, plate: Pixels
) -> LayerFrame:
    """Wrap a display-window picture as the plate's frame; overscan is the plate's own."""
    rim: Any = plate if layer.name == RESULT else None
    if layer.name == ORIGIN:
        rim = np.broadcast_to(np.array([1, 0, 0, 0, 0], np.float32), (*plate.shape[:2], 5))
    laid = over_data_window(pixels, header, rim)
    windows = (header.display_window, header.data_window, header.pixel_aspect)
    return LayerFrame(layer.name, n, laid, layer.channels, *windows, header.metadata)


# --- a frame -------------------------------------------------------------------------------------


def finish_frame(
    judged: Judged, i: int, plate: Pixels, bound: Floats, generator: np.random.Generator
) -> Finished:
    """Carry one frame's change onto the plate and solve its layers.

    Args:
        judged: The shot.
        i: Place of the frame in it.
        plate: The plate's own samples over its display window. [H,W,3] or [H,W,4].
        bound: How much of a change may be delivered, over the box. [H',W',1] float32, 0..1.
        generator: What this frame's grain is made from.
    """
    box = judged.of.box
    changed, body = _changed(judged, i, plate, bound, generator), None
    if judged.body is not None and changed.index.size:
        wish = from_model_frame(judged.body[i, ..., 0], (box.width, box.height)) * bound[..., 0]
        body = wish.reshape(-1)[changed.index]
    changed = replace(changed, index=in_plate(changed.index, box, plate.shape[1]))
    told = effect_frame(plate, changed.index, changed.colours, changed.weights, body=body)
    return Finished(told, changed)


def carried(
    judged: Judged, i: int, plate: Pixels, bound: Floats, generator: np.random.Generator
) -> Changed:
    """Return what changes in one frame, by the plate's own flat indices; see :func:`finish_frame`.

    For those that make other layers of it than an effect.
    """
    changed = _changed(judged, i, plate, bound, generator)
    return replace(changed, index=in_plate(changed.index, judged.of.box, plate.shape[1]))


def _changed(
    judged: Judged, i: int, plate: Pixels, bound: Floats, generator: np.random.Generator
) -> Changed:
    """Return what changes, by flat indices of the box."""
    of = judged.of
    change = find_change(
        of.reference[i],
        of.made[i],
        of.floor,
        judged.reach.allowed[i],
        colour=of.colour,
        weight=judged.weights[i],
    )
    if change is None or not bound.any():
        return Changed.nothing()
    light = finite(crop(plate, of.box)[..., :3])
    changed = apply_change(light, change, bound, of.floor, colour=of.colour)
    if judged.grain is None or not changed.index.size:
        return changed
    return grain_change(light, changed, judged.grain, generator)
