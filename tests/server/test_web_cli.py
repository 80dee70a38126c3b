# SPDX-License-Identifier: Apache-2.0
"""``gencomp web``: what it refuses, and the file with its address."""

import json
import logging
import os
import socket
import sys

import pytest

from gencomp_server import web_cli
from gencomp_server.cli import main
from gencomp_server.web_cli import WebChild


@pytest.fixture(autouse=True)
def _logging_of_the_test_run():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_a_port_that_there_is_not_is_refused(capsys):
    assert main(["web", "--port", "70000"]) == 2
    assert "'70000' is no port. Use 1 to 65535" in capsys.readouterr().err


def test_a_port_that_somebody_has_is_a_sentence(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["web", "--port", str(port)]) == 3
    assert f"The page cannot be at port {port} (Address already in use)." in capsys.readouterr().err


def test_without_the_page_s_packages_it_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "gencomp_server.web.serving", None)
    assert main(["web", "--port", "0"]) == 3
    assert "pip install 'gencomp[server]'" in capsys.readouterr().err


def test_the_file_with_the_address_is_its_owners_and_goes_with_its_writer(tmp_path):
    place = tmp_path / "home" / "web.json"
    web_cli._write_private(place, {"url": "http://127.0.0.1:1/#token=x", "pid": os.getpid()})
    assert place.stat().st_mode & 0o777 == 0o600
    web_cli._remove_own(place)
    assert not place.exists()
    web_cli._write_private(place, {"url": "another page's", "pid": 1})
    web_cli._remove_own(place)
    assert json.loads(place.read_text())["pid"] == 1


def test_a_page_that_cannot_start_is_tried_again_and_ends_with_the_server(tmp_path, caplog):
    child = WebChild(0, tmp_path / "server.json")
    child._command = [sys.executable, "-c", "raise SystemExit(7)"]
    with caplog.at_level(logging.WARNING):
        child.start()
        child._over.wait(1.0)
        child.stop()
    assert (
        "the web page ended (7); jobs go on without it, and it starts again in 1 s" in caplog.text
    )
    assert not child._thread.is_alive()
