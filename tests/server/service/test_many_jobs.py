# SPDX-License-Identifier: Apache-2.0
"""Many jobs of several clients on several workers: shares, throughput, memory; and a flood."""

import threading
import time

import numpy as np
import psutil
import pytest

from gencomp_protocol import messages as m
from gencomp_protocol.client import request_key
from gencomp_protocol.codec import decode, encode
from gencomp_protocol.sockets import client_socket, new_context
from gencomp_protocol.version import PROTOCOL_VERSION

REGISTRY = "stub_engine:REGISTRY"
WORKERS = 4
MOST_MIB_A_JOB = 1e6 / 2**20  # A megabyte.


def jain(values):
    """Return Jain's index of fairness: 1 where all have the same, 1/n where one has all."""
    values = np.asarray(values, float)
    return float(values.sum() ** 2 / (len(values) * (values**2).sum()))


def slope(points):
    """Return by how much the second figure grows with the first."""
    x, y = np.array(points, float).T
    return float(np.polyfit(x, y, 1)[0]) if len(set(x)) > 1 else 0.0


class Watch:
    """The memory of a server's processes against how many jobs have ended."""

    def __init__(self, server, ended):
        self._server, self._ended = server, ended
        self.points = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._over.set()
        self._thread.join()

    def _run(self):
        front = psutil.Process(self._server.process.pid)
        while not self._over.wait(0.2):
            seen = [("front", front)] + [
                (f"worker {one.pid}", one)
                for one in front.children()
                if "spawn_main" in " ".join(one.cmdline())
            ]
            for name, one in seen:
                entry = (len(self._ended), one.memory_info().rss / 2**20)
                self.points.setdefault(name, []).append(entry)

    def slopes(self, warm):
        """Return MiB per job by process, once so many jobs have ended."""
        settled = {n: [p for p in own if p[0] >= warm] for n, own in self.points.items()}
        return {name: slope(own) for name, own in settled.items() if len(own) > 5}


def demand(server, shot, account, lengths, folder, ended, begin):
    """Submit jobs of so many seconds each as one account, and follow them all to their ends."""
    pictures = shot.pictures()
    begin.wait()
    with server.client(account=account) as client:
        jobs = []
        for tag, seconds in lengths:
            request = shot.request("engine", tag=tag, steps=2, step_s=seconds / 2)
            jobs.append(client.submit(request, pictures, request_key(request, pictures)))
        for job in jobs:
            outcome = client.follow(job, pictures=pictures, folder=folder / job)
            ended.append((account, job, outcome.state))
            layers = sorted(path.name for path in (folder / job / "copy").glob("*.exr"))
            assert layers == [f"copy.{n}.exr" for n in shot.frames]


@pytest.mark.fault("F24")
@pytest.mark.fault("F34")
@pytest.mark.parametrize(
    ("jobs", "seconds"), [(20, 0.3), pytest.param(200, 3.0, marks=pytest.mark.slow)]
)
def test_three_clients_share_four_workers(
    process, shot, tmp_path, wait_until, measured, jobs, seconds
):
    server = process(
        registry=REGISTRY, device=",".join(["cpu"] * WORKERS), log_level="warning", quota_jobs=0
    ).start()
    ended, begin = [], threading.Event()
    # Very unequal demands, of jobs of unequal length; the greediest comes first.
    wanted = {"ann": (0.5, 0.75), "bob": (0.3, 1.25), "cid": (0.2, 1.25)}
    tags = iter(range(jobs * 2))
    with server.client(account="warm") as client:
        wait_until(lambda: client.connect().worker == "ready")
        health = client.health
        wait_until(lambda: all(w["state"] == "ready" for w in health()["workers"]))
        request, pictures = shot.request("engine", tag=10**6), shot.pictures()
        client.follow(
            client.submit(request, pictures, request_key(request, pictures)), pictures=pictures
        )
        clients = []
        for account, (share, length) in wanted.items():
            lengths = [(next(tags), seconds * length) for _ in range(round(jobs * share))]
            given = (server, shot, account, lengths, tmp_path / account, ended, begin)
            clients.append(threading.Thread(target=demand, args=given))
        with Watch(server, ended) as watch:
            for thread in clients:
                thread.start()
            began = time.time()
            begin.set()
            for thread in clients:
                thread.join(250)
        done = [job for job in client.jobs() if job["account"] in wanted]
    assert [state for _, _, state in ended] == ["done"] * jobs
    assert len({job["job"] for job in done}) == jobs

    # While all of them have something to wait for, each gets the same.
    own = {name: [job for job in done if job["account"] == name] for name in wanted}
    contended = min(max(job["started_s"] for job in jobs_) for jobs_ in own.values())
    had = {
        name: sum(
            max(0.0, min(job["ended_s"], contended) - job["started_s"])
            for job in jobs_
            if job["started_s"] < contended
        )
        for name, jobs_ in own.items()
    }
    fairness = jain(list(had.values()))
    work = sum(seconds * length * round(jobs * share) for share, length in wanted.values())
    wall = max(job["ended_s"] for job in done) - began
    throughput = work / WORKERS / wall
    held = jobs == 200  # Of a few, the first and the last leave workers idle for too much of it.
    measured(f"Jain fairness, {jobs} jobs", fairness, least=0.95 if held else None)
    measured(f"throughput of ideal, {jobs} jobs", throughput, least=0.9 if held else None)
    for name, found in watch.slopes(jobs // 4).items():
        who = name.partition(" ")[0]
        measured(f"memory slope of a {who}, {jobs} jobs", found, "MiB a job", most=MOST_MIB_A_JOB)


# --- a flood -------------------------------------------------------------------------------------


def flood(here, request, inputs, over, answers):
    """Send one submit after the other and never wait for an answer; note which came."""
    context = new_context()
    socket = client_socket(context, here.address)
    socket.send_multipart(encode(m.Hello(1, PROTOCOL_VERSION, here.secret, account="flood")))
    number = 1
    while not over.is_set():
        for _ in range(20):
            number += 1
            socket.send_multipart(encode(m.Submit(number, f"flood{number}", request, inputs)))
        while socket.poll(1):
            message = decode(socket.recv_multipart())
            answers.append(message.error.code if isinstance(message, m.Refusal) else message.TYPE)
    socket.close(0)
    context.destroy(0)


@pytest.mark.slow
@pytest.mark.fault("F24")
def test_fifty_clients_are_answered_at_once_while_another_floods(process, shot, measured):
    server = process(
        registry=REGISTRY, device="cpu,cpu", log_level="warning", quota_jobs=20
    ).start()
    request, pictures = shot.request("engine", step_s=0.2), shot.pictures()
    inputs = tuple(
        m.InputPictures(name, tuple(m.PictureEntry(n, p.bytes, p.digest) for n, p in own.items()))
        for name, own in pictures.items()
    )
    over, answers, took, lock = threading.Event(), [], [], threading.Lock()
    flooding = threading.Thread(target=flood, args=(server.find(), request, inputs, over, answers))

    def ask(number):
        with server.client(account=f"artist{number}") as client:
            time.sleep(0.04 * number)
            for turn in range(4):
                own = shot.request("engine", tag=1000 + 10 * number + turn)
                before = time.monotonic()
                client.submit(own, pictures, request_key(own, pictures))
                with lock:
                    took.append(time.monotonic() - before)
                time.sleep(0.5)

    with server.client() as client:
        job = client.submit(request, pictures, "warm")
        client.follow(job, pictures=pictures)
    flooding.start()
    artists = [threading.Thread(target=ask, args=(number,)) for number in range(50)]
    for thread in artists:
        thread.start()
    for thread in artists:
        thread.join(120)
    over.set()
    flooding.join(30)
    assert len(took) == 200
    measured("submit p50 of 50 clients, one more floods", float(np.median(took)), "s")
    late = float(np.percentile(took, 95, method="higher"))
    measured("submit p95 of 50 clients, one more floods", late, "s", most=0.2)
    with server.client() as client:
        known = client.jobs()
    flooded = [job for job in known if job["account"] == "flood"]
    assert answers.count("quota-exceeded") > 100
    assert answers.count("accepted") == len(flooded)
    # While the others worked, the flood had no more than its share.
    ended = [job for job in known if job["state"] == "done" and job["account"] != "unnamed"]
    assert sum(job["account"] == "flood" for job in ended) <= 60
