# SPDX-License-Identifier: Apache-2.0
"""The job table: what a server must still know after it was killed. SQLite, in WAL mode.

Every change is one transaction, so the table is whole after any kill. It is used by one thread of
one process; pixels and manifests lie in the spool, never here.

A full disk must not keep a server from noting that a job failed for want of room: beside the table
lies a file that is given up for the room it takes, and made again when there is some.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gencomp_protocol import disk
from gencomp_protocol.codec import inputs_from_plain, request_from_plain, to_plain
from gencomp_protocol.errors import GencompError, UnwritableOutput
from gencomp_protocol.messages import (
    DONE,
    FINAL_STATES,
    QUEUED,
    RECEIVING,
    RUNNING,
    InputPictures,
)
from gencomp_protocol.request import Request
from gencomp_server.engine.graph import StageRow
from gencomp_server.engine.graph import from_plain as stage_from_plain
from gencomp_server.engine.graph import to_plain as stage_to_plain
from gencomp_server.engine.job import Job, may_move, new_job_id
from gencomp_server.engine.spool import disk_error

log = logging.getLogger(__name__)

_RESERVE_BYTES = 1 << 20
_NO_ROOM = ("disk is full", "disk I/O error")
_NUMBERS = {"disk is full": errno.ENOSPC, "readonly": errno.EROFS, "unable to open": errno.EACCES}
_SCHEMA_VERSION = 3
_SINCE_1 = "ALTER TABLE jobs ADD COLUMN deaths INTEGER NOT NULL DEFAULT 0;"  # Of its worker.
_SINCE_2 = """
ALTER TABLE jobs ADD COLUMN account TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN show TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN shot TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN outages INTEGER NOT NULL DEFAULT 0;
CREATE TABLE stages (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    key TEXT NOT NULL, row TEXT NOT NULL, PRIMARY KEY (job, key));
CREATE TABLE nonces (
    nonce TEXT PRIMARY KEY, job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE);
CREATE INDEX nonces_by_job ON nonces (job);
"""  # tries: how often it was started; outages: servers that died while it ran.
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
_COLUMNS = (
    "id, key, state, created_s, started_s, ended_s, error, released, "
    "account, show, shot, priority, tries"
)
_KEPT_ORDERS, _KEPT_HEADLINES = 64, 4096
KEPT_ENDED, KEPT_ENDED_BYTES = 1000, 64 << 20  # Of one account, and what was asked of them.
_LOOK_JOBS, _LOOK_BYTES = 64, 8 << 20  # So much of one account is new before it is looked at.
_DIGEST = re.compile(r"[0-9a-f]{64}")
_KEPT_NONCES = 64  # Of one job; a client that asks again has another one each time.


@dataclass(frozen=True)
class LayerRow:
    """A delivered picture of a job."""

    layer: str
    frame: int
    bytes: int
    digest: str


@dataclass(frozen=True)
class Turn:
    """A job that waits to be run, as far as its turn depends on it; see :class:`Job`."""

    job: str
    account: str = ""
    show: str = ""
    priority: int = 0


@dataclass(frozen=True)
class Holding:
    """A job as far as what it holds in the spool depends on it; see :class:`Job`."""

    id: str
    state: str
    created_s: float
    ended_s: float | None
    digests: frozenset[str]

    @property
    def has_ended(self) -> bool:
        """Tell whether nothing more will happen to it."""
        return self.state in FINAL_STATES


class JobTable:
    """Jobs, the layers they made and the warnings they gave.

    Args:
        path: The database file; made where it is not there.
        clock: Wall-clock seconds.

    Raises:
        UnwritableOutput: It is no job table, or one of a later release.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._orders: dict[str, tuple[Request, tuple[InputPictures, ...]]] = {}
        self._headlines: dict[str, Request] = {}
        self._grown: dict[str, tuple[int, int]] = {}  # Jobs and bytes since crowd_out, by account.
        self._path = path
        self._reserve = path.with_name(f"{path.name}.reserve")
        self._db = sqlite3.connect(path, isolation_level=None)
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA foreign_keys = ON")
            self._bring_up_to_date()
        except (sqlite3.DatabaseError, UnwritableOutput) as error:
            self._db.close()
            if not isinstance(error, sqlite3.DatabaseError):
                raise
            raise UnwritableOutput(
                f"The job table {path} cannot be used ({error}).",
                hint="See who owns the file, and its disk; if it is damaged, move it and the files "
                "beside it away, and the server begins a new one without the jobs it knew.",
            ) from error
        self._keep_reserve()

    def _bring_up_to_date(self) -> None:
        """Make the tables, or add to those of an older release what they lack.

        Raises:
            UnwritableOutput: They are of a later release, which may mean something else by them.
        """
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > _SCHEMA_VERSION:
            raise UnwritableOutput(
                f"The job table {self._path} was written by a later release of gencomp.",
                hint="Start that release, or name another spool with --spool.",
            )
        if version == _SCHEMA_VERSION:
            return
        steps = "".join((_SCHEMA, _SINCE_1, _SINCE_2)[version:])
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

    def _write(self, sql: str, values: Sequence[Any], *, lasts: bool = False) -> sqlite3.Cursor:
        """Write to the table, into the room that was kept back where there is no other.

        Args:
            sql: The statement.
            values: Its values.
            lasts: Return only once this, and all before it, would outlive a power cut as well as a
                kill: an accepted job, and how one ended. The rest is said again by a job that
                runs again, and not waited for.

        Raises:
            DiskFull: There is no room at all.
            UnwritableOutput: The table cannot be written.
        """
        try:
            disk.about_to("write", self._path)
            self._db.execute(f"PRAGMA synchronous = {'FULL' if lasts else 'NORMAL'}")
            return self._db.execute(sql, values)
        except OSError as error:
            raise disk_error(error, self._path.parent) from error
        except sqlite3.OperationalError as error:
            if not any(words in str(error) for words in _NO_ROOM) or not self._reserve.exists():
                raise self._failed(error) from error
        log.warning("the disk is full: the job table takes the room that was kept back")
        self._reserve.unlink()
        try:
            return self._db.execute(sql, values)
        except sqlite3.OperationalError as error:
            raise self._failed(error) from error

    def _failed(self, error: sqlite3.OperationalError) -> GencompError:
        """Return what an artist reads of a write that failed."""
        number = next((n for words, n in _NUMBERS.items() if words in str(error)), errno.EIO)
        return disk_error(OSError(number, str(error)), self._path.parent)

    # --- jobs ------------------------------------------------------------------------------------

    def add(
        self,
        key: str,
        request: Request,
        inputs: tuple[InputPictures, ...],
        *,
        account: str = "",
        show: str = "",
        shot: str = "",
        priority: int = 0,
    ) -> Job:
        """Enter a job in the state ``receiving``; what it is asked by is told in :class:`Job`."""
        whose: dict[str, Any] = {
            "account": account,
            "show": show,
            "shot": shot,
            "priority": priority,
        }
        job = Job(new_job_id(), key, RECEIVING, request, inputs, self._clock(), **whose)
        self._keep_reserve()
        values = {
            "id": job.id,
            "key": key,
            "state": job.state,
            "request": json.dumps(to_plain(request)),
            "inputs": json.dumps(to_plain(inputs)),
            "created_s": job.created_s,
            **whose,
        }
        marks = ",".join("?" * len(values))
        self._write(
            f"INSERT INTO jobs ({', '.join(values)}) VALUES ({marks})",
            tuple(values.values()),
            lasts=True,
        )
        jobs, size = self._grown.get(account, (0, 0))
        size += len(values["request"]) + len(values["inputs"])
        self._grown[account] = (jobs + 1, size)
        while len(self._grown) > _KEPT_HEADLINES:
            del self._grown[next(iter(self._grown))]
        return job

    def get(self, job: str) -> Job | None:
        """Return the job of that id, or None."""
        return self._one("WHERE id = ?", job)

    def standing(self, key: str, *accounts: str) -> Job | None:
        """Return the job that a submit of this key means, or None where it means a new one.

        That is a job still under way, or one that is done and whose layers are still here. One
        that failed, was refused or cancelled is done anew.

        Args:
            key: What makes submitting idempotent.
            accounts: Whose jobs it may mean. Those from before there were accounts are anybody's.
        """
        marks = ",".join("?" * (len(accounts) + 1))
        where = f"WHERE key = ? AND account IN ({marks}) ORDER BY turn DESC"
        job = self._one(where, key, "", *accounts)
        if job is None or (job.has_ended and (job.state != DONE or job.released)):
            return None
        return job

    def all(self) -> list[Job]:
        """Return every job, newest first."""
        return self._many("ORDER BY turn DESC")

    def digests(self) -> frozenset[str]:
        """Return the digests of all pictures of all jobs; quickly, however many there are."""
        rows = self._db.execute("SELECT inputs FROM jobs")
        return frozenset(digest for (inputs,) in rows for digest in _DIGEST.findall(inputs))

    def holdings(self) -> list[Holding]:
        """Return what every job holds, newest first; quickly, however many pictures they have."""
        sql = "SELECT id, state, created_s, ended_s, inputs FROM jobs ORDER BY turn DESC"
        return [
            Holding(job, state, created_s, ended_s, frozenset(_DIGEST.findall(inputs)))
            for job, state, created_s, ended_s, inputs in self._db.execute(sql)
        ]

    def listed(self, most: int = 0) -> list[Job]:
        """Return jobs as they are listed, newest first; quickly, however many pictures they have.

        Their requests hold system, frames and client, and neither inputs nor knobs.

        Args:
            most: How many of all; those that have not ended are there besides. 0 for every job.
        """
        sql = f"SELECT {_COLUMNS} FROM jobs"
        alive = (RECEIVING, QUEUED, RUNNING)
        if most:
            sql += " WHERE state IN (?, ?, ?) OR turn IN"
            sql += " (SELECT turn FROM jobs ORDER BY turn DESC LIMIT ?)"
        values = (*alive, most) if most else ()
        rows = self._db.execute(f"{sql} ORDER BY turn DESC", values).fetchall()
        return [self._job(row, self._headline(row[0]), ()) for row in rows]

    def moments(self) -> list[float]:
        """Return the last time of day that was noted of every job, the latest first."""
        sql = "SELECT MAX(created_s, COALESCE(ended_s, 0)) AS last_s FROM jobs ORDER BY last_s DESC"
        return [float(row[0]) for row in self._db.execute(sql)]

    def count_by_state(self) -> dict[str, int]:
        """Return how many jobs are in each state that any is in."""
        sql = "SELECT state, COUNT(*) FROM jobs GROUP BY state"
        return {str(state): int(many) for state, many in self._db.execute(sql)}

    def of_nonce(self, nonce: str) -> Job | None:
        """Return the job that a submit with this nonce made or found, if it is still known."""
        return self._one("WHERE id = (SELECT job FROM nonces WHERE nonce = ?)", nonce)

    def note_nonce(self, nonce: str, job: str) -> None:
        """Keep which job a submit made or found."""
        self._write("INSERT OR IGNORE INTO nonces (nonce, job) VALUES (?,?)", (nonce, job))
        newest = "SELECT rowid FROM nonces WHERE job = ? ORDER BY rowid DESC LIMIT ?"
        sql = f"DELETE FROM nonces WHERE job = ? AND rowid NOT IN ({newest})"
        self._write(sql, (job, job, _KEPT_NONCES))

    def in_state(self, state: str) -> list[Job]:
        """Return the jobs in a state, oldest first."""
        return self._many("WHERE state = ? ORDER BY turn", state)

    def waiting(self) -> list[Turn]:
        """Return the queued jobs, oldest first."""
        sql = "SELECT id, account, show, priority FROM jobs WHERE state = ? ORDER BY turn"
        return [Turn(*row) for row in self._db.execute(sql, (QUEUED,))]

    def has_queued(self) -> bool:
        """Tell whether a job waits to be run."""
        sql = "SELECT 1 FROM jobs WHERE state = ? LIMIT 1"
        return self._db.execute(sql, (QUEUED,)).fetchone() is not None

    def count_before_run(self, *, account: str | None = None, show: str | None = None) -> int:
        """Count the jobs of an account, or of a show, that are received or wait to be run."""
        column, value = ("show", show) if account is None else ("account", account)
        sql = f"SELECT COUNT(*) FROM jobs WHERE state IN (?, ?) AND {column} = ?"
        return int(self._db.execute(sql, (RECEIVING, QUEUED, value)).fetchone()[0])

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
            "UPDATE jobs SET state = ?, started_s = ?, ended_s = ?, error = ?, tries = ? "
            "WHERE id = ?",
            (state, started, ended, spelt, found.tries + (state == RUNNING), job),
            lasts=state in FINAL_STATES,
        )
        return True

    def recover(self, *, died: bool = False) -> list[str]:
        """Put jobs that ran when the server went away back into the queue; return their ids.

        What they had delivered is forgotten, since running them again delivers it again.

        Args:
            died: True where the server did not leave but died: then that is an outage of each of
                them, since one may be what kills it. A server that leaves has put them back itself.
        """
        found = [job.id for job in self.in_state(RUNNING)]
        for job in found:
            if died:
                self._write("UPDATE jobs SET outages = outages + 1 WHERE id = ?", (job,))
            self._write("DELETE FROM layers WHERE job = ?", (job,))
            self.move(job, QUEUED)
        return found

    def count_death(self, job: str) -> int:
        """Note that a job's worker died under it; return how often that happened so far."""
        self._write("UPDATE jobs SET deaths = deaths + 1 WHERE id = ?", (job,))
        return self.deaths(job)

    def deaths(self, job: str) -> int:
        """Return how often a worker died while it ran a job."""
        return self._number("deaths", job)

    def outages(self, job: str) -> int:
        """Return how often the whole server died while it ran a job."""
        return self._number("outages", job)

    def _number(self, column: str, job: str) -> int:
        found = self._db.execute(f"SELECT {column} FROM jobs WHERE id = ?", (job,)).fetchone()
        return 0 if found is None else int(found[0])

    def release(self, job: str) -> None:
        """Note that a client has every layer; they are no longer offered."""
        self._write("UPDATE jobs SET released = 1 WHERE id = ?", (job,))
        self._write("DELETE FROM layers WHERE job = ?", (job,))

    def forget_before(self, moment_s: float) -> list[str]:
        """Remove every job that ended before a wall-clock moment; return their ids."""
        rows = self._db.execute("SELECT id FROM jobs WHERE ended_s < ?", (moment_s,)).fetchall()
        self._write("DELETE FROM jobs WHERE ended_s < ?", (moment_s,))
        return [row[0] for row in rows]

    def crowd_out(self, account: str) -> list[str]:
        """Remove the oldest ended jobs of an account beyond those that are kept of one.

        A job that is done and was not released stays: somebody may come for it. What is asked of
        a job can be megabytes, and whoever submits and cancels is held up by no quota.

        Returns:
            Their ids; none where the account brought little since it was last looked at.
        """
        grown = self._grown.get(account, (0, 0))
        if grown[0] < _LOOK_JOBS and grown[1] < _LOOK_BYTES:
            return []
        self._grown.pop(account, None)
        final = ",".join("?" * len(FINAL_STATES))
        sql = (
            "SELECT id, length(request) + length(inputs) FROM jobs "
            f"WHERE account = ? AND state IN ({final}) AND (state != ? OR released) "
            "ORDER BY turn DESC"
        )
        gone, kept, kept_bytes = [], 0, 0
        for job, size in self._db.execute(sql, (account, *FINAL_STATES, DONE)).fetchall():
            kept, kept_bytes = kept + 1, kept_bytes + size
            if kept > KEPT_ENDED or kept_bytes > KEPT_ENDED_BYTES:
                gone.append(str(job))
        for job in gone:
            self._write("DELETE FROM jobs WHERE id = ?", (job,))
        return gone

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

    def note_stage(self, job: str, row: StageRow) -> None:
        """Note how a stage of a job stands; the last of each key is kept. None of no job's."""
        self._write(
            "INSERT INTO stages SELECT ?,?,? WHERE EXISTS (SELECT 1 FROM jobs WHERE id = ?) "
            "ON CONFLICT (job, key) DO UPDATE SET row = excluded.row",
            (job, row.key, json.dumps(stage_to_plain(row)), job),
        )

    def stages(self, job: str) -> list[StageRow]:
        """Return the stages of a job, in the order in which they began."""
        sql = "SELECT row FROM stages WHERE job = ? ORDER BY rowid"
        return [stage_from_plain(json.loads(row[0])) for row in self._db.execute(sql, (job,))]

    # --- rows ------------------------------------------------------------------------------------

    def _one(self, where: str, *values: Any) -> Job | None:
        row = self._db.execute(f"SELECT {_COLUMNS} FROM jobs {where} LIMIT 1", values).fetchone()
        return None if row is None else self._job(row, *self._order(row[0]))

    def _many(self, where: str, *values: Any) -> list[Job]:
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM jobs {where}", values).fetchall()
        return [self._job(row, *self._order(row[0])) for row in rows]

    def _job(
        self, row: tuple[Any, ...], request: Request, inputs: tuple[InputPictures, ...]
    ) -> Job:
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
            account=row[8],
            show=row[9],
            shot=row[10],
            priority=row[11],
            tries=row[12],
        )

    def _headline(self, job: str) -> Request:
        """Return a job's request without what makes it large."""
        if job not in self._headlines:
            sql = "SELECT request FROM jobs WHERE id = ?"
            plain = json.loads(self._db.execute(sql, (job,)).fetchone()[0])
            bare = {**plain, "inputs": [], "knobs": {}}
            while len(self._headlines) >= _KEPT_HEADLINES:
                del self._headlines[next(iter(self._headlines))]
            self._headlines[job] = request_from_plain(bare)
        return self._headlines[job]

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
