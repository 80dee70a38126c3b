# SPDX-License-Identifier: Apache-2.0
"""What of a shot is background: measured at model size, for one canvas.

Of the samples that no matte covers, those count that nothing lies over, as far as texture,
agreement (``parts/veil.py``) and the distance of the objects tell: their median is a first guess.
What differs from it near the mattes, beyond the noise, is a shadow, a reflection or smoke and is
left out; of the rest the few nearest to the median are to be averaged. Background that moves by
itself (waves, leaves) is told from effects by going on where no object ever was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from gencomp_server.colour.modelrange import decode, encode
from gencomp_server.parts.canvas import (
    Canvas,
    attached,
    grid,
    grow,
    masked_median,
    on_canvas,
    positions_in_frame,
    sample,
    seen_at,
    span,
)
from gencomp_server.parts.inpaint import fill_by_shifts, fill_smooth
from gencomp_server.parts.register import grey_picture, moves_by_itself
from gencomp_server.parts.veil import HALO_PX, agreeing_samples, bare_samples

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]
    Bools = NDArray[np.bool_]
    Bytes = NDArray[np.uint8]
    Frame = Callable[[int], NDArray[np.floating]]
    Rows = Callable[[int, int, int], NDArray[np.floating]]

NOBODY = 65535
"""In ``Ground.sources``: no frame."""

_STACK_BYTES = 64_000_000
_CACHE_BYTES = 256_000_000
_SIGMA_LEAST = 5e-4
_SIGMA_GUESS = 0.005
_SLACK_PX = 0.3
# 5 by 5 means this many of their own sigmas off the median are not background; a seed must reach
# the second number.
_SUSPECT, _SEED = 3.0, 6.0
_OUTLIER = 4.0
_GAIN_SNAP = 0.003
# A standing shadow: hidden in this share of the frames where it begins, at most so wide (share of
# the long edge), and this dark against the brightest ground near by, at its rim and in its heart.
_STANDS = 0.5
_SHADOW_WIDTH = 0.03
_SHADOW_WEAK, _SHADOW_STRONG = 0.85, 0.7
_SHADOW_AMONG_WAVES = 0.65
_PENUMBRA_PX = 5
# Ground whose own marks are as dark in more than this share of it tells no shadow from a mark.
_MARKED_GROUND = 0.05
# Moving background hides effects: only what is this near to the mattes is suspected there.
_NEAR_UNSTEADY = 0.05
# Beside the objects is within this share of the long edge; what varies and has more than that
# share of itself beyond is background.
_BESIDE, _GOES_ON = 0.1, 0.3
_GOOD_ENOUGH, _GOOD_AT_ALL = 1.0, 2.5
_VEIL_ROUNDS = 2


@dataclass(frozen=True)
class CleanPlateSettings:
    """What can be turned.

    Attributes:
        samples: How many frames are averaged per pixel: fewer keep more grain.
        reach: How far shadows and reflections may lie from the mattes, as a share of the long
            edge.
        margin_px: How far the mattes are grown before what is outside counts as background, in
            model pixels.
        flow: Whether a smooth flow refines the homographies.
        register_painted: Whether painted frames are registered to the plate; else they are taken
            to lie exactly over it.
        keep_unsteady: Whether background that moves by itself (waves) is the frame's own away
            from the objects, instead of a median that no frame looks like.
    """

    samples: int = 5
    reach: float = 0.25
    margin_px: int = 3
    flow: bool = True
    register_painted: bool = True
    keep_unsteady: bool = True


@dataclass(frozen=True)
class Ground:
    """What is known of one canvas.

    Attributes:
        canvas: How its frames lie.
        sources: For each of K tries, the index in ``canvas.frames`` to take a pixel from, or
            ``NOBODY``. [K,H,W] uint16.
        picture: The background as measured, filled where nobody saw it. [H,W,3] float32,
            scene-linear, in the exposure of ``gains``.
        seen: Where any frame saw background. [H,W] bool.
        shifts: Offset (x, y) to the pixel to copy where nobody saw it. [H,W,2] int16.
        unsteady: Where the background moves by itself. [H,W] bool.
        sigma: Noise of one sample, encoded units.
    """

    canvas: Canvas
    sources: NDArray[np.uint16]
    picture: Floats
    seen: Bools
    shifts: NDArray[np.int16]
    unsteady: Bools
    sigma: float


@dataclass
class Steps:
    """Counts steps of one canvas into the progress of the whole."""

    report: Callable[[int, int], None]
    done: int
    total: int

    def __call__(self) -> None:
        """Report one step more."""
        self.report(self.done, self.total)
        self.done += 1


class Material:
    """The shot at model size, as the steps below want to see it."""

    def __init__(
        self,
        frames: tuple[int, ...],
        plate_model: Frame,
        covered: Callable[[int], Bools],
        settings: CleanPlateSettings,
    ) -> None:
        self.frames, self.settings = frames, settings
        self._plate, self._covered = plate_model, covered
        self._encoded: dict[int, NDArray[np.float16]] = {}
        self._grey: dict[int, Bytes] = {}
        self._blocked: dict[int, NDArray[np.uint8]] = {}
        self.height, self.width = plate_model(frames[0]).shape[:2]

    def linear(self, n: int) -> Floats:
        """Return a frame with NaN and infinities at 0. [h,w,3] float32."""
        picture = np.asarray(self._plate(n), np.float32)[..., :3]
        return np.nan_to_num(picture, nan=0.0, posinf=0.0, neginf=0.0)

    def grey(self, n: int) -> Bytes:
        """Return the picture for registration. [h,w] uint8."""
        if n not in self._grey:
            self._grey[n] = grey_picture(self.linear(n))
        return self._grey[n]

    def blocked(self, n: int) -> Bools:
        """Return what no background can be taken from: mattes, and pixels that are no numbers."""
        if n not in self._blocked:
            bad = np.asarray(~np.isfinite(np.asarray(self._plate(n))[..., :3]).all(axis=-1))
            covered = grow(self.covered(n), self.settings.margin_px) | grow(bad, 2)
            self._blocked[n] = np.packbits(covered)
        flat = np.unpackbits(self._blocked[n], count=self.height * self.width)
        return flat.reshape(self.height, self.width).astype(np.bool_)

    def covered(self, n: int) -> Bools:
        """Return the union of the mattes. [h,w] bool."""
        return np.asarray(self._covered(n), np.bool_)

    def encoded(self, n: int, gain: Floats) -> Floats:
        """Return a frame in encoded units, brought to the canvas' exposure. [h,w,3] float32."""
        if n in self._encoded:
            return self._encoded[n].astype(np.float32)
        made = encode(self.linear(n) * gain)
        if (len(self._encoded) + 1) * made.nbytes // 2 < _CACHE_BYTES:
            self._encoded[n] = made.astype(np.float16)
        return made.astype(np.float16).astype(np.float32)

    def away(self, n: int) -> Floats:
        """Return how far from the mattes a pixel is, 0 at them, 1 from ``reach`` on. [h,w]."""
        covered = self.covered(n)
        if not covered.any():
            return np.ones(covered.shape, np.float32)
        distance = cv2.distanceTransform((~covered).astype(np.uint8), cv2.DIST_L2, 5)
        reach = max(self.settings.reach * max(covered.shape), 1.0)
        return np.asarray(np.clip(distance / reach, 0.02, 1.0), np.float32)


def balance(canvas: Canvas, shot: Material) -> Floats:
    """Return what brings every frame to the exposure of the whole. [T,3] float32.

    Measured as the median ratio on steady, well exposed background; a change below what matters
    counts as none.
    """
    count = len(canvas.frames)
    gains = np.ones((count, 3), np.float32)
    if count < 3:
        return gains
    step = 4
    points = grid(canvas.width, canvas.height)[::step, ::step]
    stack = np.full((count, *points.shape[:2], 3), np.nan, np.float32)
    for i, n in enumerate(canvas.frames):
        picture = cv2.blur(shot.linear(n), (5, 5))
        values, there = sample(picture, ~grow(shot.blocked(n), 2), seen_at(canvas, i, points))
        fit = there & (values.min(axis=-1) > 0.02) & (values.max(axis=-1) < 0.95)
        fit &= ~canvas.unsteady[::step, ::step]
        stack[i][fit] = values[fit]
    middle, _ = masked_median(stack.copy())
    for i in range(count):
        ratio = middle / stack[i]
        good = np.isfinite(ratio).all(axis=-1)
        if good.sum() >= 50:
            gains[i] = np.median(ratio[good], axis=0)
    gains[np.abs(gains - 1.0) < _GAIN_SNAP] = 1.0
    return np.asarray(gains, np.float32)


def measure_ground(
    canvas: Canvas, shot: Material, gains: Floats, step: Steps
) -> tuple[Ground, dict[int, Bools], dict[int, Bools]]:
    """Find the background of one canvas, and what in its frames is effect rather than background.

    Returns:
        The ground, and per timeline frame the suspected effects and what else differs from the
        ground [h,w] bool.
    """
    first = _first_median(canvas, shot, gains)
    unsteady = _moving_background(first, shot)
    first = _look_through(canvas, shot, gains, first, unsteady)
    floor = _noise(first.coarse_spread, first.count)
    local = np.sqrt(cv2.blur(first.coarse_spread**2, (9, 9)) + floor**2)
    local += _SLACK_PX * _slope(cv2.blur(first.picture, (5, 5)))
    standing = _standing_shadows(first, shot, unsteady)
    unsteady &= ~standing
    suspects, strays = {}, {}
    for i, n in enumerate(canvas.frames):
        step()
        suspects[n], strays[n] = _suspects(canvas, i, shot, gains[i], first, local, unsteady)
    picture, sources, seen = _choose(canvas, shot, gains, suspects, first.picture, local, step)
    seen &= ~standing
    sources[:, ~seen] = NOBODY
    picture, shifts = _fill(picture, seen, first.visible)
    linear = np.asarray(decode(picture), np.float32)
    sigma = _noise(first.spread, first.count)
    return Ground(canvas, sources, linear, seen, shifts, unsteady, sigma), suspects, strays


def _fill(picture: Floats, seen: Bools, visible: Bools) -> tuple[Floats, NDArray[np.int16]]:
    """Fill what nobody saw but somebody looks at. Returns the picture and the offsets copied."""
    filled = fill_smooth(picture, seen)
    wanted = visible & ~seen
    shifts = np.zeros((*seen.shape, 2), np.int16)
    label_count, label = cv2.connectedComponents(grow(wanted, 6).astype(np.uint8))
    for part in range(1, label_count):
        hole = wanted & (label == part)
        # Seeded by nothing but the hole's number: the same shot is filled the same way.
        shifts += fill_by_shifts(filled, seen, hole, np.random.default_rng(part))
    ys, xs = np.nonzero(wanted)
    filled[ys, xs] = filled[ys + shifts[ys, xs, 1], xs + shifts[ys, xs, 0]]
    return filled, shifts


def _strips(canvas: Canvas) -> list[tuple[int, int]]:
    """Return runs of canvas rows whose samples of all frames fit the memory."""
    rows = max(8, _STACK_BYTES // (len(canvas.frames) * canvas.width * 3 * 4))
    return [(y, min(canvas.height, y + rows)) for y in range(0, canvas.height, rows)]


def _stack(
    canvas: Canvas, shot: Material, gains: Floats, rows: tuple[int, int]
) -> tuple[Floats, Floats]:
    """Return all frames' encoded samples of some canvas rows, NaN where not background.

    Returns:
        Samples [T,h,W,3] float32, and how far away the objects were [T,h,W] float32: -1 where
        the frame does not look, 0 where it sees no background.
    """
    shape = (len(canvas.frames), rows[1] - rows[0], canvas.width)
    stack = np.full((*shape, 3), np.nan, np.float32)
    away = np.zeros(shape, np.float32)
    for i, n in enumerate(canvas.frames):
        where = positions_in_frame(canvas, i, *rows)
        values, there = sample(shot.encoded(n, gains[i]), ~shot.blocked(n), where)
        stack[i][there] = values[there]
        away[i], inside = sample(shot.away(n), None, where)
        away[i][~there] = 0.0
        away[i][~inside] = -1.0
    return stack, away


@dataclass(frozen=True)
class _First:
    """The first look at a canvas: see :func:`_first_median`. All [H,W] but the picture."""

    picture: Floats
    spread: Floats
    coarse_spread: Floats
    count: NDArray[np.int32]
    nearest: Floats
    furthest: Floats
    hidden: Floats
    visible: Bools

    @classmethod
    def blank(cls, height: int, width: int) -> _First:
        """Return one with nothing in it, to be filled in place."""
        shape = (height, width)
        return cls(
            picture=np.zeros((*shape, 3), np.float32),
            spread=np.zeros(shape, np.float32),
            coarse_spread=np.zeros(shape, np.float32),
            count=np.zeros(shape, np.int32),
            nearest=np.zeros(shape, np.float32),
            furthest=np.zeros(shape, np.float32),
            hidden=np.zeros(shape, np.float32),
            visible=np.zeros(shape, np.bool_),
        )


def _first_median(canvas: Canvas, shot: Material, gains: Floats) -> _First:
    """Take the median of the samples that were taken while the objects were far away.

    A sample takes part if the objects were at least half as far away as they ever were. With it
    come the spread of these samples, that of their 5 by 5 means (texture that moves does not
    average out as noise does), their number, how near and how far the objects ever were, in what
    share of the frames no background was seen, and where any frame looks at all.
    """
    first = _First.blank(canvas.height, canvas.width)
    for y0, y1 in _strips(canvas):
        stack, away = _stack(canvas, shot, gains, (y0, y1))
        rows = slice(y0, y1)
        looks = (away >= 0.0).sum(axis=0)
        first.visible[rows] = looks > 0
        first.hidden[rows] = (away == 0.0).sum(axis=0) / np.maximum(looks, 1)
        first.furthest[rows] = away.max(axis=0)
        first.nearest[rows] = np.where(away >= 0.0, away, np.float32(1.0)).min(axis=0)
        chosen = np.isfinite(stack[..., 0]) & (away >= 0.5 * away.max(axis=0))
        _take_median(first, stack, _means(stack), chosen, (rows, slice(None)))
    first.picture[:] = fill_smooth(first.picture, first.count > 0)
    return first


def _take_median(
    first: _First, stack: Floats, means: Floats, chosen: Bools, here: tuple[slice, slice]
) -> None:
    """Put the median and spread of the chosen samples into a part. Spends its arguments."""
    stack[~chosen], means[~chosen] = np.nan, np.nan
    found, count = masked_median(stack)
    _, count_means = masked_median(means)
    first.picture[here] = np.nan_to_num(found)
    first.count[here] = count[..., 0]
    # The middle eight tenths of a normal distribution are 2.56 sigma wide.
    first.spread[here] = np.nan_to_num(span(stack, count, 0.1).mean(axis=-1) / 2.56)
    first.coarse_spread[here] = np.nan_to_num(span(means, count_means, 0.1) / 2.56)


def _moving_background(first: _First, shot: Material) -> Bools:
    """Find background that moves by itself, as opposed to effects that move. [H,W] bool.

    Both vary. Effects stay where the objects have been; waves and leaves go on beyond.
    """
    grey = 255 * first.picture.mean(axis=-1)
    varies = moves_by_itself(255 * 1.349 * first.spread, grey, first.count, _SLACK_PX)
    count, label = cv2.connectedComponents(grow(varies, 4).astype(np.uint8))
    beyond = first.nearest * shot.settings.reach > _BESIDE
    size = np.bincount(label[varies], minlength=count)
    outside = np.bincount(label[varies & beyond], minlength=count)
    moving = outside > _GOES_ON * np.maximum(size, 1)
    moving[0] = False
    return np.asarray(moving[label] & grow(varies, 4))


def _look_through(
    canvas: Canvas, shot: Material, gains: Floats, first: _First, unsteady: Bools
) -> _First:
    """Take the median again near the objects, of samples that nothing lies over.

    Those are told by texture and by agreement (``parts/veil.py``); background that moves by
    itself has neither and keeps its first median.
    """
    wanted = (first.nearest < 1.0) & first.visible & ~unsteady
    if len(canvas.frames) < 3 or not wanted.any():
        return first
    again = _First.blank(canvas.height, canvas.width)
    for y0, y1 in _strips(canvas):
        if not wanted[y0:y1].any():
            continue
        top, bottom = max(0, y0 - HALO_PX), min(canvas.height, y1 + HALO_PX)
        columns = np.flatnonzero(wanted[y0:y1].any(axis=0))
        across = slice(max(0, columns[0] - HALO_PX), columns[-1] + 1 + HALO_PX)
        stack, away = (x[:, :, across] for x in _stack(canvas, shot, gains, (top, bottom)))
        means = _means(stack)
        chosen = _trusted(stack, means, away)
        core = np.s_[:, y0 - top : y1 - top]
        _take_median(again, stack[core], means[core], chosen[core], (slice(y0, y1), across))
    wanted &= again.count > 0
    for old, new in (
        (first.picture, again.picture),
        (first.spread, again.spread),
        (first.coarse_spread, again.coarse_spread),
        (first.count, again.count),
    ):
        old[wanted] = new[wanted]
    return first


def _trusted(stack: Floats, means: Floats, away: Floats) -> Bools:
    """Tell which samples may say what the background is. [T,h,W] bool.

    Those that show its texture as fully as any and that repeat one another, the more to be
    believed the further away the objects were.
    """
    trust = np.where(np.isfinite(means), np.maximum(away, np.float32(0.0)), np.float32(0.0))
    chosen = trust > 0
    for _ in range(_VEIL_ROUNDS):
        pick = stack.copy()
        pick[~chosen] = np.nan
        middle = np.nan_to_num(masked_median(pick)[0])
        bare = bare_samples(stack, middle)
        noise = _noise(*_spread_of(means))
        tolerance = 3.0 * noise + _SLACK_PX * _slope(middle)
        chosen = agreeing_samples(means, np.where(bare, trust, np.float32(0.0)), tolerance)
    return chosen


def _spread_of(means: Floats) -> tuple[Floats, NDArray[np.int32]]:
    """Return what samples vary by from frame to frame, and how many there were. [h,W]."""
    ordered = means[:, ::4, ::4].copy()
    _, count = masked_median(ordered)
    return np.nan_to_num(span(ordered, count, 0.25) / 1.349), count


def _means(stack: Floats) -> Floats:
    """Return the 5 by 5 means over what is background, of the grey samples. [T,h,W] float32."""
    out = np.empty(stack.shape[:3], np.float32)
    for i, values in enumerate(stack):
        grey = values.mean(axis=-1)
        known = np.isfinite(grey)
        summed = cv2.blur(np.where(known, grey, np.float32(0.0)), (5, 5))
        share = cv2.blur(known.astype(np.float32), (5, 5))
        out[i] = np.where(known, summed / np.maximum(share, 1e-3), np.float32(np.nan))
    return out


def _noise(spread: Floats, count: NDArray[np.int32]) -> float:
    """Return what most of the background varies by, encoded units; a guess for few frames."""
    many = count >= 4
    if not many.any():
        return _SIGMA_GUESS
    return max(float(np.median(spread[many])), _SIGMA_LEAST)


def _standing_shadows(first: _First, shot: Material, unsteady: Bools) -> Bools:
    """Find shadows that no frame sees the ground without, because the object stood still.

    A dark mark, narrower than objects cast, darker in all channels alike, that begins where the
    object stands (background hidden in most frames) and that the objects never left far behind.
    A dark thing that truly stands there looks the same: it is filled too, and comes back as part
    of the object's layer. On ground that is full of dark marks (bricks, planks) nothing is found.

    Returns:
        [H,W] bool.
    """
    base = (first.hidden > _STANDS) & first.visible
    if not base.any():
        return np.zeros(base.shape, np.bool_)
    long_edge = max(shot.width, shot.height)
    size = 2 * round(_SHADOW_WIDTH * long_edge) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    linear = np.asarray(decode(first.picture), np.float32)
    lit = cv2.morphologyEx(cv2.GaussianBlur(linear, (0, 0), 1.0), cv2.MORPH_CLOSE, disc)
    ratio = linear / np.maximum(lit, 1e-4)
    darkest, lightest = ratio.min(axis=-1), ratio.max(axis=-1)
    near = (first.furthest < 1.0) & first.visible
    alike = (darkest > 0.35 * lightest) | (lightest < 0.35)
    # Among waves only what is very dark is told from them.
    limit = np.where(unsteady, _SHADOW_AMONG_WAVES, _SHADOW_WEAK)
    dark = near & (lightest < limit) & alike
    elsewhere = near & ~grow(base, size)
    if dark[elsewhere].sum() > _MARKED_GROUND * max(int(elsewhere.sum()), 1):
        return np.zeros(base.shape, np.bool_)
    seed = grow(base, 4) & dark & (lightest < _SHADOW_STRONG)
    return grow(attached(dark | base, seed) & dark, _PENUMBRA_PX)


def _slope(picture: Floats) -> Floats:
    """Return by how much a picture changes per pixel, averaged a little. [h,w] float32."""
    grey = picture.mean(axis=-1)
    across = cv2.Sobel(grey, cv2.CV_32F, 1, 0, scale=1 / 8)
    down = cv2.Sobel(grey, cv2.CV_32F, 0, 1, scale=1 / 8)
    return np.asarray(cv2.blur(np.hypot(across, down), (5, 5)), np.float32)


def _suspects(
    canvas: Canvas,
    i: int,
    shot: Material,
    gain: Floats,
    first: _First,
    local: Floats,
    unsteady: Bools,
) -> tuple[Bools, Bools]:
    """Return what of a frame is an effect near the mattes, and what else differs. [h,w] bool.

    Pixels beyond the noise count where they hang together with pixels well beyond it, within reach
    of a matte: hysteresis follows a soft shadow down to its rim.
    """
    n = canvas.frames[i]
    where = on_canvas(canvas, i, grid(shot.width, shot.height))
    expected, there = sample(first.picture, first.count > 0, where)
    tolerance, _ = sample(local, None, where)
    moving, _ = sample(unsteady.astype(np.float32), None, where)
    off = cv2.blur(shot.encoded(n, gain) - expected, (5, 5))
    z = np.sqrt((off**2).mean(axis=-1)) / tolerance
    beyond = there & ~shot.blocked(n) & (z > _SUSPECT)
    away, calm = shot.away(n) * shot.settings.reach, moving == 0.0
    weak = calm | (away < 3.0 * _NEAR_UNSTEADY)
    strong = away < np.where(calm, 0.999 * shot.settings.reach, _NEAR_UNSTEADY)
    suspects = grow(attached(beyond & weak, beyond & weak & strong & (z > _SEED)), 1)
    return suspects, beyond & ~suspects


def _choose(
    canvas: Canvas,
    shot: Material,
    gains: Floats,
    suspects: dict[int, Bools],
    first: Floats,
    local: Floats,
    step: Steps,
) -> tuple[Floats, NDArray[np.uint16], Bools]:
    """Choose the frames that each background pixel is taken from.

    Where all samples are suspected the first median stands, and they are used after all.

    Returns:
        Median [H,W,3] encoded, sources [K,H,W] uint16, seen [H,W] bool.
    """
    tries = min(shot.settings.samples, len(canvas.frames))
    shape = (canvas.height, canvas.width)
    picture, seen = first.copy(), np.zeros(shape, np.bool_)
    sources = np.full((tries, *shape), NOBODY, np.uint16)
    # Of the samples that are near enough to the median the best registered frames are taken, so
    # that level regions take the same few frames and gathering stays quick.
    rank = np.argsort(np.argsort(canvas.error_px, kind="stable"), kind="stable")
    preference = rank.astype(np.float32)[:, None, None] / max(len(rank), 1)
    for y0, y1 in _strips(canvas):
        step()
        stack, _ = _stack(canvas, shot, gains, (y0, y1))
        refused = _refused(canvas, suspects, (y0, y1))
        lost = (np.isfinite(stack[..., 0]) & ~refused).sum(axis=0) == 0
        stack[refused & ~lost] = np.nan
        far = _far_from(stack, first[y0:y1], local[y0:y1])
        stack[far > _OUTLIER + far.min(axis=0)] = np.nan
        ordered = stack.copy()
        median, count = masked_median(ordered)
        del ordered
        there = count[..., 0] > 0
        seen[y0:y1] = there
        picture[y0:y1][there] = median[there]
        far = _far_from(stack, np.nan_to_num(median), local[y0:y1])
        best_yet = far.min(axis=0)
        far[far > _GOOD_AT_ALL + best_yet] = np.inf
        far = np.where(far < _GOOD_ENOUGH + best_yet, preference, far + 1.0)
        best = np.argsort(far, axis=0)[:tries]
        chosen = best.astype(np.uint16)
        chosen[~np.isfinite(np.take_along_axis(far, best, axis=0))] = NOBODY
        sources[:, y0:y1] = chosen
    return picture, sources, seen


def _refused(canvas: Canvas, suspects: dict[int, Bools], rows: tuple[int, int]) -> Bools:
    """Return where on some canvas rows each frame shows an effect. [T,h,W] bool."""
    out = np.zeros((len(canvas.frames), rows[1] - rows[0], canvas.width), np.bool_)
    for i, n in enumerate(canvas.frames):
        if suspects[n].any():
            where = positions_in_frame(canvas, i, *rows)
            out[i] = sample(suspects[n].astype(np.float32), None, where)[0] > 1e-3
    return out


def _far_from(stack: Floats, middle: Floats, local: Floats) -> Floats:
    """Return how many local sigmas each sample's surroundings differ, inf for none. [T,h,W]."""
    out = np.empty(stack.shape[:3], np.float32)
    for i, values in enumerate(stack):
        off = cv2.blur(np.nan_to_num(values - middle), (5, 5))
        out[i] = np.sqrt((off**2).mean(axis=-1)) / local
        out[i][~np.isfinite(values[..., 0])] = np.inf
    return out
