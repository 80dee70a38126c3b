# SPDX-License-Identifier: Apache-2.0
"""What a gizmo says of itself, read."""

import pytest

from gencomp_nuke.declared import (
    OMNIMATTE,
    PipeSpec,
    declaration,
    key_of,
    layer_of,
    placeholder,
)
from gencomp_protocol.errors import InternalError


def told(**knobs):
    return declaration({**OMNIMATTE, **knobs})


def test_a_pipe_is_its_name_its_input_its_kind_and_words():
    found = told(
        gc_pipes="Bg bg rgb lead; Fg1 fg.* rgba own bare; FgMatte1 fg_matte.* matte like=Fg1"
    )
    assert found.pipes == (
        PipeSpec("Bg", "bg", "rgb", is_lead=True),
        PipeSpec("Fg1", "fg.*", "rgba", own=True, bare=True),
        PipeSpec("FgMatte1", "fg_matte.*", "matte", like="Fg1"),
    )


def test_a_node_that_says_nothing_is_an_omnimatte_of_fourteen_pipes():
    found = declaration({})
    assert [pipe.pipe for pipe in found.pipes][:3] == ["Plate", "Matte1", "Matte2"]
    assert len(found.pipes) == 14
    assert found.slots == (1, 2, 3, 4, 5, 6, 7, 8)


@pytest.mark.parametrize(
    ("pipe", "folder", "with_name", "without"),
    [
        (PipeSpec("Matte3", "matte.*", "matte"), "matte3", "matte.boy", "matte"),
        (PipeSpec("FgMatte12", "fg_matte.*", "matte"), "fg_matte12", "fg_matte.boy", "fg_matte"),
        (PipeSpec("CleanPlate", "clean_plate", "rgb"), "clean_plate", "clean_plate", "clean_plate"),
    ],
)
def test_a_pipe_knows_its_files_and_its_input(pipe, folder, with_name, without):
    assert pipe.folder == folder
    assert (pipe.spelt("boy"), pipe.spelt("")) == (with_name, without)


def test_needs_are_pipes_families_and_alternatives():
    assert told(gc_needs="Plate | Fg + Bg").needs == ((("Plate",), ("Fg", "Bg")),)
    assert told(gc_needs="Plate, Matte").needs == ((("Plate",),), (("Matte",),))
    assert told(gc_needs="").needs == ()
    assert told().matching("Matte")[:2] == ("Matte1", "Matte2")
    assert told().matching("Plate") == ("Plate",)


@pytest.mark.parametrize(
    ("layer", "name", "is_called"),
    [
        ("*", "boy", "boy"),
        ("*_object", "boy", "boy_object"),
        ("element_*", "bird", "element_bird"),
        ("element_*", "", "element"),
        ("result", "", "result"),
    ],
)
def test_a_layer_of_an_object_has_its_name_and_without_one_none(layer, name, is_called):
    assert layer_of(layer, name) == is_called


def test_inner_nodes_are_called_by_the_number_of_the_pipe():
    assert [key_of(one, 2) for one in ("*", "*_effects", "element_*")] == [
        "2",
        "2_effects",
        "element_2",
    ]
    assert [placeholder(one, 2) for one in ("*", "element_*")] == ["object2", "element_2"]


@pytest.mark.parametrize(
    "pipes",
    [
        "Plate plate",
        "Plate plate colour",
        "Plate plate rgb nonsense",
        "Plate plate rgb like",
        "Matte matte.* matte",
        "Matte99 matte.* matte",
    ],
)
def test_what_cannot_be_understood_is_refused_and_named(pipes):
    with pytest.raises(InternalError, match=f"'{pipes.replace('*', '[*]')}'"):
        told(gc_pipes=pipes)


def test_a_knob_of_places_says_what_they_are_in():
    found = told(gc_coordinates="trajectory=plate transform=matrix")
    assert found.coordinates == {"trajectory": "plate", "transform": "matrix"}
    with pytest.raises(InternalError, match="'trajectory'"):
        told(gc_coordinates="trajectory")
