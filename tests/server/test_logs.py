# SPDX-License-Identifier: Apache-2.0
"""Log lines: one per event, the job in each, nothing private, and work that outlives its log."""

import errno
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gencomp_server import logs
from gencomp_server.logs import (
    JSON,
    JobFormatter,
    LogSettings,
    configure,
    job_named,
    lost_lines,
    unwritable_logs,
)

ROOT = Path(__file__).resolve().parents[2]
EVIL = "evil\n2026 INFO forged\x1b[31m\r\x9b\u2028\u202e{}%s"


@pytest.fixture
def logging_of_the_test_run():
    """Put the logging of the test run back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def lines(logging_of_the_test_run):
    """Send the log to a buffer."""
    buffer = io.StringIO()
    configure("info", buffer)
    return lambda: buffer.getvalue().splitlines()


@pytest.fixture
def entries(logging_of_the_test_run):
    """Send the log to a buffer, as JSON."""
    buffer = io.StringIO()
    configure(LogSettings("debug", JSON), buffer)
    return lambda: [json.loads(line) for line in buffer.getvalue().splitlines()]


def fail():
    raise ValueError("inside\n2026 INFO forged")


def test_a_place_that_cannot_take_lines_is_a_mistake_and_not_a_silent_one():
    with pytest.raises(TypeError, match="_put"):
        type("Nowhere", (logs.Sink,), {})()


def test_a_line_carries_the_job_at_hand(lines):
    log = logging.getLogger("here")
    with job_named("3f9a"):
        log.info("read %d frames", 12)
    log.info("idle")
    assert lines()[0].endswith("INFO 3f9a here read 12 frames")
    assert lines()[1].endswith("INFO - here idle")


@pytest.mark.fault("F46")
def test_what_comes_from_outside_can_neither_break_a_line_nor_colour_it(lines):
    logging.getLogger("here").info("client %s", EVIL)
    (line,) = lines()
    shown = "client evil\\n2026 INFO forged\\x1b[31m\\x0d\\x9b\\u2028\\u202e{}%s"
    assert line.endswith(shown)


@pytest.mark.fault("F46")
def test_a_traceback_stands_in_the_line_of_its_event(lines):
    try:
        fail()
    except ValueError:
        logging.getLogger("here").exception("it failed")
    (line,) = lines()
    assert "ERROR - here it failed | Traceback (most recent call last): | " in line
    assert line.endswith(" | ValueError: inside | 2026 INFO forged")


@pytest.mark.fault("F46")
def test_json_is_one_map_a_line_with_everything_escaped(entries, logging_of_the_test_run):
    with job_named("3f9a"):
        logging.getLogger("here").warning("client %s", EVIL)
        try:
            fail()
        except ValueError:
            logging.getLogger("here").exception("it failed")
    first, second = entries()
    assert first["message"] == f"client {EVIL}"
    assert (first["level"], first["job"], first["logger"]) == ("warning", "3f9a", "here")
    assert first["pid"] == os.getpid()
    assert first["time"].endswith("Z")
    assert second["error"].endswith("ValueError: inside\n2026 INFO forged")


def test_no_byte_of_a_json_line_is_anything_but_printable_ascii(logging_of_the_test_run):
    buffer = io.StringIO()
    configure(LogSettings(format=JSON), buffer)
    logging.getLogger("here").info("%s \ud800 é", EVIL)
    assert all(0x20 <= byte < 0x7F for byte in buffer.getvalue().rstrip("\n").encode("ascii"))


def test_less_than_the_level_is_not_written(lines):
    logging.getLogger("here").debug("detail")
    assert lines() == []


def test_a_prompt_is_left_out_of_every_line_above_debug(entries):
    prompt = "a red\ncar"
    with job_named("3f9a", (prompt, "x")):
        logging.getLogger("here").info("refused: %r is no prompt", prompt)
        logging.getLogger("here").error("x %s", prompt)
        logging.getLogger("here").debug("knobs %s", {"prompt": prompt})
    texts = [entry["message"] for entry in entries()]
    assert texts == ["refused: '…' is no prompt", "x …", "knobs {'prompt': 'a red\\ncar'}"]


def test_a_piece_of_a_prompt_that_a_warning_quotes_is_left_out_too(lines):
    prompt = "soft shadow of a boy running over wet cobblestones at night"
    with job_named("3f9a", (prompt,)):
        logging.getLogger("here").warning("not read: '%s'; shorten it", prompt[24:50])
        logging.getLogger("here").warning("stage shadow of 3 s, read at night")
    first, second = lines()
    assert first.endswith("here not read: '…'; shorten it")
    assert second.endswith("stage shadow of 3 s, read at night")


def test_hiding_a_very_long_prompt_takes_no_time(lines):
    began = time.monotonic()
    with job_named("3f9a", ("word " * 50_000,)):
        logging.getLogger("here").warning("x" * 30_000)
    assert time.monotonic() - began < 2.0
    assert len(lines()) == 1


def test_a_line_whose_words_do_not_fit_its_values_is_not_lost():
    record = logging.LogRecord("here", logging.INFO, "", 0, "%d frames", ("many",), None)
    assert JobFormatter("%(message)s").format(record) == "%d frames ('many',)"


@pytest.mark.fault("F46")
def test_a_value_that_cannot_be_spelt_costs_the_line_alone():
    class Mute:
        def __str__(self):
            raise RuntimeError("no words")

    buffer = io.StringIO()
    sink = logs.StreamSink(buffer)
    sink.setFormatter(JobFormatter("%(message)s"))
    for value in (Mute(), "words"):
        sink.emit(logging.LogRecord("here", logging.INFO, "", 0, "%s", (value,), None))
    assert (sink.lost, buffer.getvalue().splitlines()[-1]) == (1, "words")


def test_a_line_is_not_longer_than_anybody_reads(lines):
    logging.getLogger("here").info("%s", "x" * 1_000_000)
    (line,) = lines()
    assert len(line) < 40_000
    assert line.endswith("more characters")


# --- sinks that fail -----------------------------------------------------------------------------


class Full(io.StringIO):
    """A stream that takes nothing for a while."""

    def __init__(self):
        super().__init__()
        self.is_full = True

    def write(self, text):
        if self.is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)


@pytest.mark.fault("F46")
def test_what_a_full_disk_does_not_take_is_counted_and_told_later(logging_of_the_test_run):
    stream = Full()
    configure("info", stream)
    log = logging.getLogger("here")
    for _ in range(3):
        log.info("lost")
    assert lost_lines() == 3
    stream.is_full = False
    log.info("kept")
    told, kept = stream.getvalue().splitlines()
    assert "WARNING - gencomp_server.logs 3 log lines were lost" in told
    assert kept.endswith("here kept")


@pytest.mark.fault("F46")
def test_a_pipe_that_nobody_reads_does_not_hold_anybody_up(logging_of_the_test_run):
    out, into = os.pipe()
    with os.fdopen(out, "rb") as out_file, os.fdopen(into, "w") as stream:
        configure("info", stream)
        written = threading.Thread(target=flood, daemon=True)
        written.start()
        written.join(10)
        assert not written.is_alive()
        lost = lost_lines()
        assert lost > 0
        os.set_blocking(out, False)
        whole = out_file.read().decode().splitlines()
    assert all(line.endswith("x" * 200) for line in whole)
    assert len(whole) + lost == 2000


def flood():
    for _ in range(2000):
        logging.getLogger("here").info("x" * 200)


@pytest.mark.fault("F46")
def test_a_reader_that_is_gone_costs_the_lines_alone(logging_of_the_test_run):
    out, into = os.pipe()
    with os.fdopen(into, "w") as stream:
        configure("info", stream)
        os.close(out)
        logging.getLogger("here").info("to nobody")
        assert lost_lines() == 1


@pytest.mark.fault("F46")
def test_a_log_file_on_a_full_disk_costs_the_lines_alone(logging_of_the_test_run):
    stream = io.StringIO()
    configure(LogSettings(file="/dev/full"), stream)
    logging.getLogger("here").info("said")
    assert stream.getvalue().endswith("here said\n")
    assert lost_lines() == 1


# --- the file ------------------------------------------------------------------------------------


def test_the_file_holds_json_whatever_the_stream_holds_and_is_its_owners(
    tmp_path, logging_of_the_test_run
):
    place = tmp_path / "log" / "server.jsonl"
    configure(LogSettings(file=str(place)), io.StringIO())
    logging.getLogger("here").info("said")
    assert json.loads(place.read_text())["message"] == "said"
    assert place.stat().st_mode & 0o777 == 0o600
    assert place.parent.stat().st_mode & 0o777 == 0o700


def test_a_file_that_cannot_be_written_is_known_with_its_reason(tmp_path, logging_of_the_test_run):
    (tmp_path / "log").write_text("in the way")
    place = tmp_path / "log" / "server.jsonl"
    told = [f"The log file {place} cannot be written ({tmp_path}/log is no folder)."]
    configure(LogSettings(file=str(place)), io.StringIO())
    assert unwritable_logs() == told
    logging.getLogger("here").info("said")
    assert unwritable_logs() == told
    configure(LogSettings(file=str(tmp_path / "good.jsonl")), io.StringIO())
    assert unwritable_logs() == []


def test_the_file_is_kept_within_its_bytes_and_the_newest_lines_stay(
    tmp_path, logging_of_the_test_run
):
    place = tmp_path / "server.jsonl"
    configure(LogSettings(file=str(place), bytes=8000), io.StringIO(), turns=True)
    for n in range(200):
        logging.getLogger("here").info("line %d", n)
    files = [one for one in logs.segments(place) if one.exists()]
    assert len(list(tmp_path.iterdir())) == len(files) == logs.SEGMENTS
    assert sum(one.stat().st_size for one in files) <= 8000 + 4 * 300
    newest = [
        json.loads(line)["message"] for one in files[::-1] for line in one.read_text().splitlines()
    ]
    assert newest == [f"line {n}" for n in range(200 - len(newest), 200)]


def test_another_process_follows_when_a_new_segment_begins(tmp_path, logging_of_the_test_run):
    place = tmp_path / "server.jsonl"
    configure(LogSettings(file=str(place)), io.StringIO())
    logging.getLogger("here").info("before")
    place.rename(tmp_path / "server.jsonl.1")
    logging.getLogger("here").info("after")
    assert json.loads(place.read_text())["message"] == "after"


def test_a_line_that_a_full_disk_cut_off_does_not_swallow_the_next(
    tmp_path, logging_of_the_test_run, monkeypatch
):
    place = tmp_path / "server.jsonl"
    configure(LogSettings(file=str(place)), io.StringIO())
    whole, room = os.write, [10, 0]
    monkeypatch.setattr(os, "write", lambda fd, part: whole(fd, part[: room.pop(0)]))
    logging.getLogger("here").info("cut off")
    monkeypatch.setattr(os, "write", whole)
    logging.getLogger("here").info("whole")
    kept = []
    for line in place.read_text().splitlines():
        try:
            kept.append(json.loads(line)["message"])
        except ValueError:
            continue
    assert kept == ["1 log lines were lost before this one: nothing took them", "whole"]


def test_two_processes_write_into_one_file_line_by_line(tmp_path):
    place = tmp_path / "server.jsonl"
    code = (
        "import sys, logging; from gencomp_server.logs import *\n"
        f"configure(LogSettings(file={str(place)!r}), open('/dev/null', 'w'))\n"
        "for n in range(300): logging.getLogger(sys.argv[1]).info('x' * 500)\n"
    )
    roots = os.pathsep.join(str(ROOT / room) for room in ("protocol", "server"))
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, name], env={**os.environ, "PYTHONPATH": roots}
        )
        for name in ("one", "two")
    ]
    assert [one.wait(60) for one in both] == [0, 0]
    names = [json.loads(line)["logger"] for line in place.read_text().splitlines()]
    assert (names.count("one"), names.count("two")) == (300, 300)
