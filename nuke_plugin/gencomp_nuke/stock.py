# SPDX-License-Identifier: Apache-2.0
"""What of the result that a node plays is on disk. Needs nothing but Nuke, and changes nothing."""

import json
import os
from pathlib import Path
from typing import Any

import nuke

_MANIFEST = "manifest.json"
_ANY_VIEW = "%V"
_PLATE = "plate"
_BLACK = "black"
_NO_RESULT = "where there is no result"
_SHOWN = {"black": "black is shown there", "nearest frame": "the nearest frame is shown there"}


def lacks(gizmo: Any) -> str:
    """Return in a sentence what a node needs for its result and has not; empty for nothing.

    A node that was never generated and is set to its plate needs no result. Main thread only.
    """
    name = gizmo.fullName()
    folders = _folders(gizmo)
    if not folders:
        shows = gizmo.knob("gc_output")
        shown = "" if shows is None else str(shows.value())
        return "" if shown == _PLATE else f"{name} has no result yet."
    for folder in folders:
        missing = missing_in(folder)
        if missing:
            return f"{name} plays {folder.as_posix()}, {missing}."
    return ""


def gap(gizmo: Any) -> "tuple[str, str]":
    """Return in words which frame a result lacks inside its range, and what is shown there.

    Both are empty where none is missing or there is no result, the second where reading stops.
    Main thread only.
    """
    for folder in _folders(gizmo):
        missing = missing_in(folder)
        if missing and missing != _NO_RESULT:
            knob = gizmo.knob("gc_missing")
            return missing, "" if knob is None else _SHOWN.get(str(knob.value()), "")
    return "", ""


def holds(gizmo: Any, frame: int) -> str:
    """Return in a sentence that a node has no frame of its own for the one asked for; else nothing.

    The sentence says what it gives instead. Main thread only.
    """
    first, last = (gizmo.knob(name) for name in ("gc_result_first", "gc_result_last"))
    if first is None or last is None or not _folders(gizmo):
        return ""
    here = int(first.value()), int(last.value())
    if here[0] <= frame <= here[1]:
        return ""
    gives = f"it holds {here[0] if frame < here[0] else here[1]}"
    outside = gizmo.knob("gc_outside")
    if outside is not None and str(outside.value()) == _BLACK:
        gives = "its layers are black"
    return f"{gizmo.fullName()} has frames {here[0]}-{here[1]}: at {frame} {gives}."


def missing_in(folder: Path) -> str:
    """Return in words what a result lacks of what its manifest names; empty for nothing."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        layers = {name: sorted(map(int, one["frames"])) for name, one in manifest["layers"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return _NO_RESULT
    for layer, frames in layers.items():
        here = _names(folder / layer)
        gone = [n for n in frames if f"{layer}.{n:04d}.exr" not in here]
        if gone:
            more = f" and {len(gone) - 1} more" if len(gone) > 1 else ""
            return f"where frame {gone[0]}{more} of layer '{layer}' is missing"
    return ""


def _folders(gizmo: Any) -> "list[Path]":
    """Return the folders of the result that a node plays, one for each view of several."""
    knob = gizmo["gc_folder"]
    text = str(knob.evaluate() or "")
    if not text:
        return []
    folder = Path(nuke.filenameFilter(text))
    if _ANY_VIEW not in str(knob.value()):
        return [folder]
    return [folder.with_name(view) for view in nuke.views()]


def _names(folder: Path) -> "set[str]":
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()
