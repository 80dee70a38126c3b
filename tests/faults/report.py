# SPDX-License-Identifier: Apache-2.0
"""A pytest plugin that notes how every test with a fault mark went, and writes the page of it.

It is loaded by ``tools/run_faults.py`` alone. What one run found is kept in a JSON file,
so that a run of some rows adds to what another found; the page is made of that file.
"""

import json
import os
import re
import time
from pathlib import Path

from faults import figures
from faults.rows import ROWS

PASS, FAIL = "pass", "fail"
_FOUND = "GENCOMP_FAULTS_FOUND"  # The JSON file.
_ROWS = "GENCOMP_FAULT_ROWS"  # Those to run, with commas between; empty for all.
_OPTIONAL = "optional"
_FIGURES = "figures"


def pytest_collection_modifyitems(config, items):
    """Write the rows of each test into what is reported of it; leave out what was not asked for."""
    asked = set(filter(None, os.environ.get(_ROWS, "").split(",")))
    left = []
    for item in list(items):
        rows = {row for mark in item.iter_markers("fault") for row in mark.args}
        optional = any(mark.kwargs.get(_OPTIONAL) for mark in item.iter_markers("fault"))
        if item.get_closest_marker("fault"):
            item.user_properties += [("fault", sorted(rows)), (_OPTIONAL, optional)]
        if asked and not asked & rows:
            items.remove(item)
            left.append(item)
    config.hook.pytest_deselected(items=left)


class _Notes:
    """What the tests of one run came to, by the test's id."""

    def __init__(self):
        self.tests = {}

    def pytest_runtest_logreport(self, report):
        properties = list(report.user_properties)
        marks = [value for name, value in properties if name == "fault"]
        if not marks:
            return
        rows = [row for value in marks for row in value]
        entry = self.tests.setdefault(
            report.nodeid,
            {"rows": sorted(set(rows)), "outcome": PASS, "seconds": 0.0, "reason": ""},
        )
        entry["optional"] = (_OPTIONAL, True) in properties
        entry["seconds"] = round(entry["seconds"] + report.duration, 2)
        entry[_FIGURES] = [value for name, value in properties if name == figures.FIGURE]
        entry["day"] = time.strftime("%Y-%m-%d", time.gmtime())
        if report.failed:
            entry["outcome"] = FAIL
        elif report.skipped and entry["outcome"] != FAIL:
            entry["outcome"] = "skip"
            entry["reason"] = _reason(report)

    def pytest_sessionfinish(self, session):
        place = Path(os.environ[_FOUND])
        before = json.loads(place.read_text()) if place.is_file() else {}
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps({**before, **self.tests}, indent=1, sort_keys=True))


def pytest_configure(config):
    """Take notes; under xdist, in the process that gathers them."""
    if _FOUND in os.environ and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Notes(), "fault-notes")


def _reason(report):
    """Return why a test was skipped, in one line."""
    told = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return re.sub(r"\s+", " ", told.removeprefix("Skipped: ")).replace("|", "/").strip()


# --- the page ------------------------------------------------------------------------------------


def judge(row, tests):
    """Return what a row came to: ``pass``, ``fail`` or ``not run: reason``.

    Args:
        row: The row.
        tests: What every test of it came to, by the test's id.
    """
    if any(test["outcome"] == FAIL for test in tests.values()):
        return FAIL
    if not tests:
        return "not run: no test is marked"
    missing = [proof for proof in row.proofs if not _ran(proof, tests)]
    if missing:
        return f"not run: {missing[0]} did not run"
    for test in tests.values():
        if test["outcome"] == "skip" and not test["optional"]:
            return f"not run: {test['reason'] or 'skipped'}"
    return PASS


def _ran(proof, tests):
    return any(proof in name and test["outcome"] == PASS for name, test in tests.items())


def page(found, told=""):
    """Return the page, as Markdown.

    Args:
        found: What every test came to, by its id.
        told: A paragraph about the machine.
    """
    of_rows = {
        row: {name: test for name, test in found.items() if row.id in test["rows"]} for row in ROWS
    }
    verdicts = {row: judge(row, tests) for row, tests in of_rows.items()}
    passed = sum(verdict == PASS for verdict in verdicts.values())
    failed = sum(verdict == FAIL for verdict in verdicts.values())
    ran = [test for test in found.values() if test["outcome"] != "skip"]
    days = sorted({test["day"] for test in found.values()})
    lines = [
        "# Reliability",
        "",
        "What `make faults` found: every fault that a server and its clients have to survive, "
        "brought about on purpose. It is generated; how it works and how a test is added says "
        "[decision 0051](../decisions/0051-fault-campaign.md).",
        "",
        f"**{passed} of {len(ROWS)} rows pass, {failed} fail, "
        f"{len(ROWS) - passed - failed} did not run.** {len(ran)} tests in "
        f"{sum(test['seconds'] for test in ran) / 60:.0f} minutes, "
        f"{' to '.join(dict.fromkeys((days[0], days[-1]))) if days else 'never'}. {told}".strip(),
        "",
        _kills(found),
        "",
        _damaged(found),
        "",
        "| row | layer | fault | expected | decided by | tests | seconds | result |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, tests in of_rows.items():
        seconds = sum(test["seconds"] for test in tests.values())
        lines.append(
            f"| {row.id} | {row.layer} | {row.fault} | {row.expected} | {row.oracle} "
            f"| {len(tests)} | {seconds:.1f} | {verdicts[row]} |"
        )
    lines += ["", *_figures(found)]
    lines += ["", "## Tests of each row", ""]
    for row, tests in of_rows.items():
        lines.append(f"- {row.id}: {_by_file(tests) or 'none'}")
    skipped = sorted({test["reason"] for test in found.values() if test["outcome"] == "skip"})
    if skipped:
        lines += ["", "## Left out", "", *(f"- {reason}" for reason in skipped if reason)]
    return "\n".join(lines) + "\n"


def _noted(found):
    """Return every figure with the test that measured it, by figure."""
    noted = [(entry, name) for name, test in found.items() for entry in test.get(_FIGURES, ())]
    return sorted(noted, key=lambda one: (one[0]["figure"], one[1]))


def _values(found, figure):
    return [entry["value"] for entry, _ in _noted(found) if entry["figure"] == figure]


def _kills(found):
    """Say what the campaign of kills came to, over all its seeds."""
    seeds = sum(_values(found, figures.SEEDS))
    if not seeds:
        return "Kills at random: none was run."
    lost, doubled, silent = (
        sum(_values(found, name)) for name in (figures.LOST, figures.DOUBLED, figures.SILENT)
    )
    return (
        f"Kills at random: **{seeds} seeds run, {lost} jobs lost, {doubled} doubled, "
        f"{silent} files or layers silently accepted** that were half or not the right ones."
    )


def _damaged(found):
    """Say what became of damaged files, over all tests that tried some."""
    tried = sum(_values(found, figures.TRIED))
    if not tried:
        return "Damaged files: none was tried."
    refused, decoded, deaths = (
        sum(_values(found, name)) for name in (figures.REFUSED, figures.DECODED, figures.DEATHS)
    )
    most = max(_values(found, figures.MEMORY), default=None)
    memory = "" if most is None else f", most memory of a decoder {_plain(most)} MiB"
    return (
        f"Damaged files: **{tried} tried, {refused} refused, {decoded} decoded** (none of them "
        f"empty), **{deaths} deaths** of a decoder{memory}."
    )


def _figures(found):
    """Return the section of what was measured, as lines."""
    lines = [
        "## Figures",
        "",
        "As measured, to a tenth of a millisecond; a figure beyond its bound is **bold**.",
        "",
        "| figure | value | bound | test |",
        "|---|---|---|---|",
    ]
    for entry, name in _noted(found):
        value = f"{_plain(entry['value'])} {entry['unit']}".strip()
        value = value if figures.is_kept(entry) else f"**{value}**"
        test = name.replace("|", "/")
        lines.append(f"| {entry['figure']} | {value} | {figures.bound_of(entry)} | `{test}` |")
    return lines if len(lines) > 6 else ["## Figures", "", "None was measured."]


def _plain(value):
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def _by_file(tests):
    """Spell how many tests of which file there are."""
    counts = {}
    for name in tests:
        file = name.partition("::")[0]
        counts[file] = counts.get(file, 0) + 1
    return ", ".join(f"`{file}` ({count})" for file, count in sorted(counts.items()))
