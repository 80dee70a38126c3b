# SPDX-License-Identifier: Apache-2.0
"""A job's material out of the spool, a frame at a time: what systems know as ``contract.Shot``.

Frames are arrays mapped from the decoded pictures, read-only. A few maps are kept, so that the
pages of a clip do not pile up in memory; a picture whose pixels were removed from the spool is
decoded again.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from gencomp_protocol.errors import InternalError, MissingFrame, MissingInput
from gencomp_protocol.frames import FrameRange
from gencomp_protocol.request import STILL, InputHeader, Request
from gencomp_server import pulse
from gencomp_server.contract import PictureHeader, System
from gencomp_server.engine.ingest import REST, decode_task, input_kind
from gencomp_server.engine.spool import Spool, remove_decoded
from gencomp_server.exr.decode import (
    EXR,
    IMAGE,
    Decoded,
    DecodePool,
    DecodeTask,
    picture_label,
    read_decoded,
)
from gencomp_server.exr.layout import EXR_MAGIC
from gencomp_server.exr.read import MappedPicture, MappedRest, map_picture, map_rest

# Of 4096x2160 RGBA half a picture maps 71 MB: three of them, or all inputs of a 2K frame.
_MAPPED_BYTES = 256 << 20
# What is decoded only to be carried along is kept for the layers of a few frames, not for a clip:
# a 4K frame with twenty float channels takes 0.7 GB.
_REST_BYTES = 1 << 30


class PictureShelf:
    """The decoded pictures of one job, mapped as they are asked for.

    Args:
        spool: Where they lie.
        system: The job's system, which says what each input is.
        request: The job's request.
        pictures: Digest of every picture, by input and frame.
        pool: Decodes pictures whose pixels were removed.
        mapped_bytes: How much may stay mapped beyond what somebody still uses.
        rest_bytes: How much may stay on disk of what is only carried along.
    """

    def __init__(
        self,
        spool: Spool,
        system: System,
        request: Request,
        pictures: Mapping[str, Mapping[int, str]],
        pool: DecodePool,
        *,
        mapped_bytes: int = _MAPPED_BYTES,
        rest_bytes: int = _REST_BYTES,
    ) -> None:
        self.pictures = {name: dict(sorted(own.items())) for name, own in pictures.items()}
        self._spool, self._system, self._request = spool, system, request
        self._pool, self._mapped_bytes = pool, mapped_bytes
        self._mapped: OrderedDict[tuple[str, int], MappedPicture] = OrderedDict()
        self._decoded: dict[tuple[str, int], Decoded] = {}
        self._rest_bytes = rest_bytes
        self._rests: OrderedDict[tuple[str, int], Decoded] = OrderedDict()

    def decoded(self, name: str, n: int) -> Decoded:
        """Return header and figures of a picture; decode it where that was not done or is gone."""
        place = (name, n)
        if place not in self._decoded:
            task = self._task(name, n)
            self._decoded[place] = read_decoded(task.target) or self._pool.submit(task).result()
            pulse.beat()
        return self._decoded[place]

    def picture(self, name: str, n: int) -> MappedPicture:
        """Return a picture, mapped."""
        place = (name, n)
        found = self._mapped.pop(place, None) or self._map(name, n)
        self._mapped[place] = found
        spare = sum(one.pixels.nbytes for one in self._mapped.values()) - self._mapped_bytes
        while spare > 0 and len(self._mapped) > 1:
            spare -= self._mapped.popitem(last=False)[1].pixels.nbytes
        return found

    def rest(self, name: str, n: int) -> MappedRest | None:
        """Return all of a picture's file but R, G and B, mapped; None where it is no EXR.

        It is decoded when it is asked for. Of what was asked for before, the oldest is removed from
        the spool beyond a bound; who still holds its map keeps it.

        Raises:
            BadPicture: A channel or part of it is damaged.
        """
        if file_kind(self._spool.picture(self.pictures[name][n])) != EXR:
            return None
        place = (name, n)
        found = self._rests.pop(place, None) or self._decode_rest(name, n)
        mapped = map_rest(found) or map_rest(self._decode_rest(name, n))
        if mapped is None:
            raise self._was_removed(name, n)
        self._rests[place] = found
        spare = sum(one.bytes for one in self._rests.values()) - self._rest_bytes
        while spare > 0 and len(self._rests) > 1:
            oldest = self._rests.popitem(last=False)[1]
            spare -= oldest.bytes
            remove_decoded(oldest.path)
        return mapped

    def close(self) -> None:
        """Let go of every map."""
        self._mapped.clear()

    def _decode_rest(self, name: str, n: int) -> Decoded:
        task = self._task(name, n, REST)
        return read_decoded(task.target) or self._pool.submit(task).result()

    def _map(self, name: str, n: int) -> MappedPicture:
        found = map_picture(self.decoded(name, n))
        if found is None:
            found = map_picture(self._pool.submit(self._task(name, n)).result())
        if found is None:
            raise self._was_removed(name, n)
        return found

    def _was_removed(self, name: str, n: int) -> InternalError:
        label = picture_label(name, n)
        return InternalError(f"{label} was removed from the spool while it was decoded.")

    def _task(self, name: str, n: int, kind: str = "") -> DecodeTask:
        digest, entry = self.pictures[name][n], self._request.input(name)
        assert entry is not None, name
        wanted, held = (
            kind or input_kind(self._system, name),
            file_kind(self._spool.picture(digest)),
        )
        return decode_task(self._spool, wanted, entry, n, digest, held)


def file_kind(path: Path) -> str:
    """Return whether a received file is ``exr`` or ``image``, by its first four bytes."""
    try:
        with open(path, "rb") as file:
            return EXR if file.read(4) == EXR_MAGIC else IMAGE
    except FileNotFoundError as error:
        raise InternalError(f"The picture {path.name[:12]} is not in the spool.") from error


class SpoolShot:
    """Some inputs of a job, as a system sees them; implements ``contract.Shot``.

    Args:
        request: The job's request.
        shelf: Its pictures.
        names: The inputs to show; all of the request when None.
    """

    def __init__(
        self, request: Request, shelf: PictureShelf, names: tuple[str, ...] | None = None
    ) -> None:
        self.request = request
        self.frames: FrameRange = request.frames
        self._shelf = shelf
        self._names = tuple(entry.name for entry in request.inputs) if names is None else names

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the inputs, in the artist's order."""
        return self._names

    def header(self, name: str, n: int | None = None) -> PictureHeader:
        """Return the header of frame ``n``, or of the input's first picture."""
        frame = self.frames_of(name)[0] if n is None else self._own_frame(name, n)
        return self._shelf.decoded(name, frame).header

    def frames_of(self, name: str) -> tuple[int, ...]:
        """Return the frames at which an input has a picture of its own."""
        self._entry(name)
        return tuple(self._shelf.pictures[name])

    def frame(self, name: str, n: int, channels: tuple[str, ...] | None = None) -> NDArray[Any]:
        """Return one picture, or some of its channels, read-only.

        Args:
            name: The input.
            n: The frame.
            channels: Names of the channels wanted, in order; all when None.

        Returns:
            Samples over the data window, as the file holds them. [H,W,C] float16 or float32.

        Raises:
            MissingInput: The shot has no such input, or the input no such channel.
            MissingFrame: The input has no picture at that frame.
        """
        found = self._shelf.picture(name, self._own_frame(name, n))
        if channels is None or channels == found.header.channels:
            return found.pixels
        held = found.header.channels
        absent = [channel for channel in channels if channel not in held]
        if absent:
            raise MissingInput(
                f"Input '{name}' has no channel '{absent[0]}'.", hint=f"It has {', '.join(held)}."
            )
        places = [held.index(channel) for channel in channels]
        if places == list(range(places[0], places[0] + len(places))):
            return found.pixels[..., places[0] : places[-1] + 1]
        return found.pixels[..., places]

    def rows(self, name: str, n: int, y0: int, y1: int) -> NDArray[Any]:
        """Return rows ``y0`` to ``y1`` (exclusive) of the data window. [y1-y0,W,C]."""
        return self._shelf.picture(name, self._own_frame(name, n)).pixels[y0:y1]

    def rest(self, name: str, n: int) -> MappedRest | None:
        """Return what a picture's file holds besides R, G and B; None where it is no EXR."""
        return self._shelf.rest(name, self._own_frame(name, n))

    def digest(self, name: str, n: int) -> str:
        """Return the BLAKE2b digest of the picture's file, in hex."""
        return self._shelf.pictures[name][self._own_frame(name, n)]

    def pictures(self) -> dict[str, dict[int, str]]:
        """Return the digest of every picture of its inputs, by input and frame."""
        return {name: dict(self._shelf.pictures[name]) for name in self._names}

    def only(self, *names: str) -> "SpoolShot":
        """Return the same shot with these inputs alone: what a stage depends on."""
        for name in names:
            self._entry(name)
        return SpoolShot(self.request, self._shelf, names)

    def without_knobs(self) -> "SpoolShot":
        """Return the same shot as a stage sees it: it cannot depend on a knob it was not given."""
        bare = replace(self.request, knobs={}, client="")
        return SpoolShot(bare, self._shelf, self._names)

    def _entry(self, name: str) -> InputHeader:
        entry = self.request.input(name)
        if entry is None or name not in self._names:
            raise MissingInput(f"There is no input '{name}'.", input=name)
        return entry

    def _own_frame(self, name: str, n: int) -> int:
        """Return the frame whose picture answers for frame ``n``."""
        entry, own = self._entry(name), self._shelf.pictures[name]
        if entry.cover == STILL:
            return next(iter(own))
        if n not in own:
            raise MissingFrame(f"Input '{name}' has no frame {n}.", input=name, frame=n)
        return n
