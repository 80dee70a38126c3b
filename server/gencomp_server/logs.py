# SPDX-License-Identifier: Apache-2.0
"""Logging of the server's processes: one line per event, the job's id in every line.

Only ``cli.py`` and the worker's entry call :func:`configure`. What comes from outside cannot break
a line or colour a terminal: control characters are escaped.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TextIO

_NO_JOB = "-"
_job: ContextVar[str] = ContextVar("job", default=_NO_JOB)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_FORMAT = "%(asctime)s %(levelname)s %(job)s %(name)s %(message)s"


class JobFormatter(logging.Formatter):
    """Formats a record with the job at hand, tracebacks below it, nothing that moves a cursor."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, control characters escaped."""
        record.job = _job.get()
        record.msg, record.args = record.getMessage().replace("\n", "\\n"), None
        return _CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", super().format(record))


@contextmanager
def job_named(job: str) -> Iterator[None]:
    """Put a job's id into every line logged inside the ``with`` block, by this thread."""
    token = _job.set(job)
    try:
        yield
    finally:
        _job.reset(token)


def configure(level: str, stream: TextIO | None = None) -> None:
    """Send the log of this process to a stream, standard error where none is given.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        stream: Where lines go.
    """
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JobFormatter(_FORMAT))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
