# SPDX-License-Identifier: Apache-2.0
"""The log of a training: ``OUT/log.jsonl``, an event a line."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gencomp_server.training.checkpoint import unwritable

_NAME = "log.jsonl"


def read_log(out: Path) -> list[dict[str, Any]]:
    """Return the events of a training; a last line that was cut off is left out."""
    file = out / _NAME
    found = []
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def write(out: Path, events: Iterable[Mapping[str, Any]]) -> None:
    """Begin a log, with some events already in it.

    Raises:
        DiskFull, UnwritableOutput: It cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lines = "".join(f"{json.dumps(event)}\n" for event in events)
        (out / _NAME).write_text(lines, encoding="utf-8")
    except OSError as error:
        raise unwritable(out / _NAME, error) from error


def append(out: Path, event: Mapping[str, Any]) -> None:
    """Add an event.

    Raises:
        DiskFull, UnwritableOutput: It cannot be written.
    """
    try:
        with (out / _NAME).open("a", encoding="utf-8") as log:
            log.write(f"{json.dumps(event)}\n")
    except OSError as error:
        raise unwritable(out / _NAME, error) from error


def first_loss(events: Iterable[Mapping[str, Any]]) -> float:
    """Return the loss on the fixed set before the first step; NaN where nothing tells."""
    for event in events:
        if event["event"] == "validation" and event["step"] == 0:
            return float(event["loss"])
    return math.nan
