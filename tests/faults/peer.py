# SPDX-License-Identifier: Apache-2.0
"""A DEALER that says whatever a test wants, when it wants."""

import zmq

from gencomp_protocol import messages as m
from gencomp_protocol.codec import decode, encode
from gencomp_protocol.sockets import client_socket
from gencomp_protocol.version import PROTOCOL_VERSION

PATIENCE_MS = 20_000


class Peer:
    """A context manager; says nothing by itself.

    Args:
        address: ``tcp://HOST:PORT``.
        secret: Of the server.
    """

    def __init__(self, address, secret):
        self._context = zmq.Context()
        self.socket = client_socket(self._context, address)
        self._secret, self._last = secret, 0

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def close(self):
        self.socket.close(linger=0)
        self._context.term()

    def next_id(self):
        self._last += 1
        return self._last

    def send(self, message):
        self.socket.send_multipart(encode(message))

    def receive(self):
        assert self.socket.poll(PATIENCE_MS), "nothing arrived"
        return decode(self.socket.recv_multipart())

    def await_(self, kind):
        """Return the next message of a type, passing over others."""
        while not isinstance(message := self.receive(), kind):
            assert not isinstance(message, m.Refusal), message.error
        return message

    def hello(self, **more):
        self.send(m.Hello(self.next_id(), PROTOCOL_VERSION, self._secret, "peer", **more))
        return self.await_(m.Welcome)
