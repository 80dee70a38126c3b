# SPDX-License-Identifier: Apache-2.0
"""Check set-up: what every check says, and that the interface waits for none of them."""

import dataclasses
import json
import os
import shutil
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from fakes.server import FakeServer
from gencomp_nuke import checking, prefs
from gencomp_nuke.checking import Facts
from gencomp_protocol import locate
from gencomp_protocol.errors import WeightsMissing

FACTS = Facts("Omnimatte1", "", None, "The cache folder is empty.", None, "It has no plate.", 2)


@pytest.fixture
def doctor(monkeypatch, tmp_path):
    """Return a function that lets ``gencomp doctor --json`` say something."""

    def says(text, code=0):
        script = tmp_path / "gencomp.py"
        script.write_text(
            f"import sys\nassert sys.argv[1:] == ['doctor', '--json']\nprint({text!r})\n"
            f"raise SystemExit({code})\n",
            encoding="utf-8",
        )
        command = f'"{Path(sys.executable).as_posix()}" "{script.as_posix()}"'
        monkeypatch.setenv("GENCOMP_COMMAND", command)
        monkeypatch.setenv("GENCOMP_SERVER_COMMAND", f"{command} serve")

    return says


def test_packages_are_told_with_their_version_and_place(app):
    import zmq

    found = checking.check_packages()
    assert found.is_good
    assert f"pyzmq {zmq.__version__} in {Path(zmq.__file__).parent}" in found.sentence


def test_a_package_that_does_not_load_is_told_with_where_it_was_found(app, monkeypatch, tmp_path):
    (tmp_path / "msgpack.py").write_text("raise OSError('wrong ELF class')\n", encoding="utf-8")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "msgpack")
    found = checking.check_packages()
    assert not found.is_good
    assert f"msgpack in {tmp_path / 'msgpack.py'} (wrong ELF class)" in found.sentence


def test_every_setting_is_told_with_where_it_comes_from(app, home, monkeypatch):
    home.mkdir(exist_ok=True)
    (home / "nuke.json").write_text('{"idle_exit_s": 60}', encoding="utf-8")
    monkeypatch.setenv("GENCOMP_UNSAVED_FOLDER", "/shows/unsaved")
    sources = prefs.origins()
    assert sources["server_command"] == "default"
    assert sources["idle_exit_s"] == f"{home / 'nuke.json'}:1"
    assert sources["unsaved_folder"] == "GENCOMP_UNSAVED_FOLDER"
    sentence = checking.check_settings(os.environ).sentence
    assert "unsaved_folder = '/shows/unsaved' (GENCOMP_UNSAVED_FOLDER)" in sentence
    assert sentence.index("; by default: ") < sentence.index("server_command = 'gencomp serve'")
    assert f"idle_exit_s = 60 ({home / 'nuke.json'}:1)" in sentence


def test_a_facilitys_settings_are_told_with_line_lock_and_what_they_stand_over(
    app, home, tmp_path, monkeypatch
):
    site, show = tmp_path / "site.toml", tmp_path / "show.toml"
    site.write_text(
        'locked = ["client"]\n[nuke]\nfarm_roots = "/a"\n[client]\nserver = "tcp://r:1"\n'
    )
    show.write_text('[nuke]\nfarm_roots = "/b"\n[knobs.dynvfx]\nsteps = 10\n')
    monkeypatch.setenv("GENCOMP_CONFIG", os.pathsep.join(map(str, (site, show))))
    found = checking.check_settings(os.environ)
    assert found.is_good
    assert f"farm_roots = '/b' ({show}:2, over '/a' of {site}:3)" in found.sentence
    assert f"client.server = 'tcp://r:1' ({site}:5, locked by {site}:1)" in found.sentence
    assert f"knobs.dynvfx.steps = 10 ({show}:4)" in found.sentence


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[knobs.dynvfx]\nstepz = 10\n", "Did you mean 'steps'"),
        ("[knobs.dynvfxx]\nsteps = 10\n", "Did you mean 'dynvfx'"),
        ("[nuke]\nfarm_root = 1\n", "Did you mean 'nuke.farm_roots'"),
        ('[client]\nservr = "x"\n', "Did you mean 'client.server'"),
    ],
)
def test_what_a_facilitys_file_cannot_say_is_wrong(app, home, tmp_path, monkeypatch, text, said):
    site = tmp_path / "site.toml"
    site.write_text(text)
    monkeypatch.setenv("GENCOMP_CONFIG", str(site))
    found = checking.check_settings(os.environ)
    assert not found.is_good
    assert said in found.sentence
    assert f"{site}:" in found.sentence


@pytest.mark.parametrize(("free", "good"), [(4_999_999_999, False), (5_000_000_000, True)])
def test_a_full_disk_for_results_is_wrong(app, monkeypatch, tmp_path, free, good):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    facts = Facts("A", "", tmp_path / "not" / "there", "", None, "", 2)
    assert checking.check_cache(facts).is_good is good


def test_a_node_without_a_place_for_results_says_why(app):
    found = checking.check_cache(FACTS)
    assert (found.is_good, found.sentence) == (False, "results: The cache folder is empty.")


def test_a_server_that_answers_is_told_with_its_version(app, home, tmp_path):
    with FakeServer(tmp_path, home) as server:
        found = checking.check_server(os.environ)
    assert found.is_good
    assert found.sentence.startswith(f"server: fake answers at {server.address}, protocol 1.")


def test_a_server_that_is_gone_is_no_fault_since_the_next_one_is_started(app, home, doctor):
    doctor("")
    with FakeServer(home, home):
        pass
    found = checking.check_server(os.environ)
    assert found.is_good
    assert found.sentence.startswith("server: none runs; Generate starts ")


def test_a_home_folder_that_another_machine_uses_is_wrong(app, home, monkeypatch):
    locate.write_server_file(home / "server.json", locate.ServerFile("tcp://127.0.0.1:9", "s"))
    assert checking.check_home(os.environ).is_good
    monkeypatch.setattr("socket.gethostname", lambda: "ws12")
    found = checking.check_home(os.environ)
    assert not found.is_good
    assert found.sentence.startswith(f"folder {home} (GENCOMP_HOME): the machine ")
    assert checking.check_server(os.environ).sentence.startswith("server: none runs")


def test_a_command_that_is_not_there_is_told_once(app, home, monkeypatch):
    monkeypatch.setenv("GENCOMP_SERVER_COMMAND", "no-such-gencomp serve")
    wrong = [one.sentence for one in checking.examine(FACTS) if not one.is_good]
    assert [sentence.split(":")[0] for sentence in wrong] == ["results", "server", "Omnimatte1"]


def test_a_server_whose_secret_is_wrong_is_told(app, home, tmp_path, monkeypatch):
    with FakeServer(tmp_path, home) as server:
        (tmp_path / "secret").write_text("another", encoding="utf-8")
        (tmp_path / "secret").chmod(0o600)
        monkeypatch.setenv("GENCOMP_SERVER", server.address)
        monkeypatch.setenv("GENCOMP_SECRET_FILE", str(tmp_path / "secret"))
        found = checking.check_server(os.environ)
    assert not found.is_good
    assert "secret" in found.sentence


def test_weights_and_settings_of_the_server_come_from_its_own_doctor(app, home, doctor):
    said = [
        {"is_good": True, "sentence": "weights: casper (research) in /w."},
        {"is_good": False, "sentence": "config: There is no setting 'devise'."},
        {"is_good": True, "sentence": "server: none is named or runs."},
    ]
    doctor(json.dumps(said), code=1)
    found = checking.check_installation(os.environ)
    assert [(one.is_good, one.sentence) for one in found] == [
        (True, "weights: casper (research) in /w."),
        (False, "config: There is no setting 'devise'."),
    ]


def test_a_doctor_that_cannot_be_understood_is_a_finding(app, home, doctor):
    doctor("Traceback")
    (found,) = checking.check_installation(os.environ)
    assert not found.is_good
    assert found.sentence.startswith("weights: 'gencomp doctor' cannot be understood: ")


def test_of_a_server_that_was_named_the_doctor_here_knows_nothing(app, home):
    (found,) = checking.check_installation(os.environ, "tcp://127.0.0.1:5570")
    assert found.is_good
    assert "on the server's machine" in found.sentence


def test_what_the_server_refuses_of_a_node_is_told(app, home, tmp_path):
    with FakeServer(tmp_path, home) as server:
        server.refuses = WeightsMissing("casper is not installed.", hint="Get it.")
        facts = Facts("A", "", tmp_path, "", checked_request(), "", 2)
        found = checking.check_node(facts, os.environ, has_server=True)
    assert (found.is_good, found.sentence) == (False, "A: casper is not installed. Get it.")


def checked_request():
    from gencomp_protocol.frames import FrameRange
    from gencomp_protocol.request import Request

    return Request("omnimatte", FrameRange(1001, 1002), (), {}, "", "test")


def test_a_node_that_lacks_an_input_says_which(app):
    found = checking.check_node(FACTS, os.environ, has_server=False)
    assert (found.is_good, found.sentence) == (False, "Omnimatte1: It has no plate.")


def test_the_button_reports_on_the_node_and_in_a_window_and_never_waits(app, home, monkeypatch):
    import nuke

    threads = []

    def slowly(facts):
        threads.append(threading.current_thread())
        yield checking.Finding(True, "fine.")
        yield checking.Finding(False, "server: away.")

    monkeypatch.setattr(checking, "examine", slowly)
    gizmo = nuke.createNode("Omnimatte")
    checking.check(gizmo)
    assert gizmo["gc_status"].value() == "Checking the set-up."
    app.process_events(lambda: app.messages)
    assert app.messages == ["ok: fine.\nWRONG: server: away."]
    assert gizmo["gc_status"].value() == ("1 of 2 checks found something wrong: server: away.")
    assert threads != [threading.main_thread()]


def test_a_bug_in_a_check_is_a_finding_too(app, home, monkeypatch):
    import nuke

    monkeypatch.setattr(checking, "check_home", lambda environ: 1 / 0)
    gizmo = nuke.createNode("Omnimatte")
    checking.check(gizmo)
    app.process_events(lambda: app.messages)
    assert app.messages == ["WRONG: the check itself failed (ZeroDivisionError: division by zero)."]


def test_without_an_interface_every_line_is_printed(terminal, home, doctor):
    import nuke

    doctor(json.dumps([{"is_good": True, "sentence": "weights: none."}]))
    checking.check(nuke.createNode("Omnimatte"))
    lines = "\n".join(terminal.printed).splitlines()
    assert [line.split(":")[0] for line in lines] == ["ok"] * 6 + ["ok", "WRONG"]
    assert lines[0].startswith("ok: gencomp 0.1.0 in Nuke 15.1v5, Python 3.")
    assert lines[-1] == "WRONG: Omnimatte1 has no plate. Connect the plate to its pipe Plate."


def test_on_windows_a_place_that_it_cannot_have_is_said(tmp_path):
    facts = dataclasses.replace(FACTS, cache=tmp_path / "aux" / "gencomp")
    assert "is no path for Windows: its part 'aux' is a device there" in (
        checking.check_cache(facts, windows=True).sentence
    )
    assert checking.check_cache(facts, windows=False).is_good
