# SPDX-License-Identifier: Apache-2.0
"""What is connected to a node, as files: one per input and frame, ready to be sent.

Three ways lead to a file, and the first that serves is taken for each picture::

    the Read's own file      it is what Nuke would write, sample for sample (asis.py)
    one rendered before      <cache>/inputs/plate/plate.1001.<fingerprint>.exr, nothing has changed
    rendering                here, or in a Nuke of its own (export.py, background.py)

Rendered inputs stay in the cache for the next run. The oldest go once they are more than the
settings allow.
"""

import contextlib
import itertools
import logging
import os
import shutil
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import nuke
from gencomp_nuke import asis, background, export, madefrom, node
from gencomp_nuke.asking import Ask, Pipe
from gencomp_nuke.fingerprint import Prints
from gencomp_nuke.mainthread import through
from gencomp_nuke.prefs import Prefs
from gencomp_protocol.errors import Cancelled, UnwritableOutput

log = logging.getLogger(__name__)

STORE = "inputs"
_BACKGROUND = "in a background Nuke"
_GIGABYTE = 1 << 30
_MANY_FRAMES = 50
_ROUNDS = 3  # An expression of the clock differs at every look.


@dataclass(frozen=True)
class Supply:
    """The inputs of a run: files that are there, and those that are still to come.

    Attributes:
        ask: What the node asks for.
        folder: Where Nuke renders.
        store: Folder in which rendered inputs are kept.
        places: The file of every input and frame, as it will be sent.
        wanted: Frames that are rendered, by input.
        rendering: A rendering in a background Nuke; None where everything is rendered already.
        most_bytes: Most that the store holds beside what this run needs.
    """

    ask: Ask
    folder: Path
    store: Path
    places: "dict[str, dict[int, Path]]"
    wanted: "dict[str, tuple[int, ...]]"
    rendering: "Optional[background.Rendering]"
    most_bytes: int

    def files(
        self,
        cancelled: "Callable[[], bool]" = lambda: False,
        say: "Callable[[str], None]" = lambda sentence: None,
    ) -> "dict[str, dict[int, Path]]":
        """Return the files by input and frame, once all are there. Any thread; touches no node.

        Args:
            cancelled: Asked while a background Nuke renders.
            say: Takes a sentence about how far that is.

        Raises:
            Cancelled, BadPicture: The background Nuke was stopped, or failed.
            MissingFrame: It rendered, and a file is not there.
            UnwritableOutput: The cache cannot be written.
        """
        if self.rendering is not None:
            self.rendering.run(cancelled, say)
        try:
            for pipe in self.ask.pipes:
                frames = self.wanted.get(pipe.header.name, ())
                made = {n: export.file_of(self.folder, pipe, n) for n in frames}
                export.check(pipe, made)
                for n, path in made.items():
                    _put(path, self.places[pipe.header.name][n])
            self._trim()
        except OSError as error:
            raise UnwritableOutput(
                f"The rendered inputs cannot be kept in {self.store} ({error.strerror}).",
                hint="Make room on the disk, or choose another cache folder.",
            ) from error
        return self.places

    def _trim(self) -> None:
        """Remove the rendered inputs that were not used for longest, beyond the limit."""
        mine = {path for frames in self.places.values() for path in frames.values()}
        for path in mine:
            if self.store in path.parents:
                os.utime(path)
        others = []
        for path in self.store.glob("*/*.exr"):
            with contextlib.suppress(FileNotFoundError):  # Another Nuke of this script was faster.
                found = path.stat()
                others += [] if path in mine else [(found.st_mtime, found.st_size, path)]
        held = 0
        for _, size, path in sorted(others, reverse=True):
            held += size
            if held > self.most_bytes:
                path.unlink(missing_ok=True)


def ready(gizmo: Any, ask: Ask, folder: Path, settings: Prefs) -> "dict[str, dict[int, Path]]":
    """Return the files of every connected input, by input and frame; wait for them. Main thread.

    Where the main thread may not wait, :func:`collect` here and ask :meth:`Supply.files` elsewhere.

    Args:
        gizmo: A node of ours.
        ask: What it asks for.
        folder: Folder that is there while the job runs; Nuke renders into it.
        settings: Settings of the user.

    Raises:
        Cancelled: The artist stopped the rendering.
        BadPicture: Nuke could not render an input; says what Nuke said.
        MissingFrame: Nuke rendered, and a file is not there.
        UnwritableOutput: The cache cannot be written.
    """
    return collect(gizmo, ask, folder, settings).files()


def collect(gizmo: Any, ask: Ask, folder: Path, settings: Prefs) -> Supply:
    """Find the files of every input, and render what is not there yet. Main thread only.

    Arguments and errors are those of :func:`collecting`.
    """
    found: Supply = through(collecting(gizmo, ask, folder, settings))
    return found


def collecting(
    gizmo: Any, ask: Ask, folder: Path, settings: Prefs
) -> "Generator[None, None, Supply]":
    """Find the files of every input, a frame at each step, and last render what is not there yet.

    Files are looked at one by one, and a network disk takes its time for each: between two steps
    whoever goes through them may let an artist work on. Main thread only.

    Args:
        gizmo: A node of ours.
        ask: What it asks for.
        folder: Folder that is there while the job runs; Nuke renders into it.
        settings: Settings of the user.

    Raises:
        Cancelled, BadPicture, MissingFrame: As :func:`ready`.
    """
    store = node.cache_folder(gizmo, settings) / STORE
    for _ in range(_ROUNDS):
        then = _as_it_is(gizmo)
        places, wanted = yield from _looked_up(gizmo, ask, store)
        if _as_it_is(gizmo) == then:
            break
        log.info("something was turned while the inputs were looked at; they are looked at again")
    else:  # It never rests: at once, so that no file is kept under the name of another picture.
        places, wanted = through(_looked_up(gizmo, ask, store))
    rendering = None
    if any(wanted.values()):
        if _is_in_background(gizmo):
            rendering = background.prepare(gizmo, ask, folder, wanted, settings)
        else:
            view = ask.view or nuke.views()[0]
            yield from export.rendering_each(gizmo, ask.pipes, folder, wanted, view)
    limit = settings.inputs_keep_gb * _GIGABYTE
    return Supply(ask, folder, store, places, wanted, rendering, limit)


def _as_it_is(gizmo: Any) -> "tuple[str, str]":
    """Return what the pictures that would be rendered now depend on, as far as knobs say it."""
    depth = gizmo.knob("gc_depth")
    return madefrom.key_of(gizmo), "" if depth is None else str(depth.value())


def _looked_up(
    gizmo: Any, ask: Ask, store: Path
) -> "Generator[None, None, tuple[dict[str, dict[int, Path]], dict[str, tuple[int, ...]]]]":
    """Find where every file is or will be, and which frames have to be rendered, by input."""
    places = yield from _places(gizmo, ask, store)
    wanted = {}
    for name, frames in places.items():
        wanted[name] = tuple(
            n for n, path in frames.items() if _is_ours(path, store) and not _is_there(path)
        )
        yield
    return places, wanted


def _places(
    gizmo: Any, ask: Ask, store: Path
) -> "Generator[None, None, dict[str, dict[int, Path]]]":
    """Find where the file of every input and frame is, or will be, a frame at each step."""
    view = ask.view or nuke.views()[0]
    frames = [n for pipe in ask.pipes for n in pipe.header.frames]
    prints, tick = Prints(frames, view), _bar(len(frames))
    found = {}
    for pipe in ask.pipes:
        files = None
        if sends_files(gizmo):
            files = yield from _at_full_size(asis.files_of(gizmo, pipe, view), tick)
        if files is None:
            writer, stem = gizmo.node(pipe.writer), store / pipe.folder / pipe.folder
            files = yield from _at_full_size(_rendered_places(writer, stem, pipe, prints), tick)
        found[pipe.header.name] = files
    return found


def _rendered_places(
    writer: Any, stem: Path, pipe: Pipe, prints: Prints
) -> "Generator[None, None, dict[int, Path]]":
    files = {}
    for n in pipe.header.frames:
        yield
        files[n] = stem.with_name(f"{stem.name}.{n:04d}.{prints.written(writer, n)}.exr")
    return files


def _at_full_size(
    steps: "Generator[None, None, Any]", tick: "Callable[[], None]"
) -> "Generator[None, None, Any]":
    """Go through steps without proxy; between them the script's proxy is as the artist has it."""
    while True:
        with node.full_resolution():
            try:
                next(steps)
            except StopIteration as over:
                return over.value
        tick()
        yield


def _bar(frames: int) -> "Callable[[], None]":
    """Return what is called for every frame that is looked at: a bar that can be cancelled.

    On a slow disk a long plate takes a while, and an artist has to see what Nuke is waiting for.
    """
    if not nuke.GUI or frames < _MANY_FRAMES:
        return lambda: None
    task, done = nuke.ProgressTask("gencomp: looking at the inputs"), itertools.count(1)

    def tick() -> None:
        if task.isCancelled():
            raise Cancelled("Looking at the inputs was cancelled.")
        task.setProgress(min(100, 100 * next(done) // frames))

    return tick


def sends_files(gizmo: Any) -> bool:
    """Tell whether a node may send a Read's own files; one of an older script renders."""
    return "gc_files" in gizmo.knobs() and bool(gizmo["gc_files"].value())


def _is_in_background(gizmo: Any) -> bool:
    """Tell whether a second Nuke is to render; a terminal session waits anyway."""
    if not nuke.GUI or "gc_inputs" not in gizmo.knobs():
        return False
    return str(gizmo["gc_inputs"].value()) == _BACKGROUND


def _is_ours(path: Path, store: Path) -> bool:
    return store in path.parents


def _is_there(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _put(path: Path, place: Path) -> None:
    """Move a rendered picture to its place in the store, whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.replace(path, place)
    except OSError:  # Another disk: the folder of a run need not lie in the cache.
        part = place.with_name(place.name + ".part")
        shutil.copyfile(path, part)
        os.replace(part, place)
        path.unlink()
