# SPDX-License-Identifier: Apache-2.0
"""Reading the log's JSON lines again: the last of them, or those of one job.

What is read was written by several processes and may end in the middle of a line, or have been cut
off by a full disk: a line that is no map of ours is passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gencomp_server.logs import segments

_BLOCK = 64 * 1024
_MOST_BYTES = 16 << 20  # Read at most so much, from the end.


def last_lines(
    path: Path, most: int, *, job: str = "", level: str = "", most_bytes: int = _MOST_BYTES
) -> list[dict[str, Any]]:
    """Return the last events of a log, oldest first.

    Args:
        path: Its file; older segments lie beside it. None of them need be there.
        most: How many events.
        job: Only those of this job; empty for all.
        level: Only those as grave as this, or graver: ``info``, ``warning``, ``error``.
        most_bytes: How much is read at most.
    """
    found: list[dict[str, Any]] = []
    grave = _graver_than(level)
    for entry in _backwards(path, most_bytes):
        if len(found) >= most:
            break
        if (not job or entry.get("job") == job) and (grave is None or entry.get("level") in grave):
            found.append(entry)
    return found[::-1]


def _graver_than(level: str) -> frozenset[str] | None:
    levels = ("debug", "info", "warning", "error", "critical")
    return frozenset(levels[levels.index(level) :]) if level in levels[1:] else None


def _backwards(path: Path, most_bytes: int) -> Iterator[dict[str, Any]]:
    left = most_bytes
    for segment in segments(path):
        try:
            for line in _lines_backwards(segment):
                left -= len(line) + 1
                if left < 0:
                    return
                entry = _entry(line)
                if entry is not None:
                    yield entry
        except FileNotFoundError:
            return
        except OSError:  # no regular file: a device, a pipe
            return


def _lines_backwards(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as source:
        end = source.seek(0, 2)
        rest = b""
        while end > 0:
            begin = max(end - _BLOCK, 0)
            source.seek(begin)
            block = source.read(end - begin) + rest
            rest, *lines = block.split(b"\n")
            yield from reversed(lines)
            end = begin
        yield rest


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        made = json.loads(line)
    except ValueError:
        return None
    return made if isinstance(made, dict) and isinstance(made.get("message"), str) else None
