# SPDX-License-Identifier: Apache-2.0
"""Write a first gizmo from what a system declares: ``python tools/new_gizmo.py overplusplus``.

Inputs become pipes, knobs a panel by tabs, layers Reads inside. What all gizmos share, such as the
buttons, the frame range and the server, is in ``gizmo_template.tcl``, with words written by hand;
what one has of its own beyond its system is in ``gizmo_extras.py``. ``--again gizmos/X.gizmo``
writes a file once more. All five are written so: who wants a change makes it in these two files or
in the system, and ``tests/nuke`` compares gizmo and system in both directions.
"""

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / room) for room in ("protocol", "nuke_plugin", "server")]

from gizmo_inside import graph_lines  # noqa: E402
from gizmo_lines import Example  # noqa: E402
from gizmo_panel import panel_lines  # noqa: E402
from gizmo_source import Panel  # noqa: E402

from gencomp_protocol.errors import GencompError  # noqa: E402
from gencomp_server.contract import find_system  # noqa: E402
from gencomp_server.systems import REGISTRY  # noqa: E402

LIKE = ROOT / "tools" / "gizmo_template.tcl"


def gizmo(panel: Panel, like: Example) -> str:
    """Return the text of a whole gizmo."""
    inside = graph_lines(panel)
    return "\n".join(["Group {", *panel_lines(panel, like), "}", *inside, "end_group", ""])


def same_as(path: Path) -> list[str]:
    """Return the arguments that a gizmo's file was written with, its own place among them."""
    known = Example(path)

    def value(knob: str) -> str:
        return known.knobs(knob)[-1].split(" ", 2)[2].strip('"')

    about = re.search(r' T "(.*?)\\n', known.knobs("gc_about")[0])
    connect = re.match(r"Connect (.*), then press Generate\.", value("gc_hint"))
    slots = sum(name.startswith("gc_name") for name in known.lines)
    return [
        value("gc_system"),
        f"--name={path.stem}",
        f"--slots={max(slots, 1)}",
        f"--after={about.group(1) if about else ''}",
        f"--places={value('gc_coordinates')}",
        f"--connect={connect.group(1) if connect else ''}",
        f"--out={path}",
    ]


def main(arguments: Iterable[str]) -> int:
    """Write the file, or say why not; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("system", nargs="?", help="wire name of the system: overplusplus")
    parser.add_argument("--again", type=Path, help="a gizmo's file, to be written once more")
    parser.add_argument("--name", help="name of the gizmo; default: the system's title")
    parser.add_argument("--slots", type=int, default=8, help="most pipes of a family")
    parser.add_argument("--after", default="", help="the sentence that names the paper")
    parser.add_argument("--places", default="", help="knobs that hold places: trajectory=plate")
    parser.add_argument("--connect", default="", help="what to connect: Bg and an element to Fg1")
    parser.add_argument("-o", "--out", type=Path, help="file; default: gizmos/NAME.gizmo")
    given = parser.parse_args(list(arguments))
    if given.again:
        given = parser.parse_args(same_as(given.again))
    try:
        system = find_system(REGISTRY, given.system or "")
    except GencompError as error:
        print(error, file=sys.stderr)
        return 2
    name = given.name or re.sub(r"\W", "", system.title.replace("+", "Plus"))
    after = given.after or f"{system.title}."
    panel = Panel(system, name, given.slots, after, given.places, given.connect)
    out = given.out or ROOT / "gizmos" / f"{name}.gizmo"
    out.write_text(gizmo(panel, Example(LIKE)), encoding="utf-8")
    print(f"wrote {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
