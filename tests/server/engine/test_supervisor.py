# SPDX-License-Identifier: Apache-2.0
"""Keeping a worker alive, on a worker that is only a pipe."""

import errno
import multiprocessing
import os
import struct
import threading
from dataclasses import replace

import pytest

from gencomp_protocol.codec import request_to_plain
from gencomp_protocol.frames import FrameRange
from gencomp_protocol.request import Request
from gencomp_server.engine.job import Job
from gencomp_server.engine.pipe import WorkerPipe
from gencomp_server.engine.supervisor import Supervisor, Wear, spell_exit

JOB = Job("j1", "k", "queued", Request("copy", FrameRange(1, 1), ()), (), 0.0)


class PipeWorker:
    """A worker whose other end the test holds."""

    def __init__(self):
        self.starts, self.code, self.ended = 0, None, []
        self.connection = self.theirs = None

    def start(self):
        self.starts += 1
        ours, self.theirs = multiprocessing.Pipe()
        self.connection = WorkerPipe(ours)

    def send(self, message):
        self.connection.send(message)

    def exit_code(self):
        return self.code

    def kill(self):
        self.ended.append("kill")
        self._close()

    def stop(self, timeout_s=5.0):
        self.ended.append("stop")
        self._close()

    def die(self, code):
        """End as a process that crashed."""
        self.code = code
        self.theirs.close()

    def _close(self):
        self.connection.close()
        self.theirs.close()


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def worker():
    made = PipeWorker()
    yield made
    made._close()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def supervisor(worker, clock):
    made = Supervisor(worker, request_to_plain, clock=clock)
    made.start()
    return made


@pytest.fixture
def ready(supervisor, worker):
    worker.theirs.send({"is": "ready"})
    supervisor.read()
    return supervisor


def test_a_worker_is_ready_when_it_says_so(supervisor, worker):
    assert supervisor.state == "starting"
    worker.theirs.send({"is": "ready"})
    assert supervisor.read() == [{"is": "ready"}]
    assert supervisor.state == "ready"


def test_what_the_worker_says_of_its_machine_is_kept(supervisor, worker):
    assert supervisor.machine is None
    worker.theirs.send({"is": "ready", "machine": {"device": "cpu"}})
    supervisor.read()
    assert supervisor.machine == {"device": "cpu"}


def test_a_job_is_handed_over_and_the_worker_free_after_it(ready, worker):
    ready.run(JOB)
    assert (ready.state, ready.job) == ("busy", "j1")
    sent = worker.theirs.recv()
    assert (sent["do"], sent["job"], sent["request"]["system"]) == ("run", "j1", "copy")
    worker.theirs.send({"is": "done", "job": "j1", "manifest": {}})
    ready.read()
    assert (ready.state, ready.job) == ("ready", None)


def test_a_worker_that_dies_is_told_of_with_its_job_and_another_is_started(ready, worker):
    ready.run(JOB)
    worker.theirs.send({"is": "progress", "job": "j1", "stage": "s", "step": 1, "total": 2})
    worker.die(-9)
    said = ready.read()
    assert [message["is"] for message in said] == ["progress", "lost"]
    assert said[1]["error"]["code"] == "worker-lost"
    assert "ended by SIGKILL" in said[1]["error"]["message"]
    assert (worker.starts, ready.state, ready.job) == (2, "starting", None)


def test_a_worker_that_dies_without_a_job_harms_nobody(ready, worker):
    worker.die(1)
    assert ready.read() == []
    assert worker.starts == 2


def test_a_worker_that_never_comes_up_is_given_up_after_three_times(supervisor, worker):
    for _ in range(3):
        assert supervisor.state == "starting"
        worker.die(1)
        supervisor.read()
    assert (supervisor.state, worker.starts) == ("lost", 3)
    assert supervisor.connection is None


def test_cancel_reaches_the_worker_once(ready, worker):
    ready.run(JOB)
    worker.theirs.recv()
    ready.cancel("j1")
    ready.cancel("j1")
    ready.cancel("another")
    assert worker.theirs.recv() == {"do": "cancel", "job": "j1"}
    assert not worker.theirs.poll()


@pytest.mark.fault("F27")
def test_a_worker_that_does_not_listen_is_killed_when_its_grace_is_over(ready, worker, clock):
    ready.run(JOB)
    ready.cancel("j1")
    clock.now = 4.4
    assert ready.overdue() == []
    clock.now = 4.5
    assert ready.overdue() == [{"is": "cancelled", "job": "j1"}]
    assert (worker.ended, worker.starts, ready.job) == (["kill"], 2, None)
    assert ready.overdue() == []


def test_a_worker_that_dies_of_a_cancel_leaves_the_job_cancelled(ready, worker):
    ready.run(JOB)
    ready.cancel("j1")
    worker.die(-15)
    assert ready.read() == [{"is": "cancelled", "job": "j1"}]


@pytest.mark.parametrize(("busy", "how"), [(False, "stop"), (True, "kill")])
def test_at_the_end_an_idle_worker_is_stopped_and_a_busy_one_cut_off(ready, worker, busy, how):
    if busy:
        ready.run(JOB)
    ready.stop(1.0)
    assert worker.ended == [how]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (-9, "by SIGKILL"),
        (-11, "by SIGSEGV"),
        (3, "with exit code 3"),
        (None, "without saying how"),
    ],
)
def test_how_a_process_ended_is_spelt(code, words):
    assert spell_exit(code) == words


@pytest.fixture
def resting(worker, clock):
    """A supervisor whose worker may idle for 300 s, ready since 0 s."""
    made = Supervisor(worker, request_to_plain, clock=clock, release_after_s=300.0)
    made.start()
    worker.theirs.send({"is": "ready", "machine": {"device": "cuda:0"}})
    made.read()
    return made


def test_a_worker_without_a_job_for_so_long_leaves_and_is_not_started_again(resting, worker, clock):
    clock.now = 299.9
    resting.rest_if_idle()
    assert (resting.state, worker.theirs.poll()) == ("ready", False)
    clock.now = 300.0
    resting.rest_if_idle()
    assert worker.theirs.recv() == {"do": "stop"}
    worker.die(0)
    assert resting.read() == []
    assert (resting.state, worker.starts, resting.connection) == ("resting", 1, None)
    assert resting.machine == {"device": "cuda:0"}


def test_the_time_counts_from_the_end_of_the_last_job(resting, worker, clock):
    clock.now = 200.0
    resting.run(JOB)
    clock.now = 1000.0
    resting.rest_if_idle()
    assert resting.state == "busy"
    worker.theirs.send({"is": "done", "job": "j1", "manifest": {}})
    resting.read()
    clock.now = 1299.0
    resting.rest_if_idle()
    assert resting.state == "ready"
    clock.now = 1300.0
    resting.rest_if_idle()
    assert resting.state == "resting"


def test_a_worker_that_rests_is_started_by_the_next_job_and_only_once_it_is_gone(
    resting, worker, clock
):
    clock.now = 300.0
    resting.rest_if_idle()
    resting.wake()
    assert worker.starts == 1
    worker.die(0)
    resting.read()
    resting.wake()
    assert (resting.state, worker.starts) == ("starting", 2)


def test_a_worker_that_will_not_leave_is_killed(resting, worker, clock):
    clock.now = 300.0
    resting.rest_if_idle()
    clock.now = 304.9
    resting.rest_if_idle()
    assert worker.ended == []
    clock.now = 305.0
    resting.rest_if_idle()
    assert (worker.ended, resting.state, resting.connection) == (["kill"], "resting", None)


def test_without_a_time_a_worker_keeps_what_it_has(ready, worker, clock):
    clock.now = 1e9
    ready.rest_if_idle()
    assert (ready.state, worker.theirs.poll()) == ("ready", False)


def test_a_device_that_cannot_be_had_is_kept_as_a_fault_until_a_worker_is_ready(supervisor, worker):
    words = {"code": "bad-knob", "message": "No such device.", "hint": "", "details": {}}
    worker.theirs.send({"is": "unfit", "error": words})
    worker.die(0)
    supervisor.read()
    assert (supervisor.state, worker.starts) == ("lost", 1)
    assert supervisor.fault.message == "No such device."
    supervisor.wake()
    assert (supervisor.state, worker.starts) == ("starting", 2)
    worker.theirs.send({"is": "ready"})
    supervisor.read()
    assert (supervisor.state, supervisor.fault) == ("ready", None)


# --- progress ------------------------------------------------------------------------------------


@pytest.fixture
def watched(worker, clock):
    """A supervisor whose worker has to get on every 10 s, with a job since 0 s."""
    made = Supervisor(
        worker,
        request_to_plain,
        clock=clock,
        no_progress_s=10.0,
        tail=lambda job: f"the last of {job}",
    )
    made.start()
    worker.theirs.send({"is": "ready"})
    made.read()
    made.run(JOB)
    return made


@pytest.mark.fault("F29")
def test_a_worker_that_says_nothing_for_so_long_is_killed_and_its_job_is_lost(
    watched, worker, clock
):
    clock.now = 9.9
    assert watched.overdue() == []
    clock.now = 10.0
    (said,) = watched.overdue()
    assert (said["is"], said["job"]) == ("lost", "j1")
    assert "made no progress for 10 s" in said["error"]["message"]
    assert said["error"]["details"]["log"] == "the last of j1"
    assert (worker.ended, worker.starts, watched.job) == (["kill"], 2, None)


@pytest.mark.fault("F29")
@pytest.mark.parametrize(
    ("message", "is_progress"),
    [
        ({"is": "progress", "job": "j1", "stage": "s", "step": 2, "total": 9}, True),
        ({"is": "progress", "job": "j1", "stage": "s", "step": 1, "total": 9}, False),
        ({"is": "progress", "job": "j1", "stage": "t", "step": 1, "total": 9}, True),
        ({"is": "alive", "job": "j1"}, True),
        ({"is": "warning", "job": "j1", "sentence": "Slow."}, True),
    ],
)
def test_what_counts_as_progress(watched, worker, clock, message, is_progress):
    worker.theirs.send({"is": "progress", "job": "j1", "stage": "s", "step": 1, "total": 9})
    watched.read()
    clock.now = 9.0
    worker.theirs.send(message)
    watched.read()
    assert watched.overdue() == []
    clock.now = 18.0
    assert (watched.overdue() == []) is is_progress


def promptly(call, *arguments):
    """Return what a call returns; fail where it waits for somebody."""
    returned = []
    thread = threading.Thread(target=lambda: returned.append(call(*arguments)), daemon=True)
    thread.start()
    thread.join(5.0)
    assert returned, "the front waits for its worker"
    return returned[0]


LARGE = replace(JOB, request=replace(JOB.request, knobs={"prompt": "x" * (4 << 20)}))


@pytest.mark.fault("F29")
def test_a_worker_that_takes_nothing_holds_up_nobody_and_is_killed_at_the_limit(
    watched, worker, clock
):
    worker.theirs.send({"is": "done", "job": "j1", "manifest": {}})
    watched.read()
    promptly(watched.run, LARGE)
    assert watched.connection.has_unsent
    assert promptly(watched.read) == []
    clock.now = 10.0
    (said,) = watched.overdue()
    assert (said["is"], said["job"]) == ("lost", "j1")
    assert (worker.ended, worker.starts) == (["kill"], 2)
    assert not watched.connection.has_unsent


@pytest.mark.fault("F29")
def test_a_worker_that_stops_in_the_midst_of_a_message_is_killed_at_the_limit(
    watched, worker, clock
):
    os.write(worker.theirs.fileno(), struct.pack("!i", 1000) + b"half")
    assert promptly(watched.read) == []
    clock.now = 10.0
    (said,) = watched.overdue()
    assert (said["is"], said["job"]) == ("lost", "j1")


@pytest.mark.fault("F29")
def test_what_a_worker_did_not_take_at_once_reaches_it_whole(watched, worker):
    worker.theirs.send({"is": "done", "job": "j1", "manifest": {}})
    watched.read()
    worker.theirs.recv()
    watched.run(LARGE)
    watched.cancel("j1")
    heard = []

    def hear():
        heard.extend((worker.theirs.recv(), worker.theirs.recv()))

    thread = threading.Thread(target=hear, daemon=True)
    thread.start()
    while thread.is_alive():
        assert watched.read() == []
        thread.join(0.001)
    assert heard[0]["request"]["knobs"] == LARGE.request.knobs
    assert heard[1] == {"do": "cancel", "job": "j1"}


@pytest.mark.fault("F29")
def test_what_a_worker_says_bit_by_bit_is_heard_once_it_is_whole(watched, worker):
    manifest = {"notes": "x" * (4 << 20)}
    said = {"is": "done", "job": "j1", "manifest": manifest}
    thread = threading.Thread(target=worker.theirs.send, args=(said,), daemon=True)
    thread.start()
    heard = []
    while thread.is_alive() or not heard:
        heard.extend(watched.read())
        thread.join(0.001)
    assert heard == [said]
    assert watched.state == "ready"


def test_a_worker_without_a_job_need_not_get_on(watched, worker, clock):
    worker.theirs.send({"is": "done", "job": "j1", "manifest": {}})
    watched.read()
    clock.now = 1000.0
    assert watched.overdue() == []
    assert watched.state == "ready"


def test_a_worker_that_never_comes_up_is_killed_too(worker, clock):
    made = Supervisor(worker, request_to_plain, clock=clock, no_progress_s=10.0)
    made.start()
    for turn in range(1, 4):
        for second in range(0, 120, 5):
            clock.now = 120.0 * (turn - 1) + second
            assert made.overdue() == []
        assert (made.state, worker.starts) == ("starting", turn)
        clock.now = 120.0 * turn
        assert made.overdue() == []
    assert (made.state, worker.starts, worker.ended) == ("lost", 3, ["kill"] * 3)


# --- wear ----------------------------------------------------------------------------------------


def end_job(supervisor, worker, **holds):
    supervisor.run(JOB)
    about = {"model": "", "memory_bytes": 0, "device_bytes": 0, **holds}
    worker.theirs.send({"is": "done", "job": "j1", "manifest": {}, "holds": about})
    supervisor.read()


@pytest.fixture
def wearing(worker, clock):
    made = Supervisor(
        worker, request_to_plain, clock=clock, wear=Wear(jobs=5, growth_bytes=100 << 20)
    )
    made.start()
    worker.theirs.send({"is": "ready"})
    made.read()
    return made


@pytest.mark.fault("F34")
def test_after_so_many_jobs_a_worker_leaves_and_another_comes_at_once(wearing, worker):
    for _ in range(5):
        assert wearing.state == "ready"
        end_job(wearing, worker)
    assert wearing.state == "resting"
    worker.die(0)
    assert wearing.read() == []
    assert (wearing.state, worker.starts) == ("starting", 2)
    worker.theirs.send({"is": "ready"})
    wearing.read()
    end_job(wearing, worker)
    assert wearing.state == "ready"  # counted anew


@pytest.mark.fault("F34")
@pytest.mark.parametrize("kind", ["memory_bytes", "device_bytes"])
def test_a_worker_is_replaced_once_it_has_grown_and_a_model_is_no_growth(wearing, worker, kind):
    end_job(wearing, worker)
    end_job(wearing, worker, model="a", **{kind: 10 << 30})  # a model was loaded
    end_job(wearing, worker, model="a", **{kind: (10 << 30) + (99 << 20)})
    assert wearing.state == "ready"
    end_job(wearing, worker, model="a", **{kind: (10 << 30) + (100 << 20)})
    assert wearing.state == "resting"
    worker.die(0)
    wearing.read()
    assert (wearing.state, worker.starts) == ("starting", 2)


def test_one_that_will_not_be_replaced_is_killed(wearing, worker, clock):
    for _ in range(5):
        end_job(wearing, worker)
    clock.now = 5.0
    wearing.rest_if_idle()
    assert (worker.ended, wearing.state, worker.starts) == (["kill"], "starting", 2)


@pytest.mark.fault("F33")
@pytest.mark.parametrize(
    ("details", "starts"), [({"stage": "sample"}, 2), ({"needed_bytes": 1, "stage": "text"}, 1)]
)
def test_after_a_job_ran_out_of_memory_another_worker_takes_its_place(
    ready, worker, details, starts
):
    ready.run(JOB)
    error = {"code": "out-of-memory", "message": "x", "hint": "", "details": details}
    worker.theirs.send({"is": "failed", "job": "j1", "error": error})
    ready.read()
    if starts == 2:
        assert ready.state == "resting"
        worker.die(0)
        ready.read()
    assert worker.starts == starts


@pytest.mark.fault("F42")
def test_a_front_that_was_stopped_itself_kills_nobody_for_silence(watched, worker, clock):
    clock.now = 5.0
    assert watched.overdue() == []
    clock.now = 5000.0  # Suspended, or a debugger; the worker was too.
    assert watched.overdue() == []
    clock.now = 5004.9
    assert watched.overdue() == []
    clock.now = 5005.0
    assert [message["is"] for message in watched.overdue()] == ["lost"]


def test_a_device_that_could_not_be_had_is_looked_at_again_after_a_minute(
    supervisor, worker, clock
):
    words = {"code": "bad-knob", "message": "No such device.", "hint": "", "details": {}}
    worker.theirs.send({"is": "unfit", "error": words})
    worker.die(0)
    supervisor.read()
    clock.now = 59.0
    assert not supervisor.may_look_again
    clock.now = 60.0
    assert supervisor.may_look_again


@pytest.mark.fault("F37")
@pytest.mark.parametrize("number", [errno.EMFILE, errno.EAGAIN])
def test_a_worker_that_no_process_is_left_for_is_started_a_little_later_and_its_job_is_not_lost(
    ready, worker, clock, monkeypatch, number
):
    def none_left():
        raise OSError(number, "no")

    ready.run(JOB)
    with monkeypatch.context() as patch:
        patch.setattr(worker, "start", none_left)
        worker.die(-9)
        (said,) = ready.read()
        assert (said["is"], said["job"]) == ("lost", "j1")
        assert (ready.state, ready.connection) == ("resting", None)
        ready.wake()
        clock.now += 1.0
        ready.wake()
        assert ready.state == "resting"
    ready.wake()
    assert ready.state == "resting"  # Not at every turn.
    clock.now += 1.0
    ready.wake()
    assert ready.state == "starting"
