# SPDX-License-Identifier: Apache-2.0
"""The few frames of a clip that an assistant looks at: first, middle and last, small, as PNG.

They are what a monitor shows, reduced in scene-linear: see ``sheet.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from gencomp_protocol.frames import FrameRange
from gencomp_protocol.request import STILLS
from gencomp_server.assistant import Picture
from gencomp_server.measure_files import Wanted, opened
from gencomp_server.sheet import Shown, show_opaque, thumbnail

if TYPE_CHECKING:
    from gencomp_server.colour.spaces import Space
    from gencomp_server.exr.read import MappedPicture
    from gencomp_server.sources import Source

LONG_SIDE_PX = 512


def pick(frames: Sequence[int]) -> tuple[int, ...]:
    """Return the first, the middle and the last frame, each once."""
    return tuple(sorted({frames[0], frames[(len(frames) - 1) // 2], frames[-1]}))


def key_pictures(source: Source, span: FrameRange, space: Space) -> tuple[Picture, ...]:
    """Return the pictures of a clip that an assistant looks at.

    Args:
        source: The clip's files; of single pictures each is looked at.
        span: Its frames.
        space: What their light is.

    Raises:
        BadPicture: A file is damaged or of a kind that is not taken.
    """
    made: list[Picture] = []
    stills = source.header.cover == STILLS
    with opened([Wanted("clip", source, "rgb")]) as (reader, _):
        for frame in tuple(source.paths) if stills else pick(list(span)):
            for n, pictures in reader.frames(FrameRange(frame, frame)):
                label = f"{source.header.name} frame {n}"
                made.append(_as_picture(label, pictures["clip"], space))
    return tuple(made)


def _as_picture(label: str, mapped: MappedPicture, space: Space) -> Picture:
    header = mapped.header
    window = header.display_window
    wide, high = window.width * header.pixel_aspect, float(window.height)
    scale = min(1.0, LONG_SIDE_PX / max(wide, high))
    size = max(1, round(wide * scale)), max(1, round(high * scale))
    primaries = None if space.matrix is None else np.reshape(space.matrix, (3, 3))
    pixels = np.asarray(mapped.pixels)[..., :3]
    shown = Shown(pixels, window, header.data_window, header.pixel_aspect, to_rec709=primaries)
    small = show_opaque(*thumbnail(shown, size))
    done, data = cv2.imencode(".png", np.ascontiguousarray(small[..., ::-1]))
    assert done, size
    return Picture(label, size[0], size[1], data.tobytes())
