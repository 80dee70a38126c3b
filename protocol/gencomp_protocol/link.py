# SPDX-License-Identifier: Apache-2.0
"""A client's link to a server: hello, requests and their answers, silence, and making it again.

Everything blocks and belongs to the thread that calls it. A link that is gone raises
:class:`LinkDown` to whoever follows a job, which makes it again; nobody else sees that.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any, Optional

from gencomp_protocol import sockets
from gencomp_protocol.codec import decode, encode
from gencomp_protocol.errors import (
    Cancelled,
    LinkTimeout,
    MalformedMessage,
    ServerUnreachable,
    Unauthorised,
)
from gencomp_protocol.keys import ClientKeys
from gencomp_protocol.locate import ServerFile
from gencomp_protocol.messages import (
    CHUNK_BYTES,
    CREDIT_BYTES,
    Chunk,
    Hello,
    Message,
    Ping,
    Pong,
    Refusal,
    Welcome,
    Withheld,
)
from gencomp_protocol.transfer import Credit, Receiver
from gencomp_protocol.version import PROTOCOL_VERSION

KEY_REFUSED = "key"  # In the details of an error: trying again is of no use.
_POLL_S = 0.05
_QUIET_S = 1.0  # Silence after which the server is asked whether it is there.
_LOST_S = 3.0  # Silence after asking, after which the link is made again.
_RETRY_S = 0.25
# A hello that is not answered for so long, when the link is made again, is lost; longer each time,
# for a server that is busy.
_HELLO_S, _MOST_HELLO_S = 2.0, 10.0


class LinkDown(Exception):
    """The server is silent; the link has to be made again. Never leaves this package."""


class Link:
    """One link to one server.

    Args:
        address: ``tcp://HOST:PORT``.
        secret: What opens the server.
        name: Kind and version of the program, for the server's log.
        timeout_s: How long to wait for an answer, and for a server that went away to come back.
        credit_bytes: Most bytes of layers that are wanted and not yet here.
        find: Asked for the server's whereabouts each time the link is made again.
        keys: What opens a server that takes clients with keys only; None for one on loopback.
        account: Whose jobs these are, where no key says so.

    Attributes:
        receiver: Layers on their way here.
        owed: The server's credit for pictures of ours.
    """

    def __init__(
        self,
        address: str,
        secret: str,
        name: str,
        timeout_s: float,
        credit_bytes: int,
        find: Optional[Callable[[], Optional[ServerFile]]],
        keys: Optional[ClientKeys] = None,
        account: str = "",
    ) -> None:
        self._address, self._secret, self._name = address, secret, name
        self._keys, self._account = keys, account
        self._handshake: Optional[sockets.Handshake] = None
        self._timeout_s, self._credit_bytes, self._find = timeout_s, credit_bytes, find
        self._context: Optional[sockets.Context] = None
        self._socket: Optional[sockets.Socket] = None
        self._inbox: deque[Message] = deque()
        self._last_id = 0
        self._ping_s: Optional[float] = None
        self._ping_id = self._asked = 0  # Of the last ping; how often was wanted before it.
        self._knock_s = self._heard_s = 0.0
        self.owed = Credit(CREDIT_BYTES)
        self.receiver = Receiver(credit_bytes)
        self._protocol: Optional[tuple[int, ...]] = None
        self._shares = False

    @property
    def is_open(self) -> bool:
        """Tell whether the link was made and not closed."""
        return self._socket is not None

    def connect(self, patience_s: Optional[float] = None) -> Welcome:
        """Make the link and say hello.

        Args:
            patience_s: How long to wait for the welcome; ``timeout_s`` where None.

        Returns:
            What the server says of itself: ``server_version``, ``protocol``, ``limits``,
            ``systems`` (their schemas) and ``worker``.

        Raises:
            ServerUnreachable: Nobody answers at the address.
            Unauthorised: The secret is wrong, or keys on both sides do not fit; says which.
            VersionMismatch: The server speaks another major version of the protocol.
        """
        self.close()
        sockets.knock(self._address, self._timeout_s)
        self._context = sockets.new_context()
        self._socket, self._handshake = sockets.watched_socket(
            self._context, self._address, self._keys
        )
        hello = Hello(self.next_id(), PROTOCOL_VERSION, self._secret, self._name, self._account)
        try:
            answer: Welcome = self.exchange(hello, Welcome, patience_s)
        except (LinkTimeout, LinkDown) as error:
            self._watch_handshake()  # It may have failed before there was anything to wait for.
            raise ServerUnreachable(
                f"What listens at {self._address} does not answer as a gencomp server.",
                hint="Check the address.",
            ) from error
        self._handshake.close()
        self._handshake = None
        # Both sides count from hello on, so both counts live as long as the link.
        credit = answer.limits.get("credit_bytes", CREDIT_BYTES)
        self.owed = Credit(credit)
        chunk = answer.limits.get("chunk_bytes", CHUNK_BYTES)
        self.receiver = Receiver(min(self._credit_bytes, credit), chunk)
        self._protocol = answer.protocol
        self._shares = answer.shares
        return answer

    def protocol(self) -> tuple[int, ...]:
        """Return major and minor version of the server, which is asked where it is not known."""
        if self._protocol is None:
            return self.connect().protocol
        return self._protocol

    def shares(self) -> bool:
        """Tell whether the server may read pictures where they lie; it is asked if need be."""
        self.protocol()
        return self._shares

    def next_id(self) -> int:
        """Return the id of the next request."""
        self._last_id += 1
        return self._last_id

    def ask(self, message: Any, wanted: type) -> Any:
        """Send a request and return its answer; make the link again where it is gone.

        Every request may be sent twice: doing it again changes nothing. So it is done again, once
        at least, and as often as the link drops within ``timeout_s``.
        """
        if self._socket is None:
            self.connect()
        deadline, tries = time.monotonic() + self._timeout_s, 0
        while True:
            is_last = tries > 0 and time.monotonic() > deadline
            try:
                return self.exchange(message, wanted)
            except LinkDown as error:
                if is_last:
                    raise ServerUnreachable(f"The server at {self._address} went away.") from error
            except Unauthorised as error:
                if is_last or not error.details.get("hello"):
                    raise
            if tries > 0:
                time.sleep(_RETRY_S)
            tries += 1
            self.reconnect()

    def exchange(self, message: Any, wanted: type, patience_s: Optional[float] = None) -> Any:
        """Send a request, wait for the answer of its id, keep what else arrives meanwhile."""
        self.send(message)
        patience_s = self._timeout_s if patience_s is None else patience_s
        deadline = time.monotonic() + patience_s
        aside: deque[Message] = deque()
        try:
            while time.monotonic() < deadline:
                answer = self.receive()
                if answer is None:
                    if isinstance(message, Hello):
                        self._watch_handshake()
                        self._watch_port()
                    else:
                        self.watch_silence()
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
            f"The server at {self._address} did not answer within {patience_s:g} s.",
            hint="It may be overloaded; try again.",
        )

    def send(self, message: Message) -> None:
        """Send a message; raise LinkDown where nobody takes it."""
        if self._socket is None:
            raise ServerUnreachable("The link to the server is closed.")
        if not sockets.try_send(self._socket, encode(message)):
            raise LinkDown

    def receive(self, wait_s: float = _POLL_S) -> Optional[Message]:
        """Return the next message, or None where none arrived in time."""
        if self._inbox:
            return self._inbox.popleft()
        if self._socket is None or not self._socket.poll(int(wait_s * 1000)):
            return None
        self._heard_s, self._ping_s = time.monotonic(), None
        message = decode(self._socket.recv_multipart())
        if isinstance(message, (Chunk, Withheld)):
            # Even of a job that is not followed any more: it frees the credit.
            self.receiver.take(message)
        elif isinstance(message, Pong) and message.id == self._ping_id:
            # What was wanted before the ping is answered before it, or never.
            self.receiver.give_up(self._asked)
        return message

    def watch_silence(self) -> None:
        """Ask a silent server whether it is there; raise where it is not."""
        now = time.monotonic()
        if self._ping_s is None:
            if now - self._heard_s > _QUIET_S:
                self._ping_s = self._knock_s = now
                self._ping_id, self._asked = self.next_id(), self.receiver.asked
                self.send(Ping(self._ping_id))
            return
        if now - self._ping_s > _LOST_S:
            raise LinkDown
        self._watch_port()

    def _watch_port(self) -> None:
        """Knock at a silent server now and then; before hello is answered nothing else is heard."""
        now = time.monotonic()
        if now - self._knock_s > _QUIET_S:
            self._knock_s = now
            self._knock()

    def _watch_handshake(self) -> None:
        """Say how a handshake failed, of which ZeroMQ itself never tells."""
        failure = None if self._handshake is None else self._handshake.failure()
        if failure is None:
            return
        if failure == sockets.CUT_OFF:
            other = sockets.CURVE if self._keys is None else sockets.PLAIN
            if sockets.mechanism_of(self._address, _QUIET_S) == other:
                failure = sockets.NO_KEYS_MATCH
        if failure == sockets.CUT_OFF and self._keys is None:
            raise ServerUnreachable(
                f"What listens at {self._address} ends every connection at once.",
                hint="Check the address.",
            )
        raise _refused(failure, self._address, self._keys)

    def _knock(self) -> None:
        """Find out at once that a server is gone; one that only takes its time still listens."""
        try:
            sockets.knock(self._address, _QUIET_S)
        except ServerUnreachable as error:
            raise LinkDown from error

    def reconnect(self, cancelled: Optional[Callable[[], bool]] = None) -> Welcome:
        """Make the link again, trying for as long as ``timeout_s`` and nobody cancels."""
        deadline, patience_s = time.monotonic() + self._timeout_s, _HELLO_S
        while True:
            if cancelled is not None and cancelled():
                raise Cancelled(
                    "Cancelled while the server was away.",
                    hint="The job goes on when it comes back; cancel it there by its id.",
                )
            try:
                self._look_up()
                return self.connect(min(self._timeout_s, patience_s))
            except ServerUnreachable:
                if time.monotonic() > deadline:
                    raise
            except Unauthorised as error:
                # A server that was started again writes its new secret a moment later.
                is_final = self._find is None or KEY_REFUSED in error.details
                if is_final or time.monotonic() > deadline:
                    raise
            patience_s = min(2 * patience_s, _MOST_HELLO_S)
            time.sleep(_RETRY_S)

    def _look_up(self) -> None:
        found = self._find() if self._find is not None else None
        if found is not None:
            self._address, self._secret, self._keys = found.address, found.secret, found.keys

    def close(self) -> None:
        """Close the link. Closing twice does nothing."""
        self._inbox.clear()
        self._ping_s = None
        self._heard_s = self._knock_s = time.monotonic()
        if self._handshake is not None:
            self._handshake.close()
            self._handshake = None
        if self._socket is not None:
            self._socket.close(linger=sockets.LINGER_MS)
            self._socket = None
        if self._context is not None:
            self._context.term()
            self._context = None


def _refused(failure: str, address: str, keys: Optional[ClientKeys]) -> Unauthorised:
    """Return the sentence for a handshake that failed."""
    if failure == sockets.NOT_ALLOWED and keys is not None:
        called = f" '{keys.name}'" if keys.name else ""
        return Unauthorised(
            f"The server at {address} does not let the key{called} in.",
            hint=f"Whoever runs it can: gencomp keys allow {keys.name or 'NAME'} {keys.public}",
            **{KEY_REFUSED: keys.public},
        )
    if failure == sockets.NO_KEYS_MATCH and keys is None:
        return Unauthorised(
            f"The server at {address} takes clients with keys only, and none was used.",
            hint="Name your key file in GENCOMP_KEY_FILE; gencomp keys new makes one.",
            **{KEY_REFUSED: ""},
        )
    if failure == sockets.NO_KEYS_MATCH:
        return Unauthorised(
            f"The server at {address} does not use keys, and what is sent would not be encrypted.",
            hint="Check the address; on the server's own machine leave the key away.",
            **{KEY_REFUSED: ""},
        )
    return Unauthorised(
        f"The server at {address} broke the exchange of keys off: it has another key than "
        "the one that is known here, or does not check keys at the moment.",
        hint="Compare the server's public key (gencomp keys list, where it runs) with the one "
        "in your key file or in GENCOMP_SERVER_KEY.",
    )


def _concerns(refusal: Refusal, request_id: int) -> bool:
    """Tell whether a refusal ends a request: it is its answer, or the server forgot us."""
    return refusal.id == request_id or bool(refusal.error.details.get("hello"))
