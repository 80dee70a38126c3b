# SPDX-License-Identifier: Apache-2.0
"""Omnimatte's declaration: names, order and layers from the header alone."""

from dataclasses import replace

import pytest

from gencomp_protocol.errors import BadKnob, BadName, MissingInput
from gencomp_protocol.frames import Format, FrameRange
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.contract import Machine, check_request
from gencomp_server.systems.omnimatte import SYSTEM, front_to_back, layers, plan

FRAMES = (1001, 1002)


def request(*names: str, **knobs: object) -> Request:
    entries = [InputHeader("plate", FRAMES, format=Format(640, 384))]
    entries += [InputHeader(name, FRAMES) for name in names]
    return Request("omnimatte", FrameRange(1001, 1002), tuple(entries), knobs)


def delivered(asked: Request) -> list[str]:
    return [layer.name for layer in layers(asked)]


def test_when_nothing_is_touched_then_background_one_layer_per_matte_and_the_removal_come():
    asked = request("matte.boy", "matte.girl")
    assert delivered(asked) == ["background", "boy", "girl", "clean", "patch"]
    assert [layer.name for layer in layers(asked) if layer.whole] == ["background", "clean"]
    assert [layer.name for layer in layers(asked) if layer.carries == "plate"] == ["clean"]


def test_when_the_origin_is_asked_for_then_it_is_a_layer_of_mattes():
    asked = request("matte.a", origin=True)
    assert delivered(asked) == ["background", "a", "clean", "patch", "origin"]
    assert layers(asked)[-1].channels[0] == "origin.plate"


@pytest.mark.parametrize(
    ("order", "front"), [("b; 1002: a", "b"), ("1001: b", "b"), ("1002: b", "a"), ("1: b", "b")]
)
def test_when_the_order_changes_over_time_then_layers_are_listed_as_at_the_first_frame(
    order, front
):
    assert front_to_back(request("matte.a", "matte.b", order=order))[0] == front


def test_when_the_order_names_the_hind_object_then_it_comes_first():
    asked = request("matte.a", "matte.b", "matte.c", order="c, a")
    assert front_to_back(asked) == ("c", "a", "b")


def test_when_effects_are_split_and_the_residual_apart_then_the_layers_say_so():
    asked = request("matte.a", split_effects=True, residual="layer")
    assert delivered(asked) == [
        *("background", "a", "a_object", "a_effects", "residual"),
        *("clean", "patch"),
    ]


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        (request("matte.1st"), BadName, "'1st'"),
        (request("matte.background"), BadName, "taken"),
        (request("matte.a_effects"), BadName, "taken"),
        (request("matte.boy", "matte.Boy"), BadName, "Two mattes"),
        (request("matte.a", "effects.b"), BadName, "effects.b"),
        (request("matte.a", "trimask.b"), BadName, "trimask.b"),
        (
            request("matte.a", "matte.b", "solo.a", clean_plate_from="temporal"),
            BadName,
            "not for b",
        ),
        (request("matte.a", passes="a"), BadKnob, "'a'"),
        (request("matte.a", passes="z=3"), BadKnob, "'z'"),
        (request("matte.a", passes="a=1 a=2"), BadKnob, "twice"),
        (request("matte.a", passes="a=2147483648"), BadKnob, "'a=2147483648'"),
        (request("matte.a", order="a,z"), BadKnob, "'z'"),
        (request("matte.a", order="a,a"), BadKnob, "'a'"),
        (request("matte.a", order="a; then: a"), BadKnob, "'then'"),
        (request("matte.a", "matte.b", order="a; b"), BadKnob, "from which frame"),
        (request("matte.a", depth_near="near"), BadKnob, "'depth_near'"),
        (request(), MissingInput, "matte.NAME"),
        (request(*(f"matte.m{n}" for n in range(9))), MissingInput, "at most 8"),
    ],
)
def test_when_names_or_order_cannot_work_then_one_sentence_says_why(asked, error, words):
    with pytest.raises(error) as caught:
        check_request(SYSTEM, asked)
    assert words in str(caught.value)


def test_when_the_plate_grows_then_the_plan_does():
    small = request("matte.a")
    entries = (replace(small.inputs[0], format=Format(1920, 1080)), *small.inputs[1:])
    large = replace(small, inputs=entries)
    assert plan(large, Machine()).bytes_in > 8 * plan(small, Machine()).bytes_in
    assert plan(large, Machine()).memory_bytes > plan(small, Machine()).memory_bytes


def with_clean(cover: str, frames: tuple[int, ...], **knobs: object) -> Request:
    asked = request("matte.a", **knobs)
    return replace(asked, inputs=(*asked.inputs, InputHeader("clean_plate", frames, cover)))


IDLE = "Knob 'grain' does nothing here"


def test_when_grain_is_to_match_and_the_clean_plate_is_connected_then_the_plan_says_it_is_idle():
    def idle(asked: Request) -> bool:
        return plan(asked, Machine()).notes[-1].startswith(IDLE)

    assert idle(with_clean("sequence", FRAMES, grain="match"))
    assert idle(with_clean("still", (1001,), grain="match", register_clean_plate=False))
    assert not idle(with_clean("sequence", FRAMES))
    assert not idle(with_clean("still", (1001,), grain="match"))
    assert not idle(with_clean("stills", (1001,), grain="match"))
    assert not idle(request("matte.a", grain="match"))
