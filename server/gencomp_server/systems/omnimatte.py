# SPDX-License-Identifier: Apache-2.0
"""Generative Omnimatte: a plate and its mattes in, layers out.

Paper: generative-omnimatte (docs/papers.md), fig. 4, §3.2, §3.5 and appendices A and D.  Stage 1
makes the clean plate and, with two objects or more, a plate of each object alone, its solo: by a
video model where there is one. Stage 2 makes the layers.  Differs from the paper:

* without a video model the clean plate comes from the other frames of the plate (registered masked
  median), and one alpha is solved for all objects together and shared out among them
  (``parts/ownership.py``);
* what the artist gives, clean plate or solos, is taken before anything is made;
* what the model made is carried onto the plate's own samples, not upsampled by another model
  (``parts/generated.py``);
* the alpha is solved by closed forms and one sparse least-squares problem per frame
  (``parts/alpha.py``), not by fitting a network to each shot;
* the layers give the plate back exactly (``parts/recompose.py``); the paper's are an approximation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gencomp_protocol.errors import BadKnob, BadName, WeightsMissing
from gencomp_protocol.frames import Format
from gencomp_protocol.layers import (
    BACKGROUND,
    CLEAN_PLATE,
    EFFECTS_PREFIX,
    EFFECTS_SUFFIX,
    KEEP,
    MATTE_PREFIX,
    OBJECT_SUFFIX,
    PLATE,
    RESIDUAL,
    SOLO_PREFIX,
    TRIMASK,
    TRIMASK_PREFIX,
    LayerSpec,
    check_object_names,
)
from gencomp_protocol.request import SEQUENCE, STILL, STILLS, InputHeader, Request
from gencomp_server.backbones import (
    SPECS,
    ModelParams,
    cached_steps_of,
    choose,
    model_size,
    passed_over,
    steps_of,
)
from gencomp_server.contract import (
    MAY_USE_BACKBONE,
    NEEDS_BACKBONE,
    Context,
    Input,
    LayerFrame,
    Machine,
    Plan,
    Shot,
    System,
    knob,
    parse_params,
)
from gencomp_server.footprint import CPU
from gencomp_server.parts.captions import spell_cut
from gencomp_server.parts.passes import Pass, parse_seeds, plan_passes, side_by_side
from gencomp_server.parts.windows import job_length

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.parts.change import Floor
    from gencomp_server.parts.cleanfit import FittedClean
    from gencomp_server.parts.cleanplate import CleanPlatePlan
    from gencomp_server.parts.generated import Generated
    from gencomp_server.parts.layering import FrameAlpha, Material, Scene
    from gencomp_server.parts.noise import NoiseFloor
    from gencomp_server.parts.ownership import Ownership
    from gencomp_server.parts.removal import Words

MOST_OBJECTS = 8
NOISE_FRAMES = 3
"""Frames, evenly spread, from which the noise floor is measured."""
REGISTRATION_PX = 1.5
"""Registration error, in plate pixels at model size, from which the artist is told."""
MODEL_IMPORT_BYTES = 750_000_000
"""Main memory of torch and diffusers, which a video model runs on. Source: measured."""
MODEL_SEQUENCES = 6
"""Sequences of float32 RGB at the model's size that are in main memory at once at most: the plate,
padded, blanked, its noise, noisy, and what the model gives or takes of it."""
UNSEEN_SHARE = 0.001
"""Share of a frame that was never seen, and filled in, from which the artist is told."""

AUTO, TEMPORAL, MODEL = "auto", "temporal", "model"


@dataclass(frozen=True)
class Params(ModelParams):
    """Knobs of Omnimatte, after those of every video model; field name is knob name."""

    clean_plate_from: str = knob(
        AUTO,
        choices=(AUTO, TEMPORAL, MODEL),
        doc="What makes the clean plate, and each object's solo, where none is connected. model: a "
        "video model. temporal: the other frames of the shot, registered on the background; solos "
        "are then not made. auto: model where one is installed, else temporal.",
    )
    register_clean_plate: bool = knob(
        True,
        doc="Register a connected clean plate to every frame. Off: it lines up already.",
    )
    mattes: str = knob(
        "trusted",
        choices=("trusted", "rough"),
        doc="trusted: the mattes follow the objects to a pixel or two. rough: they may be off by "
        "five; edges are found from the picture, which takes twice as long.",
    )
    model_long_edge: int = knob(
        640,
        lo=128,
        hi=2048,
        doc="Long edge, in pixels, at which alphas are solved; larger plates are brought to it and "
        "the alphas brought back along the plate's edges.",
    )
    order: str = knob(
        "",
        doc="Objects front to back, by name, with commas. Empty: the order of the mattes.",
        delivery=True,
    )
    residual: str = knob(
        "absorb",
        choices=("absorb", "layer"),
        doc="Where the difference goes that the layers leave: absorb = into the layers, so that "
        "over of the layers is the plate; layer = into a layer of its own, to be added.",
        delivery=True,
    )
    split_effects: bool = knob(
        False,
        doc="Also deliver each object as NAME_object and NAME_effects.",
        delivery=True,
    )
    scene_prompt: str = knob(
        "empty scene",
        tab="Model",
        doc="The scene as it is without the objects, in a few words. It matters little, but what "
        "has nothing to do with the scene does harm.",
    )
    matte_grow: int = knob(
        5,
        lo=0,
        hi=64,
        tab="Model",
        doc="Pixels by which mattes are grown on every side before the model sees them, at the "
        "model's size; what that is on the plate, gencomp plan says. 5 is what it was trained on.",
    )
    guidance: float = knob(
        1.0,
        lo=1.0,
        hi=20.0,
        tab="Model",
        doc="How far the prompt may pull. 1: as trained, in half the time.",
    )
    passes: str = knob(
        "",
        tab="Model",
        doc="Passes to make again from other noise, as NAME=SEED, with commas: boy=3. A matte's "
        "name is its solo, background the clean plate. All others stay as they are; on a GPU that "
        "computes several in one go they are made again, from the noise they had.",
    )


INPUTS = (
    Input(PLATE, "rgb", "The photographed sequence, scene-linear."),
    Input(
        MATTE_PREFIX + "*",
        "matte",
        "One roto per object, 1 on the object. What stands before an object is an object too.",
        most=MOST_OBJECTS,
        covers=(SEQUENCE, STILL),
    ),
    Input(
        CLEAN_PLATE,
        "rgb",
        "The plate without the objects: a sequence, one still, or stills at a few frames.",
        optional=True,
        covers=(SEQUENCE, STILL, STILLS),
    ),
    Input(
        SOLO_PREFIX + "*",
        "rgb",
        "The plate with this object alone and its effects.",
        optional=True,
        most=MOST_OBJECTS,
    ),
    Input(
        KEEP,
        "matte",
        "1 where the plate must stay in the background, whatever happens.",
        optional=True,
        covers=(SEQUENCE, STILL),
    ),
    Input(
        EFFECTS_PREFIX + "*",
        "matte",
        "A rough roto: effects here belong to this object.",
        optional=True,
        most=MOST_OBJECTS,
        covers=(SEQUENCE, STILL),
    ),
    Input(
        TRIMASK,
        "matte",
        "Your own trimask for the clean plate: white stays, black goes, grey the model judges.",
        optional=True,
        covers=(SEQUENCE, STILL),
    ),
    Input(
        TRIMASK_PREFIX + "*",
        "matte",
        "Your own trimask for this object's solo: white stays, black goes, grey the model judges.",
        optional=True,
        most=MOST_OBJECTS,
        covers=(SEQUENCE, STILL),
    ),
)


def front_to_back(request: Request) -> tuple[str, ...]:
    """Return the objects in layer order, front first: the knob's, then the mattes' own.

    Raises:
        BadKnob: The knob names an object that has no matte, or one twice.
    """
    names = request.named(MATTE_PREFIX)
    params: Params = parse_params(Params, request.knobs)
    asked = params.order.replace(",", " ").split()
    for word in asked:
        if word not in names or asked.count(word) > 1:
            raise BadKnob(
                f"Knob 'order' names '{word}', which is not a matte of this job or stands twice.",
                hint=f"Use each of these at most once: {', '.join(names)}.",
                knob="order",
            )
    return tuple(asked) + tuple(name for name in names if name not in asked)


def check(request: Request) -> None:
    """Refuse names and combinations that cannot work, from the header alone.

    Raises:
        BadName: A matte's name is illegal or taken; ``effects``, ``solo`` or ``trimask`` names no
            matte; only some objects have a solo and none is to be made.
        BadKnob: The order, or a seed of a pass, is wrong.
    """
    check_object_names(request.named(MATTE_PREFIX))
    for prefix in (EFFECTS_PREFIX, SOLO_PREFIX, TRIMASK_PREFIX):
        for name in request.named(prefix):
            if name not in request.named(MATTE_PREFIX):
                raise BadName(
                    f"Input '{prefix}{name}' belongs to no matte.",
                    hint=f"Mattes are: {', '.join(request.named(MATTE_PREFIX))}.",
                )
    params: Params = parse_params(Params, request.knobs)
    parse_seeds(params.passes, request.named(MATTE_PREFIX))
    if params.clean_plate_from == TEMPORAL:
        passes_of(request, params, has_model=False)
    front_to_back(request)


def passes_of(request: Request, params: Params, *, has_model: bool) -> tuple[Pass, ...]:
    """Return the passes that the video model makes; none where the shot's other frames must do.

    Raises:
        WeightsMissing: The model is asked for and there is none.
        BadName: Only some objects have a solo, and no model can make the others.
    """
    names, solos = request.named(MATTE_PREFIX), request.named(SOLO_PREFIX)
    passes = plan_passes(
        names,
        clean_given=request.input(CLEAN_PLATE) is not None,
        solos_given=solos,
        seeds=parse_seeds(params.passes, names),
    )
    if has_model and params.clean_plate_from != TEMPORAL:
        return passes
    if passes and params.clean_plate_from == MODEL:
        raise WeightsMissing(
            "Knob 'clean_plate_from' asks for a video model and none is installed.",
            hint="gencomp weights list says where weights belong; or set it to auto.",
            knob="clean_plate_from",
        )
    missing = [name for name in names if name not in solos]
    if solos and missing:
        raise BadName(
            f"There are solos for {', '.join(solos)} but not for {', '.join(missing)}, and no "
            "video model makes them.",
            hint="Give a solo for every matte, or for none.",
        )
    return ()


def layers(request: Request) -> tuple[LayerSpec, ...]:
    """Return the layers of a request: the background, then the objects front to back."""
    params: Params = parse_params(Params, request.knobs)
    found = [LayerSpec(BACKGROUND, doc="The plate without the objects and their effects.")]
    for name in front_to_back(request):
        found.append(LayerSpec(name, doc=f"{name} with its shadow, reflection and other effects."))
        if params.split_effects:
            found.append(LayerSpec(name + OBJECT_SUFFIX, doc=f"{name} itself."))
            found.append(LayerSpec(name + EFFECTS_SUFFIX, doc=f"What {name} does to the scene."))
    if params.residual == "layer":
        found.append(LayerSpec(RESIDUAL, doc="What the layers leave of the plate; add it last."))
    return tuple(found)


def plan(request: Request, machine: Machine) -> Plan:
    """Estimate passes, forwards, bytes, minutes and memory from the header alone.

    Raises:
        WeightsMissing, WeightsRefused, BadKnob, OutOfMemory: The video model cannot be used so.
        BadName: Only some objects have a solo, and no model can make the others.
    """
    params: Params = parse_params(Params, request.knobs)
    spec = None
    if passes_of(request, params, has_model=True):  # Else no model is asked for, whatever is named.
        needed = params.clean_plate_from == MODEL
        spec = choose(
            replace(SYSTEM, backbone=NEEDS_BACKBONE) if needed else SYSTEM, params, machine
        )
    passes = passes_of(request, params, has_model=spec is not None)
    plate = request.input(PLATE)
    size = plate.format if plate is not None else None
    if size is None:
        name = spec.name if spec is not None and passes else ""
        note = "The plate's size is not known yet, so there is no estimate."
        return Plan(backbone=name, notes=(note,))
    figures = _plain_figures(request, params, size)
    if spec is None or not passes:
        return Plan(**figures, notes=(_without_model(request, params, machine),))
    from gencomp_server.cost import estimate

    inside = model_size(spec, size, params.model_size)
    length = job_length(spec, len(request.frames))
    sequence = length * inside[0] * inside[1] * 3 * 4
    figures["memory_bytes"] += MODEL_IMPORT_BYTES + MODEL_SEQUENCES * sequence
    grown = params.matte_grow * max(1.0, size.width / inside[0])
    titles = ", ".join(one.title for one in passes)
    cost = estimate(
        spec,
        inside,
        len(request.frames),
        steps=steps_of(params),
        guidance=params.guidance,
        passes=len(passes),
        machine=machine,
        precision=params.precision,
        cached_steps=cached_steps_of(params, machine.device),
    )
    if machine.device == CPU:  # There the model's memory is main memory.
        figures["memory_bytes"] += max(cost.stage_bytes.values())
    return cost.plan(
        **figures,
        notes=(
            f"Passes of the video model: {titles}.",
            f"Mattes are grown by {params.matte_grow} model pixels, {grown:.0f} of the plate.",
        ),
    )


def _plain_figures(request: Request, params: Params, size: Format) -> dict[str, Any]:
    """Return what the job costs without the video model, as fields of a plan."""
    count, objects = len(request.frames), len(request.named(MATTE_PREFIX))
    pixels = size.width * size.height
    scale = min(1.0, params.model_long_edge / max(size.width, size.height)) ** 2
    doubled = 2 if params.mattes == "rough" else 1
    solve_s = count * pixels * scale * (4.0 * doubled + 1.5 * objects) * 1e-6
    deliver_s = count * pixels * (2.0 + objects) * 0.6e-6
    return {
        "bytes_in": sum(_bytes_of(entry, size) for entry in request.inputs),
        "bytes_out": count * pixels * 8 * len(layers(request)),
        "minutes": round((solve_s + deliver_s) / 60, 2),
        "memory_bytes": int(4e8 + pixels * 12 * (14 + 6 * objects)),
    }


def _bytes_of(entry: InputHeader, plate: Format) -> int:
    """Return the bytes of an input's samples in half; one of unknown size is the plate's."""
    size = entry.format or plate
    kind = next((one.kind for one in INPUTS if one.matches(entry.name)), "matte")
    return len(entry.frames) * size.width * size.height * (2 if kind == "matte" else 6)


def _without_model(request: Request, params: Params, machine: Machine) -> str:
    if request.input(CLEAN_PLATE) is not None:
        return "The clean plate is connected and no video model is used."
    said = "The clean plate comes from the other frames of the shot"
    if params.clean_plate_from == TEMPORAL:
        return f"{said}."
    refused = [machine.refused[one.name] for one in SPECS if one.name in machine.refused]
    whys = [*passed_over(SYSTEM, machine), *(one.sentence for one in refused if one.by_licence)]
    return f"{said}. {whys[0]}" if whys else f"{said}, since no video model is installed."


# --- the run -------------------------------------------------------------------------------------


def run(shot: Shot, params: Params, ctx: Context) -> Iterator[LayerFrame]:
    """Yield the layers of every frame: make what is missing, solve, share out, deliver."""
    from gencomp_server.parts.layering import Material

    names = shot.request.named(MATTE_PREFIX)
    mattes = tuple(MATTE_PREFIX + name for name in names)
    passes = passes_of(shot.request, params, has_model=ctx.backbone is not None)
    made = generate(shot, passes, params, ctx) if passes else {}
    _report_sources(shot.request, passes, ctx)
    _warn_of_idle_seeds(shot.request, passes, params, ctx)

    edge = params.model_long_edge
    scene = ctx.stage("scene", bring_in, shot.only(PLATE, *mattes), long_edge=edge)
    clean, gathered = _clean_plate(shot, scene, made.get(""), params, ctx)
    solo = _solos(shot, made, ctx)
    solved = []
    for i, n in enumerate(scene.frames):
        ctx.progress("alpha", i, len(scene.frames))
        given = (_of_solos(shot, names, made, solo is not None), scene, clean(n), made)
        solved.append(ctx.stage("alpha", solve_alpha, *given, n=n, mattes=params.mattes, version=3))
    sampled = tuple(scene.frames[:: max(1, len(scene.frames) // NOISE_FRAMES)][:NOISE_FRAMES])
    fitted = [clean(n) for n in sampled]
    noise = ctx.stage("noise", measure_floor, shot.only(PLATE), scene, gathered, fitted, at=sampled)
    del fitted
    owned = None
    if len(mattes) > 1 and solo is None:
        owned = ctx.stage("ownership", share_out, scene, [one.together for one in solved])
        ctx.report("doubtful_effect_share", owned.doubtful_share)
    order = front_to_back(shot.request)
    material = Material(shot, scene, order, clean, solo, solved, noise, owned)
    yield from deliver(material, params, ctx)


def deliver(material: Material, params: Params, ctx: Context) -> Iterator[LayerFrame]:
    """Yield every frame's layers, exact against the plate, and report how they came out."""
    from gencomp_server.parts.layering import Tally, error_of, layer_frame, meetings, stack_frame

    tally, met = Tally(), meetings(material)
    nowhere: dict[str, list[int]] = {name: [] for name in material.order}
    ctx.report("hidden_frames", met if material.solo is None else nowhere)
    ctx.report("completed_frames", nowhere if material.solo is None else met)
    apart, split = params.residual == "layer", params.split_effects
    for n in material.scene.frames:
        made, splits = stack_frame(material, n, apart=apart, split=split)
        tally.add(made, error_of(material.shot, n, made))
        layered = zip(material.order, made.layers, strict=True)
        named = [(BACKGROUND, made.background), *layered, *splits]
        if made.residual is not None:
            named.append((RESIDUAL, made.residual))
        for name, pixels in named:
            yield layer_frame(material.shot, n, name, pixels)
    tally.report(ctx)


# --- stage 1: what the video model makes ---------------------------------------------------------


def generate(
    shot: Shot, passes: Sequence[Pass], params: Params, ctx: Context
) -> dict[str, Generated]:
    """Let the video model make the clean plate ("") and the solos that nobody gave, by name."""
    from gencomp_server.parts import removal
    from gencomp_server.parts.generated import Generated
    from gencomp_server.parts.latents import backbone_of

    backbone = backbone_of(ctx)
    identity, spec = backbone.identity, backbone.spec
    size = model_size(spec, _format(shot), params.model_size)
    drawn = shot.only(PLATE, *(name for name in shot.names if _is_drawn(name)))
    seen = ctx.stage("model_scene", removal.bring_to_model, drawn, size=size)
    null = None if params.guidance == 1 else ""
    text = ctx.stage(
        "text", removal.embed, backbone=identity, prompt=params.scene_prompt, null=null
    )
    _report_model(passes, len(shot.frames), params, text, size, ctx)
    blanks = _blanks_edit(spec.convention)
    asked, plates = {}, {}
    for one in passes:
        grow = params.matte_grow
        asked[one.keeps] = ctx.stage(
            "trimask", removal.make_trimask, seen, keeps=one.keeps, grow_px=grow
        )
        blanked = asked[one.keeps].trimask if blanks else None
        plates[one.keeps] = ctx.stage(
            "encode", removal.encode_plate, seen.plate, blanked, backbone=backbone.encode_identity
        )
    if spec.pixel_noise == 0 and not blanks:  # The model sees the plate itself: it is encoded.
        reference = ctx.stage(
            "reference",
            removal.decode,
            plates[passes[0].keeps],
            backbone=backbone.vae_identity,
            frames=len(shot.frames),
        )
    else:
        reference = ctx.stage(
            "reference", removal.there_and_back, seen.plate, backbone=backbone.vae_identity
        )
    found = {}
    for group in side_by_side(passes, backbone.batch):
        made = ctx.stage(
            "sample",
            removal.sample,
            tuple(plates[one.keeps] for one in group),
            tuple(asked[one.keeps].trimask for one in group),
            (text.prompt, text.null),
            seed=group[0].seed,
            backbone=identity,
            steps=steps_of(params),
            guidance=params.guidance,
        )
        for one, latents in zip(group, made, strict=True):
            sample = ctx.stage(
                "decode",
                removal.decode,
                latents,
                backbone=backbone.vae_identity,
                frames=len(shot.frames),
            )
            floor = ctx.stage("change_floor", measure_change, reference, sample, version=2)
            found[one.keeps] = Generated(reference, sample, asked[one.keeps], floor)
    return found


def measure_change(ctx: Context, reference: Any, sample: Any) -> Floor:
    """Measure what the model changes where nothing is to change."""
    from gencomp_server.parts.generated import floor_of

    return floor_of(reference, sample)


# --- stage 2: clean plate and alphas -------------------------------------------------------------


def bring_in(ctx: Context, shot: Shot, *, long_edge: int) -> Scene:
    """Bring plate and mattes to model size, over the display window, finite."""
    import numpy as np

    from gencomp_server.parts.fit import model_format, to_model_frame
    from gencomp_server.parts.layering import Scene
    from gencomp_server.parts.pictures import coverage_of, linear

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


def find_clean_plate(ctx: Context, shot: Shot, scene: Scene, *, register: bool) -> CleanPlatePlan:
    """Decide at model size how the clean plate is gathered from the other frames."""
    from gencomp_server.parts.background import CleanPlateSettings
    from gencomp_server.parts.cleanplate import plan_clean_plate
    from gencomp_server.parts.fit import to_model_frame
    from gencomp_server.parts.pictures import linear

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
    ctx: Context, shot: Shot, scene: Scene, plan_: CleanPlatePlan | None, *, n: int, register: bool
) -> FittedClean:
    """Make one frame of the clean plate at plate size, fitted to the plate, in its type."""
    from gencomp_server.parts.cleanfit import fit_clean
    from gencomp_server.parts.gather import gather_frame
    from gencomp_server.parts.pictures import in_type, linear, row_reader

    plate = linear(shot, PLATE, n)
    covered = scene.covered(n)
    if plan_ is None:
        clean = linear(shot, CLEAN_PLATE, n)
    else:
        rows = row_reader(shot, PLATE)
        size = (plate.shape[1], plate.shape[0])
        painted = _painted_frames(shot)
        looked_up = row_reader(shot, CLEAN_PLATE, painted) if painted else None
        clean = gather_frame(plan_, n, rows, size, looked_up)
        covered = covered | (plan_.own[scene.frames.index(n)] > 0)
    move = register and plan_ is None
    fitted = fit_clean(plate, clean, covered, scene.size, register=move)
    return replace(fitted, pixels=in_type(fitted.pixels, shot.header(PLATE, n).pixel_type))


def clean_frame_as_made(
    ctx: Context, shot: Shot, scene: Scene, made: Generated, *, n: int
) -> FittedClean:
    """Make one frame of the clean plate at plate size from what the model made, in its type."""
    from gencomp_server.parts.cleanfit import FittedClean
    from gencomp_server.parts.generated import fit_of
    from gencomp_server.parts.pictures import in_type

    i = scene.place(n)
    pixels = in_type(_as_plate(shot, made, i, n), shot.header(PLATE, n).pixel_type)
    fit = fit_of(scene.plate[i], made.reference[i], scene.covered(n), scene.size)
    return FittedClean(pixels, fit, 0.0)


def solve_alpha(
    ctx: Context,
    solos: Shot,
    scene: Scene,
    clean: FittedClean,
    made: dict[str, Generated],
    *,
    n: int,
    mattes: str,
) -> FrameAlpha:
    """Solve one frame at model size: all objects together, or each against its own solo."""
    import numpy as np

    from gencomp_server.parts.alpha import ROUGH, STANDARD, solve_frame
    from gencomp_server.parts.fit import to_model_frame
    from gencomp_server.parts.layering import FrameAlpha

    i, settings = scene.place(n), ROUGH if mattes == "rough" else STANDARD
    under = to_model_frame(clean.pixels, scene.size)
    if not solos.names:
        found = solve_frame(scene.plate[i], under, scene.matte(n), clean.calibration, settings)
        return FrameAlpha(found.alpha, found.object_alpha)
    each = []
    for k, name in enumerate(solos.request.named(MATTE_PREFIX)):
        solo = to_model_frame(_solo_frame(solos, made, name, n), scene.size)
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
    import numpy as np

    from gencomp_server.parts.fit import from_model_frame
    from gencomp_server.parts.noise import measure_noise
    from gencomp_server.parts.pictures import linear

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
    import numpy as np

    from gencomp_server.parts.ownership import share_effects

    together = np.stack([np.asarray(alpha[..., 0], np.float16) for alpha in alphas])
    return share_effects(
        together,
        scene.mattes,
        progress=lambda done, total: ctx.progress("ownership", done, total),
    )


# --- where pictures come from --------------------------------------------------------------------


def _clean_plate(
    shot: Shot, scene: Scene, made: Generated | None, params: Params, ctx: Context
) -> tuple[Callable[[int], FittedClean], CleanPlatePlan | None]:
    """Return the clean plate by frame, and how it is gathered where it comes from the shot."""
    if made is not None:
        kept = shot.only(*(name for name in (PLATE, KEEP) if name in shot.names))

        def as_made(n: int) -> FittedClean:
            return ctx.stage("clean_frame", clean_frame_as_made, kept, scene, made, n=n, version=2)

        return as_made, None
    pair = shot.only(*(name for name in (PLATE, CLEAN_PLATE) if name in shot.names))
    register, plan_ = params.register_clean_plate, None
    if _is_gathered(shot.request, register):
        plan_ = ctx.stage("clean_plate", find_clean_plate, pair, scene, register=register)
        _report_clean_plate(plan_, ctx)

    def clean(n: int) -> FittedClean:
        return ctx.stage("clean_frame", clean_frame, pair, scene, plan_, n=n, register=register)

    return clean, plan_


def _solos(
    shot: Shot, made: dict[str, Generated], ctx: Context
) -> Callable[[str, int], NDArray[Any]] | None:
    """Return the solos by name and frame; None where there are none."""
    if not shot.request.named(SOLO_PREFIX) and not any(made):
        return None
    return lambda name, n: _solo_frame(shot, made, name, n)


def _of_solos(shot: Shot, names: tuple[str, ...], made: dict[str, Generated], wanted: bool) -> Shot:
    """Return the shot with what the solos hang on: none where there are none."""
    if not wanted:
        return shot.only()
    given = [SOLO_PREFIX + name for name in names if SOLO_PREFIX + name in shot.names]
    plate = [name for name in (PLATE, KEEP) if name in shot.names and any(made)]
    return shot.only(*given, *plate)


def _solo_frame(shot: Shot, made: dict[str, Generated], name: str, n: int) -> Any:
    """Return the artist's solo, or the model's at plate size. [H,W,3] float32, scene-linear."""
    from gencomp_server.parts.pictures import linear

    if SOLO_PREFIX + name in shot.names:
        return linear(shot, SOLO_PREFIX + name, n)
    return _as_plate(shot, made[name], tuple(shot.frames).index(n), n)


def _as_plate(shot: Shot, made: Generated, i: int, n: int) -> Any:
    """Return one frame of a pass at plate size. [H,W,3] float32, scene-linear."""
    from gencomp_server.parts.generated import as_plate
    from gencomp_server.parts.pictures import coverage_of, linear

    keep = coverage_of(shot, KEEP, n) if KEEP in shot.names else None
    return as_plate(linear(shot, PLATE, n), made, i, keep)


def _is_gathered(request: Request, register: bool) -> bool:
    """Tell whether the clean plate is gathered over time, wholly or around stills."""
    entry = request.input(CLEAN_PLATE)
    return entry is None or entry.cover == STILLS or (entry.cover == STILL and register)


def _painted_frames(shot: Shot) -> dict[int, int]:
    """Return at which frames the artist's clean frames lie, and their own numbers."""
    entry = shot.request.input(CLEAN_PLATE)
    if entry is None or entry.cover == SEQUENCE:
        return {}
    if entry.cover == STILL:
        return {shot.frames.first: shot.frames.first}
    return {n: n for n in shot.frames_of(CLEAN_PLATE)}


def _is_drawn(name: str) -> bool:
    """Tell whether an input says something to the video model beside the plate."""
    prefixes = (MATTE_PREFIX, EFFECTS_PREFIX, TRIMASK_PREFIX)
    return name in (KEEP, TRIMASK) or name.startswith(prefixes)


def _format(shot: Shot) -> Format:
    header = shot.header(PLATE)
    window = header.display_window
    return Format(window.width, window.height, header.pixel_aspect)


def _blanks_edit(convention: str) -> bool:
    from gencomp_server.parts.trimask import CONVENTIONS

    return CONVENTIONS[convention].zero_edit


# --- what is said --------------------------------------------------------------------------------


def _report_sources(request: Request, passes: Sequence[Pass], ctx: Context) -> None:
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


def _warn_of_idle_seeds(
    request: Request, passes: Sequence[Pass], params: Params, ctx: Context
) -> None:
    """Warn of seeds of passes that the video model does not make."""
    made = {one.keeps or BACKGROUND for one in passes}
    for name in parse_seeds(params.passes, request.named(MATTE_PREFIX)):
        if name not in made:
            ctx.warn(f"Knob 'passes' names '{name}', and the video model makes no such pass here.")


def _report_model(
    passes: Sequence[Pass], frames: int, params: Params, text: Words, size: Any, ctx: Context
) -> None:
    """Report what the model is asked for; warn of what it does not read."""
    from gencomp_server.parts.latents import backbone_of
    from gencomp_server.parts.windows import count_forwards, job_windows

    spec = backbone_of(ctx).spec
    windows = job_windows(spec, frames)
    ctx.report("passes", [one.title for one in passes])
    ctx.report("model_size", list(size))
    ctx.report("windows", len(windows))
    steps, guidance = steps_of(params), params.guidance
    ctx.report("forwards", count_forwards(len(passes), windows, steps, guidance))
    if text.cut:
        ctx.warn(
            f"Knob 'scene_prompt' is longer than the {spec.architecture.text_tokens} tokens this "
            f"model reads; {spell_cut(text.cut)}."
        )


def _report_clean_plate(plan_: CleanPlatePlan, ctx: Context) -> None:
    """Report how the clean plate was found; warn where registration is off."""
    from gencomp_protocol.frames import spell_frames
    from gencomp_server.parts.layering import rounded

    ctx.report("registration_error_px_per_frame", rounded(plan_.error_px))
    ctx.report("never_seen_share_per_frame", rounded(plan_.never_seen_share))
    off = [n for n, e in zip(plan_.frames, plan_.error_px, strict=True) if e > REGISTRATION_PX]
    if off:
        ctx.warn(
            f"The background could not be registered to better than {REGISTRATION_PX} pixels at "
            f"frames {spell_frames(off)}; paint a clean frame there."
        )
    lost = [n for n, k in zip(plan_.frames, plan_.features, strict=True) if k == 0]
    if lost and len(plan_.frames) > 1:
        ctx.warn(
            f"Nothing in the background of frames {spell_frames(lost)} could be tracked, so the "
            "camera is taken to stand still there."
        )
    unseen = float(max(plan_.never_seen_share, default=0.0))
    if unseen > UNSEEN_SHARE and not plan_.painted:
        ctx.warn(
            f"Up to {unseen:.1%} of a frame's background is never seen and was filled in; a "
            "painted clean frame would be better."
        )


SYSTEM = System(
    name="omnimatte",
    title="Omnimatte",
    doc="Takes a plate and one matte per object; gives the background and one layer per object "
    "that carries the object and its shadow, reflection or wake.",
    inputs=INPUTS,
    params=Params,
    layers=layers,
    plan=plan,
    run=run,
    check=check,
    backbone=MAY_USE_BACKBONE,
)
