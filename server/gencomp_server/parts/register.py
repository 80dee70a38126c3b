# SPDX-License-Identifier: Apache-2.0
"""Laying frames over one another by their background: homographies, then a smooth flow.

At model size; ``parts/canvas.py`` says what comes out. Mattes are left out of all measurements;
the flow runs on smoothly underneath them. Measurements run on encoded 8-bit pictures, so that an
HDR highlight weighs no more than a white wall. Deterministic: RANSAC is seeded, and the optical
flow, whose bits depend on the number of threads, runs on one.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from gencomp_server.colour.modelrange import encode
from gencomp_server.parts.canvas import (
    FLOW_STEP,
    Canvas,
    apply,
    attached,
    grid,
    grow,
    masked_median,
    on_canvas,
    positions_in_frame,
    render_ground,
    sample,
    span,
    spread,
    turned_round,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]
    Bytes = NDArray[np.uint8]
    Bools = NDArray[np.bool_]

_CANVAS_AREAS = 8.0
_MATTE_MARGIN_PX = 4
_FEATURES = 600
_TRACK: dict[str, Any] = {
    "winSize": (21, 21),
    "maxLevel": 4,
    "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 30, 0.005),
    "minEigThreshold": 1e-5,
}
# A tracked feature is known to about this; motions cheaper to tell are preferred unless they miss.
_TRACK_SIGMA_PX = 0.25
_COST_PER_FREEDOM = 4.0
_INLIER_PX = 1.5
_LEVEL_PX, _LEVEL_FLOOR = 8.0, 12.0
_MEDIAN_FRAMES = 64
_FLOW_MIN_PX = 0.12
# A flow that does not bring the whole this much nearer follows waves, not parallax.
_FLOW_FROM_PX, _FLOW_HELPS, _UNSTEADY_PX = 0.4, 0.75, 2.0
_FLOW_MAX_PX = 12.0
# How far frames may be off, turn by turn, before varying counts as moving by itself.
_SLACK_PX = (1.5, 0.8, 0.4)
_ENOUGH_TO_VARY = 5
_NOISE_MOST = 6.0
_UNSTEADY_MOST = 0.8


# --- pictures to measure on ----------------------------------------------------------------------


def grey_picture(linear: NDArray[np.floating]) -> Bytes:
    """Return the picture that features are found on. [h,w] uint8.

    Args:
        linear: Plate at model size. [h,w,3] scene-linear; NaN and infinities become black.
    """
    finite = np.nan_to_num(np.asarray(linear, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    bright = encode(finite[..., :3]).mean(axis=-1) * 255.0
    return np.asarray(np.clip(bright, 0.0, 255.0), np.uint8)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


# --- one motion ----------------------------------------------------------------------------------


def track(start: Bytes, end: Bytes, usable: Bools, guess: Doubles | None = None) -> Doubles:
    """Follow features from one picture to another, there and back.

    Args:
        start: Where features are found. [h,w] uint8.
        end: Where they are looked for. [h,w] uint8.
        usable: Pixels of ``start`` that may carry a feature. [h,w] bool.
        guess: Homography from start to end to begin from, or None.

    Returns:
        Pairs that came back to within half a pixel. [P,2,2] float64: [:,0] start, [:,1] end.
    """
    start, end = _levelled(start), _levelled(end)
    found = _features(start, usable)
    if found is None:
        return np.empty((0, 2, 2))
    flags, begin = 0, None
    if guess is not None:
        flags, begin = cv2.OPTFLOW_USE_INITIAL_FLOW, apply(guess, found)
    with _one_thread():
        there, good, _ = cv2.calcOpticalFlowPyrLK(start, end, found, begin, flags=flags, **_TRACK)
        back, returned, _ = cv2.calcOpticalFlowPyrLK(
            end, start, there, found.copy(), flags=cv2.OPTFLOW_USE_INITIAL_FLOW, **_TRACK
        )
    height, width = end.shape
    a, b = found[:, 0].astype(np.float64), there[:, 0].astype(np.float64)
    inside = (b >= 0).all(1) & (b[:, 0] <= width - 1) & (b[:, 1] <= height - 1)
    home = np.hypot(*(back[:, 0] - found[:, 0]).T) < 0.5
    keep = (good[:, 0] == 1) & (returned[:, 0] == 1) & home & inside
    return np.stack([a[keep], b[keep]], axis=1)


def _levelled(picture: Bytes) -> Bytes:
    """Return a picture of even local brightness and contrast: exposure does not move features.

    What is flat stays flat: contrast below a few levels is not raised to that of an edge.
    """
    grey = picture.astype(np.float32)
    detail = grey - cv2.GaussianBlur(grey, (0, 0), _LEVEL_PX)
    contrast = np.sqrt(cv2.GaussianBlur(detail**2, (0, 0), _LEVEL_PX) + _LEVEL_FLOOR**2)
    return np.asarray(np.clip(detail / contrast * 42.0 + 128.0, 0.0, 255.0), np.uint8)


def _features(picture: Bytes, usable: Bools) -> NDArray[np.float32] | None:
    """Find features in every part of the picture, not only in its busiest. [P,1,2] or None."""
    height, width = picture.shape
    found = []
    for rows in np.array_split(np.arange(height), 3):
        for columns in np.array_split(np.arange(width), 4):
            if rows.size < 8 or columns.size < 8:
                continue
            part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            corners = cv2.goodFeaturesToTrack(
                np.ascontiguousarray(picture[part]),
                maxCorners=_FEATURES // 12,
                qualityLevel=0.01,
                minDistance=5,
                mask=np.ascontiguousarray(usable[part]).astype(np.uint8),
            )
            if corners is not None:
                found.append(
                    corners.reshape(-1, 1, 2) + np.array([columns[0], rows[0]], np.float32)
                )
    return np.concatenate(found).astype(np.float32) if found else None


def fit_motion(pairs: Doubles) -> tuple[Doubles, int]:
    """Return the simplest camera motion that explains point pairs, and how many agree.

    Still, shift, similarity and homography are tried; each freedom has to earn its cost, so a
    locked-off camera stays exactly still, and a few features cannot bend the picture.

    Args:
        pairs: Points before and after. [P,2,2] float64.

    Returns:
        Homography from before to after [3,3] float64, and the number of agreeing pairs.
    """
    a, b = np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1])
    still = np.eye(3)
    if len(pairs) == 0:
        return still, 0
    candidates = [(0, still)]
    shift = still.copy()
    shift[:2, 2] = np.median(b - a, axis=0)
    candidates.append((2, shift))
    cv2.setRNGSeed(1)
    if len(pairs) >= 6:
        similar, _ = cv2.estimateAffinePartial2D(a, b, ransacReprojThreshold=_INLIER_PX)
        if similar is not None:
            candidates.append((4, np.vstack([similar, [0.0, 0.0, 1.0]])))
    if len(pairs) >= 12:
        full, _ = cv2.findHomography(a, b, cv2.RANSAC, _INLIER_PX, maxIters=4000, confidence=0.999)
        if full is not None:
            candidates.append((8, full / full[2, 2]))
    judged = [(_cost(h, a, b) + _COST_PER_FREEDOM * freedoms, h) for freedoms, h in candidates]
    best = min(judged, key=lambda entry: entry[0])[1]
    agreeing = np.hypot(*(apply(best, a) - b).T) < _INLIER_PX
    return best, int(agreeing.sum())


def _cost(homography: Doubles, a: Doubles, b: Doubles) -> float:
    squared = ((apply(homography, a) - b) ** 2).sum(axis=1) / _TRACK_SIGMA_PX**2
    return float(np.minimum(squared, (_INLIER_PX / _TRACK_SIGMA_PX) ** 2).sum())


def _measure(start: Bytes, end: Bytes, usable: Bools) -> tuple[Doubles, int]:
    """Return the motion between two frames; one that is lost is looked for from afar."""
    pairs = track(start, end, usable)
    motion, agreeing = fit_motion(pairs)
    if agreeing >= max(25, 0.25 * len(pairs)):
        return motion, agreeing
    window = cv2.createHanningWindow((start.shape[1], start.shape[0]), cv2.CV_32F)
    from_, to = (_levelled(picture).astype(np.float32) for picture in (start, end))
    (dx, dy), _ = cv2.phaseCorrelate(from_, to, window)
    guess = np.array([[1.0, 0.0, dx], [0.0, 1.0, dy], [0.0, 0.0, 1.0]])
    other, more = fit_motion(track(start, end, usable, guess))
    return (other, more) if more > agreeing else (motion, agreeing)


# --- a shot --------------------------------------------------------------------------------------


def register_shot(
    frames: tuple[int, ...],
    grey: Callable[[int], Bytes],
    covered: Callable[[int], Bools],
    *,
    flow: bool = True,
    progress: Callable[[int, int], None] = lambda step, total: None,
) -> tuple[Canvas, ...]:
    """Lay a shot's frames over one another; split it where no single canvas can hold it.

    Args:
        frames: Timeline frames, in order; at least one.
        grey: Gives a frame's picture to measure on. [h,w] uint8.
        covered: Gives what is not background in a frame. [h,w] bool.
        flow: Whether a smooth flow refines the homographies.
        progress: Called with (step, total).

    Returns:
        Canvases that share out the frames, in order.
    """
    total = 4 * len(frames)
    usable = {n: ~grow(covered(n), _MATTE_MARGIN_PX) for n in frames}
    steps = [np.eye(3)]
    for i, (a, b) in enumerate(itertools.pairwise(frames)):
        progress(i, total)
        steps.append(_measure(grey(a), grey(b), usable[a])[0])
    made: list[Canvas] = []
    for part in _segments(list(range(len(frames))), steps, grey(frames[0]).shape):
        made.append(
            _refine(
                tuple(frames[i] for i in part),
                _chain([steps[i] for i in part]),
                grey,
                usable,
                flow,
                functools.partial(_report, progress, len(frames) + 3 * part[0], total),
            )
        )
    return tuple(made)


def _report(progress: Callable[[int, int], None], before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _chain(steps: list[Doubles]) -> Doubles:
    """Return the motion from the middle frame to every frame, from frame to frame motions."""
    total = [np.eye(3)]
    for step in steps[1:]:
        chained = step @ total[-1]
        total.append(chained / chained[2, 2])
    middle = np.linalg.inv(total[len(total) // 2])
    return np.stack([_unit(h @ middle) for h in total])


def _unit(homography: Doubles) -> Doubles:
    return np.asarray(homography / homography[2, 2])


def _segments(
    indices: list[int], steps: list[Doubles], shape: tuple[int, ...]
) -> Iterator[list[int]]:
    """Yield runs of frames whose mosaic stays of a sane size, halving until they do."""
    chained = _chain([steps[i] for i in indices])
    if len(indices) == 1 or _extent(chained, shape) is not None:
        yield indices
        return
    half = len(indices) // 2
    yield from _segments(indices[:half], steps, shape)
    yield from _segments(indices[half:], steps, shape)


def _extent(to_frame: Doubles, shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """Return (left, top, right, bottom) of the mosaic, exclusive; None where it is absurd."""
    height, width = shape[:2]
    edge = np.array(
        [[-0.5, -0.5], [width - 0.5, -0.5], [width - 0.5, height - 0.5], [-0.5, height - 0.5]]
    )
    corners = []
    for h in to_frame:
        back = np.linalg.inv(h)
        depth = back[2, 0] * edge[:, 0] + back[2, 1] * edge[:, 1] + back[2, 2]
        if (depth * back[2, 2] <= 0).any():
            return None
        corners.append(apply(back, edge))
    points = np.concatenate(corners)
    # A still camera's corners come out at -0.5 give or take rounding: keep its canvas the frame.
    left, top = np.floor(points.min(axis=0) + 0.5 + 1e-3).astype(int)
    right, bottom = np.ceil(points.max(axis=0) + 0.5 - 1e-3).astype(int)
    if (right - left) * (bottom - top) > _CANVAS_AREAS * width * height:
        return None
    return int(left), int(top), int(right), int(bottom)


def _refine(
    frames: tuple[int, ...],
    to_frame: Doubles,
    grey: Callable[[int], Bytes],
    usable: dict[int, Bools],
    flow: bool,
    progress: Callable[[int], None],
) -> Canvas:
    """Measure every frame against the median of all, twice; then the flow; then the error."""
    shape = grey(frames[0]).shape
    coarse = (-(-shape[0] // FLOW_STEP), -(-shape[1] // FLOW_STEP))
    count = len(frames)
    bends = np.zeros((count, *coarse, 2), np.float32)
    agreeing = np.zeros(count, np.int32)
    errors = np.zeros(count, np.float32)
    canvas = _place(frames, to_frame, shape, bends, agreeing, errors)
    if count == 1:
        return canvas
    for turn in range(2):
        ground = _ground(canvas, grey, usable, _SLACK_PX[turn])
        for i, n in enumerate(frames):
            progress(turn * count + i)
            below, there = render_ground(canvas, i, ground.picture, ground.steady, shape)
            fitted, agreeing[i] = fit_motion(track(below, grey(n), there & usable[n]))
            to_frame[i] = _unit(fitted @ canvas.to_frame[i])
        canvas = _place(frames, to_frame, shape, bends, agreeing, errors)
        to_frame = canvas.to_frame.copy()
    canvas = _missed(canvas, grey, usable)
    if flow and np.median(canvas.error_px) > _FLOW_FROM_PX:
        bent = _missed(_bend(canvas, grey, usable, progress), grey, usable)
        if _off(bent) < _FLOW_HELPS * _off(canvas):
            return bent
    return canvas


def _off(canvas: Canvas) -> float:
    """Return how far off a canvas is in all: what it misses, and what does not hold still."""
    return float(canvas.error_px.mean() + _UNSTEADY_PX * canvas.unsteady.mean())


def _missed(canvas: Canvas, grey: Callable[[int], Bytes], usable: dict[int, Bools]) -> Canvas:
    """Return the canvas with its errors measured, and what of it is unsteady."""
    ground = _ground(canvas, grey, usable, _SLACK_PX[2])
    errors = np.zeros(len(canvas.frames), np.float32)
    for i, n in enumerate(canvas.frames):
        picture = grey(n)
        below, there = render_ground(canvas, i, ground.picture, ground.steady, picture.shape)
        errors[i] = miss_px(below, picture, there & usable[n])
    return replace(canvas, error_px=errors, unsteady=ground.unsteady)


def _bend(
    canvas: Canvas,
    grey: Callable[[int], Bytes],
    usable: dict[int, Bools],
    progress: Callable[[int], None],
) -> Canvas:
    """Add the smooth flow: outwards from the middle frame, then all against the median.

    Each frame starts from its neighbour's flow, so that parallax may add up over the shot while
    every step stays small; what they are compared with is the median of the frames done so far.
    """
    count = len(canvas.frames)
    middle = count // 2
    order = sorted(range(count), key=lambda i: (abs(i - middle), i))
    again = 2
    for step, i in enumerate(order[1:], start=1):
        if step == 1 or step == again:
            again = 2 * step
            ground = _ground(canvas, grey, usable, _SLACK_PX[1], tuple(sorted(order[:step])))
        progress(2 * count + step // 2)
        start = canvas.flow[i + 1 if i < middle else i - 1]
        canvas = _with_flow(canvas, i, start)
        canvas = _with_flow(canvas, i, _smooth_flow(*_total(canvas, i, ground, grey, usable)))
    ground = _ground(canvas, grey, usable, _SLACK_PX[2])
    shape = grey(canvas.frames[0]).shape
    for i in range(count):
        progress(2 * count + (count + i) // 2)
        value, weight = _total(canvas, i, ground, grey, usable)
        steady = _render_mask(canvas, i, ~ground.unsteady, shape)
        calm = cv2.resize(steady, weight.shape[::-1], interpolation=cv2.INTER_AREA)
        canvas = _with_flow(canvas, i, _smooth_flow(value * calm[..., None], weight * calm))
    return canvas


def _with_flow(canvas: Canvas, i: int, flow: Floats) -> Canvas:
    """Return the canvas with another flow of one frame."""
    flows, back = canvas.flow.copy(), canvas.back.copy()
    flows[i], back[i] = flow, turned_round(flow)
    return replace(canvas, flow=flows, back=back)


def _total(
    canvas: Canvas,
    i: int,
    ground: _Ground,
    grey: Callable[[int], Bytes],
    usable: dict[int, Bools],
) -> tuple[Floats, Floats]:
    """Return the votes for a frame's whole flow, given that the one it has is nearly right."""
    n = canvas.frames[i]
    picture = grey(n)
    below, there = render_ground(canvas, i, ground.picture, ground.steady, picture.shape)
    rest, weight = _flow_votes(below, picture, there & usable[n])
    flow = canvas.flow[i]
    # The rest was measured where the flow lands; it belongs to where the flow starts.
    height, width = weight.shape
    landed = grid(width, height) + flow / FLOW_STEP
    rest, _ = sample(rest, None, landed)
    weight, _ = sample(weight, None, landed)
    return rest + flow * weight[..., None], weight


def _render_mask(canvas: Canvas, i: int, mask: Bools, shape: tuple[int, ...]) -> Floats:
    points = on_canvas(canvas, i, grid(shape[1], shape[0]))
    return sample(mask.astype(np.float32), None, points)[0]


def _place(
    frames: tuple[int, ...],
    to_frame: Doubles,
    shape: tuple[int, ...],
    flow: Floats,
    features: NDArray[np.int32],
    errors: Floats,
) -> Canvas:
    """Return a canvas moved so that its top left pixel is (0, 0)."""
    extent = _extent(to_frame, shape)
    if extent is None:
        middle = to_frame[len(frames) // 2]
        extent = _extent(middle[None], shape) or (0, 0, shape[1], shape[0])
    return _place_at(frames, extent, to_frame, flow, features, errors)


def _place_at(
    frames: tuple[int, ...],
    extent: tuple[int, int, int, int],
    to_frame: Doubles,
    flow: Floats,
    features: NDArray[np.int32],
    errors: Floats,
) -> Canvas:
    left, top, right, bottom = extent
    move = np.array([[1.0, 0.0, left], [0.0, 1.0, top], [0.0, 0.0, 1.0]])
    moved = np.stack([_unit(h @ move) for h in to_frame])
    calm = np.zeros((bottom - top, right - left), np.bool_)
    back = np.stack([turned_round(one) for one in flow])
    return Canvas(frames, right - left, bottom - top, moved, flow, back, features, errors, calm)


@dataclass(frozen=True)
class _Ground:
    picture: Bytes
    steady: Bools
    unsteady: Bools


def _ground(
    canvas: Canvas,
    grey: Callable[[int], Bytes],
    usable: dict[int, Bools],
    slack_px: float,
    only: tuple[int, ...] | None = None,
) -> _Ground:
    """Return the median of (some of) the frames, where it may be relied on, and what is unsteady.

    Unsteady is what varies by more than the noise and more than a miss of ``slack_px`` would
    explain at the edges there.
    """
    among = range(len(canvas.frames)) if only is None else only
    evenly = np.linspace(0, len(among) - 1, min(_MEDIAN_FRAMES, len(among))).round().astype(int)
    picks = [among[k] for k in evenly]
    stack = np.full((len(picks), canvas.height, canvas.width), np.nan, np.float32)
    for k, i in enumerate(picks):
        n = canvas.frames[i]
        position = positions_in_frame(canvas, i, 0, canvas.height)
        values, ok = sample(grey(n).astype(np.float32), usable[n], position, cubic=True)
        stack[k][ok] = values[ok]
    stack -= _exposures(stack)[:, None, None]
    median, count = masked_median(stack)
    middle = np.nan_to_num(median)
    varies = np.nan_to_num(span(stack, count, 0.25))
    unsteady = moves_by_itself(varies, middle, count, slack_px)
    return _Ground(np.clip(middle, 0, 255).astype(np.uint8), (count > 0) & ~unsteady, unsteady)


def _exposures(stack: Floats) -> Floats:
    """Return by how much each frame is brighter than the median of all. [T] float32."""
    few = stack[:, ::4, ::4]
    middle, _ = masked_median(few.copy())
    off = (few - middle).reshape(len(stack), -1)
    return np.array([np.median(x[np.isfinite(x)]) if np.isfinite(x).any() else 0.0 for x in off])


def moves_by_itself(
    varies: Floats, picture: Floats, count: NDArray[np.int32], slack_px: float
) -> Bools:
    """Tell background that moves (waves, leaves) from noise and from frames that are off.

    Args:
        varies: Width of the middle half of the samples in time. [H,W] float32, 0..255 picture.
        picture: Their median. [H,W] float32, 0..255.
        count: How many samples there were. [H,W] int32.
        slack_px: By how much the frames may be off: what that explains at edges does not count.

    Returns:
        [H,W] bool; all False where nearly everything varies, which is no news.
    """
    varied = cv2.blur(varies, (9, 9))
    slope_x = cv2.Sobel(picture, cv2.CV_32F, 1, 0, scale=1 / 8)
    slope_y = cv2.Sobel(picture, cv2.CV_32F, 0, 1, scale=1 / 8)
    edges = cv2.blur(np.hypot(slope_x, slope_y), (9, 9))
    many = count >= _ENOUGH_TO_VARY
    noise = min(float(np.median(varied[many])), _NOISE_MOST) if many.any() else 0.0
    allowed = noise + 0.5 + slack_px * edges
    unsteady = attached(many & (varied > 1.4 * allowed), many & (varied > 2.0 * allowed))
    if (count > 0).any() and unsteady[count > 0].mean() > _UNSTEADY_MOST:
        return np.zeros_like(unsteady)
    return np.asarray(unsteady)


# --- the smooth flow -----------------------------------------------------------------------------


def _flow_votes(ground: Bytes, picture: Bytes, usable: Bools) -> tuple[Floats, Floats]:
    """Measure the flow from the rendered ground to a frame, with how much it is to be believed.

    It counts where it comes back on itself and brings the pictures closer by half: parallax is
    explained by moving, waves are not. What needs no moving is a weak vote for zero.

    Returns:
        Flow times weight [h',w',2] and weight [h',w'], float32, on the coarse grid.
    """
    height, width = picture.shape
    coarse = (-(-width // FLOW_STEP), -(-height // FLOW_STEP))
    brighter = np.median(picture[usable].astype(np.float32) - ground[usable]) if usable.any() else 0
    ground = np.clip(ground + np.float32(brighter), 0, 255).astype(np.uint8)
    filled = np.where(usable, picture, ground)
    with _one_thread():
        dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        dis.setFinestScale(2)
        there = np.asarray(dis.calc(ground, filled, None), np.float32)
        back = np.asarray(dis.calc(filled, ground, None), np.float32)
    landed = grid(width, height) + there
    returned, inside = sample(back, usable, landed)
    moved, _ = sample(filled.astype(np.float32), None, landed)
    before = cv2.blur(np.abs(filled.astype(np.float32) - ground), (9, 9))
    after = cv2.blur(np.abs(moved - ground), (9, 9))
    closer = (before - after > 0.25) & (after < 0.5 * before)
    same = (np.abs(there + returned) < 0.5).all(-1)
    sane = np.hypot(there[..., 0], there[..., 1]) < _FLOW_MAX_PX
    good = usable & inside & same & sane
    weight = np.where(good, np.where(closer, np.float32(1.0), np.float32(0.2)), np.float32(0.0))
    value = np.where((good & closer)[..., None], there, np.float32(0.0))
    return (
        cv2.resize(value, coarse, interpolation=cv2.INTER_AREA),
        cv2.resize(weight, coarse, interpolation=cv2.INTER_AREA),
    )


def _smooth_flow(value: Floats, weight: Floats) -> Floats:
    """Return a smooth flow from votes, run on beneath mattes; exactly none where none is needed.

    Args:
        value: Flow times weight. [h',w',2] float32, model pixels.
        weight: Weight. [h',w'] float32.
    """
    smooth = spread(value, weight, sigma=1.5)
    if np.quantile(np.hypot(smooth[..., 0], smooth[..., 1]), 0.98) < _FLOW_MIN_PX:
        return np.zeros_like(smooth)
    return smooth


# --- how far off ---------------------------------------------------------------------------------


def miss_px(ground: Bytes, picture: Bytes, usable: Bools) -> float:
    """Return by how many pixels two pictures that should coincide do not.

    The median miss in each twelfth of the picture, and of these the upper quartile: one plane in
    four that does not fit shows, waves in one corner do not. 0 where nothing can be tracked.
    """
    pairs = track(ground, picture, usable)
    if len(pairs) == 0:
        return 0.0
    off = np.hypot(*(pairs[:, 1] - pairs[:, 0]).T)
    height, width = picture.shape
    part = (pairs[:, 0, 1] * 3 // height).astype(int) * 4 + (pairs[:, 0, 0] * 4 // width)
    medians = [np.median(off[part == k]) for k in np.unique(part) if (part == k).sum() >= 5]
    return float(np.quantile(medians, 0.75)) if medians else float(np.median(off))


def register_to(
    plate: Floats, other: Floats, covered: Bools, *, flow: bool = True
) -> tuple[Doubles, Floats, float]:
    """Find where another picture of the scene (an artist's clean plate) sees what a frame sees.

    Args:
        plate: The frame. [h,w,3] float32, scene-linear.
        other: The other picture, of the same size. [h,w,3] float32, scene-linear.
        covered: What of the frame is not background. [h,w] bool.
        flow: Whether a smooth flow refines the homography.

    Returns:
        Homography from the frame to the other picture [3,3] float64, flow to add to its result in
        the other picture's coordinates [h',w',2] float32 (see ``FLOW_STEP``), and the miss left
        over in pixels.
    """
    a, b = grey_picture(plate), grey_picture(other)
    usable = ~grow(covered, _MATTE_MARGIN_PX)
    motion, _ = _measure(a, b, usable)
    shape = a.shape
    coarse = (-(-shape[0] // FLOW_STEP), -(-shape[1] // FLOW_STEP))
    bend = np.zeros((*coarse, 2), np.float32)
    for _ in range(2):
        below, there = render_ground(_pair(motion, bend, shape), 1, a, usable, shape)
        closer, _ = fit_motion(track(below, b, there))
        motion = _unit(closer @ motion)
    below, there = render_ground(_pair(motion, bend, shape), 1, a, usable, shape)
    if flow:
        bend = _smooth_flow(*_flow_votes(below, b, there))
        below, there = render_ground(_pair(motion, bend, shape), 1, a, usable, shape)
    return motion, bend, miss_px(below, b, there)


def _pair(motion: Doubles, bend: Floats, shape: tuple[int, ...]) -> Canvas:
    """Return a canvas that is one frame, with a second picture laid over it."""
    flows = np.stack([np.zeros_like(bend), bend])
    nothing = np.zeros(2, np.int32)
    return _place_at(
        (0, 1),
        (0, 0, shape[1], shape[0]),
        np.stack([np.eye(3), motion]),
        flows,
        nothing,
        np.zeros(2, np.float32),
    )
