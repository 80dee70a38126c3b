# SPDX-License-Identifier: Apache-2.0
"""A worker of a real server killed by SIGKILL while ``tiny`` samples: same bits, no work lost."""

import json
import subprocess
import sys

import psutil
import pytest

from command_line import Shot, environment, finish, matte_of, plate_of, write_picture

FRAMES = (1001, 1002)
STEPS = 400
KILL_FROM = 40


@pytest.fixture
def small(tmp_path):
    """Return a shot of two frames."""
    made = Shot(tmp_path)
    for frame in FRAMES:
        write_picture(made.plate(frame), plate_of(frame, 64, 48), ("R", "G", "B"))
        write_picture(made.matte(frame), matte_of(64, 48), ("A",))
    return made


def start(*words):
    """Start the command with the real systems."""
    env = {name: value for name, value in environment().items() if name != "GENCOMP_REGISTRY"}
    command = [sys.executable, "-m", "gencomp_server", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=env, text=True, **pipes)


def words(shot, out):
    return [
        *("run", "overplusplus", "--out", str(shot.folder / out), "--json"),
        *("--input", f"plate={shot.folder}/plate/plate.%04d.exr"),
        *("--input", f"effect_mask={shot.folder}/matte/matte.%04d.exr"),
        *("--set", "backbone=tiny", "--set", f"steps={STEPS}", "--set", "model_size=48x32"),
        *("--set", "guidance=1", "--set", "prompt=wake"),
    ]


def kill_workers(server):
    """Kill what computes for a server; return how many there were."""
    children = psutil.Process(server.pid).children(recursive=True)
    found = [one for one in children if "spawn_main" in " ".join(one.cmdline())]
    for one in found:
        one.kill()
    return len(found)


def manifest(shot, out):
    return json.loads((shot.folder / out / "manifest.json").read_text())


@pytest.mark.fault("F32")
@pytest.mark.fault("F41")
@pytest.mark.slow
def test_when_the_worker_is_killed_while_sampling_then_the_job_goes_on_and_the_bits_are_the_same(
    small, tmp_path
):
    server = start("serve", "--port", "0", "--spool", str(tmp_path / "spool"))
    try:
        address = server.stdout.readline().split()[-1]
        broken = start(*words(small, "broken"), "--server", address)
        killed = 0
        for line in broken.stdout:
            event = json.loads(line)
            if event["event"] == "progress" and event["stage"] == "sample":
                assert event["step"] < STEPS, "sampling was over before anything could be killed"
                if event["step"] >= KILL_FROM:
                    killed = kill_workers(server)
                    break
        rest = finish(broken)
        assert killed
        assert (rest.code, rest.err) == (0, "")
        assert server.poll() is None
    finally:
        server.terminate()
        finish(server)
    said = [entry["sentence"] for entry in rest.named("warning")]
    assert any("ended by SIGKILL" in one and "attempt 2 of 2" in one for one in said)

    whole = finish(start(*words(small, "whole")))
    assert (whole.code, whole.err) == (0, "")
    one, other = manifest(small, "broken"), manifest(small, "whole")
    assert other["backbone"]["forwards"] == other["report"]["forwards"] == STEPS
    assert 0 < one["backbone"]["forwards"] <= STEPS - KILL_FROM
    assert {n: list(entry["frames"]) for n, entry in one["layers"].items()} == {
        name: [str(n) for n in FRAMES]
        for name in ("result", "effect", "difference", "effect_matte")
    }
    assert one["layers"] == other["layers"]
