# SPDX-License-Identifier: Apache-2.0
"""A server's room: what is cleared away before jobs wait, what is said of it, what never goes."""

import errno
import hashlib
import time

import pytest

from gencomp_protocol import disk
from gencomp_protocol.errors import DiskFull, OutOfMemory
from gencomp_protocol.frames import FrameRange
from gencomp_protocol.messages import InputPictures, PictureEntry
from gencomp_protocol.request import Request
from gencomp_server.config import ServerConfig
from gencomp_server.contract import Plan
from gencomp_server.engine.jobtable import JobTable, LayerRow
from gencomp_server.engine.room import BACK
from gencomp_server.engine.spool import Spool
from gencomp_server.storeroom import Storeroom
from gencomp_server.systems import REGISTRY

REQUEST = Request("copy", FrameRange(1, 1), ())
MB = 1_000_000
DAY_S = 86400.0


class Bench:
    """A spool of 1 MB files, its table with a clock of its own, and the storeroom."""

    def __init__(self, folder, **settings):
        self.now, self.day_s = 0.0, time.time()
        self.spool = Spool(folder / "spool")
        self.table = JobTable(self.spool.database, lambda: self.day_s)
        config = ServerConfig(**{"spool": self.spool.root, "keep_free_bytes": 0, **settings})
        self.config, self.below_s = config, 0.0
        self.start()

    def start(self):
        """Have the server begin, or begin anew."""
        clocks = (lambda: self.now, lambda: self.day_s, lambda: self.below_s)
        self.room = Storeroom(self.config, self.spool, self.table, *clocks)

    def pass_days(self, days, *, beneath=None):
        """Have days pass on the clock, and as many or others beneath; expire what is to go."""
        self.day_s += days * DAY_S
        self.below_s += (days if beneath is None else beneath) * DAY_S
        self.room.expire()
        return {job.id for job in self.table.all()}

    def add(self, name, *states, layer=True):
        """Enter a job with one picture, and bring it through some states."""
        self.day_s += 1.0
        digest = hashlib.blake2b(name.encode(), digest_size=32).hexdigest()
        inputs = (InputPictures("plate", (PictureEntry(1, MB, digest),)),)
        job = self.table.add(name, REQUEST, inputs).id
        self.spool.picture(digest).write_bytes(bytes(MB))
        for state in states:
            assert self.table.move(job, state)
        if layer:
            path = self.spool.layer(job, "copy", 1)
            path.parent.mkdir(parents=True)
            path.write_bytes(bytes(MB))
            self.table.add_layer(job, LayerRow("copy", 1, MB, digest))
        return job, self.spool.picture(digest)

    def look(self):
        """Have a look at the spool begun, ended and heeded; return whether that changed things."""
        self.now += 100.0
        changed = self.room.turn()
        if self.room._keeper._looking is not None:
            self.room._keeper._looking.result(30)
            changed = self.room.turn() or changed
        self.room._keeper._pool.submit(int).result(30)  # What was doomed is deleted by now.
        self.now += 1.0
        changed = self.room.turn() or changed
        self.room._room._pool.submit(int).result(30)  # Whether there is room is found by now.
        return self.room.turn() or changed


@pytest.fixture
def bench(tmp_path):
    made = []

    def make(**settings):
        made.append(Bench(tmp_path, **settings))
        return made[-1]

    yield make
    for one in made:
        one.room.close()
        one.table.close()


def test_over_its_quota_what_ended_jobs_left_goes_and_a_result_that_nobody_fetched_stays(bench):
    one = bench(spool_bytes=int(3.5 * MB))
    failed, picture = one.add("failed", "queued", "running", "failed")
    done, _ = one.add("done", "queued", "running", "done")
    _, needed = one.add("waits", "queued", layer=False)
    assert not one.look()
    assert not picture.exists()
    assert not one.spool.job(failed).exists()
    assert one.table.layers(failed) == []
    assert one.table.warnings(failed) == ["What this job left was cleared away to make room."]
    assert one.spool.layer(done, "copy", 1).exists()
    assert len(one.table.layers(done)) == 1
    assert needed.exists()
    assert not one.room.is_short


def test_no_request_is_read_to_find_what_goes(bench, monkeypatch):
    one = bench(spool_bytes=int(3.5 * MB))
    failed, _ = one.add("failed", "queued", "running", "failed")
    one.add("done", "queued", "running", "done")
    one.table._orders.clear()
    monkeypatch.setattr(one.table, "_order", lambda job: pytest.fail("a request was read"))
    one.look()
    assert not one.spool.job(failed).exists()


def test_where_nothing_may_go_jobs_wait_with_the_figure_until_a_result_is_fetched(bench):
    one = bench(spool_bytes=2 * MB)
    first, picture = one.add("first", "queued", "running", "done")
    one.add("second", "queued", layer=False)
    one.add("third", layer=False)
    assert one.look()
    assert one.room.is_short
    assert "over its quota, so the job waits" in one.room.sentence
    assert not picture.exists()
    assert one.spool.layer(first, "copy", 1).exists()
    one.table.release(first)
    one.spool.remove_job(first)
    assert one.look()
    assert (one.room.is_short, one.room.sentence) == (False, BACK)


@pytest.mark.fault("F35")
def test_a_full_disk_is_cleared_before_it_is_asked_again(bench):
    one = bench()
    _, picture = one.add("failed", "queued", "running", "failed")
    assert one.room.lack(DiskFull("Full.", errno="ENOSPC"))
    assert not one.room.lack(DiskFull("Full.", errno="ENOSPC"))

    def full(doing, path):
        if picture.exists():
            raise OSError(errno.ENOSPC, "No space left on device")

    with disk.faults(full):
        one.look()
        one.look()
    assert not picture.exists()
    assert not one.room.is_short


def test_after_its_days_a_job_is_forgotten_with_all_it_delivered(bench):
    one = bench(keep_days=2.0)
    one.day_s -= 3 * DAY_S
    old, picture = one.add("old", "queued", "running", "done")
    waits, needed = one.add("waits", "queued", layer=False)
    one.day_s += 3 * DAY_S
    one.below_s += 3 * DAY_S
    new, _ = one.add("new", "queued", "running", "done")
    one.now = 3600.0
    one.room.turn()
    assert {job.id for job in one.table.all()} == {waits, new}
    assert not one.spool.job(old).exists()
    assert not picture.exists()
    assert needed.exists()


@pytest.mark.fault("F42")
def test_a_clock_that_jumps_ahead_forgets_no_result_until_it_has_been_so_for_the_days(
    bench, caplog
):
    one = bench(keep_days=7.0)
    done, _ = one.add("done", "queued", "running", "done")
    assert one.pass_days(400, beneath=0.1) == {done}
    assert "the clock jumped ahead by 399.9 days" in caplog.text
    assert one.spool.layer(done, "copy", 1).exists()
    assert one.pass_days(6.9) == {done}
    assert one.pass_days(0.2) == set()


@pytest.mark.fault("F42")
def test_a_clock_that_is_set_right_again_counts_at_once(bench, caplog):
    one = bench(keep_days=7.0)
    done, _ = one.add("done", "queued", "running", "done")
    assert one.pass_days(400, beneath=0.1) == {done}
    assert one.pass_days(-399, beneath=0.9) == {done}
    assert "the clock was set back" in caplog.text
    assert one.pass_days(6.5) == set()


@pytest.mark.fault("F42")
def test_at_a_start_after_a_jump_or_a_pause_nothing_is_forgotten_for_a_day(bench, caplog):
    one = bench(keep_days=2.0)
    done, _ = one.add("done", "queued", "running", "done")
    one.pass_days(400, beneath=0.0)
    new, _ = one.add("new", "queued")  # It came after the jump, and must not hide it.
    one.room.close()
    one.start()
    assert one.pass_days(0.5) == {done, new}
    assert "nothing was noted for 400.0 days" in caplog.text
    assert one.pass_days(0.6) == {new}


@pytest.mark.fault("F42")
def test_a_machine_that_slept_has_jumped_nowhere(bench):
    one = bench(keep_days=7.0)
    one.add("done", "queued", "running", "done")
    assert one.pass_days(8) == set()


@pytest.mark.fault("F38")
def test_what_could_never_fit_is_refused_by_the_settings_of_the_server(bench):
    one = bench(memory_bytes=10 * MB, spool_bytes=100 * MB)
    system = REGISTRY[0]
    with pytest.raises(OutOfMemory):
        one.room.admit(system, REQUEST, Plan(memory_bytes=11 * MB), ())
    with pytest.raises(DiskFull):
        one.room.admit(system, REQUEST, Plan(bytes_in=60 * MB, bytes_out=60 * MB), ())
    one.room.admit(system, REQUEST, Plan(memory_bytes=9 * MB, bytes_in=60 * MB), ())
    assert one.room.refusal(system, REQUEST, Plan(memory_bytes=11 * MB)).code == "out-of-memory"
    assert one.room.refusal(system, REQUEST, Plan()) is None
