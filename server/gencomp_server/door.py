# SPDX-License-Identifier: Apache-2.0
"""Where messages come in: on loopback with the secret, from elsewhere with a key that is let in.

One ROUTER is bound to loopback, in the clear, and, where the settings name another address, to that
with CURVE; ZeroMQ asks the doorkeeper, a thread, about each key (``zap.py``), and lets nobody in
while that does not answer. The key of every message is looked up again as it is read, so that a key
that was revoked opens nothing. A peer on loopback can say a key of itself, in the words of ZeroMQ's
handshake; one that the doorkeeper did not seal counts for nothing.

The doorkeeper also cuts who sends more than may be waiting, who lets more wait than a client may
have on its way, and who never says hello (``doorkeeper.py``); here is cut who keeps sending what
cannot be read.
"""

from __future__ import annotations

import ctypes
import errno
import secrets
import time
from collections import Counter, deque
from dataclasses import dataclass, field

import zmq

from gencomp_protocol import sockets
from gencomp_protocol.errors import GencompError, MalformedMessage, ServerBusy, Unauthorised
from gencomp_server import zap
from gencomp_server.doorkeeper import Doorkeeper, Wire, wire_of
from gencomp_server.keys import AllowList, KeyFolder

LOOPBACK = "127.0.0.1"
HELLO_BYTES = 64 * 1024  # Largest message of somebody who did not say hello.
_MOST_FRAMES = 2  # Of any message of the protocol.
_CUT_FRAMES = 4096  # A message of so many is no mistake.
_FRAME_BYTES = 128  # Taken for what ZeroMQ adds to a frame, encrypted or not.
_STRIKES, _STRIKES_S = 20, 10.0  # So many unreadable messages in so many seconds, and it is cut.
_STRIKE_BYTES = 64 * 1024
_MOST_GONE = 10_000
_SEAL_BYTES = 16
MOST_OF_ONE = 256  # Connections of one key.
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class Letter:
    """A message as it came in.

    Attributes:
        identity: Routing id of the connection.
        frames: Its frames, without that.
        key: Name of the client's key; empty on loopback, where the secret has to be told.
        fault: Why it is not to be read; None where it may be.
        wire: The connection.
    """

    identity: bytes
    frames: list[bytes]
    key: str = ""
    fault: GencompError | None = None
    wire: Wire = field(default_factory=Wire)


class Door:
    """The socket that clients connect to, and who is let through.

    Args:
        context: Made for this door; whoever made it terminates it.
        host: Address to listen on; loopback is listened on besides, at a free port.
        port: Its port; 0 takes a free one.
        keys: The server's key and the list of those that are let in; needed beyond loopback.
        credit_bytes: What a client's pictures on their way may take.

    Attributes:
        socket: The ROUTER.
        address: Where clients of this machine connect, with the secret.
        public: Where others connect, with keys; empty where nobody can.
        public_key: The server's public key; empty likewise.
        counts: Since the start, ``heard`` (messages handed on), ``refused`` (keys that are not let
            in), ``handshakes`` (that failed), ``malformed``, ``cut`` (connections) and ``silent``
            (connections of strangers who did not say hello).

    Raises:
        ServerUnreachable: The port cannot be had, or nobody answers for the keys.
        Unauthorised: There is no key of the server, or others can read it.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        host: str,
        port: int,
        keys: KeyFolder,
        credit_bytes: int,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._seal = secrets.token_hex(_SEAL_BYTES)
        self._allowed = AllowList(keys)
        self._strikes: dict[bytes, deque[float]] = {}
        self._gone: dict[bytes, None] = {}  # Connections that were cut, the oldest first.
        self.public = self.public_key = ""
        local = sockets.is_loopback(host)
        secret = "" if local else keys.server_key()[1]
        # ZeroMQ counts connections from a number of rand(), which begins alike in every process;
        # and a peer may claim any of them: one that is coming ends the process, one that has just
        # gone is somebody's session.
        _LIBC.srand(ctypes.c_uint(secrets.randbits(32)))
        self.socket = sockets.router_socket(context)
        self._keeper = Doorkeeper(
            context,
            self.socket,
            self._is_let_in,
            credit_bytes,
            self.counts,
            seal="" if local else self._seal,
        )
        try:
            self._keeper.start()
            self.address = sockets.listen(self.socket, *(host, port) if local else (LOOPBACK, 0))
            if not local:
                sockets.demand_keys(self.socket, secret, zap.DOMAIN)
                self.public = sockets.listen(self.socket, host, port)
                self.public_key = sockets.public_of(secret)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let nobody in any more. Closing twice does nothing."""
        self._keeper.stop()
        self.socket.close()

    def watch(self) -> None:
        """See to it that somebody answers for the keys; until then nobody new is let in."""
        self._keeper.watch()

    def receive(self) -> Letter | None:
        """Return the next message, or None where none waits."""
        while True:
            try:
                first = self.socket.recv(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return None
            letter = self._read(first)
            if letter.identity not in self._gone:  # Else it was sent before that was cut.
                return letter

    def send(self, identity: bytes, frames: list[bytes], wire: Wire) -> bool:
        """Send a message without waiting.

        Args:
            identity: Routing id of the connection.
            frames: The message.
            wire: The connection that is meant; another may have its routing id by now.

        Returns:
            False where the connection is gone, or does not read.
        """
        size = sum(map(len, frames))
        if not wire.is_there:
            return False
        if not self._keeper.has_room(wire, size):
            self._cut(identity, wire, "it does not take what it asks for")
            return False
        try:
            self.socket.send_multipart([identity, *frames], zmq.NOBLOCK, copy=False)
        except zmq.ZMQError as error:
            if error.errno not in (errno.EAGAIN, errno.EHOSTUNREACH):
                raise
            return False
        self._keeper.sent(wire, size)
        return True

    def _read(self, first: zmq.Frame) -> Letter:
        """Return the message that begins with this frame."""
        frames: list[bytes] = []
        last, count, size = first, 0, 0
        while last.more:
            last = self.socket.recv(copy=False)
            count += 1
            size += len(last) + _FRAME_BYTES
            if count <= _MOST_FRAMES:
                frames.append(last.bytes)
        wire = wire_of(int(_fact(last, "__fd") or -1))
        letter = self._sorted(Letter(first.bytes, frames, wire=wire), last, count)
        self._keeper.taken(letter.wire, size)
        if letter.fault is None:
            self.counts["heard"] += 1
        return letter

    def _sorted(self, letter: Letter, last: zmq.Frame, count: int) -> Letter:
        """Return a letter with whose it is, or with why it is not to be read."""
        said = _fact(last, "User-Id")
        has_key = said.startswith(self._seal)
        name = self._allowed.name_of(said[len(self._seal) :]) if has_key else ""
        if name is None:
            self.counts["refused"] += 1
            fault: GencompError = shut_out()
            return Letter(letter.identity, letter.frames, "", fault, letter.wire)
        if count > _MOST_FRAMES:
            fault = MalformedMessage(f"The message has {count} frames, {_MOST_FRAMES} are most.")
            if count > _CUT_FRAMES:
                self._cut(letter.identity, letter.wire, f"it sent a message of {count} frames")
            return Letter(letter.identity, letter.frames[:1], name, fault, letter.wire)
        return Letter(letter.identity, letter.frames, name, None, letter.wire)

    def lets_in(self, name: str) -> bool:
        """Tell whether the key of that name is still let in."""
        return self._allowed.has_name(name)

    def check_stranger(self, letter: Letter) -> None:
        """Refuse, unread, what is too large to be a hello.

        It may be a picture of a client whose link broke and was made again by ZeroMQ, behind its
        back: so it is told to say hello.

        Raises:
            Unauthorised: It is.
        """
        if sum(map(len, letter.frames)) > HELLO_BYTES:
            self.counts["unauthorised"] += 1
            raise Unauthorised("This connection did not say hello.", hello=True)

    def know(self, letter: Letter) -> None:
        """Take a connection for a client's from now on: it said hello, and the right one.

        Raises:
            ServerBusy: Its key has as many connections as one may.
        """
        if letter.key and self._keeper.count(letter.key, besides=letter.wire) >= MOST_OF_ONE:
            raise ServerBusy(
                f"The key '{letter.key}' has {MOST_OF_ONE} connections to this server, as many "
                "as one may.",
                hint="End programs that use it, or give each machine a key of its own.",
            )
        self._strikes.pop(letter.identity, None)
        self._keeper.know(letter.wire, letter.key)

    def blame(self, letter: Letter, error: GencompError) -> None:
        """Count a message that cannot be read, or is not to be; cut who keeps sending such."""
        if not isinstance(error, (MalformedMessage, Unauthorised)) or error.details.get("hello"):
            return
        self.counts["malformed" if isinstance(error, MalformedMessage) else "unauthorised"] += 1
        now = time.monotonic()
        # Put at the end: so the first is always the one that was blamed the longest ago.
        strikes = self._strikes.pop(letter.identity, None) or deque(maxlen=_STRIKES)
        self._strikes[letter.identity] = strikes
        # A large one takes as long to refuse as many small ones.
        strikes.extend([now] * (1 + sum(map(len, letter.frames)) // _STRIKE_BYTES))
        if len(strikes) == _STRIKES and now - strikes[0] < _STRIKES_S:
            why = f"it sent {_STRIKES} messages that cannot be read"
            self._cut(letter.identity, letter.wire, why)
        while self._strikes:
            oldest, at = next(iter(self._strikes.items()))
            if len(self._strikes) <= _MOST_GONE and now - at[-1] <= _STRIKES_S:
                break
            del self._strikes[oldest]

    def _cut(self, identity: bytes, wire: Wire, why: str) -> None:
        self._strikes.pop(identity, None)
        if identity not in self._gone:
            self._gone[identity] = None
            if len(self._gone) > _MOST_GONE:
                del self._gone[next(iter(self._gone))]
            self._keeper.cut(wire, why)

    def _is_let_in(self, public: str) -> str | None:
        return self._allowed.name_of(public)


def shut_out() -> Unauthorised:
    """Return what somebody is told whose key was revoked."""
    return Unauthorised(
        "The server does not let this key in any more.",
        hint="Ask whoever runs the server.",
        key="revoked",
    )


def _fact(frame: zmq.Frame, name: str) -> str:
    """Return what ZeroMQ says of the connection a frame came over; empty where it does not."""
    try:
        return str(frame.get(name))
    except zmq.ZMQError as error:
        if error.errno != errno.EINVAL:
            raise
        return ""
