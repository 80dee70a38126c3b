# SPDX-License-Identifier: Apache-2.0
"""Sums of frames to the figures that a person reads: over the shot, and the worst frame of it.

An error over the shot is the mean over all its samples, so that a frame with twice the mask counts
twice; the worst frame stands beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from gencomp_server.metrics.fidelity import FrameSums, Step

DECIBEL, SHARE, ULP, COUNT, PLAIN, HUNDRED = "dB", "share", "ULP", "samples", "", "of 100"


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        name: What a program calls it: ``psnr_linear``.
        label: What a person reads.
        unit: ``dB``, ``share`` (0..1), ``ULP``, ``samples``, ``of 100``, or nothing.
        value: Over the shot; infinite for the PSNR of equals.
        worst: Of the worst frame; None where there is no such thing.
        frame: That frame, or the two of a flicker: ``1007``, ``1007-1008``.
        by_frame: Of every frame by its number, as far as a frame has one.
    """

    name: str
    label: str
    unit: str
    value: float
    worst: float | None = None
    frame: str | None = None
    by_frame: tuple[tuple[str, float], ...] = ()


def psnr(squared: float, samples: int) -> float:
    """Return the PSNR of a sum of squared errors, in dB, peak 1; infinite where it is zero."""
    return math.inf if squared == 0.0 else -10.0 * math.log10(squared / samples)


def figures(frames: Sequence[FrameSums], steps: Sequence[Step]) -> list[Figure]:
    """Return every figure that the sums support, in the order in which a person reads them.

    Args:
        frames: Sums of every frame that has pixels that count.
        steps: Changes between neighbours of them.
    """
    coloured = any(one.samples > one.compared for one in frames)
    made = [
        *_errors(frames, coloured),
        *_likeness(frames, coloured),
        *_bits(frames),
        *_flicker(steps),
    ]
    return [one for one in made if one is not None]


def _errors(frames: Sequence[FrameSums], coloured: bool) -> list[Figure | None]:
    made = [_psnr("linear", frames, lambda one: (one.linear, one.samples))]
    if coloured:
        made.append(_psnr("display", frames, lambda one: (one.display, one.samples)))
    return [*made, _psnr("alpha", frames, lambda one: (one.alpha, one.alphas))]


def _psnr(
    space: str, frames: Sequence[FrameSums], sums: Callable[[FrameSums], tuple[float, int]]
) -> Figure | None:
    found = [(one.frame, *sums(one)) for one in frames]
    samples = sum(count for _, _, count in found)
    if not samples:
        return None
    each = [(str(n), psnr(total, count)) for n, total, count in found if count]
    whole = psnr(math.fsum(total for _, total, _ in found), samples)
    frame, worst = min(each, key=lambda pair: pair[1])
    return Figure(f"psnr_{space}", f"PSNR {space}", DECIBEL, whole, worst, frame, tuple(each))


def _likeness(frames: Sequence[FrameSums], coloured: bool) -> list[Figure | None]:
    made = [_mean("ssim_linear", "SSIM linear", frames, lambda one: (one.ssim_linear, one.windows))]
    if coloured:
        made.append(
            _mean("ssim_display", "SSIM display", frames, lambda o: (o.ssim_display, o.windows))
        )
    return made


def _mean(
    name: str,
    label: str,
    frames: Sequence[FrameSums],
    sums: Callable[[FrameSums], tuple[float, int]],
    unit: str = PLAIN,
) -> Figure | None:
    found = [(str(one.frame), *sums(one)) for one in frames]
    return mean_figure(name, label, found, unit)


def mean_figure(
    name: str,
    label: str,
    found: Iterable[tuple[str, float, int]],
    unit: str = PLAIN,
    *,
    worst: Callable[..., tuple[str, float]] = min,
) -> Figure | None:
    """Return the mean of sums over frames, or None where there is nothing to take it of.

    Args:
        name: As ``Figure.name``.
        label: As ``Figure.label``.
        found: Frame, sum and count of each.
        unit: As ``Figure.unit``.
        worst: ``min`` where more is better, else ``max``.
    """
    rows = [row for row in found if row[2]]
    if not rows:
        return None
    each = [(frame, total / count) for frame, total, count in rows]
    whole = math.fsum(row[1] for row in rows) / sum(row[2] for row in rows)
    frame, least = worst(each, key=lambda pair: pair[1])
    return Figure(name, label, unit, whole, least, frame, tuple(each))


def _bits(frames: Sequence[FrameSums]) -> list[Figure | None]:
    untouched = _mean(
        "untouched",
        "pixels untouched",
        frames,
        lambda one: (float(one.untouched), one.pixels),
        SHARE,
    )
    ranks = [(str(one.frame), float(one.ulp)) for one in frames if one.ulp is not None]
    if len(ranks) < len(frames) or not ranks:
        return [untouched]
    frame, most = max(ranks, key=lambda pair: pair[1])
    furthest = Figure("max_ulp", "largest difference", ULP, most, most, frame, tuple(ranks))
    beyond = [(str(one.frame), float(one.beyond)) for one in frames]
    frame, most = max(beyond, key=lambda pair: pair[1])
    total = sum(count for _, count in beyond)
    several = Figure(
        "beyond_one_ulp", "samples beyond 1 ULP", COUNT, total, most, frame, tuple(beyond)
    )
    return [untouched, furthest, several]


def _flicker(steps: Sequence[Step]) -> list[Figure | None]:
    found = [one for one in steps if one.samples]
    if not found:
        return []
    each = [(f"{one.before}-{one.after}", math.sqrt(one.change / one.samples)) for one in found]
    samples = sum(one.samples for one in found)
    whole = math.sqrt(math.fsum(one.change for one in found) / samples)
    frame, worst = max(each, key=lambda pair: pair[1])
    return [Figure("flicker", "flicker of A - B", PLAIN, whole, worst, frame, tuple(each))]
