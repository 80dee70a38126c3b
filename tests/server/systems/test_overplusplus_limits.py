# SPDX-License-Identifier: Apache-2.0
"""Over++ on a model that has no value for UNKNOWN, and words that are too long to be read."""

from dataclasses import replace

import numpy as np
import pytest

from gencomp_protocol.errors import BadKnob, BadMatte
from gencomp_protocol.frames import Format, FrameRange
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.backbones import spec_named
from gencomp_server.contract import Machine
from gencomp_server.parts.annotation import BINARY_CONVENTIONS
from gencomp_server.parts.trimask import CONVENTIONS
from gencomp_server.systems.overplusplus import plan

FRAMES = (1001, 1002, 1003)
BINARY = "cogvideox-fun-v1.5-5b-inp"
GPU = Machine("cuda:0", memory_bytes=80 * 10**9, teraflops=400.0, backbones=(BINARY, "casper"))


def request(*names, **knobs):
    entries = [InputHeader(name, FRAMES, format=Format(1920, 1080)) for name in names]
    return Request("overplusplus", FrameRange(1001, 1003), tuple(entries), knobs)


@pytest.fixture
def binary(new_job, painter):
    """Return a job whose model keeps what is unknown, and has no prompt limit of its own."""
    job, _ = new_job(system="overplusplus")
    job.backbone = painter(lambda plate, classes: -0.5 * (plate + 1))
    job.backbone.spec = replace(job.backbone.spec, convention="fun_inpaint")
    return job


def mask(job, value):
    pixels = np.zeros((96, 160, 1), np.float16)
    pixels[:, :64] = value
    job.remove("effect_mask")
    job.add("effect_mask", 1001, pixels, cover="still")


def test_the_models_that_keep_what_is_unknown_are_those_whose_two_values_are_one():
    assert {name for name, one in CONVENTIONS.items() if one.unknown == one.keep} == set(
        BINARY_CONVENTIONS
    )
    assert spec_named(BINARY).convention in BINARY_CONVENTIONS


@pytest.mark.parametrize(
    "asked",
    [
        request("plate", backbone=BINARY),
        request("plate", "effect_mask", backbone=BINARY, mask_frames="no mask"),
    ],
)
def test_when_such_a_model_gets_no_mask_then_the_plan_is_refused_with_a_cure(asked):
    with pytest.raises(BadKnob, match=r"no mask counts on any frame.*nothing would change") as said:
        plan(asked, GPU)
    assert "Connect effect_mask" in said.value.hint


def test_when_it_gets_a_mask_or_another_model_gets_none_then_there_is_a_plan():
    assert plan(request("plate", "effect_mask", backbone=BINARY), GPU).backbone == BINARY
    assert plan(request("plate", backbone="casper"), GPU).backbone == "casper"


def test_when_nothing_is_asked_for_but_the_unknown_then_the_job_is_refused(binary):
    mask(binary, 0)
    with pytest.raises(BadMatte, match="nothing would change"):
        binary.run(steps=1, mask_frames="keyframes only", keyframes="1001")
    assert binary.backbone.forwards == 0


def test_when_some_frames_carry_no_mask_then_it_says_that_they_stay(binary):
    mask(binary, 1)
    made = binary.run(steps=1, mask_frames="keyframes only", keyframes="1001")
    assert any("it keeps the picture" in sentence for sentence in made.ctx.warnings)
    assert not any("it keeps" in one for one in binary.run(steps=1).ctx.warnings)


LONG = " ".join(f"word{i}" for i in range(230))


@pytest.mark.parametrize(
    ("knobs", "subject"),
    [
        ({"prompt": LONG}, "Knob 'prompt' is"),
        ({"base_prompt": LONG}, "Knob 'base_prompt' is"),
        ({"negative_prompt": LONG}, "Knob 'negative_prompt' is"),
        (
            {"base_prompt": "calm water", "negative_prompt": LONG},
            "Knobs 'base_prompt' and 'negative_prompt' together are",
        ),
    ],
)
def test_when_words_are_too_long_then_the_knob_that_holds_them_is_named(binary, knobs, subject):
    mask(binary, 1)
    said = [one for one in binary.run(steps=1, **knobs).ctx.warnings if " cut: '" in one]
    assert len(said) == 1
    assert said[0].startswith(f"{subject} longer than the 226 tokens this model reads; ")
    assert said[0].endswith("word229'.")


def test_when_steps_are_reused_then_the_plan_counts_what_they_keep():
    asked = request("plate", backbone="casper")
    reused = request("plate", backbone="casper", cached_steps=0.1)
    assert plan(reused, GPU).stage_bytes["sample"] != plan(asked, GPU).stage_bytes["sample"]
