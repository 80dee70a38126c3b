# SPDX-License-Identifier: Apache-2.0
"""Which passes a video model makes for an omnimatte, and what each pass's trimask says.

One pass removes everything: the clean plate. One pass for each object removes all others: its solo.
With one object the plate is its solo. What the artist gave needs no pass.

===========  ==================  =======================  ==============
where        clean plate pass    solo of NAME             ``keep``
===========  ==================  =======================  ==============
NAME         EDIT                KEEP                     KEEP
effects.NAME EDIT                KEEP                     KEEP
all others   EDIT                EDIT                     KEEP
elsewhere    UNKNOWN             UNKNOWN                  KEEP
===========  ==================  =======================  ==============

Planning needs neither torch nor numpy.

Source: generative-omnimatte §3.2 and fig. 12; growth as in its public code.
Differs: there, in a solo, the removed objects' growth is removed from the object that stays too.
    Here an object is removed only where another's own matte is; where it meets just the growth, the
    model judges (UNKNOWN): the other's soft edge may go, the object may stay. Mattes that truly
    overlap are removed, as there: who is in front is a knob of the delivery, which the model's
    work must not hang on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gencomp_protocol.errors import BadKnob
from gencomp_protocol.layers import BACKGROUND, CLEAN_PLATE
from gencomp_protocol.request import STILL, STILLS, Request

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Classes = NDArray[np.uint8]

AUTO, TEMPORAL, MODEL = "auto", "temporal", "model"
"""What makes the clean plate: a video model where there is one, the other frames, the model."""
MOST_SEED = 2**31 - 1
GREY_FROM, WHITE_FROM = 0.25, 0.75
"""The artist's own trimask: black removes, grey leaves it to the model, white keeps."""
_MATTE_FROM = 0.5
_DRAFT_GROW = 0.2
_WORD = re.compile(r"([A-Za-z][A-Za-z0-9_]*)=(\d{1,10})\Z")


@dataclass(frozen=True)
class Pass:
    """One video that the model makes.

    Attributes:
        keeps: The object that stays; empty for the clean plate, where none does.
        seed: Which noise it starts from; None: the noise that all passes share.
    """

    keeps: str
    seed: int | None = None

    @property
    def title(self) -> str:
        """What an artist reads."""
        return f"solo of {self.keeps}" if self.keeps else "clean plate"


def draft_grow_px(grow: int) -> int:
    """Return by how many of its pixels a small model's masks grow where a knob says so much.

    5, what larger models were trained on, is 1 at the size of a thumbnail.
    """
    return round(grow * _DRAFT_GROW)


def is_gathered(request: Request, register: bool) -> bool:
    """Tell whether the clean plate is gathered over time, wholly or around stills."""
    entry = request.input(CLEAN_PLATE)
    return entry is None or entry.cover == STILLS or (entry.cover == STILL and register)


def plan_passes(
    objects: Sequence[str],
    *,
    clean_given: bool,
    solos_given: Iterable[str] = (),
    seeds: Mapping[str, int] | None = None,
) -> tuple[Pass, ...]:
    """Return the passes of a job: the clean plate first, then the solos in the mattes' order.

    Args:
        objects: Names of the mattes.
        clean_given: True where the artist gave a clean plate.
        solos_given: Objects whose solo the artist gave.
        seeds: Seeds of single passes, as :func:`parse_seeds` gives them.
    """
    given, own = set(solos_given), seeds or {}
    clean = () if clean_given else (Pass("", own.get(BACKGROUND)),)
    if len(objects) < 2:
        return clean
    return clean + tuple(Pass(name, own.get(name)) for name in objects if name not in given)


def side_by_side(passes: Sequence[Pass], batch: int) -> tuple[tuple[Pass, ...], ...]:
    """Return the passes in the groups that are denoised together.

    Where a forward takes one element, every pass goes alone and can be kept and made again alone.
    Where it takes more, those of the shared noise go together; which ones they are is then part of
    what decides their last bits, so one of them that is made again takes the others along.

    Args:
        passes: In the order of the job.
        batch: Elements that go into one forward.
    """
    shared = tuple(one for one in passes if one.seed is None) if batch > 1 else ()
    alone = tuple((one,) for one in passes if one not in shared)
    return ((shared,) if shared else ()) + alone


def parse_seeds(text: str, objects: Sequence[str]) -> dict[str, int]:
    """Return the seeds of single passes: ``boy=3, background=7``.

    Args:
        text: The knob ``passes``.
        objects: Names of the mattes; ``background`` stands for the clean plate.

    Raises:
        BadKnob: A word is not NAME=SEED, names no pass, names one twice, or a seed is too large.
    """
    found: dict[str, int] = {}
    for word in text.replace(",", " ").split():
        match = _WORD.match(word)
        if match is None or int(match[2]) > MOST_SEED:
            raise BadKnob(
                f"Knob 'passes' has '{word}', which is not NAME=SEED.",
                hint=f"Write a matte's name and a whole number up to {MOST_SEED}: "
                f"{objects[0] if objects else BACKGROUND}=3.",
                knob="passes",
            )
        if match[1] not in (BACKGROUND, *objects) or match[1] in found:
            raise BadKnob(
                f"Knob 'passes' names '{match[1]}', which is no pass of this job or stands twice.",
                hint=f"Use each of these at most once: {', '.join((BACKGROUND, *objects))}.",
                knob="passes",
            )
        found[match[1]] = int(match[2])
    return found


@dataclass(frozen=True)
class Asked:
    """What one pass is asked for, at model size.

    Attributes:
        trimask: Classes of ``parts.trimask``. [T,h,w,1] uint8.
        replaced: How far the model's own picture stands for the plate, whose detail there is a
            removed object's; soft at the edge. [T,h,w,1] float16, 0..1.
    """

    trimask: Classes
    replaced: NDArray[np.float16]


def ask(
    own: int | None,
    mattes: NDArray[Any],
    *,
    grow_px: int,
    effects: Mapping[int, NDArray[Any]] | None = None,
    keep: NDArray[Any] | None = None,
) -> Asked:
    """Make the trimask of one pass from mattes.

    Args:
        own: Place of the object that stays; None for the clean plate.
        mattes: Coverage. [T,h,w,N] float, 0..1.
        grow_px: Pixels by which mattes are grown on every side, as a square.
        effects: By the object's place, a rough roto of its effects. [T,h,w,1] float, 0..1.
        keep: Where the plate stays, whatever happens. [T,h,w,1] float, 0..1.
    """
    import numpy as np

    from gencomp_server.parts.trimask import EDIT, KEEP, UNKNOWN

    stays, goes = _stays_and_goes(own, mattes)
    trimask = np.full((*mattes.shape[:3], 1), UNKNOWN, np.uint8)
    trimask[_grown(stays, grow_px)] = KEEP
    _lay_effects(trimask, own, effects or {}, kept=KEEP, removed=EDIT)
    trimask[_grown(goes, grow_px)] = EDIT
    trimask[stays] = KEEP
    trimask[stays & _grown(goes, grow_px)] = UNKNOWN
    trimask[goes] = EDIT
    if keep is not None:
        trimask[keep >= _MATTE_FROM] = KEEP
    replaced = _with_seam(goes, grow_px) * (~stays & (trimask != KEEP))
    return Asked(trimask, replaced.astype(np.float16))


def ask_as_drawn(drawn: NDArray[Any], *, keep: NDArray[Any] | None = None) -> Asked:
    """Take the artist's own trimask for one pass: white keeps, grey is unknown, black removes.

    Args:
        drawn: [T,h,w,1] float, 0..1.
        keep: Where the plate stays, whatever happens. [T,h,w,1] float, 0..1.
    """
    import numpy as np

    from gencomp_server.parts.trimask import EDIT, KEEP, UNKNOWN

    kinds = np.where(drawn > WHITE_FROM, KEEP, np.where(drawn < GREY_FROM, EDIT, UNKNOWN))
    trimask = kinds.astype(np.uint8)
    if keep is not None:
        trimask[keep >= _MATTE_FROM] = KEEP
    replaced = _with_seam(trimask == EDIT, 1) * (trimask != KEEP)
    return Asked(trimask, replaced.astype(np.float16))


def _stays_and_goes(own: int | None, mattes: NDArray[Any]) -> tuple[Bools, Bools]:
    """Return where the object that stays is, and where any other is. [T,h,w,1] bool each."""
    import numpy as np

    inside = mattes >= _MATTE_FROM
    others = [k for k in range(inside.shape[3]) if k != own]
    goes = np.asarray(inside[..., others].any(axis=3, keepdims=True), bool)
    if own is None:
        return np.zeros_like(goes), goes
    return np.asarray(inside[..., own : own + 1] & ~goes, bool), goes


def _lay_effects(
    trimask: Classes,
    own: int | None,
    effects: Mapping[int, NDArray[Any]],
    *,
    kept: int,
    removed: int,
) -> None:
    """Lay the rotos of effects into a trimask, in place; removal is laid last."""
    for k in sorted(effects, key=lambda k: k != own):
        trimask[effects[k] >= _MATTE_FROM] = kept if k == own else removed


def _grown(matte: Bools, grow_px: int) -> Bools:
    import numpy as np

    from gencomp_server.parts.trimask import dilate

    return np.asarray(dilate(matte, 2 * grow_px + 1), bool)


def _with_seam(removed: Bools, grow_px: int) -> NDArray[np.float32]:
    """Return 1 where something is removed, falling to 0 over about the pixels it is grown by."""
    import cv2
    import numpy as np

    made = np.empty(removed.shape, np.float32)
    reach = max(1, (grow_px + 1) // 2)
    wide = _grown(removed, reach).astype(np.float32)
    for source, target in zip(wide, made, strict=True):
        target[..., 0] = cv2.blur(np.ascontiguousarray(source[..., 0]), (2 * reach + 1,) * 2)
    made[removed] = 1
    return made
