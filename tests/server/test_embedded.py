# SPDX-License-Identifier: Apache-2.0
"""The server of one run: how it is started, and what is told where it does not start."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gencomp_protocol.errors import ServerUnreachable
from gencomp_server import embedded
from gencomp_server.embedded import EmbeddedServer, leave_when_stdin_closes


def stand_in(tmp_path, monkeypatch, *lines):
    """Let a script of these lines be started as the server; argv ends with the server file."""
    script = tmp_path / "server.py"
    script.write_text("import json, os, sys, pathlib\n" + "\n".join(lines) + "\n")
    real = subprocess.Popen
    monkeypatch.setattr(
        embedded.subprocess,
        "Popen",
        lambda command, **more: real([sys.executable, str(script), *command[3:]], **more),
    )


READY = (
    "path = pathlib.Path(sys.argv[-1])",
    "part = path.with_suffix('.part')",
    "os.close(os.open(part, os.O_CREAT, 0o600))",
    "part.write_text(json.dumps({'address': 'tcp://127.0.0.1:5000', 'secret': 's', 'pid': 1}))",
    "part.rename(path)",
    "sys.stdin.read()",
)


def test_a_server_is_ready_once_its_file_is_there_and_leaves_when_it_is_closed(
    tmp_path, monkeypatch
):
    stand_in(tmp_path, monkeypatch, *READY)
    server = EmbeddedServer(tmp_path / "spool")
    with server as found:
        assert (found.address, found.secret) == ("tcp://127.0.0.1:5000", "s")
        child = server._child
    assert child.returncode == 0


def test_the_file_of_an_earlier_server_is_not_taken_for_this_one(tmp_path, monkeypatch):
    (tmp_path / "spool").mkdir()
    old = tmp_path / "spool" / "server.json"
    old.write_text('{"address": "tcp://127.0.0.1:1", "secret": "old", "pid": 1}')
    old.chmod(0o600)
    stand_in(tmp_path, monkeypatch, *READY)
    with EmbeddedServer(tmp_path / "spool") as found:
        assert found.secret == "s"


def test_a_server_that_does_not_start_is_told_with_its_last_words(tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, "sys.exit('gencomp: no room for a spool.')")
    with (
        pytest.raises(ServerUnreachable, match="no room for a spool"),
        EmbeddedServer(tmp_path / "spool"),
    ):
        pass


def test_a_spool_that_a_leaving_server_still_holds_is_waited_for(tmp_path, monkeypatch):
    first = ("mark = pathlib.Path(__file__).with_name('tried')",)
    taken = ("if not mark.exists(): mark.touch(); sys.exit(3)",)
    stand_in(tmp_path, monkeypatch, *first, *taken, *READY)
    with EmbeddedServer(tmp_path / "spool") as found:
        assert found.secret == "s"


def test_a_server_that_does_not_leave_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(embedded, "LEAVE_S", 0.2)
    stay = ("import time", "time.sleep(600)")
    stand_in(tmp_path, monkeypatch, *READY[:-1], *stay)
    server = EmbeddedServer(tmp_path / "spool")
    with server:
        child = server._child
    assert child.returncode < 0


def test_stop_is_called_once_the_other_end_of_the_input_is_closed(monkeypatch):
    ours, theirs = os.pipe()
    monkeypatch.setattr("sys.stdin", os.fdopen(ours, "r"))
    stopped = threading.Event()
    thread = leave_when_stdin_closes(stopped.set)
    assert not stopped.is_set()
    os.close(theirs)
    thread.join(30.0)
    assert stopped.is_set()
    sys.stdin.close()


def test_a_run_has_a_server_of_its_own_whatever_the_facility_says_of_servers(tmp_path, monkeypatch):
    site = tmp_path / "site.toml"
    site.write_text(
        'locked = ["host", "port", "spool", "state_file"]\nhost = "0.0.0.0"\nport = 7700\n'
        f'spool = "{tmp_path / "shared"}"\nstate_file = "{tmp_path / "shared.json"}"\n'
    )
    rooms = [str(Path(__file__).parents[2] / room) for room in ("protocol", "server")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(rooms))
    monkeypatch.setenv("GENCOMP_CONFIG", str(site))
    monkeypatch.setenv("GENCOMP_HOME", str(tmp_path / "home"))
    with EmbeddedServer(tmp_path / "spool") as found:
        assert found.address.startswith("tcp://127.0.0.1:")
        assert not found.address.endswith(":7700")
    assert not (tmp_path / "shared").exists()
