# SPDX-License-Identifier: Apache-2.0
"""One job's life: its states, and the moves between them that are legal.

::

    receiving ──► queued ──► running ──► done
        │            │  ◄──────┘ │          (the server left while it ran)
        │            │           ├─────► failed
        ├──► refused │           │
        └────────────┴───────────┴─────► cancelled
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gencomp_protocol.messages import (
    CANCELLED,
    DONE,
    FAILED,
    FINAL_STATES,
    QUEUED,
    RECEIVING,
    REFUSED,
    RUNNING,
    InputPictures,
)
from gencomp_protocol.request import Request

MOVES: Mapping[str, frozenset[str]] = {
    RECEIVING: frozenset((QUEUED, REFUSED, CANCELLED)),
    QUEUED: frozenset((RUNNING, FAILED, CANCELLED)),
    RUNNING: frozenset((DONE, FAILED, CANCELLED, QUEUED)),
    **{state: frozenset() for state in FINAL_STATES},
}


@dataclass(frozen=True)
class Job:
    """A submission, as the job table holds it.

    Attributes:
        id: Name of the job on the wire and on disk.
        key: What makes submitting it idempotent.
        state: One of ``messages.STATES``.
        request: What was asked.
        inputs: The pictures it needs.
        created_s: Wall-clock seconds of submission.
        started_s: Of the last start, or None.
        ended_s: Of the end, or None.
        error: Why it failed or was refused, as on the wire, or None.
        released: True once a client has every layer and the server may drop them.
        account: Who asked for it: a key's name, or user@host.
        show: Production it belongs to; may be empty.
        shot: Shot it belongs to; may be empty.
        priority: -100 to 100; among the waiting jobs of one account the highest runs first.
        tries: How often it was started.
    """

    id: str
    key: str
    state: str
    request: Request
    inputs: tuple[InputPictures, ...]
    created_s: float
    started_s: float | None = None
    ended_s: float | None = None
    error: Mapping[str, Any] | None = None
    released: bool = False
    account: str = ""
    show: str = ""
    shot: str = ""
    priority: int = 0
    tries: int = 0

    @property
    def has_ended(self) -> bool:
        """Tell whether nothing more will happen to it."""
        return self.state in FINAL_STATES

    @property
    def digests(self) -> frozenset[str]:
        """Digests of every picture it needs."""
        return frozenset(entry.digest for one in self.inputs for entry in one.pictures)

    def pictures(self) -> dict[str, dict[int, str]]:
        """Return the digest of every picture by input and frame."""
        return {one.name: {e.frame: e.digest for e in one.pictures} for one in self.inputs}

    def kinds(self) -> dict[str, str]:
        """Return ``exr`` or ``image`` by input."""
        return {one.name: one.kind for one in self.inputs}


def new_job_id() -> str:
    """Return a name that no other job has and nobody can guess."""
    return secrets.token_hex(8)


def may_move(old: str, new: str) -> bool:
    """Tell whether a job may go from one state to another."""
    return new in MOVES[old]
