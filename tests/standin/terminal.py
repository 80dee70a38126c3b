# SPDX-License-Identifier: Apache-2.0
"""Nuke's command line: ``-t script.py ARGS`` runs Python, ``-x script.nk|.py`` renders.

``python tests/standin/terminal.py [-t|-x] [-F RANGE] FILE ARGS``. Folders of ``$NUKE_PATH`` are on
the plug-in path and their ``init.py`` runs; no ``menu.py`` does. ``-x`` renders every Write that is
not disabled. A script that raises ends with 1 and its traceback.
"""

import os
import sys
import traceback
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import standin


def main(words):
    """Run one command line and return its exit code."""
    words, mode, frames = list(words), "-t", None
    while words and words[0].startswith("-"):
        word = words.pop(0)
        if word == "-F":
            frames = [int(part) for part in words.pop(0).split("-")]
        elif word in ("-t", "-x"):
            mode = word
        else:
            raise SystemExit(f"the stand-in knows no {word}")
    app = standin.install(gui=False)
    app.raw_args.extend(words)
    path, arguments = words[0], words[1:]
    try:
        app.start(
            [folder for folder in os.environ.get("NUKE_PATH", "").split(os.pathsep) if folder]
        )
        if path.endswith(".py"):
            app.run_file(path, arguments)
        else:
            app.open(path)
        if mode == "-x":
            first, last = frames or [
                app.root["first_frame"].value(),
                app.root["last_frame"].value(),
            ]
            count = app.render_all(first, last)
            app.printed.append(f"{count} Writes rendered")
    except SystemExit as ended:
        return int(ended.code or 0)
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.write("".join(line + "\n" for line in app.printed))
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
