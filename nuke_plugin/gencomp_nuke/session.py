# SPDX-License-Identifier: Apache-2.0
"""The background thread that talks to the server, one job of one node after another.

Nuke is touched on its main thread only. The thread reaches it through a :class:`MainThread`: with
an interface that is ``nuke.executeInMainThread``; in a terminal session nothing would run that, so
whoever waits there pumps a queue. The thread may wait for the main thread; the main thread never
waits for it without pumping. ::

    main thread                          background thread
    generate ── Run ──► queue ─────────► find or start the server, check the request
    render the inputs  ◄──── call ─────┤
                        └─── files ────► digest, submit, follow, fetch layers
    status on the node ◄──── post ─────┤
    play the result    ◄──── call ─────┘
"""

import logging
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import nuke
from gencomp_nuke import __version__, asking, export, jobs, node, readback, serverstart
from gencomp_nuke.playing import Result
from gencomp_nuke.prefs import Prefs
from gencomp_protocol import (
    Client,
    LayerReady,
    Progressed,
    Sent,
    StateChanged,
    Warned,
    picture_of,
    request_key,
)
from gencomp_protocol.errors import Cancelled, GencompError, InternalError
from gencomp_protocol.locate import ServerFile

log = logging.getLogger(__name__)

_WAIT_S = 0.1


class MainThread:
    """Nuke's main thread, as the background thread reaches it.

    Args:
        send: Hands a function to the main thread and returns at once.
    """

    def __init__(self, send: "Callable[[Callable[[], None]], None]") -> None:
        self._send = send

    def post(self, fn: "Callable[[], None]") -> None:
        """Let the main thread call ``fn`` some time; its errors are logged."""
        self._send(lambda: _logged(fn))

    def call(self, fn: "Callable[[], Any]") -> Any:
        """Let the main thread call ``fn`` and return what it returns, or raise what it raises."""
        answer: queue.Queue[tuple[bool, Any]] = queue.Queue(1)

        def answered() -> None:
            try:
                answer.put((True, fn()))
            except Exception as error:  # Carried to the thread that asked, and raised there.
                answer.put((False, error))

        self._send(answered)
        good, value = answer.get()
        if not good:
            raise value
        return value


class Pump:
    """The queue through which a waiting main thread serves the background thread."""

    def __init__(self) -> None:
        self._calls: queue.Queue[Callable[[], None]] = queue.Queue()

    def send(self, fn: "Callable[[], None]") -> None:
        """Put a call into the queue."""
        self._calls.put(fn)

    def run_until(self, is_over: "Callable[[], bool]") -> None:
        """Make the calls that arrive, on this thread, until ``is_over`` and none is left."""
        while not (is_over() and self._calls.empty()):
            try:
                self._calls.get(timeout=_WAIT_S)()
            except queue.Empty:
                continue


class Run:
    """One press of Generate: a node, what it asks for, and how that ended.

    Args:
        gizmo: The node; touched on the main thread only.
        ask: What it asked for when the button was pressed.
        cache: Folder of its results.
        address: Address typed on the node; empty for none.
    """

    def __init__(self, gizmo: Any, ask: asking.Ask, cache: Path, address: str = "") -> None:
        self.gizmo, self.ask, self.cache, self.address = gizmo, ask, cache, address
        self.identity = str(gizmo["gc_id"].value())
        self.error: Optional[GencompError] = None
        self.warnings: list[str] = []
        self._cancelled, self._over = threading.Event(), threading.Event()
        self._latest: Optional[tuple[str, str]] = None
        self._lock = threading.Lock()

    def cancel(self) -> None:
        """Ask for an end; the thread stops within a fraction of a second."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """Tell whether an end was asked for."""
        return self._cancelled.is_set()

    @property
    def is_over(self) -> bool:
        """Tell whether the run has ended, well or not, and the node says so."""
        return self._over.is_set()

    def finish(self) -> None:
        """Mark the run as ended."""
        self._over.set()

    def say(self, main: MainThread, sentence: str, note: str) -> None:
        """Show a sentence on the node; one that was not shown yet is overtaken by the next."""
        with self._lock:
            waiting, self._latest = self._latest, (sentence, note)
        if waiting is None:
            main.post(self._show_latest)

    def _show_latest(self) -> None:
        with self._lock:
            latest, self._latest = self._latest, None
        if latest is not None and not self.is_over and is_attached(self.gizmo):
            node.show(self.gizmo, latest[0], node.RUNNING, latest[1])


class Session:
    """The background thread and the runs that it works through, in order.

    Args:
        main: How to reach the main thread.
        prefs: Settings of the user.
    """

    def __init__(self, main: MainThread, prefs: Prefs) -> None:
        self._main, self._prefs = main, prefs
        self._runs: queue.Queue[Optional[Run]] = queue.Queue()
        self._known: dict[str, Run] = {}
        self._thread = threading.Thread(target=self._loop, name="gencomp", daemon=True)
        self._thread.start()

    def start(self, run: Run) -> None:
        """Put a run in line and say so on the node. Main thread only."""
        self._known[run.identity] = run
        views = nuke.views()
        if len(views) > 1:
            run.warnings.append(f"Of the script's views, '{views[0]}' alone was generated.")
        waiting = sum(not other.is_over for other in self._known.values()) - 1
        text = "Waiting for another node of this session." if waiting else "Looking for a server."
        node.show(run.gizmo, text, node.RUNNING, "waiting" if waiting else "starting")
        self._runs.put(run)

    def run_of(self, identity: str) -> "Optional[Run]":
        """Return the run of a node that has not ended, or None."""
        run = self._known.get(identity)
        return None if run is None or run.is_over else run

    def close(self) -> None:
        """Let the thread end after the runs that are in line."""
        self._runs.put(None)

    # --- on the background thread ----------------------------------------------------------------

    def _loop(self) -> None:
        while True:
            run = self._runs.get()
            if run is None:
                return
            self._work(run)

    def _work(self, run: Run) -> None:
        """Work one run to its end; whatever happens ends as a sentence on the node."""
        try:
            result = self._generate(run)
            self._main.call(lambda: _end_well(run, result))
        except GencompError as error:
            self._end_badly(run, error)
        except Exception as error:  # The edge of the room: a bug of ours must reach the node.
            log.exception("generate failed")
            self._end_badly(
                run, InternalError(f"gencomp failed ({type(error).__name__}: {error}).")
            )

    def _end_badly(self, run: Run, error: GencompError) -> None:
        run.error = error
        level = logging.INFO if isinstance(error, Cancelled) else logging.ERROR
        log.log(level, "%s: %s", error.code, error)
        try:
            self._main.call(lambda: _show_end(run, error))
        except Exception:  # The node could not be told; waiting for it would never end.
            log.exception("the node could not be told")
            run.finish()

    def _generate(self, run: Run) -> Result:
        """Do everything that a press of Generate means; return the result, in its place."""
        _check_cancelled(run)
        server = serverstart.ensure(
            self._prefs,
            address=run.address,
            say=lambda text: run.say(self._main, text[:1].upper() + text[1:] + ".", "starting"),
            cancelled=lambda: run.is_cancelled,
        )
        with self._client(server, run) as client:
            client.connect()
            run.say(self._main, "The server is ready.", "ready")
            client.check(run.ask.request)
            version = jobs.reserve(run.cache)
            try:
                manifest = self._job(run, client, version)
                return readback.take(run.ask, version, manifest)
            except BaseException:
                jobs.discard(version)
                raise

    def _client(self, server: ServerFile, run: Run) -> Client:
        return Client(
            server.address,
            server.secret,
            client=f"gencomp_nuke {__version__}",
            find=lambda: serverstart.find_again(run.address),
        )

    def _job(self, run: Run, client: Client, version: jobs.Version) -> "dict[str, Any]":
        """Render, submit and follow one job; return its manifest."""
        _check_cancelled(run)
        run.say(self._main, "Rendering the inputs.", "rendering inputs")
        files = self._main.call(lambda: export.render(run.gizmo, run.ask, version.inputs))
        run.say(self._main, "Reading the rendered inputs.", "sending")
        pictures = {
            name: {n: picture_of(path) for n, path in frames.items()}
            for name, frames in files.items()
        }
        _check_cancelled(run)
        job = client.submit(run.ask.request, pictures, request_key(run.ask.request, pictures))
        self._main.post(lambda: node.set_job(run.gizmo, job))
        watcher = _Watcher(run, self._main)
        outcome = client.follow(
            job,
            pictures=pictures,
            folder=version.folder,
            on_event=watcher.on_event,
            cancelled=lambda: run.is_cancelled,
        )
        if outcome.state == "cancelled":
            raise Cancelled("The job was cancelled.")
        if outcome.error is not None:
            raise outcome.error
        if outcome.manifest is None:
            raise InternalError(f"The job ended as {outcome.state}, without a result.")
        client.release(job)
        return dict(outcome.manifest)


class _Watcher:
    """Turns a job's events into sentences on the node."""

    def __init__(self, run: Run, main: MainThread) -> None:
        self._run, self._main = run, main
        self._sent, self._here = 0, 0

    def on_event(self, event: Any) -> None:
        """Say what an event means. Background thread."""
        if isinstance(event, Warned):
            self._run.warnings.append(event.sentence)
            log.warning("%s", event.sentence)
            return
        said = self._words(event)
        if said is not None:
            self._run.say(self._main, *said)

    def _words(self, event: Any) -> "Optional[tuple[str, str]]":
        """Return a sentence and the word or two under the node's name."""
        if isinstance(event, Sent):
            self._sent += 1
            total = sum(len(pipe.header.frames) for pipe in self._run.ask.pipes)
            return f"Sending the inputs: {self._sent} of {total}.", "sending"
        if isinstance(event, StateChanged) and event.state == "queued":
            return f"In the server's queue, place {max(event.position, 1)}.", "queued"
        if isinstance(event, Progressed):
            left = "" if event.eta_s is None else f", about {spell_seconds(event.eta_s)} left"
            sentence = f"{event.stage}: {event.step} of {event.total}{left}."
            return sentence, f"{event.stage} {event.step}/{event.total}"
        if isinstance(event, LayerReady):
            self._here += 1
            return f"{self._here} layer frames are here.", f"{self._here} frames"
        return None


def spell_seconds(seconds: float) -> str:
    """Spell a duration as an artist reads it: ``40 s``, ``3 min``, ``2 h 05 min``."""
    whole = int(seconds + 0.5)
    if whole < 90:
        return f"{whole} s"
    minutes = (whole + 30) // 60
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def is_attached(gizmo: Any) -> bool:
    """Tell whether a node still exists. Main thread only."""
    try:
        gizmo.fullName()
    except ValueError:  # Nuke's way to say that a node was deleted.
        return False
    return True


def with_interface(prefs: Prefs) -> Session:
    """Return a session for a Nuke with an interface."""
    return Session(MainThread(nuke.executeInMainThread), prefs)


def _check_cancelled(run: Run) -> None:
    if run.is_cancelled:
        raise Cancelled("The job was cancelled.")


def _end_well(run: Run, result: Result) -> None:
    """Let the node play its result. Main thread."""
    run.finish()
    if not is_attached(run.gizmo):
        log.warning("the node is gone; its result is %s", result.folder)
        return
    node.set_job(run.gizmo, "")
    readback.show(run.gizmo, result)
    if run.warnings:
        made_with = node.made_with(run.gizmo)
        text = f"Plays {result.folder.name}.{made_with} Note: {' '.join(run.warnings)}"
        node.show(run.gizmo, text, node.IDLE, result.folder.name)


def _show_end(run: Run, error: GencompError) -> None:
    """Say on the node why there is no new result. Main thread."""
    run.finish()
    if not is_attached(run.gizmo):
        return
    node.set_job(run.gizmo, "")
    if isinstance(error, Cancelled):
        node.show_result(run.gizmo)
    else:
        node.show(run.gizmo, str(error), node.FAILED, "failed")


def _logged(fn: "Callable[[], None]") -> None:
    """Call a function; an error is logged, since nobody is there to catch it."""
    try:
        fn()
    except Exception:  # The edge of the room: Nuke would print it into nowhere.
        log.exception("a call on the main thread failed")
