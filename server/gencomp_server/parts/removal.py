# SPDX-License-Identifier: Apache-2.0
"""The video model's half of an omnimatte: stages from plate and mattes to decoded passes.

::

    bring_to_model ─► make_trimask (one per pass) ─┐
          └─────────► encode_plate (once) ─────────┴─► sample (a group) ─► decode (one per pass)
          └─────────► there_and_back (once): what the VAE alone does to the plate

Every function here with a ``ctx`` is the body of a stage, or is called inside one. Sequences are
[T,h,w,C] at the model's size; latents float32 [1,T',C,h,w].

Source: generative-omnimatte §3.2 and its public code: the same noise for all passes.
"""

from __future__ import annotations

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
from gencomp_server.parts.captions import cut_words
from gencomp_server.parts.encoding import encode
from gencomp_server.parts.fit import to_model_frame
from gencomp_server.parts.latents import (
    backbone_of,
    decoded,
    encoded,
    tensor,
)
from gencomp_server.parts.passes import ask, ask_as_drawn
from gencomp_server.parts.pictures import coverage_of, linear
from gencomp_server.parts.windows import job_length, job_windows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.contract import Context, Shot
    from gencomp_server.parts.passes import Asked

    Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Seen:
    """The shot at the video model's size.

    Attributes:
        plate: [T,h,w,3] float32, model range.
        coverage: Every matte input, by name. [T,h,w,1] float16 each, 0..1.
    """

    plate: Any
    coverage: dict[str, Any]


@dataclass(frozen=True)
class Words:
    """What the model reads. Embeddings are [1,L,D] float32.

    Attributes:
        prompt: Of the scene without objects.
        null: Of what guidance pulls away from; None without guidance.
        cut: What of the prompt the model does not read.
    """

    prompt: Any
    null: Any
    cut: str


def to_model_range(light: Floats) -> Floats:
    """Return a plate as a model sees it. Scene-linear to [-1,1], clipped."""
    return np.asarray(np.clip(encode(light), 0, 1) * np.float32(2) - np.float32(1), np.float32)


# --- stages --------------------------------------------------------------------------------------


def bring_to_model(ctx: Context, shot: Shot, *, size: tuple[int, int]) -> Seen:
    """Bring the plate, and every matte there is, to the video model's size."""
    frames = tuple(shot.frames)
    plate = np.empty((len(frames), size[1], size[0], 3), np.float32)
    shape = (len(frames), size[1], size[0], 1)
    found = {name: np.empty(shape, np.float16) for name in shot.names if name != PLATE}
    for i, n in enumerate(frames):
        ctx.progress("model_scene", i, len(frames))
        plate[i] = to_model_range(to_model_frame(linear(shot, PLATE, n), size))
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


def embed(ctx: Context, *, backbone: str, prompt: str, null: str | None) -> Words:
    """Embed what the model reads, and find what of it is too long to be read."""
    model = backbone_of(ctx)
    limit = model.spec.architecture.text_tokens

    def embedded(words: str) -> Any:
        return model.text(words).float().cpu().numpy()

    cut = cut_words(prompt, model.count_text_tokens, limit)
    return Words(embedded(prompt), None if null is None else embedded(null), cut)


def encode_plate(ctx: Context, plate: Any, blanked: Any, *, backbone: str) -> Any:
    """Encode the plate as the model was taught to see it. Returns latents [1,T',C,h,w] float32.

    Args:
        ctx: The run's context.
        plate: [T,h,w,3] float32, model range.
        blanked: The trimask, where the model wants the plate blanked in EDIT; else None.
        backbone: The backbone's identity, for the key.
    """
    from gencomp_server.parts.conditioning import pad_frames, with_pixel_noise, zero_edit

    spec = backbone_of(ctx).spec
    length = job_length(spec, len(plate))
    padded = pad_frames(np.asarray(plate), length)
    if blanked is not None:
        padded = zero_edit(padded, pad_frames(np.asarray(blanked), length))
    if not spec.pixel_noise:
        return encoded(ctx, padded)
    noise = ctx.generator("pixel noise").standard_normal(padded.shape, np.float32)
    return encoded(ctx, with_pixel_noise(padded, noise, spec.pixel_noise))


def there_and_back(ctx: Context, plate: Any, *, backbone: str) -> Any:
    """Send the plate through the VAE and back. Returns [T,h,w,3] float16, model range."""
    from gencomp_server.parts.conditioning import pad_frames

    padded = pad_frames(np.asarray(plate), job_length(backbone_of(ctx).spec, len(plate)))
    return decoded(ctx, encoded(ctx, padded), len(plate))


def decode(ctx: Context, latents: Any, *, backbone: str, frames: int) -> Any:
    """Decode one pass's latents. Returns the job's own frames [T,h,w,3] float16, model range."""
    return decoded(ctx, latents, frames)


def sample(
    ctx: Context,
    plates: tuple[Floats, ...],
    trimasks: tuple[NDArray[np.uint8], ...],
    text: tuple[Floats, Floats | None],
    *,
    seed: int | None,
    backbone: str,
    steps: int,
    guidance: float,
) -> tuple[Floats, ...]:
    """Denoise passes that start from the same noise, side by side.

    Args:
        ctx: The run's context.
        plates: Latents of each pass's conditioning sequence. [1,T',C,h,w] float32.
        trimasks: Of each pass. [T,h,w,1] uint8.
        text: Embedding of the prompt, and of what guidance pulls away from. [1,L,D] float32.
        seed: Which noise they start from; None: the noise that all passes share.
        backbone: The backbone's identity, for the key; it holds how many go into one forward.
        steps: Denoising steps.
        guidance: 1 for none, which needs no second forward.

    Returns:
        The latents of each pass. [1,T',C,h,w] float32.
    """
    import torch

    from gencomp_server.parts.conditioning import pad_frames
    from gencomp_server.parts.sampler import denoise

    model, frames = backbone_of(ctx), len(trimasks[0])
    length = job_length(model.spec, frames)
    conditions = [
        model.condition(tensor(plate, model), pad_frames(np.asarray(trimask), length))
        for plate, trimask in zip(plates, trimasks, strict=True)
    ]
    key = "noise" if seed is None else f"noise {seed}"
    noise = ctx.generator(key).standard_normal(plates[0].shape, np.float32)
    made = denoise(
        model,
        tensor(noise, model).repeat(len(plates), 1, 1, 1, 1),
        torch.cat(conditions),
        tensor(text[0], model),
        null_text=None if text[1] is None else tensor(text[1], model),
        guidance=guidance,
        schedule=model.schedule(steps),
        windows=job_windows(model.spec, frames),
        ctx=ctx,
        batch=model.batch,
    )
    return tuple(np.asarray(one.float().cpu().numpy(), np.float32) for one in made.split(1))
