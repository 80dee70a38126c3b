# SPDX-License-Identifier: Apache-2.0
"""One run, from its press to a version on disk. Runs on the background thread.

The inputs become files once for each view, every part is handed in before the first is waited for,
and the version is made final when all have ended. A run whose server goes away keeps its version
and its jobs (``pending.py``); any other that does not end well leaves nothing behind.
"""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gencomp_nuke import (
    __version__,
    caches,
    costing,
    inputs,
    jobs,
    merging,
    node,
    pending,
    readback,
    serverstart,
)
from gencomp_nuke.doing import planned
from gencomp_nuke.mainthread import MainThread
from gencomp_nuke.playing import Result
from gencomp_nuke.prefs import Prefs
from gencomp_nuke.runs import Part, Run, is_attached
from gencomp_nuke.watching import Watcher
from gencomp_protocol import Client, picture_of, request_key
from gencomp_protocol.errors import (
    Cancelled,
    GencompError,
    InternalError,
    LinkError,
    MissingFrame,
)
from gencomp_protocol.locate import ServerFile

log = logging.getLogger(__name__)

_RECEIVING = "receiving"


def server_for(run: Run, settings: Prefs, say: "Callable[[str], None]") -> ServerFile:
    """Return the server that a run goes to, starting one where none is named and none runs.

    Raises:
        LinkError: None is to be had.
        Cancelled: The artist did not want to wait.
    """
    return serverstart.ensure(
        settings, address=run.address, say=say, cancelled=lambda: run.is_cancelled
    )


def client_for(run: Run, server: ServerFile) -> Client:
    """Return a client of that server; nothing is connected yet."""
    return Client(
        server.address,
        server.secret,
        client=f"gencomp_nuke {__version__}",
        find=lambda: serverstart.find_again(run.address),
        keys=server.keys,
    )


class Work:
    """The work on one run.

    Args:
        run: The run.
        main: How to reach the main thread.
        settings: Settings of the user.
    """

    def __init__(self, run: Run, main: MainThread, settings: Prefs) -> None:
        self._run, self._main, self._settings = run, main, settings

    def result(self) -> Result:
        """Do everything that the press meant; return what the node plays, in its place.

        Raises:
            GencompError: Why there is nothing to be played.
        """
        run = self._run
        run.can_go_on = run.version is not None  # What waited, waits on until it is taken up.
        self._check_cancelled()
        server = server_for(run, self._settings, say=self._say_start)
        with client_for(run, server) as client:
            client.connect()
            self._say("The server is ready.", "ready")
            if run.version is None:
                self._plan(client)
                run.version = jobs.reserve(run.cache)
            elif not pending.is_free(run.version):
                run.can_go_on = False
                raise MissingFrame(
                    f"Another Nuke has taken up the job of {jobs.spell(run.version.final)}.",
                    hint="Choose that version once it is whole, or press Generate.",
                )
            try:
                with pending.held(run.version):
                    return self._worked(client)
            except BaseException as error:
                self._leave(error)
                raise

    def _worked(self, client: Client) -> Result:
        """Hand everything in, unless that was done, and wait for it."""
        pending.note(self._run)  # From here on it is this Nuke's.
        if not self._run.jobs:
            self._hand_in(client)
            self._supersede(client)
        elif not self._run.pictures:
            self._run.pictures = _pictures_again(self._run)
        return self._collect(client)

    def _leave(self, error: BaseException) -> None:
        """Remove the version, or leave it to whoever goes on with its jobs."""
        run = self._run
        assert run.version is not None
        run.can_go_on = bool(run.jobs and isinstance(error, LinkError) and error.retryable)
        if run.can_go_on:
            pending.let_go(run.version)
        else:
            jobs.discard(run.version)

    # --- handing in ------------------------------------------------------------------------------

    def _plan(self, client: Client) -> None:
        """Let every part be refused before anything is rendered, and show what they cost."""
        plans = [client.check(part.request) for part in self._run.parts]
        text, gizmo = costing.spell(plans), self._run.gizmo
        self._run.doing = planned(self._run.doing, plans[0])
        self._main.post(lambda: costing.show(gizmo, text))

    def _hand_in(self, client: Client) -> None:
        """Turn the inputs into files, once for each view, and hand all parts in."""
        run = self._run
        for view in dict.fromkeys(part.view for part in run.parts):
            self._check_cancelled()
            of_view = f" of view {view}" if view else ""
            self._say(f"Rendering the inputs{of_view}.", "rendering inputs")
            run.files[view] = self._rendered(view)
            self._say("Reading the rendered inputs.", "sending")
            run.pictures[view] = {
                name: {n: picture_of(path) for n, path in frames.items()}
                for name, frames in run.files[view].items()
            }
        self._check_cancelled()
        for part in run.parts:
            pictures = run.pictures[part.view]
            key = request_key(part.request, pictures)
            run.jobs = (*run.jobs, client.submit(part.request, pictures, key))
            pending.note(run)
        self._main.post(lambda: _note_job(run))

    def _rendered(self, view: str) -> "dict[str, dict[int, Path]]":
        run = self._run
        assert run.version is not None
        folder, asked = run.version.inputs / view, replace(run.ask, view=view)
        try:
            supply: inputs.Supply = self._main.go_through(
                lambda: inputs.collecting(run.gizmo, asked, folder, self._settings)
            )
        except ValueError as error:  # Nuke's way to say that a node was deleted.
            if self._main.call(lambda: is_attached(run.gizmo)):
                raise
            raise Cancelled("The node was deleted.") from error
        return supply.files(
            cancelled=lambda: run.is_cancelled,
            say=lambda sentence: self._say(sentence, "rendering inputs"),
        )

    def _supersede(self, client: Client) -> None:
        """Drop what waited for the same frames of this node and that nobody works on."""
        run = self._run
        assert run.version is not None
        mine = [(part.place, part.request.frames) for part in run.parts]
        for other in pending.waiting(run.cache, run.identity):
            theirs = [(part.place, part.request.frames) for part in other.parts]
            if other.is_held or other.version == run.version or (other.jobs and mine != theirs):
                continue
            for job in set(other.jobs) - set(run.jobs):
                _quietly(client.cancel, job)
            log.info("%s gave way to %s", other.version.folder, run.version.folder)
            jobs.discard(other.version)

    # --- waiting ---------------------------------------------------------------------------------

    def _collect(self, client: Client) -> Result:
        """Follow every part to its end and make the version final; return what is played.

        Raises:
            GencompError: Nothing came whole; why the first did not.
        """
        run = self._run
        assert run.version is not None
        made: list[tuple[Part, dict[str, Any]]] = []
        failed: dict[str, tuple[Part, GencompError]] = {}
        for part, job in zip(run.parts, run.jobs):
            if part.subfolder in failed:
                _quietly(client.cancel, job)
                continue
            try:
                made.append((part, self._fetched(client, part, job)))
            except GencompError as error:
                if isinstance(error, LinkError) and error.retryable:
                    raise
                failed[part.subfolder] = (part, error)
        whole = [one for one in made if one[0].subfolder not in failed]
        if not whole:
            raise next(iter(failed.values()))[1]
        where = caches.warnings(self._run.cache, self._settings)
        notes = [*self._left_out(failed), *self._run.ask.notes, *where]
        result = self._kept(whole, notes)
        for job in set(run.jobs):
            _quietly(client.release, job)
        return result

    def _fetched(self, client: Client, part: Part, job: str) -> "dict[str, Any]":
        """Follow one part's job, its layers into their folder; return its whole manifest."""
        run = self._run
        assert run.version is not None
        pictures = run.pictures.get(part.view)
        if pictures is None and client.job(job)["state"] == _RECEIVING:
            raise MissingFrame(
                "The inputs of the job are gone, and the server had not got all of them.",
                hint="Press Generate.",
            )
        watcher, folder = Watcher(run, self._main, part), run.version.folder / part.place
        outcome = client.follow(
            job,
            pictures=pictures,
            folder=folder,
            on_event=watcher.on_event,
            cancelled=lambda: run.is_cancelled,
        )
        run.warnings += watcher.warnings
        if outcome.state == "cancelled":
            raise Cancelled("The job was cancelled.")
        if outcome.error is not None:
            raise outcome.error
        if outcome.manifest is None:
            raise InternalError(f"The job ended as {outcome.state}, without a result.")
        asked = replace(run.ask, request=part.request)
        manifest = readback.own_words(asked, outcome.manifest, watcher.warnings, job)
        if run.merge is not None:
            manifest = merging.fill(folder, manifest, jobs.in_view(run.merge, part.view))
        return manifest

    def _left_out(self, failed: "Mapping[str, tuple[Part, GencompError]]") -> "list[str]":
        """Remove what did not come whole, and return the sentences that say so."""
        assert self._run.version is not None
        notes = []
        for subfolder, (part, error) in failed.items():
            shutil.rmtree(self._run.version.folder / subfolder, ignore_errors=True)
            if not isinstance(error, Cancelled):
                notes.append(f"There is no {part.title or subfolder}: {error}")
        stopped = sum(isinstance(error, Cancelled) for _, error in failed.values())
        if stopped:
            takes = len({part.subfolder for part in self._run.parts})
            notes.append(f"Cancelled: {takes - len(failed)} of {takes} takes are here.")
        self._run.warnings += notes
        return notes

    def _kept(
        self, whole: "Sequence[tuple[Part, Mapping[str, Any]]]", notes: "Sequence[str]"
    ) -> Result:
        """Write every manifest, the notes into the first one's, and make the version final."""
        run = self._run
        assert run.version is not None
        first, played = whole[0]
        for part, manifest in whole:
            own = manifest[readback.NODE]
            told = [*own["warnings"], *(notes if part.subfolder == first.subfolder else ())]
            keyed = {"exactly": run.key} if run.key else {}
            manifest = {**manifest, readback.NODE: {**own, "warnings": told, **keyed}}
            jobs.settle(run.version, manifest, part.place)
        run.folder = jobs.keep(run.version)
        folder = run.folder / first.subfolder / (jobs.ANY_VIEW if first.view else "")
        return readback.result_of(folder, played)

    # --- saying ----------------------------------------------------------------------------------

    def _say(self, sentence: str, note: str) -> None:
        self._run.say(self._main, sentence, note)

    def _say_start(self, text: str) -> None:
        self._say(f"{text[:1].upper()}{text[1:]}.", "starting")

    def _check_cancelled(self) -> None:
        if self._run.is_cancelled:
            raise Cancelled("The job was cancelled.")


def _pictures_again(run: Run) -> "dict[str, dict[str, dict[int, Any]]]":
    """Return what a resumed run can still send, by view: nothing of one whose files are gone."""
    found = {}
    for view, pipes in run.files.items():
        try:
            found[view] = {
                name: {n: picture_of(path) for n, path in frames.items()}
                for name, frames in pipes.items()
            }
        except GencompError as error:
            log.info("inputs are gone: %s", error)
    return found


def _note_job(run: Run) -> None:
    """Let the script remember the job. Main thread."""
    if is_attached(run.gizmo):
        node.set_job(run.gizmo, run.jobs[0])


def _quietly(ask: "Callable[[str], None]", job: str) -> None:
    """Ask the server for something of a job that nothing depends on."""
    try:
        ask(job)
    except GencompError as error:
        log.info("%s: %s", error.code, error)
