# SPDX-License-Identifier: Apache-2.0
"""The server's settings: four sources, each over the last, and nothing silently ignored."""

import dataclasses
from pathlib import Path

import pytest

from gencomp_protocol.errors import BadKnob
from gencomp_server import config
from gencomp_server.config import ServerConfig, load_config


@pytest.fixture
def environ(tmp_path):
    return {"GENCOMP_HOME": str(tmp_path)}


def write(folder, text):
    """Write the settings file of a home folder."""
    (folder / "gencomp.toml").write_text(text)


def test_without_anything_the_defaults_hold(environ, tmp_path):
    loaded = load_config(environ=environ)
    assert loaded.config.host == "127.0.0.1"
    assert loaded.config.credit_bytes == 64_000_000
    assert loaded.config.chunk_bytes == 8_388_608
    assert loaded.config.spool == tmp_path / "spool"
    assert loaded.config.state_file == tmp_path / "server.json"
    assert set(loaded.sources.values()) == {"default"}


def test_each_source_stands_over_the_one_before(environ, tmp_path):
    write(tmp_path, "port = 1001\ndrain_s = 5\ndecode_processes = 3\nidle_exit_s = 9\n")
    environ.update(GENCOMP_PORT="1002", GENCOMP_DRAIN_S="6.5")
    loaded = load_config({"port": 1003, "host": None}, environ=environ)
    made = loaded.config
    assert (made.port, made.drain_s, made.decode_processes) == (1003, 6.5, 3)
    assert loaded.sources["port"] == "flag"
    assert loaded.sources["drain_s"] == "GENCOMP_DRAIN_S"
    assert loaded.sources["decode_processes"] == f"{tmp_path / 'gencomp.toml'}:3"
    assert loaded.sources["host"] == "default"


def test_every_setting_has_a_type_that_text_is_read_as():
    assert set(config._KINDS) == {field.name for field in dataclasses.fields(ServerConfig)}


def test_text_is_read_as_what_a_field_is_annotated_with():
    assert config._KINDS["port"] is int
    assert config._KINDS["spool"] is Path
    assert config._KINDS["allowed_licences"] is tuple
    assert set(config._KINDS.values()) <= {int, float, str, bool, Path, tuple}


def test_weights_lie_in_the_home_folder_and_two_licence_classes_are_allowed(environ, tmp_path):
    place = load_config(environ=environ).config.weights_place()
    assert place.folder == tmp_path / "weights"
    assert place.lock_file == tmp_path / "weights.lock"
    assert place.allowed == ("production", "registration needed")


def test_models_that_may_be_used_are_those_of_the_shelf(environ, tmp_path):
    write(tmp_path, 'allowed_models = ["casper"]\n')
    place = load_config(environ=environ).config.weights_place()
    assert place.shelf().models == ("casper",)


def test_licence_classes_are_a_list_in_the_file_and_have_commas_elsewhere(environ, tmp_path):
    write(tmp_path, 'allowed_licences = ["production", "academic"]\n')
    assert load_config(environ=environ).config.allowed_licences == ("production", "academic")
    environ["GENCOMP_ALLOWED_LICENCES"] = "production, registration needed,"
    loaded = load_config(environ=environ).config
    assert loaded.allowed_licences == ("production", "registration needed")
    found = load_config({"allowed_licences": "academic"}, environ=environ).config
    assert found.allowed_licences == ("academic",)


def test_nothing_asks_anybody_and_nothing_segments_until_it_is_set(environ):
    made = load_config(environ=environ).config
    assert (made.allow_network, made.assistant_url, made.segmenter) == (False, "", "")
    assert made.segmenter_tool() is None


@pytest.mark.parametrize(
    ("text", "meant"), [("true", True), ("on", True), ("1", True), ("False", False), ("off", False)]
)
def test_a_switch_is_words_in_the_environment(environ, text, meant):
    environ["GENCOMP_ALLOW_NETWORK"] = text
    assert load_config(environ=environ).config.allow_network is meant


def test_a_segmenter_is_a_command_and_a_time(environ, tmp_path):
    write(tmp_path, 'segmenter = "my-tool {frames} {words} {out}"\nsegmenter_timeout_s = 30\n')
    tool = load_config(environ=environ).config.segmenter_tool()
    assert (tool.name, tool.timeout_s) == ("my-tool", 30.0)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        pytest.param({"allowed_licences": "any"}, "There is no licence class 'any'", id="class"),
        pytest.param({"allowed_licences": 3}, "takes texts with commas between", id="no list"),
        pytest.param({"allowed_models": "caspar"}, "Did you mean 'casper'", id="model"),
        pytest.param({"prot": 1}, "Did you mean 'port'", id="near"),
        pytest.param({"zzz": 1}, "Settings: host, port", id="far"),
        pytest.param({"port": "soon"}, "'port' takes a whole number", id="text"),
        pytest.param({"port": 1.5}, "'port' takes a whole number", id="fraction"),
        pytest.param({"port": True}, "'port' takes a whole number", id="switch"),
        pytest.param({"device": 3}, "'device' takes text", id="number for text"),
        pytest.param({"port": 70000}, "allowed are 0 to 65535", id="range"),
        pytest.param({"chunk_bytes": 2**24}, "chunk_bytes", id="chunk over 8 MiB"),
        pytest.param({"drain_s": float("nan")}, "drain_s", id="not a number"),
        pytest.param({"host": "everywhere"}, "beyond this machine clients need keys", id="host"),
        pytest.param({"allow_network": "maybe"}, "'allow_network' takes on or off", id="no switch"),
        pytest.param({"allow_network": 1}, "'allow_network' takes on or off", id="number"),
        pytest.param({"segmenter": "my-tool {frames}"}, "lacks {words} and {out}", id="places"),
        pytest.param({"segmenter_timeout_s": 0}, "segmenter_timeout_s", id="no time"),
        pytest.param({"log_level": "loud"}, "debug, info, warning, error", id="choice"),
    ],
)
def test_a_setting_that_cannot_be_is_named_with_its_cure(environ, flags, sentence):
    with pytest.raises(BadKnob) as refusal:
        load_config(flags, environ=environ)
    assert sentence in str(refusal.value)


def test_an_unknown_key_in_the_file_is_an_error(environ, tmp_path):
    write(tmp_path, "credit_byte = 1\n")
    with pytest.raises(BadKnob, match="Did you mean 'credit_bytes'"):
        load_config(environ=environ)


def test_a_file_that_is_not_toml_is_an_error(environ, tmp_path):
    write(tmp_path, "port = = 1\n")
    with pytest.raises(BadKnob, match="is not TOML"):
        load_config(environ=environ)


def test_a_file_that_was_named_must_be_there(environ, tmp_path):
    with pytest.raises(BadKnob, match="cannot be read"):
        load_config(environ=environ, file=tmp_path / "none.toml")


def test_variables_of_the_clients_are_not_settings(environ):
    environ["GENCOMP_SERVER"] = "tcp://127.0.0.1:1"
    assert load_config(environ=environ).config == load_config(environ=environ).config


def test_a_tilde_is_the_users_home(environ, monkeypatch):
    monkeypatch.setenv("HOME", "/somebody")
    assert load_config({"spool": "~/spool"}, environ=environ).config.spool == Path(
        "/somebody/spool"
    )


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "cuda:11"])
def test_a_device_is_the_processor_or_a_gpu_by_its_number(environ, device):
    environ["GENCOMP_DEVICE"] = device
    assert load_config(environ=environ).config.device == device


@pytest.mark.parametrize("device", ["gpu", "cuda1", "cuda:", "cuda:-1", "CPU", ""])
def test_a_device_that_cannot_be_is_refused_with_those_that_can(environ, device):
    environ["GENCOMP_DEVICE"] = device
    with pytest.raises(BadKnob, match="'device' cannot be") as refusal:
        load_config(environ=environ)
    assert "cuda:0 for the first GPU" in refusal.value.hint


def test_memory_is_given_back_after_five_minutes_unless_it_is_set(environ):
    assert load_config(environ=environ).config.release_after_s == 300.0
    assert load_config({"release_after_s": 0}, environ=environ).config.release_after_s == 0
    with pytest.raises(BadKnob, match="'release_after_s' is -1"):
        load_config({"release_after_s": -1}, environ=environ)


# --- a facility's files --------------------------------------------------------------------------


@pytest.fixture
def site(environ, tmp_path):
    """Return a function that writes the facility's file and returns where it lies."""

    def write_site(text):
        place = tmp_path / "site.toml"
        place.write_text(text)
        environ["GENCOMP_CONFIG"] = str(place)
        return place

    return write_site


def test_the_user_stands_over_the_facility_and_both_are_remembered(environ, site, tmp_path):
    place = site('device = "cuda:0"\nquota_jobs = 3\nkeep_days = 2\n')
    write(tmp_path, 'keep_days = 9\n[nuke]\ncache_template = "/x"\n[knobs.dynvfx]\nseed = 1\n')
    loaded = load_config(environ=environ)
    assert (loaded.config.device, loaded.config.keep_days) == ("cuda:0", 9.0)
    assert loaded.sources["device"] == f"{place}:1"
    over = loaded.settled["keep_days"].over
    assert [(one.value, str(one.origin)) for one in over] == [(2.0, f"{place}:3")]


@pytest.mark.parametrize("where", ["file", "variable", "flag"])
def test_what_the_facility_locks_is_an_error_wherever_it_is_set(environ, site, tmp_path, where):
    place = site('locked = ["allow_network", "device"]\n')
    flags = {}
    if where == "file":
        write(tmp_path, "\nallow_network = true\n")
    elif where == "variable":
        environ["GENCOMP_ALLOW_NETWORK"] = "on"
    else:
        flags = {"allow_network": True}
    with pytest.raises(BadKnob) as refusal:
        load_config(flags, environ=environ)
    named = {"file": f"{tmp_path}/gencomp.toml:2", "variable": "GENCOMP_ALLOW_NETWORK"}
    assert f"is true in {named.get(where, 'the flag --allow-network')}" in str(refusal.value)
    assert f"{place}:1 locks it at false (by default)" in str(refusal.value)


def test_a_locked_setting_may_be_said_again_as_it_is(environ, site):
    site('locked = ["device", "port"]\ndevice = "cpu"\nport = 70\n')
    environ["GENCOMP_PORT"] = "70"
    assert load_config({"device": "cpu"}, environ=environ).config.port == 70


def test_a_lock_of_what_is_no_setting_names_the_nearest(environ, site):
    site('locked = ["allow_netwerk"]\n')
    with pytest.raises(BadKnob, match="Did you mean 'allow_network'"):
        load_config(environ=environ)


def test_a_server_of_one_run_has_what_that_run_gives_it_whatever_is_locked(environ, site, tmp_path):
    site('locked = ["spool", "host", "port"]\nspool = "/srv/spool"\nport = 7700\n')
    own = {"spool": tmp_path / "own", "port": 0, "host": "127.0.0.1", "state_file": None}
    made = load_config(environ=environ, own=own).config
    assert (made.spool, made.port) == (tmp_path / "own", 0)
    assert made.state_file == tmp_path / "server.json"


def test_a_value_that_cannot_be_is_told_with_where_it_comes_from(environ, site):
    place = site("\nport = 70000\n")
    with pytest.raises(BadKnob, match="'port' is 70000") as refusal:
        load_config(environ=environ)
    assert refusal.value.hint == f"It comes from {place}:2."


def test_bounds_of_a_setting_are_written_out(environ):
    with pytest.raises(BadKnob, match=r"is -1, allowed are 0 to 1000000000\.$"):
        load_config({"idle_exit_s": -1.0}, environ=environ)


def test_a_licence_class_that_there_is_not_is_told_with_where_it_comes_from(environ, site):
    place = site('\nallowed_licences = ["prod"]\n')
    with pytest.raises(BadKnob, match="licence class 'prod'") as refusal:
        load_config(environ=environ)
    assert refusal.value.hint.endswith(f"It comes from {place}:2.")


def test_a_value_of_the_wrong_type_counts_though_another_stands_over_it(environ, site):
    site('port = "soon"\n')
    with pytest.raises(BadKnob, match="'port' takes a whole number") as refusal:
        load_config({"port": 5}, environ=environ)
    assert "site.toml:1" in str(refusal.value)


def test_a_folder_of_the_home_folder_lies_in_the_one_that_is_asked(environ, tmp_path):
    made = load_config(environ=environ).config
    folders = [value for value in vars(made).values() if isinstance(value, Path)]
    assert folders
    assert all(folder.is_relative_to(tmp_path) for folder in folders)
