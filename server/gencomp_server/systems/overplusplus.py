# SPDX-License-Identifier: Apache-2.0
"""Over++: an over-composite in, the same with the effects of its foreground out, and those alone.

Paper: overplusplus (docs/papers.md), §3 and §5.  Differs from the paper:

* its weights are not published: weights of one's own are loaded as ``overplusplus``, else Casper or
  the base model stands in, which is said;
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

from gencomp_protocol.errors import (
    BadKnob,
    BadMatte,
    BadPicture,
    InternalError,
    MissingFrame,
    MissingInput,
    RangeMismatch,
)
from gencomp_protocol.frames import Box, Format, frame_list, spell_frames
from gencomp_protocol.layers import (
    BG,
    DIFFERENCE,
    EFFECT,
    EFFECT_MASK,
    EFFECT_MATTE,
    EFFECT_UNKNOWN,
    FG,
    KEEP,
    PLATE,
    RESULT,
    LayerSpec,
)
from gencomp_protocol.request import SEQUENCE, STILL, STILLS, Request
from gencomp_server.backbones import (
    BackboneSpec,
    ModelParams,
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
    OneOf,
    PictureHeader,
    Plan,
    Shot,
    System,
    knob,
    parse_params,
)
from gencomp_server.parts.captions import NONE, PRESETS, caption, cut_words, short_words, spell_cut

if TYPE_CHECKING:
    from gencomp_server.models.backbone import Backbone
    from gencomp_server.parts.change import Floor

EVERY_FRAME, KEYFRAMES_ONLY, NO_MASK = "every frame", "keyframes only", "no mask"
FLOOR_MARGIN_PX = 16
"""The noise floor is measured this far, in model pixels, from what is annotated."""
BINARY_CONVENTIONS = frozenset({"fun_inpaint"})
"""Conventions with no value for UNKNOWN: such a model keeps there. Named here again beside
``parts.trimask``, because a plan is made where no picture library is loaded."""
_NO_PROMPT = "There is no prompt, so what effect comes is up to the model."
_NAME_A_PLACE = (
    "Connect effect_mask with mask_frames set to 'every frame' or 'keyframes only', or choose "
    "another backbone."
)


@dataclass(frozen=True)
class Params(ModelParams):
    """Knobs of Over++; field name is knob name."""

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
        doc="Where effect_mask counts. Frames without it are unknown: the model decides there. "
        "With no effect_mask connected there is no mask.",
    )
    keyframes: str = knob(
        "", doc="With 'keyframes only': the frames whose mask counts, as 1001,1020-1040x10."
    )
    mask_threshold: float = knob(
        0.5, lo=0.01, hi=1.0, doc="Coverage from which the mask asks for the effect, 0 to 1."
    )
    unknown_channel: str = knob(
        "",
        doc="A second channel in the files of effect_mask: where it covers, the model decides by "
        "itself. As mask.green.",
    )
    mask_grow: int = knob(
        16,
        lo=0,
        hi=256,
        doc="How far beyond the mask a change may be delivered, in model pixels.",
        delivery=True,
    )
    exposure: float = knob(
        0.0,
        lo=-8.0,
        hi=8.0,
        doc="Stops by which the model sees the plate brighter; the result keeps the plate's own "
        "exposure.",
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
)

LAYERS = (
    LayerSpec(RESULT, doc="The plate with the effect; untouched samples are the plate's own."),
    LayerSpec(EFFECT, doc="The effect alone, premultiplied: over the plate it is the result."),
    LayerSpec(DIFFERENCE, doc="Result minus plate, signed; alpha is 0."),
    LayerSpec(EFFECT_MATTE, ("A",), doc="How much of a change was let in; 0: the plate's sample."),
)


# --- what the mask says --------------------------------------------------------------------------


@dataclass(frozen=True)
class Annotation:
    """Which frames carry a mask.

    Attributes:
        mode: One of the values of the knob ``mask_frames``, after a look at what is connected.
        frames: The frames whose mask counts, rising.
    """

    mode: str
    frames: tuple[int, ...]


def annotation(request: Request, params: Params) -> Annotation:
    """Say which frames of a request carry a mask.

    Raises:
        BadKnob: The keyframes are none, or no list.
        RangeMismatch: One lies outside the range.
        MissingFrame: One has no picture of the mask.
        MissingInput: Keyframes of a mask that is not connected.
    """
    entry = request.input(EFFECT_MASK)
    if params.mask_frames == KEYFRAMES_ONLY:
        if entry is None:
            raise MissingInput(
                "Knob 'mask_frames' is 'keyframes only', but no effect_mask is connected.",
                hint="Connect it, or set mask_frames to 'no mask'.",
                input=EFFECT_MASK,
            )
        keyframes = _keyframes(request, params)
        _check_pictures(
            request,
            keyframes,
            f"Render them, or set keyframes to frames it has: {_frames_to_name(request)}.",
        )
        return Annotation(KEYFRAMES_ONLY, keyframes)
    if entry is None or params.mask_frames == NO_MASK:
        return Annotation(NO_MASK, ())
    _check_pictures(
        request,
        tuple(request.frames),
        "Render them; or, to have it count where it is alone, set mask_frames to 'keyframes only' "
        f"and keyframes to {_frames_to_name(request)}.",
    )
    return Annotation(EVERY_FRAME, tuple(request.frames))


def _keyframes(request: Request, params: Params) -> tuple[int, ...]:
    try:
        found = frame_list(params.keyframes)
    except BadKnob as error:
        raise BadKnob(
            f"Knob 'keyframes' is '{params.keyframes}': {error.message}",
            hint=error.hint,
            knob="keyframes",
        ) from error
    if not found:
        raise BadKnob(
            "Knob 'mask_frames' is 'keyframes only', but knob 'keyframes' names no frame.",
            hint=f"Name the frames whose mask counts, as {_frames_to_name(request)}.",
            knob="keyframes",
        )
    outside = [n for n in found if n not in request.frames]
    if outside:
        raise RangeMismatch(
            f"Knob 'keyframes' names {spell_frames(outside)}, which is not in the range "
            f"{request.frames}.",
            hint="Name frames of the range.",
            knob="keyframes",
            frame=outside[0],
        )
    return found


def _frames_to_name(request: Request) -> str:
    """Spell the frames at which a mask has pictures, as knob ``keyframes`` reads them."""
    entry = request.input(EFFECT_MASK)
    single = entry is not None and entry.cover == STILLS
    own = entry.frames if single and entry is not None else (request.frames.first,)
    return spell_frames(own).replace(" ", "")


def _check_pictures(request: Request, wanted: tuple[int, ...], cure: str) -> None:
    """Refuse frames at which a mask of single pictures has none."""
    entry = request.input(EFFECT_MASK)
    if entry is None or entry.cover != STILLS:
        return
    missing = sorted(set(wanted) - set(entry.frames))
    if missing:
        raise MissingFrame(
            f"Input 'effect_mask' has no picture at frame {spell_frames(missing)}; it has "
            f"{spell_frames(entry.frames)}.",
            hint=cure,
            input=EFFECT_MASK,
            frame=missing[0],
        )


def check(request: Request) -> None:
    """Refuse combinations that cannot work, from the header alone.

    Raises:
        BadKnob, RangeMismatch, MissingFrame, MissingInput: see :func:`annotation`.
    """
    params: Params = parse_params(Params, request.knobs)
    annotation(request, params)
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
    """Return the layers of a request: always the same."""
    return LAYERS


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
    marked = annotation(request, params)
    if spec.convention in BINARY_CONVENTIONS and not marked.frames:
        raise BadKnob(
            f"{spec.title} changes only what a mask asks for, and no mask counts on any frame, so "
            "nothing would change.",
            hint=_NAME_A_PLACE,
            knob="backbone",
        )
    notes = _notes(request, params, marked, spec)
    lead = request.input(PLATE) or request.input(BG)
    if lead is None or lead.format is None:
        unknown = "The plate's size is not known yet, so there is no estimate."
        return Plan(backbone=spec.name, notes=(*notes, unknown))
    cost = estimate(
        spec,
        model_size(spec, lead.format, params.model_size),
        len(request.frames),
        steps=steps_of(params),
        guidance=params.guidance,
        machine=machine,
        precision=params.precision,
        cached_steps=cached_steps_of(params, machine.device),
    )
    count, pixels = len(request.frames), lead.format.width * lead.format.height
    return cost.plan(
        minutes=count * pixels * 4e-6 / 60,
        bytes_in=count * pixels * 2 * _channels_in(request),
        bytes_out=count * pixels * 2 * sum(len(layer.channels) for layer in LAYERS),
        memory_bytes=int(1e9 + pixels * 4 * 40),
        notes=notes,
    )


def _notes(
    request: Request, params: Params, marked: Annotation, spec: BackboneSpec
) -> tuple[str, ...]:
    """Return what an artist should read before the job starts: the caption, and what may change."""
    told = _texts(params)[0]
    notes = [f"Caption: {told}" if told else _NO_PROMPT]
    unmasked = unmasked_sentence(request, marked)
    if unmasked and spec.convention in BINARY_CONVENTIONS:
        notes.append(_keeps_unknown(spec.title))
    elif unmasked:
        notes.append(unmasked)
    return tuple(notes)


def unmasked_sentence(request: Request, marked: Annotation) -> str:
    """Say how many frames have no mask, and what may change there; empty where all have one."""
    count, masked = len(request.frames), len(marked.frames)
    if masked == count:
        return ""
    if masked:
        verb = "has" if count - masked == 1 else "have"
        subject = f"{count - masked} of {count} frames {verb} no mask; there"
    else:
        subject = "No frame has a mask;"
    if request.input(KEEP) is not None:
        return f"{subject} the whole frame may change, except where keep covers."
    return f"{subject} the whole frame may change (keep or a mask on every frame bounds it)."


def _keeps_unknown(title: str) -> str:
    return (
        f"{title} changes only what a mask asks for: where the mask does not say, and on frames "
        "without one, it keeps the picture."
    )


def _channels_in(request: Request) -> int:
    return sum({PLATE: 3, BG: 3, FG: 4}.get(entry.name, 1) for entry in request.inputs)


# --- the run -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """What the model knows of the plate, as latents. Each [1,T',C,h,w] float32.

    Attributes:
        clean: The plate as it is: the reference of the difference.
        conditioning: The plate as this model was taught to see it, with its pixel noise.
    """

    clean: Any
    conditioning: Any


@dataclass(frozen=True)
class Words:
    """What the model reads. Embeddings are [1,L,D] float32.

    Attributes:
        prompt: Of the caption.
        null: Of what guidance pulls away from; None without guidance.
        cut: What of the caption the model does not read.
        null_cut: The same of the other.
    """

    prompt: Any
    null: Any
    cut: str
    null_cut: str


def run(shot: Shot, params: Params, ctx: Context) -> Iterator[LayerFrame]:
    """Yield the layers of every frame: prepare, condition, sample, decode, deliver."""
    backbone = _backbone(ctx)
    identity, spec = backbone.identity, backbone.spec
    marked, words = annotation(shot.request, params), _texts(params)
    pictures = shot.only(*_lead(shot))
    size = model_size(spec, _format(shot), params.model_size)
    _say_what_runs(shot, params, ctx, marked, words, size)

    video = ctx.stage("prepare", prepare, pictures, size=size, exposure=params.exposure)
    masks = shot.only(*(name for name in (EFFECT_MASK, EFFECT_UNKNOWN, KEEP) if name in shot.names))
    trimask = ctx.stage(
        "trimask",
        draw_trimask,
        masks,
        size=size,
        annotated=marked.frames,
        threshold=params.mask_threshold,
    )
    _check_trimask(trimask, marked, shot, params, ctx)
    if spec.convention in BINARY_CONVENTIONS:
        _check_binary(trimask, spec.title, ctx)
    blanked = trimask if _blanks_edit(spec.convention) else None
    known = ctx.stage("encode", encode_plate, video, blanked, backbone=backbone.encode_identity)
    text = ctx.stage("text", embed, backbone=identity, prompt=words[0], null=words[1])
    _say_what_is_cut(text, params, ctx)
    latents = ctx.stage(
        "sample",
        sample,
        known.conditioning,
        trimask,
        (text.prompt, text.null),
        backbone=identity,
        steps=steps_of(params),
        guidance=params.guidance,
        rescale=params.guidance_rescale,
    )
    count = len(shot.frames)
    reference = ctx.stage(
        "decode", decode, known.clean, backbone=backbone.vae_identity, frames=count
    )
    made = ctx.stage("decode", decode, latents, backbone=backbone.vae_identity, frames=count)
    floor = ctx.stage("noise", measure_noise, reference, made, trimask)
    _report_floor(floor, shot, marked, ctx)
    yield from deliver(_Material(shot, marked, size, reference, made, floor), params, ctx)


# --- stages --------------------------------------------------------------------------------------


def prepare(ctx: Context, shot: Shot, *, size: tuple[int, int], exposure: float) -> Any:
    """Bring the plate to model size and range. Returns [T,h,w,3] float32, -1..1."""
    import numpy as np

    from gencomp_server.parts.encoding import encode
    from gencomp_server.parts.fit import to_model_frame

    video = np.empty((len(shot.frames), size[1], size[0], 3), np.float32)
    for i, n in enumerate(shot.frames):
        ctx.progress("prepare", i, len(shot.frames))
        light = to_model_frame(_linear(shot, n), size)
        video[i] = np.clip(encode(light, exposure=exposure), 0, 1) * 2 - 1
    return video


def draw_trimask(
    ctx: Context,
    shot: Shot,
    *,
    size: tuple[int, int],
    annotated: tuple[int, ...],
    threshold: float,
) -> Any:
    """Say at model size what the model may do where. Returns [T,h,w,1] uint8 classes.

    ``keep`` wins over all; then the mask's EDIT; then what is UNKNOWN.
    """
    import numpy as np

    from gencomp_server.parts.fit import to_model_frame
    from gencomp_server.parts.pictures import coverage_of
    from gencomp_server.parts.trimask import build

    def covers(name: str, n: int, at: float = 0.5) -> Any:
        if name not in shot.names or not _has_picture(shot, name, n):
            return np.zeros((size[1], size[0], 1), bool)
        return to_model_frame(coverage_of(shot, name, n), size) >= at

    shape = (len(shot.frames), size[1], size[0], 1)
    edit, unknown, keep = (np.zeros(shape, bool) for _ in range(3))
    for i, n in enumerate(shot.frames):
        ctx.progress("trimask", i, len(shot.frames))
        keep[i] = covers(KEEP, n)
        if n in annotated:
            edit[i] = covers(EFFECT_MASK, n, threshold)
            unknown[i] = covers(EFFECT_UNKNOWN, n)
        else:
            unknown[i] = True
    return build(edit & ~keep, keep, unknown)


def encode_plate(ctx: Context, video: Any, blanked: Any, *, backbone: str) -> Known:
    """Encode the plate as it is and as the model was taught to see it.

    Args:
        ctx: The run's context.
        video: [T,h,w,3] float32, model range.
        blanked: The trimask, where the model wants the video blanked in EDIT; else None.
        backbone: The backbone's identity, for the key.
    """
    import numpy as np

    from gencomp_server.parts.conditioning import pad_frames, with_pixel_noise, zero_edit
    from gencomp_server.parts.latents import encoded
    from gencomp_server.parts.windows import job_length

    spec = _backbone(ctx).spec
    length = job_length(spec, len(video))
    padded = pad_frames(np.asarray(video), length)
    clean = encoded(ctx, padded)
    if spec.pixel_noise == 0 and blanked is None:
        return Known(clean, clean)
    if blanked is not None:
        padded = zero_edit(padded, pad_frames(np.asarray(blanked), length))
    noise = ctx.generator("pixel noise").standard_normal(padded.shape, np.float32)
    return Known(clean, encoded(ctx, with_pixel_noise(padded, noise, spec.pixel_noise)))


def embed(ctx: Context, *, backbone: str, prompt: str, null: str | None) -> Words:
    """Embed what the model reads, and find what of it is too long to be read."""
    model = _backbone(ctx)
    limit = model.spec.architecture.text_tokens

    def embedded(words: str) -> Any:
        return model.text(words).float().cpu().numpy()

    def cut(words: str) -> str:
        return cut_words(words, model.count_text_tokens, limit)

    if null is None:
        return Words(embedded(prompt), None, cut(prompt), "")
    return Words(embedded(prompt), embedded(null), cut(prompt), cut(null))


def sample(
    ctx: Context,
    conditioning: Any,
    trimask: Any,
    text: tuple[Any, Any],
    *,
    backbone: str,
    steps: int,
    guidance: float,
    rescale: float,
) -> Any:
    """Denoise. Returns latents [1,T',C,h,w] float32."""
    import numpy as np

    from gencomp_server.parts.conditioning import pad_frames
    from gencomp_server.parts.latents import tensor
    from gencomp_server.parts.sampler import denoise
    from gencomp_server.parts.windows import job_length, job_windows

    model = _backbone(ctx)
    frames = len(trimask)
    padded = pad_frames(np.asarray(trimask), job_length(model.spec, frames))
    noise = ctx.generator("noise").standard_normal(conditioning.shape, np.float32)
    latents = denoise(
        model,
        tensor(noise, model),
        model.condition(tensor(conditioning, model), padded),
        tensor(text[0], model),
        null_text=None if text[1] is None else tensor(text[1], model),
        guidance=guidance,
        rescale=rescale,
        schedule=model.schedule(steps),
        windows=job_windows(model.spec, frames),
        ctx=ctx,
        batch=model.batch,
    )
    return latents.float().cpu().numpy()


def decode(ctx: Context, latents: Any, *, backbone: str, frames: int) -> Any:
    """Decode latents. Returns the job's own frames [T,h,w,3] float16, model range."""
    from gencomp_server.parts.latents import decoded

    return decoded(ctx, latents, frames)


def measure_noise(ctx: Context, reference: Any, made: Any, trimask: Any) -> Floor:
    """Measure what the model changes where nothing was asked for."""
    import cv2
    import numpy as np

    from gencomp_server.parts.change import FLOOR_FRAMES, measure_floor
    from gencomp_server.parts.trimask import KEEP as KEEP_CLASS

    side = 2 * FLOOR_MARGIN_PX + 1
    square = np.ones((side, side), np.uint8)
    step = max(1, len(made) // FLOOR_FRAMES)

    def frames() -> Iterator[tuple[Any, Any, Any]]:
        for before, after, classes in zip(
            reference[::step], made[::step], trimask[::step], strict=True
        ):
            asked = (classes[..., 0] != KEEP_CLASS).astype(np.uint8)
            yield before, after, cv2.dilate(asked, square) > 0

    return measure_floor(frames())


# --- delivery ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Material:
    """Everything that the layers of a frame are made of; sequences are [T,h,w,3], model range."""

    shot: Shot
    marked: Annotation
    size: tuple[int, int]
    reference: Any
    made: Any
    floor: Floor


def deliver(material: _Material, params: Params, ctx: Context) -> Iterator[LayerFrame]:
    """Yield every frame's layers and report how much of each is the plate's own."""
    untouched = []
    for i, n in enumerate(material.shot.frames):
        plate, header = _native(material.shot, n)
        made = _effect(material, i, n, plate, header, params)
        window = header.display_window
        untouched.append(round(1 - made.touched / (window.width * window.height), 6))
        named = zip(LAYERS, (made.result, made.effect, made.difference, made.matte), strict=True)
        for layer, pixels in named:
            rim = plate if layer.name == RESULT else None
            yield _layer_frame(layer, n, pixels, header, rim)
    ctx.report("untouched_share_per_frame", untouched)


def _effect(
    material: _Material, i: int, n: int, plate: Any, header: PictureHeader, params: Params
) -> Any:
    """Carry one frame's change onto the plate. Returns an ``EffectFrame``."""
    import numpy as np

    from gencomp_server.parts.bounds import at_model_size
    from gencomp_server.parts.change import Changed, apply_change, find_change
    from gencomp_server.parts.effect import effect_frame
    from gencomp_server.parts.window import finite, onto_display

    own = onto_display(plate, header.data_window, header.display_window)
    bound = _bound(material, n, own.shape[:2], params)
    allowed = at_model_size(bound, material.size)
    change = find_change(material.reference[i], material.made[i], material.floor, allowed)
    if change is None:
        nothing = np.empty(0, np.intp)
        changed = Changed(nothing, np.empty((0, 3), np.float32), np.empty(0, np.float32))
    else:
        light = finite(own[..., :3])
        changed = apply_change(light, change, bound, material.floor, exposure=params.exposure)
    return effect_frame(own, changed.index, changed.colours, changed.weights)


def _bound(material: _Material, n: int, shape: tuple[int, int], params: Params) -> Any:
    """Return how much of a change may be delivered where. [H,W,1] float32, 0..1."""
    import numpy as np

    from gencomp_server.parts.bounds import grow
    from gencomp_server.parts.pictures import coverage_of

    shot = material.shot
    if n in material.marked.frames:
        bound = grow(coverage_of(shot, EFFECT_MASK, n), material.size, params.mask_grow)
        if EFFECT_UNKNOWN in shot.names and _has_picture(shot, EFFECT_UNKNOWN, n):
            bound = np.maximum(bound, coverage_of(shot, EFFECT_UNKNOWN, n))
    else:
        bound = np.ones((*shape, 1), np.float32)
    if KEEP in shot.names:
        bound = bound * (1 - coverage_of(shot, KEEP, n))
    return bound


def _layer_frame(
    layer: LayerSpec, n: int, pixels: Any, header: PictureHeader, rim: Any
) -> LayerFrame:
    """Wrap a display-window picture as the plate's frame; overscan stays in the result."""
    from gencomp_server.parts.pictures import over_data_window

    laid = over_data_window(pixels, header, rim)
    windows = (header.display_window, header.data_window, header.pixel_aspect)
    return LayerFrame(layer.name, n, laid, layer.channels, *windows, header.metadata)


# --- pictures ------------------------------------------------------------------------------------


def _lead(shot: Shot) -> tuple[str, ...]:
    """Return the inputs that the plate comes from."""
    return (PLATE,) if PLATE in shot.names else (FG, BG)


def _format(shot: Shot) -> Format:
    header = shot.header(_lead(shot)[-1])
    window = header.display_window
    return Format(window.width, window.height, header.pixel_aspect)


def _native(shot: Shot, n: int) -> tuple[Any, PictureHeader]:
    """Return the plate's own samples over its data window, or fg over bg in bg's type.

    The window of the latter holds bg's and what of fg lies inside the picture.
    """
    if PLATE in shot.names:
        return shot.frame(PLATE, n), shot.header(PLATE, n)
    import numpy as np

    from gencomp_server.parts.pictures import in_type
    from gencomp_server.parts.stack import over
    from gencomp_server.parts.window import onto_display

    front, under = shot.header(FG, n), shot.header(BG, n)
    entry = shot.request.input(BG)
    if entry is not None and entry.cover == STILL:  # A still's time code is that of one frame.
        under = replace(under, metadata=front.metadata)
    if "A" not in front.channels:
        raise BadPicture(
            f"Input 'fg' frame {n} has no alpha, so it cannot go over bg.",
            hint="Render it as premultiplied RGBA, or connect the finished composite as plate.",
            input=FG,
            frame=n,
        )
    window = _around(under.data_window, front.data_window.intersect(under.display_window))
    pairs = ((FG, front), (BG, under))
    element, below = (
        np.asarray(onto_display(shot.frame(name, n), header.data_window, window), np.float32)
        for name, header in pairs
    )
    made = in_type(over(element, below), under.pixel_type)
    return made, replace(under, data_window=window)


def _around(a: Box, b: Box | None) -> Box:
    """Return the least box that holds both: a cropped bg cuts nothing off its foreground."""
    if b is None:
        return a
    return Box(min(a.x0, b.x0), min(a.y0, b.y0), max(a.x1, b.x1), max(a.y1, b.y1))


def _linear(shot: Shot, n: int) -> Any:
    """Return the plate's colour over its display window, finite. [H,W,3] float32."""
    from gencomp_server.parts.window import finite, onto_display

    pixels, header = _native(shot, n)
    return finite(onto_display(pixels, header.data_window, header.display_window)[..., :3])


def _has_picture(shot: Shot, name: str, n: int) -> bool:
    """Tell whether a matte says anything at a frame; single pictures speak for their own."""
    entry = shot.request.input(name)
    return entry is not None and (entry.cover != STILLS or n in entry.frames)


# --- words ---------------------------------------------------------------------------------------


def _backbone(ctx: Context) -> Backbone:
    if ctx.backbone is None:
        raise InternalError("Over++ was started without a video model.")
    return ctx.backbone


def _texts(params: Params) -> tuple[str, str | None]:
    """Return what the model reads, and what guidance pulls away from (None without guidance)."""
    asked = short_words(params.prompt, params.preset)
    told = caption(asked) if params.caption else asked
    if params.guidance == 1:
        return told, None
    away = (" ".join(words.split()) for words in (params.base_prompt, params.negative_prompt))
    return told, ". ".join(words for words in away if words)


def _blanks_edit(convention: str) -> bool:
    from gencomp_server.parts.trimask import CONVENTIONS

    return CONVENTIONS[convention].zero_edit


def _say_what_runs(
    shot: Shot,
    params: Params,
    ctx: Context,
    marked: Annotation,
    words: tuple[str, str | None],
    size: tuple[int, int],
) -> None:
    """Report what was understood, and warn of what an artist may not expect."""
    unknown = [n for n in shot.frames if n not in marked.frames]
    ctx.report("caption", words[0])
    ctx.report("guidance_pulls_away_from", words[1])
    ctx.report("model_size", list(size))
    ctx.report("mask_frames", marked.mode)
    ctx.report("annotated_frames", spell_frames(marked.frames))
    ctx.report("unknown_frames", spell_frames(unknown))
    ctx.report("bounds", _bounds_sentence(shot, params, marked, unknown))
    ctx.report("forwards", _forwards(len(shot.frames), params, ctx))
    if PLATE in shot.names and (FG in shot.names or BG in shot.names):
        ctx.warn("Inputs fg and bg are not used, because plate is connected.")
    if not words[0]:
        ctx.warn(_NO_PROMPT)
    idle = [name for name in ("base_prompt", "negative_prompt") if getattr(params, name).strip()]
    if words[1] is None and idle:
        ctx.warn(f"Knob 'guidance' is 1, so {' and '.join(idle)} has no effect.")
    if marked.mode == NO_MASK and EFFECT_UNKNOWN in shot.names:
        ctx.warn("Input 'effect_unknown' is not used, because no mask counts.")
    unmasked = unmasked_sentence(shot.request, marked)
    if unmasked and _backbone(ctx).spec.convention not in BINARY_CONVENTIONS:
        ctx.warn(unmasked)
    if params.keyframes.strip() and marked.mode != KEYFRAMES_ONLY:
        ctx.warn(f"Knob 'keyframes' is not used, because the mask counts on: {marked.mode}.")


def _forwards(frames: int, params: Params, ctx: Context) -> int:
    from gencomp_server.parts.windows import count_forwards, job_windows

    spans = job_windows(_backbone(ctx).spec, frames)
    ctx.report("windows", len(spans))
    return count_forwards(1, spans, steps_of(params), params.guidance)


def _bounds_sentence(shot: Shot, params: Params, marked: Annotation, unknown: list[int]) -> str:
    keep = " outside keep" if KEEP in shot.names else ""
    said = []
    if marked.frames:
        within = f"within effect_mask grown by {params.mask_grow} model pixels"
        within += " or within effect_unknown" if EFFECT_UNKNOWN in shot.names else ""
        said.append(f"On {spell_frames(marked.frames)} a change may be {within}{keep}.")
    if unknown:
        where = keep.strip() or "anywhere in the frame"
        said.append(f"On {spell_frames(unknown)}, without a mask, a change may be {where}.")
    return " ".join(said)


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


def _report_floor(floor: Floor, shot: Shot, marked: Annotation, ctx: Context) -> None:
    ctx.report("noise_floor", [round(float(sigma), 6) for sigma in floor.sigma])
    if not floor.is_beyond_noise:
        return
    unmasked = len(shot.frames) - len(marked.frames)
    if not unmasked:
        delivered = "none of that is delivered, but look at the tone of the effect."
    elif not marked.frames:
        delivered = "where keep covers none of that is delivered, elsewhere all of it may be."
    else:
        delivered = (
            "on frames with a mask none of that is delivered, but on the "
            f"{unmasked} without one all of it may be."
        )
    ctx.warn(f"The video model changed the picture also where nothing was asked for; {delivered}")


def _check_trimask(
    trimask: Any, marked: Annotation, shot: Shot, params: Params, ctx: Context
) -> None:
    """Refuse a job in which nothing may change; warn of a mask that asks for everything.

    Raises:
        BadMatte: Nothing is asked for.
    """
    from gencomp_server.parts.trimask import EDIT
    from gencomp_server.parts.trimask import KEEP as KEEP_CLASS

    if not (trimask != KEEP_CLASS).any():
        if not marked.frames:
            words = "Input 'keep' covers the whole picture on every frame"
        elif KEEP in shot.names:
            words = "Outside keep, effect_mask asks for no effect on any frame"
        else:
            words = (
                f"Input 'effect_mask' nowhere reaches the threshold {params.mask_threshold:g} at "
                "the model's size"
            )
        raise BadMatte(
            f"{words}, so there is nothing to do.",
            hint="Widen the mask, or lower mask_threshold.",
            input=EFFECT_MASK if marked.frames else KEEP,
        )
    if marked.frames and (trimask == EDIT).all():
        ctx.warn("Input 'effect_mask' covers the whole picture: a change may be anywhere.")


def _check_binary(trimask: Any, title: str, ctx: Context) -> None:
    """Refuse or warn of what is UNKNOWN to a model that has no value for it and keeps there.

    Raises:
        BadMatte: Nothing is asked for besides.
    """
    from gencomp_server.parts.trimask import EDIT, UNKNOWN

    if not (trimask == EDIT).any():
        raise BadMatte(
            f"{title} changes only what a mask asks for, and no mask asks for the effect on any "
            "frame, so nothing would change.",
            hint=_NAME_A_PLACE,
            input=EFFECT_MASK,
        )
    if (trimask == UNKNOWN).any():
        ctx.warn(_keeps_unknown(title))


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
