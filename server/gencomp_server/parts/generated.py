# SPDX-License-Identifier: Apache-2.0
"""From what a model made of a plate, at its own size, to a picture of the plate's size.

What the model left alone is the plate's own sample; what it changed is that change, carried onto
the plate (``parts/change.py``), which keeps the plate's detail under a shadow that goes. Where an
object went, the plate's detail is the object's: there the model's own picture stands, with a soft
seam. What a trimask keeps is the plate, bit for bit.

Sequences are [T,h,w,C] at model size, in model range [-1,1] unless said.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gencomp_server.parts.calibration import Calibration, calibrate
from gencomp_server.parts.change import (
    FLOOR_FRAMES,
    LEAST_WEIGHT,
    Floor,
    apply_change,
    find_change,
    measure_floor,
    to_code,
)
from gencomp_server.parts.fit import from_model_frame, to_model_frame
from gencomp_server.parts.passes import Asked
from gencomp_server.parts.trimask import KEEP

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.colour.modelrange import ModelRange

    Floats = NDArray[np.float32]
    Halves = NDArray[np.float16]
    Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Generated:
    """One pass, decoded.

    Attributes:
        reference: The plate through the VAE and back. [T,h,w,3] float16.
        sample: What the model made. [T,h,w,3] float16.
        asked: What it was asked for.
        floor: How far the two differ where nothing was asked for.
    """

    reference: Halves
    sample: Halves
    asked: Asked
    floor: Floor


def floor_of(reference: Halves, sample: Halves, keep: Halves | None = None) -> Floor:
    """Measure how far a pass is from its reference where nothing changed.

    Nobody knows beforehand how far shadows and reflections reach, so that there is no outside: the
    quietest quarter of the picture tells, at about ``FLOOR_FRAMES`` frames evenly spread.

    Args:
        reference: The plate as the model had it. [T,h,w,3].
        sample: What it made. [T,h,w,3].
        keep: Above 0 where it cannot change anything. [T,h,w,1]; None: it can everywhere.
    """
    everywhere = np.ones(sample.shape[1:3], bool)
    step = max(1, len(sample) // FLOOR_FRAMES)
    held = None if keep is None else [np.asarray(one[..., 0] > 0, bool) for one in keep[::step]]
    return measure_floor(
        (
            (one, other, everywhere)
            for one, other in zip(reference[::step], sample[::step], strict=True)
        ),
        held,
    )


@dataclass(frozen=True)
class Placed:
    """One frame of a pass at the plate's size, and where it comes from.

    Attributes:
        picture: Scene-linear. [H,W,3] float32.
        gained: Share of each pixel's light that is the plate's under a gain. [H,W] float32, 0..1.
        made: Share that the model made. [H,W] float32, 0..1; the rest is the plate's own.
    """

    picture: Floats
    gained: Floats
    made: Floats


def place_frame(
    plate: Floats,
    made: Generated,
    i: int,
    keep: Floats | None = None,
    *,
    colour: ModelRange,
) -> Placed:
    """Return one frame of a pass at the plate's size.

    Args:
        plate: [H,W,3] float32, scene-linear, finite.
        made: The pass.
        i: Place of the frame in it.
        keep: Where the plate stays, whatever happens. [H,W,1] float32, 0..1.
        colour: How the plate became the model's.

    Returns:
        The picture is the plate's own sample wherever nothing changed, and wherever the model
        pixel that a plate pixel's centre lies in is KEEP.
    """
    height, width = plate.shape[:2]
    kept = made.asked.trimask[i, ..., 0] == KEEP
    free = np.asarray(~at_plate(kept, (height, width))[..., None], np.float32)
    if keep is not None:
        free *= 1 - keep
    found = Placed(plate.copy(), *np.zeros((2, height, width), np.float32))
    flat, gained, new = found.picture.reshape(-1, 3), found.gained.ravel(), found.made.ravel()
    change = find_change(made.reference[i], made.sample[i], made.floor, ~kept, colour=colour)
    if change is not None:
        changed = apply_change(plate, change, free, made.floor, colour=colour)
        flat[changed.index] = changed.colours
        gained[changed.index], new[changed.index] = changed.gained, changed.made
    share = from_model_frame(made.asked.replaced[i, ..., 0], (width, height)) * free[..., 0]
    index = np.flatnonzero(share > LEAST_WEIGHT)
    code = from_model_frame(to_code(made.sample[i]), (width, height)).reshape(-1, 3)[index]
    picture, weight = colour.light(code), share.reshape(-1)[index]
    flat[index] += weight[:, None] * (picture - flat[index])
    gained[index] *= 1 - weight
    new[index] += weight * (1 - new[index])
    return found


def at_plate(classes: Bools, size: tuple[int, int]) -> Bools:
    """Bring a class to plate size (H,W): each plate pixel has its model pixel's."""
    rows, columns = (
        ((np.arange(to) + 0.5) * (of / to)).astype(np.intp)
        for to, of in zip(size, classes.shape, strict=True)
    )
    return np.asarray(classes[rows[:, None], columns], bool)


def fit_of(
    plate: Floats,
    reference: Halves,
    covered: Bools,
    model_size: tuple[int, int],
    *,
    colour: ModelRange,
) -> Calibration:
    """Return how well a model's pictures fit the plate, for the solver.

    The plate's own way through the VAE tells: noise, softness and misfit of what the model made
    cannot be less. Neither shift nor drift is taken out: pictures already lie on the plate.

    Args:
        plate: At the solver's size. [h,w,3] float32, scene-linear.
        reference: One frame of the plate through the VAE. [h',w',3] float16, model range.
        covered: Where a matte is. [h,w] bool.
        model_size: The solver's width and height.
        colour: How the plate became the model's.
    """
    light = colour.light(to_code(reference))
    found = calibrate(plate, to_model_frame(light, model_size), covered)
    return replace(found, shift=(0.0, 0.0), drift=())
