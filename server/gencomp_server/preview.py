# SPDX-License-Identifier: Apache-2.0
"""A picture of where elements go: path, placed box and the area that may change, over bg.

::

    title, and a line for every element
    1040               1058               1075
    [ bg, element,     [             ]    [             ]
      path, box, area ]

The first, middle and last frame on which anything is to be seen. It is made by the very functions
that a job calls (``parts/elements.py``, ``parts/compositing.py``), so that what it shows is what
the job does; only what an element covers between those frames is taken from those that were read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from gencomp_protocol.errors import BadKnob
from gencomp_protocol.frames import Box, Format
from gencomp_protocol.layers import BG, FG, FG_PREFIX
from gencomp_server.backbones import AUTO, SPECS, BackboneSpec, model_size
from gencomp_server.colour.modelrange import range_of
from gencomp_server.fileshot import Desk
from gencomp_server.finishing import AROUND_MASK
from gencomp_server.parts.bounds import margin_px, reached
from gencomp_server.parts.compositing import draw_masks, inflate_px
from gencomp_server.parts.elements import Element, held_out, placed, plan_elements
from gencomp_server.parts.elementtime import sources_of
from gencomp_server.parts.fit import to_model_frame
from gencomp_server.parts.inflate import THRESHOLD
from gencomp_server.parts.pictures import linear
from gencomp_server.parts.placement import box_through
from gencomp_server.parts.region import crop
from gencomp_server.parts.stack import over
from gencomp_server.parts.steps import Places, plan_step
from gencomp_server.placing import SHIPPED, PlacingParams, declared
from gencomp_server.sheet import Shown, draw_text, show_opaque, thumbnail, write_sheet

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.contract import Shot

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]
    Bools = NDArray[np.bool_]
    Picture8 = NDArray[np.uint8]

_PANEL_PX = 560
_MARGIN_PX, _GAP_PX, _LINE_PX = 24, 12, 22
_FIELD, _INK, _DIM = 26, (216, 216, 216), (140, 140, 140)
# 8-bit inks of the elements, back to front, over and over.
_INKS = ((255, 176, 64), (96, 208, 255), (176, 255, 96), (255, 112, 208))
_TINT = 0.16
_LEGEND = (
    "line: path of the anchor   box: what it covers, dim: its format   "
    "tinted: may change, which fades out to the dim line"
)
_SUBPIXEL_BITS = 4


@dataclass(frozen=True)
class _Panel:
    """How plate pixels become pixels of a panel: by a factor for each axis."""

    width: int
    height: int
    x: float
    y: float

    def points(self, places: Doubles) -> NDArray[np.int32]:
        """Return places as cv2 draws them, in sixteenths of a pixel. [n,1,2]."""
        middle = places * (self.x, self.y) - 0.5
        scaled = np.clip(middle, -1e4, 1e4) * (1 << _SUBPIXEL_BITS)
        return np.rint(scaled).astype(np.int32).reshape(-1, 1, 2)


def preview(path: Path, title: str, shot: Shot, params: PlacingParams) -> tuple[str, ...]:
    """Write the preview of a job.

    Args:
        path: PNG to write.
        title: One line at the top.
        shot: With bg, the elements and what stands in front.
        params: The job's knobs, checked.

    Returns:
        What is to be said of every element, a line each, and warnings.

    Raises:
        ArtistError: See ``parts/elements.py``.
        UnwritableOutput: The picture cannot be written.
    """
    if shot.request.input(FG) is None and not shot.request.named(FG_PREFIX):
        raise BadKnob(
            "There is no element to show the way of.",
            hint="Name one with --input fg=element.%04d.exr.",
        )
    names = declared(shot.request)
    lives = [sources_of(shot.request, params, name) for name in names]
    alive = [i for i in range(len(shot.frames)) if any(life[i] is not None for life in lives)]
    # Each element is looked at on frames of its own, or there would be nothing to know it by.
    looked = {
        i for life in lives for i in _three([i for i, own in enumerate(life) if own is not None])
    }
    looked |= set(_three(alive))
    desk = Desk(params.seed)
    elements = plan_elements(desk, shot, params, only=sorted(looked))
    seen = [i for i in alive if any(one.sources[i] is not None for one in elements)]
    panels = [_panel(shot, params, elements, i) for i in _three(seen)]
    frames = tuple(shot.frames)
    lines = tuple(_line(one) for one in elements)
    sheet = _sheet(title, lines, [str(frames[i]) for i in _three(seen)], panels)
    write_sheet(path, sheet)
    return (*lines, *(f"warning: {sentence}" for sentence in desk.warnings))


def _three(indices: Sequence[int]) -> tuple[int, ...]:
    """Return the first, middle and last, each once."""
    picks = (0, len(indices) // 2, len(indices) - 1) if indices else ()
    return tuple(sorted({indices[k] for k in picks}))


def _line(element: Element) -> str:
    """Return what is said of an element."""
    told = element.report
    track = told.get("track")
    more = f", drift {track['drift_px']:.2f} px" if track else ""
    return (
        f"{element.name}: {told['path']}{more}; seen {told['seen']}; {element.size[0]}x"
        f"{element.size[1]}; {element.alpha}"
    )


# --- one panel ------------------------------------------------------------------------------------


def _panel(shot: Shot, params: PlacingParams, elements: Sequence[Element], i: int) -> Picture8:
    """Return one frame with everything drawn into it."""
    header, n = shot.header(BG), tuple(shot.frames)[i]
    window = header.display_window
    light = linear(shot, BG, n)
    fronts = [held_out(shot, one, i) for one in elements]
    for one, front in zip(elements, fronts, strict=True):
        light = np.asarray(over(placed(shot, one, i) * (1 - front), light), np.float32)
    wide = window.width * header.pixel_aspect
    by = _PANEL_PX / max(wide, window.height)
    size = (max(8, round(wide * by)), max(8, round(window.height * by)))
    panel = _Panel(*size, size[0] / window.width, size[1] / window.height)
    whole = Box(0, 0, window.width - 1, window.height - 1)
    shown = Shown(range_of(shot.request).seen(light), whole, whole)
    picture = show_opaque(*thumbnail(shown, size))
    for k, (one, front) in enumerate(zip(elements, fronts, strict=True)):
        ink = np.array(_INKS[k % len(_INKS)])
        if one.sources[i] is not None:
            _draw_area(picture, *_area(shot, params, one, i, front), ink)
            _draw_boxes(picture, panel, one, i, ink)
        _draw_path(picture, panel, one, i, ink)
    return picture


def _area(
    shot: Shot, params: PlacingParams, element: Element, i: int, front: Floats
) -> tuple[Bools, Bools]:
    """Return where the plate may change, as the model is told it, and how far that fades out.

    Both over the display window. [H,W] bool.
    """
    window = shot.header(BG).display_window
    plate = Format(window.width, window.height, shot.header(BG).pixel_aspect)
    spec = _spec(shot.request.system, params.backbone)
    size = model_size(spec, plate, params.model_size)
    around = params.region == AROUND_MASK
    step = plan_step(
        shot, element, _places(element, plate), spec, size, around=around, inflate=params.inflate
    )
    assert step is not None, "an element that is nowhere is refused before"
    box, seen = Box(*step.box), placed(shot, element, i) * (1 - front)
    cover = np.clip(seen.max(axis=2, keepdims=True), 0, 1)
    cover, held = (to_model_frame(crop(one, box), size) for one in (cover, front))
    masks = draw_masks(
        Desk(),
        cover[None],
        held[None],
        inflate_px=inflate_px(params.inflate, step.box, size),
        kernel=params.inflate_kernel,
        threshold=THRESHOLD if params.inflate_kernel == SHIPPED else params.inflate_threshold,
    )
    part = (box.width, box.height)
    grown = (reached(masks[0], params.mask_grow - margin_px(size, part)) > 0) & (held[..., 0] < 1)
    areas = np.zeros((2, window.height, window.width), np.bool_)
    for area, mask in zip(areas, (masks[0], grown), strict=True):
        drawn = cv2.resize(mask.astype(np.uint8), part, interpolation=cv2.INTER_NEAREST)
        area[box.y0 : box.y1 + 1, box.x0 : box.x1 + 1] = np.asarray(drawn) > 0
    return areas[0], areas[1]


def _places(element: Element, plate: Format) -> Places:
    """Return where an element is on every frame, by its boxes alone."""
    boxes: list[tuple[int, int, int, int] | None] = []
    pairs = zip(element.sources, element.matrices, element.boxes, strict=True)
    for source, matrix, own in pairs:
        if source is None:
            boxes.append(None)
            continue
        x0, y0, x1, y1 = box_through(matrix, own)
        low = (max(math.floor(x0), 0), max(math.floor(y0), 0))
        high = (min(math.ceil(x1), plate.width) - 1, min(math.ceil(y1), plate.height) - 1)
        corner = (min(low[0], plate.width - 1), min(low[1], plate.height - 1))
        boxes.append((*corner, max(high[0], corner[0]), max(high[1], corner[1])))
    return Places(tuple(boxes), (0.0,) * len(boxes))


def _spec(system: str, asked: str) -> BackboneSpec:
    """Return the model whose size decides the area: the one asked for, else the trained one."""
    own = [spec for spec in SPECS if system in spec.systems and not spec.is_tiny]
    named = [spec for spec in SPECS if spec.name == asked and asked != AUTO]
    return (named or sorted(own, key=lambda spec: system not in spec.trained_for))[0]


def _draw_area(picture: Picture8, area: Bools, fades: Bools, ink: NDArray[np.int_]) -> None:
    """Tint an area, draw its outline and, dimmer, that of what it fades out over; in place."""
    high, wide = picture.shape[:2]
    near, far = (
        np.asarray(
            cv2.resize(one.astype(np.float32), (wide, high), interpolation=cv2.INTER_AREA),
            np.float32,
        )
        for one in (area, fades)
    )
    tint = near[..., None] * _TINT
    picture[:] = np.asarray(picture * (1 - tint) + ink * tint + 0.5, np.uint8)
    for share, colour in ((far, ink // 2), (near, ink)):
        inside = (share >= 0.5).astype(np.uint8)
        lines, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, lines, -1, colour.tolist(), 1, cv2.LINE_AA)


def _draw_boxes(
    picture: Picture8, panel: _Panel, element: Element, i: int, ink: NDArray[np.int_]
) -> None:
    """Draw what an element covers, and its format dimmer, as they lie in the plate; in place."""
    format_box = (0.0, 0.0, float(element.size[0]), float(element.size[1]))
    for box, colour in ((format_box, ink // 2), (element.boxes[i], ink)):
        x0, y0, x1, y1 = box
        corners = np.array([[x0, x1, x1, x0], [y0, y0, y1, y1], [1.0] * 4])
        places = panel.points((element.matrices[i] @ corners).T)
        cv2.polylines(picture, [places], True, colour.tolist(), 1, cv2.LINE_AA, _SUBPIXEL_BITS)


def _draw_path(
    picture: Picture8, panel: _Panel, element: Element, i: int, ink: NDArray[np.int_]
) -> None:
    """Draw where the anchor goes over the element's life, and where it is now; in place."""
    lives = [k for k, own in enumerate(element.sources) if own is not None]
    places = panel.points(element.points[lives[0] : lives[-1] + 1])
    cv2.polylines(picture, [places], False, (0, 0, 0), 4, cv2.LINE_AA, _SUBPIXEL_BITS)
    cv2.polylines(picture, [places], False, ink.tolist(), 2, cv2.LINE_AA, _SUBPIXEL_BITS)
    if element.sources[i] is None:
        return
    centre = panel.points(element.points[i : i + 1])[0, 0].tolist()
    for radius, colour in ((5, (0, 0, 0)), (3, (255, 255, 255))):
        cv2.circle(
            picture, centre, radius << _SUBPIXEL_BITS, colour, -1, cv2.LINE_AA, _SUBPIXEL_BITS
        )


def _sheet(
    title: str, lines: Sequence[str], labels: Sequence[str], panels: Sequence[Picture8]
) -> Picture8:
    """Lay panels side by side below what is said."""
    high, wide = panels[0].shape[:2]
    head = _MARGIN_PX + _LINE_PX * (len(lines) + 3) + 4
    width = 2 * _MARGIN_PX + len(panels) * (wide + _GAP_PX) - _GAP_PX
    sheet = np.full((head + high + _MARGIN_PX, max(width, 3 * _PANEL_PX // 2), 3), _FIELD, np.uint8)
    draw_text(sheet, title, _MARGIN_PX, _MARGIN_PX, 14, _INK)
    for k, line in enumerate(lines):
        draw_text(
            sheet, line, _MARGIN_PX, _MARGIN_PX + (k + 1) * _LINE_PX, 11, _INKS[k % len(_INKS)]
        )
    below = _MARGIN_PX + (len(lines) + 1) * _LINE_PX
    draw_text(sheet, _LEGEND, _MARGIN_PX, below, 10, _DIM)
    for k, (label, panel) in enumerate(zip(labels, panels, strict=True)):
        x = _MARGIN_PX + k * (wide + _GAP_PX)
        draw_text(sheet, label, x, head - 14, 11, _DIM)
        sheet[head : head + high, x : x + wide] = panel
    return sheet
