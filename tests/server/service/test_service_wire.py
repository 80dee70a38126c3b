# SPDX-License-Identifier: Apache-2.0
"""The server against peers that do not follow the protocol, and links that end midway."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import msgpack
import numpy as np
import pytest
import zmq

from gencomp_protocol import messages as m
from gencomp_protocol.client import Sent, request_key
from gencomp_protocol.codec import decode, encode, to_plain
from gencomp_protocol.errors import DiskFull, MissingFrame
from gencomp_protocol.frames import FrameRange
from gencomp_protocol.sockets import client_socket
from gencomp_protocol.transfer import read_stretch
from gencomp_protocol.version import PROTOCOL_VERSION
from gencomp_server.engine import ingest
from gencomp_server.front import questions


class Peer:
    """A DEALER that says whatever a test wants."""

    def __init__(self, server):
        self._context = zmq.Context()
        self._socket = client_socket(self._context, server.here.address)
        self._secret = server.here.secret

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._socket.close(linger=0)
        self._context.term()

    def send(self, message):
        self.send_raw(encode(message))

    def send_raw(self, frames):
        self._socket.send_multipart(frames)

    def receive(self):
        """Return the next message; a generous limit only ends a hang."""
        assert self._socket.poll(20_000), "nothing arrived"
        return decode(self._socket.recv_multipart())

    def await_(self, kind):
        """Return the next message of a type, passing over others."""
        while True:
            message = self.receive()
            if isinstance(message, kind):
                return message

    def hello(self):
        self.send(m.Hello(1, (1, 0), self._secret))
        return self.await_(m.Welcome)


@pytest.fixture
def peer(server):
    with Peer(server) as made:
        yield made


def submission(shot, key, **knobs):
    """Return the submit of a shot's job."""
    inputs = tuple(
        m.InputPictures(
            name, tuple(m.PictureEntry(n, p.bytes, p.digest) for n, p in frames.items())
        )
        for name, frames in shot.pictures().items()
    )
    return m.Submit(2, key, shot.request(**knobs), inputs)


@pytest.mark.parametrize(
    "message",
    [
        m.Jobs(5),
        m.Ping(5),
        m.Follow(5, "0" * 16, True),
        m.Want("0" * 16, "layer", "copy", 1, 0, 1),
    ],
    ids=lambda message: message.TYPE,
)
def test_before_a_hello_everything_is_unauthorised(peer, message):
    peer.send(message)
    refusal = peer.await_(m.Refusal)
    assert refusal.error.code == "unauthorised"
    assert refusal.error.details == {"hello": True}
    assert refusal.id == getattr(message, "id", 0)


@pytest.mark.fault("F25")
@pytest.mark.parametrize(("theirs", "older"), [((0, 9), "client"), ((2, 0), "server")])
def test_a_client_of_another_major_version_is_told_both(peer, theirs, older):
    peer.send(m.Hello(1, theirs, "irrelevant"))
    refusal = peer.await_(m.Refusal)
    assert refusal.error.code == "version-mismatch"
    assert f"{theirs[0]}.{theirs[1]}" in refusal.error.message
    assert ".".join(map(str, PROTOCOL_VERSION)) in refusal.error.message
    assert f"Upgrade the {older}" in refusal.error.hint
    peer.send(m.Jobs(2))
    assert peer.await_(m.Refusal).error.code == "unauthorised"


@pytest.mark.fault("F25")
@pytest.mark.parametrize("minor", [0, 1, PROTOCOL_VERSION[1] + 1, 9])
def test_a_client_of_a_newer_minor_version_is_welcome(peer, server, minor):
    peer.send(m.Hello(1, (1, minor), server.here.secret))
    assert peer.await_(m.Welcome).protocol == PROTOCOL_VERSION
    peer.send(m.Jobs(2))
    assert peer.await_(m.JobList).id == 2


@pytest.mark.fault("F25")
def test_fields_that_a_newer_client_adds_are_passed_over(peer, server, shot):
    newer = {"hue": [1, {"deep": None}], "zeta": "x" * 1000}
    for message in (m.Hello(1, (1, 9), server.here.secret), submission(shot, "newer")):
        plain = {"type": message.TYPE, **to_plain(message), **newer}
        if message.TYPE == "submit":
            plain["request"].update(newer)
            plain["inputs"][0]["pictures"][0].update(newer)
        peer.send_raw([msgpack.packb(plain)])
    assert peer.await_(m.Welcome).id == 1
    assert peer.await_(m.Accepted).state == "receiving"


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([b""], id="nothing"),
        pytest.param([b"\xc1" * 100], id="noise"),
        pytest.param([os.urandom(1 << 20)], id="a megabyte of noise"),
        pytest.param([b"\x91" * 100_000], id="very deep"),
        pytest.param([b"\xdd\xff\xff\xff\xff"], id="a false count"),
        pytest.param([b"\x80"] * 500, id="five hundred parts"),
    ],
)
def test_garbage_is_refused_and_the_connection_still_works(peer, frames):
    peer.hello()
    peer.send_raw(frames)
    assert peer.await_(m.Refusal).error.code == "malformed-message"
    peer.send(m.Ping(9))
    assert peer.await_(m.Pong).id == 9


def test_a_message_of_the_servers_own_is_not_taken_from_a_client(peer):
    peer.hello()
    peer.send(m.Pong(9))
    assert "does not send pong" in peer.await_(m.Refusal).error.message


def test_a_chunk_that_nobody_wanted_is_refused(peer):
    peer.hello()
    peer.send(m.Chunk("0" * 16, "input", "plate", 1001, 0, b"surprise"))
    assert "was not wanted" in peer.await_(m.Refusal).error.message


def test_a_layer_that_is_not_there_is_withheld(peer):
    peer.hello()
    peer.send(m.Want("../../etc", "layer", "../passwd", 1, 0, 100))
    withheld = peer.await_(m.Withheld)
    assert (withheld.name, withheld.error.code) == ("../passwd", "missing-frame")


@pytest.mark.fault("F22")
def test_wants_beyond_the_credit_are_refused_and_not_served(peer, client, shot):
    _, _, job = shot.run(client)
    peer.hello()
    for _ in range(8):
        peer.send(m.Want(job, "layer", "copy", 1001, 0, 8_000_000))
    peer.send(m.Want(job, "layer", "copy", 1001, 0, 1))
    refusals = [peer.await_(m.Refusal) for _ in range(9)]
    assert "credit of 64000000" in refusals[-1].error.message


def test_a_job_that_has_not_ended_cannot_be_released(peer, shot):
    peer.hello()
    peer.send(submission(shot, "unreleased"))
    job = peer.await_(m.Accepted).job
    peer.send(m.Release(3, job))
    assert "has not ended" in peer.await_(m.Refusal).error.message
    peer.send(m.Cancel(4, job))
    assert peer.await_(m.Acknowledged).id == 4


def test_pictures_are_not_wanted_of_a_follower_that_does_not_serve(peer, shot):
    peer.hello()
    peer.send(submission(shot, "unserved"))
    job = peer.await_(m.Accepted).job
    peer.send(m.Follow(3, job, serves=False))
    assert [type(peer.receive()) for _ in range(2)] == [m.Accepted, m.StateEvent]
    peer.send(m.Ping(4))
    assert peer.receive() == m.Pong(4)
    peer.send(m.Cancel(5, job))
    assert peer.await_(m.CancelledEvent).job == job


def test_a_picture_withheld_refuses_the_job_with_the_owners_reason(peer, shot):
    peer.hello()
    peer.send(submission(shot, "withheld"))
    job = peer.await_(m.Accepted).job
    peer.send(m.Follow(3, job, serves=True))
    want = peer.await_(m.Want)
    gone = MissingFrame("'plate' frame 1001 is gone.")
    peer.send(m.Withheld(job, "input", want.name, want.frame, gone))
    assert peer.await_(m.FailedEvent).error.message == "'plate' frame 1001 is gone."


@pytest.mark.parametrize("number", ["ENOSPC", "EMFILE", ["ENOSPC"]], ids=["disk", "files", "odd"])
def test_a_client_whose_disk_is_full_has_nobody_else_wait(server, peer, shot, number):
    peer.hello()
    peer.send(submission(shot, f"full-{len(number)}"))
    job = peer.await_(m.Accepted).job
    peer.send(m.Follow(3, job, serves=True))
    want = peer.await_(m.Want)
    full = DiskFull("The disk is full." + "\x1b[2J" * 5000, errno=number, report="another")
    peer.send(m.Withheld(job, "input", want.name, want.frame, full))
    error = peer.await_(m.FailedEvent).error
    assert (error.code, error.message[:17]) == ("disk-full", "The disk is full.")
    assert len(error.message) < 5000
    assert "\x1b" not in error.message
    assert error.details == {"input": want.name, "frame": want.frame, "report": job}
    assert not server.service._storeroom.is_short


def test_pictures_that_cannot_be_judged_are_of_their_own_job_alone(
    server, client, make_shot, tmp_path, monkeypatch
):
    true = ingest.check_ingest

    def judge(system, request, pictures):
        if request.knobs.get("seed") == 13:
            raise OverflowError("nobody foresaw it")
        return true(system, request, pictures)

    monkeypatch.setattr(ingest, "check_ingest", judge)
    outcome, _, _ = make_shot("odd").run(client, tmp_path / "odd", seed=13)
    assert outcome.state == "refused"
    assert outcome.error.code == "internal-error"
    outcome, _, _ = make_shot("even").run(client, tmp_path / "even", seed=14)
    assert outcome.state == "done"


@pytest.mark.parametrize(
    ("harm", "states"),
    [
        (DiskFull("The disk is full.", errno="ENOSPC"), ["done", "done"]),
        (OverflowError("nobody foresaw it"), ["done", "refused"]),
    ],
    ids=["full", "unforeseen"],
)
def test_what_stops_one_job_from_being_queued_loses_no_other(
    in_thread, make_shot, monkeypatch, harm, states
):
    server = in_thread()
    intake, table = server.service._intake, server.service._table
    judged, move, faults = [], table.move, [harm]
    true = intake.outcomes

    def together():
        judged.extend(true())
        found, judged[:] = (list(judged), []) if len(judged) == 2 else ([], judged)
        return found

    def failing(job, state, *more):
        if state == "queued" and faults:
            raise faults.pop()
        return move(job, state, *more)

    monkeypatch.setattr(intake, "outcomes", together)
    monkeypatch.setattr(table, "move", failing)
    with server.client() as client, server.client() as other:
        jobs = []
        for name, sender in (("one", client), ("two", other)):
            shot = make_shot(name)
            request, pictures = shot.request(), shot.pictures()
            jobs.append((sender, sender.submit(request, pictures, name), pictures))
        with ThreadPoolExecutor(2) as pool:
            ends = [pool.submit(one.follow, job, pictures=its) for one, job, its in jobs]
            assert sorted(end.result(30).state for end in ends) == states


def test_a_client_with_a_long_name_leaves_the_list_of_jobs_to_all(peer, shot):
    peer.hello()
    jobs = []
    for at in range(9):
        said = submission(shot, f"long-{at}")
        named = replace(said.request, client="x" * 1_000_000)
        peer.send(replace(said, id=10 + at, request=named))
        jobs.append(peer.await_(m.Accepted).job)
    peer.send(m.Jobs(30))
    listed = {one["job"]: one for one in peer.await_(m.JobList).jobs}
    assert set(jobs) <= set(listed)
    assert listed[jobs[0]]["client"] == "x" * 128
    for at, job in enumerate(jobs):
        peer.send(m.Cancel(40 + at, job))
        peer.await_(m.Acknowledged)


@pytest.mark.parametrize(("limit", "most"), [("MOST_LISTED", 3), ("_LIST_BYTES", 1500)])
def test_a_list_of_very_many_jobs_holds_the_newest_and_what_has_not_ended(
    in_thread, shot, monkeypatch, limit, most
):
    monkeypatch.setattr(questions, limit, most)
    server = in_thread()
    with Peer(server) as peer:
        peer.hello()
        jobs = []
        for at in range(12):
            peer.send(submission(shot, f"many-{at}"))
            jobs.append(peer.await_(m.Accepted).job)
            if at:
                peer.send(m.Cancel(4, jobs[-1]))
                peer.await_(m.Acknowledged)
        peer.send(m.Jobs(30))
        listed = [one["job"] for one in peer.await_(m.JobList).jobs]
        assert listed == [*jobs[: -len(listed) : -1], jobs[0]]
        assert 2 <= len(listed) <= 4
        peer.send(m.Cancel(4, jobs[0]))
        peer.await_(m.Acknowledged)


def test_a_key_that_somebody_else_planted_gets_nobody_their_job(server, shot):
    found = []
    for account in ("eve", "ada", "ada"):
        with Peer(server) as peer:
            peer.send(m.Hello(1, (1, 2), server.here.secret, "test", account))
            peer.await_(m.Welcome)
            peer.send(submission(shot, "planted"))
            found.append(peer.await_(m.Accepted).job)
    assert found[0] != found[1] == found[2]
    with server.client() as client:
        for job in set(found):
            client.cancel(job)


def test_what_one_client_began_another_goes_on_with_at_the_offset(
    server, client, exr, make_shot, tmp_path
):
    write, _ = exr
    shot = make_shot("resumed", frames=FrameRange(1001, 1001))
    pixels = np.arange(1500 * 2000 * 3, dtype=np.float32).reshape(1500, 2000, 3)
    path = shot.files["plate"][1001] = write(shot.folder / "big.exr", pixels, compression="none")
    size = path.stat().st_size
    with Peer(server) as first:
        first.hello()
        first.send(submission(shot, "resumed"))
        job = first.await_(m.Accepted).job
        first.send(m.Follow(3, job, serves=True))
        for _ in range(2):
            want = first.await_(m.Want)
            first.send(read_stretch(path, size, want))
        first.await_(m.Want)
        first.send(m.Ping(9))
        first.await_(m.Pong)
    with Peer(server) as second:
        second.hello()
        second.send(m.Follow(3, job, serves=True))
        assert second.await_(m.Want).offset == 2 * 8 * 1024 * 1024
    outcome = client.follow(job, pictures=shot.pictures(), folder=tmp_path / "out")
    assert outcome.state == "done"


def test_a_picture_that_another_client_owes_is_asked_of_us_once_it_is_gone(server, client, shot):
    request, pictures = shot.request(gain=1.125), shot.pictures()
    job = client.submit(request, pictures, request_key(request, pictures))
    with Peer(server) as peer:
        peer.hello()
        peer.send(submission(shot, "same-pictures"))
        other = peer.await_(m.Accepted).job
        peer.send(m.Follow(3, other, serves=True))
        peer.await_(m.Want)  # It is asked first, and does not answer.
        events = []
        peer.send(m.Cancel(4, other))
        peer.await_(m.CancelledEvent)
        outcome = client.follow(job, pictures=pictures, on_event=events.append)
    assert outcome.state == "done"
    assert sorted(e.frame for e in events if isinstance(e, Sent)) == [1001, 1002, 1003]
