# SPDX-License-Identifier: Apache-2.0
"""What training does to pictures so that a model learns more than to copy.

Pictures are codes 0..1, [T,H,W,3] float32; mattes are coverage 0..1, [T,H,W,1]. What is drawn is
drawn once a clip: frames move alike.

Sources: GenCompositor §4.3 (luminance) and §2.5 of its public code (the centred element);
Split-then-Merge §3.4 and §4 (transformation-aware augmentation, its probabilities and ranges);
Generative Omnimatte §3.4 (flips in space and time).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

GAMMA = (0.4, 1.9)
FLIP, CROP, COLOUR = 0.7, 0.7, 0.2
SCALE = (0.5, 2.0)
LEAST_KEPT = 0.9
JITTER = 0.2
_TRIES = 32

_WHITE = np.float32(1)
_OPENING = 9  # Side of the square that takes specks off an element's matte, at 480 lines.
_CANVAS_SHARE = 576 / 480  # The centred element's canvas in picture heights, before it is shrunk.
_SMALL, _VERY_SMALL = 0.3, 0.1  # Elements below these shares of the canvas are enlarged 2x and 4x.


# --- light ---------------------------------------------------------------------------------------


def luminance(picture: Floats, gamma: float) -> Floats:
    """Return codes with another lightness. [...,3] in 0..1; gamma 1 changes nothing."""
    return np.asarray(picture ** np.float32(gamma), np.float32)


def draw_gamma(rng: np.random.Generator) -> float:
    """Draw the gamma of a clip's element: 0.4 to 1.9, even."""
    return float(rng.uniform(*GAMMA))


@dataclass(frozen=True)
class Jitter:
    """How a foreground's colour is shifted; all zero changes nothing.

    Attributes:
        brightness: Codes are multiplied by 1 + this.
        contrast: Distances from the mean grey are multiplied by 1 + this.
        saturation: Distances from each pixel's own grey are multiplied by 1 + this.
        hue: Turns of the colour circle, 1 is once around.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0


def draw_jitter(rng: np.random.Generator) -> Jitter:
    """Draw a shift: each up to 0.2 either way."""
    return Jitter(*(float(rng.uniform(-JITTER, JITTER)) for _ in range(4)))


def jittered(picture: Floats, matte: Floats, jitter: Jitter) -> Floats:
    """Shift the colour of what a matte covers, and of nothing else.

    Args:
        picture: [T,H,W,3].
        matte: [T,H,W,1]; the mean grey is that of what it covers.
        jitter: How.

    Returns:
        [T,H,W,3] in 0..1; its own where the matte is 0.
    """
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    shifted = picture * np.float32(1 + jitter.brightness)
    grey = shifted @ weights
    mean = np.float32((grey * matte[..., 0]).sum() / max(float(matte.sum()), 1e-6))
    shifted = mean + (shifted - mean) * np.float32(1 + jitter.contrast)
    own = (shifted @ weights)[..., None]
    shifted = np.clip(own + (shifted - own) * np.float32(1 + jitter.saturation), 0, 1)
    if jitter.hue:
        shifted = np.stack([_turned(frame, jitter.hue) for frame in shifted])
    return np.where(matte > 0, shifted, picture).astype(np.float32)


def _turned(frame: Floats, turns: float) -> Floats:
    """Turn the hue of a frame. [H,W,3]."""
    hsv = cv2.cvtColor(np.ascontiguousarray(frame, np.float32), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0] + np.float32(360 * turns)) % 360
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32)


# --- place ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flip:
    """Mirrored left to right, played backwards, both or neither."""

    across: bool = False
    in_time: bool = False

    def of(self, frames: NDArray[np.generic]) -> NDArray[np.generic]:
        """Return frames flipped. [T,H,W,C], any type."""
        return frames[:: -1 if self.in_time else 1, :, :: -1 if self.across else 1]


def draw_flip(rng: np.random.Generator) -> Flip:
    """Draw a flip in space and one in time, each of even chance."""
    return Flip(bool(rng.random() < 0.5), bool(rng.random() < 0.5))


@dataclass(frozen=True)
class Move:
    """Where a foreground is moved: scaled about the picture's centre, then shifted.

    Attributes:
        scale: 1 leaves its size.
        x: Pixels to the right.
        y: Pixels down.
    """

    scale: float = 1.0
    x: float = 0.0
    y: float = 0.0

    def matrix(self, width: int, height: int) -> NDArray[np.float64]:
        """Return the map of pixel indices, old to new. [2,3]."""
        cx, cy = (width - 1) / 2, (height - 1) / 2
        return np.array(
            [
                [self.scale, 0, cx - self.scale * cx + self.x],
                [0, self.scale, cy - self.scale * cy + self.y],
            ]
        )


def kept_share(matte: Floats, move: Move) -> float:
    """Return how much of a matte stays in the picture when it is moved, 0..1; 1 of an empty one."""
    _, height, width = matte.shape[:3]
    weight = matte[..., 0].sum(axis=0, dtype=np.float64)
    matrix = move.matrix(width, height)
    x = matrix[0, 0] * np.arange(width) + matrix[0, 2]
    y = matrix[1, 1] * np.arange(height) + matrix[1, 2]
    inside = np.outer((y > -0.5) & (y < height - 0.5), (x > -0.5) & (x < width - 0.5))
    total = weight.sum()
    return 1.0 if total == 0 else float((weight * inside).sum() / total)


def draw_move(matte: Floats, rng: np.random.Generator) -> Move:
    """Draw a move that keeps 90 % of the foreground: scale 0.5 to 2, then a place at random.

    Where none is found, the foreground stays as it is.

    Args:
        matte: [T,H,W,1].
        rng: Draws.
    """
    _, height, width = matte.shape[:3]
    rows, columns = (np.flatnonzero(matte.max(axis=axes) > 0.5) for axes in ((0, 2, 3), (0, 1, 3)))
    if not rows.size:
        return Move()
    middle = (columns[0] + columns[-1]) / 2, (rows[0] + rows[-1]) / 2
    for _ in range(_TRIES):
        scale = float(np.exp(rng.uniform(np.log(SCALE[0]), np.log(SCALE[1]))))
        at = float(rng.uniform(0, width - 1)), float(rng.uniform(0, height - 1))
        matrix = Move(scale).matrix(width, height)
        there = matrix[0, 0] * middle[0] + matrix[0, 2], matrix[1, 1] * middle[1] + matrix[1, 2]
        move = Move(scale, at[0] - there[0], at[1] - there[1])
        if kept_share(matte, move) >= LEAST_KEPT:
            return move
    return Move()


def moved(frames: Floats, move: Move) -> Floats:
    """Move frames; what comes in from outside is 0. [T,H,W,C]."""
    if move == Move():
        return frames
    height, width = frames.shape[1:3]
    matrix = move.matrix(width, height)
    made = [_warped(frame, matrix, move.scale) for frame in frames]
    return np.stack(made).reshape(frames.shape).astype(np.float32)


def _warped(frame: Floats, matrix: NDArray[np.float64], scale: float) -> Floats:
    """Warp a frame in place of itself; what shrinks is first made as soft as it will be."""
    height, width = frame.shape[:2]
    if scale < 1:
        frame = cv2.GaussianBlur(frame, (0, 0), 0.5 * float(np.sqrt(scale**-2 - 1)))
    made = cv2.warpAffine(frame, matrix, (width, height), flags=cv2.INTER_LINEAR)
    return np.asarray(made, np.float32)


@dataclass(frozen=True)
class Transformation:
    """What Split-then-Merge does to the foreground that conditions the model."""

    flip: Flip = Flip()
    move: Move = Move()
    jitter: Jitter = Jitter()


def draw_transformation(matte: Floats, rng: np.random.Generator) -> Transformation:
    """Draw a flip (70 %), a resized crop that keeps 90 % (70 %) and a shift of colour (20 %).

    Args:
        matte: The foreground's. [T,H,W,1].
        rng: Draws.
    """
    flips, moves, shifts = rng.random(3) < (FLIP, CROP, COLOUR)
    flip = Flip(across=bool(flips))
    flipped = np.asarray(flip.of(matte), np.float32)
    return Transformation(
        flip,
        draw_move(flipped, rng) if moves else Move(),
        draw_jitter(rng) if shifts else Jitter(),
    )


def transformed(original: Floats, matte: Floats, change: Transformation) -> tuple[Floats, Floats]:
    """Cut a foreground out, on black, and change it and its matte alike.

    Its colour is shifted before it is cut out: what is half covered is half of its new colour.

    Args:
        original: The picture that it is part of. [T,H,W,3].
        matte: Its coverage. [T,H,W,1].
        change: How.

    Returns:
        The foreground, [T,H,W,3], and its matte, [T,H,W,1].
    """
    picture, coverage = (np.asarray(change.flip.of(one), np.float32) for one in (original, matte))
    picture = jittered(picture, coverage, change.jitter) * coverage
    both = moved(np.ascontiguousarray(np.concatenate([picture, coverage], axis=3)), change.move)
    return both[..., :3], both[..., 3:]


# --- the centred element -------------------------------------------------------------------------


def centred(picture: Floats, matte: Floats) -> Floats:
    """Put an element into the middle of a white picture, frame by frame: its path is gone.

    The element is cut out by its box on every frame and scaled once for the clip: down if it would
    not fit a square canvas of 1.2 picture heights, up 4 or 2 times if it is very small. The canvas
    is then brought to the picture's height.

    Args:
        picture: [T,H,W,3] in 0..1.
        matte: [T,H,W,1].

    Returns:
        [T,H,W,3] in 0..1, white where the element is not.
    """
    height, width = picture.shape[1:3]
    boxes = [_box(frame[..., 0]) for frame in matte]
    canvas = _CANVAS_SHARE * height
    shares = [max(b[2] - b[0], b[3] - b[1]) / canvas for b in boxes if b is not None]
    scale = _canvas_scale(shares) / _CANVAS_SHARE
    made = np.full_like(picture, _WHITE)
    for frame, alpha, box, target in zip(picture, matte, boxes, made, strict=True):
        if box is None:
            continue
        x, y = (box[0] + box[2] - 1) / 2, (box[1] + box[3] - 1) / 2
        matrix = np.array(
            [[scale, 0, (width - 1) / 2 - scale * x], [0, scale, (height - 1) / 2 - scale * y]]
        )
        premultiplied = np.concatenate([frame * alpha, alpha], axis=2)
        laid = _warped(premultiplied, matrix, scale)
        target[...] = laid[..., :3] + (1 - laid[..., 3:]) * _WHITE
    return np.clip(made, 0, 1)


def _box(alpha: Floats) -> tuple[int, int, int, int] | None:
    """Return the box of what a matte covers by half, specks left out; None where that is nothing.

    Left, top, right and bottom, the last two exclusive. ``alpha`` [H,W].
    """
    side = max(1, round(_OPENING * alpha.shape[0] / 480))
    covered = cv2.morphologyEx(
        (alpha >= 0.5).astype(np.uint8), cv2.MORPH_OPEN, np.ones((side, side), np.uint8)
    )
    rows, columns = (np.flatnonzero(covered.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _canvas_scale(shares: list[float]) -> float:
    """Return by how much an element is scaled, from its longest side's share of the canvas."""
    if not shares:
        return 1.0
    most = max(shares)
    if most > 1:
        return 1 / (int(most) + 1)
    if shares[0] < _VERY_SMALL and most * 4 <= 1:
        return 4.0
    if shares[0] < _SMALL and most * 2 <= 1:
        return 2.0
    return 1.0
