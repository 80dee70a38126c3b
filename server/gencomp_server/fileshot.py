# SPDX-License-Identifier: Apache-2.0
"""A shot straight from files on disk, for what looks at a few frames and runs no job.

Implements ``contract.Shot`` as the engine's own shot does, with the same decoder processes, but
decodes a picture when it is asked for and keeps none but the last few. :class:`Desk` is what stands
in for a job's context: every stage runs at once, nothing is kept.
"""

from __future__ import annotations

import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from gencomp_protocol.errors import InternalError, MissingFrame, MissingInput
from gencomp_protocol.request import STILL
from gencomp_server.engine.ingest import input_kind
from gencomp_server.exr.decode import DecodePool, DecodeTask
from gencomp_server.exr.header import NO_LIMITS
from gencomp_server.exr.read import MappedPicture, map_picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gencomp_protocol.frames import FrameRange
    from gencomp_protocol.request import InputHeader, Request
    from gencomp_server.contract import PictureHeader, System
    from gencomp_server.models.backbone import Backbone
    from gencomp_server.segmenting import Segmenter
    from gencomp_server.sources import Source

T = TypeVar("T")
_KEPT = 8


class FileShelf:
    """Pictures of some sources, decoded as they are asked for.

    Args:
        system: Says what each input is.
        sources: The inputs, found on disk.
        pool: Decodes.
        scratch: Folder for what is decoded.
    """

    def __init__(
        self, system: System, sources: Sequence[Source], pool: DecodePool, scratch: Path
    ) -> None:
        self.sources = {one.header.name: one for one in sources}
        self._system, self._pool, self._scratch = system, pool, scratch
        self._kept: OrderedDict[tuple[str, int], MappedPicture] = OrderedDict()
        self._numbers = itertools.count()

    def picture(self, name: str, n: int) -> MappedPicture:
        """Return a picture, mapped."""
        found = self._kept.pop((name, n), None) or self._decoded(name, n)
        self._kept[name, n] = found
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return found

    def _decoded(self, name: str, n: int) -> MappedPicture:
        source = self.sources[name]
        task = DecodeTask(
            source.paths[n],
            self._scratch / str(next(self._numbers)),
            source.kind,
            input_kind(self._system, name),
            source.header.channel,
            source.header.colourspace,
            name,
            n,
        )
        decoded = self._pool.submit(task).result()
        found = map_picture(decoded)
        if found is None:
            raise InternalError(f"{task.label} was removed while it was decoded.")
        for suffix in (".raw", ".json"):  # What is mapped stays readable without its name.
            decoded.path.with_name(decoded.path.name + suffix).unlink()
        return found


class FileShot:
    """Some inputs of files on disk, as a system sees them; implements ``contract.Shot``.

    Args:
        request: What would be asked of a server.
        shelf: The pictures.
        names: The inputs to show; all when None.
    """

    def __init__(
        self, request: Request, shelf: FileShelf, names: tuple[str, ...] | None = None
    ) -> None:
        self.request = request
        self.frames: FrameRange = request.frames
        self._shelf = shelf
        self._names = tuple(shelf.sources) if names is None else names

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs, in the artist's order."""
        return self._names

    def header(self, name: str, n: int | None = None) -> PictureHeader:
        """Return the header of frame ``n``, or of the input's first picture."""
        frame = self.frames_of(name)[0] if n is None else self._own_frame(name, n)
        return self._shelf.picture(name, frame).header

    def frames_of(self, name: str) -> tuple[int, ...]:
        """Return the frames at which an input has a picture of its own."""
        return self._entry(name).frames

    def frame(self, name: str, n: int, channels: tuple[str, ...] | None = None) -> NDArray[Any]:
        """Return one picture, or some of its channels, read-only. [H,W,C].

        Raises:
            MissingInput: The shot has no such input, or the input no such channel.
            MissingFrame: The input has no picture at that frame.
        """
        found = self._shelf.picture(name, self._own_frame(name, n))
        if channels is None:
            return found.pixels
        held = found.header.channels
        absent = [channel for channel in channels if channel not in held]
        if absent:
            raise MissingInput(
                f"Input '{name}' has no channel '{absent[0]}'.", hint=f"It has {', '.join(held)}."
            )
        return found.pixels[..., [held.index(channel) for channel in channels]]

    def rows(self, name: str, n: int, y0: int, y1: int) -> NDArray[Any]:
        """Return rows ``y0`` to ``y1`` (exclusive) of the data window. [y1-y0,W,C]."""
        return self.frame(name, n)[y0:y1]

    def digest(self, name: str, n: int) -> str:
        """Return what names the picture: its path, since nothing is kept by content here."""
        return str(self._shelf.sources[name].paths[self._own_frame(name, n)])

    def only(self, *names: str) -> FileShot:
        """Return the same shot with these inputs alone."""
        for name in names:
            self._entry(name)
        return FileShot(self.request, self._shelf, names)

    def _entry(self, name: str) -> InputHeader:
        if name not in self._names:
            raise MissingInput(f"There is no input '{name}'.", input=name)
        return self._shelf.sources[name].header

    def _own_frame(self, name: str, n: int) -> int:
        entry = self._entry(name)
        if entry.cover == STILL:
            return entry.frames[0]
        if n not in entry.frames:
            raise MissingFrame(f"Input '{name}' has no frame {n}.", input=name, frame=n)
        return n


@dataclass
class Desk:
    """A context without a job; implements ``contract.Context``.

    Attributes:
        warnings: What was said to the artist.
        figures: What was reported.
    """

    seed: int = 0
    backbone: Backbone | None = None
    segmenter: Segmenter | None = None
    log: logging.Logger = field(default_factory=lambda: logging.getLogger(__name__))
    warnings: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def generator(self, key: str) -> np.random.Generator:
        """Return a fresh generator that depends on seed and key alone."""
        return np.random.default_rng([self.seed, *key.encode()])

    def progress(self, stage: str, step: int, total: int) -> None:
        """Do nothing: what is looked at is quick."""

    def check_cancelled(self) -> None:
        """Do nothing: an interrupt ends the command."""

    def warn(self, sentence: str) -> None:
        """Keep a sentence for the artist."""
        self.warnings.append(sentence)

    def report(self, key: str, value: Any) -> None:
        """Keep a figure."""
        self.figures[key] = value

    def stage(
        self,
        name: str,
        fn: Callable[..., T],
        *inputs: Any,
        version: int = 1,
        seeded: bool = True,
        **settings: Any,
    ) -> T:
        """Return ``fn(self, *inputs, **settings)``; nothing is kept."""
        return fn(self, *inputs, **settings)

    def made_of(self, value: T, *sources: Any) -> T:
        """Return the value; there is no graph."""
        return value

    def checkpoint(
        self, name: str, tensors: Mapping[str, NDArray[Any]] | None = None
    ) -> dict[str, NDArray[Any]] | None:
        """Return None: nothing is kept."""
        return None


@contextmanager
def opened(system: System, request: Request, sources: Sequence[Source]) -> Iterator[FileShot]:
    """Yield the shot of some files; its decoder and what it decoded go afterwards."""
    with TemporaryDirectory(prefix="gencomp-files-") as scratch:
        pool = DecodePool(1, limits=NO_LIMITS)
        try:
            yield FileShot(request, FileShelf(system, sources, pool, Path(scratch)))
        finally:
            pool.close()
