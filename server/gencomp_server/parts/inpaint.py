# SPDX-License-Identifier: Apache-2.0
"""Filling what no frame has seen, once per canvas, so that the filling cannot flicker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Bools = NDArray[np.bool_]


def fill_smooth(picture: Floats, known: Bools) -> Floats:
    """Fill unknown pixels smoothly from the known ones around them.

    A membrane: solved coarse to fine, so a large hole costs no more than a small one.

    Args:
        picture: [H,W,C] float32; unknown pixels are not looked at.
        known: [H,W] bool.

    Returns:
        Picture with its known pixels untouched; all zero where nothing is known. [H,W,C] float32.
    """
    if known.all():
        return picture.copy()
    height, width = known.shape
    value = np.where(known[..., None], picture, np.float32(0.0))
    if min(height, width) > 4 and known.any():
        half = ((width + 1) // 2, (height + 1) // 2)
        weight = cv2.resize(known.astype(np.float32), half, interpolation=cv2.INTER_AREA)
        small = cv2.resize(value, half, interpolation=cv2.INTER_AREA)
        small = small.reshape(half[1], half[0], -1) / np.maximum(weight, 1e-6)[..., None]
        small = fill_smooth(small, weight > 1e-3)
        guess = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        value = np.where(known[..., None], value, guess.reshape(value.shape))
    else:
        count = max(int(known.sum()), 1)
        value = np.where(known[..., None], value, value.sum(axis=(0, 1)) / count)
    for _ in range(12):
        blurred = cv2.blur(value, (3, 3), borderType=cv2.BORDER_REPLICATE).reshape(value.shape)
        value = np.where(known[..., None], value, blurred)
    return np.asarray(value, np.float32)


# Patches of 7 by 7 pixels; a known pixel of a patch says more than one that was guessed.
_REACH = 3
_GUESSED = 0.35
_ROUNDS = 4
_COARSEST_PX = 40


def fill_by_shifts(
    picture: Floats, known: Bools, wanted: Bools, generator: np.random.Generator
) -> NDArray[np.int16]:
    """Say for every unknown pixel which known pixel to copy, so that texture runs on.

    Because it answers with places and not with colours, the same answer fills a plate of any size
    with its own grain. Coarse to fine; at each size every unknown pixel looks for the known patch
    that is most like its surroundings, by its neighbours' finds and by chance, and the picture is
    made anew from what was found.

    Args:
        picture: [H,W,3] float32, encoded units; unknown pixels are not looked at.
        known: Pixels that may be copied. [H,W] bool.
        wanted: Unknown pixels that are needed. [H,W] bool, nowhere where ``known``.
        generator: For the searching by chance.

    Returns:
        Offsets (x, y) to the pixel to copy, zero where nothing is wanted or nothing is known.
        [H,W,2] int16.
    """
    shifts = np.zeros((*known.shape, 2), np.int16)
    if not wanted.any() or not known.any():
        return shifts
    box = _around(wanted, known.shape)
    found = _coarse_to_fine(
        fill_smooth(picture[box], known[box]), known[box], wanted[box], generator
    )
    shifts[box] = found
    return shifts


def _around(wanted: Bools, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the part of the picture that is searched: the hole and as much again around it."""
    ys, xs = np.nonzero(wanted)
    spans = []
    for at, length in ((ys, shape[0]), (xs, shape[1])):
        low, high = int(at.min()), int(at.max()) + 1
        room = max(48, (high - low) // 2)
        spans.append(slice(max(0, low - room), min(length, high + room)))
    return spans[0], spans[1]


def _coarse_to_fine(
    picture: Floats, known: Bools, wanted: Bools, generator: np.random.Generator
) -> NDArray[np.int16]:
    """Return offsets for one part of a picture whose holes are filled smoothly already."""
    height, width = known.shape
    start: NDArray[np.int16] | None = None
    if min(height, width) >= 2 * _COARSEST_PX:
        half = (width // 2, height // 2)
        small_known = cv2.resize(known.astype(np.float32), half, interpolation=cv2.INTER_AREA)
        small_wanted = cv2.resize(wanted.astype(np.float32), half, interpolation=cv2.INTER_AREA)
        small = _coarse_to_fine(
            cv2.resize(picture, half, interpolation=cv2.INTER_AREA),
            small_known > 0.99,
            (small_wanted > 0.0) & (small_known <= 0.99),
            generator,
        )
        start = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST) * 2
    return _search(picture, known, wanted, start, generator)


def _search(
    picture: Floats,
    known: Bools,
    wanted: Bools,
    start: NDArray[np.int16] | None,
    generator: np.random.Generator,
) -> NDArray[np.int16]:
    """Find offsets at one size, starting from those of half the size."""
    shape = known.shape
    shifts = np.zeros((*shape, 2), np.int16)
    size = 2 * _REACH + 1
    whole = cv2.erode(known.astype(np.uint8), np.ones((size, size), np.uint8), borderValue=0) > 0
    if not whole.any():
        whole = known
    holes = np.argwhere(wanted)
    if len(holes) == 0 or not whole.any():
        return shifts
    places = np.argwhere(whole)
    target = places[generator.integers(0, len(places), len(holes))]
    if start is not None:
        moved = holes + start[holes[:, 0], holes[:, 1], ::-1]
        good = _inside(moved, shape)
        good[good] &= whole[moved[good, 0], moved[good, 1]]
        target[good] = moved[good]
    number = np.full(shape, -1, np.int64)
    number[holes[:, 0], holes[:, 1]] = np.arange(len(holes))
    weight = np.where(known, np.float32(1.0), np.float32(_GUESSED))
    current = picture.copy()
    if start is not None:
        current[wanted] = picture[target[:, 0], target[:, 1]]
    for _ in range(_ROUNDS):
        cost = _unlike(current, picture, weight, holes, target)
        target, cost = _improve(
            current, picture, weight, holes, target, cost, number, whole, generator
        )
        current[wanted] = _vote(picture, holes, target, cost, number)
    offsets = (target - holes)[:, ::-1]
    shifts[holes[:, 0], holes[:, 1]] = offsets.astype(np.int16)
    return shifts


def _inside(places: NDArray[np.int64], shape: tuple[int, ...]) -> Bools:
    y, x = places[:, 0], places[:, 1]
    return np.asarray((y >= 0) & (x >= 0) & (y < shape[0]) & (x < shape[1]))


def _unlike(
    current: Floats,
    picture: Floats,
    weight: Floats,
    holes: NDArray[np.int64],
    target: NDArray[np.int64],
) -> Floats:
    """Return how unlike the patch around each hole pixel is to the one around its target."""
    height, width = weight.shape
    total, amount = np.zeros(len(holes), np.float32), np.zeros(len(holes), np.float32)
    for dy in range(-_REACH, _REACH + 1):
        for dx in range(-_REACH, _REACH + 1):
            y = np.clip(holes[:, 0] + dy, 0, height - 1)
            x = np.clip(holes[:, 1] + dx, 0, width - 1)
            there = picture[
                np.clip(target[:, 0] + dy, 0, height - 1), np.clip(target[:, 1] + dx, 0, width - 1)
            ]
            heavy = weight[y, x]
            off = current[y, x] - there
            total += heavy * np.einsum("ij,ij->i", off, off)
            amount += heavy
    return np.asarray(total / amount, np.float32)


def _improve(
    current: Floats,
    picture: Floats,
    weight: Floats,
    holes: NDArray[np.int64],
    target: NDArray[np.int64],
    cost: Floats,
    number: NDArray[np.int64],
    whole: Bools,
    generator: np.random.Generator,
) -> tuple[NDArray[np.int64], Floats]:
    """Try the neighbours' finds, near and far, and places by chance at shrinking distances."""
    shape = whole.shape

    def attempt(places: NDArray[np.int64]) -> None:
        fit = _inside(places, shape)
        fit[fit] &= whole[places[fit, 0], places[fit, 1]]
        fit &= (places != target).any(axis=1)
        if fit.any():
            found = _unlike(current, picture, weight, holes[fit], places[fit])
            better = found < cost[fit]
            which = np.flatnonzero(fit)[better]
            target[which], cost[which] = places[which], found[better]

    for step in (8, 4, 2, 1):
        for dy, dx in ((0, step), (0, -step), (step, 0), (-step, 0)):
            beside = holes + np.array([dy, dx])
            ok = _inside(beside, shape)
            who = np.where(ok, number[beside[:, 0] % shape[0], beside[:, 1] % shape[1]], -1)
            attempt(np.where((who >= 0)[:, None], target[who] - np.array([dy, dx]), target))
    radius = max(shape) // 2
    while radius >= 1:
        attempt(target + generator.integers(-radius, radius + 1, target.shape))
        radius //= 3
    return target, cost


def _vote(
    picture: Floats,
    holes: NDArray[np.int64],
    target: NDArray[np.int64],
    cost: Floats,
    number: NDArray[np.int64],
) -> Floats:
    """Return each hole pixel's colour: what the patches that cover it say, the likeliest most."""
    height, width = number.shape
    total = np.zeros((len(holes), picture.shape[2]), np.float32)
    amount = np.zeros(len(holes), np.float32)
    scale = max(float(np.quantile(cost, 0.75)), 1e-8)
    for dy in range(-_REACH, _REACH + 1):
        for dx in range(-_REACH, _REACH + 1):
            beside = holes + np.array([dy, dx])
            ok = _inside(beside, number.shape)
            who = np.where(ok, number[beside[:, 0] % height, beside[:, 1] % width], -1)
            ok = who >= 0
            heavy = np.where(ok, np.exp(-cost[who] / (2 * scale)), 0.0).astype(np.float32)
            y = np.clip(target[who, 0] - dy, 0, height - 1)
            x = np.clip(target[who, 1] - dx, 0, width - 1)
            total += heavy[:, None] * picture[y, x]
            amount += heavy
    return np.asarray(total / np.maximum(amount, 1e-12)[:, None], np.float32)
