# SPDX-License-Identifier: Apache-2.0
"""What a gizmo says of itself, as plain text in invisible knobs: its pipes, layers and outputs.

A node carries these knobs into every script, so that a saved node is understood by a later version
of this room. A node of a script from before there were any is an Omnimatte, whose declaration is
here. Knows nothing of Nuke. ::

    gc_pipes   Plate plate rgb lead; Matte1 matte.* matte; Fg1 fg.* rgba own bare
               pipe, input of the request, kind, and words that say more
    gc_needs   Plate, Matte          each of them, or:   Plate | Fg + Bg
    gc_layers  background * *_object residual      * is the name of the object in a pipe
    gc_outputs plate background * residual         places of the output menu, which never move
    gc_coordinates  trajectory=path anchor_point=point     knobs that hold places in a picture
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gencomp_protocol.errors import InternalError

ONE_CHANNEL = ("matte", "data")
KINDS = ("rgb", "rgba", *ONE_CHANNEL)
PLATE_OUTPUT, RECOMPOSED = "plate", "recomposed"
STAR = "*"
_WORDS = ("lead", "own", "bare")
_MOST_SLOTS = 32

OMNIMATTE: "Mapping[str, str]" = {
    "gc_pipes": "Plate plate rgb lead; "
    + "; ".join(f"Matte{slot} matte.* matte" for slot in range(1, 9))
    + "; CleanPlate clean_plate rgb stills=gc_clean; Keep keep matte; Limit limit matte; "
    "Protect protect matte; Depth depth data",
    "gc_needs": "Plate, Matte",
    "gc_layers": "background * *_object *_effects residual clean patch",
    "gc_outputs": "plate background * residual recomposed clean patch",
    "gc_coordinates": "",
    "gc_hint": "Connect a plate and at least one matte, then press Generate.",
}
"""What nodes say that were saved before gizmos said it themselves."""


@dataclass(frozen=True)
class PipeSpec:
    """One pipe of a gizmo.

    Attributes:
        pipe: Name of the inner Input, as the arrow shows it.
        input: Input of the request; ``fg.*`` for one whose member the artist names.
        kind: ``rgb``, ``rgba``, ``matte`` or ``data``.
        is_lead: True where the range of the job may be that of what is connected here.
        own: Its frames are its own and not those of the job.
        like: Pipe whose frames it has; empty for those of the job, or its own.
        bare: The one member of a family may go without a name: ``fg`` for ``fg.*``.
        stills: Stem of the knobs that make single pictures of it, ``gc_clean``; empty for none.
    """

    pipe: str
    input: str
    kind: str
    is_lead: bool = False
    own: bool = False
    like: str = ""
    bare: bool = False
    stills: str = ""

    @property
    def is_family(self) -> bool:
        """Tell whether the artist names what is connected here."""
        return self.input.endswith("." + STAR)

    @property
    def slot(self) -> int:
        """Return the number of a family's pipe, 1 for the first; 0 for any other pipe."""
        return int(self.pipe[len(self.stem) :]) if self.is_family else 0

    @property
    def stem(self) -> str:
        """Return the pipe's name without its number."""
        return self.pipe.rstrip("0123456789") if self.is_family else self.pipe

    @property
    def folder(self) -> str:
        """Return the name of the folder and of the files that its inner Write makes."""
        return f"{self.input[:-2]}{self.slot}" if self.is_family else self.input

    def spelt(self, name: str) -> str:
        """Return the input of the request for an object's name; without one the bare input."""
        if not self.is_family:
            return self.input
        return self.input[:-1] + name if name else self.input[:-2]


@dataclass(frozen=True)
class Declaration:
    """Everything a gizmo says of itself.

    Attributes:
        pipes: Its pipes, in their order.
        needs: What must be connected: each of these; of one with several, any set of pipes.
        layers: Layers it can play; ``*`` in one stands for the name of an object.
        outputs: What its output menu offers, in places that never move.
        coordinates: Knobs that hold places in a picture, and how they are spelt.
        hint: What it says before anything is generated.
    """

    pipes: "tuple[PipeSpec, ...]"
    needs: "tuple[tuple[tuple[str, ...], ...], ...]"
    layers: "tuple[str, ...]"
    outputs: "tuple[str, ...]"
    coordinates: "Mapping[str, str]"
    hint: str

    @property
    def slots(self) -> "tuple[int, ...]":
        """Return the numbers of the pipes whose objects the artist names."""
        return tuple(sorted({spec.slot for spec in self.pipes if spec.slot}))

    def pipe(self, name: str) -> PipeSpec:
        """Return the pipe of that name; one is there, else the gizmo contradicts itself."""
        return next(spec for spec in self.pipes if spec.pipe == name)

    def matching(self, word: str) -> "tuple[str, ...]":
        """Return the pipes that a word of ``needs`` stands for: a pipe, or a family's stem."""
        return tuple(spec.pipe for spec in self.pipes if word in (spec.pipe, spec.stem))


def declaration(knobs: "Mapping[str, str]") -> Declaration:
    """Read what a gizmo says of itself.

    Args:
        knobs: Texts of its knobs ``gc_pipes`` and so on; one that is missing is an Omnimatte's.

    Raises:
        InternalError: It cannot be understood; the gizmo's file was edited.
    """
    told = {name: knobs.get(name, usual) for name, usual in OMNIMATTE.items()}
    return Declaration(
        pipes=tuple(_pipe(entry.split()) for entry in told["gc_pipes"].split(";") if entry.strip()),
        needs=_needs(told["gc_needs"]),
        layers=tuple(told["gc_layers"].split()),
        outputs=tuple(told["gc_outputs"].split()),
        coordinates=dict(_pair(word) for word in told["gc_coordinates"].split()),
        hint=told["gc_hint"],
    )


def key_of(layer: str, slot: int) -> str:
    """Return what the inner nodes of a layer are called by: ``Read_KEY``, ``Copy_KEY``."""
    return layer.replace(STAR, str(slot))


def layer_of(layer: str, name: str) -> str:
    """Return the layer of an object: ``element_*`` of ``bird`` is ``element_bird``.

    The object that needs no name, for it is alone, has the layer without one: ``element``.
    """
    return layer.replace(STAR, name) if name else layer.replace("_" + STAR, "")


def placeholder(layer: str, slot: int) -> str:
    """Return what the output menu says of an object that is not there."""
    return f"object{slot}" if layer == STAR else key_of(layer, slot)


def _pipe(words: "list[str]") -> PipeSpec:
    if len(words) < 3 or words[2] not in KINDS:
        raise _unreadable(" ".join(words))
    pipe, name, kind, *rest = words
    options = {}
    for word in rest:
        key, equals, value = word.partition("=")
        if equals and key in ("like", "stills"):
            options[key] = value
        elif word not in _WORDS:
            raise _unreadable(" ".join(words))
    made = PipeSpec(
        pipe,
        name,
        kind,
        is_lead="lead" in rest,
        own="own" in rest,
        bare="bare" in rest,
        **options,
    )
    if made.is_family and (made.stem == pipe or not 1 <= made.slot <= _MOST_SLOTS):
        raise _unreadable(" ".join(words))
    return made


def _needs(text: str) -> "tuple[tuple[tuple[str, ...], ...], ...]":
    return tuple(
        tuple(
            tuple(word.strip() for word in one.split("+") if word.strip())
            for one in rule.split("|")
        )
        for rule in text.split(",")
        if rule.strip()
    )


def _pair(word: str) -> "tuple[str, str]":
    name, equals, value = word.partition("=")
    if not equals:
        raise _unreadable(word)
    return name, value


def _unreadable(text: str) -> InternalError:
    return InternalError(
        f"The node says of itself '{text}', which cannot be understood.",
        hint="Make a new node from the toolbar.",
    )
