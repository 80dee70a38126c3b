# SPDX-License-Identifier: Apache-2.0
"""What a picture is made from: what changes its fingerprint, and what does not."""

import os

import pytest

from gencomp_nuke.fingerprint import Prints


@pytest.fixture
def graph(app, tmp_path):
    """Return a Read, a Multiply on it and a Write, with empty files at 1001 to 1003."""
    import nuke

    for n in (1001, 1002, 1003):
        (tmp_path / f"plate.{n}.exr").write_bytes(b"x" * n)
    read = nuke.createNode("Read", "name plate first 1001 last 1003 raw true")
    read["file"].setValue((tmp_path / "plate.%04d.exr").as_posix())
    grade = nuke.createNode("Multiply", "value 2")
    grade.setInput(0, read)
    write = nuke.createNode("Write", "channels rgb")
    write.setInput(0, grade)
    return read, grade, write


def of(write, frame=1001):
    return Prints((1001, 1002, 1003), "main").written(write, frame)


def test_asked_twice_it_is_the_same_and_every_frame_has_its_own(graph):
    assert of(graph[2]) == of(graph[2])
    assert len({of(graph[2], n) for n in (1001, 1002, 1003)}) == 3


@pytest.mark.parametrize(
    ("which", "knob", "value"),
    [
        (1, "value", 3),
        (1, "channels", "all"),
        (0, "raw", False),
        (0, "first", 1000),
        (2, "datatype", "32 bit float"),
        (1, "disable", True),
    ],
)
def test_a_knob_that_pixels_depend_on_changes_it(graph, which, knob, value):
    before = of(graph[2])
    graph[which][knob].setValue(value)
    assert of(graph[2]) != before


@pytest.mark.parametrize(
    ("knob", "value"), [("label", "hero"), ("xpos", 400), ("tile_color", 255), ("selected", True)]
)
def test_what_a_node_looks_like_changes_nothing(graph, knob, value):
    before = of(graph[2])
    graph[1][knob].setValue(value)
    assert of(graph[2]) == before


def test_another_name_of_a_node_changes_nothing(graph):
    before = of(graph[2])
    graph[1].setName("hero_grade")
    assert of(graph[2]) == before


def test_a_dot_changes_nothing_and_another_source_does(graph):
    import nuke

    read, grade, write = graph
    before = of(write)
    dot = nuke.createNode("Dot")
    dot.setInput(0, read)
    grade.setInput(0, dot)
    assert of(write) == before
    grade.setInput(0, nuke.createNode("Constant"))
    assert of(write) != before


def test_one_frame_that_is_rendered_anew_changes_that_frame_alone(graph, tmp_path):
    before = [of(graph[2], n) for n in (1001, 1002, 1003)]
    (tmp_path / "plate.1002.exr").write_bytes(b"y" * 1002)
    os.utime(tmp_path / "plate.1002.exr", (1, 1))
    after = [of(graph[2], n) for n in (1001, 1002, 1003)]
    assert [a == b for a, b in zip(after, before)] == [True, False, True]


def test_a_key_elsewhere_changes_nothing_at_frames_with_the_same_value(graph):
    grade = graph[1]
    grade["value"].fromScript("{curve K x1001 2 x1002 2 x1003 2}")
    before = [of(graph[2], n) for n in (1001, 1002, 1003)]
    grade["value"].fromScript("{curve K x1001 2 x1002 2 x1003 5}")
    after = [of(graph[2], n) for n in (1001, 1002, 1003)]
    assert [a == b for a, b in zip(after, before)] == [True, True, False]


def test_an_expression_counts_with_the_value_it_has(graph):
    import nuke

    graph[1]["value"].setExpression("Control.value")
    control = nuke.createNode("Multiply", "name Control value 2")
    before = of(graph[2])
    control["value"].setValue(3)
    assert of(graph[2]) != before


def test_beyond_a_time_offset_the_shifted_frame_counts(graph, tmp_path):
    import nuke

    read, grade, write = graph
    shift = nuke.createNode("TimeOffset", "time_offset 1")
    shift.setInput(0, read)
    grade.setInput(0, shift)
    before = [of(write, n) for n in (1002, 1003)]
    os.utime(tmp_path / "plate.1002.exr", (1, 1))
    after = [of(write, n) for n in (1002, 1003)]
    assert [a == b for a, b in zip(after, before)] == [True, False]


def test_beyond_a_node_that_may_look_anywhere_every_file_counts(graph, tmp_path):
    import nuke

    read, grade, write = graph
    hold = nuke.createNode("FrameHold", "first_frame 1001")
    hold.setInput(0, read)
    grade.setInput(0, hold)
    before = of(write, 1001)
    os.utime(tmp_path / "plate.1003.exr", (1, 1))
    assert of(write, 1001) != before


def test_what_is_inside_a_group_counts_and_its_own_texts_do_not(app, graph, tmp_path):
    import nuke

    read, grade, write = graph
    text = (
        "Group {\n inputs 0\n name Box\n addUserKnob {1 note}\n note a\n}\n Input {\n  inputs 0\n"
        "  name Input1\n }\n Multiply {\n  value 2\n  name Inner\n }\n"
        " Output {\n  name Output1\n }\nend_group\n"
    )
    (tmp_path / "box.nk").write_text(text, encoding="utf-8")
    nuke.nodePaste((tmp_path / "box.nk").as_posix())
    box = nuke.toNode("Box")
    box.setInput(0, read)
    grade.setInput(0, box)
    before = of(write)
    box["note"].setValue("b")
    assert of(write) == before
    box.node("Inner")["value"].setValue(3)
    changed = of(write)
    assert changed != before
    read["raw"].setValue(False)
    assert of(write) != changed


def test_the_colours_of_the_script_and_the_view_count(graph):
    import nuke

    before = of(graph[2])
    assert Prints((1001,), "left").written(graph[2], 1001) != before
    nuke.root()["workingSpaceLUT"].setValue("sRGB")
    assert of(graph[2]) != before


def test_a_graph_deeper_than_python_may_call_itself(graph, tmp_path):
    import nuke

    read, grade, write = graph
    text = "Dot {\n inputs 0\n name M0\n}\n"
    text += "".join(f"Dot {{\n name M{n}\n}}\n" for n in range(1, 1100))
    (tmp_path / "deep.nk").write_text(text, encoding="utf-8")
    nuke.nodePaste((tmp_path / "deep.nk").as_posix())
    nuke.toNode("M0").setInput(0, read)
    grade.setInput(0, nuke.toNode("M1099"))
    assert len(of(write)) == 32


def test_a_quick_look_sees_knobs_and_not_the_machine(graph, tmp_path, monkeypatch):
    import nuke

    def quick():
        return Prints((), "", is_quick=True).arriving(graph[1])

    before = quick()
    monkeypatch.setattr(nuke, "NUKE_VERSION_STRING", "99.0v1")
    monkeypatch.setenv("OCIO", "/elsewhere/config.ocio")
    os.utime(tmp_path / "plate.1001.exr", (1, 1))
    assert quick() == before
    graph[1]["value"].setValue(3)
    assert quick() != before
