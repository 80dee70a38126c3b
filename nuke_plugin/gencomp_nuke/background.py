# SPDX-License-Identifier: Apache-2.0
"""Rendering the inputs in a Nuke of its own, so that the artist goes on working in this one.

The script is saved as it is now into a copy beside it, so that paths that start from the script's
folder stay true; a second Nuke without an interface opens the copy, renders, and the copy is
removed. That Nuke takes a render licence unless the settings name another command.
"""

import contextlib
import json
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nuke
from gencomp_nuke import export
from gencomp_nuke.asking import Ask
from gencomp_nuke.caches import passing_copy
from gencomp_nuke.prefs import Prefs
from gencomp_protocol.errors import BadPicture, Cancelled, UnwritableOutput

_LICENCE = "a render licence"
_OWN_LICENCE = "the licence of the command in the settings"
_SCRIPT = Path(__file__).with_name("background_script.py")
_POLL_S = 0.2
_END_S = 10.0
_LAST_LINES = 3


@dataclass(frozen=True)
class Rendering:
    """A rendering that is ready to be started.

    Attributes:
        command: Words of the command line.
        copy: The copy of the script; removed at the end.
        plan: File that says what to render.
        log: File for what that Nuke prints.
        files: The files that will be there.
        licence: What it takes of Nuke's licences, in words.
    """

    command: "tuple[str, ...]"
    copy: Path
    plan: Path
    log: Path
    files: "tuple[Path, ...]"
    licence: str

    def run(self, cancelled: "Callable[[], bool]", say: "Callable[[str], None]") -> None:
        """Start that Nuke and wait for its end. Any thread but the main one.

        Args:
            cancelled: Asked several times a second; True ends that Nuke.
            say: Takes a sentence about how far it is.

        Raises:
            Cancelled: It was asked for.
            BadPicture: That Nuke could not be started, or could not render; says what it said.
        """
        try:
            with open(self.log, "wb") as out:
                child = self._start(out)
                code = self._wait(child, cancelled, say)
        finally:
            self.copy.unlink(missing_ok=True)
        if code != 0:
            raise BadPicture(
                f"The background Nuke could not render the inputs: {self._last_words(code)}",
                hint="Set 'render inputs' to here, or look at the log " + str(self.log) + ".",
            )

    def _start(self, out: Any) -> "subprocess.Popen[bytes]":
        try:
            return subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
        except OSError as error:
            raise BadPicture(
                f"The background Nuke {self.command[0]} does not start ({error.strerror}).",
                hint="Set 'render inputs' to here, or name its command in the settings.",
            ) from error

    def _wait(
        self,
        child: "subprocess.Popen[bytes]",
        cancelled: "Callable[[], bool]",
        say: "Callable[[str], None]",
    ) -> int:
        shown = -1
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return child.wait(_POLL_S)
            if cancelled():
                _end(child)
                raise Cancelled("Rendering the inputs was cancelled.")
            here = sum(path.exists() for path in self.files)
            if here != shown:
                shown = here
                say(
                    f"A background Nuke, which takes {self.licence}, renders the inputs: "
                    f"{here} of {len(self.files)} pictures."
                )

    def _last_words(self, code: int) -> str:
        said = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return " ".join(said[-_LAST_LINES:]) or f"it ended with code {code}."


def _end(child: "subprocess.Popen[bytes]") -> None:
    child.terminate()
    try:
        child.wait(_END_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def prepare(
    gizmo: Any, ask: Ask, folder: Path, wanted: "Mapping[str, Sequence[int]]", settings: Prefs
) -> Rendering:
    """Save the script and write down what is to be rendered from it. Main thread only.

    Args:
        gizmo: A node of ours.
        ask: What it asks for.
        folder: Folder for the files; is made.
        wanted: Frames by input.
        settings: Settings of the user.

    Raises:
        UnwritableOutput: The copy cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    copy = _copy_of_script(gizmo)
    pipes = [pipe for pipe in ask.pipes if wanted.get(pipe.header.name)]
    plan = folder / "render.json"
    plan.write_text(
        json.dumps(
            {
                "script": copy.as_posix(),
                "node": gizmo.fullName(),
                "folder": folder.as_posix(),
                "view": ask.view or nuke.views()[0],
                "writers": {p.writer: export.runs(wanted[p.header.name]) for p in pipes},
            }
        ),
        encoding="utf-8",
    )
    words = settings.words(settings.background_nuke)
    command = (*(words or (nuke.EXE_PATH, "-t")), str(_SCRIPT), str(plan))
    files = tuple(
        export.file_of(folder, pipe, n) for pipe in pipes for n in wanted[pipe.header.name]
    )
    licence = _OWN_LICENCE if words else _LICENCE
    return Rendering(command, copy, plan, folder / "render.log", files, licence)


def _copy_of_script(gizmo: Any) -> Path:
    """Save the script as it is now beside itself, and leave its name and its state alone."""
    root = nuke.root()
    name = str(root["name"].value() or "")
    place = Path(name).parent if name else Path(tempfile.gettempdir())
    copy = passing_copy(place, f"{gizmo['gc_id'].value()}_{uuid.uuid4().hex[:6]}")
    try:
        with _as_it_was(root, name):
            nuke.scriptSaveAs(copy.as_posix(), 1)
    except (OSError, RuntimeError) as error:
        raise UnwritableOutput(
            f"A copy of the script cannot be written beside it ({error}).",
            hint="Set 'render inputs' to here.",
        ) from error
    return copy


@contextlib.contextmanager
def _as_it_was(root: Any, name: str) -> "Iterator[None]":
    """Give the script its name back afterwards, and its mark of being changed."""
    was = bool(nuke.modified())
    nuke.Undo.disable()
    try:
        yield
    finally:
        root["name"].setValue(name)
        nuke.modified(was)
        nuke.Undo.enable()
