# SPDX-License-Identifier: Apache-2.0
"""Making one frame of a clean plate at plate size out of the plate's own pixels.

Reads rows of the plate, never a clip; holds two frames' worth of sums and strips besides.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gencomp_server.parts.background import NOBODY
from gencomp_server.parts.canvas import (
    apply,
    flow_at,
    grid,
    grow,
    on_canvas,
    sample,
    seen_at,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.parts.cleanplate import CleanPlatePlan, Painted

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]
    Bools = NDArray[np.bool_]
    Bytes = NDArray[np.uint8]
    Frame = Callable[[int], NDArray[np.floating]]
    Rows = Callable[[int, int, int], NDArray[np.floating]]

_STRIP_PIXELS = 1_000_000
_SMALL_SHARE = 0.05


def gather_frame(
    plan: CleanPlatePlan,
    n: int,
    rows: Rows,
    plate_size: tuple[int, int],
    painted_rows: Rows | None = None,
) -> Floats:
    """Make one frame of the clean plate at plate size out of the plate's own pixels.

    Args:
        plan: What :func:`plan_clean_plate` decided.
        n: Timeline frame.
        rows: Gives rows ``y0`` to ``y1`` (exclusive) of a frame of the plate:
            ``rows(frame, y0, y1)`` -> [y1-y0,W,3] float16 or float32, scene-linear.
        plate_size: (width, height) of the plate in pixels.
        painted_rows: The same for the artist's clean frames; needed where the plan has any.

    Returns:
        Clean plate. [H,W,3] float32, scene-linear, finite.
    """
    return _Gather(plan, n, rows, plate_size, painted_rows).make()


@dataclass(frozen=True)
class Gathered:
    """Where one frame of a clean plate comes from, at model size.

    Attributes:
        own: Share of each pixel that is this frame's own sample. [h,w] float32, 0..1.
        other: Share of the rest that other frames showed, painted ones among them; what is left
            of it nobody saw. [h,w] float32, 0..1.
        frame: Number of the other frame that gave most; 0 where none did. [h,w] int32.
        grain: Share of the plate's grain that is left in it, a mean of several samples, each
            interpolated; white grain is taken for granted, painted frames have all of theirs.
            [h,w] float32, 0..1.
    """

    own: Floats
    other: Floats
    frame: NDArray[np.int32]
    grain: Floats


def gather_sources(plan: CleanPlatePlan, n: int, plate_size: tuple[int, int]) -> Gathered:
    """Tell where the pixels of :func:`gather_frame` come from; reads no picture.

    Args:
        plan: What :func:`plan_clean_plate` decided.
        n: Timeline frame.
        plate_size: (width, height) of the plate in pixels.
    """
    return _Gather(plan, n, _no_rows, plate_size, None).sources()


def _no_rows(frame: int, y0: int, y1: int) -> NDArray[np.floating]:
    raise ValueError(f"where frame {frame} comes from is told without its pixels")


class _Gather:
    """One frame being gathered: sums of samples and of their weights, at plate size."""

    def __init__(
        self,
        plan: CleanPlatePlan,
        n: int,
        rows: Rows,
        plate_size: tuple[int, int],
        painted_rows: Rows | None,
    ) -> None:
        self.plan, self.n, self.rows, self.painted_rows = plan, n, rows, painted_rows
        self.width, self.height = plate_size
        self.t = plan.frames.index(n)
        self.ground = next(g for g in plan.grounds if n in g.canvas.frames)
        self.canvas = self.ground.canvas
        self.i = self.canvas.frames.index(n)
        # One model pixel of margin all round, so that plate pixels at the rim need no guessing.
        margin = grid(plan.width + 2, plan.height + 2) - np.float32(1.0)
        self.on_canvas = on_canvas(self.canvas, self.i, margin)

    def make(self) -> Floats:
        """Return the frame. [H,W,3] float32."""
        total = np.zeros((self.height, self.width, 3), np.float32)
        weight = np.zeros((self.height, self.width), np.float32)
        inner = self.on_canvas[1:-1, 1:-1]
        shift = self._at(self.ground.shifts, inner)
        copied = np.asarray(shift.any(axis=-1))
        for source, share in self._shares(inner, ~copied):
            self._add(total, weight, share, source)
        if copied.any():
            for source, share in self._shares(inner + shift.astype(np.float32), copied):
                self._add_copied(total, weight, share, source, shift)
        self._fill(total, weight)
        self._paint(total)
        if self.plan.own[self.t].any():
            self._keep_own(total)
        return total

    def sources(self) -> Gathered:
        """Return whose samples :meth:`make` takes."""
        inner = self.on_canvas[1:-1, 1:-1]
        shift = self._at(self.ground.shifts, inner)
        copied = np.asarray(shift.any(axis=-1))
        nothing = np.zeros(copied.shape, np.float32)
        shares = [(self.canvas.frames[s], share) for s, share in self._shares(inner, ~copied)]
        painted = [(one.frame, share[1:-1, 1:-1, 0]) for one, _, share in self._painted_shares()]
        drawn = np.minimum(sum((share for _, share in painted), nothing), 1)
        plate = (1 - drawn) / np.maximum(sum((share for _, share in shares), nothing), 1)
        own = sum((share * plate for frame, share in shares if frame == self.n), nothing)
        parts = [(frame, share * plate) for frame, share in shares if frame != self.n] + painted
        most, number = nothing.copy(), np.zeros(copied.shape, np.int32)
        for frame, part in parts:
            number[part > most] = frame
            most = np.maximum(most, part)
        other = sum((part for _, part in parts), nothing) / np.maximum(1 - own, 1e-6)
        grain = np.maximum(self._grain_left(inner, shift, copied), drawn)
        mine = self.plan.own[self.t].astype(np.float32) / 255
        own, other = mine + (1 - mine) * own, np.clip(other, 0, 1)
        shown = np.asarray(own, np.float32), np.asarray(other, np.float32)
        return Gathered(*shown, number, grain)

    def _grain_left(self, inner: Floats, shift: NDArray[np.int16], copied: Bools) -> Floats:
        """Return the share of the grain's sigma that averaging and interpolation leave. [h,w]."""
        total, variance = np.zeros((2, *copied.shape), np.float32)
        home = grid(self.plan.width, self.plan.height)
        scale = np.array([self.width / self.plan.width, self.height / self.plan.height], np.float32)
        for places, wanted in ((inner, ~copied), (inner + shift.astype(np.float32), copied)):
            for source, share in self._shares(places, np.asarray(wanted)):
                phase = (seen_at(self.canvas, source, places) - home) * scale % 1
                left = _cubic_variance(phase[..., 0]) * _cubic_variance(phase[..., 1])
                total += share
                variance += share * share * left
        return np.asarray(np.sqrt(variance) / np.maximum(total, 1), np.float32)

    def _at(self, picture: NDArray[np.generic], places: Floats) -> NDArray[Any]:
        """Return a canvas picture at the nearest pixels to some canvas places."""
        x = np.clip(np.rint(places[..., 0]), 0, self.canvas.width - 1).astype(np.intp)
        y = np.clip(np.rint(places[..., 1]), 0, self.canvas.height - 1).astype(np.intp)
        return np.asarray(picture)[y, x]

    def _shares(self, places: Floats, wanted: Bools) -> list[tuple[int, Floats]]:
        """Return how often each source is used at every wanted model pixel of this frame."""
        chosen = np.stack([self._at(layer, places) for layer in self.ground.sources])
        chosen[:, ~wanted] = NOBODY
        total = np.zeros(wanted.shape, np.float32)
        shares = {}
        for s in np.unique(chosen):
            if s != NOBODY:
                shares[int(s)] = np.zeros(wanted.shape, np.float32)
                for layer in chosen:
                    shares[int(s)] += layer == s
                total += shares[int(s)]
        # A frame used for a few pixels costs as much as one used for many: where others do, it
        # is left out.
        for s, share in sorted(shares.items(), key=lambda entry: np.count_nonzero(entry[1])):
            used = share > 0
            if used.mean() < _SMALL_SHARE and (total - share)[used].min() >= 1:
                total -= share
                del shares[s]
        return list(shares.items())

    def _gain(self, frame: int) -> Floats:
        """Return what brings another frame of the plate to this one's exposure. [3] float32."""
        gains = self.plan.gains
        return np.asarray(gains[self.plan.frames.index(frame)] / gains[self.t], np.float32)

    def _columns(self, share: Floats) -> tuple[int, int]:
        """Return the plate columns in which a model-size map is not all zero."""
        used = np.flatnonzero(share.any(axis=0))
        scale = self.width / self.plan.width
        left = max(0, int((used[0] - 1) * scale))
        return left, min(self.width, int(np.ceil((used[-1] + 2) * scale)))

    def _strips(self, share: Floats) -> list[tuple[int, int]]:
        """Return runs of plate rows in which a model-size map is not all zero."""
        used = np.flatnonzero(share.any(axis=1))
        if used.size == 0:
            return []
        scale = self.height / self.plan.height
        top = max(0, int((used[0] - 1) * scale))
        bottom = min(self.height, int(np.ceil((used[-1] + 2) * scale)))
        step = max(8, _STRIP_PIXELS // self.width)
        return [(y, min(bottom, y + step)) for y in range(top, bottom, step)]

    def _add(self, total: Floats, weight: Floats, share: Floats, source: int) -> None:
        """Add one source's samples where it is used."""
        where = self._positions(share, functools.partial(seen_at, self.canvas, source))
        frame = self.canvas.frames[source]
        size = (self.width, self.height)
        x0, x1 = self._columns(share)
        for y0, y1 in self._strips(share):
            box = (y0, y1, x0, x1)
            amount = enlarge(share[..., None], size, box, 0)[..., 0]
            position = self._to_plate(enlarge(where, size, box, 1))
            values, usable = self._look_up(self.rows, frame, position)
            amount *= usable
            total[y0:y1, x0:x1] += values * (self._gain(frame) * amount[..., None])
            weight[y0:y1, x0:x1] += amount

    def _add_copied(
        self,
        total: Floats,
        weight: Floats,
        share: Floats,
        source: int,
        shift: NDArray[np.int16],
    ) -> None:
        """Add one source's samples where background that nobody saw is copied from elsewhere."""
        frame = self.canvas.frames[source]
        size = (self.width, self.height)
        x0, x1 = self._columns(share)
        column = self._nearest(x0, x1, self.width, self.plan.width)
        for y0, y1 in self._strips(share):
            row = self._nearest(y0, y1, self.height, self.plan.height)
            # Offsets jump from pixel to pixel, so they are taken whole and never interpolated.
            places = enlarge(self.on_canvas, size, (y0, y1, x0, x1), 1)
            places += shift[row][:, column]
            position = self._to_plate(seen_at(self.canvas, source, places))
            values, usable = self._look_up(self.rows, frame, position)
            amount = share[row][:, column] * usable
            total[y0:y1, x0:x1] += values * (self._gain(frame) * amount[..., None])
            weight[y0:y1, x0:x1] += amount

    def _nearest(self, first: int, last: int, big: int, small: int) -> NDArray[np.intp]:
        at = (np.arange(first, last) + 0.5) * (small / big)
        return np.clip(at.astype(np.intp), 0, small - 1)

    def _positions(self, share: Floats, move: Callable[[Floats], Floats]) -> Floats:
        """Return the positions of this frame's model pixels, with margin, where they are used."""
        padded = np.pad(share > 0, 1, mode="edge")
        used = grow(np.asarray(padded, np.bool_), 2)
        ys, xs = np.flatnonzero(used.any(axis=1)), np.flatnonzero(used.any(axis=0))
        part = np.s_[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
        where = np.zeros(self.on_canvas.shape, np.float32)
        where[part] = move(self.on_canvas[part])
        return where

    def _to_plate(self, position: Floats) -> Floats:
        """Return model positions as plate positions, in place."""
        position[..., 0] = (position[..., 0] + 0.5) * (self.width / self.plan.width) - 0.5
        position[..., 1] = (position[..., 1] + 0.5) * (self.height / self.plan.height) - 0.5
        return position

    def _look_up(self, rows: Rows, frame: int, position: Floats) -> tuple[Floats, Floats]:
        """Read the plate at plate positions. Returns samples [h,w,3] and usability [h,w]."""
        y0 = int(np.clip(np.floor(position[..., 1].min()) - 2, 0, self.height - 1))
        y1 = int(np.clip(np.ceil(position[..., 1].max()) + 3, y0 + 1, self.height))
        picture = np.ascontiguousarray(rows(frame, y0, y1)[..., :3], np.float32)
        usable: Bools | None = None
        if not np.isfinite(picture).all():
            finite = np.asarray(np.isfinite(picture).all(axis=-1), np.bool_)
            usable = ~grow(~finite, 2)
            picture = np.where(finite[..., None], picture, np.float32(0.0))
        position[..., 1] -= y0
        values, _ = sample(picture, None, position, cubic=True)
        # Bicubic undershoots beside highlights; a plate without negatives gets none.
        np.maximum(values, min(0.0, float(picture.min())), out=values)
        if usable is None:
            return values, np.ones(values.shape[:2], np.float32)
        good, _ = sample(usable.astype(np.float32), None, position)
        return values, (good > 0.999).astype(np.float32)

    def _fill(self, total: Floats, weight: Floats) -> None:
        """Divide by the weights; put the model-size background where nothing was gathered."""
        inner = self.on_canvas[1:-1, 1:-1].astype(np.float32)
        below, _ = sample(np.asarray(self.ground.picture), None, inner)
        below /= self.plan.gains[self.t]
        seam = np.asarray(self.plan.seam[self.t])
        step = max(8, _STRIP_PIXELS // self.width)
        for y0 in range(0, self.height, step):
            y1 = min(self.height, y0 + step)
            amount = weight[y0:y1, :, None]
            blank = np.clip(1.0 - amount, 0.0, 1.0)
            total[y0:y1] /= np.maximum(amount, 1.0)
            if blank.any():
                box = (y0, y1, 0, self.width)
                total[y0:y1] += blank * enlarge(below, (self.width, self.height), box, 0)
            if seam.any():
                box = (y0, y1, 0, self.width)
                total[y0:y1] += enlarge(seam, (self.width, self.height), box, 0)

    def _painted_shares(self) -> list[tuple[Painted, Floats, Floats]]:
        """Return the artist's frames that are seen here, where, and with which share.

        Of model pixels with margin: places in the painted picture [h+2,w+2,2], shares [h+2,w+2,1].
        """
        layers = []
        for painted, amount in _painted_near(self.plan.painted, self.n, self.canvas.frames):
            where = self._painted_where(painted)
            inside = (where >= -0.51).all(axis=-1) & (where[..., 0] <= self.plan.width - 0.49)
            inside &= where[..., 1] <= self.plan.height - 0.49
            share = np.float32(amount) * inside.astype(np.float32)[..., None]
            layers.append((painted, where, share))
        return layers

    def _paint(self, total: Floats) -> None:
        """Lay the artist's frames over what was gathered: the nearest ones in time, mixed."""
        size, layers = (self.width, self.height), self._painted_shares()
        if not layers:
            return
        mixed = sum((share for _, _, share in layers), 0 * layers[0][2])
        step = max(8, _STRIP_PIXELS // self.width)
        for y0 in range(0, self.height, step):
            box = (y0, min(self.height, y0 + step), 0, self.width)
            whole = enlarge(mixed, size, box, 1)
            strip = total[box[0] : box[1]]
            strip *= np.maximum(1.0 - whole, 0.0)
            for painted, where, share in layers:
                self._paint_strip(strip, painted, where, share, box)

    def _painted_where(self, painted: Painted) -> Floats:
        """Return where this frame's model pixels, with margin, lie in a painted picture."""
        at_plate = seen_at(self.canvas, self.canvas.frames.index(painted.frame), self.on_canvas)
        where = apply(painted.motion, at_plate)
        return where + flow_at(painted.flow, where) if painted.flow.any() else where

    def _paint_strip(
        self,
        strip: Floats,
        painted: Painted,
        where: Floats,
        share: Floats,
        box: tuple[int, int, int, int],
    ) -> None:
        if self.painted_rows is None:
            raise ValueError("the plan has painted frames, but no rows of them were given")
        size = (self.width, self.height)
        position = self._to_plate(enlarge(where, size, box, 1))
        values, _ = self._look_up(self.painted_rows, painted.frame, position)
        strip += values * (painted.gain / self.plan.gains[self.t]) * enlarge(share, size, box, 1)

    def _keep_own(self, total: Floats) -> None:
        """Put this frame's own pixels where they are its own clean plate, bit for bit."""
        share = self.plan.own[self.t].astype(np.float32)[..., None] / 255.0
        for y0, y1 in self._strips(share[..., 0]):
            amount = enlarge(share, (self.width, self.height), (y0, y1, 0, self.width), 0)
            mine = np.asarray(self.rows(self.n, y0, y1)[..., :3], np.float32)
            amount = np.where(np.isfinite(mine).all(axis=-1, keepdims=True), amount, 0.0)
            mixed = amount * np.nan_to_num(mine) + (1.0 - amount) * total[y0:y1]
            total[y0:y1] = np.where(amount >= 1.0, mine, mixed)


def _cubic_variance(phase: Floats) -> Floats:
    """Return the variance that bicubic interpolation (cv2's, a = -0.75) leaves of white noise.

    Args:
        phase: How far between two pixels one looks. Any shape, 0..1.
    """
    far, near = phase + 1, 1 - phase
    taps = [
        ((-0.75 * far + 3.75) * far - 6.0) * far + 3.0,
        (1.25 * phase - 2.25) * phase * phase + 1,
        (1.25 * near - 2.25) * near * near + 1,
    ]
    last = 1 - taps[0] - taps[1] - taps[2]
    return np.asarray(sum((tap * tap for tap in taps), last * last), np.float32)


def _painted_near(
    painted: tuple[Painted, ...], n: int, frames: tuple[int, ...]
) -> list[tuple[Painted, float]]:
    """Return the painted frames before and after a frame, with their shares, of one canvas."""
    here = [p for p in painted if p.frame in frames]
    before = max((p for p in here if p.frame <= n), key=lambda p: p.frame, default=None)
    after = min((p for p in here if p.frame >= n), key=lambda p: p.frame, default=None)
    if before is None or after is None or before.frame == after.frame:
        only = before or after
        return [] if only is None else [(only, 1.0)]
    share = (n - before.frame) / (after.frame - before.frame)
    return [(before, 1.0 - share), (after, share)]


def enlarge(
    small: NDArray[np.floating],
    size: tuple[int, int],
    box: tuple[int, int, int, int],
    margin: int,
) -> Floats:
    """Interpolate a box of a picture enlarged to ``size``, half-pixel centres, full precision.

    (cv2.remap rounds positions to 1/32 pixel, which is too coarse for coordinates.)

    Args:
        small: [h+2m,w+2m,C]: a model-size picture with ``margin`` m pixels more on every side.
        size: (width, height) of the whole enlarged picture.
        box: (y0, y1, x0, x1) wanted, exclusive ends.
        margin: The margin m.

    Returns:
        [y1-y0,x1-x0,C] float32; without a margin the rim is held level.
    """
    y0, y1, x0, x1 = box
    if (small.shape[1] - 2 * margin, small.shape[0] - 2 * margin) == size:
        inner = small[y0 + margin : y1 + margin, x0 + margin : x1 + margin]
        return np.array(inner, np.float32)

    def taps(first: int, last: int, big: int, length: int) -> tuple[NDArray[np.intp], Floats]:
        inner = length - 2 * margin
        at = (np.arange(first, last) + 0.5) * (inner / big) - 0.5 + margin
        at = np.clip(at, 0.0, length - 1.0)
        low = np.minimum(np.floor(at), max(length - 2, 0)).astype(np.intp)
        return low, (at - low).astype(np.float32)

    row, down = taps(y0, y1, size[1], small.shape[0])
    column, across = taps(x0, x1, size[0], small.shape[1])
    used = small[row[0] : row[-1] + 2].astype(np.float32)
    row = row - row[0]
    next_row = np.minimum(row + 1, used.shape[0] - 1)
    next_column = np.minimum(column + 1, small.shape[1] - 1)
    wide = used[:, column]
    wide += (used[:, next_column] - wide) * across[None, :, None]
    out = wide[row]
    out += (wide[next_row] - out) * down[:, None, None]
    return np.asarray(out, np.float32)
