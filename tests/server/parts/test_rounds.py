# SPDX-License-Identifier: Apache-2.0
"""Which rounds an edit has, which noise levels an inversion visits, and what both cost."""

from dataclasses import replace

from gencomp_server.backbones import spec_named
from gencomp_server.parts.rounds import (
    count_forwards,
    count_inversion_forwards,
    kept_steps,
    plan_rounds,
    timesteps_of,
    way_there,
)

SPEC = replace(spec_named("tiny-text-to-video"), window_frames=49, overlap_frames=16)

# --- of an edit ---------------------------------------------------------------------------------


def test_the_papers_list_has_seven_rounds_that_begin_where_it_says():
    rows = [(r.level, r.first, r.steps, r.anchored) for r in plan_rounds("paper", 50)]
    assert rows == [
        (919, 919, 46, 16),
        (899, 899, 45, 15),
        (779, 779, 39, 9),
        (679, 679, 34, 4),
        (579, 579, 29, 0),
        (479, 479, 24, 0),
        (379, 379, 19, 0),
    ]


def test_a_draft_has_the_same_rounds_in_fewer_steps():
    rows = [(r.number, r.first, r.steps, r.anchored) for r in plan_rounds("shipped", 10)]
    assert rows == [
        (1, 899, 9, 3),
        (2, 699, 7, 1),
        (3, 599, 6, 0),
        (4, 499, 5, 0),
        (5, 399, 4, 0),
        (6, 299, 3, 0),
    ]


def test_a_single_step_still_has_rounds():
    assert {(r.start, r.steps) for r in plan_rounds("shipped", 1)} == {(0, 1)}


def test_an_edit_as_shipped_takes_189_steps_with_and_without_words_and_28_sources():
    rounds = plan_rounds("shipped", 50)
    assert count_forwards(rounds, 1, 6.0) == 2 * 189 + 28
    assert count_forwards(rounds, 3, 6.0) == 3 * (2 * 189 + 28)


def test_without_guidance_a_step_has_no_second_half():
    assert count_forwards(plan_rounds("shipped", 50), 1, 1.0) == 189 + 28


def test_an_edit_that_goes_on_from_round_four_takes_what_follows():
    assert count_forwards(plan_rounds("shipped", 50)[3:], 1, 6.0) == 2 * (28 + 24 + 19)


# --- of an inversion -----------------------------------------------------------------------------


def test_fifty_steps_kept_of_250_take_249_forwards():
    assert count_inversion_forwards(SPEC, 49, steps=50, inversion_steps=250) == 249
    assert count_inversion_forwards(SPEC, 50, steps=50, inversion_steps=250) == 2 * 249


def test_a_draft_of_ten_steps_finds_the_inversion_of_fifty():
    assert [kept_steps(steps) for steps in (10, 25, 50)] == [50, 50, 50]


def test_steps_that_fifty_do_not_visit_are_inverted_on_their_own():
    assert [kept_steps(steps) for steps in (7, 40)] == [7, 40]


def test_every_timestep_of_sampling_lies_on_the_way_also_where_the_numbers_do_not_divide():
    way = way_there(7, 250)
    assert set(timesteps_of(7)) <= set(way)
    assert len(way) == 250 + len(set(timesteps_of(7)) - set(timesteps_of(250)))


def test_a_model_of_another_window_is_inverted_in_its_own():
    short = replace(SPEC, window_frames=25, overlap_frames=8)
    assert count_inversion_forwards(short, 49, steps=5, inversion_steps=25) == 3 * 24
