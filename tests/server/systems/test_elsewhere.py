# SPDX-License-Identifier: Apache-2.0
"""The seam: a job whose stages are computed by another process has the same graph and bits."""

import os

import pytest

from fakes.elsewhere import Elsewhere, wait
from gencomp_protocol.errors import Cancelled
from gencomp_server.backbones import TINY, choose
from gencomp_server.contract import Machine, check_request, find_system
from gencomp_server.engine import graph
from gencomp_server.engine.context import JobContext
from gencomp_server.engine.residency import Residency, wanted
from gencomp_server.engine.shot import PictureShelf, SpoolShot
from gencomp_server.engine.stages import StageStore
from gencomp_server.footprint import Placement
from gencomp_server.systems import REGISTRY

NAME = "gencomp_server.systems:REGISTRY"
WITH_TINY = {"backbone": TINY, "steps": 2, "guidance": 1.0, "model_size": "48x32", "prompt": "fog"}


def run(job, executor=None, store=None, is_cancelled=lambda: False, **knobs):
    """Run a job; return what it delivered and its context."""
    system = find_system(REGISTRY, job.system)
    request = job.request(**knobs)
    params = check_request(system, request)
    store = store or StageStore(job.spool.stages)
    said = []
    ctx = JobContext(
        "job", system.name, params.seed, "cpu", store, said.append, is_cancelled, executor=executor
    )
    if "backbone" in knobs:
        spec = choose(system, params, Machine())
        held = Residency(job.spool.root / "models")
        ctx.backbone = held.lease(wanted(spec, params, Placement(), "cpu"), "")
    shelf = PictureShelf(job.spool, system, request, job.pictures, job.pool)
    made = {
        (one.layer, one.frame): one for one in system.run(SpoolShot(request, shelf), params, ctx)
    }
    shelf.close()
    return made, ctx, said


def same(job, other, **knobs):
    """Run a job elsewhere and another one here; return the contexts once all bits were equal."""
    store = StageStore(job.spool.stages)
    executor = Elsewhere(store, job.spool, NAME)
    there, ctx, said = run(job, executor, store, **knobs)
    executor.close()
    here, own, _ = run(other, **knobs)
    assert list(there) == list(here)
    for place, picture in here.items():
        assert picture.pixels.tobytes() == there[place].pixels.tobytes(), place
    assert executor.ran == [row.name for row in ctx.rows]
    assert os.getpid() not in executor.pids
    assert len(executor.pids) == 1
    facts = [[(row.key, row.bytes, row.needs, row.reads) for row in one.rows] for one in (ctx, own)]
    assert facts[0] == facts[1]
    assert not list(job.spool.stages.glob("*.call"))
    return ctx, own, said


@pytest.mark.fault("F41")
def test_when_stages_run_in_another_process_then_graph_and_bits_are_those_of_one(
    new_job_in, tmp_path
):
    made = [new_job_in(tmp_path / name, objects=1, frames=2)[0] for name in ("there", "here")]
    _, _, said = same(*made)
    assert any(one["is"] == "progress" for one in said)


@pytest.mark.slow
def test_when_a_video_model_runs_elsewhere_then_bits_and_forwards_are_those_of_one(
    new_job_in, tmp_path
):
    made = [
        new_job_in(tmp_path / name, system="overplusplus", frames=2)[0]
        for name in ("there", "here")
    ]
    ctx, own, _ = same(*made, **WITH_TINY)
    assert ctx.backbone.forwards == own.backbone.forwards == 2


def test_when_a_job_is_cancelled_then_the_stage_elsewhere_stops_and_is_not_kept(new_job, tmp_path):
    job, _ = new_job(objects=1, frames=1)
    store, said = StageStore(job.spool.stages), []
    executor = Elsewhere(store, job.spool, NAME)

    def has_begun():
        return any(one["is"] == "progress" for one in said)

    ctx = JobContext("job", "any", 0, "cpu", store, said.append, has_begun, executor=executor)
    with pytest.raises(Cancelled):
        ctx.stage("wait", wait, forever=True)
    assert said[-1]["stage"]["state"] == graph.STOPPED
    assert list(job.spool.stages.iterdir()) == []
    ctx = JobContext("job", "any", 0, "cpu", store, said.append, lambda: False, executor=executor)
    assert ctx.stage("wait", wait, forever=False) == 0  # It takes the next one.
    executor.close()


def test_when_a_function_is_no_modules_own_then_it_is_refused_before_anything_is_sent(
    new_job_in, tmp_path
):
    from gencomp_server.engine.executor import StageCall, pack

    job = new_job_in(tmp_path, objects=1, frames=1)[0]
    ctx = job.context()
    with pytest.raises(TypeError, match="cannot run elsewhere"):
        pack(StageCall("k", "k", lambda ctx: 1, (), {}), ctx, StageStore(job.spool.stages))


def test_a_dot_alone_needs_nothing_and_lanes_that_do_not_fit_are_left_out():
    rows = [graph.StageRow(f"frame {n}", str(n), 0.1) for n in range(20)]
    rows.append(graph.StageRow("all", "all", 0.1, needs=tuple(str(n) for n in range(20))))
    drawn = graph.lines(rows)
    assert [line[29] for line in drawn] == ["○"] * 20 + ["●"]
    assert graph.lines([]) == []


def test_a_row_that_an_older_peer_sent_has_defaults_and_is_the_same_after_the_wire():
    row = graph.StageRow("scene", "a", 1.5, True, graph.DONE, 3, ("b",), ("plate",))
    assert graph.from_plain(graph.to_plain(row)) == row
    old = {"name": "scene", "key": "a", "seconds": 1.5, "reused": True, "colour": "blue"}
    assert graph.from_plain(old) == graph.StageRow("scene", "a", 1.5, True)


def test_the_rails_lead_results_to_who_needs_them():
    rows = [
        graph.StageRow("scene", "a", 1.25, bytes=2_500_000, reads=("plate", "matte.boy")),
        graph.StageRow("text", "b", 0.5, True, bytes=900),
        graph.StageRow("sample", "c", 60.0, bytes=40_000, needs=("a", "b")),
        graph.StageRow("decode", "d", 0.0, state=graph.RUNNING, needs=("c",)),
        graph.StageRow("gate", "e", 0.1, state=graph.FAILED, needs=("a", "d")),
    ]
    assert graph.lines(rows) == [
        "done        1.2 s    2.5 MB  ○    scene [plate, matte.boy]",
        "found       0.5 s     900 B  │ ○  text",
        "done       60.0 s   40.0 kB  ├─●  sample",
        "running                      │ ●  decode",
        "failed      0.1 s            ●─╯  gate",
    ]
