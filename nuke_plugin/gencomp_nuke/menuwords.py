# SPDX-License-Identifier: Apache-2.0
"""Words of a menu and what they stand for: what follows in brackets is for the artist's eye.

``preview (ships, draft quality)`` is sent, kept and compared as ``preview``.
"""

from typing import Any

_MENU = "Enumeration_Knob"


def spoken(shown: str) -> str:
    """Return the choice that a menu's words stand for."""
    return shown.partition(" (")[0]


def value(knob: Any) -> Any:
    """Return a knob's value; of a menu the choice, not its words."""
    found = knob.value()
    return spoken(str(found)) if knob.Class() == _MENU else found


def setting(knob: Any, wanted: Any) -> Any:
    """Return what a knob is to be set to for a value: of a menu the words that stand for it.

    Args:
        knob: The knob.
        wanted: A value; of a menu a choice, or its words.
    """
    if knob.Class() != _MENU:
        return wanted
    words = [str(one) for one in knob.values()]
    return next((one for one in words if spoken(one) == spoken(str(wanted))), wanted)
