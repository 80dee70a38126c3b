# SPDX-License-Identifier: Apache-2.0
"""Presets, defaults of a studio, and Reset: what they set, what they leave, what is refused."""

import json
import sys

import pytest

from gencomp_nuke import knobfiles, migrating, prefs, presetting
from gencomp_protocol.errors import BadKnob

GIZMOS = ("DynVFX", "GenComposite", "Omnimatte", "OverPlusPlus", "SplitThenMerge")
KEPT = ("gc_id", "gc_folder", "gc_cache", "gc_server", "gc_range", "gc_take", "gc_wedge", "name")


@pytest.fixture
def studio(tmp_path, monkeypatch):
    """Return a function that writes the studio's file, which the environment names."""
    path = tmp_path / "studio.json"
    monkeypatch.setenv("GENCOMP_STUDIO_KNOBS", str(path))

    def write(**tables):
        path.write_text(json.dumps(tables), encoding="utf-8")
        return path

    write()
    return write


def made(name):
    import nuke

    return nuke.createNode(name)


def state(gizmo):
    return {name: knob.toScript() for name, knob in gizmo.knobs().items()}


def press(gizmo, button):
    gizmo[button].execute()
    return " ".join(gizmo["gc_status"].value().split())


def chosen(gizmo, title):
    presetting.refresh(gizmo)
    gizmo["gc_preset"].setValue(title)
    gizmo._app.undo_steps.clear()
    return press(gizmo, "gc_preset_apply")


# --- presets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GIZMOS)
def test_every_node_comes_with_presets_and_each_sets_what_it_names(app, name):
    titles = list(knobfiles.presets(name, prefs.load()))
    assert 3 <= len(titles) <= 5
    gizmo = made(name)
    assert gizmo["gc_preset"].values() == [presetting.CHOOSE, *titles]
    for title in titles:
        said = chosen(gizmo, title)
        assert said.startswith(f"Preset '{title}' set ")
        for knob, value in knobfiles.presets(name, prefs.load())[title].values.items():
            assert gizmo[knob].value() == value
        assert app.undo_steps == [f"{name}1 preset {title}"]


@pytest.mark.parametrize("name", GIZMOS)
def test_the_server_takes_every_preset(app, name):
    if sys.version_info < (3, 10):
        pytest.skip("the server room needs Python 3.10")
    from gencomp_server.contract import find_system, parse_params
    from gencomp_server.systems import REGISTRY

    system = find_system(REGISTRY, name.lower())
    for preset in knobfiles.presets(name, prefs.load()).values():
        parse_params(system.params, preset.values)


def test_a_preset_leaves_every_knob_that_it_does_not_name(app):
    gizmo = made("OverPlusPlus")
    gizmo["steps"].setValue(20)
    gizmo["keyframes"].setValue("1001,1009")
    before = state(gizmo)
    chosen(gizmo, "water splash")
    named = knobfiles.presets("OverPlusPlus", prefs.load())["water splash"].values
    changed = {name for name, text in state(gizmo).items() if text != before[name]}
    assert changed <= {*named, "gc_preset", "gc_status", *STATUS}
    assert (gizmo["steps"].value(), gizmo["keyframes"].value()) == (20, "1001,1009")


STATUS = ("gc_status_keys", "gc_status_takes", "gc_status_cache", "gc_status_about")


def test_a_knob_with_an_expression_is_left_and_named(app):
    gizmo = made("OverPlusPlus")
    gizmo["unknown_reach"].setExpression("7+1")
    said = chosen(gizmo, "water splash")
    assert gizmo["unknown_reach"].value() == 8
    assert said.endswith("Left, for an expression drives it: unknown_reach.")


def test_without_a_choice_apply_says_so(app):
    assert press(made("DynVFX"), "gc_preset_apply").startswith("No preset is chosen.")


def test_a_studios_preset_is_in_the_menu_and_the_users_wins_over_it(app, home, studio):
    studio(presets={"overplusplus": {"our dust": {"guidance": 7}, "rain": {"guidance": 3}}})
    home.mkdir(exist_ok=True)
    own = {"presets": {"OverPlusPlus": {"our dust": {"guidance": 9}}}}
    (home / "knobs.json").write_text(json.dumps(own))
    gizmo = made("OverPlusPlus")
    assert gizmo["gc_preset"].values()[-2:] == ["our dust", "rain"]
    chosen(gizmo, "our dust")
    assert gizmo["guidance"].value() == 9


def test_what_is_saved_is_what_differs_and_comes_back(app, home, studio):
    gizmo = made("OverPlusPlus")
    gizmo["prompt"].setValue("dust\nin the wind")
    gizmo["guidance"].setValue(8.5)
    gizmo["seed"].setValue(99)
    gizmo["keyframes"].setValue("1001")
    gizmo["steps"].setExpression("10+2")
    app.answers.append("  my dust ")
    said = press(gizmo, "gc_preset_save")
    assert said == f"Preset 'my dust' is in {home / 'knobs.json'}: prompt, guidance."
    kept = json.loads((home / "knobs.json").read_text(encoding="utf-8"))
    assert kept == {
        "presets": {"OverPlusPlus": {"my dust": {"prompt": "dust\nin the wind", "guidance": 8.5}}}
    }
    other = made("OverPlusPlus")
    chosen(other, "my dust")
    assert (other["prompt"].value(), other["guidance"].value()) == ("dust\nin the wind", 8.5)
    assert other["seed"].value() == 0


def test_saving_keeps_what_else_is_in_the_file_and_asks_before_it_replaces(app, home):
    home.mkdir(exist_ok=True)
    before = {"defaults": {"*": {"grain": "match"}}, "presets": {"dynvfx": {"one": {"steps": 9}}}}
    (home / "knobs.json").write_text(json.dumps(before))
    gizmo = made("DynVFX")
    gizmo["steps"].setValue(11)
    for answers, steps in ((["two"], 9), (["one", False], 9), (["one", True], 11)):
        app.answers += answers
        press(gizmo, "gc_preset_save")
        kept = json.loads((home / "knobs.json").read_text())["presets"]["dynvfx"]
        assert kept["one"]["steps"] == steps
    assert kept == {"one": {"grain": "match", "steps": 11}, "two": {"grain": "match", "steps": 11}}
    assert json.loads((home / "knobs.json").read_text())["defaults"] == before["defaults"]
    assert [path.name for path in home.glob("*knobs*")] == ["knobs.json"]


def test_a_write_that_fails_leaves_the_file_as_it_was(app, home, monkeypatch):
    gizmo = made("DynVFX")
    home.mkdir(exist_ok=True)
    (home / "knobs.json").write_text("{}")

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(knobfiles.os, "replace", full)
    gizmo["steps"].setValue(11)
    app.answers.append("one")
    assert "(No space left on device)" in press(gizmo, "gc_preset_save")
    assert [(p.name, p.read_text()) for p in home.glob("*knobs*")] == [("knobs.json", "{}")]


def test_where_nothing_differs_there_is_nothing_to_save(app):
    assert "nothing to keep" in press(made("GenComposite"), "gc_preset_save")
    assert app.asked == []


# --- defaults ------------------------------------------------------------------------------------


def test_a_node_made_by_hand_begins_with_the_studios_and_the_users_defaults(app, home, studio):
    studio(
        defaults={
            "*": {"gc_depth": "16 bit half", "compression": "piz", "prompt": "as the brief says"},
            "OverPlusPlus": {"guidance": 4, "gc_handles": 8},
        }
    )
    home.mkdir(exist_ok=True)
    (home / "knobs.json").write_text(json.dumps({"defaults": {"OverPlusPlus": {"guidance": 5}}}))
    app.undo_steps.clear()
    gizmo = made("OverPlusPlus")
    assert gizmo["gc_depth"].value() == "16 bit half"
    assert (gizmo["compression"].value(), gizmo["gc_handles"].value()) == ("piz", 8)
    assert gizmo["guidance"].value() == 5
    assert made("Omnimatte")["gc_depth"].value() == "16 bit half"  # Which has no prompt.


def test_a_script_that_is_opened_and_a_node_that_is_pasted_are_as_they_were(app, studio, tmp_path):
    import nuke

    studio()
    made("OverPlusPlus")
    app.save(tmp_path / "old.nk")
    text = (tmp_path / "old.nk").read_text(encoding="utf-8")
    studio(defaults={"OverPlusPlus": {"steps": 12}})
    nuke.scriptOpen(str(tmp_path / "old.nk"))
    assert nuke.toNode("OverPlusPlus1")["steps"].value() == 50
    app.paste(text)
    assert {n["steps"].value() for n in nuke.allNodes("Group")} == {50}
    assert made("OverPlusPlus")["steps"].value() == 12


def test_without_an_interface_no_default_is_applied(terminal, studio):
    studio(defaults={"OverPlusPlus": {"steps": 12}})
    assert made("OverPlusPlus")["steps"].value() == 50


def test_a_renewed_node_gets_nothing_that_its_older_self_had_not(app, studio):
    studio(defaults={"OverPlusPlus": {"compression": "piz"}})
    gizmo = made("OverPlusPlus")
    gizmo.removeKnob(gizmo["compression"])
    assert migrating.renew(gizmo)["compression"].value() == "zip"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"gide": 1}, "sets 'gide', a knob that OverPlusPlus has not. Did you mean 'guidance'?"),
        ({"guidance": 99}, "sets 'guidance' to 99. It takes 1 to 20."),
        ({"guidance": True}, "sets 'guidance' to True. It takes a number."),
        ({"steps": 1.5}, "sets 'steps' to 1.5. It takes a whole number."),
        ({"prompt": 3}, "sets 'prompt' to 3. It takes text."),
        ({"caption": "on"}, "sets 'caption' to 'on'. It takes true or false."),
        (
            {"compression": "zipz"},
            "sets 'compression' to 'zipz'. Did you mean 'zip'? It takes one of: zip, zips, piz.",
        ),
        ({"gc_id": "x"}, "sets 'gc_id' of OverPlusPlus, which no file may set."),
    ],
)
def test_a_wrong_default_is_named_with_its_file_and_nothing_is_set(app, studio, table, said):
    path = studio(defaults={"OverPlusPlus": {"quality": "draft", **table}})
    gizmo = made("OverPlusPlus")
    status = " ".join(gizmo["gc_status"].value().split())
    assert status.startswith(f"{path}: 'defaults' {said}")
    assert gizmo["quality"].value() == "final"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "is no map"),
        ('{"default": {}}', "has a table 'default'"),
        ('{"defaults": {"Overplus": {}}}', "has defaults of a node 'Overplus', which there is not"),
        ('{"presets": {"*": 3}}', "presets of * is no map"),
    ],
)
def test_a_file_that_cannot_be_understood_is_named(app, studio, tmp_path, text, said):
    gizmo = made("OverPlusPlus")
    studio().write_text(text, encoding="utf-8")
    gizmo["gc_preset"].setValue("dust kicked up")
    status = press(gizmo, "gc_preset_apply")
    assert str(tmp_path / "studio.json") in status
    assert said in status


def test_a_studios_file_that_is_not_there_is_said(monkeypatch, home):
    monkeypatch.setenv("GENCOMP_STUDIO_KNOBS", "/nowhere/knobs.json")
    with pytest.raises(BadKnob, match=r"/nowhere/knobs\.json is not there"):
        knobfiles.defaults("DynVFX", prefs.load())


# --- a facility's settings files -----------------------------------------------------------------


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Return a function that writes the facility's settings, which the environment names."""

    def write(text):
        path = tmp_path / "site.toml"
        path.write_text(text, encoding="utf-8")
        monkeypatch.setenv("GENCOMP_CONFIG", str(path))
        return path

    return write


def test_a_facilitys_knobs_are_a_new_nodes_and_later_files_stand_over_them(app, studio, site, home):
    site('[knobs."*"]\nseed = 3\nsteps = 20\nguidance = 9.0\n[knobs.overplusplus]\nsteps = 30\n')
    studio(defaults={"OverPlusPlus": {"guidance": 4.0}})
    gizmo = made("OverPlusPlus")
    assert [gizmo[name].value() for name in ("seed", "steps", "guidance")] == [3, 30, 4.0]
    assert made("Omnimatte")["seed"].value() == 3  # It has no knob guidance.


def test_a_locked_knob_is_no_ones_default(app, studio, site):
    site('locked = ["knobs.*.seed"]\n[knobs."*"]\nseed = 3\n')
    path = studio(defaults={"OverPlusPlus": {"seed": 4}})
    gizmo = made("OverPlusPlus")
    status = " ".join(gizmo["gc_status"].value().split())
    assert f"Setting 'knobs.overplusplus.seed' is 4 in {path}" in status
    assert gizmo["seed"].value() == 0


# --- reset ---------------------------------------------------------------------------------------


def turn(gizmo):
    """Turn every knob that Reset counts to something else, and what it must never touch."""
    for name in (*gizmo["gc_params"].value().split(), *presetting._WORK):
        if name not in gizmo.knobs():
            continue
        knob = gizmo[name]
        if knob.Class() == "Enumeration_Knob":
            knob.setValue(next(item for item in knob.values() if item != knob.value()))
        elif knob.Class() == "Boolean_Knob":
            knob.setValue(not knob.value())
        elif knob.Class() in ("Int_Knob", "Double_Knob"):
            knob.setValue(knob.value() + 1)
        else:
            knob.setValue("1001")
    for name, value in (("gc_server", "tcp://far:1"), ("gc_range", "project"), ("gc_wedge", "1-3")):
        gizmo[name].setValue(value)


@pytest.mark.parametrize("name", GIZMOS)
@pytest.mark.parametrize("shots_too", [False, True])
def test_reset_sets_every_knob_of_the_job_back_and_the_shots_only_when_asked(app, name, shots_too):
    gizmo = made(name)
    fresh = state(gizmo)
    turn(gizmo)
    turned = state(gizmo)
    app.undo_steps.clear()
    app.answers.append(shots_too)
    assert press(gizmo, "gc_reset").startswith("Back at their defaults: ")
    job = (*gizmo["gc_params"].value().split(), *presetting._WORK)
    for knob in (knob for knob in job if knob in gizmo.knobs()):
        is_shots = knob in presetting._shot_knobs(gizmo)
        wanted = turned if is_shots and not shots_too else fresh
        assert gizmo[knob].toScript() == wanted[knob], knob
    assert {k: gizmo[k].toScript() for k in KEPT} == {k: turned[k] for k in KEPT}
    assert app.undo_steps == [f"{name}1 reset"]


def test_reset_counts_a_studios_defaults_and_takes_expressions_and_keys_away(app, studio):
    studio(defaults={"OverPlusPlus": {"steps": 12, "gc_depth": "16 bit half"}})
    gizmo = made("OverPlusPlus")
    gizmo["steps"].setExpression("5+5")
    gizmo["gc_depth"].setValue("32 bit float")
    gizmo["guidance"].fromScript("{curve x1001 3 x1011 9}")
    press(gizmo, "gc_reset")
    assert not gizmo["guidance"].isAnimated()
    assert (gizmo["steps"].value(), gizmo["steps"].hasExpression()) == (12, False)
    assert (gizmo["gc_depth"].value(), gizmo["guidance"].value()) == ("16 bit half", 6)
    assert press(gizmo, "gc_reset") == "Every knob is at its default already."


@pytest.mark.parametrize("name", GIZMOS)
def test_what_is_read_from_a_gizmos_file_is_what_a_new_node_has(app, name):
    gizmo, said = made(name), knobfiles.shipped(name)
    for knob in gizmo["gc_params"].value().split():
        assert presetting._as_value(gizmo[knob], said[knob].word) == gizmo[knob].value(), knob
        reach = gizmo[knob]._user.options.get("R")
        assert said[knob].reach == (tuple(map(float, reach)) if reach else None), knob


def test_check_set_up_names_a_file_of_values_that_is_wrong(home, studio):
    import os

    from gencomp_nuke import checking

    assert checking.check_settings(os.environ).is_good
    path = studio(presets={"Omnimatte": {"ours": {"model_long_egde": 900}}})
    found = checking.check_settings(os.environ)
    assert not found.is_good
    assert found.sentence == (
        f"settings: {path}: 'ours' sets 'model_long_egde', which no node has. "
        "Did you mean 'model_long_edge'?"
    )
