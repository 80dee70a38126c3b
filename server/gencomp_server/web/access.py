# SPDX-License-Identifier: Apache-2.0
"""Who may look, and who may change something: three rules, none of them a cookie.

A request must name this machine's loopback as its host, so that no name that somebody else can
point here leads to us. What is not public needs the token in a header, which no page of another
origin can send unasked. What changes something must, where a browser sends it, come from a page of
ours. Pure functions; ``serving.py`` applies them.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

TOKEN_BYTES = 32
_BEARER = "bearer"
_NAMES = ("127.0.0.1", "localhost", "[::1]")


@dataclass(frozen=True)
class Denied:
    """Why a request is not answered: its HTTP status, and a sentence."""

    status: int
    sentence: str


def new_token() -> str:
    """Return a token that nobody guesses."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def check_host(host: str, port: int) -> Denied | None:
    """Refuse a host that is no name of this machine's loopback with our port."""
    if host.lower() in {f"{name}:{port}" for name in _NAMES}:
        return None
    return Denied(421, "This page is at 127.0.0.1 only.")


def check_token(headers: Mapping[str, str], token: str) -> Denied | None:
    """Refuse a request without the token."""
    kind, _, given = headers.get("Authorization", "").partition(" ")
    if kind.lower() == _BEARER and hmac.compare_digest(given.strip().encode(), token.encode()):
        return None
    return Denied(401, "The token is missing or wrong; gencomp web printed the address with it.")


def check_change(headers: Mapping[str, str], port: int) -> Denied | None:
    """Refuse a change that a page of another origin asks for, or that looks like a form's."""
    origin = headers.get("Origin")
    ours = {f"http://{name}:{port}" for name in _NAMES}
    if origin is not None and origin.lower() not in ours:
        return Denied(403, "A page of another origin asked for this.")
    if headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        return Denied(403, "A page of another origin asked for this.")
    if headers.get("Content-Type", "").partition(";")[0].strip() != "application/json":
        return Denied(415, "Send it as application/json.")
    return None
