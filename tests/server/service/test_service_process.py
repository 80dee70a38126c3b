# SPDX-License-Identifier: Apache-2.0
"""The server as a process: what it imports, its files, its signals, and being killed."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from gencomp_protocol.client import Sent, StateChanged, request_key
from gencomp_protocol.errors import BadKnob, GencompError, ServerUnreachable
from gencomp_protocol.frames import FrameRange
from gencomp_protocol.messages import Accepted, Follow

ROOT = Path(__file__).parents[3]


def submit(client, shot, **knobs):
    """Submit a job; return its id and its pictures."""
    request, pictures = shot.request(**knobs), shot.pictures()
    return client.submit(request, pictures, request_key(request, pictures)), pictures


class Follower:
    """A client that follows a job in a thread and notes what it is told."""

    def __init__(self, server, job, pictures, folder=None):
        self.states, self.outcome, self.error = [], None, None
        self._job, self._pictures, self._folder = job, pictures, folder
        self._client = server.client()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        with self._client as client:
            self.outcome = client.follow(
                self._job, pictures=self._pictures, folder=self._folder, on_event=self._note
            )

    def _note(self, event):
        if isinstance(event, StateChanged):
            self.states.append(event.state)

    def end(self):
        """Wait for the job's end; return how it ended."""
        self._thread.join(90)
        assert not self._thread.is_alive()
        return self.outcome


def test_the_front_imports_neither_torch_nor_an_image_library():
    code = (
        "import sys, gencomp_server.service as s\n"
        "s.load_registry('gencomp_server.systems:REGISTRY')\n"
        "heavy = {'torch', 'diffusers', 'cv2', 'OpenImageIO', 'numpy'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    roots = os.pathsep.join(str(ROOT / name) for name in ("protocol", "server"))
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": roots},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


def test_the_server_file_is_its_owners_alone_and_goes_with_the_server(process):
    server = process().start()
    assert stat.S_IMODE(server.state_file.stat().st_mode) == 0o600
    assert stat.S_IMODE((server.folder / "spool").stat().st_mode) == 0o700
    assert server.find().pid == server.process.pid
    server.signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    assert not server.state_file.exists()


def test_a_server_file_that_another_server_wrote_is_left_alone(process):
    server = process().start()
    text = server.state_file.read_text().replace('"secret": "', '"secret": "other')
    server.state_file.write_text(text)
    server.signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    assert server.state_file.read_text() == text


def test_a_second_server_on_the_same_spool_is_refused(process):
    server = process().start()
    second = process()
    second.state_file = server.folder / "home" / "second.json"
    with pytest.raises(AssertionError, match="the server ended"):
        second.start()
    assert "Another server uses the spool" in second.log.read_text()
    with server.client() as client:
        assert client.jobs() == []


@pytest.mark.fault("F45")
def test_sigterm_lets_the_running_job_end(process, shot, tmp_path, wait_until):
    server = process().start()
    with server.client() as client:
        job, pictures = submit(client, shot, wait_s=0.3)
    follower = Follower(server, job, pictures, tmp_path / "out")
    wait_until(lambda: "running" in follower.states)
    server.signal(signal.SIGTERM)
    assert follower.end().state == "done"
    assert server.process.wait(30) == 0
    assert len(list((tmp_path / "out" / "copy").glob("*.exr"))) == 3


@pytest.mark.fault("F45")
def test_a_client_that_has_gone_without_a_word_holds_up_no_leaving(process, shot, tmp_path):
    server = process(drain_s=20.0).start()
    with server.client() as client:
        job, pictures = submit(client, shot)
        follower = Follower(server, job, pictures, tmp_path / "out")
        assert follower.end().state == "done"
        client._link.exchange(Follow(client._link.next_id(), job, False), Accepted)
        begun = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.process.wait(30) == 0
    assert time.monotonic() - begun < 10


@pytest.mark.fault("F45")
def test_while_draining_new_work_is_turned_away(process, shot, make_shot, wait_until):
    server = process().start()
    with server.client() as client:
        job, pictures = submit(client, shot, wait_s=0.5)
        follower = Follower(server, job, pictures)
        wait_until(lambda: "running" in follower.states)
        server.signal(signal.SIGTERM)
        wait_until(lambda: "draining" in server.log.read_text() or server.process.poll() == 0)
        with pytest.raises(ServerUnreachable, match="leave"):
            submit(client, make_shot("late"))
    assert follower.end().state == "done"


@pytest.mark.slow
@pytest.mark.fault("F45")
def test_a_job_longer_than_the_notice_is_done_after_the_next_start(process, shot, wait_until):
    server = process(drain_s=0.0).start()
    with server.client() as client:
        job, pictures = submit(client, shot, wait_s=0.5)
    follower = Follower(server, job, pictures)
    wait_until(lambda: "running" in follower.states)
    server.signal(signal.SIGTERM)
    assert server.process.wait(30) == 0
    server.start()
    assert follower.end().state == "done"
    with server.client() as client:
        assert len(client.jobs()) == 1


@pytest.mark.fault("F31")
def test_a_killed_server_goes_on_with_the_running_job(process, shot, tmp_path, wait_until):
    server = process().start()
    with server.client() as client:
        job, pictures = submit(client, shot, wait_s=0.5)
    follower = Follower(server, job, pictures, tmp_path / "out")
    wait_until(lambda: "running" in follower.states)
    server.kill()
    server.start()
    outcome = follower.end()
    assert outcome.state == "done"
    assert sorted(path.name for path in (tmp_path / "out" / "copy").iterdir()) == [
        "copy.1001.exr",
        "copy.1002.exr",
        "copy.1003.exr",
    ]


@pytest.mark.parametrize(
    ("before", "state"), [pytest.param(1, "done", marks=pytest.mark.slow), (2, "failed")]
)
def test_a_job_under_which_the_server_dies_the_third_time_fails(
    process, shot, tmp_path, wait_until, before, state
):
    server = process().start()
    with server.client() as client:
        job, pictures = submit(client, shot, wait_s=0.5)
    follower = Follower(server, job, pictures, tmp_path / "out")
    wait_until(lambda: "running" in follower.states)
    server.kill()
    table = next((tmp_path / "spool").glob("*.db"))
    with sqlite3.connect(table) as db:  # As so many deaths before left it.
        db.execute("UPDATE jobs SET outages = ?", (before,))
    db.close()
    server.start()
    outcome = follower.end()
    assert outcome.state == state
    if state == "failed":
        assert outcome.error.code == "quarantined"
        assert "3 attempts" in outcome.error.message


@pytest.mark.fault("F31")
def test_a_finished_job_can_be_fetched_after_a_kill(process, shot, tmp_path):
    server = process().start()
    with server.client() as client:
        _, _, job = shot.run(client)
    server.kill()
    server.start()
    with server.client() as client:
        assert client.follow(job, folder=tmp_path / "out").state == "done"
    assert len(list((tmp_path / "out" / "copy").glob("*.exr"))) == 3


def test_a_server_without_clients_leaves_after_idling(process):
    server = process(idle_exit_s=0.2).start()
    assert server.process.wait(60) == 0


def workers_of(server):
    """Return the process that a server's jobs run in, and those that it has started."""
    found = []
    for one in psutil.Process(server.process.pid).children():
        with suppress(psutil.NoSuchProcess):  # It leaves meanwhile.
            if "spawn_main" in " ".join(one.cmdline()):
                found += [one, *one.children(recursive=True)]
    return found


def state_of(server):
    """Return what a client that comes now is told of the worker."""
    with server.client() as client:
        return client.connect().worker


def test_a_server_without_a_job_gives_its_workers_memory_back_while_its_client_stays(
    process, make_shot, wait_until
):
    server = process(release_after_s=0.2).start()
    with server.client() as client:
        first, second = make_shot("first"), make_shot("second")
        assert first.run(client)[0].state == "done"
        wait_until(lambda: state_of(server) == "resting")
        wait_until(lambda: workers_of(server) == [])
        assert client.check(second.request())["minutes"] == 0.5
        assert second.run(client)[0].state == "done"
    said = server.log.read_text()
    assert "no job for 0.2 s: the worker leaves, its memory with it" in said
    assert "there is a job: the worker starts again" in said


@pytest.mark.slow
def test_when_a_model_was_used_its_memory_is_returned_and_the_next_job_loads_it_again(
    process, make_shot, wait_until
):
    real = "gencomp_server.systems:REGISTRY"
    server = process(registry=real, release_after_s=6.0).start()
    knobs = {"system": "overplusplus", "backbone": "tiny", "steps": 1, "prompt": "smoke"}
    knobs["model_size"] = "48x32"
    with server.client() as client:
        first, second, third = (make_shot(name) for name in ("first", "second", "third"))
        assert first.run(client, **knobs)[0].state == "done"
        assert second.run(client, **knobs)[0].state == "done"
        assert server.log.read_text().count("loading tiny") == 1
        own = psutil.Process(server.process.pid)
        held = sum(one.memory_info().rss for one in workers_of(server))
        wait_until(lambda: workers_of(server) == [])
        assert held > own.memory_info().rss  # The front has no model, nor what computes one.
        outcome, _, _ = third.run(client, **knobs)
        assert outcome.state == "done"
        assert server.log.read_text().count("loading tiny") == 2


@pytest.mark.slow
def test_a_device_that_the_machine_has_not_is_said_before_any_picture_travels(process, shot):
    server = process(device="cuda:99").start()
    with server.client() as client:
        while client.connect().worker == "starting":
            time.sleep(0.05)
        for _ in range(2):  # It looks again for each, and finds the same.
            with pytest.raises(BadKnob, match="'device' is cuda:99, but this machine has"):
                shot.run(client)
        assert client.jobs() == []
    assert server.process.poll() is None
    server.kill()  # Else it waits for the worker that looks again.


@pytest.mark.fault("F19", "F31")
@pytest.mark.parametrize(
    "after", [1, pytest.param(5, marks=pytest.mark.slow), pytest.param(9, marks=pytest.mark.slow)]
)
def test_a_server_killed_while_pictures_arrive_goes_on_receiving(process, make_shot, after):
    server = process().start()
    shot = make_shot("long", frames=FrameRange(1001, 1010))
    sent, killed = [], threading.Event()
    with server.client() as client:
        job, pictures = submit(client, shot)

        def watch(event):
            if isinstance(event, Sent):
                sent.append(event.frame)
                if len(sent) == after and not killed.is_set():
                    killed.set()
                    server.kill()
                    server.start()

        outcome = client.follow(job, pictures=pictures, on_event=watch)
    assert outcome.state == "done"
    assert killed.is_set()
    assert set(sent) >= set(range(1001, 1011)) - {1001 + after}


@pytest.mark.slow
@pytest.mark.fault("F31")
def test_killed_at_any_moment_a_server_loses_and_doubles_nothing(process, make_shot):
    server = process().start()
    shots = [make_shot(f"shot{i}") for i in range(3)]
    outcomes = {}
    # A client that has never reached the server gives up at once, rightly; these have.
    clients = [server.client() for _ in shots]

    def go(index):
        try:
            with clients[index] as client:
                outcomes[index] = shots[index].run(client, wait_s=0.2)[0].state
        except GencompError as error:
            outcomes[index] = str(error)

    threads = [threading.Thread(target=go, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for pause_s in (0.2, 0.5, 0.9):
        threads[0].join(pause_s)
        server.kill()
        server.start()
    for thread in threads:
        thread.join(200)
    assert outcomes == {0: "done", 1: "done", 2: "done"}
    with server.client() as client:
        assert sorted(entry["state"] for entry in client.jobs()) == ["done"] * 3
    server.kill()
    db = sqlite3.connect(server.folder / "spool" / "gencomp.db")
    assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_when_no_worker_comes_up_jobs_fail_with_a_sentence_and_the_server_stays(process, shot):
    server = process(registry="stub_broken:REGISTRY").start()
    with server.client() as client:
        outcome, _, _ = shot.run(client)
        assert outcome.state == "failed"
        assert outcome.error.code == "worker-lost"
        assert "cannot start its worker" in outcome.error.message
        assert [entry["state"] for entry in client.jobs()] == ["failed"]
    assert server.process.poll() is None


@pytest.mark.fault("F31")
def test_what_a_killed_server_left_half_written_is_gone_at_the_next_start(tmp_path, process):
    stages = tmp_path / "spool" / "stages"
    (stages / ".key.7.part").mkdir(parents=True)
    process().start()
    assert list(stages.iterdir()) == []


def test_the_spool_keeps_no_more_decoded_pixels_than_it_is_told_to(tmp_path, process, make_shot):
    server = process(decoded_bytes=0, stages_bytes=0).start()
    with server.client() as client:
        outcome, _, _ = make_shot("in").run(client)
    server.close()
    assert outcome.state == "done"
    assert list((tmp_path / "spool" / "decoded").iterdir()) == []
