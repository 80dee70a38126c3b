# SPDX-License-Identifier: Apache-2.0
"""A shot's pictures as parts want them: over the display window, and back.

Everything here takes one frame of a :class:`~gencomp_server.contract.Shot`; nothing keeps one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from gencomp_protocol.request import STILLS
from gencomp_server.parts.window import fill_from_display, finite, onto_display

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.colour.modelrange import ModelRange
    from gencomp_server.contract import PictureHeader, Shot

    Floats = NDArray[np.float32]
    Rows = Callable[[int, int, int], NDArray[Any]]

GREATEST_HALF = 65504.0


def native(shot: Shot, name: str, n: int) -> NDArray[Any]:
    """Return a picture's own samples over its display window, zero where it has none. [H,W,C]."""
    header = shot.header(name, n)
    return onto_display(shot.frame(name, n), header.data_window, header.display_window)


def linear(shot: Shot, name: str, n: int) -> Floats:
    """Return a picture's colour for computing, finite. [H,W,3] float32, scene-linear."""
    return finite(native(shot, name, n)[..., :3])


def coverage_of(shot: Shot, name: str, n: int) -> Floats:
    """Return a matte. [H,W,1] float32, 0..1."""
    return np.clip(native(shot, name, n).astype(np.float32), 0.0, 1.0)


def to_model_range(light: Floats, seen: ModelRange) -> Floats:
    """Return a plate as a model sees it. [...,3] float32, working space to [-1,1], clipped."""
    code = np.clip(seen.code(light), 0, 1)
    return np.asarray(code * np.float32(2) - np.float32(1), np.float32)


def some(shot: Shot, *names: str) -> Shot:
    """Return the shot with those of some inputs that it has: what a stage may depend on."""
    return shot.only(*(name for name in names if name in shot.names))


def has_picture(shot: Shot, name: str, n: int) -> bool:
    """Tell whether an input says anything at a frame; single pictures speak for their own."""
    entry = shot.request.input(name)
    return entry is not None and (entry.cover != STILLS or n in entry.frames)


def row_reader(shot: Shot, name: str, own: Mapping[int, int] | None = None) -> Rows:
    """Return a reader of rows over the display window: ``rows(n, y0, y1)`` -> [y1-y0,W,3].

    Args:
        shot: The shot.
        name: Which input.
        own: Which of the input's own frames stands for a frame; the same where None.
    """

    def rows(n: int, y0: int, y1: int) -> NDArray[Any]:
        n = n if own is None else own[n]
        header = shot.header(name, n)
        if header.data_window == header.display_window:
            return shot.rows(name, n, y0, y1)[..., :3]
        return native(shot, name, n)[y0:y1, :, :3]

    return rows


def in_type(pixels: NDArray[Any], pixel_type: str) -> NDArray[Any]:
    """Return pixels in a plate's type; what half cannot hold stays at its greatest value."""
    if pixel_type != "half":
        return pixels
    return np.asarray(np.clip(pixels, -GREATEST_HALF, GREATEST_HALF), np.float16)


def over_data_window(
    pixels: NDArray[Any], header: PictureHeader, rim: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Lay a display-window picture into a plate's own data window.

    Args:
        pixels: [H,W,4] over the display window.
        header: The plate's.
        rim: What fills overscan: the plate's samples over its data window, alpha 1 where it has
            none. [Hd,Wd,3 or 4]. Zero where None.

    Returns:
        [Hd,Wd,4] of the type of ``pixels``; ``pixels`` itself where the windows agree.
    """
    data, display = header.data_window, header.display_window
    if data == display:
        return pixels
    laid = np.zeros((data.height, data.width, pixels.shape[2]), pixels.dtype)
    if rim is not None:
        laid[..., 3] = 1.0
        laid[..., : rim.shape[2]] = rim
    fill_from_display(laid, data, pixels, display)
    return laid
