# SPDX-License-Identifier: Apache-2.0
"""Clips for training as layers, and those that lie on disk; ``procedural.py`` makes others.

What a recipe is given of a clip are :class:`Layers`: a stretch of frames, cut and resized to the
size the model is trained at, as codes of the model's range brought to 0..1. What is composited is
composited in scene-linear light, before it is coded.

The stretch and the cut are a :class:`Cut`, chosen by the recipe's own random numbers, so that a
clip gives the same picture whenever it is asked for the same cut.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from gencomp_protocol.errors import BadKnob, BadPicture
from gencomp_server.parts.fit import to_model_frame
from gencomp_server.parts.windows import source_index
from gencomp_server.training.layout import BACKGROUND, FG, MATTE, ORIGINAL, Clip, read_picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.colour.modelrange import ModelRange

    Floats = NDArray[np.float32]

_KEPT_BYTES = 2 << 30


@dataclass(frozen=True)
class Cut:
    """What of a clip is looked at.

    Attributes:
        first: First frame, counted from 0.
        count: Frames; a shorter clip is played forwards and backwards.
        size: Width and height it is resized to.
        share: Side of the cut as a share of the largest that has the size's shape, 0..1.
        across: Where the cut lies, 0 at the left edge, 1 at the right.
        down: Where the cut lies, 0 at the top edge, 1 at the bottom.
        squeezed: True to take the whole picture, whatever its shape, as jobs of models of one size
            do; the cut is then nowhere.
    """

    first: int
    count: int
    size: tuple[int, int]
    share: float = 1.0
    across: float = 0.5
    down: float = 0.5
    squeezed: bool = False

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return the cut of a picture as left, top, right and bottom; the last two exclusive."""
        if self.squeezed:
            return 0, 0, width, height
        shape = self.size[0] / self.size[1]
        wide = min(width, height * shape) * self.share
        w = min(width, max(1, round(wide)))
        h = min(height, max(1, round(wide / shape)))
        x, y = round((width - w) * self.across), round((height - h) * self.down)
        return x, y, x + w, y + h


@dataclass(frozen=True)
class Layers:
    """A cut of a clip. Pictures are codes 0..1, [T,H,W,3]; mattes coverage 0..1, [T,H,W,1].

    Attributes:
        name: The clip's.
        original: The picture with everything in it.
        matte: The subject's coverage; None where the clip is unpaired.
        background: The picture without the subject and its effects; None where unpaired.
        over: The subject without its effects over the background; None where unpaired.
        others: Coverage of what else is in the picture and known; None where nothing is.
        clean: The picture without subject and others; None where there are none.
        captions: What is seen, in words; any of them will do.
        synthetic: True where every layer is known exactly.
        pasted: True where the subject leaves no effects at all.
    """

    name: str
    original: Floats
    matte: Floats | None = None
    background: Floats | None = None
    over: Floats | None = None
    others: Floats | None = None
    clean: Floats | None = None
    captions: tuple[str, ...] = ("",)
    synthetic: bool = False
    pasted: bool = False

    @property
    def unpaired(self) -> bool:
        """Tell whether there is a picture and a caption alone."""
        return self.matte is None


class Clips(Protocol):
    """Clips for training.

    Attributes:
        names: The clips' names.
        identity: Digest of what decides their pixels and captions; of files on disk their sizes.
    """

    names: tuple[str, ...]
    identity: str

    def length(self, index: int) -> int:
        """Return how many frames a clip has."""
        ...

    def captions(self, index: int) -> tuple[str, ...]:
        """Return a clip's captions, at least one; it may be empty."""
        ...

    def load(self, index: int, cut: Cut) -> Layers:
        """Return a cut of a clip."""
        ...


# --- on disk -------------------------------------------------------------------------------------


class DiskClips:
    """Clips in the layout of :mod:`gencomp_server.training.layout`.

    Args:
        clips: What ``layout.read_clips`` found.
        variants: Further captions by clip's name.

    Raises:
        BadKnob: There is none; or captions are given for a clip that is not there.
    """

    def __init__(
        self, clips: list[Clip], variants: Mapping[str, tuple[str, ...]] | None = None
    ) -> None:
        if not clips:
            raise BadKnob("There is no clip to train on.", hint="gencomp decompose writes clips.")
        self._clips = clips
        self.names = tuple(clip.name for clip in clips)
        self._variants = dict(variants or {})
        strange = sorted(set(self._variants) - set(self.names))
        if strange:
            raise BadKnob(
                f"Captions are given for the clip '{strange[0]}', which is not there.",
                hint=f"The clips are: {', '.join(self.names[:8])}.",
            )
        facts = [
            [c.name, c.frames, c.unpaired, c.working_space, c.exposure, self.captions(i)]
            for i, c in enumerate(clips)
        ]
        sizes = [[sum(p.stat().st_size for p in c.files(one)) for one in c.layers] for c in clips]
        self.identity = digest([facts, sizes])
        self._kept: Kept = Kept()

    def length(self, index: int) -> int:
        """Return how many frames a clip has."""
        return len(self._clips[index].frames)

    def captions(self, index: int) -> tuple[str, ...]:
        """Return a clip's own caption and its variants."""
        clip = self._clips[index]
        own = (clip.caption,) if clip.caption else ()
        return (*own, *self._variants.get(clip.name, ())) or ("",)

    def load(self, index: int, cut: Cut) -> Layers:
        """Return a cut of a clip.

        Raises:
            BadPicture: A file is damaged, or the layers of a clip differ in size.
            MissingFrame: A file is gone.
        """
        return self._kept.get((index, cut), lambda: self._load(index, cut))

    def _load(self, index: int, cut: Cut) -> Layers:
        clip = self._clips[index]
        sees, captions = _range_of(clip), self.captions(index)
        at = source_index(len(clip.frames), cut.first + cut.count)[cut.first :]
        made = {i: _frame(clip, i, cut, sees) for i in sorted(set(at))}
        stacks: dict[str, Any] = {
            name: np.stack([made[i][name] for i in at]) for name in made[at[0]]
        }
        return Layers(clip.name, **stacks, captions=captions)


def _range_of(clip: Clip) -> ModelRange:
    from gencomp_server.colour.modelrange import ModelRange
    from gencomp_server.colour.spaces import resolve

    return ModelRange(clip.exposure, resolve(clip.working_space, clip.ocio))


def _frame(clip: Clip, i: int, cut: Cut, sees: ModelRange) -> dict[str, Floats]:
    """Return the cut of one frame's layers by their names in :class:`Layers`.

    ``over`` is the subject over the background, eq. 2 of Over++, composited in light.
    """
    read = {layer: read_picture(clip.files(layer)[i]) for layer in clip.layers}
    if len({picture.shape[:2] for picture in read.values()}) > 1:
        raise BadPicture(
            f"The layers of clip '{clip.name}' differ in size on frame {clip.frames[i]}.",
            hint="Write the clip again with gencomp decompose.",
            frame=clip.frames[i],
        )
    if clip.unpaired:
        return {ORIGINAL: cut_of(read[ORIGINAL], cut, sees)}
    over = read[FG] + (1 - read[MATTE]) * read[BACKGROUND]
    return {
        ORIGINAL: cut_of(read[ORIGINAL], cut, sees),
        MATTE: cut_of(read[MATTE], cut, None),
        BACKGROUND: cut_of(read[BACKGROUND], cut, sees),
        "over": cut_of(over, cut, sees),
    }


def cut_of(picture: Floats, cut: Cut, sees: ModelRange | None) -> Floats:
    """Cut, resize and code one picture, in the order of a job: what is averaged is light.

    [H,W,C] light, or coverage where nothing sees it -> [h,w,C] in 0..1.
    """
    left, top, right, bottom = cut.box(picture.shape[1], picture.shape[0])
    part = to_model_frame(np.ascontiguousarray(picture[top:bottom, left:right]), cut.size)
    return np.asarray(np.clip(part if sees is None else sees.code(part), 0, 1), np.float32)


def read_captions(file: Path) -> dict[str, tuple[str, ...]]:
    """Read caption variants: a JSON object, a list of captions by clip's name.

    Raises:
        BadKnob: It is not there, or is not that.
    """
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadKnob(f"The captions {file} cannot be read: {error}.") from error
    if not isinstance(plain, dict) or not all(
        isinstance(one, list) and one and all(isinstance(text, str) for text in one)
        for one in plain.values()
    ):
        raise BadKnob(
            f"The captions {file} are not lists of texts by clip.",
            hint='Write them as {"clip": ["a caption", "another"]}.',
        )
    return {name: tuple(one) for name, one in plain.items()}


# --- kept ----------------------------------------------------------------------------------------


class Kept:
    """Layers that were asked for, the latest ones, as many as a budget of memory holds."""

    def __init__(self) -> None:
        self._held: OrderedDict[object, Layers] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: object, make: Callable[[], Layers]) -> Layers:
        """Return what is kept under a key, or what ``make`` gives."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        made = make()
        with self._lock:
            if key not in self._held:
                self._bytes += _bytes_of(made)
            self._held[key] = made
            while self._bytes > _KEPT_BYTES and len(self._held) > 1:
                self._bytes -= _bytes_of(self._held.popitem(last=False)[1])
        return made


def _bytes_of(layers: Layers) -> int:
    return sum(one.nbytes for one in vars(layers).values() if isinstance(one, np.ndarray))


def digest(facts: object) -> str:
    """Return a digest of plain facts."""
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()
