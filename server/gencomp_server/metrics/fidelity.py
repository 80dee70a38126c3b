# SPDX-License-Identifier: Apache-2.0
"""One frame of two pictures, sample by sample: errors, SSIM, bits, and what changes in time.

A frame is gone through in tiles. A tile whose bits agree everywhere costs no arithmetic, which
makes a delivery that left most of the plate alone quick to measure.

``linear`` is the samples as they are, peak 1: an error counts in full whether it lies in a shadow
or in a lamp of 8.0, which by itself can make the figure negative. ``display`` is the codes of
``colour/modelrange.py``, peak 1, of light in Linear Rec.709: the sRGB curve up to 0.5, above it a
logarithm that has 1.0 at 0.836 and 16.0 at 1, negative values mirrored. So no highlight is cut and
none rules the figure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gencomp_protocol.frames import Box
from gencomp_server.colour.modelrange import ModelRange
from gencomp_server.metrics.overlap import Bools, Overlap
from gencomp_server.metrics.ssim import REACH, ssim_map

Floats = NDArray[np.float32]

_TILE = 256
_WINDOW = 2 * REACH + 1
# Bits of the exponent: all of them are set in NaN and infinity only.
_BITS: dict[str, tuple[Any, Any, int]] = {
    "float16": (np.uint16, np.int16, 0x7C00),
    "float32": (np.uint32, np.int32, 0x7F800000),
}


@dataclass
class FrameSums:
    """Sums over the counted pixels of one frame; filled tile by tile.

    Attributes:
        frame: Its number.
        pixels: Pixels that count.
        compared: Those of them whose samples are all finite.
        bad_a: Samples of A that are NaN or infinite.
        bad_b: Samples of B that are NaN or infinite.
        untouched: Pixels whose samples all agree bit by bit.
        samples: Colour samples behind the two errors.
        linear: Sum of squared differences of colour.
        display: The same in display range.
        alphas: Alpha samples compared; 0 where there is no alpha.
        alpha: Sum of squared differences of alpha.
        windows: SSIM values, colour by colour.
        ssim_linear: Sum of them.
        ssim_display: Sum of them in display range.
        ulp: Greatest distance in units in the last place, any channel; None where types differ.
        beyond: Samples further apart than one such unit.
    """

    frame: int
    pixels: int = 0
    compared: int = 0
    bad_a: int = 0
    bad_b: int = 0
    untouched: int = 0
    samples: int = 0
    linear: float = 0.0
    display: float = 0.0
    alphas: int = 0
    alpha: float = 0.0
    windows: int = 0
    ssim_linear: float = 0.0
    ssim_display: float = 0.0
    ulp: int | None = 0
    beyond: int = 0


@dataclass(frozen=True)
class Measured:
    """What was found of one frame.

    Attributes:
        sums: Its sums.
        difference: A minus B, of colour in display range, of coverage as it is; zero where it is
            not ``valid``. [H,W,1|3] float32.
        valid: Pixels that count and are finite. [H,W] bool.
        touched: Pixels that count and are not bit-identical. [H,W] bool.
        box: Where the arrays lie, from the corner of the display window.
    """

    sums: FrameSums
    difference: Floats
    valid: Bools
    touched: Bools
    box: Box


def measure_frame(frame: int, seen: Overlap) -> Measured:
    """Compare two pictures."""
    height, width = seen.counted.shape
    made = Measured(
        FrameSums(frame, ulp=0 if seen.same_type else None),
        np.zeros((height, width, seen.colours), np.float32),
        np.zeros((height, width), bool),
        np.zeros((height, width), bool),
        seen.box,
    )
    for inner, outer in _tiles(height, width):
        if seen.counted[inner].any():
            _add_tile(made, seen, inner, outer)
    return made


Slices = tuple[slice, slice]


def _tiles(height: int, width: int) -> Iterator[tuple[Slices, Slices]]:
    """Yield tiles, and each with as much around it as SSIM's windows reach."""
    for y in range(0, height, _TILE):
        for x in range(0, width, _TILE):
            y1, x1 = min(y + _TILE, height), min(x + _TILE, width)
            rows = slice(max(0, y - REACH), min(height, y1 + REACH))
            columns = slice(max(0, x - REACH), min(width, x1 + REACH))
            yield (slice(y, y1), slice(x, x1)), (rows, columns)


def _add_tile(made: Measured, seen: Overlap, inner: Slices, outer: Slices) -> None:
    a, b = seen.a[outer], seen.b[outer]
    same, finite_a, finite_b = _same_bits(a, b), _finite(a), _finite(b)
    finite: Bools = np.asarray((finite_a & finite_b).all(axis=2))
    counted = seen.counted[outer]
    within = (_shifted(inner[0], outer[0]), _shifted(inner[1], outer[1]))
    sums, chosen = made.sums, counted[within]
    sums.pixels += int(np.count_nonzero(chosen))
    sums.untouched += int(np.count_nonzero(chosen & same[within]))
    sums.bad_a += int(np.count_nonzero(~finite_a[within][chosen]))
    sums.bad_b += int(np.count_nonzero(~finite_b[within][chosen]))
    valid = chosen & finite[within]
    compared = int(np.count_nonzero(valid))
    sums.compared += compared
    sums.samples += compared * seen.colours
    sums.alphas += compared * (a.shape[2] > seen.colours)
    made.valid[inner] = valid
    windows = _whole_windows(seen.there[outer] & finite, counted)
    sums.windows += int(np.count_nonzero(windows)) * seen.colours
    if same.all():
        likeness = float(np.count_nonzero(windows) * seen.colours)
        sums.ssim_linear += likeness
        sums.ssim_display += likeness
        return
    made.touched[inner] = chosen & ~same[within]
    _add_errors(made, (a, b), valid, (inner, within), seen)
    _add_likeness(sums, (a, b), finite, windows, seen)


def _add_errors(
    made: Measured,
    pair: tuple[NDArray[Any], NDArray[Any]],
    valid: Bools,
    places: tuple[Slices, Slices],
    seen: Overlap,
) -> None:
    """Add squared errors and distances in ULP of a tile's pixels, and keep the difference."""
    inner, within = places
    colours = seen.colours
    sums = made.sums
    a, b = (one[within][valid] for one in pair)  # [n,C]
    if sums.ulp is not None and a.size:
        apart = ulp_apart(a, b)
        sums.ulp = max(sums.ulp, int(apart.max()))
        sums.beyond += int(np.count_nonzero(apart > 1))
    a, b = a.astype(np.float32), b.astype(np.float32)
    light = a.astype(np.float64) - b
    sums.linear += float(np.square(light[:, :colours]).sum())
    sums.alpha += float(np.square(light[:, colours:]).sum())
    coded = light
    if colours == 3:
        coded = _codes(a, seen.light).astype(np.float64) - _codes(b, seen.light)
        sums.display += float(np.square(coded).sum())
    kept = np.zeros((*valid.shape, colours), np.float32)
    kept[valid] = coded[:, :colours]
    made.difference[inner] = kept


def _add_likeness(
    sums: FrameSums,
    pair: tuple[NDArray[Any], NDArray[Any]],
    finite: Bools,
    windows: Bools,
    seen: Overlap,
) -> None:
    if not windows.any():
        return
    colours = seen.colours
    a, b = (np.where(finite[..., None], one[..., :colours], 0).astype(np.float32) for one in pair)
    found = ssim_map(a.astype(np.float64), b.astype(np.float64))
    sums.ssim_linear += float(found[windows].sum())
    if colours == 3:
        codes = (_codes(one, seen.light).astype(np.float64) for one in (a, b))
        sums.ssim_display += float(ssim_map(*codes)[windows].sum())


def _codes(samples: Floats, light: ModelRange) -> Floats:
    """Return display codes of a working space's samples. [...,3] float32, unclipped."""
    return light.code(samples[..., :3])


def _whole_windows(usable: Bools, counted: Bools) -> Bools:
    """Return which window centres of a tile count. [h-10,w-10] bool; a small tile has none."""
    if min(usable.shape) < _WINDOW:
        return np.zeros((0, 0), bool)
    spoilt = cv2.dilate((~usable).astype(np.uint8), np.ones((_WINDOW, _WINDOW), np.uint8))
    whole: Bools = (np.asarray(spoilt) == 0) & counted
    return whole[REACH:-REACH, REACH:-REACH]


def _shifted(part: slice, whole: slice) -> slice:
    return slice(part.start - whole.start, part.stop - whole.start)


# --- bits ----------------------------------------------------------------------------------------


def _same_bits(a: NDArray[Any], b: NDArray[Any]) -> Bools:
    """Return where every sample agrees bit by bit, half widened where types differ. [h,w] bool."""
    if a.dtype != b.dtype:
        a, b = a.astype(np.float32), b.astype(np.float32)
    unsigned = _BITS[str(a.dtype)][0]
    same: Bools = (a.view(unsigned) == b.view(unsigned)).all(axis=2)
    return same


def _finite(samples: NDArray[Any]) -> Bools:
    unsigned, _, exponent = _BITS[str(samples.dtype)]
    found: Bools = (samples.view(unsigned) & unsigned(exponent)) != exponent
    return found


def ulp_apart(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.int64]:
    """Return how many numbers of their type lie between two samples, plus one; 0 where equal.

    Args:
        a: float16 or float32, finite; contiguous.
        b: As ``a``, of the same type and shape. The two zeros are one number.

    Returns:
        Distances of the same shape, int64.
    """
    apart: NDArray[np.int64] = np.abs(_rank(a) - _rank(b))
    return apart


def _rank(samples: NDArray[Any]) -> NDArray[np.int64]:
    """Number the finite values of a type in their order; zero is 0."""
    signed = _BITS[str(samples.dtype)][1]
    bits = np.ascontiguousarray(samples).view(signed).astype(np.int64)
    magnitude = bits & np.iinfo(signed).max
    rank: NDArray[np.int64] = np.where(bits < 0, -magnitude, magnitude)
    return rank


# --- time ----------------------------------------------------------------------------------------

_STRIP_ROWS = 128


@dataclass(frozen=True)
class Step:
    """What changed between two frames.

    Attributes:
        before: The earlier frame.
        after: The later frame.
        samples: Samples that count in both.
        change: Sum of squares of how much A - B changed from one to the other.
    """

    before: int
    after: int
    samples: int
    change: float


def step_between(before: Measured, after: Measured) -> Step:
    """Return how much the difference of A and B changed from one frame to the next.

    Flicker is the root of the mean square of ``D(n+1) - D(n)``, where ``D = A - B`` in display
    range (coverage as it is). Whatever A and B do alike, and a difference that stands still, give
    none. A difference of ``c`` in every other frame gives ``c``, one of ``+c`` and ``-c`` in turn
    gives ``2 c``, noise of deviation ``s`` that is new in every frame gives ``s`` times root two.
    """
    common = before.box.intersect(after.box)
    samples, change = 0, 0.0
    if common is not None:
        for top in range(0, common.height, _STRIP_ROWS):
            y1 = min(common.y0 + top + _STRIP_ROWS - 1, common.y1)
            strip = Box(common.x0, common.y0 + top, common.x1, y1)
            first, then = _in(before.box, strip), _in(after.box, strip)
            both = before.valid[first] & after.valid[then]
            moved = after.difference[then][both].astype(np.float64) - before.difference[first][both]
            samples += moved.size
            change += float(np.square(moved).sum())
    return Step(before.sums.frame, after.sums.frame, samples, change)


def _in(whole: Box, part: Box) -> Slices:
    return (
        slice(part.y0 - whole.y0, part.y1 - whole.y0 + 1),
        slice(part.x0 - whole.x0, part.x1 - whole.x0 + 1),
    )
