# SPDX-License-Identifier: Apache-2.0
"""What a gizmo is written from: a system's declaration, as pipes, needs and layers."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from gizmo_extras import Extra, extra_of

from gencomp_nuke.declared import STAR, PipeSpec, key_of
from gencomp_protocol.errors import MissingInput
from gencomp_protocol.frames import Format, FrameRange
from gencomp_protocol.layers import BG, EFFECT, ELEMENT, PLATE, RESULT, RGBA, LayerSpec
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.contract import Input, OneOf, System, declared_inputs, schema

KEYFRAMES = "keyframes"
_NAME = "NAME"
_RANGE = FrameRange(1001, 1004)


@dataclasses.dataclass(frozen=True)
class Panel:
    """What a gizmo is written from.

    Attributes:
        system: The system.
        name: Name of the gizmo.
        slots: Most pipes of a family.
        after: The sentence that names the paper.
        coordinates: Knobs that hold places in a picture, as ``gc_coordinates`` has them.
        connect: What the node asks to be connected, where that is more than what it must have.
    """

    system: System
    name: str
    slots: int
    after: str
    coordinates: str
    connect: str = ""

    @property
    def extra(self) -> Extra:
        """Return what the gizmo has that the system does not declare."""
        return extra_of(self.system.name)

    @property
    def inputs(self) -> list[Input]:
        """Return the inputs that the gizmo shows."""
        hidden = self.extra.hidden
        return [entry for entry in declared_inputs(self.system) if entry.name not in hidden]

    @property
    def pipes(self) -> tuple[PipeSpec, ...]:
        """Return the pipes: inputs in their order with the first of each family, then the others.

        The further ones come last, so that a number never depends on how many there are.
        """
        entries = self.inputs
        names = {entry.name for entry in entries}
        families = [entry for entry in entries if entry.name.endswith(".*")]
        made: list[PipeSpec] = []
        for entry in entries:
            if entry in families:
                made.append(_family_pipe(entry, 1, families, names))
            elif f"{entry.name}.*" not in names:
                lead = entry.name in (PLATE, BG)
                more = {"is_lead": lead, "stills": self.extra.stills.get(entry.name, "")}
                made.append(PipeSpec(camel(entry.name), entry.name, entry.kind, **more))
        for slot in range(2, self.slots + 1):
            made += [_family_pipe(f, slot, families, names) for f in families if slot <= f.most]
        return tuple(made)

    @property
    def needs(self) -> str:
        """Return what must be connected, as ``gc_needs`` has it."""
        rules = []
        for rule in self.system.inputs:
            if isinstance(rule, OneOf):
                rules.append(" | ".join(" + ".join(camel(i.name) for i in s) for s in rule.sets))
            elif not rule.optional:
                rules.append(camel(rule.name.removesuffix(".*")))
        return ", ".join(rules)

    @property
    def layers(self) -> tuple[LayerSpec, ...]:
        """Return every layer of RGBA or A that the system can deliver, ``*`` for an object's."""
        found: dict[str, LayerSpec] = {}
        for request in _requests(self):
            for layer in _layers_of(self.system, request):
                name = layer.name.replace(_NAME, STAR)
                if layer.channels in (RGBA, ("A",)):
                    found.setdefault(name, dataclasses.replace(layer, name=name))
        families = any(pipe.is_family for pipe in self.pipes)
        bare = {name.replace(f"_{STAR}", "") for name in found if f"_{STAR}" in name}
        kept = [one for name, one in found.items() if not (families and name in bare)]
        places = self.extra.layers.split()
        if places:
            kept.sort(key=lambda layer: places.index(layer.name))
        return tuple(kept)

    @property
    def outputs(self) -> list[str]:
        """Return the places of the output menu, ``*`` for an object's."""
        return self.extra.outputs.split() or [PLATE, *(layer.name for layer in self.layers)]

    @property
    def is_live(self) -> bool:
        """Tell whether its result can be computed anew over another plate."""
        return {RESULT, EFFECT} <= {layer.name for layer in self.layers}

    @property
    def adjusted(self) -> list[tuple[str, LayerSpec]]:
        """Return the layers that have knobs of their own inside: the effect, and each object's."""
        names = (EFFECT, STAR, f"{ELEMENT}_{STAR}")
        return [(key, layer) for key, layer in keys_of(self) if layer.name in names]


def _family_pipe(entry: Input, slot: int, families: list[Input], names: set[str]) -> PipeSpec:
    stem, first = entry.name[:-2], families[0].name[:-2]
    head = entry is families[0]
    follows = entry.own_frames and not head
    return PipeSpec(
        f"{camel(stem)}{slot}",
        entry.name,
        entry.kind,
        own=entry.own_frames and head,
        like=f"{camel(first)}{slot}" if follows else "",
        bare=head and stem in names,
    )


def camel(name: str) -> str:
    """Return an input's name as a pipe's: ``effect_mask`` is ``EffectMask``."""
    return "".join(word.capitalize() for word in name.split("_"))


def _requests(panel: Panel) -> Iterator[Request]:
    """Yield requests that together make the system name every layer it can deliver."""
    knobs = schema(panel.system)["knobs"]
    turned: list[dict[str, Any]] = [{}]
    turned += [{k["name"]: not k["default"]} for k in knobs if k["type"] == "bool"]
    turned += [{k["name"]: choice} for k in knobs for choice in k["choices"] or ()]
    for values in turned:
        for names in _connections(panel):
            headers = [InputHeader(n, tuple(_RANGE), format=Format(64, 48)) for n in names]
            yield Request(panel.system.name, _RANGE, tuple(headers), values)


def _layers_of(system: System, request: Request) -> tuple[LayerSpec, ...]:
    """Return the layers of a request; none where the system refuses its connections."""
    try:
        return system.layers(request)
    except MissingInput:
        return ()


def _connections(panel: Panel) -> Iterator[list[str]]:
    sets = [rule.sets for rule in panel.system.inputs if isinstance(rule, OneOf)]
    plain = [rule.name for rule in panel.system.inputs if isinstance(rule, Input)]
    single = [name.replace(STAR, _NAME) for name in plain if f"{name}.*" not in plain]
    bare = [name for name in plain if not name.endswith(".*")]
    needed = [r.name for r in panel.system.inputs if isinstance(r, Input) and not r.optional]
    for names in (single, bare, needed):
        for one in sets[0] if sets else ((),):
            yield [entry.name for entry in one] + [n for n in names if STAR not in n]


def slots_of(panel: Panel) -> list[int]:
    """Return the numbers of the pipes whose objects the artist names."""
    return sorted({pipe.slot for pipe in panel.pipes if pipe.slot})


def is_starred(layer: LayerSpec) -> bool:
    """Tell whether every object has a layer like this."""
    return STAR in layer.name


def keys_of(panel: Panel) -> list[tuple[str, LayerSpec]]:
    """Return every layer with the key of its inner nodes, in the order of the output menu."""
    slots = slots_of(panel)
    return [
        (key_of(layer.name, slot), layer)
        for layer in panel.layers
        for slot in (slots if is_starred(layer) else [0])
    ]


def over_of(panel: Panel) -> tuple[str, str] | None:
    """Return the pipes whose over stands in for the plate where that is not connected."""
    for rule in panel.system.inputs:
        if isinstance(rule, OneOf) and len(rule.sets) == 2 and len(rule.sets[1]) == 2:
            front, back = (camel(entry.name) for entry in rule.sets[1])
            return front, back
    return None


def suffix(key: str) -> str:
    """Return what stands after ``gc_has`` for a layer: an object's own has the number alone."""
    return key if key.isdigit() else f"_{key}"


def has_keyframes(panel: Panel) -> bool:
    """Tell whether the system's mask counts at keyframes."""
    return any(knob["name"] == KEYFRAMES for knob in schema(panel.system)["knobs"])
