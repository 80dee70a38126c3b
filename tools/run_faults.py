# SPDX-License-Identifier: Apache-2.0
"""Bring about every fault of the table and write what was found into docs/td/reliability.md.

``make faults`` runs all of it, the slow tests and the soak included: about an hour on two cores.
``tools/run_faults.py F19 F20`` runs those rows and keeps what was found of the others; so does
``--page``, which runs none. The exit code is 0 where every row passes.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOUND = ROOT / "build" / "faults.json"
PAGE = ROOT / "docs" / "td" / "reliability.md"
_NEVER = "gpu or weights or nuke"

sys.path.insert(0, str(ROOT / "tests"))


def main() -> int:
    """Run the tests and write the page; return the exit code."""
    from faults.report import PASS, judge, page
    from faults.rows import ROWS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help="rows to run, such as F19; all where none is named")
    parser.add_argument("--page", action="store_true", help="run nothing, write the page")
    parser.add_argument("--tests", nargs="*", default=["tests"], help="where to look for tests")
    parser.add_argument("--quick", action="store_true", help="leave slow tests and the soak out")
    asked = parser.parse_args()
    unknown = set(asked.rows) - {row.id for row in ROWS}
    if unknown:
        parser.error(f"There is no row {', '.join(sorted(unknown))}.")
    if not asked.page:
        if not asked.rows and asked.tests == ["tests"]:
            FOUND.unlink(missing_ok=True)
        run(asked.rows, asked.tests, asked.quick)
    found = json.loads(FOUND.read_text()) if FOUND.is_file() else {}
    PAGE.write_text(page(found, _machine()), encoding="utf-8")
    verdicts = {
        row.id: judge(row, {name: test for name, test in found.items() if row.id in test["rows"]})
        for row in ROWS
    }
    for row, verdict in verdicts.items():
        if verdict != PASS:
            print(f"{row}  {verdict}")
    print(f"{sum(v == PASS for v in verdicts.values())} of {len(ROWS)} rows pass; see {PAGE}")
    return int(any(verdict != PASS for verdict in verdicts.values()))


def run(rows: "list[str]", tests: "list[str]", quick: bool) -> None:
    """Run the marked tests, one after the other: some measure time."""
    never = f"{_NEVER} or slow or soak" if quick else _NEVER
    environ = {
        **os.environ,
        "GENCOMP_FAULTS_FOUND": str(FOUND),
        "GENCOMP_FAULT_ROWS": ",".join(rows),
    }
    paths = ["tests", "protocol", "nuke_plugin", "server"]
    environ["PYTHONPATH"] = os.pathsep.join(str(ROOT / path) for path in paths)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "faults.report"]
    command += ["-m", f"fault and not ({never})", *tests]
    subprocess.run(command, cwd=ROOT, env=environ, check=False)


def _machine() -> str:
    return f"{os.cpu_count()} cores, Python {sys.version_info.major}.{sys.version_info.minor}."


if __name__ == "__main__":
    sys.exit(main())
