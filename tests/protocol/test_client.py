# SPDX-License-Identifier: Apache-2.0
"""The client against a scripted server: refusals, silence, a server that misbehaves."""

import socket
import threading
import time
from dataclasses import replace
from hashlib import blake2b

import pytest
import zmq

from gencomp_protocol import link as link_module
from gencomp_protocol import messages as m
from gencomp_protocol.client import Client, LayerReady, Picture, Sent, Warned, request_key
from gencomp_protocol.codec import decode, encode
from gencomp_protocol.errors import (
    BadPicture,
    Cancelled,
    LinkTimeout,
    MalformedMessage,
    ServerUnreachable,
    Unauthorised,
    UnwritableOutput,
    VersionMismatch,
)
from gencomp_protocol.frames import FrameRange
from gencomp_protocol.locate import ServerFile
from gencomp_protocol.request import InputHeader, Request
from gencomp_protocol.sockets import server_socket
from gencomp_protocol.version import PROTOCOL_VERSION
from gencomp_protocol.whose import account_here

JOB = "3f9a6c01d2e4b587"
LAYER = b"\x76\x2f\x31\x01" * 500
DIGEST = blake2b(LAYER, digest_size=32).hexdigest()
REQUEST = Request("copy", FrameRange(1, 1), (InputHeader("plate", (1,)),))
LIMITS = {"credit_bytes": 64000000, "chunk_bytes": 1024, "message_bytes": 16777216}


def picture(path, content=b"pixels" * 100):
    """Write a picture file; return what is announced of it."""
    path.write_bytes(content)
    return Picture(path, len(content), blake2b(content, digest_size=32).hexdigest())


class Script:
    """A ROUTER in a thread that answers each type of message as it is told.

    Answers are functions of the message that return the messages to send back.
    """

    def __init__(self):
        self.context = zmq.Context()
        self.socket, self.address = server_socket(self.context, "127.0.0.1", 0)
        self.seen, self._over = [], False
        self.answers = {
            m.Hello: lambda hello: [m.Welcome(hello.id, (1, 0), "0.1.0", LIMITS, (), "ready")],
            m.Follow: lambda follow: [m.Accepted(follow.id, follow.job, "running")],
            m.Ping: lambda ping: [m.Pong(ping.id)],
            m.Cancel: lambda cancel: [m.Acknowledged(cancel.id), m.CancelledEvent(cancel.job)],
        }
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while not self._over:
            if not self.socket.poll(20):
                continue
            identity, *frames = self.socket.recv_multipart()
            message = decode(frames)
            self.seen.append(message)
            for answer in self.answers.get(type(message), lambda _: [])(message):
                try:
                    self.socket.send_multipart([identity, *encode(answer)])
                except zmq.ZMQError as error:  # The client has gone before it was answered.
                    if error.errno != zmq.EHOSTUNREACH:
                        raise

    def of(self, kind):
        """Return the messages of a type that were seen."""
        return [message for message in self.seen if isinstance(message, kind)]

    def close(self):
        self._over = True
        self._thread.join()
        self.socket.close()
        self.context.term()


@pytest.fixture
def script():
    made = Script()
    yield made
    made.close()


@pytest.fixture
def client(script, monkeypatch):
    # On a busy machine the scripted server's thread may not run for seconds: that is no lost link.
    monkeypatch.setattr(link_module, "_LOST_S", 60.0)
    with Client(script.address, "s", timeout_s=60.0) as made:
        made.connect()
        yield made


def announce(*events):
    """Return an answer to follow that adds these events."""
    return lambda follow: [m.Accepted(follow.id, follow.job, "running"), *events]


def layer(frame=1, content=LAYER, digest=DIGEST):
    return m.LayerEvent(JOB, "a", frame, len(content), digest)


def give(content):
    """Return an answer to want that sends these bytes."""

    def answer(want):
        body = content[want.offset : want.offset + want.length]
        return [m.Chunk(want.job, want.what, want.name, want.frame, want.offset, body)]

    return answer


def test_nobody_at_the_address_is_told_at_once():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ServerUnreachable, match="gencomp serve"):
        Client(f"tcp://127.0.0.1:{port}", "s").connect()


def test_something_that_is_no_server_is_told_apart():
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"tcp://127.0.0.1:{other.getsockname()[1]}"
        stranger = Client(address, "s", timeout_s=0.2)
        with pytest.raises(ServerUnreachable, match="does not answer as a gencomp server"):
            stranger.connect()
        stranger.close()


@pytest.mark.fault("F25")
@pytest.mark.parametrize(
    "error",
    [
        VersionMismatch("The client speaks protocol 1.0, the server 2.0."),
        Unauthorised("The secret does not open this server."),
    ],
    ids=["version", "secret"],
)
def test_a_refused_hello_is_raised_as_it_was_sent(script, error):
    script.answers[m.Hello] = lambda hello: [m.Refusal(hello.id, error)]
    with Client(script.address, "s") as stranger, pytest.raises(type(error)) as raised:
        stranger.connect()
    assert raised.value.message == error.message


def test_the_welcome_tells_limits_and_version(script):
    with Client(script.address, "s", client="test 1") as made:
        welcome = made.connect()
    assert (welcome.server_version, welcome.protocol) == ("0.1.0", (1, 0))
    assert welcome.limits == LIMITS
    assert script.of(m.Hello)[0] == m.Hello(1, PROTOCOL_VERSION, "s", "test 1", account_here())


def test_an_answer_that_does_not_come_is_a_timeout(script):
    with Client(script.address, "s", timeout_s=0.2) as made:
        made.connect()
        with pytest.raises(LinkTimeout):
            made.jobs()


def test_a_server_that_forgot_us_is_told_hello_again(script, client):
    forgot = Unauthorised("Say hello first.", hello=True)
    answers = [m.Refusal, m.JobList]

    def answer(jobs):
        if answers.pop(0) is m.Refusal:
            return [m.Refusal(jobs.id, forgot)]
        return [m.JobList(jobs.id, ())]

    script.answers[m.Jobs] = answer
    assert client.jobs() == []
    assert len(script.of(m.Hello)) == 2


def test_a_server_that_goes_away_twice_while_it_is_asked_is_asked_a_third_time(script, monkeypatch):
    monkeypatch.setattr(link_module, "_QUIET_S", 0.05)
    monkeypatch.setattr(link_module, "_LOST_S", 0.1)
    second, third = Script(), Script()
    for mute in (script, second):
        mute.answers[m.Ping] = lambda ping: []
    third.answers[m.Jobs] = lambda jobs: [m.JobList(jobs.id, ())]
    there = [third.address, second.address]

    def find():
        return ServerFile(there.pop() if len(there) > 1 else there[0], "t")

    with Client(script.address, "s", timeout_s=60.0, find=find) as client:
        client.connect()
        found = client.jobs()
    second.close()
    third.close()
    assert found == []
    assert len(second.of(m.Hello)) == 1


def test_a_server_that_dies_before_it_answers_a_hello_is_looked_up_again(script, monkeypatch):
    monkeypatch.setattr(link_module, "_QUIET_S", 0.05)
    monkeypatch.setattr(link_module, "_LOST_S", 0.1)
    script.answers[m.Ping] = lambda ping: []
    script.answers[m.Jobs] = lambda jobs: []
    dying, alive = socket.create_server(("127.0.0.1", 0)), Script()
    alive.answers[m.Jobs] = lambda jobs: [m.JobList(jobs.id, ())]
    there = [alive.address, f"tcp://127.0.0.1:{dying.getsockname()[1]}"]

    def find():
        if len(there) == 1:
            return ServerFile(there[0], "t")
        threading.Timer(0.2, dying.close).start()
        return ServerFile(there.pop(), "t")

    with Client(script.address, "s", timeout_s=600.0, find=find) as client:
        client.connect()
        assert client.jobs() == []
    alive.close()


def test_an_answer_of_another_kind_is_refused(script, client):
    script.answers[m.Jobs] = lambda jobs: [m.Acknowledged(jobs.id)]
    with pytest.raises(MalformedMessage, match="ok: does not answer jobs"):
        client.jobs()


def test_a_layer_is_fetched_in_chunks_of_the_servers_size(script, client, tmp_path):
    script.answers[m.Follow] = announce(layer(), m.DoneEvent(JOB, {"seed": 0}))
    script.answers[m.Want] = give(LAYER)
    events = []
    outcome = client.follow(JOB, folder=tmp_path, on_event=events.append)
    path = tmp_path / "a" / "a.0001.exr"
    assert (outcome.state, outcome.manifest) == ("done", {"seed": 0})
    assert events == [LayerReady(JOB, "a", 1, path)]
    assert path.read_bytes() == LAYER
    assert [want.length for want in script.of(m.Want)] == [1024, 976]
    client.cancel(JOB)  # Answered after whatever was sent before it.
    assert [unfollow.job for unfollow in script.of(m.Unfollow)] == [JOB]


def test_the_credit_is_counted_from_hello_on_however_often_a_job_is_followed(
    script, client, tmp_path
):
    script.answers[m.Follow] = announce(layer(), m.DoneEvent(JOB, {}))
    script.answers[m.Want] = give(LAYER)
    client.follow(JOB, folder=tmp_path / "one")
    client.follow(JOB, folder=tmp_path / "two")
    assert [want.received for want in script.of(m.Want)] == [0, 0, 2000, 2000]


def test_a_layer_with_the_wrong_bytes_never_gets_its_name(script, client, tmp_path):
    script.answers[m.Follow] = announce(layer(), m.DoneEvent(JOB, {}))
    script.answers[m.Want] = give(b"\x00" * len(LAYER))
    with pytest.raises(BadPicture, match="'a' frame 1"):
        client.follow(JOB, folder=tmp_path)
    assert list((tmp_path / "a").iterdir()) == []


@pytest.mark.parametrize("name", ["../a", "a/b", "", "a\n", "1a"])
def test_a_layer_name_that_is_a_path_is_refused(script, client, tmp_path, name):
    script.answers[m.Follow] = announce(m.LayerEvent(JOB, name, 1, 5, DIGEST))
    with pytest.raises(MalformedMessage, match=r"layer\.layer"):
        client.follow(JOB, folder=tmp_path / "in")
    assert not (tmp_path / "in").exists()


def test_a_folder_that_cannot_be_made_is_named(script, client, tmp_path):
    (tmp_path / "file").write_text("")
    script.answers[m.Follow] = announce(layer())
    with pytest.raises(UnwritableOutput, match="file"):
        client.follow(JOB, folder=tmp_path / "file")


def test_without_a_folder_nothing_is_fetched(script, client):
    script.answers[m.Follow] = announce(layer(), m.DoneEvent(JOB, {}))
    assert client.follow(JOB).state == "done"
    assert script.of(m.Want) == []


def test_a_picture_is_sent_as_it_is_wanted(script, client, tmp_path):
    one = picture(tmp_path / "plate.exr")
    wants = [m.Want(JOB, "input", "plate", 1, 0, 500), m.Want(JOB, "input", "plate", 1, 500, 100)]
    script.answers[m.Follow] = announce(*wants)
    script.answers[m.Chunk] = lambda c: [m.DoneEvent(JOB, {})] if c.offset == 500 else []
    events = []
    client.follow(JOB, pictures={"plate": {1: one}}, on_event=events.append)
    assert b"".join(chunk.body for chunk in script.of(m.Chunk)) == b"pixels" * 100
    assert events == [Sent(JOB, "plate", 1)]
    assert script.of(m.Follow)[0].serves is True


@pytest.mark.parametrize(
    ("frame", "change", "code"),
    [
        pytest.param(2, None, "missing-frame", id="a frame we do not have"),
        pytest.param(1, b"grown" * 500, "bad-picture", id="a file that changed"),
    ],
)
def test_a_picture_that_cannot_be_sent_is_withheld(script, client, tmp_path, frame, change, code):
    one = picture(tmp_path / "plate.exr")
    if change:
        one.path.write_bytes(change)
    script.answers[m.Follow] = announce(m.Want(JOB, "input", "plate", frame, 0, 500))
    script.answers[m.Withheld] = lambda w: [m.FailedEvent(JOB, w.error)]
    outcome = client.follow(JOB, pictures={"plate": {1: one}})
    assert outcome.error.code == code


def test_a_server_that_wants_beyond_the_credit_is_refused(script, client, tmp_path):
    one = picture(tmp_path / "plate.exr")
    wants = [m.Want(JOB, "input", "plate", 1, 0, 8 << 20) for _ in range(8)]
    script.answers[m.Follow] = announce(*wants)
    with pytest.raises(MalformedMessage, match="credit"):
        client.follow(JOB, pictures={"plate": {1: one}})


def test_a_refused_job_is_told_apart_from_a_failed_one(script, client):
    error = BadPicture("It is damaged.")
    script.answers[m.Follow] = announce(m.StateEvent(JOB, "refused"), m.FailedEvent(JOB, error))
    assert client.follow(JOB).state == "refused"
    script.answers[m.Follow] = announce(m.StateEvent(JOB, "failed"), m.FailedEvent(JOB, error))
    assert client.follow(JOB).state == "failed"


def test_the_callback_cancels(script, client):
    outcome = client.follow(JOB, cancelled=lambda: True)
    assert outcome.state == "cancelled"
    assert [cancel.job for cancel in script.of(m.Cancel)] == [JOB]


def test_a_job_that_does_not_stop_is_not_waited_for_once_the_server_has_heard(script, client):
    script.answers[m.Cancel] = lambda cancel: [m.Acknowledged(cancel.id)]
    began = time.monotonic()
    assert client.follow(JOB, cancelled=lambda: True).state == "cancelled"
    assert 1 <= time.monotonic() - began < 10
    client.cancel(JOB)  # Answered after whatever was sent before it.
    assert [unfollow.job for unfollow in script.of(m.Unfollow)] == [JOB]


def test_a_job_that_stops_late_is_waited_for(script, client):
    def stop(cancel):
        time.sleep(0.5)
        return [m.Acknowledged(cancel.id), m.FailedEvent(JOB, BadPicture("It had failed."))]

    script.answers[m.Cancel] = stop
    assert client.follow(JOB, cancelled=lambda: True).state == "failed"


def test_a_warning_told_again_is_heard_once(script, client):
    warning = m.WarningEvent(JOB, "Mind the gap.")
    script.answers[m.Follow] = announce(warning, warning, m.DoneEvent(JOB, {}))
    events = []
    client.follow(JOB, on_event=events.append)
    assert events == [Warned(JOB, "Mind the gap.")]


def test_events_of_other_jobs_are_not_ours(script, client):
    other = m.FailedEvent("0000000000000000", BadPicture("Not yours."))
    script.answers[m.Follow] = announce(other, m.DoneEvent(JOB, {}))
    assert client.follow(JOB).state == "done"


@pytest.mark.fault("F21")
def test_a_link_that_drops_is_made_again_and_the_layer_goes_on_where_it_was(
    script, monkeypatch, tmp_path
):
    monkeypatch.setattr(link_module, "_QUIET_S", 0.1)
    monkeypatch.setattr(link_module, "_LOST_S", 0.2)
    second = Script()
    script.answers[m.Follow] = announce(layer())
    # The first server sends one chunk and then falls silent, listening still.
    script.answers[m.Want] = lambda want: give(LAYER)(want) if want.offset == 0 else []
    script.answers[m.Ping] = lambda ping: []
    second.answers[m.Follow] = announce(layer(), m.DoneEvent(JOB, {}))
    second.answers[m.Want] = give(LAYER)
    with Client(script.address, "s", find=lambda: ServerFile(second.address, "t")) as client:
        client.connect()
        outcome = client.follow(JOB, folder=tmp_path)
    second.close()
    assert outcome.state == "done"
    assert [want.offset for want in second.of(m.Want)] == [1024]
    assert second.of(m.Hello)[0].secret == "t"
    assert (tmp_path / "a" / "a.0001.exr").read_bytes() == LAYER


@pytest.mark.fault("F23")
def test_a_chunk_that_was_lost_is_wanted_again_once_the_server_answers_a_ping(
    script, client, monkeypatch, tmp_path
):
    monkeypatch.setattr(link_module, "_QUIET_S", 0.1)
    lost = []

    def lose_the_last(want):
        if want.offset == 1024 and not lost:
            lost.append(want)
            return []
        return give(LAYER)(want)

    script.answers[m.Follow] = announce(layer(), m.DoneEvent(JOB, {}))
    script.answers[m.Want] = lose_the_last
    assert client.follow(JOB, folder=tmp_path).state == "done"
    assert [want.offset for want in script.of(m.Want)] == [0, 1024, 1024]
    assert len(script.of(m.Hello)) == 1
    assert (tmp_path / "a" / "a.0001.exr").read_bytes() == LAYER


def test_a_server_that_never_comes_back_is_unreachable(script, monkeypatch):
    monkeypatch.setattr(link_module, "_QUIET_S", 0.05)
    monkeypatch.setattr(link_module, "_LOST_S", 0.1)
    script.answers[m.Ping] = lambda ping: []
    gone = ServerFile("tcp://127.0.0.1:1", "t")
    with Client(script.address, "s", timeout_s=0.2, find=lambda: gone) as client:
        client.connect()
        with pytest.raises(ServerUnreachable):
            client.follow(JOB)


def test_cancel_is_heard_while_the_server_is_away(script, monkeypatch):
    monkeypatch.setattr(link_module, "_QUIET_S", 0.05)
    monkeypatch.setattr(link_module, "_LOST_S", 0.1)
    script.answers[m.Ping] = lambda ping: []
    script.answers[m.Cancel] = lambda cancel: []
    gone = ServerFile("tcp://127.0.0.1:1", "t")
    away = threading.Event()

    def find():
        away.set()
        return gone

    with Client(script.address, "s", timeout_s=60.0, find=find) as client:
        client.connect()
        with pytest.raises(Cancelled, match="while the server was away"):
            client.follow(JOB, cancelled=away.is_set)


def test_the_key_of_equal_work_is_equal(tmp_path):
    one, two = picture(tmp_path / "1.exr"), picture(tmp_path / "2.exr", b"other")
    pictures = {"plate": {1: one}}
    key = request_key(REQUEST, pictures)
    other_client = Request("copy", FrameRange(1, 1), REQUEST.inputs, client="gencomp 9")
    other_knob = Request("copy", FrameRange(1, 1), REQUEST.inputs, {"seed": 1})
    assert request_key(other_client, pictures) == key
    assert request_key(other_knob, pictures) != key
    assert request_key(REQUEST, {"plate": {1: two}}) != key
    assert request_key(REQUEST, {"plate": {2: one}}) != key


def test_a_submit_names_every_picture_with_size_digest_and_kind(script, client, tmp_path):
    one = picture(tmp_path / "1.png")
    script.answers[m.Submit] = lambda submit: [m.Accepted(submit.id, JOB, "receiving")]
    assert client.submit(REQUEST, {"plate": {1: one}}, "key", {"plate": "image"}) == JOB
    entry = m.PictureEntry(1, 600, one.digest)
    assert script.of(m.Submit)[0].inputs == (m.InputPictures("plate", (entry,), "image"),)


@pytest.mark.fault("F25")
def test_a_config_is_not_sent_to_a_server_that_would_leave_it_unread(script):
    asked = replace(REQUEST, ocio="/show/config.ocio")
    with Client(script.address, "s") as made, pytest.raises(VersionMismatch, match="OCIO"):
        made.check(asked)
    assert script.of(m.Check) == []


def test_a_config_that_changed_under_its_name_is_another_job(tmp_path):
    config = tmp_path / "config.ocio"
    config.write_text("one")
    asked = replace(REQUEST, ocio=str(config))
    keys = {request_key(REQUEST, {}), request_key(asked, {})}
    config.write_text("two")
    keys.add(request_key(asked, {}))
    assert len(keys) == 3
