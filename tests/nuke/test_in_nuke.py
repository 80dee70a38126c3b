# SPDX-License-Identifier: Apache-2.0
"""The checks for a real Nuke run through the stand-in too, so that they are known to work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from standin.pixels import worker_python

ROOT = Path(__file__).resolve().parent.parent.parent
TERMINAL = ROOT / "tests" / "standin" / "terminal.py"
CHECK = ROOT / "tests" / "in_nuke" / "check.py"


def test_every_check_for_a_real_nuke_holds_in_the_stand_in(home):
    if worker_python() is None:
        pytest.skip("no Python with numpy and OpenImageIO")
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environ["NUKE_PATH"] = str(ROOT)
    ended = subprocess.run(
        [sys.executable, str(TERMINAL), "-t", str(CHECK)],
        capture_output=True,
        text=True,
        env=environ,
        check=False,
        timeout=120,
    )
    lines = ended.stdout.splitlines()
    assert [line for line in lines if line.startswith("FAILED")] == [], ended.stderr
    assert lines[-1] == "0 failed"
    assert len([line for line in lines if line.startswith("ok: ")]) == 44
