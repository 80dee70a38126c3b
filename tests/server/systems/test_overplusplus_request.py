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
from gencomp_server.parts.annotation import annotation
from gencomp_server.sources import Given, gather, second_channels
from gencomp_server.systems.overplusplus import SYSTEM, layers, plan

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
    params = check_request(SYSTEM, asked)
    found = annotation(asked, params.mask_frames, params.keyframes)
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
    apart = [layer.name for layer in layers(request("fg", "bg", origin=True))]
    assert apart == [*found, "effect_under", "effect_over", "origin"]
    assert "effect_under" not in [layer.name for layer in layers(request("plate", "fg", "bg"))]


@pytest.mark.parametrize(("names", "carried"), [(("plate",), "plate"), (("fg", "bg"), "bg")])
def test_the_result_alone_is_a_whole_picture_and_carries_the_other_channels(names, carried):
    found = layers(request(*names))
    assert [(one.name, one.carries) for one in found if one.whole] == [("result", carried)]
    assert not any(one.carries for one in found[1:])


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


def noted(asked):
    return " ".join(plan(asked, BIG).notes)


def test_when_frames_have_no_mask_then_the_plan_says_what_of_them_may_change():
    bounds = "(limit, protect, keep or a mask on every frame bounds it)."
    keyed = request("plate", stills=(1002,), keyframes="1002", **KEYED)
    within = "a change may be within the mask as it is interpolated there, grown by 10 % of the"
    assert f"2 of 3 frames have no mask; there {within} height." in noted(keyed)
    free = {**KEYED, "unknown_bound": "whole frame", "region": "whole frame"}
    keyed = request("plate", stills=(1001, 1002), keyframes="1001-1002", **free)
    said = f"1 of 3 frames has no mask; there the whole frame may change {bounds}"
    assert said in noted(keyed)
    around = replace(keyed, knobs={**keyed.knobs, "region": "around the mask"})
    assert "there the whole region around the masks may change" in noted(around)
    assert f"No frame has a mask; the whole frame may change {bounds}" in noted(request("plate"))
    kept = noted(request("plate", "keep", "limit"))
    assert "No frame has a mask; the whole frame may change, inside limit, outside keep." in kept
    assert "may change" not in noted(request("plate", "effect_mask"))


def test_when_the_plates_size_is_not_known_then_the_plan_still_says_what_may_change():
    bare = Request("overplusplus", FrameRange(1001, 1003), (InputHeader("plate", FRAMES),), {})
    assert "No frame has a mask" in noted(bare)


def test_when_there_is_a_prompt_then_the_plan_shows_the_caption_made_of_it():
    told = noted(request("plate", prompt='"soft shadow"'))
    assert "Caption: The subject casts a soft shadow on the ground" in told
    typed = noted(request("plate", prompt="soft shadow", caption=False))
    assert "Caption: soft shadow" in typed
    assert "There is no prompt" in noted(request("plate"))


def test_when_a_mask_of_single_pictures_does_not_fit_then_the_cure_names_frames_it_has():
    with pytest.raises(MissingFrame) as caught:
        check_request(SYSTEM, request("plate", stills=(1001, 1003)))
    assert "keyframes to 1001,1003." in caught.value.hint
    with pytest.raises(MissingFrame) as caught:
        check_request(SYSTEM, request("plate", stills=(1001, 1003), keyframes="1002", **KEYED))
    assert "set keyframes to frames it has: 1001,1003." in caught.value.hint
    with pytest.raises(BadKnob) as caught:
        check_request(SYSTEM, request("plate", stills=(1001, 1003), **KEYED))
    assert "as 1001,1003." in caught.value.hint


def roto_on_disk(tmp_path, *frames):
    """Return the plate of three frames and a roto at some of them, found on disk."""
    names = [f"p.{n}.jpg" for n in FRAMES] + [f"r.{n}.jpg" for n in frames]
    for name in names:
        (tmp_path / name).write_bytes(b"\xff\xd8\xff\xe0" + bytes(32))
    given = [
        Given("plate", f"{tmp_path}/p.%d.jpg"),
        Given("effect_mask", f"{tmp_path}/r.%d.jpg"),
    ]
    return gather(given, schema(SYSTEM), None, {})


def test_when_a_roto_lies_on_disk_at_its_keyframes_then_the_pattern_is_taken_and_said(tmp_path):
    found = roto_on_disk(tmp_path, 1001, 1003)
    entries = tuple(source.header for source in found.sources)
    asked = Request("overplusplus", found.frames, entries, {"keyframes": "1001,1003", **KEYED})
    assert annotated(asked) == ("keyframes only", (1001, 1003))
    assert "Input 'effect_mask' has pictures at 1001, 1003 only." in found.notes


def test_when_such_a_roto_is_to_count_on_every_frame_then_its_hole_is_refused(tmp_path):
    found = roto_on_disk(tmp_path, 1001, 1003)
    entries = tuple(source.header for source in found.sources)
    with pytest.raises(MissingFrame, match="no picture at frame 1002; it has 1001, 1003"):
        check_request(SYSTEM, Request("overplusplus", found.frames, entries, {}))


def test_when_a_plate_has_a_hole_then_it_is_refused_as_before(tmp_path):
    for n in (1001, 1003, 1004):
        (tmp_path / f"p.{n}.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(32))
    with pytest.raises(MissingFrame, match="'plate' has no frame 1002"):
        gather([Given("plate", f"{tmp_path}/p.%d.jpg")], schema(SYSTEM), None, {})


def test_when_a_second_channel_is_named_then_the_masks_files_are_sent_as_a_second_matte():
    given = [Given("plate", "p.%04d.exr"), Given("effect_mask", "m.%04d.exr", channel="mask.red")]
    found = second_channels(given, schema(SYSTEM), {"unknown_channel": "mask.green"})
    assert found == [*given, Given("effect_unknown", "m.%04d.exr", channel="mask.green")]
    assert second_channels(given, schema(SYSTEM), {}) == given
    with pytest.raises(BadKnob, match="not a channel"):
        second_channels(given, schema(SYSTEM), {"unknown_channel": "mask green"})
