# SPDX-License-Identifier: Apache-2.0
"""What lies over a plate while elements are laid on it: how opaque it is, and where it comes from.

An element's own pixels are of another picture, its own clip, and the number of that frame goes with
them; what was painted beneath it is the plate under a gain, or generated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gencomp_server.parts.origin import STEPS, origin_of_stack

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.parts.change import Changed
    from gencomp_server.parts.element import ElementFrame

    Floats = NDArray[np.float32]
    Pixels = NDArray[np.float16] | NDArray[np.float32]


class Coverage:
    """What was laid over a plate so far.

    Attributes:
        alpha: Of all of it together. [H,W] float32, 0..1.
        weight: How much of a change was let in. [H,W] float32, 0..1.
        touched: Where there is any of it. [H,W] bool.
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.alpha, self.weight = (np.zeros(shape, np.float32) for _ in range(2))
        self.touched = np.zeros(shape, bool)

    def add(self, told: ElementFrame, changed: Changed) -> None:
        """Lay an element and its interaction over all that is there.

        Args:
            told: The element's frame.
            changed: What the model changed, by the plate's flat indices.
        """
        weight = self.weight.reshape(-1)
        weight[changed.index] = np.maximum(weight[changed.index], changed.weights)
        for layer in (told.interaction, told.element):
            self.touched |= (layer != 0).any(axis=2)
            alpha = layer[..., 3].astype(np.float32)
            self.alpha = alpha + self.alpha * (1 - alpha)


class Sources:
    """Where what was laid over a plate so far comes from."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self._gained, self._other, self._made = (np.zeros(shape, np.float32) for _ in range(3))
        self._frame = np.zeros(shape, np.int64)

    def add(self, told: ElementFrame, changed: Changed, number: int | None) -> None:
        """Lay an element and its interaction over all that is there.

        Args:
            told: The element's frame.
            changed: What the model changed, by the plate's flat indices.
            number: Frame of the element's own clip; None: its pixels are the model's.
        """
        index = changed.index
        there = (told.interaction != 0).any(axis=2).reshape(-1)[index]
        for part, share in ((self._gained, changed.gained), (self._made, changed.made)):
            flat = part.reshape(-1)
            flat[index] = np.maximum(flat[index], share * there)
        shown = _share_of(told.element, told.result)
        for part in (self._gained, self._other, self._made):
            part *= 1 - shown
        target = self._made if number is None else self._other
        target += shown
        if number is not None:
            self._frame[shown > 0] = number

    def origin(self, touched: NDArray[np.bool_]) -> Floats:
        """Return where each pixel comes from. [H,W,5] float32.

        Args:
            touched: False where what was laid there was rounded away. [H,W] bool.
        """
        gained, other, made = (part * touched for part in (self._gained, self._other, self._made))
        made[touched & (gained + other + made == 0)] = 1 / STEPS
        return origin_of_stack(gained, other, made, self._frame)


def _share_of(layer: Pixels, result: Pixels) -> Floats:
    """Return how much of a picture's light is a layer's, at least its alpha. [H,W] float32."""
    light = np.abs(layer[..., :3].astype(np.float32)).sum(axis=2)
    with np.errstate(invalid="ignore"):
        whole = np.abs(result[..., :3].astype(np.float32)).sum(axis=2)
        share = np.where(light > 0, light / np.maximum(whole, light + np.float32(1e-20)), 0)
    found = np.maximum(np.nan_to_num(share), layer[..., 3].astype(np.float32))
    return np.asarray(np.clip(found, 0, 1), np.float32)
