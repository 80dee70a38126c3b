# SPDX-License-Identifier: Apache-2.0
"""Peers that mean harm: floods, bombs, noise, and messages that are played back."""

import dataclasses
import struct
import threading
import time
from contextlib import contextmanager, suppress

import numpy as np
import psutil
import pytest
import zmq

from fakes.rawzmq import MORE, RawPeer, frame
from gencomp_protocol import messages as m
from gencomp_protocol.client import request_key
from gencomp_protocol.codec import decode, encode
from gencomp_protocol.sockets import client_socket
from gencomp_protocol.transfer import read_stretch
from gencomp_protocol.version import PROTOCOL_VERSION
from gencomp_server import doorkeeper

MOST_GROWTH = 200 << 20
CREDIT = 1 << 20


def hello(secret):
    return encode(m.Hello(1, PROTOCOL_VERSION, secret))


# --- attacks; each ends with the connection cut --------------------------------------------------


def oversized(peer):
    """A frame that says it has 17 MiB, and brings them."""
    peer.link.sendall(frame(b"", size=17 << 20))
    for _ in range(17):
        peer.link.sendall(bytes(1 << 20))


def announced(peer):
    """A frame that says it has 2^60 bytes."""
    peer.link.sendall(frame(b"x", size=1 << 60))


def tiny_parts(peer):
    """One message of ten thousand parts."""
    peer.send(*[b"x"] * 10_000)


def endless(peer):
    """One message that never ends."""
    parts = frame(b"x" * 200, MORE) * 500
    for _ in range(5000):
        peer.link.sendall(parts)
    raise AssertionError("half a gigabyte was taken")


def bombs(peer):
    """Small messages that would be large if they were read."""
    for body in (
        b"\x91" * 60_000,
        b"\xdd\x00\x00\xea\x60" * 12_000,
        b"\xdf\x7f\xff\xff\xff" + b"\x80" * 50_000,
        struct.pack(">BI", 0xC6, 0xFFFFFFFF),
    ) * 5:
        peer.send(body)


def large_bombs(peer):
    """Messages as large as may be, full of empty maps."""
    body = b"\xdd\x00\x00\x00\x28" + (b"\xdd\x00\x03\x0d\x40" + b"\x80" * 200_000) * 40
    for _ in range(6):
        peer.send(body)


def noise(peer):
    """Frames that are no messages."""
    for at in range(200):
        peer.send(bytes([at % 256]) * (at + 1))


def wrong_types(peer):
    """Messages whose fields are of other types."""
    for at in range(200):
        peer.send(b"\x83\xa4type\xa4jobs\xa2id\xc3\xa4most" + bytes([0xE0 | at % 32]))


ATTACKS = (oversized, announced, tiny_parts, endless, bombs, large_bombs, noise, wrong_types)


@contextmanager
def bystander(client, lags):
    """Keep another client asking meanwhile, and note how long each answer takes."""
    over = threading.Event()

    def ask():
        while not over.wait(0.01):
            began = time.monotonic()
            client.jobs()
            lags.append(time.monotonic() - began)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.fault("F15")
def test_hostile_peers_are_cut_counted_and_bounded_and_nobody_else_notices(process, shot, tmp_path):
    server = process(credit_bytes=CREDIT).start()
    here = server.find()
    front = psutil.Process(server.process.pid)
    lags = []
    with server.client() as client, server.client() as other:
        shot.run(client, tmp_path / "first")
        quiet_bytes = most_bytes = front.memory_info().rss
        with bystander(other, lags):
            for attack in ATTACKS:
                for knows_secret in (False, True):
                    with RawPeer(here.address) as peer:
                        if knows_secret:
                            peer.send(*hello(here.secret))
                            assert b"welcome" in peer.frame()
                        with suppress(OSError):
                            attack(peer)
                        name = f"{attack.__name__}, {'with' if knows_secret else 'without'} secret"
                        assert peer.is_cut(), f"{name}: the connection is still there"
                    most_bytes = max(most_bytes, front.memory_info().rss)
                    time.sleep(0.1)
            # Promises that nobody keeps, and what is no ZeroMQ at all.
            waiting = [RawPeer(here.address) for _ in range(50)]
            for peer in waiting:
                peer.link.sendall(frame(b"x", size=15 << 20))
            strangers = [RawPeer(here.address, greet=False) for _ in range(50)]
            for peer in strangers:
                peer.link.sendall(b"GET / HTTP/1.1\r\n\r\n" * 20)
            time.sleep(0.3)
            most_bytes = max(most_bytes, front.memory_info().rss)
            outcome, _, _ = shot.run(client, tmp_path / "second", gain=2.0)
            for peer in (*waiting, *strangers):
                peer.link.close()
        counts = client.health()["counts"]
    assert outcome.state == "done"
    assert most_bytes - quiet_bytes < MOST_GROWTH
    assert counts["door:cut"] >= 10
    assert counts["door:malformed"] >= 40
    lags.sort()
    assert len(lags) > 20
    assert lags[int(len(lags) * 0.95)] < 0.5
    assert lags[-1] < 3.0


@pytest.mark.fault("F15")
def test_a_client_that_sends_much_of_what_is_wanted_is_not_cut(server, shot, tmp_path):
    cut = server.service._door.counts["cut"]
    with server.client() as client:
        for at in range(3):
            outcome, _, _ = shot.run(client, tmp_path / f"out{at}", gain=1.0 + at)
            assert outcome.state == "done"
        for _ in range(500):
            client.jobs()
    assert server.service._door.counts["cut"] == cut


def test_for_a_client_that_lies_about_what_it_received_no_more_waits_than_may(
    process, shot, exr, tmp_path
):
    credit = 16 << 20
    server = process(credit_bytes=credit).start()
    here = server.find()
    front = psutil.Process(server.process.pid)
    pixels = np.random.default_rng(7).random((1000, 1500, 3), np.float32)
    for path in shot.files["plate"].values():
        exr[0](path, pixels, compression="none")
    with server.client() as client, RawPeer(here.address) as liar:
        outcome, _, job = shot.run(client, tmp_path / "out")
        size = (tmp_path / "out" / "copy" / "copy.1001.exr").stat().st_size
        length = min(size, 8 << 20)
        liar.send(*hello(here.secret))
        assert b"welcome" in liar.frame()
        quiet_bytes = most_bytes = front.memory_info().rss
        with suppress(OSError):
            for at in range(100):
                liar.send(*encode(m.Want(job, "layer", "copy", 1001, 0, length, at * length)))
                client.job(job)
                most_bytes = max(most_bytes, front.memory_info().rss)
        assert outcome.state == "done"
        assert most_bytes - quiet_bytes < credit + MOST_GROWTH
        assert liar.is_cut()
        assert client.health()["counts"]["door:cut"] == 1


# --- who says nothing, and who is many -----------------------------------------------------------


def test_who_does_not_say_hello_is_sent_away_and_who_did_stays(in_thread, monkeypatch, wait_until):
    monkeypatch.setattr(doorkeeper, "HELLO_S", 1.0)
    server = in_thread()
    door = server.service._door
    with server.client() as client, server.client() as idle, RawPeer(server.here.address) as mute:
        assert mute.is_cut()
        client.jobs()
        assert door.counts["silent"] == 1
        # Linked again by ZeroMQ, behind its back: it says hello when it has something to say.
        wires = [one.wire for one in server.service._sessions.all()]
        for wire in wires:
            door._keeper.cut(wire, "of a test")
        wait_until(lambda: door.counts["silent"] >= 3)
        assert idle.jobs() == client.jobs() == []


def test_of_many_who_do_not_say_hello_the_first_go(in_thread, monkeypatch):
    monkeypatch.setattr(doorkeeper, "MOST_STRANGERS", 8)
    server = in_thread()
    strangers = [RawPeer(server.here.address) for _ in range(20)]
    try:
        assert all(one.is_cut() for one in strangers[:12])
        with server.client() as client:
            assert client.jobs() == []
        assert not strangers[-1].is_cut(0.2)
    finally:
        for one in strangers:
            one.link.close()


def test_a_session_is_not_gone_on_with_by_the_next_connection_of_its_name(
    server, client, shot, wait_until
):
    sessions = server.service._sessions
    job = client.submit(shot.request(), shot.pictures(), "of-that-name")
    with RawPeer(server.here.address, Identity=b"mine") as peer:
        peer.send(*hello(server.here.secret))
        assert b"welcome" in peer.frame()
        peer.send(*encode(m.Follow(3, job, False)))
        assert b"accepted" in peer.frame()
        wire = sessions.get(b"mine").wire
    wait_until(lambda: not wire.is_there)
    answer = None
    while answer is None:  # ZeroMQ ends a connection whose name is not free yet.
        with RawPeer(server.here.address, Identity=b"mine") as other:
            time.sleep(0.2)
            client.cancel(job)  # What is told of it is not for this one.
            time.sleep(0.2)
            with suppress(OSError):
                other.send(*encode(m.Jobs(4)))
                answer = other.frame()
    refusal = decode([answer])
    assert (refusal.TYPE, refusal.error.code) == ("refusal", "unauthorised")


# --- played back ---------------------------------------------------------------------------------


class Player:
    """A connection that says what was recorded, and as often as somebody likes."""

    def __init__(self, address):
        self._context = zmq.Context()
        self._socket = client_socket(self._context, address)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._socket.close(linger=0)
        self._context.term()

    def ask(self, frames, kind):
        """Send frames; return the next message of a kind."""
        self._socket.send_multipart(frames)
        return self.await_(kind)

    def await_(self, kind):
        while True:
            assert self._socket.poll(20_000), "nothing arrived"
            message = decode(self._socket.recv_multipart())
            if isinstance(message, kind):
                return message

    def serve(self, shot, job):
        """Follow a job to its end and send its pictures."""
        pictures = shot.pictures()
        self._socket.send_multipart(encode(m.Follow(50, job, True)))
        while True:
            message = self.await_((m.Want, m.DoneEvent, m.FailedEvent, m.CancelledEvent))
            if not isinstance(message, m.Want):
                return message
            picture = pictures[message.name][message.frame]
            chunk = read_stretch(picture.path, picture.bytes, message)
            self._socket.send_multipart(encode(chunk))


def recorded(shot, nonce=""):
    """Return the bytes of a submit, as a proxy would have kept them."""
    pictures = shot.pictures()
    inputs = tuple(
        m.InputPictures(
            name, tuple(m.PictureEntry(n, p.bytes, p.digest) for n, p in frames.items())
        )
        for name, frames in pictures.items()
    )
    request = shot.request()
    key = request_key(request, pictures)
    return encode(m.Submit(2, key, request, inputs, nonce=nonce or key))


def jobs_of(player):
    return [one["job"] for one in player.ask(encode(m.Jobs(99)), m.JobList).jobs]


@pytest.mark.fault("F16")
@pytest.mark.parametrize("end", ["released", "cancelled", "under way"])
def test_a_submit_that_is_played_back_makes_no_second_job(server, shot, end):
    opening, submit = hello(server.here.secret), recorded(shot)
    with Player(server.here.address) as client:
        client.ask(opening, m.Welcome)
        before = jobs_of(client)
        job = client.ask(submit, m.Accepted).job
        if end == "released":
            assert isinstance(client.serve(shot, job), m.DoneEvent)
            client.ask(encode(m.Release(3, job)), m.Acknowledged)
        elif end == "cancelled":
            client.ask(encode(m.Cancel(3, job)), m.Acknowledged)
        assert client.ask(submit, m.Accepted).job == job
    for _ in range(3):
        with Player(server.here.address) as thief:
            thief.ask(opening, m.Welcome)
            assert thief.ask(submit, m.Accepted).job == job
            assert jobs_of(thief) == [job, *before]
    if end != "under way":  # Who asks again, instead of playing back, gets a job of his own.
        with Player(server.here.address) as client:
            client.ask(opening, m.Welcome)
            assert client.ask(recorded(shot, nonce=f"twice-{end}"), m.Accepted).job != job


@pytest.mark.fault("F16")
def test_after_a_restart_nothing_that_was_recorded_opens_the_server(process, shot):
    server = process().start()
    here = server.find()
    opening, submit = hello(here.secret), recorded(shot)
    with Player(here.address) as client:
        client.ask(opening, m.Welcome)
        job = client.ask(submit, m.Accepted).job
        client.ask(encode(m.Cancel(3, job)), m.Acknowledged)
    server.kill()
    server.start()
    now = server.find()
    with Player(now.address) as thief:
        assert thief.ask(opening, m.Refusal).error.code == "unauthorised"
        assert thief.ask(submit, m.Refusal).error.code == "unauthorised"
    with Player(now.address) as client:  # Nor would it make a job for somebody who gets in.
        client.ask(hello(now.secret), m.Welcome)
        assert client.ask(submit, m.Accepted).job == job
        assert jobs_of(client) == [job]


@pytest.mark.fault("F16")
def test_requests_out_of_order_make_no_second_job(server, shot):
    with Player(server.here.address) as client:
        for early in (m.Follow(7, "0" * 16, True), m.Cancel(6, "0" * 16)):
            assert client.ask(encode(early), m.Refusal).error.code == "unauthorised"
        client.ask(hello(server.here.secret), m.Welcome)
        for early in (m.Follow(7, "0" * 16, True), m.Cancel(6, "0" * 16), m.Release(5, "0" * 16)):
            assert client.ask(encode(early), m.Refusal).error.code == "unknown-job"
        before = jobs_of(client)
        job = client.ask(recorded(shot), m.Accepted).job
        late = decode(recorded(shot))
        assert client.ask(encode(dataclasses.replace(late, id=1)), m.Accepted).job == job
        for _ in range(2):
            client.ask(encode(m.Cancel(4, job)), m.Acknowledged)
            client.ask(encode(m.Release(3, job)), m.Acknowledged)
        assert client.ask(recorded(shot), m.Accepted).state == "cancelled"
        assert jobs_of(client) == [job, *before]


@pytest.mark.fault("F16")
def test_the_client_itself_has_a_nonce_for_each_time_that_it_asks(server, shot, monkeypatch):
    seen = []
    table = server.service._table
    real = table.note_nonce
    monkeypatch.setattr(table, "note_nonce", lambda *pair: seen.append(pair) or real(*pair))
    with server.client() as client:
        request, pictures = shot.request(), shot.pictures()
        key = request_key(request, pictures)
        first = client.submit(request, pictures, key)
        assert client.submit(request, pictures, key) == first
    assert len({nonce for nonce, _ in seen}) == 2
    assert {job for _, job in seen} == {first}
