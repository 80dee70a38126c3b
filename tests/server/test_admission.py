# SPDX-License-Identifier: Apache-2.0
"""What a machine cannot take is refused by its plan, with the figures, and quickly."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gencomp_protocol.errors import DiskFull, OutOfMemory, ServerBusy
from gencomp_protocol.frames import Format, FrameRange
from gencomp_protocol.messages import InputPictures, PictureEntry
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.admission import (
    Limits,
    check_fits,
    check_handles,
    limits_of,
    main_memory,
    refusal,
)
from gencomp_server.contract import Machine, Plan
from gencomp_server.systems import REGISTRY

GB = 10**9
BOMB = FrameRange(1, 1000)
SYSTEMS = {system.name: system for system in REGISTRY}
HERE = Machine("cpu", "a machine", 64 * GB, 32 * GB, 1.0)


def bomb(system, inputs, **knobs):
    """Return the header of a job of 1000 frames of 8192 x 8192."""
    size = Format(8192, 8192)
    entries = tuple(InputHeader(name, tuple(BOMB), format=size) for name in inputs)
    return Request(system, BOMB, entries, knobs)


BOMBS = [
    bomb("omnimatte", ("plate", "matte.boy"), clean_plate_from="temporal"),
    bomb("overplusplus", ("plate", "effect_mask"), backbone="tiny", prompt="smoke"),
]


@pytest.mark.fault("F38")
@pytest.mark.parametrize("request_", BOMBS, ids=lambda one: one.system)
def test_a_clip_too_large_for_main_memory_is_refused_in_gb_within_100_ms(request_):
    system = SYSTEMS[request_.system]
    began = time.perf_counter()
    plan = system.plan(request_, HERE)
    error = refusal(system, request_, plan, Limits(memory_bytes=4 * GB))
    assert time.perf_counter() - began < 0.1
    assert isinstance(error, OutOfMemory)
    assert "for 1000 frames of 8192 x 8192" in error.message
    assert "may take 4.0 GB" in error.message
    assert error.details["needed_bytes"] > 10 * GB
    assert plan.minutes > 0


@pytest.mark.fault("F38")
def test_a_clip_that_no_spool_could_hold_is_refused_in_gb():
    request_ = BOMBS[0]
    system = SYSTEMS["omnimatte"]
    plan = system.plan(request_, HERE)
    with pytest.raises(DiskFull, match=r"about \d{4}\.\d GB of the server's disk"):
        check_fits(system, request_, plan, Limits(10**15, 250 * GB))
    assert "errno" not in refusal(system, request_, plan, Limits(10**15, 250 * GB)).details


def test_what_would_be_sent_counts_with_what_is_made_of_it():
    system, request_ = SYSTEMS["omnimatte"], BOMBS[0]
    sent = (InputPictures("plate", (PictureEntry(1, GB, "ab" * 32),)),)
    plan = Plan(bytes_in=30 * GB, bytes_out=20 * GB)
    check_fits(system, request_, plan, Limits(disk_bytes=51 * GB), sent)
    with pytest.raises(DiskFull, match=r"about 51\.0 GB"):
        check_fits(system, request_, plan, Limits(disk_bytes=50 * GB), sent)


def test_a_shot_of_every_day_fits():
    size = Format(1920, 1080)
    frames = FrameRange(1, 48)
    entries = tuple(InputHeader(n, tuple(frames), format=size) for n in ("plate", "matte.boy"))
    request_ = Request("omnimatte", frames, entries, {"clean_plate_from": "temporal"})
    system = SYSTEMS["omnimatte"]
    plan = system.plan(request_, HERE)
    assert refusal(system, request_, plan, Limits(8 * GB, 100 * GB)) is None
    assert refusal(system, request_, plan, Limits()) is None


def test_limits_come_from_the_settings_and_else_from_the_machine(tmp_path):
    found = limits_of(0, 0, 0, tmp_path)
    assert 0 < found.memory_bytes == main_memory()
    disk = os.statvfs(tmp_path)
    assert found.disk_bytes == disk.f_blocks * disk.f_frsize
    assert limits_of(3 * GB, 0, 0, tmp_path).memory_bytes == 3 * GB
    assert limits_of(0, 5, 0, tmp_path).disk_bytes == 5
    assert limits_of(0, 0, 1 << 60, tmp_path).disk_bytes == 0


def test_a_container_has_what_it_was_given(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    limit.write_text("1000000000\n")
    monkeypatch.setattr("gencomp_server.admission._CGROUP_LIMITS", (tmp_path / "no", limit))
    assert main_memory() == int(0.95 * GB)
    limit.write_text("max\n")
    assert main_memory() > GB


@pytest.mark.fault("F37")
def test_hardly_a_descriptor_left_takes_no_job_and_one_more_does(monkeypatch):
    used = len(os.listdir("/proc/self/fd"))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (used + 8, hard))
    with pytest.raises(ServerBusy, match=f"of its {used + 8} file descriptors"):
        check_handles()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (used + 64, hard))
    check_handles()


@pytest.mark.fault("F37")
def test_a_process_takes_all_the_descriptors_that_it_may_have():
    code = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (64, 128))\n"
        "from gencomp_server.admission import raise_handle_limit\n"
        "raise_handle_limit()\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    roots = os.pathsep.join(str(Path(__file__).parents[2] / one) for one in ("protocol", "server"))
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": roots},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "128"
