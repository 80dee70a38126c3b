# SPDX-License-Identifier: Apache-2.0
"""The documentation against the code: links, errors, messages, knobs, commands."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gencomp_protocol.errors import error_classes
from gencomp_protocol.messages import message_classes
from gencomp_server.cli import _parser
from gencomp_server.contract import declared_inputs, knob_fields
from gencomp_server.systems import REGISTRY

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+\s+(.*)$", re.MULTILINE)


def text_of(*place):
    return ROOT.joinpath(*place).read_text(encoding="utf-8")


def anchors(path):
    """Return the anchors of a page as they are made from its headings."""
    found = set()
    for heading in _HEADING.findall(path.read_text(encoding="utf-8")):
        word = re.sub(r"[^\w\s-]", "", heading.lower())
        found.add(re.sub(r"\s", "-", word.strip()))
    return found


def broken_links(page):
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        path = (page.parent / place).resolve() if place else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page):
    assert list(broken_links(page)) == []


@pytest.mark.parametrize("code", [code for code in error_classes() if code != "error"])
def test_every_error_code_has_its_cure_in_the_docs(code):
    assert f"`{code}`" in text_of("docs", "td", "errors.md")


@pytest.mark.parametrize("message", list(message_classes()))
def test_every_message_is_in_the_protocol(message):
    assert f"`{message}`" in text_of("docs", "td", "protocol.md")


@pytest.mark.parametrize("system", REGISTRY, ids=lambda system: system.name)
def test_every_knob_and_input_of_a_system_is_on_its_page(system):
    page = text_of("docs", "artist", f"{system.name}.md")
    for knob in knob_fields(system.params):
        assert f"`{knob.name}`" in page, knob.name
    for spec in declared_inputs(system):
        assert f"`{spec.name.replace('*', 'NAME')}`" in page, spec.name


def test_every_command_is_in_the_readme():
    commands = next(
        action.choices for action in _parser()._actions if isinstance(action.choices, dict)
    )
    readme = text_of("README.md")
    for command in commands:
        assert f"gencomp {command}" in readme, command


def test_the_pages_name_no_machine_of_ours():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"/(root|home)/", text), page


_SHOWN = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows_of_papers():
    """Return the rows of the papers' tables: what is in the paper, what is here, what shows it."""
    for line in text_of("docs", "papers.md").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) == 3 and cells[0] not in ("in the paper", "---"):
            yield cells


def test_every_line_of_a_paper_is_shown_by_a_test_that_there_is_or_says_why_not():
    rows = list(rows_of_papers())
    assert len(rows) > 60
    for claim, here, shown in rows:
        found = _SHOWN.findall(shown)
        assert found or here.startswith("not built: "), claim
        assert shown == ", ".join(f"`{file}::{name}`" for file, name in found), claim
        for file, name in found:
            assert re.search(rf"^def {name}\(", text_of(file), re.MULTILINE), f"{file}::{name}"


_SCRIPT = re.compile(r"`(tests/in_nuke/\w+\.py)`")


def rows_of_expectations():
    """Return number, expectation, what is here and what shows it, of every numbered row."""
    for line in text_of("docs", "td", "expectations.md").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) == 4 and cells[0].isdigit():
            yield int(cells[0]), *cells[1:]


def test_all_fifty_expectations_are_shown_by_a_test_or_would_be_by_a_script_in_nuke():
    rows = list(rows_of_expectations())
    assert [number for number, *_ in rows] == list(range(1, 51))
    for number, _, _, shown in rows:
        named, scripts = _SHOWN.findall(shown), _SCRIPT.findall(shown)
        spelt = [*(f"`{file}::{name}`" for file, name in named), *(f"`{one}`" for one in scripts)]
        only = "" if named else "in real Nuke only: "
        assert shown == only + ", ".join(spelt), number
        for file, name in named:
            assert re.search(rf"^def {name}\(", text_of(file), re.MULTILINE), f"{file}::{name}"
        assert [one for one in scripts if not (ROOT / one).is_file()] == []


def test_as_many_of_the_fifty_are_proven_as_a_whole_as_the_page_says():
    rows = [" | ".join(row[1:]) for row in rows_of_expectations()]
    whole = sum("::" in row and "**in part**" not in row for row in rows)
    assert f"**{whole} of 50 are proven without Nuke as a whole**" in text_of(
        "docs", "td", "expectations.md"
    )
    assert not any("not built" in row and "**in part**" not in row for row in rows)


# --- the site ------------------------------------------------------------------------------------

DOCS = ROOT / "docs"
SHOTS = sorted((DOCS / "artist" / "shots").glob("*.md"))
MOST_BYTES_OF_A_PICTURE = 150_000


def nav():
    place = importlib.util.spec_from_file_location("docs_nav", ROOT / "tools" / "docs_nav.py")
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module.on_config({"docs_dir": str(DOCS)})["nav"]


def test_every_page_is_behind_one_of_the_doors_once():
    found = []
    for entry in nav():
        found += (
            [entry] if isinstance(entry, str) else [p for pages in entry.values() for p in pages]
        )
    assert sorted(found) == sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def test_a_page_that_the_order_names_and_that_is_not_there_is_said(tmp_path):
    place = importlib.util.spec_from_file_location("docs_nav", ROOT / "tools" / "docs_nav.py")
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    with pytest.raises(FileNotFoundError, match=r"artist/first-shot\.md"):
        module.doors(tmp_path)


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="make docs installs it")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert (tmp_path / "artist" / "shots" / "removal.html").is_file()


def test_four_worked_shots_say_how_their_pictures_were_made():
    assert len(SHOTS) == 4
    for page in SHOTS:
        text = page.read_text(encoding="utf-8")
        assert "**How these pictures were made.**" in text, page
        assert f"({page.stem}.jpg)" in text, page


def test_pictures_of_worked_shots_are_small():
    pictures = sorted((DOCS / "artist" / "shots").glob("*.jpg"))
    assert len(pictures) >= 4
    assert [p.name for p in pictures if p.stat().st_size > MOST_BYTES_OF_A_PICTURE] == []


def test_every_code_that_troubleshooting_names_is_an_error():
    named = re.findall(r"\[`([a-z-]+)`\]", text_of("docs", "artist", "troubleshooting.md"))
    assert len(named) > 8
    assert [code for code in named if code not in error_classes()] == []
