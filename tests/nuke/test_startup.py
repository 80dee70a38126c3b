# SPDX-License-Identifier: Apache-2.0
"""Starting Nuke with gencomp on its path, with an interface, without, and with things broken."""

import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import standin
from gencomp_nuke import boot, logs, lookout

ROOT = Path(__file__).resolve().parent.parent.parent
TERMINAL = ROOT / "tests" / "standin" / "terminal.py"


def nuke(home, *words, **more):
    """Run the stand-in's command line as a process of its own, without our packages installed."""
    environ = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environ.update({"NUKE_PATH": str(ROOT), "GENCOMP_HOME": str(home), **more})
    return subprocess.run(
        [sys.executable, str(TERMINAL), *map(str, words)],
        capture_output=True,
        text=True,
        env=environ,
        check=False,
        timeout=120,
    )


def test_with_an_interface_the_toolbar_has_a_command_per_gizmo(app):
    items = app.opened_menus["Nodes"].items["gencomp"].items
    names = ["DynVFX", "GenComposite", "Omnimatte", "OverPlusPlus", "SplitThenMerge"]
    assert items == {name: f"nuke.createNode('{name}')" for name in names}
    assert app.printed == []


@pytest.mark.fault("F44")
def test_without_an_interface_no_menu_is_asked_for(terminal):
    assert terminal.opened_menus == {}
    assert terminal.printed == []


def test_init_puts_gizmos_and_both_rooms_on_the_path(terminal):
    assert [p.name for p in terminal.plugin_path[:3]] == ["protocol", "nuke_plugin", "gizmos"]


def test_init_imports_nothing_of_ours():
    text = (ROOT / "init.py").read_text(encoding="utf-8")
    assert "import gencomp" not in text
    assert "from gencomp" not in text


def test_a_broken_menu_is_one_paragraph_and_nuke_starts(home, monkeypatch, tmp_path):
    app = standin.install(gui=True)
    monkeypatch.setattr("gencomp_nuke.menus.build", lambda folder: 1 / 0)
    boot.start(tmp_path)
    assert app.printed == [
        "gencomp could not build its menus (ZeroDivisionError: division by zero). "
        "Nuke is not affected; nodes that are in scripts keep playing their results. "
        f"Check the installation under {tmp_path}."
    ]


def test_the_menu_bar_has_the_commands_that_need_no_node(app):
    items = app.opened_menus["Nuke"].items["gencomp"].items
    assert list(items) == ["Jobs", "Check set-up", "Help", "Renew older nodes"]


def test_every_step_of_start_up_fails_by_itself(home, monkeypatch, tmp_path):
    app = standin.install(gui=True)
    for step in ("logs.setup", "menus.build", "jobsview.register"):
        monkeypatch.setattr(f"gencomp_nuke.{step}", lambda *words: 1 / 0)
    boot.start(tmp_path)
    assert [line.split(" (")[0] for line in app.printed] == [
        "gencomp could not start its log",
        "gencomp could not build its menus",
        "gencomp has no Jobs panel",
    ]
    assert len({line.count("Nuke is not affected") for line in app.printed}) == 1


@pytest.mark.parametrize(
    ("broken", "notice"),
    [
        ("settings", "settings: The settings "),
        ("server", "server, named by GENCOMP_SERVER: No server answers at tcp://127.0.0.1:9 "),
        ("command", "server: none runs, and 'no-such-gencomp' is not found."),
    ],
)
def test_whatever_is_broken_nuke_starts_and_the_panel_says_so(home, monkeypatch, broken, notice):
    home.mkdir(exist_ok=True)
    if broken == "settings":
        (home / "nuke.json").write_text("{", encoding="utf-8")
    elif broken == "server":
        (home / "secret").write_text("s", encoding="utf-8")
        (home / "secret").chmod(0o600)
        monkeypatch.setenv("GENCOMP_SERVER", "tcp://127.0.0.1:9")
        monkeypatch.setenv("GENCOMP_SECRET_FILE", str(home / "secret"))
    else:
        monkeypatch.setenv("GENCOMP_SERVER_COMMAND", "no-such-gencomp serve")
    monkeypatch.setattr(sys, "path", list(sys.path))
    app = standin.install(gui=True)
    app.start([ROOT])
    assert app.printed == []
    assert len(app.opened_menus["Nodes"].items["gencomp"].items) == 5
    (told,) = lookout.see(os.environ).notices
    assert told.startswith(notice)


def test_with_a_broken_package_the_interface_starts_and_its_panel_names_the_place(home, tmp_path):
    broken = tmp_path / "zmq.py"
    broken.write_text("raise ImportError('built for another Python')\n", encoding="utf-8")
    code = (
        f"import os, sys\nsys.path[:0] = [{str(tmp_path)!r}, {str(ROOT / 'tests')!r}]\n"
        f"import standin\napp = standin.install(gui=True)\napp.start([{str(ROOT)!r}])\n"
        "print(app.printed, len(app.opened_menus['Nodes'].items['gencomp'].items))\n"
        "from gencomp_nuke import checking, jobsview, lookout\n"
        "print(lookout.see(os.environ).notices[0])\n"
        "import nuke\nchecking.check(nuke.createNode('Omnimatte'))\nprint(app.messages[0])\n"
    )
    environ = {**os.environ, "GENCOMP_HOME": str(home), "PYTHONPATH": ""}
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=environ).stdout
    lines = said.splitlines()
    notice = f"packages that this Nuke cannot load: pyzmq in {broken} (built for another Python)"
    assert lines[0] == "[] 5"
    assert lines[1].startswith(notice)
    assert lines[3].startswith(f"WRONG: {notice}")


def test_our_packages_are_behind_everything_of_nukes_own_and_there_once(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", list(sys.path))
    shutil.copy(ROOT / "init.py", tmp_path)
    (tmp_path / "vendor").mkdir()
    app = standin.install(gui=False)
    app.start([tmp_path])
    app.run_file(tmp_path / "init.py")
    assert sys.path[-1] == (tmp_path / "vendor").as_posix()
    assert sys.path.count((tmp_path / "vendor").as_posix()) == 1


def test_without_our_packages_the_menu_is_one_paragraph_and_nuke_starts(monkeypatch):
    app = standin.install(gui=True)
    monkeypatch.setitem(sys.modules, "gencomp_nuke", None)
    app.run_file(ROOT / "menu.py")
    assert len(app.printed) == 1
    assert app.printed[0].startswith("gencomp is not in the menus: ")


@pytest.mark.parametrize(("broken", "package"), [("zmq", "pyzmq"), ("msgpack", "msgpack")])
def test_with_a_broken_package_nuke_starts_and_generate_says_so(home, tmp_path, broken, package):
    (tmp_path / f"{broken}.py").write_text("raise ImportError('built for another Python')\n")
    script = tmp_path / "make.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport nuke\n"
        "gizmo = nuke.createNode('Omnimatte')\ngizmo['gc_generate'].execute()\n",
        encoding="utf-8",
    )
    ended = nuke(home, "-t", script)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == (
        f"gencomp lacks a Python package here: {package} in {tmp_path / broken}.py "
        "(built for another Python). See install-nuke.md.\n"
    )


def test_neither_numpy_nor_torch_nor_qt_is_imported(home, tmp_path):
    heavy = ("numpy", "torch", "OpenImageIO", "PySide2", "PySide6", "cv2")
    for name in heavy:  # Whoever imports one finds it here, installed or not.
        (tmp_path / "there" / name).mkdir(parents=True)
        (tmp_path / "there" / name / "__init__.py").touch()
    script = tmp_path / "look.py"
    script.write_text(
        "import sys, nuke\nfrom gencomp_nuke import batch, boot, callbacks, qt, session\n"
        "nuke.createNode('Omnimatte')\nqt.load()\n"
        f"nuke.tprint([name for name in {heavy} if name in sys.modules])\n",
        encoding="utf-8",
    )
    ended = nuke(home, "-t", script, PYTHONPATH=str(tmp_path / "there"))
    assert ended.stdout == "[]\n", ended.stderr


def test_a_script_that_raises_ends_with_one(home, tmp_path):
    script = tmp_path / "fails.py"
    script.write_text("raise SystemError('no')\n", encoding="utf-8")
    assert nuke(home, "-t", script).returncode == 1


@pytest.mark.fault("F44")
def test_rendering_a_script_leaves_our_writes_alone(app, comp, tmp_path, home):
    gizmo = comp(app)
    import nuke as module

    write = module.createNode("Write", "name Final raw true create_directories true")
    write["file"].setValue((tmp_path / "out" / "final.%04d.exr").as_posix())
    write.setInput(0, gizmo.input(0))
    app.save()
    ended = nuke(home, "-x", "-F", "1001-1002", tmp_path / "comp.nk")
    assert ended.stdout == "1 Writes rendered\n", ended.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "final.1001.exr",
        "final.1002.exr",
    ]
    assert not (tmp_path / "gencomp").exists()


def test_log_lines_go_to_the_users_file_once(terminal, home, monkeypatch):
    rooms = [logging.getLogger(name) for name in ("gencomp_nuke", "gencomp_protocol")]
    for room in rooms:
        monkeypatch.setattr(room, "handlers", [])
    logs.setup()
    logs.setup()
    logging.getLogger("gencomp_nuke.x").warning("only %s", "once")
    for room in rooms:
        for handler in room.handlers:
            handler.close()
    (line,) = (home / "nuke.log").read_text(encoding="utf-8").splitlines()
    when = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
    assert re.fullmatch(rf"{when} WARNING gencomp_nuke\.x only once", line)
    assert [line.count("only once") for line in terminal.printed] == [1]
