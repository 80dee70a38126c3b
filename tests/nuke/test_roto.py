# SPDX-License-Identifier: Apache-2.0
"""Detecting keyframes: the keys of what is drawn above the mask, through what stands between."""

from pathlib import Path

import pytest

from fakes.shot import connect
from standin.rotopaint import AnimControlPoint, Layer, Shape, ShapeControlPoint, Stroke

ALL, TO_FRAME, SINGLE, FROM_FRAME, BETWEEN = range(5)


@pytest.fixture
def gizmo(app):
    """Return an OverPlusPlus with a plate of 1001-1048."""
    import nuke

    made = nuke.createNode("OverPlusPlus")
    connect(made, "Plate", nuke.createNode("Read", "name Plate1 first 1001 last 1048 raw true"))
    return made


@pytest.fixture
def roto(gizmo):
    """Return a Roto that is the effect mask of the node."""
    made = drawn("Roto1")
    connect(gizmo, "EffectMask", made)
    return made


def drawn(name, *shapes, cls="Roto"):
    import nuke

    made = nuke.createNode(cls, f"name {name}")
    for shape in shapes:
        put(made, shape)
    return made


def put(roto, element, layer=None):
    curves = roto["curves"]
    (curves.rootLayer if layer is None else layer).append(element)
    curves.changed()
    return element


def shape(name, *frames, part="center"):
    """Return a shape of two points, the second of which has keys."""
    moving = ShapeControlPoint(10, 10)
    for n in frames:
        getattr(moving, part).addPositionKey(n, (n, 10, 1))
    made = Shape(None, ShapeControlPoint(0, 0), moving)
    made.name = name
    return made


def stroke(name, kind, *frames):
    made = Stroke(None, AnimControlPoint(3, 3))
    made.name = name
    life = made.getAttributes()
    life.set("ltt", kind)
    for attribute, frame in zip(("ltn", "ltm"), (*frames, *frames)):
        life.set(attribute, frame)
    return made


def between(gizmo, top, cls, knobs=""):
    """Put a node between another one and the mask."""
    import nuke

    made = nuke.createNode(cls, knobs)
    made.setInput(0, top)
    connect(gizmo, "EffectMask", made)
    return made


def detect(gizmo):
    gizmo["gc_detect"].execute()
    return gizmo["gc_status"].value().replace("\n", " ")


def test_the_keys_of_all_visible_shapes_are_united(gizmo, roto, app):
    put(roto, shape("Bezier1", 1001, 1010))
    put(roto, shape("Bezier2", 1010, 1020, part="featherCenter"))
    app.undo_steps.clear()
    assert detect(gizmo) == "Found 3 keyframes in Roto1."
    assert gizmo["keyframes"].value() == "1001,1010,1020"
    assert gizmo["mask_frames"].value() == "keyframes only"
    assert app.undo_steps == ["Detect keyframes"]


def test_what_is_hidden_does_not_count(gizmo, roto):
    put(roto, shape("Bezier1", 1001, 1010))
    hidden = put(roto, shape("Bezier2", 1030, 1040))
    hidden.visible = False
    layer = put(roto, Layer(None))
    layer.visible = False
    put(roto, shape("Bezier3", 1005, 1006), layer)
    detect(gizmo)
    assert gizmo["keyframes"].value() == "1001,1010"


def test_a_key_at_which_its_shape_is_switched_off_does_not_count(gizmo, roto):
    one = put(roto, shape("Bezier1", 1001, 1010, 1020))
    for frame, is_on in ((1001, True), (1015, True), (1016, False)):
        one.setVisible(frame, is_on)
    roto["curves"].changed()
    detect(gizmo)
    assert gizmo["keyframes"].value() == "1001,1010"


def test_a_shape_that_moves_by_its_transform_has_the_keys_of_that(gizmo, roto):
    layer = put(roto, Layer(None))
    for n in (1003, 1013):
        layer.getTransform().addTranslationKey(n, n, 0)
    put(roto, shape("Bezier1", 1001), layer)
    detect(gizmo)
    assert gizmo["keyframes"].value() == "1001,1003,1013"


@pytest.mark.parametrize(
    ("life", "frames"),
    [
        ((SINGLE, 1005), "1005"),
        ((BETWEEN, 1005, 1007), "1005-1007"),
        ((FROM_FRAME, 1046), "1046-1048"),
        ((TO_FRAME, 1002), "1001,1002"),
    ],
)
def test_a_stroke_counts_on_the_frames_of_its_life(gizmo, life, frames):
    connect(gizmo, "EffectMask", drawn("Paint1", stroke("Brush1", *life), cls="RotoPaint"))
    detect(gizmo)
    assert gizmo["keyframes"].value() == frames


def test_what_does_not_move_is_asked_about(gizmo, roto, app, monkeypatch):
    import nuke

    asked = []
    put(roto, shape("Bezier1", 1004))
    for answer, frames in ((True, "1001-1048"), (False, "1004")):
        monkeypatch.setattr(nuke, "ask", lambda text, a=answer: asked.append(text) or a, False)
        detect(gizmo)
        assert gizmo["keyframes"].value() == frames
    question = "Bezier1 does not move.\nDoes the mask count on all frames, 1001-1048?"
    assert asked == [question, question]


def test_what_does_not_move_is_not_asked_about_where_the_knob_says_it(gizmo, roto):
    put(roto, shape("Bezier1", 1004))
    gizmo["gc_static_shapes"].setValue("all frames")
    gizmo["gc_every"].setValue(20)
    assert detect(gizmo) == "Found 4 keyframes in Roto1. Of 48, every 20th."
    assert gizmo["keyframes"].value() == "1001-1041x20,1048"
    gizmo["gc_static_shapes"].setValue("none")
    detect(gizmo)
    assert gizmo["keyframes"].value() == "1004"


def test_without_an_interface_nobody_is_asked(terminal):
    import nuke

    gizmo = nuke.createNode("OverPlusPlus")
    connect(gizmo, "Plate", nuke.createNode("Read", "first 1001 last 1048 raw true"))
    connect(gizmo, "EffectMask", drawn("Roto1", shape("Bezier1")))
    assert "Set static shapes to 'all frames' or 'none'." in detect(gizmo)
    assert gizmo["keyframes"].value() == ""


def test_keys_outside_the_range_are_left_out_and_none_inside_is_said(gizmo, roto):
    put(roto, shape("Bezier1", 990, 1048, 1049))
    detect(gizmo)
    assert gizmo["keyframes"].value() == "1048"
    gizmo["gc_range"].setValue("custom")
    gizmo["gc_first"].setValue(1)
    gizmo["gc_last"].setValue(10)
    assert detect(gizmo).startswith("The keys of Roto1 are 990, 1048-1049, outside 1-10.")
    assert gizmo["keyframes"].value() == "1048"


def test_a_timeoffset_moves_the_keys(gizmo, roto):
    put(roto, shape("Bezier1", 1, 10))
    between(gizmo, roto, "TimeOffset", "time_offset 1000")
    detect(gizmo)
    assert gizmo["keyframes"].value() == "1001,1010"


def test_what_bends_time_is_not_looked_beyond_and_said(gizmo, roto):
    put(roto, shape("Bezier1", 1001, 1010))
    below = drawn("Roto2", shape("Bezier1", 1002, 1004))
    below.setInput(0, between(gizmo, roto, "FrameHold", "name Hold1"))
    connect(gizmo, "EffectMask", below)
    assert detect(gizmo) == "Found 2 keyframes in Roto2. Not looked beyond Hold1."
    assert gizmo["keyframes"].value() == "1002,1004"


def test_the_way_up_leads_through_merges_switches_and_what_is_disabled(gizmo, roto):
    put(roto, shape("Bezier1", 1001, 1010))
    other = drawn("Roto2", shape("Bezier1", 1030, 1031))
    merge = between(gizmo, roto, "Merge2")
    merge.setInput(1, drawn("Roto3", shape("Bezier1", 1020, 1021)))
    switch = between(gizmo, merge, "Switch", "which 0")
    switch.setInput(1, other)
    off = drawn("Roto4", shape("Bezier1", 1040, 1041))
    off["disable"].setValue(True)
    off.setInput(0, switch)
    connect(gizmo, "EffectMask", off)
    assert detect(gizmo) == "Found 4 keyframes in Roto1, Roto3."
    assert gizmo["keyframes"].value() == "1001,1010,1020,1021"


def test_a_roto_inside_a_group_is_found(gizmo):
    import nuke

    group = nuke.createNode("Group", "name Masks1")
    with group:
        inside = drawn("Roto1", shape("Bezier1", 1002, 1009))
        nuke.createNode("Output").setInput(0, inside)
    connect(gizmo, "EffectMask", group)
    detect(gizmo)
    assert gizmo["keyframes"].value() == "1002,1009"


@pytest.mark.parametrize("connected", [True, False])
def test_a_mask_without_a_roto_keeps_the_list_and_says_what_to_do(gizmo, connected):
    gizmo["keyframes"].setValue("1005")
    if connected:
        connect(gizmo, "EffectMask", gizmo.input(0))
        says = "There is no Roto or RotoPaint with anything drawn above Plate1. Type the list of"
    else:
        says = "OverPlusPlus1 has no effect mask to look for keyframes in. Connect the roto to"
    assert detect(gizmo).startswith(says)
    assert gizmo["keyframes"].value() == "1005"


def test_every_check_of_masks_and_placement_for_a_real_nuke_holds_in_the_stand_in(app, shot):
    script = Path(__file__).resolve().parent.parent / "in_nuke" / "placement.py"
    with pytest.raises(SystemExit) as ended:
        app.run_file(script)
    said = "\n".join(app.printed).splitlines()
    assert [line for line in said if line.startswith("FAILED")] == []
    assert len([line for line in said if line.startswith("ok: ")]) == 10
    assert ended.value.code == 0
