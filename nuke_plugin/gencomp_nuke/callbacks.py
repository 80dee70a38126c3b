# SPDX-License-Identifier: Apache-2.0
"""What the gizmos call: their buttons, their creation, a turned knob. The edge of the Nuke room.

Every refusal ends as a sentence on the node; nothing is raised into Nuke. The rest of the room is
imported when a button is pressed, so that a broken ZeroMQ is a sentence too and not a Nuke that
does not start.
"""

import functools
import importlib
import logging
from collections.abc import Callable
from typing import Any

import nuke
from gencomp_nuke.wrapping import put_status

log = logging.getLogger(__name__)

# What a button does, and what follows a turned knob: the module and the function, which takes the
# node. Nuke gives two names itself: showPanel, a panel that opens, and inputChange, a connection.
BUTTONS = {
    "assist": "assisting:assist",
    "resume": "resuming:resume",
    "estimate": "estimating:estimate",
    "preview": "takes:preview",
    "wedge": "takes:wedge",
    "promote": "takes:promote",
    "sheet": "takes:sheet",
    "compare_pick": "comparing:pick",
    "detect": "keying:detect",
    "key_add": "keying:add",
    "key_remove": "keying:remove",
    "key_previous": "keying:previous",
    "key_next": "keying:following",
    "point_add": "pathing:add_point",
    "point_remove": "pathing:remove_point",
    "sample": "pathing:sample",
    "sample_scale": "pathing:sample_scale",
    "placing_preview": "drawing:draw",
    "delete": "versions:delete",
    "check": "checking:check",
    "bake": "baking:bake",
    "explode": "exploding:explode",
    "example": "examples:load",
    "help": "helping:open_page",
    "preset": "presetting:apply",
    "preset_save": "presetting:save",
    "reset": "presetting:reset",
}
FOLLOWED = {
    "gc_folder": ("callbacks:play_folder", "versions:refresh", "comparing:tell"),
    "gc_take": ("takes:play",),
    "gc_compare_folder": ("comparing:tell",),
    "gc_version_pick": ("versions:pick",),
    "gc_range": ("callbacks:follow",),
    "gc_clean_cover": ("callbacks:follow",),
    "gc_missing": ("readback:follow",),
    "gc_is_key": ("keying:follow_keys",),
    "keyframes": ("keying:follow",),
    "mask_frames": ("keying:show_state",),
    "showPanel": (
        *("callbacks:follow", "pipes:follow", "keying:show_state"),
        *("versions:refresh", "presetting:refresh", "stale:check"),
    ),
    "inputChange": ("callbacks:follow", "pipes:follow", "stale:check"),
    **{f"gc_channel{slot}": ("pipes:follow",) for slot in range(1, 9)},
}

# What makes a result: where it is refused, the node has failed, red in the graph. Any other button
# that cannot do its work says why, and the node is what it was.
_MAKES = ("generate", "takes:preview", "takes:wedge", "takes:promote", "resuming:resume")


def guarded(action: "Callable[[Any], None]") -> "Callable[[Any], None]":
    """Let a button's action end in a sentence for the artist, whatever happens."""

    @functools.wraps(action)
    def button(gizmo: Any) -> None:
        try:
            action(gizmo)
        except ImportError as error:
            _say(gizmo, _lacks(error), has_failed=True)
        except Exception as error:  # The edge of the room: an artist gets a sentence.
            known = hasattr(error, "code") and hasattr(error, "hint")
            if not known:
                log.exception("%s failed", action.__name__)
            sentence = str(error) if known else f"gencomp failed ({error})."
            _say(gizmo, sentence, has_failed=not known or action.__name__ in _MAKES)

    return button


def _lacks(error: ImportError) -> str:
    """Return in a sentence which package does not load, and where it lies."""
    from gencomp_nuke import packages

    bad = ", ".join(packages.that_fail()) or str(error)
    return f"gencomp lacks a Python package here: {bad}. See install-nuke.md."


@guarded
def generate(gizmo: Any) -> None:
    """Start a job for a node; in a terminal session, wait for its end."""
    begin(gizmo)


def begin(gizmo: Any, **wanted: Any) -> None:
    """Start what a node is to generate, unless it works already; without an interface, wait.

    Args:
        gizmo: A node of ours.
        **wanted: What differs from the node's own request, as in ``runs.prepare``.

    Raises:
        GencompError: It cannot be asked for anything yet; in a terminal session also why there is
            no result.
    """
    from gencomp_nuke import node, prefs, runs

    if nuke.GUI:
        node.check_kept(gizmo)
    node.identify(gizmo)
    if running(gizmo) is None:
        start(runs.prepare(gizmo, prefs.load(), **wanted))


def start(run: Any) -> None:
    """Start a run that was prepared; without an interface, wait for its end and raise its error."""
    if nuke.GUI:
        _session().start(run)
        return
    from gencomp_nuke import batch

    batch.work(run)


def running(gizmo: Any) -> Any:
    """Return the run of a node that this session works on, or None."""
    if not _session.cache_info().currsize:
        return None
    return _session().run_of(str(gizmo["gc_id"].value()))


@guarded
def cancel(gizmo: Any) -> None:
    """Stop the job of a node, or its question to an assistant; without one nothing happens."""
    from gencomp_nuke import assisting

    assisting.stop(str(gizmo["gc_id"].value()))
    run = running(gizmo)
    if run is not None:
        run.cancel()


@guarded
def reveal(gizmo: Any) -> None:
    """Open the folder of the result in the file browser."""
    from gencomp_nuke import playing, tool
    from gencomp_protocol.errors import MissingFrame

    folder = playing.result_folder(gizmo)
    if folder is None or not folder.is_dir():
        raise MissingFrame("There is no result on disk yet.", hint="Press Generate.")
    tool.open_outside(folder)


def press(gizmo: Any, name: str) -> None:
    """Do what a button does; whatever happens ends as a sentence on the node.

    Args:
        gizmo: The node.
        name: Name of the button, as in ``BUTTONS``.
    """
    _act(gizmo, BUTTONS[name])


def _act(gizmo: Any, place: str) -> None:
    """Call ``module:function`` of this room with a node."""

    def action(node: Any) -> None:
        module, _, function = place.partition(":")
        getattr(importlib.import_module(f"{__package__}.{module}"), function)(node)

    action.__name__ = place  # What the log says has failed.
    guarded(action)(gizmo)


@guarded
def created(gizmo: Any) -> None:
    """Set up a node that was made, loaded or pasted: its identity, and what it says."""
    from gencomp_nuke import policy

    policy.watch()
    try:
        from gencomp_nuke import animation, hooks, node, resuming
    except ImportError as error:  # A farm host plays results and needs no more; Generate tells.
        log.info("results play, nothing can be generated here: %s", error)
        return
    with node.quietly():
        node.identify(gizmo)
        if nuke.GUI:
            animation.flag(gizmo)
    node.follow_inputs(gizmo)
    node.show_range_knobs(gizmo)
    resuming.loaded(gizmo)
    hooks.install()


def user_created() -> None:
    """Give a node of ours that was made by hand its defaults; Nuke's callback of a new node.

    A script that is opened, and what is pasted, is as it was saved.
    """
    gizmo = nuke.thisNode()
    if gizmo.knob("gc_system") is None:
        return
    try:
        importlib.import_module(f"{__package__}.presetting")
    except ImportError as error:  # As in created: the knobs stay as they are.
        log.info("no defaults are looked for here: %s", error)
        return
    _act(gizmo, "presetting:begin")


def knob_changed(gizmo: Any, knob: Any) -> None:
    """Follow a turned knob; runs for every knob, so it asks for the name first."""
    name = "" if knob is None else knob.name()
    for place in FOLLOWED.get(name, ()):
        try:
            importlib.import_module(f"{__package__}.{place.partition(':')[0]}")
        except ImportError as error:  # As in created: the knobs stay as they are.
            log.info("%s is not followed here: %s", name, error)
            continue
        _act(gizmo, place)
    key = gizmo.knob("gc_key")
    if key is not None and key.value():
        _keep_up(gizmo, name)


def _keep_up(gizmo: Any, name: str) -> None:
    """Let a node that plays a result say whether it is out of date, where the knob decides that."""
    try:
        from gencomp_nuke import madefrom
    except ImportError:  # As in created: the knobs stay as they are.
        return
    if madefrom.counts(gizmo, name):
        _act(gizmo, "stale:check")


def follow(gizmo: Any) -> None:
    """Let range knobs and the plate follow what was turned or connected."""
    try:
        from gencomp_nuke import node
    except ImportError:  # As in created: the knobs stay as they are.
        return
    node.follow_inputs(gizmo)
    node.show_range_knobs(gizmo)


def play_folder(gizmo: Any) -> None:
    """Play the result in the folder that an artist has chosen, frames and layers and all."""
    if not gizmo.nodes():  # A script is being opened; what is inside comes later.
        return
    try:
        from gencomp_nuke import playing, readback
    except ImportError:  # As in created: what the script says plays on.
        return
    if not playing.is_set_now(gizmo):
        readback.replay(gizmo)


def runs() -> "tuple[Any, ...]":
    """Return the runs of this Nuke, oldest first; none before the first Generate."""
    return tuple(_session().runs()) if _session.cache_info().currsize else ()


@functools.cache
def _session() -> Any:
    """Return this Nuke's one session; made when it is first needed."""
    from gencomp_nuke import session

    return session.with_interface()


def _say(gizmo: Any, sentence: str, *, has_failed: bool) -> None:
    """Put a sentence on the node, without the rest of the room; one that failed is red."""
    log.log(logging.ERROR if has_failed else logging.WARNING, "%s", sentence)
    nuke.Undo.disable()
    try:
        put_status(gizmo, sentence)
        if has_failed:
            gizmo["gc_note"].setValue("failed")
            gizmo["tile_color"].setValue(0x8F2020FF)
    finally:
        nuke.Undo.enable()
    if not nuke.GUI:
        nuke.tprint(sentence)
