# SPDX-License-Identifier: Apache-2.0
"""Nodes of older releases: they stay as they are, are told of, and are renewed where one asks.

A node is a Group, so a script keeps the node that it was made with. Knobs are never renamed and a
node without the newer ones works as it did; nothing is added to it behind anybody's back. *Renew*
puts a node of this release in its place: same name, place, connections, values, animation and
result. All of this runs on Nuke's main thread.
"""

import logging
from pathlib import Path
from typing import Any

import nuke

log = logging.getLogger(__name__)

SCHEMA = 2  # Of the knobs of the nodes that this release makes.
RENEW = "Renew older nodes"
_GIZMOS = Path(__file__).resolve().parent.parent.parent / "gizmos"
# What a node of this release says of itself; and what belongs to the old one's result or is set by
# playing it.
_SAYS = ("schema", "version", "about", "system", "params", "pipes", "needs", "layers", "outputs")
_PLAYS = ("id", "job", "rendering", "export", "status", "note", "folder", "key", "take_count")
_RESULT = ("preset", "coordinates", "hint", "result_first", "result_last", "plan", "lead")
_ITS_OWN = frozenset(f"gc_{name}" for name in _SAYS + _PLAYS + _RESULT)
_PLACED = ("xpos", "ypos", "disable", "hide_input", "postage_stamp", "note_font_size")
_NO_VALUE = ("Tab_Knob", "Text_Knob", "PyScript_Knob", "BeginTabGroup_Knob", "EndTabGroup_Knob")


class _InputChange:
    """The knob that Nuke names when a connection changes."""

    @staticmethod
    def name() -> str:
        """Return that name."""
        return "inputChange"


def schema_of(gizmo: Any) -> int:
    """Return the version of a node's knobs; a node without one is of the first."""
    knob = gizmo.knob("gc_schema")
    return 1 if knob is None else max(1, int(knob.value()))


def told(schema: int) -> str:
    """Return the sentence for a node whose knobs are of another version than this release's."""
    if schema > SCHEMA:
        return (
            "This node was made with a newer gencomp. It plays its result; to generate, install "
            "that release here."
        )
    return (
        "This node was made with an older gencomp and works as it did. The menu gencomp > "
        f"{RENEW} gives it the new knobs; its values and its result stay."
    )


def others() -> "list[Any]":
    """Return our nodes in the script whose knobs are of another version, in groups too."""
    found = nuke.allNodes("Group", group=nuke.root(), recurseGroups=True)
    return [n for n in found if n.knob("gc_system") is not None and schema_of(n) != SCHEMA]


def tell() -> None:
    """Say which nodes of an opened script are of another release; a callback, so it never raises.

    Does nothing to them.
    """
    try:
        for older in (True, False):
            found = [node for node in others() if (schema_of(node) < SCHEMA) is older]
            if found:
                names = ", ".join(sorted(str(node.fullName()) for node in found))
                nuke.tprint(f"gencomp: {names}. {told(schema_of(found[0]))}")
    except Exception:  # The edge of the room: a script has to open.
        log.exception("older nodes could not be looked for")


def renew_all() -> None:
    """Renew every older node of the script, after asking: a command of the menu."""
    found = [node for node in others() if schema_of(node) < SCHEMA]
    names = ", ".join(sorted(str(node.fullName()) for node in found))
    if not found:
        nuke.message("Every node of gencomp in this script is of this release.")
        return
    question = f"Put nodes of this release in the place of {names}? Values and results stay."
    if not nuke.ask(question):
        return
    refused = [text for text in map(_renewed, found) if text]
    if refused:
        nuke.message("\n".join(refused))


def _renewed(gizmo: Any) -> str:
    """Renew a node; return why it cannot be, or an empty text."""
    from gencomp_protocol.errors import GencompError

    try:
        renew(gizmo)
    except GencompError as error:
        return str(error)
    return ""


def renew(gizmo: Any) -> Any:
    """Put a node of this release in the place of an older one, in one step of undo.

    Args:
        gizmo: The older node; it is gone afterwards.

    Returns:
        The new node, of the same name.

    Raises:
        BadKnob: There is no gizmo for its system here, or a new node could not play its result.
    """
    from gencomp_nuke import presetting  # It asks this module which gizmo a node is of.

    kind, name = kind_of(gizmo), str(gizmo.name())
    _check_result(gizmo)
    with nuke.Undo(f"Renew {name}"), _parent(gizmo):
        for node in nuke.selectedNodes():  # Nuke connects a new node to what is selected.
            node.setSelected(False)
        with presetting.as_shipped():  # What the older node lacks does as it did.
            made = nuke.createNode(kind, "", False)
        _take_values(made, gizmo)
        _take_connections(made, gizmo)
        identity, folder, job = (gizmo[k].toScript() for k in ("gc_id", "gc_folder", "gc_job"))
        nuke.delete(gizmo)
        made.setName(name)
        made["gc_id"].fromScript(identity)
        made["gc_job"].fromScript(job)
        made["gc_folder"].fromScript(folder)
        _play(made)
    log.info("%s was renewed", name)
    return made


def kind_of(gizmo: Any) -> str:
    """Return the name of the gizmo file that makes such a node.

    Raises:
        BadKnob: There is none here.
    """
    from gencomp_protocol.errors import BadKnob

    system = str(gizmo["gc_system"].value())
    for path in sorted(_GIZMOS.glob("*.gizmo")):
        if path.stem.lower() == system:
            return path.stem
    raise BadKnob(
        f"{gizmo.name()} is a node of '{system}', of which there is no gizmo in {_GIZMOS}.",
        hint="Install the release of gencomp that has it.",
    )


def _parent(gizmo: Any) -> Any:
    """Return the group that a node lies in, to work in."""
    return gizmo.parent() or nuke.root()


def _take_values(made: Any, old: Any) -> None:
    """Give a node every value, curve and expression of another that it has a knob for."""
    ours = [name for name in old.knobs() if name.startswith("gc_") and name not in _ITS_OWN]
    sent = str(old["gc_params"].value()).split()
    for name in (*_PLACED, *ours, *sent):
        knob, source = made.knob(name), old.knob(name)
        if knob is None or source is None or source.Class() in _NO_VALUE:
            continue
        knob.fromScript(source.toScript())


def _take_connections(made: Any, old: Any) -> None:
    """Connect a node as another is, pipe by pipe by their names, and let what followed it follow.

    Pipes of a family that are not there yet appear.
    """
    from gencomp_nuke import callbacks, pipes

    inputs = sorted(old.nodes(), key=_number)
    for pipe in (node for node in inputs if node.Class() == "Input"):
        source = old.input(_number(pipe))
        if source is None:
            continue
        pipes.ensure(made, pipe.name())
        own = made.node(pipe.name())
        if own is not None:
            made.setInput(_number(own), source)
            callbacks.knob_changed(made, _InputChange)
    for node in old.dependent(nuke.INPUTS):
        for index in range(node.inputs()):
            if node.input(index) is not None and _same(node.input(index), old):
                node.setInput(index, made)


def _number(node: Any) -> int:
    """Return the number of an Input; 0 for any other node."""
    return int(node["number"].value()) if node.Class() == "Input" else 0


def _same(a: Any, b: Any) -> bool:
    return bool(a.fullName() == b.fullName())


def _check_result(gizmo: Any) -> None:
    """Refuse a node whose result does not say the names by which another node could play it.

    Raises:
        BadKnob: It is from before manifests said them.
    """
    from gencomp_nuke import playing, readback
    from gencomp_protocol.errors import BadKnob, MissingFrame

    folder = playing.result_folder(gizmo)
    try:
        is_known = folder is None or readback.kept(folder) is not None
    except MissingFrame:  # It is away, and the new node says so as the old one did.
        return
    if not is_known:
        raise BadKnob(
            f"{gizmo.name()} plays a result that only this node knows how to play.",
            hint="Keep the node, or empty 'result' on its tab Cache & Server first.",
        )


def _play(made: Any) -> None:
    """Let a node play the result that its folder knob names; say so where it cannot."""
    from gencomp_nuke import callbacks, node

    run = callbacks.running(made)
    if run is not None:  # Its job goes on, and ends on this node now.
        run.attach(made)
    if str(made["gc_folder"].evaluate() or ""):
        callbacks.guarded(callbacks.play_folder)(made)
    else:
        node.show_result(made)
