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

from collections.abc import Iterator
from dataclasses import dataclass

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
    Plan,
    Shot,
    System,
    knob,
    parse_params,
)

MOST_OBJECTS = 8


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
    Input(MATTE_PREFIX + "*", "matte", "One roto per object, 1 on the object.", most=MOST_OBJECTS),
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


def plan(request: Request) -> Plan:
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


def run(shot: Shot, params: Params, ctx: Context) -> Iterator[LayerFrame]:
    """Yield the layers of every frame: measure, clean, solve, share out, deliver."""
    raise RuntimeError
    yield


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
