# SPDX-License-Identifier: Apache-2.0
"""Two results of a node side by side: which one is compared with, and which knobs differ.

The picture itself, a wipe or the difference times a gain, is made by plain nodes inside the gizmo.
Main thread only.
"""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nuke
from gencomp_nuke import jobs, node, readback, versions
from gencomp_nuke.caches import opened
from gencomp_nuke.wrapping import wrapped
from gencomp_protocol.errors import MissingFrame

_COMPARE, _OUTPUT = "compare", "output"
_MOST_LETTERS = 60


def pick(gizmo: Any) -> None:
    """Compare with the result before the one that is played: the take before, else the version.

    Raises:
        MissingFrame: There is none before it.
    """
    folder = readback.played(gizmo)
    if folder is None:
        raise MissingFrame("There is no result to compare.", hint="Press Generate.")
    before = _before(folder)
    with nuke.Undo(f"{gizmo.name()} compare"):
        gizmo["gc_compare_folder"].setValue(before.as_posix())
        gizmo["gc_view"].setValue(_COMPARE)
    tell(gizmo)


def _before(folder: Path) -> Path:
    version, take = jobs.version_of(folder), jobs.take_of(folder)
    earlier = [number for number in jobs.takes_in(version) if number < take]
    if earlier:
        return versions.result_in(version / f"take{earlier[-1]:02d}")
    for number in range(jobs.number_of(version) - 1, 0, -1):
        other = version.with_name(f"v{number:03d}")
        with contextlib.suppress(MissingFrame):  # Deleted, or never made.
            return versions.result_in(_nearest(other, folder))
    raise MissingFrame(
        f"There is no result before {jobs.spell(folder)}.",
        hint="Name a folder in 'compare with', or generate another version.",
    )


def _nearest(version: Path, folder: Path) -> Path:
    """Return the take of a version whose knobs are most like those of a result: what became of it.

    A version without takes is returned itself.
    """
    takes = [version / f"take{number:02d}" for number in jobs.takes_in(version)]
    if not takes:
        return version
    ours = readback.manifest_of(folder).get("knobs", {})

    def apart(take: Path) -> int:
        theirs = readback.manifest_of(take).get("knobs", {})
        return sum(ours.get(name) != theirs.get(name) for name in {*ours, *theirs})

    return min(takes, key=apart)


def tell(gizmo: Any) -> None:
    """Say on a node which knobs differ between the result it plays and the one it compares with."""
    if "gc_compare_knobs" not in gizmo.knobs():
        return
    folder = readback.played(gizmo)
    named = str(gizmo["gc_compare_folder"].value())
    text = opened(str(gizmo["gc_compare_folder"].evaluate() or ""))
    if jobs.ANY_VIEW in named:  # Evaluated it is that of one view.
        text = Path(text).with_name(jobs.ANY_VIEW).as_posix()
    said = ""
    if text and folder is not None:
        try:
            ours = readback.manifest_of(folder)
            theirs = readback.manifest_of(Path(text))
        except MissingFrame as error:
            said = str(error)
        else:
            said = in_words(ours.get("knobs", {}), theirs.get("knobs", {}))
            said = f"{jobs.spell(folder)} and {jobs.spell(Path(text))}: {said}"
    with node.quietly():
        gizmo["gc_compare_knobs"].setValue(wrapped(said))


def in_words(ours: "Mapping[str, Any]", theirs: "Mapping[str, Any]") -> str:
    """Return the knobs in which two results differ, as ``seed 3, there 1``; or that none does."""
    names = sorted(set(ours) | set(theirs))
    told = [
        f"{name} {_short(ours.get(name))}, there {_short(theirs.get(name))}"
        for name in names
        if ours.get(name) != theirs.get(name)
    ]
    return "; ".join(told) + "." if told else "no knob differs."


def _short(value: Any) -> str:
    if value is None:
        return "not set"
    text = f"{value:.10g}" if isinstance(value, float) else str(value)
    text = text if text else "empty"
    return text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 1]}…"
