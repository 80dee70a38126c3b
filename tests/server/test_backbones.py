# SPDX-License-Identifier: Apache-2.0
"""What of a job's knobs counts on which backbone."""

import pytest

from gencomp_server.backbones import (
    AUTO,
    PREVIEW,
    SPECS,
    ModelParams,
    guidance_of,
    idle_knobs,
    in_order,
    spec_named,
    steps_of,
)
from gencomp_server.engine.residency import stand_in_sentence
from gencomp_server.parts.windows import job_length, job_windows
from gencomp_server.systems import dynvfx, omnimatte, overplusplus

SHIPS = spec_named(PREVIEW)
CASPER = spec_named("casper")
CARD = "cuda:0"


@pytest.mark.parametrize(
    ("asked", "quality", "on_large", "on_preview"),
    [
        (50, "final", 50, 1),
        (50, "draft", 10, 1),
        (9, "final", 9, 1),
        (8, "final", 8, 8),
        (4, "draft", 4, 4),
        (1, "final", 1, 1),
    ],
)
def test_the_model_that_ships_takes_one_step_unless_few_are_asked_for(
    asked, quality, on_large, on_preview
):
    params = ModelParams(steps=asked, quality=quality)
    assert steps_of(params) == steps_of(params, CASPER) == on_large
    assert steps_of(params, SHIPS) == on_preview


def test_guidance_of_one_is_none_on_every_model_and_less_pulls_on_the_one_that_ships():
    assert guidance_of(1.0, SHIPS) == guidance_of(1.0, CASPER) == 1.0
    assert guidance_of(6.0, CASPER) == 6.0
    pulled = [guidance_of(asked, SHIPS) for asked in (2.0, 4.0, 8.0)]
    assert 1 < pulled[0] < pulled[1] < pulled[2] < 8


def test_the_one_that_ships_comes_after_those_that_stand_in():
    order = [one.name for one in in_order("overplusplus", SPECS) if "overplusplus" in one.systems]
    assert order[0] == "overplusplus"
    assert order[-1] == PREVIEW
    assert order.index("casper") < order.index(PREVIEW)


def test_knobs_that_do_nothing_with_it_are_named():
    assert idle_knobs(overplusplus.Params(), CARD, SHIPS) is None
    assert idle_knobs(overplusplus.Params(steps=4), CARD, SHIPS) is None
    turned = overplusplus.Params(steps=20, attention="sage", guidance_rescale=0.1, guidance=2.0)
    said = "Knobs 'attention', 'guidance_rescale' and 'steps' have no effect with preview."
    assert idle_knobs(turned, CARD, SHIPS) == said
    assert idle_knobs(turned, CARD, CASPER) is None
    removal = omnimatte.Params(scene_prompt="a beach", guidance=3.0)
    said = "Knobs 'scene_prompt' and 'guidance' have no effect with preview."
    assert idle_knobs(removal, "cpu", SHIPS) == said
    other_seed = overplusplus.Params(seed=7)
    assert idle_knobs(other_seed, "cpu", SHIPS) == "Knob 'seed' has no effect with preview."
    for heard in ({"steps": 4}, {"grain": "match"}):
        assert idle_knobs(overplusplus.Params(seed=7, **heard), "cpu", SHIPS) is None
    assert idle_knobs(omnimatte.Params(compiled=True), "cpu") == (
        "Knob 'compiled' has no effect on a CPU."
    )
    assert idle_knobs(object(), "cpu", SHIPS) is None


def test_a_result_of_it_says_that_it_is_a_draft():
    for system in (omnimatte.SYSTEM, overplusplus.SYSTEM):
        assert "a draft" in stand_in_sentence(SHIPS, system.title, system.name)
    assert stand_in_sentence(CASPER, "Omnimatte", "omnimatte") is None


@pytest.mark.parametrize(
    ("frames", "spans"),
    [(1, [(0, 1)]), (9, [(0, 9)]), (10, [(0, 9), (1, 10)]), (24, None)],
)
def test_without_a_vae_a_shot_is_not_padded(frames, spans):
    assert job_length(SHIPS, frames) == frames
    found = [(one.first, one.last) for one in job_windows(SHIPS, frames)]
    assert found[-1][1] == frames
    assert max(last - first for first, last in found) <= SHIPS.window_frames
    if spans is not None:
        assert found == spans


@pytest.mark.parametrize("system", [omnimatte, overplusplus, dynvfx])
def test_its_menu_says_what_it_is_where_it_serves(system):
    told = system.Params.__dataclass_fields__["backbone"].metadata
    if system is dynvfx:
        assert told["shown"] is None
        assert PREVIEW not in told["choices"]
    else:
        assert told["shown"] == {PREVIEW: "preview (ships, draft quality)"}
        assert told["choices"][0] == AUTO
        assert told["choices"][-2] == PREVIEW
