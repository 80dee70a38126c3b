# SPDX-License-Identifier: Apache-2.0
"""Over++: an over-composite in, the same with the effects of its foreground out, and those alone.

Paper: overplusplus (docs/papers.md), §3 and §5.  Differs from the paper:

* its weights are not published: weights of one's own are loaded as ``overplusplus``, else Casper or
  the base model stands in, which is said; the model that ships is a draft of its own kind, which
  reads words of a table and changes the composite itself (``parts/overbase.py``);
* what the paper is silent about is in docs/decisions/0010-overplusplus-choices.md;
* delivered is not the decoded picture: only how it differs from the plate sent through the same VAE
  is carried onto the plate's own samples, inside what the artist allowed (``parts/change.py``);
* the effect comes as a layer of its own, too (``parts/effect.py``).

A roto is coverage, never a trimask: at or above ``mask_threshold`` it says EDIT, below KEEP, and
its feather bounds what is delivered. UNKNOWN are whole frames, those without an annotation, and
inside an annotated frame only what the input ``effect_unknown`` covers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gencomp_protocol.errors import BadKnob, InternalError, MissingInput
from gencomp_protocol.frames import Box, spell_frames
from gencomp_protocol.layers import (
    BG,
    DIFFERENCE,
    EFFECT,
    EFFECT_MASK,
    EFFECT_MATTE,
    EFFECT_OVER,
    EFFECT_UNDER,
    EFFECT_UNKNOWN,
    FG,
    KEEP,
    ORIGIN,
    PLATE,
    RESULT,
    LayerSpec,
)
from gencomp_protocol.request import SEQUENCE, STILL, STILLS, Request
from gencomp_server.backbones import (
    BackboneSpec,
    backbone_knob,
    cached_steps_of,
    choose,
    guidance_of,
    model_size,
    steps_of,
    why_preview,
)
from gencomp_server.contract import (
    NEEDS_BACKBONE,
    Context,
    Input,
    LayerFrame,
    Machine,
    OneOf,
    Plan,
    Shot,
    System,
    knob,
    parse_params,
)
from gencomp_server.finishing import (
    AROUND_MASK,
    GROWN_MASK,
    LIMIT_INPUT,
    ORIGIN_LAYER,
    PROTECT_INPUT,
    EffectParams,
)
from gencomp_server.models.preview_words import understand
from gencomp_server.parts.annotation import (
    BINARY_CONVENTIONS,
    EVERY_FRAME,
    KEYFRAMES_ONLY,
    NAME_A_PLACE,
    NO_MASK,
    Annotation,
    annotation,
    beyond_noise_sentence,
    bounds_sentence,
    inverted_sentence,
    is_bounded,
    keeps_unknown,
    unmasked_frames,
    unmasked_sentence,
)
from gencomp_server.parts.captions import NONE, PRESETS, caption, short_words, spell_cut
from gencomp_server.parts.passes import draft_grow_px

if TYPE_CHECKING:
    from gencomp_server.models.backbone import Backbone
    from gencomp_server.parts.change import Floor
    from gencomp_server.parts.denoising import Words

MASK_TAB = "Mask & Keyframes"
_ADD = "add"
"""The task of Over++, as the model that ships is told it."""
_NO_PROMPT = "There is no prompt, so what effect comes is up to the model."


@dataclass(frozen=True)
class Params(EffectParams):
    """Knobs of Over++; field name is knob name."""

    backbone: str = backbone_knob("overplusplus")
    prompt: str = knob(
        "",
        doc="What the effect is, in a few words or a full caption: soft shadow, turbulent wake.",
    )
    preset: str = knob(
        NONE,
        choices=tuple(PRESETS),
        doc="A usual effect, for when there is no prompt, or to go before it.",
    )
    caption: bool = knob(
        True,
        doc="Turn a few words into a full caption, which models understand better; the manifest "
        "shows it. Off: the prompt is used as it is typed.",
    )
    base_prompt: str = knob(
        "",
        doc="What guidance pulls away from: with 'calm water' here, 'more wake' means more wake.",
    )
    negative_prompt: str = knob(
        "", doc="What should not be seen; guidance pulls away from it, too."
    )
    guidance: float = knob(
        6.0,
        lo=1.0,
        hi=20.0,
        doc="How far the prompt may pull. 1: not at all, in half the time. High values shift the "
        "tone of the picture.",
    )
    guidance_rescale: float = knob(
        0.7,
        lo=0.0,
        hi=1.0,
        doc="How much of the contrast that guidance adds is taken back, 0 to 1.",
    )
    mask_frames: str = knob(
        EVERY_FRAME,
        choices=(EVERY_FRAME, KEYFRAMES_ONLY, NO_MASK),
        tab=MASK_TAB,
        doc="Where effect_mask counts. Frames without it are unknown: the model decides there. "
        "With no effect_mask connected there is no mask.",
    )
    keyframes: str = knob(
        "",
        tab=MASK_TAB,
        doc="With 'keyframes only': the frames whose mask counts, as 1001,1020-1040x10.",
    )
    mask_threshold: float = knob(
        0.5,
        lo=0.01,
        hi=1.0,
        tab=MASK_TAB,
        doc="Coverage from which the mask asks for the effect, 0 to 1.",
    )
    unknown_channel: str = knob(
        "",
        tab=MASK_TAB,
        doc="A second channel in the files of effect_mask: where it covers, the model decides by "
        "itself. As mask.green.",
    )
    fg_locked: bool = knob(
        True,
        tab="Delivery",
        doc="With fg and bg: opaque foreground keeps its own samples, so that effect_over is empty "
        "there. Off: the effect may change the foreground, too.",
        delivery=True,
    )


INPUTS = (
    OneOf(
        (
            (Input(PLATE, "rgb", "The over-composite without effects, scene-linear."),),
            (
                Input(
                    FG,
                    "rgba",
                    "The foreground, premultiplied, scene-linear.",
                    covers=(SEQUENCE, STILL),
                ),
                Input(BG, "rgb", "What lies under it, scene-linear.", covers=(SEQUENCE, STILL)),
            ),
        )
    ),
    Input(
        EFFECT_MASK,
        "matte",
        "A roto of where the effect is wanted: coverage, 1 where it is.",
        optional=True,
        covers=(SEQUENCE, STILL, STILLS),
        gaps_are_stills=True,
    ),
    Input(
        EFFECT_UNKNOWN,
        "matte",
        "1 where the mask does not say and the model decides; beside effect_mask only.",
        optional=True,
        covers=(SEQUENCE, STILL, STILLS),
        files_of=EFFECT_MASK,
        channel_knob="unknown_channel",
        gaps_are_stills=True,
    ),
    Input(
        KEEP,
        "matte",
        "1 where the plate must stay bit for bit, whatever happens.",
        optional=True,
        covers=(SEQUENCE, STILL),
    ),
    LIMIT_INPUT,
    PROTECT_INPUT,
)

LAYERS = (
    LayerSpec(EFFECT, doc="The effect alone, premultiplied: over the plate it is the result."),
    LayerSpec(DIFFERENCE, doc="Result minus plate, signed; alpha is 0."),
    LayerSpec(EFFECT_MATTE, ("A",), doc="How much of a change was let in; 0: the plate's sample."),
)
AROUND_FG = (
    LayerSpec(EFFECT_UNDER, doc="The effect beneath fg, premultiplied: goes over bg."),
    LayerSpec(EFFECT_OVER, doc="The effect on fg, premultiplied: goes over all."),
)


# --- from the header alone ------------------------------------------------------------------------


def check(request: Request) -> None:
    """Refuse combinations that cannot work, from the header alone.

    Raises:
        BadKnob, RangeMismatch, MissingFrame, MissingInput: see ``parts/annotation.py``.
    """
    params: Params = parse_params(Params, request.knobs)
    annotation(request, params.mask_frames, params.keyframes)
    unknown = request.input(EFFECT_UNKNOWN)
    if unknown is not None and request.input(EFFECT_MASK) is None:
        raise MissingInput(
            "Input 'effect_unknown' is connected without effect_mask.",
            hint="Connect effect_mask, or neither.",
            input=EFFECT_MASK,
        )
    if params.unknown_channel.strip() and unknown is None:
        raise BadKnob(
            f"Knob 'unknown_channel' names '{params.unknown_channel}', but no such matte was sent.",
            hint="Connect effect_mask, whose files hold it, or connect effect_unknown.",
            knob="unknown_channel",
        )


def layers(request: Request) -> tuple[LayerSpec, ...]:
    """Return the layers of a request: those around ``fg`` where it comes apart from ``bg``."""
    params: Params = parse_params(Params, request.knobs)
    result = LayerSpec(
        RESULT,
        doc="The plate with the effect; untouched samples are the plate's own.",
        whole=True,
        carries=BG if request.input(PLATE) is None else PLATE,
    )
    around = AROUND_FG if request.input(PLATE) is None else ()
    return (result, *LAYERS, *around, *((ORIGIN_LAYER,) if params.origin else ()))


def plan(request: Request, machine: Machine) -> Plan:
    """Estimate forwards, memory, bytes and minutes from the header alone.

    Raises:
        WeightsMissing, WeightsRefused, OutOfMemory: The video model cannot be used so.
        BadKnob: The same; or it keeps what is unknown, and without a mask all is.
    """
    from gencomp_server.cost import estimate

    params: Params = parse_params(Params, request.knobs)
    spec = choose(SYSTEM, params, machine)
    assert spec is not None, SYSTEM.backbone
    marked = annotation(request, params.mask_frames, params.keyframes)
    if spec.convention in BINARY_CONVENTIONS and not marked.frames:
        raise BadKnob(
            f"{spec.title} changes only what a mask asks for, and no mask counts on any frame, so "
            "nothing would change.",
            hint=NAME_A_PLACE,
            knob="backbone",
        )
    notes = (
        *_notes(request, params, marked, spec),
        *why_preview(SYSTEM, params, spec, machine),
    )
    lead = request.input(PLATE) or request.input(BG)
    if lead is None or lead.format is None:
        unknown = "The plate's size is not known yet, so there is no estimate."
        return Plan(backbone=spec.name, notes=(*notes, unknown))
    cost = estimate(
        spec,
        model_size(spec, lead.format, params.model_size),
        len(request.frames),
        steps=steps_of(params, spec),
        guidance=_guidance(params, spec),
        machine=machine,
        precision=params.precision,
        cached_steps=cached_steps_of(params, machine.device),
    )
    count, pixels = len(request.frames), lead.format.width * lead.format.height
    return cost.plan(
        minutes=count * pixels * 4e-6 / 60,
        bytes_in=count * pixels * 2 * _channels_in(request),
        bytes_out=count * pixels * sum(_bytes_of(layer) for layer in layers(request)),
        memory_bytes=int(1e9 + pixels * 4 * 40),
        notes=notes,
    )


def _notes(
    request: Request, params: Params, marked: Annotation, spec: BackboneSpec
) -> tuple[str, ...]:
    """Return what an artist should read before the job starts: the caption, and what may change."""
    said, warned = _words_said(params, spec)
    notes = [sentence for sentence in (said, *warned) if sentence]
    unmasked = unmasked_sentence(request, marked, params)
    if unmasked and spec.convention in BINARY_CONVENTIONS:
        notes.append(keeps_unknown(spec.title))
    elif unmasked:
        notes.append(unmasked)
    return tuple(notes)


def _channels_in(request: Request) -> int:
    return sum({PLATE: 3, BG: 3, FG: 4}.get(entry.name, 1) for entry in request.inputs)


def _bytes_of(layer: LayerSpec) -> int:
    """Return the bytes of one pixel of a layer: a plate is taken for half, origin is float."""
    return len(layer.channels) * (4 if layer.name == ORIGIN else 2)


# --- the run -------------------------------------------------------------------------------------


def run(shot: Shot, params: Params, ctx: Context) -> Iterator[LayerFrame]:
    """Yield the layers of every frame: prepare, condition, sample, decode, judge, deliver."""
    from gencomp_server.colour.modelrange import range_of
    from gencomp_server.parts import asking, denoising, finish, lead, region
    from gencomp_server.parts.pictures import some

    backbone = _backbone(ctx)
    identity, spec = backbone.identity, backbone.spec
    if spec.over_base:  # its pixels are large
        params = replace(params, mask_grow=draft_grow_px(params.mask_grow))
    marked = annotation(shot.request, params.mask_frames, params.keyframes)
    words, colour = _texts(params, spec), range_of(shot.request, params.exposure)
    size = model_size(spec, lead.format_of(shot), params.model_size)
    _say_what_runs(shot, params, ctx, marked, words, size)
    box = _region(shot, params, ctx, marked, size)

    video = ctx.stage(
        "prepare",
        lead.prepare,
        shot.only(*lead.lead(shot)),
        box=region.sides(box),
        size=size,
        colour=colour.identity,
        exposure=params.exposure,
    )
    trimask = ctx.stage(
        "trimask",
        asking.draw_trimask,
        some(shot, EFFECT_MASK, EFFECT_UNKNOWN, KEEP),
        box=region.sides(box),
        size=size,
        annotated=marked.frames,
        threshold=params.mask_threshold,
    )
    asking.check_trimask(trimask, marked, shot, params.mask_threshold, ctx)
    if spec.convention in BINARY_CONVENTIONS:
        asking.check_binary(trimask, spec.title, ctx)
    locked = params.fg_locked and PLATE not in shot.names
    reach = finish.reach(
        ctx, shot, params, annotated=marked.frames, box=box, size=size, locked=locked
    )
    text = ctx.stage("text", denoising.embed, backbone=identity, prompt=words[0], null=words[1])
    _say_what_is_cut(text, params, ctx)
    paint = _change_of if spec.over_base else _painted
    reference, made = paint(shot, params, ctx, video, trimask, text, box)
    floor = ctx.stage("noise", denoising.measure_noise, reference, made, trimask)
    _report_floor(floor, shot, params, marked, ctx)
    made_of = finish.Decoded(reference, made, floor, marked.frames, box, colour)
    judged = finish.judge(ctx, shot, params, made_of, reach)
    yield from finish.deliver(ctx, shot, layers(shot.request), judged, locked=locked)


def _painted(
    shot: Shot, params: Params, ctx: Context, video: Any, trimask: Any, text: Words, box: Box
) -> tuple[Any, Any]:
    """Return the picture through the VAE, and what the model makes of it. [T,h,w,3] float16."""
    from gencomp_server.parts import denoising
    from gencomp_server.parts.trimask import CONVENTIONS

    backbone, count = _backbone(ctx), len(shot.frames)
    spec = backbone.spec
    known = clean = ctx.stage(
        "encode", denoising.encode_clean, video, backbone=backbone.encode_identity
    )
    blanked = trimask if CONVENTIONS[spec.convention].zero_edit else None
    if blanked is not None or spec.pixel_noise:
        known = ctx.stage(
            "condition", denoising.encode_plate, video, blanked, backbone=backbone.encode_identity
        )
    (latents,) = ctx.stage(
        "sample",
        denoising.sample,
        (known,),
        (trimask,),
        (text.prompt, text.null),
        backbone=backbone.identity,
        steps=steps_of(params, spec),
        guidance=_guidance(params, spec),
        rescale=params.guidance_rescale,
    )
    reference, made = (
        ctx.stage("decode", denoising.decode, one, backbone=backbone.vae_identity, frames=count)
        for one in (clean, latents)
    )
    return reference, made


def _change_of(
    shot: Shot, params: Params, ctx: Context, video: Any, trimask: Any, text: Words, box: Box
) -> tuple[Any, Any]:
    """Return the picture, and what a model that changes a base makes of it. [T,h,w,3] float16.

    Between keyframes it is asked for the effect where the mask, as it is interpolated, bounds it.
    """
    from gencomp_server.parts import bounds, denoising, lead, overbase, region
    from gencomp_server.parts.pictures import some

    backbone, count = _backbone(ctx), len(shot.frames)
    marked, between = annotation(shot.request, params.mask_frames, params.keyframes), None
    if marked.frames and params.unknown_bound == GROWN_MASK:
        between = ctx.stage(
            "between",
            bounds.drawn_between,
            some(shot, EFFECT_MASK),
            box=region.sides(box),
            size=(video.shape[2], video.shape[1]),
            annotated=marked.frames,
        )
    fronts = shot.only(*lead.lead(shot)) if FG in lead.lead(shot) else shot.only()
    layers = ctx.stage(
        "model_base",
        overbase.effect_layers,
        fronts,
        video,
        trimask,
        between,
        box=region.sides(box),
    )
    latents = ctx.stage(
        "sample",
        denoising.sample_layers,
        overbase.as_latents(layers),
        (text.prompt, text.null),
        backbone=backbone.identity,
        frames=count,
        steps=steps_of(params, backbone.spec),
        guidance=_guidance(params, backbone.spec),
    )
    vae = backbone.vae_identity
    made = ctx.stage("decode", denoising.decode, latents, backbone=vae, frames=count)
    return video.astype("float16"), made


# --- what is said --------------------------------------------------------------------------------


def _region(
    shot: Shot, params: Params, ctx: Context, marked: Annotation, size: tuple[int, int]
) -> Box:
    """Return what of the plate the model is shown, and say it; warn of masks that look inverted."""
    from gencomp_server.parts import lead, region
    from gencomp_server.parts.pictures import some

    plate, marks = lead.format_of(shot), region.Marks(None, ())
    if marked.frames:
        masks = some(shot, EFFECT_MASK, EFFECT_UNKNOWN)
        marks = ctx.stage("masks", region.find_marks, masks, annotated=marked.frames)
        inverted = inverted_sentence(marks.shares)
        if inverted and min(marks.shares) < 1:
            ctx.warn(inverted)
    if params.region != AROUND_MASK:
        marks = replace(marks, box=None)
    box = region.region_of(marks, plate, size)
    said = region.region_sentence(box, plate)
    ctx.report("region", {"box": region.sides(box), "says": said})
    return box


def _backbone(ctx: Context) -> Backbone:
    if ctx.backbone is None:
        raise InternalError("Over++ was started without a video model.")
    return ctx.backbone


def _texts(params: Params, spec: BackboneSpec) -> tuple[str, str | None]:
    """Return what the model reads, and what guidance pulls away from (None without guidance)."""
    asked = short_words(params.prompt, params.preset)
    away = [" ".join(words.split()) for words in (params.base_prompt, params.negative_prompt)]
    null = ". ".join(words for words in away if words)
    if spec.over_base:
        told = _of_table(asked)
        null = _of_table(null)
    else:
        told = caption(asked) if params.caption else asked
    return told, None if _guidance(params, spec) == 1 else null


def _of_table(words: str) -> str:
    """Return what the model that ships reads of words: those it knows, its task first."""
    return " ".join(understand(words, _ADD).words)


def _guidance(params: Params, spec: BackboneSpec) -> float:
    """Return how far the prompt pulls on a model."""
    return guidance_of(params.guidance, spec)


def _words_said(params: Params, spec: BackboneSpec) -> tuple[str, tuple[str, ...]]:
    """Return what becomes of the prompt, and what the artist is warned of."""
    told, asked = _texts(params, spec)[0], short_words(params.prompt, params.preset)
    if not spec.over_base:
        return (f"Caption: {told}", ()) if told else ("", (_NO_PROMPT,))
    read, most = understand(asked, _ADD), spec.architecture.text_tokens - 1
    known = " ".join(read.words[1:])
    said = f"Words that {spec.name} reads: {known}." if known else ""
    warned = []
    if not known:
        warned.append(f"Of the prompt {spec.name} reads nothing." if asked else _NO_PROMPT)
    if read.unknown:
        warned.append(f"Not among the words of {spec.name}: {', '.join(read.unknown)}.")
    if read.left_out:
        left = ", ".join(read.left_out)
        warned.append(f"Beyond the {most} words that {spec.name} reads: {left}.")
    return said, tuple(warned)


def _say_what_runs(
    shot: Shot,
    params: Params,
    ctx: Context,
    marked: Annotation,
    words: tuple[str, str | None],
    size: tuple[int, int],
) -> None:
    """Report what was understood, and warn of what an artist may not expect."""
    from gencomp_server.parts import lead

    ctx.report("caption", words[0])
    ctx.report("guidance_pulls_away_from", words[1])
    lead.report_size(ctx, size, lead.format_of(shot))
    ctx.report("mask_frames", marked.mode)
    ctx.report("annotated_frames", spell_frames(marked.frames))
    ctx.report("unknown_frames", spell_frames(unmasked_frames(shot.request, marked)))
    ctx.report("bounds", bounds_sentence(shot.request, marked, params))
    ctx.report("forwards", _forwards(len(shot.frames), params, ctx))
    if PLATE in shot.names and (FG in shot.names or BG in shot.names):
        ctx.warn("Inputs fg and bg are not used, because plate is connected.")
    for sentence in _words_said(params, _backbone(ctx).spec)[1]:
        ctx.warn(sentence)
    idle = [name for name in ("base_prompt", "negative_prompt") if getattr(params, name).strip()]
    if words[1] is None and idle:
        ctx.warn(f"Knob 'guidance' is 1, so {' and '.join(idle)} has no effect.")
    if marked.mode == NO_MASK and EFFECT_UNKNOWN in shot.names:
        ctx.warn("Input 'effect_unknown' is not used, because no mask counts.")
    unmasked = unmasked_sentence(shot.request, marked, params)
    if (
        unmasked
        and not is_bounded(marked, params.unknown_bound)
        and _backbone(ctx).spec.convention not in BINARY_CONVENTIONS
    ):
        ctx.warn(unmasked)
    if params.keyframes.strip() and marked.mode != KEYFRAMES_ONLY:
        ctx.warn(f"Knob 'keyframes' is not used, because the mask counts on: {marked.mode}.")


def _forwards(frames: int, params: Params, ctx: Context) -> int:
    from gencomp_server.parts.windows import count_forwards, job_windows

    spec = _backbone(ctx).spec
    spans = job_windows(spec, frames)
    ctx.report("windows", len(spans))
    return count_forwards(1, spans, steps_of(params, spec), _guidance(params, spec))


def _say_what_is_cut(text: Words, params: Params, ctx: Context) -> None:
    limit = _backbone(ctx).spec.architecture.text_tokens
    for subject, cut in (("Knob 'prompt' is", text.cut), (_null_subject(params), text.null_cut)):
        if cut:
            ctx.warn(
                f"{subject} longer than the {limit} tokens this model reads; {spell_cut(cut)}."
            )


def _null_subject(params: Params) -> str:
    """Name the knobs that guidance pulls away from; the model reads them as one text."""
    names = [n for n in ("base_prompt", "negative_prompt") if getattr(params, n).strip()]
    if len(names) == 2:
        return "Knobs 'base_prompt' and 'negative_prompt' together are"
    return f"Knob '{names[0] if names else 'base_prompt'}' is"


def _report_floor(
    floor: Floor, shot: Shot, params: Params, marked: Annotation, ctx: Context
) -> None:
    ctx.report("noise_floor", [round(float(sigma), 6) for sigma in floor.sigma])
    if floor.is_beyond_noise:
        ctx.warn(beyond_noise_sentence(shot.request, marked, params, shot.frames))


SYSTEM = System(
    name="overplusplus",
    title="Over++",
    doc="Takes an over-composite, or foreground and background, and a prompt; gives the shadow, "
    "reflection, dust, smoke, splash or wake that marries them: in the result and as a layer.",
    inputs=INPUTS,
    params=Params,
    layers=layers,
    plan=plan,
    run=run,
    check=check,
    backbone=NEEDS_BACKBONE,
)
