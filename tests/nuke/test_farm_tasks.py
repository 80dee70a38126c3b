# SPDX-License-Identifier: Apache-2.0
"""A farm in small: many Nukes on one cache, a chain of nodes, a job of Open Job Description.

Each Nuke is the stand-in as a process of its own, and the server is a real one with systems whose
results are known in closed form, started by whoever needs it first.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fakes.shot import connect
from gencomp_protocol import Client, read_server_file
from standin.pixels import worker_python

ROOT = Path(__file__).resolve().parent.parent.parent
TERMINAL = ROOT / "tests" / "standin" / "terminal.py"
PROGRAM = ROOT / "nuke_plugin" / "gencomp_nuke" / "batch.py"
ROOMS = os.pathsep.join(str(ROOT / room) for room in ("protocol", "server", "tests"))
TASKS = 20
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="many processes, so one Python"),
]


@pytest.fixture
def farm(home, monkeypatch):
    """Return the environment of the farm's hosts, where a server can be started."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    words = ["env", f"PYTHONPATH={ROOMS}", "GENCOMP_REGISTRY=fakes.systems:PAINTED"]
    words += ["OMP_NUM_THREADS=1", worker_python(), "-m", "gencomp_server", "serve"]
    nuke = [sys.executable, str(TERMINAL), "-t"]
    monkeypatch.setenv("GENCOMP_SERVER_COMMAND", shlex.join(words))
    monkeypatch.setenv("GENCOMP_BACKGROUND_NUKE", shlex.join(nuke))
    monkeypatch.setenv("GENCOMP_LOCK_SILENCE_S", "6")
    monkeypatch.setenv("NUKE_PATH", str(ROOT))
    yield home
    stop(home)


def stop(home):
    """End the server of a user, if one runs."""
    state = home / "server.json"
    if state.exists():
        with contextlib.suppress(ProcessLookupError):
            os.kill(json.loads(state.read_text())["pid"], signal.SIGTERM)


def jobs(home):
    """Return the jobs that the server knows."""
    file = read_server_file(home / "server.json")
    with Client(file.address, file.secret) as client:
        client.connect()
        return client.jobs()


def start(*words, **variables):
    return subprocess.Popen(
        [sys.executable, str(TERMINAL), *map(str, words)],
        env={**os.environ, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def end(process):
    """Wait for a process and return its exit code and what it said."""
    said, _ = process.communicate(timeout=280)
    return process.returncode, said


def lay(names, read, tmp_path, policy="read"):
    """Save a chain of nodes over the plate, with a Write that every task gives its own folder."""
    import nuke

    above = read("plate/plate.%04d.exr", 1001, 1002)
    for name in names:
        gizmo = nuke.createNode(name)
        connect(gizmo, "Bg" if name == "SplitThenMerge" else "Plate", above)
        if name == "SplitThenMerge":
            connect(gizmo, "Fg", read("layers/a/a.%04d.exr", 1001, 1002))
        gizmo["gc_policy"].setValue(policy)
        gizmo["prompt"].setValue("smoke")
        above = gizmo
    write = nuke.createNode("Write", "name Final raw true create_directories true")
    out = (tmp_path / "out").as_posix()
    write["file"].setValue(f"{out}/[getenv TASK]/final.%04d.exr")
    write.setInput(0, above)
    nuke.root()["first_frame"].setValue(1001)
    nuke.root()["last_frame"].setValue(1002)
    nuke.scriptSaveAs((tmp_path / "comp.nk").as_posix(), 1)
    return tmp_path / "comp.nk"


def rendered(tmp_path, frame=1001):
    """Return the pixels of what the tasks have rendered, as bytes, by task."""
    import nuke

    found = {}
    for path in sorted((tmp_path / "out").glob(f"*/final.{frame}.exr")):
        made = nuke.createNode("Read", f"raw true first {frame} last {frame}")
        made["file"].setValue(path.as_posix())
        spots = [
            made.sample(f"rgba.{c}", x, 24, frame=frame) for c in ("red", "alpha") for x in (3, 30)
        ]
        found[path.parent.name] = (path.stat().st_size, *spots)
    return found


def versions(tmp_path):
    return sorted(p.name for p in (tmp_path / "gencomp").glob("*/*/v*"))


def test_twenty_tasks_on_one_cache_are_one_job_and_twenty_equal_pictures(
    terminal, farm, read, tmp_path
):
    script = lay(["DynVFX"], read, tmp_path, "compute")
    tasks = [start("-x", "-F", "1001", script, TASK=f"{n:02d}") for n in range(TASKS)]
    ends = [end(task) for task in tasks]
    assert [code for code, _ in ends] == [0] * TASKS, ends
    assert len(jobs(farm)) == 1
    assert versions(tmp_path) == ["v001"]
    found = rendered(tmp_path)
    assert len(found) == TASKS
    assert len(set(found.values())) == 1


def test_a_killed_holder_is_followed_and_it_is_still_one_job(terminal, farm, read, tmp_path):
    script = lay(["DynVFX"], read, tmp_path, "compute")
    first = start("-x", "-F", "1001", script, TASK="killed")
    until = time.monotonic() + 120
    while not list(tmp_path.glob("gencomp/*/*/v001.part/job.json")):
        assert time.monotonic() < until, end(first)
        time.sleep(0.02)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    tasks = [start("-x", "-F", "1001", script, TASK=f"{n:02d}") for n in range(TASKS)]
    ends = [end(task) for task in tasks]
    assert [code for code, _ in ends] == [0] * TASKS, ends
    assert len(jobs(farm)) == 1
    found = rendered(tmp_path)
    assert len(found) == TASKS
    assert len(set(found.values())) == 1


def test_a_chain_of_three_is_computed_by_batch_and_rendered_with_the_server_away(
    terminal, farm, read, tmp_path, monkeypatch
):
    script = lay(["OverPlusPlus", "DynVFX", "SplitThenMerge"], read, tmp_path)
    code, said = end(start("-x", "-F", "1001-1002", script, TASK="early"))
    assert (code, "OverPlusPlus1 has no result yet." in said) == (1, True)
    code, said = end(start("-t", PROGRAM, script, "--save"))
    assert code == 0, said
    assert "Error:" not in said
    assert len(jobs(farm)) == 3
    stop(farm)
    monkeypatch.setenv("GENCOMP_SERVER_COMMAND", "/nowhere/gencomp serve")
    code, said = end(start("-x", "-F", "1001-1002", script, TASK="late"))
    assert code == 0, said
    assert "Error:" not in said
    import nuke

    nuke.scriptOpen(script.as_posix())
    played = nuke.toNode("SplitThenMerge1")
    assert played["gc_folder"].evaluate().endswith("/v001")
    spots = [
        played.sample(f"rgba.{c}", x, 24, frame=1002) for c in ("red", "alpha") for x in (3, 30)
    ]
    assert list(rendered(tmp_path, 1002)["late"][1:]) == spots
    assert not (tmp_path / "out" / "early").exists()


def test_a_job_of_open_job_description_ends_with_the_frames(terminal, farm, read, tmp_path):
    beside = Path(worker_python()).with_name("openjd")
    openjd = str(beside) if beside.exists() else shutil.which("openjd")
    if openjd is None:
        pytest.skip("openjd-cli is not installed")
    script = lay(["DynVFX"], read, tmp_path)
    nuke = tmp_path / "nuke"
    nuke.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{TERMINAL}" "$@"\n', encoding="utf-8")
    nuke.chmod(0o755)
    gencomp = [worker_python(), "-m", "gencomp_server", "farm", "openjd", str(script)]
    made = subprocess.run(
        [*gencomp, "--nuke", str(nuke)],
        env={**os.environ, "PYTHONPATH": ROOMS},
        capture_output=True,
        text=True,
        check=True,
    )
    template, values = made.stdout.split()
    words = [openjd, "run", template, "-p", f"file://{values}", "--step", "Comp"]
    done = subprocess.run(
        [*words, "--run-dependencies"],
        env={**os.environ, "TASK": "farm"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert any(line.endswith("openjd_progress: 100.0") for line in lines), done.stdout
    out = tmp_path / "out" / "farm"
    assert sorted(p.name for p in out.iterdir()) == ["final.1001.exr", "final.1002.exr"]
    assert (tmp_path / "comp.farm.nk").exists()
    assert len(jobs(farm)) == 1
