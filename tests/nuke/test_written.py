# SPDX-License-Identifier: Apache-2.0
"""What the Nuke room writes into gencomp's home folder is in the table of places."""

import os
import sys
from pathlib import Path

import pytest

from gencomp_nuke import caches, drawing, knobfiles, logs, picturing, prefs, serverstart

if sys.version_info < (3, 10):
    pytest.skip("the server room needs Python 3.10", allow_module_level=True)

from gencomp_server.writes import Kind, places

ROOM = Path(prefs.__file__).resolve().parent


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (logs.log_file().name, Kind.STATE),
        (f"{logs.log_file().name}.2", Kind.STATE),
        (serverstart.LOG_FILE, Kind.STATE),
        (serverstart.LOCK_FILE, Kind.STATE),
        (f"{drawing.FOLDER}/a.png", Kind.STATE),
        (f"{picturing.FOLDER}/a_sheet.png", Kind.STATE),
        (knobfiles.USERS, Kind.RESULTS),
        ("unsaved/a1/v001", Kind.RESULTS),
        (prefs.SETTINGS_FILE, Kind.LEFT),
    ],
)
def test_it_is_there_with_what_becomes_of_it(home, name, kind):
    assert [one.kind for one in places(os.environ) if one.holds(home / name)] == [kind]


def test_those_are_all_the_modules_that_know_the_home_folder(home):
    known = {
        path.name
        for path in ROOM.glob("*.py")
        if "home_folder(" in path.read_text(encoding="utf-8")
    }
    reading = {"checking.py", "prefs.py"}  # They write nothing there.
    modules = (caches, drawing, knobfiles, picturing, serverstart)
    assert known == reading | {Path(one.__file__).name for one in modules}
    assert caches.unsaved_folder(prefs.load()) == home / "unsaved"
