# SPDX-License-Identifier: Apache-2.0
"""Nuke's command line: ``-t script.py ARGS`` runs Python, ``-x script.nk|.py`` renders.

``python tests/standin/terminal.py OPTIONS FILE ARGS``. Folders of ``$NUKE_PATH`` are on the plug-in
path and their ``init.py`` runs; no ``menu.py`` does. ``-x`` renders every Write that is not
disabled, or those of ``-X A,B``, in the ranges of ``-F 1-10x2``, which may come several times. As
Nuke, ``-t`` takes a last argument that looks like a range of frames for one and does not hand it
on. Exit codes: what ``sys.exit`` says; 1 for an exception, a frame that failed, a file that is not
there or an option that is unknown; 0 otherwise.
"""

import os
import re
import sys
import traceback
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import standin
from standin.formats import FrameRange

_RANGE = re.compile(r"-?\d+(?:[-,]-?\d+)*(?:x\d+)?\Z")
_ALONE = ("--gpu", "-q", "-i", "-f", "--sro", "--safe", "-nx", "--nukex")
_WITH_WORD = ("-m", "-V", "-c", "--view", "-remap", "--remap")


class _Line:
    """What a command line says."""

    def __init__(self, words):
        words = list(words)
        self.mode, self.ranges, self.writes, self.goes_on = "-t", [], [], False
        self.views, self.is_proxy, self.raw = [], False, list(words)
        while words and words[0].startswith("-"):
            self._option(words.pop(0), words)
        if not words:
            raise ValueError("no file is named")
        self.path, self.arguments = words[0], words[1:]
        last = self.arguments[-1:]
        if self.mode == "-t" and last and _RANGE.match(last[0]):
            self.ranges.append(FrameRange(self.arguments.pop().replace(",", "-")))

    def _option(self, word, words):
        if word in ("-t", "-x", "-ti"):
            self.mode = word[:2]
        elif word == "-F":
            self.ranges.append(FrameRange(words.pop(0).replace(",", "-")))
        elif word == "-X":
            self.writes += words.pop(0).split(",")
        elif word == "--cont":
            self.goes_on = True
        elif word == "-p":
            self.is_proxy = True
        elif word == "--view":
            self.views = words.pop(0).split(",")
        elif word in _WITH_WORD:
            words.pop(0)
        elif word not in _ALONE:
            raise ValueError(f"the stand-in knows no {word}")


def main(words):
    """Run one command line and return its exit code."""
    try:
        line = _Line(words)
    except (ValueError, RuntimeError, IndexError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    app = standin.install(gui=False)
    app.raw_args.extend(line.raw)
    folders = [folder for folder in os.environ.get("NUKE_PATH", "").split(os.pathsep) if folder]
    try:
        app.start(folders)
        _run(app, line)
    except SystemExit as ended:
        return _code(ended)
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.write("".join(text + "\n" for text in app.printed))
        sys.stdout.flush()
    return 0


def _run(app, line):
    if line.path.endswith(".py"):
        app.run_file(line.path, line.arguments)
    else:
        app.open(line.path)
        _call_as(app, os.environ.get("GENCOMP_TEST_SCRIPT_NAME"))
    if line.mode != "-x":
        return
    app.root["proxy"].setValue(line.is_proxy)
    root = app.root
    ranges = line.ranges or [FrameRange(root["first_frame"].value(), root["last_frame"].value())]
    counts = [
        app.render_all(r.first(), r.last(), r.increment(), line.writes, line.goes_on)
        for r in ranges
    ]
    app.printed.append(f"{counts[0]} Writes rendered")


def _call_as(app, name):
    """Give a copy that a background rendering saved the name of its original."""
    if name:
        app.root._knobs["name"]._raw = name


def _code(ended):
    """Return the exit code that ``sys.exit`` asked for."""
    if ended.code is None or isinstance(ended.code, int):
        return ended.code or 0
    sys.stderr.write(f"{ended.code}\n")
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
