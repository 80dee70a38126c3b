# SPDX-License-Identifier: Apache-2.0
"""An element, or a removal, painted into a plate by a model of layers: one step of a composite.

::

    find_places ─► plan_step ─► prepare ─► draw_masks ─┬─► masked ─┐
      where it is    spans,       bg, bg with it,      ├─► mask   ─┼─► sample ─► decode: made
      per frame      region       its alpha            │   fg     ─┘
                                   └─ there and back ──┴──────────────────────► reference

A composite is a chain of steps from back to front: each is painted into what the steps behind it
made. A step knows nothing of those in front of it, so that these can change without it.

Sequences are at the model's size, [L,h,w,C] with the L frames that a step is shown; all are in
model range [-1,1] unless said otherwise.

Source: gencompositor §4.1, eq. 3 and 4, appendix B (centred foreground), appendix C (removal).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gencomp_protocol.frames import Box
from gencomp_protocol.layers import BG, REMOVE
from gencomp_server.colour.modelrange import range_of
from gencomp_server.parts import denoising, elements, inflate
from gencomp_server.parts.fit import from_model_frame, to_model_frame
from gencomp_server.parts.latents import backbone_of, encoded
from gencomp_server.parts.lead import composite_linear
from gencomp_server.parts.pictures import coverage_of, to_model_range
from gencomp_server.parts.region import crop
from gencomp_server.parts.stack import over
from gencomp_server.parts.steps import Step, sources_of_step, visible
from gencomp_server.parts.trimask import EDIT, KEEP
from gencomp_server.parts.windows import job_length
from gencomp_server.placing import SHIPPED

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.colour.modelrange import ModelRange
    from gencomp_server.contract import Context, Shot
    from gencomp_server.parts.change import Floor
    from gencomp_server.parts.elements import Element

    Floats = NDArray[np.float32]
    Sides = tuple[int, int, int, int]

COVERED = 0.05
"""Coverage from which a pixel belongs to an element: smoke is one, too."""
_HELD = 0.5  # From so much of it on, a pixel that stands in front is not given away.
_WHITE = 1.0  # The canvas that the published model sees an element on, in model range.
_BLANK = -1.0


@dataclass(frozen=True)
class Prepared:
    """The plate of a step at the model's size.

    Attributes:
        base: Without what the step puts in. [L,h,w,3] float16, model range.
        composite: With it, as the artist placed it. [L,h,w,3] float16, model range.
        alpha: Of what is put in, or to be removed. [L,h,w,1] float16, 0..1.
        cover: The same with light that has no alpha, such as a glow. [L,h,w,1] float16, 0..1.
        held: What stands in front of it. [L,h,w,1] float16, 0..1.
    """

    base: Any
    composite: Any
    alpha: Any
    cover: Any
    held: Any


@dataclass(frozen=True)
class Painted:
    """What a step came to.

    Attributes:
        step: The step.
        alpha: As in :class:`Prepared`.
        masks: Where the model could change the picture. [L,h,w] bool.
        reference: The composite through the VAE. [L,h,w,3] float16.
        made: What the model made of it. [L,h,w,3] float16.
        floor: The noise floor.
    """

    step: Step
    alpha: Any
    masks: Any
    reference: Any
    made: Any
    floor: Floor


@dataclass(frozen=True)
class Behind:
    """What a step leaves for those in front of it to be painted into.

    Attributes:
        frames: Its frames, by their places in the shot.
        box: What of the plate the model saw.
        masks: Where it could change the picture. [L,h,w] bool.
        made: What it made. [L,h,w,3] float16, model range.
    """

    frames: tuple[int, ...]
    box: Sides
    masks: Any
    made: Any


@dataclass(frozen=True)
class Asking:
    """What is asked of the model, and how the plate becomes its.

    Attributes:
        colour: How the pictures become the model's.
        words: The prompt, and what guidance pulls away from; None without guidance.
        steps: Denoising steps.
        guidance: How far the prompt pulls.
        rescale: How much of the contrast that guidance adds is taken back.
        inflate: How far masks are inflated, in plate pixels; 0: as the published model's.
        kernel: ``shipped`` or ``normalised``.
        threshold: Of what the normalised kernel leaves; the shipped one has its own.
    """

    colour: ModelRange
    words: tuple[str, str | None]
    steps: int
    guidance: float
    rescale: float
    inflate: float
    kernel: str
    threshold: float


# --- what the model is shown ---------------------------------------------------------------------


def prepare(
    ctx: Context,
    shot: Shot,
    step: Step,
    behind: tuple[Behind, ...],
    *,
    colour: str,
    exposure: float,
) -> Prepared:
    """Bring the plate of a step to model size and range; the body of a stage.

    Args:
        ctx: The run's context.
        shot: With the inputs of :func:`steps.sources_of_step`.
        step: The step.
        behind: What the steps behind it left, the furthest first.
        colour: Identity of the model range, for the key.
        exposure: Stops by which the model sees the plate brighter.
    """
    seen, box, frames = range_of(shot.request, exposure), Box(*step.box), tuple(shot.frames)
    shape = (len(step.frames), step.size[1], step.size[0])
    base, composite = (np.empty((*shape, 3), np.float16) for _ in range(2))
    alpha, cover, held = (np.zeros((*shape, 1), np.float16) for _ in range(3))

    def small(picture: Floats) -> Floats:
        return to_model_frame(crop(picture, box), step.size)

    for j, i in enumerate(step.frames):
        ctx.progress("prepare", j, len(step.frames))
        light = composite_linear(shot.only(BG), frames[i])
        for one in behind:
            light = _with_behind(light, one, i, seen)
        base[j] = composite[j] = to_model_range(small(light), seen)
        if step.element is None:
            alpha[j] = cover[j] = small(coverage_of(shot, REMOVE, frames[i]))
            continue
        held[j] = small(np.asarray(elements.held_out(shot, step.element, i), np.float32))
        picture = visible(shot, step.element, i)
        if picture.any():
            alpha[j] = small(picture[..., 3:])
            cover[j] = small(np.clip(picture.max(axis=2, keepdims=True), 0, 1))
            composite[j] = to_model_range(small(over(picture, light)), seen)
    return Prepared(base, composite, alpha, cover, held)


def _with_behind(light: Floats, behind: Behind, i: int, seen: ModelRange) -> Floats:
    """Return the plate with what a step behind made of it, where it could. [H,W,3] float32."""
    if i not in behind.frames:
        return light
    j, box = behind.frames.index(i), Box(*behind.box)
    if not behind.masks[j].any():
        return light
    size = (box.width, box.height)
    share = from_model_frame(np.asarray(behind.masks[j], np.float32), size)[..., None]
    code = np.clip(np.asarray(behind.made[j], np.float32) * 0.5 + 0.5, 0, 1)
    made = from_model_frame(seen.light(code), size)
    result = light.copy()
    result[box.y0 : box.y1 + 1, box.x0 : box.x1 + 1] += share * (made - crop(light, box))
    return result


def draw_masks(
    ctx: Context, cover: Any, held: Any, *, inflate_px: float, kernel: str, threshold: float
) -> Any:
    """Draw where the model may change the picture, eq. 4; the body of a stage.

    Args:
        ctx: The run's context.
        cover: Of the element, or of what is removed. [L,h,w,1], 0..1.
        held: What stands in front of it: is not given away. [L,h,w,1], 0..1.
        inflate_px: How far, in model pixels.
        kernel: ``shipped`` or ``normalised``.
        threshold: Of what the kernel leaves.

    Returns:
        [L,h,w] bool; nothing on frames on which the element is not.
    """
    found = np.zeros(cover.shape[:3], bool)
    for j in range(len(cover)):
        ctx.progress("masks", j, len(cover))
        matte = np.asarray(cover[j, ..., 0] >= COVERED, bool)
        if not matte.any():
            continue
        # What is so small that cleaning leaves nothing of it is a small element, not dirt.
        clean = inflate.cleaned(matte)
        grown = inflate.inflated(
            clean if clean.any() else matte, px=inflate_px, kernel=kernel, threshold=threshold
        )
        found[j] = grown & (held[j, ..., 0] < _HELD)
    return found


def inflate_px(plate_px: float, box: Sides, size: tuple[int, int]) -> float:
    """Return how far masks are inflated in model pixels: 0 is what the published model was shown.

    Args:
        plate_px: The knob, in plate pixels.
        box: What of the plate the model sees.
        size: Its width and height.
    """
    if plate_px == 0:
        return inflate.SHIPPED_PX * size[1] / inflate.SHIPPED_LINES
    return plate_px * size[1] / Box(*box).height


def draw_foreground(
    ctx: Context,
    shot: Shot,
    element: Element,
    *,
    frames: tuple[int, ...],
    size: tuple[int, int],
    colour: str,
    exposure: float,
) -> Any:
    """Draw the element alone, centred frame by frame on white; the body of a stage.

    Args:
        ctx: The run's context.
        shot: With the element's own inputs.
        element: The element.
        frames: Which frames, by their places in the shot.
        size: The model's width and height.
        colour: Identity of the model range, for the key.
        exposure: Stops by which the model sees it brighter.

    Returns:
        [L,h,w,3] float16, model range; white where it is not.
    """
    seen = range_of(shot.request, exposure)
    found = np.full((len(frames), size[1], size[0], 3), _WHITE, np.float16)
    for j, i in enumerate(frames):
        ctx.progress("foreground", j, len(frames))
        if element.sources[i] is None:
            continue
        picture = np.asarray(elements.centred(shot, element, i, size), np.float32)
        alpha = np.clip(picture[..., 3:], 0, 1)
        colours = picture[..., :3] / np.maximum(alpha, np.float32(1e-4))
        shown = to_model_range(np.asarray(colours, np.float32), seen)
        found[j] = shown * alpha + np.float32(_WHITE) * (1 - alpha)
    return found


# --- what the model makes of it ------------------------------------------------------------------


def paint(
    ctx: Context, shot: Shot, step: Step, behind: tuple[Behind, ...], asking: Asking
) -> Painted:
    """Run the stages of a step."""
    identity = asking.colour.identity, asking.colour.exposure
    colour: dict[str, Any] = {"colour": identity[0], "exposure": identity[1]}
    own = sources_of_step(shot, step.element)
    ready = ctx.stage("prepare", prepare, own, step, behind, seeded=False, **colour)
    masks = ctx.stage(
        "masks",
        draw_masks,
        ready.cover,
        ready.held,
        seeded=False,
        inflate_px=inflate_px(asking.inflate, step.box, step.size),
        kernel=asking.kernel,
        threshold=inflate.THRESHOLD if asking.kernel == SHIPPED else asking.threshold,
    )
    shown = np.full((len(step.frames), step.size[1], step.size[0], 3), _WHITE, np.float16)
    if step.element is not None:
        shown = ctx.stage(
            "foreground",
            draw_foreground,
            shot.only(*step.element.inputs),
            step.element,
            seeded=False,
            frames=step.frames,
            size=step.size,
            **colour,
        )
    text = ctx.stage(
        "text",
        denoising.embed,
        seeded=False,
        backbone=backbone_of(ctx).identity,
        prompt=asking.words[0],
        null=asking.words[1],
    )
    references, made, start = [], [], 0
    for span in step.spans:
        part = slice(start, start + len(span))
        start += len(span)
        before, after = _painted_span(ctx, ready, masks, shown, part, text, asking)
        references.append(before)
        made.append(after)
    reference = ctx.made_of(np.concatenate(references), *references)
    sample = ctx.made_of(np.concatenate(made), *made)
    classes = np.where(np.asarray(masks), np.uint8(EDIT), np.uint8(KEEP))[..., None]
    classes = ctx.made_of(classes, masks)
    floor = ctx.stage("noise", denoising.measure_noise, reference, sample, classes)
    return Painted(step, ready.alpha, masks, reference, sample, floor)


def left_behind(painted: Painted) -> Behind:
    """Return what a step leaves for those in front of it."""
    return Behind(painted.step.frames, painted.step.box, painted.masks, painted.made)


def _painted_span(
    ctx: Context,
    ready: Prepared,
    masks: Any,
    shown: Any,
    part: slice,
    text: denoising.Words,
    asking: Asking,
) -> tuple[Any, Any]:
    """Return a span of the composite through the VAE, and of what the model made of it."""
    model = backbone_of(ctx)
    count = part.stop - part.start
    composite = ctx.made_of(np.asarray(ready.composite[part], np.float32), ready.composite)
    before = ctx.stage(
        "reference",
        denoising.there_and_back,
        composite,
        seeded=False,
        backbone=model.vae_identity,
    )
    masked, drawn = (
        ctx.stage("encode", encode_blanked, *given, seeded=False, backbone=model.encode_identity)
        for given in ((ready.base[part], masks[part]), (shown[part], None))
    )
    mask = ctx.stage(
        "latent_mask",
        latent_mask,
        masks[part],
        seeded=False,
        frames=job_length(model.spec, count),
    )
    latents = ctx.stage(
        "sample",
        denoising.sample_layers,
        {"masked": masked, "mask": mask, "fg": drawn},
        (text.prompt, text.null),
        backbone=model.identity,
        frames=count,
        steps=asking.steps,
        guidance=asking.guidance,
        rescale=asking.rescale,
    )
    after = ctx.stage(
        "decode", denoising.decode, latents, backbone=model.vae_identity, frames=count
    )
    return before, after


def encode_blanked(ctx: Context, sequence: Any, masks: Any, *, backbone: str) -> Floats:
    """Encode a sequence, black where it is masked, eq. 3; the body of a stage.

    Args:
        ctx: The run's context.
        sequence: [T,h,w,3], model range.
        masks: [T,h,w] bool; None: nothing is masked.
        backbone: The backbone's identity, for the key.

    Returns:
        Latents. [1,T',C,h,w] float32.
    """
    from gencomp_server.parts.conditioning import pad_frames

    video = np.array(sequence, np.float32)
    if masks is not None:
        video[np.asarray(masks)] = _BLANK
    return encoded(ctx, pad_frames(video, job_length(backbone_of(ctx).spec, len(video))))


def latent_mask(ctx: Context, masks: Any, *, frames: int) -> Floats:
    """Bring masks to latent frames; the body of a stage.

    Args:
        ctx: The run's context.
        masks: [T,h,w] bool.
        frames: Frames of the padded clip.

    Returns:
        1 where the model may change the picture. [1,T',1,h,w] float32.
    """
    from gencomp_server.parts.conditioning import pad_frames

    small = inflate.to_latent(pad_frames(np.asarray(masks), frames))
    return np.asarray(small, np.float32)[None, :, None]
