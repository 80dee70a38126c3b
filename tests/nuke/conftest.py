# SPDX-License-Identifier: Apache-2.0
"""What the Nuke room's tests share: the stand-in, a small shot with known layers, a fake server."""

import sys
import threading
from pathlib import Path

import pytest

# Threads that look something up and hand it to the main thread: to this test's, not to the next's.
_BRIEF = ("gencomp versions", "gencomp estimate", "gencomp check", "gencomp drawing")
ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import standin  # noqa: E402
from fakes.shot import BOX_A, BOX_B, BRIGHT, FRAMES, HEIGHT, WIDTH, connect, level, paint  # noqa: E402
from standin.pixels import VARIABLE, worker_python  # noqa: E402

standin.install(gui=False)  # The Nuke room imports nuke; each test makes an application of its own.

from gencomp_nuke import callbacks, hooks  # noqa: E402


@pytest.fixture(scope="session")
def shot(tmp_path_factory):
    """Return the folder of the shot: plate, matte_a, matte_b, and layers/ with the answers."""
    if worker_python() is None:
        pytest.skip(f"no Python with numpy and OpenImageIO (name one in {VARIABLE})")
    folder = tmp_path_factory.mktemp("shot")
    whole = (0, 0, WIDTH, HEIGHT)
    for n in FRAMES:
        ground = level(n)
        flat, bright = [ground] * 3, [8.0] * 3
        half = [0.25 + 0.5 * ground] * 3
        paint(
            folder / f"plate/plate.{n}.exr",
            "RGB",
            [(whole, flat), (BRIGHT, bright), (BOX_A, half), (BOX_B, [0.5] * 3)],
        )
        paint(folder / f"matte_a/matte_a.{n}.exr", "RGBA", [(BOX_A, [1.0] * 4)])
        paint(folder / f"matte_b/matte_b.{n}.exr", "RGBA", [(BOX_B, [1.0, 0, 0, 1.0])])
        paint(
            folder / f"layers/background/background.{n}.exr",
            "RGBA",
            [(whole, [ground] * 3 + [1.0]), (BRIGHT, [8.0] * 3 + [1.0])],
        )
        paint(folder / f"layers/a/a.{n}.exr", "RGBA", [(BOX_A, [0.25] * 3 + [0.5])])
        paint(folder / f"layers/b/b.{n}.exr", "RGBA", [(BOX_B, [0.5] * 3 + [1.0])])
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Return gencomp's folder of a user who has nothing set up."""
    for name in (
        "GENCOMP_SERVER",
        "GENCOMP_SECRET_FILE",
        "GENCOMP_SERVER_COMMAND",
        "GENCOMP_IDLE_EXIT_S",
        "GENCOMP_UNSAVED_FOLDER",
        "GENCOMP_CACHE_TEMPLATE",
        "GENCOMP_PATH_MAP",
        "GENCOMP_FARM_ROOTS",
        "GENCOMP_INPUTS_KEEP_GB",
        "GENCOMP_BACKGROUND_NUKE",
        "GENCOMP_LOCK_SILENCE_S",
        "GENCOMP_STUDIO_KNOBS",
        "GENCOMP_CONFIG",
        "GENCOMP_KEY_FILE",
        "GENCOMP_SERVER_KEY",
        "NUKE_PATH",
    ):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home"
    monkeypatch.setenv("GENCOMP_HOME", str(folder))
    return folder


def _application(gui, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    app = standin.install(gui=gui)
    app.start([ROOT])
    callbacks._session.cache_clear()
    hooks.install.cache_clear()
    return app


@pytest.fixture
def app(home, monkeypatch):
    """Return a Nuke with an interface that has gencomp on its plug-in path."""
    yield _application(True, monkeypatch)
    if callbacks._session.cache_info().currsize:
        callbacks._session().close()
    callbacks._session.cache_clear()
    for thread in threading.enumerate():
        if thread.name in _BRIEF:
            thread.join(5)


@pytest.fixture
def terminal(home, monkeypatch):
    """Return a Nuke without an interface that has gencomp on its plug-in path."""
    return _application(False, monkeypatch)


@pytest.fixture
def server(shot, home):
    """Return a fake server of this user that answers with the shot's layers."""
    from fakes.server import FakeServer

    with FakeServer(shot / "layers", home) as fake:
        yield fake


@pytest.fixture
def read(shot):
    """Return a function that makes a Read of a sequence of the shot, or of any other file."""

    def make(file, first=1001, last=1004):
        import nuke

        made = nuke.createNode("Read", f"first {first} last {last} raw true")
        plain = Path(file)
        made["file"].setValue(plain.as_posix() if plain.is_absolute() else f"{shot}/{file}")
        return made

    return make


@pytest.fixture
def comp(shot, tmp_path):
    """Return a function that lays the shot's Reads and an Omnimatte into the open script."""

    def lay(app):
        import nuke

        app.save(tmp_path / "comp.nk")
        gizmo = nuke.createNode("Omnimatte")
        for pipe, name in (("Plate", "plate"), ("Matte1", "matte_a"), ("Matte2", "matte_b")):
            read = nuke.createNode("Read", f"name {name} first 1001 last 1004 raw true")
            read["file"].setValue(f"{shot.as_posix()}/{name}/{name}.%04d.exr")
            connect(gizmo, pipe, read)
        gizmo["gc_name1"].setValue("a")
        gizmo["gc_name2"].setValue("b")
        app.undo_steps.clear()
        return gizmo

    return lay
