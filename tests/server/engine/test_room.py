# SPDX-License-Identifier: Apache-2.0
"""Room to work: what lacks it waits, and goes on once a file could be written again."""

import errno
import threading
import time
from concurrent.futures import Executor, Future

import pytest

from gencomp_protocol import disk
from gencomp_protocol.errors import DiskFull, OutOfMemory, UnwritableOutput
from gencomp_server.engine.room import Room, waits

GB = 10**9


class Disk:
    """A disk whose free bytes a test says, and which refuses to write while ``number`` is set."""

    def __init__(self):
        self.free, self.number = 100 * GB, 0

    def __call__(self, folder):
        return self.free

    def fault(self, doing, path):
        if doing == "write" and self.number:
            raise OSError(self.number, "no")


class AtOnce(Executor):
    """Does at once what a thread would do some time."""

    def submit(self, fn, /, *arguments):
        done = Future()
        done.set_result(fn(*arguments))
        return done


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def made():
    found = Disk()
    with disk.faults(found.fault):
        yield found


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def room(tmp_path, made, clock):
    return Room(tmp_path, GB, clock=clock, free=made, pool=AtOnce())


def full(number=errno.ENOSPC):
    return DiskFull("The disk is full.", errno=errno.errorcode[number])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE])
def test_a_write_without_room_has_jobs_wait_until_one_succeeds(room, made, clock, number):
    assert (room.look(), room.is_short) == (False, False)
    made.number = number
    room.lack(full(number))
    assert room.is_short
    clock.now = 2.0
    assert (room.look(), room.is_short) == (False, True)
    made.number = 0
    clock.now = 4.0
    assert (room.look(), room.is_short, room.sentence) == (True, False, "")


@pytest.mark.fault("F35")
def test_a_disk_that_hangs_holds_up_nobody_who_looks(tmp_path, clock):
    let_go = threading.Event()

    def hang(doing, path):
        assert let_go.wait(30)

    room = Room(tmp_path, clock=clock)
    room.lack(full())
    with disk.faults(hang):
        began = time.monotonic()
        for clock.now in (2.0, 4.0, 6.0):
            assert (room.look(), room.is_short) == (False, True)
        assert time.monotonic() - began < 5.0
        let_go.set()
        while not room.look():
            time.sleep(0.01)
    assert not room.is_short
    room.close()


def test_a_trial_from_before_another_failure_proves_nothing(tmp_path, made, clock):
    let_go = threading.Event()
    room = Room(tmp_path, clock=clock)
    room.lack(full())
    with disk.faults(lambda doing, path: let_go.wait(30) and None):
        clock.now = 2.0
        assert not room.look()
        room.lack(full())
        let_go.set()
        room._pool.submit(int).result(30)
        assert (room.look(), room.is_short) == (False, True)
    room.close()


def test_the_file_that_was_tried_is_gone(room, made, clock, tmp_path):
    room.lack(full())
    clock.now = 2.0
    assert room.look()
    assert list(tmp_path.iterdir()) == []


def test_pauses_grow_while_jobs_fail_again_and_are_short_once_one_went_through(room, clock):
    def pause():
        room.lack(full())
        began = clock.now
        while not room.look():
            clock.now += 0.5
        return clock.now - began

    assert [pause() for _ in range(7)] == [0.5, 1, 2, 4, 8, 16, 30]
    room.prove()
    assert pause() == 0.5


def test_less_free_than_must_stay_free_has_jobs_wait_and_says_both(room, made, clock):
    made.free = GB // 2
    assert room.look()
    assert "0.5 GB left of the 1.0 GB" in room.sentence
    assert room.missing_bytes == GB // 2
    made.free = 2 * GB
    clock.now = 1.0
    assert room.look()
    assert room.missing_bytes == 0


def test_a_spool_over_its_quota_has_jobs_wait(room, clock):
    room.fill(3 * GB)
    assert room.look()
    assert "3.0 GB over its quota" in room.sentence
    room.fill(0)
    clock.now = 1.0
    assert room.look()
    assert not room.is_short


def test_without_file_descriptors_that_is_what_is_said(room):
    room.lack(UnwritableOutput("x", errno="EMFILE"))
    assert "file descriptor" in room.sentence


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (full(), True),
        (UnwritableOutput("x", errno="EMFILE"), True),
        (UnwritableOutput("x", errno="EROFS"), False),
        (DiskFull("A job that needs more than the disk could ever have."), False),
        (OutOfMemory("x"), False),
    ],
)
def test_what_waits_for_room_and_what_fails(error, expected):
    assert waits(error) is expected


def test_what_fails_together_is_one_failure(room, clock):
    for _ in range(5):
        room.lack(full())
    clock.now = 1.0
    assert room.look()
