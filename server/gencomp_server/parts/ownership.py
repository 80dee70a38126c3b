# SPDX-License-Identifier: Apache-2.0
"""Whose shadow is it: shares of each effect pixel among the objects of a shot without solos.

Inside a matte a pixel is its object's. Outside, three things speak, the later over the earlier:

1. *connection*: the part of the changed region that a pixel hangs together with, and how far it is
   within that region to each object it touches (nearest takes it, hard);
2. *motion*: an effect keeps its place beside the object that causes it. The picture's optical
   density ``-log(1 - alpha)`` is explained as a sum of one slowly changing map per object, each
   moving with its object. Shadows that cross thus share their pixels multiplicatively;
3. *the artist's word*: a rough roto ``effects.NAME``.

Maps are learnt at a reduced size from a bounded run of frames around key frames and blended between
them, so that memory does not grow with the clip and nothing pops. Shares sum to one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Bools = NDArray[np.bool_]

# Long edge at which maps are learnt; shares are smooth, so that finer ones would say no more.
LONG_EDGE = 320
# Frames between key frames, and how far around one its map is learnt.
KEY_STEP, KEY_REACH = 16, 48
_ROUNDS = 12
# Density is capped here (alpha 0.95): an opaque rim must not outweigh a shadow.
_MOST_DENSITY = 3.0
_LEAST_DENSITY = 1e-3
# Where all maps together explain less than this of a pixel, connection decides alone.
_UNEXPLAINED = 0.1
# Mattes are grown by this before their outside is looked at: their rim is the object's.
_RIM_PX = 3
# Shares between these are doubtful.
_DOUBT = 0.2
# Shares below this are none: a trace of a layer helps nobody.
_TRACE = 0.02
# From the first alpha a pixel is taken to be solid, at the second it is: solid things have one
# owner.
_SOLID = (0.9, 0.98)


@dataclass(frozen=True)
class Ownership:
    """Who owns the effects of a clip.

    Attributes:
        shares: Per frame, outside the mattes. [T,h,w,N] uint8, 255 = all; sums to 255.
        doubtful: Per frame, share of effect pixels whose owner is in doubt. [T] float32, 0..1.
        doubtful_share: The same over the whole clip, by density, 0..1.
    """

    shares: NDArray[np.uint8]
    doubtful: Floats
    doubtful_share: float


@dataclass
class _Clip:
    """The clip at the reduced size; what one frame gives is made on demand and kept a while."""

    alpha: NDArray[Any]
    mattes: NDArray[Any]
    size: tuple[int, int]
    places: NDArray[np.int64]
    present: Bools
    kept: dict[int, tuple[Floats, Bools, Floats]] = field(default_factory=dict)

    def density(self, index: int) -> tuple[Floats, Bools, Floats]:
        """Return density [h,w], where it can be seen [h,w] and mattes [N,h,w] of one frame."""
        if index not in self.kept:
            self.kept = {k: v for k, v in self.kept.items() if k > index - 2 * KEY_REACH - KEY_STEP}
            self.kept[index] = self._density(index)
        return self.kept[index]

    def _density(self, index: int) -> tuple[Floats, Bools, Floats]:
        mattes = np.stack([_reduce(m, self.size) for m in np.moveaxis(self.mattes[index], -1, 0)])
        alpha = _reduce(self.alpha[index].reshape(self.alpha.shape[1:3]), self.size)
        seen = cv2.dilate(mattes.max(axis=0), _disc(_RIM_PX)) < 0.5
        density = np.minimum(-np.log1p(-np.minimum(alpha, np.float32(0.999))), _MOST_DENSITY)
        density[density < _LEAST_DENSITY] = 0
        return (density * seen).astype(np.float32), seen, mattes


def share_effects(
    alpha: NDArray[Any],
    mattes: NDArray[Any],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Ownership:
    """Find out which object each effect pixel of a clip belongs to.

    Args:
        alpha: Alpha of everything in front together, at model size. [T,h,w] or [T,h,w,1], any
            float type or memory-mapped, 0..1.
        mattes: Front to back. [T,h,w,N], any float type, 0..1.
        progress: Called with (frames done, frames in all).

    Returns:
        Shares at a reduced size; :func:`shares_at` brings them to a frame.
    """
    count, height, width, objects = mattes.shape
    scale = min(1.0, LONG_EDGE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    places, present = _track(mattes, size)
    clip = _Clip(alpha, mattes, size, places, present)
    shares = np.zeros((count, size[1], size[0], objects), np.uint8)
    doubtful, doubt, total = np.zeros(count, np.float32), 0.0, 0.0
    if objects == 1:
        shares[:] = 255
        return Ownership(shares, doubtful, 0.0)
    keys = _key_frames(count)
    maps: dict[int, Floats] = {}
    for index in range(count):
        before = max(k for k in keys if k <= index)
        after = min((k for k in keys if k >= index), default=before)
        maps = {k: maps[k] if k in maps else _learn(clip, k) for k in (before, after)}
        part = 0.0 if after == before else (index - before) / (after - before)
        found = [
            (1 - part) * _view(maps[before][i], clip, i, index)
            + part * _view(maps[after][i], clip, i, index)
            for i in range(objects)
        ]
        share, density, unsure = _settle(clip, index, np.stack(found))
        shares[index] = _quantise(share)
        energy = float(density.sum())
        doubt, total = doubt + float(density[unsure].sum()), total + energy
        doubtful[index] = unsure.sum() / max(int((density > 0).sum()), 1)
        if progress is not None:
            progress(index + 1, count)
    return Ownership(shares, doubtful, doubt / total if total else 0.0)


def shares_at(
    ownership: Ownership,
    index: int,
    mattes: Floats,
    *,
    alpha: Floats | None = None,
    named: Mapping[int, Floats] | None = None,
) -> Floats:
    """Return who owns each pixel of a frame, mattes and the artist's rotos included.

    Args:
        ownership: What :func:`share_effects` found.
        index: Position of the frame in the clip, from 0.
        mattes: Front to back, at the size wanted. [H,W,N] float32, 0..1.
        alpha: Alpha of everything in front together; what is solid then has one owner.
            [H,W,1] float32, 0..1.
        named: By object number, the roto of that object's effects. [H,W,1] float32, 0..1.

    Returns:
        [H,W,N] float32, 0..1, sums to one at every pixel.
    """
    height, width, objects = mattes.shape
    if objects == 1:
        return np.ones((height, width, 1), np.float32)
    small = ownership.shares[index].astype(np.float32)
    shares = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    shares = shares.reshape(height, width, objects)
    if alpha is not None:
        step = np.clip((alpha - _SOLID[0]) / (_SOLID[1] - _SOLID[0]), 0, 1)
        shares = (shares / 255) ** (1 + 7 * step)
    shares = _normalise(shares)
    if named:
        shares = _as_named(shares, named)
    left = np.ones((height, width, 1), np.float32)
    owned = np.empty_like(shares)
    for number in range(objects):
        matte = np.clip(mattes[..., number : number + 1], 0, 1)
        owned[..., number : number + 1] = matte * left
        left = left * (1 - matte)
    shares = owned + left * shares
    shares[shares < _TRACE] = 0
    return _normalise(shares)


def object_alphas(alpha: Floats, shares: Floats) -> Floats:
    """Split the alpha of everything in front among the objects, by transmission.

    The layers' transmissions multiply to the whole: ``(1 - a_i) = (1 - a) ** share_i``.

    Args:
        alpha: [H,W,1] float32, 0..1.
        shares: [H,W,N] float32, sums to one.

    Returns:
        [H,W,N] float32, 0..1; 0 where an object has no share.
    """
    through = np.clip(1 - alpha, 0, 1).astype(np.float32)
    split: Floats = 1 - through**shares
    split[shares <= 0] = 0
    return split


def split_bodies(body: Floats, mattes: Floats) -> Floats:
    """Give what the mattes show, soft edges included, to the object whose matte is nearest.

    Args:
        body: Alpha of all objects without their effects. [H,W,1] float32, 0..1.
        mattes: Front to back. [H,W,N] float32, 0..1; where two meet the front one has it.

    Returns:
        [H,W,N] float32, 0..1; sums to ``body``.
    """
    far = [
        cv2.distanceTransform((mattes[..., k] <= 0.5).astype(np.uint8), cv2.DIST_L2, 3)
        for k in range(mattes.shape[2])
    ]
    nearest = np.argmin(np.stack(far, axis=2), axis=2)
    return np.where(nearest[..., None] == np.arange(mattes.shape[2]), body, np.float32(0))


# --- following the objects -----------------------------------------------------------------------


def _reduce(frame: NDArray[Any], size: tuple[int, int]) -> Floats:
    reduced = cv2.resize(frame.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return np.asarray(reduced, np.float32)


def _disc(radius: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2))


def _track(mattes: NDArray[Any], size: tuple[int, int]) -> tuple[NDArray[np.int64], Bools]:
    """Return where each object is, whole pixels at the reduced size, and when it is seen.

    The middle of an object is the median of its matte's pixels, which a swinging arm hardly moves,
    smoothed over time. Where it is not seen it stays where it was seen last.

    Returns:
        Row and column [T,N,2] int64, seen [T,N] bool.
    """
    count, objects = mattes.shape[0], mattes.shape[3]
    middle = np.full((count, objects, 2), np.nan)
    for index in range(count):
        for number in range(objects):
            solid = _reduce(mattes[index, ..., number], size) > 0.5
            if solid.any():
                middle[index, number] = [_middle(solid.sum(axis=1)), _middle(solid.sum(axis=0))]
    present = ~np.isnan(middle[..., 0])
    times = np.arange(count)
    for number in range(objects):
        seen = present[:, number]
        for axis in range(2):
            if seen.any():
                path = np.interp(times, times[seen], middle[seen, number, axis])
                middle[:, number, axis] = _smooth_path(path)
            else:
                middle[:, number, axis] = 0
    return np.rint(middle).astype(np.int64), present


def _middle(counts: NDArray[Any]) -> float:
    """Return the median position of a histogram, between pixels where it falls there."""
    running = np.cumsum(counts)
    half = running[-1] / 2
    at = int(np.searchsorted(running, half))
    inside = counts[at]
    before = running[at] - inside
    return at - 0.5 + float((half - before) / inside)


def _smooth_path(path: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average a path over five frames; its ends are carried on straight."""
    if len(path) < 3:
        return path
    ends = 2 * path[0] - path[2:0:-1], 2 * path[-1] - path[-2:-4:-1]
    return np.convolve(np.concatenate([ends[0], path, ends[1]]), np.full(5, 0.2), "valid")


def _key_frames(count: int) -> list[int]:
    """Return the frames at which maps are learnt; the first and the last are among them."""
    return sorted({*range(0, count, KEY_STEP), count - 1})


# --- learning one map per object -----------------------------------------------------------------


def _window(clip: _Clip, number: int, index: int) -> tuple[slice, slice]:
    """Return where the picture of a frame lies in an object's map."""
    width, height = clip.size
    row, col = clip.places[index, number]
    row, col = min(max(int(row), 0), height), min(max(int(col), 0), width)
    return slice(height - row, 2 * height - row), slice(width - col, 2 * width - col)


def _view(found: Floats, clip: _Clip, number: int, index: int) -> Floats:
    return found[_window(clip, number, index)]


def _learn(clip: _Clip, key: int) -> Floats:
    """Return the density that moves along with each object around a key frame.

    Multiplicative updates explain the density of all frames in reach as a sum of maps, each at its
    object's place: what stays beside an object gathers in its map, what only passes thins out.

    Returns:
        [N,2h,2w] float32, each with its object in the middle.
    """
    objects = clip.places.shape[1]
    chances = _chances(clip, key)
    found = [_Sample(clip, f, _weight(f, key)) for f in _reach(clip, key)]
    maps = np.zeros_like(chances).reshape(objects, -1)
    for turn in range(_ROUNDS):
        gathered = np.zeros_like(maps)
        for sample in found:
            share = sample.linked if turn == 0 else sample.share(maps)
            for i in range(objects):
                if clip.present[sample.frame, i]:
                    gathered[i][sample.at[i]] += share[i] * sample.density
        maps = gathered / chances.reshape(objects, -1)
    return np.stack([cv2.GaussianBlur(m, (0, 0), 1.0) for m in maps.reshape(chances.shape)])


def _reach(clip: _Clip, key: int) -> range:
    """Return the frames that a key frame's maps are learnt from."""
    return range(max(0, key - KEY_REACH), min(len(clip.places), key + KEY_REACH + 1))


def _weight(index: int, key: int) -> np.float32:
    return np.float32(1 - abs(index - key) / (KEY_REACH + 1))


def _chances(clip: _Clip, key: int) -> Floats:
    """Return how often each place of a map could be seen, a little more than never. [N,2h,2w]."""
    objects, (width, height) = clip.places.shape[1], clip.size
    chances = np.full((objects, 2 * height, 2 * width), 0.5, np.float32)
    for f in _reach(clip, key):
        visible = clip.density(f)[1]
        for i in range(objects):
            if clip.present[f, i]:
                chances[i][_window(clip, i, f)] += _weight(f, key) * visible
    return chances


class _Sample:
    """The pixels of one frame that hold any density, and where each object's map meets them."""

    def __init__(self, clip: _Clip, frame: int, weight: np.float32) -> None:
        density, _, mattes = clip.density(frame)
        rows, cols = np.nonzero(density)
        self.frame = frame
        self.density = density[rows, cols] * weight
        self.linked = _connected(density, mattes)[:, rows, cols]
        self.at = []
        for number in range(len(mattes)):
            down, across = _window(clip, number, frame)
            self.at.append((rows + down.start) * (2 * clip.size[0]) + cols + across.start)

    def share(self, maps: Floats) -> Floats:
        """Return the shares that maps [N,m] speak for. [N,n] float32."""
        found = np.stack([m[at] for m, at in zip(maps, self.at, strict=True)])
        share: Floats = found / np.maximum(found.sum(axis=0), np.float32(1e-6))
        return share


# --- connection ----------------------------------------------------------------------------------


def _connected(density: Floats, mattes: Floats) -> Floats:
    """Return who owns each pixel by connection, else by distance. [N,h,w] float32, 0 or 1."""
    objects = len(mattes)
    bodies = [m >= 0.5 for m in mattes]
    changed = density > 0
    for body in bodies:
        changed |= body
    components, labels = cv2.connectedComponents(changed.astype(np.uint8), connectivity=8)
    far = np.float32(1e6)
    reach = np.full((objects, *density.shape), far, np.float32)
    for number, body in enumerate(bodies):
        if body.any():
            reach[number] = cv2.distanceTransform((~body).astype(np.uint8), cv2.DIST_L2, 3)
            linked = np.zeros(components, bool)
            linked[labels[cv2.dilate(body.astype(np.uint8), _disc(2)) > 0]] = True
            linked[0] = False
            reach[number][~linked[labels]] += far / 2
    owner = reach.argmin(axis=0)
    return np.stack([owner == number for number in range(objects)]).astype(np.float32)


def _settle(clip: _Clip, index: int, found: Floats) -> tuple[Floats, Floats, Bools]:
    """Return a frame's shares [N,h,w], its density [h,w] and where the owner is in doubt [h,w]."""
    density, _, mattes = clip.density(index)
    linked = _connected(density, mattes)
    total = found.sum(axis=0)
    share = found / np.maximum(total, np.float32(1e-6))
    trust = np.clip(total / np.maximum(_UNEXPLAINED * density, np.float32(_LEAST_DENSITY)), 0, 1)
    share = trust * share + (1 - trust) * linked
    most = share.max(axis=0)
    against = share.argmax(axis=0) != linked.argmax(axis=0)
    unsure = (density > 0) & ((most < 1 - _DOUBT) | (against & (trust < 1)))
    return share, density, unsure


# --- the artist's word, and sums -----------------------------------------------------------------


def _as_named(shares: Floats, named: Mapping[int, Floats]) -> Floats:
    """Return shares with each roto's pixels given to the object it names."""
    rotos = np.zeros_like(shares)
    for number, roto in named.items():
        rotos[..., number] = np.clip(roto[..., 0], 0, 1)
    said = rotos.max(axis=2, keepdims=True)
    whose = rotos / np.maximum(rotos.sum(axis=2, keepdims=True), np.float32(1e-6))
    result: Floats = said * whose + (1 - said) * shares
    return result


def _normalise(shares: Floats) -> Floats:
    total = shares.sum(axis=2, keepdims=True)
    even = np.float32(1 / shares.shape[2])
    return np.where(total > 0, shares / np.where(total > 0, total, 1), even).astype(np.float32)


def _quantise(share: Floats) -> NDArray[np.uint8]:
    """Return shares [N,h,w] as [h,w,N] uint8 that sum to 255: the largest takes the rounding."""
    whole = np.rint(np.moveaxis(share, 0, -1) * 255).astype(np.int16)
    top = whole.argmax(axis=2)[..., None]
    rest = 255 - whole.sum(axis=2, keepdims=True)
    np.put_along_axis(whole, top, np.take_along_axis(whole, top, 2) + rest, 2)
    return whole.astype(np.uint8)
