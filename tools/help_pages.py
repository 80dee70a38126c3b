# SPDX-License-Identifier: Apache-2.0
"""The pages for artists and technical directors as HTML on disk: what the button *Help page* opens.

``make nuke-bundle`` lays them beside the Nuke room, in ``help/``. They are made of ``docs/`` by the
library that MkDocs makes the site with, without its search and its scripts, so that a page opens
from any disk. A link to a page that does not go along stays as its words. The same sources give the
same bytes.
"""

import html
import importlib
import os
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
OUT = ROOT / "help"
READERS = ("artist", "td")  # Folders of docs/ whose pages go along.
EXTENSIONS = ("tables", "fenced_code", "sane_lists", "toc")  # As in mkdocs.yml.
_LINK = re.compile(r'<a href="([^"]*)"[^>]*>(.*?)</a>', re.DOTALL)
_PICTURE = re.compile(r'<img [^>]*?src="([^"]*)"')
_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; }}
table {{ border-collapse: collapse; }}
td, th {{ border: 1px solid #999; padding: .3em .6em; text-align: left; vertical-align: top; }}
pre {{ overflow-x: auto; background: #8882; padding: .8em; }}
code {{ font-family: monospace; }}
img {{ max-width: 100%; }}
:root {{ color-scheme: light dark; }}
</style>
<p><a href="{up}artist/install-nuke.html">Install</a> &middot; {doors} &middot;
<a href="{up}artist/troubleshooting.html">When something looks wrong</a></p>
{body}
</html>
"""
_DOORS = {
    "overplusplus": "OverPlusPlus",
    "gencomposite": "GenComposite",
    "omnimatte": "Omnimatte",
    "splitthenmerge": "SplitThenMerge",
    "dynvfx": "DynVFX",
}


class BrokenPage(Exception):
    """A page links to what is not in the documentation."""


def library(packages: Path, pinned: str = "") -> Any:
    """Return Python-Markdown; where it is not installed, pip lays it into a folder of its own.

    Args:
        packages: That folder.
        pinned: What pip is asked for; empty: as ``constraints.txt`` has it.

    Raises:
        subprocess.CalledProcessError: pip cannot; it has said why.
    """
    try:
        return importlib.import_module("markdown")
    except ImportError:
        pass
    if not (packages / "markdown").is_dir():
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-qq"]
        subprocess.run([*pip, "--target", str(packages), pinned or _pin()], check=True)
    sys.path.append(str(packages))
    importlib.invalidate_caches()
    return importlib.import_module("markdown")


def _pin() -> str:
    """Return the version that MkDocs is installed with; a Python too old for it takes any."""
    if sys.version_info < (3, 10):
        return "Markdown"
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith("Markdown=="))


def pages(markdown: Any, docs: Path = DOCS) -> "dict[str, bytes]":
    """Return every file of the help: pages as HTML, and the pictures that they show.

    Args:
        markdown: The library.
        docs: The documentation.

    Returns:
        Bytes by place, with ``/`` on every system.

    Raises:
        BrokenPage: A page links to, or shows, what is not there.
    """
    sources = sorted(path for folder in READERS for path in (docs / folder).rglob("*.md"))
    names = {path.relative_to(docs).as_posix() for path in sources}
    found: dict[str, bytes] = {}
    for path in sources:
        name = path.relative_to(docs).as_posix()
        text = path.read_text(encoding="utf-8")
        body = markdown.markdown(text, extensions=list(EXTENSIONS), output_format="html")
        body = _LINK.sub(lambda match, at=name: _linked(match, at, names, docs), body)
        for shown in _PICTURE.findall(body):
            place = _place(name, html.unescape(shown))
            if not (docs / place).is_file():
                raise BrokenPage(f"{name} shows {shown}, which is not there.")
            found[place] = (docs / place).read_bytes()
        found[name[: -len(".md")] + ".html"] = _framed(name, text, body).encode("utf-8")
    return found


def _framed(name: str, text: str, body: str) -> str:
    up = "../" * name.count("/")
    doors = " &middot; ".join(
        f'<a href="{up}artist/{page}.html">{title}</a>' for page, title in _DOORS.items()
    )
    first = next((line for line in text.splitlines() if line.startswith("# ")), "# gencomp")
    return _PAGE.format(title=html.escape(first[2:]), up=up, doors=doors, body=body)


def _linked(match: "re.Match[str]", at: str, names: "set[str]", docs: Path) -> str:
    """Return a link of a page as it leads on in the help, or its words alone."""
    target, words = html.unescape(match[1]), match[2]
    if re.match(r"[a-z]+:", target) or target.startswith("#"):
        return match[0]
    place, _, anchor = target.partition("#")
    page = _place(at, place)
    if page in names:
        to = posixpath.relpath(page[: -len(".md")] + ".html", posixpath.dirname(at))
        return f'<a href="{html.escape(to)}{"#" + anchor if anchor else ""}">{words}</a>'
    if not (docs / page).exists():
        raise BrokenPage(f"{at} links to {target}, which is not there.")
    return words


def _place(at: str, target: str) -> str:
    """Return where a relative address leads, seen from ``docs``."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(at), target))


def build(packages: Path, out: Path = OUT, docs: Path = DOCS) -> "list[str]":
    """Write the help anew; return the places of its files.

    Args:
        packages: Where pip may lay the library.
        out: The folder to fill; must be none of anybody else's.
        docs: The documentation.
    """
    made = pages(library(packages), docs)
    shutil.rmtree(out, ignore_errors=True)
    for name, body in made.items():
        place = out / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(body)
    return sorted(made)


if __name__ == "__main__":
    print(f"{len(build(ROOT / 'build' / 'help-packages'))} files in {os.path.relpath(OUT)}")
