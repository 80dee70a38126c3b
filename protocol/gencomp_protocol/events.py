# SPDX-License-Identifier: Apache-2.0
"""What a client's caller is told of a job: events while it lives, an outcome when it ends."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

from gencomp_protocol.errors import GencompError


@dataclass(frozen=True)
class StateChanged:
    """The job is in another state; ``position`` is its place in the queue, from 1."""

    job: str
    state: str
    position: int = 0


@dataclass(frozen=True)
class Progressed:
    """``step`` of ``total`` of a stage; ``eta_s`` is what this stage still takes, if known."""

    job: str
    stage: str
    step: int
    total: int
    eta_s: Optional[float] = None


@dataclass(frozen=True)
class Warned:
    """The server did something other than asked; one sentence for the artist."""

    job: str
    sentence: str


@dataclass(frozen=True)
class Sent:
    """A picture of an input left for the server, whole."""

    job: str
    input: str
    frame: int


@dataclass(frozen=True)
class LayerReady:
    """A frame of a layer is here, whole and checked."""

    job: str
    layer: str
    frame: int
    path: Path


Event = Union[StateChanged, Progressed, Warned, Sent, LayerReady]


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        state: ``done``, ``failed``, ``refused`` or ``cancelled``.
        manifest: The job's manifest where it is done, else None.
        error: Why it failed or was refused, else None.
    """

    state: str
    manifest: Optional[Mapping[str, Any]] = None
    error: Optional[GencompError] = None
