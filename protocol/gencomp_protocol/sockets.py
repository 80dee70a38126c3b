# SPDX-License-Identifier: Apache-2.0
"""Making and closing ZeroMQ sockets with the agreed options; never the library's defaults.

The defaults would hang a process at exit (LINGER -1), hold a thousand pictures in a queue and take
a message of any size. The values here are part of ``docs/td/protocol.md``.
"""

import ipaddress
import socket as plain_sockets
import struct
from typing import Optional
from urllib.parse import urlsplit

import zmq
import zmq.utils.z85

from gencomp_protocol.errors import BadKnob, ServerUnreachable
from gencomp_protocol.keys import ClientKeys
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


def new_pair() -> "tuple[str, str]":
    """Return a new public key and its secret key, 64 hex digits each."""
    public, secret = (zmq.utils.z85.decode(key).hex() for key in zmq.curve_keypair())
    return public, secret


def public_of(secret: str) -> str:
    """Return the public key that belongs to a secret key, both 64 hex digits."""
    made = zmq.curve_public(zmq.utils.z85.encode(bytes.fromhex(secret)))
    return str(zmq.utils.z85.decode(made).hex())


def client_socket(context: Context, address: str, keys: "Optional[ClientKeys]" = None) -> Socket:
    """Return a DEALER on its way to ``address``; connecting goes on in the background.

    Args:
        context: What the socket belongs to.
        address: ``tcp://HOST:PORT``.
        keys: With them the link is encrypted, and goes to no server but the one whose key it is.
    """
    made = _dealer(context, address, keys)
    made.connect(address)
    return made


def watched_socket(
    context: Context, address: str, keys: "Optional[ClientKeys]" = None
) -> "tuple[Socket, Handshake]":
    """Return what :func:`client_socket` does, and what becomes of its handshake."""
    made = _dealer(context, address, keys)
    handshake = Handshake(made, keys is not None)
    made.connect(address)
    return made, handshake


def _dealer(context: Context, address: str, keys: "Optional[ClientKeys]") -> Socket:
    made: Socket = context.socket(zmq.DEALER)
    _agree(made)
    made.setsockopt(zmq.IPV6, int("[" in address))
    if keys is not None:
        made.setsockopt(zmq.CURVE_SERVERKEY, bytes.fromhex(keys.server))
        made.setsockopt(zmq.CURVE_PUBLICKEY, bytes.fromhex(keys.public))
        made.setsockopt(zmq.CURVE_SECRETKEY, bytes.fromhex(keys.secret))
    made.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
    made.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
    return made


def server_socket(context: Context, host: str, port: int) -> "tuple[Socket, str]":
    """Return a bound ROUTER and its address; port 0 takes a free one.

    Raises:
        ServerUnreachable: The port cannot be had.
    """
    made = router_socket(context)
    try:
        return made, listen(made, host, port)
    except ServerUnreachable:
        made.close(linger=0)
        raise


def router_socket(context: Context) -> Socket:
    """Return a ROUTER that is not bound yet."""
    made: Socket = context.socket(zmq.ROUTER)
    _agree(made)
    made.setsockopt(zmq.ROUTER_MANDATORY, 1)
    return made


def listen(made: Socket, host: str, port: int) -> str:
    """Bind a socket with the options it has now; return the address. Port 0 takes a free one.

    Raises:
        ServerUnreachable: The port cannot be had.
    """
    made.setsockopt(zmq.IPV6, int(":" in host))
    try:
        made.bind(f"tcp://{f'[{host}]' if ':' in host else host}:{port or '*'}")
    except zmq.ZMQError as error:
        raise ServerUnreachable(
            f"The server cannot listen on {host}:{port} ({error.strerror}).",
            hint="Another program may hold that port; port 0 takes a free one.",
        ) from error
    return made.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")


def demand_keys(made: Socket, secret: str, domain: str) -> None:
    """Have what a socket binds from now on take clients with keys alone, if ZAP says so.

    Where nobody answers for ZAP nobody gets in, instead of everybody, which is the default.

    Args:
        made: A ROUTER.
        secret: Secret key of the server, 64 hex digits.
        domain: What ZAP is asked in the name of; not empty.
    """
    made.setsockopt(zmq.CURVE_SERVER, 1)
    made.setsockopt(zmq.CURVE_SECRETKEY, bytes.fromhex(secret))
    made.setsockopt(zmq.ZAP_DOMAIN, domain.encode())
    made.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def read_event(told: Socket) -> "tuple[int, int, str]":
    """Return the next event of a socket's monitor: which, its value, the endpoint."""
    facts, endpoint = told.recv_multipart()
    event, value = struct.unpack("=Hi", facts)
    return event, value, endpoint.decode("utf-8", "replace")


_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00"  # As far as it does not say what we demand.
_MECHANISM = slice(12, 32)
PLAIN, CURVE = "NULL", "CURVE"


def mechanism_of(address: str, timeout_s: float) -> str:
    """Return what a ZeroMQ peer says it demands: ``NULL`` or ``CURVE``; empty where it says none.

    Both sides compare this and the first to see a difference ends the connection, so that which of
    them can tell is left to chance.
    """
    said = b""
    try:
        with plain_sockets.create_connection(split_address(address), timeout=timeout_s) as link:
            link.sendall(_GREETING)
            while len(said) < _MECHANISM.stop:
                more = link.recv(_MECHANISM.stop - len(said))
                if not more:
                    break
                said += more
    except OSError:
        return ""
    return said[_MECHANISM].rstrip(b"\0").decode("ascii", "replace")


NO_KEYS_MATCH = "mechanism"  # One side has keys, the other does not use them.
NOT_ALLOWED = "not allowed"  # The server knows our key, or rather does not.
CUT_OFF = "cut off"  # The other side ended the exchange without a word.
_MISMATCH = 0x11000002  # ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH
_CUTS, _PLAIN_CUTS = 2, 5


class Handshake:
    """What becomes of a client's handshake: ZeroMQ alone would try again for ever in silence.

    Args:
        made: A socket that was not connected yet.
        has_keys: Whether it was given keys.
    """

    def __init__(self, made: Socket, has_keys: bool) -> None:
        self._socket = made
        self._cuts, self._most = 0, _CUTS if has_keys else _PLAIN_CUTS
        events = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
        self._told = made.get_monitor_socket(events | zmq.EVENT_HANDSHAKE_FAILED_AUTH)

    def failure(self) -> "Optional[str]":
        """Return how the handshake failed, or None while it may yet succeed."""
        while self._told.poll(0):
            event, value, _ = read_event(self._told)
            if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                return NOT_ALLOWED
            if event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                return NO_KEYS_MATCH if value == _MISMATCH else CUT_OFF
            self._cuts += 1
        return CUT_OFF if self._cuts >= self._most else None

    def close(self) -> None:
        """Watch no more."""
        self._socket.disable_monitor()
        self._told.close(linger=0)


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


def is_address(host: str) -> bool:
    """Tell whether a host is an IP address, or ``localhost``."""
    try:
        return host == "localhost" or bool(ipaddress.ip_address(host))
    except ValueError:
        return False


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
