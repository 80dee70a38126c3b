# SPDX-License-Identifier: Apache-2.0
"""A job's contact sheet, drawn while its layers go by: a few frames of each, small, in one PNG.

::

                1001       1024       1048
    plate      [     ]    [     ]    [     ]
    result     [     ]    [     ]    [     ]
    effect     [     ]    [     ]    [     ]

It is for whoever looks at the queue from outside, and is kept when the layers are gone. A sheet
that cannot be drawn costs the job nothing. ``sheet.py`` draws the large one beside a delivery.
"""

import logging
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gencomp_protocol.frames import Box, FrameRange

log = logging.getLogger(__name__)

MOST_FRAMES = 4
MOST_ROWS = 10
_THUMB_PX = 208
_LABEL_PX, _HEAD_PX, _GAP_PX, _MARGIN_PX = 128, 34, 6, 10
_FIELD, _INK = 22, (190, 190, 190)  # 8-bit greys
_BEHIND = 0.05  # Scene-linear grey behind a layer.
_FAULT = (255, 0, 255)  # What is NaN or infinite.
_KNEE = 0.7  # Highlights are rolled off from here, scene-linear.

Picture8 = NDArray[np.uint8]


class ContactSheet:
    """The pictures of one job, as they are collected.

    Args:
        frames: The job's frames.
        to_rec709: From the working space's primaries to a monitor's: nine numbers, row by row;
            None: they are those.
    """

    def __init__(self, frames: FrameRange, to_rec709: Sequence[float] | None = None) -> None:
        every = list(frames)
        places = np.linspace(0, len(every) - 1, min(MOST_FRAMES, len(every)))
        self.frames = tuple(every[round(place)] for place in places)
        self._matrix: NDArray[Any] | None = (
            None if to_rec709 is None else np.reshape(to_rec709, (3, 3))
        )
        self._rows: dict[str, dict[int, Picture8]] = {}

    def add(
        self,
        row: str,
        frame: int,
        pixels: NDArray[Any],
        channels: Sequence[str],
        display: Box,
        data: Box,
    ) -> None:
        """Take a picture where its frame is one of the sheet's and it can be shown.

        Args:
            row: What it belongs to: a layer, an input.
            frame: Timeline frame.
            pixels: [H,W,C] float16 or float32, scene-linear or coverage, over ``data``.
            channels: Names of the channels.
            display: The picture's frame.
            data: The pixels present.
        """
        if frame not in self.frames or (row not in self._rows and len(self._rows) >= MOST_ROWS):
            return
        places = [list(channels).index(one) for one in "RGBA" if one in channels]
        if len(places) not in (1, 3, 4) or not pixels.size:
            return
        try:
            made = self._drawn(pixels, places, display, data)
        except (cv2.error, ValueError, ArithmeticError, MemoryError) as error:
            log.warning("'%s' frame %d is not on the contact sheet: %s", row, frame, error)
            return
        self._rows.setdefault(row, {})[frame] = made

    def _drawn(self, pixels: NDArray[Any], places: list[int], display: Box, data: Box) -> Picture8:
        """Return a picture at its place in its frame, as a monitor shows it. [h,w,3] uint8."""
        scale = _THUMB_PX / display.width
        height = min(max(round(display.height * scale), 1), 2 * _THUMB_PX)
        canvas = np.zeros((height, _THUMB_PX, 4), np.float32)
        step = max(int(0.5 / scale), 1)
        small = np.ascontiguousarray(pixels[::step, ::step][..., places], np.float32)
        x0, y0 = (data.x0 - display.x0) * scale, (data.y0 - display.y0) * scale
        size = max(round(data.width * scale), 1), max(round(data.height * scale), 1)
        fitted = cv2.resize(small, size, interpolation=cv2.INTER_AREA).reshape(*size[::-1], -1)
        left, top = max(round(x0), 0), max(round(y0), 0)
        seen = fitted[max(-round(y0), 0) :, max(-round(x0), 0) :][
            : height - top, : _THUMB_PX - left
        ]
        if seen.size:
            canvas[top : top + seen.shape[0], left : left + seen.shape[1]] = _as_rgba(seen)
        return self._shown(canvas)

    def _shown(self, rgba: NDArray[np.float32]) -> Picture8:
        """Return scene-linear, premultiplied samples as sRGB over grey. [h,w,3] uint8."""
        is_fault: NDArray[np.bool_] = np.logical_not(np.isfinite(rgba).all(axis=2))
        rgba = np.where(is_fault[..., None], np.float32(0), rgba)
        colour = rgba[..., :3] if self._matrix is None else rgba[..., :3] @ self._matrix.T
        colour = colour + (1 - np.clip(rgba[..., 3:], 0, 1)) * _BEHIND
        bright = np.maximum(colour - _KNEE, 0)
        colour = np.minimum(colour, _KNEE) + (1 - _KNEE) * bright / (bright + (1 - _KNEE))
        colour = np.clip(colour, 0, 1)
        curve = np.where(
            colour <= 0.0031308, 12.92 * colour, 1.055 * colour ** np.float32(1 / 2.4) - 0.055
        )
        made = np.asarray(np.rint(curve * 255), np.uint8)
        made[is_fault] = _FAULT
        return made

    def png(self) -> bytes | None:
        """Return the sheet as a PNG file's bytes; None where nothing could be shown."""
        rows = {name: own for name, own in self._rows.items() if own}
        if not rows:
            return None
        tall = max(one.shape[0] for own in rows.values() for one in own.values())
        width = _LABEL_PX + len(self.frames) * (_THUMB_PX + _GAP_PX) + 2 * _MARGIN_PX
        height = _HEAD_PX + len(rows) * (tall + _GAP_PX) + _MARGIN_PX
        field = np.full((height, width, 3), _FIELD, np.uint8)
        for column, frame in enumerate(self.frames):
            left = _MARGIN_PX + _LABEL_PX + column * (_THUMB_PX + _GAP_PX)
            _write(field, str(frame), left, 24)
            for line, (name, own) in enumerate(rows.items()):
                top = _HEAD_PX + line * (tall + _GAP_PX)
                _write(field, name[:13], _MARGIN_PX, top + 18)
                if frame in own:
                    one = own[frame]
                    field[top : top + one.shape[0], left : left + one.shape[1]] = one
        is_made, packed = cv2.imencode(".png", field[..., ::-1])
        return packed.tobytes() if is_made else None


def _as_rgba(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return coverage as white, colour without alpha as opaque. [h,w,4]."""
    if pixels.shape[2] == 4:
        return pixels
    ones = np.ones((*pixels.shape[:2], 1), np.float32)
    return np.concatenate([np.broadcast_to(pixels, (*pixels.shape[:2], 3)), ones], axis=2)


def _write(field: Picture8, text: str, x: int, y: int) -> None:
    cv2.putText(field, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.55, _INK, 1, cv2.LINE_AA)
