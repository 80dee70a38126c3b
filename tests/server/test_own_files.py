# SPDX-License-Identifier: Apache-2.0
"""Files of the user's own that name servers and keys: spoilt, they end every command with 2."""

import json
import re

import pytest

from gencomp_protocol.keys import write_key_file
from gencomp_server.cli import main

PUBLIC, SECRET = "a" * 64, "b" * 64
COMMANDS = {
    "jobs": ["jobs"],
    "cancel": ["cancel", "x"],
    "report": ["report", "x"],
    "run": ["run", "omnimatte", "--out", "out", "--input", "plate=a.%04d.exr"],
}
RAW = re.compile(r"Expecting|char \d|Errno|Extra data|delimiter|Traceback")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("GENCOMP_HOME", str(tmp_path))
    for name in ("GENCOMP_KEY_FILE", "GENCOMP_SERVER_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ended(command, capsys):
    """Run a command that needs a server; return its code and what it said."""
    words = [*COMMANDS[command]]
    if command == "run":  # Without a named server it would start its own.
        words += ["--server", "tcp://192.0.2.1:5570"]
    code = main(words)
    return code, capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("text", ["{", "[1]", '{"server": ', "\n\nserver = 1", "{} {}"])
def test_a_client_json_that_is_broken_is_a_sentence_with_2(home, capsys, command, text):
    place = home / "client.json"
    place.write_text(text)
    place.chmod(0o600)
    code, said = ended(command, capsys)
    assert code == 2
    assert said.startswith(f"gencomp: {place} cannot be understood")
    assert "Mend it, or move it away." in said
    assert not RAW.search(said)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_key_file_that_is_missing_is_a_sentence_with_2(home, capsys, monkeypatch, command):
    monkeypatch.setenv("GENCOMP_KEY_FILE", str(home / "none.key"))
    code, said = ended(command, capsys)
    assert code == 2
    assert f"{home}/none.key cannot be read (No such file or directory)." in said
    assert "It is named in GENCOMP_KEY_FILE." in said


@pytest.mark.parametrize("command", COMMANDS)
def test_a_key_that_others_can_read_is_a_sentence_with_2(home, capsys, monkeypatch, command):
    place = home / "ada.key"
    write_key_file(place, {"name": "ada", "public_key": PUBLIC, "secret_key": SECRET})
    place.chmod(0o644)
    monkeypatch.setenv("GENCOMP_KEY_FILE", str(place))
    code, said = ended(command, capsys)
    assert code == 2
    assert f"Make it so: chmod 600 {place}" in said


def test_a_list_of_keys_that_is_broken_is_a_sentence_with_2(home, capsys):
    (home / "keys").mkdir()
    (home / "keys" / "allowed.json").write_text("{")
    (home / "keys" / "allowed.json").chmod(0o600)
    assert main(["keys", "list"]) == 2
    assert not RAW.search(capsys.readouterr().err)


def test_what_a_server_wrote_of_itself_is_no_fault_of_the_users(home, capsys):
    (home / "server.json").write_text("{")
    (home / "server.json").chmod(0o600)
    assert main(["jobs"]) == 3
    assert not RAW.search(capsys.readouterr().err)


def test_for_a_port_on_this_machine_that_is_not_known_keys_are_named_too(home, capsys):
    (home / "server.json").write_text(json.dumps({"address": "tcp://127.0.0.1:1", "secret": "s"}))
    (home / "server.json").chmod(0o600)
    assert main(["jobs", "--server", "tcp://127.0.0.1:5570"]) == 3
    said = capsys.readouterr().err
    assert "The secret of the server at tcp://127.0.0.1:5570 is not known." in said
    assert "your key file in GENCOMP_KEY_FILE (gencomp keys new makes one)." in said
