# SPDX-License-Identifier: Apache-2.0
"""Who is in front: the knob over time, and depth within the mattes."""

import math

import numpy as np
import pytest

from gencomp_protocol.errors import BadKnob
from gencomp_server.parts.order import by_depth, changes, median_depths, parse_order

NAMES = ("a", "b", "c")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", {1001: "abc", 9999: "abc"}),
        ("c, a", {1001: "cab"}),
        ("b c a", {1001: "bca"}),
        ("a,b; 1010: b,a", {1001: "abc", 1009: "abc", 1010: "bac", 2000: "bac"}),
        ("; 1010: b", {1009: "abc", 1010: "bac"}),
        ("1010: b; 1020: c", {1009: "abc", 1010: "bac", 1020: "cab"}),
        ("c; 1010:", {1009: "cab", 1010: "abc"}),
        (" c ;1010:b,a; ", {1009: "cab", 1010: "bac"}),
        ("a; -5: b", {-6: "abc", -5: "bac"}),
    ],
)
def test_the_knob_holds_from_its_frame_on_and_names_nobody_need_name(text, wanted):
    order = parse_order(text, NAMES)
    assert {n: "".join(order.at(n)) for n in wanted} == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,z", "'z', which is not a matte"),
        ("a,a", "'a', which is not a matte of this job or stands twice"),
        ("a; 1010: b,z", "'z'"),
        ("a; b", "does not say from which frame on 'b' holds"),
        ("a; soon: b", "'soon' where the number of a frame belongs"),
        ("a; 1010.5: b", "'1010.5'"),
        ("a; : b", "'' where"),
        ("a; 1010: b; 1010: c", "frame 1010 after frame 1010"),
        ("a; 1020: b; 1010: c", "frame 1010 after frame 1020"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_with_a_cure(text, words):
    with pytest.raises(BadKnob) as caught:
        parse_order(text, NAMES)
    assert words in str(caught.value)
    assert "'order'" in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("depths", "near", "wanted"),
    [
        ((1.0, 2.0, 3.0), "small", "abc"),
        ((3.0, 2.0, 1.0), "small", "cba"),
        ((1.0, 2.0, 3.0), "large", "cba"),
        ((2.0, 2.0, 1.0), "small", "cab"),
        ((2.0, 2.0, 2.0), "large", "abc"),
        ((-1.0, -2.0, 0.0), "small", "bac"),
        ((3.0, math.nan, 1.0), "small", "cba"),
        ((math.nan, 2.0, 1.0), "small", "acb"),
        ((math.nan, math.nan, math.nan), "small", "abc"),
    ],
    ids=str,
)
def test_depth_orders_equals_keep_the_knobs_order_and_who_is_not_there_keeps_its_place(
    depths, near, wanted
):
    told = dict(zip("abc", depths, strict=True))
    assert "".join(by_depth(("a", "b", "c"), told, near)) == wanted


def test_the_median_counts_pixels_that_the_matte_shows_and_whose_depth_is_a_number():
    depth = np.array([[1, 9, 2], [3, np.nan, np.inf]], np.float32)[..., None]
    first = np.array([[1, 0.4, 1], [0.6, 1, 1]], np.float32)[..., None]
    hidden = np.array([[0.5, 0, 0], [0, 1, 1]], np.float32)[..., None]
    assert median_depths(depth, [first])[0] == 2.0
    assert math.isnan(median_depths(depth, [hidden])[0])


def test_what_is_listed_are_the_frames_at_which_the_order_changes():
    order = parse_order("a; 1003: b", ("a", "b"))
    assert changes(range(1001, 1006), order.at) == {"1001": ["a", "b"], "1003": ["b", "a"]}
