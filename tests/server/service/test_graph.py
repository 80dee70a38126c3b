# SPDX-License-Identifier: Apache-2.0
"""A job's stages as a server tells of them; what is computed again after a fault, counted."""

import json
import time

import pytest

from gencomp_protocol.client import Warned
from gencomp_protocol.errors import UnknownJob
from gencomp_server.cli import main
from gencomp_server.engine import graph

REGISTRY = "stub_passes:REGISTRY"
WINDOWS = [f"{n}.{window}" for n in range(1, 5) for window in range(1, 4)]


@pytest.fixture(scope="module")
def unbroken(server_of):
    """Another such server, with a spool of its own, where nothing goes wrong."""
    return server_of(REGISTRY)


@pytest.fixture
def asked(passes, shot, tmp_path):
    """Return a function that runs a job of one shot: outcome, events, id and what it delivered."""

    def ask(server=passes, **knobs):
        out = tmp_path / f"out{time.monotonic_ns()}"
        request = shot.request("passes", **knobs)
        with server.client() as client:
            pictures = shot.pictures()
            job = client.submit(request, pictures, f"k{time.monotonic_ns()}")
            events = []
            outcome = client.follow(job, pictures=pictures, folder=out, on_event=events.append)
        files = sorted(out.rglob("*.exr"))
        return outcome, events, job, [one.read_bytes() for one in files]

    return ask


class Fault:
    """What goes wrong once, and what is computed meanwhile."""

    def __init__(self, folder, at, kind):
        self.log, self.once = folder / "log.txt", folder / "once"
        self.knobs = {"log": str(self.log), "once": str(self.once), "fault": kind, "at": at}

    def windows(self):
        return self.log.read_text().split()


def named(rows):
    """Return (name, state, reused) of rows."""
    return [(row.name, row.state, row.reused) for row in rows]


def rows_of(server, job):
    with server.client() as client:
        found = client.graph(job)
    return found["state"], [graph.from_plain(one) for one in found["stages"]]


@pytest.mark.fault("F32")
def test_when_a_pass_fails_then_the_job_again_computes_no_window_twice_but_the_one_that_failed(
    passes, asked, tmp_path
):
    fault = Fault(tmp_path, "3.2", "raise")  # pass 3 of 4, window 2 of 3
    failed, _, first, delivered = asked(**fault.knobs)
    assert failed.state == "failed"
    assert delivered == []
    state, rows = rows_of(passes, first)
    assert state == "failed"
    assert named(rows) == [
        ("encode", "done", False),
        ("pass", "done", False),
        ("pass", "done", False),
        ("pass", "failed", False),
    ]
    again, _, second, delivered = asked(**fault.knobs)
    assert again.state == "done"
    assert len(delivered) == 3
    assert fault.windows() == [*WINDOWS[:8], *WINDOWS[7:]]  # Only 3.2 twice: it never ended.
    rows = rows_of(passes, second)[1]
    found = [("encode", "done", True), *[("pass", "done", True)] * 2]
    assert named(rows) == [
        *found,
        *[("pass", "done", False)] * 2,
        ("merge", "done", False),
        ("layers", "done", False),
    ]


@pytest.mark.fault("F32")
@pytest.mark.fault("F41")
def test_when_the_worker_dies_in_a_pass_then_what_it_goes_on_with_has_the_bits_of_one_that_lived(
    passes, asked, tmp_path, unbroken
):
    fault = Fault(tmp_path, "3.2", "kill")
    outcome, events, _, delivered = asked(seed=7, **fault.knobs)
    assert outcome.state == "done"
    assert any("SIGKILL" in one.sentence for one in events if isinstance(one, Warned))
    assert fault.windows() == [*WINDOWS[:8], *WINDOWS[7:]]
    whole = asked(unbroken, seed=7)
    assert whole[0].manifest["layers"] == outcome.manifest["layers"]
    assert whole[3] == delivered
    other = asked(unbroken, seed=8)
    assert other[3] != delivered


@pytest.mark.fault("F41")
def test_when_a_job_is_cancelled_in_a_stage_and_asked_for_again_then_it_goes_on_to_the_same_bits(
    passes, asked, tmp_path, unbroken, shot, wait_until
):
    fault = Fault(tmp_path, "2.3", "wait")
    request, pictures = shot.request("passes", seed=11, **fault.knobs), shot.pictures()
    with passes.client() as client, passes.client() as other:
        job = client.submit(request, pictures, "cancelled")
        stop = fault.once.exists  # Now it is in the last window of the second pass.
        assert client.follow(job, pictures=pictures, cancelled=stop).state == "cancelled"
        wait_until(lambda: other.job(job)["state"] == "cancelled")
    stages = [("encode", "done"), ("pass", "done"), ("pass", "stopped")]
    assert [(row.name, row.state) for row in rows_of(passes, job)[1]] == stages
    resumed = asked(seed=11, **fault.knobs)
    assert resumed[3] == asked(unbroken, seed=11)[3]
    assert fault.windows() == [*WINDOWS[:6], *WINDOWS[5:]]


def test_when_a_stage_is_computed_then_it_is_told_as_running_with_what_it_needs(
    passes, tmp_path, shot, wait_until
):
    fault = Fault(tmp_path, "2.1", "wait")
    request, pictures = shot.request("passes", seed=6, **fault.knobs), shot.pictures()
    seen = []

    def look():
        if fault.once.exists() and not seen:
            seen.extend(rows_of(passes, job)[1])
        return bool(seen)

    with passes.client() as client:
        job = client.submit(request, pictures, "running")
        client.follow(job, pictures=pictures, cancelled=look)
    assert [(row.name, row.state) for row in seen[-2:]] == [("pass", "done"), ("pass", "running")]
    assert seen[-1].needs == (seen[0].key,)
    assert seen[-1].bytes == 0


def test_when_only_the_delivery_changes_then_no_pass_is_computed_again(passes, asked, tmp_path):
    log = tmp_path / "log.txt"
    asked(seed=3, log=str(log))
    before = log.read_text()
    outcome, _, job, _ = asked(seed=3, log=str(log), gain=2.0)
    assert outcome.state == "done"
    assert log.read_text() == before
    assert [row.reused for row in rows_of(passes, job)[1]] == [True] * 6 + [False]


def test_when_another_prompt_is_asked_of_the_plate_then_its_encoding_is_found(passes, asked):
    asked(seed=4, prompt="fog")
    _, _, job, _ = asked(seed=4, prompt="rain")
    rows = rows_of(passes, job)[1]
    assert [row.name for row in rows if row.reused] == ["encode"]
    by_key = {row.key: row.name for row in rows}
    needs = [[by_key[key] for key in row.needs] for row in rows]
    assert needs == [[], *[["encode"]] * 4, ["pass"] * 4, ["merge"]]
    assert rows[0].reads == ("plate",)
    assert all(row.bytes > 0 for row in rows)


def test_when_a_job_is_shown_then_each_stage_is_drawn_with_state_time_and_size(
    passes, asked, capsys, monkeypatch
):
    _, _, job, files = asked(seed=5)
    monkeypatch.setenv("GENCOMP_SECRET_FILE", str(passes.config.state_file))
    words = ["jobs", "show", job, "--server", passes.here.address]
    assert main(words) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith(f"{job}  passes  1001-1003  done  after ")
    assert [line.split()[-1] for line in lines[1:]] == ["pass"] * 4 + ["merge", "layers"]
    assert lines[0].endswith("encode [plate]")
    assert all(line.split()[0] in ("done", "found") and " s " in line for line in lines)
    kilobytes = sum(map(len, files)) / 1000
    assert f"{kilobytes:.1f} kB" in lines[-1]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["job"] == job
    assert len(found["stages"]) == 7
    assert main(["jobs", "--server", passes.here.address]) == 0
    assert job in capsys.readouterr().out
    assert main(["jobs", "show", "--server", passes.here.address]) == 2


def test_a_graph_of_a_job_that_nobody_has_is_refused(passes):
    with passes.client() as client:
        for ask in (client.graph, client.report):
            with pytest.raises(UnknownJob, match="gencomp jobs lists"):
                ask("0" * 16)
