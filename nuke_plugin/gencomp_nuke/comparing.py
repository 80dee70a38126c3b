# SPDX-License-Identifier: Apache-2.0
"""Two results of a node side by side: which one is compared with, and which knobs differ.

The picture itself, a wipe or the difference times a gain, is made by plain nodes inside the gizmo.
Main thread only.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gencomp_nuke import jobs, node, readback
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
    with node.quietly():
        gizmo["gc_compare_folder"].setValue(before.as_posix())
        gizmo["gc_view"].setValue(_COMPARE)
    tell(gizmo)


def _before(folder: Path) -> Path:
    version, take = jobs.version_of(folder), jobs.take_of(folder)
    earlier = [number for number in jobs.takes_in(version) if number < take]
    if earlier:
        return version / f"take{earlier[-1]:02d}"
    for number in range(jobs.number_of(version) - 1, 0, -1):
        other = version.with_name(f"v{number:03d}")
        if (other / jobs.MANIFEST).is_file():
            return other
        takes = jobs.takes_in(other)
        if takes:
            return other / f"take{takes[-1]:02d}"
    raise MissingFrame(
        f"There is no result before {jobs.spell(folder)}.",
        hint="Name a folder in 'compare with', or generate another version.",
    )


def tell(gizmo: Any) -> None:
    """Say on a node which knobs differ between the result it plays and the one it compares with."""
    if "gc_compare_knobs" not in gizmo.knobs():
        return
    text, folder = str(gizmo["gc_compare_folder"].evaluate() or ""), readback.played(gizmo)
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
