# SPDX-License-Identifier: Apache-2.0
"""The result in a cache that was made from exactly what a node is now, whichever process made it.

Its key covers the requests and every picture of the inputs that would be sent, by what that is
made from (``fingerprint.py``): nothing is rendered to know it. It stands in the manifest of a
result that was made without an interface. Main thread only.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

import nuke
from gencomp_nuke import jobs, madefrom, node, readback, stock
from gencomp_nuke.fingerprint import Prints
from gencomp_nuke.runs import Run
from gencomp_protocol.codec import digest_of, request_to_plain
from gencomp_protocol.errors import MissingFrame
from gencomp_protocol.request import Request

KEY = "exactly"


def key_of(run: Run) -> str:
    """Return the key of what a run would make now: 64 hex digits."""
    requests = [[part.place, _plain(part.request)] for part in run.parts]
    merge = "" if run.merge is None else run.merge.as_posix()
    with node.full_resolution():
        pictures = {view: _pictures(run, view) for view in _views(run)}
    return digest_of([requests, pictures, merge])


def find(run: Run) -> Optional[Path]:
    """Return the folder of a whole result of a run's key, as a node plays it; or None.

    What the node plays is taken first, so that nothing changes where nothing has to, then the
    newest.
    """
    played = readback.played(run.gizmo)
    versions = [] if played is None else [played]
    versions += [_as_played(folder, run) for folder in reversed(jobs.whole(run.cache))]
    return next((folder for folder in versions if _is_it(folder, run)), None)


def is_up_to_date(gizmo: Any) -> bool:
    """Tell whether a node plays a whole result that is not out of date, as far as its knobs know.

    That is how a result is known that was made with an interface, which has no key.
    """
    folder = readback.played(gizmo)
    if folder is None or madefrom.KEY not in gizmo.knobs() or not gizmo[madefrom.KEY].value():
        return False
    return not stock.lacks(gizmo) and not madefrom.changed(gizmo)


def play(gizmo: Any, folder: Path) -> None:
    """Let a node play a result that was made from what the node is now.

    Raises:
        MissingFrame: It is not there any more.
    """
    result = readback.kept(folder)
    if result is None:
        raise MissingFrame(f"There is no result in {folder}.", hint="Generate it again.")
    readback.show(gizmo, result)


def is_whole(version: Path, run: Run) -> bool:
    """Tell whether a version holds a result, of whatever, with every frame in every view."""
    folder = _as_played(version, run)
    return not any(stock.missing_in(jobs.in_view(folder, view)) for view in _views(run))


def _as_played(version: Path, run: Run) -> Path:
    first = run.parts[0]
    return version / first.subfolder / (jobs.ANY_VIEW if first.view else "")


def _is_it(folder: Path, run: Run) -> bool:
    """Tell whether a folder holds the whole result of a run's key, in every view."""
    places = [jobs.in_view(folder, view) for view in _views(run)]
    return all(_key_in(place) == run.key and not stock.missing_in(place) for place in places)


def _key_in(folder: Path) -> str:
    try:
        return str(jobs.read_manifest(folder).get(readback.NODE, {}).get(KEY, ""))
    except MissingFrame:
        return ""


def _plain(request: Request) -> Any:
    return request_to_plain(replace(request, client=""))


def _views(run: Run) -> "list[str]":
    """Return the views that are made; one empty text where the script has one only."""
    return list(dict.fromkeys(part.view for part in run.parts))


def _pictures(run: Run, view: str) -> "dict[str, list[str]]":
    """Return the fingerprint of every picture that a run sends of a view, by input."""
    pipes = run.ask.pipes
    frames = {n for pipe in pipes for n in pipe.header.frames}
    prints = Prints(frames, view or nuke.views()[0])
    return {
        pipe.header.name: [
            prints.written(run.gizmo.node(pipe.writer), n) for n in pipe.header.frames
        ]
        for pipe in pipes
    }
