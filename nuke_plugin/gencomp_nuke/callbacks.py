# SPDX-License-Identifier: Apache-2.0
"""What the gizmos call: their buttons, their creation, a turned knob. The edge of the Nuke room.

Every refusal ends as a sentence on the node; nothing is raised into Nuke. The rest of the room is
imported when a button is pressed, so that a broken ZeroMQ is a sentence too and not a Nuke that
does not start.
"""

import functools
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import nuke
from gencomp_nuke.wrapping import wrapped

log = logging.getLogger(__name__)

# Nuke gives the last two itself: a panel that opens, and a connection that changes.
_FOLLOWED = ("gc_range", "gc_clean_cover", "showPanel", "inputChange")


def guarded(action: "Callable[[Any], None]") -> "Callable[[Any], None]":
    """Let a button's action end in a sentence for the artist, whatever happens."""

    @functools.wraps(action)
    def button(gizmo: Any) -> None:
        try:
            action(gizmo)
        except ImportError as error:
            _tell(gizmo, f"gencomp lacks a Python package here ({error}). See install-nuke.md.")
        except Exception as error:  # The edge of the room: an artist gets a sentence.
            known = hasattr(error, "code") and hasattr(error, "hint")
            if not known:
                log.exception("%s failed", action.__name__)
            _tell(gizmo, str(error) if known else f"gencomp failed ({error}).")

    return button


@guarded
def generate(gizmo: Any) -> None:
    """Start a job for a node; in a terminal session, wait for its end."""
    if not nuke.GUI:
        from gencomp_nuke import batch

        batch.generate(gizmo)
        return
    from gencomp_nuke import asking, node, prefs
    from gencomp_nuke.session import Run

    settings = prefs.load()
    if _session().run_of(node.identify(gizmo)) is not None:
        return
    ask = asking.ask(gizmo)
    cache = node.cache_folder(gizmo, settings)
    _session().start(Run(gizmo, ask, cache, node.server_address(gizmo)))


@guarded
def assist(gizmo: Any) -> None:
    """Let an assistant write a node's texts, once the artist has seen what would leave."""
    from gencomp_nuke import assisting

    assisting.assist(gizmo)


@guarded
def cancel(gizmo: Any) -> None:
    """Stop the job of a node, or its question to an assistant; without one nothing happens."""
    from gencomp_nuke import assisting

    assisting.stop(str(gizmo["gc_id"].value()))
    run = _session().run_of(str(gizmo["gc_id"].value()))
    if run is not None:
        run.cancel()


@guarded
def reveal(gizmo: Any) -> None:
    """Open the folder of the result in the file browser."""
    from gencomp_nuke import playing
    from gencomp_protocol.errors import MissingFrame

    folder = playing.result_folder(gizmo)
    if folder is None or not folder.is_dir():
        raise MissingFrame("There is no result on disk yet.", hint="Press Generate.")
    if sys.platform == "win32":
        os.startfile(str(folder))
        return
    opener = "open" if sys.platform == "darwin" else "xdg-open"
    subprocess.Popen([opener, str(folder)])


@guarded
def created(gizmo: Any) -> None:
    """Set up a node that was made, loaded or pasted: its identity, and what it says."""
    try:
        from gencomp_nuke import node
    except ImportError as error:  # A farm host plays results and needs no more; Generate tells.
        log.info("results play, nothing can be generated here: %s", error)
        return
    with node.quietly():
        node.identify(gizmo)
    node.follow_inputs(gizmo)
    node.show_range_knobs(gizmo)
    node.show_result(gizmo)


def knob_changed(gizmo: Any, knob: Any) -> None:
    """Follow a turned knob; runs for every knob, so it asks for the name first."""
    name = "" if knob is None else knob.name()
    if name == "gc_folder":
        _play_folder(gizmo)
    elif name in _FOLLOWED:
        _follow(gizmo)


@guarded
def _follow(gizmo: Any) -> None:
    try:
        from gencomp_nuke import node
    except ImportError:  # As in created: the knobs stay as they are.
        return
    node.follow_inputs(gizmo)
    node.show_range_knobs(gizmo)


@guarded
def _play_folder(gizmo: Any) -> None:
    """Play the result in the folder that an artist has chosen, frames and layers and all."""
    if not gizmo.nodes():  # A script is being opened; what is inside comes later.
        return
    try:
        from gencomp_nuke import readback
    except ImportError:  # As in created: what the script says plays on.
        return
    readback.replay(gizmo)


@functools.cache
def _session() -> Any:
    """Return this Nuke's one session; made when it is first needed."""
    from gencomp_nuke import prefs, session

    return session.with_interface(prefs.load())


def _tell(gizmo: Any, sentence: str) -> None:
    """Put a sentence on the node, without the rest of the room."""
    log.error("%s", sentence)
    nuke.Undo.disable()
    try:
        gizmo["gc_status"].setValue(wrapped(sentence))
        gizmo["gc_note"].setValue("failed")
        gizmo["tile_color"].setValue(0x8F2020FF)
    finally:
        nuke.Undo.enable()
    if not nuke.GUI:
        nuke.tprint(sentence)
