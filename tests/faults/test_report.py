# SPDX-License-Identifier: Apache-2.0
"""The page of the faults: what makes a row green, and that no row is green for want of tests."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from faults.figures import Measured, bound_of
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


# --- figures -------------------------------------------------------------------------------------

_MADE = """
import pytest

@pytest.mark.fault("F27")
@pytest.mark.parametrize("way", ["a|b", "late"])
def test_soon(measured, way):
    measured("cancel p95", 0.31004 if way != "late" else 0.75, "s", most=0.65)

@pytest.mark.fault("F02")
def test_files(measured):
    measured("damaged files tried", 3)

@pytest.mark.fault
def test_of_no_row(measured):
    measured("forwards", 0, most=0)

@pytest.mark.fault("F03")
def test_left_out(measured):
    pytest.skip("not here")

def test_without_a_mark(measured):
    measured("of no fault", 1)
"""


def collect(folder, *rows):
    """Run the tests above with the collector; return what it found, by the test's name."""
    (folder / "test_made.py").write_text(_MADE)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    fault(row): a row\n")
    environ = {
        **os.environ,
        "GENCOMP_FAULTS_FOUND": str(folder / "found.json"),
        "GENCOMP_FAULT_ROWS": ",".join(rows),
        "PYTHONPATH": str(TESTS),
    }
    plugins = ["-p", "faults.report", "-p", "faults.figures", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", *plugins, "test_made.py"]
    subprocess.run(command, cwd=folder, env=environ, check=False, capture_output=True, timeout=60)
    return json.loads((folder / "found.json").read_text())


def test_a_figure_is_kept_with_its_test_and_through_runs_of_other_rows(tmp_path):
    found = collect(tmp_path)
    assert sorted(name.partition("::")[2] for name in found) == [
        *("test_files", "test_left_out", "test_of_no_row"),
        *("test_soon[a|b]", "test_soon[late]"),
    ]
    late = found["test_made.py::test_soon[late]"]
    assert late["outcome"] == FAIL
    assert late["figures"] == [
        {"figure": "cancel p95", "value": 0.75, "unit": "s", "most": 0.65, "least": None}
    ]
    assert found["test_made.py::test_left_out"]["figures"] == []
    assert collect(tmp_path, "F02").items() >= {"test_made.py::test_soon[late]": late}.items()

    (tmp_path / "found.json").unlink()
    assert list(collect(tmp_path, "F02")) == ["test_made.py::test_files"]


def test_the_page_prints_every_figure_as_it_was_measured_and_what_missed_its_bound(tmp_path):
    lines = page(collect(tmp_path)).splitlines()
    about = lines.index("## Figures")
    assert lines[about + 2].startswith("As measured")
    assert lines[about + 6 : about + 11] == [
        "| cancel p95 | 0.3100 s | ≤ 0.65 s | `test_made.py::test_soon[a/b]` |",
        "| cancel p95 | **0.7500 s** | ≤ 0.65 s | `test_made.py::test_soon[late]` |",
        "| damaged files tried | 3 |  | `test_made.py::test_files` |",
        "| forwards | 0 | ≤ 0 | `test_made.py::test_of_no_row` |",
        "",
    ]
    assert "None was measured." in page({})


def test_the_head_adds_up_kills_and_damaged_files_over_the_tests_that_ran():
    def with_figures(**values):
        notes = []
        for figure, value in values.items():
            Measured(notes)(figure.replace("_", " "), value)
        return {**came(PASS), "figures": [entry for _, entry in notes]}

    assert "Kills at random: none was run." in page(BOTH)
    assert "Damaged files: none was tried." in page(BOTH)
    found = {
        "a.py::test_one": with_figures(kill_seeds_run=50, jobs_lost=0, jobs_doubled=1),
        "a.py::test_two": with_figures(kill_seeds_run=50, jobs_lost=2),
        "b.py::test_a": with_figures(damaged_files_tried=60, damaged_files_refused=50),
        "b.py::test_b": with_figures(most_memory_of_a_decoder=81.25, damaged_files_tried=7),
        "b.py::test_c": with_figures(most_memory_of_a_decoder=8, damaged_files_decoded=10),
    }
    head = page(found).partition("| row |")[0]
    assert "**100 seeds run, 2 jobs lost, 1 doubled, 0 files or layers silently" in head
    assert "**67 tried, 50 refused, 10 decoded**" in head
    assert "**0 deaths** of a decoder, most memory of a decoder 81.2500 MiB." in head


@pytest.mark.parametrize(
    ("value", "bounds", "spelt"),
    [
        (0.2, {"most": 0.1}, "≤ 0.1 s"),
        (0.9, {"least": 0.95}, "≥ 0.95 s"),
        (3.2, {"least": 1.0, "most": 3.0}, "≥ 1.0 s, ≤ 3.0 s"),
        (1, {"least": 0, "most": 0}, "0 s"),
        (float("nan"), {"most": 5.0}, "≤ 5.0 s"),
    ],
)
def test_a_figure_beyond_its_bound_fails_its_test_and_is_noted_first(value, bounds, spelt):
    notes = []
    with pytest.raises(AssertionError, match="how long"):
        Measured(notes)("how long", value, "s", **bounds)
    assert bound_of(notes[0][1]) == spelt
