# SPDX-License-Identifier: Apache-2.0
"""A ZeroMQ peer by hand, for what no library would send: endless messages, false sizes, noise.

Standard library alone, so that any Python of any user can run it.
"""

import socket
import struct

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
MORE, LONG, COMMAND = 1, 2, 4


def frame(body, flags=0, size=None):
    """Return one frame; ``size`` is what it says of itself, if that is not true."""
    size = len(body) if size is None else size
    if size > 255:
        return struct.pack(">BQ", flags | LONG, size) + body
    return struct.pack(">BB", flags, size) + body


def ready(kind=b"DEALER", **more):
    """Return the command that ends the handshake of the mechanism NULL, saying ``more`` besides."""
    told = {"Socket-Type": kind, **{name.replace("_", "-"): value for name, value in more.items()}}
    values = (
        bytes([len(name)]) + name.encode() + struct.pack(">I", len(value)) + value
        for name, value in told.items()
    )
    return frame(b"\x05READY" + b"".join(values), COMMAND)


class RawPeer:
    """A connection to ``tcp://host:port`` that has shaken hands; a context manager."""

    def __init__(self, address, greet=True, **more):
        host, port = address[len("tcp://") :].rsplit(":", 1)
        self.link = socket.create_connection((host, int(port)), timeout=20.0)
        if greet:
            self.link.sendall(GREETING)
            self.take(len(GREETING))
            self.link.sendall(ready(**more))
            self.frame()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.link.close()

    def take(self, count):
        """Return so many bytes; fewer where the other side ends the connection."""
        found = b""
        while len(found) < count:
            more = self.link.recv(count - len(found))
            if not more:
                break
            found += more
        return found

    def frame(self):
        """Return the body of the next frame that is no heartbeat; None at the end."""
        while True:
            head = self.take(1)
            if not head:
                return None
            is_long = head[0] & LONG
            size = struct.unpack(">Q", self.take(8))[0] if is_long else self.take(1)[0]
            body = self.take(size)
            if not (head[0] & COMMAND and body[:5] in (b"\x04PING", b"\x04PONG")):
                return body

    def send(self, *bodies):
        """Send one message."""
        last = len(bodies) - 1
        self.link.sendall(b"".join(frame(one, MORE * (at < last)) for at, one in enumerate(bodies)))

    def is_cut(self, most_s=10.0):
        """Wait for the other side to end the connection; tell whether it did."""
        self.link.settimeout(most_s)
        try:
            while self.link.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass
        return True
