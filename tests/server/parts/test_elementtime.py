# SPDX-License-Identifier: Apache-2.0
"""The time of an element: start, range, speed, before and after, without a picture."""

import pytest

from gencomp_protocol.errors import BadKnob, MissingFrame
from gencomp_protocol.frames import FrameRange
from gencomp_protocol.motion import CURVE, read_keys
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.parts.elementtime import played, sources_of
from gencomp_server.placing import PlacingParams


def shown(frames, own, cover="sequence", matte=None, **knobs):
    entries = [InputHeader("bg", tuple(FrameRange.parse(frames)))]
    entries.append(InputHeader("fg", tuple(own), cover))
    if matte is not None:
        entries.append(InputHeader("fg_matte", tuple(matte)))
    request = Request("gencomposite", FrameRange.parse(frames), tuple(entries))
    return sources_of(request, PlacingParams(**knobs), "element")


def test_an_element_with_the_plates_frame_numbers_plays_at_them():
    assert shown("1001-1004", [1002, 1003]) == (None, 1002, 1003, None)


def test_an_element_with_numbers_of_its_own_begins_with_the_shot():
    assert shown("1001-1004", [1, 2, 3]) == (1, 2, 3, None)


def test_a_burst_of_36_frames_is_there_from_its_start_for_36_frames():
    found = shown("1001-1120", range(1, 37), fg_start="1040")
    lives = [n for n, own in zip(range(1001, 1121), found, strict=True) if own is not None]
    assert lives == list(range(1040, 1076))
    assert found[1040 - 1001] == 1
    assert found[1075 - 1001] == 36


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({}, (None, None, 1, 2, 3, None, None, None)),
        ({"fg_before": "hold"}, (1, 1, 1, 2, 3, None, None, None)),
        ({"fg_after": "hold"}, (None, None, 1, 2, 3, 3, 3, 3)),
        ({"fg_before": "loop", "fg_after": "loop"}, (2, 3, 1, 2, 3, 1, 2, 3)),
        ({"fg_range": "2-3"}, (None, None, 2, 3, None, None, None, None)),
        ({"fg_range": "1-3x2"}, (None, None, 1, 1, 3, 3, None, None)),
        ({"fg_speed": "2"}, (None, None, 1, 3, None, None, None, None)),
        ({"fg_speed": "0.5"}, (None, None, 1, 1, 2, 2, 3, 3)),
        ({"fg_speed": "-1"}, (None, None, 3, 2, 1, None, None, None)),
        ({"fg_speed": "0"}, (None, None, 1, 1, 1, 1, 1, 1)),
        ({"fg_speed": "0.1", "fg_after": "hold"}, (None, None, 1, 1, 1, 1, 1, 1)),
    ],
)
def test_own_frames_follow_start_range_speed_and_ends(knobs, expected):
    assert shown("1001-1008", [1, 2, 3], fg_start="1003", **knobs) == expected


def test_a_still_with_a_moving_matte_is_refused_whatever_their_numbers():
    for matte in ([1, 2], [7, 8]):
        with pytest.raises(MissingFrame, match="'fg_matte' is a sequence, but its element 'fg' is"):
            shown("1-2", [1], cover="still", matte=matte)


def test_a_speed_that_ramps_down_to_a_freeze_slows_over_its_line():
    speed = read_keys("1@1001; 0@1005", CURVE, "fg_speed")
    # The integral of a line from 1 to 0 over four frames is two frames.
    at = [played(speed, 1001, n) for n in (1001, 1003, 1005, 1010)]
    assert at == pytest.approx([0, 1.5, 2, 2])
    assert shown("1001-1006", [1, 2, 3], fg_speed="1@1001; 0@1005") == (1, 1, 2, 2, 3, 3)


def test_a_job_on_twos_plays_at_the_plates_time():
    assert shown("1001-1007x2", range(1, 9)) == (1, 3, 5, 7)


def test_a_still_is_there_from_its_start_on():
    assert shown("1001-1003", [7], "still") == (7, 7, 7)
    assert shown("1001-1003", [7], "still", fg_start="1002") == (None, 7, 7)
    assert shown("1001-1003", [7], "still", fg_start="1002", fg_before="hold") == (7, 7, 7)


def test_an_element_that_is_there_on_no_frame_is_refused():
    with pytest.raises(BadKnob, match="on no frame of 1001-1004") as caught:
        shown("1001-1004", [1, 2], fg_start="1100")
    assert caught.value.details["knob"] == "fg_start"


@pytest.mark.parametrize(
    ("own", "knobs", "frame"), [([1, 2, 4, 5], {}, 3), ([1, 2], {"fg_range": "1-3"}, 3)]
)
def test_a_frame_that_is_missing_is_named(own, knobs, frame):
    with pytest.raises(MissingFrame, match=f"'fg' has no frame {frame}") as caught:
        shown("1001-1004", own, **knobs)
    assert caught.value.details["frame"] == frame


def test_a_matte_that_lacks_a_shown_frame_is_named():
    with pytest.raises(MissingFrame, match="'fg_matte' has no frame 2"):
        shown("1001-1004", [1, 2, 3], matte=[1, 3])


@pytest.mark.parametrize(
    ("own", "cover", "knobs", "said"),
    [
        ([1, 2], "sequence", {"fg_start": "1001@1; 1002@2"}, "begins once"),
        ([1], "still", {"fg_range": "1-2"}, "is a still"),
    ],
)
def test_time_that_means_nothing_is_refused(own, cover, knobs, said):
    with pytest.raises(BadKnob, match=said):
        shown("1001-1004", own, cover, **knobs)
