# SPDX-License-Identifier: Apache-2.0
"""Generative Omnimatte: a plate and its mattes in, layers out.

Paper: generative-omnimatte (docs/papers.md), fig. 4, §3.2, §3.5 and appendices A and D.  Stage 1
makes the clean plate and, with two objects or more, a plate of each object alone, its solo: by a
video model where there is one. Stage 2 makes the layers.  Differs from the paper:

* without a video model the clean plate comes from the other frames of the plate (registered masked
  median), and one alpha is solved for all objects together and shared out among them
  (``parts/ownership.py``); the model that ships changes that clean plate, and the plate around it,
  and makes no solos (``parts/overbase.py``);
* what the artist gives, clean plate or solos, is taken before anything is made;
* what the model made is carried onto the plate's own samples, not upsampled by another model
  (``parts/generated.py``);
* the alpha is solved by closed forms and one sparse least-squares problem per frame
  (``parts/alpha.py``), not by fitting a network to each shot;
* the layers give the plate back exactly (``parts/recompose.py``); the paper's are an approximation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from gencomp_protocol.errors import BadName, WeightsMissing
from gencomp_protocol.frames import Format
from gencomp_protocol.layers import (
    BACKGROUND,
    CLEAN,
    CLEAN_PLATE,
    DEPTH,
    EFFECTS_PREFIX,
    EFFECTS_SUFFIX,
    KEEP,
    MATTE_PREFIX,
    OBJECT_SUFFIX,
    ORIGIN,
    PATCH,
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
    backbone_knob,
    cached_steps_of,
    choose,
    model_size,
    passed_over,
    steps_of,
    why_preview,
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
from gencomp_server.finishing import (
    LIMIT_INPUT,
    MATCH_GRAIN,
    ORIGIN_LAYER,
    PROTECT_INPUT,
    FinishParams,
)
from gencomp_server.footprint import CPU
from gencomp_server.parts.order import (
    NEAR_IS_LARGE,
    NEAR_IS_SMALL,
    by_depth,
    changes,
    measure_depths,
    parse_order,
)
from gencomp_server.parts.passes import (
    AUTO,
    MODEL,
    TEMPORAL,
    Pass,
    draft_grow_px,
    is_gathered,
    parse_seeds,
    plan_passes,
)
from gencomp_server.parts.windows import job_length

if TYPE_CHECKING:
    from gencomp_server.backbones import BackboneSpec
    from gencomp_server.parts.layering import Material
    from gencomp_server.parts.removal import Asking

MOST_OBJECTS = 8
NOISE_FRAMES = 3
"""Frames, evenly spread, from which the noise floor is measured."""
MODEL_IMPORT_BYTES = 750_000_000
"""Main memory of torch and diffusers, which a video model runs on. Source: measured."""
MODEL_SEQUENCES = 6
"""Sequences of float32 RGB at the model's size that are in main memory at once at most: the plate,
padded, blanked, its noise, noisy, and what the model gives or takes of it."""


@dataclass(frozen=True)
class Params(FinishParams):
    """Knobs of Omnimatte, after those that systems share; field name is knob name."""

    backbone: str = backbone_knob("omnimatte")
    clean_plate_from: str = knob(
        AUTO,
        choices=(AUTO, TEMPORAL, MODEL),
        doc="What makes the clean plate, and each object's solo, where none is connected. model: a "
        "video model. temporal: the other frames of the shot, registered on the background; solos "
        "are then not made. auto: a model; preview, which ships, if nothing else is installed. "
        "That works over temporal and makes no solos either.",
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
        doc="Objects front to back, by name, with commas. It may change over time: 'a, b; 1010: b, "
        "a' has b in front from frame 1010 on. Empty: the order of the mattes. A depth input goes "
        "before it.",
        delivery=True,
    )
    depth_near: str = knob(
        NEAR_IS_SMALL,
        choices=(NEAR_IS_SMALL, NEAR_IS_LARGE),
        doc="What the depth input says of what is near: a small number, such as a distance, or a "
        "large one, such as Nuke's own depth, which is one over the distance.",
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
    LIMIT_INPUT,
    PROTECT_INPUT,
    Input(
        DEPTH,
        "data",
        "How far away everything is, in any unit: orders the objects of each frame by the median "
        "within their mattes.",
        optional=True,
        covers=(SEQUENCE, STILL),
    ),
)


def front_to_back(request: Request) -> tuple[str, ...]:
    """Return the objects in layer order, front first: as the knob has it at the first frame.

    Raises:
        BadKnob: The knob cannot be read, or names an object that has no matte.
    """
    params: Params = parse_params(Params, request.knobs)
    return parse_order(params.order, request.named(MATTE_PREFIX)).at(request.frames.first)


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


def passes_of(
    request: Request, params: Params, *, has_model: bool, solos_too: bool = True
) -> tuple[Pass, ...]:
    """Return the passes that the video model makes; none where the shot's other frames must do.

    Args:
        request: The request.
        params: Its knobs.
        has_model: Whether there is a video model.
        solos_too: Whether it makes solos beside the clean plate.

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
    has_model = has_model and params.clean_plate_from != TEMPORAL
    if has_model and solos_too:
        return passes
    if passes and not has_model and params.clean_plate_from == MODEL:
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
    return tuple(one for one in passes if not one.keeps) if has_model else ()


def layers(request: Request) -> tuple[LayerSpec, ...]:
    """Return the layers of a request: the background, the objects front to back, the removal."""
    params: Params = parse_params(Params, request.knobs)
    without = "The plate without the objects and their effects"
    found = [LayerSpec(BACKGROUND, doc=f"{without}, to lie under the layers.", whole=True)]
    for name in front_to_back(request):
        found.append(LayerSpec(name, doc=f"{name} with its shadow, reflection and other effects."))
        if params.split_effects:
            found.append(LayerSpec(name + OBJECT_SUFFIX, doc=f"{name} itself."))
            found.append(LayerSpec(name + EFFECTS_SUFFIX, doc=f"What {name} does to the scene."))
    if params.residual == "layer":
        found.append(LayerSpec(RESIDUAL, doc="What the layers leave of the plate; add it last."))
    clean = f"{without}: the plate itself, bit for bit, where no object has alpha."
    found.append(LayerSpec(CLEAN, doc=clean, whole=True, carries=PLATE))
    found.append(LayerSpec(PATCH, doc="What lies behind the objects; over the plate it is clean."))
    return (*found, ORIGIN_LAYER) if params.origin else tuple(found)


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
    solos_too = spec is None or not spec.over_base
    passes = passes_of(request, params, has_model=spec is not None, solos_too=solos_too)
    plate = request.input(PLATE)
    size = plate.format if plate is not None else None
    if size is None:
        name = spec.name if spec is not None and passes else ""
        note = "The plate's size is not known yet, so there is no estimate."
        return Plan(backbone=name, notes=(note,))
    figures = _plain_figures(request, params, size)
    if spec is None or not passes:
        notes = (_without_model(request, params, machine), *_idle_grain(request, params))
        return Plan(**figures, notes=notes)
    from gencomp_server.cost import estimate

    inside = model_size(spec, size, params.model_size)
    length = job_length(spec, len(request.frames))
    sequence = length * inside[0] * inside[1] * 3 * 4
    figures["memory_bytes"] += MODEL_IMPORT_BYTES + MODEL_SEQUENCES * sequence
    grow_px = draft_grow_px(params.matte_grow) if spec.over_base else params.matte_grow
    grown = grow_px * max(1.0, size.width / inside[0])
    titles = ", ".join(one.title for one in passes)
    cost = estimate(
        spec,
        inside,
        len(request.frames),
        steps=steps_of(params, spec),
        guidance=1.0 if spec.over_base else params.guidance,
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
            f"Mattes are grown by {grow_px} model pixels, {grown:.0f} of the plate.",
            *why_preview(SYSTEM, params, spec, machine),
            *_idle_grain(request, params),
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
        "bytes_out": count * pixels * sum(_bytes_a_pixel(one) for one in layers(request)),
        "minutes": round((solve_s + deliver_s) / 60, 2),
        "memory_bytes": int(4e8 + pixels * 12 * (14 + 6 * objects)),
    }


def _bytes_of(entry: InputHeader, plate: Format) -> int:
    """Return the bytes of an input's samples in half; one of unknown size is the plate's."""
    size = entry.format or plate
    kind = next((one.kind for one in INPUTS if one.matches(entry.name)), "matte")
    each = {"matte": 2, "data": 4}.get(kind, 6)
    return len(entry.frames) * size.width * size.height * each


def _bytes_a_pixel(layer: LayerSpec) -> int:
    """Return the bytes of a pixel of a layer: half, but for ``origin``, which is float."""
    return len(layer.channels) * (4 if layer.name == ORIGIN else 2)


def _without_model(request: Request, params: Params, machine: Machine) -> str:
    if request.input(CLEAN_PLATE) is not None:
        return "The clean plate is connected and no video model is used."
    said = "The clean plate comes from the other frames of the shot"
    if params.clean_plate_from == TEMPORAL:
        return f"{said}."
    refused = [machine.refused[one.name] for one in SPECS if one.name in machine.refused]
    whys = [*passed_over(SYSTEM, machine), *(one.sentence for one in refused if one.by_licence)]
    return f"{said}. {whys[0]}" if whys else f"{said}, since no video model is installed."


def _idle_grain(request: Request, params: Params) -> tuple[str, ...]:
    """Say that grain is matched to nothing where the artist's own clean plate stands; or nothing.

    What the artist connected keeps the grain that it has.
    """
    if params.grain != MATCH_GRAIN or is_gathered(request, params.register_clean_plate):
        return ()
    return (
        "Knob 'grain' does nothing here: the connected clean plate keeps the grain that it has, so "
        "give it the plate's before you connect it.",
    )


# --- the run -------------------------------------------------------------------------------------


def run(shot: Shot, params: Params, ctx: Context) -> Iterator[LayerFrame]:
    """Yield the layers of every frame: make what is missing, solve, share out, deliver."""
    from gencomp_server.parts import behind, lead, remarks, removal, solving
    from gencomp_server.parts.layering import Material

    names = shot.request.named(MATTE_PREFIX)
    mattes = tuple(MATTE_PREFIX + name for name in names)
    spec = None if ctx.backbone is None else ctx.backbone.spec
    drafts = spec is not None and spec.over_base
    passes = passes_of(shot.request, params, has_model=spec is not None, solos_too=not drafts)
    asking = asked_of(params, spec)
    made = removal.generate(shot, passes, asking, ctx) if passes and not drafts else {}
    remarks.report_sources(shot.request, passes, ctx)
    remarks.warn_of_idle_seeds(shot.request, passes, params.passes, ctx)

    edge, register, exposure = params.model_long_edge, params.register_clean_plate, params.exposure
    scene = ctx.stage("scene", solving.bring_in, shot.only(PLATE, *mattes), long_edge=edge)
    remarks.report_solved_size(scene.size, lead.format_of(shot), ctx)
    drafted = None
    if passes and drafts:
        plan_ = behind.gathered_of(shot, scene, ctx, register=register)
        drafted = removal.draft(shot, scene, plan_, passes[0], asking, ctx)
    how: dict[str, Any] = {"register": register, "exposure": exposure, "drafted": drafted}
    found = behind.behind_of(shot, scene, made.get(""), ctx, **how)
    if found.gathered is not None:
        remarks.report_clean_plate(found.gathered, ctx)
    solos = behind.shot_of_solos(shot, made)
    settings: dict[str, Any] = {
        "mattes": params.mattes,
        "exposure": exposure if any(made) else 0.0,
    }
    solved = []
    for i, n in enumerate(scene.frames):
        ctx.progress("alpha", i, len(scene.frames))
        given = (solos, scene, found.clean(n), made)
        solved.append(ctx.stage("alpha", solving.solve_alpha, *given, version=4, n=n, **settings))
    sampled = tuple(scene.frames[:: max(1, len(scene.frames) // NOISE_FRAMES)][:NOISE_FRAMES])
    fitted = [found.clean(n) for n in sampled]
    noise = ctx.stage(
        "noise", solving.measure_floor, shot.only(PLATE), scene, found.gathered, fitted, at=sampled
    )
    del fitted
    owned = None
    if len(mattes) > 1 and not solos.names:
        owned = ctx.stage("ownership", solving.share_out, scene, [one.together for one in solved])
        ctx.report("doubtful_effect_share", owned.doubtful_share)
    order = order_of(shot, params, ctx)
    solo = None
    if solos.names:
        solo = partial(behind.solo_frame, shot, made, exposure=exposure)
    idle = _idle_grain(shot.request, params)
    for sentence in idle:
        ctx.warn(sentence)
    grain = None
    if params.grain == MATCH_GRAIN and not idle:
        grain = ctx.stage("grain", lead.grain_of, shot.only(PLATE))
    material = Material(shot, scene, order, found, solo, solved, noise, owned, grain)
    yield from deliver(material, params, ctx)


def asked_of(params: Params, spec: BackboneSpec | None) -> Asking:
    """Return what the knobs ask of the video model; the one that ships reads its task alone."""
    from gencomp_server.models.preview_words import TASKS
    from gencomp_server.parts.removal import Asking

    drafts = spec is not None and spec.over_base
    return Asking(
        params.model_size,
        params.exposure,
        TASKS[0] if drafts else params.scene_prompt,
        1.0 if drafts else params.guidance,
        steps_of(params, spec),
        draft_grow_px(params.matte_grow) if drafts else params.matte_grow,
    )


def order_of(shot: Shot, params: Params, ctx: Context) -> Callable[[int], tuple[str, ...]]:
    """Return which object is in front of which, by frame: by depth, else as the knob has it."""
    from gencomp_server.parts.remarks import warn_of_silent_depth

    names = shot.request.named(MATTE_PREFIX)
    knob_order, frames = parse_order(params.order, names), tuple(shot.frames)
    order = knob_order.at
    if DEPTH in shot.names:
        drawn = shot.only(DEPTH, *(MATTE_PREFIX + name for name in names))
        depths = ctx.stage("depth", measure_depths, drawn)
        warn_of_silent_depth(shot.request, depths, ctx)

        def order(n: int) -> tuple[str, ...]:
            told = dict(zip(names, depths[frames.index(n)].tolist(), strict=True))
            return by_depth(knob_order.at(n), told, params.depth_near)

    ctx.report("order_from_frame", changes(frames, order))
    return order


def deliver(material: Material, params: Params, ctx: Context) -> Iterator[LayerFrame]:
    """Yield every frame's layers, exact against the plate, and report how they came out."""
    from gencomp_server.parts.layering import Tally, deliver_frame, error_of, layer_frame, meetings

    tally, met = Tally(), meetings(material)
    nowhere: dict[str, list[int]] = {name: [] for name in material.names}
    ctx.report("hidden_frames", met if material.solo is None else nowhere)
    ctx.report("completed_frames", nowhere if material.solo is None else met)
    wanted = {"apart": params.residual == "layer", "split": params.split_effects}
    specs = layers(material.shot.request)
    for n in material.scene.frames:
        made = deliver_frame(material, n, ctx, **wanted, origin=params.origin)
        tally.add(made.stack, error_of(material.shot, n, made.stack))
        for spec in specs:
            yield layer_frame(material.shot, n, spec.name, made.pictures[spec.name])
    tally.report(ctx)


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
