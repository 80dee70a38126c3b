# SPDX-License-Identifier: Apache-2.0
"""Moving pictures in chunks, the same way in both directions. No sockets here.

Whoever receives pictures asks for stretches of them (:class:`Receiver`); whoever owns them answers
(:func:`read_stretch`, :class:`Credit`). A picture grows in a ``.part`` file beside its place, so
that the next attempt goes on at the offset reached; it takes its name only when the BLAKE2b-256
digest of the whole file is the one that was announced, and once it is on the disk itself. So nobody
ever sees half a picture, and what was said to be here is here after a power cut.
"""

import os
from collections import Counter, deque
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Optional, Union

from gencomp_protocol import disk
from gencomp_protocol.errors import (
    BadPicture,
    DiskFull,
    GencompError,
    MalformedMessage,
    MissingFrame,
    UnwritableOutput,
)
from gencomp_protocol.messages import CHUNK_BYTES, Chunk, Want, Withheld

_READ_BYTES = 4 * 1024 * 1024
_ATTEMPTS = 2  # A picture whose digest is wrong is fetched once more, then given up.
_MOST_LATE = 64  # Jobs that were forgotten and of which an answer may come late.

Place = tuple[str, str, str, int]  # job, input or layer, name, frame


@dataclass(frozen=True)
class Picture:
    """A picture on this machine's disk: what is announced of it.

    Attributes:
        path: The file.
        bytes: Its size.
        digest: BLAKE2b-256 of the file's bytes, in hex.
    """

    path: Path
    bytes: int
    digest: str


def digest_of_file(path: Path) -> str:
    """Return the BLAKE2b-256 digest of a file's bytes, in hex."""
    return str(_hash_file(path).hexdigest())


def _hash_file(path: Path) -> Any:
    state = blake2b(digest_size=32)
    with open(path, "rb") as source:
        for block in iter(lambda: source.read(_READ_BYTES), b""):
            state.update(block)
    return state


def picture_of(path: "Union[str, os.PathLike[str]]") -> Picture:
    """Return what is announced of a picture file; reads it once, whole.

    Raises:
        MissingFrame: The file is not there or cannot be read.
        BadPicture: The file is empty.
    """
    where = Path(path)
    try:
        size, digest = where.stat().st_size, digest_of_file(where)
    except OSError as error:
        raise MissingFrame(
            f"The picture {where.name} cannot be read ({error.strerror}).",
            hint="Check the path, or render it again.",
        ) from error
    if size == 0:
        raise BadPicture(f"The picture {where.name} is empty.", hint="Render it again.")
    return Picture(where, size, digest)


def read_stretch(path: Path, size: int, want: Want) -> Chunk:
    """Return the chunk that answers a want for a picture of ``size`` bytes.

    Raises:
        MalformedMessage: The stretch ends beyond the picture.
        BadPicture: The file has another size than was announced.
        MissingFrame: The file is gone.
    """
    if want.offset + want.length > size:
        raise MalformedMessage("want.offset: the stretch ends beyond the picture.")
    try:
        disk.about_to("read", path)
        with open(path, "rb") as source:
            changed = os.fstat(source.fileno()).st_size != size
            source.seek(want.offset)
            body = source.read(want.length)
    except OSError as error:
        raise MissingFrame(
            f"'{want.name}' frame {want.frame} cannot be read any more ({error.strerror}).",
            hint="Leave the pictures in place until the job has them.",
            **disk.facts(error, path.name),
        ) from error
    if changed or len(body) != want.length:
        raise BadPicture(
            f"'{want.name}' frame {want.frame} changed while it was being sent.",
            hint="Submit again once it is rendered.",
        )
    return Chunk(want.job, want.what, want.name, want.frame, want.offset, body)


class Credit:
    """Owner's side: what one receiver has in flight; refuses what goes beyond the credit."""

    def __init__(self, credit_bytes: int) -> None:
        self._credit_bytes = credit_bytes
        self._wanted = 0

    def take(self, want: Want) -> None:
        """Count a want.

        Raises:
            MalformedMessage: More would be in flight than the credit allows.
        """
        self._wanted += want.length
        if want.received > self._wanted - want.length:
            raise MalformedMessage("want.received: more than was ever wanted.")
        if self._wanted - want.received > self._credit_bytes:
            raise MalformedMessage(
                f"want.length: more than the credit of {self._credit_bytes} bytes is in flight."
            )


@dataclass(frozen=True)
class Expected:
    """A picture that is to come, and where it goes."""

    job: str
    what: str
    name: str
    frame: int
    bytes: int
    digest: str
    path: Path
    part: Path
    mode: int = 0o666  # Of the file, before the process's umask.

    @property
    def place(self) -> Place:
        """What its chunks are known by."""
        return (self.job, self.what, self.name, self.frame)


@dataclass(frozen=True)
class Arrived:
    """A picture is whole, its digest checked, and in its place."""

    picture: Expected


@dataclass(frozen=True)
class Lost:
    """A picture cannot be had; why."""

    picture: Expected
    error: GencompError


@dataclass(frozen=True)
class _Asked:
    """A stretch that was wanted and is not here: the how manieth want it was."""

    place: Place
    offset: int
    length: int
    turn: int


class _Arrival:
    """One picture on its way: how far it is asked for, how far it is here."""

    def __init__(self, expected: Expected) -> None:
        self.expected = expected
        self.attempts = 0
        self.asked = 0
        self.here = 0
        self.again: deque[tuple[int, int]] = deque()  # Stretches that were lost on the way.
        self.ahead: dict[int, bytes] = {}  # Behind one that was lost; the credit bounds it.
        self.state = blake2b(digest_size=32)

    def open(self) -> None:
        """Find out what an earlier attempt left, and go on from there."""
        part, size = self.expected.part, self.expected.bytes
        if part.exists() and part.stat().st_size <= size:
            self.state = _hash_file(part)
            self.here = self.asked = part.stat().st_size
        else:
            self.start_again()

    def start_again(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        disk.about_to("write", self.expected.part)
        os.close(os.open(self.expected.part, flags, self.expected.mode))
        self.state, self.here, self.asked = blake2b(digest_size=32), 0, 0
        self.again.clear()
        self.ahead.clear()

    @property
    def is_wanting(self) -> bool:
        """Tell whether a stretch of it is still to be asked for."""
        return bool(self.again) or self.asked < self.expected.bytes

    def append(self, body: bytes) -> None:
        disk.patiently(lambda: self._write(body))
        self.state.update(body)
        self.here += len(body)

    def _write(self, body: bytes) -> None:
        disk.about_to("write", self.expected.part)
        with open(self.expected.part, "r+b") as part:
            part.seek(self.here)
            part.write(body)

    @property
    def is_whole(self) -> bool:
        return self.here == self.expected.bytes

    @property
    def is_right(self) -> bool:
        return bool(self.state.hexdigest() == self.expected.digest)


class Receiver:
    """Receiver's side of one connection: what to want next, and what came of it.

    Pictures are asked for in the order in which they were expected, as many stretches at a time as
    the credit allows, so that a picture larger than the credit arrives like any other.

    Args:
        credit_bytes: Most that is wanted and not yet here.
        chunk_bytes: Most that is wanted at a time.
    """

    def __init__(self, credit_bytes: int, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._credit_bytes = credit_bytes
        self._chunk_bytes = min(chunk_bytes, credit_bytes, CHUNK_BYTES)
        self._waiting: deque[Expected] = deque()
        self._coming: dict[Place, _Arrival] = {}
        self._asked_now: deque[_Asked] = deque()
        self._asked_ever = 0
        self._given_up: Counter[tuple[Place, int]] = Counter()
        self._late: dict[str, int] = {}  # As many of a job that was forgotten, as a whole.
        self._in_flight = 0
        self._received = 0
        self._outcomes: deque[Union[Arrived, Lost]] = deque()
        self._asked_again: deque[Expected] = deque()

    @property
    def is_idle(self) -> bool:
        """Nothing is expected and nothing is left to report."""
        return not (self._waiting or self._coming or self._outcomes)

    @property
    def in_flight(self) -> int:
        """Bytes wanted and not yet here; never above the credit."""
        return self._in_flight

    def expect(self, expected: Expected) -> None:
        """Put a picture at the end of what is to be fetched."""
        self._waiting.append(expected)

    def forget(self, job: str) -> None:
        """Fetch no more pictures of a job; what is here stays in its ``.part`` files."""
        self._waiting = deque(entry for entry in self._waiting if entry.job != job)
        self._coming = {
            place: arrival for place, arrival in self._coming.items() if place[0] != job
        }
        given_up = [key for key in self._given_up if key[0][0] == job]
        late = self._late.pop(job, 0) + sum(self._given_up.pop(key) for key in given_up)
        if late:
            self._late[job] = late
            while len(self._late) > _MOST_LATE:
                del self._late[next(iter(self._late))]

    def unfinished(self) -> list[Expected]:
        """Return every picture that was expected and is not here, in order."""
        return [arrival.expected for arrival in self._coming.values()] + list(self._waiting)

    def wants(self) -> list[Want]:
        """Return the wants to send now: as many as the credit allows."""
        found: list[Want] = []
        while self._in_flight < self._credit_bytes:
            arrival = self._next_arrival()
            if arrival is None:
                break
            offset = arrival.again[0][0] if arrival.again else arrival.asked
            left = arrival.again[0][1] if arrival.again else arrival.expected.bytes - offset
            length = min(self._chunk_bytes, left)
            if length > self._credit_bytes - self._in_flight:
                break  # A full stretch fits as soon as the next chunk is here.
            if arrival.again:
                arrival.again.popleft()
            else:
                arrival.asked += length
            job, what, name, frame = place = arrival.expected.place
            found.append(Want(job, what, name, frame, offset, length, self._received))
            self._in_flight += length
            self._asked_ever += 1
            self._asked_now.append(_Asked(place, offset, length, self._asked_ever))
        return found

    @property
    def asked(self) -> int:
        """How often a stretch was wanted so far; see :meth:`give_up`."""
        return self._asked_ever

    def give_up(self, asked: int) -> None:
        """Want again what is not here of the first ``asked`` wants: their answers were lost.

        A connection keeps the order of what is sent over it, so whoever heard from the owner what
        it said after it had read those wants knows that. An answer that comes all the same is
        passed over.
        """
        while self._asked_now and self._asked_now[0].turn <= asked:
            self._lose(self._asked_now.popleft())

    def _lose(self, lost: "_Asked") -> None:
        """Count a want as answered, by nothing, and its stretch as still wanted."""
        self._in_flight -= lost.length
        self._received += lost.length
        self._given_up[lost.place, lost.offset] += 1
        arrival = self._coming.get(lost.place)
        if arrival is not None:
            arrival.again.append((lost.offset, lost.length))

    def _next_arrival(self) -> Optional[_Arrival]:
        """Return the first picture with something left to ask for, opening the next in line."""
        for arrival in self._coming.values():
            if arrival.is_wanting:
                return arrival
        while self._waiting:
            arrival = _Arrival(self._waiting.popleft())
            if self._open(arrival):
                return arrival
        return None

    def _open(self, arrival: _Arrival) -> bool:
        """Start a picture; False where it is here already, or cannot be written."""
        self._coming[arrival.expected.place] = arrival
        try:
            disk.patiently(arrival.open)
            if arrival.is_whole:
                self._close(arrival)
        except OSError as error:
            del self._coming[arrival.expected.place]
            self._outcomes.append(Lost(arrival.expected, _disk_error(arrival.expected, error)))
        return arrival.expected.place in self._coming

    def take(self, message: "Union[Chunk, Withheld]") -> None:
        """Take an answer to a want; :meth:`outcomes` tells what became of it.

        Raises:
            MalformedMessage: Nothing of the kind was wanted.
        """
        place = (message.job, message.what, message.name, message.frame)
        answered = self._settle(place, message.offset if isinstance(message, Chunk) else None)
        arrival = self._coming.get(place)
        if answered is None or arrival is None:
            return  # Given up, or forgotten, since it was wanted.
        if isinstance(message, Withheld):
            del self._coming[place]
            self._outcomes.append(Lost(arrival.expected, message.error))
        elif len(message.body) != answered.length:
            arrival.again.append((answered.offset, answered.length))
        elif message.offset >= arrival.here:
            arrival.ahead[message.offset] = message.body
            self._append(arrival)

    def _settle(self, place: Place, offset: Optional[int]) -> "Optional[_Asked]":
        """Count the want that a message answers as answered, and those before it as lost.

        Returns:
            That want; None where it was given up before.
        """
        own = [one for one in self._asked_now if one.place == place]
        index = next((i for i, one in enumerate(own) if offset in (None, one.offset)), None)
        if index is None:
            late = next((key for key in self._given_up if key[0] == place), None)
            key = late if offset is None else (place, offset)
            if key is None or not self._given_up[key]:
                if self._was_late(place[0]):
                    return None
                raise MalformedMessage(f"chunk: '{place[2]}' frame {place[3]} was not wanted.")
            self._given_up[key] -= 1
            self._given_up += Counter()  # Keys that count nothing go.
            return None
        # One that was given up may have come late: then it tells nothing of those before it.
        is_late = self._given_up[place, own[index].offset] > 0
        lost = [] if is_late else own[:index]
        for one in (*lost, own[index]):
            self._asked_now.remove(one)
        for one in lost:
            self._lose(one)
        self._in_flight -= own[index].length
        self._received += own[index].length
        return own[index]

    def _was_late(self, job: str) -> bool:
        """Count an answer to what was given up before its job was forgotten; False for none."""
        left = self._late.pop(job, 0)
        if left > 1:
            self._late[job] = left - 1
        return left > 0

    def _append(self, arrival: _Arrival) -> None:
        """Write what is here without a gap."""
        try:
            while arrival.here in arrival.ahead:
                arrival.append(arrival.ahead.pop(arrival.here))
            if arrival.is_whole:
                self._close(arrival)
        except OSError as error:
            self._coming.pop(arrival.expected.place, None)
            self._outcomes.append(Lost(arrival.expected, _disk_error(arrival.expected, error)))

    def _close(self, arrival: _Arrival) -> None:
        """Give a whole picture its name, or ask for it once more."""
        expected = arrival.expected
        if arrival.is_right:
            disk.become(expected.part, expected.path)
            del self._coming[expected.place]
            self._outcomes.append(Arrived(expected))
            return
        arrival.attempts += 1
        arrival.start_again()
        if arrival.attempts < _ATTEMPTS:
            self._asked_again.append(expected)
            return
        expected.part.unlink()
        del self._coming[expected.place]
        self._outcomes.append(Lost(expected, _digest_error(expected)))

    def asked_again(self) -> "list[Expected]":
        """Return what arrived with the wrong digest since the last call, and is on its way anew."""
        found = list(self._asked_again)
        self._asked_again.clear()
        return found

    def outcomes(self) -> "list[Union[Arrived, Lost]]":
        """Return what arrived or was lost since the last call."""
        found = list(self._outcomes)
        self._outcomes.clear()
        return found


def _digest_error(expected: Expected) -> GencompError:
    return BadPicture(
        f"'{expected.name}' frame {expected.frame} arrived twice with the wrong digest.",
        hint="Was the picture being written while it was sent? Submit again.",
        frame=expected.frame,
    )


def _disk_error(expected: Expected, error: OSError) -> GencompError:
    label = f"'{expected.name}' frame {expected.frame}"
    facts = disk.facts(error, expected.path.parent.name)
    if error.errno in disk.FULL:
        return DiskFull(
            f"{label} cannot be written: the disk is full.",
            hint="Free some space and run it again; it goes on where it stopped.",
            **facts,
        )
    return UnwritableOutput(
        f"{label} cannot be written into '{expected.path.parent.name}' ({error.strerror}).",
        hint="Check who owns the folder and whether its disk is mounted read-only.",
        **facts,
    )
