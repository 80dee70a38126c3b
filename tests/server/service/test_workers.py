# SPDX-License-Identifier: Apache-2.0
"""Several workers, and those that crash, hang, grow or poison: what becomes of their jobs."""

import threading
import time

import numpy as np
import psutil
import pytest

from gencomp_protocol import messages as m
from gencomp_protocol.client import Progressed, StateChanged, Warned, request_key
from gencomp_protocol.codec import encode
from gencomp_protocol.errors import QuotaExceeded
from gencomp_protocol.sockets import client_socket, new_context
from gencomp_protocol.version import PROTOCOL_VERSION

REGISTRY = "stub_engine:REGISTRY"
CANCELS = 20  # Of running jobs, in each stage.


@pytest.fixture
def serve(process):
    """Start a server of the stub in a process of its own."""

    def start(**settings):
        return process(registry=REGISTRY, log_level="info", **settings).start()

    return start


def submit(client, shot, **knobs):
    """Submit a job of the stub; return its id and its pictures."""
    whose = {name: knobs.pop(name) for name in ("show", "shot", "priority") if name in knobs}
    request, pictures = shot.request("engine", **knobs), shot.pictures()
    return client.submit(request, pictures, request_key(request, pictures), **whose), pictures


def run(client, shot, folder=None, **knobs):
    """Run a job of the stub; return how it ended and its events."""
    job, pictures = submit(client, shot, **knobs)
    events = []
    outcome = client.follow(job, pictures=pictures, folder=folder, on_event=events.append)
    return outcome, events


def said_by(events):
    return [event.sentence for event in events if isinstance(event, Warned)]


def states_of(events):
    return [event.state for event in events if isinstance(event, StateChanged)]


# --- crashes -------------------------------------------------------------------------------------


@pytest.mark.fault("F28")
@pytest.mark.parametrize(
    ("die", "how"),
    [
        ("segv", "ended by SIGSEGV"),
        pytest.param("abort", "ended by SIGABRT", marks=pytest.mark.slow),
        pytest.param("exit", "ended with exit code 3", marks=pytest.mark.slow),
        pytest.param("kill", "ended by SIGKILL", marks=pytest.mark.slow),
    ],
)
def test_a_worker_that_crashes_is_started_again_and_its_job_runs_once_more(
    serve, shot, tmp_path, die, how
):
    server = serve()
    front = psutil.Process(server.process.pid).create_time()
    with server.client() as client:
        outcome, events = run(
            client, shot, tmp_path / "out", steps=3, die=die, die_at=2, die_once=True
        )
        assert (outcome.state, outcome.manifest["report"]["tries"]) == ("done", 2)
        assert states_of(events)[-4:] == ["running", "queued", "running", "done"]
        assert said_by(events) == [
            f"The process that computed the job {how}. The job goes on from its last finished step "
            "(attempt 2 of 2)."
        ]
        failed, events = run(client, shot, tag=1, steps=3, die=die, die_at=2)
        assert (failed.state, failed.error.code) == ("failed", "quarantined")
        assert how in failed.error.message
        assert failed.error.details["tries"] == 2
        tail = failed.error.details["log"]
        assert "the stub begins" in tail
        assert ("stub_engine.py" in tail) is (die in ("segv", "abort"))  # where it was
        assert len(said_by(events)) == 1
    assert psutil.Process(server.process.pid).create_time() == front


@pytest.mark.slow
@pytest.mark.fault("F28")
def test_a_worker_that_crashed_is_there_again_within_3_s_and_the_others_notice_nothing(
    serve, shot, make_shot, measured
):
    server = serve(device="cpu,cpu")
    other = make_shot("other")
    ended = {}

    def stay():
        with server.client() as mine:
            ended["other"] = run(mine, other, steps=40, step_s=0.1)

    with server.client() as client:
        thread = threading.Thread(target=stay)
        thread.start()
        moments = []

        def note(event):
            if isinstance(event, StateChanged):
                moments.append((event.state, time.monotonic()))

        job, pictures = submit(client, shot, steps=2, die="segv", die_at=1, die_once=True)
        assert client.follow(job, pictures=pictures, on_event=note).state == "done"
        lost = next(at for state, at in reversed(moments) if state == "queued")
        again = next(at for state, at in reversed(moments) if state == "running")
        measured("restart of a worker", again - lost, "s", most=3.0)
        thread.join(60)
    outcome, events = ended["other"]
    assert (outcome.state, outcome.manifest["report"]["tries"], said_by(events)) == ("done", 1, [])


@pytest.mark.slow
@pytest.mark.fault("F30")
@pytest.mark.parametrize("tries", [1, 3])
def test_a_job_that_always_crashes_is_put_away_after_n_tries_and_the_queue_goes_on(
    serve, shot, make_shot, tries
):
    server = serve(tries=tries)
    poison, other = shot, make_shot("other")
    with server.client() as client, server.client() as second:
        first, pictures = submit(client, poison, die="segv", steps=2, step_s=0.1)
        behind, behind_pictures = submit(second, other)
        events = []
        outcome = client.follow(first, pictures=pictures, on_event=events.append)
        assert (outcome.state, outcome.error.code) == ("failed", "quarantined")
        assert outcome.error.details["tries"] == tries
        assert states_of(events).count("running") == tries
        assert client.job(first)["tries"] == tries
        assert second.follow(behind, pictures=behind_pictures).state == "done"


# --- hangs ---------------------------------------------------------------------------------------


@pytest.mark.fault("F29")
@pytest.mark.slow
@pytest.mark.parametrize("hang", ["sleep", "loop", "same step"])
def test_a_worker_that_hangs_is_killed_at_the_limit_and_its_job_put_away(
    serve, shot, measured, hang
):
    server = serve(no_progress_s=2.0, tries=1)
    with server.client() as client:
        began = []

        def note(event):
            if isinstance(event, Progressed) and not began:
                began.append(time.monotonic())

        job, pictures = submit(client, shot, hang=hang)
        outcome = client.follow(job, pictures=pictures, on_event=note)
        took = time.monotonic() - began[0]
        assert (outcome.state, outcome.error.code) == ("failed", "quarantined")
        assert "made no progress for 2 s" in outcome.error.message
        measured("watchdog beside its limit", took - 2.0, "s", least=-1.0, most=1.0)
        assert run(client, shot, tag=1)[0].state == "done"


def has_open(process, name):
    """Tell whether a process holds a file of that name open."""
    return any(one.path.endswith(name) for one in process.open_files())


@pytest.mark.fault("F29")
def test_a_worker_that_is_stopped_is_ended_at_the_limit_and_its_job_goes_on(serve, shot):
    server = serve(no_progress_s=2.0)
    front = psutil.Process(server.process.pid)
    with server.client() as client, server.client() as other:
        stopped = []

        def note(event):
            if isinstance(event, Progressed) and not stopped:
                (worker,) = (one for one in front.children() if has_open(one, "workers/0.txt"))
                worker.suspend()
                stopped.append(worker)
                other.jobs()

        job, pictures = submit(client, shot, steps=4, step_s=0.2)
        outcome = client.follow(job, pictures=pictures, on_event=note)
        assert (outcome.state, outcome.manifest["report"]["tries"]) == ("done", 2)


@pytest.mark.slow
@pytest.mark.fault("F29")
@pytest.mark.parametrize("knobs", [{"steps": 6, "step_s": 0.6}, {"step_s": 4.5, "beats": True}])
def test_one_that_takes_longer_but_gets_on_is_left_alone(serve, shot, knobs):
    server = serve(no_progress_s=3.0, tries=1)
    with server.client() as client:
        assert run(client, shot, **knobs)[0].state == "done"


# --- cancel --------------------------------------------------------------------------------------


def cancelled_after(client, other, job, pictures):
    """Cancel a job from elsewhere once it runs; return seconds until it had ended."""
    asked = []

    def note(event):
        if isinstance(event, Progressed) and event.step >= 1 and not asked:
            other.cancel(job)
            asked.append(time.monotonic())

    outcome = client.follow(job, pictures=pictures, on_event=note)
    assert outcome.state == "cancelled"
    return time.monotonic() - asked[0]


@pytest.mark.fault("F27")
def test_a_queued_job_is_cancelled_at_once(serve, shot, make_shot, measured):
    server = serve()
    with server.client() as client, server.client() as other:
        job, pictures = submit(client, shot, steps=20, step_s=0.1)
        begun = threading.Event()
        thread = threading.Thread(
            target=lambda: client.follow(job, pictures=pictures, on_event=lambda event: begun.set())
        )
        thread.start()
        assert begun.wait(30)
        waiting, waiting_pictures = submit(other, make_shot("other"))
        took = []

        def note(event):
            if isinstance(event, StateChanged) and event.state == "queued" and not took:
                with server.client() as third:
                    before = time.monotonic()
                    third.cancel(waiting)
                    assert third.job(waiting)["state"] == "cancelled"
                    took.append(time.monotonic() - before)

        assert other.follow(waiting, pictures=waiting_pictures, on_event=note).state == "cancelled"
        measured("cancel of a queued job", took[0], "s", most=0.1)
        other.cancel(job)
        thread.join(30)


@pytest.mark.slow
@pytest.mark.fault("F27")
@pytest.mark.parametrize("stage", ["sample", "decode", "loading weights"])
def test_a_running_job_is_cancelled_within_a_step_and_half_a_second(serve, shot, measured, stage):
    server = serve()
    step_s, took = 0.15, []
    with server.client() as client, server.client() as other:
        for tag in range(CANCELS):
            job, pictures = submit(client, shot, tag=tag, stage=stage, steps=100, step_s=step_s)
            took.append(cancelled_after(client, other, job, pictures))
        late = float(np.percentile(took, 95, method="higher"))
        words = f"cancel of a running job p95 of {CANCELS}, {stage}"
        measured(words, late, "s", most=step_s + 0.5)
        assert run(client, shot, tag=99)[0].state == "done"  # the worker is free


@pytest.mark.slow
@pytest.mark.fault("F27")
def test_a_job_that_does_not_listen_has_ended_within_5_s(serve, shot, measured):
    server = serve()
    with server.client() as client, server.client() as other:
        job, pictures = submit(client, shot, steps=3, step_s=0.2)
        assert client.follow(job, pictures=pictures).state == "done"
        job, pictures = submit(client, shot, tag=1, steps=2, step_s=60.0)
        asked = []

        def note(event):
            if isinstance(event, Progressed) and not asked:
                other.cancel(job)
                asked.append(time.monotonic())

        assert client.follow(job, pictures=pictures, on_event=note).state == "cancelled"
        measured("hard kill of a job", time.monotonic() - asked[0], "s", most=5.0)
        assert run(client, shot, tag=2)[0].state == "done"


# --- wear ----------------------------------------------------------------------------------------


def workers_of(server):
    children = psutil.Process(server.process.pid).children()
    return {one.pid for one in children if "spawn_main" in " ".join(one.cmdline())}


@pytest.mark.slow
@pytest.mark.fault("F34")
@pytest.mark.parametrize(
    ("settings", "knobs", "words"),
    [
        ({"recycle_jobs": 2}, {}, "2 jobs were run"),
        ({"recycle_growth_bytes": 64 << 20}, {"leak_bytes": 80 << 20}, "more main memory"),
    ],
)
def test_a_worker_is_replaced_after_so_many_jobs_or_so_much_growth(
    serve, shot, settings, knobs, words
):
    server = serve(**{"recycle_jobs": 0, "recycle_growth_bytes": 0, **settings})
    with server.client() as client:
        seen = []
        for tag in range(4):
            assert run(client, shot, tag=tag, **knobs)[0].state == "done"
            seen.append(words in server.log.read_text())
    assert seen[0] is False
    assert server.log.read_text().count(words) == 2  # after the second job, and the fourth
    assert "it is killed" not in server.log.read_text()


# --- asking twice, restarts, quotas --------------------------------------------------------------


@pytest.mark.fault("F26")
def test_a_submit_whose_answer_was_lost_and_a_double_click_are_one_job_for_all(
    serve, shot, tmp_path, wait_until
):
    server = serve()
    request, pictures = shot.request("engine", steps=2), shot.pictures()
    key = request_key(request, pictures)
    inputs = tuple(
        m.InputPictures(name, tuple(m.PictureEntry(n, p.bytes, p.digest) for n, p in own.items()))
        for name, own in pictures.items()
    )
    here, context = server.find(), new_context()
    with server.client() as watcher:
        lost = client_socket(context, here.address)
        for message in (
            m.Hello(1, PROTOCOL_VERSION, here.secret),
            m.Submit(2, key, request, inputs),
        ):
            lost.send_multipart(encode(message))
        wait_until(lambda: len(watcher.jobs()) == 1)
        lost.close(0)  # It was taken, and nobody ever reads the answer.
        context.destroy(0)
        ended = []

        def click(folder):
            with server.client() as client:
                job = client.submit(request, pictures, key)
                outcome = client.follow(job, pictures=pictures, folder=tmp_path / folder)
                ended.append((job, outcome.state))

        clicks = [threading.Thread(target=click, args=(name,)) for name in ("one", "two")]
        for thread in clicks:
            thread.start()
        for thread in clicks:
            thread.join(60)
        (job,) = watcher.jobs()
        assert ended == [(job["job"], "done")] * 2
        assert job["tries"] == 1
    made = [
        sorted((path.name, path.read_bytes()) for path in (tmp_path / name / "copy").iterdir())
        for name in ("one", "two")
    ]
    assert made[0] == made[1]
    assert len(made[0]) == 3


@pytest.mark.slow
@pytest.mark.fault("F31")
def test_a_killed_server_accepts_and_queues_within_3_s_and_says_that_its_worker_is_not_ready(
    serve, shot, make_shot, monkeypatch, measured
):
    monkeypatch.setenv("STUB_WORKER_START_S", "2")
    server = serve()
    with server.client() as client:
        before, pictures = submit(client, shot, steps=2)
    server.kill()
    started = time.monotonic()
    server.start()
    with server.client() as client:
        assert client.connect().worker == "starting"
        job, _ = submit(client, shot, tag=1)
        measured("front accepts and queues after a kill", time.monotonic() - started, "s", most=3.0)
        assert client.job(job)["state"] == "receiving"
        while client.connect().worker != "ready":
            time.sleep(0.02)
        words = "worker ready after a kill, the stub's own start of 2 s in it"
        measured(words, time.monotonic() - started, "s")
        assert client.follow(before, pictures=pictures).state == "done"
        assert client.follow(job, pictures=pictures).state == "done"
        assert client.connect().worker == "ready"


def test_jobs_say_whose_they_are_and_ones_own_run_by_priority(serve, shot, monkeypatch):
    monkeypatch.setenv("GENCOMP_SHOW", "hero")
    monkeypatch.setenv("GENCOMP_SHOT", "sc010_0020")
    server = serve()
    with server.client(account="ann@ws1") as client:
        first, pictures = submit(client, shot, steps=5, step_s=0.1)
        low, _ = submit(client, shot, tag=1)
        high, _ = submit(client, shot, tag=2, priority=7)
        for job in (first, low, high):
            assert client.follow(job, pictures=pictures).state == "done"
        known = {job["job"]: job for job in client.jobs()}
    assert known[first]["account"] == "ann@ws1"
    assert (known[low]["show"], known[low]["shot"]) == ("hero", "sc010_0020")
    assert known[high]["priority"] == 7
    assert known[high]["started_s"] < known[low]["started_s"]


def test_an_account_and_a_show_have_no_more_jobs_waiting_than_the_server_keeps(serve, shot):
    server = serve(quota_jobs=3, quota_show_jobs=4)
    with server.client(account="ann") as ann, server.client(account="bob") as bob:
        jobs = [submit(ann, shot, tag=tag, show="hero")[0] for tag in range(3)]
        with pytest.raises(QuotaExceeded, match="ann has 3 jobs waiting"):
            submit(ann, shot, tag=3)
        assert submit(ann, shot, tag=1, show="hero")[0] == jobs[1]  # the same job is no new one
        submit(bob, shot, tag=4, show="hero")
        with pytest.raises(QuotaExceeded, match="The show hero has 4 jobs waiting"):
            submit(bob, shot, tag=5, show="hero")
        submit(bob, shot, tag=6, show="side")
        ann.cancel(jobs[0])
        submit(ann, shot, tag=7, show="side")
