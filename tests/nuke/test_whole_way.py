# SPDX-License-Identifier: Apache-2.0
"""The whole way: Reads of EXRs, Omnimatte, Generate, a real server, the node's output.

With an interface, and by ``-t``. The server is started by the node itself, from the configured
command, in a Python of its own; once with a system that cuts by the matte, where every pixel is
known, and once with the real one on a small procedural shot.
"""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fakes.shot import connect, paint
from standin.pixels import worker_python

ROOT = Path(__file__).resolve().parent.parent.parent
TERMINAL = ROOT / "tests" / "standin" / "terminal.py"
ROOMS = [ROOT / "protocol", ROOT / "server", ROOT / "tests"]
RGB = ("rgba.red", "rgba.green", "rgba.blue")
RGBA = (*RGB, "rgba.alpha")
CUTTING, REAL = "fakes.systems:REGISTRY", "gencomp_server.systems:REGISTRY"
PAINTED = "fakes.systems:PAINTED"
# Gizmo, what is connected to which pipe, and layers that come, in the order of the server's.
NODES = {
    "OverPlusPlus": (
        {"Plate": "plate", "EffectMask": "matte_a"},
        {"prompt": "soft shadow"},
        ("result", "effect", "difference", "effect_matte"),
    ),
    "GenComposite": (
        {"Bg": "plate", "Fg1": "layers/a", "Fg2": "layers/b", "Holdout": "matte_a"},
        {"gc_name1": "plane", "trajectory": "plane: 10,20; 30,20"},
        (
            *("result", "effect", "difference", "effect_matte"),
            *("element_plane", "interaction_plane", "element_fg2", "interaction_fg2"),
        ),
    ),
    "SplitThenMerge": (
        {"Bg": "plate", "Fg": "layers/a"},
        {"prompt": "a boat on a lake"},
        ("result", "effect", "difference", "effect_matte"),
    ),
    "DynVFX": (
        {"Plate": "plate", "SourceMatte": "matte_a"},
        {"prompt": "a whale in the lake"},
        ("result", "effect", "difference", "effect_matte"),
    ),
}
# What the real system makes of a shot is the server's, in its own Python; what differs between the
# Pythons of Nuke is shown by every other test here.
UNDER_ONE_PYTHON = pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="the real system is run from one Python, 3.11"
)
SAMPLES = 64 * 48 * 3
# over in float32, rounded once; the brightest sample of the procedural shot is 8.
ONE_ULP = 2.0**-20
SHOT = """
from gencomp_server.training.shots import ShotSpec, write_shot
import sys
write_shot(ShotSpec(seed=5, width=160, height=96, frames=8, effects=("shadow",)), sys.argv[1])
"""
BATCH = """
import sys
import nuke
from gencomp_nuke import batch
nuke.scriptOpen(sys.argv[1])
batch.generate(nuke.toNode("Omnimatte1"))
nuke.scriptSave()
"""


def rooms():
    return os.pathsep.join(map(str, ROOMS))


def serve(registry):
    """Return the command of a server with that registry, in the server's Python."""
    python = worker_python()
    if python is None:
        pytest.skip("no Python with numpy and OpenImageIO")
    ask = [python, "-c", "import cv2, msgpack, psutil, zmq"]
    ended = subprocess.run(ask, capture_output=True, text=True, check=False)
    if ended.returncode:
        pytest.skip(f"{python} is no Python for a server: {ended.stderr.strip()[-100:]}")
    words = ["env", f"PYTHONPATH={rooms()}", f"GENCOMP_REGISTRY={registry}", "OMP_NUM_THREADS=1"]
    return " ".join(map(shlex.quote, [*words, python, "-m", "gencomp_server", "serve"]))


def stop(home):
    """End the server that Generate has started for a user, if there is one."""
    state = home / "server.json"
    if state.exists():
        pid = json.loads(state.read_text())["pid"]
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


@pytest.fixture
def use(home, monkeypatch):
    """Return a function that chooses the registry of the server which Generate will start."""
    yield lambda registry: monkeypatch.setenv("GENCOMP_SERVER_COMMAND", serve(registry))
    stop(home)


@pytest.fixture(scope="module")
def painters_home(tmp_path_factory):
    """Return the folder of a user whose one server, of painted systems, serves several tests."""
    folder = tmp_path_factory.mktemp("painters")
    yield folder
    stop(folder)


@pytest.fixture
def painters(app, painters_home, monkeypatch):
    """Let Generate find, or start, the server of painted systems."""
    monkeypatch.setenv("GENCOMP_HOME", str(painters_home))
    monkeypatch.setenv("GENCOMP_SERVER_COMMAND", serve(PAINTED))


@pytest.fixture(scope="module")
def procedural(tmp_path_factory):
    """Return the folder of a small procedural shot, made by the server's Python."""
    python = worker_python()
    if python is None:
        pytest.skip("no Python with numpy and OpenImageIO")
    folder = tmp_path_factory.mktemp("procedural")
    environ = {**os.environ, "PYTHONPATH": rooms()}
    subprocess.run([python, "-c", SHOT, str(folder)], env=environ, check=True)
    return folder


def generate(app, gizmo):
    from gencomp_nuke import callbacks

    gizmo["gc_generate"].execute()
    session = callbacks._session()
    app.process_events(lambda: session.run_of(gizmo["gc_id"].value()) is None, timeout_s=240)
    assert gizmo["gc_status"].value().startswith("Plays v001"), gizmo["gc_status"].value()


def generate_by_terminal(script, home, tmp_path):
    """Generate as a farm would: ``nuke -t generate.py comp.nk``."""
    program = tmp_path / "generate.py"
    program.write_text(BATCH, encoding="utf-8")
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environ["NUKE_PATH"] = str(ROOT)
    ended = subprocess.run(
        [sys.executable, str(TERMINAL), "-t", str(program), str(script)],
        capture_output=True,
        text=True,
        env=environ,
        check=False,
        timeout=280,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Error:" not in ended.stdout


def check_cut(app, gizmo):
    """Check the result of the system that cuts, at three frames."""
    plate = gizmo.input(0)
    for frame in (1001, 1002, 1004):
        gizmo["gc_output"].setValue("recomposed")
        assert app.pixels.compare(gizmo, plate, frame, RGB)["differing"] == 0
        gizmo["gc_output"].setValue("background")
        left = app.pixels.compare(gizmo, plate, frame, RGB)
        assert left["differing"] == 2 * 16 * 16 * 3
        assert gizmo.sample("rgba.red", 16, 48 - 16, frame=frame) == 0.0
        assert gizmo.sample("b.green", 48, 48 - 16, frame=frame) == 0.5


def test_with_an_interface_the_node_gives_what_the_server_made(app, use, comp):
    use(CUTTING)
    gizmo = comp(app)
    generate(app, gizmo)
    check_cut(app, gizmo)


def test_in_a_terminal_session_the_script_holds_what_the_server_made(
    app, use, comp, home, tmp_path
):
    import nuke

    use(CUTTING)
    comp(app)
    app.save()
    generate_by_terminal(tmp_path / "comp.nk", home, tmp_path)
    nuke.scriptOpen(str(tmp_path / "comp.nk"))
    check_cut(app, nuke.toNode("Omnimatte1"))


def lay(app, read, name):
    """Lay a node and what it needs into the open script."""
    import nuke

    pipes, knobs, layers = NODES[name]
    gizmo = nuke.createNode(name)
    for pipe, source in pipes.items():
        connect(gizmo, pipe, read(f"{source}/{Path(source).name}.%04d.exr"))
    for knob, value in knobs.items():
        gizmo[knob].setValue(value)
    return gizmo, layers


@UNDER_ONE_PYTHON
@pytest.mark.parametrize("name", NODES)
def test_what_the_server_made_is_in_the_stream_by_name_and_in_the_menu(
    app, painters, read, tmp_path, name
):
    app.save(tmp_path / "comp.nk")
    gizmo, layers = lay(app, read, name)
    gizmo["gc_live"].setValue(False)  # Else the result is computed here.
    generate(app, gizmo)
    found = [gizmo.sample(f"{layer}.alpha", 30, 30, frame=1003) for layer in layers]
    assert found == [(place + 1) / 16 for place in range(len(layers))]
    for place, layer in enumerate(layers):
        gizmo["gc_output"].setValue(layer)
        assert gizmo.sample("rgba.red", 30, 30, frame=1002) == (place + 1) / 16


@pytest.mark.slow
@pytest.mark.parametrize("name", NODES)
def test_the_real_system_with_its_tiny_model_gives_its_layers(app, use, read, tmp_path, name):
    use(REAL)
    app.save(tmp_path / "comp.nk")
    gizmo, layers = lay(app, read, name)
    gizmo["backbone"].setValue("tiny")
    gizmo["steps"].setValue(2)
    if name == "DynVFX":
        gizmo["inversion_steps"].setValue(4)
    generate(app, gizmo)
    channels = gizmo.channels()
    assert [layer for layer in layers if f"{layer}.alpha" not in channels] == []
    assert "untrained" in gizmo["gc_status"].value()


@pytest.mark.slow
@pytest.mark.parametrize(
    "knobs",
    [
        {"anchor_point": "0,0", "trajectory": "28,10@1001", "rotate": "90"},
        {"transform": "bird: 0,-1,28,1,0,10"},
    ],
    ids=["path", "matrix"],
)
def test_an_element_of_another_format_lies_where_nuke_counts_it(app, use, read, tmp_path, knobs):
    import nuke

    use(REAL)
    corner = [((0, 16, 8, 24), [0.5, 0.5, 0.5, 1.0])]  # The lower left 8×8 of 32×24.
    paint(tmp_path / "corner.1001.exr", "RGBA", corner, size=(32, 24))
    app.save(tmp_path / "comp.nk")
    gizmo = nuke.createNode("GenComposite")
    gizmo.setInput(0, read("plate/plate.%04d.exr", 1001, 1002))
    gizmo.setInput(1, read(tmp_path / "corner.%04d.exr", 1001, 1001))
    values = {"gc_name1": "bird", "backbone": "tiny", "steps": 1, "harmonise": 0, **knobs}
    for knob, value in values.items():
        gizmo[knob].setValue(value)
    generate(app, gizmo)
    # Turned left about its corner at (28, 10): from there 8 to the left and 8 up.
    spots = ((24, 14), (24, 8), (24, 20), (30, 14), (18, 14))
    found = [gizmo.sample("element_bird.alpha", *spot, frame=1001) for spot in spots]
    assert found == [1, 0, 0, 0, 0]


def lay_procedural(app, folder, tmp_path):
    import nuke

    app.save(tmp_path / "comp.nk")
    gizmo = nuke.createNode("Omnimatte")
    for pipe, name in (("Plate", "plate"), ("Matte1", "matte_a"), ("CleanPlate", "clean_plate")):
        read = nuke.createNode("Read", f"name {name} first 1001 last 1008 raw true")
        read["file"].setValue(f"{folder.as_posix()}/{name}/{name}.%04d.exr")
        connect(gizmo, pipe, read)
    gizmo["gc_name1"].setValue("a")
    gizmo["model_long_edge"].setValue(160)
    gizmo["gc_files"].setValue(False)  # Rendered in 32 bit, so that the layers come in 32 bit.
    app.save()
    return gizmo


def check_omnimatte(app, gizmo, folder):
    """Check the real system at three frames: the plate comes back, the object is gone."""
    import nuke

    plate, clean = gizmo.input(0), gizmo.input(2)
    for frame in (1001, 1004, 1008):
        gizmo["gc_output"].setValue("recomposed")
        assert app.pixels.compare(gizmo, plate, frame, RGB)["greatest"] <= ONE_ULP
        gizmo["gc_output"].setValue("background")
        still = app.pixels.compare(gizmo, clean, frame, RGB)["mean"]
        was = app.pixels.compare(plate, clean, frame, RGB)["mean"]
        assert still < 0.2 * was
    truth = nuke.createNode("Read", "raw true first 1001 last 1008")
    truth["file"].setValue(f"{folder.as_posix()}/truth/a/a.%04d.exr")
    found = app.pixels.compare(gizmo, truth, 1004, ("a.alpha",), ("rgba.alpha",))
    assert found["mean"] < 0.05


@UNDER_ONE_PYTHON
def test_omnimatte_takes_the_object_out_and_gives_the_plate_back(app, use, procedural, tmp_path):
    use(REAL)
    gizmo = lay_procedural(app, procedural, tmp_path)
    generate(app, gizmo)
    check_omnimatte(app, gizmo, procedural)


@UNDER_ONE_PYTHON
def test_omnimatte_in_a_terminal_session_gives_the_same(app, use, procedural, home, tmp_path):
    import nuke

    use(REAL)
    lay_procedural(app, procedural, tmp_path)
    generate_by_terminal(tmp_path / "comp.nk", home, tmp_path)
    nuke.scriptOpen(str(tmp_path / "comp.nk"))
    check_omnimatte(app, nuke.toNode("Omnimatte1"), procedural)


ODD_FRAMES = (1001, 1003)
OVERSCAN = (-7, -4, 118, 64)
ODD = """
import sys
import numpy as np
from pathlib import Path
from gencomp_protocol.frames import Box
from gencomp_server.contract import LayerFrame
from gencomp_server.exr.write import write_layer

def write(name, n, pixels, window):
    path = Path(sys.argv[1]) / name / f"{name}.{n}.exr"
    path.parent.mkdir(parents=True, exist_ok=True)
    channels, half = ("R", "G", "B") if pixels.shape[2] == 3 else ("A",), pixels.astype(np.float16)
    write_layer(path, LayerFrame(name, n, half, channels, display, window, 2.0))

display, overscan = Box(0, 0, 100, 56), Box(-7, -3, 110, 60)
y, x = np.mgrid[-3:61, -7:111].astype(np.float32)
ground = np.stack([0.2 + 0.1 * np.sin(x / 5), 0.3 + 0.1 * np.cos(y / 4), 4.0 + x / 50], -1)
for n in range(1001, 1004):
    inside = ((x - (60 + 16 * (n - 1001))) ** 2 + (y - 30) ** 2 < 8**2)[..., None]
    write("plate", n, np.where(inside, np.float32(0.9), ground), overscan)
    write("matte", n, inside[3:60, 7:108].astype(np.float32), display)
"""


@pytest.fixture
def odd(app, tmp_path):
    """Return a Read of a plate of 101×57, 2:1, with overscan, and one of a matte of its right."""
    import nuke

    environ = {**os.environ, "PYTHONPATH": rooms()}
    subprocess.run([worker_python(), "-c", ODD, str(tmp_path)], env=environ, check=True)
    app.save(tmp_path / "comp.nk")
    made = []
    for name in ("plate", "matte"):
        first, last = ODD_FRAMES
        read = nuke.createNode("Read", f"name {name} first {first} last {last} raw true")
        read["file"].setValue(f"{tmp_path.as_posix()}/{name}/{name}.%04d.exr")
        made.append(read)
    return made


def check_odd(app, gizmo, plate, output):
    """Check that a result is as large as the plate and the plate itself where nothing was done."""
    import nuke

    gizmo["gc_output"].setValue(output)
    for n in ODD_FRAMES:
        shape = app.pixels.format_of(gizmo)
        assert (shape.width(), shape.height(), shape.pixelAspect()) == (101, 57, 2.0)
        box = app.pixels.bbox_of(gizmo, n)
        assert (box.x(), box.y(), box.w(), box.h()) == OVERSCAN
        assert app.pixels.compare(gizmo, plate, n, RGB)["differing"] > 0
        left = []
        for node in (gizmo, plate):
            cut = nuke.createNode("Crop", "box {0 0 41 57} crop true")
            cut.setInput(0, node)
            left.append(cut)
        assert app.pixels.compare(*left, n, RGB)["differing"] == 0


def report_of(gizmo):
    """Return what the manifest of the result that a node plays reports."""
    from gencomp_nuke import playing

    folder = playing.result_folder(gizmo)
    return json.loads((folder / "manifest.json").read_text())["report"]


@pytest.mark.slow
@UNDER_ONE_PYTHON
def test_with_a_model_a_plate_of_odd_size_comes_back_and_the_models_size_is_said(app, use, odd):
    import nuke

    use(REAL)
    plate, matte = odd
    whole = nuke.createNode("OverPlusPlus")
    connect(whole, "Plate", plate)
    connect(whole, "EffectMask", matte)
    for knob, value in {"prompt": "dust", "backbone": "tiny", "steps": 1, "mask_grow": 4}.items():
        whole[knob].setValue(value)
    generate(app, whole)
    check_odd(app, whole, plate, "result")
    at = "{}x{}".format(*report_of(whole)["model_size"])
    assert f"Made with tiny at {at}, which is untrained" in whole["gc_status"].value()
    plain = f"The model worked at {at}, the plate has 101x57 (pixel aspect 2): "
    assert report_of(whole)["worked_at"].startswith(plain)


@UNDER_ONE_PYTHON
def test_a_plate_of_odd_size_with_overscan_comes_back_as_it_is(app, use, odd):
    import nuke

    use(REAL)
    plate, matte = odd
    gizmo = nuke.createNode("Omnimatte")
    connect(gizmo, "Plate", plate)
    connect(gizmo, "Matte1", matte)
    gizmo["gc_name1"].setValue("a")
    generate(app, gizmo)
    check_odd(app, gizmo, plate, "clean")
    assert "Alpha was solved at 101x57, the plate has 101x57" in report_of(gizmo)["solved_at"]
