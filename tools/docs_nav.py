# SPDX-License-Identifier: Apache-2.0
"""The order of the documentation's pages: a hook of MkDocs, named in ``mkdocs.yml``.

Three readers, three doors: artists, technical directors, developers; then decisions and papers.
What is named here comes in this order; a page that is in a door's folder and not named follows by
its file's name, so that a new page never needs a second place.
"""

from pathlib import Path
from typing import Any

DOORS: "dict[str, tuple[str, tuple[str, ...]]]" = {
    "Artists": (
        "artist",
        (
            "install-nuke",
            "first-shot",
            "shots/contact-shadow",
            "shots/explosion",
            "shots/reflections",
            "shots/removal",
            "overplusplus",
            "gencomposite",
            "omnimatte",
            "splitthenmerge",
            "dynvfx",
            "colour",
            "measure",
            "troubleshooting",
        ),
    ),
    "TDs": ("td", ("weights", "observe", "performance", "exr-layers", "errors", "protocol")),
    "Models": ("models", ()),
    "Developers": ("developer", ("architecture",)),
    "Decisions": ("decisions", ()),
}
LAST = ("papers.md", "experiments.md")


def on_config(config: Any) -> Any:
    """Give MkDocs the order of the pages.

    Args:
        config: MkDocs' own configuration.
    """
    config["nav"] = ["index.md", *doors(Path(config["docs_dir"])), *LAST]
    return config


def doors(docs: Path) -> "list[dict[str, list[str]]]":
    """Return the pages of every door, in order, relative to ``docs``.

    Raises:
        FileNotFoundError: A page that is named here is not there.
    """
    return [{title: _pages(docs, *door)} for title, door in DOORS.items()]


def _pages(docs: Path, folder: str, named: "tuple[str, ...]") -> "list[str]":
    first = [f"{folder}/{name}.md" for name in named]
    missing = [page for page in first if not (docs / page).is_file()]
    if missing:
        raise FileNotFoundError(f"tools/docs_nav.py names {', '.join(missing)}")
    found = sorted(page.relative_to(docs).as_posix() for page in (docs / folder).rglob("*.md"))
    return first + [page for page in found if page not in first]
