# SPDX-License-Identifier: Apache-2.0
"""On which frames of a shot a mask counts, and the sentences that say what may change where.

Neither numpy nor torch: a plan is made from it. What the bounds look like as pictures is in
``bounds.py``; the sentences here must say the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gencomp_protocol.errors import BadKnob, MissingFrame, MissingInput, RangeMismatch
from gencomp_protocol.frames import frame_list, spell_frames
from gencomp_protocol.layers import EFFECT_MASK, EFFECT_UNKNOWN, KEEP, LIMIT, PROTECT
from gencomp_protocol.request import STILLS, Request
from gencomp_server.finishing import AROUND_MASK, GROWN_MASK, EffectParams

EVERY_FRAME, KEYFRAMES_ONLY, NO_MASK = "every frame", "keyframes only", "no mask"
BINARY_CONVENTIONS = frozenset({"fun_inpaint"})
"""Conventions with no value for UNKNOWN: such a model keeps there. Named here again beside
``parts.trimask``, because a plan is made where no picture library is loaded."""
HELD_INSIDE, HELD_OUTSIDE = (LIMIT,), (PROTECT, KEEP)
HOLDING = (*HELD_INSIDE, *HELD_OUTSIDE)
"""The inputs that hold a change back: inside the first, outside the others."""
NAME_A_PLACE = (
    "Connect effect_mask with mask_frames set to 'every frame' or 'keyframes only', or choose "
    "another backbone."
)
INVERTED_SHARE = 0.9
"""A mask that covers more than this of the picture looks inverted."""


@dataclass(frozen=True)
class Annotation:
    """Which frames carry a mask.

    Attributes:
        mode: One of the values of the knob ``mask_frames``, after a look at what is connected.
        frames: The frames whose mask counts, rising.
    """

    mode: str
    frames: tuple[int, ...]


def annotation(request: Request, mask_frames: str, keyframes: str) -> Annotation:
    """Say which frames of a request carry a mask.

    Args:
        request: What is asked.
        mask_frames: The knob of that name.
        keyframes: The knob of that name.

    Raises:
        BadKnob: The keyframes are none, or no list.
        RangeMismatch: One lies outside the range.
        MissingFrame: One has no picture of the mask.
        MissingInput: Keyframes of a mask that is not connected.
    """
    entry = request.input(EFFECT_MASK)
    if mask_frames == KEYFRAMES_ONLY:
        if entry is None:
            raise MissingInput(
                "Knob 'mask_frames' is 'keyframes only', but no effect_mask is connected.",
                hint="Connect it, or set mask_frames to 'no mask'.",
                input=EFFECT_MASK,
            )
        wanted = _keyframes(request, keyframes)
        _check_pictures(
            request,
            wanted,
            f"Render them, or set keyframes to frames it has: {_frames_to_name(request)}.",
        )
        return Annotation(KEYFRAMES_ONLY, wanted)
    if entry is None or mask_frames == NO_MASK:
        return Annotation(NO_MASK, ())
    _check_pictures(
        request,
        tuple(request.frames),
        "Render them; or, to have it count where it is alone, set mask_frames to 'keyframes only' "
        f"and keyframes to {_frames_to_name(request)}.",
    )
    return Annotation(EVERY_FRAME, tuple(request.frames))


def _keyframes(request: Request, keyframes: str) -> tuple[int, ...]:
    try:
        found = frame_list(keyframes)
    except BadKnob as error:
        raise BadKnob(
            f"Knob 'keyframes' is '{keyframes}': {error.message}",
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


def unmasked_frames(request: Request, marked: Annotation) -> tuple[int, ...]:
    """Return the frames whose mask does not count, rising."""
    return tuple(n for n in request.frames if n not in marked.frames)


def is_bounded(marked: Annotation, unknown_bound: str) -> bool:
    """Tell whether there is a mask to bound the frames on which none counts."""
    return bool(marked.frames) and unknown_bound == GROWN_MASK


# --- sentences -----------------------------------------------------------------------------------


def unmasked_sentence(request: Request, marked: Annotation, params: EffectParams) -> str:
    """Say how many frames have no mask, and what may change there; empty where all have one."""
    count, masked = len(request.frames), len(marked.frames)
    if masked == count:
        return ""
    if masked:
        verb = "has" if count - masked == 1 else "have"
        subject = f"{count - masked} of {count} frames {verb} no mask; there"
    else:
        subject = "No frame has a mask;"
    if is_bounded(marked, params.unknown_bound):
        where = f"a change may be within {_as_interpolated(params)}"
        return f"{subject} {where}{holding_words(request)}."
    where = _anywhere(marked, params)
    if not _bounding(request):
        cure = "(limit, protect, keep or a mask on every frame bounds it)"
        return f"{subject} {where} may change {cure}."
    return f"{subject} {where} may change{holding_words(request)}."


def bounds_sentence(request: Request, marked: Annotation, params: EffectParams) -> str:
    """Say where a change may be delivered, on which frames."""
    unknown, held = unmasked_frames(request, marked), holding_words(request)
    said = []
    if marked.frames:
        within = f"within effect_mask grown by {params.mask_grow} model pixels"
        if request.input(EFFECT_UNKNOWN) is not None:
            within += " or within effect_unknown"
        said.append(f"On {spell_frames(marked.frames)} a change may be {within}{held}.")
    if unknown:
        where = f"in {_anywhere(marked, params)}"
        if is_bounded(marked, params.unknown_bound):
            where = f"within {_as_interpolated(params)}"
        said.append(f"On {spell_frames(unknown)}, without a mask, a change may be {where}{held}.")
    if marked.frames and params.region == AROUND_MASK:
        said.append("Nothing changes outside the region that the model sees.")
    return " ".join(said)


def _anywhere(marked: Annotation, params: EffectParams) -> str:
    """Name what may change where no mask bounds it: what the model sees."""
    if marked.frames and params.region == AROUND_MASK:
        return "the whole region around the masks"
    return "the whole frame"


def _as_interpolated(params: EffectParams) -> str:
    return (
        f"the mask as it is interpolated there, grown by {params.unknown_reach:g} % of the height"
    )


def _bounding(request: Request) -> list[str]:
    return [name for name in HOLDING if request.input(name) is not None]


def holding_words(request: Request) -> str:
    """Say what else bounds a change, as the end of a sentence: ``, inside limit, outside keep``."""
    sides = ("outside" if name in HELD_OUTSIDE else "inside" for name in HOLDING)
    words = zip(HOLDING, sides, strict=True)
    return "".join(f", {side} {name}" for name, side in words if name in _bounding(request))


def keeps_unknown(title: str) -> str:
    """Say what a model without a value for UNKNOWN does there."""
    return (
        f"{title} changes only what a mask asks for: where the mask does not say, and on frames "
        "without one, it keeps the picture."
    )


def inverted_sentence(shares: Sequence[float]) -> str:
    """Warn of a mask that looks inverted; empty where it does not.

    Args:
        shares: How much of the picture it covers on each frame where it counts, 0..1.
    """
    if sum(share > INVERTED_SHARE for share in shares) * 2 <= len(shares):
        return ""
    return (
        f"Input 'effect_mask' covers more than {INVERTED_SHARE * 100:.0f} % of the picture on most "
        "of its frames, as an inverted matte would; if it is one, switch on 'invert' beside its "
        "channel on the node, or invert the files."
    )


def beyond_noise_sentence(
    request: Request, marked: Annotation, params: EffectParams, frames: Iterable[int]
) -> str:
    """Say what becomes of what a model changed where nothing was asked for.

    Args:
        request: What was asked.
        marked: Which frames carry a mask.
        params: Its knobs.
        frames: All frames of the shot.
    """
    unmasked = sum(n not in marked.frames for n in frames)
    if not unmasked:
        delivered = "none of that is delivered, but look at the tone of the effect."
    elif is_bounded(marked, params.unknown_bound):
        delivered = (
            f"none of that is delivered outside the mask, which on the {unmasked} without one is "
            f"as interpolated and grown by {params.unknown_reach:g} % of the height."
        )
    elif not marked.frames:
        delivered = "none of that is delivered where it is held out, elsewhere all of it may be."
        if not _bounding(request):
            delivered = "all of that may be delivered."
    else:
        delivered = (
            "on frames with a mask none of that is delivered, but on the "
            f"{unmasked} without one all of it may be."
        )
    return f"The video model changed the picture also where nothing was asked for; {delivered}"
