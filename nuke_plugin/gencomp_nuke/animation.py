# SPDX-License-Identifier: Apache-2.0
"""Which knobs take keys and expressions: those that Nuke computes, frame by frame.

Everything else counts once for a whole job, or is set by gencomp, and gets Nuke's flag
``NO_ANIMATION``, so that nobody keys what cannot move. A knob that a script drives already stays
free: its expression is loaded, shown and edited as before, and counts.
"""

from typing import Any

import nuke

# Computed by the nodes inside, or sampled over time.
_OVER_TIME = frozenset(
    (
        *("gc_output", "gc_view", "gc_live", "gc_mix", "gc_compare_mode", "gc_wipe", "gc_gain"),
        *("gc_shadow", "gc_light", "gc_is_key", "gc_point", "gc_scale_curve"),
    )
)
_OF_LAYERS = ("gc_density_", "gc_tint_", "gc_blur_", "gc_edge_", "gc_offset_")
_OF_PIPES = ("gc_invert",)
_NUMBERS = (
    *("Boolean_Knob", "Int_Knob", "Double_Knob", "Enumeration_Knob"),
    *("XY_Knob", "Color_Knob"),
)


def is_over_time(name: str) -> bool:
    """Tell whether a knob may have another value on another frame."""
    return name in _OVER_TIME or name.startswith(_OF_LAYERS + _OF_PIPES)


def flag(gizmo: Any) -> None:
    """Let only those knobs of a node be animated that can mean something.

    Args:
        gizmo: A node of ours; the knobs that every node of Nuke has are left alone.
    """
    sent = str(gizmo["gc_params"].value()).split()
    for name, knob in gizmo.knobs().items():
        if not (name.startswith("gc_") or name in sent) or knob.Class() not in _NUMBERS:
            continue
        if not is_over_time(name) and not knob.isAnimated():
            knob.setFlag(nuke.NO_ANIMATION)
