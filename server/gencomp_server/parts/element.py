# SPDX-License-Identifier: Apache-2.0
"""A placed element keeps its own pixels: what a model may change of it, and the layers it goes in.

A model that puts an element into a plate paints the element anew. What is wanted of that is how
the light of the scene colours it, which is a smooth matter, and what it does to the plate around
it. So the element is multiplied by the ratio of two *low-frequency* colours, those of the model's
element and of the placed one after the same round trip (the model's own error stands in both), as
far as ``harmonise`` says; and what the model did to the plate becomes a layer of its own beneath
the element, filled in behind it. ``element`` over ``interaction`` over the plate *is* the result.

Frames are [H,W,C]; colours are scene-linear, premultiplied where there is an alpha, and unbounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from gencomp_server.parts.effect import solve_layer
from gencomp_server.parts.stack import over, round_to
from gencomp_server.parts.underover import REACH_PX, extended

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Indices = NDArray[np.intp]
    Pixels = NDArray[np.float16] | NDArray[np.float32]
    Box = tuple[slice, slice]

MINE, GENERATED = "mine", "generated"
MOST_GAIN = 8.0
"""A colour is never changed by more than this factor, either way."""
_BLACK = 3e-3
_SEEN = 0.5
"""At least this much of the plate must show for what happened to it to be read off a pixel."""


@dataclass(frozen=True)
class ElementFrame:
    """A placed element in its plate, all of the plate's type and size.

    Attributes:
        element: On top, premultiplied. [H,W,4].
        interaction: What it does to the plate, beneath it, premultiplied. [H,W,4].
        result: ``element`` over ``interaction`` over the plate; where both are zero the plate, bit
            for bit; alpha 1 where the plate has none. [H,W,4].
    """

    element: Any
    interaction: Any
    result: Any


@dataclass(frozen=True)
class LowColours:
    """Low-frequency colour of an element, see :func:`low_colour`.

    Attributes:
        placed: Of the placed element after the model's round trip. [H,W,3] float32.
        made: Of the model's. [H,W,3] float32.
    """

    placed: Floats
    made: Floats


def low_colour(picture: Floats, alpha: Floats, sigma: float) -> Floats:
    """Return the smooth colour of what an alpha covers, continued beyond it.

    Args:
        picture: Not premultiplied: what is seen where the element is. [h,w,3] float32.
        alpha: Of the element at the same size. [h,w,1] float32, 0..1.
        sigma: Of the Gaussian mean, in pixels.

    Returns:
        The mean of the colours around, each weighed by its alpha squared, so that an edge that the
        plate shows through hardly counts; zero in a picture without element. [h,w,3] float32.
    """
    sure = np.asarray(alpha, np.float32).reshape(*picture.shape[:2], 1) ** 2
    if not sure.any():
        return np.zeros_like(picture, np.float32)
    everywhere = (picture * sure).sum(axis=(0, 1)) / sure.sum()
    total = cv2.GaussianBlur(sure, (0, 0), sigma)[..., None]
    mean = cv2.GaussianBlur(np.asarray(picture * sure, np.float32), (0, 0), sigma)
    # Far from the element the mean of all of it takes over from a quotient of two nothings.
    little = np.float32(1e-4)
    return np.asarray((mean + little * everywhere) / (total + little), np.float32)


def harmonised(element: Pixels, low: LowColours, amount: float) -> Pixels:
    """Give an element the model's low-frequency colour; its detail and its alpha are its own.

    Args:
        element: As placed, premultiplied. [H,W,4], half or float.
        low: Of the placed and of the model's element.
        amount: 0 gives the element bit for bit, 1 the model's colour; between, in stops.

    Returns:
        The element. [H,W,4] of the same type.

    Raises:
        ValueError: ``amount`` is outside 0..1.
    """
    if not 0 <= amount <= 1:
        raise ValueError(f"harmonise is {amount}; it goes from 0 to 1")
    result = element.copy()
    box = _box((element != 0).any(axis=2), 0)
    if amount == 0 or box is None:
        return result
    placed, made = (np.maximum(x[box], 0) + np.float32(_BLACK) for x in (low.placed, low.made))
    gain = np.clip(made / placed, 1 / MOST_GAIN, MOST_GAIN) ** np.float32(amount)
    colour = np.asarray(element[box][..., :3] * gain, np.float32)
    result[box][..., :3] = round_to(colour, element.dtype)
    return result


def element_frame(
    placed: Pixels,
    plate: Pixels,
    index: Indices,
    colours: Floats,
    low: LowColours,
    *,
    harmonise: float,
    source: str = MINE,
    body: Floats | None = None,
) -> ElementFrame:
    """Split what a model made of an element in a plate into layers.

    Args:
        placed: The element as the artist placed it, premultiplied. [H,W,4] of the plate's type.
        plate: Without the element, its own samples. [H,W,3] or [H,W,4], half or float.
        index: Flat indices of the pixels that the model changed of the element over the plate,
            each once. [n].
        colours: What they should become. [n,3] float32.
        low: Of the placed and of the model's element.
        harmonise: How much of the model's low-frequency colour the element takes, 0..1.
        source: ``MINE``: the element keeps its own pixels, whatever the model painted there.
            ``GENERATED``: the element is what the model painted, with an alpha that is at least
            the artist's.
        body: Alpha that the interaction should have at least, see ``effect.py``. [H,W] float32,
            0..1; None: as little as can be.

    Raises:
        ValueError: ``harmonise`` is outside 0..1, or ``source`` is neither of the two.
    """
    if source not in (MINE, GENERATED):
        raise ValueError(f"element_source is {source!r}; it is {MINE!r} or {GENERATED!r}")
    kind = plate.dtype
    element = harmonised(placed, low, harmonise)
    interaction = np.zeros((*plate.shape[:2], 4), kind)
    result = np.ones((*plate.shape[:2], 4), kind)
    result[..., : plate.shape[2]] = plate
    touched = np.asarray((element != 0).any(axis=2))
    touched.reshape(-1)[index] = True
    box = _box(touched, REACH_PX + 1)
    if box is None:
        return ElementFrame(element, interaction, result)
    wanted = _wanted(placed, plate, index, colours, box)
    made = harmonised(placed[box], LowColours(low.placed[box], low.made[box]), 1)
    wish = None if body is None else body[box]
    interaction[box] = _interaction(made, plate[box], wanted, kind, wish)
    if source == GENERATED:
        element[box] = _generated(placed[box], plate[box], interaction[box], wanted)
    with np.errstate(invalid="ignore"):
        beneath = over(
            np.asarray(interaction[box], np.float32), np.asarray(result[box], np.float32)
        )
        stacked = over(np.asarray(element[box], np.float32), beneath)
    shown = element[box].any(axis=2) | interaction[box].any(axis=2)
    result[box][shown] = round_to(stacked[shown], kind)
    return ElementFrame(element, interaction, result)


def _box(where: Any, room: int) -> Box | None:
    """Return the box of the pixels that are True, with room around; None where there is none."""
    rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
    if rows.size == 0:
        return None
    return (
        slice(max(int(rows[0]) - room, 0), int(rows[-1]) + room + 1),
        slice(max(int(columns[0]) - room, 0), int(columns[-1]) + room + 1),
    )


def _wanted(placed: Pixels, plate: Pixels, index: Indices, colours: Floats, box: Box) -> Floats:
    """Return what the model wants of a box; NaN where it changed nothing. [h,w,3] float32."""
    picture = np.full((*placed.shape[:2], 3), np.nan, np.float32)
    picture.reshape(-1, 3)[index] = colours
    return picture[box]


def _interaction(
    element: Pixels, plate: Pixels, wanted: Floats, kind: np.dtype[Any], body: Floats | None
) -> NDArray[np.floating]:
    """Solve what happened to the plate around an element, and fill it in behind that.

    Args:
        element: With the model's colour, as it stands before what is ``wanted``. [h,w,4].
        plate: [h,w,C].
        wanted: NaN where the model changed nothing. [h,w,3] float32.
        kind: Type of the layer.
        body: Alpha wished for. [h,w].

    Returns:
        The layer, representable in ``kind``. [h,w,4].
    """
    through = np.float32(1) - element[..., 3].astype(np.float32)
    own = plate[..., :3].astype(np.float32)
    told = (through >= _SEEN) & np.isfinite(wanted).all(axis=2) & np.isfinite(own).all(axis=2)
    layer = np.zeros((*through.shape, 4), np.float32)
    goal = (wanted[told] - element[told][:, :3].astype(np.float32)) / through[told][:, None]
    goal = np.maximum(goal, np.minimum(own[told], 0))
    wish = None if body is None else body[told]
    layer[told] = solve_layer(own[told], goal, kind, at_least=wish)
    known = np.where(through >= _SEEN, through * through, np.float32(0))
    return round_to(extended(layer, known), kind)


def _generated(
    placed: Pixels, plate: Pixels, interaction: NDArray[np.floating], wanted: Floats
) -> NDArray[np.floating]:
    """Return the element as the model painted it. [h,w,4]."""
    element = placed.astype(np.float32)
    own = np.asarray(plate[..., :3], np.float32)
    inside = element[..., 3] > 0
    inside &= np.isfinite(wanted).all(axis=2) & np.isfinite(own).all(axis=2)
    below = over(interaction, own)[inside]
    alpha = element[inside][:, 3]
    element[inside] = solve_layer(below, wanted[inside], plate.dtype, at_least=alpha)
    return element
