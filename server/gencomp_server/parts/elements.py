# SPDX-License-Identifier: Apache-2.0
"""Elements of a job, ready to be placed: when each is there, where, how large, and its samples.

What is known of an element is found once (:func:`plan_elements`): its alpha, what of it is covered
on each of its own frames, its way through the plate. Its samples are made a frame at a time, at
plate size (:func:`placed`) or as the model wants them, centred (:func:`centred`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from gencomp_protocol.errors import BadMatte
from gencomp_protocol.frames import spell_frames
from gencomp_protocol.layers import BG
from gencomp_server.parts.elementtime import sources_of
from gencomp_server.parts.infront import held_out
from gencomp_server.parts.keying import Key, choose_key, keyed
from gencomp_server.parts.placeable import off_the_plate
from gencomp_server.parts.placement import (
    about,
    box_through,
    covered_box,
    meets,
    reach_box,
    resampled,
)
from gencomp_server.parts.way import Way
from gencomp_server.placing import (
    LARGE,
    PlacingParams,
    declared,
    input_of,
    keys_of,
    matte_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.contract import Context, Shot
    from gencomp_server.parts.trajectory import Track

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]

__all__ = [
    "Element",
    "Measured",
    "centred",
    "declared",
    "held_out",
    "measure",
    "placed",
    "plan_elements",
]

CANVAS = 1.2
"""Side of the square that an element is centred on, in model heights: 576 of 480 lines."""
MOST_DRIFT_PX = 1.0
"""A track that drifted further may be of another point by then: something passed in front."""
_SMALL, _SMALLER = 0.3, 0.1
_FITS, _FITS_MORE = 0.4, 0.2


@dataclass(frozen=True)
class Measured:
    """What was found of an element's own frames.

    Attributes:
        key: How it gets its alpha.
        frames: Own frames, ascending.
        boxes: What its alpha covers on each, as left, top, right, bottom in element pixels from
            the corner of its format: what its light covers where it has light alone; NaN where
            nothing. [K,4] float64.
        reaches: The same of all that is to be seen of it, to the last soft edge. [K,4] float64.
    """

    key: Key
    frames: tuple[int, ...]
    boxes: Doubles
    reaches: Doubles


@dataclass(frozen=True)
class Element:
    """One element in one shot.

    Attributes:
        name: ``element``, or what the artist called it.
        input: Where its pictures come from.
        matte_input: Where its matte comes from; None where there is none.
        sources: Its own frame at every frame of the job; None where nothing of it is to be seen,
            because it has not begun, is over, is empty or lies outside the plate.
        matrices: From element to plate pixels at every frame. [T,2,3] float64.
        alpha: Which alpha was taken, and why.
        key: The same, to make it.
        boxes: What its alpha covers, in its own pixels, at every frame; NaN where it is not there.
            [T,4] float64.
        points: Where its anchor lies on the plate at every frame. [T,2] float64.
        size: Width and height of its format.
        aspect: Its pixel aspect.
        depths: Depth at which it stands at every frame; empty where nothing says so.
        near_is_large: Whether large depths are near.
        report: What the manifest says of it: plain data.
    """

    name: str
    input: str
    matte_input: str | None
    sources: tuple[int | None, ...]
    matrices: Doubles
    alpha: str
    key: Key
    boxes: Doubles
    points: Doubles
    size: tuple[int, int]
    aspect: float = 1.0
    depths: tuple[float, ...] = ()
    near_is_large: bool = False
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Inputs that its samples depend on."""
        return (self.input,) if self.matte_input is None else (self.input, self.matte_input)


# --- planning -------------------------------------------------------------------------------------


def plan_elements(
    ctx: Context, shot: Shot, params: PlacingParams, *, only: Sequence[int] | None = None
) -> tuple[Element, ...]:
    """Find what there is to know of every element, back to front.

    Args:
        ctx: The run's context; measuring and tracking are stages of it.
        shot: With bg, the elements and their mattes.
        params: The job's knobs, as ``parts.placeable.check_placing`` passed them.
        only: Indices of the frames whose pictures are measured; elsewhere an element that is there
            is taken to cover what it covers on those. None: all.

    Raises:
        BadKnob: An element has no alpha, lies wholly off the plate, or its track is lost.
        BadMatte: An element is empty on every frame.
        MissingFrame, MissingInput: A picture that is shown is not there.
    """
    return tuple(_planned(ctx, shot, params, name, only) for name in declared(shot.request))


def _planned(
    ctx: Context, shot: Shot, params: PlacingParams, name: str, only: Sequence[int] | None
) -> Element:
    source, matte = input_of(name), matte_of(name)
    has_matte = matte if shot.request.input(matte) is not None else None
    times = sources_of(shot.request, params, name)
    shown = sorted({own for own in times if own is not None})
    asked = shown if only is None else sorted({own for i in only if (own := times[i]) is not None})
    measured: Measured = ctx.stage(
        "element",
        measure,
        shot.only(*((source,) if has_matte is None else (source, has_matte))),
        source=source,
        matte=has_matte,
        frames=tuple(asked),
        looked_at=_some_of(shown),
        fg_alpha=params.fg_alpha,
        low=params.luma_low,
        high=params.luma_high,
        seeded=False,
    )
    header, plate = shot.header(source), shot.header(BG)
    size = (header.display_window.width, header.display_window.height)
    boxes = _over_time(times, measured.frames, measured.boxes, size)
    reaches = _over_time(times, measured.frames, measured.reaches, size)
    if np.isnan(measured.boxes).all():
        raise BadMatte(
            f"Element '{name}' is empty on every frame that is shown ({spell_frames(shown)}); its "
            f"alpha is {measured.key.kind}.",
            hint="Check its alpha, fg_alpha and fg_range.",
            input=source,
        )
    aspects = (header.pixel_aspect, plate.pixel_aspect)
    onto = (plate.display_window.width, plate.display_window.height)
    way = Way(shot, params, name, times, boxes, size, onto, aspects)
    matrices, track = way.matrices(ctx)
    if track is not None and track.drift > MOST_DRIFT_PX:
        ctx.warn(_drifted(name, track))
    sources = _seen(times, reaches, matrices, onto)
    if all(own is None for own in sources):
        raise off_the_plate(name, *onto)
    depths = keys_of(params, "element_depth", name)
    return Element(
        name,
        source,
        has_matte,
        sources,
        matrices,
        measured.key.why,
        measured.key,
        boxes,
        way.points(matrices),
        size,
        header.pixel_aspect,
        () if depths is None else tuple(depths.at(n)[0] for n in shot.frames),
        params.depth_near == LARGE,
        _report(shot, sources, times, measured, way, track),
    )


def _drifted(name: str, track: Track) -> str:
    """Return what is said of a track that may have slid off its point."""
    return (
        f"The point that '{name}' is stuck to drifted by {track.drift:.1f} pixels, most at frame "
        f"{track.frames[int(track.returned.argmax())]}; check in gencomp preview that it is still "
        "on its spot."
    )


def _some_of(frames: Sequence[int]) -> tuple[int, ...]:
    """Return the first, middle and last of some frames, each once."""
    return tuple(sorted({frames[0], frames[len(frames) // 2], frames[-1]}))


def measure(
    ctx: Context,
    shot: Shot,
    *,
    source: str,
    matte: str | None,
    frames: tuple[int, ...],
    looked_at: tuple[int, ...],
    fg_alpha: str,
    low: float,
    high: float,
) -> Measured:
    """Find an element's alpha and what it covers on each of its own frames; a stage.

    Args:
        ctx: The run's context.
        shot: With the element and its matte alone.
        source: The element's input.
        matte: Its matte's; None where there is none.
        frames: Own frames to measure.
        looked_at: Own frames that decide which alpha is taken.
        fg_alpha: The knob.
        low: Luma key: luminance up to which nothing is kept.
        high: Luma key: luminance from which all is.

    Raises:
        BadKnob, BadPicture: See ``parts/keying.py``.
    """
    key = choose_key(shot, source, matte, looked_at, fg_alpha=fg_alpha, low=low, high=high)
    boxes, reaches = np.full((2, len(frames), 4), np.nan)
    for i, n in enumerate(frames):
        ctx.check_cancelled()
        ctx.progress("element", i, len(frames))
        pixels, window = keyed(shot, source, matte, n, key)
        display = shot.header(source, n).display_window
        corner = np.array([window.x0 - display.x0, window.y0 - display.y0] * 2)
        seen = np.asarray(np.abs(pixels).max(axis=2), np.float32)
        reach = reach_box(seen)
        if reach is not None:
            box = covered_box(pixels[..., 3]) or covered_box(np.minimum(seen, 1))
            boxes[i], reaches[i] = np.asarray(box) + corner, np.asarray(reach) + corner
    return Measured(key, frames, boxes, reaches)


def _over_time(
    times: Sequence[int | None],
    frames: Sequence[int],
    found: Doubles,
    size: tuple[int, int],
) -> Doubles:
    """Return a box of own frames at every frame; around all of them where unmeasured. [T,4]."""
    known = dict(zip(frames, found, strict=True))
    some = found[~np.isnan(found[:, 0])]
    whole = np.array([0.0, 0.0, *size])
    if len(some):
        whole = np.concatenate([some[:, :2].min(axis=0), some[:, 2:].max(axis=0)])
    nothing = np.full(4, np.nan)
    return np.array([nothing if own is None else known.get(own, whole) for own in times])


def _seen(
    times: Sequence[int | None], boxes: Doubles, matrices: Doubles, onto: tuple[int, int]
) -> tuple[int | None, ...]:
    """Return an element's own frames with None wherever nothing of it is to be seen."""
    return tuple(
        own if not np.isnan(box[0]) and meets(box_through(matrix, box), onto) else None
        for own, box, matrix in zip(times, boxes, matrices, strict=True)
    )


def _report(
    shot: Shot,
    sources: Sequence[int | None],
    times: Sequence[int | None],
    measured: Measured,
    way: Way,
    track: Track | None,
) -> dict[str, Any]:
    """Return what the manifest says of an element."""
    frames = tuple(shot.frames)
    seen = [n for n, own in zip(frames, sources, strict=True) if own is not None]
    lives = [n for n, own in zip(frames, times, strict=True) if own is not None]
    found: dict[str, Any] = {
        "alpha": measured.key.why,
        "path": way.kind,
        "life": spell_frames(lives),
        "seen": spell_frames(seen),
    }
    if track is not None:
        worst = int(track.returned.argmax())
        found["track"] = {
            "clicked": way.params.track_frame or frames[0],
            "drift_px": round(track.drift, 3),
            "worst_step_px": round(float(track.returned[worst]), 3),
            "worst_frame": track.frames[worst],
        }
    return found


# --- samples, a frame at a time -------------------------------------------------------------------


def placed(shot: Shot, element: Element, i: int) -> Floats:
    """Return an element over the plate's display window at the frame of an index.

    Args:
        shot: With bg and the element's inputs.
        element: As planned.
        i: Index of the frame in the job.

    Returns:
        Premultiplied; its own samples, bit for bit, where it moves by whole pixels; zero where it
        is not there. [H,W,4] float32, scene-linear.
    """
    window = shot.header(BG).display_window
    own = element.sources[i]
    if own is None:
        return np.zeros((window.height, window.width, 4), np.float32)
    pixels, corner = _own_picture(shot, element, own)
    return resampled(pixels, corner, element.matrices[i], (window.width, window.height))


def _own_picture(shot: Shot, element: Element, own: int) -> tuple[Floats, tuple[int, int]]:
    """Return an element's own frame, and where its first pixel is from its format's corner."""
    pixels, window = keyed(shot, element.input, element.matte_input, own, element.key)
    display = shot.header(element.input, own).display_window
    return pixels, (window.x0 - display.x0, window.y0 - display.y0)


def centred(shot: Shot, element: Element, i: int, size: tuple[int, int]) -> Floats:
    """Return an element as the model is shown it: on its own, its box in the middle.

    One size for all frames, so that an element that grows, grows: as it stands in its own format,
    made smaller where its largest box would not fit, and twice or four times as large where it
    begins small and has the room.

    Args:
        shot: With the element's inputs.
        element: As planned.
        i: Index of the frame in the job.
        size: Width and height in model pixels.

    Returns:
        Premultiplied, zero where it is not there. [h,w,4] float32, scene-linear.

    Source: gencompositor §B.1 (elements are centred on each frame).
    """
    own = element.sources[i]
    if own is None:
        return np.zeros((size[1], size[0], 4), np.float32)
    pixels, corner = _own_picture(shot, element, own)
    by = _shown_scale(element, size[1])
    x0, y0, x1, y1 = element.boxes[i]
    linear = np.diag([by * element.aspect, by])
    matrix = about(linear, ((x0 + x1) / 2, (y0 + y1) / 2), (size[0] / 2, size[1] / 2))
    return resampled(pixels, corner, matrix, size)


def _shown_scale(element: Element, high: int) -> float:
    """Return model pixels per element pixel: one number over the element's life."""
    own = high / element.size[1]  # As if its format had the model's lines.
    boxes = element.boxes[~np.isnan(element.boxes[:, 0])]
    wide, tall = (boxes[:, 2] - boxes[:, 0]) * element.aspect, boxes[:, 3] - boxes[:, 1]
    shares = np.maximum(wide, tall) * own / (CANVAS * high)
    first, most = float(shares[0]), float(shares.max())
    if most > 1:
        by = 1.0 / (int(most) + 1)
    elif first < _SMALLER and most <= _FITS_MORE:
        by = 4.0
    else:
        by = 2.0 if first < _SMALL and most <= _FITS else 1.0
    return own * by / CANVAS
