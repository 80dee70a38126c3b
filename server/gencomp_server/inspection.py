# SPDX-License-Identifier: Apache-2.0
"""A delivery looked at by whoever got it: alphas, whether the layers give the plate back, colours.

The digests say that files arrived as they were written; here their pictures are checked, since a
model, a disk or a fault of ours may have written nonsense. A few frames are read, evenly spread:

* every alpha lies within 0 and 1, and every sample is finite;
* a ``background`` and the objects over it, in the manifest's order, are the plate again;
* where ``effect`` is nothing, ``result`` is the plate.

What is found goes into the manifest, and into a sentence where something is wrong. Nothing is
refused: what an artist does with a result that differs is an artist's business.
"""

import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gencomp_protocol.errors import BadPicture
from gencomp_protocol.layers import (
    BACKGROUND,
    EFFECT,
    EFFECT_UNDER,
    RESERVED,
    RESIDUAL,
    RESULT,
)
from gencomp_server.exr.decode import DecodePool
from gencomp_server.metrics.figures import psnr
from gencomp_server.sheet import Files, Reading, Shown, whole

Floats = NDArray[np.float32]

MOST_FRAMES = 12
# A half next to 1 is 1.00098; below 0 there is no such excuse, but for the rounding of a sum.
_ALPHA = (-1e-4, 1.001)
_LEAST_DB = 50.0  # Of layers over one another against the plate, peak 1.
_MOST_SHIFT = 2e-3  # Mean difference of a channel from the plate, scene-linear.


@dataclass(frozen=True)
class Recomposed:
    """How far pictures are from the plate.

    Attributes:
        psnr_db: Peak 1; None where there is no difference at all.
        delta: Greatest difference of a sample, scene-linear.
        shift: Mean difference of red, green and blue.
        frame: Where the greatest difference is.
    """

    psnr_db: float | None
    delta: float
    shift: tuple[float, float, float]
    frame: int


@dataclass(frozen=True)
class Inspection:
    """What was found in a delivery.

    Attributes:
        frames: Those that were read.
        alpha: Least and greatest alpha of all layers; None where no layer has one.
        recomposed: Of the layers over one another, where there is a background.
        untouched: Of the result where there is no effect, where there are both.
        faults: What is wrong, a sentence each.
    """

    frames: tuple[int, ...]
    alpha: tuple[float, float] | None
    recomposed: Recomposed | None
    untouched: Recomposed | None
    faults: tuple[str, ...]

    def to_plain(self) -> dict[str, Any]:
        """Return it as plain data, for a manifest; ``flag`` is true where something is wrong."""
        return {**asdict(self), "flag": bool(self.faults)}

    def spell(self) -> str:
        """Return the figures in one line."""
        parts = [] if self.alpha is None else [f"alpha {self.alpha[0]:.4g} to {self.alpha[1]:.4g}"]
        for words, found in (
            ("layers against the plate", self.recomposed),
            ("result outside the effect against the plate", self.untouched),
        ):
            if found is not None:
                parts.append(f"{words} {_spell(found)}")
        return "; ".join(parts)


def inspect_delivery(
    frames: Sequence[int],
    plate: Files,
    layers: Mapping[str, Files],
    order: Mapping[int, Sequence[str]],
    pool: DecodePool,
) -> Inspection:
    """Read some frames of a delivery and say what is wrong with them.

    Args:
        frames: The frames delivered.
        plate: What the layers were made from.
        layers: Every delivered layer that has R, G and B, or A alone.
        order: Objects front to back from a frame on; empty takes that of ``layers``.
        pool: Decodes the files.

    Raises:
        BadPicture: A file cannot be read.
    """
    made = _Findings()
    picked = spread(frames, MOST_FRAMES)
    with tempfile.TemporaryDirectory(prefix="gencomp-inspection-") as scratch:
        reading = Reading(pool, Path(scratch))
        for frame in picked:
            _look_at(made, frame, reading, plate, layers, order)
    return made.told(tuple(picked))


def spread(frames: Sequence[int], most: int) -> list[int]:
    """Return so many frames at most, evenly spread, the first and the last among them."""
    if len(frames) <= most:
        return list(frames)
    return [frames[round(at * (len(frames) - 1) / (most - 1))] for at in range(most)]


class _Findings:
    """What was found so far."""

    def __init__(self) -> None:
        self.alpha: tuple[float, float] | None = None
        self.faults: dict[str, str] = {}
        self.recomposed, self.untouched = _Difference(), _Difference()

    def fault(self, name: str, sentence: str) -> None:
        """Note the first fault of its kind."""
        self.faults.setdefault(name, sentence)

    def look_at_layer(self, name: str, frame: int, shown: Shown) -> None:
        """Note a layer's alphas, and samples that are no numbers."""
        pixels = shown.pixels
        if not np.isfinite(pixels).all():
            self.fault(f"finite {name}", f"Layer '{name}' frame {frame} has samples that are NaN.")
        if pixels.shape[2] not in (1, 4):
            return
        alpha = pixels[..., -1]
        known = alpha[np.isfinite(alpha)]
        if not known.size:
            return
        lo, hi = float(known.min()), float(known.max())
        before = self.alpha or (lo, hi)
        self.alpha = min(lo, before[0]), max(hi, before[1])
        if lo < _ALPHA[0] or hi > _ALPHA[1]:
            self.fault(
                f"alpha {name}",
                f"The alpha of layer '{name}' frame {frame} goes from {lo:.4g} to {hi:.4g}; "
                "0 to 1 is what an alpha may be.",
            )

    def told(self, frames: tuple[int, ...]) -> Inspection:
        """Return all of it."""
        recomposed, untouched = self.recomposed.told(), self.untouched.told()
        for found, words in (
            (recomposed, "The layers over one another are not the plate"),
            (untouched, "Outside the effect the result is not the plate"),
        ):
            if found is not None and _is_far(found):
                self.fault(words, f"{words}: {_spell(found)}.")
        return Inspection(frames, self.alpha, recomposed, untouched, tuple(self.faults.values()))


class _Difference:
    """How far some pictures are from others, added up."""

    def __init__(self) -> None:
        self._squared, self._sum, self._samples = 0.0, np.zeros(3), 0
        self._delta, self._frame = 0.0, 0

    def add(self, frame: int, ours: Floats, plate: Floats, where: NDArray[np.bool_]) -> None:
        """Add a frame. Both [H,W,3]; ``where`` [H,W] tells which pixels count."""
        apart = (ours - plate)[where & np.isfinite(plate).all(axis=2)]
        apart = np.where(np.isfinite(apart), apart, np.float32(1e6)).astype(np.float64)
        if not apart.size:
            return
        if not self._samples or np.abs(apart).max() > self._delta:
            self._delta, self._frame = float(np.abs(apart).max()), frame
        self._squared += float((apart**2).sum())
        self._sum += apart.sum(axis=0)
        self._samples += apart.size

    def told(self) -> Recomposed | None:
        """Return the figures; None where nothing was added."""
        if not self._samples:
            return None
        decibels = psnr(self._squared, self._samples)
        red, green, blue = (float(one) / (self._samples / 3) for one in self._sum)
        found = None if math.isinf(decibels) else round(decibels, 2)
        return Recomposed(found, self._delta, (red, green, blue), self._frame)


def _look_at(
    made: _Findings,
    frame: int,
    reading: Reading,
    plate: Files,
    layers: Mapping[str, Files],
    order: Mapping[int, Sequence[str]],
) -> None:
    """Read one frame of everything and add it to what was found."""
    shown = {name: reading.read(name, files, frame) for name, files in layers.items()}
    for name, one in shown.items():
        made.look_at_layer(name, frame, one)
    objects = objects_of(shown)
    if BACKGROUND in shown and objects:
        own = _colour(reading.read("plate", plate, frame))
        stacked = _colour(shown[BACKGROUND])
        front = _order_at(order, frame, objects)
        for name in reversed([*([RESIDUAL] if RESIDUAL in shown else []), *front]):
            layer = _layer(shown[name])
            stacked = layer[..., :3] + stacked * (np.float32(1) - layer[..., 3:])
        made.recomposed.add(frame, stacked, own, np.ones(own.shape[:2], bool))
    if RESULT in shown and EFFECT in shown and EFFECT_UNDER not in shown:
        own, effect = _colour(reading.read("plate", plate, frame)), _layer(shown[EFFECT])
        is_untouched = (effect == 0).all(axis=2)
        made.untouched.add(frame, _colour(shown[RESULT]), own, is_untouched)


def objects_of(layers: Iterable[str]) -> list[str]:
    """Return the layers that lie over a background: those that an artist has named."""
    split = ("_object", "_effects")
    return [name for name in layers if name not in RESERVED and not name.endswith(split)]


def _order_at(
    order: Mapping[int, Sequence[str]], frame: int, objects: Sequence[str]
) -> Iterator[str]:
    """Yield the objects front to back; those that no order names lie behind."""
    since = max((at for at in order if at <= frame), default=None)
    front = [] if since is None else [name for name in order[since] if name in objects]
    yield from front
    yield from (name for name in objects if name not in front)


def _colour(shown: Shown) -> Floats:
    """Return red, green and blue over the display window. [H,W,3]."""
    return np.asarray(whole(shown)[..., :3], np.float32)


def _layer(shown: Shown) -> Floats:
    """Return a layer over the display window, nothing where it has no pixels. [H,W,4]."""
    full = whole(shown)
    if full.shape[2] != 4:
        raise BadPicture("A layer of the delivery has no alpha.", hint="Run the job again.")
    return np.asarray(full, np.float32)


def _is_far(found: Recomposed) -> bool:
    is_noisy = found.psnr_db is not None and found.psnr_db < _LEAST_DB
    return is_noisy or max(map(abs, found.shift)) > _MOST_SHIFT


def _spell(found: Recomposed) -> str:
    if found.psnr_db is None:
        return "exact"
    shift = max(found.shift, key=abs)
    return (
        f"{found.psnr_db:.1f} dB, at most {found.delta:.3g} off (frame {found.frame}), "
        f"colours shifted by {shift:.2g}"
    )
