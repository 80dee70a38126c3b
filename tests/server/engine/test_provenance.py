# SPDX-License-Identifier: Apache-2.0
"""Which stages went into a value: by what they made itself, never by what only looks like it."""

import gc
from dataclasses import dataclass

import numpy as np
import pytest

from gencomp_server.engine.context import JobContext
from gencomp_server.engine.stages import Provenance, StageStore


@dataclass(frozen=True)
class Words:
    prompt: np.ndarray
    cut: str
    scale: float
    box: tuple


def make(ctx, *given, n=1.0):
    return Words(np.full((4, 3), n, np.float32), "cut words", 0.25, (0, 0, 4, 3))


@pytest.fixture
def ctx(tmp_path):
    return JobContext("job", "any", 0, "cpu", StageStore(tmp_path), [].append, lambda: False)


def needed(ctx, *given, **settings):
    """Return the names of the stages that a stage of this call needs."""
    ctx.stage("last", lambda ctx, *given, **settings: 1, *given, **settings)
    names = {row.key: row.name for row in ctx.rows}
    return [names[key] for key in ctx.rows[-1].needs]


@pytest.mark.parametrize(
    "part",
    [
        lambda made: made,
        lambda made: made.prompt,
        lambda made: made.prompt[1:, 0],
        lambda made: np.asarray(made.prompt),
        lambda made: {"deep": [(made.prompt,)]},
        lambda made: made.cut,
        lambda made: made.scale,
        lambda made: made.box,
    ],
)
def test_a_result_a_part_of_it_and_a_view_of_it_are_known(ctx, part):
    made = ctx.stage("first", make)
    ctx.stage("other", make, n=2.0)
    assert needed(ctx, part(made)) == ["first"]
    assert needed(ctx, wanted=part(made)) == ["first"]


def test_what_only_looks_like_a_result_is_none(ctx):
    made = ctx.stage("first", make)
    equal = Words(np.array(made.prompt), f"{made.cut}!"[:-1], made.scale * 1, (*made.box, 0)[:-1])
    assert needed(ctx, equal) == []
    assert needed(ctx, 4, "", (), None, True) == []


def test_what_was_computed_on_the_way_is_known_where_that_is_said(ctx):
    one, two = ctx.stage("one", make), ctx.stage("two", make, n=2.0)
    mixed = one.prompt + two.prompt
    assert needed(ctx, mixed) == []
    assert ctx.made_of(mixed, one, two) is mixed
    assert needed(ctx, mixed[1:]) == ["one", "two"]
    assert needed(ctx, ctx.made_of({"of": [mixed * 2]}, mixed)) == ["one", "two"]


def test_a_stage_that_was_found_is_known_as_well(ctx, tmp_path):
    ctx.stage("first", make)
    again = JobContext("job", "any", 0, "cpu", StageStore(tmp_path), [].append, lambda: False)
    assert needed(again, again.stage("first", make).prompt) == ["first"]
    assert again.rows[0].reused


def test_arrays_are_not_kept_alive_and_thousands_of_numbers_not_noted():
    found = Provenance()
    array, many = np.zeros(3), tuple(float(n) for n in range(5000))
    found.note(frozenset("a"), (array, many))
    assert found.of(array[1:]) == frozenset("a")
    assert found.of(many) == frozenset("a")
    assert found.of(many[7]) == frozenset()
    del array
    gc.collect()
    assert found._arrays == {}
