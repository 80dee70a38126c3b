# SPDX-License-Identifier: Apache-2.0
"""The button that lets an assistant write a node's texts: shown first, sent only after a click.

Three frames of the plate are rendered, ``gencomp assist`` makes the letter of them, and the artist
reads in a dialogue which frames and which words would leave, and to which host. Only *Yes* sends
them. What comes back becomes the node's text knobs, in one undo step, and nothing else::

    main thread                            background thread
    render three frames ──► start ───────► gencomp assist dynvfx --converse …
    the letter, Yes or No  ◄──── call ───┤ one line: the letter
                           └──── y, n ──►│
    text knobs             ◄──── call ───┘ one line: the texts
"""

import functools
import json
import logging
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import nuke
from gencomp_nuke import asking, export, node, prefs, tool
from gencomp_nuke.asking import Pipe
from gencomp_nuke.colours import ocio_config, working_space
from gencomp_nuke.mainthread import MainThread
from gencomp_nuke.runs import is_attached
from gencomp_protocol.errors import (
    BadKnob,
    Cancelled,
    GencompError,
    InternalError,
    MissingInput,
    ToolFailed,
)
from gencomp_protocol.frames import Format
from gencomp_protocol.request import STILLS, InputHeader

log = logging.getLogger(__name__)

_TEXTS = ("prompt", "source_prompt", "source_objects", "target_object")
_ASSIST = ("assist", "dynvfx", "--converse")
_MOST_LETTER = 1 << 20

_running: "dict[str, Assistance]" = {}


def assist(gizmo: Any) -> "Optional[Assistance]":
    """Ask the assistant for a node's texts. Main thread only; returns once frames are rendered.

    Returns:
        What goes on in the background; None where this node asks already.

    Raises:
        BadKnob: There is no instruction, or no interface in which an artist could agree.
        MissingInput: There is no plate.
        BadPicture, Cancelled: The frames could not be rendered.
        ServerUnreachable: gencomp's command cannot be started.
    """
    if not nuke.GUI:
        raise BadKnob(
            "An assistant is asked in a Nuke with an interface, where you see what would leave.",
            hint="Use 'gencomp assist dynvfx' here.",
        )
    identity = node.identify(gizmo)
    if identity in _running:
        return None
    instruction = " ".join(str(asking.value_of(gizmo["instruction"])).split())
    if not instruction:
        raise BadKnob(
            f"{gizmo.name()} has no instruction for the assistant.",
            hint="Type into 'instruction' what is to be added, then press the button again.",
            knob="instruction",
        )
    folder = Path(tempfile.mkdtemp(prefix="gencomp-assist-"))
    try:
        files = _rendered(gizmo, folder)
        words = [*_ASSIST, *_inputs(files), "--instruction", instruction, *_colours()]
        begin = functools.partial(tool.start, prefs.load(), words)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    node.show(gizmo, "Making the letter to the assistant.", node.RUNNING, "assistant")
    made = Assistance(gizmo, identity, begin, folder, MainThread(nuke.executeInMainThread))
    _running[identity] = made
    made.start()
    return made


def stop(identity: str) -> None:
    """End what a node asks of the assistant; without anything nothing happens."""
    made = _running.get(identity)
    if made is not None:
        made.cancel()


class Assistance:
    """One question to the assistant, and the background thread that waits for its answer.

    Args:
        gizmo: The node; touched on the main thread only.
        identity: Its ``gc_id``.
        begin: Starts ``gencomp assist``; from a cold disk that takes a while.
        folder: Folder of the rendered frames; goes when this is over.
        main: How to reach the main thread.
    """

    def __init__(
        self,
        gizmo: Any,
        identity: str,
        begin: "Callable[[], subprocess.Popen[str]]",
        folder: Path,
        main: MainThread,
    ) -> None:
        self._gizmo, self._identity = gizmo, identity
        self._begin, self._folder, self._main = begin, folder, main
        self._running: Optional[subprocess.Popen[str]] = None
        self._cancelled = False
        self._over = threading.Event()

    @property
    def is_over(self) -> bool:
        """Tell whether the node says how it ended."""
        return self._over.is_set()

    def start(self) -> None:
        """Let the thread begin."""
        threading.Thread(target=self._work, name="gencomp assistant", daemon=True).start()

    def cancel(self) -> None:
        """End it; the node says what it said before."""
        self._cancelled = True
        if self._running is not None:
            self._running.kill()

    @property
    def _child(self) -> "subprocess.Popen[str]":
        assert self._running is not None
        return self._running

    def _work(self) -> None:
        error: Optional[GencompError] = None
        knobs: dict[str, str] = {}
        try:
            self._running = self._begin()
            if self._cancelled:
                self._running.kill()
            knobs = self._conversation()
        except GencompError as said:
            error = said
        except Exception as bug:  # The edge of the room: a bug of ours must reach the node.
            log.exception("the assistant failed")
            error = InternalError(f"gencomp failed ({type(bug).__name__}: {bug}).")
        finally:
            if self._running is not None:
                self._running.kill()
                self._running.communicate()
            shutil.rmtree(self._folder, ignore_errors=True)
        self._main.post(lambda: self._end(knobs, error))

    def _conversation(self) -> "dict[str, str]":
        """Show the letter, hand over the answer, and return the texts."""
        letter = self._line("letter")
        tells = "\n".join(str(line) for line in letter)
        agreed = bool(self._main.call(lambda: self._agrees(tells)))
        self._write("y\n" if agreed else "n\n")
        if not agreed:
            raise Cancelled("Nothing was sent to the assistant.")
        knobs = self._line("knobs")
        if not isinstance(knobs, dict) or not set(_TEXTS) <= set(knobs):
            raise ToolFailed("gencomp assist gave no texts.", hint="Type them yourself.")
        return {name: str(knobs[name]) for name in _TEXTS}

    def _line(self, key: str) -> Any:
        """Return what the next line of the command says under a key.

        Raises:
            Cancelled: The artist ended it.
            ToolFailed: The command ended without such a line; says why in its own words.
        """
        assert self._child.stdout is not None
        text = self._child.stdout.readline(_MOST_LETTER)
        if text:
            try:
                return json.loads(text)[key]
            except (ValueError, LookupError, TypeError) as error:
                raise ToolFailed(
                    f"gencomp assist said {text[:80]!r}, which is no answer."
                ) from error
        if self._cancelled:
            raise Cancelled("Asking the assistant was cancelled.")
        _, said = self._child.communicate()
        lines = said.strip().splitlines() or ["it said nothing."]
        raise ToolFailed(_sentence(lines))

    def _write(self, text: str) -> None:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(text)
            self._child.stdin.flush()
        except OSError:  # It is gone; the next line that is read says why.
            log.info("gencomp assist ended before it was answered")

    def _agrees(self, tells: str) -> bool:
        """Ask the artist. Main thread."""
        if self._cancelled or not is_attached(self._gizmo):
            return False
        node.show(self._gizmo, "Waiting for your word.", node.RUNNING, "assistant")
        agreed = bool(nuke.ask(f"This would leave this machine. Send it?\n\n{tells}"))
        if agreed:
            node.show(self._gizmo, "Waiting for the assistant.", node.RUNNING, "assistant")
        return agreed

    def _end(self, knobs: "dict[str, str]", error: "Optional[GencompError]") -> None:
        """Put the texts into their knobs, or say why there are none. Main thread."""
        _running.pop(self._identity, None)
        try:
            if not is_attached(self._gizmo):
                return
            if error is None:
                with nuke.Undo(f"{self._gizmo.name()} texts"):
                    for name, text in knobs.items():
                        self._gizmo[name].setValue(text)
                note = "The assistant wrote the texts; read them before you press Generate."
                node.show(self._gizmo, note, node.IDLE, "texts")
            elif isinstance(error, Cancelled):
                node.show_result(self._gizmo)
            else:
                log.error("%s: %s", error.code, error)
                node.show_result(self._gizmo)  # No text was written; the result is what it was.
                node.tell(self._gizmo, str(error))
        finally:
            self._over.set()


def _rendered(gizmo: Any, folder: Path) -> "dict[int, Path]":
    """Render the first, the middle and the last frame of the plate; return their files."""
    told = node.declared(gizmo)
    lead = node.lead_pipe(gizmo, told)
    if lead is None:
        raise MissingInput(f"{gizmo.name()} has no plate.", hint="Connect one.")
    frames = tuple(node.frame_range(gizmo))
    at = tuple(sorted({frames[0], frames[(len(frames) - 1) // 2], frames[-1]}))
    size = node.connected(gizmo, lead.pipe).format()
    shape = Format(int(size.width()), int(size.height()), float(size.pixelAspect()))
    header = InputHeader(name=lead.input, frames=at, cover=STILLS, format=shape)
    pipe = Pipe(header, lead.folder, f"Write_{lead.folder}")
    return export.render_only(gizmo, [pipe], folder, {lead.input: at}, nuke.views()[0])[lead.input]


def _inputs(files: "dict[int, Path]") -> "list[str]":
    words = []
    for frame, path in files.items():
        words += ["--input", f"plate@{frame}={path.as_posix()}"]
    return words


def _colours() -> "list[str]":
    """Return what the command is told of the script's colours."""
    return ["--working-space", working_space(), "--ocio", ocio_config()]


def _sentence(lines: "list[str]") -> str:
    """Return the command's refusal without what stands before it on a terminal."""
    said = [line for line in lines if line.strip()]
    start = next((n for n, line in enumerate(said) if line.startswith("gencomp: ")), len(said) - 1)
    return " ".join(line.strip() for line in said[start:]).removeprefix("gencomp: ")
