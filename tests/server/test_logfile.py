# SPDX-License-Identifier: Apache-2.0
"""The log read back: the last lines, those of a job, past whatever is damaged."""

import json

from gencomp_server.logfile import last_lines


def write(path, *messages, **more):
    with open(path, "a", encoding="ascii") as file:
        for text in messages:
            file.write(json.dumps({"message": text, "level": "info", "job": None, **more}) + "\n")


def texts(found):
    return [entry["message"] for entry in found]


def test_the_last_lines_come_oldest_first_across_segments(tmp_path):
    place = tmp_path / "server.jsonl"
    write(tmp_path / "server.jsonl.1", "a", "b")
    write(place, "c", "d")
    assert texts(last_lines(place, 3)) == ["b", "c", "d"]


def test_the_lines_of_a_job_and_of_a_level_are_found_among_others(tmp_path):
    place = tmp_path / "server.jsonl"
    write(place, "a", job="3f9a")
    write(place, "b")
    write(place, "c", job="3f9a", level="error")
    assert texts(last_lines(place, 9, job="3f9a")) == ["a", "c"]
    assert texts(last_lines(place, 9, level="warning")) == ["c"]


def test_a_damaged_line_is_passed_over(tmp_path):
    place = tmp_path / "server.jsonl"
    write(place, "a")
    with open(place, "ab") as file:
        file.write(b'{"message": "cut o\n\xff\xfe\n[1]\n{"message": 7}\n\n')
    write(place, "b")
    assert texts(last_lines(place, 9)) == ["a", "b"]


def test_a_line_longer_than_a_block_is_read_whole(tmp_path):
    place = tmp_path / "server.jsonl"
    write(place, "x" * 200_000, "b")
    assert [len(text) for text in texts(last_lines(place, 9))] == [200_000, 1]


def test_no_more_is_read_than_allowed(tmp_path):
    place = tmp_path / "server.jsonl"
    write(place, *map(str, range(1000)))
    found = texts(last_lines(place, 10_000, most_bytes=2000))
    assert 10 < len(found) < 50
    assert found[-1] == "999"


def test_where_there_is_no_file_there_are_no_lines(tmp_path):
    assert last_lines(tmp_path / "none", 9) == []
