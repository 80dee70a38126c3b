# SPDX-License-Identifier: Apache-2.0
"""Split-then-Merge: a moving subject and a background in, one shot with both out.

Paper: split-then-merge (docs/papers.md), §3.4.  The model says where the subject belongs, and may
adjust how it moves. Differs from the paper:

* its weights are not published: weights of one's own are loaded as ``splitthenmerge``, else the
  base stands in, whose columns for the image are copied for the background, which is said;
* delivered is not the decoded picture: how it differs from ``bg`` sent through the same VAE is
  carried onto the samples of ``bg`` (``parts/finish.py``). The manifest says how many per cent of
  the pixels are the plate's, for the model may move anything;
* sampling is by DDIM, and longer shots go by windows (docs/decisions/0024-splitthenmerge.md).

How shots are split for training is ``gencomp decompose``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gencomp_protocol.errors import InternalError
from gencomp_protocol.frames import Box, spell_frames
from gencomp_protocol.layers import (
    BG,
    DIFFERENCE,
    EFFECT,
    EFFECT_MATTE,
    FG,
    FG_MATTE,
    LIMIT,
    ORIGIN,
    PROTECT,
    RESULT,
    LayerSpec,
)
from gencomp_protocol.request import SEQUENCE, STILL, Request
from gencomp_server.backbones import backbone_knob, cached_steps_of, choose, model_size, steps_of
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

if TYPE_CHECKING:
    from gencomp_server.colour.modelrange import ModelRange
    from gencomp_server.models.backbone import Backbone
    from gencomp_server.parts.denoising import Words
    from gencomp_server.parts.merging import Subject

OWN = "own"
GUIDANCES = {"free 2": 2.0, "loose 4": 4.0, "published 6": 6.0, "strict 8": 8.0}
"""How far the text may pull, by name. Source: the public code of split-then-merge."""
_PUBLISHED = 6.0
_FITS = ("fit", "fill", "as it is")
_NO_PROMPT = "There is no prompt, so the model goes by the two pictures alone, without guidance."
# Below this many per cent the shot is rather the model's than the plate's.
_LITTLE_PLATE = 50.0


@dataclass(frozen=True)
class Params(ChangeParams):
    """Knobs of Split-then-Merge; field name is knob name."""

    backbone: str = backbone_knob("splitthenmerge")
    prompt: str = knob(
        "",
        doc="The finished shot in a sentence or two: subject, what it does, where. The model "
        "follows the pictures more than the words; raise guidance where it follows them too "
        "little.",
    )
    negative_prompt: str = knob("", doc="What should not be seen; guidance pulls away from it.")
    guidance_preset: str = knob(
        OWN,
        choices=(OWN, *GUIDANCES),
        doc="How far the prompt may pull, as the paper's authors tried it. own: as the knob "
        "guidance says.",
    )
    guidance: float = knob(
        _PUBLISHED,
        lo=1.0,
        hi=20.0,
        doc="How far the prompt may pull. 1: not at all, in half the time. High values shift the "
        "tone of the picture.",
    )
    guidance_rescale: float = knob(
        0.0,
        lo=0.0,
        hi=1.0,
        doc="How much of the contrast that guidance adds is taken back, 0 to 1.",
    )
    fg_fit: str = knob(
        _FITS[0],
        choices=_FITS,
        doc="How a subject of another format is shown to the model, centred. fit: as large as goes "
        "into the plate. fill: as small as covers it. as it is: pixel for pixel. The model has the "
        "last word on where and how large it is.",
    )
    fg_noise: float = knob(
        0.0,
        lo=0.0,
        hi=1.0,
        doc="Noise on the subject as the model sees it, about 0.37 in training: the more, the "
        "freer the model is with it. 0: none.",
    )
    bg_noise: float = knob(
        0.0,
        lo=0.0,
        hi=1.0,
        doc="The same on the background, about 0.05 in training.",
    )


INPUTS = (
    Input(
        BG,
        "rgb",
        "The background, scene-linear: the plate of the delivery.",
        covers=(SEQUENCE, STILL),
    ),
    Input(
        FG,
        "rgba",
        "The subject with its own motion: premultiplied with alpha, or any picture and fg_matte.",
        covers=(SEQUENCE, STILL),
        own_format=True,
    ),
    Input(
        FG_MATTE,
        "matte",
        "What of fg is the subject, 1 where it is; goes before its alpha.",
        optional=True,
        covers=(SEQUENCE, STILL),
        own_format=True,
    ),
    LIMIT_INPUT,
    PROTECT_INPUT,
)

LAYERS = (
    LayerSpec(
        EFFECT, doc="Subject and all it does, premultiplied: over the plate it is the result."
    ),
    LayerSpec(DIFFERENCE, doc="Result minus plate, signed; alpha is 0."),
    LayerSpec(EFFECT_MATTE, ("A",), doc="How much of a change was let in; 0: the plate's sample."),
)


# --- from the header alone ------------------------------------------------------------------------


def check(request: Request) -> None:
    """Refuse what cannot work, from the header alone.

    Raises:
        FormatMismatch: ``fg`` and ``fg_matte`` differ in size.
    """
    from gencomp_server.contract import check_same_format

    fg, matte = request.input(FG), request.input(FG_MATTE)
    if fg is not None and matte is not None:
        check_same_format(FG, fg.format, FG_MATTE, matte.format)


def layers(request: Request) -> tuple[LayerSpec, ...]:
    """Return the layers of a request."""
    params: Params = parse_params(Params, request.knobs)
    result = LayerSpec(
        RESULT,
        doc="The background with the subject in it; untouched samples are the background's own.",
        whole=True,
        carries=BG,
    )
    return (result, *LAYERS, *((ORIGIN_LAYER,) if params.origin else ()))


def plan(request: Request, machine: Machine) -> Plan:
    """Estimate forwards, memory, bytes and minutes from the header alone.

    Raises:
        WeightsMissing, WeightsRefused, OutOfMemory, BadKnob: The video model cannot be used so.
    """
    from gencomp_server.cost import estimate

    params: Params = parse_params(Params, request.knobs)
    spec = choose(SYSTEM, params, machine)
    assert spec is not None, SYSTEM.backbone
    notes = () if params.prompt.strip() else (_NO_PROMPT,)
    lead = request.input(BG)
    if lead is None or lead.format is None:
        unknown = "The plate's size is not known yet, so there is no estimate."
        return Plan(backbone=spec.name, notes=(*notes, unknown))
    cost = estimate(
        spec,
        model_size(spec, lead.format, params.model_size),
        len(request.frames),
        steps=steps_of(params),
        guidance=guidance_of(params),
        machine=machine,
        precision=params.precision,
        cached_steps=cached_steps_of(params, machine.device),
    )
    count, pixels = len(request.frames), lead.format.width * lead.format.height
    return cost.plan(
        minutes=count * pixels * 4e-6 / 60,
        bytes_in=count * pixels * 2 * sum({BG: 3, FG: 4}.get(e.name, 1) for e in request.inputs),
        bytes_out=count * pixels * sum(_bytes_of(layer) for layer in layers(request)),
        memory_bytes=int(1e9 + pixels * 4 * 40),
        notes=notes,
    )


def _bytes_of(layer: LayerSpec) -> int:
    """Return the bytes of one pixel of a layer: a plate is taken for half, origin is float."""
    return len(layer.channels) * (4 if layer.name == ORIGIN else 2)


def guidance_of(params: Params) -> float:
    """Return how far the text pulls: 1 where it says nothing that guidance could pull away from."""
    prompt, away = _texts(params)
    if prompt == away:
        return 1.0
    return GUIDANCES.get(params.guidance_preset, params.guidance)


def _texts(params: Params) -> tuple[str, str]:
    """Return what the model reads, and what guidance pulls away from."""
    prompt, away = (" ".join(words.split()) for words in (params.prompt, params.negative_prompt))
    return prompt, away


# --- the run -------------------------------------------------------------------------------------


def run(shot: Shot, params: Params, ctx: Context) -> Iterator[LayerFrame]:
    """Yield the layers of every frame: prepare, encode, merge, decode, judge, deliver."""
    from gencomp_server.colour.modelrange import range_of
    from gencomp_server.parts import finish, lead
    from gencomp_server.parts.pictures import some

    backbone, plate = _backbone(ctx), some(shot, BG, LIMIT, PROTECT)
    own = lead.format_of(plate)
    size = model_size(backbone.spec, own, params.model_size)
    box, colour = Box(0, 0, own.width - 1, own.height - 1), range_of(shot.request, params.exposure)
    _say_what_runs(shot, params, ctx, size)
    reach = finish.open_reach(ctx, plate, box=box, size=size)
    subject = _subject(shot, params, ctx, size, colour)
    reference, made, floor = _merge(plate, params, ctx, subject, box, size, colour)
    decoded = finish.Decoded(reference, made, floor, (), box, colour)
    judged = finish.judge(ctx, plate, params, decoded, reach)
    delivered = finish.deliver(ctx, plate, layers(shot.request), judged, locked=False)
    yield from _counted(delivered, shot, ctx)


def _subject(
    shot: Shot, params: Params, ctx: Context, size: tuple[int, int], colour: ModelRange
) -> Subject:
    """Return the subject as the model sees it, and say what is odd about it."""
    from gencomp_server.parts import lead, merging
    from gencomp_server.parts.pictures import some

    own = lead.format_of(some(shot, BG))
    subject = ctx.stage(
        "prepare fg",
        merging.prepare_subject,
        some(shot, FG, FG_MATTE),
        plate=(own.width, own.height, own.pixel_aspect),
        size=size,
        fit=params.fg_fit,
        colour=colour.identity,
        exposure=params.exposure,
    )
    ctx.report("frames_without_subject", spell_frames(subject.empty))
    if subject.solid:
        name = FG_MATTE if FG_MATTE in shot.names else FG
        ctx.warn(
            f"Input '{name}' covers the whole picture on every frame, so the model takes all of fg "
            "for the subject; connect fg_matte to say what is."
        )
    return subject


def _merge(
    plate: Shot,
    params: Params,
    ctx: Context,
    subject: Subject,
    box: Box,
    size: tuple[int, int],
    colour: ModelRange,
) -> tuple[Any, Any, Any]:
    """Return the plate through the VAE, what the model made, and the noise floor."""
    import numpy as np

    from gencomp_server.parts import denoising, lead, merging, region
    from gencomp_server.parts.trimask import EDIT

    backbone, count = _backbone(ctx), len(plate.frames)
    video = ctx.stage(
        "prepare",
        lead.prepare,
        plate.only(BG),
        box=region.sides(box),
        size=size,
        colour=colour.identity,
        exposure=params.exposure,
    )
    clean = given = ctx.stage(
        "encode", denoising.encode_clean, video, backbone=backbone.encode_identity
    )
    if params.bg_noise:
        given = ctx.stage(
            "encode bg",
            merging.encode_noisy,
            video,
            noise=params.bg_noise,
            backbone=backbone.encode_identity,
        )
    front = ctx.stage(
        "encode fg",
        merging.encode_subject,
        subject,
        noise=params.fg_noise,
        backbone=backbone.encode_identity,
    )
    text = _read(params, ctx)
    latents = ctx.stage(
        "sample",
        denoising.sample_layers,
        {FG: front, BG: given},
        (text.prompt, text.null),
        backbone=backbone.identity,
        frames=count,
        steps=steps_of(params),
        guidance=guidance_of(params),
        rescale=params.guidance_rescale,
    )
    reference, made = (
        ctx.stage("decode", denoising.decode, one, backbone=backbone.vae_identity, frames=count)
        for one in (clean, latents)
    )
    # The model may move anything, so nowhere is it sure that nothing was asked for.
    asked = np.full((count, size[1], size[0], 1), EDIT, np.uint8)
    floor = ctx.stage("noise", denoising.measure_noise, reference, made, asked)
    ctx.report("noise_floor", [round(float(sigma), 6) for sigma in floor.sigma])
    return reference, made, floor


def _read(params: Params, ctx: Context) -> Words:
    """Return what the model reads, and say what of it is too long."""
    from gencomp_server.parts import denoising
    from gencomp_server.parts.captions import spell_cut

    backbone = _backbone(ctx)
    prompt, away = _texts(params)
    null = None if guidance_of(params) == 1 else away
    text = ctx.stage("text", denoising.embed, backbone=backbone.identity, prompt=prompt, null=null)
    limit = backbone.spec.architecture.text_tokens
    for name, cut in (("prompt", text.cut), ("negative_prompt", text.null_cut)):
        if cut:
            ctx.warn(
                f"Knob '{name}' is longer than the {limit} tokens this model reads; "
                f"{spell_cut(cut)}."
            )
    return text


# --- what is said --------------------------------------------------------------------------------


def _backbone(ctx: Context) -> Backbone:
    if ctx.backbone is None:
        raise InternalError("Split-then-Merge was started without a video model.")
    return ctx.backbone


def _say_what_runs(shot: Shot, params: Params, ctx: Context, size: tuple[int, int]) -> None:
    """Report what was understood, and warn of what an artist may not expect."""
    from gencomp_server.parts import lead
    from gencomp_server.parts.windows import count_forwards, job_windows

    spans = job_windows(_backbone(ctx).spec, len(shot.frames))
    guidance, (prompt, away) = guidance_of(params), _texts(params)
    ctx.report("caption", prompt)
    ctx.report("guidance", guidance)
    ctx.report("guidance_pulls_away_from", None if guidance == 1 else away)
    lead.report_size(ctx, size, lead.format_of(shot.only(BG)))
    ctx.report("subject_from", FG_MATTE if FG_MATTE in shot.names else "alpha")
    ctx.report("windows", len(spans))
    ctx.report("forwards", count_forwards(1, spans, steps_of(params), guidance))
    if not prompt:
        ctx.warn(_NO_PROMPT if guidance == 1 else "There is no prompt.")
    if guidance == 1 and away and prompt != away:
        ctx.warn("Knob 'guidance' is 1, so negative_prompt has no effect.")
    if params.guidance_preset != OWN and params.guidance != _PUBLISHED:
        ctx.warn(
            f"Knob 'guidance' is not used, because guidance_preset is {params.guidance_preset}."
        )


def _counted(delivered: Iterator[LayerFrame], shot: Shot, ctx: Context) -> Iterator[LayerFrame]:
    """Pass frames on and report how many per cent of their pixels are the plate's own.

    A still's time code is that of one frame, so frames over a still have those of ``fg``.
    """
    import numpy as np

    entry, shares = shot.request.input(BG), list[float]()
    for picture in delivered:
        if picture.layer == EFFECT_MATTE:
            shares.append(100 * float(np.mean(picture.pixels == 0)))
        if entry is not None and entry.cover == STILL:
            picture = replace(picture, metadata=shot.header(FG, picture.frame).metadata)
        yield picture
    share = round(sum(shares) / len(shares), 2)
    ctx.report("plate_share", share)
    if share < _LITTLE_PLATE:
        ctx.warn(
            f"Only {share:g} % of the pixels are the plate's own: the model may move anything; "
            "limit and protect hold it."
        )


SYSTEM = System(
    name="splitthenmerge",
    title="Split-then-Merge",
    doc="Takes a moving subject and a background shot; gives one shot with both, the subject where "
    "it belongs, with the light, shadow and motion of the place: as a result and as a layer.",
    inputs=INPUTS,
    params=Params,
    layers=layers,
    plan=plan,
    run=run,
    check=check,
    backbone=NEEDS_BACKBONE,
)
