# SPDX-License-Identifier: Apache-2.0
"""What a gizmo has that its system does not declare: by the system's wire name."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Extra:
    """What one gizmo has of its own.

    Attributes:
        hidden: Inputs that are left to the command line.
        stills: Inputs that may be single pictures, and the stem of the knobs that say so.
        layers: The layers in their order; empty: as the system names them.
        outputs: Places of the output menu, ``*`` for an object's; empty: the layers in their order.
        usual: What the output menu shows at first; empty: the result.
        help: What stands in the help in place of what is expected; empty for the usual sentence.
        beside: Buttons of the template by the knob that they stand beside.
    """

    hidden: tuple[str, ...] = ()
    stills: Mapping[str, str] = dataclasses.field(default_factory=dict)
    layers: str = ""
    outputs: str = ""
    usual: str = ""
    help: str = ""
    beside: Mapping[str, str] = dataclasses.field(default_factory=dict)


EXTRAS = {
    "omnimatte": Extra(
        hidden=("solo.*", "effects.*", "trimask", "trimask.*"),
        stills={"clean_plate": "gc_clean"},
        layers="background * *_object *_effects residual clean patch",
        outputs="plate background * residual recomposed clean patch",
        usual="background",
        help="Over of the layers gives the plate back. Expects a scene-linear plate and one roto "
        "matte per object, without its effects; a clean plate is optional.",
    ),
    "dynvfx": Extra(beside={"instruction": "gc_assist"}),
}


def extra_of(system: str) -> Extra:
    """Return what a system's gizmo has of its own; nothing for most."""
    return EXTRAS.get(system, Extra())
