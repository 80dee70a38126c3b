# SPDX-License-Identifier: Apache-2.0
"""The node GenComposite: elements with a time, a format and a name of their own, and places.

The plate is 64×48. Elements are 32×24 and 16×12, on frames of their own.
"""

import pytest

from fakes.server import FakeServer
from fakes.shot import FRAMES, HEIGHT, WIDTH, paint, press
from gencomp_nuke import asking, export
from gencomp_protocol.errors import BadKnob, BadName, MissingInput
from gencomp_protocol.frames import Format

WHOLE = (0, 0, WIDTH, HEIGHT)
FG = {1: 1, 2: 8, 3: 10}  # Pipes of the elements; the matte of each is the next.
REMOVE, HOLDOUT, DEPTH = 3, 4, 5
INSIDE = (20, 20)


@pytest.fixture
def clips(tmp_path):
    """Return the folder of two elements and of a matte for the first."""
    for n in (7, 8, 9):
        paint(tmp_path / f"big.{n:04d}.exr", "RGBA", [((0, 0, 32, 24), [0.5] * 4)], size=(32, 24))
        paint(tmp_path / f"cut.{n:04d}.exr", "RGBA", [((0, 0, 8, 8), [1.0] * 4)], size=(32, 24))
    paint(tmp_path / "small.0001.exr", "RGBA", [((0, 0, 16, 12), [0.25] * 4)], size=(16, 12))
    return tmp_path


@pytest.fixture
def gizmo(app, read, tmp_path):
    import nuke

    app.save(tmp_path / "comp.nk")
    made = nuke.createNode("GenComposite")
    made.setInput(0, read("plate/plate.%04d.exr"))
    return made


@pytest.fixture
def big(clips, read):
    return read(clips / "big.%04d.exr", 7, 9)


@pytest.fixture
def small(clips, read):
    return read(clips / "small.%04d.exr", 1, 1)


def connect_elements(gizmo, elements):
    """Connect elements to pipes by their numbers; a pipe is there once the one before was used."""
    for slot in range(1, max(elements) + 1):
        gizmo.setInput(FG[slot], elements.get(slot, gizmo.input(0)))
    for slot in set(FG) - set(elements):
        if slot < max(elements):
            gizmo.setInput(FG[slot], None)


def headers(gizmo):
    return {entry.name: entry for entry in asking.ask(gizmo).request.inputs}


def sent(gizmo, knob):
    return asking.ask(gizmo).request.knobs[knob]


# --- time and format -----------------------------------------------------------------------------


def test_an_element_is_rendered_over_its_own_range_at_its_own_format(gizmo, big, tmp_path):
    gizmo.setInput(FG[1], big)
    ask = asking.ask(gizmo)
    assert str(ask.request.frames) == "1001-1004"
    header = ask.request.input("fg")
    assert (header.frames, header.cover) == ((7, 8, 9), "sequence")
    assert header.format == Format(32, 24, 1.0)
    files = export.render(gizmo, ask, tmp_path / "in")
    assert sorted(files["fg"]) == [7, 8, 9]
    assert files["fg"][8] == tmp_path / "in" / "fg1" / "fg1.0008.exr"


def test_an_element_of_one_frame_is_a_still(gizmo, small):
    gizmo.setInput(FG[1], small)
    header = headers(gizmo)["fg"]
    assert (header.frames, header.cover) == ((1,), "still")


def test_a_matte_has_the_frames_of_its_element(gizmo, big, clips, read):
    gizmo.setInput(FG[1], big)
    gizmo.setInput(FG[1] + 1, read(clips / "cut.%04d.exr", 7, 12))
    header = headers(gizmo)["fg_matte"]
    assert (header.frames, header.channel) == ((7, 8, 9), "A")


def test_a_matte_without_an_element_is_of_the_plate(gizmo, read):
    gizmo.setInput(FG[1] + 1, read("matte_a/matte_a.%04d.exr"))
    assert headers(gizmo)["fg_matte"].frames == FRAMES


def test_what_is_of_the_plate_has_its_frames_and_one_channel(gizmo, big, read):
    gizmo.setInput(FG[1], big)
    for pipe in (REMOVE, HOLDOUT, DEPTH):
        gizmo.setInput(pipe, read("matte_a/matte_a.%04d.exr"))
    found = headers(gizmo)
    for name in ("remove", "holdout", "depth"):
        assert (found[name].frames, found[name].channel) == (FRAMES, "A")


def test_the_background_has_to_be_connected(gizmo, big):
    gizmo.setInput(0, None)
    gizmo.setInput(FG[1], big)
    with pytest.raises(MissingInput) as caught:
        asking.ask(gizmo)
    assert str(caught.value) == "GenComposite1 has no bg. Connect the bg to its pipe Bg."


# --- names ---------------------------------------------------------------------------------------


def test_one_element_needs_no_name_whichever_its_pipe(gizmo, big):
    connect_elements(gizmo, {2: big})
    assert sorted(headers(gizmo)) == ["bg", "fg"]


def test_several_without_names_are_called_by_their_pipes(gizmo, big, small):
    connect_elements(gizmo, {1: big, 3: small})
    assert list(headers(gizmo)) == ["bg", "fg.fg1", "fg.fg3"]


def test_names_are_the_artists_and_their_mattes_have_them_too(gizmo, big, small, clips, read):
    gizmo.setInput(FG[1], big)
    gizmo.setInput(FG[1] + 1, read(clips / "cut.%04d.exr", 7, 9))
    gizmo.setInput(FG[2], small)
    gizmo["gc_name1"].setValue("plane")
    gizmo["gc_name2"].setValue("bird")
    assert list(headers(gizmo)) == ["bg", "fg.plane", "fg_matte.plane", "fg.bird"]


@pytest.mark.parametrize("name", ["plate", "1st", "bird"])
def test_a_name_that_cannot_be_a_layer_is_refused(gizmo, big, small, name):
    gizmo.setInput(FG[1], big)
    gizmo.setInput(FG[2], small)
    gizmo["gc_name1"].setValue("bird")
    gizmo["gc_name2"].setValue(name)
    with pytest.raises(BadName, match="element"):
        asking.ask(gizmo)


# --- places: Nuke's y runs up, the server's down -------------------------------------------------


def test_a_trajectory_is_turned_round_in_the_plate(gizmo, big):
    gizmo.setInput(FG[1], big)
    gizmo["trajectory"].setValue("10,0@1001; 20,40@1004")
    assert sent(gizmo, "trajectory") == "10,48@1001; 20,8@1004"


def test_an_anchor_is_turned_round_in_its_element(gizmo, big):
    gizmo.setInput(FG[1], big)
    gizmo["anchor_point"].setValue("16,4")
    assert sent(gizmo, "anchor_point") == "16,20"


def test_a_matrix_is_turned_round_in_both(gizmo, big):
    gizmo.setInput(FG[1], big)
    # Lower left corner of 32×24 put at (10, 20) from the plate's: 4 lines are left above it.
    gizmo["transform"].setValue("1,0,10,0,1,20@1001")
    assert sent(gizmo, "transform") == "1,0,10,0,1,4@1001"


def test_a_matrix_that_turns_left_in_nuke_turns_left_on_the_server(gizmo, big):
    gizmo.setInput(FG[1], big)
    gizmo["transform"].setValue("0,-1,30,1,0,0")
    # Upper left corner of the element, (0, 24) in Nuke, goes to (6, 0) there: 48 lines down.
    assert sent(gizmo, "transform") == "0,1,6,-1,0,48"


def test_what_is_said_of_all_is_turned_round_in_each(gizmo, big, small):
    gizmo.setInput(FG[1], big)
    gizmo.setInput(FG[2], small)
    gizmo["gc_name1"].setValue("plane")
    gizmo["gc_name2"].setValue("bird")
    gizmo["anchor_point"].setValue("0,4")
    assert sent(gizmo, "anchor_point") == "plane: 0,20 | bird: 0,8"
    gizmo["anchor_point"].setValue("0,4 | bird: 8,12")
    assert sent(gizmo, "anchor_point") == "plane: 0,20 | bird: 8,0"
    gizmo["trajectory"].setValue("bird: 5,6; 7,8")
    assert sent(gizmo, "trajectory") == "bird: 5,42; 7,40"


def test_what_is_no_place_is_sent_as_it_is(gizmo, big):
    gizmo.setInput(FG[1], big)
    gizmo["scale"].setValue("0.4@1001; 0.8@1004")
    gizmo["rotate"].setValue("30")
    assert (sent(gizmo, "scale"), sent(gizmo, "rotate")) == ("0.4@1001; 0.8@1004", "30")
    assert sent(gizmo, "trajectory") == ""


def test_a_place_that_cannot_be_read_is_said_before_a_server_is_looked_for(gizmo, big):
    gizmo.setInput(FG[1], big)
    gizmo["trajectory"].setValue("ten, twenty")
    with pytest.raises(BadKnob, match="Knob 'trajectory': 'ten, twenty' is not a position x,y"):
        asking.ask(gizmo)
    gizmo["gc_generate"].execute()
    assert gizmo["gc_status"].value().startswith("Knob 'trajectory': 'ten, twenty'")


# --- what a knob says ----------------------------------------------------------------------------


def test_an_expression_in_brackets_is_sent_as_what_it_comes_to(gizmo, big):
    gizmo.setInput(FG[1], big)
    gizmo["trajectory"].setValue("[value seed],40; 20,30")
    gizmo["seed"].setValue(10)
    assert sent(gizmo, "trajectory") == "10,8; 20,18"


def test_brackets_that_are_no_expression_are_said(gizmo, big):
    gizmo.setInput(FG[1], big)
    gizmo["prompt"].setValue("a [red] ball")
    with pytest.raises(BadKnob, match="Knob 'prompt' has an expression in brackets that fails: "):
        asking.ask(gizmo)


def test_a_prompt_on_several_lines_is_sent_as_one(gizmo, big):
    gizmo.setInput(FG[1], big)
    gizmo["prompt"].setValue("a plane\nover a lake\n")
    assert sent(gizmo, "prompt") == "a plane over a lake"


def test_a_number_with_keys_is_refused_and_one_with_an_expression_is_not(gizmo, big):
    gizmo.setInput(FG[1], big)
    gizmo["guidance"].setExpression("seed+2")
    assert sent(gizmo, "guidance") == 2
    gizmo["guidance"].fromScript("{curve x1001 1 x1004 8}")
    with pytest.raises(BadKnob, match="Knob 'guidance' is animated, and one value counts for"):
        asking.ask(gizmo)


# --- layers --------------------------------------------------------------------------------------


@pytest.fixture
def answers(tmp_path):
    """Return a folder with the layers of one element without a name and of two with one."""
    values = {"result": 0.125, "element": 0.25, "interaction": 0.375}
    values.update({"element_plane": 0.5, "interaction_plane": 0.625, "element_bird": 0.75})
    for name, value in values.items():
        for n in FRAMES:
            path = tmp_path / f"answers/{name}/{name}.{n}.exr"
            paint(path, "RGBA", [(WHOLE, [value] * 4)])
    return tmp_path / "answers"


@pytest.fixture
def server(answers, home):
    with FakeServer(answers, home) as fake:
        yield fake


def test_one_element_and_what_it_does_are_in_the_stream(app, gizmo, big, server):
    connect_elements(gizmo, {2: big})
    press(app, gizmo)
    assert gizmo["gc_status"].value() == "Plays v001, frames 1001-1004."
    assert gizmo["gc_output"].value() == "result"
    assert gizmo.sample("rgba.red", *INSIDE, frame=1002) == 0.125
    assert gizmo.sample("element.alpha", *INSIDE, frame=1002) == 0.25
    assert gizmo.sample("interaction.green", *INSIDE, frame=1002) == 0.375
    gizmo["gc_output"].setValue("element")
    assert gizmo.sample("rgba.red", *INSIDE, frame=1002) == 0.25


def test_several_have_layers_of_their_own_names(app, gizmo, big, small, server):
    gizmo.setInput(FG[1], big)
    gizmo.setInput(FG[2], small)
    gizmo["gc_name1"].setValue("plane")
    gizmo["gc_name2"].setValue("bird")
    press(app, gizmo)
    assert gizmo.sample("element_plane.red", *INSIDE, frame=1003) == 0.5
    assert gizmo.sample("interaction_plane.red", *INSIDE, frame=1003) == 0.625
    assert gizmo.sample("element_bird.red", *INSIDE, frame=1003) == 0.75
    assert "interaction_bird.red" not in gizmo.channels()
    assert gizmo["gc_output"].values() == [
        *("plate", "result", "effect", "difference", "effect_matte"),
        *("element_plane", "element_bird", "element_3", "element_4"),
        *("interaction_plane", "interaction_bird", "interaction_3", "interaction_4"),
    ]


def test_all_pictures_of_all_clips_reach_the_server(app, gizmo, big, small, server):
    gizmo.setInput(FG[1], big)
    gizmo.setInput(FG[2], small)
    press(app, gizmo)
    pictures = sorted(server.jobs["job1"].pictures)
    assert pictures == [
        *(("bg", n) for n in FRAMES),
        *(("fg.fg1", n) for n in (7, 8, 9)),
        ("fg.fg2", 1),
    ]
