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
