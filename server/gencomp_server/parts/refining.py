# SPDX-License-Identifier: Apache-2.0
"""A DynVFX job's rounds: what each is asked for, where its new content is, what it comes to.

::

    plate's latents ─► inverted, once ──────────┐
    texts, matte of what stands out ────────────┴─► round 1 ─► what is new? ─► keep only that
                                                        ▲                            │
                                                        └──── round 2, 3, … ◄────────┘

Every arrow is a stage. From round ``continue_from`` on another prompt, seed or matte may count;
nothing before it knows of that, so that the rounds before it are found on disk.

Source: DynVFX algorithm 1 and §4; going on from a round is this project's own (its app. C names
an edit that cannot be adjusted as the method's limit).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gencomp_protocol.errors import InternalError
from gencomp_protocol.layers import CONTINUE_MATTE, SOURCE_MATTE, TARGET_MATTE
from gencomp_server.parts import changemask, denoising, editing, inversion, newcontent
from gencomp_server.parts.captions import spell_cut
from gencomp_server.parts.editing import Edit, Source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.contract import Context, Shot
    from gencomp_server.models.backbone import Backbone
    from gencomp_server.parts.denoising import Words
    from gencomp_server.parts.editing import Round

    Bools = NDArray[Any]
    Floats = NDArray[Any]

SEGMENTER, CHANGED = "segmenter", "difference"
NOTHING = "nothing stands out"


@dataclass(frozen=True)
class Wish:
    """What a job asks for.

    Attributes:
        prompt: The finished shot.
        null: What guidance pulls away from; None without guidance.
        seed: Of the rounds.
        guidance: 1 for none.
        source_prompt: The shot as it is.
        source_objects: What stands out in it, for the segmenter.
        target_object: What is new, for the segmenter.
        change_from: What says where the new content is: the name of a matte, ``SEGMENTER`` or
            ``CHANGED``.
        preset: Name of the list of rounds.
        steps: Sampling steps from pure noise.
        keep: Which share of what stands out, and of the rest, the edit is held to, 0..1.
        inversion_steps: Steps from the plate to noise.
        cached_gb: Memory for keys and values of the plate, in 1e9 bytes.
        continue_from: Round from which the rest counts; 0 for none.
        continue_prompt: Prompt from there on; None: the same.
        continue_seed: Seed from there on; None: the same.
        last_round: Round after which the edit ends; 0 for all.
    """

    prompt: str
    null: str | None
    seed: int
    guidance: float
    source_prompt: str
    source_objects: str
    target_object: str
    change_from: str
    preset: str
    steps: int
    keep: tuple[float, float]
    inversion_steps: int
    cached_gb: float
    continue_from: int = 0
    continue_prompt: str | None = None
    continue_seed: int | None = None
    last_round: int = 0

    def is_continued(self, number: int) -> bool:
        """Tell whether a round comes after somebody went on with other wishes."""
        return 0 < self.continue_from <= number


@dataclass(frozen=True)
class Start:
    """What all rounds start from.

    Attributes:
        shot: The shot, for its mattes.
        video: The plate at the model's size. [T,h,w,3], model range.
        original: Its latents. [1,T',C,h,w] float32.
        reference: It, through the VAE. [T,h,w,3], model range.
        size: The model's width and height.
    """

    shot: Shot
    video: Any
    original: Floats
    reference: Any
    size: tuple[int, int]


@dataclass(frozen=True)
class Refined:
    """What the rounds came to.

    Attributes:
        latents: Of the plate with the new content. [1,T',C,h,w] float32.
        matte: Where that is, at the model's size. [T,h,w] bool.
        marks: Where it is in the latents. [T',h',w'] bool.
        is_drawn: True where somebody drew the matte, so that nothing may come outside it.
    """

    latents: Floats
    matte: Bools
    marks: Bools
    is_drawn: bool


# --- a job ---------------------------------------------------------------------------------------


def refine(ctx: Context, start: Start, wish: Wish) -> Refined:
    """Run the rounds of a job.

    Raises:
        ToolFailed: The segmenter fails.
        DiskFull: There is no room for the plate's latents.
    """
    source = _source(ctx, start, wish)
    backbone, keys = _backbone(ctx), editing.source_keys()
    latents, told, drawn = start.original, [], False
    matte = marks = changemask.no_marks(start.original)
    for one in editing.plan_rounds(wish.preset, wish.steps, wish.last_round):
        edit = _edit(ctx, wish, one.number)
        edited = editing.run_round(
            ctx,
            one,
            latents,
            source,
            edit,
            backbone=backbone.identity,
            frames=len(start.video),
            steps=wish.steps,
            preset=wish.preset,
            guidance=wish.guidance,
            keep=wish.keep,
            cached_gb=wish.cached_gb,
            keys=keys,
        )
        matte, drawn = _new_content(ctx, start, wish, one, edited)
        marks = _marks(ctx, matte)
        parts = (start.original, edited, marks)
        latents = ctx.made_of(editing.compose(*parts), *parts)
        told.append(_told(one, edit, matte, marks))
    ctx.report("rounds", told)
    if not marks.any():
        ctx.warn("No new content was found in the last round, so the delivery is the plate.")
    return Refined(latents, matte, marks, drawn)


def matte_of(ctx: Context, shot: Shot, name: str, size: tuple[int, int]) -> Bools | None:
    """Return a matte drawn by hand at the model's size, None where there is none. [T,h,w] bool.

    Raises:
        BadMatte: It covers nothing.
    """
    if name not in shot.names:
        return None
    return ctx.stage("mattes", newcontent.drawn, shot.only(name), seeded=False, size=size)


def check_mattes(ctx: Context, shot: Shot, size: tuple[int, int]) -> None:
    """Refuse mattes drawn by hand that cover nothing, before a model runs.

    Raises:
        BadMatte: Which.
    """
    for name in (SOURCE_MATTE, TARGET_MATTE, CONTINUE_MATTE):
        matte_of(ctx, shot, name, size)


def _backbone(ctx: Context) -> Backbone:
    if ctx.backbone is None:
        raise InternalError("An edit by text was started without a video model.")
    return ctx.backbone


def _marks(ctx: Context, matte: Bools) -> Bools:
    encode = _backbone(ctx).encode_identity
    return ctx.stage("marks", changemask.latent_marks, matte, seeded=False, backbone=encode)


# --- what the rounds look at ---------------------------------------------------------------------


def _source(ctx: Context, start: Start, wish: Wish) -> Source:
    """Return the plate at every noise level, and what of it stands out."""
    where, marks = _standing_out(ctx, start, wish)  # the segmenter first: it may fail
    nothing = _read(ctx, "")
    inverted = ctx.stage(
        "invert",
        inversion.invert,
        start.original,
        nothing.prompt,
        seeded=False,
        backbone=_backbone(ctx).identity,
        frames=len(start.video),
        steps=inversion.kept_steps(wish.steps),
        inversion_steps=wish.inversion_steps,
    )
    ctx.report("source_from", where)
    ctx.report("source_share", round(float(marks.mean()), 6))
    told = _read(ctx, wish.source_prompt, "source_prompt")
    return Source(inverted, told.prompt, marks)


def _standing_out(ctx: Context, start: Start, wish: Wish) -> tuple[str, Bools]:
    """Return who says what stands out in the plate, and where it is. [T',h,w] bool."""
    drawn = matte_of(ctx, start.shot, SOURCE_MATTE, start.size)
    if drawn is not None:
        return SOURCE_MATTE, _marks(ctx, drawn)
    words = wish.source_objects.strip()
    if not words or ctx.segmenter is None:
        return NOTHING, changemask.no_marks(start.original)
    found = _segmented(ctx, start.video, words)
    if not found.any():
        ctx.warn(f"The segmenter finds no '{words}' in the plate, so nothing of it stands out.")
    return SEGMENTER, _marks(ctx, found)


def _segmented(ctx: Context, video: Any, words: str) -> Bools:
    assert ctx.segmenter is not None, words
    return ctx.stage(
        "segment",
        newcontent.segmented,
        video,
        seeded=False,
        words=words,
        segmenter=ctx.segmenter.identity,
    )


# --- what a round is asked for -------------------------------------------------------------------


def _edit(ctx: Context, wish: Wish, number: int) -> Edit:
    """Return what a round is asked for."""
    words, seed, knob = wish.prompt, wish.seed, "prompt"
    if wish.is_continued(number):
        if wish.continue_prompt is not None:
            words, knob = wish.continue_prompt, "continue_prompt"
        if wish.continue_seed is not None:
            seed = wish.continue_seed
    told = _read(ctx, words, knob, wish.null)
    return Edit(told.prompt, told.null, seed)


def _read(ctx: Context, words: str, knob: str = "", null: str | None = None) -> Words:
    """Return a text as the model reads it; what of it is too long is said once."""
    backbone = _backbone(ctx)
    told = ctx.stage(
        "text",
        denoising.embed,
        seeded=False,
        backbone=backbone.identity,
        prompt=" ".join(words.split()),
        null=null,
    )
    limit = backbone.spec.architecture.text_tokens
    for name, cut in ((knob, told.cut), ("negative_prompt", told.null_cut)):
        if cut:
            ctx.warn(
                f"Knob '{name}' is longer than the {limit} tokens this model reads; "
                f"{spell_cut(cut)}."
            )
    return told


# --- what a round came to ------------------------------------------------------------------------


def _new_content(
    ctx: Context, start: Start, wish: Wish, one: Round, edited: Floats
) -> tuple[Bools, bool]:
    """Return where the new content of a round is, [T,h,w] bool, and whether that was drawn."""
    drawn = None
    if wish.is_continued(one.number):
        drawn = matte_of(ctx, start.shot, CONTINUE_MATTE, start.size)
    if drawn is None and wish.change_from == TARGET_MATTE:
        drawn = matte_of(ctx, start.shot, TARGET_MATTE, start.size)
    if drawn is not None:
        return drawn, True
    seen = ctx.stage(
        "look",
        denoising.decode,
        edited,
        seeded=False,
        backbone=_backbone(ctx).vae_identity,
        frames=len(start.video),
    )
    if wish.change_from == SEGMENTER:
        found = _segmented(ctx, seen, wish.target_object)
    else:
        differs = ctx.stage("differ", changemask.difference, start.reference, seen, seeded=False)
        found = differs.mask
    if not found.any():
        ctx.warn(_nothing_new(wish, one))
    return found, False


def _nothing_new(wish: Wish, one: Round) -> str:
    if wish.change_from == SEGMENTER:
        return (
            f"The segmenter finds no '{wish.target_object}' after round {one.number}, so nothing "
            "of that round is kept."
        )
    return f"Round {one.number} changes nothing that stands out from noise; nothing is kept of it."


def _told(one: Round, edit: Edit, matte: Bools, marks: Bools) -> dict[str, Any]:
    """Return what the manifest says of a round."""
    return {
        "round": one.number,
        "noise_level": one.level,
        "first_timestep": one.first,
        "steps": one.steps,
        "anchored_steps": one.anchored,
        "seed": edit.seed,
        "new_share": round(float(matte.mean()), 6),
        "latent_share": round(float(marks.mean()), 6),
    }
