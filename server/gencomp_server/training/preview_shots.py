# SPDX-License-Identifier: Apache-2.0
"""Procedural shots for the preview's weights, a batch at a time, from a seed, every layer known.

Where :mod:`gencomp_server.training.shots` makes one large shot for tests, this makes very many
small ones: places under a moving camera, one to four objects, what they leave behind, rotos as
artists draw them, the registered median of the frames, and the words for it. Everything is torch,
on any device; only chance comes from numpy. Pictures are scene-linear Rec.709 until the last step,
which brings them to the range that a model sees.

What an object does to the picture is, per channel, ``through * below + added``; so the plate is its
layers over one another, in float32, to the last step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gencomp_server.training.preview_composite import Layers, composite
from gencomp_server.training.preview_draws import Draws, column
from gencomp_server.training.preview_effects import draw_effects
from gencomp_server.training.preview_gather import gather
from gencomp_server.training.preview_kinds import Effects
from gencomp_server.training.preview_light import encode
from gencomp_server.training.preview_mattes import effect_mask, grown, keyed_frames, roto
from gencomp_server.training.preview_objects import Objects, draw_objects
from gencomp_server.training.preview_prompts import facts_of, prompts_of
from gencomp_server.training.preview_scene import Camera, draw_camera, draw_place

TASKS = ("remove", "add")
_FAMILIES = ("train", "held_out")
CHANGED = 0.02
CHANNELS = ("plate", "base", "gathered", "seen", "remove", "keep", "subject")
_STEPS = 2


@dataclass(frozen=True)
class PreviewBatch:
    """Clips for the preview's model, and what is true of them.

    Pictures are in a model's range, -1..1; masks are 0 or 1, mattes 0..1.

    Attributes:
        tasks: ``remove`` or ``add``, of each clip.
        words: The task, then what the prompt says.
        conditions: plate 3, base 3, gathered 3, seen 1, remove 1, keep 1, subject 1.
            [B,T,H,W,13].
        target: What the model is to give. [B,T,H,W,3].
        plate_light: What it is given. Scene-linear, [B,T,H,W,3].
        target_light: What it is to give. Scene-linear, [B,T,H,W,3].
        footprint: Coverage of the objects in question. [B,T,H,W,1].
        changed: True where plate and target differ, footprint or not. [B,T,H,W,1].
        effect_only: True where they differ outside the footprint. [B,T,H,W,1].
        there: Which of ``KINDS`` of effects the objects in question have. [B,7] bool.
        amount: How much of each, 0 to 1. [B,7].
        softness: Of shadows, 0 hard to 1 soft. [B].
        lean: Which way each points, -1 to the left to 1. [B,7].
        colour: Number of its colour in ``COLOURS``. [B,7].
        keyed: True for frames whose mask somebody drew; in others it is unknown. [B,T].
        effect_mask: The mask of effects before frames were left out. [B,T,H,W,1].
    """

    tasks: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]
    conditions: Tensor
    target: Tensor
    plate_light: Tensor
    target_light: Tensor
    footprint: Tensor
    changed: Tensor
    effect_only: Tensor
    there: Tensor
    amount: Tensor
    softness: Tensor
    lean: Tensor
    colour: Tensor
    keyed: Tensor
    effect_mask: Tensor

    @property
    def base(self) -> Tensor:
        """The picture that a change is predicted over. [B,T,H,W,3] in -1..1."""
        return self.conditions[..., 3:6]


@dataclass(frozen=True)
class Shots:
    """Everything that is known of a batch of shots.

    Attributes:
        layers: Clean plate, objects and effects.
        objects: Where they are.
        effects: What they leave.
        grid: x and y of the pixels in picture heights. [H,W] each.
    """

    layers: Layers
    objects: Objects
    effects: Effects
    grid: tuple[Tensor, Tensor]


def make_batch(
    seed: int,
    count: int,
    frames: int,
    size: tuple[int, int],
    families: str = "train",
    task: str | None = None,
    scarce: bool | None = None,
    device: str = "cpu",
) -> PreviewBatch:
    """Make clips.

    Args:
        seed: At least 0. Equal arguments give equal bits on one machine; a clip belongs to its
            batch, so that another ``count`` gives other clips.
        count: Clips.
        frames: Frames of each, at least 2.
        size: Lines and columns.
        families: ``train``, or ``held_out`` for textures, shapes and variants of effects that
            training never sees.
        task: ``remove``, ``add``, or None for a mixture, 55 % of it removals.
        scarce: True for objects that hide most of what is behind them all the time, False for
            ones that move on, None for a mixture.
        device: Where it is made.

    Raises:
        ValueError: An argument is out of range.
    """
    rules = {
        "seed": (seed, seed >= 0, "0 or more"),
        "count": (count, count >= 1, "1 or more"),
        "frames": (frames, frames >= 2, "2 or more"),
        "size": (size, min(size) >= 16, "of 16 lines and columns or more"),
        "families": (families, families in _FAMILIES, " or ".join(_FAMILIES)),
        "task": (task, task in (*TASKS, None), " or ".join((*TASKS, "None"))),
    }
    for name, (value, holds, allowed) in rules.items():
        if not holds:
            raise ValueError(f"Clips with {name} = {value} cannot be made: it is {allowed}.")
    draws = Draws((seed, count, frames, *size, _FAMILIES.index(families)), device)
    with torch.no_grad():
        return _conditioned(draws, count, frames, size, families, task, scarce)


def _conditioned(
    draws: Draws,
    count: int,
    frames: int,
    size: tuple[int, int],
    families: str,
    task: str | None,
    scarce: bool | None,
) -> PreviewBatch:
    clips = _chosen(draws, count, frames, size, families, task, scarce)
    plate, target = clips.codes
    pixel, adding = 1 / size[0], column(clips.adding, 5)
    step = max(1, round(size[0] / 48))
    subject = roto(draws, clips.wanted, clips.fields, pixel)
    named = column(draws.flags(0.6, count), 5)
    kept = (roto(draws, clips.others, clips.fields, pixel) > 0.5).float() * named
    edit = grown((subject > 0.1).float(), step)
    kept = kept * (1 - edit)

    difference = (plate - target).abs().amax(2, keepdim=True)
    changed = difference > CHANGED
    # Around a removed object its mask is known; where an effect is added nothing is.
    outside = difference * (1 - clips.wanted * (~adding).float())
    drawn = effect_mask(draws, outside, clips.fields, pixel)
    rough = drawn * column(draws.flags(0.3, count), 5)
    keyed = keyed_frames(draws, count, frames) | ~clips.adding[:, None]
    shown = column(keyed.float(), 5)
    remove = torch.where(adding, drawn * shown, torch.maximum(edit, rough * (1 - kept)))
    keep = torch.where(adding, (1 - drawn) * shown, kept)

    loose = column(draws.flags(0.5, count), 5)
    wide = torch.where(loose, grown(edit, step), edit)
    gathered, seen = plate.clone(), torch.ones_like(subject)
    error = draws.uniform(0, 0.35, count).square() * 2.5 * pixel
    some = (~clips.adding).nonzero()[:, 0]
    if len(some):
        hidden = torch.maximum(wide, grown(kept, step))[some]
        behind, known = gather(
            draws, clips.camera.of(some), clips.grid, plate[some], hidden, error[some]
        )
        mine = kept[some] > 0
        gathered[some] = torch.where(mine, plate[some], behind)
        seen[some] = torch.where(mine, torch.ones_like(known), known)
    share = torch.nn.functional.avg_pool2d(wide.flatten(0, 1), 3, 1, 1, count_include_pad=False)
    share = torch.maximum(share.unflatten(0, wide.shape[:2]), edit) * (1 - kept)
    base = torch.lerp(plate, gathered, share)

    def model(code: Tensor) -> Tensor:
        return code.clamp(0, 1) * 2 - 1

    given = (model(plate), model(base), model(gathered), seen, remove, keep, subject)
    return PreviewBatch(
        tasks=tuple(TASKS[int(flag)] for flag in clips.adding),
        words=clips.words,
        conditions=torch.cat(given, 2).movedim(2, -1).contiguous(),
        target=model(target).movedim(2, -1).contiguous(),
        plate_light=clips.plate.movedim(2, -1),
        target_light=clips.target.movedim(2, -1),
        footprint=clips.wanted.movedim(2, -1),
        changed=changed.movedim(2, -1),
        effect_only=(changed & (clips.wanted < 0.05)).movedim(2, -1),
        keyed=keyed,
        effect_mask=drawn.movedim(2, -1),
        **clips.facts,
    )


@dataclass(frozen=True)
class _Clips:
    """Clips as they were shot, worth looking at.

    Pictures, [B,T,C,H,W], are scene-linear; ``codes`` are plate and target encoded.
    """

    adding: Tensor
    plate: Tensor
    target: Tensor
    codes: tuple[Tensor, Tensor]
    wanted: Tensor
    others: Tensor
    fields: Tensor
    camera: Camera
    grid: tuple[Tensor, Tensor]
    words: tuple[tuple[str, ...], ...]
    facts: dict[str, Tensor]


def _chosen(
    draws: Draws,
    count: int,
    frames: int,
    size: tuple[int, int],
    families: str,
    task: str | None,
    scarce: bool | None,
) -> _Clips:
    """Make a few shots more than are wanted, and leave out those in which hardly anything is."""
    more = count + 1 + count // 6
    little = draws.flags(0.3, more)
    if scarce is not None:
        little = torch.full_like(little, scarce)
    adding = draws.flags(0.45, more)
    if task is not None:
        adding = torch.full_like(adding, task == "add")
    shots, camera = _draw(draws, more, frames, size, families, little)
    layers = shots.layers
    asked = _asked(draws, layers.there)
    mine, theirs = (column(flags.float(), 6) for flags in (asked, ~asked))
    # Of some effects only a part is wanted: the mask says which.
    wanted_part = _part(draws, shots.grid, more)[layers.clip]
    cut = (asked & adding[:, None])[layers.clip, layers.rank]
    part = torch.where(column(cut, 5), wanted_part, torch.ones_like(wanted_part))
    whole = composite(layers, layers.there, layers.there, part)
    rest = layers.there & ~asked
    without = composite(layers, rest | (layers.there & adding[:, None]), rest, part)
    plate = torch.where(column(adding, 5), without, whole)
    target = torch.where(column(adding, 5), whole, without)
    coverage = layers.coverage()
    wanted = (coverage * mine).sum(1).clamp(0, 1)
    others = (coverage * theirs).sum(1).clamp(0, 1)
    codes = encode(plate), encode(target)
    best = _worth(*codes, adding)[:count].sort().values
    words = prompts_of(draws, shots.objects, shots.effects, asked, adding)
    facts = facts_of(shots.objects, shots.effects, asked)
    return _Clips(
        adding[best],
        plate[best],
        target[best],
        (codes[0][best], codes[1][best]),
        wanted[best],
        others[best],
        layers.fields[best],
        camera.of(best),
        shots.grid,
        tuple(words[index] for index in best.tolist()),
        {name: fact[best] for name, fact in facts.items()},
    )


def _worth(plate: Tensor, target: Tensor, adding: Tensor) -> Tensor:
    """Return the numbers of clips, those first whose codes change enough. [B]."""
    difference = (plate - target).abs().amax(2)
    changed = (difference > CHANGED).float()
    share = changed.mean((1, 2, 3))
    deep = (difference * changed).sum((1, 2, 3)) / changed.sum((1, 2, 3)).clamp_min(1)
    enough = (share > torch.where(adding, 0.01, 0.02)) & (deep > 0.035)
    return (~enough).float().sort(stable=True).indices


def _draw(
    draws: Draws,
    count: int,
    frames: int,
    size: tuple[int, int],
    families: str,
    little: Tensor,
) -> tuple[Shots, Camera]:
    height, width = size
    aspect = width / height
    shutter = float(draws.uniform(0.0, 0.8, 1))
    parts = torch.arange(_STEPS, device=draws.device) / _STEPS * shutter
    times = (torch.arange(frames, device=draws.device)[:, None] + parts[None]).flatten()
    camera = draw_camera(draws, count, times, float(frames - 1), aspect)
    place = draw_place(draws, camera, height, families)
    y, x = torch.meshgrid(
        (torch.arange(height, device=draws.device) + 0.5) / height,
        (torch.arange(width, device=draws.device) + 0.5) / height,
        indexing="ij",
    )
    flat = (count, len(times), height, width)
    ux, uy = camera.unrolled(x.expand(flat), y.expand(flat))
    rest = camera.at_rest(ux, uy)
    clean = place.seen(rest, uy).unflatten(1, (frames, _STEPS)).mean(2)
    mean = clean.clamp_max(1.5).mean((1, 2, 3, 4))
    level = draws.log_uniform(0.1, 0.35, count)
    gain = (level / mean.clamp_min(1e-3)).clamp(0.3, 4.0)

    angle = draws.uniform(0, 6.2832, count)
    glare = torch.stack((angle.cos(), -0.3 - 0.7 * angle.sin().abs()), -1)
    objects = draw_objects(
        draws, camera, times, frames, height, families, little, place.fields, glare
    )
    board = objects.local(camera, ux, uy)
    drawn = objects.placed(board[0], board[1] + column(objects.lift, 4))
    drawn = drawn.unflatten(1, (frames, _STEPS)).mean(2)
    effects = draw_effects(
        draws,
        objects,
        camera,
        (ux, uy, rest, uy),
        times,
        frames,
        families,
        place.fields,
        glare,
        clean.clamp_max(2.0).mean((1, 2, 3, 4)),
    )
    lens = _lens(draws, gain, frames, x, y, aspect)
    layers = Layers.made(draws, clean, drawn, effects, objects, lens, place.fields)
    middle = camera.only(slice(0, None, _STEPS))
    last = camera.only(slice(_STEPS - 1, None, _STEPS))
    return Shots(layers, objects, effects, (x, y)), middle.between(last)


def _lens(draws: Draws, gain: Tensor, frames: int, x: Tensor, y: Tensor, aspect: float) -> Tensor:
    """Return exposure, its flicker, vignette and cast as one gain. [B,T,3,H,W]."""
    count = len(gain)
    flicker = 1 + draws.normal(count, frames) * 0.012 * draws.flags(0.3, count)[:, None]
    cast = 1 + draws.uniform(-0.18, 0.18, count, 3) * draws.flags(0.6, count)[:, None]
    dark = draws.uniform(0, 0.5, count) * draws.flags(0.5, count)
    away = ((x - aspect / 2).square() + (y - 0.5).square()) / (0.25 + aspect * aspect / 4)
    vignette = 1 - column(dark, 3) * away[None]
    over_time = (flicker * gain[:, None])[:, :, None, None, None]
    return over_time * cast[:, None, :, None, None] * vignette[:, None, None]


def _asked(draws: Draws, there: Tensor) -> Tensor:
    """Choose which objects are in question: one, sometimes more or all. [B,K] bool."""
    chance = draws.uniform(0, 1, *there.shape) - 2.0 * (~there).float()
    first = torch.zeros_like(there).scatter(1, chance.argmax(1, keepdim=True), True)
    more = draws.flags(0.35, len(there))[:, None] & draws.flags(0.6, *there.shape)
    return (first | more) & there


def _part(draws: Draws, grid: tuple[Tensor, Tensor], count: int) -> Tensor:
    """Return which part of an effect is wanted, most often all. [B,1,1,H,W]."""
    x, y = grid
    angle = draws.uniform(0, 6.2832, count)[:, None, None]
    cut = draws.uniform(-0.25, 0.25, count)[:, None, None]
    sharp = draws.log_uniform(4, 40, count)[:, None, None]
    aspect = float(x.max())
    side = (x - aspect / 2) * angle.cos() + (y - 0.6) * angle.sin() - cut
    wanted = torch.sigmoid(side * sharp)
    everything = draws.flags(0.82, count)[:, None, None]
    return torch.where(everything, torch.ones_like(wanted), wanted)[:, None, None]
