# SPDX-License-Identifier: Apache-2.0
"""Which nodes of ours lie above another node, and in which order they depend on one another.

Light on purpose: what renders on a farm asks this, and nothing but Nuke may be there. Looks into
groups and out of them; of a node that is disabled, and of a Switch, at what it passes alone. Main
thread only.
"""

from collections.abc import Iterable
from typing import Any

import nuke

_PRECOMP = "Precomp"
# What asks for other frames than it is asked for.
_TIME = (
    *("AppendClip", "FrameBlend", "FrameHold", "FrameRange", "Kronos", "OFlow2", "Retime"),
    *("SmartVector", "TemporalMedian", "TimeBlur", "TimeClip", "TimeEcho", "TimeOffset"),
    *("TimeWarp", "TimeToDepth"),
)


def ours_above(nodes: "Iterable[Any]", *, is_same_frame: bool = False) -> "list[Any]":
    """Return the nodes of ours among some nodes and above them, each behind what it depends on.

    Args:
        nodes: Where to begin.
        is_same_frame: Leave out those of which other frames are asked than of where it begins.
    """
    found: list[Any] = []
    seen: set[str] = set()
    open_now = [(node, False) for node in reversed(list(nodes))]
    while open_now:  # Graphs are deep, and Python's stack is not.
        node, is_expanded = open_now.pop()
        if node is None:
            continue
        if is_expanded:
            found.append(node)
            continue
        name = str(node.fullName())
        if name in seen:
            continue
        seen.add(name)
        if _is_ours(node) and not _is_disabled(node):
            open_now.append((node, True))
        if is_same_frame and node.Class() in _TIME and not _is_disabled(node):
            continue
        open_now.extend((above, False) for above in reversed(_above(node)))
    return found


def all_ours() -> "list[Any]":
    """Return every node of ours in the script that is not disabled, in order of dependency."""
    everything = nuke.allNodes(group=nuke.root(), recurseGroups=True)
    mine = [n for n in everything if _is_ours(n) and not _is_disabled(n) and not _is_unread(n)]
    return ours_above(sorted(mine, key=lambda n: str(n.fullName())))


def _above(node: Any) -> "list[Any]":
    """Return the nodes that a node's picture may come from."""
    if node.Class() == "Input":
        group = nuke.root().node(str(node.fullName()).rpartition(".")[0])
        return [] if group is None else [group.input(int(node["number"].value()))]
    if _is_disabled(node):
        return [node.input(0)]
    if node.Class() == "Switch" and not node["which"].isAnimated():
        return [node.input(int(node["which"].value()))]
    if node.Class() == _PRECOMP and node["reading"].value():
        return []
    if not _is_ours(node):
        inside: list[Any] = getattr(node, "nodes", list)()
        outputs = [inner for inner in inside if inner.Class() == "Output"]
        if node.Class() == _PRECOMP and not outputs:
            outputs = [inner for inner in inside if inner.Class() == "Write"]
        if outputs:
            return outputs
    return [node.input(index) for index in range(node.inputs())]


def _is_unread(node: Any) -> bool:
    """Tell whether a node lies in a Precomp that shows what was rendered of it."""
    places = str(node.fullName()).split(".")
    groups = [nuke.root().node(".".join(places[:n])) for n in range(1, len(places))]
    return any(g.Class() == _PRECOMP and g["reading"].value() for g in groups)


def _is_ours(node: Any) -> bool:
    return node.knob("gc_system") is not None


def _is_disabled(node: Any) -> bool:
    knob = node.knob("disable")
    return knob is not None and bool(knob.value())
