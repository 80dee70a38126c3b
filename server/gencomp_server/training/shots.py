# SPDX-License-Identifier: Apache-2.0
"""Procedural shots with known layers: what tests and benchmarks measure against.

A shot is a textured place under a moving camera, one or two walking figures with motion blur, and
what they leave behind: soft shadow, reflection on a glossy strip, smoke. Everything follows from a
:class:`ShotSpec`, which is read from a TOML file; equal specs give equal bits. All pictures are
scene-linear float32 [H,W,C], row 0 at the top, layers premultiplied; a layer's ``over`` on what
lies below it is the plate exactly, in float32. Grain is part of every surface: the clean plate has
its own, figures, reflections and smoke have theirs, a shadow has none (it only takes light away).
"""

from __future__ import annotations

import difflib
import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from gencomp_protocol.errors import BadKnob
from gencomp_protocol.frames import Box, FrameRange
from gencomp_protocol.layers import RGBA
from gencomp_server.contract import LayerFrame
from gencomp_server.training import figure
from gencomp_server.training.scenery import HORIZON, Scenery, fractal, make_scenery

Array = NDArray[np.floating[Any]]

SHADOW, REFLECTION, SMOKE = "shadow", "reflection", "smoke"
EFFECTS = (SHADOW, REFLECTION, SMOKE)  # bottom first
_NAMES = ("a", "b")  # front first
_KEPT_FRAMES = 3


@dataclass(frozen=True)
class ShotSpec:
    """All parameters of a procedural shot; the defaults are the standard shot.

    Lengths in pixels are those of a 384-line picture and scale with ``height``.

    Attributes:
        seed: Place, clothes, step, grain.
        width: Picture width in pixels.
        height: Picture height in pixels.
        first: First timeline frame.
        frames: Number of frames.
        pan: Pixels per frame that the camera moves, x and y.
        effects: Which of ``shadow``, ``reflection``, ``smoke`` the figures leave.
        objects: 1 or 2 figures.
        crossing_shadows: With two figures: their shadows fall towards each other and meet.
        handheld: The camera sways and rolls, and the wall has another parallax than the floor.
        grain: Sigma of the grain, scene-linear.
        highlight: Value of the lamp in the picture, scene-linear.
        speed: Pixels per frame that a figure walks across the picture.
        shutter: Share of a frame that the shutter is open.
        tall: Height of a figure as a share of the picture's.
    """

    seed: int = 901
    width: int = 640
    height: int = 384
    first: int = 1001
    frames: int = 24
    pan: tuple[float, float] = (2.6, 0.3)
    effects: tuple[str, ...] = EFFECTS
    objects: int = 1
    crossing_shadows: bool = False
    handheld: bool = False
    grain: float = 0.005
    highlight: float = 8.0
    speed: float = 7.0
    shutter: float = 0.5
    tall: float = 0.44

    def __post_init__(self) -> None:
        """Refuse a shot that cannot be made.

        Raises:
            BadKnob: A value is out of range; names it.
        """
        object.__setattr__(self, "pan", tuple(float(v) for v in self.pan))
        object.__setattr__(self, "effects", tuple(self.effects))
        unknown = set(self.effects) - set(EFFECTS)
        rules = {
            "seed": self.seed >= 0,
            "width": 32 <= self.width <= 16384,
            "height": 32 <= self.height <= 16384,
            "frames": self.frames >= 1,
            "pan": len(self.pan) == 2 and all(math.isfinite(v) for v in self.pan),
            "effects": not unknown,
            "objects": self.objects in (1, 2),
            "grain": 0.0 <= self.grain < 1.0,
            "highlight": self.highlight >= 0.0,
            "shutter": 0.0 <= self.shutter <= 1.0,
            "tall": 0.05 <= self.tall <= 0.75,
        }
        for name, holds in rules.items():
            if not holds:
                raise BadKnob(
                    f"A procedural shot cannot have {name} = {getattr(self, name)}.", knob=name
                )


def load_spec(path: Path | str) -> ShotSpec:
    """Read a shot's parameters from a TOML file; what it leaves out keeps its default.

    Raises:
        BadKnob: The file is not TOML, a key is unknown (names the nearest) or a value is wrong.
    """
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib  # type: ignore[import-not-found,no-redef,unused-ignore]
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadKnob(f"The shot '{Path(path).name}' cannot be read: {error}.") from error
    return spec_from(values)


def spec_from(values: dict[str, Any]) -> ShotSpec:
    """Make a spec from plain values.

    Raises:
        BadKnob: A key is unknown (names the nearest) or a value has the wrong type or range.
    """
    defaults = {f.name: f.default for f in fields(ShotSpec)}
    for key, value in values.items():
        if key not in defaults:
            near = difflib.get_close_matches(key, defaults, n=1)
            hint = f"Did you mean '{near[0]}'?" if near else f"Known are: {', '.join(defaults)}."
            raise BadKnob(f"A procedural shot has no '{key}'.", hint=hint, knob=key)
        if not _fits(value, defaults[key]):
            raise BadKnob(f"A procedural shot cannot have {key} = {value!r}.", knob=key)
    return ShotSpec(**values)


def _fits(value: Any, like: Any) -> bool:
    """Tell whether a TOML value has the type of a default; whole numbers pass for fractions."""
    if isinstance(like, tuple):
        return isinstance(value, (list, tuple)) and all(_fits(v, like[0]) for v in value)
    if isinstance(like, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(like, bool)
    if isinstance(like, float):
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, type(like))


def over(front: Array, below: Array) -> Array:
    """Composite premultiplied RGBA [H,W,4] over RGB or RGBA [H,W,3|4], in float32."""
    channels = below.shape[2]
    return np.asarray(front[..., :channels] + (1.0 - front[..., 3:]) * below, dtype=np.float32)


class ProceduralShot:
    """A shot whose layers are known, a frame at a time; the last few frames are kept.

    Args:
        spec: What to make.
    """

    def __init__(self, spec: ShotSpec) -> None:
        self.spec = spec
        self.frames = FrameRange(spec.first, spec.first + spec.frames - 1)
        self.names: tuple[str, ...] = _NAMES[: spec.objects]
        self._scale = spec.height / 384.0
        self._size = (spec.width, spec.height)
        pan = (spec.pan[0] * self._scale, spec.pan[1] * self._scale)
        self.scenery: Scenery = make_scenery(
            spec.seed, *self._size, spec.frames, pan, spec.highlight, spec.handheld
        )
        self._looks = tuple(figure.make_look(spec.seed, i) for i in range(spec.objects))
        rng = np.random.default_rng([spec.seed, 31])
        self._veil = fractal(rng, 512, 512, 1.55)
        self._kept: OrderedDict[tuple[str, str, int], Any] = OrderedDict()

    # --- what a job is given ---------------------------------------------------------------------

    def plate(self, n: int) -> Array:
        """Return the picture: every layer over the clean plate, front first. [H,W,3]."""
        picture = self.clean_plate(n)
        for name in reversed(self.names):
            picture = over(self.layer(name, n), picture)
        return picture

    def clean_plate(self, n: int) -> Array:
        """Return exactly what lies under the layers, its own grain included. [H,W,3]."""
        made: Array = self._keep("clean", "", n, lambda: self._clean(n))
        return made

    def solo(self, name: str, n: int) -> Array:
        """Return the clean plate with one object and its effects alone. [H,W,3]."""
        return over(self.layer(name, n), self.clean_plate(n))

    def matte(self, name: str, n: int, grow_px: int = 0, jitter_px: int = 1) -> Array:
        """Return a roto of the object without effects: its alpha over 0.5. [H,W,1], 0 or 1.

        Args:
            name: Which object.
            n: Timeline frame.
            grow_px: Pixels that the roto is too large (or, negative, too small).
            jitter_px: The size changes by up to this many pixels from frame to frame.
        """
        inside = (self.object_layer(name, n)[..., 3] > 0.5).astype(np.uint8)
        rng = np.random.default_rng([self.spec.seed, 41, self.names.index(name), n])
        grow = grow_px + int(rng.integers(-jitter_px, jitter_px + 1))
        if grow:
            kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(grow) + 1,) * 2)
            inside = np.asarray((cv2.dilate if grow > 0 else cv2.erode)(inside, kernel), np.uint8)
        return inside.astype(np.float32)[..., None]

    # --- the truth -------------------------------------------------------------------------------

    def layer(self, name: str, n: int) -> Array:
        """Return object and effects together: the true layer. [H,W,4]."""
        made: Array = self._keep("layer", name, n, lambda: self._layer(name, n))
        return made

    def object_layer(self, name: str, n: int) -> Array:
        """Return the object without its effects. [H,W,4]."""
        made: Array = self._keep("object", name, n, lambda: self._object(name, n))
        return made

    def effect_layers(self, name: str, n: int) -> dict[str, Array]:
        """Return each effect by kind, the lowest first; objects lie over them. [H,W,4] each."""
        made: dict[str, Array] = self._keep("effects", name, n, lambda: self._effects(name, n))
        return made

    def foot(self, name: str, t: float) -> tuple[float, float]:
        """Return the picture point under an object's hip, ``t`` frames after the first."""
        spec, index = self.spec, self.names.index(name)
        look = self._looks[index]
        start = (0.24 if index == 0 else 0.84) * spec.width
        row = (0.80 if index == 0 else 0.755) * spec.height
        pan = (spec.pan[0] * self._scale, spec.pan[1] * self._scale)
        origin = self.scenery.camera.origin
        x = origin[0] + start + (pan[0] + look.facing * spec.speed * self._scale) * t
        y = origin[1] + row + pan[1] * t
        return self.scenery.camera.to_picture(t, x, y)

    # --- how it is made --------------------------------------------------------------------------

    def _keep(self, kind: str, name: str, n: int, make: Callable[[], Any]) -> Any:
        """Return what ``make`` gives, kept for the last few frames."""
        if n not in self.frames:
            raise KeyError(f"frame {n} is not one of {self.frames}")
        key = (kind, name, n)
        if key not in self._kept:
            made = make()
            self._kept[key] = made
            while len(self._kept) > _KEPT_FRAMES * (1 + 3 * len(self.names)):
                self._kept.popitem(last=False)
        return self._kept[key]

    def _grain(self, stream: int, n: int) -> Array:
        rng = np.random.default_rng([self.spec.seed, 51, stream, n])
        shape = (self.spec.height, self.spec.width, 3)
        return rng.standard_normal(shape, dtype=np.float32) * np.float32(self.spec.grain)

    def _clean(self, n: int) -> Array:
        view = np.maximum(self.scenery.view(float(n - self.spec.first)), 0.004)
        return np.asarray(view + self._grain(0, n), dtype=np.float32)

    def _object(self, name: str, n: int) -> Array:
        spec, index = self.spec, self.names.index(name)
        middle, count = float(n - spec.first), figure.SUBFRAMES
        steps = (np.arange(count) + 0.5) / count - 0.5
        times = tuple(float(middle + spec.shutter * s) for s in steps)
        feet = tuple(self.foot(name, t) for t in times)
        drawn = figure.draw(self._looks[index], feet, times, self._tall, self._size)
        drawn[..., :3] += drawn[..., 3:] * self._grain(1 + index, n)
        return drawn

    @property
    def _tall(self) -> float:
        return self.spec.tall * self.spec.height

    def _effects(self, name: str, n: int) -> dict[str, Array]:
        t, body = float(n - self.spec.first), self.object_layer(name, n)
        foot, index = self.foot(name, t), self.names.index(name)
        grain = self._grain(5 + index, n)
        made: dict[str, Array] = {}
        if SHADOW in self.spec.effects:
            horizon = HORIZON * self.spec.height - self.spec.pan[1] * self._scale * t
            lean = self._lean(index)
            made[SHADOW] = figure.cast_shadow(body[..., 3], foot, self._tall, lean, 0.62, horizon)
        if REFLECTION in self.spec.effects:
            gloss = self.scenery.gloss_at(t)
            made[REFLECTION] = figure.mirror(body, foot, self._tall, gloss, 0.42)
        if SMOKE in self.spec.effects:
            trail = self._trail(name, t)
            drift = 2.2 * self._scale * t + 97.0 * index
            made[SMOKE] = figure.puff(trail, self._veil, drift, self._tall, self._size)
        for kind, layer in made.items():
            if kind != SHADOW:
                layer[..., :3] += layer[..., 3:] * grain
        return made

    def _lean(self, index: int) -> float:
        """Return how far sideways a shadow falls, in figure heights per figure height."""
        side = 1.0 if index == 0 else -1.0
        if self.spec.objects == 1:
            return 0.55
        return side * (0.85 if self.spec.crossing_shadows else -0.45)

    def _trail(self, name: str, t: float) -> tuple[tuple[float, float, float], ...]:
        """Return the puffs of smoke behind a figure: picture point and age in frames."""
        look = self._looks[self.names.index(name)]
        camera, rise = self.scenery.camera, 2.2 * self._scale
        puffs = []
        for age in np.arange(1.0, 22.0, 1.5):
            x, y = self.foot(name, t - age)
            shift = camera.matrix(t - age)[:, 2] - camera.matrix(t)[:, 2]
            wobble = 4.0 * self._scale * math.sin(0.9 * (t - age))
            hand = y - 0.34 * self._tall
            x = x + float(shift[0]) - look.facing * 0.16 * self._tall + wobble
            puffs.append((x, hand + float(shift[1]) - rise * float(age) * 0.6, float(age)))
        return tuple(puffs)

    def _layer(self, name: str, n: int) -> Array:
        picture = np.zeros((self.spec.height, self.spec.width, 4), np.float32)
        for effect in self.effect_layers(name, n).values():
            picture = over(effect, picture)
        return over(self.object_layer(name, n), picture)


def write_shot(spec: ShotSpec, folder: Path | str, *, grow_px: int = 2) -> None:
    """Write a shot as EXR sequences: plate, clean_plate, matte_<name>, truth/<name>.

    Half float, timeline frame numbers, ``<folder>/plate/plate.1001.exr``.

    Args:
        spec: What to make.
        folder: Where; made if missing.
        grow_px: Pixels that the mattes are too large.
    """
    from gencomp_server.exr.write import write_layer

    shot, base = ProceduralShot(spec), Path(folder)
    rgb = RGBA[:3]
    for n in shot.frames:
        pictures: dict[str, tuple[Array, tuple[str, ...]]] = {
            "plate": (shot.plate(n), rgb),
            "clean_plate": (shot.clean_plate(n), rgb),
        }
        for name in shot.names:
            pictures[f"matte_{name}"] = (shot.matte(name, n, grow_px), ("A",))
            pictures[f"truth/{name}"] = (shot.layer(name, n), RGBA)
        for place, (pixels, channels) in pictures.items():
            path = base / place / f"{Path(place).name}.{n:04d}.exr"
            path.parent.mkdir(parents=True, exist_ok=True)
            window = Box(0, 0, spec.width - 1, spec.height - 1)
            half = pixels.astype(np.float16)
            write_layer(path, LayerFrame(place, n, half, channels, window, window))


def spec_as_toml(spec: ShotSpec) -> str:
    """Spell a spec as the TOML file that :func:`load_spec` reads back to an equal spec."""
    lines = []
    for key, value in asdict(spec).items():
        if isinstance(value, tuple):
            text = "[" + ", ".join(f'"{v}"' if isinstance(v, str) else repr(v) for v in value) + "]"
        else:
            text = str(value).lower() if isinstance(value, bool) else repr(value)
        lines.append(f"{key} = {text}")
    return "\n".join(lines) + "\n"
