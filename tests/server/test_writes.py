# SPDX-License-Identifier: Apache-2.0
"""What gencomp writes, by its own table and in reality; and that uninstalling removes just that.

Every Python process of a server that works (front, worker, decoders) reports each name that it
makes, from an audit hook; what it leaves is looked at besides.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import OpenImageIO as oiio
import pytest

from gencomp_protocol import Client, read_server_file
from gencomp_protocol.client import picture_of, request_key
from gencomp_protocol.frames import FrameRange
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.cli import main
from gencomp_server.writes import Kind, Place, places, remove

ROOT = Path(__file__).resolve().parents[2]
WATCH = """
import os, sys

report = os.open(os.environ["WATCHED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def hear(event, args):
    made = None
    if event == "open" and isinstance(args[0], (str, bytes)) and args[2]:
        if args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            made = args[0]
    elif event in ("os.rename", "os.link", "os.symlink"):
        made = args[1]
    elif event in ("os.mkdir", "sqlite3.connect"):
        made = args[0]
    if isinstance(made, (str, bytes, os.PathLike)):
        path = os.path.abspath(os.fsdecode(made))
        os.write(report, (event + " " + path + "\\n").encode())


sys.addaudithook(hear)
"""
# What the system itself gives to a process, and no file.
SYSTEMS = ("/dev/", "/proc/")


@pytest.fixture
def seat(tmp_path, monkeypatch):
    """Return the environment of a user with a home, a folder for passing files and a watcher."""
    for name in [name for name in os.environ if name.startswith("GENCOMP_")]:
        monkeypatch.delenv(name)
    watcher = tmp_path / "watcher"
    watcher.mkdir()
    (watcher / "sitecustomize.py").write_text(WATCH)
    rooms = [str(watcher), *(str(ROOT / room) for room in ("protocol", "server"))]
    rooms.append(str(ROOT / "tests" / "integration"))
    (tmp_path / "passing").mkdir()
    for name, value in {
        "GENCOMP_HOME": tmp_path / "home",
        "GENCOMP_REGISTRY": "stub_systems:REGISTRY",
        "TMPDIR": tmp_path / "passing",
        "WATCHED": tmp_path / "watched",
        "PYTHONPATH": os.pathsep.join(rooms),
        "PYTHONDONTWRITEBYTECODE": "1",
    }.items():
        monkeypatch.setenv(name, str(value))
    return tmp_path


def exr(path, channels):
    """Write a small EXR. scene-linear, 32 x 18."""
    spec = oiio.ImageSpec(32, 18, len(channels), "half")
    spec.channelnames = channels
    target = oiio.ImageOutput.create(str(path))
    assert target.open(str(path), spec)
    target.write_image(np.full((18, 32, len(channels)), 0.5, np.float16))
    target.close()
    return path


def run_a_job(folder, out):
    """Let the server of a home folder run a job, and fetch it."""
    server = read_server_file(folder / "server.json")
    files = {"plate": ("R", "G", "B"), "matte.a": ("A",)}
    pictures = {
        name: {1001: picture_of(exr(folder.parent / f"{name}.1001.exr", channels))}
        for name, channels in files.items()
    }
    with Client(server.address, server.secret, client="test") as client:
        system = client.connect().systems[0]["name"]
        inputs = tuple(InputHeader(name, (1001,)) for name in files)
        request = Request(system, FrameRange(1001, 1001), inputs, {})
        job = client.submit(request, pictures, request_key(request, pictures))
        return client.follow(job, pictures=pictures, folder=out)


def serve(home):
    """Start a server; return its process once it is ready."""
    command = [sys.executable, "-m", "gencomp_server", "serve", "--web-port", "0"]
    child = subprocess.Popen(command, cwd=home.parent)
    deadline = time.monotonic() + 60
    while not ((home / "server.json").exists() and (home / "web.json").exists()):
        assert child.poll() is None, "the server left"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return child


def test_what_a_server_makes_is_in_the_table_and_uninstalling_removes_just_that(
    seat, capfd, monkeypatch
):
    home, out = seat / "home", seat / "out"
    child = serve(home)
    try:
        assert run_a_job(home, out).state == "done"
        assert main(["uninstall"]) == 3
        assert f"A server works in {home / 'spool'}" in capfd.readouterr().err
    finally:
        child.terminate()
        child.wait(60)
    assert main(["keys", "new", "me", "--allow"]) == 0
    written = {Path(line.split(" ", 1)[1]) for line in (seat / "watched").read_text().splitlines()}
    left = {path for top in (home, seat / "passing") for path in top.rglob("*")}
    known = places(os.environ)
    table = [place for place in known if place.kind is not Kind.LEFT]
    apart = {home, seat / "passing", seat / "watched"}
    stray = [
        path
        for path in (written | left) - apart
        if not str(path).startswith(SYSTEMS)
        and not any(place.holds(path) or path == place.folder for place in table)
    ]
    assert stray == []
    assert any(path.is_relative_to(home / "spool" / "jobs") for path in written)
    assert any(path.name.startswith(".web.json") for path in written)
    assert {path.name for path in home.iterdir()} >= {"spool", "keys", "ledger.db", "me.key"}

    (home / "gencomp.toml").write_text("keep_days = 3\n")
    (home / "spool" / "not ours.txt").write_text("somebody's")
    (home / "knobs.json").write_text("{}")
    (seat / "passing" / "gencomp-notes").write_text("somebody's")
    (seat / "passing" / "gencomp-plan-abcdefgh").mkdir()
    (home / "unsaved" / "job").mkdir(parents=True)
    assert main(["uninstall", "--keep-results", "--yes", "--keys"]) == 0
    assert {path.name for path in home.iterdir()} == {
        *("gencomp.toml", "spool", "knobs.json", "unsaved", "ledger.db"),
    }
    assert [path.name for path in (home / "spool").iterdir()] == ["not ours.txt"]
    assert [path.name for path in (seat / "passing").iterdir()] == ["gencomp-notes"]
    assert main(["uninstall", "--yes"]) == 0
    assert {path.name for path in home.iterdir()} == {"gencomp.toml", "spool"}
    assert any(out.iterdir())


def test_every_place_is_told_with_what_becomes_of_it(seat, capsys):
    (seat / "home" / "spool" / "jobs").mkdir(parents=True)
    (seat / "home" / "spool" / "jobs" / "x").write_bytes(b"x" * 2_000_000)
    (seat / "home" / "gencomp.toml").write_text('[nuke]\ncache_template = "/mnt/c/$SHOW/{id}"\n')
    assert main(["doctor", "--paths"]) == 0
    said = capsys.readouterr().out
    state, keys, results, left = (said.index(f"{kind.value}: ") for kind in Kind)
    assert said.index("(2.0 MB)  pictures, stages, jobs") > state
    assert keys < said.index("the server's key, which every seat trusts") < results
    assert results < said.index(f"{seat / 'home' / 'unsaved'}  (not there)") < left
    assert said.index("/mnt/c/$SHOW/{id}") > left
    assert said.index("gencomp.toml,nuke.json,client.json") > left


def test_with_nothing_there_nothing_is_removed(seat, capsys):
    assert main(["uninstall"]) == 0
    assert "Nothing of gencomp's is here." in capsys.readouterr().out
    assert not (seat / "home").exists()


def test_places_follow_the_settings_and_a_shared_folder_is_left(seat):
    home = seat / "home"
    home.mkdir()
    (home / "gencomp.toml").write_text(
        f'spool = "{seat}/disk"\nlog_file = "{seat}/log/lines.jsonl"\n'
        f'[nuke]\nunsaved_folder = "{seat}/shared"\n'
    )
    found = {place.folder: place.kind for place in places(os.environ)}
    assert found[seat / "disk"] is Kind.STATE
    assert found[seat / "log"] is Kind.STATE
    assert found[seat / "shared"] is Kind.LEFT


@pytest.mark.parametrize("unsaved", ["", ".", "..", "../shots"])
def test_weights_stay_whatever_else_lies_around_them(seat, unsaved):
    home, data = seat / "home", seat / "data"
    for folder in (home, data / "models" / "wan", data / "jobs", seat / "shots"):
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
    lines = f'spool = "{data}"\nweights = "{data}/models"\n'
    if unsaved:
        lines += f'[nuke]\nunsaved_folder = "{home}/{unsaved}"\n'
    (home / "gencomp.toml").write_text(lines)
    assert main(["uninstall", "--yes"]) == 0
    assert not (data / "jobs").exists()
    for path in (data / "models" / "wan" / "file", seat / "shots" / "file", home / "file"):
        assert path.read_text() == "x", path


def test_a_link_goes_and_what_it_leads_to_stays(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "file").write_text("x")
    spool = tmp_path / "spool"
    spool.mkdir()
    (spool / "jobs").symlink_to(theirs)
    (spool / "pictures").mkdir()
    (spool / "pictures" / "in").symlink_to(theirs)
    place = Place(spool, ("jobs", "pictures"), "", Kind.STATE, is_own=True)
    assert [path.name for path in remove(place)] == ["jobs", "pictures"]
    assert not spool.exists()
    assert (theirs / "file").read_text() == "x"


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("\n", 1), ("no\n", 1)])
def test_on_a_terminal_it_asks_first(seat, monkeypatch, capsys, answer, code):
    (seat / "home").mkdir()
    (seat / "home" / "server.log").write_text("")

    class Terminal:
        def isatty(self):
            return True

        def readline(self):
            return answer

    monkeypatch.setattr(sys, "stdin", Terminal())
    assert main(["uninstall"]) == code
    assert (seat / "home" / "server.log").exists() is (code == 1)


def test_without_a_terminal_nothing_is_removed_unless_that_is_said(seat, capsys):
    (seat / "home").mkdir()
    (seat / "home" / "server.log").write_text("")
    assert main(["uninstall"]) == 2
    said = capsys.readouterr().err
    assert "Nobody can be asked here" in said
    assert "say --yes" in said
    assert (seat / "home" / "server.log").exists()
    assert main(["uninstall", "--yes"]) == 0
    assert not (seat / "home").exists()


def test_the_key_that_every_seat_trusts_stays_unless_it_is_named(seat, capsys):
    assert main(["keys", "new", "ada", "--server", "tcp://127.0.0.1:9470", "--allow"]) == 0
    folder = seat / "home" / "keys"
    before = (folder / "server.key").read_bytes()
    assert main(["uninstall", "--yes"]) == 0
    assert (folder / "server.key").read_bytes() == before
    assert (folder / "allowed.json").exists()
    assert f"kept {folder}" in capsys.readouterr().out
    assert not (seat / "home" / "ada.key").exists()
    assert main(["uninstall", "--yes", "--keys"]) == 0
    assert not folder.exists()


def test_what_is_made_for_a_moment_bears_a_name_of_the_table(seat):
    passing = next(place for place in places(os.environ) if place.folder == seat / "passing")
    found = []
    for room in ("protocol", "server", "nuke_plugin"):
        for path in sorted((ROOT / room).rglob("*.py")):
            if "training" not in path.parts:
                text = path.read_text(encoding="utf-8")
                found += re.findall(r'\bprefix="(gencomp[^"]*)"', text)
    assert len(found) >= 8
    for prefix in found:
        ending = ".txt" if prefix == "gencomp-" else ""
        assert passing.holds(passing.folder / f"{prefix}abcd_123{ending}"), prefix
