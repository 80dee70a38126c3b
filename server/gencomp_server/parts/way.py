# SPDX-License-Identifier: Apache-2.0
"""The way of an element through the plate: one matrix at every frame, from the artist's knobs.

Its anchor lies on the trajectory, and scale, lean and turn are about the anchor. Without a
trajectory the format's centre stays on the plate's, so that an element of the plate's own format is
where it is already.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gencomp_protocol.layers import BG
from gencomp_server.parts.placeable import point_at
from gencomp_server.parts.placement import about, linear_part, resting_point
from gencomp_server.parts.trajectory import Track, follow
from gencomp_server.placing import (
    BOTTOM_CENTRE,
    BOX_CENTRE,
    FORMAT_POINT,
    TRACK,
    PlacingParams,
    keys_of,
    mode_of,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.contract import Context, Shot

    Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Way:
    """How one element gets its matrices.

    Attributes:
        shot: With bg.
        params: The job's knobs.
        name: The element.
        times: Its own frame at every frame of the job; None where it is not there.
        boxes: What its alpha covers at every frame, in its own pixels; NaN where nothing. [T,4].
        size: Width and height of its format.
        onto: Width and height of the plate.
        aspects: Pixel aspect of the element and of the plate.
    """

    shot: Shot
    params: PlacingParams
    name: str
    times: Sequence[int | None]
    boxes: Doubles
    size: tuple[int, int]
    onto: tuple[int, int]
    aspects: tuple[float, float]

    @property
    def kind(self) -> str:
        """How it goes, in a word."""
        if keys_of(self.params, "transform", self.name) is not None:
            return "transform"
        path = keys_of(self.params, "trajectory", self.name)
        return "in place" if path is None else mode_of(self.params, self.name, path)

    def points(self, matrices: Doubles) -> Doubles:
        """Return where the anchor lies on the plate at every frame. [T,2]."""
        anchors = self._anchors()
        moved = np.einsum("tij,tj->ti", matrices[:, :, :2], anchors) + matrices[:, :, 2]
        return np.asarray(moved, np.float64)

    def matrices(self, ctx: Context) -> tuple[Doubles, Track | None]:
        """Return the matrix at every frame [T,2,3], and the track where a point was followed."""
        frames = tuple(self.shot.frames)
        given = keys_of(self.params, "transform", self.name)
        if given is not None:
            return np.array([np.reshape(given.at(n), (2, 3)) for n in frames]), None
        points, track = self._path(ctx, frames)
        anchors = self._anchors()
        rest = [resting_point(one, self.size, self.onto, self.aspects) for one in anchors]
        made = [
            about(
                linear_part(*self._turn(n), self.aspects),
                anchor,
                rest[i] if points is None else points[i],
            )
            for i, (n, anchor) in enumerate(zip(frames, anchors, strict=True))
        ]
        return np.array(made), track

    def _turn(self, n: int) -> tuple[float, float, float]:
        scale, rotate, skew = (
            keys_of(self.params, one, self.name) for one in ("scale", "rotate", "skew")
        )
        return (
            1.0 if scale is None else scale.at(n)[0],
            0.0 if rotate is None else rotate.at(n)[0],
            0.0 if skew is None else skew.at(n)[0],
        )

    def _path(
        self, ctx: Context, frames: tuple[int, ...]
    ) -> tuple[Sequence[Sequence[float]] | None, Track | None]:
        """Return where the anchor goes at every frame; None where it stays in place."""
        path = keys_of(self.params, "trajectory", self.name)
        if path is None:
            return None, None
        mode = mode_of(self.params, self.name, path)
        lives = [i for i, own in enumerate(self.times) if own is not None]
        if mode != TRACK:
            places = (min(max(i - lives[0], 0), lives[-1] - lives[0]) for i in range(len(frames)))
            count = lives[-1] - lives[0] + 1
            pairs = zip(frames, places, strict=True)
            return [point_at(path, mode, n, place, count) for n, place in pairs], None
        x, y = path.values[0]
        at = self.params.track_frame or frames[0]
        first, last = min(at, frames[lives[0]]), max(at, frames[lives[-1]])
        track: Track = ctx.stage(
            "track",
            follow,
            self.shot.only(BG),
            point=(x, y),
            at=at,
            frames=tuple(n for n in frames if first <= n <= last),
            seeded=False,
        )
        known = dict(zip(track.frames, track.points, strict=True))
        ends = (track.frames[0], track.frames[-1])
        return [known[min(max(n, ends[0]), ends[1])] for n in frames], track

    def _anchors(self) -> Doubles:
        """Return the element's own point that lies on the trajectory at every frame. [T,2]."""
        if self.params.anchor == FORMAT_POINT:
            given = keys_of(self.params, "anchor_point", self.name)
            fixed = np.asarray(self.size) / 2 if given is None else np.asarray(given.values[0])
            return np.repeat(np.asarray(fixed, np.float64)[None], len(self.times), axis=0)
        x0, y0, x1, y1 = _held(self.boxes).T
        assert self.params.anchor in (BOX_CENTRE, BOTTOM_CENTRE)
        y = (y0 + y1) / 2 if self.params.anchor == BOX_CENTRE else y1
        return np.stack([(x0 + x1) / 2, y], axis=1)


def _held(boxes: Doubles) -> Doubles:
    """Return boxes with that of the nearest frame where there is none. [T,4]."""
    there = np.flatnonzero(~np.isnan(boxes[:, 0]))
    nearest = there[np.abs(np.arange(len(boxes))[:, None] - there[None]).argmin(axis=1)]
    return np.asarray(boxes[nearest])
