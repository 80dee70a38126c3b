# SPDX-License-Identifier: Apache-2.0
"""Rendering what is connected to a node into EXR files, through the Writes inside the node.

Runs on Nuke's main thread, shows Nuke's own progress bar and stops when that is cancelled. What is
rendered is the input as Nuke computes it (retimes, grades and all), at full resolution whatever
the proxy setting, raw: the samples of the working space, unconverted.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nuke
from gencomp_nuke.asking import Ask, Pipe
from gencomp_nuke.node import full_resolution, rendering
from gencomp_protocol.errors import BadPicture, Cancelled, GencompError, MissingFrame
from gencomp_protocol.frames import spell_frames

log = logging.getLogger(__name__)


def render(node: Any, ask: Ask, folder: Path) -> "dict[str, dict[int, Path]]":
    """Render every connected input of a node and return the files by input and frame.

    Args:
        node: A node of ours.
        ask: What it asks for.
        folder: Folder for the files; is made.

    Raises:
        Cancelled: The artist stopped the rendering.
        BadPicture: Nuke could not render an input; says what Nuke said.
        MissingFrame: Nuke rendered, and a file is not there.
    """
    with full_resolution(), rendering(node, folder):
        return {pipe.header.name: render_pipe(node, pipe, folder) for pipe in ask.pipes}


def render_pipe(node: Any, pipe: Pipe, folder: Path) -> "dict[int, Path]":
    """Render one connected input, inside :func:`rendering`; return its files by frame.

    Raises:
        Cancelled, BadPicture, MissingFrame: As of :func:`render`.
    """
    writer = node.node(pipe.writer)
    place = folder / pipe.folder
    place.mkdir(parents=True, exist_ok=True)
    files = {n: place / f"{pipe.folder}.{n:04d}.exr" for n in pipe.header.frames}
    for first, last, step in runs(pipe.header.frames):
        try:
            nuke.execute(writer, first, last, step, nuke.views()[:1])
        except RuntimeError as error:
            raise _explained(pipe, str(error)) from error
    missing = [n for n, path in files.items() if not path.is_file()]
    if missing:
        raise MissingFrame(
            f"Nuke rendered '{pipe.header.name}' without frame {spell_frames(missing)}.",
            hint="Look at what is connected there at that frame.",
        )
    log.info("rendered %s, %d frames", pipe.header.name, len(files))
    return files


def runs(frames: "Sequence[int]") -> "list[tuple[int, int, int]]":
    """Return ascending frames as runs of first, last and step, as few as a steady step allows."""
    found: list[tuple[int, int, int]] = []
    for frame in frames:
        if found:
            first, last, step = found[-1]
            if first == last or frame - last == step:
                found[-1] = (first, frame, frame - last)
                continue
        found.append((frame, frame, 1))
    return found


def _explained(pipe: Pipe, said: str) -> GencompError:
    """Return what an error of Nuke's renderer means for the artist."""
    if "cancel" in said.lower():
        return Cancelled("Rendering the inputs was cancelled.")
    reason = said.strip() or "no reason given"
    return BadPicture(
        f"Nuke could not render the input '{pipe.header.name}': {reason}",
        hint="Look at what is connected there, then press Generate again.",
    )
