# SPDX-License-Identifier: Apache-2.0
"""Beyond loopback: who has a key that is let in gets in, everybody else gets a sentence."""

import ctypes
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import zmq

from fakes.rawzmq import RawPeer
from gencomp_nuke import checking
from gencomp_protocol import sockets
from gencomp_protocol.client import Client, request_key
from gencomp_protocol.codec import encode
from gencomp_protocol.errors import MalformedMessage, ServerBusy, ServerUnreachable, Unauthorised
from gencomp_protocol.keys import ClientKeys, write_key_file
from gencomp_protocol.locate import find_server
from gencomp_protocol.messages import Hello, JobQuery, Jobs
from gencomp_protocol.version import PROTOCOL_VERSION
from gencomp_server import door as the_door
from gencomp_server import doorkeeper, zap
from gencomp_server.cli import main
from gencomp_server.config import ServerConfig
from gencomp_server.door import Door
from gencomp_server.doorkeeper import Doorkeeper, Wire
from gencomp_server.keys import KeyFolder
from gencomp_server.service import Service

ROOT = Path(__file__).parents[3]
MOST_S = 3.0  # By when a client has its sentence.


class Seat:
    """A server beyond loopback with one key that is let in, and who tries to come in."""

    def __init__(self, make_server, tmp_path):
        self.folder = KeyFolder(tmp_path / "keys")
        self.server_key = self.folder.make_server_key()
        self.keys = self.new("ada@ws12")
        self.folder.allow("ada@ws12", self.keys.public)
        self.server = make_server(host="0.0.0.0", keys=self.folder.folder)
        self.address = self.server.here.public.replace("0.0.0.0", "127.0.0.1")
        self.door = self.server.service._door

    def new(self, name="", server=None):
        """Return keys that the server may or may not let in."""
        return ClientKeys(server or self.server_key, *sockets.new_pair(), name)

    def client(self, keys, address=None, **more):
        return Client(address or self.address, "", keys=keys, **more)

    def refused(self, keys, address=None):
        """Return the sentence that a client gets, in time; nothing reaches the application."""
        heard = self.door.counts["heard"]
        began = time.monotonic()
        with (
            self.client(keys, address) as stranger,
            pytest.raises((Unauthorised, ServerUnreachable)) as raised,
        ):
            stranger.connect()
        assert time.monotonic() - began < MOST_S
        assert self.door.counts["heard"] == heard
        return str(raised.value)


@pytest.fixture(scope="module")
def seat(running, tmp_path_factory):
    return Seat(running, tmp_path_factory.mktemp("seat"))


@pytest.mark.fault("F13")
@pytest.mark.fault("F14")
def test_a_key_that_is_let_in_does_a_job_and_its_name_is_the_account(seat, shot, tmp_path):
    with seat.client(seat.keys, account="somebody else") as client:
        client.connect()
        outcome, _, job = shot.run(client, tmp_path / "out")
        assert outcome.state == "done"
        assert client.job(job)["account"] == "ada@ws12"
    assert (tmp_path / "out" / "copy" / "copy.1002.exr").is_file()


def test_one_key_has_no_more_connections_than_one_may(seat, monkeypatch):
    monkeypatch.setattr(the_door, "MOST_OF_ONE", 3)
    keeper = seat.door._keeper
    wait_for(lambda: not keeper.count("ada@ws12", Wire()))
    clients = [seat.client(seat.keys) for _ in range(4)]
    for one in clients[:3]:
        one.connect()
    with pytest.raises(ServerBusy, match="has 3 connections") as raised:
        clients[3].connect()
    assert "key of its own" in raised.value.hint
    clients[0].close()
    wait_for(lambda: keeper.count("ada@ws12", Wire()) < 3)
    clients[3].connect()
    assert clients[3].jobs() is not None
    for one in clients:
        one.close()


@pytest.mark.fault("F14")
def test_a_key_that_is_not_on_the_list_gets_a_sentence_with_the_cure(seat):
    stranger = seat.new("eve")
    said = seat.refused(stranger)
    assert "does not let the key 'eve' in" in said
    assert f"gencomp keys allow eve {stranger.public}" in said


@pytest.mark.fault("F13")
def test_a_wrong_key_of_the_server_gets_a_sentence(seat):
    wrong = ClientKeys(sockets.new_pair()[0], seat.keys.public, seat.keys.secret)
    assert "another key than the one that is known here" in seat.refused(wrong)


@pytest.mark.fault("F13")
def test_a_client_without_keys_gets_a_sentence(seat):
    said = seat.refused(None)
    assert "keys only" in said


@pytest.mark.fault("F13")
def test_keys_at_a_server_that_uses_none_get_a_sentence(seat):
    assert "does not use keys" in seat.refused(seat.keys, seat.server.here.address)


@pytest.mark.fault("F13")
def test_this_machines_clients_still_come_in_with_the_secret_and_no_other_way(seat):
    assert seat.server.here.address.startswith("tcp://127.0.0.1:")
    with seat.server.client() as client:
        client.jobs()
    with Client(seat.server.here.address, "") as stranger, pytest.raises(Unauthorised):
        stranger.connect()


@pytest.mark.fault("F14")
def test_a_key_that_a_peer_on_loopback_says_of_itself_opens_nothing(seat):
    """What ZAP found and what the peer told lie in one place of ZeroMQ; a public key is public."""
    known = seat.keys.public.encode()
    with RawPeer(seat.server.here.address, User_Id=known) as eve:
        for message in (Hello(1, PROTOCOL_VERSION, ""), Jobs(2)):
            eve.send(*encode(message))
            answer = eve.frame()
            assert b"unauthorised" in answer
            assert b"welcome" not in answer


@pytest.mark.fault("F13")
def test_nothing_of_a_stranger_without_hello_reaches_the_jobs(seat):
    context = zmq.Context()
    made = sockets.client_socket(context, seat.server.here.address)
    try:
        made.send_multipart(encode(Jobs(1)))
        assert made.poll(5000)
        answer = b"".join(made.recv_multipart())
        assert b"unauthorised" in answer
        assert b"job_list" not in answer
    finally:
        made.close(linger=0)
        context.term()


@pytest.mark.fault("F14")
def test_a_key_that_is_revoked_opens_nothing_from_then_on(seat):
    with seat.client(seat.keys, find=lambda: None, timeout_s=2.0) as client:
        client.connect()
        client.jobs()
        seat.folder.revoke("ada@ws12")
        with pytest.raises(Unauthorised, match="not let"):
            client.jobs()
    assert "does not let" in seat.refused(seat.keys)
    seat.folder.allow("ada@ws12", seat.keys.public)
    with seat.client(seat.keys) as client:
        client.connect()


@pytest.mark.fault("F14")
def test_who_only_listens_is_told_nothing_more_once_the_key_is_revoked(seat, shot):
    request, pictures = shot.request(), shot.pictures()
    with seat.client(seat.keys, timeout_s=2.0) as client:
        client.connect()
        job = client.submit(request, pictures, request_key(request, pictures))
        threading.Timer(0.3, seat.folder.revoke, ["ada@ws12"]).start()
        try:
            with pytest.raises(Unauthorised, match="any more"):
                client.follow(job)  # Without pictures: it waits for ever.
            sessions = seat.server.service._sessions
            wait_for(lambda: not [one for one in sessions.all() if one.account == "ada@ws12"])
        finally:
            seat.folder.allow("ada@ws12", seat.keys.public)
    with seat.server.client() as client:
        client.cancel(job)


@pytest.mark.fault("F14")
def test_while_nobody_answers_for_keys_nobody_gets_in_and_then_they_do_again(seat, monkeypatch):
    keeper = seat.door._keeper
    monkeypatch.setattr(keeper, "_revived_s", time.monotonic() + 3600.0)

    def die(*_):
        raise RuntimeError("dead")

    monkeypatch.setattr(keeper, "_hear", die)
    wait_for(lambda: not keeper._thread.is_alive())
    heard = seat.door.counts["heard"]
    for keys in (seat.keys, seat.new()):
        refused = pytest.raises((ServerUnreachable, Unauthorised))
        with seat.client(keys, timeout_s=0.5) as client, refused:
            client.connect()
    assert seat.door.counts["heard"] == heard
    monkeypatch.undo()
    wait_for(lambda: keeper._thread.is_alive())
    with seat.client(seat.keys) as client:
        client.connect()
    assert "does not let" in seat.refused(seat.new("eve"))


@pytest.mark.fault("F14")
def test_a_doorkeeper_that_hangs_lets_nobody_in(seat, monkeypatch):
    gate = threading.Event()
    monkeypatch.setattr(seat.door._keeper, "_name_of", lambda key: gate.wait(30) and None)
    heard = seat.door.counts["heard"]
    try:
        with seat.client(seat.keys, timeout_s=0.5) as client, pytest.raises(ServerUnreachable):
            client.connect()
        assert seat.door.counts["heard"] == heard
    finally:
        gate.set()


@pytest.mark.fault("F14")
@pytest.mark.parametrize("harm", ["silent", "generous"])
def test_a_server_does_not_start_where_nobody_answers_for_keys(tmp_path, monkeypatch, harm):
    folder = KeyFolder(tmp_path / "keys")
    folder.make_server_key()
    monkeypatch.setattr(doorkeeper, "_ANSWER_MS", 300)
    if harm == "silent":
        monkeypatch.setattr(Doorkeeper, "_run", lambda self, answering: answering.close())
    else:
        yes = [b"1.0", b"1", b"200", b"OK", b"", b""]
        monkeypatch.setattr(zap, "reply", lambda request, name_of, seal: yes)
    context = zmq.Context()
    with pytest.raises(ServerUnreachable, match="nobody answers for the clients' keys"):
        Door(context, "0.0.0.0", 0, folder, 64_000_000)
    context.destroy(linger=0)


@pytest.mark.fault("F14")
def test_a_server_beyond_loopback_does_not_start_without_a_key_of_its_own(tmp_path):
    config = ServerConfig(
        host="0.0.0.0",
        keys=tmp_path / "keys",
        spool=tmp_path / "spool",
        state_file=tmp_path / "server.json",
        registry="stub_systems:REGISTRY",
    )
    with pytest.raises(Unauthorised, match="no key of this server"):
        Service(config).run()
    assert not (tmp_path / "server.json").exists()


@pytest.mark.fault("F14")
def test_even_without_zap_the_server_reads_nothing_of_a_key_that_is_not_let_in(tmp_path):
    """ZeroMQ alone lets any key in where nobody enforces ZAP: the door looks a second time."""
    folder = KeyFolder(tmp_path / "keys")
    server_key = folder.make_server_key()
    context = zmq.Context()
    door = Door(context, "0.0.0.0", 0, folder, 64_000_000)
    try:
        door._keeper._name_of = lambda key: "anybody"
        address = door.public.replace("0.0.0.0", "127.0.0.1")
        made = sockets.client_socket(context, address, ClientKeys(server_key, *sockets.new_pair()))
        made.send_multipart(encode(Hello(1, PROTOCOL_VERSION, "")))
        wait_for(lambda: door.socket.poll(0))
        letter = door.receive()
        assert isinstance(letter.fault, Unauthorised)
        assert (letter.key, door.counts["heard"]) == ("", 0)
        made.close(linger=0)
    finally:
        door.close()
        context.term()


def test_blaming_one_of_very_many_takes_no_longer_than_one_of_few(tmp_path, monkeypatch):
    context = zmq.Context()
    door = Door(context, "127.0.0.1", 0, KeyFolder(tmp_path / "keys"), 64_000_000)
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    try:
        began = time.perf_counter()
        for at in range(20_000):
            letter = the_door.Letter(at.to_bytes(5, "big"), [b"x"])
            door.blame(letter, MalformedMessage("It cannot be read."))
        assert time.perf_counter() - began < 5.0
        assert len(door._strikes) <= 10_000
        for _ in range(19):
            assert letter.identity in door._strikes
            door.blame(letter, MalformedMessage("It cannot be read."))
        assert door.counts["cut"] == 1
        now[0] += 11.0
        door.blame(the_door.Letter(b"later", [b"x"]), MalformedMessage("Nor can this."))
        assert list(door._strikes) == [b"later"]
    finally:
        monkeypatch.undo()
        door.close()
        context.term()


@pytest.mark.fault("F14")
def test_nobody_can_know_which_identity_the_next_connection_gets(tmp_path):
    """A peer may claim an identity; one that ZeroMQ is about to give ends the process."""
    found = set()
    for _ in range(3):
        context = zmq.Context()
        ctypes.CDLL(None).srand(1)  # As it is in every process that has just begun.
        door = Door(context, "127.0.0.1", 0, KeyFolder(tmp_path / "keys"), 64_000_000)
        try:
            with RawPeer(door.address) as peer:
                peer.send(b"whatever")
                assert door.socket.poll(5000)
                found.add(door.receive().identity)
        finally:
            door.close()
            context.term()
    assert len(found) == 3


def test_a_client_finds_its_way_with_one_file(seat, tmp_path):
    path = tmp_path / "seat" / "client.json"
    write_key_file(
        path,
        {
            "name": seat.keys.name,
            "public_key": seat.keys.public,
            "secret_key": seat.keys.secret,
            "server": seat.address,
            "server_key": seat.server_key,
        },
    )
    found = find_server({"GENCOMP_HOME": str(path.parent)})
    assert found.keys == seat.keys
    with Client(found.address, found.secret, keys=found.keys) as client:
        client.connect()


@pytest.mark.fault("F13")
def test_nuke_and_the_command_say_the_same_sentence_in_time(seat, tmp_path, monkeypatch, capsys):
    for name in [name for name in os.environ if name.startswith("GENCOMP_")]:
        monkeypatch.delenv(name)
    eve = seat.new("eve")
    plain = {"name": "eve", "public_key": eve.public, "secret_key": eve.secret}
    write_key_file(tmp_path / "eve.key", plain)
    monkeypatch.setenv("GENCOMP_HOME", str(tmp_path))
    monkeypatch.setenv("GENCOMP_SERVER", seat.address)
    monkeypatch.setenv("GENCOMP_KEY_FILE", str(tmp_path / "eve.key"))
    monkeypatch.setenv("GENCOMP_SERVER_KEY", seat.server_key)
    began = time.monotonic()
    finding = checking.check_server(os.environ)
    assert time.monotonic() - began < MOST_S
    assert not finding.is_good
    assert "does not let the key 'eve' in" in finding.sentence
    assert main(["jobs"]) == 3
    said = capsys.readouterr().err
    assert f"gencomp keys allow eve {eve.public}" in said
    seat.folder.allow("eve", eve.public)
    try:
        assert checking.check_server(os.environ).is_good
        assert main(["jobs"]) == 0
    finally:
        seat.folder.revoke("eve")


_STRANGER = """
import sys
sys.path[:0] = [sys.argv[3]]
from rawzmq import RawPeer
try:
    print("read", open(sys.argv[1]).read())
except OSError as error:
    print(type(error).__name__)
with RawPeer(sys.argv[2]) as peer:
    for line in sys.argv[4:]:
        peer.send(bytes.fromhex(line))
        print("unauthorised" if b"unauthorised" in peer.frame() else "in")
"""


def strange(seat, python, **more):
    """Return what a client that does not know the secret is told, by a process of its own."""
    hello = Hello(1, PROTOCOL_VERSION, "0" * 64)
    lines = [encode(one)[0].hex() for one in (hello, Jobs(2), JobQuery(3, "0" * 16))]
    words = [python, "-c", _STRANGER, str(seat.server.config.state_file)]
    words += [seat.server.here.address, str(ROOT / "tests" / "fakes"), *lines]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.fault("F13")
def test_another_process_without_the_secret_gets_nothing(seat):
    found = strange(seat, sys.executable)
    assert found[-3:] == ["unauthorised"] * 3


def test_another_user_of_this_machine_gets_nothing(seat):
    python = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin")
    if os.geteuid() != 0 or python is None:
        pytest.skip("only root can be somebody else, with a Python that everybody can run")
    found = strange(seat, python, user=65534, group=65534, extra_groups=[], env={}, cwd="/")
    assert found == ["PermissionError", *["unauthorised"] * 3]


def wait_for(fact, most_s=10.0):
    """Wait until something is so; a generous limit only ends a hang."""
    end = time.monotonic() + most_s
    while not fact():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)
