# SPDX-License-Identifier: Apache-2.0
"""The video model's half of an omnimatte: stages from plate and mattes to decoded passes.

::

    bring_to_model ─► make_trimask (one per pass) ─┐
          └─────────► encode_plate (once) ─────────┴─► sample (a group) ─► decode (one per pass)
          └─────────► there_and_back (once): what the VAE alone does to the plate

:func:`generate` runs them all; :func:`draft` those of a model that changes the gathered clean plate
and the plate around it (``overbase.py``)::

    bring_to_model ─► mark_removal ─► removal_layers ─► sample_layers ─► decode

Stages that any system with a video model has are in
``denoising.py``. Sequences are [T,h,w,C] at the model's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gencomp_protocol.layers import (
    EFFECTS_PREFIX,
    KEEP,
    MATTE_PREFIX,
    PLATE,
    TRIMASK,
    TRIMASK_PREFIX,
)
from gencomp_server.backbones import model_size
from gencomp_server.colour.modelrange import range_of
from gencomp_server.parts import denoising, overbase
from gencomp_server.parts.fit import to_model_frame
from gencomp_server.parts.generated import Generated, floor_of
from gencomp_server.parts.latents import backbone_of
from gencomp_server.parts.lead import format_of, report_size
from gencomp_server.parts.passes import ask, ask_as_drawn, side_by_side
from gencomp_server.parts.pictures import coverage_of, linear, to_model_range
from gencomp_server.parts.remarks import report_model
from gencomp_server.parts.trimask import CONVENTIONS
from gencomp_server.parts.windows import count_forwards, job_windows

if TYPE_CHECKING:
    from gencomp_server.contract import Context, Shot
    from gencomp_server.parts.change import Floor
    from gencomp_server.parts.cleanplate import CleanPlatePlan
    from gencomp_server.parts.layering import Scene
    from gencomp_server.parts.passes import Asked, Pass


@dataclass(frozen=True)
class Asking:
    """What is asked of the video model.

    Attributes:
        model_size: The knob; empty for the size that it was trained at.
        exposure: Stops by which it sees the plate brighter.
        prompt: The scene without the objects, in words.
        guidance: How far the prompt pulls; 1 as trained.
        steps: Denoising steps.
        grow_px: Pixels by which mattes grow, at the model's size.
    """

    model_size: str
    exposure: float
    prompt: str
    guidance: float
    steps: int
    grow_px: int


@dataclass(frozen=True)
class Seen:
    """The shot at the video model's size.

    Attributes:
        plate: [T,h,w,3] float32, model range.
        coverage: Every matte input, by name. [T,h,w,1] float16 each, 0..1.
    """

    plate: Any
    coverage: dict[str, Any]


# --- all of it -----------------------------------------------------------------------------------


def generate(
    shot: Shot, passes: Sequence[Pass], asking: Asking, ctx: Context
) -> dict[str, Generated]:
    """Let the video model make the clean plate ("") and the solos that nobody gave, by name.

    Args:
        shot: The shot.
        passes: What it makes; at least one.
        asking: What is asked of it.
        ctx: The run's context, with a backbone.
    """
    backbone, count = backbone_of(ctx), len(shot.frames)
    spec, vae = backbone.spec, backbone.vae_identity
    size = model_size(spec, format_of(shot), asking.model_size)
    drawn = shot.only(PLATE, *(name for name in shot.names if _is_drawn(name)))
    seen = ctx.stage("model_scene", bring_to_model, drawn, size=size, exposure=asking.exposure)
    identity, null = backbone.identity, None if asking.guidance == 1 else ""
    text = ctx.stage("text", denoising.embed, backbone=identity, prompt=asking.prompt, null=null)
    report_size(ctx, size, format_of(shot))
    windows = job_windows(spec, count)
    forwards = count_forwards(len(passes), windows, asking.steps, asking.guidance)
    report_model(spec, passes, count, forwards, text.cut, ctx)
    blanks = CONVENTIONS[spec.convention].zero_edit
    asked, plates = _encoded(seen, passes, asking.grow_px, ctx, blanks=blanks)
    if spec.pixel_noise == 0 and not blanks:  # The model sees the plate itself: it is encoded.
        shown = plates[passes[0].keeps]
        reference = ctx.stage("reference", denoising.decode, shown, backbone=vae, frames=count)
    else:
        reference = ctx.stage("reference", denoising.there_and_back, seen.plate, backbone=vae)
    found = {}
    for group in side_by_side(passes, backbone.batch):
        made = ctx.stage(
            "sample",
            denoising.sample,
            tuple(plates[one.keeps] for one in group),
            tuple(asked[one.keeps].trimask for one in group),
            (text.prompt, text.null),
            seed=group[0].seed,
            backbone=identity,
            steps=asking.steps,
            guidance=asking.guidance,
        )
        for one, latents in zip(group, made, strict=True):
            sample = ctx.stage("decode", denoising.decode, latents, backbone=vae, frames=count)
            floor = ctx.stage("change_floor", measure_change, reference, sample, version=2)
            found[one.keeps] = Generated(reference, sample, asked[one.keeps], floor)
    return found


def draft(
    shot: Shot, scene: Scene, plan: CleanPlatePlan, one: Pass, asking: Asking, ctx: Context
) -> overbase.Drafted:
    """Let a model that changes a base picture make the clean plate, over the gathered one.

    Args:
        shot: The shot.
        scene: The same at the size at which the clean plate was decided.
        plan: What was decided.
        one: The pass: which noise it starts from.
        asking: What is asked of the model.
        ctx: The run's context, with a backbone that is given ``overbase.LAYERS``.
    """
    backbone, count = backbone_of(ctx), len(shot.frames)
    spec, identity = backbone.spec, backbone.identity
    size, exposure = model_size(spec, format_of(shot), asking.model_size), asking.exposure
    drawn = shot.only(PLATE, *(name for name in shot.names if _is_drawn(name)))
    seen = ctx.stage("model_scene", bring_to_model, drawn, size=size, exposure=exposure)
    text = ctx.stage("text", denoising.embed, backbone=identity, prompt=asking.prompt, null=None)
    report_size(ctx, size, format_of(shot))
    forwards = count_forwards(1, job_windows(spec, count), asking.steps, 1)
    report_model(spec, (one,), count, forwards, text.cut, ctx)
    grow_px = asking.grow_px
    marks = ctx.stage("trimask", overbase.mark_removal, seen, grow_px=grow_px)
    given = (shot.only(), scene, plan, seen, marks)
    layers = ctx.stage("model_base", overbase.removal_layers, *given, exposure=exposure)
    latents = ctx.stage(
        "sample",
        denoising.sample_layers,
        overbase.as_latents(layers),
        (text.prompt, None),
        seed=one.seed,
        backbone=identity,
        frames=count,
        steps=asking.steps,
        guidance=1.0,
    )
    vae = backbone.vae_identity
    sample = ctx.stage("decode", denoising.decode, latents, backbone=vae, frames=count)
    reference = np.asarray(layers["base"], np.float16)
    floor = ctx.stage("change_floor", measure_change, reference, sample, marks.keep, version=3)
    trust = ctx.stage("trust", overbase.trust_gathered, scene, plan)
    return overbase.Drafted(reference, sample, marks, floor, trust)


def _encoded(
    seen: Seen, passes: Sequence[Pass], grow_px: int, ctx: Context, *, blanks: bool
) -> tuple[dict[str, Asked], dict[str, Any]]:
    """Return each pass's trimask, and the plate as the model gets it, by what the pass keeps.

    Args:
        seen: The shot at the model's size.
        passes: The passes.
        grow_px: Pixels by which mattes grow.
        ctx: The run's context, with a backbone.
        blanks: Whether the model gets a plate that is blank where it is to be edited.
    """
    identity = backbone_of(ctx).encode_identity
    asked, plates = {}, {}
    for keeps in (one.keeps for one in passes):
        asked[keeps] = ctx.stage("trimask", make_trimask, seen, keeps=keeps, grow_px=grow_px)
        blanked = asked[keeps].trimask if blanks else None
        given = (seen.plate, blanked)
        plates[keeps] = ctx.stage("encode", denoising.encode_plate, *given, backbone=identity)
    return asked, plates


def _is_drawn(name: str) -> bool:
    """Tell whether an input says something to the video model beside the plate."""
    prefixes = (MATTE_PREFIX, EFFECTS_PREFIX, TRIMASK_PREFIX)
    return name in (KEEP, TRIMASK) or name.startswith(prefixes)


# --- stages --------------------------------------------------------------------------------------


def bring_to_model(
    ctx: Context, shot: Shot, *, size: tuple[int, int], exposure: float = 0.0
) -> Seen:
    """Bring the plate, and every matte there is, to the video model's size.

    The working space is the shot's, and in the stage's key with it.
    """
    frames, seen = tuple(shot.frames), range_of(shot.request, exposure)
    plate = np.empty((len(frames), size[1], size[0], 3), np.float32)
    shape = (len(frames), size[1], size[0], 1)
    found = {name: np.empty(shape, np.float16) for name in shot.names if name != PLATE}
    for i, n in enumerate(frames):
        ctx.progress("model_scene", i, len(frames))
        plate[i] = to_model_range(to_model_frame(linear(shot, PLATE, n), size), seen)
        for name, coverage in found.items():
            coverage[i] = to_model_frame(coverage_of(shot, name, n), size)
    return Seen(plate, found)


def make_trimask(ctx: Context, seen: Seen, *, keeps: str, grow_px: int) -> Asked:
    """Make the trimask of the pass that keeps one object, or none (""); the artist's own wins."""
    keep = seen.coverage.get(KEEP)
    own = seen.coverage.get(TRIMASK_PREFIX + keeps if keeps else TRIMASK)
    if own is not None:
        return ask_as_drawn(own, keep=keep)
    names = [name[len(MATTE_PREFIX) :] for name in seen.coverage if name.startswith(MATTE_PREFIX)]
    mattes = np.concatenate([seen.coverage[MATTE_PREFIX + name] for name in names], axis=3)
    effects = {
        k: seen.coverage[EFFECTS_PREFIX + name]
        for k, name in enumerate(names)
        if EFFECTS_PREFIX + name in seen.coverage
    }
    place = names.index(keeps) if keeps else None
    return ask(place, mattes, grow_px=grow_px, effects=effects, keep=keep)


def measure_change(ctx: Context, reference: Any, sample: Any, keep: Any = None) -> Floor:
    """Measure what the model changes where nothing is to change, but where it is held to KEEP."""
    return floor_of(reference, sample, keep)
