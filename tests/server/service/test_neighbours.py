# SPDX-License-Identifier: Apache-2.0
"""Client and server of neighbouring minor versions: a session of 1.1 as it was recorded.

``tests/vectors/session_1_1.json`` holds every message of a job, both ways, as client and server of
protocol 1.1 sent them; SECRET and JOB stand for what is new at each start. It is never made again.
"""

import base64
import json
import threading
from pathlib import Path

import msgpack
import pytest
import zmq

from gencomp_protocol.client import Client, request_key
from gencomp_protocol.sockets import client_socket, server_socket

VECTORS = Path(__file__).parents[2] / "vectors" / "session_1_1.json"
# What a server says when it likes; a client of 1.1 waits for the rest.
_WHENEVER = ("progress", "state", "pong", "want", "layer", "warning")
_ENDS = {
    "hello": "welcome",
    "check": "planned",
    "submit": "accepted",
    "follow": "accepted",
    "unfollow": "ok",
    "jobs": "job_list",
    "release": "ok",
    "ping": "pong",
}


@pytest.fixture(scope="module")
def session():
    return json.loads(VECTORS.read_text(encoding="utf-8"))


def kinds(value):
    """Return the shape of a header: what kind stands where; of a list its first entry's."""
    if isinstance(value, dict):
        return {key: kinds(one) for key, one in value.items()}
    if isinstance(value, list):
        return [kinds(one) for one in value[:1]]
    return "number" if isinstance(value, (int, float)) and value is not True else type(value)


def is_within(old, new):
    """Tell whether a shape has everything that an older one has; what is new may come on top."""
    if isinstance(old, dict):
        return isinstance(new, dict) and all(
            key in new and is_within(one, new[key]) for key, one in old.items()
        )
    if isinstance(old, list):
        return isinstance(new, list) and (not old or not new or is_within(old[0], new[0]))
    return old == new or type(None) in (old, new)


class Older:
    """The recorded client of 1.1, saying again what it said."""

    def __init__(self, session, server):
        self._said, self._server, self._job = session, server, ""
        self._context = zmq.Context()
        self._socket = client_socket(self._context, server.here.address)
        self.heard = {}

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._socket.close(linger=0)
        self._context.term()

    def say(self, row):
        text = json.dumps(row["header"])
        text = text.replace("SECRET", self._server.here.secret).replace("JOB", self._job)
        frames = [msgpack.packb(json.loads(text))]
        if row["body"] is not None:
            frames.append(base64.b64decode(row["body"]))
        self._socket.send_multipart(frames)

    def hear(self):
        assert self._socket.poll(20_000), "nothing arrived"
        header = msgpack.unpackb(self._socket.recv_multipart()[0])
        self.heard.setdefault(header["type"], header)
        if header["type"] == "accepted":
            self._job = header["job"]
        return header

    def hear_until(self, kind):
        while True:
            header = self.hear()
            assert header["type"] != "refusal", header
            if header["type"] == kind:
                return header


def test_a_client_of_1_1_gets_its_job_done_by_todays_server(server, session):
    chunks = [r for r in session if r["header"]["type"] == "chunk" and r["from"] == "client"]
    asked = [r for r in session if r["from"] == "client" and r["header"]["type"] in _ENDS]
    with Older(session, server) as older:
        for row in asked:
            kind = row["header"]["type"]
            if kind == "ping":
                continue  # It was asked in the midst of a job; here nothing waits for it.
            if kind == "unfollow":
                older_serves(older, chunks)
            older.say(row)
            older.hear_until(_ENDS[kind])
    assert older.heard["done"]["manifest"]["system"] == "copy"
    recorded = {}
    for row in session:
        if row["from"] == "server":
            recorded.setdefault(row["header"]["type"], row["header"])
    for kind in set(recorded) - set(_WHENEVER) - {"chunk"}:
        assert is_within(kinds(recorded[kind]), kinds(older.heard[kind])), kind
    assert is_within(kinds(recorded["layer"]), kinds(older.heard["layer"]))


def older_serves(older, chunks):
    """Send the pictures that are wanted, as they were sent, and wait until the job is done."""
    by_frame = {(r["header"]["name"], r["header"]["frame"]): r for r in chunks}
    header = {"type": ""}
    while header["type"] != "done":
        header = older.hear()
        assert header["type"] not in ("refusal", "failed"), header
        if header["type"] == "want":
            older.say(by_frame[(header["name"], header["frame"])])


class Server11:
    """A server that speaks 1.1: it answers as was recorded and refuses what 1.1 has not."""

    def __init__(self, session, minor=1, major=1):
        self._context = zmq.Context()
        self._socket, self.address = server_socket(self._context, "127.0.0.1", 0)
        self._said = {}
        for row in session:
            if row["from"] == "server":
                self._said.setdefault(row["header"]["type"], row["header"])
        self._version = [major, minor]
        self.asked, self._is_over = [], threading.Event()
        self._known = {r["header"]["type"] for r in session if r["from"] == "client"}
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._is_over.set()
        self._thread.join(10)
        self._socket.close(linger=0)
        self._context.term()

    def _run(self):
        while not self._is_over.is_set():
            if not self._socket.poll(50):
                continue
            identity, head, *_ = self._socket.recv_multipart()
            header = msgpack.unpackb(head)
            self.asked.append(header)
            kind = header["type"]
            answer = dict(self._said.get(_ENDS.get(kind, ""), {"type": "refusal"}))
            if answer["type"] == "refusal":
                answer["error"] = {"code": "malformed", "message": f"type: {kind}", "hint": ""}
            if kind == "hello":
                answer["protocol"] = self._version
            answer["id"] = header.get("id", 0)
            self._socket.send_multipart([identity, msgpack.packb(answer)])


def test_todays_client_says_to_a_server_of_1_1_only_what_1_1_has(session, shot, monkeypatch):
    monkeypatch.setenv("GENCOMP_SHOW", "alpha")
    request, pictures = shot.request(gain=2.0), shot.pictures()
    with Server11(session) as old, Client(old.address, "SECRET", client="new", timeout_s=5) as new:
        welcome = new.connect()
        assert tuple(welcome.protocol) == (1, 1)
        new.check(request)
        new.submit(request, pictures, request_key(request, pictures))
        assert new.jobs() is not None
    said = {header["type"] for header in old.asked}
    assert said >= {"hello", "check", "submit", "jobs"}
    assert said <= set(_ENDS) | {"cancel", "chunk", "withheld", "job", "want"}
    for header in old.asked:  # What is new in 1.2 may be there: unknown fields are ignored.
        known = next((r["header"] for r in session if r["header"]["type"] == header["type"]), {})
        assert set(known) <= set(header)
