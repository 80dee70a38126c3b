# SPDX-License-Identifier: Apache-2.0
"""The thread at the door: it answers for keys, and counts what connections send and do not read.

ZeroMQ bounds a frame, and the number of whole messages that wait, but neither a message of endless
parts nor the bytes that wait for somebody who does not read, and it has no call that ends one
connection. Linux tells how many bytes came over a connection and how many the other side took; of
both the door knows the rest. Who sent more than may be waiting, or takes less, is cut beneath
ZeroMQ; so is who does not say hello in time, and the oldest of too many of those.
"""

from __future__ import annotations

import ctypes
import logging
import os
import resource
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import zmq

from gencomp_protocol import sockets
from gencomp_protocol.errors import ServerUnreachable
from gencomp_server import zap

log = logging.getLogger(__name__)

_STRANGER_BYTES = 1 << 20  # May be on its way from somebody who did not say hello.
_ROOM_BYTES = 32 << 20  # The same from or to a client, beside the pictures that its credit covers.
_IDLE_BYTES_S = 1024.0  # Taken for heartbeats.
_LOOK_S = 0.05
_REVIVE_S = 1.0
_SILENT_S = 5.0
_ANSWER_MS = 2000
# A stranger has so long to say hello, of the time in which the server listens. A client that idles
# when the server comes back is linked again by ZeroMQ behind its back, and cut, and linked again:
# it says hello when it needs something.
HELLO_S = 60.0
MOST_STRANGERS = 1024
_LISTENS_S = 2.0  # A server whose last turn is longer ago does not listen.
_TCP_INFO_BYTES = 256
_BYTES_ACKED = struct.Struct("<2Q"), 120  # tcpi_bytes_acked, tcpi_bytes_received of Linux.
_LIBC = ctypes.CDLL(None)
_NOWHERE = bytes(16)  # An address of the family AF_UNSPEC: connected there is not connected.


@dataclass(frozen=True)
class Wire:
    """A connection as the operating system knows it.

    Attributes:
        number: Its descriptor, which another has when it is gone; -1 where that is not known.
        mark: What tells it from every other; None where it is gone.
    """

    number: int = -1
    mark: int | None = 0

    @property
    def is_there(self) -> bool:
        """Tell whether it is this connection still; True where nobody knows."""
        return self.number < 0 or (self.mark is not None and self.mark == _mark(self.number))

    def is_same(self, other: Wire) -> bool:
        """Tell whether two letters came over one connection."""
        return self.mark is not None and self == other


def wire_of(number: int) -> Wire:
    """Return the connection that has a descriptor now."""
    return Wire(number, _mark(number)) if number >= 0 else Wire()


def _mark(number: int) -> int | None:
    try:
        return os.fstat(number).st_ino
    except OSError:
        return None


@dataclass
class _Flow:
    """What came and went over one connection, against what was read of it, and by it."""

    wire: Wire
    looked_s: float
    most_bytes: int = _STRANGER_BYTES
    taken_bytes: float = 0.0
    sent_bytes: int = 0
    acked_bytes: int = 0
    waited_s: float = 0.0
    account: str | None = None  # Of who said hello; empty on loopback.

    @property
    def is_stranger(self) -> bool:
        return self.account is None

    def acked(self, count: int) -> None:
        """Take note of what the other side took; it never takes what was not sent."""
        self.acked_bytes = count
        self.sent_bytes = max(self.sent_bytes, count)


class Doorkeeper:
    """Answers for keys, where there is a seal, and watches connections.

    Args:
        context: The door's.
        router: The door's socket.
        name_of: Returns the name of a public key that is let in, else None.
        credit_bytes: What pictures on their way may take, each way.
        counts: Where is counted what it does.
        seal: What the answer for a key begins with; empty where nobody comes with keys.
    """

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
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most_strangers = min(MOST_STRANGERS, most // 4) if most > 0 else MOST_STRANGERS
        self._is_over = threading.Event()
        self._seen_s = self._revived_s = self._turned_s = time.monotonic()
        self._is_silent = False
        self._thread: threading.Thread | None = None
        endpoint = f"inproc://gencomp-door-{id(self)}"
        events = zmq.EVENT_ACCEPTED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        failed = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        router.monitor(endpoint, events | failed)
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
        now = self._turned_s = time.monotonic()
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
                self._seen_s = time.monotonic()
                if answering is not None and answering in ready:
                    asked = answering.recv_multipart()
                    answering.send_multipart(zap.reply(asked, self._name_of, self._seal))
                self._hear()
                self._look(self._seen_s)
        except Exception:
            log.exception("the doorkeeper failed")
        finally:
            if answering is not None:
                answering.close()

    def _hear(self) -> None:
        while self._told.poll(0):
            event, value, _ = sockets.read_event(self._told)
            if event == zmq.EVENT_ACCEPTED:
                with self._lock:
                    self._flow(wire_of(value))
            else:
                name = "refused" if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH else "handshakes"
                self._counts[name] += 1

    def _look(self, now: float) -> None:
        """Cut every connection of which more waits unread than may, or that never says hello."""
        listens = now - self._turned_s < _LISTENS_S
        with self._lock:
            for number, flow in list(self._flows.items()):
                found = _counted(flow.wire)
                if found is None:
                    if not flow.wire.is_there:
                        del self._flows[number]
                    continue
                acked, received = found
                flow.acked(acked)
                idle_s, flow.looked_s = now - flow.looked_s, now
                flow.taken_bytes += idle_s * _IDLE_BYTES_S
                # Never ahead: else a flood of small frames would buy room for large ones.
                flow.taken_bytes = min(flow.taken_bytes, received)
                unread = received - flow.taken_bytes
                if unread > flow.most_bytes:
                    self._shut(flow.wire, f"it sent {unread:.0f} bytes that nobody asked")
                elif flow.is_stranger and listens:
                    flow.waited_s += min(idle_s, _LISTENS_S)
            self._send_away()

    def _send_away(self) -> None:
        """End the connections of strangers who had their time, and the oldest of too many."""
        strangers = [flow for flow in self._flows.values() if flow.is_stranger]
        strangers.sort(key=lambda flow: -flow.waited_s)
        too_many = len(strangers) - self._most_strangers
        for at, flow in enumerate(strangers):
            if flow.waited_s > HELLO_S or at < too_many:
                del self._flows[flow.wire.number]
                self._counts["silent"] += 1
                log.debug("a connection was ended: nobody said hello")
                _end(flow.wire)

    # --- of any thread ---------------------------------------------------------------------------

    def _flow(self, wire: Wire) -> _Flow | None:
        """Return what is known of a connection; None of one that is gone. The lock is held."""
        if wire.number < 0 or wire.mark is None:
            return None
        flow = self._flows.get(wire.number)
        if flow is None or flow.wire != wire:
            flow = self._flows[wire.number] = _Flow(wire, time.monotonic())
        return flow

    def taken(self, wire: Wire, size: int) -> None:
        """Count what was read of a connection."""
        with self._lock:
            flow = self._flow(wire)
            if flow is not None:
                flow.taken_bytes += size

    def has_room(self, wire: Wire, size: int) -> bool:
        """Tell whether so much more may wait for who is at the other end to take it."""
        with self._lock:
            flow = self._flow(wire)
            most = self._credit_bytes + _ROOM_BYTES - size
            if flow is None or flow.sent_bytes - flow.acked_bytes <= most:
                return True
            found = _counted(wire)
            if found is None:
                return True
            flow.acked(found[0])
            return flow.sent_bytes - flow.acked_bytes <= most

    def sent(self, wire: Wire, size: int) -> None:
        """Count what is to be sent over a connection: never more than travels."""
        with self._lock:
            flow = self._flow(wire)
            if flow is not None:
                flow.sent_bytes += size

    def know(self, wire: Wire, account: str) -> None:
        """Allow a connection what a client may send.

        Args:
            wire: The connection.
            account: The name of its key; empty on loopback.
        """
        with self._lock:
            flow = self._flow(wire)
            if flow is not None:
                flow.most_bytes, flow.account = self._credit_bytes + _ROOM_BYTES, account

    def count(self, account: str, besides: Wire) -> int:
        """Return how many connections a key has, besides one."""
        with self._lock:
            own = [flow for flow in self._flows.values() if flow.account == account]
            return sum(flow.wire != besides and flow.wire.is_there for flow in own)

    def cut(self, wire: Wire, why: str) -> None:
        """End a connection, for which ZeroMQ has no call.

        Args:
            wire: The connection; nothing happens where it is gone.
            why: What it did.
        """
        with self._lock:
            self._shut(wire, why)

    def _shut(self, wire: Wire, why: str) -> None:
        self._flows.pop(wire.number, None)
        self._counts["cut"] += 1
        log.warning("a connection was cut: %s", why)
        _end(wire)


def _end(wire: Wire) -> None:
    """End a TCP connection at once; after a shutdown Linux would go on taking what is sent."""
    with suppress(OSError), _same(wire) as same:  # It may be gone already.
        if _LIBC.connect(same.fileno(), _NOWHERE, len(_NOWHERE)) != 0:
            same.shutdown(socket.SHUT_RDWR)


@contextmanager
def _same(wire: Wire) -> Iterator[socket.socket]:
    """Lend a connection of ZeroMQ's, which keeps it.

    Raises:
        OSError: It is gone.
    """
    number = os.dup(wire.number)
    try:
        if _mark(number) != wire.mark:
            raise OSError
        lent = socket.socket(fileno=number)
    except OSError:
        os.close(number)
        raise
    with lent:
        yield lent


def _counted(wire: Wire) -> tuple[int, int] | None:
    """Return how many bytes the other side of a TCP connection took, and how many came from it.

    None where that cannot be told.
    """
    layout, at = _BYTES_ACKED
    try:
        with _same(wire) as same:
            facts = same.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    except OSError:
        return None
    if len(facts) < at + layout.size:
        return None
    acked, received = layout.unpack_from(facts, at)
    return int(acked), int(received)
