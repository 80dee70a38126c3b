# SPDX-License-Identifier: Apache-2.0
"""What is said of masks before a job starts, and while it runs."""

import pytest

from gencomp_protocol.frames import FrameRange
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.finishing import EffectParams
from gencomp_server.parts.annotation import (
    Annotation,
    beyond_noise_sentence,
    bounds_sentence,
    holding_words,
    inverted_sentence,
    unmasked_frames,
)

FRAMES = (1001, 1002, 1003)
KEYED = Annotation("keyframes only", (1002,))
ALL = Annotation("every frame", FRAMES)


def request(*names):
    entries = tuple(InputHeader(name, FRAMES) for name in names)
    return Request("overplusplus", FrameRange(1001, 1003), entries, {})


def test_what_holds_out_is_named_in_one_order():
    assert holding_words(request("plate")) == ""
    said = ", inside limit, outside protect, outside keep"
    assert holding_words(request("keep", "plate", "limit", "protect")) == said


def test_when_every_frame_has_a_mask_then_the_bounds_are_one_sentence():
    said = bounds_sentence(request("plate", "effect_mask", "limit"), ALL, EffectParams())
    assert said == (
        "On 1001-1003 a change may be within effect_mask grown by 16 model pixels, inside limit. "
        "Nothing changes outside the region that the model sees."
    )
    whole = EffectParams(region="whole frame")
    assert bounds_sentence(request("plate", "effect_mask"), ALL, whole).endswith("model pixels.")


def test_when_some_frames_have_none_then_the_bounds_say_what_holds_there():
    asked = request("plate", "effect_mask")
    said = bounds_sentence(asked, KEYED, EffectParams(unknown_reach=7.5))
    assert said.endswith(
        "On 1001, 1003, without a mask, a change may be within the mask as it is interpolated "
        "there, grown by 7.5 % of the height. Nothing changes outside the region that the model "
        "sees."
    )
    free = EffectParams(unknown_bound="whole frame")
    assert "may be in the whole region around the masks." in bounds_sentence(asked, KEYED, free)
    assert unmasked_frames(asked, KEYED) == (1001, 1003)


@pytest.mark.parametrize(
    ("shares", "warns"),
    [
        ((0.95, 0.95, 0.2), True),
        ((0.95, 0.2, 0.2), False),
        ((0.95, 0.2), False),
        ((0.9, 0.9), False),
        ((), False),
    ],
)
def test_a_mask_that_covers_almost_all_of_most_frames_looks_inverted(shares, warns):
    assert bool(inverted_sentence(shares)) == warns


def test_when_nothing_bounds_a_change_then_all_that_a_model_made_may_be_delivered():
    none, free = Annotation("no mask", ()), EffectParams()
    said = beyond_noise_sentence(request("plate"), none, free, FRAMES)
    assert said.endswith("all of that may be delivered.")
    said = beyond_noise_sentence(request("plate", "protect"), none, free, FRAMES)
    assert said.endswith(
        "none of that is delivered where it is held out, elsewhere all of it may be."
    )
