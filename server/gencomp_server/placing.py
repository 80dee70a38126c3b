# SPDX-License-Identifier: Apache-2.0
"""What a system that places elements says of them: inputs, knobs, and what a header can refuse.

An element is a picture sequence with a time and a format of its own. Its inputs are ``fg``, for
one, or ``fg.NAME`` for several, back to front. How a knob's text is read is in
``gencomp_protocol/motion.py``; positions are in the plate's pixels from its upper left corner, y
down. Free of torch and of picture libraries: a plan is made from it, where none is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from gencomp_protocol.errors import BadKnob, MissingInput
from gencomp_protocol.frames import FrameRange
from gencomp_protocol.layers import (
    DEPTH,
    ELEMENT,
    FG,
    FG_MATTE,
    FG_MATTE_PREFIX,
    FG_PREFIX,
    HOLDOUT,
    check_object_names,
)
from gencomp_protocol.motion import (
    CURVE,
    MATRIX,
    PATH,
    Keys,
    read_keys,
    section_of,
)
from gencomp_protocol.request import SEQUENCE, STILL, Request
from gencomp_server.contract import Input, knob
from gencomp_server.finishing import BoundParams

# How an element gets its alpha.
AUTO = "auto"
ALPHA, MATTE, UNMULT, LUMA, WHOLE = "alpha", "fg_matte", "unmult", "luma key", "whole box"
# How a trajectory is meant.
POLYLINE, TRACK, KEYS = "polyline", "track", "keys"
# Which point of an element lies on its trajectory.
FORMAT_POINT, BOX_CENTRE, BOTTOM_CENTRE = "format point", "box centre", "bottom centre"
# What is shown of an element before its first and after its last picture.
BLACK, HOLD, LOOP = "black", "hold", "loop"
SHIPPED, NORMALISED = "shipped", "normalised"
SMALL, LARGE = "small", "large"

MOST_ELEMENTS = 8

ELEMENT_INPUTS = (
    Input(
        FG,
        "rgba",
        "The element: its own frames, its own format, scene-linear, premultiplied where it has an "
        "alpha.",
        optional=True,
        covers=(SEQUENCE, STILL),
        own_frames=True,
        own_format=True,
    ),
    Input(
        FG_PREFIX + "*",
        "rgba",
        "Several elements instead of fg, back to front.",
        optional=True,
        most=MOST_ELEMENTS,
        covers=(SEQUENCE, STILL),
        own_frames=True,
        own_format=True,
    ),
    Input(
        FG_MATTE,
        "matte",
        "The element's matte, of its own frames and format; its colour is multiplied by it.",
        optional=True,
        covers=(SEQUENCE, STILL),
        own_frames=True,
        own_format=True,
    ),
    Input(
        FG_MATTE_PREFIX + "*",
        "matte",
        "The matte of one of several elements.",
        optional=True,
        most=MOST_ELEMENTS,
        covers=(SEQUENCE, STILL),
        own_frames=True,
        own_format=True,
    ),
)
HOLDOUT_INPUT = Input(
    HOLDOUT,
    "matte",
    "1 where something of the plate stands in front of every element.",
    optional=True,
    covers=(SEQUENCE, STILL),
)
DEPTH_INPUT = Input(
    DEPTH,
    "data",
    "The plate's depth; what is nearer than element_depth stands in front.",
    optional=True,
    covers=(SEQUENCE, STILL),
)


@dataclass(frozen=True)
class PlacingParams(BoundParams):
    """Knobs of every system that places elements in a plate."""

    fg_alpha: str = knob(
        AUTO,
        choices=(AUTO, ALPHA, MATTE, UNMULT, LUMA, WHOLE),
        tab="Element",
        doc="Where the element's alpha comes from. auto: fg_matte where it is connected, else its "
        "own alpha where that is not full everywhere, else unmult where it stands on black; the "
        "manifest says which. Never the whole box unless you say so.",
    )
    luma_low: float = knob(
        0.02,
        lo=0.0,
        hi=64.0,
        tab="Element",
        doc="Luma key: luminance up to which nothing is kept, scene-linear.",
    )
    luma_high: float = knob(
        0.2,
        lo=0.0001,
        hi=64.0,
        tab="Element",
        doc="Luma key: luminance from which the element is opaque, scene-linear.",
    )
    fg_start: str = knob(
        "",
        tab="Element",
        doc="Frame of the plate at which the element begins. Empty: it plays at its own frame "
        "numbers where those meet the range, else from the first frame on.",
    )
    fg_range: str = knob(
        "",
        tab="Element",
        doc="Which of the element's own frames to use, as 1-36. Empty: all.",
    )
    fg_speed: str = knob(
        "1",
        tab="Element",
        doc="Its own frames per frame of the plate: 0.5 is half speed, 0 a freeze, -1 backwards. A "
        "curve (1@1001; 0.2@1040) ramps.",
    )
    fg_before: str = knob(
        BLACK,
        choices=(BLACK, HOLD, LOOP),
        tab="Element",
        doc="Before it begins: not there, its first frame held, or looped.",
    )
    fg_after: str = knob(
        BLACK,
        choices=(BLACK, HOLD, LOOP),
        tab="Element",
        doc="After its last frame: not there, its last frame held, or looped.",
    )
    trajectory: str = knob(
        "",
        tab="Placement",
        doc="Where the element goes, in plate pixels: points of a line (100,200; 300,220), one "
        "point to be tracked through the shot, or positions at frames (100,200@1001; ...). Empty: "
        "its format centred on the plate.",
    )
    trajectory_mode: str = knob(
        AUTO,
        choices=(AUTO, POLYLINE, TRACK, KEYS),
        tab="Placement",
        doc="How trajectory is meant. auto: one point is tracked, several are a line walked over "
        "the element's life, points at frames are keys.",
    )
    track_frame: int = knob(
        0,
        lo=-1_000_000,
        hi=10_000_000,
        tab="Placement",
        doc="Frame on which a single point was clicked; 0: the first of the range.",
    )
    transform: str = knob(
        "",
        tab="Placement",
        doc="Instead of all else here: a 2x3 matrix a,b,tx,c,d,ty from element to plate pixels, "
        "or one at every frame (…@1001; …), as a baked Transform gives them.",
    )
    scale: str = knob(
        "1",
        tab="Placement",
        doc="Size about the anchor, above 0: plate pixels per element pixel; a curve animates it.",
    )
    rotate: str = knob(
        "0",
        tab="Placement",
        doc="Degrees about the anchor, counter-clockwise as seen; a curve animates it.",
    )
    skew: str = knob(
        "0",
        tab="Placement",
        doc="How far the element leans: pixels to the right per pixel up; a curve animates it.",
    )
    anchor: str = knob(
        FORMAT_POINT,
        choices=(FORMAT_POINT, BOX_CENTRE, BOTTOM_CENTRE),
        tab="Placement",
        doc="Which point of the element lies on the trajectory: a fixed point of its format, or "
        "the centre or bottom centre of what its alpha covers on each frame.",
    )
    anchor_point: str = knob(
        "",
        tab="Placement",
        doc="That fixed point as x,y in the element's pixels. Empty: the centre of its format.",
    )
    inflate: float = knob(
        0.0,
        lo=0.0,
        hi=1024.0,
        tab="Placement",
        doc="How far around the element the plate may change, in plate pixels. 0: as the model was "
        "trained, 25 pixels in a picture of 480 lines.",
    )
    inflate_kernel: str = knob(
        SHIPPED,
        choices=(SHIPPED, NORMALISED),
        tab="Placement",
        doc="How the element's matte is widened. shipped: to exactly that reach. normalised: by a "
        "Gaussian that sums to one and inflate_threshold, which rounds corners and drops specks.",
    )
    inflate_threshold: float = knob(
        0.02,
        lo=0.0001,
        hi=0.9999,
        tab="Placement",
        doc="With the normalised kernel: how much of it must lie on the element. Lower is wider.",
    )
    element_depth: str = knob(
        "",
        tab="Placement",
        doc="Depth at which the element stands, in the unit of the input depth; a curve animates "
        "it.",
    )
    depth_near: str = knob(
        SMALL,
        choices=(SMALL, LARGE),
        tab="Placement",
        doc="Whether small or large values of depth are near the camera. Zero, NaN and infinite "
        "are nothing at all.",
    )


KINDS = {
    "trajectory": PATH,
    "transform": MATRIX,
    "scale": CURVE,
    "rotate": CURVE,
    "skew": CURVE,
    "anchor_point": PATH,
    "fg_start": CURVE,
    "fg_speed": CURVE,
    "element_depth": CURVE,
}
"""How the text of a knob is read."""
SECTIONED = (*KINDS, "fg_range")
"""Knobs that may say something else of every element."""


# --- which elements there are ---------------------------------------------------------------------


def declared(request: Request) -> tuple[str, ...]:
    """Return the names of a request's elements, back to front; none where it has no fg.

    Raises:
        BadName: A name cannot be a layer.
        MissingInput: fg and fg.NAME are both connected, or a matte has no element.
    """
    named = request.named(FG_PREFIX)
    is_single = request.input(FG) is not None
    if is_single and named:
        raise MissingInput(
            f"Inputs 'fg' and 'fg.{named[0]}' are both connected.",
            hint="Connect fg for one element, or fg.NAME for each of several.",
            input=FG,
        )
    names = (ELEMENT,) if is_single else check_object_names(named, "element")
    mattes = {FG_MATTE} if request.input(FG_MATTE) is not None else set()
    mattes |= {FG_MATTE_PREFIX + name for name in request.named(FG_MATTE_PREFIX)}
    lone = sorted(mattes - {matte_of(name) for name in names})
    if lone:
        own = lone[0].replace(FG_MATTE, FG, 1)
        raise MissingInput(
            f"Input '{lone[0]}' is connected, but its element '{own}' is not.",
            hint=f"Connect {own}, or leave the matte out.",
            input=own,
        )
    return names


def input_of(name: str) -> str:
    """Return the input that an element comes from."""
    return FG if name == ELEMENT else FG_PREFIX + name


def matte_of(name: str) -> str:
    """Return the input that an element's matte would come from."""
    return FG_MATTE if name == ELEMENT else FG_MATTE_PREFIX + name


# --- reading the knobs of one element -------------------------------------------------------------


def keys_of(params: PlacingParams, knob_name: str, name: str) -> Keys | None:
    """Return what a knob says of an element, read; None where it says nothing.

    Raises:
        BadKnob: It cannot be read.
    """
    text = section_of(getattr(params, knob_name), name, knob_name)
    return read_keys(text, KINDS[knob_name], knob_name) if text else None


def idle_knobs(params: PlacingParams) -> tuple[str, ...]:
    """Return what was set of how an element is placed, for a job that places none."""
    return tuple(
        one.name
        for one in fields(PlacingParams)
        if one.name in PlacingParams.__annotations__
        and not one.name.startswith("inflate")
        and getattr(params, one.name) != one.default
    )


def range_of_element(params: PlacingParams, name: str) -> FrameRange | None:
    """Return which of an element's own frames are used; None for all.

    Raises:
        BadKnob: ``fg_range`` cannot be read.
    """
    text = section_of(params.fg_range, name, "fg_range")
    if not text:
        return None
    try:
        return FrameRange.parse(text)
    except BadKnob as error:
        raise BadKnob(
            f"Knob 'fg_range' of '{name}': {error.message}", hint=error.hint, knob="fg_range"
        ) from error


def mode_of(params: PlacingParams, name: str, path: Keys) -> str:
    """Return how an element's trajectory is meant.

    Raises:
        BadKnob: ``trajectory_mode`` asks for what the points are not.
    """
    mode = params.trajectory_mode
    if mode == AUTO:
        return KEYS if path.is_timed else (TRACK if len(path.values) == 1 else POLYLINE)
    if (mode == KEYS) != path.is_timed:
        words = "have frames" if path.is_timed else "have no frames"
        raise _bad_mode(mode, f"the points of '{name}' {words}")
    if mode == TRACK and len(path.values) > 1:
        raise _bad_mode(mode, f"the trajectory of '{name}' has {len(path.values)} points")
    return mode


def _bad_mode(mode: str, why: str) -> BadKnob:
    return BadKnob(
        f"Knob 'trajectory_mode' is '{mode}', but {why}.",
        hint="Use auto, or write the trajectory to match: x,y for a point to track, x,y; x,y for "
        "a line, x,y@FRAME for keys.",
        knob="trajectory_mode",
    )
