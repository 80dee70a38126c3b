# SPDX-License-Identifier: Apache-2.0
"""The example script of each node: put beside the node, with its pictures and its result.

The scripts lie in ``docs/examples`` and open by themselves too, with paths relative to where they
lie. Put into another script, those paths would be that script's, so they are spelt out.
"""

import re
import tempfile
from pathlib import Path
from typing import Any

import nuke
from gencomp_nuke import beside, node
from gencomp_protocol.errors import MissingFrame

_FILES = {"omnimatte": "omnimatte_retime"}
# A path beside the script, as a script spells it: in braces as it is, in quotes with backslashes.
_HERE = re.compile(r"\\?\[file dirname \\?\[value root\.name\\?\]\\?\]")
_ROOT = re.compile(r"^Root \{\n(?: .*\n)*\}\n", re.MULTILINE)
_STAYS = " gc_cache "  # What the example makes next belongs beside the artist's script.


def load(gizmo: Any) -> None:
    """Put the example of a node's kind into the script, to the right of the node.

    Args:
        gizmo: The node.

    Raises:
        MissingFrame: This installation came without examples.
    """
    path = example_of(str(gizmo["gc_system"].value()))
    if not path.is_file():
        raise MissingFrame(
            f"The example {path.name} is not there: this installation came without docs/examples.",
            hint=f"Take the folder docs/examples from gencomp and put it at {path.parent}.",
        )
    text = spelt_out(path.read_text(encoding="utf-8"), path.parent)
    with tempfile.TemporaryDirectory() as folder:
        pasted = Path(folder) / path.name
        pasted.write_text(text, encoding="utf-8")
        with beside.beside(gizmo, "Load the example"):
            before = set(_names(gizmo))
            nuke.nodePaste(pasted.as_posix())
            _move([made for name, made in _names(gizmo).items() if name not in before], gizmo)
    node.tell(gizmo, f"The example {path.name} is to the right of this node.")


def example_of(system: str) -> Path:
    """Return where the example of a system lies."""
    root = Path(__file__).resolve().parent.parent.parent
    return root / "docs" / "examples" / f"{_FILES.get(system, system)}.nk"


def spelt_out(text: str, folder: Path) -> str:
    """Return an example's script as it can be pasted into another one.

    Args:
        text: The script.
        folder: Where it lies.
    """
    here = folder.as_posix()
    lines = _ROOT.sub("", text).splitlines(keepends=True)
    return "".join(
        line if line.startswith(_STAYS) else _HERE.sub(lambda match: here, line) for line in lines
    )


def _names(gizmo: Any) -> "dict[str, Any]":
    return {made.name(): made for made in nuke.allNodes(group=gizmo.parent() or nuke.root())}


def _move(nodes: "list[Any]", gizmo: Any) -> None:
    """Move nodes together to where what is made beside a node begins."""
    x, y = beside.origin(gizmo)
    x -= min((int(made.xpos()) for made in nodes), default=0)
    y -= min((int(made.ypos()) for made in nodes), default=0)
    for made in nodes:
        made.setXYpos(int(made.xpos()) + x, int(made.ypos()) + y)
