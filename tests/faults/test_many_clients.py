# SPDX-License-Identifier: Apache-2.0
"""Fifty clients at once: each is answered soon, each gets its job, none gets another's."""

import random
import time

import pytest

from faults.artist import order_of
from faults.peer import Peer
from faults.stage import Server, make_shot
from gencomp_protocol import messages as m
from gencomp_protocol.client import request_key

CLIENTS, JOBS = 50, 2
ANSWERED_S = 0.2
SPAN_S = 8.0
END_S = 180.0


def submission(shot, number, knobs):
    """Return the submit of a job, its pictures with it."""
    request, pictures = order_of(shot, knobs)
    inputs = tuple(
        m.InputPictures(
            name, tuple(m.PictureEntry(n, one.bytes, one.digest) for n, one in frames.items())
        )
        for name, frames in pictures.items()
    )
    return m.Submit(number, request_key(request, pictures), request, inputs)


@pytest.mark.slow
@pytest.mark.fault("F24")
def test_of_fifty_clients_at_once_each_is_answered_within_200_ms_and_gets_its_jobs(
    tmp_path, measured
):
    shot = make_shot(tmp_path / "shot", seed=50, frames=(1001,))
    with Server(tmp_path / "server", device="cpu,cpu") as server:
        with server.client() as first:  # The pictures are there; that is another test's.
            request, pictures = order_of(shot, {})
            job = first.submit(request, pictures, request_key(request, pictures))
            assert first.follow(job, pictures=pictures).state == "done"
        peers = [Peer(server.here.address, server.here.secret) for _ in range(CLIENTS)]
        for number, peer in enumerate(peers):
            peer.hello(account=f"artist{number}")
        dice = random.Random(50)
        plan = sorted((dice.uniform(0, SPAN_S), n) for n in range(CLIENTS) for _ in range(JOBS))
        waits, jobs = [], {}
        began = time.monotonic()
        for at, number in plan:
            time.sleep(max(0.0, began + at - time.monotonic()))
            peer = peers[number]
            knobs = {"gain": 0.5 + len(waits) / 1000}
            message = submission(shot, peer.next_id(), knobs)
            asked = time.monotonic()
            peer.send(message)
            answer = peer.await_(m.Accepted)
            waits.append(time.monotonic() - asked)
            jobs.setdefault(number, []).append(answer.job)
        late = sorted(waits)[int(0.95 * len(waits))]
        measured(f"submit p95 of {CLIENTS} clients", late, "s", most=ANSWERED_S)
        with server.client() as looking:
            end = time.monotonic() + END_S
            while any(one["state"] != "done" for one in looking.jobs()):
                assert time.monotonic() < end, [one["state"] for one in looking.jobs()]
                time.sleep(0.2)
            assert len(looking.jobs()) == CLIENTS * JOBS + 1
        assert len({job for own in jobs.values() for job in own}) == CLIENTS * JOBS
        for peer in peers:
            peer.close()
