# SPDX-License-Identifier: Apache-2.0
"""Explode: a result's layers as one column of Reads, and the Merges that put them together.

::

    Omnimatte        residual + front over ... over back over background        is the plate
    fg and bg apart  effect_over over Fg over effect_under over Bg              is the result
    GenComposite     element_b over interaction_b over element_a over ... over Bg
    all others       effect over the plate

The nodes are plain ones beside the node, called after it and their layer. Pressed again they play
the result that the node plays now; what was put between them stays, unless the layers or their
order are others. Reads play every frame that was delivered, handles included. Main thread only.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import nuke
from gencomp_nuke import beside, jobs, node, readback
from gencomp_nuke.declared import Declaration, layer_of
from gencomp_protocol.errors import MissingFrame, MissingInput
from gencomp_protocol.layers import BACKGROUND, EFFECT, ORIGIN, RESIDUAL

_OVER, _PLUS = "over", "plus"
_UNDER_LAYER, _OVER_LAYER = "effect_under", "effect_over"
_STEP_PX, _ASIDE_PX = 130, 200


@dataclass(frozen=True)
class Step:
    """One Merge of the tree.

    Attributes:
        layer: Layer that comes in on A; empty where a pipe of the node does.
        pipe: That pipe.
        operation: Of the Merge.
    """

    layer: str = ""
    pipe: str = ""
    operation: str = _OVER

    @property
    def name(self) -> str:
        """Return what the Merge is called by, behind the node's name."""
        return f"{self.operation}_{self.layer or self.pipe}"


@dataclass(frozen=True)
class Tree:
    """How layers go together.

    Attributes:
        layer: Layer beneath everything; empty where a pipe is.
        pipe: That pipe.
        steps: What goes over it, the lowest first.
    """

    steps: "tuple[Step, ...]"
    layer: str = ""
    pipe: str = ""


def explode(gizmo: Any) -> None:
    """Make the column and the tree of the result that a node plays, or bring them up to date.

    Args:
        gizmo: The node.

    Raises:
        MissingFrame: It plays nothing yet.
        MissingInput: What the layers go over is not connected any more.
    """
    folder = readback.played(gizmo)
    if folder is None:
        raise MissingFrame("There is no result to explode yet.", hint="Press Generate first.")
    manifest = readback.manifest_of(folder)
    frames = {name: ns for name, ns in jobs.delivered(manifest).items() if name != ORIGIN}
    tree = tree_of(gizmo, node.declared(gizmo), manifest, tuple(frames))
    with beside.beside(gizmo, f"Explode {gizmo.name()}"):
        rows = _rows(gizmo, tree, tuple(frames))
        reads = {layer: _read(gizmo, layer, frames[layer], row) for layer, row in rows.items()}
        last, is_rewired = _merged(gizmo, tree, reads)
    rewired = " The layers are others now, so the Merges were connected anew." if is_rewired else ""
    node.tell(
        gizmo,
        f"{len(reads)} layers of {jobs.spell(folder)} beside this node; {last.name()} puts them "
        f"together.{rewired}",
    )


def tree_of(
    gizmo: Any, told: Declaration, manifest: "dict[str, Any]", layers: "tuple[str, ...]"
) -> Tree:
    """Return how the layers of a result go together.

    Args:
        gizmo: The node, for what is connected.
        told: What it says of itself.
        manifest: Of the result.
        layers: Its layers.
    """
    own = manifest.get(readback.NODE, {})
    if BACKGROUND in layers:
        front_first = [str(name) for name in own.get("order", ()) if name in layers]
        steps = [Step(name) for name in reversed(front_first)]
        steps += [Step(RESIDUAL, operation=_PLUS)] if RESIDUAL in layers else []
        return Tree(tuple(steps), layer=BACKGROUND)
    lead = node.lead_pipe(gizmo, told)
    pipe = "" if lead is None else lead.pipe
    if _UNDER_LAYER in layers:
        steps = [Step(_UNDER_LAYER), Step(pipe="Fg"), Step(_OVER_LAYER)]
        return Tree(tuple(steps), pipe="Bg")
    names = [str(name) for _, name in sorted(own.get("slots", {}).items())] or [""]
    placed = [
        Step(layer)
        for name in names
        for layer in (layer_of("interaction_*", name), layer_of("element_*", name))
        if layer in layers
    ]
    return Tree(tuple(placed or [Step(EFFECT)]), pipe=pipe)


# --- nodes ---------------------------------------------------------------------------------------


def _rows(gizmo: Any, tree: Tree, layers: "tuple[str, ...]") -> "dict[str, int]":
    """Return the row of every layer: beside its Merge, and below them what is in no Merge.

    A layer that is new to a column keeps clear of the rows that others have already.
    """
    wanted = [tree.layer, *(step.layer for step in tree.steps)]
    y = beside.origin(gizmo)[1]
    there = [_mine(gizmo, layer, "Read") for layer in layers]
    taken = {round((int(read.ypos()) - y) / _STEP_PX) for read in there if read is not None}
    rows: dict[str, int] = {}
    for layer in sorted(layers, key=lambda name: (name not in wanted, name)):
        row = wanted.index(layer) if layer in wanted else len(wanted)
        while row in taken:
            row += 1
        taken.add(row)
        rows[layer] = row
    return dict(sorted(rows.items(), key=lambda item: item[1]))


def _read(gizmo: Any, layer: str, frames: "tuple[int, ...]", place: int) -> Any:
    """Return the Read of a layer, made or found, playing the frames that were delivered."""
    found = _mine(gizmo, layer, "Read")
    if found is None:
        found = beside.make("Read", _name(gizmo, layer))
        x, y = beside.origin(gizmo)
        found.setXYpos(x, y + place * _STEP_PX)
    folder = _folder(gizmo)
    wanted = {
        "file": f"{folder}/{layer}/{layer}.%04d.exr",
        "first": min(frames),
        "last": max(frames),
        "origfirst": min(frames),
        "origlast": max(frames),
        "origset": True,
        "raw": True,
    }
    wanted.update(_beyond(gizmo))
    for knob, value in wanted.items():
        found[knob].setValue(value)
    found["reload"].execute()
    return found


def _beyond(gizmo: Any) -> "dict[str, str]":
    """Return what a Read gives outside its range and at a missing frame; an older node says none.

    The menus of the node have the words of a Read.
    """
    of_read = {"before": "gc_outside", "after": "gc_outside", "on_error": "gc_missing"}
    known = gizmo.knobs()
    return {knob: str(gizmo[own].value()) for knob, own in of_read.items() if own in known}


def _folder(gizmo: Any) -> str:
    """Return the folder that a node plays, spelt as the script spells it."""
    text = str(gizmo["gc_folder"].getText())
    return text if "[" in text else Path(str(gizmo["gc_folder"].evaluate())).as_posix()


def _merged(gizmo: Any, tree: Tree, reads: "dict[str, Any]") -> "tuple[Any, bool]":
    """Return the last Merge, and whether Merges that were there had to be connected anew."""
    merges, is_new = [], []
    x, y = beside.origin(gizmo)
    for place, step in enumerate(tree.steps):
        found = _mine(gizmo, step.name, "Merge2")
        is_new.append(found is None)
        if found is None:
            found = beside.make("Merge2", _name(gizmo, step.name))
            found.setXYpos(x + _ASIDE_PX, y + (place + 1) * _STEP_PX)
        found["operation"].setValue(step.operation)
        merges.append(found)
    base = reads[tree.layer] if tree.layer else _connected(gizmo, tree.pipe)
    if any(is_new) or not _is_chain(merges):
        beneath = base
        for step, merge in zip(tree.steps, merges):
            merge.setInput(0, beneath)
            merge.setInput(1, reads[step.layer] if step.layer else _connected(gizmo, step.pipe))
            beneath = merge
        return merges[-1] if merges else base, bool(merges) and not all(is_new)
    return merges[-1] if merges else base, False


def _is_chain(merges: "list[Any]") -> bool:
    """Tell whether each Merge lies over the one before it, whatever was put between."""
    names = {merge.name() for merge in merges}
    for below, above in zip(merges, merges[1:]):
        found = above.input(0)
        while found is not None and found.name() not in names:
            found = found.input(0)
        if found is None or found.name() != below.name():
            return False
    return True


def _connected(gizmo: Any, pipe: str) -> Any:
    source = node.connected(gizmo, pipe) if pipe else None
    if source is None:
        raise MissingInput(
            f"Nothing is connected to {pipe or 'the plate'} of {gizmo.name()}, which the layers "
            "go over.",
            hint="Connect it and press the button again.",
        )
    return source


def _mine(gizmo: Any, name: str, cls: str) -> Optional[Any]:
    """Return a node of an earlier press, or None."""
    parent = gizmo.parent() or nuke.root()
    wanted = _name(gizmo, name)
    found = (n for n in nuke.allNodes(cls, group=parent) if n.name() == wanted)
    return next(found, None)


def _name(gizmo: Any, name: str) -> str:
    return f"{gizmo.name()}_{name}"
