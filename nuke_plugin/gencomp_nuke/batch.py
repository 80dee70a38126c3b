# SPDX-License-Identifier: Apache-2.0
"""Generating without an interface: a program for ``nuke -t``, and what a script of one's own calls.

::

    nuke -t <gencomp>/nuke_plugin/gencomp_nuke/batch.py shot.nk --frames=1001-1048 --save

All nodes of ours in the script get their results, in the order in which they depend on one another.
What is in the cache already is not made again. Exit codes:

    0   every node plays the result of what it is now
    1   a node has none; a line that begins with ``Error:`` says why
    2   the command line, or the script, cannot be used
    3   stopped by a signal, or another process makes the result and ``--policy=error``: try again

From a script of one's own::

    import nuke
    from gencomp_nuke import batch

    nuke.scriptOpen("shot.nk")
    batch.generate(nuke.toNode("Omnimatte1"))
    nuke.scriptSave()
"""

import argparse
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

if __name__ == "__main__":  # Started by its path; Nuke need not know where gencomp is.
    _room = Path(__file__).resolve().parent.parent
    _vendor = _room.parent / "vendor"
    sys.path += [str(place) for place in (_room, _room.parent / "protocol", _vendor)]

import nuke
from gencomp_nuke import __version__, bringing, logs, prefs, runs, upstream
from gencomp_nuke.bringing import COMPUTE, POLICIES, READ
from gencomp_nuke.mainthread import MainThread, Pump
from gencomp_nuke.reporting import Report
from gencomp_nuke.runs import Run
from gencomp_nuke.session import Session
from gencomp_protocol.errors import BadKnob, Cancelled, GencompError, MissingFrame
from gencomp_protocol.frames import FrameRange

DONE, FAILED, WRONG, STOPPED = 0, 1, 2, 3
_STEP_S = 0.2


# --- one node ------------------------------------------------------------------------------------


def generate(gizmo: Any) -> None:
    """Generate a node's result and return when the node plays it.

    Blocks the main thread and works there whatever the background thread asks for.

    Raises:
        GencompError: Why there is no result; the node plays what it played before.
    """
    work(runs.prepare(gizmo, prefs.load()))


def work(run: Run, each: "Callable[[], None]" = lambda: None) -> None:
    """Work on a run that was prepared and return when its node says how it ended.

    Args:
        run: The run.
        each: Called several times a second while it runs, on the main thread.

    Raises:
        GencompError: Why there is no result; the node plays what it played before.
    """

    def is_over() -> bool:
        each()
        return run.is_over

    logs.setup()
    pump = Pump()
    session = Session(MainThread(pump.send))
    try:
        session.start(run)
        pump.run_until(is_over)
    except KeyboardInterrupt:
        run.cancel()
        pump.run_until(lambda: run.is_over)
    finally:
        session.close()
    if run.error is not None:
        raise run.error


# --- the program ---------------------------------------------------------------------------------


class Stop:
    """Whether somebody wants an end; SIGTERM and Ctrl-C do, and the job on the server ends too."""

    def __init__(self) -> None:
        self.is_wanted = False

    @contextmanager
    def on_signals(self) -> "Iterator[None]":
        """Take the signals while the block runs."""
        names = (signal.SIGTERM, signal.SIGINT)
        were = {name: signal.signal(name, self._want) for name in names}
        try:
            yield
        finally:
            for name, was in were.items():
                signal.signal(name, was)

    def check(self) -> None:
        """Raise where an end is wanted.

        Raises:
            Cancelled: It is.
        """
        if self.is_wanted:
            raise Cancelled("Stopped by a signal.")

    def pause(self, seconds: float) -> None:
        """Wait, in short steps, unless an end is wanted."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.check()
            time.sleep(min(_STEP_S, seconds))

    def _want(self, number: int, frame: object) -> None:
        self.is_wanted = True


def main(words: "Sequence[str]") -> int:
    """Run the program.

    Args:
        words: The command line without the program's name.

    Returns:
        The exit code.
    """
    args = _parsed(words)
    stop, plain = Stop(), Report(0, args.openjd)
    try:
        with stop.on_signals():
            frames = FrameRange.parse(args.frames) if args.frames else None
            copy = _copy(args)
            _open(args.script)
            wanted = _wanted(args.nodes)
            plain.say(_heading(args, wanted))
            code = _bring_all(args, frames, wanted, stop)
            if code == DONE and args.save is not None:
                _save(copy)
            return code
    except GencompError as error:
        plain.failed(str(error))
        return WRONG


def _heading(args: argparse.Namespace, wanted: "list[Any]") -> str:
    """Return the first line: what does what, where, and where more is written of it."""
    names = ", ".join(str(gizmo.fullName()) for gizmo in wanted)
    return (
        f"gencomp {__version__} in Nuke {nuke.NUKE_VERSION_STRING} on {socket.gethostname()}: "
        f"{names} of {args.script}, frames {args.frames or 'of each node'}, policy {args.policy}; "
        f"log {logs.log_file()}."
    )


def _bring_all(
    args: argparse.Namespace, frames: Optional[FrameRange], wanted: "list[Any]", stop: Stop
) -> int:
    """Bring every node its result, those that they depend on first; return the exit code."""
    names = {str(gizmo.fullName()) for gizmo in wanted}
    report, failed, code = Report(len(wanted), args.openjd), set[str](), DONE
    for gizmo in upstream.ours_above(wanted):
        name = str(gizmo.fullName())
        policy = args.policy if name in names else READ  # What was not asked for is not made.
        broken = failed & {str(above.fullName()) for above in upstream.ours_above([gizmo])}
        try:
            stop.check()
            if broken:
                raise MissingFrame(f"{name} depends on {sorted(broken)[0]}, which has no result.")
            made = bringing.bring(
                gizmo,
                lambda run: _work(run, stop, report),
                policy=policy,
                frames=frames,
                tell=report.say,
                pause=stop.pause,
                is_locked=args.locked,
            )
        except (Cancelled, bringing.Busy) as error:
            report.say(str(error))
            return STOPPED
        except GencompError as error:
            failed.add(name)
            report.failed(str(error))
            code = FAILED
            continue
        if name in names:
            report.done(f"{name} {'has a new result' if made else 'has its result'}.")
    return code


def _work(run: Run, stop: Stop, report: Report) -> None:
    """Work on a run, say how far it is, and end it where an end is wanted."""
    run.listener = report.listen
    name, says = str(run.gizmo.fullName()), run.gizmo["gc_status"]

    def each() -> None:
        report.status(name, str(says.value()))
        if stop.is_wanted:
            run.cancel()

    work(run, each)


def _parsed(words: "Sequence[str]") -> argparse.Namespace:
    """Read the command line; leaves with 2 where it cannot be understood."""
    parser = argparse.ArgumentParser(
        prog="nuke -t batch.py", description="Give gencomp's nodes in a script their results."
    )
    parser.add_argument("script", type=Path, metavar="SCRIPT.nk")
    parser.add_argument("--frames", default="", metavar="1001-1048", help="default: each node's")
    parser.add_argument("--nodes", default="", metavar="A,B", help="these; default: all")
    parser.add_argument(
        "--policy",
        choices=POLICIES,
        default=COMPUTE,
        help="compute: what is not there, and wait for whoever makes it already (default). "
        "error: do not wait. read: make nothing, and tell whether all is there",
    )
    parser.add_argument(
        "--save",
        nargs="?",
        const="",
        metavar="COPY.nk",
        help="save the script, or a copy beside it, once all nodes play their results",
    )
    parser.add_argument(
        "--openjd", action="store_true", help="print progress as Open Job Description reads it"
    )
    parser.add_argument("--locked", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(words)


def _open(script: Path) -> None:
    """Open the script.

    Raises:
        BadKnob: It cannot be opened.
    """
    if not script.is_file():
        raise BadKnob(f"There is no script {script}.")
    try:
        nuke.scriptOpen(script.resolve().as_posix())
    except RuntimeError as error:
        raise BadKnob(f"{script} cannot be opened: {error}") from error


def _wanted(names: str) -> "list[Any]":
    """Return the nodes that are asked for, in order of dependency; all where none is named.

    Raises:
        BadKnob: One is not there, is not ours, or is disabled; or the script has none of ours.
    """
    mine = upstream.all_ours()
    if not names:
        if not mine:
            raise BadKnob("The script has no node of gencomp's.")
        return mine
    by_name = {str(gizmo.fullName()): gizmo for gizmo in mine}
    asked = [name.strip() for name in names.split(",") if name.strip()]
    for name in asked:
        if name not in by_name:
            raise BadKnob(
                f"There is no node '{name}' of gencomp's that is not disabled.",
                hint=f"There are: {', '.join(by_name) or 'none'}.",
            )
    return [gizmo for name, gizmo in by_name.items() if name in asked]


def _copy(args: argparse.Namespace) -> Optional[Path]:
    """Return where a copy is to be saved, None for the script's own place.

    Raises:
        BadKnob: The copy would lie elsewhere than the script, and paths that start there break.
    """
    if not args.save:
        return None
    copy = Path(args.save).resolve()
    if copy.parent != args.script.resolve().parent:
        raise BadKnob(
            f"The copy {copy} does not lie beside the script.",
            hint="Paths inside start from the script's folder, so a copy has to lie there too.",
        )
    return copy


def _save(copy: Optional[Path]) -> None:
    """Save the script, whole or not at all where it is a copy: others may be reading that.

    Raises:
        BadKnob: It cannot be written.
    """
    try:
        if copy is None:
            nuke.scriptSave("")
            return
        part = copy.with_name(f".{uuid.uuid4().hex[:8]}_{copy.name}")
        nuke.scriptSaveAs(part.as_posix(), 1)
        os.replace(part, copy)
    except (OSError, RuntimeError) as error:
        raise BadKnob(f"The script cannot be saved ({error}).") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
