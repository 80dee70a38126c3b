# SPDX-License-Identifier: Apache-2.0
"""Following a job to its end: its events, its pictures out, its layers in, its link made again."""

import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Optional

from gencomp_protocol.errors import (
    GencompError,
    LinkTimeout,
    MalformedMessage,
    MissingFrame,
    Unauthorised,
    UnwritableOutput,
)
from gencomp_protocol.events import (
    Event,
    LayerReady,
    Outcome,
    Progressed,
    Sent,
    StateChanged,
    Warned,
)
from gencomp_protocol.link import Link, LinkDown
from gencomp_protocol.messages import (
    CANCELLED,
    DONE,
    FAILED,
    INPUT,
    LAYER,
    REFUSED,
    Accepted,
    Acknowledged,
    Cancel,
    CancelledEvent,
    Chunk,
    DoneEvent,
    FailedEvent,
    Follow,
    LayerEvent,
    Message,
    Pong,
    ProgressEvent,
    Refusal,
    StateEvent,
    Unfollow,
    Want,
    WarningEvent,
    Withheld,
)
from gencomp_protocol.transfer import (
    Arrived,
    Expected,
    Picture,
    digest_of_file,
    read_stretch,
)

_CANCEL_S = 30.0  # For the server to say that it has heard a cancel.
_STOPPING_S = 1.0  # From then on, for the job to end; it is the server's to end it after that.
_LAYER_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}\Z")

Pictures = Mapping[str, Mapping[int, Picture]]


class Following:
    """One call of :meth:`Client.follow`: what it has seen, what it is fetching."""

    def __init__(
        self,
        link: Link,
        job: str,
        pictures: Optional[Pictures],
        folder: Optional[Path],
        on_event: Optional[Callable[[Event], None]],
        cancelled: Optional[Callable[[], bool]],
        have: set[tuple[str, int]],
    ) -> None:
        self._link, self._job = link, job
        self._pictures, self._folder = pictures, folder
        self._on_event, self._cancelled = on_event, cancelled
        self._have = have
        self._known: dict[tuple[str, int], str] = {}  # Digests of frames here or on their way.
        self._sent: set[tuple[str, int]] = set()
        self._said: set[str] = set()
        self._state = ""
        self._outcome: Optional[Outcome] = None
        self._cancel_s: Optional[float] = None
        self._cancel_id = 0
        self._heard_s: Optional[float] = None  # When the server said that it has heard of it.

    def run(self) -> Outcome:
        """Follow until the job has ended and its layers are here."""
        attached = self._link.is_open
        while True:
            try:
                if not attached:
                    self._reattach()
                self._attach()
                return self._loop()
            except LinkDown:
                attached = False
            except Unauthorised as error:
                if not error.details.get("hello"):
                    raise
                attached = False
            finally:
                if attached:
                    self._link.receiver.forget(self._job)

    def _attach(self) -> None:
        message = Follow(self._link.next_id(), self._job, self._pictures is not None)
        try:
            self._link.exchange(message, Accepted)
        except LinkTimeout as error:
            raise LinkDown from error
        if self._cancel_s is not None:
            self._send_cancel()

    def _reattach(self) -> None:
        """Make the link again; what was on its way is announced again and goes on where it was."""
        for expected in self._link.receiver.unfinished():
            self._known.pop((expected.name, expected.frame), None)
        self._link.reconnect(self._cancelled)

    def _loop(self) -> Outcome:
        while self._outcome is None or not (self._link.receiver.is_idle or self._is_over_early):
            self._watch_cancel()
            message = self._link.receive()
            if message is None:
                self._link.watch_silence()
            else:
                self._handle(message)
            self._fetch()
        self._link.send(Unfollow(self._link.next_id(), self._job))
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
            self._send_cancel()
        elif self._heard_s is not None and now - self._heard_s > _STOPPING_S:
            self._outcome = Outcome(CANCELLED)
        elif self._cancel_s is not None and now - self._cancel_s > _CANCEL_S:
            raise LinkTimeout("The server did not confirm that the job is cancelled.")

    def _send_cancel(self) -> None:
        self._cancel_id = self._link.next_id()
        self._link.send(Cancel(self._cancel_id, self._job))

    # --- what arrives ----------------------------------------------------------------------------

    def _handle(self, message: Message) -> None:
        if isinstance(message, Refusal):
            raise message.error
        if isinstance(message, Acknowledged) and message.id == self._cancel_id:
            self._heard_s = time.monotonic()
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
            state = REFUSED if self._state == REFUSED else FAILED
            self._outcome = Outcome(state, error=message.error)
        elif isinstance(message, CancelledEvent):
            self._outcome = Outcome(CANCELLED)

    def _tell(self, event: Event) -> None:
        if self._on_event is not None:
            self._on_event(event)

    # --- pictures out ----------------------------------------------------------------------------

    def _serve(self, want: Want) -> None:
        """Answer a want of the server with the bytes, or with why there are none."""
        self._link.owed.take(want)
        picture = (self._pictures or {}).get(want.name, {}).get(want.frame)
        try:
            if want.what != INPUT or picture is None:
                raise MissingFrame(f"This client has no '{want.name}' frame {want.frame}.")
            self._link.send(read_stretch(picture.path, picture.bytes, want))
        except GencompError as error:
            self._link.send(Withheld(want.job, want.what, want.name, want.frame, error))
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
            self._link.receiver.expect(expected)

    def _fetch(self) -> None:
        for want in self._link.receiver.wants():
            self._link.send(want)
        for one in self._link.receiver.asked_again():
            what = f"Layer '{one.name}' frame {one.frame}"
            words = f"{what} arrived with the wrong digest; it is fetched once more."
            self._tell(Warned(self._job, words))
        for outcome in self._link.receiver.outcomes():
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
