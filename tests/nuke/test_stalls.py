# SPDX-License-Identifier: Apache-2.0
"""Nothing of ours holds Nuke's main thread: every button and every followed knob of every gizmo.

What may take long is forbidden to the main thread: sockets, other processes, sleeping, waiting for
a thread, hashing files. How long every call takes is measured where the machine is quiet, with the
server in a process of its own.
"""

import gc
import os
import queue
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from fakes.shot import connect
from gencomp_nuke import boot, callbacks, node, stale, tool
from gencomp_protocol import link, transfer

ROOT = Path(__file__).resolve().parent.parent.parent
GIZMOS = ("DynVFX", "GenComposite", "Omnimatte", "OverPlusPlus", "SplitThenMerge")
MOST_S = 0.05
_WAITS = (
    (time, "sleep"),
    (subprocess.Popen, "__init__"),
    (subprocess.Popen, "communicate"),
    (subprocess.Popen, "wait"),
    (socket.socket, "connect"),
    (threading.Event, "wait"),
    (threading.Thread, "join"),
    (queue.Queue, "get"),
    (shutil, "rmtree"),
    (link.Link, "connect"),
    (link.Link, "receive"),
    (transfer, "_hash_file"),
)


_PYTHONS_OWN = ("subprocess", "tempfile", "threading")  # Their own calls of these are short.


@contextmanager
def waits_of(watch, monkeypatch):
    """Yield a list of what the main thread waits for inside our code, as it comes."""
    main, found = threading.get_ident(), []

    def noted(owner, name):
        real = getattr(owner, name)

        def called(*words, **more):
            by_python = sys._getframe(1).f_globals.get("__name__") in _PYTHONS_OWN
            if threading.get_ident() == main and watch._depth == 1 and not by_python:
                found.append(f"{owner.__name__}.{name}")
            return real(*words, **more)

        patch.setattr(owner, name, called)

    with monkeypatch.context() as patch:
        for owner, name in _WAITS:
            noted(owner, name)
        yield found


def quiet():
    """Tell whether no thread of ours works, but for the one that waits for runs."""
    own = [t.name for t in threading.enumerate() if t.name.startswith("gencomp ")]
    return not own and not any(not run.is_over for run in callbacks.runs())


@pytest.fixture
def made(app, shot, tmp_path, monkeypatch):
    """Return a function that makes a node of a gizmo with everything connected."""
    monkeypatch.setattr(stale, "_QUIET_S", 0.01)
    monkeypatch.setenv("GENCOMP_COMMAND", f"{sys.executable} -c pass")
    monkeypatch.setattr(tool, "open_outside", lambda path: None)  # The machine's own program.
    app.save(tmp_path / "comp.nk")

    def make(name):
        import nuke

        reads = {}
        for source in ("plate", "matte_a"):
            reads[source] = nuke.createNode("Read", "first 1001 last 1004 raw true")
            reads[source]["file"].setValue(f"{shot.as_posix()}/{source}/{source}.%04d.exr")
        gizmo = nuke.createNode(name)
        for spec in node.declared(gizmo).pipes:
            if spec.slot <= 1 and gizmo.node(spec.pipe) is not None:
                is_matte = spec.kind in ("matte", "data")
                connect(gizmo, spec.pipe, reads["matte_a" if is_matte else "plate"])
        for slot in range(1, 3):
            if f"gc_name{slot}" in gizmo.knobs():
                gizmo[f"gc_name{slot}"].setValue("ab"[slot - 1])
        nuke.frame(1002)
        return gizmo

    return make


def buttons(gizmo):
    """Return the buttons of a node, Generate first."""
    found = [name for name, knob in gizmo.knobs().items() if knob.Class() == "PyScript_Knob"]
    found = [name for name in found if name.startswith("gc_")]
    return sorted(found, key=lambda name: (name != "gc_generate", name))


def drive(app, gizmo, done):
    """Press every button and turn every followed knob of a node; ``done(what)`` after each."""
    if "gc_wedge" in gizmo.knobs():
        gizmo["gc_wedge"].setValue("1-2")
    if "instruction" in gizmo.knobs():
        gizmo["instruction"].setValue("a bird lands")
    for name in buttons(gizmo):
        gizmo[name].execute()
        app.process_events(quiet)
        app.idle()
        done(name)
    app.panel_shown(gizmo)
    app.input_changed(gizmo)
    for name in callbacks.FOLLOWED:
        if name in gizmo.knobs():
            gizmo._knob_changed(gizmo[name])
    app.process_events(quiet)
    done("followed")


@pytest.mark.fault("F44")
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="one Python shows what is waited for")
@pytest.mark.parametrize("name", GIZMOS)
def test_no_button_lets_the_main_thread_wait(app, server, made, monkeypatch, name):
    gizmo, waited = made(name), {}
    with app.watch() as watch, waits_of(watch, monkeypatch) as found:

        def done(what):
            if found:
                waited[what] = list(found)
            found.clear()

        drive(app, gizmo, done)
    assert waited == {}
    assert len(server.jobs) >= 2


@pytest.mark.fault("F44")
def test_what_waits_on_the_main_thread_is_found_out(app, made, monkeypatch):
    gizmo = made("DynVFX")
    gizmo["gc_estimate"].setCommand("import time; time.sleep(0.001)")
    with app.watch() as watch, waits_of(watch, monkeypatch) as found:
        gizmo["gc_estimate"].execute()
    assert found == ["time.sleep"]


# --- measured ------------------------------------------------------------------------------------


@pytest.fixture
def far(shot, home):
    """Start a fake server in a process of its own, so that it takes no time from this one."""
    paths = [str(ROOT / "protocol"), str(ROOT / "tests"), *sys.path]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    program = [sys.executable, str(ROOT / "tests/fakes/server.py"), str(shot / "layers")]
    process = subprocess.Popen(program, env=environ)
    while not (home / "server.json").is_file():
        time.sleep(0.05)
    yield process
    process.kill()
    process.wait()


def longest(app, act):
    """Return the calls that a go makes, each by its longest time in seconds.

    The tests before left a hundred thousand objects; no Nuke has to collect those.
    """
    found = {}
    gc.collect()
    gc.freeze()
    try:
        with app.watch() as watch:
            act()
    finally:
        gc.unfreeze()
    for call in watch.calls:
        found[call.what] = max(call.seconds, found.get(call.what, 0.0))
    return found


def stalls(found):
    return {what: round(s * 1000) for what, s in found.items() if s > MOST_S}


@pytest.mark.fault("F44")
@pytest.mark.slow
@pytest.mark.parametrize("name", GIZMOS)
def test_no_call_holds_the_main_thread_for_50_ms(app, far, made, name):
    boot._warm_up()  # Nuke's start does so in a thread of its own.
    gizmo = made(name)
    assert stalls(longest(app, lambda: drive(app, gizmo, lambda what: None))) == {}


@pytest.mark.fault("F44")
@pytest.mark.slow
def test_a_script_of_ten_nodes_and_fifty_versions_holds_nothing_up(app, far, made, tmp_path):
    import nuke
    from gencomp_nuke import prefs

    nodes = [made(GIZMOS[i % 5]) for i in range(10)]
    gizmo = nodes[2]
    gizmo["gc_generate"].execute()
    app.process_events(quiet)
    name, cache = gizmo.name(), node.cache_folder(gizmo, prefs.load())
    for number in range(2, 51):
        shutil.copytree(cache / "v001", cache / f"v{number:03d}")
    app.save()

    def open_and_look():
        nuke.scriptOpen(str(tmp_path / "comp.nk"))
        again = nuke.toNode(name)
        app.panel_shown(again)
        app.process_events(quiet)
        again["gc_version_pick"].setValue(40)
        app.process_events(quiet)

    assert stalls(longest(app, open_and_look)) == {}
    assert len(nuke.toNode(name)["gc_version_pick"].values()) >= 50


@pytest.mark.fault("F44")
@pytest.mark.slow
def test_a_plate_of_three_hundred_frames_holds_nothing_up(app, far, made, shot, tmp_path):
    gizmo = made("DynVFX")
    read = gizmo.input(0)
    folder = tmp_path / "long"
    folder.mkdir()
    for n in range(1001, 1301):
        os.link(shot / "plate/plate.1001.exr", folder / f"plate.{n}.exr")
    read["file"].setValue(f"{folder.as_posix()}/plate.%04d.exr")
    read["last"].setValue(1300)

    def generate():
        gizmo["gc_generate"].execute()
        app.process_events(quiet)

    assert stalls(longest(app, generate)) == {}
