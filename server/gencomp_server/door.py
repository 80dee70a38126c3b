# SPDX-License-Identifier: Apache-2.0
"""Where messages come in: on loopback with the secret, from elsewhere with a key that is let in.

One ROUTER is bound to loopback, in the clear, and, where the settings name another address, to that
with CURVE; ZeroMQ asks the doorkeeper, a thread, about each key (``zap.py``), and lets nobody in
while that does not answer. The key of every message is looked up again as it is read, so that a key
that was revoked opens nothing. A peer on loopback can say a key of itself, in the words of ZeroMQ's
handshake; one that the doorkeeper did not seal counts for nothing.

The doorkeeper also counts what each connection sends against what was read of it. ZeroMQ bounds a
frame, and the number of whole messages that wait, but not a message of endless parts; so a
connection that sent more than may be waiting is cut. One that keeps sending what cannot be read is
cut as well.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import secrets
import socket
import struct
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import zmq

from gencomp_protocol import sockets
from gencomp_protocol.errors import GencompError, MalformedMessage, ServerUnreachable, Unauthorised
from gencomp_server import zap
from gencomp_server.keys import AllowList, KeyFolder

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
HELLO_BYTES = 64 * 1024  # Largest message of somebody who did not say hello.
_MOST_FRAMES = 2  # Of any message of the protocol.
_CUT_FRAMES = 4096  # A message of so many is no mistake.
_STRANGER_BYTES = 1 << 20  # May be on its way from somebody who did not say hello.
_ROOM_BYTES = 32 << 20  # The same from a client, beside the pictures that its credit covers.
_FRAME_BYTES = 128  # Taken for what ZeroMQ adds to a frame, encrypted or not.
_IDLE_BYTES_S = 1024.0  # Taken for heartbeats.
_STRIKES, _STRIKES_S = 20, 10.0  # So many unreadable messages in so many seconds, and it is cut.
_STRIKE_BYTES = 64 * 1024
_MOST_GONE = 10_000
_LOOK_S = 0.05
_REVIVE_S = 1.0
_SILENT_S = 5.0
_ANSWER_MS = 2000
_BYTES_RECEIVED = struct.Struct("<Q"), 128  # tcpi_bytes_received of Linux's struct tcp_info.
_TCP_INFO_BYTES = 256
_SEAL_BYTES = 16
_LIBC = ctypes.CDLL(None)
_NOWHERE = bytes(16)  # An address of the family AF_UNSPEC: connected there is not connected.


@dataclass(frozen=True)
class Letter:
    """A message as it came in.

    Attributes:
        identity: Routing id of the connection.
        frames: Its frames, without that.
        key: Name of the client's key; empty on loopback, where the secret has to be told.
        fault: Why it is not to be read; None where it may be.
        wire: What the connection is to the operating system; -1 where that is not known.
    """

    identity: bytes
    frames: list[bytes]
    key: str = ""
    fault: GencompError | None = None
    wire: int = -1


@dataclass
class _Flow:
    """What came over one connection, against what was read of it."""

    accepted_s: float  # Not before that.
    most_bytes: int = _STRANGER_BYTES
    taken_bytes: float = 0.0
    looked_s: float = 0.0


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
            in), ``handshakes`` (that failed), ``malformed`` and ``cut`` (connections).

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
        self._keeper = _Doorkeeper(
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

    def send(self, identity: bytes, frames: list[bytes]) -> bool:
        """Send a message without waiting.

        Args:
            identity: Routing id of the connection.
            frames: The message.

        Returns:
            False where the connection is gone, or does not read.
        """
        try:
            self.socket.send_multipart([identity, *frames], zmq.NOBLOCK, copy=False)
        except zmq.ZMQError as error:
            if error.errno not in (errno.EAGAIN, errno.EHOSTUNREACH):
                raise
            return False
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
        wire = _fact(last, "__fd")
        letter = self._sorted(Letter(first.bytes, frames, wire=int(wire or -1)), last, count)
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
                self._cut(letter, time.monotonic(), f"a message of {count} frames")
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
        """Take a connection for a client's from now on: it said hello, and the right one."""
        self._strikes.pop(letter.identity, None)
        self._keeper.know(letter.wire)

    def blame(self, letter: Letter, error: GencompError) -> None:
        """Count a message that cannot be read, or is not to be; cut who keeps sending such."""
        if not isinstance(error, (MalformedMessage, Unauthorised)) or error.details.get("hello"):
            return
        self.counts["malformed" if isinstance(error, MalformedMessage) else "unauthorised"] += 1
        now = time.monotonic()
        strikes = self._strikes.setdefault(letter.identity, deque(maxlen=_STRIKES))
        # A large one takes as long to refuse as many small ones.
        strikes.extend([now] * (1 + sum(map(len, letter.frames)) // _STRIKE_BYTES))
        if len(strikes) == _STRIKES and now - strikes[0] < _STRIKES_S:
            self._cut(letter, strikes[0], f"{_STRIKES} messages that cannot be read")
        if len(self._strikes) > 1000:
            for identity in [one for one, at in self._strikes.items() if now - at[-1] > 10.0]:
                del self._strikes[identity]

    def _cut(self, letter: Letter, since_s: float, why: str) -> None:
        self._strikes.pop(letter.identity, None)
        if letter.identity not in self._gone:
            self._gone[letter.identity] = None
            if len(self._gone) > _MOST_GONE:
                del self._gone[next(iter(self._gone))]
            self._keeper.cut(letter.wire, since_s, why)

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


class _Doorkeeper:
    """The thread that answers for keys, where there is a seal, and counts what connections send."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        router: zmq.Socket[bytes],
        name_of: Callable[[str], str | None],
        credit_bytes: int,
        counts: Counter[str],
        *,
        seal: str,
    ) -> None:
        self._context, self._name_of, self._counts = context, name_of, counts
        self._credit_bytes, self._seal = credit_bytes, seal
        self._lock = threading.Lock()
        self._flows: dict[int, _Flow] = {}
        self._knowing: deque[int] = deque()
        self._cuts: deque[tuple[int, float, str]] = deque()
        self._is_over = threading.Event()
        self._seen_s = self._revived_s = time.monotonic()
        self._is_silent = False
        self._thread: threading.Thread | None = None
        endpoint = f"inproc://gencomp-door-{id(self)}"
        events = zmq.EVENT_ACCEPTED | zmq.EVENT_CLOSED | zmq.EVENT_DISCONNECTED
        failed = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        router.monitor(endpoint, events | failed | zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        self._router = router
        self._told = context.socket(zmq.PAIR)
        self._told.setsockopt(zmq.RCVHWM, 0)  # Else a thousand events unread would stop ZeroMQ.
        self._told.connect(endpoint)

    def start(self) -> None:
        """Start the thread and see that it answers.

        Raises:
            ServerUnreachable: It does not.
        """
        self._spawn()
        if self._seal and not self._answers():
            raise ServerUnreachable(
                "The server does not start: nobody answers for the clients' keys.",
                hint="Its log says why; without that anybody could come in.",
            )

    def _spawn(self) -> None:
        answering: zmq.Socket[bytes] | None = None
        if self._seal:
            answering = self._context.socket(zmq.REP)
            answering.setsockopt(zmq.LINGER, 0)
            answering.bind(zap.ENDPOINT)
        self._seen_s = time.monotonic()
        self._thread = threading.Thread(
            target=self._run, args=(answering,), name="gencomp doorkeeper", daemon=True
        )
        self._thread.start()

    def _answers(self) -> bool:
        """Ask about a key that nobody has; tell whether that is refused."""
        asking = self._context.socket(zmq.REQ)
        asking.setsockopt(zmq.LINGER, 0)
        try:
            asking.connect(zap.ENDPOINT)
            asking.send_multipart(zap.question(b"1", bytes(32)))
            return bool(asking.poll(_ANSWER_MS)) and asking.recv_multipart()[2] == b"400"
        finally:
            asking.close()

    def stop(self) -> None:
        """End the thread."""
        self._is_over.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if not self._told.closed:
            self._router.disable_monitor()
            self._told.close(linger=0)

    def watch(self) -> None:
        """Start the thread again where it died; say so where it hangs."""
        now = time.monotonic()
        if self._thread is not None and self._thread.is_alive():
            is_silent = now - self._seen_s > _SILENT_S
            if is_silent and not self._is_silent:
                log.error("nobody new is let in: the doorkeeper does not answer")
            self._is_silent = is_silent
        elif now - self._revived_s > _REVIVE_S:
            log.error("the doorkeeper died; nobody new was let in meanwhile")
            self._revived_s = now
            self._spawn()

    # --- the thread ------------------------------------------------------------------------------

    def _run(self, answering: zmq.Socket[bytes] | None) -> None:
        poller = zmq.Poller()
        poller.register(self._told, zmq.POLLIN)
        if answering is not None:
            poller.register(answering, zmq.POLLIN)
        try:
            while not self._is_over.is_set():
                ready = dict(poller.poll(int(_LOOK_S * 1000)))
                before_s, self._seen_s = self._seen_s, time.monotonic()
                if answering is not None and answering in ready:
                    asked = answering.recv_multipart()
                    answering.send_multipart(zap.reply(asked, self._name_of, self._seal))
                # Heard of before they said hello, so known once everything is heard.
                known = [self._knowing.popleft() for _ in range(len(self._knowing))]
                cuts = [self._cuts.popleft() for _ in range(len(self._cuts))]
                self._hear(before_s, self._seen_s)
                self._raise(known)
                self._end(cuts)
                self._look(self._seen_s)
        except Exception:
            log.exception("the doorkeeper failed")
        finally:
            if answering is not None:
                answering.close()

    def _hear(self, before_s: float, now: float) -> None:
        while self._told.poll(0):
            event, value, _ = sockets.read_event(self._told)
            if event == zmq.EVENT_ACCEPTED:
                with self._lock:
                    self._flows[value] = _Flow(before_s, looked_s=now)
            elif event in (zmq.EVENT_CLOSED, zmq.EVENT_DISCONNECTED):
                with self._lock:
                    self._flows.pop(value, None)
            else:
                name = "refused" if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH else "handshakes"
                self._counts[name] += 1

    def _raise(self, known: list[int]) -> None:
        """Allow the connections of clients what a client may send."""
        with self._lock:
            for wire in known:
                if wire in self._flows:
                    self._flows[wire].most_bytes = self._credit_bytes + _ROOM_BYTES

    def _end(self, cuts: list[tuple[int, float, str]]) -> None:
        """End the connections that are to be cut, if they are still there."""
        with self._lock:
            for wire, since_s, why in cuts:
                flow = self._flows.get(wire)
                if flow is not None and flow.accepted_s <= since_s:
                    del self._flows[wire]
                    self._shut(wire, why)

    def _look(self, now: float) -> None:
        """Cut every connection of which more waits unread than may."""
        with self._lock:
            for wire, flow in list(self._flows.items()):
                received = _received(wire)
                if received is None:
                    continue
                flow.taken_bytes += (now - flow.looked_s) * _IDLE_BYTES_S
                flow.looked_s = now
                # Never ahead: else a flood of small frames would buy room for large ones.
                flow.taken_bytes = min(flow.taken_bytes, received)
                is_much = received - flow.taken_bytes > flow.most_bytes
                if is_much and wire not in self._knowing:
                    del self._flows[wire]
                    self._shut(wire, f"{received - flow.taken_bytes:.0f} bytes that nobody asked")

    # --- of any thread ---------------------------------------------------------------------------

    def taken(self, wire: int, size: int) -> None:
        """Count what was read of a connection."""
        with self._lock:
            flow = self._flows.get(wire)
            if flow is not None:
                flow.taken_bytes += size

    def know(self, wire: int) -> None:
        """Allow a connection what a client may send."""
        self._knowing.append(wire)

    def cut(self, wire: int, since_s: float, why: str) -> None:
        """End a connection soon, for which ZeroMQ has no call.

        Args:
            wire: The connection.
            since_s: When it was there already; a later one of that number is somebody else's.
            why: What it sent.
        """
        self._cuts.append((wire, since_s, why))

    def _shut(self, wire: int, why: str) -> None:
        self._counts["cut"] += 1
        log.warning("a connection was cut: it sent %s", why)
        with suppress(OSError), _same(wire) as same:  # It may be gone already.
            _reset(same)


@contextmanager
def _same(wire: int) -> Iterator[socket.socket]:
    """Lend a connection of ZeroMQ's, which keeps it.

    Raises:
        OSError: It is gone.
    """
    number = os.dup(wire)
    try:
        lent = socket.socket(fileno=number)
    except OSError:
        os.close(number)
        raise
    with lent:
        yield lent


def _reset(link: socket.socket) -> None:
    """End a TCP connection at once; after a shutdown Linux would go on taking what is sent."""
    if _LIBC.connect(link.fileno(), _NOWHERE, len(_NOWHERE)) != 0:
        link.shutdown(socket.SHUT_RDWR)


def _received(wire: int) -> int | None:
    """Return how many bytes came over a TCP connection; None where that cannot be told."""
    layout, at = _BYTES_RECEIVED
    try:
        with _same(wire) as same:
            facts = same.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return None
    return int(layout.unpack_from(facts, at)[0]) if len(facts) >= at + layout.size else None
