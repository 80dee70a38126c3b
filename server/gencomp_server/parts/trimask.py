# SPDX-License-Identifier: Apache-2.0
"""Which pixels a model may change, must keep, or may judge by itself; its numbers at its door only.

Inside the house a trimask is a map of classes. What a model's mask channel holds for each class
differs from model to model in polarity, grey and layout: a :class:`Convention` says it, and
:func:`encode` is the only place where classes become numbers.

Maps are [T,H,W,1] uint8 or bool unless said otherwise.

Sources: Generative Omnimatte §3.2 and its public code for the two Casper conventions and the growth
of mattes; CogVideoX-Fun's public code for ``fun_inpaint``; for ``overplusplus``, whose paper is
silent, docs/decisions/0010-overplusplus-choices.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Classes = NDArray[np.uint8]
    Floats = NDArray[np.float32]

KEEP, UNKNOWN, EDIT = 0, 1, 2

ONE_CHANNEL, FOLDED = "one channel x scaling", "folded 4"

# Grey as an 8-bit trimask holds it.
_GREY = 127 / 255
# A share of a half, with room for the rounding of a resize in float32.
_HALF = 0.5 - 1e-6


@dataclass(frozen=True)
class Convention:
    """How one model spells a trimask.

    Attributes:
        keep: Value of the mask channel where the plate must stay, before latent resizing.
        unknown: Value where the model judges by itself.
        edit: Value where something is removed or made.
        layout: ``one channel x scaling``: one channel, the first frame resized apart, times the
            VAE's scaling factor. ``folded 4``: four frames in four channels, the first frame four
            times, unscaled.
        zero_edit: True where the conditioning sequence is blanked to -1 in EDIT.
    """

    keep: float
    unknown: float
    edit: float
    layout: str = ONE_CHANNEL
    zero_edit: bool = False


CONVENTIONS: Mapping[str, Convention] = MappingProxyType(
    {
        "casper": Convention(keep=1.0, unknown=1.0 - _GREY, edit=0.0),
        "casper_wan": Convention(keep=1.0, unknown=1.0 - _GREY, edit=0.0, layout=FOLDED),
        "overplusplus": Convention(keep=1.0, unknown=1.0 - _GREY, edit=0.0),
        # A binary mask: what is not above one half is kept, grey too.
        "fun_inpaint": Convention(keep=1.0, unknown=1.0, edit=0.0, zero_edit=True),
    }
)


def build(
    edit: NDArray[Any],
    keep: NDArray[Any] | None = None,
    unknown: NDArray[Any] | None = None,
    *,
    rest: int = KEEP,
) -> Classes:
    """Make a trimask from maps. Where they overlap EDIT wins over KEEP, KEEP over UNKNOWN.

    Args:
        edit: True or not zero where something is removed or made. [T,H,W,1].
        keep: Where the plate must stay. [T,H,W,1].
        unknown: Where the model judges by itself. [T,H,W,1].
        rest: Class of what no map claims.

    Returns:
        [T,H,W,1] uint8 of KEEP, UNKNOWN and EDIT.

    Raises:
        ValueError: A map is not [T,H,W,1], or two differ in shape, or one is not boolean or uint8:
            coverage must be judged by a threshold first.
    """
    made = np.full(edit.shape, rest, np.uint8)
    for name, where, kind in (
        ("unknown", unknown, UNKNOWN),
        ("keep", keep, KEEP),
        ("edit", edit, EDIT),
    ):
        if where is None:
            continue
        _check_map(name, where, edit.shape)
        made[where != 0] = kind
    return made


def _check_map(name: str, where: NDArray[Any], shape: tuple[int, ...]) -> None:
    if where.ndim != 4 or where.shape[-1] != 1 or where.shape != shape:
        raise ValueError(f"the map '{name}' is {where.shape}, wanted {shape} as [T,H,W,1]")
    if where.dtype not in (np.bool_, np.uint8):
        raise ValueError(f"the map '{name}' is {where.dtype}, wanted bool or uint8")


def dilate(matte: NDArray[Any], width: int) -> NDArray[Any]:
    """Grow a binary matte by a square.

    Args:
        matte: [T,H,W,1] bool or uint8.
        width: Side of the square in pixels, odd; 0 and 1 change nothing. 11 grows by 5 pixels.

    Raises:
        ValueError: The width is even or negative.
    """
    return _morph(cv2.dilate, matte, width)


def erode(matte: NDArray[Any], width: int) -> NDArray[Any]:
    """Shrink a binary matte by a square; the picture's edge does not shrink it.

    Args:
        matte: [T,H,W,1] bool or uint8.
        width: Side of the square in pixels, odd; 0 and 1 change nothing.

    Raises:
        ValueError: The width is even or negative.
    """
    return _morph(cv2.erode, matte, width)


def _morph(operation: Callable[..., Any], matte: NDArray[Any], width: int) -> NDArray[Any]:
    if width < 0 or (width and width % 2 == 0):
        raise ValueError(f"the side of a square is odd, not {width}")
    if width <= 1:
        return matte.copy()
    square = np.ones((width, width), np.uint8)
    made = np.empty_like(matte)
    for source, target in zip(matte, made, strict=True):
        plane = np.ascontiguousarray(source[..., 0]).view(np.uint8)
        target[..., 0] = operation(plane, square).astype(matte.dtype)
    return made


def resize_classes(trimask: Classes, size: tuple[int, int]) -> Classes:
    """Resize a trimask; no class appears that was not there.

    A pixel takes the middle class of the area it covers, in the order KEEP, UNKNOWN, EDIT, and of
    two halves the higher: KEEP beside EDIT never blurs into UNKNOWN, and a half-covered pixel is
    EDIT.

    Args:
        trimask: [T,H,W,1] uint8.
        size: Width and height wanted.

    Returns:
        [T,height,width,1] uint8.
    """
    width, height = size
    if trimask.shape[1:3] == (height, width):
        return trimask.copy()
    shrinks = width <= trimask.shape[2] and height <= trimask.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    made = np.full((len(trimask), height, width, 1), KEEP, np.uint8)
    for source, target in zip(trimask, made, strict=True):
        for kind in (UNKNOWN, EDIT):
            at_least = (source[..., 0] >= kind).astype(np.float32)
            target[cv2.resize(at_least, size, interpolation=how) >= _HALF, 0] = kind
    return made


def encode(trimask: Classes, convention: Convention) -> Floats:
    """Return what a model's mask channel holds, before it is resized to latent frames.

    Args:
        trimask: [T,H,W,1] uint8.
        convention: The model's, from :data:`CONVENTIONS`.

    Returns:
        [T,H,W,1] float32, 0..1.

    Raises:
        ValueError: It holds something that is no class.
    """
    if trimask.size and int(trimask.max()) > EDIT:
        raise ValueError(f"a trimask holds 0, 1 and 2, not {int(trimask.max())}")
    table = np.array([convention.keep, convention.unknown, convention.edit], np.float32)
    return np.asarray(table[trimask], np.float32)
