# SPDX-License-Identifier: Apache-2.0
"""The difference sheet of ``gencomp measure``: A, B, what differs amplified, what was touched.

Pictures are reduced as they pass, so that nothing is read twice and only small ones are held.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from gencomp_protocol.frames import Box
from gencomp_server.colour.modelrange import ModelRange
from gencomp_server.exr.read import MappedPicture
from gencomp_server.metrics.fidelity import Measured
from gencomp_server.metrics.overlap import Bools, covered
from gencomp_server.sheet import (
    ALPHA,
    CODES,
    OPAQUE,
    OVER_CHECKERS,
    TOUCHED,
    Row,
    Shown,
    compose_sheet,
    pick_frames,
    thumb_size,
    thumbnail,
    write_sheet,
)

Floats = NDArray[np.float32]

_A, _B, _DIFFERENCE, _TOUCHED = "A", "B", "difference", "touched"
# A side with an alpha is a picture where it covers this share, or has colour where it does not.
_PICTURE = 0.9
_NEARLY = 1e-3
# The factor leaves this many of the differing places below white.
_BELOW_WHITE = 99.5
_MOST = 2.0**16


class DifferenceSheet:
    """Collects up to five frames of a comparison and draws them.

    Args:
        frames: All frames that will be compared.
    """

    def __init__(self, frames: Sequence[int]) -> None:
        self._wanted = pick_frames(frames)
        self._kept: dict[str, dict[int, Shown]] = {
            name: {} for name in (_A, _B, _DIFFERENCE, _TOUCHED)
        }
        self._edges: dict[int, Bools] = {}
        self._coverage = False
        self._opaque: set[str] = set()

    def keep(
        self,
        frame: int,
        pair: tuple[MappedPicture, MappedPicture],
        found: Measured | None,
        mask: MappedPicture | None = None,
        light: ModelRange | None = None,
    ) -> None:
        """Take a frame, if it is one that is shown.

        Args:
            frame: Its number.
            pair: A and B.
            found: What was measured; None where the mask left nothing to measure.
            mask: Where it was measured; its outline is drawn. None: everywhere.
            light: How light is brought to Linear Rec.709; None where it is there.
        """
        if frame not in self._wanted:
            return
        a, b = pair
        self._coverage = len(a.header.channels) == 1
        window = a.header.display_window
        size = thumb_size(window, a.header.pixel_aspect)
        for name, picture in ((_A, a), (_B, b)):
            header = picture.header
            shown = Shown(_wide(picture.pixels), header.display_window, header.data_window)
            if len(header.channels) == 3:
                self._opaque.add(name)
            kept = self._kept[name][frame] = _small(shown, size)
            if light is not None and not self._coverage:
                kept.pixels[..., :3] = light.seen(np.ascontiguousarray(kept.pixels[..., :3]))
        if mask is not None:
            self._edges[frame] = _outline(covered(mask), size)
        if found is None:
            return
        frame_box = Box(0, 0, window.width - 1, window.height - 1)
        for name, pixels in (
            (_DIFFERENCE, np.abs(found.difference)),
            (_TOUCHED, found.touched[..., None].astype(np.float32)),
        ):
            whole = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
            self._kept[name][frame] = _small(Shown(whole, frame_box, found.box), size)

    def factor(self) -> float:
        """Return what the difference is multiplied by: a power of two, 1 at the least."""
        pictures = [one.pixels[..., :3].ravel() for one in self._kept[_DIFFERENCE].values()]
        differing = np.concatenate([one[one > 0] for one in pictures] or [np.zeros(0)])
        if not differing.size:
            return 1.0
        top = float(np.percentile(differing, _BELOW_WHITE))
        return 2.0 ** math.floor(math.log2(min(_MOST, max(1.0, 1.0 / top))))

    def draw(self, path: Path, title: str) -> None:
        """Write the sheet.

        Raises:
            UnwritableOutput: It cannot be written.
        """
        factor = self.factor()
        rows = [
            Row(_A, self._reader(_A), self._style(_A)),
            Row(_B, self._reader(_B), self._style(_B)),
            Row(f"difference x{factor:g}", self._reader(_DIFFERENCE, factor), CODES),
            Row(_TOUCHED, self._reader(_TOUCHED), TOUCHED),
        ]
        frames = sorted(self._kept[_A])
        write_sheet(path, compose_sheet(title, rows, frames))

    def _reader(self, name: str, factor: float = 1.0) -> Callable[[int], Shown | None]:
        def read(frame: int) -> Shown | None:
            shown = self._kept[name].get(frame)
            if shown is None:
                return None
            edge = self._edges.get(frame)
            return replace(shown, pixels=shown.pixels * np.float32(factor), marked=edge)

        return read

    def _style(self, name: str) -> str:
        """Return how a side is shown: a picture opaque, a layer over checkers."""
        if self._coverage:
            return ALPHA
        return OPAQUE if self._is_picture(name) else OVER_CHECKERS

    def _is_picture(self, name: str) -> bool:
        """Tell whether a side has no alpha, or colour nearly everywhere whatever its alpha is."""
        if name in self._opaque:
            return True
        rgba = np.concatenate([one.pixels.reshape(-1, 4) for one in self._kept[name].values()])
        solid, clear = rgba[:, 3] > 1.0 - _NEARLY, rgba[:, 3] < _NEARLY
        filled = solid | (clear & (rgba[:, :3] != 0).any(axis=1))
        return bool(np.count_nonzero(filled) >= _PICTURE * len(rgba))


def _outline(counted: Bools, size: tuple[int, int]) -> Bools:
    """Return the line around what counts, one pixel outside it. [h,w] bool of ``size``."""
    small = cv2.resize(counted.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.0
    wider = cv2.dilate(small.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return np.asarray(wider & ~small)


def _wide(pixels: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return coverage as four equal channels, so that it can be shown; colour as it is."""
    return np.repeat(pixels, 4, axis=2) if pixels.shape[2] == 1 else pixels


def _small(shown: Shown, size: tuple[int, int]) -> Shown:
    """Return a picture at the size of the sheet; what was no number still is none."""
    rgba, faults = thumbnail(shown, size)
    rgba[faults] = np.nan
    box = Box(0, 0, size[0] - 1, size[1] - 1)
    return Shown(rgba, box, box)
