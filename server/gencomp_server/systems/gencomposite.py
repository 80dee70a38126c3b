# SPDX-License-Identifier: Apache-2.0
"""GenComposite: elements from other clips put into a plate, with what they do to it.

Paper: gencompositor (docs/papers.md), §4 and appendices B, C and H.  Differs from the paper:

* delivered is not the decoded picture.  An element keeps its own pixels and takes the model's light
  as far as ``harmonise`` says; what the model did to the plate is a layer beneath it, carried onto
  the plate's own samples inside the inflated area (``parts/placedlayers.py``);
* placing has no model in it, so it is exact, and previewed without a job (``parts/elements.py``);
* several elements are painted one after the other, back to front, each into what those behind it
  came to; the paper's fig. 20 composites twice;
* frames on which an element is not are not computed, and a clip may be of any length
  (``parts/spans.py``, ``parts/windows.py``);
* the sampler is deterministic.

The model was taught without words, so without a prompt there is no guidance, which would compute
the same forward twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gencomp_protocol.errors import BadMatte, InternalError, MissingFrame, MissingInput
from gencomp_protocol.frames import spell_frames
from gencomp_protocol.layers import (
    BG,
    DEPTH,
    DIFFERENCE,
    EFFECT,
    EFFECT_MATTE,
    ELEMENT,
    FG_MATTE,
    HOLDOUT,
    INTERACTION,
    LIMIT,
    ORIGIN,
    PROTECT,
    REMOVE,
    RESULT,
    LayerSpec,
)
from gencomp_protocol.request import SEQUENCE, STILL, Request
from gencomp_server.backbones import (
    BackboneSpec,
    backbone_knob,
    cached_steps_of,
    choose,
    model_size,
    steps_of,
)
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
from gencomp_server.finishing import AROUND_MASK, LIMIT_INPUT, ORIGIN_LAYER, PROTECT_INPUT
from gencomp_server.parts.elementtime import sources_of
from gencomp_server.parts.placeable import check_placing
from gencomp_server.parts.spans import Span, plan_spans, windows_of
from gencomp_server.placing import (
    DEPTH_INPUT,
    ELEMENT_INPUTS,
    HOLDOUT_INPUT,
    PlacingParams,
    declared,
    idle_knobs,
)

if TYPE_CHECKING:
    from gencomp_server.cost import Cost
    from gencomp_server.models.backbone import Backbone
    from gencomp_server.parts.compositing import Asking, Painted
    from gencomp_server.parts.elements import Element
    from gencomp_server.parts.finish import Judged
    from gencomp_server.parts.placedlayers import Delivery
    from gencomp_server.parts.steps import Places, Step

AUTO, COMPOSITE, HARMONISE, REMOVAL = "auto", "composite", "harmonise only", "removal"
MINE, GENERATED = "mine", "generated"
_UNTAUGHT = (
    "The published weights of GenCompositor were trained without words; a prompt is for weights of "
    "your own."
)


@dataclass(frozen=True)
class Params(PlacingParams):
    """Knobs of GenComposite; field name is knob name."""

    backbone: str = backbone_knob("gencomposite")
    task: str = knob(
        AUTO,
        choices=(AUTO, COMPOSITE, HARMONISE, REMOVAL),
        doc="composite: put fg into bg. harmonise only: fg is in place already (or stands in bg, "
        "under fg_matte), only its colour changes. removal: take away what remove covers. auto: "
        "composite with fg, else removal with remove, else harmonise only.",
    )
    prompt: str = knob(
        "",
        doc="What is to be seen, in words: for weights that were trained with captions. Empty: "
        "no guidance, in half the time.",
    )
    negative_prompt: str = knob(
        "", doc="What should not be seen; guidance pulls away from it. With a prompt only."
    )
    guidance: float = knob(
        6.0, lo=1.0, hi=20.0, doc="How far the prompt may pull; without a prompt it does nothing."
    )
    guidance_rescale: float = knob(
        0.0,
        lo=0.0,
        hi=1.0,
        doc="How much of the contrast that guidance adds is taken back, 0 to 1.",
    )
    harmonise: float = knob(
        1.0,
        lo=0.0,
        hi=1.0,
        tab="Delivery",
        doc="How much of the model's light the element takes: 0 leaves its pixels bit for bit, 1 "
        "gives them the model's low-frequency colour; its detail and alpha stay its own.",
        delivery=True,
    )
    element_source: str = knob(
        MINE,
        choices=(MINE, GENERATED),
        tab="Delivery",
        doc="Whose pixels the element has. mine: its own. generated: those the model painted, with "
        "an alpha that is at least its own.",
        delivery=True,
    )


INPUTS = (
    Input(BG, "rgb", "The plate, scene-linear.", covers=(SEQUENCE, STILL)),
    *ELEMENT_INPUTS,
    Input(
        REMOVE,
        "matte",
        "1 where something is to be taken away; used where no fg is connected, or with task = "
        "removal.",
        optional=True,
        covers=(SEQUENCE, STILL),
    ),
    HOLDOUT_INPUT,
    DEPTH_INPUT,
    LIMIT_INPUT,
    PROTECT_INPUT,
)

LAYERS = (
    LayerSpec(EFFECT, doc="All of it as one layer, premultiplied: over bg it is the result."),
    LayerSpec(DIFFERENCE, doc="Result minus bg, signed; alpha is 0."),
    LayerSpec(EFFECT_MATTE, ("A",), doc="How much of a change was let in; 0: bg's sample."),
)


# --- from the header alone ------------------------------------------------------------------------


def task_of(request: Request, params: Params) -> str:
    """Return what a job does.

    Raises:
        MissingInput: Nothing that it needs is connected.
    """
    has_fg = bool(declared(request)) if not _stands_in_bg(request) else False
    has_remove, has_matte = request.input(REMOVE) is not None, request.input(FG_MATTE) is not None
    task = params.task
    if task == AUTO:
        task = COMPOSITE if has_fg else REMOVAL if has_remove else HARMONISE
        if task == HARMONISE and not has_matte:
            raise MissingInput(
                "GenComposite needs fg or remove beside bg.",
                hint="Connect fg to put an element in, or remove to take something away.",
                input="fg",
            )
    if task == COMPOSITE and not has_fg:
        raise MissingInput(
            "Knob 'task' is 'composite', but there is no fg.", hint="Connect fg.", input="fg"
        )
    if task == REMOVAL and not has_remove:
        raise MissingInput(
            "Knob 'task' is 'removal', but the matte remove is not connected.",
            hint="Connect a matte of what is to be taken away as remove.",
            input=REMOVE,
        )
    if task == HARMONISE and not (has_fg or has_matte):
        raise MissingInput(
            "Knob 'task' is 'harmonise only', but nothing says what the element is.",
            hint="Connect fg, already in place, or fg_matte where the element stands in bg.",
            input="fg",
        )
    return task


def _stands_in_bg(request: Request) -> bool:
    """Tell whether fg_matte can only mean an element that stands in bg: no fg is connected."""
    return request.input(FG_MATTE) is not None and not any(
        entry.name == "fg" or entry.name.startswith("fg.") for entry in request.inputs
    )


def check(request: Request) -> None:
    """Refuse combinations that cannot work, from the header alone.

    Raises:
        BadKnob, BadName, MissingInput, MissingFrame: See :func:`task_of`, ``parts/placeable.py``.
    """
    params: Params = parse_params(Params, request.knobs)
    task = task_of(request, params)
    if task == REMOVAL:
        return
    if not _stands_in_bg(request):
        check_placing(request, params)
        return
    matte = request.input(FG_MATTE)
    lacking = set(request.frames) - set(matte.frames) if matte is not None else set()
    if matte is not None and matte.cover == SEQUENCE and lacking:
        raise MissingFrame(
            f"Input 'fg_matte' has no frame {spell_frames(lacking)}, and the element stands in bg.",
            hint="Render the matte for every frame of the range.",
            input=FG_MATTE,
            frame=min(lacking),
        )


def element_names(request: Request, task: str) -> tuple[str, ...]:
    """Return the elements of a job, back to front; none of a removal."""
    if task == REMOVAL:
        return ()
    return (ELEMENT,) if _stands_in_bg(request) else declared(request)


def layers(request: Request) -> tuple[LayerSpec, ...]:
    """Return the layers of a request: of every element its own two."""
    params: Params = parse_params(Params, request.knobs)
    task = task_of(request, params)
    result = LayerSpec(
        RESULT,
        doc="Bg with all of it; untouched samples are bg's own.",
        whole=True,
        carries=BG,
    )
    own: list[LayerSpec] = []
    for name in element_names(request, task):
        whose = "The element" if name == ELEMENT else f"The element {name}"
        more = "" if name == ELEMENT else f"_{name}"
        own.append(LayerSpec(ELEMENT + more, doc=f"{whose}, placed and lit, premultiplied."))
        if task == COMPOSITE:
            what = "What it does to the plate, premultiplied: goes beneath it."
            own.append(LayerSpec(INTERACTION + more, doc=what))
    return (result, *LAYERS, *own, *((ORIGIN_LAYER,) if params.origin else ()))


def plan(request: Request, machine: Machine) -> Plan:
    """Estimate forwards, memory, bytes and minutes from the header alone.

    Raises:
        WeightsMissing, WeightsRefused, OutOfMemory: The video model cannot be used so.
        BadKnob: The same.
    """
    params: Params = parse_params(Params, request.knobs)
    spec = choose(SYSTEM, params, machine)
    assert spec is not None, SYSTEM.backbone
    task = task_of(request, params)
    lives = _lives(request, params, task)
    notes: tuple[str, ...] = (_UNTAUGHT,) if params.prompt.strip() else ()
    if len(lives) > 1:
        notes += (f"{len(lives)} elements are painted one after the other, back to front.",)
    lead = request.input(BG)
    if lead is None or lead.format is None:
        unknown = "The plate's size is not known yet, so there is no estimate."
        return Plan(backbone=spec.name, notes=(*notes, unknown))
    size = model_size(spec, lead.format, params.model_size)
    spans = tuple(span for alive in lives for span in plan_spans(alive, spec))
    cost = _cost(spec, size, spans, params, machine)
    count, pixels = len(request.frames), lead.format.width * lead.format.height
    return cost.plan(
        minutes=count * pixels * 4e-6 / 60 * max(1, len(lives)),
        bytes_in=count * pixels * 2 * (3 + 4 * len(lives)),
        bytes_out=count * pixels * sum(_bytes_of(layer) for layer in layers(request)),
        memory_bytes=int(1e9 + pixels * 4 * 60),
        notes=notes,
    )


def _lives(request: Request, params: Params, task: str) -> list[list[bool]]:
    """Return on which frames every step can have something to do, as far as a header tells."""
    names = element_names(request, task)
    if not names or _stands_in_bg(request):
        return [[True] * len(request.frames)]
    return [[own is not None for own in sources_of(request, params, name)] for name in names]


def _cost(
    spec: BackboneSpec,
    size: tuple[int, int],
    spans: Sequence[Span],
    params: Params,
    machine: Machine,
) -> Cost:
    """Add up what spans cost; the longest decides where things lie."""
    from gencomp_server.cost import estimate

    each = [
        estimate(
            spec,
            size,
            len(span),
            steps=steps_of(params),
            guidance=_guidance(params),
            machine=machine,
            precision=params.precision,
            cached_steps=cached_steps_of(params, machine.device),
        )
        for span in spans
    ]
    longest = max(each, key=lambda one: max(one.stage_bytes.values()))
    return replace(
        longest,
        forwards=sum(one.forwards for one in each),
        teraflops=sum(one.teraflops for one in each),
        minutes=sum(one.minutes for one in each),
    )


def _bytes_of(layer: LayerSpec) -> int:
    """Return the bytes of one pixel of a layer: a plate is taken for half, origin is float."""
    return len(layer.channels) * (4 if layer.name == ORIGIN else 2)


def _guidance(params: Params) -> float:
    """Return how far the prompt pulls: not at all where there is none."""
    return params.guidance if _texts(params)[1] is not None else 1.0


def _texts(params: Params) -> tuple[str, str | None]:
    """Return what the model reads, and what guidance pulls away from (None without guidance)."""
    told, away = (" ".join(text.split()) for text in (params.prompt, params.negative_prompt))
    if not told or params.guidance == 1 or told == away:
        return told, None
    return told, away


# --- the run -------------------------------------------------------------------------------------


def run(shot: Shot, params: Params, ctx: Context) -> Iterator[LayerFrame]:
    """Yield the layers of every frame: place, paint step by step, judge, deliver."""
    from gencomp_server.parts import compositing, placedlayers, placedreach
    from gencomp_server.parts.steps import find_places, sources_of_step

    task, backbone = task_of(shot.request, params), _backbone(ctx)
    things = _things(shot, params, ctx, task)
    places = tuple(
        ctx.stage("places", find_places, sources_of_step(shot, one), one, seeded=False)
        for one in things
    )
    steps = _steps(shot, params, backbone.spec, things, places)
    _say_what_runs(shot, params, ctx, task, things, places, steps)
    if steps:
        _check_room(shot, params, ctx, places, steps)
    asking, delivery = _asking(shot, params), _delivery(params, task)
    painted: list[Painted] = []
    judged: list[Judged] = []
    for step in steps:
        behind = tuple(compositing.left_behind(one) for one in painted)
        painted.append(compositing.paint(ctx, shot, step, behind, asking))
        judged.append(
            placedreach.judge(
                ctx, shot, params, painted[-1], asking.colour, grow_px=params.mask_grow
            )
        )
    floors = {
        one.step.name: [round(float(sigma), 6) for sigma in one.floor.sigma] for one in painted
    }
    ctx.report("noise_floor", floors)
    for one in painted:
        if one.floor.is_beyond_noise:
            ctx.warn(
                f"The model changed the picture away from '{one.step.name}', too; nothing of that "
                "is delivered."
            )
    yield from placedlayers.deliver(ctx, shot, layers(shot.request), painted, judged, delivery)


def _backbone(ctx: Context) -> Backbone:
    if ctx.backbone is None:
        raise InternalError("GenComposite was started without a video model.")
    return ctx.backbone


def _things(shot: Shot, params: Params, ctx: Context, task: str) -> tuple[Element | None, ...]:
    """Return what is put in, back to front; None alone for a removal."""
    from gencomp_server.parts import elements
    from gencomp_server.parts.steps import standing

    if task == REMOVAL:
        return (None,)
    if _stands_in_bg(shot.request):
        return (standing(ctx, shot),)
    return elements.plan_elements(ctx, shot, params)


def _steps(
    shot: Shot,
    params: Params,
    spec: BackboneSpec,
    things: Sequence[Element | None],
    places: Sequence[Places],
) -> tuple[Step, ...]:
    """Return what the model does, step by step; nothing for what is on no frame."""
    from gencomp_server.parts.lead import format_of
    from gencomp_server.parts.steps import plan_step

    lead, around = shot.only(BG), params.region == AROUND_MASK
    size = model_size(spec, format_of(lead), params.model_size)
    found = (
        plan_step(lead, thing, where, spec, size, around=around, inflate=params.inflate)
        for thing, where in zip(things, places, strict=True)
    )
    return tuple(step for step in found if step is not None)


def _asking(shot: Shot, params: Params) -> Asking:
    from gencomp_server.colour.modelrange import range_of
    from gencomp_server.parts.compositing import Asking

    return Asking(
        colour=range_of(shot.request, params.exposure),
        words=_texts(params),
        steps=steps_of(params),
        guidance=_guidance(params),
        rescale=params.guidance_rescale,
        inflate=params.inflate,
        kernel=params.inflate_kernel,
        threshold=params.inflate_threshold,
    )


def _delivery(params: Params, task: str) -> Delivery:
    from gencomp_server.parts.placedlayers import Delivery

    return Delivery(params.harmonise, params.element_source, task != HARMONISE, params.origin)


def _check_room(
    shot: Shot, params: Params, ctx: Context, places: tuple[Places, ...], steps: Sequence[Step]
) -> None:
    """Refuse a job that could deliver nothing, before a model runs for it."""
    from gencomp_protocol.frames import Box
    from gencomp_server.parts.compositing import inflate_px
    from gencomp_server.parts.pictures import some
    from gencomp_server.parts.placedreach import find_room

    def reach(step: Step) -> float:
        grown = inflate_px(params.inflate, step.box, step.size) + params.mask_grow
        return grown * Box(*step.box).height / step.size[1]

    held = some(shot, LIMIT, PROTECT)
    around = max(reach(step) for step in steps)
    if not ctx.stage("bounds", find_room, held, places, around_px=around):
        names = " and ".join(held.names)
        raise BadMatte(
            f"{names} {'leaves' if len(held.names) == 1 else 'leave'} no place around any element "
            "on any frame, so there is nothing to do.",
            hint="Widen limit, cut back protect, or check where the element goes.",
            input=held.names[0],
        )


# --- what is said --------------------------------------------------------------------------------


def _say_what_runs(
    shot: Shot,
    params: Params,
    ctx: Context,
    task: str,
    things: Sequence[Element | None],
    places: Sequence[Places],
    steps: Sequence[Step],
) -> None:
    """Report what was understood, and warn of what an artist may not expect."""
    from gencomp_server.parts import lead
    from gencomp_server.parts.steps import described
    from gencomp_server.parts.windows import count_forwards

    spec = _backbone(ctx).spec
    windows = windows_of([span for step in steps for span in step.spans], spec)
    ctx.report("task", task)
    if steps:
        lead.report_size(ctx, steps[0].size, lead.format_of(shot.only(BG)))
    ctx.report("windows", len(windows))
    ctx.report("forwards", count_forwards(1, windows, steps_of(params), _guidance(params)))
    told = {one.name: one for one in steps}
    ctx.report("prompt", params.prompt)
    ctx.report(
        "elements",
        [
            described(shot, thing, where, told.get(REMOVE if thing is None else thing.name))
            for thing, where in zip(things, places, strict=True)
        ],
    )
    for thing, where in zip(things, places, strict=True):
        if not any(where.alive):
            name = "What remove covers" if thing is None else f"Element '{thing.name}'"
            ctx.warn(f"{name} is seen on no frame, so nothing is done for it.")
    _warn_of_idle(shot, params, ctx, task)


def _warn_of_idle(shot: Shot, params: Params, ctx: Context, task: str) -> None:
    """Warn of inputs and knobs that do nothing in this job."""
    if params.prompt.strip():
        if _backbone(ctx).spec.name == "gencompositor":
            ctx.warn(_UNTAUGHT)
    elif params.negative_prompt.strip():
        ctx.warn("Knob 'negative_prompt' has no effect without a prompt.")
    if task != REMOVAL and REMOVE in shot.names:
        ctx.warn("Input 'remove' is not used, because fg is put in; take away in a job of its own.")
    if task == REMOVAL and any(name.startswith("fg") for name in shot.names):
        ctx.warn("Input 'fg' is not used, because the task is a removal.")
    if task == REMOVAL and HOLDOUT in shot.names:
        ctx.warn("Input 'holdout' is not used in a removal; protect keeps what must stay.")
    if task == REMOVAL or _stands_in_bg(shot.request):
        if DEPTH in shot.names:
            ctx.warn("Input 'depth' is not used, because no fg is placed.")
        for name in idle_knobs(params):
            ctx.warn(f"Knob '{name}' has no effect, because no fg is placed.")
    if task == HARMONISE and params.element_source == GENERATED:
        ctx.warn("Knob 'element_source' has no effect where only the element's colour changes.")


SYSTEM = System(
    name="gencomposite",
    title="GenComposite",
    doc="Puts elements of other clips into a plate, along a trajectory and at any size, with their "
    "shadows and reflections; lights an element that is in place; or takes something away.",
    inputs=INPUTS,
    params=Params,
    layers=layers,
    plan=plan,
    run=run,
    check=check,
    backbone=NEEDS_BACKBONE,
)
