# SPDX-License-Identifier: Apache-2.0
"""Where an element's alpha comes from, and the element with it, premultiplied.

==========  ==================================  ======================
``fg_alpha``  alpha                              colour
==========  ==================================  ======================
alpha       the file's own                      as it is: premultiplied
fg_matte    the matte, times the file's own     times the matte
unmult      the greatest of R, G and B, to 1    as it is: light on black
luma key    luminance from low to high, 0 to 1  times that
whole box   1                                   as it is
==========  ==================================  ======================

``auto`` takes one of the first three, by what the files are, and says which and why; never the
whole box, which nobody wants by accident.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gencomp_protocol.errors import BadKnob, BadPicture
from gencomp_server.colour.modelrange import range_of
from gencomp_server.parts.window import finite, onto_display
from gencomp_server.placing import ALPHA, AUTO, LUMA, MATTE, UNMULT, WHOLE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_protocol.frames import Box
    from gencomp_server.contract import Shot

    Floats = NDArray[np.float32]

_REC709 = np.array([0.2126, 0.7152, 0.0722], np.float32)
FULL = 0.999
"""An alpha nowhere below this says nothing."""
_BLACK, _DARK_SHARE = 0.01, 0.98
"""An element stands on black where this share of its rim is no brighter than this, linear."""


@dataclass(frozen=True)
class Key:
    """How an element gets its alpha.

    Attributes:
        kind: ``ALPHA``, ``MATTE``, ``UNMULT``, ``LUMA`` or ``WHOLE``.
        why: What an artist reads: which was taken, and why.
        low: Luminance of the luma key up to which alpha is 0, scene-linear.
        high: Luminance from which it is 1.
    """

    kind: str
    why: str
    low: float = 0.0
    high: float = 1.0


def choose_key(
    shot: Shot,
    name: str,
    matte: str | None,
    frames: Iterable[int],
    *,
    fg_alpha: str,
    low: float,
    high: float,
) -> Key:
    """Return how an element gets its alpha, looked up in some of its frames where it is ``auto``.

    Args:
        shot: The shot.
        name: The element's input.
        matte: Input of its matte; None where there is none.
        frames: Own frames to look at.
        fg_alpha: The knob.
        low: Luminance up to which a luma key keeps nothing.
        high: Luminance from which it keeps all.

    Raises:
        BadKnob: ``auto`` finds no alpha in it, or ``alpha`` is asked of files without one.
    """
    channels = shot.header(name).channels
    if fg_alpha == ALPHA and "A" not in channels:
        raise BadKnob(
            f"Knob 'fg_alpha' is 'alpha', but the files of input '{name}' have none.",
            hint="Use auto, unmult or luma key, or connect fg_matte.",
            knob="fg_alpha",
        )
    if fg_alpha != AUTO:
        return Key(fg_alpha, f"{fg_alpha}: as fg_alpha says", low, high)
    if matte is not None:
        return Key(MATTE, f"fg_matte: input '{matte}' is connected")
    pictures = list(frames)
    if "A" in channels and any(_says_something(shot, name, n) for n in pictures):
        return Key(ALPHA, f"alpha: the files of '{name}' have one")
    if all(_is_on_black(shot, name, n) for n in pictures):
        has = "has a full alpha" if "A" in channels else "has no alpha"
        return Key(UNMULT, f"unmult: '{name}' {has} and stands on black")
    why = "its alpha is full everywhere" if "A" in channels else "it has no alpha"
    raise BadKnob(
        f"Input '{name}' would be placed as a rectangle: {why}, and it does not stand on black.",
        hint="Connect fg_matte, or set fg_alpha to luma key, to unmult for light on black, or to "
        "whole box if you want it.",
        knob="fg_alpha",
    )


def _says_something(shot: Shot, name: str, n: int) -> bool:
    header = shot.header(name, n)
    alpha = shot.frame(name, n, ("A",))
    is_cropped = header.data_window.intersect(header.display_window) != header.display_window
    return is_cropped or bool(np.nan_to_num(alpha.astype(np.float32)).min() < FULL)


def _is_on_black(shot: Shot, name: str, n: int) -> bool:
    """Tell whether the rim of a picture is black; what it does not have is."""
    header = shot.header(name, n)
    light = onto_display(shot.frame(name, n)[..., :3], header.data_window, header.display_window)
    rim = np.concatenate([light[0], light[-1], light[:, 0], light[:, -1]]).astype(np.float32)
    bright = np.nan_to_num(rim).max(axis=1)
    return bool((bright <= _BLACK).mean() >= _DARK_SHARE)


def keyed(shot: Shot, name: str, matte: str | None, n: int, key: Key) -> tuple[Floats, Box]:
    """Return an element's own frame with its alpha, and the window that it fills.

    Args:
        shot: The shot.
        name: The element's input.
        matte: Input of its matte; None where there is none.
        n: Own frame.
        key: How it gets its alpha.

    Returns:
        Premultiplied, finite, alpha 0..1 [H,W,4] float32; its data window.

    Raises:
        BadPicture: The frame has no alpha and should, or the matte is of another size.
    """
    header = shot.header(name, n)
    pixels = finite(shot.frame(name, n))
    if key.kind == ALPHA and pixels.shape[2] < 4:
        raise BadPicture(
            f"Input '{name}' frame {n} has no alpha; its other frames have.",
            hint="Render it as RGBA.",
            input=name,
            frame=n,
        )
    made = np.ones((*pixels.shape[:2], 4), np.float32)
    made[..., : pixels.shape[2]] = pixels
    made[..., 3] = np.clip(made[..., 3], 0, 1)
    if key.kind == MATTE:
        assert matte is not None, "fg_matte is taken only where it is connected"
        made *= _matte(shot, name, matte, n)
    elif key.kind == UNMULT:
        made[..., :3] = np.maximum(made[..., :3], 0)
        made[..., 3] = np.clip(made[..., :3].max(axis=2), 0, 1)
    elif key.kind == LUMA:
        light = range_of(shot.request).seen(made[..., :3]) @ _REC709
        share = np.clip((light - key.low) / (key.high - key.low), 0, 1)
        made[..., :3] *= share[..., None]
        made[..., 3] *= share
    elif key.kind == WHOLE:
        made[..., 3] = 1
    return made, header.data_window


def _matte(shot: Shot, name: str, matte: str, n: int) -> Floats:
    """Return the matte over the element's data window. [H,W,1]."""
    own, header = shot.header(name, n), shot.header(matte, n)
    a, b = own.display_window, header.display_window
    if (a.width, a.height) != (b.width, b.height):
        raise BadPicture(
            f"Input '{matte}' frame {n} is {b.width}x{b.height}, but '{name}' is "
            f"{a.width}x{a.height}.",
            hint="Reformat one of them.",
            input=matte,
            frame=n,
        )
    laid = onto_display(finite(shot.frame(matte, n)), header.data_window, own.data_window)
    return np.asarray(np.clip(laid, 0, 1), np.float32)
