# SPDX-License-Identifier: Apache-2.0
"""One clicked point followed through a shot: pyramidal Lucas-Kanade that knows when it is lost.

Every step is tracked from the picture before and then settled against the picture of the click by
an affine match, so that steps do not add up to drift; where the place has changed too much since
the click, the step from the picture before stands. A step is believed where tracking it back ends
where it began, what is around looks alike, and there is texture to hold on to. Else the point is
lost, which is refused with the frame: half a trajectory is worse than none.

Source: gencompositor §4.1 (a point is tracked by optical flow); Lucas and Kanade's method on a
pyramid, with a forward-backward check; Evangelidis and Psarakis for the match with the click.
Differs: the public code goes on with the last place when tracking fails; here it says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from gencomp_protocol.errors import BadKnob
from gencomp_protocol.layers import BG
from gencomp_server.colour.modelrange import range_of
from gencomp_server.parts.pictures import linear

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from gencomp_server.contract import Context, Shot

    Grey = NDArray[np.uint8]
    Point = NDArray[np.float32]

_WINDOW_SHARE = 1 / 36
"""Half the side of the window that is tracked, of the plate's shorter side: 30 px of 1080."""
_LEAST_HALF, _MOST_HALF = 7, 40
_TRIES = ((1.0, 4), (1.0, 1), (1.5, 4), (1.5, 1), (2.0, 2))
"""How many times the window, and levels of the pyramid: tried in turn until a step is believed.
Many levels follow a large step and are led astray by what moves nearby; a wide window holds on to
the outline of what is plain inside."""
_SPAN, _LEAST_SPAN = (0.5, 99.5), 1 / 16
"""Percentiles of the range that counts, and its least width in code."""
_NOTHING = "nothing around it to hold on to"
_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 0.003)
MOST_RETURN_PX = 1.0
"""A step that ends further from where it began when tracked back is none."""
_NEAR_CLICK_PX = 2.0
"""How far settling against the picture of the click may move a step, in pixels."""
_ALIKE_CLICK, _MOST_BEND = 0.75, 0.1
"""Least correlation with what was around the click, and how much its shape may change in a step."""
_ECC_CRITERIA = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 1e-4)
_ECC_BLUR = 5
_ALIKE = 0.6
"""Least correlation of what is around the point before and after a step."""
_TEXTURE, _TEXTURE_OF_GRAIN = 0.25, 0.14
"""Least slope, in codes of 255 per pixel, across the direction in which a window varies least; and
the least share of its grain's sigma: grain alone comes to half of that."""
_GRAINY = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)


@dataclass(frozen=True)
class Track:
    """A point through a shot.

    Attributes:
        frames: Frames of the plate, ascending.
        points: Where the point is, in plate pixels from its corner, y down. [T,2] float64.
        returned: By how much a step that was tracked back missed where it began, in pixels; 0 on
            the frame of the click. [T] float64.
        drift: What is left of the whole way there and back, step by step, in pixels; the greater of
            both directions from the click.
    """

    frames: tuple[int, ...]
    points: NDArray[np.float64]
    returned: NDArray[np.float64]
    drift: float


def follow(
    ctx: Context, shot: Shot, *, point: tuple[float, float], at: int, frames: Sequence[int]
) -> Track:
    """Track a point from the frame on which it was clicked, forward and backward.

    Args:
        ctx: The run's context.
        shot: With bg alone.
        point: Where it was clicked, in plate pixels from the corner, y down.
        at: The frame of the click.
        frames: Frames to track it through, ascending; ``at`` is one of them.

    Raises:
        BadKnob: There is nothing to hold on to, or the point is lost or leaves the picture; names
            the frame.
    """
    place = list(frames).index(at)
    eye = _Eye.of(shot, at)
    clicked = eye.grey(shot, at)
    half = _half_window(clicked)
    start = np.asarray(point, np.float32) - np.float32(0.5)  # cv2's pixel middles are whole.
    if not _has_texture(clicked, start, half):
        raise _lost(at, _NOTHING)
    points = np.empty((len(frames), 2), np.float64)
    returned = np.zeros(len(frames))
    points[place], drift = point, 0.0
    for way in (range(place + 1, len(frames)), range(place - 1, -1, -1)):
        follower = _Follower(clicked, start, half)
        for i in way:
            ctx.check_cancelled()
            ctx.progress("track", i, len(frames))
            found, missed = follower.step(eye.grey(shot, frames[i]), frames[i])
            points[i], returned[i] = found + 0.5, missed
        drift = max(drift, follower.drift)
    return Track(tuple(frames), points, returned, drift)


class _Follower:
    """Follows a point in one direction of time; two pictures are held besides the clicked one."""

    def __init__(self, clicked: Grey, start: Point, half: int) -> None:
        self._clicked, self._start, self._half = clicked, start, half
        self._before, self._point = clicked, start
        self._back = np.zeros(2, np.float32)
        self._shape = np.eye(2, dtype=np.float32)  # Of what was around the click, by now.

    @property
    def drift(self) -> float:
        """Length of what all steps missed when they were tracked back, added up."""
        return float(np.linalg.norm(self._back))

    def step(self, picture: Grey, frame: int) -> tuple[Point, float]:
        """Return where the point is in the next picture, and by how much the way back missed.

        Raises:
            BadKnob: It is lost there.
        """
        told = ""
        for wider, levels in _TRIES:
            half = round(self._half * wider)
            found = _tracked(self._before, picture, self._point, self._point, half, levels)
            back = None
            if found is not None:
                back = _tracked(picture, self._before, found, self._point, half, levels)
            if found is None or back is None:
                told = told or _NOTHING
                continue
            missed = back - self._point
            doubt = self._doubt(picture, found, missed, half)
            if not doubt:
                self._back += missed
                self._before, self._point = picture, self._settled(picture, found)
                return self._point, float(np.linalg.norm(missed))
            told = told or doubt
        raise _lost(frame, told)

    def _doubt(self, picture: Grey, found: Point, missed: Point, half: int) -> str:
        """Return why a step is not to be believed; nothing where it is."""
        if not _is_inside(found, picture):
            return "it leaves the picture"
        if float(np.linalg.norm(missed)) > MOST_RETURN_PX:
            return "the way back leads elsewhere"
        if _likeness(self._before, self._point, picture, found, half) < _ALIKE:
            return "what is around it looks different, or has no texture"
        return "" if _has_texture(picture, found, half) else _NOTHING

    def _settled(self, picture: Grey, found: Point) -> Point:
        """Return a place settled against the picture of the click, where that is still like it.

        What was around the click is matched by an affine map, so that a camera that turns or draws
        nearer does not pull the point towards what has most contrast around it.
        """
        side = 2 * self._half + 1
        middle = np.array([self._half, self._half], np.float32)
        reach = 2 * side
        corner = np.floor(found).astype(int) - reach // 2
        around = cv2.getRectSubPix(
            picture, (reach, reach), tuple((corner + (reach - 1) / 2).tolist())
        )
        start = np.column_stack([self._shape, found - corner - self._shape @ middle])
        template = cv2.getRectSubPix(self._clicked, (side, side), tuple(self._start.tolist()))
        try:
            alike, warp = cv2.findTransformECC(
                template,
                around,
                start.astype(np.float32),
                cv2.MOTION_AFFINE,
                _ECC_CRITERIA,
                None,
                _ECC_BLUR,
            )
        except cv2.error:  # It does not converge: the place has become another.
            return found
        shape = np.asarray(warp, np.float32)[:, :2]
        settled = np.asarray(shape @ middle + warp[:, 2] + corner, np.float32)
        is_near = float(np.linalg.norm(settled - found)) <= _NEAR_CLICK_PX
        is_steady = float(np.abs(shape - self._shape).max()) <= _MOST_BEND
        if alike < _ALIKE_CLICK or not (is_near and is_steady):
            return found
        self._shape = shape
        return settled


def _tracked(a: Grey, b: Grey, point: Point, guess: Point, half: int, levels: int) -> Point | None:
    """Return where a point of one picture is in another; None where that cannot be told."""
    moved, status, _ = cv2.calcOpticalFlowPyrLK(
        a,
        b,
        point.reshape(1, 1, 2).astype(np.float32),
        guess.reshape(1, 1, 2).astype(np.float32).copy(),
        winSize=(2 * half + 1, 2 * half + 1),
        maxLevel=levels,
        criteria=_CRITERIA,
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    if not int(np.asarray(status).ravel()[0]):
        return None
    return np.asarray(moved, np.float32).reshape(2)


def _lost(frame: int, why: str) -> BadKnob:
    return BadKnob(
        f"Knob 'trajectory': the tracked point is lost at frame {frame}: {why}.",
        hint="Click a corner or a spot with contrast, click it on another frame (track_frame), end "
        "the element earlier, or give positions at frames.",
        knob="trajectory",
        frame=frame,
    )


# --- pictures -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Eye:
    """How light becomes eight bits: the range of the picture of the click fills them.

    Attributes:
        low: Code of the darkest that counts.
        gain: Steps of 255 per code.
    """

    low: float
    gain: float

    @classmethod
    def of(cls, shot: Shot, n: int) -> _Eye:
        """Return the one of a picture."""
        low, high = np.percentile(_code(shot, n), _SPAN)
        return cls(float(low), 255.0 / max(float(high - low), _LEAST_SPAN))

    def grey(self, shot: Shot, n: int) -> Grey:
        """Return a frame of the plate. [H,W] uint8."""
        return np.asarray(np.clip((_code(shot, n) - self.low) * self.gain, 0, 255) + 0.5, np.uint8)


def _code(shot: Shot, n: int) -> NDArray[np.float32]:
    """Return a frame of the plate as codes of light, one channel. [H,W]."""
    code = range_of(shot.request).code(linear(shot, BG, n))
    return np.asarray(code.mean(axis=2), np.float32)


def _half_window(picture: Grey) -> int:
    return int(np.clip(round(min(picture.shape) * _WINDOW_SHARE), _LEAST_HALF, _MOST_HALF))


def _is_inside(point: Point, picture: Grey) -> bool:
    x, y = float(point[0]), float(point[1])
    return bool(-0.5 <= x < picture.shape[1] - 0.5 and -0.5 <= y < picture.shape[0] - 0.5)


def _patch(picture: Grey, point: Point, half: int) -> NDArray[np.float32]:
    """Return what is around a point, at its own sub-pixel place. [2h+1,2h+1]."""
    side = 2 * half + 1
    place = (float(point[0]), float(point[1]))
    return np.asarray(cv2.getRectSubPix(picture, (side, side), place, patchType=cv2.CV_32F))


def _has_texture(picture: Grey, point: Point, half: int) -> bool:
    """Tell whether a window has more to hold on to than its grain, in every direction.

    The lesser eigenvalue of its structure tensor says so: an edge that runs straight through holds
    a point only across itself. Source of the grain's sigma: Immerkaer's filter, which a surface and
    straight edges leave at zero.
    """
    patch = _patch(picture, np.rint(point), half)  # Between pixels, grain would be averaged away.
    dy, dx = np.gradient(np.asarray(cv2.GaussianBlur(patch, (0, 0), 1.5), np.float64))
    tensor = np.array([[(dx * dx).mean(), (dx * dy).mean()], [(dx * dy).mean(), (dy * dy).mean()]])
    slope = float(np.sqrt(max(np.linalg.eigvalsh(tensor)[0], 0.0)))
    rough = np.abs(cv2.filter2D(patch, cv2.CV_32F, _GRAINY)[1:-1, 1:-1]).mean()
    sigma = float(np.sqrt(np.pi / 2) / 6 * rough)
    return bool(slope >= max(_TEXTURE, _TEXTURE_OF_GRAIN * sigma))


def _likeness(a: Grey, at_a: Point, b: Grey, at_b: Point, half: int) -> float:
    """Return the correlation of what is around two points, -1..1; 0 where either is flat."""
    one, two = _patch(a, at_a, half), _patch(b, at_b, half)
    one, two = one - one.mean(), two - two.mean()
    length = float(np.linalg.norm(one) * np.linalg.norm(two))
    return float((one * two).sum()) / length if length > 0 else 0.0
