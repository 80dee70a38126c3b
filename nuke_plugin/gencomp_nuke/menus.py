# SPDX-License-Identifier: Apache-2.0
"""The menus: in the toolbar a command per gizmo file, and in the menu bar gencomp's own."""

from pathlib import Path

import nuke

TITLE = "gencomp"
# What a command of the menu bar runs: text, so that nothing is imported before it is chosen.
_COMMANDS = {
    "Jobs": "from gencomp_nuke import jobsview; jobsview.open_panel()",
    "Check set-up": "from gencomp_nuke import checking; checking.check_here()",
    "Help": "from gencomp_nuke import helping; helping.open_first()",
    "Renew older nodes": "from gencomp_nuke import migrating; migrating.renew_all()",
}


def build(gizmos: Path) -> "tuple[str, ...]":
    """Add a menu to the node toolbar with a command for every gizmo; return their names.

    Args:
        gizmos: Folder of the gizmo files; must exist.
    """
    names = tuple(sorted(path.stem for path in gizmos.glob("*.gizmo")))
    menu = nuke.menu("Nodes").addMenu(TITLE)
    for name in names:
        menu.addCommand(name, f"nuke.createNode('{name}')", icon=f"{name}.png")
    return names


def build_bar() -> None:
    """Add gencomp's own menu to the menu bar."""
    menu = nuke.menu("Nuke").addMenu(TITLE)
    for name, command in _COMMANDS.items():
        menu.addCommand(name, command)
