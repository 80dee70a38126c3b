# SPDX-License-Identifier: Apache-2.0
"""The plate without its objects, gathered over time from the plate itself.

Two halves. :func:`plan_clean_plate` decides everything at model size for the whole shot: how the
frames lie over one another (``parts/register.py``), what of each frame is background, which frames
to take each background pixel from, what no frame has seen. :func:`gather_frame` then makes one
frame at plate size out of the plate's own pixels, reading rows.

How a background pixel is decided: of the samples that no matte covers, those taken while the
objects were furthest away have the first say (a median); samples near the mattes that differ from
it beyond the noise are shadows or reflections and are left out; of the rest the few nearest to
the median are averaged.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from gencomp_server.parts.encoding import decode, encode
from gencomp_server.parts.inpaint import fill_by_shifts, fill_smooth
from gencomp_server.parts.register import (
    FLOW_STEP,
    Canvas,
    apply,
    attached,
    flow_at,
    grey_picture,
    grid,
    grow,
    masked_median,
    moves_by_itself,
    on_canvas,
    positions_in_frame,
    register_shot,
    register_to,
    sample,
    seen_at,
    span,
    spread,
)
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

_STACK_BYTES = 160_000_000
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
_PENUMBRA_PX = 4
# Moving background hides effects: only what is this near to the mattes is suspected there.
_NEAR_UNSTEADY = 0.05
_GOOD_ENOUGH = 1.0
_VEIL_ROUNDS = 2
_STRIP_PIXELS = 1_000_000
_SMALL_SHARE = 0.05


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


@dataclass(frozen=True)
class Painted:
    """An artist's clean frame and how it lies over the plate of its frame.

    Attributes:
        frame: Timeline frame.
        motion: Plate to painted picture, model pixels. [3,3] float64.
        flow: To add in the painted picture, on the coarse grid. [h',w',2] float32.
        gain: Painted picture to the canvas' exposure, per channel. [3] float32.
        error_px: The miss that is left.
    """

    frame: int
    motion: NDArray[np.float64]
    flow: Floats
    gain: Floats
    error_px: float


@dataclass(frozen=True)
class CleanPlatePlan:
    """All decisions about a shot's clean plate, at model size.

    Attributes:
        frames: Timeline frames, in order.
        width: Model width in pixels.
        height: Model height in pixels.
        grounds: One per canvas; usually one.
        gains: Brings a frame to its canvas' exposure, per channel. [T,3] float32.
        suspected: Shadow, reflection and the like near the mattes. [T,h,w] bool.
        own: How far the frame's own pixel is its own clean plate (waves away from the objects);
            255 = wholly. [T,h,w] uint8. Where it is not 0, plate and clean plate are no
            independent measurements.
        seam: What brings the fill under moving background to its surroundings, on the grid of
            every ``FLOW_STEP`` pixels, to add in scene-linear. [T,h',w',3] float32.
        never_seen: Background that no frame shows, filled. [T,h,w] bool.
        never_seen_share: Share of the picture. [T] float32.
        error_px: How far registration is off, plate pixels at model size. [T] float32.
        features: Points that agreed on the registration. [T] int32.
        sigma: Noise of one sample, in encoded units.
        painted: The artist's frames.
        settings: What it was made with.
    """

    frames: tuple[int, ...]
    width: int
    height: int
    grounds: tuple[Ground, ...]
    gains: Floats
    suspected: Bools
    own: Bytes
    seam: Floats
    never_seen: Bools
    never_seen_share: Floats
    error_px: Floats
    features: NDArray[np.int32]
    sigma: float
    painted: tuple[Painted, ...]
    settings: CleanPlateSettings


# --- deciding ------------------------------------------------------------------------------------


def plan_clean_plate(
    frames: tuple[int, ...],
    plate_model: Frame,
    covered: Callable[[int], Bools],
    settings: CleanPlateSettings | None = None,
    painted: Mapping[int, Floats] | None = None,
    progress: Callable[[int, int], None] = lambda step, total: None,
) -> CleanPlatePlan:
    """Decide a shot's clean plate at model size.

    Args:
        frames: Timeline frames, in order; at least one.
        plate_model: Gives a frame of the plate. [h,w,3] float32, scene-linear; NaN and infinities
            are left out of everything.
        covered: Gives the union of all mattes of a frame. [h,w] bool.
        settings: What can be turned; the defaults where None.
        painted: An artist's clean frames by frame. [h,w,3] float32, scene-linear.
        progress: Called with (step, total); may raise to stop.

    Returns:
        The plan: plain data.
    """
    settings = settings or CleanPlateSettings()
    shot = _Material(frames, plate_model, covered, settings)
    total = 8 * len(frames)
    canvases = register_shot(
        frames,
        shot.grey,
        shot.blocked,
        flow=settings.flow,
        progress=lambda step, _: progress(step, total),
    )
    gains = np.ones((len(frames), 3), np.float32)
    grounds: list[Ground] = []
    suspected: dict[int, Bools] = {}
    strays: dict[int, Bools] = {}
    for canvas in canvases:
        start = 4 * len(frames) + 4 * frames.index(canvas.frames[0])
        steps = _Steps(progress, start, total)
        balance = _balance(canvas, shot)
        gains[[frames.index(n) for n in canvas.frames]] = balance
        ground, shadows, others = _measure_ground(canvas, shot, balance, steps)
        suspected.update(shadows)
        strays.update(others)
        grounds.append(ground)
    return _assemble(shot, tuple(grounds), gains, suspected, strays, painted or {})


@dataclass
class _Steps:
    """Counts steps of one canvas into the progress of the whole."""

    report: Callable[[int, int], None]
    done: int
    total: int

    def __call__(self) -> None:
        self.report(self.done, self.total)
        self.done += 1


class _Material:
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


def _balance(canvas: Canvas, shot: _Material) -> Floats:
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


def _measure_ground(
    canvas: Canvas, shot: _Material, gains: Floats, step: _Steps
) -> tuple[Ground, dict[int, Bools], dict[int, Bools]]:
    """Find the background of one canvas, and what in its frames is effect rather than background.

    Returns:
        The ground, and per timeline frame the suspected effects and what else differs from the
        ground [h,w] bool.
    """
    first = _first_median(canvas, shot, gains)
    grey = 255 * first.picture.mean(axis=-1)
    unsteady = moves_by_itself(255 * 1.349 * first.spread, grey, first.count, _SLACK_PX)
    floor = _noise(first.coarse_spread, first.count)
    local = np.sqrt(cv2.blur(first.coarse_spread**2, (9, 9)) + floor**2)
    local += _SLACK_PX * _slope(cv2.blur(first.picture, (5, 5)))
    standing = _standing_shadows(first, shot)
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
    canvas: Canvas, shot: _Material, gains: Floats, rows: tuple[int, int]
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
    furthest: Floats
    hidden: Floats
    visible: Bools


def _first_median(canvas: Canvas, shot: _Material, gains: Floats) -> _First:
    """Take the median of the samples that were taken while the objects were far away.

    Which take part: see :func:`_trusted`. With it come the spread of these samples, that of their
    5 by 5 means (texture that moves does not average out as noise does), their number, how far
    the objects ever were, in what share of the frames no background was seen, and where any frame
    looks at all.
    """
    shape = (canvas.height, canvas.width)
    picture = np.zeros((*shape, 3), np.float32)
    fine, coarse = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    count, furthest = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
    hidden, visible = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
    for y0, y1 in _strips(canvas):
        top, bottom = max(0, y0 - HALO_PX), min(canvas.height, y1 + HALO_PX)
        stack, away = _stack(canvas, shot, gains, (top, bottom))
        means = _means(stack)
        left_out = ~_trusted(stack, means, away)
        stack[left_out], means[left_out] = np.nan, np.nan
        core = np.s_[y0 - top : y1 - top]
        looks = (away[:, core] >= 0.0).sum(axis=0)
        visible[y0:y1] = looks > 0
        hidden[y0:y1] = (away[:, core] == 0.0).sum(axis=0) / np.maximum(looks, 1)
        furthest[y0:y1] = away[:, core].max(axis=0)
        stack, means = stack[:, core], means[:, core]
        found, left = masked_median(stack)
        picture[y0:y1] = np.nan_to_num(found)
        count[y0:y1] = left[..., 0]
        # The middle eight tenths of a normal distribution are 2.56 sigma wide.
        fine[y0:y1] = np.nan_to_num(span(stack, left, 0.1).mean(axis=-1) / 2.56)
        _, left_means = masked_median(means)
        coarse[y0:y1] = np.nan_to_num(span(means, left_means, 0.1) / 2.56)
    filled = fill_smooth(picture, count > 0)
    return _First(filled, fine, coarse, count, furthest, hidden, visible)


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


def _standing_shadows(first: _First, shot: _Material) -> Bools:
    """Find shadows that no frame sees the ground without, because the object stood still.

    A dark mark, narrower than objects cast, darker in all channels alike, that begins where the
    object stands (background hidden in most frames) and that the objects never left far behind.
    A dark thing that truly stands there looks the same: it is filled too, and comes back as part
    of the object's layer.

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
    weak = near & (lightest < _SHADOW_WEAK) & alike
    weak |= base
    seed = grow(base, 4) & weak & ~base & (lightest < _SHADOW_STRONG)
    return grow(attached(weak & ~base, seed), _PENUMBRA_PX)


def _slope(picture: Floats) -> Floats:
    """Return by how much a picture changes per pixel, averaged a little. [h,w] float32."""
    grey = picture.mean(axis=-1)
    across = cv2.Sobel(grey, cv2.CV_32F, 1, 0, scale=1 / 8)
    down = cv2.Sobel(grey, cv2.CV_32F, 0, 1, scale=1 / 8)
    return np.asarray(cv2.blur(np.hypot(across, down), (5, 5)), np.float32)


def _suspects(
    canvas: Canvas,
    i: int,
    shot: _Material,
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
    shot: _Material,
    gains: Floats,
    suspects: dict[int, Bools],
    first: Floats,
    local: Floats,
    step: _Steps,
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
        good = far < _GOOD_ENOUGH + far.min(axis=0)
        far = np.where(good, preference, far + 1.0)
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


def _assemble(
    shot: _Material,
    grounds: tuple[Ground, ...],
    gains: Floats,
    suspected: dict[int, Bools],
    strays: dict[int, Bools],
    painted: Mapping[int, Floats],
) -> CleanPlatePlan:
    """Bring what was decided on the canvases into every frame."""
    frames, shape = shot.frames, (shot.height, shot.width)
    coarse = (-(-shot.height // FLOW_STEP), -(-shot.width // FLOW_STEP))
    own = np.zeros((len(frames), *shape), np.uint8)
    seam = np.zeros((len(frames), *coarse, 3), np.float32)
    never = np.zeros((len(frames), *shape), np.bool_)
    error = np.zeros(len(frames), np.float32)
    features = np.zeros(len(frames), np.int32)
    for ground in grounds:
        for i, n in enumerate(ground.canvas.frames):
            t = frames.index(n)
            error[t], features[t] = ground.canvas.error_px[i], ground.canvas.features[i]
            where = on_canvas(ground.canvas, i, grid(shot.width, shot.height))
            seen, _ = sample(ground.seen.astype(np.float32), None, where)
            never[t] = seen < 0.5
            if shot.settings.keep_unsteady:
                own[t] = _own(ground, where, shot, n, suspected[n], strays[n])
                seam[t] = _seam(ground, where, shot.linear(n), own[t], gains[t])
    return CleanPlatePlan(
        frames=frames,
        width=shot.width,
        height=shot.height,
        grounds=grounds,
        gains=gains,
        suspected=np.stack([suspected[n] for n in frames]),
        own=own,
        seam=seam,
        never_seen=never,
        never_seen_share=never.mean(axis=(1, 2)).astype(np.float32),
        error_px=error,
        features=features,
        sigma=max(ground.sigma for ground in grounds),
        painted=_register_painted(shot, painted, gains),
        settings=shot.settings,
    )


def _own(
    ground: Ground, where: Floats, shot: _Material, n: int, suspected: Bools, strays: Bools
) -> Bytes:
    """Return where a frame's own moving background is its own clean plate. [h,w] uint8."""
    moving, _ = sample(ground.unsteady.astype(np.float32), None, where)
    seen, _ = sample(ground.seen.astype(np.float32), None, where)
    theirs = grow(shot.blocked(n) | suspected, 2) | grow(seen < 0.5, 5)
    mine = ((moving > 0.5) | grow(strays, 4)) & ~theirs
    soft = cv2.blur(cv2.erode(mine.astype(np.float32), np.ones((5, 5), np.uint8)), (5, 5))
    return np.asarray(np.rint(soft * 255), np.uint8)


def _seam(ground: Ground, where: Floats, plate: Floats, own: Bytes, gain: Floats) -> Floats:
    """Return what the fill lacks to meet a frame's own moving background. [h',w',3] float32.

    The difference of the two outside, carried smoothly inside, as far as the background moves.
    """
    height, width = own.shape
    coarse = (-(-width // FLOW_STEP), -(-height // FLOW_STEP))
    if not own.any():
        return np.zeros((coarse[1], coarse[0], 3), np.float32)
    below, _ = sample(ground.picture, None, where)
    weight = own.astype(np.float32) / 255.0
    below = below / gain
    # A wave is brighter or darker than its mean by so much; more is something else.
    lack = np.clip(plate - below, -0.3 * np.abs(below), 0.3 * np.abs(below)) * weight[..., None]
    smooth = spread(
        cv2.resize(lack, coarse, interpolation=cv2.INTER_AREA),
        cv2.resize(weight, coarse, interpolation=cv2.INTER_AREA),
        sigma=2.0,
    )
    moving, _ = sample(ground.unsteady.astype(np.float32), None, where)
    # Beneath an object that stands still nobody knows whether it moves: as its surroundings do.
    known, _ = sample(ground.seen.astype(np.float32), None, where)
    share = spread(
        cv2.resize(moving * known, coarse, interpolation=cv2.INTER_AREA)[..., None],
        cv2.resize(known, coarse, interpolation=cv2.INTER_AREA),
        sigma=3.0,
    )
    return np.asarray(smooth * share, np.float32)


def _register_painted(
    shot: _Material, painted: Mapping[int, Floats], gains: Floats
) -> tuple[Painted, ...]:
    """Lay each painted frame over the plate of its frame."""
    made = []
    for n in sorted(painted):
        picture = np.nan_to_num(painted[n][..., :3], nan=0.0, posinf=0.0, neginf=0.0)
        motion, flow, miss = np.eye(3), np.zeros((1, 1, 2), np.float32), 0.0
        if shot.settings.register_painted:
            motion, flow, miss = register_to(shot.linear(n), picture, shot.blocked(n))
        made.append(Painted(n, motion, flow, gains[shot.frames.index(n)].copy(), miss))
    return tuple(made)


# --- gathering -----------------------------------------------------------------------------------


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
        where = self._where(share, functools.partial(seen_at, self.canvas, source))
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

    def _where(self, share: Floats, move: Callable[[Floats], Floats]) -> Floats:
        """Return the positions of this frame's model pixels, with margin, where they are used."""
        used = grow(np.pad(share, 1, mode="edge") > 0, 2)
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
            finite = np.isfinite(picture).all(axis=-1)
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

    def _paint(self, total: Floats) -> None:
        """Lay the artist's frames over what was gathered: the nearest ones in time, mixed."""
        size = (self.width, self.height)
        mixed = np.zeros((*self.on_canvas.shape[:2], 1), np.float32)
        layers = []
        for painted, amount in _painted_near(self.plan.painted, self.n, self.canvas.frames):
            where = self._painted_where(painted)
            inside = (where >= -0.51).all(axis=-1) & (where[..., 0] <= self.plan.width - 0.49)
            inside &= where[..., 1] <= self.plan.height - 0.49
            share = np.float32(amount) * inside.astype(np.float32)[..., None]
            mixed += share
            layers.append((painted, where, share))
        if not layers:
            return
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
