# SPDX-License-Identifier: Apache-2.0
"""What a run may use: stages that call nothing twice, generators of their own, quiet progress."""

import numpy as np
import pytest

from gencomp_protocol.errors import Cancelled
from gencomp_server.engine.context import JobContext, as_plain
from gencomp_server.engine.shot import PictureShelf, SpoolShot
from gencomp_server.engine.stages import StageStore
from gencomp_server.exr.decode import DecodePool


class Bench:
    """A context with a clock that stands still, and what it said."""

    def __init__(self, folder):
        self.folder, self.said, self.cancelled, self.now_s, self.calls = folder, [], False, 0.0, []

    def context(self, *, seed=0, device="cpu", system="omnimatte"):
        return JobContext(
            "job",
            system,
            seed,
            device,
            StageStore(self.folder),
            self.said.append,
            lambda: self.cancelled,
            clock=lambda: self.now_s,
        )

    def double(self, ctx, array, *, factor=2.0):
        self.calls.append(factor)
        return array * factor


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "stages")


ARRAY = np.array([1.0, 2.0], np.float32)


def test_an_equal_key_calls_nothing(bench):
    for _ in range(3):
        found = bench.context().stage("double", bench.double, ARRAY, factor=3.0)
        assert found.tolist() == [3.0, 6.0]
    assert bench.calls == [3.0]


@pytest.mark.parametrize(
    "changed",
    [
        lambda b: b.context().stage("double", b.double, ARRAY, factor=4.0),
        lambda b: b.context().stage("double", b.double, ARRAY + 1, factor=3.0),
        lambda b: b.context().stage("double", b.double, ARRAY, version=2, factor=3.0),
        lambda b: b.context().stage("other", b.double, ARRAY, factor=3.0),
        lambda b: b.context(seed=1).stage("double", b.double, ARRAY, factor=3.0),
        lambda b: b.context(device="cuda:0").stage("double", b.double, ARRAY, factor=3.0),
        lambda b: b.context(system="other").stage("double", b.double, ARRAY, factor=3.0),
        lambda b: b.context().stage("double", b.double, ARRAY.astype(np.float64), factor=3.0),
    ],
)
def test_whatever_it_depends_on_changes_it_is_called_again(bench, changed):
    bench.context().stage("double", bench.double, ARRAY, factor=3.0)
    changed(bench)
    assert len(bench.calls) == 2


def test_a_stage_that_takes_what_a_stage_made_is_reused_too(bench):
    for _ in range(2):
        ctx = bench.context()
        first = ctx.stage("first", bench.double, ARRAY)
        second = ctx.stage("second", bench.double, first)
    assert second.tolist() == [4.0, 8.0]
    assert [row.reused for row in ctx.rows] == [True, True]
    assert len(bench.calls) == 2


def test_a_stage_that_fails_is_not_kept(bench):
    def fail(ctx):
        bench.calls.append("fail")
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            bench.context().stage("fail", fail)
    assert bench.calls == ["fail", "fail"]
    assert list(bench.folder.iterdir()) == []


def test_a_cancelled_stage_goes_on_from_its_checkpoint(bench):
    def count(ctx):
        saved = ctx.checkpoint("count")
        start = 0 if saved is None else int(saved["i"])
        for i in range(start, 4):
            bench.calls.append(i)
            ctx.checkpoint("count", {"i": np.array(i + 1)})
            bench.cancelled = i == 1
            ctx.check_cancelled()
        return "counted"

    with pytest.raises(Cancelled):
        bench.context().stage("count", count)
    bench.cancelled = False
    assert bench.context().stage("count", count) == "counted"
    assert bench.calls == [0, 1, 2, 3]


def test_a_checkpoint_outside_a_stage_is_our_mistake(bench):
    with pytest.raises(RuntimeError, match="belongs to a stage"):
        bench.context().checkpoint("x")


def test_checkpoints_of_two_stages_are_two(bench):
    def keep(ctx, value):
        assert ctx.checkpoint("x") is None
        ctx.checkpoint("x", {"v": np.array(value)})
        return value

    ctx = bench.context()
    assert [ctx.stage("keep", keep, i) for i in (1, 2)] == [1, 2]


def test_the_stage_table_tells_name_seconds_and_reuse(bench):
    def slow(ctx):
        bench.now_s += 2.5
        return 1

    first, second = bench.context(), bench.context()
    first.stage("slow", slow)
    second.stage("slow", slow)
    assert [(row.name, row.seconds, row.reused) for row in first.rows] == [("slow", 2.5, False)]
    assert [(row.name, row.seconds, row.reused) for row in second.rows] == [("slow", 0.0, True)]
    assert first.rows[0].key == second.rows[0].key


def test_a_stage_that_is_asked_for_twice_has_one_row(bench):
    ctx = bench.context()
    assert [ctx.stage("one", lambda ctx: 1) for _ in range(2)] == [1, 1]
    assert len(ctx.rows) == 1


def test_a_stage_depends_on_a_shots_pictures_and_not_on_its_knobs(bench, tiny_job):
    pool = DecodePool(1)

    def seen(ctx, shot):
        bench.calls.append(dict(shot.request.knobs))
        return float(shot.frame("plate", 1001)[0, 0, 0])

    def run(**facts):
        request = tiny_job.request(**facts)
        shelf = PictureShelf(tiny_job.spool, tiny_job.system, request, tiny_job.pictures, pool)
        shot = SpoolShot(request, shelf)
        return [bench.context().stage("seen", seen, one) for one in (shot, shot.only("plate"))]

    assert run(knobs={"steps": 3}) == [0.5, 0.5]
    assert run(knobs={"steps": 9}, client="another") == [0.5, 0.5]
    assert bench.calls == [{}, {}]
    tiny_job.add("matte.a", 1002, np.zeros((2, 4, 1), np.float16), ("A",))
    run()
    assert len(bench.calls) == 3
    tiny_job.add("plate", 1002, np.zeros((2, 4, 3), np.float16))
    run()
    assert len(bench.calls) == 5
    pool.close()


def test_generators_depend_on_seed_and_key_alone(bench):
    draws = {
        (seed, key): bench.context(seed=seed).generator(key).integers(0, 2**62)
        for seed in (0, 1)
        for key in ("a", "b")
    }
    assert len(set(draws.values())) == 4
    ctx = bench.context()
    ctx.generator("b").random(100)
    assert ctx.generator("a").integers(0, 2**62) == draws[0, "a"]


def test_progress_is_quiet_but_says_first_last_and_every_tenth_of_a_second(bench):
    ctx = bench.context()
    for step in range(1, 101):
        ctx.progress("solve", step, 100)
        bench.now_s += 0.011
    steps = [message["step"] for message in bench.said]
    assert (steps[0], steps[-1], len(steps)) == (1, 100, 11)
    assert bench.said[0] == {
        "is": "progress",
        "job": "job",
        "stage": "solve",
        "step": 1,
        "total": 100,
    }


def test_progress_stops_a_cancelled_job(bench):
    bench.cancelled = True
    with pytest.raises(Cancelled):
        bench.context().progress("solve", 1, 2)


def test_a_warning_is_said_once_and_kept(bench):
    ctx = bench.context()
    ctx.warn("Frame 7 is blurred.")
    ctx.warn("Frame 7 is blurred.")
    assert ctx.warnings == ["Frame 7 is blurred."]
    assert bench.said == [{"is": "warning", "job": "job", "sentence": "Frame 7 is blurred."}]


def test_figures_are_plain_whatever_numpy_made_of_them(bench):
    ctx = bench.context()
    ctx.report("error_px", {1001: np.float32(0.5), "worst": (np.int64(3), float("nan"))})
    assert ctx.figures == {"error_px": {"1001": 0.5, "worst": [3, None]}}
    with pytest.raises(TypeError, match="cannot hold a ndarray"):
        as_plain(np.zeros(2))


def test_a_stage_that_does_not_know_the_seed_is_found_by_every_seed(bench):
    for seed in (0, 1):
        found = bench.context(seed=seed).stage("double", bench.double, ARRAY, seeded=False)
        assert found.tolist() == [2.0, 4.0]
    assert bench.calls == [2.0]


def test_a_stage_that_does_not_know_the_seed_gets_no_random_numbers(bench):
    def draw(ctx):
        return ctx.generator("noise").standard_normal(1)

    with pytest.raises(RuntimeError, match="does not know the seed"):
        bench.context().stage("draw", draw, seeded=False)
    assert bench.context().stage("draw", draw).shape == (1,)
