# SPDX-License-Identifier: Apache-2.0
"""What two pictures have in common: their samples laid over one another, and which pixels count.

::

    ┌ data window of A ─────────┐
    │   ┌ display window ┐      │      compared: the display window, and of what lies outside it
    │ ┌ data window of B ┼────┐ │      (overscan) what both pictures hold
    │ └─┼────────────────┼────┘ │
    │   └────────────────┘      │
    └───────────────────────────┘

Inside the display window a pixel that a file leaves out is black and transparent, as EXR means it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencomp_protocol.errors import FormatMismatch
from gencomp_protocol.frames import Box
from gencomp_server.colour.modelrange import ModelRange
from gencomp_server.exr.decode import picture_label
from gencomp_server.exr.read import MappedPicture
from gencomp_server.metrics.display import REC709_LIGHT

Bools = NDArray[np.bool_]

# A mask covers a pixel from here on.
COVERED = 0.5


@dataclass(frozen=True)
class Overlap:
    """Two pictures over one box.

    Attributes:
        a: [H,W,C] float16 or float32, scene-linear or coverage, unbounded; read-only.
        b: As ``a``, of its own type.
        counted: Pixels that the figures are of. [H,W] bool.
        there: Pixels that both pictures have. [H,W] bool; holds all of ``counted``.
        box: Where the arrays lie; (0, 0) is the corner of the display window.
        colours: How many of the channels are colour: 3, or 1 for coverage; a fourth is alpha.
        light: What light of these samples' working space is in Linear Rec.709.
    """

    a: NDArray[Any]
    b: NDArray[Any]
    counted: Bools
    there: Bools
    box: Box
    colours: int
    light: ModelRange = REC709_LIGHT

    @property
    def same_type(self) -> bool:
        """Tell whether both hold samples of one type."""
        return bool(self.a.dtype == self.b.dtype)


def overlap(
    a: MappedPicture,
    b: MappedPicture,
    mask: MappedPicture | None,
    frame: int | None = None,
    light: ModelRange = REC709_LIGHT,
) -> Overlap:
    """Lay two pictures over one another.

    Args:
        a: R, G, B and maybe A; or one channel.
        b: As ``a``.
        mask: One channel; a pixel counts where it is 0.5 or more. None counts every pixel.
        frame: Their frame, for sentences.
        light: How their light is brought to Linear Rec.709.

    Raises:
        FormatMismatch: Display windows differ in size, or one picture has colour, the other not.
    """
    check_formats(a, b, "B", frame)
    channels = min(len(a.header.channels), len(b.header.channels))
    if (len(a.header.channels) == 1) != (len(b.header.channels) == 1):
        raise FormatMismatch(
            f"{picture_label('A', frame)} holds {', '.join(a.header.channels)}, "
            f"B holds {', '.join(b.header.channels)}.",
            hint="Compare one channel of each: write it behind a colon, as FILE.%04d.exr:alpha.",
        )
    frame_box = _moved(a.header.display_window, a)
    both = _moved(a.header.data_window, a).intersect(_moved(b.header.data_window, b))
    box = frame_box if both is None else _hull(frame_box, both)
    there = np.zeros((box.height, box.width), bool)
    for part in (frame_box, both):
        if part is not None:
            there[_inside(part, box)] = True
    counted = there
    if mask is not None:
        check_formats(a, mask, "mask", frame)
        counted = there & (_placed(mask, box, 1)[..., 0] >= COVERED)
    return Overlap(
        _placed(a, box, channels),
        _placed(b, box, channels),
        counted,
        there,
        box,
        min(channels, 3),
        light,
    )


def on_display(picture: MappedPicture) -> NDArray[Any]:
    """Return a picture over its display window, black where it has no pixels.

    Returns:
        [H,W,C] of the picture's own type; read-only.
    """
    return _placed(
        picture, _moved(picture.header.display_window, picture), len(picture.header.channels)
    )


def covered(mask: MappedPicture) -> Bools:
    """Return where a mask covers, over its display window. [H,W] bool."""
    found: Bools = on_display(mask)[..., 0] >= COVERED
    return found


def check_formats(a: MappedPicture, other: MappedPicture, name: str, frame: int | None) -> None:
    """Refuse a picture whose display window has another size than that of A.

    Raises:
        FormatMismatch: It has.
    """
    sizes = [one.header.display_window for one in (a, other)]
    if (sizes[0].width, sizes[0].height) != (sizes[1].width, sizes[1].height):
        words = [f"{size.width}x{size.height}" for size in sizes]
        raise FormatMismatch(
            f"{picture_label('A', frame)} is {words[0]}, {name} is {words[1]}.",
            hint="Bring both to one format first.",
        )


def _moved(box: Box, picture: MappedPicture) -> Box:
    """Return a picture's box counted from the corner of its own display window."""
    corner = picture.header.display_window
    return Box(box.x0 - corner.x0, box.y0 - corner.y0, box.x1 - corner.x0, box.y1 - corner.y0)


def _hull(one: Box, other: Box) -> Box:
    return Box(
        min(one.x0, other.x0), min(one.y0, other.y0), max(one.x1, other.x1), max(one.y1, other.y1)
    )


def _inside(part: Box, whole: Box) -> tuple[slice, slice]:
    """Return where a box lies in an array over another that holds it."""
    return (
        slice(part.y0 - whole.y0, part.y1 - whole.y0 + 1),
        slice(part.x0 - whole.x0, part.x1 - whole.x0 + 1),
    )


def _placed(picture: MappedPicture, box: Box, channels: int) -> NDArray[Any]:
    """Return a picture over a box, its first channels only, zero where it has no pixels."""
    window = _moved(picture.header.data_window, picture)
    if window == box:
        return picture.pixels[..., :channels]
    placed = np.zeros((box.height, box.width, channels), picture.pixels.dtype)
    common = box.intersect(window)
    if common is not None:
        placed[_inside(common, box)] = picture.pixels[_inside(common, window)][..., :channels]
    return placed
