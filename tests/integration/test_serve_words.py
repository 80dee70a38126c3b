# SPDX-License-Identifier: Apache-2.0
"""What ``gencomp serve`` says on a terminal where a place or a port is not to be had."""

import socket
import threading

import pytest

from command_line import finish, start

READY_S = 60.0


class Serving:
    """A server that has begun to say things, and what it has said so far."""

    def __init__(self, folder, *words):
        common = ("serve", "--port", "0", "--spool", str(folder / "spool"))
        self.process = start(*common, *words)
        self.said = []
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self):
        for line in self.process.stderr:
            self.said.append(line)

    def until(self, words):
        """Wait until it has said something on standard error; return all that it has."""
        line = self.process.stdout.readline()
        assert "is ready at" in line
        end = threading.Event()
        for _ in range(int(READY_S / 0.05)):
            if words in "".join(self.said):
                return "".join(self.said)
            end.wait(0.05)
        raise AssertionError("".join(self.said))

    def close(self):
        self.process.terminate()
        self.process.wait(30)
        self._thread.join(30)
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def serve(tmp_path):
    made = []

    def make(*words):
        made.append(Serving(tmp_path, *words))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_ledger_and_a_log_that_cannot_be_written_are_said_at_the_start(
    serve, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("GENCOMP_LEDGER", str(tmp_path / "file" / "ledger.db"))
    monkeypatch.setenv("GENCOMP_LOG_FILE", str(tmp_path / "file" / "server.jsonl"))
    said = serve().until("The ledger")
    ledger, log = (f"{tmp_path}/file/{name}" for name in ("ledger.db", "server.jsonl"))
    assert said.count(f"The ledger {ledger} cannot be written") == 1
    assert "no delivery is entered" in said
    assert said.count(f"The log file {log} cannot be written ({tmp_path}/file is no folder).") == 1


def test_where_all_can_be_written_nothing_is_said_of_it(serve):
    said = serve().until("ready at")
    assert "cannot be written" not in said


def test_a_taken_port_of_the_page_costs_the_page_alone(serve):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = serve("--web-port", str(port)).until("the web page ended")
    assert f"The page cannot be at port {port} (Address already in use). Jobs go on" in said
    assert "the web page ended (3); jobs go on without it" in said


SPOILT = {
    "a file": (lambda place: place.write_text("x"), "{spool} is a file; move it away."),
    "a link to nowhere": (
        lambda place: place.symlink_to(place.parent / "nothing"),
        "{spool} is a link that leads nowhere; is its disk mounted?",
    ),
    "a file in it": (
        lambda place: place.mkdir() or (place / "stages").write_text("x"),
        "{spool}/stages is not what a spool needs there; move it away.",
    ),
    "a folder for its lock": (
        lambda place: (place / "server.lock").mkdir(parents=True),
        "{spool}/server.lock is not what a spool needs there; move it away.",
    ),
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_spool_that_cannot_be_made_is_named_whole_with_its_own_cure(tmp_path, how):
    spoil, cure = SPOILT[how]
    spool = tmp_path / "spool"
    spoil(spool)
    ended = finish(start("serve", "--port", "0", "--spool", str(spool)))
    assert ended.code == 2
    assert f"The spool {spool} cannot be written (" in ended.err
    assert cure.format(spool=spool) in ended.err
    assert "read-only" not in ended.err
    assert ended.err.splitlines()[-1].endswith("Or name another spool with --spool.")


def test_a_spool_below_a_file_names_the_file(tmp_path):
    (tmp_path / "file").write_text("x")
    ended = finish(start("serve", "--port", "0", "--spool", str(tmp_path / "file" / "a" / "b")))
    assert ended.code == 2
    assert f"The spool {tmp_path}/file/a/b cannot be written (Not a directory)." in ended.err
    assert f"{tmp_path}/file is a file; move it away." in ended.err


def test_a_file_where_a_folder_of_weights_or_keys_belongs_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    ended = finish(start("serve", "--weights", str(tmp_path / "file")))
    told = f"Setting 'weights' names a file, {tmp_path}/file, where a folder belongs."
    assert (ended.code, ended.err.count(told)) == (2, 1)
    monkeypatch.setenv("GENCOMP_KEYS", str(tmp_path / "file"))
    for words in (("serve",), ("keys", "list"), ("keys", "new", "ada", "--allow")):
        ended = finish(start(*words))
        assert ended.code == 2
        assert f"Setting 'keys' names a file, {tmp_path}/file" in ended.err
        assert "GENCOMP_KEYS" in ended.err
