# SPDX-License-Identifier: Apache-2.0
"""What is promised of all nodes alike, each promise kept by each: OverPlusPlus is not the example.

The plate is 16×12 at the frames -1 and 0. It has values below zero and far over one, thirds where
rounding could show, an alpha that is not 1, a pixel aspect of 2, and channels of other layers. At
frame -1 the effect darkens ``DARK`` by half and adds to ``LIGHT``; at 0 it is empty.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.server import FakeServer
from fakes.shot import connect, paint, press
from gencomp_nuke import asking, export, exrhead, node, playing, stale
from gencomp_protocol.errors import WorkerLost
from standin.pixels import VARIABLE, worker_python

ROOT = Path(__file__).resolve().parent.parent.parent
TERMINAL = ROOT / "tests" / "standin" / "terminal.py"
NODES = ("DynVFX", "GenComposite", "Omnimatte", "OverPlusPlus", "SplitThenMerge")
LIVE = tuple(name for name in NODES if name != "Omnimatte")
FRAMES = (-1, 0)
SIZE = (16, 12)
WIDE = "16 12 0 0 16 12 2 wide"
WHOLE, DARK, LIGHT, NEGATIVE = (0, 0, *SIZE), (2, 2, 6, 6), (9, 2, 13, 6), (0, 8, 16, 10)
IN_DARK, IN_LIGHT, IN_NEGATIVE = (4, 8), (11, 8), (4, 3)
THIRD = 1 / 3
RGB = ("rgba.red", "rgba.green", "rgba.blue")
RGBA = (*RGB, "rgba.alpha")
OTHERS = ("rgba.alpha", "depth.Z", "CryptoAsset00.red")
LAYERS = ("result", "effect", "background", "clean", "a")
PLAYED = {"Omnimatte": "clean"}
"""What a node shows as its result, where that is not called so."""


@pytest.fixture(scope="session")
def pictures(tmp_path_factory, shot):
    """Return the folder of the plate, a matte and the layers of every node, one folder each."""
    folder = tmp_path_factory.mktemp("every")
    ground = [
        (WHOLE, [THIRD, 0.7, 60.1, 0.3, 5.0, 0.1]),
        (NEGATIVE, [-0.5, -THIRD, -60.1, 0.3, 5.0, 0.1]),
    ]
    for n in FRAMES:
        there = n == FRAMES[0]
        effect = [(DARK, [0.0, 0.0, 0.0, 0.5]), (LIGHT, [40.0, -0.25, 0.25, 0.0])] * there
        delivered = [*((box, value[:4]) for box, value in ground), (DARK, [0.125] * 4)]
        made = {
            "plate": ([*"RGBA", "depth.Z", "CryptoAsset00.red"], ground),
            "matte": ("A", [(DARK, [1.0])]),
            "layers/effect": ("RGBA", effect),
            "layers/a": ("RGBA", [(DARK, [0.25, 0.25, 0.25, 0.5 if there else 1.0])]),
            **{f"layers/{name}": ("RGBA", delivered) for name in ("result", "background", "clean")},
        }
        for name, (channels, boxes) in made.items():
            file = folder / f"{name}/{Path(name).name}.{n:04d}.exr"
            paint(file, channels, boxes, half=False, size=SIZE)
    return folder


@pytest.fixture
def lay(app, pictures, tmp_path):
    """Return a function that lays a node of a kind, with all that it needs, into a saved script.

    Its plate, which is returned too, is computed by Nuke and has a pixel aspect of 2.
    """
    import nuke

    (tmp_path / "shot").mkdir()
    app.save(tmp_path / "shot/comp.nk")

    def source(name):
        read = nuke.createNode("Read", f"first {FRAMES[0]} last {FRAMES[-1]} raw true")
        read["file"].setValue(f"{pictures.as_posix()}/{name}/{Path(name).name}.%04d.exr")
        shape = nuke.createNode("Reformat", f"resize none format {{{WIDE}}}")
        shape.setInput(0, read)
        return shape

    def make(name):
        plate = nuke.createNode("Multiply", "channels rgb value 1.5")
        plate.setInput(0, source("plate"))
        matte = source("matte")
        gizmo = nuke.createNode(name)
        for spec in node.declared(gizmo).pipes:
            if spec.slot <= 1 and gizmo.node(spec.pipe) is not None:
                connect(gizmo, spec.pipe, matte if spec.kind in ("matte", "data") else plate)
        if "gc_name1" in gizmo.knobs():
            gizmo["gc_name1"].setValue("a")
        return gizmo, plate

    return make


@pytest.fixture
def play(lay, tmp_path, pictures):
    """Return a function that lays a node and lets it play a result that lies beside the script."""

    def make(name):
        gizmo, plate = lay(name)
        folder = tmp_path / "shot/gencomp" / name / "v001"
        shutil.copytree(pictures / "layers", folder)
        layers = {layer: {"frames": list(FRAMES)} for layer in LAYERS}
        (folder / "manifest.json").write_text(json.dumps({"layers": layers}), encoding="utf-8")
        playing.play(gizmo, playing.Result(folder, FRAMES, LAYERS, {1: "a"}, ("a",)))
        gizmo["gc_output"].setValue(PLAYED.get(name, "result"))
        return gizmo, plate

    return make


@pytest.fixture
def server(pictures, home):
    """Return a fake server that answers with these layers."""
    with FakeServer(pictures / "layers", home) as fake:
        yield fake


def differing(app, one, other, frame, channels=RGBA):
    return app.pixels.compare(one, other, frame, channels)["differing"]


def lead_of(gizmo):
    """Return the pipe whose picture is the plate, as it is asked for."""
    return next(p for p in asking.ask(gizmo).pipes if p.header.name in ("plate", "bg"))


def status(gizmo):
    return " ".join(gizmo["gc_status"].value().split())


def reading(path, first=FRAMES[0], last=FRAMES[-1]):
    import nuke

    made = nuke.createNode("Read", f"raw true first {first} last {last}")
    made["file"].setValue(Path(path).as_posix())
    return made


# --- pixels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LIVE)
def test_outside_its_effect_every_bit_is_the_plates(app, play, name):
    gizmo, plate = play(name)
    assert differing(app, gizmo, plate, 0, (*RGBA, *OTHERS)) == 0
    assert differing(app, gizmo, plate, -1, OTHERS) == 0
    inside = (DARK[2] - DARK[0]) * (DARK[3] - DARK[1]) + (LIGHT[2] - LIGHT[0]) * (
        LIGHT[3] - LIGHT[1]
    )
    assert differing(app, gizmo, plate, -1, RGB) == 3 * inside
    assert (
        gizmo.sample("rgba.red", *IN_DARK, frame=-1)
        == plate.sample("rgba.red", *IN_DARK, frame=-1) / 2
    )


@pytest.mark.parametrize("name", NODES)
def test_light_below_zero_and_far_over_one_is_sent_and_played_as_it_is(app, play, name, tmp_path):
    gizmo, plate = play(name)
    files = export.render(gizmo, asking.ask(gizmo), tmp_path / "in")
    lead = lead_of(gizmo).folder
    sent = reading(tmp_path / f"in/{lead}/{lead}.%04d.exr")
    assert files[lead][-1].name == f"{lead}.-001.exr"
    assert differing(app, sent, plate, -1, RGB) == 0
    assert sent.sample("rgba.blue", *IN_NEGATIVE, frame=0) == pytest.approx(-60.1 * 1.5)
    if "gc_live" in gizmo.knobs():
        beside = [plate.sample(one, *IN_LIGHT, frame=-1) for one in RGB]
        found = [gizmo.sample(one, *IN_LIGHT, frame=-1) for one in RGB]
        assert found == pytest.approx([beside[0] + 40, beside[1] - 0.25, beside[2] + 0.25])
        gizmo["gc_live"].setValue(False)
    delivered = reading(tmp_path / f"shot/gencomp/{name}/v001/result/result.%04d.exr")
    for frame in FRAMES:
        assert differing(app, gizmo, delivered, frame, RGB) == 0


@pytest.mark.parametrize("name", NODES)
def test_other_channels_pass_whatever_is_shown_before_a_result_and_after(app, lay, play, name):
    gizmo, plate = lay(name)
    assert differing(app, gizmo, plate, -1, (*RGBA, *OTHERS)) == 0
    gizmo, plate = play(name)
    for output in gizmo["gc_output"].values():
        gizmo["gc_output"].setValue(output)
        assert differing(app, gizmo, plate, -1, ("depth.Z", "CryptoAsset00.red")) == 0
    assert {f"{layer}.alpha" for layer in ("effect", "background")} & set(gizmo.channels())


@pytest.mark.parametrize("name", NODES)
def test_format_pixel_aspect_and_box_are_the_plates(app, play, tmp_path, name):
    gizmo, plate = play(name)
    asked = asking.ask(gizmo)
    lead = lead_of(gizmo)
    shape = lead.header.format
    assert (shape.width, shape.height, shape.pixel_aspect) == (*SIZE, 2.0)
    files = export.render(gizmo, asked, tmp_path / "in")
    assert exrhead.head_of(files[lead.header.name][-1]).pixel_aspect == 2.0
    if name in LIVE:
        ours, theirs = (app.pixels.bbox_of(one, -1) for one in (gizmo, plate))
        assert [getattr(ours, s)() for s in "xywh"] == [getattr(theirs, s)() for s in "xywh"]
        assert gizmo.format().pixelAspect() == 2.0


# --- frames --------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [(-1, 0), (0, 0)], ids=["below zero", "one"])
@pytest.mark.parametrize("name", NODES)
def test_frames_keep_their_numbers_from_the_plate_to_what_is_played(
    app, server, lay, pictures, name, frames
):
    gizmo, _ = lay(name)
    if frames[0] == frames[1]:
        for knob, value in (("gc_range", "custom"), ("gc_first", 0), ("gc_last", 0)):
            gizmo[knob].setValue(value)
    press(app, gizmo)
    request = server.jobs["job1"].submit.request
    assert (request.frames.first, request.frames.last) == frames
    lead, sent = lead_of(gizmo).header, server.jobs["job1"].pictures
    numbers = list(range(frames[0], frames[1] + 1))
    assert sorted(n for name, n in sent if name == lead.name) == numbers
    assert (gizmo["gc_result_first"].value(), gizmo["gc_result_last"].value()) == frames
    gizmo["gc_output"].setValue("effect" if name in LIVE else "a")
    layer = gizmo["gc_output"].value()
    truth = reading(pictures / f"layers/{layer}/{layer}.%04d.exr")
    assert [n for n in FRAMES if differing(app, gizmo, truth, n) == 0] == numbers


@pytest.mark.parametrize(
    ("cls", "knobs", "shows"),
    [("TimeOffset", "time_offset 1", {0: -1}), ("FrameHold", "first_frame -1", {-1: -1, 0: -1})],
)
def test_a_retimed_input_is_sent_as_nuke_shows_it(app, lay, tmp_path, pictures, cls, knobs, shows):
    import nuke

    gizmo, _ = lay("DynVFX")
    moved = nuke.createNode(cls, knobs)
    moved.setInput(0, reading(pictures / "layers/effect/effect.%04d.exr"))
    connect(gizmo, "Plate", moved)
    for knob, value in (("gc_range", "custom"), ("gc_first", min(shows)), ("gc_last", 0)):
        gizmo[knob].setValue(value)
    files = export.render(gizmo, asking.ask(gizmo), tmp_path / "in")
    assert sorted(files["plate"]) == sorted(shows)
    for frame, source in shows.items():
        sent = reading(tmp_path / "in/plate/plate.%04d.exr").sample(
            "rgba.red", *IN_LIGHT, frame=frame
        )
        assert sent == moved.input(0).sample("rgba.red", *IN_LIGHT, frame=source) == 40.0


def test_each_view_is_sent_and_played_as_its_own(app, server, lay, pictures, tmp_path):
    import nuke

    app.view = "left"
    nuke.root()["views"].setValue("left #ff0000\nright #00ff00")
    for view, value in (("left", 0.25), ("right", 0.75)):
        for n in FRAMES:
            paint(tmp_path / f"{view}/plate.{n:04d}.exr", "RGB", [(WHOLE, [value] * 3)], size=SIZE)
    gizmo, _ = lay("OverPlusPlus")
    gizmo.setInput(0, reading(tmp_path / "%V/plate.%04d.exr"))
    press(app, gizmo)
    sent = {}
    for job in server.jobs.values():
        (tmp_path / f"{job.name}.exr").write_bytes(job.pictures["plate", 0])
        sent[job.name] = reading(tmp_path / f"{job.name}.exr").sample("rgba.red", 4, 4, frame=0)
    assert sent == {"job1": 0.25, "job2": 0.75}
    assert len({job.submit.request.knobs["seed"] for job in server.jobs.values()}) == 1
    version = Path(gizmo["gc_folder"].evaluate()).parent
    file = version / "right/effect/effect.-001.exr"
    file.unlink()
    paint(file, "RGBA", [(WHOLE, [0.0, 0.0, 0.0, 0.25])], size=SIZE)
    assert gizmo.sample("rgba.red", *IN_DARK, frame=-1) == 0.125
    app.view = "right"
    assert gizmo.sample("rgba.red", *IN_DARK, frame=-1) == 0.75 * 0.75


# --- what the node says --------------------------------------------------------------------------


@pytest.mark.parametrize("name", NODES)
def test_making_and_generating_is_one_step_to_undo_and_saved_it_stays_saved(
    app, server, lay, name, tmp_path
):
    import nuke

    app.undo_steps.clear()
    nuke.modified(False)
    other = nuke.createNode(name)
    app.panel_shown(other)
    app.idle()
    assert (app.undo_steps, nuke.modified()) == ([], False)
    nuke.delete(other)
    gizmo, _ = lay(name)
    app.undo_steps.clear()
    press(app, gizmo)
    assert app.undo_steps == [f"{gizmo.name()} result"]
    app.save()
    app.undo_steps.clear()
    own = gizmo.name()
    nuke.scriptOpen((tmp_path / "shot/comp.nk").as_posix())
    again = nuke.toNode(own)
    app.panel_shown(again)
    app.idle()
    assert status(again) == "Plays v001, frames -1-0."
    assert (app.undo_steps, nuke.modified()) == ([], False)


@pytest.mark.parametrize("name", NODES)
def test_what_is_out_of_date_is_amber_and_so_it_says_and_well_again_when_turned_back(
    app, server, lay, name
):
    gizmo, plate = lay(name)
    press(app, gizmo)
    fine = status(gizmo)
    for knob, turned, words in (
        (gizmo["seed"], 12, "knobs have changed"),
        (plate["value"], 2.0, "what is connected has changed"),
    ):
        was = knob.value()
        knob.setValue(turned)
        stale.check(gizmo)
        assert status(gizmo) == f"Out of date: {words} since. {fine}"
        assert node.state_of(gizmo) == node.STALE
        assert "out of date" in gizmo["label"].evaluate()
        knob.setValue(was)
        stale.check(gizmo)
        assert (status(gizmo), node.state_of(gizmo)) == (fine, node.IDLE)


@pytest.mark.parametrize("name", NODES)
def test_a_failure_is_red_in_words_and_in_the_label_and_the_result_before_plays_on(
    app, server, lay, name
):
    gizmo, _ = lay(name)
    press(app, gizmo)
    server.fails = WorkerLost("The worker went away.", hint="Press Generate again.", report="3f9a")
    press(app, gizmo)
    assert status(gizmo) == "The worker went away. Press Generate again. (report 3f9a)"
    assert node.state_of(gizmo) == node.FAILED
    assert gizmo["label"].evaluate().splitlines()[1].strip() == "failed"
    assert gizmo["gc_folder"].evaluate().endswith("/v001")


# --- where nothing of ours is --------------------------------------------------------------------


def host(kind, tmp_path, home):
    """Return the variables of a host: without our plug-in, or with it and without a package."""
    environ = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "NUKE_PATH")}
    environ.update({VARIABLE: worker_python(), "GENCOMP_HOME": str(home)})
    if kind == "without our packages":
        environ.update(NUKE_PATH=str(ROOT), PYTHONPATH=str(tmp_path / "broken"))
        for package in ("zmq", "msgpack"):
            (tmp_path / f"broken/{package}").mkdir(parents=True)
            text = "raise ImportError('built for another Python')\n"
            (tmp_path / f"broken/{package}/__init__.py").write_text(text, encoding="utf-8")
    return environ


@pytest.mark.parametrize("kind", ["without our plug-in", "without our packages"])
def test_moved_to_a_host_without_us_a_script_of_all_nodes_renders_the_same_samples(
    app, play, tmp_path, home, kind
):
    import nuke

    wanted = {}
    for name in NODES:
        gizmo, _ = play(name)
        write = nuke.createNode("Write", f"name Out_{name} raw true create_directories true")
        write["channels"].setValue("rgba")
        write["datatype"].setValue("32 bit float")
        write["file"].setValue((tmp_path / f"out/{name}.%04d.exr").as_posix())
        write.setInput(0, gizmo)
        wanted[name] = [app.pixels.digest(gizmo, n, RGBA) for n in FRAMES]
    app.save()
    (tmp_path / "shot").rename(tmp_path / "elsewhere")
    ended = subprocess.run(
        [
            sys.executable,
            "-S",
            str(TERMINAL),
            "-x",
            "-F",
            "-1-0",
            str(tmp_path / "elsewhere/comp.nk"),
        ],
        capture_output=True,
        text=True,
        env=host(kind, tmp_path, home),
        check=False,
        timeout=120,
    )
    assert (ended.returncode, ended.stdout) == (0, "5 Writes rendered\n"), ended.stderr
    assert ended.stderr == ""
    for name in NODES:
        made = reading(tmp_path / f"out/{name}.%04d.exr")
        assert [app.pixels.digest(made, n, RGBA) for n in FRAMES] == wanted[name]
    assert len({tuple(one) for one in wanted.values()}) > 1
