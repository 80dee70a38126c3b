# SPDX-License-Identifier: Apache-2.0
"""A server without a machine behind it: speaks the protocol, answers from a folder of EXRs.

Whatever job comes, it takes the pictures and delivers the layers that lie in its folder as
``<layer>/<layer>.<frame:04d>.exr``. A test sets what it refuses, whether it fails or waits, and
reads afterwards what it was asked and sent. Runs under Python 3.9, in a thread of the test, or by
itself: ``python tests/fakes/server.py FOLDER`` writes ``server.json`` like a real one.
"""

import errno
import json
import os
import sys
import threading
from hashlib import blake2b
from pathlib import Path

import zmq

from gencomp_protocol import PROTOCOL_VERSION, sockets
from gencomp_protocol.codec import decode, encode
from gencomp_protocol.errors import Unauthorised, UnknownJob
from gencomp_protocol.locate import home_folder
from gencomp_protocol.messages import (
    CHUNK_BYTES,
    CREDIT_BYTES,
    INPUT,
    Accepted,
    Acknowledged,
    Cancel,
    CancelledEvent,
    Check,
    Chunk,
    DoneEvent,
    FailedEvent,
    Follow,
    Hello,
    JobList,
    JobQuery,
    LayerEvent,
    Ping,
    Planned,
    Pong,
    ProgressEvent,
    Refusal,
    Release,
    StateEvent,
    Submit,
    Unfollow,
    Want,
    WarningEvent,
    Welcome,
)
from gencomp_protocol.transfer import read_stretch

SECRET = "the secret of the fake server"


class Job:
    """What the fake knows of one job."""

    def __init__(self, name, submit):
        self.name, self.submit = name, submit
        self.pictures = {}  # (input, frame) -> bytes received
        self.missing = [(one.name, entry) for one in submit.inputs for entry in one.pictures]
        self.taken = 0
        self.is_over = self.is_cancelled = False


class FakeServer:
    """The fake; a context manager that runs it in a thread.

    Args:
        folder: Folder of the layers to deliver.
        home: Folder for ``server.json``; None writes none.
    """

    def __init__(self, folder, home=None):
        self.folder, self.home = Path(folder), home
        self.turns_away = None  # Error that answers a hello.
        self.refuses = None  # Error that answers a check.
        self.fails = None  # Error that ends a job once its pictures are here.
        self.fails_at = {}  # The same, by the name of the job.
        self.plan = {}  # What a check is told.
        self.place = 1  # In the queue; whoever is further back than the first stays there.
        self.progress = ("solve", 1, 3, 65.0)  # The one progress that a job tells.
        self.warns = []  # Sentences sent along.
        self.backbone = None  # What the manifest says of a video model.
        self.goes_on = threading.Event()  # Cleared: jobs stop short of their layers.
        self.goes_on.set()
        self.is_deaf = False  # Whether a running job goes on after a cancel was heard.
        self.stops_before = set()  # Names of jobs that stop short of theirs for good.
        self.is_running_job = threading.Event()
        self.hellos, self.requests, self.jobs = [], [], {}
        self.cancelled, self.released = [], []
        self._context = zmq.Context()
        self._socket, self.address = sockets.server_socket(self._context, "127.0.0.1", 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._waiting = []

    def __enter__(self):
        if self.home is not None:
            write_server_file(self.home, self.address, SECRET)
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        self._thread.join(10)
        self._socket.close(linger=0)
        self._context.term()

    def run(self):
        """Serve until the process is ended."""
        write_server_file(self.home, self.address, SECRET)
        self._loop()

    # --- the loop --------------------------------------------------------------------------------

    def _loop(self):
        while not self._stop.is_set():
            if self._socket.poll(20):
                peer, *frames = self._socket.recv_multipart()
                self._answer(peer, decode(frames))
            if self.goes_on.is_set():
                waiting, self._waiting = self._waiting, []
                for peer, job in waiting:
                    if job.name not in self.stops_before:
                        self._deliver(peer, job)

    def _send(self, peer, message):
        try:
            self._socket.send_multipart([peer, *encode(message)])
        except zmq.ZMQError as error:
            if error.errno != errno.EHOSTUNREACH:  # A client that was killed.
                raise

    def _answer(self, peer, message):
        if isinstance(message, (Follow, JobQuery)) and message.job not in self.jobs:
            error = UnknownJob(f"The server has no job '{message.job}'.", hint="Submit it again.")
            self._send(peer, Refusal(message.id, error))
        elif isinstance(message, JobQuery):
            job = self.jobs[message.job]
            state = "receiving" if job.missing else "done" if job.is_over else "running"
            self._send(peer, JobList(message.id, ({"job": job.name, "state": state},)))
        elif isinstance(message, Hello):
            self.hellos.append(message.client)
            if self.turns_away is not None:
                self._send(peer, Refusal(message.id, self.turns_away))
                return
            if message.secret != SECRET:
                error = Unauthorised("The secret is wrong.", hello=True)
                self._send(peer, Refusal(message.id, error))
                return
            limits = {"chunk_bytes": CHUNK_BYTES, "credit_bytes": CREDIT_BYTES}
            answer = Welcome(message.id, PROTOCOL_VERSION, "fake", limits, (), "idle")
            self._send(peer, answer)
        elif isinstance(message, Check):
            self.requests.append(message.request)
            good = Planned(message.id, self.plan)
            bad = Refusal(message.id, self.refuses) if self.refuses else None
            self._send(peer, bad or good)
        elif isinstance(message, Submit):
            name = f"job{len(self.jobs) + 1}"
            self.jobs[name] = Job(name, message)
            self._send(peer, Accepted(message.id, name, "receiving"))
        elif isinstance(message, Follow):
            self._send(peer, Accepted(message.id, message.job, "receiving"))
            self._want_next(peer, self.jobs[message.job])
        elif isinstance(message, Chunk):
            self._take(peer, self.jobs[message.job], message)
        elif isinstance(message, Want):
            path = self.folder / message.name / f"{message.name}.{message.frame:04d}.exr"
            self._send(peer, read_stretch(path, path.stat().st_size, message))
        elif isinstance(message, Cancel):
            self.cancelled.append(message.job)
            self.jobs[message.job].is_cancelled = True
            self._send(peer, Acknowledged(message.id))
            if not self.is_deaf:
                self._send(peer, CancelledEvent(message.job))
        elif isinstance(message, (Release, Unfollow)):
            if isinstance(message, Release):
                self.released.append(message.job)
            self._send(peer, Acknowledged(message.id))
        elif isinstance(message, Ping):
            self._send(peer, Pong(message.id))

    # --- pictures in -----------------------------------------------------------------------------

    def _want_next(self, peer, job):
        """Ask for the next stretch; one at a time, in order."""
        if not job.missing:
            self._run(peer, job)
            return
        name, entry = job.missing[0]
        here = len(job.pictures.get((name, entry.frame), b""))
        length = min(CHUNK_BYTES, entry.bytes - here)
        self._send(peer, Want(job.name, INPUT, name, entry.frame, here, length, job.taken))

    def _take(self, peer, job, chunk):
        place = (chunk.name, chunk.frame)
        job.pictures[place] = job.pictures.get(place, b"") + chunk.body
        job.taken += len(chunk.body)
        name, entry = job.missing[0]
        whole = job.pictures[place]
        if len(whole) == entry.bytes:
            assert blake2b(whole, digest_size=32).hexdigest() == entry.digest, name
            job.missing.pop(0)
        self._want_next(peer, job)

    # --- layers out ------------------------------------------------------------------------------

    def _run(self, peer, job):
        self._send(peer, StateEvent(job.name, "queued", self.place))
        if self.place > 1:
            return
        self._send(peer, StateEvent(job.name, "running"))
        self._send(peer, ProgressEvent(job.name, *self.progress))
        for sentence in self.warns:
            self._send(peer, WarningEvent(job.name, sentence))
        self._waiting.append((peer, job))
        self.is_running_job.set()

    def _deliver(self, peer, job):
        if job.is_cancelled:
            return
        job.is_over = True
        fails = self.fails_at.get(job.name, self.fails)
        if fails is not None:
            self._send(peer, FailedEvent(job.name, fails))
            return
        layers = {}
        for path in sorted(self.folder.glob("*/*.exr")):
            layer, frame = path.parent.name, int(path.name.split(".")[-2])
            if frame not in job.submit.request.frames:
                continue
            body = path.read_bytes()
            digest = blake2b(body, digest_size=32).hexdigest()
            self._send(peer, LayerEvent(job.name, layer, frame, len(body), digest))
            entry = layers.setdefault(layer, {"channels": list("RGBA"), "frames": {}})
            entry["frames"][str(frame)] = {"digest": digest, "bytes": len(body)}
        knobs = dict(job.submit.request.knobs)
        told = {"system": "omnimatte", "knobs": knobs, "backbone": self.backbone}
        manifest = {**told, "layers": layers}
        self._send(peer, DoneEvent(job.name, manifest))


def write_server_file(home, address, secret):
    """Write ``server.json`` as a running server does: whole, and for its owner alone."""
    home = Path(home)
    home.mkdir(parents=True, exist_ok=True)
    part = home / ".server.json.part"
    part.touch(mode=0o600)
    text = {"address": address, "secret": secret, "pid": os.getpid(), "version": "fake"}
    part.write_text(json.dumps(text), encoding="utf-8")
    os.replace(part, home / "server.json")


if __name__ == "__main__":
    FakeServer(sys.argv[1], home_folder()).run()
