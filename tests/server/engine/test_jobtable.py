# SPDX-License-Identifier: Apache-2.0
"""What a server still knows after it was killed."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from gencomp_protocol.errors import BadMatte, DiskFull, UnwritableOutput
from gencomp_protocol.frames import Format, FrameRange
from gencomp_protocol.messages import InputPictures, PictureEntry
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.engine import jobtable
from gencomp_server.engine.jobtable import JobTable, LayerRow, Turn

REQUEST = Request(
    "copy",
    FrameRange(1001, 1002),
    (InputHeader("plate", (1001, 1002), format=Format(32, 18)),),
    {"gain": 2.0, "warn": "é"},
)
INPUTS = (
    InputPictures("plate", (PictureEntry(1001, 10, "a" * 64), PictureEntry(1002, 11, "b" * 64))),
)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def table(tmp_path, clock):
    made = JobTable(tmp_path / "jobs.db", clock)
    yield made
    made.close()


def reopen(table, tmp_path, clock):
    """Return the table as the next server finds it."""
    table.close()
    return JobTable(tmp_path / "jobs.db", clock)


def queued(table, key="k", **whose):
    """Enter a job and queue it."""
    job = table.add(key, REQUEST, INPUTS, **whose)
    assert table.move(job.id, "queued")
    return job.id


def test_a_table_of_a_later_release_is_left_as_it_is(table, tmp_path, clock):
    table._db.execute("PRAGMA user_version = 99")
    with pytest.raises(UnwritableOutput, match="a later release"):
        reopen(table, tmp_path, clock)
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (99,)


def test_what_is_no_table_is_said(tmp_path):
    (tmp_path / "jobs.db").write_bytes(b"garbage" * 1000)
    with pytest.raises(UnwritableOutput, match="not a database") as failed:
        JobTable(tmp_path / "jobs.db")
    assert "move it" in failed.value.hint


def test_the_digests_of_all_pictures_are_told(table):
    assert table.digests() == frozenset()
    job = table.add("k", REQUEST, INPUTS)
    assert table.digests() == frozenset(job.digests)
    (holding,) = table.holdings()
    assert (holding.id, holding.digests, holding.has_ended) == (job.id, job.digests, False)


def test_a_job_is_the_same_after_a_restart(table, tmp_path, clock):
    job = table.add("k", REQUEST, INPUTS)
    again = reopen(table, tmp_path, clock)
    found = again.get(job.id)
    again.close()
    assert found == job
    assert found.request == REQUEST
    assert found.pictures() == {"plate": {1001: "a" * 64, 1002: "b" * 64}}
    assert found.digests == {"a" * 64, "b" * 64}
    assert found.kinds() == {"plate": "exr"}


def test_waiting_jobs_are_told_oldest_first_with_whose_they_are(table):
    first = queued(table, "1", account="ann@a", show="hero", shot="010", priority=5)
    second = queued(table, "2")
    assert table.waiting() == [Turn(first, "ann@a", "hero", 5), Turn(second)]
    assert table.has_queued()
    table.move(first, "running")
    assert table.waiting() == [Turn(second)]
    table.move(second, "cancelled")
    assert not table.has_queued()
    assert (table.get(first).shot, table.get(first).tries) == ("010", 1)


def test_jobs_that_are_not_run_yet_are_counted_by_account_and_show(table):
    queued(table, "1", account="ann", show="hero")
    table.add("2", REQUEST, INPUTS, account="ann")
    table.move(queued(table, "3", account="ann"), "running")
    assert table.count_before_run(account="ann") == 2
    assert table.count_before_run(show="hero") == 1
    assert table.count_before_run(account="bob") == 0


def test_an_illegal_move_does_nothing(table):
    job = table.add("k", REQUEST, INPUTS)
    assert table.move(job.id, "done") is False
    assert table.get(job.id).state == "receiving"
    assert table.move("nobody", "queued") is False


def test_times_and_errors_are_noted(table, clock):
    job = queued(table)
    clock.now = 1005.0
    table.move(job, "running")
    clock.now = 1009.5
    table.move(job, "failed", BadMatte("It is empty.", frame=3).to_wire())
    found = table.get(job)
    assert (found.created_s, found.started_s, found.ended_s) == (1000.0, 1005.0, 1009.5)
    assert found.error["details"] == {"frame": 3}


def test_a_key_means_the_job_under_way_or_done(table):
    job = table.add("k", REQUEST, INPUTS)
    for state in ("queued", "running", "done"):
        assert table.standing("k").id == job.id
        table.move(job.id, state)
    assert table.standing("k").id == job.id
    assert table.standing("other") is None


def test_a_key_means_no_job_of_another_account(table):
    planted = table.add("k", REQUEST, INPUTS, account="eve")
    assert table.standing("k", "ada") is None
    own = table.add("k", REQUEST, INPUTS, account="ada")
    assert table.standing("k", "ada").id == own.id
    assert table.standing("k", "eve").id == planted.id


def test_a_job_from_before_there_were_accounts_is_found_by_its_key(table):
    job = table.add("k", REQUEST, INPUTS)
    assert table.standing("k", "ada").id == job.id


def test_of_one_account_few_ended_jobs_are_kept_and_what_nobody_fetched(table, monkeypatch):
    monkeypatch.setattr(jobtable, "KEPT_ENDED", 5)
    waits, other = queued(table, account="ada"), queued(table, account="bob")
    table.move(other, "cancelled")
    made = queued(table, account="ada")
    for state in ("running", "done"):
        table.move(made, state)
    ended = [queued(table, account="ada") for _ in range(70)]
    for job in ended:
        table.move(job, "cancelled")
    assert table.crowd_out("ada") == ended[-6::-1]
    assert {job.id for job in table.all()} == {waits, other, made, *ended[-5:]}
    assert table.crowd_out("ada") == []


def test_of_one_account_few_megabytes_of_ended_jobs_are_kept(table, monkeypatch):
    monkeypatch.setattr(jobtable, "KEPT_ENDED_BYTES", 20 << 20)
    large = replace(REQUEST, client="x" * (6 << 20))
    gone = []
    for at in range(12):
        job = table.add(f"k{at}", large, INPUTS, account="ada")
        table.move(job.id, "cancelled")
        gone += table.crowd_out("ada")
        assert len(table.all()) <= 5
    assert len(gone) >= 7


@pytest.mark.parametrize("end", ["cancelled", "refused"])
def test_a_key_of_a_job_that_came_to_nothing_means_a_new_one(table, end):
    job = table.add("k", REQUEST, INPUTS)
    table.move(job.id, end)
    assert table.standing("k") is None


def test_a_released_job_offers_no_layers_and_its_key_is_free(table):
    job = queued(table)
    table.move(job, "running")
    table.add_layer(job, LayerRow("a", 1001, 5, "c" * 64))
    table.move(job, "done")
    table.release(job)
    assert table.layers(job) == []
    assert table.standing("k") is None
    assert table.get(job).released is True


def test_a_job_that_ran_goes_back_to_the_queue_and_forgets_what_it_delivered(
    table, tmp_path, clock
):
    done, ran = queued(table, "1"), queued(table, "2")
    for job in (done, ran):
        table.move(job, "running")
        table.add_layer(job, LayerRow("a", 1001, 5, "c" * 64))
    table.move(done, "done")
    again = reopen(table, tmp_path, clock)
    assert again.recover() == [ran]
    assert again.get(ran).state == "queued"
    assert again.layers(ran) == []
    assert again.layers(done) == [LayerRow("a", 1001, 5, "c" * 64)]
    again.close()


def test_a_layer_delivered_again_replaces_the_first(table):
    job = queued(table)
    table.add_layer(job, LayerRow("a", 1001, 5, "c" * 64))
    table.add_layer(job, LayerRow("a", 1001, 6, "d" * 64))
    assert table.layers(job) == [LayerRow("a", 1001, 6, "d" * 64)]
    assert table.layer(job, "a", 1001).bytes == 6
    assert table.layer(job, "a", 1002) is None


def test_a_warning_is_noted_once_and_in_order(table):
    job = queued(table)
    given = [table.add_warning(job, text) for text in ("one", "two", "one")]
    assert given == [True, True, False]
    assert table.warnings(job) == ["one", "two"]


def test_old_jobs_are_forgotten_with_all_that_hangs_on_them(table, clock, tmp_path):
    old, kept = queued(table, "1"), queued(table, "2")
    table.add_layer(old, LayerRow("a", 1, 5, "c" * 64))
    table.add_warning(old, "one")
    table.move(old, "cancelled")
    clock.now = 2000.0
    assert table.forget_before(1500.0) == [old]
    assert [job.id for job in table.all()] == [kept]
    with sqlite3.connect(tmp_path / "jobs.db") as db:
        counts = [
            db.execute(f"SELECT COUNT(*) FROM {t}").fetchone()[0] for t in ("layers", "warnings")
        ]
    db.close()
    assert counts == [0, 0]


def test_more_jobs_than_are_kept_in_memory_are_all_there(table):
    made = [queued(table, f"k{i}") for i in range(70)]
    assert [job.id for job in table.all()] == made[::-1]
    assert {job.request.system for job in table.all()} == {"copy"}


def test_the_database_is_in_wal_mode_and_sound(table, tmp_path):
    queued(table)
    db = sqlite3.connect(tmp_path / "jobs.db")
    assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    db.close()


def test_deaths_of_a_jobs_worker_are_counted_over_restarts(table, tmp_path, clock):
    job, other = queued(table, "1"), queued(table, "2")
    assert [table.count_death(job), table.count_death(job)] == [1, 2]
    again = reopen(table, tmp_path, clock)
    assert (again.count_death(job), again.count_death(other)) == (3, 1)
    again.close()


def test_an_outage_of_the_server_is_one_of_the_jobs_that_ran_and_a_clean_end_is_none(
    table, tmp_path, clock
):
    ran, waits = queued(table, "1"), queued(table, "2")
    table.move(ran, "running")
    table.recover()  # As a server that is told to leave does.
    left = reopen(table, tmp_path, clock)
    assert left.recover(died=True) == []
    assert left.outages(ran) == 0
    left.move(ran, "running")  # And this one is killed.
    died = reopen(left, tmp_path, clock)
    assert died.recover(died=True) == [ran]
    assert (died.outages(ran), died.outages(waits), died.deaths(ran)) == (1, 0, 0)
    died.close()


def test_the_table_of_an_older_server_is_brought_up_to_date_with_its_jobs(table, tmp_path, clock):
    job = queued(table)
    table.close()
    with sqlite3.connect(tmp_path / "jobs.db") as db:  # As the first release made it.
        for column in ("deaths", "account", "show", "shot", "priority", "tries", "outages"):
            db.execute(f"ALTER TABLE jobs DROP COLUMN {column}")
        kept = {"jobs", "layers", "warnings"}
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            if name not in kept and not name.startswith("sqlite_"):
                db.execute(f"DROP TABLE {name}")
        db.execute("PRAGMA user_version = 1")
    db.close()
    again = JobTable(tmp_path / "jobs.db", clock)
    assert again.get(job).state == "queued"
    assert again.waiting() == [Turn(job)]
    assert again.count_death(job) == 1
    again.close()


class Full:
    """A database on a disk without room, until the reserve beside it is given up."""

    def __init__(self, real, reserve):
        self.real, self.reserve = real, reserve

    def execute(self, sql, values=()):
        if self.reserve.exists() and not sql.startswith("SELECT"):
            raise sqlite3.OperationalError("database or disk is full")
        return self.real.execute(sql, values)

    def close(self):
        self.real.close()


@pytest.mark.fault("F35")
def test_on_a_full_disk_a_job_can_still_be_ended(table, tmp_path):
    job = table.add("key", REQUEST, INPUTS)
    reserve = tmp_path / "jobs.db.reserve"
    assert reserve.stat().st_size == 1 << 20
    assert table.move(job.id, "queued")
    table._db = Full(table._db, reserve)
    assert table.move(job.id, "failed", {"code": "disk-full"})
    assert table.get(job.id).state == "failed"
    assert not reserve.exists()


@pytest.mark.fault("F35")
def test_room_is_kept_back_again_for_the_next_job(table, tmp_path):
    reserve = tmp_path / "jobs.db.reserve"
    reserve.unlink()
    table.add("key", REQUEST, INPUTS)
    assert reserve.exists()


def test_what_has_to_outlive_a_power_cut_is_waited_for_and_the_rest_is_not(table):
    said = []
    real = table._db
    real.set_trace_callback(lambda sql: said.append(sql.split(" WHERE")[0]))

    def modes():
        found = [sql.split()[-1] for sql in said if sql.startswith("PRAGMA synchronous")]
        said.clear()
        return found

    job = table.add("k", REQUEST, INPUTS).id
    assert modes() == ["FULL"]
    table.move(job, "queued")
    table.move(job, "running")
    table.add_layer(job, LayerRow("copy", 1001, 1, "a" * 64))
    assert modes() == ["NORMAL"] * 3
    table.move(job, "done")
    assert modes() == ["FULL"]
    real.set_trace_callback(None)


@pytest.mark.fault("F36")
@pytest.mark.parametrize(
    ("said", "kind", "number"),
    [
        ("database or disk is full", DiskFull, "ENOSPC"),
        ("attempt to write a readonly database", UnwritableOutput, "EROFS"),
        ("unable to open database file", UnwritableOutput, "EACCES"),
        ("disk I/O error", UnwritableOutput, "EIO"),
    ],
)
def test_a_table_that_cannot_be_written_is_said_by_its_place_and_reason(
    table, tmp_path, said, kind, number
):
    class Broken:
        def __init__(self, real):
            self.real = real

        def execute(self, sql, values=()):
            if sql.startswith(("SELECT", "PRAGMA")):
                return self.real.execute(sql, values)
            raise sqlite3.OperationalError(said)

        def close(self):
            self.real.close()

    job = table.add("key", REQUEST, INPUTS)
    table._db = Broken(table._db)
    with pytest.raises(kind) as caught:
        table.move(job.id, "queued")
    assert caught.value.details["errno"] == number
    assert caught.value.details["path"].endswith(tmp_path.name)
    assert table.get(job.id).state == "receiving"


def test_jobs_are_listed_without_looking_at_their_pictures(table, monkeypatch):
    monkeypatch.setattr(jobtable, "inputs_from_plain", None)
    first, second = (table.add(key, REQUEST, INPUTS, show="moth").id for key in ("a", "b"))
    found = table.listed()
    assert [job.id for job in found] == [second, first]
    assert (found[0].request.system, str(found[0].request.frames)) == ("copy", "1001-1002")
    assert (found[0].show, found[0].request.inputs, found[0].inputs) == ("moth", (), ())


def test_the_newest_are_listed_and_whatever_has_not_ended(table):
    alive, *ended = (table.add(key, REQUEST, INPUTS).id for key in "abcd")
    for job in ended:
        table.move(job, "cancelled")
    assert [job.id for job in table.listed(2)] == [ended[2], ended[1], alive]


def test_jobs_are_counted_by_state(table):
    assert table.count_by_state() == {}
    queued(table)
    table.add("other", REQUEST, INPUTS)
    assert table.count_by_state() == {"queued": 1, "receiving": 1}
