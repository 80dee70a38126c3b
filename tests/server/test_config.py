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
    assert loaded.sources["decode_processes"] == str(tmp_path / "gencomp.toml")
    assert loaded.sources["host"] == "default"


def test_every_setting_has_a_type_that_text_is_read_as():
    assert set(config._KINDS) == {field.name for field in dataclasses.fields(ServerConfig)}


def test_weights_lie_in_the_home_folder_and_two_licence_classes_are_allowed(environ, tmp_path):
    place = load_config(environ=environ).config.weights_place()
    assert place.folder == tmp_path / "weights"
    assert place.lock_file == tmp_path / "weights.lock"
    assert place.allowed == ("production", "registration needed")


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
        pytest.param({"prot": 1}, "Did you mean 'port'", id="near"),
        pytest.param({"zzz": 1}, "Settings: host, port", id="far"),
        pytest.param({"port": "soon"}, "'port' takes a whole number", id="text"),
        pytest.param({"port": 1.5}, "'port' takes a whole number", id="fraction"),
        pytest.param({"port": True}, "'port' takes a whole number", id="switch"),
        pytest.param({"device": 3}, "'device' takes text", id="number for text"),
        pytest.param({"port": 70000}, "allowed are 0 to 65535", id="range"),
        pytest.param({"chunk_bytes": 2**24}, "chunk_bytes", id="chunk over 8 MiB"),
        pytest.param({"drain_s": float("nan")}, "drain_s", id="not a number"),
        pytest.param({"host": "0.0.0.0"}, "loopback only", id="all interfaces"),
        pytest.param({"host": "10.0.0.7"}, "SSH tunnel", id="another machine"),
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
