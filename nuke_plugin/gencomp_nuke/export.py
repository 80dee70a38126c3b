# SPDX-License-Identifier: Apache-2.0
"""Rendering what is connected to a node into EXR files, through the Writes inside the node.

Runs on Nuke's main thread, shows Nuke's own progress bar and stops when that is cancelled. What is
rendered is the input as Nuke computes it (retimes, grades and all), at full resolution whatever
the proxy setting, raw: the samples of the working space, unconverted.
"""

import logging
import os
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import nuke
from gencomp_nuke.asking import Ask, Pipe
from gencomp_nuke.mainthread import through
from gencomp_nuke.node import full_resolution, rendering
from gencomp_protocol.errors import BadPicture, Cancelled, GencompError, MissingFrame
from gencomp_protocol.frames import spell_frames

log = logging.getLogger(__name__)


def render(
    node: Any, ask: Ask, folder: Path, only: "Optional[Mapping[str, Sequence[int]]]" = None
) -> "dict[str, dict[int, Path]]":
    """Render the connected inputs of a node and return the files by input and frame.

    Args:
        node: A node of ours.
        ask: What it asks for.
        folder: Folder for the files; is made.
        only: Frames to render by input; None: every frame of every input.

    Raises:
        Cancelled: The artist stopped the rendering.
        BadPicture: Nuke could not render an input; says what Nuke said.
        MissingFrame: Nuke rendered, and a file is not there.
    """
    wanted = {pipe.header.name: pipe.header.frames for pipe in ask.pipes} if only is None else only
    return render_only(node, ask.pipes, folder, wanted, ask.view or nuke.views()[0])


def render_only(
    node: Any,
    pipes: "Sequence[Pipe]",
    folder: Path,
    wanted: "Mapping[str, Sequence[int]]",
    view: str,
) -> "dict[str, dict[int, Path]]":
    """Render frames of a node's pipes in one view; as :func:`render`, without what it asks for."""
    files: dict[str, dict[int, Path]] = through(rendering_each(node, pipes, folder, wanted, view))
    return files


def rendering_each(
    node: Any,
    pipes: "Sequence[Pipe]",
    folder: Path,
    wanted: "Mapping[str, Sequence[int]]",
    view: str,
) -> "Generator[None, None, dict[str, dict[int, Path]]]":
    """Do as :func:`render_only`, a pipe at each step; between two the node is as it was."""
    found = {}
    for pipe in pipes:
        frames = wanted.get(pipe.header.name)
        if frames:
            yield
            with full_resolution(), rendering(node, folder):
                found[pipe.header.name] = _render_pipe(node, pipe, folder, frames, view)
    return found


def file_of(folder: Path, pipe: Pipe, frame: int) -> Path:
    """Return the file that an inner Write makes of a frame."""
    return folder / pipe.folder / f"{pipe.folder}.{frame:04d}.exr"


def render_runs(writer: Any, frames: "Sequence[int]", view: str) -> None:
    """Let a Write render frames of one view.

    Raises:
        RuntimeError: What Nuke's renderer says.
    """
    for first, last, step in runs(frames):
        nuke.execute(writer, first, last, step, [view])


def _render_pipe(
    node: Any, pipe: Pipe, folder: Path, frames: "Sequence[int]", view: str
) -> "dict[int, Path]":
    files = {n: file_of(folder, pipe, n) for n in frames}
    (folder / pipe.folder).mkdir(parents=True, exist_ok=True)
    try:
        render_runs(node.node(pipe.writer), frames, view)
    except RuntimeError as error:
        raise _explained(pipe, str(error)) from error
    check(pipe, files)
    log.info("rendered %s, %d frames", pipe.header.name, len(files))
    return files


def check(pipe: Pipe, files: "Mapping[int, Path]") -> None:
    """Refuse a rendering that left a frame out.

    Raises:
        MissingFrame: Names the input and its frames.
    """
    # One look at the folder: a network disk takes its time for every file that is asked about.
    there = {folder: _names_in(folder) for folder in {path.parent for path in files.values()}}
    missing = [n for n, path in files.items() if path.name not in there[path.parent]]
    if missing:
        raise MissingFrame(
            f"Nuke rendered '{pipe.header.name}' without frame {spell_frames(missing)}.",
            hint="Look at what is connected there at that frame.",
        )


def _names_in(folder: Path) -> "set[str]":
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()


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
    reason = said.strip().rstrip(".") or "no reason given"
    return BadPicture(
        f"Nuke could not render the input '{pipe.header.name}': {reason}.",
        hint="Look at what is connected there, then press Generate again.",
    )
