# SPDX-License-Identifier: Apache-2.0
"""The steps of a composite: what is put in or taken away, where it is, and what a model is shown.

A step is one element, or a removal, painted by a model. Where it is on every frame follows from its
placing and from what stands in front of it; that says on which frames there is something to do and
what of the plate the model sees. Of a step nothing depends on those in front of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gencomp_protocol.errors import BadMatte
from gencomp_protocol.frames import Box, spell_frames
from gencomp_protocol.layers import BG, DEPTH, ELEMENT, FG_MATTE, HOLDOUT, REMOVE
from gencomp_server.parts import elements
from gencomp_server.parts.lead import format_of
from gencomp_server.parts.pictures import coverage_of, some
from gencomp_server.parts.region import Marks, covered_box, region_of, region_sentence, sides
from gencomp_server.parts.spans import Span, plan_spans
from gencomp_server.placing import MATTE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.backbones import BackboneSpec
    from gencomp_server.contract import Context, Shot
    from gencomp_server.parts.elements import Element

    Floats = NDArray[np.float32]
    Sides = tuple[int, int, int, int]


@dataclass(frozen=True)
class Places:
    """Where something is, frame by frame.

    Attributes:
        boxes: What it lies in: (x0, y0, x1, y1), inclusive pixels of the display window; None on
            frames on which it covers nothing.
        shares: Coverage of the picture, 0..1.
    """

    boxes: tuple[Any, ...]
    shares: tuple[float, ...]

    @property
    def alive(self) -> tuple[bool, ...]:
        """Return on which frames it is."""
        return tuple(box is not None for box in self.boxes)


@dataclass(frozen=True)
class Step:
    """One thing that the model paints.

    Attributes:
        element: What it puts into the plate; None: it removes what the matte ``remove`` covers.
        spans: Frames that are denoised together, by their places in the shot.
        box: What of the plate the model sees: inclusive pixels of the display window.
        size: The model's width and height.
    """

    element: Element | None
    spans: tuple[Span, ...]
    box: Sides
    size: tuple[int, int]

    @property
    def frames(self) -> tuple[int, ...]:
        """Return the places in the shot of the frames that the model is shown. [L]."""
        return tuple(i for span in self.spans for i in range(span.first, span.last + 1))

    @property
    def name(self) -> str:
        """Return what an artist calls it."""
        return REMOVE if self.element is None else self.element.name


# --- where it is ---------------------------------------------------------------------------------


def sources_of_step(shot: Shot, element: Element | None) -> Shot:
    """Return the shot with what a step's pictures come from, and nothing else."""
    if element is None:
        return shot.only(BG, REMOVE)
    return some(shot, *dict.fromkeys((BG, *element.inputs, HOLDOUT, DEPTH)))


def visible(shot: Shot, element: Element, i: int) -> Floats:
    """Return what of an element is seen: as placed, less what stands in front. [H,W,4] float32."""
    if element.sources[i] is None:
        shape = format_of(shot)
        return np.zeros((shape.height, shape.width, 4), np.float32)
    picture = np.asarray(elements.placed(shot, element, i), np.float32)
    held = elements.held_out(shot, element, i)
    return np.asarray(picture * (1 - held), np.float32) if held.any() else picture


def find_places(ctx: Context, shot: Shot, element: Element | None) -> Places:
    """Find where an element, or what is to be removed, is on every frame; the body of a stage."""
    boxes: list[Sides | None] = []
    shares: list[float] = []
    for i, n in enumerate(shot.frames):
        ctx.progress("places", i, len(shot.frames))
        picture = coverage_of(shot, REMOVE, n) if element is None else visible(shot, element, i)
        found = covered_box(np.abs(picture).max(axis=2, keepdims=True))
        boxes.append(None if found is None else sides(found))
        shares.append(round(float(picture[..., -1].mean(dtype=np.float64)), 6))
    return Places(tuple(boxes), tuple(shares))


def plan_step(
    shot: Shot,
    element: Element | None,
    places: Places,
    spec: BackboneSpec,
    size: tuple[int, int],
    *,
    around: bool,
    inflate: float = 0.0,
) -> Step | None:
    """Return what the model is shown for a step; None where there is nothing to do.

    Args:
        shot: The shot, its lead ``bg``.
        element: What is put in; None for a removal.
        places: Where it is.
        spec: The model.
        size: Width and height it works at.
        around: True: it is shown the surroundings of the element, False: the whole frame.
        inflate: How far around the element the plate may change, in plate pixels, where that is
            more than the model was taught.
    """
    spans = plan_spans(places.alive, spec)
    if not spans:
        return None
    boxes, more = [box for box in places.boxes if box is not None], math.ceil(inflate)
    plate = format_of(shot)
    whole = (
        max(min(box[0] for box in boxes) - more, 0),
        max(min(box[1] for box in boxes) - more, 0),
        min(max(box[2] for box in boxes) + more, plate.width - 1),
        min(max(box[3] for box in boxes) + more, plate.height - 1),
    )
    box = region_of(Marks(whole if around else None, ()), plate, size)
    return Step(element, spans, sides(box), size)


def standing(ctx: Context, shot: Shot) -> Element:
    """Return the element that stands in bg already, under ``fg_matte``.

    Raises:
        BadMatte: The matte covers nothing on any frame.
    """
    frames = tuple(shot.frames)
    measured = ctx.stage(
        "element",
        elements.measure,
        shot.only(BG, FG_MATTE),
        source=BG,
        matte=FG_MATTE,
        frames=frames,
        looked_at=frames[:1],
        fg_alpha=MATTE,
        low=0.0,
        high=1.0,
        seeded=False,
    )
    boxes = np.asarray(measured.boxes)
    covers = ~np.isnan(boxes[:, 0])
    if not covers.any():
        raise BadMatte(
            "Input 'fg_matte' covers nothing on any frame, so there is no element in bg.",
            hint="Check its channel and its range.",
            input=FG_MATTE,
        )
    seen = tuple(n if there else None for n, there in zip(frames, covers, strict=True))
    still = np.tile(np.eye(2, 3), (len(frames), 1, 1))
    plate = format_of(shot.only(BG))
    return elements.Element(
        name=ELEMENT,
        input=BG,
        matte_input=FG_MATTE,
        sources=seen,
        matrices=still,
        alpha="fg_matte: the element stands in bg",
        key=measured.key,
        boxes=boxes,
        points=(boxes[:, :2] + boxes[:, 2:]) / 2,
        size=(plate.width, plate.height),
        aspect=plate.pixel_aspect,
    )


def described(
    shot: Shot, element: Element | None, places: Places, step: Step | None
) -> dict[str, Any]:
    """Return what the manifest says of a step: plain data.

    Args:
        shot: The shot.
        element: What is put in; None for a removal.
        places: Where it is.
        step: What the model is shown; None where there is nothing to do.
    """
    frames = [n for n, alive in zip(shot.frames, places.alive, strict=True) if alive]
    shares = [share for share in places.shares if share > 0]
    found: dict[str, Any] = {
        "name": REMOVE if element is None else element.name,
        "frames": spell_frames(frames),
        "share_of_plate": round(sum(shares) / max(1, len(shares)), 6),
    }
    if element is not None:
        found.update(element.report or {"alpha": element.alpha})
    if step is not None:
        says = region_sentence(Box(*step.box), format_of(shot.only(BG)))
        found["region"] = {"box": list(step.box), "says": says}
    return found
