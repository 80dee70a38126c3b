# SPDX-License-Identifier: Apache-2.0
"""Which passes are made, and what their trimasks say, pixel by pixel on one row."""

import numpy as np
import pytest

from gencomp_protocol.errors import BadKnob
from gencomp_server.parts.passes import (
    Pass,
    ask,
    ask_as_drawn,
    parse_seeds,
    plan_passes,
    side_by_side,
)
from gencomp_server.parts.trimask import EDIT, KEEP, UNKNOWN

LETTERS = {KEEP: "k", UNKNOWN: "-", EDIT: "e"}


def mattes(*rows):
    """Return coverage [1,9,w,N] whose every line is the row given for an object."""
    width = len(rows[0])
    made = np.zeros((1, 9, width, len(rows)), np.float32)
    for k, row in enumerate(rows):
        made[0, :, [i for i, letter in enumerate(row) if letter == "#"], k] = 1
    return made


def row(asked):
    return "".join(LETTERS[int(kind)] for kind in asked.trimask[0, 4, :, 0])


@pytest.mark.parametrize(
    ("objects", "clean", "solos", "wanted"),
    [
        ("a", False, "", ["clean plate"]),
        ("a", True, "", []),
        ("ab", False, "", ["clean plate", "solo of a", "solo of b"]),
        ("ab", True, "", ["solo of a", "solo of b"]),
        ("abc", False, "b", ["clean plate", "solo of a", "solo of c"]),
        ("ab", True, "ab", []),
    ],
)
def test_what_the_artist_gave_needs_no_pass(objects, clean, solos, wanted):
    passes = plan_passes(tuple(objects), clean_given=clean, solos_given=tuple(solos))
    assert [one.title for one in passes] == wanted


def test_a_seed_belongs_to_one_pass_and_background_is_the_clean_plate():
    seeds = parse_seeds("b=3, background=7", ("a", "b"))
    made = plan_passes(("a", "b"), clean_given=False, seeds=seeds)
    assert made == (Pass("", 7), Pass("a"), Pass("b", 3))


def test_passes_go_alone_until_a_forward_takes_more_and_then_those_of_one_noise_go_together():
    passes = (Pass(""), Pass("a", 3), Pass("b"))
    assert side_by_side(passes, 1) == ((passes[0],), (passes[1],), (passes[2],))
    assert side_by_side(passes, 2) == ((passes[0], passes[2]), (passes[1],))
    assert side_by_side((passes[1],), 4) == ((passes[1],),)


@pytest.mark.parametrize("text", ["a", "a=", "a=-1", "a=1.5", "c=1", "a=1,a=2", "a=2147483648"])
def test_a_seed_that_cannot_be_read_is_refused_by_the_knobs_name(text):
    with pytest.raises(BadKnob, match="'passes'"):
        parse_seeds(text, ("a", "b"))


def test_the_clean_plate_removes_every_object_grown_and_leaves_the_rest_to_the_model():
    two = mattes("...##.........", "..........##..")
    assert row(ask(None, two, grow_px=1)) == "--eeee---eeee-"


def test_a_solo_keeps_its_object_and_removes_the_others():
    two = mattes("...##.........", "..........##..")
    assert row(ask(0, two, grow_px=1)) == "--kkkk---eeee-"
    assert row(ask(1, two, grow_px=1)) == "--eeee---kkkk-"


def test_an_object_is_not_eaten_by_its_neighbours_growth_but_by_its_matte():
    two = mattes("..####........", "......####....")
    assert row(ask(0, two, grow_px=2)) == "kkkk--eeeeee--"
    overlapping = mattes("..######......", "......####....")
    assert row(ask(0, overlapping, grow_px=2)) == "kkkk--eeeeee--"


def test_keep_wins_over_everything_and_effects_follow_their_object():
    two = mattes("...##.........", "..........##..")
    keep = mattes("....#.........")
    effects = {1: mattes("............##")}
    assert row(ask(None, two, grow_px=0, effects=effects, keep=keep)) == "---ek-----eeee"
    assert row(ask(1, two, grow_px=0, effects=effects, keep=keep)) == "---ek-----kkkk"
    assert row(ask(0, two, grow_px=0, effects=effects, keep=keep)) == "---kk-----eeee"


def test_white_keeps_grey_is_unknown_and_black_removes_in_a_trimask_of_the_artists_own():
    drawn = np.broadcast_to(np.float32([0, 0.24, 0.26, 0.5, 0.74, 0.76, 1]), (1, 9, 7))
    assert row(ask_as_drawn(drawn[..., None])) == "ee---kk"


def test_the_models_own_picture_stands_where_an_object_went_and_ends_softly():
    two = mattes("...##.........", "..........##..")
    shares = ask(0, two, grow_px=2).replaced[0, 4, :, 0].astype(float)
    assert shares[10] == shares[11] == 1
    assert 0 < shares[8] < shares[9] < 1
    assert shares[:8].tolist() == [0] * 8


def test_an_effect_that_goes_is_a_change_of_the_plate_not_a_picture_of_the_models():
    effects = {1: mattes("##............")}
    asked = ask(0, mattes("....##........", "..........##.."), grow_px=0, effects=effects)
    assert row(asked).startswith("ee")
    assert not asked.replaced[0, :, :2].any()
