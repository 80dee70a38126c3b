# SPDX-License-Identifier: Apache-2.0
"""The page of the faults: what makes a row green, and that no row is green for want of tests."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from faults.report import FAIL, PASS, judge, page
from faults.rows import ROWS

TESTS = Path(__file__).resolve().parents[1]
ROW = replace(ROWS[0], proofs=("test_one", "test_two"))


def came(outcome, *, optional=False, reason=""):
    return {
        "rows": [ROW.id],
        "outcome": outcome,
        "seconds": 1.0,
        "day": "2026-01-31",
        "optional": optional,
        "reason": reason,
    }


BOTH = {"a.py::test_one": came(PASS), "a.py::test_two[x]": came(PASS)}


@pytest.mark.parametrize(
    ("tests", "verdict"),
    [
        (BOTH, PASS),
        ({**BOTH, "b.py::test_three": came(FAIL)}, FAIL),
        ({}, "not run: no test is marked"),
        ({"a.py::test_one": came(PASS)}, "not run: test_two did not run"),
        ({**BOTH, "b.py::test_x": came("skip", reason="no Nuke here")}, "not run: no Nuke here"),
        ({**BOTH, "b.py::test_x": came("skip", optional=True)}, PASS),
        (
            {"a.py::test_one": came(PASS), "a.py::test_two": came("skip", reason="no disk")},
            "not run: test_two did not run",
        ),
    ],
)
def test_a_row_is_green_where_all_its_tests_passed_and_its_proofs_ran(tests, verdict):
    assert judge(ROW, tests) == verdict


def test_a_row_begins_with_its_name_and_ends_with_what_it_came_to():
    found = {f"a.py::{proof}": came(PASS) for proof in ROWS[0].proofs}
    lines = page(found).splitlines()
    (first,) = (line for line in lines if line.startswith("| F01 |"))
    (last,) = (line for line in lines if line.startswith("| F46 |"))
    assert first.endswith("| pass |")
    assert last.endswith("| not run: no test is marked |")
    assert sum(bool(re.match(r"\| F\d\d \|", line)) for line in lines) == 46
    assert any("1 of 46 rows pass, 0 fail, 45 did not run" in line for line in lines)


def test_every_row_is_there_once():
    assert [row.id for row in ROWS] == [f"F{number:02d}" for number in range(1, 47)]


def test_every_proof_is_a_test_that_carries_the_mark_of_its_row():
    text = {path: path.read_text(encoding="utf-8") for path in TESTS.rglob("test_*.py")}
    for row in ROWS:
        assert row.proofs, row.id
        for proof in row.proofs:
            name = proof.partition("[")[0]
            homes = [source for source in text.values() if f"def {name}" in source]
            assert homes, f"{row.id}: there is no test {name}"
            assert any(f'"{row.id}"' in source for source in homes), f"{row.id}: {name}"
