# SPDX-License-Identifier: Apache-2.0
"""What every system does with a video model: stages from words and a plate to decoded pictures.

::

    embed ──────────────────────────────┐
    encode_plate (as the model sees it) ─┴─► sample (passes side by side) ─► decode (one each)
    there_and_back (as it is) ─────────────► what the VAE alone does to the plate

Every function here is the body of a stage. Sequences are [T,h,w,C] at the model's size, in model
range [-1,1]; latents are [1,T',C,h,w] float32.

Source: generative-omnimatte §3.2 and its public code: the same noise for all passes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np

from gencomp_server.parts.captions import cut_words
from gencomp_server.parts.change import FLOOR_FRAMES, measure_floor
from gencomp_server.parts.latents import backbone_of, decoded, encoded, tensor
from gencomp_server.parts.trimask import KEEP
from gencomp_server.parts.windows import job_length, job_windows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from gencomp_server.contract import Context
    from gencomp_server.models.backbone import JoinsLayers
    from gencomp_server.parts.change import Floor

    Floats = NDArray[np.float32]

FLOOR_MARGIN_PX = 16
"""The noise floor is measured this far, in model pixels, from what is annotated."""


@dataclass(frozen=True)
class Words:
    """What the model reads. Embeddings are [1,L,D] float32.

    Attributes:
        prompt: Of the prompt.
        null: Of what guidance pulls away from; None without guidance.
        cut: What of the prompt the model does not read.
        null_cut: The same of the other.
    """

    prompt: Any
    null: Any
    cut: str
    null_cut: str = ""


def embed(ctx: Context, *, backbone: str, prompt: str, null: str | None) -> Words:
    """Embed what the model reads, and find what of it is too long to be read."""
    model = backbone_of(ctx)
    limit = model.spec.architecture.text_tokens

    def embedded(words: str) -> Any:
        return model.text(words).float().cpu().numpy()

    return Words(
        embedded(prompt),
        None if null is None else embedded(null),
        cut_words(prompt, model.count_text_tokens, limit),
        "" if null is None else cut_words(null, model.count_text_tokens, limit),
    )


def encode_plate(ctx: Context, plate: Any, blanked: Any, *, backbone: str) -> Floats:
    """Encode the plate as the model was taught to see it. Returns latents.

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
    if spec.pixel_noise:
        noise = ctx.generator("pixel noise").standard_normal(padded.shape, np.float32)
        padded = with_pixel_noise(padded, noise, spec.pixel_noise)
    return encoded(ctx, padded)


def encode_clean(ctx: Context, plate: Any, *, backbone: str) -> Floats:
    """Encode the plate as it is. Returns latents."""
    from gencomp_server.parts.conditioning import pad_frames

    return encoded(
        ctx, pad_frames(np.asarray(plate), job_length(backbone_of(ctx).spec, len(plate)))
    )


def there_and_back(ctx: Context, plate: Any, *, backbone: str) -> Any:
    """Send the plate through the VAE and back. Returns [T,h,w,3] float16, model range."""
    return decoded(ctx, encode_clean(ctx, plate, backbone=backbone), len(plate))


def decode(ctx: Context, latents: Any, *, backbone: str, frames: int) -> Any:
    """Decode one pass's latents. Returns the job's own frames [T,h,w,3] float16, model range."""
    return decoded(ctx, latents, frames)


def sample(
    ctx: Context,
    plates: tuple[Floats, ...],
    trimasks: tuple[NDArray[np.uint8], ...],
    text: tuple[Floats, Floats | None],
    *,
    seed: int | None = None,
    backbone: str,
    steps: int,
    guidance: float,
    rescale: float = 0.0,
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
        rescale: How much of the contrast that guidance adds is taken back, 0..1.

    Returns:
        The latents of each pass. [1,T',C,h,w] float32.
    """
    import torch

    from gencomp_server.parts.conditioning import pad_frames

    model, frames = backbone_of(ctx), len(trimasks[0])
    length = job_length(model.spec, frames)
    conditions = [
        model.condition(tensor(plate, model), pad_frames(np.asarray(trimask), length))
        for plate, trimask in zip(plates, trimasks, strict=True)
    ]
    noise = _noise(ctx, plates[0].shape, seed)
    made = _denoised(
        ctx,
        noise,
        torch.cat(conditions),
        text,
        frames,
        steps=steps,
        guidance=guidance,
        rescale=rescale,
    )
    return tuple(np.asarray(one.float().cpu().numpy(), np.float32) for one in made.split(1))


def sample_layers(
    ctx: Context,
    layers: Mapping[str, Floats],
    text: tuple[Floats, Floats | None],
    *,
    seed: int | None = None,
    backbone: str,
    frames: int,
    steps: int,
    guidance: float,
    rescale: float = 0.0,
) -> Floats:
    """Denoise one pass of a model that is given several layers of latents beside the noise.

    Args:
        ctx: The run's context.
        layers: What the model is given, by the names in its ``spec.layers``. [1,T',C,h,w] float32.
        text: Embedding of the prompt, and of what guidance pulls away from. [1,L,D] float32.
        seed: Which noise it starts from; None: the noise that all passes share.
        backbone: The backbone's identity, for the key.
        frames: The job's own frames, padding not counted.
        steps: Denoising steps.
        guidance: 1 for none, which needs no second forward.
        rescale: How much of the contrast that guidance adds is taken back, 0..1.

    Returns:
        Latents. [1,T',C,h,w] float32.
    """
    model = backbone_of(ctx)
    joined = cast("JoinsLayers", model).join({n: tensor(one, model) for n, one in layers.items()})
    shape = (1, joined.shape[1], model.spec.architecture.latent_channels, *joined.shape[3:])
    made = _denoised(
        ctx,
        _noise(ctx, shape, seed),
        joined,
        text,
        frames,
        steps=steps,
        guidance=guidance,
        rescale=rescale,
    )
    return np.asarray(made.float().cpu().numpy(), np.float32)


def _noise(ctx: Context, shape: tuple[int, ...], seed: int | None) -> Floats:
    """Return what a pass starts from; None gives what all passes share."""
    key = "noise" if seed is None else f"noise {seed}"
    return ctx.generator(key).standard_normal(shape, np.float32)


def _denoised(
    ctx: Context,
    noise: Floats,
    condition: Tensor,
    text: tuple[Floats, Floats | None],
    frames: int,
    *,
    steps: int,
    guidance: float,
    rescale: float,
) -> Tensor:
    """Run the loop over timesteps from the same noise for every pass. [B,T',C,h,w]."""
    from gencomp_server.parts.sampler import denoise

    model = backbone_of(ctx)
    return denoise(
        model,
        tensor(noise, model).repeat(len(condition), 1, 1, 1, 1),
        condition,
        tensor(text[0], model),
        null_text=None if text[1] is None else tensor(text[1], model),
        guidance=guidance,
        rescale=rescale,
        schedule=model.schedule(steps),
        windows=job_windows(model.spec, frames),
        ctx=ctx,
        batch=model.batch,
    )


def measure_noise(ctx: Context, reference: Any, made: Any, trimask: Any) -> Floor:
    """Measure what the model changes where nothing was asked for."""
    side = 2 * FLOOR_MARGIN_PX + 1
    square = np.ones((side, side), np.uint8)
    step = max(1, len(made) // FLOOR_FRAMES)

    def frames() -> Iterator[tuple[Any, Any, Any]]:
        for before, after, classes in zip(
            reference[::step], made[::step], trimask[::step], strict=True
        ):
            asked = (classes[..., 0] != KEEP).astype(np.uint8)
            yield before, after, cv2.dilate(asked, square) > 0

    return measure_floor(frames())
