# SPDX-License-Identifier: Apache-2.0
"""Networks that misbehave, in user space: between a client and a server, on loopback.

:class:`TcpProxy` hands bytes on and may be told to be late, narrow, deaf or gone. :class:`Lossy`
hands on whole messages of ZeroMQ and loses some of them, which no TCP does but some proxies do.
"""

import random
import selectors
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from urllib.parse import urlsplit

import zmq

from gencomp_protocol import sockets

_READ_BYTES = 1 << 16
_TICK_S = 0.005
_HELD_BYTES = 1 << 20  # Read from one side and not yet written to the other.


class _Way:
    """Bytes on their way from one socket to another, each with the moment it is due."""

    def __init__(self, source, sink):
        self.source, self.sink = source, sink
        self.waiting = deque()
        self.held = 0
        self.spent_s = 0.0  # Until when the line is busy with what went before.
        self.ended = False


class TcpProxy:
    """A listener on a free loopback port that connects to wherever the server is now.

    Args:
        target: Returns ``tcp://HOST:PORT`` of the server; asked at every new connection.

    Attributes:
        address: Where clients connect to.
        delay_s: How late every byte is, each way.
        jitter_s: How much later still, at most; order is kept.
        bytes_per_s: Width of the line, each way and connection; 0 for no limit.
        is_deaf: True takes bytes and hands none on, in either direction, without closing anything:
            a half-open link.
        is_full: True reads nothing more of what servers send: a client that does not read.
        sent: Bytes that came from clients so far.
        received: Bytes that went to clients so far.
    """

    def __init__(self, target, seed=0):
        self._target, self._random = target, random.Random(seed)
        self.delay_s = self.jitter_s = 0.0
        self.bytes_per_s = 0
        self.is_deaf = self.is_full = False
        self.sent = self.received = 0
        self._forgotten = set()
        self._ways = {}  # Source socket to its way.
        self._pairs = {}
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._orders = deque()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._over.set()
        self._thread.join(10)
        for one in list(self._pairs):
            one.close()
        self._listener.close()
        self._selector.close()

    def drop(self):
        """Close every connection that there is now."""
        self._orders.append("drop")

    def forget(self):
        """Hand on nothing more of the connections there are now: a router that forgot them."""
        self._orders.append("forget")

    @property
    def connections(self):
        """How many connections of clients there are."""
        return len(self._pairs) // 2

    # --- the loop --------------------------------------------------------------------------------

    def _loop(self):
        while not self._over.is_set():
            while self._orders:
                self._obey(self._orders.popleft())
            is_idle = False
            for key, _ in self._selector.select(_TICK_S):
                if key.fileobj is self._listener:
                    self._take_in()
                elif self._is_held_up(key):
                    is_idle = True
                else:
                    self._read(key.fileobj)
            if is_idle:
                time.sleep(_TICK_S)
            for way in list(self._ways.values()):
                self._write(way)

    def _is_held_up(self, key):
        way = self._ways.get(key.fileobj)
        return way is None or way.held > _HELD_BYTES or (self.is_full and key.data != "client")

    def _obey(self, order):
        if order == "drop":
            for one in list(self._pairs):
                self._close(one)
        else:
            self._forgotten |= set(self._pairs)

    def _take_in(self):
        ours, _ = self._listener.accept()
        where = urlsplit(self._target())
        try:
            theirs = socket.create_connection((where.hostname, where.port), timeout=2)
        except OSError:
            ours.close()
            return
        for one, other in ((ours, theirs), (theirs, ours)):
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._pairs[one] = other
            self._ways[one] = _Way(one, other)
            self._selector.register(one, selectors.EVENT_READ, "client" if one is ours else None)

    def _read(self, source):
        way = self._ways[source]
        try:
            block = source.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            block = b""
        if self.is_deaf or source in self._forgotten:
            if not block:
                self._close(source)
            return
        if not block:
            way.ended = True
            self._selector.unregister(source)
            return
        if self._selector.get_key(source).data:
            self.sent += len(block)
        else:
            self.received += len(block)
        now = time.monotonic()
        due = now + self.delay_s + self._random.uniform(0, self.jitter_s)
        if self.bytes_per_s:
            way.spent_s = max(way.spent_s, now) + len(block) / self.bytes_per_s
            due = max(due, way.spent_s)
        if way.waiting:
            due = max(due, way.waiting[-1][0])
        way.waiting.append((due, block))
        way.held += len(block)

    def _write(self, way):
        now = time.monotonic()
        while way.waiting and way.waiting[0][0] <= now:
            due, block = way.waiting.popleft()
            try:
                done = way.sink.send(block)
            except BlockingIOError:
                done = 0
            except OSError:
                self._close(way.source)
                return
            way.held -= done
            if done < len(block):
                way.waiting.appendleft((due, block[done:]))
                return
        if way.ended and not way.waiting:
            self._close(way.source)

    def _close(self, one):
        other = self._pairs.pop(one, None)
        if other is None:
            return
        self._pairs.pop(other, None)
        for end in (one, other):
            self._ways.pop(end, None)
            self._forgotten.discard(end)
            if end in self._selector.get_map():
                self._selector.unregister(end)
            end.close()


class Lossy:
    """Hands messages on between one client and a server, and loses some of those that it may.

    Args:
        target: ``tcp://HOST:PORT`` of the server.
        loses: Told the frames of every message; true loses it.

    Attributes:
        address: Where the client connects to.
        lost: How many messages were lost.
        passed: How many were handed on.
    """

    def __init__(self, target, loses):
        self._target, self._loses = target, loses
        self.lost = self.passed = 0
        self._context = zmq.Context()
        self._front, self.address = sockets.server_socket(self._context, "127.0.0.1", 0)
        self._backs = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._over.set()
        self._thread.join(10)
        for one in (self._front, *self._backs.values()):
            one.close(linger=0)
        self._context.term()

    def _loop(self):
        poller = zmq.Poller()
        poller.register(self._front, zmq.POLLIN)
        while not self._over.is_set():
            for ready, _ in poller.poll(20):
                if ready is self._front:
                    peer, *frames = self._front.recv_multipart()
                    if peer not in self._backs:
                        back = sockets.client_socket(self._context, self._target)
                        self._backs[peer] = back
                        poller.register(back, zmq.POLLIN)
                    self._hand_on(frames, self._backs[peer].send_multipart)
                    continue
                peer = next(name for name, back in self._backs.items() if back is ready)
                self._hand_on(ready.recv_multipart(), lambda f, p=peer: self._answer(p, f))

    def _hand_on(self, frames, send):
        if self._loses(frames):
            self.lost += 1
        else:
            self.passed += 1
            send(frames)

    def _answer(self, peer, frames):
        with suppress(zmq.ZMQError):  # That client is gone.
            self._front.send_multipart([peer, *frames])
