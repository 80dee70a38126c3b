# SPDX-License-Identifier: Apache-2.0
"""Pipes that appear when the last of their family is connected, and the names they give."""

import sys
from pathlib import Path

import pytest

import standin
from fakes.shot import connect
from gencomp_nuke import asking, callbacks, node, pipes

ROOT = Path(__file__).resolve().parent.parent.parent
OLDER = Path(__file__).parent / "older" / "Omnimatte.gizmo"


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """Return one Nuke for all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENCOMP_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(sys, "path", list(sys.path))
        made = standin.install(gui=True)
        made.start([ROOT])
        yield made


@pytest.fixture(scope="module")
def first(app):
    import nuke

    return nuke.createNode("Omnimatte")


@pytest.fixture
def gizmo(app, first):
    """Return a node with nothing connected; what a test connects and types is taken back."""
    known = set(app.root.nodes())
    yield first
    for slot in range(1, 9):
        first[f"gc_name{slot}"].setValue(f"object{slot}")
    for number in reversed(range(first.maxInputs())):
        first.setInput(number, None)
    for node_left in set(app.root.nodes()) - known:
        app.delete(node_left)


def made(name, cls="Roto"):
    import nuke

    return nuke.createNode(cls, f"name {name}")


def arrows(gizmo):
    inputs = [inner for inner in gizmo.nodes() if inner.Class() == "Input"]
    return [n.name() for n in sorted(inputs, key=lambda inner: inner["number"].value())]


FIRST = ["Plate", "Matte1", "CleanPlate", "Keep", "Limit", "Protect", "Depth"]


def test_connecting_the_last_matte_makes_the_next_and_no_number_moves(app, gizmo):
    assert arrows(gizmo) == FIRST
    connect(gizmo, "Matte1", made("boy"))
    assert arrows(gizmo) == [*FIRST, "Matte2"]
    connect(gizmo, "Matte2", made("girl"))
    assert arrows(gizmo) == [*FIRST, "Matte2", "Matte3"]
    assert node.connected(gizmo, "Matte2").name() == "girl"


def test_there_are_never_more_than_eight(app, gizmo):
    for slot in range(1, 9):
        connect(gizmo, f"Matte{slot}", made(f"thing{slot}"))
    assert arrows(gizmo) == [*FIRST, *(f"Matte{slot}" for slot in range(2, 9))]


def test_trailing_pipes_go_again_but_one(app, gizmo):
    for slot in (1, 2, 3):
        connect(gizmo, f"Matte{slot}", made(f"thing{slot}"))
    connect(gizmo, "Matte3", None)
    assert arrows(gizmo) == [*FIRST, "Matte2", "Matte3"]
    connect(gizmo, "Matte1", None)
    assert arrows(gizmo) == [*FIRST, "Matte2", "Matte3"]
    connect(gizmo, "Matte2", None)
    assert arrows(gizmo) == FIRST


def test_a_pipe_that_appeared_leads_to_its_write(app, gizmo):
    connect(gizmo, "Matte1", made("boy"))
    channel = gizmo.node("Matte2_channel")
    assert [channel.input(0).name(), channel.input(1).name()] == ["Matte2", "Matte2"]
    inverted = gizmo.node("Write_matte2").input(0)
    assert (inverted.name(), inverted.input(0).input(0).name()) == (
        "Matte2_inverted",
        "Matte2_channel",
    )


def test_an_element_brings_the_next_with_its_matte(app):
    import nuke

    gizmo = nuke.createNode("GenComposite")
    connect(gizmo, "FgMatte1", made("hand"))
    assert arrows(gizmo)[-2:] == ["Fg2", "FgMatte2"]
    assert gizmo.node("Write_fg2").input(0).name() == "Fg2"
    assert gizmo.node("FgMatte2_channel").input(0).name() == "FgMatte2"


# --- names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "name", "file", "wanted"),
    [
        ("Roto", "boy_left", "", "boy_left"),
        ("Roto", "Roto3", "", "object1"),
        ("Roto", "plate", "", "object1"),
        ("NoOp", "bo-y_", "", "bo_y"),
        ("Read", "Read7", "/show/mattes/girl_v2.%04d.exr", "girl_v2"),
        ("Read", "Read7", "/show/mattes/dog_1001.exr", "dog"),
        ("Read", "wall", "/show/mattes/dog.1001.exr", "wall"),
    ],
)
def test_an_object_is_called_as_what_is_connected(app, gizmo, cls, name, file, wanted):
    source = made(name, cls)
    if file:
        source["file"].setValue(file)
    connect(gizmo, "Matte1", source)
    assert gizmo["gc_name1"].value() == wanted


@pytest.mark.parametrize(
    ("cls", "name", "wanted"),
    [
        ("Dot", "Dot4", "boy"),
        ("Blur", "Blur1", "boy"),
        ("Blur", "soft_boy", "soft_boy"),
        ("Roto", "Roto1", "object1"),
    ],
)
def test_a_name_goes_through_what_keeps_a_matte_the_same(app, gizmo, cls, name, wanted):
    between = made(name, cls)
    between.setInput(0, made("boy"))
    connect(gizmo, "Matte1", between)
    assert gizmo["gc_name1"].value() == wanted


def test_a_typed_name_stays_whatever_is_connected(app, gizmo):
    connect(gizmo, "Matte1", made("boy"))
    gizmo["gc_name1"].setValue("hero")
    connect(gizmo, "Matte1", made("girl"))
    assert gizmo["gc_name1"].value() == "hero"
    connect(gizmo, "Matte1", None)
    assert gizmo["gc_name1"].value() == "hero"


def test_a_name_that_was_not_typed_follows_and_goes(app, gizmo):
    connect(gizmo, "Matte1", made("boy"))
    connect(gizmo, "Matte1", made("girl"))
    assert gizmo["gc_name1"].value() == "girl"
    connect(gizmo, "Matte1", None)
    assert gizmo["gc_name1"].value() == "object1"


def test_of_two_with_one_name_the_second_is_counted(app, gizmo):
    connect(gizmo, "Matte1", made("boy"))
    gizmo["gc_name1"].setValue("girl")
    connect(gizmo, "Matte2", made("Girl"))
    assert gizmo["gc_name2"].value() == "Girl_2"


def test_several_mattes_in_one_stream_are_called_by_their_channels(app, gizmo):
    several = made("mattes")
    connect(gizmo, "Matte1", several)
    connect(gizmo, "Matte2", several)
    gizmo["gc_channel1"].setValue("boy.alpha")
    gizmo["gc_channel2"].setValue("mask.girl")
    callbacks.knob_changed(gizmo, gizmo["gc_channel2"])
    assert [gizmo[f"gc_name{slot}"].value() for slot in (1, 2)] == ["boy", "girl"]
    connect(gizmo, "Plate", made("plate"))
    gizmo["gc_channel2"].setValue("mask.dog")  # Of a link Nuke may tell nobody.
    assert asking.ask(gizmo).slots == {1: "boy", 2: "dog"}


def test_pipes_and_names_are_no_undo_step(app, gizmo):
    app.undo_steps.clear()
    connect(gizmo, "Matte1", made("boy"))
    assert gizmo["gc_name1"].value() == "boy"
    assert not [step for step in app.undo_steps if "gc_" in str(step)]


# --- scripts that are opened: these come last, since they close the one of the others ------------


def test_opened_again_it_has_the_pipes_that_it_had(app, tmp_path):
    import nuke

    app.clear()
    gizmo = nuke.createNode("Omnimatte")
    for slot in (1, 2):
        connect(gizmo, f"Matte{slot}", made(f"thing{slot}"))
    app.save(tmp_path / "two.nk")
    nuke.scriptOpen(str(tmp_path / "two.nk"))
    again = nuke.toNode("Omnimatte1")
    assert arrows(again) == [*FIRST, "Matte2", "Matte3"]
    assert node.connected(again, "Matte2").name() == "thing2"
    assert again["gc_name2"].value() == "thing2"


def test_a_node_of_an_older_script_keeps_its_fourteen_pipes(app):
    import nuke

    app.clear()
    app.paste(OLDER.read_text(encoding="utf-8"))
    gizmo = nuke.toNode("Omnimatte1")
    before = arrows(gizmo)
    connect(gizmo, "Matte1", made("boy"))
    pipes.follow(gizmo)
    assert arrows(gizmo) == before
    assert len(before) == 14
    assert gizmo["gc_name1"].value() == "object1"
