# SPDX-License-Identifier: Apache-2.0
"""The checks for a real Nuke run through the stand-in too, so that they are known to work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fakes import qt as fake_qt
from standin.pixels import worker_python

ROOT = Path(__file__).resolve().parent.parent.parent
TERMINAL = ROOT / "tests" / "standin" / "terminal.py"
IN_NUKE = ROOT / "tests" / "in_nuke"


def run(script):
    """Run a script as ``nuke -t`` does; return the lines that it printed."""
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environ["NUKE_PATH"] = str(ROOT)
    ended = subprocess.run(
        [sys.executable, str(TERMINAL), "-t", str(IN_NUKE / script)],
        capture_output=True,
        text=True,
        env=environ,
        check=False,
        timeout=120,
    )
    lines = ended.stdout.splitlines()
    assert [line for line in lines if line.startswith("FAILED")] == [], ended.stderr
    assert lines[-1:] == ["0 failed"], ended.stderr
    return [line for line in lines if line.startswith("ok: ")]


def test_every_check_for_a_real_nuke_holds_in_the_stand_in(home):
    if worker_python() is None:
        pytest.skip("no Python with numpy and OpenImageIO")
    assert len(run("check.py")) == 54


def test_every_check_of_start_up_holds_in_the_stand_in(home):
    assert len(run("start.py")) == 24


def test_every_check_of_proxy_precomps_and_variables_holds_in_the_stand_in(home):
    if worker_python() is None:
        pytest.skip("no Python with numpy and OpenImageIO")
    assert len(run("scopes.py")) == 24


def test_every_check_of_the_interface_holds_in_the_stand_in(app, home, monkeypatch):
    fake_qt.install(monkeypatch, "PySide2")
    app.run_file(IN_NUKE / "interface.py")
    app.process_events(lambda: app.messages)
    said = "\n".join(app.printed).splitlines()
    assert [line for line in said if line.startswith("FAILED")] == []
    assert len([line for line in said if line.startswith("ok: ")]) == 22
    assert app.messages == ["gencomp: 0 checks failed"]
