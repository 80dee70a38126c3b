# SPDX-License-Identifier: Apache-2.0
"""The cost of a job that cannot run yet, beside the reason why."""

from dataclasses import replace

import pytest

from gencomp_protocol.errors import BadKnob, OutOfMemory, WeightsMissing, WeightsRefused
from gencomp_protocol.frames import Format, FrameRange
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.contract import Machine, Refusal
from gencomp_server.forecast import forecast
from gencomp_server.gate import plan_on
from gencomp_server.systems.overplusplus import SYSTEM

GB = 10**9
FRAMES = tuple(range(1, 86))
CARD = Machine("cuda:0", "a card", 24 * GB, 23 * GB, 100.0)


def request(**knobs):
    size = Format(1920, 1080)
    inputs = tuple(InputHeader(name, FRAMES, format=size) for name in ("plate", "effect_mask"))
    return Request("overplusplus", FrameRange(1, 85), inputs, {"prompt": "smoke", **knobs})


def test_without_weights_the_first_choice_is_planned_as_if_it_were_there():
    plan, refusal = forecast(SYSTEM, request(), CARD)
    assert isinstance(refusal, WeightsMissing)
    there = replace(CARD, backbones=("casper",))
    assert plan == plan_on(SYSTEM, request(backbone="casper"), there)
    assert plan.tokens == 11314


def test_a_backbone_that_is_named_is_the_one_that_is_planned():
    plan, refusal = forecast(SYSTEM, request(backbone="wan-casper-1.3b"), CARD)
    assert plan.backbone == "wan-casper-1.3b"
    assert "Wan 2.1" in refusal.message


def test_a_licence_that_is_not_allowed_is_told_beside_the_cost():
    refused = {"casper": Refusal("Not allowed.", "Ask.", by_licence=True)}
    plan, refusal = forecast(SYSTEM, request(), replace(CARD, refused=refused))
    assert isinstance(refusal, WeightsRefused)
    assert plan.forwards > 0


@pytest.mark.parametrize("device", ["cuda:0", "cpu"])
def test_memory_that_is_not_enough_is_told_beside_what_would_be_needed(device):
    small = Machine(device, "a card", 2 * GB, 2 * GB, 100.0, backbones=("casper",))
    plan, refusal = forecast(SYSTEM, request(backbone="casper"), small)
    assert isinstance(refusal, OutOfMemory)
    assert max(plan.stage_bytes.values()) > 2 * GB
    assert plan.placement == {}


def test_one_that_is_not_practical_is_planned_all_the_same():
    slow = Machine("cpu", "a laptop", 64 * GB, 64 * GB, 0.1, backbones=("casper",))
    plan, refusal = forecast(SYSTEM, request(), slow)
    assert isinstance(refusal, BadKnob)
    assert plan.minutes > 60


def test_what_is_wrong_on_any_machine_stays_an_error():
    with pytest.raises(BadKnob, match="multiples of 16"):
        forecast(SYSTEM, request(model_size="100x50"), CARD)


def test_what_can_run_has_no_refusal():
    plan, refusal = forecast(SYSTEM, request(), replace(CARD, backbones=("casper",)))
    assert (plan.backbone, refusal) == ("casper", None)
