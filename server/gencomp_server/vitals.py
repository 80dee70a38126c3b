# SPDX-License-Identifier: Apache-2.0
"""What a server counts of itself, for whoever asks how it is; numbers alone, no work of its own."""

from __future__ import annotations

import os
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gencomp_protocol.version import __version__
from gencomp_server.logs import lost_lines

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Vitals:
    """Counts since the start.

    A name may have a second half after a colon that says of what kind: ``refused:bad-knob``.

    Args:
        started_s: Seconds since 1970.
    """

    def __init__(self, started_s: float | None = None) -> None:
        self._started_s = time.time() if started_s is None else started_s
        self._counts: Counter[str] = Counter()

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a count."""
        self._counts[name] += amount

    def report(
        self,
        *,
        front: str,
        workers: Sequence[Mapping[str, Any]],
        jobs: Mapping[str, int],
        connections: int,
        spool: Path,
        log_file: str,
    ) -> dict[str, Any]:
        """Return what is told on the wire; see ``health_report`` in ``docs/td/protocol.md``."""
        return {
            "front": front,
            "version": __version__,
            "pid": os.getpid(),
            "started_s": self._started_s,
            "rss_bytes": resident_bytes(),
            "workers": [dict(one) for one in workers],
            "jobs": dict(jobs),
            "connections": connections,
            "counts": dict(self._counts),
            "free_bytes": _free_bytes(spool),
            "lost_log_lines": lost_lines(),
            "log_file": log_file,
        }


def resident_bytes() -> int:
    """Return how much memory this process holds; 0 where the system does not say."""
    try:
        pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * _PAGE_BYTES


def _free_bytes(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0
