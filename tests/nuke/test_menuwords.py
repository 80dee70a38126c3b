# SPDX-License-Identifier: Apache-2.0
"""What a menu shows behind a choice is for the eye: sent, kept and compared is the choice."""

import json

import pytest

from gencomp_nuke import asking, menuwords, presetting, takes

SHOWN = "preview (ships, draft quality)"


@pytest.fixture
def gizmo(app):
    import nuke

    return nuke.createNode("OverPlusPlus")


def test_the_menu_of_models_says_what_the_one_that_ships_is(gizmo):
    assert SHOWN in gizmo["backbone"].values()
    assert menuwords.spoken(SHOWN) == "preview"
    assert menuwords.spoken("around the mask") == "around the mask"


def test_what_is_sent_is_the_choice(gizmo):
    gizmo["backbone"].setValue(SHOWN)
    assert asking.value_of(gizmo["backbone"]) == "preview"
    assert asking.value_of(gizmo["steps"]) == 50


@pytest.mark.parametrize("wanted", ["preview", SHOWN])
def test_a_choice_and_its_words_set_the_same(gizmo, wanted):
    gizmo["backbone"].setValue(menuwords.setting(gizmo["backbone"], wanted))
    assert gizmo["backbone"].value() == SHOWN
    assert menuwords.setting(gizmo["backbone"], "nobody's") == "nobody's"
    assert menuwords.setting(gizmo["prompt"], "dust (brown)") == "dust (brown)"


def test_a_take_that_the_model_made_sets_the_menu_and_is_then_no_change(gizmo):
    told = {"backbone": "preview"}
    assert takes.settings_of(gizmo, told) == told
    gizmo["backbone"].setValue(SHOWN)
    assert takes.settings_of(gizmo, told) == {}


def test_a_preset_keeps_the_choice_and_brings_the_menu_back(gizmo, home):
    import nuke

    gizmo["backbone"].setValue(SHOWN)
    kept = presetting.differing(gizmo, "OverPlusPlus")
    assert kept == {"backbone": "preview"}
    table = {"presets": {"OverPlusPlus": {"with what ships": json.loads(json.dumps(kept))}}}
    home.mkdir(exist_ok=True)
    (home / "knobs.json").write_text(json.dumps(table), encoding="utf-8")
    other = nuke.createNode("OverPlusPlus")
    presetting.refresh(other)
    other["gc_preset"].setValue("with what ships")
    other["gc_preset_apply"].execute()
    assert other["backbone"].value() == SHOWN
