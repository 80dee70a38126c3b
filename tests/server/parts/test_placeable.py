# SPDX-License-Identifier: Apache-2.0
"""What of placing is refused from the header alone, with frame, knob and cure."""

import pytest

from gencomp_protocol.errors import BadKnob, MissingInput
from gencomp_protocol.frames import Format, FrameRange
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.parts.placeable import check_placing
from gencomp_server.placing import PlacingParams


def check(*names, **knobs):
    span = FrameRange(1001, 1050)
    entries = [InputHeader("bg", tuple(span), format=Format(1920, 1080))]
    entries += [InputHeader(name, tuple(range(1, 51)), format=Format(640, 360)) for name in names]
    request = Request("gencomposite", span, tuple(entries))
    return check_placing(request, PlacingParams(**knobs))


def test_placing_that_can_be_done_passes_and_names_the_elements():
    assert check("fg.plane", "fg.bird", scale="plane: 0.4 | 0.8") == ("plane", "bird")
    assert check("fg", trajectory="100,200; 300,220", scale="0.4@1001; 0.8@1049") == ("element",)
    assert check() == ()


@pytest.mark.parametrize("scale", ["0", "-0.5"])
def test_a_scale_of_nothing_or_less_is_refused(scale):
    with pytest.raises(BadKnob, match=f"'scale' is {scale} for 'element'; it must be above 0"):
        check("fg", scale=scale)


def test_a_scale_that_reaches_nothing_says_at_which_frame():
    with pytest.raises(BadKnob, match=r"'scale' is 0 for 'element' at frame 1021"):
        check("fg", scale="1@1001; 0@1021; 1@1050")
    with pytest.raises(BadKnob, match="at frame 1011"):
        check("fg", scale="1@1001; -1@1021")


def test_a_matrix_of_nothing_after_the_elements_end_matters_to_nobody():
    check("fg", transform="1,0,0,0,1,0@1001; 1,0,0,0,1,0@1036; 0,0,0,0,0,0@1040", fg_range="1-36")


def test_a_scale_of_nothing_after_the_elements_end_matters_to_nobody():
    check("fg", scale="1@1001; 0@1041", fg_range="1-36")


@pytest.mark.parametrize(
    "path", ["-9000,100; -8000,200", "100,90000@1001; 200,80000@1050", "1e6,0; 1e6,9"]
)
def test_a_trajectory_wholly_off_the_plate_is_refused_and_says_how_large_it_is(path):
    with pytest.raises(BadKnob, match="wholly off the plate on every frame") as caught:
        check("fg", trajectory=path)
    assert "1920x1080" in caught.value.message
    assert caught.value.details["knob"] == "trajectory"


def test_a_trajectory_that_crosses_the_plate_passes():
    check("fg", trajectory="-5000,100; 5000,200")


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"trajectory": "-3,20"}, "the point -3,20 of 'element' lies off the plate"),
        ({"trajectory": "10,20", "track_frame": 900}, "'track_frame' is 900, outside"),
        (
            {"trajectory": "10,20; 30,40", "trajectory_mode": "track"},
            "the trajectory of 'element' has 2 points",
        ),
        (
            {"trajectory": "10,20", "trajectory_mode": "keys"},
            "the points of 'element' have no frames",
        ),
        (
            {"trajectory": "10,20@1001", "trajectory_mode": "polyline"},
            "the points of 'element' have frames",
        ),
        ({"trajectory": "10"}, "is not a position"),
        ({"transform": "1,0,0,0,1,0", "trajectory": "1,1@1"}, "'transform' and 'trajectory' both"),
        ({"transform": "1,0,0,0,1,0", "rotate": "20"}, "'transform' and 'rotate' both"),
        ({"transform": "1,0,0,0,1,0@1001; 1,2,0,2,4,0@1002"}, "to nothing at frame 1002"),
        ({"transform": "1,0,0,0,1,0@1001; -1,0,300,0,1,0@1003"}, "to nothing at frame 1002"),
        ({"transform": "0,0,0,0,0,0"}, "scales 'element' to nothing."),
        ({"transform": "1,0,0,0,1,0; 1,0,0,0,1,0"}, "2 matrices for 'element' without frames"),
        ({"anchor_point": "1,2; 3,4"}, "'anchor_point' has 2 points"),
        ({"scale": "kite: 2"}, "a section for 'kite'"),
        ({"luma_low": 0.5, "luma_high": 0.5}, "'luma_high' is 0.5, not above"),
        ({"fg_start": "2000"}, "on no frame of 1001-1050"),
        ({"fg_range": "first"}, "Knob 'fg_range' of 'element': 'first' is not a frame range"),
        ({"fg_speed": "1e308"}, "'fg_speed' has a value of 1e+308"),
        ({"scale": "1e9"}, "'scale' has a value of 1e+09"),
    ],
)
def test_what_contradicts_itself_is_refused_by_name(knobs, said):
    with pytest.raises(BadKnob) as caught:
        check("fg", **knobs)
    assert said in caught.value.message
    assert caught.value.hint


def test_depth_and_element_depth_need_each_other():
    with pytest.raises(MissingInput, match="there is no input 'depth'"):
        check("fg", element_depth="10")
    with pytest.raises(BadKnob, match="'element_depth' does not say"):
        check("fg", "depth")


def test_fg_matte_is_asked_for_where_it_is_to_be_the_alpha():
    with pytest.raises(MissingInput, match="element 'element' has no input 'fg_matte'"):
        check("fg", fg_alpha="fg_matte")
