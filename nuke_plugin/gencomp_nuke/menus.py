# SPDX-License-Identifier: Apache-2.0
"""The toolbar: one command per file in ``gizmos/``."""

from pathlib import Path

import nuke

TITLE = "gencomp"


def build(gizmos: Path) -> "tuple[str, ...]":
    """Add a menu to the node toolbar with a command for every gizmo; return their names.

    Args:
        gizmos: Folder of the gizmo files; must exist.
    """
    names = tuple(sorted(path.stem for path in gizmos.glob("*.gizmo")))
    menu = nuke.menu("Nodes").addMenu(TITLE)
    for name in names:
        menu.addCommand(name, f"nuke.createNode('{name}')")
    return names
