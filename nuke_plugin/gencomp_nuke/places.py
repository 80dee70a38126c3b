# SPDX-License-Identifier: Apache-2.0
"""Places in a picture: Nuke's y runs up and the server's down, and is turned round here alone.

How such knobs are written is in ``gencomp_protocol/motion.py``. Knows nothing of Nuke.
"""

from collections.abc import Mapping
from typing import Any

from gencomp_protocol import motion
from gencomp_protocol.errors import InternalError

# What a knob holds: positions in the plate, or in what is placed on it, or matrices from the one
# to the other.
ON_PLATE, ON_ELEMENT, MATRIX = "plate", "element", "matrix"


def downwards(
    knobs: "Mapping[str, Any]",
    coordinates: "Mapping[str, str]",
    plate: float,
    own: "Mapping[str, float]",
) -> "dict[str, Any]":
    """Return knob values with every place in a picture counted from the top, as the server does.

    Args:
        knobs: Knob values by name.
        coordinates: What of these are places, and in what: ``ON_PLATE``, ``ON_ELEMENT`` or
            ``MATRIX``.
        plate: Height of the plate in pixels.
        own: Height of every element in pixels, by its name.

    Raises:
        BadKnob: A place cannot be read.
    """
    turned = dict(knobs)
    for knob, where in coordinates.items():
        turned[knob] = _turned(str(knobs[knob]), knob, where, plate, own)
    return turned


def _turned(text: str, knob: str, where: str, plate: float, own: "Mapping[str, float]") -> str:
    """Turn the y of one knob round, section by section, since elements differ in height."""
    if where == ON_PLATE:
        return motion.flipped(text, motion.PATH, plate, knob)
    if where not in (ON_ELEMENT, MATRIX):
        raise InternalError(f"Knob '{knob}' holds places in '{where}', which is unknown.")
    bodies = motion.sections(text, knob)
    if len(set(own.values())) > 1 and "" in bodies:  # What is for all of them differs from now on.
        rest = bodies.pop("")
        bodies = {**dict.fromkeys(own, rest), **bodies}
    made = []
    for name, body in bodies.items():
        height = own.get(name, next(iter(own.values()), plate))
        if where == MATRIX:
            body = motion.flipped(body, motion.MATRIX, plate, knob, height)
        else:
            body = motion.flipped(body, motion.PATH, height, knob)
        made.append(f"{name}: {body}" if name else body)
    return " | ".join(made)
