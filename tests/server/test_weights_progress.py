# SPDX-License-Identifier: Apache-2.0
"""How far weights are read: told in whole percents, to whoever listens just now, and once each."""

import pytest

from gencomp_server import weights_progress as reading


@pytest.fixture
def told():
    """Listen; return what was told."""
    heard = []
    with reading.telling(lambda *said: heard.append(said)):
        yield heard


def test_every_percent_is_told_once_and_nothing_between(told):
    with reading.stage("loading weights", 1000):
        for size in (4, 4, 2, 0, 390, 600):
            reading.read(size)
    assert told == [("loading weights", percent, 100) for percent in (0, 1, 40, 100)]


def test_what_is_read_as_part_of_more_is_no_stage_of_its_own(told):
    with reading.stage("loading weights", 40):
        with reading.stage("loading text encoder", 10):
            reading.read(10)
        reading.read(30)
    assert told == [("loading weights", percent, 100) for percent in (0, 25, 100)]


def test_more_than_was_expected_is_never_more_than_all(told):
    with reading.stage("loading weights", 2):
        reading.read(2)
        reading.read(2)
    assert [percent for _, percent, _ in told] == [0, 100]


def test_what_breaks_off_is_not_told_to_be_whole(told):
    def break_off():
        with reading.stage("loading weights", 4):
            reading.read(1)
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        break_off()
    assert [percent for _, percent, _ in told] == [0, 25]
    with reading.stage("loading weights", 4):
        reading.read(4)
    assert [percent for _, percent, _ in told] == [0, 25, 0, 100]


def test_where_nobody_knows_how_much_there_is_nothing_is_told(told):
    with reading.stage("loading weights", 0):
        reading.read(7)
    assert told == []


def test_who_has_stopped_listening_hears_nothing():
    heard = []
    listen, stop = reading.telling(lambda *said: heard.append(said)), reading.telling(None)
    with listen, stop, reading.stage("loading weights", 1):
        reading.read(1)
    with reading.stage("loading weights", 1):
        reading.read(1)
    assert heard == []
