# SPDX-License-Identifier: Apache-2.0
"""Over++'s declaration: what can be refused or planned from the header alone."""

from dataclasses import replace

import pytest

from gencomp_protocol.errors import (
    BadKnob,
    MissingFrame,
    MissingInput,
    RangeMismatch,
    WeightsMissing,
)
from gencomp_protocol.frames import Format, FrameRange
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.contract import Machine, check_request, schema
from gencomp_server.sources import Given, second_channels
from gencomp_server.systems.overplusplus import SYSTEM, annotation, layers, plan

FRAMES = (1001, 1002, 1003)
BIG = Machine(
    "cuda:0",
    memory_bytes=80 * 10**9,
    free_bytes=80 * 10**9,
    teraflops=400.0,
    backbones=("casper",),
)


def request(*names: str, stills: tuple[int, ...] = (), **knobs: object) -> Request:
    entries = [InputHeader(name, FRAMES, format=Format(1920, 1080)) for name in names]
    if stills:
        entries.append(InputHeader("effect_mask", stills, "stills", format=Format(1920, 1080)))
    return Request("overplusplus", FrameRange(1001, 1003), tuple(entries), knobs)


def annotated(asked: Request) -> tuple[str, tuple[int, ...]]:
    found = annotation(asked, check_request(SYSTEM, asked))
    return found.mode, found.frames


def test_when_a_mask_is_connected_then_it_counts_on_every_frame_unless_told_otherwise():
    assert annotated(request("plate")) == ("no mask", ())
    assert annotated(request("plate", "effect_mask")) == ("every frame", FRAMES)
    asked = request("plate", "effect_mask", mask_frames="no mask")
    assert annotated(asked) == ("no mask", ())
    asked = request("plate", "effect_mask", mask_frames="keyframes only", keyframes="1003, 1001")
    assert annotated(asked) == ("keyframes only", (1001, 1003))
    asked = request("plate", stills=(1002,), mask_frames="keyframes only", keyframes="1002")
    assert annotated(asked) == ("keyframes only", (1002,))


def test_when_anything_is_asked_then_these_layers_come():
    found = {layer.name: layer.channels for layer in layers(request("plate"))}
    rgba = ("R", "G", "B", "A")
    assert found == {"result": rgba, "effect": rgba, "difference": rgba, "effect_matte": ("A",)}


KEYED = {"mask_frames": "keyframes only"}


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        (request(), MissingInput, "plate or fg + bg"),
        (request("fg"), MissingInput, "plate or fg + bg"),
        (request("plate", "effect_mask", **KEYED), BadKnob, "names no frame"),
        (request("plate", "effect_mask", keyframes="99", **KEYED), RangeMismatch, "99"),
        (request("plate", "effect_mask", keyframes="soon", **KEYED), BadKnob, "Knob 'keyframes'"),
        (request("plate", keyframes="1001", **KEYED), MissingInput, "no effect_mask"),
        (request("plate", stills=(1002,)), MissingFrame, "1001, 1003; it has 1002"),
        (
            request("plate", stills=(1002,), keyframes="1002,1003", **KEYED),
            MissingFrame,
            "no picture at frame 1003",
        ),
        (request("plate", "effect_unknown"), MissingInput, "without effect_mask"),
        (request("plate", "effect_mask", unknown_channel="m.g"), BadKnob, "no such matte"),
        (request("plate", guidance="nan"), BadKnob, "guidance"),
        (request("plate", guidance=0.5), BadKnob, "guidance"),
        (request("plate", steps=0), BadKnob, "steps"),
        (request("plate", preset="fog"), BadKnob, "preset"),
    ],
)
def test_when_something_cannot_work_then_one_sentence_says_why(asked, error, words):
    with pytest.raises(error) as caught:
        check_request(SYSTEM, asked)
    assert words in str(caught.value)


def test_when_no_weights_are_installed_then_the_plan_says_so():
    with pytest.raises(WeightsMissing, match=r"Over\+\+ needs a video model"):
        plan(request("plate"), Machine())


def test_when_weights_are_there_then_the_plan_names_them_and_counts_forwards():
    asked = request("plate", "effect_mask", steps=30)
    found = plan(asked, BIG)
    assert (found.backbone, found.forwards) == ("casper", 60)
    assert found.bytes_in == 3 * 1920 * 1080 * 2 * 4
    without = replace(asked, knobs={"steps": 30, "guidance": 1.0})
    assert plan(without, BIG).forwards == 30


def test_when_a_second_channel_is_named_then_the_masks_files_are_sent_as_a_second_matte():
    given = [Given("plate", "p.%04d.exr"), Given("effect_mask", "m.%04d.exr", channel="mask.red")]
    found = second_channels(given, schema(SYSTEM), {"unknown_channel": "mask.green"})
    assert found == [*given, Given("effect_unknown", "m.%04d.exr", channel="mask.green")]
    assert second_channels(given, schema(SYSTEM), {}) == given
    with pytest.raises(BadKnob, match="not a channel"):
        second_channels(given, schema(SYSTEM), {"unknown_channel": "mask green"})
