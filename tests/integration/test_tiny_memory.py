# SPDX-License-Identifier: Apache-2.0
"""No memory at load, step and decode through a real server: a sentence, nothing half-written."""

import json
import subprocess
import sys

import pytest

from command_line import Shot, environment, finish, matte_of, plate_of, write_picture


@pytest.fixture
def small(tmp_path):
    """Return a shot of one frame."""
    made = Shot(tmp_path)
    write_picture(made.plate(1001), plate_of(1001, 64, 48), ("R", "G", "B"))
    write_picture(made.matte(1001), matte_of(64, 48), ("A",))
    return made


@pytest.fixture
def place(tmp_path):
    """Return the file that says where memory runs out."""
    return tmp_path / "where"


@pytest.fixture
def start(place):
    """Return a function that starts the command on systems that run out of memory."""
    more = {
        "GENCOMP_REGISTRY": "out_of_memory_systems:REGISTRY",
        "GENCOMP_TEST_OUT_OF_MEMORY": str(place),
    }

    def started(*words):
        command = [sys.executable, "-m", "gencomp_server", *words]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env={**environment(), **more}, text=True, **pipes)

    return started


@pytest.fixture
def server(start, tmp_path):
    """Run ``gencomp serve`` and yield its address."""
    process = start("serve", "--port", "0", "--spool", str(tmp_path / "spool"))
    yield process.stdout.readline().split()[-1]
    process.terminate()
    finish(process)
    assert process.returncode == 0


@pytest.mark.fault("F33")
@pytest.mark.slow
def test_when_memory_runs_out_then_it_is_said_and_the_server_does_the_job_once_there_is_some(
    small, start, server, place
):
    out = small.folder / "out"
    words = [
        *("run", "overplusplus", "--out", str(out), "--server", server),
        *("--input", f"plate={small.plate(1001)}", "--input", f"effect_mask={small.matte(1001)}"),
        *("--set", "backbone=tiny", "--set", "steps=2", "--set", "model_size=48x32"),
        *("--set", "guidance=1", "--set", "prompt=wake"),
    ]
    for stage, said in (
        ("load", "loading Tiny"),
        ("sample", "computing a step of Tiny"),
        ("decode", "decoding frames with Tiny"),
    ):
        place.write_text(stage)
        ended = finish(start(*words))
        assert ended.code == 4, stage
        assert said in ended.err
        assert len(ended.err.splitlines()) == 1
        assert "Traceback" not in ended.err
        assert [path for path in out.rglob("*") if path.is_file()] == [], stage

    place.write_text("")
    ended = finish(start(*words))
    assert (ended.code, ended.err) == (0, "")
    manifest = json.loads((out / "manifest.json").read_text())
    reused = {row["name"]: row["reused"] for row in manifest["stages"]}
    assert reused["sample"]
    assert not reused["noise"]
    assert manifest["backbone"]["forwards"] == 0
    assert manifest["report"]["forwards"] == 2
    # Tiles were for the job that ran out of memory: this one starts as planned.
    assert manifest["backbone"]["placement"]["tiling"] is False
