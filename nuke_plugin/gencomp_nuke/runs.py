# SPDX-License-Identifier: Apache-2.0
"""One press of a button that generates: a node, the jobs it means, and how that ended.

A **run** makes one version folder. It consists of **parts**: each is one job on the server, all of
them work on the same rendered inputs and are handed in at once, so that the server prepares and
encodes only once. A plain Generate is a run of one part. Takes and views are more::

    Part(request)                                          v003/background/background.1001.exr …
    Part(request, "take01", title="take 1")                v003/take01/background/…
    Part(request, "take01", "left", "take 1, left")        v003/take01/left/background/…

Each part's folder has a manifest of its own. To generate something else than a node says, give
:func:`prepare` a function that turns the node's request into parts, and start what it returns::

    def wedge(request):
        return [
            Part(replace(request, knobs={**request.knobs, "seed": n}), f"take{n:02d}",
                 title=f"take {n}")
            for n in (1, 2, 3)
        ]

    callbacks.begin(gizmo, vary=wedge)

Parts may differ from the node's own request by their knobs alone; other frames than the node's are
asked for by ``frames`` (a preview of 17 frames is a run of one part, drafted). Views need no word:
where the script has several, every part becomes one per view. A take of which one part fails is
left out, the others are kept, and the node says so; of a cancelled wedge what is whole is kept.
When all has ended the node plays the first part, ``v003/take01`` or ``v003/take01/%V``, its knob
``gc_take_count`` says how many takes that version has and ``gc_take`` which it plays; then
``on_end`` is called, on the main thread, with the run: ``run.folder`` is the version, or None.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

import nuke
from gencomp_nuke import asking, jobs, merging, node
from gencomp_nuke.doing import Doing, saying
from gencomp_nuke.mainthread import MainThread
from gencomp_nuke.prefs import Prefs
from gencomp_protocol import Picture
from gencomp_protocol.errors import GencompError
from gencomp_protocol.frames import FrameRange
from gencomp_protocol.request import Request

Vary = Callable[[Request], Sequence["Part"]]


@dataclass(frozen=True)
class Part:
    """One job of a run.

    Attributes:
        request: What it asks for.
        subfolder: Folder inside the version, such as ``take02``; empty: the version's own. Parts
            with the same are whole together or not at all.
        view: The view of the script whose pictures it takes; empty: the first.
        title: What the node calls it while it runs; empty where there is only one.
    """

    request: Request
    subfolder: str = ""
    view: str = ""
    title: str = ""

    @property
    def place(self) -> str:
        """Return where its result lies in the version; empty for the version's own folder."""
        return "/".join(word for word in (self.subfolder, self.view) if word)


class Run:
    """One press of a button, its parts, and how that ended.

    Args:
        gizmo: The node; touched on the main thread only.
        ask: What it asked for when the button was pressed: where inputs come from.
        cache: Folder of its results.
        address: Address typed on the node; empty for none.
        parts: Its jobs; none: one, of the ask's own request.
        merge: Folder of the result into which the new frames are merged; None for none.
        on_end: Called on the main thread once the node says how it ended.

    Attributes:
        jobs: Id of every part's job once they are handed in; a resumed run has them from the start.
        version: The version that is being made, once it is.
        files: The inputs as files, by view, input and frame.
        pictures: What of them can be sent, in the same order.
        folder: The final folder of the version; None where there is no result.
        error: Why there is none.
        key: What it is made from, where somebody will look for that; goes into the manifest.
        listener: Called on the background thread with every event of its jobs; None for nobody.
        can_go_on: Whether its jobs are still there, for another run to take up.
        warnings: Sentences for the artist.
        doing: How far it is, for the Jobs panel.
    """

    def __init__(
        self,
        gizmo: Any,
        ask: asking.Ask,
        cache: Path,
        address: str = "",
        *,
        parts: "Sequence[Part]" = (),
        merge: Optional[Path] = None,
        on_end: "Optional[Callable[[Run], None]]" = None,
    ) -> None:
        self.gizmo, self.ask, self.cache, self.address = gizmo, ask, cache, address
        self.parts = tuple(parts) or (Part(ask.request),)
        self.merge, self.on_end = merge, on_end
        self.identity = str(gizmo["gc_id"].value())
        self.jobs: tuple[str, ...] = ()
        self.version: Optional[jobs.Version] = None
        self.files: dict[str, dict[str, dict[int, Path]]] = {}
        self.pictures: dict[str, dict[str, dict[int, Picture]]] = {}
        self.folder: Optional[Path] = None
        self.error: Optional[GencompError] = None
        self.key = ""
        self.listener: Optional[Callable[[Any], None]] = None
        self.can_go_on = False
        self.warnings: list[str] = []
        self.doing = Doing()
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

    def attach(self, gizmo: Any) -> None:
        """Let another node show it: the same one, after its script was opened again."""
        self.gizmo = gizmo

    def say(self, main: MainThread, sentence: str, note: str) -> None:
        """Show a sentence on the node; one that was not shown yet is overtaken by the next."""
        self.doing = saying(self.doing, sentence)
        with self._lock:
            waiting, self._latest = self._latest, (sentence, note)
        if waiting is None:
            main.post(self._show_latest)

    def _show_latest(self) -> None:
        with self._lock:
            latest, self._latest = self._latest, None
        if latest is not None and not self.is_over and is_attached(self.gizmo):
            node.show(self.gizmo, latest[0], node.RUNNING, latest[1])


def only(request: Request) -> "tuple[Part, ...]":
    """Return what a plain Generate means: one part."""
    return (Part(request),)


def prepare(
    gizmo: Any,
    settings: Prefs,
    vary: Vary = only,
    *,
    frames: Optional[FrameRange] = None,
    on_end: "Optional[Callable[[Run], None]]" = None,
) -> Run:
    """Read a node into a run that can be started. Main thread only.

    Args:
        gizmo: A node of ours.
        settings: Settings of the user.
        vary: Turns the node's request into the parts.
        frames: Frames to generate instead of the node's; such a run is never merged.
        on_end: Called on the main thread once the node says how it ended.

    Raises:
        MissingInput, BadName, BadKnob: The node cannot be asked for anything yet.
    """
    node.identify(gizmo)
    asked = asking.ask(gizmo, frames)
    parts = each_view(vary(asked.request), nuke.views())
    merge = merging.base_of(gizmo, asked) if vary is only and frames is None else None
    cache = node.cache_folder(gizmo, settings)
    address = node.server_address(gizmo)
    return Run(gizmo, asked, cache, address, parts=parts, merge=merge, on_end=on_end)


def each_view(parts: "Sequence[Part]", views: "Sequence[str]") -> "tuple[Part, ...]":
    """Return one part per view of the script, where it has several."""
    if len(views) < 2:
        return tuple(parts)
    return tuple(
        replace(part, view=view, title=", ".join(filter(None, (part.title, f"view {view}"))))
        for part in parts
        for view in views
    )


def is_attached(gizmo: Any) -> bool:
    """Tell whether a node still exists. Main thread only."""
    try:
        gizmo.fullName()
    except ValueError:  # Nuke's way to say that a node was deleted.
        return False
    return True
