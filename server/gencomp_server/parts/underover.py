# SPDX-License-Identifier: Apache-2.0
"""An effect in two layers: ``over`` over a foreground over ``under`` over bg is the result.

What a shadow does to the ground belongs beneath the foreground, or it stays behind when somebody
swaps that. So whatever can be explained by the background seen through the foreground's edge goes
into ``under``; ``over`` takes only what cannot: a change of the foreground itself.

Behind the foreground nothing was seen of the effect. ``under`` goes on there, filled in from
outside, so that a foreground shifted by a few pixels uncovers shadow and not bare ground. At a
soft edge, where the background hardly shows, the sample says little of it and its rounding much:
the filled-in value stands, moved only as far as the result demands. ``result`` is given and never
redefined; a pixel that no other way reaches becomes opaque in ``over``, and is counted.

Bounds hold for both layers. What lies beneath goes on behind the foreground beyond where the effect
was let in, but only as far as none of it shows; where something is held out there is nothing.

Frames are [H,W,C]; pixels are columns, [C,n]. All colours are scene-linear, premultiplied and
unbounded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from gencomp_server.parts.effect import solve_columns
from gencomp_server.parts.stack import is_beyond, round_to, round_up

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Bools = NDArray[np.bool_]
    Indices = NDArray[np.intp]
    Pixels = NDArray[np.float16] | NDArray[np.float32]

SEEN = 0.25
"""Of the background, at least this much must show for its effect to be read off a pixel."""
REACH_PX = 64
"""How far beneath the foreground the effect goes on, in plate pixels; the last half fades out."""
_TRUST = 0.25
_ROUNDS = 4
_STEPS_UP = (1, 2, 4, 8)
# Less than this no alpha need be raised by: it would be lost in one minus alpha.
_LEAST_STEP = np.float32(2.0**-24)
_SMOOTHINGS = 4


@dataclass(frozen=True)
class UnderOver:
    """An effect around a foreground.

    Attributes:
        under: Goes between background and foreground. [H,W,4] of the layers' type.
        over: Goes on top. [H,W,4] of the layers' type.
        forced: Pixels where ``over`` had to become opaque for the stack to be the result.
    """

    under: Any
    over: Any
    forced: int


def under_over(
    fg: Pixels,
    bg: Pixels,
    result: Pixels,
    index: Indices,
    kind: np.dtype[Any],
    *,
    locked: bool,
    effect: Pixels | None = None,
    held: Bools | None = None,
) -> UnderOver:
    """Split an effect into what lies beneath a foreground and what lies on it.

    Args:
        fg: Premultiplied. [H,W,4].
        bg: [H,W,3] or [H,W,4]; its alpha is not looked at.
        result: What the stack has to give, colour, within 1 ULP of ``kind``. [H,W,3] or [H,W,4].
        index: Flat indices of the pixels where the result is not fg over bg. [n].
        kind: Type of the layers, half or float.
        locked: True where nothing may lie on opaque foreground; the result is fg there.
        effect: The effect in one layer, as solved for fg over bg: it is taken as it is where there
            is no foreground, and its alpha is wished for everywhere. [H,W,4] of ``kind``.
        held: Where nothing may be delivered, not even behind the foreground. [H,W].

    Returns:
        Both layers; zero where there is nothing to do. Beyond ``index`` nothing lies on top, and
        what lies beneath does not show: the stack rounds to ``result``, not 1 ULP beside it.

    Raises:
        ValueError: Locked, and the result differs from an opaque foreground; or it differs from
            fg over bg where it is held out.
    """
    height, width = fg.shape[:2]
    under, over = np.zeros((height, width, 4), kind), np.zeros((height, width, 4), kind)
    if index.size == 0:
        return UnderOver(under, over, 0)
    if held is not None and held.reshape(-1)[index].any():
        raise ValueError("the result differs from fg over bg where it is held out")
    crop = _around(index, (height, width))
    local = _moved(index, width, crop)
    views = [x[crop] for x in (fg, bg, result)]
    told = None if effect is None else effect[crop]
    shut = None if held is None else held[crop]
    # Arrays of their own: of a part of a larger one, a flat view would be a copy.
    made = (np.zeros(views[0].shape, kind), np.zeros(views[0].shape, kind))
    forced = _split(views, local, made, told, shut, locked=locked)
    under[crop], over[crop] = made
    return UnderOver(under, over, forced)


def _around(index: Indices, size: tuple[int, int]) -> tuple[slice, slice]:
    """Return the box of some pixels, as far as an extension of them can reach."""
    ys, xs = np.divmod(index, size[1])
    room = REACH_PX + 1
    return (
        slice(max(int(ys.min()) - room, 0), min(int(ys.max()) + room + 1, size[0])),
        slice(max(int(xs.min()) - room, 0), min(int(xs.max()) + room + 1, size[1])),
    )


def _moved(index: Indices, width: int, crop: tuple[slice, slice]) -> Indices:
    """Return the flat indices of the same pixels inside a crop."""
    ys, xs = np.divmod(index, width)
    wide = crop[1].stop - crop[1].start
    return np.asarray((ys - crop[0].start) * wide + (xs - crop[1].start), np.intp)


@dataclass
class _Pixels:
    """Some pixels of a crop: where they are and what is there. Columns [3,n] and [n], float32."""

    at: Indices
    front: Floats
    open: Floats
    back: Floats
    goal: Floats

    def only(self, which: Indices) -> _Pixels:
        """Return some of them."""
        columns = (self.back[:, which], self.goal[:, which])
        return _Pixels(self.at[which], self.front[:, which], self.open[which], *columns)


def _split(
    views: list[Any],
    index: Indices,
    layers: tuple[Any, Any],
    effect: Any | None,
    held: Bools | None,
    *,
    locked: bool,
) -> int:
    """Fill both layers of a crop in place. Returns how many pixels had to become opaque."""
    fg, _, _ = views
    kind, shape = layers[0].dtype, fg.shape[:2]
    through = np.float32(1) - fg[..., 3].astype(np.float32)
    on_top = None
    if not locked:
        on_top = _solve_on_top(views, index, through, layers, effect)
    wish = None if effect is None else effect.reshape(-1, 4)
    seen = _read(views, index[through.reshape(-1)[index] >= SEEN], through)
    low = np.zeros((*shape, 4), np.float32)
    low.reshape(-1, 4)[seen.at] = _solve_under(seen, kind, wish, on_top).T
    filled = extended(low, np.where(through >= SEEN, through * through, np.float32(0)))
    hidden = (through < SEEN) & (through >= 0) & filled.any(axis=2)
    if held is not None:
        hidden &= ~held
    flat, clear = filled.reshape(-1, 4), through.reshape(-1)
    deep = np.flatnonzero(hidden & (through == 0))
    low.reshape(-1, 4)[deep] = round_to(flat[deep], kind)
    dim = index[(clear[index] < SEEN) & (clear[index] > 0)]
    edge = _read(views, dim, through)
    low.reshape(-1, 4)[edge.at] = _solve_edge(edge, flat[edge.at].T, kind, on_top).T
    beyond = hidden & (through > 0)
    beyond.reshape(-1)[index] = False
    rest = _read(views, np.flatnonzero(beyond), through)
    low.reshape(-1, 4)[rest.at] = _solve_unseen(rest, flat[rest.at].T, kind).T
    layers[0][:] = low
    return _solve_over(_read(views, index, through), layers, on_top, locked=locked)


def _read(views: list[Any], at: Indices, through: Floats) -> _Pixels:
    """Gather pixels, leaving out what is not finite."""
    fg, bg, result = (np.ascontiguousarray(x[..., :3]).reshape(-1, 3)[at] for x in views)
    fine = np.isfinite(fg).all(1) & np.isfinite(bg).all(1) & np.isfinite(result).all(1)
    clear = through.reshape(-1)[at]
    fine &= np.isfinite(clear)
    columns = [np.ascontiguousarray(x[fine].T, np.float32) for x in (fg, bg, result)]
    return _Pixels(at[fine], columns[0], clear[fine], columns[1], columns[2])


def _solve_on_top(
    views: list[Any], index: Indices, through: Floats, layers: tuple[Any, Any], effect: Any | None
) -> Floats | None:
    """Solve what changes the opaque foreground itself, and carry it onto its soft edge.

    Returns:
        The layer on top as it should be, [H,W,4] float32; None where nothing lies on top.
    """
    solid = _read(views, index[through.reshape(-1)[index] == 0], through)
    if solid.at.size == 0:
        return None
    top = np.zeros((*through.shape, 4), np.float32)
    clear, soft = through.reshape(-1)[index], np.zeros(through.shape, bool)
    soft.reshape(-1)[index] = (clear > 0) & (clear < 1)
    wish = None if effect is None else effect.reshape(-1, 4)[solid.at, 3].astype(np.float32)
    layer = solve_columns(solid.front, solid.goal, layers[1].dtype, wish)
    top.reshape(-1, 4)[solid.at] = layer.T
    wide = extended(top, (through == 0).astype(np.float32))
    top[soft] = wide[soft] * (1 - through[soft])[:, None]
    return top


def _without_top(pixels: _Pixels, top: Floats | None) -> Floats:
    """Return what has to lie beneath the layer on top. [3,n] float32."""
    if top is None:
        return pixels.goal
    layer = top.reshape(-1, 4)[pixels.at].T
    clear = 1 - layer[3]
    beneath = (pixels.goal - layer[:3]) / np.maximum(clear, np.float32(2.0**-10))
    return np.asarray(np.where(clear > SEEN, beneath, pixels.goal), np.float32)


def _solve_under(
    pixels: _Pixels, kind: np.dtype[Any], effect: Any | None, top: Floats | None
) -> Floats:
    """Return the layer beneath where the background is seen well. [4,n] float32."""
    goal = _without_top(pixels, top)
    wanted = (goal - pixels.front) / pixels.open
    wanted = np.maximum(wanted, np.minimum(pixels.back, 0))
    wish = None if effect is None else effect[pixels.at, 3].astype(np.float32)
    layer = solve_columns(pixels.back, wanted, kind, wish)
    if effect is not None:
        free = ~pixels.front.any(axis=0) & (pixels.open == 1)
        layer[:, free] = effect[pixels.at[free]].T
    return _closed(layer, pixels, goal, kind)


def _solve_edge(pixels: _Pixels, filled: Floats, kind: np.dtype[Any], top: Floats | None) -> Floats:
    """Return the layer beneath where the background hardly shows. [4,n] float32.

    Args:
        pixels: Where some of the background shows, less than ``SEEN``.
        filled: The layer as filled in. [4,n].
        kind: Of the layer.
        top: As it should be.
    """
    goal, back = _without_top(pixels, top), pixels.back
    shown = filled[:3] + back * (1 - filled[3])
    # What half a step of the result leaves open, the background behind an almost opaque edge
    # leaves open a hundred times over.
    step = np.abs(goal) * np.float32(np.finfo(kind).eps / 4)
    low, high = (goal - step - pixels.front), (goal + step - pixels.front)
    wanted = np.clip(shown, low / pixels.open, high / pixels.open)
    room = np.float32(_TRUST) * (np.abs(back) + np.abs(shown))
    wanted = np.clip(wanted, shown - room, shown + room)
    wanted = np.maximum(wanted, np.minimum(back, 0))
    layer = solve_columns(back, np.asarray(wanted, np.float32), kind, filled[3])
    near = _refined(layer, pixels, goal, kind)
    moved = np.abs(near[:3] - layer[:3])
    return np.where((moved <= room).all(axis=0), near, layer)


def _solve_unseen(pixels: _Pixels, filled: Floats, kind: np.dtype[Any]) -> Floats:
    """Return the layer beneath where the result is fg over bg; nothing where it would show."""
    layer = _solve_edge(pixels, filled, kind, None)
    shows = (round_to(_seen(layer, pixels), kind) != pixels.goal).any(axis=0)
    return np.where(shows, np.float32(0), layer)


def _refined(layer: Floats, pixels: _Pixels, goal: Floats, kind: np.dtype[Any]) -> Floats:
    """Return a layer beneath whose colours are moved until the stack is the goal, where it can."""
    layer = layer.copy()
    for _ in range(_ROUNDS):
        seen = _seen(layer, pixels)
        bad = np.flatnonzero(is_beyond(seen, goal, kind))
        if bad.size == 0:
            break
        off = (goal[:, bad].astype(np.float64) - seen[:, bad]) / pixels.open[bad]
        colour = np.maximum(layer[:3, bad] + off, 0)
        layer[:3, bad] = round_to(colour.astype(np.float32), kind)
    return layer


def _closed(layer: Floats, pixels: _Pixels, goal: Floats, kind: np.dtype[Any]) -> Floats:
    """Do what :func:`_refined` does, and raise alpha by a few steps where colours alone fall short.

    A least alpha that its own rounding left a step too low lets more through than the goal has,
    and no colour takes that away again.
    """
    layer = _refined(layer, pixels, goal, kind)
    bad = np.flatnonzero(is_beyond(_seen(layer, pixels), goal, kind) & (layer[3] < 1))
    for steps in _STEPS_UP:
        if bad.size == 0:
            break
        part = pixels.only(bad)
        tried = layer[:, bad]
        step = np.maximum(np.spacing(tried[3].astype(kind)).astype(np.float32), _LEAST_STEP)
        tried[3] = np.minimum(round_up(tried[3] + steps * step, kind), 1)
        beneath = (goal[:, bad] - part.front) / part.open - part.back * (1 - tried[3])
        tried[:3] = round_to(np.maximum(beneath, 0), kind)
        tried = _refined(tried, part, goal[:, bad], kind)
        fails = is_beyond(_seen(tried, part), goal[:, bad], kind)
        layer[:, bad[~fails]] = tried[:, ~fails]
        bad = bad[fails]
    return layer


def _seen(layer: Floats, pixels: _Pixels) -> Floats:
    """Return fg over a layer over bg, as a compositor does it. [3,n] float32."""
    beneath = layer[:3] + pixels.back * (np.float32(1) - layer[3])
    return np.asarray(pixels.front + beneath * pixels.open, np.float32)


def _solve_over(
    pixels: _Pixels, layers: tuple[Any, Any], top: Floats | None, *, locked: bool
) -> int:
    """Fill the layer on top, in place, with what is missing. Returns the pixels forced."""
    kind = layers[0].dtype
    under = np.ascontiguousarray(layers[0].reshape(-1, 4)[pixels.at].T, np.float32)
    seen = _seen(under, pixels)
    needs = is_beyond(seen, pixels.goal, kind)
    if locked and (needs & (pixels.open == 0)).any():
        raise ValueError("the result differs from an opaque foreground that is locked")
    wish = None
    if top is not None:
        wish = top.reshape(-1, 4)[pixels.at, 3]
        needs |= wish > 0
    which = np.flatnonzero(needs)
    if which.size == 0:
        return 0
    goal, base = pixels.goal[:, which], seen[:, which]
    layer = solve_columns(base, goal, kind, None if wish is None else wish[which])
    plain = np.zeros((3, which.size), np.float32)
    alone = _Pixels(which, plain, np.ones(which.size, np.float32), base, goal)
    layer = _closed(layer, alone, goal, kind)
    bad = is_beyond(_seen(layer, alone), goal, kind)
    layer[:3, bad], layer[3, bad] = goal[:, bad], 1
    layers[1].reshape(-1, 4)[pixels.at[which]] = layer.T.astype(kind)
    return int(bad.sum())


# --- filling in ----------------------------------------------------------------------------------


def extended(layer: Floats, known: Floats) -> Floats:
    """Continue a layer into where it is not known, fading out.

    Args:
        layer: Premultiplied. [H,W,4] float32.
        known: How far each pixel is to be believed. [H,W] float32, 0..1.

    Returns:
        ``layer`` where ``known`` is not zero; elsewhere filled in from there by ever coarser
        means, at full strength up to half of ``REACH_PX`` away and zero from ``REACH_PX``.
        [H,W,4] float32.
    """
    missing = known == 0
    if not missing.any() or not layer.any():
        return np.asarray(layer * ~missing[..., None], np.float32)
    sure = known[..., None]
    filled = _pulled(layer * sure, sure)
    mask = missing[..., None]
    for _ in range(_SMOOTHINGS):
        filled = np.where(mask, cv2.blur(filled, (3, 3)), layer)
    distance = cv2.distanceTransform(missing.astype(np.uint8), cv2.DIST_L2, 5)
    fade = np.clip(2 - distance / np.float32(REACH_PX / 2), 0, 1)
    return np.asarray(np.where(mask, filled * fade[..., None], layer), np.float32)


def _pulled(weighed: Floats, weight: Floats) -> Floats:
    """Fill in from the next coarser picture whatever has too little weight itself."""
    height, width = weight.shape[:2]
    own = weighed / np.maximum(weight, np.float32(1e-12))
    if max(height, width) <= 2:
        total = np.maximum(weight.sum(axis=(0, 1)), np.float32(1e-12))
        mean = weighed.sum(axis=(0, 1)) / total
        share = np.minimum(weight, 1)
        return np.asarray(share * own + (1 - share) * mean, np.float32)
    size = ((width + 1) // 2, (height + 1) // 2)
    edge = (0, 2 * size[1] - height, 0, 2 * size[0] - width)
    both = np.concatenate([weighed, weight], axis=2)
    both = cv2.copyMakeBorder(both, *edge, cv2.BORDER_REPLICATE)
    coarse = cv2.resize(both, size, interpolation=cv2.INTER_AREA) * np.float32(4)
    # One full pixel of four is enough to be believed as much as any.
    scale = 1 / np.maximum(coarse[..., 4:], np.float32(1))
    below = _pulled(coarse[..., :4] * scale, coarse[..., 4:] * scale)
    wide = cv2.resize(below, (2 * size[0], 2 * size[1]), interpolation=cv2.INTER_LINEAR)
    share = np.minimum(weight, 1)
    return np.asarray(share * own + (1 - share) * wide[:height, :width], np.float32)
