# SPDX-License-Identifier: Apache-2.0
"""Time as the process lived it: no gap drops anybody, and the wall clock has no say."""

import ast
from pathlib import Path

import pytest

from gencomp_server.steady import LONGEST_S, SteadyClock

ROOT = Path(__file__).parents[2]
ROOMS = ("protocol/gencomp_protocol", "nuke_plugin/gencomp_nuke", "server/gencomp_server")

# Who may ask what time of day it is, and what for. Nobody times anything by it.
WALL_CLOCK = {
    "nuke_plugin/gencomp_nuke/pending.py": "how old a file is",
    "server/gencomp_server/datekeeper.py": "whether it can be believed",
    "server/gencomp_server/engine/jobtable.py": "when a job was submitted, started, ended",
    "server/gencomp_server/keys.py": "when a key was let in",
    "server/gencomp_server/storeroom.py": "how many days an ended job is kept, unless it jumped",
    "server/gencomp_server/vitals.py": "what the page shows",
    "server/gencomp_server/web/metrics.py": "what the page shows",
    "server/gencomp_server/web/serving.py": "what the page shows",
}


@pytest.fixture
def now():
    return [1000.0]


@pytest.fixture
def clock(now):
    return SteadyClock(lambda: now[0])


@pytest.mark.fault("F42")
def test_while_the_process_runs_it_is_the_clock_beneath(clock, now):
    for _ in range(100):
        before = clock()
        now[0] += 0.25
        assert clock() - before == 0.25


@pytest.mark.fault("F42")
@pytest.mark.parametrize("gap_s", [6.0, 3600.0, 86400.0 * 3])
def test_a_time_in_which_the_process_did_not_run_counts_as_a_few_seconds(clock, now, gap_s):
    before = clock()
    now[0] += gap_s
    assert clock() - before == LONGEST_S
    now[0] += 1.0
    assert clock() - before == LONGEST_S + 1.0


@pytest.mark.fault("F42")
def test_it_never_goes_back(clock, now):
    before = clock()
    now[0] -= 3600.0
    assert clock() == before
    now[0] += 3600.5
    assert clock() == before + 0.5


@pytest.mark.fault("F42")
def test_nobody_times_anything_by_the_time_of_day():
    found = set()
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            place = path.relative_to(ROOT).as_posix()
            text = path.read_text("utf-8")
            if any(word in text for word in ("time.time", "datetime.now", "date.today")):
                found |= {place for _ in _asks_time_of_day(ast.parse(text))}
    assert found - set(WALL_CLOCK) == set()


def _asks_time_of_day(tree):
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
            continue
        asked = (node.value.id, node.attr)
        if asked in {("time", "time"), ("time", "time_ns"), ("datetime", "now"), ("date", "today")}:
            yield node
