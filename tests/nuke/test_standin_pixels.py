# SPDX-License-Identifier: Apache-2.0
"""What the stand-in computes: each class of node, on pictures whose answers can be counted."""

import pytest

import standin
from fakes.shot import paint
from standin import graph
from standin.pixels import VARIABLE, ask_worker, worker_python

if worker_python() is None:
    pytest.skip(
        f"no Python with numpy and OpenImageIO (name one in {VARIABLE})", allow_module_level=True
    )

SIZE = 'format "16 12 1 tiny"'
RED = ["rgba.red"]
FLAT = f"Constant {{inputs 0 color {{0.5 0.25 0.125 1}} {SIZE}}}\n"
BOX = f"Constant {{inputs 0 color 1 {SIZE}}}\nCrop {{box {{4 4 8 8}}}}\n"
TWO = FLAT + "set C [stack 0]\nMultiply {value 0.5}\npush $C\n"


def sampled(script, places=((2, 2),), channel="rgba.red", frame=1):
    app = standin.install()
    graph.load(app, script, app.root)
    node = app.to_node("Z")
    return [node.sample(channel, x, y, frame=frame) for x, y in places]


def row(*columns):
    return [(column, 5) for column in columns]


@pytest.mark.parametrize(
    ("node", "red"),
    [
        ("Multiply {name Z value 2}", 1.0),
        ("Multiply {name Z value {3 1 1 1}}", 1.5),
        ("Multiply {name Z channels alpha value 3}", 0.5),
        ("Add {name Z value 0.25}", 0.75),
        ("Grade {name Z white 3}", 1.5),
        ("Grade {name Z multiply {0.5 1 1 1} add 1}", 1.25),
        ("Clamp {name Z maximum 0.25}", 0.25),
        ("Gamma {name Z value 0.5}", 0.25),
        ("Invert {name Z}", 0.5),
        ("Saturation {name Z saturation 1}", 0.5),
        ("Multiply {name Z value 2 mix 0.5}", 0.75),
        ("Multiply {name Z value 2 maskChannelInput rgba.green}", 0.625),
        ("Multiply {name Z value 2 disable true}", 0.5),
        ("Shuffle {name Z red green}", 0.25),
        ('Shuffle2 {name Z mappings "1 rgba.blue 0 2 rgba.red 0 0"}', 0.125),
        ("Remove {name Z channels rgb}", 0.0),
        ("Expression {name Z expr0 r>0.4?x:y}", 2.0),
        ('Expression {name Z temp_name0 t temp_expr0 r*2 expr0 "max(t,b) + width"}', 17.0),
        ("Expression {name Z expr0 0 channel0 rgba.blue}", 0.5),
        ("Dot {name Z}", 0.5),
        ("Reformat {name Z resize distort format {32 24 1 big}}", 0.5),
    ],
)
def test_a_node_of_one_input_gives_its_sample(node, red):
    assert sampled(FLAT + node) == [red]


@pytest.mark.parametrize(
    ("operation", "red"),
    [
        ("over", 0.25),
        ("plus", 0.75),
        ("minus", -0.25),
        ("from", 0.25),
        ("difference", 0.25),
        ("max", 0.5),
        ("min", 0.25),
        ("multiply", 0.125),
        ("screen", 0.625),
        ("copy", 0.25),
        ("stencil", 0.0),
        ("mask", 0.5),
        ("divide", 0.5),
        ("under", 0.5),
        ("average", 0.375),
    ],
)
def test_a_merge_combines_a_with_b(operation, red):
    assert sampled(TWO + f"Merge2 {{inputs 2 name Z operation {operation}}}") == [red]


def test_where_a_is_empty_a_merge_is_b_bit_for_bit():
    merge = "push 0\n" + FLAT + "Multiply {value 0.3}\nMerge2 {inputs 2 name Z}"
    assert sampled(merge) == sampled(FLAT + "Multiply {name Z value 0.3}")


def test_a_node_at_rest_gives_every_sample_as_it_was():
    rest = (
        "Multiply {value 1}\nBlur {size 0}\nTransform {}\nGrade {black_clamp false}\n"
        "Dilate {size 0}\nSaturation {}\nGamma {}\n"
    )
    app = standin.install()
    ramp = f"Constant {{inputs 0 {SIZE}}}\nExpression {{name A expr0 (x*7.3-y)/3 expr1 -x}}\n"
    graph.load(app, ramp + rest + "Dot {name Z}", app.root)
    found = app.pixels.compare(app.to_node("A"), app.to_node("Z"), 1, ["rgba.red", "rgba.green"])
    assert (found["differing"], found["samples"]) == (0, 384)


@pytest.mark.parametrize(
    ("node", "columns"),
    [
        ("Transform {name Z translate {2 1} filter impulse}", [0, 0, 1, 1, 1, 1, 0, 0]),
        ("Transform {name Z translate {1 0}}", [0, 1, 1, 1, 1, 0, 0, 0]),
        ("Transform {name Z translate {0.5 0}}", [0.5, 1, 1, 1, 0.5, 0, 0, 0]),
        ("Transform {name Z scale {2 1} center {4 0} filter impulse}", [1] * 8),
        ("Position {name Z translate {3 0}}", [0, 0, 0, 1, 1, 1, 1, 0]),
        ("Dilate {name Z size 1}", [1, 1, 1, 1, 1, 0, 0, 0]),
        ("Dilate {name Z size -1}", [0, 1, 1, 0, 0, 0, 0, 0]),
        ("FilterErode {name Z size 1}", [0, 1, 1, 0, 0, 0, 0, 0]),
        ("FilterErode {name Z size 0.5}", [0.5, 1, 1, 0.5, 0, 0, 0, 0]),
    ],
)
def test_a_box_is_moved_and_grown_by_pixels(node, columns):
    assert sampled(BOX + node, row(*range(4, 12))) == columns


def test_a_blur_keeps_the_sum_and_a_flat_picture():
    places = [(x, y) for x in range(16) for y in range(12)]
    assert sum(sampled(BOX + "Blur {name Z size 2}", places)) == pytest.approx(16, abs=1e-4)
    assert sampled(FLAT + "Blur {name Z size 3}", row(0, 8)) == pytest.approx([0.5, 0.5])


def test_the_box_of_what_is_there_follows_crops_moves_and_merges():
    app = standin.install()
    moved = BOX + "Transform {name Z translate {2 1} filter impulse}\nset Z [stack 0]\npush $Z\n"
    graph.load(app, moved + FLAT + "Merge2 {inputs 2 name M}", app.root)
    box, whole = app.to_node("Z").bbox(), app.to_node("M").bbox()
    assert (box.x(), box.y(), box.w(), box.h()) == (6, 5, 4, 4)
    assert (whole.w(), whole.h()) == (16, 12)


@pytest.mark.parametrize(
    ("edge", "frames"),
    [
        ("hold", [1, 1, 1, 2, 3, 3, 3]),
        ("loop", [2, 3, 1, 2, 3, 1, 2]),
        ("bounce", [3, 2, 1, 2, 3, 2, 1]),
        ("black", [0, 0, 1, 2, 3, 0, 0]),
        ("{{frame<1?3:0}}", [0, 0, 1, 2, 3, 0, 0]),
    ],
)
def test_a_read_gives_beyond_its_range_what_its_knobs_say(tmp_path, edge, frames):
    for n in (1, 2, 3):
        paint(tmp_path / f"a.{n}.exr", "RGB", [((0, 0, 16, 12), [n] * 3)], size=(16, 12))
    after = edge.replace("frame<1", "frame>3")
    words = f'file "{tmp_path.as_posix()}/a.%d.exr" first 1 last 3 before {edge} after {after}'
    app = standin.install()
    graph.load(app, f"Read {{inputs 0 name Z raw true {words}}}", app.root)
    read = app.to_node("Z")
    assert [read.sample("rgba.red", 2, 2, frame=n) for n in range(-1, 6)] == frames


def test_a_keymix_takes_a_where_its_mask_is():
    script = BOX + FLAT + f"Constant {{inputs 0 color 0.75 {SIZE}}}\nKeymix {{inputs 3 name Z}}"
    assert sampled(script, [(5, 5), (1, 1)]) == [0.5, 0.75]


def test_a_mask_on_the_pipe_limits_a_merge_and_is_inverted():
    mask = BOX + FLAT + "Multiply {value 2}\n" + FLAT
    places = [(5, 5), (1, 1)]
    merge = "Merge2 {inputs 2+1 name Z operation copy maskChannelMask rgba.red"
    assert sampled(mask + merge + "}", places) == [1.0, 0.5]
    assert sampled(mask + merge + " invert_mask true}", places) == [0.5, 1.0]


def test_a_dissolve_follows_its_keys_and_a_hold_and_an_offset_their_frames():
    ramp = f"Constant {{inputs 0 color {{{{curve x1 0 x11 1}} 0 0 1}} {SIZE}}}\n"
    other = "set R [stack 0]\nMultiply {value 0}\npush $R\n"
    dissolve = "Dissolve {inputs 2 name Z which {{curve x1 0 x11 1}}}"
    assert sampled(ramp + other + dissolve, frame=6) == [0.25]
    assert sampled(ramp + "FrameHold {name Z firstFrame 11}", frame=2) == [1.0]
    assert sampled(ramp + "TimeOffset {name Z time_offset 5}", frame=11) == [0.5]


def test_an_expression_reads_knobs_of_the_graph():
    script = (
        "Group {inputs 0 name G addUserKnob {7 gain} gain 4 addUserKnob {12 at} at {3 2}}\n "
        + FLAT
        + ' Expression {name Z expr0 "r*parent.gain + parent.at.y"}\nend_group\n'
    )
    app = standin.install()
    graph.load(app, script, app.root)
    assert app.to_node("G.Z").sample("rgba.red", 1, 1) == 4.0


def test_what_is_not_computed_says_so():
    with pytest.raises(RuntimeError, match="computes no Viewer2D"):
        sampled("Viewer2D {inputs 0 name Z}")
    with pytest.raises(RuntimeError, match="filters by Impulse, Cubic and Keys, not by Sinc4"):
        sampled(BOX + "Transform {name Z translate {0.5 0} filter Sinc4}")
    with pytest.raises(RuntimeError, match="asks for nothing_there"):
        sampled(FLAT + "Expression {name Z expr0 nothing_there}")


def test_a_roto_fills_its_visible_shapes_at_the_frame():
    app = standin.install()
    import nuke

    rotopaint = nuke.rotopaint
    graph.load(app, FLAT + "Multiply {name M channels alpha value 0}\n", app.root)
    roto = nuke.createNode("Roto")
    roto.setInput(0, app.to_node("M"))
    curves = roto["curves"]
    shape = rotopaint.Shape(curves, name="Square")
    for x, y in ((2, 2), (10, 2), (10, 10), (2, 10)):
        point = rotopaint.ShapeControlPoint()
        point.center.addPositionKey(1, (x, y))
        point.center.addPositionKey(5, (x + 4, y))
        shape.append(point)
    curves.rootLayer.append(shape)
    curves.changed()
    found = [roto.sample("rgba.alpha", x, 5, frame=f) for f in (1, 5) for x in (3, 12)]
    assert found == [1.0, 0.0, 0.0, 1.0]
    app.root["proxy"].setValue(True)
    assert [roto.sample("rgba.alpha", x, 2, frame=1) for x in (0, 1, 4, 5)] == [0, 1, 1, 0]
    app.root["proxy"].setValue(False)
    shape.visible = False
    assert roto.sample("rgba.alpha", 3, 5, frame=1) == 0.0


PROXIED = {
    "Blur {name Z size 4}": 0.02,
    "Crop {name Z box {4 4 8 8}}": 1e-6,
    "Crop {name Z box {4 4 12 12} reformat true}": 1e-6,
    "Dilate {name Z size 2}": 1e-6,
    "Position {name Z translate {2 -4}}": 1e-6,
    'Reformat {name Z format "32 16 1 wide" resize none filter Impulse}': 1e-6,
    'Reformat {name Z type "to box" box_width 8 box_height 8 resize none filter Impulse}': 1e-6,
    "Reformat {name Z type scale scale 0.5 filter Impulse}": 0.05,
    "Transform {name Z translate {4 2} filter Impulse}": 1e-6,
    "Transform {name Z scale 2 center {8 8} filter Impulse}": 1e-6,
    'Constant {name Z inputs 0 color 1 format "10 6 1 small"}': 1e-6,
    "CheckerBoard2 {name Z inputs 0 boxsize 4 format square_256}": 1e-6,
}


@pytest.mark.parametrize("node", PROXIED)
def test_in_proxy_a_picture_is_the_full_one_made_smaller(node):
    app = standin.install()
    graph.load(app, BOX + node, app.root)
    end = app.to_node("Z")
    full = app.pixels.plan(end, 1)
    last = len(full) - 1
    full.append({"op": "shrink", "a": last, "like": last, "scale": [0.5, 0.5]})
    size = end.format()
    app.root["proxy"].setValue(True)
    found = ask_worker(
        do="compare", one=app.pixels.plan(end, 1), other=full, channels=RED, others=RED
    )
    assert (end.format().width(), end.format().height()) == (size.width() // 2, size.height() // 2)
    assert found["mean"] <= PROXIED[node]


def test_python_and_expressions_see_full_size_numbers_in_proxy(tmp_path):
    app = standin.install()
    graph.load(app, BOX + "Transform {name T translate {4 {input.width}}}\n", app.root)
    app.root["proxy"].setValue(True)
    assert app.to_node("T")["translate"].value() == [4.0, 8.0]


def test_a_write_in_proxy_needs_a_proxy_file(tmp_path):
    app = standin.install()
    graph.load(app, BOX + "Write {name W channels rgba raw true}\n", app.root)
    write = app.to_node("W")
    write["file"].setValue((tmp_path / "full.exr").as_posix())
    app.root["proxy"].setValue(True)
    with pytest.raises(RuntimeError, match="W: no proxy is named to write to"):
        app.execute(write, 1, 1)
    write["proxy"].setValue((tmp_path / "small.exr").as_posix())
    app.execute(write, 1, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["small.exr"]
