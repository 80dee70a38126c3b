# SPDX-License-Identifier: Apache-2.0
"""Our nodes: which are ours, what is connected to them, and what they show.

A node of ours is known by its knob ``gc_system``, never by its class or name. Knobs listed in its
``gc_params`` are sent to the server; every other knob starts with ``gc_``, and some of these say
what pipes and layers it has (``declared.py``). ``asking.py`` reads what it asks for, ``playing.py``
makes it play a result. All of this runs on Nuke's main thread.
"""

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

import nuke
from gencomp_nuke.caches import cache_folder as cache_folder
from gencomp_nuke.declared import OMNIMATTE, Declaration, PipeSpec, declaration
from gencomp_nuke.jobs import spell
from gencomp_nuke.wrapping import put_status
from gencomp_protocol.errors import BadKnob
from gencomp_protocol.frames import FrameRange
from gencomp_protocol.request import STILLS

_UNTRAINED = "pictures mean nothing"  # Said once is enough.
IDLE, RUNNING, FAILED, STALE = "idle", "running", "failed", "stale"
OUT_OF_DATE, RESUME = "Out of date:", "resume"
# Colours of the node in the graph, 0xRRGGBBAA; 0 is Nuke's own.
_TILE = {IDLE: 0, RUNNING: 0x7F6A1FFF, FAILED: 0x8F2020FF, STALE: 0xC8801FFF}

# --- which nodes are ours ------------------------------------------------------------------------


def is_ours(node: Any) -> bool:
    """Tell whether a node was made from one of our gizmos."""
    return node is not None and node.knob("gc_system") is not None


def identify(node: Any) -> str:
    """Give a node an identity where it has none or shares one; return it.

    A copied node carries the original's knobs: it keeps playing that result and gets a folder of
    its own for the next.
    """
    mine = str(node["gc_id"].value())
    twins = [n for n in in_script() if n["gc_id"].value() == mine and not _same(n, node)]
    if not mine or twins:
        mine = uuid.uuid4().hex[:8]
        with quietly():
            node["gc_id"].setValue(mine)
    return mine


def check_kept(node: Any) -> None:
    """Refuse a node that a script elsewhere keeps: what it plays would be lost with the session.

    Raises:
        BadKnob: It lies in a Precomp, or in a LiveGroup that is published; says where.
    """
    places = str(node.fullName()).split(".")
    for count in range(1, len(places)):
        above = nuke.root().node(".".join(places[:count]))
        if above.Class() == "Precomp":
            raise BadKnob(
                f"{node.name()} lies in {above.name()}, and is kept in {above['file'].evaluate()}.",
                hint="Open that script, generate there and save it; then reload the Precomp.",
            )
        published = above.knob("published") if above.Class() == "LiveGroup" else None
        if published is not None and published.value():
            raise BadKnob(
                f"{node.name()} lies in {above.name()}, which is published.",
                hint="Press Make Editable on it, generate, and publish it again.",
            )


def in_script() -> "list[Any]":
    """Return every node of ours in the script, in groups too."""
    return [n for n in nuke.allNodes(group=nuke.root(), recurseGroups=True) if is_ours(n)]


def _same(a: Any, b: Any) -> bool:
    return bool(a.fullName() == b.fullName())


def declared(node: Any) -> Declaration:
    """Return what a node says of its pipes and layers; one from before that is an Omnimatte."""
    told = {name: str(node[name].value()) for name in OMNIMATTE if name in node.knobs()}
    return declaration(told)


# --- what is connected ---------------------------------------------------------------------------


def frame_range(node: Any) -> FrameRange:
    """Return the frames that a node is to generate.

    Raises:
        BadKnob: The range runs backwards.
    """
    choice = node["gc_range"].value()
    lead = lead_pipe(node, declared(node))
    if choice == "custom":
        asked = FrameRange(int(node["gc_first"].value()), int(node["gc_last"].value()))
    elif choice == "project" or lead is None:
        root = nuke.root()
        asked = FrameRange(int(root["first_frame"].value()), int(root["last_frame"].value()))
    else:
        return range_of(node, lead.pipe)
    handles = int(node["gc_handles"].value()) if "gc_handles" in node.knobs() else 0
    if not handles:
        return asked
    return with_handles(asked, handles, None if lead is None else range_of(node, lead.pipe))


def with_handles(asked: FrameRange, handles: int, there: Optional[FrameRange]) -> FrameRange:
    """Return frames with as many more at both ends, as far as the plate has them.

    Args:
        asked: The frames.
        handles: How many more, >= 0.
        there: Frames of the plate; None where it has no range.
    """
    first, last = asked.first - handles, asked.last + handles
    if there is not None:
        first = min(asked.first, max(first, there.first))
        last = max(asked.last, min(last, there.last))
    return FrameRange(first, last)


def lead_pipe(node: Any, told: Declaration) -> Optional[PipeSpec]:
    """Return the pipe that is the plate: the first of its kind that is connected, or None."""
    leads = [spec for spec in told.pipes if spec.is_lead]
    return next((spec for spec in leads if connected(node, spec.pipe) is not None), None)


def server_address(node: Any) -> str:
    """Return the address typed on the node, or an empty text for ``auto``."""
    text = str(node["gc_server"].value()).strip()
    return "" if text in ("", "auto") else text


def all_connected(node: Any, told: Declaration) -> "list[PipeSpec]":
    """Return the pipes that are connected, in their order."""
    return [spec for spec in told.pipes if connected(node, spec.pipe) is not None]


def connected(node: Any, pipe: str) -> Any:
    """Return the node at the other end of a pipe, or None."""
    inner = node.node(pipe)
    return None if inner is None else node.input(int(inner["number"].value()))


def range_of(node: Any, pipe: str) -> FrameRange:
    """Return the frames of the node at the other end of a pipe."""
    found = connected(node, pipe).frameRange()
    return FrameRange(int(found.first()), int(found.last()))


# --- what a node shows ---------------------------------------------------------------------------


@contextlib.contextmanager
def quietly() -> "Iterator[None]":
    """Keep what is set inside out of the undo list, and a script that was saved as saved.

    Nobody wants to undo a progress bar, nor to be asked to save one.
    """
    was_modified = bool(nuke.modified())
    nuke.Undo.disable()
    try:
        yield
    finally:
        nuke.Undo.enable()
        if not was_modified:
            nuke.modified(False)


def show(node: Any, sentence: str, state: str, note: str = "") -> None:
    """Put a sentence on the node, a word or two under its name, and the colour of its state."""
    with quietly():
        put_status(node, sentence)
        node["gc_note"].setValue(note)
        if int(node["tile_color"].value()) != _TILE[state]:
            node["tile_color"].setValue(_TILE[state])


def show_result(node: Any, notes: "Sequence[str]" = ()) -> None:
    """Say on the node which result it plays, with notes on it, or that there is none."""
    folder = str(node["gc_folder"].evaluate() or "")
    if not folder:
        show(node, declared(node).hint, IDLE)
        return
    first, last = (int(node[f"gc_result_{end}"].value()) for end in ("first", "last"))
    name = spell(Path(folder))
    made = made_with(node)
    notes = [note for note in notes if _UNTRAINED not in note or _UNTRAINED not in made]
    sentence = f"Plays {name}, frames {FrameRange(first, last)}.{made}"
    sentence += f" Note: {' '.join(notes)}" if notes else ""
    from gencomp_nuke import madefrom  # It reads nodes: imported above, this would be a circle.

    changed = madefrom.changed(node)
    if changed:
        show(node, f"{OUT_OF_DATE} {changed} since. {sentence}", STALE, f"{name}, out of date")
    else:
        show(node, sentence, IDLE, name)


def state_of(node: Any) -> str:
    """Return the state that a node shows by its colour; one coloured by an artist is idle."""
    tile = int(node["tile_color"].value())
    return next((state for state, colour in _TILE.items() if colour == tile), IDLE)


def tell(node: Any, sentence: str) -> None:
    """Say how a button ended; the state of the node stays, but for a failure that is over."""
    if node["gc_note"].value() == FAILED:
        show_result(node)
    with quietly():
        put_status(node, sentence)


def made_with(node: Any) -> str:
    """Return the sentence that names the result's video model, a space before; empty for none."""
    # A node of a script from before video models has no such knob.
    text = str(node["gc_backbone"].value()) if "gc_backbone" in node.knobs() else ""
    return f" Made with {text}." if text else ""


def show_range_knobs(node: Any) -> None:
    """Let first and last be typed only where the range is custom."""
    custom = node["gc_range"].value() == "custom"
    for name in ("gc_first", "gc_last"):
        node[name].setEnabled(custom)
    if "gc_clean_cover" in node.knobs():
        node["gc_clean_frames"].setEnabled(node["gc_clean_cover"].value() == STILLS)


def follow_inputs(node: Any) -> None:
    """Let what passes through an ungenerated node be the pipe that is its plate.

    An expression cannot ask what is connected, so a knob that the script keeps says it.
    """
    if "gc_lead" not in node.knobs():
        return
    told = declared(node)
    lead = lead_pipe(node, told)
    leads = [spec for spec in told.pipes if spec.is_lead]
    place = 0 if lead is None else leads.index(lead)
    if int(node["gc_lead"].value()) != place:
        with quietly():
            node["gc_lead"].setValue(place)


def set_job(node: Any, job: str) -> None:
    """Remember the job that a node waits for; empty when there is none."""
    with quietly():
        node["gc_job"].setValue(job)


@contextlib.contextmanager
def full_resolution() -> "Iterator[None]":
    """Switch the script's proxy off, and back to what it was."""
    proxy = nuke.root()["proxy"]
    was = bool(proxy.value())
    if was:
        with quietly():
            proxy.setValue(False)
    try:
        yield
    finally:
        if was:
            with quietly():
                proxy.setValue(True)


@contextlib.contextmanager
def originals() -> "Iterator[None]":
    """Let Reads read the files that they name, and not Nuke's local copies of them.

    A copy may be older than its original, and what is sent goes by the original. Where nothing is
    localised, nothing is switched.
    """
    localization = getattr(nuke, "localization", None)
    if localization is None or not localization.localizedPaths():
        yield
        return
    was = str(localization.mode())
    localization.setMode("off")
    try:
        yield
    finally:
        localization.setMode(was)


@contextlib.contextmanager
def rendering(node: Any, folder: Path) -> "Iterator[None]":
    """Switch the inner Writes on, into ``folder``, and off again whatever happens."""
    with quietly():
        node["gc_export"].setValue(folder.as_posix())
        node["gc_rendering"].setValue(True)
    try:
        with originals():
            yield
    finally:
        with quietly():
            node["gc_rendering"].setValue(False)
            node["gc_export"].setValue("")
