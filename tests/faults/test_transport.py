# SPDX-License-Identifier: Apache-2.0
"""Links that break, stall, lose and crawl, and ends of them that die: a real server, real bytes."""

import json
import random
import threading
import time
from dataclasses import replace

import psutil
import pytest

from faults.artist import order_of
from faults.peer import Peer
from faults.proxy import Lossy, TcpProxy
from faults.stage import Server, make_shot, send
from gencomp_protocol import messages as m
from gencomp_protocol.client import Client, LayerReady, Sent, StateChanged, request_key
from gencomp_protocol.codec import decode
from gencomp_protocol.transfer import digest_of_file

CREDIT, CHUNK = 1 << 20, 1 << 17
FRAMES = tuple(range(1001, 1009))
BIG = {"frames": FRAMES, "width": 320, "height": 240, "grain": True}  # 0.46 MB a frame
OVERHEAD = 1.02  # Headers of messages and of ZeroMQ, heartbeats, what is said of the job.
DETECT_S = 5.0
SLOW = pytest.mark.slow


@pytest.fixture
def server(tmp_path):
    with Server(tmp_path / "server", credit_bytes=CREDIT, chunk_bytes=CHUNK) as made:
        yield made


@pytest.fixture
def proxy(server):
    with TcpProxy(lambda: server.here.address) as made:
        yield made


def through(proxy, server):
    """Return a client that reaches the server through a proxy, also after it was started again."""

    def find():
        return replace(server.here, address=proxy.address)

    client = Client(proxy.address, server.here.secret, timeout_s=60.0, find=find)
    client.connect()
    return client


def submit(client, shot, **knobs):
    request, pictures = order_of(shot, knobs)
    return client.submit(request, pictures, request_key(request, pictures)), pictures


def digests(manifest):
    """Return the digest of every layer frame that a manifest names."""
    return {
        (layer, int(frame)): one["digest"]
        for layer, facts in manifest["layers"].items()
        for frame, one in facts["frames"].items()
    }


def delivered(out):
    """Return the digest of every layer frame in a folder."""
    return {
        (path.parent.name, int(path.name.split(".")[1])): digest_of_file(path)
        for path in out.rglob("*.exr")
        if not path.name.startswith(".")
    }


def count_jobs(server):
    with server.client() as client:
        return len(client.jobs())


def memory_of(server):
    """Return the bytes of main memory that the front has."""
    return psutil.Process(server.process.pid).memory_info().rss


# --- F19: the server dies while it receives ------------------------------------------------------


@pytest.mark.fault("F19", "F31")
@pytest.mark.parametrize(
    "share", [pytest.param(0.1, marks=SLOW), 0.5, pytest.param(0.9, marks=SLOW)]
)
def test_after_a_kill_in_an_upload_no_more_is_sent_twice_than_the_credit_and_a_frame(
    server, proxy, tmp_path, share
):
    shot = make_shot(tmp_path / "shot", seed=round(share * 10), **BIG)
    sent = []
    with through(proxy, server) as client:
        job, pictures = submit(client, shot)
        sizes = [picture.bytes for frames in pictures.values() for picture in frames.values()]

        def kill_in_time(event):
            if isinstance(event, Sent):
                sent.append(event)
                if len(sent) == max(1, round(share * len(sizes))):
                    server.kill()
                    server.start()

        outcome = client.follow(
            job, pictures=pictures, folder=tmp_path / "out", on_event=kill_in_time
        )
    assert outcome.state == "done"
    assert delivered(tmp_path / "out") == digests(outcome.manifest)
    again = proxy.sent / OVERHEAD - sum(sizes)
    assert again <= CREDIT + max(sizes), f"{again:.0f} bytes were sent twice"
    assert count_jobs(server) == 1


# --- F20: the client dies while layers arrive ----------------------------------------------------


@SLOW
@pytest.mark.fault("F20", "F39")
def test_when_the_client_is_killed_while_layers_arrive_another_gets_the_same_bits(server, tmp_path):
    shot = make_shot(tmp_path / "shot", seed=77, **BIG)
    client = send(server.state_file, [(shot, {"wait_s": 0.05})])
    for line in client.stdout:
        said = json.loads(line)
        if said["event"] == "accepted":
            job = said["job"]
        if said["event"] == "layer":
            break
    client.kill()
    client.communicate()
    seen = delivered(shot / "out")
    with server.client() as other:
        outcome = other.follow(job, folder=tmp_path / "other")
    assert outcome.state == "done"
    assert delivered(tmp_path / "other") == digests(outcome.manifest)
    assert 0 < len(seen) < len(digests(outcome.manifest))
    assert seen.items() <= digests(outcome.manifest).items()
    assert count_jobs(server) == 1


@SLOW
@pytest.mark.fault("F20")
def test_of_clients_that_died_no_memory_is_left_once_they_are_forgotten(tmp_path):
    credit = 8 << 20
    settings = {"credit_bytes": credit, "chunk_bytes": CHUNK}
    with Server(tmp_path / "server", "faults.impatient:REGISTRY", **settings) as server:
        job = done_job(server, tmp_path)
        die_while_fetching(server, job, credit)
        time.sleep(3.0)
        before = memory_of(server)
        for _ in range(8):
            die_while_fetching(server, job, credit)
        time.sleep(3.0)
        assert memory_of(server) - before < credit


def done_job(server, folder):
    """Have a job done whose layers are some 20 MB; return its id."""
    shot = make_shot(folder / "large", seed=5, **{**BIG, "width": 960, "height": 640})
    with server.client() as client:
        job, pictures = submit(client, shot)
        assert client.follow(job, pictures=pictures).state == "done"
    return job


def announced(peer, job):
    """Follow a job that is done; return its layers."""
    peer.send(m.Follow(peer.next_id(), job))
    layers = []
    while not isinstance(message := peer.receive(), m.DoneEvent):
        if isinstance(message, m.LayerEvent):
            layers.append(message)
    return layers


def want(peer, layers, most_bytes):
    """Want stretches of layers, and read none of the answers; return how many bytes were wanted."""
    wanted = 0
    for layer in layers:
        for offset in range(0, layer.bytes - CHUNK, CHUNK):
            if wanted + CHUNK <= most_bytes:
                peer.send(m.Want(layer.job, m.LAYER, layer.layer, layer.frame, offset, CHUNK))
                wanted += CHUNK
    return wanted


def die_while_fetching(server, job, credit):
    """Be a client that wants all it may, reads nothing and is gone."""
    with TcpProxy(lambda: server.here.address) as proxy:
        peer = Peer(proxy.address, server.here.secret)
        peer.hello()
        layers = announced(peer, job)
        proxy.is_full = True
        want(peer, layers, credit)
        time.sleep(0.3)
        peer.close()


# --- F21: links that drop, stall, or are forgotten -----------------------------------------------


def follow_through(proxy, server, shot, out, act):
    """Send a shot through a proxy and act once half of it is sent; say what came of it.

    Returns:
        The outcome, and how many seconds after ``act`` the client began to make its link again,
        and had it again; None where it never had to.
    """
    noted = {}
    with through(proxy, server) as client:
        job, pictures = submit(client, shot, wait_s=0.02)
        reconnect, half = client._link.reconnect, sum(map(len, pictures.values())) // 2
        sent = []

        def watched(*given):
            noted.setdefault("found", time.monotonic())
            welcome = reconnect(*given)
            noted.setdefault("back", time.monotonic())
            return welcome

        def note(event):
            if isinstance(event, Sent):
                sent.append(event)
                if len(sent) == half:
                    noted["act"] = time.monotonic()
                    act()

        client._link.reconnect = watched
        outcome = client.follow(job, pictures=pictures, folder=out, on_event=note)
    found, back = (noted[at] - noted["act"] if at in noted else None for at in ("found", "back"))
    return outcome, found, back


@pytest.mark.fault("F21")
@pytest.mark.parametrize("how", ["drop", pytest.param("forget", marks=SLOW)])
def test_a_link_that_is_gone_is_found_out_and_made_again_within_five_seconds(
    server, proxy, tmp_path, measured, how
):
    shot = make_shot(tmp_path / "shot", seed=21, **BIG)
    act = getattr(proxy, how)
    outcome, found, back = follow_through(proxy, server, shot, tmp_path / "out", act)
    assert outcome.state == "done"
    assert delivered(tmp_path / "out") == digests(outcome.manifest)
    lost = {"drop": "a link that dropped", "forget": "a link that a router forgot"}[how]
    measured(f"found out: {lost}", found, "s", most=DETECT_S)
    measured(f"reconnect: {lost}", back, "s", most=DETECT_S)
    assert count_jobs(server) == 1


@SLOW
@pytest.mark.fault("F21")
@pytest.mark.parametrize("stall_s", [6.0, 30.0])
def test_a_line_that_stalls_is_found_out_and_the_job_goes_on_when_it_is_back(
    server, proxy, tmp_path, measured, stall_s
):
    shot = make_shot(tmp_path / "shot", seed=22, **BIG)
    ends = []

    def stall():
        proxy.is_deaf = True
        ends.append(time.monotonic() + stall_s)
        threading.Timer(stall_s, lambda: setattr(proxy, "is_deaf", False)).start()

    outcome, found, back = follow_through(proxy, server, shot, tmp_path / "out", stall)
    assert outcome.state == "done"
    assert delivered(tmp_path / "out") == digests(outcome.manifest)
    measured(f"found out: a line that stalls for {stall_s:.0f} s", found, "s", most=DETECT_S)
    most = DETECT_S if stall_s < 10 else 2 * DETECT_S
    measured(f"reconnect after a stall of {stall_s:.0f} s", back - stall_s, "s", most=most)
    assert count_jobs(server) == 1


# --- F22: a client that does not read ------------------------------------------------------------


@SLOW
@pytest.mark.fault("F22")
def test_for_a_client_that_does_not_read_the_server_holds_no_more_than_its_credit(tmp_path):
    credit = 16 << 20
    with (
        Server(tmp_path / "server", credit_bytes=credit, chunk_bytes=CHUNK) as server,
        TcpProxy(lambda: server.here.address) as proxy,
        Peer(proxy.address, server.here.secret) as peer,
    ):
        job = done_job(server, tmp_path)
        peer.hello()
        layers = announced(peer, job)
        proxy.is_full = True
        before, most = memory_of(server), 0
        # What is beyond the credit is refused, and costs nothing.
        assert want(peer, layers, 2 * credit) > 1.2 * credit
        with server.client() as other:  # Nobody else waits, and no worker.
            for seed in (1, 2, 3):
                shot = make_shot(tmp_path / f"small{seed}", seed=seed)
                began = time.monotonic()
                other_job, pictures = submit(other, shot)
                assert other.follow(other_job, pictures=pictures).state == "done"
                assert time.monotonic() - began < DETECT_S
                most = max(most, memory_of(server) - before)
    assert most <= 1.1 * credit, f"{most / credit:.2f} of the credit"


@SLOW
@pytest.mark.fault("F22")
def test_a_job_runs_to_its_end_while_its_client_sleeps(server, proxy, tmp_path):
    shot = make_shot(tmp_path / "shot", seed=23, **BIG)
    asleep = []
    with through(proxy, server) as client:
        job, pictures = submit(client, shot, wait_s=0.1)

        def sleep_over(event):
            if isinstance(event, StateChanged) and event.state == "running" and not asleep:
                asleep.append(time.monotonic())
                with server.client() as other:
                    while other.job(job)["state"] == "running":
                        time.sleep(0.05)
                    asleep.append(other.job(job)["state"])

        outcome = client.follow(
            job, pictures=pictures, folder=tmp_path / "out", on_event=sleep_over
        )
    assert asleep[1] == "done"
    assert delivered(tmp_path / "out") == digests(outcome.manifest)


# --- F23: lines that are late, narrow, and lose --------------------------------------------------


@SLOW
@pytest.mark.fault("F23")
@pytest.mark.parametrize(
    ("delay_s", "jitter_s", "bytes_per_s"),
    [
        pytest.param(0.1, 0.0, 0, id="late"),
        pytest.param(0.02, 0.08, 0, id="unsteady"),
        pytest.param(0.0, 0.0, 2_000_000, id="narrow"),
        pytest.param(0.05, 0.05, 2_000_000, id="all of it"),
    ],
)
def test_over_a_bad_line_the_same_bits_arrive_later(
    server, proxy, tmp_path, delay_s, jitter_s, bytes_per_s
):
    shot = make_shot(tmp_path / "shot", seed=24, **BIG)
    proxy.delay_s, proxy.jitter_s, proxy.bytes_per_s = delay_s, jitter_s, bytes_per_s
    with through(proxy, server) as client:
        job, pictures = submit(client, shot)
        outcome = client.follow(job, pictures=pictures, folder=tmp_path / "out")
    assert outcome.state == "done"
    assert len(digests(outcome.manifest)) == 2 * len(FRAMES)
    assert delivered(tmp_path / "out") == digests(outcome.manifest)
    assert count_jobs(server) == 1


@pytest.mark.fault("F23")
@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=SLOW)])
def test_when_one_chunk_in_a_hundred_is_lost_the_same_bits_arrive(tmp_path, seed):
    dice = random.Random(seed)

    def loses(frames):
        return len(frames) > 1 and isinstance(decode(frames), m.Chunk) and dice.random() < 0.01

    shot = make_shot(tmp_path / "shot", seed=25, **BIG)
    ready = []
    with Server(tmp_path / "server", credit_bytes=CREDIT, chunk_bytes=8192) as server:
        with (
            Lossy(server.here.address, loses) as line,
            Client(line.address, server.here.secret, timeout_s=60.0) as client,
        ):
            client.connect()
            job, pictures = submit(client, shot)
            outcome = client.follow(
                job,
                pictures=pictures,
                folder=tmp_path / "out",
                on_event=lambda event: (
                    ready.append(event) if isinstance(event, LayerReady) else None
                ),
            )
        assert outcome.state == "done"
        assert delivered(tmp_path / "out") == digests(outcome.manifest)
        assert len(ready) == 2 * len(FRAMES)
        assert line.lost > 3
        assert count_jobs(server) == 1
