# SPDX-License-Identifier: Apache-2.0
"""Keys on disk: private from birth, listed, revoked; a list not to be trusted lets nobody in."""

import json
import os
import stat
import threading

import pytest

from gencomp_protocol import sockets
from gencomp_protocol.errors import (
    BadKnob,
    BadName,
    ServerUnreachable,
    Unauthorised,
    UnwritableOutput,
)
from gencomp_protocol.keys import checked_key, read_key_file, write_key_file
from gencomp_server import keys_cli, zap
from gencomp_server.cli import main
from gencomp_server.keys import AllowList, KeyFolder

PUBLIC = "ab" * 32
OTHER = "cd" * 32


@pytest.fixture
def folder(tmp_path):
    return KeyFolder(tmp_path / "keys")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Run commands with a home folder of the test's."""
    for name in [name for name in os.environ if name.startswith("GENCOMP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GENCOMP_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_two_keys_of_a_pair_belong_together():
    public, secret = sockets.new_pair()
    assert sockets.public_of(secret) == public
    assert len(public) == len(secret) == 64
    assert sockets.new_pair()[0] != public


@pytest.mark.fault("F13")
def test_a_secret_key_is_private_from_its_first_byte(tmp_path, monkeypatch):
    seen = []
    real = os.open

    def watched(path, flags, mode=0o777, **more):
        made = real(path, flags, mode, **more)
        seen.append(stat.S_IMODE(os.fstat(made).st_mode))
        return made

    before = os.umask(0)
    try:
        monkeypatch.setattr(os, "open", watched)
        path = tmp_path / "deep" / "ada.key"
        write_key_file(path, {"name": "ada", "public_key": PUBLIC, "secret_key": OTHER})
    finally:
        os.umask(before)
    assert seen == [0o600]
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert read_key_file(path)["secret_key"] == OTHER


def test_a_key_is_never_written_over(tmp_path):
    plain = {"public_key": PUBLIC, "secret_key": OTHER}
    write_key_file(tmp_path / "a.key", plain)
    with pytest.raises(UnwritableOutput, match="never written over"):
        write_key_file(tmp_path / "a.key", plain)


@pytest.mark.fault("F13")
@pytest.mark.parametrize("bits", [0o640, 0o604, 0o660])
def test_a_key_file_that_others_can_touch_is_refused(tmp_path, bits):
    path = tmp_path / "a.key"
    write_key_file(path, {"public_key": PUBLIC, "secret_key": OTHER})
    path.chmod(bits)
    with pytest.raises(Unauthorised, match="chmod 600"):
        read_key_file(path)


@pytest.mark.parametrize("text", ["", "ab", "zz" * 32, "ab" * 33])
def test_what_is_no_key_is_refused(text, folder):
    with pytest.raises(BadKnob, match="64 hex digits"):
        checked_key(text, "It")
    with pytest.raises(BadKnob):
        folder.allow("ada", text)


@pytest.mark.parametrize("name", ["", "../x", "a b", "a/b", "-a", "a" * 65, "ä", "a\n"])
def test_what_cannot_be_a_name_is_refused(name, folder):
    with pytest.raises(BadName, match="cannot be called"):
        folder.allow(name, PUBLIC)


def test_keys_are_let_in_listed_and_revoked(folder):
    assert folder.allowed() == []
    folder.allow("bob", PUBLIC)
    folder.allow("ada@ws12", OTHER)
    folder.allow("bob", PUBLIC)
    assert [(one.name, one.public) for one in folder.allowed()] == [
        ("ada@ws12", OTHER),
        ("bob", PUBLIC),
    ]
    assert (mode(folder.allowed_file), mode(folder.folder)) == (0o600, 0o700)
    folder.revoke("bob")
    assert [one.name for one in folder.allowed()] == ["ada@ws12"]
    with pytest.raises(BadName, match="No key called 'bob'"):
        folder.revoke("bob")


def test_one_name_is_one_key_and_one_key_one_name(folder):
    folder.allow("bob", PUBLIC)
    with pytest.raises(BadName, match="another key"):
        folder.allow("bob", OTHER)
    with pytest.raises(BadName, match="already, as 'bob'"):
        folder.allow("bert", PUBLIC)


def test_commands_at_once_lose_no_key(folder):
    threads = [
        threading.Thread(target=folder.allow, args=(f"user{n}", f"{n:064x}")) for n in range(12)
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(folder.allowed()) == 12


def test_the_list_is_looked_at_again_with_every_question(folder):
    asked = AllowList(folder)
    assert asked.name_of(PUBLIC) is None
    folder.allow("bob", PUBLIC)
    assert asked.name_of(PUBLIC) == "bob"
    folder.allow("ada", OTHER)
    folder.revoke("bob")
    assert (asked.name_of(PUBLIC), asked.name_of(OTHER)) == (None, "ada")


@pytest.mark.fault("F14")
@pytest.mark.parametrize("harm", ["text", "writable", "gone", "folder", "shape"])
def test_a_list_that_cannot_be_trusted_lets_nobody_in(folder, harm):
    folder.allow("bob", PUBLIC)
    asked = AllowList(folder)
    assert asked.name_of(PUBLIC) == "bob"
    place = folder.allowed_file
    if harm == "text":
        place.write_text("{")
    elif harm == "writable":
        place.chmod(0o666)
    elif harm == "shape":
        place.write_text(json.dumps({"bob": {"public_key": "short"}, "ada": PUBLIC}))
    else:
        place.unlink()
        if harm == "folder":
            place.mkdir()
    assert asked.name_of(PUBLIC) is None


def test_the_servers_key_is_made_once_and_checked(folder):
    with pytest.raises(Unauthorised, match="no key of this server"):
        folder.server_key()
    made = folder.make_server_key()
    assert folder.make_server_key() == made == folder.server_key()[0]
    place = folder.folder / "server.key"
    assert mode(place) == 0o600
    plain = json.loads(place.read_text())
    place.write_text(json.dumps({**plain, "public_key": PUBLIC}))
    with pytest.raises(Unauthorised, match="do not belong together"):
        folder.server_key()


# --- ZAP -----------------------------------------------------------------------------------------


def ask(*frames):
    return zap.reply(frames, {PUBLIC: "bob"}.get, "seal")


@pytest.mark.fault("F14")
def test_zap_lets_in_what_is_on_the_list_and_nothing_else():
    good = [b"1.0", b"7", b"gencomp", b"10.0.0.1", b"", b"CURVE", bytes.fromhex(PUBLIC)]
    assert ask(*good) == [b"1.0", b"7", b"200", b"OK", f"seal{PUBLIC}".encode(), b""]
    for at, other in [(0, b"2.0"), (2, b""), (2, b"other"), (5, b"PLAIN"), (5, b"NULL")]:
        frames = list(good)
        frames[at] = other
        assert ask(*frames)[2] == b"400", (at, other)
    assert ask(*good[:6], bytes.fromhex(OTHER))[2] == b"400"
    assert ask(*good[:6], b"short")[2] == b"400"
    assert ask(*good, b"more")[2] == ask(b"1.0")[2] == ask()[2] == b"400"


# --- the command ---------------------------------------------------------------------------------


def test_a_key_for_somebody_is_made_let_in_and_can_be_a_clients_file(home, tmp_path, capsys):
    out = tmp_path / "ada.key"
    words = ["keys", "new", "ada", "--server", "tcp://gpu1:5570", "--allow", "--out", str(out)]
    assert main(words) == 0
    said = capsys.readouterr().out
    plain = read_key_file(out)
    assert (plain["name"], plain["server"]) == ("ada", "tcp://gpu1:5570")
    assert plain["server_key"] == KeyFolder(home / "keys").server_key()[0]
    assert plain["secret_key"] not in said
    assert plain["public_key"] in said
    assert main(["keys", "list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["server_key"] == plain["server_key"]
    assert [(k["name"], k["public_key"]) for k in told["keys"]] == [("ada", plain["public_key"])]
    assert main(["keys", "revoke", "ada"]) == 0
    assert KeyFolder(home / "keys").allowed() == []
    assert main(["keys", "revoke", "ada"]) == 2


def test_a_key_of_ones_own_stays_on_the_seat(home, capsys, monkeypatch):
    monkeypatch.setattr(keys_cli.getpass, "getuser", lambda: "ada lovelace")
    monkeypatch.setattr(keys_cli.socket, "gethostname", lambda: "ws12")
    assert main(["keys", "new"]) == 0
    said = capsys.readouterr().out
    plain = read_key_file(home / "ada-lovelace@ws12.key")
    assert f"gencomp keys allow ada-lovelace@ws12 {plain['public_key']}" in said
    assert not (home / "keys").exists()
    assert main(["keys", "list"]) == 0
    assert "no key yet" in capsys.readouterr().out
    assert main(["keys", "allow", "ada-lovelace@ws12", plain["public_key"]]) == 0
    server = KeyFolder(home / "keys").server_key()[0]
    assert f"GENCOMP_SERVER_KEY={server}" in capsys.readouterr().out


def test_a_list_that_is_damaged_is_not_written_over(folder):
    folder.allow("bob", PUBLIC)
    folder.allowed_file.write_text("{")
    with pytest.raises(ServerUnreachable, match="cannot be understood"):
        folder.allow("ada", OTHER)
    assert folder.allowed_file.read_text() == "{"


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])
def test_a_key_file_for_an_address_that_no_seat_can_reach_is_refused(
    monkeypatch, tmp_path, capsys, host
):
    monkeypatch.setenv("GENCOMP_HOME", str(tmp_path))
    out = tmp_path / "ada.key"
    words = ["keys", "new", "ada", "--server", f"tcp://{host}:5570", "--allow", "--out", str(out)]
    assert main(words) == 2
    assert f"tcp://{host}:5570" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_new_key_whose_name_is_taken_leaves_no_file_behind(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("GENCOMP_HOME", str(tmp_path))
    words = ["keys", "new", "ada", "--allow", "--out"]
    assert main([*words, str(tmp_path / "first.key")]) == 0
    assert main([*words, str(tmp_path / "second.key")]) == 2
    assert "gencomp keys revoke ada" in capsys.readouterr().err
    assert not (tmp_path / "second.key").exists()
