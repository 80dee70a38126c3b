# SPDX-License-Identifier: Apache-2.0
"""Log lines: the job in each, and nothing from outside that breaks one."""

import io
import logging

import pytest

from gencomp_server.logs import configure, job_named


@pytest.fixture
def lines():
    """Send the log to a buffer; put the logging of the test run back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    buffer = io.StringIO()
    configure("info", buffer)
    yield lambda: buffer.getvalue().splitlines()
    root.handlers[:], root.level = handlers, level


def test_a_line_carries_the_job_at_hand(lines):
    log = logging.getLogger("here")
    with job_named("3f9a"):
        log.info("read %d frames", 12)
    log.info("idle")
    assert lines()[0].endswith("INFO 3f9a here read 12 frames")
    assert lines()[1].endswith("INFO - here idle")


def test_what_comes_from_outside_can_neither_break_a_line_nor_colour_it(lines):
    logging.getLogger("here").info("client %s", "evil\n2026 INFO forged\x1b[31m\r\x9b")
    (line,) = lines()
    assert line.endswith("client evil\\n2026 INFO forged\\x1b[31m\\x0d\\x9b")


def test_a_traceback_is_kept_below_its_line(lines):
    try:
        raise ValueError("inside")
    except ValueError:
        logging.getLogger("here").exception("it failed")
    assert lines()[0].endswith("ERROR - here it failed")
    assert lines()[-1] == "ValueError: inside"


def test_less_than_the_level_is_not_written(lines):
    logging.getLogger("here").debug("detail")
    assert lines() == []
