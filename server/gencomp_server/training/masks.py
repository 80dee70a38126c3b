# SPDX-License-Identifier: Apache-2.0
"""The masks that training shows a model: where the effect is, what is unknown, what to keep.

Pictures are codes 0..1, [T,H,W,3] float32; mattes are [T,H,W,1], float32 or bool. All that is
random is drawn from the generator that is given.

Sources: Over++ §3.3.1 (effect masks from a difference; frames replaced by grey); Generative
Omnimatte §3.2 and supplement B (trimask; labels switched from white to grey); the growth of mattes
from its public code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from gencomp_server.parts import trimask

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Bools = NDArray[np.bool_]
    Classes = NDArray[np.uint8]

# Sides of the squares at 384 lines; they scale with the picture, since the paper names none.
_LINES = 384
_ERODE, _DILATE, _MEDIAN = 3, 7, 5
# Below this difference of codes nothing is an effect: Otsu would divide noise from noise.
_LEAST = 4 / 255
_GROWTH = 11  # Side of the square by which mattes grow at 384 lines.

WHOLE_GREY, SOME_GREY = 0.3, 0.3
SWITCHED = 0.5


def effect_mask(truth: Floats, over: Floats) -> Bools:
    """Find where the effects are: what the truth has that the composite without effects has not.

    The difference in grey is cut in two by Otsu's threshold, one for the whole clip, so that a
    frame without an effect is not given one; erosion takes specks, dilation gives back more than
    was lost, medians over the picture and over three frames smooth what is left.

    Args:
        truth: With effects. [T,H,W,3].
        over: Without. [T,H,W,3].

    Returns:
        [T,H,W,1] bool.
    """
    difference = np.abs(truth - over) @ np.array([0.299, 0.587, 0.114], np.float32)
    shades = np.round(np.clip(difference, 0, 1) * 255).astype(np.uint8)
    if shades.max(initial=0) < round(_LEAST * 255):
        return np.zeros((*shades.shape, 1), bool)
    flat = shades.reshape(-1, shades.shape[2])
    threshold, _ = cv2.threshold(flat, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    found = shades > max(threshold, round(_LEAST * 255) - 1)
    cleaned = np.stack([_cleaned(frame) for frame in found])
    return _steadied(cleaned)[..., None]


def _cleaned(found: Bools) -> Bools:
    """Take specks off one frame and round what is left. [H,W] bool."""
    lines = found.shape[0]
    plane = found.astype(np.uint8)
    for operation, side in ((cv2.erode, _ERODE), (cv2.dilate, _DILATE)):
        width = odd(side, lines)
        plane = np.asarray(operation(plane, np.ones((width, width), np.uint8)), np.uint8)
    return np.asarray(cv2.medianBlur(plane, max(3, odd(_MEDIAN, lines))) != 0, bool)


def _steadied(found: Bools) -> Bools:
    """Return each frame's majority with its neighbours; the first and last count twice."""
    padded = np.concatenate([found[:1], found, found[-1:]]).astype(np.uint8)
    return np.asarray(padded[:-2] + padded[1:-1] + padded[2:] >= 2, bool)


def odd(side: int, lines: int) -> int:
    """Return a side at 384 lines as an odd number of pixels at others, at least 1."""
    return 2 * round((side * lines / _LINES - 1) / 2) + 1 if side * lines > _LINES else 1


def grey_frames(count: int, rng: np.random.Generator) -> Bools:
    """Draw the frames whose mask is replaced by grey: nobody says where the effect is.

    With 30 % the whole clip, as where no mask was drawn; with another 30 % a random share of its
    frames, as where key frames were; else none. The paper gives no numbers.

    Args:
        count: Frames.
        rng: Draws.

    Returns:
        [count] bool.
    """
    kind, share = rng.random(), rng.random()
    which = rng.random(count)
    if kind < WHOLE_GREY:
        return np.ones(count, bool)
    if kind < WHOLE_GREY + SOME_GREY:
        return np.asarray(which < share, bool)
    return np.zeros(count, bool)


def over_trimask(mask: Bools, grey: Bools) -> Classes:
    """Return what Over++ is asked: EDIT where the mask is, UNKNOWN on grey frames, else KEEP.

    Args:
        mask: [T,H,W,1] bool.
        grey: Frames that are grey. [T] bool.
    """
    unknown = np.broadcast_to(grey[:, None, None, None], mask.shape)
    return trimask.build(mask & ~unknown, unknown=np.array(unknown))


def casper_trimask(removed: Bools, kept: Bools, *, effects: bool) -> Classes:
    """Return what Casper is asked: remove, preserve, and judge the background by itself.

    Args:
        removed: Objects that go, with their effects; they are grown a little. [T,H,W,1] bool.
        kept: Objects that stay, with theirs. [T,H,W,1] bool.
        effects: False where what goes leaves no effects: then all else is to be preserved.

    Returns:
        [T,H,W,1] of EDIT (the paper's black), KEEP (white) and UNKNOWN (grey).
    """
    grown = trimask.dilate(removed, odd(_GROWTH, removed.shape[1]))
    rest = trimask.UNKNOWN if effects else trimask.KEEP
    return trimask.build(grown, keep=kept, rest=rest)


def switch_labels(classes: Classes, rng: np.random.Generator, share: float = SWITCHED) -> Classes:
    """Switch what is labelled white to grey in a share of clips; black stays.

    A model then learns to preserve what nobody told it to preserve. For clips whose truth is known
    exactly.

    Args:
        classes: [T,H,W,1] of EDIT, KEEP and UNKNOWN.
        rng: Draws.
        share: Probability.
    """
    if rng.random() >= share:
        return classes
    return np.where(classes == trimask.KEEP, np.uint8(trimask.UNKNOWN), classes)
