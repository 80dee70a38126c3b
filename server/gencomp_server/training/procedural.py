# SPDX-License-Identifier: Apache-2.0
"""Procedural clips for training: any number of them, every layer known exactly.

They teach a model nothing about the world. They show that a recipe learns, on any machine, before
filmed clips are gathered; and they are what its tests stand on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gencomp_protocol.errors import BadKnob
from gencomp_server.parts.windows import source_index
from gencomp_server.training.data import Cut, Kept, Layers, cut_of, digest
from gencomp_server.training.shots import EFFECTS, ProceduralShot, ShotSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

# Clips are made this much larger than the model's size: room for random cropping.
_ROOM = 1.25
_PLACE = "A person walks across a stone floor in front of a wall"
_EFFECT_WORDS = {
    "shadow": "casting a soft shadow",
    "reflection": "mirrored in a glossy strip of the floor",
    "smoke": "trailing smoke",
}


@dataclass(frozen=True)
class ProceduralSet:
    """Which procedural clips there are.

    Attributes:
        count: How many.
        size: Width and height the model is trained at; clips are a quarter larger.
        frames: Frames of each.
        seed: Their first seed.
        unpaired: How many of them, the last ones, are a picture and a caption alone.
        pasted: How many of the first leave no effects.
        pairs: True to put a second figure into every third clip.
    """

    count: int
    size: tuple[int, int]
    frames: int
    seed: int = 1
    unpaired: int = 0
    pasted: int = 0
    pairs: bool = True


@dataclass
class ProceduralClips:
    """Procedural clips with every layer known; any number of them.

    Args:
        made: Which.
    """

    made: ProceduralSet
    names: tuple[str, ...] = field(init=False)
    identity: str = field(init=False)

    def __post_init__(self) -> None:
        """Name the clips.

        Raises:
            BadKnob: There is none, or a number is negative.
        """
        if self.made.count < 1 or not 0 <= self.made.unpaired <= self.made.count:
            raise BadKnob(f"{self.made.count} procedural clips cannot be trained on.")
        self.names = tuple(f"procedural{i:04d}" for i in range(self.made.count))
        self.identity = digest([1, asdict(self.made)])
        self._kept: Kept = Kept()

    def spec(self, index: int) -> ShotSpec:
        """Return the shot that a clip is."""
        rng = np.random.default_rng([self.made.seed, index, 3])
        chosen = [effect for effect in EFFECTS if rng.random() < 0.6] or [EFFECTS[0]]
        if index < self.made.pasted:
            chosen = []
        return ShotSpec(
            seed=self.made.seed * 1000 + index,
            width=max(32, round(self.made.size[0] * _ROOM)),
            height=max(32, round(self.made.size[1] * _ROOM)),
            first=0,
            frames=self.made.frames,
            pan=(float(rng.uniform(-3, 3)), float(rng.uniform(-0.4, 0.4))),
            effects=tuple(chosen),
            objects=2 if self.made.pairs and index % 3 == 2 else 1,
            handheld=bool(rng.random() < 0.3),
            speed=float(rng.uniform(4, 10)),
            tall=float(rng.uniform(0.4, 0.6)),
        )

    def length(self, index: int) -> int:
        """Return how many frames a clip has."""
        return self.made.frames

    def captions(self, index: int) -> tuple[str, ...]:
        """Return captions of a clip: in full, and in short."""
        effects = [_EFFECT_WORDS[effect] for effect in self.spec(index).effects]
        full = ", ".join([_PLACE, *effects])
        short = " and ".join(self.spec(index).effects) or "no effects"
        return (f"{full}.", f"A walking person, {short}.")

    def load(self, index: int, cut: Cut) -> Layers:
        """Return a cut of a clip; what is kept is the whole clip, since cuts are drawn anew."""
        whole = self._kept.get(index, lambda: self._whole(index))
        at = source_index(self.made.frames, cut.first + cut.count)[cut.first :]
        changed: dict[str, Any] = {
            name: np.stack([cut_of(value[i], cut, None) for i in at])
            for name, value in vars(whole).items()
            if isinstance(value, np.ndarray)
        }
        return replace(whole, **changed)

    def _whole(self, index: int) -> Layers:
        """Make every frame of a clip at the clip's own size."""
        from gencomp_server.colour.modelrange import ModelRange

        shot, sees = ProceduralShot(self.spec(index)), ModelRange()
        own = Cut(0, self.made.frames, (shot.spec.width, shot.spec.height))

        def stack(make: Callable[[int], Floats], light: bool = True) -> Floats:
            return np.stack([cut_of(make(n), own, sees if light else None) for n in shot.frames])

        original, captions = stack(shot.plate), self.captions(index)
        if index >= self.made.count - self.made.unpaired:
            return Layers(self.names[index], original, captions=captions, synthetic=True)
        two = len(shot.names) == 2

        def below(n: int) -> Floats:
            found = shot.solo("b", n) if two else shot.clean_plate(n)
            return np.asarray(found, np.float32)

        def over(n: int) -> Floats:
            subject = shot.object_layer("a", n)
            return np.asarray(subject[..., :3] + (1 - subject[..., 3:]) * below(n), np.float32)

        return Layers(
            self.names[index],
            original,
            matte=stack(lambda n: shot.object_layer("a", n)[..., 3:], light=False),
            background=stack(below),
            over=stack(over),
            others=stack(lambda n: shot.object_layer("b", n)[..., 3:], light=False)
            if two
            else None,
            clean=stack(shot.clean_plate) if two else None,
            captions=captions,
            synthetic=True,
            pasted=not shot.spec.effects,
        )
