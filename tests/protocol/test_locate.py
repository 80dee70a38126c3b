# SPDX-License-Identifier: Apache-2.0
"""Finding a server: the order of places, and files that others could have touched."""

import json
import os
import socket
import stat
import sys

import pytest

from gencomp_protocol.errors import BadKnob, ServerUnreachable, Unauthorised, UnwritableOutput
from gencomp_protocol.keys import ClientKeys
from gencomp_protocol.locate import (
    ServerFile,
    find_server,
    home_folder,
    read_server_file,
    write_server_file,
)

LOCAL = ServerFile("tcp://127.0.0.1:4001", "local-secret", 12, "0.1.0")


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def environ(home):
    return {"GENCOMP_HOME": str(home)}


def private(path, text):
    """Write a file for its owner alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_a_server_file_is_read_as_it_was_written(home):
    write_server_file(home / "server.json", LOCAL)
    assert read_server_file(home / "server.json") == LOCAL
    assert stat.S_IMODE((home / "server.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert json.loads((home / "server.json").read_text())["protocol"] == [1, 2]
    assert [path.name for path in home.iterdir()] == ["server.json"]


def test_without_anything_there_is_no_server(environ):
    assert find_server(environ) is None


def test_the_local_server_is_found_last(home, environ):
    write_server_file(home / "server.json", LOCAL)
    assert find_server(environ) == LOCAL


def test_where_machines_share_a_home_folder_another_ones_server_is_not_ours(
    home, environ, monkeypatch
):
    write_server_file(home / "server.json", LOCAL)
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert read_server_file(home / "server.json").is_elsewhere
    assert find_server(environ) is None
    environ["GENCOMP_SERVER"] = LOCAL.address  # Through a tunnel, its file tells the secret.
    assert find_server(environ) == LOCAL


def test_the_users_file_comes_before_the_local_server(home, environ):
    write_server_file(home / "server.json", LOCAL)
    secret = private(home / "farm.secret", "farm-secret\n")
    plain = {"server": "tcp://127.0.0.1:5000", "secret_file": str(secret)}
    private(home / "client.json", json.dumps(plain))
    assert find_server(environ) == ServerFile("tcp://127.0.0.1:5000", "farm-secret")


def test_the_environment_comes_first(home, environ, tmp_path):
    private(home / "client.json", json.dumps({"server": "tcp://127.0.0.1:5000"}))
    secret = private(tmp_path / "secret", "env-secret")
    environ.update(GENCOMP_SERVER="tcp://127.0.0.1:6000", GENCOMP_SECRET_FILE=str(secret))
    assert find_server(environ) == ServerFile("tcp://127.0.0.1:6000", "env-secret")


def test_the_secret_file_may_be_a_server_file(environ, tmp_path):
    write_server_file(tmp_path / "theirs.json", LOCAL)
    environ.update(
        GENCOMP_SERVER="tcp://127.0.0.1:6000", GENCOMP_SECRET_FILE=str(tmp_path / "theirs.json")
    )
    assert find_server(environ) == ServerFile("tcp://127.0.0.1:6000", "local-secret")


def test_a_named_server_that_is_the_local_one_needs_no_secret_file(home, environ):
    write_server_file(home / "server.json", LOCAL)
    environ["GENCOMP_SERVER"] = LOCAL.address
    assert find_server(environ) == LOCAL


def test_a_named_server_whose_secret_is_not_known_is_an_error(home, environ):
    write_server_file(home / "server.json", LOCAL)
    environ["GENCOMP_SERVER"] = "tcp://127.0.0.1:4002"
    with pytest.raises(Unauthorised, match="GENCOMP_SECRET_FILE"):
        find_server(environ)


PAIR = {"name": "ada", "public_key": "ab" * 32, "secret_key": "cd" * 32}
REMOTE = "tcp://gpu1:5570"
KEYS = ClientKeys("ef" * 32, "ab" * 32, "cd" * 32, "ada")


def test_one_file_says_where_a_server_is_and_holds_the_keys(home, environ):
    private(home / "client.json", json.dumps({**PAIR, "server": REMOTE, "server_key": "ef" * 32}))
    assert find_server(environ) == ServerFile(REMOTE, "", keys=KEYS)
    assert "cd" * 32 not in repr(find_server(environ))
    assert "cd" * 32 not in repr(KEYS)


def test_a_key_file_is_named_by_the_environment(environ, tmp_path):
    path = private(tmp_path / "ada.key", json.dumps(PAIR))
    environ.update(GENCOMP_KEY_FILE=str(path), GENCOMP_SERVER_KEY="ef" * 32)
    assert find_server(environ) is None  # Nothing says where.
    environ["GENCOMP_SERVER"] = REMOTE
    assert find_server(environ).keys == KEYS
    del environ["GENCOMP_SERVER"], environ["GENCOMP_SERVER_KEY"]
    path.write_text(json.dumps({**PAIR, "server": REMOTE, "server_key": "ef" * 32}))
    assert find_server(environ) == ServerFile(REMOTE, "", keys=KEYS)


def test_the_users_file_knows_the_keys_of_several_servers(home, environ, tmp_path):
    path = private(tmp_path / "ada.key", json.dumps(PAIR))
    known = {"server": REMOTE, "key_file": str(path), "server_keys": {REMOTE: "ef" * 32}}
    private(home / "client.json", json.dumps(known))
    assert find_server(environ).keys == KEYS
    environ["GENCOMP_SERVER"] = "tcp://gpu2:5570"
    with pytest.raises(Unauthorised, match="public key is not known"):
        find_server(environ)


@pytest.mark.fault("F13")
def test_a_secret_is_never_sent_to_another_machine(environ, tmp_path):
    secret = private(tmp_path / "secret", "env-secret")
    environ.update(GENCOMP_SERVER=REMOTE, GENCOMP_SECRET_FILE=str(secret))
    with pytest.raises(Unauthorised, match="another machine's") as raised:
        find_server(environ)
    assert "gencomp keys new" in raised.value.hint


def test_this_machines_own_server_needs_no_key_whatever_else_is_known(home, environ, tmp_path):
    write_server_file(home / "server.json", LOCAL)
    private(home / "client.json", json.dumps({**PAIR, "server": REMOTE, "server_key": "ef" * 32}))
    environ.update(GENCOMP_SERVER=LOCAL.address, GENCOMP_SERVER_KEY="ef" * 32)
    assert find_server(environ) == LOCAL


def test_a_server_whose_key_is_known_wants_one_of_ours(environ):
    environ.update(GENCOMP_SERVER=REMOTE, GENCOMP_SERVER_KEY="ef" * 32)
    with pytest.raises(Unauthorised, match="no key of yours"):
        find_server(environ)


def test_where_a_server_takes_clients_with_keys_stands_in_its_file(home):
    here = ServerFile(LOCAL.address, "s", 1, "0.1.0", public=REMOTE, public_key="ef" * 32)
    write_server_file(home / "server.json", here)
    found = read_server_file(home / "server.json")
    assert (found.public, found.public_key) == (REMOTE, "ef" * 32)


@pytest.mark.parametrize("address", ["localhost:4000", "tcp://127.0.0.1", "http://a:1", "tcp://:1"])
def test_an_address_that_is_none_is_refused(environ, address):
    environ["GENCOMP_SERVER"] = address
    with pytest.raises(BadKnob, match="tcp://HOST:PORT"):
        find_server(environ)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o602])
def test_a_file_that_others_can_touch_is_refused(home, mode):
    write_server_file(home / "server.json", LOCAL)
    (home / "server.json").chmod(mode)
    with pytest.raises(Unauthorised, match="chmod 600"):
        read_server_file(home / "server.json")


def test_a_file_of_somebody_else_is_refused(home, monkeypatch):
    write_server_file(home / "server.json", LOCAL)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(Unauthorised, match="not yours alone"):
        read_server_file(home / "server.json")


def test_on_windows_where_files_have_no_owner_and_no_mode_nuke_finds_the_server(
    home, environ, monkeypatch
):
    write_server_file(home / "server.json", LOCAL)
    (home / "server.json").chmod(0o666)  # What Windows reports of any file.
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delattr(os, "getuid")
    assert find_server(environ) == LOCAL


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"address": "tcp://127.0.0.1:1"}', '{"address": 7, "pid": "x"}']
)
def test_a_file_that_describes_no_server_is_refused(home, text):
    private(home / "server.json", text)
    with pytest.raises((ServerUnreachable, BadKnob)):
        read_server_file(home / "server.json")


def test_a_file_that_is_not_text_is_refused(home):
    home.mkdir()
    (home / "server.json").write_bytes(b"\xff\xfe")
    (home / "server.json").chmod(0o600)
    with pytest.raises(ServerUnreachable, match="not text"):
        read_server_file(home / "server.json")


def test_a_server_file_that_is_not_there_is_no_server(home):
    with pytest.raises(ServerUnreachable, match="cannot be read"):
        read_server_file(home / "server.json")


def test_the_secret_is_not_shown(home):
    assert "local-secret" not in repr(LOCAL)
    assert "local-secret" not in f"{LOCAL}"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnwritableOutput, match=r"server\.json"):
        write_server_file(tmp_path / "file" / "server.json", LOCAL)


def test_the_home_folder_is_named_by_the_environment_or_the_users(tmp_path, monkeypatch):
    assert home_folder({"GENCOMP_HOME": str(tmp_path)}) == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home_folder({}) == tmp_path / ".gencomp"
