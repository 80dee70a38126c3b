# SPDX-License-Identifier: Apache-2.0
"""The job table: what a server must still know after it was killed. SQLite, in WAL mode.

Every change is one transaction, so the table is whole after any kill. It is used by one thread of
one process; pixels and manifests lie in the spool, never here.

A full disk must not keep a server from noting that a job failed for want of room: beside the table
lies a file that is given up for the room it takes, and made again when there is some.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gencomp_protocol.codec import inputs_from_plain, request_from_plain, to_plain
from gencomp_protocol.messages import (
    DONE,
    FINAL_STATES,
    QUEUED,
    RECEIVING,
    RUNNING,
    InputPictures,
)
from gencomp_protocol.request import Request
from gencomp_server.engine.job import Job, may_move, new_job_id

log = logging.getLogger(__name__)

_RESERVE_BYTES = 1 << 20
_NO_ROOM = ("disk is full", "disk I/O error")
_SCHEMA_VERSION = 2
_SINCE_1 = "ALTER TABLE jobs ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0;"  # Of its worker.
_SCHEMA = """
CREATE TABLE jobs (
    turn INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE, key TEXT NOT NULL, state TEXT NOT NULL,
    request TEXT NOT NULL, inputs TEXT NOT NULL,
    created_s REAL NOT NULL, started_s REAL, ended_s REAL, error TEXT,
    released INTEGER NOT NULL DEFAULT 0);
CREATE INDEX jobs_by_key ON jobs (key);
CREATE INDEX jobs_by_state ON jobs (state);
CREATE TABLE layers (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    layer TEXT NOT NULL, frame INTEGER NOT NULL, bytes INTEGER NOT NULL, digest TEXT NOT NULL,
    PRIMARY KEY (job, layer, frame));
CREATE TABLE warnings (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    sentence TEXT NOT NULL, UNIQUE (job, sentence));
"""
_COLUMNS = "id, key, state, created_s, started_s, ended_s, error, released"
_KEPT_ORDERS = 64


@dataclass(frozen=True)
class LayerRow:
    """A delivered picture of a job."""

    layer: str
    frame: int
    bytes: int
    digest: str


class JobTable:
    """Jobs, the layers they made and the warnings they gave.

    Args:
        path: The database file; made where it is not there.
        clock: Wall-clock seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._orders: dict[str, tuple[Request, tuple[InputPictures, ...]]] = {}
        self._reserve = path.with_name(f"{path.name}.reserve")
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA foreign_keys = ON")
        self._bring_up_to_date()
        self._keep_reserve()

    def _bring_up_to_date(self) -> None:
        """Make the tables, or add to those of an older release what they lack."""
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version == _SCHEMA_VERSION:
            return
        steps = _SINCE_1 if version == 1 else _SCHEMA + _SINCE_1
        done = f"PRAGMA user_version = {_SCHEMA_VERSION};"
        self._db.executescript(f"BEGIN; {steps} {done} COMMIT;")

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def _keep_reserve(self) -> None:
        """Take the room that is given up when there is none left, where there is some."""
        if self._reserve.exists():
            return
        try:
            self._reserve.write_bytes(os.urandom(_RESERVE_BYTES))  # zeros may take no room
        except OSError as error:
            self._reserve.unlink(missing_ok=True)
            log.warning("no room is kept back for the job table (%s)", error.strerror)

    def _write(self, sql: str, values: Sequence[Any]) -> sqlite3.Cursor:
        """Write to the table, into the room that was kept back where there is no other."""
        try:
            return self._db.execute(sql, values)
        except sqlite3.OperationalError as error:
            if not any(words in str(error) for words in _NO_ROOM) or not self._reserve.exists():
                raise
            log.warning("the disk is full: the job table takes the room that was kept back")
            self._reserve.unlink()
            return self._db.execute(sql, values)

    # --- jobs ------------------------------------------------------------------------------------

    def add(self, key: str, request: Request, inputs: tuple[InputPictures, ...]) -> Job:
        """Enter a job in the state ``receiving``."""
        job = Job(new_job_id(), key, RECEIVING, request, inputs, self._clock())
        self._keep_reserve()
        self._write(
            "INSERT INTO jobs (id, key, state, request, inputs, created_s) VALUES (?,?,?,?,?,?)",
            (
                job.id,
                key,
                job.state,
                json.dumps(to_plain(request)),
                json.dumps(to_plain(inputs)),
                job.created_s,
            ),
        )
        return job

    def get(self, job: str) -> Job | None:
        """Return the job of that id, or None."""
        return self._one("WHERE id = ?", job)

    def standing(self, key: str) -> Job | None:
        """Return the job that a submit of this key means, or None where it means a new one.

        That is a job still under way, or one that is done and whose layers are still here. One
        that failed, was refused or cancelled is done anew.
        """
        job = self._one("WHERE key = ? ORDER BY turn DESC", key)
        if job is None or (job.has_ended and (job.state != DONE or job.released)):
            return None
        return job

    def all(self) -> list[Job]:
        """Return every job, newest first."""
        return self._many("ORDER BY turn DESC")

    def in_state(self, state: str) -> list[Job]:
        """Return the jobs in a state, oldest first."""
        return self._many("WHERE state = ? ORDER BY turn", state)

    def next_queued(self) -> Job | None:
        """Return the job whose turn it is."""
        return self._one("WHERE state = ? ORDER BY turn", QUEUED)

    def position(self, job: Job) -> int:
        """Return a queued job's place in the queue, from 1; 0 for any other."""
        if job.state != QUEUED:
            return 0
        sql = (
            "SELECT COUNT(*) FROM jobs WHERE state = ? "
            "AND turn <= (SELECT turn FROM jobs WHERE id = ?)"
        )
        return int(self._db.execute(sql, (QUEUED, job.id)).fetchone()[0])

    def move(self, job: str, state: str, error: Mapping[str, Any] | None = None) -> bool:
        """Bring a job into another state.

        Returns:
            False where that move is not legal from where it is, and then nothing happened.
        """
        found = self.get(job)
        if found is None or not may_move(found.state, state):
            return False
        now = self._clock()
        started = now if state == RUNNING else found.started_s
        ended = now if state in FINAL_STATES else None
        spelt = None if error is None else json.dumps(to_plain(error))
        self._write(
            "UPDATE jobs SET state = ?, started_s = ?, ended_s = ?, error = ? WHERE id = ?",
            (state, started, ended, spelt, job),
        )
        return True

    def recover(self, *, died: bool = False) -> list[str]:
        """Put jobs that ran when the server went away back into the queue; return their ids.

        What they had delivered is forgotten, since running them again delivers it again.

        Args:
            died: True where the server did not leave but died: then that is a death of each of
                them, since one may be what kills it. A server that leaves has put them back itself.
        """
        found = [job.id for job in self.in_state(RUNNING)]
        for job in found:
            if died:
                self.count_death(job)
            self._db.execute("DELETE FROM layers WHERE job = ?", (job,))
            self.move(job, QUEUED)
        return found

    def count_death(self, job: str) -> int:
        """Note that a job's worker died under it; return how often that happened so far."""
        self._write("UPDATE jobs SET deaths = deaths + 1 WHERE id = ?", (job,))
        return self.deaths(job)

    def deaths(self, job: str) -> int:
        """Return how often a worker, or a server, died while it ran a job."""
        found = self._db.execute("SELECT deaths FROM jobs WHERE id = ?", (job,)).fetchone()
        return 0 if found is None else int(found[0])

    def release(self, job: str) -> None:
        """Note that a client has every layer; they are no longer offered."""
        with self._db:
            self._db.execute("UPDATE jobs SET released = 1 WHERE id = ?", (job,))
            self._db.execute("DELETE FROM layers WHERE job = ?", (job,))

    def forget_before(self, moment_s: float) -> list[str]:
        """Remove every job that ended before a wall-clock moment; return their ids."""
        rows = self._db.execute("SELECT id FROM jobs WHERE ended_s < ?", (moment_s,)).fetchall()
        self._db.execute("DELETE FROM jobs WHERE ended_s < ?", (moment_s,))
        return [row[0] for row in rows]

    # --- what jobs made --------------------------------------------------------------------------

    def add_layer(self, job: str, row: LayerRow) -> None:
        """Note a delivered picture; one delivered again replaces the first."""
        self._write(
            "INSERT OR REPLACE INTO layers VALUES (?,?,?,?,?)",
            (job, row.layer, row.frame, row.bytes, row.digest),
        )

    def layers(self, job: str) -> list[LayerRow]:
        """Return what a job delivered, in the order in which it came."""
        sql = "SELECT layer, frame, bytes, digest FROM layers WHERE job = ? ORDER BY rowid"
        return [LayerRow(*row) for row in self._db.execute(sql, (job,))]

    def layer(self, job: str, layer: str, frame: int) -> LayerRow | None:
        """Return one delivered picture, or None."""
        sql = (
            "SELECT layer, frame, bytes, digest FROM layers "
            "WHERE job = ? AND layer = ? AND frame = ?"
        )
        row = self._db.execute(sql, (job, layer, frame)).fetchone()
        return None if row is None else LayerRow(*row)

    def add_warning(self, job: str, sentence: str) -> bool:
        """Note a warning; False where the job gave it before."""
        cursor = self._write("INSERT OR IGNORE INTO warnings VALUES (?,?)", (job, sentence))
        return cursor.rowcount == 1

    def warnings(self, job: str) -> list[str]:
        """Return the warnings of a job, in order."""
        sql = "SELECT sentence FROM warnings WHERE job = ? ORDER BY rowid"
        return [row[0] for row in self._db.execute(sql, (job,))]

    # --- rows ------------------------------------------------------------------------------------

    def _one(self, where: str, *values: Any) -> Job | None:
        row = self._db.execute(f"SELECT {_COLUMNS} FROM jobs {where} LIMIT 1", values).fetchone()
        return None if row is None else self._job(row)

    def _many(self, where: str, *values: Any) -> list[Job]:
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM jobs {where}", values).fetchall()
        return [self._job(row) for row in rows]

    def _job(self, row: tuple[Any, ...]) -> Job:
        request, inputs = self._order(row[0])
        return Job(
            id=row[0],
            key=row[1],
            state=row[2],
            request=request,
            inputs=inputs,
            created_s=row[3],
            started_s=row[4],
            ended_s=row[5],
            error=None if row[6] is None else json.loads(row[6]),
            released=bool(row[7]),
        )

    def _order(self, job: str) -> tuple[Request, tuple[InputPictures, ...]]:
        """Return request and pictures of a job; they never change and can be megabytes of text."""
        if job not in self._orders:
            sql = "SELECT request, inputs FROM jobs WHERE id = ?"
            request, inputs = self._db.execute(sql, (job,)).fetchone()
            made = request_from_plain(json.loads(request)), inputs_from_plain(json.loads(inputs))
            while len(self._orders) >= _KEPT_ORDERS:
                del self._orders[next(iter(self._orders))]
            self._orders[job] = made
        return self._orders[job]
