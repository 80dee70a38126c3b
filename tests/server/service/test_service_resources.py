# SPDX-License-Identifier: Apache-2.0
"""A real server short of disk, of memory, of descriptors and of time: nothing lost, all said."""

import errno
import json
import os
import resource
import signal
import socket
import sqlite3
import time

import numpy as np
import psutil
import pytest

from gencomp_protocol.client import StateChanged, Warned, request_key
from gencomp_protocol.errors import OutOfMemory, ServerBusy, UnwritableOutput
from gencomp_protocol.frames import Format, FrameRange
from gencomp_protocol.request import InputHeader, Request
from gencomp_protocol.transfer import Picture
from gencomp_server.config import ServerConfig
from gencomp_server.engine.spool import Spool

REGISTRY = "stub_faults:REGISTRY"
MIB = 1 << 20


@pytest.fixture
def fault(tmp_path, monkeypatch):
    """Return a function that has the disk of every process of a server fail; None mends it."""
    place = tmp_path / "fault.json"
    monkeypatch.setenv("GENCOMP_TEST_FAULT", str(place))

    def put(number, path="", **more):
        if number is None:
            place.unlink()
            return
        part = place.with_suffix(".part")
        part.write_text(json.dumps({"doing": "write", "errno": number, "path": path, **more}))
        os.replace(part, place)

    return put


@pytest.fixture
def server(process):
    """Return a function that starts a server of the faulty systems."""
    return lambda **settings: process(registry=REGISTRY, **settings).start()


def submit(client, shot, system="copy", **knobs):
    request, pictures = shot.request(system, **knobs), shot.pictures()
    return client.submit(request, pictures, request_key(request, pictures)), pictures


def tree(process):
    """Return a process and everything that it started."""
    return [process.pid, *(one.pid for one in psutil.Process(process.pid).children(recursive=True))]


def check_whole(folder, read):
    """Check that nothing half-written is visible in a spool and that its table is sound."""
    spool = folder / "spool"
    assert [path for path in spool.rglob("*.part") if "pictures" not in path.parts] == []
    for path in spool.rglob("*.exr"):
        assert read(path).shape == (18, 32, 3)
    with sqlite3.connect(spool / "gencomp.db") as table:
        assert table.execute("PRAGMA integrity_check").fetchone() == ("ok",)


class Watch:
    """Events of a job; mends the disk once the job was said to wait."""

    def __init__(self, mend):
        self.mend, self.told, self.states = mend, [], []

    def __call__(self, event):
        if isinstance(event, StateChanged):
            self.states.append(event.state)
        if isinstance(event, Warned):
            self.told.append(event.sentence)
            if "so the job waits" in event.sentence and self.mend is not None:
                mend, self.mend = self.mend, None
                mend()


PLACES = ("/pictures/", "/layers/", "/stages/", "manifest.json")


@pytest.mark.fault("F35")
def test_on_a_full_disk_a_job_waits_and_goes_on_when_there_is_room(
    server, make_shot, fault, tmp_path, exr, monkeypatch
):
    steps = tmp_path / "steps"
    monkeypatch.setenv("GENCOMP_TEST_STEPS", str(steps))
    running = server()
    with running.client() as asking, running.client() as client:
        for number, place in enumerate(PLACES):
            states = []

            def mend(states=states):
                check_whole(running.folder, exr[1])
                states.extend(one["state"] for one in client.jobs() if one["state"] != "done")
                fault(None)

            fault(errno.ENOSPC, place)
            steps.write_text("")
            watch = Watch(mend)
            job, pictures = submit(asking, make_shot(f"in{number}"), "steps", steps=3)
            out = tmp_path / f"out{number}"
            outcome = asking.follow(job, pictures=pictures, folder=out, on_event=watch)
            assert outcome.state == "done", place
            assert states == ["receiving" if place == "/pictures/" else "queued"]
            assert watch.told == [
                "The disk that holds the server's spool is full, so the job waits.",
                "There is room again: the job goes on.",
            ]
            assert len(list(out.rglob("*.exr"))) == 3
            # What was kept before the disk was full is not computed again.
            assert len(steps.read_text().split()) == (4 if place == "/stages/" else 3)
    check_whole(running.folder, exr[1])


def test_a_job_whose_end_cannot_be_noted_fails_in_words_and_the_next_goes_on(
    in_thread, shot, make_shot, monkeypatch
):
    def fail(spool, job):
        raise ValueError("no manifest")

    running = in_thread()
    with running.client() as client:
        with monkeypatch.context() as broken:
            broken.setattr(Spool, "read_manifest", fail)
            job, pictures = submit(client, shot)
            outcome = client.follow(job, pictures=pictures)
        assert (outcome.state, outcome.error.code) == ("failed", "internal-error")
        assert "The server made a mistake" in outcome.error.message
        job, pictures = submit(client, make_shot("other"))
        assert client.follow(job, pictures=pictures).state == "done"


@pytest.mark.fault("F35")
def test_who_comes_while_jobs_wait_for_room_is_told_so_and_may_cancel(in_thread, shot):
    running = in_thread(keep_free_bytes=1 << 50)
    with running.client() as client:
        job, pictures = submit(client, shot)
        watch = Watch(lambda: None)
        outcome = client.follow(
            job, pictures=pictures, on_event=watch, cancelled=lambda: bool(watch.told)
        )
        assert outcome.state == "cancelled"
        assert "that stay free, so the job waits." in watch.told[0]
        assert [one["state"] for one in client.jobs()] == ["cancelled"]


@pytest.mark.fault("F35")
@pytest.mark.slow
def test_what_a_real_limit_on_files_stops_goes_on_when_it_is_lifted(
    server, tmp_path, exr, make_shot
):
    write, _ = exr
    shot = make_shot("large", frames=FrameRange(1001, 1001))
    plate = np.random.default_rng(1).random((1024, 1024, 3)).astype(np.float16)  # 6 MB
    shot.files["plate"][1001] = write(shot.folder / "plate.1001.exr", plate)
    running = server()

    def limit(most):
        for pid in tree(running.process):
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(
                pid, resource.RLIMIT_FSIZE, (min(most, hard) if hard > 0 else most, hard)
            )

    with running.client() as client:
        job, pictures = submit(client, shot)
        limit(3 * MIB)
        watch = Watch(lambda: limit(512 * MIB))
        outcome = client.follow(job, pictures=pictures, folder=tmp_path / "out", on_event=watch)
    assert outcome.state == "done"
    assert watch.told[-1] == "There is room again: the job goes on."
    assert exr[1](tmp_path / "out" / "copy" / "copy.1001.exr").shape == (1024, 1024, 3)


@pytest.mark.fault("F35")
@pytest.mark.slow
def test_on_a_full_disk_a_job_can_be_cancelled_and_the_server_started_again(
    server, shot, fault, make_shot, wait_until
):
    running = server()
    fault(errno.ENOSPC, "/layers/")
    with running.client() as client:
        job, pictures = submit(client, shot)
        kept, others = submit(client, make_shot("kept"))
        waiting = []

        def cancelled():
            return bool(waiting)

        def note(event):
            if isinstance(event, Warned):
                waiting.append(event)

        outcome = client.follow(job, pictures=pictures, on_event=note, cancelled=cancelled)
        assert outcome.state == "cancelled"
    running.kill()
    fault(None)
    running.start()
    with running.client() as client:
        assert client.follow(kept, pictures=others).state == "done"


FAILS = (
    (errno.EROFS, "/layers/", "failed", "copy/copy.1001.exr"),
    (errno.EACCES, "/stages/", "failed", "stages/"),
    (errno.ESTALE, "manifest.json", "failed", "jobs/"),
    (errno.EIO, "/pictures/", "refused", ""),
)


@pytest.mark.fault("F36")
@pytest.mark.slow
def test_a_disk_that_fails_for_good_fails_the_job_by_name_and_leaves_no_half_sequence(
    server, make_shot, fault, tmp_path, exr, monkeypatch
):
    monkeypatch.setenv("GENCOMP_TEST_STEPS", str(tmp_path / "steps"))
    running = server()
    with running.client() as client:
        for at, (number, place, state, named) in enumerate(FAILS):
            shot, out = make_shot(f"in{at}"), tmp_path / f"out{at}"
            fault(number, place)
            job, pictures = submit(client, shot, "steps")
            outcome = client.follow(job, pictures=pictures, folder=out)
            assert outcome.state == state
            assert isinstance(outcome.error, UnwritableOutput)
            assert outcome.error.details["errno"] == errno.errorcode[number]
            assert named in outcome.error.details["path"]
            assert os.strerror(number) in outcome.error.message
            check_whole(running.folder, exr[1])
            assert list(running.folder.glob(f"spool/jobs/{job}/manifest.json")) == []
            fault(None)
            job, pictures = submit(client, shot, "steps")
            assert client.follow(job, pictures=pictures, folder=out).state == "done"


@pytest.mark.fault("F36")
@pytest.mark.slow
def test_a_share_that_was_away_for_a_moment_is_asked_again_and_nobody_hears_of_it(
    server, make_shot, fault, tmp_path, monkeypatch
):
    monkeypatch.setenv("GENCOMP_TEST_STEPS", str(tmp_path / "steps"))
    running = server()
    with running.client() as client:
        for place in PLACES:
            fault(errno.ESTALE, place, times=2)
            made = make_shot(place.strip("/"))
            outcome, events, _ = made.run(client, tmp_path / place.strip("/"), system="steps")
            assert outcome.state == "done", place
            assert [event for event in events if isinstance(event, Warned)] == []


@pytest.mark.fault("F36")
@pytest.mark.slow
def test_a_table_that_cannot_be_written_loses_nothing_that_was_said(
    server, shot, fault, tmp_path, wait_until
):
    running = server()
    with running.client() as client:
        job, pictures = submit(client, shot, wait_s=0.3)

        def break_it(event):
            if isinstance(event, StateChanged) and event.state == "running":
                fault(errno.EIO, "gencomp.db")
                wait_until(lambda: "jobs wait" in running.log.read_text())
                fault(None)

        outcome = client.follow(job, pictures=pictures, folder=tmp_path / "out", on_event=break_it)
    assert outcome.state == "done"
    assert len(list((tmp_path / "out").rglob("*.exr"))) == 3


# --- memory --------------------------------------------------------------------------------------


def worker_of(running):
    """Return the process that runs jobs."""
    alive = [
        one
        for one in psutil.Process(running.process.pid).children()
        if one.status() != psutil.STATUS_ZOMBIE
    ]
    (found,) = [one for one in alive if "spawn_main" in " ".join(one.cmdline())]
    return found


@pytest.mark.fault("F33")
@pytest.mark.parametrize("how", ["device", "processor"])
@pytest.mark.slow
def test_after_a_job_ran_out_of_memory_another_process_has_the_next_and_holds_no_more(
    server, make_shot, wait_until, how
):
    running = server()
    with running.client() as client:
        outcome, *_ = make_shot("warm").run(client, system="greedy", how="not", megabytes=1)
        assert outcome.state == "done"
        first = worker_of(running)
        before = first.memory_info().rss
        outcome, *_ = make_shot("large").run(client, system="greedy", how=how, megabytes=256)
        assert (outcome.state, type(outcome.error)) == ("failed", OutOfMemory)
        assert "ran out of memory" in outcome.error.message
        assert outcome.error.hint
        outcome, *_ = make_shot("next").run(client, system="greedy", how="not", megabytes=1)
        assert outcome.state == "done"
        second = worker_of(running)
        assert second.pid != first.pid
        assert second.memory_info().rss == pytest.approx(before, rel=0.02)
        assert [job["state"] for job in client.jobs()] == ["done", "failed", "done"]
        assert [job["tries"] for job in client.jobs()] == [1, 1, 1]


@pytest.mark.fault("F38")
def test_a_clip_too_large_is_refused_before_a_picture_of_it_travels(process, tmp_path):
    running = process(registry="gencomp_server.systems:REGISTRY", memory_bytes=8 * 10**9).start()
    frames = FrameRange(1, 1000)
    size = Format(8192, 8192)
    inputs = tuple(InputHeader(name, tuple(frames), format=size) for name in ("plate", "matte.boy"))
    request = Request("omnimatte", frames, inputs, {"clean_plate_from": "temporal"})
    with running.client() as client:
        took_s = []
        for _ in range(3):  # Of a machine that does something else besides, the best counts.
            began = time.perf_counter()
            with pytest.raises(OutOfMemory) as caught:
                client.check(request)
            took_s.append(time.perf_counter() - began)
        assert "16.5 GB of main memory for 1000 frames of 8192 x 8192" in caught.value.message
        assert min(took_s) < 0.1
        plan = client.check(request, anyway=True)
        assert plan["memory_bytes"] == caught.value.details["needed_bytes"]
        assert plan["minutes"] > 0
        picture = Picture(tmp_path / "none", 400_000_000, "ab" * 32)
        pictures = {entry.name: dict.fromkeys(frames, picture) for entry in inputs}
        with pytest.raises(OutOfMemory, match="may take 8"):
            client.submit(request, pictures, "key")
        assert client.jobs() == []


# --- descriptors ---------------------------------------------------------------------------------


@pytest.mark.fault("F37")
def test_without_descriptors_questions_are_answered_and_jobs_refused_until_there_are_some(
    server, make_shot, fault, tmp_path, wait_until
):
    running = server()
    _, hard = resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (64, hard))
    here = running.find().address.removeprefix("tcp://").rsplit(":", 1)
    strangers = []
    with running.client() as client:
        try:
            for _ in range(64):
                strangers.append(socket.create_connection((here[0], int(here[1])), timeout=5))
            fds = f"/proc/{running.process.pid}/fd"
            wait_until(lambda: len(os.listdir(fds)) > 64 - 16)
            for _ in range(3):
                assert client.jobs() == []
            with pytest.raises(ServerBusy, match="of its 64 file descriptors") as caught:
                make_shot("refused").run(client)
            assert caught.value.retryable
            assert running.process.poll() is None
        finally:
            for stranger in strangers:
                stranger.close()
        wait_until(lambda: len(os.listdir(fds)) < 64 - 16)
        # Where there is none just when a layer is to be read, it is read a little later.
        fault(errno.EMFILE, "/layers/", doing="read", times=3)
        outcome, *_ = make_shot("later").run(client, tmp_path / "out")
        assert outcome.state == "done"
        assert len(list((tmp_path / "out").rglob("*.exr"))) == 3


# --- signals and clocks --------------------------------------------------------------------------


@pytest.mark.fault("F45")
@pytest.mark.slow
def test_sigterm_during_work_leaves_within_the_notice_and_loses_at_most_a_step(
    server, shot, tmp_path, monkeypatch, wait_until
):
    steps = tmp_path / "steps"
    steps.write_text("")
    monkeypatch.setenv("GENCOMP_TEST_STEPS", str(steps))
    running = server(drain_s=0.1)
    with running.client() as client:
        job, pictures = submit(client, shot, "steps", steps=16, step_s=0.05)
        seen = []

        def note(event):
            if not seen and len(steps.read_text().split()) >= 3:
                seen.append(time.monotonic())
                running.signal(signal.SIGTERM)
                assert running.process.wait(30) == 0
                seen.append(time.monotonic())
                seen.append(steps.read_text().split())
                running.start()

        outcome = client.follow(job, pictures=pictures, folder=tmp_path / "out", on_event=note)
        assert outcome.state == "done"
        (told,) = client.jobs()
    began, ended, before = seen
    assert ended - began < 10.0
    assert len(before) < 16
    done = steps.read_text().split()
    assert len(set(done)) == 16
    assert len(done) - 16 <= 1
    assert told["tries"] == 2


@pytest.mark.fault("F45")
def test_the_usual_notice_is_shorter_than_what_a_farm_gives():
    assert ServerConfig().drain_s <= 20.0


@pytest.mark.fault("F42")
@pytest.mark.parametrize("jump_s", [100_000.0, pytest.param(-3600.0, marks=pytest.mark.slow)])
def test_a_jump_of_any_clock_drops_nobody_and_ends_no_job(
    in_thread, tmp_path, shot, monkeypatch, caplog, jump_s
):
    ahead = [0.0]
    real_time, real_monotonic = time.time, time.monotonic
    monkeypatch.setattr(time, "time", lambda: real_time() + ahead[0])
    running = in_thread(clock=lambda: real_monotonic() + ahead[0])
    with running.client() as idle, running.client() as client:
        links = []

        def note(event):
            if isinstance(event, StateChanged) and event.state == "running":
                links.append(idle._link._socket)
                ahead[0] = jump_s

        job, pictures = submit(client, shot, wait_s=0.3)
        out = tmp_path / "out"
        outcome = client.follow(job, pictures=pictures, folder=out, on_event=note)
        assert outcome.state == "done"
        (told,) = idle.jobs()
        assert (told["tries"], told["state"]) == (1, "done")
        assert [idle._link._socket] == links  # It had to make no new link.
    assert ("nobody is held to that" in caplog.text) is (jump_s > 0)
