# SPDX-License-Identifier: Apache-2.0
"""``gencomp doctor``: what is wrong is said with its cure."""

import importlib.metadata
import json
import shutil
from types import SimpleNamespace

import pytest

from gencomp_protocol import Client, ServerFile
from gencomp_protocol.locate import write_server_file
from gencomp_server import doctor
from gencomp_server.cli import main
from gencomp_server.doctor import (
    check_config,
    check_device,
    check_disk,
    check_home,
    check_opencv,
    check_packages,
    check_places,
    check_ports,
    check_python,
    check_server,
    check_variables,
    check_weights,
)


@pytest.mark.parametrize(
    ("version", "good", "words"),
    [
        ((3, 9, 18), False, "install Python 3.11"),
        ((3, 11, 7), True, "python 3.11.7."),
        ((3, 13, 0), True, "tested is 3.11"),
    ],
)
def test_the_python_is_told_and_judged(version, good, words):
    found = check_python(version)
    assert found.is_good is good
    assert words in found.sentence


def test_a_package_that_is_missing_is_named_with_the_cure():
    found = check_packages({"json": "pytest", "no_such_module": "no-such-package"})
    assert not found.is_good
    assert "no-such-package" in found.sentence
    assert "constraints.txt" in found.sentence


def test_two_builds_of_opencv_are_one_too_many():
    both = frozenset({"opencv-python", "opencv-python-headless", "numpy"})
    assert not check_opencv(both).is_good
    assert check_opencv(frozenset({"opencv-python-headless"})).is_good


@pytest.mark.parametrize(("free", "good"), [(4_999_999_999, False), (5_000_000_000, True)])
def test_a_full_disk_is_wrong(monkeypatch, tmp_path, free, good):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free))
    assert check_disk(tmp_path).is_good is good


def test_a_loopback_port_can_be_had():
    assert check_ports().is_good


def test_a_home_folder_that_is_not_there_yet_is_fine(tmp_path):
    assert check_home(tmp_path / "none").is_good


@pytest.mark.parametrize(("mode", "good"), [(0o700, True), (0o755, True), (0o777, False)])
def test_a_home_folder_that_others_can_write_is_wrong(tmp_path, mode, good):
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(mode)
    assert check_home(home).is_good is good


def test_a_home_folder_that_is_a_file_is_wrong(tmp_path):
    (tmp_path / "home").write_text("")
    found = check_home(tmp_path / "home")
    assert not found.is_good
    assert "GENCOMP_HOME" in found.sentence


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("GENCOMP_DEVISE", "GENCOMP_DEVICE"),
        ("GENCOMP_SERVERKEY", "GENCOMP_SERVER_KEY"),
        ("GENCOMP_CACHE_TEMPLATES", "GENCOMP_CACHE_TEMPLATE"),
    ],
)
def test_a_variable_that_is_misspelt_is_named_with_the_one_that_was_meant(name, near):
    found = check_variables({name: "x"})
    assert not found.is_good
    assert name in found.sentence
    assert found.sentence.endswith(f"did you mean {near}?")


def test_variables_of_ours_and_of_the_studio_are_not_misspelt():
    ours = ("GENCOMP_HOME", "GENCOMP_CONFIG", "GENCOMP_COMMAND", "GENCOMP_PORT", "GENCOMP_SHOT")
    assert check_variables(dict.fromkeys((*ours, "GENCOMP_OUR_RELEASE", "PATH"), "x")).is_good


@pytest.mark.parametrize("name", ["spool", "ledger"])
def test_a_place_that_no_server_could_write_is_wrong(tmp_path, name):
    (tmp_path / "file").write_text("")
    environ = {"GENCOMP_HOME": str(tmp_path / "home")}
    assert check_places(environ).is_good
    found = check_places({**environ, f"GENCOMP_{name.upper()}": str(tmp_path / "file" / "x")})
    assert not found.is_good
    assert str(tmp_path / "file") in found.sentence
    assert f"'{name}'" in found.sentence


def test_the_disk_of_the_spool_is_looked_at_wherever_one_stands(monkeypatch, tmp_path):
    looked = []

    def usage(folder):
        looked.append(folder)
        return SimpleNamespace(free=1)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    found = check_places({"GENCOMP_HOME": str(tmp_path)})
    assert not found.is_good
    assert "GENCOMP_SPOOL" in found.sentence
    assert looked == [tmp_path]


@pytest.mark.parametrize(("mode", "good"), [(0o600, True), (0o644, False)])
def test_a_secret_that_others_can_read_is_wrong(tmp_path, mode, good):
    (tmp_path / "server.json").write_text("{}")
    (tmp_path / "server.json").chmod(mode)
    assert check_home(tmp_path).is_good is good


def test_settings_of_nuke_hold_no_secret_and_may_be_read(tmp_path):
    (tmp_path / "nuke.json").write_text("{}")
    (tmp_path / "nuke.json").chmod(0o644)
    assert check_home(tmp_path).is_good


def test_a_setting_that_was_given_is_told_with_where_it_comes_from(tmp_path):
    (tmp_path / "gencomp.toml").write_text('device = "cuda:0"\n')
    environ = {"GENCOMP_HOME": str(tmp_path), "GENCOMP_PORT": "5570"}
    assert check_config(environ).sentence == (
        f"config: port = 5570 (GENCOMP_PORT), device = cuda:0 ({tmp_path / 'gencomp.toml'}:1); "
        "all else is default."
    )


@pytest.mark.parametrize(("mode", "good"), [(0o644, True), (0o664, True), (0o666, False)])
def test_a_facilitys_file_that_everybody_can_write_is_wrong(tmp_path, mode, good):
    site = tmp_path / "site.toml"
    site.write_text('locked = ["device"]\n')
    site.chmod(mode)
    found = check_config({"GENCOMP_HOME": str(tmp_path), "GENCOMP_CONFIG": str(site)})
    assert found.is_good is good
    words = f"device = cpu (default, locked by {site}:1)" if good else f"{site} can be written"
    assert words in found.sentence


def test_a_setting_that_there_is_not_is_wrong(tmp_path):
    (tmp_path / "gencomp.toml").write_text("devise = 1\n")
    found = check_config({"GENCOMP_HOME": str(tmp_path)})
    assert not found.is_good
    assert "Did you mean 'device'?" in found.sentence


def test_the_device_is_told_with_its_memory(tmp_path):
    found = check_device({"GENCOMP_HOME": str(tmp_path)})
    assert found.is_good
    assert found.sentence.startswith("device: cpu (")
    assert found.sentence.endswith(" GB memory free.")


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cuda:99", "Setting 'device' is cuda:99, but this machine has"),
        ("cuda1", "Setting 'device' cannot be 'cuda1'. Use cpu, or cuda:0 for the first GPU"),
    ],
)
def test_a_device_that_is_not_there_is_wrong(tmp_path, device, words):
    found = check_device({"GENCOMP_HOME": str(tmp_path), "GENCOMP_DEVICE": device})
    assert not found.is_good
    assert words in found.sentence


def test_backbones_that_can_be_used_are_told_with_their_class_of_licence(monkeypatch, tmp_path):
    usable = (("casper",), {})
    monkeypatch.setattr("gencomp_server.weights.Shelf.available", lambda *words: usable)
    monkeypatch.setattr("gencomp_server.weights.Shelf.licence_class", lambda *words: "research")
    found = check_weights({"GENCOMP_HOME": str(tmp_path)})
    assert "weights: casper (research) in " in found.sentence


def test_no_weights_are_no_fault_and_the_folder_is_named(tmp_path):
    found = check_weights({"GENCOMP_HOME": str(tmp_path)})
    assert found.is_good
    assert f"none are installed in {tmp_path / 'weights'}" in found.sentence
    assert "preview (production) ships with gencomp" in found.sentence


def test_a_licence_class_that_there_is_not_is_wrong(tmp_path):
    found = check_weights({"GENCOMP_HOME": str(tmp_path), "GENCOMP_ALLOWED_LICENCES": "any"})
    assert not found.is_good
    assert "no licence class 'any'" in found.sentence


def test_no_server_is_fine_and_a_dead_one_is_wrong(tmp_path):
    environ = {"GENCOMP_HOME": str(tmp_path)}
    assert check_server(environ).is_good
    secret = tmp_path / "secret"
    secret.write_text("s")
    secret.chmod(0o600)
    environ |= {"GENCOMP_SERVER": "tcp://127.0.0.1:9", "GENCOMP_SECRET_FILE": str(secret)}
    found = check_server(environ)
    assert not found.is_good
    assert "tcp://127.0.0.1:9" in found.sentence


def test_a_server_that_answers_but_fails_every_job_is_wrong(monkeypatch, tmp_path):
    welcome = SimpleNamespace(server_version="0.1.0", worker="lost")
    monkeypatch.setattr(Client, "connect", lambda client: welcome)
    write_server_file(tmp_path / "server.json", ServerFile("tcp://127.0.0.1:9", "s"))
    found = check_server({"GENCOMP_HOME": str(tmp_path)})
    assert not found.is_good
    assert "its worker does not start" in found.sentence


@pytest.mark.parametrize(
    ("worker", "words"), [("resting", "it holds no memory"), ("busy", "runs a job")]
)
def test_what_the_worker_of_a_server_does_is_told(monkeypatch, tmp_path, worker, words):
    welcome = SimpleNamespace(server_version="0.1.0", worker=worker)
    monkeypatch.setattr(Client, "connect", lambda client: welcome)
    write_server_file(tmp_path / "server.json", ServerFile("tcp://127.0.0.1:9", "s"))
    found = check_server({"GENCOMP_HOME": str(tmp_path)})
    assert found.is_good
    assert words in found.sentence


def test_the_doctor_says_one_line_a_check_and_ends_with_1_where_one_is_wrong(
    capsys, monkeypatch, tmp_path
):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1))
    assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 14
    assert [line.split()[0] for line in lines].count("WRONG") == 2


def test_the_doctor_says_the_same_to_a_machine(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1))
    assert main(["doctor", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [one["is_good"] for one in found].count(False) == 2
    assert found[0]["sentence"].startswith("python 3.")


def test_picture_libraries_with_known_holes_are_named_with_their_cure(monkeypatch):
    assert doctor.check_picture_libraries().is_good
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: {"OpenEXR": "3.4.9"}.get(name, "3.2.2.0")
    )
    monkeypatch.setattr(doctor, "_bundled_openexr", lambda: "3.3.1")
    found = doctor.check_picture_libraries()
    assert not found.is_good
    assert found.sentence == (
        "pictures: known holes are open in OpenEXR 3.4.9 (fixed in 3.4.14), the OpenEXR 3.3.1 "
        "inside OpenImageIO (fixed in 3.4.14); install the versions of constraints.txt."
    )


def test_the_openexr_inside_openimageio_is_known():
    assert doctor._bundled_openexr()[0] == "3"


def test_a_kernel_without_a_filter_is_told_and_is_no_fault(monkeypatch):
    monkeypatch.setattr(doctor.fence, "has_filter", lambda: False)
    found = doctor.check_fence()
    assert found.is_good
    assert "this kernel filters no calls" in found.sentence


@pytest.mark.parametrize(("version", "words"), [(0, "has no Landlock"), (4, "no file but those")])
def test_whether_decoders_keep_to_their_folders_is_told(monkeypatch, version, words):
    monkeypatch.setattr(doctor.fence, "has_folders", lambda: version)
    found = doctor.check_fence()
    assert found.is_good
    assert words in found.sentence
