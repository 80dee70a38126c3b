# SPDX-License-Identifier: Apache-2.0
"""Whoever writes a sequence is killed in the middle: what is visible is whole."""

import json
import os
import subprocess
import sys

import pytest

from command_line import ROOTS
from faults.stage import TESTS


@pytest.mark.fault("F39")
@pytest.mark.parametrize("rounds", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_of_a_sequence_whose_writer_is_killed_every_visible_frame_is_whole(tmp_path, rounds):
    roots = os.pathsep.join(str(root) for root in (*ROOTS, TESTS))
    done = subprocess.run(
        [sys.executable, "-m", "faults.writing", str(rounds), str(tmp_path / "in"), str(rounds)],
        env={**os.environ, "PYTHONPATH": roots},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["rounds"] == rounds + 2
    assert found["half"] == []
    assert found["early"] == []
    # Else nothing was shown: most were killed, in the middle of it. Two were not.
    assert found["killed"] > rounds / 3
    assert found["visible"] > 24
    assert found["manifests"] >= 2
