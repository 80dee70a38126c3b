# SPDX-License-Identifier: Apache-2.0
"""A job's way through the server: both gates, layers back, cancel, crash, re-attach."""

import hmac
import threading

import numpy as np
import pytest

from gencomp_protocol.client import (
    Client,
    LayerReady,
    Progressed,
    Sent,
    StateChanged,
    Warned,
    request_key,
)
from gencomp_protocol.errors import (
    BadKnob,
    BadMatte,
    BadPicture,
    InternalError,
    MissingFrame,
    MissingInput,
    Quarantined,
    Unauthorised,
    UnknownJob,
)
from gencomp_protocol.frames import FrameRange
from gencomp_protocol.transfer import picture_of


def pictures_in(server):
    """Return how many whole pictures the spool holds."""
    return len([p for p in (server.config.spool / "pictures").glob("??/*") if not p.suffix])


def test_a_plate_goes_in_and_its_copy_comes_out(client, shot, exr, tmp_path):
    _, read = exr
    outcome, _, _ = shot.run(client, tmp_path / "out")
    assert outcome.state == "done"
    for n in (1001, 1002, 1003):
        made = read(tmp_path / "out" / "copy" / f"copy.{n:04d}.exr")
        assert np.array_equal(made, read(shot.files["plate"][n]))
    names = {path.name for path in (tmp_path / "out" / "copy").iterdir()}
    assert names == {"copy.1001.exr", "copy.1002.exr", "copy.1003.exr"}


def test_events_come_in_the_order_of_a_jobs_life(client, shot, tmp_path):
    _, events, job = shot.run(client, tmp_path / "out", warn="Mind the gap.")
    states = [event.state for event in events if isinstance(event, StateChanged)]
    assert states == ["receiving", "queued", "running", "done"]
    assert [event.frame for event in events if isinstance(event, Sent)] == [1001, 1002, 1003]
    assert sorted(e.frame for e in events if isinstance(e, LayerReady)) == [1001, 1002, 1003]
    assert [e.sentence for e in events if isinstance(e, Warned)] == ["Mind the gap."]
    assert {e.stage for e in events if isinstance(e, Progressed)} >= {"copy"}
    assert all(event.job == job for event in events)


def test_the_manifest_names_every_delivered_file_by_its_digest(client, shot, tmp_path):
    outcome, _, _ = shot.run(client, tmp_path / "out")
    told = outcome.manifest["layers"]["copy"]["frames"]
    for n in (1001, 1002, 1003):
        made = picture_of(tmp_path / "out" / "copy" / f"copy.{n}.exr")
        assert (told[str(n)]["digest"], told[str(n)]["bytes"]) == (made.digest, made.bytes)


def test_check_tells_plan_and_layers_and_stores_nothing(client, shot):
    before = client.jobs()
    plan = client.check(shot.request())
    assert plan["bytes_in"] == 300
    facts = {"name": "copy", "channels": ["R", "G", "B"], "doc": "The plate."}
    assert plan["layers"] == [{**facts, "whole": True, "carries": ""}]
    assert client.jobs() == before


@pytest.mark.parametrize(
    ("knobs", "code"),
    [
        pytest.param({"gian": 1.0}, "bad-knob", id="unknown knob"),
        pytest.param({"gain": 9.0}, "bad-knob", id="out of range"),
        pytest.param({"gain": 7.0}, "bad-knob", id="the system's own rule"),
    ],
)
def test_a_bad_header_is_refused_before_any_picture_travels(server, client, shot, knobs, code):
    before = pictures_in(server)
    request, pictures = shot.request(**knobs), shot.pictures()
    with pytest.raises(BadKnob) as refusal:
        client.submit(request, pictures, request_key(request, pictures))
    assert refusal.value.code == code
    with pytest.raises(BadKnob):
        client.check(request)
    assert pictures_in(server) == before


def test_pictures_that_the_header_does_not_name_are_refused(client, shot):
    request, pictures = shot.request(), shot.pictures()
    short = {"plate": {n: pictures["plate"][n] for n in (1001, 1002)}}
    with pytest.raises(MissingFrame, match="1003"):
        client.submit(request, short, "short")
    with pytest.raises(MissingInput, match=r"matte\.x"):
        client.submit(request, {**pictures, "matte.x": pictures["plate"]}, "more")


def test_nan_in_a_matte_is_refused_at_ingest_naming_input_and_frame(client, shot, tmp_path):
    shot.add_matte([1.0, float("nan"), 1.0])
    outcome, _, job = shot.run(client, tmp_path / "out")
    assert outcome.state == "refused"
    assert isinstance(outcome.error, BadMatte)
    assert "matte.a" in outcome.error.message
    assert "1002" in outcome.error.message
    assert not (tmp_path / "out").exists()
    assert client.job(job)["state"] == "refused"


def test_a_truncated_picture_is_refused_and_the_server_lives_on(client, shot, make_shot, tmp_path):
    damaged = shot.files["plate"][1002]
    damaged.write_bytes(damaged.read_bytes()[:-64])
    outcome, _, _ = shot.run(client, tmp_path / "out")
    assert outcome.state == "refused"
    assert isinstance(outcome.error, BadPicture)
    assert "Input 'plate' frame 1002" in outcome.error.message
    assert make_shot("good").run(client)[0].state == "done"


def test_a_warning_of_the_gate_reaches_the_artist(client, shot, exr):
    write, _ = exr
    pixels = np.ones((18, 32, 3), np.float16)
    pixels[0, 0, 0] = np.nan
    shot.files["plate"][1002] = write(shot.folder / "nan.exr", pixels)
    outcome, events, _ = shot.run(client)
    said = [event.sentence for event in events if isinstance(event, Warned)]
    assert outcome.state == "done"
    assert any("Input 'plate' frame 1002" in sentence for sentence in said)


@pytest.mark.fault("F26")
def test_submitting_twice_is_one_job(client, shot):
    request, pictures = shot.request(wait_s=0.2), shot.pictures()
    key = request_key(request, pictures)
    first = client.submit(request, pictures, key)
    assert client.submit(request, pictures, key) == first
    assert client.follow(first, pictures=pictures).state == "done"
    assert client.submit(request, pictures, key) == first
    assert len([entry for entry in client.jobs() if entry["job"] == first]) == 1


def test_a_cancelled_job_is_done_anew_when_submitted_again(client, shot):
    request, pictures = shot.request(wait_s=0.01), shot.pictures()
    first = client.submit(request, pictures, "again")
    client.cancel(first)
    second = client.submit(request, pictures, "again")
    assert second != first
    assert client.follow(second, pictures=pictures).state == "done"


def test_pictures_that_the_server_has_do_not_travel_again(server, client, shot):
    shot.run(client, gain=1.5)
    with server.client() as other:
        outcome, events, _ = shot.run(other, gain=2.5)
    assert outcome.state == "done"
    assert not [event for event in events if isinstance(event, Sent)]


@pytest.mark.fault("F20")
def test_another_client_re_attaches_by_the_jobs_id(server, client, shot, tmp_path):
    _, _, job = shot.run(client, tmp_path / "one", gain=1.25)
    with server.client() as other:
        outcome = other.follow(job, folder=tmp_path / "two")
    assert outcome.state == "done"
    one, two = (tmp_path / name / "copy" / "copy.1002.exr" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_a_layer_that_is_there_already_is_not_fetched_but_told(client, shot, tmp_path):
    _, _, job = shot.run(client, tmp_path / "out", gain=1.75)
    layer = tmp_path / "out" / "copy" / "copy.1002.exr"
    before = layer.stat()
    (tmp_path / "out" / "copy" / "copy.1003.exr").write_bytes(b"half a picture")
    events = []
    client.follow(job, folder=tmp_path / "out", on_event=events.append, have={("copy", 1001)})
    ready = sorted(event.frame for event in events if isinstance(event, LayerReady))
    assert ready == [1002, 1003]
    assert layer.stat().st_mtime_ns == before.st_mtime_ns
    assert (tmp_path / "out" / "copy" / "copy.1003.exr").stat().st_size > 100


def test_a_job_that_nobody_has_is_unknown(client):
    for ask in (client.cancel, client.job, client.release, client.follow):
        with pytest.raises(UnknownJob):
            ask("0123456789abcdef")


def test_cancel_from_the_callback_ends_a_running_job(client, shot, tmp_path):
    request, pictures = shot.request(wait_s=60.0), shot.pictures()
    job = client.submit(request, pictures, request_key(request, pictures))
    running = threading.Event()

    def watch(event):
        if isinstance(event, StateChanged) and event.state == "running":
            running.set()

    outcome = client.follow(
        job, pictures=pictures, folder=tmp_path, on_event=watch, cancelled=running.is_set
    )
    assert outcome.state == "cancelled"
    assert client.job(job)["state"] == "cancelled"


def test_a_queued_job_is_cancelled_and_the_running_one_goes_on(server, client, make_shot):
    slow, waiting = make_shot("slow"), make_shot("waiting")
    request, pictures = slow.request(wait_s=0.3), slow.pictures()
    first = client.submit(request, pictures, "slow")
    second_pictures = waiting.pictures()
    with server.client() as other:
        second = other.submit(waiting.request(), second_pictures, "waiting")
        other.cancel(second)
        assert other.follow(second, pictures=second_pictures).state == "cancelled"
    assert client.follow(first, pictures=pictures).state == "done"


def test_a_worker_that_is_killed_fails_its_job_and_nobody_elses(server, make_shot, tmp_path):
    doomed, other = make_shot("doomed"), make_shot("other")
    outcomes = {}

    def go(name, shot, **knobs):
        with server.client() as client:
            outcomes[name] = shot.run(client, tmp_path / name, **knobs)[0]

    threads = [
        threading.Thread(target=go, args=("doomed", doomed), kwargs={"die": "kill", "wait_s": 0.1}),
        threading.Thread(target=go, args=("other", other)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outcomes["doomed"].state == "failed"
    assert isinstance(outcomes["doomed"].error, Quarantined)
    assert "ended by SIGKILL; that happened 2 times" in outcomes["doomed"].error.message
    assert outcomes["other"].state == "done"


def test_a_worker_that_leaves_by_itself_says_its_exit_code(client, shot):
    outcome, events, _ = shot.run(client, die="exit")
    assert "exit code 3" in outcome.error.message
    said = [event.sentence for event in events if isinstance(event, Warned)]
    assert [sentence[-17:] for sentence in said] == ["(attempt 2 of 2)."]
    assert shot.run(client)[0].state == "done"


def test_an_exception_nobody_foresaw_becomes_one_sentence_with_a_mark(client, shot):
    outcome, _, _ = shot.run(client, raise_at=1002)
    assert outcome.state == "failed"
    assert isinstance(outcome.error, InternalError)
    assert "Traceback" not in str(outcome.error)
    assert outcome.error.details["id"]


def test_released_layers_are_dropped_and_the_job_can_be_done_anew(server, client, shot, tmp_path):
    _, _, job = shot.run(client, tmp_path / "out", gain=3.0)
    client.release(job)
    assert not (server.config.spool / "jobs" / job / "layers").exists()
    assert client.job(job)["released"] is True
    again = client.follow(job, folder=tmp_path / "again")
    assert again.state == "done"
    assert again.manifest["layers"]["copy"]
    _, _, second = shot.run(client, gain=3.0)
    assert second != job


def test_a_wrong_secret_opens_nothing(server):
    with (
        Client(server.here.address, "0" * 64) as stranger,
        pytest.raises(Unauthorised, match="does not open"),
    ):
        stranger.connect()


def test_the_secret_is_compared_in_constant_time(server, monkeypatch):
    seen = []
    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: seen.append((a, b)) or real(a, b))
    with server.client():
        pass
    assert seen == [(server.here.secret.encode(), server.here.secret.encode())]


def test_a_frame_larger_than_the_credit_goes_both_ways(server, tmp_path, exr, make_shot):
    write, read = exr
    big = make_shot("big", frames=FrameRange(1001, 1001))
    pixels = np.zeros((2160, 4096, 3), np.float32)
    pixels[::7, ::5] = 0.25
    big.files["plate"][1001] = write(big.folder / "big.exr", pixels, compression="none")
    assert big.files["plate"][1001].stat().st_size > 100_000_000
    with server.client(credit_bytes=100_000) as client:
        outcome, _, _ = big.run(client, tmp_path / "out")
    assert outcome.state == "done"
    made = tmp_path / "out" / "copy" / "copy.1001.exr"
    assert made.stat().st_size > 100_000
    assert np.array_equal(read(made), pixels)
