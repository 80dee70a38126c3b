# SPDX-License-Identifier: Apache-2.0
"""Making and closing ZeroMQ sockets with the agreed options; never the library's defaults.

The defaults would hang a process at exit (LINGER -1), hold a thousand pictures in a queue and take
a message of any size. The values here are part of ``docs/td/protocol.md``.
"""

import ipaddress
import socket as plain_sockets
from urllib.parse import urlsplit

import zmq

from gencomp_protocol.errors import BadKnob, ServerUnreachable
from gencomp_protocol.messages import MESSAGE_BYTES

LINGER_MS = 500
QUEUE_MESSAGES = 1000  # High-water mark; bytes are bounded by credit, not by this.
HEARTBEAT_MS = 2000
HEARTBEAT_TIMEOUT_MS = 10_000
HANDSHAKE_MS = 5000
RECONNECT_MS = 100
RECONNECT_MAX_MS = 2000


Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]


def new_context() -> Context:
    """Return a ZeroMQ context of one's own; whoever makes it terminates it."""
    return zmq.Context()


def try_send(made: Socket, frames: "list[bytes]") -> bool:
    """Send a message without waiting; False where its queue is full."""
    try:
        made.send_multipart(frames, flags=zmq.NOBLOCK, copy=False)
    except zmq.Again:
        return False
    return True


def client_socket(context: Context, address: str) -> Socket:
    """Return a DEALER on its way to ``address``; connecting goes on in the background."""
    made: Socket = context.socket(zmq.DEALER)
    _agree(made)
    made.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    made.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    made.connect(address)
    return made


def server_socket(context: Context, host: str, port: int) -> "tuple[Socket, str]":
    """Return a bound ROUTER and its address; port 0 takes a free one.

    Raises:
        ServerUnreachable: The port cannot be had.
    """
    made: Socket = context.socket(zmq.ROUTER)
    _agree(made)
    made.setsockopt(zmq.ROUTER_MANDATORY, 1)
    try:
        made.bind(f"tcp://{host}:{port or '*'}")
    except zmq.ZMQError as error:
        made.close(linger=0)
        raise ServerUnreachable(
            f"The server cannot listen on {host}:{port} ({error.strerror}).",
            hint="Another program may hold that port; port 0 takes a free one.",
        ) from error
    return made, made.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")


def _agree(made: Socket) -> None:
    for option, value in (
        (zmq.LINGER, LINGER_MS),
        (zmq.SNDHWM, QUEUE_MESSAGES),
        (zmq.RCVHWM, QUEUE_MESSAGES),
        (zmq.MAXMSGSIZE, MESSAGE_BYTES),
        (zmq.HEARTBEAT_IVL, HEARTBEAT_MS),
        (zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS),
        (zmq.HANDSHAKE_IVL, HANDSHAKE_MS),
        (zmq.TCP_KEEPALIVE, 1),
    ):
        made.setsockopt(option, value)


def split_address(address: str) -> "tuple[str, int]":
    """Return host and port of ``tcp://host:port``.

    Raises:
        BadKnob: It is not such an address.
    """
    parts = urlsplit(address)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme != "tcp" or not host or not port:
        raise BadKnob(
            f"'{address}' is not the address of a server.", hint="Write it as tcp://HOST:PORT."
        )
    return host, port


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine alone, without asking a name server."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def knock(address: str, timeout_s: float) -> None:
    """Find out at once whether anybody listens; ZeroMQ alone would retry in silence.

    Raises:
        ServerUnreachable: Nobody does, or the host is not known.
        BadKnob: The address is not one.
    """
    try:
        plain_sockets.create_connection(split_address(address), timeout=timeout_s).close()
    except OSError as error:
        raise ServerUnreachable(
            f"No server answers at {address} ({error.strerror or error}).",
            hint="Start one with 'gencomp serve', or check the address.",
        ) from error
