# SPDX-License-Identifier: Apache-2.0
"""Generative Omnimatte, clean-plate way: a plate and its mattes in, layers out.

Paper: generative-omnimatte (docs/papers.md), §3.5 and appendix D.  Differs from the paper:

* the clean plate comes from the artist, or from the other frames of the plate (registered masked
  median), not from a removal model;
* the alpha is solved by closed forms and one sparse least-squares problem per frame
  (``parts/alpha.py``), not by fitting a network to each shot;
* without solo videos one alpha is solved for all objects together and shared out among them
  (``parts/ownership.py``);
* the layers give the plate back exactly (``parts/recompose.py``); the paper's are an approximation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gencomp_protocol.errors import BadKnob, BadName
from gencomp_protocol.layers import (
    BACKGROUND,
    CLEAN_PLATE,
    EFFECTS_PREFIX,
    EFFECTS_SUFFIX,
    KEEP,
    MATTE_PREFIX,
    OBJECT_SUFFIX,
    PLATE,
    RESIDUAL,
    RGBA,
    SOLO_PREFIX,
    LayerSpec,
    check_object_names,
)
from gencomp_protocol.request import SEQUENCE, STILL, STILLS, Request
from gencomp_server.contract import (
    CommonParams,
    Context,
    Input,
    LayerFrame,
    Machine,
    Plan,
    Shot,
    System,
    knob,
    parse_params,
)

if TYPE_CHECKING:
    from gencomp_server.parts.cleanfit import FittedClean
    from gencomp_server.parts.cleanplate import CleanPlatePlan
    from gencomp_server.parts.noise import NoiseFloor
    from gencomp_server.parts.ownership import Ownership
    from gencomp_server.parts.recompose import Recomposed
    from gencomp_server.parts.stack import StackError

MOST_OBJECTS = 8
MATTE_PRESENT = 0.05
"""A matte pixel above this is taken for object when the background is looked for."""
NOISE_FRAMES = 3
"""Frames, evenly spread, from which the noise floor is measured."""
REGISTRATION_PX = 1.5
"""Registration error, in plate pixels at model size, from which the artist is told."""
UNSEEN_SHARE = 0.001
"""Share of a frame that was never seen, and filled in, from which the artist is told."""
TOUCH_PX = 2
"""Mattes this near, in model pixels, touch: the hind object may be hidden by the front one."""


@dataclass(frozen=True)
class Params(CommonParams):
    """Knobs of Omnimatte; field name is knob name, field order is panel order."""

    clean_plate_from: str = knob(
        "temporal",
        choices=("temporal",),
        doc="Where the clean plate comes from when none is connected: temporal = the other frames "
        "of the shot, registered on the background.",
    )
    register_clean_plate: bool = knob(
        True,
        doc="Register a connected clean plate to every frame. Off: it lines up already.",
    )
    mattes: str = knob(
        "trusted",
        choices=("trusted", "rough"),
        doc="trusted: the mattes follow the objects to a pixel or two. rough: they may be off by "
        "five; edges are found from the picture, which takes twice as long.",
    )
    model_long_edge: int = knob(
        640,
        lo=128,
        hi=2048,
        doc="Long edge, in pixels, at which alphas are solved; larger plates are brought to it and "
        "the alphas brought back along the plate's edges.",
    )
    order: str = knob(
        "",
        doc="Objects front to back, by name, with commas. Empty: the order of the mattes.",
        delivery=True,
    )
    residual: str = knob(
        "absorb",
        choices=("absorb", "layer"),
        doc="Where the difference goes that the layers leave: absorb = into the layers, so that "
        "over of the layers is the plate; layer = into a layer of its own, to be added.",
        delivery=True,
    )
    split_effects: bool = knob(
        False,
        doc="Also deliver each object as NAME_object and NAME_effects.",
        delivery=True,
    )


INPUTS = (
    Input(PLATE, "rgb", "The photographed sequence, scene-linear."),
    Input(
        MATTE_PREFIX + "*",
        "matte",
        "One roto per object, 1 on the object.",
        most=MOST_OBJECTS,
        covers=(SEQUENCE, STILL),
    ),
    Input(
        CLEAN_PLATE,
        "rgb",
        "The plate without the objects: a sequence, one still, or stills at a few frames.",
        optional=True,
        covers=(SEQUENCE, STILL, STILLS),
    ),
    Input(
        SOLO_PREFIX + "*",
        "rgb",
        "The plate with this object alone and its effects.",
        optional=True,
        most=MOST_OBJECTS,
    ),
    Input(
        KEEP,
        "matte",
        "1 where the plate must stay in the background, whatever happens.",
        optional=True,
        covers=(SEQUENCE, STILL),
    ),
    Input(
        EFFECTS_PREFIX + "*",
        "matte",
        "A rough roto: effects here belong to this object.",
        optional=True,
        most=MOST_OBJECTS,
        covers=(SEQUENCE, STILL),
    ),
)


def front_to_back(request: Request) -> tuple[str, ...]:
    """Return the objects in layer order, front first: the knob's, then the mattes' own.

    Raises:
        BadKnob: The knob names an object that has no matte, or one twice.
    """
    names = request.named(MATTE_PREFIX)
    params: Params = parse_params(Params, request.knobs)
    asked = params.order.replace(",", " ").split()
    for word in asked:
        if word not in names or asked.count(word) > 1:
            raise BadKnob(
                f"Knob 'order' names '{word}', which is not a matte of this job or stands twice.",
                hint=f"Use each of these at most once: {', '.join(names)}.",
                knob="order",
            )
    return tuple(asked) + tuple(name for name in names if name not in asked)


def check(request: Request) -> None:
    """Refuse names and combinations that cannot work, from the header alone.

    Raises:
        BadName: A matte's name is illegal or taken; ``effects`` or ``solo`` names no matte.
        BadKnob: The order is wrong, or only some objects have a solo.
    """
    names = check_object_names(request.named(MATTE_PREFIX))
    for prefix in (EFFECTS_PREFIX, SOLO_PREFIX):
        for name in request.named(prefix):
            if name not in request.named(MATTE_PREFIX):
                raise BadName(
                    f"Input '{prefix}{name}' belongs to no matte.",
                    hint=f"Mattes are: {', '.join(request.named(MATTE_PREFIX))}.",
                )
    solos = request.named(SOLO_PREFIX)
    if solos and len(solos) < len(names):
        missing = [name for name in request.named(MATTE_PREFIX) if name not in solos]
        raise BadName(
            f"There are solos for {', '.join(solos)} but not for {', '.join(missing)}.",
            hint="Give a solo for every matte, or for none.",
        )
    front_to_back(request)


def layers(request: Request) -> tuple[LayerSpec, ...]:
    """Return the layers of a request: the background, then the objects front to back."""
    params: Params = parse_params(Params, request.knobs)
    found = [LayerSpec(BACKGROUND, doc="The plate without the objects and their effects.")]
    for name in front_to_back(request):
        found.append(LayerSpec(name, doc=f"{name} with its shadow, reflection and other effects."))
        if params.split_effects:
            found.append(LayerSpec(name + OBJECT_SUFFIX, doc=f"{name} itself."))
            found.append(LayerSpec(name + EFFECTS_SUFFIX, doc=f"What {name} does to the scene."))
    if params.residual == "layer":
        found.append(LayerSpec(RESIDUAL, doc="What the layers leave of the plate; add it last."))
    return tuple(found)


def plan(request: Request, machine: Machine) -> Plan:
    """Estimate bytes, minutes and memory from the header alone."""
    plate = request.input(PLATE)
    size = plate.format if plate is not None else None
    if size is None:
        return Plan(notes=("The plate's size is not known yet, so there is no estimate.",))
    count, objects = len(request.frames), len(request.named(MATTE_PREFIX))
    pixels = size.width * size.height
    params: Params = parse_params(Params, request.knobs)
    scale = min(1.0, params.model_long_edge / max(size.width, size.height)) ** 2
    doubled = 2 if params.mattes == "rough" else 1
    solve_s = count * pixels * scale * (4.0 * doubled + 1.5 * objects) * 1e-6
    deliver_s = count * pixels * (2.0 + objects) * 0.6e-6
    return Plan(
        bytes_in=count * pixels * (6 + 2 * objects),
        bytes_out=count * pixels * 8 * len(layers(request)),
        minutes=round((solve_s + deliver_s) / 60, 2),
        memory_bytes=int(4e8 + pixels * 12 * (14 + 6 * objects)),
        notes=("No model weights are used; the job runs on the CPU.",),
    )


# --- the run -------------------------------------------------------------------------------------


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

    def matte(self, n: int) -> Any:
        """Return the union of all mattes. [h,w,1] float32."""
        return self.mattes[self.frames.index(n)].max(axis=2, keepdims=True).astype("float32")

    def covered(self, n: int) -> Any:
        """Return where any matte is. [h,w] bool."""
        return self.matte(n)[..., 0] > MATTE_PRESENT


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


def run(shot: Shot, params: Params, ctx: Context) -> Iterator[LayerFrame]:
    """Yield the layers of every frame: bring in, clean, solve, share out, deliver."""
    mattes = tuple(MATTE_PREFIX + name for name in shot.request.named(MATTE_PREFIX))
    solos = tuple(SOLO_PREFIX + name for name in shot.request.named(MATTE_PREFIX))
    solos = solos if shot.request.named(SOLO_PREFIX) else ()
    pair = shot.only(*(name for name in (PLATE, CLEAN_PLATE) if name in shot.names))
    register = params.register_clean_plate

    edge = params.model_long_edge
    scene = ctx.stage("scene", bring_in, shot.only(PLATE, *mattes), long_edge=edge)
    plan_ = None
    if _is_gathered(shot.request, register):
        plan_ = ctx.stage("clean_plate", find_clean_plate, pair, scene, register=register)
        _report_clean_plate(plan_, ctx)

    def clean(n: int) -> FittedClean:
        return ctx.stage("clean_frame", clean_frame, pair, scene, plan_, n=n, register=register)

    solved = []
    for i, n in enumerate(scene.frames):
        ctx.progress("alpha", i, len(scene.frames))
        given = (shot.only(*solos), scene, clean(n))
        solved.append(ctx.stage("alpha", solve_alpha, *given, n=n, mattes=params.mattes))
    sampled = tuple(scene.frames[:: max(1, len(scene.frames) // NOISE_FRAMES)][:NOISE_FRAMES])
    fitted = [clean(n) for n in sampled]
    noise = ctx.stage("noise", measure_floor, shot.only(PLATE), scene, plan_, fitted, at=sampled)
    del fitted
    owned = None
    if len(mattes) > 1 and not solos:
        owned = ctx.stage("ownership", share_out, scene, [one.together for one in solved])
        ctx.report("doubtful_effect_share", owned.doubtful_share)
    material = _Material(shot, scene, clean, solved, noise, owned)
    yield from deliver(material, params, ctx)


# --- stages --------------------------------------------------------------------------------------


def bring_in(ctx: Context, shot: Shot, *, long_edge: int) -> Scene:
    """Bring plate and mattes to model size, over the display window, finite."""
    import numpy as np

    from gencomp_server.parts.fit import model_format, to_model_frame
    from gencomp_server.parts.pictures import coverage_of, linear

    window = shot.header(PLATE).display_window
    size = model_format(window.width, window.height, long_edge)
    frames, mattes = tuple(shot.frames), [name for name in shot.names if name != PLATE]
    plate = np.empty((len(frames), size[1], size[0], 3), np.float32)
    stacked = np.empty((len(frames), size[1], size[0], len(mattes)), np.float16)
    for i, n in enumerate(frames):
        ctx.progress("scene", i, len(frames))
        plate[i] = to_model_frame(linear(shot, PLATE, n), size)
        for k, name in enumerate(mattes):
            stacked[i, ..., k] = to_model_frame(coverage_of(shot, name, n), size)[..., 0]
    return Scene(frames, plate, stacked)


def find_clean_plate(ctx: Context, shot: Shot, scene: Scene, *, register: bool) -> CleanPlatePlan:
    """Decide at model size how the clean plate is gathered from the other frames."""
    from gencomp_server.parts.background import CleanPlateSettings
    from gencomp_server.parts.cleanplate import plan_clean_plate
    from gencomp_server.parts.fit import to_model_frame
    from gencomp_server.parts.pictures import linear

    painted = {
        at: to_model_frame(linear(shot, CLEAN_PLATE, n), scene.size)
        for at, n in _painted_frames(shot).items()
    }
    return plan_clean_plate(
        scene.frames,
        lambda n: scene.plate[scene.frames.index(n)],
        scene.covered,
        CleanPlateSettings(register_painted=register),
        painted,
        lambda step, total: ctx.progress("clean_plate", step, total),
    )


def clean_frame(
    ctx: Context, shot: Shot, scene: Scene, plan_: CleanPlatePlan | None, *, n: int, register: bool
) -> FittedClean:
    """Make one frame of the clean plate at plate size, fitted to the plate, in its type."""
    from gencomp_server.parts.cleanfit import fit_clean
    from gencomp_server.parts.gather import gather_frame
    from gencomp_server.parts.pictures import in_type, linear, row_reader

    plate = linear(shot, PLATE, n)
    covered = scene.covered(n)
    if plan_ is None:
        clean = linear(shot, CLEAN_PLATE, n)
    else:
        rows = row_reader(shot, PLATE)
        size = (plate.shape[1], plate.shape[0])
        painted = _painted_frames(shot)
        looked_up = row_reader(shot, CLEAN_PLATE, painted) if painted else None
        clean = gather_frame(plan_, n, rows, size, looked_up)
        covered = covered | (plan_.own[scene.frames.index(n)] > 0)
    move = register and plan_ is None
    fitted = fit_clean(plate, clean, covered, scene.size, register=move)
    return replace(fitted, pixels=in_type(fitted.pixels, shot.header(PLATE, n).pixel_type))


def solve_alpha(
    ctx: Context, solos: Shot, scene: Scene, clean: FittedClean, *, n: int, mattes: str
) -> FrameAlpha:
    """Solve one frame at model size: all objects together, or each against its own solo."""
    import numpy as np

    from gencomp_server.parts.alpha import ROUGH, STANDARD, solve_frame
    from gencomp_server.parts.fit import to_model_frame
    from gencomp_server.parts.pictures import linear

    i, settings = scene.frames.index(n), ROUGH if mattes == "rough" else STANDARD
    under = to_model_frame(clean.pixels, scene.size)
    if not solos.names:
        found = solve_frame(scene.plate[i], under, scene.matte(n), clean.calibration, settings)
        return FrameAlpha(found.alpha, found.object_alpha)
    each = []
    for k, name in enumerate(solos.names):
        solo = to_model_frame(linear(solos, name, n), scene.size)
        matte = scene.mattes[i, ..., k : k + 1].astype(np.float32)
        each.append(solve_frame(solo, under, matte, clean.calibration, settings))
    return FrameAlpha(
        np.concatenate([one.alpha for one in each], axis=2),
        np.concatenate([one.object_alpha for one in each], axis=2),
    )


def measure_floor(
    ctx: Context,
    shot: Shot,
    scene: Scene,
    plan_: CleanPlatePlan | None,
    cleans: list[FittedClean],
    *,
    at: tuple[int, ...],
) -> NoiseFloor:
    """Measure at plate size what grain alone makes of plate minus clean plate."""
    import numpy as np

    from gencomp_server.parts.fit import from_model_frame
    from gencomp_server.parts.noise import measure_noise
    from gencomp_server.parts.pictures import linear

    def samples() -> Iterator[tuple[Any, Any, Any]]:
        for n, clean in zip(at, cleans, strict=True):
            i, plate = scene.frames.index(n), linear(shot, PLATE, n)
            hidden = scene.covered(n)
            if plan_ is not None:
                hidden = hidden | plan_.suspected[i] | (plan_.own[i] > 0)
            wide = from_model_frame(hidden.astype(np.float32), (plate.shape[1], plate.shape[0]))
            yield plate, clean.pixels.astype(np.float32), wide > 0

    return measure_noise(samples())


def share_out(ctx: Context, scene: Scene, alphas: list[Any]) -> Ownership:
    """Find out which object each effect pixel belongs to."""
    import numpy as np

    from gencomp_server.parts.ownership import share_effects

    together = np.stack([np.asarray(alpha[..., 0], np.float16) for alpha in alphas])
    return share_effects(
        together,
        scene.mattes,
        progress=lambda done, total: ctx.progress("ownership", done, total),
    )


# --- delivery ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Material:
    """Everything that the layers of a frame are made of."""

    shot: Shot
    scene: Scene
    clean: Callable[[int], FittedClean]
    solved: list[FrameAlpha]
    noise: NoiseFloor
    owned: Ownership | None


def deliver(material: _Material, params: Params, ctx: Context) -> Iterator[LayerFrame]:
    """Yield every frame's layers, exact against the plate, and report how they came out."""
    order = front_to_back(material.shot.request)
    tally = _Tally()
    ctx.report("hidden_frames", _hidden_frames(material, order))
    for n in material.scene.frames:
        made, splits = _stack_frame(material, n, order, params)
        tally.add(made, _error(material.shot, n, made))
        named = [(BACKGROUND, made.background), *zip(order, made.layers, strict=True), *splits]
        if made.residual is not None:
            named.append((RESIDUAL, made.residual))
        for name, pixels in named:
            yield _layer_frame(material.shot, n, name, pixels)
    tally.report(ctx)


def _stack_frame(
    material: _Material, n: int, order: tuple[str, ...], params: Params
) -> tuple[Recomposed, list[tuple[str, Any]]]:
    """Make one frame's layers over the display window; the second are the split ones."""
    import numpy as np

    from gencomp_server.parts.pictures import native
    from gencomp_server.parts.recompose import APART, FOLDED, recompose_frame
    from gencomp_server.parts.split import split_effects

    own = native(material.shot, PLATE, n)
    clean = material.clean(n).pixels.astype(np.float32)
    fronts = (_solo_fronts if _has_solos(material.shot) else _shared_fronts)(
        material, n, order, clean
    )
    made = recompose_frame(
        own,
        clean,
        fronts.alphas,
        noise=material.noise,
        colours=fronts.colours,
        residual=APART if params.residual == "layer" else FOLDED,
    )
    if not params.split_effects:
        return made, []
    pairs = split_effects(own, made.background, made.layers, fronts.objects, made.residual)
    splits = [
        (name + suffix, pixels)
        for name, pair in zip(order, pairs, strict=True)
        for suffix, pixels in zip((OBJECT_SUFFIX, EFFECTS_SUFFIX), pair, strict=True)
    ]
    return made, splits


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


def _shared_fronts(material: _Material, n: int, order: tuple[str, ...], clean: Any) -> _Fronts:
    """Share the one alpha of all objects out among them."""
    from gencomp_server.parts.ownership import object_alphas, shares_at, split_bodies
    from gencomp_server.parts.pictures import linear

    scene, i = material.scene, material.scene.frames.index(n)
    mattes = _mattes(material.shot, order, n)
    plate = linear(material.shot, PLATE, n)
    matte = mattes.max(axis=2, keepdims=True)
    alpha, body = _at_plate(material, n, 0, scene.plate[i], plate, clean, matte)
    if material.owned is None:
        return _Fronts([alpha], [body])
    names = material.shot.request.named(MATTE_PREFIX)
    places = [names.index(name) for name in order]
    ordered = replace(material.owned, shares=material.owned.shares[..., places])
    named = _named_effects(material.shot, order, n)
    shares = shares_at(ordered, i, mattes, alpha=alpha, named=named)
    each, bodies = object_alphas(alpha, shares), split_bodies(body, mattes)
    parts = range(len(order))
    return _Fronts([each[..., k : k + 1] for k in parts], [bodies[..., k : k + 1] for k in parts])


def _solo_fronts(material: _Material, n: int, order: tuple[str, ...], clean: Any) -> _Fronts:
    """Take each object's alpha and colour from its own solo."""
    import numpy as np

    from gencomp_server.parts.fit import to_model_frame
    from gencomp_server.parts.pictures import coverage_of, linear

    shot, names = material.shot, material.shot.request.named(MATTE_PREFIX)
    alphas, bodies, colours = [], [], []
    for name in order:
        solo = linear(shot, SOLO_PREFIX + name, n)
        low, matte = (
            to_model_frame(solo, material.scene.size),
            coverage_of(shot, MATTE_PREFIX + name, n),
        )
        alpha, body = _at_plate(material, n, names.index(name), low, solo, clean, matte)
        alphas.append(alpha)
        bodies.append(body)
        colours.append(np.maximum(solo - (1.0 - alpha) * clean, 0.0) * (alpha > 0))
    return _Fronts(alphas, bodies, colours)


def _at_plate(
    material: _Material, n: int, k: int, guide_low: Any, guide: Any, clean: Any, matte: Any
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
    """
    import numpy as np

    from gencomp_server.parts.fit import upsample_steered
    from gencomp_server.parts.noise import coverage
    from gencomp_server.parts.pictures import coverage_of

    found = material.solved[material.scene.frames.index(n)]
    low, low_body = (np.asarray(x[..., k : k + 1]) for x in (found.together, found.objects))
    alpha = upsample_steered(low, guide_low, guide)
    alpha *= coverage(alpha, guide, clean, material.noise, matte=matte)
    if KEEP in material.shot.names:
        alpha *= 1.0 - coverage_of(material.shot, KEEP, n)
    return alpha, np.minimum(upsample_steered(low_body, guide_low, guide), alpha)


def _mattes(shot: Shot, order: tuple[str, ...], n: int) -> Any:
    """Return all mattes of a frame, front to back. [H,W,N] float32."""
    import numpy as np

    from gencomp_server.parts.pictures import coverage_of

    return np.concatenate([coverage_of(shot, MATTE_PREFIX + name, n) for name in order], axis=2)


def _named_effects(shot: Shot, order: tuple[str, ...], n: int) -> dict[int, Any]:
    """Return the artist's rotos of effects, by the object's place in the order."""
    from gencomp_server.parts.pictures import coverage_of

    return {
        k: coverage_of(shot, EFFECTS_PREFIX + name, n)
        for k, name in enumerate(order)
        if EFFECTS_PREFIX + name in shot.names
    }


def _error(shot: Shot, n: int, made: Recomposed) -> StackError:
    from gencomp_server.parts.pictures import native
    from gencomp_server.parts.stack import stack_error

    return stack_error(native(shot, PLATE, n), made.background, made.layers, made.residual)


def _layer_frame(shot: Shot, n: int, name: str, pixels: Any) -> LayerFrame:
    """Wrap a display-window picture as the plate's frame; overscan stays in the background."""
    from gencomp_server.parts.pictures import over_data_window

    header = shot.header(PLATE, n)
    rim = shot.frame(PLATE, n) if name == BACKGROUND else None
    laid = over_data_window(pixels, header, rim)
    windows = (header.display_window, header.data_window, header.pixel_aspect)
    return LayerFrame(name, n, laid, RGBA, *windows, header.metadata)


def _hidden_frames(material: _Material, order: tuple[str, ...]) -> dict[str, list[int]]:
    """Return on which frames something in front meets an object, whose layer ends there.

    Without a transformer nothing is known of what is hidden: it is transparent.
    """
    import cv2
    import numpy as np

    scene, names = material.scene, material.shot.request.named(MATTE_PREFIX)
    kernel = np.ones((2 * TOUCH_PX + 1, 2 * TOUCH_PX + 1), np.uint8)
    hidden: dict[str, list[int]] = {name: [] for name in order}
    for i, n in enumerate(scene.frames):
        front = np.zeros(scene.mattes.shape[1:3], np.uint8)
        for name in order:
            matte = (scene.mattes[i, ..., names.index(name)] > 0.5).astype(np.uint8)
            if (matte & cv2.dilate(front, kernel)).any():
                hidden[name].append(n)
            front |= matte
    return hidden


class _Tally:
    """Figures of the delivered layers, for the manifest."""

    def __init__(self) -> None:
        self._made: list[tuple[float, float, float]] = []
        self._errors: list[StackError] = []

    def add(self, made: Recomposed, error: StackError) -> None:
        self._made.append((made.covered_share, made.raised_share, made.opaque_share))
        self._errors.append(error)

    def report(self, ctx: Context) -> None:
        """Put the figures into the manifest; warn where the layers do not give the plate."""
        ctx.report("covered_share_per_frame", _rounded([one[0] for one in self._made]))
        ctx.report("alpha_raised_share_per_frame", _rounded([one[1] for one in self._made]))
        ctx.report("made_opaque_share_per_frame", _rounded([one[2] for one in self._made]))
        ctx.report("max_ulp", max(error.max_ulp for error in self._errors))
        beyond = sum(error.beyond for error in self._errors)
        differing = sum(error.differing for error in self._errors)
        ctx.report("pixels_beyond_1_ulp", beyond)
        ctx.report("uncovered_samples_not_the_plates", differing)
        if beyond or differing:
            ctx.warn(
                f"{beyond + differing} samples of the layers do not give the plate back exactly."
            )


def _report_clean_plate(plan_: CleanPlatePlan, ctx: Context) -> None:
    """Report how the clean plate was found; warn where registration is off."""
    from gencomp_protocol.frames import spell_frames

    ctx.report("registration_error_px_per_frame", _rounded(plan_.error_px))
    ctx.report("never_seen_share_per_frame", _rounded(plan_.never_seen_share))
    off = [n for n, e in zip(plan_.frames, plan_.error_px, strict=True) if e > REGISTRATION_PX]
    if off:
        ctx.warn(
            f"The background could not be registered to better than {REGISTRATION_PX} pixels at "
            f"frames {spell_frames(off)}; paint a clean frame there."
        )
    lost = [n for n, k in zip(plan_.frames, plan_.features, strict=True) if k == 0]
    if lost and len(plan_.frames) > 1:
        ctx.warn(
            f"Nothing in the background of frames {spell_frames(lost)} could be tracked, so the "
            "camera is taken to stand still there."
        )
    unseen = float(max(plan_.never_seen_share, default=0.0))
    if unseen > UNSEEN_SHARE and not plan_.painted:
        ctx.warn(
            f"Up to {unseen:.1%} of a frame's background is never seen and was filled in; a "
            "painted clean frame would be better."
        )


# --- pictures ------------------------------------------------------------------------------------


def _is_gathered(request: Request, register: bool) -> bool:
    """Tell whether the clean plate is gathered over time, wholly or around stills."""
    entry = request.input(CLEAN_PLATE)
    return entry is None or entry.cover == STILLS or (entry.cover == STILL and register)


def _painted_frames(shot: Shot) -> dict[int, int]:
    """Return at which frames the artist's clean frames lie, and their own numbers."""
    entry = shot.request.input(CLEAN_PLATE)
    if entry is None or entry.cover == SEQUENCE:
        return {}
    if entry.cover == STILL:
        return {shot.frames.first: shot.frames.first}
    return {n: n for n in shot.frames_of(CLEAN_PLATE)}


def _has_solos(shot: Shot) -> bool:
    return bool(shot.request.named(SOLO_PREFIX))


def _rounded(values: Any) -> list[float]:
    return [round(float(value), 5) for value in values]


SYSTEM = System(
    name="omnimatte",
    title="Omnimatte",
    doc="Takes a plate and one matte per object; gives the background and one layer per object "
    "that carries the object and its shadow, reflection or wake.",
    inputs=INPUTS,
    params=Params,
    layers=layers,
    plan=plan,
    run=run,
    check=check,
)
