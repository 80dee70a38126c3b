# SPDX-License-Identifier: Apache-2.0
"""How a server says it is, its contact sheets, and the watch that the page is fed by."""

import os
import time

import cv2
import numpy as np
import pytest

from gencomp_protocol.errors import BadKnob, MissingFrame, ServerUnreachable, UnknownJob
from gencomp_server.sessions import ONLOOKER
from gencomp_server.web.watch import Watch


def test_health_tells_workers_queue_and_counts(client, shot):
    shot.run(client)
    with pytest.raises(BadKnob):
        client.check(shot.request(gain=99.0))
    found = client.health()
    assert found["front"] == "ready"
    assert [one["name"] for one in found["workers"]] == ["cpu"]
    assert found["workers"][0]["state"] in ("ready", "busy")
    assert found["jobs"]["done"] >= 1
    assert found["counts"]["layers"] >= 3
    assert found["counts"]["pictures"] >= 3
    assert found["counts"]["ended:done"] >= 1
    assert found["counts"]["refused:bad-knob"] >= 1
    assert found["pid"] == os.getpid()
    assert found["connections"] >= 1
    assert found["rss_bytes"] > 1 << 20
    assert found["free_bytes"] > 0
    assert found["log_file"].endswith("server.jsonl")


def test_a_done_job_has_a_contact_sheet_that_stays_when_its_layers_go(client, shot):
    _, _, job = shot.run(client)
    sheet = client.sheet(job)
    picture = cv2.imdecode(np.frombuffer(sheet, np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] > 3 * 200
    client.release(job)
    assert client.sheet(job) == sheet


def test_a_job_that_is_not_done_has_none(client, shot):
    outcome, _, job = shot.run(client, raise_at=1001)
    assert outcome.state == "failed"
    with pytest.raises(MissingFrame, match="no contact sheet"):
        client.sheet(job)
    with pytest.raises(UnknownJob):
        client.sheet("none")


def test_the_list_is_cut_to_the_newest_but_for_jobs_that_have_not_ended(client, make_shot):
    request = make_shot("waits").request()
    pictures = {name: dict(own) for name, own in make_shot("waits").pictures().items()}
    oldest = client.submit(request, pictures, "receives-for-good")
    done = [make_shot(f"s{n}").run(client)[2] for n in range(3)]
    try:
        assert [one["job"] for one in client.jobs(2)] == [done[2], done[1], oldest]
        assert len(client.jobs()) >= 4
    finally:
        client.cancel(oldest)


def test_one_job_is_told_with_its_knobs_and_warnings(client, shot):
    _, _, job = shot.run(client, warn="It is late.", gain=2.0)
    found = client.job(job)
    assert found["knobs"] == {"warn": "It is late.", "gain": 2.0}
    assert found["warnings"] == ["It is late."]


def test_a_running_job_is_listed_with_how_far_it_is(server, client, shot):
    request, pictures = shot.request(wait_s=600.0), shot.pictures()
    seen = []

    def cancelled():
        (entry,) = [one for one in other.jobs() if one["job"] == job]
        seen.append(entry["progress"])
        return entry["progress"] is not None

    with server.client() as other:
        job = client.submit(request, pictures, "how-far")
        client.follow(job, pictures=pictures, cancelled=cancelled)
    assert seen[-1] == {"stage": "copy", "step": 0, "total": 3, "eta_s": None}


# --- the watch -----------------------------------------------------------------------------------


@pytest.fixture
def watched(server):
    made = Watch(lambda: server.here, "watch of a test")
    made.start()
    yield made
    made.stop()


def test_the_watch_sees_jobs_and_cancels_one(watched, client, shot, wait_until):
    request, pictures = shot.request(), shot.pictures()
    job = client.submit(request, pictures, "watched")

    def state():
        return {one["job"]: one["state"] for one in watched.read().jobs}.get(job)

    wait_until(lambda: state() == "receiving")
    assert watched.read().is_up
    turn = watched.read().turn
    watched.ask(lambda asked: asked.cancel(job)).result(10)
    wait_until(lambda: state() == "cancelled")
    assert watched.read().turn > turn


def test_what_the_server_refuses_comes_back_as_its_error(watched):
    with pytest.raises(UnknownJob):
        watched.ask(lambda asked: asked.job("none")).result(10)


def test_a_server_that_is_only_looked_at_leaves_when_nobody_uses_it(in_thread):
    running = in_thread(idle_exit_s=1.0)
    watch = Watch(lambda: running.here, f"{ONLOOKER} of a test")
    watch.start()
    try:
        running._thread.join(20)
    finally:
        watch.stop()
    assert watch.seen.at_s is not None
    assert not running._thread.is_alive()


@pytest.mark.slow
def test_a_server_that_comes_back_with_another_secret_is_found_again(process, wait_until):
    server = process().start()
    told = []
    watch = Watch(server.find, "watch of a test", lambda: told.append(watch.seen.is_up))
    watch.start()
    try:
        wait_until(lambda: watch.read().is_up)
        server.kill()
        wait_until(lambda: not watch.read().is_up)
        assert watch.read().why
        with pytest.raises(ServerUnreachable):
            watch.ask(lambda asked: asked.health()).result(20)
        server.start()
        began = time.monotonic()
        wait_until(lambda: watch.read().is_up)
        assert time.monotonic() - began < 5.0
    finally:
        watch.stop()
    assert told[0] is True


def test_a_fault_of_ours_does_not_end_the_watch(watched, wait_until, monkeypatch):
    wait_until(lambda: watched.read().is_up)

    def stumble(client):
        raise ZeroDivisionError

    assert isinstance(watched.ask(stumble).exception(10), ZeroDivisionError)
    wait_until(lambda: not watched.read().is_up)
    wait_until(lambda: watched.read().is_up)
