# SPDX-License-Identifier: Apache-2.0
"""The first gate: what a machine cannot do is refused from the header."""

from dataclasses import replace

import pytest

from gencomp_protocol.errors import (
    BadKnob,
    MalformedMessage,
    MissingFrame,
    OutOfMemory,
    WeightsMissing,
    WeightsRefused,
)
from gencomp_protocol.frames import Format, FrameRange
from gencomp_protocol.messages import InputPictures, PictureEntry
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.backbones import ModelParams, choose, model_size, passed_over
from gencomp_server.contract import (
    MAY_USE_BACKBONE,
    NEEDS_BACKBONE,
    Machine,
    Plan,
    Refusal,
    System,
    parse_params,
)
from gencomp_server.cost import estimate
from gencomp_server.gate import check_pictures, plan_on

GB = 10**9
BARRED = Refusal(
    "Installed, but its licence class 'academic' is not allowed.", "Use another.", True
)


def plan(request, machine):
    params = parse_params(ModelParams, request.knobs)
    spec = choose(NEEDS, params, machine)
    size = model_size(spec, Format(4096, 2160), params.model_size)
    return estimate(spec, size, 85, steps=params.steps, machine=machine).plan()


NEEDS = System(
    name="omnimatte",
    title="Omnimatte",
    doc="A stub.",
    inputs=(),
    params=ModelParams,
    layers=lambda request: (),
    plan=plan,
    run=lambda shot, params, ctx: iter(()),
    backbone=NEEDS_BACKBONE,
)


def asked(**knobs):
    return Request("omnimatte", FrameRange(1, 85), (), knobs)


def card(giga, *names, **more):
    return Machine("cuda:0", "a card", giga * GB, giga * GB, 295.0, names, **more)


def test_the_best_installed_backbone_is_planned_for():
    assert plan_on(NEEDS, asked(), card(140, "wan-casper-1.3b", "casper")).backbone == "casper"


def test_without_any_the_missing_one_is_named():
    with pytest.raises(WeightsMissing, match="Casper"):
        plan_on(NEEDS, asked(), card(140))


def test_one_that_is_there_and_not_allowed_is_named_before_one_that_is_not_there():
    with pytest.raises(WeightsRefused, match="'academic'"):
        plan_on(NEEDS, asked(), card(140, refused={"wan-casper-14b": BARRED}))


def test_what_does_not_fit_the_card_is_refused_with_the_knob():
    with pytest.raises(OutOfMemory) as refusal:
        plan_on(NEEDS, asked(model_size="4096x2160"), card(16, "casper"))
    assert refusal.value.details["knob"] == "model_size"


def test_auto_passes_over_what_is_not_practical_and_takes_what_is():
    # Trained for the system, but its text encoder alone takes more than the card has.
    small = card(12, "wan-casper-1.3b", "cogvideox-fun-v1.5-5b-inp")
    assert plan_on(NEEDS, asked(), small).backbone == "cogvideox-fun-v1.5-5b-inp"
    assert len(passed_over(NEEDS, small)) == 1
    processor = replace(small, device="cpu", memory_bytes=512 * GB, teraflops=1.0)
    with pytest.raises(BadKnob) as refusal:
        plan_on(NEEDS, asked(), processor)
    assert "none that is installed is practical here" in refusal.value.message
    assert "backbone=wan-casper-1.3b" in refusal.value.hint
    assert len(passed_over(NEEDS, processor)) == 2


def test_to_insist_is_offered_only_for_what_memory_would_take():
    # Of the two, Wan 1.3B needs some 30 GB on a processor and Casper some 50.
    slow = Machine("cpu", "16 cores", 40 * GB, 40 * GB, 0.1, ("casper", "wan-casper-1.3b"))
    with pytest.raises(BadKnob) as refusal:
        plan_on(NEEDS, asked(), slow)
    assert "backbone=wan-casper-1.3b" in refusal.value.hint
    assert plan_on(NEEDS, asked(backbone="wan-casper-1.3b"), slow).backbone == "wan-casper-1.3b"
    small = replace(slow, memory_bytes=16 * GB)
    with pytest.raises(
        BadKnob, match=r"Casper .* needs .* GB of memory .* has 16\.0 GB"
    ) as refusal:
        plan_on(NEEDS, asked(), small)
    assert "insist" not in refusal.value.hint
    assert "more memory" in refusal.value.hint
    for name in small.backbones:
        with pytest.raises(OutOfMemory):
            plan_on(NEEDS, asked(backbone=name), small)


def test_one_that_is_named_is_planned_on_a_processor_with_a_warning():
    processor = Machine("cpu", "16 cores", 512 * GB, 512 * GB, 1.0, ("casper",))
    found = plan_on(NEEDS, asked(backbone="casper"), processor)
    assert found.backbone == "casper"
    assert any("take a machine with a GPU" in note for note in found.notes)


def test_a_system_that_may_do_without_decides_in_its_plan():
    system = replace(NEEDS, backbone=MAY_USE_BACKBONE, plan=lambda request, machine: Plan())
    assert plan_on(system, asked(), card(140)).backbone == ""


@pytest.mark.parametrize(
    ("knobs", "sentence"),
    [
        ({"attention": "sage"}, "Knob 'attention' has no effect on a CPU."),
        (
            {"compiled": True, "cached_steps": 0.1},
            "Knobs 'compiled' and 'cached_steps' have no effect on a CPU.",
        ),
        ({"precision": "fp8", "quality": "draft"}, None),
    ],
    ids=["one", "two", "what a processor follows"],
)
def test_a_plan_names_the_knobs_that_do_nothing_on_its_device(knobs, sentence):
    size = {"backbone": "tiny", "model_size": "80x48", **knobs}
    notes = plan_on(NEEDS, asked(**size), Machine()).notes
    assert [note for note in notes if "no effect" in note] == ([sentence] if sentence else [])
    assert not any("no effect" in note for note in plan_on(NEEDS, asked(**size), card(140)).notes)


@pytest.mark.fault("F09")
def test_a_frame_that_is_named_twice_is_refused_by_its_number():
    wanted = Request("toy", FrameRange(1001, 1002), (InputHeader("plate", (1001, 1001, 1002)),))
    entries = tuple(PictureEntry(n, 1, "a" * 64) for n in (1001, 1002))
    with pytest.raises(MissingFrame) as caught:
        check_pictures(wanted, (InputPictures("plate", entries),))
    assert str(caught.value) == (
        "Input 'plate' names frame 1001 more than once. Give every frame one picture."
    )
    with pytest.raises(MalformedMessage, match="got 'plate frame 1002 twice'"):
        InputPictures("plate", (*entries, entries[1]))


@pytest.mark.fault("F09")
def test_pictures_of_other_frames_than_were_said_are_refused_by_their_numbers():
    wanted = Request("toy", FrameRange(1001, 1003), (InputHeader("plate", (1001, 1002, 1003)),))
    entries = tuple(PictureEntry(n, 1, "a" * 64) for n in (1001, 1004))
    with pytest.raises(MissingFrame, match="at frame 1002-1004"):
        check_pictures(wanted, (InputPictures("plate", entries),))
