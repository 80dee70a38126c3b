# SPDX-License-Identifier: Apache-2.0
"""Short words to captions: literal sentences, one per preset."""

import pytest

from gencomp_server.parts.captions import PRESETS, caption, cut_words, short_words

CAPTIONS = {
    "none": "",
    "soft shadow": "The subject casts a soft shadow on the ground and on the surfaces beside it. "
    "Its edges are soft and blurred. "
    "The shadow stays attached to the subject and follows its movement.",
    "harsh shadow": "The subject casts a harsh shadow on the ground and on the surfaces beside it. "
    "Its edges are hard and sharply defined. "
    "The shadow stays attached to the subject and follows its movement.",
    "dust": "The subject stirs up light brown dust where it touches the ground. "
    "The dust rises, drifts behind the subject and slowly settles.",
    "smoke": "Thin white smoke rises around the subject. "
    "It is so thin that what lies behind it can be seen. "
    "The smoke billows, drifts and gradually dissipates into the air.",
    "splash": "The subject throws up a splash where it meets the water. "
    "Drops fly outwards and fall back, and ripples spread from the subject.",
    "wake": "The subject leaves a wake in the water behind it. "
    "The wake spreads outwards, foams near the subject and fades with distance.",
    "reflection": "The subject has a clear reflection in the surface below it. "
    "The reflection mirrors every movement of the subject.",
    "glow": "The subject gives off a warm glow that lights the surroundings. "
    "Its light is warm. The glow falls off with distance and moves with the subject.",
}


@pytest.mark.parametrize("preset", PRESETS)
def test_when_only_a_preset_is_chosen_then_its_caption_is_this_one(preset):
    assert caption(short_words("", preset)) == CAPTIONS[preset]


def test_when_the_prompt_names_the_presets_effect_then_the_prompt_wins():
    assert short_words("blue smoke", "smoke") == "blue smoke"


def test_when_the_prompt_says_more_than_the_preset_then_both_are_told():
    assert short_words("at dusk", "dust") == "light brown dust. at dusk"
    assert caption(short_words("at dusk", "dust")).endswith("slowly settles. at dusk")


def test_when_adjectives_start_with_a_vowel_then_the_article_fits():
    assert caption("orange glow").startswith("The subject gives off an orange glow")


def test_when_words_follow_the_effect_then_they_stay_in_the_sentence():
    told = caption("long shadow to the left")
    assert told.startswith(
        "The subject casts a long shadow on the ground and on the surfaces beside it to the left."
    )


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "make it nicer",
        "A car performs a drift and throws up dense white smoke in a wide arc.",
        "A short shadow.",
    ],
)
def test_when_the_words_are_a_caption_or_name_no_effect_then_they_stay(typed):
    assert caption(typed) == typed


def test_when_light_is_an_adjective_then_it_is_no_glow():
    assert caption("light dust").startswith("The subject stirs up light dust")
    assert caption("warm light").startswith("The subject gives off a warm glow")


def test_when_a_prompt_is_too_long_then_what_is_cut_is_named():
    def count(text):
        return len(text.split()) + 1

    assert cut_words("one two three four", count, 3) == "three four"
    assert cut_words("one two", count, 3) == ""
