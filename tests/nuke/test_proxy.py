# SPDX-License-Identifier: Apache-2.0
"""Proxy mode: what a node shows is its full-size result, smaller; what it sends is full-size.

The plate is 64×48 and its boxes lie on multiples of 8, so that half and a quarter of it are exact.
"""

import sys
from pathlib import Path

import pytest

import standin
from fakes.shot import HEIGHT, WIDTH, connect, paint, press
from gencomp_nuke import asking, export, exrhead, madefrom, playing
from standin.pixels import ask_worker

ROOT = Path(__file__).resolve().parent.parent.parent
FRAMES = (1001, 1001)
SIZE = (WIDTH, HEIGHT)
WHOLE = (0, 0, *SIZE)
LEFT, RIGHT = (8, 8, 24, 24), (40, 16, 56, 32)
RGBA = ("rgba.red", "rgba.green", "rgba.blue", "rgba.alpha")
LAYERS = {
    "DynVFX": ("result", "effect"),
    "GenComposite": ("result", "effect", "element_a", "interaction_a"),
    "Omnimatte": ("background", "a"),
    "OverPlusPlus": ("result", "effect"),
    "SplitThenMerge": ("result", "effect"),
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory, shot):
    """Return a folder of a plate and of the layers of every node, of one frame."""
    folder = tmp_path_factory.mktemp("proxy")

    def layer(name, *boxes):
        paint(folder / f"{name}/{name}.1001.exr", "RGBA", boxes, half=False, size=SIZE)

    layer("plate", (WHOLE, [0.25, 0.5, 0.75, 1.0]), (RIGHT, [2.0, 1.0, 0.5, 1.0]))
    layer("effect", (LEFT, [0.0, 0.0, 0.0, 0.5]), (RIGHT, [0.25, 0.25, 0.25, 0.0]))
    layer("result", (WHOLE, [0.125] * 4))
    layer("element_a", (LEFT, [0.25, 0.5, 0.25, 1.0]))
    layer("interaction_a", (RIGHT, [0.0, 0.0, 0.0, 0.5]))
    layer("background", (WHOLE, [0.5, 0.25, 0.5, 1.0]))
    layer("a", (LEFT, [0.25, 0.125, 0.25, 0.5]))
    return folder


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Return a Nuke of this module's own, and the nodes that were made in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENCOMP_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(sys, "path", list(sys.path))
        app = standin.install(gui=True)
        app.start([ROOT])
        yield app, {}


@pytest.fixture
def played(nodes, cache):
    """Return a function that gives a node that plays its layers over the plate."""
    import nuke

    made, kept = nodes[1], {}

    def make(name, **knobs):
        if name not in made:
            made[name] = gizmo = nuke.createNode(name)
            plate = nuke.createNode("Read", "first 1001 last 1001 raw true")
            plate["file"].setValue(f"{cache.as_posix()}/plate/plate.%04d.exr")
            gizmo.setInput(0, plate)
            slots = {1: "a"} if name in ("Omnimatte", "GenComposite") else {}
            result = playing.Result(cache, FRAMES, LAYERS[name], slots, tuple(slots.values()))
            playing.play(gizmo, result)
        gizmo = made[name]
        kept[gizmo] = {knob: gizmo[knob].toScript() for knob in knobs}
        for knob, value in knobs.items():
            gizmo[knob].setValue(value)
        return gizmo

    yield make
    nuke.root()["proxy"].setValue(False)
    nuke.root()["proxy_scale"].setValue(0.5)
    for gizmo, texts in kept.items():
        for knob, text in texts.items():
            gizmo[knob].fromScript(text)


def apart(app, node, scale=0.5, channels=RGBA):
    """Return how a node in proxy differs from its full-size picture made smaller."""
    import nuke

    root = nuke.root()
    root["proxy_scale"].setValue(scale)
    root["proxy"].setValue(False)
    full = app.pixels.plan(node, 1001)
    last = len(full) - 1
    full.append({"op": "shrink", "a": last, "like": last, "scale": [scale, scale]})
    root["proxy"].setValue(True)
    small = app.pixels.plan(node, 1001)
    return ask_worker(
        do="compare", one=small, other=full, channels=list(channels), others=list(channels)
    )


# --- what is shown -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_the_result_has_the_proxys_size_and_is_the_full_one_made_smaller(nodes, played, name):
    output = "recomposed" if name == "Omnimatte" else "result"
    gizmo = played(name, gc_output=output)
    found = apart(nodes[0], gizmo)
    assert (gizmo.format().width(), gizmo.format().height()) == (WIDTH // 2, HEIGHT // 2)
    assert found["greatest"] < 1e-6
    assert found["energy"] > 0.1


@pytest.mark.parametrize(
    ("scale", "size"), [(0.5, (32, 24)), (0.25, (16, 12)), (0.3, (19, 14)), (1.0, (64, 48))]
)
def test_the_format_follows_the_scale(played, scale, size):
    import nuke

    gizmo = played("OverPlusPlus")
    nuke.root()["proxy_scale"].setValue(scale)
    nuke.root()["proxy"].setValue(True)
    assert (gizmo.format().width(), gizmo.format().height()) == size


def test_a_proxy_format_scales_by_its_share_of_the_full_one(played):
    import nuke

    gizmo, root = played("OverPlusPlus"), nuke.root()
    for knob, value in (("format", "128 96 1 whole"), ("proxy_format", "32 24 1 small")):
        root[knob].setValue(value)
    root["proxy_type"].setValue("format")
    root["proxy"].setValue(True)
    found = gizmo.format().width(), gizmo.format().height()
    root["proxy_type"].setValue("scale")
    root["format"].fromScript("")
    assert found == (16, 12)


@pytest.mark.parametrize("knob", ["gc_offset_effect", "gc_wipe"])
def test_what_is_moved_in_proxy_is_where_it_is_at_full_size(nodes, played, cache, knob):
    knobs = {"gc_offset_effect": {knob: (8, -16)}, "gc_wipe": {"gc_view": "compare", knob: 0.25}}
    gizmo = played("OverPlusPlus", gc_output="result", **knobs[knob])
    gizmo["gc_compare_folder"].setValue(cache.as_posix())
    assert apart(nodes[0], gizmo)["greatest"] < 1e-6


@pytest.mark.parametrize("knobs", [{"gc_blur_effect": 12}, {"gc_edge_effect": 8}])
def test_blur_and_edge_are_as_wide_in_proxy(nodes, played, knobs):
    """Filters round differently at another size, so the mean decides: off by half it is tenfold."""
    gizmo = played("OverPlusPlus", gc_output="effect", **knobs)
    found = apart(nodes[0], gizmo)
    assert found["mean"] < 0.05 * found["energy"]


# --- what is sent --------------------------------------------------------------------------------


def test_a_job_started_in_proxy_sends_full_size_and_proxy_is_on_again(app, server, comp):
    import nuke

    gizmo = comp(app)
    gizmo["gc_files"].setValue(False)
    nuke.root()["proxy"].setValue(True)
    press(app, gizmo)
    assert nuke.root()["proxy"].value() is True
    sizes = {(i.format.width, i.format.height) for i in server.jobs["job1"].submit.request.inputs}
    assert sizes == {SIZE}
    stored = [*Path(gizmo["gc_cache"].evaluate()).glob("inputs/*/*.exr")]
    assert {exrhead.head_of(path).display for path in stored} == {(0, 0, WIDTH - 1, HEIGHT - 1)}
    gizmo["gc_output"].setValue("recomposed")
    assert (gizmo.format().width(), gizmo.format().height()) == (WIDTH // 2, HEIGHT // 2)
    assert app.pixels.compare(gizmo, gizmo.input(0), 1001, RGBA[:3])["greatest"] < 1e-6


def test_a_proxy_file_of_a_read_is_looked_at_and_not_sent(app, comp, tmp_path):
    import nuke

    gizmo = comp(app)
    plate = gizmo.input(0)
    paint(tmp_path / "small.1001.exr", "RGB", [((0, 0, 20, 15), [4.0] * 3)], size=(20, 15))
    plate["proxy"].setValue((tmp_path / "small.%04d.exr").as_posix())
    nuke.root()["proxy"].setValue(True)
    assert plate.sample("rgba.red", 5, 5, frame=1001) == 4.0
    assert plate.format().width() == WIDTH // 2
    asked = asking.ask(gizmo)
    files = export.render(gizmo, asked, tmp_path / "in", {"plate": (1001,)})
    nuke.root()["proxy"].setValue(False)
    back = nuke.createNode("Read", "raw true first 1001 last 1001")
    back["file"].setValue(files["plate"][1001].as_posix())
    assert app.pixels.compare(back, plate, 1001, RGBA[:3])["differing"] == 0


def test_places_are_asked_for_as_at_full_size(app, read, tmp_path):
    import nuke

    paint(tmp_path / "el.1001.exr", "RGBA", [((0, 0, 32, 24), [0.5] * 4)], size=(32, 24))
    gizmo = nuke.createNode("GenComposite")
    connect(gizmo, "Bg", read("plate/plate.%04d.exr"))
    connect(gizmo, "Fg1", read(tmp_path / "el.1001.exr", 1001, 1001))
    nuke.frame(1002)
    asked = []
    for is_proxy in (False, True):
        nuke.root()["proxy"].setValue(is_proxy)
        gizmo["trajectory"].setValue("")
        gizmo["gc_point"].setValue((40, 12))
        gizmo["gc_point_add"].execute()
        asked.append(asking.ask(gizmo).request)
    assert asked[0] == asked[1]
    assert asked[1].knobs["trajectory"] == "40,36@1002"


def test_a_proxy_that_is_switched_makes_no_result_out_of_date(app, read):
    import nuke

    gizmo, moved = nuke.createNode("DynVFX"), nuke.createNode("Transform")
    moved.setInput(0, read("plate/plate.%04d.exr"))
    moved["translate"].setExpression("input.width/4")
    connect(gizmo, "Plate", moved)
    gizmo["gc_key"].setValue(madefrom.key_of(gizmo))
    gizmo["gc_folder"].setValue("/cache/v001")
    nuke.root()["proxy"].setValue(True)
    assert madefrom.changed(gizmo) == ""
    assert nuke.root()["proxy"].value() is True
    moved["rotate"].setValue(5)
    assert madefrom.changed(gizmo) == "what is connected has changed"
