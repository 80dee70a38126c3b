# SPDX-License-Identifier: Apache-2.0
"""Read scripts and gizmos, write them and read them again: is the graph the same?

``python tests/standin/check.py FILE…`` prints ``NAME: ok`` or ``NAME: the reason`` and ends with 1
where one failed. Callbacks in the files are not run, and nothing in them is executed. Each file is
read in a process of its own, with a limit on its time and memory, where the system can fork.
Classes and knobs that the stand-in does not know are no failure here.
"""

import os
import signal
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from standin import graph
from standin.app import BUILTIN_LAYERS, App
from standin.tclscript import ScriptError, decode

MOST_SECONDS = 120
MOST_BYTES = 4 * 2**30


def check(path):
    """Return why a file fails, or an empty text."""
    try:
        text = decode(Path(path).read_bytes())
        first, second = App(strict=False), App(strict=False)
        made = graph.build(first, text, first.root, strict=False)
        said = (first.notes, graph.fingerprint_script(first)[1], first.layers != BUILTIN_LAYERS)
        if not made and not any(said):
            return "there is no node in it"
        graph.build(second, graph.dump_script(first), second.root, strict=False)
        same = graph.fingerprint_script(first) == graph.fingerprint_script(second)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ScriptError as error:
        return " ".join(str(error).split())
    except MemoryError:
        return "needs more memory than it may have"
    return "" if same else "what was written reads as another graph"


def check_apart(path):
    """Return why a file fails, from a process of its own that may be stopped or die."""
    if not hasattr(os, "fork"):
        return check(path)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _limit()
        try:
            said = check(path)
        except Exception as error:  # The process ends here: the parent is told why.
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode("utf-8", "replace")[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        said = answers.read().decode("utf-8", "replace")
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        late = os.WTERMSIG(status) in (signal.SIGALRM, signal.SIGXCPU)
        return (
            f"takes longer than {MOST_SECONDS} s"
            if late
            else "stops the reader: too deep or too much"
        )
    return said


def _limit():
    """Bound this process: seconds and bytes."""
    import resource

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(MOST_SECONDS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))


def main(paths):
    """Check files and return the exit code."""
    failed = 0
    for path in paths:
        reason = check_apart(path)
        failed += bool(reason)
        sys.stdout.write(f"{Path(path).name}: {reason or 'ok'}\n")
        sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
