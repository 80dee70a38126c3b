# SPDX-License-Identifier: Apache-2.0
"""A sub-range that was generated anew, merged into the result that a node plays.

The outcome is a version of its own: inside the range the new frames, outside it those of the older
result, as hard links where the disk has them, so it costs no room. The older result stays as it is.
"""

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import nuke
from gencomp_nuke import jobs, readback
from gencomp_nuke.asking import Ask
from gencomp_protocol.errors import BadKnob, UnwritableOutput
from gencomp_protocol.frames import spell_frames

_KNOB = "gc_merge"
_CURE = "Switch 'merge' off on the tab Cache & Server."


def base_of(gizmo: Any, asked: Ask) -> Optional[Path]:
    """Return the folder of the result that a node's next frames go into, or None.

    That is the one it plays, where the knob says so and frames of it stay. Main thread only.

    Raises:
        MissingFrame: The result that is played is not there.
        BadKnob: It is of another system, of other objects or of fewer views.
    """
    if _KNOB not in gizmo.knobs() or not gizmo[_KNOB].value():
        return None
    folder = readback.played(gizmo)
    if folder is None:
        return None
    manifest = readback.manifest_of(folder)
    kept = {n for frames in jobs.delivered(manifest).values() for n in frames}
    if kept <= set(asked.request.frames):
        return None
    _check(folder, manifest, asked)
    views = nuke.views()
    if len(views) < 2:
        return jobs.in_view(folder, views[0])
    if folder.name != jobs.ANY_VIEW:
        raise BadKnob(f"{jobs.spell(folder)} has one view, the script has several.", hint=_CURE)
    return folder


def _check(folder: Path, manifest: "Mapping[str, Any]", asked: Ask) -> None:
    """Refuse what would put frames of two different things side by side.

    Raises:
        BadKnob: The older result is of another system or of other objects.
    """
    name = jobs.spell(folder)
    system = str(manifest.get("system", asked.request.system))
    if system != asked.request.system:
        raise BadKnob(f"{name} was made by {system}; nothing can be merged into it.", hint=_CURE)
    slots = manifest.get(readback.NODE, {}).get("slots")
    ours = {str(slot): word for slot, word in asked.slots.items()}
    if slots is not None and slots != ours:
        was, now = (", ".join(sorted(filter(None, one.values()))) for one in (slots, ours))
        raise BadKnob(f"{name} has the objects {was or 'none'}, not {now or 'none'}.", hint=_CURE)


def fill(folder: Path, manifest: "Mapping[str, Any]", base: Path) -> "dict[str, Any]":
    """Add to a new result what an older one has beyond its range.

    Args:
        folder: Folder of the new frames, still growing.
        manifest: Manifest of the new result.
        base: Folder of the older result.

    Returns:
        The manifest of both.

    Raises:
        MissingFrame: The older result is no longer there.
        UnwritableOutput: A frame cannot be linked or copied.
    """
    older = jobs.read_manifest(base)
    new = {n for frames in jobs.delivered(manifest).values() for n in frames}
    layers = {name: dict(entry) for name, entry in manifest.get("layers", {}).items()}
    for name, entry in older.get("layers", {}).items():
        kept = {text: facts for text, facts in entry["frames"].items() if int(text) not in new}
        for text in kept:
            _bring(base, folder, str(name), int(text))
        mine = layers.get(name, {**entry, "frames": {}})
        layers[name] = {**mine, "frames": {**kept, **mine["frames"]}}
    every = {int(text) for entry in layers.values() for text in entry["frames"]}
    own = dict(manifest.get(readback.NODE, {}))
    own["merged"] = {"into": jobs.spell(base), "frames": spell_frames(new)}
    return {**manifest, "layers": layers, "frames": spell_frames(every), readback.NODE: own}


def _bring(base: Path, folder: Path, layer: str, frame: int) -> None:
    """Put one frame of the older result beside the new ones, without a second copy if possible."""
    name = f"{layer}.{frame:04d}.exr"
    source, target = base / layer / name, folder / layer / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            target.unlink()
        try:
            os.link(source, target)
        except OSError:  # No links on that disk, or not from there: a copy is as good.
            shutil.copyfile(source, target)
    except OSError as error:
        raise UnwritableOutput(
            f"Frame {frame} of {base} cannot be brought into the new version ({error.strerror}).",
            hint="Make room on the disk, or switch 'merge' off on the tab Cache & Server.",
        ) from error
