# SPDX-License-Identifier: Apache-2.0
"""The lock of a cache: one holder, numbers that are never used twice, an end to the silent."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gencomp_nuke import lock
from gencomp_protocol.errors import UnwritableOutput

ROOT = Path(__file__).resolve().parent.parent.parent
HOLD = """
import sys, time
from pathlib import Path
from gencomp_nuke import lock
lock.take(Path(sys.argv[1]), on_wait=lambda owner: None, silence_s=0.6)
print("held", flush=True)
time.sleep(600)
"""


class Gone(Exception):
    """Raised by a test to stop waiting."""


def nobody_waits(owner):
    raise AssertionError(f"it waits for {owner}")


def no_longer(owner):
    raise Gone(str(owner))


def files(cache):
    return sorted(entry.name for entry in (cache / "lock").iterdir())


def leave(cache, number, host="elsewhere", pid=77):
    """Leave a lock as a holder on another machine would that was killed."""
    folder = cache / "lock"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{number:04d}").write_text(
        json.dumps({"host": host, "pid": pid, "user": "ann"}), encoding="utf-8"
    )


def clock(step):
    """Return a clock that goes on by a step each time it is asked."""
    at = [0.0]

    def now():
        at[0] += step
        return at[0]

    return now


def test_a_free_lock_is_taken_at_once_and_given_back(tmp_path):
    with lock.take(tmp_path, nobody_waits):
        assert files(tmp_path) == ["0001"]
    with lock.take(tmp_path, nobody_waits):
        assert files(tmp_path) == ["0002"]
    assert files(tmp_path) == ["0002", "0002.done"]


def test_a_holder_leaves_a_word_for_the_next_and_a_killed_one_does_not(tmp_path):
    with lock.take(tmp_path, nobody_waits) as held:
        assert held.found == ""
        held.leaves = "v007"
    with lock.take(tmp_path, nobody_waits) as held:
        assert held.found == "v007"
    leave(tmp_path, 3)
    taken = lock.take(tmp_path, lambda owner: None, lambda seconds: None, 60.0, clock(step=25.0))
    taken.release()
    assert taken.found == ""


def test_who_waits_is_told_for_whom(tmp_path):
    with lock.take(tmp_path, nobody_waits), pytest.raises(Gone, match=f"process {os.getpid()} of"):
        lock.take(tmp_path, no_longer)


def test_the_holder_is_named_while_it_holds_and_no_longer(tmp_path):
    assert lock.holder(tmp_path) is None
    with lock.take(tmp_path, nobody_waits):
        assert lock.holder(tmp_path).pid == os.getpid()
    assert lock.holder(tmp_path) is None


def test_a_holder_that_was_silent_for_too_long_is_followed(tmp_path):
    leave(tmp_path, 3)
    waited = []
    taken = lock.take(tmp_path, waited.append, waited.append, 60.0, clock(step=25.0))
    taken.release()
    owner = lock.Owner("elsewhere", 77, "ann")
    # Seen at 25 s; 25 and 50 s of silence are borne, 75 s are not. Beats are 10 s apart.
    assert waited == [owner, 1.0, owner, 1.0, owner, 1.0]
    assert files(tmp_path) == ["0004", "0004.done"]


def test_a_holder_that_beats_is_waited_for_however_long(tmp_path):
    leave(tmp_path, 3)
    beats = []

    def beat(seconds):
        beats.append(seconds)
        os.utime(tmp_path / "lock" / "0003", ns=(0, len(beats) * 1_000_000_000))
        if len(beats) == 50:
            raise Gone

    with pytest.raises(Gone):
        lock.take(tmp_path, lambda owner: None, beat, 60.0, clock(step=50.0))


def test_a_process_of_this_machine_that_is_gone_is_followed_after_three_beats(tmp_path):
    import socket

    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], **quiet())
    leave(tmp_path, 3, socket.gethostname(), int(ended.stdout))
    pauses = []
    lock.take(tmp_path, lambda owner: None, pauses.append, 60.0, clock(step=16.0)).release()
    assert len(pauses) == 2  # 32 s of silence are more than three beats of 10 s.


def quiet():
    return {"capture_output": True, "text": True, "check": True}


def test_a_number_that_was_cleared_away_meanwhile_is_not_taken(tmp_path):
    leave(tmp_path, 9)
    assert lock._next(tmp_path / "lock", 8, 1.0) is None
    assert files(tmp_path) == ["0009"]


def test_of_two_that_follow_the_same_holder_one_wins(tmp_path):
    leave(tmp_path, 3)
    first = lock._next(tmp_path / "lock", 4, 1.0)
    assert lock._next(tmp_path / "lock", 4, 1.0) is None
    first.release()


def test_of_many_at_once_one_holds_it_at_a_time(tmp_path):
    inside, most, taken = [], [], []

    def work():
        with lock.take(tmp_path, lambda owner: None, lambda seconds: time.sleep(0.01)):
            inside.append(1)
            most.append(len(inside))
            taken.append(files(tmp_path)[-1])
            inside.pop()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 6
    assert sorted(taken) == [f"{number:04d}" for number in range(1, 7)]


def test_a_killed_process_is_followed(tmp_path):
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}/protocol{os.pathsep}{ROOT}/nuke_plugin"}
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(Gone):
            lock.take(tmp_path, no_longer, silence_s=0.6)
        other.kill()
        other.wait()
        lock.take(tmp_path, lambda owner: None, silence_s=0.6).release()
    assert files(tmp_path) == ["0002", "0002.done"]


def test_a_file_that_cannot_be_read_yet_is_held_by_somebody(tmp_path):
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock" / "0001").touch()
    with pytest.raises(Gone, match="process 0 of somebody on a machine"):
        lock.take(tmp_path, no_longer)


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "cache").write_text("a file", encoding="utf-8")
    with pytest.raises(UnwritableOutput, match=r"The cache folder .*cache cannot be locked"):
        lock.take(tmp_path / "cache", nobody_waits)
