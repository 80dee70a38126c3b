# SPDX-License-Identifier: Apache-2.0
"""Two layers as a model that merges them is given them: a subject on black, and its new background.

The subject's picture is multiplied by its coverage as a monitor shows it, so that what is not the
subject is black; once it is latents, it is multiplied again by where it lies at their size. The
background goes in whole. Where the two belong together is the model's to say, so here nothing is
placed: pictures of one format lie as they are, another format is fitted.

Sequences are [T,h,w,C] at the model's size, in model range [-1,1]; latents are [1,T',C,h,w]
float32.

Source: split-then-merge §3.4 (eq. 1) and its public code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gencomp_protocol.errors import BadMatte, BadPicture
from gencomp_protocol.frames import Format, spell_frames
from gencomp_protocol.layers import FG, FG_MATTE
from gencomp_server.colour.modelrange import range_of
from gencomp_server.contract import check_same_format
from gencomp_server.parts.fit import to_model_frame
from gencomp_server.parts.latents import backbone_of, encoded
from gencomp_server.parts.pictures import coverage_of, linear, native
from gencomp_server.parts.windows import job_length

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.colour.modelrange import ModelRange
    from gencomp_server.contract import Context, Shot

    Floats = NDArray[np.float32]
    Rect = tuple[int, int, int, int]

FIT, FILL, AS_IT_IS = "fit", "fill", "as it is"
COVERED = 0.1
"""Coverage from which a model pixel belongs to the subject, where its latents are kept."""
_LEAST_ALPHA = 1e-4


@dataclass(frozen=True)
class Subject:
    """A subject at the model's size.

    Attributes:
        video: On black. [T,h,w,3] float32, model range.
        matte: Its coverage. [T,h,w,1] float32, 0..1.
        empty: Frames on which it covers nothing.
        solid: True where it covers every pixel of its own picture on every frame.
    """

    video: Any
    matte: Any
    empty: tuple[int, ...]
    solid: bool


# --- one picture ---------------------------------------------------------------------------------


def premultiplied(shot: Shot, n: int) -> tuple[Floats, Floats]:
    """Return one frame of ``fg``, cut out, over its own display window.

    ``fg_matte`` cuts where it is connected, whatever alpha ``fg`` has; else ``fg`` is cut already.

    Args:
        shot: With ``fg`` and, where there is one, ``fg_matte``.
        n: The frame.

    Returns:
        Light, premultiplied. [H,W,3] float32, scene-linear, finite.
        Coverage. [H,W,1] float32, 0..1.

    Raises:
        BadPicture: There is neither ``fg_matte`` nor an alpha.
        FormatMismatch: ``fg_matte`` is of another size.
    """
    light = linear(shot, FG, n)
    if FG_MATTE in shot.names:
        matte = coverage_of(shot, FG_MATTE, n)
        check_same_format(FG, _format(light), FG_MATTE, _format(matte), n)
        return light * matte, matte
    if "A" not in shot.header(FG, n).channels:
        raise BadPicture(
            f"Input 'fg' frame {n} has no alpha, so there is no telling subject from surroundings.",
            hint="Render it as premultiplied RGBA, or connect fg_matte.",
            input=FG,
            frame=n,
        )
    alpha = np.nan_to_num(native(shot, FG, n)[..., 3:].astype(np.float32), nan=0.0)
    return light, np.clip(alpha, 0, 1)


def _format(picture: Floats) -> Format:
    return Format(picture.shape[1], picture.shape[0])


def on_black(light: Floats, matte: Floats, seen: ModelRange) -> Floats:
    """Return a cut-out picture as a model sees it: its own code times its coverage.

    Args:
        light: Premultiplied. [h,w,3] float32, scene-linear.
        matte: Its coverage. [h,w,1] float32, 0..1.
        seen: How light becomes the model's.

    Returns:
        [h,w,3] float32, model range; exactly -1 where nothing is covered. Light without alpha is
        not shown.
    """
    covered = matte > _LEAST_ALPHA
    plain = np.where(covered, light / np.where(covered, matte, np.float32(1)), np.float32(0))
    code = np.clip(seen.code(plain.astype(np.float32)), 0, 1) * np.where(covered, matte, 0)
    return np.asarray(code * np.float32(2) - np.float32(1), np.float32)


def rectangle(own: Format, plate: Format, size: tuple[int, int], how: str) -> Rect:
    """Return where a picture lies in the model's: left, top, width, height, whole model pixels.

    Args:
        own: Format of the picture.
        plate: Format of the plate.
        size: Width and height of the model's picture, which shows the whole plate.
        how: ``FIT``: as large as goes into the plate, its shape kept. ``FILL``: as small as covers
            it. ``AS_IT_IS``: a pixel is as high as one of the plate. It is centred always.
    """
    wide, high = own.width * own.pixel_aspect, float(own.height)
    room = plate.width * plate.pixel_aspect, float(plate.height)
    shares = room[0] / wide, room[1] / high
    scale = {FIT: min(shares), FILL: max(shares), AS_IT_IS: 1.0}[how]
    width = max(1, round(wide * scale / room[0] * size[0]))
    height = max(1, round(high * scale / room[1] * size[1]))
    return (size[0] - width) // 2, (size[1] - height) // 2, width, height


def laid(picture: Floats, place: Rect, size: tuple[int, int]) -> Floats:
    """Lay a picture onto an empty one of the model's size. [H,W,C] -> [h,w,C], zero elsewhere."""
    left, top, width, height = place
    small = to_model_frame(picture, (width, height))
    if (left, top, width, height) == (0, 0, *size):
        return small
    canvas = np.zeros((size[1], size[0], picture.shape[2]), np.float32)
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(size[0], left + width), min(size[1], top + height)
    canvas[y0:y1, x0:x1] = small[y0 - top : y1 - top, x0 - left : x1 - left]
    return canvas


def pooled(matte: NDArray[Any], spatial: int = 8, temporal: int = 4) -> Floats:
    """Return where latents belong to a subject: wherever a pixel or frame of theirs does.

    Args:
        matte: Coverage. [T,h,w,1], 0..1, T = temporal * k + 1.
        spatial: Pixels to a latent pixel, each way.
        temporal: Frames to a latent frame after the first, which stands alone.

    Returns:
        1 where it does, else 0. [1,T',1,h/spatial,w/spatial] float32.

    Raises:
        ValueError: The sequence has no such length or size.

    Source: the public code of split-then-merge: the greatest within each cell.
    """
    frames, height, width, _ = matte.shape
    if (frames - 1) % temporal or height % spatial or width % spatial:
        raise ValueError(f"a matte {matte.shape} has no latent frames")
    covered = (np.asarray(matte)[..., 0] >= COVERED).reshape(
        frames, height // spatial, spatial, width // spatial, spatial
    )
    cells = np.asarray(covered.any(axis=(2, 4)), bool)
    rest = cells[1:].reshape(-1, temporal, *cells.shape[1:]).any(axis=1)
    found = np.concatenate([cells[:1], rest])[None, :, None]
    return np.asarray(found, np.float32)


# --- stages --------------------------------------------------------------------------------------


def prepare_subject(
    ctx: Context,
    shot: Shot,
    *,
    plate: tuple[int, int, float],
    size: tuple[int, int],
    fit: str,
    colour: str,
    exposure: float,
) -> Subject:
    """Bring ``fg`` to model size and range, on black.

    Args:
        ctx: The run's context.
        shot: With ``fg`` and, where there is one, ``fg_matte``.
        plate: Width, height and pixel aspect of the plate.
        size: The model's width and height.
        fit: See :func:`rectangle`.
        colour: Identity of the model range, for the key.
        exposure: Stops by which the model sees it brighter.

    Raises:
        BadMatte: It covers nothing, or what it covers lies outside the plate.
        BadPicture: It has no alpha and there is no matte.
        FormatMismatch: ``fg_matte`` is of another size.
    """
    seen, frames = range_of(shot.request, exposure), tuple(shot.frames)
    video = np.empty((len(frames), size[1], size[0], 3), np.float32)
    matte = np.empty((len(frames), size[1], size[0], 1), np.float32)
    solid, covers = True, False
    for i, n in enumerate(frames):
        ctx.progress("prepare fg", i, len(frames))
        light, coverage = premultiplied(shot, n)
        window = shot.header(FG, n).display_window
        own = Format(window.width, window.height, shot.header(FG, n).pixel_aspect)
        place = rectangle(own, Format(*plate), size, fit)
        matte[i] = np.clip(laid(coverage, place, size), 0, 1)
        video[i] = on_black(laid(light, place, size), matte[i], seen)
        solid &= bool((coverage >= 1).all())
        covers |= bool(coverage.any())
    empty = tuple(n for n, one in zip(frames, matte, strict=True) if not (one >= COVERED).any())
    if len(empty) == len(frames):
        raise _nothing_to_see(shot, covers)
    return Subject(video, matte, empty, solid)


def _nothing_to_see(shot: Shot, covers: bool) -> BadMatte:
    name = FG_MATTE if FG_MATTE in shot.names else FG
    where = f"frames {spell_frames(shot.frames)}"
    if covers:
        return BadMatte(
            f"What input '{name}' covers on {where} is too faint, too small or outside the plate.",
            hint="Set fg_fit to fit, or check the matte.",
            input=name,
        )
    return BadMatte(
        f"Input '{name}' covers nothing on {where}, so there is no subject.",
        hint="Check its alpha, or connect fg_matte.",
        input=name,
    )


def encode_subject(ctx: Context, subject: Subject, *, noise: float, backbone: str) -> Floats:
    """Encode a subject; outside of it its latents are 0. Returns latents.

    Args:
        ctx: The run's context.
        subject: From :func:`prepare_subject`.
        noise: Standard deviation of noise added to its pixels, in model range; 0 for none.
        backbone: The backbone's identity, for the key.
    """
    from gencomp_server.parts.conditioning import pad_frames

    spec = backbone_of(ctx).spec
    latents = _encoded(ctx, subject.video, noise, "fg noise")
    matte = pad_frames(np.asarray(subject.matte), job_length(spec, len(subject.matte)))
    return latents * pooled(matte, spec.vae_spatial, spec.vae_temporal)


def encode_noisy(ctx: Context, video: Any, *, noise: float, backbone: str) -> Floats:
    """Encode a background with noise added to its pixels, in model range. Returns latents."""
    return _encoded(ctx, video, noise, "bg noise")


def _encoded(ctx: Context, video: Any, noise: float, key: str) -> Floats:
    from gencomp_server.parts.conditioning import pad_frames, with_pixel_noise

    padded = pad_frames(np.asarray(video), job_length(backbone_of(ctx).spec, len(video)))
    if noise:
        drawn = ctx.generator(key).standard_normal(padded.shape, np.float32)
        padded = with_pixel_noise(padded, drawn, noise)
    return encoded(ctx, padded)
