# SPDX-License-Identifier: Apache-2.0
"""What a run of omnimatte tells the artist: figures for the manifest, and warnings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from gencomp_protocol.frames import spell_frames
from gencomp_protocol.layers import (
    BACKGROUND,
    CLEAN_PLATE,
    MATTE_PREFIX,
    SOLO_PREFIX,
    TRIMASK,
    TRIMASK_PREFIX,
)
from gencomp_server.parts.captions import spell_cut
from gencomp_server.parts.layering import rounded
from gencomp_server.parts.passes import MODEL, TEMPORAL, Pass, parse_seeds
from gencomp_server.parts.windows import job_windows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_protocol.frames import Format
    from gencomp_protocol.request import Request
    from gencomp_server.backbones import BackboneSpec
    from gencomp_server.contract import Context
    from gencomp_server.parts.cleanplate import CleanPlatePlan

REGISTRATION_PX = 1.5
"""Registration error, in plate pixels at model size, from which the artist is told."""
UNSEEN_SHARE = 0.001
"""Share of a frame that was never seen, and filled in, from which the artist is told."""


def report_sources(request: Request, passes: Sequence[Pass], ctx: Context) -> None:
    """Report where clean plate and solos come from; warn of a trimask that nothing reads."""
    clean = "connected" if request.input(CLEAN_PLATE) is not None else TEMPORAL
    ctx.report("clean_plate_from", MODEL if any(not one.keeps for one in passes) else clean)
    given = dict.fromkeys(request.named(SOLO_PREFIX), "connected")
    ctx.report("solos_from", {**given, **{one.keeps: MODEL for one in passes if one.keeps}})
    read = {TRIMASK_PREFIX + one.keeps if one.keeps else TRIMASK for one in passes}
    drawn = [TRIMASK_PREFIX + name for name in request.named(TRIMASK_PREFIX)]
    for name in [*drawn, *([TRIMASK] if request.input(TRIMASK) is not None else [])]:
        if name not in read:
            ctx.warn(f"Input '{name}' is not used: the video model makes nothing from it.")


def report_solved_size(size: tuple[int, int], plate: Format, ctx: Context) -> None:
    """Report at which size (width, height) alpha is solved, as numbers and in words."""
    ctx.report("solved_size", list(size))
    ctx.report(
        "solved_at",
        f"Alpha was solved at {size[0]}x{size[1]}, the plate has {plate}: layers are made at the "
        "plate's pixels, along its own edges.",
    )


def warn_of_idle_seeds(request: Request, passes: Sequence[Pass], seeds: str, ctx: Context) -> None:
    """Warn of seeds of passes that the video model does not make."""
    made = {one.keeps or BACKGROUND for one in passes}
    for name in parse_seeds(seeds, request.named(MATTE_PREFIX)):
        if name not in made:
            ctx.warn(f"Knob 'passes' names '{name}', and the video model makes no such pass here.")


def report_model(
    spec: BackboneSpec, passes: Sequence[Pass], frames: int, forwards: int, cut: str, ctx: Context
) -> None:
    """Report what the model is asked for; warn of the words that it does not read."""
    ctx.report("passes", [one.title for one in passes])
    ctx.report("windows", len(job_windows(spec, frames)))
    ctx.report("forwards", forwards)
    if cut:
        ctx.warn(
            f"Knob 'scene_prompt' is longer than the {spec.architecture.text_tokens} tokens this "
            f"model reads; {spell_cut(cut)}."
        )


def report_clean_plate(plan: CleanPlatePlan, ctx: Context) -> None:
    """Report how the clean plate was found; warn where registration is off."""
    ctx.report("registration_error_px_per_frame", rounded(plan.error_px))
    ctx.report("never_seen_share_per_frame", rounded(plan.never_seen_share))
    off = [n for n, e in zip(plan.frames, plan.error_px, strict=True) if e > REGISTRATION_PX]
    if off:
        ctx.warn(
            f"The background could not be registered to better than {REGISTRATION_PX} pixels at "
            f"frames {spell_frames(off)}; paint a clean frame there."
        )
    lost = [n for n, k in zip(plan.frames, plan.features, strict=True) if k == 0]
    if lost and len(plan.frames) > 1:
        ctx.warn(
            f"Nothing in the background of frames {spell_frames(lost)} could be tracked, so the "
            "camera is taken to stand still there."
        )
    unseen = float(max(plan.never_seen_share, default=0.0))
    if unseen > UNSEEN_SHARE and not plan.painted:
        ctx.warn(
            f"Up to {unseen:.1%} of a frame's background is never seen and was filled in; a "
            "painted clean frame would be better."
        )


def warn_of_silent_depth(request: Request, depths: NDArray[np.float64], ctx: Context) -> None:
    """Warn of objects of which the depth input says nothing on any frame.

    Args:
        request: The job's.
        depths: By frame and object, in the order of the request. [T,N], NaN where unknown.
        ctx: The run's context.
    """
    for name, known in zip(request.named(MATTE_PREFIX), np.isfinite(depths).T, strict=True):
        if not known.any():
            ctx.warn(f"Input 'depth' says nothing of '{name}', which keeps its place in the order.")
