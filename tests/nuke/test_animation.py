# SPDX-License-Identifier: Apache-2.0
"""Keys and expressions: on what Nuke computes both, on nothing else, by Nuke's own flag."""

import re

import pytest

from gencomp_nuke import animation

GIZMOS = ("DynVFX", "GenComposite", "Omnimatte", "OverPlusPlus", "SplitThenMerge")
NUMBERS = ("Int_Knob", "Double_Knob", "XY_Knob", "Color_Knob")
CHOICES = ("Enumeration_Knob", "Boolean_Knob")
# Sampled over time by a button or a callback, not by a node inside.
SAMPLED = {"gc_point", "gc_scale_curve", "gc_is_key"}
_READ = re.compile(r"parent\.(\w+)|value this\.parent\.(\w+)")


@pytest.fixture(params=GIZMOS)
def gizmo(app, request):
    import nuke

    return nuke.createNode(request.param)


def knobs_of(gizmo, kinds):
    """Return our own knobs of those kinds."""
    return [k for k in gizmo.allKnobs() if k._user is not None and k.Class() in kinds]


def computed(gizmo):
    """Return the knobs that show and that the pictures inside are computed with."""
    found = set()
    for node in gizmo.nodes():
        if node.Class() in ("Read", "Write", "Input"):  # Files, and what is rendered of a job.
            continue
        for knob in node.allKnobs():
            found.update(a or b for a, b in _READ.findall(knob.toScript()))
    sent = gizmo["gc_params"].value().split()  # Some show in a view as well.
    return {k for k in found if k in gizmo.knobs() and gizmo[k].visible() and k not in sent}


def test_numbers_that_nuke_computes_take_keys_and_expressions(gizmo):
    free = [k for k in knobs_of(gizmo, NUMBERS) if animation.is_over_time(k.name())]
    assert {"gc_mix", "gc_wipe", "gc_gain"} <= {k.name() for k in free}
    for knob in free:
        assert knob.setAnimated() is True, knob.name()
        knob.setValueAt(2, 1001)
        knob.setValueAt(3, 1011)
        assert {knob._number(1001), knob._number(1011)} == {2, 3}, knob.name()
        knob.clearAnimated()
        knob.setExpression("frame/1000")
        assert knob._number(3000) == 3, knob.name()


def test_every_other_number_and_choice_is_flagged_and_takes_no_keys(gizmo):
    import nuke

    found = [k for k in knobs_of(gizmo, NUMBERS + CHOICES) if not animation.is_over_time(k.name())]
    assert len(found) > 20
    for knob in found:
        assert knob.getFlag(nuke.NO_ANIMATION), knob.name()
        assert knob.setAnimated() is False, knob.name()
        assert not knob.isAnimated()


def test_what_is_free_is_what_the_pictures_inside_are_computed_with(gizmo):
    of_numbers = {k.name() for k in knobs_of(gizmo, NUMBERS + CHOICES) if k.visible()}
    free = {name for name in of_numbers if animation.is_over_time(name)}
    assert free - SAMPLED == (computed(gizmo) - SAMPLED) & of_numbers


@pytest.mark.parametrize(
    ("word", "value"), [("{7+2}", 9), ("{curve x1001 3 x1011 3}", 3)], ids=["expression", "keys"]
)
def test_a_script_that_drives_a_knob_of_the_job_is_loaded_as_it_is_and_stays_free(
    app, tmp_path, word, value
):
    import nuke

    gizmo = nuke.createNode("OverPlusPlus")
    gizmo["steps"].fromScript(word)
    app.save(tmp_path / "old.nk")
    nuke.scriptOpen(str(tmp_path / "old.nk"))
    again = nuke.toNode("OverPlusPlus1")
    assert again["steps"].value() == value
    assert again["steps"].isAnimated()
    assert not again["steps"].getFlag(nuke.NO_ANIMATION)
    assert again["guidance"].getFlag(nuke.NO_ANIMATION)


def test_a_script_drives_a_knob_of_the_job_from_python_too(app):
    import nuke

    gizmo = nuke.createNode("OverPlusPlus")
    gizmo["steps"].setExpression("7+2")
    assert gizmo["steps"].value() == 9


def test_knobs_that_every_node_of_nuke_has_are_left_alone(gizmo):
    import nuke

    assert not gizmo["disable"].getFlag(nuke.NO_ANIMATION)


def test_without_an_interface_nothing_is_flagged(terminal):
    import nuke

    gizmo = nuke.createNode("OverPlusPlus")
    assert not gizmo["steps"].getFlag(nuke.NO_ANIMATION)
