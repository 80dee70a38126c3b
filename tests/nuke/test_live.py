# SPDX-License-Identifier: Apache-2.0
"""The result inside a node, computed in Nuke alone: no server, and nothing of the room but playing.

The plate is 16×12. At frame 1001 the effect darkens ``DARK`` by half and adds a quarter to
``LIGHT``; at frame 1002 it is empty. Values are thirds where rounding could show.
"""

import shutil
import sys
from pathlib import Path

import pytest

import standin
from fakes.shot import connect, paint
from gencomp_nuke import playing

ROOT = Path(__file__).resolve().parent.parent.parent
OLDER = Path(__file__).parent / "older" / "Omnimatte.gizmo"
FRAMES = (1001, 1002)
SIZE = (16, 12)
WHOLE = (0, 0, *SIZE)
DARK, LIGHT = (2, 2, 6, 6), (9, 2, 13, 6)
IN_DARK, IN_LIGHT, OUTSIDE = (4, 8), (11, 8), (4, 2)
RGB = ("rgba.red", "rgba.green", "rgba.blue")
RGBA = (*RGB, "rgba.alpha")
THIRD = 1 / 3
NODES = ("DynVFX", "GenComposite", "Omnimatte", "OverPlusPlus", "SplitThenMerge")


@pytest.fixture(scope="session")
def cache(tmp_path_factory, shot):
    """Return a folder of a plate with depth, and of the layers of every node."""
    folder = tmp_path_factory.mktemp("live")

    def layer(name, at_1001, channels="RGBA", always=()):
        for frame, boxes in ((1001, at_1001), (1002, [])):
            boxes = [*always, *boxes]
            file = folder / f"{name}/{name}.{frame}.exr"
            paint(file, channels, boxes, half=False, size=SIZE)

    ground = (WHOLE, [THIRD, 0.7, 8.1, 0.3, 5.0])
    layer("plate", [], ["R", "G", "B", "A", "depth.Z"], always=[ground])
    layer("effect", [(DARK, [0.0, 0.0, 0.0, 0.5]), (LIGHT, [0.25, 0.25, 0.25, 0.0])])
    layer("result", [], always=[(WHOLE, [0.125] * 4)])
    layer("element_a", [(DARK, [0.25, 0.25, 0.25, 1.0])])
    layer("interaction_a", [(LIGHT, [0.0, 0.0, 0.0, 0.5])])
    layer("background", [], always=[(WHOLE, [0.5, 0.5, 0.5, 1.0])])
    layer("a", [(DARK, [0.25, 0.25, 0.25, 0.5])])
    layer("matte", [(DARK, [1.0])], "A")
    stripe = [((x, 4, x + 1, 9), [v, v, v, 1.0]) for x, v in ((2, 0.25), (3, 2.0), (4, 8.0))]
    stripe += [((x, 4, x + 1, 9), [v, v, v, 1.0]) for x, v in ((5, 2.0), (6, 0.25))]
    layer("textured", stripe)
    return folder


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """Return one Nuke for all tests here; each leaves its nodes as they were."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENCOMP_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(sys, "path", list(sys.path))
        made = standin.install(gui=True)
        made.start([ROOT])
        yield made


@pytest.fixture(scope="module")
def regrade(app, cache):
    """Return a Multiply behind the Read of the plate."""
    import nuke

    grade = nuke.createNode("Multiply", "name regrade channels rgb value 1")
    grade.setInput(0, read_of(cache, "plate"))
    return grade


@pytest.fixture(scope="module")
def made(app):
    """Return the nodes that were made already, by their gizmo."""
    return {}


@pytest.fixture
def play(made, cache, regrade):
    """Return a function that lets a node play layers over the plate behind ``regrade``."""
    import nuke

    kept = {regrade: {"value": regrade["value"].toScript()}}

    def make(name, layers, slots=None):
        if name not in made:
            made[name] = nuke.createNode(name)
            made[name].setInput(0, regrade)
        gizmo = made[name]
        users = [knob for knob in gizmo.allKnobs() if knob._user is not None]
        kept[gizmo] = {knob.name(): knob.toScript() for knob in users}
        slots = slots or {}
        result = playing.Result(cache, FRAMES, tuple(layers), slots, tuple(slots.values()))
        playing.play(gizmo, result)
        gizmo["gc_note"].setValue("")
        return gizmo

    yield make
    for node, knobs in kept.items():
        for name, text in knobs.items():
            if node[name].toScript() != text:
                node[name].fromScript(text)


@pytest.fixture
def over(play):
    return play("OverPlusPlus", ("result", "effect"))


def red(gizmo, place, frame=1001, channel="rgba.red"):
    return gizmo.sample(channel, *place, frame=frame)


def differing(app, one, other, frame, channels):
    return app.pixels.compare(one, other, frame, channels)["differing"]


def read_of(cache, name):
    import nuke

    made = nuke.createNode("Read", "first 1001 last 1002 raw true")
    made["file"].setValue(f"{cache.as_posix()}/{name}/{name}.%04d.exr")
    return made


# --- over the plate as it is ---------------------------------------------------------------------


def test_a_plate_regraded_later_keeps_its_effect_and_is_itself_elsewhere(app, over):
    regrade = over.input(0)
    regrade["value"].setValue(1.7)
    assert differing(app, over, regrade, 1002, (*RGBA, "depth.Z")) == 0
    plate = red(regrade, OUTSIDE)
    assert plate == pytest.approx(1.7 / 3, abs=1e-6)
    assert red(over, OUTSIDE) == plate
    assert red(over, IN_DARK) == plate / 2
    assert red(over, IN_LIGHT) == pytest.approx(plate + 0.25, abs=1e-6)


def test_as_it_stands_the_result_is_the_plain_over(app, over, cache):
    import nuke

    merge = nuke.createNode("Merge2", "inputs 2 output rgb")
    merge.setInput(0, over.input(0))
    merge.setInput(1, read_of(cache, "effect"))
    assert differing(app, over, merge, 1001, RGBA) == 0


def test_alpha_other_channels_box_and_metadata_are_the_plates(app, over):
    regrade = over.input(0)
    assert differing(app, over, regrade, 1001, ("rgba.alpha", "depth.Z")) == 0
    ours, plates = (app.pixels.bbox_of(node, 1001) for node in (over, regrade))
    assert [getattr(ours, side)() for side in "xywh"] == [getattr(plates, s)() for s in "xywh"]
    assert app.pixels.metadata_of(over, 1001) == app.pixels.metadata_of(regrade, 1001)


def test_switched_off_it_is_the_picture_as_it_was_delivered(over):
    assert red(over, OUTSIDE) != 0.125
    over["gc_live"].setValue(False)
    assert red(over, OUTSIDE) == 0.125
    assert over.sample("result.red", *OUTSIDE, frame=1001) == 0.125


def test_a_result_without_an_effect_plays_as_it_was_delivered(play):
    assert red(play("OverPlusPlus", ("result",)), OUTSIDE) == 0.125


def test_mix_goes_from_the_plate_to_the_result(app, over):
    whole, plate = red(over, IN_DARK), red(over.input(0), IN_DARK)
    over["gc_mix"].setValue(0.5)
    assert red(over, IN_DARK) == pytest.approx((whole + plate) / 2)
    over["gc_mix"].setValue(0)
    assert differing(app, over, over.input(0), 1001, RGBA) == 0


@pytest.mark.parametrize("name", ["GenComposite", "SplitThenMerge", "DynVFX"])
def test_every_node_with_an_effect_is_live(play, name):
    gizmo = play(name, ("result", "effect"))
    gizmo.input(0)["value"].setValue(2)
    assert red(gizmo, OUTSIDE) == pytest.approx(2 / 3)
    assert red(gizmo, IN_DARK) == pytest.approx(1 / 3)


# --- layer by layer ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shadow", "light", "dark", "bright"), [(0, 1, 1, 0.25), (1, 0, 0.5, 0), (0.5, 2, 0.75, 0.5)]
)
def test_shadow_and_light_of_the_effect_go_apart(over, shadow, light, dark, bright):
    plate = red(over.input(0), OUTSIDE)
    over["gc_shadow"].setValue(shadow)
    over["gc_light"].setValue(light)
    assert red(over, IN_DARK) == pytest.approx(plate * dark, abs=1e-6)
    assert red(over, IN_LIGHT) == pytest.approx(plate + bright, abs=1e-6)
    assert red(over, OUTSIDE) == plate


@pytest.mark.parametrize(("density", "share"), [(0, 1), (0.5, 0.75), (2, 0.25)])
def test_density_thins_a_shadow_or_deepens_it_without_end(over, density, share):
    plate = red(over.input(0), OUTSIDE)
    over["gc_density_effect"].setValue(density)
    assert red(over, IN_DARK) == pytest.approx(plate * share, abs=1e-6)
    assert red(over, IN_LIGHT) == pytest.approx(plate + 0.25 * density, abs=1e-6)


def test_tint_colours_a_layer_and_leaves_its_alpha(over):
    over["gc_tint_effect"].setValue([2.0, 1.0, 0.0])
    over["gc_output"].setValue("effect")
    assert [red(over, IN_LIGHT, channel=name) for name in RGBA] == [0.5, 0.25, 0.0, 0.0]
    assert red(over, IN_DARK, channel="rgba.alpha") == 0.5


def test_offset_moves_a_layer_with_y_upwards(over):
    over["gc_offset_effect"].setValue([0.0, -6.0])
    over["gc_output"].setValue("effect")
    assert red(over, IN_DARK, channel="rgba.alpha") == 0
    assert red(over, (4, 2), channel="rgba.alpha") == 0.5


@pytest.mark.parametrize(("edge", "inside", "beside"), [(-1, 0, 0), (0, 0.5, 0), (1, 0.5, 0.5)])
def test_edge_grows_a_layer_or_shrinks_it(over, edge, inside, beside):
    over["gc_edge_effect"].setValue(edge)
    over["gc_output"].setValue("effect")
    rim, next_to_it = (2, 8), (1, 8)
    assert red(over, rim, channel="rgba.alpha") == inside
    assert red(over, next_to_it, channel="rgba.alpha") == beside


@pytest.mark.parametrize(("edge", "rim", "is_beyond"), [(-1, 0, False), (1, 0.25, True)])
def test_edge_leaves_the_inside_of_a_layer_as_it_is(play, edge, rim, is_beyond):
    gizmo = play("Omnimatte", ("background", "textured"), {1: "textured"})
    gizmo["gc_output"].setValue("textured")
    gizmo["gc_edge_1"].setValue(edge)
    found = [red(gizmo, (x, 6)) for x in (2, 3, 4, 5, 6)]
    assert found == pytest.approx([rim, 2, 8, 2, rim])
    assert (red(gizmo, (1, 6)) > 0) == is_beyond
    assert red(gizmo, (1, 6), channel="rgba.alpha") == (1 if is_beyond else 0)


def test_blur_spreads_a_layer(over):
    over["gc_blur_effect"].setValue(4)
    over["gc_output"].setValue("effect")
    assert 0 < red(over, (1, 8), channel="rgba.alpha") < 0.5
    assert red(over, IN_DARK, channel="rgba.alpha") < 0.5


def test_an_adjusted_layer_is_in_the_stream_under_its_name_too(over):
    over["gc_density_effect"].setValue(0.5)
    assert over.sample("effect.alpha", *IN_DARK, frame=1001) == 0.25


def test_an_element_that_is_adjusted_keeps_what_it_does_to_the_plate(play):
    layers = ("result", "effect", "element_a", "interaction_a")
    gizmo = play("GenComposite", layers, {1: "a"})
    plate = red(gizmo.input(0), OUTSIDE)
    assert red(gizmo, IN_LIGHT) == pytest.approx(plate + 0.25, abs=1e-6)  # The effect as one layer.
    gizmo["gc_tint_element_1"].setValue([2.0, 2.0, 2.0])
    assert red(gizmo, IN_DARK) == 0.5
    assert red(gizmo, IN_LIGHT) == plate / 2
    assert red(gizmo, OUTSIDE) == plate


def test_recomposed_is_made_of_adjusted_layers(play):
    gizmo = play("Omnimatte", ("background", "a"), {1: "a"})
    gizmo["gc_output"].setValue("recomposed")
    assert red(gizmo, IN_DARK) == 0.5
    gizmo["gc_tint_1"].setValue([3.0, 1.0, 1.0])
    assert red(gizmo, IN_DARK) == 1.0
    gizmo["gc_offset_1"].setValue([6.0, 0.0])
    assert (red(gizmo, IN_DARK), red(gizmo, (10, 8))) == (0.5, 1.0)


# --- beyond the frames of a result, and where one of them is gone ---------------------------------


def test_outside_the_range_the_nearest_frame_is_held_or_the_live_result_is_the_plate(app, over):
    plate = over.input(0)
    assert red(over, IN_DARK, 999) == red(plate, IN_DARK, 999) / 2
    over["gc_outside"].setValue("black")
    for frame in (999, 1003):
        assert differing(app, over, plate, frame, (*RGBA, "depth.Z")) == 0
    assert red(over, IN_DARK, 1001) == red(plate, IN_DARK, 1001) / 2


def test_outside_the_range_a_layer_as_delivered_is_held_or_black(play):
    for name, layers, held in (
        ("OverPlusPlus", ("result", "effect"), 0.125),
        ("Omnimatte", ("background",), 0.5),
    ):
        gizmo = play(name, layers)
        if "gc_live" in gizmo.knobs():
            gizmo["gc_live"].setValue(False)
        found = []
        for choice in ("hold", "black"):
            gizmo["gc_outside"].setValue(choice)
            found += [red(gizmo, OUTSIDE, frame) for frame in (1000, 1001, 1002, 1003)]
        assert found == [held] * 4 + [0, held, held, 0]


def test_what_is_shown_outside_the_range_stays_with_a_new_result(app, over, cache):
    over["gc_outside"].setValue("black")
    playing.play(over, playing.Result(cache, (1001, 1001), ("result", "effect"), {}, ()))
    assert differing(app, over, over.input(0), 1002, RGBA) == 0
    reads = [inner for inner in over.nodes() if inner.Class() == "Read"]
    assert {read["after"].value() for read in reads} == {"black"}


def test_a_frame_that_is_gone_stops_or_is_black_or_the_nearest_one(app, over, cache, tmp_path):
    folder = tmp_path / "v002"
    shutil.copytree(cache / "effect", folder / "effect")
    shutil.copytree(cache / "result", folder / "result")
    (folder / "effect/effect.1002.exr").unlink()
    playing.play(over, playing.Result(folder, FRAMES, ("result", "effect"), {}, ()))
    plate = over.input(0)
    with pytest.raises(RuntimeError, match=r"effect\.1002\.exr: Read error: No such file"):
        red(over, IN_DARK, 1002)
    over["gc_missing"].setValue("black")
    assert differing(app, over, plate, 1002, (*RGBA, "depth.Z")) == 0
    over["gc_missing"].setValue("nearest frame")
    assert red(over, IN_DARK, 1002) == red(plate, IN_DARK, 1002) / 2


# --- views ---------------------------------------------------------------------------------------


def test_compare_is_a_wipe_or_a_difference_with_gain(app, over, cache):
    over["gc_compare_folder"].setValue(cache.as_posix())
    over["gc_view"].setValue("compare")
    left, right = (4, 2), (12, 2)
    plate = red(over.input(0), OUTSIDE)
    assert (red(over, left), red(over, right)) == (plate, 0.125)
    over["gc_wipe"].setValue(0)
    assert red(over, left) == 0.125
    over["gc_compare_mode"].setValue("difference")
    over["gc_gain"].setValue(4)
    assert red(over, left) == pytest.approx(4 * (plate - 0.125), abs=1e-6)
    assert differing(app, over, over.input(0), 1001, ("depth.Z",)) == 0


def shown_by(play, name):
    """Return a node that plays an effect, or an object, and the output that shows it."""
    if name == "Omnimatte":
        return play(name, ("background", "a"), {2: "a"}), "a"
    return play(name, ("result", "effect")), "effect"


@pytest.mark.parametrize("name", NODES)
def test_difference_is_how_far_the_picture_is_from_the_plate_times_gain(app, play, name):
    gizmo, _ = shown_by(play, name)
    plate = gizmo.input(0)
    apart = {place: red(gizmo, place) - red(plate, place) for place in (IN_DARK, OUTSIDE)}
    assert apart[IN_DARK] != 0
    gizmo["gc_view"].setValue("difference")
    gizmo["gc_gain"].setValue(4)
    for place, by in apart.items():
        assert red(gizmo, place) == pytest.approx(4 * abs(by), abs=1e-6)
    assert differing(app, gizmo, plate, 1001, ("depth.Z",)) == 0
    gizmo["gc_output"].setValue("plate")
    assert red(gizmo, IN_DARK) == 0


@pytest.mark.parametrize("name", NODES)
def test_overlay_is_the_plate_with_the_alpha_of_the_output_in_red(play, name):
    gizmo, output = shown_by(play, name)
    plate = gizmo.input(0)
    gizmo["gc_output"].setValue(output)
    gizmo["gc_view"].setValue("overlay")
    assert [red(gizmo, OUTSIDE, channel=c) for c in RGB] == [
        red(plate, OUTSIDE, channel=c) for c in RGB
    ]
    assert red(gizmo, IN_DARK) == pytest.approx(0.75 * red(plate, IN_DARK) + 0.25)
    green = red(plate, IN_DARK, channel="rgba.green")
    assert red(gizmo, IN_DARK, channel="rgba.green") == pytest.approx(0.75 * green)


def test_trimask_shows_three_classes_and_says_what_the_frame_is(app, over, cache):
    connect(over, "EffectMask", read_of(cache, "matte"))
    over["gc_view"].setValue("trimask")
    over["gc_output"].setValue("plate")
    plate = over.input(0)
    label = over["label"].evaluate()
    assert label == "plate\n the mask counts"
    outside = [red(over, OUTSIDE, channel=name) for name in RGB]
    assert outside == [red(plate, OUTSIDE, channel=name) for name in RGB]
    assert red(over, IN_DARK) == pytest.approx(0.5 / 3 + 0.5)
    assert red(over, IN_DARK, channel="rgba.green") == pytest.approx(0.35)
    over["mask_frames"].setValue("keyframes only")
    assert over["label"].evaluate() == "plate\n unknown: the model decides"
    assert red(over, IN_DARK) == pytest.approx(0.5 / 3)
    assert red(over, OUTSIDE, channel="rgba.green") == pytest.approx(0.35)
    over["keyframes"].setValue("1001")
    assert red(over, IN_DARK) == pytest.approx(0.5 / 3 + 0.5)
    assert red(over, IN_DARK, 1002) == pytest.approx(0.5 / 3)


def test_trimask_shows_an_inverted_mask_inverted(over, cache):
    connect(over, "EffectMask", read_of(cache, "matte"))
    over["gc_view"].setValue("trimask")
    over["gc_output"].setValue("plate")
    over["gc_invert_effect_mask"].setValue(True)
    assert red(over, IN_DARK) == red(over.input(0), IN_DARK)
    assert red(over, OUTSIDE) == pytest.approx(0.5 / 3 + 0.5)


# --- older nodes ---------------------------------------------------------------------------------


def test_a_node_of_an_older_script_plays_with_what_it_has_inside(app, cache):
    import nuke

    app.paste(OLDER.read_text(encoding="utf-8"))
    gizmo = nuke.toNode("Omnimatte1")
    gizmo.setInput(0, read_of(cache, "plate"))
    playing.play(gizmo, playing.Result(cache, (1001, 1002), ("background", "a"), {2: "a"}, ("a",)))
    assert red(gizmo, OUTSIDE) == 0.5
    assert gizmo.sample("a.alpha", *IN_DARK, frame=1001) == 0.5
    gizmo["gc_output"].setValue("recomposed")
    assert red(gizmo, IN_DARK) == 0.5


@pytest.mark.parametrize("name", ["DynVFX", "GenComposite", "OverPlusPlus", "SplitThenMerge"])
def test_an_older_node_with_an_effect_plays_its_result_as_it_was_delivered(app, cache, name):
    (gizmo,) = app.paste(OLDER.with_name(f"{name}.gizmo").read_text(encoding="utf-8"))
    gizmo.setInput(0, read_of(cache, "plate"))
    assert red(gizmo, OUTSIDE) == pytest.approx(THIRD)
    playing.play(gizmo, playing.Result(cache, (1001, 1002), ("result", "effect"), {}, ()))
    assert red(gizmo, OUTSIDE) == 0.125
    assert gizmo.sample("effect.alpha", *IN_DARK, frame=1001) == 0.5
