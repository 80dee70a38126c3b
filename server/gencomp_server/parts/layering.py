# SPDX-License-Identifier: Apache-2.0
"""One frame's layers from what was solved: whose alpha it is, at plate size, exact against it.

Without solos one alpha stands for everything before the background and is shared out. With solos
each object has an alpha and a colour of its own, also where another object hides it: that part of
its layer lies under the other's, and shows where the other is moved away.

Frames at plate size are made one at a time; :class:`Scene` alone is a whole clip, at model size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from gencomp_protocol.layers import (
    BACKGROUND,
    CLEAN,
    EFFECTS_PREFIX,
    EFFECTS_SUFFIX,
    MATTE_PREFIX,
    OBJECT_SUFFIX,
    ORIGIN,
    ORIGIN_CHANNELS,
    PATCH,
    PLATE,
    RESIDUAL,
    RGBA,
)
from gencomp_server.contract import LayerFrame
from gencomp_server.parts.behind import bound_of, regrained
from gencomp_server.parts.fit import to_model_frame, upsample_steered
from gencomp_server.parts.noise import coverage
from gencomp_server.parts.origin import origin_of_removal
from gencomp_server.parts.ownership import object_alphas, shares_at, split_bodies
from gencomp_server.parts.patch import patch_frame, touched
from gencomp_server.parts.pictures import coverage_of, linear, native, over_data_window
from gencomp_server.parts.recompose import APART, FOLDED, LEAST_ALPHA, recompose_frame
from gencomp_server.parts.split import split_effects
from gencomp_server.parts.stack import stack_error
from gencomp_server.parts.window import finite

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_server.contract import Context, Shot
    from gencomp_server.parts.behind import Behind, Sources
    from gencomp_server.parts.grain import Grain
    from gencomp_server.parts.noise import NoiseFloor
    from gencomp_server.parts.ownership import Ownership
    from gencomp_server.parts.recompose import Recomposed
    from gencomp_server.parts.stack import StackError

    Floats = NDArray[np.float32]
    Bools = NDArray[np.bool_]

MATTE_PRESENT = 0.05
"""A matte pixel above this is taken for object when the background is looked for."""
_TOUCHED = 2.0**-13
TOUCH_PX = 2
"""Mattes this near, in model pixels, touch: the hind object may be hidden by the front one."""


@dataclass(frozen=True)
class Scene:
    """The shot at model size, finite, over the display window.

    Attributes:
        frames: Timeline frames, in order.
        plate: [T,h,w,3] float32, scene-linear.
        mattes: In the order of the request. [T,h,w,N] float16, 0..1.
    """

    frames: tuple[int, ...]
    plate: Any
    mattes: Any

    @property
    def size(self) -> tuple[int, int]:
        """Model size as (width, height)."""
        return int(self.plate.shape[2]), int(self.plate.shape[1])

    def place(self, n: int) -> int:
        """Return the place of a timeline frame."""
        return self.frames.index(n)

    def matte(self, n: int) -> Floats:
        """Return the union of all mattes. [h,w,1] float32."""
        found = self.mattes[self.place(n)].max(axis=2, keepdims=True)
        return np.asarray(found, np.float32)

    def own_and_others(self, n: int, k: int) -> tuple[Floats, Floats]:
        """Return one object's matte, and the union of all others. [h,w,1] float32 each."""
        mattes = np.asarray(self.mattes[self.place(n)], np.float32)
        others = np.delete(mattes, k, axis=2).max(axis=2, keepdims=True, initial=0.0)
        return mattes[..., k : k + 1], others

    def covered(self, n: int) -> Bools:
        """Return where any matte is. [h,w] bool."""
        return np.asarray(self.matte(n)[..., 0] > MATTE_PRESENT)


@dataclass(frozen=True)
class FrameAlpha:
    """What one frame's solve gives, at model size.

    Attributes:
        together: One alpha for all objects, or one for each where they have solos.
            [h,w,1 or N] float32.
        objects: The part of it that the mattes show. [h,w,1 or N] float32.
    """

    together: Any
    objects: Any


@dataclass(frozen=True)
class Material:
    """Everything that the layers of a frame are made of.

    Attributes:
        shot: The shot.
        scene: The same at model size.
        order: Objects front to back, by frame.
        behind: The clean plate.
        solo: The plate with one object alone, by name and frame; None where there are none.
            [H,W,3] float32, scene-linear.
        solved: By place of the frame.
        noise: The shot's floor at plate size.
        owned: Whose the effects are, where no solo tells.
        grain: The plate's, where the clean plate is to be regrained.
    """

    shot: Shot
    scene: Scene
    order: Callable[[int], tuple[str, ...]]
    behind: Behind
    solo: Callable[[str, int], Floats] | None
    solved: list[FrameAlpha]
    noise: NoiseFloor
    owned: Ownership | None
    grain: Grain | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Objects in the order of the request."""
        return self.shot.request.named(MATTE_PREFIX)


@dataclass(frozen=True)
class _Fronts:
    """What stands before the background in one frame, front to back, at plate size.

    Attributes:
        alphas: Of object and effects together. Each [H,W,1] float32.
        objects: The part that the mattes show. Each [H,W,1] float32.
        colours: Premultiplied, where solos tell them. Each [H,W,3] float32.
    """

    alphas: list[Any]
    objects: list[Any]
    colours: list[Any] | None = None


@dataclass(frozen=True)
class Delivered:
    """One frame's layers over the display window.

    Attributes:
        stack: The background and the objects' layers, these front to back in this frame's order.
        order: That order.
        pictures: Every layer by its name.
    """

    stack: Recomposed
    order: tuple[str, ...]
    pictures: dict[str, Any]


def deliver_frame(
    material: Material, n: int, ctx: Context, *, apart: bool, split: bool, origin: bool
) -> Delivered:
    """Make one frame's layers over the display window.

    Args:
        material: What they are made of.
        n: Timeline frame.
        ctx: The run's context.
        apart: Whether the residual is a layer of its own.
        split: Whether object and effects are wanted apart too.
        origin: Whether it is to be said where the clean picture comes from.
    """
    own, order = native(material.shot, PLATE, n), material.order(n)
    bound = bound_of(material.shot, n)
    sources = material.behind.sources(n) if origin or material.grain is not None else None
    whole = material.behind.clean(n).pixels.astype(np.float32)
    clean, grained = _bounded(whole, own, bound), None
    find = _shared_fronts if material.solo is None else _solo_fronts
    fronts = find(material, order, n, clean, bound)
    if sources is not None and material.grain is not None:
        seen = np.any([alpha[..., 0] > 0 for alpha in fronts.alphas], axis=0)
        noise = ctx.generator(f"grain {n}")
        grained = _bounded(regrained(whole, seen, sources, material.grain, noise), own, bound)
    made = recompose_frame(
        own,
        clean,
        fronts.alphas,
        noise=material.noise,
        colours=fronts.colours,
        residual=APART if apart else FOLDED,
        grained=grained,
    )
    patched = patch_frame(own, made.background, _coverage(made))
    pictures = {BACKGROUND: made.background, **dict(zip(order, made.layers, strict=True))}
    if split:
        pairs = split_effects(own, made.background, made.layers, fronts.objects, made.residual)
        for name, pair in zip(order, pairs, strict=True):
            pictures[name + OBJECT_SUFFIX], pictures[name + EFFECTS_SUFFIX] = pair
    if made.residual is not None:
        pictures[RESIDUAL] = made.residual
    pictures |= {CLEAN: patched.clean, PATCH: patched.patch}
    if origin and sources is not None:
        pictures[ORIGIN] = _origin(own, patched.clean, made, sources, bound)
    return Delivered(made, order, pictures)


def _bounded(clean: Floats, own: Any, bound: Floats | None) -> Floats:
    """Return a clean plate that is the plate where nothing may differ. [H,W,3] float32."""
    if bound is None:
        return clean
    plate = finite(own[..., :3])
    return np.where(bound < 1, plate + bound * (clean - plate), clean)


def _coverage(made: Recomposed) -> Floats:
    """Return the alpha of all layers together. [H,W] float32."""
    through = np.ones(made.lifted.shape, np.float32)
    for layer in made.layers:
        through *= 1 - layer[..., 3].astype(np.float32)
    covered = np.any([layer[..., 3] > 0 for layer in made.layers], axis=0)
    return np.where(covered, np.maximum(1 - through, np.float32(LEAST_ALPHA)), np.float32(0))


def _origin(
    own: Any, clean: Any, made: Recomposed, sources: Sources, bound: Floats | None
) -> Floats:
    """Say where the clean picture comes from. [H,W,5] float32."""
    lifted = made.lifted.astype(np.float32)
    foreign, gained = (1 - lifted) * sources.foreign, np.maximum(lifted, sources.gained)
    if bound is not None:
        foreign, gained = foreign * bound[..., 0], gained * bound[..., 0]
    differs = touched(own, clean)
    # What rounding alone has moved comes from nowhere else, and yet is not the plate's sample.
    foreign = np.where(foreign + gained > 0, foreign, np.float32(_TOUCHED))
    amount, lit = (np.where(differs, share, np.float32(0)) for share in (foreign, gained))
    return origin_of_removal(amount, sources.other, sources.frame, gained=lit)


def _shared_fronts(
    material: Material, order: tuple[str, ...], n: int, clean: Any, bound: Floats | None
) -> _Fronts:
    """Share the one alpha of all objects out among them."""
    scene, i = material.scene, material.scene.place(n)
    mattes = _mattes(material.shot, order, n)
    plate = linear(material.shot, PLATE, n)
    matte = mattes.max(axis=2, keepdims=True)
    alpha, body = _at_plate(material, n, 0, scene.plate[i], plate, clean, matte, bound)
    if material.owned is None:
        return _Fronts([alpha], [body])
    places = [material.names.index(name) for name in order]
    ordered = replace(material.owned, shares=material.owned.shares[..., places])
    named = _named_effects(material.shot, order, n)
    shares = shares_at(ordered, i, mattes, alpha=alpha, named=named)
    each, bodies = object_alphas(alpha, shares), split_bodies(body, mattes)
    parts = range(len(order))
    return _Fronts([each[..., k : k + 1] for k in parts], [bodies[..., k : k + 1] for k in parts])


def _solo_fronts(
    material: Material, order: tuple[str, ...], n: int, clean: Any, bound: Floats | None
) -> _Fronts:
    """Take each object's alpha and colour from its own solo."""
    assert material.solo is not None
    alphas, bodies, colours = [], [], []
    for name in order:
        solo = material.solo(name, n)
        low = to_model_frame(solo, material.scene.size)
        matte = coverage_of(material.shot, MATTE_PREFIX + name, n)
        k = material.names.index(name)
        alpha, body = _at_plate(material, n, k, low, solo, clean, matte, bound)
        alphas.append(alpha)
        bodies.append(body)
        colours.append(np.maximum(solo - (1.0 - alpha) * clean, 0.0) * (alpha > 0))
    return _Fronts(alphas, bodies, colours)


def _at_plate(
    material: Material,
    n: int,
    k: int,
    guide_low: Any,
    guide: Any,
    clean: Any,
    matte: Any,
    bound: Floats | None,
) -> tuple[Any, Any]:
    """Bring a solved alpha, and the object's part of it, to plate size, above the noise floor.

    Args:
        material: What the layers are made of.
        n: Timeline frame.
        k: Which of the solved alphas.
        guide_low: What it was solved on, at model size. [h,w,3] float32.
        guide: The same at plate size. [H,W,3] float32.
        clean: Clean plate. [H,W,3] float32.
        matte: The objects' mattes together. [H,W,1] float32.
        bound: How far anything may differ from the plate, where it is bounded. [H,W,1] float32.
    """
    found = material.solved[material.scene.place(n)]
    low, low_body = (np.asarray(x[..., k : k + 1]) for x in (found.together, found.objects))
    alpha = upsample_steered(low, guide_low, guide)
    alpha *= coverage(alpha, guide, clean, material.noise, matte=matte)
    if bound is not None:
        alpha *= bound
    return alpha, np.minimum(upsample_steered(low_body, guide_low, guide), alpha)


def _mattes(shot: Shot, order: tuple[str, ...], n: int) -> Floats:
    """Return all mattes of a frame, front to back. [H,W,N] float32."""
    return np.concatenate([coverage_of(shot, MATTE_PREFIX + name, n) for name in order], axis=2)


def _named_effects(shot: Shot, order: tuple[str, ...], n: int) -> dict[int, Any]:
    """Return the artist's rotos of effects, by the object's place in the order."""
    return {
        k: coverage_of(shot, EFFECTS_PREFIX + name, n)
        for k, name in enumerate(order)
        if EFFECTS_PREFIX + name in shot.names
    }


def layer_frame(shot: Shot, n: int, name: str, pixels: Any) -> LayerFrame:
    """Wrap a display-window picture as the plate's frame; what is whole keeps its overscan."""
    header = shot.header(PLATE, n)
    rim = shot.frame(PLATE, n) if name in (BACKGROUND, CLEAN) else None
    channels = ORIGIN_CHANNELS if name == ORIGIN else RGBA
    laid = over_data_window(pixels, header, rim)
    if name == ORIGIN and laid is not pixels:  # What lies outside the frame is the plate's.
        laid[laid[..., :4].sum(axis=2) == 0, 0] = 1
    windows = (header.display_window, header.data_window, header.pixel_aspect)
    return LayerFrame(name, n, laid, channels, *windows, header.metadata)


def meetings(material: Material) -> dict[str, list[int]]:
    """Return, by name, on which frames something in front meets an object."""
    scene, names = material.scene, material.names
    kernel = np.ones((2 * TOUCH_PX + 1, 2 * TOUCH_PX + 1), np.uint8)
    met: dict[str, list[int]] = {name: [] for name in names}
    for i, n in enumerate(scene.frames):
        front = np.zeros(scene.mattes.shape[1:3], np.uint8)
        for name in material.order(n):
            matte = (scene.mattes[i, ..., names.index(name)] > 0.5).astype(np.uint8)
            if (matte & cv2.dilate(front, kernel)).any():
                met[name].append(n)
            front |= matte
    return met


def error_of(shot: Shot, n: int, made: Recomposed) -> StackError:
    """Return how far a frame's layers are from its plate."""
    return stack_error(native(shot, PLATE, n), made.background, made.layers, made.residual)


class Tally:
    """Figures of the delivered layers, for the manifest."""

    def __init__(self) -> None:
        self._made: list[tuple[float, float, float]] = []
        self._errors: list[StackError] = []

    def add(self, made: Recomposed, error: StackError) -> None:
        """Count one frame."""
        self._made.append((made.covered_share, made.raised_share, made.opaque_share))
        self._errors.append(error)

    def report(self, ctx: Context) -> None:
        """Put the figures into the manifest; warn where the layers do not give the plate."""
        ctx.report("covered_share_per_frame", rounded([one[0] for one in self._made]))
        ctx.report("alpha_raised_share_per_frame", rounded([one[1] for one in self._made]))
        ctx.report("made_opaque_share_per_frame", rounded([one[2] for one in self._made]))
        ctx.report("max_ulp", max(error.max_ulp for error in self._errors))
        beyond = sum(error.beyond for error in self._errors)
        differing = sum(error.differing for error in self._errors)
        ctx.report("pixels_beyond_1_ulp", beyond)
        ctx.report("uncovered_samples_not_the_plates", differing)
        if beyond or differing:
            ctx.warn(
                f"{beyond + differing} samples of the layers do not give the plate back exactly."
            )


def rounded(values: Any) -> list[float]:
    """Return figures as a manifest shows them."""
    return [round(float(value), 5) for value in values]
