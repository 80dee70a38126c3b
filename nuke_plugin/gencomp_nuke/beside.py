# SPDX-License-Identifier: Apache-2.0
"""Making plain nodes beside a node of ours, in its own group. Main thread only."""

import contextlib
from collections.abc import Iterator
from typing import Any, Optional

import nuke

_RIGHT_PX, _LEFT_MARGIN_PX, _TOP_MARGIN_PX = 320, 60, 90


@contextlib.contextmanager
def beside(gizmo: Any, step: str) -> "Iterator[None]":
    """Let nodes be made in the group that holds a node, as one step of undo; all of them or none.

    Args:
        gizmo: The node.
        step: Name of the step in the undo list.
    """
    parent = gizmo.parent() or nuke.root()
    with nuke.Undo(step):
        parent.begin()
        before = {node.name() for node in nuke.allNodes(group=parent)}
        try:
            yield
        except BaseException:
            for node in nuke.allNodes(group=parent):
                if node.name() not in before:
                    nuke.delete(node)
            raise
        finally:
            parent.end()


def make(cls: str, name: str) -> Any:
    """Make a node that is connected to nothing, whatever is selected; inside ``beside``.

    A name that is taken gets a number behind it.
    """
    made = getattr(nuke.nodes, cls)()
    taken = {node.name() for node in nuke.allNodes(group=made.parent())} - {made.name()}
    made.setName(name, uncollide=name in taken)
    return made


def connect(node: Any, index: int, source: Optional[Any]) -> None:
    """Connect one input; None leaves it open."""
    if source is not None:
        node.setInput(index, source)


def origin(gizmo: Any) -> "tuple[int, int]":
    """Return where what is made beside a node begins: x and y in the node graph."""
    return int(gizmo.xpos()) + _RIGHT_PX, int(gizmo.ypos())


def frame(gizmo: Any, nodes: "list[Any]", label: str) -> None:
    """Put a backdrop behind nodes, with a label."""
    if not nodes:
        return
    left = min(int(node.xpos()) for node in nodes) - _LEFT_MARGIN_PX
    top = min(int(node.ypos()) for node in nodes) - _TOP_MARGIN_PX
    right = max(int(node.xpos()) for node in nodes) + 80 + _LEFT_MARGIN_PX
    bottom = max(int(node.ypos()) for node in nodes) + 80 + _LEFT_MARGIN_PX
    backdrop = make("BackdropNode", f"{gizmo.name()}_backdrop")
    backdrop["label"].setValue(label)
    backdrop["bdwidth"].setValue(right - left)
    backdrop["bdheight"].setValue(bottom - top)
    backdrop.setXYpos(left, top)
