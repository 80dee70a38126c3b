# SPDX-License-Identifier: Apache-2.0
"""Folders of results: ``v001``, ``v002`` … inside the cache folder of a node.

A result grows in ``v002.part`` and becomes ``v002`` by one rename when it is whole, so a folder
without ``.part`` is always complete and the previous one is never touched::

    <cache>/v001/background/background.1001.exr …
    <cache>/v001/manifest.json
    <cache>/v002.part/inputs/plate/plate.1001.exr …      while a job runs
"""

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gencomp_protocol.errors import MissingFrame, UnwritableOutput
from gencomp_protocol.frames import spell_frames

MANIFEST = "manifest.json"
INPUTS = "inputs"
_PART = ".part"
_NUMBERED = re.compile(r"v(\d{3,})(?:\.part)?\Z")


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
            return Version(part, final)
    except OSError as error:
        raise UnwritableOutput(
            f"The cache folder {cache} cannot be written ({error.strerror}).",
            hint="Choose another folder on the tab Cache & Server.",
        ) from error


def keep(version: Version, manifest: "Mapping[str, Any]") -> Path:
    """Check that every frame of the manifest is there, and make the version final.

    Returns:
        The final folder.

    Raises:
        MissingFrame: A layer lacks a frame.
        UnwritableOutput: The folder cannot be renamed.
    """
    for layer, frames in delivered(manifest).items():
        paths = {n: version.folder / layer / f"{layer}.{n:04d}.exr" for n in frames}
        missing = [n for n, path in paths.items() if not path.is_file()]
        if missing:
            raise MissingFrame(
                f"Layer '{layer}' arrived without frame {spell_frames(missing)}.",
                hint="Press Generate again.",
            )
    try:
        shutil.rmtree(version.inputs, ignore_errors=True)
        text = json.dumps(dict(manifest), indent=1, sort_keys=True)
        (version.folder / MANIFEST).write_text(text, encoding="utf-8")
        os.rename(version.folder, version.final)
    except OSError as error:
        raise UnwritableOutput(
            f"The result {version.final} cannot be written ({error.strerror}).",
            hint="Make room on the disk, or choose another cache folder.",
        ) from error
    return version.final


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
