# SPDX-License-Identifier: Apache-2.0
"""Write the tables of docs/td/configuration.md: every setting as the code declares it.

``python tools/settings_page.py`` writes the page anew; a test compares it with the code. What
stands around the tables is written by hand.
"""

import inspect
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "td" / "configuration.md"
_MARK = re.compile(r"(<!-- settings: (\w+) -->\n\n).*?(\n<!-- end -->)", re.DOTALL)


def page() -> str:
    """Return the page as it should be, with its tables as the code says."""
    from gencomp_nuke.prefs import Prefs
    from gencomp_protocol.locate import home_folder
    from gencomp_server.config import ServerConfig, load_config

    home = Path("/h")
    server = load_config(environ={"GENCOMP_HOME": str(home)}).settled
    nuke = {field.name: field.default for field in fields(Prefs)}
    tables = {
        "server": _table(meanings(ServerConfig), {k: one.value for k, one in server.items()}, home),
        "nuke": _table(meanings(Prefs), nuke, home_folder({"GENCOMP_HOME": str(home)})),
    }
    text = PAGE.read_text(encoding="utf-8")
    return _MARK.sub(lambda found: f"{found[1]}{tables[found[2]]}{found[3]}", text)


def meanings(cls: type) -> "dict[str, str]":
    """Return what the docstring of a class says of each of its attributes."""
    said = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    found: dict[str, str] = {}
    for line in said.splitlines():
        begins = re.match(r"    (\w+): (.*)", line)
        if begins:
            name = begins[1]
            found[name] = begins[2]
        else:
            found[name] += f" {line.strip()}"
    return found


def _table(said: "dict[str, str]", values: "dict[str, Any]", home: Path) -> str:
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for name, value in values.items():
        words = said[name].replace("``", "`").replace("|", "\\|")
        rows.append(f"| `{name}` | {_spelt(value, home)} | {words} |")
    return "\n".join(rows) + "\n"


def _spelt(value: Any, home: Path) -> str:
    """Return a default as the page shows it; a folder of the home folder as everybody's."""
    from gencomp_protocol.settings import spelt_value

    if isinstance(value, Path):
        value = f"~/.gencomp/{value.relative_to(home).as_posix()}"
    if isinstance(value, float):
        value = int(value) if value == int(value) else value
    return f"`{spelt_value(value)}`"


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / room) for room in ("protocol", "nuke_plugin", "server")]
    PAGE.write_text(page(), encoding="utf-8")
