# SPDX-License-Identifier: Apache-2.0
"""The plate without its objects, gathered over time from the plate itself.

Two halves. :func:`plan_clean_plate` decides everything at model size for the whole shot: how the
frames lie over one another (``parts/register.py``), what of each frame is background, which frames
to take each background pixel from (``parts/background.py``), what no frame has seen.
:func:`gather_frame` (``parts/gather.py``) then makes one frame at plate size out of the plate's
own pixels, reading rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from gencomp_server.parts.background import (
    CleanPlateSettings,
    Ground,
    Material,
    Steps,
    balance,
    measure_ground,
)
from gencomp_server.parts.canvas import (
    FLOW_STEP,
    grid,
    grow,
    on_canvas,
    sample,
    spread,
)
from gencomp_server.parts.gather import gather_frame as gather_frame
from gencomp_server.parts.register import register_shot, register_to

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]
    Bools = NDArray[np.bool_]
    Bytes = NDArray[np.uint8]
    Frame = Callable[[int], NDArray[np.floating]]
    Rows = Callable[[int, int, int], NDArray[np.floating]]


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
    shot = Material(frames, plate_model, covered, settings)
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
        steps = Steps(progress, start, total)
        exposure = balance(canvas, shot)
        gains[[frames.index(n) for n in canvas.frames]] = exposure
        ground, shadows, others = measure_ground(canvas, shot, exposure, steps)
        suspected.update(shadows)
        strays.update(others)
        grounds.append(ground)
    return _assemble(shot, tuple(grounds), gains, suspected, strays, painted or {})


def _assemble(
    shot: Material,
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
                own[t] = _own(ground, where, shot, n, suspected[n], strays[n], bool(painted))
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
    ground: Ground,
    where: Floats,
    shot: Material,
    n: int,
    suspected: Bools,
    strays: Bools,
    painted: bool,
) -> Bytes:
    """Return where a frame's own moving background is its own clean plate. [h,w] uint8.

    Where there are painted frames they know better, but for what moves far from the objects.
    """
    moving, _ = sample(ground.unsteady.astype(np.float32), None, where)
    seen, _ = sample(ground.seen.astype(np.float32), None, where)
    theirs = grow(shot.blocked(n) | suspected, 2) | grow(seen < 0.5, 5)
    mine = ((moving > 0.5) | grow(strays, 4)) & ~theirs
    if painted:
        mine &= (moving > 0.5) & (shot.away(n) >= 1.0)
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
    shot: Material, painted: Mapping[int, Floats], gains: Floats
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
