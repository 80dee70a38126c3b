# SPDX-License-Identifier: Apache-2.0
"""Which alpha an element gets, that it says so, and that it is never a rectangle by accident."""

import numpy as np
import pytest

from gencomp_protocol.errors import BadKnob, BadPicture
from gencomp_protocol.frames import Box
from gencomp_server.parts.keying import Key, choose_key, keyed

BG = {1001: np.full((6, 8, 3), 0.5, np.float32)}


def picture(*, alpha=None, ground=0.0, middle=0.8):
    pixels = np.full((6, 8, 3 if alpha is None else 4), ground, np.float32)
    pixels[2:4, 3:6, :3] = middle
    if alpha is not None:
        pixels[..., 3] = alpha
    return pixels


def key_of(shot_of, pixels, *, matte=None, fg_alpha="auto"):
    clips = {"bg": BG, "fg": {1: pixels}}
    if matte is not None:
        clips["fg_matte"] = {1: matte}
    shot = shot_of("1001", clips)
    name = None if matte is None else "fg_matte"
    return shot, choose_key(shot, "fg", name, [1], fg_alpha=fg_alpha, low=0.1, high=0.5)


def test_auto_takes_the_matte_first(shot_of):
    _, key = key_of(shot_of, picture(alpha=0.5), matte=np.ones((6, 8, 1), np.float32))
    assert (key.kind, key.why) == ("fg_matte", "fg_matte: input 'fg_matte' is connected")


def test_auto_takes_an_alpha_that_says_something(shot_of):
    _, key = key_of(shot_of, picture(alpha=0.5))
    assert (key.kind, key.why) == ("alpha", "alpha: the files of 'fg' have one")


@pytest.mark.parametrize("alpha", [None, 1.0])
def test_auto_unmults_what_stands_on_black(shot_of, alpha):
    _, key = key_of(shot_of, picture(alpha=alpha))
    assert key.kind == "unmult"
    assert "stands on black" in key.why


@pytest.mark.parametrize(
    ("alpha", "why"), [(None, "it has no alpha"), (1.0, "its alpha is full everywhere")]
)
def test_auto_never_places_a_rectangle(shot_of, alpha, why):
    with pytest.raises(BadKnob, match="as a rectangle") as caught:
        key_of(shot_of, picture(alpha=alpha, ground=0.3))
    assert why in caught.value.message
    assert all(one in caught.value.hint for one in ("luma key", "unmult", "whole box"))


def test_a_crop_with_full_alpha_says_where_the_element_is(shot_of):
    display, data = Box(0, 0, 19, 9), Box(4, 2, 11, 7)
    clips = {"bg": BG, "fg": {1: picture(alpha=1.0, ground=0.3)}}
    shot = shot_of("1001", clips, windows={"fg": (display, data)})
    assert choose_key(shot, "fg", None, [1], fg_alpha="auto", low=0, high=1).kind == "alpha"


def test_alpha_is_refused_of_files_that_have_none(shot_of):
    with pytest.raises(BadKnob, match="the files of input 'fg' have none"):
        key_of(shot_of, picture(), fg_alpha="alpha")


def test_its_own_alpha_leaves_every_sample_as_it_is(shot_of):
    pixels = np.random.default_rng(0).random((6, 8, 4)).astype(np.float32) * (9, 9, 9, 1)
    shot, key = key_of(shot_of, pixels.astype(np.float16))
    made, window = keyed(shot, "fg", None, 1, key)
    assert (made == pixels.astype(np.float16)).all()
    assert window == Box(0, 0, 7, 5)


def test_a_matte_multiplies_colour_and_alpha(shot_of):
    matte = np.full((6, 8, 1), 0.25, np.float32)
    shot, key = key_of(shot_of, picture(), matte=matte)
    made, _ = keyed(shot, "fg", "fg_matte", 1, key)
    assert made[2, 3].tolist() == pytest.approx([0.2, 0.2, 0.2, 0.25])
    assert made[0, 0].tolist() == [0, 0, 0, 0.25]


def test_a_matte_of_another_size_is_refused(shot_of):
    shot, key = key_of(shot_of, picture(), matte=np.ones((5, 8, 1), np.float32))
    with pytest.raises(BadPicture, match="'fg_matte' frame 1 is 8x5, but 'fg' is 8x6"):
        keyed(shot, "fg", "fg_matte", 1, key)


def test_unmult_keeps_light_and_takes_the_brightest_channel_for_alpha(shot_of):
    pixels = picture()
    pixels[0, 0], pixels[0, 1], pixels[0, 2] = (0.1, 0.4, 0.2), (3.0, 1.0, 0.0), (-0.1, -0.2, 0)
    shot, key = key_of(shot_of, pixels, fg_alpha="unmult")
    made, _ = keyed(shot, "fg", None, 1, key)
    assert made[0, 0].tolist() == pytest.approx([0.1, 0.4, 0.2, 0.4])
    assert made[0, 1].tolist() == [3, 1, 0, 1]
    assert made[0, 2].tolist() == [0, 0, 0, 0]


def test_a_luma_key_is_a_ramp_from_low_to_high(shot_of):
    pixels = np.full((6, 8, 3), 0.3, np.float32)
    pixels[0, 0], pixels[0, 1] = 0.1, 0.6
    shot, key = key_of(shot_of, pixels, fg_alpha="luma key")
    made, _ = keyed(shot, "fg", None, 1, key)
    assert made[..., 3][0, :3].tolist() == pytest.approx([0, 1, 0.5], abs=1e-6)
    assert made[0, 2].tolist() == pytest.approx([0.15, 0.15, 0.15, 0.5], abs=1e-6)


def test_the_whole_box_is_there_for_who_asks(shot_of):
    shot, key = key_of(shot_of, picture(alpha=0.5), fg_alpha="whole box")
    assert (keyed(shot, "fg", None, 1, key)[0][..., 3] == 1).all()


def test_a_sample_that_is_not_a_number_does_not_spread(shot_of):
    pixels = picture(alpha=0.5)
    pixels[0, 0] = np.nan
    made, _ = keyed(shot_of("1001", {"bg": BG, "fg": {1: pixels}}), "fg", None, 1, Key("alpha", ""))
    assert np.isfinite(made).all()
    assert (made[2:] == pixels[2:]).all()
