# SPDX-License-Identifier: Apache-2.0
"""Settings in layers: which file wins, what a lock keeps, and what every value remembers."""

import os

import pytest

from gencomp_protocol import settings
from gencomp_protocol.errors import BadKnob, Unauthorised
from gencomp_protocol.keys import write_key_file
from gencomp_protocol.locate import find_server
from gencomp_protocol.settings import client_choice, knobs_of, nuke_settings, read_layers


@pytest.fixture
def facility(tmp_path):
    """Return a function that writes the files of site, show and shot, and the user's."""

    def write(*files, users=None):
        places = []
        for at, text in enumerate(files):
            place = tmp_path / f"{('site', 'show', 'shot')[at]}.toml"
            place.write_text(text, encoding="utf-8")
            places.append(place)
        if users is not None:
            (tmp_path / "gencomp.toml").write_text(users, encoding="utf-8")
        return {
            "GENCOMP_HOME": str(tmp_path),
            "GENCOMP_CONFIG": os.pathsep.join(map(str, places)),
        }

    return write


def layers_of(environ, tmp_path):
    """Return the layers of an environment."""
    return read_layers(tmp_path, environ)


def test_a_later_file_wins_and_every_value_remembers_its_line(facility, tmp_path):
    environ = facility(
        '[nuke]\ncache_template = "/site"\nidle_exit_s = 60\n',
        '# show\n\n[nuke]\ncache_template = "/show"\n',
        users='[nuke]\nfarm_roots = "/mnt"\n',
    )
    found = nuke_settings(layers_of(environ, tmp_path))
    template = found[("nuke", "cache_template")]
    assert (template.value, str(template.origin)) == ("/show", f"{tmp_path}/show.toml:4")
    assert [(one.value, str(one.origin)) for one in template.over] == [
        ("/site", f"{tmp_path}/site.toml:2")
    ]
    assert found[("nuke", "idle_exit_s")].value == 60
    assert str(found[("nuke", "farm_roots")].origin) == f"{tmp_path}/gencomp.toml:2"
    assert str(found[("nuke", "path_map")].origin) == "default"


@pytest.mark.parametrize("lock", ["nuke.cache_template", "nuke"])
@pytest.mark.parametrize("where", ["show", "users", "variable"])
def test_what_an_earlier_file_locks_nothing_later_can_set(facility, tmp_path, lock, where):
    site = f'locked = ["{lock}"]\n[nuke]\ncache_template = "/site"\n'
    other = '[nuke]\ncache_template = "/mine"\n'
    environ = facility(
        site, other if where == "show" else "", users=other if where == "users" else ""
    )
    later = ()
    if where == "variable":
        environ["GENCOMP_CACHE_TEMPLATE"] = "/mine"
        later = (settings.from_environ([("nuke", "cache_template")], environ),)
    with pytest.raises(BadKnob) as refusal:
        nuke_settings(layers_of(environ, tmp_path), later)
    place = {"show": f"{tmp_path}/show.toml:2", "users": f"{tmp_path}/gencomp.toml:2"}
    assert place.get(where, "GENCOMP_CACHE_TEMPLATE") in str(refusal.value)
    assert f'{tmp_path}/site.toml:1 locks it at "/site"' in str(refusal.value)
    assert f"{tmp_path}/site.toml:3" in str(refusal.value)


def test_a_lock_holds_what_holds_by_default_and_lets_the_same_value_stand(facility, tmp_path):
    locked = 'locked = ["nuke.idle_exit_s"]\n'
    same = nuke_settings(layers_of(facility(locked, "[nuke]\nidle_exit_s = 1800\n"), tmp_path))
    assert same[("nuke", "idle_exit_s")].value == 1800
    assert str(same[("nuke", "idle_exit_s")].lock) == f"{tmp_path}/site.toml:1"
    with pytest.raises(BadKnob, match=r"locks it at 1800 \(by default\)"):
        nuke_settings(layers_of(facility(locked, "[nuke]\nidle_exit_s = 5\n"), tmp_path))


def test_a_lock_says_nothing_to_the_files_before_it(facility, tmp_path):
    environ = facility("[nuke]\nidle_exit_s = 1\n", 'locked = ["nuke"]\n[nuke]\nidle_exit_s = 2\n')
    assert nuke_settings(layers_of(environ, tmp_path))[("nuke", "idle_exit_s")].value == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[nuke]\nidle_exit = 5", "Did you mean 'nuke.idle_exit_s'"),
        ("[nukes]\nidle_exit_s = 5", "no table 'nukes'"),
        ("[nukes]", "Did you mean 'nuke'"),
        ("nuke = 5", r"write \[nuke\]"),
        ("[knobs]\nguidance = 5", r"\[knobs.overplusplus\]"),
        ('locked = ["nuke.idle"]', "no setting to lock 'nuke.idle'"),
        ("locked = 5", "takes a list of names"),
        ("locked = [5]", "takes a list of names"),
        ("[nuke]\nidle_exit_s = true", "takes a whole number"),
        ("[nuke]\npath_map = 5", "takes text"),
        ("[nuke\n", "is not TOML"),
        ("a = \xff", "is not TOML"),
    ],
)
def test_what_a_file_cannot_say_is_told_with_file_line_and_cure(facility, tmp_path, text, sentence):
    with pytest.raises(BadKnob, match=sentence) as refusal:
        nuke_settings(layers_of(facility(text), tmp_path))
    assert f"{tmp_path}/site.toml" in str(refusal.value)


def test_a_file_that_is_named_must_be_there_unless_it_may_lack(facility, tmp_path):
    environ = facility("[nuke]\nidle_exit_s = 5\n")
    gone = tmp_path / "gone.toml"
    with pytest.raises(BadKnob, match=r"gone\.toml cannot be read") as refusal:
        layers_of({**environ, "GENCOMP_CONFIG": str(gone)}, tmp_path)
    assert f"-{gone}" in refusal.value.hint
    both = f"-{gone}{os.pathsep}{os.pathsep}{environ['GENCOMP_CONFIG']}"
    found = nuke_settings(layers_of({**environ, "GENCOMP_CONFIG": both}, tmp_path))
    assert found[("nuke", "idle_exit_s")].value == 5


def test_a_file_that_may_lack_and_is_there_counts(facility, tmp_path):
    environ = facility('locked = ["nuke"]\n')
    environ["GENCOMP_CONFIG"] = f"-{environ['GENCOMP_CONFIG']}"
    assert nuke_settings(layers_of(environ, tmp_path))[("nuke", "idle_exit_s")].lock is not None


def test_a_file_of_another_kind_is_not_read_whole(facility, tmp_path):
    environ = facility("#" * 300_000)
    with pytest.raises(BadKnob, match="more than 262144 bytes"):
        layers_of(environ, tmp_path)


# --- knobs ---------------------------------------------------------------------------------------


def test_knobs_of_a_system_stand_over_those_of_all_in_one_file_but_not_in_a_later(
    facility, tmp_path
):
    environ = facility(
        '[knobs.overplusplus]\nsteps = 20\nguidance = 4.0\n[knobs."*"]\nsteps = 10\nseed = 7\n',
        '[knobs."*"]\nguidance = 9\n',
    )
    layers = layers_of(environ, tmp_path)
    found = knobs_of("overplusplus", layers)
    assert {name: one.value for name, one in found.items()} == {
        "steps": 20,
        "guidance": 9,
        "seed": 7,
    }
    assert {name: one.value for name, one in knobs_of("dynvfx", layers).items()} == {
        "steps": 10,
        "guidance": 9,
        "seed": 7,
    }
    assert settings.is_for_every_system(layers, found["seed"].origin)
    assert not settings.is_for_every_system(layers, found["steps"].origin)


@pytest.mark.parametrize(
    "lock", ["knobs", "knobs.*", "knobs.dynvfx", "knobs.*.seed", "knobs.dynvfx.seed"]
)
def test_a_locked_knob_is_not_set_again(facility, tmp_path, lock):
    environ = facility(
        f'locked = ["{lock}"]\n[knobs."*"]\nseed = 7\n', "[knobs.dynvfx]\nseed = 8\n"
    )
    layers = layers_of(environ, tmp_path)
    with pytest.raises(BadKnob, match=r"'knobs\.dynvfx\.seed' is 8"):
        knobs_of("dynvfx", layers)
    assert knobs_of("omnimatte", layers)["seed"].value == 7


def test_a_knob_is_no_list(facility, tmp_path):
    layers = layers_of(facility("[knobs.dynvfx]\nseed = [1]\n"), tmp_path)
    with pytest.raises(BadKnob, match="a text, a number or a switch"):
        knobs_of("dynvfx", layers)


# --- which server --------------------------------------------------------------------------------


def test_a_facilitys_server_is_found_and_the_users_file_and_variables_stand_over_it(
    facility, tmp_path
):
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text("word")
    table = f'[client]\nserver = "tcp://127.0.0.1:7"\nsecret_file = "{secret}"\n'
    environ = facility(table)
    found = find_server(environ)
    assert (found.address, found.secret) == ("tcp://127.0.0.1:7", "word")
    environ = facility(table, users='[client]\nserver = "tcp://127.0.0.1:8"\n')
    with pytest.raises(Unauthorised, match=r"127\.0\.0\.1:8 is not known"):
        find_server(environ)  # The secret of another server is not sent to this one.


@pytest.mark.parametrize("where", ["variable", "client.json"])
def test_a_locked_server_is_the_only_one(facility, tmp_path, where):
    environ = facility('locked = ["client"]\n[client]\nserver = "tcp://127.0.0.1:7"\n')
    if where == "variable":
        environ["GENCOMP_SERVER"] = "tcp://127.0.0.1:8"
    else:
        file = tmp_path / "client.json"
        file.touch(mode=0o600)
        file.write_text('{"server": "tcp://127.0.0.1:8"}')
    with pytest.raises(BadKnob, match=r'locks it at "tcp://127\.0\.0\.1:7"'):
        find_server(environ)


def test_a_facilitys_server_is_opened_with_its_key_and_the_users_own(facility, tmp_path):
    own = {"name": "me", "public_key": "a" * 64, "secret_key": "b" * 64}
    write_key_file(tmp_path / "me.key", own)
    table = f'[client]\nserver = "tcp://10.0.0.7:7700"\nserver_key = "{"c" * 64}"\n'
    found = find_server(facility(f'{table}key_file = "{tmp_path}/me.key"\n'))
    assert found.address == "tcp://10.0.0.7:7700"
    assert (found.keys.server, found.keys.public, found.keys.name) == ("c" * 64, "a" * 64, "me")
    with pytest.raises(Unauthorised, match=r"GENCOMP_KEY_FILE"):
        find_server(facility(table))


def test_what_opens_a_server_belongs_to_the_server_that_the_same_file_names(facility, tmp_path):
    one = '[client]\nserver = "tcp://a:1"\nserver_key = "k1"\nkey_file = "mine"\n'
    layers = layers_of(facility(one), tmp_path)
    place = tmp_path / "client.json"
    assert client_choice(layers, {}, place, {})[0] == {
        "server": "tcp://a:1",
        "server_key": "k1",
        "key_file": "mine",
    }
    other = client_choice(layers, {"server": "tcp://b:1", "name": "x"}, place, {})[0]
    assert other == {"server": "tcp://b:1", "key_file": "mine", "name": "x"}
    newer = client_choice(layers, {"server_key": "k2"}, place, {})[0]
    assert (newer["server"], newer["server_key"]) == ("tcp://a:1", "k2")


# --- saying so -----------------------------------------------------------------------------------


def test_what_holds_is_said_with_what_it_stands_over_and_its_lock(facility, tmp_path):
    environ = facility(
        '[nuke]\nfarm_roots = "/a"\n', 'locked = ["nuke.farm_roots"]\n[nuke]\nfarm_roots = "/b"\n'
    )
    lines = settings.explained(nuke_settings(layers_of(environ, tmp_path)))
    at = lines.index(
        f'nuke.farm_roots = "/b"  ({tmp_path}/show.toml:3, locked by {tmp_path}/show.toml:1)'
    )
    assert lines[at + 1] == f'    over "/a"  ({tmp_path}/site.toml:2)'
    assert "nuke.idle_exit_s = 1800  (default)" in lines


def test_lines_of_a_map_in_json_are_told(tmp_path):
    place = tmp_path / "nuke.json"
    place.write_text('{\n "path_map": "{\\"a\\": 1}",\n\n "idle_exit_s"\n: 5 }', encoding="utf-8")
    layer = settings.read_json_layer(place, "nuke")
    assert {key[1]: given.origin.line for key, given in layer.values.items()} == {
        "path_map": 2,
        "idle_exit_s": 4,
    }
    assert layer.values[("nuke", "path_map")].value == '{"a": 1}'


@pytest.mark.parametrize("text", ["{}", '{"path_map": ""}', '{"path_map":"",}'])
def test_a_map_in_json_may_be_empty_and_must_be_whole(tmp_path, text):
    place = tmp_path / "nuke.json"
    place.write_text(text)
    if text.endswith(",}"):
        with pytest.raises(BadKnob, match="cannot be read"):
            settings.read_json_layer(place, "nuke")
    else:
        settings.read_json_layer(place, "nuke")
