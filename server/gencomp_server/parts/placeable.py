# SPDX-License-Identifier: Apache-2.0
"""What of placing can be refused before a picture has travelled, from the header alone.

Knobs that cannot be read or contradict one another, a scale of 0 or less and at which frame, a
trajectory that leads wholly off the plate, an element that is there on no frame. What needs its
pixels, such as a track that is lost, is refused by ``parts/elements.py`` later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gencomp_protocol.errors import BadKnob, MissingInput
from gencomp_protocol.layers import BG, DEPTH
from gencomp_protocol.motion import check_sections, read_keys, sections
from gencomp_server.parts.elementtime import sources_of
from gencomp_server.placing import (
    KEYS,
    KINDS,
    MATTE,
    SECTIONED,
    TRACK,
    PlacingParams,
    declared,
    input_of,
    keys_of,
    matte_of,
    mode_of,
)

if TYPE_CHECKING:
    from gencomp_protocol.motion import Keys
    from gencomp_protocol.request import Request

_MOST = 1e7


def check_placing(request: Request, params: PlacingParams) -> tuple[str, ...]:
    """Refuse placing that cannot work, from the header alone; return the elements' names.

    Raises:
        BadKnob: A knob cannot be read, contradicts another, has a scale of 0 or less at a frame, or
            leads wholly off the plate.
        BadName, MissingInput, MissingFrame: See :func:`declared` and ``parts/elementtime.py``.
    """
    names = declared(request)
    for knob_name in SECTIONED:
        check_sections(getattr(params, knob_name), names, knob_name)
    for knob_name in KINDS:
        for text in sections(getattr(params, knob_name), knob_name).values():
            _check_numbers(knob_name, read_keys(text, KINDS[knob_name], knob_name))
    if params.luma_high <= params.luma_low:
        raise BadKnob(
            f"Knob 'luma_high' is {params.luma_high:g}, not above luma_low ({params.luma_low:g}).",
            hint="Raise luma_high or lower luma_low.",
            knob="luma_high",
        )
    _check_depth(request, params)
    for name in names:
        lives = [
            n
            for n, own in zip(request.frames, sources_of(request, params, name), strict=True)
            if own is not None
        ]
        _check_matte(request, params, name)
        check_moves(request, params, name, lives)
    return names


def _check_numbers(knob_name: str, keys: Keys) -> None:
    """Refuse numbers that are a slip of the hand; a depth may be any."""
    most = max(abs(value) for values in keys.values for value in values)
    if knob_name != "element_depth" and most > _MOST:
        raise BadKnob(
            f"Knob '{knob_name}' has a value of {most:g}, beyond all that fits a picture.",
            hint=f"Keep it below {_MOST:g}.",
            knob=knob_name,
        )


def _check_depth(request: Request, params: PlacingParams) -> None:
    has_depth, is_set = request.input(DEPTH) is not None, bool(params.element_depth.strip())
    if has_depth and not is_set:
        raise BadKnob(
            "Input 'depth' is connected, but knob 'element_depth' does not say where the element "
            "stands.",
            hint="Set element_depth, or leave depth out.",
            knob="element_depth",
        )
    if is_set and not has_depth:
        raise MissingInput(
            "Knob 'element_depth' is set, but there is no input 'depth' to compare it with.",
            hint="Connect depth, or clear element_depth.",
            input=DEPTH,
        )


def _check_matte(request: Request, params: PlacingParams, name: str) -> None:
    if params.fg_alpha == MATTE and request.input(matte_of(name)) is None:
        raise MissingInput(
            f"Knob 'fg_alpha' is 'fg_matte', but element '{name}' has no input '{matte_of(name)}'.",
            hint="Connect it, or choose where else the alpha comes from.",
            input=matte_of(name),
        )


def check_moves(request: Request, params: PlacingParams, name: str, lives: list[int]) -> None:
    """Refuse how one element moves, as far as no picture is needed for it.

    Args:
        request: The job's request.
        params: Its knobs.
        name: The element.
        lives: The frames of the plate on which it is there.

    Raises:
        BadKnob: See :func:`check_placing`.
    """
    path, matrix = keys_of(params, "trajectory", name), keys_of(params, "transform", name)
    if matrix is not None:
        _check_transform(params, name, matrix, lives, path is not None)
    scale = keys_of(params, "scale", name)
    if scale is not None:
        _check_scale(name, scale, lives)
    if path is not None:
        _check_path(request, params, name, path, lives)
    point = keys_of(params, "anchor_point", name)
    if point is not None and len(point.values) > 1:
        raise BadKnob(
            f"Knob 'anchor_point' has {len(point.values)} points for '{name}'.",
            hint="Write one, as 640,360.",
            knob="anchor_point",
        )


def _check_transform(
    params: PlacingParams, name: str, matrix: Keys, lives: list[int], has_path: bool
) -> None:
    if len(matrix.values) > 1 and not matrix.is_timed:
        raise BadKnob(
            f"Knob 'transform' has {len(matrix.values)} matrices for '{name}' without frames.",
            hint="Write each as a,b,tx,c,d,ty@FRAME.",
            knob="transform",
        )
    plain = {"scale": (1.0,), "rotate": (0.0,), "skew": (0.0,)}
    besides = [
        one
        for one, value in plain.items()
        if (own := keys_of(params, one, name)) is not None and set(own.values) != {value}
    ]
    besides = ["trajectory", *besides] if has_path else besides
    if besides:
        raise BadKnob(
            f"Knobs 'transform' and '{besides[0]}' both say where '{name}' goes.",
            hint=f"Clear one of them; a transform holds {besides[0]} already.",
            knob="transform",
        )
    for n in lives:  # Between keys, too: a mirror that is keyed passes through nothing.
        a, b, _, c, d, _ = matrix.at(n)
        if abs(a * d - b * c) < 1e-12:
            where = f" at frame {n}" if matrix.is_timed else ""
            raise BadKnob(
                f"Knob 'transform' scales '{name}' to nothing{where}.",
                hint="Give it a size above 0.",
                knob="transform",
            )


def _check_scale(name: str, scale: Keys, lives: list[int]) -> None:
    for n in lives:
        (value,) = scale.at(n)
        if value <= 0:
            where = f" at frame {n}" if scale.is_timed else ""
            raise BadKnob(
                f"Knob 'scale' is {value:g} for '{name}'{where}; it must be above 0.",
                hint="Use a small scale such as 0.01, or fg_range to end the element earlier.",
                knob="scale",
            )


def _check_path(
    request: Request, params: PlacingParams, name: str, path: Keys, lives: list[int]
) -> None:
    mode = mode_of(params, name, path)
    plate, entry = request.input(BG), request.input(input_of(name))
    if mode == TRACK and params.track_frame and params.track_frame not in request.frames:
        raise BadKnob(
            f"Knob 'track_frame' is {params.track_frame}, outside the range {request.frames}.",
            hint="Name the frame on which the point was clicked, or 0 for the first.",
            knob="track_frame",
        )
    if plate is None or plate.format is None or not lives:
        return
    wide, high = plate.format.width, plate.format.height
    if mode == TRACK:
        x, y = path.values[0]
        if not (0 <= x < wide and 0 <= y < high):
            raise BadKnob(
                f"Knob 'trajectory': the point {x:g},{y:g} of '{name}' lies off the plate, which "
                f"is {wide}x{high}.",
                hint="Click a point inside the picture.",
                knob="trajectory",
            )
        return
    if entry is None or entry.format is None:
        return
    # An element reaches no further than this from where its anchor is: what is further is off.
    point = keys_of(params, "anchor_point", name)
    beyond = 0.0 if point is None else max(abs(value) for value in point.values[0])
    scale = keys_of(params, "scale", name)
    lean = keys_of(params, "skew", name)
    for i, n in enumerate(lives):
        x, y = point_at(path, mode, n, i, len(lives))
        size = 1.0 if scale is None else scale.at(n)[0]
        size *= 1.0 + (0.0 if lean is None else abs(lean.at(n)[0]))
        reach = 2 * size * (entry.format.width + entry.format.height + beyond)
        if -reach < x < wide + reach and -reach < y < high + reach:
            return
    raise off_the_plate(name, wide, high)


def off_the_plate(name: str, width: int, height: int) -> BadKnob:
    """Return what is said of an element that is on no frame to be seen."""
    return BadKnob(
        f"Element '{name}' lies wholly off the plate on every frame; the plate is "
        f"{width}x{height}.",
        hint="Check trajectory, transform, scale and anchor; y runs down here, and up in Nuke. "
        "gencomp preview draws it, and Draw path on the node.",
        knob="trajectory",
    )


def point_at(path: Keys, mode: str, n: int, index: int, count: int) -> tuple[float, float]:
    """Return where a drawn or keyed trajectory is.

    Args:
        path: The trajectory.
        mode: ``POLYLINE`` or ``KEYS``.
        n: Frame of the plate.
        index: Place of the frame in the element's life.
        count: Frames of its life.
    """
    if mode == KEYS:
        x, y = path.at(n)
    else:
        x, y = path.along(index / (count - 1) if count > 1 else 0.0)
    return x, y
