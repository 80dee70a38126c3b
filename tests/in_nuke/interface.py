# SPDX-License-Identifier: Apache-2.0
"""What only a Nuke with an interface shows: menus, panel, icons, the way to the main thread.

Run it with *File > Run Script…* in an empty script, gencomp on the plug-in path, no server needed.
Says ``ok`` or ``FAILED`` with a sentence per check in the terminal that Nuke was started from, and
how many failed in a window. Look at the toolbar, too: five icons, sharp on a HiDPI screen.
"""

import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from check import Checks

import nuke

GIZMOS = ("DynVFX", "GenComposite", "Omnimatte", "OverPlusPlus", "SplitThenMerge")
_MOST_MS = 50.0


def check_menus(checks):
    """Check that everything is where an artist looks for it."""
    for name in GIZMOS:
        item = nuke.menu("Nodes").findItem(f"gencomp/{name}")
        checks.that(item is not None, f"{name} is in the toolbar")
    for name in ("Jobs", "Check set-up", "Renew older nodes"):
        item = nuke.menu("Nuke").findItem(f"gencomp/{name}")
        checks.that(item is not None, f"'{name}' is in the menu bar")


def check_icons(checks):
    """Check that Nuke's plug-in path leads to the icons."""
    folders = [Path(folder) for folder in nuke.pluginPath()]
    for name in GIZMOS:
        for file in (f"{name}.png", f"{name}@2x.png"):
            checks.that(any((one / file).is_file() for one in folders), f"there is {file}")


def check_panel(checks):
    """Check that this Nuke's Qt makes the panel, and that showing it does not hold Nuke up."""
    from gencomp_nuke import jobsview, qt

    found = qt.load()
    checks.that(found is not None, f"there is a Qt: {found.name if found else 'none'}")
    widget = jobsview.make()
    view = widget.gencomp_view
    began = time.perf_counter()
    view.refresh()
    took_ms = (time.perf_counter() - began) * 1000
    checks.that(took_ms < _MOST_MS, f"showing what is takes {took_ms:.1f} ms")
    checks.equal(view.table.columnCount(), 6, "the panel has its columns")
    widget.deleteLater()


def check_main_thread(checks, say):
    """Check from another thread that calls reach the main thread; then say how many failed."""
    main = threading.get_ident()

    def reached():
        checks.equal(threading.get_ident(), main, "a call from a thread reaches the main thread")
        say()

    threading.Thread(target=lambda: nuke.executeInMainThread(reached), daemon=True).start()


def run():
    """Run the checks; the last one ends after this returns."""
    checks = Checks()
    nuke.tprint(f"Nuke {nuke.NUKE_VERSION_STRING}, Python {sys.version.split()[0]}")
    check_menus(checks)
    check_icons(checks)
    check_panel(checks)
    check_main_thread(checks, lambda: nuke.message(f"gencomp: {checks.failed} checks failed"))


if __name__ == "__main__":
    run()
