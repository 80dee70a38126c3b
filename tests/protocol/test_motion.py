# SPDX-License-Identifier: Apache-2.0
"""The grammar of placing: curves, paths and matrices over time, one or several elements."""

import pytest

from gencomp_protocol.errors import BadKnob
from gencomp_protocol.motion import (
    CURVE,
    MATRIX,
    PATH,
    Keys,
    check_sections,
    flipped,
    read_keys,
    section_of,
    spell_keys,
)


def test_one_value_stands_for_every_frame():
    assert read_keys(" 0.4 ", CURVE, "scale").at(1234) == (0.4,)


def test_keys_are_joined_by_straight_lines_and_held_outside():
    keys = read_keys("0.8@1049; 0.4@1001", CURVE, "scale")
    assert keys.frames == (1001, 1049)
    at = [keys.at(n)[0] for n in (900, 1001, 1013, 1025, 1049, 2000)]
    assert at == pytest.approx([0.4, 0.4, 0.5, 0.6, 0.8, 0.8])


def test_values_are_exact_at_their_keys():
    keys = read_keys("0.1@1; 0.7@4", CURVE, "scale")
    assert (keys.at(1), keys.at(4)) == ((0.1,), (0.7,))


def test_a_path_is_walked_with_as_long_for_every_piece():
    path = read_keys("0,0; 10,0; 10,100", PATH, "trajectory")
    assert path.along(0.25) == (5, 0)
    assert path.along(0.5) == (10, 0)
    assert path.along(0.75) == (10, 50)
    assert (path.along(-1), path.along(2)) == ((0, 0), (10, 100))
    assert Keys((), ((3.0, 4.0),)).along(0.7) == (3, 4)


def test_a_matrix_has_six_numbers():
    keys = read_keys("1,0,20,0,1,10@1001; 1,0,24,0,1,12@1003", MATRIX, "transform")
    assert keys.at(1002) == (1, 0, 22, 0, 1, 11)


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("", CURVE, "is not a number"),
        ("fast", CURVE, "'fast' is not a number"),
        ("nan", CURVE, "'nan' is not a number"),
        ("1,2,3", PATH, "'1,2,3' is not a position x,y"),
        ("100;200", PATH, "'100' is not a position x,y"),
        ("1,0,0,0,1", MATRIX, "is not the six numbers of a matrix"),
        ("1@later", CURVE, "'1@later' is not a number"),
        ("1@1001; 2", CURVE, "says a frame for some values only"),
        ("1@1001; 2@1001", CURVE, "two values at frame 1001"),
        ("1; 2", CURVE, "several values without frames"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name_with_an_example(text, kind, said):
    with pytest.raises(BadKnob) as caught:
        read_keys(text, kind, "speed")
    assert "Knob 'speed'" in caught.value.message
    assert said in caught.value.message
    assert caught.value.hint


def test_an_element_has_its_own_section_else_the_one_without_a_name():
    text = "plane: 0.4@1001; 0.8@1049 | 1 | bird: 2"
    assert section_of(text, "plane", "scale") == "0.4@1001; 0.8@1049"
    assert section_of(text, "bird", "scale") == "2"
    assert section_of(text, "kite", "scale") == "1"
    assert section_of("plane: 0.4", "kite", "scale") == ""


@pytest.mark.parametrize("text", ["plane: 1 | plane: 2", "1 | 2"])
def test_two_sections_for_one_element_are_refused(text):
    with pytest.raises(BadKnob, match="Knob 'scale'"):
        section_of(text, "plane", "scale")


def test_a_section_for_nobody_is_refused_and_names_who_is_there():
    with pytest.raises(BadKnob) as caught:
        check_sections("plain: 1", ("plane", "bird"), "scale")
    assert "'plain'" in caught.value.message
    assert "plane, bird" in caught.value.hint


def test_y_is_turned_round_for_every_position_and_section():
    assert flipped("plane: 100,200; 3,0 | 5,6@1001", PATH, 1080) == (
        "plane: 100,880; 3,1080 | 5,1074@1001"
    )
    assert flipped("0.4@1001; 0.8@1049", CURVE, 1080) == "0.4@1001; 0.8@1049"
    assert flipped("", PATH, 1080) == ""


def test_a_move_right_and_up_is_a_move_right_and_down_after_the_turn():
    # A 300-line element at its place in a 1080-line plate, y up: its foot on the plate's foot.
    assert flipped("1,0,20,0,1,10", MATRIX, 1080, own_height=300) == "1,0,20,0,1,770"
    # A quarter turn counter-clockwise, y up, is x' = -y; with y down x' = y, shifted.
    assert flipped("0,-1,300,1,0,0", MATRIX, 400, own_height=300) == "0,1,0,-1,0,400"


def test_turning_y_twice_gives_the_text_again():
    text = "plane: 1.25,0.5,3,-0.25,1.5,6.125@1001; 1,0,0,0,1,0@1002"
    again = flipped(flipped(text, MATRIX, 1080, own_height=500), MATRIX, 1080, own_height=500)
    assert again == text


def test_what_is_spelt_is_read_back():
    keys = Keys((1001, 1002.5), ((0.1, -2.0), (1e-07, 123456.75)))
    assert read_keys(spell_keys(keys), PATH, "trajectory") == keys
