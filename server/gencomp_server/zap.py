# SPDX-License-Identifier: Apache-2.0
"""ZeroMQ's question whether a key may come in (ZAP, RFC 27), and our answer. No threads here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

ENDPOINT = "inproc://zeromq.zap.01"
DOMAIN = "gencomp"
_VERSION = b"1.0"
_KEY_BYTES = 32
_REQUEST_FRAMES = 7


def reply(request: Sequence[bytes], name_of: Callable[[str], str | None], seal: str) -> list[bytes]:
    """Return the answer to one question: 200 for a key that is let in, 400 for all else.

    Args:
        request: Version, request id, domain, address, routing id, mechanism, key.
        name_of: Returns the name of a public key (64 hex digits) that is let in, else None.
        seal: What nobody else knows. A peer without a key may call itself what it likes, in the
            same place where ZeroMQ keeps this answer.

    Returns:
        Version, request id, status, text, seal and public key where it is let in, no metadata.
    """
    number = request[1] if len(request) > 1 else b""
    is_ours = len(request) == _REQUEST_FRAMES and request[0] == _VERSION
    if is_ours and request[2] == DOMAIN.encode() and request[5] == b"CURVE":
        key = bytes(request[6])
        if len(key) == _KEY_BYTES and name_of(key.hex()) is not None:
            return [_VERSION, number, b"200", b"OK", f"{seal}{key.hex()}".encode(), b""]
    return [_VERSION, number, b"400", b"not let in", b"", b""]


def question(number: bytes, key: bytes) -> list[bytes]:
    """Return what ZeroMQ would ask about a key; to try whether anybody answers."""
    return [_VERSION, number, DOMAIN.encode(), b"127.0.0.1", b"", b"CURVE", key]
