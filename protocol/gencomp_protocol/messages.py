# SPDX-License-Identifier: Apache-2.0
"""Every message of the wire as a frozen dataclass, in the order of ``docs/td/protocol.md``.

A message is its fields and nothing else; :mod:`gencomp_protocol.codec` turns it into frames. A
field named ``body`` travels as a frame of its own and is never packed. Requests carry an ``id``
chosen by the client and get exactly one answer with the same ``id``; events carry a ``job``.
Hints are read at run time, so they are spelt for Python 3.9.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Optional

from gencomp_protocol.errors import GencompError, MalformedMessage
from gencomp_protocol.request import ONLY_WHERE_SET, Request

CHUNK_BYTES = 8 * 1024 * 1024  # Largest body of a chunk.
CREDIT_BYTES = 64_000_000  # Default of what may be wanted and not yet received, each way.
MESSAGE_BYTES = 16 * 1024 * 1024  # Largest frame a socket takes; the peer is dropped beyond it.
PICTURE_BYTES = 4 * 1024**3  # Largest picture that can be announced.

INPUT = "input"
LAYER = "layer"

RECEIVING = "receiving"
QUEUED = "queued"
RUNNING = "running"
DONE = "done"
FAILED = "failed"
REFUSED = "refused"
CANCELLED = "cancelled"
STATES = (RECEIVING, QUEUED, RUNNING, DONE, FAILED, REFUSED, CANCELLED)
FINAL_STATES = frozenset((DONE, FAILED, REFUSED, CANCELLED))

EXR = "exr"
IMAGE = "image"
KINDS = (EXR, IMAGE)

_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_KEY = re.compile(r"[A-Za-z0-9_.:-]{1,128}\Z")
_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{0,128}\Z")
_NAME_WORDS = "at most 128 printable characters"
MOST_PRIORITY = 100


def _demand(fact: bool, where: str, wanted: str, got: Any) -> None:
    if not fact:
        raise MalformedMessage(f"{where}: expected {wanted}, got {got!r}.", field=where)


@dataclass(frozen=True)
class Message:
    """Base of every message; ``TYPE`` is its name on the wire."""

    TYPE: ClassVar[str] = ""


# --- opening -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hello(Message):
    """Client: who I am, which protocol I speak, and the secret of this server."""

    TYPE: ClassVar[str] = "hello"
    id: int
    protocol: tuple[int, ...]
    secret: str = field(repr=False)
    client: str = ""
    account: str = field(default="", metadata={ONLY_WHERE_SET: True})

    def __post_init__(self) -> None:
        """Refuse a version that is not a pair, and an account that is no name."""
        _demand(len(self.protocol) == 2, "hello.protocol", "two numbers", list(self.protocol))
        _demand(bool(_NAME.match(self.account)), "hello.account", _NAME_WORDS, self.account)


@dataclass(frozen=True)
class Welcome(Message):
    """Server: the hello was good; limits, and what every system takes.

    ``shares``: it may read pictures where they lie, if submit says where. New in 1.2.
    """

    TYPE: ClassVar[str] = "welcome"
    id: int
    protocol: tuple[int, ...]
    server_version: str
    limits: Mapping[str, int]
    systems: tuple[Mapping[str, Any], ...]
    worker: str
    shares: bool = field(default=False, metadata={ONLY_WHERE_SET: True})


@dataclass(frozen=True)
class Refusal(Message):
    """Server: the request of that id is refused; ``id`` 0 where it could not be read."""

    TYPE: ClassVar[str] = "refusal"
    id: int
    error: GencompError


# --- asking for a job ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Check(Message):
    """Client: would this request be taken? Nothing is stored, no picture travels."""

    TYPE: ClassVar[str] = "check"
    id: int
    request: Request


@dataclass(frozen=True)
class Planned(Message):
    """Server: it would; this is what it costs and which layers it makes."""

    TYPE: ClassVar[str] = "planned"
    id: int
    plan: Mapping[str, Any]


@dataclass(frozen=True)
class PictureEntry:
    """One picture that the client can send: its frame, size and BLAKE2b-256 digest in hex.

    ``path`` is where it lies on storage that the server may share; empty for nowhere. New in 1.2.
    """

    frame: int
    bytes: int
    digest: str
    path: str = field(default="", metadata={ONLY_WHERE_SET: True}, repr=False)

    def __post_init__(self) -> None:
        """Refuse a size or a digest that cannot be."""
        _demand(0 < self.bytes <= PICTURE_BYTES, "picture.bytes", "a picture's size", self.bytes)
        _demand(bool(_DIGEST.match(self.digest)), "picture.digest", "64 hex digits", self.digest)


@dataclass(frozen=True)
class InputPictures:
    """The pictures of one input; ``kind`` is ``exr``, or ``image`` for DPX, PNG, TIFF and JPEG."""

    name: str
    pictures: tuple[PictureEntry, ...]
    kind: str = EXR

    def __post_init__(self) -> None:
        """Refuse a kind that no decoder takes, and a frame given twice."""
        _demand(self.kind in KINDS, "inputs.kind", " or ".join(KINDS), self.kind)
        times = Counter(entry.frame for entry in self.pictures)
        twice = sorted(frame for frame, count in times.items() if count > 1)[:8]
        got = f"{self.name} frame {', '.join(map(str, twice))} twice"
        _demand(not twice, "inputs.pictures", "each frame once", got)


@dataclass(frozen=True)
class Submit(Message):
    """Client: do this. ``key`` makes it idempotent: the same key is the same job.

    ``nonce`` is new whenever somebody asks, and the same when a message is sent again: what is
    played back later by somebody else makes no second job. New in 1.2.
    """

    TYPE: ClassVar[str] = "submit"
    id: int
    key: str
    request: Request
    inputs: tuple[InputPictures, ...]
    nonce: str = field(default="", metadata={ONLY_WHERE_SET: True})
    show: str = field(default="", metadata={ONLY_WHERE_SET: True})
    shot: str = field(default="", metadata={ONLY_WHERE_SET: True})
    priority: int = field(default=0, metadata={ONLY_WHERE_SET: True})

    def __post_init__(self) -> None:
        """Refuse a key that is not short plain text, an input given twice, and what is no name."""
        _demand(bool(_KEY.match(self.key)), "submit.key", "1 to 128 of A-Za-z0-9_.:-", self.key)
        is_nonce = not self.nonce or bool(_KEY.match(self.nonce))
        _demand(is_nonce, "submit.nonce", "1 to 128 of A-Za-z0-9_.:-", self.nonce)
        names = [entry.name for entry in self.inputs]
        _demand(len(set(names)) == len(names), "submit.inputs", "each input once", names)
        _demand(bool(_NAME.match(self.show)), "submit.show", _NAME_WORDS, self.show)
        _demand(bool(_NAME.match(self.shot)), "submit.shot", _NAME_WORDS, self.shot)
        is_there = -MOST_PRIORITY <= self.priority <= MOST_PRIORITY
        _demand(is_there, "submit.priority", "-100 to 100", self.priority)


@dataclass(frozen=True)
class Accepted(Message):
    """Server: the job of that submit or follow, and how it stands."""

    TYPE: ClassVar[str] = "accepted"
    id: int
    job: str
    state: str
    position: int = 0


# --- following a job -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Follow(Message):
    """Client: send me this job's events. ``serves``: I have its pictures, you may want them."""

    TYPE: ClassVar[str] = "follow"
    id: int
    job: str
    serves: bool = False


@dataclass(frozen=True)
class Unfollow(Message):
    """Client: no more events of this job. The job itself goes on."""

    TYPE: ClassVar[str] = "unfollow"
    id: int
    job: str


@dataclass(frozen=True)
class Cancel(Message):
    """Client: stop this job. Answered at once; the ``cancelled`` event follows."""

    TYPE: ClassVar[str] = "cancel"
    id: int
    job: str


@dataclass(frozen=True)
class Release(Message):
    """Client: I have every layer of this finished job; you may drop them."""

    TYPE: ClassVar[str] = "release"
    id: int
    job: str


@dataclass(frozen=True)
class Jobs(Message):
    """Client: list the jobs you know; those that have not ended, and ``most`` of the others."""

    TYPE: ClassVar[str] = "jobs"
    id: int
    most: int = 0

    def __post_init__(self) -> None:
        """Refuse a number that cannot be."""
        _demand(self.most >= 0, "jobs.most", "0 or more", self.most)


@dataclass(frozen=True)
class JobQuery(Message):
    """Client: tell me of this job."""

    TYPE: ClassVar[str] = "job"
    id: int
    job: str


@dataclass(frozen=True)
class JobList(Message):
    """Server: the jobs asked for, newest first, as plain maps."""

    TYPE: ClassVar[str] = "job_list"
    id: int
    jobs: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Graph(Message):
    """Client: which stages does this job have, and how do they stand? New in 1.2."""

    TYPE: ClassVar[str] = "graph"
    id: int
    job: str


@dataclass(frozen=True)
class JobGraph(Message):
    """Server: the job's stages as plain maps, each below those that it needs. New in 1.2."""

    TYPE: ClassVar[str] = "job_graph"
    id: int
    job: str
    state: str
    stages: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Report(Message):
    """Client: gather for support what there is on a job, no picture and no secret. New in 1.2."""

    TYPE: ClassVar[str] = "report"
    id: int
    job: str
    with_prompts: bool = False


@dataclass(frozen=True)
class Reported(Message):
    """Server: what it gathered, by the name of the file that it belongs into. New in 1.2."""

    TYPE: ClassVar[str] = "reported"
    id: int
    job: str
    files: Mapping[str, Any]


@dataclass(frozen=True)
class Acknowledged(Message):
    """Server: unfollow, cancel or release was done."""

    TYPE: ClassVar[str] = "ok"
    id: int


@dataclass(frozen=True)
class Ping(Message):
    """Client: are you there?"""

    TYPE: ClassVar[str] = "ping"
    id: int


@dataclass(frozen=True)
class Pong(Message):
    """Server: yes."""

    TYPE: ClassVar[str] = "pong"
    id: int


@dataclass(frozen=True)
class Health(Message):
    """Client: how are you?"""

    TYPE: ClassVar[str] = "health"
    id: int


@dataclass(frozen=True)
class HealthReport(Message):
    """Server: workers, queue, counts since the start, room on disk; an open map."""

    TYPE: ClassVar[str] = "health_report"
    id: int
    health: Mapping[str, Any]


@dataclass(frozen=True)
class Sheet(Message):
    """Client: send the contact sheet of this job; kept after its layers were released."""

    TYPE: ClassVar[str] = "sheet"
    id: int
    job: str


@dataclass(frozen=True)
class SheetPicture(Message):
    """Server: the contact sheet, a PNG file's bytes."""

    TYPE: ClassVar[str] = "sheet_picture"
    id: int
    job: str
    body: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse a sheet that is none, or larger than a chunk may be."""
        size = len(self.body)
        _demand(0 < size <= CHUNK_BYTES, "sheet_picture.body", f"1-{CHUNK_BYTES} bytes", size)


# --- pictures, either way ------------------------------------------------------------------------


@dataclass(frozen=True)
class Want(Message):
    """Receiver: send these bytes of a picture.

    Attributes:
        job: The job.
        what: ``input`` (the server asks the client) or ``layer`` (the client asks the server).
        name: Name of the input or layer.
        frame: Timeline frame.
        offset: First byte wanted.
        length: How many, at most ``CHUNK_BYTES``.
        received: Bytes that this receiver has taken in answers since hello; what it has wanted
            beyond that is in flight and must not exceed the credit.
    """

    TYPE: ClassVar[str] = "want"
    job: str
    what: str
    name: str
    frame: int
    offset: int
    length: int
    received: int = 0

    def __post_init__(self) -> None:
        """Refuse a stretch that cannot be."""
        _demand(self.what in (INPUT, LAYER), "want.what", "input or layer", self.what)
        _demand(self.offset >= 0, "want.offset", "0 or more", self.offset)
        _demand(0 < self.length <= CHUNK_BYTES, "want.length", f"1-{CHUNK_BYTES}", self.length)
        _demand(self.received >= 0, "want.received", "0 or more", self.received)


@dataclass(frozen=True)
class Chunk(Message):
    """Owner: the bytes that were wanted."""

    TYPE: ClassVar[str] = "chunk"
    job: str
    what: str
    name: str
    frame: int
    offset: int
    body: bytes = field(repr=False)

    def __post_init__(self) -> None:
        """Refuse a chunk that no want could have asked for."""
        _demand(self.what in (INPUT, LAYER), "chunk.what", "input or layer", self.what)
        _demand(self.offset >= 0, "chunk.offset", "0 or more", self.offset)
        size = len(self.body)
        _demand(0 < size <= CHUNK_BYTES, "chunk.body", f"1-{CHUNK_BYTES} bytes", size)


@dataclass(frozen=True)
class Withheld(Message):
    """Owner: the picture wanted cannot be had any more; says why."""

    TYPE: ClassVar[str] = "withheld"
    job: str
    what: str
    name: str
    frame: int
    error: GencompError


# --- events --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StateEvent(Message):
    """Server: the job is now in this state; ``position`` is its place in the queue, from 1."""

    TYPE: ClassVar[str] = "state"
    job: str
    state: str
    position: int = 0


@dataclass(frozen=True)
class ProgressEvent(Message):
    """Server: ``step`` of ``total`` of a stage, and the seconds it still takes, if known."""

    TYPE: ClassVar[str] = "progress"
    job: str
    stage: str
    step: int
    total: int
    eta_s: Optional[float] = None


@dataclass(frozen=True)
class WarningEvent(Message):
    """Server: something was done other than asked; one sentence."""

    TYPE: ClassVar[str] = "warning"
    job: str
    sentence: str


@dataclass(frozen=True)
class LayerEvent(Message):
    """Server: one frame of one layer is ready to be wanted."""

    TYPE: ClassVar[str] = "layer"
    job: str
    layer: str
    frame: int
    bytes: int
    digest: str

    def __post_init__(self) -> None:
        """Refuse a size or a digest that cannot be."""
        _demand(0 < self.bytes <= PICTURE_BYTES, "layer.bytes", "a picture's size", self.bytes)
        _demand(bool(_DIGEST.match(self.digest)), "layer.digest", "64 hex digits", self.digest)


@dataclass(frozen=True)
class DoneEvent(Message):
    """Server: every layer was announced; the manifest of the job."""

    TYPE: ClassVar[str] = "done"
    job: str
    manifest: Mapping[str, Any]


@dataclass(frozen=True)
class FailedEvent(Message):
    """Server: the job failed, or was refused at ingest; why, in one sentence."""

    TYPE: ClassVar[str] = "failed"
    job: str
    error: GencompError


@dataclass(frozen=True)
class CancelledEvent(Message):
    """Server: the job was cancelled."""

    TYPE: ClassVar[str] = "cancelled"
    job: str


def message_classes() -> dict[str, type[Message]]:
    """Return every message class by its name on the wire, in the order of this file."""
    return {cls.TYPE: cls for cls in Message.__subclasses__()}
