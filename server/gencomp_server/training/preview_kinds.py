# SPDX-License-Identifier: Apache-2.0
"""Kinds and colours of the effects in the preview's shots, and their words."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

KINDS = ("shadow", "reflection", "smoke", "dust", "splash", "wake", "glow")
SHADOW, REFLECTION, SMOKE, DUST, SPLASH, WAKE, GLOW = range(len(KINDS))

# Scene-linear, of even brightness; darkness and light are drawn.
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.75, 0.04, 0.03),
    "orange": (0.8, 0.28, 0.03),
    "yellow": (0.75, 0.62, 0.05),
    "green": (0.06, 0.55, 0.08),
    "blue": (0.04, 0.14, 0.8),
    "purple": (0.35, 0.05, 0.6),
    "pink": (0.85, 0.25, 0.45),
    "white": (0.8, 0.8, 0.8),
    "grey": (0.28, 0.28, 0.28),
    "black": (0.02, 0.02, 0.02),
    "brown": (0.28, 0.16, 0.08),
}
_NAMES = tuple(COLOURS)


@dataclass(frozen=True)
class Effects:
    """What the objects of a batch leave behind.

    Attributes:
        there: Which kinds each object has, in the order of ``KINDS``. [O,7] bool.
        amount: How much of it, 0 little to 1 much. [O,7].
        softness: Of shadows: 0 hard to 1 soft. [O].
        lean: Where shadow, smoke or trail points: -1 to the left to 1. [O,7].
        colour: Number in ``COLOURS``. [O,7].
        ground: Let through and added on the ground, averaged over the shutter. Two of
            [O,T,3,H,W].
        air: The same in the air.
    """

    there: Tensor
    amount: Tensor
    softness: Tensor
    lean: Tensor
    colour: Tensor
    ground: tuple[Tensor, Tensor]
    air: tuple[Tensor, Tensor]

    def words(self, index: int, kind: int) -> tuple[str, ...]:
        """Return all that can be said of one effect: softness, amount, direction, colour, kind."""
        said = []
        if kind == SHADOW:
            said += [word for word in (_step(self.softness[index], "harsh", "soft"),) if word]
        said += [word for word in (_step(self.amount[index, kind], "less", "more"),) if word]
        lean = float(self.lean[index, kind])
        if kind in (SHADOW, SMOKE, DUST, WAKE) and abs(lean) > 0.25:
            said.append("left" if lean < 0 else "right")
        if kind in (SMOKE, DUST, SPLASH, GLOW):
            said.append(_NAMES[int(self.colour[index, kind])])
        return (*said, KINDS[kind])


def _step(value: Tensor, low: str, high: str) -> str | None:
    """Return the word for the lower or the upper third, nothing between."""
    return low if float(value) < 0.36 else high if float(value) > 0.64 else None
