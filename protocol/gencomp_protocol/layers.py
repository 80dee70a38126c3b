# SPDX-License-Identifier: Apache-2.0
"""Names of inputs and layers: the one place where the strings are spelt and checked.

A layer is a named picture sequence; every file of it holds plain R, G, B, A (or A alone).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from gencomp_protocol.errors import BadName
from gencomp_protocol.windowspaths import is_device

BACKGROUND = "background"
RESIDUAL = "residual"
RESULT = "result"
EFFECT = "effect"
DIFFERENCE = "difference"
EFFECT_MATTE = "effect_matte"
EFFECT_UNDER = "effect_under"
EFFECT_OVER = "effect_over"
ELEMENT = "element"
INTERACTION = "interaction"
CLEAN = "clean"
PATCH = "patch"
ORIGIN = "origin"
LIMIT = "limit"
PROTECT = "protect"
DEPTH = "depth"
PLATE = "plate"
FG = "fg"
BG = "bg"
EFFECT_MASK = "effect_mask"
EFFECT_UNKNOWN = "effect_unknown"
CLEAN_PLATE = "clean_plate"
KEEP = "keep"
FG_PREFIX = "fg."
FG_MATTE = "fg_matte"
FG_MATTE_PREFIX = "fg_matte."
HOLDOUT = "holdout"
REMOVE = "remove"
SOURCE_MATTE = "source_matte"
TARGET_MATTE = "target_matte"
CONTINUE_MATTE = "continue_matte"
MATTE_PREFIX = "matte."
SOLO_PREFIX = "solo."
EFFECTS_PREFIX = "effects."
TRIMASK = "trimask"
TRIMASK_PREFIX = "trimask."
OBJECT_SUFFIX = "_object"
EFFECTS_SUFFIX = "_effects"
RGBA: tuple[str, ...] = ("R", "G", "B", "A")
# The mattes of ``origin``, which sum to one, and the number of the frame that "other" is of.
ORIGIN_CHANNELS: tuple[str, ...] = (
    "origin.plate",
    "origin.gain",
    "origin.other",
    "origin.generated",
    "origin.frame",
)

# Names that mean something already, in this or a neighbouring system, or inside Nuke.
_WORDS = """
background residual plate clean_plate keep clean patch result effect difference effect_matte
effect_under effect_over element interaction origin fg bg matte solo effects limit protect
effect_mask effect_unknown trimask holdout depth remove fg_matte source_matte target_matte
continue_matte rgb rgba alpha red green blue forward backward mask other all none
"""
RESERVED = frozenset(_WORDS.split())
_LEGAL = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}\Z")


@dataclass(frozen=True)
class LayerSpec:
    """What a job will deliver under one name: channels in file order and what they hold.

    Attributes:
        name: The layer.
        channels: Names of its channels, in the order of its pixels.
        doc: What it holds.
        whole: True where it is a picture, which fills its window; else it is a layer, and only the
            box of what is not zero is written.
        carries: Input whose other channels this layer's files hold too, where they are asked for.
    """

    name: str
    channels: tuple[str, ...] = RGBA
    doc: str = ""
    whole: bool = False
    carries: str = ""


def check_object_names(names: Iterable[str], what: str = "matte") -> tuple[str, ...]:
    """Return the names an artist gave to objects, or say which one cannot be used.

    Args:
        names: The names.
        what: What an artist calls such an object.

    Raises:
        BadName: A name is not ``[A-Za-z][A-Za-z0-9_]{0,31}``, is the name of a layer or input,
            ends in ``_object`` or ``_effects``, is a device on Windows, or stands twice (whatever
            the case of its letters).
    """
    seen = {}  # type: dict[str, str]
    for name in names:
        if not _LEGAL.match(name):
            raise BadName(
                f"The {what} name '{name}' cannot be a layer in Nuke.",
                hint="Use a letter first, then letters, digits or _, at most 32 in all.",
            )
        if name.lower() in RESERVED or name.endswith((OBJECT_SUFFIX, EFFECTS_SUFFIX)):
            raise BadName(
                f"The {what} name '{name}' is taken by a layer or an input.",
                hint=f"Call the {what} something else.",
            )
        if is_device(name):
            raise BadName(
                f"The {what} name '{name}' is the name of a device on Windows.",
                hint=f"Call the {what} something else: its layer is a folder there.",
            )
        if name.lower() in seen:
            both = dict.fromkeys((seen[name.lower()], name))  # They may differ in capitals.
            raise BadName(
                f"Two {what}s are called {' and '.join(map(repr, both))}.",
                hint=f"Give each {what} a name of its own.",
            )
        seen[name.lower()] = name
    return tuple(seen.values())
