# SPDX-License-Identifier: Apache-2.0
"""What of a run outlives the Nuke that started it: ``job.json`` in the version that grows.

It says which jobs on the server belong to the version and what they ask for, so that a later Nuke
goes on where the first one stopped. While a Nuke works on it, it touches the file every few
seconds; a file that nobody touches belongs to nobody, and whoever opens the script may take it. A
session removes only the versions that it made or has taken. Touches no node.
"""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from gencomp_nuke import jobs
from gencomp_nuke.asking import Ask, Pipe
from gencomp_nuke.lock import is_alive
from gencomp_nuke.runs import Part, Run
from gencomp_protocol.codec import request_from_plain, request_to_plain
from gencomp_protocol.errors import GencompError, MissingFrame, UnwritableOutput

_BEAT_S = 5.0
_SILENT_S = 60.0  # A network disk may show a touch that late.
# A process of that number that never touches the file is another one.
_SILENT_HERE_S = 3600.0

Files = Mapping[str, Mapping[str, Mapping[int, Path]]]


@dataclass(frozen=True)
class Pending:
    """What a job file says.

    Attributes:
        version: The version that grows there.
        identity: Of the node.
        address: Of the server, as it was typed on the node; empty for none.
        parts: The jobs' parts.
        jobs: Their ids on the server; none where nothing was handed in yet.
        pipes: The node's inputs.
        files: What was sent, by view, input and frame.
        merge: Folder of the result that the new frames are merged into; None for none.
        key: What the result is made from, as the node will look for it.
        is_held: Whether a running Nuke works on it.
    """

    version: jobs.Version
    identity: str
    address: str
    parts: "tuple[Part, ...]"
    jobs: "tuple[str, ...]"
    pipes: "tuple[Pipe, ...]"
    files: Files
    merge: Optional[Path]
    key: str
    is_held: bool


def note(run: Run) -> None:
    """Write down what a run has come to, whole or not at all.

    Raises:
        UnwritableOutput: The file cannot be written.
    """
    assert run.version is not None
    place = run.version.folder / jobs.JOB
    plain = {
        "node": run.identity,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "address": run.address,
        "merge": None if run.merge is None else str(run.merge),
        "key": run.ask.key,
        "jobs": list(run.jobs),
        "parts": [_part_to_plain(part) for part in run.parts],
        "pipes": [_pipe_to_plain(pipe) for pipe in run.ask.pipes],
        "files": {
            view: {name: {str(n): str(p) for n, p in one.items()} for name, one in pipes.items()}
            for view, pipes in run.files.items()
        },
    }
    beside = place.with_name(f".{place.name}.part")
    try:
        beside.write_text(json.dumps(plain, indent=1), encoding="utf-8")
        os.replace(beside, place)
    except OSError as error:
        raise UnwritableOutput(
            f"The cache folder {run.cache} cannot be written ({error.strerror}).",
            hint="Make room on the disk, or choose another cache folder.",
        ) from error


@contextlib.contextmanager
def held(version: jobs.Version) -> "Iterator[None]":
    """Touch a version's job file while the block runs, from a thread of its own."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(_BEAT_S):
            with contextlib.suppress(OSError):  # Gone with the version, or the disk is away.
                os.utime(version.folder / jobs.JOB)

    thread = threading.Thread(target=beat, name="gencomp heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(_BEAT_S)  # A beat after the end would hold what was let go.


def let_go(version: jobs.Version) -> None:
    """Let whoever opens the script next take a version that this Nuke no longer works on."""
    with contextlib.suppress(OSError):
        os.utime(version.folder / jobs.JOB, (0, 0))


def is_free(version: jobs.Version) -> bool:
    """Tell whether a version still waits for somebody to go on with it."""
    found = read(version.folder)
    return found is not None and not found.is_held


def waiting(cache: Path, identity: str) -> "list[Pending]":
    """Return what waits in a cache for a node, oldest first; a file that says nothing is left."""
    found = (read(folder) for folder in jobs.unfinished(cache))
    return [one for one in found if one is not None and one.identity == identity]


def read(folder: Path) -> "Optional[Pending]":
    """Return what the job file of a version says; None where there is none to be understood."""
    place = folder / jobs.JOB
    try:
        plain = json.loads(place.read_text(encoding="utf-8"))
        silent_s = time.time() - place.stat().st_mtime
        parts = tuple(_part_from_plain(one) for one in plain["parts"])
        return Pending(
            version=jobs.part_of(folder),
            identity=str(plain["node"]),
            address=str(plain["address"]),
            parts=parts,
            jobs=tuple(map(str, plain["jobs"])),
            pipes=tuple(_pipe_from_plain(one, parts[0]) for one in plain["pipes"]),
            files={
                view: {
                    name: {int(n): Path(text) for n, text in one.items()}
                    for name, one in pipes.items()
                }
                for view, pipes in plain["files"].items()
            },
            merge=None if plain["merge"] is None else Path(plain["merge"]),
            key=str(plain["key"]),
            is_held=_is_held(str(plain["host"]), int(plain["pid"]), silent_s),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, GencompError):
        return None


def resumed(gizmo: Any, found: Pending) -> Run:
    """Return the run that goes on with what waits. Main thread only."""
    asked = Ask(found.parts[0].request, found.pipes, key=found.key)
    cache = found.version.final.parent
    run = Run(gizmo, asked, cache, found.address, parts=found.parts, merge=found.merge)
    run.version, run.jobs = found.version, found.jobs
    run.files = {view: {n: dict(one) for n, one in of.items()} for view, of in found.files.items()}
    return run


def _is_held(host: str, pid: int, silent_s: float) -> bool:
    """Tell whether the Nuke that wrote a job file still works on it."""
    if host != socket.gethostname() or sys.platform == "win32":
        return silent_s < _SILENT_S
    return silent_s < _SILENT_HERE_S and is_alive(pid)


# --- to and from plain data ----------------------------------------------------------------------


def _part_to_plain(part: Part) -> "dict[str, Any]":
    return {
        "request": request_to_plain(part.request),
        "subfolder": part.subfolder,
        "view": part.view,
        "title": part.title,
    }


def _part_from_plain(plain: "Mapping[str, Any]") -> Part:
    request = request_from_plain(plain["request"])
    words = (str(plain[name]) for name in ("subfolder", "view", "title"))
    return Part(request, *words)


def _pipe_to_plain(pipe: Pipe) -> "dict[str, Any]":
    return {
        "input": pipe.header.name,
        "folder": pipe.folder,
        "writer": pipe.writer,
        "slot": pipe.slot,
        "name": pipe.name,
    }


def _pipe_from_plain(plain: "Mapping[str, Any]", part: Part) -> Pipe:
    header = part.request.input(str(plain["input"]))
    if header is None:
        raise MissingFrame(f"The job has no input '{plain['input']}'.")
    folder, writer, name = (str(plain[key]) for key in ("folder", "writer", "name"))
    return Pipe(header, folder, writer, int(plain["slot"]), name)
