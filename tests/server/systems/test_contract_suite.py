# SPDX-License-Identifier: Apache-2.0
"""What every system must do, run on each entry of the registry."""

import dataclasses

import numpy as np
import pytest

from gencomp_protocol.errors import MissingInput
from gencomp_protocol.request import Request
from gencomp_server.contract import check_request, knob_fields, parse_params, schema
from gencomp_server.systems import REGISTRY

SYSTEMS = pytest.mark.parametrize("system", REGISTRY, ids=lambda system: system.name)


def delivery_knobs(system):
    """Return one changed value for each delivery knob."""
    changed = {}
    for field in knob_fields(system.params):
        if not field.metadata["delivery"]:
            continue
        if isinstance(field.default, bool):
            changed[field.name] = not field.default
        elif field.metadata["choices"]:
            changed[field.name] = field.metadata["choices"][-1]
        elif field.name == "order":
            changed[field.name] = "b,a"
        else:
            raise AssertionError(f"say how to change {field.name}")
    return changed


@SYSTEMS
def test_when_a_job_runs_then_exactly_the_declared_layers_come_for_exactly_the_frames(
    system, new_job
):
    job, _ = new_job(objects=2)
    job.system = system.name
    made = job.run()
    request = Request(system.name, job.frames, tuple(job.entries.values()))
    declared = [layer.name for layer in system.layers(request)]
    frames = list(dict.fromkeys(n for _, n in made.pictures))
    assert frames == list(job.frames)
    for n in job.frames:
        assert sorted(layer for layer, at in made.pictures if at == n) == sorted(declared)


@SYSTEMS
def test_when_a_job_runs_twice_from_nothing_then_the_bits_are_equal(system, new_job, tmp_path):
    job, _ = new_job(objects=2, frames=2, clean=False)
    first = job.run(seed=3)
    for stage in list(job.spool.stages.iterdir()):
        for file in stage.iterdir():
            file.unlink()
        stage.rmdir()
    second = job.run(seed=3)
    assert not second.ctx.rows[0].reused
    for place, picture in first.pictures.items():
        assert picture.pixels.tobytes() == second.pictures[place].pixels.tobytes()


@SYSTEMS
def test_when_a_delivery_knob_changes_then_no_stage_runs_again(system, new_job):
    job, _ = new_job(objects=2, frames=2)
    job.run()
    for name, value in delivery_knobs(system).items():
        again = job.run(**{name: value})
        assert again.ctx.rows, name
        assert all(row.reused for row in again.ctx.rows), name


@SYSTEMS
def test_when_the_artist_cancels_then_the_run_stops_within_one_step(system, new_job, cancelled):
    job, _ = new_job(objects=2, frames=2)
    with pytest.raises(cancelled):
        job.run(cancel_after=2)
    assert job.run().pictures


@SYSTEMS
def test_when_an_input_is_missing_then_it_is_refused_by_name(system, new_job):
    job, _ = new_job()
    job.remove("plate")
    with pytest.raises(MissingInput, match="plate"):
        job.run()


@SYSTEMS
def test_when_nothing_is_touched_then_every_knob_is_within_its_own_range(system):
    defaults = dataclasses.asdict(system.params())
    assert parse_params(system.params, defaults) == system.params()
    assert all(entry["doc"] for entry in schema(system)["knobs"])


@SYSTEMS
def test_when_the_whole_plate_is_kept_then_the_background_is_the_plate_bit_for_bit(system, new_job):
    job, _ = new_job(objects=2, frames=1)
    job.add("keep", 1001, np.ones((96, 160, 1), np.float16), cover="still")
    check_request(system, Request(system.name, job.frames, tuple(job.entries.values())))
    made = job.run()
    background = made.layer("background")[1001]
    assert background[..., :3].tobytes() == job.sent["plate", 1001].tobytes()
    assert not made.layer("a")[1001].any()
