# SPDX-License-Identifier: Apache-2.0
"""The ledger: one row for every job that was delivered, kept when the job itself is long gone.

A production asks years later which model made a picture, and under which licence. The ledger holds
what answers that and no picture, path or prompt: a prompt is its BLAKE2b-256 (``b2sum -l 256``), so
that one that is known can be recognised. It is a file of its own (SQLite); rows are added and
never changed, which the file itself enforces.
"""

from __future__ import annotations

import datetime
import errno
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from gencomp_protocol.errors import BadKnob, UnwritableOutput
from gencomp_server.engine.job import Job
from gencomp_server.provenance import text_hash

_BUSY_S = 10.0  # Several servers of one user may write into one ledger.


@dataclass(frozen=True)
class Entry:
    """A delivered job.

    Attributes:
        job: Its id.
        delivered_s: When it was done, in seconds since 1970.
        show: Production it was asked for; may be empty.
        shot: Shot it was asked for; may be empty.
        system: Its system.
        backbone: The video model; empty where none was used.
        weights: Name of the set of weights; empty for none.
        weights_digest: Digest of those weights; empty for none.
        licence_class: Class of their licence; ``none`` for what was made here.
        licence: The licence, in words.
        prompt_hash: BLAKE2b-256 of the prompt in UTF-8, in hex; empty for no prompt.
        seed: The seed.
        frames: Frames delivered, as 1001-1048.
        version: Release of gencomp that made it.
    """

    job: str
    delivered_s: float
    show: str
    shot: str
    system: str
    backbone: str
    weights: str
    weights_digest: str
    licence_class: str
    licence: str
    prompt_hash: str
    seed: int
    frames: str
    version: str

    @property
    def delivered(self) -> str:
        """When it was done, UTC: ``2026-03-01T14:05:09Z``."""
        moment = datetime.datetime.fromtimestamp(self.delivered_s, datetime.timezone.utc)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


COLUMNS = tuple(spec.name for spec in fields(Entry))
_NUMBERS = {"delivered_s": "REAL", "seed": "INTEGER"}
_TABLE = ", ".join(f"{name} {_NUMBERS.get(name, 'TEXT')} NOT NULL" for name in COLUMNS)
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS ledger ({_TABLE}, PRIMARY KEY (job));
CREATE INDEX IF NOT EXISTS ledger_by_time ON ledger (delivered_s);
CREATE TRIGGER IF NOT EXISTS ledger_stays BEFORE DELETE ON ledger
    BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TRIGGER IF NOT EXISTS ledger_holds BEFORE UPDATE ON ledger
    BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
"""


def entry_of(job: Job, manifest: Mapping[str, Any]) -> Entry:
    """Return the row of a job that is done.

    Args:
        job: The job.
        manifest: Its manifest.
    """
    backbone = manifest.get("backbone") or {}
    prompt = str(manifest.get("knobs", {}).get("prompt", ""))
    return Entry(
        job=job.id,
        delivered_s=float(job.ended_s or 0.0),
        show=job.show,
        shot=job.shot,
        system=job.request.system,
        backbone=str(backbone.get("name", "")),
        weights=str(backbone.get("weights", "")),
        weights_digest=str(backbone.get("weights_digest", "")),
        licence_class=str(backbone.get("licence_class", "")),
        licence=str(backbone.get("licence", "")),
        prompt_hash=text_hash(prompt) if prompt else "",
        seed=int(manifest.get("seed", 0)),
        frames=str(job.request.frames),
        version=str(manifest.get("version", "")),
    )


class Ledger:
    """The file of delivered jobs.

    Args:
        path: The file; made, with its folder, for the owner alone when a row is first added.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, entry: Entry) -> None:
        """Add a row and see it onto the disk; one of a job that is there already changes nothing.

        Raises:
            UnwritableOutput: The file cannot be written.
        """
        marks = ",".join("?" * len(COLUMNS))
        try:
            with self._opened() as db, db:
                db.execute(f"INSERT OR IGNORE INTO ledger VALUES ({marks})", astuple(entry))
        except (OSError, sqlite3.Error) as error:
            raise UnwritableOutput(
                f"The ledger {self._path} cannot be written ({error}).",
                hint="The row is added at the next try; see who owns the file, and its disk.",
            ) from error

    def check(self) -> None:
        """Find out, without making anything, whether rows could be added.

        Raises:
            UnwritableOutput: They could not; names the file, and why.
        """
        try:
            if self._path.exists():
                self._try()
            else:
                _check_folder(self._path.parent)
        except (OSError, sqlite3.Error) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            raise UnwritableOutput(
                f"The ledger {self._path} cannot be written ({why}), so no delivery is entered.",
                hint="Name another file in 'ledger' (GENCOMP_LEDGER), or see who owns this one; "
                "what was not entered is entered later.",
            ) from error

    def _try(self) -> None:
        """Begin to write and leave it; another server that writes just now proves that one can."""
        with closing(sqlite3.connect(self._path, timeout=0.0)) as db:
            try:
                db.execute("BEGIN IMMEDIATE")
                db.execute("PRAGMA user_version = 0")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
            finally:
                db.rollback()

    def jobs(self) -> frozenset[str]:
        """Return the ids of all jobs in it."""
        return frozenset(one.job for one in self.entries())

    def entries(self, from_s: float = 0.0, before_s: float | None = None) -> list[Entry]:
        """Return the rows of a stretch of time, oldest first.

        Args:
            from_s: Its first moment, in seconds since 1970.
            before_s: The moment that it ends before; None: now and later.

        Raises:
            BadKnob: The file is there, and is no ledger.
        """
        if not self._path.exists():
            return []
        end = float("inf") if before_s is None else before_s
        sql = (
            f"SELECT {', '.join(COLUMNS)} FROM ledger "
            "WHERE delivered_s >= ? AND delivered_s < ? ORDER BY delivered_s, job"
        )
        try:
            with closing(sqlite3.connect(self._path, timeout=_BUSY_S)) as db:
                return [Entry(*row) for row in db.execute(sql, (from_s, end))]
        except sqlite3.Error as error:
            raise BadKnob(f"{self._path} is no ledger ({error}).") from error

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._path.exists():
            self._path.touch(mode=0o600)
        with closing(sqlite3.connect(self._path, timeout=_BUSY_S)) as db:
            db.execute("PRAGMA synchronous = FULL")
            db.executescript(_SCHEMA)
            yield db


def _check_folder(folder: Path) -> None:
    """Raise OSError where a file could not be made in a folder that may not be there yet."""
    there = folder
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, f"{there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        number = errno.EROFS if os.statvfs(there).f_flag & os.ST_RDONLY else errno.EACCES
        raise OSError(number, os.strerror(number))


def moment_of(text: str) -> float:
    """Return the moment that a date names, in seconds since 1970.

    Args:
        text: ``2026-03-01``, which begins at midnight here, or with a time after a T.

    Raises:
        BadKnob: It is no date.
    """
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError as error:
        raise BadKnob(
            f"'{text}' is no date.", hint="Write it as 2026-03-01, or as 2026-03-01T14:00."
        ) from error
