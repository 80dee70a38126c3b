# SPDX-License-Identifier: Apache-2.0
"""Settings of a user: file, environment, defaults."""

import pytest

from gencomp_nuke import prefs
from gencomp_protocol.errors import BadKnob


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
        ("[]", "are not a map"),
        ("{", "cannot be read"),
    ],
)
def test_a_wrong_setting_is_named(home, text, sentence):
    write(home, text)
    with pytest.raises(BadKnob) as caught:
        prefs.load()
    assert sentence in str(caught.value)
