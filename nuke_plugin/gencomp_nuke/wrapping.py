# SPDX-License-Identifier: Apache-2.0
"""Words as a panel shows them: sentences in lines, a duration, an amount of data.

Nuke's text knob breaks no line by itself. Imports nothing of ours, so that a broken installation
can be told too.
"""

import textwrap
from typing import Any

_WIDTH = 90
# Where the sentence of a node stands: on Main, and again on each tab that has buttons.
_STATUS = (
    *("gc_status", "gc_status_keys", "gc_status_way", "gc_status_takes", "gc_status_cache"),
    "gc_status_about",
)
_GIGA, _MEGA = 1e9, 1e6


def wrapped(sentence: str) -> str:
    """Break a sentence into lines between its words; a path stays whole, so that it can be copied.

    Args:
        sentence: What the node says, on one line.
    """
    return textwrap.fill(sentence, _WIDTH, break_long_words=False, break_on_hyphens=False)


def put_status(gizmo: Any, sentence: str) -> None:
    """Put a sentence onto every tab of a node that has buttons, so that who pressed one sees it.

    Args:
        gizmo: A node of ours; one of an older script has the line on Main alone.
        sentence: What the node says, on one line.
    """
    text = wrapped(sentence)
    for knob in filter(None, (gizmo.knob(name) for name in _STATUS)):
        knob.setValue(text)


def spell_seconds(seconds: float) -> str:
    """Spell a duration as an artist reads it: ``40 s``, ``3 min``, ``2 h 05 min``."""
    whole = int(seconds + 0.5)
    if whole < 90:
        return f"{whole} s"
    minutes = (whole + 30) // 60
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def spell_bytes(count: int) -> str:
    """Spell an amount of data, 10^9 bytes to a GB: ``12 kB``, ``0.4 MB``, ``22.4 GB``."""
    if count >= 1000 * _GIGA:
        return f"{count / _GIGA / 1000:.1f} TB"
    if count >= _GIGA:
        return f"{count / _GIGA:.1f} GB"
    if count < 0.1 * _MEGA:
        return f"{count / 1000:.0f} kB"
    return f"{count / _MEGA:.0f} MB" if count >= 10 * _MEGA else f"{count / _MEGA:.1f} MB"
