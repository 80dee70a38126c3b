# SPDX-License-Identifier: Apache-2.0
"""A model that changes a base picture: what it is given, and what of it is delivered.

::

    plate, mattes ──► marks ─┐
    gathered clean plate ────┴─► layers of a removal ─► sample_layers ─► Drafted ─► place_drafted
    composite, trimask ────────► layers of an effect ─► sample_layers ─► finish.py

The base of a removal is the plate, and the gathered clean plate where an object is; the base of an
effect is the composite. Both are put together at plate size too, so that only the difference
between base and sample, small and smooth, is brought up from the model's size.

Where other frames show what is behind an object, or the ground without its shadow, they are
believed, and the model is asked about the rest: what no frame shows, and what changes so little, or
stands so still, that gathering takes it for background.

Sequences are [T,h,w,C] at the model's size, pictures in model range [-1,1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from gencomp_protocol.frames import Box
from gencomp_protocol.layers import EFFECTS_PREFIX, FG, KEEP, MATTE_PREFIX, TRIMASK
from gencomp_server.colour.modelrange import range_of
from gencomp_server.parts import trimask as classes
from gencomp_server.parts.change import LEAST_WEIGHT, Floor, apply_change, find_change
from gencomp_server.parts.fit import from_model_frame, to_model_frame
from gencomp_server.parts.gather import gather_frame
from gencomp_server.parts.generated import at_plate
from gencomp_server.parts.lead import on_display
from gencomp_server.parts.passes import GREY_FROM, WHITE_FROM
from gencomp_server.parts.pictures import to_model_range
from gencomp_server.parts.region import crop

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.colour.modelrange import ModelRange
    from gencomp_server.contract import Context, Shot
    from gencomp_server.parts.cleanplate import CleanPlatePlan
    from gencomp_server.parts.layering import Scene
    from gencomp_server.parts.removal import Seen

    Floats = NDArray[np.float32]
    Halves = NDArray[np.float16]
    Bools = NDArray[np.bool_]

LAYERS = ("plate", "base", "gathered", "seen", "remove", "keep", "subject")
"""What the model is given beside the noise, in the order of its channels."""

_PRESENT = 1 / 64
_DRAWN_FROM = 0.5
_TRUST_GROW, _TRUST_SEAM = 5, 5


@dataclass(frozen=True)
class Marks:
    """What is asked of a removal. [T,h,w,1] float16 each, 0..1.

    Attributes:
        remove: Where something goes: objects, a little grown, and rotos of their effects.
        keep: Where the plate stays.
        subject: Coverage of the objects.
        share: How far the base is the gathered clean plate: wholly where an object is, grown, with
            a soft seam around.
    """

    remove: Halves
    keep: Halves
    subject: Halves
    share: Halves


@dataclass(frozen=True)
class Drafted:
    """A removal as the model made it.

    Attributes:
        reference: Its base. [T,h,w,3] float16.
        sample: What it made of that. [T,h,w,3] float16.
        marks: What it was asked for.
        floor: How far the two differ where nothing is to change.
        trust: How far the gathered clean plate is believed and the model not asked. [T,H,W] uint8,
            255 wholly, at the size at which the clean plate was decided.
    """

    reference: Halves
    sample: Halves
    marks: Marks
    floor: Floor
    trust: NDArray[np.uint8]


@dataclass(frozen=True)
class PlacedDraft:
    """One frame of a removal at plate size, and where it comes from. Shares are [H,W], 0..1.

    Attributes:
        picture: Scene-linear. [H,W,3] float32.
        gathered: Share that is the gathered clean plate.
        gained: Share of the rest that is the plate's own under a gain.
        made: Share of the rest that the model added.
    """

    picture: Floats
    gathered: Floats
    gained: Floats
    made: Floats


# --- a removal: stages ---------------------------------------------------------------------------


def mark_removal(ctx: Context, seen: Seen, *, grow_px: int) -> Marks:
    """Say what is asked of a removal: by mattes, rotos of effects, ``keep``, or a drawn trimask.

    Args:
        ctx: The run's context.
        seen: The shot at the model's size.
        grow_px: Pixels by which mattes grow on every side.
    """
    mattes = [seen.coverage[name] for name in seen.coverage if name.startswith(MATTE_PREFIX)]
    subject = np.asarray(np.max(mattes, axis=0), np.float16)
    there = np.asarray(subject > _PRESENT, bool)
    wide = np.asarray(classes.dilate(there, 2 * grow_px + 1), bool)
    remove, keep = wide.copy(), np.zeros(there.shape, bool)
    for name, drawn in seen.coverage.items():
        if name.startswith(EFFECTS_PREFIX):
            remove |= drawn >= _DRAWN_FROM
    if TRIMASK in seen.coverage:
        remove = np.asarray(seen.coverage[TRIMASK] < GREY_FROM, bool)
        keep = np.asarray(seen.coverage[TRIMASK] > WHITE_FROM, bool)
        wide &= remove
    if KEEP in seen.coverage:
        keep |= seen.coverage[KEEP] >= _DRAWN_FROM
    remove &= ~keep
    share = np.empty(there.shape, np.float32)
    for target, source in zip(share, classes.dilate(wide, 3), strict=True):
        target[..., 0] = cv2.blur(np.asarray(source[..., 0], np.float32), (3, 3))
    share[wide] = 1
    share[keep] = 0
    halves = (np.asarray(one, np.float16) for one in (remove, keep, subject, share))
    return Marks(*halves)


def removal_layers(
    ctx: Context,
    shot: Shot,
    scene: Scene,
    plan: CleanPlatePlan,
    seen: Seen,
    marks: Marks,
    *,
    exposure: float,
) -> dict[str, Any]:
    """Return what the model is given for a removal, by the names of :data:`LAYERS`.

    Args:
        ctx: The run's context.
        shot: For its working space; no picture of it is read.
        scene: The shot at the size at which the clean plate was decided.
        plan: What was decided.
        seen: The shot at the model's size.
        marks: What is asked for.
        exposure: Stops by which the model sees the plate brighter.

    Returns:
        [T,h,w,C] float32 each.
    """
    colour = range_of(shot.request, exposure)
    size = (seen.plate.shape[2], seen.plate.shape[1])
    gathered = np.empty(seen.plate.shape, np.float32)
    known = np.empty((*seen.plate.shape[:3], 1), np.float32)
    for i, n in enumerate(scene.frames):
        ctx.progress("model_base", i, len(scene.frames))
        whole = gather_frame(plan, n, _rows_of(scene), scene.size)
        gathered[i] = to_model_range(to_model_frame(whole, size), colour)
        unseen = np.asarray(plan.never_seen[plan.frames.index(n)], np.float32)
        known[i, ..., 0] = 1 - to_model_frame(unseen, size)
    plate = np.asarray(seen.plate, np.float32)
    share = np.asarray(marks.share, np.float32)
    kept = np.asarray(marks.keep[..., 0] > 0, bool)
    gathered[kept], known[kept] = plate[kept], 1
    return {
        "plate": plate,
        "base": plate + share * (gathered - plate),
        "gathered": gathered,
        "seen": known,
        "remove": np.asarray(marks.remove, np.float32),
        "keep": np.asarray(marks.keep, np.float32),
        "subject": np.asarray(marks.subject, np.float32),
    }


def _rows_of(scene: Scene) -> Callable[[int, int, int], Floats]:
    """Return a reader of rows of the plate at the scene's size."""

    def rows(n: int, y0: int, y1: int) -> Floats:
        return np.asarray(scene.plate[scene.frames.index(n)][y0:y1], np.float32)

    return rows


def trust_gathered(ctx: Context, scene: Scene, plan: CleanPlatePlan) -> NDArray[np.uint8]:
    """Say where the gathered clean plate is believed: objects and their effects, if it saw behind.

    Args:
        ctx: The run's context.
        scene: The shot at the size at which the clean plate was decided.
        plan: What was decided.

    Returns:
        [T,H,W] uint8, 255 wholly, with a soft seam.
    """
    found = np.empty(scene.plate.shape[:3], np.uint8)
    for i, n in enumerate(scene.frames):
        t = plan.frames.index(n)
        theirs = np.asarray(scene.covered(n) | plan.suspected[t], np.uint8)
        wide = cv2.dilate(theirs, np.ones((_TRUST_GROW, _TRUST_GROW), np.uint8))
        wide[np.asarray(plan.never_seen[t], bool)] = 0
        found[i] = cv2.blur(wide * np.uint8(255), (_TRUST_SEAM, _TRUST_SEAM))
    return found


# --- an effect: a stage --------------------------------------------------------------------------


def effect_layers(
    ctx: Context,
    shot: Shot,
    plate: Any,
    trimask: Any,
    between: Any,
    *,
    box: tuple[int, int, int, int],
) -> dict[str, Any]:
    """Return what the model is given for an effect, by the names of :data:`LAYERS`.

    Args:
        ctx: The run's context.
        shot: With ``fg`` and ``bg``, of which the former's alpha is the subject's; or without an
            input: then nobody says where the subject is.
        plate: The composite. [T,h,w,3] float32.
        trimask: Classes. [T,h,w,1] uint8.
        between: The mask as it is interpolated, on frames that are UNKNOWN as a whole: the effect
            is asked for there, and the rest of such a frame kept. [T,h,w,1] bool. None: no such
            frame.
        box: What of the plate the model sees: inclusive pixels of the display window.

    Returns:
        [T,h,w,C] float32 each.
    """
    picture = np.asarray(plate, np.float32)
    subject = np.zeros((*picture.shape[:3], 1), np.float32)
    size = (picture.shape[2], picture.shape[1])
    edit, keep = np.asarray(trimask == classes.EDIT), np.asarray(trimask == classes.KEEP)
    if between is not None:
        drawn, unknown = np.asarray(between, bool), np.asarray(trimask == classes.UNKNOWN)
        edit |= drawn & unknown
        keep |= ~drawn & unknown & drawn.any(axis=(1, 2, 3), keepdims=True)
    if FG in shot.names:
        for i, n in enumerate(shot.frames):
            alpha = np.asarray(on_display(shot, FG, n)[..., 3:4], np.float32)
            subject[i] = np.clip(to_model_frame(crop(np.nan_to_num(alpha), Box(*box)), size), 0, 1)
    return {
        "plate": picture,
        "base": picture,
        "gathered": picture,
        "seen": np.ones_like(subject),
        "remove": np.asarray(edit, np.float32),
        "keep": np.asarray(keep, np.float32),
        "subject": subject,
    }


def as_latents(layers: dict[str, Any]) -> dict[str, Floats]:
    """Return layers as the sampler takes them. [T,h,w,C] -> [1,T,C,h,w] float32 each."""
    return {
        name: np.ascontiguousarray(np.asarray(one, np.float32).transpose(0, 3, 1, 2)[None])
        for name, one in layers.items()
    }


# --- delivery ------------------------------------------------------------------------------------


def place_drafted(
    plate: Floats,
    gathered: Floats,
    drafted: Drafted,
    i: int,
    keep: Floats | None = None,
    *,
    colour: ModelRange,
) -> PlacedDraft:
    """Return one frame of a removal at plate size.

    Args:
        plate: [H,W,3] float32, scene-linear, finite.
        gathered: The clean plate of the frame. [H,W,3] float32, scene-linear, finite.
        drafted: What the model made.
        i: Place of the frame in it.
        keep: Where the plate stays, whatever happens. [H,W,1] float32, 0..1.
        colour: How the plate became the model's.

    Returns:
        The picture is the plate's own sample wherever neither object nor effect was found nor the
        model changed anything, where ``keep`` is 1, and where a drawn trimask keeps.
    """
    height, width = plate.shape[:2]
    kept = np.asarray(drafted.marks.keep[i, ..., 0] > 0, bool)
    free = np.asarray(~at_plate(kept, (height, width))[..., None], np.float32)
    if keep is not None:
        free *= 1 - keep
    trust = from_model_frame(drafted.trust[i].astype(np.float32) / 255, (width, height))
    share = from_model_frame(np.asarray(drafted.marks.share[i, ..., 0]), (width, height))
    share = np.maximum(share, trust) * free[..., 0]
    share[share <= LEAST_WEIGHT] = 0
    base, none = plate.copy(), np.zeros((2, height, width), np.float32)
    inside = share > 0
    base[inside] += share[inside][:, None] * (gathered[inside] - plate[inside])
    found = PlacedDraft(base, share, *none)
    reference, sample = drafted.reference[i], drafted.sample[i]
    change = find_change(reference, sample, drafted.floor, ~kept, colour=colour)
    if change is None:
        return found
    asked = free * (1 - trust[..., None])
    changed = apply_change(base, change, asked, drafted.floor, colour=colour)
    found.picture.reshape(-1, 3)[changed.index] = changed.colours
    found.gained.reshape(-1)[changed.index] = changed.gained
    found.made.reshape(-1)[changed.index] = changed.made
    return found
