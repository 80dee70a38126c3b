# SPDX-License-Identifier: Apache-2.0
"""From painted steps to one frame's layers: elements, what they do to the plate, and the result.

Back to front, every element keeps its own pixels, takes the model's light as far as it is let, and
gets what it does to the plate as a layer beneath it (``element.py``); the next one is laid over
that. All of them together are once more one layer, ``effect``, which defines the result: plain
``over`` of it on ``bg`` is ``result``, sample for sample, and so are the layers one by one, to a
step of their type. A removal is a layer of its own kind: what the model painted where the matte
covers, and a change of the plate around it.

Where an element is not, on frames as in the picture, the plate is never looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from gencomp_protocol.frames import Box
from gencomp_protocol.layers import (
    BG,
    DIFFERENCE,
    EFFECT,
    EFFECT_MATTE,
    ELEMENT,
    INTERACTION,
    LIMIT,
    ORIGIN,
    PROTECT,
    REMOVE,
    RESULT,
    LayerSpec,
)
from gencomp_server.parts import elements, finish
from gencomp_server.parts.bounds import let_through, spread
from gencomp_server.parts.change import Changed, to_code
from gencomp_server.parts.effect import effect_frame
from gencomp_server.parts.element import MINE, LowColours, element_frame, low_colour
from gencomp_server.parts.fit import from_model_frame, to_model_frame
from gencomp_server.parts.grain import grain_change
from gencomp_server.parts.lead import composite
from gencomp_server.parts.origin import origin_of_change
from gencomp_server.parts.pictures import coverage_of, some
from gencomp_server.parts.placedorigin import Coverage, Sources
from gencomp_server.parts.region import crop, in_plate
from gencomp_server.parts.roundtrip import learn
from gencomp_server.parts.stack import round_to
from gencomp_server.parts.steps import visible
from gencomp_server.parts.window import finite, onto_display

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from gencomp_server.contract import Context, LayerFrame, PictureHeader, Shot
    from gencomp_server.parts.compositing import Painted
    from gencomp_server.parts.elements import Element
    from gencomp_server.parts.finish import Judged

    Floats = NDArray[np.float32]
    Pixels = NDArray[np.float16] | NDArray[np.float32]

LOW_SHARE = 0.05
"""Light is what varies over this share of the model's height and more; the rest is detail."""
_ROUND_PX = 2  # By so much, at the model's size, a removal reaches beyond its matte, softly.


@dataclass(frozen=True)
class Delivery:
    """What the delivery knobs say.

    Attributes:
        harmonise: How much of the model's light an element takes, 0..1.
        source: ``mine`` or ``generated``, see ``element.py``.
        interacts: False: only the element changes, never the plate around it.
        origin: Whether it is to be said where every pixel comes from.
    """

    harmonise: float
    source: str
    interacts: bool
    origin: bool


@dataclass(frozen=True)
class Layers:
    """One frame.

    Attributes:
        pictures: By name of the layer, over the display window.
        touched: Pixels that are not the plate's own.
    """

    pictures: dict[str, Any]
    touched: int


def layer_name(kind: str, element: str) -> str:
    """Return the layer of an element: ``element``, or ``element_bird`` where it has a name."""
    return kind if element == ELEMENT else f"{kind}_{element}"


# --- a shot --------------------------------------------------------------------------------------


def deliver(
    ctx: Context,
    shot: Shot,
    specs: Sequence[LayerSpec],
    painted: Sequence[Painted],
    judged: Sequence[Judged],
    delivery: Delivery,
) -> Iterator[LayerFrame]:
    """Yield every frame's layers and report how much of each frame is the plate's own.

    Args:
        ctx: The run's context.
        shot: The shot.
        specs: The layers wanted, in order.
        painted: The steps, back to front; none where nothing is to be done.
        judged: What of each may be delivered.
        delivery: What the knobs say.
    """
    untouched = []
    steps = tuple(zip(painted, judged, strict=True))
    for i, n in enumerate(shot.frames):
        plate, header = composite(shot.only(BG), n)
        own = onto_display(plate, header.data_window, header.display_window)
        alive = [(one, of, j) for one, of in steps if (j := _place(one, i)) is not None]
        frame = _Frame(ctx, shot, delivery, i, n, own, header)
        if alive and alive[0][0].step.element is None:
            told = frame.removed(*alive[0])
        else:
            told = frame.stacked(alive)
        untouched.append(round(1 - told.touched / (plate.shape[0] * plate.shape[1]), 6))
        plate, header = _room_for(told.pictures[EFFECT], plate, header)
        for spec in specs:
            picture = told.pictures.get(spec.name)
            if picture is None:
                picture = np.zeros((*own.shape[:2], len(spec.channels)), own.dtype)
            yield finish.layer_frame(spec, n, picture, header, plate)
    ctx.report("untouched_share_per_frame", untouched)


def _place(one: Painted, i: int) -> int | None:
    """Return which of a step's frames is the shot's of an index; None where it does nothing."""
    if i not in one.step.frames:
        return None
    j, element = one.step.frames.index(i), one.step.element
    is_there = element is not None and element.sources[i] is not None
    return j if is_there or one.masks[j].any() else None


def _room_for(effect: Pixels, plate: Pixels, header: PictureHeader) -> tuple[Pixels, PictureHeader]:
    """Widen a cropped plate's data window as far as an element lies outside of it."""
    data, display = header.data_window, header.display_window
    if data.intersect(display) == display:
        return plate, header
    where = (effect != 0).any(axis=2)
    rows, columns = (np.flatnonzero(where.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return plate, header
    window = Box(
        min(data.x0, display.x0 + int(columns[0])),
        min(data.y0, display.y0 + int(rows[0])),
        max(data.x1, display.x0 + int(columns[-1])),
        max(data.y1, display.y0 + int(rows[-1])),
    )
    return onto_display(plate, data, window), replace(header, data_window=window)


class _Frame:
    """One frame, its plate and what lets a change through."""

    def __init__(
        self,
        ctx: Context,
        shot: Shot,
        delivery: Delivery,
        i: int,
        n: int,
        own: Pixels,
        header: PictureHeader,
    ) -> None:
        self._ctx, self._shot, self._delivery = ctx, shot, delivery
        self._i, self._n, self._own = i, n, own
        self._through = let_through(some(shot, LIMIT, PROTECT), n)
        self._sampled = None
        if header.data_window != header.display_window:
            inside = np.ones((header.data_window.height, header.data_window.width, 1), bool)
            self._sampled = onto_display(inside, header.data_window, header.display_window)

    # --- elements --------------------------------------------------------------------------------

    def stacked(self, alive: Sequence[tuple[Painted, Judged, int]]) -> Layers:
        """Lay elements over the plate, back to front."""
        shape = self._own.shape[:2]
        pictures: dict[str, Any] = {}
        below, laid = self._own, Coverage(shape)
        sources = Sources(shape) if self._delivery.origin else None
        for one, judged, j in alive:
            element = one.step.element
            assert element is not None, one.step.name
            placed = self._placed(element)
            changed = self._changed(one, judged, j, placed, below)
            told = element_frame(
                placed,
                below,
                changed.index,
                changed.colours,
                _low_colours(one, judged, j, shape),
                harmonise=self._delivery.harmonise,
                source=self._delivery.source,
                body=_body(judged, j, shape),
            )
            pictures[layer_name(ELEMENT, element.name)] = told.element
            pictures[layer_name(INTERACTION, element.name)] = told.interaction
            laid.add(told, changed)
            if sources is not None:
                number = element.sources[self._i] if self._delivery.source == MINE else None
                sources.add(told, changed, number)
            below = told.result
        index = np.flatnonzero(laid.touched)
        colours = np.asarray(below[..., :3].reshape(-1, 3)[index], np.float32)
        alpha = laid.alpha.reshape(-1)[index]
        weights = np.maximum(alpha, laid.weight.reshape(-1)[index])
        whole = effect_frame(self._own, index, colours, weights, body=alpha)
        pictures.update(_effect_layers(whole))
        if sources is not None:
            pictures[ORIGIN] = sources.origin(whole.matte[..., 0] > 0)
        return Layers(pictures, whole.touched)

    def _placed(self, element: Element) -> NDArray[Any]:
        """Return what is delivered of an element, in the plate's type. [H,W,4]."""
        kind = self._own.dtype
        picture = visible(self._shot, element, self._i)
        if self._through is not None:
            picture = picture * self._through
        made: NDArray[Any] = round_to(np.asarray(picture, np.float32), kind).astype(kind)
        return made

    def _changed(
        self, one: Painted, judged: Judged, j: int, placed: Pixels, below: Pixels
    ) -> Changed:
        """Return what the model changed of an element over what is below it."""
        if not self._delivery.interacts or not judged.reach.allowed[j].any():
            return Changed.nothing()
        element = one.step.element
        assert element is not None, one.step.name
        box = judged.of.box
        bound = self._bound(judged, j)
        held = np.asarray(elements.held_out(self._shot, element, self._i), np.float32)
        bound *= 1 - crop(held, box)
        through = np.float32(1) - placed[..., 3:].astype(np.float32)
        with np.errstate(invalid="ignore"):
            laid = placed[..., :3] + np.asarray(below[..., :3], np.float32) * through
        grain = self._ctx.generator(f"grain {self._n} {element.name}")
        return finish.carried(judged, j, np.asarray(laid, np.float32), bound, grain)

    def _bound(self, judged: Judged, j: int) -> Floats:
        """Return how much of a change may be delivered, over the box. [H',W',1] float32."""
        box = judged.of.box
        bound = from_model_frame(judged.reach.grown[j], (box.width, box.height))[..., None]
        bound = np.clip(bound, 0, 1)
        for more in (self._through, self._sampled):
            if more is not None:
                bound *= crop(more, box)
        return np.asarray(bound, np.float32)

    # --- a removal -------------------------------------------------------------------------------

    def removed(self, one: Painted, judged: Judged, j: int) -> Layers:
        """Put what the model painted where the matte covers; change the plate around it."""
        box, size = judged.of.box, one.step.size
        shape = self._own.shape[:2]
        bound = self._bound(judged, j)
        grain = self._ctx.generator(f"grain {self._n}")
        around = finish.carried(judged, j, self._own, bound, grain)
        share = _removed_share(one, j, crop(self._matte(), box)) * bound
        light = finite(crop(self._own, box)[..., :3])
        picture = light.copy()
        inside = np.zeros((*shape, 1), np.float32)
        inside[box.y0 : box.y1 + 1, box.x0 : box.x1 + 1] = share
        index = np.flatnonzero(share > 0)
        if index.size:
            small = judged.of.colour.code(to_model_frame(light, size))
            righted = learn(np.clip(small, 0, 1), to_code(one.reference[j]))
            made = judged.of.colour.light(np.clip(righted.righted(to_code(one.made[j])), 0, 1))
            picture = from_model_frame(made, (box.width, box.height))
        part = share.reshape(-1)[index]
        new = Changed(
            index, picture.reshape(-1, 3)[index], part, np.zeros_like(part), np.ones_like(part)
        )
        if judged.grain is not None and index.size:
            new = grain_change(light, new, judged.grain, grain)
        both = _mixed(
            self._own, around, replace(new, index=in_plate(new.index, box, shape[1])), part
        )
        wish = _body(judged, j, shape)
        body = inside[..., 0] if wish is None else np.maximum(inside[..., 0], wish)
        body = body.reshape(-1)[both.index]
        told = effect_frame(self._own, both.index, both.colours, both.weights, body=body)
        origin = origin_of_change(shape, both, touched=told.matte > 0)
        return Layers({**_effect_layers(told), ORIGIN: origin}, told.touched)

    def _matte(self) -> Floats:
        return coverage_of(self._shot, REMOVE, self._n)


def _effect_layers(told: Any) -> dict[str, Any]:
    return {
        RESULT: told.result,
        EFFECT: told.effect,
        DIFFERENCE: told.difference,
        EFFECT_MATTE: told.matte,
    }


def _removed_share(one: Painted, j: int, matte: Floats) -> Floats:
    """Return how much of a pixel is replaced: the matte, and softly a little beyond. [H',W',1]."""
    size = (matte.shape[1], matte.shape[0])
    drawn = np.asarray(one.alpha[j, ..., 0], np.float32)
    soft = cv2.GaussianBlur(spread(drawn, _ROUND_PX), (0, 0), _ROUND_PX / 2)
    return np.asarray(np.maximum(from_model_frame(soft, size)[..., None], matte), np.float32)


def _mixed(own: Pixels, around: Changed, new: Changed, share: Floats) -> Changed:
    """Lay pixels that were painted anew over what changed around them.

    Args:
        own: The plate. [H,W,C].
        around: What changed of it.
        new: What was painted, by the plate's flat indices. [n].
        share: How much of that is taken. [n] float32, 0..1.
    """
    index = np.union1d(around.index, new.index)
    with np.errstate(invalid="ignore"):
        colours = np.asarray(own[..., :3].reshape(-1, 3)[index], np.float32)
    weights, gained, made = (np.zeros(index.size, np.float32) for _ in range(3))
    at = np.searchsorted(index, around.index)
    colours[at], weights[at] = around.colours, around.weights
    gained[at], made[at] = around.gained, around.made
    at = np.searchsorted(index, new.index)
    part = share[:, None]
    colours[at] = colours[at] * (1 - part) + new.colours * part
    weights[at] = np.maximum(weights[at], share)
    gained[at] *= 1 - share
    made[at] = made[at] * (1 - share) + share
    return Changed(index, colours, weights, gained, made)


def _low_colours(one: Painted, judged: Judged, j: int, shape: tuple[int, int]) -> LowColours:
    """Return the light on the placed element and on the model's, over the plate."""
    box, sigma = judged.of.box, LOW_SHARE * one.step.size[1]
    alpha = np.asarray(one.alpha[j], np.float32)
    found = []
    for video in (one.reference, one.made):
        light = judged.of.colour.light(to_code(video[j]))
        whole = np.zeros((*shape, 3), np.float32)
        whole[box.y0 : box.y1 + 1, box.x0 : box.x1 + 1] = from_model_frame(
            low_colour(light, alpha, sigma), (box.width, box.height)
        )
        found.append(whole)
    return LowColours(*found)


def _body(judged: Judged, j: int, shape: tuple[int, int]) -> Floats | None:
    """Return the alpha that what the model made should have at least, over the plate. [H,W]."""
    if judged.body is None:
        return None
    box, whole = judged.of.box, np.zeros(shape, np.float32)
    body = from_model_frame(judged.body[j, ..., 0], (box.width, box.height))
    whole[box.y0 : box.y1 + 1, box.x0 : box.x1 + 1] = body
    return whole
