# SPDX-License-Identifier: Apache-2.0
"""The button of the help page: what it opens, and what it says where there are no pages."""

import pytest

from gencomp_nuke import helping, tool

GIZMOS = ("DynVFX", "GenComposite", "Omnimatte", "OverPlusPlus", "SplitThenMerge")


@pytest.fixture
def opened(monkeypatch, tmp_path):
    """Return what the machine was asked to show; pages are looked for in ``tmp_path``."""
    found = []
    monkeypatch.setattr(tool, "open_outside", found.append)
    monkeypatch.setattr(helping, "FOLDER", tmp_path / "help pages")
    return found


@pytest.mark.parametrize("name", GIZMOS)
def test_the_button_opens_the_page_of_the_nodes_system_from_this_disk(app, opened, tmp_path, name):
    import nuke

    page = tmp_path / "help pages" / "artist" / f"{name.lower()}.html"
    page.parent.mkdir(parents=True)
    page.write_text("<p>help")
    gizmo = nuke.createNode(name)
    gizmo["gc_help"].execute()
    assert opened == [page.as_uri()]
    assert opened[0].startswith("file:///")
    assert "help%20pages" in opened[0]
    said = gizmo["gc_status_about"].value().split()
    assert said[:5] == ["The", "page", "of", "this", "node"]


def test_without_pages_the_node_says_where_the_text_is(app, opened):
    import nuke

    gizmo = nuke.createNode("OverPlusPlus")
    gizmo["gc_help"].execute()
    said = " ".join(gizmo["gc_status_about"].value().split())
    assert opened == []
    assert "came without the help page" in said
    assert "docs/artist/overplusplus.md" in said
    assert "make nuke-bundle" in said
    assert gizmo["tile_color"].value() == 0


def test_the_menu_opens_the_first_page_or_says_why_not(app, opened, tmp_path):
    helping.open_first()
    assert "came without the help page" in app.messages[-1]
    page = helping.page_of("install-nuke")
    page.parent.mkdir(parents=True)
    page.write_text("<p>help")
    helping.open_first()
    assert opened == [page.as_uri()]
