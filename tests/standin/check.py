# SPDX-License-Identifier: Apache-2.0
"""Read scripts and gizmos, write them and read them again: is the graph the same?

``python tests/standin/check.py FILE…`` prints ``NAME: ok`` or ``NAME: the reason`` and ends with 1
where one failed. Callbacks in the files are not run.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from standin import graph
from standin.app import App
from standin.tclscript import Reader, ScriptError


def check(path):
    """Return why a file fails, or an empty text."""
    text = Path(path).read_text(encoding="utf-8-sig", errors="replace")
    try:
        first = App(strict=False)
        _build(first, text)
        second = App(strict=False)
        _build(second, graph.dump_script(first))
    except ScriptError as error:
        return str(error)
    if graph.fingerprint(first.root) != graph.fingerprint(second.root):
        return "what was written reads as another graph"
    return ""


def _build(app, text):
    builder = graph.Builder(app, app.root, strict=False)
    Reader(builder).run(text)


def main(paths):
    """Check files and return the exit code."""
    failed = 0
    for path in paths:
        reason = check(path)
        failed += bool(reason)
        sys.stdout.write(f"{Path(path).name}: {reason or 'ok'}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
