# SPDX-License-Identifier: Apache-2.0
"""Where the Nuke room's log lines go: Nuke's own console and a rotating file of the user.

Imports nothing of ours, so that start-up can always say what is wrong.
"""

import logging
import logging.handlers
import os
from pathlib import Path

import nuke

_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_MOST_BYTES = 1_000_000
_ROOMS = ("gencomp_nuke", "gencomp_protocol")


class Console(logging.Handler):
    """Writes warnings to the console that Nuke was started from."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line. Never raises: a console that is gone must not stop a job."""
        try:
            nuke.tprint(self.format(record))
        except (RuntimeError, OSError):
            self.handleError(record)


def log_file() -> Path:
    """Return the file that log lines go to: ``nuke.log`` in gencomp's folder of this user."""
    named = os.environ.get("GENCOMP_HOME", "")
    home = Path(named).expanduser() if named else Path.home() / ".gencomp"
    return home / "nuke.log"


def setup() -> None:
    """Send the lines of both rooms to file and console; calling it again changes nothing."""
    loggers = [logging.getLogger(name) for name in _ROOMS]
    missing = [one for one in loggers if not any(isinstance(h, Console) for h in one.handlers)]
    if not missing:
        return
    handlers = _handlers()  # Shared: two of them on one file would rotate it under each other.
    for logger in missing:
        logger.setLevel(logging.INFO)
        logger.propagate = False
        for handler in handlers:
            handler.setFormatter(logging.Formatter(_FORMAT))
            logger.addHandler(handler)


def _handlers() -> "list[logging.Handler]":
    """Return the console, and the file where it can be written."""
    console = Console(logging.WARNING)
    path = log_file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Delayed: the file is opened with the first line.
        file = logging.handlers.RotatingFileHandler(
            str(path), maxBytes=_MOST_BYTES, backupCount=2, encoding="utf-8", delay=True
        )
    except OSError as error:
        nuke.tprint(f"gencomp keeps no log file: {path.parent} cannot be made ({error.strerror}).")
        return [console]
    return [console, file]
