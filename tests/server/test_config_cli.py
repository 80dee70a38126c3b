# SPDX-License-Identifier: Apache-2.0
"""``gencomp config explain``, and knobs that a settings file gives a value."""

import json
import os

import pytest

from gencomp_protocol.errors import BadKnob
from gencomp_protocol.settings import read_layers
from gencomp_server import knob_defaults
from gencomp_server.cli import main
from gencomp_server.contract import schema
from gencomp_server.systems import REGISTRY

SCHEMAS = [schema(system) for system in REGISTRY]
OVER = next(one for one in SCHEMAS if one["name"] == "overplusplus")


@pytest.fixture
def facility(tmp_path, monkeypatch):
    """Return a function that writes site, show and the user's file; all variables are gone."""
    for name in [name for name in os.environ if name.startswith("GENCOMP_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("GENCOMP_HOME", str(home))

    def write(site="", show="", users=""):
        (tmp_path / "site.toml").write_text(site)
        (tmp_path / "show.toml").write_text(show)
        (home / "gencomp.toml").write_text(users)
        files = (tmp_path / "site.toml", tmp_path / "show.toml")
        monkeypatch.setenv("GENCOMP_CONFIG", os.pathsep.join(map(str, files)))

    return write


SITE = """locked = ["allow_network", "client"]
device = "cuda:0"

[client]
server = "tcp://render01:7700"

[knobs.overplusplus]
guidance = 4.5
"""


def test_every_setting_is_said_with_its_line_what_it_stands_over_and_its_lock(
    facility, tmp_path, capsys, monkeypatch
):
    facility(SITE, 'device = "cuda:1"\n', "[nuke]\nidle_exit_s = 60\n")
    monkeypatch.setenv("GENCOMP_PORT", "7700")
    assert main(["config", "explain"]) == 0
    lines = capsys.readouterr().out.splitlines()
    site, show, home = tmp_path / "site.toml", tmp_path / "show.toml", tmp_path / "home"
    assert lines[0].startswith(f"Files, each over those before it: {site}, {show}, {home}/gencomp")
    assert f"{home}/nuke.json (not there)" in lines[0]
    at = lines.index(f'device = "cuda:1"  ({show}:1)')
    assert lines[at + 1] == f'    over "cuda:0"  ({site}:2)'
    for line in (
        f"allow_network = false  (default, locked by {site}:1)",
        f'client.server = "tcp://render01:7700"  ({site}:5, locked by {site}:1)',
        f"knobs.overplusplus.guidance = 4.5  ({site}:8)",
        f"nuke.idle_exit_s = 60  ({home}/gencomp.toml:2)",
        "port = 7700  (GENCOMP_PORT)",
        "keep_days = 7  (default)",
    ):
        assert line in lines


def test_the_users_files_in_json_count_and_keys_in_them_are_not_shown(facility, tmp_path, capsys):
    facility()
    home = tmp_path / "home"
    (home / "nuke.json").write_text('{\n"farm_roots": "/mnt"}')
    (home / "client.json").write_text('{"secret_key": "dont", "server": "tcp://a:1"}')
    assert main(["config", "explain"]) == 0
    said = capsys.readouterr().out
    assert f'nuke.farm_roots = "/mnt"  ({home}/nuke.json:2)' in said
    assert f'client.server = "tcp://a:1"  ({home}/client.json:1)' in said
    assert "dont" not in said


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("device", ["device"]),
        ("client.server", ["client.server"]),
        ("knobs.overplusplus", ["knobs.overplusplus.guidance"]),
        ("knobs.dynvfx", []),
    ],
)
def test_one_setting_or_one_table_is_told_to_a_program(facility, tmp_path, capsys, key, found):
    facility(SITE, 'device = "cuda:1"\n')
    assert main(["config", "explain", key, "--json"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert [one["key"] for one in plain] == found
    if key == "device":
        assert plain[0] == {
            "key": "device",
            "value": "cuda:1",
            "source": str(tmp_path / "show.toml"),
            "line": 1,
            "locked_by": None,
            "over": [{"value": "cuda:0", "source": f"{tmp_path / 'site.toml'}:2"}],
        }


@pytest.mark.parametrize(
    ("words", "users", "said"),
    [
        (("devise",), "", "There is no setting 'devise'. Did you mean 'device'?"),
        ((), "allow_network = true", "but {site}:1 locks it at false (by default)"),
        ((), "[knobs.overplusplus]\ngidance = 3", "Did you mean 'guidance'?"),
        ((), "[knobs.overplus]\nguidance = 3", "Did you mean 'overplusplus'?"),
        ((), '[knobs."*"]\ngidance = 3', "Did you mean 'guidance'?"),
        ((), "[nuke]\nfarm_root = 3", "Did you mean 'nuke.farm_roots'?"),
        ((), 'locked = ["knobs.overplus"]', "Did you mean 'overplusplus'?"),
        ((), 'locked = ["knobs.overplusplus.gidance"]', "Did you mean 'guidance'?"),
        ((), 'locked = ["knobs.*.gidance"]', "Did you mean 'guidance'?"),
        ((), 'locked = ["nuke.farm_root"]', "Did you mean 'nuke.farm_roots'?"),
        ((), 'locked = ["nukes"]', "There is no setting to lock 'nukes'"),
    ],
)
def test_what_cannot_be_explained_is_an_error_with_exit_code_2(
    facility, tmp_path, capsys, words, users, said
):
    facility(SITE, users=users)
    assert main(["config", "explain", *words]) == 2
    assert said.format(site=tmp_path / "site.toml") in capsys.readouterr().err


# --- knobs ---------------------------------------------------------------------------------------


def test_a_knob_that_a_job_does_not_name_has_the_facilitys_value_and_it_is_said(facility, tmp_path):
    facility('[knobs."*"]\nseed = 5\nsubject = "a"\n[knobs.overplusplus]\nguidance = 4.5\n')
    layers = read_layers(tmp_path / "home", os.environ)
    values, notes = knob_defaults.defaults_for(OVER, layers, {"seed": "9"})
    assert values == {"guidance": 4.5}
    assert notes == (f"Knob guidance = 4.5, the default of {tmp_path / 'site.toml'}:5.",)


def test_a_knob_of_one_system_that_it_has_not_is_an_error_with_its_line(facility, tmp_path):
    facility("[knobs.overplusplus]\nguidanc = 4.5\n")
    layers = read_layers(tmp_path / "home", os.environ)
    with pytest.raises(BadKnob, match=r"site\.toml:2\)\. Did you mean 'guidance'"):
        knob_defaults.defaults_for(OVER, layers, {})


def test_a_run_asks_with_the_facilitys_knobs_and_with_its_own_where_it_has_some(
    facility, tmp_path, monkeypatch
):
    import argparse

    from gencomp_server import cli, sources

    facility("[knobs.overplusplus]\nguidance = 4.5\nsteps = 9\n")
    monkeypatch.setattr(
        sources, "gather", lambda *_: sources.Gathered(cli.FrameRange(1, 1), (), ("other",))
    )
    args = argparse.Namespace(
        system="overplusplus",
        input=[],
        frames=None,
        knobs=["steps=3"],
        colourspace=[],
        working_space="scene_linear",
        ocio="",
        show="",
        shot="",
        priority=0,
    )
    asked = cli._Asked(args)
    gathered = asked.gather(SCHEMAS)
    assert asked.order(gathered).request.knobs == {"steps": "3", "guidance": 4.5}
    assert gathered.notes[0].startswith("Knob guidance = 4.5, the default of ")
    assert gathered.notes[1:] == ("other",)
