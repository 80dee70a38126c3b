# SPDX-License-Identifier: Apache-2.0
"""The ledger: every delivered job once, for good, whatever becomes of job and server."""

import csv
import hashlib
import io
import sqlite3
import stat
import time
from contextlib import closing

import pytest

from gencomp_protocol.client import request_key
from gencomp_protocol.errors import BadKnob, UnwritableOutput
from gencomp_protocol.frames import FrameRange
from gencomp_protocol.request import Request
from gencomp_server.cli import main
from gencomp_server.config import ServerConfig
from gencomp_server.engine.jobtable import JobTable
from gencomp_server.engine.spool import Spool
from gencomp_server.ledger import Entry, Ledger, moment_of
from gencomp_server.records import Records
from gencomp_server.report import Server

PROMPT = "a ship in the fog"
ENTRY = Entry(
    job="3f9a6c01d2e4b587",
    delivered_s=1767225600.0,
    show="nightfall",
    shot="nf_010",
    system="overplusplus",
    backbone="casper",
    weights="casper",
    weights_digest="ab" * 32,
    licence_class="production",
    licence="Apache-2.0",
    prompt_hash=hashlib.blake2b(PROMPT.encode(), digest_size=32).hexdigest(),
    seed=7,
    frames="1001-1048",
    version="0.1.0",
)


def test_when_a_job_is_delivered_then_one_row_says_all_but_the_prompt(
    passes, shot, monkeypatch, capsys, wait_until
):
    request, pictures = shot.request("passes", prompt=PROMPT, seed=5), shot.pictures()
    with passes.client() as client:
        whose = {"show": "=nightfall", "shot": "nf_010"}
        job = client.submit(request, pictures, request_key(request, pictures), **whose)
        assert client.follow(job, pictures=pictures).state == "done"
    # The row is written once the end was told.
    wait_until(lambda: job in [one.job for one in Ledger(passes.config.ledger).entries()])
    (row,) = [one for one in Ledger(passes.config.ledger).entries() if one.job == job]
    assert (row.show, row.shot, row.system) == ("=nightfall", "nf_010", "passes")
    assert (row.seed, row.frames, row.version) == (5, "1001-1003", "0.1.0")
    assert row.prompt_hash == ENTRY.prompt_hash
    assert stat.S_IMODE(passes.config.ledger.stat().st_mode) == 0o600
    assert PROMPT.encode() not in passes.config.ledger.read_bytes()

    monkeypatch.setenv("GENCOMP_LEDGER", str(passes.config.ledger))
    assert main(["ledger", "--from", "2000-01-01", "--csv"]) == 0
    rows = csv.DictReader(io.StringIO(capsys.readouterr().out))
    (told,) = [one for one in rows if one["job"] == job]
    assert told["show"] == "'=nightfall"  # No spreadsheet takes it for a formula.
    assert told["delivered"] == row.delivered
    assert main(["ledger"]) == 0
    assert f"{job}  =nightfall nf_010  passes  no model (none)  seed 5" in capsys.readouterr().out
    assert main(["ledger", "--from", "2999-01-01"]) == 0
    assert "no job of that time" in capsys.readouterr().out
    assert main(["ledger", "--from", "yesterday"]) == 2


class Bench:
    """A job table with its records, as a server that starts has them."""

    def __init__(self, folder):
        self.spool = Spool(folder / "spool")
        self.table = JobTable(self.spool.database)
        self.ledger = folder / "of" / "ledger.db"
        config = ServerConfig(spool=self.spool.root, ledger=self.ledger)
        self.records = Records(self.table, self.spool, Server(config))

    def done(self, key):
        """Enter a job that is done; return its id."""
        job = self.table.add(key, Request("passes", FrameRange(1, 2), ()), (), show="nightfall")
        for state in ("queued", "running", "done"):
            assert self.table.move(job.id, state)
        self.spool.write_manifest(job.id, {"seed": 3, "knobs": {"prompt": PROMPT}})
        return job.id

    def delivered(self, job):
        """Have a job entered, and wait for it."""
        self.records.delivered(job)
        self.records._thread.submit(int).result()

    def catch_up(self):
        """The same of all that are not entered."""
        self.records.catch_up()
        self.records._thread.submit(int).result()

    def rows(self):
        return [one.job for one in Ledger(self.ledger).entries()]


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    made.records.close()
    made.table.close()


def test_when_a_server_died_before_it_wrote_the_row_then_the_next_start_writes_it_once(bench):
    job = bench.done("k")
    for _ in range(2):
        bench.catch_up()
        assert bench.rows() == [job]
    (row,) = Ledger(bench.ledger).entries()
    assert (row.seed, row.frames, row.prompt_hash) == (3, "1-2", ENTRY.prompt_hash)


def test_when_a_job_is_forgotten_then_its_row_stays(bench):
    job = bench.done("k")
    bench.delivered(job)
    assert bench.table.forget_before(time.time() + 1) == [job]
    bench.catch_up()
    assert bench.rows() == [job]


def test_when_the_ledger_cannot_be_written_then_the_row_comes_with_the_next(bench, caplog):
    bench.ledger.parent.write_text("in the way")
    first = bench.done("1")
    bench.delivered(first)
    assert f"The ledger {bench.ledger} cannot be written" in caplog.text
    bench.ledger.parent.unlink()
    second = bench.done("2")
    bench.delivered(second)
    assert sorted(bench.rows()) == sorted([first, second])


def test_a_ledger_that_another_server_holds_holds_up_nobody(bench):
    bench.delivered(bench.done("1"))
    with closing(sqlite3.connect(bench.ledger, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        second = bench.done("2")
        begun = time.monotonic()
        bench.records.delivered(second)
        assert time.monotonic() - begun < 1.0
        other.execute("COMMIT")
    bench.records.close()
    assert second in bench.rows()


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda place: place.parent.write_text("in the way"), "is no folder"),
        (lambda place: place.mkdir(parents=True), "unable to open database file"),
        (lambda place: place.parent.mkdir() or place.write_text("x" * 999), "not a database"),
    ],
)
def test_that_no_row_could_be_added_is_known_before_one_is(tmp_path, spoil, why):
    place = tmp_path / "of" / "ledger.db"
    spoil(place)
    with pytest.raises(UnwritableOutput, match=why) as refused:
        Ledger(place).check()
    assert refused.value.message.startswith(f"The ledger {place} cannot be written (")
    assert "GENCOMP_LEDGER" in refused.value.hint


def test_looking_whether_rows_could_be_added_makes_and_changes_nothing(tmp_path):
    place = tmp_path / "of" / "ledger.db"
    Ledger(place).check()
    assert list(tmp_path.iterdir()) == []
    Ledger(place).add(ENTRY)
    before = place.read_bytes()
    with closing(sqlite3.connect(place)) as other:
        other.execute("BEGIN IMMEDIATE")
        Ledger(place).check()  # Another server writes just now.
    Ledger(place).check()
    assert place.read_bytes() == before


def test_a_job_that_did_not_end_well_is_not_in_it(bench):
    job = bench.table.add("k", Request("passes", FrameRange(1, 2), ()), ())
    bench.table.move(job.id, "cancelled")
    bench.delivered(job.id)
    bench.catch_up()
    assert bench.rows() == []


def test_a_row_is_added_once_and_never_changed_or_taken_away(tmp_path):
    ledger = Ledger(tmp_path / "of" / "ledger.db")
    assert ledger.entries() == []
    ledger.add(ENTRY)
    ledger.add(ENTRY)
    assert ledger.entries() == [ENTRY]
    assert ENTRY.delivered == "2026-01-01T00:00:00Z"
    with closing(sqlite3.connect(tmp_path / "of" / "ledger.db")) as db:
        for sql in ("DELETE FROM ledger", "UPDATE ledger SET seed = 8"):
            with pytest.raises(sqlite3.IntegrityError, match="only added to"):
                db.execute(sql)
    assert ledger.entries(from_s=1767225600.0, before_s=1767225601.0) == [ENTRY]
    assert ledger.entries(before_s=1767225600.0) == []
    assert ledger.entries(from_s=1767225601.0) == []


def test_a_file_that_is_no_ledger_and_a_day_that_is_none_are_refused(tmp_path):
    (tmp_path / "x").write_text("no ledger" * 100)
    with pytest.raises(BadKnob, match="no ledger"):
        Ledger(tmp_path / "x").entries()
    with pytest.raises(BadKnob, match="no date"):
        moment_of("2026-13-01")
    assert moment_of("2026-03-01T12:00+00:00") == 1772366400.0


def test_a_ledger_that_was_named_and_is_not_there_is_an_error(tmp_path, capsys):
    assert main(["ledger", "--file", str(tmp_path / "none.db")]) == 2
    assert str(tmp_path / "none.db") in capsys.readouterr().err
