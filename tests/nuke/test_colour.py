# SPDX-License-Identifier: Apache-2.0
"""The colours of a script: which space and which config a node asks for."""

import pytest

from gencomp_nuke import asking
from gencomp_protocol.errors import BadKnob


def asked(app, comp, **knobs):
    """Set knobs of the project settings; return space and config of the request."""
    import nuke

    gizmo = comp(app)
    for name, value in knobs.items():
        nuke.root()[name].setValue(value)
    request = asking.ask(gizmo).request
    return request.working_space, request.ocio


def test_a_script_without_opencolorio_asks_for_nukes_own_linear(app, comp):
    assert asked(app, comp) == ("linear", "")


def test_the_variable_means_nothing_to_a_script_without_opencolorio(app, comp, monkeypatch):
    monkeypatch.setenv("OCIO", "/show/config.ocio")
    assert asked(app, comp) == ("linear", "")


def test_the_variable_goes_before_the_scripts_own_config(app, comp, monkeypatch):
    monkeypatch.setenv("OCIO", "/show/config.ocio")
    knobs = {"OCIO_config": "custom", "customOCIOConfigPath": "/shot/config.ocio"}
    found = asked(app, comp, colorManagement="OCIO", workingSpaceLUT="ACEScg", **knobs)
    assert found == ("ACEScg", "/show/config.ocio")


def test_a_built_in_config_of_the_variable_stays_as_it_is_spelt(app, comp, monkeypatch):
    name = "ocio://cg-config-v2.1.0_aces-v1.3_ocio-v2.3"
    monkeypatch.setenv("OCIO", name)
    assert asked(app, comp, colorManagement="OCIO")[1] == name


def test_a_custom_config_is_sent_with_the_space_as_nuke_spells_it(app, comp, monkeypatch):
    monkeypatch.delenv("OCIO", raising=False)
    found = asked(
        app,
        comp,
        colorManagement="OCIO",
        OCIO_config="custom",
        customOCIOConfigPath="/shot/config.ocio",
        workingSpaceLUT="scene_linear (ACES - ACEScg)",
    )
    assert found == ("scene_linear (ACES - ACEScg)", "/shot/config.ocio")


def test_a_custom_config_without_a_file_is_refused(app, comp, monkeypatch):
    monkeypatch.delenv("OCIO", raising=False)
    with pytest.raises(BadKnob, match="no file is named"):
        asked(app, comp, colorManagement="OCIO", OCIO_config="custom")


def test_nukes_default_config_is_no_config(app, comp, monkeypatch):
    monkeypatch.delenv("OCIO", raising=False)
    assert asked(app, comp, colorManagement="OCIO", OCIO_config="nuke-default") == ("linear", "")


@pytest.mark.parametrize("place", ["aces_1.2/config.ocio", "aces_1.2.ocio"])
def test_a_config_that_nuke_brings_is_sent_as_its_file(app, comp, monkeypatch, tmp_path, place):
    import nuke

    monkeypatch.delenv("OCIO", raising=False)
    monkeypatch.setattr(nuke, "EXE_PATH", str(tmp_path / "Nuke"), raising=False)
    file = tmp_path / "plugins" / "OCIOConfigs" / "configs" / place
    file.parent.mkdir(parents=True)
    file.write_text("ocio_profile_version: 2")
    found = asked(
        app, comp, colorManagement="OCIO", OCIO_config="aces_1.2", workingSpaceLUT="ACES - ACEScg"
    )
    assert found == ("ACES - ACEScg", str(file))


def test_a_config_that_nuke_should_bring_and_does_not_is_refused(app, comp, monkeypatch, tmp_path):
    import nuke

    monkeypatch.delenv("OCIO", raising=False)
    monkeypatch.setattr(nuke, "EXE_PATH", str(tmp_path / "Nuke"), raising=False)
    with pytest.raises(BadKnob, match=r"'aces_1\.2' is not where Nuke keeps its own"):
        asked(app, comp, colorManagement="OCIO", OCIO_config="aces_1.2")
