# SPDX-License-Identifier: Apache-2.0
"""Which object is in front of which, frame by frame.

The knob is text that may change over time: ``a, b; 1010: b, a`` has ``a`` in front up to frame 1009
and ``b`` from 1010 on. A depth input orders the objects of each frame by the median depth within
their mattes; the knob then decides between equals, and an object that a frame does not show keeps
its place in line.

Free of numpy at the top: the knob is checked before any picture travels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gencomp_protocol.errors import BadKnob
from gencomp_protocol.layers import DEPTH, MATTE_PREFIX

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gencomp_server.contract import Context, Shot

    Floats = NDArray[np.floating]

NEAR_IS_SMALL, NEAR_IS_LARGE = "small", "large"

MATTE_SHOWS = 0.5
"""A pixel whose matte is above this shows the object, and its depth counts."""

_FORM = "Write the names front first, such as 'a, b', and from frame 1010 on '; 1010: b, a'."


@dataclass(frozen=True)
class Order:
    """The order of the objects over time, as the knob has it.

    Attributes:
        cues: Frame from which an order holds, and that order, front first, every object in it.
            The frames rise; the first is the least there can be.
    """

    cues: tuple[tuple[float, tuple[str, ...]], ...]

    def at(self, n: int) -> tuple[str, ...]:
        """Return the objects front to back at a timeline frame."""
        return [names for first, names in self.cues if first <= n][-1]


def parse_order(text: str, names: Sequence[str]) -> Order:
    """Read the knob ``order``.

    Args:
        text: Names front to back with commas or spaces; ``; FRAME:`` before what holds from a frame
            on. Objects that are not named lie behind those that are, in their own order.
        names: All objects, in the order of the request.

    Raises:
        BadKnob: A name is no matte of the job or stands twice in one order; a frame is no whole
            number, is missing, or is not later than the one before it.
    """
    cues = [(-math.inf, tuple(names))]
    for place, part in enumerate(text.split(";")):
        if not part.strip():
            continue
        head, colon, tail = part.partition(":")
        first = -math.inf
        if colon:
            first = _frame(head, cues[-1][0])
        elif place == 0:
            tail = part
        else:
            raise BadKnob(
                f"Knob 'order' does not say from which frame on '{part.strip()}' holds.",
                hint=_FORM,
                knob="order",
            )
        cues.append((first, _whole(tail, names)))
    return Order(tuple(cues))


def _frame(text: str, after: float) -> float:
    """Return the frame before a colon."""
    try:
        first = int(text)
    except ValueError:
        raise BadKnob(
            f"Knob 'order' has '{text.strip()}' where the number of a frame belongs.",
            hint=_FORM,
            knob="order",
        ) from None
    if first <= after:
        raise BadKnob(
            f"Knob 'order' names frame {first} after frame {after:g}.",
            hint="Let the frames rise, each of them once.",
            knob="order",
        )
    return first


def _whole(text: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return an order that has every object in it."""
    asked = text.replace(",", " ").split()
    for word in asked:
        if word not in names or asked.count(word) > 1:
            raise BadKnob(
                f"Knob 'order' names '{word}', which is not a matte of this job or stands twice.",
                hint=f"Use each of these at most once: {', '.join(names)}.",
                knob="order",
            )
    return (*asked, *(name for name in names if name not in asked))


def by_depth(order: Sequence[str], depths: Mapping[str, float], near: str) -> tuple[str, ...]:
    """Order objects by depth.

    Args:
        order: The knob's order, front to back; equals keep it.
        depths: Of each object; NaN where the frame does not show it: it keeps its place.
        near: Whether near objects have ``small`` depths, or ``large``.

    Returns:
        The same objects, front to back.
    """
    places = [k for k, name in enumerate(order) if not math.isnan(depths[name])]
    sign = -1.0 if near == NEAR_IS_LARGE else 1.0
    ranked = sorted((order[k] for k in places), key=lambda name: sign * depths[name])
    found = list(order)
    for place, name in zip(places, ranked, strict=True):
        found[place] = name
    return tuple(found)


def median_depths(depth: Any, mattes: Iterable[Any]) -> list[float]:
    """Return how deep each object lies: the median where its matte shows it.

    Args:
        depth: [H,W] or [H,W,1], any float type; what is not finite is left out.
        mattes: Of each object. [H,W] or [H,W,1] float32, 0..1.

    Returns:
        One depth each; NaN where no pixel tells.
    """
    import numpy as np

    known: Floats = np.asarray(depth, np.float64).reshape(depth.shape[:2])
    finite = np.isfinite(known)
    found = []
    for matte in mattes:
        seen = known[finite & (np.asarray(matte).reshape(known.shape) > MATTE_SHOWS)]
        found.append(float(np.median(seen)) if seen.size else math.nan)
    return found


def measure_depths(ctx: Context, shot: Shot) -> NDArray[np.float64]:
    """Measure how deep every object lies on every frame; the body of a stage.

    Returns:
        [T,N] in the order of the request; NaN where a frame does not show an object.
    """
    import numpy as np

    from gencomp_server.parts.pictures import coverage_of, native
    from gencomp_server.parts.window import onto_display

    names, frames = shot.request.named(MATTE_PREFIX), tuple(shot.frames)
    found = np.empty((len(frames), len(names)), np.float64)
    for i, n in enumerate(frames):
        ctx.progress("depth", i, len(frames))
        header = shot.header(DEPTH, n)
        data = header.data_window
        told = onto_display(np.ones((data.height, data.width, 1)), data, header.display_window)
        depth = np.where(told > 0, native(shot, DEPTH, n).astype(np.float64), np.nan)
        mattes = (coverage_of(shot, MATTE_PREFIX + name, n) for name in names)
        found[i] = median_depths(depth, mattes)
    return found


def changes(frames: Iterable[int], order: Callable[[int], tuple[str, ...]]) -> dict[str, list[str]]:
    """Return, by the frame from which it holds, every order that differs from the one before."""
    found: dict[str, list[str]] = {}
    last: tuple[str, ...] = ()
    for n in frames:
        now = order(n)
        if now != last:
            found[str(n)] = list(now)
        last = now
    return found
