# SPDX-License-Identifier: Apache-2.0
"""Settings of a user: file, environment, defaults."""

import dataclasses
import json
import os
import sys

import pytest

from gencomp_nuke import prefs, serverstart
from gencomp_protocol.errors import BadKnob
from gencomp_protocol.settings import NUKE_DEFAULTS


def write(home, text):
    home.mkdir()
    (home / "nuke.json").write_text(text, encoding="utf-8")


def test_with_nothing_set_the_command_is_gencomp_serve(home):
    assert prefs.load().command == ("gencomp", "serve")
    assert prefs.load().idle_exit_s == 1800


def test_the_file_is_read(home):
    write(home, '{"server_command": "\'/opt/a b/gencomp\' serve", "idle_exit_s": 5}')
    assert prefs.load().command == ("/opt/a b/gencomp", "serve")
    assert prefs.load().idle_exit_s == 5


def test_the_environment_wins_over_the_file(home, monkeypatch):
    write(home, '{"server_command": "one"}')
    monkeypatch.setenv("GENCOMP_SERVER_COMMAND", "two three")
    assert prefs.load().command == ("two", "three")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"server_comand": "x"}', "Did you mean 'server_command'?"),
        ('{"idle_exit_s": "soon"}', "takes a whole number of seconds, not 'soon'"),
        ('{"path_map": 5}', "takes text, not 5"),
        ("[]", "are not a map"),
        ("{", "cannot be read"),
        ('{"idle_exit_s": "soon"}', "It comes from "),
        ('{"server_command": "\\"/opt/a b"}', "cannot be read (No closing quotation)"),
        ('{"path_map": "P:/"}', "path_map from "),
    ],
)
def test_a_wrong_setting_is_named(home, text, sentence):
    write(home, text)
    with pytest.raises(BadKnob) as caught:
        prefs.load()
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            r'"C:\Program Files\gencomp\gencomp.exe" serve',
            (r"C:\Program Files\gencomp\gencomp.exe", "serve"),
        ),
        (r"C:\Bob's\gencomp.exe serve", (r"C:\Bob's\gencomp.exe", "serve")),
        (r"\\srv\tools\gencomp serve # 1", (r"\\srv\tools\gencomp", "serve", "#", "1")),
        (r'C:\x.exe --name="a b"', (r"C:\x.exe", "--name=a b")),
    ],
)
def test_a_command_line_of_windows_keeps_its_backslashes_and_loses_its_quotes(line, words):
    assert prefs.Prefs.words(line, is_windows=True) == words


# --- a facility's files --------------------------------------------------------------------------


@pytest.fixture
def site(home, tmp_path, monkeypatch):
    """Return a function that writes the facility's file, which the environment names."""

    def write_site(text):
        place = tmp_path / "site.toml"
        place.write_text(text, encoding="utf-8")
        monkeypatch.setenv("GENCOMP_CONFIG", str(place))
        return place

    return write_site


def test_the_settings_here_are_those_that_gencomps_command_explains():
    found = {field.name: field.default for field in dataclasses.fields(prefs.Prefs)}
    assert found == dict(NUKE_DEFAULTS)


def test_the_facility_stands_under_the_user_and_over_the_defaults(home, site):
    place = site('device = "cuda:0"\n[nuke]\nfarm_roots = "/mnt"\nidle_exit_s = 9\n')
    write(home, '{\n "idle_exit_s": 5}')
    made, sources = prefs.load(), prefs.origins()
    assert (made.farm_roots, made.idle_exit_s) == ("/mnt", 5)
    assert sources["farm_roots"] == f"{place}:3"
    assert sources["idle_exit_s"] == f"{home / 'nuke.json'}:2"
    assert [str(one.origin) for one in prefs.settled()["idle_exit_s"].over] == [f"{place}:4"]


@pytest.mark.parametrize("where", ["nuke.json", "variable"])
def test_what_the_facility_locks_the_user_cannot_set(home, site, monkeypatch, where):
    place = site('locked = ["nuke.cache_template"]\n[nuke]\ncache_template = "/mnt/cache"\n')
    if where == "variable":
        monkeypatch.setenv("GENCOMP_CACHE_TEMPLATE", "/tmp/mine")
    else:
        write(home, '{"cache_template": "/tmp/mine"}')
    with pytest.raises(BadKnob) as caught:
        prefs.load()
    named = f"{home / 'nuke.json'}:1" if where == "nuke.json" else "GENCOMP_CACHE_TEMPLATE"
    assert f'"/tmp/mine" in {named}, but {place}:1 locks it at "/mnt/cache"' in str(caught.value)


def test_a_form_of_its_own_is_told_with_its_line(site):
    place = site('[nuke]\n\npath_map = "P:/"\n')
    with pytest.raises(BadKnob, match="which is no pair") as caught:
        prefs.load()
    assert f"path_map from {place}:3" in str(caught.value)


def test_a_facilitys_server_is_named_by_its_line(site, tmp_path):
    place = site('[client]\nserver = "tcp://render01:7700"\n')
    assert serverstart.named_by("", {"GENCOMP_CONFIG": str(place)}) == f"{place}:2"
    assert prefs.all_settled()["client.server"].value == "tcp://render01:7700"


@pytest.mark.parametrize(("lock", "given"), [("", "1800"), ('locked = ["idle_exit_s"]\n', None)])
def test_a_server_that_we_start_keeps_to_a_locked_idle_time(
    site, tmp_path, monkeypatch, lock, given
):
    site(f"{lock}idle_exit_s = 60\n")
    said = tmp_path / "said.json"
    script = tmp_path / "start.py"
    script.write_text(
        "import json, os\n"
        f"with open({str(said)!r}, 'w') as file:\n"
        "    json.dump(os.environ.get('GENCOMP_IDLE_EXIT_S'), file)\n"
    )
    monkeypatch.setenv("GENCOMP_SERVER_COMMAND", f"'{sys.executable}' '{script}'")
    child = serverstart._spawn(prefs.load(), tmp_path / "log", os.environ)
    assert child.wait(30) == 0
    assert json.loads(said.read_text()) == given
