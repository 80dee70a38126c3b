# SPDX-License-Identifier: Apache-2.0
"""A client of the server: ask, submit, follow, cancel. Knows nothing of Nuke or of pixels.

Everything blocks and belongs to the thread that calls it: one :class:`Client` per thread. A link
that drops is made again and the job re-attached; layers appear in their folder whole or not at all.
"""

import re
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional, Union

import zmq

from gencomp_protocol import sockets
from gencomp_protocol.codec import decode, digest_of, encode, request_to_plain
from gencomp_protocol.errors import (
    Cancelled,
    GencompError,
    LinkTimeout,
    MalformedMessage,
    MissingFrame,
    ServerUnreachable,
    Unauthorised,
    UnwritableOutput,
)
from gencomp_protocol.locate import ServerFile
from gencomp_protocol.messages import (
    CHUNK_BYTES,
    CREDIT_BYTES,
    DONE,
    EXR,
    INPUT,
    LAYER,
    REFUSED,
    Accepted,
    Acknowledged,
    Cancel,
    CancelledEvent,
    Check,
    Chunk,
    DoneEvent,
    FailedEvent,
    Follow,
    Hello,
    InputPictures,
    JobList,
    JobQuery,
    Jobs,
    LayerEvent,
    Message,
    PictureEntry,
    Ping,
    Planned,
    Pong,
    ProgressEvent,
    Refusal,
    Release,
    StateEvent,
    Submit,
    Unfollow,
    Want,
    WarningEvent,
    Welcome,
    Withheld,
)
from gencomp_protocol.request import Request
from gencomp_protocol.transfer import (
    Arrived,
    Credit,
    Expected,
    Picture,
    Receiver,
    digest_of_file,
    picture_of,
    read_stretch,
)
from gencomp_protocol.version import PROTOCOL_VERSION

_POLL_S = 0.05
_QUIET_S = 1.0  # Silence after which the server is asked whether it is there.
_LOST_S = 5.0  # Silence after asking, after which the link is made again.
_RETRY_S = 0.25
_CANCEL_S = 30.0
_LAYER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}\Z")

Pictures = Mapping[str, Mapping[int, Picture]]

__all__ = [
    "Client",
    "Event",
    "LayerReady",
    "Outcome",
    "Picture",
    "Pictures",
    "Progressed",
    "Sent",
    "StateChanged",
    "Warned",
    "picture_of",
    "request_key",
]


# --- what a caller is told -----------------------------------------------------------------------


@dataclass(frozen=True)
class StateChanged:
    """The job is in another state; ``position`` is its place in the queue, from 1."""

    job: str
    state: str
    position: int = 0


@dataclass(frozen=True)
class Progressed:
    """``step`` of ``total`` of a stage; ``eta_s`` is what this stage still takes, if known."""

    job: str
    stage: str
    step: int
    total: int
    eta_s: Optional[float] = None


@dataclass(frozen=True)
class Warned:
    """The server did something other than asked; one sentence for the artist."""

    job: str
    sentence: str


@dataclass(frozen=True)
class Sent:
    """A picture of an input left for the server, whole."""

    job: str
    input: str
    frame: int


@dataclass(frozen=True)
class LayerReady:
    """A frame of a layer is here, whole and checked."""

    job: str
    layer: str
    frame: int
    path: Path


Event = Union[StateChanged, Progressed, Warned, Sent, LayerReady]


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        state: ``done``, ``failed``, ``refused`` or ``cancelled``.
        manifest: The job's manifest where it is done, else None.
        error: Why it failed or was refused, else None.
    """

    state: str
    manifest: Optional[Mapping[str, Any]] = None
    error: Optional[GencompError] = None


def request_key(request: Request, pictures: Pictures) -> str:
    """Return the key that makes submitting idempotent: equal work, equal key.

    It depends on the request but for ``client``, and on every picture's digest.
    """
    digests = {
        name: {str(frame): picture.digest for frame, picture in frames.items()}
        for name, frames in pictures.items()
    }
    return digest_of([request_to_plain(replace(request, client="")), digests])


# --- the client ----------------------------------------------------------------------------------


class _LinkDown(Exception):
    """The server is silent; the link has to be made again. Never leaves this module."""


class Client:
    """One link to one server; a context manager.

    Args:
        address: ``tcp://HOST:PORT``.
        secret: What the server wrote into its ``server.json``.
        client: Kind and version of the program, for the server's log.
        timeout_s: How long to wait for an answer, and for a server that went away to come back.
        credit_bytes: Most bytes of layers that are wanted and not yet here.
        find: Asked for the server's whereabouts each time the link is made again, since a server
            that was started again has another secret and maybe another port.
    """

    def __init__(
        self,
        address: str,
        secret: str,
        *,
        client: str = "",
        timeout_s: float = 10.0,
        credit_bytes: int = CREDIT_BYTES,
        find: Optional[Callable[[], Optional[ServerFile]]] = None,
    ) -> None:
        self._address, self._secret, self._name = address, secret, client
        self._timeout_s, self._credit_bytes, self._find = timeout_s, credit_bytes, find
        self._context: Optional[zmq.Context[zmq.Socket[bytes]]] = None
        self._socket: Optional[zmq.Socket[bytes]] = None
        self._inbox: deque[Message] = deque()
        self._last_id = 0
        self._owed = Credit(CREDIT_BYTES)
        self._receiver = Receiver(credit_bytes)
        self._ping_s: Optional[float] = None
        self._knock_s = self._heard_s = 0.0
        self._welcome: Optional[Welcome] = None

    def __enter__(self) -> "Client":
        """Return the client itself; :meth:`connect` makes the link."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the link."""
        self.close()

    def connect(self) -> Welcome:
        """Make the link and say hello.

        Returns:
            What the server says of itself: ``server_version``, ``protocol``, ``limits``,
            ``systems`` (their schemas) and ``worker``.

        Raises:
            ServerUnreachable: Nobody answers at the address.
            Unauthorised: The secret is wrong.
            VersionMismatch: The server speaks another major version of the protocol.
        """
        self._drop_link()
        sockets.knock(self._address, self._timeout_s)
        self._context = zmq.Context()
        self._socket = sockets.client_socket(self._context, self._address)
        hello = Hello(self._next_id(), PROTOCOL_VERSION, self._secret, self._name)
        try:
            answer: Welcome = self._exchange(hello, Welcome)
        except (LinkTimeout, _LinkDown) as error:
            raise ServerUnreachable(
                f"What listens at {self._address} does not answer as a gencomp server.",
                hint="Check the address.",
            ) from error
        self._welcome = answer
        # Both sides count from hello on, so both counts live as long as the link.
        credit = answer.limits.get("credit_bytes", CREDIT_BYTES)
        self._owed = Credit(credit)
        chunk = answer.limits.get("chunk_bytes", CHUNK_BYTES)
        self._receiver = Receiver(min(self._credit_bytes, credit), chunk)
        return answer

    def close(self) -> None:
        """Close the link; jobs go on. Closing twice does nothing."""
        self._drop_link()

    def check(self, request: Request) -> dict[str, Any]:
        """Ask whether a request would be taken; no picture travels.

        Returns:
            The plan (``contract.Plan`` as a map) and under ``layers`` what would be delivered.

        Raises:
            ArtistError: Why it would not.
        """
        return dict(self._ask(Check(self._next_id(), request), Planned).plan)

    def submit(
        self,
        request: Request,
        pictures: Pictures,
        key: str,
        kinds: Optional[Mapping[str, str]] = None,
    ) -> str:
        """Hand a job in and return its id; an equal ``key`` gives the same job.

        Pictures travel while the job is followed, and only those that the server lacks.

        Args:
            request: The header of the job.
            pictures: What will be sent: input name to frame to picture.
            key: Makes submitting idempotent; see :func:`request_key`.
            kinds: ``exr`` or ``image`` (DPX, PNG, TIFF, JPEG) by input name; ``exr`` where absent.

        Raises:
            ArtistError: Why the job is refused.
        """
        inputs = tuple(
            InputPictures(
                name,
                tuple(PictureEntry(n, p.bytes, p.digest) for n, p in sorted(frames.items())),
                (kinds or {}).get(name, EXR),
            )
            for name, frames in pictures.items()
        )
        answer: Accepted = self._ask(Submit(self._next_id(), key, request, inputs), Accepted)
        return answer.job

    def follow(
        self,
        job: str,
        *,
        pictures: Optional[Pictures] = None,
        folder: "Optional[Path]" = None,
        on_event: Optional[Callable[[Event], None]] = None,
        cancelled: Optional[Callable[[], bool]] = None,
        have: Collection[tuple[str, int]] = (),
    ) -> Outcome:
        """Stay with a job until it ends: send its pictures, fetch its layers.

        A link that drops is made again, for as long as ``timeout_s``, and the job goes on where it
        was. Following a job that has ended fetches what it made.

        Args:
            job: Id of the job.
            pictures: What this client can send; None where it has none.
            folder: Layers go to ``folder/<layer>/<layer>.<frame:04d>.exr``, each whole or not
                at all. A file that is there with the right digest is not fetched again. None
                fetches nothing.
            on_event: Called with each event, in this thread.
            cancelled: Asked at least every 0.1 s; True cancels the job.
            have: Layer frames that are neither fetched nor reported.

        Raises:
            UnknownJob: The server has no such job.
            ServerUnreachable: The server went away and did not come back.
            Cancelled: ``cancelled`` said so while it was away.
            UnwritableOutput, DiskFull: A layer cannot be written.
        """
        following = _Following(self, job, pictures, folder, on_event, cancelled, set(have))
        return following.run()

    def cancel(self, job: str) -> None:
        """Cancel a job; one that has ended stays as it is.

        Raises:
            UnknownJob: The server has no such job.
        """
        self._ask(Cancel(self._next_id(), job), Acknowledged)

    def release(self, job: str) -> None:
        """Tell the server that every layer is here and may be dropped there.

        Raises:
            UnknownJob: The server has no such job.
        """
        self._ask(Release(self._next_id(), job), Acknowledged)

    def jobs(self) -> list[dict[str, Any]]:
        """Return the jobs that the server knows, newest first."""
        return [dict(entry) for entry in self._ask(Jobs(self._next_id()), JobList).jobs]

    def job(self, job: str) -> dict[str, Any]:
        """Return what the server knows of one job.

        Raises:
            UnknownJob: The server has no such job.
        """
        return dict(self._ask(JobQuery(self._next_id(), job), JobList).jobs[0])

    # --- the link --------------------------------------------------------------------------------

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _ask(self, message: Any, wanted: type) -> Any:
        """Send a request and return its answer; make the link again, once, where it is gone.

        Every request may be sent twice: doing it again changes nothing.
        """
        if self._socket is None:
            self.connect()
        try:
            return self._exchange(message, wanted)
        except _LinkDown:
            pass
        except Unauthorised as error:
            if not error.details.get("hello"):
                raise
        self._reconnect()
        try:
            return self._exchange(message, wanted)
        except _LinkDown as error:
            raise ServerUnreachable(f"The server at {self._address} went away.") from error

    def _exchange(self, message: Any, wanted: type) -> Any:
        """Send a request, wait for the answer of its id, keep what else arrives meanwhile."""
        self._send(message)
        deadline = time.monotonic() + self._timeout_s
        aside: deque[Message] = deque()
        try:
            while time.monotonic() < deadline:
                answer = self._receive()
                if answer is None:
                    if not isinstance(message, Hello):
                        self._watch_silence()
                    continue
                if isinstance(answer, Refusal) and _concerns(answer, message.id):
                    raise answer.error
                if getattr(answer, "id", None) != message.id:
                    aside.extend([] if isinstance(answer, (Chunk, Withheld)) else [answer])
                    continue
                if not isinstance(answer, wanted):
                    raise MalformedMessage(f"{answer.TYPE}: does not answer {message.TYPE}.")
                return answer
        finally:
            self._inbox.extendleft(reversed(aside))
        raise LinkTimeout(
            f"The server at {self._address} did not answer within {self._timeout_s:g} s.",
            hint="It may be overloaded; try again.",
        )

    def _send(self, message: Message) -> None:
        if self._socket is None:
            raise ServerUnreachable("The link to the server is closed.")
        try:
            self._socket.send_multipart(encode(message), flags=zmq.NOBLOCK, copy=False)
        except zmq.Again as error:
            raise _LinkDown from error

    def _receive(self, wait_s: float = _POLL_S) -> Optional[Message]:
        """Return the next message, or None where none arrived in time."""
        if self._inbox:
            return self._inbox.popleft()
        if self._socket is None or not self._socket.poll(int(wait_s * 1000)):
            return None
        self._heard_s, self._ping_s = time.monotonic(), None
        message = decode(self._socket.recv_multipart())
        if isinstance(message, (Chunk, Withheld)):
            # Even of a job that is not followed any more: it frees the credit.
            self._receiver.take(message)
        return message

    def _watch_silence(self) -> None:
        """Ask a silent server whether it is there; raise where it is not."""
        now = time.monotonic()
        if self._ping_s is None:
            if now - self._heard_s > _QUIET_S:
                self._ping_s = self._knock_s = now
                self._send(Ping(self._next_id()))
            return
        if now - self._ping_s > _LOST_S:
            raise _LinkDown
        if now - self._knock_s > _QUIET_S:
            self._knock_s = now
            self._knock()

    def _knock(self) -> None:
        """Find out at once that a server is gone; one that only takes its time still listens."""
        try:
            sockets.knock(self._address, _QUIET_S)
        except ServerUnreachable as error:
            raise _LinkDown from error

    def _reconnect(self, cancelled: Optional[Callable[[], bool]] = None) -> Welcome:
        """Make the link again, trying for as long as ``timeout_s`` and nobody cancels."""
        deadline = time.monotonic() + self._timeout_s
        while True:
            if cancelled is not None and cancelled():
                raise Cancelled(
                    "Cancelled while the server was away.",
                    hint="The job goes on when it comes back; cancel it there by its id.",
                )
            try:
                self._look_up()
                return self.connect()
            except ServerUnreachable:
                if time.monotonic() > deadline:
                    raise
            except Unauthorised:
                # A server that was started again writes its new secret a moment later.
                if self._find is None or time.monotonic() > deadline:
                    raise
            time.sleep(_RETRY_S)

    def _look_up(self) -> None:
        found = self._find() if self._find is not None else None
        if found is not None:
            self._address, self._secret = found.address, found.secret

    def _drop_link(self) -> None:
        self._inbox.clear()
        self._ping_s, self._heard_s = None, time.monotonic()
        if self._socket is not None:
            self._socket.close(linger=sockets.LINGER_MS)
            self._socket = None
        if self._context is not None:
            self._context.term()
            self._context = None


def _concerns(refusal: Refusal, request_id: int) -> bool:
    """Tell whether a refusal ends a request: it is its answer, or the server forgot us."""
    return refusal.id == request_id or bool(refusal.error.details.get("hello"))


class _Following:
    """One call of :meth:`Client.follow`: what it has seen, what it is fetching."""

    def __init__(
        self,
        client: Client,
        job: str,
        pictures: Optional[Pictures],
        folder: Optional[Path],
        on_event: Optional[Callable[[Event], None]],
        cancelled: Optional[Callable[[], bool]],
        have: set[tuple[str, int]],
    ) -> None:
        self._client, self._job = client, job
        self._pictures, self._folder = pictures, folder
        self._on_event, self._cancelled = on_event, cancelled
        self._have = have
        self._known: dict[tuple[str, int], str] = {}  # Digests of frames here or on their way.
        self._sent: set[tuple[str, int]] = set()
        self._said: set[str] = set()
        self._state = ""
        self._outcome: Optional[Outcome] = None
        self._cancel_s: Optional[float] = None

    def run(self) -> Outcome:
        """Follow until the job has ended and its layers are here."""
        attached = self._client._socket is not None
        while True:
            try:
                if not attached:
                    self._reattach()
                self._attach()
                return self._loop()
            except _LinkDown:
                attached = False
            except Unauthorised as error:
                if not error.details.get("hello"):
                    raise
                attached = False
            finally:
                if attached:
                    self._client._receiver.forget(self._job)

    def _attach(self) -> None:
        message = Follow(self._client._next_id(), self._job, self._pictures is not None)
        try:
            self._client._exchange(message, Accepted)
        except LinkTimeout as error:
            raise _LinkDown from error
        if self._cancel_s is not None:
            self._client._send(Cancel(self._client._next_id(), self._job))

    def _reattach(self) -> None:
        """Make the link again; what was on its way is announced again and goes on where it was."""
        for expected in self._client._receiver.unfinished():
            self._known.pop((expected.name, expected.frame), None)
        self._client._reconnect(self._cancelled)

    def _loop(self) -> Outcome:
        while self._outcome is None or not (self._client._receiver.is_idle or self._is_over_early):
            self._watch_cancel()
            message = self._client._receive()
            if message is None:
                self._client._watch_silence()
            else:
                self._handle(message)
            self._fetch()
        self._client._send(Unfollow(self._client._next_id(), self._job))
        return self._outcome

    @property
    def _is_over_early(self) -> bool:
        """A job that is not done delivers no more than what is here."""
        return self._outcome is not None and self._outcome.state != DONE

    def _watch_cancel(self) -> None:
        if self._outcome is not None or self._cancelled is None:
            return
        now = time.monotonic()
        if self._cancel_s is None and self._cancelled():
            self._cancel_s = now
            self._client._send(Cancel(self._client._next_id(), self._job))
        elif self._cancel_s is not None and now - self._cancel_s > _CANCEL_S:
            raise LinkTimeout("The server did not confirm that the job is cancelled.")

    # --- what arrives ----------------------------------------------------------------------------

    def _handle(self, message: Message) -> None:
        if isinstance(message, Refusal):
            raise message.error
        if isinstance(message, (Chunk, Withheld, Pong, Acknowledged)):
            return
        if getattr(message, "job", "") != self._job:
            return
        if isinstance(message, Want):
            self._serve(message)
        elif isinstance(message, LayerEvent):
            self._expect(message)
        else:
            self._note(message)

    def _note(self, message: Message) -> None:
        if isinstance(message, StateEvent):
            if message.state != self._state or message.position:
                self._tell(StateChanged(self._job, message.state, message.position))
            self._state = message.state
        elif isinstance(message, ProgressEvent):
            self._tell(
                Progressed(self._job, message.stage, message.step, message.total, message.eta_s)
            )
        elif isinstance(message, WarningEvent):
            if message.sentence not in self._said:
                self._said.add(message.sentence)
                self._tell(Warned(self._job, message.sentence))
        elif isinstance(message, DoneEvent):
            self._outcome = Outcome(DONE, manifest=message.manifest)
        elif isinstance(message, FailedEvent):
            state = REFUSED if self._state == REFUSED else "failed"
            self._outcome = Outcome(state, error=message.error)
        elif isinstance(message, CancelledEvent):
            self._outcome = Outcome("cancelled")

    def _tell(self, event: Event) -> None:
        if self._on_event is not None:
            self._on_event(event)

    # --- pictures out ----------------------------------------------------------------------------

    def _serve(self, want: Want) -> None:
        """Answer a want of the server with the bytes, or with why there are none."""
        self._client._owed.take(want)
        picture = (self._pictures or {}).get(want.name, {}).get(want.frame)
        try:
            if want.what != INPUT or picture is None:
                raise MissingFrame(f"This client has no '{want.name}' frame {want.frame}.")
            self._client._send(read_stretch(picture.path, picture.bytes, want))
        except GencompError as error:
            self._client._send(Withheld(want.job, want.what, want.name, want.frame, error))
            return
        place = (want.name, want.frame)
        if want.offset + want.length == picture.bytes and place not in self._sent:
            self._sent.add(place)
            self._tell(Sent(self._job, want.name, want.frame))

    # --- layers in -------------------------------------------------------------------------------

    def _expect(self, event: LayerEvent) -> None:
        """Put an announced layer frame in line, unless it is here already."""
        place = (event.layer, event.frame)
        if self._folder is None or place in self._have:
            return
        if self._known.get(place) == event.digest:
            return
        if not _LAYER_NAME.match(event.layer):
            raise MalformedMessage(f"layer.layer: {event.layer!r} is not the name of a layer.")
        self._known[place] = event.digest
        name = f"{event.layer}.{event.frame:04d}.exr"
        path = Path(self._folder) / event.layer / name
        expected = Expected(
            job=self._job,
            what=LAYER,
            name=event.layer,
            frame=event.frame,
            bytes=event.bytes,
            digest=event.digest,
            path=path,
            part=path.with_name(f".{name}.part"),
        )
        if _is_here(expected):
            self._tell(LayerReady(self._job, event.layer, event.frame, path))
        else:
            self._client._receiver.expect(expected)

    def _fetch(self) -> None:
        for want in self._client._receiver.wants():
            self._client._send(want)
        for outcome in self._client._receiver.outcomes():
            picture = outcome.picture
            if not isinstance(outcome, Arrived):
                raise outcome.error
            self._tell(LayerReady(self._job, picture.name, picture.frame, picture.path))


def _is_here(expected: Expected) -> bool:
    """Tell whether a layer frame is in its place already; make its folder where it is not.

    Raises:
        UnwritableOutput: The folder cannot be made.
    """
    path = expected.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.stat().st_size != expected.bytes:
            return False
        return digest_of_file(path) == expected.digest
    except OSError as error:
        raise UnwritableOutput(
            f"The layer folder {path.parent} cannot be used ({error.strerror}).",
            hint="Choose a folder that you can write to.",
        ) from error
