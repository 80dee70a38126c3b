# SPDX-License-Identifier: Apache-2.0
"""The stages of an omnimatte in which alphas are found: the shot at model size, and its solves.

::

    bring_in ─► solve_alpha (one per frame) ─► share_out (where one alpha stands for all objects)
                          measure_floor (a few frames, at plate size)

Every function here is the body of a stage.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from gencomp_protocol.layers import MATTE_PREFIX, PLATE
from gencomp_server.parts.alpha import ROUGH, STANDARD, solve_frame
from gencomp_server.parts.behind import solo_frame
from gencomp_server.parts.fit import from_model_frame, model_format, to_model_frame
from gencomp_server.parts.layering import FrameAlpha, Scene
from gencomp_server.parts.noise import measure_noise
from gencomp_server.parts.ownership import share_effects
from gencomp_server.parts.pictures import coverage_of, linear

if TYPE_CHECKING:
    from gencomp_server.contract import Context, Shot
    from gencomp_server.parts.cleanfit import FittedClean
    from gencomp_server.parts.cleanplate import CleanPlatePlan
    from gencomp_server.parts.generated import Generated
    from gencomp_server.parts.noise import NoiseFloor
    from gencomp_server.parts.ownership import Ownership


def bring_in(ctx: Context, shot: Shot, *, long_edge: int) -> Scene:
    """Bring plate and mattes to model size, over the display window, finite."""
    window = shot.header(PLATE).display_window
    size = model_format(window.width, window.height, long_edge)
    frames, mattes = tuple(shot.frames), [name for name in shot.names if name != PLATE]
    plate = np.empty((len(frames), size[1], size[0], 3), np.float32)
    stacked = np.empty((len(frames), size[1], size[0], len(mattes)), np.float16)
    for i, n in enumerate(frames):
        ctx.progress("scene", i, len(frames))
        plate[i] = to_model_frame(linear(shot, PLATE, n), size)
        for k, name in enumerate(mattes):
            stacked[i, ..., k] = to_model_frame(coverage_of(shot, name, n), size)[..., 0]
    return Scene(frames, plate, stacked)


def solve_alpha(
    ctx: Context,
    solos: Shot,
    scene: Scene,
    clean: FittedClean,
    made: dict[str, Generated],
    *,
    n: int,
    mattes: str,
    exposure: float,
) -> FrameAlpha:
    """Solve one frame at model size: all objects together, or each against its own solo."""
    i, settings = scene.place(n), ROUGH if mattes == "rough" else STANDARD
    under = to_model_frame(clean.pixels, scene.size)
    if not solos.names:
        found = solve_frame(scene.plate[i], under, scene.matte(n), clean.calibration, settings)
        return FrameAlpha(found.alpha, found.object_alpha)
    each = []
    for k, name in enumerate(solos.request.named(MATTE_PREFIX)):
        solo = to_model_frame(solo_frame(solos, made, name, n, exposure=exposure), scene.size)
        matte, others = scene.own_and_others(n, k)
        found = solve_frame(solo, under, matte, clean.calibration, settings, occluded=others)
        each.append(found)
    return FrameAlpha(
        np.concatenate([one.alpha for one in each], axis=2),
        np.concatenate([one.object_alpha for one in each], axis=2),
    )


def measure_floor(
    ctx: Context,
    shot: Shot,
    scene: Scene,
    plan_: CleanPlatePlan | None,
    cleans: list[FittedClean],
    *,
    at: tuple[int, ...],
) -> NoiseFloor:
    """Measure at plate size what grain alone makes of plate minus clean plate."""

    def samples() -> Iterator[tuple[Any, Any, Any]]:
        for n, clean in zip(at, cleans, strict=True):
            i, plate = scene.frames.index(n), linear(shot, PLATE, n)
            hidden = scene.covered(n)
            if plan_ is not None:
                hidden = hidden | plan_.suspected[i] | (plan_.own[i] > 0)
            wide = from_model_frame(hidden.astype(np.float32), (plate.shape[1], plate.shape[0]))
            yield plate, clean.pixels.astype(np.float32), wide > 0

    return measure_noise(samples())


def share_out(ctx: Context, scene: Scene, alphas: list[Any]) -> Ownership:
    """Find out which object each effect pixel belongs to."""
    together = np.stack([np.asarray(alpha[..., 0], np.float16) for alpha in alphas])
    return share_effects(
        together,
        scene.mattes,
        progress=lambda done, total: ctx.progress("ownership", done, total),
    )
