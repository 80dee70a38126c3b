# SPDX-License-Identifier: Apache-2.0
"""What lies behind the objects of a shot, a frame at a time, and where it comes from.

====================  ===========================================================================
gathered              from the plate's other frames, and from stills that the artist painted
connected             a sequence that the artist gave, moved and graded onto the plate
made                  by a video model: its change on the plate, and its own picture behind objects
drafted               gathered behind objects, and a small model's change on that and on the plate
====================  ===========================================================================

Bodies of stages have a ``ctx`` first. Pictures are [H,W,C] at plate size over the display window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gencomp_protocol.layers import (
    CLEAN_PLATE,
    KEEP,
    MATTE_PREFIX,
    PLATE,
    SOLO_PREFIX,
)
from gencomp_protocol.request import SEQUENCE, STILL
from gencomp_server.colour.modelrange import range_of
from gencomp_server.parts.background import CleanPlateSettings
from gencomp_server.parts.bounds import let_through
from gencomp_server.parts.calibration import EXACT, Calibration
from gencomp_server.parts.cleanfit import FittedClean, fit_clean
from gencomp_server.parts.cleanplate import plan_clean_plate
from gencomp_server.parts.fit import from_model_frame, to_model_frame
from gencomp_server.parts.gather import gather_frame, gather_sources
from gencomp_server.parts.generated import fit_of, place_frame
from gencomp_server.parts.grain import fill_grain
from gencomp_server.parts.overbase import place_drafted
from gencomp_server.parts.passes import is_gathered
from gencomp_server.parts.pictures import coverage_of, in_type, linear, row_reader

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.contract import Context, Shot
    from gencomp_server.parts.cleanplate import CleanPlatePlan
    from gencomp_server.parts.generated import Generated, Placed
    from gencomp_server.parts.grain import Grain
    from gencomp_server.parts.layering import Scene
    from gencomp_server.parts.overbase import Drafted, PlacedDraft

    Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Sources:
    """Where one frame's clean plate comes from.

    Attributes:
        foreign: Share that is not this frame's own light. [H,W] float32, 0..1.
        gained: Share that is this frame's own under a gain. [H,W] float32, 0..1.
        other: Share of what is foreign that another frame, or the artist, showed; the rest was
            made up. [h,w] float32, 0..1, at any size.
        frame: Number of the other frame that gave most. [h,w], at any size.
        grain: Share of the plate's grain that what is foreign has. [h,w] float32, at any size.
    """

    foreign: Any
    gained: Any
    other: Any
    frame: Any
    grain: Any


@dataclass(frozen=True)
class Behind:
    """The clean plate of a shot.

    Attributes:
        shot: The shot.
        clean: The clean plate of a frame.
        gathered: How it is gathered, where it comes from the shot.
        made: What the model made, where it did.
        drafted: What the model made over a gathered base, where it did, and that base by frame; it
            is gathered as ``gathered`` says.
        exposure: Stops by which the model saw the plate brighter.
    """

    shot: Shot
    clean: Callable[[int], FittedClean]
    gathered: CleanPlatePlan | None = None
    made: Generated | None = None
    drafted: tuple[Drafted, Callable[[int], FittedClean]] | None = None
    exposure: float = 0.0

    def sources(self, n: int) -> Sources:
        """Tell where a frame's clean plate comes from."""
        window = self.shot.header(PLATE, n).display_window
        size = (window.width, window.height)
        if self.gathered is not None and self.drafted is not None:
            return self._sources_of_draft(self.gathered, *self.drafted, n)
        if self.gathered is not None:
            found = gather_sources(self.gathered, n, size)
            foreign = 1 - from_model_frame(found.own, size)
            none = np.zeros_like(foreign)
            return Sources(foreign, none, found.other, found.frame, found.grain)
        if self.made is not None:
            placed = _placed(self.shot, self.made, n, self.exposure)
            nothing = np.zeros((1, 1), np.float32)
            return Sources(placed.made, placed.gained, nothing, nothing, nothing)
        every = np.ones((size[1], size[0]), np.float32)
        all_of_it, number = every[:1, :1], np.full((1, 1), n)
        return Sources(every, np.zeros_like(every), all_of_it, number, all_of_it)

    def _sources_of_draft(
        self,
        plan: CleanPlatePlan,
        drafted: Drafted,
        gathered: Callable[[int], FittedClean],
        n: int,
    ) -> Sources:
        """Tell the same where a model changed what was gathered, and the plate around it."""
        placed = _drafted(self.shot, gathered(n), drafted, n, self.exposure)
        size = (placed.gathered.shape[1], placed.gathered.shape[0])
        found = gather_sources(plan, n, size)
        behind = placed.gathered * (1 - from_model_frame(found.own, size))
        foreign = behind + (1 - behind) * placed.made
        share = behind / np.maximum(foreign, np.float32(1e-6))
        other, grain = (from_model_frame(one, size) * share for one in (found.other, found.grain))
        return Sources(foreign, (1 - behind) * placed.gained, other, found.frame, grain)


# --- making it -----------------------------------------------------------------------------------


def behind_of(
    shot: Shot,
    scene: Scene,
    made: Generated | None,
    ctx: Context,
    *,
    register: bool,
    exposure: float,
    drafted: Drafted | None = None,
) -> Behind:
    """Return the clean plate by frame, each frame a stage of its own.

    Args:
        shot: The shot.
        scene: The same at model size.
        made: What a video model made, where it did.
        ctx: The run's context.
        register: Whether a connected clean plate is moved and graded.
        exposure: Stops by which the model saw the plate brighter.
        drafted: What a video model made over the gathered clean plate, where it did.
    """
    if made is not None:
        kept = shot.only(*(name for name in (PLATE, KEEP) if name in shot.names))

        def as_made(n: int) -> FittedClean:
            given = (kept, scene, made)
            return ctx.stage(
                "clean_frame", clean_frame_as_made, *given, n=n, exposure=exposure, version=3
            )

        return Behind(shot, as_made, made=made, exposure=exposure)
    pair = shot.only(*(name for name in (PLATE, CLEAN_PLATE) if name in shot.names))
    plan = None
    if is_gathered(shot.request, register):
        plan = gathered_of(shot, scene, ctx, register=register)
    if plan is not None and drafted is not None:
        kept = shot.only(*(name for name in (PLATE, KEEP) if name in shot.names))

        def gathered(n: int) -> FittedClean:
            return ctx.stage("clean_frame", clean_frame, pair, scene, plan, n=n, register=register)

        def as_drafted(n: int) -> FittedClean:
            given = (kept, gathered(n), drafted)
            return ctx.stage("draft_frame", clean_frame_as_drafted, *given, n=n, exposure=exposure)

        return Behind(shot, as_drafted, plan, None, (drafted, gathered), exposure)

    def clean(n: int) -> FittedClean:
        return ctx.stage("clean_frame", clean_frame, pair, scene, plan, n=n, register=register)

    return Behind(shot, clean, gathered=plan)


def gathered_of(shot: Shot, scene: Scene, ctx: Context, *, register: bool) -> CleanPlatePlan:
    """Return how the clean plate is gathered from the other frames: a stage.

    Args:
        shot: The shot.
        scene: The same at model size.
        ctx: The run's context.
        register: Whether a connected clean plate is moved and graded.
    """
    pair = shot.only(*(name for name in (PLATE, CLEAN_PLATE) if name in shot.names))
    return ctx.stage("clean_plate", find_clean_plate, pair, scene, register=register)


def find_clean_plate(ctx: Context, shot: Shot, scene: Scene, *, register: bool) -> CleanPlatePlan:
    """Decide at model size how the clean plate is gathered from the other frames."""
    painted = {
        at: to_model_frame(linear(shot, CLEAN_PLATE, n), scene.size)
        for at, n in _painted_frames(shot).items()
    }
    return plan_clean_plate(
        scene.frames,
        lambda n: scene.plate[scene.frames.index(n)],
        scene.covered,
        CleanPlateSettings(register_painted=register),
        painted,
        lambda step, total: ctx.progress("clean_plate", step, total),
    )


def clean_frame(
    ctx: Context, shot: Shot, scene: Scene, plan: CleanPlatePlan | None, *, n: int, register: bool
) -> FittedClean:
    """Make one frame of the clean plate at plate size, fitted to the plate, in its type."""
    plate = linear(shot, PLATE, n)
    covered = scene.covered(n)
    if plan is None:
        clean = linear(shot, CLEAN_PLATE, n)
    else:
        rows = row_reader(shot, PLATE)
        size = (plate.shape[1], plate.shape[0])
        painted = _painted_frames(shot)
        looked_up = row_reader(shot, CLEAN_PLATE, painted) if painted else None
        clean = gather_frame(plan, n, rows, size, looked_up)
        covered = covered | (plan.own[scene.frames.index(n)] > 0)
    move = register and plan is None
    fitted = fit_clean(plate, clean, covered, scene.size, register=move)
    return replace(fitted, pixels=in_type(fitted.pixels, shot.header(PLATE, n).pixel_type))


def clean_frame_as_made(
    ctx: Context,
    shot: Shot,
    scene: Scene,
    made: Generated,
    *,
    n: int,
    exposure: float,
) -> FittedClean:
    """Make one frame of the clean plate at plate size from what the model made, in its type."""
    i = scene.place(n)
    picture = _placed(shot, made, n, exposure).picture
    seen = range_of(shot.request, exposure)
    fit = fit_of(scene.plate[i], made.reference[i], scene.covered(n), scene.size, colour=seen)
    return FittedClean(in_type(picture, shot.header(PLATE, n).pixel_type), fit, 0.0)


def clean_frame_as_drafted(
    ctx: Context,
    shot: Shot,
    gathered: FittedClean,
    drafted: Drafted,
    *,
    n: int,
    exposure: float,
) -> FittedClean:
    """Make one frame of the clean plate at plate size from what was gathered and changed.

    It lies on the plate and is as sharp; what is not the plate's own has the noise of what was
    gathered.
    """
    picture = _drafted(shot, gathered, drafted, n, exposure).picture
    pixels = in_type(picture, shot.header(PLATE, n).pixel_type)
    noise = Calibration(False, gathered.calibration.sigma, misfit=gathered.calibration.misfit)
    return FittedClean(pixels, EXACT if gathered.calibration.exact else noise, 0.0)


def _painted_frames(shot: Shot) -> dict[int, int]:
    """Return at which frames the artist's clean frames lie, and their own numbers."""
    entry = shot.request.input(CLEAN_PLATE)
    if entry is None or entry.cover == SEQUENCE:
        return {}
    if entry.cover == STILL:
        return {shot.frames.first: shot.frames.first}
    return {n: n for n in shot.frames_of(CLEAN_PLATE)}


# --- solos ---------------------------------------------------------------------------------------


def shot_of_solos(shot: Shot, made: dict[str, Generated]) -> Shot:
    """Return the shot with what its solos hang on; with no input at all where there are none."""
    names = shot.request.named(MATTE_PREFIX)
    given = [SOLO_PREFIX + name for name in names if SOLO_PREFIX + name in shot.names]
    plate = [name for name in (PLATE, KEEP) if name in shot.names and any(made)]
    return shot.only(*given, *plate)


def solo_frame(
    shot: Shot, made: dict[str, Generated], name: str, n: int, *, exposure: float
) -> Floats:
    """Return the artist's solo, or the model's at plate size. [H,W,3] float32, scene-linear."""
    if SOLO_PREFIX + name in shot.names:
        return linear(shot, SOLO_PREFIX + name, n)
    return _placed(shot, made[name], n, exposure).picture


def _placed(shot: Shot, made: Generated, n: int, exposure: float) -> Placed:
    """Return one frame of a pass at plate size."""
    keep = coverage_of(shot, KEEP, n) if KEEP in shot.names else None
    i = tuple(shot.frames).index(n)
    seen = range_of(shot.request, exposure)
    return place_frame(linear(shot, PLATE, n), made, i, keep, colour=seen)


def _drafted(
    shot: Shot, gathered: FittedClean, drafted: Drafted, n: int, exposure: float
) -> PlacedDraft:
    """Return one frame of a draft at plate size."""
    plate, clean = linear(shot, PLATE, n), gathered.pixels.astype(np.float32)
    keep = coverage_of(shot, KEEP, n) if KEEP in shot.names else None
    i, colour = tuple(shot.frames).index(n), range_of(shot.request, exposure)
    return place_drafted(plate, clean, drafted, i, keep, colour=colour)


# --- how far it may come in, and its grain -------------------------------------------------------


def bound_of(shot: Shot, n: int) -> Floats | None:
    """Return how far a delivery may differ from the plate; None where nothing bounds it.

    [H,W,1] float32, 0..1: 0 where ``keep`` or ``protect`` is 1, or ``limit`` is 0.
    """
    return let_through(shot, n)


def regrained(
    clean: Floats,
    seen: NDArray[np.bool_],
    sources: Sources,
    grain: Grain,
    generator: np.random.Generator,
) -> Floats:
    """Return a frame's clean plate with the plate's grain on what is not the frame's own.

    Args:
        clean: [H,W,3] float32, scene-linear.
        seen: Where it is seen at all; elsewhere it stays as it is. [H,W] bool.
        sources: Where it comes from.
        grain: The plate's.
        generator: What the grain is made from.
    """
    found, (height, width) = clean.copy(), clean.shape[:2]
    had = from_model_frame(sources.grain, (width, height))
    fill_grain(found, sources.foreign * seen, grain, had, generator)
    return found
