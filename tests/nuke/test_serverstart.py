# SPDX-License-Identifier: Apache-2.0
"""Finding a server, or starting one: never two, never one that was not wanted."""

import contextlib
import os
import shlex
import signal
import sys
import threading
from pathlib import Path

import pytest

from fakes.server import FakeServer, write_server_file
from gencomp_nuke import prefs, serverstart
from gencomp_protocol.errors import Cancelled, ServerUnreachable, Unauthorised

FAKE = Path(__file__).resolve().parent.parent / "fakes" / "server.py"
PROTOCOL = Path(__file__).resolve().parent.parent.parent / "protocol"


def ensure(said=None, cancelled=lambda: False, address=""):
    say = (said if said is not None else []).append
    return serverstart.ensure(prefs.load(), address=address, say=say, cancelled=cancelled)


@pytest.fixture
def command(home, tmp_path, monkeypatch):
    """Let the configured command be a fake server that counts how often it was started."""
    count = tmp_path / "starts"
    start = tmp_path / "start.py"
    start.write_text(
        "import os, runpy, sys\n"
        f"with open({str(count)!r}, 'a') as lines:\n"
        "    lines.write(f'{os.getpid()} {os.environ.get(\"PYTHONHOME\")}\\n')\n"
        f"sys.path.insert(0, {str(PROTOCOL)!r})\n"
        f"sys.argv = ['server', {str(tmp_path)!r}]\n"
        f"runpy.run_path({str(FAKE)!r}, run_name='__main__')\n",
        encoding="utf-8",
    )
    words = [sys.executable, str(start)]
    monkeypatch.setenv("GENCOMP_SERVER_COMMAND", " ".join(map(shlex.quote, words)))
    yield count
    if count.exists():
        for line in count.read_text().splitlines():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGTERM)


def starts(count):
    return len(count.read_text().splitlines()) if count.exists() else 0


def test_a_running_server_is_used_and_none_is_started(command, home, tmp_path):
    with FakeServer(tmp_path, home) as running:
        assert ensure().address == running.address
    assert starts(command) == 0


def test_where_none_runs_one_is_started_and_answers(command):
    said = []
    found = ensure(said)
    assert found.address.startswith("tcp://127.0.0.1:")
    assert said == ["waiting for the server", "starting the server"]
    assert ensure().address == found.address
    assert starts(command) == 1


def test_three_at_once_start_one_server(command):
    found = []
    threads = [threading.Thread(target=lambda: found.append(ensure().address)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert starts(command) == 1


def test_what_a_dead_server_left_behind_does_not_matter(command, home):
    write_server_file(home, "tcp://127.0.0.1:9", "gone")
    assert ensure().address != "tcp://127.0.0.1:9"
    assert starts(command) == 1


def test_the_server_gets_its_own_python_not_nukes(command, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", sys.base_prefix)
    ensure()
    assert command.read_text().split()[1] == "None"


def test_a_server_that_is_named_is_never_started_for(command, home, tmp_path, monkeypatch):
    with FakeServer(tmp_path, home) as named:
        monkeypatch.setenv("GENCOMP_SERVER", named.address)
        assert ensure().address == named.address
    assert ensure().address == named.address
    assert starts(command) == 0


def test_an_address_on_the_node_without_a_secret_is_refused(command, home):
    with pytest.raises(Unauthorised, match="secret of the server at tcp://"):
        ensure(address="tcp://127.0.0.1:9")
    assert starts(command) == 0


def test_a_command_that_ends_at_once_is_told_with_its_last_words(home, monkeypatch):
    words = [sys.executable, "-c", "print('no weights here'); raise SystemExit(3)"]
    monkeypatch.setenv("GENCOMP_SERVER_COMMAND", " ".join(map(shlex.quote, words)))
    with pytest.raises(ServerUnreachable) as caught:
        ensure()
    assert str(caught.value) == (
        f"The server stopped while starting: no weights here Its log is {home / 'server.log'}."
    )


def test_waiting_for_a_server_can_be_cancelled(home, monkeypatch):
    words = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setenv("GENCOMP_SERVER_COMMAND", " ".join(map(shlex.quote, words)))
    with pytest.raises(Cancelled):
        ensure(cancelled=lambda: True)
