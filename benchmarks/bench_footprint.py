# SPDX-License-Identifier: Apache-2.0
"""Peak memory and time of a command with everything it starts.

    python benchmarks/bench_footprint.py --json out.json -- gencomp run omnimatte ...

Memory is the sum of the proportional set sizes (PSS) of the process tree: a page that several
processes share counts once. It is sampled, so a peak shorter than the interval can be missed.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil


def tree_pss_bytes(root: psutil.Process) -> int:
    """Return the PSS of a process and all its descendants, in bytes."""
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--interval-s", type=float, default=0.25)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    command = [word for word in given.command if word != "--"]
    if not command:
        parser.error("name the command to measure, after --")
    started, peak = time.monotonic(), 0
    process = subprocess.Popen(command)
    root = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            peak = max(peak, tree_pss_bytes(root))
        except psutil.NoSuchProcess:
            break
        time.sleep(given.interval_s)
    figures = {
        "peak_pss_gb": round(peak / 1e9, 3),
        "wall_s": round(time.monotonic() - started, 1),
        "exit_code": process.wait(),
    }
    print(json.dumps(figures))
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return process.returncode


if __name__ == "__main__":
    sys.exit(main())
