# SPDX-License-Identifier: Apache-2.0
"""The picture that an effect is put on: the plate, or ``fg`` over ``bg`` where they come apart.

A system whose ``fg`` is not simply laid over ``bg`` hands on its shot without it: the picture then
is ``bg`` alone. Stages here take a shot with those inputs alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gencomp_protocol.errors import BadPicture
from gencomp_protocol.frames import Box, Format
from gencomp_protocol.layers import BG, FG, PLATE
from gencomp_protocol.request import STILL
from gencomp_server.colour.modelrange import range_of
from gencomp_server.parts.fit import to_model_frame
from gencomp_server.parts.grainmeter import frames_to_measure, measure_grain
from gencomp_server.parts.pictures import in_type, to_model_range
from gencomp_server.parts.region import crop
from gencomp_server.parts.stack import over
from gencomp_server.parts.window import finite, onto_display

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.contract import Context, PictureHeader, Shot
    from gencomp_server.parts.grain import Grain

    Floats = NDArray[np.float32]


def lead(shot: Shot) -> tuple[str, ...]:
    """Return the inputs that the picture comes from."""
    if PLATE in shot.names:
        return (PLATE,)
    return (FG, BG) if FG in shot.names else (BG,)


def format_of(shot: Shot) -> Format:
    """Return the picture's format."""
    header = shot.header(lead(shot)[-1])
    window = header.display_window
    return Format(window.width, window.height, header.pixel_aspect)


def report_size(ctx: Context, size: tuple[int, int], plate: Format) -> None:
    """Report at which size the model works, as numbers and in words.

    Args:
        ctx: The run's context.
        size: The model's width and height in pixels.
        plate: Format of the plate.
    """
    ctx.report("model_size", list(size))
    ctx.report(
        "worked_at",
        f"The model worked at {size[0]}x{size[1]}, the plate has {plate}: what it saw was fitted "
        "to that and what it made brought back to the plate's pixels, nothing cropped or padded.",
    )


def composite(shot: Shot, n: int) -> tuple[NDArray[Any], PictureHeader]:
    """Return the picture's own samples over its data window; fg over bg in bg's type.

    The window of the latter holds bg's and what of fg lies inside the picture.

    Raises:
        BadPicture: The foreground has no alpha.
    """
    if len(lead(shot)) == 1:
        (name,) = lead(shot)
        return shot.frame(name, n), shot.header(name, n)
    front, under = shot.header(FG, n), shot.header(BG, n)
    entry = shot.request.input(BG)
    if entry is not None and entry.cover == STILL:  # A still's time code is that of one frame.
        under = replace(under, metadata=front.metadata)
    if "A" not in front.channels:
        raise BadPicture(
            f"Input 'fg' frame {n} has no alpha, so it cannot go over bg.",
            hint="Render it as premultiplied RGBA, or connect the finished composite as plate.",
            input=FG,
            frame=n,
        )
    window = _around(under.data_window, front.data_window.intersect(under.display_window))
    pairs = ((FG, front), (BG, under))
    element, below = (
        np.asarray(onto_display(shot.frame(name, n), header.data_window, window), np.float32)
        for name, header in pairs
    )
    made = in_type(over(element, below), under.pixel_type)
    return made, replace(under, data_window=window)


def _around(a: Box, b: Box | None) -> Box:
    """Return the least box that holds both: a cropped bg cuts nothing off its foreground."""
    if b is None:
        return a
    return Box(min(a.x0, b.x0), min(a.y0, b.y0), max(a.x1, b.x1), max(a.y1, b.y1))


def on_display(shot: Shot, name: str, n: int) -> NDArray[Any]:
    """Return one input's own samples over the picture's display window. [H,W,C]."""
    window = shot.header(lead(shot)[-1], n).display_window
    return onto_display(shot.frame(name, n), shot.header(name, n).data_window, window)


def composite_linear(shot: Shot, n: int) -> Floats:
    """Return the picture's colour over its display window, finite. [H,W,3] float32."""
    pixels, header = composite(shot, n)
    return finite(onto_display(pixels, header.data_window, header.display_window)[..., :3])


# --- stages --------------------------------------------------------------------------------------


def prepare(
    ctx: Context,
    shot: Shot,
    *,
    box: tuple[int, int, int, int],
    size: tuple[int, int],
    colour: str,
    exposure: float,
) -> Floats:
    """Bring a box of the picture to model size and range.

    Args:
        ctx: The run's context.
        shot: With the picture's inputs alone.
        box: Inclusive pixels of the display window.
        size: The model's width and height.
        colour: Identity of the model range, for the key.
        exposure: Stops by which the model sees the picture brighter.

    Returns:
        [T,h,w,3] float32, -1..1.
    """
    seen = range_of(shot.request, exposure)
    video = np.empty((len(shot.frames), size[1], size[0], 3), np.float32)
    for i, n in enumerate(shot.frames):
        ctx.progress("prepare", i, len(shot.frames))
        light = to_model_frame(crop(composite_linear(shot, n), Box(*box)), size)
        video[i] = to_model_range(light, seen)
    return video


def grain_of(ctx: Context, shot: Shot) -> Grain:
    """Measure the picture's grain on a few frames."""
    frames = tuple(shot.frames)
    return measure_grain(composite_linear(shot, frames[i]) for i in frames_to_measure(len(frames)))
