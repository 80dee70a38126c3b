# SPDX-License-Identifier: Apache-2.0
"""DynVFX: new content in a plate from words alone, by a text-to-video model nobody has trained.

Paper: dynvfx (docs/papers.md), §4 and app. A.  Differs from the paper:

* it names a segmentation model and a language model; here both are the user's own and neither is
  needed: mattes may be drawn, texts typed, and what changed found by itself (``change_from``);
* an edit can be adjusted: rounds are stages, and ``continue_from`` reruns from one of them on with
  another prompt, seed or matte (app. C names that as its limit);
* its result is the decoded picture, here only what changed is carried onto the plate's own samples,
  inside the last round's mask and what the artist allows (``parts/change.py``);
* more frames than the model sees at once go through it in windows;
* further choices are in docs/decisions/0026-dynvfx.md and 0027-assistant-and-segmenter.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gencomp_protocol.errors import BadKnob, InternalError, MissingInput, OutOfMemory
from gencomp_protocol.frames import Box
from gencomp_protocol.layers import (
    CONTINUE_MATTE,
    DIFFERENCE,
    EFFECT,
    EFFECT_MATTE,
    LIMIT,
    ORIGIN,
    PLATE,
    PROTECT,
    RESULT,
    SOURCE_MATTE,
    TARGET_MATTE,
    LayerSpec,
)
from gencomp_protocol.request import SEQUENCE, STILL, Request
from gencomp_server.backbones import backbone_knob, choose, model_size, steps_of
from gencomp_server.contract import (
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
from gencomp_server.finishing import LIMIT_INPUT, ORIGIN_LAYER, PROTECT_INPUT, ChangeParams
from gencomp_server.footprint import CPU
from gencomp_server.segmenting import check_words

if TYPE_CHECKING:
    from gencomp_server.backbones import BackboneSpec
    from gencomp_server.models.backbone import Backbone
    from gencomp_server.parts.refining import Wish

AUTO, SEGMENTER, CHANGED = "auto", "segmenter", "difference"
LOCAL, GLOBAL, OWN_RATES = "local", "global", "own rates"
SHIPPED, PAPER = "shipped", "paper"
_SAME_SEED = -1
_PAIR = 2
"""Elements of an anchored step, which goes as one forward: the edit and the plate."""
_KEEPS_NOTHING = (
    "Knob 'cached_keys_gb' is less than one noise level of this plate takes, so nothing is kept."
)


@dataclass(frozen=True)
class Params(ChangeParams):
    """Knobs of DynVFX; field name is knob name."""

    backbone: str = backbone_knob("dynvfx")
    prompt: str = knob(
        "",
        doc="The finished shot in about 90 words: what is there, what is new, how they touch. "
        "Needed; gencomp assist can write it.",
    )
    source_prompt: str = knob("", doc="The shot as it is, in about 90 words; may be empty.")
    source_objects: str = knob(
        "",
        doc="What stands out in the plate, commas between: the segmenter looks for it. Not needed "
        "with source_matte.",
    )
    target_object: str = knob(
        "",
        doc="What is new, in a few words, its shadow too: the segmenter looks for it after every "
        "round. Not needed with target_matte.",
    )
    instruction: str = knob(
        "", doc="What the texts were made from, kept in the manifest; no model reads it."
    )
    negative_prompt: str = knob("", doc="What should not be seen; guidance pulls away from it.")
    guidance: float = knob(
        6.0, lo=1.0, hi=20.0, doc="How far the prompt may pull. 1: not at all, in less time."
    )
    scope: str = knob(
        LOCAL,
        choices=(LOCAL, GLOBAL, OWN_RATES),
        doc="local: an object; most of what stands out holds its place. global: weather, a flood; "
        "little does. own rates: keep_inside and keep_outside.",
    )
    keep_inside: float = knob(
        0.70,
        lo=0.0,
        hi=1.0,
        doc="With 'own rates': which share of what stands out the new picture is held to.",
    )
    keep_outside: float = knob(
        0.05, lo=0.0, hi=1.0, doc="With 'own rates': which share of everything else."
    )
    change_from: str = knob(
        AUTO,
        choices=(AUTO, TARGET_MATTE, SEGMENTER, CHANGED),
        doc="What says where the new content is. auto: target_matte where connected, else the "
        "segmenter where the server has one and target_object names it, else what changed.",
    )
    continue_from: int = knob(
        0,
        lo=0,
        hi=16,
        tab="Continue",
        doc="From this round on, what is set here counts; the rounds before it are kept. 0: off.",
    )
    continue_prompt: str = knob(
        "", tab="Continue", doc="Prompt from that round on; empty: the same."
    )
    continue_seed: int = knob(
        _SAME_SEED,
        lo=_SAME_SEED,
        hi=2**31 - 1,
        tab="Continue",
        doc="Seed from that round on; -1: the same.",
    )
    last_round: int = knob(
        0,
        lo=0,
        hi=16,
        tab="Continue",
        doc="Stop after this round and deliver what it made; later rounds go on from there. 0: all "
        "rounds.",
    )
    rounds: str = knob(
        SHIPPED,
        choices=(SHIPPED, PAPER),
        tab="Model",
        doc="Which rounds of noise and refinement: those of the published code, or the paper's.",
    )
    inversion_steps: int = knob(
        250,
        lo=1,
        hi=1000,
        tab="Model",
        doc="Steps by which the plate is turned into noise, once for all edits of it.",
    )
    cached_keys_gb: float = knob(
        0.0,
        lo=0.0,
        hi=2000.0,
        tab="Speed",
        doc="Memory for keeping what the model sees of the plate from round to round, in GB. "
        "0: it is computed again.",
    )
    mask_grow: int = knob(
        16,
        lo=0,
        hi=256,
        tab="Delivery",
        doc="How far beyond the new content a change may be delivered, in model pixels.",
        delivery=True,
    )


INPUTS = (
    Input(PLATE, "rgb", "The shot that something is added to, scene-linear."),
    Input(
        SOURCE_MATTE,
        "matte",
        "What stands out in the plate and holds its place: 1 where it is.",
        optional=True,
        covers=(SEQUENCE, STILL),
    ),
    Input(
        TARGET_MATTE,
        "matte",
        "Where new content may come: 1 where it may. Nothing comes outside it.",
        optional=True,
        covers=(SEQUENCE, STILL),
    ),
    Input(
        CONTINUE_MATTE,
        "matte",
        "With continue_from: where new content may come from that round on.",
        optional=True,
        covers=(SEQUENCE, STILL),
    ),
    LIMIT_INPUT,
    PROTECT_INPUT,
)
LAYERS = (
    LayerSpec(RESULT, doc="The plate with the new content.", whole=True, carries=PLATE),
    LayerSpec(EFFECT, doc="The change alone, premultiplied: over the plate it is the result."),
    LayerSpec(DIFFERENCE, doc="Result minus plate, signed; alpha is 0."),
    LayerSpec(EFFECT_MATTE, ("A",), doc="How much of a change was let in; 0: the plate's sample."),
)


# --- from the header alone ------------------------------------------------------------------------


def check(request: Request) -> None:
    """Refuse combinations that cannot work, from the header alone.

    Raises:
        BadKnob: No prompt, no such round, or words that the segmenter needs and cannot take.
        MissingInput: ``change_from`` or a connected matte asks for what is not there.
    """
    from gencomp_server.parts.rounds import plan_rounds

    params: Params = parse_params(Params, request.knobs)
    if not params.prompt.strip():
        raise BadKnob(
            "Knob 'prompt' is empty, so DynVFX does not know what to add.",
            hint="Describe the finished shot, or let gencomp assist dynvfx write it.",
            knob="prompt",
        )
    if params.change_from == TARGET_MATTE and request.input(TARGET_MATTE) is None:
        raise MissingInput(
            "Knob 'change_from' is target_matte, which is not connected.",
            hint="Connect target_matte, or set change_from to auto.",
            input=TARGET_MATTE,
        )
    if params.change_from == SEGMENTER and not params.target_object.strip():
        raise BadKnob(
            "Knob 'change_from' is segmenter, and 'target_object' does not say what to look for.",
            hint="Name the new content in target_object.",
            knob="target_object",
        )
    for words in (params.source_objects, params.target_object):
        check_words(words)
    count = len(plan_rounds(params.rounds, steps_of(params)))
    for name in ("continue_from", "last_round"):
        number = getattr(params, name)
        if number > count:
            raise BadKnob(
                f"Knob '{name}' is {number}, but there are {count} rounds.",
                hint=f"Set it to 1 to {count}, or to 0 for off.",
                knob=name,
            )
    if 0 < params.last_round < params.continue_from:
        raise BadKnob(
            f"Knob 'continue_from' is {params.continue_from}, but 'last_round' ends the edit after "
            f"round {params.last_round}.",
            hint="Set last_round to 0 for all rounds.",
            knob="last_round",
        )
    if not params.continue_from and request.input(CONTINUE_MATTE) is not None:
        raise MissingInput(
            "Input 'continue_matte' is connected, but 'continue_from' names no round.",
            hint="Set continue_from to the round from which it counts, or disconnect it.",
            input=CONTINUE_MATTE,
        )


def layers(request: Request) -> tuple[LayerSpec, ...]:
    """Return the layers of a request."""
    params: Params = parse_params(Params, request.knobs)
    return (*LAYERS, *((ORIGIN_LAYER,) if params.origin else ()))


def plan(request: Request, machine: Machine) -> Plan:
    """Estimate forwards, memory, bytes and minutes from the header alone.

    Raises:
        WeightsMissing, WeightsRefused, OutOfMemory, BadKnob: The video model cannot be used so, or
            there is no segmenter where one is asked for.
    """
    from gencomp_server.cost import estimate
    from gencomp_server.parts.windows import job_windows

    params: Params = parse_params(Params, request.knobs)
    spec = choose(SYSTEM, params, machine)
    assert spec is not None, SYSTEM.backbone
    has_matte = request.input(TARGET_MATTE) is not None
    how = _found_by(params, has_matte=has_matte, has_segmenter=machine.segmenter)
    notes = (_spell_finder(how, params),)
    plate = request.input(PLATE)
    if plate is None or plate.format is None:
        unknown = "The plate's size is not known yet, so there is no estimate."
        return Plan(backbone=spec.name, notes=(*notes, unknown))
    size = model_size(spec, plate.format, params.model_size)
    frames, pixels = len(request.frames), plate.format.width * plate.format.height
    spared, kept = _kept_keys(params, spec, size, frames, on_cpu=machine.device == CPU)
    inverting, editing = _forwards(params, spec, frames, spared)
    a_step = 2 * len(job_windows(spec, frames))  # as estimate counts one with guidance
    cost = estimate(
        spec,
        size,
        frames,
        steps=math.ceil((inverting + editing) / a_step),
        guidance=2.0,
        machine=machine,
        precision=params.precision,
        at_once=_PAIR,
    )
    times = (inverting + editing) / cost.forwards
    sampling = cost.stage_bytes["sample"]
    _check_room(kept, sampling, machine)
    cost = replace(
        cost,
        stage_bytes={**cost.stage_bytes, "sample": sampling + kept},
        forwards=inverting + editing,
        teraflops=cost.teraflops * times,
        minutes=cost.minutes * times,
    )
    return cost.plan(
        minutes=frames * pixels * 4e-6 / 60,
        bytes_in=frames * pixels * 2 * 3,
        bytes_out=frames * pixels * sum(_bytes_of(layer) for layer in layers(request)),
        memory_bytes=int(1e9 + pixels * 4 * 40),
        notes=(
            *notes,
            f"{inverting} of the forwards turn the plate into noise; another edit of the same "
            "plate needs none of them.",
            *((_KEEPS_NOTHING,) if params.cached_keys_gb and not kept else ()),
        ),
    )


def _kept_keys(
    params: Params, spec: BackboneSpec, size: tuple[int, int], frames: int, *, on_cpu: bool
) -> tuple[int, int]:
    """Return how many steps find the plate's keys and values on hand, and the bytes these take.

    Args:
        params: The knobs.
        spec: The backbone.
        size: The model's width and height.
        frames: Frames of the job.
        on_cpu: True on a processor, where a sample takes four bytes instead of two.
    """
    from gencomp_server.parts import rounds, sourcekeys
    from gencomp_server.parts.windows import job_windows

    if not params.cached_keys_gb:
        return 0, 0
    width, height = (side // spec.vae_spatial for side in size)
    sample = 4 if on_cpu else 2
    each = sum(
        sourcekeys.key_bytes(spec, len(one), height, width, sample)
        for one in job_windows(spec, frames)
    )
    wanted = rounds.anchored_timesteps(params.rounds, steps_of(params))
    kept = sourcekeys.kept_timesteps(wanted, each, int(params.cached_keys_gb * 1e9))
    met = rounds.anchored_timesteps(params.rounds, steps_of(params), params.last_round)
    return sourcekeys.spared(met, kept), each * len(kept)


def _check_room(kept: int, sampling: int, machine: Machine) -> None:
    """Refuse to keep more than there is room for beside a step.

    Raises:
        OutOfMemory: There is not; names the knob.
    """
    room = machine.free_bytes or machine.memory_bytes
    if kept and room and sampling + kept > room:
        raise OutOfMemory(
            f"Knob 'cached_keys_gb' keeps {kept / 1e9:.0f} GB beside the {sampling / 1e9:.0f} GB "
            f"of a step, and {machine.name or machine.device} has {room / 1e9:.0f} GB free.",
            hint="Lower cached_keys_gb; 0 keeps nothing, and takes longer.",
            knob="cached_keys_gb",
        )


def _found_by(params: Params, *, has_matte: bool, has_segmenter: bool) -> str:
    """Return what says where the new content is.

    Args:
        params: The knobs.
        has_matte: True where ``target_matte`` is connected.
        has_segmenter: True where the server has one.

    Raises:
        BadKnob: A segmenter is asked for and the server has none.
    """
    if params.change_from == SEGMENTER and not has_segmenter:
        raise BadKnob(
            "Knob 'change_from' is segmenter, and this server has none.",
            hint="Name one in its settings as segmenter, connect target_matte, or choose "
            "difference.",
            knob="change_from",
        )
    if params.change_from != AUTO:
        return params.change_from
    if has_matte:
        return TARGET_MATTE
    return SEGMENTER if has_segmenter and params.target_object.strip() else CHANGED


def _spell_finder(how: str, params: Params) -> str:
    words = {
        TARGET_MATTE: "target_matte.",
        SEGMENTER: f"the segmenter, looking for {params.target_object}.",
        CHANGED: "where the picture changed.",
    }
    return f"Where the new content is: {words[how]}"


def _forwards(params: Params, spec: BackboneSpec, frames: int, spared: int = 0) -> tuple[int, int]:
    """Return the forwards of the inversion and of all rounds; a batch of two counts two.

    Args:
        params: The knobs.
        spec: The backbone.
        frames: Frames of the job.
        spared: Steps that find the plate's keys and values on hand.
    """
    from gencomp_server.parts import rounds
    from gencomp_server.parts.windows import job_windows

    steps = steps_of(params)
    inverting = rounds.count_inversion_forwards(
        spec, frames, steps=rounds.kept_steps(steps), inversion_steps=params.inversion_steps
    )
    planned = rounds.plan_rounds(params.rounds, steps, params.last_round)
    windows = len(job_windows(spec, frames))
    return inverting, rounds.count_forwards(planned, windows, params.guidance, spared)


def _bytes_of(layer: LayerSpec) -> int:
    """Return the bytes of one pixel of a layer: a plate is taken for half, origin is float."""
    return len(layer.channels) * (4 if layer.name == ORIGIN else 2)


# --- the run -------------------------------------------------------------------------------------


def run(shot: Shot, params: Params, ctx: Context) -> Iterator[LayerFrame]:
    """Yield the layers of every frame: prepare, invert, edit in rounds, decode, judge, deliver."""
    from gencomp_server.colour.modelrange import range_of
    from gencomp_server.parts import denoising, finish, lead, newcontent, refining, region
    from gencomp_server.parts.pictures import some

    backbone, count = _backbone(ctx), len(shot.frames)
    colour, plate = range_of(shot.request, params.exposure), lead.format_of(shot)
    size = model_size(backbone.spec, plate, params.model_size)
    box = Box(0, 0, plate.width - 1, plate.height - 1)
    has_matte, has_segmenter = TARGET_MATTE in shot.names, ctx.segmenter is not None
    how = _found_by(params, has_matte=has_matte, has_segmenter=has_segmenter)
    finish.open_reach(ctx, shot, box=box, size=size)
    refining.check_mattes(ctx, shot, size)
    if ctx.segmenter is not None and (how == SEGMENTER or _looks_for_objects(shot, params, ctx)):
        ctx.segmenter.check_there()
    _say_what_runs(shot, params, ctx, how, size)

    video = ctx.stage(
        "prepare",
        lead.prepare,
        shot.only(PLATE),
        seeded=False,
        box=region.sides(box),
        size=size,
        colour=colour.identity,
        exposure=params.exposure,
    )
    encode, vae = backbone.encode_identity, backbone.vae_identity
    original = ctx.stage("encode", denoising.encode_clean, video, seeded=False, backbone=encode)

    def decoded(latents: Any) -> Any:
        stage = ctx.stage
        return stage("decode", denoising.decode, latents, seeded=False, backbone=vae, frames=count)

    reference = decoded(original)
    start = refining.Start(shot, video, original, reference, size)
    found = refining.refine(ctx, start, _wish(params, how))
    ctx.report("forwards_computed", backbone.forwards)
    made = decoded(found.latents)
    temporal = backbone.spec.vae_temporal
    cells = found.matte | newcontent.on_pixels(found.marks, count, size, temporal)
    cells = ctx.made_of(cells, found.matte, found.marks)
    asked = ctx.made_of(newcontent.asked(cells), cells)
    floor = ctx.stage("noise", denoising.measure_noise, reference, made, asked)
    _report_floor(floor, ctx)
    reach = ctx.stage(
        "bounds",
        newcontent.reach_of_edit,
        some(shot, LIMIT, PROTECT),
        found.matte if found.is_drawn else cells,
        size=size,
        grow_px=params.mask_grow,
    )
    of = finish.Decoded(reference, made, floor, (), box, colour)
    judged = finish.judge(ctx, shot, params, of, reach)
    yield from finish.deliver(ctx, shot, layers(shot.request), judged, locked=False)


def _backbone(ctx: Context) -> Backbone:
    if ctx.backbone is None:
        raise InternalError("DynVFX was started without a video model.")
    return ctx.backbone


def _wish(params: Params, how: str) -> Wish:
    """Return what the knobs ask for."""
    from gencomp_server.parts.refining import Wish

    other, seed = params.continue_prompt.strip(), params.continue_seed
    return Wish(
        prompt=params.prompt,
        null=None if params.guidance == 1 else " ".join(params.negative_prompt.split()),
        seed=params.seed,
        guidance=params.guidance,
        source_prompt=params.source_prompt,
        source_objects=params.source_objects,
        target_object=params.target_object,
        change_from=how,
        preset=params.rounds,
        steps=steps_of(params),
        keep=_keep(params),
        inversion_steps=params.inversion_steps,
        cached_gb=params.cached_keys_gb,
        continue_from=params.continue_from,
        continue_prompt=other or None,
        continue_seed=None if seed == _SAME_SEED else seed,
        last_round=params.last_round,
    )


def _keep(params: Params) -> tuple[float, float]:
    """Return which shares of what stands out, and of the rest, the edit is held to."""
    from gencomp_server.parts.rounds import KEEP

    if params.scope == OWN_RATES:
        return params.keep_inside, params.keep_outside
    return KEEP[params.scope]


# --- what is said --------------------------------------------------------------------------------


def _say_what_runs(
    shot: Shot, params: Params, ctx: Context, how: str, size: tuple[int, int]
) -> None:
    """Report what was understood, and warn of what an artist may not expect."""
    from gencomp_server.parts import lead

    for name in ("instruction", "prompt", "source_prompt", "source_objects", "target_object"):
        ctx.report(name, getattr(params, name))
    lead.report_size(ctx, size, lead.format_of(shot))
    ctx.report("change_from", how)
    ctx.report("keep_rates", list(_keep(params)))
    backbone, frames = _backbone(ctx), len(shot.frames)
    on_cpu = backbone.device.type == CPU
    spared, _ = _kept_keys(params, backbone.spec, size, frames, on_cpu=on_cpu)
    inverting, editing = _forwards(params, backbone.spec, frames, spared)
    ctx.report("forwards", inverting + editing)
    ctx.report("inversion_forwards", inverting)
    if params.continue_from:
        words = ("continue_from", "continue_prompt", "continue_seed")
        ctx.report("continued", {name: getattr(params, name) for name in words})
    _warn_of_idle(shot, params, ctx, how)


def _looks_for_objects(shot: Shot, params: Params, ctx: Context) -> bool:
    """Tell whether the segmenter is asked for what stands out."""
    is_asked = ctx.segmenter is not None and bool(params.source_objects.strip())
    return is_asked and SOURCE_MATTE not in shot.names


def _warn_of_idle(shot: Shot, params: Params, ctx: Context, how: str) -> None:
    """Warn of knobs and inputs that were set and do nothing."""
    usual, idle = Params(), []
    if SOURCE_MATTE not in shot.names and not _looks_for_objects(shot, params, ctx):
        name = "keep_inside" if params.scope == OWN_RATES else "scope"
        idle.append((name, "nothing says what stands out: connect source_matte"))
    if params.scope != OWN_RATES:
        idle += [(name, f"scope is {params.scope}") for name in ("keep_inside", "keep_outside")]
    if params.guidance == 1:
        idle.append(("negative_prompt", "guidance is 1"))
    if not params.continue_from:
        idle += [(name, "continue_from is 0") for name in ("continue_prompt", "continue_seed")]
    if how != SEGMENTER:
        idle.append(("target_object", f"the new content is found by {how}"))
    if ctx.segmenter is None:
        idle.append(("source_objects", "this server has no segmenter"))
    elif SOURCE_MATTE in shot.names:
        idle.append(("source_objects", "source_matte is connected"))
    for name, why in idle:
        if getattr(params, name) != getattr(usual, name):
            ctx.warn(f"Knob '{name}' is not used, because {why}.")
    if TARGET_MATTE in shot.names and how != TARGET_MATTE:
        ctx.warn(f"Input 'target_matte' is not used, because change_from is {how}.")


def _report_floor(floor: Any, ctx: Context) -> None:
    ctx.report("noise_floor", [round(float(sigma), 6) for sigma in floor.sigma])
    if floor.is_beyond_noise:
        ctx.warn(
            "The model also changed the picture outside the new content; none of that is "
            "delivered, but look at the tone where they meet."
        )


SYSTEM = System(
    name="dynvfx",
    title="DynVFX",
    doc="Takes a plate and words; adds what they describe, moving and lit as the shot is, without "
    "a mask and without training. An edit can be taken up again from any of its rounds.",
    inputs=INPUTS,
    params=Params,
    layers=layers,
    plan=plan,
    run=run,
    check=check,
    backbone=NEEDS_BACKBONE,
)
