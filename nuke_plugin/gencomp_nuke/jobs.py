# SPDX-License-Identifier: Apache-2.0
"""Folders of results: ``v001``, ``v002`` … inside the cache folder of a node.

A result grows in ``v002.part`` and becomes ``v002`` by one rename when it is whole, so a folder
without ``.part`` is always complete and the previous one is never touched::

    <cache>/v001/background/background.1001.exr …
    <cache>/v001/manifest.json
    <cache>/v002.part/inputs/plate/plate.1001.exr …      while a job runs
    <cache>/v002.part/job.json                           and what a later Nuke goes on from

A version of takes or views holds one such result in each of their folders, ``v003/take01``,
``v003/left`` or ``v003/take01/left``, each with its own manifest. A node names that of all views as
``v003/%V``.
"""

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from gencomp_protocol.errors import DiskFull, GencompError, MissingFrame, UnwritableOutput
from gencomp_protocol.frames import spell_frames

MANIFEST = "manifest.json"
INPUTS = "inputs"
JOB = "job.json"
ANY_VIEW = "%V"
DELETED = ".deleted"  # What stands in the place of a version that was, so its number stays taken.
_PART = ".part"
_ROOM = "On the tab Cache & Server, delete versions that nobody needs or choose another folder."
_NUMBERED = re.compile(r"v(\d{3,})(?:\.part|\.deleted)?\Z")
_WHOLE = re.compile(r"v\d{3,}\Z")
_TAKE = re.compile(r"take(\d+)\Z")


@dataclass(frozen=True)
class Version:
    """A numbered result that is being made.

    Attributes:
        folder: Where it grows; exists until it is kept or discarded.
        final: Where it will be.
    """

    folder: Path
    final: Path

    @property
    def inputs(self) -> Path:
        """Folder of the rendered inputs, gone once the result is whole."""
        return self.folder / INPUTS


def reserve(cache: Path) -> Version:
    """Make the folder of the next version; two sessions never get the same one.

    Raises:
        DiskFull: There is no room for it.
        UnwritableOutput: The folder cannot be made.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        while True:
            final = cache / f"v{_highest(cache) + 1:03d}"
            try:
                part = final.with_name(final.name + _PART)
                part.mkdir()
            except FileExistsError:
                continue
            if final.exists():  # Another session's became whole since this one looked.
                part.rmdir()
                continue
            return Version(part, final)
    except OSError as error:
        if _is_full(error):
            raise DiskFull(f"The disk of the cache folder {cache} is full.", hint=_ROOM) from error
        raise UnwritableOutput(
            f"The cache folder {cache} cannot be written ({error.strerror}).",
            hint="Choose another folder on the tab Cache & Server.",
        ) from error


def settle(version: Version, manifest: "Mapping[str, Any]", place: str = "") -> Path:
    """Check that every frame of a manifest is there, and write it beside them.

    Args:
        version: The version that is being made.
        manifest: What came of one job.
        place: Folder of its layers inside the version; empty for the version's own.

    Returns:
        The folder.

    Raises:
        MissingFrame: A layer lacks a frame.
        DiskFull, UnwritableOutput: The manifest cannot be written.
    """
    folder = version.folder / place
    for layer, frames in delivered(manifest).items():
        paths = {n: folder / layer / f"{layer}.{n:04d}.exr" for n in frames}
        missing = [n for n, path in paths.items() if not path.is_file()]
        if missing:
            raise MissingFrame(
                f"Layer '{layer}' arrived without frame {spell_frames(missing)}.",
                hint="Press Generate again.",
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(dict(manifest), indent=1, sort_keys=True)
        (folder / MANIFEST).write_text(text, encoding="utf-8")
    except OSError as error:
        raise _unwritable(version.final, error) from error
    return folder


def keep(version: Version, manifest: "Optional[Mapping[str, Any]]" = None) -> Path:
    """Make a version final; what was only needed while its jobs ran is gone then.

    Args:
        version: The version.
        manifest: Of its one result; None where every result has its own already.

    Returns:
        The final folder.

    Raises:
        MissingFrame: A layer lacks a frame.
        DiskFull, UnwritableOutput: The folder cannot be renamed.
    """
    if manifest is not None:
        settle(version, manifest)
    try:
        os.rename(version.folder, version.final)
    except OSError as error:
        raise _unwritable(version.final, error) from error
    # Only now: until it has its name, a later Nuke may have to go on from these.
    shutil.rmtree(version.final / INPUTS, ignore_errors=True)
    with contextlib.suppress(OSError):  # The result is whole; this is litter then.
        (version.final / JOB).unlink()
    return version.final


def _unwritable(final: Path, error: OSError) -> GencompError:
    if _is_full(error):
        return DiskFull(f"The disk of the result {final} is full.", hint=_ROOM)
    return UnwritableOutput(
        f"The result {final} cannot be written ({error.strerror}).",
        hint="Check who owns the folder, or choose another one on the tab Cache & Server.",
    )


def _is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def part_of(folder: Path) -> Version:
    """Return the version that grows in a folder such as ``v002.part``."""
    return Version(folder, folder.with_name(folder.name[: -len(_PART)]))


def unfinished(cache: Path) -> "list[Path]":
    """Return the folders of versions that are not whole, oldest first."""
    if not cache.is_dir():
        return []
    found = [p for p in cache.iterdir() if p.name.endswith(_PART) and _NUMBERED.match(p.name)]
    return sorted(found, key=number_of)


def whole(cache: Path) -> "list[Path]":
    """Return the folders of all whole versions, oldest first."""
    if not cache.is_dir():
        return []
    found = [p for p in cache.iterdir() if is_whole(p.name) and p.is_dir()]
    return sorted(found, key=number_of)


def is_whole(name: str) -> bool:
    """Tell whether a folder's name is that of a whole version, such as ``v002``."""
    return _WHOLE.match(name) is not None


# --- which result a folder is --------------------------------------------------------------------


def version_of(folder: Path) -> Path:
    """Return the version's folder of a result: of ``v003/take01/left`` that is ``v003``.

    A folder that lies in no version is returned as it is.
    """
    for place in (folder, *list(folder.parents)[:2]):
        if _NUMBERED.match(place.name):
            return place
    return folder


def number_of(version: Path) -> int:
    """Return the number of a version's folder; 0 for another folder."""
    match = _NUMBERED.match(version.name)
    return int(match.group(1)) if match else 0


def spell(folder: Path) -> str:
    """Spell a result as an artist calls it: ``v003``, ``v003 take01``."""
    version = version_of(folder)
    inside = folder.parts[len(version.parts) :]
    takes = [word for word in inside if _TAKE.match(word)]
    return " ".join((version.name, *takes))


def take_of(folder: Path) -> int:
    """Return the number of the take that a result is, 0 for one that is none."""
    found = [match for match in map(_TAKE.match, folder.parts) if match]
    return int(found[-1].group(1)) if found else 0


def takes_in(version: Path) -> "tuple[int, ...]":
    """Return the numbers of the takes in a version, ascending; none where it has none."""
    if not version.is_dir():
        return ()
    found = [match for match in (_TAKE.match(p.name) for p in version.iterdir()) if match]
    return tuple(sorted(int(match.group(1)) for match in found))


def in_view(folder: Path, view: str) -> Path:
    """Return the folder of one view where a result is named for all of them."""
    return folder.with_name(view) if folder.name == ANY_VIEW else folder


def read_manifest(folder: Path) -> "dict[str, Any]":
    """Return the manifest of a whole result.

    Raises:
        MissingFrame: The folder holds none, or one that cannot be read.
    """
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MissingFrame(
            f"There is no result in {folder}.", hint="Choose a folder such as v001."
        ) from error
    return dict(found)


def discard(version: Version) -> None:
    """Remove a version that will not become whole."""
    shutil.rmtree(version.folder, ignore_errors=True)


def delivered(manifest: "Mapping[str, Any]") -> "dict[str, tuple[int, ...]]":
    """Return the frames of every layer that a manifest names, in the manifest's order."""
    layers = manifest.get("layers", {})
    return {
        str(name): tuple(sorted(int(n) for n in entry["frames"])) for name, entry in layers.items()
    }


def _highest(cache: Path) -> int:
    found: Iterable[str] = (entry.name for entry in cache.iterdir())
    numbers = [int(match.group(1)) for match in map(_NUMBERED.match, found) if match]
    return max(numbers, default=0)
