# SPDX-License-Identifier: Apache-2.0
"""The help pages on this disk: a node's own, and the first of all, in whatever shows web pages.

They lie as HTML in the folder ``help`` of what ``make nuke-bundle`` packs; nothing is fetched. Main
thread only.
"""

from pathlib import Path
from typing import Any

import nuke
from gencomp_nuke import node, tool
from gencomp_protocol.errors import GencompError, MissingFrame

_ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = _ROOT / "help"


def open_page(gizmo: Any) -> None:
    """Open the page of a node's system.

    Raises:
        MissingFrame: This installation came without pages.
        ToolFailed: The machine shows none.
    """
    path = page_of(str(gizmo["gc_system"].value()))
    _show(path)
    node.tell(gizmo, f"The page of this node is {path}.")


def open_first() -> None:
    """Open the first page: a command of the menu."""
    try:
        _show(page_of("install-nuke"))
    except GencompError as error:
        nuke.message(str(error))


def page_of(name: str) -> Path:
    """Return where an artist's page lies, by its file's name without ending."""
    return FOLDER / "artist" / f"{name}.html"


def _show(path: Path) -> None:
    if path.is_file():
        tool.open_outside(path.as_uri())
        return
    text = _ROOT / "docs" / "artist" / f"{path.stem}.md"
    where = f"Read {text}" if text.is_file() else "Read docs/artist of gencomp's sources"
    raise MissingFrame(
        f"This installation came without the help page {path}.",
        hint=f"{where}, or install from what make nuke-bundle packs.",
    )
